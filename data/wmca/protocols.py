"""WMCA's own protocols: which video is in train, dev or eval of which, from their CSV files.

They become columns of the prepared set's manifest, by which parts are selected:
`wmca/preprocessed:whole[grandtest=train]`, `wmca/preprocessed:whole[LOO_glasses=eval]`.
"""

import collections
import posixpath
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from flexfas_jax.data import tables
from flexfas_jax.errors import DataError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.protocols import path_layouts
from flexfas_jax.protocols.findings import Finding

# What is left out of train and dev, by the names that the files have.
UNSEEN = ('fakehead', 'flexiblemask', 'glasses', 'papermask', 'prints', 'replay', 'rigidmask')
COLUMNS = ('grandtest', *(f'LOO_{unseen}' for unseen in UNSEEN))
_NEEDED = ('path', 'group', 'label')
_GROUPS = {
  **dict.fromkeys(('train', 'training'), 'train'),
  **dict.fromkeys(('dev', 'devel', 'development', 'val', 'valid', 'validation'), 'dev'),
  **dict.fromkeys(('eval', 'evaluation', 'test'), 'eval'),
}


class Protocols(NamedTuple):
  """The contents of the protocol files."""

  columns: dict[str, dict[str, str]]  # {video: {protocol: train, dev or eval}}
  findings: list[Finding]
  notes: list[str]
  sha256: dict[str, str]  # of each file that was read


def read(builder, videos: Iterable[str]) -> Protocols:
  """Reads the protocol files that are in --lists, or in the source.

  Args:
    builder: with `lists` and `source`.
    videos: names of those in the source; others in a protocol are reported.
  """
  made = Protocols(collections.defaultdict(dict), [], [], {})
  where = tables.places(builder.lists, builder.source)
  known = {f'protocol-{column}.csv'.lower(): column for column in COLUMNS}
  there, others = {}, []
  for path in tables.files(where, 'PROTOCOL-*.csv'):
    column = known.get(path.name.lower())
    if column and column not in there:
      there[column] = path
    else:
      others.append(path.name)
  names = set(videos)
  for column in COLUMNS:
    if column in there:
      _read_one(there[column], column, names, made)
  if others:
    made.notes.append(f'not read, of another name or there twice: {", ".join(sorted(others))}')
  missing = [f'PROTOCOL-{column}.csv' for column in COLUMNS if column not in there]
  if missing:
    places = ', '.join(map(str, where))
    made.notes.append(f'{places} has no {", ".join(missing)}: without its column in the manifest')
  if there and (unnamed := len(names - set(made.columns))):
    made.notes.append(f'{unnamed} of {len(names)} videos are in no protocol')
  return made


def _read_one(path: Path, column: str, videos: set[str], made: Protocols) -> None:
  def found(rule: str, line: int, text: str, id_: str = '') -> None:
    made.findings.append(Finding(rule, str(path), line, text, id_))

  groups, clients = {}, collections.defaultdict(dict)
  for line, cells in tables.read(path, _NEEDED, made.findings):
    name = posixpath.basename(cells['path'].replace('\\', '/')).removesuffix('.hdf5')
    group = _GROUPS.get(cells['group'].lower())
    try:
      parsed = path_layouts.wmca_video(name)
    except DataError as error:
      found('label', line, str(error))
      continue
    if not group:
      found('row', line, f'{name}: the group {cells["group"]!r} is none of train, dev, eval')
      continue
    if text := _contradiction(parsed, cells):
      found('label', line, f'{name}: {text}', path_layouts.wmca_id(name))
    if name in groups:
      rule = 'duplicate' if groups[name] == group else 'leak-video'
      found(rule, line, f'{name} is in {groups[name]} and again in {group}')
      continue
    if name not in videos:
      found('missing-file', line, f'{name} is in neither half of the source')
    groups[name] = group
    clients[parsed.subject].setdefault(group, line)
    made.columns[name][column] = group
  for client, lines in sorted(clients.items()):
    if len(lines) > 1:
      text = f'client {client} is in {" and ".join(lines)} of {column}'
      found('leak-subject', max(lines.values()), text)
  made.sha256[path.name] = image_checks.digest(path.read_bytes())


def _contradiction(parsed: path_layouts.ParsedPath, cells: Mapping[str, str]) -> str:
  """The contradiction between the label and the name of a row, or ''."""
  if not re.fullmatch(r'\d+', cells['label']):
    return f'the label {cells["label"]!r} is no number (0 is bona fide, others are attacks)'
  label = 'bona_fide' if int(cells['label']) == 0 else 'attack'
  return '' if label == parsed.label else f'the label is {label}, and the name means {parsed.label}'
