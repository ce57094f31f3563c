"""Where the blocks of pages run: a folder like a clone, and commands as after the installation."""

import os
import pathlib
import shutil
import stat
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
_LIKE_A_CLONE = ('configs', 'experiments', 'launch', 'tests', 'requirements', 'pyproject.toml')
_PACKAGE = ('flexfas_jax', 'data', 'configs', 'tests')  # what a page that edits it gets a copy of
_COMMANDS = {
  'flexfas': '#!/bin/sh\nexec "$PYTHON" -m flexfas_jax "$@"\n',
  'python': '#!/bin/sh\nexec "$PYTHON" "$@"\n',
  'python3': '#!/bin/sh\nexec "$PYTHON" "$@"\n',
  'pip': '#!/bin/sh\nexec "$PYTHON" -m tests.pages.pip_check "$@"\n',
}


def make(folder: pathlib.Path, prepared: pathlib.Path, copied: bool = False) -> pathlib.Path:
  """Fills a new folder like a clone.

  Args:
    folder: to create.
    prepared: prepared sets, shared by all pages.
    copied: with a copy of the package, which the page edits, and not links to it.
  """
  folder.mkdir(parents=True)
  ignored = shutil.ignore_patterns('__pycache__')
  for name in _PACKAGE if copied else ():
    shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
  for name in _LIKE_A_CLONE:
    if not (folder / name).exists():
      (folder / name).symlink_to(ROOT / name)
  (folder / 'prepared').symlink_to(prepared)
  return folder


def environment(commands: pathlib.Path, root: pathlib.Path = ROOT) -> dict[str, str]:
  """That of a reader's shell: no settings of the tests, and this clone's commands.

  Args:
    commands: a folder; the commands are written there.
    root: of the package.
  """
  commands.mkdir(exist_ok=True)
  for name, text in _COMMANDS.items():
    (commands / name).write_text(text)
    (commands / name).chmod(stat.S_IRWXU)
  # conftest.py makes compilation cheap and programs slow, on eight devices.
  kept = {k: v for k, v in os.environ.items() if not k.startswith(('JAX_', 'XLA_', 'PYTEST_'))}
  return kept | {
    'PATH': f'{commands}:{os.environ["PATH"]}',
    'PYTHON': sys.executable,
    'PYTHONPATH': str(root),
    'JAX_PLATFORMS': 'cpu',
    'JAX_COMPILATION_CACHE_DIR': str(commands / 'compiled'),
  }


def run(script: str, folder: pathlib.Path, environment: dict[str, str], seconds: int) -> str:
  """What a script prints; an AssertionError with its end if it fails."""
  done = subprocess.run(
    ['bash', '-c', script], cwd=folder, env=environment, timeout=seconds,
    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    errors='backslashreplace',
  )  # fmt: skip
  assert done.returncode == 0, f'exit code {done.returncode}\n{done.stdout[-6000:]}'
  return done.stdout
