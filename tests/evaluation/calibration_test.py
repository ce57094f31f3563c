"""Calibration by hand, against scikit-learn, and that it keeps who ranks above whom."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.calibration import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from flexfas_jax.errors import StateError
from flexfas_jax.evaluation import calibration, metrics, scales
from flexfas_jax.evaluation.ensemble import averaging


def drawn(n=400, seed=0, slope=2.0):
  rng = np.random.default_rng(seed)
  label = rng.integers(0, 2, n)
  return label, expit(slope * (2 * label - 1) + 1.5 * rng.standard_normal(n) + 1)


def test_piecewise_brings_devs_threshold_to_a_half():
  label, score = drawn()
  found = calibration.fit('piecewise', label, score)
  threshold = metrics.eer(metrics.curve(label, score))[1]
  assert found.parameters == {'threshold': threshold}
  np.testing.assert_array_equal(found(np.array([0, threshold, 1, np.nan])), [0, 0.5, 1, np.nan])
  # At 0.5 it decides as the threshold did.
  np.testing.assert_array_equal(found(score) >= 0.5, score >= threshold)
  other = calibration.fit('piecewise', label, score, 'dev_bpcer=1%').parameters['threshold']
  assert other < threshold


def test_platt_is_scikit_learns_logistic_regression_with_soft_targets():
  label, score = drawn()
  n = label.sum(), (1 - label).sum()
  target = np.where(label == 1, (n[0] + 1) / (n[0] + 2), 1 / (n[1] + 2))
  model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
  x = logit(score)[:, None]
  model.fit(
    np.concatenate([x, x]),
    np.repeat([1, 0], score.size),
    sample_weight=np.concatenate([target, 1 - target]),
  )
  found = calibration.fit('platt', label, score)
  assert found.parameters['slope'] == pytest.approx(model.coef_[0, 0], rel=1e-5)
  assert found.parameters['offset'] == pytest.approx(model.intercept_[0], rel=1e-4)
  np.testing.assert_allclose(found(score), model.predict_proba(x)[:, 1], rtol=1e-4)


def test_platt_ends_where_the_classes_are_apart_and_saturated():
  label = np.repeat([1, 0], 50)
  score = np.concatenate([np.ones(50), np.linspace(0, 0.1, 50)])
  found = calibration.fit('platt', label, score)
  assert 0 < found.parameters['slope'] < 100
  # The likelihood's optimum: residuals are orthogonal to 1, so the means agree.
  target = np.where(label == 1, 51 / 52, 1 / 52)
  fitted_on = np.clip(score, averaging.EPSILON, 1 - averaging.EPSILON)
  assert found(fitted_on).mean() == pytest.approx(target.mean(), abs=1e-6)


@pytest.mark.parametrize('decimals', [None, 2, 1])
def test_isotonic_is_scikit_learns(decimals):
  label, score = drawn(slope=0.7)
  score = score if decimals is None else score.round(decimals)
  model = IsotonicRegression(out_of_bounds='clip').fit(score, label)
  found = calibration.fit('isotonic', label, score)
  elsewhere = np.linspace(0, 1, 301)
  np.testing.assert_allclose(found(score), model.predict(score), atol=1e-12)
  np.testing.assert_allclose(found(elsewhere), model.predict(elsewhere), atol=1e-12)


def test_isotonic_by_hand():
  # .2 is an attack, .3 bona fide, .4 an attack: the last two are one step of a half.
  found = calibration.fit('isotonic', [0, 1, 0, 1], [0.2, 0.3, 0.4, 0.8])
  assert found.parameters == {'from': [0.2, 0.3, 0.4, 0.8], 'to': [0.0, 0.5, 0.5, 1.0]}
  np.testing.assert_allclose(found([0, 0.25, 0.35, 0.6, 0.9]), [0, 0.25, 0.5, 0.75, 1])


@settings(max_examples=60, deadline=None)
@given(
  st.sampled_from(['piecewise', 'platt']),
  st.lists(st.integers(1, 999), min_size=2, max_size=40),
  st.integers(0, 5),
)
def test_a_monotone_map_keeps_auc_and_eer(method, thousandths, seed):
  found = calibration.fit(method, *drawn(seed=seed))
  score = np.array(thousandths) / 1000
  label = np.random.default_rng(seed).integers(0, 2, score.size)
  before, after = metrics.curve(label, score), metrics.curve(label, found(score))
  np.testing.assert_equal(metrics.auc(after), metrics.auc(before))
  np.testing.assert_equal(metrics.eer(after)[0], metrics.eer(before)[0])
  assert (np.diff(found(np.sort(score))) >= 0).all()


def test_near_0_and_1_no_two_scores_become_one():
  scores = np.array([1e-12, 1e-9, 1e-3, 0.9, 1 - 1e-9])
  for method in ('piecewise', 'platt'):
    assert (np.diff(calibration.fit(method, *drawn())(scores)) > 0).all(), method


def test_isotonic_only_ties():
  label, score = drawn(slope=0.7)
  found = calibration.fit('isotonic', label, score)
  other = drawn(seed=1, slope=0.7)[1]
  assert (np.diff(found(np.sort(other))) >= 0).all()
  assert np.unique(found(other)).size < np.unique(other).size


def test_the_measures():
  label, score = np.array([1, 0, 1, 0]), np.array([0.9, 0.2, 0.6, 0.3])
  assert calibration.brier(label, score) == pytest.approx(brier_score_loss(label, score))
  assert calibration.log_loss(label, score) == pytest.approx(sklearn_log_loss(label, score))
  # Two bins: .2 and .3 are .25 above no bona fide; .9 and .6 are .25 below all.
  assert calibration.calibration_error(label, score, 2) == pytest.approx(0.25)
  # Four bins: [.2], [.3], [.6], [.9]
  assert calibration.calibration_error(label, score, 4) == pytest.approx(
    (0.2 + 0.3 + 0.4 + 0.1) / 4
  )
  assert calibration.calibration_error([1, 0], [1.0, 0.0]) == 0
  assert calibration.log_loss([0], [1.0]) == pytest.approx(53 * math.log(2))
  for measure in (calibration.brier, calibration.log_loss, calibration.calibration_error):
    assert math.isnan(measure([1], [np.nan]))
    assert measure([1, 0, 1], [0.9, 0.2, np.nan]) == measure([1, 0], [0.9, 0.2])


def test_calibration_mends_what_it_is_meant_to():
  """On other samples of the same kind than it was fitted on."""
  for method in calibration.METHODS:
    found = calibration.fit(method, *drawn(4000))
    label, score = drawn(4000, seed=1)
    before, after = calibration.assess(label, score), calibration.assess(label, found(score))
    assert after['acer'] < before['acer'], method
    if method != 'piecewise':  # which moves the threshold, and promises no more
      for name in ('brier', 'log_loss', 'calibration_error'):
        assert after[name] < before[name], (method, name)


@pytest.mark.parametrize('method', calibration.METHODS)
def test_failures_to_acquire_teach_nothing_and_stay(method):
  label, score = drawn()
  more = calibration.fit(method, np.append(label, 1), np.append(score, np.nan))
  assert more == calibration.fit(method, label, score)
  assert np.isnan(more(np.array([np.nan]))).all()


@pytest.mark.parametrize('method', calibration.METHODS)
def test_what_cannot_be_fitted(method):
  with pytest.raises(StateError, match='both classes'):
    calibration.fit(method, [1, 1], [0.2, 0.3])
  with pytest.raises(StateError, match='no higher'):
    calibration.fit(method, [1, 0], [0.2, 0.3])
  with pytest.raises(StateError, match='both classes'):
    calibration.fit(method, [1, 0], [0.2, np.nan])


def test_a_threshold_that_no_line_moves():
  for threshold in (0.0, 1.0, 1.5):
    with pytest.raises(StateError, match='must be in'):
      calibration.piecewise(threshold)
  with pytest.raises(ValueError, match='no calibration'):
    calibration.fit('beta', [1, 0], [0.9, 0.1])


def test_a_score_on_an_edge_is_in_the_upper_bin():
  # 0.29 * 100 is 28.999999999999996: in one bin with 0.285 the two would even out.
  label, score = [1, 0, 1], [0.29, 0.285, 1.0]
  assert calibration.calibration_error(label, score, 100) == pytest.approx((0.71 + 0.285) / 3)


@pytest.mark.parametrize('method', calibration.METHODS)
def test_the_order_of_rows_does_not_matter(method):
  rng = np.random.default_rng(7)
  label = rng.integers(0, 2, 300)
  score = np.clip(rng.normal(0.3 + 0.4 * label, 0.2), 0, 1)
  order = rng.permutation(300)
  maps = [calibration.fit(method, label[at], score[at]) for at in (np.arange(300), order)]
  assert maps[0] == maps[1]
  measures = [calibration.assess(label[at], score[at]) for at in (np.arange(300), order)]
  assert measures[0] == measures[1]


def test_what_calibration_changes_is_reported_by_name():
  label, score = [1, 1, 0, 0], [0.9, 0.4, 0.6, 0.1]
  assessed = calibration.assess(label, score)
  assert {n: assessed[n] for n in ('acer', 'apcer', 'bpcer', 'eer', 'auc')} == {
    'acer': 0.5, 'apcer': 0.5, 'bpcer': 0.5, 'eer': 0.5, 'auc': 0.75
  }  # fmt: skip
  assert assessed['brier'] == calibration.brier(label, score)
  assert assessed['log_loss'] == calibration.log_loss(label, score)
  assert assessed['calibration_error'] == calibration.calibration_error(label, score)


@pytest.mark.parametrize('method', calibration.METHODS)
@pytest.mark.parametrize('scale', ['percent', 'logit', 'attack_probability', 'attack_percent'])
def test_on_any_scale_the_map_is_the_same(method, scale):
  rng = np.random.default_rng(5)
  label = rng.integers(0, 2, 400)
  share = np.clip(rng.normal(0.35 + 0.3 * label, 0.15), 0.01, 0.99).round(3)
  kept = {
    'percent': 100 * share,
    'logit': np.log(share / (1 - share)),
    'attack_probability': share - 1,
    'attack_percent': 100 * share - 100,
  }[scale]
  expected = calibration.fit(method, label, share)(share)
  found = calibration.fit(method, label, kept, scale=scale)
  after = found(kept)
  np.testing.assert_allclose(
    scales.probability(after, found.result_scale), expected, rtol=1e-6, atol=1e-9
  )
  assessed = calibration.assess(label, after, found.result_scale)
  assert (assessed['acer'], assessed['auc']) == (
    pytest.approx(calibration.assess(label, expected)['acer']),
    pytest.approx(calibration.assess(label, expected)['auc'], abs=1e-4),
  )


@pytest.mark.parametrize('method', ['piecewise', 'platt'])
def test_small_scores_of_either_class_are_not_merged(method):
  label = np.array([1, 0] * 20)
  small = 10.0 ** -np.arange(1, 41)  # the least of attacks, and of bona fide
  low = np.sort(np.where(label, 0.5 + small / 4, small))
  rising = calibration.fit(method, np.sort(label), low)(low)
  assert (np.diff(rising[:20]) > 0).all()
  attack = -np.sort(np.where(label, small, 0.5 + small / 4))[::-1]
  found = calibration.fit(method, np.sort(label), attack, scale='attack_probability')
  assert (np.diff(found(attack)[20:]) > 0).all()
