"""What a run was trained on, example by example, so that it does not resume with other data.

`data.csv.gz` in the workdir has a row for each example of the training, validation and test sets:
its id, label, subject, and a digest of its fields and images. It is made from the columns of the
opened sets, with which every record is compared when the training starts. Hence it costs no
further reading, does not depend on where the data is or how it is divided into shards, and a set
that is prepared again with the same contents is the same. Each checkpoint has a digest by set.
"""

import csv
import gzip
import hashlib
import io
import json
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from flexfas_jax.files import write_bytes
from flexfas_jax.input_pipeline import sources
from flexfas_jax.input_pipeline.sources import Source

FILE = 'data.csv.gz'
_COLUMNS = ('set', 'selection', 'id', 'label', 'subject', 'digest')
_SHOWN = 3  # ids in a message


class SetRecord(NamedTuple):
  """The examples of a set, in order.

  Attributes:
    ids, labels, subjects: [N] str.
    digests: [N] str, of an example's fields and images.
  """

  ids: list[str]
  labels: list[str]
  subjects: list[str]
  digests: list[str]

  def digest(self) -> str:
    """Of all examples and their order."""
    return hashlib.sha256('\n'.join(self.digests).encode()).hexdigest()


# By set and selection, as in ('test.intra', 'rendered_faces/surf_like:test').
Record = Mapping[tuple[str, str], SetRecord]


def make(opened: Mapping[str, Source], more: tuple[str, ...] = ()) -> Record:
  """The record of some sets.

  Args:
    opened: {'train', 'val' or a test: its set}.
    more: columns that matter besides `sources.FIELDS`, where a set has them: those of classes and
      domains.
  """
  return {
    (name, ', '.join(source.names)): _of_source(source, (*sources.FIELDS, *more))
    for name, source in opened.items()
  }


def _of_source(source: Source, fields: tuple[str, ...]) -> SetRecord:
  # The column of the domains is of the training set alone.
  columns = [source.columns[f] for f in dict.fromkeys(fields) if f in source.columns]
  images = np.stack(list(source.digests.values()), axis=1).astype('<u8')  # [N, M]
  digests = [
    hashlib.blake2b('\x1f'.join(row).encode() + image.tobytes(), digest_size=8).hexdigest()
    for row, image in zip(zip(*columns, strict=True), images, strict=True)
  ]
  known = (list(source.columns[field]) for field in ('id', 'label', 'subject'))
  return SetRecord(*known, digests)


def digests(record: Record) -> dict[str, dict[str, str]]:
  """What a checkpoint has of a record: {set: {selection: digest}}."""
  by_set: dict[str, dict[str, str]] = {}
  for (name, selection), one in record.items():
    by_set.setdefault(name, {})[selection] = one.digest()
  return by_set


def write(folder: pathlib.Path, record: Record) -> None:
  """Writes `data.csv.gz` into a workdir."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(_COLUMNS)
  for key, one in record.items():
    writer.writerows((*key, *row) for row in zip(*one, strict=True))
  write_bytes(folder / FILE, gzip.compress(text.getvalue().encode(), compresslevel=1, mtime=0))


def read(folder: pathlib.Path) -> Record | None:
  """What `write` wrote; None if the file is missing or damaged: checkpoints have the digests."""
  try:
    text = gzip.decompress((folder / FILE).read_bytes()).decode()
    rows = csv.reader(io.StringIO(text, newline=''))
    if tuple(next(rows)) != _COLUMNS:
      return None
    record: dict[tuple[str, str], SetRecord] = {}
    for name, selection, *row in rows:
      one = record.setdefault((name, selection), SetRecord([], [], [], []))
      for column, value in zip(one, row, strict=True):
        column.append(value)
    return record
  except (OSError, EOFError, ValueError, StopIteration, csv.Error):
    return None


def digest(record: Record) -> str:
  """Of all sets."""
  return hashlib.sha256(json.dumps(digests(record), sort_keys=True).encode()).hexdigest()


def compare(
  folder: pathlib.Path,
  saved: Mapping,
  opened: Mapping[str, Source],
  more: tuple[str, ...] = (),
) -> tuple[Record, dict[str, str]]:
  """Compares sets with those that a workdir's newest checkpoint was trained with.

  Its digests count. `data.csv.gz` names the examples that differ, if it is of that checkpoint: a
  run that continued with other data, and ended before it saved, has written that of the other data.
  A set whose selection changed is not compared: the config shows that change.

  Args:
    folder: the workdir.
    saved: what its newest checkpoint has besides arrays; {}: there is none, and nothing to compare.
    opened, more: as for `make`.

  Returns:
    (the record of all sets, {a set that differs: a line}).
  """
  now = make(opened, more)
  before = read(folder) if saved else None
  lines = {}
  for key, one in now.items() if saved else ():
    old, expected = (before or {}).get(key), _expected_digest(before, saved, key)
    if expected in (None, one.digest()):
      continue
    if old is None or old.digest() != expected:
      lines[key[0]] = f'{key[0]}, {key[1]}: {len(one.ids)} examples that differ'
      continue
    place = _first_difference(old, one)
    shard = f', from {opened[key[0]].shard(place)} on' if place < len(one.ids) else ''
    sets_of_ids = {id_: name for (name, _), other in before.items() for id_ in other.ids}
    lines[key[0]] = f'{key[0]}, {key[1]}{shard}: {_difference(old, one, sets_of_ids)}'
  return {**(before or {}), **now}, lines


def is_unchanged(folder: pathlib.Path, saved: Mapping, now: Record, name: str) -> bool:
  """Whether a set is known to have the examples that a run was started with.

  Args:
    folder, saved: as for `compare`.
    now: the record of the sets that are there.
    name: of the set.
  """
  before = read(folder)
  return all(
    _expected_digest(before, saved, key) == one.digest()
    for key, one in now.items()
    if key[0] == name
  )


def _expected_digest(before: Record | None, saved: Mapping, key: tuple[str, str]) -> str | None:
  if digest := saved.get('data', {}).get(key[0], {}).get(key[1]):
    return digest
  return before[key].digest() if before is not None and key in before else None


def _first_difference(old: SetRecord, new: SetRecord) -> int:
  pairs = zip(old.digests, new.digests, strict=False)
  n = min(len(old.digests), len(new.digests))
  return next((i for i, (a, b) in enumerate(pairs) if a != b), n)


def _difference(old: SetRecord, new: SetRecord, where: Mapping[str, str]) -> str:
  """How the examples of a set differ.

  Args:
    old, new: the set.
    where: {id: the set that had it}.
  """
  rows = [{row[0]: row for row in zip(*one, strict=True)} for one in (old, new)]
  added = [
    f'{id_} (formerly in {where[id_]})' if id_ in where else id_
    for id_ in rows[1]
    if id_ not in rows[0]
  ]
  removed = [id_ for id_ in rows[0] if id_ not in rows[1]]
  both = [(rows[0][id_], row) for id_, row in rows[1].items() if id_ in rows[0]]
  labels = [f'{b[0]} ({a[1]} before, {b[1]} now)' for a, b in both if a[1] != b[1]]
  subjects = [f'{b[0]} ({a[2]} before, {b[2]} now)' for a, b in both if a[2] != b[2]]
  others = [b[0] for a, b in both if a[:3] == b[:3] and a[3] != b[3]]
  kinds = (
    ('added', added),
    ('removed', removed),
    ('with another label', labels),
    ('of another subject', subjects),
    ('with other images or fields', others),
  )
  parts = [
    f'{len(ids)} {kind}: {", ".join(ids[:_SHOWN])}{", ..." if len(ids) > _SHOWN else ""}'
    for kind, ids in kinds
    if ids
  ]
  return '; '.join(parts) or f'the same {len(new.ids)} examples in another order'
