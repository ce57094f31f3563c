"""The triplets of a folder, by the paths of its images."""

import os
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from flexfas_jax.errors import DataError
from flexfas_jax.protocols import path_layouts
from flexfas_jax.protocols.findings import Finding
from flexfas_jax.schema import MODALITIES

IMAGE_SUFFIXES = frozenset({'jpg', 'jpeg', 'png', 'bmp', 'tif', 'tiff', 'gif', 'webp'})


class Triplet(NamedTuple):
  """A triplet."""

  parsed_path: path_layouts.ParsedPath  # of its first image
  files: dict[str, str]  # {modality: path below the source}


def find_folders(source: Path, names: Collection[str], depth: int = 4) -> list[str]:
  """The folders with these names, as paths below the source, without those inside others.

  Args:
    source: where to look.
    names: of folders, capital letters as they are.
    depth: how many folders deep to look.
  """
  found, level = [], ['']
  for _ in range(depth):
    deeper = []
    for folder in level:
      try:
        _, folders = _entries(source, folder)
      except OSError:  # `find_triplets` reports it
        continue
      found += [path for path in folders if path.rpartition('/')[2] in names]
      deeper += [path for path in folders if path.rpartition('/')[2] not in names]
    level = deeper
  return sorted(found)


def list_files(source: Path, lists: Path | None) -> list[Path]:
  """The text files that may be lists, sorted.

  Args:
    source: of a builder; its upper folders are looked in when there are no lists.
    lists: of a builder: a folder, which is looked through, or files separated by commas.

  Raises:
    DataError: one of `lists` is not there.
  """
  if lists is None:
    return _text_files(source, 2)
  found = []
  for place in map(Path, str(lists).split(',')):
    if not place.exists():
      raise DataError(f'--lists: there is no {place}')
    found += _text_files(place, 4) if place.is_dir() else [place]
  return found


def _text_files(folder: Path, depth: int) -> list[Path]:
  patterns = ['*/' * level + '*' for level in range(depth + 1)]
  return sorted(
    path
    for pattern in patterns
    for path in folder.glob(pattern)
    if path.suffix.lower() in ('.txt', '.csv') and path.is_file() and path.name[0] != '.'
  )


def find_triplets(
  source: Path,
  below: Collection[str],
  dataset: str,
  *,
  skip: Callable[[str], bool] = lambda path: False,
  may_lack: Callable[[path_layouts.ParsedPath], bool] = lambda parsed: False,
) -> tuple[list[Triplet], list[Finding]]:
  """The triplets of a source in the order of its folders' names, and findings.

  Hidden files and files without an image suffix are skipped. Links to folders are followed, except
  those that lead back up.

  Args:
    source: what paths are below.
    below: folders of it to look in.
    dataset: that the paths must be of.
    skip: whether to skip an image, by its path.
    may_lack: whether a triplet may lack a modality.

  Returns:
    (triplets, findings).
  """
  found: dict[tuple[str, str], Triplet] = {}
  findings = []
  for place, names in _folders(source, below, findings):
    unknown, instruments = [], {}
    for name in names:
      path = f'{place}/{name}' if place else name
      if skip(path):
        continue
      parsed = path_layouts.parse(path)
      if parsed is None or parsed.dataset != dataset:
        if text := path_layouts.find_unknown_instrument(path):
          instruments.setdefault(text, []).append(name)
        else:
          unknown.append(name)
        continue
      triplet = found.setdefault((parsed.video_id, parsed.frame), Triplet(parsed, {}))
      if parsed.modality in triplet.files:
        other = triplet.files[parsed.modality]
        text = f'{triplet.parsed_path.id}: {parsed.modality} is {other} and {path}'
        # Which of them is meant is unknown.
        findings.append(Finding('duplicate', place, 0, text, triplet.parsed_path.id))
      else:
        triplet.files[parsed.modality] = path
    findings += _not_understood(place, unknown, dataset)
    findings += [
      Finding('label', _printable(place), 0, f'{text} ({len(some)} images, {_printable(some[0])})')
      for text, some in instruments.items()
    ]
  whole = []
  for triplet in found.values():
    lacking = [modality for modality in MODALITIES if modality not in triplet.files]
    if lacking and not may_lack(triplet.parsed_path):
      there = next(iter(triplet.files.values()))
      text = f'{triplet.parsed_path.id} has no {" and no ".join(lacking)} (there is {there})'
      folder = there.rpartition('/')[0]
      findings.append(Finding('missing-file', folder, 0, text, triplet.parsed_path.id))
    else:
      whole.append(triplet)
  return whole, findings


def _not_understood(place: str, names: list[str], dataset: str) -> list[Finding]:
  return [
    Finding('row', _printable(place), 0, f'{_printable(name)} is of no form that {dataset} has')
    for name in names
  ]


def _printable(name: str) -> str:
  """A name with the bytes that are not UTF-8 written out."""
  return name.encode('utf-8', 'backslashreplace').decode()


def _folders(
  source: Path, below: Collection[str], findings: list[Finding]
) -> Iterator[tuple[str, list[str]]]:
  """Yields (folder, names of its images), parents first."""
  waiting = list(reversed(below))
  while waiting:
    folder = waiting.pop()
    try:
      images, folders = _entries(source, folder)
    except OSError as error:
      findings.append(Finding('unreadable', _printable(folder), 0, error.strerror))
      continue
    if images:
      yield folder, images
    waiting += reversed(folders)


def _entries(source: Path, folder: str) -> tuple[list[str], list[str]]:
  """(names of the images, paths of the folders) in a folder, sorted."""
  images, folders = [], []
  with os.scandir(f'{source}/{folder}') as entries:
    for entry in entries:
      name = entry.name
      if name.startswith('.'):
        continue
      if _is_folder(entry):
        if not entry.is_symlink() or not _leads_up(f'{source}/{folder}', entry.path):
          folders.append(f'{folder}/{name}' if folder else name)
      elif name.rpartition('.')[2].lower() in IMAGE_SUFFIXES:
        images.append(name)
  return sorted(images), sorted(folders)


def _is_folder(entry: os.DirEntry) -> bool:
  try:
    return entry.is_dir()
  except OSError:  # a link to itself
    return False


def _leads_up(folder: str, link: str) -> bool:
  """Whether a link leads to a folder that it was reached through, or above one.

  Through other links too: of two that lead to each other's folders, the second does.
  """
  here, there = Path(os.path.abspath(folder)), os.path.realpath(link)
  return any(
    os.path.commonpath([os.path.realpath(above), there]) == there for above in (here, *here.parents)
  )


def find_files(source: Path, pattern: str) -> list[Path]:
  """All files below a folder whose names match a pattern, sorted.

  Hidden ones are passed over. Links to folders are followed, but for those that lead back up;
  Path.rglob of Python 3.11 and 3.12 does not follow any.

  Args:
    source: where to look.
    pattern: e.g. '*.hdf5'.

  Raises:
    DataError: a folder cannot be listed.
  """

  def refuse(error: OSError) -> None:
    raise DataError(f'{error.filename} cannot be listed: {error.strerror}') from error

  found = []
  for place, inside, names in os.walk(source, onerror=refuse, followlinks=True):
    inside[:] = [
      name
      for name in inside
      if name[0] != '.'
      and not (os.path.islink(f'{place}/{name}') and _leads_up(place, f'{place}/{name}'))
    ]
    found += [Path(place, name) for name in names if name[0] != '.' and fnmatchcase(name, pattern)]
  return sorted(found)
