"""A forked process is one that `python -m` starts: arguments, environment, folder, pipes, exit."""

import json
import os
import signal
import subprocess

import pytest

from tests import forked

SHOWS = """
import json, os, sys
print(json.dumps({
  'argv': sys.argv[1:], 'folder': os.getcwd(), 'path': sys.path[:2], 'name': __name__,
  'value': os.environ.get('VALUE'), 'here': 'HERE' in os.environ, 'jax': 'jax' in sys.modules,
  'read': sys.stdin.read(),
}))
print('to stderr', file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""
PIPES = dict.fromkeys(('stdin', 'stdout', 'stderr'), subprocess.PIPE)


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'shows.py').write_text(SHOWS)
  (tmp_path / 'waits.py').write_text("print('on', flush=True)\ninput()\n")
  (tmp_path / 'fails.py').write_text("raise ValueError('wrong')\n")
  return tmp_path


def test_it_gets_what_python_m_gives(folder, monkeypatch):
  monkeypatch.setenv('HERE', '1')
  env = {**os.environ, 'VALUE': 'x', 'PYTHONPATH': '/first'}
  del env['HERE']
  process = forked.start('shows', 7, 'b', cwd=folder, env=env, **PIPES)
  process.stdin.write('text')
  stdout, stderr = process.communicate(timeout=60)
  assert json.loads(stdout) == {
    'argv': ['7', 'b'], 'folder': str(folder), 'path': [str(folder), '/first'],
    'name': '__main__', 'value': 'x', 'here': False, 'jax': True, 'read': 'text',
  }  # fmt: skip
  assert (stderr, process.returncode) == ('to stderr\n', 7)


def test_its_end_is_reported(folder):
  process = forked.start('waits', cwd=folder, **PIPES)
  assert process.stdout.readline() == 'on\n' and process.poll() is None
  with pytest.raises(subprocess.TimeoutExpired):
    process.wait(timeout=0.05)
  process.send_signal(signal.SIGTERM)
  process.communicate(timeout=60)
  assert process.returncode == -signal.SIGTERM == process.poll() == process.wait()
  done = forked.run('fails', cwd=folder)
  assert done.returncode == 1 and done.stderr.endswith('ValueError: wrong\n')


def test_what_is_read_at_import_is_not_that_of_another_environment(folder):
  process = forked.start('shows', 0, cwd=folder, env={**os.environ, 'JAX_ENABLE_X64': '1'}, **PIPES)
  assert isinstance(process, subprocess.Popen)
  assert json.loads(process.communicate('', timeout=60)[0])['jax'] is False
