"""Vision Transformer as in timm (`vit_*_patch16_224`), returning patch tokens as stage maps.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021. Parameter names follow timm's,
so that `pretrained.py` is a short table. Alphabet: N tokens, D width, K heads, d head width.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from flexfas_jax.lookup import pick


class Variant(NamedTuple):
  width: int
  depth: int
  heads: int


VARIANTS = {
  'mu': Variant(32, 2, 2),  # a toy, for tests
  'pico': Variant(96, 4, 3),  # small enough to train on a laptop's CPU
  'Ti': Variant(192, 12, 3),
  'S': Variant(384, 12, 6),
  'B': Variant(768, 12, 12),
  'L': Variant(1024, 24, 16),
}


class Attention(nn.Module):
  """Multi-head self-attention, [B, N, D] -> [B, N, D]."""

  heads: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    B, N, D = x.shape
    qkv = nn.Dense(3 * D, dtype=self.dtype, name='qkv')(x)
    q, k, v = jnp.moveaxis(qkv.reshape(B, N, 3, self.heads, D // self.heads), 2, 0)  # [B, N, K, d]
    scores = jnp.einsum('bnkd,bmkd->bknm', q, k) / (D // self.heads) ** 0.5
    # Softmax in float32: bfloat16's eight bits lose small weights among many tokens.
    weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1).astype(self.dtype)
    x = jnp.einsum('bknm,bmkd->bnkd', weights, v).reshape(B, N, D)
    return nn.Dense(D, dtype=self.dtype, name='proj')(x)


class Block(nn.Module):
  """Pre-norm transformer block, [B, N, D] -> [B, N, D]."""

  heads: int
  mlp_ratio: int = 4
  dropout: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False):
    D = x.shape[-1]
    drop = nn.Dropout(self.dropout, deterministic=not train)
    y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name='norm1')(x)
    x = x + drop(Attention(self.heads, self.dtype, name='attn')(y))
    y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name='norm2')(x)
    y = nn.Dense(self.mlp_ratio * D, dtype=self.dtype, name='fc1')(y)
    y = nn.gelu(y, approximate=False)  # timm's GELU is exact; Flax's default is not
    return x + drop(nn.Dense(D, dtype=self.dtype, name='fc2')(y))


class ViT(nn.Module):
  """Patch tokens after every quarter of the blocks, as four stage maps.

  Attributes:
    variant: a key of `VARIANTS`.
    patch_size: pixels along a patch's side.
    image_size: pixels along the side of the images whose grid the position embedding has; other
      sizes interpolate it.
    class_token: prepend timm's class token; the maps leave it out again.
    final_norm: LayerNorm on the last map. FlexModal's reference skips it
      (models/ViT_Base_CA.py), as `False` does.
    dropout: on the residual branches, in training.
    dtype: of the computation; parameters are float32.
  """

  variant: str = 'B'
  patch_size: int = 16
  image_size: int = 224
  class_token: bool = True
  final_norm: bool = True
  dropout: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @property
  def widths(self) -> tuple[int, ...]:
    """D of each stage map, shallow to deep."""
    return (pick('vit variant', VARIANTS, self.variant).width,) * len(self._map_after())

  def _map_after(self) -> tuple[int, ...]:
    depth = pick('vit variant', VARIANTS, self.variant).depth
    return tuple(sorted({max(1, depth * quarter // 4) for quarter in (1, 2, 3, 4)}))

  @nn.compact
  def __call__(self, image, train: bool = False, mask=None):
    """image [B, H, W, 3] float32 -> stage maps, each [B, h, w, D], h = H / patch_size.

    `mask` [B] (which images are real) is of no use here: no statistics are taken over the batch.
    """
    del mask
    D, depth, heads = pick('vit variant', VARIANTS, self.variant)
    p = self.patch_size
    x = nn.Conv(D, (p, p), (p, p), padding='VALID', dtype=self.dtype, name='patch_embed')(
      image.astype(self.dtype)
    )
    B, h, w, _ = x.shape
    x = x.reshape(B, h * w, D)  # [B, N, D]
    prefix = int(self.class_token)
    if prefix:
      cls = self.param('cls_token', nn.initializers.normal(0.02), (1, 1, D))
      x = jnp.concatenate([jnp.broadcast_to(cls, (B, 1, D)).astype(x.dtype), x], 1)
    grid = self.image_size // p
    embedding = self.param('pos_embed', nn.initializers.normal(0.02), (1, prefix + grid * grid, D))
    x = x + _resize_embedding(embedding, prefix, grid, h, w).astype(x.dtype)
    maps = []
    for i in range(depth):
      x = Block(heads, dropout=self.dropout, dtype=self.dtype, name=f'blocks_{i}')(x, train)
      if i + 1 in self._map_after():
        maps.append(x)
    if self.final_norm:
      maps[-1] = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name='norm')(x)
    return tuple(tokens[:, prefix:].reshape(B, h, w, D) for tokens in maps)


def _resize_embedding(embedding, prefix, grid, h, w):
  """Position embedding [1, prefix + grid^2, D] for an h x w grid, bicubic as in timm."""
  if (h, w) == (grid, grid):
    return embedding
  D = embedding.shape[-1]
  patches = embedding[:, prefix:].reshape(1, grid, grid, D)
  patches = jax.image.resize(patches, (1, h, w, D), 'bicubic')
  return jnp.concatenate([embedding[:, :prefix], patches.reshape(1, h * w, D)], 1)
