"""Rates by subject: the counts by hand, the tail against scipy's binomial."""

import math

import numpy as np
import pytest
from scipy import stats

from flexfas_jax.evaluation import score_files, subject_rates


def scores(errors, n=10):
  """Subjects with so many bona fide errors of n each, and one attack each that is rejected."""
  rows = [(s, i < k) for s, k in enumerate(errors) for i in range(n)]
  label = [1] * len(rows) + [0] * len(errors)
  return score_files.Scores(
    ids=[str(i) for i in range(len(label))],
    label=np.array(label),
    scores={'rgb': np.array([0.0 if wrong else 1.0 for _, wrong in rows] + [0.0] * len(errors))},
    dataset=['d'] * len(label),
    subject=[f's{s}' for s, _ in rows] + [f's{s}' for s in range(len(errors))],
  )


def test_counts_tails_and_outliers():
  found = subject_rates.compute(scores([8, 1, 0, 1]), 'rgb', 0.5)
  assert len(found) == 8
  first = found[0]
  assert (first.subject, first.label, first.count) == ('d/s0', 'bona_fide', (8, 10))
  # At the rate of the others, 2 of 30, kept above 0 by half an error.
  assert first.p == pytest.approx(stats.binom.sf(7, 10, 2.5 / 31))
  assert first.outlier and not any(one.outlier for one in found[1:])
  assert {one.p for one in found if not one.count.errors} == {1.0}


def test_many_subjects_are_compared():
  """Of four subjects, one with p of 0.03 may be chance."""
  first = subject_rates.compute(scores([4, 1, 1, 1]), 'rgb', 0.5)[0]
  assert first.count.errors == 4 and 0.05 / 4 < first.p < 0.05 and not first.outlier


def test_an_error_of_one_subject_alone_and_of_nobody():
  (one, _) = subject_rates.compute(scores([10]), 'rgb', 0.5)
  assert one.p == 1.0 and not one.outlier  # there is nobody to compare with
  assert not any(one.outlier for one in subject_rates.compute(scores([0, 0, 0]), 'rgb', 0.5))
  nobody = scores([1, 2])
  nobody.subject[0] = ''
  assert subject_rates.compute(nobody, 'rgb', 0.5) == []


def test_without_a_score_a_bona_fide_sample_is_an_error_and_an_attack_is_not():
  made = scores([0, 0])
  made.scores['rgb'][:] = math.nan
  counts = {(one.subject, one.label): one.count for one in subject_rates.compute(made, 'rgb', 0.5)}
  assert counts['d/s0', 'bona_fide'] == (10, 10) and counts['d/s0', 'attack'] == (0, 1)
