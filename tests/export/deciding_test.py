"""Thresholds of a bundle: those of the rule, off the edge."""

from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.special import expit, logit

from flexfas_jax.errors import StateError
from flexfas_jax.evaluation import score_files
from flexfas_jax.export import deciding


def test_steadied_is_a_hair_below():
  score = np.array([0.1, 0.5, 0.9, np.nan])
  found = deciding.steadied(0.5, score)
  assert logit(found) == pytest.approx(-deciding.HAIR, rel=1e-6)


def test_steadied_is_halfway_where_scores_are_close():
  near = expit(-1e-5)
  assert logit(deciding.steadied(0.5, [near, 0.5, 0.9])) == pytest.approx(-5e-6, rel=1e-4)


def test_steadied_of_the_lowest_score_and_of_certainty():
  assert logit(deciding.steadied(0.5, [0.5, 0.9])) == pytest.approx(-deciding.HAIR, rel=1e-6)
  assert deciding.steadied(1.0, [0.5, 1.0]) == 1.0


@pytest.mark.parametrize(
  'rules,wanted',
  [
    ({'cross': 'fixed=0.5', 'intra': 'dev_bpcer=1%'}, 'dev_bpcer=1%'),
    ({'cross': 'dev_bpcer=5%', 'intra': 'fixed=0.5'}, 'dev_bpcer=5%'),
    ({'intra': 'fixed=0.5'}, 'dev_eer'),
  ],
)
def test_the_rule_is_that_of_the_first_test_which_has_one(rules, wanted):
  config = ConfigDict({'test': dict.fromkeys(rules, 'a/b:test'), 'threshold': rules})
  assert deciding.rule_of(config) == wanted


def source_in(folder):
  """What `deciding` reads of a source."""
  return SimpleNamespace(
    folder=folder,
    weights_hash='w',
    view='whole',
    model=None,
    variables={},
    subsets=[('rgb',), ('rgb', 'ir')],
    preprocess=None,
    config=ConfigDict({'val': 'a/b:val'}),
  )


@pytest.mark.parametrize(
  ('weights', 'config', 'kept'),
  [
    ('w', {}, True),
    ('w', {'model': {'dtype': 'float32'}, 'views': ['whole']}, True),
    ('other', {}, False),
    ('w', {'model': {'dtype': 'bfloat16'}}, False),
    ('w', {'views': ['whole', 'flip']}, False),
    ('w', {'views': ['flip']}, False),
  ],
)
def test_scores_of_other_weights_dtypes_or_views_are_made_anew(
  tmp_path, monkeypatch, weights, config, kept
):
  (tmp_path / 'scores').mkdir()
  header = {'weights_hash': weights, 'config': config}
  written = score_files.Scores(['a', 'b'], [1, 0], {'rgb': [0.9, 0.1]}, header=header)
  score_files.write(tmp_path / 'scores/val.csv', written)
  anew = lambda variables, batches, header: header  # noqa: E731
  monkeypatch.setattr(deciding.scoring, 'make_scorer', lambda *_: anew)
  scores, where = deciding.val_scores(source_in(tmp_path), None)
  if kept:
    assert (where, scores.ids.tolist()) == ('scores/val.csv', ['a', 'b'])
  else:
    assert (where, scores) == ('scored anew', {'weights_hash': 'w'})


@pytest.mark.parametrize('folder', ['', 'scores', 'scores/val.csv'])
def test_without_stored_scores_val_is_scored(tmp_path, monkeypatch, folder):
  """No folder, an empty one, or a folder where the file should be."""
  (tmp_path / folder).mkdir(parents=True, exist_ok=True)
  anew = lambda variables, batches, header: header  # noqa: E731
  monkeypatch.setattr(deciding.scoring, 'make_scorer', lambda *_: anew)
  found = deciding.val_scores(source_in(tmp_path), None)
  assert found == ({'weights_hash': 'w'}, 'scored anew')


def test_a_fitted_threshold_is_steadied_and_a_given_one_is_not(tmp_path):
  scores = score_files.Scores(['a', 'b'], [1, 0], {'rgb': [0.9, 0.1], 'rgb+ir': [np.nan] * 2})
  source = source_in(tmp_path)
  given = deciding.fit(source, scores, 'fixed=0.9')
  assert list(given) == ['rgb']
  assert given['rgb']['value'] == given['rgb']['fitted'] == 0.9
  fitted = deciding.fit(source, scores, 'dev_eer')['rgb']
  assert 0 < fitted['fitted'] - fitted['value'] < 1e-3
  assert (fitted['rule'], fitted['val'], fitted['n']) == ('dev_eer', 'a/b:val', 2)
  nothing = score_files.Scores(['a', 'b'], [1, 0], {'rgb': [np.nan] * 2})
  with pytest.raises(StateError, match='run --mode=evaluate'):
    deciding.fit(source, nothing, 'dev_eer')
