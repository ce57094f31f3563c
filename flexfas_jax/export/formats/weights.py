"""Weights: safetensors by our names, and by timm's where timm has such a network."""

from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save

from flexfas_jax.models.weights import conversion, hashing

SUBSETS = False


def check() -> None:
  """It needs nothing that is not here."""


def write(graph, source, folder: Path) -> list[dict]:
  """`model.safetensors`, and `timm*.safetensors` with each stream's backbone where it is timm's.

  Args:
    graph: see `graph.Graph`.
    source: `bundle.Source`: the config's fields of the model and its variables.
    folder: of the bundle.

  Returns:
    The entry of the card's `models`.
  """
  tensors = {
    '/'.join(str(key.key) for key in path): np.ascontiguousarray(value)
    for path, value in jax.tree_util.tree_leaves_with_path(source.variables)
  }
  about = {'format': 'flexfas_jax', 'weights_hash': source.weights_hash}
  (folder / 'model.safetensors').write_bytes(save(tensors, about))
  for stream in sorted(k for k in source.variables['params'] if k.startswith('streams_')):
    _write_timm(stream.removeprefix('streams_'), source, folder)
  entry = {'model': source.fields, 'weights_hash': source.weights_hash}
  # Blocks that were trained in a loop are unrolled here: the same numbers under other names.
  if (found := hashing.hash_weights(source.variables)) != source.weights_hash:
    entry['variables_hash'] = found
  return [graph.about('weights', 'model.safetensors') | entry]


def timm_name(backbone: dict) -> str | None:
  """The architecture of timm that a backbone's fields describe, as `foreign_names` calls it."""
  variant = backbone.get('variant')
  if backbone['name'] == 'resnet':
    return {v: f'timm/resnet{v}' for v in ('18', '34', '50')}.get(variant)
  if backbone['name'] == 'vit' and backbone.get('patch_size', 16) == 16:
    sizes = {'Ti': 'tiny', 'S': 'small', 'B': 'base', 'L': 'large'}
    return f'timm/vit_{sizes[variant]}_patch16_224' if variant in sizes else None
  return None


def _write_timm(stream: str, source, folder: Path) -> None:
  """`timm.safetensors` of a shared stream, `timm_MODALITY.safetensors` of one by itself."""
  if (name := timm_name(source.fields['backbone'])) is None:
    return
  tensors = conversion.to_torch(source.variables, name, stream)
  file = 'timm.safetensors' if stream == 'shared' else f'timm_{stream}.safetensors'
  (folder / file).write_bytes(save(tensors, {'format': 'pt', 'architecture': name}))
