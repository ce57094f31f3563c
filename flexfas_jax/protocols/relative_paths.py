"""Paths of a list, relative to a root folder: normalise them, find the files, explain missing ones.

A path is found whether its letters are composed (NFC) or decomposed (NFD) Unicode.
"""

import collections
import itertools
import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from flexfas_jax.protocols.findings import Finding

MAX_LISTED = 20  # missing files of a folder that are reported one by one
_MAX_PARENTS, _MAX_CHILDREN = 4, 200  # folders above and inside the root tried as the right root
_NEARLY_ALL = 0.9  # share of missing files of a modality: the root or the column is wrong
_DRIVE_OR_URL = re.compile(r'[A-Za-z]:|\w+://')


def normalize(path: str) -> str:
  """A path with forward slashes, without '.', and without '..' that can be resolved."""
  if '\\' in path:
    path = path.replace('\\', '/')
  if ('//' in path or './' in path or '/.' in path) and '://' not in path:
    path = posixpath.normpath(path)
  return path


def leaves_root(path: str) -> bool:
  """Whether a normalised path is absolute, or leads above the root."""
  return path.startswith(('/', '../')) or path == '..' or bool(_DRIVE_OR_URL.match(path))


def locate(root: str | os.PathLike, path: str) -> str:
  """The file that a list's path names, for opening; it may not exist.

  File systems and archives differ in whether they compose `ë`. If the name as written does not
  exist, the other spelling of each of its folders is tried.

  Args:
    root: the folder that the path is relative to.
    path: with forward slashes.
  """
  exact = os.path.join(root, path)
  if path.isascii() or os.path.lexists(exact):
    return exact
  place = os.fspath(root)
  for part in path.split('/'):
    spellings = (part, *(unicodedata.normalize(form, part) for form in ('NFC', 'NFD')))
    candidates = (os.path.join(place, spelling) for spelling in spellings)
    place = next(filter(os.path.lexists, candidates), '')
    if not place:
      return exact
  return place


def suggest_root(root: str | os.PathLike, path: str) -> str:
  """The end of a message that no file of a list is below a root; names the probable root.

  Args:
    root: the folder that was given.
    path: of the first file.
  """
  text = f'e.g. {path}; is that where the paths start?'
  hint = _find_elsewhere(root, path)
  return f'{text} {hint}' if hint else text


def _find_elsewhere(root: str | os.PathLike, path: str) -> str:
  """A sentence on where a file is that is not below a root, or ''."""
  given = Path(os.path.abspath(root))
  parents = itertools.islice(given.parents, _MAX_PARENTS)
  for candidate in itertools.chain(parents, _folders(given)):
    if os.path.exists(locate(candidate, path)):
      return f'They start at {candidate}'
  parts = Path(path).parts
  for k in range(1, len(parts) - 1):
    if os.path.exists(locate(given, '/'.join(parts[k:]))):
      return f'The files are there without {"/".join(parts[:k])} before their paths'
  return ''


def _folders(root: Path) -> list[Path]:
  try:
    with os.scandir(root) as entries:
      folders = (Path(entry.path) for entry in entries if entry.is_dir())
      return sorted(itertools.islice(folders, _MAX_CHILDREN))
  except OSError:
    return []


def group_missing(
  root: str | os.PathLike, missing: Iterable[Finding], totals: Mapping[str, int]
) -> list[Finding]:
  """Replaces many missing files of one folder or modality by one finding.

  Args:
    root: the folder that paths are relative to.
    missing: findings of the rule 'missing-file', whose texts are 'MODALITY PATH'; iterated twice.
    totals: the number of files of each modality in the lists.

  Returns:
    Findings in the order of the first of each group, with its list, row and id.
  """
  # Lists of a wrong root name hundreds of thousands of files: only those to be listed are kept.
  counts = collections.Counter(finding.text.partition(' ')[0] for finding in missing)
  nearly_all = {
    m for m, n in counts.items() if n > MAX_LISTED and n >= _NEARLY_ALL * totals.get(m, n + 1)
  }
  folder_exists: dict[str, bool] = {}
  sizes, listed = collections.Counter(), collections.defaultdict(list)
  for finding in missing:
    modality, _, path = finding.text.partition(' ')
    folder = '' if modality in nearly_all else _missing_folder(root, path, folder_exists)
    sizes[modality, folder] += 1
    if sizes[modality, folder] <= MAX_LISTED:
      listed[modality, folder].append(finding)
  findings = []
  for (modality, folder), group in listed.items():
    size, first = sizes[modality, folder], group[0]
    if size <= MAX_LISTED:
      findings += group
      continue
    path = first.text.partition(' ')[2]
    total = f' of {totals[modality]:,}' if modality in nearly_all else ''
    where = os.path.join(root, folder) if folder else root
    text = f'{modality}: {size:,}{total} files are not below {where}, e.g. {path}'
    findings.append(first._replace(text=f'{text}{_describe_alternative(root, path)}'))
  return findings


def _missing_folder(root: str | os.PathLike, path: str, folder_exists: dict[str, bool]) -> str:
  """The uppermost folder of a path that does not exist, or else the folder of the file.

  Args:
    folder_exists: cache, which is updated.
  """
  folders = list(itertools.accumulate(path.split('/')[:-1], lambda a, b: f'{a}/{b}'))
  for folder in folders:
    if folder not in folder_exists:
      folder_exists[folder] = os.path.isdir(locate(root, folder))
    if not folder_exists[folder]:
      return folder
  return folders[-1] if folders else ''


def _describe_alternative(root: str | os.PathLike, path: str) -> str:
  """The end of a sentence: where a missing file may be."""
  folder, name = os.path.split(locate(root, path))
  stem = os.path.splitext(name)[0]
  try:
    with os.scandir(folder) as entries:
      same_stem = (e.name for e in entries if os.path.splitext(e.name)[0] == stem)
      other = next((entry for entry in same_stem if entry != name), '')
  except OSError:
    other = ''
  if other:
    return f'; there is {other} in that folder'
  hint = _find_elsewhere(root, path)
  return f'. {hint}' if hint else '; is that where they are?'
