"""Times as ratios. Repeats are interleaved, so that other load on the machine affects all alike."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

COLUMNS = ('case', 'figure', 'ratio', 'low', 'high', 'repeats', 'ours', 'other', 'unit', 'load')


def seconds(function: Callable) -> float:
  """Seconds of one call, which returns when its work has ended."""
  start = time.perf_counter()
  function()
  return time.perf_counter() - start


def interleaved(
  runs: Mapping[str, Callable], repeats: int, clock=seconds
) -> dict[str, list[float]]:
  """{name: seconds of each repeat}: each round runs everything once, after one round to warm up.

  Args:
    runs: functions without arguments; their work has ended when they return.
    repeats: rounds that count.
    clock: runs a function and returns seconds; another process may measure itself.
  """
  times = {name: [] for name in runs}
  for turn in range(repeats + 1):
    for name, run in runs.items():
      elapsed = clock(run)
      if turn:
        times[name].append(elapsed)
  return times


def row(
  figure: str, other: Sequence[float], ours: Sequence[float], unit: str = 'ms', scale: float = 1e3
) -> dict:
  """A row of results: how many times faster `ours` is, round by round.

  Args:
    figure: description of the comparison.
    other, ours: seconds of the same rounds.
    unit, scale: of the reported medians, `scale` units a second.
  """
  ratios = [b / a for a, b in zip(ours, other, strict=True)]
  return {
    'figure': figure,
    'ratio': f'{statistics.median(ratios):.3g}',
    'low': f'{min(ratios):.3g}',
    'high': f'{max(ratios):.3g}',
    'repeats': len(ratios),
    'ours': f'{scale * statistics.median(ours):.4g}',
    'other': f'{scale * statistics.median(other):.4g}',
    'unit': unit,
    'load': f'{os.getloadavg()[0]:.1f}',
  }
