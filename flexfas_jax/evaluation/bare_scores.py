"""Scores without ids: a CSV of numbers alone, its rows in the order of a list, as MM-FAS's are.

Nothing in such a file says which sample a row is of. Only the number of rows can be checked, and
whoever reads one takes the order on trust.
"""

import csv
from pathlib import Path

import numpy as np

from flexfas_jax import schema
from flexfas_jax.errors import DataError
from flexfas_jax.evaluation import score_files


def read_list(path, dialect: score_files.Dialect = score_files.OURS) -> score_files.Scores:
  """The samples of a list, in its order; their only scores are empty ones.

  Args:
    path: a CSV with the column `label`, an `id` (the first column, where none is called so), and
      any metadata of a score file.
    dialect: what labels mean.

  Raises:
    DataError: with file and row, for anything that is not such a list.
  """
  path = Path(path)
  names, rows = _rows(path)
  if 'label' not in names:
    raise DataError(f'{path}, row 1: no column label in {names}')
  column = dict(zip(names, zip(*rows, strict=True), strict=True))
  label = []
  for i, cell in enumerate(column['label']):
    number = score_files.number_of(cell, dialect)
    if number is None:
      raise DataError(f'{path}, row {i + 2}: label {cell!r} is neither bona_fide or 1, nor attack '
                      'or 0; what else the labels mean has to be told (--labels)')  # fmt: skip
    label.append(number)
  ids = np.array(column.get('id') or column[names[0]])
  if len(set(ids.tolist())) < ids.size:
    raise DataError(f'{path}: every id must stand once')
  return score_files.Scores(
    ids,
    label,
    {'score': np.full(len(label), np.nan)},
    **{name: column[name] for name in schema.METADATA if name in column},
    path=path,
  )


def read(
  path, samples: score_files.Scores, dialect: score_files.Dialect = score_files.OURS
) -> score_files.Scores:
  """The scores of a list's samples, in its order.

  Args:
    path: a CSV whose first row names its columns, all of which are scores; an empty cell is a
      failure to acquire.
    samples: from `read_list`.
    dialect: what high scores mean.

  Raises:
    DataError: with file and row, for anything else; another number of rows than samples.
  """
  path = Path(path)
  names, rows = _rows(path)
  if len(rows) != samples.ids.size:
    raise DataError(
      f'{path} has {len(rows)} rows of scores and {samples.path} {samples.ids.size} samples: '
      'without ids they must be the same, in the same order'
    )
  scores, faults = {}, {}
  for name, cells in zip(names, zip(*rows, strict=True), strict=True):
    try:
      scores[name] = np.array([float(cell or 'nan') for cell in cells])
    except ValueError as error:
      raise DataError(f'{path}, {name}: {error}; every column must hold scores') from error
    nan = [i for i in np.flatnonzero(np.isnan(scores[name])) if cells[i] != '']
    faults |= {name: nan} if nan else {}
  if bad := {'id', 'label'} & set(names):
    raise DataError(f'{path} has the columns {sorted(bad)}: read it without a list of labels')
  if dialect.high_is_attack:
    scores = {name: 1 - score for name, score in scores.items()}
  header = score_files.read_header(score_files.header_path(path))
  parts = {'scores': scores, 'header': header, 'path': path, 'nan_samples': faults}
  try:
    return score_files.Scores(
      samples.ids,
      samples.label,
      **parts,
      **{name: getattr(samples, name) for name in schema.METADATA},
    )
  except ValueError as error:
    raise DataError(f'{path}: {error}') from error


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
  """(names, rows), every row as long as the first."""
  try:
    with path.open(encoding='utf-8-sig', newline='') as file:
      reader = csv.reader(file, strict=True)
      names, rows = next(reader, []), []
      for row in filter(None, reader):
        if len(row) != len(names):
          raise DataError(
            f'{path}, row {reader.line_num}: {len(row)} cells where row 1 has {len(names)}'
          )
        rows.append(row)
  except (UnicodeDecodeError, csv.Error) as error:
    raise DataError(f'{path} is not a CSV: {error}') from error
  except OSError as error:
    raise DataError(f'{path} cannot be read: {error.strerror}') from error
  if not rows:
    raise DataError(f'{path} is empty: it names its columns and has no samples')
  if len(set(names)) < len(names):
    raise DataError(f'{path}, row 1: a column is there twice in {names}')
  return names, rows
