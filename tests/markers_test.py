"""The markers: which tests are `unit`, and that those neither import JAX nor start a process."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests import markers

TESTS = pathlib.Path(__file__).parent


@pytest.mark.parametrize(
  ('file', 'kinds'),
  [
    ('evaluation/metrics_test.py', set()),
    ('data/manifest_test.py', set()),
    ('models/flexmodal_test.py', {'jax'}),
    ('input_pipeline/pipeline_test.py', {'jax'}),  # Grain imports JAX
    ('prediction/predictor_test.py', {'jax'}),  # by a helper of the tests
    ('prediction/runners/onnx_tensors_test.py', {'export'}),  # pytest.importorskip
  ],
)
def test_a_file_has_the_markers_of_what_it_imports(file, kinds):
  assert markers.of_file(TESTS / file) == kinds


def test_imports_inside_functions_and_of_types_are_not_those_of_a_file(tmp_path):
  path, other = tmp_path / 'a_test.py', tmp_path / 'b_test.py'
  path.write_text('if TYPE_CHECKING:\n  import jax\ndef f():\n  import flax\n')
  assert markers.of_file(path) == set()
  other.write_text('import os as o, re\nfrom flexfas_jax.training import (\n  loop,\n  step,\n)\n')
  assert markers.of_file(other) == {'jax'}


def test_fixtures_helpers_and_inner_imports_count_for_the_tests_that_use_them(request):
  kinds = {
    item.originalname: {mark.name for mark in item.iter_markers()} & {*markers.KINDS}
    for item in request.session.items
    if item.path == pathlib.Path(__file__)
  }
  expected = {
    'test_a_file_has_the_markers_of_what_it_imports': {'unit'},
    'test_unit_tests_import_no_jax': {'process'},
    'test_example_of_an_inner_import': {'jax'},
  }
  selected = {name: kinds[name] for name in expected if name in kinds}  # all without -m and -k
  option = request.config.option
  assert len(selected) == len(expected) or option.markexpr or option.keyword or option.lf
  assert selected == {name: expected[name] for name in selected}


def test_example_of_an_inner_import():
  def inner():
    import jax

    return jax

  assert inner().__name__ == 'jax'


def test_unit_tests_import_no_jax():
  """Collecting them, which imports their files, does not."""
  code = (
    'import pytest, sys\n'
    "assert not pytest.main(['-n', '0', '-m', 'unit', '--collect-only', '-qq'])\n"
    "assert 'jax' not in sys.modules, 'the import of a unit test file imports JAX'\n"
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=TESTS.parent, capture_output=True, text=True,
    env={**os.environ, 'PYTHONPATH': '.'},
  )  # fmt: skip
  assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_a_unit_test_starts_no_process():
  with markers.no_process(), pytest.raises(AssertionError, match='mark it process'):
    subprocess.run(['true'])
  assert subprocess.run(['true']).returncode == 0


def test_a_unit_test_that_imports_jax_fails(tmp_path):
  """`unit` given by hand to a test that hides its import."""
  path = tmp_path / 'hidden_test.py'
  path.write_text(
    "import pytest\n@pytest.mark.unit\ndef test_a():\n  __import__('jax')\n"
    "@pytest.mark.unit\ndef test_b():\n  getattr(__import__('os'), 'getpid')()\n"
  )
  done = subprocess.run(
    [sys.executable, '-m', 'pytest', '-n', '0', '-p', 'tests.conftest', path, '-o']
    + [f'cache_dir={tmp_path}/cache', '-c', 'pyproject.toml'],
    cwd=TESTS.parent, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': '.'},
  )  # fmt: skip
  assert done.returncode == 1
  assert 'a unit test imports JAX: mark it jax' in done.stdout
  assert '1 failed, 1 passed' in done.stdout
