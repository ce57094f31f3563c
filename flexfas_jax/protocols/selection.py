"""Which examples of a prepared set: `set/config:split[field=a,b & other!=c]`.

A selection is one line of text, so that protocols are data, and a config or a command line can
name any part of any set:

  casia_cefa/release:train[ethnicity=AF]
  casia_surf/flexmodal:train[species!=04_en_b]
  rendered_faces/cefa_like:train[subject%3!=0 & modalities=rgb,depth]
  casia_surf/challenge:train[in=lists/fold1/train_list.txt]

A field is a column of the set's `manifest.csv`, or one of these:

- `species`, `category`: `attack_type`, `attack_category`, or `bona_fide`;
- `subject%N`: a person's place among N parts, the same on every machine;
- `in`: a protocol list file that names the triplets;
- `modalities`: keeps these sensors alone, in every example.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flexfas_jax import identity
from flexfas_jax.errors import ConfigError

_SHOWN = 12  # values that an error lists
_FORM = 'write set/config:split, or set/config:split[field=a,b & other!=c]'


class Condition(NamedTuple):
  """One of the terms between brackets; an example must meet all of them."""

  field: str
  parts: int  # N of `subject%N`, else 0
  wanted: bool  # = or !=
  values: tuple[str, ...]


class Selection(NamedTuple):
  """A part of a prepared set."""

  text: str
  dataset: str  # set/config
  split: str
  conditions: tuple[Condition, ...]
  modalities: tuple[str, ...] | None  # None: as they are


def split_selections(names: str | Sequence[str]) -> list[str]:
  """Several selections in one text, at its commas outside brackets; a list is as it is."""
  if not isinstance(names, str):
    return list(names)
  return [name.strip() for name in re.split(r',(?![^\[]*\])', names) if name.strip()]


def parse(text: str) -> Selection:
  """One selection.

  Raises:
    ConfigError: another form.
  """
  found = re.fullmatch(r'([^\s:\[\]]+):([\w-]+)(?:\[(.*)\])?', text.strip())
  if not found:
    raise ConfigError(f'{text!r} names no split; {_FORM}')
  dataset, split, inside = found.groups()
  conditions, modalities = [], None
  for term in inside.split('&') if inside is not None else ():
    match = re.fullmatch(r'\s*([\w@.-]+)(?:%(\d+))?\s*(!?=)\s*([^=&]*?)\s*', term)
    if not match:
      raise ConfigError(f'{text!r}: {term.strip()!r} is no condition; {_FORM}')
    field, parts, sign, values = match.groups()
    values = tuple(value.strip() for value in values.split(','))
    if field == 'modalities':
      if sign == '!=' or not all(values):
        raise ConfigError(f'{text!r}: modalities are kept, not left out; write modalities=rgb')
      modalities = values
      continue
    if parts is not None and (field != 'subject' or int(parts) < 2):
      raise ConfigError(f'{text!r}: only subject%N is known, N at least 2')
    conditions.append(Condition(field, int(parts or 0), sign == '=', values))
  return Selection(text.strip(), dataset, split, tuple(conditions), modalities)


def part_of(subject: str, parts: int) -> int:
  """The part, 0 to parts - 1, that a person is in; depends on nothing but the name."""
  (subject,) = identity.canonical([subject])  # two spellings of a name are in one part
  return int.from_bytes(hashlib.sha256(subject.encode()).digest()[:8], 'big') % parts


def select(
  selection: Selection,
  columns: Mapping[str, Sequence[str]],
  known: Mapping[str, Sequence[str]],
  read_ids: Callable[[str], set[str]],
) -> np.ndarray:
  """The places of the examples that a selection names.

  Args:
    selection: its conditions.
    columns: {field: value of each example of the split}, of the manifest.
    known: the same of all splits of the set. A value that none has is a slip of the pen, which
      with != would quietly leave nothing out.
    read_ids: gives the ids that a list file names.

  Returns:
    [n] int64, ascending.

  Raises:
    ConfigError: an unknown field or value.
  """
  length = len(columns['id'])
  keep = np.ones(length, bool)
  for condition in selection.conditions:
    keep &= _meets(selection, condition, columns, known, read_ids) == condition.wanted
  return np.flatnonzero(keep)


def _meets(selection, condition: Condition, columns, known, read_ids) -> np.ndarray:
  if condition.field == 'in':
    ids = set(identity.canonical([*set().union(*map(read_ids, condition.values))]))
    # Whoever writes a list of one's own need not put the data set's name before the ids.
    own = zip(*map(identity.canonical, (columns['id'], columns['dataset'])), strict=True)
    return np.array([one in ids or one.removeprefix(f'{of}/') in ids for one, of in own], bool)
  if condition.parts:
    if wrong := [v for v in condition.values if not v.isdigit() or int(v) >= condition.parts]:
      raise ConfigError(
        f'{selection.text}: {wrong[0]!r} is no part of {condition.parts}; they are 0 to '
        f'{condition.parts - 1}'
      )
    wanted = set(map(int, condition.values))
    of = {s: part_of(s, condition.parts) in wanted for s in set(columns['subject'])}
    return np.array([of[s] for s in columns['subject']], bool)
  everywhere = set(identity.canonical(_values(selection, condition.field, known)))
  wanted = set(identity.canonical(condition.values))
  if wrong := sorted(wanted - everywhere):
    has = sorted(everywhere)
    more = f' and {len(has) - _SHOWN} more' if len(has) > _SHOWN else ''
    raise ConfigError(
      f'{selection.text}: {selection.dataset} has no {condition.field} {wrong[0]!r}; it has: '
      f'{", ".join(v or "(empty)" for v in has[:_SHOWN])}{more}'
    )
  values = identity.canonical(_values(selection, condition.field, columns))
  return np.array([value in wanted for value in values], bool)


def _values(selection, field: str, columns) -> list[str]:
  of = {'species': 'attack_type', 'category': 'attack_category'}.get(field)
  if of:
    labels, kinds = columns['label'], columns[of]
    return [
      'bona_fide' if label == 'bona_fide' else kind or 'unknown'
      for label, kind in zip(labels, kinds, strict=True)
    ]
  if field not in columns:
    raise ConfigError(
      f'{selection.text}: {selection.dataset} has no field {field!r}; it has: species, category, '
      f'subject%N, in, modalities, {", ".join(columns)}'
    )
  return list(columns[field])
