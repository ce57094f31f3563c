"""When two names are one subject, one video or one file, however they are spelled.

Leak checks, bootstrap clusters and frames of a video compare names through this module. `Zoë` is
composed on one machine and decomposed on another, and cells have invisible blanks: such
spellings are one name. `7` and `007`, or `anna` and `Anna`, may be two names: that is for a note.

A video is (dataset, subject, video): many data sets call the videos of every subject 1, 2, 3.
"""

import collections
import functools
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

# Zero-width characters, soft hyphens and marks of direction: none of them can be seen.
_INVISIBLE = re.compile('[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]')
_PLAIN = re.compile('[!-~\n]*')  # names, joined, of which no spelling has to change


def canonical(names: Sequence[str]) -> list[str]:
  """Names as they are compared: composed, without blanks around them or invisible characters.

  >>> canonical(['Zoe\\u0308', ' Zo\\u00eb\\xa0', 'wmca/1 /v']) == ['Zoë', 'Zoë', 'wmca/1/v']
  True

  Args:
    names: [N] str; a slash parts a name from what is above it.
  """
  names = list(names)
  return names if has_one_spelling(names) else list(map(_canonical, names))


def has_one_spelling(names: Sequence[str]) -> bool:
  """Whether names, [N] str, are compared as they are: letters of ASCII without blanks."""
  return bool(_PLAIN.fullmatch('\n'.join(names)))


@functools.lru_cache(65536)
def _canonical(name: str) -> str:
  name = unicodedata.normalize('NFC', _INVISIBLE.sub('', name))
  return '/'.join(' '.join(part.split()) for part in name.split('/'))


def normalize_path(name: str) -> str:
  """A path as it is compared: composed, as file systems differ in that and in nothing else."""
  return name if name.isascii() else unicodedata.normalize('NFC', name)


@functools.lru_cache(65536)
def similarity_key(name: str) -> str:
  """What names share that may be one name: without capitals, and zeros before numbers."""
  name = unicodedata.normalize('NFKC', _canonical(name)).casefold()
  return re.sub(r'(?<!\d)0+(?=\d)', '', name)


def qualify(above: str, name: str) -> str:
  """A name with what is above it before it, once; '' stays ''."""
  return name if not above or not name or name.startswith(above + '/') else f'{above}/{name}'


def subjects(dataset: Sequence[str], subject: Sequence[str]) -> list[str]:
  """[N] names of subjects among all data sets, '' where the subject is unknown."""
  return list(map(qualify, canonical(dataset), canonical(subject)))


class Videos(NamedTuple):
  """The videos of N samples, '' where a sample's is unknown."""

  names: list[str]  # among all data sets
  # What the videos are called without their subjects, where no two subjects of this file have
  # a video of one name; '' elsewhere.
  alone: list[str]
  without_subject: list[bool]  # whether the name is all that is known
  by_id: bool  # names repeat, and the ids' paths identify the videos


def videos(
  dataset: Sequence[str], subject: Sequence[str], video: Sequence[str], ids: Sequence[str]
) -> Videos:
  """The videos of samples.

  Where subjects are unknown, a video's name alone identifies it, unless one name stands below
  several folders in the ids ('test/anna/1/0', 'test/ben/1/0'): then the folder does so too.

  Args:
    dataset, subject, video, ids: [N] str, '' = unknown.
  """
  rows = list(zip(dataset, subject, video, strict=True))
  unique = list(dict.fromkeys(rows))  # few, as a rule
  columns = [canonical([row[i] for row in unique]) for i in range(3)]
  of = dict(zip(unique, map(_Video, *columns), strict=True))
  parents = collections.defaultdict(set)  # of a name: what it is below, of either kind
  for one in of.values():
    parents[one.called, 'subject'].add(one.subject)
  folders = {}  # by row
  for i, row in enumerate(rows):
    if (one := of[row]).called and not one.subject:
      folders[i] = folder_of(ids[i], one.dataset, one.called)
      parents[one.called, 'folder'].add(folders[i])
  repeated = {name for (name, _), above in parents.items() if len(above - {''}) > 1}
  # One name that repeats shows how all are given.
  by_id = any(of[rows[i]].called in repeated for i in folders)
  names = [of[row].name for row in rows]
  alone = ['' if (name := of[row].called) in repeated else name for row in rows]
  without = [False] * len(rows)
  for i, folder in folders.items():
    if by_id and folder:
      names[i], alone[i] = f'{folder}/{of[rows[i]].video}', ''
    else:
      without[i] = True
  return Videos(names, alone, without, by_id)


class _Video:
  """The canonical names of a row."""

  def __init__(self, dataset: str, subject: str, video: str):
    self.dataset, self.video = dataset, video
    self.subject = qualify(dataset, subject)
    self.called = qualify(dataset, video)
    self.name = qualify(self.subject, video) if self.subject else self.called


def folder_of(id_: str, dataset: str, video: str) -> str:
  """The folder that a video is in, by a sample's id: 'test/anna' of 'test/anna/1/0' and '1'.

  Args:
    id_: of the sample.
    dataset: of the sample.
    video: its name, perhaps below that of the data set.
  """
  name = video.removeprefix(f'{dataset}/')
  return f'/{id_}'.rpartition(f'/{name}/')[0].lstrip('/')
