"""Finds the classes and functions that configs name: the name is that of a file or of its content.

There is no registry: a file `models/fusion/bilinear.py` with a class `Bilinear` is enough for
`fusion.name = 'bilinear'`.
"""

import functools
import importlib
import inspect
import math
import os
import pathlib
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from flexfas_jax.errors import ConfigError

# One file per choice; its class has the file's name, ignoring case and underscores.
_FOLDERS = {
  'backbone': 'models.backbone',
  'fusion': 'models.fusion',
  'adapter': 'models.adapters',
}
# Several choices in one file: classes or functions, in snake case.
_FILES = {
  'head': 'models.heads',
  'loss': 'training.losses',
  'gradient_modulation': 'training.gradient_modulation',
}


def choices(kind: str) -> list[str]:
  """The names that `find(kind, ...)` accepts, sorted."""
  if kind in _FOLDERS:
    folder = pathlib.Path(__file__).parent.joinpath(*_FOLDERS[kind].split('.'))
    return sorted(f.stem for f in folder.glob('*.py') if not f.stem.startswith('_'))
  return sorted(_contents(kind))


def _contents(kind: str) -> dict:
  module = importlib.import_module(f'flexfas_jax.{_FILES[kind]}')
  return {
    re.sub(r'(?<=[a-z])(?=[A-Z])', '_', name).lower(): value
    for name, value in vars(module).items()
    if getattr(value, '__module__', '') == module.__name__ and not name.startswith('_')
  }


def config_file(text: str) -> str:
  """The value of `--config`, with the name of an installed config replaced by its file.

  Args:
    text: 'vit_fusion' or 'vit_fusion:recipe', from any folder; or a path.

  Returns:
    The path, with the recipe.

  Raises:
    ConfigError: neither an installed config nor a file.
  """
  name, colon, recipe = text.partition(':')
  if not name or os.path.exists(name):
    return text
  folder = pathlib.Path(__file__).parent / 'configs'
  names = sorted(path.stem for path in folder.glob('*.py'))
  if name.endswith('.py') or '/' in name:
    if (stem := pathlib.PurePath(name).stem) in names:
      raise ConfigError(f'no file {name}; the installed config is --config={stem}{colon}{recipe}')
    return text  # ml_collections reports it
  if name not in names:
    raise ConfigError(
      f'unknown config {name!r}; choose one of: {", ".join(names)}; or give a file: '
      f'--config=./{name}.py'
    )
  return f'{folder / name}.py{colon}{recipe}'


def find(kind: str, name: str | None):
  """The class or function that a config calls `name`.

  Args:
    kind: 'backbone', 'fusion', 'adapter', 'head', 'loss' or 'gradient_modulation'.
    name: one of `choices(kind)`.

  Raises:
    ConfigError: no such name; the message lists those that exist.
  """
  if name not in choices(kind):
    raise ConfigError(f'unknown {kind} {name!r}; choose one of: {", ".join(choices(kind))}')
  if kind in _FILES:
    return _contents(kind)[name]
  module = importlib.import_module(f'flexfas_jax.{_FOLDERS[kind]}.{name}')
  class_name = name.replace('_', '')
  for attribute, value in vars(module).items():
    if attribute.lower() == class_name and inspect.isclass(value):
      return value
  raise ConfigError(f'{module.__name__} has no class named like its file')


def make(kind: str, /, name: str, **fields):
  """Finds a class and calls it with a config's fields (and Flax's `parent`).

  Raises:
    ConfigError: an unknown name, an unknown field or a missing one; the message lists the fields.
  """
  cls = find(kind, name)
  parameters = inspect.signature(cls).parameters
  accepted = [p for p in parameters if p not in ('parent', 'name')]
  unknown = sorted(set(fields) - set(accepted) - {'parent'})
  if unknown:
    group = f'--config.model.{kind}="{{{"name"!r}: {name!r}}}"'
    if kind == 'adapter':
      group = f'--config.model.backbone.adapters="({{{"name"!r}: {name!r}}},)"'
    raise ConfigError(
      f'{kind} {name!r} has no field {unknown[0]!r}; it has: {", ".join(accepted)}. '
      f'To drop the fields of another {kind}, replace the group: {group}'
    )
  missing = [p for p in accepted if parameters[p].default is inspect.Parameter.empty]
  if missing := [p for p in missing if p not in fields]:
    raise ConfigError(f'{kind} {name!r} needs the field {missing[0]!r}: config.model.{kind}')
  where = f'config.model.backbone.adapters: {name}' if kind == 'adapter' else f'config.model.{kind}'
  check_values(where, parameters, fields)
  return cls(**fields)


# Numbers that are at least 1; all others are at least 0.
_COUNTS = {
  *('depth', 'stages', 'patch_size', 'image_size', 'width', 'heads', 'rank', 'length'),
  *('domains', 'period', 'modalities', 'kernel_size', 'reduction', 'bottleneck', 'map_size'),
}
_FORMS = {bool: 'True or False', int: 'a whole number', float: 'a number', str: 'a text'}


def check_values(where: str, parameters: Mapping, fields: Mapping[str, Any]) -> None:
  """Compares the fields of a config with the annotations of what they are passed to.

  Raises:
    ConfigError: a value of another type, or a number out of its range.
  """
  for name, value in fields.items():
    if name not in parameters or name in ('parent', 'dtype', 'adapters'):  # ViT checks adapters
      continue
    annotation = parameters[name].annotation
    is_union = isinstance(annotation, types.UnionType)
    kinds = typing.get_args(annotation) if is_union else (annotation,)
    if value is None and type(None) in kinds:
      continue
    (kind, *_) = kinds
    form = _FORMS.get(kind, 'a tuple' if (typing.get_origin(kind) or kind) is tuple else None)
    if form is None:
      continue
    accepted = {float: (int, float)}.get(kind, typing.get_origin(kind) or kind)
    fits = isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))
    if kind in (int, float):
      least = 1 if name in _COUNTS else 0
      below = 1 if name == 'dropout' else math.inf
      form += f' from {least} {"on" if below == math.inf else "to below 1"}'
      fits = fits and least <= value < below
    if not fits:
      form += ', or None' if type(None) in kinds else ''
      raise ConfigError(f'{where}.{name} is {value!r}; give {form}')


def make_loss(spec: str | Mapping[str, Mapping]) -> Callable:
  """The loss that a config's `loss` describes: `loss(outputs, batch) -> [B] float32`.

  Args:
    spec: a name; or {name: {field: value, ..., 'weight': number}, ...}, whose terms are multiplied
      by their weights (default 1) and added: `{'pixel_wise_mse': {}, 'contrastive_depth': {}}` is
      CDCN's loss.

  Raises:
    ConfigError: an unknown name or field, or neither form.
  """
  return _sum_of(loss_terms(spec))


def make_loss_parts(spec: str | Mapping[str, Mapping]) -> tuple[Callable, Callable]:
  """The same loss in two parts, for gradient modulation.

  Args:
    spec: as in `make_loss`.

  Returns:
    (outputs, batch) -> [B], the terms without a loss for each modality, and (outputs, batch) ->
    [B, M], the others.

  Raises:
    ConfigError: as `make_loss`, or one part has no term.
  """
  terms = loss_terms(spec)
  own = {n: (w, t) for n, (w, t) in terms.items() if hasattr(t.func, 'by_modality')}
  shared = {n: term for n, term in terms.items() if n not in own}
  if not own or not shared:
    names = [n for n in choices('loss') if hasattr(find('loss', n), 'by_modality')]
    raise ConfigError(
      f'config.gradient_modulation needs a loss with a term for each modality ({", ".join(names)}) '
      f'and one without; config.loss has {", ".join(terms)}'
    )
  by_modality = {
    n: (w, functools.partial(t.func.by_modality, **t.keywords)) for n, (w, t) in own.items()
  }
  return _sum_of(shared), _sum_of(by_modality)


def _sum_of(terms: Mapping[str, tuple[float, Callable]]) -> Callable:
  def loss(outputs, batch):
    return sum(weight * term(outputs, batch) for weight, term in terms.values())

  return loss


def loss_terms(spec: str | Mapping[str, Mapping]) -> dict[str, tuple[float, functools.partial]]:
  """{name: (weight, loss with its fields bound)} of a config's `loss`, sorted; see `make_loss`."""
  terms = {spec: {}} if isinstance(spec, str) else spec
  if not (isinstance(terms, Mapping) and terms):
    raise ConfigError(
      f'config.loss is {spec!r}; give a name, or {{name: its fields}}, of: '
      f'{", ".join(choices("loss"))}'
    )
  return {name: _make_term(name, terms[name]) for name in sorted(terms)}


_WEIGHT = inspect.Parameter('weight', inspect.Parameter.KEYWORD_ONLY, annotation=float)


def _make_term(name: str, fields: Mapping) -> tuple[float, functools.partial]:
  """(weight, loss with its fields bound)."""
  function = find('loss', name)
  parameters = dict(list(inspect.signature(function).parameters.items())[2:])
  accepted = [*parameters, 'weight']
  if not isinstance(fields, Mapping):
    raise ConfigError(f'config.loss.{name} is {fields!r}; give its fields: {{"weight": 1.0}}')
  if unknown := sorted(set(fields) - set(accepted)):
    raise ConfigError(f'loss {name!r} has no field {unknown[0]!r}; it has: {", ".join(accepted)}')
  required = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty]
  if missing := [n for n in required if n not in fields]:
    raise ConfigError(f'loss {name!r} needs the field {missing[0]!r}: config.loss.{name}')
  weight = fields.get('weight', 1.0)
  check_values(f'config.loss.{name}', parameters | {'weight': _WEIGHT}, fields)
  fields = {n: value for n, value in fields.items() if n != 'weight'}
  return float(weight), functools.partial(function, **fields)


def make_protocol(text: str):
  """The protocol that a config names, with its fields filled in.

  Args:
    text: `name`, or `name(field=value, ...)`, of `protocols/definitions.py`.

  Returns:
    The `Protocol`; its `fields` are {field: value}.

  Raises:
    ConfigError: an unknown name or field, or a missing field.
  """
  from flexfas_jax.protocols.definitions import PROTOCOLS  # models import this file

  match = re.fullmatch(r'\s*([\w-]+)\s*(?:\((.*)\))?\s*', text)
  if not match:
    raise ConfigError(f'{text!r} is not a protocol; write name, or name(field=value, ...)')
  name, inside = match.groups()
  protocol = pick('protocol', PROTOCOLS, name)
  given = {}
  for term in filter(None, (inside or '').split(',')):
    field, equals, value = (part.strip() for part in term.partition('='))
    if not equals or field not in protocol.fields:
      names = ', '.join(protocol.fields) or 'none'
      raise ConfigError(f'protocol {name}: {term.strip()!r} sets no field of: {names}')
    given[field] = value
  filled = {}
  for field, values in protocol.fields.items():
    if field not in given and not values:
      raise ConfigError(f'protocol {name} needs its field {field!r}: {name}({field}=...)')
    filled[field] = given.get(field, next(iter(values)) if values else '')
  texts = dict(filled)
  for field, values in protocol.fields.items():
    if isinstance(values, Mapping):
      texts |= pick(f'{field} of {name}', values, filled[field])

  def fill(selections):
    return selections.format(**texts).format(**filled)  # a field's text may have fields

  return protocol._replace(
    train=fill(protocol.train),
    val=fill(protocol.val),
    test={name: fill(selections) for name, selections in protocol.test.items()},
    fields=filled,
  )


def pick(kind: str, table: Mapping, key):
  """`table[key]`, or a ConfigError that lists the keys."""
  if key not in table:
    raise ConfigError(f'unknown {kind} {key!r}; choose one of: {", ".join(map(str, table))}')
  return table[key]
