"""Presentation attack detection metrics: pure functions over labels and scores, in NumPy alone.

A label is 1 for bona fide and 0 for an attack; a sample is accepted when score >= threshold. Every
rate is a fraction. Sources:

  [ISO]  ISO/IEC 30107-3, Biometric presentation attack detection, part 3: testing and reporting.
  [FM]   Yu et al., Flexible-Modal Face Anti-Spoofing: A Benchmark (CVPRW 2023), and its code.
  [MM]   Parkin and Grinchuk, Recognizing Multi-Modal Face Spoofing with Face Recognition Networks
         (CVPRW 2019), and its code.
  [MW]   Mann and Whitney, On a test of whether one of two random variables is stochastically
         larger than the other (Annals of Mathematical Statistics, 1947).

At one threshold (`error_rates`):
  APCER of a species    share of that PAI species' attacks that are accepted [ISO]
  APCER of a category   the same, for the species of one category (print, replay, ...)
  apcer                 pooled: share of all attacks that are accepted [FM, MM]
  apcer_max             the largest APCER of a species [ISO]; of a category where no species is
                        known; undefined where neither is
  bpcer                 share of the bona fide samples that are not accepted [ISO]
  acer                  (apcer + bpcer) / 2, with the pooled APCER [FM, MM]
  acer_max              (apcer_max + bpcer) / 2, with ISO's maximum in APCER's place
  hter                  (false accept rate + false reject rate) / 2, the cross-dataset papers' name:
                        with the pooled APCER and failures counted in, the same number as acer
  apnrr, bpnrr          share of the attacks, of the bona fide samples, without a score [ISO]

Over all thresholds, read from one `Curve`:
  eer                   where |apcer - bpcer| is least, the mean of the two; its threshold is the
                        largest of those that tie. No interpolation
  auc                   probability that a bona fide sample scores above an attack, ties half [MW]
  tpr_at_fpr            largest TPR (1 - bpcer) whose FPR (pooled apcer) is at most the target [MM]
  bpcer_at_apcer        smallest BPCER whose pooled APCER is not above the target: BPCER10, BPCER20
                        and BPCER100 at 10, 5 and 1 % [ISO]

Definitions of the reference code that differ (nearest FPR, score > threshold, ...) are in
`reference_metrics.py`.

Failure to acquire (FTA): a sample whose score is NaN. It is not accepted, at any threshold: an
attack that failed is rejected, a bona fide sample that failed is an error. Both stay in the
denominators, and every result carries `n_bona_fide`, `n_attack` (FTA included) and `n_fta`. In the
AUC an FTA ranks below every score and ties with other FTAs.

A rate over no samples, and a curve's metric where one of the two classes is missing, is NaN:
undefined.

Everything is O(N log N) at most: ten million samples take seconds.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from flexfas_jax import identity

UNKNOWN = 'unknown'  # the species, or category, of attacks that have none


class Count(NamedTuple):
  """So many of so many."""

  errors: int
  n: int

  @property
  def rate(self) -> float:
    return _rate(self.errors, self.n)


class Groups(NamedTuple):
  """A name for each of N samples, as numbers: made once, used for every threshold and subset."""

  names: tuple[str, ...]  # alphabetical
  index: np.ndarray  # [N] int, which of the names


@dataclasses.dataclass(frozen=True)
class ErrorRates:
  """What is accepted and rejected at one threshold; the module's docstring defines each rate."""

  threshold: float
  accepted_attack: Count
  rejected_bona_fide: Count
  missing_attack: Count  # failures to acquire
  missing_bona_fide: Count
  accepted_of: dict[str, Count]  # by category, in alphabetical order; empty where none is known
  accepted_of_species: dict[str, Count]

  @property
  def apcer(self) -> float:
    return self.accepted_attack.rate

  @property
  def bpcer(self) -> float:
    return self.rejected_bona_fide.rate

  @property
  def apcer_of(self) -> dict[str, float]:
    return {name: count.rate for name, count in self.accepted_of.items()}

  @property
  def apcer_max(self) -> float:
    by = self.accepted_of_species or self.accepted_of
    return max((count.rate for count in by.values()), default=math.nan)

  @property
  def n_bona_fide(self) -> int:
    return self.rejected_bona_fide.n

  @property
  def n_attack(self) -> int:
    return self.accepted_attack.n

  @property
  def n_fta(self) -> int:
    return self.missing_attack.errors + self.missing_bona_fide.errors

  @property
  def acer(self) -> float:
    return (self.apcer + self.bpcer) / 2

  @property
  def acer_max(self) -> float:
    return (self.apcer_max + self.bpcer) / 2

  @property
  def hter(self) -> float:
    return self.acer


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
  """Every operating point, from the strictest threshold to the loosest.

  The first threshold is infinite and accepts nothing; the others are the K distinct scores. The
  counts of a threshold are of the samples that it accepts.
  """

  threshold: np.ndarray  # [K+1] float64, falling
  accepted_bona_fide: np.ndarray  # [K+1] int64, never falling
  accepted_attack: np.ndarray  # [K+1] int64, never falling
  n_bona_fide: int
  n_attack: int
  n_fta: int

  @property
  def apcer(self) -> np.ndarray:  # [K+1]
    return _rate(self.accepted_attack, self.n_attack)

  @property
  def bpcer(self) -> np.ndarray:  # [K+1]
    return _rate(self.n_bona_fide - self.accepted_bona_fide, self.n_bona_fide)

  @property
  def one_class(self) -> bool:
    return not (self.n_bona_fide and self.n_attack)


def groups(names) -> Groups:
  """Names as numbers; however a name is spelled, it is one, see `identity`.

  Args:
    names: [N] str.

  Returns:
    `Groups`.
  """
  names = np.ascontiguousarray(names, np.str_)
  if not names.size or not names.itemsize:
    return Groups(('',) * bool(names.size), np.zeros(names.size, np.int64))
  # Sorting ten million texts takes a minute; sorting a number of each, a second.
  letters = names.view(np.uint32).reshape(names.size, -1)  # [N, longest]
  number = np.zeros(names.size, np.uint64)
  for column in letters.T:
    number = (number ^ column) * np.uint64(0x9E3779B97F4A7C15)
    number ^= number >> np.uint64(29)
  _, first, index = np.unique(number, return_index=True, return_inverse=True)
  if not np.array_equal(names[first][index], names):  # two texts with one number: hardly ever
    unique, index = np.unique(names, return_inverse=True)
  else:
    unique = names[first]
  spelled = np.array(identity.canonical(unique.tolist()), np.str_)
  found, place = np.unique(spelled, return_inverse=True)
  return Groups(tuple(found.tolist()), place[index])


def error_rates(label, score, threshold: float, category=None, species=None) -> ErrorRates:
  """The error rates at one threshold.

  Args:
    label: [N] integer or bool, 1 = bona fide.
    score: [N] float, NaN = failure to acquire.
    threshold: accept when score >= threshold.
    category: [N] str or `Groups`, the attacks' category, '' = not known; ignored for bona fide.
    species: the same for the attacks' PAI species.

  Returns:
    `ErrorRates`.

  Raises:
    ValueError: shapes that differ, a label that is neither 0 nor 1, an infinite score.
  """
  bona_fide, score = _checked(label, score)
  accepted = score >= threshold  # [N]; false where the score is NaN
  attack, missing = ~bona_fide, np.isnan(score)
  n_bona_fide, n_attack = int(bona_fide.sum()), int(attack.sum())
  count = lambda which, n: Count(int(np.count_nonzero(which)), n)  # noqa: E731
  return ErrorRates(
    threshold=float(threshold),
    accepted_attack=count(accepted & attack, n_attack),
    rejected_bona_fide=count(~accepted & bona_fide, n_bona_fide),
    missing_attack=count(missing & attack, n_attack),
    missing_bona_fide=count(missing & bona_fide, n_bona_fide),
    accepted_of=_by_name(category, accepted, attack),
    accepted_of_species=_by_name(species, accepted, attack),
  )


def _by_name(names, which: np.ndarray, among: np.ndarray) -> dict[str, Count]:
  """How many of the samples `among` [N] are of `which` [N], by name; {} where no name is known."""
  if names is None:
    return {}
  names = names if isinstance(names, Groups) else groups(names)
  n = np.bincount(names.index[among], minlength=len(names.names))
  errors = np.bincount(names.index[among & which], minlength=len(names.names))
  found = {
    name or UNKNOWN: Count(int(k), int(of))
    for name, k, of in zip(names.names, errors, n, strict=True)
    if of
  }
  return dict(sorted(found.items())) if found.keys() - {UNKNOWN} else {}


def curve(label, score) -> Curve:
  """All operating points, by one sort.

  Args:
    label: [N] integer or bool, 1 = bona fide.
    score: [N] float, NaN = failure to acquire.

  Returns:
    `Curve`.

  Raises:
    ValueError: as `error_rates`.
  """
  bona_fide, score = _checked(label, score)
  acquired = ~np.isnan(score)
  order = np.argsort(score[acquired])[::-1]
  falling = score[acquired][order]
  last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))  # [K], each tie's last sample
  last = last[: falling.size]  # no sample, no tie
  accepted_bona_fide = np.cumsum(bona_fide[acquired][order], dtype=np.int64)[last]
  return Curve(
    threshold=np.append(np.inf, falling[last]),
    accepted_bona_fide=np.append(0, accepted_bona_fide),
    accepted_attack=np.append(0, last + 1 - accepted_bona_fide),
    n_bona_fide=int(bona_fide.sum()),
    n_attack=int((~bona_fide).sum()),
    n_fta=int((~acquired).sum()),
  )


def eer(points: Curve) -> tuple[float, float]:
  """The equal error rate and its threshold; both NaN where undefined.

  The threshold is one of the scores; where two are equally near, the larger, which accepts fewer
  attacks.
  """
  if points.one_class or points.threshold.size == 1:
    return math.nan, math.nan
  # |apcer - bpcer| in whole numbers, so that ties are ties. [K], without the infinite threshold.
  false_accepts = points.accepted_attack[1:] * points.n_bona_fide
  false_rejects = (points.n_bona_fide - points.accepted_bona_fide[1:]) * points.n_attack
  k = 1 + int(np.argmin(np.abs(false_accepts - false_rejects)))
  return float(points.apcer[k] + points.bpcer[k]) / 2, float(points.threshold[k])


def auc(points: Curve) -> float:
  """The area under the ROC curve; NaN where undefined."""
  if points.one_class:
    return math.nan
  # The failures to acquire are a last tie, below all scores.
  bona_fide = np.append(points.accepted_bona_fide, points.n_bona_fide)
  attack = np.append(points.accepted_attack, points.n_attack)
  # An attack loses to the bona fide samples above it, and by half to those that tie with it.
  twice_won = np.sum(np.diff(attack) * (bona_fide[:-1] + bona_fide[1:]))
  return int(twice_won) / (2 * points.n_bona_fide * points.n_attack)


def tpr_at_fpr(points: Curve, fpr: float) -> float:
  """The largest TPR whose FPR is not above `fpr`; NaN where undefined."""
  if points.one_class:
    return math.nan
  return float(points.accepted_bona_fide[_last_within(points, fpr)]) / points.n_bona_fide


def bpcer_at_apcer(points: Curve, apcer: float) -> float:
  """The smallest BPCER whose pooled APCER is not above `apcer`; NaN where undefined."""
  return math.nan if points.one_class else float(points.bpcer[_last_within(points, apcer)])


def _last_within(points: Curve, apcer: float) -> int:
  """The loosest operating point whose pooled APCER is at most `apcer` (>= 0).

  A rate k / n and a target such as 0.007 are each rounded once, and so equal where they are equal:
  a target of two roundings (0.7 / 100) is not, see `thresholds.share`.
  """
  return int(np.searchsorted(points.apcer, apcer, side='right')) - 1


def least_acer(points: Curve) -> int:
  """The first operating point of the least ACER (pooled), compared in integers; of two classes."""
  accepted = points.accepted_attack * points.n_bona_fide
  rejected = (points.n_bona_fide - points.accepted_bona_fide) * points.n_attack
  return int(np.argmin(accepted + rejected))


def _rate(count, n: int):
  """count / n, or NaN in count's shape where there is nothing to divide by."""
  return count / n if n else count * math.nan


def _checked(label, score) -> tuple[np.ndarray, np.ndarray]:
  """The labels as [N] bool, true for bona fide, and the scores as [N] float64."""
  label, score = np.asarray(label), np.asarray(score, np.float64)
  if label.ndim != 1 or label.shape != score.shape:
    raise ValueError(f'label {label.shape} and score {score.shape} must be [N]')
  bona_fide = label == 1
  if not np.all(bona_fide | (label == 0)):
    raise ValueError('a label is 1 (bona fide) or 0 (attack)')
  if np.isinf(score).any():
    raise ValueError('a score must be finite, or NaN for a failure to acquire')
  return bona_fide, score
