"""Masked pretraining of one ViT on several modalities, after M2A2E (Yu et al., IJCV 2024).

    tokens = encoder(visible patches of ONE modality)    the source, drawn for each sample
    {m: patches} = decoder(tokens, m)                    for every modality m, the target

The mask hides a part of the source's patches. The decoder rebuilds the hidden patches of the source
and all patches of the other modalities, of which the encoder sees nothing. The paper has no public
code; what it leaves open follows MAE (He et al., "Masked Autoencoders Are Scalable Vision
Learners", CVPR 2022): the encoder runs on class token and visible tokens, the decoder on these and
a mask token for each hidden patch, with fixed sine and cosine positions; targets are patches of
mean 0 and variance 1.

Hidden patches are set to 0 in the image, before the encoder. For a linear projection of patches
this changes nothing. A stem of convolutions would otherwise read pixels of hidden patches into
visible tokens.

B batch, M modalities, N = h w patches, n of them visible, p pixels along a patch, C channels, P
prefix tokens, D width.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from flexfas_jax import lookup, schema
from flexfas_jax.errors import ConfigError
from flexfas_jax.models import flexmodal
from flexfas_jax.models.hooks import Context
from flexfas_jax.models.transformer import Stage

EPSILON = 1e-6  # added to a patch's variance, of pixels in about [-1, 1]

# What the encoder must be, as a field of `ViT`: (value, why another one does not work).
_NEEDED = {
  'sequence': ('separate', 'the encoder sees one modality'),
  'adapters': ((), 'adapters are added to pretrained weights'),
  'per_modality': ((), 'one encoder serves all modalities'),
  'positions': ('learned', 'rotary positions need every patch'),
  'projection': (0, 'the decoder reads tokens'),
  'stages': (None, 'all blocks are pretrained'),
}


def to_patches(image: jax.Array, grid: tuple[int, int]) -> jax.Array:
  """[B, H, W, C] -> [B, N, p p C], float32; row by row, as are the pixels of a patch."""
  B, H, W, C = image.shape
  h, w = grid
  x = image.astype(jnp.float32).reshape(B, h, H // h, w, W // w, C)
  return jnp.moveaxis(x, 2, 3).reshape(B, h * w, -1)


def to_image(patches: jax.Array, grid: tuple[int, int], channels: int) -> jax.Array:
  """The inverse of `to_patches`: [B, N, p p C] -> [B, H, W, C]."""
  B, h, w = patches.shape[0], *grid
  p = round((patches.shape[-1] / channels) ** 0.5)
  x = patches.reshape(B, h, w, p, p, channels)
  return jnp.moveaxis(x, 3, 2).reshape(B, h * p, w * p, channels)


def patch_statistics(patches: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Mean and standard deviation of each patch's values, [B, N, 1] each."""
  mean = patches.mean(-1, keepdims=True)
  return mean, jnp.sqrt(patches.var(-1, keepdims=True) + EPSILON)


def patch_errors(
  reconstruction: Mapping[str, jax.Array],
  images: Mapping[str, jax.Array],
  modalities: tuple[str, ...],
) -> jax.Array:
  """Mean squared error of each patch, [B, M, N] float32.

  Args:
    reconstruction: {modality: [B, N, p p C]}, of patches with mean 0 and variance 1.
    images: {modality: [B, H, W, C]}.
    modalities: M, in the order of the result.
  """
  errors = []
  for m in modalities:
    N, side = reconstruction[m].shape[1], images[m].shape[1]
    p = round((reconstruction[m].shape[-1] / images[m].shape[-1]) ** 0.5)
    patches = to_patches(images[m], (side // p, N * p // side))
    mean, deviation = patch_statistics(patches)
    errors.append(jnp.square(reconstruction[m] - (patches - mean) / deviation).mean(-1))
  return jnp.stack(errors, 1)


def sine_positions(grid: tuple[int, int], width: int) -> np.ndarray:
  """Positions [N, width] float32: half of the channels for the row, half for the column.

  Each half has the sines, then the cosines, of place / 10000^(i / (width / 4)) (MAE,
  util/pos_embed.py, which begins with the column).
  """
  rate = 10_000.0 ** (-np.arange(width // 4) / (width // 4))
  h, w = grid
  rows, columns = (place.reshape(-1, 1) * rate for place in np.mgrid[:h, :w])
  parts = (np.sin(rows), np.cos(rows), np.sin(columns), np.cos(columns))
  return np.concatenate(parts, 1).astype(np.float32)


class Decoder(nn.Module):
  """One trunk for all target modalities, which an embedding names, and a last layer for each.

  Attributes:
    modalities: M.
    values: of a patch of each modality, p p C.
    width, depth, heads: of its transformer blocks.
    remat: recompute a block's activations for the gradient.
    dtype: of the computation.
  """

  modalities: tuple[str, ...]
  values: tuple[int, ...]
  width: int = 512
  depth: int = 4
  heads: int = 16
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, tokens, order, grid: tuple[int, int], n: int, train: bool = False):
    """Patches of every modality, {m: [B, N, p p C]} float32.

    Args:
      tokens: of the encoder, [B, P + n, D].
      order: [B, N] int, the patches; the first n are those of `tokens`, in this order.
      grid: (h, w).
      n: of visible patches.
      train: as in `Stage`.
    """
    N, M, D = order.shape[1], len(self.modalities), self.width
    normal = nn.initializers.normal(0.02)
    x = nn.Dense(D, dtype=self.dtype, name='embed')(tokens)
    B, P = x.shape[0], x.shape[1] - n
    mask_token = self.param('mask_token', normal, (1, 1, D)).astype(x.dtype)
    patches = jnp.concatenate([x[:, P:], jnp.broadcast_to(mask_token, (B, N - n, D))], 1)
    patches = jnp.take_along_axis(patches, jnp.argsort(order, 1)[:, :, None], 1)  # [B, N, D]
    patches = patches + jnp.asarray(sine_positions(grid, D), x.dtype)[None]
    x = jnp.concatenate([x[:, :P], patches], 1)  # [B, P + N, D]
    target = self.param('target', normal, (M, D)).astype(x.dtype)
    x = (x[:, None] + target[None, :, None]).reshape(B * M, P + N, D)
    trunk = Stage(
      first=0,
      end=self.depth,
      width=D,
      block=FrozenDict(heads=self.heads),
      remat=self.remat,
      dtype=self.dtype,
      name='trunk',
    )
    x = trunk(x, train, context=Context(grid=grid, prefix=P))
    x = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name='norm')(x)
    x = x[:, P:].reshape(B, M, N, D)
    return {
      m: nn.Dense(values, dtype=self.dtype, name=f'to_{m}')(x[:, i]).astype(jnp.float32)
      for i, (m, values) in enumerate(zip(self.modalities, self.values, strict=True))
    }


class MaskedAutoencoder(nn.Module):
  """Encoder and decoder.

  Attributes:
    streams: {'shared': the encoder, a `ViT`}; its parameters have the names of a stream of
      `FlexModal`, which `pretrained.into = 'streams'` copies.
    decoder: see `Decoder`.
    modalities: in the order of `present`'s columns.
    visible: n, patches of the source that the encoder sees.
  """

  streams: Mapping[str, nn.Module]
  decoder: nn.Module
  modalities: tuple[str, ...]
  visible: int

  def __call__(self, batch: Mapping[str, jax.Array], source, noise, train: bool = False):
    """Rebuilds all modalities from one.

    Args:
      batch: images by modality [B, H, W, C] and 'present' [B, M] bool.
      source: [B] int, the index of the modality that the encoder sees.
      noise: [B, N] float; the patches with the n smallest values are visible.
      train: batch norm of a stem uses the batch's statistics, and dropout is active.

    Returns:
      {'reconstruction': {modality: [B, N, p p C]}, 'hidden': [B, N] bool, 'patch_error' and
      'patch_weight': [B, M, N]}, the arrays float32. The weight is 1 for patches that count: hidden
      ones of the source, all of other modalities, none of an absent one.
    """
    # Pixels of an absent modality must not reach batch statistics, nor a NaN the gradient.
    images = {
      m: jnp.where(batch['present'][:, i, None, None, None], batch[m], 0.0)
      for i, m in enumerate(self.modalities)
    }
    H, W = images[self.modalities[0]].shape[1:3]
    p = self.streams['shared'].patch_size
    grid = H // p, W // p
    order = jnp.argsort(noise, 1)
    hidden = jnp.argsort(order, 1) >= self.visible  # [B, N]
    chosen = jax.nn.one_hot(source, len(self.modalities), dtype=bool)  # [B, M]
    shape = (*images[self.modalities[0]].shape[:3], 3)
    image = jnp.zeros(shape)
    for i, m in enumerate(self.modalities):
      image = jnp.where(chosen[:, i, None, None, None], jnp.broadcast_to(images[m], shape), image)
    is_there = (chosen & batch['present']).any(1)
    seen = jnp.repeat(jnp.repeat(~hidden.reshape(-1, *grid), p, 1), p, 2)  # [B, H, W]
    image = jnp.where(seen[:, :, :, None], image, 0.0)
    # The rows have several modalities; nothing of the encoder depends on which.
    context = Context(modalities=('any',), every=('any',), keep=order[:, : self.visible])
    tokens = self.streams['shared'](image, train, is_there, context)[-1]
    reconstruction = self.decoder(tokens, order, grid, self.visible, train)
    counts = (hidden[:, None] | ~chosen[:, :, None]) & batch['present'][:, :, None]  # [B, M, N]
    return {
      'reconstruction': reconstruction,
      'hidden': hidden,
      'patch_error': patch_errors(reconstruction, images, self.modalities),
      'patch_weight': counts.astype(jnp.float32),
    }


def draw_source(key: jax.Array, present: jax.Array) -> jax.Array:
  """A modality that is there for each sample, by its index: [B, M] bool -> [B] int."""
  return jnp.where(present, jax.random.uniform(key, present.shape), -1.0).argmax(1)


class MaskedModel:
  """A `MaskedAutoencoder` as pure functions: what training needs of a `flexmodal.Model`."""

  requires: tuple[str, ...] = ()
  cross_modal = False

  def __init__(self, module: MaskedAutoencoder, image_size: int) -> None:
    self.module = module
    self.modalities = module.modalities
    self.image_size = image_size

  @property
  def grid(self) -> tuple[int, int]:
    """(h, w) of the patches."""
    side = self.image_size // self.module.streams['shared'].patch_size
    return side, side

  @property
  def patches(self) -> int:
    """N."""
    return self.grid[0] * self.grid[1]

  @property
  def subsets(self) -> tuple[tuple[str, ...], ...]:
    """What the encoder sees: each modality alone."""
    return tuple((m,) for m in self.modalities)

  def init(self, key: jax.Array) -> dict[str, Any]:
    """Fresh variables, float32."""
    size = self.image_size
    batch: dict[str, Any] = {
      m: jnp.zeros((1, size, size, schema.channels(m))) for m in self.modalities
    }
    batch['present'] = jnp.ones((1, len(self.modalities)), bool)
    source, noise = jnp.zeros((1,), int), jnp.zeros((1, self.patches))
    return {'batch_stats': {}, **self.module.init({'params': key}, batch, source, noise)}

  def shapes(self) -> dict[str, Any]:
    """Variables as `jax.ShapeDtypeStruct`."""
    shapes: dict[str, Any] = jax.eval_shape(self.init, jax.random.key(0))
    return shapes

  def output_shapes(self) -> dict[str, Any]:
    """Outputs of `apply` for a batch of two; as `shapes`."""
    size = self.image_size
    batch = {
      m: jax.ShapeDtypeStruct((2, size, size, schema.channels(m)), jnp.float32)
      for m in self.modalities
    }
    batch['present'] = jax.ShapeDtypeStruct((2, len(self.modalities)), bool)
    outputs: dict[str, Any]
    outputs, _ = jax.eval_shape(self.apply, self.shapes(), batch, jax.random.key(0))
    return outputs

  def apply(
    self, variables: Mapping[str, Any], batch: Mapping[str, jax.Array], key: jax.Array
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    """The training pass: (outputs, new batch statistics).

    `key` draws each sample's source, among the modalities that it has, and mask; it feeds dropout.
    """
    source_key, mask_key, dropout_key = jax.random.split(key, 3)
    present = batch['present']
    source = draw_source(source_key, present)
    noise = jax.random.uniform(mask_key, (present.shape[0], self.patches))
    outputs, changed = self.module.apply(
      variables,
      batch,
      source,
      noise,
      train=True,
      rngs={'dropout': dropout_key},
      mutable=['batch_stats'],
    )
    return outputs, changed.get('batch_stats', {})

  def reconstruct(
    self,
    variables: Mapping[str, Any],
    batch: Mapping[str, jax.Array],
    source: jax.Array,
    noise: jax.Array,
  ) -> dict[str, Any]:
    """The outputs for evaluation; arguments as in `MaskedAutoencoder`."""
    outputs: dict[str, Any] = self.module.apply(variables, batch, source, noise)
    return outputs


def build(
  backbone: Mapping[str, Any],
  decoder: Mapping[str, Any],
  modalities: tuple[str, ...] = ('rgb', 'depth', 'ir'),
  image_size: int = 224,
  mask_ratio: float = 0.4,
  dtype: str = 'float32',
) -> MaskedModel:
  """Builds the model of a config's group `model` that has a `decoder`.

  Args:
    backbone: {'name': 'vit', **fields of `ViT`}.
    decoder: width, depth and heads of `Decoder`.
    modalities: in the order of `present`'s columns.
    image_size: pixels along a side of the square input.
    mask_ratio: part of the source's patches that is hidden.
    dtype: of the computation, 'float32' or 'bfloat16'; parameters are float32.

  Raises:
    ConfigError: an unknown field, or a value that does not work.
  """
  if dtype not in ('float32', 'bfloat16'):
    raise ConfigError(f"unknown dtype {dtype!r}; choose 'float32' or 'bfloat16'")
  if backbone.get('name') != 'vit':
    raise ConfigError(
      f"config.model.backbone.name is {backbone.get('name')!r}; masked pretraining needs 'vit', "
      'which can leave out patches'
    )
  compute, modalities = jnp.dtype(dtype), flexmodal.check_modalities(modalities)
  fields = {k: tuple(v) if isinstance(v, list) else v for k, v in backbone.items()}
  stream = lookup.make('backbone', **{'image_size': image_size, **fields}, dtype=compute)
  for field, (value, why) in _NEEDED.items():
    if getattr(stream, field) != value:
      raise ConfigError(
        f'config.model.backbone.{field} is {getattr(stream, field)!r}; masked pretraining needs '
        f'{value!r}: {why}'
      )
  p = stream.patch_size
  if image_size % p:
    raise ConfigError(
      f'config.model.image_size = {image_size} is not a multiple of the patch size {p}'
    )
  N = (image_size // p) ** 2
  if not isinstance(mask_ratio, float) or not 1 <= int(N * (1 - mask_ratio)) < N:
    raise ConfigError(
      f'config.model.mask_ratio is {mask_ratio!r}; give a part of the {N} patches above 0 and '
      'below 1 that leaves one visible and one hidden'
    )
  if unknown := sorted(set(decoder) - {'width', 'depth', 'heads'}):
    raise ConfigError(
      f'config.model.decoder has no field {unknown[0]!r}; it has: width, depth, heads'
    )
  trunk = Decoder(
    modalities,
    tuple(p * p * schema.channels(m) for m in modalities),
    **decoder,
    remat=stream.remat,
    dtype=compute,
  )
  if trunk.width % 4 or trunk.width % trunk.heads:
    raise ConfigError(
      f'config.model.decoder.width = {trunk.width} is not a multiple of 4 and of its '
      f'{trunk.heads} heads'
    )
  return MaskedModel(
    MaskedAutoencoder(
      streams=FrozenDict(shared=stream),
      decoder=trunk,
      modalities=modalities,
      visible=int(N * (1 - mask_ratio)),
    ),
    image_size,
  )
