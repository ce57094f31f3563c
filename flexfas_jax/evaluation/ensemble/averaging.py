"""Means of many networks' scores, over test-time views, folds, seeds and networks in that order.

The mean of means: a network with one seed counts as much as one with two, a seed with two folds as
much as one with three. That is how MM-FAS's ensemble was made [MM], and it is not the mean of all
files wherever the grid is uneven.

  [MM]   Parkin and Grinchuk, Recognizing Multi-Modal Face Spoofing with Face Recognition Networks
         (CVPRW 2019), and its code.

A set of scores has a key (network, seed, fold, view), '' where a coordinate is not known. A mean is
called by the key that its parts have in common: (network, seed, fold) is the mean over views,
(network, seed) over folds, (network,) over seeds, and () the ensemble.

If one part has no score for a sample (NaN, a failure to acquire), the mean has none either: the
evaluated system is all networks together, and one of them failed.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from flexfas_jax.evaluation import exact_mean, metrics, scales

Key = tuple[str, ...]  # up to (network, seed, fold, view)

ORDER = ('view', 'fold', 'seed', 'network')  # what a mean is over, the first mean first
COORDINATES = ORDER[::-1]  # of a key
SPACES = {
  'probability': 'scores are averaged as they are',
  'logit': 'their logits are, and the mean becomes a probability again',
}
# A float32 probability within this distance of 1 rounds to 1, so that its logit is lost. Without a
# bound one such network would outvote all others in logits.
EPSILON = 2.0**-24
WEIGHING = (
  '1 / (dev EER + 1 / dev samples of the rarer class), normalised among the parts of a mean'
)


def mean_axis(key: Key) -> str:
  """What the mean called `key` is over: () 'network', ..., (network, seed, fold) 'view'."""
  return COORDINATES[len(key)]


def tree(keys: Iterable[Key]) -> dict[Key, tuple[Key, ...]]:
  """What is a mean of what.

  Args:
    keys: of the scores, (network, seed, fold, view), in any order.

  Returns:
    {key of a mean: keys of its parts, in alphabetical order}, every part before its mean.

  Raises:
    ValueError: no key, one that is not whole, or one that is there twice.
  """
  keys = list(keys)
  if not keys or any(len(key) != len(COORDINATES) for key in keys) or len(set(keys)) < len(keys):
    raise ValueError(f'keys must be (network, seed, fold, view), each once: {keys}')
  found, parts = {}, sorted(keys)
  for length in reversed(range(len(COORDINATES))):
    of = {}
    for part in parts:
      of.setdefault(part[:length], []).append(part)
    found |= {key: tuple(own) for key, own in of.items()}
    parts = list(of)
  return found


def means(
  scores: Mapping[Key, np.ndarray],
  space: str = 'probability',
  weigh: Callable[[Key, np.ndarray], float] | None = None,
  scale: str = '',
) -> dict[Key, np.ndarray]:
  """All means, up to the ensemble.

  Args:
    scores: by (network, seed, fold, view): [N] float, NaN = failure to acquire.
    space: one of `SPACES`. In logits, scores are first kept `EPSILON` away from 0 and 1.
    weigh: (key, its scores [N]) -> weight of a fold, seed or network in the mean that it is a part
      of; all alike if None. Views are always alike: they are of the same weights.
    scale: of the scores, as in `scales`; in [0, 1] if ''.

  Returns:
    By key, `()` being the ensemble: [N] float64 on the same scale. A mean of one part is that part.

  Raises:
    ValueError: as `tree`; no such space; weights that are no weights.
  """
  if space not in SPACES:
    raise ValueError(f'no space {space!r}; choose one of {", ".join(SPACES)}')
  found = {key: np.asarray(score, np.float64) for key, score in scores.items()}
  for key, parts in tree(scores).items():
    if len(parts) == 1:
      found[key] = found[parts[0]]
      continue
    values = np.stack([found[part] for part in parts])  # [P, N]
    weights = None
    if weigh is not None and mean_axis(key) != 'view':
      weights = _normalised([weigh(part, found[part]) for part in parts])
    found[key] = _mean(values, weights, space, scale)
  return {key: score for key, score in found.items() if key not in scores}


def _mean(values: np.ndarray, weights: np.ndarray | None, space: str, scale: str) -> np.ndarray:
  """[P, N] to [N], on the scale of the values."""
  if space == 'logit':
    mean = exact_mean.column_means(scales.to_logits(values, scale, EPSILON), weights)
    mean = scales.from_logits(mean, scale)
    if scale != 'logit':
      percent = 100 if scale.endswith('percent') else 1
      near, far = percent * EPSILON, percent * (1 - EPSILON)
      values = np.clip(values, *((-far, -near) if scales.is_attack_scale(scale) else (near, far)))
  elif scale == 'logit':
    # The mean of the probabilities as a logit, from either end: near 1 they would become one.
    sides = [exact_mean.column_means(scales.share(x, scale), weights) for x in (values, -values)]
    mean = np.subtract(*(np.log(np.maximum(side, np.finfo(np.float64).tiny)) for side in sides))
  else:
    return exact_mean.column_means(values, weights)  # a mean is of no scale
  # Where all parts agree, rounding must not change what they agree on.
  return np.clip(mean, values.min(0), values.max(0))


def val_weights(
  label: np.ndarray, scores: Mapping[Key, np.ndarray], space: str = 'probability', scale: str = ''
) -> dict[Key, float]:
  """What every fold, seed and network weighs, by its development scores: see `WEIGHING`.

  The second term is one error more: a network without any error on dev is not infinitely good.

  Args:
    label: [N] integer, 1 = bona fide, both classes.
    scores: development scores, as `means` takes them.
    space, scale: as in `means`.

  Returns:
    {key: weight}, the parts of each mean summing to 1.

  Raises:
    ValueError: as `means`; only one class, or a part without any score.
  """
  label = np.asarray(label)
  rarer = min(int((label == 1).sum()), int((label == 0).sum()))
  found = {}

  def weigh(key: Key, score: np.ndarray) -> float:
    if not rarer or np.isnan(score).all():
      raise ValueError(f'{key}: dev needs scores of both classes')
    found[key] = 1 / (metrics.eer(metrics.curve(label, score))[0] + 1 / rarer)
    return found[key]

  means(scores, space, weigh, scale)
  weights = {}
  for key, parts in tree(scores).items():
    if mean_axis(key) != 'view':
      of = [found.get(part, 1.0) for part in parts]  # an only part was not weighed
      weights |= dict(zip(parts, _normalised(of).tolist(), strict=True))
  return weights


def _normalised(weights: list[float]) -> np.ndarray:
  weights = np.asarray(weights, np.float64)
  if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
    raise ValueError(f'weights must be finite, not negative, and not all 0: {weights}')
  return weights / weights.sum()
