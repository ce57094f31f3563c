"""A checkpoint's files by digest: what was written is what is read, or it is known where not.

Orbax notices a file that is cut off, not every flipped bit in a tensor.
"""

import hashlib
import json
import pathlib

from flexfas_jax.files import write_text
from flexfas_jax.models.weights import weights_hash
from flexfas_jax.training import distributed

NAME = 'digests.json'


def write(folder: pathlib.Path) -> None:
  """Puts the SHA-256 of every item's files into a checkpoint's folder."""
  found = {name: _digest(folder / name) for name in _files(folder)}
  write_text(folder / NAME, json.dumps(found, indent=1) + '\n')


def damage(folder: pathlib.Path) -> str:
  """What is not as it was written, in a few words; '' where all is."""
  try:
    known = json.loads((folder / NAME).read_text(encoding='utf-8'))
    assert known and isinstance(known, dict)
  except (OSError, ValueError, AssertionError):
    return f'{NAME} is missing or damaged'
  there = set(_files(folder))
  if missing := sorted(known.keys() - there):
    return f'{missing[0]} is missing'
  for name, digest in known.items():
    try:
      if _digest(folder / name) != digest:
        return f'{name} was changed'
    except OSError as error:
      return f'{name}: {error.strerror}'
  return ''


def of_weights(variables) -> str:
  """SHA-256 of a model's names and numbers."""
  return weights_hash.of(variables, distributed.gather_to_host)


def _files(folder: pathlib.Path) -> list[str]:
  # What lies in the folder itself is Orbax's diary, written again after this.
  return sorted(f.relative_to(folder).as_posix() for f in folder.glob('*/**/*') if f.is_file())


def _digest(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
