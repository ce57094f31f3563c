"""MM-FAS's ResNet34 for faces, "caffe" style: PReLU, unpadded convolutions, 2x2 max pooling.

Parkin & Grinchuk, "Recognizing Multi-Modal Face Spoofing with Face Recognition Networks", CVPRW
2019 (ChaLearn_liveness_challenge, models/architectures/resnet_caffe_DLAS.py). Faces of 112 pixels.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from flexfas_jax.errors import ConfigError
from flexfas_jax.lookup import pick
from flexfas_jax.models.layers import ChannelAttention, Conv, Norm, PReLU, max_pool


class Variant(NamedTuple):
  stem: int
  blocks: tuple[int, ...]
  width: int


VARIANTS = {
  'mu': Variant(4, (1, 1, 1, 1), 8),  # for tests
  'pico': Variant(8, (1, 1, 1, 1), 8),  # trains on a laptop's CPU
  '34': Variant(32, (1, 2, 5, 3), 64),
}


class Block(nn.Module):
  """x + PReLU(BN(conv(PReLU(BN(conv(x))))))."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, mask=None):
    y = x
    for i in (1, 2):
      y = Conv(x.shape[-1], dtype=self.dtype, name=f'conv{i}')(y)
      y = PReLU(name=f'prelu{i}')(Norm(self.dtype, name=f'bn{i}')(y, train, mask))
    return x + y


class Stage(nn.Module):
  """Unpadded 3x3 convolution, BN, PReLU, 2x2 max pooling, then blocks.

  [B, h, w, C] -> [B, (h - 2) / 2, (w - 2) / 2, D], rounded down.
  """

  blocks: int
  width: int
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, mask=None):
    if min(x.shape[1:3]) < 4:
      raise ConfigError(
        f'caffe_resnet: a {x.shape[1]}x{x.shape[2]} map is too small for another stage; take a '
        'larger image_size (four stages need 48 pixels)'
      )

    def shrink(stage, x):
      x = Conv(self.width, padding=0, dtype=self.dtype, name='conv')(x)
      x = PReLU(name='prelu')(Norm(self.dtype, name='bn')(x, train, mask))
      return max_pool(x, 2, 2)

    block = Block
    if self.remat:
      block, shrink = nn.remat(Block, static_argnums=(2,)), nn.remat(shrink)  # 2: train
    x = shrink(self, x)
    for i in range(self.blocks):
      x = block(self.dtype, name=f'block_{i}')(x, train, mask)
    return x


class CaffeResNet(nn.Module):
  """Returns the maps of its four stages.

  Attributes:
    variant: a key of `VARIANTS`.
    channel_attention: after every stage, as in MM-FAS's variant B.
    stages: number of stages to run; None runs all.
    remat: recompute the activations of a block, or of the layers before a stage's blocks, for the
      gradient instead of storing them.
    dtype: of the computation; parameters and statistics are float32.
  """

  variant: str = '34'
  channel_attention: bool = False
  stages: int | None = None
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  @property
  def widths(self) -> tuple[int, ...]:
    """D of each stage map, shallow to deep."""
    v = pick('caffe_resnet variant', VARIANTS, self.variant)
    return tuple(v.width * 2**i for i in range(len(v.blocks)))[: self.stages]

  @property
  def stage_modules(self) -> tuple[nn.Module, ...]:
    """The stages as unbound modules: (map, train, mask) -> map."""
    v = pick('caffe_resnet variant', VARIANTS, self.variant)
    return tuple(
      Stage(n, v.width * 2**i, self.remat, self.dtype, parent=None) for i, n in enumerate(v.blocks)
    )

  @nn.compact
  def __call__(self, image, train: bool = False, mask=None):
    """image [B, H, W, 3] float32 -> maps; for 112 pixels, 54, 26, 12 and 5 pixels along a side.

    `mask` [B] bool: true for real images; the others do not enter batch statistics.
    """
    stem = pick('caffe_resnet variant', VARIANTS, self.variant).stem
    x = Conv(stem, padding=0, dtype=self.dtype, name='conv1')(image)
    x = PReLU(name='prelu1')(Norm(self.dtype, name='bn1')(x, train, mask))
    self.sow('intermediates', 'stem', x)
    maps = []
    for i, stage in enumerate(self.stage_modules[: self.stages], 1):
      x = stage.clone(parent=self, name=f'stage_{i}')(x, train, mask)
      if self.channel_attention:
        x = ChannelAttention(dtype=self.dtype, name=f'attention_{i}')(x)
      self.sow('intermediates', f'map_{i}', x)
      maps.append(x)
    return tuple(maps)
