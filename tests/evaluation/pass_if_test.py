"""Requirements: how they are read, and what meets them, by hand."""

import math
from fractions import Fraction

import numpy as np
import pytest

from flexfas_jax.errors import ConfigError
from flexfas_jax.evaluation import evaluate, pass_if, score_files
from flexfas_jax.evaluation.intervals import Interval
from flexfas_jax.evaluation.report import formatting


def figure(value, high=math.nan, low=0.0, exact=None, few=False):
  over = {'subjects': Interval(low if not math.isnan(high) else math.nan, high)}
  if exact is not None:
    over['samples, exact'] = Interval(0.0, exact)
  return pass_if.Figure(value, over, few)


def verdict(text, figures, **how):
  return pass_if.evaluate(pass_if.parse(text), figures, **how)[0]


def test_a_requirement_is_read():
  found = pass_if.parse(' apcer_max<=5% , rgb+depth: bpcer <= 0.03, auc>=97.5%,at=point')
  assert found.at == 'point'
  assert found.criteria == (
    pass_if.Criterion('', 'apcer_max', Fraction(5, 100), False),
    pass_if.Criterion('rgb+depth', 'bpcer', Fraction(3, 100), False),
    pass_if.Criterion('', 'auc', Fraction(975, 1000), True),
  )
  assert pass_if.parse('') is None and pass_if.parse('bpcer<=3%').at == 'limit'
  by_kind = pass_if.parse('rgb:apcer_species/surf:print<=1%').criteria[0]
  assert (by_kind.subset, by_kind.metric) == ('rgb', 'apcer_species/surf:print')
  assert pass_if.parse('bpcer@apcer=5%<=3%').criteria[0].metric == 'bpcer@apcer=5%'
  assert pass_if.parse('tpr@fpr=1e-2>=90%').criteria[0].higher_is_better


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('apcer_max', 'is no requirement; write e.g.'),
    ('apcer_max<5%', 'is no requirement'),
    ('apcr<=5%', 'names no metric; choose from: acer, apcer, '),
    ('threshold<=5%', 'names no metric'),
    ('hter_at_test_eer<=5%', 'names no metric'),
    ('bpcer>=3%', 'of bpcer, lower is better; write bpcer<='),
    ('auc<=3%', 'of auc, higher is better; write auc>='),
    ('bpcer<=3', 'is no share; write 5% or 0.05'),
    ('bpcer<=nan', 'is no share'),
    ('bpcer<=3%,at=median', 'choose at=limit'),
    ('at=point', 'requires nothing'),
    (',', 'requires nothing'),
    (3, 'give a text'),
  ],
)
def test_what_is_no_requirement(text, message):
  with pytest.raises(ConfigError, match=message):
    pass_if.parse(text)


def test_attacks_that_exist_are_listed():
  attacks = ['apcer/print', 'apcer_species/a4', 'apcer_species/surf:mask']
  listed = 'apcer/print, apcer_species/a4, apcer_species/surf:mask'
  for text in ('apcer_species/a5<=5%', 'rgb: apcer/a4<=5%'):
    with pytest.raises(pass_if.UnknownMetric, match=f'the test has no apcer.*; it has: {listed}$'):
      pass_if.parse(text, attacks)
  with pytest.raises(pass_if.UnknownMetric, match=f'names no metric; choose from: .*, {listed}$'):
    pass_if.parse('apcr<=5%', attacks)
  with pytest.raises(pass_if.UnknownMetric, match='it has: no attack with a name'):
    pass_if.parse('apcer/a4<=5%', [])
  assert pass_if.parse('rgb:apcer_species/surf:mask<=5%', attacks)
  many = [f'apcer/{i}' for i in range(200)]
  with pytest.raises(pass_if.UnknownMetric, match='apcer/19 and 180 more$'):
    pass_if.parse('apcer/a4<=5%', many)
  # A run has several tests: one that lacks the attack fails, and its reason has the names.
  made = scores(0)
  found = evaluate.evaluate('x', made, 'fixed=0.5', draws=200, requirement='apcer/a4<=5%')
  (check,) = found.verdicts[0].checks
  assert (check.passed, check.why, check.attacks) == (False, 'unknown_attack', ('apcer/paper',))
  assert formatting.verdict_lines(found)[1].startswith(
    '  rgb: APCER of a4: no such attack in the test, which has apcer/paper, required'
  )


def test_the_limit_decides_and_the_point_where_it_is_stated():
  figures = {'rgb': {'bpcer': figure(0.03, 0.06)}, 'rgb+depth': {'bpcer': figure(0.01, 0.029)}}
  assert not verdict('bpcer<=3%', figures).passed
  assert verdict('bpcer<=3%,at=point', figures).passed
  assert verdict('rgb+depth: bpcer<=3%', figures).passed
  assert verdict('rgb:bpcer<=6%', figures).passed
  # The worse of both intervals, and what it is over.
  both = {'rgb': {'bpcer': figure(0.0, 0.02, exact=0.1)}}
  (check,) = verdict('bpcer<=3%', both).checks
  assert (check.passed, check.limit, check.over) == (False, 0.1, 'samples, exact')
  higher = {'rgb': {'auc': pass_if.Figure(0.99, {'subjects': Interval(0.97, 1.0)}, False)}}
  assert verdict('auc>=97%', higher).passed and not verdict('auc>=98%', higher).passed


def test_rounding_decides_nothing():
  at = {'rgb': {'bpcer': figure(3 / 60)}}
  assert verdict('bpcer<=5%,at=point', at).passed
  assert not verdict('bpcer<=4.999999999%,at=point', at).passed


@pytest.mark.parametrize(
  ('figures', 'how', 'why'),
  [
    ({'rgb': {'bpcer': figure(0.0, 0.0, few=True)}}, {}, 'insufficient'),
    ({'rgb': {'bpcer': figure(math.nan)}}, {}, 'undefined'),
    ({'rgb': {'bpcer': figure(0.0)}}, {}, 'undefined'),  # no interval has a limit
    ({'rgb': {}}, {}, 'undefined'),
    ({'rgb': {'bpcer': figure(0.0, 0.0)}}, {'oracle': True}, 'oracle'),
  ],
)
def test_what_is_not_shown_is_not_met(figures, how, why):
  found = verdict('bpcer<=50%', figures, **how)
  assert not found.passed and found.checks[0].why == why


def test_subsets_that_are_not_served():
  figures = {'rgb': {'bpcer': figure(0.0, 0.01)}}
  assert verdict('bpcer<=3%', figures, not_served=['depth']).passed
  named = verdict('depth: bpcer<=3%', figures, not_served=['depth'])
  assert not named.passed and named.checks[0].why == 'not_served'
  assert not verdict('bpcer<=3%', {}, not_served=['rgb']).passed
  with pytest.raises(ConfigError, match="names the subset 'ir'; the scores have: rgb"):
    verdict('ir: bpcer<=3%', figures)


def test_each_system_has_its_verdict():
  figures = {
    'ours: rgb': {'bpcer': figure(0.0, 0.01)},
    'theirs: rgb': {'bpcer': figure(0.2, 0.3)},
  }
  found = pass_if.evaluate(pass_if.parse('rgb: bpcer<=3%'), figures)
  assert [(one.system, one.passed) for one in found] == [('ours', True), ('theirs', False)]


def scores(seed, n=120, wrong=0):
  """Half bona fide, each of its own subject; the first `wrong` bona fide samples score 0."""
  label = np.arange(n) % 2
  score = label.astype(float)
  score[np.flatnonzero(label)[:wrong]] = 0
  return score_files.Scores(
    ids=[f'{seed}-{i}' for i in range(n)],
    label=label,
    scores={'rgb': score},
    dataset=['made'] * n,
    subject=[f'{seed}-{i}' for i in range(n)],
    attack_type=np.where(label == 1, '', 'paper'),
  )


def test_of_an_evaluation():
  """0 of 60: the exact limit is 1 - 0.025 ** (1 / 60), 5.96 %."""
  limit = 1 - 0.025 ** (1 / 60)
  for bound, passed in ((0.0597, True), (0.0595, False)):
    found = evaluate.evaluate(
      'x', scores(0), 'fixed=0.5', draws=200, requirement=f'apcer_max<={bound},bpcer<={bound}'
    )
    assert found.verdicts[0].passed == passed
    assert found.verdicts[0].checks[0].limit == pytest.approx(limit)
    assert formatting.verdict_word(found) == ('PASS' if passed else 'FAIL')
    entry = evaluate.to_json(found)['rgb']['pass_if']
    assert entry['passed'] == passed and entry['requirement'] == found.requirement.text
    assert [check['metric'] for check in entry['checks']] == ['apcer_max', 'bpcer']
  none = evaluate.evaluate('x', scores(0), 'fixed=0.5', draws=0)
  assert formatting.verdict_word(none) == 'no requirement given'
  assert 'pass_if' not in evaluate.to_json(none)['rgb'] and formatting.verdict_lines(none) == []


def test_the_reason_is_the_worst_subset():
  made = scores(0, wrong=6)
  made.scores['rgb+depth'] = scores(0, wrong=30).scores['rgb']
  found = evaluate.evaluate(
    'x', made, 'fixed=0.5', draws=200, requirement='apcer_max<=9%,bpcer<=3%'
  )
  checks = {(c.subset, c.criterion.metric): c for c in found.verdicts[0].checks}
  limit = 100 * checks['rgb+depth', 'bpcer'].limit
  first, reason = formatting.verdict_lines(found)
  assert first.startswith(
    'FAIL (APCER, max at most 9 %, BPCER at most 3 %; compared are the limits'
  )
  assert reason == (
    f'  the worst of 2 subsets, rgb+depth: BPCER up to {limit:.1f} % (interval over subjects), '
    'required at most 3 %'
  )


def test_the_mean_over_runs_is_compared():
  systems = {f'ours run {i}': scores(0, wrong=i) for i in (1, 2)}
  merged = evaluate.merge_systems(systems)
  found = evaluate.evaluate(
    'x',
    merged,
    'fixed=0.5',
    draws=200,
    runs={'ours': list(systems)},
    requirement='bpcer<=2.5%,at=point',
  )
  (one,) = found.verdicts
  assert one.system == 'ours' and one.passed  # (1 + 2) / 2 of 60
  assert 'pass_if' in evaluate.to_json(found)['ours: rgb']


@pytest.mark.parametrize('draws', [0, 1, 199])
def test_few_replicates_meet_nothing(draws):
  """Without its interval over subjects, or with a narrow one, a test would pass that fails."""
  made, required = scores(0, wrong=1), 'bpcer<=10%'
  with pytest.raises(ConfigError, match=f'need 200 bootstrap replicates or more, not {draws}'):
    evaluate.evaluate('x', made, 'fixed=0.5', draws=draws, requirement=required)
  at_point = evaluate.evaluate(
    'x', made, 'fixed=0.5', draws=draws, requirement='bpcer<=2%,at=point'
  )
  assert at_point.verdicts[0].passed


def test_many_samples_get_the_intervals_that_a_requirement_needs(monkeypatch):
  monkeypatch.setattr(evaluate, 'MOST_SAMPLES', 10)
  made = scores(0, wrong=1)
  assert evaluate.evaluate('x', made, 'fixed=0.5').clusters is None
  found = evaluate.evaluate('x', made, 'fixed=0.5', requirement='bpcer<=10%')
  assert found.clusters is not None and found.verdicts[0].passed
