"""The scales that scores may be on: percentages, logits, probabilities of an attack.

A score is kept as its file states it, negated where a high one means attack, so that reading
changes no rank and merges no two scores: 1 - 1e-20 and 1 - 1e-30 are both 1 in float64. Whatever
ranks scores, and whatever fits a threshold on scores of the same scale, works on any scale. A
fixed threshold is a probability of bona fide, and is moved to the scores' scale:

  scale                 a score s is kept as      probability of bona fide
  '' (not stated)       s                         s, if all scores are in [0, 1]
  probability           s                         s
  percent               s                         s / 100
  logit                 s, negated for attack     1 / (1 + exp(-s))
  attack_probability    -s                        1 + (-s)
  attack_percent        -s                        1 + (-s) / 100
"""

import decimal
import math
from decimal import Decimal

import numpy as np

from flexfas_jax.errors import ConfigError

OPTIONS = ('probability', 'percent', 'logit')  # what a user states
NOTES = {
  'percent': 'scores and thresholds are in percent',
  'logit': 'scores and thresholds are logits of bona fide',
  'attack_probability': 'scores and thresholds are negated probabilities of attack: at a '
  'threshold of -0.3, scores of at most 0.3 in the file are accepted',
  'attack_percent': 'scores and thresholds are negated percentages of attack: at a threshold of '
  '-30, scores of at most 30 in the file are accepted',
}
_RANGES = {
  '': (0, 1),
  'probability': (0, 1),
  'percent': (0, 100),
  'logit': (-math.inf, math.inf),
  'attack_probability': (-1, 0),
  'attack_percent': (-100, 0),
}
_EXACT = decimal.Context(prec=1000)  # of any float64's decimal


def kept_scale(option: str, high_is_attack: bool) -> str:
  """The scale that scores are kept on.

  Args:
    option: one of `OPTIONS`; '' if not stated.
    high_is_attack: whether a high score means attack in the file.
  """
  if option == 'logit':
    return option
  if high_is_attack:
    return 'attack_percent' if option == 'percent' else 'attack_probability'
  return option


def orient(score: np.ndarray, high_is_attack: bool) -> np.ndarray:
  """Scores as they are kept; a difference from 0, and no minus, so that 0 does not become -0."""
  return 0 - score if high_is_attack else score


def is_valid(scale) -> bool:
  """Whether a header's scale is one that scores can be on."""
  return isinstance(scale, str) and scale in _RANGES


def out_of_range(score: np.ndarray, scale: str) -> np.ndarray:
  """Places of the scores that their scale cannot have, [n] int."""
  low, high = _RANGES[scale]
  return np.flatnonzero((score < low) | (score > high))


def compatible(scale: str, other: str) -> bool:
  """Whether a threshold of one scale holds on the other; what is not stated is taken as it is."""
  return {scale, other} <= {'', 'probability'} or scale == other


def is_attack_scale(scale: str) -> bool:
  """Whether scores are negated ones of attacks."""
  return scale.startswith('attack_')


def as_stated(score, scale: str):
  """A kept score as its file states it (a logit of bona fide stays one)."""
  return 0 - score if is_attack_scale(scale) else score


def fixed_threshold(text: str, scale: str) -> float:
  """A fixed threshold on the scores' scale, computed from its decimal and rounded once.

  It is never rounded to below its decimal: a score that is less probable would be accepted, such as
  one of 1 of an attack at fixed=1e-20. (A logit is rounded to the nearest.)

  Args:
    text: a probability of bona fide; a number on the scores' own scale where that is ''.
    scale: of the scores.

  Raises:
    ConfigError: no score of the scale is that probable.
  """
  value = Decimal(text)
  if scale == '':
    return _at_least(value)
  if not 0 <= value <= 1 or (scale == 'logit' and not 0 < float(value) < 1):
    raise ConfigError(
      f'fixed={text}: on the scale {scale}, a threshold is a probability of bona fide, '
      f'{"between" if scale == "logit" else "from"} 0 {"and" if scale == "logit" else "to"} 1'
    )
  if scale == 'logit':
    return math.log(float(value)) - math.log1p(-float(value))
  value = _EXACT.subtract(value, 1) if is_attack_scale(scale) else value
  return _at_least(value.scaleb(2, _EXACT) if scale.endswith('percent') else value)


def _at_least(value: Decimal) -> float:
  """The nearest float64, or the next one above where the decimal of that is below `value`."""
  found = float(value) + 0.0  # no minus before 0
  return found if Decimal(repr(found)) >= value else math.nextafter(found, math.inf)


def share(score, scale: str):
  """Kept scores as probabilities of bona fide, or of attack on a scale of attacks, without rounding
  towards 1 (a logit's is)."""
  if scale == 'logit':
    from scipy.special import expit  # slow to import, and hardly anybody needs it here

    return expit(score)
  score = as_stated(score, scale)
  return score / 100 if scale.endswith('percent') else score


def probability(score: np.ndarray, scale: str) -> np.ndarray:
  """Kept scores as probabilities of bona fide; distinct scores may become one near 1."""
  return 1 - share(score, scale) if is_attack_scale(scale) else share(score, scale)


def to_logits(score: np.ndarray, scale: str, epsilon: float) -> np.ndarray:
  """Kept scores as logits of bona fide; probabilities are first kept `epsilon` from 0 and 1."""
  if scale == 'logit':
    return score
  from scipy.special import logit

  found = logit(np.clip(share(score, scale), epsilon, 1 - epsilon))
  return 0 - found if is_attack_scale(scale) else found


def from_logits(logit: np.ndarray, scale: str) -> np.ndarray:
  """The reverse of `to_logits`."""
  if scale == 'logit':
    return logit
  from scipy.special import expit

  percent = 100 if scale.endswith('percent') else 1
  return -percent * expit(0 - logit) if is_attack_scale(scale) else percent * expit(logit)
