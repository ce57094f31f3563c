"""Attention pooling of tokens into one, as in SigLIP (timm's `AttentionPoolLatent`)."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class AttentionPool(nn.Module):
  """A learned query reads all tokens, then a residual MLP: [B, N, D] -> [B, 1, D].

  Attributes:
    heads: of the attention.
    mlp_ratio: width of the MLP, times D.
    epsilon: of its norm.
    dtype: of the computation.
  """

  heads: int
  mlp_ratio: int = 4
  epsilon: float = 1e-6
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, mask=None):
    """`mask` [B, N] bool: the tokens that are read; None: all."""
    (B, N, D), K = x.shape, self.heads
    latent = self.param('latent', nn.initializers.normal(D**-0.5), (1, 1, D))
    q = nn.Dense(D, dtype=self.dtype, name='q')(latent.astype(self.dtype))
    q = q.reshape(K, D // K)
    k, v = jnp.split(nn.Dense(2 * D, dtype=self.dtype, name='kv')(x), 2, -1)
    k, v = (part.reshape(B, N, K, D // K) for part in (k, v))
    scores = (jnp.einsum('kd,bnkd->bkn', q, k) / (D // K) ** 0.5).astype(jnp.float32)
    if mask is not None:
      scores = jnp.where(mask[:, None], scores, -jnp.inf)
    weights = jax.nn.softmax(scores, -1).astype(self.dtype)
    x = jnp.einsum('bkn,bnkd->bkd', weights, v).reshape(B, 1, D)
    x = nn.Dense(D, dtype=self.dtype, name='proj')(x)
    y = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name='norm')(x)
    y = nn.Dense(self.mlp_ratio * D, dtype=self.dtype, name='fc1')(y)
    return x + nn.Dense(D, dtype=self.dtype, name='fc2')(nn.gelu(y, approximate=False))
