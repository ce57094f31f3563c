"""Strict settings for every test, the markers, and what keeps the suite short.

Eight virtual CPU devices, no silent rank promotion, cheap compilation, the longest files first.
"""

import collections
import fcntl
import gc
import hashlib
import importlib.metadata
import os
import pathlib
import re
import shutil
import signal
import sys

import pytest

from tests import forked, markers

# Before jax is imported anywhere.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    '--xla_force_host_platform_device_count=8',
    # Compilation is the cost of this suite; toy programs do not need LLVM's best (3 times faster).
    '--xla_backend_optimization_level=0',
    '--xla_llvm_disable_expensive_passes=true',
  ]
)
if importlib.metadata.version('jaxlib').startswith('0.10.'):  # an unknown flag aborts
  # Nor each fusion by way of MLIR, nor a program in modules for many cores (again 2.5 times).
  os.environ['XLA_FLAGS'] += (
    ' --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1'
  )
os.environ['JAX_NUMPY_RANK_PROMOTION'] = 'raise'
# Tracing makes many small objects and no cyclic garbage: collecting rarely saves time.
gc.set_threshold(50_000, 20, 50)
# asyncio.run compares SIGINT's handler with its own, which formats a whole checkpoint: signal's
# enum prints the value that it does not know.
signal.signal(signal.SIGINT, lambda *arguments: signal.default_int_handler(*arguments))
# Compiled programs are shared by the workers, the processes that tests start, and later sessions.
COMPILED = pathlib.Path(__file__).parents[1] / '.pytest_cache' / 'd' / 'compiled'
MAX_COMPILED = 10_000  # programs: of the whole suite there are 1,500, of 30 MB
if 'PYTEST_XDIST_WORKER' not in os.environ:
  os.environ['JAX_COMPILATION_CACHE_DIR'] = str(COMPILED)
  if COMPILED.exists() and len(os.listdir(COMPILED)) > MAX_COMPILED:
    shutil.rmtree(COMPILED)
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'

forked.environment()  # before a test changes it
SECONDS = 'flexfas_jax/seconds'  # in pytest's cache: {file: seconds of its tests}
_seconds = collections.Counter()


def pytest_ignore_collect(collection_path, config):
  """Spares `-m unit` and `-m 'unit or smoke'` the import of files that have no such test."""
  names = set(re.findall(r'\w+', config.option.markexpr)) - {'or'}
  if not names or not names <= {'unit', 'smoke'} or not collection_path.name.endswith('_test.py'):
    return None
  smoke = 'smoke' in names and 'mark.smoke' in collection_path.read_text()
  return True if markers.of_file(collection_path) and not smoke else None


def pytest_collection_modifyitems(config, items):
  # The longest files first, so that no core waits for one of them at the end. Where no times are
  # recorded, as in a fresh clone, a file that imports JAX is long and any other short.
  seconds = config.cache.get(SECONDS, {}) if hasattr(config, 'cache') else {}

  def expected(item):
    guess = 60 if markers.of_file(item.path) else 1
    return seconds.get(item.nodeid.partition('::')[0], guess)

  items.sort(key=expected, reverse=True)
  for item in items:
    if not any(map(item.get_closest_marker, markers.KINDS)):
      for kind in sorted(markers.of_test(item)):
        item.add_marker(kind)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
  if not item.get_closest_marker('unit'):
    return (yield)
  # In a worker that has run other tests, JAX is there already; `-m unit` has none.
  had_jax = 'jax' in sys.modules
  with markers.no_process():
    result = yield
  assert had_jax or 'jax' not in sys.modules, 'a unit test imports JAX: mark it jax'
  return result


def pytest_runtest_logreport(report):
  _seconds[report.nodeid.partition('::')[0]] += report.duration


def pytest_sessionfinish(session):
  option = session.config.option
  # A worker's reports reach the main process; a selection of tests is not the time of a file.
  cached = hasattr(session.config, 'cache')  # not with -p no:cacheprovider
  if cached and not (hasattr(session.config, 'workerinput') or option.markexpr or option.keyword):
    rounded = {file: round(seconds, 1) for file, seconds in _seconds.items()}
    cache = session.config.cache
    cache.set(SECONDS, cache.get(SECONDS, {}) | rounded)


@pytest.fixture(scope='session')
def prepared(pytestconfig, tmp_path_factory):
  """A data_dir with the rendered sets, a handful of subjects each; tests only read it.

  It is kept in pytest's cache, named by the digest of what makes it.
  """
  from flexfas_jax.input_pipeline import sources

  cached = hasattr(pytestconfig, 'cache')  # not with -p no:cacheprovider
  root = pytestconfig.cache.mkdir('prepared') if cached else tmp_path_factory.mktemp('prepared')
  data_dir = root / _digest_of_rendered_sets()
  with open(root / 'lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)  # one worker builds, the others wait
    if not data_dir.exists():
      for old in root.glob('*/'):
        shutil.rmtree(old)
      first = ('v1_surf_like', 'v1_wmca_like')  # of the protocol rendered_mm_fas
      for config in ('surf_like', 'cefa_like', 'wmca_like', 'padisi_like', *first):
        sources.prepare(f'rendered_faces/{config}_tiny', str(root / 'unfinished'))
      (root / 'unfinished').rename(data_dir)
  return str(data_dir)


@pytest.fixture(scope='session')
def small_run(prepared, tmp_path_factory):
  """The workdir of `small_job`, trained and evaluated once for all workers; tests only read it."""
  from tests import small_job

  base = tmp_path_factory.getbasetemp()
  folder = (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base) / 'small_run'
  folder.mkdir(exist_ok=True)
  with open(folder / 'lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not (folder / 'run' / 'results.json').exists():
      config = small_job.write_config(folder / 'small.py', prepared)
      ((code, _, stderr),) = small_job.finish(small_job.start(config, folder / 'run', 1, 1))
      assert code == 0, stderr
  return folder / 'run'


def _digest_of_rendered_sets() -> str:
  modules = markers.reach(
    [
      'flexfas_jax.data.rendered_faces.rendered_faces_dataset_builder',
      'flexfas_jax.input_pipeline.sources',
    ]
  )
  paths = {path for module in modules if (path := markers.path_of(module))}
  folder = pathlib.Path(__file__).parents[1] / 'data' / 'rendered_faces'
  paths.update((*folder.rglob('*.py'), *folder.rglob('*.npz')))
  digest = hashlib.sha256()
  for path in sorted(paths):
    digest.update(path.read_bytes())
  for library in ('tensorflow-datasets', 'array-record', 'numpy', 'opencv-python-headless'):
    digest.update(importlib.metadata.version(library).encode())
  return digest.hexdigest()[:16]
