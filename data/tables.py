"""Tables that data sets come with: CSV whose columns are found by their names.

They say something of videos or samples: a split, a label. Lists of pictures are another matter and
are read by `flexfas_jax/protocols/lists.py`.
"""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from data import folders
from flexfas_jax.errors import DataError
from flexfas_jax.protocols.findings import Finding

_DELIMITERS = (',', ';', '\t')
_SHOWN = 200  # characters of a first row that are quoted


def places(lists: str | os.PathLike | None, source: Path) -> list[Path]:
  """Where tables are looked for: what --lists says (split at commas), or else the source.

  Raises:
    DataError: a place that is not there.
  """
  if lists is None:
    return [source]
  found = [Path(part) for part in str(lists).split(',')]
  if missing := [place for place in found if not place.exists()]:
    raise DataError(f'--lists: there is no {missing[0]}')
  return found


def files(where: Sequence[Path], pattern: str) -> list[Path]:
  """The files of a name's pattern, e.g. '*.csv', in places that are files or folders."""
  found = {}
  for place in where:
    for path in [place] if place.is_file() else folders.files(place, pattern):
      if path.match(pattern) and path.is_file():
        found.setdefault(path.resolve(), path)
  return list(found.values())


def read(
  path: Path, needed: Sequence[str], findings: list[Finding]
) -> list[tuple[int, dict[str, str]]]:
  """The rows of a table, as (line, {column: cell}).

  Columns may be in any order, with others between them; how names are capitalised does not matter.
  Delimiters are commas, semicolons or tabs. A byte order mark and CRLF are read over.

  Args:
    path: the file.
    needed: the columns that it must have.
    findings: gets what is wrong. A table without a needed column gives no rows.
  """

  def found(line: int, text: str) -> None:
    findings.append(Finding('row', str(path), line, text))

  try:
    text = path.read_bytes().decode('utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    found(0, f'is not a table: {error}')
    return []
  first = text.partition('\n')[0].rstrip('\r')
  if not first.strip() or '\0' in text:
    found(1, 'is not a table: its first row is empty, or it is no text')
    return []
  delimiter = max(_DELIMITERS, key=first.count)
  rows, names = [], []
  reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, strict=True)
  try:
    for cells in reader:
      line = reader.line_num
      if not names:
        names = [_name(cell) for cell in cells]
        if wrong := _lacking(names, needed):
          found(line, f'{wrong}; its first row is {first[:_SHOWN]!r}, and must name the columns')
          return []
      elif len(cells) == len(names):
        rows.append((line, {n: cell.strip() for n, cell in zip(names, cells, strict=True)}))
      elif any(cell.strip() for cell in cells):
        found(line, f'has {len(cells)} cells where the first row has {len(names)}')
  except csv.Error as error:
    found(reader.line_num, f'a quoted cell that is not ended or goes wrong ({error})')
  return rows


def _name(cell: str) -> str:
  return cell.strip().lower().replace(' ', '_').replace('-', '_')


def _lacking(names: Sequence[str], needed: Sequence[str]) -> str:
  """What is wrong with the names of columns, or ''."""
  if missing := [name for name in needed if name not in names]:
    return f'there is no column {", ".join(missing)}'
  twice = sorted({name for name in names if name and names.count(name) > 1})
  return f'the columns {", ".join(twice)} are there twice' if twice else ''
