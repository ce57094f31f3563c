"""Batches that worker processes make, for machines on which threads wait for Python's lock.

A batch is a function of its number. This process keeps the position and hands out numbers; a worker
writes the batch into shared memory, and it is copied from there. So neither the number of workers
nor the one that makes a batch changes anything, and nothing of a worker is saved.
"""

import math
import os
import queue
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.shared_memory import SharedMemory
from typing import Any, NamedTuple

import numpy as np

from flexfas_jax.errors import ConfigError
from flexfas_jax.images import worker_pool

_ALIGNED = 64  # bytes
_SHARED = '/dev/shm'  # where Linux keeps shared memory; in containers it may be small


class Array(NamedTuple):
  """An array of a batch."""

  shape: tuple[int, ...]
  dtype: np.dtype


Spec = Mapping[str, Array]
# Writes the batch of a number into arrays; picklable.
Make = Callable[[int, Mapping[str, np.ndarray]], Any]


class BatchProcesses:
  """`batches(number)` is the batch of that number, made by one of some worker processes.

  Threads may call it at the same time, up to `count + 1` of them; others wait.

  Args:
    make: of a batch.
    spec: of all batches.
    count: number of processes.

  Raises:
    ConfigError: too little shared memory.
  """

  def __init__(self, make: Make, spec: Spec, count: int):
    self._spec, size = dict(spec), _places(spec)[1]
    self.threads = count + 1  # while one batch is copied, all workers are busy
    if os.path.isdir(_SHARED):
      free = os.statvfs(_SHARED)
      if self.threads * size > (there := free.f_bavail * free.f_frsize):
        raise ConfigError(
          f'--input_processes={count} needs {self.threads * size / 2**20:.0f} MB in {_SHARED}, '
          f'which has {there / 2**20:.0f} MB: give fewer, 0 (threads), or a container more '
          '(docker run --shm-size)'
        )
    blocks = [SharedMemory(create=True, size=size) for _ in range(self.threads)]
    self._free: queue.SimpleQueue[SharedMemory] = queue.SimpleQueue()
    for block in blocks:
      self._free.put(block)
    self._pool = worker_pool.start_processes(count, _open, make)
    self.close = weakref.finalize(self, _close, self._pool, blocks)

  def __call__(self, number: int) -> dict[str, np.ndarray]:
    block = self._free.get()
    try:
      with worker_pool.without_main():
        made = self._pool.submit(_fill, number, block.name, self._spec)
      made.result()
      return {name: view.copy() for name, view in _views(block, self._spec).items()}
    except BrokenProcessPool as error:
      raise ConfigError(
        'a process that makes batches has ended, perhaps for lack of memory: give fewer by '
        '--input_processes'
      ) from error
    finally:
      self._free.put(block)


def _close(pool: ProcessPoolExecutor, blocks: Sequence[SharedMemory]) -> None:
  pool.shutdown(cancel_futures=True)
  for block in blocks:
    block.close()
    block.unlink()


def _places(spec: Spec) -> tuple[dict[str, int], int]:
  """({array: its first byte}, bytes of all)."""
  places, end = {}, 0
  for name, array in spec.items():
    places[name] = end
    end += -(-math.prod(array.shape) * array.dtype.itemsize // _ALIGNED) * _ALIGNED
  return places, max(end, 1)


def _views(block: SharedMemory, spec: Spec) -> dict[str, np.ndarray]:
  places, _ = _places(spec)
  return {
    name: np.ndarray(array.shape, array.dtype, block.buf, places[name])
    for name, array in spec.items()
  }


# In a worker: what makes its batches, and the blocks that it has seen.
_made: list[Make] = []
_blocks: dict[str, SharedMemory] = {}


def _open(make: Make) -> None:
  _made.append(make)


def _fill(number: int, name: str, spec: Spec) -> None:
  if name not in _blocks:
    _blocks[name] = SharedMemory(name)
  _made[0](number, _views(_blocks[name], spec))
