"""Several looks at one sample: columns called SUBSET@VIEW, and their mean."""

import dataclasses

import numpy as np

from flexfas_jax.evaluation import exact_mean
from flexfas_jax.evaluation.score_files import Scores


def average_views(scores: Scores) -> Scores:
  """The mean of each subset's views, in columns called SUBSET; without views, what is given.

  Args:
    scores: its columns called SUBSET@VIEW. The mean of a sample of which a view is NaN is NaN.
  """
  of = {}
  for column in scores.scores:
    of.setdefault(column.partition('@')[0], []).append(column)
  if list(of) == list(scores.scores):
    return scores
  faults = {
    subset: np.unique(np.concatenate([scores.nan_samples.get(c, ()) for c in columns]).astype(int))
    for subset, columns in of.items()
  }
  return dataclasses.replace(
    scores,
    scores={
      subset: exact_mean.column_means(np.stack([scores.scores[c] for c in columns]))
      for subset, columns in of.items()
    },
    nan_samples={subset: at for subset, at in faults.items() if at.size},
  )
