"""Reads and verifies a bundle: the card's signature and fields, and the bytes of its files.

A bundle is a folder with `card.json`, which holds the SHA-256 of every file in it. To detect a
changed card, verify its signature (`signature`), or compare its own SHA-256.
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

BUNDLE_VERSION = 2  # version of the bundle format, read here and written by an export
_LARGEST_CARD = 4 << 20  # bytes
_SAMPLES = 'samples/samples.json'
_REPAIR = 'fetch or export the bundle again'


@dataclasses.dataclass(frozen=True)
class Card:
  """The checked card of a bundle.

  Attributes:
    folder: the bundle.
    contents: of `card.json`.
    sha256: of `card.json`, which holds those of all other files; it identifies the bundle.
  """

  folder: Path
  contents: Mapping[str, Any]
  sha256: str

  @property
  def name(self) -> str:
    return self.contents['name']

  @property
  def modalities(self) -> tuple[str, ...]:
    """The modalities, in the order of a model's `present`."""
    return tuple(self.contents['modalities'])

  @property
  def requires(self) -> tuple[str, ...]:
    """The modalities that the model requires."""
    return tuple(self.contents['requires'])

  @property
  def subsets(self) -> tuple[str, ...]:
    """Names of the subsets that the model serves."""
    return tuple(self.contents['subsets'])

  @property
  def image_size(self) -> int:
    return self.contents['image_size']

  @property
  def view(self) -> str:
    """View of the image that the model takes, see `geometry.parse_views`."""
    return self.contents.get('view', 'whole')

  @property
  def resize(self) -> str:
    """How images are resized, see `geometry.RESIZES`."""
    return self.contents.get('resize', 'area')

  def bits(self, modality: str) -> tuple[int, ...]:
    """Bit depths of a modality that the model accepts; empty: any."""
    return tuple(self.contents['inputs'].get(modality, {}).get('bits', ()))

  @property
  def notes(self) -> list[str]:
    """Notes for users; `remarks` in bundles of earlier versions."""
    return list(self.contents.get('notes', self.contents.get('remarks', [])))

  @property
  def is_rendered(self) -> bool:
    """Whether the data is stated to be rendered; bundles of earlier versions may not state it."""
    data = self.contents.get('data')
    return isinstance(data, dict) and data.get('rendered') is True

  @property
  def failed(self) -> list[str]:
    """A line for each test whose stated requirement the model does not meet."""
    lines = []
    for test, subsets in self.contents.get('metrics', {}).items():
      stated = {s: v['pass_if'] for s, v in subsets.items() if isinstance(v.get('pass_if'), dict)}
      if names := [s for s, verdict in stated.items() if verdict.get('passed') is not True]:
        required = stated[names[0]].get('requirement', '')
        lines.append(
          f'FAIL: {", ".join(names)} in the test {test}, of which {required} is required'
        )
    return lines

  def threshold(self, subset: str) -> float:
    """The threshold of a subset; each subset has its own.

    Raises:
      StateError: the subset has none.
    """
    thresholds, evidence = self.contents['thresholds'], self.contents['evidence']
    if subset not in thresholds:
      available = ', '.join(thresholds) or 'none'
      raise StateError(
        f'{self.folder}: the bundle has no threshold for {subset} (it has: {available}). Export it '
        f'from a run whose validation scores of that subset hold at least {evidence["min_scores"]} '
        f'scores of {evidence["min_subjects"]} subjects of each class'
      )
    return float(thresholds[subset]['value'])

  def read_file(self, name: str) -> bytes:
    """Reads a file of the bundle once, and returns the bytes that were verified.

    Raises:
      StateError: the card does not name the file; it is missing, outside the bundle, or has other
        bytes.
    """
    listed = {m['file']: m for m in self.contents['models']} | self.contents['files']
    if name not in listed:
      raise StateError(f'{self.folder}: card.json does not name {name}')
    path = self.folder / name
    try:
      if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.folder)):
        raise StateError(f'{path} is a link to a file outside the bundle; copy the file into it')
      content = image_files.read(path, listed[name]['bytes'])
    except OSError as error:
      raise StateError(f'{path} cannot be read: {error.strerror}; {_REPAIR}') from None
    except MemoryError:
      raise StateError(f'{path} cannot be read: it does not fit into memory') from None
    sha256, expected = hashlib.sha256(content).hexdigest(), listed[name]['sha256']
    if sha256 != expected:
      raise StateError(
        f'{path} is not the exported file: its SHA-256 is {sha256}, that in card.json {expected}; '
        f'{_REPAIR}'
      )
    return content

  def samples(self) -> list[dict[str, Any]]:
    """The samples of the bundle, each with 'id', 'files' {modality: name} and optionally 'label'.

    Raises:
      StateError: their list is damaged or of other weights.
    """
    if _SAMPLES not in self.contents['files']:
      return []
    try:
      listing = strict_json.parse(self.read_file(_SAMPLES))
      card_schema.check_samples(listing, self.contents)
    except ValueError as error:
      raise StateError(f'{self.folder / _SAMPLES} is damaged: {error}; {_REPAIR}') from None
    return listing['samples']


def read(
  folder: str | os.PathLike,
  sha256: str | None = None,
  *,
  public_key: str | os.PathLike | None = None,
  require_signature: bool = False,
  min_sequence: int | None = None,
) -> Card:
  """Reads and checks the card of a bundle.

  Args:
    folder: the bundle.
    sha256: expected SHA-256 of `card.json`; None: any.
    public_key: PEM file of the key that signed the card; an unsigned card is not parsed. None: the
      signature is not read.
    require_signature: raise ConfigError if `public_key` is None.
    min_sequence: lowest `sequence` of the card, so that an older bundle fails even if it is signed;
      None: any.

  Raises:
    ConfigError: a signature is required and no key given, or the file holds none; an empty
      `sha256`.
    StateError: no bundle, or one that is damaged, unsigned, too old, of another version, or of
      another SHA-256.
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
    raise StateError(f'{folder} is not a bundle: there is no {path}. {_hint(folder)}') from None
  except OSError as error:
    raise StateError(f'{path} cannot be read: {error.strerror}') from None
  if public_key is not None:
    signature.verify(text, folder, public_key)
  digest = hashlib.sha256(text).hexdigest()
  if sha256 is not None and digest != sha256.lower():
    raise StateError(f'{path} is another card: its SHA-256 is {digest}, not {sha256.lower()}')
  try:
    contents = strict_json.parse(text)
    _check_version(folder, contents)
    card_schema.check(contents)
  except ValueError as error:
    raise StateError(f'{path} is damaged: {error}; {_REPAIR}') from None
  if min_sequence is not None and contents['sequence'] < min_sequence:
    raise StateError(
      f'{folder} is too old: its sequence number is {contents["sequence"]}, and at least '
      f'{min_sequence} is required; fetch the newest bundle'
    )
  return Card(folder, contents, digest)


def _hint(folder: Path) -> str:
  if (folder / 'bundle' / 'card.json').is_file():  # the workdir of a run
    return f'{folder / "bundle"} is one'
  return 'Export a run: flexfas export RUN'


def _check_version(folder: Path, contents: Any) -> None:
  version = contents.get('bundle') if type(contents) is dict else None
  if type(version) is not int:
    raise StateError(
      f'{folder / "card.json"} is not a card of a bundle: its "bundle" is {reprlib.repr(version)}'
    )
  package = reprlib.repr(contents.get('version'))
  made_by = f'version, {package}: its bundle version is {version}, not {BUNDLE_VERSION}'
  if version > BUNDLE_VERSION:
    raise StateError(f'{folder} was made by a newer {made_by}. pip install -U flexfas_jax')
  if version < BUNDLE_VERSION:
    raise StateError(
      f'{folder} was made by an older {made_by}. Its card does not count the scores that its '
      'thresholds were fitted on. Export it again: flexfas export RUN'
    )
