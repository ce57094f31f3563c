"""How the processes of a run start, exchange values and end; a single process is a special case.

Every process calls these functions, in the same order.
"""

import itertools
import os
import sys
import threading

import jax
import numpy as np
from jax._src.distributed import global_state  # its client has no public name
from jax.experimental import multihost_utils

from flexfas_jax.errors import (
  STOPPED,
  ConfigError,
  DataError,
  FlexfasError,
  StateError,
  TemporaryError,
)

# Variables in which launchers state the number of processes: JAX's, Open MPI's, MPICH's and
# Intel's, MVAPICH's, Flux's, jsrun's, torchrun's and Kubeflow's, and several TPU slices'.
_COUNTS = (
  *('JAX_NUM_PROCESSES', 'OMPI_COMM_WORLD_SIZE', 'PMI_SIZE', 'MV2_COMM_WORLD_SIZE'),
  *('FLUX_JOB_SIZE', 'JSM_NAMESPACE_SIZE', 'WORLD_SIZE', 'MEGASCALE_NUM_SLICES'),
)
# For the others, of which one may wait for a lock or read more slowly. One that has died ends all
# within 100 s.
_MEETING_SECONDS = 3600
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
    ConfigError: the others are not specified.
    TemporaryError: they did not start in time, or cannot be reached.
  """
  if coordinator is not None:
    host, _, port = coordinator.rpartition(':')
    if not host or not port.isdigit():
      raise ConfigError(f'--coordinator={coordinator} is not host:port')
  try:
    joined = _initialize(coordinator, processes, process, timeout)
  except Exception as error:  # each kind of cluster, and XLA, raise their own
    lines = str(error).strip().splitlines() or [type(error).__name__]
    kind = TemporaryError if isinstance(error, jax.errors.JaxRuntimeError) else ConfigError
    raise kind(f'--distributed: the processes cannot be joined: {lines[0]}; {_FLAGS}') from error
  if not joined:
    raise TemporaryError(
      f'--distributed: the processes cannot be joined: not all of them started within {timeout} s '
      f'(--connect_seconds); rerun the command in all of them, look for their messages, or {_FLAGS}'
    )
  if processes not in (None, jax.process_count()):
    raise ConfigError(
      f'--num_processes={processes}, but the devices belong to {jax.process_count()} processes'
    )


def _initialize(
  coordinator: str | None, processes: int | None, process: int | None, timeout: int
) -> bool:
  """`jax.distributed.initialize`; False if it takes too long.

  At its own timeout XLA would end this process with a core dump, so the wait is ours, and XLA's
  is longer. The thread that still waits ends with the process.
  """
  errors: list[Exception] = []

  def initialize() -> None:
    try:
      jax.distributed.initialize(
        coordinator, processes, process, initialization_timeout=timeout + 600
      )
    except Exception as error:
      errors.append(error)

  thread = threading.Thread(target=initialize, daemon=True)
  thread.start()
  thread.join(timeout)
  if errors:
    raise errors[0]
  return not thread.is_alive()


def check_launched_distributed(environment=os.environ) -> None:
  """Raises a ConfigError if the environment describes several processes, but --distributed is off.

  Each process would train by itself, into the same workdir.
  """
  # A job of several tasks may run a step of one.
  slurm = 'SLURM_STEP_NUM_TASKS' if 'SLURM_STEP_NUM_TASKS' in environment else 'SLURM_NTASKS'
  counts = {name: environment.get(name, '') for name in (slurm, *_COUNTS)}
  hosts = environment.get('TPU_WORKER_HOSTNAMES', '')
  counts['TPU_WORKER_HOSTNAMES'] = str(len(hosts.split(',')))
  for name, n in counts.items():
    if n.isdigit() and int(n) > 1:
      part = 'slices' if name == 'MEGASCALE_NUM_SLICES' else 'processes'
      raise ConfigError(
        f'{name} indicates that this is one of {n} {part}; start each with --distributed, '
        f'or unset {name} to run a single one'
      )


def is_first() -> bool:
  """Whether this process writes and prints what all processes share."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Waits until every process has called it, without the devices.

  The first processes that enter a computation over all devices wait only half a minute for the
  last one (Gloo). So each such computation follows a barrier, if one process may be late.
  """
  if jax.process_count() > 1:
    key = f'flexfas {next(_meetings)} {name}'
    global_state.client.wait_at_barrier(key, timeout_in_ms=1000 * _MEETING_SECONDS)


def compile_everywhere(function, *arguments) -> None:
  """Compiles a function under `jit` that uses all devices, and waits until all processes have.

  The next call with such arguments then begins in all of them at once.
  """
  if jax.process_count() > 1:
    function.lower(*arguments).compile()
    barrier('compiled')


_meetings = itertools.count()  # no two barriers have one key


def raise_first(problem: FlexfasError | None) -> None:
  """Raises the error of the first process in all of them.

  Args:
    problem: None: there is none; of the other processes, it is ignored.

  Raises:
    FlexfasError: of the kind that has its exit code.
  """
  if text := broadcast_str(f'{problem.exit_code} {problem}' if problem else ''):
    code, _, message = text.partition(' ')
    kinds = {kind.exit_code: kind for kind in (ConfigError, DataError, StateError, TemporaryError)}
    raise kinds[int(code)](message) from problem


def sum_over_processes(numbers) -> np.ndarray:
  """Elementwise sum over the processes of [n] int or float."""
  numbers = np.asarray(numbers)
  if jax.process_count() == 1:
    return numbers
  barrier('sum')
  return multihost_utils.process_allgather(numbers).sum(0)


def any_process(here: bool) -> bool:
  """Whether `here` is True in any process."""
  return bool(sum_over_processes([int(here)])[0])


def broadcast_str(text: str, size: int = 4096) -> str:
  """The text of the first process, in all of them; cut to `size` bytes."""
  if jax.process_count() == 1:
    return text
  barrier('broadcast')
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
