"""Results and evaluations as tables: for a terminal, as plain text, Markdown and LaTeX."""

import math
from collections.abc import Collection, Mapping, Sequence

from flexfas_jax.evaluation import groups, results, sufficiency
from flexfas_jax.evaluation.evaluate import EvaluationResult
from flexfas_jax.evaluation.metrics import FPRS
from flexfas_jax.evaluation.report import formatting

COLUMNS = {  # heading: metric, in percent
  'ACER': 'acer',
  'APCER': 'apcer',
  'APCER max': 'apcer_max',
  'BPCER': 'bpcer',
  'EER': 'eer',
  'AUC': 'auc',
  **{f'TPR@ FPR={fpr}': f'tpr@fpr={fpr}' for fpr in FPRS},
}
_HEADINGS = {metric: heading for heading, metric in COLUMNS.items()} | {
  'hter_at_test_eer': 'HTER at test EER (ORACLE)',
}
_WITH_INTERVALS = ('acer', 'apcer', 'apcer_max', 'bpcer', 'eer', 'auc')
MARKS = {
  results.ORACLE: 'ORACLE: the thresholds were fitted on the evaluated scores',
  results.RENDERED: 'RENDERED images: no figure is comparable with photographs',
}
_RUNS = 'means over training runs; 95 % intervals over runs and subjects'
_ONE_RUN = 'one run: another training may differ'


def text(
  found: results.Results,
  title: str = '',
  metrics: Sequence[str] = (),
  insufficient: Mapping[str, Collection[str]] | None = None,
) -> str:
  """The benchmark's table, and APCER by category, as plain lines of text, in percent.

  Args:
    found: as `results.compute` gives them.
    title: what was evaluated, and how.
    metrics: names of the columns, in place of the usual ones.
    insufficient: by subset, the metrics that are not stated, from `sufficiency`; None: by the
      numbers of samples alone.
  """
  columns = {_HEADINGS.get(name, name.upper()): name for name in metrics} or COLUMNS
  if insufficient is None:
    insufficient = sufficiency.insufficient_by_counts(found)
  blocks = [_title(found, title), aligned(_rows(found, columns, insufficient))]
  if rows := _category_rows(found, insufficient):
    blocks += ['', 'APCER by attack category', aligned(rows)]
  return '\n'.join(block for i, block in enumerate(blocks) if block or i)


def drawn(
  found: results.Results,
  title: str = '',
  insufficient: Mapping[str, Collection[str]] | None = None,
) -> list:
  """The same as a list of `rich.table.Table`, for a terminal."""
  if insufficient is None:
    insufficient = sufficiency.insufficient_by_counts(found)
  tables = [_rich_table(_rows(found, COLUMNS, insufficient), _title(found, title))]
  if rows := _category_rows(found, insufficient):
    tables.append(_rich_table(rows, _title(found, 'APCER by attack category')))
  return tables


def interval_text(result: EvaluationResult) -> str:
  """The main rates with their 95 % intervals, and the comparisons, as plain lines of text."""
  lines = ['', _whose(result), aligned(_interval_rows(result))]
  if result.run_means:
    lines += ['', _RUNS, aligned(_run_rows(result))]
  if result.comparisons:
    lines += ['', 'compared on the same samples', *map(formatting.sentence, result.comparisons)]
  for place, gaps in result.gaps.items():
    subset, _, column = place.rpartition(', ')
    lines += ['', f'by {column}, {formatting.display_name(subset)}', aligned(_gap_rows(gaps))]
  return '\n'.join(lines)


def interval_tables(result: EvaluationResult) -> list:
  """The same as `rich` tables and lines of text, for a terminal."""
  tables = [_rich_table(_interval_rows(result), _whose(result))]
  if result.run_means:
    tables.append(_rich_table(_run_rows(result), _RUNS))
  if result.comparisons:
    tables.append(
      '\n'.join(['compared on the same samples', *map(formatting.sentence, result.comparisons)])
    )
  for place, gaps in result.gaps.items():
    subset, _, column = place.rpartition(', ')
    tables.append(_rich_table(_gap_rows(gaps), f'by {column}, {formatting.display_name(subset)}'))
  return tables


def reference_text(
  references: Mapping[str, Mapping[str, float]], insufficient: Mapping[str, Collection[str]]
) -> str:
  """The metrics as the reference code defines them (`reference_metrics.py`), in percent.

  Args:
    references: by subset.
    insufficient: by subset, the metrics that are not stated, see `sufficiency`.
  """
  names = list(next(iter(references.values())))
  rows = [['as the references count', *map(formatting.display_name, references)]]
  for name in names:
    raw = 'threshold' in name
    own = name.rpartition('/')[2]
    metric = own if own in ('apcer', 'bpcer') else 'acer'  # which needs both classes, as others do
    values = [(of[name], metric in insufficient.get(s, ())) for s, of in references.items()]
    rows.append(
      [name, *(f'{x:.6g}' if raw else formatting.rate_or_reason(x, True, few) for x, few in values)]
    )
  return aligned(rows)


def markdown(evaluations: Sequence[EvaluationResult]) -> str:
  """Tables for a paper or an issue, as GitHub reads them, intervals in brackets."""
  blocks = []
  for one in evaluations:
    blocks += [f'> **{escaped_md(line)}**' for line in banner(one)]
    if one.requirement:
      first, *reasons = (escaped_md(line.strip()) for line in formatting.verdict_lines(one))
      blocks.append('\n'.join([f'**{first}**', '', *(f'- {line}' for line in reasons)]))
    blocks.append(f'**{escaped_md(_caption(one))}**')
    for rows in _paper_rows(one):
      cells = [[escaped_md(cell) for cell in row] for row in _printable(rows)]
      head, *body = cells
      rule = ['---', *['---:'] * (len(head) - 1)]
      blocks.append('\n'.join('| ' + ' | '.join(row) + ' |' for row in (head, rule, *body)))
  return '\n\n'.join(blocks) + '\n'


def latex(evaluations: Sequence[EvaluationResult]) -> str:
  """The same for a LaTeX paper that loads booktabs."""
  blocks = []
  for one in evaluations:
    verdict = ' '.join(f'{line.strip()}.' for line in formatting.verdict_lines(one))
    caption = f'{verdict} {_caption(one)}'.strip()
    for rows in _paper_rows(one):
      head, *body = [[escaped_tex(cell) for cell in row] for row in _printable(rows)]
      lines = [' & '.join(row) + r' \\' for row in (head, *body)]
      blocks.append(
        '\n'.join(
          [
            r'\begin{table}',
            r'\centering',
            rf'\caption{{{escaped_tex(caption)}}}',
            r'\begin{tabular}{l' + 'r' * (len(head) - 1) + '}',
            r'\toprule',
            lines[0],
            r'\midrule',
            *lines[1:],
            r'\bottomrule',
            r'\end{tabular}',
            r'\end{table}',
          ]
        )
      )
  return '\n\n'.join(blocks) + '\n'


def _caption(one: EvaluationResult) -> str:
  n = (
    f'{int((one.scores.label == 1).sum())} bona fide, {int((one.scores.label == 0).sum())} attacks'
  )
  fitted = f'threshold {one.rule}' + (f' on {one.dev.path}' if one.dev and one.dev.path else '')
  caption = f'{one.name}: {n}; {fitted}; percent. {_whose(one)}.'
  return ' '.join([caption, *(f'{line.rstrip(".")}.' for line in banner(one))])


def banner(one: EvaluationResult) -> list[str]:
  """What limits every figure of a test, first of all: its marks, and the warnings of its data."""
  return [*_marks(one.metrics), *one.warnings]


def _whose(one: EvaluationResult) -> str:
  whose = '95 % intervals: Clopper-Pearson over samples (ACER: approximate, from its two rates)'
  if one.clusters:
    whose = f'95 % intervals: bootstrap over {one.clusters.n} {one.clusters.unit}'
  return f'{whose}; {_ONE_RUN}' if one.one_run else f'{whose}, of each run'


def _paper_rows(one: EvaluationResult) -> list[list[list[str]]]:
  """Tables as rows: the main rates, and APCER by kind of attack."""
  tables = [_interval_rows(one), *([_run_rows(one)] if one.run_means else [])]
  for prefix in ('apcer/', 'apcer_species/'):
    names = sorted({n for of in one.estimates.values() for n in of if n.startswith(prefix)})
    if not names:
      continue
    rows = [
      [
        'attack' if prefix == 'apcer/' else 'PAI species',
        'n',
        *map(formatting.display_name, one.served),
      ]
    ]
    for name in names:
      of = [one.estimates[s].get(name) for s in one.served]
      n = next(e.count.n for e in of if e)
      rows.append([name.removeprefix(prefix), str(n), *map(formatting.with_interval, of)])
    tables.append(rows)
  return tables


def _interval_rows(one: EvaluationResult) -> list[list[str]]:
  rows = [['subset', *(_HEADINGS[name] for name in _WITH_INTERVALS)]]
  for subset in one.metrics:
    if subset not in one.estimates:
      rows.append([_without_figures(subset, one.metrics[subset]), *['-'] * len(_WITH_INTERVALS)])
      continue
    of = one.estimates[subset]
    rows.append(
      [
        formatting.display_name(subset),
        *(formatting.with_interval(of[name]) for name in _WITH_INTERVALS),
      ]
    )
  return rows


def _run_rows(one: EvaluationResult) -> list[list[str]]:
  """Methods with several training runs."""
  names = [_HEADINGS[name] for name in _WITH_INTERVALS]
  rows = [['mean of', 'runs', names[0], f'sd of {names[0]}', *names[1:]]]
  for method, of in one.run_means.items():
    acer, *cells = (formatting.with_run_interval(of.get(name)) for name in _WITH_INTERVALS)
    deviation = formatting.UNDEFINED
    if 'acer' in of and not of['acer'].insufficient_samples:
      deviation = formatting.percent(of['acer'].deviation, formatting.TABLE_DIGITS)
    n = len(one.runs[method])
    rows.append([formatting.display_name(method), str(n), acer, deviation, *cells])
  return rows


def _gap_rows(gaps: Sequence[groups.Gap]) -> list[list[str]]:
  names = [group.name for group in max(gaps, key=lambda gap: len(gap.groups)).groups]
  rows = [['rate', *names, 'gap']]
  for gap in gaps:
    group_of = {group.name: group for group in gap.groups}
    cells = [
      formatting.with_interval(group_of[name]) if name in group_of else '-' for name in names
    ]
    span = formatting.span(gap.interval, formatting.TABLE_DIGITS)
    cells.append(f'{formatting.percent(gap.value, formatting.TABLE_DIGITS)} {span}'.rstrip())
    rows.append([gap.rate.upper(), *cells])
  return rows


def _title(found: results.Results, title: str) -> str:
  marks = '; '.join(_marks(found))
  return f'{title} ({marks})' if title and marks else title or marks


def _marks(found: results.Results) -> list[str]:
  """What every table of these results states."""
  return [text for mark, text in MARKS.items() if any(mark in values for values in found.values())]


def _rows(found: results.Results, columns: Mapping[str, str], insufficient) -> list[list[str]]:
  """The benchmark's table as text, the headings first."""
  rows = [['subset', *columns, 'threshold', 'bona fide', 'attack', 'FTA']]
  for subset, values in found.items():
    served = results.is_served(values)
    few = insufficient.get(subset, ())
    rates = [
      formatting.rate_or_reason(values[metric], served, metric in few)
      for metric in columns.values()
    ]
    threshold = f'{values["threshold"]:.6g}' if served else '-'
    counts = [str(values[name]) for name in ('n_bona_fide', 'n_attack')]
    # What is not recorded is no failure to acquire.
    counts.append('-' if results.NOT_RECORDED in values else str(values['n_fta']))
    name = formatting.display_name(subset) if served else _without_figures(subset, values)
    rows.append([name, *rates, threshold, *counts])
  return rows


def _without_figures(subset: str, values: Mapping) -> str:
  return f'{formatting.display_name(subset)} ({formatting.why_no_figures(values)})'


def _category_rows(found: results.Results, insufficient) -> list[list[str]]:
  """APCER by category and subset as text, the headings first; [] where no category is known."""
  prefix = 'apcer/'
  names = sorted({name for values in found.values() for name in values if name.startswith(prefix)})
  rows = []
  for name in names:
    kind = name.removeprefix(prefix)
    n = max(values.get(f'n_attack/{kind}', 0) for values in found.values())
    cells = []
    for subset, values in found.items():
      few = name in insufficient.get(subset, ())
      rate = values.get(name, math.nan)
      cells.append(formatting.rate_or_reason(rate, results.is_served(values), few))
    rows.append([formatting.short(kind, formatting.LONGEST), str(n), *cells])
  return [['attack', 'n', *map(formatting.display_name, found)], *rows] if rows else []


def _printable(rows: list[list[str]]) -> list[list[str]]:
  """Names come from files: a terminal must not obey them."""
  return [[formatting.printable(cell).replace('\n', '?') for cell in row] for row in rows]


def escaped_md(cell: str) -> str:
  """A text of which Markdown interprets nothing."""
  return ''.join('\\' + c if c in '\\|*_`<>[]' else c for c in cell)


_TEX = {c: '\\' + c for c in '&%$#_{}'} | {
  '\\': r'\textbackslash{}',
  '~': r'\textasciitilde{}',
  '^': r'\textasciicircum{}',
  '<': r'\textless{}',
  '>': r'\textgreater{}',
}


def escaped_tex(cell: str) -> str:
  """A text of which LaTeX interprets nothing."""
  return ''.join(_TEX.get(c, c) for c in cell)


def aligned(rows: list[list[str]]) -> str:
  """Columns of text, the first to the left and the numbers to the right."""
  rows = _printable(rows)
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = []
  for first, *others in rows:
    cells = [first.ljust(widths[0])]
    cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
    lines.append('  '.join(cells))
  return '\n'.join(lines)


def _rich_table(rows: list[list[str]], title: str):
  # Only tables need rich, and its import is slow.
  from rich.box import SIMPLE_HEAD
  from rich.table import Table
  from rich.text import Text

  headings, *rows = _printable(rows)
  drawn = Table(title=Text(title) if title else None, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
  for heading, *cells in zip(headings, *rows, strict=True):
    # A heading may break between words to fit a narrow terminal, a number never.
    width = max(map(len, [*heading.split(), *cells]), default=0)
    drawn.add_column(Text(heading), justify='right' if drawn.columns else 'left', min_width=width)
  for row in rows:
    drawn.add_row(*map(Text, row))
  return drawn
