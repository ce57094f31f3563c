"""Exit codes, and what a user sees."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flexfas_jax import errors


def raising(error):
  def command():
    raise error

  return command


@pytest.mark.parametrize(
  'error,code',
  [
    (errors.ConfigError('no such field'), 2),
    (errors.DataError('row 3'), 3),
    (errors.StateError('no checkpoint'), 4),
    (errors.ExportError('differs'), 5),
  ],
)
def test_an_error_is_one_message_and_a_code(error, code, capsys):
  assert errors.exit_code_of(raising(error)) == code
  assert capsys.readouterr().err == f'error: {error}\n'
  with pytest.raises(type(error)):
    errors.exit_code_of(raising(error), debug=True)


def test_errors_are_collected_and_raised_together():
  found = []
  assert errors.attempt(found, 'config.loss', lambda a, b: a + b, 1, b=2) == 3
  errors.raise_all(found)  # of nothing
  assert errors.attempt(found, 'config.loss', raising(errors.DataError('no such'))) is None
  with pytest.raises(errors.DataError, match=r'^config.loss: no such$'):
    errors.raise_all(found)
  errors.attempt(found, 'config.model', raising(errors.DataError('config.train is empty')))
  with pytest.raises(
    errors.DataError, match=r'^2 problems:\n- config.loss: no such\n- config.train'
  ):
    errors.raise_all(found)
  errors.attempt(found, 'config.steps', raising(errors.StateError('none')))
  with pytest.raises(errors.ConfigError, match='(?s)^3 problems:.*- config.steps: none$'):
    errors.raise_all(found)
  with pytest.raises(ZeroDivisionError):  # a defect of ours is not collected
    errors.attempt(found, '', lambda: 1 / 0)


def test_done_is_0_and_ctrl_c_130(capsys):
  assert errors.exit_code_of(lambda: None) == 0
  assert errors.exit_code_of(raising(KeyboardInterrupt())) == 130
  assert 'to resume' in capsys.readouterr().err


def test_a_defect_of_ours_is_not_hidden():
  with pytest.raises(ZeroDivisionError):
    errors.exit_code_of(lambda: 1 / 0)


PRINTS = """
import sys
from flexfas_jax import errors
def command():
  print('a decision')
  sys.stdout.flush()
sys.exit(errors.exit_code_of(command))
"""


@pytest.mark.parametrize(
  ('redirect', 'code', 'says'),
  [
    ('>&-', 0, ''),
    ('>&- 2>&-', 0, ''),
    ('>/dev/full', 2, 'error: the output cannot be written: No space left on device\n'),
  ],
)
def test_an_output_that_takes_nothing(redirect, code, says):
  if 'full' in redirect and not os.path.exists('/dev/full'):
    pytest.skip('there is no /dev/full here')
  done = subprocess.run(
    ['sh', '-c', f'"$0" -c "$1" {redirect}', sys.executable, PRINTS],
    cwd=Path(__file__).parents[1], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  assert (done.returncode, done.stderr) == (code, says)


@pytest.mark.parametrize(
  ('module', 'library', 'package'),
  [
    ('predict', 'cv2', 'opencv-python-headless'),
    ('demo', 'PIL', 'pillow'),
    ('main', 'ml_collections', 'ml-collections'),
    ('prepare', 'tensorflow_datasets', 'tensorflow-datasets'),
    ('evaluate_members', 'jax', 'jax'),
    ('lint', 'cv2', 'opencv-python-headless'),
  ],
)
def test_a_library_that_is_not_installed_is_named(module, library, package, tmp_path):
  """While the command is imported, and while it runs."""
  (tmp_path / 'list.txt').write_text('a.png 1\n')
  arguments = {
    'prepare': ['--dataset=rendered_faces/surf_like', f'--data_dir={tmp_path}'],
    'evaluate_members': [str(tmp_path)],
    'lint': [f'{tmp_path}/list.txt', f'--root={tmp_path}', '--labels=1=bona_fide'],
  }
  code = (
    f'import runpy, sys; sys.modules[{library!r}] = None\n'
    f'runpy.run_module("flexfas_jax.{module}", run_name="__main__")'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, *arguments.get(module, ['--help'])],
    cwd=Path(__file__).parents[1], capture_output=True, text=True,
  )  # fmt: skip
  assert done.returncode == 2, done.stderr
  assert f'error: this command requires {package}, which is not installed' in done.stderr
  assert 'Traceback' not in done.stderr
  if module in ('predict', 'prepare'):
    arguments.setdefault(module, ['--help']).append('--debug')
    done = subprocess.run(
      [sys.executable, '-c', code, *arguments[module]],
      cwd=Path(__file__).parents[1], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and 'Traceback' in done.stderr


def test_a_module_of_ours_that_is_missing_is_a_defect():
  with pytest.raises(ModuleNotFoundError):
    errors.exit_code_of(raising(ModuleNotFoundError('gone', name='flexfas_jax.gone')))
  with pytest.raises(ModuleNotFoundError), errors.required_imports('flexfas_jax.predict'):
    raise ModuleNotFoundError('no cv2', name='cv2')
