"""Converts foreign weights into models and back; checks every name, shape and value.

    tensors = files.read('resnet50.safetensors')
    model, variables = from_torch(tensors, 'timm/resnet50')
    tensors = to_torch(variables, 'timm/resnet50')               and back

`architectures.py` maps module names. The layout follows from the name of an array: a kernel
[k, k, C, D] is PyTorch's weight [D, C, k, k].
"""

import functools
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flexfas_jax.errors import StateError
from flexfas_jax.lookup import pick
from flexfas_jax.models import flexmodal
from flexfas_jax.models.weights import files as weight_files
from flexfas_jax.models.weights import variable_tree
from flexfas_jax.models.weights.architectures import (
  ARCHITECTURES,
  Architecture,
  detect,
  original_name,
)
from flexfas_jax.models.weights.files import list_names, printable
from flexfas_jax.models.weights.variable_tree import Path

log = logging.getLogger(__name__)
Tensors = Mapping[str, np.ndarray]

LEAVES = {  # array within a module: its name in PyTorch; other names are the same
  'kernel': 'weight',
  'scale': 'weight',
  'slope': 'weight',
  'mean': 'running_mean',
  'var': 'running_var',
  'ls1': 'ls1.gamma',
  'ls2': 'ls2.gamma',
}
GOOGLE_BLOCK = {  # name in Google's ViT checkpoints: timm's name
  'LayerNorm_0': 'norm1',
  'LayerNorm_2': 'norm2',
  'MlpBlock_3/Dense_0': 'mlp.fc1',
  'MlpBlock_3/Dense_1': 'mlp.fc2',
  'MultiHeadDotProductAttention_1/out': 'attn.proj',
}


class Leaf(NamedTuple):
  """One array of a model and the foreign tensor that holds its values.

  Attributes:
    path: of the array.
    name, shape: of the foreign tensor.
    axes: transposes the foreign tensor into the array, after trailing axes of size 1 are dropped.
    classifier: whether it belongs to the last linear layer.
  """

  path: Path
  name: str
  shape: tuple[int, ...]
  axes: tuple[int, ...]
  classifier: bool


def from_torch(tensors: Tensors, architecture: str) -> tuple[flexmodal.Model, dict[str, Any]]:
  """A model with the weights of a PyTorch original; it gives the original's outputs.

  A classifier of two columns becomes their difference (column 1 is bona fide, as in the
  references). A classifier of more classes is left out, and the model ends in an embedding.

  Args:
    tensors: the original's `state_dict` as NumPy arrays, float32, in PyTorch's layouts.
    architecture: a key of `ARCHITECTURES`.

  Returns:
    (model, variables), variables float32 copies. Tensors that are left out are logged by name.

  Raises:
    ConfigError: unknown architecture.
    StateError: tensors are missing, surplus, of another shape or dtype, or not finite; raised
      before anything is allocated.
  """
  model, variables, left_out = import_tensors(tensors, architecture)
  if left_out:
    names = list_names(left_out, 8)
    log.warning('%s: left out, as the model does not use them: %s', architecture, names)
  return model, variables


def to_torch(
  variables: flexmodal.Variables, architecture: str, stream: str | None = None
) -> dict[str, np.ndarray]:
  """Variables under the original's names and in PyTorch's layouts; the inverse of `from_torch`.

  The classifier gets two columns, the first 0, so that their difference is the logit. Tensors that
  `from_torch` leaves out are not written.

  Args:
    variables: of a model of this architecture, as `from_torch` returns them.
    architecture: a key of `ARCHITECTURES`.
    stream: write only this backbone of a model with any fusion and head: 'shared', or a modality's
      name. Tensors that the stream lacks (a last norm, a last stage) are logged by name.

  Raises:
    ConfigError: unknown architecture.
    StateError: the variables do not belong to the architecture.
  """
  origin = pick('architecture', ARCHITECTURES, architecture)
  if stream is not None:
    selected = {k: v.get(f'streams_{stream}', {}) for k, v in variables.items()}
    if not selected.get('params'):
      raise StateError(f'the model has no stream {stream!r}, but {sorted(variables["params"])}')
    variables = {k: {'streams_shared': v} for k, v in selected.items()}
  variables = variable_tree.unstack(variables)
  tensors = {}
  for leaf in _leaves(origin, variables, architecture):
    value = np.asarray(variable_tree.get(variables, leaf.path), np.float32)
    value = value.transpose(np.argsort(leaf.axes))
    if leaf.classifier:
      value = np.concatenate([np.zeros_like(value), value])
    if leaf.name in tensors:
      raise StateError(f'{architecture} has one {leaf.name}; the model has several')
    # A copy: a training step may donate the buffers of `variables`.
    tensors[leaf.name] = np.array(value.reshape(value.shape + leaf.shape[value.ndim :]), order='C')
    if leaf.path[-1] == 'var':
      tensors |= {name: np.zeros((), np.int64) for name in _counters([leaf])}
  faults = _faults(tensors, _abstract(architecture, tensors)[1], origin)
  if stream is not None and (missing := faults.pop('missing', None)):
    names = list_names(missing, 8)
    log.warning('%s: not in stream %r, not written: %s', architecture, stream, names)
  _raise_faults(faults, f'these are not variables of {architecture}')
  return tensors


def load(
  path: str, architecture: str, sha256: str | None = None
) -> tuple[flexmodal.Model, dict[str, Any]]:
  """`from_torch` of a file: safetensors, Google's ViT .npz, or 'hub:OWNER/NAME' (extra `hub`).

  Raises:
    ConfigError, StateError: see `from_torch` and `files.read`. Pickles are never opened.
  """
  pick('architecture', ARCHITECTURES, architecture)  # before a large file is read
  return from_torch(read(path, sha256), architecture)


def read(path: str, sha256: str | None = None) -> dict[str, np.ndarray]:
  """The tensors of a weight file, Google's ViT checkpoints under timm's names.

  Raises:
    ConfigError, StateError: see `files.read` and `google_to_timm`.
  """
  tensors = weight_files.read(path, sha256)
  return google_to_timm(tensors) if 'embedding/kernel' in tensors else tensors


def google_to_timm(tensors: Tensors) -> dict[str, np.ndarray]:
  """Renames google-research/vision_transformer's checkpoints, as timm does when it loads them.

  Google trained them with the tanh form of GELU; timm and this package run them with the exact
  form. A name of another architecture is kept, and `from_torch` rejects it.

  Raises:
    StateError: query, key and value do not match, or two tensors have one name.
  """
  _check_arrays(tensors)
  renamed: dict[str, np.ndarray] = {}
  for name, value in tensors.items():
    module, _, kind = name.rpartition('/')
    leaf = LEAVES.get(kind, kind)
    block = re.fullmatch(r'Transformer/encoderblock_(\d+)/(.+)', module)
    attention = re.fullmatch(r'(MultiHead\w+)/(query|key|value)', block[2]) if block else None
    if block and attention:
      name = f'blocks.{block[1]}.attn.qkv.{leaf}'
      if attention[2] != 'query' and name in renamed:
        continue
      base = module.rpartition('/')[0]
      names = [f'{base}/{part}/{kind}' for part in ('query', 'key', 'value')]
      parts = [tensors[n] for n in names if n in tensors and tensors[n].shape == value.shape]
      if len(parts) < 3 or value.ndim < 2:
        raise StateError(f'{printable(base)}: the {kind} of query, key and value do not match')
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
    if name in renamed:
      raise StateError(f'{printable(name)} is among the weights twice, under two names')
    renamed[name] = value
  return renamed


def import_tensors(
  tensors: Tensors, architecture: str
) -> tuple[flexmodal.Model, dict[str, Any], list[str]]:
  """`from_torch` without the log: (model, variables, names that were left out)."""
  origin = pick('architecture', ARCHITECTURES, architecture)
  _check_arrays(tensors)
  model, leaves = _abstract(architecture, tensors)
  if faults := _faults(tensors, leaves, origin):
    detected = detect({name: value.shape for name, value in tensors.items()})
    hint = f' (they look like {detected})' if detected not in (None, architecture) else ''
    _raise_faults(faults, f'these are not weights of {architecture}{hint}')
  arrays = []
  for leaf in leaves:
    value = tensors[leaf.name]
    if leaf.classifier and len(value) == 2:
      value = value[1:] - value[:1]
    value = value.reshape(value.shape[: len(leaf.axes)]).transpose(leaf.axes)
    arrays.append((leaf.path, jnp.array(value)))  # a copy: the caller's may change
  used = {leaf.name for leaf in leaves} | _counters(leaves)
  return model, variable_tree.unflatten(arrays), [name for name in tensors if name not in used]


def _abstract(architecture: str, tensors: Tensors) -> tuple[flexmodal.Model, tuple[Leaf, ...]]:
  """(model, its leaves) that would hold these tensors, from shapes alone."""
  origin = ARCHITECTURES[architecture]
  size, fields = origin.image_size, origin.backbone
  embedding = tensors.get('pos_embed', tensors.get('vit.pos_embed'))
  if fields['name'] == 'vit' and embedding is not None and embedding.ndim == 3:
    prefix = int(fields.get('class_token', True) and fields.get('class_position', True))
    grid = round(max(embedding.shape[1] - prefix, 1) ** 0.5)
    # `_faults` reports a shape that is no grid.
    size = fields.get('patch_size', 16) * min(grid, 256)
  with_head = not origin.classifier or _has_binary_classifier(origin, tensors)
  weight = tensors.get(f'{origin.projection}.weight')
  projection = len(weight) if weight is not None and weight.ndim == 2 else 0
  return _traced(architecture, size, with_head, projection)


@functools.lru_cache(8)  # weights that were read are often written
def _traced(
  architecture: str, image_size: int, with_head: bool, projection: int
) -> tuple[flexmodal.Model, tuple[Leaf, ...]]:
  origin = ARCHITECTURES[architecture]
  model = flexmodal.build(
    {**origin.backbone, 'projection': projection} if projection else origin.backbone,
    origin.fusion,
    origin.head if with_head else {'name': 'embedding'},
    modalities=origin.inputs,
    image_size=image_size,
    **{'absent': 'exclude', **origin.options},
  )
  abstract = jax.eval_shape(model.init, jax.random.key(0))
  return model, tuple(_leaves(origin, abstract, architecture))


def _has_binary_classifier(origin: Architecture, tensors: Tensors) -> bool:
  """Whether there is a classifier, unless it is a complete one of three classes or more.

  An incomplete one counts, so that `_faults` names what it lacks.
  """
  weight, bias = (tensors.get(f'{origin.classifier}.{leaf}') for leaf in ('weight', 'bias'))
  if weight is None and bias is None:
    return False
  if weight is None or bias is None:
    return True
  return not (weight.ndim == 2 and bias.ndim == 1 and len(weight) == len(bias) > 2)


def _leaves(
  origin: Architecture, variables: flexmodal.Variables, architecture: str
) -> Iterator[Leaf]:
  """Every array of a model with the foreign tensor that holds its values."""
  for path, value in variable_tree.flatten(variables):
    inner = list(path[1:-1])
    if inner and inner[-1] == 'bn':
      inner.pop()
    module = original_name(origin.table, '/'.join(inner))
    axes: tuple[int, ...] | None = tuple(range(value.ndim))
    if path[-1] == 'kernel':
      axes = {2: (1, 0), 4: (2, 3, 1, 0)}.get(value.ndim)
    if module is None or axes is None:
      raise StateError(f'{architecture} has no name for {"/".join(path[1:])}')
    shape = tuple(value.shape[i] for i in np.argsort(axes))
    if '.se_fc' in module and path[-1] == 'kernel':
      shape += (1, 1)  # the original's linear layer is a 1x1 convolution
    leaf = {**LEAVES, **origin.leaves}.get(path[-1], path[-1])
    name = f'{module}.{leaf}'.lstrip('.')
    yield Leaf(path, name, shape, axes, inner == ['head', 'logit'])


def _check_arrays(tensors: Tensors) -> None:
  if not isinstance(tensors, Mapping):
    raise StateError(f'the tensors are a {type(tensors).__name__}; give a dict of NumPy arrays')
  for name, value in tensors.items():
    if not isinstance(name, str) or not isinstance(value, np.ndarray):
      raise StateError(
        f'tensor {printable(name)} is a {type(value).__name__}; give a dict of NumPy arrays by '
        'name: call .numpy() on each tensor of a state_dict'
      )


def _faults(tensors: Tensors, leaves: Iterable[Leaf], origin: Architecture) -> dict[str, list[str]]:
  """{kind of fault: names and details}, without empty entries."""
  expected = {leaf.name: leaf for leaf in leaves}
  counters = _counters(leaves)
  unused = origin.unused or '(?!)'
  if origin.classifier and not any(leaf.classifier for leaf in leaves):
    # Google's checkpoints also have a layer before the classifier.
    unused += rf'|{origin.classifier}\.(weight|bias)|pre_logits/.*'
  surplus, wrong, columns = [], [], set()
  for name, value in tensors.items():
    actual = f'{name[:80]}: {str(value.dtype)[:20]} {str(list(value.shape))[:40]}'
    if name in counters:
      if value.dtype.kind not in 'iu' or value.shape != ():
        wrong.append(f'{actual}, a counter is int64 []')
    elif name not in expected:
      if not re.fullmatch(unused, name):
        surplus.append(name)
    else:
      leaf = expected[name]
      shapes = [leaf.shape]
      if leaf.classifier:  # one column, or two
        shapes.append((2, *leaf.shape[1:]))
        columns.add(value.shape[:1])
      if value.shape not in shapes or value.dtype != np.float32:
        wrong.append(f'{actual}, not float32 {" or ".join(str(list(s)) for s in shapes)}')
  if len(columns) > 1 and not wrong:
    wrong.append(f'{origin.classifier}: weight and bias have different numbers of classes')
  missing = [n for n in expected if n not in tensors]
  faults = {'missing': missing, 'surplus': surplus, 'wrong': wrong}
  if not (missing or surplus or wrong):
    nonfinite = [n for n in expected if not np.isfinite(tensors[n]).all()]
    faults['with NaN or infinite values'] = nonfinite
  return {kind: names for kind, names in faults.items() if names}


def _raise_faults(faults: Mapping[str, list[str]], opening: str) -> None:
  if faults:
    lines = [f'  {len(names)} {kind}: {list_names(names)}' for kind, names in faults.items()]
    raise StateError(f'{opening}; of the tensors are\n' + '\n'.join(lines))


def _counters(leaves: Iterable[Leaf]) -> set[str]:
  """PyTorch's batch counter of each running variance; nothing reads it."""
  variances = (leaf.name for leaf in leaves if leaf.path[-1] == 'var')
  return {name.removesuffix('running_var') + 'num_batches_tracked' for name in variances}
