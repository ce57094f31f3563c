"""Checks that training, validation and test sets share no triplet, video, subject or image.

Tests may share with each other. Sets are checked whenever they are opened.
"""

import collections
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from flexfas_jax import identity
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.protocols import exact_duplicates, path_layouts
from flexfas_jax.protocols.findings import RULES
from flexfas_jax.protocols.lint.report import KNOWN_LEAKS

# A leak by construction, whatever the lists: a subject with one attack in train, another in val.
SUBJECTS_OF_ATTACKS = 'subjects_of_attacks'
_ALIASES = {'people_of_attacks': SUBJECTS_OF_ATTACKS}  # former names
_MAX_LISTED = 10  # leaks that an error lists
VIDEO_NAME, VIDEO_WITHOUT_SUBJECT = 'video alone', 'video without subject'  # columns, see `check`
# Columns of two sets that are compared, the widest first: it includes the others.
_COMPARISONS = (
  ('subject', 'subject'),
  ('video', 'video'),
  (VIDEO_WITHOUT_SUBJECT, VIDEO_NAME),
  (VIDEO_NAME, VIDEO_WITHOUT_SUBJECT),
  ('id', 'id'),
)
# An id names a triplet, and so its files.
_RULES = {'subject': 'leak-subject', 'video': 'leak-video', 'id': 'leak-file'}
_COMPARED = {field for pair in _COMPARISONS for field in pair}
_DIGITS = re.compile('[0-9]{1,18}')

_WAY_OUT = (
  'Remove them from one set with a selection: set/config:split[subject!=...]. To accept a leak of '
  'published lists: --config.accept_known_leaks="(\'NAME\',)"'
)

Columns = Mapping[str, Sequence[str]]


class ImageSet(NamedTuple):
  """A set whose images can be compared."""

  columns: Columns
  digests: exact_duplicates.Digests
  image: Callable[[int, str], bytes]  # of a row and a modality

  def carries_signal(self, modality: str, row: int) -> bool:
    """Whether equal bytes of an image prove anything, see `exact_duplicates`."""
    return exact_duplicates.carries_signal(self.image(row, modality), modality)


class Leak(NamedTuple):
  """A subject, video or triplet in two sets."""

  field: str  # 'subject', 'video' or 'id'
  name: str
  sets: tuple[str, str]
  examples: tuple[int, int]  # number in each set
  accepted: str = ''  # the name that accepts it, of `known_leak_names`

  def __str__(self) -> str:
    sets = ' and '.join(f'{s} ({n})' for s, n in zip(self.sets, self.examples, strict=True))
    return f'{self.rule}: {self.field} {self.name} in {sets}'

  @property
  def rule(self) -> str:
    """The rule of `findings.RULES` by which lint and prepare report such a leak."""
    return _RULES[self.field]


def known_leak_names() -> tuple[str, ...]:
  """The leaks that can be accepted, by name."""
  return (*KNOWN_LEAKS, SUBJECTS_OF_ATTACKS)


def check(
  train: Columns,
  val: Columns,
  tests: Mapping[str, Columns],
  accept: Collection[str] = (),
  val_name: str = 'val',
  way_out: str = _WAY_OUT,
) -> list[Leak]:
  """Checks that training, validation and test sets share no subject, video or triplet.

  Names are compared by `identity`, which ignores differences in spelling.

  Args:
    train, val: {'id', 'video', 'subject': [N] str}, '' where unknown; optionally `VIDEO_NAME`,
      the names of videos without their subjects, and `VIDEO_WITHOUT_SUBJECT`, the same for rows
      without a subject and '' for others. These two are compared with each other.
    tests: the same by name.
    accept: of `known_leak_names`. A published leak covers its own subject only;
      'subjects_of_attacks' a subject in train and val, if no video is in both.
    val_name: the name of val in messages.
    way_out: the end of an error message.

  Returns:
    The accepted leaks, to be reported with every metric.

  Raises:
    ConfigError: an unknown name in `accept`.
    DataError: any other leak.
  """
  accept = _current_names(accept)
  sets = {name: _canonical(columns) for name, columns in ((val_name, val), *tests.items())}
  sets = {'train': _canonical(train), **sets}
  pairs = [('train', val_name), *itertools.product(('train', val_name), tests)]
  leaks = [leak for pair in pairs for leak in _find_leaks(pair, sets, accept)]
  if refused := [leak for leak in leaks if not leak.accepted]:
    _check_ids(refused, sets)
    raise DataError(
      '\n'.join([
        f'{len(refused)} leaks: metrics would be of data that was trained on',
        *_first_lines(map(str, refused)),
        *_rule_counts(leak.rule for leak in refused),
        f'{way_out}, of {", ".join(known_leak_names())}',
      ])
    )  # fmt: skip
  return leaks


def _current_names(accept: Collection[str]) -> set[str]:
  """The names of accepted leaks, aliases replaced.

  Raises:
    ConfigError: an unknown name.
  """
  names = {_ALIASES.get(name, name) for name in accept}
  if unknown := sorted(names - set(known_leak_names())):
    raise ConfigError(
      f'no known leak is called {unknown[0]!r}; there are: {", ".join(known_leak_names())}'
    )
  return names


def _check_ids(leaks: Sequence[Leak], sets: Mapping[str, Columns]) -> None:
  """Raises a DataError if all leaks are of ids that are row numbers."""
  pairs = {leak.sets for leak in leaks}
  if all(leak.field == 'id' for leak in leaks) and all(
    _are_row_numbers(sets[name]['id']) for pair in pairs for name in pair
  ):
    names = ' and '.join(next(iter(pairs)))
    raise DataError(
      f'the ids of {names} are row numbers: equal ids belong to different samples, so leaks cannot '
      'be excluded. Make ids unique, e.g. by the name of the split before them: '
      'awk -F, -v OFS=, \'NR > 1 {$1 = "test/" $1} 1\' test.csv, if ids are the first column'
    )


def check_images(sets: Mapping[str, ImageSet], accept: Collection[str] = ()) -> None:
  """Checks that no image is in two sets under any name, see `exact_duplicates`.

  Args:
    sets: 'train' and 'val', if available, and tests by name. Tests may share images.
    accept: as of `check`; subjects of published leaks may have images in two sets.

  Raises:
    DataError: shared images; the text names some.
  """
  names = _current_names(accept) & set(KNOWN_LEAKS)
  accepted = {_subject_of(path) for name in names for path, _ in KNOWN_LEAKS[name]}
  counts, lines = {}, []
  for first, second in itertools.combinations(sets, 2):
    if first not in ('train', 'val'):
      continue
    a, b = sets[first], sets[second]
    shared = exact_duplicates.find_shared(a.digests, b.digests, a.carries_signal)
    subjects = identity.canonical([b.columns['subject'][image.row] for image in shared])
    pairs = zip(shared, subjects, strict=True)
    shared = [image for image, subject in pairs if subject not in accepted]
    if shared:
      counts[first, second] = len(shared)
    lines += [
      f'leak-image: {", ".join(image.modalities)} of {b.columns["id"][image.row]} in {second}: the '
      f'same bytes as {a.columns["id"][image.other]} in {first}'
      for image in shared
    ]
  if counts:
    totals = [f'{n} samples of {second} with {first}' for (first, second), n in counts.items()]
    raise DataError(
      '\n'.join([
        f'sets share images: {", ".join(totals)}; metrics would be of data that was trained on',
        *_first_lines(lines),
        *_rule_counts(['leak-image'] * len(lines)),
        'Remove them from one set with a selection, set/config:split[id!=...]. If one set is a '
        'copy of the other, omit it',
      ])
    )  # fmt: skip


def check_contradictions(sets: Mapping[str, ImageSet]) -> list[str]:
  """Checks that the images within each set do not contradict each other, see `exact_duplicates`.

  `prepare` checks each prepared set; a set here may join several of them.

  Args:
    sets: as of `check_images`.

  Returns:
    Notes on repeated samples.

  Raises:
    DataError: equal images with two labels, or a sensor that repeats an image of another video.
  """
  errors, notes = {'label': [], 'frozen': []}, []  # {rule: texts}
  for name, images in sets.items():
    columns = images.columns
    ids, labels = columns['id'], columns['label']
    n_repeated = 0
    for group in exact_duplicates.group_equal_rows(images.digests, images.carries_signal):
      first = group[0]
      other = next((row for row in group if labels[row] != labels[first]), None)
      if other is None:
        n_repeated += len(group) - 1
      else:
        text = f'{ids[first]} is {labels[first]}, and {ids[other]} {labels[other]}'
        errors['label'].append(f'label: {text}: the same bytes, both in {name}')
    for row, first, modality in exact_duplicates.find_frozen(
      images.digests, columns['video'], images.carries_signal
    ):
      text = f'{modality} of {ids[row]}: the same bytes as of {ids[first]}, of another video'
      errors['frozen'].append(f'frozen: {text}, both in {name}')
    if n_repeated:
      text = f'the images of {n_repeated} samples of {name} equal those of other samples of {name}'
      notes.append(f'note (same-bytes): {text}; one of each may be enough')
  if lines := [*errors['label'], *errors['frozen']]:
    raise DataError(
      '\n'.join([
        'images contradict each other',
        *_first_lines(lines),
        *_rule_counts(rule for rule, texts in errors.items() for _ in texts),
        'Omit samples with a selection, set/config:split[id!=...]',
      ])
    )  # fmt: skip
  return notes


def find_similar_subjects(
  train: Columns, val: Columns, tests: Mapping[str, Columns], val_name: str = 'val'
) -> list[str]:
  """Notes on subjects of two sets whose names differ only in case or leading zeros.

  Args: as of `check`.
  """
  sets = {'train': train, val_name: val, **tests}
  names = {key: set(identity.canonical(columns['subject'])) for key, columns in sets.items()}
  lines = []
  for first, second in itertools.product(('train', val_name), (val_name, *tests)):
    by_loose_name = {identity.similarity_key(name): name for name in names[first] - {''}}
    for name in sorted(names[second] - names[first] - {''}):
      similar = by_loose_name.get(identity.similarity_key(name))
      if similar and similar not in names[second]:
        lines.append(
          f'the subjects {similar} in {first} and {name} in {second} may be the same subject'
        )
  return _first_lines(lines)


def check_pretraining(subjects: Collection[str], evaluated: Mapping[str, Columns]) -> None:
  """Checks that no subject of the pretraining is evaluated.

  Args:
    subjects: of the pretraining.
    evaluated: {'val' or a test's name: columns}.

  Raises:
    DataError: shared subjects; the text names some.
  """
  subjects, lines = set(identity.canonical(subjects)) - {''}, []
  for name, columns in evaluated.items():
    counts = collections.Counter(
      subject for subject in identity.canonical(columns['subject']) if subject in subjects
    )
    lines += [
      f'leak-subject: subject {subject} in pretraining and {name} ({n})'
      for subject, n in sorted(counts.items())
    ]
  if lines:
    raise DataError(
      '\n'.join([
        'subjects of the pretraining are evaluated',
        *_first_lines(lines),
        'Remove them with a selection: set/config:split[subject!=...], or start from weights that '
        'were trained without them',
      ])
    )  # fmt: skip


def check_left_out(train: Columns, left_out: Mapping[str, Columns]) -> None:
  """Checks that attacks which a fold leaves out are not trained on.

  Args:
    train: its 'label' and 'attack_type'.
    left_out: {name: the same columns} of sets whose attacks must not be in train.

  Raises:
    DataError: shared attacks; the text names some.
  """
  trained, lines = _count_species(train), []
  for name, columns in left_out.items():
    lines += [
      f'left-out attack {species} in train ({trained[species]}) and {name} ({n})'
      for species, n in sorted(_count_species(columns).items())
      if species in trained
    ]
  if lines:
    raise DataError(
      '\n'.join([
        'attacks that the fold leaves out are trained on; metrics would not be of unseen attacks',
        *_first_lines(lines),
        'Remove them from config.train with a selection: set/config:split[species!=...]; or, if '
        'nothing is left out, set config.left_out=()',
      ])
    )  # fmt: skip


def _count_species(columns: Columns) -> collections.Counter:
  pairs = zip(columns['label'], identity.canonical(columns['attack_type']), strict=True)
  return collections.Counter(species for label, species in pairs if label == 'attack' and species)


def describe_accepted(accepted: Sequence[Leak]) -> list[str]:
  """Notes on accepted leaks, one for each name and pair of sets."""
  counts = collections.Counter((leak.accepted, leak.sets) for leak in accepted)
  return [
    f'accepted leak {name}: {n} {"subject" if n == 1 else "subjects"} in {" and ".join(sets)}'
    for (name, sets), n in counts.items()
  ]


def _first_lines(lines: Iterable[str]) -> list[str]:
  """The first lines, and how many more there are."""
  lines = list(lines)
  more = [f'... and {len(lines) - _MAX_LISTED} more'] if len(lines) > _MAX_LISTED else []
  return lines[:_MAX_LISTED] + more


def _rule_counts(rules: Iterable[str]) -> list[str]:
  """The number of findings of each rule, and its meaning, in the format of prepare."""
  counts = collections.Counter(rules)
  return [f'{rule}: {n} ({RULES[rule]})' for rule, n in sorted(counts.items())]


def _canonical(columns: Columns) -> Columns:
  return {field: identity.canonical(columns[field]) for field in columns if field in _COMPARED}


def _find_leaks(
  pair: tuple[str, str], sets: Mapping[str, Columns], accept: Collection[str]
) -> list[Leak]:
  leaks, reported = [], (set(), set())  # of each set: rows whose leak is reported
  columns = [sets[name] for name in pair]
  for fields in _COMPARISONS:
    values = [of_set.get(field, ()) for of_set, field in zip(columns, fields, strict=True)]
    shared = (set(values[0]) & set(values[1])) - {''}
    rows_by_name = [_rows_by_value(of_set, shared) for of_set in values]
    field = 'video' if fields[0] != fields[1] else fields[0]
    for name in sorted(shared):
      rows = [of_set[name] for of_set in rows_by_name]
      if all(done.issuperset(some) for done, some in zip(reported, rows, strict=True)):
        continue  # reported with its subject or video
      videos = [
        {of_set['video'][i] for i in some} for of_set, some in zip(columns, rows, strict=True)
      ]
      accepted = _accepted_by(field, name, pair, videos[0].isdisjoint(videos[1]), accept)
      leaks.append(Leak(field, name, pair, (len(rows[0]), len(rows[1])), accepted))
      for done, some in zip(reported, rows, strict=True):
        done.update(some)
  return leaks


def _are_row_numbers(ids: Sequence[str]) -> bool:
  """Whether ids are 0 to N - 1 or 1 to N, in any order."""
  if not all(map(_DIGITS.fullmatch, ids)):
    return False
  numbers = sorted(map(int, ids))
  return numbers in (list(range(len(ids))), list(range(1, len(ids) + 1)))


def _rows_by_value(values: Sequence[str], selected: set[str]) -> dict[str, list[int]]:
  rows = collections.defaultdict(list)
  for i, value in enumerate(values):
    if value in selected:
      rows[value].append(i)
  return rows


def _accepted_by(
  field: str, name: str, pair: tuple[str, str], disjoint_videos: bool, accept: Collection[str]
) -> str:
  """The name of `accept` that accepts a leak, or ''."""
  if field == 'subject':
    for known in sorted(set(accept) & set(KNOWN_LEAKS)):
      if name in {_subject_of(path) for path, _ in KNOWN_LEAKS[known]}:
        return known
    if SUBJECTS_OF_ATTACKS in accept and pair == ('train', 'val') and disjoint_videos:
      return SUBJECTS_OF_ATTACKS
  return ''


def _subject_of(path: str) -> str:
  parsed = path_layouts.parse(path)
  return f'{parsed.dataset}/{parsed.subject}' if parsed else ''
