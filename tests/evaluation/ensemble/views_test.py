"""The mean of several looks at a sample."""

import numpy as np

from flexfas_jax.evaluation import score_files
from flexfas_jax.evaluation.ensemble import views


def make(**scores):
  columns = {name.replace('_', '@'): np.array(x) for name, x in scores.items()}
  return score_files.Scores(
    ids=np.array(['a', 'b', 'c']), label=np.array([1, 0, 1]), scores=columns
  )


def test_the_mean_of_each_subsets_views():
  scores = make(rgb_whole=[0.2, 0.4, np.nan], ir_whole=[0.0, 1.0, 0.5], rgb_flip=[0.4, 0.5, 0.1])
  found = views.average_views(scores).scores
  assert list(found) == ['rgb', 'ir']
  np.testing.assert_allclose(found['rgb'], [0.3, 0.45, np.nan])
  np.testing.assert_array_equal(found['ir'], [0.0, 1.0, 0.5])


def test_views_that_agree_are_not_parted_by_rounding():
  scores = make(rgb_a=[0.7, 0.1, 0.6], rgb_b=[0.7, 0.2, 0.7], rgb_c=[0.7, 0.3, 0.8])
  np.testing.assert_array_equal(views.average_views(scores).scores['rgb'], [0.7, 0.2, 0.7])


def test_one_look_is_what_it_is():
  scores = make(rgb=[0.2, 0.4, 0.1])
  assert views.average_views(scores) is scores


def test_a_fault_of_one_view_is_a_fault():
  scores = make(rgb_whole=[0.2, np.nan, 0.1], rgb_flip=[np.nan, np.nan, 0.1])
  scores.nan_samples.update({'rgb@whole': np.array([1]), 'rgb@flip': np.array([0, 1])})
  assert views.average_views(scores).nan_samples['rgb'].tolist() == [0, 1]
