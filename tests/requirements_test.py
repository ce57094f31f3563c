"""The locked files of requirements/: what pyproject.toml allows, in one version each."""

import pathlib
import re
import tomllib

import pytest
from packaging.requirements import Requirement

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
PYTHONS = ('3.11', '3.12', '3.13')


def locked(name, python):
  """{package: version} that a file has for one Python on Linux."""
  text = re.sub(r'\\\n\s*', ' ', (ROOT / 'requirements' / f'{name}.txt').read_text())
  found = {}
  for line in filter(None, (line.partition('#')[0].strip() for line in text.splitlines())):
    one = Requirement(line.partition(' --hash')[0])
    if one.marker is None or one.marker.evaluate(environment(python)):
      (version,) = one.specifier
      assert version.operator == '==', line
      assert one.name not in found, f'{name}.txt has two versions of {one.name} on {python}'
      found[one.name] = version.version
  return found


def environment(python):
  return {
    'python_version': python,
    'python_full_version': f'{python}.0',
    'sys_platform': 'linux',
    'platform_system': 'Linux',
    'platform_machine': 'x86_64',
    'platform_python_implementation': 'CPython',
    'implementation_name': 'cpython',
    'os_name': 'posix',
  }


@pytest.mark.parametrize('python', PYTHONS)
def test_the_lock_is_what_pyproject_allows(python):
  lock = locked('lock', python)
  extras = PROJECT['optional-dependencies'].values()
  for line in (*PROJECT['dependencies'], *(line for extra in extras for line in extra)):
    one = Requirement(line)
    if one.name == PROJECT['name']:
      continue
    name = one.name.lower().replace('_', '-')
    assert name in lock, f'{line}: run .ci/lock --keep'
    assert one.specifier.contains(lock[name]), f'{line}, locked {lock[name]}: run .ci/lock --keep'


@pytest.mark.parametrize('python', PYTHONS)
@pytest.mark.parametrize(
  ('name', 'never'),
  [
    ('score', {'jax', 'jaxlib', 'flax', 'opencv-python-headless', 'onnxruntime'}),
    ('predict', {'jax', 'jaxlib', 'flax', 'grain', 'matplotlib'}),
  ],
)
def test_the_small_sets_are_parts_of_the_lock(name, never, python):
  small = locked(name, python)
  assert len(small) > 10 and not small.keys() & never
  assert small.items() <= locked('lock', python).items()


@pytest.mark.parametrize(
  'path', sorted((ROOT / 'requirements').glob('*.txt')), ids=lambda path: path.stem
)
def test_no_place_is_named(path):
  """Neither a registry nor a folder: those are the installer's to choose."""
  assert not re.search(r'://|^-|file:| @ |/home/', path.read_text(), re.MULTILINE)
