"""Convolutions in the place of a ViT's patch projection."""

import flax.linen as nn
import jax.numpy as jnp

from flexfas_jax.models.layers import Conv, Norm


class ConvStem(nn.Module):
  """Convolutions of stride 2, [B, H, W, 3] -> [B, H / 2^n, W / 2^n, D], before a 1x1 projection.

  Xiao et al., "Early Convolutions Help Transformers See Better", NeurIPS 2021, section 4: each has
  a batch norm and ReLU. LayerNorm in its place, over the few channels of a pixel, removes how
  strong an edge is.

  Attributes:
    n: number of convolutions; the widths double up to D, and none is below the paper's 24.
    width: D.
    dtype: of the computation.
  """

  n: int
  width: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, mask=None):
    """`mask` [B] bool as in `Norm`."""
    for i in range(self.n):
      width = max(self.width >> (self.n - 1 - i), 24)
      x = Conv(width, 3, 2, dtype=self.dtype, name=f'conv_{i}')(x)
      x = nn.relu(Norm(self.dtype, name=f'norm_{i}')(x, train, mask))
    return x
