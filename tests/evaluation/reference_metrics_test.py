"""The references' conventions by hand, against scikit-learn, and how they differ from ours."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from flexfas_jax.evaluation import metrics, reference_metrics

LABEL = np.array([1, 1, 0, 1, 0, 0, 0])
SCORE = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.2])


@pytest.mark.parametrize('decimals', [None, 2, 1, 0])
def test_the_eer_threshold_is_scikit_learns_point(decimals):
  rng = np.random.default_rng(3)
  label = rng.integers(0, 2, 500)
  score = 1 / (1 + np.exp(-label - rng.normal(size=500)))
  score = score if decimals is None else score.round(decimals)
  points = metrics.curve(label, score)
  fpr, tpr, threshold = roc_curve(label, score)
  found = metrics.roc_points(points)
  np.testing.assert_allclose(found[0] / points.n_bona_fide, tpr)
  np.testing.assert_allclose(found[1] / points.n_attack, fpr)
  np.testing.assert_array_equal(found[2], threshold)
  assert reference_metrics.eer_threshold(points) == threshold[np.argmin(np.abs(tpr + fpr - 1))]


def test_the_hter_of_papers_after_mmdg_is_of_the_points_that_scikit_learn_keeps():
  # The two points where TPR + FPR is 5/6 and 7/6 are on a line and dropped; the next, 1/2, is the
  # first of a tie: no attack of 3 is accepted, and 1 of 2 bona fide samples.
  label, score = [1, 0, 0, 0, 1], [0.9, 0.8, 0.7, 0.6, 0.5]
  points = metrics.curve(label, score)
  assert metrics.hter_at_test_eer(points) == 1 / 4
  assert metrics.eer(points)[0] == pytest.approx(5 / 12)
  assert math.isnan(metrics.hter_at_test_eer(metrics.curve([1], [0.5])))
  rng = np.random.default_rng(1)
  for decimals in (6, 2, 1, 0):
    label = rng.integers(0, 2, 300)
    score = (label + rng.normal(size=300)).round(decimals)
    fpr, tpr, _ = roc_curve(label, score)
    k = np.argmin(np.abs(tpr + fpr - 1))
    found = metrics.hter_at_test_eer(metrics.curve(label, score))
    assert found == pytest.approx((fpr[k] + 1 - tpr[k]) / 2, abs=1e-12)


def test_a_score_at_the_threshold_is_rejected():
  found = reference_metrics.flex_modal_fas(LABEL, SCORE, 0.6)
  assert found['bpcer'] == 1 / 3  # the bona fide sample at .6
  assert found['apcer'] == 1 / 4
  assert found['acer'] == pytest.approx((1 / 3 + 1 / 4) / 2)
  ours = metrics.error_rates(LABEL, SCORE, 0.6)
  assert (ours.bpcer, ours.apcer) == (0, 1 / 4)
  assert found['tpr@fpr=1e-2'] == reference_metrics.tpr_at_nearest_fpr(
    metrics.curve(LABEL, SCORE), 1e-2
  )


def test_the_line_in_two_pieces():
  score = [0, 0.932107 / 2, 0.932107, 1]
  np.testing.assert_allclose(reference_metrics.rescaled(score), [0, 0.25, 0.5, 1])
  np.testing.assert_allclose(reference_metrics.rescaled([0.25, 0.75], 0.5), [0.25, 0.75])


def test_the_least_acer_by_a_scan():
  acer, threshold = reference_metrics.least_acer(metrics.curve(LABEL, SCORE))
  scan = {t: metrics.error_rates(LABEL, SCORE, t).acer for t in SCORE}
  assert acer == min(scan.values()) == scan[threshold]
  assert all(map(math.isnan, reference_metrics.least_acer(metrics.curve([1], [0.5]))))
  assert math.isnan(reference_metrics.eer_threshold(metrics.curve([1], [0.5])))


def test_the_least_acer_is_the_strictest_of_equals():
  # (0 + 5/6) / 2 and (1/2 + 2/6) / 2 differ in the last bit of float64.
  label = [1, 0, 1, 1, 1, 0, 1, 1]
  points = metrics.curve(label, [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
  assert reference_metrics.least_acer(points) == (pytest.approx(5 / 12), 0.8)
