"""Several processes, really started, equal one; what cannot be joined is an error."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from flexfas_jax.errors import STOPPED, ConfigError
from flexfas_jax.evaluation import score_files
from flexfas_jax.training import distributed

ROOT = pathlib.Path(__file__).parents[2]
# Small to compile: two sensors, concatenated. Neither val (28 samples) nor the test is divided by
# the batch, and of the last batch some processes have padding alone.
CONFIG = """
from ml_collections import ConfigDict
from configs import vit_fusion

def get_config():
  c = vit_fusion.get_config()
  c.data_dir = {data_dir!r}
  c.train = 'rendered_faces/surf_like_tiny:train'
  c.val = 'rendered_faces/surf_like_tiny:val'
  c.test = ConfigDict({{'intra': 'rendered_faces/surf_like_tiny:test'}})
  c.threshold = ConfigDict({{'intra': 'dev_eer'}})
  c.photometric = ConfigDict()
  c.model = ConfigDict({{'modalities': ('rgb', 'ir'), 'image_size': 16}})
  c.model.backbone = ConfigDict({{'name': 'vit', 'variant': 'mu', 'patch_size': 8}})
  c.model.fusion = ConfigDict({{'name': 'concat'}})
  c.model.head = ConfigDict({{'name': 'binary_logit', 'dropout': 0.1}})
  c.modality_dropout = ConfigDict({{'ir': 0.5}})
  c.schedule.warmup = 2
  c.batch_size, c.eval_batch_size, c.steps = 8, 24, 8
  c.eval_every, c.checkpoint_every, c.log_every = 8, 2, 1
  return c
"""


@pytest.fixture(scope='module')
def config(prepared, tmp_path_factory):
  path = tmp_path_factory.mktemp('config') / 'small.py'
  path.write_text(CONFIG.format(data_dir=prepared))
  return path


def start(config, workdir, processes, devices, *more):
  """The main job in so many processes of so many devices each."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  xla = '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
  environment = {
    **os.environ,
    'XLA_FLAGS': f'{xla} --xla_force_host_platform_device_count={devices}',
  }
  started = []
  for i in range(processes):
    command = [sys.executable, '-m', 'flexfas_jax.main', f'--config={config}']
    command += [f'--workdir={workdir}', *more]
    if processes > 1:
      command += ['--distributed', f'--coordinator=localhost:{port}', f'--process_id={i}']
      command += [f'--num_processes={processes}']
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}
    started.append(subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes))
  return started


def finish(started):
  """[(exit code, stdout, stderr)]."""
  said = [process.communicate(timeout=300) for process in started]
  return [(process.returncode, *text) for process, text in zip(started, said, strict=True)]


def losses(workdir):
  rows = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return {row['step']: row['train/loss'] for row in rows if 'train/loss' in row}


def assert_same(workdir, expected):
  """Losses, every score, and what is made of them; each id once."""
  found, wanted = losses(workdir), losses(expected)
  assert list(found) == list(wanted) == list(range(1, 9))
  np.testing.assert_allclose(list(found.values()), list(wanted.values()), rtol=1e-5)
  for name in ('val', 'intra'):
    a, b = (score_files.read(d / 'scores' / f'{name}.csv') for d in (workdir, expected))
    assert a.ids.tolist() == b.ids.tolist()
    assert len(set(a.ids)) == len(a.ids) > 24
    for subset in ('rgb', 'ir', 'rgb+ir'):
      # Sums over devices in another order; eight updates by Adam make it more.
      np.testing.assert_allclose(a.scores[subset], b.scores[subset], atol=1e-4)
  a, b = (json.loads((d / 'results.json').read_text()) for d in (workdir, expected))
  assert a['intra'].keys() == b['intra'].keys() == {'rgb', 'ir', 'rgb+ir'}
  assert a['intra']['rgb+ir']['auc'] == pytest.approx(b['intra']['rgb+ir']['auc'], abs=0.02)


@pytest.fixture(scope='module')
def alone(config, tmp_path_factory):
  """The workdir of one process with eight devices."""
  workdir = tmp_path_factory.mktemp('runs') / 'alone'
  ((code, _, said),) = finish(start(config, workdir, 1, 8))
  assert code == 0, said
  return workdir


def test_four_processes_equal_one(config, alone, tmp_path):
  found = finish(start(config, tmp_path / 'four', 4, 2))
  assert [code for code, _, _ in found] == [0] * 4, found[0][2]
  assert_same(tmp_path / 'four', alone)
  assert 'intra: rendered_faces/' in found[0][1]
  assert '8 x cpu in 4 processes' in found[0][2]
  for _, printed, said in found[1:]:
    assert 'intra' not in printed  # (Gloo greets)
    assert 'train ' not in said and 'val eer' not in said


def test_two_processes_are_stopped_and_one_goes_on(config, alone, tmp_path):
  """SIGTERM to one stops both at one step; then other processes, other devices, and what was cut
  over two devices is copied on all."""
  workdir = tmp_path / 'two'
  started = start(config, workdir, 2, 2, '--config.mesh.fsdp=2')
  metrics = workdir / 'metrics.jsonl'
  while started[1].poll() is None and not (
    metrics.exists() and '"step": 2,' in metrics.read_text()
  ):
    time.sleep(0.01)
  started[1].send_signal(signal.SIGTERM)
  found = finish(started)
  assert [code for code, _, _ in found] == [STOPPED] * 2, found
  saved = max(int(f.name) for f in (workdir / 'checkpoints').iterdir())
  assert f'stopped by SIGTERM after step {saved} of 8' in found[0][2]
  assert 2 <= saved < 8
  ((code, _, said),) = finish(start(config, workdir, 1, 8))
  assert code == 0, said
  assert f'resuming at step {saved}' in said
  assert_same(workdir, alone)


def test_who_cannot_be_joined_is_an_error(config, tmp_path):
  """Never a process by itself."""
  (lonely,) = start(config, tmp_path / 'run', 1, 1, '--distributed')
  alone = ['--coordinator=localhost:1', '--num_processes=2', '--process_id=1']
  (late,) = start(config, tmp_path / 'run', 1, 1, '--distributed', *alone, '--connect_seconds=2')
  for code, _, said in finish([lonely, late]):
    assert code == 2, said
    assert 'the processes cannot be joined' in said
    assert '--coordinator=HOST:PORT' in said
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  'said',
  [
    {'SLURM_STEP_NUM_TASKS': '2'},
    {'OMPI_COMM_WORLD_SIZE': '4'},
    {'TPU_WORKER_HOSTNAMES': 'a,b'},
    {'JAX_NUM_PROCESSES': '2'},
  ],
)
def test_one_of_several_says_so(said):
  with pytest.raises(
    ConfigError, match=f'{next(iter(said))} says .* start them with --distributed'
  ):
    distributed.refuse_to_be_alone(said)
  one = {'SLURM_STEP_NUM_TASKS': '1', 'TPU_WORKER_HOSTNAMES': 'localhost'}
  distributed.refuse_to_be_alone(one)
  distributed.refuse_to_be_alone({})


def test_a_coordinator_is_host_and_port():
  with pytest.raises(ConfigError, match='--coordinator=here is not host:port'):
    distributed.start('here', 2, 0)


def test_one_process_is_the_simplest_case():
  assert distributed.is_first()
  assert distributed.anywhere(True)
  assert not distributed.anywhere(False)
  assert distributed.total([1, 2]).tolist() == [1, 2]
  assert distributed.from_first('what') == 'what'
