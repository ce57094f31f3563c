"""Cluster bootstrap: confidence intervals that account for several samples of one subject.

Errors on frames of one video, and on videos of one subject, are correlated, so an interval over
samples is too narrow. Here subjects are resampled with replacement together with all their samples
(videos if subjects are unknown, samples if neither is known), and every metric is recomputed for
each replicate. Strata are the data sets, and within them the subjects with bona fide samples only,
attacks only, or both, so that a replicate resembles the test in composition. All subsets and
systems share the same replicates: differences are paired. Thresholds stay fixed; their uncertainty
is not included.

An interval is BCa [E] with quantiles of Student's t, widened for few subjects [H] or few subjects
with an error [S]: plain percentile intervals covered the truth in 86 to 95 % of simulated tests at
a nominal 95 %. `experiments/evaluation` measures the coverage. If all replicates are equal (no
error was observed), the interval is Clopper-Pearson over subjects.

  [E]  Efron, Better bootstrap confidence intervals (JASA, 1987); for strata: Davison and Hinkley,
       Bootstrap methods and their application (1997), section 5.3.
  [H]  Hesterberg, What teachers should know about the bootstrap (The American Statistician, 2015):
       the expanded percentile interval.
  [S]  Satterthwaite, An approximate distribution of estimates of variance components (Biometrics
       Bulletin, 1946): degrees of freedom such that the variance's own variance is right.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from flexfas_jax.evaluation import grouping, metrics
from flexfas_jax.evaluation.intervals import CONFIDENCE, UNDEFINED, Interval, clopper_pearson

N_REPLICATES = 1000
_GROUPS = 200  # that the jackknife leaves out, one after the other, at most
_AT_ONCE = 1 << 17  # numbers worked on, of one kind: few enough to stay in the cache
_SEEDED = 20  # draws


@dataclasses.dataclass(frozen=True, eq=False)
class Replicates:
  """The bootstrap replicates of one metric."""

  value: float
  drawn: np.ndarray  # [R] float64
  left_out: np.ndarray  # [G] float64: the metric without each of G groups of subjects (jackknife)
  part: np.ndarray  # [G] int, the stratum of each group
  n: int  # clusters that contribute to the metric


@dataclasses.dataclass(frozen=True, eq=False)
class Clusters:
  """The resampling units of N samples: C clusters in strata."""

  unit: str  # 'subjects', 'videos' or 'samples'
  of: np.ndarray  # [N] int, the cluster of each sample
  stratum: np.ndarray  # [C] int, the stratum of each cluster
  draws: int
  seed: int

  @property
  def n(self) -> int:
    return self.stratum.size


def make_clusters(
  label,
  dataset,
  subject,
  video,
  draws: int = N_REPLICATES,
  seed: int = 0,
  unit: str | None = None,
  ids=None,
) -> Clusters:
  """Groups samples into clusters.

  Args:
    label: [N] integer, 1 = bona fide.
    dataset, subject, video: [N] str, '' = not known.
    draws: number of replicates.
    seed: equal seeds give equal intervals.
    unit: 'subjects', 'videos' or 'samples'; None: subjects if all samples have one, else videos
      if all have one, else samples.
    ids: [N] str, of the samples: where they are drawn, in the order of their ids, so that the order
      of rows changes nothing; in the order of rows if None.

  Returns:
    `Clusters`.
  """
  label = np.asarray(label)
  known = {'subjects': np.asarray(subject, np.str_), 'videos': np.asarray(video, np.str_)}
  if unit is None:
    unit = next((u for u, names in known.items() if names.size and (names != '').all()), 'samples')
  set_ = metrics.groups(dataset)
  limit = 4 * max(1, len(set_.names))
  if unit == 'samples' and ids is None:  # each its own cluster
    _, stratum = grouping.unique(set_.index * 4 + np.where(label == 1, 1, 2), limit)
    return Clusters(unit, np.arange(label.size), stratum, draws, seed)
  if unit == 'samples':
    of, n = np.empty(label.size, np.int64), label.size
    of[np.argsort(np.asarray(ids, np.str_))] = np.arange(n)
  else:
    name = metrics.groups(known[unit])
    pair = set_.index * len(name.names) + name.index
    found, of = grouping.unique(pair, len(set_.names) * len(name.names))
    n = found.size
  kind = np.zeros((2, n), np.int64)  # whether a cluster has bona fide samples, and attacks
  kind[0, of[label == 1]] = 1
  kind[1, of[label == 0]] = 2
  home = np.zeros(n, np.int64)
  home[of] = set_.index
  _, stratum = grouping.unique(home * 4 + kind.sum(0), limit)
  return Clusters(unit, of, stratum, draws, seed)


def _weights(who: Clusters, each: int) -> Iterator[np.ndarray]:
  """Yields multiplicities of the clusters, [r, C] int32, for some replicates at a time."""
  members = [np.flatnonzero(who.stratum == s) for s in range(who.stratum.max(initial=-1) + 1)]
  at_once = max(1, _AT_ONCE // max(each, who.n, 1))
  for start in range(0, who.draws, _SEEDED):  # the seeds do not depend on the size of the chunks
    rng = np.random.default_rng([who.seed, start])
    rows = min(_SEEDED, who.draws - start)
    weights = np.empty((rows, who.n), np.int32)
    for among in members:
      drawn = rng.integers(0, among.size, (rows, among.size))
      drawn += np.arange(rows)[:, None] * among.size
      times = np.bincount(drawn.ravel(), minlength=rows * among.size)
      weights[:, among] = times.reshape(rows, among.size)
    for row in range(0, rows, at_once):
      yield weights[row : row + at_once]


def _left_out(who: Clusters, each: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields (multiplicities without one group, [g, C] int32; stratum of the group, [g])."""
  group, part = np.empty(who.n, np.int64), []
  for s in range(who.stratum.max(initial=-1) + 1):
    among = np.flatnonzero(who.stratum == s)
    share = min(1, _GROUPS / who.n)
    n = max(1, round(share * among.size))
    group[among] = len(part) + np.arange(among.size) % n
    part += [s] * n
  part = np.array(part, np.int64)
  at_once = max(1, _AT_ONCE // max(each, who.n, 1))
  for start in range(0, part.size, at_once):
    some = np.arange(start, min(start + at_once, part.size))
    yield (group[None] != some[:, None]).astype(np.int32), part[some]


class WeightedMetrics:
  """Metrics of one set of scores as functions of the multiplicities of the clusters.

  Args:
    who: the clusters.
    label: [N] integer, 1 = bona fide.
    score: [N] float, NaN = failure to acquire.
    shares: {name: (which [N] bool, among [N] bool)}: a rate each.
    maxima, means: {name: the names that it is the largest, or the mean, of}; a mean may be of
      maxima.
    of_curve: {name: a function of `metrics.CurveReplicates`, to [R]}.
  """

  def __init__(
    self,
    who: Clusters,
    label,
    score,
    shares: Mapping[str, tuple[np.ndarray, np.ndarray]],
    maxima: Mapping[str, tuple[str, ...]] | None = None,
    means: Mapping[str, tuple[str, ...]] | None = None,
    of_curve: Mapping[str, Callable[[metrics.CurveReplicates], np.ndarray]] | None = None,
  ):
    bona_fide, score = np.asarray(label) == 1, np.asarray(score, np.float64)
    self._names = list(shares)
    self._errors = _per_cluster(who, [which & among for which, among in shares.values()])
    self._n = _per_cluster(who, [among for _, among in shares.values()])
    self._maxima, self._means = dict(maxima or {}), dict(means or {})
    self._functions = dict(of_curve or {})
    self._of_class = _per_cluster(who, [bona_fide, ~bona_fide])

    acquired = ~np.isnan(score)
    order = np.flatnonzero(acquired)[np.argsort(score[acquired])[::-1]]
    falling = score[order]
    self._last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))[: falling.size]
    self._whose, self._bona_fide = who.of[order], bona_fide[order]
    self.size = order.size

  def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Weights [r, C] to figures [r]."""
    as_float = weights.astype(np.float64)
    n, errors = as_float @ self._n, as_float @ self._errors  # [r, K]
    with np.errstate(invalid='ignore', divide='ignore'):
      rate = errors / n
    found = {name: rate[:, k] for k, name in enumerate(self._names)}
    found |= self._of_curve(weights, (as_float @ self._of_class).T)
    for name, parts in self._maxima.items():
      # A species without resampled samples has no rate: the maximum is over the others.
      rates = np.stack([found[part] for part in parts])
      found[name] = np.where(np.isnan(rates), -1, rates).max(0)
    for name, parts in self._means.items():
      found[name] = sum(found[part] for part in parts) / len(parts)
    return found

  def _of_curve(self, weights, of_class) -> dict[str, np.ndarray]:
    if not self._functions or not self.size:
      return {}
    n_bona_fide, n_attack = of_class  # [r] each, failures to acquire included
    times = weights[:, self._whose]  # [r, n]
    both = np.cumsum(times, 1, dtype=np.int32)[:, self._last]  # [r, K]
    bona_fide = np.cumsum(times * self._bona_fide, 1, dtype=np.int32)[:, self._last]
    curves = metrics.CurveReplicates(bona_fide, both - bona_fide, n_bona_fide, n_attack)
    with np.errstate(invalid='ignore', divide='ignore'):
      return {name: function(curves) for name, function in self._functions.items()}

  def count_clusters(self, name: str) -> int:
    """The number of clusters that contribute to a metric; of its parts, the smallest number."""
    if name in self._names:
      return int(np.count_nonzero(self._n[:, self._names.index(name)]))
    parts = self._means.get(name) or self._maxima.get(name)
    if parts:
      return min(map(self.count_clusters, parts))
    return int(np.count_nonzero(self._of_class, axis=0).min())


def _per_cluster(who: Clusters, masks: list[np.ndarray]) -> np.ndarray:
  """How many samples of each cluster each mask [N] holds, [C, len(masks)] float64."""
  counts = np.zeros((who.n, len(masks)))
  for column, mask in enumerate(masks):
    counts[:, column] = np.bincount(who.of[mask], minlength=who.n)
  return counts


def resample(
  who: Clusters, figures: Mapping[str, WeightedMetrics]
) -> dict[str, dict[str, Replicates]]:
  """Resamples clusters and computes all metrics for each replicate.

  Args:
    who: the clusters.
    figures: by subset or system; all share the same replicates.

  Returns:
    {subset: {figure: `Replicates`}}.
  """
  each = max((f.size for f in figures.values()), default=0)
  once = {name: f(np.ones((1, who.n), np.int32)) for name, f in figures.items()}
  drawn = _gathered(figures, _weights(who, each))
  groups = list(_left_out(who, each)) if who.n else []
  left_out = _gathered(figures, (weights for weights, _ in groups))
  part = np.concatenate([p for _, p in groups]) if groups else np.zeros(0, np.int64)
  return {
    name: {
      figure: Replicates(
        float(value[0]),
        drawn[name].get(figure, np.zeros(0)),
        left_out[name].get(figure, np.zeros(0)),
        part,
        figures[name].count_clusters(figure),
      )
      for figure, value in found.items()
    }
    for name, found in once.items()
  }


def _gathered(figures, some_weights) -> dict[str, dict[str, np.ndarray]]:
  parts = {name: {} for name in figures}
  for weights in some_weights:
    for name, of in figures.items():
      for figure, values in of(weights).items():
        parts[name].setdefault(figure, []).append(values)
  return {name: {f: np.concatenate(v) for f, v in found.items()} for name, found in parts.items()}


def interval(draws: Replicates, confidence: float = CONFIDENCE) -> Interval:
  """The BCa interval of a metric, widened for few clusters.

  Args:
    draws: of the metric.
    confidence: nominal coverage.

  Returns:
    `Interval`; undefined if the metric is, or fewer than two clusters contribute to it.
  """
  drawn = draws.drawn[np.isfinite(draws.drawn)]
  if math.isnan(draws.value) or draws.n < 2 or not drawn.size:
    return UNDEFINED
  if np.ptp(drawn) == 0:  # nothing varies: no error, or nothing else, was seen
    if draws.value in (0.0, 1.0):
      return clopper_pearson(metrics.Count(round(draws.value * draws.n), draws.n), confidence)
    return Interval(draws.value, draws.value)
  low, high = _quantiles(draws, drawn, confidence)
  return Interval(min(low, draws.value), max(high, draws.value))


def subtract(a: Replicates, b: Replicates) -> Replicates:
  """The replicates of b - a, over the same resampled clusters."""
  n = min(a.n, b.n)
  return Replicates(b.value - a.value, b.drawn - a.drawn, b.left_out - a.left_out, a.part, n)


def spread(draws: Replicates) -> tuple[float, float]:
  """(standard error of a figure over clusters, its degrees of freedom); NaN where undefined."""
  n, drawn = draws.n, draws.drawn[np.isfinite(draws.drawn)]
  if math.isnan(draws.value) or n < 2 or drawn.size < 2:
    return math.nan, math.nan
  return math.sqrt(n / (n - 1)) * float(drawn.std(ddof=1)), min(_shape(draws)[1], n - 1)


def difference(
  a: Replicates, b: Replicates, confidence: float = CONFIDENCE
) -> tuple[float, Interval, float]:
  """b - a, over the same replicates: Student's t on the spread of the differences.

  Paired differences are nearly symmetric, where BCa only adds noise.

  Returns:
    The difference, its interval, and the two-sided p of the hypothesis that there is none.
  """
  from scipy.special import stdtr, stdtrit

  both = subtract(a, b)
  error, freedom = spread(both)
  if math.isnan(error):
    return both.value, UNDEFINED, math.nan
  if error == 0:
    return both.value, Interval(both.value, both.value), 1.0 if both.value == 0 else math.nan
  away = float(stdtrit(freedom, (1 + confidence) / 2)) * error
  p = 2 * float(stdtr(freedom, -abs(both.value) / error))
  # Both are rates, from 0 to 1: their difference is from -1 to 1.
  return both.value, Interval(max(both.value - away, -1.0), min(both.value + away, 1.0)), p


def _quantiles(draws: Replicates, drawn: np.ndarray, confidence: float) -> tuple[float, float]:
  from scipy.special import ndtr, ndtri, stdtrit

  n, tail = draws.n, (1 - confidence) / 2
  below = (np.count_nonzero(drawn < draws.value) + np.count_nonzero(drawn <= draws.value)) / 2
  bias = ndtri(np.clip(below, 0.5, drawn.size - 0.5) / drawn.size)
  skew, freedom = _shape(draws)
  z = math.sqrt(n / (n - 1)) * stdtrit(min(freedom, n - 1), np.array([tail, 1 - tail]))
  places = ndtr(bias + (bias + z) / np.maximum(1 - skew * (bias + z), 1e-3))
  low, high = np.quantile(drawn, places)
  return float(low), float(high)


def _shape(draws: Replicates) -> tuple[float, float]:
  """(acceleration, degrees of freedom), from leaving out groups of clusters.

  The first is how the figure's spread grows with it [E]. The second is how well the spread itself
  is known: if it depends on few clusters, their fourth power shows it [S].
  """
  ok = np.isfinite(draws.left_out)
  value, part = draws.left_out[ok], draws.part[ok]
  if value.size < 2:
    return 0.0, 1.0
  mean = np.bincount(part, value) / np.maximum(np.bincount(part), 1)
  away = mean[part] - value
  spread = np.sum(away**2)
  if not spread > 0:
    return 0.0, float(value.size)
  skew = np.sum(away**3) / (6 * spread**1.5)
  kurtosis = value.size * np.sum(away**4) / spread**2
  return float(skew), float(np.clip(2 * value.size / max(kurtosis - 1, 1e-9), 2, value.size))
