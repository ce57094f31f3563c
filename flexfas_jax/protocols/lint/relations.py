"""Set relations between lists of the same splits: equal, subset, partition, overlap."""

import collections
import itertools

import numpy as np

from flexfas_jax.protocols.lint.hashed_list import HashedList
from flexfas_jax.protocols.lint.report import Relation, Summary
from flexfas_jax.schema import LABELS


def find_relations(hashed_lists: list[HashedList], summaries: list[Summary]) -> list[Relation]:
  """Relations of all pairs of lists with the same splits.

  Args:
    hashed_lists, summaries: of the same lists, in the same order.
  """
  samples, labels = [], []  # of each list: its distinct samples, and their labels
  for hashed in hashed_lists:
    distinct, first = np.unique(hashed.column('sample'), return_index=True)
    samples.append(distinct)
    labels.append(hashed.column('label')[first])
  names = [summary.list for summary in summaries]
  relations, subsets = [], collections.defaultdict(list)  # {list: its subsets}
  for a, b in itertools.combinations(range(len(names)), 2):
    if summaries[a].splits != summaries[b].splits:
      continue
    n_common = len(np.intersect1d(samples[a], samples[b], assume_unique=True))
    small, large = sorted((a, b), key=lambda i: len(samples[i]))
    if n_common == len(samples[large]):
      relations.append(Relation('equal', (names[a],), names[b], 'rows', n_common))
    elif n_common == len(samples[small]):
      subsets[large].append(small)
    elif n_common:
      relations.append(Relation('overlap', (names[a],), names[b], 'rows', n_common))
  for large, within in subsets.items():
    parts, compared = _find_partition(large, within, samples, labels)
    if parts:
      n = sum(len(samples[i]) for i in parts)
      part_names = tuple(names[i] for i in parts)
      relations.append(Relation('partition', part_names, names[large], compared, n))
    relations += [
      Relation('subset', (names[i],), names[large], 'rows', len(samples[i]))
      for i in within
      if i not in parts
    ]
  return relations


def _find_partition(large: int, within: list[int], samples, labels) -> tuple[list[int], str]:
  """Those subsets of a list that partition its attacks, its bona fide samples or all rows.

  Args:
    large, within: numbers of the list and of its subsets.
    samples, labels: of all lists.
  """
  for compared, label in (
    ('attacks', LABELS.index('attack')),
    ('bona fide', LABELS.index('bona_fide')),
    ('rows', None),
  ):
    parts = [i for i in within if label is None or (labels[i] == label).all()]
    n = len(samples[large]) if label is None else int((labels[large] == label).sum())
    if len(parts) > 1 and sum(len(samples[i]) for i in parts) == n:
      union = np.unique(np.concatenate([samples[i] for i in parts]))
      if len(union) == n:  # no sample is in two parts, so none is missing
        return parts, compared
  return [], ''
