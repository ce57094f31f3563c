"""Several processes as one: how they start, agree and end. One process is the simplest case of it.

Everything here is called by every process, in the same order.
"""

import os
import socket
import sys
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from flexfas_jax.errors import STOPPED, ConfigError

_WAY_OUT = (
  'give each process --distributed --coordinator=HOST:PORT --num_processes=N --process_id=I'
)


def start(
  coordinator: str | None = None,
  processes: int | None = None,
  process: int | None = None,
  timeout: int = 300,
) -> None:
  """Joins the other processes; call it before anything asks for a device.

  Args:
    coordinator: 'host:port' of process 0. What is None is found in what SLURM, Kubernetes, GKE, a
      TPU VM or Open MPI leave in the environment.
    processes: how many there are.
    process: which of them this is, from 0.
    timeout: seconds until those must be there.

  Raises:
    ConfigError: it cannot be found who the others are, or they cannot be reached.
  """
  if coordinator is not None:
    host, _, port = coordinator.rpartition(':')
    if not host or not port.isdigit():
      raise ConfigError(f'--coordinator={coordinator} is not host:port')
    if process:
      _reach(host.strip('[]'), int(port), timeout)
  try:
    jax.distributed.initialize(coordinator, processes, process, initialization_timeout=timeout)
  except Exception as error:  # what each kind of cluster raises, and what XLA does
    said = str(error).strip().splitlines() or [type(error).__name__]
    raise ConfigError(
      f'--distributed: the processes cannot be joined: {said[0]}; {_WAY_OUT}'
    ) from error
  if processes not in (None, jax.process_count()):
    raise ConfigError(
      f'--num_processes={processes}, and the devices are those of {jax.process_count()} processes'
    )


def _reach(host: str, port: int, timeout: int) -> None:
  """Waits for process 0: where it never comes, XLA ends the process with a core dump."""
  end = time.monotonic() + timeout
  while True:
    try:
      with socket.create_connection((host, port), timeout=max(end - time.monotonic(), 0.1)):
        return
    except OSError as error:
      if time.monotonic() > end:
        raise ConfigError(
          f'--distributed: the processes cannot be joined: nobody answers at {host}:{port} '
          f'({error}) within {timeout} s; start process 0 there, or {_WAY_OUT}'
        ) from error
      time.sleep(0.2)


def check_launched_distributed(environment=os.environ) -> None:
  """Raises a ConfigError where the environment says that there are others, without --distributed:
  each would train by itself, into the same workdir."""
  said = {
    'SLURM_STEP_NUM_TASKS': environment.get('SLURM_STEP_NUM_TASKS', ''),
    'OMPI_COMM_WORLD_SIZE': environment.get('OMPI_COMM_WORLD_SIZE', ''),
    'TPU_WORKER_HOSTNAMES': str(len(environment.get('TPU_WORKER_HOSTNAMES', '').split(','))),
    'JAX_NUM_PROCESSES': environment.get('JAX_NUM_PROCESSES', ''),
  }
  for name, n in said.items():
    if n.isdigit() and int(n) > 1:
      raise ConfigError(
        f'{name} says that this is one of {n} processes; start them with --distributed, or unset '
        f'{name} for one by itself'
      )


def is_first() -> bool:
  """Whether this process writes what there is to be written once."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Waits until every process is here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def sum_over_processes(numbers) -> np.ndarray:
  """The sum over the processes of what each has; [n] int or float."""
  numbers = np.asarray(numbers)
  if jax.process_count() == 1:
    return numbers
  return multihost_utils.process_allgather(numbers).sum(0)


def any_process(here: bool) -> bool:
  """Whether it is so in any process."""
  return bool(sum_over_processes([int(here)])[0])


def broadcast_str(text: str, size: int = 4096) -> str:
  """What the first process says, in all of them; cut to `size` bytes."""
  if jax.process_count() == 1:
    return text
  data = np.zeros(size, np.uint8)
  encoded = text.encode()[:size]
  data[: len(encoded)] = np.frombuffer(encoded, np.uint8)
  data = np.asarray(multihost_utils.broadcast_one_to_all(data))
  return data.tobytes().rstrip(b'\0').decode(errors='replace')


def gather_to_host(array: jax.Array) -> np.ndarray:
  """An array as NumPy's, also where other processes hold parts of it."""
  if array.is_fully_replicated or array.is_fully_addressable:
    return np.asarray(array)
  return multihost_utils.process_allgather(array, tiled=True)


def hard_exit(code: int) -> None:
  """Ends one of several processes that failed: the usual end waits for the others, who wait for
  this one; without it they notice and end as well. Does nothing where all end together."""
  # Never asks jax for devices, which may be what failed.
  if code not in (0, STOPPED) and jax.distributed.is_initialized():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
