"""Results: names, thresholds per subset, what is refused, and what tables say."""

import json
import math

import numpy as np
import pytest

from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.evaluation import evaluate, metrics, results, score_files
from flexfas_jax.evaluation.report import tables

NAN = math.nan
METRICS = list(metrics.BY_NAME)


def make(prefix, rgb, depth=None, **fields):
  """Three bona fide samples, then three attacks."""
  return score_files.Scores(
    ids=[f'{prefix}{i}' for i in range(6)],
    label=[1, 1, 1, 0, 0, 0],
    scores={'rgb': rgb} | ({} if depth is None else {'rgb+depth': depth}),
    **fields,
  )


TEST = make(
  't',
  rgb=[0.9, 0.6, 0.3, 0.7, 0.2, 0.1],
  depth=[0.99, 0.98, 0.97, 0.96, 0.02, 0.01],
  attack_category=['', '', '', 'print', 'print', 'replay'],
)
DEV = make('d', rgb=[0.9, 0.8, 0.65, 0.3, 0.2, 0.1], depth=[0.9, 0.9, 0.97, 0.5, 0.5, 0.5])


def test_names_and_figures_by_hand():
  found = results.compute(TEST, 'dev_eer', DEV)
  assert list(found) == ['rgb', 'rgb+depth']
  by_name = ['apcer/print', 'apcer/replay', 'n_attack/print', 'n_attack/replay']
  assert list(found['rgb']) == [*METRICS, *by_name]
  rgb = found['rgb']  # the dev classes part at .65, where one attack and one bona fide sample pass
  assert rgb['threshold'] == 0.65
  assert (rgb['apcer'], rgb['bpcer'], rgb['acer']) == pytest.approx((1 / 3, 2 / 3, 1 / 2))
  assert (rgb['apcer/print'], rgb['apcer/replay'], rgb['apcer_max']) == (1 / 2, 0, 1 / 2)
  assert rgb['hter'] == rgb['acer']
  assert rgb['auc'] == pytest.approx(7 / 9)
  assert rgb['eer'] == pytest.approx(1 / 3)
  assert rgb['tpr@fpr=1e-2'] == rgb['tpr@fpr=1e-4'] == pytest.approx(1 / 3)
  assert rgb['bpcer@apcer=1%'] == rgb['bpcer@apcer=10%'] == pytest.approx(2 / 3)
  assert (rgb['n_bona_fide'], rgb['n_attack'], rgb['n_fta']) == (3, 3, 0)
  # A threshold of its own: .9 under rgb+depth.
  assert found['rgb+depth']['threshold'] == 0.9
  assert found['rgb+depth']['apcer'] == pytest.approx(1 / 3)


def test_a_modality_that_no_sample_has_gives_no_figures():
  """The model scored its absence: the figures would be those of rgb."""
  scores = make(
    't', TEST.scores['rgb'], TEST.scores['rgb+depth'], header={'not_recorded': ['depth']}
  )
  assert (scores.not_recorded('rgb'), scores.not_recorded('rgb+depth@flip')) == ((), ('depth',))
  found = results.compute(scores, 'dev_eer', DEV)
  assert found['rgb']['acer'] == 0.5 and 'not_recorded' not in found['rgb']
  assert found['rgb+depth']['not_recorded'] == ['depth'] and not results.is_served(
    found['rgb+depth']
  )
  assert math.isnan(found['rgb+depth']['acer']) and math.isnan(found['rgb+depth']['threshold'])
  assert results.notes(found) == [
    'rgb+depth: not recorded: no sample has depth, and scores without it are of another subset'
  ]
  lines = tables.text(found).splitlines()
  assert lines[2].split()[:4] == ['rgb+depth', '(not', 'recorded)', '-']
  assert lines[2].split()[-3:] == ['3', '3', '-']  # it is no failure to acquire
  # One of several systems that does not state it is evaluated; only its name differs.
  both = evaluate.merge_systems({'a': scores, 'b': TEST})
  assert [name for name in both.scores if both.not_recorded(name)] == ['a: rgb+depth']


def test_the_thresholds_of_a_bundle_are_in_the_header():
  depth = TEST.scores['rgb+depth']
  scores = make('t', TEST.scores['rgb'], depth, header={'thresholds': {'rgb': 0.65}})
  found = results.compute(scores, 'bundle')
  assert found['rgb']['threshold'] == 0.65 and found['rgb']['acer'] == 0.5
  assert not results.is_served(found['rgb+depth'])  # the bundle refuses it
  assert found['rgb+depth']['n_fta'] == int(np.isnan(depth).sum()) < depth.size
  assert '(no threshold in the bundle)' in tables.text(found).splitlines()[2]
  for systems in ({'a': scores, 'b': TEST}, {'b': TEST, 'a': scores}):
    with pytest.raises(StateError, match='b: the header states no thresholds'):
      results.compute(evaluate.merge_systems(systems), 'bundle')
  both = evaluate.merge_systems({'a': scores, 'b': scores})
  assert results.compute(both, 'bundle')['b: rgb']['threshold'] == 0.65
  for header in ({}, {'thresholds': {}}, {'thresholds': {'rgb': None}}):
    with pytest.raises(StateError, match='header'):
      results.compute(make('t', TEST.scores['rgb'], header=header), 'bundle')


def test_a_fixed_threshold_needs_no_dev():
  found = results.compute(TEST, 'fixed=0.5')
  assert {values['threshold'] for values in found.values()} == {0.5}
  assert found == results.compute(TEST, 'fixed=0.5', DEV)


def test_attack_types_stand_in_for_unknown_categories():
  test = make('t', TEST.scores['rgb'], attack_type=['', '', '', 'a4', 'tablet', 'tablet'])
  found = results.compute(test, 'fixed=0.5')['rgb']
  assert (found['apcer/a4'], found['apcer/tablet'], found['apcer_max']) == (1, 0, 1)
  bare = results.compute(make('t', TEST.scores['rgb']), 'fixed=0.5')['rgb']
  assert list(bare) == METRICS
  assert math.isnan(bare['apcer_max'])


def test_a_threshold_is_never_fitted_on_what_it_judges():
  with pytest.raises(StateError, match='there are none'):
    results.compute(TEST, 'dev_eer')
  # The same list, though its scores and its order are others.
  twin = score_files.Scores(TEST.ids[::-1], TEST.label[::-1], DEV.scores)
  for dev in (TEST, twin):
    with pytest.raises(StateError, match='same list of samples'):
      results.compute(TEST, 'dev_eer', dev)


@pytest.mark.parametrize('dev', [None, TEST])
def test_an_oracle_says_so_everywhere(dev):
  found = results.compute(TEST, 'dev_eer', dev, oracle=True)
  assert all(values['ORACLE'] is True for values in found.values())
  assert tables.text(found).startswith('ORACLE')
  assert 'ORACLE' in tables.text(found, 'mine').splitlines()[0]
  assert all('ORACLE' in str(table.title) for table in tables.drawn(found, 'mine'))
  assert json.loads(json.dumps(results.json_safe(found)))['rgb']['ORACLE'] is True
  assert 'ORACLE' not in tables.text(results.compute(TEST, 'dev_eer', DEV), 'mine')


def test_dev_of_other_weights_is_refused():
  def of(scores, weights):
    header = {} if weights is None else {'weights_hash': weights}
    return score_files.Scores(scores.ids, scores.label, scores.scores, header=header)

  with pytest.raises(StateError, match='weights one.*two'):
    results.compute(of(TEST, 'two'), 'dev_eer', of(DEV, 'one'))
  for dev, test in (('one', 'one'), (None, 'one'), ('one', None)):
    results.compute(of(TEST, test), 'dev_eer', of(DEV, dev))


def test_dev_without_the_subset_is_refused():
  with pytest.raises(StateError, match=r'no scores under rgb\+depth'):
    results.compute(TEST, 'dev_eer', make('d', DEV.scores['rgb']))
  with pytest.raises(StateError, match=r'dev, rgb\+depth: dev_eer needs'):
    results.compute(TEST, 'dev_eer', make('d', DEV.scores['rgb'], [NAN] * 6))


def test_an_unknown_rule():
  with pytest.raises(ConfigError, match='not a threshold rule'):
    results.compute(TEST, 'best')


def test_a_subset_that_is_not_served_has_no_figures():
  test = make('t', TEST.scores['rgb'], [NAN] * 6, attack_category=TEST.attack_category)
  # Nor does dev: no threshold is asked of it.
  dev = make('d', DEV.scores['rgb'], [NAN] * 6)
  found = results.compute(test, 'dev_eer', dev)
  values = found['rgb+depth']
  assert list(values) == list(found['rgb'])
  assert (values['n_bona_fide'], values['n_attack'], values['n_fta']) == (3, 3, 6)
  assert all(math.isnan(x) for name, x in values.items() if not name.startswith('n_'))
  row = tables.text(found).splitlines()[2]
  assert row.split() == ['rgb+depth', '(not', 'served)'] + ['-'] * 10 + ['3', '3', '6']
  assert results.notes(found) == []


def test_failures_to_acquire_are_said():
  found = results.compute(make('t', [0.9, NAN, 0.9, NAN, 0.1, 0.1]), 'fixed=0.5')
  assert found['rgb']['bpcer'] == pytest.approx(1 / 3)
  assert found['rgb']['apcer'] == 0
  assert found['rgb']['n_fta'] == 2
  [remark] = results.notes(found)
  assert remark.startswith('rgb: 2 of 6 samples have no score')


def test_swapped_polarity_is_asked_about():
  swapped = make('t', 1 - TEST.scores['rgb'], TEST.scores['rgb+depth'])
  [remark] = results.notes(results.compute(swapped, 'fixed=0.5'))
  assert remark.startswith('rgb: polarity?')


def test_one_class_is_undefined_never_zero():
  test = score_files.Scores(['a', 'b'], [1, 1], {'rgb': [0.9, 0.1]})
  found = results.compute(test, 'fixed=0.5')
  values = found['rgb']
  assert values['bpcer'] == 0.5
  defined = {'bpcer', 'bpnrr', 'threshold', 'n_bona_fide', 'n_attack', 'n_fta'}
  assert all(math.isnan(values[name]) for name in values.keys() - defined)
  assert tables.text(found).splitlines()[1].split()[:4] == [
    'rgb',
    'undefined',
    'undefined',
    'undefined',
  ]
  as_json = json.loads(json.dumps(results.json_safe(found), allow_nan=False))
  assert as_json['rgb']['acer'] is None and as_json['rgb']['bpcer'] == 0.5
  assert results.notes(found) == []


def test_json_safe_turns_numbers_of_numpy_into_pythons():
  safe = results.json_safe({'a': {'x': np.float32(0.5), 'n': np.int64(3), 'u': np.float64('nan')}})
  assert safe == {'a': {'x': 0.5, 'n': 3, 'u': None}}
  assert json.dumps(safe)
