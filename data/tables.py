"""Tables of data sets: CSV whose columns are found by their names.

They describe videos or samples: a split, a label. `flexfas_jax/protocols/lists.py` reads lists of
images.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from flexfas_jax import csv_dialect
from flexfas_jax.data import folders
from flexfas_jax.errors import DataError
from flexfas_jax.protocols.findings import Finding

_SHOWN = 200  # characters of a first row that are quoted


def places(lists: str | os.PathLike | None, source: Path) -> list[Path]:
  """The places of tables: those of --lists (comma-separated), or else the source.

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
    for path in [place] if place.is_file() else folders.find_files(place, pattern):
      if path.match(pattern) and path.is_file():
        found.setdefault(path.resolve(), path)
  return list(found.values())


def read(
  path: Path, needed: Sequence[str], findings: list[Finding]
) -> list[tuple[int, dict[str, str]]]:
  """The rows of a table, as (line, {column: cell}).

  Columns may be in any order, with others between them; how names are capitalised does not matter,
  nor whether blanks, dashes or underscores are in them. See `csv_dialect` for how tables may be
  written.

  Args:
    path: the file.
    needed: the columns that it must have.
    findings: gets what is wrong. A table without a needed column gives no rows.
  """
  rows = []

  def found(line: int, text: str) -> None:
    findings.append(Finding('row', str(path), line, text))

  try:
    layout = csv_dialect.sniff(path, needed)
    names = [_name(name) for name in layout.names]
    csv_dialect.check_names(path, layout.line, names)
    if missing := [name for name in needed if name not in names]:
      first = layout.delimiter.join(layout.names)[:_SHOWN]
      text = f'there is no column {", ".join(missing)}; its first row is {first!r}'
      found(layout.line, f'{text}, and must name the columns')
      return []
    for line, cells in csv_dialect.scan(path, layout, found):
      rows.append((line, dict(zip(names, cells, strict=True))))
  except DataError as error:
    text = str(error).removeprefix(str(path))
    line, text = re.fullmatch(r'(?:, row (\d+):?)?(.*)', text, re.DOTALL).groups()
    found(int(line or 0), f'is not a table: {text.strip()}')
  return rows


def _name(cell: str) -> str:
  return cell.strip().lower().replace(' ', '_').replace('-', '_')
