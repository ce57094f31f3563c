"""The thresholds that a bundle decides by, one for each subset of the modalities."""

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


class Fitted(NamedTuple):
  """The thresholds of a bundle.

  Attributes:
    thresholds: {subset: its threshold as the card has it}.
    evidence: the least that each class must have, as the card has it.
    notes: about subsets without a threshold, and all else that a user must read.
  """

  thresholds: dict[str, dict[str, Any]]
  evidence: dict[str, int]
  notes: list[str]


def presence(source, val: sources.Source) -> dict[str, np.ndarray]:
  """{id: [M] bool, which modalities of a val sample carry signal}, as preprocessing decides it."""
  found = {}
  batches = pipeline.eval_batches(val, source.preprocess, reference.BATCH)
  with Progress('images of val', len(val)) as progress:
    for arrays, known in batches:
      found |= {one['id']: row for one, row in zip(known, arrays['present'], strict=False)}
      progress.update(len(found))
  return found


def fit(
  source,
  scores: score_files.Scores,
  present: Mapping[str, np.ndarray],
  rule: str,
  min_scores: int = evidence.MIN_SCORES,
  min_subjects: int = evidence.MIN_SUBJECTS,
) -> Fitted:
  """The thresholds of the subsets for which val has enough evidence.

  A sample that lacks a modality of a subset has a score there too, by the modalities that remain:
  it is no evidence for that subset, since a device takes the threshold of the modalities that it
  has, and it does not take part in the fit. Where no val sample lacks a modality, thresholds are
  those that evaluation fits. Failures to acquire take part as they do there.

  Args:
    source: what is exported.
    scores: of val, by its weights.
    present: of val, see `presence`.
    rule: see `thresholds.RULES`.
    min_scores, min_subjects: that each class must have.

  Raises:
    ConfigError: a minimum that cannot be.
    StateError: the scores are of other samples than val; no subset has enough evidence.
  """
  if min_scores < 1 or min_subjects < 0:
    raise ConfigError(
      f'--min_val_scores={min_scores} --min_val_subjects={min_subjects}: at least 1 score is '
      'needed, and 0 subjects or more'
    )
  if present.keys() != set(scores.ids.tolist()):
    raise StateError(
      f'{source.folder}: the scores of val are of other samples than {source.config.val} has now; '
      'run --mode=evaluate again'
    )
  there = np.array([present[id_] for id_ in scores.ids.tolist()])  # [N, M]
  found, notes, short = {}, [], []
  for subset in source.subsets:
    name = schema.subset_name(subset)
    score = scores.scores.get(name)
    if score is None or np.isnan(score).all():
      short.append(f'{name} (no score)')
      continue
    complete = there[:, [source.model.modalities.index(m) for m in subset]].all(1)
    counts = evidence.count(scores, name, complete)
    if few := evidence.lacking(counts, min_scores, min_subjects):
      short.append(f'{name} ({few})')
      continue
    of_fewer = ~complete & np.isfinite(score)
    label, score = scores.label[~of_fewer], score[~of_fewer]
    try:
      fitted = thresholds.fit(rule, label, score)
    except StateError as error:
      short.append(f'{name} ({error})')
      continue
    value = steadied(fitted, score) if thresholds.needs_dev(rule) else fitted
    if not 0 < value < 1:  # 0 accepts every face; at 1, rounding decides
      short.append(f'{name} (its threshold would be {value})')
      continue
    if of_fewer.any():
      notes.append(
        f'{name}: {of_fewer.sum()} of {len(of_fewer)} val samples lack one of these modalities. '
        'This threshold is fitted without them, and that of results.json with them.'
      )
    found[name] = {
      'value': value,
      'fitted': fitted,
      'rule': rule,
      'val': source.config.val,
      'list_hash': score_files.list_hash(scores.ids, scores.label),
      'weights_hash': source.weights_hash,
      'n': int(np.isfinite(score).sum()),
      'counts': counts,
    }
  due = f'{min_scores} scores of {min_subjects} subjects of each class on val'
  if not found:
    raise StateError(
      f'{source.folder}: no subset of modalities has enough evidence for a threshold: '
      f'{"; ".join(short)}. Required: {due}. Take a larger val (--config.val) and run '
      '--mode=evaluate, or, for a small set, lower --min_val_scores and --min_val_subjects'
    )
  default = evidence.MIN_SCORES, evidence.MIN_SUBJECTS
  if min_scores < default[0] or min_subjects < default[1]:
    notes.append(
      f'Thresholds were accepted from {due}; the default is {default[0]} of {default[1]}.'
    )
  notes += [f'No threshold for {one}: prediction with that subset is refused.' for one in short]
  if short:
    notes.append(f'A threshold needs {due}, in which all its modalities carry signal.')
  return Fitted(found, {'min_scores': min_scores, 'min_subjects': min_subjects}, notes)


def steadied(threshold: float, score) -> float:
  """A threshold that decides alike on these scores, slightly below the one that it is of.

  A fitted threshold is the score of a sample: computed by another library, whose last bit is
  another, that sample would be rejected.

  Args:
    threshold: one of the scores.
    score: [N] float, NaN where there is none.

  Returns:
    Halfway to the next score below, at most `HAIR` away in the logit; the threshold itself where
    no number lies between.
  """
  score = np.asarray(score, np.float64)
  below = score[score < threshold].max(initial=-math.inf)
  # A score of 1 has no finite logit: the largest that is less than 1 stands for it.
  at = scipy.special.logit(min(threshold, math.nextafter(1, 0)))
  next_ = scipy.special.logit(max(below, 0.0))
  if not math.isfinite(at):
    return threshold
  found = float(scipy.special.expit(max((at + next_) / 2, at - HAIR)))
  return found if below < found <= threshold else threshold
