"""The devices of a run; never silently the CPU on a machine with an accelerator."""

import os
import pathlib
from collections.abc import Sequence

import jax

from flexfas_jax.errors import ConfigError

# Device files of drivers: NVIDIA, TPU v4 and older, TPU v5 and newer.
ACCELERATORS = ('/dev/nvidia0', '/dev/accel0', '/dev/vfio/0')


# Settings that change random numbers.
_RANDOM = {'jax_default_prng_impl': 'threefry2x32', 'jax_threefry_partitionable': True}


def check_settings() -> None:
  """Raises a ConfigError if JAX's precision or random numbers are not those of every other run."""
  if jax.config.jax_enable_x64:
    raise ConfigError(
      'JAX_ENABLE_X64 is set: part of the parameters, the optimizer state and the losses would be '
      'float64, which no other run of this config has; unset it'
    )
  for name, default in _RANDOM.items():
    if (value := getattr(jax.config, name)) != default:
      raise ConfigError(
        f'{name.upper()} is {value}: initial weights and dropout would be drawn from other random '
        f'numbers than those of the same config and seed elsewhere; unset it ({default})'
      )


def find_devices(accelerators: Sequence[str] = ACCELERATORS) -> list[jax.Device]:
  """All devices of all processes.

  Args:
    accelerators: files, one of which exists if the machine has an accelerator.

  Raises:
    ConfigError: the platform in JAX_PLATFORMS is not available, or JAX does not see the machine's
      accelerator.
  """
  platforms = os.environ.get('JAX_PLATFORMS', '')
  try:
    devices = jax.devices()
  except (RuntimeError, AssertionError) as error:  # AssertionError: no plugin
    why = (str(error).splitlines() or ['no such device'])[0]
    raise ConfigError(
      f'JAX_PLATFORMS={platforms}: {why}; unset it to use the available '
      "devices, or install its extra: pip install 'flexfas_jax[cuda]' or 'flexfas_jax[tpu]'"
    ) from error
  if jax.process_count() > 1 and not jax.distributed.is_initialized():
    raise ConfigError(
      f'the devices belong to {jax.process_count()} processes; start each with --distributed'
    )
  present = [path for path in accelerators if pathlib.Path(path).exists()]
  if devices[0].platform == 'cpu' and present and not platforms:
    raise ConfigError(
      f'this machine has an accelerator ({present[0]}), but JAX sees only the CPU. Install its '
      "extra (pip install 'flexfas_jax[cuda]' or 'flexfas_jax[tpu]'), or set JAX_PLATFORMS=cpu to "
      'use the CPU'
    )
  return devices
