"""Schedules by hand; what weight decay touches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flexfas_jax.errors import ConfigError
from flexfas_jax.training import optimizer, trainable
from tests.toy import make


def test_cosine_by_epoch_by_hand():
  """The peak in the first epoch, half of it in the 26th, and nothing between two epochs."""
  rate = optimizer.cosine_by_epoch(peak=2e-5, steps=31 * 155, epoch=155, period=50)
  for epoch, expected in ((0, 2e-5), (1, 1.9980267e-5), (25, 1e-5), (30, 6.9098301e-6)):
    for step in (0, 77, 154):
      np.testing.assert_allclose(rate(155 * epoch + step), expected, rtol=1e-5)
      traced = jax.jit(rate)(155 * epoch + step)
      np.testing.assert_allclose(traced, expected, rtol=1e-5)
  for fields in ({'steps': 7751}, {'epoch': 0}, {'period': 0}):
    with pytest.raises(ConfigError, match='config.schedule.period'):
      optimizer.cosine_by_epoch(**{'peak': 1.0, 'steps': 7750, 'epoch': 155, 'period': 50} | fields)


def test_warmup_cosine_by_hand():
  rate = optimizer.warmup_cosine(peak=2.0, steps=110, warmup=10)
  np.testing.assert_allclose(
    [rate(0), rate(5), rate(10), rate(60), rate(110)], [0, 1, 2, 1, 0], atol=1e-6
  )


def test_warmup_is_of_so_many_steps():
  """It begins at 0 and is at the peak after them; without, the first step has the peak."""
  rate = optimizer.warmup_cosine(peak=3.0, steps=100, warmup=4)
  np.testing.assert_allclose([rate(k) for k in range(5)], [0, 0.75, 1.5, 2.25, 3], rtol=1e-6)
  assert rate(5) < 3 and optimizer.warmup_cosine(peak=3.0, steps=100)(0) == 3
  # Of a cosine that outlasts the training, the warm-up is a part all the same.
  rate = optimizer.warmup_cosine(peak=2.0, steps=4, warmup=10, until=110)
  np.testing.assert_allclose([rate(5), rate(10), rate(60)], [1, 2, 1], atol=1e-6)
  assert optimizer.warmup_cosine(peak=1.0, steps=5, warmup=4)(4) == 1
  for steps, warmup, until in ((5, 5, 0), (5, 6, 0), (50, 5, 5)):
    with pytest.raises(ConfigError, match='shorter than the training'):
      optimizer.warmup_cosine(1.0, steps, warmup, until)


def test_step_decay_is_the_references():
  """StepLR(20, 0.5), `scheduler.step()` first in the epoch: 19 epochs at 1e-5, 11 at 5e-6."""
  per_epoch = 7
  rate = optimizer.step_decay(1e-5, 30 * per_epoch, every=20 * per_epoch, lead=per_epoch)
  rates = [float(rate(epoch * per_epoch)) for epoch in range(30)]
  np.testing.assert_allclose(rates, [1e-5] * 19 + [5e-6] * 11)
  assert rate(19 * per_epoch - 1) == 1e-5


def test_a_cosine_may_outlast_the_training():
  """MM-FAS's: 30 epochs of a cosine of 50."""
  rate = optimizer.warmup_cosine(peak=2.0, steps=30, until=50)
  np.testing.assert_allclose([rate(0), rate(25), rate(50)], [2, 1, 0], atol=1e-6)


def test_steps_at_by_hand():
  rate = optimizer.steps_at(0.1, 28, at=(16, 24))
  found = [float(rate(step)) for step in (0, 15, 16, 23, 24, 27)]
  np.testing.assert_allclose(found, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-5)


def test_only_kernels_decay():
  _, variables = make('vit', 'concat')
  tx, _ = optimizer.build(
    {'name': 'adamw', 'weight_decay': 0.5}, {'name': 'constant', 'peak': 0.1}, steps=10
  )
  params = variables['params']
  updates = jax.jit(lambda p: tx.update(jax.tree.map(jnp.zeros_like, p), tx.init(p), p)[0])(params)
  for path, update in jax.tree_util.tree_leaves_with_path(updates):
    expected = path[-1].key == 'kernel'
    assert bool((update != 0).any()) == expected, jax.tree_util.keystr(path)


@pytest.mark.parametrize('name', ['adam', 'adamw', 'sgd'])
def test_all_decay_where_the_original_decays_all(name):
  params = {'kernel': jnp.ones(2), 'bias': jnp.ones(2)}
  tx, _ = optimizer.build(
    {'name': name, 'weight_decay': 0.5, 'decay': 'all'}, {'name': 'constant', 'peak': 0.1}, steps=10
  )
  updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
  assert all((u < 0).all() for u in updates.values())


def test_what_an_optimizer_does_unless_one_says_otherwise():
  """AdamW decays by 0.05, the others do not; SGD's momentum is 0.9, Adam's means 0.9 and 0.999."""
  for fields, slopes, expected in (
    ({'name': 'adamw'}, (0.0, 0.0), (-0.005, -0.005 * 0.995)),
    ({'name': 'adam'}, (0.0, 0.0), (0.0, 0.0)),
    ({'name': 'sgd'}, (1.0, 1.0), (-0.1, -0.19)),
    ({'name': 'sgd'}, (0.0, 0.0), (0.0, 0.0)),
    # (0.1 * -1 + 0.09) / 0.19 over the root of (0.001 + 0.000999) / 0.001999
    ({'name': 'adam'}, (1.0, -1.0), (-0.1, 0.1 * 0.01 / 0.19)),
    ({'name': 'adamw', 'weight_decay': 0.0}, (1.0, -1.0), (-0.1, 0.1 * 0.01 / 0.19)),
  ):
    tx, _ = optimizer.build(fields, {'name': 'constant', 'peak': 0.1}, steps=10)
    params = {'kernel': jnp.ones(1)}
    state = tx.init(params)
    for slope, wanted in zip(slopes, expected, strict=True):
      updates, state = tx.update({'kernel': jnp.array([slope])}, state, params)
      np.testing.assert_allclose(updates['kernel'][0], wanted, rtol=1e-4, atol=1e-7)
      params = optax.apply_updates(params, updates)


def test_adam_adds_the_decay_to_the_gradient():
  """Two steps by hand; PyTorch's Adam(weight_decay), not AdamW."""
  b1, b2, rate, decay, p, m, v = 0.5, 0.999, 0.1, 0.2, 3.0, 0.0, 0.0
  tx, _ = optimizer.build(
    {'name': 'adam', 'b1': b1, 'b2': b2, 'weight_decay': decay, 'decay': 'all'},
    {'name': 'constant', 'peak': rate},
    steps=10,
  )
  params = {'bias': jnp.array([p])}
  state = tx.init(params)
  for t, slope in ((1, 0.7), (2, -0.1)):
    updates, state = tx.update({'bias': jnp.array([slope])}, state, params)
    params = optax.apply_updates(params, updates)
    g = slope + decay * p
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    p -= rate * (m / (1 - b1**t)) / ((v / (1 - b2**t)) ** 0.5 + 1e-8)
    np.testing.assert_allclose(params['bias'][0], p, rtol=1e-5)


def test_long_gradients_are_clipped():
  fields = {'name': 'sgd', 'momentum': 0.0}
  tx, _ = optimizer.build(fields, {'name': 'constant', 'peak': 1.0}, 10, clip_norm=1.0)
  params = {'kernel': jnp.zeros(4)}
  for length in (8.0, 0.5):
    updates, _ = tx.update({'kernel': jnp.full(4, length / 2)}, tx.init(params), params)
    np.testing.assert_allclose(optax.tree.norm(updates), min(length, 1.0), rtol=1e-6)


@pytest.mark.parametrize(
  'fields,schedule,said',
  [
    ({'name': 'lion'}, {'name': 'constant', 'peak': 1.0}, "'lion'; .*adamw, adam, sgd"),
    ({'name': 'sgd', 'decay': 'some'}, {'name': 'constant', 'peak': 1.0}, "'some'; .*kernels, all"),
    ({'name': 'sgd'}, {'name': 'linear'}, "unknown schedule 'linear'; .*warmup_cosine"),
    ({'name': 'sgd', 'beta': 1}, {'name': 'constant', 'peak': 1.0}, "config.optimizer: .*'beta'"),
    ({'name': 'sgd'}, {'name': 'warmup_cosine', 'peak': 1.0, 'warmup': 20}, 'shorter than'),
  ],
)
def test_what_cannot_be_built_says_what_can(fields, schedule, said):
  with pytest.raises(ConfigError, match=said):
    optimizer.build(fields, schedule, 10)


PARAMS = {
  'streams_rgb': {'stage_1': {'kernel': jnp.ones(2)}, 'stage_2': {'kernel': jnp.ones(2)}},
  'head': {'logit': {'kernel': jnp.ones(2), 'bias': jnp.ones(2)}},
}


def updated(fields, slope=3.0):
  """{name: update} of one step of plain SGD on PARAMS under the same gradient everywhere."""
  optimizer.check_names(fields, PARAMS)
  sgd = {'name': 'sgd', 'momentum': 0.0, **fields}
  tx, _ = optimizer.build(sgd, {'name': 'constant', 'peak': 0.1}, 10)
  grads = jax.tree.map(lambda p: jnp.full_like(p, slope), PARAMS)
  updates, state = tx.update(grads, tx.init(PARAMS), PARAMS)
  return {name: float(update[0]) for name, update in trainable.flatten(updates).items()}, state


def test_rates_by_name_multiply():
  rates = {'streams_*': 0.5, '*/stage_1/*': 0.2}
  found, _ = updated({'rates': rates})
  expected = {
    'head/logit/bias': -0.3,
    'head/logit/kernel': -0.3,
    'streams_rgb/stage_1/kernel': -0.03,
    'streams_rgb/stage_2/kernel': -0.15,
  }
  assert found.keys() == expected.keys()
  for name, update in expected.items():
    np.testing.assert_allclose(found[name], update, rtol=1e-6)


def test_a_rate_scales_what_adam_makes_not_its_gradient():
  """Of the gradient alone Adam would take no notice."""
  tx, _ = optimizer.build(
    {'name': 'adam', 'rates': {'streams_*': 0.1}}, {'name': 'constant', 'peak': 0.1}, 10
  )
  grads = jax.tree.map(jnp.ones_like, PARAMS)
  updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
  np.testing.assert_allclose(updates['streams_rgb']['stage_1']['kernel'], -0.01, rtol=1e-4)
  np.testing.assert_allclose(updates['head']['logit']['bias'], -0.1, rtol=1e-4)


@pytest.mark.parametrize(
  'fields,said',
  [
    (
      {'rates': {'xyz': 0.1}},
      "rates: 'xyz' matches no parameter; similar names: head, streams_rgb",
    ),
    ({'rates': {'head': 0}}, 'give a factor above 0, .*config.trainable'),
  ],
)
def test_names_that_cannot_be(fields, said):
  with pytest.raises(ConfigError, match=said):
    updated(fields)
