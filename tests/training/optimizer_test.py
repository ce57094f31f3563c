"""Schedules by hand; what weight decay touches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flexfas_jax.errors import ConfigError
from flexfas_jax.training import optimizer
from tests.toy import make


def test_warmup_cosine_by_hand():
  rate = optimizer.warmup_cosine(peak=2.0, steps=110, warmup=10)
  np.testing.assert_allclose(
    [rate(0), rate(5), rate(10), rate(60), rate(110)], [0, 1, 2, 1, 0], atol=1e-6
  )


def test_step_decay_is_the_references():
  """StepLR(20, 0.5), `scheduler.step()` first in the epoch: 19 epochs at 1e-5, 11 at 5e-6."""
  per_epoch = 7
  rate = optimizer.step_decay(1e-5, 30 * per_epoch, every=20 * per_epoch, lead=per_epoch)
  rates = [float(rate(epoch * per_epoch)) for epoch in range(30)]
  np.testing.assert_allclose(rates, [1e-5] * 19 + [5e-6] * 11)
  assert rate(19 * per_epoch - 1) == 1e-5


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
