"""SHA-256 digests of a checkpoint's files, which reveal any change.

Orbax detects a truncated file, but not every flipped bit in a tensor.
"""

import hashlib
import json
import pathlib

from flexfas_jax.files import write_text
from flexfas_jax.models.weights import hashing
from flexfas_jax.training import distributed

FILE = 'digests.json'


def write(folder: pathlib.Path) -> None:
  """Writes the SHA-256 of every file into a checkpoint's folder."""
  digests = {name: _digest(folder / name) for name in _files(folder)}
  write_text(folder / FILE, json.dumps(digests, indent=1) + '\n')


def find_damage(folder: pathlib.Path) -> str:
  """Describes the first file that differs from what was written; '' if none does."""
  try:
    digests = json.loads((folder / FILE).read_text(encoding='utf-8'))
    assert digests and isinstance(digests, dict)
  except (OSError, ValueError, AssertionError):
    return f'{FILE} is missing or damaged'
  if missing := sorted(digests.keys() - set(_files(folder))):
    return f'{missing[0]} is missing'
  for name, digest in digests.items():
    try:
      if _digest(folder / name) != digest:
        return f'{name} was changed'
    except OSError as error:
      return f'{name}: {error.strerror}'
  return ''


def hash_weights(variables) -> str:
  """SHA-256 of a model's parameter names and values."""
  return hashing.hash_weights(variables, distributed.gather_to_host)


def _files(folder: pathlib.Path) -> list[str]:
  # Orbax rewrites the files in the folder itself after the digests are made.
  return sorted(f.relative_to(folder).as_posix() for f in folder.glob('*/**/*') if f.is_file())


def _digest(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
