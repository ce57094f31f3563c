"""Counts behind a threshold, by class."""

import numpy as np

from flexfas_jax.evaluation import evidence, score_files


def scores_of(subject, dataset, score, label=None):
  n = len(score)
  label = [1] * n if label is None else label
  ids = [str(i) for i in range(n)]
  return score_files.Scores(ids, label, {'rgb': score}, dataset=dataset, subject=subject)


def test_subjects_are_of_a_dataset_and_failures_do_not_count():
  scores = scores_of(
    ['1', '1', '1', '2', '', '3'], ['a', 'a', 'b', 'a', 'a', 'a'], [0.5, 0.6, 0.7, np.nan, 0.8, 0.9]
  )
  found = evidence.count(scores, 'rgb')
  assert found == {
    'attack': {'scores': 0, 'subjects': 0},
    'bona_fide': {'scores': 5, 'subjects': 3},
  }
  complete = np.array([True, False, False, True, True, True])
  assert evidence.count(scores, 'rgb', complete)['bona_fide'] == {'scores': 3, 'subjects': 2}


def test_one_subject_in_two_spellings_is_one():
  scores = scores_of(['Zo\u00eb', 'Zoe\u0308', 'Zo\u00eb\u00a0'], None, [0.5, 0.5, 0.5])
  assert evidence.count(scores, 'rgb')['bona_fide']['subjects'] == 1


def test_what_is_lacking():
  enough = {'attack': {'scores': 30, 'subjects': 10}, 'bona_fide': {'scores': 30, 'subjects': 10}}
  assert evidence.describe_shortage(enough) == ''
  few = enough | {'bona_fide': {'scores': 29, 'subjects': 10}}
  assert evidence.describe_shortage(few) == '29 bona_fide scores of 10 subjects'
  assert evidence.describe_shortage(few, 29) == ''
  few = {name: {'scores': 30, 'subjects': 9} for name in enough}
  assert evidence.describe_shortage(few).count('30') == 2 and ' and ' in evidence.describe_shortage(
    few
  )


def test_notes_are_of_subsets_that_are_served():
  scores = score_files.Scores(['a', 'b'], [0, 1], {'rgb': [0.1, 0.9], 'ir': [np.nan] * 2})
  (note,) = evidence.notes(scores)
  assert note.startswith('val, rgb: 1 attack scores of 0 subjects and 1 bona_fide scores')


def test_a_subset_that_some_samples_lack_is_served():
  scores = scores_of(['1', '2'], ['a', 'a'], [0.5, np.nan])
  (note,) = evidence.notes(scores)
  assert note.startswith('val, rgb: 0 attack scores of 0 subjects and 1 bona_fide scores of 1')
