"""Layers that backbones, fusions and heads share."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flexfas_jax.models.convolution import convolve


def central_difference(kernel, theta: float):
  """Folds the central difference of a convolution into its kernel.

  Yu et al., "Searching Central Difference Convolutional Networks for Face Anti-Spoofing", CVPR
  2020: conv(x, w) - theta * conv1x1(x, sum of w). The second convolution reads only the centre, so
  both are one convolution whose centre weight is smaller by theta times the sum of the kernel.

  Args:
    kernel: [k, k, C, D], k odd, of a convolution padded by k // 2.
    theta: 0 gives a plain convolution, 1 differences alone.

  Returns:
    The folded kernel, same shape.
  """
  k = kernel.shape[0]
  # A product instead of an indexed update, since TFLite cannot convert that scatter.
  centre = np.zeros((k, k, 1, 1), kernel.dtype)
  centre[k // 2, k // 2] = theta
  return kernel - centre * kernel.sum((0, 1), keepdims=True)


class Conv(nn.Module):
  """k x k convolution padded by k // 2 (or `padding`), with a central difference where theta > 0.

  Attributes:
    width: channels out.
    kernel_size: k, odd where theta is used.
    stride: of both axes.
    padding: pixels on every side; None is k // 2. Not 'SAME': at stride 2 it differs from PyTorch's
      padding=1.
    bias: whether to add a bias. Before a norm it has no effect, and Adam would turn its rounding
      noise into steps.
    theta: see `central_difference`.
    dtype: of the computation.
  """

  width: int
  kernel_size: int = 3
  stride: int = 1
  padding: int | None = None
  bias: bool = False
  theta: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    """[B, h, w, C] -> [B, h / stride, w / stride, width]."""
    k = self.kernel_size
    padding = k // 2 if self.padding is None else self.padding
    if self.theta and (k % 2 == 0 or padding != k // 2):
      raise ValueError(
        f'a central difference needs an odd kernel_size and its half as padding: {k}'
      )
    shape = (k, k, x.shape[-1], self.width)
    kernel = self.param('kernel', nn.initializers.lecun_normal(), shape)
    if self.theta:
      kernel = central_difference(kernel, self.theta)  # in float32, before rounding to `dtype`
    x = convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, padding)
    if self.bias:
      bias = self.param('bias', nn.initializers.zeros, (self.width,))
      x = x + bias[None, None, None].astype(self.dtype)
    return x


def max_pool(x, window: int, stride: int, padding: int = 0):
  """Maximum over window x window pixels of [B, h, w, D]; sides round down, as in PyTorch.

  Rows first, then columns, each as a maximum over shifted slices: the gradient of XLA's own max
  pooling takes four times as long on a CPU. The border is concatenated instead of padded, since
  the export to ONNX cannot pad a symbolic batch; XLA compiles both to the same operation.
  """
  for axis in (1, 2):
    size = (x.shape[axis] + 2 * padding - window) // stride + 1
    if padding:
      border = jnp.full_like(jax.lax.slice_in_dim(x, 0, padding, axis=axis), -jnp.inf)
      x = jnp.concatenate([border, x, border], axis)
    ends = [i + (size - 1) * stride + 1 for i in range(window)]
    slices = [jax.lax.slice_in_dim(x, i, end, stride, axis) for i, end in enumerate(ends)]
    x = functools.reduce(jnp.maximum, slices)
  return x


class Norm(nn.Module):
  """Batch norm whose training statistics exclude images of absent modalities."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, mask=None):
    """x [B, h, w, D], mask [B] bool: true for real images (if none is, all count)."""
    if mask is not None:
      mask = (mask | ~mask.any())[:, None, None, None]  # [B, 1, 1, 1]; a mean needs an image
    # PyTorch's momentum 0.1 is 0.9 here.
    norm = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype, name='bn')
    return norm(x, mask=mask if train else None)


def layer_norm(x, scale, bias, epsilon: float):
  """The networks' layer norm of x [..., D] as a function of its weights [D]."""
  norm = nn.LayerNorm(epsilon=epsilon, dtype=x.dtype)
  return norm.apply({'params': {'scale': scale, 'bias': bias}}, x)


class PReLU(nn.Module):
  """max(x, 0) + slope min(x, 0), with a learned slope per channel, initially 0.25 as in PyTorch."""

  @nn.compact
  def __call__(self, x):
    """[B, h, w, D] -> [B, h, w, D]."""
    slope = self.param('slope', nn.initializers.constant(0.25), (x.shape[-1],))
    return jnp.where(x >= 0, x, slope.astype(x.dtype)[None, None, None] * x)


class ConvNormRelu(nn.Module):
  """Channel dropout, convolution, batch norm, ReLU: the mixing layer of late fusions.

  FlexModal's reference has Dropout2d 0.3 and a 3x3 convolution with a bias (models/ViT_Base_CA.py).

  Attributes:
    width: channels out.
    dropout: of whole channels, in training.
    kernel_size, bias, theta, dtype: see `Conv`.
  """

  width: int
  kernel_size: int = 3
  dropout: float = 0.0
  bias: bool = False
  theta: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, mask=None):
    """[B, h, w, C] -> [B, h, w, width]; `mask` as in `Norm`."""
    # One random number per sample and channel.
    x = nn.Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=not train)(x)
    x = Conv(
      self.width, self.kernel_size, bias=self.bias, theta=self.theta, dtype=self.dtype, name='conv'
    )(x)
    return nn.relu(Norm(self.dtype, name='norm')(x, train, mask))


class ChannelAttention(nn.Module):
  """x times sigmoid(FC(ReLU(FC(max)) + ReLU(FC(mean)))), pooled over the grid: MM-FAS's variant B.

  ChaLearn_liveness_challenge, models/architectures/resnet_caffe_DLAS.py, ChannelAttention.
  """

  ratio: int = 4
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    """[B, h, w, D] -> [B, h, w, D]."""
    D = x.shape[-1]
    reduce = nn.Dense(max(1, D // self.ratio), dtype=self.dtype, name='reduce')
    pooled = nn.relu(reduce(x.max((1, 2)))) + nn.relu(reduce(x.mean((1, 2))))  # [B, D / ratio]
    weight = nn.sigmoid(nn.Dense(D, dtype=self.dtype, name='expand')(pooled))  # [B, D]
    return x * weight[:, None, None]


class SpatialAttention(nn.Module):
  """x times sigmoid(conv(mean and maximum over channels)): CDCN++'s, at each level."""

  kernel_size: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    """[B, h, w, D] -> [B, h, w, D]."""
    pooled = jnp.concatenate([x.mean(-1, keepdims=True), x.max(-1, keepdims=True)], -1)
    return x * nn.sigmoid(Conv(1, self.kernel_size, dtype=self.dtype, name='conv')(pooled))


class MultiLevel(nn.Module):
  """CDCN's neck: resizes every level to one grid, concatenates and mixes them.

  CDCN, CVPR2020_paper_codes/models/CDCNs.py: bilinear without antialiasing, as PyTorch's Upsample.

  Attributes:
    width: channels out.
    attention: kernel size of CDCN++'s spatial attention for each level; () has none.
    map_size: side of the grid; None: that of the deepest level.
    theta, dtype: see `Conv`.
  """

  width: int
  attention: tuple[int, ...] = ()
  map_size: int | None = None
  theta: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, maps, train: bool = False, mask=None):
    """Maps, each [B, h, w, D] -> [B, map_size, map_size, width]."""
    h, w = (self.map_size,) * 2 if self.map_size else maps[-1].shape[1:3]
    parts = []
    for i, x in enumerate(maps):
      if self.attention:
        x = SpatialAttention(self.attention[i], self.dtype, name=f'attention_{i + 1}')(x)
      if x.shape[1:3] != (h, w):
        x = jax.image.resize(x, (x.shape[0], h, w, x.shape[-1]), 'bilinear', antialias=False)
      parts.append(x)
    mix = ConvNormRelu(self.width, theta=self.theta, dtype=self.dtype, name='mix')
    return mix(jnp.concatenate(parts, -1), train, mask)
