"""Times as ratios: repeats are interleaved, so that what else a machine does falls on all."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

COLUMNS = ('case', 'figure', 'ratio', 'low', 'high', 'repeats', 'ours', 'other', 'unit', 'load')


def seconds(function: Callable) -> float:
  """Of one call; it returns when its work is done."""
  start = time.perf_counter()
  function()
  return time.perf_counter() - start


def interleaved(
  runs: Mapping[str, Callable], repeats: int, clock=seconds
) -> dict[str, list[float]]:
  """{name: seconds of each repeat}: each round runs everything once, after one round to warm up.

  Args:
    runs: of nothing; what they start has ended when they return.
    repeats: rounds that count.
    clock: of a run, to seconds; a run in another process tells its own.
  """
  found = {name: [] for name in runs}
  for turn in range(repeats + 1):
    for name, run in runs.items():
      took = clock(run)
      if turn:
        found[name].append(took)
  return found


def row(
  figure: str, other: Sequence[float], ours: Sequence[float], unit: str = 'ms', scale: float = 1e3
) -> dict:
  """A row of results: how many times faster `ours` is, round by round.

  Args:
    figure: what was compared.
    other, ours: seconds of the same rounds.
    unit, scale: of the medians that are told beside the ratio, `scale` units a second.
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
