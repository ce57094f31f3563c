"""What an ensemble is a mean of, and what every mean gained, as text."""

from collections.abc import Collection

import numpy as np

from flexfas_jax.evaluation import calibration, metrics, thresholds
from flexfas_jax.evaluation.ensemble import averaging
from flexfas_jax.evaluation.ensemble.averaging import Key
from flexfas_jax.evaluation.ensemble.members import file_stem
from flexfas_jax.evaluation.ensemble.recipe import Averaged
from flexfas_jax.evaluation.report import formatting, tables

_COLUMNS = {
  'ACER': 'acer',
  'APCER': 'apcer',
  'BPCER': 'bpcer',
  'EER': 'eer',
  'AUC': 'auc',
  'TPR@FPR=1e-4': 'tpr@fpr=1e-4',
}
_CALIBRATION_METRICS = {  # of `calibration.assess`: heading
  'brier': 'Brier',
  'log_loss': 'log loss',
  'calibration_error': 'ECE',
  'acer': 'ACER at 0.5',
  'apcer': 'APCER at 0.5',
  'bpcer': 'BPCER at 0.5',
  'eer': 'EER',
  'auc': 'AUC',
}
_FRACTIONS = ('brier', 'log_loss', 'calibration_error', 'auc')  # the others are in percent


def best_member(made: Averaged) -> Key:
  """The member, (network, seed, fold), of the least EER, of equals the one of the largest AUC: on
  dev, or without one on the evaluated scores, which then is an ORACLE's choice."""
  means, label = made.means, made.label
  if made.dev_means is not None:
    means, label = made.dev_means, made.dev_label

  def order(key):
    points = metrics.curve(label, means[key])
    eer = metrics.eer(points)[0]
    return np.nan_to_num(eer, nan=np.inf), -np.nan_to_num(metrics.auc(points)), key

  return min((key for key in means if len(key) == 3), key=order)


def text(made: Averaged, rule: str, insufficient: Collection[str] = ()) -> str:
  """The tree of means with the figures of every mean, in percent.

  Args:
    made: of a subset that is served.
    rule: how each mean gets its threshold, as in `thresholds.RULES`.
    insufficient: metrics that are not stated, from `sufficiency`.
  """
  head = ['mean', 'of', *(['weight'] if made.weights else []), *_COLUMNS, 'threshold']
  rows, winner = [head], strip_unknown(best_member(made))
  if made.calibration:
    dev = made.final(dev=True) if made.dev_means is not None else None
    own = ['ensemble, calibrated', '', *([''] if made.weights else [])]
    rows.append([*own, *_figures(made, made.final(), dev, rule, made.final_scale)])
  for key in _walk(made.tree, ()):
    if key and not key[-1]:
      continue  # a coordinate that is not known is no level
    depth = sum(map(bool, key))
    name = '  ' * depth + (file_stem(key) or 'ensemble') + (' *' if key == winner else '')
    weight = [f'{_weight(made, key):.3f}' if key else ''] if made.weights else []
    dev = made.dev_means[key] if made.dev_means is not None else None
    rows.append([name, _parts(made.tree, key), *weight])
    rows[-1] += _figures(made, made.means[key], dev, rule, made.scale)
  for row in rows[1:]:
    for i, metric in enumerate(_COLUMNS.values(), len(head) - len(_COLUMNS) - 1):
      row[i] = formatting.TOO_SMALL if metric in insufficient else row[i]
  return tables.aligned(rows)


def calibration_text(made: Averaged, fitted: bool, insufficient: Collection[str] = ()) -> str:
  """The metrics of `calibration.assess` before and after calibration.

  Args:
    made: of a subset that was calibrated.
    fitted: whether on its dev scores.
    insufficient: metrics of the test with insufficient samples, from `sufficiency`.
  """
  method, parameters = made.calibration.method, made.calibration.parameters
  header = [f'calibration: {method}']
  header += [f'{name} {x:.6g}' for name, x in parameters.items() if isinstance(x, float)]
  header.append(f'ECE of {calibration.BINS} equal bins')
  sets = {'ensemble': (made.label, made.means[()])}
  if made.dev_means is not None:
    name = 'dev (fitted on it)' if fitted else 'dev'
    sets = {name: (made.dev_label, made.dev_means[()]), **sets}
  rows = [['', *_CALIBRATION_METRICS.values()]]
  for name, (label, score) in sets.items():
    stages = (
      ('before', score, made.scale),
      ('after', made.calibration(score), made.final_scale),
    )
    for stage, values, scale in stages:
      metrics_ = calibration.assess(label, values, scale)
      cells = []
      for metric in _CALIBRATION_METRICS:
        if name == 'ensemble' and metric in insufficient:
          cells.append(formatting.TOO_SMALL)
        elif metric in _FRACTIONS:
          cells.append(f'{metrics_[metric]:.6f}')
        else:
          cells.append(formatting.percent(metrics_[metric], formatting.TABLE_DIGITS))
      rows.append([f'{name}, {stage}', *cells])
  return ', '.join(header) + '\n' + tables.aligned(rows)


def _figures(made: Averaged, score, dev, rule: str, scale: str) -> list[str]:
  threshold = thresholds.fit(rule, made.dev_label, dev, scale)
  rates = metrics.error_rates(made.label, score, threshold)
  points = metrics.curve(made.label, score)
  values = (rates.acer, rates.apcer, rates.bpcer, metrics.eer(points)[0], metrics.auc(points))
  values = (*values, metrics.tpr_at_fpr(points, 1e-4))
  return [*(formatting.percent(x, formatting.TABLE_DIGITS) for x in values), f'{threshold:.6g}']


def _walk(tree, key: Key):
  """The means below and at a key, each before its parts; views are none."""
  if len(key) > 3:
    return
  yield key
  for part in tree[key]:
    yield from _walk(tree, part)


def strip_unknown(key: Key) -> Key:
  """A key without the coordinates at its end that are not known: the same scores."""
  while key and not key[-1]:
    key = key[:-1]
  return key


def _parts(tree, key: Key) -> str:
  """'3 folds'; '' of a file's only scores."""
  while key in tree:
    parts = tree[key]
    if len(parts) > 1 or parts[0][-1]:
      what = averaging.mean_axis(key)
      return f'{len(parts)} {what}{"s" if len(parts) > 1 else ""}'
    key = parts[0]
  return ''


def _weight(made: Averaged, key: Key) -> float:
  """Among the parts of the mean that it is shown under."""
  weight = made.weights[key]
  while len(key) > 1 and not key[-2]:
    key = key[:-1]
    weight *= made.weights[key]
  return weight
