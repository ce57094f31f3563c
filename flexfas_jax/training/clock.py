"""Where a run's time goes: what is not the training itself is measured under a name."""

import contextlib
import time
from collections import Counter


class Clock:
  """Seconds by name, from the start, and since the last `lap`.

  Only differences of a clock that never goes back: the machine's date may jump.
  """

  def __init__(self):
    self._start = self._lap_start = time.perf_counter()
    self._all, self._lap = Counter(), Counter()

  @contextlib.contextmanager
  def measure(self, name: str):
    """What happens inside is called `name`."""
    start = time.perf_counter()
    try:
      yield
    finally:
      seconds = time.perf_counter() - start
      self._all[name] += seconds
      self._lap[name] += seconds

  def lap(self) -> tuple[float, Counter]:
    """(seconds since the last lap, of these by name); begins another."""
    now = time.perf_counter()
    found = now - self._lap_start, self._lap
    self._lap_start, self._lap = now, Counter()
    return found

  def total(self) -> tuple[float, Counter]:
    """(seconds since the start, of these by name)."""
    return time.perf_counter() - self._start, self._all
