"""Transfers pretrained weights into a model: the config's group `pretrained`.

    source = parse_config(config.pretrained, variables)     check the group; read no file
    arrays, line = load(source, variables)                  read the file, match it to the model
    variables = assign(variables, arrays)

The weights are a foreign file's (`conversion.py`) or those of one of this package's own runs
(`training/init_from_run.py`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.lookup import pick
from flexfas_jax.models.backbone import vit
from flexfas_jax.models.weights import conversion, variable_tree
from flexfas_jax.models.weights.architectures import ARCHITECTURES
from flexfas_jax.models.weights.files import list_names
from flexfas_jax.models.weights.variable_tree import Path

OWN_RUN = 'ours'  # as `architecture`: the weights are in a workdir of this package
HIDDEN_FIELDS = ('activation', 'epsilon', 'statistics', 'positions', 'class_position')


class PretrainedConfig(NamedTuple):
  """The config's group `pretrained`.

  Attributes:
    weights: a file, 'hub:OWNER/NAME', or the workdir of a run.
    architecture: a key of `ARCHITECTURES` with one backbone; 'ours' for a workdir.
    sha256: required hash of the file, or of a workdir's weights; None accepts any.
    into: see `match`; for a workdir also 'all', see `match_all`.
  """

  weights: str
  architecture: str
  sha256: str | None = None
  into: str = 'streams'


class Match(NamedTuple):
  """Pretrained arrays matched to a model.

  Attributes:
    arrays: {path in the model: its new array}.
    untouched: names in the matched parts that the weights lack.
    left_out: names in the weights that the model lacks.
  """

  arrays: dict[Path, Any]
  untouched: list[str]
  left_out: list[str]


def parse_config(fields: Mapping[str, Any] | None, variables) -> PretrainedConfig | None:
  """Checks the group against the model's variables; shapes are enough. Reads no file.

  None, an empty group, or weights = '' means no pretrained weights.

  Raises:
    ConfigError: an unknown or missing field, or an invalid value.
  """
  # Forms that flags can give: an empty group, or an empty text, perhaps in quotes from a shell.
  empty = ('', "''", '""', 'None')
  if not fields or (isinstance(fields, Mapping) and fields.get('weights') in empty):
    return None
  names = ', '.join(PretrainedConfig._fields)
  if not isinstance(fields, Mapping):
    raise ConfigError(f'config.pretrained is {fields!r}; give a group of: {names}, or None')
  if unknown := sorted(set(fields) - set(PretrainedConfig._fields)):
    raise ConfigError(f'config.pretrained has no field {unknown[0]!r}; it has: {names}')
  if missing := [k for k in ('weights', 'architecture') if k not in fields]:
    raise ConfigError(f'config.pretrained needs the field {missing[0]!r}')
  source = PretrainedConfig(**fields)
  for field, value in source._asdict().items():
    if not isinstance(value, str) and (field != 'sha256' or value is not None):
      raise ConfigError(f'config.pretrained.{field} is {value!r}, not a text')
  backbones = {k: v for k, v in ARCHITECTURES.items() if len(v.inputs) == 1}
  choices = {**backbones, OWN_RUN: None}
  pick('backbone for config.pretrained.architecture', choices, source.architecture)
  if (source.architecture, source.into) != (OWN_RUN, 'all'):
    _targets(variables, source.into)
  return source


def check_backbone(source: PretrainedConfig, backbone: Mapping[str, Any]) -> None:
  """Checks the fields of a ViT that its weights need and that no array's shape shows.

  Args:
    source: from `parse_config`.
    backbone: the config's group `model.backbone`.

  Raises:
    ConfigError: with another value, the network would run and compute something else.
  """
  if source.architecture == OWN_RUN or backbone.get('name') != 'vit':
    return
  origin = ARCHITECTURES[source.architecture].backbone
  for field in HIDDEN_FIELDS:
    default = getattr(vit.ViT, field)
    needed, found = origin.get(field, default), backbone.get(field, default)
    if found != needed:
      raise ConfigError(
        f'weights of {source.architecture} need config.model.backbone.{field} = {needed!r}, not '
        f'{found!r}'
      )


def load(source: PretrainedConfig, variables) -> tuple[dict[Path, Any], str]:
  """Reads the weights of a file and matches them to a model's variables; shapes are enough.

  Returns:
    ({path in the model: array}, a line for the log that describes them).

  Raises:
    ConfigError, StateError: see `conversion.load` and `match`.
  """
  tensors = conversion.read(source.weights, source.sha256)
  _, pretrained, left_out = conversion.import_tensors(tensors, source.architecture)
  matched = match(variables, pretrained, source.into)
  return matched.arrays, describe(source, matched, left_out)


def describe(source: PretrainedConfig, matched: Match, left_out: Sequence[str] = ()) -> str:
  """A line for the log: which parts come from which weights, and what is left out."""
  line = f'{source.into} from {source.weights} ({source.architecture}), '
  line += f'{len(matched.arrays)} arrays'
  if names := [*left_out, *matched.left_out]:
    line += f'; left out: {list_names(names)}'
  if matched.untouched:
    line += f'; as initialised: {list_names(matched.untouched)}'
  return line


def match(variables, pretrained, into: str = 'streams') -> Match:
  """Matches the arrays of one backbone to those of a larger model.

  Args:
    variables: of the model, or their shapes.
    pretrained: variables of a model with one backbone, from `conversion.from_torch` or a
      checkpoint. A ViT may have `scan` or not, whatever the model has.
    into: 'streams': all streams. A modality's name: the stream of that modality, where streams are
      not shared. 'aggregation': all streams and the joint stages of `multi_layer_aggregation`, as
      in MM-FAS: the stage after each layer, and the last one, whose input channels are repeated
      for each modality and not divided by their number (resnet_caffe_DLAS.py and ir_se_dlas.py,
      _load_pretrained_weights).

  Returns:
    `Match`, for `assign`. A position embedding of another grid is interpolated.

  Raises:
    ConfigError: `into` names no part of the model.
    StateError: shapes that do not match.
  """
  like = variables
  variables = jax.eval_shape(variable_tree.unstack, variables)
  pretrained = variable_tree.unstack(pretrained)
  targets = _targets(variables, into)
  streams = [k for k in pretrained['params'] if k.startswith('streams_')]
  if len(streams) != 1:
    raise StateError(f'the weights must have one backbone; their streams are: {streams}')
  stream = streams[0]
  flat = variable_tree.flatten(pretrained)
  sources = {(path[0], *path[2:]): value for path, value in flat if path[1] == stream}
  # A part that one of the two lacks is no error: a last norm, a last stage, channel attention.
  parts = {source[1] for source in sources}
  arrays, wrong, untouched, used = {}, [], [], set()
  for path, value in variable_tree.flatten(variables):
    collection, inner = path[0], path[1:]
    target = next((t for t in targets if inner[: len(t)] == t), None)
    if target is None:
      continue
    source = (collection, *targets[target], *inner[len(target) :])
    if source not in sources:
      untouched.append('/'.join(inner))
      # `entry` projects a map of another width; a backbone by itself needs no such layer. Weights
      # of a backbone have no adapters.
      is_new = source[-2] == 'entry' or any(name.startswith('adapters_') for name in source)
      if source[1] in parts and not is_new:
        wrong.append(f'{"/".join(inner)} is not among the weights')
      continue
    used.add(source)
    arrays[path] = _resize(sources[source], value.shape, path)
    if arrays[path] is None:
      wrong.append(f'{"/".join(inner)}: {sources[source].shape} does not match {value.shape}')
  used_parts = {source[1] for source in used}
  unused = sorted(sources.keys() - used)
  wrong += [f'{"/".join(s[1:])} has no place in the model' for s in unused if s[1] in used_parts]
  empty = [t for t in targets if not any(path[1 : 1 + len(t)] == t for path in arrays)]
  wrong += [f'no array for {"/".join(t)}' for t in empty]
  if wrong:
    raise StateError(f'the weights have another architecture than the model: {list_names(wrong)}')
  head = [path[1:] for path, _ in flat if path[1] != stream]
  left_out = ['/'.join(name) for name in [*(s[1:] for s in unused), *head]]
  return Match(variable_tree.stack(arrays, like), untouched, left_out)


def match_all(variables, pretrained) -> Match:
  """Matches the variables of the same model: every array, those of its head included.

  Raises:
    StateError: the models differ.
  """
  arrays = dict(variable_tree.flatten(variable_tree.unstack(pretrained)))
  abstract = variable_tree.flatten(jax.eval_shape(variable_tree.unstack, variables))
  expected = {path: value.shape for path, value in abstract}
  shapes = {path: tuple(value.shape) for path, value in arrays.items()}
  wrong = [
    f'{"/".join(path[1:])}: {shapes.get(path, "nothing")} does not match '
    f'{expected.get(path, "nothing")}'
    for path in sorted(expected.keys() | shapes.keys())
    if shapes.get(path) != expected.get(path)
  ]
  if wrong:
    raise StateError(f'the weights have another architecture than the model: {list_names(wrong)}')
  return Match(variable_tree.stack(arrays, variables), [], [])


def assign(tree, arrays: Mapping[Path, Any]):
  """`tree` with new arrays at the given paths, each with the sharding of the array it replaces."""
  return variable_tree.unflatten(
    (path, jax.device_put(np.asarray(arrays[path]), old.sharding) if path in arrays else old)
    for path, old in variable_tree.flatten(tree)
  )


def _targets(variables, into: str) -> dict[Path, Path]:
  """{part of the model: the part of a backbone to copy there}, without the collection's name."""
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
  """`value` in `shape`: unchanged, interpolated or repeated, else None."""
  if value.shape == shape:
    return value
  leaf = path[-1]
  if leaf in ('cls_token', 'pos_embed') and len(value.shape) == 3 == len(shape):
    value = _resize_positions(value, shape) if leaf == 'pos_embed' else value
    if value is not None and value.shape[1:] == shape[1:] and len(value) == 1:
      return jnp.repeat(value, shape[0], 0)  # the same for each modality
    return None
  if path[-2] in ('patch_embed', 'projection') and math.prod(value.shape) * shape[0] == math.prod(
    shape
  ):
    value = value.reshape(-1, shape[-1]) if leaf == 'kernel' else value
    return jnp.broadcast_to(value[None], shape) if value.shape == shape[1:] else None
  if len(value.shape) != len(shape):
    return None
  input_axis = len(shape) - (2 if leaf == 'kernel' else 1)
  repeats, remainder = divmod(shape[input_axis], value.shape[input_axis])
  others = [i for i in range(len(shape)) if i != input_axis and value.shape[i] != shape[i]]
  if path[1:3] != ('fusion', 'main') or others or remainder or not repeats:
    return None
  return jnp.concatenate([value] * repeats, input_axis)


def _resize_positions(value, shape):
  """A position embedding for the grid of `shape`; None if there is no such grid."""
  if value.shape[-1] != shape[-1]:
    return None
  for prefix in (0, 1):
    grids = [math.sqrt(max(x - prefix, 0)) for x in (value.shape[1], shape[1])]
    if all(g >= 1 and g == int(g) for g in grids):
      return vit.resize_embedding(value, prefix, int(grids[1]), int(grids[1]))
  return None
