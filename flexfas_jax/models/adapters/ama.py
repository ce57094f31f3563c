"""Adaptive multimodal adapter: one convolution over all modalities' patches of a joint sequence.

Yu et al., "Rethinking Vision Transformer and Masked Autoencoder in Multimodal Face Anti-Spoofing",
IJCV 2024; blocks in DADM: models/adapter_yzt.py.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from flexfas_jax.errors import ConfigError
from flexfas_jax.models.adapters.conv import Conv, at_centre, grid_kernels
from flexfas_jax.models.convolution import convolve
from flexfas_jax.models.hooks import Adapter, Context, Dense
from flexfas_jax.models.transformer import quick_gelu

PARTS = ('shared', 'independent', 'both', 'dynamic')
# Weight of the independent part where n modalities are present.
INDEPENDENT = {1: 1.0, 2: 0.5, 3: 0.4}


class Ama(Adapter):
  """Adapters of a joint sequence; 0 at first.

  Attributes:
    sites: of `hooks.SITES`.
    parts: 'shared', a convolution over the modalities' concatenated channels (the plain AMA);
      'independent', `conv` with theta = 0; 'both', the sum weighted by `balance`; or 'dynamic': a
      sample of n modalities gets the independent part, weighted by `INDEPENDENT`, and the shared
      part for n, whose parameters no other n uses.
    width: r.
    balance: weight of the independent part of 'both'.
    dropout: before the way up, in training.
  """

  sites: tuple[str, ...] = ('attention', 'mlp')
  parts: str = 'shared'
  width: int = 8
  balance: float = 0.5
  dropout: float = 0.1

  cross_modal = True

  def check(self, sequence: str) -> None:
    super().check(sequence)
    if self.parts not in PARTS:
      raise ConfigError(f'ama has no parts {self.parts!r}; choose one of: {", ".join(PARTS)}')
    if sequence != 'joint':
      raise ConfigError("adapter ama needs config.model.backbone.sequence = 'joint'")

  @nn.compact
  def __call__(self, x, attended, context: Context, train: bool = False):
    """[B, P + M h w, D] -> the same."""
    every, M = len(context.every), len(context.modalities)
    fields = {'width': self.width, 'dropout': self.dropout, 'dtype': self.dtype}
    independent = Conv(**fields, theta=0.0, name='independent') if self.parts != 'shared' else None
    if self.parts == 'independent':
      return independent(x, attended, context, train)
    if self.parts in ('shared', 'both'):
      # An absent modality's channels are 0.
      shared = SharedPart(every, **fields, name='shared')(x, context, train)
      if self.parts == 'shared':
        return shared
      own = independent(x, attended, context, train)
      return self.balance * own + (1 - self.balance) * shared
    own = independent(x, attended, context, train)
    dynamic = context.readable is not None
    count = context.readable.sum(1)[:, None, None] if dynamic else None  # [B, 1, 1]
    total = own
    for n in range(2, M + 1):
      if not dynamic and n < M:
        continue
      weight = INDEPENDENT.get(n, 0.4)
      shared = SharedPart(n, **fields, gather=True, name=f'shared_{n}')(x, context, train)
      mixed = weight * own + (1 - weight) * shared
      total = jnp.where(count == n, mixed, total) if dynamic else mixed
    return total


class SharedPart(nn.Module):
  """Convolution over n modalities' channels, weighted for each modality and sample.

  Attributes:
    n: number of modalities.
    width: r.
    gather: the n first modalities that are present; otherwise all n of the model, an absent one 0.
    dropout: before the way up, in training.
    dtype: of the computation.
  """

  n: int
  width: int
  gather: bool = False
  dropout: float = 0.1
  dtype: jnp.dtype = jnp.float32

  theta = 0.0

  @nn.compact
  def __call__(self, x, context: Context, train: bool = False):
    """[B, P + M h w, D] -> the same."""
    n, r, M = self.n, self.width, len(context.modalities)
    z = quick_gelu(Dense(r, dtype=self.dtype, name='down')(x, context))
    prefix, maps = context.split(z)  # [B, 1, P, r], [B, M, h, w, r]
    readable, place = context.readable, jnp.array(context.indices)[None]  # [1, M]
    if self.gather:
      place = jnp.arange(M)[None] if readable is None else jnp.cumsum(readable, axis=1) - 1
    # [B or 1, n, M]: which modality has which place. A sum of products with 0 and 1, since TFLite
    # sorts no truth values.
    chosen = place[:, None] == jnp.arange(n)[None, :, None]
    if readable is not None:
      chosen = chosen & readable[:, None]
    chosen = jnp.broadcast_to(chosen, (maps.shape[0], n, M)).astype(maps.dtype)
    maps = jnp.einsum('bnm,bmhwr->bnhwr', chosen, maps)
    B, _, h, w, _ = maps.shape
    stacked = jnp.moveaxis(maps, 1, 3).reshape(B, h, w, n * r)
    (kernel,) = grid_kernels(self, n * r, 1, 'conv')
    mixed = convolve(stacked, kernel, 1, 1)  # [B, h, w, r]
    weigh = nn.Dense(n, use_bias=False, dtype=self.dtype, name='weigh')
    weights = jax.nn.sigmoid(weigh(stacked.mean((1, 2))))  # [B, n]
    weights = jnp.einsum('bnm,bn->bm', chosen, weights)  # [B, M]; 0 for an absent one
    patches = weights[:, :, None, None, None] * mixed[:, None]  # [B, M, h, w, r]
    prefix = at_centre(jnp.tile(prefix, (1, 1, 1, n)), kernel)
    z = quick_gelu(context.join(prefix, patches))
    z = nn.Dropout(self.dropout, deterministic=not train)(z)
    return Dense(x.shape[-1], nn.initializers.zeros, dtype=self.dtype, name='up')(z, context)
