"""One training per workdir, tried with real processes that end, are killed, and stop."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from flexfas_jax.errors import StateError
from flexfas_jax.training import lock
from tests.small_job import ROOT

# Holds the lock until its standard input ends. The second argument is that of another machine.
HOLDER = """
import pathlib, sys, time
from flexfas_jax.errors import StateError
from flexfas_jax.training import lock

folder, machine, start = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
if machine:
  lock._machine = lambda: machine
store = lock.FileStore(folder / lock.FILE)
held = lock.WorkdirLock(store, lambda line: print(line, file=sys.stderr), beat=0.2, stale=1.5)
while time.monotonic() < start:
  pass
try:
  held.acquire()
except StateError as error:
  sys.exit(str(error))
print('held', flush=True)
sys.stdin.read()
print(held.problem(), flush=True)
held.release()
"""


def begin(folder, machine='', at=0.0):
  pipes = dict.fromkeys(('stdin', 'stdout', 'stderr'), subprocess.PIPE)
  command = [sys.executable, '-c', HOLDER, str(folder), machine, str(at)]
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)


def begin_and_hold(folder, machine=''):
  process = begin(folder, machine)
  assert process.stdout.readline() == 'held\n', process.stderr.read()
  return process


def make_lock(folder, said=None, stale=1.5):
  warn = (said if said is not None else []).append
  return lock.WorkdirLock(lock.FileStore(folder / lock.FILE), warn, beat=0.2, stale=stale)


def is_free(folder):
  return not [f.name for f in pathlib.Path(folder).iterdir()]


@pytest.mark.parametrize('stale', [False, True])
def test_of_eight_at_once_one_wins(tmp_path, stale):
  """Also where each of them has to remove the lock of a process that was killed."""
  if stale:
    killed = begin_and_hold(tmp_path)
    killed.kill()
    killed.communicate()
  begun = [begin(tmp_path, at=time.monotonic() + 3) for _ in range(8)]
  try:
    first = [process.stdout.readline() for process in begun]
    (winner,) = [p for p, line in zip(begun, first, strict=True) if line == 'held\n']
    for process in begun:
      if process is not winner:
        _, refused = process.communicate(timeout=30)
        assert process.returncode == 1
        assert f'process {winner.pid} on ' in refused and 'trains in this workdir' in refused
    problem, _ = winner.communicate('', timeout=30)
    assert (winner.returncode, problem) == (0, '\n')
  finally:
    for process in begun:
      process.kill()
      process.wait()
  assert is_free(tmp_path)


def test_the_lock_of_a_killed_process_does_not_block(tmp_path):
  """At once on the same machine, even if its parent has not yet waited for it."""
  killed = begin_and_hold(tmp_path)
  with pytest.raises(StateError, match=f'process {killed.pid} on .* .since 20..-.* trains in this'):
    make_lock(tmp_path).acquire()
  killed.send_signal(signal.SIGKILL)
  os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
  said, begun = [], time.monotonic()
  held = make_lock(tmp_path, said, stale=1000)
  held.acquire()
  assert time.monotonic() - begun < 5
  assert f'was left by process {killed.pid} on ' in said[0]
  held.release()
  killed.communicate()
  assert is_free(tmp_path)


def test_a_number_of_a_process_that_is_used_again(tmp_path):
  """The number is that of a running process, this one; its start is another."""
  held = make_lock(tmp_path)
  held.acquire()
  file = tmp_path / lock.FILE
  left = {**json.loads(file.read_text()), 'process_start': '1'}
  file.write_text(json.dumps(left))
  other = make_lock(tmp_path)
  other.acquire()
  other.release()


def test_another_machine_is_watched_not_timed(tmp_path):
  """No clocks are compared: it counts whether the lock changes meanwhile."""
  said = []
  elsewhere = begin_and_hold(tmp_path, machine='another')
  with pytest.raises(StateError, match=f'process {elsewhere.pid} on .* trains in this workdir'):
    make_lock(tmp_path, said, stale=60).acquire()
  assert 'waiting up to 60 s' in said[0]
  os.utime(tmp_path / lock.FILE, (2e9, 2e9))  # from the future
  elsewhere.kill()
  elsewhere.communicate()
  begun = time.monotonic()
  held = make_lock(tmp_path, said)
  held.acquire()
  assert 1.5 < time.monotonic() - begun < 10
  held.release()


def test_a_process_that_stood_still_notices_that_it_lost_the_lock(tmp_path):
  stopped = begin_and_hold(tmp_path, machine='another')
  stopped.send_signal(signal.SIGSTOP)
  held = make_lock(tmp_path)
  held.acquire()
  stopped.send_signal(signal.SIGCONT)
  time.sleep(0.5)  # it must not renew what is no longer its own
  problem, _ = stopped.communicate('', timeout=30)
  assert f'was taken over by process {os.getpid()} on ' in problem
  assert held.problem() == ''
  held.release()
  assert is_free(tmp_path)


def test_a_deleted_workdir(tmp_path):
  folder = tmp_path / 'run'
  with lock.hold(folder, print) as held:
    assert held.problem() == ''
    (folder / lock.FILE).unlink()
    folder.rmdir()
    assert 'the workdir, was deleted while the training ran' in held.problem()
  assert not folder.exists()


@pytest.mark.parametrize('text', ['', '\0' * 300, '[]', '{"process": "x"}'])
def test_a_damaged_lock_is_that_of_an_unknown_process(tmp_path, text):
  (tmp_path / lock.FILE).write_text(text)
  said, held = [], make_lock(tmp_path)
  held = make_lock(tmp_path, said)
  held.acquire()
  assert 'waiting up to' in said[0] and 'was left by' in said[1]
  held.release()


def test_a_link_to_nothing_is_named(tmp_path):
  """Creating the lock fails, and so does reading it."""
  (tmp_path / lock.FILE).symlink_to(tmp_path / 'none')
  with pytest.raises(StateError, match='training.lock is a link to a file that does not exist'):
    make_lock(tmp_path).acquire()


def test_folders_without_a_run_are_removed_again(tmp_path):
  folder = tmp_path / 'runs' / 'one'
  with lock.hold(folder, print):
    assert (folder / lock.FILE).is_file()
  assert is_free(tmp_path)
  with lock.hold(folder, print):
    (folder / 'config.json').touch()
  assert [f.name for f in folder.iterdir()] == ['config.json']


def test_a_file_system_without_links(tmp_path, monkeypatch):
  def refuse(*paths):
    raise PermissionError('a file system without links')

  monkeypatch.setattr(os, 'link', refuse)
  held = make_lock(tmp_path)
  held.acquire()
  with pytest.raises(StateError, match='trains in this workdir'):
    make_lock(tmp_path).acquire()
  held.release()
  assert is_free(tmp_path)


def test_the_number_rises_in_place(tmp_path):
  """So that a lock that another process has deleted does not come back."""
  held = make_lock(tmp_path)
  held.acquire()
  file = tmp_path / lock.FILE
  inode, first = file.stat().st_ino, json.loads(file.read_text())['number']
  time.sleep(0.7)
  assert json.loads(file.read_text())['number'] > first
  assert file.stat().st_ino == inode
  held.release()
  time.sleep(0.5)
  assert is_free(tmp_path)
  assert threading.active_count() < 20
