"""The chapter of one test: all texts, tables and figures that the template inserts."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from flexfas_jax.evaluation import intervals, metrics, results, score_files, thresholds
from flexfas_jax.evaluation.comparisons import RATES, Comparison, Discordant
from flexfas_jax.evaluation.evaluate import EvaluationResult
from flexfas_jax.evaluation.report import checklist, formatting, record, thumbnails
from flexfas_jax.evaluation.report.figures import Figures, figures
from flexfas_jax.evaluation.report.formatting import Cell

TABLE = ('acer', 'apcer', 'apcer_max', 'bpcer', 'eer', 'auc')  # of all subsets
_SENTENCES = 6  # that a chapter begins with
_SPECIES = 15  # that the summary has of many, those with the largest APCER
_SUBJECTS = 8  # that are listed, besides those that stand out
_DIGEST = 16  # digits of a digest next to the signatures
_MISTAKES = ('Accepted attacks', 'Rejected bona fide samples')


class Headline(NamedTuple):
  """The best-informed subset's figures, in large type."""

  subset: str
  threshold: str
  figures: list[tuple[str, Cell, str, list[str]]]  # name, figure, what it is of, limits


class TableCell(NamedTuple):
  """A cell of a table: its text, smaller lines below it, and its class in the style sheet."""

  text: str
  small: tuple[str, ...] = ()
  kind: str = 'number'


class TableRow(NamedTuple):
  """A row of cells."""

  name: str
  cells: list


class Table(NamedTuple):
  """A table, as the page shows it; on a narrow screen each cell stands below its column's name."""

  caption: str
  columns: list[str]  # the first is that of the rows' names
  rows: list[TableRow]


class SampleList(NamedTuple):
  """One list of samples: the test's or the development set's."""

  role: str
  facts: list[tuple[str, str]]
  config: str


class Mistakes(NamedTuple):
  """The worst errors of one subset; each sample with its images, where they are shown."""

  subset: str
  lists: list[tuple[str, list]]  # what they are, [(Mistake, thumbnails)]


class Sample(NamedTuple):
  """One sample of the contact sheet."""

  name: str  # of the PAI species, or 'bona fide'
  id: str
  images: Sequence[thumbnails.Thumbnail]


@dataclasses.dataclass(frozen=True)
class Chapter:
  """One test."""

  anchor: str
  name: str
  verdict: str  # 'PASS', 'FAIL' or 'no requirement given'
  requirement: str
  verdicts: list[tuple[str, str, list[str]]]  # system, word, reasons
  weights: str  # digests of the model and of the list of samples, as far as a signature needs
  samples: str
  oracle: bool
  rendered: bool
  warnings: list[str]  # of the data
  rule: str
  unit: str  # of the bootstrap; '' without one
  draws: int
  headlines: list[Headline]
  summary: Table  # of every subset: the largest APCER, BPCER, ACER
  one_run: bool  # whether something is of one training run
  sentences: list[str]
  n_sentences_left: int
  checklist: list[checklist.Check]
  sample_lists: list[SampleList]
  notes: list[str]
  # By subset: its name, its table or None, and why it has none.
  rates: list[tuple[str, Table | None, str]]
  tables: dict[str, Table | None]  # further ones, see `chapter`
  figures: Figures
  groups: list[Table]
  mistakes: list[Mistakes]
  sheet: list[Sample]

  @property
  def open_checks(self) -> list[checklist.Check]:
    """The checks that a reader must look at, failures first."""
    found = [check for check in self.checklist if check.sign != checklist.OK]
    return sorted(found, key=lambda check: check.sign != checklist.FAIL)


def chapter(
  result: EvaluationResult,
  number: int,
  find_images=None,
  show_species: bool = True,
  description: Mapping[str, Mapping] | None = None,
) -> Chapter:
  """One test's chapter.

  Its `tables` are 'subsets', 'runs', 'thresholds', 'species', 'first_species' (of many species,
  those of the summary), 'subjects', 'comparisons' and 'sensors'; None where there are no rows.

  Args:
    result: the test's.
    number: of the chapter, from 1: its anchors and ids have it in them.
    find_images, show_species, description: as `page.write` has them.
  """
  best = best_informed(result)
  anchor, who = f'test-{number}', result.clusters
  first = result.comparisons
  if len(first) > _SENTENCES:
    shown_first = {*best, *_best_informed(result.run_means)}
    first = [c for c in first if c.b in shown_first or c.a in shown_first][:_SENTENCES]
  sheet = _sheet(result) if show_species and find_images else []
  shown = _images(result, best, [id_ for _, id_ in sheet], find_images)
  species = record.species(result, (description or {}).get('species', {}))
  tables = {
    'subsets': _all_subsets(result),
    'runs': _runs(result),
    'thresholds': _thresholds(result),
    'species': _species(result, species, best),
    'first_species': _species(result, _first_species(result, species, best), best, len(species)),
    'subjects': _subjects(result, best),
    'comparisons': _comparisons(result),
    'sensors': _sensors(result),
  }
  return Chapter(
    anchor=anchor,
    name=result.name,
    verdict=formatting.verdict_word(result),
    requirement=formatting.requirement(result),
    verdicts=[
      (
        verdict.system,
        formatting.PASS if verdict.passed else formatting.FAIL,
        formatting.reasons(verdict, formatting.digits_of(result)),
      )
      for verdict in result.verdicts
    ],
    weights=str(result.scores.header.get('weights_hash') or 'not stated')[:_DIGEST],
    samples=score_files.list_hash(result.scores.ids, result.scores.label)[:_DIGEST],
    oracle=result.oracle,
    rendered=result.rendered,
    warnings=list(result.warnings),
    rule=result.rule,
    unit=who.unit if who else '',
    draws=who.draws if who else 0,
    headlines=[
      *(_run_headline(result, method) for method in _best_informed(result.run_means)),
      *(_headline(result, subset) for subset in best if subset in result.runs),
    ],
    summary=_summary(result),
    one_run=result.one_run,
    sentences=[
      formatting.sentence(c, formatting.digits_of(result), formatting.MINUS) for c in first
    ],
    n_sentences_left=len(result.comparisons) - len(first),
    checklist=checklist.answer_all(result),
    sample_lists=_sample_lists(result),
    notes=list(result.notes),
    rates=[
      (formatting.display_name(s), _rates(result, s), _why_no_rates(values))
      for s, values in result.metrics.items()
    ],
    tables={name: table if table.rows else None for name, table in tables.items()},
    figures=figures(result, anchor),
    groups=_groups(result),
    mistakes=[
      Mistakes(
        formatting.display_name(s),
        [
          (what, [(m, shown.get(m.id, ()) if s in best else ()) for m in some])
          for what, some in zip(_MISTAKES, both, strict=True)
        ],
      )
      for s, both in result.mistakes.items()
    ],
    sheet=[Sample(name, id_, shown[id_]) for name, id_ in sheet if id_ in shown],
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
  name = formatting.short(worst, formatting.LONGEST)
  return f'{name}: {formatting.fraction(by_species[worst])} accepted'


def _largest_with_enough(result: EvaluationResult, subset: str) -> list[str]:
  """The largest APCER of the species with enough samples, as a line; [] where none has."""
  enough = formatting.counts_of_species(result, subset, enough=True)
  if not enough:
    return []
  name = max(enough, key=lambda name: enough[name].rate)
  rate = formatting.percent(enough[name].rate, formatting.digits_of(result))
  name = formatting.short(name, formatting.LONGEST)
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


def _limits(cell: Cell, unit: str) -> list[str]:
  found = []
  if cell.bootstrap:
    found.append(f'{cell.bootstrap} over {unit}')
  if cell.exact:
    found.append(f'{cell.exact} over samples')
  return found


def _shown(cell: Cell, count: bool = False) -> TableCell:
  """A figure with its interval; an asterisk where it is over samples."""
  small = [cell.bootstrap or (f'{cell.exact}*' if cell.exact else '')]
  if count and cell.plain:  # another text has the count in it
    small.append(cell.count)
  return TableCell(cell.text, tuple(filter(None, small)), 'number' if cell.plain else 'number none')


def _summary(result: EvaluationResult) -> Table:
  """The figures that the standard requires, and ACER, of every subset, and of means over runs."""
  n_bona_fide, n_attack = formatting.class_sizes(result)
  verdicts = {}  # by subset
  for verdict in result.verdicts:
    for check in verdict.checks:
      verdicts[check.subset] = verdicts.get(check.subset, True) and check.passed
  rows = [
    TableRow(
      formatting.display_name(name),
      [
        *(_shown_of(result, name, metric) for metric in ('apcer_max', 'bpcer', 'acer')),
        *([_word(verdicts.get(name))] if verdicts else []),
      ],
    )
    for name in (*result.run_means, *result.metrics)
  ]
  unit = result.clusters.unit if result.clusters else 'samples'
  return Table(
    f'{n_bona_fide} bona fide samples, {n_attack} attacks; in percent, 95 % intervals over {unit}',
    ['Subset', 'APCER, max', 'BPCER', 'ACER', *(['Verdict'] if verdicts else [])],
    rows,
  )


def _shown_of(result: EvaluationResult, name: str, metric: str) -> TableCell:
  if name in result.run_means:
    return _shown(_run_cell(result, name, metric))
  return _shown(formatting.cell(result, name, metric))


def _word(passed: bool | None) -> TableCell:
  if passed is None:
    return TableCell(formatting.NOTHING, kind='word')
  word = formatting.PASS if passed else formatting.FAIL
  return TableCell(word, kind=f'word {word.lower()}')


def _all_subsets(result: EvaluationResult) -> Table:
  rows = []
  for subset, values in result.metrics.items():
    threshold = f'{values["threshold"]:.6g}' if subset in result.estimates else formatting.NOTHING
    without = formatting.NOTHING if results.NOT_RECORDED in values else values['n_fta']
    counts = (values['n_bona_fide'], values['n_attack'], without)
    cells = [_shown(formatting.cell(result, subset, name)) for name in TABLE]
    cells += [TableCell(str(text)) for text in (threshold, *counts)]
    rows.append(TableRow(formatting.display_name(subset), cells))
  over = result.clusters.unit if result.clusters else 'samples'
  columns = ['Subset', *map(formatting.metric, TABLE), 'Threshold', 'Bona fide', 'Attacks']
  caption = f'Every subset of modalities, in percent, with 95 % intervals over {over}'
  return Table(caption, [*columns, 'No score'], rows)


def _runs(result: EvaluationResult) -> Table:
  rows = []
  for method, of in result.runs.items():
    if method in result.run_means:
      cells = [TableCell(str(len(of)))]
      for name in TABLE:
        cell = _run_cell(result, method, name)
        shown = _shown(cell)
        deviation = (f'sd {cell.count}',) if cell.count else ()
        cells.append(shown._replace(small=shown.small + deviation))
      rows.append(TableRow(formatting.display_name(method), cells))
  over = result.clusters.unit if result.clusters else 'subjects'
  return Table(
    f'Means over training runs, in percent, with 95 % intervals over runs and {over}; sd: standard '
    'deviation of the runs',
    ['Mean of', 'Runs', *map(formatting.metric, TABLE)],
    rows,
  )


def _thresholds(result: EvaluationResult) -> Table:
  rows = []
  for subset in result.served:
    counts = record.fitted_on(result, subset)
    cells = [TableCell(f'{result.metrics[subset]["threshold"]:.6g}')]
    for label in ('bona_fide', 'attack'):
      of = counts[label] if counts else None
      cells.append(TableCell(f'{of["scores"]} ({of["subjects"]})' if of else formatting.NOTHING))
    rows.append(TableRow(formatting.display_name(subset), cells))
  return Table(
    f'Thresholds by {result.rule}, and the development scores behind each (subjects in brackets)',
    ['Subset', 'Threshold', 'Bona fide scores', 'Attack scores'],
    rows,
  )


def _first_species(
  result: EvaluationResult, species: Sequence[Mapping], best: Sequence[str]
) -> list[Mapping]:
  """Of many species those with the largest APCER that is stated; [] where all have room."""
  if len(species) <= _SPECIES:
    return []

  def order(one: Mapping) -> tuple[float, str]:
    rates = (one['apcer'].get(subset) for subset in best)
    stated = (of['value'] for of in rates if of and not of['insufficient_samples'])
    return -max(stated, default=-1.0), one['name']

  return sorted(species, key=order)[:_SPECIES]


def _species(
  result: EvaluationResult, species: Sequence[Mapping], best: Sequence[str], of: int = 0
) -> Table:
  """PAI species: what each is, its counts and its APCER; `of` how many, where they are a part."""
  rows = []
  for one in species:
    about = [f'{k}: {one[k]}' for k in ('source', 'instruments', 'level') if one[k] is not None]
    text = one['description'] or 'not described'
    cells = [TableCell(text, tuple(about), 'text' if one['description'] else 'text none')]
    counts = (one['subjects'], one['presentations'], one['samples'])
    cells += [TableCell('unknown' if n is None else str(n)) for n in counts]
    missing = max(one['no_response'].values(), default=0)
    cells.append(TableCell(formatting.percent(missing / one['samples'])))
    for subset in best:
      prefix = (
        'apcer_species/' if f'apcer_species/{one["name"]}' in result.estimates[subset] else 'apcer/'
      )
      cells.append(_shown(formatting.cell(result, subset, prefix + one['name']), count=True))
    category = f' ({one["category"]})' if one['category'] not in (None, one['name']) else ''
    rows.append(TableRow(f'{one["name"]}{category}', cells))
  which = f', the {len(species)} of {of} with the largest APCER (all: Attacks and subjects)'
  return Table(
    f'PAI species{which if of else ""}: instruments, attack presentations, non-response (APNRR) '
    'and APCER, in percent',
    [
      *('Species', 'Instruments', 'Subjects', 'Videos', 'Samples', 'APNRR'),
      *(f'APCER, {formatting.display_name(subset)}' for subset in best),
    ],
    rows,
  )


def _subjects(result: EvaluationResult, best: Sequence[str]) -> Table:
  """The subjects whose errors are least explained by chance."""
  rows = []
  for subset in best:
    for one in record.subjects(result, subset):
      if not one.count.errors or (len(rows) >= _SUBJECTS and not one.outlier):
        continue
      rate = 'APCER' if one.label == 'attack' else 'BPCER'
      cells = [
        TableCell(rate, kind='text'),
        TableCell(formatting.percent(one.count.rate), (formatting.fraction(one.count),)),
        TableCell(formatting.p_value(one.p)),
        TableCell('stands out' if one.outlier else formatting.NOTHING, kind='text'),
      ]
      system = f' ({formatting.display_name(subset)})' if len(best) > 1 else ''
      rows.append(TableRow(f'{one.subject}{system}', cells))
  of = ', '.join(map(formatting.display_name, best))
  return Table(
    f'Subjects with the least probable numbers of errors, {of}. p: of so many errors or more, at '
    'the rate of the other subjects; a subject stands out if p times their number is at most 0.05',
    ['Subject', 'Rate', '%', 'p', 'Outlier'],
    rows,
  )


def _rates(result: EvaluationResult, subset: str) -> Table | None:
  found = result.estimates.get(subset)
  if found is None:
    return None
  both = any(name.startswith('apcer_species/') for name in found)
  unit = result.clusters.unit if result.clusters else ''
  rows = []
  for name in found:
    if name in metrics.BY_NAME and metrics.BY_NAME[name].oracle:
      continue
    cell = formatting.cell(result, subset, name)
    texts = (cell.count, cell.bootstrap or formatting.NOTHING, cell.n_subjects)
    cells = [TableCell(cell.text, kind='number' if cell.plain else 'number none')]
    cells += [TableCell(text) for text in texts]
    method = (found[name].method,) if cell.exact else ()
    cells.append(TableCell(cell.exact or formatting.NOTHING, method))
    category = ' (category)' if both and name.startswith('apcer/') else ''
    rows.append(TableRow(formatting.metric(name) + category, cells))
  return Table(
    f'{formatting.display_name(subset)}: all rates with 95 % intervals',
    [
      *('Metric', '%', 'Errors / n', f'Over {unit or "subjects"} (bootstrap)'),
      *((unit or 'subjects').capitalize(), 'Over samples'),
    ],
    rows,
  )


def _why_no_rates(values: Mapping) -> str:
  if lacking := values.get(results.NOT_RECORDED):
    why = f'No sample has {" or ".join(lacking)}; its scores are those of the other sensors'
    return f'{formatting.NOT_RECORDED}. {why}'
  if results.NO_THRESHOLD in values:
    return f'{formatting.NO_THRESHOLD}. It decides nothing under this subset'
  return f'{formatting.NOT_SERVED}. The model computes no score for this subset'


def _comparisons(result: EvaluationResult) -> Table:
  return Table(
    'Differences in percentage points, with 95 % intervals and p values from paired bootstrap '
    'replicates; McNemar: samples that only one of the two decides correctly',
    [
      *('Pair', 'Runs', 'Verdict', 'Holm p', *map(formatting.metric, RATES)),
      *('Attacks: only correct', 'Bona fide: only correct'),
    ],
    [_comparison(c, formatting.digits_of(result)) for c in result.comparisons],
  )


def _comparison(comparison: Comparison, digits: int) -> TableRow:
  """Runs, verdict and p value, differences by rate, then McNemar's counts."""
  verdict = comparison.verdict if 'acer' in comparison.rates else 'no bootstrap'
  n = comparison.runs
  compared = 'one run each' if n.a == n.b == 1 else f'{n.b} and {n.a} runs'
  compared += ', paired' if n.paired and n.several else ''
  cells = [
    TableCell(compared, kind='text'),
    TableCell(verdict, kind=f'text {verdict.replace(" ", "-")}'),
    TableCell(formatting.p_value(comparison.p_holm)),
  ]
  for name in RATES:
    of = comparison.rates.get(name)
    if comparison.insufficient_samples:
      cells.append(TableCell(formatting.TOO_SMALL))
    elif of is None or math.isnan(of.value):
      cells.append(TableCell(formatting.UNDEFINED if of else formatting.NOTHING))
    else:
      span = formatting.typographic(formatting.points_span(of.interval, digits))
      small = tuple(filter(None, (span, f'p {formatting.p_value(of.p)}')))
      cells.append(TableCell(formatting.typographic(formatting.points(of.value, digits)), small))
  cells += [_discordant(of) for of in (comparison.attacks, comparison.bona_fide)]
  pair = f'{formatting.display_name(comparison.b)} against {formatting.display_name(comparison.a)}'
  return TableRow(pair, cells)


def _discordant(of: Discordant | None) -> TableCell:
  """'12 : 3' and the p value of McNemar's test."""
  if of is None:
    return TableCell(formatting.NOTHING)
  counts = f'{of.only_b_correct} : {of.only_a_correct}'
  return TableCell(counts, (f'p {formatting.p_value(of.p)}',))


def _sensors(result: EvaluationResult) -> Table:
  rows = []
  for sensor in result.sensors:
    before, after = formatting.display_name(sensor.before), formatting.display_name(sensor.after)
    for gain in sensor.gains:
      left = gain.errors_before - gain.fixed + gain.regressed
      counts = (gain.n, gain.errors_before, gain.fixed, gain.regressed, left)
      kind = formatting.short(gain.kind, formatting.LONGEST)
      cells = [TableCell(kind, kind='text'), *(TableCell(str(n)) for n in counts)]
      rows.append(TableRow(f'{before} \N{RIGHTWARDS ARROW} {after}', cells))
  columns = ['From, to', 'Attack', 'n', 'Errors before', 'Fixed', 'New errors', 'Errors after']
  return Table('Effect of one more sensor, in samples', columns, rows)


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
      ('Images', 'RENDERED' if scores.rendered else 'not stated whether photographs or rendered'),
      ('Data sets', ', '.join(sorted(set(scores.dataset.tolist()) - {''})) or unknown),
    ],
    config
    if isinstance(config, str)
    else json.dumps(config, indent=2, sort_keys=True, default=str),
  )


def _groups(result: EvaluationResult) -> list[Table]:
  """Rates and gaps by group, a table for each column that samples are grouped by."""
  digits, rows, names = formatting.digits_of(result), {}, {}
  for key, gaps in result.gaps.items():
    subset, _, column = key.rpartition(', ')
    for gap in gaps:
      cell_of = {}
      for group in gap.groups:
        names.setdefault(column, {})[group.name] = None
        cell_of[group.name] = (
          TableCell(formatting.too_small(group.count), kind='number none')
          if group.insufficient_samples
          else _shown(
            Cell(
              formatting.percent(group.count.rate, digits),
              True,
              formatting.span(group.bootstrap, digits),
              formatting.span(group.exact, digits),
            )
          )
        )
      span = formatting.span(gap.interval, digits)
      value = TableCell(formatting.percent(gap.value, digits), (span,) if span else ())
      rows.setdefault(column, []).append((subset, gap.rate.upper(), value, cell_of))
  few = f'{intervals.MIN_SAMPLES} samples and {intervals.MIN_SUBJECTS} subjects or more'
  return [
    Table(
      f'Gaps by {column}, in percentage points: simultaneous 95 % intervals, of groups of {few}',
      ['Subset', 'Rate', 'Largest gap', *names[column]],
      [
        TableRow(
          formatting.display_name(subset),
          [
            TableCell(rate),
            gap,
            *(cell_of.get(name, TableCell(formatting.NOTHING)) for name in names[column]),
          ],
        )
        for subset, rate, gap, cell_of in of
      ],
    )
    for column, of in rows.items()
  ]


def _sheet(result: EvaluationResult) -> list[tuple[str, str]]:
  """(what it is, id) of the first bona fide sample and the first of every PAI species."""
  scores = result.scores
  category, species = results.attack_kinds(scores)
  kinds = species or category
  found = [('bona fide', id_) for id_ in scores.ids[scores.label == 1][:1].tolist()]
  for i, name in enumerate(kinds.names if kinds else ()):
    ids = scores.ids[(scores.label == 0) & (kinds.index == i)][:1].tolist()
    found += [(name or metrics.UNKNOWN, id_) for id_ in ids]
  return found


def _images(
  result: EvaluationResult, best: Sequence[str], ids: Sequence[str], find
) -> Mapping[str, Sequence[thumbnails.Thumbnail]]:
  """The thumbnails of some ids, and of the worst errors of the best-informed subsets."""
  if find is None:
    return {}
  of_best = [result.mistakes[subset] for subset in best]
  worst = [m.id for both in of_best for some in both for m in some]
  wanted = list(dict.fromkeys([*worst, *ids]))
  found = find(result.name, wanted) if wanted else {}
  return {id_: thumbnails.thumbnails(found[id_]) for id_ in wanted if id_ in found}
