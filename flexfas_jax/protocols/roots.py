"""Where the paths of a list start, when it is not where the user says."""

import itertools
import os
from pathlib import Path

_UP, _CHILDREN = 4, 200  # folders above that are tried, and folders inside


def hint(root: str | os.PathLike, path: str) -> str:
  """What to say of a root below which no file of a list is: the likely right one.

  Args:
    root: the folder that was given.
    path: of the first file.
  """
  given = Path(os.path.abspath(root))
  text = f'e.g. {path}; is that where the paths start?'
  above = itertools.islice(given.parents, _UP)
  for candidate in itertools.chain(above, _folders(given)):
    if (candidate / path).exists():
      return f'{text} They start at {candidate}'
  parts = Path(path).parts
  for k in range(1, len(parts) - 1):
    if given.joinpath(*parts[k:]).exists():
      return f'{text} The files are there without {"/".join(parts[:k])} before their paths'
  return text


def _folders(root: Path) -> list[Path]:
  try:
    with os.scandir(root) as entries:
      inside = (Path(entry.path) for entry in entries if entry.is_dir())
      return sorted(itertools.islice(inside, _CHILDREN))
  except OSError:
    return []
