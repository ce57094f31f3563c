"""The triplets of a folder, by what the paths of its pictures say."""

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from flexfas_jax.evaluation import naming
from flexfas_jax.evaluation.findings import Finding

MODALITIES = ('rgb', 'depth', 'ir')
PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.gif', '.webp')
_SHOWN = 3  # pictures of a folder that is not understood which are told one by one


class Found(NamedTuple):
  """A triplet."""

  said: naming.Said  # by the first of its pictures
  files: dict[str, str]  # {modality: path below the source}


def find(source: Path, names: Collection[str], depth: int = 4) -> list[str]:
  """The folders of these names, as paths below the source; none is sought below another.

  Args:
    source: where to look; itself counts, and is ''.
    names: of folders, capital letters as they are.
    depth: how many folders deep to look.
  """
  if source.resolve().name in names:
    return ['']
  found, level = [], ['']
  for _ in range(depth):
    deeper = []
    for folder in level:
      _, folders = _entries(source, folder)
      found += [path for path in folders if path.rpartition('/')[2] in names]
      deeper += [path for path in folders if path.rpartition('/')[2] not in names]
    level = deeper
  return sorted(found)


def triplets(
  source: Path,
  below: Collection[str],
  dataset: str,
  *,
  skip: Callable[[str], bool] = lambda path: False,
  may_lack: Callable[[naming.Said], bool] = lambda said: False,
) -> tuple[list[Found], list[Finding]]:
  """The triplets of a source in the order of its folders' names, and what is wrong with it.

  Hidden files, and files that are no pictures by their names, are passed over. Links to folders are
  followed, but for those that lead back up.

  Args:
    source: what paths are below.
    below: folders of it to look in.
    dataset: that the paths must be of.
    skip: whether to pass over a picture, by its path.
    may_lack: whether a triplet may be without one of its modalities.

  Returns:
    Triplets, complete but for those that may lack something; findings.
  """
  found: dict[tuple[str, str], Found] = {}
  findings = []
  for folder in below:
    for place, names in _folders(source, folder):
      unknown = 0
      for name in names:
        path = f'{place}/{name}' if place else name
        if skip(path):
          continue
        said = naming.read(path)
        if said is None or said.dataset != dataset:
          unknown += 1
          if unknown <= _SHOWN:
            findings.append(Finding('row', place, 0, f'{name} is of no form that {dataset} has'))
          continue
        triplet = found.setdefault((said.video_id, said.frame), Found(said, {}))
        if said.modality in triplet.files:
          other = triplet.files[said.modality]
          text = f'{triplet.said.id}: {said.modality} is {other} and {path}'
          findings.append(Finding('duplicate', place, 0, text))
        else:
          triplet.files[said.modality] = path
      if unknown > _SHOWN:
        findings.append(Finding('row', place, 0, f'and {unknown - _SHOWN} more like them'))
  whole = []
  for triplet in found.values():
    lacking = [modality for modality in MODALITIES if modality not in triplet.files]
    if lacking and not may_lack(triplet.said):
      there = next(iter(triplet.files.values()))
      text = f'{triplet.said.id} has no {" and no ".join(lacking)} (there is {there})'
      findings.append(Finding('missing-file', there.rpartition('/')[0], 0, text))
    else:
      whole.append(triplet)
  return whole, findings


def _folders(source: Path, folder: str) -> Iterator[tuple[str, list[str]]]:
  """Yields (folder, names of its pictures), the folders that are above first."""
  waiting = [folder]
  while waiting:
    folder = waiting.pop()
    pictures, folders = _entries(source, folder)
    if pictures:
      yield folder, pictures
    waiting += reversed(folders)


def _entries(source: Path, folder: str) -> tuple[list[str], list[str]]:
  """(names of the pictures, paths of the folders) in a folder, sorted."""
  pictures, folders = [], []
  with os.scandir(source / folder) as entries:
    for entry in entries:
      name = entry.name
      if name.startswith('.'):
        continue
      if entry.is_dir():
        if not entry.is_symlink() or not _leads_up(source / folder, entry.path):
          folders.append(f'{folder}/{name}' if folder else name)
      elif os.path.splitext(name)[1].lower() in PICTURES:
        pictures.append(name)
  return sorted(pictures), sorted(folders)


def _leads_up(folder: Path, link: str) -> bool:
  """Whether a link leads to the folder that it is in, or above."""
  here, there = os.path.realpath(folder), os.path.realpath(link)
  return os.path.commonpath([here, there]) == there
