"""Lists in memory as 64-bit hashes of their paths and names, and checks of single rows.

Millions of rows fit in memory: only hashes are kept. Faults of single rows are reported while a
list is read. Rows with other findings are read again for their text. Among three million names, two
have the same hash with a probability of 2e-7.
"""

import array
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from flexfas_jax import identity, schema
from flexfas_jax.errors import ConfigError
from flexfas_jax.images import formats as image_formats
from flexfas_jax.protocols import list_format, lists, path_layouts, row_checks
from flexfas_jax.protocols.findings import Finding
from flexfas_jax.protocols.lint.path_consistency import PathConsistency
from flexfas_jax.protocols.lint.report import Report, Summary

_MAX_SPLITS = 62  # each is a bit of an int64
_LABEL_CODES = {'': -1} | {label: number for number, label in enumerate(schema.LABELS)}
_MIN_CONSISTENT = 9  # rows with consistent file names for each that is reported as inconsistent
# Columns of a `HashedList`; 0 stands for a name that is not known. `sample` identifies a triplet
# wherever the list's root is; `triplet` is the hash of its three paths; `id` is unique in its list
# only.
COLUMNS = (
  'line',
  'label',
  'split',
  'sample',
  'triplet',
  'id',
  'video',
  'folder',
  'subject',
  'loose_subject',
  'dataset',
  'device',
  *schema.MODALITIES,
)


def _hash(name: str) -> int:
  """A 64-bit hash of a name; 0 for '' alone."""
  return (hash(name) or 1) if name else 0


class SplitCodes:
  """Numbers of splits in the order of their first occurrence; 0 is an unknown split."""

  def __init__(self):
    self._codes = {'': 0}

  def code(self, split: str) -> int:
    """The number of a split.

    Raises:
      ConfigError: too many splits.
    """
    if split not in self._codes:
      if len(self._codes) > _MAX_SPLITS:
        raise ConfigError(f'more than {_MAX_SPLITS} splits: is the column split something else?')
      self._codes[split] = len(self._codes)
    return self._codes[split]

  def names(self) -> list[str]:
    """The splits, at the places of their numbers."""
    return list(self._codes)


class HashedList:
  """The rows of one list as numbers, with functions that get the rows themselves.

  Attributes:
    fetch: reads rows again: sorted positions -> (position, row).
    list_of: position -> name of the list.
    datasets: names of the rows' data sets.
    texts: {hash: text} of data sets and devices.
  """

  def __init__(
    self,
    fetch: Callable[[Sequence[int]], Iterable[tuple[int, lists.ListRow]]],
    list_of: Callable[[int], str],
  ):
    self.fetch, self.list_of = fetch, list_of
    self.datasets = set()
    self.texts = {0: ''}
    self._values = array.array('q')  # row after row, all its numbers

  def add(self, row: lists.ListRow, split: int) -> None:
    """Adds a row.

    Args:
      row: the row.
      split: its number, of `SplitCodes`.
    """
    parsed = row.parsed_path
    files = tuple(_hash(identity.normalize_path(row.paths.get(m, ''))) for m in schema.MODALITIES)
    id_, video, subject = identity.canonical((row.id, row.video, row.subject))
    triplet = hash(files)
    device = row.extra.get('device') or (path_layouts.device_of(parsed) if parsed else '')
    for text in (row.dataset, device):
      self.texts.setdefault(_hash(text), text)
    without_subject = video and not subject
    self._values.extend(
      (
        row.line,
        _LABEL_CODES[row.label],
        split,
        _hash(parsed.id) if parsed else triplet,
        triplet,
        _hash(id_),
        # A known layout without subjects has no videos either: its folder is a phase.
        _hash(video) if subject or not parsed else 0,
        # The part of the id above a video whose subject is unknown.
        _hash(identity.folder_of(id_, row.dataset, video)) if without_subject else 0,
        _hash(subject),
        _hash(identity.similarity_key(subject)),
        _hash(row.dataset),
        _hash(device),
        *files,
      )
    )
    self.datasets.add(row.dataset)

  def __len__(self) -> int:
    return len(self._values) // len(COLUMNS)

  def column(self, name: str) -> np.ndarray:
    """One of `COLUMNS`, [rows] int64."""
    return self.table()[:, COLUMNS.index(name)].copy()

  def table(self) -> np.ndarray:
    """All of `COLUMNS`, [rows, columns] int64; not a copy."""
    return np.frombuffer(self._values, np.int64).reshape(-1, len(COLUMNS))


def join(hashed_lists: Sequence[HashedList]) -> np.ndarray:
  """The rows of all lists, [rows, columns] int64.

  The lists keep no copy: a part of this array replaces their values.
  """
  table = np.empty((sum(map(len, hashed_lists)), len(COLUMNS)), np.int64)
  start = 0
  for hashed in hashed_lists:
    part = table[start : start + len(hashed)]
    part[:] = hashed.table()
    hashed._values = part.ravel()  # a view
    start += len(part)
  return table


def read(
  path: str,
  labels: Mapping[str, str] | None,
  split: str,
  codes: SplitCodes,
  report: Report,
  categories: Mapping[str, str],
) -> tuple[HashedList, Summary]:
  """Reads one list; faults of single rows are added to the report.

  Args:
    path, labels: as of `lists.scan`.
    split: of all rows, '' for the split of each row.
    codes: numbers of splits, which is extended.
    report: gets the findings.
    categories: of attack types, as of `linter.check`.

  Raises:
    ConfigError: too many splits.
    DataError: the list cannot be read at all.
  """
  form = list_format.detect(path)

  def fetch(positions: Sequence[int]) -> Iterator[tuple[int, lists.ListRow]]:
    line = hashed.column('line')
    position_of = {int(line[i]): i for i in positions}

    def ignore(rule: str, line: int, text: str) -> None:
      """Faults were reported when the list was read first."""

    rows = lists.scan(path, labels, ignore, form=form, only=position_of.keys())
    return ((position_of[row.line], row) for row in rows)

  hashed = HashedList(fetch, lambda position: path)
  label_faults = []

  def report_fault(rule: str, line: int, text: str) -> None:
    findings = label_faults if rule == 'label' and line else report.findings
    findings.append(Finding(rule, path, line, text))

  _report_format(form, report_fault)
  # Protocol lists without column names belong to builders that add the kinds of attacks.
  kinds_named = bool({'attack_type', 'attack_category'} & set(form.names))
  consistency, types = PathConsistency(), set()  # attack types that a note is made of
  contradictory, inconsistent = array.array('q'), array.array('q')  # positions
  n_comparable = n_consistent = 0
  for position, row in enumerate(lists.scan(path, labels, report_fault, form=form)):
    hashed.add(row, codes.code(split or row.split))
    problems, consistent = consistency.check(row)
    if form.header:
      problems = [*row_checks.find_problems(row, categories, kinds_named), *problems]
      text = row_checks.type_without_category(row, categories)
      if text and row.attack_type not in types:
        types.add(row.attack_type)
        report.add('no-category', row, text)
    for rule, text in problems:
      report.add(rule, row, text)
    if report.root is None:  # with a root, the bytes show the format
      for modality, name in row.paths.items():
        if text := image_formats.describe_name(name):
          report.add('unreadable', row, f'{modality} is {text}: {name}')
    if consistent:
      n_consistent += 1
    elif consistent is not None:
      inconsistent.append(position)
    if row.parsed_path and row.parsed_path.label and row.label:
      n_comparable += 1
      if row.parsed_path.label != row.label:
        contradictory.append(position)

  report.findings += _merge_label_faults(label_faults, len(hashed))
  if len(contradictory) == n_comparable > 1:
    report_fault(
      'label',
      0,
      f'polarity: the label contradicts the path in all {n_comparable:,} rows whose path names a '
      'label; if 0 is bona fide here, give --labels=0=bona_fide,1=attack',
    )
  elif contradictory:
    for _, row in fetch(contradictory):
      text = f'label is {row.label}, but the path names {row.parsed_path.label}: {first_path(row)}'
      report.add('label', row, text)
  # Names in an unknown layout: if nearly all are consistent, the others are mistakes.
  if inconsistent and n_consistent >= _MIN_CONSISTENT * len(inconsistent):
    for _, row in fetch(inconsistent):
      paths = ', '.join(f'{m} {p}' for m, p in row.paths.items())
      report.add('triplet', row, f'differ in more than the modality, unlike most: {paths}')

  return hashed, _summarize(path, form, hashed, codes)


def _report_format(form: list_format.ListFormat, report_fault: list_format.ReportFault) -> None:
  if form.crlf:
    report_fault('line-endings', form.crlf, 'lines end in CRLF')
  if form.bom:
    report_fault('line-endings', 1, 'starts with a byte order mark')
  if not form.final_newline:
    report_fault('no-last-newline', 0, 'the last line has no newline')
  for text in list_format.describe_misspelt(form):
    report_fault('misspelt-column', form.header, text)


def _merge_label_faults(faults: list[Finding], n_rows: int) -> list[Finding]:
  """One finding for each text if all rows of a list have a label fault."""
  if not len(faults) == n_rows > 1:
    return faults
  merged = []
  for text, group in itertools.groupby(sorted(faults, key=lambda f: f.text), lambda f: f.text):
    first, *others = group
    merged.append(first._replace(text=f'{text} (and {len(others):,} more rows)'))
  return merged


def _summarize(
  path: str, form: list_format.ListFormat, hashed: HashedList, codes: SplitCodes
) -> Summary:
  def count_distinct(column: str) -> int:
    return len(np.setdiff1d(hashed.column(column), 0))

  label, names, n_rows = hashed.column('label'), codes.names(), len(hashed)
  return Summary(
    list=path,
    format=str(form),
    sha256=form.sha256,
    splits=tuple(names[code] for code in np.unique(hashed.column('split')) if code),
    rows=n_rows,
    bona_fide=int((label == 1).sum()),
    attacks=int((label == 0).sum()),
    unlabelled=int((label == -1).sum()),
    redundant=n_rows - len(np.unique(hashed.column('triplet'))),
    subjects=count_distinct('subject'),
    videos=count_distinct('video'),
    datasets=tuple(sorted(filter(None, hashed.datasets))),
  )


def first_path(row: lists.ListRow) -> str:
  return next(iter(row.paths.values()))
