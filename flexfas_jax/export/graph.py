"""The functions to export: a model as one function of arrays, with its weights as constants.

any subset:        (rgb, depth, ir, present) -> logit
a fixed subset:    (rgb,) -> logit              the other streams are left out
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flexfas_jax import schema
from flexfas_jax.schema import subset_name


class Graph(NamedTuple):
  """One function to export.

  Attributes:
    stem: of its files' names.
    modalities: of its input images, in order.
    present: whether it has the input `present`; otherwise all its modalities are present.
    image_size: pixels along a side.
    function: (*images [B, S, S, C] float32, present [B, M] bool) -> logit [B] float32.
  """

  stem: str
  modalities: tuple[str, ...]
  present: bool
  image_size: int
  function: Callable[..., jax.Array]

  @property
  def names(self) -> list[str]:
    """Of the inputs, in order."""
    return [*self.modalities, 'present'] if self.present else list(self.modalities)

  def inputs(self, B: int | str) -> list[dict[str, Any]]:
    """The inputs for the card: name, shape, dtype."""
    S = self.image_size
    inputs = [
      {'name': m, 'shape': [B, S, S, schema.channels(m)], 'dtype': 'float32'}
      for m in self.modalities
    ]
    if self.present:
      inputs.append({'name': 'present', 'shape': [B, len(self.modalities)], 'dtype': 'bool'})
    return inputs

  def shapes(self, B) -> list[jax.ShapeDtypeStruct]:
    """The inputs for tracing; B is an int or a symbolic dimension."""
    return [
      jax.ShapeDtypeStruct((B, *x['shape'][1:]), np.dtype(x['dtype'])) for x in self.inputs(1)
    ]

  def card_entry(
    self, format: str, file: str, precision: str = 'float32', B: int | str = 'B'
  ) -> dict[str, Any]:
    """The card's entry of a file with this graph."""
    return {
      'file': file,
      'format': format,
      'precision': precision,
      'modalities': list(self.modalities),
      'present': self.present,
      'inputs': self.inputs(B),
      'outputs': [{'name': 'logit', 'shape': [B], 'dtype': 'float32'}],
    }


def build(model, variables, subset: Sequence[str] | None = None) -> Graph:
  """The graph for any subset of the modalities, or for a fixed one.

  Matrix products are float32 on every chip. By default a TPU rounds to bfloat16 and a GPU to TF32,
  and decisions could differ from those that were evaluated.

  Args:
    model: a `flexmodal.Model` that computes in float32.
    variables: its weights, NumPy arrays.
    subset: of the modalities, in their order; None: all, each of which may be absent.
  """
  used = tuple(subset or model.modalities)
  # Convert once: then streams that share an array share one constant.
  variables = jax.tree.map(jnp.asarray, variables)
  # Constants in the graph. Were the encoding of a blank image in it, XLA would fold it for minutes
  # whenever the file is loaded.
  with jax.default_matmul_precision('float32'):
    absent = jax.jit(model.absent_maps)(variables)

  def function(*arrays):
    images = dict(zip(used, arrays, strict=False))
    with jax.default_matmul_precision('float32'):
      maps = model.encode_all(variables, images, arrays[-1] if subset is None else None)
      if subset is None:
        return model.decide(variables, maps, absent, arrays[-1])['logit']
      present = np.array([[m in used for m in model.modalities]])
      # With a static batch, compute now what depends on the weights alone: among the placeholders
      # of absent modalities, whole attentions.
      static = all(isinstance(x.shape[0], int) for x in arrays)
      with jax.ensure_compile_time_eval() if static else contextlib.nullcontext():
        return model.decide(variables, maps, absent, jnp.asarray(present))['logit']

  stem = 'model' if subset is None else f'model_{subset_name(used)}'
  return Graph(stem, used, subset is None, model.image_size, function)
