"""Modalities that a sample was given and that carry no signal: who has such, and what they cost.

Evaluation counts such a modality as absent; prediction counts the sample as a failure to acquire
unless that modality may be absent. A score file names them in the column of text `unusable`, so
that the figures can be stated both ways.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from flexfas_jax.evaluation import metrics
from flexfas_jax.evaluation.score_files import Scores
from flexfas_jax.schema import subset_name

COLUMN = 'unusable'


def add_column(scores: Scores, modalities: Sequence[str], unusable: np.ndarray) -> Scores:
  """Scores with the column `unusable`; unchanged where no sample has such a modality.

  Args:
    scores: of N samples.
    modalities: M of them.
    unusable: [N, M] bool: given, and without signal.
  """
  if not unusable.any():
    return scores
  names = [subset_name([m for m, is_ in zip(modalities, row, strict=True) if is_])
           for row in unusable]  # fmt: skip
  return dataclasses.replace(scores, extra={**scores.extra, COLUMN: np.array(names)})


def affected(scores: Scores, subset: str) -> np.ndarray:
  """Whether a sample has an unusable modality of a subset, [N] bool.

  Args:
    scores: of N samples.
    subset: the name of their column; of several systems and views 'SYSTEM: SUBSET@VIEW'.
  """
  if COLUMN not in scores.extra:
    return np.zeros(scores.label.size, bool)
  of_subset = set(subset.rpartition(': ')[2].partition('@')[0].split('+'))
  names, index = np.unique(scores.extra[COLUMN], return_inverse=True)
  return np.array([not of_subset.isdisjoint(name.split('+')) for name in names], bool)[index]


def fta_metrics(scores: Scores, subset: str, threshold: float) -> dict[str, float]:
  """The rates that count unusable as a failure to acquire; {} where no sample is affected.

  Args:
    scores: of N samples.
    subset: the name of their column.
    threshold: of that subset, as for the figures that count unusable as absent.

  Returns:
    n_unusable, acer_fta, apcer_fta, bpcer_fta.
  """
  which = affected(scores, subset)
  if not which.any():
    return {}
  score = np.where(which, np.nan, scores.scores[subset])
  rates = metrics.error_rates(scores.label, score, threshold)
  return {
    'n_unusable': int(which.sum()),
    'acer_fta': rates.acer,
    'apcer_fta': rates.apcer,
    'bpcer_fta': rates.bpcer,
  }
