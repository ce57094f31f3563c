"""Checkpoints without the arrays of the pretrained weights: size, resume, evaluation, export."""

import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
from ml_collections import ConfigDict

from flexfas_jax.errors import StateError
from flexfas_jax.export import bundle
from flexfas_jax.models import flexmodal
from flexfas_jax.models.weights import conversion, files
from flexfas_jax.models.weights.architectures import ARCHITECTURES
from flexfas_jax.training import digests, frozen, loop, setup, sharding, trainable, workdir
from flexfas_jax.training.checkpoints import Checkpoints
from tests import small_job, toy
from tests.small_job import write_config

PICO = 'timm/vit_pico'  # weights as timm's, of a model that is small to compile
EXPORT = {'formats': 'weights', 'min_val_scores': 12, 'min_val_subjects': 2}


@pytest.fixture(scope='module', autouse=True)
def small():
  tiny = ARCHITECTURES['timm/vit_tiny_patch16_224']
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(setup, 'find_devices', lambda: jax.devices()[:1])
    patch.setitem(ARCHITECTURES, PICO, tiny._replace(backbone={**tiny.backbone, 'variant': 'pico'}))
    yield


def write_weights(path, seed):
  origin = ARCHITECTURES[PICO]
  model = flexmodal.build(origin.backbone, origin.fusion, origin.head, ('rgb',), absent='exclude')
  files.write(path, conversion.to_torch(toy.fill(model.shapes(), seed), PICO))


@pytest.fixture(scope='module')
def root(prepared, tmp_path_factory):
  """A folder with the pretrained weights and a run that trains a head on them."""
  folder = tmp_path_factory.mktemp('frozen')
  write_config(folder / 'small.py', prepared)
  write_weights(folder / 'vit.safetensors', 0)
  loop.train_and_evaluate(make_config(folder), str(folder / 'run'))
  return folder


@pytest.fixture
def copy(root, tmp_path):
  """One that a test may change; its run expects the weights of the copy."""
  folder = pathlib.Path(shutil.copytree(root, tmp_path / 'copy'))
  file = folder / 'run' / 'config.json'
  file.write_text(file.read_text().replace(str(root), str(folder)))
  return folder


def make_config(folder, **changed) -> ConfigDict:
  names = {}
  exec((folder / 'small.py').read_text(), names)
  config = names['get_config']()
  config.steps, config.checkpoint_every, config.eval_every, config.schedule.warmup = 4, 2, 4, 0
  config.model.image_size = 32
  config.model.backbone = ConfigDict({'name': 'vit', 'variant': 'pico'})
  with config.unlocked(), config.ignore_type():
    config.trainable = ('head',)
    config.pretrained = {'weights': str(folder / 'vit.safetensors'), 'architecture': PICO}
    for name, value in changed.items():
      config[name] = value
  return config


def opened(run):
  return Checkpoints(run / 'checkpoints', 'eer', read_only=True)


def record_of(run, step=4):
  return opened(run).run_info(step).get(frozen.KEY, {})


def state_of(run, config, step=4):
  return frozen.restore(opened(run), step, setup.build(config))


def assert_same(first, second):
  jax.tree.map(np.testing.assert_array_equal, first, second)


def size_of(folder):
  return sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())


def test_a_checkpoint_holds_the_difference(root, tmp_path):
  config = make_config(root)
  state, record = state_of(root / 'run', config), record_of(root / 'run')
  names = set(trainable.flatten(state.params))
  kept = names - set(record['arrays'])
  assert {n for n in names if not n.startswith('streams_shared/')} < kept
  assert {n for n in kept if n.startswith('streams_shared/')} == {'streams_shared/pos_embed'}
  given, _ = frozen.transfer.load(setup.build(config).pretrained, setup.model_variables(state))
  for path, value in given.items():
    np.testing.assert_array_equal(trainable.flatten(state.params)['/'.join(path[1:])], value)
  with Checkpoints(tmp_path / 'whole', 'eer') as whole:
    whole.save(4, state, {}, {})
  small, large = size_of(root / 'run' / 'checkpoints' / '4'), size_of(tmp_path / 'whole' / '4')
  assert small < large / 4


def test_a_resumed_run_equals_the_unbroken_one(root, copy, capsys):
  config = make_config(copy)
  expected = state_of(copy / 'run', config)
  shutil.rmtree(copy / 'run' / 'checkpoints' / '4')
  loop.train(config, str(copy / 'run'))
  assert 'of them train), 1 x cpu, resuming at step 2' in capsys.readouterr().err
  assert_same(state_of(copy / 'run', config), expected)
  again, before = record_of(copy / 'run'), record_of(root / 'run')
  assert again['pretrained']['weights'] == str(copy / 'vit.safetensors')
  assert {**again, 'pretrained': 0} == {**before, 'pretrained': 0}


def test_a_sharded_state_is_completed(root, monkeypatch):
  config = make_config(root)
  expected = jax.device_get(state_of(root / 'run', config))
  monkeypatch.setattr(setup, 'find_devices', lambda: jax.devices()[:4])
  config.mesh.fsdp = 4
  state = state_of(root / 'run', config)
  assert_same(jax.device_get(state), expected)
  shardings = setup.shardings(setup.build(config))
  jax.tree.map(lambda leaf, place: leaf.sharding == place or pytest.fail(), state, shardings)
  assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))


def test_two_processes_save_and_read_a_difference(small_run, prepared, tmp_path):
  file = write_config(tmp_path / 'small.py', prepared)
  source = {'weights': str(small_run), 'architecture': 'ours', 'into': 'all'}
  text = file.read_text().replace(
    '  return c\n',
    f'  c.trainable, c.pretrained = ("head",), ConfigDict({source})\n'
    '  c.steps, c.eval_every, c.checkpoint_every, c.mesh.fsdp = 4, 4, 2, 2\n'
    '  return c\n',
  )
  file.write_text(text)
  names, run, found = {}, tmp_path / 'run', []
  exec(text.replace('4, 4, 2, 2', '4, 4, 2, 1'), names)
  for printed in ('', 'resuming at step 2'):
    processes = small_job.finish(small_job.start(file, run, 2, 2, '--mode=train'))
    assert [code for code, _, _ in processes] == [0, 0], processes
    assert printed in processes[0][2]
    state = state_of(run, names['get_config']())
    assert 'streams_shared/patch_embed/kernel' in record_of(run)['arrays']
    found.append(digests.hash_weights(setup.model_variables(state)))
    shutil.rmtree(run / 'checkpoints' / '4')
  assert found[0] == found[1]


def test_other_weights_are_refused(copy):
  """By both digests, wherever the checkpoint is read; after that nothing has changed."""
  write_weights(copy / 'vit.safetensors', 1)
  config, run = make_config(copy), str(copy / 'run')
  trained_with = record_of(copy / 'run')['sha256']
  shutil.rmtree(copy / 'run' / 'checkpoints' / '4')
  for use in (loop.train, loop.evaluate, lambda *a: bundle.export(*a, **EXPORT)):
    with pytest.raises(StateError, match='stores the difference from .*vit.safetensors') as raised:
      use(config, run)
    found = re.findall('[0-9a-f]{64}', str(raised.value))
    assert len(set(found)) == 2 and found[1] == trained_with
    assert 'Restore these weights, or name their new place' in str(raised.value)
  before = (copy / 'run' / 'config.json').read_text()
  with pytest.raises(StateError, match='stores the difference'):
    loop.train(make_config(copy, steps=6), run, loop.Options(allow_config_change=True))
  assert (copy / 'run' / 'config.json').read_text() == before
  (copy / 'vit.safetensors').unlink()
  with pytest.raises(StateError, match='cannot be used .*vit.safetensors.* Restore these weights'):
    loop.evaluate(config, run)
  assert opened(copy / 'run').steps() == [2]


def test_weights_that_were_moved(copy, root):
  """Evaluation takes their new place; without one, that which the checkpoint names."""
  run, moved = copy / 'run', copy / 'moved.safetensors'
  results = json.loads((run / 'results.json').read_text())
  (copy / 'vit.safetensors').rename(moved)
  there = {'weights': str(moved), 'architecture': PICO}
  (run / 'results.json').unlink()
  loop.evaluate(make_config(copy, pretrained=there), str(run))
  assert json.loads((run / 'results.json').read_text()) == results
  with pytest.raises(StateError, match='pretrained.weights'):
    loop.train(make_config(copy, pretrained=there), str(run))
  moved.rename(root / 'vit.safetensors')  # the place that the checkpoint names
  loop.evaluate(make_config(copy, pretrained=None), str(run))
  assert json.loads((run / 'results.json').read_text()) == results


def test_a_bundle_holds_all_weights(copy):
  config = make_config(copy)
  bundle.export(config, str(copy / 'run'), str(copy / 'bundle'), **EXPORT)
  (file,) = (copy / 'bundle').glob('*.safetensors')
  header = json.loads((copy / 'run' / 'scores' / 'intra.json').read_text())
  state = state_of(copy / 'run', config, header['step'])
  assert digests.hash_weights(setup.scored_variables(state)) == header['weights_hash']
  count = sum(tensor.size for tensor in safetensors.numpy.load_file(file).values())
  assert count == sum(leaf.size for leaf in jax.tree.leaves(setup.model_variables(state)))


def test_a_run_that_starts_from_a_difference(copy, root):
  """Its own checkpoints are differences from that run's, which needs its weights in turn."""
  config, first, second = make_config(copy), copy / 'run', copy / 'second'
  source = {'weights': str(first), 'architecture': 'ours', 'into': 'all'}
  config = make_config(copy, pretrained=source, trainable=('head', 'norm'), steps=2)
  loop.train(config, str(second))
  record = record_of(second, 2)
  assert record['step'] == 4 and 'fusion/mix/conv/kernel' in record['arrays']
  expected = state_of(second, config, 2)
  stream = 'streams_shared/stage_1/block_0/fc1/kernel'
  first_state = state_of(first, make_config(copy))
  assert_same(*(trainable.flatten(s.params)[stream] for s in (expected, first_state)))
  place = sharding.replicated(setup.build(config).mesh)
  assert_same(frozen.restore_variables(opened(second), 2, place), setup.scored_variables(expected))
  weights = root / 'vit.safetensors'  # which the first run's checkpoint names
  weights.rename(copy / 'away')
  with pytest.raises(StateError, match=r'difference from \S*/run, .*difference from \S*vit.safete'):
    loop.evaluate(config, str(second))
  (copy / 'away').rename(weights)
  shutil.rmtree(first / 'checkpoints' / '4')
  with pytest.raises(StateError, match='no longer holds the checkpoint of step 4'):
    loop.evaluate(config, str(second))


def test_checkpoints_that_hold_everything(copy, monkeypatch):
  """Those of earlier versions resume, and go on as they are."""
  whole, config = copy / 'whole', make_config(copy, steps=2)
  with monkeypatch.context() as patch:
    patch.setattr(frozen, 'make_record', lambda *_: {})
    loop.train(config, str(whole))
  options = loop.Options(allow_config_change=True)
  (copy / 'vit.safetensors').unlink()  # not needed
  loop.train(make_config(copy), str(whole), options)
  assert not record_of(whole, 2) and not record_of(whole, 4)
  names = trainable.flatten(state_of(whole, make_config(copy)).params)
  stored = opened(whole)._stored(4)['params']
  assert set(trainable.flatten(stored)) == set(names)


@pytest.mark.parametrize('changed', [{'pretrained': None}, {'trainable': ()}])
def test_nothing_is_left_out_without_both_fields(copy, changed):
  config = make_config(copy, steps=2, **changed)
  loop.train(config, str(copy / 'other'))
  assert not record_of(copy / 'other', 2)


def test_an_average_of_a_difference(copy):
  """It begins later and resumes; the average of a frozen array is its value."""
  config, run = make_config(copy, ema=0.9), copy / 'run'
  shutil.rmtree(run / 'checkpoints' / '4')
  loop.train(config, str(run), loop.Options(allow_config_change=True))
  state, record = state_of(run, config), record_of(run)
  mean, last = trainable.flatten(state.ema['params']), trainable.flatten(state.params)
  assert all(np.array_equal(mean[name], last[name]) for name in record['arrays'])
  assert not np.array_equal(mean['head/logit/kernel'], last['head/logit/kernel'])
  assert not trainable.flatten(opened(run)._stored(4)['ema']['params']).keys() & record['arrays']
  longer = make_config(copy, ema=0.9, steps=5)
  loop.train(longer, str(run), loop.Options(allow_config_change=True))
  assert np.isfinite(jax.tree.leaves(state_of(run, longer, 5).ema)[0]).all()


def test_a_model_that_differs_is_named(copy):
  config = make_config(copy)
  config.model.backbone.variant = 'mu'
  with pytest.raises(StateError, match='another model: streams_shared/.*: checkpoint .*, model '):
    state_of(copy / 'run', config)
  assert workdir.read_config(copy / 'run')['trainable'] == ['head']
