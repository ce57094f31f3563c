"""Samples with a modality that carries no signal: who is affected, and the figures both ways."""

import dataclasses
import json
import math

import numpy as np
import pytest

from flexfas_jax import score
from flexfas_jax.evaluation import aggregation, evaluate, results, score_files, unusable
from flexfas_jax.evaluation.score_files import Scores

MODALITIES = ('rgb', 'depth', 'ir')
# Four bona fide samples and four attacks at the threshold 0.5; b0 and a1 have no depth signal, b1
# and a0 no infrared.
SCORES = Scores(
  ids=['b0', 'b1', 'b2', 'b3', 'a0', 'a1', 'a2', 'a3'],
  label=[1, 1, 1, 1, 0, 0, 0, 0],
  scores={
    'rgb': [0.9, 0.8, 0.7, 0.2, 0.6, 0.6, 0.1, 0.1],
    'rgb+depth': [0.9, 0.8, 0.7, 0.6, 0.3, 0.6, 0.1, 0.1],
    'rgb+depth+ir': [0.9, 0.8, 0.7, 0.6, 0.6, 0.6, 0.1, 0.1],
    'depth': [math.nan, 0.8, 0.7, 0.6, 0.3, math.nan, 0.1, 0.1],
  },
  subject=list('abcdabcd'),
  video=['v', 'v', 'w', 'x', 'y', 'y', 'z', 'z'],
)
NONE = np.zeros((8, 3), bool)


@pytest.fixture
def scores():
  which = NONE.copy()
  which[[0, 5], 1] = which[[1, 4], 2] = True
  return unusable.add_column(SCORES, MODALITIES, which)


def test_figures_both_ways(scores):
  found = results.compute(scores, 'fixed=0.5')
  plain = results.compute(SCORES, 'fixed=0.5')
  for subset, values in found.items():  # the figures that count it as absent are what they were
    own = {n: x for n, x in values.items() if not n.endswith('_fta') and n != 'n_unusable'}
    own |= {'n_fta': values['n_fta']}
    np.testing.assert_equal(own, plain[subset])
  assert set(found['rgb']) == set(plain['rgb'])

  def pick(s):
    return [found[s][n] for n in ('n_unusable', 'apcer_fta', 'bpcer_fta', 'acer_fta')]

  assert pick('rgb+depth') == [2, 0, 0.25, 0.125]  # as absent: APCER 0.25, BPCER 0
  assert pick('rgb+depth+ir') == [4, 0, 0.5, 0.25]  # as absent: APCER 0.5, BPCER 0
  assert pick('depth') == [2, 0, 0.25, 0.125]  # without a score by either rule
  assert found['depth']['bpcer'] == 0.25
  (line,) = (r for r in results.notes(found) if r.startswith('rgb+depth:'))
  assert line == (
    'rgb+depth: 2 of 8 samples were given an unusable modality; ACER, APCER, BPCER at 0.5: 12.50, '
    "25.00, 0.00 as scored, 12.50, 0.00, 25.00 as failures to acquire (prediction's default)"
  )


def test_both_have_counts_and_intervals(scores):
  evaluated = evaluate.evaluate('test', scores, 'fixed=0.5', draws=50)
  found = evaluate.to_json(evaluated)['rgb+depth+ir']['intervals']
  assert (found['bpcer_fta']['errors'], found['bpcer_fta']['n']) == (2, 4)
  assert (found['apcer_fta']['errors'], found['apcer_fta']['n']) == (0, 4)
  for name in ('acer_fta', 'apcer_fta', 'bpcer_fta'):
    value = evaluated.metrics['rgb+depth+ir'][name]
    for low, high in (found[name]['clopper_pearson'], found[name]['bootstrap']):
      assert low <= value <= high
  alone = evaluate.evaluate('test', SCORES, 'fixed=0.5', draws=50)
  np.testing.assert_equal(evaluate.to_json(alone)['rgb'], evaluate.to_json(evaluated)['rgb'])


def test_a_file_keeps_them_and_one_without_is_as_before(scores, tmp_path, capsys):
  score_files.write(tmp_path / 'plain.csv', SCORES)
  score_files.write(tmp_path / 'none.csv', unusable.add_column(SCORES, MODALITIES, NONE))
  for suffix in ('csv', 'json'):
    texts = [(tmp_path / f'{name}.{suffix}').read_bytes() for name in ('plain', 'none')]
    assert texts[0] == texts[1] and b'unusable' not in texts[0]
  score_files.write(tmp_path / 'some.csv', scores)
  again = score_files.read(tmp_path / 'some.csv')
  assert again.extra['unusable'].tolist() == ['depth', 'ir', '', '', 'ir', 'depth', '', '']
  out = tmp_path / 'r.json'
  args = [tmp_path / 'some.csv', '--threshold=fixed=0.5', f'--json={out}', '--bootstrap=0']
  assert score.main(list(map(str, args))) == 0
  assert 'rgb+depth: 2 of 8 samples were given' in capsys.readouterr().err
  found = json.loads(out.read_text())
  assert found['rgb+depth']['acer_fta'] == 0.125 and 'n_unusable' not in found['rgb']


def test_systems_and_views_are_of_their_subset(scores):
  for name in ('rgb+depth@flip', 'ours: rgb+depth', 'ours: rgb+depth@flip'):
    of = dataclasses.replace(scores, scores={name: SCORES.scores['rgb+depth']})
    assert np.flatnonzero(unusable.affected(of, name)).tolist() == [0, 5]
  assert not unusable.affected(SCORES, 'rgb+depth').any()
  only = scores.only(scores.label == 0)
  assert np.flatnonzero(unusable.affected(only, 'ir')).tolist() == [0]


def test_a_video_is_affected_by_any_of_its_frames(scores):
  videos = dataclasses.replace(scores, subject=None)
  found = aggregation.aggregate_by_video(videos)
  assert dict(zip(found.ids.tolist(), found.extra['unusable'].tolist(), strict=True)) == {
    'v': 'depth+ir', 'w': '', 'x': '', 'y': 'depth+ir', 'z': ''
  }  # fmt: skip
