"""Protocol lists and manifests, in every form that they are handed out in, as rows.

Four forms are known by themselves:

    rgb depth ir label        FlexModal, the CASIA-SURF challenge: spaces or tabs, no header
    rgb depth ir              the same, of a phase whose labels were kept back
    rgb label                 the later CASIA-SURF release; 0 is live there: labels must be mapped
    rgb,depth,ir,label        a header: comma, semicolon, tab or spaces; columns in any order

A header may name any of `COLUMNS`; a column of pictures may be missing or have empty cells, and
what else it names is kept in `Row.extra`. Byte order marks, CRLF, a last line that is not ended,
quoted cells and any script in paths are read as they are meant.

`read` is for builders and raises at the first bad row; `scan` is for lint and goes on.
"""

import collections
import csv
import hashlib
import io
import itertools
import operator
import posixpath
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from flexfas_jax import csv_dialect, label_mapping
from flexfas_jax.errors import DataError
from flexfas_jax.protocols import path_layouts
from flexfas_jax.schema import MODALITIES

# What a header can name beside its pictures; each is otherwise read from the path, or ''.
_SHARED = ('dataset', 'subject', 'video', 'split', 'attack_type', 'attack_category', 'ethnicity')
COLUMNS = (*MODALITIES, 'label', 'id', 'frame', *_SHARED)

_KNOWN = (*COLUMNS, *(f'{modality}_sha256' for modality in MODALITIES), 'device')
_ALIASES = {'color': 'rgb', 'colour': 'rgb', 'infrared': 'ir'}
_SNIFFED = 20  # lines by which a list without a header tells its form
_SHOWN = 100  # characters of a bad row that are quoted

Found = Callable[[str, int, str], None]  # rule, line, text


class Row(NamedTuple):
  """One row of a list; '' is what neither a column nor the path says."""

  list: str  # the file, or wherever the row is from
  line: int  # of the file, counted from 1
  paths: dict[str, str]  # by modality, below the root; what is absent is left out
  label: str  # 'bona_fide', 'attack', or ''
  id: str  # of the triplet: 'casia_surf/CLKJ_AS0005/04_en_b/101'
  dataset: str
  subject: str  # among all data sets: 'casia_surf/CLKJ_AS0005'
  video: str  # among all data sets: 'casia_surf/CLKJ_AS0005/04_en_b'
  frame: str  # as written: '0012'
  split: str  # 'train', 'val', 'test', or as written
  attack_type: str
  attack_category: str
  ethnicity: str
  extra: Mapping[str, str]  # the other columns
  said: path_layouts.Said | None  # what the first of the paths says

  def facts(self) -> dict:
    """The fields of an example (`data/triplets.py`) but its images."""
    facts = {name: getattr(self, name) for name in ('id', 'label', *_SHARED) if name != 'split'}
    return facts | {'frame': int(_last_number(self.frame) or 0)}


class Form(NamedTuple):
  """How a list is written."""

  names: tuple[str, ...]  # of its columns, ours where they have another name there
  delimiter: str  # ' ' is any run of spaces and tabs
  header: int  # the rows above the first sample: the names, and perhaps a line sep=;
  crlf: int  # the first line that ends so; 0: none does
  bom: bool
  ended: bool  # whether the last line is
  sha256: str

  def __str__(self) -> str:
    return {' ': ' ', '\t': '<tab>'}.get(self.delimiter, self.delimiter).join(self.names)


_SPLITS = {
  **dict.fromkeys(('train', 'training'), 'train'),
  **dict.fromkeys(('val', 'dev', 'valid', 'validation', 'devel', 'development'), 'val'),
  **dict.fromkeys(('test', 'testing', 'eval', 'evaluation'), 'test'),
}


def split_of(path: str | Path) -> str:
  """The split that a list's file name speaks of: 'train', 'val', 'test', or '' for none or two."""
  words = re.split(r'[^a-z]+', Path(path).stem.lower())
  found = {_SPLITS[word] for word in words if word in _SPLITS}
  return found.pop() if len(found) == 1 else ''


def split_name(word: str) -> str:
  """A split as this project calls it: 'dev' is 'val'; other words stay as they are."""
  return _SPLITS.get(word.lower(), word)


def look(path: str | Path) -> Form:
  """How a list is written.

  Raises:
    DataError: no such file, a folder, an empty file, something that is not text, no known form.
  """
  path = Path(path)
  csv_dialect.check_regular(path)
  try:
    with path.open('rb') as file:
      facts = _bytes(path, file)
    with _open(path) as file:
      lines = (line.strip(' \t\r\n') for line in itertools.islice(file, 10 * _SNIFFED))
      first = list(itertools.islice(filter(None, lines), _SNIFFED))
  except OSError as error:
    raise DataError(f'{path} cannot be read: {error.strerror}') from error
  if not first:
    raise DataError(f'{path} is empty: it has no rows')
  separator = csv_dialect.separator(path, first[0])
  if separator:
    first = first[1:] or ['']
  if form := _header(path, first[0], separator):
    return Form(*form, 1 + bool(separator), *facts)
  if separator or (first[0][0] == '#' and len(first) > 1 and _header(path, first[1])):
    raise DataError(f'{path}, row 1: {first[0][:_SHOWN]!r} does not name the columns; remove it')
  return Form(*_no_header(path, first), 0, *facts)


def read(
  path: str | Path, labels: Mapping[str, str] | None = None, *, dataset: str = ''
) -> Iterator[Row]:
  """The rows of a list, one at a time; the first bad one ends it.

  Args:
    path: the list.
    labels: {value: 'bona_fide' or 'attack'}, see `label_mapping`; None: 1 is bona fide.
    dataset: of rows whose columns and paths do not say it.

  Raises:
    DataError: with file and row, for a list that cannot be read, a row that is not of its form, a
      label without a meaning, a path that leaves the root.
  """
  return scan(path, labels, _refuse(path), dataset=dataset)


def read_ids(path: str | Path) -> set[str]:
  """The ids of a list's triplets, whatever its labels; of a list with a column id, those.

  Raises:
    DataError: as `read`, but for labels.
  """
  form, refuse = look(path), _refuse(path)
  if 'id' in form.names:
    at = form.names.index('id')
    return {cells[at] for _, cells in _cells(path, form, refuse)}

  def found(rule: str, line: int, text: str) -> None:
    if rule != 'label':
      refuse(rule, line, text)

  return {row.id for row in scan(path, None, found, form=form)}


def _refuse(path) -> Found:
  def found(rule: str, line: int, text: str) -> None:
    raise DataError(f'{path}, row {line}: {text}' if line else f'{path}: {text}')

  return found


def scan(
  path: str | Path,
  labels: Mapping[str, str] | None,
  found: Found,
  *,
  dataset: str = '',
  form: Form | None = None,
  only: Collection[int] | None = None,
) -> Iterator[Row]:
  """The rows of a list, one at a time; what is wrong is told, and reading goes on.

  Args:
    path, labels, dataset: as in `read`.
    found: called with (rule, line, text) for every fault. Rows that are not of the form are left
      out; those with a label that is not known come with ''.
    form: of the list, where it has been looked at before.
    only: lines; other rows are left out, at little cost.

  Raises:
    DataError: a list that cannot be read at all.
  """
  form = form or look(path)
  make = _Maker(str(path), form, labels, dataset, found)
  n = 0
  for line, cells in _cells(path, form, found):
    if (only is None or line in only) and (row := make(line, cells)):
      n += 1
      yield row
  if not n and only is None:
    found('row', 0, 'has no row that could be read')


_FRAME = re.compile(r'(?!-)\D*\d+')  # of video frames, 'Frame_0012' too


class _Maker:
  """Makes rows of cells."""

  def __init__(self, path: str, form: Form, labels, dataset: str, found: Found):
    at = {name: i for i, name in enumerate(form.names)}
    self._path, self._dataset, self._found = path, dataset, found
    self._pictures = [(m, at[m]) for m in MODALITIES if m in at]
    if not self._pictures:
      raise DataError(f'{path}, row 1: no column of pictures ({", ".join(MODALITIES)})')
    self._label = at.get('label')
    # A cell is appended to every row for the columns that are not there.
    self._shared = operator.itemgetter(*(at.get(name, -1) for name in _SHARED))
    self._id, self._frame = at.get('id', -1), at.get('frame', -1)
    self._attack_type = at.get('attack_type', -1)
    self._attack_category = at.get('attack_category', -1)
    self._extra = [(name, i) for name, i in at.items() if name not in COLUMNS]
    self._split = split_of(path)
    self._labels = label_mapping.Meaning(labels)
    if not form.header and len(form.names) == 2 and labels is None:
      self._label = None
      found(
        'label',
        0,
        'a list of paths and labels alone does not say what its labels mean (0 is live in the '
        'later CASIA-SURF release); give --labels=0=bona_fide,1=attack, or the other way round',
      )
    self._last, self._who = None, None

  def __call__(self, line: int, cells: list[str]) -> Row | None:
    paths = {}
    for modality, i in self._pictures:
      if path := cells[i]:
        # What nearly no path has, looked for at the cost of nearly nothing.
        if path[0] in './' or '/.' in path or '//' in path or ':' in path or '\\' in path:
          path = clean(path)
          if leaves_root(path):
            self._found('outside-root', line, f'{modality} {path} is not below the root')
        paths[modality] = path
    if not paths:
      self._found('row', line, 'names no picture')
      return None
    label = ''
    if self._label is not None:
      try:
        label = self._labels[cells[self._label]]
      except KeyError:
        self._found('label', line, self._labels.unknown(cells[self._label]))
    said = path_layouts.read(first := next(iter(paths.values())))
    cells.append('')
    if (
      not said and not cells[self._attack_type] and (text := path_layouts.unknown_instrument(first))
    ):
      self._found('label', line, text)
    kind = cells[self._attack_type] or cells[self._attack_category]
    if kind and label == 'bona_fide':
      self._found('label', line, f'is bona fide, and its attack {kind!r}; leave that empty')
    if (frame := cells[self._frame]) and not _FRAME.fullmatch(frame):
      self._found('row', line, f'frame {frame!r} is not a number from 0')
    # Rows of a video follow each other, as a rule.
    said_of = said and (said.dataset, said.subject, said.video)
    if self._last != (last := (self._shared(cells), said_of, label)):
      self._last, self._who = last, _who(last[0], said, label, self._split, self._dataset)
    extra = {name: cells[i] for name, i in self._extra} if self._extra else {}
    return _row(self._path, line, paths, label, cells[self._id], frame, self._who, extra, said)


def row_of(
  paths: Mapping[str, str], label: str = '', *, list: str = '', line: int = 0, **columns: str
) -> Row:
  """A row that stands in no list: what `columns` say, completed by what the paths say.

  Args:
    paths: by modality, below the root.
    label: 'bona_fide', 'attack' or ''.
    list, line: where it is from, for findings.
    columns: any of `COLUMNS` that a list may have.
  """
  id_, frame, *shared = (columns.pop(name, '') for name in ('id', 'frame', *_SHARED))
  if columns:
    raise ValueError(f'no such columns: {sorted(columns)}')
  said = path_layouts.read(next(iter(paths.values())))
  who = _who(shared, said, label, '', '')
  return _row(list, line, dict(paths), label, id_, frame, who, {}, said)


def _who(
  given: Sequence[str], said: path_layouts.Said | None, label: str, split: str, dataset: str
):
  """What the rows of a video share: its values of `_SHARED`.

  Args:
    given: the cells of `_SHARED`, '' being nothing.
    said: what the path says.
    label: of the row.
    split, dataset: for want of anything better.
  """
  own_dataset, subject, video, own_split, *kind = map(str.strip, given)
  dataset = own_dataset or (said.dataset if said else dataset)
  subject = subject or (said.subject if said else '')
  subject = subject and _below(dataset, subject)
  if video:
    video = _below(subject or dataset, video)
  elif said:
    video = said.video_id
  if said:
    species = label != 'bona_fide' and said.label == 'attack'
    by_path = (said.attack_type, said.attack_category) if species else ('', '')
    kind = [k or p for k, p in zip(kind, (*by_path, said.ethnicity), strict=True)]
  return dataset, subject, video, split_name(own_split) or split, *kind


def _row(list_, line, paths, label, id_, frame, who, extra, said) -> Row:
  dataset, subject, video, split, attack_type, attack_category, ethnicity = who
  frame = frame or (said.frame if said else '')
  if not id_:
    id_ = f'{video}/{frame}' if video and frame else _below(dataset, _rest(paths))
  if not frame:
    frame = _last_number(_rest(paths))
  return Row(
    list_, line, paths, label, id_, dataset, subject, video, frame, split,
    attack_type, attack_category, ethnicity, extra, said,
  )  # fmt: skip


def _last_number(text: str) -> str:
  number = re.search(r'\d+$', text)
  return number.group() if number else ''


def _rest(paths: Mapping[str, str]) -> str:
  return path_layouts.without_modality(next(iter(paths.values())))


def _below(above: str, name: str) -> str:
  return name if not above or name.startswith(above + '/') else f'{above}/{name}'


def digests(extra: Mapping[str, str]) -> dict[str, str]:
  """The SHA-256 digests among the further cells of a row (`Row.extra`), by modality."""
  found = {modality: extra.get(f'{modality}_sha256', '') for modality in MODALITIES}
  return {modality: text for modality, text in found.items() if text}


def wrong_digests(extra: Mapping[str, str]) -> list[str]:
  """What is wrong with the cells that `digests` returns."""
  return [
    f'{modality}_sha256 is {text[:70]!r}, not 64 hexadecimal digits'
    for modality, text in digests(extra).items()
    if not re.fullmatch('[0-9a-fA-F]{64}', text)
  ]


def clean(path: str) -> str:
  """A path with forward slashes, without '.', and without '..' that goes back on itself."""
  if '\\' in path:
    path = path.replace('\\', '/')
  if ('//' in path or './' in path or '/.' in path) and '://' not in path:
    path = posixpath.normpath(path)
  return path


def leaves_root(path: str) -> bool:
  """Whether a cleaned path is absolute, or goes above where it starts."""
  return path.startswith(('/', '../')) or path == '..' or bool(_DRIVE.match(path))


_DRIVE = re.compile(r'[A-Za-z]:|\w+://')  # or a bucket, a host


def _bytes(path: Path, file) -> tuple[int, bool, bool, str]:
  """What is known of a list before it is text: (crlf, bom, ended, sha256)."""
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
      joined = last + block  # the two bytes may be parted
      if (at := joined.find(b'\r\n')) >= 0:
        crlf = lines + joined.count(b'\n', 0, at) + 1
    lines += block.count(b'\n')
    last = block[-1:]
  return crlf, start[:3] == b'\xef\xbb\xbf', last == b'\n', digest.hexdigest()


def _open(path) -> io.TextIOWrapper:
  # Bytes that are not UTF-8 become surrogates, so that the row that has them can be told.
  return open(path, encoding='utf-8-sig', errors='surrogateescape', newline='')


def _header(path: Path, first: str, separator: str = '') -> tuple[tuple[str, ...], str] | None:
  """The columns that a first line names and its delimiter, or None."""
  for delimiter in separator or (*csv_dialect.DELIMITERS, ' '):
    try:
      quoted = csv.reader([first], delimiter=delimiter, skipinitialspace=True)
      cells = first.split() if delimiter == ' ' else next(quoted)
    except csv.Error as error:  # a cell of more than 131,072 characters
      raise DataError(f'{path}, row 1: not a CSV ({error})') from error
    names = [cell.strip().lower() for cell in cells]
    names = tuple(_ALIASES.get(name, name) for name in names)
    if set(names) & {*MODALITIES, 'id'}:
      while not names[-1]:  # a delimiter behind the last name
        names = names[:-1]
      csv_dialect.check_names(path, 1, names, _KNOWN)
      return names, delimiter
  return None


def _no_header(path: Path, first: list[str]) -> tuple[tuple[str, ...], str]:
  """The columns of a list without a header, by its first lines, and ' '."""
  counts = collections.Counter(len(_fields(line)) for line in first)
  width = max(counts, key=lambda n: (counts[n], n))
  names = {4: (*MODALITIES, 'label'), 3: MODALITIES, 2: ('rgb', 'label')}.get(width)
  sample = next(line for line in first if len(_fields(line)) == width)
  if width == 3 and not re.search(r'[./\\]', _fields(sample)[-1]):
    names = None  # a label where a path is due
  if not names or (width == 2 and not re.search(r'[./\\]', _fields(sample)[0])):
    raise DataError(
      f'{path}, row 1: no known form of list: {sample[:_SHOWN]!r}. Rows are "rgb depth ir label", '
      '"rgb depth ir" or "rgb label", separated by spaces or tabs; or row 1 names the columns, '
      'e.g. rgb,depth,ir,label'
    )
  return names, ' '


def _fields(text: str) -> list[str]:
  """The fields of a line without a header, whose ends are stripped."""
  if '\t' not in text:
    # Not str.split(): it would part a path at the wide space that Chinese names can have.
    fields = text.split(' ')
    return [field for field in fields if field] if '' in fields else fields
  fields = [field for field in text.replace('\t', ' ').split(' ') if field]
  if len(fields) == 4:
    return fields
  # Where tabs part the fields, spaces belong to the paths.
  return [field.strip(' ') for field in text.split('\t')]


def _cells(path, form: Form, found: Found) -> Iterator[tuple[int, list[str]]]:
  """Yields (line, cells); rows with too few or too many are told and left out."""
  try:
    with _open(path) as file:
      rows = _plain(file) if form.delimiter == ' ' else _quoted(file, form.delimiter, found)
      n = len(form.names)
      for line, cells in itertools.islice(rows, form.header, None):
        if len(cells) > n and not any(map(str.strip, cells[n:])):
          cells = cells[:n]  # a delimiter behind the last cell
        if len(cells) != n:
          said = form.delimiter.join(cells)
          shown = f'{said[:_SHOWN]}...' if len(said) > _SHOWN else said
          found('row', line, f'has {len(cells)} fields where {form} has {n}: {shown!r}')
        elif not (text := ''.join(cells)).isascii() and (why := _damage(text)):
          found('row', line, f'{why}: {form.delimiter.join(cells)[:_SHOWN]!r}')
        elif ' ' in text or '\t' in text:
          yield line, [cell.strip(' \t') for cell in cells]
        else:
          yield line, cells
  except OSError as error:
    raise DataError(f'{path} cannot be read: {error.strerror}') from error


def _damage(text: str) -> str:
  if any('\udc80' <= character <= '\udcff' for character in text):
    return 'is not UTF-8'
  # Where lists are put behind each other; as a part of a name it is seen nowhere.
  return 'has a byte order mark within' if '\ufeff' in text else ''


def _plain(file) -> Iterator[tuple[int, list[str]]]:
  for line, text in enumerate(file, 1):
    if text := text.strip(' \t\r\n'):
      yield line, _fields(text)


def _quoted(file, delimiter: str, found: Found) -> Iterator[tuple[int, list[str]]]:
  reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
  line = 1  # where a row starts: a quoted cell may have several lines
  while True:
    try:
      for cells in reader:
        if any(map(str.strip, cells)):
          yield line, cells
        line = reader.line_num + 1
      return
    except csv.Error as error:
      until = f' to {reader.line_num}' if reader.line_num > line else ''
      found('row', line, f'lines {line}{until} have a quoted cell that is not ended ({error})')
      line = reader.line_num + 1
