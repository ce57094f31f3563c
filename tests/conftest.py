"""Harsh settings for every test: eight virtual CPU devices, and ranks never promoted silently.

And what keeps the suite short: how programs are compiled, and which files come first.
"""

import atexit
import gc
import importlib.metadata
import os
import pathlib
import shutil
import tempfile

import pytest

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
if importlib.metadata.version('jaxlib').startswith('0.10.'):  # a flag that is not known aborts
  # Nor each fusion by way of MLIR, nor a program in modules for many cores (again 2.5 times).
  os.environ['XLA_FLAGS'] += (
    ' --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1'
  )
os.environ['JAX_NUMPY_RANK_PROMOTION'] = 'raise'
# Tracing makes many small objects, none of them garbage in circles: looking for it takes its time.
gc.set_threshold(50_000, 20, 50)
# What one process has compiled, none compiles again: the workers, and the jobs that tests start.
# In a folder of this session alone; the workers inherit its name.
if 'PYTEST_XDIST_WORKER' not in os.environ:
  os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp(prefix='compiled_')
  atexit.register(shutil.rmtree, os.environ['JAX_COMPILATION_CACHE_DIR'], ignore_errors=True)
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'

# The files that take longest: first, so that no core is left waiting for one of them at the end.
LONG = (
  'flexmodal',
  'step',
  'distributed',
  'faults',
  'loop',
  'identities',
  'protocols_on_miniatures',
  'pretrained',
  'preflight',
  'bundle',
  'members',
  'remat',
  'parity',
  'scan',
  'scoring',
)


def pytest_collection_modifyitems(items):
  place = {f'{name}_test': i for i, name in enumerate(LONG)}
  items.sort(key=lambda item: place.get(pathlib.Path(item.path).stem, len(LONG)))


@pytest.fixture(scope='session')
def prepared(tmp_path_factory):
  """A data_dir with the embedded sets, a handful of subjects each."""
  from flexfas_jax.input_pipeline import sources

  data_dir = str(tmp_path_factory.mktemp('prepared'))
  for config in ('surf_like_tiny', 'cefa_like_tiny', 'wmca_like_tiny'):
    sources.prepare(f'rendered_faces/{config}', data_dir)
  return data_dir
