"""How many scores of how many subjects a threshold is fitted on, by class.

A threshold that is fitted on a handful of scores, or on those of one class alone, does not
generalize: a subset without enough evidence gets none.
"""

import unicodedata
from collections.abc import Mapping

import numpy as np

from flexfas_jax.evaluation.score_files import Scores
from flexfas_jax.schema import LABELS

MIN_SCORES, MIN_SUBJECTS = 30, 10  # of each class


def count(scores: Scores, subset: str, complete: np.ndarray | None = None) -> dict[str, dict]:
  """The evidence for a threshold of a subset of modalities.

  Failures to acquire do not count. A row without a subject counts as a score, not as a subject.

  Args:
    scores: of the development set, with N rows.
    subset: one of its columns.
    complete: [N] bool, the rows that have every modality of the subset; None: all of them.

  Returns:
    {class: {'scores': n, 'subjects': n}}, subjects identified by (dataset, subject).
  """
  counted = np.isfinite(scores.scores[subset])
  if complete is not None:
    counted &= complete
  found = {}
  for label, name in enumerate(LABELS):
    of_class = np.flatnonzero(counted & (scores.label == label))
    subjects = {(_same(scores.dataset[i]), _same(scores.subject[i])) for i in of_class}
    found[name] = {
      'scores': len(of_class),
      'subjects': sum(subject != '' for _, subject in subjects),
    }
  return found


def describe_shortage(
  counts: Mapping[str, Mapping[str, int]],
  min_scores: int = MIN_SCORES,
  min_subjects: int = MIN_SUBJECTS,
) -> str:
  """What is too few for a threshold; '' where there is enough.

  Args:
    counts: from `count`.
    min_scores, min_subjects: that each class must have.
  """
  few = [
    f'{of["scores"]} {name} scores of {of["subjects"]} subjects'
    for name, of in counts.items()
    if of['scores'] < min_scores or of['subjects'] < min_subjects
  ]
  return ' and '.join(few)


def notes(scores: Scores) -> list[str]:
  """One line for each subset of a development set that is too small to fit a threshold on."""
  lines = []
  for subset in scores.scores:
    few = describe_shortage(count(scores, subset))
    if few and not np.isnan(scores.scores[subset]).all():  # a subset that is served
      lines.append(
        f'val, {subset}: {few}; a threshold needs {MIN_SCORES} of {MIN_SUBJECTS} of each class. '
        'This one is a guess, and an export leaves that subset out'
      )
  return lines


def _same(name: str) -> str:
  return unicodedata.normalize('NFC', str(name)).strip()
