"""Comparisons: McNemar by hand, which pairs, Holm's correction, and what a sensor stops."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from flexfas_jax.evaluation import bootstrap, comparisons, metrics
from flexfas_jax.evaluation.comparisons import Comparison, Difference, Discordant, Runs
from flexfas_jax.evaluation.intervals import Interval

NONE = Discordant(0, 0, math.nan)


def test_mcnemar_by_hand():
  right_a = np.array([1] * 10 + [1] * 2 + [0] * 9 + [0] * 3, bool)
  right_b = np.array([1] * 10 + [0] * 2 + [1] * 9 + [0] * 3, bool)
  a, b, p = comparisons.mcnemar(right_a, right_b)
  assert (a, b) == (2, 9)
  # 2 (1 + 11 + 55) / 2 ** 11
  assert p == pytest.approx(2 * 67 / 2048)
  assert p == pytest.approx(stats.binomtest(2, 11, 0.5).pvalue)
  assert comparisons.mcnemar(right_a, right_a)[:2] == (0, 0)
  assert math.isnan(comparisons.mcnemar(right_a, right_a).p)
  assert comparisons.mcnemar(np.array([1, 0], bool), np.array([0, 1], bool)).p == 1


def test_subsets_are_compared_with_those_that_include_them():
  assert comparisons.pairs(['rgb', 'rgb+depth', 'rgb+ir', 'rgb+depth+ir']) == [
    ('rgb', 'rgb+depth'),
    ('rgb', 'rgb+ir'),
    ('rgb', 'rgb+depth+ir'),
    ('rgb+depth', 'rgb+depth+ir'),
    ('rgb+ir', 'rgb+depth+ir'),
  ]
  assert comparisons.pairs(['rgb+ir', 'ir']) == [('ir', 'rgb+ir')]
  assert comparisons.pairs(['score']) == []


def test_systems_are_compared_with_the_first():
  names = ['a: rgb', 'a: rgb+ir', 'b: rgb', 'b: rgb+ir', 'c: rgb']
  found = comparisons.pairs(names)
  assert [p for p in found if p[0][0] != p[1][0]] == [
    ('a: rgb', 'b: rgb'),
    ('a: rgb', 'c: rgb'),
    ('a: rgb+ir', 'b: rgb+ir'),
  ]
  assert ('b: rgb', 'b: rgb+ir') in found
  assert comparisons.pairs(['ours: score', 'theirs: score']) == [('ours: score', 'theirs: score')]


THREE = Runs(3, 3)


def compared(p, low=-0.2, high=-0.1, runs=THREE):
  rates = {'acer': Difference(-0.15, Interval(low, high), p)}
  return Comparison('a', 'b', NONE, NONE, rates, runs=runs)


def test_holm_by_hand():
  found = comparisons.apply_holm([compared(p) for p in (0.03, 0.01, math.nan, 0.02, 0.6)])
  # Sorted .01 .02 .03 .6 times 4 3 2 1, never falling.
  assert [c.p_holm for c in found] == pytest.approx([0.06, 0.04, math.nan, 0.06, 0.6], nan_ok=True)
  assert [c.verdict for c in found] == [
    'no significant difference',
    'better',
    *['no significant difference'] * 3,
  ]


def test_a_verdict_needs_interval_and_p():
  [better] = comparisons.apply_holm([compared(0.001)])
  [worse] = comparisons.apply_holm([compared(0.001, 0.1, 0.2)])
  [neither] = comparisons.apply_holm([compared(0.001, -0.2, 0.01)])
  assert [c.verdict for c in (better, worse, neither)] == [
    'better',
    'worse',
    'no significant difference',
  ]
  assert compared(0.001).verdict == 'no significant difference'  # not corrected yet


@pytest.mark.parametrize('runs', [Runs(), Runs(1, 3), Runs(3, 1), Runs(1, 1, True)])
def test_one_run_makes_no_method_better(runs):
  of = [compared(0.001, runs=runs), compared(0.001, 0.1, 0.2, runs), compared(1.0, runs=runs)]
  assert [c.verdict for c in comparisons.apply_holm(of)] == [
    'lower in one run',
    'higher in one run',
    'no significant difference',
  ]


def test_without_a_bootstrap_there_is_no_verdict():
  without = Comparison('a', 'b', NONE, NONE, {})
  assert without.verdict == 'no significant difference' and without.runs == (1, 1, False)
  [found, other] = comparisons.apply_holm([without, compared(0.04)])
  assert math.isnan(found.p_holm) and other.p_holm == 0.04  # it counts for none


def test_too_few_samples_give_no_verdict():
  [one] = comparisons.apply_holm([compared(0.001)])
  assert one.verdict == 'better'
  few = dataclasses.replace(one, insufficient_samples=True)
  assert few.verdict == 'no significant difference'


def test_a_corrected_p_is_at_most_1():
  found = comparisons.apply_holm([compared(0.6), compared(0.7)])
  assert [c.p_holm for c in found] == [1.0, 1.0]


def replicates(value, n=9):
  left_out = value + np.array([-0.1, 0.1])
  return bootstrap.Replicates(value, value + left_out * 0, left_out, np.zeros(2, int), n)


def test_methods_are_compared_by_the_means_of_their_runs():
  label, accepted = np.array([1, 0]), {'a': np.array([True, False])}
  drawn = {name: {'acer': replicates(value)} for name, value in
           (('a1', 0.1), ('a2', 0.2), ('b1', 0.3), ('b2', 0.4), ('c', 0.4))}  # fmt: skip
  runs = {'a': ('a1', 'a2'), 'b': ('b1', 'b2'), 'c': ('c',)}
  for paired, half in ((False, stats.t.ppf(0.975, 2) * math.sqrt(0.005)), (True, 0.0)):
    found = comparisons.compare('a', 'b', label, {}, drawn, runs, paired)
    assert (found.a, found.b, found.runs) == ('a', 'b', (2, 2, paired))
    value, (low, high), _ = found.rates['acer']
    assert (value, low, high) == pytest.approx((0.2, 0.2 - half, 0.2 + half))
    assert found.bona_fide is found.attacks is None  # decisions are those of one run
  one = comparisons.compare('a', 'c', label, {}, drawn, runs)
  assert one.runs == (2, 1, False) and one.rates['acer'].value == pytest.approx(0.25)
  assert one.bona_fide is one.attacks is None
  assert not one.runs.several and comparisons.compare('b', 'a', label, {}, drawn, runs).runs.several
  # A rate that one of the runs has not is not compared.
  lacking = {**drawn, 'b2': {}}
  assert not comparisons.compare('a', 'b', label, {}, lacking, runs).rates
  alone = {**accepted, 'c': np.array([False, False])}
  found = comparisons.compare('x', 'y', label, alone, None, {'x': ('a',), 'y': ('c',)})
  assert (found.bona_fide[:2], found.attacks[:2], found.runs) == ((1, 0), (0, 0), (1, 1, False))


def test_what_a_sensor_stops_by_hand():
  label = np.array([1, 1, 1, 0, 0, 0, 0])
  kinds = metrics.groups(['', '', '', 'print', 'print', 'mask', 'mask'])
  accepted = {
    'rgb': np.array([1, 0, 1, 1, 1, 0, 1], bool),
    'rgb+ir': np.array([1, 1, 0, 0, 1, 1, 1], bool),
    'rgb+depth+ir': np.ones(7, bool),
  }
  [ir, depth] = comparisons.sensor_effects(list(accepted), label, accepted, kinds)
  assert (ir.before, ir.after, ir.added) == ('rgb', 'rgb+ir', 'ir')
  assert depth.added == 'depth'
  assert [tuple(gain) for gain in ir.gains] == [
    ('bona fide', 3, 1, 1, 1, True),
    ('mask', 2, 1, 0, 1, True),
    ('print', 2, 2, 1, 0, True),
  ]
  [ir, _] = comparisons.sensor_effects(list(accepted), label, accepted, None)
  assert [tuple(gain) for gain in ir.gains] == [
    ('bona fide', 3, 1, 1, 1, True),
    ('attacks', 4, 3, 1, 1, True),
  ]
  unnamed = metrics.groups(['', '', '', 'print', 'print', '', ''])
  [ir, _] = comparisons.sensor_effects(list(accepted), label, accepted, unnamed)
  assert [(gain.kind, gain.n) for gain in ir.gains] == [
    ('bona fide', 3),
    (metrics.UNKNOWN, 2),
    ('print', 2),
  ]
  # Nothing is gained from one system to another.
  systems = {'a: rgb': accepted['rgb'], 'b: rgb': accepted['rgb+ir']}
  assert comparisons.sensor_effects(list(systems), label, systems, kinds) == []


def test_a_verdict_at_five_percent_is_one_and_at_an_end_of_0_is_none():
  at = Comparison(
    'a',
    'b',
    NONE,
    NONE,
    {'acer': Difference(-0.1, Interval(-0.2, -0.01), 0.05)},
    0.05,
    runs=Runs(2, 2),
  )
  assert at.verdict == 'better'
  for low, high in ((-0.2, 0.0), (0.0, 0.2)):
    [touches] = comparisons.apply_holm([compared(0.001, low, high)])
    assert touches.verdict == 'no significant difference'


def test_a_rate_that_one_system_has_not_is_not_compared():
  label = np.array([1, 0])
  accepted = {'a': np.array([True, False]), 'b': np.array([True, True])}
  one = bootstrap.Replicates(
    0.5, np.array([0.4, 0.6] * 5), np.array([0.4, 0.6]), np.zeros(2, int), 9
  )
  for both in (
    {'a': {'acer': one, 'eer': one}, 'b': {'acer': one}},
    {'a': {'acer': one}, 'b': {'acer': one, 'eer': one}},
  ):
    found = comparisons.compare('a', 'b', label, accepted, both)
    assert list(found.rates) == ['acer']
    assert (found.bona_fide[:2], found.attacks[:2]) == ((0, 0), (1, 0))
  assert not comparisons.compare('a', 'b', label, accepted, None).rates
