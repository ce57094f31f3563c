"""The figures of one test, ready for the page.

`curves` has those that depend on the threshold, `charts` the rates by attack, subset and group.
"""

import dataclasses

from flexfas_jax.evaluation.evaluate import EvaluationResult
from flexfas_jax.evaluation.report import charts, curves
from flexfas_jax.evaluation.report.svg import Drawing


@dataclasses.dataclass(frozen=True)
class Figures:
  """What can be drawn of a test; None and () where it cannot."""

  det: Drawing | None = None
  roc: Drawing | None = None
  histograms: tuple[Drawing, ...] = ()
  species: Drawing | None = None
  matrix: Drawing | None = None
  sensors: tuple[Drawing, ...] = ()
  groups: tuple[Drawing, ...] = ()


def figures(result: EvaluationResult, salt: str) -> Figures:
  """Draws a test.

  Args:
    result: the test's.
    salt: distinct for every test of a page; letters, digits and hyphens.

  Returns:
    `Figures`.
  """
  if not result.served:
    return Figures()
  points = curves.curves(result)
  return Figures(
    det=curves.det(result, points, f'{salt}-det') if points else None,
    roc=curves.roc(result, points, f'{salt}-roc') if points else None,
    histograms=tuple(
      curves.histogram(result, subset, f'{salt}-histogram-{i}')
      for i, subset in enumerate(result.served)
    ),
    species=charts.species_dots(result, f'{salt}-species'),
    matrix=charts.matrix(result, f'{salt}-matrix'),
    sensors=tuple(
      charts.sensor(result, sensor, f'{salt}-sensor-{i}') for i, sensor in enumerate(result.sensors)
    ),
    groups=_groups(result, salt),
  )


def _groups(result: EvaluationResult, salt: str) -> tuple[Drawing, ...]:
  """A figure for each column that subjects are grouped by, and each rate."""
  found = {}  # rows by (column, rate)
  for key, gaps in result.gaps.items():
    subset, _, column = key.rpartition(', ')
    for gap in gaps:
      rows = found.setdefault((column, gap.rate), {})
      for group in gap.groups:
        dot = charts.Dot(group.count, group.exact, group.bootstrap, group.insufficient_samples)
        rows.setdefault(group.name, {})[subset] = dot
  drawn = []
  for i, ((column, rate), rows) in enumerate(found.items()):
    title = f'{rate.upper()} by {column}'
    axis = f'{rate.upper()} (%)'
    drawn.append(charts.dots(result, 'group', f'{salt}-group-{i}', title, axis, rows))
  return tuple(drawing for drawing in drawn if drawing)
