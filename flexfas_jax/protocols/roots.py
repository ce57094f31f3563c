"""Where the files of a list are: below a root, in whichever way their names are composed.

Also where they start when that is not where the user says, and what is missing altogether.
"""

import collections
import itertools
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from flexfas_jax.protocols.findings import Finding

_UP, _CHILDREN = 4, 200  # folders above that are tried, and folders inside
FEW = 20  # missing files of a folder that are reported one by one
_NEARLY_ALL = 0.9  # of the files of a modality: the root or the column is wrong


def locate(root: str | os.PathLike, path: str) -> str:
  """The file that a list's path names, for opening; it may not exist.

  File systems and archives differ in whether they compose `ë`. Where the name as written leads to
  nothing, the other spelling of each of its folders is tried.

  Args:
    root: the folder that the path is below.
    path: with forward slashes.
  """
  exact = os.path.join(root, path)
  if path.isascii() or os.path.lexists(exact):
    return exact
  place = os.fspath(root)
  for part in path.split('/'):
    forms = (unicodedata.normalize(form, part) for form in ('NFC', 'NFD'))
    tried = (os.path.join(place, name) for name in (part, *forms))
    place = next(filter(os.path.lexists, tried), '')
    if not place:
      return exact
  return place


def hint(root: str | os.PathLike, path: str) -> str:
  """What to say of a root below which no file of a list is: the likely right one.

  Args:
    root: the folder that was given.
    path: of the first file.
  """
  text = f'e.g. {path}; is that where the paths start?'
  where = _elsewhere(root, path)
  return f'{text} {where}' if where else text


def _elsewhere(root: str | os.PathLike, path: str) -> str:
  """A sentence on where a file is that is not below a root, or ''."""
  given = Path(os.path.abspath(root))
  above = itertools.islice(given.parents, _UP)
  for candidate in itertools.chain(above, _folders(given)):
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
      inside = (Path(entry.path) for entry in entries if entry.is_dir())
      return sorted(itertools.islice(inside, _CHILDREN))
  except OSError:
    return []


def grouped(
  root: str | os.PathLike, missing: Sequence[Finding], totals: Mapping[str, int]
) -> list[Finding]:
  """Findings of missing files, one for a folder or modality of which many are missing.

  Args:
    root: the folder that paths are below.
    missing: of the rule 'missing-file', whose texts are 'MODALITY PATH'; others are kept.
    totals: how many files of each modality the lists name.

  Returns:
    Findings in the order of the first of each group, whose list, row and id they have.
  """
  files = [finding.text.partition(' ')[::2] for finding in missing]
  counts = collections.Counter(modality for modality, _ in files)
  everywhere = {m for m, n in counts.items() if n > FEW and n >= _NEARLY_ALL * totals.get(m, n + 1)}
  there: dict[str, bool] = {}
  groups = collections.defaultdict(list)
  for finding, (modality, path) in zip(missing, files, strict=True):
    folder = '' if modality in everywhere else _missing_folder(root, path, there)
    groups[modality, folder].append((finding, path))
  found = []
  for (modality, folder), some in groups.items():
    first, path = some[0]
    if len(some) <= FEW:
      found += [finding for finding, _ in some]
      continue
    of = f' of {totals[modality]:,}' if modality in everywhere else ''
    where = os.path.join(root, folder) if folder else root
    text = f'{modality}: {len(some):,}{of} files are not below {where}, e.g. {path}'
    found.append(first._replace(text=f'{text}{_advice(root, path)}'))
  return found


def _missing_folder(root: str | os.PathLike, path: str, there: dict[str, bool]) -> str:
  """The uppermost folder of a path that does not exist, or else the folder that the file is in.

  Args:
    there: folders that were asked for before.
  """
  folders = list(itertools.accumulate(path.split('/')[:-1], lambda a, b: f'{a}/{b}'))
  for folder in folders:
    if folder not in there:
      there[folder] = os.path.isdir(locate(root, folder))
    if not there[folder]:
      return folder
  return folders[-1] if folders else ''


def _advice(root: str | os.PathLike, path: str) -> str:
  """Where a missing file may be, as the end of a sentence."""
  folder, name = os.path.split(locate(root, path))
  stem = os.path.splitext(name)[0]
  try:
    with os.scandir(folder) as entries:
      alike = (e.name for e in entries if os.path.splitext(e.name)[0] == stem and e.name != name)
      other = next(alike, '')
  except OSError:
    other = ''
  if other:
    return f'; there is {other} in that folder'
  where = _elsewhere(root, path)
  return f'. {where}' if where else '; is that where they are?'
