"""Presentation attack detection metrics: pure functions over labels and scores, in NumPy alone.

A label is 1 for bona fide and 0 for an attack; a sample is accepted when score >= threshold. Every
rate is a fraction. `METRICS` defines each one, once: the keys of the results, the intervals, what
has too few samples, and the names in reports follow from its rows. Sources:

  [ISO]  ISO/IEC 30107-3, Biometric presentation attack detection, part 3: testing and reporting.
  [FM]   Yu et al., Flexible-Modal Face Anti-Spoofing: A Benchmark (CVPRW 2023), and its code.
  [MM]   Parkin and Grinchuk, Recognizing Multi-Modal Face Spoofing with Face Recognition Networks
         (CVPRW 2019), and its code.
  [MW]   Mann and Whitney, On a test of whether one of two random variables is stochastically
         larger than the other (Annals of Mathematical Statistics, 1947).

The APCER of a species is the share of that PAI species' attacks that are accepted [ISO]; of a
category, the same for the species of one category (print, replay, ...).

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
import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np

from flexfas_jax import identity, schema
from flexfas_jax.evaluation import grouping

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
  """What is accepted and rejected at one threshold; `METRICS` defines each rate."""

  threshold: float
  counts: Mapping[tuple[str, str], Count]  # by outcome, see `outcomes`, and label: 'attack', ...
  accepted_of: dict[str, Count]  # by category, in alphabetical order; empty where none is known
  accepted_of_species: dict[str, Count]

  @property
  def apcer(self) -> float:
    return self.counts['accepted', 'attack'].rate

  @property
  def bpcer(self) -> float:
    return self.counts['rejected', 'bona_fide'].rate

  @property
  def apcer_max(self) -> float:
    by = self.accepted_of_species or self.accepted_of
    return max((count.rate for count in by.values()), default=math.nan)

  @property
  def n_bona_fide(self) -> int:
    return self.counts['rejected', 'bona_fide'].n

  @property
  def n_attack(self) -> int:
    return self.counts['accepted', 'attack'].n

  @property
  def n_fta(self) -> int:
    return sum(self.counts['missing', label].errors for label in schema.LABELS)

  @property
  def acer(self) -> float:
    return (self.apcer + self.bpcer) / 2


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
  spellings, index = grouping.factorize(np.asarray(names, np.str_))
  unique, place = np.unique(identity.canonical(spellings.tolist()), return_inverse=True)
  return Groups(tuple(unique.tolist()), place[index])


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
  attack = ~bona_fide
  found = outcomes(score, threshold)
  return ErrorRates(
    threshold=float(threshold),
    counts={
      (outcome, label): Count(int(np.count_nonzero(which & among)), int(np.count_nonzero(among)))
      for outcome, which in found.items()
      for label, among in (('attack', attack), ('bona_fide', bona_fide))
    },
    accepted_of=_by_name(category, found['accepted'], attack),
    accepted_of_species=_by_name(species, found['accepted'], attack),
  )


def outcomes(score: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
  """Which samples are 'accepted', 'rejected' and 'missing', [N] bool each.

  Args:
    score: [N] float64, NaN = failure to acquire: missing, and rejected as well.
    threshold: accept when score >= threshold.
  """
  accepted = score >= threshold  # false where the score is NaN
  return {'accepted': accepted, 'rejected': ~accepted, 'missing': np.isnan(score)}


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
  falling, is_bona_fide = _falling(score[acquired], bona_fide[acquired])
  last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))  # [K], each tie's last sample
  last = last[: falling.size]  # no sample, no tie
  accepted_bona_fide = np.cumsum(is_bona_fide, dtype=np.int64)[last]
  return Curve(
    threshold=np.append(np.inf, falling[last]),
    accepted_bona_fide=np.append(0, accepted_bona_fide),
    accepted_attack=np.append(0, last + 1 - accepted_bona_fide),
    n_bona_fide=int(bona_fide.sum()),
    n_attack=int((~bona_fide).sum()),
    n_fta=int((~acquired).sum()),
  )


def _falling(score: np.ndarray, bona_fide: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Scores from the highest, [N] finite float64, and which are bona fide, [N] bool.

  The order of equal scores is arbitrary. Where the scores' bits leave one free, the label is that
  bit: NumPy sorts whole numbers several times as fast as it finds their order.
  """
  bits = (score + 0.0).view(np.int64)  # no minus before 0
  bits = bits ^ ((bits >> 63) & np.int64(2**63 - 1))  # in the order of the scores
  if not bits.size or int(bits.max()) - (low := int(bits.min())) >= 2**63:
    order = np.argsort(score)[::-1]
    return score[order], bona_fide[order]
  keys = (bits - low).view(np.uint64) << np.uint64(1)
  keys |= bona_fide
  keys.sort()
  keys = keys[::-1]
  bits = (keys >> np.uint64(1)).view(np.int64) + low
  bits ^= (bits >> 63) & np.int64(2**63 - 1)
  return bits.view(np.float64), (keys & np.uint64(1)).astype(bool)


class CurveReplicates(NamedTuple):
  """R bootstrap replicates of a curve, each with its own multiplicity of every sample.

  The K thresholds are the distinct scores, falling: the infinite one is left out. A replicate may
  hold no sample of a class; what it divides by is then 0, and NaN is the result.
  """

  accepted_bona_fide: np.ndarray  # [R, K] int32, of the samples at or above each threshold
  accepted_attack: np.ndarray  # [R, K] int32
  n_bona_fide: np.ndarray  # [R] float64, failures to acquire included
  n_attack: np.ndarray  # [R] float64


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


def resampled_eer(curves: CurveReplicates) -> np.ndarray:
  """`eer` of each replicate, [R]."""
  bona_fide, attack, n_bona_fide, n_attack = curves
  false_rejects = (n_bona_fide[:, None] - bona_fide) * n_attack[:, None]
  k = np.abs(attack * n_bona_fide[:, None] - false_rejects).argmin(1)
  rows = np.arange(len(k))
  return (attack[rows, k] / n_attack + 1 - bona_fide[rows, k] / n_bona_fide) / 2


def roc_points(points: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The points that scikit-learn's `roc_curve` keeps: (accepted bona fide, accepted attacks,
  threshold), [P] each, from the strictest; the first accepts nothing."""
  tp, fp = points.accepted_bona_fide[1:], points.accepted_attack[1:]  # [K]
  kept = _is_roc_point(tp, fp)
  return (
    np.append(0, tp[kept]),
    np.append(0, fp[kept]),
    np.append(np.inf, points.threshold[1:][kept]),
  )


def _is_roc_point(tp: np.ndarray, fp: np.ndarray) -> np.ndarray:
  """Which of the points is not the middle of three at equal steps, [K] bool."""
  kept = np.ones(tp.size, bool)
  if tp.size > 2:
    kept[1:-1] = (np.diff(tp, 2) != 0) | (np.diff(fp, 2) != 0)
  return kept


def hter_at_test_eer(points: Curve) -> float:
  """The HTER at the point of `roc_points` where |TPR + FPR - 1| is least; NaN where undefined.

  The first of several such points counts. The threshold is fitted on the evaluated samples: an
  ORACLE. Papers that follow MMDG print it as HTER.
  """
  if points.one_class:
    return math.nan
  tp, fp, _ = roc_points(points)
  tpr, fpr = tp / points.n_bona_fide, fp / points.n_attack
  k = int(np.argmin(np.abs(tpr + fpr - 1)))
  return float(fpr[k] + 1 - tpr[k]) / 2


def resampled_hter_at_test_eer(curves: CurveReplicates) -> np.ndarray:
  """`hter_at_test_eer` of each replicate, [R]."""
  found = np.empty(len(curves.n_attack))
  for row, (tp, fp, n_bona_fide, n_attack) in enumerate(zip(*curves, strict=True)):
    # A threshold at which a replicate has no sample is left out.
    own = np.flatnonzero(np.diff(tp + fp, prepend=0))
    kept = own[_is_roc_point(tp[own], fp[own])]
    tpr, fpr = np.append(0, tp[kept]) / n_bona_fide, np.append(0, fp[kept]) / n_attack
    k = np.argmin(np.abs(tpr + fpr - 1))
    found[row] = (fpr[k] + 1 - tpr[k]) / 2
  return found


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


def resampled_auc(curves: CurveReplicates) -> np.ndarray:
  """`auc` of each replicate, [R]."""
  bona_fide, attack, n_bona_fide, n_attack = curves
  higher = np.concatenate([np.zeros_like(n_bona_fide)[:, None], bona_fide], 1)  # [R, K+1]
  twice_won = (np.diff(attack, axis=1, prepend=0) * (higher[:, :-1] + higher[:, 1:])).sum(1)
  twice_won += (n_attack - attack[:, -1]) * (higher[:, -1] + n_bona_fide)
  return twice_won / (2 * n_bona_fide * n_attack)


def tpr_at_fpr(points: Curve, fpr: float) -> float:
  """The largest TPR whose FPR is not above `fpr`; NaN where undefined."""
  if points.one_class:
    return math.nan
  return float(points.accepted_bona_fide[_last_within(points, fpr)]) / points.n_bona_fide


def resampled_tpr_at_fpr(curves: CurveReplicates, fpr: float) -> np.ndarray:
  """`tpr_at_fpr` of each replicate, [R]."""
  bona_fide, attack, n_bona_fide, n_attack = curves
  n_within = (attack / n_attack[:, None] <= fpr).sum(1)  # points of a rising rate
  last = np.maximum(n_within, 1) - 1
  return np.where(n_within > 0, bona_fide[np.arange(len(last)), last], 0) / n_bona_fide


def bpcer_at_apcer(points: Curve, apcer: float) -> float:
  """The smallest BPCER whose pooled APCER is not above `apcer`; NaN where undefined."""
  return math.nan if points.one_class else float(points.bpcer[_last_within(points, apcer)])


def resampled_bpcer_at_apcer(curves: CurveReplicates, apcer: float) -> np.ndarray:
  """`bpcer_at_apcer` of each replicate, [R]."""
  return 1 - resampled_tpr_at_fpr(curves, apcer)


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
  """One figure of a subset of modalities; its kinds below state how it is computed.

  Attributes:
    name: key in `results.json` and in `flexfas score --json`.
    title: its name in a report.
    definition: one clause, as in docs/reference/metrics.md.
    source: who defines it; '' without one.
    higher_is_better: of two systems, the one with the larger figure is better.
    oracle: its threshold is fitted on the evaluated samples. Reports leave it out.
  """

  name: str
  title: str
  definition: str
  source: str = ''
  higher_is_better: bool = False
  oracle: bool = False

  def value(self, rates: ErrorRates, points: Curve) -> float:
    """The figure; NaN where undefined."""
    raise NotImplementedError


class Fact(Metric):
  """What the rates rest on: an attribute of `ErrorRates` that has no interval."""

  def value(self, rates: ErrorRates, points: Curve) -> float:
    return getattr(rates, self.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share(Metric):
  """The share of the samples of one label that have one outcome at the threshold.

  Attributes:
    outcome: 'accepted', 'rejected' or 'missing', see `outcomes`.
    label: 'attack' or 'bona_fide'.
  """

  outcome: str
  label: str

  def value(self, rates: ErrorRates, points: Curve) -> float:
    return rates.counts[self.outcome, self.label].rate


class LargestApcer(Metric):
  """The largest APCER of a species, or of a category where no species is known."""

  def value(self, rates: ErrorRates, points: Curve) -> float:
    return rates.apcer_max


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mean(Metric):
  """The mean of two other metrics, which are of different samples.

  Attributes:
    parts: their names; each a `Share` or `LargestApcer`.
  """

  parts: tuple[str, str]

  def value(self, rates: ErrorRates, points: Curve) -> float:
    one, other = (BY_NAME[part].value(rates, points) for part in self.parts)
    return (one + other) / 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfCurve(Metric):
  """A figure over all thresholds, which needs samples of both labels.

  Attributes:
    compute: of a `Curve`.
    resampled: the same of `CurveReplicates`, [R]; None: no bootstrap interval.
    share_of_bona_fide: whether it is a share of the bona fide samples: then it has counts and an
      exact interval, at a threshold that is taken as given.
  """

  compute: Callable[[Curve], float]
  resampled: Callable[[CurveReplicates], np.ndarray] | None = None
  share_of_bona_fide: bool = False

  def value(self, rates: ErrorRates, points: Curve) -> float:
    return self.compute(points)


FPRS = ('1e-2', '1e-3', '1e-4')
APCERS = {'10%': 0.1, '5%': 0.05, '1%': 0.01}
_ISO, _PAPERS = 'ISO/IEC 30107-3', 'FlexModal, MM-FAS'

METRICS: tuple[Metric, ...] = (
  Mean(
    name='acer',
    title='ACER',
    definition='(`apcer` + `bpcer`) / 2',
    source=_PAPERS,
    parts=('apcer', 'bpcer'),
  ),
  Share(
    name='apcer',
    title='APCER, pooled',
    definition='share of all attacks that are accepted',
    source=_PAPERS,
    outcome='accepted',
    label='attack',
  ),
  Share(
    name='bpcer',
    title='BPCER',
    definition='share of the bona fide samples that are not accepted',
    source=_ISO,
    outcome='rejected',
    label='bona_fide',
  ),
  OfCurve(
    name='eer',
    title='EER',
    definition='the mean of APCER and BPCER where they differ least; no interpolation',
    compute=lambda points: eer(points)[0],
    resampled=resampled_eer,
  ),
  OfCurve(
    name='auc',
    title='AUC',
    definition='probability that a bona fide sample scores above an attack, ties half',
    source='Mann and Whitney',
    higher_is_better=True,
    compute=auc,
    resampled=resampled_auc,
  ),
  *(
    OfCurve(
      name=f'tpr@fpr={fpr}',
      title=f'TPR at FPR {fpr}',
      definition=f'largest TPR (1 - `bpcer`) whose FPR (`apcer`) is at most {fpr}',
      source='MM-FAS',
      higher_is_better=True,
      compute=functools.partial(tpr_at_fpr, fpr=float(fpr)),
      resampled=functools.partial(resampled_tpr_at_fpr, fpr=float(fpr)),
      share_of_bona_fide=True,
    )
    for fpr in FPRS
  ),
  Fact(
    name='threshold',
    title='threshold',
    definition='a sample is accepted when its score is at least this',
  ),
  LargestApcer(
    name='apcer_max',
    title='APCER, max',
    definition='the largest APCER of a PAI species: the share of its attacks that are accepted; '
    'of a category where no species is known',
    source=_ISO,
  ),
  Mean(
    name='acer_max',
    title='ACER, max',
    definition='(`apcer_max` + `bpcer`) / 2',
    parts=('apcer_max', 'bpcer'),
  ),
  Mean(
    name='hter',
    title='HTER',
    definition='(false accept rate + false reject rate) / 2; the same number as `acer`',
    source='cross-dataset papers',
    parts=('apcer', 'bpcer'),
  ),
  OfCurve(
    name='hter_at_test_eer',
    title='HTER at the test EER (ORACLE)',
    definition='ORACLE: `hter` at the point of the test ROC where TPR + FPR is nearest to 1; '
    "points as scikit-learn's `roc_curve` keeps them",
    source='MMDG, DADM, MMDA',
    oracle=True,
    compute=hter_at_test_eer,
    resampled=resampled_hter_at_test_eer,
  ),
  *(
    OfCurve(
      name=f'bpcer@apcer={name}',
      title=f'BPCER at APCER {name.replace("%", " %")}',
      definition=f'BPCER{round(1 / apcer)}: smallest BPCER whose APCER is at most {name}',
      source=_ISO,
      compute=functools.partial(bpcer_at_apcer, apcer=apcer),
      resampled=functools.partial(resampled_bpcer_at_apcer, apcer=apcer),
      share_of_bona_fide=True,
    )
    for name, apcer in APCERS.items()
  ),
  Share(
    name='apnrr',
    title='APNRR',
    definition='share of the attacks without a score',
    source=_ISO,
    outcome='missing',
    label='attack',
  ),
  Share(
    name='bpnrr',
    title='BPNRR',
    definition='share of the bona fide samples without a score',
    source=_ISO,
    outcome='missing',
    label='bona_fide',
  ),
  Fact(name='n_bona_fide', title='bona fide', definition='number of bona fide samples'),
  Fact(name='n_attack', title='attacks', definition='number of attacks'),
  Fact(name='n_fta', title='FTA', definition='number of samples without a score'),
)
BY_NAME = {metric.name: metric for metric in METRICS}


Kind = TypeVar('Kind', bound=Metric)


def of_kind(kind: type[Kind]) -> dict[str, Kind]:
  """The metrics of one kind, by name."""
  return {name: metric for name, metric in BY_NAME.items() if isinstance(metric, kind)}


RESAMPLED = {
  name: metric.resampled for name, metric in of_kind(OfCurve).items() if metric.resampled
}
