"""What trains by name: the patterns, the step that leaves the others out, and the old field."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import vit_fusion
from flexfas_jax.errors import ConfigError
from flexfas_jax.preflight.flop_count import count_flops
from flexfas_jax.training import losses, optimizer, setup, sharding, trainable, workdir
from flexfas_jax.training.step import new_state, train_step
from tests.toy import make, make_batch

NAME = 'streams_rgb/stage_1/block_11/adapters_conv_mlp/down/kernel'


@pytest.mark.parametrize(
  'pattern,matched',
  [
    (NAME, True),
    ('streams_rgb', True),
    ('streams_*/stage_1', True),
    ('*/down/kernel', True),
    ('block_11', True),  # a component in any place
    ('kernel', True),
    ('block_1?', True),
    ('adapters', True),  # and what continues with _
    ('block', True),
    ('streams', True),
    ('block_1', False),
    ('adapter', False),
    ('stage_1/block_11', False),  # with a slash, from the first component on
    ('down/kernel', False),
    ('Kernel', False),
  ],
)
def test_patterns(pattern, matched):
  assert trainable.matches(NAME, pattern) == matched


PARAMS = {
  'streams_rgb': {'stage_1': {'kernel': jnp.ones(2)}, 'cls_token': jnp.ones(2)},
  'streams_ir': {'stage_1': {'kernel': jnp.ones(2)}},
  'head': {'logit': {'kernel': jnp.ones(2), 'bias': jnp.ones(2)}},
  'token_rgb_0': jnp.ones(2),
  'token_rgb_1': jnp.ones(2),
}


def test_two_trees_hold_each_parameter_once():
  trained, frozen = trainable.split(PARAMS, ('stage_1', 'head/*/bias'))
  assert sorted(trainable.flatten(trained)) == [
    'head/logit/bias', 'streams_ir/stage_1/kernel', 'streams_rgb/stage_1/kernel',
  ]  # fmt: skip
  assert len(trainable.flatten(frozen)) == 4
  for merged in (trainable.merge(trained, frozen), trainable.merge(frozen, trained)):
    assert jax.tree.structure(merged) == jax.tree.structure(PARAMS)
  trained, frozen = trainable.split(PARAMS, ())
  assert trained is PARAMS and trainable.merge(trained, frozen) is PARAMS


@pytest.mark.parametrize(
  'patterns,message',
  [
    (('class_token',), "trainable: 'class_token' matches no parameter; similar names: .*cls_token"),
    (('head', 'stream_rgb/stage_1'), "'stream_rgb/stage_1' .* similar names: streams_rgb/stage_1"),
    (('xyz',), 'similar names: head, streams_ir, streams_rgb'),
    ('head', r"is a string; give a tuple: \('head',\)"),
    (('head', 1), 'give a tuple of patterns'),
    (('',), 'give a tuple of patterns'),
    (True, 'give a tuple of patterns'),
  ],
)
def test_patterns_that_cannot_be(patterns, message):
  with pytest.raises(ConfigError, match=message):
    trainable.check('trainable', trainable.parse(patterns), PARAMS)


@pytest.mark.parametrize(
  'freeze',
  [
    ('head',),
    ('streams_*/stage_1',),
    ('*/bias', 'token_rgb_1'),
    ('streams_*', 'head/logit/*'),
    'head',
  ],
)
def test_the_former_field_is_refused_with_its_translation(freeze):
  with pytest.raises(ConfigError, match='freeze was replaced by config.trainable') as raised:
    trainable.refuse_freeze(freeze, PARAMS)
  patterns = eval(str(raised.value).split('config.trainable = ')[1])
  trainable.check('trainable', patterns, PARAMS)
  _, frozen = trainable.split(PARAMS, patterns)
  expected = {  # as that field matched
    'head': {'head/logit/kernel', 'head/logit/bias'},
    'streams_*/stage_1': {'streams_rgb/stage_1/kernel', 'streams_ir/stage_1/kernel'},
    '*/bias': {'head/logit/bias', 'token_rgb_1'},
    'streams_*': {n for n in trainable.flatten(PARAMS) if n.startswith(('streams', 'head'))},
  }[freeze if isinstance(freeze, str) else freeze[0]]
  assert set(trainable.flatten(frozen)) == expected


def test_the_translation_is_short():
  with pytest.raises(ConfigError, match=r"= \('streams_ir', 'streams_rgb', 'token_rgb'\)"):
    trainable.refuse_freeze(('head',), PARAMS)
  with pytest.raises(ConfigError, match='leaves nothing to train'):
    trainable.refuse_freeze(('*',), PARAMS)
  trainable.refuse_freeze((), PARAMS)


def make_config(**fields) -> ConfigDict:
  config = vit_fusion.get_config()
  config.model.backbone = {'name': 'vit', 'variant': 'pico', 'patch_size': 16}
  with config.unlocked(), config.ignore_type():
    config.update_from_flattened_dict({'mesh.fsdp': 1, 'model.fusion': {'name': 'concat'}})
    for name, value in fields.items():
      config[name] = value
  return config


@pytest.fixture
def one_device(monkeypatch):
  monkeypatch.setattr(setup, 'find_devices', lambda: jax.devices()[:1])


def test_a_config_with_the_former_field(one_device):
  """All problems at once; an empty one, as in the configs of earlier workdirs, has no effect."""
  freeze = {'name': 'adamw', 'freeze': ('streams_shared',)}
  with pytest.raises(ConfigError, match=r"trainable = \('fusion', 'head', 'token_depth"):
    setup.build(make_config(optimizer=freeze))
  with pytest.raises(ConfigError, match="'neck' matches no parameter") as raised:
    setup.build(make_config(trainable=('neck',), optimizer=freeze))
  assert 'config.optimizer.freeze was replaced' in str(raised.value)
  setup.build(make_config(optimizer={'name': 'adamw', 'freeze': ()}))
  rates = {'name': 'adamw', 'rates': {'streams_*': 0.1}}
  with pytest.raises(ConfigError, match=r"rates: 'streams_\*' matches no parameter"):
    setup.build(make_config(trainable=('head',), optimizer=rates))


def test_a_workdir_of_an_earlier_version_is_of_the_same_config(tmp_path):
  fields = {'optimizer': {'name': 'adamw'}, 'steps': 1}
  workdir.write_config(tmp_path, {**fields, 'optimizer': {'name': 'adamw', 'freeze': ()}})
  assert not workdir.changed_fields(tmp_path, {**fields, 'trainable': ()})
  (line,) = workdir.changed_fields(tmp_path, {**fields, 'trainable': ('head',)})
  assert line.startswith('trainable: ')


def test_frozen_parameters_cost_neither_state_nor_flops(one_device):
  """By the compiler's count and by that of preflight; a step of one block needs one block more."""
  found = {}
  for patterns in ((), ('block_3', 'norm', 'head'), ('head',)):
    experiment = setup.build(make_config(trainable=patterns))
    inputs = experiment.abstract, setup.abstract_batch(experiment), setup.abstract_key(experiment)
    compiled = setup.make_step(experiment).lower(*inputs).compile()
    moments = sum(x.size for x in jax.tree.leaves(experiment.abstract.opt_state) if x.ndim)
    trained, _ = trainable.split(experiment.abstract.params, patterns)
    assert moments == 2 * sum(x.size for x in jax.tree.leaves(trained))
    counted = count_flops(setup.make_step(experiment), *inputs)
    found[patterns] = np.array([compiled.cost_analysis()['flops'], counted])
  whole, block, head = found.values()
  assert (head < 0.42 * whole).all(), found  # the forward pass, of three
  assert (block < 0.7 * whole).all() and (block > 1.2 * head).all(), found


def train(patterns, accumulate=1, ema=0.0, steps=2, fsdp=1, devices=1):
  """(state before, state after, metrics of the last step) of a toy with decay on everything."""
  model, variables = make()
  tx, _ = optimizer.build(
    {'name': 'adamw', 'weight_decay': 0.5, 'decay': 'all'},
    {'name': 'constant', 'peak': 0.01},
    10,
    clip_norm=0.1,
  )
  before = new_state(variables, tx, ema, patterns)
  mesh = sharding.make_mesh(fsdp=fsdp, devices=jax.devices()[:devices])
  places = sharding.state_sharding(jax.eval_shape(lambda: before), mesh)
  step = functools.partial(
    train_step,
    model=model,
    optimizer=tx,
    loss=losses.binary_cross_entropy,
    modality_dropout={},
    accumulate=accumulate,
    ema=ema,
    trainable=patterns,
  )
  step = jax.jit(step, out_shardings=(places, sharding.replicated(mesh)))
  state = jax.device_put(before, places)
  batch = sharding.place_batch(make_batch(model, B=8), mesh)
  for _ in range(steps):
    state, metrics = step(
      state, batch, jax.device_put(jax.random.key(0), sharding.replicated(mesh))
    )
  return before, state, metrics


@pytest.mark.parametrize('accumulate,ema,fsdp,devices', [(1, 0.9, 1, 1), (2, 0.0, 4, 4)])
def test_what_is_frozen_keeps_every_bit(accumulate, ema, fsdp, devices):
  """Under decay, clipping, accumulation, an average, and a state that is sharded."""
  patterns = ('block_1', 'head')
  before, after, metrics = train(patterns, accumulate, ema, 2, fsdp, devices)
  old, new = trainable.flatten(before.params), trainable.flatten(after.params)
  assert list(map(str, old)) == list(map(str, new)) and metrics['grad_norm'] > 0
  trained = {name for name in old if any(trainable.matches(name, p) for p in patterns)}
  assert 2 < len(trained) < len(old) - 2
  for name in old:
    assert np.array_equal(old[name], new[name]) == (name not in trained), name
  if ema:
    mean = trainable.flatten(after.ema['params'])
    assert all(np.array_equal(mean[name], old[name]) for name in old.keys() - trained)
    assert not any(np.array_equal(mean[name], old[name]) for name in trained)


def test_a_frozen_parameter_has_no_part_in_the_norm():
  """The gradient of the others is the same as where everything trains."""
  norms = [float(train(p, steps=1)[2]['grad_norm']) for p in ((), ('head',), ('streams_shared',))]
  everything, head, stream = norms
  assert 0 < head < everything and 0 < stream < everything
  model, variables = make()
  names = trainable.flatten(variables['params'])
  rest = tuple(n for n in names if not n.startswith(('head', 'streams_shared')))
  others = float(train(rest, steps=1)[2]['grad_norm'])
  np.testing.assert_allclose(head**2 + stream**2 + others**2, everything**2, rtol=1e-5)
