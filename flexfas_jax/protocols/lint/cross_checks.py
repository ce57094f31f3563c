"""Checks across the rows of all lists: duplicates, contradicting labels, leaks, shared images."""

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from flexfas_jax import schema
from flexfas_jax.protocols import exact_duplicates, lists, path_layouts
from flexfas_jax.protocols.findings import Finding
from flexfas_jax.protocols.lint import hashed_list
from flexfas_jax.protocols.lint.hashed_list import COLUMNS, HashedList, SplitCodes, first_path
from flexfas_jax.protocols.lint.report import KNOWN_LEAKS, SIMILAR, Note, Report, SubjectLeak

_LABELS = {-1: '', **dict(enumerate(schema.LABELS))}
_HASH_FACTOR = 0x9E3779B97F4A7C1  # mixes two hashes


class CrossChecks:
  """The rows of all lists, and checks that compare them.

  A check defers its findings. `resolve` then reads their rows again, all at once, and reports.

  Attributes:
    faulty: the rows with findings, after `resolve`.
  """

  def __init__(self, hashed_lists: list[HashedList], codes: SplitCodes):
    columns = dict(zip(COLUMNS, hashed_list.join(hashed_lists).T, strict=True))
    self._hashed_lists = hashed_lists
    self._starts = np.cumsum([0] + [len(hashed) for hashed in hashed_lists])
    self._list = np.repeat(np.arange(len(hashed_lists)), np.diff(self._starts))
    self._columns = columns
    self._split = columns['split']
    if (
      self._split.any() and not self._split.all()
    ):  # rows without a split are in one of their own, as `prepare` has it
      self._split = np.where(self._split == 0, codes.code(lists.DEFAULT_SPLIT), self._split)
    self._split_names = codes.names()
    # One bit for each split; 0 if there are no splits.
    self._bit = np.where(self._split > 0, np.int64(1) << np.maximum(self._split - 1, 0), 0)
    self._label, self._subject = columns['label'], columns['subject']
    self._video = _identify_by_folder(columns['video'].copy(), columns['folder'], self._subject)
    self._files = [columns[m] for m in schema.MODALITIES]
    # By row: functions that make its finding, (rule, text), or None.
    self._deferred = collections.defaultdict(list)
    self.faulty: set[int] = set()

  def check_duplicates(self) -> None:
    """Rows that repeat a triplet or an id of the same list."""
    triplet, ids = self._columns['triplet'], self._columns['id']
    # Across splits, a repeated triplet is a leak.
    repeated, first = _find_repeats(triplet, within=(self._list << 8) + self._split)
    for row, before in zip(repeated.tolist(), first.tolist(), strict=True):
      self._defer(row, 'duplicate', lambda r, b=before: f'{self._same_triplet(r, b)}: {r.id}')
    reported = set(repeated.tolist())
    repeated, first = _find_repeats(ids, within=self._list)
    for row, before in zip(repeated.tolist(), first.tolist(), strict=True):
      if row not in reported and triplet[row] != triplet[before]:
        self._defer(row, 'duplicate', lambda r, b=before: self._same_id(r, b))

  def _same_triplet(self, row: lists.ListRow, before: int) -> str:
    return f'the same triplet as {self._where(before, row.list)}'

  def _same_id(self, row: lists.ListRow, before: int) -> str:
    return f'the id {row.id} is also that of {self._where(before, row.list)}, with other files'

  def check_labels(self) -> None:
    """Triplets and colour images with two labels: all of their rows, as any may be wrong."""
    contradicted = {}  # {row: the first row with the other label}
    colours = [self._columns[m] for m in schema.MODALITIES if schema.is_color(m)]
    for keys in (self._columns['sample'], *colours):
      rows = np.flatnonzero((self._label >= 0) & (keys != 0))
      rows = rows[np.argsort(keys[rows], kind='stable')]
      start = _group_starts(keys[rows])
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
      self._defer(row, 'label', lambda r, o=other: self._contradiction(r, o))

  def _contradiction(self, row: lists.ListRow, other: int) -> str:
    label = _LABELS[int(self._label[other])]
    return f'{row.id} is {row.label} here, and {label} in {self._where(other, row.list)}'

  def check_leaks(self, report: Report) -> None:
    """Files, videos and subjects in two splits. A row is reported by the first rule it breaks."""
    if len(np.unique(self._split)) < 2:
      return
    # By row: a bit for each other split that it is reported to leak into.
    reported = np.zeros(len(self._bit), np.int64)
    self._check_files(report, reported)
    self._check_groups('leak-video', self._video, reported, lambda r: f'video {r.video}')
    self._check_groups('leak-subject', self._subject, reported, lambda r: f'subject {r.subject}')
    self._list_leaking_subjects(report)
    self._check_similar_subjects(report)

  def _check_files(self, report: Report, reported: np.ndarray) -> None:
    # The sample comes first: its files may be below another root.
    columns = [self._columns['sample'], *self._files]
    keys = _keys_of_several_splits(columns, self._split)
    rows = [np.flatnonzero(np.isin(column, keys) & (self._bit != 0)) for column in columns]
    keys, at, column_bits, splits = _select_shared(
      np.concatenate([column[some] for column, some in zip(columns, rows, strict=True)]),
      np.concatenate(rows),
      np.repeat(1 << np.arange(len(columns)), [len(some) for some in rows]),
      self._bit,
    )
    np.bitwise_or.at(reported, at, splits & ~self._bit[at])

    # Pairs: the first row with a key, and the first in each other split.
    order = np.lexsort((at, self._split[at], keys))
    keys, at, column_bits = keys[order], at[order], column_bits[order]
    new_key = _starts_group(keys)
    new_split = new_key | _starts_group(self._split[at])
    anchor = at[np.flatnonzero(new_key)][np.cumsum(new_key) - 1] if len(at) else at
    others = new_split & ~new_key
    pairs, inverse = np.unique(
      np.stack([anchor[others], at[others]], 1), axis=0, return_inverse=True
    )
    pair_columns = np.zeros(len(pairs), np.int64)
    np.bitwise_or.at(pair_columns, inverse.ravel(), column_bits[others])
    leaks = collections.defaultdict(list)
    for (row, other), columns in zip(pairs.tolist(), pair_columns.tolist(), strict=True):
      leaks[row].append((other, columns))
    for row, others in leaks.items():
      self._deferred[row].append(
        lambda r, here=row, others=others: self._file_leak(r, here, others, report)
      )

  def _file_leak(
    self, row: lists.ListRow, here: int, others: list[tuple[int, int]], report: Report
  ) -> tuple[str, str] | None:
    """The finding of a row whose files are in other splits; None if the leak is accepted.

    Args:
      row: the row at position `here`.
      others: (position, bits of the shared columns) in the other splits.
    """
    columns = 0
    for _, bits in others:
      columns |= bits
    shared = [m for i, m in enumerate(schema.MODALITIES) if columns >> (i + 1) & 1]
    if 0 < len(shared) < len(row.paths):
      files = ' '.join(row.paths[m] for m in shared)
    else:
      files = first_path(row)
    subject = f', subject {row.subject}' if row.subject else ''
    split = self._split_of(here)
    places = '; '.join(f'{self._where(o)} ({self._split_of(o)})' for o, _ in others)
    text = f'{files}{subject} is in {split}, and in {places}'
    splits = {split, *(self._split_of(o) for o, _ in others)}
    for name in report.accepted:
      for file, between in KNOWN_LEAKS[name]:
        known = path_layouts.parse(file)
        if row.parsed_path and row.parsed_path.id == known.id and splits <= between:
          report.notes.append(Note(name, Finding('leak-file', row.list, row.line, text)))
          return None
    return 'leak-file', text

  def _check_groups(
    self,
    rule: str,
    keys: np.ndarray,
    reported: np.ndarray,
    describe: Callable[[lists.ListRow], str],
  ) -> None:
    """Leaks by a name that many rows share.

    Args:
      rule: 'leak-video' or 'leak-subject'.
      keys: [rows], the name's hash.
      reported: of `check_leaks`; updated.
      describe: the name in a text.
    """
    rows = np.flatnonzero((self._bit != 0) & (keys != 0))
    _, rows, _, splits = _select_shared(keys[rows], rows, rows, self._bit)
    # What remains without rows whose leaks are reported by a stricter rule.
    rows = rows[splits & ~self._bit[rows] & ~reported[rows] != 0]
    for group in self._shared_groups(keys, rows):
      leaking, pairs = collections.defaultdict(set), []  # {split: its rows}; (rows, other split)
      in_split = {int(code): group[self._split[group] == code] for code in self._split[group]}
      for a, b in itertools.combinations(in_split, 2):
        rows_a = in_split[a][reported[in_split[a]] >> (b - 1) & 1 == 0]
        rows_b = in_split[b][reported[in_split[b]] >> (a - 1) & 1 == 0]
        if len(rows_a) and len(rows_b):
          leaking[a].update(rows_a.tolist())
          leaking[b].update(rows_b.tolist())
          pairs += [(rows_a, b), (rows_b, a)]
      if not leaking:
        continue
      for leaking_rows, split in pairs:  # after the loop, which compares all pairs alike
        reported[leaking_rows] |= 1 << (split - 1)
      here, *others = sorted((min(some), len(some)) for some in leaking.values())
      self._defer(
        here[0], rule, lambda r, h=here, o=others: f'{describe(r)} {self._group_leak(h, o)}'
      )

  def _group_leak(self, here: tuple[int, int], others: list[tuple[int, int]]) -> str:
    """The splits of a group; each given as (first row, number of rows)."""
    row, n = here
    places = '; '.join(f'{self._where(o)} ({self._split_of(o)}, {m:,} rows)' for o, m in others)
    return f'is in {self._split_of(row)} ({n:,} rows), and in {places}'

  def _shared_groups(self, keys: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """Those of rows [n] whose key is in several splits, grouped by key.

    Args:
      keys: of all rows.
    """
    shared, rows, _, _ = _select_shared(keys[rows], rows, rows, self._bit)
    return np.split(rows, np.flatnonzero(np.diff(shared)) + 1) if len(rows) else []

  def _list_leaking_subjects(self, report: Report) -> None:
    rows = np.flatnonzero((self._bit != 0) & (self._subject != 0))
    for group in self._shared_groups(self._subject, rows):
      codes, counts = np.unique(self._split[group], return_counts=True)
      names = [self._split_names[code] for code in codes]
      n_rows = dict(sorted(zip(names, counts.tolist(), strict=True), key=_usual_order))
      self._deferred[int(group.min())].append(
        lambda r, n_rows=n_rows: report.leaks.append(SubjectLeak(r.subject, n_rows))
      )

  def _check_similar_subjects(self, report: Report) -> None:
    """Notes on subjects of two splits whose names differ only in case or leading zeros."""
    rows = np.flatnonzero((self._bit != 0) & (self._subject != 0))
    for group in self._shared_groups(self._columns['loose_subject'], rows):
      first_rows = {}  # of every subject and split
      for row in group.tolist():
        first_rows.setdefault((self._subject[row], self._split[row]), row)
      subjects, splits = zip(*first_rows, strict=True)
      if len(set(subjects)) < 2 or len(set(splits)) < 2:
        continue
      row, *others = first_rows.values()
      places = ', '.join(f'{self._where(o)} ({self._split_of(o)})' for o in others)
      self._deferred[row].append(
        lambda r, places=places: self._add_similar_subject(r, places, report)
      )

  def _add_similar_subject(self, row: lists.ListRow, places: str, report: Report) -> None:
    text = f'subject {row.subject} may be that of {places}: capitals or leading zeros differ'
    report.notes.append(Note(SIMILAR, Finding('leak-subject', row.list, row.line, text)))

  def resolve(self, report: Report) -> None:
    """Reads the rows of deferred findings again, and adds the findings to the report."""
    for position, row in self._read_again(self._deferred):
      for make_finding in self._deferred.pop(position):
        if finding := make_finding(row):
          rule, text = finding
          report.add(rule, row, text)
          self.faulty.add(position)
    self._mark_accepted(report)

  def _mark_accepted(self, report: Report) -> None:
    """Sets `accepted` of the subjects whose only leaks are accepted ones."""
    accepted = {}  # {subject: name of the known leak}
    for name in report.accepted:
      for file, _ in KNOWN_LEAKS[name]:
        parsed = path_layouts.parse(file)
        if any(n.exception == name and n.finding.rule == 'leak-file' for n in report.notes):
          accepted[f'{parsed.dataset}/{parsed.subject}'] = name
    if not accepted:
      return
    texts = [f.text for f in report.findings if f.rule.startswith('leak')]
    for i, leak in enumerate(report.leaks):
      if leak.subject in accepted and not any(leak.subject in text for text in texts):
        report.leaks[i] = leak._replace(accepted=accepted[leak.subject])

  def check_shared_images(
    self, positions: np.ndarray, digests: exact_duplicates.Digests, report: Report
  ) -> None:
    """Images with the same bytes under other names, see `exact_duplicates`.

    Args:
      positions: [N], of `distinct`.
      digests: {modality: [N] uint64}, 0 for images without signal.
      report: gets the findings.
    """

    def carries_signal(modality: str, row: int) -> bool:
      return True  # images without signal have no digest

    places = self._places_by_split(positions)
    parts = {code: {m: d[at] for m, d in digests.items()} for code, at in places.items()}
    shared, equal, frozen = [], [], []  # of positions
    for a, b in itertools.combinations([code for code in parts if code], 2):
      for image in exact_duplicates.find_shared(parts[a], parts[b], carries_signal):
        here, there = positions[places[b][image.row]], positions[places[a][image.other]]
        shared.append((int(here), int(there), image.modalities))
    for code, part in parts.items():
      for group in exact_duplicates.group_equal_rows(part, carries_signal):
        equal.append(positions[places[code][group]].tolist())
      videos = self._video[positions[places[code]]].tolist()
      for row, first, modality in exact_duplicates.find_frozen(part, videos, carries_signal):
        frozen.append((*map(int, positions[places[code][[row, first]]]), modality))
    pairs = [pair[:2] for pair in (*shared, *frozen)]
    rows = dict(self._read_again(itertools.chain.from_iterable((*pairs, *equal))))
    for here, there, modalities in shared:
      self._report_shared_image(rows, here, there, modalities, report)
    for group in equal:
      self._report_equal_rows(rows, group, report)
    for here, there, modality in frozen:
      row = rows[here]
      text = f'{modality} {row.paths[modality]}: the same bytes as of another video'
      report.add('frozen', row, f'{text} ({self._where(there, row.list)})')

  def _report_shared_image(
    self,
    rows: Mapping[int, lists.ListRow],
    here: int,
    there: int,
    modalities: Sequence[str],
    report: Report,
  ) -> None:
    files, others = (' '.join(rows[p].paths[m] for m in modalities) for p in (here, there))
    if files != others:  # one file in two splits is a leak-file
      text = f'{files} of {self._split_of(here)}: the same bytes as {others} of '
      text += f'{self._split_of(there)} ({self._where(there)})'
      report.add('leak-image', rows[here], text)

  def _report_equal_rows(
    self, rows: Mapping[int, lists.ListRow], group: list[int], report: Report
  ) -> None:
    first = rows[group[0]]
    labels = {rows[position].label for position in group} - {''}
    for position in group:
      row = rows[position]
      if len(labels) > 1 and row.label:
        other = next(rows[p] for p in group if rows[p].label not in ('', row.label))
        text = f'{row.id} is {row.label} here, and {other.id} {other.label}'
        report.add('label', row, f'{text}: the same bytes; remove both')
      elif len(labels) < 2 and position != group[0]:
        text = f'{first_path(row)}: the same bytes as {first_path(first)}'
        report.add('same-bytes', row, f'{text} ({self._where(group[0], row.list)})')

  def check_near_duplicates(
    self, positions: np.ndarray, fingerprints: bytes, report: Report
  ) -> None:
    """Images of two splits that look the same, in rows without reported leaks.

    Args:
      positions: [N], of `distinct`.
      fingerprints: of these, joined, see `near_duplicates`.
      report: gets the findings.
    """
    from flexfas_jax.protocols import near_duplicates  # imports OpenCV, for images only

    images = np.frombuffer(fingerprints, np.uint8)
    images = images.reshape(len(positions), near_duplicates.SIDE**2)
    places = {code: at for code, at in self._places_by_split(positions).items() if code}
    pairs = []
    for a, b in itertools.combinations(places, 2):
      for similar in near_duplicates.find(images[places[a]], images[places[b]]):
        here = int(positions[places[b][similar.row]])
        there = int(positions[places[a][similar.other]])
        if self._video[here] != self._video[there] or not self._video[here]:
          pairs.append((here, there, similar.correlation))
    rows = dict(self._read_again(itertools.chain.from_iterable(pair[:2] for pair in pairs)))
    leaking = {(f.list, f.row) for f in report.findings if f.rule.startswith('leak')}
    for here, there, correlation in pairs:
      row = rows[here]
      path, other = (rows[place].paths[near_duplicates.MODALITY] for place in (here, there))
      if (row.list, row.line) not in leaking and path != other:
        text = f'{path} of {self._split_of(here)}: looks like {other} of '
        text += f'{self._split_of(there)} ({self._where(there)}), correlation {correlation:.2f}'
        report.add('near-duplicate', row, text)

  def columns_for_shortcuts(self) -> dict[str, list]:
    """Columns of all rows that need no files: by name, and for each modality its presence."""
    texts = {key: text for hashed in self._hashed_lists for key, text in hashed.texts.items()}
    list_names = [hashed.list_of(0) if len(hashed) else '' for hashed in self._hashed_lists]
    columns = {
      'label': [_LABELS[label] for label in self._label.tolist()],
      'subject': self._subject.tolist(),
      'video': self._video.tolist(),
      'split': [self._split_names[code] for code in self._split.tolist()],
      'list': [list_names[number] for number in self._list.tolist()],
    }
    for modality, file in zip(schema.MODALITIES, self._files, strict=True):
      columns[modality] = (file != 0).tolist()
    for name in ('dataset', 'device'):
      columns[name] = [texts[key] for key in self._columns[name].tolist()]
    return columns

  def distinct(self) -> Iterator[tuple[int, str, lists.ListRow]]:
    """Yields (position, split, row) of each triplet at its first occurrence in the lists."""
    _, first = np.unique(self._columns['triplet'], return_index=True)
    for number, hashed in enumerate(self._hashed_lists):
      start, end = self._starts[number : number + 2].tolist()
      within = np.sort(first[(first >= start) & (first < end)]) - start
      for position, row in hashed.fetch(within.tolist()) if len(within) else ():
        yield start + position, self._split_of(start + position), row

  def sample_paths(self, at_most: int) -> dict[str, dict[str, list[str]]]:
    """Paths by data set and modality: of about `at_most` rows each, evenly over the lists."""
    texts = {key: text for hashed in self._hashed_lists for key, text in hashed.texts.items()}
    chosen = {}  # {(data set, modality): positions}
    for key in np.unique(self._columns['dataset']).tolist():
      of_dataset = self._columns['dataset'] == key
      for modality, files in zip(schema.MODALITIES, self._files, strict=True):
        rows = np.flatnonzero(of_dataset & (files != 0))
        chosen[texts[key], modality] = rows[:: max(1, len(rows) // at_most)].tolist()
    rows = dict(self._read_again(itertools.chain.from_iterable(chosen.values())))
    paths = collections.defaultdict(dict)
    for (dataset, modality), positions in chosen.items():
      paths[dataset][modality] = [rows[position].paths[modality] for position in positions]
    return paths

  def n_distinct(self) -> int:
    """The number of distinct triplets."""
    return len(np.unique(self._columns['triplet']))

  def _defer(self, row: int, rule: str, describe: Callable[[lists.ListRow], str]) -> None:
    self._deferred[row].append(lambda r: (rule, describe(r)))

  def _read_again(self, positions: Iterable[int]) -> Iterator[tuple[int, lists.ListRow]]:
    """Yields (position, row) in ascending order."""
    positions = sorted(set(positions))
    for start, hashed in zip(self._starts.tolist(), self._hashed_lists, strict=False):
      within = [p - start for p in positions if start <= p < start + len(hashed)]
      for position, row in hashed.fetch(within) if within else ():
        yield start + position, row

  def _places_by_split(self, positions: np.ndarray) -> dict[int, np.ndarray]:
    """{code of a split: places of its rows among positions [N]}."""
    codes = self._split[positions]
    return {int(code): np.flatnonzero(codes == code) for code in np.unique(codes)}

  def _where(self, row: int, from_list: str = '') -> str:
    """List and line of a row; the line only if the message is about the same list."""
    number = self._list[row]
    name = self._hashed_lists[number].list_of(int(row - self._starts[number]))
    line = self._columns['line'][row]
    return f'row {line}' if name == from_list else f'{name}:{line}'

  def _split_of(self, row: int) -> str:
    return self._split_names[self._split[row]]


def _identify_by_folder(video: np.ndarray, folder: np.ndarray, subject: np.ndarray) -> np.ndarray:
  """Videos with their folder as part of the key where needed, as `identity.videos` has it.

  That is: for videos without subjects, if one name occurs in several folders.

  Args:
    video, folder, subject: [rows] hashes.
  """
  rows = np.flatnonzero((subject == 0) & (video != 0) & (folder != 0))
  pairs = np.unique(np.stack([video[rows], folder[rows]]), axis=1)
  if pairs.shape[1] > len(np.unique(pairs[0])):
    video[rows] ^= folder[rows] * _HASH_FACTOR
  return video


def _usual_order(item: tuple[str, int]) -> tuple[int, str]:
  usual = ('train', 'val', 'test')
  return (usual.index(item[0]) if item[0] in usual else len(usual), item[0])


def _starts_group(keys: np.ndarray) -> np.ndarray:
  """[n] bool: whether a key differs from the one before it."""
  return np.r_[True, keys[1:] != keys[:-1]][: len(keys)]


def _group_starts(keys: np.ndarray) -> np.ndarray:
  """The places where runs of equal keys start."""
  return np.flatnonzero(_starts_group(keys))


def _find_repeats(keys: np.ndarray, within: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Rows that repeat a key, and for each the first row with the key.

  Args:
    keys: [rows].
    within: [rows]; keys are compared between rows with the same value.

  Returns:
    Rows [n], ascending, and first rows [n].
  """
  order = np.lexsort((np.arange(len(keys)), keys, within))
  new = _starts_group(keys[order]) | _starts_group(within[order])
  first_of = np.empty(len(keys), np.int64)
  if len(order):
    first_of[order] = order[np.flatnonzero(new)][np.cumsum(new) - 1]
  repeated = np.sort(order[~new])
  return repeated, first_of[repeated]


def _keys_of_several_splits(columns: Sequence[np.ndarray], split: np.ndarray) -> np.ndarray:
  """The keys of columns, each [rows], that are in several splits; few, where nothing leaks."""
  of_splits = [
    np.unique(np.concatenate([column[split == code] for column in columns]))
    for code in np.unique(split)
    if code
  ]
  keys = np.concatenate([np.empty(0, np.int64), *of_splits])
  keys.sort()
  return keys[1:][keys[1:] == keys[:-1]]


def _select_shared(
  keys: np.ndarray, rows: np.ndarray, values: np.ndarray, bit: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Selects the keys that rows of several splits have.

  Args:
    keys, rows, values: [n]; a key of 0 is unknown.
    bit: of all rows: the bit of the split.

  Returns:
    Keys, rows, values, and the bits of all splits that have the key; sorted by key, then row.
  """
  order = np.lexsort((rows, keys))
  keys, rows, values = keys[order], rows[order], values[order]
  start = _group_starts(keys)
  if not len(start):
    return keys, rows, values, keys
  splits = np.bitwise_or.reduceat(bit[rows], start)
  several = (splits & (splits - 1) != 0) & (keys[start] != 0)
  length = np.diff(np.r_[start, len(keys)])
  selected = np.repeat(several, length)
  return keys[selected], rows[selected], values[selected], np.repeat(splits, length)[selected]
