"""Drawing people: what is drawn, the figures of a draw, and intervals that hold the truth."""

import math

import numpy as np
import pytest

from flexfas_jax.evaluation import bootstrap, intervals, metrics

NAN = math.nan
NOBODY = ['']


def made(seed=0, people=40, frames=5):
  """(label, subject, score): each person gives bona fide samples and attacks; ties are many."""
  rng = np.random.default_rng(seed)
  who = np.repeat(np.arange(people), 2 * frames)
  label = np.tile(np.repeat([1, 0], frames), people)
  own = rng.normal(size=(people, 2))[who, label]
  score = (1.5 * label + own + rng.normal(size=who.size)).round(1)
  return label, np.char.add('p', who.astype(str)), score


def people_of(label, subject, **fields):
  nothing = np.full(len(label), '')
  return bootstrap.make_clusters(label, nothing, subject, nothing, **fields)


def figures_of(who, label, score, threshold=0.8):
  accepted = score >= threshold
  return bootstrap.WeightedMetrics(
    who,
    label,
    score,
    {'apcer': (accepted, label == 0), 'bpcer': (~accepted, label == 1)},
    means={'acer': ('apcer', 'bpcer')},
    of_curve=metrics.RESAMPLED,
  )


def test_what_is_drawn_is_the_narrowest_that_is_known_of_all():
  label = np.array([1, 1, 0, 0])
  subject, video = np.array(['a', 'a', 'b', 'b']), np.array(['1', '2', '3', '3'])
  one = bootstrap.make_clusters(label, [''] * 4, subject, video)
  assert (one.unit, one.n, one.of.tolist()) == ('subjects', 2, [0, 0, 1, 1])
  some = np.where(video == '1', '', subject)
  assert bootstrap.make_clusters(label, [''] * 4, some, video).unit == 'videos'
  assert bootstrap.make_clusters(label, [''] * 4, some, some).unit == 'samples'
  # A name is a data set's own.
  two = bootstrap.make_clusters(label, ['x', 'y', 'x', 'y'], subject, video)
  assert two.n == 4


def test_people_of_one_kind_are_drawn_among_themselves():
  label = np.array([1, 0, 1, 1, 0, 0, 1])
  subject = np.array(['both', 'both', 'real', 'real2', 'attack', 'attack2', 'real'])
  who = people_of(label, subject, draws=50)
  for weights in bootstrap._weights(who, label.size):
    assert weights.shape[1] == 5
    for stratum in range(3):
      members = who.stratum == stratum
      assert (weights[:, members].sum(1) == members.sum()).all()


def test_a_draw_does_not_depend_on_what_memory_holds(monkeypatch):
  label, subject, score = made()
  who = people_of(label, subject, draws=70)
  all_ = bootstrap.resample(who, {'x': figures_of(who, label, score)})['x']
  monkeypatch.setattr(bootstrap, '_AT_ONCE', 7 * label.size)
  few = bootstrap.resample(who, {'x': figures_of(who, label, score)})['x']
  for name, draws in all_.items():
    np.testing.assert_array_equal(draws.drawn, few[name].drawn)
    np.testing.assert_array_equal(draws.left_out, few[name].left_out)
    assert draws.drawn.shape == (70,)
  other = bootstrap.resample(
    people_of(label, subject, draws=70, seed=1), {'x': figures_of(who, label, score)}
  )
  assert (other['x']['acer'].drawn != all_['acer'].drawn).any()


@pytest.mark.parametrize('seed', range(4))
def test_figures_of_a_draw_are_those_of_the_samples_repeated(seed):
  """Against `metrics` over the very samples, failures to acquire and ties included."""
  label, subject, score = made(seed, people=12)
  score[[3, 17, 40]] = NAN
  who = people_of(label, subject)
  figures = figures_of(who, label, score)
  rng = np.random.default_rng(seed)
  for weights in (np.ones(who.n, int), rng.integers(0, 4, who.n)):
    found = figures(weights[None].astype(np.int32))
    again = np.repeat(np.arange(label.size), weights[who.of])
    rates = metrics.error_rates(label[again], score[again], 0.8)
    points = metrics.curve(label[again], score[again])
    expected = {
      'apcer': rates.apcer,
      'bpcer': rates.bpcer,
      'acer': rates.acer,
      **{name: metrics.BY_NAME[name].value(rates, points) for name in metrics.RESAMPLED},
    }
    assert {name: value[0] for name, value in found.items()} == pytest.approx(expected, abs=1e-12)


def test_nobody_is_left_out_twice():
  label, subject, _ = made(people=9)
  who = people_of(label, subject)
  left = np.concatenate([weights for weights, _ in bootstrap._left_out(who, 1)])
  np.testing.assert_array_equal(left, 1 - np.eye(9, dtype=int))
  many = people_of(np.ones(1000, int), np.arange(1000).astype(str))
  left = np.concatenate([weights for weights, _ in bootstrap._left_out(many, 1)])
  assert left.shape == (200, 1000)
  assert ((left == 0).sum(0) == 1).all()


def interval_of(label, subject, score, name='apcer', **fields):
  who = people_of(label, subject, **fields)
  return bootstrap.interval(
    bootstrap.resample(who, {'x': figures_of(who, label, score)})['x'][name]
  )


def test_frames_that_are_wrong_together_make_it_wider():
  label, subject, score = made(people=60)
  one_each = interval_of(label, np.arange(label.size).astype(str), score)
  by_person = interval_of(label, subject, score)
  assert by_person.high - by_person.low > 1.25 * (one_each.high - one_each.low)


def test_where_nothing_varies_it_is_clopper_and_pearsons_over_people():
  label, subject, score = made(people=20)
  score = np.where(label == 1, 5.0, -5.0)
  zero = intervals.clopper_pearson(metrics.Count(0, 20))
  for name in ('apcer', 'bpcer', 'eer'):
    assert interval_of(label, subject, score, name) == zero
  assert interval_of(label, subject, score, 'auc').low == pytest.approx(1 - zero.high)


def test_one_person_says_nothing():
  label, _, score = made(people=1)
  assert all(map(math.isnan, interval_of(label, np.full(label.size, 'a'), score)))


def test_the_interval_is_about_students_t_where_that_is_right():
  """The mean of as many normal figures, by the closed form: no bias, no skew."""
  rng = np.random.default_rng(0)
  n, R = 25, 20000
  x = rng.normal(size=n)
  drawn = x[rng.integers(0, n, (R, n))].mean(1)
  left = (x.sum() - x) / (n - 1)
  low, high = bootstrap.interval(
    bootstrap.Replicates(float(x.mean()), drawn, left, np.zeros(n, int), n)
  )
  t = 2.0639  # of 24 degrees of freedom
  half = t * x.std(ddof=1) / math.sqrt(n)
  assert low == pytest.approx(x.mean() - half, abs=0.12 * half)
  assert high == pytest.approx(x.mean() + half, abs=0.12 * half)


def test_it_leans_to_where_the_figure_may_go():
  label, subject, score = made(people=60)
  score = score - 1.2 * (label == 0)  # few attacks are accepted
  low, high = interval_of(label, subject, score)
  value = ((score >= 0.8) & (label == 0)).sum() / (label == 0).sum()
  assert 0 <= low < value < high
  assert high - value > value - low


def test_a_difference_is_paired():
  label, subject, score = made(people=60)
  who = people_of(label, subject)
  better = score + 0.3 * (label == 1)  # the same mistakes, but fewer
  drawn = bootstrap.resample(
    who, {'a': figures_of(who, label, score), 'b': figures_of(who, label, better)}
  )
  value, span, p = bootstrap.difference(drawn['a']['bpcer'], drawn['b']['bpcer'])
  assert value < 0 and span.high < 0 and p < 0.01
  own = bootstrap.interval(drawn['a']['bpcer'])
  assert span.high - span.low < 0.6 * (own.high - own.low)
  same = bootstrap.difference(drawn['a']['bpcer'], drawn['a']['bpcer'])
  assert same[0] == 0 and same[2] == 1


@pytest.mark.parametrize('sign', [1, -1])
def test_a_difference_of_rates_is_within_100_points(sign):
  part, n = np.zeros(4, int), 4
  left_out, drawn = np.array([0.1, 0.0, 0.1, 0.0]), np.array([0.3, 0.0, 0.2, 0.1] * 50)
  zero = bootstrap.Replicates(0.02, drawn, left_out, part, n)
  one = bootstrap.Replicates(0.98, 1 - drawn, 1 - left_out, part, n)
  value, span, _ = bootstrap.difference(*((zero, one) if sign > 0 else (one, zero)))
  assert value == pytest.approx(sign * 0.96)
  assert -1 <= span.low <= value <= span.high <= 1
  assert sign in span


def test_intervals_hold_the_truth():
  """Few tests here; `experiments/evaluation` does it with 2,000 of each kind."""
  from experiments.evaluation import coverage, simulation

  setting = coverage.SETTINGS[3]
  spans = (span for test in range(60) for span in coverage.spans(test, setting, 200))
  found = simulation.count(spans)
  for figure in ('apcer', 'bpcer', 'acer', 'eer', 'auc'):
    tally = found['bootstrap', figure]
    assert tally.tests == 60
    # 95 % asked for; 4 standard deviations
    assert (tally.too_low + tally.too_high) / tally.tests <= 0.17, figure
  tally = found['Clopper-Pearson', 'acer']
  # And what takes frames for independent does not.
  assert (tally.too_low + tally.too_high) / tally.tests > 0.1


def draws_of(value, drawn, left_out, n, part=None):
  part = np.zeros(len(left_out), int) if part is None else part
  return bootstrap.Replicates(value, np.asarray(drawn), np.asarray(left_out), part, n)


def test_acceleration_is_that_of_a_mean():
  """Efron's closed form, of a mean: a sixth of the skewness over the root of n; by stratum."""
  x = np.random.default_rng(0).exponential(size=30)
  left = (x.sum() - x) / (x.size - 1)
  away = x - x.mean()
  expected = np.sum(away**3) / (6 * np.sum(away**2) ** 1.5)
  assert expected > 0.05  # the spread grows with the figure
  skew, freedom = bootstrap._shape(draws_of(x.mean(), [0], left, 30))
  assert skew == pytest.approx(expected, rel=1e-9)
  kurtosis = 30 * np.sum(away**4) / np.sum(away**2) ** 2
  assert freedom == pytest.approx(2 * 30 / (kurtosis - 1), rel=1e-9)
  assert bootstrap._shape(draws_of(x.mean(), [0], -left, 30))[0] == pytest.approx(-expected)
  # Every stratum has a mean of its own; a group without a figure does not count.
  two = np.append(np.concatenate([left, left + 7]), NAN)
  part = np.append(np.repeat([0, 1], 30), 1)
  skew, _ = bootstrap._shape(draws_of(x.mean(), [0], two, 60, part))
  assert skew == pytest.approx(expected / math.sqrt(2), rel=1e-9)


def test_few_groups_tell_no_shape():
  assert bootstrap._shape(draws_of(0.5, [0], [0.5], 9)) == (0, 1)
  assert bootstrap._shape(draws_of(0.5, [0], [0.5, 0.5, 0.5], 9)) == (0, 3)
  one = bootstrap._shape(draws_of(0.5, [0], [0.5] * 49 + [0.6], 50))  # hangs on one group
  assert one[1] == pytest.approx(2, abs=0.2)
  assert bootstrap._shape(draws_of(0.5, [0], [0.4, 0.6] * 25, 50))[1] == 50  # all of one weight


@pytest.mark.parametrize('n', [6, 40])
def test_the_interval_by_its_formula(n):
  """BCa with the tails of Student's t, n / (n - 1) wider; ties with the figure count by half."""
  from scipy.stats import norm, t

  drawn = np.sort(np.random.default_rng(1).beta(3, 9, 2000)).round(2)
  value, left = 0.28, 0.28 + np.array([0.03, 0.01, -0.01, -0.03, -0.02, 0.02] * 8 + [-0.2])
  draws = draws_of(value, drawn, left, n)
  away = left.mean() - left
  skew = np.sum(away**3) / (6 * np.sum(away**2) ** 1.5)
  freedom = 2 * left.size / (left.size * np.sum(away**4) / np.sum(away**2) ** 2 - 1)
  assert (freedom < n - 1) == (n == 40)  # whichever is fewer counts
  bias = norm.ppf(np.mean((drawn < value) + 0.5 * (drawn == value)))
  for confidence in (0.95, 0.8):
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    z = bias + math.sqrt(n / (n - 1)) * t.ppf(tails, min(freedom, n - 1))
    expected = np.quantile(drawn, norm.cdf(bias + z / (1 - skew * z)))
    assert bootstrap.interval(draws, confidence) == pytest.approx(expected, rel=1e-9)


def test_a_difference_by_its_formula():
  """Student's t on the spread of the drawn differences, n / (n - 1) wider, n the fewer people."""
  from scipy.stats import t

  rng = np.random.default_rng(2)
  apart, left = rng.normal(0.02, 0.02, 500), rng.choice([-0.01, 0.01], 60)
  apart[7] = NAN  # nobody of a species was drawn
  a = draws_of(0.1, rng.uniform(0.1, 0.2, 500), rng.uniform(size=60), 9)
  b = draws_of(0.13, a.drawn + apart, a.left_out + left, 60)
  spread = math.sqrt(9 / 8) * np.nanstd(apart, ddof=1)
  for confidence in (0.95, 0.8):
    value, span, p = bootstrap.difference(a, b, confidence)
    half = t.ppf((1 + confidence) / 2, 8) * spread
    assert value == pytest.approx(0.03)
    assert span == pytest.approx((0.03 - half, 0.03 + half))
    assert p == pytest.approx(2 * t.sf(0.03 / spread, 8))
  value, span, same = bootstrap.difference(b, a)
  assert value == pytest.approx(-0.03) and same == pytest.approx(p)


def test_a_difference_without_p():
  some = np.linspace(0, 0.1, 50)
  a = draws_of(0.5, some, some, 20)
  for b in (
    draws_of(NAN, some + 0.1, some, 20),
    draws_of(0.6, some * some, some, 1),
    draws_of(0.6, np.full(50, NAN), some, 20),
    draws_of(0.6, np.append(0.3, np.full(49, NAN)), some, 20),
  ):
    value, span, p = bootstrap.difference(a, b)
    assert math.isnan(b.value) == math.isnan(value)
    assert math.isnan(p) and all(map(math.isnan, span))
  # It never varies, and is not 0: no draw tells how likely that is.
  value, span, p = bootstrap.difference(
    draws_of(0.5, np.full(50, 0.25), some, 20), draws_of(0.75, np.full(50, 0.5), some, 20)
  )
  assert (value, *span) == (0.25, 0.25, 0.25) and math.isnan(p)


def test_how_many_subjects_a_figure_is_of():
  """Of the part of it that has the fewest: three give bona fide samples, five give attacks."""
  label = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
  subject = np.array(['a', 'a', 'b', 'c', 'c', 'd', 'e', 'f', 'g', 'g'])
  who = people_of(label, subject, draws=5)
  score = np.linspace(1, 0, 10)
  masks = np.arange(10) >= 8  # of one subject
  figures = bootstrap.WeightedMetrics(
    who,
    label,
    score,
    {'apcer': (score > 0.5, label == 0), 'bpcer': (score < 0.5, label == 1),
     'apcer/mask': (score > 0.5, masks)},
    maxima={'worst': ('apcer', 'apcer/mask')},
    means={'acer': ('apcer', 'bpcer')},
    of_curve={'auc': metrics.resampled_auc},
  )  # fmt: skip
  found = bootstrap.resample(who, {'x': figures})['x']
  assert {name: one.n for name, one in found.items()} == {
    'apcer': 5, 'bpcer': 3, 'apcer/mask': 1, 'worst': 1, 'acer': 3, 'auc': 3,
  }  # fmt: skip
  assert all(map(math.isnan, bootstrap.interval(found['worst'])))


def test_the_largest_rate_of_a_draw_is_of_the_species_that_were_drawn():
  label = np.array([1, 0, 0, 0])
  who = people_of(label, np.array(['a', 'b', 'c', 'd']))
  accepted = np.array([True, False, True, False])
  kinds = {'apcer/print': [0, 1, 1, 0], 'apcer/mask': [0, 0, 0, 1]}
  shares = {name: (accepted, np.array(which, bool)) for name, which in kinds.items()}
  figures = bootstrap.WeightedMetrics(
    who, label, np.arange(4.0), shares, maxima={'worst': tuple(kinds)}
  )
  # Everybody; twice who was accepted; no mask; a mask alone, which was rejected.
  weights = np.array([[1, 1, 1, 1], [1, 1, 2, 0], [1, 2, 1, 0], [1, 0, 0, 3]], np.int32)
  found = figures(weights)
  np.testing.assert_allclose(found['apcer/print'], [1 / 2, 2 / 3, 1 / 3, NAN])
  np.testing.assert_allclose(found['apcer/mask'], [0, NAN, NAN, 0])
  np.testing.assert_allclose(found['worst'], [1 / 2, 2 / 3, 1 / 3, 0])


def test_an_attack_above_all_others_loses_to_nobody():
  label, score = np.array([1, 0, 1, 0]), np.array([0.1, 0.9, 0.5, 0.3])
  who = people_of(label, np.array(['a', 'b', 'c', 'd']))
  of_curve = {'auc': metrics.resampled_auc}
  figures = bootstrap.WeightedMetrics(who, label, score, {}, of_curve=of_curve)
  # Of the pairs of a bona fide sample and an attack one is in order; with c twice and d thrice, 6.
  found = figures(np.array([[1, 1, 1, 1], [1, 1, 2, 3], [2, 1, 1, 0]], np.int32))
  np.testing.assert_allclose(found['auc'], [1 / 4, 6 / 12, 0])


def test_samples_are_drawn_in_the_order_of_their_ids():
  label, ids = np.array([1, 0, 1, 0]), np.array(['d', 'b', 'a', 'c'])
  blank, order = np.full(4, ''), np.array([2, 0, 3, 1])
  who = bootstrap.make_clusters(label, blank, blank, blank, ids=ids)
  other = bootstrap.make_clusters(label[order], blank, blank, blank, ids=ids[order])
  assert who.unit == 'samples' and who.of.tolist() == [3, 1, 0, 2]
  assert other.of.tolist() == who.of[order].tolist()
  assert other.stratum.tolist() == who.stratum.tolist()
