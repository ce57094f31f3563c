"""Where a run's time goes: what is not the training itself is measured under a name."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable


class Clock:
  """Seconds by name, from the start, and since the last `lap`.

  Only differences of a clock that never goes back: the machine's date may jump.
  """

  def __init__(self):
    self._start = self._lap_start = time.perf_counter()
    self._all, self._lap = Counter(), Counter()

  @contextlib.contextmanager
  def measure(self, name: str, hidden: Callable[[], bool] = lambda: False):
    """What happens inside is called `name`, unless it was `hidden`, which is asked at its end: by
    what the devices still did meanwhile."""
    start = time.perf_counter()
    try:
      yield
    finally:
      seconds = 0.0 if hidden() else time.perf_counter() - start
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
