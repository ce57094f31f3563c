"""The score of a bundle is the score that evaluation computed, to the last bit."""

import numpy as np
import scipy.special

from flexfas_jax.prediction.sigmoid import sigmoid


def test_the_bits_are_scipys():
  draws = np.random.default_rng(0)
  logit = np.concatenate([draws.normal(0, spread, 5000) for spread in (1e-8, 1, 10, 100, 700)])
  for values in (logit, logit.astype(np.float32).astype(np.float64)):
    np.testing.assert_array_equal(sigmoid(values), scipy.special.expit(values), strict=True)


def test_by_hand():
  logit = np.array([0, 1000, -1000, -709.79, np.inf, -np.inf, np.nan])
  expected = np.array([0.5, 1, 0, scipy.special.expit(-709.79), 1, 0, np.nan])
  np.testing.assert_array_equal(sigmoid(logit), expected, strict=True)
  assert sigmoid(np.array([2.0]))[0] == 0.8807970779778823
  assert sigmoid(np.array([], np.float32)).dtype == np.float64
