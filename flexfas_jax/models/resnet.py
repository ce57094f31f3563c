"""ResNet as in timm (`resnet18`, `resnet34`, `resnet50`), returning its four stages' maps.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; stride in the 3x3 convolution
of a bottleneck, as timm and torchvision have it. Paddings are explicit: `SAME` at stride 2 is not
PyTorch's `padding=1`.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from flexfas_jax.lookup import pick


class Variant(NamedTuple):
  blocks: tuple[int, ...]
  bottleneck: bool
  width: int


VARIANTS = {
  'mu': Variant((1, 1, 1, 1), False, 8),  # a toy, for tests
  '18': Variant((2, 2, 2, 2), False, 64),
  '34': Variant((3, 4, 6, 3), False, 64),
  '50': Variant((3, 4, 6, 3), True, 64),
}


class Norm(nn.Module):
  """Batch norm whose training statistics leave out images that are not there."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, mask=None):
    """x [B, h, w, D], mask [B] bool: which images are real (all, if none is)."""
    if mask is not None:
      mask = (mask | ~mask.any())[:, None, None, None]  # [B, 1, 1, 1]; never a mean of nothing
    # PyTorch's momentum 0.1 is 0.9 here.
    norm = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype, name='bn')
    return norm(x, mask=mask if train else None)


class Block(nn.Module):
  """Basic (two 3x3) or bottleneck (1x1, 3x3, 1x1 to four times the width) residual block."""

  width: int
  stride: int
  bottleneck: bool
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, mask=None):
    def conv(y, width, kernel, stride, name):
      pad = kernel // 2
      return nn.Conv(
        width, (kernel, kernel), stride, padding=pad, use_bias=False, dtype=self.dtype, name=name
      )(y)

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


class ResNet(nn.Module):
  """Maps of layer1 to layer4.

  Attributes:
    variant: a key of `VARIANTS`.
    dtype: of the computation; parameters and statistics are float32.
  """

  variant: str = '50'
  dtype: jnp.dtype = jnp.float32

  @property
  def widths(self) -> tuple[int, ...]:
    """D of each stage map, shallow to deep."""
    v = pick('resnet variant', VARIANTS, self.variant)
    return tuple(v.width * 2**i * (4 if v.bottleneck else 1) for i in range(len(v.blocks)))

  @nn.compact
  def __call__(self, image, train: bool = False, mask=None):
    """image [B, H, W, 3] float32 -> maps [B, H/4, W/4, D] ... [B, H/32, W/32, 8 D].

    `mask` [B]: which images are real; the others leave no trace in batch statistics.
    """
    v = pick('resnet variant', VARIANTS, self.variant)
    x = nn.Conv(v.width, (7, 7), 2, padding=3, use_bias=False, dtype=self.dtype, name='conv1')(
      image.astype(self.dtype)
    )
    x = nn.relu(Norm(self.dtype, name='bn1')(x, train, mask))
    x = nn.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    maps = []
    for stage, blocks in enumerate(v.blocks):
      for i in range(blocks):
        stride = 2 if stage > 0 and i == 0 else 1
        x = Block(
          v.width * 2**stage, stride, v.bottleneck, self.dtype, name=f'layer{stage + 1}_{i}'
        )(x, train, mask)
      maps.append(x)
    return tuple(maps)
