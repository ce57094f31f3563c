"""Threshold rules: what each gives by hand, its ties, and what it cannot be fitted on."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.evaluation import thresholds

LABEL = np.array([1, 1, 0, 1, 0, 0, 0])
SCORE = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.2])


def test_by_hand():
  assert thresholds.fit('dev_eer', LABEL, SCORE) == 0.7
  assert thresholds.fit('dev_bpcer=0%', LABEL, SCORE) == 0.6
  assert thresholds.fit('dev_bpcer=1%', LABEL, SCORE) == 0.6
  assert thresholds.fit('dev_bpcer=34%', LABEL, SCORE) == 0.8
  assert thresholds.fit('dev_bpcer=0.34', LABEL, SCORE) == 0.8
  assert thresholds.fit('fixed=0.25', LABEL, SCORE) == 0.25
  assert thresholds.fit('fixed=-1e3', [], []) == -1000


def test_one_percent_of_a_hundred_is_one_sample():
  label = np.array([1] * 100 + [0])
  score = np.append(np.arange(100) / 100, 0.5)
  assert thresholds.fit('dev_bpcer=1%', label, score) == 0.01
  assert thresholds.fit('dev_bpcer=0%', label, score) == 0


def test_separable_classes_get_the_strictest_of_the_faultless_thresholds():
  assert thresholds.fit('dev_eer', [1, 1, 0], [0.9, 0.8, 0.1]) == 0.8
  assert thresholds.fit('dev_bpcer=1%', [1, 1, 0], [0.9, 0.8, 0.1]) == 0.8


@settings(max_examples=50, derandomize=True, deadline=None)
@given(
  st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, math.nan]), min_size=1, max_size=12),
  st.sampled_from([0, 10, 25, 50]),
)
def test_dev_bpcer_is_the_largest_threshold_within_its_share(score, percent):
  score = np.array(score)
  within = [t for t in score if (~(score >= t)).mean() <= percent / 100]
  label = np.ones(len(score))
  if within:
    assert thresholds.fit(f'dev_bpcer={percent}%', label, score) == max(within)
  else:
    with pytest.raises(StateError, match='no threshold'):
      thresholds.fit(f'dev_bpcer={percent}%', label, score)


@pytest.mark.parametrize(
  'rule',
  ['', 'eer', 'dev_eer=1', 'test_eer', 'fixed', 'fixed=', 'fixed=x', 'fixed=nan', 'fixed=inf']
  + ['dev_bpcer', 'dev_bpcer=', 'dev_bpcer=x%', 'dev_bpcer=1', 'dev_bpcer=-1%', 'dev_bpcer=nan'],
)
def test_an_unknown_rule_lists_the_choices(rule):
  for asked in (lambda: thresholds.fit(rule, LABEL, SCORE), lambda: thresholds.needs_dev(rule)):
    with pytest.raises(ConfigError) as error:
      asked()
    assert all(choice in str(error.value) for choice in thresholds.RULES)


def test_thresholds_of_a_bundle_are_not_fitted():
  with pytest.raises(ConfigError, match='flexfas score FILE --threshold=bundle'):
    thresholds.fit('bundle', LABEL, SCORE)


def test_every_rule_in_the_list_is_one():
  assert {rule: thresholds.needs_dev(rule) for rule in thresholds.RULES} == {
    'dev_eer': True,
    'dev_bpcer=1%': True,
    'fixed=0.5': False,
    'bundle': False,
  }


@pytest.mark.parametrize(
  ('rule', 'label', 'score'),
  [
    ('dev_eer', [1, 1], [0.5, 0.6]),
    ('dev_eer', [0, 0], [0.5, 0.6]),
    ('dev_eer', [], []),
    ('dev_eer', [1, 0], [math.nan, math.nan]),
    ('dev_bpcer=1%', [0, 0], [0.5, 0.6]),
    ('dev_bpcer=1%', [1, 1], [0.5, math.nan]),
  ],
)
def test_scores_that_give_no_threshold(rule, label, score):
  with pytest.raises(StateError, match='development set'):
    thresholds.fit(rule, label, score)


@pytest.mark.parametrize('n', [1000, 200, 77])
def test_a_percentage_is_the_share_that_it_is_in_whole_samples(n):
  label, score = np.ones(n), np.arange(n) / n
  for tenths in range(1000):
    allowed = tenths * n // 1000  # whole samples, in integers
    for rule in (f'dev_bpcer={tenths // 10}.{tenths % 10}%', f'dev_bpcer=0.{tenths:03}'):
      threshold = thresholds.fit(rule, label, score)
      assert (score < threshold).sum() == allowed, rule


@pytest.mark.parametrize(
  ('text', 'share'),
  [('0.7%', (7, 1000)), ('.007', (7, 1000)), ('1e-3', (1, 1000)), (' 5 %', (1, 20))],
)
def test_a_share_is_exact(text, share):
  assert thresholds.share(text).as_integer_ratio() == share


@pytest.mark.parametrize('text', ['', '%', '1%%', '1%5', 'nan', 'inf%', '1e999999999', '1/3', 'x'])
def test_what_is_no_share(text):
  with pytest.raises(ValueError, match='not a share'):
    thresholds.share(text)
