"""Vision Transformer as in timm (`vit_*_patch16_224`); returns patch tokens as stage maps.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, and its foundation models: DINOv2,
DINOv3, CLIP's image tower and SigLIP 2 are choices of the fields (`weights/architectures.py` has
them). Parameter names follow timm. N tokens, P prefix tokens, D width, M modalities.
"""

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from flexfas_jax import lookup
from flexfas_jax.errors import ConfigError
from flexfas_jax.lookup import pick
from flexfas_jax.models.attention_pool import AttentionPool
from flexfas_jax.models.backbone.resnet import ResNet
from flexfas_jax.models.conv_stem import ConvStem
from flexfas_jax.models.hooks import Adapter, Context, Dense
from flexfas_jax.models.transformer import ACTIVATIONS, Stage


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
CHOICES = {
  'output': ('patches', 'class_token', 'attention_pool'),
  'stem': ('patch', 'conv', 'resnet'),
  'positions': ('learned', 'rotary'),
  'sequence': ('separate', 'joint'),
  'activation': tuple(ACTIVATIONS),
}
PER_MODALITY = ('patch_embed', 'cls_token', 'pos_embed', 'projection')
STATISTICS = {  # mean and standard deviation of the inputs in [0, 1] that weights were trained with
  'imagenet': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
  'clip': ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


class ViT(nn.Module):
  """Returns the patch tokens after every quarter of the blocks, as four stage maps.

  Attributes:
    variant: a key of `VARIANTS`.
    depth: number of blocks; None: the variant's.
    patch_size: pixels along a side.
    patch_bias, qkv_bias: whether the patch projection, and queries, keys and values, have a bias.
    stem: 'patch', one linear projection of each patch; 'conv', see `ConvStem`, to the same grid; or
      'resnet', a projection of the map of a ResNet's first three stages, whose grid is a sixteenth
      (the hybrid of Dosovitskiy et al., section 3.1).
    image_size: pixels along a side of the images that the position embedding is made for; it is
      interpolated for other sizes.
    statistics: a key of `STATISTICS`: the inputs are changed from (pixel - 127.5) / 128 to the
      normalisation that foundation weights were trained with; None: they are not.
    class_token: prepend timm's class token.
    registers: number of further learned tokens after it (Darcet et al., "Vision Transformers Need
      Registers", ICLR 2024).
    positions: 'learned', an embedding that is added, or 'rotary', see `rotary.py`.
    class_position: the class token has a position, too.
    pre_norm: LayerNorm before the first block (CLIP).
    activation: of the MLP, a key of `ACTIVATIONS`.
    epsilon: of the norms.
    output: the last map: 'patches' [B, h, w, D], without the prefix (FlexModal), 'class_token' [B,
      1, 1, D] (timm's classifiers), or 'attention_pool' [B, 1, 1, D] (SigLIP).
    final_norm: LayerNorm on the last map. FlexModal's reference has none (models/ViT_Base_CA.py).
    projection: width of a linear layer on the last map (CLIP: 512); 0: there is none.
    unit_norm: divide each cell of the last map by its Euclidean norm.
    stages: number of stages to run; None runs all.
    dropout: on the residual branches, in training.
    layer_scale: initial value of a learned scale for each channel of a residual branch (Touvron et
      al., "Going deeper with Image Transformers", ICCV 2021); 0 has none. A small value, such as
      0.01, starts the blocks near the identity: what is before them learns from the first step on.
    adapters: {'name': a file of `adapters/`, **its fields}, each in every block of its field
      `blocks`. Their parameters are `block_{i}/adapters_{name}...`.
    sequence: 'separate', a sequence for each modality, or 'joint', one of all modalities' patches
      behind one prefix, with attention among all that are present (AMA).
    per_modality: names of `PER_MODALITY` that have a value for each modality.
    scan: run a stage's blocks as one loop over stacked parameters, `blocks_{first}/...` [n, ...]
      instead of `block_{first}` ... `block_{first + n - 1}`; see `unstacked_paths`. XLA compiles
      the block once. The function is the same; initialisation and dropout draw other numbers. Off
      by default: on a TPU compilation takes two thirds of the time, but a step is estimated at 1.8
      times as long (ViT-B).
    remat: recompute a block's activations for the gradient instead of storing them.
    fused_attention: cuDNN's attention on a GPU, see `fused_attention.py`; requires bfloat16 there.
    dtype: of the computation; parameters are float32.
  """

  variant: str = 'B'
  depth: int | None = None
  patch_size: int = 16
  patch_bias: bool = True
  qkv_bias: bool = True
  stem: str = 'patch'
  image_size: int = 224
  statistics: str | None = None
  class_token: bool = True
  registers: int = 0
  positions: str = 'learned'
  class_position: bool = True
  pre_norm: bool = False
  activation: str = 'gelu'
  epsilon: float = 1e-6
  output: str = 'patches'
  final_norm: bool = True
  projection: int = 0
  unit_norm: bool = False
  stages: int | None = None
  dropout: float = 0.0
  layer_scale: float = 0.0
  adapters: tuple = ()
  sequence: str = 'separate'
  per_modality: tuple[str, ...] = ()
  scan: bool = False
  remat: bool = False
  fused_attention: bool = False
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    super().__post_init__()
    for field, choices in CHOICES.items():
      if getattr(self, field) not in choices:
        raise ConfigError(
          f'vit has no {field} {getattr(self, field)!r}; choose one of: {", ".join(choices)}'
        )
    if self.image_size < self.patch_size:
      raise ConfigError(
        f'config.model.image_size is {self.image_size}, less than a patch of vit '
        f'({self.patch_size}); raise it, or lower config.model.backbone.patch_size'
      )
    if self.output == 'class_token' and not self.class_token:
      raise ConfigError("vit's output 'class_token' needs class_token=True")
    if self.statistics is not None:
      pick('statistics of vit', STATISTICS, self.statistics)
    if self.stem == 'conv' and self.patch_size not in (2, 4, 8, 16, 32):
      raise ConfigError(
        f"vit's stem 'conv' halves the image: patch_size is a power of 2, not {self.patch_size}"
      )
    if self.stem == 'resnet' and self.patch_size % 16:
      raise ConfigError(
        f"vit's stem 'resnet' has a cell for 16 pixels: patch_size is a multiple of 16, "
        f'not {self.patch_size}'
      )
    for name in self.per_modality:
      pick('value of per_modality', dict.fromkeys(PER_MODALITY), name)
    if 'patch_embed' in self.per_modality and self.stem != 'patch':
      raise ConfigError("per_modality = ('patch_embed',) needs the stem 'patch'")
    self._check_adapters()

  def _check_adapters(self):
    where, adapters = 'config.model.backbone.adapters', self.adapters
    if not isinstance(adapters, tuple) or not all(isinstance(a, Mapping) for a in adapters):
      raise ConfigError(
        f"{where} is {adapters!r}; give a tuple of the adapters' fields: ({{'name': 'conv'}},)"
      )
    for fields in adapters:
      lookup.find('adapter', fields.get('name'))
      if own := {'dtype', 'parent'} & set(fields):
        raise ConfigError(f'{where}: the model sets {min(own)} of {fields["name"]}; leave it out')
      blocks = fields.get('blocks')
      is_tuple = isinstance(blocks, tuple) and blocks and all(type(b) is int for b in blocks)
      if blocks is not None and not is_tuple:
        raise ConfigError(
          f'{where}: {fields["name"]}.blocks is {blocks!r}; give a tuple of indices, such as (0, '
          '1), or None for all blocks'
        )
    names = [fields['name'] for fields in adapters]
    if len(set(names)) < len(names):
      raise ConfigError(f'{where} has a name twice: {names}')
    depth = self._variant.depth
    for fields, adapter in zip(self.adapters, self.adapter_modules, strict=True):
      adapter.check(self.sequence)
      blocks = set(fields.get('blocks') or range(depth))
      if wrong := sorted(blocks - set(range(depth))):
        raise ConfigError(f'{fields["name"]}: no block {wrong[0]}; vit {self.variant} has {depth}')
      for stage in self.stage_modules if self.scan else ():
        if len(blocks & set(range(stage.first, stage.end))) not in (0, stage.end - stage.first):
          raise ConfigError(
            f"{fields['name']}: with scan=True, all or none of a stage's blocks can have it: "
            f'{stage.first} to {stage.end - 1}'
          )

  @property
  def _variant(self) -> Variant:
    v = pick('vit variant', VARIANTS, self.variant)
    return v if self.depth is None else v._replace(depth=self.depth)

  @property
  def adapter_modules(self) -> list[Adapter]:
    """The adapters as unbound modules."""
    return [lookup.make('adapter', **a, dtype=self.dtype, parent=None) for a in self.adapters]

  @property
  def cross_modal(self) -> bool:
    """Whether a modality's maps depend on the other modalities, or on which are present."""
    return self.sequence == 'joint' or any(a.cross_modal for a in self.adapter_modules)

  @property
  def widths(self) -> tuple[int, ...]:
    """D of each stage map, shallow to deep."""
    every = self.stage_modules
    widths = [stage.width for stage in every[: self.stages]]
    if self.projection and len(widths) == len(every):
      widths[-1] = self.projection
    return tuple(widths)

  @property
  def stage_modules(self) -> tuple[nn.Module, ...]:
    """The stages as unbound modules: (map, train, mask) -> map."""
    v = self._variant
    ends = sorted({max(1, v.depth * quarter // 4) for quarter in (1, 2, 3, 4)})
    block = {k: getattr(self, k) for k in ('activation', 'epsilon', 'qkv_bias', 'dropout')}
    block |= {'layer_scale': self.layer_scale, 'rotary': self.positions == 'rotary'}
    block |= {'fused': self.fused_attention}
    return tuple(
      Stage(
        first=first,
        end=end,
        width=v.width,
        block=FrozenDict(block, heads=v.heads),
        adapters=tuple(a for a in self.adapters if _hook(a) != 'embedding'),
        scan=self.scan,
        remat=self.remat,
        dtype=self.dtype,
        parent=None,
      )
      for first, end in zip([0, *ends], ends, strict=False)
    )

  @nn.compact
  def __call__(self, image, train: bool = False, mask=None, context: Context | None = None):
    """image [B, H, W, 3] float32 -> stage maps, each [B, h, w, D], h = H / patch_size.

    Args:
      image: rows of one modality, or of those of `context`, a sample's one after the other.
      train: dropout is active, and batch norm of a stem uses the batch's statistics.
      mask: [B] bool: true for real images; the others do not enter the batch statistics of a stem
        of convolutions. Nothing else here has any.
      context: whose `modalities`, `every`, `present` and `filled` describe the rows. With its
        `keep`, as in masked pretraining, the blocks see these patches alone, and the tokens after
        every stage are returned, [B, P + n, D] each. A stem of convolutions still sees all pixels.
    """
    context = context or Context()
    x = self._patches(image, train, mask, context)  # [B, h, w, D]
    (rows, h, w, D), M = x.shape, len(context.modalities)
    context = context.replace(grid=(h, w), joint=self.sequence == 'joint')
    x = self._tokens(x.reshape(rows, h * w, D), context)  # [rows, N, D]
    self.sow('intermediates', 'stem', x)
    prefix = x.shape[1] - h * w * (M if context.joint else 1)
    context = context.replace(prefix=prefix)
    if context.keep is not None:
      kept = jnp.take_along_axis(x[:, prefix:], context.keep[:, :, None], 1)  # [rows, n, D]
      x = jnp.concatenate([x[:, :prefix], kept], 1)
    tokens, stages = [], self.stage_modules[: self.stages]
    for i, stage in enumerate(stages, 1):
      x = stage.clone(parent=self, name=f'stage_{i}')(x, train, context=context)
      tokens.append(x)
    is_complete = len(stages) == len(self.stage_modules)
    if self.final_norm and is_complete:
      tokens[-1] = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name='norm')(x)
    for i, x in enumerate(tokens, 1):
      self.sow('intermediates', f'map_{i}', x)  # with the prefix
    if context.keep is not None:
      return tuple(tokens)
    maps = [context.split(x)[1].reshape(rows, h, w, D) for x in tokens]
    if is_complete:
      maps[-1] = self._last_map(tokens[-1], maps[-1], context)
    return tuple(maps)

  def _patches(self, image, train, mask, context: Context):
    """[B, H, W, 3] -> [B, h, w, D]."""
    v, p = VARIANTS[self.variant], self.patch_size
    train = train and not context.frozen_statistics
    if self.statistics:
      mean, std = np.array(STATISTICS[self.statistics])[:, None, None, None]  # [1, 1, 1, 3] each
      offset = (127.5 / 255 - mean) / std
      image = image * np.float32(128 / 255 / std) + np.float32(offset)
    x, patch = image.astype(self.dtype), (p, p)
    if self.stem == 'conv':
      stem = ConvStem(p.bit_length() - 1, v.width, self.dtype, name='stem')
      x, patch = stem(x, train, mask), (1, 1)
    elif self.stem == 'resnet':
      stem = ResNet(v.resnet, stages=3, remat=self.remat, dtype=self.dtype, name='resnet')
      x, patch = stem(x, train, mask)[-1], (p // 16, p // 16)
    if 'patch_embed' in self.per_modality:
      B, H, W, C = x.shape
      h, w = H // p, W // p
      x = x[:, : h * p, : w * p].reshape(B, h, p, w, p, C)
      x = jnp.moveaxis(x, 2, 3).reshape(B, h * w, p * p * C)
      layer = Dense(v.width, bias=self.patch_bias, per_modality=True, dtype=self.dtype,
                    name='patch_embed')  # fmt: skip
      return layer(x, context).reshape(B, h, w, v.width)
    embed = functools.partial(nn.Conv, padding='VALID', use_bias=self.patch_bias, dtype=self.dtype)
    return embed(v.width, patch, patch, name='patch_embed')(x)

  def _tokens(self, x, context: Context):
    """Patches [B M, h w, D] -> tokens with positions and prefix, [B M, N, D] or [B, N, D]."""
    D, M = x.shape[-1], len(context.modalities)

    def parameter(name, n):  # [1 or M, n, D]
      every = len(context.every) if name in self.per_modality else 1
      value = self.param(name, nn.initializers.normal(0.02), (every, n, D))
      return value if every == 1 else value[jnp.array(context.indices)]

    def repeat(value, rows):  # [1 or M, n, D] -> [rows, n, D]
      if context.joint:  # one class token for all: that of the first modality
        value = value[:1]
      repeated = jnp.broadcast_to(value[None], (rows // len(value), *value.shape))
      return repeated.reshape(rows, *value.shape[1:]).astype(x.dtype)

    cls = parameter('cls_token', 1) if self.class_token else jnp.zeros((1, 0, D))
    if self.positions == 'learned':
      prefix = int(self.class_token and self.class_position)
      grid = self.image_size // self.patch_size
      places = resize_embedding(parameter('pos_embed', prefix + grid**2), prefix, *context.grid)
      on_patches = jnp.broadcast_to(places[:, prefix:], (M, *places[:, prefix:].shape[1:]))
      x = x + jnp.tile(on_patches.astype(x.dtype), (x.shape[0] // M, 1, 1))
      if prefix:
        cls = cls + places[:, :1]
    if context.joint:
      x = x.reshape(-1, M * x.shape[1], D)  # [B, M h w, D]
    rows = x.shape[0]
    tokens = [repeat(cls, rows)] if self.class_token else []
    if self.registers:
      tokens.append(repeat(parameter('reg_token', self.registers), rows))
    for fields, adapter in zip(self.adapters, self.adapter_modules, strict=True):
      if adapter.hook == 'embedding':
        adapter = adapter.clone(parent=self, name=f'adapters_{fields["name"]}')
        tokens.append(adapter(rows, context, D).astype(x.dtype))
    x = jnp.concatenate([*tokens, x], 1) if tokens else x
    if self.pre_norm:
      x = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name='pre_norm')(x)
    return x

  def _last_map(self, tokens, x, context: Context):
    """The last tokens, and their patches [B, h, w, D] -> the last map."""
    if self.output == 'attention_pool':
      heads = VARIANTS[self.variant].heads
      pool = AttentionPool(heads, epsilon=self.epsilon, dtype=self.dtype, name='attn_pool')
      tokens = pool(tokens, context.key_mask(tokens.shape[1]))
    if self.output != 'patches':
      tokens = tokens[:, :1]  # [B, 1, D]
      if context.joint:  # every modality gets the one token
        tokens = jnp.repeat(tokens, len(context.modalities), 0)
      x = tokens[:, :, None]  # [B, 1, 1, D]
      self.sow('intermediates', 'pooled', x[:, 0, 0])
    if self.projection:
      B, h, w, D = x.shape
      layer = Dense(
        self.projection, per_modality='projection' in self.per_modality, dtype=self.dtype,
        name='projection',
      )  # fmt: skip
      x = layer(x.reshape(B, h * w, D), context).reshape(B, h, w, -1)
    if self.unit_norm:
      square = jnp.square(x.astype(jnp.float32)).sum(-1, keepdims=True)
      x = (x / jnp.sqrt(jnp.maximum(square, 1e-12))).astype(x.dtype)
    return x


def _hook(fields) -> str:
  return lookup.find('adapter', fields['name']).hook


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
  """Position embedding [n, prefix + g^2, D] for an h x w grid, antialiased bicubic as in timm."""
  n, _, D = embedding.shape
  grid = round((embedding.shape[1] - prefix) ** 0.5)
  if (h, w) == (grid, grid):
    return embedding
  patches = embedding[:, prefix:].reshape(n, grid, grid, D)
  patches = jax.image.resize(patches, (n, h, w, D), 'bicubic')
  return jnp.concatenate([embedding[:, :prefix], patches.reshape(n, h * w, D)], 1)
