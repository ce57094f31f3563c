"""Evaluates one test: rates with intervals, comparisons, groups, worst errors.

`results` computes the metrics; this module adds intervals, comparisons and groups. The report, the
tables and the JSON output of `flexfas_jax.score` are made from an `EvaluationResult`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

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
  results,
  score_files,
  sufficiency,
  thresholds,
  unusable,
)
from flexfas_jax.evaluation.intervals import Interval
from flexfas_jax.evaluation.metrics import Count

# Above so many samples the bootstrap takes minutes and must be requested.
MOST_SAMPLES = 1_000_000
WORST = 12  # mistakes that are shown, of each kind
_MEANS = {
  'acer': ('apcer', 'bpcer'),
  'hter': ('apcer', 'bpcer'),
  'acer_max': ('apcer_max', 'bpcer'),
  'acer_fta': ('apcer_fta', 'bpcer_fta'),
}


class Estimate(NamedTuple):
  """A figure and how sure it is."""

  value: float
  count: Count | None  # None where it is no share of samples
  exact: Interval  # Clopper-Pearson, or made of such; over samples
  bootstrap: Interval  # over subjects; over videos or samples if subjects are unknown
  n_subjects: int  # subjects (videos, samples) that contribute
  insufficient_samples: bool  # samples or subjects, by `sufficiency`: the figure is not stated


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
  clusters: bootstrap.Clusters | None  # None: no bootstrap
  comparisons: tuple[comparisons.Comparison, ...]
  sensors: tuple[comparisons.SensorEffect, ...]
  gaps: Mapping[str, tuple[groups.Gap, ...]]  # by 'SUBSET, COLUMN'
  mistakes: Mapping[str, tuple[list[Mistake], list[Mistake]]]  # accepted attacks, rejected others
  notes: tuple[str, ...]

  @property
  def served(self) -> list[str]:
    return list(self.estimates)

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
) -> EvaluationResult:
  """Evaluates scores under every subset, with intervals.

  Args:
    name: of the test.
    scores, rule, dev, oracle: as `results.compute` has them.
    draws: of the bootstrap; 0: none; None: 1000, none above `MOST_SAMPLES` samples.
    seed: of the bootstrap.
    group_by: columns of the scores that define groups.
    notes: further notes for the result.
    progress: called with a description of each step.

  Raises:
    ConfigError, StateError: as `results.compute`.
    DataError: likewise; a column to group by that is not there, or empty.
  """
  rule = results.resolve_rule(scores, rule, dev, oracle)
  found = results.compute(scores, rule, dev, oracle)
  units = sufficiency.Units(scores)
  few = sufficiency.insufficient_metrics(scores, found, units)
  notes = [*notes, *results.notes(found, few)]
  notes += results.scale_notes(scores, found, rule)
  if draws is None:
    draws = bootstrap.N_REPLICATES if scores.label.size <= MOST_SAMPLES else 0
    if not draws:
      notes.append(
        f'no bootstrap: {scores.label.size} samples take minutes; to compute it anyway: '
        f'--bootstrap={bootstrap.N_REPLICATES}'
      )
  columns = {column: _column(scores, column) for column in group_by}
  served = [s for s, values in found.items() if not math.isnan(values['threshold'])]
  of_kinds = results.attack_kinds(scores)
  with np.errstate(invalid='ignore'):
    accepted = {s: scores.scores[s] >= found[s]['threshold'] for s in served}
  shares = {s: _shares(scores, accepted[s], s, of_kinds) for s in served}
  by_group = {
    (s, column): groups.shares(column, values, scores.label, accepted[s])
    for s in served
    for column, values in columns.items()
  }

  who, drawn = None, dict.fromkeys(served)
  if draws and served:
    progress(f'bootstrap, {draws} replicates')
    known = scores.label, scores.dataset, *aggregation.cluster_columns(scores)
    who = bootstrap.make_clusters(*known, draws, seed, ids=scores.ids)
    drawn = bootstrap.resample(
      who,
      {
        s: _figures(
          who,
          scores,
          s,
          shares[s] | {k: v for c in columns for k, v in by_group[s, c].items()},
          tuple(n for n in shares[s] if n.startswith(_of_max(shares[s]))),
        )
        for s in served
      },
    )
  progress('counting')
  compared = []
  for a, b in comparisons.pairs(served):
    both = {a: drawn[a], b: drawn[b]} if who else None
    of = comparisons.compare(a, b, scores.label, accepted, both)
    compared.append(dataclasses.replace(of, insufficient_samples='acer' in few[a] | few[b]))
  return EvaluationResult(
    name=name,
    scores=scores,
    dev=dev,
    rule=rule,
    oracle=oracle,
    metrics=found,
    estimates={s: _estimates(found[s], shares[s], drawn[s], few[s]) for s in served},
    clusters=who,
    comparisons=tuple(comparisons.apply_holm(compared)),
    sensors=tuple(
      comparisons.sensor_effects(
        served, scores.label, accepted, of_kinds[0] or of_kinds[1], units.insufficient_samples
      )
    ),
    gaps={
      f'{s}, {column}': tuple(
        groups.gap(rate, column, by_group[s, column], drawn[s], units.insufficient_samples)
        for rate in groups.RATES
      )
      for s, column in by_group
    },
    mistakes={s: _mistakes(scores, s, accepted[s], of_kinds) for s in served},
    notes=tuple(notes),
  )


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


def _shares(scores, accepted, subset, of_kinds) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """{rate: (errors [N] bool, among [N] bool)} of everything that is a share of samples."""
  bona_fide, missing = scores.label == 1, np.isnan(scores.scores[subset])
  found = {
    'apcer': (accepted, ~bona_fide),
    'bpcer': (~accepted, bona_fide),
    'apnrr': (missing, ~bona_fide),
    'bpnrr': (missing, bona_fide),
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


def _of_max(shares) -> str:
  """The prefix of what `apcer_max` is the largest of."""
  return 'apcer_species/' if any(n.startswith('apcer_species/') for n in shares) else 'apcer/'


def _figures(who, scores, subset, shares, parts) -> bootstrap.WeightedMetrics:
  return bootstrap.WeightedMetrics(
    who,
    scores.label,
    scores.scores[subset],
    shares,
    maxima={'apcer_max': parts} if parts else {},
    means={
      n: of for n, of in _MEANS.items() if of[0] in shares or (of[0] == 'apcer_max' and parts)
    },
    fprs={f'tpr@fpr={fpr}': float(fpr) for fpr in results.FPRS},
    apcers={f'bpcer@apcer={apcer}': float(thresholds.share(apcer)) for apcer in results.APCERS},
  )


def _estimates(found, shares, drawn, few) -> dict[str, Estimate]:
  counts = {
    name: Count(int((which & among).sum()), int(among.sum()))
    for name, (which, among) in shares.items()
  }
  of_max = [c for name, c in counts.items() if name.startswith(_of_max(shares))]
  exact = {name: intervals.clopper_pearson(count) for name, count in counts.items()}
  exact['apcer_max'] = intervals.max_interval(of_max)
  means = {name: parts for name, parts in _MEANS.items() if name in found}
  for name, parts in means.items():
    rates = [found[part] for part in parts]
    if not any(map(math.isnan, rates)):
      exact[name] = intervals.mean_interval(rates, [exact[part] for part in parts])
  n = found['n_bona_fide']
  for name, value in found.items():  # at a threshold that is taken as given
    if name.startswith(('tpr@', 'bpcer@')) and not math.isnan(value):
      counts[name] = Count(round(value * n), n)
      exact[name] = intervals.clopper_pearson(counts[name])
  resampled = {name: bootstrap.interval(draws) for name, draws in (drawn or {}).items()}
  for name, parts in means.items():
    # Where one of the two rates is the same in every draw (no error was seen), the draws of the
    # mean do not vary with it: the interval is then computed from those of the two rates.
    if name in resampled and any(np.ptp(drawn[x].drawn) == 0 for x in parts):
      resampled[name] = intervals.mean_interval(
        [found[x] for x in parts], [resampled[x] for x in parts]
      )
  named = [n for n in found if n not in ('threshold', 'ORACLE') and not n.startswith('n_')]
  return {
    name: Estimate(
      found[name],
      counts.get(name),
      exact.get(name, intervals.UNDEFINED),
      resampled.get(name, intervals.UNDEFINED),
      drawn[name].n if drawn and name in drawn else 0,
      name in few,
    )
    for name in named
  }


def _mistakes(scores, subset, accepted, of_kinds) -> tuple[list[Mistake], list[Mistake]]:
  """The surest mistakes: attacks by falling score, bona fide samples by rising score."""
  score, bona_fide = scores.scores[subset], scores.label == 1
  kinds = of_kinds[1] or of_kinds[0]

  def mistake(i):
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


def to_json(result: EvaluationResult) -> dict[str, dict]:
  """`EvaluationResult.metrics`, and by subset besides: `scale`, where it is stated, `intervals`
  {metric: its counts and limits}, `against` {the subset it is compared with: ...}, `groups`
  {column: {rate: ...}}."""
  found = {subset: dict(values) for subset, values in result.metrics.items()}
  for subset, values in found.items():
    if scale := result.scores.scale_under(subset):
      values['scale'] = scale
  span = lambda i: None if math.isnan(i.low) else [i.low, i.high]  # noqa: E731
  for subset, of in result.estimates.items():
    found[subset]['intervals'] = {
      name: {
        'errors': e.count.errors if e.count else None,
        'n': e.count.n if e.count else None,
        'subjects': e.n_subjects or None,
        'clopper_pearson': span(e.exact),
        'bootstrap': span(e.bootstrap),
        'insufficient_samples': e.insufficient_samples,
      }
      for name, e in of.items()
    }
  for one in result.comparisons:
    found[one.b].setdefault('against', {})[one.a] = {
      'verdict': one.verdict,
      'p_holm': one.p_holm,
      'bona_fide': one.bona_fide._asdict(),
      'attacks': one.attacks._asdict(),
      **{
        name: {'difference': d.value, 'interval': span(d.interval), 'p': d.p}
        for name, d in one.rates.items()
      },
    }
  for place, gaps in result.gaps.items():
    subset, _, column = place.rpartition(', ')
    found[subset].setdefault('groups', {})[column] = {
      gap.rate: {
        'gap': gap.value,
        'interval': span(gap.interval),
        **{
          f'{column}={g.name}': {
            'errors': g.count.errors,
            'n': g.count.n,
            'clopper_pearson': span(g.exact),
            'bootstrap': span(g.bootstrap),
          }
          for g in gap.groups
        },
      }
      for gap in gaps
    }
  return found


def merge_systems(systems: Mapping[str, score_files.Scores]) -> score_files.Scores:
  """Several systems' scores of the same samples as one, its subsets called 'SYSTEM: SUBSET'.

  Args:
    systems: by name; the order and metadata of the first one are kept.

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
  return dataclasses.replace(base, scores=columns, nan_samples=faults, scale='', scale_of=scale_of)
