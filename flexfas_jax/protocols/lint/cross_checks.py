"""All rows of all lists, compared: duplicates, labels that contradict each other, and leaks."""

import collections
import itertools
from collections.abc import Callable, Collection, Iterator

import numpy as np

from flexfas_jax import schema
from flexfas_jax.protocols import exact_duplicates, lists, path_layouts
from flexfas_jax.protocols.findings import Finding
from flexfas_jax.protocols.lint.hashed_list import COLUMNS, Codes, Index, first_path
from flexfas_jax.protocols.lint.report import KNOWN_LEAKS, SIMILAR, Leak, Note, Report


class Table:
  """The rows of lists in one; what is found waits until `tell` reads its rows again."""

  def __init__(self, indices: list[Index], codes: Codes):
    self._indices, self._names = indices, list(codes)
    self._starts = np.cumsum([0] + [len(index) for index in indices])
    self._list = np.repeat(np.arange(len(indices)), np.diff(self._starts))
    self._pending = collections.defaultdict(list)  # by row: what makes its findings
    self.wrong: set[int] = set()  # rows that have findings, once `tell` is done
    joined = {
      name: np.concatenate([np.empty(0, np.int64), *(getattr(index, name) for index in indices)])
      for name in COLUMNS
    }
    self._line, self._label, self._split, self._same, self._triplet = (
      joined[name] for name in ('line', 'label', 'split', 'same', 'triplet')
    )
    self._id, self._video, self._subject = (joined[name] for name in ('id', 'video', 'subject'))
    self._identify_by_folder(joined['folder'])
    self._resembling = joined['resembling']
    self._files = [joined[m] for m in schema.MODALITIES]
    self._joined = joined
    self._bit = np.where(self._split > 0, np.int64(1) << np.maximum(self._split - 1, 0), 0)

  def _identify_by_folder(self, folder: np.ndarray) -> None:
    """Makes folders part of the names of videos without subjects, as `identity.videos` does."""
    rows = np.flatnonzero((self._subject == 0) & (self._video != 0) & (folder != 0))
    pairs = np.unique(np.stack([self._video[rows], folder[rows]]), axis=1)
    if pairs.shape[1] > len(np.unique(pairs[0])):  # one name stands below several folders
      self._video[rows] ^= folder[rows] * 0x9E3779B97F4A7C1

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
    """Triplets and RGB images that have two labels: each of their rows, as any may be wrong."""
    contradicted = {}  # by row: the first row with the other label
    for keys in (self._same, self._files[0]):
      rows = np.flatnonzero((self._label >= 0) & (keys != 0))
      rows = rows[np.argsort(keys[rows], kind='stable')]
      keys = keys[rows]
      start = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]][: len(keys)])
      if not len(start):
        continue
      end = np.r_[start[1:], len(rows)]
      bona_fide = np.add.reduceat(self._label[rows], start)
      for i in np.flatnonzero((bona_fide > 0) & (bona_fide < end - start)):
        group = rows[start[i] : end[i]]
        first = [int(group[self._label[group] == label][0]) for label in (0, 1)]
        for row in group.tolist():
          contradicted.setdefault(row, first[1 - self._label[row]])
    for row, other in contradicted.items():
      label = schema.LABELS[self._label[other]]
      self._pending[row].append(
        lambda r, other=other, label=label: (
          'label',
          f'{r.id} is {r.label} here, and {label} in {self._where(other, r.list)}',
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
    self._similar_subjects(report)

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
    paths = [row.paths[m] for i, m in enumerate(schema.MODALITIES) if columns >> i + 1 & 1]
    subject = f', subject {row.subject}' if row.subject else ''
    also = '; '.join(f'{self._where(o)} ({self._split_of(o)})' for o, _ in others)
    here = self._split_of(self._told_row)
    files = ' '.join(paths) if len(paths) < len(row.paths) and paths else first_path(row)
    text = f'{files}{subject} is in {here}, and in {also}'
    splits = {here, *(self._split_of(o) for o, _ in others)}
    for name in report.accepted:
      for file, between in KNOWN_LEAKS[name]:
        if (
          row.parsed_path
          and row.parsed_path.id == path_layouts.parse(file).id
          and splits <= between
        ):
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

  def _similar_subjects(self, report: Report) -> None:
    """Notes on subjects of two splits whose names differ in capitals or leading zeros alone."""
    rows = np.flatnonzero((self._bit != 0) & (self._subject != 0))
    found, (rows, _), _ = _shared(self._resembling[rows], rows, rows, self._bit)
    for group in np.split(rows, np.flatnonzero(np.diff(found)) + 1) if len(rows) else ():
      pairs = {}  # the first row of every subject and split
      for row in group.tolist():
        pairs.setdefault((self._subject[row], self._split[row]), row)
      subjects, splits = zip(*pairs, strict=True)
      if len(set(subjects)) < 2 or len(set(splits)) < 2:
        continue
      row, *others = pairs.values()
      also = ', '.join(f'{self._where(o)} ({self._split_of(o)})' for o in others)
      self._pending[row].append(
        lambda r, also=also: report.notes.append(
          Note(
            SIMILAR,
            Finding(
              'leak-subject',
              r.list,
              r.line,
              f'subject {r.subject} may be that of {also}: capitals or leading zeros differ',
            ),
          )
        )
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
            report.add(said[0], row, said[1])
            self.wrong.add(start + position)
    self._accept(report)

  def _accept(self, report: Report) -> None:
    """Names the exception at people who leak by accepted leaks alone."""
    known = {}
    for name in report.accepted:
      for file, _ in KNOWN_LEAKS[name]:
        said = path_layouts.parse(file)
        if any(n.exception == name and n.finding.rule == 'leak-file' for n in report.notes):
          known[f'{said.dataset}/{said.subject}'] = name
    if not known:
      return
    leaking = [f.text for f in report.findings if f.rule.startswith('leak')]
    for i, leak in enumerate(report.leaks):
      if leak.subject in known and not any(leak.subject in text for text in leaking):
        report.leaks[i] = leak._replace(accepted=known[leak.subject])

  def facts(self) -> dict[str, list]:
    """Columns for `shortcuts`: what is known of every row without its files."""
    texts = {key: text for index in self._indices for key, text in index.texts.items()}
    paths = [index.list_of(0) if len(index) else '' for index in self._indices]
    columns = {name: getattr(self, f'_{name}').tolist() for name in ('label', 'subject', 'video')}
    columns |= {m: (c != 0).tolist() for m, c in zip(schema.MODALITIES, self._files, strict=True)}
    columns |= {
      name: [texts[key] for key in self._joined[name].tolist()] for name in ('dataset', 'device')
    }
    columns['split'] = [self._names[code] for code in self._split.tolist()]
    columns['list'] = [paths[number] for number in self._list.tolist()]
    return columns

  def exact_duplicates(
    self, positions: np.ndarray, digests: exact_duplicates.Digests, report: Report
  ) -> None:
    """Images with the same bytes under other names, see `exact_duplicates`.

    Args:
      positions: [N], of `distinct`.
      digests: {modality: [N] uint64}, 0 for what carries no signal.
    """
    evidence = lambda modality, row: True  # noqa: E731 - what carries no signal is 0
    splits = self._by_split(positions)
    parts = {code: {m: d[at] for m, d in digests.items()} for code, at in splits.items()}
    shared, groups, frozen = [], [], []  # of positions
    for one, other in itertools.combinations([code for code in parts if code], 2):
      for row, place, modalities in exact_duplicates.find_shared(
        parts[one], parts[other], evidence
      ):
        pair = positions[splits[other][row]], positions[splits[one][place]]
        shared.append((*map(int, pair), modalities))
    for code, part in parts.items():
      for group in exact_duplicates.group_equal_rows(part, evidence):
        groups.append(positions[splits[code][group]].tolist())
      videos = self._video[positions[splits[code]]].tolist()
      for row, first, modality in exact_duplicates.find_frozen(part, videos, evidence):
        frozen.append((*map(int, positions[splits[code][[row, first]]]), modality))
    rows = self._rows(
      {*itertools.chain.from_iterable([*(pair[:2] for pair in (*shared, *frozen)), *groups])}
    )
    for here, there, modalities in shared:
      row, other = rows[here], rows[there]
      files = [' '.join(r.paths[m] for m in modalities) for r in (row, other)]
      if files[0] != files[1]:  # the same file: reported as such
        text = f'{files[0]} of {self._split_of(here)}: the same bytes as {files[1]} of '
        report.add('leak-image', row, f'{text}{self._split_of(there)} ({self._where(there)})')
    for group in groups:
      some = [rows[position] for position in group]
      labels = {row.label for row in some} - {''}
      for position, row in zip(group, some, strict=True):
        if len(labels) > 1 and row.label:
          other = next(r for r in some if r.label not in ('', row.label))
          text = f'{row.id} is {row.label} here, and {other.id} {other.label}'
          report.add('label', row, f'{text}: the same bytes; take both out')
        elif len(labels) < 2 and position != group[0]:
          text = f'{first_path(row)}: the same bytes as {first_path(some[0])}'
          report.add('same-bytes', row, f'{text} ({self._where(group[0], row.list)})')
    for here, there, modality in frozen:
      row = rows[here]
      text = f'{modality} {row.paths[modality]}: the same bytes as of another video'
      report.add('frozen', row, f'{text} ({self._where(there, row.list)})')

  def near_duplicates(self, positions: np.ndarray, looks: bytes, report: Report) -> None:
    """Images of two splits that look the same, where no leak is reported of their row.

    Args:
      positions: [N], of `distinct`.
      looks: of these, see `near_duplicates`.
    """
    from flexfas_jax.protocols import near_duplicates  # OpenCV: only who has images pays

    of = np.frombuffer(looks, np.uint8).reshape(len(positions), near_duplicates.SIDE**2)
    splits = {code: at for code, at in self._by_split(positions).items() if code}
    pairs = []
    for one, other in itertools.combinations(splits, 2):
      for alike in near_duplicates.find(of[splits[one]], of[splits[other]]):
        here = int(positions[splits[other][alike.row]])
        there = int(positions[splits[one][alike.other]])
        if self._video[here] != self._video[there] or not self._video[here]:
          pairs.append((here, there, alike.correlation))
    rows = self._rows({*itertools.chain.from_iterable(pair[:2] for pair in pairs)})
    told = {(f.list, f.row) for f in report.findings if f.rule.startswith('leak')}
    for here, there, correlation in pairs:
      row, other = rows[here], rows[there]
      if (row.list, row.line) not in told and row.paths['rgb'] != other.paths['rgb']:
        text = f'{row.paths["rgb"]} of {self._split_of(here)}: looks like {other.paths["rgb"]} of '
        text += f'{self._split_of(there)} ({self._where(there)}), correlation {correlation:.2f}'
        report.add('near-duplicate', row, text)

  def _by_split(self, positions: np.ndarray) -> dict[int, np.ndarray]:
    """Which of positions [N] have each split's code."""
    codes = self._split[positions]
    return {int(code): np.flatnonzero(codes == code) for code in np.unique(codes)}

  def _rows(self, positions: Collection[int]) -> dict[int, lists.Row]:
    """Rows, read again."""
    found = {}
    for start, index in zip(self._starts.tolist(), self._indices, strict=False):
      wanted = sorted(p - start for p in positions if start <= p < start + len(index))
      found |= {start + i: row for i, row in (index.fetch(wanted) if wanted else ())}
    return found

  def distinct(self) -> Iterator[tuple[int, lists.Row]]:
    """Each triplet's position and row, at its first occurrence in the lists."""
    _, first = np.unique(self._triplet, return_index=True)
    for number, index in enumerate(self._indices):
      start, end = self._starts[number : number + 2]
      wanted = np.sort(first[(first >= start) & (first < end)]) - start
      for position, row in index.fetch(wanted.tolist()) if len(wanted) else ():
        yield int(start) + position, row

  def splits_of_distinct(self) -> list[str]:
    """The split of each of the rows that `distinct` yields."""
    _, first = np.unique(self._triplet, return_index=True)
    return [self._names[code] for code in self._split[np.sort(first)].tolist()]

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
