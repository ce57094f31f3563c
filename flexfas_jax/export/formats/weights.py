"""Weights as safetensors: as variables, and under timm's names where timm has the network."""

from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save

from flexfas_jax.models.weights import conversion, hashing

FIXED_SUBSETS = False


def check() -> None:
  """Requires no extra."""


def write(graph, trained, folder: Path, val=None) -> list[dict]:
  """Writes `model.safetensors`, and `timm*.safetensors` with each stream whose backbone timm has.

  Args:
    graph: see `graph.Graph`.
    trained: the exported `TrainedModel`.
    folder: of the bundle.
    val: unused.

  Returns:
    The entry of the card's `models`.
  """
  del val
  tensors = {
    '/'.join(str(key.key) for key in path): np.ascontiguousarray(value)
    for path, value in jax.tree_util.tree_leaves_with_path(trained.variables)
  }
  metadata = {'format': 'flexfas_jax', 'weights_hash': trained.weights_hash}
  (folder / 'model.safetensors').write_bytes(save(tensors, metadata))
  for stream in sorted(k for k in trained.variables['params'] if k.startswith('streams_')):
    _write_timm(stream.removeprefix('streams_'), trained, folder)
  entry = graph.card_entry('weights', 'model.safetensors')
  entry |= {'model': trained.fields, 'weights_hash': trained.weights_hash}
  # A ViT trained with `scan` is unstacked here: the same numbers under other names.
  if (variables_hash := hashing.hash_weights(trained.variables)) != trained.weights_hash:
    entry['variables_hash'] = variables_hash
  return [entry]


def timm_name(backbone: dict) -> str | None:
  """The key of timm's architecture with a backbone's fields; None if timm has none."""
  variant = backbone.get('variant')
  if backbone['name'] == 'resnet':
    return {v: f'timm/resnet{v}' for v in ('18', '34', '50')}.get(variant)
  plain = {'patch_size': 16, 'stem': 'patch', 'layer_scale': 0.0}
  if backbone['name'] == 'vit' and all(backbone.get(k, v) == v for k, v in plain.items()):
    sizes = {'Ti': 'tiny', 'S': 'small', 'B': 'base', 'L': 'large'}
    return f'timm/vit_{sizes[variant]}_patch16_224' if variant in sizes else None
  return None


def _write_timm(stream: str, trained, folder: Path) -> None:
  """Writes `timm.safetensors` for a shared stream, `timm_MODALITY.safetensors` for others."""
  if (name := timm_name(trained.fields['backbone'])) is None:
    return
  tensors = conversion.to_torch(trained.variables, name, stream)
  file = 'timm.safetensors' if stream == 'shared' else f'timm_{stream}.safetensors'
  (folder / file).write_bytes(save(tensors, {'format': 'pt', 'architecture': name}))
