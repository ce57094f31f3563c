"""Does the ranking of models hold from one training to the next?"""

import itertools
import statistics
from collections.abc import Callable, Mapping

import numpy as np
from scipy import stats


def taus(rates: Mapping[int, Mapping[str, float]]) -> dict[tuple[int, int], float]:
  """Kendall's tau-b of every pair of seeds: 1 where they rank all models alike, 0 by chance.

  Args:
    rates: by seed, a rate of every model. Models that a seed lacks are left out.
  """
  first = next(iter(rates.values()))
  models = [name for name in first if all(name in of for of in rates.values())]
  ranks = {seed: [of[name] for name in models] for seed, of in rates.items()}
  return {
    (a, b): float(stats.kendalltau(ranks[a], ranks[b]).statistic)
    for a, b in itertools.combinations(ranks, 2)
  }


def mean_tau(rates: Mapping[int, Mapping[str, float]]) -> float:
  """The mean of `taus`."""
  return statistics.fmean(taus(rates).values())


def agreement(
  rates: Mapping[int, Mapping[str, float]], counts: Callable[[str, str], bool]
) -> float:
  """Of some pairs of models: 1 where all pairs of seeds order them alike, 0 by chance.

  Args:
    rates: as in `taus`. A tie of a seed adds 0.
    counts: whether a pair of models counts; NaN if none does.
  """
  first = next(iter(rates.values()))
  models = [name for name in first if all(name in of for of in rates.values())]
  found = [
    np.sign(x[a] - x[b]) * np.sign(y[a] - y[b])
    for a, b in itertools.combinations(models, 2)
    if counts(a, b)
    for x, y in itertools.combinations(rates.values(), 2)
  ]
  return float(np.mean(found)) if found else float('nan')
