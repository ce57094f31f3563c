"""From the fused map to the decision: `{'logit': [B], 'map': [B, h, w] or None}`."""

import flax.linen as nn
import jax.numpy as jnp


class BinaryLogit(nn.Module):
  """Global average pooling, dropout, one logit: high is bona fide.

  The references have two softmax columns; one logit is their difference.

  Attributes:
    dropout: on the pooled features, in training (FlexModal's reference: 0.3).
    dtype: of the computation; the logit is float32.
  """

  dropout: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, fused, train: bool = False):
    """fused [B, h, w, D] -> {'logit': [B] float32, 'map': None}."""
    pooled = fused.astype(jnp.float32).mean((1, 2))  # [B, D]
    pooled = nn.Dropout(self.dropout, deterministic=not train)(pooled)
    return {'logit': nn.Dense(1, name='logit')(pooled)[:, 0], 'map': None}
