"""U-Adapter of MMDG++: one for each modality, that chooses the more certain query for each token.

Lin et al., MMDG++ (TPAMI 2025); mmdg_plus_plus: models/mmdg_plus_plus, Cross_Convpass_UC_missing.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from flexfas_jax.models.adapters.conv import GridConv
from flexfas_jax.models.adapters.uncertain_cross import CrossAttention, check_cross
from flexfas_jax.models.hooks import Adapter, Context, Dense
from flexfas_jax.models.transformer import quick_gelu


class UncertainCrossPlus(Adapter):
  """Sum over all other modalities of the modality's adapter; 0 at first.

  A modality that reads an absent one reads itself; an absent one gets 0.

  Attributes:
    sites: of `hooks.SITES`.
    width: r.
    heads: of the attention between modalities.
    theta: of the central difference.
    rate: of the certainty exp(-rate variance).
    draws: number of draws whose mean is the query in training; in evaluation it is the expectation.
  """

  sites: tuple[str, ...] = ('mlp',)
  width: int = 8
  heads: int = 8
  theta: float = 0.5
  rate: float = 2.5
  draws: int = 50

  cross_modal = True

  def check(self, sequence: str) -> None:
    super().check(sequence)
    check_cross(self, 'uncertain_cross_plus', sequence)

  @nn.compact
  def __call__(self, x, attended, context: Context, train: bool = False):
    """[B M, N, D] -> the same."""
    del attended
    M, every = len(context.modalities), context.every
    x = x.reshape(-1, M, *x.shape[1:])  # [B, M, N, D]
    sums = []
    for i, own in enumerate(context.modalities):
      reader = Reader(self.width, self.heads, self.theta, self.rate, self.draws, self.dtype,
                      name=own)  # fmt: skip
      one = context.replace(modalities=(own,))
      y = jnp.zeros_like(x[:, i])
      for other in every:
        if other == own:
          continue
        j = context.modalities.index(other) if other in context.modalities else None
        is_there = None if j is None or context.readable is None else context.readable[:, j]
        y = y + reader(x[:, i], None if j is None else x[:, j], is_there, one, train)
      if context.readable is not None:
        y = jnp.where(context.readable[:, i, None, None], y, 0)
      sums.append(y)
    return jnp.stack(sums, 1).reshape(-1, *x.shape[2:])


class Reader(nn.Module):
  """Adapter of one modality; fields as in `UncertainCrossPlus`."""

  width: int
  heads: int
  theta: float
  rate: float
  draws: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, other, is_there, context: Context, train: bool = False):
    """x and other [B, N, D], is_there [B] bool or None: all -> [B, N, D]; other None: absent."""
    norm_kv, norm_q = (
      nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name) for name in ('norm_kv', 'norm_q')
    )
    down_q = Dense(self.width, dtype=self.dtype, name='down_q')
    own = norm_kv(quick_gelu(Dense(self.width, dtype=self.dtype, name='down')(x, context)))
    read = own
    if other is not None:
      read = norm_q(quick_gelu(down_q(other, context)))  # [B, N, r]
      if is_there is not None:
        read = jnp.where(is_there[:, None, None], read, own)
    queries = [self._query(read, 'other', train), self._query(own, 'own', train)]
    (q_1, c_1), (q_2, c_2) = queries  # [B, N, r] and [B, N, 1]
    if train:  # the source's probability is (c_1 + c_2) / c_1, which is never below 1
      chance = c_1 / jnp.maximum(c_1 + c_2, 1e-12)
      is_other = jax.random.uniform(self.make_rng('dropout'), chance.shape) < chance
    else:
      is_other = c_1 > c_2
    c = jnp.where(is_other, c_1, c_2)
    self.sow('intermediates', 'certainty', c)
    q = jnp.where(is_other, q_1, q_2)
    z = CrossAttention(self.heads, self.dtype, name='cross')(q, own, c[..., 0]) + own
    z = z + nn.Dense(self.width, dtype=self.dtype, name='mlp')(norm_q(z))
    z = quick_gelu(GridConv(self.width, self.theta, dtype=self.dtype, name='conv')(z, context))
    return Dense(x.shape[-1], nn.initializers.zeros, dtype=self.dtype, name='up')(z, context)

  def _query(self, z, name: str, train: bool):
    """Query [B, N, r] and its certainty [B, N, 1]: the mean of draws from a normal distribution."""

    def linear(suffix):
      return nn.Dense(self.width, use_bias=False, dtype=self.dtype, name=f'{suffix}_{name}')

    q = linear('q')(z)
    query, variance = linear('mean')(q), jnp.exp(linear('log_variance')(q))
    c = jnp.exp(-self.rate * jax.lax.stop_gradient(variance).mean(-1, keepdims=True))
    if train:  # the mean of n draws has the variance / n
      noise = jax.random.normal(self.make_rng('dropout'), query.shape, query.dtype)
      query = query + jnp.sqrt(variance / self.draws) * noise
    return query, c
