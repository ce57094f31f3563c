"""Rates by demographic or other groups, and the gaps between groups."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from flexfas_jax.evaluation import bootstrap, intervals
from flexfas_jax.evaluation.intervals import Interval
from flexfas_jax.evaluation.metrics import Count

RATES = ('bpcer', 'apcer')


@dataclasses.dataclass(frozen=True)
class Group:
  """One rate of one group."""

  name: str
  count: Count
  exact: Interval  # Clopper-Pearson
  bootstrap: Interval
  insufficient_samples: bool  # samples or subjects, see `sufficiency`

  @property
  def value(self) -> float:
    return self.count.rate


@dataclasses.dataclass(frozen=True)
class Gap:
  """How far the groups are apart in one rate.

  `interval` is simultaneous: from what the groups' own intervals, each at the confidence that
  Bonferroni asks for, leave apart, to the most that they allow. Above 0 there is a gap.
  """

  rate: str
  groups: tuple[Group, ...]
  value: float  # the largest rate less the smallest, of the groups that are not too small
  interval: Interval


def shares(
  column: str, values: np.ndarray, label: np.ndarray, accepted: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """What `bootstrap.WeightedMetrics` needs for the rates of each group.

  Args:
    column: what the samples are grouped by.
    values: [N] str; '' is left out.
    label: [N] integer, 1 = bona fide.
    accepted: [N] bool.
  """
  bona_fide, found = np.asarray(label) == 1, {}
  for value in np.unique(values[values != '']):
    of = values == value
    found[_key('bpcer', column, value)] = (~accepted, of & bona_fide)
    found[_key('apcer', column, value)] = (accepted, of & ~bona_fide)
  return {name: pair for name, pair in found.items() if pair[1].any()}


def gap(
  rate: str,
  column: str,
  counts: Mapping[str, tuple[np.ndarray, np.ndarray]],
  drawn: Mapping[str, bootstrap.Replicates] | None,
  insufficient_samples: Callable[[np.ndarray], bool] = lambda among: intervals.insufficient_samples(
    int(among.sum())
  ),
) -> Gap:
  """One rate, by group.

  Args:
    rate: 'bpcer' or 'apcer'.
    column: what the samples are grouped by.
    counts: from `shares`.
    drawn: the figures of these names; None without a bootstrap, and then intervals are over
      samples.
    insufficient_samples: whether a rate over some samples, [N] bool, has insufficient samples, see
      `sufficiency.SampleUnits`.
  """
  prefix = _key(rate, column, '')[:-1]
  names = [key for key in counts if key.startswith(prefix)]
  sufficient = [key for key in names if not insufficient_samples(counts[key][1])]
  each = 1 - (1 - intervals.CONFIDENCE) / max(len(sufficient), 1)
  groups, spans = [], {}
  for key in names:
    which, among = counts[key]
    count = Count(int((which & among).sum()), int(among.sum()))
    subjects_interval = bootstrap.interval(drawn[key]) if drawn else intervals.UNDEFINED
    groups.append(
      Group(
        key.removeprefix(prefix)[:-1],
        count,
        intervals.clopper_pearson(count),
        subjects_interval,
        key not in sufficient,
      )
    )
    if key in sufficient:
      by_subjects = bootstrap.interval(drawn[key], each) if drawn else intervals.UNDEFINED
      exact = intervals.clopper_pearson(count, each)
      spans[key] = exact if math.isnan(by_subjects.low) else by_subjects
  rates = [g.count.rate for g in groups if not g.insufficient_samples]
  if len(rates) < 2:
    return Gap(rate, tuple(groups), math.nan, intervals.UNDEFINED)
  low = max(s.low for s in spans.values()) - min(s.high for s in spans.values())
  high = max(s.high for s in spans.values()) - min(s.low for s in spans.values())
  return Gap(rate, tuple(groups), max(rates) - min(rates), Interval(max(low, 0.0), min(high, 1.0)))


def _key(rate: str, column: str, value: str) -> str:
  return f'{rate}[{column}={value}]'
