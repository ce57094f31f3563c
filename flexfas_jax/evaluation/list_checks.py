"""What is wrong within protocol lists, between them, and between them and the pictures they name.

`check` is lint: whole lists, nothing left out. `check_rows` is for builders, which have rows.

A row of a long list is kept as numbers alone: hashes of its paths and names, 64 bits each. Only the
rows that something is said about are read again for their text. Two of three million names have the
same hash with a probability of 2e-7.
"""

import array
import collections
import concurrent.futures
import dataclasses
import itertools
import multiprocessing
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import flexfas_jax
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.evaluation import lists, naming
from flexfas_jax.evaluation.findings import RULES, Finding

# Leaks that stand in published lists: (a file, the splits it is in). Figures that are compared with
# a paper's need its lists as they are: these leaks can be accepted, by the name of their set.
KNOWN_LEAKS = {
  'flexmodal_v1': (
    ('CeFA/CeFA-Race/AF/AF-300/1_300_1_1_1/profile/0026.jpg', frozenset({'val', 'test'})),
  ),
}
# Videos whose pictures are known not to go together, and the rules that they may break.
EXCEPTIONS = {
  # WMCA's depth and infrared have other frames than its colour there.
  'wmca_frame_indices': ('wmca/100/100_03_015_2_10', 'wmca/101/101_06_067_1_02'),
}
_EXCEPTED = ('triplet', 'missing-file')

_MAX_SPLITS = 62  # each is a bit of an int64
_INLINE = 64  # triplets that are looked at without starting processes
_AT_ONCE = 16  # triplets that a process is given at a time
# Crops of CASIA-SURF have a shape for each modality; what else is known keeps one shape.
_SIZES = {'casia_surf': 'any'}


class Summary(NamedTuple):
  """What a list has."""

  list: str
  form: str
  sha256: str
  splits: tuple[str, ...]
  rows: int
  bona_fide: int
  attacks: int
  unlabelled: int
  redundant: int  # rows less distinct triplets
  subjects: int
  videos: int
  datasets: tuple[str, ...]


class Relation(NamedTuple):
  """How lists of the same split lie to each other."""

  kind: str  # 'equal', 'part', 'partition' or 'overlap'
  lists: tuple[str, ...]
  of: str
  what: str  # 'rows', 'attacks' or 'bona fide'
  triplets: int

  def __str__(self) -> str:
    names = ', '.join(Path(name).name for name in self.lists)
    of, n = Path(self.of).name, f'{self.triplets:,}'
    return {
      'equal': f'{names} has the triplets of {of}: {n}',
      'part': f'{names} is part of {of}: {n} of its triplets',
      'partition': f'{names} ({len(self.lists)} lists) partition the {self.what} of {of}: '
      f'{n} triplets, none twice and none left out',
      'overlap': f'{names} shares {n} triplets with {of}',
    }[self.kind]


class Leak(NamedTuple):
  """A person in several splits, whatever rule says so."""

  subject: str
  rows: dict[str, int]  # by split
  accepted: str = ''  # by which name of KNOWN_LEAKS

  def __str__(self) -> str:
    accepted = f' (accepted: {self.accepted})' if self.accepted else ''
    return f'leak{accepted}: subject {self.subject} in {", ".join(self.rows)}'


class Note(NamedTuple):
  """A finding that is known and accepted, and by which name."""

  exception: str
  finding: Finding


@dataclasses.dataclass
class Report:
  """Everything that was found."""

  lists: list[Summary] = dataclasses.field(default_factory=list)
  relations: list[Relation] = dataclasses.field(default_factory=list)
  leaks: list[Leak] = dataclasses.field(default_factory=list)
  findings: list[Finding] = dataclasses.field(default_factory=list)
  notes: list[Note] = dataclasses.field(default_factory=list)
  accepted: tuple[str, ...] = ()
  root: str | None = None

  def counts(self) -> dict[str, int]:
    """Findings by rule, in the order of `findings.RULES`."""
    counts = collections.Counter(finding.rule for finding in self.findings)
    return {rule: counts[rule] for rule in RULES if counts[rule]}

  def json_safe(self) -> dict:
    """The report as JSON can hold it."""
    return {
      'code_version': flexfas_jax.__version__,
      'accepted_known_leaks': self.accepted,
      'root': self.root,
      'counts': self.counts(),
      'lists': [summary._asdict() for summary in self.lists],
      'relations': [r._asdict() | {'text': str(r)} for r in self.relations],
      'leaks': [leak._asdict() | {'text': str(leak)} for leak in self.leaks],
      'findings': [finding._asdict() for finding in self.findings],
      'notes': [{'exception': n.exception, **n.finding._asdict()} for n in self.notes],
    }


def check(
  paths: Sequence[str | Path],
  *,
  labels: Mapping[str, str] | None = None,
  splits: Mapping[str, str] | None = None,
  accept: Collection[str] = (),
  root: str | Path | None = None,
  sizes: str | None = None,
) -> Report:
  """Checks lists, each and together.

  Args:
    paths: the lists.
    labels: as in `lists.read`.
    splits: {list: split} where file names do not say it.
    accept: names of `KNOWN_LEAKS` whose leaks become notes.
    root: the folder that the lists' paths start at; given, all pictures are looked at.
    sizes: how shapes within a triplet must agree, as in `image_checks.Rules`; by default 'any' for
      CASIA-SURF, whose crops differ, and 'aspect' for the others.

  Returns:
    The report; what cannot be read is a finding of it.

  Raises:
    ConfigError: an unknown name in `accept`, a root that is no folder, too many splits.
  """
  _check_names(accept)
  if root is not None and not Path(root).is_dir():
    raise ConfigError(f'the root {root} is no folder')
  report = Report(accepted=tuple(accept), root=None if root is None else str(root))
  codes, indices = _Codes(), []
  for path in dict.fromkeys(map(str, paths)):
    given = lists.split_name((splits or {}).get(path, ''))
    try:
      index, summary = _read(path, labels, given, codes, report)
    except DataError as error:
      report.findings.append(Finding('row', path, 0, str(error).removeprefix(f'{path} ')))
      continue
    indices.append(index)
    report.lists.append(summary)

  table = _Table(indices, codes)
  table.duplicates()
  table.labels()
  table.leaks(report)
  table.tell(report)
  report.relations = _relations(indices, report.lists)
  if root is not None:
    _look_at_pictures(table, str(root), sizes, report)
  order, place = list(RULES), {str(path): i for i, path in enumerate(paths)}
  report.findings.sort(key=lambda f: (order.index(f.rule), place.get(f.list, -1), f.row))
  return report


def check_rows(
  rows: Mapping[str, Sequence[lists.Row]], accept: Collection[str] = ()
) -> tuple[list[Finding], list[str]]:
  """Checks rows that are at hand: duplicates, leaks between splits, one triplet with two labels.

  Args:
    rows: by split.
    accept: names of `KNOWN_LEAKS` whose leaks become notes.

  Returns:
    Findings, each naming the list and line that its row has; and notes of what was accepted.

  Raises:
    ConfigError: an unknown name in `accept`.
  """
  _check_names(accept)
  codes, indices = _Codes(), []
  for split, some in rows.items():
    # A split may be made of several lists, and a list be parted into several splits: duplicates are
    # looked for within a split.
    index = _Index(
      lambda wanted, some=some: ((i, some[i]) for i in wanted), lambda i, some=some: some[i].list
    )
    for row in some:
      index.add(row, codes[split])
    indices.append(index)
  table, report = _Table(indices, codes), Report(accepted=tuple(accept))
  table.duplicates()
  table.labels()
  table.leaks(report)
  table.tell(report)
  found = sorted(report.findings, key=lambda f: (list(RULES).index(f.rule), f.list, f.row))
  return found, [f'accepted: {note.exception}: {note.finding}' for note in report.notes]


def _check_names(accept: Collection[str]) -> None:
  if unknown := sorted(set(accept) - set(KNOWN_LEAKS)):
    raise ConfigError(
      f'no known leak is called {unknown[0]!r}; there are: {", ".join(KNOWN_LEAKS)}'
    )


class _Codes(dict):
  """Numbers of the splits, in the order in which they are met; 0 is not known."""

  def __init__(self):
    super().__init__({'': 0})

  def __missing__(self, split: str) -> int:
    if len(self) > _MAX_SPLITS:
      raise ConfigError(f'more than {_MAX_SPLITS} splits: is the column split something else?')
    self[split] = len(self)
    return self[split]


class _Index:
  """The rows of one list as numbers, and how to get at the rows themselves."""

  def __init__(
    self,
    fetch: Callable[[Sequence[int]], Iterable[tuple[int, lists.Row]]],
    list_of: Callable[[int], str],
  ):
    self.fetch, self.list_of = fetch, list_of  # positions -> (position, row); position -> list
    self.datasets = set()
    self._flat = array.array('q')  # row after row, all its numbers

  def add(self, row: lists.Row, split: int) -> None:
    paths, said, subject = row.paths, row.said, row.subject
    path_of = paths.get
    rgb, depth, ir = hash(path_of('rgb', '')), hash(path_of('depth', '')), hash(path_of('ir', ''))
    triplet = hash((rgb, depth, ir))
    self._flat.extend(
      (
        row.line,
        _NUMBER[row.label],
        split,
        hash(said.id) if said else triplet,
        triplet,
        hash(row.id),
        # A layout that does not tell subjects does not tell videos either: its folder is a phase.
        hash(row.video) if subject or not said else 0,
        hash(subject),
        rgb,
        depth,
        ir,
      )
    )
    self.datasets.add(row.dataset)

  def __len__(self) -> int:
    return len(self._flat) // len(_COLUMNS)

  def __getattr__(self, name: str) -> np.ndarray:
    """A column, [rows] int64."""
    if name not in _COLUMNS:
      raise AttributeError(name)
    flat = np.frombuffer(self._flat, np.int64).reshape(-1, len(_COLUMNS))
    return flat[:, _COLUMNS.index(name)].copy()


_NUMBER = {'bona_fide': 1, 'attack': 0, '': -1}
# What rows are compared by; of the hashes, 0 is not known. `same` is the triplet's identity,
# wherever a list may have its root; an id that a column gives is only good for its own list.
_COLUMNS = (
  'line',
  'label',
  'split',
  'same',
  'triplet',
  'id',
  'video',
  'subject',
  *lists.MODALITIES,
)


def _read(path: str, labels, split: str, codes: _Codes, report: Report) -> tuple[_Index, Summary]:
  """Reads one list; what can be seen row by row is added to the report."""
  form = lists.look(path)

  def fetch(positions: Sequence[int]) -> Iterator[tuple[int, lists.Row]]:
    line = index.line
    at = {int(line[i]): i for i in positions}
    ignore = lambda rule, line, text: None  # noqa: E731 - was told at the first reading
    rows = lists.scan(path, labels, ignore, form=form, only=at.keys())
    return ((at[row.line], row) for row in rows)

  index, refused = _Index(fetch, lambda position: path), []

  def found(rule: str, line: int, text: str) -> None:
    (refused if rule == 'label' and line else report.findings).append(
      Finding(rule, path, line, text)
    )

  if form.crlf:
    found('line-endings', form.crlf, 'lines end in CRLF')
  if form.bom:
    found('line-endings', 1, 'starts with a byte order mark')
  if not form.ended:
    found('no-last-newline', 0, 'the last line is not ended')

  agree, contradictory, guessed = _Agreement(), array.array('q'), array.array('q')
  n_comparable = n_alike = 0
  for position, row in enumerate(lists.scan(path, labels, found, form=form)):
    index.add(row, codes[split or row.split])
    problems, alike = agree(row)
    for rule, text in problems:
      _tell(report, rule, row, text)
    if alike is not None:
      n_alike += alike
      if not alike:
        guessed.append(position)
    if row.said and row.said.label and row.label:
      n_comparable += 1
      if row.said.label != row.label:
        contradictory.append(position)

  n = len(index)
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
      text = f'label is {row.label}, and the path says {row.said.label}: {_first(row)}'
      _tell(report, 'label', row, text)
  # Names of files whose layout is not known: where nearly all agree, the others are mistakes.
  if guessed and n_alike >= 9 * len(guessed):
    for _, row in fetch(guessed):
      paths = ', '.join(f'{m} {p}' for m, p in row.paths.items())
      _tell(report, 'triplet', row, f'differ in more than the modality, unlike most: {paths}')

  return index, _summary(path, form, index, split, codes)


def _summary(path: str, form: lists.Form, index: _Index, split: str, codes: _Codes) -> Summary:
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


def _first(row: lists.Row) -> str:
  return next(iter(row.paths.values()))


def _tell(report: Report, rule: str, row: lists.Row, text: str) -> None:
  """Adds a finding of a row, or a note where it is excepted."""
  finding = Finding(rule, row.list, row.line, text)
  if rule in _EXCEPTED:
    for name, videos in EXCEPTIONS.items():
      if row.video in videos:
        report.notes.append(Note(name, finding))
        return
  report.findings.append(finding)


class _Agreement:
  """Whether the paths of a row go together, and stand in the right columns."""

  def __init__(self):
    # By pair of modalities: what to replace in the first's path to get the other's. Most rows of a
    # list agree in the same words, and need no more than that.
    self._words = {}

  def __call__(self, row: lists.Row) -> tuple[list[tuple[str, str]], bool | None]:
    """Problems as (rule, text); and where a layout is not known, whether the names are alike."""
    (first, path), *others = row.paths.items()
    said = row.said
    if not others:
      claimed = said.modality if said else naming.modality_of(path)
      return [] if claimed in ('', first) else [_swapped(first, path, claimed)], None
    if not said or said.modality == first:
      for modality, other in others:
        before, after = self._words.get((first, modality), ('', ''))
        if not before or other == path or path.replace(before, after) != other:
          break
      else:
        return [], None if said else True
    return self._closely(row)

  def _closely(self, row: lists.Row) -> tuple[list[tuple[str, str]], bool | None]:
    problems, alike = [], None
    says = {m: naming.read(path) for m, path in row.paths.items()}
    claims = {m: s.modality if s else naming.modality_of(row.paths[m]) for m, s in says.items()}
    if len(set(claims.values())) == 1 and not any(says.values()):
      claims = {}  # a word that all paths have, as 'rgb_depth/', tells nothing
    (first, path), *others = row.paths.items()
    seen = {}
    for modality, other in row.paths.items():
      if other in seen:
        problems.append(('same-image', f'{seen[other]} and {modality} are one file: {other}'))
        continue
      seen[other] = modality
      if (claimed := claims.get(modality, '')) not in ('', modality):
        problems.append(_swapped(modality, other, claimed))
    for modality, other in others:
      if other == path:
        continue
      if says[first] and says[modality]:
        if says[first].id != says[modality].id:
          problems.append(('triplet', _apart(first, says[first], modality, says[modality])))
          continue
      else:
        same = naming.without_modality(path) == naming.without_modality(other)
        alike = same if alike is None else alike and same
        if not same:
          continue
      if claims.get(first) == first and claims.get(modality) == modality:
        self._learn(first, path, modality, other)
    return problems, alike

  def _learn(self, first: str, path: str, modality: str, other: str) -> None:
    start = len(os.path.commonprefix((path, other)))
    end = len(os.path.commonprefix((path[::-1], other[::-1])))
    before = path[_back(path, start) : _on(path, len(path) - end)]
    after = other[_back(other, start) : _on(other, len(other) - end)]
    if path.replace(before, after) == other:
      self._words[first, modality] = before, after


def _back(path: str, at: int) -> int:
  """Where the word begins, with the mark before it, that holds a place."""
  while at > 0 and path[at - 1].isalpha():
    at -= 1
  return max(at - 1, 0)


def _on(path: str, at: int) -> int:
  while at < len(path) and path[at].isalpha():
    at += 1
  return min(at + 1, len(path))


def _swapped(modality: str, path: str, claimed: str) -> tuple[str, str]:
  return 'swapped', f'{modality} is {path}, which its name says is {claimed}'


def _apart(one: str, said: naming.Said, other: str, second: naming.Said) -> str:
  differ = [
    f'{name} {getattr(second, name) or "?"} of {other} is not {getattr(said, name) or "?"} of {one}'
    for name in ('dataset', 'subject', 'video', 'frame')
    if getattr(said, name) != getattr(second, name)
  ]
  return '; '.join(differ)


class _Table:
  """All rows of all lists, and what is found in comparing them."""

  def __init__(self, indices: list[_Index], codes: _Codes):
    self._indices, self._names = indices, list(codes)
    self._starts = np.cumsum([0] + [len(index) for index in indices])
    self._list = np.repeat(np.arange(len(indices)), np.diff(self._starts))
    self._pending = collections.defaultdict(list)  # by row: what makes its findings
    joined = {
      name: np.concatenate([np.empty(0, np.int64), *(getattr(index, name) for index in indices)])
      for name in _COLUMNS
    }
    self._line, self._label, self._split, self._same, self._triplet = (
      joined[name] for name in ('line', 'label', 'split', 'same', 'triplet')
    )
    self._id, self._video, self._subject = (joined[name] for name in ('id', 'video', 'subject'))
    self._files = [joined[m] for m in lists.MODALITIES]
    self._bit = np.where(self._split > 0, np.int64(1) << np.maximum(self._split - 1, 0), 0)

  def _where(self, row: int, seen_from: str = '') -> str:
    """A row's list and line; only the line where that is said of the same list."""
    number = self._list[row]
    name = self._indices[number].list_of(int(row - self._starts[number]))
    return f'row {self._line[row]}' if name == seen_from else f'{name}:{self._line[row]}'

  def _split_of(self, row: int) -> str:
    return self._names[self._split[row]]

  def duplicates(self) -> None:
    """Rows that were there before, in the same list and split."""
    within = (self._list << 8) + self._split
    # Across splits it is a leak.
    again, first = _repeats(self._triplet, within)
    for row, before in zip(again.tolist(), first.tolist(), strict=True):
      self._pending[row].append(
        lambda r, before=before: (
          'duplicate',
          f'the same triplet as {self._where(before, r.list)}: {r.id}',
        )
      )
    ids, first = _repeats(self._id, self._list)
    known = set(again.tolist())
    for row, before in zip(ids.tolist(), first.tolist(), strict=True):
      if row not in known and self._triplet[row] != self._triplet[before]:
        self._pending[row].append(
          lambda r, before=before: (
            'duplicate',
            f'the id {r.id} is also that of {self._where(before, r.list)}, with other files',
          )
        )

  def labels(self) -> None:
    """Triplets that have two labels."""
    known = np.flatnonzero(self._label >= 0)
    again, first = _repeats(self._same[known], np.zeros(len(known), np.int64))
    again, first = known[again], known[first]
    wrong = self._label[again] != self._label[first]
    for row, before in zip(again[wrong].tolist(), first[wrong].tolist(), strict=True):
      label = lists.LABELS[1 - self._label[before]]
      self._pending[row].append(
        lambda r, before=before, label=label: (
          'label',
          f'{r.id} is {r.label} here, and {label} in {self._where(before, r.list)}',
        )
      )

  def leaks(self, report: Report) -> None:
    """Files, videos and people in two splits; each leak is told at the highest level alone."""
    if len(self._names) <= 2:
      return  # one split
    # Which other splits a row leaks into by what has been told already.
    told = np.zeros(len(self._bit), np.int64)
    self._file_leaks(report, told)
    self._group_leaks('leak-video', self._video, told, lambda r: f'video {r.video}')
    self._group_leaks('leak-subject', self._subject, told, lambda r: f'subject {r.subject}')
    self._leaking_subjects(report)

  def _file_leaks(self, report: Report, told: np.ndarray) -> None:
    rows = np.flatnonzero(self._bit)
    # The identity of the triplet first: the same picture may be below another root.
    columns = [self._same, *self._files]
    keys = np.concatenate([column[rows] for column in columns])
    which = np.repeat(1 << np.arange(len(columns)), len(rows))
    keys, at, union = _shared(keys, np.tile(rows, len(columns)), which, self._bit)
    at, which = at
    np.bitwise_or.at(told, at, union & ~self._bit[at])

    # The first row that has the key, against the first in each other split.
    order = np.lexsort((at, self._split[at], keys))
    keys, at, which = keys[order], at[order], which[order]
    new_key = np.r_[True, keys[1:] != keys[:-1]][: len(keys)]
    new = new_key | np.r_[True, self._split[at][1:] != self._split[at][:-1]][: len(keys)]
    anchor = at[np.flatnonzero(new_key)][np.cumsum(new_key) - 1] if len(at) else at
    others = new & ~new_key
    pairs, inverse = np.unique(
      np.stack([anchor[others], at[others]], 1), axis=0, return_inverse=True
    )
    by = np.zeros(len(pairs), np.int64)
    np.bitwise_or.at(by, inverse.ravel(), which[others])
    for row, some in itertools.groupby(
      zip(pairs.tolist(), by.tolist(), strict=True), lambda pair: pair[0][0]
    ):
      others = [(other, columns) for (_, other), columns in some]
      self._pending[row].append(lambda r, o=others: self._file_leak(r, o, report))

  def _file_leak(self, row: lists.Row, others: list[tuple[int, int]], report: Report):
    columns = 0
    for _, some in others:
      columns |= some
    paths = [row.paths[m] for i, m in enumerate(lists.MODALITIES) if columns >> i + 1 & 1]
    subject = f', subject {row.subject}' if row.subject else ''
    also = '; '.join(f'{self._where(o)} ({self._split_of(o)})' for o, _ in others)
    here = self._split_of(self._told_row)
    files = ' '.join(paths) if len(paths) < len(row.paths) and paths else _first(row)
    text = f'{files}{subject} is in {here}, and in {also}'
    splits = {here, *(self._split_of(o) for o, _ in others)}
    for name in report.accepted:
      for file, between in KNOWN_LEAKS[name]:
        if row.said and row.said.id == naming.read(file).id and splits <= between:
          report.notes.append(Note(name, Finding('leak-file', row.list, row.line, text)))
          return None
    return 'leak-file', text

  def _group_leaks(
    self, rule: str, keys: np.ndarray, told: np.ndarray, name: Callable[[lists.Row], str]
  ) -> None:
    """Leaks by a name that many rows share."""
    rows = np.flatnonzero((self._bit != 0) & (keys != 0))
    _, (rows, _), union = _shared(keys[rows], rows, rows, self._bit)
    # What is left of a leak when rows that leak otherwise are taken out of one of the splits.
    rows = rows[union & ~self._bit[rows] & ~told[rows] != 0]
    found, (rows, _), _ = _shared(keys[rows], rows, rows, self._bit)
    for group in np.split(rows, np.flatnonzero(np.diff(found)) + 1) if len(rows) else ():
      free, pairs = collections.defaultdict(set), []  # by split: rows that leak by this alone
      splits = {int(code): group[self._split[group] == code] for code in self._split[group]}
      for one, other in itertools.combinations(splits, 2):
        here = splits[one][told[splits[one]] >> (other - 1) & 1 == 0]
        there = splits[other][told[splits[other]] >> (one - 1) & 1 == 0]
        if len(here) and len(there):
          free[one].update(here.tolist())
          free[other].update(there.tolist())
          pairs += [(here, other), (there, one)]
      if not free:
        continue
      for some, split in pairs:  # after the loop, whose pairs are judged alike
        told[some] |= 1 << split - 1
      row, *others = sorted((min(some), len(some)) for some in free.values())
      self._pending[row[0]].append(
        lambda r, here=row, others=others: (rule, self._group_leak(name(r), here, others))
      )

  def _group_leak(self, name: str, here: tuple[int, int], others: list[tuple[int, int]]) -> str:
    also = '; '.join(f'{self._where(row)} ({self._split_of(row)}, {n:,} rows)' for row, n in others)
    return f'{name} is in {self._split_of(here[0])} ({here[1]:,} rows), and in {also}'

  def _leaking_subjects(self, report: Report) -> None:
    rows = np.flatnonzero((self._bit != 0) & (self._subject != 0))
    found, (rows, _), _ = _shared(self._subject[rows], rows, rows, self._bit)
    for group in np.split(rows, np.flatnonzero(np.diff(found)) + 1) if len(rows) else ():
      codes, counts = np.unique(self._split[group], return_counts=True)
      names = [self._names[code] for code in codes]
      in_splits = dict(sorted(zip(names, counts.tolist(), strict=True), key=_usual_order))
      self._pending[int(group.min())].append(
        lambda r, rows=in_splits: report.leaks.append(Leak(r.subject, rows))
      )

  def tell(self, report: Report) -> None:
    """Reads the rows again that something is to be said about, and says it."""
    for number, index in enumerate(self._indices):
      start, end = self._starts[number : number + 2].tolist()
      wanted = sorted(row - start for row in self._pending if start <= row < end)
      for position, row in index.fetch(wanted) if wanted else ():
        self._told_row = start + position
        for make in self._pending.pop(start + position):
          if said := make(row):
            _tell(report, said[0], row, said[1])
    self._accept(report)

  def _accept(self, report: Report) -> None:
    """Names the exception at people who leak by accepted leaks alone."""
    known = {}
    for name in report.accepted:
      for file, _ in KNOWN_LEAKS[name]:
        said = naming.read(file)
        if any(n.exception == name and n.finding.rule == 'leak-file' for n in report.notes):
          known[f'{said.dataset}/{said.subject}'] = name
    if not known:
      return
    leaking = [f.text for f in report.findings if f.rule.startswith('leak')]
    for i, leak in enumerate(report.leaks):
      if leak.subject in known and not any(leak.subject in text for text in leaking):
        report.leaks[i] = leak._replace(accepted=known[leak.subject])

  def distinct(self) -> Iterator[lists.Row]:
    """Each triplet's row, at its first occurrence in the lists."""
    _, first = np.unique(self._triplet, return_index=True)
    for number, index in enumerate(self._indices):
      start, end = self._starts[number : number + 2]
      wanted = np.sort(first[(first >= start) & (first < end)]) - start
      for _, row in index.fetch(wanted.tolist()) if len(wanted) else ():
        yield row

  def n_distinct(self) -> int:
    return len(np.unique(self._triplet))


def _usual_order(item: tuple[str, int]) -> tuple[int, str]:
  usual = ('train', 'val', 'test')
  return (usual.index(item[0]) if item[0] in usual else len(usual), item[0])


def _repeats(keys: np.ndarray, within: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Rows [n] whose key was there before within the same part, and the first that had it [n]."""
  order = np.lexsort((np.arange(len(keys)), keys, within))
  k, w = keys[order], within[order]
  new = np.r_[True, (k[1:] != k[:-1]) | (w[1:] != w[:-1])][: len(k)]
  first = order[np.flatnonzero(new)][np.cumsum(new) - 1] if len(order) else order
  again = np.sort(order[~new])
  of = np.empty(len(keys), np.int64)
  of[order] = first
  return again, of[again]


def _shared(
  keys: np.ndarray, rows: np.ndarray, carried: np.ndarray, bit: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray]:
  """What is left of keys when only those are kept that rows of several splits have.

  Args:
    keys, rows, carried: [n]; a key of 0 is none.
    bit: by row, its split.

  Returns:
    keys, (rows, carried), and the splits that have the key; sorted by key, then row.
  """
  order = np.lexsort((rows, keys))
  keys, rows, carried = keys[order], rows[order], carried[order]
  start = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]][: len(keys)])
  if not len(start):
    return keys, (rows, carried), keys
  union = np.bitwise_or.reduceat(bit[rows], start)
  several = (union & (union - 1) != 0) & (keys[start] != 0)
  length = np.diff(np.r_[start, len(keys)])
  keep = np.repeat(several, length)
  return keys[keep], (rows[keep], carried[keep]), np.repeat(union, length)[keep]


def _relations(indices: list[_Index], summaries: list[Summary]) -> list[Relation]:
  """How lists of the same split lie to each other."""
  sets, kinds = [], []
  for index in indices:
    keys, first = np.unique(index.same, return_index=True)
    sets.append(keys)
    kinds.append(index.label[first])
  names = [summary.list for summary in summaries]
  relations, inside = [], collections.defaultdict(list)  # by list: those within it
  for one, other in itertools.combinations(range(len(indices)), 2):
    if summaries[one].splits != summaries[other].splits:
      continue
    both = len(np.intersect1d(sets[one], sets[other], assume_unique=True))
    small, large = sorted((one, other), key=lambda i: len(sets[i]))
    if both == len(sets[large]):
      relations.append(Relation('equal', (names[one],), names[other], 'rows', both))
    elif both == len(sets[small]):
      inside[large].append(small)
    elif both:
      relations.append(Relation('overlap', (names[one],), names[other], 'rows', both))
  for large, small in inside.items():
    parts, what = _partition(large, small, sets, kinds)
    of = names[large]
    if parts:
      n = sum(len(sets[i]) for i in parts)
      relations.append(Relation('partition', tuple(names[i] for i in parts), of, what, n))
    relations += [
      Relation('part', (names[i],), of, 'rows', len(sets[i])) for i in small if i not in parts
    ]
  return relations


def _partition(large: int, small: list[int], sets, kinds) -> tuple[list[int], str]:
  """Which of the lists within a list share it out among them, and what of it."""
  for what, label in (('attacks', 0), ('bona fide', 1), ('rows', None)):
    parts = [i for i in small if label is None or (kinds[i] == label).all()]
    n = len(sets[large]) if label is None else int((kinds[large] == label).sum())
    if len(parts) > 1 and sum(len(sets[i]) for i in parts) == n:
      union = np.unique(np.concatenate([sets[i] for i in parts]))
      if len(union) == n:  # none twice, so none left out
        return parts, what
  return [], ''


def _look_at_pictures(table: _Table, root: str, sizes: str | None, report: Report) -> None:
  """Looks at every triplet once, whichever lists name it."""
  n, missing, n_files = table.n_distinct(), [], 0
  rows = (r for r in table.distinct() if not any(map(lists.leaves_root, r.paths.values())))
  jobs = ((row, (root, row.paths, sizes or _SIZES.get(row.dataset, 'aspect'))) for row in rows)
  for row, problems in _progress(_parallel(jobs, n), n, f'pictures below {root}'):
    n_files += len(row.paths)
    for rule, text in problems:
      if rule == 'missing-file':
        missing.append((row, text))
      else:
        _tell(report, rule, row, text)
  if len(missing) == n_files > 3:  # a wrong root, not missing files
    text = f'none of the {n_files:,} files is below {root}: is that where the paths start?'
    report.findings.append(Finding('missing-file', missing[0][0].list, 0, text))
    return
  for row, text in missing:
    _tell(report, 'missing-file', row, text)


def problems_of(root: str, paths: Mapping[str, str], sizes: str) -> list[tuple[str, str]]:
  """What is wrong with the pictures of a triplet, those missing included: (rule, text)."""
  from flexfas_jax.input_pipeline import image_checks  # OpenCV: only who has a root pays for it

  images, problems = {}, []
  for modality, path in paths.items():
    try:
      images[modality] = Path(root, path).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
      problems.append(('missing-file', f'{modality} {path}'))
    except OSError as error:
      problems.append(('unreadable', f'{modality} cannot be read ({error.strerror}): {path}'))
  for rule, text in image_checks.inspect(images, image_checks.Rules(sizes=sizes)):
    path = paths.get(text.partition(' ')[0])
    problems.append((rule, f'{text}: {path}' if path else text))
  return problems


def _several(jobs: list[tuple]) -> list[list[tuple[str, str]]]:
  return [problems_of(*job) for job in jobs]


def _parallel(jobs: Iterator[tuple[lists.Row, tuple]], n: int) -> Iterator[tuple]:
  """Yields (row, problems) in order, of jobs that all cores do; few jobs wait at a time."""
  if n <= _INLINE:
    for row, job in jobs:
      yield row, problems_of(*job)
    return
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  # Not fork: the caller may have threads.
  context = multiprocessing.get_context('spawn')
  waiting = collections.deque()
  with concurrent.futures.ProcessPoolExecutor(cores, context) as pool:
    try:
      while True:
        while len(waiting) < 4 * cores and (some := list(itertools.islice(jobs, _AT_ONCE))):
          rows, work = zip(*some, strict=True)
          waiting.append((rows, pool.submit(_several, work)))
        if not waiting:
          return
        rows, future = waiting.popleft()
        yield from zip(rows, future.result(), strict=True)
    except concurrent.futures.process.BrokenProcessPool:
      raise DataError('a process that decodes pictures was ended: out of memory?') from None
    finally:
      pool.shutdown(cancel_futures=True)


def _progress(items: Iterable, total: int, text: str) -> Iterator:
  """Passes items on; a terminal shows how far they are."""
  if not sys.stderr.isatty():
    yield from items
    return
  import rich.console
  import rich.progress

  columns = (
    rich.progress.TextColumn('{task.description}', markup=False),
    rich.progress.BarColumn(),
    rich.progress.MofNCompleteColumn(),
    rich.progress.TimeRemainingColumn(),
  )
  console = rich.console.Console(stderr=True)
  with rich.progress.Progress(*columns, console=console, transient=True) as bar:
    yield from bar.track(items, total=total, description=text)
