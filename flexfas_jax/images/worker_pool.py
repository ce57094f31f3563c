"""The same function over many tasks, on all cores, in order: rendering, reading, checking files."""

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

_AHEAD = 4  # tasks per worker that are begun before their results are wanted


def cores() -> int:
  """How many this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


class Workers:
  """Processes that end with the `with` block that they are used in.

  Args:
    count: how many; None takes one per core, 1 does the work in this process. Results do not
      depend on it.
  """

  def __init__(self, count: int | None = None):
    self.count = count or cores()
    self._pool = None

  def __enter__(self):
    return self

  def __exit__(self, *_):
    if self._pool:
      self._pool.shutdown(cancel_futures=True)
      self._pool = None

  def map(self, function: Callable, tasks: Iterable, few: int = 2) -> Iterator:
    """Results in the order of the tasks; both may be more than memory holds.

    Args:
      function: picklable, as tasks and results are.
      tasks: an argument each.
      few: so many tasks are done here, before a process would have started.
    """
    tasks = iter(tasks)
    first = [task for _, task in zip(range(few), tasks, strict=False)]
    if self.count == 1 or len(first) < few:
      yield from map(function, first)
      yield from map(function, tasks)
      return
    if self._pool is None:
      # Never fork: the parent may hold an accelerator and its threads.
      spawn = multiprocessing.get_context('spawn')
      self._pool = concurrent.futures.ProcessPoolExecutor(self.count, spawn, _start)
    queue = collections.deque()
    for source in (first, tasks):
      for task in source:
        with _without_main():
          queue.append(self._pool.submit(function, task))
        if len(queue) > _AHEAD * self.count:
          yield queue.popleft().result()
    while queue:
      yield queue.popleft().result()


@contextlib.contextmanager
def _without_main():
  """Processes that start meanwhile do not import the main program again.

  They need nothing of it, and it may be large (a training job imports JAX) or unguarded.
  """
  main = sys.modules['__main__']
  sys.modules['__main__'] = types.ModuleType('__main__')
  try:
    yield
  finally:
    sys.modules['__main__'] = main


def _start():
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends its workers
  cv2.setNumThreads(1)

  def end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=end_with_parent, daemon=True).start()
