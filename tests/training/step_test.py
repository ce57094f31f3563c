"""The training step: the same on eight devices as on one, and modality dropout by its rates."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flexfas_jax import lookup
from flexfas_jax.errors import ConfigError
from flexfas_jax.training import losses, sharding
from flexfas_jax.training.step import (
  State,
  _parts,
  drop_modalities,
  init_state,
  is_correct,
  named_key,
  train_step,
)
from tests.toy import make, make_batch

MODALITIES = ('rgb', 'depth', 'ir')


def make_step(model, optimizer, loss=losses.binary_cross_entropy):
  return functools.partial(
    train_step,
    model=model,
    optimizer=optimizer,
    loss=loss,
    modality_dropout={'depth': 0.5, 'ir': 0.5} if len(model.modalities) > 1 else {},
  )


EIGHT = [  # every backbone and every fusion once: (backbone, fusion, fsdp, head, loss)
  ('vit', 'cross_attention', 2, 'binary_logit', losses.binary_cross_entropy),
  ('vit', 'squeeze_excite', 1, 'pixel_map', losses.pixel_wise_mse),
  ('resnet', 'concat', 1, 'binary_logit', losses.binary_cross_entropy),
  ('cdcn', 'cdcn_three_stream', 1, 'pixel_map', losses.pixel_wise_mse),
  ('caffe_resnet', 'multi_layer_aggregation', 1, 'binary_logit', losses.focal),
  ('ir_resnet', 'single', 1, 'binary_logit', losses.binary_cross_entropy),
]


# A further fusion needs no entry.
EIGHT += [
  ('vit', name, 1, 'binary_logit', losses.binary_cross_entropy)
  for name in lookup.choices('fusion')
  if name not in {case[1] for case in EIGHT}
]


def test_eight_devices_try_every_backbone():
  assert {case[0] for case in EIGHT} == set(lookup.choices('backbone'))


@pytest.mark.parametrize('backbone,fusion,fsdp,head,loss', EIGHT)
def test_eight_devices_equal_one(backbone, fusion, fsdp, head, loss):
  """Loss, batch statistics and gradients (SGD at rate 1 subtracts them); never Adam's updates,
  which turn rounding noise into whole steps."""
  model, variables = make(backbone, fusion, head=head)
  optimizer = optax.sgd(1.0)
  state = State(
    step=jnp.zeros((), jnp.int32), opt_state=optimizer.init(variables['params']), **variables
  )
  steps, whole_step = [], make_step(model, optimizer, loss)  # one function: traced once
  for mesh in (sharding.make_mesh(fsdp=fsdp), sharding.make_mesh(devices=jax.devices()[:1])):
    places = sharding.state_sharding(jax.eval_shape(lambda: state), mesh)
    step = jax.jit(whole_step, out_shardings=(places, sharding.replicated(mesh)))
    steps.append((mesh, jax.device_put(state, places), step))
  # Rounding grows through the batch norms of the deeper toys: 1.5e-5 was seen, the largest 1. And
  # where a ReLU's input is within rounding of 0, all gradients before it jump, with which batch
  # depends on the processor. A defect of ours would show with every batch.
  for seed in range(4):
    batch = make_batch(model, B=16, seed=seed)
    batch['map'] = jnp.arange(64.0).reshape(16, 2, 2) / 64  # read by the one, left by the others
    (eight, metrics), (one, expected) = (
      step(placed, sharding.place_batch(batch, mesh), jax.random.key(3))
      for mesh, placed, step in steps
    )
    assert metrics['loss'] > 0.1
    assert metrics['grad_norm'] > 0.01
    np.testing.assert_allclose(metrics['loss'], expected['loss'], rtol=5e-6)
    try:
      close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5)
      jax.tree.map(close, jax.device_get(eight), jax.device_get(one))
      break
    except AssertionError:
      if seed == 3:
        raise
  if fsdp > 1:
    cut = [x for x in jax.tree.leaves(eight.params) if not x.sharding.is_fully_replicated]
    assert cut, 'nothing was cut over the fsdp axis'


def test_a_batch_in_parts_gives_the_update_of_the_whole():
  """Also over devices, each of which has a share of each part: nothing moves between them but the
  gradients' sums, as without parts."""
  model, variables = make('vit', 'single')  # no statistics over the batch
  optimizer = optax.sgd(1.0)
  state = State(
    step=jnp.zeros((), jnp.int32), opt_state=optimizer.init(variables['params']), **variables
  )
  mesh = sharding.make_mesh()
  batch, key = sharding.place_batch(make_batch(model, B=32), mesh), jax.random.key(3)
  whole_step = make_step(model, optimizer)
  whole, metrics = jax.jit(whole_step)(state, batch, key)
  step = jax.jit(
    functools.partial(whole_step, accumulate=4),
    out_shardings=sharding.replicated(mesh),
  )
  program = step.lower(state, batch, key).compile()
  parts, found = program(state, batch, key)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), dict(found), dict(metrics))
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
  jax.tree.map(close, parts, whole)
  text = program.as_text()
  assert 'all-reduce' in text
  assert 'all-to-all' not in text
  assert 'all-gather' not in text
  assert 'collective-permute' not in text


def test_accuracy_is_of_the_batch_whole_and_in_parts():
  """By hand: logits of both signs and 0, which is decided as bona fide; right or wrong."""
  logit = jnp.array([2.0, -1.0, 0.0, 0.0, 3.0, -2.0, 1.0, 5.0])
  label = jnp.array([1, 1, 1, 0, 0, 0, 1, 1], jnp.int32)
  rightly = [1, 0, 1, 0, 0, 1, 1, 1]
  np.testing.assert_array_equal(is_correct({'logit': logit}, {'label': label}), rightly)
  cosine = jnp.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.1]])
  identity = {'identity': jnp.array([1, 1, 0])}
  np.testing.assert_array_equal(is_correct({'logit': None, 'cosine': cosine}, identity), [1, 0, 1])

  model = types.SimpleNamespace(
    modalities=('rgb',),
    apply=lambda variables, batch, key: (
      {'logit': variables['params']['w'] * batch['rgb'][:, 0, 0, 0]},
      {
        'seen': variables['batch_stats']['seen'] + batch['label'].shape[0],
        'largest': jnp.maximum(variables['batch_stats']['largest'], batch['label'].shape[0]),
      },
    ),
  )
  optimizer = optax.sgd(1.0)
  params = {'w': jnp.ones(())}
  state = State(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats={'seen': jnp.zeros(()), 'largest': jnp.zeros(())},
    opt_state=optimizer.init(params),
  )
  batch = {
    'rgb': logit[:, None, None, None], 'present': jnp.ones((8, 1), bool), 'label': label,
  }  # fmt: skip
  sign = 2.0 * label - 1
  losses_ = jnp.log1p(jnp.exp(-sign * logit))
  slope = (-sign * logit / (1 + jnp.exp(sign * logit))).mean()
  for accumulate in (1, 2, 4, 8):
    step = functools.partial(make_step(model, optimizer), accumulate=accumulate)
    after, found = step(state, batch, jax.random.key(0))
    assert found['accuracy'] == pytest.approx(5 / 8)
    assert found['loss'] == pytest.approx(float(losses_.mean()), rel=1e-6)
    assert found['grad_norm'] == pytest.approx(abs(float(slope)), rel=1e-5)
    assert after.params['w'] == pytest.approx(1 - float(slope), rel=1e-5)
    assert after.batch_stats['seen'] == 8 and after.step == 1  # every part, one after the other
    assert after.batch_stats['largest'] == 8 / accumulate  # which is all that is in memory at once


def test_the_parts_of_a_batch():
  """Every n-th sample is one part: each sample once, and each device has a share of each part."""
  parts = _parts({'x': jnp.arange(12), 'y': jnp.arange(24).reshape(12, 2)}, 3)
  np.testing.assert_array_equal(parts['x'], np.arange(12).reshape(4, 3).T)
  assert parts['y'].shape == (3, 4, 2)
  np.testing.assert_array_equal(parts['y'][1], [[2, 3], [8, 9], [14, 15], [20, 21]])


def test_parts_have_dropout_of_their_own():
  """Not the same draw for every part."""
  model = types.SimpleNamespace(
    modalities=('rgb',),
    apply=lambda variables, batch, key: (
      {'logit': variables['params']['w'] + 9 * jax.random.normal(key, batch['label'].shape)}, {},
    ),
  )  # fmt: skip
  params = {'w': jnp.zeros(())}
  optimizer = optax.sgd(1.0)
  state = State(
    step=jnp.zeros((), jnp.int32), params=params, batch_stats={}, opt_state=optimizer.init(params)
  )
  batch = {'rgb': jnp.zeros((8, 1, 1, 1)), 'present': jnp.ones((8, 1), bool),
           'label': jnp.ones(8, jnp.int32)}  # fmt: skip
  accuracies = []
  for seed in range(4):
    step = functools.partial(make_step(model, optimizer), accumulate=8)
    accuracies.append(float(step(state, batch, jax.random.key(seed))[1]['accuracy']))
  assert any(0 < accuracy < 1 for accuracy in accuracies)


def test_modality_dropout_gives_each_sub_protocol_a_quarter():
  B = 20000
  present = jnp.ones((B, 3), bool)
  kept = drop_modalities(jax.random.key(0), present, MODALITIES, {'depth': 0.5, 'ir': 0.5})
  assert kept[:, 0].all()
  _, counts = np.unique(np.asarray(kept), axis=0, return_counts=True)
  assert len(counts) == 4
  np.testing.assert_allclose(counts / B, 0.25, atol=0.015)  # 5 standard deviations


def test_modality_dropout_never_takes_everything_nor_gives_what_is_not_there():
  present = jnp.array([[1, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 1]] * 500, bool)
  rates = dict.fromkeys(MODALITIES, 0.9)
  kept = drop_modalities(jax.random.key(0), present, MODALITIES, rates)
  assert kept.any(1).all()
  assert not (kept & ~present).any()
  assert (kept.sum(1) < present.sum(1)).any()


def test_keys_of_different_names_and_steps_differ():
  key = jax.random.key(0)
  keys = [named_key(jax.random.fold_in(key, s), n) for s in range(3) for n in ('dropout', 'init')]
  draws = [float(jax.random.uniform(k)) for k in keys]
  assert len(set(draws)) == len(draws)
  assert draws[0] == float(jax.random.uniform(named_key(jax.random.fold_in(key, 0), 'dropout')))


def test_a_step_depends_on_its_number_not_on_what_ran_before():
  model, variables = make()
  optimizer = optax.sgd(0.0)
  state = State(
    step=jnp.zeros((), jnp.int32), opt_state=optimizer.init(variables['params']), **variables
  )
  step, batch, key = jax.jit(make_step(model, optimizer)), make_batch(model, B=8), jax.random.key(0)
  first, metrics = step(state, batch, key)
  assert int(first.step) == 1
  _, again = step(state, batch, key)
  _, second = step(first, batch, key)
  assert metrics['loss'] == again['loss']
  assert metrics['loss'] != second['loss']  # other modalities were dropped


def test_the_average_is_its_recurrence_by_hand():
  """Of parameters and of batch statistics: the weight of step i is d^(t - i), over their sum."""
  model = types.SimpleNamespace(
    modalities=('rgb',),
    init=lambda key: {'params': {'w': jnp.full(3, 50.0)}, 'batch_stats': {'n': jnp.full((), 70.0)}},
    apply=lambda variables, batch, key: (
      {'logit': variables['params']['w'].sum() * jnp.ones(8) / 100},
      {'n': variables['batch_stats']['n'] + 1},
    ),
  )
  optimizer, d = optax.sgd(3.0), 0.9
  batch = {'rgb': jnp.zeros((8, 1, 1, 1)), 'present': jnp.ones((8, 1), bool),
           'label': jnp.zeros(8, jnp.int32)}  # fmt: skip
  state = init_state(jax.random.key(0), model=model, optimizer=optimizer, ema=d)
  step = jax.jit(functools.partial(make_step(model, optimizer), ema=d))
  seen = []
  for t in range(1, 7):
    state, _ = step(state, batch, jax.random.key(0))
    seen.append((np.float64(state.params['w'][0]), np.float64(state.batch_stats['n'])))
    weights = d ** np.arange(t - 1, -1, -1.0)
    expected = weights @ np.array(seen) / weights.sum()
    np.testing.assert_allclose(state.ema['params']['w'], expected[0], rtol=2e-6)
    np.testing.assert_allclose(state.ema['batch_stats']['n'], expected[1], rtol=2e-6)
  assert seen[0][0] != seen[-1][0]
  # Without an average, training is the same, and its state has no entry for one.
  plain = init_state(jax.random.key(0), model=model, optimizer=optimizer)
  assert {field.name for field in dataclasses.fields(plain)} == {
    'step', 'params', 'batch_stats', 'opt_state'
  }  # fmt: skip
  for _ in range(6):
    plain, _ = jax.jit(make_step(model, optimizer))(plain, batch, jax.random.key(0))
  np.testing.assert_array_equal(plain.params['w'], state.params['w'])


def test_devices_that_do_not_divide_are_named():
  mesh = sharding.make_mesh()
  with pytest.raises(ConfigError, match='config.batch_size = 12 .* 8 devices'):
    sharding.check_batch(12, mesh, 'config.batch_size')
  with pytest.raises(ConfigError, match='4 does not divide over 8 devices, 2 times each; .* of 16'):
    sharding.check_batch(4, mesh, 'config.batch_size', accumulate=2)
  with pytest.raises(ConfigError, match='fsdp = 3 does not divide the 8 devices'):
    sharding.make_mesh(fsdp=3)
  with pytest.raises(ConfigError, match='mesh = 2 x 2 does not match the 8 devices; .* 4'):
    sharding.make_mesh(2, 2)
  assert dict(sharding.make_mesh(4, 2).shape) == {'data': 4, 'fsdp': 2}
