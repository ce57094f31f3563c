"""Workdir and data at gs://, on a server that speaks Cloud Storage's JSON API on 127.0.0.1."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip('gcsfs')

from experiments.reliability.bucket_server import BucketServer
from flexfas_jax import bucket, compare, main
from flexfas_jax.errors import ConfigError, DataError, StateError, TemporaryError
from flexfas_jax.input_pipeline import sources
from flexfas_jax.training import digests, lock, remote_workdir, workdir
from flexfas_jax.training.checkpoints import Checkpoints, quarantine_corrupt
from tests.evaluation.leaderboard_test import write_run
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
    bucket._client.cache_clear()
    yield server
    bucket._client.cache_clear()


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  """Reads its data from the bucket."""
  return write_config(tmp_path_factory.mktemp('config') / 'small.py', 'gs://bucket/prepared')


def steps_with_losses(folder):
  """With repetitions, of which there must be none."""
  rows = map(json.loads, (folder / 'metrics.jsonl').read_text().splitlines())
  return [row['step'] for row in rows if 'train/loss' in row]


def assert_equal_runs(server, name, small_run, tmp_path):
  """Losses, weights, scores and results, bit for bit; returns the copy of the run."""
  copy = tmp_path / f'copy_of_{name}'
  server.download(f'runs/{name}', copy)
  assert losses(copy) == losses(small_run)
  assert steps_with_losses(copy) == steps_with_losses(small_run)
  for file in ('scores/val.csv', 'scores/intra.csv', 'results.json'):
    assert (copy / file).read_bytes() == (small_run / file).read_bytes(), file
  headers = [json.loads((d / 'scores/val.json').read_text()) for d in (copy, small_run)]
  assert headers[0]['weights_hash'] == headers[1]['weights_hash']
  return copy


def test_runs_are_compared_in_the_bucket(server, tmp_path, capsys):
  """As their local copies; checkpoints stay in the bucket."""
  folders = []
  for name, skill in (('ours', 1.6), ('base', 0.5)):
    folders.append(write_run(tmp_path / name, 1, skill))
    (folders[-1] / 'checkpoints').mkdir()
    (folders[-1] / 'checkpoints' / 'array').write_bytes(b'x')
    server.upload(folders[-1], f'runs/{name}')
  assert compare.main([*map(str, folders), '--bootstrap=50']) == 0
  expected = capsys.readouterr().out
  server.requests.clear()
  assert compare.main([f'{WORKDIR}/ours', f'{WORKDIR}/base/', '--bootstrap=50']) == 0
  assert capsys.readouterr().out == expected
  assert not [path for _, path in server.requests if 'array' in path and 'alt=media' in path]
  one = [f'{WORKDIR}/ours', f'{WORKDIR}/base', '--bootstrap=50', f'--name=the one={WORKDIR}/ours*']
  assert compare.main(one) == 0 and 'the one' in capsys.readouterr().out
  for run, code, message in (
    (f'{WORKDIR}/none', 4, 'gs://bucket/runs/none holds no files of a run'),
    ('s3://bucket/runs/ours', 2, 's3:// is not supported; give a local path or gs://'),
  ):
    assert compare.main([run, '--bootstrap=50']) == code
    assert message in capsys.readouterr().err


def test_killed_within_a_save(server, config, small_run, tmp_path):
  """Training and evaluation equal the local run, also where the bucket refuses some requests."""
  refused = []

  def sometimes(method, path):
    if len(server.requests) % 131 == 0 and 'upload_id' not in path:
      refused.append((method, path))
      return (429, 503)[len(refused) % 2]
    return None

  server.fault = sometimes
  (process,) = start(config, f'{WORKDIR}/killed', 1, 1)
  begun, complete = set(), set()
  while process.poll() is None and not (complete and max(begun) > max(complete)):
    begun, complete = server.steps('runs/killed')
    time.sleep(0.001)
  process.send_signal(signal.SIGKILL)
  ((code, _, said),) = finish([process])
  assert code == -signal.SIGKILL, said
  ((code, out, said),) = finish(start(config, f'{WORKDIR}/killed', 1, 1))
  assert code == 0, said
  assert 'resuming at step ' in said and 'damaged' not in said
  assert len(refused) > 1
  assert f'Written: {WORKDIR}/killed/results.json, {WORKDIR}/killed/scores/' in out
  # Nothing is sent once the lock is released.
  released = max(i for i, (m, path) in enumerate(server.requests) if lock.FILE in path)
  assert server.requests[released][0] == 'DELETE'
  assert {method for method, _ in server.requests[released + 1 :]} <= {'GET'}
  begun, complete = server.steps('runs/killed')
  assert begun == complete
  copy = assert_equal_runs(server, 'killed', small_run, tmp_path)
  # The digests of objects hold for a copy on the disk.
  steps = sorted((copy / 'checkpoints').iterdir())
  assert steps and not any(map(digests.find_damage, steps))


def test_two_processes(server, config, small_run, tmp_path):
  finished = finish(start(config, f'{WORKDIR}/two', 2, 1))
  assert [code for code, _, _ in finished] == [0, 0], finished
  copy = tmp_path / 'copy'
  server.download('runs/two', copy)
  assert losses(copy) == pytest.approx(losses(small_run), rel=1e-5)
  ids = [(d / 'scores/val.csv').read_text().count('\n') for d in (copy, small_run)]
  assert ids[0] == ids[1]


def test_what_is_denied_is_named_at_once(server, prepared, tmp_path):
  server.fault = lambda method, path: 403
  denied = r'gs://bucket/{}: permission denied \(403 .*grant roles/storage.objectUser'
  with pytest.raises(StateError, match='--workdir = ' + denied.format('runs/run')):
    remote_workdir.check('gs://bucket/runs/run', prepared)
  with pytest.raises(DataError, match='config.data_dir = ' + denied.format('prepared')):
    remote_workdir.check(str(tmp_path), 'gs://bucket/prepared')
  with pytest.raises(ConfigError, match='2 problems'):
    remote_workdir.check('gs://bucket/runs/run', 'gs://bucket/prepared')
  assert len(server.requests) == 4  # none was repeated


def test_what_is_not_there_is_named(server, prepared):
  with pytest.raises(StateError, match='gs://other/run: there is no bucket other'):
    remote_workdir.check('gs://other/run', prepared)
  wrong = ('s3://bucket/run', 's3:/bucket/run', 'gs://bucket', 'gs:///run', 'gs://bucket/../run')
  for url in (*wrong, 'gs:/bucket/run', 'gs:bucket/run', 'GS://bucket/run'):
    with pytest.raises(ConfigError, match=f'--workdir = {url}: .*gs://BUCKET/FOLDER'):
      remote_workdir.check(url, prepared)
  with pytest.raises(ConfigError, match='config.data_dir = s3://b/x: s3:// is not supported'):
    remote_workdir.check('runs/run', 's3://b/x')


def test_a_set_that_is_not_in_the_bucket(server):
  with pytest.raises(DataError, match='not prepared in .gs://bucket/none') as error:
    sources.is_prepared(f'{SET}:train', 'gs://bucket/none')
  copy = f'gcloud storage cp -r prepared/{SET} gs://bucket/none/rendered_faces/'
  assert str(error.value).endswith(copy)


def test_what_does_not_answer_is_named(server, monkeypatch, tmp_path):
  monkeypatch.setattr(bucket, 'START_SECONDS', 1.0)
  server.fault = lambda method, path: 503
  with pytest.raises(TemporaryError, match=r'data_dir = gs://bucket/prepared: .*reached \(503'):
    remote_workdir.check(str(tmp_path), 'gs://bucket/prepared')
  server.vanish()
  data = 'config.data_dir = gs://bucket/prepared: the bucket bucket cannot be reached'
  with pytest.raises(TemporaryError, match=data):
    remote_workdir.check(str(tmp_path), 'gs://bucket/prepared')
  with pytest.raises(TemporaryError, match='--workdir = gs://bucket/run: .* cannot be reached'):
    remote_workdir.check('gs://bucket/run')


def test_an_outage_is_not_taken_for_damage(server, monkeypatch):
  """Errors of the libraries that read records and checkpoints do not distinguish them."""
  source = sources.open_source(f'{SET}:val', 'gs://bucket/prepared', check=False)
  server.put('runs/run/checkpoints/2/commit_success.txt', b'x')
  saved = Checkpoints(f'{WORKDIR}/run/checkpoints', 'eer', read_only=True)
  monkeypatch.setattr(bucket, 'START_SECONDS', 1.0)
  server.fault = lambda method, path: 503 if 'prettyPrint' in path else 404
  with pytest.raises(TemporaryError, match=r'data_dir = gs://bucket/prepared/.*reached \(503'):
    source[0]
  with pytest.raises(TemporaryError, match=r'run/checkpoints: .*reached \(503'):
    saved.restore(2, {})


def test_a_bucket_that_vanishes_ends_the_run(server, prepared, tmp_path):
  """Within the time that it is given: other libraries retry for a quarter of an hour."""
  config = write_config(tmp_path / 'small.py', prepared)
  program = 'from flexfas_jax import bucket, main\nbucket.PATIENCE_SECONDS = 3.0\nmain.main()'
  flags = [f'--config={config}', f'--workdir={WORKDIR}/run']
  process = subprocess.Popen(
    [sys.executable, '-c', program, *flags], cwd=ROOT, stderr=subprocess.PIPE, text=True
  )
  while process.poll() is None and not server.steps('runs/run')[1]:
    time.sleep(0.01)
  server.vanish()
  _, said = process.communicate(timeout=120)
  assert process.returncode == 75, said  # temporary: launchers start it again
  assert f'{WORKDIR}/run' in said and 'the bucket bucket cannot be reached' in said


def test_a_bucket_that_denies_while_it_is_used(server, monkeypatch):
  monkeypatch.setattr(bucket, 'PATIENCE_SECONDS', 0.3)
  stopped, said = threading.Event(), []

  def stop(message, code):
    said.append((message, code))
    stopped.set()

  use = ('gs://bucket/prepared', 'config.data_dir = gs://bucket/prepared', DataError)
  with bucket.watch([use], stop):
    assert not stopped.wait(0.5)  # it answers
    server.fault = lambda method, path: 403
    assert stopped.wait(20)
  message, code = said[0]
  assert code == 3 and message.startswith(
    'config.data_dir = gs://bucket/prepared: permission denied'
  )


# Prints what stopped it; asks the bucket every 0.2 s.
WATCHES = """
import time
from flexfas_jax import bucket
from flexfas_jax.errors import DataError

bucket.PATIENCE_SECONDS = 0.6
def stop(message, code):
  print(code, message, flush=True)
with bucket.watch([('gs://bucket/prepared', 'data', DataError)], stop):
  bucket._client()
  print('watching', flush=True)
  input()
"""


def test_a_process_that_was_stopped_does_not_blame_the_bucket(server):
  """SIGSTOP for longer than the patience, and then one request that fails."""
  pipes = dict.fromkeys(('stdin', 'stdout'), subprocess.PIPE)
  process = subprocess.Popen([sys.executable, '-c', WATCHES], cwd=ROOT, text=True, **pipes)
  try:
    assert process.stdout.readline() == 'watching\n'
    asked = len(server.requests)
    while len(server.requests) < asked + 3:
      time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    failed = []
    server.fault = lambda method, path: failed.append(path) or (503 if len(failed) == 1 else None)
    time.sleep(1.5)
    process.send_signal(signal.SIGCONT)
    while len(failed) < 3:
      time.sleep(0.01)
    server.fault = lambda method, path: 503
    # Without an answer it stops, with the exit code of what may succeed later.
    assert process.stdout.readline().startswith('75 data: the bucket bucket cannot be reached (503')
  finally:
    process.kill()
    process.communicate()


def test_a_local_run_that_was_copied_is_refused(server, small_run):
  server.upload(small_run, 'runs/copied')
  folder = f'{WORKDIR}/copied/checkpoints'
  steps = server.steps('runs/copied')[0]
  with pytest.raises(StateError, match='copied from a local workdir') as error:
    quarantine_corrupt(folder)
  assert f'{folder}/{max(steps)}/commit_success.txt' in str(error.value)  # the way out
  for step in steps:
    server.put(f'runs/copied/checkpoints/{step}/commit_success.txt', b'complete')
  quarantine_corrupt(folder, warn=pytest.fail)  # its SHA-256 hold


def test_commands_read_a_run_in_a_bucket(server, small_run, tmp_path):
  """Without --config: the run has one."""
  server.upload(small_run, 'runs/old')
  for step in server.steps('runs/old')[0]:
    server.put(f'runs/old/checkpoints/{step}/commit_success.txt', b'complete')
  del server.objects['runs/old/results.json'], server.objects['runs/old/scores/val.csv']
  command = [sys.executable, '-m', 'flexfas_jax', 'evaluate', f'{WORKDIR}/old']
  command.append('--config.data_dir=gs://bucket/prepared')
  one_device = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count=1'
  done = subprocess.run(
    command,
    cwd=ROOT,
    env={**os.environ, 'XLA_FLAGS': one_device},
    capture_output=True,
    text=True,
    timeout=200,
  )
  assert done.returncode == 0, done.stderr
  assert f'Written: {WORKDIR}/old/results.json' in done.stdout
  assert_equal_runs(server, 'old', small_run, tmp_path)
  folder = remote_workdir.fetch_run(f'{WORKDIR}/old')  # as a pretrained source
  assert (folder / 'subjects.json').read_bytes() == (small_run / 'subjects.json').read_bytes()
  assert str(workdir.checkpoints(folder)) == f'{WORKDIR}/old/checkpoints'
  server.put('runs/old/bundle/model.onnx', b'x')
  copy = bucket.local_copy(f'{WORKDIR}/old/bundle')
  assert [f.name for f in copy.iterdir()] == ['model.onnx']
  with pytest.raises(StateError, match='gs://bucket/runs/none holds no files'):
    bucket.local_copy(f'{WORKDIR}/none')


def test_incomplete_and_damaged_steps(server):
  """A step without the file that completes it is not damaged; one that was changed is."""
  for step in (2, 4, 6):
    for name in ('state/d/x', 'run/metadata'):
      server.put(f'runs/run/checkpoints/{step}/{name}', bytes([step]))
    folder = f'{WORKDIR}/run/checkpoints/{step}'
    digests.write(folder)
    if step < 6:
      server.put(f'runs/run/checkpoints/{step}/commit_success.txt', b'x')
  quarantine_corrupt(f'{WORKDIR}/run/checkpoints', warn=pytest.fail)
  server.put('runs/run/checkpoints/4/state/d/x', b'other')
  said = []
  with pytest.raises(StateError, match='checkpoints/4 is damaged .state/d/x was changed'):
    quarantine_corrupt(f'{WORKDIR}/run/checkpoints', strict=True)
  quarantine_corrupt(f'{WORKDIR}/run/checkpoints', warn=said.append)
  assert 'resuming from step 2 instead' in said[1]
  assert server.steps('runs/run')[1] == {2}
  assert server.names('runs/run/damaged_checkpoints/4/') == [
    *('commit_success.txt', 'digests.json', 'run/metadata', 'state/d/x'),
  ]


def test_changed_and_deleted_files_are_sent(server):
  server.put('runs/run/scores/old.csv', b'old')
  server.put('runs/run/tensorboard/events', b'large')
  with remote_workdir.open_workdir(f'{WORKDIR}/run') as opened:
    folder = opened.folder
    assert folder.name == 'run' and workdir.origin(folder) == f'{WORKDIR}/run'
    assert str(workdir.checkpoints(folder)) == f'{WORKDIR}/run/checkpoints'
    assert (folder / 'scores' / 'old.csv').read_bytes() == b'old'
    assert not (folder / 'tensorboard' / 'events').exists()  # is not fetched, and stays
    (folder / 'scores' / 'old.csv').unlink()
    (folder / 'metrics.jsonl').write_bytes(b'1\n')
    (folder / '.config.json.1.tmp').write_bytes(b'part')
    opened.send()
    assert server.objects['runs/run/metrics.jsonl'].data == b'1\n'
    (folder / 'metrics.jsonl').write_bytes(b'1\n2\n')
    with (
      pytest.raises(StateError, match=f'^{WORKDIR}/run is bad$'),
      remote_workdir.open_workdir(f'{WORKDIR}/run') as other,
    ):
      raise StateError(f'{other.folder} is bad')
  assert server.names('runs/run/') == ['metrics.jsonl', 'tensorboard/events']
  assert server.objects['runs/run/metrics.jsonl'].data == b'1\n2\n'
  assert not folder.exists()


def test_metrics_of_another_training_are_not_replaced(server):
  with (
    pytest.raises(StateError, match='metrics.jsonl was changed by another process'),
    remote_workdir.open_workdir(f'{WORKDIR}/run') as opened,
  ):
    for rows in (b'1\n', b'1\n2\n'):
      (opened.folder / 'metrics.jsonl').write_bytes(rows)
      opened.send()
    server.put('runs/run/metrics.jsonl', b'other\n')
    (opened.folder / 'metrics.jsonl').write_bytes(b'1\n2\n3\n')
  assert server.objects['runs/run/metrics.jsonl'].data == b'other\n'


def held_lock(url):
  held = lock.WorkdirLock(bucket.LockStore(f'{url}/{lock.FILE}'), print)
  held.acquire()
  return held


def test_what_another_training_sent_before_its_lock_ended_is_kept(server):
  url = f'{WORKDIR}/run'
  server.put('runs/run/metrics.jsonl', b'1\n')
  server.put('runs/run/bad_batch.json', b'{}')
  server.put('runs/run/config.json', b'{}')
  with remote_workdir.open_workdir(url) as opened:
    server.put('runs/run/metrics.jsonl', b'1\n2\n')
    del server.objects['runs/run/bad_batch.json']
    held, asked = held_lock(url), len(server.requests)
    with opened.hold(held):
      later = server.requests[asked:]
      assert not [path for _, path in later if 'config.json' in path]  # it has not changed
      assert (opened.folder / 'metrics.jsonl').read_bytes() == b'1\n2\n'
      assert not (opened.folder / 'bad_batch.json').exists()
      (opened.folder / 'metrics.jsonl').write_bytes(b'1\n2\n3\n')
    # Sent while the lock is held, and not once it may be another's.
    assert server.objects['runs/run/metrics.jsonl'].data == b'1\n2\n3\n'
    (opened.folder / 'metrics.jsonl').write_bytes(b'late')
    held.release()
  assert server.objects['runs/run/metrics.jsonl'].data == b'1\n2\n3\n'
  assert 'runs/run/bad_batch.json' not in server.objects


def test_the_other_processes_fetch_under_the_lock_too(server, monkeypatch):
  monkeypatch.setattr(remote_workdir.distributed, 'is_first', lambda: False)
  server.put('runs/run/config.json', b'{}')
  with remote_workdir.open_workdir(f'{WORKDIR}/run') as opened:
    server.put('runs/run/config.json', b'{"steps": 3}')
    with opened.hold(None):
      assert (opened.folder / 'config.json').read_bytes() == b'{"steps": 3}'
      (opened.folder / 'config.json').write_bytes(b'mine')
  assert server.objects['runs/run/config.json'].data == b'{"steps": 3}'


def test_a_training_that_lost_its_lock_sends_nothing(server):
  url, own = f'{WORKDIR}/run', 'runs/run/results.json'
  with (
    pytest.raises(StateError, match='training.lock was taken over by process 1 on far'),
    remote_workdir.open_workdir(url) as opened,
  ):
    held = held_lock(url)
    with opened.hold(held):
      server.put('runs/run/training.lock', b'{"process": 1, "host": "far"}')
      server.put(own, b"another's")
      (opened.folder / 'results.json').write_bytes(b'mine')
      with pytest.raises(StateError, match='was taken over by process 1 on far'):
        opened.send()
  held.release()
  assert server.objects[own].data == b"another's"
  assert 'runs/run/training.lock' in server.objects


def test_a_slash_at_the_end_of_a_workdir(server):
  server.put('runs/run/config.json', b'{"steps": 3}')
  found = main._with_config_file(['main', f'--workdir={WORKDIR}/run/'])
  assert found[1].endswith(f'run_config.py:{WORKDIR}/run')
  assert [use[0] for use in remote_workdir.check(f'{WORKDIR}/run/')] == [f'{WORKDIR}/run/']
  with remote_workdir.open_workdir(f'{WORKDIR}/run/') as opened:
    assert opened.folder.name == 'run'
    (opened.folder / 'metrics.jsonl').write_bytes(b'1\n')
  assert server.names('runs/run/') == ['config.json', 'metrics.jsonl']


def test_a_second_training_is_refused(server, prepared, tmp_path):
  """The lock is in the bucket; a holder on this machine that has ended does not block."""
  said = []
  with remote_workdir.open_workdir(f'{WORKDIR}/run') as opened:
    store = bucket.LockStore(f'{WORKDIR}/run/{lock.FILE}')
    with lock.hold(opened.folder, said.append, store) as held:
      assert server.names('runs/run/') == ['training.lock']
      own = write_config(tmp_path / 'small.py', prepared)
      ((code, _, err),) = finish(start(own, f'{WORKDIR}/run', 1, 1))
      assert code == 4, err
      assert f'process {os.getpid()} on ' in err and 'trains in this workdir' in err
      assert held.problem() == ''
      left = server.objects['runs/run/training.lock'].data
      server.put('runs/run/training.lock', b'{"token": "other", "host": "far", "process": 1}')
      assert 'was taken over by process 1 on far' in held.problem()
    ended = json.loads(left) | {'process_start': 'before', 'token': 'ended'}
    server.put('runs/run/training.lock', json.dumps(ended).encode())
    with lock.hold(opened.folder, said.append, store):
      assert 'which has ended' in said[-1]
  assert server.names('runs/run/') == []


def test_one_of_two_writers_gets_the_lock(server):
  mine, other = bucket.LockStore('gs://bucket/lock'), bucket.LockStore('gs://bucket/lock')
  assert mine.create('a') and not other.create('b')
  assert other.read() == 'a' and not other.replace('b', 'c') and not other.delete('b')
  assert mine.replace('a', 'd') and not other.delete('a') and other.delete('d')
  assert mine.read() is None
  server.put('lock', b'\xff')  # damaged: it can be deleted
  assert mine.delete(mine.read())
  # An answer that is lost: the repeated request finds its own text.
  asked = []

  def lose(method, path):
    if method == 'POST' and not asked:
      asked.append(path)
      server.put('lock', b'mine')
      return 503
    return None

  server.fault = lose
  assert mine.create('mine')


def test_a_missing_extra_is_named():
  program = (
    'import sys; sys.modules["gcsfs"] = None\n'
    'from flexfas_jax import main\n'
    'main.main(["--workdir=gs://bucket/run"])'
  )
  done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 2, done.stderr
  assert 'gs:// requires the extra `gcs`' in done.stderr
  assert "pip install 'flexfas_jax[gcs]'" in done.stderr


def test_the_lock_is_an_object_of_the_bucket(server):
  url = f'{WORKDIR}/{lock.FILE}'

  def make_lock(said=None):
    warn = ([] if said is None else said).append
    return lock.WorkdirLock(bucket.LockStore(url), warn, beat=0.2, stale=1.5)

  held = make_lock()
  held.acquire()
  with pytest.raises(
    StateError, match=f'{url}: process {os.getpid()} on .* trains in this workdir'
  ):
    make_lock().acquire()
  first = json.loads(bucket.read(url))
  time.sleep(1)
  assert json.loads(bucket.read(url))['number'] > first['number']
  bucket.delete(url)
  time.sleep(1)
  assert bucket.read(url) is None and f'{url} does not exist any more' in held.noticed
  held.release()

  said = []
  bucket.write(url, json.dumps({**first, 'machine': 'another'}).encode())
  other = make_lock(said)
  other.acquire()  # that machine does not raise the number
  assert 'waiting up to' in said[0] and 'was left by process' in said[1]
  other.release()
  assert bucket.read(url) is None
