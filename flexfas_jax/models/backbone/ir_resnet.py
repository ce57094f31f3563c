"""IR-50, a face recognition network of ArcFace's PyTorch ports, in the form that MM-FAS uses.

Deng et al., "ArcFace", CVPR 2019: residual units with batch norm first and PReLU between
(ChaLearn_liveness_challenge, models/architectures/ir_se_dlas.py). Faces of 112 pixels.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from flexfas_jax.lookup import pick
from flexfas_jax.models.layers import Conv, Norm, PReLU


class Variant(NamedTuple):
  units: tuple[int, ...]
  width: int


VARIANTS = {
  'mu': Variant((1, 1, 1, 1), 8),  # for tests
  'pico': Variant((1, 1, 1, 1), 8),  # trains on a laptop's CPU
  '50': Variant((3, 4, 14, 3), 64),
  '100': Variant((3, 13, 30, 3), 64),
  '152': Variant((3, 8, 36, 3), 64),
}


class Unit(nn.Module):
  """BN, conv, PReLU, strided conv, BN; the shortcut subsamples, or projects to a new width."""

  width: int
  stride: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, mask=None):
    def norm(y, name):
      return Norm(self.dtype, name=name)(y, train, mask)

    y = Conv(self.width, dtype=self.dtype, name='conv1')(norm(x, 'bn1'))
    y = Conv(self.width, 3, self.stride, dtype=self.dtype, name='conv2')(PReLU(name='prelu')(y))
    y = norm(y, 'bn2')
    if x.shape[-1] == self.width:
      return y + x[:, :: self.stride, :: self.stride]
    x = Conv(self.width, 1, self.stride, dtype=self.dtype, name='shortcut_conv')(x)
    return y + norm(x, 'shortcut_bn')


class Stage(nn.Module):
  """Units of one width, the first at stride 2: [B, h, w, C] -> [B, h / 2, w / 2, D]."""

  units: int
  width: int
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, mask=None):
    unit = nn.remat(Unit, static_argnums=(2,)) if self.remat else Unit  # 2: train
    for i in range(self.units):
      x = unit(self.width, 1 if i else 2, self.dtype, name=f'unit_{i}')(x, train, mask)
    return x


class IRResNet(nn.Module):
  """Returns the maps of its four stages.

  Attributes:
    variant: a key of `VARIANTS`.
    stages: number of stages to run; None runs all.
    remat: recompute a unit's activations for the gradient instead of storing them.
    dtype: of the computation; parameters and statistics are float32.
  """

  variant: str = '50'
  stages: int | None = None
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  @property
  def widths(self) -> tuple[int, ...]:
    """D of each stage map, shallow to deep."""
    v = pick('ir_resnet variant', VARIANTS, self.variant)
    return tuple(v.width * 2**i for i in range(len(v.units)))[: self.stages]

  @property
  def stage_modules(self) -> tuple[nn.Module, ...]:
    """The stages as unbound modules: (map, train, mask) -> map."""
    v = pick('ir_resnet variant', VARIANTS, self.variant)
    return tuple(
      Stage(n, v.width * 2**i, self.remat, self.dtype, parent=None) for i, n in enumerate(v.units)
    )

  @nn.compact
  def __call__(self, image, train: bool = False, mask=None):
    """image [B, H, W, 3] float32 -> maps [B, H/2, W/2, D] ... [B, H/16, W/16, 8 D].

    `mask` [B] bool: true for real images; the others do not enter batch statistics.
    """
    width = pick('ir_resnet variant', VARIANTS, self.variant).width
    x = Conv(width, dtype=self.dtype, name='conv1')(image)
    x = PReLU(name='prelu1')(Norm(self.dtype, name='bn1')(x, train, mask))
    self.sow('intermediates', 'stem', x)
    maps = []
    for i, stage in enumerate(self.stage_modules[: self.stages], 1):
      x = stage.clone(parent=self, name=f'stage_{i}')(x, train, mask)
      self.sow('intermediates', f'map_{i}', x)
      maps.append(x)
    return tuple(maps)
