"""Workdir and data at gs://, on a server that speaks Cloud Storage's JSON API on 127.0.0.1."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip('gcsfs')

from experiments.reliability.bucket_server import BucketServer
from tests.small_job import ROOT, finish, losses, start, write_config

SET = 'rendered_faces/surf_like_tiny'
WORKDIR = 'gs://bucket/runs'


@pytest.fixture
def server(monkeypatch, prepared):
  """A bucket with the prepared sets, which the processes of a test use."""
  with BucketServer() as server:
    server.upload(pathlib.Path(prepared) / SET, f'prepared/{SET}')
    for name, value in server.environment.items():
      monkeypatch.setenv(name, value)
    yield server


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  """Reads its data from the bucket."""
  return write_config(tmp_path_factory.mktemp('config') / 'small.py', 'gs://bucket/prepared')


@pytest.fixture(scope='module')
def local(prepared, tmp_path_factory):
  """The workdir of the same run, with workdir and data on the disk."""
  folder = tmp_path_factory.mktemp('local')
  ((code, _, said),) = finish(
    start(write_config(folder / 'small.py', prepared), folder / 'run', 1, 1)
  )
  assert code == 0, said
  return folder / 'run'


def assert_equal_runs(server, name, local, tmp_path):
  """Losses, weights, scores and results, bit for bit; returns the copy of the run."""
  copy = tmp_path / f'copy_of_{name}'
  server.download(f'runs/{name}', copy)
  assert losses(copy) == losses(local)
  rows, expected = (
    [json.loads(line) for line in (d / 'metrics.jsonl').read_text().splitlines()]
    for d in (copy, local)
  )
  assert [row['step'] for row in rows] == [row['step'] for row in expected]
  for file in ('scores/val.csv', 'scores/intra.csv', 'results.json'):
    assert (copy / file).read_bytes() == (local / file).read_bytes(), file
  hashes = [json.loads((d / 'scores/val.json').read_text())['weights_hash'] for d in (copy, local)]
  assert hashes[0] == hashes[1]
  return copy


def test_training_and_evaluation_equal_the_local_run(server, config, local, tmp_path):
  """Also where the bucket answers some requests with 429 and 503."""
  refused = []

  def sometimes(method, path):
    if len(server.requests) % 17 == 0 and 'upload_id' not in path:
      refused.append((method, path))
      return (429, 503)[len(refused) % 2]
    return None

  server.fault = sometimes
  ((code, out, said),) = finish(start(config, f'{WORKDIR}/run', 1, 1))
  assert code == 0, said
  assert len(refused) > 10
  assert f'Written: {WORKDIR}/run/results.json, {WORKDIR}/run/scores/' in out
  copy = assert_equal_runs(server, 'run', local, tmp_path)
  # The digests of objects hold for a copy on the disk.
  server.fault = lambda method, path: None
  own = write_config(tmp_path / 'small.py', 'gs://bucket/prepared')
  ((code, _, said),) = finish(start(own, copy, 1, 1, '--mode=evaluate'))
  assert code == 0, said


def test_killed_within_a_save(server, config, local, tmp_path):
  every = '--config.checkpoint_every=1'
  (process,) = start(config, f'{WORKDIR}/killed', 1, 1, every)
  begun, complete = set(), set()
  while process.poll() is None and not (complete and max(begun) > max(complete)):
    begun, complete = server.steps('runs/killed')
    time.sleep(0.001)
  process.send_signal(signal.SIGKILL)
  ((code, _, said),) = finish([process])
  assert code == -signal.SIGKILL, said
  ((code, _, said),) = finish(start(config, f'{WORKDIR}/killed', 1, 1, every))
  assert code == 0, said
  assert 'resuming at step ' in said and 'damaged' not in said
  begun, complete = server.steps('runs/killed')
  assert begun == complete
  assert_equal_runs(server, 'killed', local, tmp_path)


def test_two_processes(server, config, local, tmp_path):
  finished = finish(start(config, f'{WORKDIR}/two', 2, 1))
  assert [code for code, _, _ in finished] == [0, 0], finished
  copy = tmp_path / 'copy'
  server.download('runs/two', copy)
  assert losses(copy) == pytest.approx(losses(local), rel=1e-5)
  ids = [(d / 'scores/val.csv').read_text().count('\n') for d in (copy, local)]
  assert ids[0] == ids[1]


def run(config, *flags, seconds=60.0):
  """The main command in one process: (exit code, stderr, seconds)."""
  command = [sys.executable, '-m', 'flexfas_jax.main', f'--config={config}', *flags]
  begun = time.monotonic()
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
  return done.returncode, done.stderr, time.monotonic() - begun


def test_what_is_denied_is_named_at_once(server, config, tmp_path, prepared):
  server.fault = lambda method, path: 403
  code, said, seconds = run(config, f'--workdir={WORKDIR}/run')
  assert code == 2 and '2 problems' in said  # both are denied
  assert said.count('permission denied (403') == 2
  code, said, _ = run(config, f'--workdir={tmp_path / "run"}')
  assert code == 3, said
  assert 'config.data_dir = gs://bucket/prepared: permission denied (403' in said
  assert not (tmp_path / 'run').exists()
  own = write_config(tmp_path / 'local_data.py', prepared)
  code, said, seconds = run(own, f'--workdir={WORKDIR}/run')
  assert code == 4, said
  assert f'--workdir = {WORKDIR}/run: permission denied (403' in said
  assert 'grant roles/storage.objectUser' in said
  assert seconds < 20


def test_what_does_not_answer_is_named(server, config, tmp_path):
  server.vanish()
  code, said, seconds = run(config, f'--workdir={tmp_path / "run"}')
  assert code == 3, said
  assert 'config.data_dir = gs://bucket/prepared: the bucket bucket cannot be reached' in said
  assert seconds < 45
