"""What a laboratory asks of a test, and the answers that its scores give."""

import math
from typing import NamedTuple

import numpy as np

from flexfas_jax import identity
from flexfas_jax.evaluation import (
  intervals,
  metrics,
  results,
  score_files,
  sufficiency,
  thresholds,
)
from flexfas_jax.evaluation.evaluate import EvaluationResult
from flexfas_jax.evaluation.report import formatting
from flexfas_jax.evaluation.score_files import Scores

OK, WARN, FAIL = 'ok', 'warn', 'fail'
_SHOWN = 6  # names that an answer lists
_FEW = 5  # people with an error, below which the bootstrap is too sure


class Check(NamedTuple):
  """One question and its answer."""

  sign: str  # OK, WARN or FAIL
  question: str
  answer: str


def answer_all(result: EvaluationResult) -> list[Check]:
  """All questions, in the order in which they are asked."""
  return [
    _threshold(result),
    _people_apart(result),
    _scored(result),
    _classes(result),
    _species(result),
    _weights(result),
    _polarity(result),
    _people_known(result),
  ]


def subjects_of(scores: Scores) -> set[str] | None:
  """The subjects of all samples; None where one is unknown."""
  if not scores.ids.size or (scores.subject == '').any():
    return None
  return set(identity.subjects(scores.dataset.tolist(), scores.subject.tolist()))


def _threshold(result) -> Check:
  question = 'Threshold fitted on other samples than it judges'
  if result.oracle:
    return Check(
      FAIL,
      question,
      'ORACLE: fitted on the samples that it judges. The rates are the best that could be, not '
      'what a user of the system will see',
    )
  if not thresholds.needs_dev(result.rule):
    return Check(OK, question, f'fixed in advance ({result.rule})')
  dev = result.dev
  both = np.intersect1d(dev.ids, result.scores.ids).size
  if both:
    return Check(FAIL, question, f'{both} of the samples that it judges are among those')
  return Check(OK, question, f'{result.rule}, on {dev.ids.size} other samples ({_path(dev)})')


def _people_apart(result) -> Check:
  question = 'People of development and test apart'
  if result.dev is None or not thresholds.needs_dev(result.rule):
    return Check(WARN, question, 'not known: there are no development scores')
  dev, test = subjects_of(result.dev), subjects_of(result.scores)
  if dev is None or test is None:
    return Check(WARN, question, 'not known: there are samples whose person is not told')
  if both := sorted(dev & test):
    return Check(FAIL, question, f'{len(both)} people are in both: {_some(both)}')
  return Check(OK, question, f'{len(dev)} and {len(test)} people, none in both')


def _scored(result) -> Check:
  question = 'Every sample has a score'
  parts, sign = [], OK
  for subset, values in result.metrics.items():
    if subset not in result.estimates:
      parts.append(f'{formatting.display_name(subset)}: not served')
      sign = WARN if sign == OK else sign
    elif values['n_fta']:
      bad = len(result.scores.nan_samples.get(subset, ()))
      sign = FAIL if bad or sign == FAIL else WARN
      parts.append(
        f'{formatting.display_name(subset)}: {values["n_fta"]} without (APNRR '
        f'{formatting.percent(values["apnrr"], 2)} %, '
        f'BPNRR {formatting.percent(values["bpnrr"], 2)} %)'
        + (f', of which {bad} are nan, a fault of the model' if bad else '')
      )
  n = result.scores.label.size
  counted = (
    '; what has no score counts as not accepted' if sign != OK and 'without' in str(parts) else ''
  )
  return Check(sign, question, '; '.join(parts) + counted if parts else f'all {n}')


def _classes(result) -> Check:
  question = 'Enough samples of both classes'
  n_bona_fide, n_attack = formatting.class_sizes(result)
  counts = f'{n_bona_fide} bona fide samples, {n_attack} attacks'
  if not (n_bona_fide and n_attack):
    return Check(FAIL, question, f'{counts}: what needs both is undefined')
  units, bona_fide = sufficiency.Units(result.scores), result.scores.label == 1
  few = units.insufficient_samples(bona_fide) or units.insufficient_samples(~bona_fide)
  return Check(WARN if few else OK, question, f'{counts}{": n too small" if few else ""}')


def _species(result) -> Check:
  question = 'Enough samples of every PAI species'
  category, species = results.attack_kinds(result.scores)
  kinds, attack = species or category, result.scores.label == 0
  if not kinds:
    return Check(
      WARN, question, 'no species is known: the maximum that ISO/IEC 30107-3 asks for is undefined'
    )
  n = np.bincount(kinds.index[attack], minlength=len(kinds.names)).tolist()
  of = {name or metrics.UNKNOWN: k for name, k in zip(kinds.names, n, strict=True) if k}
  notes = [] if species else ['categories only: no species is known']
  if unknown := of.get(metrics.UNKNOWN):
    notes.append(f'{unknown} attacks are of no known species')
  units = sufficiency.Units(result.scores)
  small = [
    f'{name or metrics.UNKNOWN} ({k})'
    for i, (name, k) in enumerate(zip(kinds.names, n, strict=True))
    if units.insufficient_samples(attack & (kinds.index == i))
  ]
  if small:
    notes.append(
      f'n too small (below {intervals.MIN_SAMPLES} samples or {intervals.MIN_SUBJECTS} subjects): '
      + _some(small)
    )
  every = f'{len(of)} with {min(of.values())} to {max(of.values())} samples'
  return Check(WARN if notes else OK, question, '; '.join([*notes, every]))


def _weights(result) -> Check:
  question = 'Development and test scored by the same weights'
  dev = result.dev if result.dev is not None else result.scores
  mine, others = (str(x.header.get('weights_hash') or '') for x in (result.scores, dev))
  if mine and others:
    if mine != others:
      return Check(FAIL, question, f'{others} and {mine}')
    return Check(
      OK, question, f'{mine[:16]}{" (there are no others)" if dev is not result.dev else ""}'
    )
  return Check(WARN, question, 'not known: a header without the hash of the weights')


def _polarity(result) -> Check:
  question = 'A high score means bona fide'
  found = {formatting.display_name(s): result.metrics[s]['auc'] for s in result.served}
  found = {name: auc for name, auc in found.items() if not math.isnan(auc)}
  if not found:
    return Check(WARN, question, 'not known: the AUC is undefined')
  name = min(found, key=found.get)
  answer = f'the lowest AUC is {formatting.percent(found[name])} % ({name})'
  if found[name] < 0.3:
    return Check(FAIL, question, f'{answer}: are the scores the wrong way round?')
  return Check(OK if found[name] > 0.5 else WARN, question, answer)


def _people_known(result) -> Check:
  question = 'Intervals heed who the samples are of'
  who = result.clusters
  if who is None:
    return Check(WARN, question, 'no bootstrap was made: intervals take samples for independent')
  if who.unit != 'subjects':
    instead = 'videos are drawn' if who.unit == 'videos' else 'samples are drawn as if independent'
    return Check(WARN, question, f'people are not known: {instead} ({who.n})')
  answer = f'{who.n} people drawn {who.draws} times'
  few = []
  for subset in result.served:
    score, label = result.scores.scores[subset], result.scores.label
    with np.errstate(invalid='ignore'):
      wrong = (score >= result.metrics[subset]['threshold']) != (label == 1)
    for rate, of in (('APCER', label == 0), ('BPCER', label == 1)):
      n = np.unique(who.of[wrong & of]).size
      if 0 < n < _FEW:
        few.append(f'{rate} of {formatting.display_name(subset)} ({n})')
  if few:
    return Check(
      WARN, question, f'{answer}; too sure where fewer than {_FEW} have an error: {_some(few)}'
    )
  return Check(OK, question, answer)


def _path(scores: Scores) -> str:
  known = scores.path.name if scores.path else ''
  return known or f'list {score_files.list_hash(scores.ids, scores.label)[:12]}'


def _some(names: list[str]) -> str:
  more = len(names) - _SHOWN
  return ', '.join(names[:_SHOWN]) + (f' and {more} more' if more > 0 else '')
