"""Means are those of the decimals that the scores are written as, in any order."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexfas_jax.evaluation import exact_mean

NAN = math.nan


def true_mean(values):
  """By fractions of the decimals, rounded once."""
  return float(sum(Fraction(repr(v)) for v in values) / len(values))


@pytest.mark.parametrize(
  ('values', 'mean'),
  [
    ([0.7, 0.7, 0.7], 0.7),
    ([0.1, 0.2], 0.15),
    ([0.6, 0.7, 0.8], 0.7),
    ([1e16, 1.0, -1e16], 1 / 3),
    ([5e-324, 1e300, -1e300], 0.0),
    ([1e-30, 3e-30], 2e-30),
    ([49 * [0.93], 0.93][0], 0.93),
  ],
)
def test_by_hand(values, mean):
  groups = np.zeros(len(values), int)
  assert exact_mean.group_means(np.array(values), groups, 1) == [mean]
  assert exact_mean.column_means(np.array(values)[:, None]) == [mean]


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
  st.lists(st.integers(0, 1000).map(lambda k: k / 1000) | st.floats(-1, 1), min_size=1, max_size=9),
  st.randoms(use_true_random=False),
)
def test_it_is_the_rounded_mean_of_the_decimals_in_any_order(values, shuffle):
  expected = true_mean(values)
  shuffle.shuffle(values)
  array = np.array(values)
  assert exact_mean.column_means(array[:, None]) == [expected]
  assert exact_mean.group_means(array, np.zeros(len(values), int), 1) == [expected]


def test_groups_may_be_empty_and_interleaved():
  score = np.array([0.1, 0.7, 0.2, 0.7, 0.7, 0.3])
  found = exact_mean.group_means(score, np.array([3, 0, 3, 0, 0, 1]), 5)
  np.testing.assert_array_equal(found, [0.7, 0.3, NAN, 0.15, NAN])
  assert exact_mean.group_means(np.zeros(0), np.zeros(0, int), 2).shape == (2,)


def test_a_column_with_a_gap_has_no_mean():
  values = np.array([[0.1, NAN, 0.5], [0.2, 0.3, 0.5]])
  np.testing.assert_array_equal(exact_mean.column_means(values), [0.15, NAN, 0.5])


def test_weights_of_any_sum_keep_what_all_agree_on():
  rng = random.Random(0)
  for _ in range(50):
    weights = [rng.random() for _ in range(7)]
    values = np.array([[0.7, k / 10] for k in range(7)])
    found = exact_mean.column_means(values, weights)
    of = [Fraction(repr(w)) for w in weights]
    assert found[0] == 0.7
    assert found[1] == float(sum(w * k / 10 for k, w in enumerate(of)) / sum(of))
  assert exact_mean.column_means(np.array([[0.1], [0.3]]), [1, 0]) == [0.1]


def test_columns_of_the_largest_numbers():
  largest = np.finfo(np.float64).max
  values = np.array([[largest, largest, np.nan], [largest, -largest, 1]])
  np.testing.assert_array_equal(exact_mean.column_means(values), [largest, 0, np.nan])
