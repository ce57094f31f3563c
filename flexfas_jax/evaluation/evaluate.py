"""Evaluates one test: rates with intervals, comparisons, groups, worst errors.

`results` computes the metrics; this module adds intervals, comparisons and groups. The report, the
tables and the JSON output of `flexfas_jax.score` are made from an `EvaluationResult`.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flexfas_jax import identity, schema
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.evaluation import (
  aggregation,
  bootstrap,
  comparisons,
  groups,
  intervals,
  metrics,
  pass_if,
  results,
  score_files,
  sufficiency,
  thresholds,
  unusable,
)
from flexfas_jax.evaluation import runs as training_runs
from flexfas_jax.evaluation.comparisons import Comparison, SensorEffect
from flexfas_jax.evaluation.intervals import Interval
from flexfas_jax.evaluation.metrics import Count

# Above so many samples the bootstrap takes minutes and must be requested.
MOST_SAMPLES = 1_000_000
WORST = 6  # mistakes that are shown, of each kind
_Shares = dict[str, tuple[np.ndarray, np.ndarray]]  # {rate: (errors [N] bool, among [N] bool)}
_Drawn = Mapping[str, bootstrap.Replicates]  # by figure
_MEANS = {name: metric.parts for name, metric in metrics.of_kind(metrics.Mean).items()}
_MEANS['acer_fta'] = ('apcer_fta', 'bpcer_fta')  # see `unusable`
_OVER_SAMPLES = {  # what an interval is over, as verdicts state it
  intervals.EXACT: 'samples, exact',
  intervals.BONFERRONI: 'samples, conservative',
  intervals.ZOU_DONNER: 'samples, approximate',
}


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A figure and how sure it is."""

  value: float
  count: Count | None  # None where it is no share of samples
  exact: Interval  # over samples, made as `method` states; only Clopper-Pearson's is exact
  bootstrap: Interval  # over subjects; over videos or samples if subjects are unknown
  n_subjects: int  # subjects (videos, samples) that contribute
  insufficient_samples: bool  # samples or subjects, by `sufficiency`: the figure is not stated
  method: str = intervals.EXACT  # of the interval over samples


@dataclasses.dataclass(frozen=True)
class RunMean:
  """The mean of a figure over the training runs of a method, each at its own threshold."""

  value: float
  of_runs: tuple[float, ...]
  bootstrap: Interval  # over runs and subjects
  insufficient_samples: bool

  @property
  def deviation(self) -> float:
    """The standard deviation of the runs."""
    return float(np.std(self.of_runs, ddof=1))


class Mistake(NamedTuple):
  """A sample that was decided wrongly."""

  id: str
  label: int
  kind: str  # species or category of an attack
  score: float  # NaN: failure to acquire


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluationResult:
  """The evaluation of one test."""

  name: str
  scores: score_files.Scores
  dev: score_files.Scores | None
  rule: str
  oracle: bool
  metrics: results.Results
  estimates: Mapping[str, Mapping[str, Estimate]]  # by subset that is served, by figure
  # By 'METHOD: SUBSET' of methods with several training runs, and by figure.
  run_means: Mapping[str, Mapping[str, RunMean]]
  runs: Mapping[str, tuple[str, ...]]  # by what is compared: its runs, names of `estimates`
  clusters: bootstrap.Clusters | None  # None: no bootstrap
  comparisons: tuple[Comparison, ...]
  sensors: tuple[SensorEffect, ...]
  gaps: Mapping[str, tuple[groups.Gap, ...]]  # by 'SUBSET, COLUMN'
  mistakes: Mapping[str, tuple[list[Mistake], list[Mistake]]]  # accepted attacks, rejected others
  notes: tuple[str, ...]
  requirement: pass_if.Requirement | None = None
  verdicts: tuple[pass_if.Verdict, ...] = ()  # of each system; () without a requirement

  @property
  def served(self) -> list[str]:
    return list(self.estimates)

  @property
  def one_run(self) -> bool:
    """Whether something is known of one training run alone."""
    return any(len(of) == 1 for of in self.runs.values())

  @property
  def rendered(self) -> bool:
    """Whether samples are rendered images, whose figures compare with no photographs'."""
    return results.is_rendered(self.scores)

  @property
  def warnings(self) -> tuple[str, ...]:
    """What limits every figure, by the header of the scores, e.g. leaks that were accepted."""
    return tuple(map(str, self.scores.header.get('notes') or ()))

  @property
  def insufficient(self) -> dict[str, frozenset[str]]:
    """The metrics with too few samples or subjects, by subset."""
    return {
      subset: frozenset(name for name, estimate in of.items() if estimate.insufficient_samples)
      for subset, of in self.estimates.items()
    }

  def species_of_max(self, subset: str) -> str:
    """The species, or category, whose APCER is the largest."""
    found = self.metrics[subset]
    names = [n for n in found if n.startswith('apcer_species/')]
    names = names or [n for n in found if n.startswith('apcer/')]
    worst = max(names, key=lambda name: found[name], default='')
    return worst.partition('/')[2]


def evaluate(
  name: str,
  scores: score_files.Scores,
  rule: str | None = None,
  dev: score_files.Scores | None = None,
  oracle: bool = False,
  draws: int | None = None,
  seed: int = 0,
  group_by: Sequence[str] = (),
  notes: Sequence[str] = (),
  progress: Callable[[str], None] = lambda what: None,
  runs: Mapping[str, Sequence[str]] | None = None,
  paired_runs: bool = False,
  requirement: str = '',
) -> EvaluationResult:
  """Evaluates scores under every subset, with intervals.

  Args:
    name: of the test.
    scores, rule, dev, oracle: as `results.compute` has them.
    draws: of the bootstrap; 0: none; None: 1000, none above `MOST_SAMPLES` samples unless a
      requirement is compared with limits of intervals.
    seed: of the bootstrap.
    group_by: columns of the scores that define groups.
    notes: further notes for the result.
    progress: called with a description of each step.
    runs: by method, the systems of `merge_systems` that are its training runs; None: each system is
      one run.
    requirement: as `pass_if.parse` reads it; '': none is stated.
    paired_runs: whether run i of every method shares seed and data with run i of the others. Two
      subsets of one method are always compared run by run.

  Raises:
    ConfigError, StateError: as `results.compute`; a requirement that cannot be read, or whose
      intervals have too few replicates.
    DataError: likewise; a column to group by that is not there, or empty.
  """
  required = pass_if.parse(requirement)
  by_limit = required is not None and required.at == pass_if.LIMIT
  if by_limit and draws is not None and draws < pass_if.MIN_REPLICATES:
    raise ConfigError(
      f'pass_if is compared with intervals over subjects, which need {pass_if.MIN_REPLICATES} '
      f'bootstrap replicates or more, not {draws}: leave out --bootstrap, or require at=point'
    )
  rule = results.resolve_rule(scores, rule, dev, oracle)
  of_kinds = results.attack_kinds(scores)
  found = results.compute(scores, rule, dev, oracle, of_kinds)
  units = sufficiency.SampleUnits(scores)
  few = sufficiency.insufficient_metrics(scores, found, units, of_kinds)
  served = [s for s, values in found.items() if not math.isnan(values['threshold'])]
  lines = [*notes, *results.notes(found, few), *results.scale_notes(scores, found, rule)]
  lines += _notes_on_dev(served, rule, dev)
  if draws is None:
    is_small = scores.label.size <= MOST_SAMPLES
    draws = bootstrap.N_REPLICATES if is_small or by_limit else 0
    if not draws:
      lines.append(
        f'no bootstrap: {scores.label.size} samples take minutes; to compute it anyway: '
        f'--bootstrap={bootstrap.N_REPLICATES}'
      )
  columns = {column: _column(scores, column) for column in group_by}
  with np.errstate(invalid='ignore'):
    accepted = {s: scores.scores[s] >= found[s]['threshold'] for s in served}
  shares = {s: _shares(scores, s, found[s]['threshold'], of_kinds) for s in served}
  by_group = {
    (s, column): groups.shares(column, values, scores.label, accepted[s])
    for s in served
    for column, values in columns.items()
  }

  clusters, drawn = None, None
  if draws and served:
    progress(f'bootstrap, {draws} replicates')
    known = scores.label, scores.dataset, *aggregation.cluster_columns(scores)
    clusters = bootstrap.make_clusters(*known, draws, seed, ids=scores.ids)
    drawn = _resample(clusters, scores, shares, by_group)
  progress('counting')
  methods = _methods(served, runs)
  estimates = {
    s: _estimates(found[s], shares[s], drawn[s] if drawn else {}, few[s]) for s in served
  }
  run_means = {
    method: _run_means(found, of, drawn, few) for method, of in methods.items() if len(of) > 1
  }
  verdicts: tuple[pass_if.Verdict, ...] = ()
  if required:
    figures = _required_figures(methods, estimates, run_means, clusters.unit if clusters else '')
    others = _not_served(found, served, runs)
    lacking = [s for s in found if results.NOT_RECORDED in found[s]]
    verdicts = pass_if.evaluate(
      required, figures, others, oracle, _not_served(lacking, served, runs)
    )
  return EvaluationResult(
    name=name,
    scores=scores,
    dev=dev,
    rule=rule,
    oracle=oracle,
    metrics=found,
    estimates=estimates,
    run_means=run_means,
    runs=methods,
    clusters=clusters,
    comparisons=_comparisons(scores, accepted, drawn, few, methods, paired_runs),
    sensors=tuple(
      comparisons.sensor_effects(
        served, scores.label, accepted, of_kinds[0] or of_kinds[1], units.insufficient_samples
      )
    ),
    gaps={
      f'{s}, {column}': tuple(
        groups.gap(rate, column, counts, drawn[s] if drawn else None, units.insufficient_samples)
        for rate in groups.RATES
      )
      for (s, column), counts in by_group.items()
    },
    mistakes={s: _mistakes(scores, s, accepted[s], of_kinds) for s in served},
    notes=tuple(lines),
    requirement=required,
    verdicts=verdicts,
  )


def _notes_on_dev(served: Sequence[str], rule: str, dev: score_files.Scores | None) -> list[str]:
  """A line for each threshold that is fitted on scores of other modalities than the test's."""
  if dev is None or not thresholds.needs_dev(rule):
    return []
  return [
    f'{subset}: no development sample has {" or ".join(lacking)}, so its threshold is fitted on '
    'scores of another subset'
    for subset in served
    if (lacking := dev.not_recorded(subset))
  ]


def _required_figures(
  methods: Mapping[str, Sequence[str]],
  estimates: Mapping[str, Mapping[str, Estimate]],
  run_means: Mapping[str, Mapping[str, RunMean]],
  unit: str,
) -> dict[str, dict[str, pass_if.Figure]]:
  """What a requirement is compared with: the mean of a method with several training runs."""
  return {
    name: {
      metric: pass_if.Figure(
        mean.value, {f'runs and {unit}': mean.bootstrap}, mean.insufficient_samples
      )
      for metric, mean in run_means[name].items()
    }
    if name in run_means
    else {
      metric: pass_if.Figure(
        of.value,
        {_OVER_SAMPLES[of.method]: of.exact, unit: of.bootstrap},
        of.insufficient_samples,
      )
      for metric, of in estimates[name].items()
    }
    for name in methods
  }


def _not_served(
  found: Iterable[str], served: Sequence[str], runs: Mapping[str, Sequence[str]] | None
) -> list[str]:
  """Those of some subsets that are not served, under the names of `_methods`."""
  method_of = {system: method for method, of in (runs or {}).items() for system in of}
  names: dict[str, None] = {}
  for name in (name for name in found if name not in served):
    system, colon, sensors = name.rpartition(': ')
    names[f'{method_of.get(system, system)}{colon}{sensors}'] = None
  return list(names)


def _methods(
  served: Sequence[str], runs: Mapping[str, Sequence[str]] | None
) -> dict[str, tuple[str, ...]]:
  """{'METHOD: SUBSET': its runs}, of the subsets that all runs of a method serve."""
  if runs is None:
    return {name: (name,) for name in served}
  found = {}
  for method, systems in runs.items():
    of_first = [name for name in served if name.rpartition(': ')[0] == systems[0]]
    for subset in (name.rpartition(': ')[2] for name in of_first):
      of = tuple(f'{system}: {subset}' for system in systems)
      if set(of) <= set(served):
        found[f'{method}: {subset}'] = of
  return found


def _run_means(
  found: results.Results,
  runs: Sequence[str],
  drawn: Mapping[str, _Drawn] | None,
  few: Mapping[str, frozenset[str]],
) -> dict[str, RunMean]:
  """Every figure that all runs of a method have.

  Args:
    found: the figures of every run.
    runs: of the method.
    drawn: by run and figure; None without a bootstrap.
    few: by run, the metrics with insufficient samples.
  """
  names = [n for n in found[runs[0]] if _is_figure(n) and all(n in found[run] for run in runs)]
  values = {name: tuple(float(found[run][name]) for run in runs) for name in names}
  mean = {name: float(np.mean(each)) for name, each in values.items()}
  replicates = {
    name: [drawn[run][name] for run in runs]
    for name in names
    if drawn and all(name in drawn[run] for run in runs)
  }
  means = {name: training_runs.mean(each) for name, each in replicates.items()}
  spans = {
    name: training_runs.widen(span, replicates[name])
    for name, span in _bootstrap_intervals(mean, means).items()
  }
  return {
    name: RunMean(
      mean[name],
      values[name],
      spans.get(name, intervals.UNDEFINED),
      any(name in few[run] for run in runs),
    )
    for name in names
  }


def _column(scores: score_files.Scores, column: str) -> np.ndarray:
  known = {n: getattr(scores, n) for n in schema.METADATA} | scores.extra
  if column not in known:
    others = [name for name in scores.ignored if name != 'score']
    raise ConfigError(
      f'--group_by={column}: no such column of text; there are {", ".join([*known, *others])}, and '
      '--columns joins those of another file'
    )
  if not (known[column] != '').any():
    raise DataError(f'--group_by={column}: {scores.path or "the scores"} have nothing there')
  return np.array(identity.canonical(known[column].tolist()))


def _shares(
  scores: score_files.Scores, subset: str, threshold: float, of_kinds: results.Kinds
) -> _Shares:
  """Everything that is a share of samples."""
  bona_fide = scores.label == 1
  of_label = {'attack': ~bona_fide, 'bona_fide': bona_fide}
  outcomes = metrics.outcomes(scores.scores[subset], threshold)
  accepted = outcomes['accepted']
  found = {
    name: (outcomes[share.outcome], of_label[share.label])
    for name, share in metrics.of_kind(metrics.Share).items()
  }
  if (without := unusable.affected(scores, subset)).any():
    found['apcer_fta'] = (accepted & ~without, ~bona_fide)
    found['bpcer_fta'] = (~accepted | without, bona_fide)
  category, species = of_kinds
  for prefix, kinds in (('apcer/', category or species), ('apcer_species/', species)):
    if kinds is None or (prefix == 'apcer_species/' and category is None):
      continue
    for i, name in enumerate(kinds.names):
      of = (kinds.index == i) & ~bona_fide
      if of.any():
        found[f'{prefix}{name or metrics.UNKNOWN}'] = (accepted, of)
  return found


def _parts_of_max(shares: _Shares) -> tuple[str, ...]:
  """The rates that `apcer_max` is the largest of: of species, or else of categories."""
  of_species = tuple(name for name in shares if name.startswith('apcer_species/'))
  return of_species or tuple(name for name in shares if name.startswith('apcer/'))


def _resample(
  clusters: bootstrap.Clusters,
  scores: score_files.Scores,
  shares: Mapping[str, _Shares],
  by_group: Mapping[tuple[str, str], _Shares],
) -> dict[str, dict[str, bootstrap.Replicates]]:
  """The replicates of every figure, by subset.

  Args:
    clusters: of the samples.
    scores: that are evaluated.
    shares: by subset, from `_shares`.
    by_group: by subset and column, from `groups.shares`.
  """
  figures = {}
  for subset, own in shares.items():
    of_groups = {
      name: masks
      for (s, _), rates in by_group.items()
      if s == subset
      for name, masks in rates.items()
    }
    species = _parts_of_max(own)
    maxima = {'apcer_max': species} if species else {}
    figures[subset] = bootstrap.WeightedMetrics(
      clusters,
      scores.label,
      scores.scores[subset],
      own | of_groups,
      maxima,
      means={n: parts for n, parts in _MEANS.items() if set(parts) <= own.keys() | maxima.keys()},
      of_curve=metrics.RESAMPLED,
    )
  return bootstrap.resample(clusters, figures)


def _comparisons(
  scores: score_files.Scores,
  accepted: Mapping[str, np.ndarray],
  drawn: Mapping[str, _Drawn] | None,
  few: Mapping[str, frozenset[str]],
  methods: Mapping[str, tuple[str, ...]],
  paired_runs: bool,
) -> tuple[Comparison, ...]:
  """Every pair of subsets that is compared, corrected for their number."""
  found = []
  for a, b in comparisons.pairs(list(methods)):
    paired = paired_runs or a.rpartition(': ')[0] == b.rpartition(': ')[0]
    one = comparisons.compare(a, b, scores.label, accepted, drawn, methods, paired)
    insufficient = any('acer' in few[run] for run in (*methods[a], *methods[b]))
    found.append(dataclasses.replace(one, insufficient_samples=insufficient))
  return tuple(comparisons.apply_holm(found))


def _estimates(
  found: Mapping[str, float], shares: _Shares, drawn: _Drawn, few: Collection[str]
) -> dict[str, Estimate]:
  """The rates of one subset with their counts and intervals.

  Args:
    found: {metric: value}.
    shares: from `_shares`.
    drawn: {metric: `Replicates`}; {} without a bootstrap.
    few: metrics with insufficient samples.
  """
  counts = {
    name: Count(int((which & among).sum()), int(among.sum()))
    for name, (which, among) in shares.items()
  }
  for name, metric in metrics.of_kind(metrics.OfCurve).items():
    if metric.share_of_bona_fide and not math.isnan(found[name]):
      n = int(found['n_bona_fide'])
      counts[name] = Count(round(found[name] * n), n)
  exact, resampled = _exact_intervals(found, shares, counts), _bootstrap_intervals(found, drawn)
  return {
    name: Estimate(
      value,
      counts.get(name),
      exact.get(name, intervals.UNDEFINED),
      resampled.get(name, intervals.UNDEFINED),
      drawn[name].n if name in drawn else 0,
      name in few,
      _method(name),
    )
    for name, value in found.items()
    if _is_figure(name)
  }


def _is_figure(name: str) -> bool:
  """Whether a key of results is a rate or a mean of rates."""
  facts = {*metrics.of_kind(metrics.Fact), *results.MARKS}
  return name not in facts and not name.startswith('n_')


def _method(name: str) -> str:
  """How the interval over samples of a figure is made."""
  if name in _MEANS:
    return intervals.ZOU_DONNER
  is_largest = name in metrics.of_kind(metrics.LargestApcer)
  return intervals.BONFERRONI if is_largest else intervals.EXACT


def _exact_intervals(
  found: Mapping[str, float], shares: _Shares, counts: Mapping[str, Count]
) -> dict[str, Interval]:
  exact = {name: intervals.clopper_pearson(count) for name, count in counts.items()}
  exact['apcer_max'] = intervals.max_interval(counts[name] for name in _parts_of_max(shares))
  for name, (a, b) in _MEANS.items():
    if name in found and not (math.isnan(found[a]) or math.isnan(found[b])):
      exact[name] = intervals.mean_interval((found[a], found[b]), (exact[a], exact[b]))
  return exact


def _bootstrap_intervals(found: Mapping[str, float], drawn: _Drawn) -> dict[str, Interval]:
  resampled = {name: bootstrap.interval(draws) for name, draws in drawn.items()}
  for name, (a, b) in _MEANS.items():
    # Where one of the two rates is the same in every replicate (no error was seen), those of the
    # mean do not vary with it: the interval is then computed from those of the two rates.
    if name in drawn and any(np.ptp(drawn[part].drawn) == 0 for part in (a, b)):
      resampled[name] = intervals.mean_interval((found[a], found[b]), (resampled[a], resampled[b]))
  return resampled


def _mistakes(
  scores: score_files.Scores, subset: str, accepted: np.ndarray, of_kinds: results.Kinds
) -> tuple[list[Mistake], list[Mistake]]:
  """The surest mistakes: attacks by falling score, bona fide samples by rising score."""
  score, bona_fide = scores.scores[subset], scores.label == 1
  kinds = of_kinds[1] or of_kinds[0]

  def mistake(i: int) -> Mistake:
    kind = kinds.names[kinds.index[i]] if kinds and not bona_fide[i] else ''
    return Mistake(str(scores.ids[i]), int(scores.label[i]), kind, float(score[i]))

  wrong = np.flatnonzero(accepted & ~bona_fide)
  attacks = wrong[_lowest(-score[wrong], scores.ids[wrong])]
  wrong = np.flatnonzero(~accepted & bona_fide)
  height = np.where(np.isnan(score[wrong]), -np.inf, score[wrong])  # without one, lowest
  others = wrong[_lowest(height, scores.ids[wrong])]
  return list(map(mistake, attacks)), list(map(mistake, others))


def _lowest(height: np.ndarray, ids: np.ndarray) -> np.ndarray:
  """Places of the `WORST` lowest, rising; of equals the first id, whatever the order of rows."""
  if height.size > WORST:  # without sorting the ids of all
    some = np.flatnonzero(height <= np.partition(height, WORST - 1)[WORST - 1])
  else:
    some = np.arange(height.size)
  return some[np.lexsort((ids[some], height[some]))[:WORST]]


def to_json(result: EvaluationResult) -> dict[str, dict[str, Any]]:
  """`EvaluationResult.metrics`, and by subset besides: `scale`, where it is stated, `runs`, 1,
  `pass_if`, where a requirement is stated {`requirement`, `passed`, `checks`},
  `intervals` {metric: its counts and limits}, `against` {the subset it is compared with: ...},
  `groups` {column: {rate: ...}}.

  A method with several training runs has an entry 'METHOD: SUBSET': the mean of every metric,
  `runs`, their number, `of_runs`, their entries, and `intervals` {metric: {`deviation`: of the
  runs, `runs_and_subjects`: limits, ...}}.
  """
  found: dict[str, dict[str, Any]] = {
    subset: {**values, 'runs': 1} for subset, values in result.metrics.items()
  }
  for subset, values in found.items():
    if scale := result.scores.scale_under(subset):
      values['scale'] = scale
  for subset, of in result.estimates.items():
    found[subset]['intervals'] = {
      name: {
        'errors': e.count.errors if e.count else None,
        'n': e.count.n if e.count else None,
        'subjects': e.n_subjects or None,
        'clopper_pearson': _limits(e.exact),
        'samples_method': None if math.isnan(e.exact.low) else e.method,
        'bootstrap': _limits(e.bootstrap),
        'insufficient_samples': e.insufficient_samples,
      }
      for name, e in of.items()
    }
  for method, means in result.run_means.items():
    found[method] = {
      **{name: mean.value for name, mean in means.items()},
      **{name: True for name in results.MARKS if name in found[result.runs[method][0]]},
      'runs': len(result.runs[method]),
      'of_runs': list(result.runs[method]),
      'intervals': {
        name: {
          'deviation': mean.deviation,
          'runs_and_subjects': _limits(mean.bootstrap),
          'insufficient_samples': mean.insufficient_samples,
        }
        for name, mean in means.items()
      },
    }
  required = result.requirement.text if result.requirement else ''
  for verdict in result.verdicts:
    for check in verdict.checks:
      of = found.setdefault(check.subset, {}).setdefault(
        'pass_if', {'requirement': required, 'passed': True, 'checks': []}
      )
      of['passed'] = of['passed'] and check.passed
      of['checks'].append(pass_if.to_json(check))
  for one in result.comparisons:
    found[one.b].setdefault('against', {})[one.a] = {
      'verdict': one.verdict,
      'runs': one.runs._asdict(),
      'p_holm': one.p_holm,
      'bona_fide': one.bona_fide._asdict() if one.bona_fide else None,
      'attacks': one.attacks._asdict() if one.attacks else None,
      **{
        name: {'difference': d.value, 'interval': _limits(d.interval), 'p': d.p}
        for name, d in one.rates.items()
      },
    }
  for place, gaps in result.gaps.items():
    subset, _, column = place.rpartition(', ')
    found[subset].setdefault('groups', {})[column] = {
      gap.rate: {
        'gap': gap.value,
        'interval': _limits(gap.interval),
        **{
          f'{column}={g.name}': {
            'errors': g.count.errors,
            'n': g.count.n,
            'clopper_pearson': _limits(g.exact),
            'bootstrap': _limits(g.bootstrap),
          }
          for g in gap.groups
        },
      }
      for gap in gaps
    }
  return found


def _limits(interval: Interval) -> list[float] | None:
  return None if math.isnan(interval.low) else [interval.low, interval.high]


def merge_systems(systems: Mapping[str, score_files.Scores]) -> score_files.Scores:
  """Several systems' scores of the same samples as one, its subsets called 'SYSTEM: SUBSET'.

  Args:
    systems: by name; the order and metadata of the first one are kept. Its header too, and whether
      any states that images are rendered: the samples are the same.

  Raises:
    DataError: ids that one lacks, or labels that differ, by file and id.
  """
  base = next(iter(systems.values()))
  at = {id_: i for i, id_ in enumerate(base.ids.tolist())}
  columns, faults, scale_of = {}, {}, {}
  for name, scores in systems.items():
    names = [str(scores.path or name), str(base.path or 'the first')]
    ids = scores.ids.tolist()
    known = set(ids)
    for (lacks, has), ids_ in ((names, [i for i in at if i not in known]),
                               (names[::-1], [i for i in ids if i not in at])):  # fmt: skip
      if ids_:
        raise DataError(
          f'{lacks} lacks {len(ids_)} ids that {has} has (the first is {ids_[0]}): systems are '
          'compared on the same samples'
        )
    place = np.array([at[id_] for id_ in ids])  # [N] where the first has them
    order = np.argsort(place)
    if (wrong := np.flatnonzero(scores.label[order] != base.label)).size:
      i = wrong[0]
      labels = [schema.LABELS[x] for x in (scores.label[order][i], base.label[i])]
      raise DataError(f'{base.ids[i]} is {labels[0]} in {names[0]} and {labels[1]} in {names[1]}')
    for subset, values in scores.scores.items():
      columns[f'{name}: {subset}'] = values[order]
      scale_of[f'{name}: {subset}'] = scores.scale_under(subset)
      if subset in scores.nan_samples:
        faults[f'{name}: {subset}'] = np.sort(place[scores.nan_samples[subset]])
  header = {key: value for key, value in base.header.items() if key != 'not_recorded'}
  if lacking := {n: of for n, x in systems.items() if (of := x.header.get('not_recorded'))}:
    header['not_recorded'] = lacking
  if any('thresholds' in scores.header for scores in systems.values()):  # by the new names
    header['thresholds'] = {
      f'{name}: {subset}': value
      for name, scores in systems.items()
      if isinstance(of := scores.header.get('thresholds'), Mapping)
      for subset, value in of.items()
    }
  if any(map(results.is_rendered, systems.values())):
    header['rendered'] = True
  return dataclasses.replace(
    base, scores=columns, header=header, nan_samples=faults, scale='', scale_of=scale_of
  )
