"""The devices of a run: those there are, and never the CPU alone without a word."""

import os
import pathlib
from collections.abc import Sequence

import jax

from flexfas_jax.errors import ConfigError

# What drivers put there: NVIDIA's, TPU v4 and older, TPU v5 and newer.
ACCELERATORS = ('/dev/nvidia0', '/dev/accel0', '/dev/vfio/0')


def find(accelerators: Sequence[str] = ACCELERATORS) -> list[jax.Device]:
  """All devices of all processes.

  Args:
    accelerators: files that are there where the machine has one.

  Raises:
    ConfigError: those that JAX_PLATFORMS asks for are not there; or there is an accelerator that
      JAX does not see.
  """
  asked = os.environ.get('JAX_PLATFORMS', '')
  try:
    devices = jax.devices()
  except (RuntimeError, AssertionError) as error:  # the latter where no plugin is installed
    why = (str(error).splitlines() or ['there is none of them'])[0]
    raise ConfigError(
      f'JAX_PLATFORMS={asked}: {why}; unset it to take what there is, or '
      "install what it needs: pip install 'flexfas_jax[cuda]' or 'flexfas_jax[tpu]'"
    ) from error
  if jax.process_count() > 1 and not jax.distributed.is_initialized():
    raise ConfigError(
      f'these devices are those of {jax.process_count()} processes; start them with --distributed'
    )
  there = [path for path in accelerators if pathlib.Path(path).exists()]
  if devices[0].platform == 'cpu' and there and not asked:
    raise ConfigError(
      f'this machine has an accelerator ({there[0]}), and JAX sees only the CPU. Install what it '
      "needs (pip install 'flexfas_jax[cuda]' or 'flexfas_jax[tpu]'), or set JAX_PLATFORMS=cpu to "
      'do without'
    )
  return devices
