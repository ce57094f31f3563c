"""Measures how much of a run's time is spent on what, by name."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable


class Clock:
  """Seconds by name, since the start and since the last `lap`.

  It uses a monotonic clock, since the system's date may jump.
  """

  def __init__(self):
    self._start = self._lap_start = time.perf_counter()
    self._total, self._lap = Counter(), Counter()

  @contextlib.contextmanager
  def measure(self, name: str, hidden: Callable[[], bool] = lambda: False):
    """Adds the time of the block to `name`.

    Args:
      name: of the activity.
      hidden: called at the end; True if the devices were busy all the time, so that the block cost
        none.
    """
    start = time.perf_counter()
    try:
      yield
    finally:
      seconds = 0.0 if hidden() else time.perf_counter() - start
      self._total[name] += seconds
      self._lap[name] += seconds

  def lap(self) -> tuple[float, Counter]:
    """(seconds since the last lap, seconds of these by name); starts the next lap."""
    now = time.perf_counter()
    lap = now - self._lap_start, self._lap
    self._lap_start, self._lap = now, Counter()
    return lap

  def total(self) -> tuple[float, Counter]:
    """(seconds since the start, seconds of these by name)."""
    return time.perf_counter() - self._start, self._total
