"""A config's names become code here: the key is a file's name (in `heads`, `losses`: one in it).

No registry: adding `fusion/bilinear.py` with a class `Bilinear` is all it takes for
`fusion.name = 'bilinear'` to work.
"""

import importlib
import inspect
import pathlib
import re

from flexfas_jax.errors import ConfigError

# One file per choice: the class is named like the file, without regard to case and underscores.
_FOLDERS = {'backbone': 'models', 'fusion': 'fusion'}
# Several choices in one file: classes or functions, in snake case.
_FILES = {'head': 'models.heads', 'loss': 'training.losses'}
_NO_BACKBONES = {'flexmodal', 'heads', 'pretrained'}  # what else lives in models/


def choices(kind: str) -> list[str]:
  """The names that `find(kind, ...)` knows, sorted."""
  if kind in _FOLDERS:
    folder = pathlib.Path(__file__).parent / _FOLDERS[kind]
    names = {f.stem for f in folder.glob('*.py') if not f.stem.startswith('_')}
    return sorted(names - (_NO_BACKBONES if kind == 'backbone' else set()))
  return sorted(_contents(kind))


def _contents(kind: str) -> dict:
  module = importlib.import_module(f'flexfas_jax.{_FILES[kind]}')
  return {
    re.sub(r'(?<=[a-z])(?=[A-Z])', '_', name).lower(): thing
    for name, thing in vars(module).items()
    if getattr(thing, '__module__', '') == module.__name__ and not name.startswith('_')
  }


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
    ConfigError: unknown name, or fields that it does not have; the message lists its fields.
  """
  thing = find(kind, name)
  known = [p for p in inspect.signature(thing).parameters if p not in ('parent', 'name')]
  unknown = sorted(set(fields) - set(known))
  if unknown:
    alone = f'--config.model.{kind}="{{{"name"!r}: {name!r}}}"'
    raise ConfigError(
      f'{kind} {name!r} has no field {unknown[0]!r}; it has: {", ".join(known)}. '
      f'Fields of another choice go when all are given at once: {alone}'
    )
  return thing(**fields)


def pick(what: str, table, key):
  """`table[key]`, or a ConfigError that lists the keys."""
  if key not in table:
    raise ConfigError(f'unknown {what} {key!r}; choose one of: {", ".join(map(str, table))}')
  return table[key]
