"""Pairs of pictures: who is compared with whom, and the figures, by hand."""

import csv
import json
import math

import numpy as np
import pytest

from flexfas_jax.errors import DataError
from flexfas_jax.evaluation import face_verification
from flexfas_jax.score import main as score

SUBJECT = ['a', 'b', 'a', 'a', 'b', 'c']
VIDEO = ['a/1', 'b/1', 'a/1', 'a/2', 'b/2', 'c/1']


def listed(found):
  of = {kind: set() for kind in (True, False)}
  for a, b, same in zip(*map(np.ndarray.tolist, found), strict=True):
    of[same].add(frozenset((a, b)))
  assert sum(map(len, of.values())) == len(found.a)  # none twice
  return of


def test_all_pairs_of_few_pictures():
  """Pictures 0 and 2 are of one video: no pair."""
  of = listed(face_verification.sample_pairs(SUBJECT, VIDEO, limit=100))
  assert of[True] == {frozenset(p) for p in ((0, 3), (2, 3), (1, 4))}
  everyone = {frozenset((i, j)) for i in range(6) for j in range(i)}
  assert of[False] == {p for p in everyone if len({SUBJECT[i] for i in p}) == 2}


def test_pictures_without_a_video_are_of_one_each():
  of = listed(face_verification.sample_pairs(['a', 'a', 'a', 'b'], ['', '', 'a/1', ''], limit=100))
  assert of[True] == {frozenset(p) for p in ((0, 1), (0, 2), (1, 2))}


@pytest.mark.parametrize('few', [3000, 10])
def test_a_limit_draws_the_same_pairs_again(few, monkeypatch):
  """By listing all pairs of others, and by drawing them."""
  monkeypatch.setattr(face_verification, '_FEW', few)
  subject = [f's{i % 7}' for i in range(70)]
  video = [f'v{i}' for i in range(70)]
  first, again, other = (
    face_verification.sample_pairs(subject, video, 40, seed) for seed in (0, 0, 1)
  )
  assert all(np.array_equal(x, y) for x, y in zip(first, again, strict=True))
  assert not np.array_equal(first.a, other.a)
  of = listed(first)
  assert len(of[True]) == len(of[False]) == 40
  for same, found in of.items():
    assert all((len({subject[i] for i in p}) == 1) == same for p in found)


def test_drawing_stops_where_there_are_no_more(monkeypatch):
  monkeypatch.setattr(face_verification, '_FEW', 0)
  assert len(listed(face_verification.sample_pairs(SUBJECT, VIDEO, limit=1000))[False]) == 11


@pytest.mark.parametrize(
  'subject,video,said',
  [
    (['a', 'a'], ['1', '2'], 'at least two subjects'),
    (['a', 'a', 'b'], ['1', '1', '2'], 'no subject has'),
  ],
)
def test_no_pairs(subject, video, said):
  with pytest.raises(DataError, match=said):
    face_verification.sample_pairs(subject, video, 10)


def test_cosines():
  embedding = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 3.0], [np.nan, 1.0]], np.float32)
  found = face_verification.cosines(
    embedding, face_verification.Pairs(np.array([0, 0, 1]), np.array([1, 2, 3]), None)
  )
  np.testing.assert_allclose(found, [math.sqrt(0.5), 0, np.nan])


def by_hand():
  """Pairs of ten people: the first of each pair is in a fold of its own, one same and one other."""
  people = [f'p{i}' for i in range(10)]
  a = np.repeat(np.arange(10), 2)
  same = np.tile([True, False], 10)
  b = np.where(same, a + 10, (a + 1) % 10)
  return face_verification.Pairs(a, b, same), people * 2


def test_figures_of_scores_that_part_all():
  found, subject = by_hand()
  values = face_verification.compute_metrics(found, np.where(found.same, 0.9, 0.1), subject)
  assert values['eer'] == 0 and values['auc'] == values['accuracy'] == 1
  assert values['tpr@far=1e-2'] == values['tpr@far=1e-3'] == 1
  assert [values[f'n_{n}'] for n in ('same', 'other', 'subjects', 'fta')] == [10, 10, 10, 0]


def test_a_threshold_is_not_fitted_on_the_fold_that_it_judges():
  """One person's scores are all lower; the threshold of the others, 0.9, fails her same pair. If
  her fold had a say, 0.2 would part all."""
  found, subject = by_hand()
  score = np.where(found.same, 0.9, 0.1)
  score[:2] = 0.2, 0.05
  values = face_verification.compute_metrics(found, score, subject)
  assert values['auc'] == 1
  assert values['accuracy'] == pytest.approx((9 / 10 + 1) / 2)


def test_a_picture_without_an_embedding_is_never_the_same():
  found, subject = by_hand()
  score = np.where(found.same, 0.9, 0.1)
  score[:2] = np.nan
  values = face_verification.compute_metrics(found, score, subject)
  assert values['n_fta'] == 2
  assert values['tpr@far=1e-2'] == 0.9
  assert values['accuracy'] == pytest.approx((9 / 10 + 1) / 2)


def test_what_is_written_is_evaluated_alike_by_the_score_command(tmp_path, capsys):
  found, subject = by_hand()
  rng = np.random.default_rng(0)
  value = np.where(found.same, 0.3, 0.0) + rng.normal(size=20) * 0.3
  value[3] = np.nan
  ids = [f'set/{i}' for i in range(20)]
  file = tmp_path / 'test_pairs.csv'
  face_verification.write(file, found, value, ids, subject, {'step': 3})
  rows = list(csv.DictReader(file.read_text().splitlines()))
  assert rows[0]['id'] == 'set/0|set/10' and rows[0]['label'] == 'same'
  assert (rows[1]['subject_a'], rows[1]['subject_b'], rows[1]['label']) == ('p0', 'p1', 'other')
  assert float(rows[0]['score']) == value[0] and rows[3]['score'] == ''
  header = json.loads((tmp_path / 'test_pairs.json').read_text())
  assert header == {'step': 3, 'polarity': 'high is the same subject'}
  out = tmp_path / 'evaluated.json'
  labels = '--labels=same=bona_fide,other=attack'
  assert score([str(file), labels, '--threshold=fixed=0', f'--json={out}']) == 0
  assert '1 of 20 samples have no score' in capsys.readouterr().err
  evaluated = next(iter(json.loads(out.read_text()).values()))
  values = face_verification.compute_metrics(found, value, subject)
  assert evaluated['eer'] == values['eer'] and evaluated['auc'] == values['auc']


def test_the_table():
  found, subject = by_hand()
  values = face_verification.compute_metrics(found, np.where(found.same, 0.9, 0.1), subject)
  title, heading, row = face_verification.text({'intra': values}, 'Title').splitlines()
  assert title == 'Title'
  assert heading.split() == ['subjects', 'same', 'other', 'accuracy', 'EER', 'AUC',
                             'TPR@FAR=1e-2', 'TPR@FAR=1e-3']  # fmt: skip
  assert row.split() == ['intra', '10', '10', '10', '100.0', '0.0', *['100.0'] * 3]
