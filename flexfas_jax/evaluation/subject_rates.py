"""Error rates by subject, and the subjects whose rates are not explained by chance.

A mean hides that all errors may be of one subject. A subject stands out if so many errors would be
improbable at the rate of all others together: the exact binomial tail, corrected by Bonferroni for
the number of subjects. Samples of one subject depend on each other, so that this finds subjects to
inspect; it is no test of a hypothesis.
"""

from typing import NamedTuple

import numpy as np

from flexfas_jax import identity
from flexfas_jax.evaluation.metrics import Count
from flexfas_jax.evaluation.score_files import Scores
from flexfas_jax.schema import LABELS

_SIGNIFICANT = 0.05


class SubjectRate(NamedTuple):
  """The errors of one subject in one class.

  Attributes:
    subject: dataset/name.
    label: of `schema.LABELS`: 'attack' (the rate is an APCER) or 'bona_fide' (a BPCER).
    count: errors among the subject's samples of that class.
    p: probability of at least so many errors at the rate of the other subjects.
    outlier: whether p is at most 0.05 divided by the number of subjects.
  """

  subject: str
  label: str
  count: Count
  p: float
  outlier: bool


def compute(scores: Scores, subset: str, threshold: float) -> list[SubjectRate]:
  """The rates of every subject, the least probable first; [] where a subject is unknown.

  Args:
    scores: of N samples.
    subset: one of their columns.
    threshold: a sample is accepted if its score is at least this; without a score it is not.
  """
  if not scores.ids.size or (scores.subject == '').any():
    return []
  names = np.array(identity.subjects(scores.dataset.tolist(), scores.subject.tolist()))
  with np.errstate(invalid='ignore'):
    accepted = scores.scores[subset] >= threshold  # [N]
  found = []
  for label, name in enumerate(LABELS):
    among = scores.label == label
    wrong = (accepted if name == 'attack' else ~accepted) & among
    subjects, index = np.unique(names[among], return_inverse=True)
    n = np.bincount(index, minlength=subjects.size)
    errors = np.bincount(index[wrong[among]], minlength=subjects.size)
    for subject, k, of in zip(subjects.tolist(), errors.tolist(), n.tolist(), strict=True):
      p = _tail(k, of, int(errors.sum()) - k, int(n.sum()) - of)
      found.append(SubjectRate(subject, name, Count(k, of), p, p * subjects.size <= _SIGNIFICANT))
  return sorted(found, key=lambda one: (one.p, -one.count.rate, one.subject, one.label))


def _tail(errors: int, n: int, errors_of_others: int, n_of_others: int) -> float:
  """P(X >= errors) for X binomial of n at the others' rate, which half an error keeps above 0."""
  from scipy.special import betainc  # quick to import, unlike scipy.stats

  if not errors or not n_of_others:
    return 1.0
  rate = (errors_of_others + 0.5) / (n_of_others + 1)
  return float(betainc(errors, n - errors + 1, rate))
