"""Rates by group: counts by hand, groups that are too small, and the gap's interval."""

import math

import numpy as np
import pytest

from flexfas_jax.evaluation import bootstrap, groups, intervals
from flexfas_jax.evaluation.metrics import Count


def made(rejected):
  """Of each group 100 bona fide samples, so many of them rejected, and one attack."""
  label, accepted, values = [], [], []
  for name, k in rejected.items():
    label += [1] * 100 + [0]
    accepted += [False] * k + [True] * (100 - k) + [False]
    values += [name] * 101
  return np.array(label), np.array(accepted), np.array(values)


def test_counts_by_hand_and_what_is_not_known_is_left_out():
  label, accepted, values = made({'AF': 5, 'CA': 50, '': 9})
  counts = groups.shares('ethnicity', values, label, accepted)
  assert list(counts) == [
    f'{rate}[ethnicity={name}]' for name in ('AF', 'CA') for rate in ('bpcer', 'apcer')
  ]
  gap = groups.gap('bpcer', 'ethnicity', counts, None)
  assert [(g.name, g.count) for g in gap.groups] == [('AF', Count(5, 100)), ('CA', Count(50, 100))]
  assert gap.value == pytest.approx(0.45)
  each = [intervals.clopper_pearson(Count(k, 100), 0.975) for k in (5, 50)]
  assert gap.interval == pytest.approx((each[1].low - each[0].high, each[1].high - each[0].low))
  assert gap.interval.low > 0


def test_groups_that_do_not_differ_have_a_gap_of_perhaps_nothing():
  label, accepted, values = made({'AF': 10, 'CA': 12, 'EA': 11})
  gap = groups.gap('bpcer', 'e', groups.shares('e', values, label, accepted), None)
  assert gap.value == pytest.approx(0.02)
  assert gap.interval.low == 0 < gap.value < gap.interval.high


def test_groups_that_are_too_small_have_no_rate_and_no_gap():
  label, accepted, values = made({'AF': 10, 'CA': 12})
  gap = groups.gap('apcer', 'e', groups.shares('e', values, label, accepted), None)
  assert [g.insufficient_samples for g in gap.groups] == [True, True]
  assert math.isnan(gap.value) and math.isnan(gap.interval.low)


def test_intervals_are_over_people_where_they_are_known():
  label, accepted, values = made({'AF': 20, 'CA': 60})
  counts = groups.shares('e', values, label, accepted)
  subject = np.char.add(values, (np.arange(values.size) // 10).astype(str))  # ten samples each
  nothing = np.full(values.size, '')
  who = bootstrap.make_clusters(label, nothing, subject, nothing)
  figures = bootstrap.WeightedMetrics(who, label, accepted.astype(float), counts)
  drawn = bootstrap.resample(who, {'x': figures})['x']
  gap = groups.gap('bpcer', 'e', counts, drawn)
  alone = groups.gap('bpcer', 'e', counts, None)
  assert gap.value == alone.value

  def width(span):
    return span.high - span.low

  assert width(gap.groups[0].bootstrap) > 1.5 * width(gap.groups[0].exact)
  assert width(gap.interval) > width(alone.interval)
