"""Runs `model.safetensors`: builds the model from the fields of the card, which requires Flax.

The other runners run a graph and do not import the model code.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from flexfas_jax.errors import StateError
from flexfas_jax.prediction import runner_inputs


def load(content: bytes, entry: Mapping[str, Any]) -> Callable[..., np.ndarray]:
  """`run({modality: [B, S, S, C] float32}, present [B, M] bool) -> logit [B] float32`.

  Args:
    content: bytes of the file, already verified; tensors are named by their path, joined by '/'.
    entry: of the card's `models`; 'model' holds the fields of `flexmodal.build`, 'weights_hash' the
      hash of the tensors, or 'variables_hash' if the entry has one.

  Raises:
    StateError: the tensors are damaged or of another model.
  """
  import jax

  from flexfas_jax.models import flexmodal
  from flexfas_jax.models.weights import files as weight_files
  from flexfas_jax.models.weights import hashing

  model = flexmodal.build(**{**entry['model'], 'dtype': 'float32'})
  tensors = weight_files.parse(content, entry['file'])
  abstract = jax.eval_shape(model.init, jax.random.key(0))
  expected = {_name(p): v.shape for p, v in jax.tree_util.tree_leaves_with_path(abstract)}
  shapes = {name: value.shape for name, value in tensors.items()}
  if wrong := sorted(n for n in expected | shapes if expected.get(n) != shapes.get(n)):
    name = wrong[0]
    raise StateError(
      f'{entry["file"]} is of another model: {name} is {shapes.get(name, "missing")}; the model of '
      f'the card has {expected.get(name, "none")}. Fetch the bundle again'
    )
  variables = jax.tree_util.tree_map_with_path(lambda p, _: tensors[_name(p)], abstract)
  expected_hash = entry.get('variables_hash', entry['weights_hash'])
  if (hash_ := hashing.hash_weights(variables)) != expected_hash:
    raise StateError(
      f'{entry["file"]} does not match the card: the hash of its weights is {hash_}, not '
      f'{expected_hash}; export the bundle again'
    )

  @jax.jit
  def call(variables, images, present):
    with jax.default_matmul_precision('float32'):
      maps = model.encode_all(variables, images, present)
      return model.decide(variables, maps, model.absent_maps(variables), present)['logit']

  def run(images, present=None) -> np.ndarray:
    arrays = runner_inputs.model_inputs(entry, images, present)
    present = arrays.pop('present')
    return np.asarray(call(variables, arrays, present))

  return run


def _name(path) -> str:
  return '/'.join(str(key.key) for key in path)
