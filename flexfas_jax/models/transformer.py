"""Blocks of a transformer, with the hooks of `hooks.py`.

N tokens, D width, K heads, d width of a head.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from flexfas_jax import lookup
from flexfas_jax.models import fused_attention, rotary
from flexfas_jax.models.hooks import Adapter, Context


def quick_gelu(x):
  """x sigmoid(1.702 x), CLIP's activation and that of convolutional adapters."""
  return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS = {
  'gelu': functools.partial(nn.gelu, approximate=False),  # timm's; Flax's default is the tanh form
  'quick_gelu': quick_gelu,
}


class ToHeads(nn.Module):
  """A dense layer to queries, keys and values by head: [B, N, D] -> 3 of [B, K, N, d].

  It equals a dense layer whose 3 D outputs are reshaped and transposed. Here the product gives
  heads before tokens, so that a TPU copies nothing (a step of ViT-B is estimated at 0.83 of the
  time).
  """

  heads: int
  bias: bool = True
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    D, K = x.shape[-1], self.heads
    kernel = self.param('kernel', nn.initializers.lecun_normal(), (D, 3 * D))
    x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    kernel = kernel.reshape(D, 3, K, D // K)
    parts = [jnp.einsum('bnc,ckd->bknd', x, kernel[:, i]) for i in range(3)]
    if self.bias:
      bias = self.param('bias', nn.initializers.zeros, (3 * D,))
      bias = bias.astype(x.dtype).reshape(3, K, D // K)
      parts = [part + bias[i][None, :, None] for i, part in enumerate(parts)]
    return parts


class FromHeads(nn.Module):
  """A dense layer from all heads: [B, K, N, d] -> [B, N, D]."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    K, d = x.shape[1], x.shape[3]
    kernel = self.param('kernel', nn.initializers.lecun_normal(), (K * d, K * d))
    bias = self.param('bias', nn.initializers.zeros, (K * d,))
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    return jnp.einsum('bknd,kdc->bnc', x, kernel.reshape(K, d, K * d)) + bias[None, None]


class Attention(nn.Module):
  """Multi-head self-attention, [B, N, D] -> [B, N, D].

  Attributes:
    heads: K.
    qkv_bias: whether queries, keys and values have a bias.
    rotary: rotate queries and keys by the place of their patch, see `rotary.py`.
    fused: attend by `fused_attention.py`.
    adapters: of the hook 'projection', as (name, unbound module).
    dtype: of the computation.
  """

  heads: int
  qkv_bias: bool = True
  rotary: bool = False
  fused: bool = False
  adapters: tuple = ()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, context: Context | None = None, prompts=(), train: bool = False):
    """`prompts`: tokens [B, L, D]; their first half joins the keys, their second the values."""
    K = self.heads
    adapters = [a.clone(parent=self, name=name) for name, a in self.adapters]
    parts = ToHeads(K, self.qkv_bias, self.dtype, name='qkv')(x)  # [B, K, N, d] each
    for i, target in enumerate('qkv'):
      for adapter in adapters:
        if target in adapter.targets:
          parts[i] = parts[i] + _to_heads(adapter(x, target, train), K)
    q, k, v = parts
    if self.rotary:
      h_w = context.grid[0] * context.grid[1]
      prefix = x.shape[1] - h_w * (len(context.modalities) if context.joint else 1)
      angle = rotary.angles(context.grid, q.shape[-1])
      if context.joint:
        angle = np.tile(angle, (len(context.modalities), 1))
      q, k = (rotary.rotate(part, angle, prefix) for part in (q, k))
    mask = context.key_mask(x.shape[1]) if context is not None else None
    for tokens in prompts:
      half = tokens.shape[1] // 2
      k = jnp.concatenate([_to_heads(tokens[:, :half], K).astype(k.dtype), k], 2)
      v = jnp.concatenate([_to_heads(tokens[:, half:], K).astype(v.dtype), v], 2)
      if mask is not None:
        mask = jnp.concatenate([jnp.ones((mask.shape[0], half), bool), mask], 1)
    x = fused_attention.attend(q, k, v, mask) if self.fused else attend(q, k, v, mask)
    y = FromHeads(self.dtype, name='proj')(x)
    for adapter in adapters:
      if 'o' in adapter.targets:
        y = y + adapter(jnp.swapaxes(x, 1, 2).reshape(y.shape), 'o', train)
    return y


def attend(q, k, v, mask=None):
  """softmax(q k^T / sqrt(d)) v; the arguments of `fused_attention.attend`."""
  scores = jnp.einsum('bknd,bkmd->bknm', q, k) / q.shape[-1] ** 0.5
  # Softmax in float32: bfloat16 has eight significant bits and loses small weights.
  scores = scores.astype(jnp.float32)
  if mask is not None:
    scores = jnp.where(mask[:, None, None], scores, -jnp.inf)
  weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
  return jnp.einsum('bknm,bkmd->bknd', weights, v)


def _to_heads(x, K: int):
  """[B, N, D] -> [B, K, N, d]."""
  B, N, D = x.shape
  return jnp.swapaxes(x.reshape(B, N, K, D // K), 1, 2)


class Block(nn.Module):
  """Pre-norm transformer block, [B, N, D] -> [B, N, D].

  Attributes:
    heads, qkv_bias, rotary, fused: see `Attention`.
    mlp_ratio: width of the MLP, times D.
    activation: a key of `ACTIVATIONS`.
    epsilon: of the norms.
    dropout: on the residual branches, in training.
    layer_scale: initial value of a learned scale of each channel of a residual branch; 0: none.
    adapters: {'name': a file of `adapters/`, **its fields} of this block; see `hooks.Adapter`.
    dtype: of the computation.
  """

  heads: int
  mlp_ratio: int = 4
  activation: str = 'gelu'
  epsilon: float = 1e-6
  qkv_bias: bool = True
  rotary: bool = False
  fused: bool = False
  dropout: float = 0.0
  layer_scale: float = 0.0
  adapters: tuple = ()
  dtype: jnp.dtype = jnp.float32

  def named_adapters(self, hook: str) -> tuple[tuple[str, Adapter], ...]:
    """(name, unbound module) of the adapters that act at a hook."""
    modules = [lookup.make('adapter', **a, dtype=self.dtype, parent=None) for a in self.adapters]
    names = [f'adapters_{a["name"]}' for a in self.adapters]
    return tuple(pair for pair in zip(names, modules, strict=True) if pair[1].hook == hook)

  @nn.compact
  def __call__(self, x, train: bool = False, context: Context | None = None):
    D = x.shape[-1]
    drop = nn.Dropout(self.dropout, deterministic=not train)
    norm = functools.partial(nn.LayerNorm, epsilon=self.epsilon, dtype=self.dtype)

    def branch(y, name):
      if self.layer_scale:
        scale = self.param(name, nn.initializers.constant(self.layer_scale), (D,))
        y = scale.astype(y.dtype)[None, None] * y
      return drop(y)

    def add_parallel(x, site, normed):
      for name, adapter in self.named_adapters('parallel'):
        if site in adapter.sites:
          adapter = adapter.clone(parent=self, name=f'{name}_{site}')
          x = x + adapter(normed, attended, context, train)
      return x

    before, in_attention = [], []  # prompts
    for name, adapter in self.named_adapters('prompts'):
      tokens = adapter.clone(parent=self, name=name)(x, context)  # [B, L, D]
      (before if adapter.kind == 'input' else in_attention).append(tokens.astype(x.dtype))
    n = sum(tokens.shape[1] for tokens in before)
    x = jnp.concatenate([*before, x], 1) if before else x
    h = norm(name='norm1')(x)
    projections = self.named_adapters('projection')
    attention = Attention(
      self.heads, self.qkv_bias, self.rotary, self.fused, projections, self.dtype, name='attn'
    )
    attended = attention(h, context, in_attention, train)
    x = add_parallel(x + branch(attended, 'ls1'), 'attention', h)
    g = norm(name='norm2')(x)
    y = nn.Dense(self.mlp_ratio * D, dtype=self.dtype, name='fc1')(g)
    y = nn.Dense(D, dtype=self.dtype, name='fc2')(ACTIVATIONS[self.activation](y))
    x = add_parallel(x + branch(y, 'ls2'), 'mlp', g)
    return x[:, n:]


class Stage(nn.Module):
  """A range of the blocks, named by their index in the network; for tokens or for a map.

  Attributes:
    first, end: the blocks [first, end).
    width: D; a map of another width is projected first.
    block: fields of `Block`, without its adapters.
    adapters: as in `ViT`.
    scan, remat: see `ViT`.
    dtype: of the computation.
  """

  first: int
  end: int
  width: int
  block: FrozenDict
  adapters: tuple = ()
  scan: bool = False
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, mask=None, context: Context | None = None):
    """[B, N, D] or [B, h, w, C] -> [B, N, D] or [B, h, w, D]."""
    del mask  # no statistics are taken over the batch
    shape = x.shape
    x = x.reshape(shape[0], -1, shape[-1])  # [B, N, C]
    if shape[-1] != self.width:
      x = nn.Dense(self.width, dtype=self.dtype, name='entry')(x)
    if context is None:  # a fusion's map
      context = Context(grid=shape[1:3])
    cls = Block
    if self.remat or self.scan:
      # Without a policy, a loop stores activations that XLA recomputes in unrolled blocks: 12 GB
      # instead of 5 for ViT-B with 64 images on a TPU. Storing the products is enough.
      policy = None if self.remat else jax.checkpoint_policies.dots_saveable
      # 2: train. A loop already keeps XLA from merging the two computations.
      cls = nn.remat(Block, static_argnums=(2,), prevent_cse=not self.scan, policy=policy)

    def block(i, name):
      adapters = tuple(a for a in self.adapters if i in (a.get('blocks') or (i,)))
      return cls(**self.block, adapters=adapters, dtype=self.dtype, name=name)

    if self.scan:
      loop = nn.scan(
        lambda block, x, _: (block(x, train, context), None),
        variable_axes={'params': 0, 'intermediates': 0},
        split_rngs={'params': True, 'dropout': True},
        length=self.end - self.first,
      )
      x, _ = loop(block(self.first, f'blocks_{self.first}'), x, None)
    else:
      for i in range(self.first, self.end):
        x = block(i, f'block_{i}')(x, train, context)
    return x.reshape(*shape[:-1], self.width)
