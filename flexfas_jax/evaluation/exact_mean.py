"""Means that no rounding on the way decides: of the decimals that name the scores, rounded once.

Three frames of 0.7 have a mean of 0.7, and 0.1 and 0.2 one of 0.15, which sums in float64 miss by
their last bit. A threshold of 0.7 or 0.15 is then decided by that bit, and by the order of the
rows. Here a float64 counts as the shortest decimal that is read back as it (what `repr` shows, and
what a score file states), sums of decimals are exact, and only the quotient is rounded.
"""

import decimal
from collections.abc import Sequence

import numpy as np

# Sums of products of two float64, from 1e-647 to 1e617, without any rounding.
_EXACT = decimal.Context(prec=1400, traps=[decimal.Inexact, decimal.InvalidOperation])


def group_means(score: np.ndarray, group: np.ndarray, n: int) -> np.ndarray:
  """The mean of each group.

  Args:
    score: [N] float64, finite.
    group: [N] int, from 0 to n - 1.
    n: how many groups there are.

  Returns:
    [n] float64, NaN for a group without a score.
  """
  order = np.lexsort((score, group))
  score, count = score[order], np.bincount(group, minlength=n)
  end = np.cumsum(count)
  start, found, some = end - count, np.full(n, np.nan), count > 0
  found[some] = score[start[some]]  # the lowest, which is the mean where all are equal
  unequal = np.flatnonzero(some)[score[start[some]] < score[end[some] - 1]]
  with decimal.localcontext(_EXACT):
    found[unequal] = [
      _mean(score[a:b].tolist(), None)
      for a, b in zip(start[unequal].tolist(), end[unequal].tolist(), strict=True)
    ]
  return found


def column_means(values: np.ndarray, weights: Sequence[float] | None = None) -> np.ndarray:
  """The mean over the first axis, weighted or not.

  Args:
    values: [P, N] float64, finite or NaN.
    weights: [P], not negative, one of them positive; all alike if None.

  Returns:
    [N] float64 between the least and the largest of each column, NaN where one is NaN.
  """
  found = np.where(np.isnan(values).any(0), np.nan, values[0])
  unequal = np.flatnonzero(values.min(0) < values.max(0))  # false where one is NaN
  with decimal.localcontext(_EXACT):
    of = None if weights is None else list(map(decimal.Decimal, map(repr, map(float, weights))))
    found[unequal] = [_mean(column, of) for column in values[:, unequal].T.tolist()]
  return found


def _mean(values: list[float], weights: list[decimal.Decimal] | None) -> float:
  terms = map(decimal.Decimal, map(repr, values))
  if weights is None:
    total, weight = sum(terms), (len(values), 1)
  else:
    total = sum(x * w for x, w in zip(terms, weights, strict=True))
    weight = sum(weights).as_integer_ratio()
  above, below = total.as_integer_ratio()
  return above * weight[1] / (below * weight[0])  # Python rounds a quotient of integers once
