"""A config's names become code here: the key is a file's name (in `heads`, `losses`: one in it).

No registry: adding `models/fusion/bilinear.py` with a class `Bilinear` is all it takes for
`fusion.name = 'bilinear'` to work.
"""

import functools
import importlib
import inspect
import os
import pathlib
import re
from collections.abc import Callable, Mapping

from flexfas_jax.errors import ConfigError

# One file per choice: the class is named like the file, without regard to case and underscores.
_FOLDERS = {'backbone': 'models.backbone', 'fusion': 'models.fusion'}
# Several choices in one file: classes or functions, in snake case.
_FILES = {'head': 'models.heads', 'loss': 'training.losses'}


def choices(kind: str) -> list[str]:
  """The names that `find(kind, ...)` knows, sorted."""
  if kind in _FOLDERS:
    folder = pathlib.Path(__file__).parent.joinpath(*_FOLDERS[kind].split('.'))
    return sorted(f.stem for f in folder.glob('*.py') if not f.stem.startswith('_'))
  return sorted(_contents(kind))


def _contents(kind: str) -> dict:
  module = importlib.import_module(f'flexfas_jax.{_FILES[kind]}')
  return {
    re.sub(r'(?<=[a-z])(?=[A-Z])', '_', name).lower(): thing
    for name, thing in vars(module).items()
    if getattr(thing, '__module__', '') == module.__name__ and not name.startswith('_')
  }


def config_file(text: str) -> str:
  """What `--config` is given, with the name of one of our configs replaced by its file.

  Args:
    text: 'vit_fusion' or 'vit_fusion:recipe', which are found from any folder, or a path.

  Returns:
    The path, with the recipe.

  Raises:
    ConfigError: a name that is neither ours nor a file's, or the path of one of ours where it is
      not.
  """
  name, colon, recipe = text.partition(':')
  if not name or os.path.exists(name):
    return text
  folder = pathlib.Path(__file__).parent / 'configs'
  names = sorted(path.stem for path in folder.glob('*.py'))
  if name.endswith('.py') or '/' in name:
    if (stem := pathlib.PurePath(name).stem) in names:
      raise ConfigError(f'no file {name}; from any folder, it is --config={stem}{colon}{recipe}')
    return text  # ml_collections reports it
  if name not in names:
    raise ConfigError(
      f'unknown config {name!r}; choose one of: {", ".join(names)}; or give a file: '
      f'--config=./{name}.py'
    )
  return f'{folder / name}.py{colon}{recipe}'


def find(kind: str, name: str):
  """The class or function that a config calls `name`.

  Args:
    kind: 'backbone', 'fusion', 'head' or 'loss'.
    name: one of `choices(kind)`.

  Raises:
    ConfigError: no such name; the message lists those that exist.
  """
  if name not in choices(kind):
    raise ConfigError(f'unknown {kind} {name!r}; choose one of: {", ".join(choices(kind))}')
  if kind in _FILES:
    return _contents(kind)[name]
  module = importlib.import_module(f'flexfas_jax.{_FOLDERS[kind]}.{name}')
  wanted = name.replace('_', '')
  for attribute, thing in vars(module).items():
    if attribute.lower() == wanted and inspect.isclass(thing):
      return thing
  raise ConfigError(f'{module.__name__} has no class named like its file')


def make(kind: str, name: str, **fields):
  """Finds a class and calls it with a config's fields.

  Raises:
    ConfigError: unknown name, fields that it does not have, or one that is missing; the message
      names the fields.
  """
  thing = find(kind, name)
  parameters = inspect.signature(thing).parameters
  known = [p for p in parameters if p not in ('parent', 'name')]
  unknown = sorted(set(fields) - set(known))
  if unknown:
    alone = f'--config.model.{kind}="{{{"name"!r}: {name!r}}}"'
    raise ConfigError(
      f'{kind} {name!r} has no field {unknown[0]!r}; it has: {", ".join(known)}. '
      f'Fields of another choice go when all are given at once: {alone}'
    )
  missing = [p for p in known if parameters[p].default is inspect.Parameter.empty]
  if missing := [p for p in missing if p not in fields]:
    raise ConfigError(f'{kind} {name!r} needs the field {missing[0]!r}: config.model.{kind}')
  return thing(**fields)


def make_loss(spec: str | Mapping[str, Mapping]) -> Callable:
  """The loss that a config's `loss` describes: `loss(outputs, batch) -> [B] float32`.

  Args:
    spec: a name, or {name: {field: value, ..., 'weight': number}, ...}, whose terms are added,
      each times its weight (1 if none is given). `{'pixel_wise_mse': {}, 'contrastive_depth': {}}`
      is CDCN's.

  Raises:
    ConfigError: an unknown name or field, or something that is neither form.
  """
  terms = {spec: {}} if isinstance(spec, str) else spec
  if not (isinstance(terms, Mapping) and terms):
    raise ConfigError(
      f'config.loss is {spec!r}; give a name, or {{name: its fields}}, of: '
      f'{", ".join(choices("loss"))}'
    )
  weighted = [_make_term(name, terms[name]) for name in sorted(terms)]

  def loss(outputs, batch):
    return sum(weight * term(outputs, batch) for weight, term in weighted)

  return loss


def _make_term(name: str, fields: Mapping) -> tuple[float, Callable]:
  """(weight, loss with its fields)."""
  function = find('loss', name)
  known = [*list(inspect.signature(function).parameters)[2:], 'weight']
  if not isinstance(fields, Mapping):
    raise ConfigError(f'config.loss.{name} is {fields!r}; give its fields: {{"weight": 1.0}}')
  if unknown := sorted(set(fields) - set(known)):
    raise ConfigError(f'loss {name!r} has no field {unknown[0]!r}; it has: {", ".join(known)}')
  fields = dict(fields)
  weight = fields.pop('weight', 1.0)
  if isinstance(weight, bool) or not isinstance(weight, int | float):
    raise ConfigError(f'config.loss.{name}.weight is {weight!r}, not a number')
  return float(weight), functools.partial(function, **fields)


def make_protocol(text: str):
  """The protocol that a config names, its fields filled in.

  Args:
    text: `name`, or `name(field=value, ...)`, of `protocols/definitions.py`.

  Returns:
    `protocols.Protocol`, whose `fields` are {field: value}.

  Raises:
    ConfigError: an unknown name or field, or a field that is missing.
  """
  from flexfas_jax.protocols.definitions import PROTOCOLS  # models import this file, not evaluation

  found = re.fullmatch(r'\s*([\w-]+)\s*(?:\((.*)\))?\s*', text)
  if not found:
    raise ConfigError(f'{text!r} is no protocol; write name, or name(field=value, ...)')
  name, inside = found.groups()
  protocol = pick('protocol', PROTOCOLS, name)
  given = {}
  for term in filter(None, (inside or '').split(',')):
    field, equals, value = (part.strip() for part in term.partition('='))
    if not equals or field not in protocol.fields:
      has = ', '.join(protocol.fields) or 'none'
      raise ConfigError(f'protocol {name}: {term.strip()!r} gives no field of it; it has: {has}')
    given[field] = value
  filled = {}
  for field, values in protocol.fields.items():
    if field not in given and not values:
      raise ConfigError(f'protocol {name} needs its field {field!r}: {name}({field}=...)')
    filled[field] = given.get(field, values[0] if values else '')
  fill = lambda pattern: pattern.format(**filled)  # noqa: E731
  return protocol._replace(
    train=fill(protocol.train),
    val=fill(protocol.val),
    test={name: fill(selections) for name, selections in protocol.test.items()},
    fields=filled,
  )


def pick(what: str, table, key):
  """`table[key]`, or a ConfigError that lists the keys."""
  if key not in table:
    raise ConfigError(f'unknown {what} {key!r}; choose one of: {", ".join(map(str, table))}')
  return table[key]
