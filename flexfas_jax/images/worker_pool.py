"""Maps a function over tasks on all cores, in order: rendering, reading, checking files."""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator

import cv2

_AHEAD = 4  # tasks per worker that are started before their results are requested


def count_cores() -> int:
  """The number of cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


class Workers:
  """Worker processes of a `with` block; they end with it.

  Args:
    count: number of processes; None: one per core; 1: work in this process. Results do not depend
      on it.
  """

  def __init__(self, count: int | None = None):
    self.count = count or count_cores()
    self._pool = None

  def __enter__(self):
    return self

  def __exit__(self, *_):
    if self._pool:
      self._pool.shutdown(cancel_futures=True)
      self._pool = None

  def map(self, function: Callable, tasks: Iterable, few: int = 2) -> Iterator:
    """Yields results in the order of the tasks; neither is held in memory at once.

    Args:
      function: picklable, as are tasks and results.
      tasks: one argument each.
      few: fewer tasks than this run in this process: starting others takes longer.
    """
    tasks = iter(tasks)
    first = [task for _, task in zip(range(few), tasks, strict=False)]
    if self.count == 1 or len(first) < few:
      yield from map(function, first)
      yield from map(function, tasks)
      return
    if self._pool is None:
      self._pool = start_processes(self.count)
    queue = collections.deque()
    for source in (first, tasks):
      for task in source:
        with without_main():
          queue.append(self._pool.submit(function, task))
        if len(queue) > _AHEAD * self.count:
          yield queue.popleft().result()
    while queue:
      yield queue.popleft().result()


def start_processes(count: int, prepare: Callable | None = None, *arguments):
  """A pool of worker processes, which start with the first tasks; see `without_main`.

  Args:
    count: number of processes.
    prepare: called with `arguments` at the start of each; picklable.

  Returns:
    A `concurrent.futures.ProcessPoolExecutor`.
  """
  # Never fork: the parent may hold an accelerator and its threads.
  spawn = multiprocessing.get_context('spawn')
  return concurrent.futures.ProcessPoolExecutor(count, spawn, _start, (prepare, *arguments))


@contextlib.contextmanager
def without_main():
  """Keeps processes that start in this context from importing the main program.

  They do not need it, and it may be large (a training job imports JAX) or unguarded.
  """
  main = sys.modules['__main__']
  sys.modules['__main__'] = types.ModuleType('__main__')
  try:
    yield
  finally:
    sys.modules['__main__'] = main


def _start(prepare: Callable | None = None, *arguments):
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets the signal and ends its workers
  cv2.setNumThreads(1)

  def end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=end_with_parent, daemon=True).start()
  if prepare:
    prepare(*arguments)
