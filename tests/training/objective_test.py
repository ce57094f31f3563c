"""Prototypes, ReGrad and hyperplanes in the training step: recomputed, sharded, in parts, saved."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import FrozenDict
from ml_collections import ConfigDict

from configs import vit_fusion
from flexfas_jax import lookup
from flexfas_jax.errors import ConfigError
from flexfas_jax.models import flexmodal
from flexfas_jax.training import (
  gradient_modulation,
  hyperplanes,
  losses,
  objective,
  prototypes,
  setup,
  sharding,
  trainable,
)
from flexfas_jax.training.checkpoints import Checkpoints
from flexfas_jax.training.step import (
  AveragedState,
  AveragedStateWithMemory,
  StateWithMemory,
  drop_modalities,
  named_key,
  new_state,
  train_step,
  with_average,
  without_average,
)
from tests.toy import TOY, fill, make_batch

MODALITIES = ('rgb', 'depth', 'ir')
DOMAINS = 2
SINGLE_SIDE = {
  'binary_cross_entropy': {},
  'single_side_prototypes': {'domains': DOMAINS, 'period': 4, 'weight': 0.3},
}
TRAINED = ('adapters_*', 'cls_token', 'pos_embed', 'block_1', 'head')
ADAPTERS = (FrozenDict(name='uncertain_cross', width=8),)
WITHOUT_DROPOUT = (FrozenDict(name='uncertain_cross', width=8, dropout=0.0, blocks=(0,)),)
KEY, KEYS = jax.random.key(3), ('label', 'domain')
ABSENT = {'depth': 0.5, 'ir': 0.5}


@functools.cache
def make(head='binary_logit', adapters=ADAPTERS, scan=False, remat=False):
  """(model, variables) of a toy ViT whose depth and ir differ from rgb in tokens and positions."""
  fields = {'domains': DOMAINS} if head != 'binary_logit' else {}
  per_modality = ('cls_token', 'pos_embed')
  model = flexmodal.build(
    {
      'name': 'vit', **TOY['vit'], 'depth': 4 if scan else 2, 'output': 'class_token',
      'adapters': adapters, 'per_modality': per_modality, 'scan': scan, 'remat': remat,
    },
    {'name': 'plain_concat'},
    {'name': head, **fields},
    image_size=16,
    modality_features=True,
  )  # fmt: skip
  return model, fill(jax.eval_shape(model.init, jax.random.key(0)))


def batch_of(model, B=16, seed=0):
  batch = make_batch(model, B, seed)
  return {**batch, 'domain': jnp.asarray(np.random.default_rng(seed).integers(0, DOMAINS, B))}


def setting(loss=None, modulation=None, head='binary_logit', ema=0.0, patterns=TRAINED, **more):
  """(model, state, arguments of the step) with SGD at rate 1, which subtracts the gradient."""
  model, variables = make(head, **more)
  loss = loss or SINGLE_SIDE
  made = objective.build(loss, modulation, model)
  optimizer = optax.sgd(1.0)
  state = new_state(variables, optimizer, ema, patterns, made.memory)
  arguments = {
    'model': model,
    'optimizer': optimizer,
    'loss': lookup.make_loss(loss),
    'modality_dropout': ABSENT,
    'ema': ema,
    'trainable': patterns,
    **made.step_arguments(),
  }
  return model, state, arguments


def with_prototypes(state):
  """The state with random prototypes of every class, as after some steps."""
  rng = np.random.default_rng(5)
  memory = {k: rng.uniform(0.5, 1, x.shape) for k, x in state.memory.items()}
  return state.replace(memory=jax.tree.map(jnp.float32, memory))


def compiled(arguments, **more):
  """(state, batch) -> (state, metrics)."""
  step = functools.partial(train_step, **{**arguments, **more})
  return jax.jit(lambda state, batch: step(state, batch, KEY))


def run(state, batch, arguments, **more):
  return compiled(arguments, **more)(state, batch)


def close(found, expected, rtol=1e-4, atol=1e-5):
  compare = functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol)
  jax.tree.map(compare, jax.device_get(found), jax.device_get(expected))


def test_the_memory_is_that_of_the_features():
  """Of the training pass, with the weights before the step; the first step has no prototypes."""
  model, state, arguments = setting()
  assert type(state) is StateWithMemory
  batch = batch_of(model)
  step, plain_step = compiled(arguments), compiled(arguments, loss=losses.binary_cross_entropy)
  apply, classes = jax.jit(model.apply), prototypes.single_side_classes(*map(batch.get, KEYS))
  for i in range(3):
    after, metrics = step(state, batch)
    _, plain = plain_step(state, batch)
    key = jax.random.fold_in(KEY, i)
    present = drop_modalities(
      named_key(key, 'modality_dropout'), batch['present'], MODALITIES, ABSENT
    )
    assert not present.all()
    variables = {'params': state.params, 'batch_stats': {}}
    outputs, _ = apply(variables, {**batch, 'present': present}, named_key(key, 'dropout'))
    sums, counts = prototypes.class_means(
      outputs['modality_feature'], classes, present, 1 + DOMAINS
    )
    decay = 0.2 ** (1 / 4)
    close(after.memory, prototypes.step_update(state.memory, sums, counts, decay))
    if i:
      assert metrics['loss'] > plain['loss'] + 0.05
    else:
      np.testing.assert_allclose(metrics['loss'], plain['loss'], rtol=1e-6)
    state = after


@pytest.mark.parametrize('modulation', [None, {'name': 'regrad'}])
def test_eight_devices_and_parts_equal_one(modulation):
  """Also the memory, of which a part is sharded, and the gradients of each modality's loss."""
  # Without dropout, whose key is a part's; with few tensors, since eight devices compile slowly.
  patterns = ('cls_token', 'rgb_reads_depth', 'ir_reads_rgb', 'norm', 'head')
  model, state, arguments = setting(
    modulation=modulation, adapters=WITHOUT_DROPOUT, patterns=patterns
  )
  state, batch = with_prototypes(state), batch_of(model, 32)
  expected, metrics = run(state, batch, arguments)
  assert metrics['grad_norm'] > 0.1
  mesh = sharding.make_mesh(fsdp=2)
  places = sharding.state_sharding(jax.eval_shape(lambda: state), mesh)
  assert not places.memory['prototype'].is_fully_replicated
  step = jax.jit(
    functools.partial(train_step, **arguments, accumulate=2),
    out_shardings=(places, sharding.replicated(mesh)),
  )
  eight, found = step(jax.device_put(state, places), sharding.place_batch(batch, mesh), KEY)
  close(eight, expected)
  close(found, metrics)


def test_regrad_in_the_step_is_four_gradients():
  """Each by a separate pass; the certainty from the model's intermediates."""
  model, state, arguments = setting(modulation={'name': 'regrad'})
  state, batch = with_prototypes(state), batch_of(model)
  del arguments['modality_dropout']
  after, metrics = run(state, batch, arguments, modality_dropout={})
  trained, frozen = trainable.split(state.params, arguments['trainable'])
  key = named_key(jax.random.fold_in(KEY, 0), 'dropout')

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def part(trained, share, modalities):
    variables = {'params': trainable.merge(trained, frozen), 'batch_stats': {}}
    outputs = model.apply(variables, batch, key)[0] | state.memory
    alone = {**batch, 'present': batch['present'] & modalities[None]}
    fields = {'domains': DOMAINS, 'period': 4}
    value = share * losses.binary_cross_entropy(outputs, batch).mean()
    value += 0.3 * losses.single_side_prototypes(outputs, alone, **fields).mean()
    return value, outputs['certainty']

  masks = np.concatenate([np.zeros((1, 3), bool), np.eye(3, dtype=bool)])
  found = [part(trained, float(not mask.any()), mask) for mask in masks]
  values = jnp.stack([value for (value, _), _ in found])
  certainty = found[0][0][1]
  assert certainty.shape == (3,) and (certainty > 0).all() and (certainty < 1).all()
  np.testing.assert_allclose(metrics['loss'], values.sum(), rtol=1e-5)
  total, *own = (gradient for _, gradient in found)
  combined = gradient_modulation.regrad(total, own, values[1:], certainty, MODALITIES)
  before, new = trainable.flatten(trained), trainable.flatten(after.params)
  for name, gradient in trainable.flatten(combined).items():
    np.testing.assert_allclose(before[name] - new[name], gradient, rtol=1e-3, atol=1e-5)
  for name, value in trainable.flatten(frozen).items():
    np.testing.assert_array_equal(new[name], value)
  # Not the plain gradient: a modality's own tensors differ, shared ones do not.
  plain, _ = run(state, batch, {**arguments, 'modulation': None}, modality_dropout={})
  plain = trainable.flatten(plain.params)
  changes = {n: np.abs(new[n] - before[n]).max() for n in before}
  differ = {n for n in before if np.abs(plain[n] - new[n]).max() > 1e-3 * changes[n]}
  assert all(f'{m}_reads' in ' '.join(differ) for m in MODALITIES)
  assert {n for n in differ if 'reads' not in n} == {
    'streams_shared/cls_token', 'streams_shared/pos_embed'
  }  # fmt: skip


def test_a_modality_that_the_batch_lacks():
  """It is not the fastest, and its own tensors get no gradient."""
  model, state, arguments = setting(modulation={'name': 'regrad'})
  state, batch = with_prototypes(state), batch_of(model)
  batch['present'] = batch['present'].at[:, 2].set(False)
  after, metrics = run(state, batch, arguments, modality_dropout={})
  assert np.isfinite(metrics['grad_norm']) and np.isfinite(metrics['loss'])
  token, before = (s.params['streams_shared']['cls_token'] for s in (after, state))
  changed = np.abs(token - before).max((1, 2)) > 0
  np.testing.assert_array_equal(changed, [True, True, False])


def test_a_modality_is_compared_by_the_samples_that_have_it():
  """Otherwise the one that is absent most often would be the fastest; without any, it is inf."""
  model, state, arguments = setting(modulation={'name': 'regrad'}, patterns=('head',))
  state, batch = with_prototypes(state), batch_of(model)
  batch['present'] = batch['present'].at[:, 2].set(False).at[3:, 1].set(False)

  def values_as_gradient(shared, own, values, certainty, modalities):
    kernel = jnp.zeros_like(shared['head']['logit']['kernel']).at[:3, 0].set(values)
    return {'head': {'logit': {**shared['head']['logit'], 'kernel': kernel}}}

  arguments['modulation'] = arguments['modulation']._replace(combine=values_as_gradient)
  after, _ = run(state, batch, arguments, modality_dropout={})
  kernels = (s.params['head']['logit']['kernel'][:3, 0] for s in (state, after))
  found = np.subtract(*map(np.asarray, kernels))
  variables = {'params': state.params, 'batch_stats': {}}
  key = named_key(jax.random.fold_in(KEY, 0), 'dropout')
  outputs = jax.jit(model.apply)(variables, batch, key)[0] | state.memory
  fields = {'domains': DOMAINS, 'period': 4}
  terms = 0.3 * losses.single_side_prototypes.by_modality(outputs, batch, **fields)
  np.testing.assert_allclose(found[:2], [terms[:, 0].mean(), terms[:3, 1].mean()], rtol=1e-4)
  assert found[2] == np.inf


@pytest.mark.parametrize('fields', [{}, {'remat': True}, {'scan': True}])
def test_the_certainty_is_that_of_the_last_block(fields):
  """Also where blocks are recomputed or run as a loop; without such adapters there is none."""
  model, variables = make(**fields)
  batch = batch_of(model, 4)
  outputs, _ = jax.jit(model.apply)(variables, batch, jax.random.key(0))
  images = {m: batch[m] for m in MODALITIES}
  _, state = jax.jit(
    lambda v, i: model.module.apply(
      v, i, None, True, method='encode_together', mutable=['intermediates', 'batch_stats'],
      rngs={'dropout': jax.random.key(0)},
    )
  )(variables, images)  # fmt: skip
  stages = state['intermediates']['streams_shared']
  last = max(name for name in stages if name.startswith('stage'))
  (block,) = stages[last].values()
  certainty = block['adapters_uncertain_cross_mlp']['certainty'][0].reshape(-1, 3)[-1]
  if not fields.get('scan'):  # dropout of a stack has other keys
    np.testing.assert_allclose(outputs['certainty'], certainty, rtol=1e-5)
  assert outputs['certainty'].shape == (3,)
  plain, variables = make(adapters=())
  outputs, _ = jax.jit(plain.apply)(variables, batch, jax.random.key(0))
  assert 'certainty' not in outputs and outputs['modality_feature'].shape == (4, 3, 32)


def test_hyperplanes_approach_after_each_step():
  loss = {'domain_hyperplanes': {'rate': 0.1}}
  model, state, arguments = setting(loss, head='domain_hyperplanes')
  assert 'memory' not in vars(state)
  batch = batch_of(model)
  after, _ = run(state, batch, arguments)
  plain, _ = run(state, batch, arguments, project=None)
  expected = hyperplanes.approach(plain.params['head']['kernel'], 0.1)
  assert np.abs(expected - plain.params['head']['kernel']).max() > 1e-3
  np.testing.assert_allclose(after.params['head']['kernel'], expected, rtol=1e-5, atol=1e-6)
  # Frozen ones stay.
  patterns = ('block_1',)
  frozen = new_state(make('domain_hyperplanes')[1], arguments['optimizer'], 0.0, patterns)
  after, _ = run(frozen, batch, arguments, trainable=patterns)
  np.testing.assert_array_equal(after.params['head']['kernel'], state.params['head']['kernel'])


def test_learned_prototypes_train():
  loss = {'binary_cross_entropy': {}, 'cosine_prototypes': {'scale': 10.0}}
  model, state, arguments = setting(loss, {'name': 'regrad'}, head='modality_prototypes')
  after, metrics = run(state, batch_of(model), arguments)
  old, new = (s.params['head']['prototypes'] for s in (state, after))
  assert np.isfinite(metrics['loss']) and (np.abs(new - old).max((1, 2)) > 0).all()


def test_consistency_reads_what_dropout_removed():
  """Without `available`, the features of all images would be those of the subset."""
  _, variables = make(adapters=())
  model = flexmodal.build(
    {'name': 'vit', **TOY['vit']}, {'name': 'plain_concat'}, {'name': 'binary_logit'},
    image_size=16, full_features=True,
  )  # fmt: skip
  variables = fill(jax.eval_shape(model.init, jax.random.key(0)))
  optimizer = optax.sgd(1.0)
  state = new_state(variables, optimizer)
  step = functools.partial(
    train_step, model=model, optimizer=optimizer, loss=losses.subset_consistency
  )
  batch = make_batch(model, 8)
  for dropout, expected in ((ABSENT, True), ({}, False)):
    _, metrics = jax.jit(functools.partial(step, modality_dropout=dropout))(
      state, batch, jax.random.key(0)
    )
    assert (metrics['loss'] > 1e-6) == expected


@pytest.mark.parametrize('ema', [0.0, 0.9])
def test_the_memory_is_saved_and_resumed_bit_for_bit(tmp_path, ema):
  model, state, arguments = setting(ema=ema)
  batches = [batch_of(model, 8, seed) for seed in range(4)]
  step = jax.jit(functools.partial(train_step, **arguments))
  states = [state]
  for batch in batches:
    states.append(step(states[-1], batch, jax.random.key(0))[0])
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  abstract = jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    state,
    sharding.state_sharding(state, mesh),
  )
  with Checkpoints(tmp_path / 'checkpoints', 'eer') as checkpoints:
    checkpoints.save(2, states[2], {}, {}, wait=True)
    found = checkpoints.restore(2, abstract)
    assert type(found) is type(state) and found.memory['prototype_weight'].any()
    for batch in batches[2:]:
      found = step(found, batch, jax.random.key(0))[0]
    jax.tree.map(np.testing.assert_array_equal, found, states[4])
    variables = checkpoints.restore_variables(2, sharding.replicated(mesh))
    assert set(variables) == {'params', 'batch_stats'}
    # An average begins later, or ends; the memory stays.
    other = without_average(abstract) if ema else with_average(abstract)
    changed = checkpoints.restore(2, other)
    assert isinstance(changed, AveragedState) == (not ema)
    close(changed.memory, states[2].memory, 0, 0)
  assert type(with_average(states[1])) is AveragedStateWithMemory
  assert type(without_average(states[1])) is StateWithMemory


def make_config(**fields) -> ConfigDict:
  config = vit_fusion.get_config()
  config.model.backbone = {'name': 'vit', 'variant': 'mu', 'patch_size': 16}
  with config.unlocked(), config.ignore_type():
    config.update_from_flattened_dict({'mesh.fsdp': 1, 'model.fusion': {'name': 'plain_concat'}})
    config.model.modality_features = True
    for name, value in {'loss': SINGLE_SIDE, **fields}.items():
      config[name] = value
  return config


def test_a_config_describes_all_of_it(monkeypatch):
  monkeypatch.setattr(setup, 'find_devices', lambda: jax.devices()[:1])
  modulation = {'name': 'regrad'}
  experiment = setup.build(make_config(gradient_modulation=modulation, ema=0.9))
  assert experiment.abstract.memory['prototype'].shape == (3, 1 + DOMAINS, 32)
  batch = setup.abstract_batch(experiment)
  assert batch['domain'].dtype == jnp.int32
  inputs = experiment.abstract, batch, setup.abstract_key(experiment)
  state, metrics = jax.eval_shape(setup.make_step(experiment), *inputs)
  assert state.memory.keys() == {'prototype', 'prototype_weight'} and 'loss' in metrics
  config = make_config(loss={'domain_hyperplanes': {}})
  config.model.head = {'name': 'domain_hyperplanes', 'domains': DOMAINS}
  experiment = setup.build(config)
  assert experiment.objective.project and 'memory' not in vars(experiment.abstract)


@pytest.mark.parametrize(
  'fields,message',
  [
    ({'loss': {'single_side_prototypes': {'domains': 0, 'period': 4}}}, 'domains is 0; give a'),
    ({'loss': {'single_side_prototypes': {'domains': 2, 'period': 1.5}}}, 'period is 1.5; give a'),
    ({'loss': {'single_side_prototypes': {'domains': 2}}}, "needs the field 'period'"),
    (
      {'loss': {'single_side_prototypes': {'domains': 2, 'period': 4, 'momentum': 1.0}}},
      'momentum is 1.0; give a number between 0 and 1',
    ),
    ({'loss': {'domain_hyperplanes': {'rate': 1.0}}}, 'rate is 1.0; give a rate'),
    ({'loss': {'domain_hyperplanes': {}}}, "'domain_hyperplanes' needs 'domain_logit'"),
    ({'gradient_modulation': {'name': 'pcgrad'}}, "unknown gradient_modulation 'pcgrad'"),
    ({'gradient_modulation': {'name': 'regrad', 'p': 1}}, "'regrad' has no field 'p'"),
    (
      {'gradient_modulation': {'name': 'regrad'}, 'loss': 'binary_cross_entropy'},
      'gradient_modulation needs a loss with a term for each modality .*config.loss has binary',
    ),
  ],
)
def test_what_does_not_fit_is_named(fields, message, monkeypatch):
  monkeypatch.setattr(setup, 'find_devices', lambda: jax.devices()[:1])
  with pytest.raises(ConfigError, match=message):
    setup.build(make_config(**fields))


def test_the_number_of_domains_is_that_of_the_data():
  fields = make_config().to_dict()
  objective.check_domains(fields, ('a', 'b'))
  message = r'single_side_prototypes.domains = 2, .*train has 3: a, b, c \(config.domain'
  with pytest.raises(ConfigError, match=message):
    objective.check_domains(fields, ('a', 'b', 'c'))
  fields['loss'] = 'binary_cross_entropy'
  objective.check_domains(fields, ('a',))
  fields['model']['head'] = {'name': 'domain_hyperplanes', 'domains': 4}
  with pytest.raises(ConfigError, match='config.model.head.domains = 4'):
    objective.check_domains(fields, ('a', 'b', 'c'))


def test_features_that_the_model_does_not_return(monkeypatch):
  monkeypatch.setattr(setup, 'find_devices', lambda: jax.devices()[:1])
  config = make_config()
  config.model.modality_features = False
  with pytest.raises(ConfigError, match=r'set model.modality_features = True'):
    setup.build(config)


def test_the_fastest_modality_is_found_by_running_losses():
  """MMDG++'s ReGrad: m <- 0.5 m + 0.5 loss, and 0.5 m of an absent modality, which is not fast."""
  model, state, arguments = setting(modulation={'name': 'regrad', 'running': 0.5})
  assert state.memory.keys() == {'prototype', 'prototype_weight', 'modality_loss'}
  state, batch = with_prototypes(state), batch_of(model)
  batch['present'] = batch['present'].at[:, 1].set(False)
  running = np.float32([0.2, 0.8, 0.4])
  state = state.replace(memory={**state.memory, 'modality_loss': jnp.asarray(running)})
  seen = []

  def record(shared, own, values, certainty, modalities):
    jax.debug.callback(lambda v: seen.append(np.asarray(v)), values)
    return shared

  arguments['modulation'] = arguments['modulation']._replace(combine=record)
  after, _ = run(state, batch, arguments, modality_dropout={})
  variables = {'params': state.params, 'batch_stats': {}}
  key = named_key(jax.random.fold_in(KEY, 0), 'dropout')
  outputs = jax.jit(model.apply)(variables, batch, key)[0] | state.memory
  terms = 0.3 * losses.single_side_prototypes.by_modality(outputs, batch, domains=2, period=4)
  now = np.where([True, False, True], np.asarray(terms).mean(0), 0.0)
  np.testing.assert_allclose(after.memory['modality_loss'], (running + now) / 2, rtol=1e-4)
  jax.effects_barrier()
  np.testing.assert_allclose(seen[0][[0, 2]], ((running + now) / 2)[[0, 2]], rtol=1e-4)
  assert seen[0][1] == np.inf


@pytest.mark.parametrize('fields,message', [
  ({'name': 'regrad', 'running': 1}, 'running is 1; give a number'),
  ({'name': 'regrad', 'version': 4}, "no field 'version'; it has: reaches, running"),
  ('regrad', "is 'regrad'; give None or a group"),
])  # fmt: skip
def test_fields_of_gradient_modulation(fields, message):
  with pytest.raises(ConfigError, match=message):
    objective.build(SINGLE_SIDE, fields, make()[0])
