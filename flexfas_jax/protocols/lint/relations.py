"""How lists of the same split lie to each other: equal, a part, parts that make a whole."""

import collections
import itertools

import numpy as np

from flexfas_jax.protocols.lint.hashed_list import Index
from flexfas_jax.protocols.lint.report import Relation, Summary


def relate(indices: list[Index], summaries: list[Summary]) -> list[Relation]:
  """Relations of lists, each list given by its rows and by what it has."""
  sets, kinds = [], []
  for index in indices:
    keys, first = np.unique(index.same, return_index=True)
    sets.append(keys)
    kinds.append(index.label[first])
  names = [summary.list for summary in summaries]
  relations, inside = [], collections.defaultdict(list)  # by list: those within it
  for one, other in itertools.combinations(range(len(indices)), 2):
    if summaries[one].splits != summaries[other].splits:
      continue
    both = len(np.intersect1d(sets[one], sets[other], assume_unique=True))
    small, large = sorted((one, other), key=lambda i: len(sets[i]))
    if both == len(sets[large]):
      relations.append(Relation('equal', (names[one],), names[other], 'rows', both))
    elif both == len(sets[small]):
      inside[large].append(small)
    elif both:
      relations.append(Relation('overlap', (names[one],), names[other], 'rows', both))
  for large, small in inside.items():
    parts, what = _partition(large, small, sets, kinds)
    of = names[large]
    if parts:
      n = sum(len(sets[i]) for i in parts)
      relations.append(Relation('partition', tuple(names[i] for i in parts), of, what, n))
    relations += [
      Relation('part', (names[i],), of, 'rows', len(sets[i])) for i in small if i not in parts
    ]
  return relations


def _partition(large: int, small: list[int], sets, kinds) -> tuple[list[int], str]:
  """Which of the lists within a list share it out among them, and what of it."""
  for what, label in (('attacks', 0), ('bona fide', 1), ('rows', None)):
    parts = [i for i in small if label is None or (kinds[i] == label).all()]
    n = len(sets[large]) if label is None else int((kinds[large] == label).sum())
    if len(parts) > 1 and sum(len(sets[i]) for i in parts) == n:
      union = np.unique(np.concatenate([sets[i] for i in parts]))
      if len(union) == n:  # none twice, so none left out
        return parts, what
  return [], ''
