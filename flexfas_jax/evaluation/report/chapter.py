"""The chapter of one test: all texts, tables and figures that the template inserts."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from flexfas_jax.evaluation import intervals, metrics, score_files, thresholds
from flexfas_jax.evaluation.comparisons import RATES, Comparison, Discordant
from flexfas_jax.evaluation.evaluate import EvaluationResult
from flexfas_jax.evaluation.report import checklist, formatting, thumbnails
from flexfas_jax.evaluation.report.figures import Figures, figures
from flexfas_jax.evaluation.report.formatting import Cell

TABLE = ('acer', 'apcer', 'apcer_max', 'bpcer', 'eer', 'auc')  # of all subsets, on the first page
_SENTENCES = 6  # that the first page has at most


class Headline(NamedTuple):
  """The best-informed subset's figures, in large type."""

  subset: str
  threshold: str
  figures: list[tuple[str, Cell, str, list[str]]]  # name, figure, what it is of, limits


class TableRow(NamedTuple):
  """A row of cells."""

  name: str
  cells: list
  tail: tuple = ()


class SampleList(NamedTuple):
  """One list of samples: the test's or the development set's."""

  role: str
  facts: list[tuple[str, str]]
  config: str


@dataclasses.dataclass(frozen=True)
class Chapter:
  """One test."""

  anchor: str
  name: str
  oracle: bool
  rendered: bool
  rule: str
  unit: str  # of the bootstrap; '' without one
  draws: int
  headlines: list[Headline]
  columns: list[str]
  table: list[TableRow]  # by subset
  one_run: bool  # whether something is of one training run
  run_means: list[TableRow]  # by method with several training runs, and subset
  sentences: list[str]
  n_sentences_left: int
  checklist: list[checklist.Check]
  sample_lists: list[SampleList]
  notes: list[str]
  subsets: list[tuple[str, bool, list[TableRow]]]  # name, open, by metric
  figures: Figures
  compared: list[str]  # rates
  comparisons: list[TableRow]
  sensors: list[tuple[str, str, tuple]]
  groups: list
  mistakes: list
  has_images: bool


def chapter(result: EvaluationResult, number: int, find_images=None) -> Chapter:
  """One test's chapter.

  Args:
    result: the test's.
    number: of the chapter, from 1: its anchors and ids have it in them.
    find_images: as `page.write` has it.
  """
  best = best_informed(result)
  anchor, who = f'test-{number}', result.clusters
  first = result.comparisons
  if len(first) > _SENTENCES:
    shown_first = {*best, *_best_informed(result.run_means)}
    first = [c for c in first if c.b in shown_first or c.a in shown_first][:_SENTENCES]
  shown = _images(result, find_images)
  return Chapter(
    anchor=anchor,
    name=result.name,
    oracle=result.oracle,
    rendered=result.rendered,
    rule=result.rule,
    unit=who.unit if who else '',
    draws=who.draws if who else 0,
    headlines=[
      *(_run_headline(result, method) for method in _best_informed(result.run_means)),
      *(_headline(result, subset) for subset in best if subset in result.runs),
    ],
    columns=[formatting.metric(name) for name in TABLE],
    table=[_row(result, subset) for subset in result.metrics],
    one_run=result.one_run,
    run_means=[_run_row(result, method) for method in result.run_means],
    sentences=[
      formatting.sentence(c, formatting.digits_of(result), formatting.MINUS) for c in first
    ],
    n_sentences_left=len(result.comparisons) - len(first),
    checklist=checklist.answer_all(result),
    sample_lists=_sample_lists(result),
    notes=list(result.notes),
    subsets=[(formatting.display_name(s), s in best, _metrics(result, s)) for s in result.metrics],
    figures=figures(result, anchor),
    compared=[formatting.metric(name) for name in RATES],
    comparisons=[_comparison(c, formatting.digits_of(result)) for c in result.comparisons],
    sensors=[
      (formatting.display_name(s.before), formatting.display_name(s.after), s.gains)
      for s in result.sensors
    ],
    groups=_groups(result),
    mistakes=[
      (
        formatting.display_name(s),
        s in best,
        *([(m, shown.get(m.id, ())) for m in some] for some in both),
      )
      for s, both in result.mistakes.items()
    ],
    has_images=bool(shown),
  )


def best_informed(result: EvaluationResult) -> list[str]:
  """For every system, the first of its served subsets that have the most sensors.

  Choosing the subset with the best metrics would select on the evaluated scores.
  """
  return _best_informed(result.served)


def _best_informed(names: Iterable[str]) -> list[str]:
  found = {}
  for subset in names:
    system, _, sensors = subset.rpartition(': ')
    if system not in found or sensors.count('+') > found[system].rpartition(': ')[2].count('+'):
      found[system] = subset
  return list(found.values())


def _headline(result: EvaluationResult, subset: str) -> Headline:
  """APCER, BPCER and ACER of one subset, each with what it is of and its limits."""
  unit = result.clusters.unit if result.clusters else ''
  cells = {name: formatting.cell(result, subset, name) for name in ('apcer_max', 'bpcer', 'acer')}
  limits = {name: _limits(cell, unit) for name, cell in cells.items()}
  for name, bound in _one_sided_bounds(result, subset).items():
    text = formatting.percent(bound, formatting.digits_of(result))
    limits[name].append(f'at most {text} %, one-sided, over samples')
  if not cells['apcer_max'].plain:
    limits['apcer_max'][:0] = _largest_with_enough(result, subset)
  rejected = cells['bpcer'].count
  rejected = f'{rejected} rejected' if rejected else 'no bona fide sample'
  return Headline(
    formatting.display_name(subset),
    f'{result.metrics[subset]["threshold"]:.6g}',
    [
      (
        'APCER, max over PAI species',
        cells['apcer_max'],
        _worst_species(result, subset),
        limits['apcer_max'],
      ),
      ('BPCER', cells['bpcer'], rejected, limits['bpcer']),
      ('ACER', cells['acer'], 'with the pooled APCER', limits['acer']),
    ],
  )


def _one_sided_bounds(result: EvaluationResult, subset: str) -> dict[str, float]:
  """The exact upper bounds of the largest APCER and of BPCER, where they have counts."""
  bounds = {}
  if by_species := formatting.counts_of_species(result, subset):
    confidence = 2 * intervals.CONFIDENCE - 1
    bounds['apcer_max'] = intervals.max_interval(by_species.values(), confidence).high
  count = result.estimates[subset]['bpcer'].count
  if count and count.n:
    bounds['bpcer'] = intervals.upper_bound(count)
  return bounds


def _worst_species(result: EvaluationResult, subset: str) -> str:
  """What the largest APCER is of."""
  by_species = formatting.counts_of_species(result, subset)
  if not by_species:
    return 'PAI species unknown' if formatting.class_sizes(result)[1] else 'no attack'
  if not any(count.errors for count in by_species.values()):
    return f'no attack of {len(by_species)} species accepted'
  worst = result.species_of_max(subset)
  return f'{worst}: {formatting.fraction(by_species[worst])} accepted'


def _largest_with_enough(result: EvaluationResult, subset: str) -> list[str]:
  """The largest APCER of the species with enough samples, as a line; [] where none has."""
  enough = formatting.counts_of_species(result, subset, enough=True)
  if not enough:
    return []
  name = max(enough, key=lambda name: enough[name].rate)
  rate = formatting.percent(enough[name].rate, formatting.digits_of(result))
  return [f'{rate} % of {name}, the largest of those with enough']


def _run_headline(result: EvaluationResult, method: str) -> Headline:
  """The same, of the means over runs."""
  names = {'APCER, max over PAI species': 'apcer_max', 'BPCER': 'bpcer', 'ACER': 'acer'}
  cells = {title: _run_cell(result, method, name) for title, name in names.items()}
  of = f'mean of {len(result.runs[method])} training runs'
  return Headline(
    formatting.display_name(method),
    'the threshold of each run',
    [(title, cell, of, _run_limits(result, cell)) for title, cell in cells.items()],
  )


def _run_limits(result: EvaluationResult, cell: Cell) -> list[str]:
  if not cell.plain:
    return []
  limits = [f'standard deviation of the runs {cell.count}']
  if cell.bootstrap:
    limits.insert(0, f'{cell.bootstrap} over runs and {result.clusters.unit}')
  return limits


def _run_cell(result: EvaluationResult, method: str, name: str) -> Cell:
  """A mean over runs; its count is the standard deviation of the runs."""
  mean, digits = result.run_means[method].get(name), formatting.digits_of(result)
  if mean is None or math.isnan(mean.value):
    return Cell(formatting.UNDEFINED, False)
  if mean.insufficient_samples:
    return Cell(formatting.TOO_SMALL, False)
  return Cell(
    formatting.percent(mean.value, digits),
    True,
    formatting.span(mean.bootstrap, digits),
    count=formatting.percent(mean.deviation, digits),
  )


def _run_row(result: EvaluationResult, method: str) -> TableRow:
  return TableRow(
    formatting.display_name(method),
    [_run_cell(result, method, name) for name in TABLE],
    (len(result.runs[method]),),
  )


def _limits(cell: Cell, unit: str) -> list[str]:
  found = []
  if cell.bootstrap:
    found.append(f'{cell.bootstrap} over {unit}')
  if cell.exact:
    found.append(f'{cell.exact} over samples')
  return found


def _row(result: EvaluationResult, subset: str) -> TableRow:
  values = result.metrics[subset]
  served = subset in result.estimates
  return TableRow(
    formatting.display_name(subset),
    [formatting.cell(result, subset, name) for name in TABLE],
    (
      values['n_bona_fide'],
      values['n_attack'],
      values['n_fta'],
      f'{values["threshold"]:.6g}' if served else formatting.NOTHING,
    ),
  )


def _metrics(result: EvaluationResult, subset: str) -> list[TableRow]:
  found = result.estimates.get(subset, {})
  both = any(name.startswith('apcer_species/') for name in found)
  return [
    TableRow(
      formatting.metric(name) + (' (category)' if both and name.startswith('apcer/') else ''),
      [formatting.cell(result, subset, name)],
    )
    for name in found
    if not (name in metrics.BY_NAME and metrics.BY_NAME[name].oracle)
  ]


def _comparison(comparison: Comparison, digits: int) -> TableRow:
  """Differences by rate, then McNemar's counts; the verdict leads the tail."""
  cells = []
  for name in RATES:
    of = comparison.rates.get(name)
    if comparison.insufficient_samples:
      cells.append(Cell(formatting.TOO_SMALL, False))
      continue
    if of is None or math.isnan(of.value):
      cells.append(Cell(formatting.UNDEFINED if of else formatting.NOTHING, False))
      continue
    better = of.value > 0 if metrics.BY_NAME[name].higher_is_better else of.value < 0
    cells.append(
      Cell(
        formatting.typographic(formatting.points(of.value, digits)),
        better and not math.isnan(of.p),
        formatting.typographic(formatting.points_span(of.interval, digits)),
        f'p {formatting.p_value(of.p)}',
      )
    )
  verdict = comparison.verdict if 'acer' in comparison.rates else 'no bootstrap'
  pair = f'{formatting.display_name(comparison.b)} against {formatting.display_name(comparison.a)}'
  tests = [_discordant(of) for of in (comparison.attacks, comparison.bona_fide)]
  n = comparison.runs
  compared = 'one run each' if n.a == n.b == 1 else f'{n.b} and {n.a} runs'
  compared += ', paired' if n.paired and n.several else ''
  return TableRow(pair, cells, (verdict, formatting.p_value(comparison.p_holm), tests, compared))


def _discordant(of: Discordant | None) -> Cell:
  """'12 : 3' and the p value of McNemar's test."""
  if of is None:
    return Cell(formatting.NOTHING, False)
  return Cell(
    f'{of.only_b_correct} : {of.only_a_correct}', True, count=f'p {formatting.p_value(of.p)}'
  )


def _sample_lists(result: EvaluationResult) -> list[SampleList]:
  found = [_sample_list('Test', result.scores)]
  if result.oracle and result.dev is None:
    return found
  if result.dev is not None and thresholds.needs_dev(result.rule):
    found.append(_sample_list('Development, for thresholds', result.dev))
  return found


def _sample_list(role: str, scores: score_files.Scores) -> SampleList:
  unknown = 'unknown'
  header = scores.header
  subjects = checklist.subjects_of(scores)
  videos = set(zip(scores.dataset.tolist(), scores.video.tolist(), strict=True))
  n_bona_fide = int((scores.label == 1).sum())
  config = header.get('config') or ''
  return SampleList(
    role,
    [
      ('File', str(scores.path) if scores.path else unknown),
      ('List', score_files.list_hash(scores.ids, scores.label)),
      ('Weights', str(header.get('weights_hash') or unknown)),
      ('Code version', str(header.get('code_version') or unknown)),
      (
        'Samples',
        f'{scores.ids.size}: {n_bona_fide} bona fide, {scores.ids.size - n_bona_fide} attacks',
      ),
      ('Subjects', str(len(subjects)) if subjects else unknown),
      ('Videos', unknown if (scores.video == '').any() else str(len(videos))),
      ('Data sets', ', '.join(sorted(set(scores.dataset.tolist()) - {''})) or unknown),
    ],
    config
    if isinstance(config, str)
    else json.dumps(config, indent=2, sort_keys=True, default=str),
  )


def _groups(result: EvaluationResult) -> list:
  """(column, [(subset, rate, gap, interval, [(group, Cell)])]) of each column."""
  digits, found = formatting.digits_of(result), {}
  for key, gaps in result.gaps.items():
    subset, _, column = key.rpartition(', ')
    for gap in gaps:
      cells = [
        (
          group.name,
          Cell(formatting.too_small(group.count), False)
          if group.insufficient_samples
          else Cell(
            formatting.percent(group.count.rate, digits),
            True,
            formatting.span(group.bootstrap, digits),
            formatting.span(group.exact, digits),
            formatting.fraction(group.count),
          ),
        )
        for group in gap.groups
      ]
      of = (
        formatting.display_name(subset),
        gap.rate.upper(),
        formatting.percent(gap.value, digits),
      )
      found.setdefault(column, []).append((*of, formatting.span(gap.interval, digits), cells))
  return list(found.items())


def _images(result: EvaluationResult, find) -> Mapping[str, Sequence[thumbnails.Thumbnail]]:
  if find is None:
    return {}
  ids = [m.id for both in result.mistakes.values() for some in both for m in some]
  ids = list(dict.fromkeys(ids))
  found = find(result.name, ids) if ids else {}
  return {id_: thumbnails.thumbnails(found[id_]) for id_ in ids if id_ in found}
