"""U-Adapter: each modality reads another one, less sharply where that one is uncertain.

Lin et al., "Suppress and Rebalance: Towards Generalized Multi-Modal Face Anti-Spoofing" (MMDG),
CVPR 2024; models/u_adapter.py.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from flexfas_jax.errors import ConfigError
from flexfas_jax.models.adapters.conv import GridConv
from flexfas_jax.models.hooks import Adapter, Context, Dense
from flexfas_jax.models.transformer import quick_gelu

PAIRS = ('hub', 'all')


DROPPED = 0.3  # probability


def certainty(attended, rate: float = 2.25, p: float = DROPPED, kept=None):
  """exp(-rate std) of each element under dropout with probability p; without a gradient.

  The source estimates the standard deviation from 20 draws, also at test, so that its scores are
  random. An element a times a Bernoulli variable over 1 - p has std |a| sqrt(p / (1 - p)).

  Args:
    attended: output of attention, any shape.
    rate, p: see above.
    kept: [draws, ...] bool, what each draw keeps; None: the closed form.
  """
  attended = jax.lax.stop_gradient(attended)
  if kept is None:
    return jnp.exp(-rate * math.sqrt(p / (1 - p)) * jnp.abs(attended))
  return jnp.exp(-rate * (kept * attended[None] / (1 - p)).std(0, ddof=1))


class UncertainCross(Adapter):
  """Sum over the other modalities of an adapter for each ordered pair; 0 at first.

  Attributes:
    sites: of `hooks.SITES`.
    width: r.
    heads: of the attention between modalities.
    theta: of the central difference.
    pairs: 'hub': the first modality with each other one, as in the source, in which depth and
      infrared do not meet; or 'all'.
    rate: of `certainty`.
    draws: of `certainty`, 20 in the source; 0: the closed form. In evaluation they are the same for
      every sample.
    dropout: before the way up, in training.
  """

  sites: tuple[str, ...] = ('mlp',)
  width: int = 8
  heads: int = 8
  theta: float = 0.5
  pairs: str = 'hub'
  rate: float = 2.25
  draws: int = 0
  dropout: float = 0.2

  cross_modal = True

  def check(self, sequence: str) -> None:
    super().check(sequence)
    check_cross(self, 'uncertain_cross', sequence)
    if self.draws == 1:
      raise ConfigError('uncertain_cross.draws is 1, which has no deviation; give 0, or 2 or more')
    if self.pairs not in PAIRS:
      raise ConfigError(f"uncertain_cross has no pairs {self.pairs!r}; choose 'hub' or 'all'")

  @nn.compact
  def __call__(self, x, attended, context: Context, train: bool = False):
    """[B M, N, D] -> the same."""
    M = len(context.modalities)
    x, attended = (t.reshape(-1, M, *t.shape[1:]) for t in (x, attended))  # [B, M, N, D]
    kept = self._draw(attended.shape, context, train) if self.draws else None
    u = certainty(attended, self.rate, kept=kept)
    self.sow('intermediates', 'certainty', u[:, :, 0].mean((0, 2)))  # [M], at the class token
    u = u.mean(-1)  # [B, M, N]
    hub = context.every[0]
    sums = [jnp.zeros_like(x[:, 0]) for _ in range(M)]
    for i, own in enumerate(context.modalities):
      for j, other in enumerate(context.modalities):
        if i == j or self.pairs == 'hub' and hub not in (own, other):
          continue
        pair = Pair(self.width, self.heads, self.theta, self.dropout, self.dtype,
                    name=f'{own}_reads_{other}')  # fmt: skip
        y = pair(x[:, i], x[:, j], u[:, j], context.replace(modalities=(own,)), train)
        if context.readable is not None:
          both = context.readable[:, i] & context.readable[:, j]  # [B]
          y = jnp.where(both[:, None, None], y, 0)
        sums[i] = sums[i] + y
    return jnp.stack(sums, 1).reshape(-1, *x.shape[2:])

  def _draw(self, shape: tuple[int, ...], context: Context, train: bool):
    """[draws, B or 1, M, N, D] bool: the elements [B, M, N, D] that dropout keeps."""
    if train:
      key = self.make_rng('dropout')
      return jax.random.bernoulli(key, 1 - DROPPED, (self.draws, *shape))
    # For one sample and every modality: a score depends neither on a sample's place in the batch
    # nor on which images there are.
    every = (self.draws, 1, len(context.every), *shape[2:])
    kept = jax.random.bernoulli(jax.random.key(0), 1 - DROPPED, every)
    return kept[:, :, jnp.array(context.indices)]


class Pair(nn.Module):
  """Adapter of one modality that reads one other; fields as in `UncertainCross`."""

  width: int
  heads: int
  theta: float
  dropout: float
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, other, u, context: Context, train: bool = False):
    """x and other [B, N, D], u [B, N] -> [B, N, D]."""
    own = quick_gelu(Dense(self.width, dtype=self.dtype, name='down')(x, context))  # [B, N, r]
    query = quick_gelu(Dense(self.width, dtype=self.dtype, name='down_other')(other, context))
    query = nn.Dense(self.width, use_bias=False, dtype=self.dtype, name='q')(query)
    read = CrossAttention(self.heads, self.dtype, name='cross')(query, own, u)
    z = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name='norm')(read + own)
    z = quick_gelu(GridConv(self.width, self.theta, dtype=self.dtype, name='conv')(z, context))
    z = nn.Dropout(self.dropout, deterministic=not train)(z)
    return Dense(x.shape[-1], nn.initializers.zeros, dtype=self.dtype, name='up')(z, context)


class CrossAttention(nn.Module):
  """Attention whose logits are multiplied by the certainty of each query."""

  heads: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, query, x, u):
    """Queries and x [B, N, r], u [B, N] -> [B, N, r]."""
    B, N, r = x.shape
    K = self.heads
    k = nn.Dense(r, use_bias=False, dtype=self.dtype, name='k')(x)
    v = nn.Dense(r, use_bias=False, dtype=self.dtype, name='v')(x)
    q, k, v = (t.reshape(B, N, K, r // K) for t in (query, k, v))
    logits = jnp.einsum('bnkd,bmkd->bknm', q, k).astype(jnp.float32) / (r // K) ** 0.5
    weights = jax.nn.softmax(logits * u[:, None, :, None].astype(jnp.float32), -1)
    y = jnp.einsum('bknm,bmkd->bnkd', weights.astype(self.dtype), v).reshape(B, N, r)
    return nn.Dense(r, dtype=self.dtype, name='proj')(y)


def check_cross(adapter, name: str, sequence: str) -> None:
  """Raises a ConfigError for an adapter between sequences whose fields do not fit."""
  if sequence == 'joint':
    raise ConfigError(f"adapter {name} needs config.model.backbone.sequence = 'separate'")
  if adapter.width % adapter.heads:
    raise ConfigError(f'{name}: width {adapter.width} is no multiple of heads {adapter.heads}')
