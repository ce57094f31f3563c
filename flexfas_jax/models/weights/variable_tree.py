"""A model's variables as (path, array) pairs, and the two forms of a ViT's blocks.

A ViT with `scan=True` (`models/backbone/vit.py`) stacks the parameters of its blocks. Files hold
them block by block, so variables are unstacked before they are compared or written.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from flexfas_jax.errors import StateError
from flexfas_jax.models.backbone import vit
from flexfas_jax.models.weights.files import list_names

Path = tuple[str, ...]  # ('params', 'streams_shared', 'conv1', 'kernel')


def flatten(tree) -> list[tuple[Path, Any]]:
  """(path, array) of every leaf."""
  return [
    (tuple(k.key for k in path), value) for path, value in jax.tree_util.tree_leaves_with_path(tree)
  ]


def unflatten(pairs: Iterable[tuple[Path, Any]]) -> dict[str, Any]:
  """{'params': ..., 'batch_stats': ...} of (path, array) pairs; the inverse of `flatten`."""
  result = {'params': {}, 'batch_stats': {}}
  for path, value in pairs:
    tree = result
    for key in path[:-1]:
      tree = tree.setdefault(key, {})
    tree[path[-1]] = value
  return result


def get(tree, path: Path):
  """The leaf at a path."""
  for key in path:
    tree = tree[key]
  return tree


def unstack(variables) -> dict[str, Any]:
  """Variables in which every block of a scanned ViT has its own entry."""
  flat = []
  for path, value in flatten(variables):
    paths = vit.unstacked_paths(path, value.shape)
    flat += [(path, value)] if paths == [path] else zip(paths, value, strict=True)
  return unflatten(flat)


def stack(arrays: Mapping[Path, Any], like) -> dict[Path, Any]:
  """Arrays by block, as `unstack` names them, under the paths of `like`; the inverse of `unstack`.

  Paths whose arrays are incomplete are left out.
  """
  stacked = {}
  for path, value in flatten(like):
    paths = vit.unstacked_paths(path, value.shape)
    parts = [arrays[p] for p in paths if p in arrays]
    if len(parts) == len(paths):
      stacked[path] = parts[0] if paths == [path] else jnp.stack(parts)
  return stacked


def restack(variables, like) -> dict[str, Any]:
  """A model's variables for the same model with another `scan`.

  Args:
    variables: of the first model.
    like: of the second; shapes are enough.

  Raises:
    StateError: the models differ in more than `scan`.
  """
  arrays = dict(flatten(unstack(variables)))
  shapes = {path: value.shape for path, value in arrays.items()}
  expected = {path: value.shape for path, value in flatten(jax.eval_shape(unstack, like))}
  if different := sorted({path for path, _ in shapes.items() ^ expected.items()}):
    names = list_names(map('/'.join, different))
    raise StateError(f'the variables belong to another model; these differ: {names}')
  return unflatten(stack(arrays, like).items())
