"""The thresholds of a bundle, one for each subset of the modalities."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.special

from flexfas_jax import schema
from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.evaluation import evidence, score_files, thresholds
from flexfas_jax.export import reference
from flexfas_jax.input_pipeline import pipeline, sources
from flexfas_jax.progress import Progress
from flexfas_jax.training import scoring

LOGIT_TOLERANCE = 1e-3  # rounding differences of an exported format, in the logit


class FittedThresholds(NamedTuple):
  """The thresholds of a bundle.

  Attributes:
    thresholds: {subset: its entry in the card}.
    evidence: the least number of scores and subjects of each class, as in the card.
    notes: about subsets without a threshold, and other limits of the thresholds.
  """

  thresholds: dict[str, dict[str, Any]]
  evidence: dict[str, int]
  notes: list[str]


def choose_rule(config) -> str:
  """The rule of the first test set whose rule is fitted on val, 'intra' first; else 'dev_eer'."""
  rules = [config.threshold[name] for name in sorted(config.test, key=lambda n: n != 'intra')]
  return next(filter(thresholds.needs_dev, rules), 'dev_eer')


def get_val_scores(trained, val: sources.Source) -> tuple[score_files.Scores, str]:
  """(scores of the val set by the exported weights, their origin for the card).

  The workdir's score file is used if it has these weights, float32 and the exported view alone;
  otherwise the whole val set is scored.
  """
  path = trained.folder / 'scores' / 'val.csv'
  if path.is_file():
    scores = score_files.read(path)
    config = scores.header.get('config', {})
    dtype = config.get('model', {}).get('dtype', 'float32')
    same_form = dtype == 'float32' and config.get('views', ['whole']) == [trained.view]
    if scores.header.get('weights_hash') == trained.weights_hash and same_form:
      return scores, 'scores/val.csv'
  score = scoring.make_scorer(trained.model, trained.subsets, lambda batch: batch)
  batches = pipeline.eval_batches(val, trained.preprocess, reference.BATCH)
  header = {'weights_hash': trained.weights_hash}
  return score(trained.variables, batches, header), 'scored by the export'


def read_presence(trained, val: sources.Source) -> dict[str, np.ndarray]:
  """{id: [M] bool, the modalities of a val sample that carry signal}, as preprocessing decides."""
  presence = {}
  batches = pipeline.eval_batches(val, trained.preprocess, reference.BATCH)
  with Progress('images of val', len(val)) as progress:
    for arrays, metadata in batches:
      rows = zip(metadata, arrays['present'], strict=False)  # the last batch is padded
      presence |= {sample['id']: present for sample, present in rows}
      progress.update(len(presence))
  return presence


def fit(
  trained,
  scores: score_files.Scores,
  presence: Mapping[str, np.ndarray],
  rule: str,
  min_scores: int = evidence.MIN_SCORES,
  min_subjects: int = evidence.MIN_SUBJECTS,
) -> FittedThresholds:
  """Fits the thresholds of the subsets for which val has enough evidence.

  A sample that lacks a modality of a subset has a score under it, computed from the remaining
  modalities. Such a score is no evidence for the subset, since a device applies the threshold of
  the modalities that it has; the fit leaves it out. Where no val sample lacks a modality, the
  thresholds equal those of evaluation. Failures to acquire count as in evaluation.

  Args:
    trained: the exported `TrainedModel`.
    scores: of val, by its weights.
    presence: of val, see `read_presence`.
    rule: see `thresholds.RULES`.
    min_scores, min_subjects: the least number of each class.

  Raises:
    ConfigError: an impossible minimum.
    StateError: the scores belong to other samples than val, or no subset has enough evidence.
  """
  if min_scores < 1 or min_subjects < 0:
    raise ConfigError(
      f'--min_val_scores={min_scores} --min_val_subjects={min_subjects}: give at least 1 score '
      'and at least 0 subjects'
    )
  if presence.keys() != set(scores.ids.tolist()):
    raise StateError(
      f'{trained.folder}: the scores of val belong to other samples than {trained.config.val} has '
      'now; run --mode=evaluate again'
    )
  present = np.array([presence[id_] for id_ in scores.ids.tolist()])  # [N, M]
  fitted, notes, refused = {}, [], []
  for subset in trained.subsets:
    name = schema.subset_name(subset)
    score = scores.scores.get(name)
    if score is None or np.isnan(score).all():
      refused.append(f'{name} (no score)')
      continue
    complete = present[:, [trained.model.modalities.index(m) for m in subset]].all(1)
    counts = evidence.count(scores, name, complete)
    if lacking := evidence.describe_shortage(counts, min_scores, min_subjects):
      refused.append(f'{name} ({lacking})')
      continue
    incomplete = ~complete & np.isfinite(score)
    label, score = scores.label[~incomplete], score[~incomplete]
    try:
      value = raw_value = thresholds.fit(rule, label, score)
    except StateError as error:
      refused.append(f'{name} ({error})')
      continue
    if thresholds.needs_dev(rule):
      value = nudge_threshold(raw_value, score)
    if not 0 < value < 1:  # 0 accepts every face; at 1, rounding decides
      refused.append(f'{name} (its threshold would be {value})')
      continue
    if incomplete.any():
      notes.append(
        f'{name}: {incomplete.sum()} of {len(incomplete)} val samples lack one of these '
        'modalities. This threshold is fitted without them, that of results.json with them.'
      )
    fitted[name] = {
      'value': value,
      'fitted': raw_value,
      'rule': rule,
      'val': trained.config.val,
      'list_hash': score_files.list_hash(scores.ids, scores.label),
      'weights_hash': trained.weights_hash,
      'n': int(np.isfinite(score).sum()),
      'counts': counts,
    }
  minimum = f'{min_scores} scores of {min_subjects} subjects of each class on val'
  if not fitted:
    raise StateError(
      f'{trained.folder}: no subset of modalities has enough evidence for a threshold: '
      f'{"; ".join(refused)}. Required: {minimum}. Take a larger val (--config.val) and run '
      '--mode=evaluate, or, for a small set, lower --min_val_scores and --min_val_subjects'
    )
  default_scores, default_subjects = evidence.MIN_SCORES, evidence.MIN_SUBJECTS
  if min_scores < default_scores or min_subjects < default_subjects:
    notes.append(
      f'Thresholds were accepted from {minimum}; the default is {default_scores} of '
      f'{default_subjects}.'
    )
  notes += [f'No threshold for {one}: prediction with that subset is refused.' for one in refused]
  if refused:
    notes.append(f'A threshold needs {minimum}, in which all its modalities carry signal.')
  minimums = {'min_scores': min_scores, 'min_subjects': min_subjects}
  return FittedThresholds(fitted, minimums, notes)


def nudge_threshold(threshold: float, score) -> float:
  """Moves a threshold slightly below the score it equals; no decision on these scores changes.

  A fitted threshold is the score of a sample. Another runtime may round that score down, and would
  reject the sample.

  Args:
    threshold: one of the scores.
    score: [N] float, NaN where there is none.

  Returns:
    The middle between the threshold and the next lower score, in the logit, at most
    `LOGIT_TOLERANCE` lower; the threshold itself where no number lies between.
  """
  score = np.asarray(score, np.float64)
  next_lower = score[score < threshold].max(initial=-math.inf)
  # The logit of 1 is infinite: take the largest number below 1.
  logit = scipy.special.logit(min(threshold, math.nextafter(1, 0)))
  lower_logit = scipy.special.logit(max(next_lower, 0.0))
  if not math.isfinite(logit):
    return threshold
  middle = max((logit + lower_logit) / 2, logit - LOGIT_TOLERANCE)
  nudged = float(scipy.special.expit(middle))
  return nudged if next_lower < nudged <= threshold else threshold
