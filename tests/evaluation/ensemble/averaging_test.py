"""Means of means by hand, and what must not change them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from flexfas_jax.evaluation import metrics
from flexfas_jax.evaluation.ensemble import averaging

A1, A2 = ('a', '1', '', ''), ('a', '2', '', '')
B1 = ('b', '1', '', '')


def only(x):
  return np.array([x], float)


def test_a_network_with_one_seed_counts_as_much_as_one_with_two():
  found = averaging.means({A1: only(0.2), A2: only(0.4), B1: only(0.9)})
  assert found['a',] == pytest.approx(0.3)
  assert found['b',] == 0.9
  assert found[()] == pytest.approx(0.6)  # and not .5, the mean of all three


def test_views_then_folds_then_seeds_then_networks():
  scores = {
    ('a', '1', '1', 'centre'): 0.1,
    ('a', '1', '1', 'flip'): 0.3,
    ('a', '1', '2', 'centre'): 0.6,
    ('a', '2', '1', 'centre'): 1.0,
    ('b', '1', '1', 'centre'): 0.0,
  }
  found = averaging.means({key: only(x) for key, x in scores.items()})
  assert found['a', '1', '1'] == pytest.approx(0.2)
  assert found['a', '1'] == pytest.approx(0.4)
  assert found['a',] == pytest.approx(0.7)
  assert found[()] == pytest.approx(0.35)
  assert [averaging.mean_axis(k) for k in [('a', '1', '1'), ('a', '1'), ('a',), ()]] == [
    *averaging.ORDER
  ]


def test_the_tree_has_parts_before_their_mean():
  found = averaging.tree([B1, A2, A1])
  assert found[()] == (('a',), ('b',))
  assert found['a',] == (('a', '1'), ('a', '2'))
  seen = {A1, A2, B1}
  for key, parts in found.items():
    assert set(parts) <= seen
    seen.add(key)


def test_logits():
  found = averaging.means({A1: only(0.2), A2: only(0.9)}, 'logit')[()]
  assert found == pytest.approx(expit((logit(0.2) + logit(0.9)) / 2))
  # One sure network does not outvote the others for good.
  scores = {('a', str(i), '', ''): only(x) for i, x in enumerate((1.0, 0.01, 0.01, 0.01, 0.01))}
  assert averaging.means(scores, 'logit')[()] < 0.5
  # The mean of one is that one, to the bit.
  assert averaging.means({A1: only(1.0)}, 'logit')[()] == 1
  assert averaging.means({A1: only(0.1), B1: only(0.7)}, 'logit')['a',] == 0.1


def test_a_sample_that_one_has_no_score_of_has_none():
  found = averaging.means({A1: np.array([0.2, np.nan]), B1: np.array([0.4, 0.4])})
  np.testing.assert_allclose(found[()], [0.3, np.nan])
  np.testing.assert_allclose(found['b',], [0.4, 0.4])


def test_weights_from_val_by_hand():
  label = np.array([1, 1, 1, 1, 0, 0, 0, 0])
  good = np.array([0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1])  # EER 0
  poor = np.array([0.9, 0.8, 0.7, 0.2, 0.8, 0.3, 0.2, 0.1])  # EER .25
  assert metrics.eer(metrics.curve(label, poor))[0] == 0.25
  weights = averaging.val_weights(label, {A1: good, A2: poor, B1: good})
  # 1 / (0 + 1/4) = 4 and 1 / (.25 + 1/4) = 2
  assert (weights['a', '1'], weights['a', '2']) == pytest.approx((2 / 3, 1 / 3))
  assert weights['b', '1'] == 1
  test = {A1: only(0.9), A2: only(0.3), B1: only(0.5)}
  found = averaging.means(test, weigh=lambda key, _: weights[key])
  assert found['a',] == pytest.approx(0.7)
  assert found[()] == pytest.approx(weights['a',] * 0.7 + weights['b',] * 0.5)


def test_views_always_count_alike():
  label = np.array([1, 1, 0, 0])
  good, bad = np.array([0.9, 0.8, 0.2, 0.1]), np.array([0.1, 0.8, 0.9, 0.1])
  weights = averaging.val_weights(label, {(*A1[:3], 'x'): good, (*A1[:3], 'y'): bad})
  assert all(len(key) < 4 for key in weights)
  found = averaging.means(
    {(*A1[:3], 'x'): only(0.2), (*A1[:3], 'y'): only(0.4)}, weigh=lambda key, _: weights[key]
  )
  assert found[()] == pytest.approx(0.3)


@pytest.mark.parametrize(
  ('keys', 'space'),
  [([], 'probability'), ([('a', '1')], 'probability'), ([A1], 'odds')],
)
def test_what_cannot_be_averaged(keys, space):
  with pytest.raises(ValueError):
    averaging.means({key: only(0.5) for key in keys}, space)


def test_weights_need_both_classes():
  with pytest.raises(ValueError, match='both classes'):
    averaging.val_weights(np.ones(2), {A1: np.ones(2), B1: np.ones(2)})


MEMBERS = st.dictionaries(
  st.tuples(*[st.sampled_from('ab')] * 4),
  st.lists(st.floats(0, 1), min_size=3, max_size=3),
  min_size=1,
)


@settings(max_examples=60, deadline=None)
@given(MEMBERS, st.randoms(), st.sampled_from(list(averaging.SPACES)))
def test_the_order_of_members_does_not_matter(scores, random, space):
  items = [(key, np.array(values)) for key, values in scores.items()]
  found = averaging.means(dict(items), space)
  random.shuffle(items)
  again = averaging.means(dict(items), space)
  assert found.keys() == again.keys()
  for key in found:
    np.testing.assert_array_equal(found[key], again[key])


@settings(max_examples=60, deadline=None)
@given(MEMBERS, st.sampled_from(list(averaging.SPACES)))
def test_a_mean_lies_between_its_parts(scores, space):
  values = np.array(list(scores.values()))
  found = averaging.means({k: np.array(v) for k, v in scores.items()}, space)[()]
  slack = 1e-12 if space == 'probability' else 1e-7  # logits are bounded
  assert (found >= values.min(0) - slack).all() and (found <= values.max(0) + slack).all()


@pytest.mark.parametrize('space', averaging.SPACES)
def test_parts_that_agree_are_not_parted_by_rounding(space):
  weigh = {('a',): 0.1, ('b',): 0.7, ('c',): 0.3}
  for value in (0.7, 0.07, 1 - 2.0**-24, 0.999):
    scores = {(net, '', '', ''): np.array([value]) for net in 'abc'}
    for weights in (None, lambda key, _: weigh.get(key, 1)):
      assert averaging.means(scores, space, weights)[()] == [value]


def test_the_mean_is_that_of_the_decimals_whoever_gave_which():
  for values in ([0.6, 0.7, 0.8], [0.8, 0.7, 0.6]):
    scores = {(net, '', '', ''): np.array([x]) for net, x in zip('abc', values, strict=True)}
    assert averaging.means(scores)[()] == [0.7]
