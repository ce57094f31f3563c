"""Whoever was trained on is not tested on: proven when data is opened, not assumed.

Training, val and each test must share no triplet, video or person. Tests may share with each other.
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
from flexfas_jax.protocols.lint.linter import KNOWN_LEAKS

# Leaks by construction: how a protocol parts its data, whatever the lists.
SUBJECTS_OF_ATTACKS = 'people_of_attacks'
_SHOWN = 10  # leaks that an error lists
VIDEO_NAME, VIDEO_WITHOUT_SUBJECT = 'video alone', 'video without subject'  # columns, see `check`
# Which columns of two sides are compared; the widest first: it includes the others.
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
  'Take them out of one side with a selection: set/config:split[subject!=...]. A leak that the '
  'published lists have: --config.accept_known_leaks="(\'NAME\',)"'
)

Columns = Mapping[str, Sequence[str]]


class SideImages(NamedTuple):
  """A side whose images can be compared."""

  columns: Columns
  digests: exact_duplicates.Digests
  image: Callable[[int, str], bytes]  # of a row and a modality


class Leak(NamedTuple):
  """Something that stands on both sides of a line."""

  field: str  # 'subject', 'video' or 'id'
  name: str
  sides: tuple[str, str]
  examples: tuple[int, int]  # on each side
  accepted: str = ''  # by which name

  def __str__(self) -> str:
    sides = ' and '.join(f'{s} ({n})' for s, n in zip(self.sides, self.examples, strict=True))
    return f'{self.rule}: {self.field} {self.name} in {sides}'

  @property
  def rule(self) -> str:
    """Of `findings.RULES`, as lint and prepare report it of rows."""
    return _RULES[self.field]


def known_leak_names() -> tuple[str, ...]:
  """What may be accepted, by name."""
  return (*KNOWN_LEAKS, SUBJECTS_OF_ATTACKS)


def check(
  train: Columns,
  val: Columns,
  tests: Mapping[str, Columns],
  accept: Collection[str] = (),
  val_name: str = 'val',
  way_out: str = _WAY_OUT,
) -> list[Leak]:
  """Finds what training, val and tests share.

  Names are compared as `identity` has them, whatever their spelling.

  Args:
    train, val: {'id', 'video', 'subject': [N] str}, '' where it is unknown; optionally
      `VIDEO_NAME`, the names of videos without their subjects, and `VIDEO_WITHOUT_SUBJECT`, the
      same for rows without a subject and '' for others. The two are compared with each other.
    tests: the same by name.
    accept: of `known_leak_names`. A published leak covers its own person alone; 'people_of_attacks'
      a person with one attack in train and another in val, as long as no video is in both.
    val_name: what val is called in messages.
    way_out: of an error.

  Returns:
    What was accepted, to be told with every figure.

  Raises:
    ConfigError: an unknown name in `accept`.
    DataError: anything else that is shared.
  """
  if unknown := set(accept) - set(known_leak_names()):
    raise ConfigError(
      f'no known leak is called {sorted(unknown)[0]!r}; there are: {", ".join(known_leak_names())}'
    )
  sides = {name: _canonical(side) for name, side in _sides(train, val, tests, val_name).items()}
  pairs = [('train', val_name), *itertools.product(('train', val_name), tests)]
  found = [o for pair in pairs for o in _shared(pair, sides, accept)]
  if wrong := [overlap for overlap in found if not overlap.accepted]:
    pairs = {o.sides for o in wrong}
    if all(o.field == 'id' for o in wrong) and all(
      _are_row_numbers(sides[name]['id']) for pair in pairs for name in pair
    ):
      names = ' and '.join(next(iter(pairs)))
      raise DataError(
        f'the ids of {names} are row numbers, so that equal ids are of different samples and what '
        'is in both files cannot be proven; make ids of your own, e.g. by the name of the split '
        'before them: awk -F, -v OFS=, \'NR > 1 {$1 = "test/" $1} 1\' test.csv, if ids are the '
        'first column'
      )
    lines = list(map(str, wrong[:_SHOWN]))
    more = [f'... and {len(wrong) - _SHOWN} more'] if len(wrong) > _SHOWN else []
    names = ', '.join(known_leak_names())
    raise DataError(
      '\n'.join([
        f'{len(wrong)} stand on both sides; figures would be of what was trained on',
        *lines,
        *more,
        *_meanings(overlap.rule for overlap in wrong),
        f'{way_out}, of {names}',
      ])
    )  # fmt: skip
  return found


def check_images(sides: Mapping[str, SideImages], accept: Collection[str] = ()) -> None:
  """Refuses images that stand on two sides, whatever they are called there, see `exact_duplicates`.

  Args:
    sides: 'train' and 'val', where they are here, and tests by name.
    accept: as of `check`; subjects of published leaks may have images on two sides.

  Raises:
    DataError: images are shared; the text names some of both sides.
  """
  leaks = [path for name in set(accept) & set(KNOWN_LEAKS) for path, _ in KNOWN_LEAKS[name]]
  accepted, counts, lines = set(map(_person, leaks)), {}, []
  for one, other in itertools.combinations(sides, 2):
    if one not in ('train', 'val'):
      continue  # tests may share
    a, b = sides[one], sides[other]
    found = exact_duplicates.find_shared(
      a.digests, b.digests, lambda m, row, a=a: exact_duplicates.carries_signal(a.image(row, m), m)
    )
    subjects = identity.canonical([b.columns['subject'][f.row] for f in found])
    found = [f for f, who in zip(found, subjects, strict=True) if who not in accepted]
    if found:
      counts[one, other] = len(found)
    lines += [
      f'leak-image: {", ".join(f.modalities)} of {b.columns["id"][f.row]} in {other}: the same '
      f'bytes as {a.columns["id"][f.other]} in {one}'
      for f in found[: _SHOWN - len(lines)]
    ]
  if counts:
    shared = [f'{n} samples of {other} with {one}' for (one, other), n in counts.items()]
    more = sum(counts.values()) - len(lines)
    raise DataError(
      '\n'.join([
        f'sides share images: {", ".join(shared)}; figures would be of what was trained on',
        *lines,
        *([f'... and {more} more'] if more else []),
        *_meanings(['leak-image'] * sum(counts.values())),
        'Take them out of one side with a selection, set/config:split[id!=...]; where one set is a '
        'copy of the other, leave it out',
      ])
    )  # fmt: skip


def check_contradictions(sides: Mapping[str, SideImages]) -> list[str]:
  """Refuses a side whose images contradict each other, see `exact_duplicates`.

  Each set is proven to have none of these when it is prepared; a side may be made of several sets.

  Args:
    sides: as of `check_images`.

  Returns:
    Notes on samples that are there twice.

  Raises:
    DataError: images with two labels, or a sensor that repeats an image in another video.
  """
  wrong, notes = collections.defaultdict(list), []
  for name, side in sides.items():
    ids, videos = side.columns['id'], side.columns['video']
    labels = side.columns['label']
    evidence = lambda m, row, side=side: exact_duplicates.carries_signal(side.image(row, m), m)  # noqa: E731
    copies = 0
    for group in exact_duplicates.group_equal_rows(side.digests, evidence):
      one = group[0]
      other = next((row for row in group if labels[row] != labels[one]), None)
      if other is None:
        copies += len(group) - 1
        continue
      text = f'{ids[one]} is {labels[one]}, and {ids[other]} {labels[other]}: the same bytes'
      wrong['label'].append(f'label: {text}, both in {name}')
    for row, first, modality in exact_duplicates.find_frozen(side.digests, videos, evidence):
      text = f'{modality} of {ids[row]}: the same bytes as of {ids[first]}, of another video'
      wrong['frozen'].append(f'frozen: {text}, both in {name}')
    if copies:
      text = f'the images of {copies} samples of {name} are those of others of {name}'
      notes.append(f'note (same-bytes): {text}; one may be enough')
  if lines := [line for some in wrong.values() for line in some]:
    raise DataError(
      '\n'.join([
        'images contradict each other',
        *lines[:_SHOWN],
        *([f'... and {len(lines) - _SHOWN} more'] if len(lines) > _SHOWN else []),
        *_meanings(rule for rule, some in wrong.items() for _ in some),
        'Leave samples out with a selection, set/config:split[id!=...]',
      ])
    )  # fmt: skip
  return notes


def _meanings(rules: Iterable[str]) -> list[str]:
  """How often each rule was broken, and what it means, as prepare reports it."""
  counts = collections.Counter(rules)
  return [f'{rule}: {n} ({RULES[rule]})' for rule, n in sorted(counts.items())]


def find_similar_subjects(
  train: Columns, val: Columns, tests: Mapping[str, Columns], val_name: str = 'val'
) -> list[str]:
  """Notes on subjects of two sides whose names differ in capitals or leading zeros alone.

  Args: as of `check`.
  """
  sides = _sides(train, val, tests, val_name)
  names = {side: set(identity.canonical(columns['subject'])) for side, columns in sides.items()}
  lines = []
  for one, other in itertools.product(('train', val_name), (val_name, *tests)):
    resembling = {identity.resembling(name): name for name in names[one] - {''}}
    for name in sorted(names[other] - names[one] - {''}):
      if (alike := resembling.get(identity.resembling(name))) and alike not in names[other]:
        lines.append(f'the subjects {alike} in {one} and {name} in {other} may be one person')
  more = [f'... and {len(lines) - _SHOWN} more'] if len(lines) > _SHOWN else []
  return lines[:_SHOWN] + more


def check_pretraining(people: Collection[str], judged: Mapping[str, Columns]) -> None:
  """Refuses to judge by people whom the weights that a training started from have seen.

  Args:
    people: of that pretraining.
    judged: {'val' or a test's name: columns}.

  Raises:
    DataError: some of them are there; the text names them.
  """
  people, wrong = set(identity.canonical(people)) - {''}, []
  for side, columns in judged.items():
    names = identity.canonical(columns['subject'])
    counts = collections.Counter(name for name in names if name in people)
    wrong += [
      f'leak-subject: subject {name} in pretraining and {side} ({n})'
      for name, n in sorted(counts.items())
    ]
  if wrong:
    more = [f'... and {len(wrong) - _SHOWN} more'] if len(wrong) > _SHOWN else []
    raise DataError(
      '\n'.join([
        'people are tested on whom the weights were trained on, that the training starts from',
        *wrong[:_SHOWN],
        *more,
        'Take them out with a selection: set/config:split[subject!=...], or start from weights '
        'that were trained without them',
      ])
    )  # fmt: skip


def check_left_out(train: Columns, judged: Mapping[str, Columns]) -> None:
  """Refuses to train on attacks that a fold leaves out.

  Args:
    train: its 'label' and 'attack_type'.
    judged: {how the side is called: the same of it}: none of its attacks may be in train.

  Raises:
    DataError: some of them are; the text names them.
  """
  trained, wrong = _species(train), []
  for side, columns in judged.items():
    wrong += [
      f'left out, and trained on: attack {name} in train ({trained[name]}) and {side} ({n})'
      for name, n in sorted(_species(columns).items())
      if name in trained
    ]
  if wrong:
    raise DataError(
      '\n'.join([
        'what the fold leaves out is trained on; figures would not be of unseen attacks',
        *wrong[:_SHOWN],
        *([f'... and {len(wrong) - _SHOWN} more'] if len(wrong) > _SHOWN else []),
        'Take it out of config.train with a selection: set/config:split[species!=...]; or, if '
        'nothing is left out, set config.left_out=()',
      ])
    )  # fmt: skip


def _species(columns: Columns) -> collections.Counter:
  pairs = zip(columns['label'], identity.canonical(columns['attack_type']), strict=True)
  return collections.Counter(kind for label, kind in pairs if label == 'attack' and kind)


def describe_accepted(accepted: Sequence[Leak]) -> list[str]:
  """What was accepted, in a few lines."""
  counts = collections.Counter((overlap.accepted, overlap.sides) for overlap in accepted)
  return [
    f'accepted leak {name}: {n} {"person" if n == 1 else "people"} in {" and ".join(sides)}'
    for (name, sides), n in counts.items()
  ]


def _sides(train: Columns, val: Columns, tests: Mapping[str, Columns], val_name: str) -> dict:
  return {'train': train, val_name: val, **tests}


def _canonical(columns: Columns) -> Columns:
  return {field: identity.canonical(columns[field]) for field in columns if field in _COMPARED}


def _shared(pair: tuple[str, str], sides: Mapping[str, Columns], accept) -> list[Leak]:
  found, told = [], [set(), set()]
  columns = [sides[name] for name in pair]
  for fields in _COMPARISONS:
    values = [side.get(field, ()) for side, field in zip(columns, fields, strict=True)]
    both = (set(values[0]) & set(values[1])) - {''}
    places = [_places(some, both) for some in values]
    field = 'video' if fields[0] != fields[1] else fields[0]
    for name in sorted(both):
      at = [of[name] for of in places]
      if told[0].issuperset(at[0]) and told[1].issuperset(at[1]):
        continue  # with its person or video
      videos = [{side['video'][i] for i in a} for side, a in zip(columns, at, strict=True)]
      of = _accepted_by(field, name, pair, not videos[0] & videos[1], accept)
      found.append(Leak(field, name, pair, (len(at[0]), len(at[1])), of))
      for k in (0, 1):
        told[k].update(at[k])
  return found


def _are_row_numbers(ids: Sequence[str]) -> bool:
  """Whether ids are 0 to N - 1 or 1 to N, in any order."""
  if not all(map(_DIGITS.fullmatch, ids)):
    return False
  numbers = sorted(map(int, ids))
  return numbers in (list(range(len(ids))), list(range(1, len(ids) + 1)))


def _places(values: Sequence[str], wanted: set[str]) -> dict[str, list[int]]:
  places = {}
  for i, value in enumerate(values):
    if value in wanted:
      places.setdefault(value, []).append(i)
  return places


def _accepted_by(field: str, name: str, pair, videos_apart: bool, accept) -> str:
  """The name of the accepted leak that this is, or ''."""
  if field == 'subject':
    for known in sorted(set(accept) & set(KNOWN_LEAKS)):
      if name in {_person(path) for path, _ in KNOWN_LEAKS[known]}:
        return known
    if SUBJECTS_OF_ATTACKS in accept and pair == ('train', 'val') and videos_apart:
      return SUBJECTS_OF_ATTACKS
  return ''


def _person(path: str) -> str:
  said = path_layouts.parse(path)
  return f'{said.dataset}/{said.subject}' if said else ''
