"""Which figures rest on too few samples or subjects to be stated: one rule for every table.

The rule for one rate is `intervals.insufficient_samples`. A metric computed from several rates has
insufficient samples if one of them has; a maximum over species, if all species that attain it have.
"""

import numpy as np

from flexfas_jax import schema
from flexfas_jax.evaluation import aggregation, bootstrap, intervals, metrics, results
from flexfas_jax.evaluation.score_files import Scores


class SampleUnits:
  """The independent units that the samples are of: subjects, or else videos, or else samples.

  Args:
    scores: of N samples.
  """

  def __init__(self, scores: Scores):
    who = bootstrap.make_clusters(
      scores.label, scores.dataset, *aggregation.cluster_columns(scores), 0
    )
    self._of, self._n = who.of, who.n
    self._independent = who.unit == 'samples'

  def insufficient_samples(self, among: np.ndarray) -> bool:
    """Whether the samples `among` [N] bool are too few for a rate."""
    n = int(np.count_nonzero(among))
    if self._independent:
      return intervals.insufficient_samples(n)
    return intervals.insufficient_samples(n, int(np.count_nonzero(np.bincount(self._of[among]))))


def insufficient_metrics(
  scores: Scores,
  found: results.Results,
  units: SampleUnits | None = None,
  kinds: results.Kinds | None = None,
) -> dict[str, frozenset[str]]:
  """The metrics that have too few samples or subjects, by subset.

  Args:
    scores: that were evaluated.
    found: their figures.
    units, kinds: of the scores, where they are known already; `results.attack_kinds`.
  """
  units, attack = units or SampleUnits(scores), scores.label == 0
  few = _of_labels(units, scores)
  category, species = kinds or results.attack_kinds(scores)
  for prefix, kinds in (('apcer/', category or species), ('apcer_species/', species)):
    for i, name in enumerate(kinds.names if kinds else ()):
      few[f'{prefix}{name or metrics.UNKNOWN}'] = units.insufficient_samples(
        attack & (kinds.index == i)
      )
  return {
    subset: frozenset(name for name in values if _is_few(name, values, few))
    for subset, values in found.items()
  }


def insufficient_class_metrics(scores: Scores) -> frozenset[str]:
  """The metrics of whole classes that have too few samples or subjects, under any subset."""
  few = _of_labels(SampleUnits(scores), scores)
  return frozenset(name for name in metrics.BY_NAME if _is_few(name, {}, few))


def insufficient_by_counts(found: results.Results) -> dict[str, frozenset[str]]:
  """The same by the numbers of samples, where nothing else is known."""
  of = {}
  for subset, values in found.items():
    few = {label: intervals.insufficient_samples(values[f'n_{label}']) for label in schema.LABELS}
    for name, n in values.items():
      if name.startswith('n_attack/'):
        few[f'apcer/{name.removeprefix("n_attack/")}'] = intervals.insufficient_samples(n)
    of[subset] = frozenset(name for name in values if _is_few(name, values, few))
  return of


def _of_labels(units: SampleUnits, scores: Scores) -> dict[str, bool]:
  return {
    name: units.insufficient_samples(scores.label == label)
    for label, name in enumerate(schema.LABELS)
  }


def _is_few(name: str, values: dict[str, float], few: dict[str, bool]) -> bool:
  """Whether a metric has too few samples or subjects.

  Args:
    name: of the metric.
    values: of all metrics of the subset.
    few: by label, and by the name of the APCER of each species and category.
  """
  if name in few:
    return few[name]
  match metrics.BY_NAME.get(name.removesuffix('_fta')):
    case metrics.Share(label=label):
      return few[label]
    case metrics.OfCurve():
      return any(few[label] for label in schema.LABELS)
    case metrics.Mean(parts=parts):
      return any(_is_few(part, values, few) for part in parts)
    case metrics.LargestApcer():
      of = [n for n in values if n.startswith('apcer_species/')]
      of = of or [n for n in values if n.startswith('apcer/')]
      most = max((values[n] for n in of), default=0)
      return bool(of) and all(few.get(n, few['attack']) for n in of if values[n] == most)
  return False  # a threshold, a count
