"""What depends on the threshold: DET and ROC curves, and the scores that it divides."""

import math
from collections.abc import Mapping

import numpy as np

from flexfas_jax.evaluation import metrics
from flexfas_jax.evaluation.evaluate import EvaluationResult
from flexfas_jax.evaluation.report import formatting, svg

_TICKS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95,
          0.99)  # fmt: skip
_CELLS = 300  # a curve has two points in each of so many steps of an axis, at most
_BINS = 48


def curves(result: EvaluationResult) -> dict[str, metrics.Curve]:
  """The operating points of every subset that is served and has both classes."""
  label, scores = result.scores.label, result.scores.scores
  found = {subset: metrics.curve(label, scores[subset]) for subset in result.served}
  return {subset: points for subset, points in found.items() if not points.one_class}


def thinned(x: np.ndarray, y: np.ndarray, cells: int = _CELLS) -> np.ndarray:
  """Which points of a staircase are enough to draw it.

  Args:
    x, y: [K], in parts of the axes, 0 to 1, each rising or falling all the way.
    cells: that an axis is divided into. The first and last point in each cell stay, so that
      nothing moves by more than one.

  Returns:
    [K] bool.
  """
  at = np.floor(np.stack([x, y]) * cells)
  moves = (at[:, 1:] != at[:, :-1]).any(0)
  return np.append(True, moves) | np.append(moves, True)


def det(result: EvaluationResult, points: Mapping[str, metrics.Curve], salt: str) -> svg.Drawing:
  """BPCER over APCER, both on probit axes."""
  from scipy.special import ndtri

  found, digits = result.metrics, formatting.digits_of(result)
  limits = []
  for rate, n in (('apcer', 'n_attack'), ('bpcer', 'n_bona_fide')):
    most = max(found[s][rate] for s in points)
    high = next((x for x in (0.5, 0.7, 0.9) if x > 1.1 * most), 0.995)
    limits.append((1e-3 if found[next(iter(points))][n] < 2000 else 1e-4, high))
  ends = [ndtri(np.array(limit)) for limit in limits]

  top = svg.height_of_legend(len(points), 2)

  def on_axis(rate, axis):
    # No error is drawn at the edge; what is beyond the other end is not drawn.
    return ndtri(np.clip(rate, limits[axis][0], 1 - 1e-9))

  def paint(figure):
    axes = svg.axes(figure, 56, 48, 14, top)
    for axis, set_ticks, set_limits in (
      (0, axes.set_xticks, axes.set_xlim),
      (1, axes.set_yticks, axes.set_ylim),
    ):
      ticks = [t for t in _TICKS if limits[axis][0] <= t <= limits[axis][1]]
      set_ticks(ndtri(ticks), [f'{100 * t:g}' for t in ticks])
      set_limits(*ends[axis])
    axes.grid(True)
    equal = ndtri(np.array([max(a for a, _ in limits), min(b for _, b in limits)]))
    axes.plot(equal, equal, color=svg.MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
    for i, (subset, curve) in enumerate(points.items()):
      x, y = on_axis(curve.apcer, 0), on_axis(curve.bpcer, 1)
      unit = [(v - a) / (b - a) for v, (a, b) in zip((x, y), ends, strict=True)]
      keep = thinned(*unit)
      look = svg.style(i)
      marker = look.pop('marker')
      axes.step(x[keep], y[keep], where='post', **look)
      estimates = result.estimates[subset]
      at = {rate: found[subset][rate] for rate in ('apcer', 'bpcer')}
      for axis, rate in enumerate(at):
        low, high = estimates[rate].bootstrap
        if not math.isnan(low):
          both = [[on_axis(at['apcer'], 0)] * 2, [on_axis(at['bpcer'], 1)] * 2]
          both[axis] = [on_axis(low, axis), on_axis(high, axis)]
          axes.plot(*both, color=look['color'], linewidth=1, alpha=0.7)
      axes.plot(
        [on_axis(at['apcer'], 0)], [on_axis(at['bpcer'], 1)], marker=marker, markersize=8,
        markeredgecolor=svg.PAPER, color=look['color'], clip_on=False, zorder=5,
      )  # fmt: skip
    svg.legend(figure, list(map(formatting.display_name, points)), 2, True)
    axes.set_xlabel('APCER, all attacks pooled (%)')
    axes.set_ylabel('BPCER (%)')

  def rate(subset, metric):
    return formatting.rate(result, subset, metric, digits)

  description = '; '.join(
    f'{formatting.display_name(s)}: BPCER {rate(s, "bpcer@apcer=1%")} at APCER 1 %, '
    f'{rate(s, "bpcer@apcer=10%")} at APCER 10 %, EER {rate(s, "eer")}; at its threshold APCER '
    f'{rate(s, "apcer")}, BPCER {rate(s, "bpcer")}'
    for s in points
  )
  text = f'DET curves on probit axes. {description}.'
  return svg.draw('det', salt, 'DET curves', text, (500, 450 + top), paint)


def roc(result: EvaluationResult, points: Mapping[str, metrics.Curve], salt: str) -> svg.Drawing:
  """TPR over FPR, whose axis is logarithmic down to one attack."""
  found, digits = result.metrics, formatting.digits_of(result)
  n = next(iter(points.values())).n_attack
  least = 0.5 / n  # no attack is drawn there, at the edge
  # [K] TPR where the FPR is above 0, and the best at 0.
  lines = {}
  for subset, curve in points.items():
    start = int(np.searchsorted(curve.apcer, 0, side='right')) - 1
    lines[subset] = np.maximum(curve.apcer[start:], least), 1 - curve.bpcer[start:]
  bottom = min(float(y[0]) for _, y in lines.values())
  bottom = max(0.0, math.floor(bottom * 10 - 0.5) / 10)

  top = svg.height_of_legend(len(points), 2)

  def paint(figure):
    axes = svg.axes(figure, 56, 48, 14, top)
    axes.set_xscale('log')
    axes.set_xlim(least, 1)
    axes.set_ylim(bottom, 1 + (1 - bottom) * 0.01)
    powers = [10.0**k for k in range(math.ceil(math.log10(least)), 1)]
    axes.set_xticks(powers, [f'{power:g}' for power in powers])
    axes.set_xticks([], minor=True)
    axes.grid(True)
    for i, (subset, (x, y)) in enumerate(lines.items()):
      keep = thinned(1 - np.log10(x) / math.log10(least), (y - bottom) / (1 - bottom))
      look = svg.style(i)
      marker = look.pop('marker')
      axes.step(x[keep], y[keep], where='post', **look)
      axes.plot(
        [max(found[subset]['apcer'], least)], [1 - found[subset]['bpcer']], marker=marker,
        markersize=8, markeredgecolor=svg.PAPER, color=look['color'], clip_on=False, zorder=5,
      )  # fmt: skip
    svg.legend(figure, list(map(formatting.display_name, points)), 2, True)
    axes.set_xlabel(f'FPR: pooled APCER, down to one attack in {n}')
    axes.set_ylabel('TPR: 1 \N{MINUS SIGN} BPCER')

  def rate(subset, metric):
    return formatting.rate(result, subset, metric, digits)

  description = '; '.join(
    f'{formatting.display_name(s)}: TPR '
    + ', '.join(f'{rate(s, f"tpr@fpr={fpr}")} at FPR {fpr}' for fpr in ('1e-2', '1e-3'))
    + f', AUC {rate(s, "auc")}'
    for s in points
  )
  text = f'ROC curves with a logarithmic FPR axis. {description}.'
  return svg.draw('roc', salt, 'ROC curves', text, (500, 450 + top), paint)


def histogram(result: EvaluationResult, subset: str, salt: str) -> svg.Drawing:
  """The scores of one subset: bona fide samples upwards, attacks downwards, errors in full colour.

  The axis of scores within 0 and 1 is that of their logits where most of them are near its ends.
  Counts are on a logarithmic scale, so that single errors are seen.
  """
  score, bona_fide = result.scores.scores[subset], result.scores.label == 1
  threshold = result.metrics[subset]['threshold']
  scored = ~np.isnan(score)
  known = score[scored]
  shares = known.min() >= 0 and known.max() <= 1
  logits = shares and np.mean(np.abs(known - 0.5) > 0.48) > 0.25
  x, at = (_logit(known), float(_logit(threshold))) if logits else (known, threshold)
  low, high = float(min(x.min(), at)), float(max(x.max(), at))
  room = (high - low) * 0.02 or 0.5
  edges = _edges(low - room, high + room, at)
  accepted, real = known >= threshold, bona_fide[scored]

  def paint(figure):
    axes = svg.axes(figure, 50, 46, 14, 30)
    heights = []
    for of, sign, colour in ((real, 1, svg.BONA_FIDE), (~real, -1, svg.ATTACK)):
      for wrong in (False, True):
        counts = np.histogram(x[of & ((accepted != real) == wrong)], edges)[0]
        there = counts > 0
        tops = sign * np.log10(1 + counts[there])
        heights.append(np.abs(tops).max(initial=0))
        bars = np.stack([edges[:-1][there], 0 * tops, edges[1:][there], tops], 1)
        svg.boxes(axes, bars, facecolor=colour, alpha=1 if wrong else 0.35, edgecolor='none')
    most = max(heights) * 1.06
    axes.set_ylim(-most, most)
    axes.set_xlim(edges[0], edges[-1])
    powers = [10**k for k in range(7) if math.log10(1 + 10**k) < most]
    ticks = [-math.log10(1 + p) for p in powers[::-1]] + [0] + [math.log10(1 + p) for p in powers]
    axes.set_yticks(ticks, [f'{p:g}' for p in [*powers[::-1], 0, *powers]])
    axes.grid(True, axis='y')
    axes.axhline(0, color=svg.MUTED, linewidth=1)
    axes.axvline(at, color=svg.INK, linewidth=1.5)
    right = (at - edges[0]) / (edges[-1] - edges[0]) < 0.55
    axes.annotate(
      f'threshold {threshold:.4g}', (at, most), xytext=(5 if right else -5, -3),
      textcoords='offset points', va='top', ha='left' if right else 'right',
      fontsize=11, color=svg.INK,
    )  # fmt: skip
    figure.text(0.7, 1, 'bona fide above', va='top', ha='right', color=svg.BONA_FIDE)
    figure.text(0.972, 1, 'attacks below', va='top', ha='right', color=svg.ATTACK)
    if logits:
      shown = [p for p in (1e-6, 1e-4, 0.01, 0.1, 0.5, 0.9, 0.99, 1 - 1e-4, 1 - 1e-6)
               if edges[0] <= _logit(p) <= edges[-1]]  # fmt: skip
      axes.set_xticks(_logit(np.array(shown)), [f'{p:.6g}' for p in shown])
    axes.set_xlabel('score (logit scale)' if logits else 'score')
    axes.set_ylabel('samples')
    figure.text(
      0, 1, formatting.short(formatting.display_name(subset), 32), va='top', weight='bold'
    )

  description = [f'Scores under {formatting.display_name(subset)}, divided at {threshold:.4g}.']
  for what, of, wrong in (('bona fide samples', real, 'rejected'), ('attacks', ~real, 'accepted')):
    if of.any():
      n = int((of & (accepted != real)).sum())
      low, high = np.quantile(known[of], (0.25, 0.75))
      description.append(
        f'Of {int(of.sum())} {what} with a score half have {low:.3g} to {high:.3g}; '
        f'{n} are {wrong}.'
      )
  if not scored.all():
    description.append(f'{int((~scored).sum())} samples have no score.')
  return svg.draw(
    'histogram',
    salt,
    f'Scores under {formatting.display_name(subset)}',
    ' '.join(description),
    (500, 270),
    paint,
  )


def _logit(share):
  share = np.clip(share, 1e-7, 1 - 1e-7)
  return np.log(share / (1 - share))


def _edges(low: float, high: float, at: float) -> np.ndarray:
  """Edges of about equal bins, of which the threshold is one."""
  below = min(max(1, round(_BINS * (at - low) / (high - low))), _BINS - 1)
  parts = np.linspace(low, at, below + 1), np.linspace(at, high, _BINS - below + 1)
  return np.concatenate([parts[0], parts[1][1:]])
