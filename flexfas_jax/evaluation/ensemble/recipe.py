"""One subset of an ensemble: its means, the weights and the calibration that dev gives."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.evaluation import calibration, scales, thresholds
from flexfas_jax.evaluation.calibration import Calibration
from flexfas_jax.evaluation.ensemble import averaging, validation
from flexfas_jax.evaluation.ensemble.averaging import Key
from flexfas_jax.evaluation.ensemble.members import Member


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How an ensemble is made.

  Raises:
    ConfigError: a calibration or threshold rule that is none.
  """

  space: str = 'probability'  # one of `ensembles.SPACES`
  weights: str = 'equal'  # or 'val', as `ensembles.val_weights`
  calibrate: str = ''  # one of `calibration.METHODS`, or 'piecewise=T'
  rule: str = 'fixed=0.5'  # of the thresholds of tables, and of piecewise

  def __post_init__(self):
    thresholds.needs_dev(self.rule)
    method, equals, value = self.calibrate.partition('=')
    if self.calibrate and (
      method not in calibration.METHODS or (equals and (method != 'piecewise' or not _known(value)))
    ):
      raise ConfigError(
        f'--calibrate={self.calibrate}: choose {", ".join(calibration.METHODS)}, or piecewise=T '
        'with a threshold between 0 and 1'
      )

  @property
  def fits_calibration(self) -> bool:
    return bool(self.calibrate) and '=' not in self.calibrate

  @property
  def fits(self) -> bool:
    """Whether what comes out depends on development scores."""
    return self.weights == 'val' or self.fits_calibration


class Averaged(NamedTuple):
  """A subset's means, and what was fitted for them."""

  tree: Mapping[Key, Sequence[Key]]  # as `ensembles.tree`
  means: Mapping[Key, np.ndarray]  # as `ensembles.means`, () being the ensemble: [N]
  label: np.ndarray  # [N]
  dev_means: Mapping[Key, np.ndarray] | None = None  # [M] each
  dev_label: np.ndarray | None = None  # [M]
  weights: Mapping[Key, float] | None = None  # None: all alike
  calibration: Calibration | None = None  # of the ensemble alone
  scale: str = ''  # of the means, as in `scales`

  @property
  def served(self) -> bool:
    return not np.isnan(self.means[()]).all()

  @property
  def final_scale(self) -> str:
    """The scale of `final`."""
    return self.calibration.result_scale if self.calibration else self.scale

  def final(self, dev: bool = False) -> np.ndarray:
    """The ensemble's scores, calibrated: [N], or [M] of dev."""
    score = (self.dev_means if dev else self.means)[()]
    return self.calibration(score) if self.calibration else score


def average(
  recipe: Recipe, members: Sequence[Member], devs: Sequence[Member] | None, subset: str
) -> Averaged:
  """Averages a subset.

  Args:
    recipe: how; what `fits` needs `devs`.
    members: from `member_checks.agreed`.
    devs: from `member_checks.matched`, or None.
    subset: one that they have.

  Raises:
    ConfigError: a view that is there twice.
    StateError: development scores that give no weights, or no calibration.
  """
  scores = validation.scores_by_key(members, subset)
  scale = members[0].scores.scale
  found = Averaged(averaging.tree(scores), {}, members[0].scores.label, scale=scale)
  weigh, served = None, not np.isnan([*scores.values()]).all()
  if devs:
    dev_scores, label = validation.scores_by_key(devs, subset), devs[0].scores.label
    if recipe.weights == 'val' and served:
      try:
        weights = averaging.val_weights(label, dev_scores, recipe.space, scale)
      except ValueError as error:
        raise StateError(f'--weights=val, {subset}: {error}') from error
      found, weigh = found._replace(weights=weights), lambda key, _: weights[key]
    dev_means = averaging.means(dev_scores, recipe.space, weigh, scale)
    found = found._replace(dev_means=dev_means, dev_label=label)
  found = found._replace(means=averaging.means(scores, recipe.space, weigh, scale))
  if recipe.calibrate and found.served:
    try:
      found = found._replace(calibration=_calibration(recipe, found))
    except StateError as error:
      raise StateError(f'--calibrate={recipe.calibrate}, {subset}: {error}') from error
  return found


def _calibration(recipe: Recipe, found: Averaged) -> Calibration:
  method, known, value = recipe.calibrate.partition('=')
  if known:
    return calibration.piecewise(scales.fixed_threshold(value, found.scale), found.scale)
  return calibration.fit(method, found.dev_label, found.dev_means[()], recipe.rule, found.scale)


def _known(threshold: str) -> bool:
  try:
    return 0 < float(threshold) < 1
  except ValueError:
    return False
