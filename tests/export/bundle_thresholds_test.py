"""Thresholds of a bundle: those of the rule, off the edge."""

from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.special import expit, logit

from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.evaluation import results, score_files
from flexfas_jax.export import bundle_thresholds
from flexfas_jax.schema import LABELS


def test_a_nudged_threshold_is_slightly_lower():
  score = np.array([0.1, 0.5, 0.9, np.nan])
  found = bundle_thresholds.nudge_threshold(0.5, score)
  assert logit(found) == pytest.approx(-bundle_thresholds.LOGIT_TOLERANCE, rel=1e-6)


def test_a_nudged_threshold_is_halfway_where_scores_are_close():
  near = expit(-1e-5)
  assert logit(bundle_thresholds.nudge_threshold(0.5, [near, 0.5, 0.9])) == pytest.approx(
    -5e-6, rel=1e-4
  )


def test_a_nudged_threshold_of_the_lowest_score_and_of_certainty():
  assert logit(bundle_thresholds.nudge_threshold(0.5, [0.5, 0.9])) == pytest.approx(
    -bundle_thresholds.LOGIT_TOLERANCE, rel=1e-6
  )
  certain = bundle_thresholds.nudge_threshold(1.0, [0.5, 1.0])
  assert 1 - 1e-15 < certain < 1  # a threshold of 1 would leave the decision to rounding
  below = np.nextafter(1, 0)
  assert bundle_thresholds.nudge_threshold(1.0, [below, 1.0]) == 1.0  # no number lies between
  assert bundle_thresholds.nudge_threshold(below, [np.nextafter(below, 0), below]) == below


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
  assert bundle_thresholds.choose_rule(config) == wanted


def source_in(folder):
  """What `bundle_thresholds` reads of a source."""
  return SimpleNamespace(
    folder=folder,
    weights_hash='w',
    view='whole',
    model=SimpleNamespace(modalities=('rgb', 'ir')),
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
def test_scores_of_other_weights_dtypes_or_views_are_computed_again(
  tmp_path, monkeypatch, weights, config, kept
):
  (tmp_path / 'scores').mkdir()
  header = {'weights_hash': weights, 'config': config}
  written = score_files.Scores(['a', 'b'], [1, 0], {'rgb': [0.9, 0.1]}, header=header)
  score_files.write(tmp_path / 'scores/val.csv', written)

  def score_again(variables, batches, header):
    return header

  monkeypatch.setattr(bundle_thresholds.scoring, 'make_scorer', lambda *_: score_again)
  scores, where = bundle_thresholds.get_val_scores(source_in(tmp_path), None)
  if kept:
    assert (where, scores.ids.tolist()) == ('scores/val.csv', ['a', 'b'])
  else:
    assert (where, scores) == ('scored by the export', {'weights_hash': 'w'})


@pytest.mark.parametrize('folder', ['', 'scores', 'scores/val.csv'])
def test_without_stored_scores_val_is_scored(tmp_path, monkeypatch, folder):
  """No folder, an empty one, or a folder where the file should be."""
  (tmp_path / folder).mkdir(parents=True, exist_ok=True)

  def score_again(variables, batches, header):
    return header

  monkeypatch.setattr(bundle_thresholds.scoring, 'make_scorer', lambda *_: score_again)
  found = bundle_thresholds.get_val_scores(source_in(tmp_path), None)
  assert found == ({'weights_hash': 'w'}, 'scored by the export')


def test_a_fitted_threshold_is_nudged_and_a_given_one_is_not(tmp_path):
  scores = score_files.Scores(['a', 'b'], [1, 0], {'rgb': [0.9, 0.1], 'rgb+ir': [np.nan] * 2})
  source = source_in(tmp_path)
  present = dict.fromkeys('ab', np.array([True, True]))
  given = bundle_thresholds.fit(source, scores, present, 'fixed=0.9', 1, 0).thresholds
  assert list(given) == ['rgb']
  assert given['rgb']['value'] == given['rgb']['fitted'] == 0.9
  fitted = bundle_thresholds.fit(source, scores, present, 'dev_eer', 1, 0).thresholds['rgb']
  assert 0 < fitted['fitted'] - fitted['value'] < 1e-3
  assert (fitted['rule'], fitted['val'], fitted['n']) == ('dev_eer', 'a/b:val', 2)
  assert fitted['weights_hash'] == 'w'
  nothing = score_files.Scores(['a', 'b'], [1, 0], {'rgb': [np.nan] * 2})
  with pytest.raises(StateError, match='run --mode=evaluate'):
    bundle_thresholds.fit(source, nothing, present, 'dev_eer', 1, 0)


N = 40  # samples of each class, of 20 subjects


def val(without_ir=(), **scores):
  """(scores of 2 N samples, which modalities each has); those of `without_ir` have RGB alone."""
  rng = np.random.default_rng(0)
  label = np.repeat([1, 0], N)
  ids = [f's{i:02}' for i in range(2 * N)]
  present = {id_: np.array([True, i not in without_ir]) for i, id_ in enumerate(ids)}
  columns = {name: 0.4 * label + rng.uniform(0.05, 0.55, 2 * N) for name in ('rgb', 'rgb+ir', 'ir')}
  columns['ir'][list(without_ir)] = np.nan
  columns |= scores
  subject = [f'p{i // 2:02}' for i in range(2 * N)]
  return score_files.Scores(ids, label, columns, subject=subject), present


def source_of_three(folder):
  source = source_in(folder)
  source.subsets = [('rgb',), ('rgb', 'ir'), ('ir',)]
  return source


def test_where_all_modalities_are_there_thresholds_are_those_of_evaluation(tmp_path):
  scores, present = val()
  found = bundle_thresholds.fit(source_of_three(tmp_path), scores, present, 'dev_bpcer=5%')
  assert found.notes == []
  assert found.evidence == {'min_scores': 30, 'min_subjects': 10}
  evaluated = results.compute(scores.only(np.arange(2 * N) % 2 == 0), 'dev_bpcer=5%', scores)
  for name, one in found.thresholds.items():
    assert one['fitted'] == evaluated[name]['threshold']
    assert one['counts'] == {label: {'scores': N, 'subjects': N // 2} for label in LABELS}


def test_a_subset_that_no_bona_fide_sample_has_gets_no_threshold(tmp_path):
  """Under rgb+ir these samples have scores, by RGB alone: they are no evidence for rgb+ir."""
  scores, present = val(without_ir=range(N))
  assert np.isfinite(scores.scores['rgb+ir']).all()
  found = bundle_thresholds.fit(source_of_three(tmp_path), scores, present, 'dev_eer')
  assert list(found.thresholds) == ['rgb']
  text = ' '.join(found.notes)
  assert 'No threshold for rgb+ir (0 bona_fide scores of 0 subjects): prediction' in text
  assert 'No threshold for ir (0 bona_fide scores of 0 subjects)' in text
  assert '30 scores of 10 subjects of each class' in text


def test_the_fit_is_of_the_samples_that_count(tmp_path):
  """Bona fide samples without infrared, whose scores would pull the threshold down."""
  without = range(8)
  scores, present = val(without)
  scores.scores['rgb+ir'][:8] = 0.001
  found = bundle_thresholds.fit(source_of_three(tmp_path), scores, present, 'dev_bpcer=1%')
  one = found.thresholds['rgb+ir']
  assert one['counts']['bona_fide'] == {'scores': N - 8, 'subjects': (N - 8) // 2}
  assert one['counts']['attack'] == {'scores': N, 'subjects': N // 2}
  assert one['n'] == 2 * N - 8
  assert one['fitted'] == scores.scores['rgb+ir'][8:N].min()
  assert any('8 of 80 val samples lack one of these modalities' in note for note in found.notes)
  # By infrared alone they are failures to acquire, which count in the fit as evaluation has it.
  assert found.thresholds['rgb']['counts']['bona_fide']['scores'] == N


@pytest.mark.parametrize(
  ('minimums', 'got'),
  [((30, 10), True), ((40, 20), True), ((41, 20), False), ((40, 21), False), ((1, 0), True)],
)
def test_the_minimums(tmp_path, minimums, got):
  scores, present = val()
  if not got:
    with pytest.raises(StateError, match='no subset .* lower --min_val_scores'):
      bundle_thresholds.fit(source_of_three(tmp_path), scores, present, 'dev_eer', *minimums)
    return
  found = bundle_thresholds.fit(source_of_three(tmp_path), scores, present, 'dev_eer', *minimums)
  assert len(found.thresholds) == 3
  lowered = minimums == (1, 0)
  assert any('the default is 30 of 10' in note for note in found.notes) == lowered


@pytest.mark.parametrize('minimums', [(0, 10), (30, -1)])
def test_minimums_that_cannot_be(tmp_path, minimums):
  with pytest.raises(ConfigError, match='--min_val_scores'):
    bundle_thresholds.fit(source_of_three(tmp_path), *val(), 'dev_eer', *minimums)


def test_scores_of_another_val_are_refused(tmp_path):
  scores, present = val()
  del present['s00']
  with pytest.raises(StateError, match='belong to other samples than a/b:val has now'):
    bundle_thresholds.fit(source_of_three(tmp_path), scores, present, 'dev_eer')


def test_a_threshold_that_accepts_all_is_none(tmp_path):
  scores, present = val()
  scores.scores['ir'][:] = 0.0
  scores.scores['rgb'][:] = 1.0
  found = bundle_thresholds.fit(source_of_three(tmp_path), scores, present, 'dev_eer')
  assert 0 < found.thresholds['rgb']['value'] < 1
  assert 'ir' not in found.thresholds
  assert any('ir (its threshold would be 0.0)' in note for note in found.notes)
