"""Rows of protocol lists and manifests, completed from their paths.

Each row names the files of one triplet. Dataset, subject, video, split and attack come from its
columns, or else from the path if `path_layouts` knows its layout. `list_format` describes the
formats. Other columns are kept in `ListRow.extra`.

`read` raises at the first fault, for builders; `scan` reports faults and continues, for lint.
"""

import operator
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from flexfas_jax import label_mapping
from flexfas_jax.errors import DataError
from flexfas_jax.protocols import list_format, path_layouts, relative_paths
from flexfas_jax.protocols.list_format import COLUMNS, SHARED_COLUMNS, ListFormat, ReportFault
from flexfas_jax.schema import MODALITIES

DEFAULT_SPLIT = 'whole'  # of rows that name none; TFDS uses "all" for all splits together


class ListRow(NamedTuple):
  """One row of a list; '' where neither a column nor the path gives a value."""

  list: str  # the file or folder that the row is from
  line: int  # of the file, counted from 1
  paths: dict[str, str]  # by modality, relative to the root; absent modalities are omitted
  label: str  # 'bona_fide', 'attack', or ''
  id: str  # of the triplet: 'casia_surf/CLKJ_AS0005/04_en_b/101'
  dataset: str
  subject: str  # unique among all data sets: 'casia_surf/CLKJ_AS0005'
  video: str  # unique among all data sets: 'casia_surf/CLKJ_AS0005/04_en_b'
  frame: str  # as written: '0012'
  split: str  # 'train', 'val', 'test', or as written
  attack_type: str
  attack_category: str
  ethnicity: str
  extra: Mapping[str, str]  # the other columns
  parsed_path: path_layouts.ParsedPath | None  # of the first path; None for an unknown layout

  def example_fields(self) -> dict:
    """The fields of an example (`data/triplets.py`) without its images."""
    names = ('id', 'label', *SHARED_COLUMNS)
    fields = {name: getattr(self, name) for name in names if name != 'split'}
    return fields | {'frame': int(_last_number(self.frame) or 0)}


_SPLITS = {
  **dict.fromkeys(('train', 'training'), 'train'),
  **dict.fromkeys(('val', 'dev', 'valid', 'validation', 'devel', 'development'), 'val'),
  **dict.fromkeys(('test', 'testing', 'eval', 'evaluation'), 'test'),
}


def split_of(path: str | Path) -> str:
  """The split that a list's file name contains: 'train', 'val', 'test', or '' for none or two."""
  words = re.split(r'[^a-z]+', Path(path).stem.lower())
  splits = {_SPLITS[word] for word in words if word in _SPLITS}
  return splits.pop() if len(splits) == 1 else ''


def split_name(word: str) -> str:
  """The name of a split in this project: 'dev' is 'val'; other words are unchanged."""
  return _SPLITS.get(word.lower(), word)


def describe_without_split(n: int, total: int) -> str:
  """The message about n rows of a list without a split, of all its rows."""
  return f'{n:,} of {total:,} rows have no split, and are in the split {DEFAULT_SPLIT}'


def read(
  path: str | Path, labels: Mapping[str, str] | None = None, *, dataset: str = ''
) -> Iterator[ListRow]:
  """Yields the rows of a list; raises at the first fault.

  Args:
    path: the list.
    labels: {value: 'bona_fide' or 'attack'}, see `label_mapping`; None: 1 is bona fide.
    dataset: of rows whose columns and paths name none.

  Raises:
    DataError: with file and row: an unreadable list, a malformed row, an unknown label, a path
      that leaves the root.
  """
  return scan(path, labels, _raise_fault(path), dataset=dataset)


def read_ids(path: str | Path) -> set[str]:
  """The ids of a list's triplets: its column id, or those that its paths give. Labels are ignored.

  Raises:
    DataError: as `read`, except for labels.
  """
  form, raise_fault = list_format.detect(path), _raise_fault(path)
  if 'id' in form.names:
    at = form.names.index('id')
    return {cells[at] for _, cells in list_format.read_cells(path, form, raise_fault)}

  def report(rule: str, line: int, text: str) -> None:
    if rule != 'label':
      raise_fault(rule, line, text)

  return {row.id for row in scan(path, None, report, form=form)}


def _raise_fault(path) -> ReportFault:
  def report(rule: str, line: int, text: str) -> None:
    raise DataError(f'{path}, row {line}: {text}' if line else f'{path}: {text}')

  return report


def scan(
  path: str | Path,
  labels: Mapping[str, str] | None,
  report: ReportFault,
  *,
  dataset: str = '',
  form: ListFormat | None = None,
  only: Collection[int] | None = None,
) -> Iterator[ListRow]:
  """Yields the rows of a list; faults are reported, and reading continues.

  Args:
    path, labels, dataset: as of `read`.
    report: called for every fault. Malformed rows are omitted; rows with an unknown label have the
      label ''.
    form: the list's format, if it has been detected before.
    only: the lines to read; other rows are skipped at little cost.

  Raises:
    DataError: the list cannot be read at all.
  """
  form = form or list_format.detect(path)
  make = _RowMaker(str(path), form, labels, dataset, report)
  n = 0
  for line, cells in list_format.read_cells(path, form, report):
    if (only is None or line in only) and (row := make(line, cells)):
      n += 1
      yield row
  if not n and only is None:
    report('row', 0, 'has no row that could be read')


_FRAME = re.compile(r'(?!-)\D*\d+')  # '0012', 'Frame_0012'


class _RowMaker:
  """Makes rows of cells."""

  def __init__(self, path: str, form: ListFormat, labels, dataset: str, report: ReportFault):
    at = {name: i for i, name in enumerate(form.names)}
    self._path, self._dataset, self._report = path, dataset, report
    self._images = [(m, at[m]) for m in MODALITIES if m in at]
    if not self._images:
      raise DataError(f'{path}, row 1: no column of images ({", ".join(MODALITIES)})')
    self._label = at.get('label')
    # An empty cell is appended to every row: -1 is the place of the columns that are missing.
    self._shared = operator.itemgetter(*(at.get(name, -1) for name in SHARED_COLUMNS))
    self._id, self._frame = at.get('id', -1), at.get('frame', -1)
    self._attack_type = at.get('attack_type', -1)
    self._attack_category = at.get('attack_category', -1)
    self._extra = [(name, i) for name, i in at.items() if name not in COLUMNS]
    self._split = split_of(path)
    self._labels = label_mapping.LabelMapping(labels)
    if not form.header and len(form.names) == 2 and labels is None:
      self._label = None
      report(
        'label',
        0,
        'a list of paths and labels does not define its labels (0 is live in the later CASIA-SURF '
        'release); give --labels=0=bona_fide,1=attack or --labels=1=bona_fide,0=attack',
      )
    self._last_key, self._last_values = None, None

  def __call__(self, line: int, cells: list[str]) -> ListRow | None:
    paths = {}
    for modality, i in self._images:
      if path := cells[i]:
        # A cheap test first: nearly no path has any of these.
        if path[0] in './' or '/.' in path or '//' in path or ':' in path or '\\' in path:
          path = relative_paths.normalize(path)
          if relative_paths.leaves_root(path):
            self._report('outside-root', line, f'{modality} {path} is not below the root')
        paths[modality] = path
    if not paths:
      self._report('row', line, 'names no image')
      return None
    label = ''
    if self._label is not None:
      try:
        label = self._labels.label(cells[self._label])
      except KeyError:
        self._report('label', line, self._labels.unknown(cells[self._label]))
    first = next(iter(paths.values()))
    parsed = path_layouts.parse(first)
    cells.append('')
    without_instrument = not parsed and not cells[self._attack_type]
    if without_instrument and (text := path_layouts.find_unknown_instrument(first)):
      self._report('label', line, text)
    attack = cells[self._attack_type] or cells[self._attack_category]
    if attack and label == 'bona_fide':
      self._report('label', line, f'is bona fide, and its attack {attack!r}; leave that empty')
    kinds = cells[self._attack_type], cells[self._attack_category]
    if label == 'attack' and (kind := next(filter(label_mapping.means_bona_fide, kinds), '')):
      self._report('label', line, f'is an attack, and its kind {kind!r}; name the attack')
    if (frame := cells[self._frame]) and not _FRAME.fullmatch(frame):
      self._report('row', line, f'frame {frame!r} is not a number from 0')
    # Rows of one video usually follow each other: values are computed once.
    video = parsed and (parsed.dataset, parsed.subject, parsed.video)
    key = self._shared(cells), video, label
    if self._last_key != key:
      self._last_key = key
      self._last_values = _shared_values(key[0], parsed, label, self._split, self._dataset)
    extra = {name: cells[i] for name, i in self._extra} if self._extra else {}
    return _row(
      self._path, line, paths, label, cells[self._id], frame, self._last_values, extra, parsed
    )


def make_row(
  paths: Mapping[str, str], label: str = '', *, list: str = '', line: int = 0, **columns: str
) -> ListRow:
  """Makes a row without a list: values from `columns`, completed by the paths.

  Args:
    paths: by modality, relative to the root.
    label: 'bona_fide', 'attack' or ''.
    list, line: where the row is from, for findings.
    columns: any of `COLUMNS` except modalities and label.
  """
  id_, frame, *shared = (columns.pop(name, '') for name in ('id', 'frame', *SHARED_COLUMNS))
  if columns:
    raise ValueError(f'no such columns: {sorted(columns)}')
  parsed = path_layouts.parse(next(iter(paths.values())))
  values = _shared_values(shared, parsed, label, '', '')
  return _row(list, line, dict(paths), label, id_, frame, values, {}, parsed)


def _shared_values(
  cells: Sequence[str],
  parsed: path_layouts.ParsedPath | None,
  label: str,
  default_split: str,
  default_dataset: str,
) -> tuple[str, ...]:
  """The values of `SHARED_COLUMNS`: from the cells, else from the path, else the defaults.

  Args:
    cells: of `SHARED_COLUMNS`, '' for none.
    parsed: the first path.
    label: of the row.
  """
  dataset, subject, video, split, *attack_and_ethnicity = map(str.strip, cells)
  dataset = dataset or (parsed.dataset if parsed else default_dataset)
  subject = subject or (parsed.subject if parsed else '')
  subject = subject and _prefix(dataset, subject)
  if video:
    video = _prefix(subject or dataset, video)
  elif parsed:
    video = parsed.video_id
  if parsed:
    by_path = ['', '', parsed.ethnicity]
    if label != 'bona_fide' and parsed.label == 'attack':
      by_path[:2] = parsed.attack_type, parsed.attack_category
    attack_and_ethnicity = [
      cell or value for cell, value in zip(attack_and_ethnicity, by_path, strict=True)
    ]
  return dataset, subject, video, split_name(split) or default_split, *attack_and_ethnicity


def _row(list_, line, paths, label, id_, frame, shared_values, extra, parsed) -> ListRow:
  dataset, subject, video, split, attack_type, attack_category, ethnicity = shared_values
  frame = frame or (parsed.frame if parsed else '')
  if not id_:
    id_ = f'{video}/{frame}' if video and frame else _prefix(dataset, _common_name(paths))
  if not frame:
    frame = _last_number(_common_name(paths))
  return ListRow(
    list_, line, paths, label, id_, dataset, subject, video, frame, split,
    attack_type, attack_category, ethnicity, extra, parsed,
  )  # fmt: skip


def _last_number(text: str) -> str:
  number = re.search(r'\d+$', text)
  return number.group() if number else ''


def _common_name(paths: Mapping[str, str]) -> str:
  return path_layouts.without_modality(next(iter(paths.values())))


def _prefix(prefix: str, name: str) -> str:
  """`prefix`/`name`, unless the name has the prefix."""
  return name if not prefix or name.startswith(prefix + '/') else f'{prefix}/{name}'


def digests(extra: Mapping[str, str]) -> dict[str, str]:
  """The SHA-256 digests in `ListRow.extra`, by modality."""
  cells = {modality: extra.get(f'{modality}_sha256', '') for modality in MODALITIES}
  return {modality: text for modality, text in cells.items() if text}


def invalid_digests(extra: Mapping[str, str]) -> list[str]:
  """A message for each of `digests` that is no SHA-256."""
  return [
    f'{modality}_sha256 is {text[:70]!r}, not 64 hexadecimal digits'
    for modality, text in digests(extra).items()
    if not re.fullmatch('[0-9a-fA-F]{64}', text)
  ]
