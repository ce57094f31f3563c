"""Frames to videos by hand, and rows that a list has twice."""

import dataclasses
import math

import numpy as np
import pytest

from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.evaluation import aggregation
from flexfas_jax.evaluation.score_files import Scores

NAN = math.nan


def frames(**changes):
  fields = {
    'ids': ['f1', 'f2', 'g1', 'f3', 'g2', 'alone', 'h1'],
    'label': [1, 1, 0, 1, 0, 0, 1],
    'scores': {'rgb': [0.9, 0.5, 0.2, 0.4, NAN, 0.7, NAN]},
    'video': ['v', 'v', 'w', 'v', 'w', '', 'h'],
    'subject': ['p', 'p', 'q', 'p', 'q', 'q', 'r'],
    'attack_type': ['', '', 'print', '', 'print', 'mask', ''],
  }
  return Scores(**{**fields, **changes})


@pytest.mark.parametrize('rule,of_v', [('mean', 0.6), ('median', 0.5), ('min', 0.4), ('max', 0.9)])
def test_by_hand(rule, of_v):
  found = aggregation.aggregate_by_video(frames(), rule)
  assert found.ids.tolist() == ['v', 'w', 'alone', 'h']
  assert found.label.tolist() == [1, 0, 0, 1]
  np.testing.assert_allclose(found.scores['rgb'], [of_v, 0.2, 0.7, NAN])
  assert found.attack_type.tolist() == ['', 'print', 'mask', '']
  assert found.subject.tolist() == ['p', 'q', 'q', 'r']


def test_the_median_of_two_is_between():
  found = aggregation.aggregate_by_video(
    frames(scores={'rgb': [0.9, 0.5, 0.2, NAN, 0.6, 0, 0]}), 'median'
  )
  np.testing.assert_allclose(found.scores['rgb'], [0.7, 0.4, 0, 0])


def test_frames_that_agree_are_not_parted_by_rounding():
  for values in ([0.7, 0.7, 0.7], [0.6, 0.7, 0.8], [0.8, 0.6, 0.7]):
    scores = Scores(['a', 'b', 'c'], [1, 1, 1], {'s': values}, video=['v', 'v', 'v'])
    assert aggregation.aggregate_by_video(scores).scores['s'] == [0.7]
  scores = Scores(['a', 'b'], [1, 1], {'s': [0.1, 0.2]}, video=['v', 'v'])
  assert aggregation.aggregate_by_video(scores, 'median').scores['s'] == [0.15]


def test_two_data_sets_may_call_a_video_alike():
  found = aggregation.aggregate_by_video(
    frames(video=['v'] * 7, label=[1] * 7, attack_type=[''] * 7, subject=[''] * 7,
           dataset=['a', 'a', 'b', 'a', 'b', 'b', 'a'])
  )  # fmt: skip
  assert found.ids.tolist() == ['a/v', 'b/v']
  np.testing.assert_allclose(found.scores['rgb'], [0.6, 0.45])


def test_a_fault_of_the_model_stains_its_video():
  found = aggregation.aggregate_by_video(frames(nan_samples={'rgb': [4]}))
  assert {k: v.tolist() for k, v in found.nan_samples.items()} == {'rgb': [1]}


def test_a_video_is_of_one_kind():
  with pytest.raises(DataError, match='video v has label 1 in f1 and 0 in f2'):
    aggregation.aggregate_by_video(frames(label=[1, 0, 0, 1, 0, 0, 1]))
  with pytest.raises(DataError, match='video w has attack_type print in g1 and mask in g2'):
    aggregation.aggregate_by_video(frames(attack_type=['', '', 'print', '', 'mask', '', '']))


def test_what_cannot_be():
  with pytest.raises(ConfigError, match='mean, median, min, max'):
    aggregation.aggregate_by_video(frames(), 'mode')
  with pytest.raises(DataError, match='column video is missing or empty'):
    aggregation.aggregate_by_video(frames(video=[''] * 7))


def test_redundant_rows_are_like_the_first():
  scores = Scores(
    ids=['a', 'a#2', 'a#3', 'b#2', 'c', 'c#2', 'd', 'd#x'],
    label=[1, 1, 1, 0, 0, 1, 0, 0],
    scores={'rgb': [0.5, 0.5, 0.9, 0.1, 0.2, 0.2, 0.3, 0.3]},
    nan_samples={'rgb': [1, 4]},
  )
  kept, n = aggregation.drop_redundant(scores)
  # 'a#3' has another score, 'b' is not there, 'c#2' another label, 'x' is no number.
  assert n == 1
  assert kept.ids.tolist() == ['a', 'a#3', 'b#2', 'c', 'c#2', 'd', 'd#x']
  assert kept.nan_samples['rgb'].tolist() == [3]
  assert aggregation.drop_redundant(kept) == (kept, 0)


def test_attacks_that_are_nearly_equal_are_not_one():
  """60 attacks whose scores agree to 1e-6 are 60 attacks."""
  ids = ['live', 'a', *(f'a#{i}' for i in range(2, 62))]
  score = [0.9, *(0.8 + i * 1e-8 for i in range(61))]
  scores = Scores(ids, [1] + [0] * 61, {'rgb': score})
  assert aggregation.drop_redundant(scores) == (scores, 0)
  # In a file with a header the ids are the builders' own, and batches round.
  own = dataclasses.replace(scores, header={'code_version': '1'})
  assert aggregation.drop_redundant(own)[1] == 60


@pytest.mark.parametrize('changes', [{'attack_type': ['a', 'b']}, {'subject': ['a', 'b']},
                                     {'ids': ['a', 'a#1']}, {'ids': ['a', 'a#0']},
                                     {'ids': ['a', 'a#02']}, {'ids': ['a', 'a#²']},
                                     {'scores': {'rgb': [0.5, 0.5], 'ir': [NAN, 0.5]}},
                                     {'extra': {'lamp': ['on', 'off']}}])  # fmt: skip
def test_rows_that_differ_in_anything_are_two(changes):
  fields = {'ids': ['a', 'a#2'], 'label': [0, 0], 'scores': {'rgb': [0.5, 0.5], 'ir': [NAN, NAN]}}
  assert aggregation.drop_redundant(Scores(**fields))[1] == 1
  assert aggregation.drop_redundant(Scores(**{**fields, **changes}))[1] == 0


def test_notes_on_videos_without_subjects():
  ids = ['t/anna/1/0', 't/anna/1/1', 't/ben/1/0', 't/ben/2/0', 'x']
  video, label, blank = ['1', '1', '1', '2', ''], [1] * 5, [''] * 5
  scores = Scores(ids, label, {'rgb': [0.5] * 5}, video=video, subject=blank)
  assert aggregation.video_notes(dataclasses.replace(scores, subject=['s'] * 5)) == []
  assert aggregation.video_notes(dataclasses.replace(scores, video=blank)) == []
  (note,) = aggregation.video_notes(scores)
  assert 'the folders in the ids identify 3 videos' in note
  plain = dataclasses.replace(scores, ids=list('abcde'), video=['1', '1', '2', '3', ''])
  assert aggregation.video_notes(plain, by_name=False) == []
  (note,) = aggregation.video_notes(plain)
  assert 'the subjects of 4 samples are unknown, so their 3 videos' in note
  assert note.startswith('the scores: ')
