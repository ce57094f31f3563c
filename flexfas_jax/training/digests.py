"""Digests of a checkpoint's files, which reveal any change.

Orbax detects a truncated file, but not every flipped bit in a tensor. The digest of a local file is
its SHA-256; that of an object in a bucket is the CRC32C that the bucket keeps, so nothing is read.
"""

import base64
import hashlib
import json
import pathlib

from etils import epath

from flexfas_jax import bucket
from flexfas_jax.errors import ConfigError
from flexfas_jax.files import write_text
from flexfas_jax.models.weights import hashing
from flexfas_jax.training import distributed

FILE = 'digests.json'
_CRC32C = 'crc32c:'


def write(folder: epath.Path) -> None:
  """Writes the digest of every file into a checkpoint's folder."""
  remote = bucket.is_remote(folder)
  digests = _object_digests(folder) if remote else {n: _sha256(folder / n) for n in _files(folder)}
  text = json.dumps(digests, indent=1) + '\n'
  if remote:
    bucket.write(f'{folder}/{FILE}', text.encode())
  else:
    write_text(folder / FILE, text)


def find_damage(folder: epath.Path) -> str:
  """Describes the first file that differs from what was written; '' if none does."""
  digests = _read(folder)
  if not digests:
    return f'{FILE} is missing or damaged'
  remote = _object_digests(folder) if bucket.is_remote(folder) else {}
  if missing := sorted(digests.keys() - set(remote or _files(folder))):
    return f'{missing[0]} is missing'
  for name, digest in digests.items():
    try:
      if digest.startswith(_CRC32C):
        found = remote[name] if remote else _crc32c(folder / name)
      else:
        found = _sha256(folder / name)
    except OSError as error:
      return f'{name}: {error.strerror}'
    if found != digest:
      return f'{name} was changed'
  return ''


def is_of_files(folder: epath.Path) -> bool:
  """Whether a checkpoint was written locally, and not into a bucket."""
  digests = _read(folder)
  return bool(digests) and not any(d.startswith(_CRC32C) for d in digests.values())


def hash_weights(variables) -> str:
  """SHA-256 of a model's parameter names and values."""
  return hashing.hash_weights(variables, distributed.gather_to_host)


def _read(folder: epath.Path) -> dict[str, str]:
  """The digests in a checkpoint's folder; {} where the file is missing or damaged."""
  try:
    file = folder / FILE
    text = (bucket.read(str(file)) or b'') if bucket.is_remote(file) else file.read_bytes()
    digests = json.loads(text)
    assert isinstance(digests, dict) and all(isinstance(d, str) for d in digests.values())
    return digests
  except (OSError, ValueError, AssertionError):
    return {}


def _files(folder: epath.Path) -> list[str]:
  # Orbax rewrites the files in the folder itself after the digests are made.
  folder = pathlib.Path(folder)  # epath has no `**`
  return sorted(f.relative_to(folder).as_posix() for f in folder.glob('*/**/*') if f.is_file())


def _object_digests(folder: epath.Path) -> dict[str, str]:
  objects = bucket.list_objects(str(folder))
  return {name: _CRC32C + found.crc32c for name, found in objects.items() if '/' in name}


def _sha256(path: epath.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _crc32c(path: epath.Path) -> str:
  """Of a file that was copied from a bucket."""
  try:
    import google_crc32c
  except ImportError:
    raise ConfigError(
      'a checkpoint from a bucket has digests by CRC32C, which require the extra `gcs`: '
      "pip install 'flexfas_jax[gcs]'"
    ) from None
  checksum = google_crc32c.Checksum()
  with path.open('rb') as file:
    while piece := file.read(1 << 20):
      checksum.update(piece)
  return _CRC32C + base64.b64encode(checksum.digest()).decode()
