"""ORACLE figures, selected on the test (`--oracle`): what tables of best epochs hold.

Papers that select their epoch on the test print the least HTER of all epochs. With `--oracle=TEST`
a run scores that test whenever it scores val, into `metrics.jsonl`. The results then have the least
value and the number of evaluations it was selected from. Nothing else depends on these scores: the
checkpoint that is evaluated is still the one selected on val.
"""

import math
from collections.abc import Iterable, Mapping

from flexfas_jax.evaluation import results
from flexfas_jax.evaluation.score_files import Scores

METRIC = 'hter_at_test_eer'
LEAST = f'least_{METRIC}'
EVALUATIONS = 'test_evaluations'


def metrics(test: str, scores: Scores) -> dict[str, float]:
  """{'oracle/TEST/SUBSET/hter_at_test_eer': value} of a test's scores at one step."""
  by_subset = results.compute(scores, 'fixed=0.5')
  return {f'oracle/{test}/{subset}/{METRIC}': m[METRIC] for subset, m in by_subset.items()}


def least(rows: Iterable[Mapping]) -> dict[tuple[str, str], dict[str, float]]:
  """The least value of each test and subset over the evaluations of a run.

  Args:
    rows: of its `metrics.jsonl`.

  Returns:
    {(test, subset): {LEAST: value, EVALUATIONS: number}}; {} for a run without `--oracle`.
  """
  values: dict[str, dict[int, float]] = {}  # by name, then by step: a repeated step counts once
  for row in rows:
    for name, value in row.items():
      is_number = isinstance(value, int | float) and math.isfinite(value)
      if name.startswith('oracle/') and name.count('/') == 3 and is_number:
        values.setdefault(name, {})[row.get('step', 0)] = value
  found = {}
  for name, by_step in values.items():
    _, test, subset, _ = name.split('/')
    found[test, subset] = {LEAST: min(by_step.values()), EVALUATIONS: float(len(by_step))}
  return found


def notes(found: Mapping[str, Mapping[str, dict]]) -> list[str]:
  """A line for each test of a run with `--oracle`, in percent."""
  lines = []
  for test, by_subset in found.items():
    values = {s: m for s, m in by_subset.items() if LEAST in m}
    if values:
      n = max(m[EVALUATIONS] for m in values.values())
      shown = ', '.join(f'{s} {100 * m[LEAST]:.2f}' for s, m in values.items())
      lines.append(f'ORACLE: {test}, least HTER at the test EER of {n:.0f} evaluations: {shown}')
  return lines


def add(found: Mapping[str, Mapping[str, dict]], rows: Iterable[Mapping]) -> None:
  """Adds the least values to the results of a run, {test: {subset: metrics}}; see `least`."""
  for (test, subset), values in least(rows).items():
    if subset in found.get(test, {}) and results.NOT_RECORDED not in found[test][subset]:
      found[test][subset].update(values)
