"""A moving average of the weights: resumed, scored, exported; and runs without one."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from flexfas_jax.errors import StateError, Stopped
from flexfas_jax.export import trained_model
from flexfas_jax.training import digests, loop, setup, sharding
from flexfas_jax.training.checkpoints import Checkpoints
from flexfas_jax.training.preemption import Preemption
from tests.small_job import STEPS, write_config


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  monkeypatch.setattr(setup, 'find_devices', lambda: jax.devices()[:1])


@pytest.fixture(scope='module')
def config(prepared, tmp_path_factory):
  return write_config(tmp_path_factory.mktemp('config') / 'small.py', prepared)


def make_config(file, **more) -> ConfigDict:
  names = {}
  exec(file.read_text(), names)
  made = names['get_config']()
  made.update_from_flattened_dict(more)
  return made


@pytest.fixture(scope='module')
def averaged(config, tmp_path_factory):
  """The workdir of an uninterrupted run with an average."""
  workdir = tmp_path_factory.mktemp('runs') / 'averaged'
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(setup, 'find_devices', lambda: jax.devices()[:1])
    loop.train_and_evaluate(make_config(config, ema=0.9, eval_every=4), str(workdir))
  return workdir


def checkpoints(workdir):
  return Checkpoints(workdir / 'checkpoints', 'eer', read_only=True)


def rows(workdir):
  return list(map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines()))


def state_of(workdir, config, step, ema):
  experiment = setup.build(make_config(config, ema=ema))
  return checkpoints(workdir).restore(step, experiment.abstract)


def test_a_resumed_run_has_the_same_average(config, averaged, tmp_path, monkeypatch):
  workdir = tmp_path / 'stopped'
  reached, calls = Preemption.reached, []

  def stop_at_three(self):
    calls.append(1)
    return len(calls) >= 3 or reached(self)

  monkeypatch.setattr(Preemption, 'reached', stop_at_three)
  with pytest.raises(Stopped, match='after step 3 of 8'):
    loop.train(make_config(config, ema=0.9, eval_every=4), str(workdir))
  monkeypatch.setattr(Preemption, 'reached', reached)
  loop.train(make_config(config, ema=0.9, eval_every=4), str(workdir))
  states = [state_of(d, config, STEPS, 0.9) for d in (workdir, averaged)]
  jax.tree.map(np.testing.assert_array_equal, *states)
  kernel = [states[0].ema['params'], states[0].params]
  kernel = [np.asarray(params['head']['logit']['kernel']) for params in kernel]
  assert not np.array_equal(*kernel)
  metrics = [[row for row in rows(d) if 'val/eer' in row] for d in (workdir, averaged)]
  assert metrics[0] == metrics[1] and len(metrics[0]) == 2


def test_the_average_is_scored_exported_and_passed_on(config, averaged):
  """Not the last weights: by the hash of the score files, in the bundle, as initial weights."""
  header = json.loads((averaged / 'scores' / 'intra.json').read_text())
  state = state_of(averaged, config, header['step'], 0.9)
  mean = digests.hash_weights(state.ema)
  assert header['weights_hash'] == mean != digests.hash_weights(setup.model_variables(state))
  exported = trained_model.restore(make_config(config, ema=0.9, eval_every=4), averaged)
  assert exported.weights_hash == mean
  jax.tree.map(np.testing.assert_array_equal, exported.variables, jax.device_get(state.ema))
  place = sharding.replicated(setup.build(make_config(config)).mesh)
  passed_on = checkpoints(averaged).restore_variables(header['step'], place)
  assert digests.hash_weights(passed_on) == mean


def test_val_is_scored_with_the_average(config, averaged):
  """Its metric in the log is that of the averaged weights, computed again."""
  run = loop._prepare(make_config(config, ema=0.9, eval_every=4), str(averaged), loop.DEFAULTS)
  state = state_of(averaged, config, STEPS, 0.9)
  found, plain = (
    run.task.val_metrics(run.experiment, run.scorer, variables, run.data.val)
    for variables in (state.ema, setup.model_variables(state))
  )
  (logged,) = (row for row in rows(averaged) if 'val/auc' in row and row['step'] == STEPS)
  assert {name: logged[name] for name in found} == pytest.approx(found)
  assert found['val/auc'] != plain['val/auc']


def test_an_average_that_begins_later_starts_from_the_weights(config, averaged, tmp_path, capsys):
  """And one that is no longer wanted is left out; both only with --allow_config_change."""
  options = loop.Options(allow_config_change=True)
  run = tmp_path / 'run'
  loop.train(make_config(config, steps=3), str(run))
  before = setup.model_variables(state_of(run, config, 3, 0.0))
  jax.tree.map(np.testing.assert_array_equal, state_of(run, config, 3, 0.9).ema, before)
  with pytest.raises(StateError, match='ema: 0.0 in the workdir, 0.9 now'):
    loop.train(make_config(config, steps=4, ema=0.9), str(run))
  capsys.readouterr()
  loop.train(make_config(config, steps=4, ema=0.9), str(run), options)
  assert 'the average of the weights (config.ema) starts from those of step 3' in (
    capsys.readouterr().err
  )
  state = state_of(run, config, 4, 0.9)
  # By hand: the weight of the last step is 0.1 / (1 - 0.9^4).
  jax.tree.map(
    lambda mean, x, old: np.testing.assert_allclose(mean, old + (x - old) * 0.29078, atol=1e-5),
    state.ema,
    setup.model_variables(state),
    before,
  )
  loop.train(make_config(config, steps=5), str(run), options)
  assert 'the average of the weights until step 4 is left out' in capsys.readouterr().err
  stored = checkpoints(run)._manager.item_metadata(5)['state']
  assert 'ema' not in getattr(stored, 'tree', stored)


def test_a_run_without_an_average_is_as_before(config, averaged, tmp_path):
  """Its checkpoints have no entry for one; a config of an earlier version still opens it."""
  loop.train(make_config(config, steps=3), str(tmp_path / 'run'))
  stored = checkpoints(tmp_path / 'run')._manager.item_metadata(3)['state']
  assert set(getattr(stored, 'tree', stored)) == {'step', 'params', 'batch_stats', 'opt_state'}
  file = tmp_path / 'run' / 'config.json'
  fields = json.loads(file.read_text())
  assert fields.pop('ema') == 0.0
  file.write_text(json.dumps(fields))
  loop.evaluate(make_config(config, steps=3), str(tmp_path / 'run'))
  older = make_config(config, steps=3)
  with older.unlocked():
    del older.ema
  loop.evaluate(older, str(tmp_path / 'run'))
  copy = pathlib.Path(shutil.copytree(averaged, tmp_path / 'copy'))
  assert loop.workdir.changed_fields(copy, older.to_dict())[0] == (
    'ema: 0.9 in the workdir, 0.0 now'
  )
