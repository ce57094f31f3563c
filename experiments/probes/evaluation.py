"""Error rates of the probes with intervals over subjects, as rows of a table."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from experiments.probes.samples import Samples
from flexfas_jax.evaluation import evaluate, score_files, thresholds

HALF = 'fixed=0.5'
# Metrics of a row, with the name of their column: {column: (metric, at 0.5 instead of from val)}.
METRICS = {'acer': ('acer', False), 'acer_at_half': ('acer', True), 'auc': ('auc', False)}
COLUMNS = (
  *('probe', 'modalities', 'test', 'setting', 'tried', 'rule'),
  *(name for column in METRICS for name in (column, f'{column}_low', f'{column}_high')),
)


def evaluate_probe(
  probe: str,
  fits: Mapping,
  samples: Mapping[str, Samples],
  rules: Mapping[str, str],
  draws: int | None = None,
) -> list[dict]:
  """Rows with `COLUMNS`, one per test and subset of the modalities; rates in 0 to 1.

  Args:
    probe: its name.
    fits: {subset: `classifiers.Fit`}.
    samples: {'val' or a test: its samples}.
    rules: {test: rule of the threshold in its protocol}. One without val becomes `dev_eer`.
    draws: of the bootstrap, as in `evaluate.evaluate`.
  """
  scores = {name: _scores(fits, name, of) for name, of in samples.items() if name != 'train'}
  rows = []
  for test, rule in rules.items():
    rule = rule if thresholds.needs_dev(rule) else 'dev_eer'
    from_val = evaluate.evaluate(test, scores[test], rule, scores['val'], draws=draws)
    at_half = evaluate.evaluate(test, scores[test], HALF, draws=draws)
    for subset, fit in fits.items():
      row = {'probe': probe, 'modalities': subset, 'test': test}
      row |= {'setting': fit.setting, 'tried': fit.tried, 'rule': rule}
      for column, (metric, half) in METRICS.items():
        estimate = (at_half if half else from_val).estimates[subset][metric]
        row |= {column: estimate.value, f'{column}_low': estimate.bootstrap.low}
        row |= {f'{column}_high': estimate.bootstrap.high}
      rows.append(row)
  return rows


def _scores(fits: Mapping, name: str, samples: Samples) -> score_files.Scores:
  """Logits of each subset; NaN where a sample has none of its modalities."""
  columns = dict(samples.columns)
  return score_files.Scores(
    ids=columns.pop('id'),
    label=samples.label,
    scores={
      subset: np.where(
        np.any([samples.acquired[m] for m in subset.split('+')], 0), fit.logits[name], np.nan
      )
      for subset, fit in fits.items()
    },
    scale='logit',
    **columns,
  )


def best(rows: Sequence[Mapping], test: str, sensors: str, column: str = 'acer') -> Mapping:
  """The row of the lowest rate in a test, of all probes that use no other sensors than these.

  The test itself selects it: a lower bound of what trivial cues reach, not an estimate.
  """
  within = set(sensors.split('+'))
  usable = [r for r in rows if r['test'] == test and set(r['modalities'].split('+')) <= within]
  return min(usable, key=lambda row: float(row[column]))


def tables(rows: Sequence[Mapping], subsets: Sequence[str], rules: Mapping[str, str]) -> str:
  """Markdown: the best probe by test and sensors, then every probe; rates in percent."""
  tests, used = list(rules), {frozenset(row['modalities'].split('+')) for row in rows}
  subsets = [s for s in subsets if any(sensors <= set(s.split('+')) for sensors in used)]
  lines = ['Lowest ACER of all probes that use these sensors or some of them:', '']
  lines += _head(['test', 'threshold', *subsets], 2)
  for test in tests:
    for column, name in (('acer', 'val'), ('acer_at_half', '0.5')):
      found = [best(rows, test, subset, column) for subset in subsets]
      cells = [f'{_percent(r, column)} ({r["probe"]}, {r["modalities"]})' for r in found]
      lines.append(_line([test, name, *cells]))
  measures: dict[str, Callable] = {
    'ACER': lambda row: _with_interval(row, 'acer'),
    'at 0.5': lambda row: _with_interval(row, 'acer_at_half'),
    'AUC': lambda row: _percent(row, 'auc'),
  }
  lines += ['', 'Every probe:', '']
  lines += _head(
    ['probe', 'modalities', *(f'{test}, {name}' for test in tests for name in measures)], 2
  )
  at = {(r['probe'], r['modalities'], r['test']): r for r in rows}
  for probe, modalities in dict.fromkeys((r['probe'], r['modalities']) for r in rows):
    cells = [
      measure(at[probe, modalities, test]) for test in tests for measure in measures.values()
    ]
    lines.append(_line([probe, modalities, *cells]))
  return '\n'.join(lines)


def _head(names: Sequence[str], texts: int) -> list[str]:
  return [_line(names), _line(['---'] * texts + ['---:'] * (len(names) - texts))]


def _line(cells: Sequence[str]) -> str:
  return f'| {" | ".join(cells)} |'


def _percent(row: Mapping, column: str) -> str:
  return f'{100 * float(row[column]):.1f}'


def _with_interval(row: Mapping, column: str) -> str:
  low, high = _percent(row, f'{column}_low'), _percent(row, f'{column}_high')
  return f'{_percent(row, column)} [{low}, {high}]'
