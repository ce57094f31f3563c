"""How a protocol list is written (columns, delimiter, header), and its rows as cells of text.

Four formats are detected:

    rgb depth ir label        FlexModal, the CASIA-SURF challenge: spaces or tabs, no header
    rgb depth ir              the same without labels, as in test phases of the challenge
    rgb label                 the later CASIA-SURF release, where 0 is live: requires --labels
    rgb,depth,ir,label        a header: comma, semicolon, tab or spaces; columns in any order

A header may name any of `COLUMNS`, in any order, and other columns. Byte order marks, CRLF, a
missing newline at the end, quoted cells and paths in any script are accepted.
"""

import collections
import csv
import difflib
import hashlib
import io
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from flexfas_jax import csv_dialect
from flexfas_jax.errors import DataError
from flexfas_jax.schema import ALIASES, MODALITIES

# Columns with values that the rows of a video share; a missing one is taken from the path, or ''.
SHARED_COLUMNS = (
  *('dataset', 'subject', 'video', 'split', 'attack_type', 'attack_category', 'ethnicity'),
)
COLUMNS = (*MODALITIES, 'label', 'id', 'frame', *SHARED_COLUMNS)

_KNOWN = (*COLUMNS, *(f'{modality}_sha256' for modality in MODALITIES), 'device')
_PUBLISHED = ('rgb', 'depth', 'ir')  # columns of published lists without a header
_MIN_SIMILARITY = 0.75  # of a misspelt column to a known one, by `difflib`
_N_SAMPLE_LINES = 20  # lines that decide the format of a list without a header
_MAX_QUOTED = 100  # characters of a bad row in a message

ReportFault = Callable[[str, int, str], None]  # called with (rule, line, text)


class ListFormat(NamedTuple):
  """How a list is written."""

  names: tuple[str, ...]  # of its columns, aliases such as color replaced
  delimiter: str  # ' ' is any run of spaces and tabs
  header: int  # number of rows above the first sample: the names, and perhaps a line sep=;
  crlf: int  # the first line that ends in CRLF, counted from 1; 0: none
  bom: bool
  final_newline: bool
  sha256: str

  def __str__(self) -> str:
    return {' ': ' ', '\t': '<tab>'}.get(self.delimiter, self.delimiter).join(self.names)


def detect(path: str | Path) -> ListFormat:
  """Detects how a list is written.

  Raises:
    DataError: no such file, a folder, an empty file, binary data, or an unknown format.
  """
  path = Path(path)
  csv_dialect.check_regular(path)
  try:
    with path.open('rb') as file:
      properties = _scan_bytes(path, file)
    with _open(path) as file:
      lines = (line.strip(' \t\r\n') for line in itertools.islice(file, 10 * _N_SAMPLE_LINES))
      sample = list(itertools.islice(filter(None, lines), _N_SAMPLE_LINES))
  except OSError as error:
    raise DataError(f'{path} cannot be read: {error.strerror}') from error
  if not sample:
    raise DataError(f'{path} is empty: it has no rows')
  separator = csv_dialect.declared_delimiter(path, sample[0])
  if separator:
    sample = sample[1:] or ['']
  if header := _parse_header(path, sample[0], separator):
    return ListFormat(*header, 1 + bool(separator), *properties)
  if separator or (sample[0][0] == '#' and len(sample) > 1 and _parse_header(path, sample[1])):
    raise DataError(
      f'{path}, row 1: {sample[0][:_MAX_QUOTED]!r} does not name the columns; remove it'
    )
  return ListFormat(*_detect_without_header(path, sample), 0, *properties)


def describe_misspelt(form: ListFormat) -> list[str]:
  """A message for each column that resembles a known column which the list does not have."""
  missing = [name for name in _KNOWN if name not in form.names]
  messages = []
  for name in form.names if form.header else ():
    if name not in _KNOWN:
      for known in difflib.get_close_matches(name, missing, n=1, cutoff=_MIN_SIMILARITY):
        messages.append(f'the column {name} is not used; is it {known}?')
  return messages


def read_cells(
  path: str | Path, form: ListFormat, report: ReportFault
) -> Iterator[tuple[int, list[str]]]:
  """Yields (line, cells) of every row; rows with too few or too many cells are reported instead.

  Args:
    path: the list.
    form: its format.
    report: called for every fault.
  """
  try:
    with _open(path) as file:
      if form.delimiter == ' ':
        rows = _split_lines(file)
      else:
        rows = _parse_csv(file, form.delimiter, report)
      n = len(form.names)
      for line, cells in itertools.islice(rows, form.header, None):
        if len(cells) > n and not any(map(str.strip, cells[n:])):
          cells = cells[:n]  # a delimiter behind the last cell
        if len(cells) != n:
          text = form.delimiter.join(cells)
          quoted = f'{text[:_MAX_QUOTED]}...' if len(text) > _MAX_QUOTED else text
          report('row', line, f'has {len(cells)} fields where {form} has {n}: {quoted!r}')
        elif not (text := ''.join(cells)).isascii() and (fault := _find_damage(text)):
          report('row', line, f'{fault}: {form.delimiter.join(cells)[:_MAX_QUOTED]!r}')
        elif ' ' in text or '\t' in text:
          yield line, [cell.strip(' \t') for cell in cells]
        else:
          yield line, cells
  except OSError as error:
    raise DataError(f'{path} cannot be read: {error.strerror}') from error


def _scan_bytes(path: Path, file) -> tuple[int, bool, bool, str]:
  """The properties `crlf`, `bom`, `final_newline` and `sha256` of a list."""
  start = file.read(4)
  if start[:2] in (b'\xff\xfe', b'\xfe\xff'):
    raise DataError(f'{path} is UTF-16: save it as UTF-8')
  file.seek(0)
  digest, crlf, lines, last = hashlib.sha256(), 0, 0, b''
  while block := file.read(1 << 20):
    if b'\0' in block:
      raise DataError(f'{path} is not a list: it is not text')
    digest.update(block)
    if not crlf:
      joined = last + block  # the two bytes may be in two blocks
      if (at := joined.find(b'\r\n')) >= 0:
        crlf = lines + joined.count(b'\n', 0, at) + 1
    lines += block.count(b'\n')
    last = block[-1:]
  return crlf, start[:3] == b'\xef\xbb\xbf', last == b'\n', digest.hexdigest()


def _open(path) -> io.TextIOWrapper:
  # Bytes that are not UTF-8 become surrogates, so that a message can name their row.
  return open(path, encoding='utf-8-sig', errors='surrogateescape', newline='')


def _parse_header(
  path: Path, first: str, separator: str = ''
) -> tuple[tuple[str, ...], str] | None:
  """The columns that a first line names and its delimiter, or None if it is no header."""
  for delimiter in separator or (*csv_dialect.DELIMITERS, ' '):
    try:
      quoted = csv.reader([first], delimiter=delimiter, skipinitialspace=True)
      cells = first.split() if delimiter == ' ' else next(quoted)
    except csv.Error as error:  # a cell of more than 131,072 characters
      raise DataError(f'{path}, row 1: not a CSV ({error})') from error
    names = [cell.strip().lower() for cell in cells]
    names = tuple(ALIASES.get(name, name) for name in names)
    if set(names) & {*MODALITIES, 'id'}:
      while not names[-1]:  # a delimiter behind the last name
        names = names[:-1]
      csv_dialect.check_names(path, 1, names, _KNOWN)
      return names, delimiter
  return None


def _detect_without_header(path: Path, sample: list[str]) -> tuple[tuple[str, ...], str]:
  """The columns of a list without a header, by its first lines, and the delimiter ' '."""
  counts = collections.Counter(len(_split_line(line)) for line in sample)
  width = max(counts, key=lambda n: (counts[n], n))
  names = {4: (*_PUBLISHED, 'label'), 3: _PUBLISHED, 2: ('rgb', 'label')}.get(width)
  line = next(line for line in sample if len(_split_line(line)) == width)
  if width == 3 and not re.search(r'[./\\]', _split_line(line)[-1]):
    names = None  # a label in place of a path
  if not names or (width == 2 and not re.search(r'[./\\]', _split_line(line)[0])):
    raise DataError(
      f'{path}, row 1: unknown list format: {line[:_MAX_QUOTED]!r}. Rows are '
      '"rgb depth ir label", "rgb depth ir" or "rgb label", separated by spaces or tabs; or row 1 '
      'names the columns, e.g. rgb,depth,ir,label'
    )
  return names, ' '


def _split_line(text: str) -> list[str]:
  """The fields of a stripped line of a list without commas or semicolons."""
  if '\t' not in text:
    # Not str.split(): it would split a path at the wide space that Chinese names can have.
    fields = text.split(' ')
    return [field for field in fields if field] if '' in fields else fields
  fields = [field for field in text.replace('\t', ' ').split(' ') if field]
  if len(fields) == 4:
    return fields
  # Where tabs separate the fields, spaces belong to the paths.
  return [field.strip(' ') for field in text.split('\t')]


def _find_damage(text: str) -> str:
  if any('\udc80' <= character <= '\udcff' for character in text):
    return 'is not UTF-8'
  # From concatenated lists; invisible as part of a name.
  return 'has a byte order mark within' if '\ufeff' in text else ''


def _split_lines(file) -> Iterator[tuple[int, list[str]]]:
  for line, text in enumerate(file, 1):
    if text := text.strip(' \t\r\n'):
      yield line, _split_line(text)


def _parse_csv(file, delimiter: str, report: ReportFault) -> Iterator[tuple[int, list[str]]]:
  def report_malformed(first: int, last: int, error: csv.Error) -> None:
    lines = f'{first} to {last}' if last > first else first
    report('row', first, f'lines {lines} have a quoted cell that is not ended ({error})')

  reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
  return csv_dialect.read_well_formed(reader, report_malformed)
