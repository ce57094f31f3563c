"""Facts about files and sensors that predict the label: a model can learn them in place of a face.

Such a fact is the presence of a sensor, the size, format, encoder or bit depth of an image, the
device, or the data set. Where all attacks were taken with one device and all bona fide samples with
another, a model that detects the device has no errors, and is worthless.

A fact is scored as a classifier: each of its values predicts the class that has a larger share of
it among the *other* subjects. The balanced accuracy of this rule is 0.5 for a fact that has nothing
to do with the label, however many values it has: a value that one subject alone has predicts
nothing. Unlike a chi-square test, it does not grow with the number of samples.

A fact is reported where the balanced accuracy is at least `ACCURACY`, and no coincidence: at least
`DEVIATIONS` standard deviations of chance above 0.5, by the number of videos of each class. The
former decides for large sets; the latter for small ones, where five videos of each class are needed
even if the fact separates them perfectly. `experiments/reliability/shortcuts.py` measures both: of
facts drawn at random, by frame, video or subject, at most 1 in 100 is reported; of facts that agree
with the label in 80 % of the videos of 30 subjects, 99 in 100.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flexfas_jax import schema

ACCURACY = 0.7  # balanced accuracy
DEVIATIONS = 3.0  # of chance
_EXACT = 20  # sizes; more of them are parted into ten groups by the number of pixels
_SHOWN = 4  # values that are listed
_ROUNDING = 1e-9


class Shortcut(NamedTuple):
  """A fact that separates the classes."""

  fact: str  # e.g. 'ir presence'
  accuracy: float  # balanced, on other subjects; 0.5 is guessing
  values: tuple[tuple[str, float, float], ...]  # (value, share of attacks, share of bona fide)

  def __str__(self) -> str:
    some = [f'{value}: {a:.0%} of attacks, {b:.0%} of bona fide' for value, a, b in self.values]
    more = f'; and {len(some) - _SHOWN} more values' if len(some) > _SHOWN else ''
    return (
      f'{self.fact} separates attacks from bona fide samples (balanced accuracy '
      f'{self.accuracy:.2f}): {"; ".join(some[:_SHOWN])}{more}'
    )


def find(
  facts: Mapping[str, Sequence[str]],
  labels: Sequence[str],
  subjects: Sequence[str],
  videos: Sequence[str],
) -> list[Shortcut]:
  """The facts that predict the label, the best first.

  Args:
    facts: {name: [N] values}; '' is unknown, and left out.
    labels: [N], of `schema.LABELS`; other rows are left out.
    subjects: [N]; '' is unknown, and its video is taken for it.
    videos: [N], unique among all data sets; '' is a separate video.
  """
  attack = np.array([label == 'attack' for label in labels], bool)
  known = attack | np.array([label == 'bona_fide' for label in labels], bool)
  video = _numbers([v or i for i, v in enumerate(videos)])
  subject = _numbers(
    [s or (v or i,) for i, (s, v) in enumerate(zip(subjects, videos, strict=True))]
  )
  found = []
  for name, values in facts.items():
    if name.endswith(' size'):
      values = _grouped(values)
    names = sorted(set(values) - {''})
    number = {name: i for i, name in enumerate(names)}
    value = np.array([number.get(name, -1) for name in values], np.int64)
    rows = known & (value >= 0)
    value = value[rows]
    accuracy = _accuracy(value, attack[rows], subject[rows])
    if accuracy >= _limit(attack[rows], subject[rows], video[rows]):
      found.append(Shortcut(name, accuracy, _table(names, value, attack[rows])))
  return sorted(found, key=lambda shortcut: -shortcut.accuracy)


def find_by_split(splits: Sequence[str], *columns) -> dict[str, list[Shortcut]]:
  """`find` for the rows of every split: {split: shortcuts}, of the splits that have any.

  Args:
    splits: [N].
    *columns: of `find`.
  """
  facts, *rest = columns
  found = {}
  for split in dict.fromkeys(splits):
    rows = [i for i, one in enumerate(splits) if one == split]
    part = lambda column, rows=rows: [column[i] for i in rows]  # noqa: E731
    if some := find({name: part(column) for name, column in facts.items()}, *map(part, rest)):
      found[split] = some
  return found


def facts_of(
  present: Mapping[str, Sequence[bool]], files: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
  """What `find` is given about images.

  Args:
    present: {modality: [N]}.
    files: {modality: [N] of `encodings.describe`, '' where unknown}; may be empty.
  """
  facts = {}
  for modality in schema.MODALITIES:
    if modality in present:
      facts[f'{modality} presence'] = ['present' if p else 'absent' for p in present[modality]]
    if any(files.get(modality, ())):
      words = [text.split(' ') if text else [''] * 4 for text in files[modality]]
      for name, column in zip(('format', 'size', 'bits', 'encoder'), zip(*words), strict=True):  # noqa: B905
        facts[f'{modality} {name}'] = list(column)
  return facts


def _numbers(names: Iterable) -> np.ndarray:
  """Names as numbers, [N], equal where the names are equal."""
  numbers = collections.defaultdict(lambda: len(numbers))
  return np.array([numbers[name] for name in names], np.int64)


def _accuracy(value: np.ndarray, attack: np.ndarray, subject: np.ndarray) -> float:
  """Balanced accuracy of guessing each subject's labels by the values of the others.

  Args:
    value, subject: [N] int; a value's number, a subject's number.
    attack: [N] bool.
  """
  if attack.all() or not attack.any():
    return 0.5
  _, subject = np.unique(subject, return_inverse=True)
  n_values = int(value.max()) + 1
  pairs, pair = np.unique(subject * n_values + value, return_inverse=True)
  of_subject, of_value = pairs // n_values, pairs % n_values
  right = 0.0
  shares = []
  for rows in (attack, ~attack):  # shares of each class, without the subject's own samples
    own = np.bincount(pair, rows, len(pairs))
    left = np.bincount(value, rows, n_values)[of_value] - own
    total = rows.sum() - np.bincount(subject, rows)[of_subject]
    shares.append(left / np.maximum(total, 1))
  apart = np.sign(shares[0] - shares[1])  # 1 predicts attack, 0 is a guess
  for rows, sign in ((attack, 1), (~attack, -1)):
    right += (np.bincount(pair, rows, len(pairs)) * (1 + sign * apart) / 2).sum() / rows.sum()
  return float(right / 2)


def _limit(attack: np.ndarray, subject: np.ndarray, video: np.ndarray) -> float:
  """The balanced accuracy from which a fact is no coincidence, by the counts of each class.

  Counted are the videos of subjects of whom there are both classes, and the other subjects: a fact
  that is the same in all of a subject's videos then says nothing of the former, and is one
  observation of the latter.
  """
  both = np.isin(subject, np.intersect1d(subject[attack], subject[~attack]))
  unit = np.where(both, video, -1 - subject)
  attacks, others = len(np.unique(unit[attack])), len(np.unique(unit[~attack]))
  if not attacks or not others:
    return np.inf
  deviation = np.sqrt(1 / attacks + 1 / others) / 4
  return max(ACCURACY, 0.5 + DEVIATIONS * deviation) - _ROUNDING


def _table(
  names: Sequence[str], value: np.ndarray, attack: np.ndarray
) -> tuple[tuple[str, float, float], ...]:
  """(value, share of attacks, share of bona fide), those that differ most first."""
  a = np.bincount(value, attack, len(names)) / attack.sum()
  b = np.bincount(value, ~attack, len(names)) / (~attack).sum()
  order = np.argsort(-np.abs(a - b), kind='stable')
  return tuple((names[i], round(float(a[i]), 4), round(float(b[i]), 4)) for i in order)


def _grouped(sizes: Sequence[str]) -> Sequence[str]:
  """Sizes as they are, or where crops have many, ten groups of them by the number of pixels."""
  if len(set(sizes) - {''}) <= _EXACT:
    return sizes
  pixels = {size: _pixels(size) for size in set(sizes) if size}
  ends = np.unique(np.quantile([pixels[size] for size in sizes if size], np.arange(1, 11) / 10))
  name = {s: f'up to {ends[np.searchsorted(ends, n)]:,.0f} pixels' for s, n in pixels.items()}
  return [name.get(size, '') for size in sizes]


def _pixels(size: str) -> int:
  width, _, height = size.partition('x')
  return int(width) * int(height)
