"""Selects examples of a prepared set: `set/config:split[field=a,b & other!=c]`.

A selection is one line of text: protocols are data, and a config or a command line can name any
part of any set:

  casia_cefa/release:train[ethnicity=AF]
  casia_surf/flexmodal:train[species!=04_en_b]
  rendered_faces/cefa_like:train[subject%3!=0 & modalities=rgb,depth]
  casia_surf/challenge:train[in=lists/fold1/train_list.txt]

A field is a column of the set's `manifest.csv`, or one of these:

- `species`, `category`: `attack_type`, `attack_category`, or `bona_fide`;
- `subject%N`: the part, 0 to N - 1, of a subject, the same on every machine;
- `in`: a protocol list that names the triplets;
- `modalities`: keeps only these sensors, in every example.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flexfas_jax import identity
from flexfas_jax.errors import ConfigError

_MAX_LISTED = 12  # values that an error lists
_SYNTAX = 'write set/config:split, or set/config:split[field=a,b & other!=c]'

_RENDERED = 'rendered_faces/'
# Values of the column `dataset` in the embedded set, and beginnings of its ids.
RENDERED_DATASETS = ('surf_like', 'cefa_like', 'wmca_like', 'padisi_like')

Columns = Mapping[str, Sequence[str]]


class Condition(NamedTuple):
  """One of the terms between brackets; an example must meet all of them."""

  field: str
  parts: int  # N of `subject%N`, else 0
  equal: bool  # = or !=
  values: tuple[str, ...]


class Selection(NamedTuple):
  """A parsed selection."""

  text: str
  dataset: str  # set/config
  split: str
  conditions: tuple[Condition, ...]
  modalities: tuple[str, ...] | None  # None: all


def split_selections(names: str | Sequence[str]) -> list[str]:
  """Splits a text at its commas outside brackets; a sequence is returned as a list."""
  if not isinstance(names, str):
    return list(names)
  return [name.strip() for name in re.split(r',(?![^\[]*\])', names) if name.strip()]


def is_rendered(names: str | Sequence[str]) -> bool:
  """Whether any of some selections is of the embedded set, whose images are rendered."""
  return any(name.startswith(_RENDERED) for name in split_selections(names))


def parse(text: str) -> Selection:
  """Parses one selection.

  Raises:
    ConfigError: invalid syntax.
  """
  match = re.fullmatch(r'([^\s:\[\]]+):([\w-]+)(?:\[(.*)\])?', text.strip())
  if not match:
    raise ConfigError(f'{text!r} names no split; {_SYNTAX}')
  dataset, split, terms = match.groups()
  conditions, modalities = [], None
  for term in terms.split('&') if terms is not None else ():
    match = re.fullmatch(r'\s*([\w@.-]+)(?:%(\d+))?\s*(!?=)\s*([^=&]*?)\s*', term)
    if not match:
      raise ConfigError(f'{text!r}: {term.strip()!r} is no condition; {_SYNTAX}')
    field, parts, sign, values = match.groups()
    values = tuple(value.strip() for value in values.split(','))
    if field == 'modalities':
      if sign == '!=' or not all(values):
        raise ConfigError(f'{text!r}: modalities are kept, not left out; write modalities=rgb')
      modalities = values
      continue
    if parts is not None and (field != 'subject' or int(parts) < 2):
      raise ConfigError(f'{text!r}: write subject%N, with N at least 2; no other field has parts')
    conditions.append(Condition(field, int(parts or 0), sign == '=', values))
  return Selection(text.strip(), dataset, split, tuple(conditions), modalities)


def part_of(subject: str, parts: int) -> int:
  """The part, 0 to parts - 1, of a subject; it depends only on the name."""
  (subject,) = identity.canonical([subject])  # spellings of a name are in one part
  return int.from_bytes(hashlib.sha256(subject.encode()).digest()[:8], 'big') % parts


def select(
  selection: Selection,
  columns: Columns,
  all_columns: Columns,
  read_ids: Callable[[str], set[str]],
) -> np.ndarray:
  """The indices of the selected examples.

  Args:
    selection: its conditions.
    columns: {field: value of each example of the split}, of the manifest.
    all_columns: the same of all splits of the set. A value that occurs in none is refused: with
      !=, a typing error would silently leave nothing out.
    read_ids: returns the ids that a list file names.

  Returns:
    [n] int64, ascending.

  Raises:
    ConfigError: an unknown field or value.
  """
  selected = np.ones(len(columns['id']), bool)
  for condition in selection.conditions:
    if condition.field == 'in':
      matches = _match_ids(condition, columns, read_ids)
    elif condition.parts:
      matches = _match_parts(selection, condition, columns)
    else:
      matches = _match_values(selection, condition, columns, all_columns)
    selected &= matches == condition.equal
  return np.flatnonzero(selected)


def _match_ids(
  condition: Condition, columns: Columns, read_ids: Callable[[str], set[str]]
) -> np.ndarray:
  listed = set(identity.canonical([*set().union(*map(read_ids, condition.values))]))
  ids, datasets = identity.canonical(columns['id']), identity.canonical(columns['dataset'])
  # Lists may omit the data set's name before the ids.
  return np.array(
    [
      id_ in listed or id_.removeprefix(f'{dataset}/') in listed
      for id_, dataset in zip(ids, datasets, strict=True)
    ],
    bool,
  )


def _match_parts(selection: Selection, condition: Condition, columns: Columns) -> np.ndarray:
  n = condition.parts
  if invalid := [v for v in condition.values if not v.isdigit() or int(v) >= n]:
    raise ConfigError(f'{selection.text}: {invalid[0]!r} is no part of {n}; they are 0 to {n - 1}')
  parts = set(map(int, condition.values))
  matches = {s: part_of(s, n) in parts for s in set(columns['subject'])}
  return np.array([matches[subject] for subject in columns['subject']], bool)


def _match_values(
  selection: Selection, condition: Condition, columns: Columns, all_columns: Columns
) -> np.ndarray:
  field = condition.field
  existing = set(identity.canonical(_values(selection, field, all_columns)))
  values = set(identity.canonical(condition.values))
  if unknown := sorted(values - existing):
    names = [value or '(empty)' for value in sorted(existing)]
    more = f' and {len(names) - _MAX_LISTED} more' if len(names) > _MAX_LISTED else ''
    raise ConfigError(
      f'{selection.text}: {selection.dataset} has no {field} {unknown[0]!r}; it has: '
      f'{", ".join(names[:_MAX_LISTED])}{more}'
    )
  column = identity.canonical(_values(selection, field, columns))
  return np.array([value in values for value in column], bool)


def _values(selection: Selection, field: str, columns: Columns) -> list[str]:
  attack_field = {'species': 'attack_type', 'category': 'attack_category'}.get(field)
  if attack_field:
    return [
      'bona_fide' if label == 'bona_fide' else attack or 'unknown'
      for label, attack in zip(columns['label'], columns[attack_field], strict=True)
    ]
  if field not in columns:
    raise ConfigError(
      f'{selection.text}: {selection.dataset} has no field {field!r}; it has: species, category, '
      f'subject%N, in, modalities, {", ".join(columns)}'
    )
  return list(columns[field])
