"""Intervals over training runs and subjects: figures of a method, and differences of two methods.

Training with another seed, order of the data or rounding gives another model with other rates. An
interval over subjects (`bootstrap`) is one of the trained models at hand. A statement about the
method that trains them needs several runs, and an interval over both. Runs and subjects are
crossed: every run scores the same subjects. The mean of a figure over R runs and S subjects then
has the variance of a study of several readers and cases [OR]:

  runs / R + subjects / S + interaction / (R S)

The spread of the runs' values estimates the first and the last term, the bootstrap of the mean over
subjects the second and the last, which is subtracted there. Runs of two methods are independent,
unless they are the same runs (two subsets of sensors of each model) or share more than a number;
then the differences of the pairs of runs take the place of the runs' values.

The interval is that over subjects, narrowed by the interaction and widened by the runs: limits of a
sum from those of its parts [ZD]. The part of the runs is Student's t with the degrees of freedom of
the runs, R - 1, or Welch's of two methods [W]. With two or three runs it is wide, and has to be:
resampling the runs [O] covers far less than its nominal share where they differ by more than
subjects explain. `experiments/evaluation` measures the coverage. One run has no spread: the
interval is that over subjects, and another training may differ.

  [O]   Owen, The pigeonhole bootstrap (The Annals of Applied Statistics, 2007).
  [OR]  Obuchowski and Rockette, Hypothesis testing of diagnostic accuracy for multiple readers and
        multiple tests: an ANOVA approach with dependent observations (Communications in Statistics,
        Simulation and Computation, 1995).
  [W]   Welch, The generalization of Student's problem when several different population variances
        are involved (Biometrika, 1947).
  [ZD]  Zou and Donner, Construction of confidence limits about effect measures: a general approach
        (Statistics in Medicine, 2008).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flexfas_jax.evaluation import bootstrap
from flexfas_jax.evaluation.bootstrap import Replicates
from flexfas_jax.evaluation.intervals import CONFIDENCE, UNDEFINED, Interval

_HALVINGS = 50  # of the interval in which p is searched


class Spread(NamedTuple):
  """How the runs differ."""

  error: float  # standard error of the mean over runs; 0 of one run
  freedom: float  # its degrees of freedom
  interaction: float  # variance of that mean over subjects that is not common to all runs


def mean(runs: Sequence[Replicates]) -> Replicates:
  """The replicates of the mean of a figure over runs, which share the resampled subjects."""
  return Replicates(
    float(np.mean([run.value for run in runs])),
    np.mean([run.drawn for run in runs], 0),
    np.mean([run.left_out for run in runs], 0),
    runs[0].part,
    min(run.n for run in runs),
  )


def spread(*methods: Sequence[Replicates]) -> Spread:
  """The spread of independent runs.

  Args:
    *methods: the runs of one method, or of each of two whose means are subtracted.
  """
  methods = [runs for runs in methods if len(runs) > 1]
  variances = [float(np.var([run.value for run in runs], ddof=1)) / len(runs) for runs in methods]
  variance, interaction = sum(variances), 0.0
  squares = sum(v**2 / (len(runs) - 1) for v, runs in zip(variances, methods, strict=True))
  for runs in methods:
    # The deviations of all runs in one replicate: their common part is the subjects'.
    away = np.stack([run.drawn - run.value for run in runs])  # [R, draws]
    away, n = away[:, np.isfinite(away).all(0)], min(run.n for run in runs)
    if away.size and n > 1:
      interaction += n / (n - 1) * float(np.var(away, axis=0, ddof=1).mean()) / len(runs)
  return Spread(
    math.sqrt(variance), variance**2 / squares if squares > 0 else math.inf, interaction
  )


def widen(
  subjects: Interval, runs: Sequence[Replicates], confidence: float = CONFIDENCE
) -> Interval:
  """An interval of the mean over runs, from that over subjects.

  Args:
    subjects: the interval of `mean(runs)` over subjects.
    runs: of one method.
    confidence: nominal coverage, of both.

  Returns:
    `Interval`, within 0 to 1; that over subjects for one run.
  """
  both, of_runs = mean(runs), spread(runs)
  narrowed, away = _narrowing(both, of_runs), _student(of_runs.freedom, confidence) * of_runs.error
  below = math.hypot(narrowed * (both.value - subjects.low), away)
  above = math.hypot(narrowed * (subjects.high - both.value), away)
  return Interval(max(both.value - below, 0.0), min(both.value + above, 1.0))


def difference(
  a: Sequence[Replicates],
  b: Sequence[Replicates],
  paired: bool = False,
  confidence: float = CONFIDENCE,
) -> tuple[float, Interval, float]:
  """The mean over runs of b minus that of a, paired by subject.

  Args:
    a, b: the runs of each method, over the same replicates.
    paired: whether run i of b belongs to run i of a.
    confidence: nominal coverage.

  Returns:
    As `bootstrap.difference`, which it is for one run of each.

  Raises:
    ValueError: runs to pair that are not equally many.
  """
  if len(a) == len(b) == 1:
    return bootstrap.difference(a[0], b[0], confidence)
  if paired and len(a) != len(b):
    raise ValueError(f'{len(a)} runs cannot be paired with {len(b)}')
  both = bootstrap.subtract(mean(a), mean(b))
  error, freedom = bootstrap.spread(both)
  if math.isnan(error):
    return both.value, UNDEFINED, math.nan
  pairs = [bootstrap.subtract(*pair) for pair in zip(a, b, strict=True)] if paired else None
  of_runs = spread(pairs) if pairs else spread(a, b)
  error *= _narrowing(both, of_runs)

  def away(confidence: float) -> float:
    return math.hypot(
      _student(freedom, confidence) * error, _student(of_runs.freedom, confidence) * of_runs.error
    )

  if not away(confidence):
    return both.value, Interval(both.value, both.value), 1.0 if both.value == 0 else math.nan
  width = away(confidence)
  low, high = max(both.value - width, -1.0), min(both.value + width, 1.0)
  return both.value, Interval(low, high), _p_value(abs(both.value), away)


def _narrowing(both: Replicates, of_runs: Spread) -> float:
  """By which an interval over subjects is shorter without the interaction with runs."""
  error, _ = bootstrap.spread(both)
  return math.sqrt(max(0.0, 1 - of_runs.interaction / error**2)) if error > 0 else 1.0


def _student(freedom: float, confidence: float) -> float:
  from scipy.special import stdtrit

  return float(stdtrit(min(freedom, 1e6), (1 + confidence) / 2))


def _p_value(value: float, away) -> float:
  """One minus the confidence at which the interval of half width `away(confidence)` reaches 0."""
  low, high = 0.0, 1.0
  for _ in range(_HALVINGS):
    middle = (low + high) / 2
    low, high = (middle, high) if away(middle) < value else (low, middle)
  return 1 - low
