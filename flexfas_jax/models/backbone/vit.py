"""Vision Transformer as in timm (`vit_*_patch16_224`); returns patch tokens as stage maps.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021. Parameter names follow timm, so that
its table in `weights/architectures.py` is short. N tokens, D width, K heads, d width of a head.
"""

import functools
import re
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from flexfas_jax.errors import ConfigError
from flexfas_jax.lookup import pick
from flexfas_jax.models.backbone.resnet import ResNet
from flexfas_jax.models.layers import Conv, Norm


class Variant(NamedTuple):
  width: int
  depth: int
  heads: int
  resnet: str = '50'  # of the stem 'resnet'


VARIANTS = {
  'mu': Variant(32, 2, 2, 'mu'),  # for tests
  'pico': Variant(96, 4, 3, 'pico'),  # trains on a laptop's CPU
  'Ti': Variant(192, 12, 3, '18'),
  'S': Variant(384, 12, 6, '34'),
  'B': Variant(768, 12, 12),
  'L': Variant(1024, 24, 16),
}
OUTPUTS = ('patches', 'class_token')
STEMS = ('patch', 'conv', 'resnet')


class ToHeads(nn.Module):
  """A dense layer to queries, keys and values by head: [B, N, D] -> 3 of [B, K, N, d].

  It equals a dense layer whose 3 D outputs are reshaped and transposed. Here the product gives
  heads before tokens, so that a TPU copies nothing (a step of ViT-B is estimated at 0.83 of the
  time).
  """

  heads: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    D, K = x.shape[-1], self.heads
    kernel = self.param('kernel', nn.initializers.lecun_normal(), (D, 3 * D))
    bias = self.param('bias', nn.initializers.zeros, (3 * D,))
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    kernel, bias = kernel.reshape(D, 3, K, D // K), bias.reshape(3, K, D // K)
    return [jnp.einsum('bnc,ckd->bknd', x, kernel[:, i]) + bias[i][None, :, None] for i in range(3)]


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
  """Multi-head self-attention, [B, N, D] -> [B, N, D]."""

  heads: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    q, k, v = ToHeads(self.heads, self.dtype, name='qkv')(x)  # [B, K, N, d]
    scores = jnp.einsum('bknd,bkmd->bknm', q, k) / q.shape[-1] ** 0.5
    # Softmax in float32: bfloat16 has eight significant bits and loses small weights.
    weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1).astype(self.dtype)
    x = jnp.einsum('bknm,bkmd->bknd', weights, v)
    return FromHeads(self.dtype, name='proj')(x)


class Block(nn.Module):
  """Pre-norm transformer block, [B, N, D] -> [B, N, D]; see `ViT` for its fields."""

  heads: int
  mlp_ratio: int = 4
  dropout: float = 0.0
  layer_scale: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False):
    D = x.shape[-1]
    drop = nn.Dropout(self.dropout, deterministic=not train)

    def branch(y, name):
      if self.layer_scale:
        scale = self.param(name, nn.initializers.constant(self.layer_scale), (D,))
        y = scale.astype(y.dtype)[None, None] * y
      return drop(y)

    y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name='norm1')(x)
    x = x + branch(Attention(self.heads, self.dtype, name='attn')(y), 'ls1')
    y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name='norm2')(x)
    y = nn.Dense(self.mlp_ratio * D, dtype=self.dtype, name='fc1')(y)
    y = nn.gelu(y, approximate=False)  # timm's GELU is exact; Flax's default is not
    return x + branch(nn.Dense(D, dtype=self.dtype, name='fc2')(y), 'ls2')


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


class Stage(nn.Module):
  """A range of the blocks, named by their index in the network; for tokens or for a map.

  Attributes:
    first, end: the blocks [first, end).
    width: D; a map of another width is projected first.
    heads, dropout, layer_scale, dtype: of the blocks.
    scan, remat: see `ViT`.
  """

  first: int
  end: int
  width: int
  heads: int
  dropout: float = 0.0
  layer_scale: float = 0.0
  scan: bool = False
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, mask=None):
    """[B, N, D] or [B, h, w, C] -> [B, N, D] or [B, h, w, D]."""
    del mask  # no statistics are taken over the batch
    shape = x.shape
    x = x.reshape(shape[0], -1, shape[-1])  # [B, N, C]
    if shape[-1] != self.width:
      x = nn.Dense(self.width, dtype=self.dtype, name='entry')(x)
    block = Block
    if self.remat or self.scan:
      # Without a policy, a loop stores activations that XLA recomputes in unrolled blocks: 12 GB
      # instead of 5 for ViT-B with 64 images on a TPU. Storing the products is enough.
      policy = None if self.remat else jax.checkpoint_policies.dots_saveable
      # 2: train. A loop already keeps XLA from merging the two computations.
      block = nn.remat(Block, static_argnums=(2,), prevent_cse=not self.scan, policy=policy)
    fields = {'dropout': self.dropout, 'layer_scale': self.layer_scale, 'dtype': self.dtype}
    block = functools.partial(block, self.heads, **fields)
    if self.scan:
      loop = nn.scan(
        lambda block, x, _: (block(x, train), None),
        variable_axes={'params': 0},
        split_rngs={'params': True, 'dropout': True},
        length=self.end - self.first,
      )
      x, _ = loop(block(name=f'blocks_{self.first}'), x, None)
    else:
      for i in range(self.first, self.end):
        x = block(name=f'block_{i}')(x, train)
    return x.reshape(*shape[:-1], self.width)


class ViT(nn.Module):
  """Returns the patch tokens after every quarter of the blocks, as four stage maps.

  Attributes:
    variant: a key of `VARIANTS`.
    patch_size: pixels along a side.
    stem: 'patch', one linear projection of each patch; 'conv', see `ConvStem`, to the same grid; or
      'resnet', a projection of the map of a ResNet's first three stages, whose grid is a sixteenth
      (the hybrid of Dosovitskiy et al., section 3.1).
    image_size: pixels along a side of the images that the position embedding is made for; it is
      interpolated for other sizes.
    class_token: prepend timm's class token.
    output: the last map: 'patches' [B, h, w, D], without the class token (FlexModal), or
      'class_token' [B, 1, 1, D] (timm's classifiers).
    final_norm: LayerNorm on the last map. FlexModal's reference has none (models/ViT_Base_CA.py).
    stages: number of stages to run; None runs all.
    dropout: on the residual branches, in training.
    layer_scale: initial value of a learned scale for each channel of a residual branch (Touvron et
      al., "Going deeper with Image Transformers", ICCV 2021); 0 has none. A small value, such as
      0.01, starts the blocks near the identity: what is before them learns from the first step on.
    scan: run a stage's blocks as one loop over stacked parameters, `blocks_{first}/...` [n, ...]
      instead of `block_{first}` ... `block_{first + n - 1}`; see `unstacked_paths`. XLA compiles
      the block once. The function is the same; initialisation and dropout draw other numbers. Off
      by default: on a TPU compilation takes two thirds of the time, but a step is estimated at 1.8
      times as long (ViT-B).
    remat: recompute a block's activations for the gradient instead of storing them.
    dtype: of the computation; parameters are float32.
  """

  variant: str = 'B'
  patch_size: int = 16
  stem: str = 'patch'
  image_size: int = 224
  class_token: bool = True
  output: str = 'patches'
  final_norm: bool = True
  stages: int | None = None
  dropout: float = 0.0
  layer_scale: float = 0.0
  scan: bool = False
  remat: bool = False
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    super().__post_init__()
    if self.output not in OUTPUTS or self.output == 'class_token' and not self.class_token:
      raise ConfigError(
        f'vit has no output {self.output!r} with class_token={self.class_token}; '
        f'choose one of: {", ".join(OUTPUTS)}; the latter needs the token'
      )
    if self.stem not in STEMS:
      raise ConfigError(f'vit has no stem {self.stem!r}; choose one of: {", ".join(STEMS)}')
    if self.stem == 'conv' and self.patch_size not in (2, 4, 8, 16, 32):
      raise ConfigError(
        f"vit's stem 'conv' halves the image: patch_size is a power of 2, not {self.patch_size}"
      )
    if self.stem == 'resnet' and self.patch_size % 16:
      raise ConfigError(
        f"vit's stem 'resnet' has a cell for 16 pixels: patch_size is a multiple of 16, "
        f'not {self.patch_size}'
      )

  @property
  def widths(self) -> tuple[int, ...]:
    """D of each stage map, shallow to deep."""
    return tuple(stage.width for stage in self.stage_modules[: self.stages])

  @property
  def stage_modules(self) -> tuple[nn.Module, ...]:
    """The stages as unbound modules: (map, train, mask) -> map."""
    v = pick('vit variant', VARIANTS, self.variant)
    ends = sorted({max(1, v.depth * quarter // 4) for quarter in (1, 2, 3, 4)})
    return tuple(
      Stage(
        first=first,
        end=end,
        width=v.width,
        heads=v.heads,
        dropout=self.dropout,
        layer_scale=self.layer_scale,
        scan=self.scan,
        remat=self.remat,
        dtype=self.dtype,
        parent=None,
      )
      for first, end in zip([0, *ends], ends, strict=False)
    )

  @nn.compact
  def __call__(self, image, train: bool = False, mask=None):
    """image [B, H, W, 3] float32 -> stage maps, each [B, h, w, D], h = H / patch_size.

    `mask` [B] bool: true for real images; the others do not enter the batch statistics of a stem of
    convolutions. Nothing else here has any.
    """
    v, p = pick('vit variant', VARIANTS, self.variant), self.patch_size
    D, x, patch = v.width, image.astype(self.dtype), (p, p)
    if self.stem == 'conv':
      stem = ConvStem(p.bit_length() - 1, D, self.dtype, name='stem')
      x, patch = stem(x, train, mask), (1, 1)
    elif self.stem == 'resnet':
      stem = ResNet(v.resnet, stages=3, remat=self.remat, dtype=self.dtype, name='resnet')
      x, patch = stem(x, train, mask)[-1], (p // 16, p // 16)
    x = nn.Conv(D, patch, patch, padding='VALID', dtype=self.dtype, name='patch_embed')(x)
    B, h, w, _ = x.shape
    x = x.reshape(B, h * w, D)  # [B, N, D]
    prefix = int(self.class_token)
    if prefix:
      cls = self.param('cls_token', nn.initializers.normal(0.02), (1, 1, D))
      x = jnp.concatenate([jnp.broadcast_to(cls, (B, 1, D)).astype(x.dtype), x], 1)
    grid = self.image_size // p
    embedding = self.param('pos_embed', nn.initializers.normal(0.02), (1, prefix + grid * grid, D))
    x = x + resize_embedding(embedding, prefix, h, w).astype(x.dtype)
    self.sow('intermediates', 'stem', x)
    tokens = []
    stages = self.stage_modules[: self.stages]
    is_complete = len(stages) == len(self.stage_modules)
    for i, stage in enumerate(stages, 1):
      x = stage.clone(parent=self, name=f'stage_{i}')(x, train)
      tokens.append(x)
    if self.final_norm and is_complete:
      tokens[-1] = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name='norm')(x)
    for i, x in enumerate(tokens, 1):
      self.sow('intermediates', f'map_{i}', x)  # with the class token
    maps = [x[:, prefix:].reshape(B, h, w, D) for x in tokens]
    if self.output == 'class_token' and is_complete:
      maps[-1] = tokens[-1][:, None, :1]  # [B, 1, 1, D]
    return tuple(maps)


def unstacked_paths(path: tuple[str, ...], shape: tuple[int, ...]) -> list[tuple[str, ...]]:
  """The paths of an array's parts in the same model with scan=False, one for each block.

  >>> unstacked_paths(('stage_2', 'blocks_3', 'norm1', 'scale'), (2, 768))
  [('stage_2', 'block_3', 'norm1', 'scale'), ('stage_2', 'block_4', 'norm1', 'scale')]
  """
  for depth, key in enumerate(path):
    if match := re.fullmatch(r'blocks_(\d+)', key):
      first = int(match[1])
      names = [f'block_{i}' for i in range(first, first + shape[0])]
      return [(*path[:depth], name, *path[depth + 1 :]) for name in names]
  return [path]


def resize_embedding(embedding, prefix: int, h: int, w: int):
  """Position embedding [1, prefix + g^2, D] for an h x w grid, bicubic as in timm."""
  D = embedding.shape[-1]
  grid = round((embedding.shape[1] - prefix) ** 0.5)
  if (h, w) == (grid, grid):
    return embedding
  patches = embedding[:, prefix:].reshape(1, grid, grid, D)
  patches = jax.image.resize(patches, (1, h, w, D), 'bicubic')
  return jnp.concatenate([embedding[:, :prefix], patches.reshape(1, h * w, D)], 1)
