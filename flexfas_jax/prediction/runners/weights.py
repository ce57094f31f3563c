"""Runs `model.safetensors`: the model is built from the card's fields, so that this one needs flax.

The other runners run a graph and import nothing of ours but their inputs' checks.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from flexfas_jax.errors import StateError
from flexfas_jax.prediction import runner_inputs


def load(content: bytes, entry: Mapping[str, Any]) -> Callable[..., np.ndarray]:
  """`run({modality: [B, S, S, C] float32}, present [B, M] bool) -> logit [B] float32`.

  Args:
    content: the file's bytes, already verified; names as in our variables, joined by '/'.
    entry: of the card's `models`; its 'model' has the fields of `flexmodal.build`, its
      'weights_hash' is that of the tensors, or its 'variables_hash' where it has one.

  Raises:
    StateError: the tensors are damaged, or of another model.
  """
  import jax

  from flexfas_jax.models import flexmodal
  from flexfas_jax.models.weights import files as weight_files
  from flexfas_jax.models.weights import hashing

  model = flexmodal.build(**{**entry['model'], 'dtype': 'float32'})
  tensors = weight_files.parse(content, entry['file'])
  abstract = jax.eval_shape(model.init, jax.random.key(0))
  wanted = {_name(p): v.shape for p, v in jax.tree_util.tree_leaves_with_path(abstract)}
  found = {name: value.shape for name, value in tensors.items()}
  if wrong := sorted(name for name in wanted | found if wanted.get(name) != found.get(name)):
    raise StateError(
      f'{entry["file"]} is of another model: {wrong[0]} is {found.get(wrong[0], "missing")}, and '
      f"{wanted.get(wrong[0], 'nothing')} in the card's; get the bundle again"
    )
  variables = jax.tree_util.tree_map_with_path(lambda p, _: tensors[_name(p)], abstract)
  due = entry.get('variables_hash', entry['weights_hash'])
  if (hash_ := hashing.hash_weights(variables)) != due:
    raise StateError(
      f'{entry["file"]} holds other weights than the card says: their hash is {hash_}, not {due}; '
      'export the bundle again'
    )

  @jax.jit
  def call(variables, images, present):
    with jax.default_matmul_precision('float32'):
      maps = {m: model.encode(variables, x, m) for m, x in images.items()}
      return model.decide(variables, maps, model.absent_maps(variables), present)['logit']

  def run(images, present=None) -> np.ndarray:
    arrays = runner_inputs.feed(entry, images, present)
    present = arrays.pop('present')
    return np.asarray(call(variables, arrays, present))

  return run


def _name(path) -> str:
  return '/'.join(str(key.key) for key in path)
