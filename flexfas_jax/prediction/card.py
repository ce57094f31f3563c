"""A bundle's card, read and proven: its version, its thresholds, the bytes of its files.

A bundle is a folder with `card.json`, which names the files in it with their SHA-256. Whoever
has to be sure that nobody changed the card either keeps the SHA-256 of that, and asks for it.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flexfas_jax.errors import StateError

BUNDLE = 1  # the newest form of a bundle that is understood here
_NEEDED = {
  'name': str, 'model': dict, 'modalities': list, 'requires': list, 'image_size': int,
  'subsets': list, 'inputs': dict, 'thresholds': dict, 'models': list, 'files': dict,
  'weights_hash': str,
}  # fmt: skip
_AT_ONCE = 1 << 20  # bytes


@dataclasses.dataclass(frozen=True)
class Card:
  """What a bundle says of itself.

  Attributes:
    folder: the bundle.
    contents: of `card.json`.
    sha256: of `card.json`, which names those of all other files: the bundle's identity.
  """

  folder: Path
  contents: Mapping[str, Any]
  sha256: str

  @property
  def name(self) -> str:
    return self.contents['name']

  @property
  def modalities(self) -> tuple[str, ...]:
    """In the order of a model's `present`."""
    return tuple(self.contents['modalities'])

  @property
  def requires(self) -> tuple[str, ...]:
    """The modalities that the model cannot do without."""
    return tuple(self.contents['requires'])

  @property
  def subsets(self) -> tuple[str, ...]:
    """The names of those that are served."""
    return tuple(self.contents['subsets'])

  @property
  def image_size(self) -> int:
    return self.contents['image_size']

  @property
  def view(self) -> str:
    """What pictures are looked at by, see `geometry.named_views`."""
    return self.contents.get('view', 'whole')

  def bits(self, modality: str) -> tuple[int, ...]:
    """Of the pictures that the model knows; empty: any."""
    return tuple(self.contents['inputs'].get(modality, {}).get('bits', ()))

  def unit(self, modality: str) -> str:
    """Of 16-bit pictures: 'mm', or ''."""
    return self.contents['inputs'].get(modality, {}).get('unit') or ''

  def threshold(self, subset: str) -> float:
    """The threshold of a subset of the modalities; another subset has another.

    Raises:
      StateError: there is none.
    """
    found = self.contents['thresholds'].get(subset)
    value = found.get('value') if isinstance(found, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
      known = ', '.join(self.contents['thresholds']) or 'none'
      raise StateError(
        f'{self.folder}: the bundle has no threshold for {subset} (it has: {known}), and no other '
        'is taken in its place: export it again from a workdir whose val has scores of that subset'
      )
    return float(value)

  def path(self, name: str) -> Path:
    """A file of the bundle, its bytes proven.

    Raises:
      StateError: the card does not name it; it is missing; it has other bytes.
    """
    listed = {m['file']: m for m in self.contents['models']} | self.contents['files']
    if name not in listed:
      raise StateError(f'{self.folder}: card.json does not name {name}, so nobody vouches for it')
    if Path(name).is_absolute() or '..' in Path(name).parts:
      raise StateError(f'{self.folder}: {name} is not below the bundle')
    path = self.folder / name
    found, wanted = file_sha256(path), listed[name].get('sha256')
    if found != wanted:
      raise StateError(
        f'{path} is not what was exported: its SHA-256 is {found}, and card.json says {wanted}; '
        'fetch or export the bundle again'
      )
    return path


def file_sha256(path: Path) -> str:
  """SHA-256 of a file's bytes, 64 hexadecimal digits.

  Raises:
    StateError: it cannot be read.
  """
  digest = hashlib.sha256()
  try:
    with path.open('rb') as file:
      while part := file.read(_AT_ONCE):
        digest.update(part)
  except OSError as error:
    raise StateError(f'{path} cannot be read: {error.strerror}') from None
  return digest.hexdigest()


def read(folder: str | os.PathLike, sha256: str = '') -> Card:
  """The card of a bundle.

  Args:
    folder: the bundle.
    sha256: that `card.json` must have; '': whatever it has.

  Raises:
    StateError: no bundle, a damaged one, one that a newer version made, or another one.
  """
  folder = Path(folder)
  path = folder / 'card.json'
  if not path.is_file():
    raise StateError(
      f'{folder} is no bundle: there is no {path}. python -m flexfas_jax.main --mode=export makes '
      'one of a workdir'
    )
  try:
    text = path.read_bytes()
    contents = json.loads(text)
  except (OSError, ValueError) as error:
    raise StateError(f'{path} is damaged: {error}') from None
  found = hashlib.sha256(text).hexdigest()
  if sha256 and found != sha256.lower():
    raise StateError(f'{path} is another one: its SHA-256 is {found}, and {sha256.lower()} is due')
  version = contents.get('bundle') if isinstance(contents, dict) else None
  if isinstance(version, int) and version > BUNDLE:
    raise StateError(
      f'{folder} was made by a newer version of flexfas_jax ({contents.get("version")}; bundle '
      f'{version}, and up to {BUNDLE} is understood here): pip install -U flexfas_jax'
    )
  if version != BUNDLE:
    raise StateError(f'{path} is no card of a bundle: its "bundle" is {version!r}, not {BUNDLE}')
  _check(path, contents)
  return Card(folder, contents, found)


def _check(path: Path, contents: Mapping[str, Any]) -> None:
  for name, kind in _NEEDED.items():
    if not isinstance(contents.get(name), kind):
      raise StateError(f'{path} is damaged: "{name}" is {contents.get(name)!r}')
  texts: Sequence = [*contents['modalities'], *contents['requires'], *contents['subsets']]
  if not contents['modalities'] or not all(isinstance(text, str) for text in texts):
    raise StateError(f'{path} is damaged: its modalities and subsets are no names')
  if contents['image_size'] < 1:
    raise StateError(f'{path} is damaged: its image_size is {contents["image_size"]}')
  for model in contents['models']:
    told = [model.get(name) for name in ('file', 'format')] if isinstance(model, dict) else [None]
    if not all(isinstance(text, str) for text in told):
      raise StateError(f'{path} is damaged: one of its models has no file or format')
  for about in (contents['inputs'], contents['files']):
    if not all(isinstance(value, dict) for value in about.values()):
      raise StateError(f'{path} is damaged: what it says of inputs and files is of no known form')
