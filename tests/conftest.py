"""Harsh settings for every test: eight virtual CPU devices, and ranks never promoted silently."""

import os

import pytest

# Before jax is imported anywhere.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    '--xla_force_host_platform_device_count=8',
    # Compilation is the cost of this suite; toy programs do not need LLVM's best (3 times faster),
    # nor each fusion by way of MLIR, nor a program in modules for many cores (again 2.5 times).
    '--xla_backend_optimization_level=0',
    '--xla_llvm_disable_expensive_passes=true',
    '--xla_cpu_use_fusion_emitters=false',
    '--xla_cpu_parallel_codegen_split_count=1',
  ]
)
os.environ['JAX_NUMPY_RANK_PROMOTION'] = 'raise'


@pytest.fixture(scope='session')
def prepared(tmp_path_factory):
  """A data_dir with the embedded sets, a handful of subjects each."""
  from flexfas_jax.input_pipeline import sources

  data_dir = str(tmp_path_factory.mktemp('prepared'))
  for config in ('surf_like_tiny', 'cefa_like_tiny', 'wmca_like_tiny'):
    sources.prepare(f'rendered_faces/{config}', data_dir)
  return data_dir
