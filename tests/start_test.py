"""What a command imports before it does its work: the libraries that would make a user wait."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / 'tests' / 'golden' / 'before_language' / 'bundle'
SLOW = {
  *('jax', 'flax', 'grain', 'optax', 'orbax', 'tensorflow_datasets', 'ml_collections', 'absl'),
  *('rich', 'matplotlib', 'jinja2', 'scipy', 'numpy.testing', 'email', 'unittest', 'http'),
}
OF_IMAGES = {'cv2', 'PIL', 'onnxruntime'}


def imported(*arguments):
  """The modules of SLOW and OF_IMAGES that `flexfas ARGUMENTS` imports."""
  code = (
    'import sys\n'
    'from flexfas_jax import __main__ as command\n'
    'try:\n'
    '  code = command.main(sys.argv[1:])\n'
    'except SystemExit as end:\n'
    '  code = end.code\n'
    f'print("imported", *({SLOW | OF_IMAGES} & set(sys.modules)))\n'
    'sys.exit(code)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, *map(str, arguments)],
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 0, done.stderr
  return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize('command', ['score', 'compare', 'ensemble', 'lint', 'prepare'])
def test_help_imports_no_slow_library(command):
  assert imported(command, '--help') == set()


def test_a_decision_imports_its_runtime_and_decoders_alone():
  pytest.importorskip('onnxruntime')
  rgb = BUNDLE / 'samples' / '0_rgb.png'
  assert imported('predict', BUNDLE, '--format=onnx', f'--rgb={rgb}') == OF_IMAGES
