"""Face verification on held-out subjects: pairs of images, their scores and metrics.

A pair is two images, of the `same` subject or of an `other`; its score is the cosine similarity of
their embeddings, high means the same. The functions of `metrics.py` evaluate pairs, with `same` in
the place of bona fide: FAR is the share of `other` pairs that are accepted.

  eer, auc          as in `metrics.py`
  tpr@far=T         largest share of `same` pairs accepted while FAR is at most T
  accuracy          (share of `same` accepted + share of `other` rejected) / 2. A pair belongs to
                    the fold (of ten) of its first subject; its threshold is the one that is best on
                    the pairs of the other nine. With as many of either kind this is LFW's accuracy
                    (Huang et al., "Labeled Faces in the Wild", 2007), whose folds share no
                    subject; here the second subject of an `other` pair may be in another fold.
"""

import csv
import io
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flexfas_jax.errors import DataError
from flexfas_jax.evaluation import metrics
from flexfas_jax.files import write_text

FARS = {'1e-2': 1e-2, '1e-3': 1e-3}
FOLDS = 10
_COLUMNS = ('id', 'a', 'b', 'subject_a', 'subject_b', 'label', 'score')
_LABELS = ('other', 'same')
_FEW = 3000  # images of which all pairs are listed; of more, `other` pairs are drawn


class Pairs(NamedTuple):
  """P pairs of images, as indices into a list of N."""

  a: np.ndarray  # [P] int64
  b: np.ndarray  # [P] int64, another index
  same: np.ndarray  # [P] bool


def sample_pairs(subject: Sequence[str], video: Sequence[str], limit: int, seed: int = 0) -> Pairs:
  """Pairs of the same subject and pairs of others, up to `limit` of each kind.

  Two images of one video are no pair: they are nearly identical. All pairs of a kind are taken
  where there are no more than `limit`. The same list and seed give the same pairs.

  Args:
    subject: [N] str, of each image.
    video: [N] str, '' where it is not known: a video of its own.
    limit: of each kind.
    seed: of the drawing.

  Raises:
    DataError: no subject has images of two videos, or there is only one subject.
  """
  subjects, subject_index = np.unique(np.asarray(subject, np.str_), return_inverse=True)
  _, video_index = np.unique(np.asarray(video, np.str_), return_inverse=True)
  unknown = np.asarray(video, np.str_) == ''
  video_index = np.where(
    unknown, video_index.max(initial=0) + 1 + np.arange(len(video_index)), video_index
  )
  if len(subjects) < 2:
    raise DataError(f'pairs need at least two subjects, and there are {len(subjects)}')
  rng = np.random.default_rng(seed)
  same = _same(subject_index, video_index)
  if not len(same):
    raise DataError('no subject has images of two videos: there is no pair of the same subject')
  if len(same) > limit:
    same = same[np.sort(rng.choice(len(same), limit, replace=False))]
  both = np.concatenate([same, _other(subject_index, limit, rng)])
  return Pairs(both[:, 0], both[:, 1], np.arange(len(both)) < len(same))


def _same(subject_index: np.ndarray, video_index: np.ndarray) -> np.ndarray:
  """All pairs of one subject and different videos, [P, 2]."""
  order = np.argsort(subject_index, kind='stable')
  found = []
  for own in np.split(order, np.flatnonzero(np.diff(subject_index[order])) + 1):
    i, j = np.triu_indices(len(own), 1)
    pairs = np.stack([own[i], own[j]], 1)
    found.append(pairs[video_index[pairs[:, 0]] != video_index[pairs[:, 1]]])
  return np.concatenate(found)


def _other(subject_index: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
  """Pairs of different subjects, [P, 2]: all, or `limit` of them."""
  n = len(subject_index)
  if n <= _FEW:
    pairs = np.stack(np.triu_indices(n, 1), 1)
    pairs = pairs[subject_index[pairs[:, 0]] != subject_index[pairs[:, 1]]]
    if len(pairs) > limit:
      pairs = pairs[np.sort(rng.choice(len(pairs), limit, replace=False))]
    return pairs
  counts = np.bincount(subject_index).astype(np.int64)
  wanted = min(limit, (n * n - int((counts**2).sum())) // 2)
  pairs = np.zeros((0, 2), np.int64)
  while len(pairs) < wanted:
    more = np.sort(rng.integers(0, n, (2 * wanted, 2)), 1)
    pairs = np.concatenate([pairs, more[subject_index[more[:, 0]] != subject_index[more[:, 1]]]])
    _, first = np.unique(pairs, axis=0, return_index=True)
    pairs = pairs[np.sort(first)]
  return pairs[:wanted]


def cosines(embedding: np.ndarray, pairs: Pairs) -> np.ndarray:
  """The score of every pair, [P] float64; NaN where an image has no embedding.

  Args:
    embedding: [N, D] float, a row of NaN for an image that shows nothing.
    pairs: indices into the N.
  """
  embedding = np.asarray(embedding, np.float64)
  length = np.linalg.norm(embedding, axis=1, keepdims=True)
  unit = embedding / np.maximum(length, 1e-12)
  return np.einsum('pd,pd->p', unit[pairs.a], unit[pairs.b])


def compute_metrics(pairs: Pairs, score: np.ndarray, subject: Sequence[str]) -> dict[str, float]:
  """{metric: value}; the module's docstring defines each.

  Args:
    pairs: P of them.
    score: [P] float, NaN where an image failed: the pair is rejected whatever the threshold.
    subject: [N] str.
  """
  points = metrics.curve(pairs.same, score)
  subject = np.asarray(subject, np.str_)
  return {
    'eer': metrics.eer(points)[0],
    'accuracy': _accuracy(pairs, score, subject),
    'auc': metrics.auc(points),
    **{f'tpr@far={name}': metrics.tpr_at_fpr(points, far) for name, far in FARS.items()},
    'n_same': points.n_bona_fide,
    'n_other': points.n_attack,
    'n_fta': points.n_fta,
    'n_subjects': len(set(subject[np.concatenate([pairs.a, pairs.b])].tolist())),
  }


def _accuracy(pairs: Pairs, score: np.ndarray, subject: np.ndarray) -> float:
  fold = np.unique(subject[pairs.a], return_inverse=True)[1] % FOLDS
  accepted = np.zeros(len(score), bool)
  for k in set(fold.tolist()):
    points = metrics.curve(pairs.same[fold != k], score[fold != k])
    if points.one_class:
      return math.nan
    best = points.threshold[metrics.least_acer(points)]
    accepted[fold == k] = score[fold == k] >= best
  return float(accepted[pairs.same].mean() + (~accepted[~pairs.same]).mean()) / 2


def write(path, pairs: Pairs, score: np.ndarray, ids, subject, header: Mapping) -> None:
  """Writes the scores of a set's pairs as CSV, a row each, with a JSON header beside it.

  `python -m flexfas_jax.score FILE --labels=same=bona_fide,other=attack` evaluates the file.

  Args:
    path: NAME.csv.
    pairs, score: P of them.
    ids, subject: [N] str.
    header: entries of the JSON header.
  """
  path, text = pathlib.Path(path), io.StringIO()
  rows = csv.writer(text, lineterminator='\n')
  rows.writerow(_COLUMNS)
  for a, b, same, value in zip(*map(np.ndarray.tolist, (*pairs, score)), strict=True):
    shown = '' if math.isnan(value) else repr(value)
    rows.writerow(
      [f'{ids[a]}|{ids[b]}', ids[a], ids[b], subject[a], subject[b], _LABELS[same], shown]
    )
  write_text(path, text.getvalue())
  header = {**header, 'polarity': 'high is the same subject'}
  write_text(path.with_suffix('.json'), json.dumps(header, indent=2) + '\n')


def text(found: Mapping[str, Mapping[str, float]], title: str) -> str:
  """A table, a row per set, in percent."""
  names = [('accuracy', 'accuracy'), ('EER', 'eer'), ('AUC', 'auc')]
  names += [(f'TPR@FAR={far}', f'tpr@far={far}') for far in FARS]
  rows = [['', 'subjects', 'same', 'other', *(heading for heading, _ in names)]]
  for name, values in found.items():
    counts = [str(values[f'n_{what}']) for what in ('subjects', 'same', 'other')]
    rows.append([name, *counts, *(f'{100 * values[key]:.1f}' for _, key in names)])
  return title + '\n' + columns(rows)


def columns(rows: Sequence[Sequence[str]]) -> str:
  """Rows of text under each other, the first column to the left, the others to the right."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [
    [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
    for row in rows
  ]
  return '\n'.join('  '.join(line).rstrip() for line in lines)
