"""ResNet as in timm (`resnet18`, `resnet34`, `resnet50`); returns the maps of its four stages.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; a bottleneck has its stride in
the 3x3 convolution, as in timm and torchvision.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from flexfas_jax.lookup import pick
from flexfas_jax.models.layers import Conv, Norm, max_pool


class Variant(NamedTuple):
  blocks: tuple[int, ...]
  bottleneck: bool
  width: int


VARIANTS = {
  'mu': Variant((1, 1, 1, 1), False, 8),  # for tests
  'pico': Variant((1, 1, 1, 1), False, 16),  # trains on a laptop's CPU
  '18': Variant((2, 2, 2, 2), False, 64),
  '34': Variant((3, 4, 6, 3), False, 64),
  '50': Variant((3, 4, 6, 3), True, 64),
}


class Block(nn.Module):
  """Basic (two 3x3) or bottleneck (1x1, 3x3, 1x1 to four times the width) residual block."""

  width: int
  stride: int
  bottleneck: bool
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, mask=None):
    def conv(y, width, kernel, stride, name):
      return Conv(width, kernel, stride, dtype=self.dtype, name=name)(y)

    def norm(y, name):
      return Norm(self.dtype, name=name)(y, train, mask)

    out = self.width * (4 if self.bottleneck else 1)
    # (kernel, stride, width) of each convolution, in order
    layers = [(3, self.stride, self.width), (3, 1, self.width)]
    if self.bottleneck:
      layers = [(1, 1, self.width), (3, self.stride, self.width), (1, 1, out)]
    y = x
    for i, (kernel, stride, width) in enumerate(layers, 1):
      y = norm(conv(y, width, kernel, stride, f'conv{i}'), f'bn{i}')
      if i < len(layers):
        y = nn.relu(y)
    if self.stride != 1 or x.shape[-1] != out:
      x = norm(conv(x, out, 1, self.stride, 'downsample_conv'), 'downsample_bn')
    return nn.relu(x + y)


class Stage(nn.Module):
  """Blocks of one width, the first with the stride: [B, h, w, C] -> [B, h / stride, ..., D]."""

  blocks: int
  width: int
  stride: int
  bottleneck: bool
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, mask=None):
    block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block  # 2: train
    for i in range(self.blocks):
      stride = self.stride if i == 0 else 1
      x = block(self.width, stride, self.bottleneck, self.dtype, name=f'block_{i}')(x, train, mask)
    return x


class ResNet(nn.Module):
  """Returns the maps of layer1 to layer4.

  Attributes:
    variant: a key of `VARIANTS`.
    stages: number of stages to run; None runs all.
    remat: recompute a block's activations for the gradient instead of storing them.
    dtype: of the computation; parameters and statistics are float32.
  """

  variant: str = '50'
  stages: int | None = None
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  @property
  def widths(self) -> tuple[int, ...]:
    """D of each stage map, shallow to deep."""
    v = pick('resnet variant', VARIANTS, self.variant)
    expansion = 4 if v.bottleneck else 1
    return tuple(v.width * 2**i * expansion for i in range(len(v.blocks)))[: self.stages]

  @property
  def stage_modules(self) -> tuple[nn.Module, ...]:
    """The stages as unbound modules: (map, train, mask) -> map."""
    v = pick('resnet variant', VARIANTS, self.variant)
    return tuple(
      Stage(
        blocks=n,
        width=v.width * 2**i,
        stride=1 if i == 0 else 2,
        bottleneck=v.bottleneck,
        remat=self.remat,
        dtype=self.dtype,
        parent=None,
      )
      for i, n in enumerate(v.blocks)
    )

  @nn.compact
  def __call__(self, image, train: bool = False, mask=None):
    """image [B, H, W, 3] float32 -> maps [B, H/4, W/4, D] ... [B, H/32, W/32, 8 D].

    `mask` [B] bool: true for real images; the others do not enter batch statistics.
    """
    width = pick('resnet variant', VARIANTS, self.variant).width
    x = Conv(width, 7, 2, dtype=self.dtype, name='conv1')(image)
    x = nn.relu(Norm(self.dtype, name='bn1')(x, train, mask))
    x = max_pool(x, 3, 2, padding=1)
    self.sow('intermediates', 'stem', x)
    maps = []
    for i, stage in enumerate(self.stage_modules[: self.stages], 1):
      x = stage.clone(parent=self, name=f'stage_{i}')(x, train, mask)
      self.sow('intermediates', f'map_{i}', x)
      maps.append(x)
    return tuple(maps)
