"""A leaderboard as text, Markdown, LaTeX and CSV; rows for the tables of papers."""

import csv
import io
import math
from collections.abc import Sequence

from flexfas_jax.evaluation import metrics, oracle, results, trained_runs
from flexfas_jax.evaluation.leaderboard import Block, Figure, Leaderboard
from flexfas_jax.evaluation.report import formatting, tables
from flexfas_jax.evaluation.trained_runs import Cost

_DIGITS = formatting.TABLE_DIGITS
_COSTS = {  # heading: (field, unit, digits)
  'trained M': ('trained_parameters', 1e6, 2),
  'parameters M': ('parameters', 1e6, 2),
  'TFLOP/step': ('flops', 1e12, 3),
  's/step': ('step_seconds', 1.0, 3),
}
_CSV = (
  *('method', 'runs', 'protocol', 'test', 'subset', 'unit', 'threshold', 'metric', 'value', 'low'),
  *('high', 'deviation', 'rank', 'rank_low', 'rank_high', *Cost._fields, 'marks'),
)


def title(board: Leaderboard) -> str:
  """What is compared, and marks that every table states."""
  tests = len({block.test for block in board.blocks})
  name = metrics.BY_NAME[board.metric].title
  text = (
    f'{name}, percent: {_count(len(board.methods), "method")}, {_count(board.n_runs, "run")}, '
    f'{_count(tests, "test")}, {_count(len(board.common), "block")} in the means, '
    f'{"videos" if board.by_video else "frames"}'
  )
  return ' '.join([text, *(f'({mark})' for mark in _marks(board).values())])


def text(board: Leaderboard) -> str:
  """All tables as plain lines of text."""
  blocks = [title(board)]
  for heading, rows in _tables(board):
    blocks += ['', heading, tables.aligned(rows)]
  return '\n'.join([*blocks, '', *_rank_lines(board)])


def markdown(board: Leaderboard) -> str:
  """All tables, as GitHub reads them."""
  blocks = [f'**{tables.escaped_md(title(board))}**']
  for heading, rows in _tables(board):
    cells = [[tables.escaped_md(formatting.printable(cell)) for cell in row] for row in rows]
    rule = ['---', *['---:'] * (len(rows[0]) - 1)]
    lines = ['| ' + ' | '.join(row) + ' |' for row in (cells[0], rule, *cells[1:])]
    blocks += [heading, '\n'.join(lines)]
  blocks += [tables.escaped_md(line) for line in (*_rank_lines(board), *board.notes)]
  return '\n\n'.join(blocks) + '\n'


def latex(board: Leaderboard) -> str:
  """All tables, for a LaTeX paper that loads booktabs."""
  found = []
  for heading, rows in _tables(board):
    head, *body = (
      ' & '.join(tables.escaped_tex(formatting.printable(cell)) for cell in row) + r' \\'
      for row in rows
    )
    found.append(
      '\n'.join(
        [
          r'\begin{table}',
          r'\centering',
          rf'\caption{{{tables.escaped_tex(f"{heading}. {title(board)}")}}}',
          r'\begin{tabular}{l' + 'r' * (len(rows[0]) - 1) + '}',
          *(r'\toprule', head, r'\midrule', *body, r'\bottomrule', r'\end{tabular}'),
          r'\end{table}',
        ]
      )
    )
  notes = [f'% {formatting.printable(line)}' for line in (*_rank_lines(board), *board.notes)]
  return '\n\n'.join([*found, '\n'.join(notes)]) + '\n'


def latex_rows(board: Leaderboard) -> str:
  """Rows for each method, to be put under a published table: HTER and AUC of every block.

  The second row has the literature's HTER, whose threshold comes from the test. Runs with
  `--oracle` have a third one, with the least of all evaluations of the test, as papers select their
  epoch. Each row states what differs from the published ones; comments list the columns and the
  details.
  """
  columns = [str(block) for block in board.common] + (['mean'] if len(board.common) > 1 else [])
  lines = [f'% HTER and AUC, percent, of: {"; ".join(columns)}', *_differences(board)]
  shown = [f'{" and ".join(rows)} rows'] if (rows := _mmdg_rows(board)) else []
  shown += ['videos'] if board.by_video else []
  shown += [results.RENDERED] if board.rendered else []
  rules = ', '.join(sorted(set(board.rules.values())))
  for method in board.methods:
    for differs, hter in ((rules, 'hter'), (results.ORACLE, 'hter_at_test_eer')):
      name = f'{method.name} ({", ".join([*shown, differs])})'
      figures = [board.figures[method.name][block] for block in board.common]
      figures += [board.means[method.name]] if len(board.common) > 1 else []
      cells = [_percent(of[metric]) for of in figures for metric in (hter, 'auc')]
      row = [tables.escaped_tex(formatting.printable(name)), *cells]
      lines.append(' & '.join(row) + r' \\')
    if not board.by_video and (least := _least(method, board.common)):
      values, n = least
      values += [sum(values) / len(values)] if len(values) > 1 else []
      name = f'{method.name} ({", ".join([*shown, results.ORACLE, f"least of {n} evaluations"])})'
      cells = [cell for value in values for cell in (f'{100 * value:.2f}', '-')]
      row = [tables.escaped_tex(formatting.printable(name)), *cells]
      lines.append(' & '.join(row) + r' \\')
  return '\n'.join(lines) + '\n'


def _least(method: trained_runs.Method, blocks: Sequence[Block]) -> tuple[list[float], str] | None:
  """(ORACLE HTER of each block, a mean over the runs; number of evaluations); None if any lacks."""
  values, numbers = [], set()
  for block in blocks:
    runs = method.runs.get(block.test.protocol, ())
    found = [run.least.get((block.test.name, block.subset)) for run in runs]
    if not found or None in found:
      return None
    values.append(sum(each[oracle.LEAST] for each in found) / len(found))
    numbers |= {f'{each[oracle.EVALUATIONS]:.0f}' for each in found}
  return values, ' or '.join(sorted(numbers)) if values else None


def _differences(board: Leaderboard) -> list[str]:
  """Comments on what differs from the published rows."""
  rules = ', '.join(sorted(set(board.rules.values())))
  unit = f'videos ({board.by_video} of their frames)' if board.by_video else 'frames'
  runs = sorted({method.n_runs for method in board.methods})
  lines = [
    f'% {rules}: the threshold, of val where it is fitted; {unit}; the checkpoint is chosen on '
    f'val; runs of each method: {", ".join(map(str, runs))}.',
    '% ORACLE: the same scores with the threshold at the EER of the test, as published tables '
    'count HTER; these also choose the epoch on the test.',
  ]
  if 'cleaned' in _mmdg_rows(board):
    lines.append('% Cleaned rows: the published tables rest on the protocols with rows=published.')
  absent = dict.fromkeys(
    f'{method.name}: {kind}'
    for method in board.methods
    for run in method.all_runs
    if (kind := (run.config.get('model') or {}).get('absent'))
  )
  if absent:
    lines.append(f'% A missing sensor is replaced (config.model.absent): {", ".join(absent)}.')
  lines += [f'% {mark}' for name, mark in _marks(board).items() if name == results.RENDERED]
  return lines


def _mmdg_rows(board: Leaderboard) -> list[str]:
  """The rows of MMDG's protocols, 'cleaned' or 'published'; [] of others."""
  protocols = {block.test.protocol for block in board.blocks}
  return sorted(
    {'published' if 'rows=published' in p else 'cleaned' for p in protocols if p[:5] == 'mmdg_'}
  )


def csv_text(board: Leaderboard) -> str:
  """A row for each method, block and metric; those of the means have no test."""
  out = io.StringIO()
  writer = csv.DictWriter(out, _CSV, lineterminator='\n')
  writer.writeheader()
  marks = ' '.join(_marks(board))
  for method in board.methods:
    fixed = {'method': method.name, 'runs': method.n_runs}
    fixed['unit'] = 'video' if board.by_video else 'frame'

    def write(metric: str, figure: Figure, fixed=fixed, **more) -> None:
      more['marks'] = marks
      if metrics.BY_NAME[metric].oracle and results.ORACLE not in marks:
        more['marks'] = f'{results.ORACLE} {marks}'.strip()
      low, high = figure.interval
      values = {'value': figure.value, 'low': low, 'high': high, 'deviation': figure.deviation}
      numbers = {name: '' if math.isnan(x) else repr(x) for name, x in values.items()}
      writer.writerow({**fixed, 'metric': metric, **numbers, **more})

    for block, of in board.figures[method.name].items():
      if block in board.insufficient:
        continue
      place = {'protocol': block.test.protocol, 'test': block.test.name, 'subset': block.subset}
      for metric, figure in of.items():
        write(metric, figure, threshold=board.rules[block.test], **place)
    costs = {k: '' if math.isnan(v) else f'{v:.6g}' for k, v in method.cost._asdict().items()}
    for metric, figure in board.means.get(method.name, {}).items():
      more = dict(costs)
      if board.ranks and metric == board.metric:
        low, high = board.ranks.interval[method.name]
        more |= {'rank': board.ranks.mean[method.name], 'rank_low': low, 'rank_high': high}
      write(metric, figure, **more)
  return out.getvalue()


def _marks(board: Leaderboard) -> dict[str, str]:
  found = {}
  if board.oracle:
    found[results.ORACLE] = tables.MARKS[results.ORACLE]
  if board.rendered:
    found[results.RENDERED] = tables.MARKS[results.RENDERED]
  return found


def _tables(board: Leaderboard) -> list[tuple[str, list[list[str]]]]:
  """(what a table has, its rows, the headings first)."""
  named = [
    (f'methods; 95 % intervals over runs and {board.unit} ({board.n_units})', _board_rows(board)),
    ('by test and subset', _block_rows(board)),
    ('means over the tests, by subset', _subset_rows(board)),
    ('pairs: differences of the means, in points, corrected by Holm', _pair_rows(board)),
  ]
  return [(heading, rows) for heading, rows in named if len(rows) > 1]


def _board_rows(board: Leaderboard) -> list[list[str]]:
  costs = {
    heading: field
    for heading, field in _COSTS.items()
    if any(not math.isnan(getattr(method.cost, field[0])) for method in board.methods)
  }
  name = _heading(board.metric)
  others = [m for m in ('auc',) if m != board.metric]
  rows = [['method', 'runs', name, f'sd of {name}', 'rank', *map(_heading, others), *costs]]
  for method in board.methods:
    of = board.means.get(method.name, {})
    main = of.get(board.metric)
    deviation = '-' if main is None or math.isnan(main.deviation) else _points(main.deviation)
    cells = [method.name, str(method.n_runs), _with_interval(main), deviation]
    cells.append(_rank(board, method.name))
    cells += [_with_interval(of.get(metric)) for metric in others]
    for field, unit, digits in costs.values():
      value = getattr(method.cost, field)
      cells.append('-' if math.isnan(value) else f'{value / unit:.{digits}f}')
    rows.append(cells)
  return rows


def _rank(board: Leaderboard, name: str) -> str:
  if board.ranks is None:
    return '-'
  low, high = board.ranks.interval[name]
  span = '' if math.isnan(low) else f' [{low:.2f}, {high:.2f}]'
  return f'{board.ranks.mean[name]:.2f}{span}'


def _block_rows(board: Leaderboard) -> list[list[str]]:
  names = [method.name for method in board.methods]
  rows = [['test, subset', 'bona fide', 'attack', *names]]
  for block in board.blocks:
    counts = map(str, board.counts[block.test])
    rows.append([str(block), *counts, *(_block_cell(board, name, block) for name in names)])
  return rows


def _block_cell(board: Leaderboard, name: str, block: Block) -> str:
  if block not in board.figures[name]:
    return '-'
  if block in board.insufficient:
    return formatting.TOO_SMALL
  return _with_interval(board.figures[name][block][board.metric])


def _subset_rows(board: Leaderboard) -> list[list[str]]:
  names = [method.name for method in board.methods]
  return [
    ['subset', *names],
    *(
      [subset, *(_with_interval(of[name][board.metric]) for name in names)]
      for subset, of in board.by_subset.items()
    ),
  ]


def _pair_rows(board: Leaderboard) -> list[list[str]]:
  rows = [['method against method', 'difference', 'p', 'Holm p', 'verdict']]
  for pair in board.pairs:
    span = formatting.points_span(pair.interval, _DIGITS)
    change = f'{formatting.points(pair.value, _DIGITS)} {span}'.rstrip()
    ps = [formatting.p_value(p) for p in (pair.p, pair.p_holm)]
    rows.append([f'{pair.b} against {pair.a}', change, *ps, pair.verdict])
  return rows


def _rank_lines(board: Leaderboard) -> list[str]:
  ranks, n = board.ranks, len(board.common)
  if ranks is None or math.isnan(ranks.critical_difference):
    return []
  return [
    f"Ranks over {n} blocks: Friedman's test (Iman and Davenport) p "
    f"{formatting.p_value(ranks.friedman_p)}; Nemenyi's critical difference at 0.05 is "
    f'{ranks.critical_difference:.2f} (Demsar, JMLR 2006). Both take blocks to be independent; '
    'subsets of one test are not, and the intervals of the ranks (bootstrap over runs and '
    f'{board.unit}) account for it.'
  ]


def _heading(metric: str) -> str:
  return metrics.BY_NAME[metric].title


def _with_interval(figure: Figure | None) -> str:
  if figure is None:
    return '-'
  return f'{_percent(figure)} {formatting.span(figure.interval, _DIGITS)}'.rstrip()


def _percent(figure: Figure) -> str:
  return formatting.percent(figure.value, _DIGITS)


def _points(value: float) -> str:
  return f'{100 * value:.{_DIGITS}f}'


def _count(n: int, what: str) -> str:
  return f'{n} {what}{"" if n == 1 else "s"}'
