"""The contents of a report as JSON: what ISO/IEC 30107-3 and ISO/IEC 19795-1 ask for, in numbers.

`record.schema.json` in this folder is its schema. The page shows tables of the same contents.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import flexfas_jax
from flexfas_jax import identity
from flexfas_jax.evaluation import (
  evidence,
  intervals,
  metrics,
  pass_if,
  results,
  score_files,
  subject_rates,
  thresholds,
)
from flexfas_jax.evaluation.evaluate import Estimate, EvaluationResult
from flexfas_jax.evaluation.intervals import Interval
from flexfas_jax.evaluation.report import checklist, formatting, tables

FORMAT, VERSION = 'flexfas_jax evaluation report', 1
STANDARDS = ('ISO/IEC 30107-3', 'ISO/IEC 19795-1')


def build(
  evaluations: Sequence[EvaluationResult],
  title: str,
  description: Mapping[str, Mapping[str, Any]] | None = None,
  notes: Sequence[str] = (),
) -> dict[str, Any]:
  """The record of some tests; NaN is None.

  Args:
    evaluations: of each test.
    title: of the report.
    description: from `test_description.read`; None: nothing is stated.
    notes: on all tests.
  """
  return results.json_safe(
    {
      'format': FORMAT,
      'version': VERSION,
      'software': f'flexfas_jax {flexfas_jax.__version__}',
      'standards': list(STANDARDS),
      'title': title,
      'description': dict(description) if description else None,
      'notes': list(notes),
      'tests': [_test(result, description or {}) for result in evaluations],
    }
  )


def _test(result: EvaluationResult, description: Mapping) -> dict[str, Any]:
  unit = result.clusters
  return {
    'name': result.name,
    'verdict': formatting.verdict_word(result),
    'requirement': result.requirement.text if result.requirement else None,
    'verdicts': [
      {
        'system': verdict.system,
        'passed': verdict.passed,
        'reasons': formatting.reasons(verdict, formatting.digits_of(result)),
        'checks': [{'subset': check.subset, **pass_if.to_json(check)} for check in verdict.checks],
      }
      for verdict in result.verdicts
    ],
    'rendered': result.rendered,
    'oracle': result.oracle,
    'warnings': tables.banner(result),
    'threshold_rule': result.rule,
    'intervals': {
      'confidence': intervals.CONFIDENCE,
      'bootstrap_over': unit.unit if unit else None,
      'units': unit.n if unit else None,
      'replicates': unit.draws if unit else 0,
    },
    'samples': _samples(result.scores),
    'development': _samples(result.dev) if _has_dev(result) else None,
    'bona_fide': _presentations(result, result.scores.label == 1),
    'subsets': {subset: _subset(result, subset) for subset in result.metrics},
    'methods': {
      name: {
        'runs': list(result.runs[name]),
        'rates': {
          metric: {
            'value': mean.value,
            'deviation': mean.deviation,
            'bootstrap': _limits(mean.bootstrap),
            'insufficient_samples': mean.insufficient_samples,
          }
          for metric, mean in means.items()
        },
      }
      for name, means in result.run_means.items()
    },
    'species': species(result, description.get('species', {})),
    'subjects': {
      subset: [
        {
          'subject': one.subject,
          'class': one.label,
          'errors': one.count.errors,
          'n': one.count.n,
          'p': one.p,
          'outlier': one.outlier,
        }
        for one in subjects(result, subset)
        if one.count.errors
      ]
      for subset in result.served
    },
    'checks': [check._asdict() for check in checklist.answer_all(result)],
    'notes': list(result.notes),
  }


def subjects(result: EvaluationResult, subset: str) -> list[subject_rates.SubjectRate]:
  """The rates of every subject under a subset, the least probable first."""
  return subject_rates.compute(result.scores, subset, result.metrics[subset]['threshold'])


def species_names(scores: score_files.Scores) -> list[str]:
  """The PAI species of some scores, or the categories where no species is known."""
  category, kinds = results.attack_kinds(scores)
  kinds = kinds or category
  if kinds is None:
    return []
  present = np.unique(kinds.index[scores.label == 0]).tolist()
  return [kinds.names[i] or metrics.UNKNOWN for i in present]


def species(result: EvaluationResult, described: Mapping[str, Mapping]) -> list[dict[str, Any]]:
  """Every PAI species (or category): what it is, its counts, and its APCER under every subset.

  Args:
    result: of the test.
    described: by name, as `test_description.read` gives them.
  """
  category, kinds = results.attack_kinds(result.scores)
  kinds = kinds or category
  if kinds is None:
    return []
  attack, found = result.scores.label == 0, []
  for i, name in enumerate(kinds.names):
    among = attack & (kinds.index == i)
    if not among.any():
      continue
    name = name or metrics.UNKNOWN
    of = described.get(name, {})
    categories = sorted(set(result.scores.attack_category[among].tolist()) - {''})
    rates = {}
    for subset in result.served:
      estimates = result.estimates[subset]
      estimate = estimates.get(f'apcer_species/{name}', estimates.get(f'apcer/{name}'))
      if estimate is not None:
        rates[subset] = _estimate(estimate)
    found.append(
      {
        'name': name,
        'category': ', '.join(categories) or None,
        'description': of.get('description'),
        'source': of.get('source'),
        'instruments': of.get('instruments'),
        'level': of.get('level'),
        **_presentations(result, among),
        'apcer': rates,
      }
    )
  return found


def _presentations(result: EvaluationResult, among: np.ndarray) -> dict[str, Any]:
  """Subjects, presentations (videos) and samples among some, and how many have no score.

  Args:
    result: of the test.
    among: [N] bool.
  """
  scores = result.scores
  subject, video = (column[among] for column in (scores.subject, scores.video))
  names = identity.subjects(scores.dataset[among].tolist(), subject.tolist())
  videos = zip(names, video.tolist(), strict=True)
  missing = {
    subset: int((np.isnan(scores.scores[subset]) & among).sum()) for subset in result.served
  }
  return {
    'subjects': None if (subject == '').any() else len(set(names)),
    'presentations': None if (video == '').any() else len(set(videos)),
    'samples': int(among.sum()),
    'no_response': missing,
  }


def _subset(result: EvaluationResult, subset: str) -> dict[str, Any]:
  served, lacking = subset in result.estimates, result.metrics[subset].get(results.NOT_RECORDED)
  return {
    'served': served,
    **({'not_recorded': lacking} if lacking else {}),
    'threshold': result.metrics[subset]['threshold'],
    'fitted_on': fitted_on(result, subset),
    'rates': {
      name: _estimate(estimate)
      for name, estimate in result.estimates.get(subset, {}).items()
      if not (name in metrics.BY_NAME and metrics.BY_NAME[name].oracle)
    },
  }


def fitted_on(result: EvaluationResult, subset: str) -> dict[str, dict[str, int]] | None:
  """{class: {'scores', 'subjects'}} behind a threshold; None where it is fixed or not served."""
  if not thresholds.needs_dev(result.rule) or subset not in result.estimates:
    return None
  dev = result.scores if result.dev is None else result.dev
  return evidence.count(dev, subset) if subset in dev.scores else None


def _has_dev(result: EvaluationResult) -> bool:
  return result.dev is not None and thresholds.needs_dev(result.rule)


def _samples(scores: score_files.Scores) -> dict[str, Any]:
  n_bona_fide = int((scores.label == 1).sum())
  header = scores.header
  known = checklist.subjects_of(scores)
  return {
    'file': str(scores.path) if scores.path else None,
    'list_hash': score_files.list_hash(scores.ids, scores.label),
    'weights_hash': str(header['weights_hash']) if header.get('weights_hash') else None,
    'n_bona_fide': n_bona_fide,
    'n_attack': scores.ids.size - n_bona_fide,
    'subjects': None if known is None else len(known),
    'data_sets': sorted(set(scores.dataset.tolist()) - {''}),
  }


def _estimate(estimate: Estimate) -> dict[str, Any]:
  return {
    'value': estimate.value,
    'errors': estimate.count.errors if estimate.count else None,
    'n': estimate.count.n if estimate.count else None,
    'subjects': estimate.n_subjects or None,
    'clopper_pearson': _limits(estimate.exact),
    'samples_method': None if math.isnan(estimate.exact.low) else estimate.method,
    'bootstrap': _limits(estimate.bootstrap),
    'insufficient_samples': estimate.insufficient_samples,
  }


def _limits(interval: Interval) -> list[float] | None:
  return None if math.isnan(interval.low) else [interval.low, interval.high]
