"""Scores without ids: a CSV of numbers alone, its rows in the order of a list, as MM-FAS's are.

Such a file does not identify its samples. Only the number of rows can be checked; the order is
assumed to be that of the list.
"""

from pathlib import Path

import numpy as np

from flexfas_jax import csv_dialect, label_mapping, schema
from flexfas_jax.errors import DataError
from flexfas_jax.evaluation import scales, score_files


def read_list(
  path, dialect: score_files.Dialect = score_files.DEFAULT_DIALECT
) -> score_files.Scores:
  """The samples of a list, in its order; their only scores are empty ones.

  Args:
    path: a CSV with the column `label`, an `id` (the first column, where none is called so), and
      any metadata of a score file.
    dialect: what labels mean.

  Raises:
    DataError: with file and row, for anything that is not such a list.
  """
  path = Path(path)
  layout, lines, rows = _rows(path)
  if 'label' not in layout.names:
    raise DataError(f'{path}, row {layout.line}: no column label in {list(layout.names)}')
  column = dict(zip(layout.names, zip(*rows, strict=True), strict=True))
  meaning, label = label_mapping.LabelMapping(dialect.labels), []
  for line, cell in zip(lines, column['label'], strict=True):
    try:
      label.append(schema.LABELS.index(meaning.label(cell)))
    except KeyError:
      raise DataError(f'{path}, row {line}: {meaning.unknown(cell)}') from None
  ids = column.get('id') or column[next(filter(None, layout.names))]
  for line, id_ in zip(lines, ids, strict=True):
    if not id_:
      raise DataError(f'{path}, row {line}: the id is empty')
  if len(set(ids)) < len(ids):
    raise DataError(f'{path}: every id must stand once')
  return score_files.Scores(
    ids,
    label,
    {'score': np.full(len(label), np.nan)},
    **{name: column[name] for name in schema.METADATA if name in column},
    path=path,
  )


def read(
  path, samples: score_files.Scores, dialect: score_files.Dialect = score_files.DEFAULT_DIALECT
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
  layout, lines, rows = _rows(path)
  if len(rows) != samples.ids.size:
    raise DataError(
      f'{path} has {len(rows)} rows of scores and {samples.path} {samples.ids.size} samples: '
      'without ids they must be the same, in the same order'
    )
  if bad := {'id', 'label'} & set(layout.names):
    raise DataError(f'{path} has the columns {sorted(bad)}: read it without a list of labels')
  scores, faults = {}, {}
  for name, cells in zip(layout.names, zip(*rows, strict=True), strict=True):
    if not name:
      continue
    try:
      scores[name], nan = csv_dialect.parse_numbers(cells, layout.delimiter, {})
    except csv_dialect.CellError as error:
      raise DataError(
        f'{path}, row {lines[error.at]}: {name} is {cells[error.at]!r}, {error}; every column must '
        'hold scores'
      ) from None
    if nan.any():
      faults[name] = np.flatnonzero(nan)
  header = score_files.read_header(score_files.header_path(path))
  scale, turn = score_files.scale_of(path, header, dialect)
  scores = {name: scales.orient(score, turn) for name, score in scores.items()}
  parts = {'scores': scores, 'header': header, 'path': path, 'scale': scale, 'nan_samples': faults}
  try:
    found = score_files.Scores(
      samples.ids,
      samples.label,
      **parts,
      **{name: getattr(samples, name) for name in schema.METADATA},
    )
  except ValueError as error:
    raise DataError(f'{path}: {error}') from error
  if dialect.scale:
    score_files.require_scale(found, f'--scale={dialect.scale}')
  return found


def _rows(path: Path) -> tuple[csv_dialect.Layout, list[int], list[list[str]]]:
  """(how the file is written, the line of every row, its cells)."""
  layout = csv_dialect.sniff(path, {'id', 'label', *schema.METADATA})
  lines, rows = [], []
  for line, cells in csv_dialect.read_records(path, layout):
    lines.append(line)
    rows.append(cells)
  if not rows:
    raise DataError(f'{path} is empty: it names its columns and has no samples')
  return layout, lines, rows
