"""The disk of the soak test: unmounted however the test ends."""

import pathlib
import types

import pytest

from experiments.reliability import soak


@pytest.fixture
def commands(monkeypatch):
  """The commands that are run; those in `failing` fail."""
  run, failing = [], set()

  def pretend(command, **_):
    run.append(' '.join(command[:2] if command[0] == 'umount' else command[:1]))
    return types.SimpleNamespace(returncode=int(run[-1] in failing))

  monkeypatch.setattr(soak.subprocess, 'run', pretend)
  return run, failing


@pytest.mark.parametrize('error', [None, RuntimeError, SystemExit, KeyboardInterrupt])
def test_the_disk_is_unmounted_however_it_ends(commands, tmp_path, error):
  run, _ = commands
  try:
    with soak.Disk(tmp_path / 'disk') as disk:
      assert disk.is_mounted
      if error:
        raise error
  except (RuntimeError, SystemExit, KeyboardInterrupt) as raised:
    assert type(raised) is error
  assert run == ['mount', f'umount {tmp_path}/disk'] and not disk.is_mounted


def test_a_disk_in_use_is_unmounted_when_its_processes_end(commands, tmp_path):
  run, failing = commands
  failing.add(f'umount {tmp_path}/disk')
  with soak.Disk(tmp_path / 'disk'):
    pass
  assert run[-1] == 'umount --lazy'
  failing.add('umount --lazy')
  with pytest.raises(SystemExit, match='is still mounted; unmount it: sudo umount --lazy'):
    soak.unmount(tmp_path / 'disk')


def test_without_a_mount_nothing_is_unmounted(commands, tmp_path):
  run, failing = commands
  failing.add('mount')
  with soak.Disk(pathlib.Path(tmp_path) / 'disk') as disk:
    assert not disk.is_mounted
  assert run == ['mount']
