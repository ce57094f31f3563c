"""What must not break a run: killed, stopped, damaged, changed. All of it really done."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from flexfas_jax import progress
from flexfas_jax.errors import STOPPED, ConfigError, StateError, Stopped
from flexfas_jax.training import clock, devices, loop, metric_writer, setup
from flexfas_jax.training.checkpoints import Checkpoints
from flexfas_jax.training.tasks import AntiSpoofing
from tests.small_job import ROOT, STEPS, finish, losses, start, write_config


@pytest.fixture(scope='module')
def config(prepared, tmp_path_factory):
  return write_config(tmp_path_factory.mktemp('config') / 'small.py', prepared)


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  """Also in this process: less to compile."""
  monkeypatch.setattr(setup, 'find_devices', lambda: jax.devices()[:1])


def in_process(config, **more) -> ConfigDict:
  names = {}
  exec(config.read_text(), names)
  made = names['get_config']()
  made.update_from_flattened_dict(more)
  return made


def state_of(config, workdir):
  experiment = setup.build(in_process(config))
  return Checkpoints(workdir / 'checkpoints', 'eer', read_only=True).restore(
    STEPS, experiment.abstract
  )


def assert_as_if_nothing_had_happened(config, workdir, small_run):
  """Losses of every step, none twice, and all of the state, bit for bit."""
  assert losses(workdir) == losses(small_run)
  assert [r['step'] for r in rows(workdir)] == [r['step'] for r in rows(small_run)]
  states = [state_of(config, d) for d in (workdir, small_run)]
  assert len(jax.tree.leaves(states[0])) > 50
  jax.tree.map(np.testing.assert_array_equal, *states)


def all_rows(workdir):
  return list(map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines()))


def rows(workdir):
  """Without what is of one start alone."""
  return [row for row in all_rows(workdir) if 'status' not in row]


def wait_for(process, seen):
  while process.poll() is None and not seen():
    time.sleep(0.001)


def test_killed_within_a_save(config, small_run, tmp_path):
  workdir = tmp_path / 'killed'
  every = '--config.checkpoint_every=1'
  (process,) = start(config, workdir, 1, 1, '--mode=train', every)
  folder = workdir / 'checkpoints'
  wait_for(process, lambda: (folder / '2').exists() and list(folder.glob('*tmp*')))
  process.send_signal(signal.SIGKILL)
  ((code, _, said),) = finish([process])
  assert code == -signal.SIGKILL, said
  ((code, _, said),) = finish(start(config, workdir, 1, 1, '--mode=train', every))
  assert code == 0, said
  assert 'resuming at step ' in said
  assert 'training.lock was left by process ' in said
  assert not list(folder.glob('*tmp*'))
  assert_as_if_nothing_had_happened(config, workdir, small_run)


LONG = ('--mode=train', '--config.steps=100000')


def start_and_train(config, workdir, *more):
  """A long training, after its second step."""
  (process,) = start(config, workdir, 1, 1, *LONG, *more)
  metrics = workdir / 'metrics.jsonl'
  wait_for(process, lambda: metrics.exists() and '"step": 2,' in metrics.read_text())
  return process


def test_two_trainings_in_one_workdir(config, tmp_path):
  """The second ends with 4, names the first, and leaves it alone."""
  workdir = tmp_path / 'run'
  first = start_and_train(config, workdir)
  try:
    ((code, _, said),) = finish(start(config, workdir, 1, 1, *LONG))
    assert code == 4, said
    assert f'training.lock: process {first.pid} on ' in said and 'name another --workdir' in said
  finally:
    first.send_signal(signal.SIGTERM)
  ((code, _, said),) = finish([first])
  assert code == STOPPED, said
  assert not list(workdir.glob('*lock*'))


def test_a_workdir_that_is_deleted(config, tmp_path):
  workdir = tmp_path / 'run'
  process = start_and_train(config, workdir, '--config.checkpoint_every=50')
  while workdir.exists():
    shutil.rmtree(workdir, ignore_errors=True)
  ((code, _, said),) = finish([process])
  assert code == 4, said
  assert f'{workdir}/training.lock does not exist any more: it, or the workdir, was deleted' in said
  assert not workdir.exists()


def test_a_shard_that_is_cut_while_training(prepared, tmp_path):
  name = 'rendered_faces/surf_like_tiny'
  shutil.copytree(f'{prepared}/{name}', tmp_path / 'data' / name)
  (shard,) = (tmp_path / 'data' / name).glob('*/*train.array_record*')
  config = write_config(tmp_path / 'small.py', str(tmp_path / 'data'))
  process = start_and_train(config, tmp_path / 'run')
  os.truncate(shard, shard.stat().st_size // 2)
  ((code, _, said),) = finish([process])
  assert code == 3, said
  assert f'error: {shard} cannot be read any more' in said
  assert 'rerun the same command' in said


def test_a_disk_that_is_full_from_the_first_save_on(config, small_run, tmp_path):
  """Exit code 4; with space, the same command ends as if nothing had happened."""
  disk, kept = tmp_path / 'disk', tmp_path / 'kept'
  disk.mkdir()
  (process,) = start(config, disk / 'run', 1, 1, '--mode=train', '--config.save_tries=1')
  process.kill()
  finish([process])
  inside = (
    f'mount -t tmpfs -o size=500k x {disk} && {{ "$@"; echo "code $?" >&2; '
    f'mount -o remount,size=100m {disk}; "$@"; echo "code $?" >&2; cp -r {disk}/run {kept}; }}'
  )
  command = ['unshare', '-rm', 'sh', '-c', inside, 'sh']
  if not shutil.which('unshare') or subprocess.run(['unshare', '-rm', 'true']).returncode:
    pytest.skip('no disk of its own: unshare -rm and mount are not allowed here')
  ran = subprocess.run(
    [*command, *process.args],
    cwd=ROOT,
    env={**os.environ, 'XLA_FLAGS': one_device_flags()},
    capture_output=True,
    text=True,
  )
  first, second = ran.stderr.split('code 4\n')
  assert 'error: ' in first and 'No space left on device' in first
  assert second.endswith('code 0\n')
  assert_as_if_nothing_had_happened(config, kept, small_run)


def one_device_flags():
  return f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count=1'


def test_sigterm_within_an_epoch(config, small_run, tmp_path):
  """SIGTERM: saved at the end of the step, exit code 143, well within 30 s."""
  workdir = tmp_path / 'reported'
  (process,) = start(config, workdir, 1, 1, '--mode=train', '--config.checkpoint_every=100')
  metrics = workdir / 'metrics.jsonl'
  wait_for(process, lambda: metrics.exists() and '"step": 2,' in metrics.read_text())
  begun = time.monotonic()
  process.send_signal(signal.SIGTERM)
  ((code, _, said),) = finish([process])
  assert time.monotonic() - begun < 20
  assert code == STOPPED, said
  (saved,) = [int(f.name) for f in (workdir / 'checkpoints').iterdir()]
  assert 2 < saved < STEPS
  assert said.splitlines()[-1].startswith(f'stopped by SIGTERM after step {saved} of {STEPS}, ')
  ((code, _, said),) = finish(start(config, workdir, 1, 1, '--mode=train'))
  assert code == 0, said
  assert_as_if_nothing_had_happened(config, workdir, small_run)


def test_sigterm_while_val_is_scored(config, small_run, tmp_path, monkeypatch):
  """The step is saved at once, and evaluated when training resumes."""
  score = AntiSpoofing.val_metrics

  def reported(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    return score(*arguments)

  monkeypatch.setattr(AntiSpoofing, 'val_metrics', reported)
  with pytest.raises(Stopped, match=f'after step {STEPS} of {STEPS}'):
    loop.train(in_process(config), str(tmp_path / 'run'))
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
  assert not Checkpoints(tmp_path / 'run' / 'checkpoints', 'eer', read_only=True).has_metrics(STEPS)
  monkeypatch.setattr(AntiSpoofing, 'val_metrics', score)
  loop.train(in_process(config), str(tmp_path / 'run'))
  assert Checkpoints(tmp_path / 'run' / 'checkpoints', 'eer', read_only=True).has_metrics(STEPS)
  ((found,), (expected,)) = (
    [r for r in rows(d) if 'val/eer' in r] for d in (tmp_path / 'run', small_run)
  )
  assert found == pytest.approx(expected)


def test_a_model_that_computes_nan_is_no_result(config, small_run, tmp_path, monkeypatch):
  """The table is there, with the failures counted; the exit code is not 0."""
  workdir = pathlib.Path(shutil.copytree(small_run, tmp_path / 'run'))
  restore = Checkpoints.restore

  def broken(self, step, abstract):
    state = restore(self, step, abstract)
    state.params['head']['logit']['bias'] = state.params['head']['logit']['bias'] * np.nan
    return state

  monkeypatch.setattr(Checkpoints, 'restore', broken)
  with pytest.raises(StateError, match='val: rgb is nan for 36 samples .the first is id ') as error:
    loop.evaluate(in_process(config, **{'threshold.intra': 'fixed=0.5'}), str(workdir))
  assert error.value.exit_code == 4
  found = json.loads((workdir / 'results.json').read_text())['intra']['rgb']
  assert found['n_fta'] == found['n_bona_fide'] + found['n_attack'] > 0


def flip(step):
  file = max((f for f in step.rglob('*') if f.is_file()), key=lambda f: f.stat().st_size)
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 1
  file.write_bytes(data)


def test_a_damaged_newest_checkpoint(config, small_run, tmp_path):
  workdir = pathlib.Path(shutil.copytree(small_run, tmp_path / 'run'))
  flip(workdir / 'checkpoints' / str(STEPS))
  with pytest.raises(StateError, match='8 is damaged .* without --strict_restore'):
    loop.train(in_process(config), str(workdir), loop.Options(strict_restore=True))
  ((code, _, said),) = finish(start(config, workdir, 1, 1, '--mode=train'))
  assert code == 0, said
  assert 'WARNING: resuming from step 6 instead; moved 8 to' in said
  assert 'resuming at step 6' in said
  assert_as_if_nothing_had_happened(config, workdir, small_run)


def test_another_config_requires_allow_config_change(config, small_run, tmp_path, capsys):
  workdir = pathlib.Path(shutil.copytree(small_run, tmp_path / 'run'))
  changed = in_process(config, steps=STEPS + 2, **{'schedule.peak': 0.01})
  with pytest.raises(
    StateError, match='(?s)by --allow_config_change:.*peak: 0.001 in the workdir, 0.01 now'
  ):
    loop.train(changed, str(workdir))
  # Where and how it runs is nobody's business; this one ends at once.
  early = loop.Options(profile_steps=(2, 3))
  loop.train(in_process(config, log_every=7, save_tries=9), str(workdir), early)
  assert 'no profile: its last step, 3, is not after step 8' in capsys.readouterr().err
  options = loop.Options(allow_config_change=True, profile_steps=(9, 10))
  capsys.readouterr()
  loop.train(changed, str(workdir), options)
  said = capsys.readouterr().err
  assert f'WARNING: from step {STEPS} on, training continues with another config:' in said
  assert 'schedule.peak: 0.001 in the workdir, 0.01 now' in said
  assert 'data order reset' not in said
  # By hand: 0.01 (1 + cos(3 pi / 4)) / 2, at three quarters of the way from step 2 to 10.
  assert 'WARNING: the learning rate of step 9 is 0.001464; it was 0 by the config before' in said
  assert json.loads((workdir / 'config.before_step_8.json').read_text())['steps'] == STEPS
  assert json.loads((workdir / 'config.json').read_text())['steps'] == STEPS + 2
  positions = Checkpoints(workdir / 'checkpoints', 'eer', read_only=True)
  assert positions.position(STEPS + 2) == {'next_index': STEPS + 2}
  assert list((workdir / 'profile').rglob('*.xplane.pb'))

  changed.batch_size, changed.steps = 16, STEPS + 3
  loop.train(changed, str(workdir), loop.Options(allow_config_change=True))
  assert 'data order reset' in capsys.readouterr().err
  positions = Checkpoints(workdir / 'checkpoints', 'eer', read_only=True)
  assert positions.position(STEPS + 3) == {'next_index': 1}


def test_a_changed_config_is_written_with_its_first_checkpoint(
  config, small_run, tmp_path, monkeypatch
):
  """A crash before it leaves the config of the checkpoints that there are."""
  workdir = pathlib.Path(shutil.copytree(small_run, tmp_path / 'run'))
  changed = in_process(config, steps=STEPS + 2, checkpoint_every=1, **{'schedule.peak': 0.01})
  allow = loop.Options(allow_config_change=True)
  save, steps_at_saves = Checkpoints.save, []

  def written_steps():
    return json.loads((workdir / 'config.json').read_text())['steps']

  def crash(*_):
    raise RuntimeError('killed')

  monkeypatch.setattr(Checkpoints, 'save', crash)
  with pytest.raises(RuntimeError, match='killed'):
    loop.train(changed, str(workdir), allow)
  assert written_steps() == STEPS and not list(workdir.glob('config.before_step_*'))
  loop.train(in_process(config), str(workdir))  # the run resumes as it was
  with pytest.raises(StateError, match='by --allow_config_change'):
    loop.train(changed, str(workdir))

  def record(*args, **fields):
    steps_at_saves.append(written_steps())
    return save(*args, **fields)

  monkeypatch.setattr(Checkpoints, 'save', record)
  loop.train(changed, str(workdir), allow)
  assert steps_at_saves == [STEPS, STEPS + 2]
  assert json.loads((workdir / 'config.before_step_8.json').read_text())['steps'] == STEPS


@pytest.mark.parametrize('steps', [(0, 3), (5, 4), (8, 9)])
def test_a_profile_of_steps_that_there_are_not(config, tmp_path, steps):
  with pytest.raises(ConfigError, match='not within the steps 1 to 8'):
    loop.train(in_process(config), str(tmp_path / 'run'), loop.Options(profile_steps=steps))


def test_a_run_says_where_its_time_went(small_run):
  last = rows(small_run)[-1]
  assert last['step'] == STEPS
  parts = [last[f'time/{name}'] for name in ('compile', 'input', 'save', 'evaluate', 'steps')]
  assert all(seconds > 0 for seconds in parts)
  assert sum(parts) == pytest.approx(last['time/total'])
  step = rows(small_run)[2]
  watched = ('triplets_per_second', 'step_seconds', 'input_wait', 'save_seconds')
  assert {f'speed/{name}' for name in watched} | {'memory/host_gb'} <= step.keys()
  assert 0.1 < step['memory/host_gb'] < 10


def test_rows_outlive_a_full_disk(tmp_path):
  said = []
  writer = metric_writer.MetricWriter(tmp_path, 0, said.append)
  writer.write(1, {'a': 1.0})
  disk = writer._file
  with open('/dev/full', 'ab', buffering=0) as writer._file:
    writer.write(2, {'a': 2.0})
    writer.write(3, {'a': float('nan')})
  assert len(said) == 1
  assert 'No space left on device' in said[0]
  writer._file = disk
  writer.write(4, {'a': 4.0})
  writer.close()
  found = [(row['step'], row['a']) for row in rows(tmp_path)]
  assert found == [(1, 1.0), (2, 2.0), (3, None), (4, 4.0)]


def test_no_duration_depends_on_the_date(monkeypatch):
  """A machine's clock jumps when it is set."""

  def jumped():
    raise AssertionError('the date was asked for')

  for module in (clock, progress):
    monkeypatch.setattr(module.time, 'time', jumped)
  measured = clock.Clock()
  with measured.measure('input'):
    pass
  assert measured.lap()[1]['input'] >= 0
  progress.Progress('train', 10).update(10)


def test_what_a_step_hides_was_not_waited_for():
  """Input that comes while the last step still runs costs nothing; input after it does."""
  measured = clock.Clock()
  for going_on in (True, False):
    with measured.measure('input', hidden=lambda: going_on):  # noqa: B023
      time.sleep(0.02)
    assert (measured.lap()[1]['input'] >= 0.02) != going_on
  assert measured.total()[1]['input'] < measured.total()[0] - 0.02
  fast, slow = jnp.ones(()), jax.jit(lambda x: jax.lax.fori_loop(0, 3000, lambda _, y: y @ x, x))
  slow = slow.lower(jnp.eye(200)).compile()
  assert not loop._is_running({}) and not loop._is_running({'loss': fast})
  found = slow(jnp.eye(200))
  assert loop._is_running({'loss': fast, 'grad_norm': found})
  jax.block_until_ready(found)
  assert not loop._is_running({'grad_norm': found})


def test_an_accelerator_that_is_not_used_is_reported(tmp_path, monkeypatch):
  (tmp_path / 'nvidia0').touch()
  assert devices.find_devices()
  monkeypatch.delenv('JAX_PLATFORMS')
  assert devices.find_devices([str(tmp_path / 'nothing')])
  with pytest.raises(ConfigError, match='accelerator .*nvidia0.*JAX sees only the CPU'):
    devices.find_devices([str(tmp_path / 'nvidia0')])


def test_an_accelerator_that_is_not_there_is_reported(config, tmp_path):
  command = [sys.executable, '-m', 'flexfas_jax.main', f'--config={config}']
  found = subprocess.run(
    [*command, f'--workdir={tmp_path}/run'],
    cwd=ROOT,
    env={**os.environ, 'JAX_PLATFORMS': 'cuda'},
    capture_output=True,
    text=True,
  )
  assert found.returncode == 2, found.stderr
  assert 'JAX_PLATFORMS=cuda: ' in found.stderr
  assert "pip install 'flexfas_jax[cuda]'" in found.stderr
  assert 'Traceback' not in found.stderr


def test_double_precision_is_refused(config, tmp_path, monkeypatch):
  monkeypatch.setenv('JAX_ENABLE_X64', '1')
  ((code, _, said),) = finish(start(config, tmp_path / 'run', 1, 1))
  assert code == 2, said
  assert 'error: environment: JAX_ENABLE_X64 is set' in said
  assert 'Traceback' not in said
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  'name,value,message',
  [
    ('jax_default_prng_impl', 'rbg', 'JAX_DEFAULT_PRNG_IMPL is rbg: initial weights and dropout'),
    ('jax_threefry_partitionable', False, 'JAX_THREEFRY_PARTITIONABLE is False: initial weights'),
  ],
)
def test_other_random_numbers_are_refused(config, name, value, message):
  before = getattr(jax.config, name)
  jax.config.update(name, value)
  try:
    with pytest.raises(ConfigError, match=f'environment: {message}'):
      setup.build(in_process(config))
  finally:
    jax.config.update(name, before)


def test_compiling_is_shown_while_it_goes_on(config, tmp_path, monkeypatch, capsys):
  compile_step, seen = loop._compile_step, []

  def look(experiment):
    (events,) = (tmp_path / 'run' / 'tensorboard').iterdir()
    last = all_rows(tmp_path / 'run')[-1]
    seen.append((last, b'compiling the training step' in events.read_bytes()))
    seen.append(capsys.readouterr().err.splitlines()[-1])
    return compile_step(experiment)

  monkeypatch.setattr(loop, '_compile_step', look)
  loop.train(in_process(config, steps=4, checkpoint_every=2), str(tmp_path / 'run'))
  assert seen == [
    ({'step': 0, 'status': 'compiling the training step'}, True),
    'compiling the training step ...',
  ]
  monkeypatch.setattr(loop, '_compile_step', compile_step)
  loop.train(
    in_process(config, steps=6), str(tmp_path / 'run'), loop.Options(allow_config_change=True)
  )
  statuses = [(r['step'], r['status']) for r in all_rows(tmp_path / 'run') if 'status' in r]
  # Those of the first start are gone.
  assert statuses == [(4, 'compiling the training step'), (6, 'compiling the evaluation')]
