"""Rates by attack, subset and group: dots with intervals, a matrix, and what a sensor stops."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from flexfas_jax.evaluation import intervals
from flexfas_jax.evaluation.comparisons import SensorEffect
from flexfas_jax.evaluation.evaluate import Estimate, EvaluationResult
from flexfas_jax.evaluation.intervals import Interval
from flexfas_jax.evaluation.metrics import Count
from flexfas_jax.evaluation.report import formatting, svg

_HEAT = (0, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)  # the highest rate of each shade but the last
_ROWS = 20  # attacks in a figure
_DARK_FROM = 4  # the shade whose text is in the colour of paper


class Dot(NamedTuple):
  """One rate of one series."""

  count: Count
  exact: Interval
  bootstrap: Interval
  insufficient_samples: bool  # samples or subjects


def species_dots(result: EvaluationResult, salt: str) -> svg.Drawing | None:
  """APCER by PAI species (by category where none is known), all subsets; None without attacks."""
  rows = {}
  for subset in result.served:
    prefix = kind_prefix(result, subset)
    for name, estimate in result.estimates[subset].items():
      if prefix and name.startswith(prefix):
        dot = Dot(estimate.count, estimate.exact, estimate.bootstrap, estimate.insufficient_samples)
        rows.setdefault(name.removeprefix(prefix), {})[subset] = dot
  what = 'PAI species' if kind_prefix(result) == 'apcer_species/' else 'attack'
  stated = {
    name: [dot.count.rate for dot in of.values() if not dot.insufficient_samples]
    for name, of in rows.items()
  }
  shown = _largest(stated)
  title = f'APCER by {what}{_of(shown, rows)}'
  return dots(
    result,
    'species',
    salt,
    title,
    'APCER (%)',
    {name: rows[name] for name in rows if name in shown},
  )


def _largest(stated: Mapping[str, Sequence[float]]) -> set[str]:
  """The attacks of a figure: of many, those with the largest rate that is stated for a subset."""
  return set(sorted(stated, key=lambda name: (-max(stated[name], default=-1.0), name))[:_ROWS])


def _of(shown: Collection[str], rows: Collection[str]) -> str:
  return f', the {len(shown)} largest of {len(rows)}' if len(shown) < len(rows) else ''


def kind_prefix(result: EvaluationResult, subset: str | None = None) -> str:
  """Prefix of the metrics with the finest distinction of attacks; '' where there are none."""
  found = result.estimates[subset or result.served[0]] if result.served else ()
  for prefix in ('apcer_species/', 'apcer/'):
    if any(name.startswith(prefix) for name in found):
      return prefix
  return ''


def dots(
  result: EvaluationResult,
  name: str,
  salt: str,
  title: str,
  axis: str,
  rows: dict[str, dict[str, Dot]],
) -> svg.Drawing | None:
  """Rates as dots with intervals: thin over samples, thick over subjects.

  Args:
    result: whose subsets are drawn.
    name, salt, title: as `svg.draw` has them.
    axis: what is along it.
    rows: by what is beside it, by subset.
  """
  if not rows:
    return None
  subsets, digits = result.served, formatting.digits_of(result)
  each = 15 if len(subsets) > 1 else 22
  row_height = each * len(subsets) + 16
  labels = {row: formatting.short(row) for row in rows}
  left = max(70, *(svg.width_of(text) for text in labels.values())) + 14
  legend = svg.height_of_legend(len(subsets), 4)
  height = legend + row_height * len(rows) + 46
  ends = [
    max(d.exact.high, 0 if math.isnan(d.bootstrap.high) else d.bootstrap.high)
    for of in rows.values()
    for d in of.values()
    if not d.insufficient_samples
  ]
  high = max(ends, default=0.1)
  high = min(1.0, max(0.02, 1.05 * high))

  def paint(figure):
    axes = svg.axes(figure, left, 44, 24, legend)
    axes.set_xlim(0, 100 * high)
    axes.set_ylim(len(rows), 0)
    axes.set_yticks([])
    axes.spines['left'].set_visible(False)
    axes.grid(True, axis='x')
    axes.set_xlabel(axis)
    for k, (row, of) in enumerate(rows.items()):
      if k:
        axes.axhline(k, color=svg.RULE, linewidth=1)
      n = max(dot.count.n for dot in of.values())
      for text, down, style in (
        (labels[row], 7, {}),
        (f'n {n}', -8, {'color': svg.MUTED, 'fontsize': 11}),
      ):
        axes.annotate(
          text, (0, k + 0.5), xytext=(-12, down), textcoords='offset points', ha='right',
          va='center', annotation_clip=False, **style,
        )  # fmt: skip
      for i, subset in enumerate(subsets):
        if subset in of:
          _dot(
            axes,
            k + 0.5 + (i - (len(subsets) - 1) / 2) * each / row_height,
            i,
            of[subset],
            formatting.display_name(subset),
          )
    svg.legend(figure, list(map(formatting.display_name, subsets)), 4, False)

  description = '; '.join(
    f'{row}: '
    + ', '.join(f'{formatting.display_name(s)} {_rate(dot, digits)}' for s, dot in of.items())
    for row, of in rows.items()
  )
  return svg.draw(name, salt, title, f'{title}. {description}.', (1000, height), paint)


def _dot(axes, y: float, i: int, dot: Dot, name: str) -> None:
  look = svg.style(i)
  if dot.insufficient_samples:
    axes.annotate(
      f'{formatting.short(name)}: {formatting.too_small(dot.count)}',
      (0, y),
      xytext=(6, 0),
      textcoords='offset points',
      va='center',
      fontsize=11,
      color=look['color'],
      style='italic',
      annotation_clip=False,
    )
    return
  for interval, width in ((dot.exact, 1.2), (dot.bootstrap, 4.5)):
    if not math.isnan(interval.low):
      alpha = 1 if width < 2 else 0.45
      ends = [100 * x for x in interval]
      axes.plot(ends, [y, y], color=look['color'], linewidth=width, alpha=alpha)
  axes.plot(
    [100 * dot.count.rate], [y], marker=look['marker'], color=look['color'], markersize=8,
    markeredgecolor=svg.PAPER, clip_on=False, zorder=5,
  )  # fmt: skip


def _rate(dot: Dot, digits: int) -> str:
  if dot.insufficient_samples:
    return formatting.too_small(dot.count)
  interval = dot.exact if math.isnan(dot.bootstrap.low) else dot.bootstrap
  return f'{formatting.percent(dot.count.rate, digits)} % {formatting.span(interval, digits)}'


def matrix(result: EvaluationResult, salt: str) -> svg.Drawing | None:
  """APCER of each attack under each subset, and BPCER, as shades with numbers."""
  subsets, digits = result.served, formatting.digits_of(result)
  prefix = kind_prefix(result)
  names = [n for n in result.estimates[subsets[0]] if n.startswith(prefix)] if prefix else []
  n_names = len(names)
  estimates = {n: [result.estimates[s][n] for s in subsets] for n in names}
  shown = _largest(
    {n: [e.value for e in of if not e.insufficient_samples] for n, of in estimates.items()}
  )
  names = [name for name in names if name in shown]
  rows = ['bpcer', *(names or ['apcer'])]
  heads = {'bpcer': 'bona fide (BPCER)', 'apcer': 'attacks (APCER)'}
  labels = {row: heads.get(row) or formatting.short(row.removeprefix(prefix)) for row in rows}
  left = max(svg.width_of(f'{text}  n 00000') for text in labels.values()) + 8
  columns = [
    formatting.short(formatting.display_name(s).replace(': ', ':|'), 40).replace('|', '\n')
    for s in subsets
  ]
  longest = max(len(line) for text in columns for line in text.split('\n'))
  wide, tall, top = max(96, 7.6 * longest), 32, 40
  width, height = left + wide * len(subsets) + 2, top + tall * len(rows) + 10

  def paint(figure):
    axes = svg.axes(figure, left, 2, 2, top)
    axes.set_xlim(0, wide * len(subsets))
    axes.set_ylim(tall * len(rows) + 8, 0)
    axes.axis('off')
    for j, column in enumerate(columns):
      axes.text((j + 0.5) * wide, -8, column, ha='center', va='bottom', fontsize=11)
    for i, row in enumerate(rows):
      y = i * tall + (8 if i else 0)
      n = result.estimates[subsets[0]][row].count.n
      axes.text(-8, y + tall / 2, f'n {n}', ha='right', va='center', color=svg.MUTED, fontsize=11)
      axes.text(-left + 4, y + tall / 2, labels[row], ha='left', va='center')
      for j, subset in enumerate(subsets):
        _shade(axes, j * wide, y, wide, tall, result.estimates[subset][row], digits)

  description = '; '.join(
    f'{labels[row]}: '
    + ', '.join(
      f'{formatting.display_name(s)} {_short_rate(result.estimates[s][row], digits)}'
      for s in subsets
    )
    for row in rows
  )
  which = _of(names, range(n_names))
  text = f'Error rates in percent by attack{which}, and by subset. {description}.'
  return svg.draw('matrix', salt, f'Modalities and attacks{which}', text, (width, height), paint)


def _shade(axes, x, y, wide, tall, estimate: Estimate, digits: int) -> None:
  from matplotlib.patches import Rectangle

  count = estimate.count
  small = estimate.insufficient_samples or not count.n
  shade = 0 if small else sum(count.rate > limit for limit in _HEAT)
  axes.add_patch(
    Rectangle(
      (x + 1, y + 1),
      wide - 2,
      tall - 2,
      facecolor=svg.HEAT[shade] if not small else 'none',
      edgecolor=svg.RULE,
      linewidth=1,
      linestyle='--' if small else '-',
    )  # fmt: skip
  )
  colour = svg.MUTED if small else svg.PAPER if shade >= _DARK_FROM else svg.INK
  few = f'n<{intervals.MIN_SAMPLES}' if count.n < intervals.MIN_SAMPLES else 'few'
  text = f'{few}: {formatting.fraction(count)}' if small else None
  axes.text(
    x + wide / 2, y + tall / 2, text or formatting.percent(count.rate, digits), ha='center',
    va='center', color=colour, fontsize=10 if small else 12,
  )  # fmt: skip


def _short_rate(estimate: Estimate, digits: int) -> str:
  if estimate.insufficient_samples:
    return formatting.too_small(estimate.count)
  return formatting.percent(estimate.count.rate, digits)


def sensor(result: EvaluationResult, added: SensorEffect, salt: str) -> svg.Drawing:
  """The effect of one more sensor, by attack: fixed and new errors."""
  before, after = formatting.display_name(added.before), formatting.display_name(added.after)
  title = f'{before} \N{RIGHTWARDS ARROW} {after}'
  every = [gain for gain in added.gains if gain.n]
  # Of many attacks, those of which the sensor fixes or adds most errors.
  most_changed = sorted(every, key=lambda gain: -(gain.fixed + gain.regressed))[:_ROWS]
  gains = [gain for gain in every if gain in most_changed]
  few = f', {len(gains)} attacks of {len(every)}' if len(gains) < len(every) else ''
  labels = [formatting.short(gain.kind, 18) for gain in gains]
  left = max(svg.width_of(text) for text in labels) + 12
  most = max([g.errors_before / g.n for g in gains if not g.insufficient_samples] + [0.01])
  least = max([g.regressed / g.n for g in gains if not g.insufficient_samples] + [0])
  right = 150

  def paint(figure):
    axes = svg.axes(figure, left, 42, right, 26)
    axes.set_xlim(-100 * least * 1.05, 100 * most * 1.02)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_yticks([])
    axes.spines['left'].set_visible(False)
    axes.grid(True, axis='x')
    axes.axvline(0, color=svg.MUTED, linewidth=1)
    axes.set_xlabel('errors (%)')
    figure.text(0, 1, formatting.short(title, 60) + few, va='top', weight='bold')
    for y, (gain, label) in enumerate(zip(gains, labels, strict=True)):
      _beside(axes, y, label, right=False)
      if gain.insufficient_samples:
        small = Count(gain.errors_before, gain.n)
        _beside(axes, y, formatting.too_small(small), color=svg.MUTED, fontsize=11, style='italic')
        continue
      rate = 100 / gain.n
      still = gain.errors_before - gain.fixed
      svg.boxes(axes, (0, y - 0.28, still * rate, y + 0.28), facecolor=svg.ATTACK, edgecolor='none')
      svg.boxes(
        axes, (still * rate, y - 0.28, gain.errors_before * rate, y + 0.28), facecolor='none',
        edgecolor=svg.GOOD, hatch='///', linewidth=1,
      )  # fmt: skip
      svg.boxes(
        axes, (-gain.regressed * rate, y - 0.28, 0, y + 0.28), facecolor=svg.INK, edgecolor='none'
      )
      counts = f'\N{MINUS SIGN}{gain.fixed}  +{gain.regressed}  of {gain.n}'
      _beside(axes, y, counts, color=svg.MUTED, fontsize=11)

  description = '; '.join(
    f'{g.kind}: {g.errors_before} of {g.n} wrong under {before}, of which {g.fixed} are fixed, '
    f'and {g.regressed} new errors'
    if not g.insufficient_samples
    else f'{g.kind}: {formatting.too_small(Count(g.errors_before, g.n))}'
    for g in gains
  )
  size = (500, 26 + 42 + 27 * len(labels))
  return svg.draw('sensor', salt, title, f'From {before} to {after}. {description}.', size, paint)


def _beside(axes, y: float, text: str, right: bool = True, **style) -> None:
  """Writes to the right, or to the left, of the axes, at the height of a row."""
  axes.annotate(
    text,
    (1 if right else 0, y),
    xycoords=('axes fraction', 'data'),
    xytext=(8 if right else -8, 0),
    textcoords='offset points',
    ha='left' if right else 'right',
    va='center',
    annotation_clip=False,
    **style,
  )
