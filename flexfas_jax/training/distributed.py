"""How the processes of a run start, exchange values and end; a single process is a special case.

Every process calls these functions, in the same order.
"""

import os
import socket
import sys
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from flexfas_jax.errors import STOPPED, ConfigError

_FLAGS = 'give each process --distributed --coordinator=HOST:PORT --num_processes=N --process_id=I'


def start(
  coordinator: str | None = None,
  processes: int | None = None,
  process: int | None = None,
  timeout: int = 300,
) -> None:
  """Joins the other processes; call it before the first use of a device.

  Arguments that are None are read from the environment of SLURM, Kubernetes, GKE, a TPU VM or Open
  MPI.

  Args:
    coordinator: 'host:port' of process 0.
    processes: their number.
    process: number of this one, from 0.
    timeout: seconds to wait for the others.

  Raises:
    ConfigError: the others are not specified, or cannot be reached.
  """
  if coordinator is not None:
    host, _, port = coordinator.rpartition(':')
    if not host or not port.isdigit():
      raise ConfigError(f'--coordinator={coordinator} is not host:port')
    if process:
      _reach(host.strip('[]'), int(port), timeout)
  try:
    jax.distributed.initialize(coordinator, processes, process, initialization_timeout=timeout)
  except Exception as error:  # each kind of cluster, and XLA, raise their own
    lines = str(error).strip().splitlines() or [type(error).__name__]
    raise ConfigError(
      f'--distributed: the processes cannot be joined: {lines[0]}; {_FLAGS}'
    ) from error
  if processes not in (None, jax.process_count()):
    raise ConfigError(
      f'--num_processes={processes}, but the devices belong to {jax.process_count()} processes'
    )


def _reach(host: str, port: int, timeout: int) -> None:
  """Waits for process 0; if it never starts, XLA would end this process with a core dump."""
  end = time.monotonic() + timeout
  while True:
    try:
      with socket.create_connection((host, port), timeout=max(end - time.monotonic(), 0.1)):
        return
    except OSError as error:
      if time.monotonic() > end:
        raise ConfigError(
          f'--distributed: the processes cannot be joined: no answer from {host}:{port} '
          f'({error}) within {timeout} s; start process 0 there, or {_FLAGS}'
        ) from error
      time.sleep(0.2)


def check_launched_distributed(environment=os.environ) -> None:
  """Raises a ConfigError if the environment describes several processes, but --distributed is off.

  Each process would train by itself, into the same workdir.
  """
  counts = {
    'SLURM_STEP_NUM_TASKS': environment.get('SLURM_STEP_NUM_TASKS', ''),
    'OMPI_COMM_WORLD_SIZE': environment.get('OMPI_COMM_WORLD_SIZE', ''),
    'TPU_WORKER_HOSTNAMES': str(len(environment.get('TPU_WORKER_HOSTNAMES', '').split(','))),
    'JAX_NUM_PROCESSES': environment.get('JAX_NUM_PROCESSES', ''),
  }
  for name, n in counts.items():
    if n.isdigit() and int(n) > 1:
      raise ConfigError(
        f'{name} indicates that this is one of {n} processes; start each with --distributed, or '
        f'unset {name} to run a single one'
      )


def is_first() -> bool:
  """Whether this process writes and prints what all processes share."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Waits until every process has called it."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def sum_over_processes(numbers) -> np.ndarray:
  """Elementwise sum over the processes of [n] int or float."""
  numbers = np.asarray(numbers)
  if jax.process_count() == 1:
    return numbers
  return multihost_utils.process_allgather(numbers).sum(0)


def any_process(here: bool) -> bool:
  """Whether `here` is True in any process."""
  return bool(sum_over_processes([int(here)])[0])


def broadcast_str(text: str, size: int = 4096) -> str:
  """The text of the first process, in all of them; cut to `size` bytes."""
  if jax.process_count() == 1:
    return text
  data = np.zeros(size, np.uint8)
  encoded = text.encode()[:size]
  data[: len(encoded)] = np.frombuffer(encoded, np.uint8)
  data = np.asarray(multihost_utils.broadcast_one_to_all(data))
  return data.tobytes().rstrip(b'\0').decode(errors='replace')


def gather_to_host(array: jax.Array) -> np.ndarray:
  """A NumPy copy of an array, parts of which other processes may hold."""
  if array.is_fully_replicated or array.is_fully_addressable:
    return np.asarray(array)
  return multihost_utils.process_allgather(array, tiled=True)


def hard_exit(code: int) -> None:
  """Ends a failed process of several at once; does nothing for a code with which all end.

  A normal exit would wait for the other processes, which wait for this one. They notice its end
  and end as well.
  """
  # Does not touch the devices, which may be what failed.
  if code not in (0, STOPPED) and jax.distributed.is_initialized():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
