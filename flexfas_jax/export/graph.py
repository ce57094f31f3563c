"""What is exported: the model as one function of arrays, its weights inside.

all modalities:    (rgb, depth, ir, present) -> logit
some, fixed:       (rgb,) -> logit              the other streams are not in it
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flexfas_jax.schema import subset_name


class Graph(NamedTuple):
  """One function to export.

  Attributes:
    stem: of its files' names.
    modalities: whose images it takes, in order.
    present: whether it takes `present` too; else all of them are there.
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
    """Of its inputs, in order."""
    return [*self.modalities, *(['present'] if self.present else [])]

  def inputs(self, B: int | str) -> list[dict[str, Any]]:
    """Its inputs as the card has them: name, shape, dtype."""
    S = self.image_size
    images = [
      {'name': m, 'shape': [B, S, S, 3 if m == 'rgb' else 1], 'dtype': 'float32'}
      for m in self.modalities
    ]
    present = {'name': 'present', 'shape': [B, len(self.modalities)], 'dtype': 'bool'}
    return images + ([present] if self.present else [])

  def shapes(self, B) -> list[jax.ShapeDtypeStruct]:
    """The same for tracing; B: an int or a symbolic dimension."""
    return [
      jax.ShapeDtypeStruct((B, *one['shape'][1:]), np.dtype(one['dtype'])) for one in self.inputs(1)
    ]

  def about(self, format: str, file: str, precision: str = 'float32', B: int | str = 'B') -> dict:
    """What the card says of a file with this graph."""
    return {
      'file': file,
      'format': format,
      'precision': precision,
      'modalities': list(self.modalities),
      'present': self.present,
      'inputs': self.inputs(B),
      'outputs': [{'name': 'logit', 'shape': [B], 'dtype': 'float32'}],
    }


def make(model, variables, subset: Sequence[str] | None = None) -> Graph:
  """The graph for all modalities with `present`, or for a fixed subset.

  Products are of float32 on every chip: by default a TPU would round to bfloat16 and a GPU to
  TF32, and decide otherwise than what was judged.

  Args:
    model: a `flexmodal.Model` that computes in float32.
    variables: its weights, NumPy arrays.
    subset: of the modalities, in their order; None: all, and any of them may be absent.
  """
  used = tuple(subset or model.modalities)
  # Once: the same array is one constant, however many streams read it.
  variables = jax.tree.map(jnp.asarray, variables)
  # By the weights alone: numbers in the graph, not the encoding of a blank picture, which XLA would
  # fold for minutes whenever the file is loaded.
  with jax.default_matmul_precision('float32'):
    absent = jax.jit(model.absent_maps)(variables)

  def function(*arrays):
    images = dict(zip(used, arrays, strict=False))
    with jax.default_matmul_precision('float32'):
      maps = {m: model.encode(variables, image, m) for m, image in images.items()}
      if subset is None:
        return model.decide(variables, maps, absent, arrays[-1])['logit']
      there = np.array([[m in used for m in model.modalities]])
      # What follows from the weights alone is computed now, where the batch has a number: among
      # the stand-ins of absent modalities, whole attentions.
      static = all(isinstance(x.shape[0], int) for x in arrays)
      with jax.ensure_compile_time_eval() if static else contextlib.nullcontext():
        return model.decide(variables, maps, absent, jnp.asarray(there))['logit']

  name = '' if subset is None else f'_{subset_name(used)}'
  return Graph(f'model{name}', used, subset is None, model.image_size, function)
