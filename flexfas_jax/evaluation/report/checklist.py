"""The checklist of a test laboratory, answered from the score files."""

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
_FEW = 5  # subjects with an error, below which bootstrap intervals are too narrow


class Check(NamedTuple):
  """One question and its answer."""

  sign: str  # OK, WARN or FAIL
  question: str
  answer: str


def answer_all(result: EvaluationResult) -> list[Check]:
  """All questions, in the order in which they are asked."""
  return [
    _threshold(result),
    _disjoint_subjects(result),
    _scored(result),
    _classes(result),
    _species(result),
    _weights(result),
    _polarity(result),
    _decisions(result),
    _intervals(result),
  ]


def subjects_of(scores: Scores) -> set[str] | None:
  """The subjects of all samples; None where one is unknown."""
  if not scores.ids.size or (scores.subject == '').any():
    return None
  return set(identity.subjects(scores.dataset.tolist(), scores.subject.tolist()))


def _threshold(result) -> Check:
  question = 'Threshold independent of the test samples'
  if result.oracle:
    return Check(
      FAIL,
      question,
      'ORACLE: fitted on the test samples. The rates do not estimate the performance in operation',
    )
  if not thresholds.needs_dev(result.rule):
    return Check(OK, question, f'fixed in advance ({result.rule})')
  dev = result.dev
  both = np.intersect1d(dev.ids, result.scores.ids).size
  if both:
    return Check(FAIL, question, f'fitted on {both} of the test samples')
  return Check(OK, question, f'{result.rule}, on {dev.ids.size} other samples ({_path(dev)})')


def _disjoint_subjects(result) -> Check:
  question = 'Disjoint subjects in development and test'
  if result.dev is None or not thresholds.needs_dev(result.rule):
    return Check(WARN, question, 'unknown: there are no development scores')
  dev, test = subjects_of(result.dev), subjects_of(result.scores)
  if dev is None or test is None:
    return Check(WARN, question, 'unknown: some samples have no subject')
  if both := sorted(dev & test):
    return Check(FAIL, question, f'{len(both)} subjects are in both: {_some(both)}')
  return Check(OK, question, f'{len(dev)} and {len(test)} subjects, none in both')


def _scored(result) -> Check:
  question = 'Every sample has a score'
  parts, sign = [], OK
  for subset, values in result.metrics.items():
    if subset not in result.estimates:
      parts.append(f'{formatting.display_name(subset)}: {formatting.why_no_figures(values)}')
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
    '; samples without a score count as not accepted'
    if sign != OK and 'without' in str(parts)
    else ''
  )
  return Check(sign, question, '; '.join(parts) + counted if parts else f'all {n}')


def _classes(result) -> Check:
  question = 'Enough samples of both classes'
  n_bona_fide, n_attack = formatting.class_sizes(result)
  counts = f'{n_bona_fide} bona fide samples, {n_attack} attacks'
  if not (n_bona_fide and n_attack):
    return Check(FAIL, question, f'{counts}: metrics that need both are undefined')
  units, bona_fide = sufficiency.SampleUnits(result.scores), result.scores.label == 1
  few = units.insufficient_samples(bona_fide) or units.insufficient_samples(~bona_fide)
  return Check(WARN if few else OK, question, f'{counts}{": n too small" if few else ""}')


def _species(result) -> Check:
  question = 'Enough samples of every PAI species'
  category, species = results.attack_kinds(result.scores)
  kinds, attack = species or category, result.scores.label == 0
  if not kinds:
    return Check(
      WARN,
      question,
      'PAI species unknown: the maximum APCER required by ISO/IEC 30107-3 is undefined',
    )
  n = np.bincount(kinds.index[attack], minlength=len(kinds.names)).tolist()
  of = {name or metrics.UNKNOWN: k for name, k in zip(kinds.names, n, strict=True) if k}
  notes = [] if species else ['categories only: PAI species unknown']
  if unknown := of.get(metrics.UNKNOWN):
    notes.append(f'{unknown} attacks have no species')
  units = sufficiency.SampleUnits(result.scores)
  small = [
    f'{formatting.short(name or metrics.UNKNOWN, formatting.LONGEST)} ({k})'
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
      OK, question, f'{mine[:16]}{" (no development scores)" if dev is not result.dev else ""}'
    )
  return Check(WARN, question, 'unknown: a header does not state the hash of the weights')


def _polarity(result) -> Check:
  """By the AUC, and by the limit of its interval: an AUC near 50 % shows no polarity at all."""
  question = 'A high score means bona fide'
  found = {s: result.estimates[s]['auc'] for s in result.served}
  found = {s: auc for s, auc in found.items() if not math.isnan(auc.value)}
  if not found:
    return Check(WARN, question, 'unknown: the AUC is undefined')
  name = min(found, key=lambda s: found[s].value)
  auc = found[name]
  span = formatting.span(auc.bootstrap)
  answer = f'the lowest AUC is {formatting.percent(auc.value)} % {span}'.rstrip()
  answer += f' ({formatting.display_name(name)})'
  if auc.value < 0.3:
    return Check(FAIL, question, f'{answer}: is the polarity of the scores inverted?')
  low = auc.value if math.isnan(auc.bootstrap.low) else auc.bootstrap.low
  if low <= 0.5:
    return Check(
      WARN, question, f'{answer}: no different from chance, so the scores do not show it'
    )
  return Check(OK, question, answer)


def _decisions(result) -> Check:
  """Whether each class, and each species, has decisions of both kinds where it needs them."""
  question = 'Decisions separate the classes'
  if not result.served:
    return Check(FAIL, question, 'no subset is served')
  digits, total, species = formatting.digits_of(result), [], {}
  for subset in result.served:
    of, name = result.estimates[subset], formatting.display_name(subset)
    for rate, meaning in (
      ('apcer', 'attack is accepted'),
      ('bpcer', 'bona fide sample is rejected'),
    ):
      if of[rate].value == 1:
        total.append(f'{name}: every {meaning}')
    if of['apcer'].value < 1:
      for kind, count in formatting.counts_of_species(result, subset, enough=True).items():
        if count.errors == count.n:
          kind = formatting.short(kind, formatting.LONGEST)
          species.setdefault(kind, []).append(name)
  accepted = [f'every {kind} ({_some(names)})' for kind, names in species.items()]
  if total or accepted:
    parts = total + ([f'accepted: {_some(accepted)}'] if accepted else [])
    return Check(FAIL, question, '; '.join(parts))
  rates = {
    f'{formatting.metric(rate)} of {formatting.display_name(s)}': result.estimates[s][rate].value
    for s in result.served
    for rate in ('apcer', 'apcer_max', 'bpcer')
  }
  name = max(rates, key=lambda name: -math.inf if math.isnan(rates[name]) else rates[name])
  if rates[name] >= 0.5:
    return Check(WARN, question, f'the {name} is {formatting.percent(rates[name], digits)} %')
  return Check(OK, question, 'no class and no species is decided wrongly throughout')


def _intervals(result) -> Check:
  question = 'Confidence intervals over subjects'
  who = result.clusters
  if who is None:
    return Check(WARN, question, 'no bootstrap: intervals assume independent samples')
  if who.unit != 'subjects':
    instead = (
      'videos are resampled' if who.unit == 'videos' else 'samples are resampled as if independent'
    )
    return Check(WARN, question, f'subjects unknown: {instead} ({who.n})')
  answer = f'{who.n} subjects, {who.draws} replicates'
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
      WARN,
      question,
      f'{answer}; too narrow where fewer than {_FEW} subjects have an error: {_some(few)}',
    )
  return Check(OK, question, answer)


def _path(scores: Scores) -> str:
  known = scores.path.name if scores.path else ''
  return known or f'list {score_files.list_hash(scores.ids, scores.label)[:12]}'


def _some(names: list[str]) -> str:
  more = len(names) - _SHOWN
  return ', '.join(names[:_SHOWN]) + (f' and {more} more' if more > 0 else '')
