"""Foreign weights into our models and back, every name, shape and value checked.

    tensors = weight_files.read('resnet50.safetensors')
    model, variables = from_torch(tensors, 'timm/resnet50')
    variables = initialise(variables, donor, into='streams')     a backbone into a larger model
    tensors = to_torch(variables, 'timm/resnet50')               and back
    variables = restack(variables, like)                         for a ViT whose blocks are scanned

What a module is called in an original, `foreign_names.py` knows. The layouts follow from our leaf's
name: a kernel [k, k, C, D] is PyTorch's weight [D, C, k, k].
"""

import functools
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.lookup import pick
from flexfas_jax.models import flexmodal
from flexfas_jax.models.backbone import vit
from flexfas_jax.models.weights import files as weight_files
from flexfas_jax.models.weights.architectures import ARCHITECTURES, Architecture, looks_like, rename

log = logging.getLogger(__name__)
Path = tuple[str, ...]  # of one of our arrays: ('params', 'streams_shared', 'conv1', 'kernel')
Tensors = Mapping[str, np.ndarray]

OURS = 'ours'  # in the place of an architecture: the weights are a workdir's, of a run of ours

LEAVES = {  # what an array within a module is called there; the others as here
  'kernel': 'weight',
  'scale': 'weight',
  'slope': 'weight',
  'mean': 'running_mean',
  'var': 'running_var',
}
GOOGLE_BLOCK = {  # of Google's ViT checkpoints: (theirs, timm's)
  'LayerNorm_0': 'norm1',
  'LayerNorm_2': 'norm2',
  'MlpBlock_3/Dense_0': 'mlp.fc1',
  'MlpBlock_3/Dense_1': 'mlp.fc2',
  'MultiHeadDotProductAttention_1/out': 'attn.proj',
}


class Leaf(NamedTuple):
  """One of our arrays, and the foreign tensor that it comes from."""

  path: Path
  name: str
  shape: tuple[int, ...]  # theirs
  axes: tuple[int, ...]  # transposes theirs into ours, after a reshape where only ones are dropped
  classifier: bool


def from_torch(tensors: Tensors, architecture: str) -> tuple[flexmodal.Model, dict[str, Any]]:
  """A model with the weights of a PyTorch original: its numbers, given its inputs.

  A classifier of two columns becomes their difference, column 1 being bona fide, as in the
  references; one of more classes is left out (and the model ends in an embedding).

  Args:
    tensors: the original's `state_dict` as NumPy arrays, float32, in PyTorch's layouts.
    architecture: a key of `ARCHITECTURES`.

  Returns:
    (model, variables), variables float32, copies. What was left out is logged by name.

  Raises:
    ConfigError: unknown architecture.
    StateError: tensors missing, surplus, of another shape or dtype, or not finite; found before
      anything is allocated.
  """
  model, variables, left_out = _import(tensors, architecture)
  if left_out:
    log.warning('%s: left out, as the model does not use them: %s', architecture, _few(left_out, 8))
  return model, variables


def to_torch(variables, architecture: str, stream: str | None = None) -> dict[str, np.ndarray]:
  """Our weights under the original's names and in PyTorch's layouts; the inverse of `from_torch`.

  The classifier gets two columns, the first 0, so that their difference is our logit. Of other
  tensors, what `from_torch` leaves out is not written.

  Args:
    variables: of a model of this architecture, as `from_torch` gives it.
    architecture: a key of `ARCHITECTURES`.
    stream: write one backbone alone, from a model with any fusion and head: 'shared', or a
      modality's name. What it does without (a last norm, a last stage) is logged by name.

  Raises:
    ConfigError: unknown architecture.
    StateError: these are not variables of the architecture.
  """
  origin = pick('architecture', ARCHITECTURES, architecture)
  if stream is not None:
    kept = {k: v.get(f'streams_{stream}', {}) for k, v in variables.items()}
    if not kept.get('params'):
      raise StateError(f'the model has no stream {stream!r}, but {sorted(variables["params"])}')
    variables = {k: {'streams_shared': v} for k, v in kept.items()}
  variables = _unstack(variables)
  tensors = {}
  for leaf in _leaves(origin, variables, architecture):
    value = np.asarray(_get(variables, leaf.path), np.float32)
    value = value.transpose(np.argsort(leaf.axes))
    if leaf.classifier:
      value = np.concatenate([np.zeros_like(value), value])
    if leaf.name in tensors:
      raise StateError(f'{architecture} has one {leaf.name}; the model has several')
    # A copy: ours may be donated to a training step.
    tensors[leaf.name] = np.array(value.reshape(value.shape + leaf.shape[value.ndim :]), order='C')
    if leaf.path[-1] == 'var':
      tensors |= {name: np.zeros((), np.int64) for name in _counters([leaf])}
  faults = _faults(tensors, _abstract(architecture, tensors)[1], origin)
  if stream is not None and (missing := faults.pop('missing', None)):
    log.warning('%s: not in stream %r, not written: %s', architecture, stream, _few(missing, 8))
  _raise(faults, f'these are not variables of {architecture}')
  return tensors


def load(path: str, architecture: str, sha256: str | None = None):
  """`from_torch` of a file: safetensors, Google's ViT .npz, or 'hub:OWNER/NAME' (extra `hub`).

  Raises:
    ConfigError, StateError: see `from_torch` and `weight_files.read`. Pickles are never opened.
  """
  pick('architecture', ARCHITECTURES, architecture)  # before a large file is read
  return from_torch(_read(path, sha256), architecture)


def google_to_timm(tensors: Tensors) -> dict[str, np.ndarray]:
  """Renames google-research/vision_transformer's checkpoints, as timm does when it loads them.

  They were trained with the tanh form of GELU; timm runs them with the exact one, and so do we.
  A name that they do not have stays as it is, and `from_torch` refuses it.

  Raises:
    StateError: query, key and value do not belong together, or a name is there twice.
  """
  _check_arrays(tensors)
  found = {}
  for name, value in tensors.items():
    module, _, kind = name.rpartition('/')
    leaf = LEAVES.get(kind, kind)
    block = re.fullmatch(r'Transformer/encoderblock_(\d+)/(.+)', module)
    attention = block and re.fullmatch(r'(MultiHead\w+)/(query|key|value)', block[2])
    if attention:
      name = f'blocks.{block[1]}.attn.qkv.{leaf}'
      if attention[2] != 'query' and name in found:
        continue
      base = module.rpartition('/')[0]
      parts = [tensors.get(f'{base}/{part}/{kind}') for part in ('query', 'key', 'value')]
      if any(p is None or p.shape != value.shape or p.ndim < 2 for p in parts):
        raise StateError(f'{_plain(base)}: query, key and value of {kind} do not belong together')
      D = value.shape[0] if kind == 'kernel' else 1
      rest = math.prod(value.shape[1:]) if kind == 'kernel' else value.size
      value = np.concatenate([p.reshape(D, rest) for p in parts], 1)  # [D, 3 K d]
      value = value.T if kind == 'kernel' else value[0]
    elif block:
      if block[2].endswith('/out') and kind == 'kernel' and value.ndim == 3:  # [K, d, D]
        value = value.reshape(math.prod(value.shape[:2]), value.shape[2])
      name = f'blocks.{block[1]}.{GOOGLE_BLOCK.get(block[2], block[2])}.{leaf}'
      value = value.T if kind == 'kernel' else value
    elif module == 'Transformer/encoder_norm':
      name = f'norm.{leaf}'
    elif module == 'embedding':
      name = f'patch_embed.proj.{leaf}'
      value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
    elif module == 'head':
      name, value = f'head.{leaf}', value.T
    else:
      timm = {'cls': 'cls_token', 'Transformer/posembed_input/pos_embedding': 'pos_embed'}
      name = timm.get(name, name)
    if name in found:
      raise StateError(f'{_plain(name)} is among the weights twice, under two names')
    found[name] = value
  return found


def restack(variables, like) -> dict[str, Any]:
  """A model's variables for the same model with another `scan` (`models/backbone/vit.py`).

  Args:
    variables: of the one.
    like: of the other; may be shapes alone.

  Raises:
    StateError: the models differ in more than that.
  """
  arrays = dict(_flat(_unstack(variables)))
  shapes = {path: value.shape for path, value in arrays.items()}
  wanted = {p: v.shape for p, v in _flat(jax.eval_shape(_unstack, like))}
  if wrong := sorted({path for path, _ in shapes.items() ^ wanted.items()}):
    raise StateError(f'the variables are of another model; apart: {_few(map("/".join, wrong))}')
  return _tree(_restacked(arrays, like).items())


def initialise(variables, donor, into: str = 'streams') -> dict[str, Any]:
  """Puts a backbone's weights into a larger model.

  Args:
    variables: of the model, freshly initialised.
    donor: variables of a model of one backbone, from `from_torch` or a checkpoint of ours; a ViT
      with or without `scan`, whatever the model has.
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
  fitted = fit(variables, donor, into)
  if fitted.untouched:
    log.warning('not among the weights, left as initialised: %s', _few(fitted.untouched, 8))
  if fitted.left_out:
    log.warning('left out, as the model does not have them: %s', _few(fitted.left_out, 8))
  new = {path: jnp.asarray(value) for path, value in fitted.arrays.items()}
  return _tree((path, new.get(path, value)) for path, value in _flat(variables))


class Fitted(NamedTuple):
  """What `initialise` would do.

  Attributes:
    arrays: {path in the model: its new array}.
    untouched: what the weights do not have, in the touched parts.
    left_out: what the model does not have.
  """

  arrays: dict[Path, Any]
  untouched: list[str]
  left_out: list[str]


def fit(variables, donor, into: str = 'streams') -> Fitted:
  """What `initialise` would put where; `variables` may be shapes alone."""
  like, variables, donor = variables, jax.eval_shape(_unstack, variables), _unstack(donor)
  targets = _targets(variables, into)
  streams = [k for k in donor['params'] if k.startswith('streams_')]
  if len(streams) != 1:
    raise StateError(f'the weights are not of one backbone; their streams are: {streams}')
  donated = {(p[0], *p[2:]): v for p, v in _flat(donor) if p[1] == streams[0]}
  # A part that one of the two lacks is no mistake: a last norm, a last stage, channel attention.
  parts = {source[1] for source in donated}
  arrays, wrong, untouched, used = {}, [], [], set()
  for path, value in _flat(variables):
    kind, inner = path[0], path[1:]
    target = next((t for t in targets if inner[: len(t)] == t), None)
    if target is None:
      continue
    source = (kind, *targets[target], *inner[len(target) :])
    if source not in donated:
      untouched.append('/'.join(inner))
      if source[1] in parts and source[-2] != 'entry':  # a projection that a donor has no use for
        wrong.append(f'{"/".join(inner)} is not among the weights')
      continue
    used.add(source)
    arrays[path] = _resize(donated[source], value.shape, path)
    if arrays[path] is None:
      wrong.append(f'{"/".join(inner)}: {donated[source].shape} does not fit {value.shape}')
  taken = {source[1] for source in used}
  rest = sorted(donated.keys() - used)
  wrong += [f'{"/".join(s[1:])} has no place in the model' for s in rest if s[1] in taken]
  empty = [t for t in targets if not any(path[1 : 1 + len(t)] == t for path in arrays)]
  wrong += [f'nothing for {"/".join(t)}' for t in empty]
  if wrong:
    raise StateError(f'the weights are of another architecture than the model: {_few(wrong)}')
  other = [path[1:] for path, _ in _flat(donor) if path[1] != streams[0]]  # its head
  return Fitted(
    _restacked(arrays, like), untouched, ['/'.join(n) for n in [*(s[1:] for s in rest), *other]]
  )


def fit_all(variables, donor) -> Fitted:
  """As `fit`, of a donor that is the same model: every array, its head too.

  Raises:
    StateError: it is another model.
  """
  arrays = dict(_flat(_unstack(donor)))
  wanted = {path: value.shape for path, value in _flat(jax.eval_shape(_unstack, variables))}
  found = {path: tuple(value.shape) for path, value in arrays.items()}
  wrong = [
    f'{"/".join(path[1:])}: {found.get(path, "nothing")} does not fit {wanted.get(path, "nothing")}'
    for path in sorted(wanted.keys() | found.keys())
    if found.get(path) != wanted.get(path)
  ]
  if wrong:
    raise StateError(f'the weights are of another architecture than the model: {_few(wrong)}')
  return Fitted(_restacked(arrays, variables), [], [])


class Source(NamedTuple):
  """A config's group `pretrained`: what the streams start from.

  Attributes:
    weights: a file, 'hub:OWNER/NAME', or the workdir of a run of ours.
    architecture: a key of `ARCHITECTURES`, of one backbone; 'ours' of a workdir.
    sha256: what the file's hash, or that of a workdir's weights, must be; None accepts any.
    into: see `initialise`; of a workdir also 'all', see `fit_all`.
  """

  weights: str
  architecture: str
  sha256: str | None = None
  into: str = 'streams'


def source_of(fields: Mapping[str, Any] | None, variables) -> Source | None:
  """Checks the group against the model's variables, which may be shapes alone; reads no file.

  None, an empty group, or weights = '' starts from nothing.

  Raises:
    ConfigError: an unknown field, a missing one, or a value that cannot work.
  """
  # What flags can say: a group {}, or weights as a text, perhaps with quotes that a shell left.
  nothing = ('', "''", '""', 'None')
  if not fields or (isinstance(fields, Mapping) and fields.get('weights') in nothing):
    return None
  known = ', '.join(Source._fields)
  if not isinstance(fields, Mapping):
    raise ConfigError(f'config.pretrained is {fields!r}; give a group of: {known}, or None')
  if unknown := sorted(set(fields) - set(Source._fields)):
    raise ConfigError(f'config.pretrained has no field {unknown[0]!r}; it has: {known}')
  if missing := [k for k in ('weights', 'architecture') if k not in fields]:
    raise ConfigError(f'config.pretrained needs the field {missing[0]!r}')
  source = Source(**fields)
  for field, value in source._asdict().items():
    if not isinstance(value, str) and (field != 'sha256' or value is not None):
      raise ConfigError(f'config.pretrained.{field} is {value!r}, not a text')
  backbones = {k: v for k, v in ARCHITECTURES.items() if len(v.inputs) == 1}
  choices = {**backbones, OURS: None}
  pick('backbone for config.pretrained.architecture', choices, source.architecture)
  if (source.architecture, source.into) != (OURS, 'all'):
    _targets(variables, source.into)
  return source


def fetch(source: Source, variables) -> tuple[dict[Path, Any], str]:
  """Reads a source's file and fits it to a model's variables, which may be shapes alone.

  Returns:
    ({path: array}, a line that says what comes from where, and what is left out).

  Raises:
    ConfigError, StateError: see `load` and `initialise`.
  """
  _, donor, left_out = _import(_read(source.weights, source.sha256), source.architecture)
  fitted = fit(variables, donor, source.into)
  return fitted.arrays, describe(source, fitted, left_out)


def describe(source: Source, fitted: Fitted, left_out: Sequence[str] = ()) -> str:
  """A line that says what comes from where, and what is left out."""
  line = f'{source.into} from {source.weights} ({source.architecture}), {len(fitted.arrays)} arrays'
  for what, names in (
    ('left out', [*left_out, *fitted.left_out]),
    ('as initialised', fitted.untouched),
  ):
    line += f'; {what}: {_few(names)}' if names else ''
  return line


def put(tree, arrays: Mapping[Path, Any]):
  """`tree` with arrays in the places of its own, each placed over devices as what was there."""
  return _tree(
    (path, jax.device_put(np.asarray(arrays[path]), old.sharding) if path in arrays else old)
    for path, old in _flat(tree)
  )


def _import(tensors: Tensors, architecture: str):
  """(model, variables, the names that were left out)."""
  origin = pick('architecture', ARCHITECTURES, architecture)
  _check_arrays(tensors)
  model, leaves = _abstract(architecture, tensors)
  faults = _faults(tensors, leaves, origin)
  if faults:
    looks = looks_like({name: value.shape for name, value in tensors.items()})
    hint = f' (they look like {looks})' if looks not in (None, architecture) else ''
    _raise(faults, f'these are not weights of {architecture}{hint}')
  arrays = []
  for leaf in leaves:
    value = tensors[leaf.name]
    if leaf.classifier and len(value) == 2:
      value = value[1:] - value[:1]
    value = value.reshape(value.shape[: len(leaf.axes)]).transpose(leaf.axes)
    arrays.append((leaf.path, jnp.array(value)))  # a copy: the caller's may change
  read = {leaf.name for leaf in leaves} | _counters(leaves)
  return model, _tree(arrays), [name for name in tensors if name not in read]


def _read(path: str, sha256: str | None) -> dict[str, np.ndarray]:
  tensors = weight_files.read(path, sha256)
  return google_to_timm(tensors) if 'embedding/kernel' in tensors else tensors


def _abstract(architecture: str, tensors: Tensors):
  """(model, its leaves): as these tensors would have it, from shapes alone."""
  origin = ARCHITECTURES[architecture]
  size = origin.image_size
  embedding = tensors.get('pos_embed', tensors.get('vit.pos_embed'))
  if origin.backbone['name'] == 'vit' and embedding is not None and embedding.ndim == 3:
    grid = round(max(embedding.shape[1] - 1, 1) ** 0.5)
    size = 16 * min(grid, 256)  # another shape is found when it is compared
  return _traced(architecture, size, not origin.classifier or _our_classifier(origin, tensors))


@functools.lru_cache(8)  # what was read is often written
def _traced(architecture: str, image_size: int, decides: bool):
  origin = ARCHITECTURES[architecture]
  model = flexmodal.build(
    origin.backbone,
    origin.fusion,
    origin.head if decides else {'name': 'embedding'},
    modalities=origin.inputs,
    image_size=image_size,
    **{'absent': 'exclude', **origin.options},
  )
  abstract = jax.eval_shape(model.init, jax.random.key(0))
  return model, tuple(_leaves(origin, abstract, architecture))


def _our_classifier(origin: Architecture, tensors: Tensors) -> bool:
  """Whether there is a classifier other than a whole one of three classes or more."""
  parts = [tensors.get(f'{origin.classifier}.{leaf}') for leaf in ('weight', 'bias')]
  if all(p is None for p in parts):
    return False
  if any(p is None for p in parts):
    return True
  weight, bias = parts
  return not (weight.ndim == 2 and bias.ndim == 1 and len(weight) == len(bias) > 2)


def _leaves(origin: Architecture, variables, architecture: str) -> Iterator[Leaf]:
  """Every array of ours with the foreign tensor that it comes from."""
  for path, value in _flat(variables):
    inner = list(path[1:-1])
    if inner and inner[-1] == 'bn':
      inner.pop()
    module = rename(origin.table, '/'.join(inner))
    axes = tuple(range(value.ndim))
    if path[-1] == 'kernel':
      axes = {2: (1, 0), 4: (2, 3, 1, 0)}.get(value.ndim)
    if module is None or axes is None:
      raise StateError(f'{architecture} has no name for {"/".join(path[1:])}')
    shape = tuple(value.shape[i] for i in np.argsort(axes))
    if '.se_fc' in module and path[-1] == 'kernel':
      shape += (1, 1)  # a linear layer that is a 1x1 convolution there
    name = f'{module}.{LEAVES.get(path[-1], path[-1])}'.lstrip('.')
    yield Leaf(path, name, shape, axes, inner == ['head', 'logit'])


def _check_arrays(tensors: Tensors) -> None:
  if not isinstance(tensors, Mapping):
    raise StateError(f'the tensors are a {type(tensors).__name__}; give a dict of NumPy arrays')
  for name, value in tensors.items():
    if not isinstance(name, str) or not isinstance(value, np.ndarray):
      raise StateError(
        f'tensor {_plain(name)} is a {type(value).__name__}; give a dict of NumPy arrays by name, '
        'by .numpy() on each tensor of a state_dict'
      )


def _faults(tensors: Tensors, leaves: Iterable[Leaf], origin: Architecture) -> dict[str, list[str]]:
  """{kind: names and what is wrong with them} of what is."""
  wanted = {leaf.name: leaf for leaf in leaves}
  counters = _counters(leaves)
  ours = any(leaf.classifier for leaf in leaves)
  unused = origin.unused or '(?!)'
  if origin.classifier and not ours:  # with Google's layer before its classifier
    unused += rf'|{origin.classifier}\.(weight|bias)|pre_logits/.*'
  surplus, wrong, columns = [], [], set()
  for name, value in tensors.items():
    shown = f'{name[:80]}: {str(value.dtype)[:20]} {str(list(value.shape))[:40]}'
    if name in counters:
      if value.dtype.kind not in 'iu' or value.shape != ():
        wrong.append(f'{shown}, a counter is int64 []')
    elif name not in wanted:
      if not re.fullmatch(unused, name):
        surplus.append(name)
    else:
      leaf = wanted[name]
      shapes = [leaf.shape]
      if leaf.classifier:  # one column, or two
        shapes.append((2, *leaf.shape[1:]))
        columns.add(value.shape[:1])
      if value.shape not in shapes or value.dtype != np.float32:
        wrong.append(f'{shown}, not float32 {" or ".join(str(list(s)) for s in shapes)}')
  if len(columns) > 1 and not wrong:
    wrong.append(f'{origin.classifier}: weight and bias have different numbers of classes')
  missing = [n for n in wanted if n not in tensors]
  faults = {'missing': missing, 'surplus': surplus, 'wrong': wrong}
  if not (missing or surplus or wrong):
    faults['with NaN or infinite values'] = [n for n in wanted if not np.isfinite(tensors[n]).all()]
  return {what: names for what, names in faults.items() if names}


def _raise(faults: Mapping[str, list[str]], opening: str) -> None:
  if faults:
    lines = [f'  {len(names)} {what}: {_few(names)}' for what, names in faults.items()]
    raise StateError(f'{opening}; of the tensors are\n' + '\n'.join(lines))


def _counters(leaves: Iterable[Leaf]) -> set[str]:
  """What PyTorch counts beside each running variance; nothing reads it."""
  variances = (leaf.name for leaf in leaves if leaf.path[-1] == 'var')
  return {name.removesuffix('running_var') + 'num_batches_tracked' for name in variances}


def _targets(variables, into: str) -> dict[Path, Path]:
  """{a part of the model: the part of a backbone that goes there}, without their first keys."""
  parts = variables['params']
  streams = sorted(k for k in parts if k.startswith('streams_'))
  later = [k for k in parts.get('fusion', {}) if k.startswith('later_')]
  choices = {'streams': streams}
  if later:
    choices['aggregation'] = streams
  choices |= {s.removeprefix('streams_'): [s] for s in streams}
  targets = {(s,): () for s in pick('part to initialise', choices, into)}
  if into == 'aggregation':
    # later_0 follows the first stage: it is a copy of the second.
    stages = {k: int(k.removeprefix('later_')) + 2 for k in later}
    targets |= {('fusion', k): (f'stage_{n}',) for k, n in stages.items()}
    targets['fusion', 'main'] = (f'stage_{max(stages.values())}',)
  return targets


def _resize(value, shape, path: Path):
  """`value` in `shape`: as it is, interpolated, or repeated along its inputs; None if it cannot."""
  if value.shape == shape:
    return value
  if len(value.shape) != len(shape):
    return None
  leaf = path[-1]
  if leaf == 'pos_embed' and value.shape[-1] == shape[-1]:
    for prefix in (0, 1):
      grids = [math.sqrt(max(x - prefix, 0)) for x in (value.shape[1], shape[1])]
      if all(g >= 1 and g == int(g) for g in grids):
        return vit.resize_embedding(value, prefix, int(grids[1]), int(grids[1]))
    return None
  axis = len(shape) - (2 if leaf == 'kernel' else 1)  # of the inputs
  times, over = divmod(shape[axis], value.shape[axis])
  others = [i for i in range(len(shape)) if i != axis and value.shape[i] != shape[i]]
  if path[1:3] != ('fusion', 'main') or others or over or not times:
    return None
  return jnp.concatenate([value] * times, axis)


def _unstack(variables) -> dict[str, Any]:
  """Each block of a scanned ViT by itself, under its own name."""
  flat = []
  for path, value in _flat(variables):
    paths = vit.unstacked(path, value.shape)
    flat += [(path, value)] if paths == [path] else zip(paths, value, strict=True)
  return _tree(flat)


def _restacked(arrays: Mapping[Path, Any], like) -> dict[Path, Any]:
  """Arrays by block, as `_unstack` names them, under the names of `like`: its inverse."""
  found = {}
  for path, value in _flat(like):
    paths = vit.unstacked(path, value.shape)
    parts = [arrays[p] for p in paths if p in arrays]
    if len(parts) == len(paths):
      found[path] = parts[0] if paths == [path] else jnp.stack(parts)
  return found


def _few(names, most: int = 4) -> str:
  names = [_plain(n, 200) for n in names]
  return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')


def _plain(text, most: int = 100) -> str:
  """On one line and of a length that can be read, whatever a file had put into it."""
  text = str(text)
  return repr(text[:most] + ('...' if len(text) > most else ''))[1:-1]


def _flat(tree) -> list[tuple[Path, Any]]:
  return [
    (tuple(k.key for k in path), value) for path, value in jax.tree_util.tree_leaves_with_path(tree)
  ]


def _tree(flat) -> dict[str, Any]:
  """Variables of (path, array) pairs."""
  result = {'params': {}, 'batch_stats': {}}
  for path, value in flat:
    tree = result
    for key in path[:-1]:
      tree = tree.setdefault(key, {})
    tree[path[-1]] = value
  return result


def _get(tree, path: Path):
  for key in path:
    tree = tree[key]
  return tree
