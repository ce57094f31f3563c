"""A result: every figure with intervals that hold it, mistakes, systems, and what is refused."""

import dataclasses
import json
import math

import numpy as np
import pytest

from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.evaluation import bootstrap, evaluate, intervals, metrics, results
from flexfas_jax.evaluation.score_files import Scores

NAN = math.nan


def made(prefix, people=30, subsets=(('rgb', 1.0), ('rgb+ir', 3.0)), seed=0):
  """Each person: 3 bona fide samples, 3 prints, and every other person 2 masks."""
  rng = np.random.default_rng([seed, len(prefix)])
  rows = []
  for person in range(people):
    for kind, n in (('', 3), ('print', 3), ('mask', 2 * (person % 2))):
      rows += [(person, kind, frame) for frame in range(n)]
  label = np.array([kind == '' for _, kind, _ in rows], int)
  own, noise = rng.normal(size=(2, len(rows)))
  who = np.array([person for person, _, _ in rows])
  shared = rng.normal(size=people)[who]
  return Scores(
    ids=[f'{prefix}{p}_{kind}_{frame}' for p, kind, frame in rows],
    label=label,
    scores={
      name: 1 / (1 + np.exp(-(apart * (label - 0.5) + 0.6 * (own + noise + shared))))
      for name, apart in subsets
    },
    dataset=['made'] * len(rows),
    subject=[f'{prefix}{p}' for p, _, _ in rows],
    attack_type=[f'{kind}_a' if kind else '' for _, kind, _ in rows],
    attack_category=[kind for _, kind, _ in rows],
    ethnicity=['AB'[p % 2] for p, _, _ in rows],
  )


TEST, DEV = made('t'), made('d', seed=1)


@pytest.fixture(scope='module')
def evaluated():
  return evaluate.evaluate('intra', TEST, 'dev_eer', DEV, draws=300, group_by=['ethnicity'])


def test_every_figure_is_there_and_in_its_intervals(evaluated):
  found = results.compute(TEST, 'dev_eer', DEV)
  assert evaluated.metrics == found
  assert evaluated.clusters.unit == 'subjects' and evaluated.clusters.n == 30
  no_share = {'eer', 'auc', 'hter_at_test_eer'}
  for subset, of in evaluated.estimates.items():
    assert set(of) == {n for n in found[subset] if n != 'threshold' and not n.startswith('n_')}
    for name, estimate in of.items():
      assert estimate.value == found[subset][name]
      spans = [estimate.bootstrap] if name in no_share else [estimate.bootstrap, estimate.exact]
      for low, high in spans:
        assert 0 <= low <= estimate.value <= high <= 1, (subset, name)
      assert math.isnan(estimate.exact.low) == (name in no_share)
      if estimate.count:
        assert estimate.count.rate == pytest.approx(estimate.value) or name.startswith('tpr')


def test_what_is_drawn_computes_the_same_figures(evaluated):
  """The bootstrap's own way to a figure, everybody being drawn once."""
  subset = 'rgb+ir'
  threshold = evaluated.metrics[subset]['threshold']
  shares = evaluate._shares(TEST, subset, threshold, results.attack_kinds(TEST))
  once = evaluate._resample(evaluated.clusters, TEST, {subset: shares}, {})[subset]
  for name, replicates in once.items():
    assert replicates.value == pytest.approx(evaluated.metrics[subset][name], abs=1e-12), name
  assert {'apcer_max', 'acer_max', 'hter', 'tpr@fpr=1e-4', 'bpcer@apcer=1%', 'apnrr'} <= set(once)


def test_intervals_are_those_of_the_counts(evaluated):
  of = evaluated.estimates['rgb']
  assert of['apcer'].exact == intervals.clopper_pearson(of['apcer'].count)
  species = [of[f'apcer_species/{name}'].count for name in ('mask_a', 'print_a')]
  assert of['apcer_max'].exact == intervals.max_interval(species)
  assert evaluated.species_of_max('rgb') == max(
    ('mask_a', 'print_a'), key=lambda name: evaluated.metrics['rgb'][f'apcer_species/{name}']
  )
  assert of['acer'].exact == intervals.mean_interval(
    (of['apcer'].value, of['bpcer'].value), (of['apcer'].exact, of['bpcer'].exact)
  )


def test_a_requirement_on_what_is_not_recorded_is_not_met():
  scores = dataclasses.replace(TEST, header={'not_recorded': ['ir']})
  found = evaluate.evaluate('x', scores, 'fixed=0.5', draws=0, requirement='acer<=100%,at=point')
  assert found.served == ['rgb'] and found.verdicts[0].passed
  assert [check.subset for check in found.verdicts[0].checks] == ['rgb']
  named = 'rgb+ir: acer<=100%,at=point'
  found = evaluate.evaluate('x', scores, 'fixed=0.5', draws=0, requirement=named)
  (check,) = found.verdicts[0].checks
  assert (check.passed, check.why) == (False, 'not_recorded')
  entry = evaluate.to_json(found)['rgb+ir']
  assert entry['not_recorded'] == ['ir'] and entry['pass_if']['passed'] is False
  assert 'intervals' not in entry and math.isnan(entry['acer'])
  # A threshold of such development scores is another subset's: the figures state it.
  dev = dataclasses.replace(made('d'), header={'not_recorded': ['ir']})
  found = evaluate.evaluate('x', TEST, 'dev_eer', dev, draws=0)
  assert any(note.startswith('rgb+ir: no development sample has ir') for note in found.notes)
  assert found.served == ['rgb', 'rgb+ir']


def test_only_the_interval_of_a_share_is_called_exact(evaluated):
  of = evaluated.estimates['rgb']
  methods = {name: of[name].method for name in ('apcer', 'bpcer', 'apcer_max', 'acer', 'hter')}
  assert methods == {
    'apcer': 'Clopper-Pearson',
    'bpcer': 'Clopper-Pearson',
    'apcer_max': 'Clopper-Pearson and Bonferroni',
    'acer': 'Zou-Donner',
    'hter': 'Zou-Donner',
  }
  entry = evaluate.to_json(evaluated)['rgb']['intervals']
  assert entry['acer']['samples_method'] == 'Zou-Donner'
  assert entry['auc']['samples_method'] is None  # it has no interval over samples
  label = np.arange(200) % 2
  ideal = Scores(
    ids=np.arange(200).astype(str), label=label, scores={'rgb': label},
    subject=np.arange(200).astype(str), attack_type=np.where(label, '', 'paper'),
  )  # fmt: skip
  required = 'acer<=9%,apcer_max<=9%,bpcer<=9%'
  found = evaluate.evaluate('x', ideal, 'fixed=0.5', draws=200, requirement=required)
  # Over subjects, the limits are never above those over samples: both have 0 of 100.
  over = {check.criterion.metric: check.over for check in found.verdicts[0].checks}
  assert over == {
    'acer': 'samples, approximate',
    'apcer_max': 'samples, conservative',
    'bpcer': 'samples, exact',
  }


def test_a_rate_without_errors_leaves_the_mean_unsure():
  """No draw has an error, and yet the mean's upper limit is not that of the other rate alone."""
  score = np.where(TEST.label == 1, 0.9, 0.1)
  score[np.flatnonzero(TEST.label == 1)[:3]] = 0.2
  found = evaluate.evaluate(
    'x', dataclasses.replace(TEST, scores={'rgb': score}), 'fixed=0.5', draws=200
  )
  of = found.estimates['rgb']
  assert of['apcer'].value == 0 < of['apcer'].bootstrap.high
  assert of['acer'].bootstrap == intervals.mean_interval(
    (0.0, of['bpcer'].value), (of['apcer'].bootstrap, of['bpcer'].bootstrap)
  )


def test_subsets_are_compared_and_the_lower_one_is_reported(evaluated):
  [one] = evaluated.comparisons
  assert (one.a, one.b, one.verdict) == ('rgb', 'rgb+ir', 'lower in one run')
  right = {
    s: (TEST.scores[s] >= evaluated.metrics[s]['threshold']) == (TEST.label == 1)
    for s in ('rgb', 'rgb+ir')
  }
  attack = TEST.label == 0
  assert one.attacks.only_b_correct == (attack & right['rgb+ir'] & ~right['rgb']).sum()
  assert one.rates['acer'].value == pytest.approx(
    evaluated.metrics['rgb+ir']['acer'] - evaluated.metrics['rgb']['acer']
  )
  [ir] = evaluated.sensors
  assert ir.added == 'ir'
  assert [g.kind for g in ir.gains] == ['bona fide', 'mask', 'print']


def test_the_surest_mistakes_come_first(evaluated):
  attacks, others = evaluated.mistakes['rgb']
  threshold = evaluated.metrics['rgb']['threshold']
  assert len(attacks) == evaluate.WORST
  scores = [m.score for m in attacks]
  assert scores == sorted(scores, reverse=True) and scores[-1] >= threshold
  assert scores[0] == TEST.scores['rgb'][TEST.label == 0].max()
  assert all(m.kind in ('print_a', 'mask_a') and m.label == 0 for m in attacks)
  assert [m.score for m in others] == sorted(m.score for m in others)


def test_equally_sure_mistakes_are_reported_by_id_whatever_the_order_of_rows():
  n = 40
  scores = Scores([f'{i:02}' for i in range(n)], [0, 1] * 20, {'rgb': [0.9, 0.1] * 20})
  turned = Scores(scores.ids[::-1], scores.label[::-1], {'rgb': scores.scores['rgb'][::-1]})
  found = [
    evaluate.evaluate('t', s, 'fixed=0.5', draws=0).mistakes['rgb'] for s in (scores, turned)
  ]
  assert found[0] == found[1]
  assert [m.id for m in found[0][0]] == [f'{2 * i:02}' for i in range(evaluate.WORST)]


def test_a_failure_to_acquire_is_the_first_mistake():
  score = TEST.scores['rgb'].copy()
  score[0] = NAN
  scores = dataclasses.replace(TEST, scores={'rgb': score})
  found = evaluate.evaluate('x', scores, 'fixed=0.5', draws=0)
  assert math.isnan(found.mistakes['rgb'][1][0].score)
  assert any('failure to acquire' in note for note in found.notes)


def test_without_a_bootstrap_there_are_intervals_over_samples():
  found = evaluate.evaluate('x', TEST, 'fixed=0.5', draws=0, group_by=['ethnicity'])
  assert found.clusters is None
  assert math.isnan(found.estimates['rgb']['apcer'].bootstrap.low)
  assert found.estimates['rgb']['apcer'].exact.low > 0
  assert found.comparisons[0].rates == {}
  assert found.comparisons[0].verdict == 'no significant difference'


def test_above_a_million_samples_the_bootstrap_has_to_be_asked_for(monkeypatch):
  monkeypatch.setattr(evaluate, 'MOST_SAMPLES', 100)
  found = evaluate.evaluate('x', TEST, 'fixed=0.5')
  assert found.clusters is None
  assert any('--bootstrap=1000' in note for note in found.notes)


def test_a_subset_that_is_not_served_is_not_evaluated():
  scores = dataclasses.replace(TEST, scores={**TEST.scores, 'ir': np.full(TEST.label.size, NAN)})
  found = evaluate.evaluate('x', scores, 'fixed=0.5', draws=50)
  assert found.served == ['rgb', 'rgb+ir'] and 'ir' in found.metrics


def test_one_class_is_undefined_and_not_an_error():
  some = TEST.only(TEST.label == 1)
  of = evaluate.evaluate('x', some, 'fixed=0.5', draws=50).estimates['rgb']
  assert of['bpcer'].bootstrap.low >= 0
  for name in ('apcer', 'acer', 'eer', 'auc', 'apcer_max', 'tpr@fpr=1e-2'):
    assert math.isnan(of[name].value)
    assert math.isnan(of[name].bootstrap.low) and math.isnan(of[name].exact.low), name
  one = evaluate.evaluate('x', TEST.only(np.arange(TEST.label.size) == 0), 'fixed=0.5', draws=50)
  assert math.isnan(one.estimates['rgb']['bpcer'].bootstrap.low)


def test_groups(evaluated):
  gaps = evaluated.gaps['rgb, ethnicity']
  assert [gap.rate for gap in gaps] == ['bpcer', 'apcer']
  assert sum(g.count.n for g in gaps[0].groups) == (TEST.label == 1).sum()
  with pytest.raises(ConfigError, match='--group_by=lamp: no such column'):
    evaluate.evaluate('x', TEST, 'fixed=0.5', draws=0, group_by=['lamp'])
  with pytest.raises(DataError, match='have nothing there'):
    evaluate.evaluate('x', TEST, 'fixed=0.5', draws=0, group_by=['video'])


def test_the_json_holds_it_all(evaluated):
  found = json.loads(json.dumps(results.json_safe(evaluate.to_json(evaluated)), allow_nan=False))
  assert list(found) == ['rgb', 'rgb+ir']
  assert found['rgb']['acer'] == evaluated.metrics['rgb']['acer']
  apcer = found['rgb']['intervals']['apcer']
  assert apcer['errors'] == evaluated.estimates['rgb']['apcer'].count.errors
  assert apcer['bootstrap'] == list(evaluated.estimates['rgb']['apcer'].bootstrap)
  assert found['rgb']['intervals']['auc']['clopper_pearson'] is None
  assert found['rgb+ir']['against']['rgb']['verdict'] == 'lower in one run'
  assert found['rgb+ir']['against']['rgb']['runs'] == {'a': 1, 'b': 1, 'paired': True}
  assert found['rgb']['runs'] == 1 and 'RENDERED' not in found['rgb']
  assert set(found['rgb']['groups']['ethnicity']['bpcer']) >= {'gap', 'ethnicity=A'}


def test_species_of_several_data_sets_are_each_its_own():
  scores = Scores(
    ids=list('abcdef'),
    label=[1, 0, 0, 0, 0, 1],
    scores={'rgb': [1, 1, 0, 0, 0, 1]},
    dataset=['x', 'x', 'y', 'x', 'y', 'y'],
    attack_type=['', 'print', 'print', 'mask', '', ''],
  )
  _, species = results.attack_kinds(scores)
  assert [species.names[i] for i in species.index] == ['', 'x:print', 'y:print', 'mask', '', '']
  found = results.compute(scores, 'fixed=0.5')['rgb']
  assert found['apcer/x:print'] == 1 and found['apcer/y:print'] == 0
  assert found['apcer_max'] == 1 and found[f'apcer/{metrics.UNKNOWN}'] == 0


def test_systems_are_merged_by_id():
  other = dataclasses.replace(
    TEST.only(np.arange(TEST.label.size)[::-1] >= 0),
    ids=TEST.ids[::-1],
    label=TEST.label[::-1],
    scores={'rgb': 1 - TEST.scores['rgb'][::-1]},
    nan_samples={'rgb': [0]},
  )
  found = evaluate.merge_systems({'ours': TEST, 'theirs': other})
  assert list(found.scores) == ['ours: rgb', 'ours: rgb+ir', 'theirs: rgb']
  np.testing.assert_array_equal(found.ids, TEST.ids)
  np.testing.assert_array_equal(found.scores['theirs: rgb'], 1 - TEST.scores['rgb'])
  assert found.nan_samples['theirs: rgb'].tolist() == [TEST.label.size - 1]


def test_systems_must_have_evaluated_the_same():
  some = TEST.only(np.arange(TEST.label.size) != 7)
  with pytest.raises(DataError, match=rf'b lacks 1 ids that .*{TEST.ids[7]}'):
    evaluate.merge_systems({'a': TEST, 'b': some})
  with pytest.raises(DataError, match='the first lacks 1 ids that b has'):
    evaluate.merge_systems({'a': some, 'b': TEST})
  label = TEST.label.copy()
  label[3] = 1 - label[3]
  with pytest.raises(DataError, match=f'{TEST.ids[3]} is .* in b and .* in the first'):
    evaluate.merge_systems({'a': TEST, 'b': dataclasses.replace(TEST, label=label)})


def test_equal_seeds_give_equal_intervals():
  one, two = (evaluate.evaluate('x', TEST, 'fixed=0.5', draws=60) for _ in range(2))
  assert one.estimates == two.estimates
  other = evaluate.evaluate('x', TEST, 'fixed=0.5', draws=60, seed=1)
  assert other.estimates['rgb']['acer'].bootstrap != one.estimates['rgb']['acer'].bootstrap
  assert bootstrap.N_REPLICATES >= 1000


def trained(seed, apart):
  """The scores of a run on the samples of TEST: bona fide samples are as much higher."""
  rng = np.random.default_rng(seed)
  shared = np.random.default_rng(0).normal(size=(2, TEST.label.size))
  scores = {
    subset: 1 / (1 + np.exp(-(more + apart) * (TEST.label - 0.5) - noise - 0.3 * own))
    for subset, more, noise, own in zip(
      ('rgb', 'rgb+ir'), (0, 3), shared, rng.normal(size=shared.shape), strict=True
    )
  }
  return dataclasses.replace(TEST, scores=scores)


@pytest.fixture(scope='module')
def several():
  """Three runs of `ours`, four of `theirs`, one of `old`; ours is better."""
  systems = {f'ours {i}': trained(i, 2.5) for i in range(3)}
  systems |= {f'theirs {i}': trained(10 + i, 0.5) for i in range(4)}
  systems['old'] = trained(20, 0.5)
  runs = {m: [s for s in systems if s.startswith(m)] for m in ('ours', 'theirs', 'old')}
  merged = evaluate.merge_systems(systems)
  return evaluate.evaluate('x', merged, 'fixed=0.5', draws=300, runs=runs)


def test_means_over_runs_have_intervals_over_runs_and_subjects(several):
  assert list(several.run_means) == [f'{m}: {s}' for m in ('ours', 'theirs')
                                     for s in ('rgb', 'rgb+ir')]  # fmt: skip
  for method, of in several.run_means.items():
    system, subset = method.split(': ')
    n = {'ours': 3, 'theirs': 4}[system]
    acer = [several.metrics[f'{system} {i}: {subset}']['acer'] for i in range(n)]
    assert of['acer'].of_runs == tuple(acer) and of['acer'].value == pytest.approx(np.mean(acer))
    assert of['acer'].deviation == pytest.approx(np.std(acer, ddof=1))
    for mean in of.values():
      low, high = mean.bootstrap
      assert math.isnan(mean.value) or 0 <= low <= mean.value <= high <= 1
    # As wide as the spread of the runs alone, or wider.
    away = {3: 4.3027, 4: 3.1824}[n] * of['acer'].deviation / math.sqrt(n)
    low, high = of['acer'].bootstrap
    assert high - of['acer'].value >= away * 0.999


def test_methods_are_compared_over_their_runs(several):
  found = {(c.a, c.b): c for c in several.comparisons}
  assert list(found) == [
    ('ours: rgb', 'ours: rgb+ir'), ('ours: rgb', 'theirs: rgb'), ('ours: rgb', 'old: rgb'),
    ('ours: rgb+ir', 'theirs: rgb+ir'), ('ours: rgb+ir', 'old: rgb+ir'),
    ('theirs: rgb', 'theirs: rgb+ir'), ('old: rgb', 'old: rgb+ir'),
  ]  # fmt: skip
  worse, one = found['ours: rgb', 'theirs: rgb'], found['ours: rgb', 'old: rgb']
  assert worse.verdict == 'worse' and worse.runs == (3, 4, False)
  assert one.verdict == 'higher in one run' and one.runs == (3, 1, False)
  assert worse.attacks is None and found['old: rgb', 'old: rgb+ir'].attacks.only_b_correct > 0
  # Two subsets of one method are those of the same trained models.
  assert found['ours: rgb', 'ours: rgb+ir'].runs == (3, 3, True)
  theirs, ours = (several.run_means[f'{m}: rgb']['acer'].value for m in ('theirs', 'ours'))
  assert worse.rates['acer'].value == pytest.approx(theirs - ours)
  assert several.one_run


def test_the_json_of_several_runs(several):
  found = json.loads(json.dumps(results.json_safe(evaluate.to_json(several)), allow_nan=False))
  mean = found['ours: rgb']
  assert (mean['runs'], mean['of_runs']) == (3, [f'ours {i}: rgb' for i in range(3)])
  assert mean['acer'] == np.mean([found[run]['acer'] for run in mean['of_runs']])
  acer = mean['intervals']['acer']
  assert acer['runs_and_subjects'] == list(several.run_means['ours: rgb']['acer'].bootstrap)
  assert acer['deviation'] == several.run_means['ours: rgb']['acer'].deviation
  against = found['theirs: rgb']['against']['ours: rgb']
  assert against['verdict'] == 'worse' and against['attacks'] is None
  assert against['runs'] == {'a': 3, 'b': 4, 'paired': False}
  assert found['ours 0: rgb']['runs'] == 1


def test_runs_without_a_bootstrap_have_means_and_no_verdict():
  systems = {f'a {i}': trained(i, 1) for i in range(2)}
  merged = evaluate.merge_systems(systems)
  found = evaluate.evaluate('x', merged, 'fixed=0.5', draws=0, runs={'a': list(systems)})
  mean = found.run_means['a: rgb']['acer']
  assert mean.value == pytest.approx(np.mean(mean.of_runs)) and math.isnan(mean.bootstrap.low)
  assert [c.verdict for c in found.comparisons] == ['no significant difference']


def test_a_subset_that_a_run_does_not_serve_has_no_mean():
  lacking = trained(1, 1)
  lacking = dataclasses.replace(lacking, scores={'rgb': lacking.scores['rgb']})
  merged = evaluate.merge_systems({'a 0': trained(0, 1), 'a 1': lacking})
  found = evaluate.evaluate('x', merged, 'fixed=0.5', draws=50, runs={'a': ['a 0', 'a 1']})
  assert list(found.run_means) == ['a: rgb']


def test_one_run_of_each_is_as_without_naming_runs():
  merged = evaluate.merge_systems({'a': trained(0, 1), 'b': trained(1, 1)})
  plain = evaluate.evaluate('x', merged, 'fixed=0.5', draws=50)
  named = evaluate.evaluate('x', merged, 'fixed=0.5', draws=50, runs={'a': ['a'], 'b': ['b']})
  assert named.comparisons == plain.comparisons and named.run_means == {}
  np.testing.assert_equal(evaluate.to_json(named), evaluate.to_json(plain))


def test_samples_that_one_system_calls_rendered_are_rendered():
  rendered = dataclasses.replace(TEST, header={'rendered': True})
  for systems, stated in (((TEST, rendered), True), ((TEST, TEST), False)):
    merged = evaluate.merge_systems(dict(zip('ab', systems, strict=True)))
    assert evaluate.evaluate('x', merged, 'fixed=0.5', draws=0).rendered is stated
  assert 'rendered' not in TEST.header
