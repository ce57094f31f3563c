"""CSV as spreadsheets and scripts write it: one reader for score files, lists, manifests, tables.

What is read: cells separated by commas, semicolons or tabs, also by a first line `sep=;`; a
byte order mark, CRLF, empty lines and rows of empty cells; a delimiter behind the last cell; names
of columns in capitals or with blanks around them; a first column without a name (row numbers that
pandas writes). Numbers may have a decimal comma where commas do not separate cells, and a percent
sign. Whatever could mean two things is refused, with the row and the reason.
"""

import contextlib
import csv
import io
import itertools
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO

import numpy as np

from flexfas_jax import plain_csv
from flexfas_jax.errors import DataError

DELIMITERS = (',', ';', '\t')
ROWS_AT_ONCE = 2048  # few enough to stay in the cache while rows are turned to columns
_BLOCK = 1 << 20  # bytes of plain rows
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_SHOWN = 60  # characters of a line that an error quotes
_DIGITS_ONLY = re.compile('[0-9.eE+-]*')  # what plain numbers, joined, are made of
_NUMBER = re.compile(
  r'([+-]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+))(?:([eE][+-]?[0-9]+)|(\s?%))?', re.ASCII
)
# Ways to write a number that exclude each other within a column, and how an error calls them.
_STYLES = {
  'point': 'a decimal point',
  'comma': 'a decimal comma',
  'percent': 'a percent sign',
  'plain': 'no percent sign',
}
_CONFLICTS = (('point', 'comma'), ('percent', 'plain'))


class Layout(NamedTuple):
  """How a file is written."""

  names: tuple[str, ...]  # of its columns; '' for one without a name
  delimiter: str  # of `DELIMITERS`
  line: int  # of the names, counted from 1
  padded: bool  # cells have blanks around them, as the names have


class CellError(ValueError):
  """A cell that is no number: `at` is its place in the column, the text is the reason."""

  def __init__(self, at: int, why: str):
    super().__init__(why)
    self.at = at


def check_regular(path: Path) -> None:
  """Refuses devices and pipes: text is read more than once, and a pipe would wait for a writer.

  Raises:
    DataError: such a file, or one that cannot be read.
  """
  try:
    mode = os.stat(path).st_mode
  except OSError as error:
    raise DataError(f'{path} cannot be read: {error.strerror}') from error
  if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
    raise DataError(f'{path} is not a regular file')


def check_text(path: Path) -> None:
  """Refuses what is no text in UTF-8 by its first bytes, and what is not a regular file.

  Raises:
    DataError: such a file, or one that cannot be read.
  """
  check_regular(path)
  try:
    with open(path, 'rb') as file:
      start = file.read(2)
      if start in (b'\xff\xfe', b'\xfe\xff'):
        raise DataError(f'{path} is UTF-16: save it as UTF-8')
      file.seek(0)
      while block := file.read(1 << 20):
        if b'\0' in block:
          raise DataError(f'{path} has NUL bytes: it is not text in UTF-8')
  except OSError as error:
    raise DataError(f'{path} cannot be read: {error.strerror}') from error


def sniff(path: str | os.PathLike, known: Collection[str] = ()) -> Layout:
  """Finds out how a file is written, by the row that names its columns.

  Args:
    path: the file.
    known: names that columns may have, in lower case; they are recognised in capitals too.

  Raises:
    DataError: a file that cannot be read or is not text in UTF-8, a comment before the names, two
      columns of one name.
  """
  path = Path(path)
  check_text(path)
  with _opened(path) as file:
    lines = ((n, text.strip()) for n, text in enumerate(file, 1))
    line, first = next(((n, text) for n, text in lines if text), (0, ''))
    delimiters = DELIMITERS
    if found := declared_delimiter(path, first, line):
      delimiters = (found,)
      line, first = next(((n, text) for n, text in lines if text), (0, ''))
  if not first:
    raise DataError(f'{path} is empty: its first row must name the columns')
  candidates, fault = [], None
  for delimiter in delimiters:
    try:
      candidates.append((*_names(path, line, delimiter), delimiter))
    except csv.Error as error:
      fault = error
  if not candidates:
    raise DataError(f'{path}, row {line}: not a CSV ({fault})')
  names, end, padded, delimiter = max(candidates, key=lambda c: (_n_known(c[0], known), len(c[0])))
  if first.startswith('#') and not _n_known(names, known):
    raise DataError(
      f'{path}, row {line} is a comment: {first[:_SHOWN]!r}; remove it, the first row must name '
      'the columns'
    )
  names = tuple(name.casefold() if name.casefold() in known else name for name in names)
  while len(names) > 1 and not names[-1]:  # a delimiter behind the last name
    names = names[:-1]
  check_names(path, line, names, known)
  return Layout(names, delimiter, end, padded)


def declared_delimiter(path, first: str, line: int = 1) -> str:
  """The delimiter that a first line `sep=;` declares, '' where it is no such line."""
  if not (found := _SEPARATOR_LINE.fullmatch(first)):
    return ''
  if found[1] not in DELIMITERS:
    raise DataError(
      f'{path}, row {line}: {first!r}; cells must be separated by commas, semicolons or tabs'
    )
  return found[1]


def check_names(path, line: int, names: Sequence[str], known: Collection[str] = ()) -> None:
  """Raises DataError where two columns have one name, or one has invisible characters in its name.

  Or letters of another script: `subject` with a Cyrillic e would leave the column `subject` of
  `known` unread.
  """
  invisible = (n for n in names if any(not (c.isprintable() or c.isspace()) for c in n))
  if odd := next(invisible, ''):
    raise DataError(
      f'{path}, row {line}: {odd!r} names a column, with a character that cannot be seen: a byte '
      'order mark that is there twice? Write the name again'
    )
  for name in names:
    if alike := _look_alike(name, known):
      code = next(f'U+{ord(letter):04X}' for letter in name if not letter.isascii())
      raise DataError(
        f'{path}, row {line}: the column {name!r} looks like {alike}, and has the letter {code}; '
        'write it in ASCII'
      )
  if twice := sorted({name for name in names if name and names.count(name) > 1}):
    raise DataError(f'{path}, row {line}: the columns {", ".join(twice)} are there twice')


def _look_alike(name: str, known: Collection[str]) -> str:
  """The known name that differs from a name in letters that are not ASCII, or ''."""
  if name.isascii() or name in known or 2 * sum(map(str.isascii, name)) < len(name):
    return ''
  pattern = re.compile(re.sub('[^a-z0-9_]', '.', name.casefold()))
  return next(filter(pattern.fullmatch, sorted(known)), '')


def read_batches(path: str | os.PathLike, layout: Layout) -> Iterator[list[list[str]]]:
  """Yields the rows below the names, some at a time, each of as many cells as there are names.

  Raises:
    DataError: with file and row, for a row of another number of cells, or what is no CSV.
  """
  path = Path(path)
  with _opened(path) as file:
    yield from _read_batches(path, layout, _below_names(file, layout))


def read_parts(
  path: str | os.PathLike, layout: Layout
) -> Iterator[plain_csv.Cells | list[list[str]]]:
  """As `read_batches`, and several times as fast where rows are plain: those are `Cells`."""
  path, n_rows, n_lines = Path(path), 0, 0
  with _reading(path), path.open('rb') as file:
    names = b''.join(file.readline() for _ in range(layout.line))
    if layout.padded or _has_lone_return(names):
      yield from read_batches(path, layout)
      return
    while block := file.read(_BLOCK) + file.readline():
      if cells := plain_csv.find_cells(block, layout.delimiter, len(layout.names)):
        yield cells
        n_rows, n_lines = n_rows + len(cells), n_lines + len(cells)
        continue
      others: BinaryIO = io.BytesIO(block)
      if b'"' in block or _has_lone_return(block):  # its end may be inside a row
        file.seek(-len(block), os.SEEK_CUR)
        others = file
      text = io.TextIOWrapper(others, 'utf-8', newline='')
      for rows in _read_batches(path, layout, text, n_rows, n_lines):
        yield rows
        n_rows += len(rows)
      n_lines += block.count(b'\n')


def _has_lone_return(lines: bytes) -> bool:
  return b'\r' in lines and b'\r' in lines.replace(b'\r\n', b'\n')


def _read_batches(
  path: Path, layout: Layout, file: TextIO, n_rows: int = 0, n_lines: int = 0
) -> Iterator[list[list[str]]]:
  """Yields the rows of a text behind `n_rows` rows in `n_lines` lines below the names."""
  reader, n = _reader(file, layout), len(layout.names)
  while True:
    try:
      rows = list(itertools.islice(reader, ROWS_AT_ONCE))
    except csv.Error as error:
      at = layout.line + n_lines + reader.line_num
      raise DataError(f'{path}, row {at}: not a CSV ({error})') from error
    if not rows:
      return
    rows = list(filter(any, rows))
    if set(map(len, rows)) - {n}:
      rows = [_fitted(path, layout, n_rows + i, row) for i, row in enumerate(rows)]
    n_rows += len(rows)
    yield [[cell.strip() for cell in row] for row in rows] if layout.padded else rows


def read_records(path: str | os.PathLike, layout: Layout) -> Iterator[tuple[int, list[str]]]:
  """Yields (line, cells) for every row below the names; errors as of `read_batches`."""
  lines = _lines(Path(path), layout)
  for rows in read_batches(path, layout):
    yield from zip(itertools.islice(lines, len(rows)), rows, strict=True)


def scan(
  path: str | os.PathLike, layout: Layout, found: Callable[[int, str], None]
) -> Iterator[tuple[int, list[str]]]:
  """As `read_records`, but reports every row that is wrong and continues behind it.

  Args:
    path: the file.
    layout: of it.
    found: called with (line, what is wrong).

  Raises:
    DataError: a file that cannot be read, or is not text in UTF-8.
  """

  def report(first: int, last: int, error: csv.Error) -> None:
    found(layout.line + last, f'a quoted cell that is not ended or malformed ({error})')

  with _opened(Path(path)) as file:
    reader = _reader(_below_names(file, layout), layout)
    for _, row in read_well_formed(reader, report):
      line = layout.line + reader.line_num
      if text := _misfit(layout, row):
        found(line, text)
      else:
        yield line, [cell.strip() for cell in row[: len(layout.names)]]


def read_well_formed(
  reader, report: Callable[[int, int, csv.Error], None]
) -> Iterator[tuple[int, list[str]]]:
  """Yields (first line, cells) of every row that is not blank; continues behind malformed rows.

  Args:
    reader: a `csv.reader`; its lines are counted from 1.
    report: called with (first line, last line, error) of a malformed row.
  """
  line = 1
  while True:
    try:
      for cells in reader:
        if any(map(str.strip, cells)):
          yield line, cells
        line = reader.line_num + 1
      return
    except csv.Error as error:
      report(line, reader.line_num, error)
      line = reader.line_num + 1


def line_number(path: str | os.PathLike, layout: Layout, row: int) -> int:
  """The line of a file that a row ends on, counted as `read_batches` yields rows, from 0.

  The file is read again: only an error pays for it.
  """
  return next(itertools.islice(_lines(Path(path), layout), row, None))


def parse_numbers(
  cells: Sequence[str], delimiter: str, styles: dict[str, int], start: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """A column's cells, or some of them, as numbers.

  Args:
    cells: [n] text. An empty one has no number; 'nan' is a number that went wrong.
    delimiter: of the file; where it is a comma, no number has one.
    styles: how the column's numbers are written, by the first row that is written so; pass the
      same dict for all parts of a column.
    start: the row of the first cell.

  Returns:
    [n] float64, NaN for none; and [n] bool, where the text is nan.

  Raises:
    CellError: a cell that is no finite number, or is written unlike those before it.
  """
  joined = ''.join(cells)
  if _DIGITS_ONLY.fullmatch(joined):
    try:
      values = np.array([float(cell or 'nan') for cell in cells], np.float64)
    except ValueError:
      values = None  # the loop below names the cell
    if values is not None and not np.isinf(values).any():
      for i in np.flatnonzero(values == 0).tolist():
        _check_underflow(cells, i)
      if joined and 'plain' not in styles:
        _note('plain', next(i for i, cell in enumerate(cells) if cell), start, styles)
      if '.' in joined and 'point' not in styles:
        _note('point', next(i for i, cell in enumerate(cells) if '.' in cell), start, styles)
      return values, np.zeros(values.size, bool)
  values = np.full(len(cells), np.nan)
  nan = np.zeros(len(cells), bool)
  for i, cell in enumerate(cells):
    if not cell:
      continue
    text = cell.strip()
    if text.casefold() == 'nan':
      nan[i] = True
      continue
    values[i] = _number(text, i, delimiter, styles, start)
    if values[i] == 0:
      _check_underflow(cells, i)
  return values, nan


def plain_numbers(
  cells: plain_csv.Cells, column: int, styles: dict[str, int], start: int
) -> np.ndarray | None:
  """What `parse_numbers` returns for a column of `Cells`, or None if it might find a fault there.

  Args:
    cells: of plain rows.
    column: its place.
    styles, start: as in `parse_numbers`.

  Returns:
    [R] float64, NaN for an empty cell.
  """
  if styles.keys() - {'plain', 'point'}:
    return None
  values, is_decimal = cells.decimals(column)
  others = np.flatnonzero(~is_decimal)  # [n]
  texts = cells.column(column)[others].astype(np.str_).tolist() if others.size else []
  found = {}
  try:
    numbers, is_nan = parse_numbers(texts, '', found)
  except CellError:
    return None
  if is_nan.any() or found.keys() - {'plain', 'point'}:
    return None
  values[others] = numbers
  for style in ('plain', 'point'):
    first = [int(np.argmax(is_decimal))] if is_decimal.any() else []
    first += [int(others[found[style]])] if style in found else []
    if first and style not in styles:
      styles[style] = start + min(first)
  return values


def _number(text: str, i: int, delimiter: str, styles: dict[str, int], start: int) -> float:
  if not text:
    raise CellError(i, 'blank')
  if not (found := _NUMBER.fullmatch(text)):
    raise CellError(i, 'not a number such as 0.5')
  digits, exponent, percent = found.groups('')
  if ',' in digits:
    if delimiter == ',':
      raise CellError(i, 'a decimal comma, where commas separate the cells: write 0.5, or separate '
                      'the cells by semicolons')  # fmt: skip
    _note('comma', i, start, styles)
  elif '.' in digits:
    _note('point', i, start, styles)
  _note('percent' if percent else 'plain', i, start, styles)
  value = float(digits.replace(',', '.') + ('e-2' if percent else exponent))  # rounded once
  if np.isinf(value):
    raise CellError(i, 'not a finite number')
  return value


def _note(style: str, i: int, start: int, styles: dict[str, int]) -> None:
  """Remembers that cell `i` is written so; raises where another one excludes it."""
  if style in styles:
    return
  styles[style] = start + i
  for pair in _CONFLICTS:
    if set(pair) <= styles.keys():
      other = pair[pair[0] == style]
      why = f'with {_STYLES[style]}, where others of this column have {_STYLES[other]}'
      raise CellError(i, why)


def _check_underflow(cells: Sequence[str], i: int) -> None:
  if re.search('[1-9]', re.split('[eE]', cells[i])[0]):
    raise CellError(i, 'too close to 0 for a 64-bit number')


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
  with _reading(path), path.open(encoding='utf-8-sig', newline='') as file:
    yield file


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
  try:
    yield
  except UnicodeDecodeError as error:
    raise DataError(f'{path} is not a CSV: it is not UTF-8 text ({error.reason})') from error
  except OSError as error:
    raise DataError(f'{path} cannot be read: {error.strerror}') from error


def _names(path: Path, line: int, delimiter: str) -> tuple[list[str], int, bool]:
  """(names without blanks around them, the line they end on, whether there were blanks).

  Raises:
    csv.Error: a quoted name that goes wrong under this delimiter.
  """
  found = []
  for skip in (True, False):  # a quoted name may stand behind a blank
    with _opened(path) as file:
      for _ in range(line - 1):
        file.readline()
      reader = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=skip)
      found.append(next(reader))
  names = [name.strip() for name in found[0]]
  return names, line - 1 + reader.line_num, names != found[1]


def _n_known(names: Sequence[str], known: Collection[str]) -> int:
  return sum(name.casefold() in known for name in names)


def _below_names(file: TextIO, layout: Layout) -> TextIO:
  """The same file, behind the row of the names."""
  for _ in range(layout.line):
    file.readline()
  return file


def _reader(file: TextIO, layout: Layout):
  """A CSV reader of rows."""
  return csv.reader(file, delimiter=layout.delimiter, strict=True, skipinitialspace=layout.padded)


def _fitted(path: Path, layout: Layout, i: int, row: list[str]) -> list[str]:
  """A row without the empty cells that spreadsheets append."""
  if text := _misfit(layout, row):
    raise DataError(f'{path}, row {line_number(path, layout, i)}: {text}')
  return row[: len(layout.names)]


def _misfit(layout: Layout, row: list[str]) -> str:
  """How a row differs in its number of cells; '' where only empty ones are appended."""
  n = len(layout.names)
  wrong = len(row) < n or any(row[n:])
  return f'{len(row)} cells where row {layout.line} has {n}' if wrong else ''


def _lines(path: Path, layout: Layout) -> Iterator[int]:
  """Yields the line on which every row ends, of those that `read_batches` yields."""
  with _opened(path) as file:
    reader = _reader(_below_names(file, layout), layout)
    for row in reader:
      if any(row):
        yield layout.line + reader.line_num
