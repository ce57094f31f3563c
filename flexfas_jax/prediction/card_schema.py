"""Checks every field of `card.json` and `samples.json` that prediction reads.

Other fields are allowed, so that a later version may add some.
"""

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from flexfas_jax import schema
from flexfas_jax.errors import ConfigError
from flexfas_jax.images import geometry
from flexfas_jax.schema import LABELS, MODALITIES, subset_name

LARGEST_IMAGE = 4096  # pixels along a side
_REQUIRED = object()
_KINDS = {
  str: 'a text',
  int: 'an integer',
  float: 'a number',
  bool: 'true or false',
  list: 'a list',
  dict: 'an object',
}
_SHA256 = re.compile('[0-9a-f]{64}')
_PATH = re.compile(r'[^/\\:\x00-\x1f\x7f]+(/[^/\\:\x00-\x1f\x7f]+)*')
_CONTROL = re.compile(r'[\x00-\x1f\x7f-\x9f]')
_DEVICE_NAMES = re.compile(r'(con|prn|aux|nul|com\d|lpt\d)(\..*)?', re.IGNORECASE)  # on Windows


def check(card: Any) -> None:
  """Checks a parsed `card.json`.

  Raises:
    ValueError: a field is missing, has the wrong type, is out of range or contradicts another one;
      the message names it.
  """
  if type(card) is not dict:
    raise ValueError(f'it is {reprlib.repr(card)}, not an object')
  for name in ('name', 'weights_hash'):
    _text(card, name)
  for name in ('version', 'licence'):
    _text(card, name, default='')
  _texts(card, 'notes', default=[])
  _texts(card, 'remarks', default=[])  # the name of `notes` in earlier bundles
  _integer(card, 'sequence', 0)
  size = _integer(card, 'image_size', 1, LARGEST_IMAGE)
  _field(card, 'model', dict)
  modalities = _subset(card, 'modalities', MODALITIES, ordered=False)
  requires = _texts(card, 'requires')
  if set(requires) - set(modalities):
    raise ValueError(f'requires is {requires}, and the modalities are {modalities}')
  _check_view(_text(card, 'view', default='whole'))
  if (resize := _text(card, 'resize', default='area')) not in geometry.RESIZES:
    raise ValueError(
      f'resize is {reprlib.repr(resize)}; expected one of {", ".join(geometry.RESIZES)}'
    )
  subsets = _check_subsets(card, modalities, requires)
  _check_inputs(card, modalities, size)
  _check_thresholds(card, subsets)
  _check_files(card, modalities, subsets, size)
  _check_metrics(card)


def check_samples(samples: Any, card: Mapping[str, Any]) -> None:
  """Checks a parsed `samples/samples.json` of a bundle whose card has been checked.

  Raises:
    ValueError: as in `check`.
  """
  if type(samples) is not dict:
    raise ValueError(f'it is {reprlib.repr(samples)}, not an object')
  _check_weights_hash(samples, card)
  for number, one in enumerate(_field(samples, 'samples', list)):
    where = f'samples[{number}].'
    if type(one) is not dict:
      raise ValueError(f'{where[:-1]} is {reprlib.repr(one)}, not an object')
    _text(one, 'id', where)
    if one.get('label') not in (None, *LABELS):
      raise ValueError(f'{where}label is {reprlib.repr(one["label"])}')
    for modality, name in _field(one, 'files', dict, where).items():
      if modality not in card['modalities'] or type(name) is not str or name not in card['files']:
        raise ValueError(f'{where}files.{modality} is {reprlib.repr(name)}, not a file of the card')


def _check_view(view: str) -> None:
  try:
    views = geometry.parse_views([view])
  except ConfigError as error:
    raise ValueError(f'view is {view!r}: {error}') from None
  if len(views) > 1:
    raise ValueError(f'view is {view!r}, which is more than one')


def _check_subsets(card, modalities: Sequence[str], requires: Sequence[str]) -> list[str]:
  subsets = _texts(card, 'subsets')
  for name in subsets:
    parts = name.split('+')
    if name != subset_name([m for m in modalities if m in parts]) or set(requires) - set(parts):
      raise ValueError(f'subsets has {name!r}, which is not a subset of {modalities} in this order')
  if not subsets or len(set(subsets)) < len(subsets):
    raise ValueError(f'subsets is {reprlib.repr(subsets)}, which is empty or has duplicates')
  return subsets


def _check_inputs(card, modalities: Sequence[str], size: int) -> None:
  inputs = _field(card, 'inputs', dict)
  if inputs.keys() != set(modalities):
    raise ValueError(f'inputs has {sorted(inputs)}, and the modalities are {sorted(modalities)}')
  for modality in inputs:
    one, where = _field(inputs, modality, dict, 'inputs.'), f'inputs.{modality}.'
    _equal(one, 'channels', schema.channels(modality), where)
    if 'size' in one:
      _equal(one, 'size', size, where)
    bits = _field(one, 'bits', list, where)
    if any(type(b) is not int or b not in (8, 16) for b in bits):
      raise ValueError(f'{where}bits is {reprlib.repr(bits)}; expected 8 or 16')
    if 'unit' in one and one['unit'] != 'mm':
      raise ValueError(f'{where}unit is {reprlib.repr(one["unit"])}; expected mm')


def _check_thresholds(card, subsets: Sequence[str]) -> None:
  evidence = _field(card, 'evidence', dict)
  least = {
    'scores': _integer(evidence, 'min_scores', 1, where='evidence.'),
    'subjects': _integer(evidence, 'min_subjects', 0, where='evidence.'),
  }
  thresholds = _field(card, 'thresholds', dict)
  for subset in thresholds:
    where = f'thresholds.{subset[:60]}.'
    if subset not in subsets:
      raise ValueError(f'{where[:-1]} is not of a served subset: {", ".join(subsets)}')
    one = _field(thresholds, subset, dict, 'thresholds.')
    value = _field(one, 'value', float, where)
    if not 0 < value < 1:  # 0 accepts every face; scores are probabilities
      raise ValueError(f'{where}value is {value}, not between 0 and 1')
    _text(one, 'rule', where)
    _check_weights_hash(one, card, where)
    counts = _field(one, 'counts', dict, where)
    for label in LABELS:
      of_class = _field(counts, label, dict, f'{where}counts.')
      for name, minimum in least.items():
        _integer(of_class, name, minimum, where=f'{where}counts.{label}.')


def _check_files(card, modalities, subsets, size: int) -> None:
  files, models = _field(card, 'files', dict), _field(card, 'models', list)
  for name in files:
    one = _field(files, name, dict, 'files.')
    _check_file(name, one, f'files.{name[:60]}.')
  names = list(files)
  for number, one in enumerate(models):
    where = f'models[{number}].'
    if type(one) is not dict:
      raise ValueError(f'{where[:-1]} is {reprlib.repr(one)}, not an object')
    names.append(_text(one, 'file', where))
    _check_file(names[-1], one, where)
    _check_model(one, card, modalities, subsets, size, where)
  if len(set(names)) < len(names):
    raise ValueError('models and files name a file twice')


def _check_file(name: str, about: Mapping, where: str) -> None:
  parts = name.split('/')
  if (
    not _PATH.fullmatch(name)
    or {'.', '..'} & set(parts)
    or any(map(_DEVICE_NAMES.fullmatch, parts))
  ):
    raise ValueError(f'{where[:-1]}: {name[:60]!r} is not a path below the bundle')
  _integer(about, 'bytes', 0, where=where)
  if not _SHA256.fullmatch(_text(about, 'sha256', where)):
    raise ValueError(f'{where}sha256 is not 64 hexadecimal digits')


def _check_model(one, card, modalities, subsets, size: int, where: str) -> None:
  for name in ('format', 'precision'):
    _text(one, name, where)
  _check_weights_hash(one, card, where)
  present = _field(one, 'present', bool, where)
  own = _subset(one, 'modalities', modalities, where=where)
  if present and own != modalities:
    raise ValueError(f'{where}modalities is {own}; a model with the input present takes all')
  if not present and subset_name(own) not in subsets:
    raise ValueError(f'{where}modalities is {own}, which is not a served subset')
  wanted = {m: ([size, size, schema.channels(m)], 'float32') for m in own}
  if present:
    wanted['present'] = [len(own)], 'bool'
  inputs = _field(one, 'inputs', list, where)
  if [i.get('name') if type(i) is dict else None for i in inputs] != list(wanted):
    raise ValueError(f'{where}inputs are not {", ".join(wanted)}')
  batch = 1 if inputs[0].get('shape') == [1, *wanted[own[0]][0]] else 'B'
  for i in inputs:
    shape, dtype = wanted[i['name']]
    _equal(i, 'shape', [batch, *shape], f'{where}inputs.{i["name"]}.')
    _equal(i, 'dtype', dtype, f'{where}inputs.{i["name"]}.')
  _text(one, 'variables_hash', where, default='')
  if 'model' in one and one['model'] != card['model']:
    raise ValueError(f"{where}model differs from the card's model")


def _check_metrics(card) -> None:
  metrics = _field(card, 'metrics', dict, default={})
  for test in metrics:
    of_test = _field(metrics, test, dict, 'metrics.')
    for subset in of_test:
      values = _field(of_test, subset, dict, f'metrics.{test}.')
      if values.get('acer') is not None:
        _field(values, 'acer', float, f'metrics.{test}.{subset}.')


def _check_weights_hash(one: Mapping, card: Mapping, where: str = '') -> None:
  digest = _text(one, 'weights_hash', where)
  if digest != card['weights_hash']:
    raise ValueError(
      f'{where}weights_hash is {digest[:64]!r}; that of the card is {card["weights_hash"][:64]!r}'
    )


def _field(owner: Mapping, name: str, kind: type, where: str = '', default=_REQUIRED) -> Any:
  if name not in owner:
    if default is _REQUIRED:
      raise ValueError(f'{where}{name[:60]} is missing')
    return default
  value = owner[name]
  kinds = (int, float) if kind is float else (kind,)
  if type(value) not in kinds:  # exactly: true is an int by isinstance
    raise ValueError(f'{where}{name[:60]} is {reprlib.repr(value)}, not {_KINDS[kind]}')
  return value


def _text(owner: Mapping, name: str, where: str = '', default=_REQUIRED) -> str:
  value = _field(owner, name, str, where, default)
  if not value and default is _REQUIRED:
    raise ValueError(f'{where}{name} is empty')
  if _CONTROL.search(value):  # a terminal would interpret them
    raise ValueError(f'{where}{name} is {reprlib.repr(value)}, with control characters')
  return value


def _texts(owner: Mapping, name: str, where: str = '', default=_REQUIRED) -> list[str]:
  values = _field(owner, name, list, where, default)
  if any(type(value) is not str for value in values):
    raise ValueError(f'{where}{name} is {reprlib.repr(values)}, not a list of texts')
  return values


def _subset(owner, name: str, of: Sequence[str], where: str = '', ordered: bool = True) -> list:
  """A field that holds some of the names `of`, each once; if `ordered`, in their order."""
  values = _texts(owner, name, where)
  in_order = [one for one in of if one in values]
  is_subset = values == in_order if ordered else sorted(values) == sorted(in_order)
  if not values or not is_subset:
    raise ValueError(f'{where}{name} is {reprlib.repr(values)}; expected some of {", ".join(of)}')
  return values


def _integer(owner, name: str, least: int, most: int | None = None, where: str = '') -> int:
  value = _field(owner, name, int, where)
  if value < least or (most is not None and value > most):
    above = f'at least {least}' if most is None else f'{least} to {most}'
    raise ValueError(f'{where}{name} is {value}; expected {above}')
  return value


def _equal(owner: Mapping, name: str, expected: Any, where: str) -> None:
  value = owner.get(name)
  # Compare the texts, too: in Python, 1 == True == 1.0.
  if value != expected or repr(value) != repr(expected):
    raise ValueError(f'{where}{name} is {reprlib.repr(value)}; expected {expected}')
