"""Intervals by hand, against published tables and against SciPy's binomial."""

import math

import pytest
from scipy import stats

from flexfas_jax.evaluation import intervals
from flexfas_jax.evaluation.metrics import Count


@pytest.mark.parametrize('k,n', [(0, 1), (1, 1), (0, 30), (3, 30), (29, 30), (30, 30), (7, 6614)])
def test_clopper_pearson_is_where_the_binomial_leaves_two_and_a_half_percent(k, n):
  low, high = intervals.clopper_pearson(Count(k, n))
  if k:
    assert stats.binom.sf(k - 1, n, low) == pytest.approx(0.025, rel=1e-9)
  else:
    assert low == 0
  if k < n:
    assert stats.binom.cdf(k, n, high) == pytest.approx(0.025, rel=1e-9)
  else:
    assert high == 1


def test_no_errors_in_closed_form():
  # 1 - tail ** (1 / n)
  assert intervals.clopper_pearson(Count(0, 20)).high == pytest.approx(1 - 0.025 ** (1 / 20))
  assert intervals.upper_bound(Count(0, 20)) == pytest.approx(1 - 0.05 ** (1 / 20))


@pytest.mark.parametrize(
  'n,percent', [(213, 1.40), (225, 1.32), (366, 0.82), (600, 0.50), (1040, 0.29)]
)
def test_upper_bounds_that_laboratories_know(n, percent):
  assert round(100 * intervals.upper_bound(Count(0, n)), 2) == percent


def test_nothing_of_nothing_is_undefined():
  assert all(map(math.isnan, intervals.clopper_pearson(Count(0, 0))))
  assert all(map(math.isnan, intervals.max_interval([Count(0, 0)])))


def test_the_mean_of_two_rates_by_hand():
  a, b = intervals.Interval(0.1, 0.4), intervals.Interval(0.3, 0.7)
  low, high = intervals.mean_interval((0.2, 0.6), (a, b))
  # (0.8 -+ sqrt(...)) / 2: 0.1 and 0.3 below, 0.2 and 0.1 above.
  assert low == pytest.approx((0.8 - math.sqrt(0.1**2 + 0.3**2)) / 2)
  assert high == pytest.approx((0.8 + math.sqrt(0.2**2 + 0.1**2)) / 2)
  assert intervals.mean_interval((0.0, 0.0), (intervals.Interval(0, 0.1),) * 2).low == 0


def test_the_largest_rate_is_held_together_not_one_by_one():
  one = intervals.max_interval([Count(5, 50)])
  assert one == pytest.approx(intervals.clopper_pearson(Count(5, 50)))
  several = intervals.max_interval([Count(5, 50), Count(0, 400), Count(1, 20)])
  # The upper limit is the widest one's, the lower is lower than alone: three could have failed.
  assert several.high == intervals.clopper_pearson(Count(1, 20)).high
  assert several.low == intervals.clopper_pearson(Count(5, 50), 1 - 0.05 / 3).low < one.low


def test_too_few_is_what_cannot_show_ten_percent():
  assert intervals.upper_bound(Count(0, intervals.MIN_SAMPLES)) <= 0.1
  assert intervals.upper_bound(Count(0, intervals.MIN_SAMPLES - 1)) > 0.1
  assert [intervals.insufficient_samples(n) for n in (0, 1, 28, 29)] == [False, True, True, False]


def test_samples_of_few_subjects_are_too_few():
  of = [(0, 0), (1, 1), (28, 28), (29, 9), (10**6, 9), (29, 10), (36, 6)]
  assert [intervals.insufficient_samples(*pair) for pair in of] == [False] + [True] * 4 + [
    False,
    True,
  ]


def test_limits_stay_within_what_a_rate_can_be():
  near = (intervals.Interval(0.5, 1.0), intervals.Interval(0.2, 1.4))
  assert intervals.mean_interval((0.9, 0.9), near).high == 1.0
  low = (intervals.Interval(-0.4, 0.5), intervals.Interval(-0.4, 0.5))
  assert intervals.mean_interval((0.1, 0.1), low).low == 0.0


def test_a_share_of_nothing_is_no_part_of_a_maximum():
  counts = [Count(3, 40), Count(0, 0)]
  assert intervals.max_interval(counts) == intervals.max_interval(counts[:1])
