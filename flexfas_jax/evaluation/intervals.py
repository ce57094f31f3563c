"""Intervals of rates from counts, for independent samples: exact of a share, not of a mean.

Frames of one video and videos of one subject are dependent: `bootstrap` computes intervals over
subjects, and both are reported. Sources:

  [CP]  Clopper and Pearson, The use of confidence or fiducial limits illustrated in the case of
        the binomial (Biometrika, 1934).
  [ZD]  Zou and Donner, Construction of confidence limits about effect measures: a general approach
        (Statistics in Medicine, 2008): the limits of a sum from those of its parts.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

from flexfas_jax.evaluation.metrics import Count

CONFIDENCE = 0.95
# How an interval over samples is made. The first is exact, the second holds at least as often as it
# states, the third is an approximation.
EXACT, BONFERRONI, ZOU_DONNER = 'Clopper-Pearson', 'Clopper-Pearson and Bonferroni', 'Zou-Donner'
# Fewer samples cannot show a rate of at most 10 %, even if no error is seen among them. Samples of
# one subject are not independent: an interval over fewer subjects depends on each single one,
# however many samples there are. A rate needs at least these numbers to be reported.
MIN_SAMPLES = 29
MIN_SUBJECTS = 10


class Interval(NamedTuple):
  """From `low` to `high`, both NaN where undefined."""

  low: float
  high: float


UNDEFINED = Interval(math.nan, math.nan)


def clopper_pearson(count: Count, confidence: float = CONFIDENCE) -> Interval:
  """The exact two-sided interval of a share [CP].

  Args:
    count: so many of so many, independent.
    confidence: that the interval holds the truth, at least.

  Returns:
    `Interval`; undefined for none of none.
  """
  from scipy.special import betaincinv  # quick to import, unlike scipy.stats

  k, n, tail = count.errors, count.n, (1 - confidence) / 2
  if not n:
    return UNDEFINED
  low = float(betaincinv(k, n - k + 1, tail)) if k else 0.0
  high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
  return Interval(low, high)


def upper_bound(count: Count) -> float:
  """The exact one-sided upper bound: the truth is at most this. NaN for none of none [CP]."""
  return clopper_pearson(count, 2 * CONFIDENCE - 1).high


def mean_interval(rates: tuple[float, float], parts: tuple[Interval, Interval]) -> Interval:
  """The approximate interval of the mean of two independent rates, from theirs [ZD]."""
  mean = sum(rates) / 2
  below = math.hypot(*(rate - part.low for rate, part in zip(rates, parts, strict=True))) / 2
  above = math.hypot(*(part.high - rate for rate, part in zip(rates, parts, strict=True))) / 2
  return Interval(max(mean - below, 0.0), min(mean + above, 1.0))


def max_interval(counts: Iterable[Count], confidence: float = CONFIDENCE) -> Interval:
  """The interval of the largest of several shares, valid however they depend on each other.

  It is wider than an exact one: it holds the truth with the confidence or more.

  The truth of the largest is below the highest of the shares' upper limits whenever its own share's
  is; above the highest of the lower limits, if none of them fails (Bonferroni).

  Args:
    counts: of each share.
    confidence: that the interval holds the truth, at least.
  """
  counts = [count for count in counts if count.n]
  if not counts:
    return UNDEFINED
  each = 1 - (1 - confidence) / len(counts)
  return Interval(
    max(clopper_pearson(count, each).low for count in counts),
    max(clopper_pearson(count, confidence).high for count in counts),
  )


def insufficient_samples(n: int, n_subjects: int | None = None) -> bool:
  """Whether a rate is of too little evidence to be stated: see `MIN_SAMPLES`.

  Args:
    n: samples.
    n_subjects: that they are of; of videos, where subjects are not known; None: neither is known,
      and the samples are taken to be independent.
  """
  return 0 < n < MIN_SAMPLES or (n > 0 and n_subjects is not None and n_subjects < MIN_SUBJECTS)
