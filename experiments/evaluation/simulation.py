"""Simulated tests on all cores: how many of their intervals contain the truth."""

import concurrent.futures
import csv
import math
import pathlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from flexfas_jax.evaluation.intervals import Interval

COLUMNS = ('tests', 'coverage_percent', 'too_low_percent', 'too_high_percent', 'mean_width')


class Span(NamedTuple):
  """An interval of a simulated test."""

  key: Hashable  # of the same kind of interval in every test
  truth: float  # that it should contain
  interval: Interval


class Tally(NamedTuple):
  """Intervals of one kind; an undefined interval is none."""

  tests: int = 0
  too_low: int = 0
  too_high: int = 0
  width: float = 0.0  # the sum

  def plus(self, other: 'Tally') -> 'Tally':
    """Both."""
    return Tally(*(a + b for a, b in zip(self, other, strict=True)))

  def row(self) -> dict[str, str]:
    """The cells of `COLUMNS`."""
    n, low, high, width = self
    covered, *shares = (f'{100 * k / n:.2f}' for k in (n - low - high, low, high))
    return dict(zip(COLUMNS, (str(n), covered, *shares, f'{width / n:.5f}'), strict=True))


def count(spans: Iterable[Span]) -> dict[Hashable, Tally]:
  """Counts intervals by kind."""
  found: dict[Hashable, Tally] = {}
  for key, truth, (low, high) in spans:
    if not math.isnan(low):
      one = Tally(1, int(high < truth), int(low > truth), high - low)
      found[key] = found.get(key, Tally()).plus(one)
  return found


def run(
  pool: concurrent.futures.Executor,
  parts: int,
  tests: int,
  simulate: Callable[..., Iterator[Span]],
  *args,
) -> dict[Hashable, Tally]:
  """Simulates tests in a pool of processes and counts their intervals by kind.

  Args:
    pool: the processes.
    parts: the number of tasks, at most that of tests.
    tests: their number; each has its own seed, so that `parts` does not change the result.
    simulate: called with the number of a test and `args`; yields its intervals.
    *args: passed on.
  """
  edges = np.linspace(0, tests, min(parts, tests) + 1).astype(int).tolist()
  tasks = [
    pool.submit(_simulate, range(a, b), simulate, args)
    for a, b in zip(edges[:-1], edges[1:], strict=True)
  ]
  found: dict[Hashable, Tally] = {}
  for task in tasks:
    for key, tally in task.result().items():
      found[key] = found.get(key, Tally()).plus(tally)
  return found


def _simulate(tests: range, simulate, args) -> dict[Hashable, Tally]:
  return count(span for test in tests for span in simulate(test, *args))


def write(path: pathlib.Path, columns: Sequence[str], rows: Iterable[dict]) -> None:
  """Writes a table as CSV."""
  with path.open('w', newline='') as file:
    writer = csv.DictWriter(file, columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
