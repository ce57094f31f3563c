"""Score calibration: monotone maps that are fitted on development scores only.

A monotone map keeps the ranking, and so AUC, EER and TPR@FPR, except where two scores become equal
(isotonic: on its steps; the others: where float64 rounds to 1). It changes the probability that a
score states, and the decisions at a threshold of 0.5.

  piecewise   a line in two pieces: 0 stays 0, dev's threshold becomes 0.5, 1 stays 1 [MM]
  platt       expit(slope * logit(score) + offset), of the largest likelihood, the targets being
              (n + 1) / (n + 2) and 1 / (n + 2) instead of 1 and 0 [P]; by Newton's method [LLW]
  isotonic    the monotone map of the least squared error, by pool adjacent violators [A], straight
              lines between its steps, constant beyond the dev scores

  [MM]   Parkin and Grinchuk, Recognizing Multi-Modal Face Spoofing with Face Recognition Networks
         (CVPRW 2019), and its code.
  [P]    Platt, Probabilistic outputs for support vector machines (1999).
  [LLW]  Lin, Lin and Weng, A note on Platt's probabilistic outputs for support vector machines
         (Machine Learning, 2007).
  [A]    Ayer et al., An empirical distribution function for sampling with incomplete information
         (Annals of Mathematical Statistics, 1955).
  [G]    Guo et al., On calibration of modern neural networks (ICML 2017): the calibration error.

The maps take probabilities of bona fide in [0, 1]. Scores on an attack scale
(`scales.is_attack_scale`) are mapped as probabilities of attack, so that small ones are not rounded
away. NaN, a failure to acquire, stays NaN and is not fitted on.
"""

import dataclasses
import math

import numpy as np

from flexfas_jax.errors import StateError
from flexfas_jax.evaluation import metrics, reference_metrics, scales, thresholds
from flexfas_jax.evaluation.ensemble.averaging import EPSILON

METHODS = {
  'piecewise': "dev's threshold comes to 0.5",
  'platt': 'a logistic line over the logits',
  'isotonic': 'the monotone steps that fit dev best',
}
BINS = 15  # of the calibration error [G]

_NEAREST = 2.0**-53  # that float64 gets to 1
# Applied, not fitted: as near to 0 and 1 as float64 gets, so that no two scores become one.
_ENDS = (np.finfo(np.float64).smallest_subnormal, 1 - _NEAREST)


@dataclasses.dataclass(frozen=True)
class Calibration:
  """A fitted map; `parameters` is JSON: threshold, or slope and offset, or from and to.

  On a scale of attacks the parameters are of probabilities of attack.
  """

  method: str
  parameters: dict
  scale: str = ''  # of what is mapped, as in `scales`

  @property
  def result_scale(self) -> str:
    if self.method == 'platt' and self.scale == 'logit':
      return 'logit'
    if scales.is_attack_scale(self.scale):
      return 'attack_probability'
    return 'probability' if self.scale else ''

  def __call__(self, score) -> np.ndarray:
    """[N] float on `scale` to [N] float64 on `result_scale`, NaN to NaN."""
    score, of = np.asarray(score, np.float64), self.parameters
    if self.result_scale == 'logit':
      return of['slope'] * score + of['offset']
    share = scales.share(score, self.scale)
    if self.method == 'piecewise':
      found = reference_metrics.rescaled(share, of['threshold'])
    elif self.method == 'platt':
      from scipy.special import expit, logit  # slow to import, for `--help`

      found = expit(of['slope'] * logit(np.clip(share, *_ENDS)) + of['offset'])
    else:
      found = np.where(np.isnan(share), np.nan, np.interp(share, of['from'], of['to']))
    return scales.orient(found, scales.is_attack_scale(self.scale))


def piecewise(threshold: float, scale: str = '') -> Calibration:
  """The line in two pieces that brings a threshold to 0.5.

  Args:
    threshold: on the scale.
    scale: of the scores, as in `scales`.

  Raises:
    StateError: a threshold that is not between 0 and 1, as a probability.
  """
  share = float(scales.share(threshold, scale))
  if not 0 < share < 1:
    raise StateError(f'no line brings a threshold of {share:g} to 0.5: it must be in (0, 1)')
  return Calibration('piecewise', {'threshold': share}, scale)


def fit(method: str, label, score, rule: str = 'dev_eer', scale: str = '') -> Calibration:
  """The map that development scores give.

  Args:
    method: one of `METHODS`.
    label: [N] integer, 1 = bona fide.
    score: [N] float, NaN = failure to acquire.
    rule: how piecewise finds its threshold, as in `thresholds.RULES`.
    scale: of the scores, as in `scales`; in [0, 1] if ''.

  Raises:
    StateError: scores of one class alone, or where high does not mean bona fide; a threshold that
      cannot be found, or not moved.
    ValueError: no such method.
  """
  label, score = np.asarray(label), np.asarray(score, np.float64)
  if method not in METHODS:
    raise ValueError(f'no calibration {method!r}; choose one of {", ".join(METHODS)}')
  known = ~np.isnan(score)
  label, score = label[known], score[known]
  order = np.lexsort((label, score))  # sums of float64 depend on their order, not on that of rows
  label, score = label[order], score[order]
  if not (label == 1).any() or not (label == 0).any():
    raise StateError(f'{method} needs development scores of both classes')
  if metrics.auc(metrics.curve(label, score)) <= 0.5:
    raise StateError(
      f'{method}: the development scores are no higher for bona fide samples than for attacks; '
      'no monotone map mends that'
    )
  if method == 'piecewise':
    return piecewise(thresholds.fit(rule, label, score, scale), scale)
  if scales.is_attack_scale(scale):  # the same from the other end: how probable an attack is
    label = 1 - label
  parameters = (_platt if method == 'platt' else _isotonic)(label, scales.share(score, scale))
  return Calibration(method, parameters, scale)


def _logit(score: np.ndarray, nearest: float) -> np.ndarray:
  from scipy.special import logit

  return logit(np.clip(score, nearest, 1 - nearest))


def _platt(label: np.ndarray, score: np.ndarray) -> dict[str, float]:
  from scipy.special import expit

  # A score of 1 in float32 has no more influence than the float32 next to 1.
  x = _logit(score, EPSILON)
  n = (label == 1).sum(), (label == 0).sum()
  target = np.where(label == 1, (n[0] + 1) / (n[0] + 2), 1 / (n[1] + 2))

  def loss(line) -> float:
    z = line[0] * x + line[1]
    return float((np.logaddexp(0, z) - target * z).sum())

  X = np.stack([x, np.ones_like(x)])  # [2, N]
  line = np.array([0.0, math.log((n[0] + 1) / (n[1] + 1))])
  for _ in range(100):
    p = expit(line[0] * x + line[1])
    gradient = X @ (p - target)
    if np.abs(gradient).max() < 1e-9 * x.size:
      break
    curvature = (X * (p * (1 - p))) @ X.T + 1e-12 * np.eye(2)
    step, size, before = np.linalg.solve(curvature, gradient), 1.0, loss(line)
    # A full step may overshoot where the line is steep [LLW].
    while size > 1e-10 and loss(line - size * step) > before - 1e-4 * size * (gradient @ step):
      size /= 2
    if size <= 1e-10:
      break
    line = line - size * step
  if not line[0] > 0:
    raise StateError('platt: the line that fits the development scores falls; they are no guide')
  return {'slope': float(line[0]), 'offset': float(line[1])}


def _isotonic(label: np.ndarray, score: np.ndarray) -> dict[str, list[float]]:
  at, index, count = np.unique(score, return_inverse=True, return_counts=True)  # ties are one
  bona_fide = np.bincount(index[label == 1], minlength=at.size)
  blocks = []  # [bona fide, all, first, last], the share of bona fide rising; compared in integers
  for k, (m, w) in enumerate(zip(bona_fide.tolist(), count.tolist(), strict=True)):
    blocks.append([m, w, k, k])
    while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
      m, w, _, last = blocks.pop()
      of = blocks[-1]
      of[0], of[1], of[3] = of[0] + m, of[1] + w, last
  ends = [(k, m / w) for m, w, first, last in blocks for k in dict.fromkeys((first, last))]
  return {'from': [float(at[k]) for k, _ in ends], 'to': [float(m) for _, m in ends]}


def brier(label, score) -> float:
  """The mean squared distance from 1 for bona fide samples and 0 for attacks; NaN of none."""
  label, score = _scored(label, score)
  return math.fsum((score - label) ** 2) / label.size if label.size else math.nan


def log_loss(label, score) -> float:
  """The mean of -ln(probability of the truth), NaN of none.

  Scores are kept 2^-53 away from 0 and 1: a sure mistake costs 36.7, not infinity.
  """
  label, score = _scored(label, score)
  z = _logit(score, _NEAREST)
  return math.fsum(np.logaddexp(0, z) - label * z) / label.size if label.size else math.nan


def calibration_error(label, score, bins: int = BINS) -> float:
  """The expected calibration error [G] of the probability of bona fide; NaN of none.

  The samples' mean of |share of bona fide - mean score|, each in its own of `bins` equal bins over
  [0, 1], a score on an edge belonging to the upper one (1 to the last).
  """
  label, score = _scored(label, score)
  if not label.size:
    return math.nan
  # Not the whole part of score * bins, which rounds: 0.29 of 100 bins is in the 30th.
  own = np.searchsorted(np.arange(1, bins) / bins, score, side='right')
  gaps = [abs(math.fsum((label - score)[own == k])) for k in range(bins)]
  return math.fsum(gaps) / label.size


def assess(label, score, scale: str = '') -> dict[str, float]:
  """What calibration changes, and what it does not.

  Args:
    label: [N] integer, 1 = bona fide.
    score: [N] float, NaN = failure to acquire.
    scale: of the scores, as in `scales`; in [0, 1] if ''.

  Returns:
    brier, log_loss, calibration_error, acer, apcer and bpcer at 0.5; eer, auc.
  """
  points = metrics.curve(label, score)
  rates = metrics.error_rates(label, score, scales.fixed_threshold('0.5', scale))
  probability = scales.probability(np.asarray(score, np.float64), scale)
  return {
    'brier': brier(label, probability),
    'log_loss': log_loss(label, probability),
    'calibration_error': calibration_error(label, probability),
    'acer': rates.acer,
    'apcer': rates.apcer,
    'bpcer': rates.bpcer,
    'eer': metrics.eer(points)[0],
    'auc': metrics.auc(points),
  }


def _scored(label, score) -> tuple[np.ndarray, np.ndarray]:
  label, score = np.asarray(label, np.float64), np.asarray(score, np.float64)
  known = ~np.isnan(score)
  return label[known], score[known]
