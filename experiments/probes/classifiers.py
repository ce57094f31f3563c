"""Classifiers of feature vectors, tuned on val over small grids. Scores are logits of bona fide."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from flexfas_jax.evaluation import metrics

GRIDS: dict[str, list[dict]] = {
  'logistic': [{'C': C} for C in (1e-4, 1e-3, 1e-2, 1e-1, 1.0)],
  'svm': [{'C': C, 'gamma': gamma} for C in (1.0, 10.0) for gamma in ('scale', 1e-3)],
  'trees': [{'max_leaf_nodes': n} for n in (4, 16)],
}


class Fit(NamedTuple):
  """What tuning found: the setting, how many were tried, and the logits by set of samples."""

  setting: str
  tried: int
  logits: dict[str, np.ndarray]


def make(kind: str, setting: Mapping, seed: int):
  """An unfitted estimator; both classes weigh alike, so that a logit of 0 is a fair threshold."""
  if kind == 'trees':
    return HistGradientBoostingClassifier(
      class_weight='balanced', early_stopping=False, max_bins=63, random_state=seed, **setting
    )
  last = {
    'logistic': lambda: LogisticRegression(class_weight='balanced', max_iter=2000, **setting),
    'svm': lambda: SVC(class_weight='balanced', **setting),
  }[kind]()
  # An image that was not acquired has the mean of the training set.
  return make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), last)


def errors(label: np.ndarray, logit: np.ndarray) -> tuple[float, float]:
  """Sort key on val, the best first: EER, then AUC."""
  points = metrics.curve(label, logit)
  return metrics.eer(points)[0], -metrics.auc(points)


def tune(
  kind: str,
  inputs: Mapping[str, np.ndarray],
  labels: Mapping[str, np.ndarray],
  seed: int,
) -> Fit:
  """Fits every setting of a kind's grid on 'train', and keeps the best on 'val'.

  Args:
    kind: of `GRIDS`.
    inputs: {'train', 'val' or a test: [N, D]}, NaN where not acquired.
    labels: {'train', 'val': [N]}, 1 = bona fide.
    seed: of the trees.
  """
  best = None
  for setting in GRIDS[kind]:
    estimator = make(kind, setting, seed).fit(inputs['train'], labels['train'])
    key = errors(labels['val'], estimator.decision_function(inputs['val']))
    if best is None or key < best[0]:
      best = key, setting, estimator
  _, setting, estimator = best
  text = ', '.join(f'{name}={value:g}' if isinstance(value, float) else f'{name}={value}'
                   for name, value in setting.items())  # fmt: skip
  logits = {name: estimator.decision_function(x) for name, x in inputs.items() if name != 'train'}
  return Fit(text, len(GRIDS[kind]), logits)


def single(inputs: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> Fit:
  """One number as a classifier, in the direction that is better on 'val'.

  A logistic regression on 'train' places the fixed threshold; it changes no rank.

  Args:
    inputs: {'train', 'val' or a test: [N, 1]}.
    labels: as in `tune`.
  """
  estimator = make('logistic', {'C': 1e3}, 0).fit(inputs['train'], labels['train'])
  logits = {name: estimator.decision_function(x) for name, x in inputs.items() if name != 'train'}
  rising = estimator[-1].coef_[0, 0] >= 0
  if errors(labels['val'], -logits['val']) < errors(labels['val'], logits['val']):
    logits, rising = {name: -logit for name, logit in logits.items()}, not rising
  return Fit(f'bona fide is {"above" if rising else "below"}', 2, logits)


def stack(vectors: Mapping, groups: Sequence[str], modalities: Sequence[str]) -> np.ndarray:
  """Feature vectors of several groups and modalities side by side, [N, D]."""
  return np.concatenate([vectors[group, m] for group in groups for m in modalities], 1)
