"""The thresholds that a bundle decides by, one for each subset of the modalities."""

import math
from typing import Any

import numpy as np
import scipy.special

from flexfas_jax import schema
from flexfas_jax.errors import StateError
from flexfas_jax.evaluation import score_files, scoring, thresholds
from flexfas_jax.export import reference
from flexfas_jax.input_pipeline import pipeline, sources

HAIR = 1e-3  # in the logit: what a format may be off


def rule_of(config) -> str:
  """The rule: that of the first test which has one that is fitted on val; else the EER's."""
  rules = [config.threshold[name] for name in sorted(config.test, key=lambda n: n != 'intra')]
  return next(filter(thresholds.needs_dev, rules), 'dev_eer')


def val_scores(source, val: sources.Source) -> tuple[score_files.Scores, str]:
  """(the val set's scores by the exported weights, where they are from).

  Those of the workdir are taken where they are of these weights, computed in float32 and by the
  view that is exported alone; else val is scored anew, all of it.
  """
  path = source.folder / 'scores' / 'val.csv'
  if path.is_file():
    scores = score_files.read(path)
    config = scores.header.get('config', {})
    dtype = config.get('model', {}).get('dtype', 'float32')
    alike = dtype == 'float32' and config.get('views', ['whole']) == [source.view]
    if scores.header.get('weights_hash') == source.weights_hash and alike:
      return scores, 'scores/val.csv'
  score = scoring.make_scorer(source.model, source.subsets, lambda batch: batch)
  batches = pipeline.eval_batches(val, source.preprocess, reference.BATCH)
  return score(source.variables, batches, {'weights_hash': source.weights_hash}), 'scored anew'


def fit(source, scores: score_files.Scores, rule: str) -> dict[str, dict[str, Any]]:
  """{subset: its threshold as the card has it}, of the subsets that val can tell of.

  Args:
    source: what is exported.
    scores: of val, by its weights.
    rule: see `thresholds.RULES`.

  Raises:
    StateError: val has no scores under any subset.
  """
  found = {}
  for subset in map(schema.subset_name, source.subsets):
    score = scores.scores.get(subset)
    if score is None or np.isnan(score).all():
      continue
    fitted = thresholds.fit(rule, scores.label, score)
    found[subset] = {
      'value': steadied(fitted, score) if thresholds.needs_dev(rule) else fitted,
      'fitted': fitted,
      'rule': rule,
      'val': source.config.val,
      'list_hash': score_files.list_hash(scores.ids, scores.label),
      'n': int(np.isfinite(score).sum()),
    }
  if not found:
    raise StateError(
      f'{source.folder} has no scores of val to take thresholds from; run --mode=evaluate'
    )
  return found


def steadied(threshold: float, score) -> float:
  """A threshold that decides alike on these scores, and a hair below the one that it is of.

  A fitted threshold is the score of a sample: computed by another library, whose last bit is
  another, that sample would be rejected.

  Args:
    threshold: one of the scores.
    score: [N] float, NaN where there is none.

  Returns:
    Halfway to the next score below, at most `HAIR` away in the logit.
  """
  at = scipy.special.logit(threshold)
  below = scipy.special.logit(np.asarray(score, np.float64)[np.asarray(score) < threshold])
  if not math.isfinite(at):
    return threshold
  next_ = below.max() if below.size else -math.inf
  return float(scipy.special.expit(max((at + next_) / 2, at - HAIR)))
