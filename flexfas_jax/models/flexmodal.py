"""The whole model on one page: streams encode, a fusion fuses, a head decides.

    maps   = {m: encode(image of m)}          once per sample and modality
    fused  = fuse(maps, present)              once per subset of modalities
    logit  = head(fused)

A backbone whose adapters read other modalities is `cross_modal`: then

    maps   = encode_together(images, present)     once per subset of modalities

FlexModal (Yu et al., CVPRW 2023) is one configuration: ViT-B, shared streams, cross-attention,
black images for absent modalities. Dimensions: B batch, M modalities, h w the grid of a map, D
width.
"""

import functools
import inspect
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from flexfas_jax import lookup, schema
from flexfas_jax.errors import ConfigError
from flexfas_jax.models.hooks import Context

ABSENT = ('token', 'exclude', 'blank')
StageMaps = tuple[jax.Array, ...]  # shallow to deep, each [B, h, w, D]
Maps = Mapping[str, StageMaps]  # by modality
Variables = Mapping[str, Any]


class FlexModal(nn.Module):
  """Backbone, fusion and head, composed as fields.

  Attributes:
    streams: {'shared': backbone}, or {modality: backbone}.
    fusion, head: see `fusion/` and `heads.py`.
    modalities: in the order of `present`'s columns.
    absent: placeholder of an absent modality. 'token': a learned feature per stage. 'exclude':
      none; the fusion leaves the modality out. 'blank': the features of a constant image.
    blank_value: of that image. The reference trains with black ((0 - 127.5) / 128) and tests with
      0 (Flex-Modal-FAS: Load_FAS_MultiModal_DropModal.py:114-128 and ..._test.py:64).
    branch_logits: in training, also compute a logit from each modality alone, for losses across
      modalities.
    full_features: in training, also compute the fused features of all images that a sample has,
      before modality dropout, for the loss `subset_consistency`.
    modality_features: in training, also return the pooled last map of each modality alone, and the
      certainty of each modality if an adapter of the last block has it.
    frozen_statistics: batch norm of the streams uses its running statistics in training, too, and
      keeps them: for pretrained streams that do not train.
  """

  streams: Mapping[str, nn.Module]
  fusion: nn.Module
  head: nn.Module
  modalities: tuple[str, ...]
  absent: str = 'token'
  blank_value: float = -127.5 / 128
  branch_logits: bool = False
  full_features: bool = False
  modality_features: bool = False
  frozen_statistics: bool = False

  def setup(self) -> None:
    widths = self._stream(self.modalities[0]).widths
    self.used = self.fusion.stages(len(widths))
    if self.absent == 'token':
      self.tokens = {
        m: tuple(
          self.param(f'token_{m}_{i}', nn.initializers.normal(0.02), (widths[i],))
          for i in self.used
        )
        for m in self.modalities
      }
    if self.branch_logits:
      self.branches = {m: nn.Dense(1) for m in self.modalities}

  @property
  def cross_modal(self) -> bool:
    """Whether a modality's maps depend on the other modalities, or on which are present."""
    return any(getattr(stream, 'cross_modal', False) for stream in self.streams.values())

  def _stream(self, modality: str) -> nn.Module:
    return self.streams['shared'] if 'shared' in self.streams else self.streams[modality]

  def _context(self, modalities: tuple[str, ...], present: jax.Array | None = None) -> Context:
    return Context(
      present,
      modalities,
      self.modalities,
      filled=self.absent == 'blank',
      frozen_statistics=self.frozen_statistics,
    )

  def _run(
    self,
    images: jax.Array,
    train: bool,
    mask: jax.Array | None,
    context: Context,
  ) -> StageMaps:
    """The stage maps of one stream's images; a backbone with adapters gets the context."""
    stream = self._stream(context.modalities[0])
    maps: StageMaps
    if hasattr(stream, 'adapters'):
      maps = stream(images, train, mask, context)
    else:  # nothing but batch norm depends on `train`
      maps = stream(images, train and not self.frozen_statistics, mask)
    return maps

  def encode(
    self, image: jax.Array, modality: str, train: bool = False, mask: jax.Array | None = None
  ) -> StageMaps:
    """Stage maps, shallow to deep, each [B, h, w, D].

    Args:
      image: [B, H, W, C] float32, C = 3 or 1 (repeated).
      modality: of the image.
      train: batch norm uses the batch's statistics, and dropout is active.
      mask: [B] bool, true for real images; the others do not enter batch statistics.
    """
    if image.shape[-1] == 1:
      image = jnp.repeat(image, 3, -1)
    return self._run(image, train, mask, self._context((modality,)))

  def encode_together(
    self,
    images: Mapping[str, jax.Array],
    present: jax.Array | None = None,
    train: bool = False,
  ) -> dict[str, StageMaps]:
    """The stage maps of a shared stream for all modalities, under one subset.

    Args:
      images: {modality: [B, H, W, C]} of at least one modality; the pixels of absent ones are not
        read.
      present: [B, M] bool; None: all of `images`.
      train: as in `encode`.

    Returns:
      {modality: stage maps} of `images`; with absent='blank' of all modalities, since a blank image
      is read like any other.
    """
    template = next(iter(images.values()))
    blank = self.blank_value if self.absent == 'blank' else 0.0
    # `images` may be in another order: `jit` sorts a dictionary's keys.
    used = tuple(m for m in self.modalities if m in images or self.absent == 'blank')
    stacked, masks = [], []
    for m in used:
      is_there = jnp.full(template.shape[:1], m in images)  # [B]
      if m not in images:
        image = jnp.full((*template.shape[:-1], 3), blank)
      elif present is not None:
        # Pixels of an absent modality must not reach batch statistics, nor a NaN the gradient.
        is_there = present[:, self.modalities.index(m)]
        image = jnp.where(is_there[:, None, None, None], images[m], blank)
      else:
        image = images[m]
      stacked.append(jnp.broadcast_to(image, (*image.shape[:-1], 3)))
      masks.append(is_there)
    # One pass over [B M] images: one program instead of M. Batch first: sharding over devices is
    # then unchanged.
    B, M = stacked[0].shape[0], len(stacked)
    stack = jnp.stack(stacked, 1).reshape(B * M, *stacked[0].shape[1:])  # [B M, H, W, 3]
    there = jnp.stack(masks, 1)  # [B, M]
    mask = None if self.absent == 'blank' else there.reshape(B * M)
    all_there = present is None and set(used) <= set(images)
    context = self._context(used, None if all_there else there)
    maps = [x.reshape(B, M, *x.shape[1:]) for x in self._run(stack, train, mask, context)]
    return {m: tuple(x[:, i] for x in maps) for i, m in enumerate(used)}  # each [B, h, w, D]

  def absent_maps(self, image_shape: tuple[int, int]) -> dict[str, StageMaps]:
    """Placeholders of absent modalities: {modality: stage maps, [1, h, w, D] or [1, 1, 1, D]}.

    They depend on the weights alone: compute them once and pass them to `decide`.
    """
    if self.absent == 'token':
      return {m: tuple(t[None, None, None] for t in self.tokens[m]) for m in self.modalities}
    if self.absent == 'exclude':
      return {m: tuple(jnp.zeros((1, 1, 1, 1)) for _ in self.used) for m in self.modalities}
    if self.cross_modal:  # `encode_together` reads blank images
      return {m: tuple(jnp.zeros((1, 1, 1, 1)) for _ in self.used) for m in self.modalities}
    blank = jnp.full((1, *image_shape, 3), self.blank_value)
    streams = self.modalities[:1] if 'shared' in self.streams else self.modalities
    maps = {m: self._used(self.encode(blank, m)) for m in streams}
    return {m: maps.get(m, maps[streams[0]]) for m in self.modalities}

  def _used(self, maps: StageMaps) -> StageMaps:
    return tuple(maps[i] for i in self.used)

  def fuse(self, maps: Maps, absent: Maps, present: jax.Array, train: bool = False) -> jax.Array:
    """Fuses one subset of modalities.

    Args:
      maps: from `encode`, for at least one modality; a device with RGB alone passes RGB's.
      absent: from `absent_maps`.
      present: [B, M] bool; a modality without maps is absent, whatever `present` holds.
      train: as in `encode`.

    Returns:
      [B, h, w, D'].
    """
    maps = {m: self._used(maps[m]) for m in maps}
    if self.cross_modal and self.absent == 'blank':  # they already hold those of blank images
      return self._fused(maps, jnp.ones_like(present), train)
    template = next(iter(maps.values()))
    if self.absent == 'blank' and 'shared' in self.streams:
      # The placeholders are equal. As one array, the compiler computes with it only once.
      absent = dict.fromkeys(self.modalities, absent[self.modalities[0]])
    filled = {}
    for i, m in enumerate(self.modalities):
      if m not in maps:  # depends on the weights alone, so an export can precompute with it
        filled[m] = tuple(
          jnp.broadcast_to(placeholder.astype(x.dtype), x.shape)
          for x, placeholder in zip(template, absent[m], strict=True)
        )
        continue
      is_present = present[:, i, None, None, None]  # [B, 1, 1, 1]
      filled[m] = tuple(
        jnp.where(is_present, x, placeholder.astype(x.dtype))
        for x, placeholder in zip(maps[m], absent[m], strict=True)
      )
    present = present & jnp.array([m in maps for m in self.modalities])[None]
    if self.absent != 'exclude':  # the fusion treats a placeholder like a modality
      present = jnp.ones_like(present)
    return self._fused(filled, present, train)

  def _fused(self, maps: Maps, present: jax.Array, train: bool) -> jax.Array:
    fused: jax.Array = self.fusion(maps, present, train)
    return fused

  def decide(
    self, maps: Maps, absent: Maps, present: jax.Array, train: bool = False
  ) -> dict[str, Any]:
    """`head(fuse(...))`: {'logit': [B] float32, 'map': [B, h, w] or None}; arguments of `fuse`."""
    outputs: dict[str, Any] = self.head(self.fuse(maps, absent, present, train), train)
    return outputs

  def __call__(self, batch: Mapping[str, jax.Array], train: bool = False) -> dict[str, Any]:
    """The training pass: encodes every modality and fuses them once, under `batch['present']`.

    Args:
      batch: images by modality [B, H, W, C] and 'present' [B, M] bool; for full_features also
        'available' [B, M] bool, before modality dropout.
      train: as in `encode`.

    Returns:
      {'logit': [B] float32, 'map': [B, h, w] or None}; with branch_logits also
      'branch_logit' [B, M] float32, undefined for an absent modality; with full_features also
      'feature' and 'full_feature' [B, D'] float32; with modality_features also 'modality_feature'
      [B, M, D] float32, undefined for an absent modality.
    """
    present = batch['present']
    maps, fused = self._train_pass(batch, present, train)
    out: dict[str, Any] = self.head(fused, train)
    if self.full_features and train:
      _, full = self._train_pass(batch, batch.get('available', present), train)
      pooled = {'feature': fused, 'full_feature': full}
      out |= {name: x.astype(jnp.float32).mean((1, 2)) for name, x in pooled.items()}  # [B, D']
    if not self.branch_logits and not self.modality_features:
      return out
    pooled = {m: maps[m][self.used[-1]].astype(jnp.float32).mean((1, 2)) for m in self.modalities}
    if self.branch_logits:
      logits = [self.branches[m](pooled[m])[:, 0] for m in self.modalities]
      out = {**out, 'branch_logit': jnp.stack(logits, 1)}  # [B, M]
    if self.modality_features:
      out = {**out, 'modality_feature': jnp.stack([pooled[m] for m in self.modalities], 1)}
    return out

  def _train_pass(
    self, batch: Mapping[str, jax.Array], present: jax.Array, train: bool
  ) -> tuple[dict[str, StageMaps], jax.Array]:
    """Maps of all modalities, and the fused map under `present`."""
    images = {m: batch[m] for m in self.modalities}
    if 'shared' in self.streams:
      maps = self.encode_together(images, present, train)
    else:
      maps = {}
      blank = self.blank_value if self.absent == 'blank' else 0.0
      for i, m in enumerate(self.modalities):
        image = jnp.where(present[:, i, None, None, None], batch[m], blank)
        maps[m] = self.encode(image, m, train, None if self.absent == 'blank' else present[:, i])
    if self.absent == 'blank':  # `maps` already holds the features of blank images
      used = {m: self._used(maps[m]) for m in self.modalities}
      return maps, self._fused(used, jnp.ones_like(present), train)
    height, width = images[self.modalities[0]].shape[1:3]
    return maps, self.fuse(maps, self.absent_maps((height, width)), present, train)


class Model:
  """A FlexModal as pure functions over pytrees: the interface for training, evaluation and export.

  Variables are `{'params': ..., 'batch_stats': ...}`; 'batch_stats' may be empty.
  """

  def __init__(self, module: FlexModal, image_size: int) -> None:
    for stream in module.streams.values():
      assert stream.widths, 'a backbone has widths'  # reading them raises for an unknown variant
    self.module = module
    self.modalities = module.modalities
    self.requires = tuple(module.fusion.requires)  # modalities without which the fusion fails
    self.cross_modal = module.cross_modal  # `encode_together` once per subset, not `encode`
    self.image_size = image_size

  @property
  def subsets(self) -> tuple[tuple[str, ...], ...]:
    """The subsets of modalities that the fusion can serve: those with RGB first, small to large."""
    M = self.modalities
    every = [s for n in range(1, len(M) + 1) for s in itertools.combinations(M, n)]
    served = [s for s in every if set(self.requires) <= set(s)]
    return tuple(sorted(served, key=lambda s: 'rgb' not in s))

  def init(self, key: jax.Array) -> dict[str, Any]:
    """Fresh variables, float32."""
    size = (1, self.image_size, self.image_size, 3)
    batch = {m: jnp.zeros(size) for m in self.modalities}
    batch['present'] = jnp.ones((1, len(self.modalities)), bool)
    variables = self.module.init({'params': key}, batch)
    return {'batch_stats': {}, **variables}

  def shapes(self) -> dict[str, Any]:
    """Variables as `jax.ShapeDtypeStruct`; of equal models, one is traced."""
    return _copy(_shapes(self.module, self.image_size))

  def output_shapes(self) -> dict[str, Any]:
    """Outputs of `apply` for a batch of two; as `shapes`."""
    return _copy(_output_shapes(self.module, self.image_size))

  def apply(
    self, variables: Variables, batch: Mapping[str, jax.Array], key: jax.Array
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    """The training pass: (outputs, new batch statistics). `key` feeds dropout.

    With modality_features, the outputs have 'certainty' [M] if the last block's adapters have it.
    """
    mutable = ['batch_stats', *(['intermediates'] if self.module.modality_features else [])]
    out, changed = self.module.apply(
      variables, batch, train=True, rngs={'dropout': key}, mutable=mutable
    )
    certainty = _certainty(changed.get('intermediates', {}), len(self.modalities))
    if certainty is not None:
      out = {**out, 'certainty': certainty}
    return out, changed.get('batch_stats', {})

  def encode(self, variables: Variables, image: jax.Array, modality: str) -> StageMaps:
    """One modality's stage maps, each [B, h, w, D], for evaluation."""
    maps: StageMaps = self._apply(variables, image, modality, method='encode')
    return maps

  def encode_together(
    self,
    variables: Variables,
    images: Mapping[str, jax.Array],
    present: jax.Array | None = None,
  ) -> dict[str, StageMaps]:
    """All modalities' stage maps under one subset, for a model that is `cross_modal`.

    Args:
      variables: of the model.
      images: {modality: [B, H, W, C]}.
      present: [B, M] bool; None: all of `images`.
    """
    maps: dict[str, StageMaps] = self._apply(variables, images, present, method='encode_together')
    return maps

  def encode_all(
    self, variables: Variables, images: Mapping[str, jax.Array], present: jax.Array | None
  ) -> dict[str, StageMaps]:
    """The stage maps of all images, for one subset if the model is `cross_modal`.

    Args:
      variables: of the model.
      images: {modality: [B, H, W, C]}; other keys are ignored.
      present: [B, M] bool; None: all of `images`.
    """
    images = {m: images[m] for m in self.modalities if m in images}
    if self.cross_modal:
      return self.encode_together(variables, images, present)
    return {m: self.encode(variables, image, m) for m, image in images.items()}

  def intermediates(
    self, variables: Variables, image: jax.Array, modality: str
  ) -> dict[str, jax.Array]:
    """Named intermediate maps of a stream: 'stem', 'map_1', ..., see the backbone's file."""
    _, state = self.module.apply(
      variables, image, modality, method='encode', mutable=['intermediates']
    )
    (stream,) = state['intermediates'].values()
    # Those of a stream's own backbone, such as a ViT's ResNet, are in a dictionary.
    return {name: values[0] for name, values in stream.items() if isinstance(values, tuple)}

  def absent_maps(self, variables: Variables) -> dict[str, StageMaps]:
    """Placeholders of absent modalities; compute them once per set of weights."""
    size = (self.image_size, self.image_size)
    maps: dict[str, StageMaps] = self._apply(variables, size, method='absent_maps')
    return maps

  def decide(
    self, variables: Variables, maps: Maps, absent: Maps, present: jax.Array
  ) -> dict[str, Any]:
    """{'logit': [B], 'map': [B, h, w] or None} of encoded samples under `present` [B, M]."""
    outputs: dict[str, Any] = self._apply(variables, maps, absent, present, method='decide')
    return outputs

  def _apply(self, variables: Variables, *args: Any, method: str) -> Any:
    return self.module.apply(variables, *args, method=method)


def _certainty(intermediates: Mapping[str, Any], M: int) -> jax.Array | None:
  """The certainty [M] of the modalities in the last block that has one, float32; None: none has."""
  found: dict[int, jax.Array] = {}
  for path, value in jax.tree_util.tree_leaves_with_path(intermediates):
    names = [str(getattr(key, 'key', '')) for key in path]
    block = next((int(n.split('_')[1]) for n in names if re.fullmatch(r'blocks?_\d+', n)), 0)
    if 'certainty' in names and value.shape[-1:] == (M,) and value.ndim <= 2:
      last = value.reshape(-1, M)[-1].astype(jnp.float32)  # of a loop's blocks
      found.setdefault(block, last)  # a second pass is that of full_features
  return found[max(found)] if found else None


@functools.lru_cache(maxsize=64)
def _shapes(module: FlexModal, image_size: int) -> dict[str, Any]:
  shapes: dict[str, Any] = jax.eval_shape(Model(module, image_size).init, jax.random.key(0))
  return shapes


@functools.lru_cache(maxsize=64)
def _output_shapes(module: FlexModal, image_size: int) -> dict[str, Any]:
  model = Model(module, image_size)
  image = jax.ShapeDtypeStruct((2, image_size, image_size, 3), jnp.float32)
  batch: dict[str, Any] = dict.fromkeys(model.modalities, image)
  batch['present'] = jax.ShapeDtypeStruct((2, len(model.modalities)), bool)
  outputs: dict[str, Any]
  outputs, _ = jax.eval_shape(model.apply, model.shapes(), batch, jax.random.key(0))
  return outputs


def _copy(tree: dict[str, Any]) -> dict[str, Any]:
  copied: dict[str, Any] = jax.tree.map(lambda leaf: leaf, tree)
  return copied


def _hashable(value: Any) -> Any:
  """A config's value with tuples and frozen dictionaries for lists and dictionaries."""
  if isinstance(value, Mapping):
    return FrozenDict({k: _hashable(v) for k, v in value.items()})
  return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def check_modalities(names: Sequence[str]) -> tuple[str, ...]:
  """The modalities of a config as a tuple.

  Raises:
    ConfigError: none, one twice, or one that `schema.MODALITIES` lacks.
  """
  known = ', '.join(schema.MODALITIES)
  if not isinstance(names, list | tuple) or not names:
    raise ConfigError(f'config.model.modalities is {names!r}; give some of: {known}')
  for name in names:
    if name not in schema.MODALITIES:
      raise ConfigError(
        f"config.model.modalities has {name!r}; choose from: {known}, as a tuple: ('rgb', 'depth')"
      )
  if len(set(names)) < len(names):
    raise ConfigError(f'config.model.modalities has a name twice: {", ".join(names)}')
  return tuple(names)


def build(
  backbone: Mapping[str, Any],
  fusion: Mapping[str, Any],
  head: Mapping[str, Any],
  modalities: tuple[str, ...] = ('rgb', 'depth', 'ir'),
  image_size: int = 224,
  share_streams: bool = True,
  absent: str = 'token',
  blank_value: float = -127.5 / 128,
  branch_logits: bool = False,
  full_features: bool = False,
  modality_features: bool = False,
  frozen_statistics: bool = False,
  dtype: str = 'float32',
) -> Model:
  """Builds the model of a config's group `model`.

  Args:
    backbone: `name`, a file of `backbone/`, and its fields.
    fusion: `name`, a file of `fusion/`, and its fields.
    head: `name`, a class of `heads.py` in snake case, and its fields.
    modalities: in the order of `present`'s columns.
    image_size: pixels along a side of the square input.
    share_streams: one set of backbone weights for all modalities, or one for each.
    absent, blank_value, branch_logits, full_features, modality_features, frozen_statistics: see
      `FlexModal`.
    dtype: of the computation, 'float32' or 'bfloat16'; parameters are float32.

  Raises:
    ConfigError: an unknown name or field, or an invalid combination.
  """
  if dtype not in ('float32', 'bfloat16'):
    raise ConfigError(f"unknown dtype {dtype!r}; choose 'float32' or 'bfloat16'")
  if absent not in ABSENT:
    raise ConfigError(f'unknown kind of absent modality {absent!r}; choose one of: {ABSENT}')
  modalities = check_modalities(modalities)
  options = {'share_streams': share_streams, 'branch_logits': branch_logits}
  options |= {'full_features': full_features, 'modality_features': modality_features}
  options |= {'frozen_statistics': frozen_statistics}
  lookup.check_values('config.model', inspect.signature(build).parameters, options)
  if isinstance(blank_value, bool) or not isinstance(blank_value, int | float):
    raise ConfigError(f'config.model.blank_value is {blank_value!r}; give a number')
  if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 1:
    raise ConfigError(f'config.model.image_size is {image_size!r}; give a number of pixels')

  def make(kind: str, fields: Mapping[str, Any], **defaults: Any) -> Any:
    """A module with a config's fields; `defaults` apply where its class has such a field."""
    if not isinstance(fields, Mapping):
      names = ', '.join(lookup.choices(kind))
      raise ConfigError(
        f"config.model.{kind} is {fields!r}; give a group: {{'name': one of {names}}}"
      )
    fields = {name: _hashable(value) for name, value in fields.items()}
    module_fields = lookup.find(kind, fields.get('name')).__dataclass_fields__
    defaults = {k: v for k, v in defaults.items() if k in module_fields}
    return lookup.make(kind, **{**defaults, **fields}, dtype=jnp.dtype(dtype))

  stream = make('backbone', backbone, image_size=image_size)
  later = stream.stage_modules[1:]
  fusion_module = make('fusion', fusion, modalities=modalities, later=later)
  if getattr(stream, 'cross_modal', False) and (
    not share_streams or 'later' in type(fusion_module).__dataclass_fields__
  ):
    raise ConfigError(
      'adapters that read other modalities need share_streams=True and a fusion without stages of '
      f'the backbone, not {fusion["name"]!r}'
    )
  # Build only the stages that the fusion reads: MM-FAS's streams end before their last stage.
  n_stages = max(fusion_module.stages(len(stream.widths))) + 1
  names = ('shared',) if share_streams else modalities
  head_module = make('head', head)
  if getattr(head_module, 'modalities', len(modalities)) != len(modalities):
    raise ConfigError(
      f'config.model.head.modalities is {head_module.modalities}, but config.model.modalities has '
      f'{len(modalities)}'
    )
  return Model(
    FlexModal(
      streams=FrozenDict({n: stream.clone(stages=n_stages) for n in names}),  # hashable
      fusion=fusion_module,
      head=head_module,
      modalities=modalities,
      absent=absent,
      blank_value=blank_value,
      branch_logits=branch_logits,
      full_features=full_features,
      modality_features=modality_features,
      frozen_statistics=frozen_statistics,
    ),
    image_size,
  )
