"""Shortcuts: facts about files and sensors that predict the label.

A model can learn such a fact instead of the face: the presence of a sensor, the size, format,
encoder or bit depth of an image, the device, or the data set. If all attacks were recorded with one
device and all bona fide samples with another, a model that detects the device makes no errors and
is worthless.

A fact is evaluated as a classifier: each of its values predicts the class with the larger share
of it among the *other* subjects. The balanced accuracy of this rule is 0.5 for a fact that is
independent of the label, however many values it has: a value of a single subject predicts nothing.
Unlike a chi-square test, it does not grow with the number of samples.

A fact is reported if the balanced accuracy is at least `ACCURACY`, and at least `DEVIATIONS`
standard deviations of chance above 0.5, by the number of videos of each class. The former decides
for large sets; the latter for small ones, where five videos of each class are needed even if the
fact separates them perfectly. `experiments/reliability/shortcuts.py` measures both: of random
facts, by frame, video or subject, at most 1 in 100 is reported; of facts that agree with
the label in 80 % of the videos of 30 subjects, 99 in 100 are.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flexfas_jax import schema

ACCURACY = 0.7  # balanced accuracy
DEVIATIONS = 3.0  # of chance
_MAX_SIZES = 20  # more distinct sizes are binned into ten groups by the number of pixels
_MAX_LISTED = 4  # values that a text lists
_ROUNDING = 1e-9


class Shortcut(NamedTuple):
  """A fact that separates the classes."""

  fact: str  # e.g. 'ir presence'
  accuracy: float  # balanced, on other subjects; 0.5 is chance
  values: tuple[tuple[str, float, float], ...]  # (value, share of attacks, share of bona fide)

  def __str__(self) -> str:
    shares = [f'{value}: {a:.0%} of attacks, {b:.0%} of bona fide' for value, a, b in self.values]
    more = f'; and {len(shares) - _MAX_LISTED} more values' if len(shares) > _MAX_LISTED else ''
    return (
      f'{self.fact} separates attacks from bona fide samples (balanced accuracy '
      f'{self.accuracy:.2f}): {"; ".join(shares[:_MAX_LISTED])}{more}'
    )


def find(
  facts: Mapping[str, Sequence[str]],
  labels: Sequence[str],
  subjects: Sequence[str],
  videos: Sequence[str],
) -> list[Shortcut]:
  """Finds the facts that predict the label, the most accurate first.

  Args:
    facts: {name of a fact: [N] values}; '' is unknown and ignored.
    labels: [N], of `schema.LABELS`; other rows are ignored.
    subjects: [N]; if '' (unknown), the video counts as a subject.
    videos: [N], unique among all data sets; '' is a separate video.
  """
  attack = np.array([label == 'attack' for label in labels], bool)
  labelled = attack | np.array([label == 'bona_fide' for label in labels], bool)
  video = _numbers([v or i for i, v in enumerate(videos)])
  subject = _numbers(
    [s or (v or i,) for i, (s, v) in enumerate(zip(subjects, videos, strict=True))]
  )
  shortcuts = []
  for name, values in facts.items():
    if name.endswith(' size'):
      values = _bin_sizes(values)
    names = sorted(set(values) - {''})
    number = {name: i for i, name in enumerate(names)}
    value = np.array([number.get(name, -1) for name in values], np.int64)
    rows = labelled & (value >= 0)
    value = value[rows]
    accuracy = _accuracy(value, attack[rows], subject[rows])
    if accuracy >= _limit(attack[rows], subject[rows], video[rows]):
      shortcuts.append(Shortcut(name, accuracy, _table(names, value, attack[rows])))
  return sorted(shortcuts, key=lambda shortcut: -shortcut.accuracy)


def find_by_split(
  splits: Sequence[str],
  facts: Mapping[str, Sequence[str]],
  labels: Sequence[str],
  subjects: Sequence[str],
  videos: Sequence[str],
) -> dict[str, list[Shortcut]]:
  """`find` for the rows of every split: {split: shortcuts}, of the splits that have any.

  Args:
    splits: [N].
    facts, labels, subjects, videos: as of `find`.
  """
  rows_of = collections.defaultdict(list)
  for i, split in enumerate(splits):
    rows_of[split].append(i)
  shortcuts = {}
  for split, rows in rows_of.items():
    facts_of_split = {name: [values[i] for i in rows] for name, values in facts.items()}
    columns = ([column[i] for i in rows] for column in (labels, subjects, videos))
    if of_split := find(facts_of_split, *columns):
      shortcuts[split] = of_split
  return shortcuts


def facts_of(
  present: Mapping[str, Sequence[bool]], files: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
  """Facts of images, for `find`.

  Args:
    present: {modality: [N]}.
    files: {modality: [N] of `encodings.describe`, '' if unknown}; may be empty.
  """
  facts = {}
  for modality in schema.MODALITIES:
    if modality in present:
      facts[f'{modality} presence'] = ['present' if p else 'absent' for p in present[modality]]
    if any(files.get(modality, ())):
      words = [text.split(' ') if text else [''] * 4 for text in files[modality]]
      for i, name in enumerate(('format', 'size', 'bits', 'encoder')):
        facts[f'{modality} {name}'] = [of_file[i] for of_file in words]
  return facts


def _numbers(names: Iterable) -> np.ndarray:
  """[N] numbers, equal for equal names."""
  numbers = {}
  return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


def _accuracy(value: np.ndarray, attack: np.ndarray, subject: np.ndarray) -> float:
  """Balanced accuracy of predicting each subject's labels by the values of the others.

  Args:
    value, subject: [N] int, numbers of values and subjects.
    attack: [N] bool.
  """
  if attack.all() or not attack.any():
    return 0.5
  _, subject = np.unique(subject, return_inverse=True)
  n_values = int(value.max()) + 1
  pairs, pair = np.unique(subject * n_values + value, return_inverse=True)
  of_subject, of_value = pairs // n_values, pairs % n_values
  shares = []
  for rows in (attack, ~attack):  # shares of each class, without the subject's own samples
    own = np.bincount(pair, rows, len(pairs))
    others = np.bincount(value, rows, n_values)[of_value] - own
    total = rows.sum() - np.bincount(subject, rows)[of_subject]
    shares.append(others / np.maximum(total, 1))
  prediction = np.sign(shares[0] - shares[1])  # 1: attack, -1: bona fide, 0: undecided
  correct = 0.0
  for rows, sign in ((attack, 1), (~attack, -1)):
    n_rows = np.bincount(pair, rows, len(pairs))
    correct += (n_rows * (1 + sign * prediction) / 2).sum() / rows.sum()
  return float(correct / 2)


def _limit(attack: np.ndarray, subject: np.ndarray, video: np.ndarray) -> float:
  """The balanced accuracy above which a fact is significant, by the counts of each class.

  Videos are counted for subjects with both classes, otherwise subjects: a fact that is the same
  in all videos of a subject is no evidence for the former, and one observation for the latter.
  """
  has_both = np.isin(subject, np.intersect1d(subject[attack], subject[~attack]))
  unit = np.where(has_both, video, -1 - subject)
  attacks, others = len(np.unique(unit[attack])), len(np.unique(unit[~attack]))
  if not attacks or not others:
    return np.inf
  deviation = np.sqrt(1 / attacks + 1 / others) / 4
  return max(ACCURACY, 0.5 + DEVIATIONS * deviation) - _ROUNDING


def _table(
  names: Sequence[str], value: np.ndarray, attack: np.ndarray
) -> tuple[tuple[str, float, float], ...]:
  """(value, share of attacks, share of bona fide), the largest differences first."""
  a = np.bincount(value, attack, len(names)) / attack.sum()
  b = np.bincount(value, ~attack, len(names)) / (~attack).sum()
  order = np.argsort(-np.abs(a - b), kind='stable')
  return tuple((names[i], round(float(a[i]), 4), round(float(b[i]), 4)) for i in order)


def _bin_sizes(sizes: Sequence[str]) -> Sequence[str]:
  """Sizes unchanged, or if there are many, in ten groups by the number of pixels."""
  if len(set(sizes) - {''}) <= _MAX_SIZES:
    return sizes
  pixels = {size: _pixels(size) for size in set(sizes) if size}
  ends = np.unique(np.quantile([pixels[size] for size in sizes if size], np.arange(1, 11) / 10))
  name = {s: f'up to {ends[np.searchsorted(ends, n)]:,.0f} pixels' for s, n in pixels.items()}
  return [name.get(size, '') for size in sizes]


def _pixels(size: str) -> int:
  width, _, height = size.partition('x')
  return int(width) * int(height)
