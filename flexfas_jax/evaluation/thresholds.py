"""Decision thresholds, named by a rule in text.

A threshold is fitted on development scores and applied to others; `results` sees to that. It is a
property of one model under one subset of modalities: another subset has its own.
"""

import decimal
import math
import re
from fractions import Fraction

import numpy as np

from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.evaluation import metrics, scales

RULES = {
  'dev_eer': 'dev APCER and BPCER as near to each other as they get',
  'dev_bpcer=1%': 'the largest threshold whose dev BPCER is at most 1 % (any share below 100 %)',
  'fixed=0.5': 'this probability of bona fide; this number, if the scale is not stated',
  'bundle': 'those of the bundle that scored the file, as its header states',
}
BUNDLE = 'bundle'
DEFAULT = 'fixed=0.5'  # without development scores
# Python reads 0_5 as 5, and digits of other scripts.
_DECIMAL = re.compile(r'\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,9})?\s*', re.ASCII)


def needs_dev(rule: str) -> bool:
  """Whether a rule is fitted on development scores.

  Args:
    rule: as in `RULES`.

  Raises:
    ConfigError: not a rule.
  """
  return _parse(rule)[0] not in ('fixed', BUNDLE)


def share(text: str) -> Fraction:
  """A share as it is written, exactly: '0.7%' is 7/1000, and so is '0.007'.

  Args:
    text: a decimal, or a percentage with its sign.

  Raises:
    ValueError: neither, or not finite.
  """
  number, percent, rest = text.partition('%')
  value = decimal.Decimal(number.strip() if _DECIMAL.fullmatch(number) else 'nan')
  if rest or not value.is_finite() or abs(value.adjusted()) > 400:  # as large as float64 is
    raise ValueError(f'{text!r} is not a share')
  return Fraction(value) / (100 if percent else 1)


def fit(rule: str, label, score, scale: str = '') -> float:
  """The threshold that a rule gives; accept when score >= threshold.

  `dev_eer` and `dev_bpcer` give one of the scores. All thresholds between two neighbouring scores
  decide alike on dev: the largest is taken, which is the upper of the two and accepts the fewest
  attacks elsewhere. Likewise where two thresholds tie in |APCER - BPCER|. Failures to acquire
  count as in `metrics`: bona fide ones are errors that no threshold mends.

  Args:
    rule: as in `RULES`.
    label: [N] integer, 1 = bona fide, of the development set; `fixed` does not look at it.
    score: [N] float, NaN = failure to acquire, of the development set.
    scale: of the scores, as in `scales`; only `fixed` depends on it.

  Returns:
    The threshold on the scale of the scores, finite.

  Raises:
    ConfigError: not a rule, or `bundle`, which needs the header of a score file.
    StateError: these scores cannot give such a threshold.
  """
  name, value = _parse(rule)
  if name == BUNDLE:
    raise ConfigError(
      f'{rule!r} applies to a file that `flexfas predict --out` wrote: flexfas score FILE '
      f'--threshold={rule}'
    )
  if name == 'fixed':
    return scales.fixed_threshold(value, scale)
  points = metrics.curve(label, score)
  if name == 'dev_eer':
    _, threshold = metrics.eer(points)
    if math.isnan(threshold):
      raise StateError(
        f'{rule} needs scores of both classes: the development set has {points.n_bona_fide} '
        f'bona fide samples and {points.n_attack} attacks, {points.n_fta} of them without a score'
      )
    return threshold
  # In whole samples: a share of 0.7 % of 1,000 samples is 7 of them, and rounding decides nothing.
  rejected = points.n_bona_fide - points.accepted_bona_fide[1:]  # the infinite threshold is none
  within = np.flatnonzero(rejected <= math.floor(value * points.n_bona_fide))
  if not within.size or not points.n_bona_fide:
    raise StateError(
      f'{rule}: no threshold does it; the development set has {points.n_bona_fide} bona fide '
      f'samples, and {points.n_fta} of its samples have no score'
    )
  return float(points.threshold[1 + within[0]])


def _parse(rule: str) -> tuple[str, str | float | Fraction]:
  name, equals, text = rule.partition('=')
  try:
    if name in ('dev_eer', BUNDLE) and not equals:
      return name, math.nan
    if name == 'dev_bpcer':
      value = share(text)
      if 0 <= value < 1:
        return name, value
    if name == 'fixed' and _DECIMAL.fullmatch(text) and math.isfinite(float(text)):
      return name, text.strip()
  except ValueError:
    pass
  raise ConfigError(
    f'{rule!r} is not a threshold rule; choose from: '
    + '; '.join(f'{rule} ({what})' for rule, what in RULES.items())
  )
