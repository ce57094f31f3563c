"""Runs and subjects: intervals by hand, what they equal without a spread of runs, coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from flexfas_jax.evaluation import bootstrap, runs
from flexfas_jax.evaluation.bootstrap import Replicates
from flexfas_jax.evaluation.intervals import Interval

NAN = math.nan
N = 10  # subjects
SIGNS = np.array(np.meshgrid([1, -1], [1, -1], [1, -1])).reshape(3, 8)  # of three, independent


def run_of(value, away, n=N):
  """A run whose replicates are away from its value; its subjects are alike (no acceleration)."""
  return Replicates(
    value, value + np.asarray(away), value + np.tile([-0.01, 0.01], n), np.zeros(2 * n, int), n
  )


def alike(*values, away=0.02):
  """Runs that differ by the same amount in every replicate: no interaction with subjects."""
  return [run_of(value, away * SIGNS[0]) for value in values]


def test_the_mean_over_runs_by_hand():
  a = Replicates(0.1, np.array([0.0, 0.2]), np.array([0.1, 0.3]), np.array([0, 1]), 7)
  b = Replicates(0.3, np.array([0.2, 0.8]), np.array([0.3, 0.1]), np.array([0, 1]), 5)
  found = runs.mean([a, b])
  assert found.value == pytest.approx(0.2) and found.n == 5
  np.testing.assert_allclose(found.drawn, [0.1, 0.5])
  np.testing.assert_allclose(found.left_out, [0.2, 0.2])
  np.testing.assert_array_equal(found.part, [0, 1])


def test_the_interval_of_three_runs_by_hand():
  # Variance of the values 1e-4, of their mean 1e-4 / 3; Student's t of 2 degrees is 4.302653.
  three = alike(0.19, 0.20, 0.21)
  away = 4.302653 * math.sqrt(1e-4 / 3)
  assert away == pytest.approx(0.024841, abs=1e-6)
  found = runs.widen(Interval(0.15, 0.26), three)
  assert found == pytest.approx((0.2 - math.hypot(0.05, away), 0.2 + math.hypot(0.06, away)))
  assert found == pytest.approx((0.144169, 0.264939), abs=1e-6)
  # Two runs: 12.706 times half of their difference, and no rate is below 0.
  found = runs.widen(Interval(0.1, 0.3), alike(0.18, 0.22))
  assert found == pytest.approx((0.0, 0.2 + math.hypot(0.1, 12.706205 * 0.02)))
  # Nor above 1.
  found = runs.widen(Interval(0.7, 0.9), alike(0.78, 0.82))
  assert found == pytest.approx((0.8 - math.hypot(0.1, 12.706205 * 0.02), 1.0))
  # No error of any run, so that all replicates are equal: the exact interval stays.
  assert runs.widen(Interval(0.0, 0.3), alike(0.0, 0.0, away=0.0)) == (0.0, 0.3)


def test_what_subjects_and_runs_share_counts_once():
  common, own = 0.03, 0.02
  two = [run_of(0.2, common * SIGNS[0] + own * SIGNS[k]) for k in (1, 2)]
  # Per replicate, the variance of the runs is (e1 - e2)^2 / 2: own^2 on average.
  assert runs.spread(two).interaction == pytest.approx(N / (N - 1) * own**2 / 2)
  # The mean varies by common^2 + own^2 / 2; 8 replicates, divided by 7.
  variance = N / (N - 1) * 8 / 7 * (common**2 + own**2 / 2)
  assert bootstrap.spread(runs.mean(two))[0] == pytest.approx(math.sqrt(variance))
  rest = math.sqrt(1 - N / (N - 1) * own**2 / 2 / variance)
  assert runs.widen(Interval(0.1, 0.3), two) == pytest.approx((0.2 - 0.1 * rest, 0.2 + 0.1 * rest))


def test_the_interaction_is_widened_for_the_run_with_the_fewest_subjects():
  def interaction(*n):
    return runs.spread([run_of(0.2, 0.02 * SIGNS[k], n) for k, n in enumerate(n)]).interaction

  assert interaction(10, 4) == pytest.approx(4 / 3 * 0.02**2 / 2)
  assert interaction(2, 2) == pytest.approx(2 * 0.02**2 / 2)
  assert interaction(1, 10) == 0  # one subject has no spread
  assert runs.spread([run_of(0.2, 0.02 * SIGNS[0])]) == (0, math.inf, 0)


def test_two_methods_have_the_interactions_of_both():
  a = [run_of(0.2, 0.02 * SIGNS[k]) for k in (0, 1)]
  b = [run_of(0.2, -0.03 * SIGNS[k]) for k in (0, 1, 2)]
  # The mean over replicates of the variance of independent runs is their own.
  expected = N / (N - 1) * (0.02**2 / 2 + 0.03**2 / 3)
  assert runs.spread(a, b).interaction == pytest.approx(expected)
  assert runs.spread(a, b).interaction == runs.spread(b, a).interaction
  # Runs that agree leave the subjects alone, narrowed by that.
  value, span, _ = runs.difference(a, b)
  both = bootstrap.subtract(runs.mean(a), runs.mean(b))
  error, freedom = bootstrap.spread(both)
  half = stats.t.ppf(0.975, freedom) * math.sqrt(error**2 - expected)
  assert (value, *span) == pytest.approx((0.0, -half, half))


def test_no_interval_is_narrower_than_none():
  """An interaction that is estimated above the whole spread of the mean leaves the runs' alone."""
  two = [run_of(value, 0.02 * sign * SIGNS[0]) for value, sign in ((0.2, 1), (0.3, -1))]
  two.append(run_of(0.25, 0.001 * SIGNS[1]))
  both, of_runs = runs.mean(two), runs.spread(two)
  assert of_runs.interaction > bootstrap.spread(both)[0] ** 2 > 0
  away = 4.302653 * 0.05 / math.sqrt(3)
  assert runs.widen(Interval(0.2, 0.4), two) == pytest.approx((0.25 - away, 0.25 + away))


def test_a_difference_of_independent_runs_by_hand():
  a, b = alike(0.29, 0.30, 0.31), alike(0.18, 0.22, away=0.05)
  value, span, p = runs.difference(a, b)
  variances = 1e-4 / 3, 8e-4 / 2
  freedom = sum(variances) ** 2 / (variances[0] ** 2 / 2 + variances[1] ** 2 / 1)  # Welch's
  error = math.sqrt(sum(variances))
  assert runs.spread(a, b)[:2] == pytest.approx((error, freedom))
  subjects = math.sqrt(N / (N - 1) * 8 / 7) * 0.03  # the replicates differ by 0.05 - 0.02

  def half(confidence):
    tail = (1 + confidence) / 2
    return math.hypot(stats.t.ppf(tail, N - 1) * subjects, stats.t.ppf(tail, freedom) * error)

  assert value == pytest.approx(-0.1)
  assert span == pytest.approx((-0.1 - half(0.95), -0.1 + half(0.95)))
  assert half(1 - p) == pytest.approx(0.1, rel=1e-6)
  turned = runs.difference(b, a)
  assert turned[0] == -value and turned[1] == pytest.approx((-span.high, -span.low))
  assert turned[2] == pytest.approx(p)


def test_runs_that_belong_together_are_compared_pair_by_pair():
  a, b = alike(0.2, 0.3, 0.4), alike(0.21, 0.32, 0.40)
  value, span, p = runs.difference(a, b, paired=True)
  # Differences .01 .02 .00: variance 1e-4; all replicates are equal.
  away = 4.302653 * math.sqrt(1e-4 / 3)
  assert (value, *span) == pytest.approx((0.01, 0.01 - away, 0.01 + away))
  assert p == pytest.approx(2 * stats.t.sf(0.01 / math.sqrt(1e-4 / 3), 2))
  _, wide, _ = runs.difference(a, b)
  assert wide.high - wide.low > 5 * (span.high - span.low)
  with pytest.raises(ValueError, match='3 runs cannot be paired with 2'):
    runs.difference(a, b[:2], paired=True)


def test_p_is_five_percent_where_the_interval_ends_at_0():
  a, b = alike(0.2, 0.21, 0.2), alike(0.3, 0.33, 0.3)
  _, span, _ = runs.difference(a, b)
  shift = span.low
  b = [run_of(run.value - shift, run.drawn - run.value) for run in b]
  _, span, p = runs.difference(a, b)
  assert span.low == pytest.approx(0, abs=1e-12) and p == pytest.approx(0.05, rel=1e-6)


def skewed(seed, n=40, draws=400):
  """Replicates of a rate over subjects, resampled."""
  rng = np.random.default_rng(seed)
  rate = rng.beta(0.5, 2, n)
  times = rng.multinomial(n, np.full(n, 1 / n), draws)
  return Replicates(
    float(rate.mean()), times @ rate / n, (rate.sum() - rate) / (n - 1), np.zeros(n, int), n
  )


@pytest.mark.parametrize('n', [1, 2, 5])
def test_without_a_spread_of_runs_it_is_the_interval_over_subjects(n):
  a, b = skewed(0), skewed(1)
  assert runs.widen(bootstrap.interval(a), [a] * n) == pytest.approx(bootstrap.interval(a))
  for paired in (False, True):
    value, span, p = runs.difference([a] * n, [b] * n, paired)
    expected = bootstrap.difference(a, b)
    assert value == pytest.approx(expected[0]) and span == pytest.approx(expected[1])
    assert p == pytest.approx(expected[2], rel=1e-6)
    assert n > 1 or (value, span, p) == expected  # to the last bit


def test_one_run_against_several():
  """The spread of one is not known: that of the others alone counts."""
  value, span, _ = runs.difference(alike(0.2), alike(0.29, 0.30, 0.31))
  away = 4.302653 * math.sqrt(1e-4 / 3)
  assert value == pytest.approx(0.1)
  assert span == pytest.approx((0.1 - away, 0.1 + away))
  turned = runs.difference(alike(0.29, 0.30, 0.31), alike(0.2))
  assert turned[0] == pytest.approx(-0.1)
  assert turned[1] == pytest.approx((-0.1 - away, -0.1 + away))


def test_what_is_undefined_and_what_never_varies():
  one = [run_of(0.5, 0.1 * SIGNS[0], n=1)] * 3
  assert all(map(math.isnan, runs.widen(bootstrap.interval(one[0]), one)))
  value, span, p = runs.difference(one, one)
  assert value == 0 and math.isnan(span.low) and math.isnan(p)
  same = alike(0.2, 0.2, away=0.0)
  assert runs.difference(same, same) == (0.0, (0.0, 0.0), 1.0)
  value, span, p = runs.difference(same, alike(0.3, 0.3, away=0.0))
  assert (value, *span) == pytest.approx((0.1, 0.1, 0.1)) and math.isnan(p)
  value, span, _ = runs.difference(alike(0.0, 0.9), alike(1.0, 0.9))
  assert span == (-1.0, 1.0)  # of two rates


def test_a_replicate_that_one_run_lacks_counts_for_none():
  away = 0.02 * SIGNS[0]
  lacking = np.where(np.arange(8) == 3, NAN, away)
  two = [run_of(0.2, away), run_of(0.3, lacking)]
  assert runs.spread(two).interaction == pytest.approx(0)
  assert math.isfinite(runs.difference(two, two)[2])
  two[1] = run_of(0.3, np.full(8, NAN))
  assert runs.spread(two) == pytest.approx((0.05, 1, 0))


def test_intervals_over_runs_and_subjects_hold_the_truth():
  """Of three runs that differ as much as subjects do; resampled subjects alone miss it often."""
  hits, n, R, S = np.zeros(2), 300, 3, 40
  rng = np.random.default_rng(0)
  for _ in range(n):
    run = 0.03 * rng.standard_normal((2, R, 1))
    subject = 0.2 * rng.standard_normal(S) + 0.1 * rng.standard_normal((2, R, S))
    rate = 0.4 + run + subject  # [2, R, S]
    times = rng.multinomial(S, np.full(S, 1 / S), 200)
    sides = [
      [
        Replicates(r.mean(), times @ r / S, (r.sum() - r) / (S - 1), np.zeros(S, int), S)
        for r in method
      ]
      for method in rate
    ]
    _, span, _ = runs.difference(*sides)
    _, alone, _ = bootstrap.difference(*map(runs.mean, sides))
    hits += [x.low <= 0 <= x.high for x in (span, alone)]
  assert hits[0] / n > 0.93 and hits[1] / n < 0.8
