"""Metrics by hand, against scikit-learn, against a scan of every threshold, and where undefined."""

import math
import pathlib
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from flexfas_jax.evaluation import metrics, reference_metrics

NAN = math.nan
PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'reference' / 'metrics.md'

# Worked out on paper. Falling, b = bona fide, a = attack:
#   score      .9  .8  .7  .6  .5  .4  .2
#   who         b   b   a   b   a   a   a
# accepted b    1   2   2   3   3   3   3   of 3
# accepted a    0   0   1   1   2   3   4   of 4
LABEL = np.array([1, 1, 0, 1, 0, 0, 0])
SCORE = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.2])
CATEGORY = np.array(['', '', 'print', '', 'print', 'replay', ''])


def samples(min_size=0):
  """Labels and scores with many ties, and failures to acquire."""
  scores = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 1e-300, NAN])
  return st.lists(st.tuples(st.integers(0, 1), scores), min_size=min_size, max_size=30).map(
    lambda pairs: (
      np.array([label for label, _ in pairs], int),
      np.array([score for _, score in pairs], float),
    )
  )


def random_samples(seed, n=2000, decimals=None):
  rng = np.random.default_rng(seed)
  label = rng.integers(0, 2, n)
  score = 1 / (1 + np.exp(-3 * label - rng.normal(0, 2, n)))
  return label, score if decimals is None else score.round(decimals)


def test_error_rates_by_hand():
  rates = metrics.error_rates(LABEL, SCORE, 0.5, CATEGORY)
  assert rates.apcer == 2 / 4
  assert rates.bpcer == 0
  assert rates.acer == 1 / 4
  assert rates.accepted_of == {'print': (2, 2), 'replay': (0, 1), 'unknown': (0, 1)}
  assert list(rates.accepted_of) == ['print', 'replay', 'unknown']
  assert rates.apcer_max == 1
  assert (rates.n_bona_fide, rates.n_attack, rates.n_fta) == (3, 4, 0)


def test_every_metric_by_hand():
  """At .5: 2 of 4 attacks (both prints) and no bona fide sample is decided wrongly."""
  rates = metrics.error_rates(LABEL, SCORE, 0.5, CATEGORY)
  points = metrics.curve(LABEL, SCORE)
  found = {metric.name: metric.value(rates, points) for metric in metrics.METRICS}
  expected = {
    'acer': 1 / 4,
    'apcer': 2 / 4,
    'bpcer': 0,
    'eer': 7 / 24,
    'auc': 11 / 12,
    **dict.fromkeys(('tpr@fpr=1e-2', 'tpr@fpr=1e-3', 'tpr@fpr=1e-4'), 2 / 3),
    'threshold': 0.5,
    'apcer_max': 1,
    'acer_max': 1 / 2,
    'hter': 1 / 4,
    'hter_at_test_eer': 7 / 24,
    **dict.fromkeys(('bpcer@apcer=10%', 'bpcer@apcer=5%', 'bpcer@apcer=1%'), 1 / 3),
    'apnrr': 0,
    'bpnrr': 0,
    'n_bona_fide': 3,
    'n_attack': 4,
    'n_fta': 0,
  }
  assert list(found) == list(expected)
  assert found == pytest.approx(expected)


def test_the_reference_page_defines_every_metric_as_the_table_does():
  rows = [f'| `{m.name}` | {m.definition} | {m.source} |' for m in metrics.METRICS]
  rows = [row.replace('|  |', '| |') for row in rows]
  written = re.findall(r'^\| `.*$', PAGE.read_text(encoding='utf-8'), re.MULTILINE)
  assert sorted(written) == sorted(rows)


def test_a_score_at_the_threshold_is_accepted():
  assert metrics.error_rates(LABEL, SCORE, 0.7).apcer == 1 / 4
  assert metrics.error_rates(LABEL, SCORE, np.nextafter(0.7, 1)).apcer == 0
  assert metrics.error_rates(LABEL, SCORE, 0.8).bpcer == 1 / 3


def test_without_categories_their_maximum_is_undefined():
  for category in (None, np.full(7, '')):
    rates = metrics.error_rates(LABEL, SCORE, 0.5, category)
    assert rates.accepted_of == {}
    assert math.isnan(rates.apcer_max)


def test_curve_by_hand():
  points = metrics.curve(LABEL, SCORE)
  assert points.threshold.tolist() == [math.inf, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.2]
  assert points.accepted_bona_fide.tolist() == [0, 1, 2, 2, 3, 3, 3, 3]
  assert points.accepted_attack.tolist() == [0, 0, 0, 1, 1, 2, 3, 4]
  # |apcer - bpcer| is 1/4 - 1/3 at .7 (1/12 in size), 1/4 - 0 at .6, 0 - 1/3 at .8.
  assert metrics.eer(points) == (pytest.approx(7 / 24), 0.7)
  # Attacks at .7, .5, .4, .2 lie below 2, 3, 3, 3 of the 3 bona fide samples.
  assert metrics.auc(points) == 11 / 12
  assert metrics.tpr_at_fpr(points, 0) == 2 / 3
  assert metrics.tpr_at_fpr(points, 0.24) == 2 / 3
  assert metrics.tpr_at_fpr(points, 0.25) == 1
  assert metrics.bpcer_at_apcer(points, 0.1) == 1 / 3
  assert metrics.bpcer_at_apcer(points, 0.25) == 0


@pytest.mark.parametrize(
  ('low', 'high'),
  [(0, 1), (-1, 1), (0, 100), (-100, 0), (-1e300, 1e300), (5e-324, 1e-300), (-0.0, 0.0)],
)
def test_curves_of_any_range(low, high):
  rng = np.random.default_rng(0)
  score = np.concatenate([rng.random(300) * (high / 2 - low / 2) * 2 + low, [low, high, 0.0, -0.0]])
  score = rng.choice(np.round(score, 3) if high == 1 else score, 500)
  label = rng.integers(0, 2, score.size)
  points = metrics.curve(label, score)
  np.testing.assert_array_equal(points.threshold[1:], np.unique(score)[::-1])
  for k, threshold in enumerate(points.threshold):
    assert points.accepted_bona_fide[k] == np.count_nonzero(label[score >= threshold])
    assert points.accepted_attack[k] == np.count_nonzero(label[score >= threshold] == 0)


def test_eer_takes_the_larger_of_two_thresholds_that_tie():
  # At .8 apcer is 0 and bpcer 1/2; at .6, which one of each class has, it is the other way round.
  points = metrics.curve([1, 1, 0, 0], [0.8, 0.6, 0.6, 0.1])
  assert metrics.eer(points) == (0.25, 0.8)


def test_all_scores_equal():
  points = metrics.curve([1, 1, 0], [0.5, 0.5, 0.5])
  assert metrics.eer(points) == (0.5, 0.5)
  assert metrics.auc(points) == 0.5
  assert metrics.tpr_at_fpr(points, 0.99) == 0
  assert metrics.tpr_at_fpr(points, 1) == 1


def test_nearest_fpr_is_not_the_default_rule():
  # The nearest FPR to .2 is 1/4, which exceeds it, at the first point of that run: .7, not .6.
  points = metrics.curve(LABEL, SCORE)
  assert reference_metrics.tpr_at_nearest_fpr(points, 0.2) == 2 / 3
  # FPR 0 is nearest, and its first point is (0, 0).
  assert reference_metrics.tpr_at_nearest_fpr(points, 0.01) == 0
  # Of a run of one class scikit-learn keeps the ends: FPR 1/3 is a threshold's, and no point's.
  points = metrics.curve([1, 1, 1, 0, 0, 0], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
  assert metrics.tpr_at_fpr(points, 1 / 3) == 1
  assert reference_metrics.tpr_at_nearest_fpr(points, 1 / 3) == 0


def test_failures_to_acquire_are_errors_of_bona_fide_samples_only():
  label = np.append(LABEL, [1, 0])
  score = np.append(SCORE, [NAN, NAN])
  rates = metrics.error_rates(label, score, 0.5)
  assert (rates.n_bona_fide, rates.n_attack, rates.n_fta) == (4, 5, 2)
  assert rates.apcer == 2 / 5
  assert rates.bpcer == 1 / 4
  points = metrics.curve(label, score)
  assert (points.n_bona_fide, points.n_attack, points.n_fta) == (4, 5, 2)
  assert metrics.tpr_at_fpr(points, 1) == 3 / 4
  assert metrics.bpcer_at_apcer(points, 1) == 1 / 4
  # The 11 pairs won before, 3 against the failed attack, half of one between the two failures.
  assert metrics.auc(points) == (11 + 3 + 0.5) / 20


@pytest.mark.parametrize('label', [[], [1], [0], [1, 1], [0, 0]])
def test_one_class_or_none_is_undefined(label):
  score = np.linspace(0.2, 0.8, len(label))
  points = metrics.curve(label, score)
  assert np.isnan(metrics.eer(points)).all()
  for value in (
    metrics.auc(points),
    metrics.tpr_at_fpr(points, 1e-2),
    reference_metrics.tpr_at_nearest_fpr(points, 1e-2),
    metrics.bpcer_at_apcer(points, 0.1),
  ):
    assert math.isnan(value)
  rates = metrics.error_rates(label, score, 0.5)
  assert math.isnan(rates.apcer) == (0 not in label)
  assert math.isnan(rates.bpcer) == (1 not in label)
  assert math.isnan(rates.acer)


def test_nothing_acquired():
  points = metrics.curve([1, 0, 0], [NAN] * 3)
  assert np.isnan(metrics.eer(points)).all()
  assert metrics.auc(points) == 0.5
  assert metrics.tpr_at_fpr(points, 1) == 0


@pytest.mark.parametrize(
  ('label', 'score', 'says'),
  [
    ([1, 0], [0.5], 'must be'),
    ([[1, 0]], [[0.5, 0.5]], 'must be'),
    ([1, -1], [0.5, 0.5], 'bona fide'),
    ([1, 0], [0.5, math.inf], 'finite'),
  ],
)
def test_what_cannot_be_evaluated_is_refused(label, score, says):
  with pytest.raises(ValueError, match=says):
    metrics.curve(label, score)
  with pytest.raises(ValueError, match=says):
    metrics.error_rates(label, score, 0.5)


@pytest.mark.parametrize('decimals', [None, 2, 1, 0])  # 0: saturated scores, two values in all
@pytest.mark.parametrize('seed', range(3))
def test_against_scikit_learn(seed, decimals):
  label, score = random_samples(seed, decimals=decimals)
  points = metrics.curve(label, score)
  assert metrics.auc(points) == pytest.approx(roc_auc_score(label, score), abs=1e-12)

  fpr, tpr, threshold = roc_curve(label, score, drop_intermediate=False)
  np.testing.assert_array_equal(points.threshold, threshold)
  np.testing.assert_allclose(points.apcer, fpr, atol=1e-15)
  np.testing.assert_allclose(1 - points.bpcer, tpr, atol=1e-15)
  for target in (0, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 1):
    assert metrics.tpr_at_fpr(points, target) == tpr[fpr <= target].max()
    assert metrics.bpcer_at_apcer(points, target) == pytest.approx(1 - tpr[fpr <= target].max())

  fpr, tpr, _ = roc_curve(label, score)
  for target in (0, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 1):
    assert (
      reference_metrics.tpr_at_nearest_fpr(points, target) == tpr[np.argmin(np.abs(fpr - target))]
    )


@settings(max_examples=60, derandomize=True, deadline=None)
@given(samples())
def test_against_a_scan_of_every_threshold(drawn):
  label, score = drawn
  points = metrics.curve(label, score)
  acquired = np.unique(score[~np.isnan(score)])[::-1]
  assert points.threshold.tolist() == [math.inf, *acquired]
  for k, threshold in enumerate(points.threshold):
    rates = metrics.error_rates(label, score, threshold)
    np.testing.assert_equal(points.apcer[k], rates.apcer)
    np.testing.assert_equal(points.bpcer[k], rates.bpcer)
    assert points.accepted_attack[k] == sum(score[label == 0] >= threshold)
    assert points.accepted_bona_fide[k] == sum(score[label == 1] >= threshold)

  if len({*label}) < 2:
    return
  bona_fide, attack = score[label == 1], score[label == 0]
  below = np.nan_to_num(score, nan=-1.0)
  pairs = below[label == 1][:, None] - below[label == 0]  # [n_bona_fide, n_attack]
  assert metrics.auc(points) == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean())
  for target in (0, 0.1, 0.5, 1):
    allowed = [t for t in points.threshold if (attack >= t).mean() <= target]
    best = max((bona_fide >= t).mean() for t in allowed)
    assert metrics.tpr_at_fpr(points, target) == pytest.approx(best)
  if acquired.size:
    value, threshold = metrics.eer(points)
    gaps = [abs((attack >= t).mean() - (bona_fide < t).mean() - np.isnan(bona_fide).mean())
            for t in acquired]  # fmt: skip
    rates = metrics.error_rates(label, score, threshold)
    assert abs(rates.apcer - rates.bpcer) == pytest.approx(min(gaps), abs=1e-12)
    assert value == pytest.approx(rates.acer)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(samples(min_size=1), st.randoms(use_true_random=False))
def test_the_order_of_the_samples_does_not_matter(drawn, random):
  label, score = drawn
  order = list(range(len(label)))
  random.shuffle(order)
  one, other = metrics.curve(label, score), metrics.curve(label[order], score[order])
  for name in ('threshold', 'accepted_bona_fide', 'accepted_attack'):
    np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@settings(max_examples=40, derandomize=True, deadline=None)
@given(samples(min_size=1))
def test_only_the_order_of_the_scores_matters(drawn):
  label, score = drawn
  one, other = metrics.curve(label, score), metrics.curve(label, 3 * score - 7)
  # 1e-300 and 0 fall together there, so it is left out.
  if not (score == 1e-300).any():
    for name in ('accepted_bona_fide', 'accepted_attack'):
      np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_target_that_is_a_rate_is_met_exactly():
  # 7 of 100 attacks are accepted at .5; .07 * 100 is 7.000000000000001, 7 / 100 is .07.
  label = np.array([1] + [0] * 100)
  score = np.array([0.5] + [0.5] * 7 + [0.1] * 93)
  assert metrics.tpr_at_fpr(metrics.curve(label, score), 0.07) == 1


def test_ten_million_scores_take_no_quadratic_time():
  """Seconds, and a gigabyte; with eight values in all, so that nearly everything ties."""
  label, score = random_samples(0, 10_000_000, decimals=1)
  kinds = metrics.Groups(('', 'mask', 'print'), np.where(label == 1, 0, 1 + (score > 0.3)))
  rates = metrics.error_rates(label, score, 0.5, kinds, kinds)
  assert rates.accepted_of['mask'].errors == 0
  assert sum(count.n for count in rates.accepted_of.values()) == rates.n_attack
  points = metrics.curve(label, score)
  assert points.threshold.size == 12
  assert 0.8 < metrics.auc(points) < 0.9
  assert metrics.eer(points)[0] == pytest.approx(1 - metrics.tpr_at_fpr(points, 0.2), abs=0.1)


def test_two_spellings_of_a_name_are_one_group():
  found = metrics.groups(['Zo\u00eb', 'Zoe\u0308 ', 'a', '\u200b'])
  assert found.names == ('', 'Zo\u00eb', 'a')
  of = [found.names[i] for i in found.index]
  assert of == ['Zo\u00eb', 'Zo\u00eb', 'a', '']
