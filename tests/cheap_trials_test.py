"""Disks that cannot be written to, hosts that begin at once: what is said, and what is left."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
DATASET = 'rendered_faces/surf_like_tiny'
READ = f"""
import sys
from flexfas_jax import errors
from flexfas_jax.input_pipeline import sources
def read():
  source = sources.open_source('{DATASET}:val', sys.argv[1])
  print(*(source[i]['id'] for i in range(len(source))))
sys.exit(errors.exit_code_of(read))
"""


def begin(*command):
  return subprocess.Popen(
    command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )


def run_with_mount(mount, *command):
  """Runs a command for which `mount` was done, in a namespace of its own; skips without leave."""
  inside = ['unshare', '--map-root-user', '--mount', 'sh', '-c']
  tried = subprocess.run([*inside, mount], cwd=ROOT, capture_output=True, text=True)
  if tried.returncode:
    pytest.skip(f'no leave to mount here: {tried.stderr.strip()}')
  process = begin(*inside, f'{mount}; exec "$@"', 'sh', *command)
  return (*process.communicate(), process.returncode)


def read_only(folder):
  return f'mount --bind -o ro {folder} {folder}'


def test_a_set_is_read_from_a_read_only_disk(prepared):
  command = [sys.executable, '-c', READ, prepared]
  said, errors, code = run_with_mount(read_only(prepared), *command)
  assert code == 0, errors
  assert said.split()
  writable = begin(*command)
  assert writable.communicate()[0] == said


COMMANDS = {
  'read': (sys.executable, '-c', READ),
  'prepare': (sys.executable, '-m', 'flexfas_jax.prepare', f'--dataset={DATASET}', '--data_dir'),
}


@pytest.mark.parametrize('disk', ['read-only', 'full'])
@pytest.mark.parametrize('command', COMMANDS)
def test_a_set_that_cannot_be_built_here(tmp_path, command, disk):
  data_dir = tmp_path / 'prepared'
  data_dir.mkdir()
  mount = {'read-only': read_only(data_dir), 'full': f'mount -t tmpfs -o size=64k x {data_dir}'}
  _, errors, code = run_with_mount(mount[disk], *COMMANDS[command], str(data_dir))
  assert code == 3, errors
  assert 'Traceback' not in errors
  last = errors[errors.index('error: ') :]
  why = {'read-only': 'Read-only file system', 'full': 'No space left on device'}[disk]
  assert DATASET in last
  assert why in last
  assert '--config.data_dir' in last


def test_hosts_that_need_the_same_set_at_once(tmp_path):
  """The embedded set is built when it is first used: by every host of a slice."""
  hosts = [begin(sys.executable, '-c', READ, str(tmp_path)) for _ in range(2)]
  said = [host.communicate() for host in hosts]
  assert [host.returncode for host in hosts] == [0, 0], said
  assert said[0][0] == said[1][0] != ''
  assert [folder.name for folder in (tmp_path / DATASET).iterdir()] == ['2.0.0']


def test_what_is_not_a_terminal_gets_no_control_characters(tmp_path):
  process = begin(*COMMANDS['prepare'], str(tmp_path))
  for text in process.communicate():
    assert not [c for c in text if not c.isprintable() and c != '\n']
