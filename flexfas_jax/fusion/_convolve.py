"""The mixing convolution that late fusions end with."""

import flax.linen as nn
import jax.numpy as jnp


class ConvNormRelu(nn.Module):
  """Channel dropout, convolution, batch norm, ReLU: [B, h, w, C] -> [B, h, w, width].

  FlexModal's reference has Dropout2d 0.3 and a 3x3 convolution (models/ViT_Base_CA.py).
  """

  width: int
  kernel_size: int = 3
  dropout: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False):
    # One draw per sample and channel: broadcast over h and w.
    x = nn.Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=not train)(x)
    k = self.kernel_size
    # No bias: batch norm takes it away, and Adam would turn its rounding noise into steps.
    x = nn.Conv(self.width, (k, k), padding=k // 2, use_bias=False, dtype=self.dtype, name='conv')(
      x
    )
    x = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype, name='bn')(x)
    return nn.relu(x)
