"""Convolutional adapter: tokens down to r channels, a 3x3 convolution on the grid, and up again.

Jie & Deng, "Convolutional Bypasses Are Better Vision Transformer Adapters", 2022 (Convpass); with a
central difference, the adapters of DADM (ICCV 2025; models/adapter_yzt.py, Convpass) and MMDG.
"""

import flax.linen as nn
import jax.numpy as jnp

from flexfas_jax.errors import ConfigError
from flexfas_jax.models.convolution import convolve
from flexfas_jax.models.hooks import Adapter, Context, Dense, for_each
from flexfas_jax.models.layers import central_difference
from flexfas_jax.models.transformer import quick_gelu


class Conv(Adapter):
  """up(quick(conv(quick(down(x))))); 0 at first, so that the block equals the pretrained one.

  Attributes:
    sites: of `hooks.SITES`.
    width: r.
    theta: of the central difference, see `layers.central_difference`; 0 is a plain convolution.
    dropout: before the way up, in training.
    per_modality: parameters for each modality, or one adapter for all.
  """

  sites: tuple[str, ...] = ('attention', 'mlp')
  width: int = 8
  theta: float = 0.7
  dropout: float = 0.1
  per_modality: bool = False

  def check(self, sequence: str) -> None:
    super().check(sequence)
    if self.per_modality and sequence == 'joint':
      raise ConfigError(
        'adapter conv: a joint sequence has one class token for all modalities; set per_modality '
        "to False, or the backbone's sequence to 'separate'"
      )

  @nn.compact
  def __call__(self, x, attended, context: Context, train: bool = False):
    """[rows, N, D] -> [rows, N, D]."""
    del attended
    z = Dense(self.width, per_modality=self.per_modality, dtype=self.dtype, name='down')(x, context)
    conv = GridConv(self.width, self.theta, self.per_modality, self.dtype, name='conv')
    z = quick_gelu(conv(quick_gelu(z), context))
    z = nn.Dropout(self.dropout, deterministic=not train)(z)
    zero = nn.initializers.zeros
    up = Dense(x.shape[-1], zero, per_modality=self.per_modality, dtype=self.dtype, name='up')
    return up(z, context)


class GridConv(nn.Module):
  """3x3 convolution, without a bias, of each modality's patches; a prefix token is a 1x1 map.

  Attributes:
    width: channels out.
    theta: see `Conv`.
    per_modality: a kernel for each modality.
    dtype: of the computation.
  """

  width: int
  theta: float = 0.0
  per_modality: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, context: Context):
    """[rows, N, r] -> [rows, N, width]."""
    kernels = grid_kernels(self, x.shape[-1], len(context.every) if self.per_modality else 1)
    if self.per_modality:
      kernels = [kernels[i] for i in context.indices]
    prefix, maps = context.split(x)  # [B, k, P, r], [B, M, h, w, r]
    if len(kernels) == 1:
      shape = maps.shape
      maps = convolve(maps.reshape(-1, *shape[2:]), kernels[0], 1, 1)
      maps = maps.reshape(*shape[:-1], self.width)
      prefix = at_centre(prefix, kernels[0])
    else:
      maps = jnp.stack([convolve(maps[:, i], k, 1, 1) for i, k in enumerate(kernels)], 1)
      prefix = jnp.stack([at_centre(prefix[:, i], k) for i, k in enumerate(kernels)], 1)
    return context.join(prefix, maps)


def at_centre(tokens, kernel):
  """A 3x3 convolution of 1x1 maps [..., C] padded by 0, where the kernel's centre alone acts."""
  weights = kernel[1, 1].reshape((1,) * (tokens.ndim - 1) + kernel.shape[2:])
  # A sum of few products: TFLite's converter takes no matrix product of this rank.
  return (tokens[..., None] * weights).sum(-2)


def grid_kernels(module: nn.Module, C: int, n: int, name: str = 'kernel') -> list:
  """n folded kernels [3, 3, C, width] as parameters of a module with width, theta and dtype.

  The initial values are PyTorch's for a convolution: uniform within 1 / sqrt(9 C).
  """
  init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
  if n == 1:
    kernels = module.param(name, init, (3, 3, C, module.width))[None]
  else:
    kernels = module.param(name, for_each(init), (n, 3, 3, C, module.width))
  if module.theta:
    kernels = [central_difference(kernel, module.theta) for kernel in kernels]
  return [kernel.astype(module.dtype) for kernel in kernels]
