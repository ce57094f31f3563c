"""Compares methods over tests and subsets of modalities: means, intervals, tests, ranks.

A block is a test under a subset of modalities. The figure of a method in a block is the mean over
its runs, each at its own threshold; its mean figure is that over the blocks that all methods have.
All tests share the replicates of their subjects: a subject in two tests, or under two subsets, is
drawn for both at once. Intervals and differences are over runs and subjects (`runs`), the p values
of all pairs are corrected [Holm, see `comparisons`].

The rank of a method is its mean rank over the blocks. Friedman's test, in the form of Iman and
Davenport, is of the hypothesis that all methods are equal; two methods whose ranks differ by more
than Nemenyi's critical difference differ. Both take blocks to be independent, which subsets of one
test are not, so that the ranks also have intervals of the bootstrap: runs and subjects are drawn,
and blocks stay together.

  [D]   Demsar, Statistical comparisons of classifiers over multiple data sets (JMLR, 2006).
  [F]   Friedman, The use of ranks to avoid the assumption of normality implicit in the analysis of
        variance (Journal of the American Statistical Association, 1937).
  [ID]  Iman and Davenport, Approximations of the critical region of the Friedman statistic
        (Communications in Statistics, 1980).
  [N]   Nemenyi, Distribution-free multiple comparisons (thesis, Princeton, 1963).
  [O]   Owen, The pigeonhole bootstrap (The Annals of Applied Statistics, 2007).
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.evaluation import (
  aggregation,
  bootstrap,
  comparisons,
  evaluate,
  metrics,
  results,
  score_files,
  sufficiency,
)
from flexfas_jax.evaluation import runs as training_runs
from flexfas_jax.evaluation.bootstrap import Replicates
from flexfas_jax.evaluation.intervals import CONFIDENCE, UNDEFINED, Interval
from flexfas_jax.evaluation.trained_runs import Method, TrainedRun

METRICS = (
  *('acer', 'hter', 'eer', 'auc', 'apcer', 'bpcer', 'hter_at_test_eer'),
  *('tpr@fpr=1e-2', 'tpr@fpr=1e-3', 'tpr@fpr=1e-4'),
)
ALPHA = 1 - CONFIDENCE
# Shown with the metric in the rows for published tables.
_ALSO = ('hter', 'auc', 'hter_at_test_eer')


class Test(NamedTuple):
  """A test of a protocol."""

  protocol: str  # '' where configs name their sets
  name: str

  def __str__(self) -> str:
    return f'{self.protocol}: {self.name}' if self.protocol else self.name


class Block(NamedTuple):
  """A test under a subset of modalities."""

  test: Test
  subset: str

  def __str__(self) -> str:
    return f'{self.test}, {self.subset}'


class Figure(NamedTuple):
  """A mean over the runs of a method."""

  value: float
  interval: Interval
  of_runs: tuple[float, ...]

  @property
  def deviation(self) -> float:
    """The standard deviation of the runs; NaN of one."""
    return float(np.std(self.of_runs, ddof=1)) if len(self.of_runs) > 1 else math.nan


class Pair(NamedTuple):
  """Method b against method a: the difference of their mean figures."""

  a: str
  b: str
  value: float
  interval: Interval
  p: float
  p_holm: float
  verdict: str  # as `comparisons.Comparison.verdict`, of the metric


class Ranks(NamedTuple):
  """The ranks of the methods; 1 is the best."""

  mean: Mapping[str, float]
  interval: Mapping[str, Interval]
  friedman_p: float  # [F, ID]; NaN of fewer than two blocks
  critical_difference: float  # [N, D]; likewise


@dataclasses.dataclass(frozen=True, eq=False)
class Leaderboard:
  """The comparison of some methods.

  Attributes:
    metric: that methods are compared by.
    methods: the best first, by their mean figure.
    blocks: of any method.
    common: those of all methods with sufficient samples: of means, pairs and ranks.
    figures: {method: {block: {metric: `Figure`}}}.
    means: {method: {metric: `Figure`}}, over `common`; {} if there is none.
    by_subset: {subset: the same over the tests}, of subsets in several tests of `common`.
    pairs: of all methods.
    ranks: of the methods; None without common blocks, or for one method.
    insufficient: the blocks with too few samples or subjects.
    unit: what is drawn: 'subjects', 'videos' or 'samples'.
    n_units: how many they are.
    rules: {test: rule of its thresholds}.
    counts: {test: (bona fide samples, attacks)}.
    by_video: the rule by which frames were joined; '' for frames.
    rendered: whether images of any test are rendered.
    notes: for readers of the figures.
  """

  metric: str
  methods: tuple[Method, ...]
  blocks: tuple[Block, ...]
  common: tuple[Block, ...]
  figures: Mapping[str, Mapping[Block, Mapping[str, Figure]]]
  means: Mapping[str, Mapping[str, Figure]]
  by_subset: Mapping[str, Mapping[str, Mapping[str, Figure]]]
  pairs: tuple[Pair, ...]
  ranks: Ranks | None
  insufficient: frozenset[Block]
  unit: str
  n_units: int
  rules: Mapping[Test, str]
  counts: Mapping[Test, tuple[int, int]]
  by_video: str
  rendered: bool
  notes: tuple[str, ...]

  @property
  def oracle(self) -> bool:
    """Whether the metric's threshold is fitted on the tests."""
    return metrics.BY_NAME[self.metric].oracle

  @property
  def n_runs(self) -> int:
    return sum(len(method.all_runs) for method in self.methods)


def compare(
  methods: Sequence[Method],
  metric: str = 'acer',
  by_video: str = '',
  tests: Sequence[str] = (),
  subsets: Sequence[str] = (),
  draws: int = bootstrap.N_REPLICATES,
  seed: int = 0,
  paired_runs: bool = False,
  progress: Callable[[str], None] = lambda what: None,
) -> Leaderboard:
  """Compares methods.

  Args:
    methods: from `trained_runs.group`.
    metric: one of `METRICS`.
    by_video: one of `aggregation.RULES`: videos instead of frames; '': frames.
    tests, subsets: names of those to compare; (): all.
    draws: of the bootstrap.
    seed: of the bootstrap.
    paired_runs: whether run i of every method shares seed and data with run i of the others.
    progress: called with a description of each step.

  Raises:
    ConfigError: an unknown metric, test or subset; paired runs that are not equally many.
    DataError: methods with other samples of a test, or without a common one.
    StateError: as `results.compute`.
  """
  if metric not in METRICS:
    raise ConfigError(f'--metric={metric}: choose one of {", ".join(METRICS)}')
  if paired_runs and len({method.n_runs for method in methods}) > 1:
    raise ConfigError('--paired_runs: every method needs the same number of runs')
  names = tuple(dict.fromkeys((metric, *_ALSO)))
  prepared = _tests(methods, tests, by_video)
  pooled = _pool({test: scored.merged for test, scored in prepared.items()}, draws, seed)
  replicates: dict[str, dict[Block, list[dict[str, Replicates]]]] = {m.name: {} for m in methods}
  insufficient = set()
  for test, scored in prepared.items():
    progress(f'{test}: bootstrap, {draws} replicates')
    wanted = [s for s in scored.subsets if not subsets or s in subsets]
    drawn = _resample(pooled[test], scored, wanted, names)
    for subset in wanted:
      block = Block(test, subset)
      if scored.is_insufficient(subset, metric):
        insufficient.add(block)
      for method, systems in scored.systems.items():
        columns = [f'{system}: {subset}' for system in systems]
        if all(column in drawn for column in columns):
          replicates[method][block] = [drawn[column] for column in columns]
  order = list(dict.fromkeys(block for of in replicates.values() for block in of))
  if not order:
    raise DataError(f'no test has scores under {", ".join(subsets) or "any subset"}')
  common = [b for b in order if all(b in of for of in replicates.values())]
  notes = _notes(methods, order, common, insufficient, prepared)
  common = [b for b in common if b not in insufficient]
  if len(methods) > 1 and not any(all(b in of for of in replicates.values()) for b in order):
    raise DataError(
      'the methods have no test and subset in common: '
      + '; '.join(
        f'{name} has {", ".join(map(str, of)) or "none"}' for name, of in replicates.items()
      )
    )
  runs = {name: _means_of_runs(of, common, names) for name, of in replicates.items()}
  higher = metrics.BY_NAME[metric].higher_is_better
  means = {n: {m: _figure(of[m]) for m in names} for n, of in runs.items()} if common else {}
  sign = -1 if higher else 1
  best_first = sorted(
    methods, key=lambda method: sign * means[method.name][metric].value if means else 0
  )
  clusters = next(iter(pooled.values()))
  return Leaderboard(
    metric=metric,
    methods=tuple(best_first),
    blocks=tuple(order),
    common=tuple(common),
    figures={
      name: {
        block: {m: _figure([run[m] for run in of_runs]) for m in names}
        for block, of_runs in of.items()
      }
      for name, of in replicates.items()
    },
    means=means,
    by_subset={
      subset: {
        name: {m: _figure(values) for m, values in _means_of_runs(of, some, names).items()}
        for name, of in replicates.items()
      }
      for subset in dict.fromkeys(block.subset for block in common)
      if len(some := [block for block in common if block.subset == subset]) > 1
    },
    pairs=_pairs([m.name for m in best_first], runs, metric, paired_runs) if common else (),
    ranks=_ranks(replicates, common, metric, seed) if common and len(methods) > 1 else None,
    insufficient=frozenset(insufficient),
    unit=clusters.unit,
    n_units=clusters.n,
    rules={test: scored.rule for test, scored in prepared.items()},
    counts={
      test: (int((s.merged.label == 1).sum()), int((s.merged.label == 0).sum()))
      for test, s in prepared.items()
    },
    by_video=by_video,
    rendered=any(results.is_rendered(scored.merged) for scored in prepared.values()),
    notes=tuple(notes),
  )


@dataclasses.dataclass(frozen=True, eq=False)
class _Scored:
  """A test with the scores of every run.

  Attributes:
    merged: the scores, a subset 'RUN: SUBSET' for each.
    found: their metrics, each at its own threshold.
    systems: {method: its runs}.
    rule: of the thresholds.
    subsets: of modalities that a run serves.
    few: {'RUN: SUBSET': metrics with too few samples}.
    not_recorded: {subset of modalities that no run serves: those that no sample has}.
  """

  merged: score_files.Scores
  found: results.Results
  systems: Mapping[str, tuple[str, ...]]
  rule: str
  subsets: tuple[str, ...]
  few: Mapping[str, frozenset[str]]
  not_recorded: Mapping[str, tuple[str, ...]]

  def is_insufficient(self, subset: str, metric: str) -> bool:
    """Whether any run has too few samples of the subset for the metric."""
    return any(
      metric in few for name, few in self.few.items() if name.rpartition(': ')[2] == subset
    )


def _tests(methods: Sequence[Method], names: Sequence[str], by_video: str) -> dict[Test, _Scored]:
  """The tests of all methods."""
  found: dict[Test, dict[str, tuple[TrainedRun, ...]]] = {}
  for method in methods:
    for protocol, of in method.runs.items():
      for name in of[0].tests:
        if not names or name in names:
          found.setdefault(Test(protocol, name), {})[method.name] = of
  known = sorted({name for m in methods for run in m.all_runs for name in run.tests})
  if unknown := [name for name in names if name not in known]:
    raise ConfigError(f'--tests: no test {unknown[0]!r}; there are {", ".join(known)}')
  return {test: _score(test, of, by_video) for test, of in found.items()}


def _score(test: Test, of: Mapping[str, tuple[TrainedRun, ...]], by_video: str) -> _Scored:
  """One test of some methods, {method: its runs}."""
  rules = {run.config['threshold'][test.name]: run for some in of.values() for run in some}
  if len(rules) > 1:
    (one, other), (a, b) = list(rules)[:2], list(rules.values())[:2]
    raise DataError(
      f'{test}: the threshold is {one} in {a.folder} and {other} in {b.folder}; compare runs of '
      'one rule'
    )
  (rule,) = rules
  scores, found, systems = {}, {}, {}
  for method, some in of.items():
    systems[method] = tuple(f'{method} run {i}' for i in range(1, len(some) + 1))
    for system, run in zip(systems[method], some, strict=True):
      own, val = run.tests[test.name], run.val
      if by_video:
        own, val = (aggregation.aggregate_by_video(x, by_video) for x in (own, val))
      scores[system] = own
      for subset, values in results.compute(own, rule, val).items():
        found[f'{system}: {subset}'] = values
  merged = evaluate.merge_systems(scores)
  served = {name: values for name, values in found.items() if results.is_served(values)}
  return _Scored(
    merged,
    served,
    systems,
    rule,
    tuple(dict.fromkeys(name.rpartition(': ')[2] for name in served)),
    sufficiency.insufficient_metrics(merged, served),
    {
      name.rpartition(': ')[2]: tuple(values[results.NOT_RECORDED])
      for name, values in found.items()
      if results.NOT_RECORDED in values
    },
  )


def _pool(
  scores: Mapping[Test, score_files.Scores], draws: int, seed: int
) -> dict[Test, bootstrap.Clusters]:
  """The clusters of each test's samples: those of all tests together, with one numbering."""
  parts = list(scores.values())
  columns = [aggregation.cluster_columns(one) for one in parts]

  def joined(values: Sequence) -> np.ndarray:
    return np.concatenate([np.asarray(one, np.str_) for one in values])

  clusters = bootstrap.make_clusters(
    np.concatenate([one.label for one in parts]),
    joined([one.dataset for one in parts]),
    joined([subject for subject, _ in columns]),
    joined([video for _, video in columns]),
    draws,
    seed,
    ids=joined([one.ids for one in parts]),
  )
  ends = np.cumsum([one.label.size for one in parts])
  return {
    test: dataclasses.replace(clusters, of=clusters.of[end - one.label.size : end])
    for (test, one), end in zip(scores.items(), ends, strict=True)
  }


def _resample(
  clusters: bootstrap.Clusters, scored: _Scored, subsets: Sequence[str], names: Sequence[str]
) -> dict[str, dict[str, Replicates]]:
  """The replicates of some metrics, by run and subset."""
  bona_fide, figures = scored.merged.label == 1, {}
  of_curve = {
    name: metric.resampled
    for name, metric in metrics.of_kind(metrics.OfCurve).items()
    if name in names and metric.resampled
  }
  for name, values in scored.found.items():
    if name.rpartition(': ')[2] not in subsets:
      continue
    score = scored.merged.scores[name]
    with np.errstate(invalid='ignore'):
      accepted = score >= values['threshold']
    figures[name] = bootstrap.WeightedMetrics(
      clusters,
      scored.merged.label,
      score,
      {'apcer': (accepted, ~bona_fide), 'bpcer': (~accepted, bona_fide)},
      means={'acer': ('apcer', 'bpcer'), 'hter': ('apcer', 'bpcer')},
      of_curve=of_curve,
    )
  return bootstrap.resample(clusters, figures)


def _means_of_runs(
  of: Mapping[Block, Sequence[Mapping[str, Replicates]]],
  common: Sequence[Block],
  names: Sequence[str],
) -> dict[str, list[Replicates]]:
  """{metric: the mean over the common blocks of each run of a method}."""
  if not common:
    return {}
  n = len(of[common[0]])
  return {
    name: [training_runs.mean([of[block][i][name] for block in common]) for i in range(n)]
    for name in names
  }


def _figure(runs: Sequence[Replicates]) -> Figure:
  mean = training_runs.mean(runs)
  span = bootstrap.interval(mean)
  if not math.isnan(span.low):
    span = training_runs.widen(span, runs)
  return Figure(mean.value, span, tuple(run.value for run in runs))


def _pairs(
  names: Sequence[str],
  runs: Mapping[str, Mapping[str, Sequence[Replicates]]],
  metric: str,
  paired: bool,
) -> tuple[Pair, ...]:
  found = []
  for a, b in itertools.combinations(names, 2):
    of_a, of_b = runs[a][metric], runs[b][metric]
    found.append((a, b, *training_runs.difference(of_a, of_b, paired)))
  corrected = comparisons.holm([p for *_, p in found])
  pairs = []
  for (a, b, value, interval, p), p_holm in zip(found, corrected, strict=True):
    several = min(len(runs[name][metric]) for name in (a, b)) > 1
    verdict = _verdict(interval, p_holm, several, metrics.BY_NAME[metric].higher_is_better)
    pairs.append(Pair(a, b, value, interval, p, p_holm, verdict))
  return tuple(pairs)


def _verdict(interval: Interval, p: float, several: bool, higher_is_better: bool) -> str:
  low, high = interval
  if math.isnan(p) or p > ALPHA or math.isnan(low) or low <= 0 <= high:
    return comparisons.NO_DIFFERENCE
  if not several:
    return 'lower in one run' if high < 0 else 'higher in one run'
  return 'better' if (high < 0) != higher_is_better else 'worse'


def _ranks(
  replicates: Mapping[str, Mapping[Block, Sequence[Mapping[str, Replicates]]]],
  common: Sequence[Block],
  metric: str,
  seed: int,
) -> Ranks:
  """The ranks over the common blocks; equal figures share the mean of their ranks."""
  names, sign = list(replicates), -1 if metrics.BY_NAME[metric].higher_is_better else 1
  values = np.array(
    [[np.mean([r[metric].value for r in replicates[n][b]]) for n in names] for b in common]
  )  # [blocks, methods]
  mean = _rank(sign * values).mean(0)
  drawn = _drawn(replicates, common, metric, seed)  # [draws, blocks, methods]
  drawn = drawn[np.isfinite(drawn).all((1, 2))]
  spans = dict.fromkeys(names, UNDEFINED)
  if len(drawn):
    of_draws = _rank(sign * drawn).mean(1)  # [draws, methods]
    low, high = np.quantile(of_draws, [ALPHA / 2, 1 - ALPHA / 2], axis=0)
    low, high = np.minimum(low, mean), np.maximum(high, mean)
    spans = {n: Interval(float(a), float(b)) for n, a, b in zip(names, low, high, strict=True)}
  return Ranks(
    dict(zip(names, mean.tolist(), strict=True)),
    spans,
    friedman(sign * values),
    critical_difference(len(names), len(common)),
  )


def _drawn(replicates, common: Sequence[Block], metric: str, seed: int) -> np.ndarray:
  """[draws, blocks, methods]: the mean over drawn runs, of the drawn subjects [O]."""
  columns = []
  for i, of in enumerate(replicates.values()):
    values = np.array(
      [[run[metric].drawn for run in of[block]] for block in common]
    )  # [blocks, runs, draws]
    n, draws = values.shape[1:]
    rng = np.random.default_rng([seed, i])
    times = rng.multinomial(n, np.full(n, 1 / n), draws)  # [draws, runs]
    columns.append(np.einsum('brd,dr->db', values, times) / n)
  return np.stack(columns, -1)


def _rank(values: np.ndarray) -> np.ndarray:
  """Ranks along the last axis, 1 for the smallest; equal values share their mean rank."""
  less = (values[..., None, :] < values[..., :, None]).sum(-1)
  equal = (values[..., None, :] == values[..., :, None]).sum(-1)
  return less + (equal + 1) / 2


def friedman(values: np.ndarray) -> float:
  """The p of Friedman's test in the form of Iman and Davenport [F, ID].

  Args:
    values: [blocks, methods], N and k of them.

  Returns:
    p, from the F distribution; NaN of fewer than two blocks or methods.
  """
  from scipy.special import fdtrc

  values = np.asarray(values, float)
  n, k = values.shape
  if n < 2 or k < 2:
    return math.nan
  ranks = _rank(values)
  between = n * np.sum((ranks.mean(0) - (k + 1) / 2) ** 2)
  total = np.sum((ranks - (k + 1) / 2) ** 2)
  within = total - between
  if within <= 1e-12 * max(total, 1):  # all blocks agree: on an order, or on a tie
    return 0.0 if between > 0 else 1.0
  return float(fdtrc(k - 1, (k - 1) * (n - 1), (n - 1) * between / within))


def critical_difference(k: int, n: int) -> float:
  """Nemenyi's critical difference of the mean ranks of k methods over n blocks [N, D]."""
  if n < 2 or k < 2:
    return math.nan
  from scipy.stats import studentized_range

  q = float(studentized_range.ppf(CONFIDENCE, k, np.inf)) / math.sqrt(2)
  return q * math.sqrt(k * (k + 1) / (6 * n))


def _notes(
  methods: Sequence[Method],
  order: Sequence[Block],
  common: Sequence[Block],
  insufficient: set[Block],
  prepared: Mapping[Test, _Scored],
) -> list[str]:
  notes = []
  if partial := [block for block in order if block not in common]:
    notes.append(f'not in the means, since not every method has it: {_listed(partial)}')
  if small := [block for block in order if block in insufficient]:
    notes.append(f'not in the means, since samples or subjects are insufficient: {_listed(small)}')
  if any(method.n_runs == 1 for method in methods):
    notes.append('one run: another training may differ; no method is called better')
  if two := [method.name for method in methods if method.n_runs == 2]:
    notes.append(f'two runs give very wide intervals: {", ".join(two)}')
  for test, scored in prepared.items():
    leaks = [line for line in scored.merged.header.get('notes', ()) if 'leak' in line]
    notes += [f'{test}: {line}' for line in leaks]
    notes += [
      f'{Block(test, subset)}: not recorded: no sample has {" or ".join(lacking)}'
      for subset, lacking in scored.not_recorded.items()
    ]
  return notes


def _listed(blocks: Sequence[Block]) -> str:
  """'TEST (SUBSET, SUBSET); ...'."""
  subsets: dict[Test, list[str]] = {}
  for block in blocks:
    subsets.setdefault(block.test, []).append(block.subset)
  return '; '.join(f'{test} ({", ".join(some)})' for test, some in subsets.items())
