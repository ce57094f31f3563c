"""A list as numbers: hashes of its paths and names, 64 bits each, are all that is kept of a row.

What is wrong with rows by themselves is told as they are read. Only the rows that something else is
said about are read again for their text. Two of three million names have the same hash with a
probability of 2e-7.
"""

import array
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from flexfas_jax import identity, schema
from flexfas_jax.errors import ConfigError
from flexfas_jax.images import formats as image_formats
from flexfas_jax.protocols import list_format, lists, path_layouts
from flexfas_jax.protocols.findings import Finding
from flexfas_jax.protocols.lint.path_consistency import PathConsistency
from flexfas_jax.protocols.lint.report import Report, Summary

_MAX_SPLITS = 62  # each is a bit of an int64
_NUMBER = {'': -1} | {label: number for number, label in enumerate(schema.LABELS)}
# What rows are compared by; of the hashes, 0 is not known. `same` is the triplet's identity,
# wherever a list may have its root; an id that a column gives is only good for its own list.
COLUMNS = (
  'line',
  'label',
  'split',
  'same',
  'triplet',
  'id',
  'video',
  'folder',
  'subject',
  'resembling',
  'dataset',
  'device',
  *schema.MODALITIES,
)


class Codes(dict):
  """Numbers of the splits, in the order in which they are met; 0 is not known."""

  def __init__(self):
    super().__init__({'': 0})

  def __missing__(self, split: str) -> int:
    if len(self) > _MAX_SPLITS:
      raise ConfigError(f'more than {_MAX_SPLITS} splits: is the column split something else?')
    self[split] = len(self)
    return self[split]


class Index:
  """The rows of one list as numbers, and how to get at the rows themselves."""

  def __init__(
    self,
    fetch: Callable[[Sequence[int]], Iterable[tuple[int, lists.Row]]],
    list_of: Callable[[int], str],
  ):
    self.fetch, self.list_of = fetch, list_of  # positions -> (position, row); position -> list
    self.datasets = set()
    self.texts = {0: ''}  # of data sets and devices, by their hashes
    self._flat = array.array('q')  # row after row, all its numbers

  def add(self, row: lists.Row, split: int) -> None:
    paths, said, subject = row.paths, row.parsed_path, row.subject
    files = [hash(identity.path(paths.get(m, ''))) for m in schema.MODALITIES]
    id_, video, subject = identity.canonical((row.id, row.video, subject))
    triplet = hash(tuple(files))
    device = row.extra.get('device') or (path_layouts.device_of(said) if said else '')
    for text in (row.dataset, device):
      self.texts.setdefault(hash(text), text)
    self._flat.extend(
      (
        row.line,
        _NUMBER[row.label],
        split,
        hash(said.id) if said else triplet,
        triplet,
        hash(id_),
        # A layout that does not tell subjects does not tell videos either: its folder is a phase.
        hash(video) if subject or not said else 0,
        # What the id has above a video whose subject is unknown.
        hash(identity.folder_of(id_, row.dataset, video)) if video and not subject else 0,
        hash(subject),
        hash(identity.resembling(subject)),
        hash(row.dataset),
        hash(device),
        *files,
      )
    )
    self.datasets.add(row.dataset)

  def __len__(self) -> int:
    return len(self._flat) // len(COLUMNS)

  def __getattr__(self, name: str) -> np.ndarray:
    """A column, [rows] int64."""
    if name not in COLUMNS:
      raise AttributeError(name)
    flat = np.frombuffer(self._flat, np.int64).reshape(-1, len(COLUMNS))
    return flat[:, COLUMNS.index(name)].copy()


def read(
  path: str, labels: Mapping[str, str] | None, split: str, codes: Codes, report: Report
) -> tuple[Index, Summary]:
  """Reads one list; what can be seen row by row is added to the report."""
  form = list_format.detect(path)

  def fetch(positions: Sequence[int]) -> Iterator[tuple[int, lists.Row]]:
    line = index.line
    at = {int(line[i]): i for i in positions}
    ignore = lambda rule, line, text: None  # noqa: E731 - was told at the first reading
    rows = lists.scan(path, labels, ignore, form=form, only=at.keys())
    return ((at[row.line], row) for row in rows)

  index, refused = Index(fetch, lambda position: path), []

  def found(rule: str, line: int, text: str) -> None:
    (refused if rule == 'label' and line else report.findings).append(
      Finding(rule, path, line, text)
    )

  if form.crlf:
    found('line-endings', form.crlf, 'lines end in CRLF')
  if form.bom:
    found('line-endings', 1, 'starts with a byte order mark')
  if not form.final_newline:
    found('no-last-newline', 0, 'the last line is not ended')

  agree, contradictory, guessed = PathConsistency(), array.array('q'), array.array('q')
  n_comparable = n_alike = 0
  for position, row in enumerate(lists.scan(path, labels, found, form=form)):
    index.add(row, codes[split or row.split])
    problems, alike = agree(row)
    for rule, text in problems:
      report.add(rule, row, text)
    for modality, name in row.paths.items() if report.root is None else ():
      if text := image_formats.describe_name(name):  # with a root, the bytes say what it is
        report.add('unreadable', row, f'{modality} is {text}: {name}')
    if alike is not None:
      n_alike += alike
      if not alike:
        guessed.append(position)
    if row.parsed_path and row.parsed_path.label and row.label:
      n_comparable += 1
      if row.parsed_path.label != row.label:
        contradictory.append(position)

  n, without = len(index), np.flatnonzero(index.split == 0)
  if 0 < len(without) < n:
    text = f'{len(without):,} of {n:,} rows have no split, and are not compared for leaks'
    found('no-split', int(index.line[without[0]]), text)
  if len(refused) == n > 1:  # a matter of the list, not of its rows
    for text, some in itertools.groupby(sorted(refused, key=lambda f: f.text), lambda f: f.text):
      first, *others = some
      report.findings.append(first._replace(text=f'{text} (and {len(others):,} more rows)'))
  else:
    report.findings += refused
  if len(contradictory) == n_comparable > 1:
    report.findings.append(
      Finding(
        'label',
        path,
        0,
        f'polarity: the label contradicts the path in all {n_comparable:,} rows whose path tells; '
        'if 0 is bona fide here, give --labels=0=bona_fide,1=attack',
      )
    )
  else:
    for _, row in fetch(contradictory) if contradictory else ():
      text = f'label is {row.label}, and the path says {row.parsed_path.label}: {first_path(row)}'
      report.add('label', row, text)
  # Names of files whose layout is not known: where nearly all agree, the others are mistakes.
  if guessed and n_alike >= 9 * len(guessed):
    for _, row in fetch(guessed):
      paths = ', '.join(f'{m} {p}' for m, p in row.paths.items())
      report.add('triplet', row, f'differ in more than the modality, unlike most: {paths}')

  return index, _summary(path, form, index, split, codes)


def _summary(
  path: str, form: list_format.ListFormat, index: Index, split: str, codes: Codes
) -> Summary:
  label, names, rows = index.label, list(codes), len(index)
  count = lambda column: len(np.setdiff1d(column, 0))  # noqa: E731
  return Summary(
    list=path,
    form=str(form),
    sha256=form.sha256,
    splits=tuple(names[code] for code in np.unique(index.split) if code),
    rows=rows,
    bona_fide=int((label == 1).sum()),
    attacks=int((label == 0).sum()),
    unlabelled=int((label == -1).sum()),
    redundant=rows - len(np.unique(index.triplet)),
    subjects=count(index.subject),
    videos=count(index.video),
    datasets=tuple(sorted(filter(None, index.datasets))),
  )


def first_path(row: lists.Row) -> str:
  return next(iter(row.paths.values()))
