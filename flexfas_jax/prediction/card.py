"""A bundle's card, read and verified: its signature, its fields, the bytes of its files.

A bundle is a folder with `card.json`, which names the files in it with their SHA-256. To be sure
that nobody changed the card itself, verify its signature (`signature`), or keep its SHA-256 and
require that.
"""

import dataclasses
import hashlib
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.images import files as image_files
from flexfas_jax.prediction import card_schema, signature, strict_json

BUNDLE = 2  # the form of a bundle that is read here, and that an export writes
_LARGEST_CARD = 4 << 20  # bytes
_SAMPLES = 'samples/samples.json'
_AGAIN = 'fetch or export the bundle again'


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
    """What pictures are looked at by, see `geometry.parse_views`."""
    return self.contents.get('view', 'whole')

  @property
  def resize(self) -> str:
    """How pictures are resized, see `geometry.RESIZES`."""
    return self.contents.get('resize', 'area')

  def bits(self, modality: str) -> tuple[int, ...]:
    """Of the pictures that the model knows; empty: any."""
    return tuple(self.contents['inputs'].get(modality, {}).get('bits', ()))

  def threshold(self, subset: str) -> float:
    """The threshold of a subset of the modalities; another subset has another.

    Raises:
      StateError: there is none.
    """
    thresholds, evidence = self.contents['thresholds'], self.contents['evidence']
    if subset not in thresholds:
      known = ', '.join(thresholds) or 'none'
      raise StateError(
        f'{self.folder}: the bundle has no threshold for {subset} (it has: {known}), and no other '
        'is taken in its place: export it from a workdir whose val has, under that subset, at '
        f'least {evidence["min_scores"]} scores of {evidence["min_subjects"]} subjects of each '
        'class'
      )
    return float(thresholds[subset]['value'])

  def read_file(self, name: str) -> bytes:
    """The verified bytes of a file of the bundle: it is opened once, so that what was verified is
    what is used.

    Raises:
      StateError: the card does not name it; it is missing, elsewhere, or has other bytes.
    """
    listed = {m['file']: m for m in self.contents['models']} | self.contents['files']
    if name not in listed:
      raise StateError(f'{self.folder}: card.json does not name {name}, so that nothing proves it')
    path = self.folder / name
    try:
      if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.folder)):
        raise StateError(f'{path} is a link to a file outside the bundle; copy the file into it')
      content = image_files.read(path, listed[name]['bytes'])
    except OSError as error:
      raise StateError(f'{path} cannot be read: {error.strerror}; {_AGAIN}') from None
    except MemoryError:
      raise StateError(f'{path} cannot be read: it does not fit into memory') from None
    found, wanted = hashlib.sha256(content).hexdigest(), listed[name]['sha256']
    if found != wanted:
      raise StateError(
        f'{path} is not what was exported: its SHA-256 is {found}, and card.json says {wanted}; '
        f'{_AGAIN}'
      )
    return content

  def samples(self) -> list[dict[str, Any]]:
    """The samples of the bundle, each with 'id', 'files' {modality: name} and perhaps 'label'.

    Raises:
      StateError: their list is damaged, or of other weights.
    """
    if _SAMPLES not in self.contents['files']:
      return []
    try:
      found = strict_json.parse(self.read_file(_SAMPLES))
      card_schema.check_samples(found, self.contents)
    except ValueError as error:
      raise StateError(f'{self.folder / _SAMPLES} is damaged: {error}; {_AGAIN}') from None
    return found['samples']


def read(
  folder: str | os.PathLike,
  sha256: str | None = None,
  *,
  public_key: str | os.PathLike | None = None,
  require_signature: bool = False,
  min_sequence: int | None = None,
) -> Card:
  """The card of a bundle.

  Args:
    folder: the bundle.
    sha256: that `card.json` must have; None: any.
    public_key: a PEM file; the card must be signed by its key, and nothing of an unsigned card is
      parsed. None: the signature is not read.
    require_signature: refuse to read without `public_key`.
    min_sequence: the card's `sequence` must be at least this: an older bundle, though signed, is
      refused. None: any.

  Raises:
    ConfigError: a signature is required and there is no key, or the file holds none; an empty
      `sha256`.
    StateError: no bundle, a damaged, unsigned or older one, one that another version made, or one
      with another SHA-256.
  """
  if public_key is None and require_signature:
    raise ConfigError('a signature is required: give the public key that verifies it')
  if sha256 is not None and not sha256:
    raise ConfigError('the SHA-256 of card.json is empty; `sha256sum card.json` prints it')
  if min_sequence is not None and type(min_sequence) is not int:
    raise ConfigError(f'min_sequence is {min_sequence!r}, not an integer')
  folder = Path(folder)
  path = folder / 'card.json'
  try:
    text = image_files.read(path, _LARGEST_CARD)
  except (FileNotFoundError, NotADirectoryError):
    raise StateError(
      f'{folder} is no bundle: there is no {path}. python -m flexfas_jax.main --mode=export makes '
      'one of a workdir'
    ) from None
  except OSError as error:
    raise StateError(f'{path} cannot be read: {error.strerror}') from None
  if public_key is not None:
    signature.verify(text, folder, public_key)
  found = hashlib.sha256(text).hexdigest()
  if sha256 is not None and found != sha256.lower():
    raise StateError(f'{path} is another one: its SHA-256 is {found}, and {sha256.lower()} is due')
  try:
    contents = strict_json.parse(text)
    _check_version(folder, contents)
    card_schema.check(contents)
  except ValueError as error:
    raise StateError(f'{path} is damaged: {error}; {_AGAIN}') from None
  if min_sequence is not None and contents['sequence'] < min_sequence:
    raise StateError(
      f'{folder} is older than what is allowed: its sequence number is {contents["sequence"]}, and '
      f'at least {min_sequence} is required; fetch the newest bundle'
    )
  return Card(folder, contents, found)


def _check_version(folder: Path, contents: Any) -> None:
  version = contents.get('bundle') if type(contents) is dict else None
  if type(version) is not int:
    raise StateError(
      f'{folder / "card.json"} is no card of a bundle: its "bundle" is {reprlib.repr(version)}'
    )
  found = reprlib.repr(contents.get('version'))
  made_by = f'version, {found}: it is bundle {version}, and {BUNDLE} is read here'
  if version > BUNDLE:
    raise StateError(f'{folder} was made by a newer {made_by}. pip install -U flexfas_jax')
  if version < BUNDLE:
    raise StateError(
      f'{folder} was made by an older {made_by}. Its card does not count the scores that its '
      'thresholds are fitted on. Export it again: python -m flexfas_jax.main --mode=export'
    )
