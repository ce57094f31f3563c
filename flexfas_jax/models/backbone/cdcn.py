"""CDCN and CDCN++: central difference convolutions, three levels and a map.

Yu et al., "Searching Central Difference Convolutional Networks for Face Anti-Spoofing", CVPR 2020
(CDCN, CVPR2020_paper_codes/models/CDCNs.py).
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from flexfas_jax.lookup import pick
from flexfas_jax.models.layers import ConvNormRelu, MultiLevel, max_pool


class Variant(NamedTuple):
  stem: int
  blocks: tuple[tuple[int, ...], ...]  # the widths of each block's convolutions
  attention: tuple[int, ...] = ()  # kernel size of the spatial attention after each block


VARIANTS = {
  'mu': Variant(8, ((8,), (8,), (8,))),  # for tests
  'pico': Variant(8, ((16,), (32,), (32,))),  # trains on a laptop's CPU
  'cdcn': Variant(64, ((128, 196, 128),) * 3),
  'cdcnpp': Variant(64, ((128, 204, 128), (153, 128, 179, 128), (128, 153, 128)), (7, 5, 3)),
}


class Stage(nn.Module):
  """Central difference convolutions, each with BN and ReLU, then 3x3 max pooling, stride 2."""

  widths: tuple[int, ...]
  theta: float
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, mask=None):
    """[B, h, w, C] -> [B, h / 2, w / 2, D]."""
    unit, pool = ConvNormRelu, functools.partial(max_pool, window=3, stride=2, padding=1)
    if self.remat:
      unit, pool = nn.remat(ConvNormRelu, static_argnums=(2,)), jax.checkpoint(pool)  # 2: train
    for i, width in enumerate(self.widths):
      x = unit(width, theta=self.theta, dtype=self.dtype, name=f'conv_{i}')(x, train, mask)
    return pool(x)


class CDCN(nn.Module):
  """Returns the maps of the three blocks, and fourth, the neck's map, which combines them.

  Attributes:
    variant: a key of `VARIANTS`.
    theta: share of the central difference; 0 gives plain convolutions.
    map_size: side of the fourth map; None: that of the third, an eighth of the image's (the
      reference always has 32, for 256 pixels).
    stages: number of maps to compute; None computes all.
    remat: recompute the activations of each convolution with its norm and ReLU, and of max pooling,
      for the gradient instead of storing them.
    dtype: of the computation; parameters and statistics are float32.
  """

  variant: str = 'cdcn'
  theta: float = 0.7
  map_size: int | None = None
  stages: int | None = None
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  @property
  def widths(self) -> tuple[int, ...]:
    """D of each map, shallow to deep, the neck's last."""
    blocks = pick('cdcn variant', VARIANTS, self.variant).blocks
    return (*(block[-1] for block in blocks), blocks[-1][-1])[: self.stages]

  @property
  def stage_modules(self) -> tuple[nn.Module, ...]:
    """The blocks as unbound modules: (map, train, mask) -> map. The neck is not a stage."""
    v = pick('cdcn variant', VARIANTS, self.variant)
    return tuple(
      Stage(widths, self.theta, self.remat, self.dtype, parent=None) for widths in v.blocks
    )

  @nn.compact
  def __call__(self, image, train: bool = False, mask=None):
    """image [B, H, W, 3] float32 -> maps [B, H/2, W/2, D], H/4, H/8, and [B, map_size, ..., D].

    `mask` [B] bool: true for real images; the others do not enter batch statistics.
    """
    v = pick('cdcn variant', VARIANTS, self.variant)
    unit = nn.remat(ConvNormRelu, static_argnums=(2,)) if self.remat else ConvNormRelu  # 2: train
    x = unit(v.stem, theta=self.theta, dtype=self.dtype, name='conv1')(image, train, mask)
    self.sow('intermediates', 'stem', x)
    maps = []
    for i, stage in enumerate(self.stage_modules[: self.stages], 1):
      x = stage.clone(parent=self, name=f'stage_{i}')(x, train, mask)
      self.sow('intermediates', f'map_{i}', x)
      maps.append(x)
    if self.stages is None or self.stages > len(v.blocks):
      neck = MultiLevel(
        v.blocks[-1][-1], v.attention, self.map_size, self.theta, self.dtype, name='neck'
      )
      maps.append(neck(maps, train, mask))
      self.sow('intermediates', f'map_{len(maps)}', maps[-1])
    return tuple(maps)
