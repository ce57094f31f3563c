"""TFDS builder of face recognition sets: a folder per identity. See README.md in this folder."""

import collections
import os
import re
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from flexfas_jax.data import folders
from flexfas_jax.data.face_identities import recordio
from flexfas_jax.data.reading import SourceRow
from flexfas_jax.data.source_builder import Plan, SourceBuilder
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.protocols.selection import part_of

_SHARES = 1000  # parts of identities: shares are in tenths of a percent
_SUFFIXES = folders.IMAGE_SUFFIXES


class Builder(SourceBuilder):
  """Reads ROOT/IDENTITY/*.jpg, or insightface's train.rec; the config's name is the set's."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First release.'}
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'Aligned faces of identities: --source=DIR with a folder per identity that holds its '
    "images (CASIA-WebFace, MS1M), or with insightface's train.rec and train.idx"
  )
  RULES = image_checks.Rules(bits={'rgb': 8})
  OPTIONS = {'val': '2', 'test': '2', 'least': '2'}

  def _create_builder_config(self, builder_config, version):
    # Any name is valid: its config is made on request.
    name = getattr(builder_config, 'name', builder_config) or ''
    if not re.fullmatch('[A-Za-z0-9_-]+', name):
      raise ConfigError(
        'a set of faces needs a name: --dataset=face_identities/NAME, of the letters A to Z, '
        f'digits, _ and -; it is {name!r}'
      )
    return tfds.core.BuilderConfig(name=name, description='Faces by identity.')

  SHARED_IMAGES_LEAK = False  # one photo from the web is found under several names

  def reader(self) -> recordio.RecordReader:
    """Reads a file, or a record of train.rec."""
    return recordio.RecordReader(str(self.source), self.RULES)

  def plan(self) -> Plan:
    """A row per image; whole identities are dealt to val and test by their names' hashes.

    Raises:
      ConfigError: shares or numbers that cannot be.
      DataError: neither folders with images nor a record file.
    """
    val, test = (self._number(name, 100) * _SHARES / 100 for name in ('val', 'test'))
    if val + test >= _SHARES:
      raise ConfigError(
        f'val and test are {val / 10} and {test / 10} %: no identity is left for train'
      )
    least = self._number('least', 1e9)
    records = sorted(self.source.glob('*.rec'))
    if len(records) > 1:
      raise DataError(f'{self.source} holds several: {", ".join(r.name for r in records)}')
    images = self._of_records(records[0]) if records else self._of_folders()
    by_identity = collections.defaultdict(list)
    for identity, name, path in images:
      by_identity[identity].append((name, path))
    few = {identity: found for identity, found in by_identity.items() if len(found) < least}
    made = Plan({'train': [], 'val': [], 'test': []}, recorded={'format': self._format(records)})
    for identity, found in by_identity.items():
      if identity not in few:
        part = part_of(identity, _SHARES)
        split = 'val' if part < val else 'test' if part < val + test else 'train'
        made.splits[split] += [self._row(identity, name, path) for name, path in found]
    if few:
      n = sum(map(len, few.values()))
      made.notes.append(
        f'{len(few)} of {len(by_identity)} identities with fewer than {least:g} images are left '
        f'out ({n} images)'
      )
    return made

  def _number(self, option: str, most: float) -> float:
    try:
      value = float(self.options[option])
    except ValueError:
      value = -1
    if not 0 <= value <= most:
      raise ConfigError(f'--option {option}={self.options[option]}: a number from 0 to {most:g}')
    return value

  @staticmethod
  def _format(records: list[Path]) -> str:
    return records[0].name if records else 'folders'

  def _of_folders(self) -> Iterator[tuple[str, str, str]]:
    """Yields (identity, name of the image, path), sorted."""
    with os.scandir(self.source) as entries:
      identities = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith('.'))
    for identity in identities:
      with os.scandir(self.source / identity) as entries:
        names = sorted(e.name for e in entries if not e.name.startswith('.'))
      for name in names:
        if name.rpartition('.')[2].lower() in _SUFFIXES:
          yield identity, name, f'{identity}/{name}'

  def _of_records(self, rec: Path) -> Iterator[tuple[str, str, str]]:
    """Yields (identity, key, FILE#PLACE), in the order of the keys."""
    for key, place, identity in recordio.index(rec):
      yield identity, str(key), f'{rec.name}#{place}'

  def _row(self, identity: str, name: str, path: str) -> SourceRow:
    dataset = self.builder_config.name
    place = f'{dataset}/{identity}/{name}'
    facts = {
      'id': place,
      'label': 'bona_fide',
      'attack_type': '',
      'attack_category': '',
      'subject': f'{dataset}/{identity}',
      'video': place,  # each image is one
      'frame': 0,
      'dataset': dataset,
      'ethnicity': '',
    }
    return SourceRow(facts, {'rgb': path}, path.partition('#')[0].rpartition('/')[0] or path)
