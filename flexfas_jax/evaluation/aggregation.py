"""Samples that are one: frames of a video, and rows that a published list has twice.

FlexModal and MM-FAS evaluate frames; WMCA, CeFA and ISO/IEC 30107-3 presentations (videos).
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from flexfas_jax import identity
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.evaluation import exact_mean, grouping, metrics, unusable
from flexfas_jax.evaluation.score_files import Scores
from flexfas_jax.schema import METADATA, MODALITIES, subset_name

_AGAIN = re.compile('[2-9]|[1-9][0-9]+')  # behind the # of a row that is there again
RULES = {
  'mean': 'the mean of the frames that have a score',
  'median': 'their median',
  'min': 'the lowest: one suspicious frame rejects the video',
  'max': 'the highest: one good frame accepts it',
}


def aggregate_by_video(scores: Scores, rule: str = 'mean') -> Scores:
  """Scores of videos.

  Args:
    scores: of frames; a frame whose video is unknown stands for itself.
    rule: one of `RULES`.

  Returns:
    `Scores`, a sample per (dataset, subject, video), in the order of the first frames, see
    `identity.videos`. Its id is the video's name, with what is above it where two have one name; a
    video without any scored frame is a failure to acquire. A frame whose score is nan by a fault of
    the model stains its video. A modality that is unusable in any frame is unusable in the video.

  Raises:
    ConfigError: no such rule.
    DataError: no video is known at all; bona fide frames and attacks, or two species, in a video;
      a video whose subject is known of some frames alone.
  """
  if rule not in RULES:
    raise ConfigError(f'no rule {rule!r} for frames; choose one of {", ".join(RULES)}')
  name = str(scores.path or 'the scores')
  if not (scores.video != '').any():
    raise DataError(f'{name} cannot be evaluated by video: the column video is missing or empty')
  of = identify_videos(scores)
  half = {n for n, without in zip(of.alone, of.without_subject, strict=True) if n and without}
  half &= {n for n, without in zip(of.alone, of.without_subject, strict=True) if not without}
  if half:
    raise DataError(
      f'{name}: the video {min(half)} has a subject in some rows and none in others; name it in all'
    )
  video = np.array(of.names)
  # A frame without a video gets a name that no video has.
  alone = np.char.add('\0', np.arange(video.size).astype(np.str_))
  own = metrics.groups(np.where(video == '', alone, video))
  _, first, index = np.unique(own.index, return_index=True, return_inverse=True)
  order = np.argsort(first)  # of the videos, by their first frame
  place = np.empty(order.size, np.int64)
  place[order] = np.arange(order.size)
  first, index = first[order], place[index]  # [V], [N]

  for field in ('label', 'attack_type', 'attack_category'):
    values = getattr(scores, field)
    if field != 'label':
      values = np.array(identity.canonical(values.tolist()))
    if (at := np.flatnonzero(values != values[first[index]])).size:
      one, other = int(first[index[at[0]]]), int(at[0])
      raise DataError(
        f'{name}: the video {scores.video[one]} has {field} {values[one]!s} in '
        f'{scores.ids[one]} and {values[other]!s} in {scores.ids[other]}'
      )
  ids = np.where(scores.video[first] == '', scores.ids[first], scores.video[first])
  if len(set(ids.tolist())) < ids.size:  # two data sets or subjects call a video alike
    ids = np.where(video[first] == '', scores.ids[first], video[first])
  return dataclasses.replace(
    scores,
    ids=ids,
    label=scores.label[first],
    scores={n: _joined(s, index, first.size, rule) for n, s in scores.scores.items()},
    **{field: getattr(scores, field)[first] for field in METADATA if field != 'video'},
    video=video[first],
    extra={field: values[first] for field, values in scores.extra.items()}
    | _unusable(scores, index, first.size),
    nan_samples={n: np.unique(index[at]) for n, at in scores.nan_samples.items()},
  )


def identify_videos(scores: Scores) -> identity.Videos:
  """The videos of a score file's samples."""
  columns = (scores.dataset, scores.subject, scores.video, scores.ids)
  return identity.videos(*(column.tolist() for column in columns))


def cluster_columns(scores: Scores) -> tuple[Sequence[str], Sequence[str]]:
  """(subjects, videos), [N] each, as `bootstrap.bootstrap` clusters a score file's samples."""
  subject = scores.subject
  if not grouping.are_ascii_without_blanks(subject):
    subject = np.array(identity.subjects(scores.dataset.tolist(), subject.tolist()))
  if (subject != '').all() or (scores.video == '').any():
    return subject, scores.video  # videos are not needed, or cannot be the units
  return subject, identify_videos(scores).names


def video_notes(scores: Scores, by_name: bool = True) -> list[str]:
  """How videos without subjects are identified, a line each; none where all subjects are known.

  Args:
    scores: of frames.
    by_name: also of videos that only their name identifies.
  """
  if not ((scores.subject == '') & (scores.video != '')).any():
    return []  # at little cost
  of, name = identify_videos(scores), str(scores.path or 'the scores')
  found = []
  if of.by_id:
    n = len(set(of.names) - {''})
    found.append(
      f'{name}: subjects are unknown and names of videos repeat; the folders in the ids '
      f'identify {n} videos, within and between files. A column subject makes this certain'
    )
  if by_name and (without := sum(of.without_subject)):
    n = len({v for v, w in zip(of.names, of.without_subject, strict=True) if w})
    found.append(
      f'{name}: the subjects of {without} samples are unknown, so their {n} videos are '
      'identified by name alone; where subjects have videos of one name, add a column subject'
    )
  return found


def drop_redundant(scores: Scores) -> tuple[Scores, int]:
  """Without redundant rows, as published lists name the same triplet twice.

  A row is redundant if its id is another row's with '#2', '#3', ... behind it, as builders call
  such triplets, and if the two are equal in label, in everything that is known of them, and in
  every score. Nearly equal scores are not enough, as many attacks' scores are nearly 0: only in a
  file with a header, whose ids are the builders' own, may they differ by the rounding of batches.

  Args:
    scores: of all rows.

  Returns:
    (scores without them, how many they are).
  """
  keep = np.ones(scores.ids.size, bool)
  letters = scores.ids.view(np.uint32).reshape(keep.size, -1)  # [N, longest]
  marked = np.flatnonzero((letters == ord('#')).any(1))  # few, or none: no dict of millions
  at = {id_: i for i, id_ in enumerate(scores.ids.tolist())} if marked.size else {}
  texts = [scores.label, *(getattr(scores, name) for name in METADATA), *scores.extra.values()]
  rtol, atol = (1e-4, 1e-6) if 'code_version' in scores.header else (0, 0)
  for i in marked.tolist():
    base, _, number = str(scores.ids[i]).rpartition('#')
    first = at.get(base) if _AGAIN.fullmatch(number) else None
    if first is not None and all(text[first] == text[i] for text in texts):
      one, other = ([score[k] for score in scores.scores.values()] for k in (first, i))
      keep[i] = not np.allclose(one, other, rtol=rtol, atol=atol, equal_nan=True)
  return (scores, 0) if keep.all() else (scores.only(keep), int((~keep).sum()))


def _unusable(scores: Scores, index: np.ndarray, n: int) -> dict[str, np.ndarray]:
  """The column of that name for [n] videos, {} where there is none: what any frame names."""
  if unusable.COLUMN not in scores.extra:
    return {}
  of = [set() for _ in range(n)]
  for video, names in zip(index.tolist(), scores.extra[unusable.COLUMN].tolist(), strict=True):
    of[video].update(names.split('+') if names else ())
  ordered = [[m for m in MODALITIES if m in names] for names in of]
  return {unusable.COLUMN: np.array(list(map(subset_name, ordered)))}


def _joined(score: np.ndarray, index: np.ndarray, n: int, rule: str) -> np.ndarray:
  """[N] scores of frames to [n] of videos, NaN for none."""
  ok = ~np.isnan(score)
  score, index = score[ok], index[ok]
  if rule == 'mean':
    return exact_mean.group_means(score, index, n)
  count = np.bincount(index, minlength=n)
  order = np.lexsort((score, index))
  score, found = score[order], np.full(n, np.nan)
  start = np.cumsum(count) - count  # [n] where a video's frames begin
  here = count > 0
  low, high = {
    'min': (0 * count, 0 * count),
    'max': (count - 1, count - 1),
    'median': ((count - 1) // 2, count // 2),
  }[rule]
  found[here] = exact_mean.column_means(
    np.stack([score[(start + low)[here]], score[(start + high)[here]]])
  )
  return found
