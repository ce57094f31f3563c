"""Scales: ranks are kept, thresholds are moved exactly, and there and back is the same."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexfas_jax.errors import ConfigError
from flexfas_jax.evaluation import scales

SCALES = ('', 'probability', 'percent', 'logit', 'attack_probability', 'attack_percent')


@pytest.mark.parametrize(
  ('option', 'high_is_attack', 'scale'),
  [
    ('', False, ''),
    ('probability', False, 'probability'),
    ('percent', False, 'percent'),
    ('logit', False, 'logit'),
    ('', True, 'attack_probability'),
    ('probability', True, 'attack_probability'),
    ('percent', True, 'attack_percent'),
    ('logit', True, 'logit'),
  ],
)
def test_the_scale_of_what_a_user_states(option, high_is_attack, scale):
  assert scales.kept_scale(option, high_is_attack) == scale
  assert scales.is_valid(scale)


def test_headers_may_state_no_other_scale():
  assert not any(map(scales.is_valid, ('mixed', 'x', None, 1, ['percent'])))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, unique=True))
@settings(max_examples=50, derandomize=True, deadline=None)
def test_no_score_changes_its_rank(values):
  kept = scales.orient(np.array(values), True)
  assert np.argsort(kept).tolist() == np.argsort(values)[::-1].tolist()
  assert not np.signbit(kept[np.array(values) == 0]).any()
  assert scales.orient(np.array(values), False).tolist() == values


@pytest.mark.parametrize(
  ('text', 'scale', 'value'),
  [
    ('0.7', '', 0.7),
    ('-3', '', -3.0),
    ('0.7', 'probability', 0.7),
    ('0.7', 'percent', 70.0),
    ('0.003', 'percent', 0.3),
    ('0.57', 'percent', 57.0),  # 0.57 * 100 is 56.99999999999999
    ('0.1', 'attack_probability', -0.9),
    ('0.9', 'attack_probability', -0.1),  # 0.9 - 1 is -0.09999999999999998
    ('1', 'attack_probability', 0.0),
    ('1e-30', 'attack_probability', -1.0),
    ('0.07', 'attack_percent', -93.0),
    ('0.5', 'logit', 0.0),
    ('0.9', 'logit', math.log(9)),
    ('1e-30', 'logit', -69.07755278982137),
  ],
)
def test_a_fixed_threshold_by_hand(text, scale, value):
  assert scales.fixed_threshold(text, scale) == pytest.approx(
    value, rel=0 if scale != 'logit' else 1e-15
  )


@pytest.mark.parametrize(
  ('text', 'scale'),
  [
    ('1.01', 'percent'),
    ('70', 'probability'),
    ('-0.01', 'attack_percent'),
    ('2', 'attack_probability'),
    ('70', 'logit'),
  ]
  + [('0', 'logit'), ('1', 'logit')],
)
def test_thresholds_that_no_score_can_have(text, scale):
  with pytest.raises(ConfigError, match=f'fixed={text}: '):
    scales.fixed_threshold(text, scale)


@pytest.mark.parametrize('text', ['0', '1'])
def test_the_ends_are_thresholds(text):
  assert scales.fixed_threshold(text, 'percent') == 100 * float(text)
  assert scales.fixed_threshold(text, 'attack_percent') == 100 * float(text) - 100


@pytest.mark.parametrize(
  ('scale', 'inside', 'outside'),
  [
    ('', [0, 0.5, 1], [-1e-9, 1 + 1e-9]),
    ('percent', [0, 100], [-1, 100.1]),
    ('logit', [-800, 800], []),
    ('attack_probability', [-1, 0], [0.1, -1.1]),
    ('attack_percent', [-100, 0], [1, -101]),
  ],
)
def test_what_a_scale_cannot_have(scale, inside, outside):
  score = np.array([*inside, math.nan, *outside])
  assert scales.out_of_range(score, scale).tolist() == list(range(len(inside) + 1, score.size))


@pytest.mark.parametrize('scale', SCALES)
def test_there_and_back(scale):
  share = np.array([0.001, 0.25, 0.5, 0.9])
  kept = scales.from_logits(np.log(share / (1 - share)), scale)
  np.testing.assert_allclose(scales.probability(kept, scale), share, rtol=1e-12)
  np.testing.assert_allclose(
    scales.to_logits(kept, scale, 2.0**-24), np.log(share / (1 - share)), rtol=1e-9
  )
  attack = scales.is_attack_scale(scale)
  np.testing.assert_allclose(scales.share(kept, scale), 1 - share if attack else share, rtol=1e-12)
  assert attack == scale.startswith('attack')
  assert scales.as_stated(-0.5, scale) == (0.5 if attack else -0.5)


def test_logits_are_bounded_where_they_are_made_of_probabilities():
  at_ends = np.array([0.0, 1.0])
  np.testing.assert_allclose(scales.to_logits(at_ends, '', 0.25), [-math.log(3), math.log(3)])
  kept = np.array([-1.0, 0.0])
  np.testing.assert_allclose(
    scales.to_logits(kept, 'attack_probability', 0.25), [-math.log(3), math.log(3)]
  )
  assert scales.to_logits(np.array([-50.0, 50.0]), 'logit', 0.25).tolist() == [-50, 50]


def test_what_is_not_stated_is_compared_as_a_probability():
  pairs = [('', ''), ('', 'probability'), ('probability', ''), ('percent', 'percent')]
  assert all(scales.compatible(*pair) for pair in pairs)
  pairs = [('', 'percent'), ('logit', 'probability'), ('percent', 'attack_percent'), ('', 'mixed')]
  assert not any(scales.compatible(*pair) for pair in pairs)


@pytest.mark.parametrize(
  'text, scale, expected',
  [
    ('0.3', 'attack_probability', -0.7),  # as a file's .7 is kept
    ('1e-20', 'attack_probability', math.nextafter(-1, 0)),
    ('1e-20', 'attack_percent', math.nextafter(-100, 0)),
    ('1e-400', '', 5e-324),
    ('0.7', 'percent', 70),
    ('0.70000000000000001', '', math.nextafter(0.7, 1)),
    ('0.69999999999999999', '', 0.7),
    ('-0.0', '', 0),
  ],
)
def test_a_threshold_is_never_below_its_decimal(text, scale, expected):
  found = scales.fixed_threshold(text, scale)
  assert (found, math.copysign(1, found)) == (expected, math.copysign(1, expected))
