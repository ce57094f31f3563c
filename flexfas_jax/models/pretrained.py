"""Foreign weights: tables from foreign tensor names to ours, every name, shape and value checked.

    tensors = weight_files.read('resnet50.safetensors')
    model, variables = from_torch(tensors, 'timm/resnet50')
    variables = initialise(variables, donor, into='streams')     a backbone into a larger model
    tensors = to_torch(variables, 'timm/resnet50')               and back

A table is a list of (our module path, theirs): regular expressions with what they become. The
layouts follow from our leaf's name: a kernel [k, k, C, D] is PyTorch's weight [D, C, k, k].
"""

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.lookup import pick
from flexfas_jax.models import flexmodal, vit, weight_files

log = logging.getLogger(__name__)
Tensors = Mapping[str, np.ndarray]
Table = tuple[tuple[str, str | Callable[[re.Match], str]], ...]

RESNET = (
  (r'streams_shared/(conv1|bn1)', r'\1'),
  (r'streams_shared/stage_(\d)/block_(\d+)/downsample_conv', r'layer\1.\2.downsample.0'),
  (r'streams_shared/stage_(\d)/block_(\d+)/downsample_bn', r'layer\1.\2.downsample.1'),
  (r'streams_shared/stage_(\d)/block_(\d+)/(\w+)', r'layer\1.\2.\3'),
  (r'head/logit', 'fc'),
)
VIT = (
  (r'streams_shared', ''),  # cls_token and pos_embed
  (r'streams_shared/patch_embed', 'patch_embed.proj'),
  (r'streams_shared/stage_\d/block_(\d+)/(norm\d)', r'blocks.\1.\2'),
  (r'streams_shared/stage_\d/block_(\d+)/attn/(\w+)', r'blocks.\1.attn.\2'),
  (r'streams_shared/stage_\d/block_(\d+)/(fc\d)', r'blocks.\1.mlp.\2'),
  (r'streams_shared/norm', 'norm'),
  (r'head/logit', 'head'),
)
VIT_CROSS_ATTENTION = (
  *((ours, f'vit.{theirs}' if theirs else 'vit') for ours, theirs in VIT[:-2]),
  (r'fusion/mix/conv', 'ConvFuse.0'),
  (r'fusion/mix/norm', 'ConvFuse.1'),
  (r'head/logit', 'fc'),
)
M = {'rgb': '_M1', 'ir': '_M2', 'depth': '_M3', 'shared': ''}  # CDCN's order of modalities
CDCN = (
  (r'streams_(\w+)/conv1/conv', lambda m: f'conv1{M[m[1]]}.0.conv'),
  (r'streams_(\w+)/conv1/norm', lambda m: f'conv1{M[m[1]]}.1'),
  (r'streams_(\w+)/stage_(\d)/conv_(\d)/conv', lambda m: f'{_block(m)}.{3 * int(m[3])}.conv'),
  (r'streams_(\w+)/stage_(\d)/conv_(\d)/norm', lambda m: f'{_block(m)}.{3 * int(m[3]) + 1}'),
  (r'streams_shared/neck/attention_(\d)/conv', r'sa\1.conv1'),
  (r'(?:streams|fusion/neck)_(\w+?)(?:/neck)?/mix/conv', lambda m: f'lastconv1{M[m[1]]}.0.conv'),
  (r'(?:streams|fusion/neck)_(\w+?)(?:/neck)?/mix/norm', lambda m: f'lastconv1{M[m[1]]}.1'),
  (r'fusion/mix/conv', 'lastconv2.0.conv'),
  (r'fusion/mix/norm', 'lastconv2.1'),
)
# MM-FAS: where a stage stands in a stream, in the aggregation, and in the joint ending.
JOINT = (
  (r'fusion/mix_(\d)', r'agg_layer\1.conv1'),
  (r'fusion/attention_main/(\w+)', lambda m: f'ch_att4.{FC[m[1]]}'),
  (r'fusion/attention_(\d)/(\w+)', lambda m: f'agg_layer{m[1]}.ch_att.{FC[m[2]]}'),
  (r'fusion/main_bottleneck', 'main_bottleneck'),
  (r'fusion/bottleneck', 'agg_bottleneck'),
)
FC = {'reduce': 'se_fc1', 'expand': 'se_fc2'}
WITHIN_CAFFE = {'conv': '0', 'bn': '1', 'prelu': '2', 'prelu1': 'relu1', 'prelu2': 'relu2'}
WITHIN_IR = {
  'bn1': 'res_layer.0',
  'conv1': 'res_layer.1',
  'prelu': 'res_layer.2',
  'conv2': 'res_layer.3',
  'bn2': 'res_layer.4',
  'shortcut_conv': 'shortcut_layer.0',
  'shortcut_bn': 'shortcut_layer.1',
}
IR50_STARTS = (0, 3, 7, 21)  # of the stages, in the one list of units of face recognition's IR-50


def _block(m: re.Match) -> str:
  return f'Block{m[2]}{M[m[1]]}'


def _caffe(m: re.Match, stage: str) -> str:
  """conv, or block_1/prelu2; the last two groups of the match."""
  block, part = m.groups()[-2:]
  return stage + (f'.{4 + int(block)}' if block else '') + f'.{WITHIN_CAFFE.get(part, part)}'


def _ir(m: re.Match, stage: str, start: int = 0) -> str:
  unit, part = m.groups()[-2:]
  return f'{stage}.{start + int(unit)}.{WITHIN_IR[part]}'


_IN_CAFFE = r'/(?:block_(\d+)/)?(\w+)'
_IN_IR = r'/unit_(\d+)/(\w+)'
CAFFE_DLAS = (
  (r'streams_(\w+)/(conv1|bn1)', r'\1_backbone.\2'),
  (r'streams_(\w+)/prelu1', r'\1_backbone.relu'),
  (r'streams_(\w+)/attention_(\d)/(\w+)', lambda m: f'{m[1]}_backbone.ch_att{m[2]}.{FC[m[3]]}'),
  (rf'streams_(\w+)/stage_(\d){_IN_CAFFE}', lambda m: _caffe(m, f'{m[1]}_backbone.layer{m[2]}')),
  (
    rf'fusion/later_(\d){_IN_CAFFE}',
    lambda m: _caffe(m, f'agg_layer{int(m[1]) + 1}.agg_layer'),
  ),
  (rf'fusion/main{_IN_CAFFE}', lambda m: _caffe(m, 'layer4')),
)
IR_DLAS = (
  (r'streams_(\w+)/conv1', r'\1_backbone.input_layer.0'),
  (r'streams_(\w+)/bn1', r'\1_backbone.input_layer.1'),
  (r'streams_(\w+)/prelu1', r'\1_backbone.input_layer.2'),
  (rf'streams_(\w+)/stage_(\d){_IN_IR}', lambda m: _ir(m, f'{m[1]}_backbone.layer{m[2]}')),
  (rf'fusion/later_(\d){_IN_IR}', lambda m: _ir(m, f'agg_layer{int(m[1]) + 1}.agg_layer')),
  (rf'fusion/main{_IN_IR}', lambda m: _ir(m, 'layer4')),
)
CAFFE_FACE = (
  (r'streams_shared/(conv1|bn1)', r'\1'),
  (r'streams_shared/prelu1', 'relu'),
  (rf'streams_shared/stage_(\d){_IN_CAFFE}', lambda m: _caffe(m, f'layer{m[1]}')),
)
IR_FACE = (
  (r'streams_shared/conv1', 'input_layer.0'),
  (r'streams_shared/bn1', 'input_layer.1'),
  (r'streams_shared/prelu1', 'input_layer.2'),
  (rf'streams_shared/stage_(\d){_IN_IR}', lambda m: _ir(m, 'body', IR50_STARTS[int(m[1]) - 1])),
)
GOOGLE_BLOCK = {  # of Google's ViT checkpoints: (theirs, timm's)
  'LayerNorm_0': 'norm1',
  'LayerNorm_2': 'norm2',
  'MlpBlock_3/Dense_0': 'mlp.fc1',
  'MlpBlock_3/Dense_1': 'mlp.fc2',
  'MultiHeadDotProductAttention_1/out': 'attn.proj',
}


class Architecture(NamedTuple):
  """One of the originals.

  Attributes:
    table: our module paths and theirs.
    backbone, fusion, head: fields of `flexmodal.build`.
    classifier: what their last linear layer is called, if it may be there.
    unused: tensors that the original has and does not use, a regular expression.
    inputs: the order in which the original takes its pictures.
    image_size: pixels along a side.
    options: further fields of `flexmodal.build`.
  """

  table: Table
  backbone: dict[str, Any]
  fusion: dict[str, Any] = {'name': 'single'}
  head: dict[str, Any] = {'name': 'binary_logit'}
  classifier: str | None = None
  unused: str | None = None
  inputs: tuple[str, ...] = ('rgb',)
  image_size: int = 224
  options: dict[str, Any] = {}


def _timm_vit(variant: str) -> Architecture:
  return Architecture(
    VIT, {'name': 'vit', 'variant': variant, 'output': 'class_token'}, classifier='head'
  )


def _timm_resnet(variant: str) -> Architecture:
  return Architecture(RESNET, {'name': 'resnet', 'variant': variant}, classifier='fc')


def _dlas(table: Table, backbone: dict[str, Any], variant: str) -> Architecture:
  return Architecture(
    (*table, *JOINT),
    backbone,
    {'name': 'multi_layer_aggregation', 'variant': variant},
    {'name': 'embedding'},
    inputs=('rgb', 'depth', 'ir'),
    image_size=112,
    options={'share_streams': False},
  )


ARCHITECTURES = {
  'timm/resnet18': _timm_resnet('18'),
  'timm/resnet34': _timm_resnet('34'),
  'timm/resnet50': _timm_resnet('50'),
  'timm/vit_tiny_patch16_224': _timm_vit('Ti'),
  'timm/vit_small_patch16_224': _timm_vit('S'),
  'timm/vit_base_patch16_224': _timm_vit('B'),
  'timm/vit_large_patch16_224': _timm_vit('L'),
  'cdcn/cdcn': Architecture(
    (*CDCN, (r'head/map', 'lastconv3.0.conv')),
    {'name': 'cdcn', 'variant': 'cdcn', 'map_size': 32},
    {'name': 'concat', 'width': 64, 'theta': 0.7},
    {'name': 'pixel_map'},
    image_size=256,
  ),
  'cdcn/cdcnpp': Architecture(
    (*CDCN, (r'head/map', 'lastconv1.3.conv')),
    {'name': 'cdcn', 'variant': 'cdcnpp', 'map_size': 32},
    {'name': 'single'},
    {'name': 'pixel_map'},
    image_size=256,
  ),
  'cdcn/cdcn_3modality': Architecture(
    (*CDCN, (r'head/map', 'lastconv3.0.conv')),
    {'name': 'cdcn', 'variant': 'cdcn'},
    {'name': 'cdcn_three_stream', 'map_size': 32, 'faithful': True},
    {'name': 'pixel_map'},
    inputs=('rgb', 'ir', 'depth'),
    image_size=256,
    options={'share_streams': False},
  ),
  'flex_modal_fas/vit_cross_attention': Architecture(
    VIT_CROSS_ATTENTION,
    {'name': 'vit', 'variant': 'B', 'final_norm': False},
    {'name': 'cross_attention', 'form': 'reference', 'bias': True, 'dropout': 0.3},
    {'name': 'binary_logit', 'dropout': 0.3},
    classifier='fc',
    unused=r'vit\.norm\.(weight|bias)',
    inputs=('rgb', 'depth', 'ir'),
    options={'absent': 'blank', 'blank_value': 0.0},
  ),
  'mm_fas/resnet34_dlas_a': _dlas(CAFFE_DLAS, {'name': 'caffe_resnet'}, 'A'),
  'mm_fas/resnet34_dlas_b': _dlas(
    CAFFE_DLAS, {'name': 'caffe_resnet', 'channel_attention': True}, 'B'
  ),
  'mm_fas/resnet34_dlas_c': _dlas(CAFFE_DLAS, {'name': 'caffe_resnet'}, 'C'),
  'mm_fas/ir50_dlas_a': _dlas(IR_DLAS, {'name': 'ir_resnet'}, 'A'),
  # What the two start from: face recognition networks, their descriptors left out.
  'mm_fas/resnet34_caffe': Architecture(
    CAFFE_FACE,
    {'name': 'caffe_resnet'},
    head={'name': 'embedding'},
    unused=r'(fc|bn2|bn_pre)\..*',
    image_size=112,
  ),
  'mm_fas/ir50': Architecture(
    IR_FACE,
    {'name': 'ir_resnet'},
    head={'name': 'embedding'},
    unused=r'output_layer\..*',
    image_size=112,
  ),
}


class Leaf(NamedTuple):
  """One of our arrays, and the foreign tensor that it comes from."""

  path: tuple[str, ...]
  name: str
  shape: tuple[int, ...]  # theirs
  axes: tuple[int, ...]  # transposes theirs into ours, after a reshape where only ones are dropped
  classifier: bool


def from_torch(tensors: Tensors, architecture: str) -> tuple[flexmodal.Model, dict[str, Any]]:
  """A model with the weights of a PyTorch original: its numbers, given its inputs.

  A classifier of two columns becomes their difference, column 1 being bona fide, as in the
  references; one of any other number of classes is left out (and the model ends in an embedding).

  Args:
    tensors: the original's `state_dict` as NumPy arrays, float32, in PyTorch's layouts.
    architecture: a key of `ARCHITECTURES`.

  Returns:
    (model, variables), variables float32. What was left out is logged by name.

  Raises:
    ConfigError: unknown architecture.
    StateError: tensors missing, surplus, of another shape or dtype, or not finite; found before
      anything is allocated.
  """
  origin = pick('architecture', ARCHITECTURES, architecture)
  _check_arrays(tensors, architecture)
  model = _build(origin, tensors)
  abstract = jax.eval_shape(model.init, jax.random.key(0))
  leaves = list(_leaves(origin, abstract, architecture))
  left_out = _check(tensors, leaves, origin, architecture)
  if left_out:
    log.warning('%s: left out, as the model does not use them: %s', architecture, _few(left_out, 8))
  variables = {'params': {}, 'batch_stats': {}}
  for leaf in leaves:
    value = tensors[leaf.name]
    if leaf.classifier and len(value) == 2:
      value = value[1:] - value[:1]
    value = value.reshape(value.shape[: len(leaf.axes)]).transpose(leaf.axes)
    _put(variables, leaf.path, jnp.asarray(np.ascontiguousarray(value)))
  return model, variables


def to_torch(variables, architecture: str, stream: str | None = None) -> dict[str, np.ndarray]:
  """Our weights under the original's names and in PyTorch's layouts; the inverse of `from_torch`.

  The classifier gets two columns, the first 0, so that their difference is our logit.

  Args:
    variables: of a model of this architecture, as `from_torch` gives it.
    architecture: a key of `ARCHITECTURES`.
    stream: write one backbone alone, from a model with any fusion and head: 'shared', or a
      modality's name.

  Raises:
    ConfigError: unknown architecture.
    StateError: an array that the architecture has no name for.
  """
  origin = pick('architecture', ARCHITECTURES, architecture)
  if stream is not None:
    kept = {k: v.get(f'streams_{stream}', {}) for k, v in variables.items()}
    if not kept['params']:
      raise StateError(f'the model has no stream {stream!r}, but {sorted(variables["params"])}')
    variables = {k: {'streams_shared': v} for k, v in kept.items()}
  tensors = {}
  for leaf in _leaves(origin, variables, architecture):
    value = np.asarray(_get(variables, leaf.path), np.float32)
    value = value.transpose(np.argsort(leaf.axes))
    if leaf.classifier:
      value = np.concatenate([np.zeros_like(value), value])
    tensors[leaf.name] = np.ascontiguousarray(value.reshape(value.shape + leaf.shape[value.ndim :]))
    if leaf.path[-1] == 'var':
      counter = leaf.name.replace('running_var', 'num_batches_tracked')
      tensors[counter] = np.zeros((), np.int64)
  return tensors


def load(path: str, architecture: str, sha256: str | None = None):
  """`from_torch` of a file: safetensors, Google's ViT .npz, or 'hub:OWNER/NAME' (extra `hub`).

  Raises:
    ConfigError, StateError: see `from_torch` and `weight_files.read`. Pickles are never opened.
  """
  tensors = weight_files.read(path, sha256)
  if 'embedding/kernel' in tensors:
    tensors = google_to_timm(tensors)
  return from_torch(tensors, architecture)


def google_to_timm(tensors: Tensors) -> dict[str, np.ndarray]:
  """Renames google-research/vision_transformer's checkpoints, as timm does when it loads them.

  They were trained with the tanh form of GELU; timm runs them with the exact one, and so do we.
  """
  found, at = {}, r'Transformer/encoderblock_(\d+)'
  for name, value in tensors.items():
    kind, value = name.rpartition('/')[2], np.asarray(value)
    leaf = {'kernel': 'weight', 'scale': 'weight'}.get(kind, kind)
    if m := re.fullmatch(rf'{at}/MultiHeadDotProductAttention_1/(query|key|value)/\w+', name):
      if m[2] == 'query':
        base = f'Transformer/encoderblock_{m[1]}/MultiHeadDotProductAttention_1'
        parts = [tensors.get(f'{base}/{part}/{kind}') for part in ('query', 'key', 'value')]
        if any(p is None or p.shape != value.shape or p.ndim < 2 for p in parts):
          raise StateError(f'{base}: query, key and value of {kind} do not belong together')
        D = parts[0].shape[0] if kind == 'kernel' else 1
        joined = np.concatenate([p.reshape(D, -1) for p in parts], 1)  # [D, 3 D]
        joined = joined.T if kind == 'kernel' else joined[0]
        found[f'blocks.{m[1]}.attn.qkv.{leaf}'] = joined
    elif m := re.fullmatch(rf'{at}/(.*)/\w+', name):
      if m[2] == 'MultiHeadDotProductAttention_1/out' and kind == 'kernel':
        value = value.reshape(-1, value.shape[-1])  # [K, d, D] -> [D, D]
      value = value.T if kind == 'kernel' else value
      found[f'blocks.{m[1]}.{GOOGLE_BLOCK.get(m[2], m[2])}.{leaf}'] = value
    elif name == 'cls':
      found['cls_token'] = value
    elif name == 'Transformer/posembed_input/pos_embedding':
      found['pos_embed'] = value
    elif name.startswith('Transformer/encoder_norm/'):
      found[f'norm.{leaf}'] = value
    elif name == 'embedding/kernel' and value.ndim == 4:
      found['patch_embed.proj.weight'] = value.transpose(3, 2, 0, 1)
    elif name == 'embedding/bias':
      found['patch_embed.proj.bias'] = value
    elif name.startswith('head/'):
      found[f'head.{leaf}'] = value.T
    elif not name.startswith('pre_logits/'):  # of the 21k-class head
      found[name] = value
  return found


def initialise(variables, donor, into: str = 'streams') -> dict[str, Any]:
  """Puts a backbone's weights into a larger model.

  Args:
    variables: of the model, freshly initialised.
    donor: variables of a model of one backbone, from `from_torch` or a checkpoint of ours.
    into: 'streams', all of them; the name of one modality whose stream is its own; 'aggregation',
      all streams and the joint stages of `multi_layer_aggregation`, as in MM-FAS: the stage after
      each layer, and the last one, whose inputs are repeated for each modality and not divided by
      their number (resnet_caffe_DLAS.py and ir_se_dlas.py, _load_pretrained_weights).

  Returns:
    New variables; what stays as it was in the touched parts is logged by name. A position embedding
    of another grid is interpolated.

  Raises:
    ConfigError: `into` names nothing of the model.
    StateError: shapes that do not fit; no array is changed.
  """
  streams = sorted(k for k in variables['params'] if k.startswith('streams_'))
  kept = {'streams': streams, 'aggregation': streams}.get(into, [f'streams_{into}'])
  joint = {
    k: f'stage_{int(k.removeprefix("later_")) + 2}'
    for k in variables['params'].get('fusion', {})
    if k.startswith('later_')
  }
  if not set(kept) <= set(streams) or into == 'aggregation' and not joint:
    choices = ['streams', *('aggregation' for _ in range(bool(joint)))]
    choices += [s.removeprefix('streams_') for s in streams if s != 'streams_shared']
    raise ConfigError(f'there is nothing to initialise in {into!r}; choose one of: {choices}')
  targets = [(s,) for s in kept]
  sources = {(s,): () for s in kept}
  if into == 'aggregation':
    last = max(joint.values())
    sources |= {('fusion', k): (stage,) for k, stage in joint.items()}
    sources[('fusion', 'main')] = (last,)
    targets = list(sources)

  donated = {
    (kind, *path[2:]): value
    for kind, tree in donor.items()
    for path, value in _flat({kind: tree})
    if path[1].startswith('streams_')
  }
  new, wrong, untouched, used = {}, [], [], set()
  for path, value in _flat(variables):
    kind, inner = path[0], path[1:]
    target = next((t for t in targets if inner[: len(t)] == t), None)
    if target is None:
      continue
    source = (kind, *sources[target], *inner[len(target) :])
    if source not in donated:
      untouched.append('/'.join(inner))
      continue
    fitted = _fit(donated[source], value.shape, source[-1])
    if fitted is None:
      wrong.append(f'{"/".join(inner)}: {donated[source].shape} does not fit {value.shape}')
    used.add(source)
    new[path] = fitted
  if wrong or not new:
    raise StateError(
      'the weights are of another architecture than the model: ' + (_few(wrong) or 'no name agrees')
    )
  if untouched:
    log.warning('not among the weights, left as initialised: %s', _few(sorted(set(untouched)), 8))
  if rest := sorted('/'.join(s[1:]) for s in donated.keys() - used):
    log.warning('left out, as the model does not have them: %s', _few(rest, 8))
  result = {'params': {}, 'batch_stats': {}}
  for path, value in _flat(variables):
    _put(result, path, jnp.asarray(new.get(path, value), value.dtype))
  return result


def _fit(value, shape, leaf: str):
  """`value` in `shape`: as it is, repeated along its inputs, or interpolated; None if it cannot."""
  if value.shape == shape:
    return value
  if len(value.shape) != len(shape):
    return None
  if leaf == 'pos_embed' and value.shape[-1] == shape[-1]:
    for prefix in (0, 1):
      grids = [(x - prefix) ** 0.5 for x in (value.shape[1], shape[1])]
      if all(g >= 1 and g == int(g) for g in grids):
        return vit.resize_embedding(value, prefix, int(grids[1]), int(grids[1]))
    return None
  differ = [i for i in range(len(shape)) if value.shape[i] != shape[i]]
  axis = len(shape) - 2 if leaf == 'kernel' else len(shape) - 1  # of the inputs
  if differ == [axis] and shape[axis] % value.shape[axis] == 0:
    return jnp.concatenate([value] * (shape[axis] // value.shape[axis]), axis)
  return None


def _build(origin: Architecture, tensors: Tensors) -> flexmodal.Model:
  backbone, head, size = dict(origin.backbone), dict(origin.head), origin.image_size
  embedding = tensors.get('pos_embed', tensors.get('vit.pos_embed'))
  if embedding is not None and embedding.ndim == 3:
    grid = max(1, round(max(embedding.shape[1] - 1, 1) ** 0.5))
    size = 16 * min(grid, 256)  # another shape is found when it is compared
  if origin.classifier and not _our_classifier(origin, tensors):
    head = {'name': 'embedding'}
  return flexmodal.build(
    backbone,
    origin.fusion,
    head,
    modalities=origin.inputs,
    image_size=size,
    **{'absent': 'exclude', **origin.options},
  )


def _our_classifier(origin: Architecture, tensors: Tensors) -> bool:
  """Whether there is a classifier of one or two columns, or half of one: then it must be whole."""
  parts = [tensors.get(f'{origin.classifier}.{leaf}') for leaf in ('weight', 'bias')]
  there = [p for p in parts if p is not None]
  return len(there) == 1 or any(len(np.shape(p)) == 0 or len(p) <= 2 for p in there)


def _leaves(origin: Architecture, variables, architecture: str):
  """Every array of ours with the foreign tensor that it comes from."""
  for path, value in _flat(variables):
    inner = list(path[1:-1])
    if inner and inner[-1] == 'bn':
      inner.pop()
    module = _rename(origin.table, '/'.join(inner))
    if module is None:
      raise StateError(f'{architecture} has no name for {"/".join(path[1:])}')
    leaf = {
      'kernel': 'weight',
      'scale': 'weight',
      'slope': 'weight',
      'mean': 'running_mean',
      'var': 'running_var',
    }.get(path[-1], path[-1])
    axes = tuple(range(value.ndim))
    if path[-1] == 'kernel':
      axes = {2: (1, 0), 4: (2, 3, 1, 0)}[value.ndim]
    shape = tuple(value.shape[i] for i in np.argsort(axes))
    if '.se_fc' in module and path[-1] == 'kernel':
      shape += (1, 1)  # a linear layer that is a 1x1 convolution there
    yield Leaf(
      path, f'{module}.{leaf}'.lstrip('.'), shape, axes, inner == ['head', 'logit']
    )


def _rename(table: Table, path: str) -> str | None:
  for ours, theirs in table:
    if m := re.fullmatch(ours, path):
      return theirs(m) if callable(theirs) else m.expand(theirs)
  return None


def _check_arrays(tensors: Tensors, architecture: str) -> None:
  for name, value in tensors.items():
    if not isinstance(name, str) or not isinstance(value, np.ndarray):
      raise StateError(
        f'{architecture}: {name!r} is a {type(value).__name__}, not a NumPy array; '
        'call .numpy() on each tensor of the state_dict'
      )


def _check(tensors: Tensors, leaves: list[Leaf], origin: Architecture, architecture: str):
  """Raises at what is wrong; returns the names of what the model does not use."""
  wanted = {leaf.name: leaf for leaf in leaves}
  counters = {
    n.replace('running_var', 'num_batches_tracked') for n in wanted if n.endswith('running_var')
  }
  missing = [n for n in wanted if n not in tensors]
  surplus, left_out, wrong = [], [], []
  for name, value in tensors.items():
    if name in counters:
      if value.dtype.kind not in 'iu' or value.shape != ():
        wrong.append(f'{name}: a counter, not {value.dtype} {list(value.shape)}')
      continue
    if name not in wanted:
      classifier = origin.classifier and name.startswith(f'{origin.classifier}.')
      unused = origin.unused and re.fullmatch(origin.unused, name)
      (left_out if classifier or unused else surplus).append(name)
      continue
    leaf = wanted[name]
    shapes = [leaf.shape]
    if leaf.classifier:  # one column, or two
      shapes.append((2, *leaf.shape[1:]))
    if value.shape not in shapes:
      asked = ' or '.join(str(list(s)) for s in reversed(shapes))
      wrong.append(f'{name}: {list(value.shape)}, not {asked}')
    elif value.dtype != np.float32:
      wrong.append(f"{name}: {value.dtype}, not float32; convert it with .astype('float32')")
  faults = [
    f'{len(names)} {what}: {_few(names)}'
    for what, names in (('missing', missing), ('surplus', surplus), ('wrong', wrong))
    if names
  ]
  if not faults:
    bad = [n for n in wanted if not np.isfinite(tensors[n]).all()]
    faults = [f'{len(bad)} with NaN or infinite values: {_few(bad)}'] if bad else []
  if faults:
    raise StateError(f'these are not weights of {architecture}. Tensors ' + '; '.join(faults))
  return left_out


def _few(names, most: int = 4) -> str:
  names = list(names)
  return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')


def _flat(tree) -> list[tuple[tuple[str, ...], Any]]:
  return [
    (tuple(k.key for k in path), value)
    for path, value in jax.tree_util.tree_leaves_with_path(tree)
  ]


def _get(tree, path):
  for key in path:
    tree = tree[key]
  return tree


def _put(tree: dict, path: tuple[str, ...], value) -> None:
  for key in path[:-1]:
    tree = tree.setdefault(key, {})
  tree[path[-1]] = value
