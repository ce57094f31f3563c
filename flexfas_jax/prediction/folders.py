"""The samples of a folder: which files are images of one sample, by their paths alone."""

import collections
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from flexfas_jax import schema
from flexfas_jax.errors import DataError
from flexfas_jax.images import files as image_files
from flexfas_jax.images import formats as image_formats
from flexfas_jax.prediction import sensor_names
from flexfas_jax.prediction.samples import (
  CONVERTED,
  IMAGES,
  READ,
  Listing,
  Sample,
  listed,
  of_row,
  unwritable,
)
from flexfas_jax.protocols import lists, path_layouts
from flexfas_jax.protocols.findings import Finding
from flexfas_jax.schema import LABELS

# What stands beside images and is none; in a sensor's folder too: 'depth/calibration.json'.
_TEXTS = frozenset((
  *('.csv', '.db', '.htm', '.html', '.ini', '.json', '.jsonl', '.log', '.md', '.pdf', '.py'),
  *('.sh', '.toml', '.tsv', '.txt', '.xml', '.yaml', '.yml'),
))  # fmt: skip
_SYSTEM = frozenset(('__macosx', '@eadir', 'desktop.ini', 'thumbs.db'))
_NAMED = 5  # files or samples that a note names
_WORD = re.compile(r'(^|[/_.-])[^/_.-]*[^\W\d_][^/_.-]*(?=$|[/_.-])')  # of a path, with a letter

_WAY_OUT = 'call them a/rgb/1.jpg, a/depth/1.png, a/ir/1.png, or list them in a --manifest'
_ONE = f'If they are of one sample, {_WAY_OUT}'


def of_folder(folder: str | os.PathLike, on_bad: str = 'fail') -> Listing:
  """The samples of a folder: images whose paths differ by nothing but the sensor's name.

  `a/rgb/1.jpg`, `a/depth/1.png`, `a/ir/1.png` are one, and so are `1_rgb.jpg`, `1_depth.png`. A
  path without such a word is of RGB. A folder called `bona_fide` or `attack` is a label. JPEG and
  PNG are read, and where a sample has none of a sensor, the formats of `converted_formats`; hidden
  and system files are ignored; of all else, what may be an image of a sample makes that sample a
  bad one, and the rest is named in a note.

  Args:
    folder: where to look; links are followed.
    on_bad: 'fail', or 'skip': bad samples are left out.

  Raises:
    DataError: no such folder, or no image in it; names that do not say of which sensor or sample an
      image is; two images of one sensor of one sample; with 'fail' also bad samples, listed.
  """
  folder = Path(folder)
  if not folder.is_dir():
    raise DataError(f'{_shown(folder)} is not a folder')
  files = sorted(_files(folder))
  found: dict[str, dict[str, str]] = {}
  unclear = []
  for suffixes in (READ, CONVERTED):
    before = {(key, modality) for key, images in found.items() for modality in images}
    for name, _ in files:
      if Path(name).suffix.lower() not in suffixes:
        continue
      try:
        sensor = sensor_names.of_path(name)
      except sensor_names.Unclear as error:
        unclear.append(f'{_shown(name)}: {error}')
        continue
      if (_key(name), sensor.modality) in before:
        continue
      images = found.setdefault(_key(name), {})
      if other := images.get(sensor.modality):
        raise DataError(
          f'{_shown(folder)}: {_shown(other)} and {_shown(name)} are both {sensor.modality} of one '
          'sample'
        )
      images[sensor.modality] = name
  if unclear:
    raise DataError(
      f'{_shown(folder)}: {listed(unclear)}. Move other sensors away; ours: {_WAY_OUT}'
    )
  faults, skipped = _faults(folder, files, found)
  if not found:
    told = listed([text for _, text in faults.values()] or _note_skipped(skipped))
    none = f'{_shown(folder)} has no image ({", ".join((*READ, *CONVERTED))})'
    raise DataError(f'{none}: {told}' if told else none)
  _check_pairs(folder, found)
  bad = [Finding(rule, str(folder), 0, text) for rule, text in faults.values()]
  if bad and on_bad == 'fail':
    raise DataError(
      f'{_shown(folder)}: samples that cannot be decided: {len(bad)} (--on_bad=skip leaves them '
      'out): ' + listed([finding.text for finding in bad])
    )
  samples = [of_row(_row(images), folder) for key, images in found.items() if key not in faults]
  ids = collections.Counter(sample.id for sample in samples)
  if twice := [id_ for id_, n in ids.items() if n > 1]:
    raise DataError(f'{_shown(folder)}: {ids[twice[0]]} samples have the id {twice[0]}')
  return Listing(samples, bad, _note_skipped(skipped) + _note_missing(samples))


def _files(folder: Path) -> Iterator[tuple[str, bool]]:
  """(path below the folder, whether it is a regular file) of all but hidden and system files."""

  def fail(error: OSError) -> None:
    raise DataError(f'{_shown(error.filename)} cannot be read: {error.strerror}')

  for base, folders, names in os.walk(folder, onerror=fail, followlinks=True):
    here = os.path.realpath(base)
    folders[:] = [name for name in folders if not _ignored(name)]
    for name in folders:
      path = os.path.join(base, name)
      if os.path.islink(path) and f'{here}/'.startswith(f'{os.path.realpath(path)}/'):
        raise DataError(f'{_shown(path)} is a link to a folder that it is in')
    for name in names:
      if not _ignored(name):
        path = Path(base, name)
        yield path.relative_to(folder).as_posix(), path.is_file()


def _ignored(name: str) -> bool:
  return name.startswith('.') or name.lower() in _SYSTEM


def _key(name: str) -> str:
  """The same for the files of a sample; composed, for file systems differ in how they write é."""
  return unicodedata.normalize('NFC', path_layouts.without_modality(name))


def _faults(
  folder: Path, files: Sequence[tuple[str, bool]], found: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, tuple[str, str]], list[str]]:
  """What makes samples bad, {key: (rule, text)}, and the files that are no part of any."""
  faults, skipped = {}, []
  used = {name for images in found.values() for name in images.values()}
  for name, regular in files:
    key, suffix = _key(name), Path(name).suffix.lower()
    if suffix in READ or name in used:
      if why := unwritable(name):
        faults[key] = 'row', f'the name {_shown(name)} {why}'
      elif not regular:
        faults[key] = 'unreadable', f'{name} is not a file: a broken link, or a device'
    elif _is_missing_image(name, key, suffix, found):
      what = image_formats.describe(_head(folder / name)) if regular else 'no file'
      faults[key] = 'unreadable', f'{_shown(name)} is not read: it is {what}'
    else:
      skipped.append(name)
  return faults, skipped


def _head(path: Path) -> bytes:
  """The first bytes of a file; none where it cannot be read."""
  try:
    with image_files.open_regular(path) as file:
      return file.read(image_formats.HEAD)
  except OSError:
    return b''


def _is_missing_image(
  name: str, key: str, suffix: str, found: Mapping[str, Mapping[str, str]]
) -> bool:
  """Whether a file that is not read may be the image of a sensor that its sample lacks."""
  modality = path_layouts.modality_of(name)
  of_sample = key in found
  if suffix in _TEXTS:  # a table of depths; not 'depth/calibration.json'
    return of_sample and bool(modality) and modality not in found[key]
  if not (of_sample or modality or sensor_names.is_sensor(name) or suffix in IMAGES):
    return False
  return (modality or 'rgb') not in found.get(key, {})


def _check_pairs(folder: Path, found: Mapping[str, Mapping[str, str]]) -> None:
  """Refuses names by which images of one sample became samples of their own.

  Raises:
    DataError: a sensor that never comes with another though there are others; a name such as
      'depth_map', whose image has no partner; a word where other images have their sensor.
  """
  several = {modality for images in found.values() for modality in images}
  for modality in schema.MODALITIES:
    having = [images for images in found.values() if modality in images]
    others = [images for images in found.values() if modality not in images]
    if having and others and all(len(images) == 1 for images in having):
      other = next(iter(others[0].values()))
      raise DataError(
        f'{_shown(folder)}: no sample has {modality} and another sensor; '
        f'{_shown(having[0][modality])} and {_shown(other)} are taken for two samples. {_ONE}'
      )
  for images in found.values():
    name, *partners = images.values()
    if partners:
      continue
    sensor = sensor_names.of_path(name)
    if not sensor.plain and several != {'rgb'}:
      raise DataError(
        f'{_shown(folder)}: {_shown(name)} would be a sample of its own: {_shown(sensor.name)} is '
        f'more than the name of a sensor ({sensor_names.READ}). {_ONE}'
      )
    if other := _same_but_for_a_word(name, found):
      raise DataError(
        f'{_shown(folder)}: {_shown(name)} would be a sample of its own, and differs from '
        f'{_shown(other)} by one word, which is not the name of a sensor ({sensor_names.READ}). '
        f'{_ONE}'
      )


def _same_but_for_a_word(name: str, found: Mapping[str, Mapping[str, str]]) -> str:
  """An image with a sensor's name where `name` has another word: 'depth/1.png' of 'disp/1.png'."""
  key = _key(name)
  for word in _WORD.finditer(key):
    other = (key[: word.start()] + key[word.end() :]).lstrip('/_.-')
    for image in found.get(other, {}).values():
      if sensor_names.of_path(image).name:
        return image
  return ''


def _row(images: Mapping[str, str]) -> lists.Row:
  paths = {m: images[m] for m in schema.MODALITIES if m in images}
  parts = next(iter(paths.values())).split('/')
  label = next((part for part in reversed(parts) if part in LABELS), '')
  return lists.make_row(paths, label)


def _note_skipped(names: Sequence[str]) -> list[str]:
  if not names:
    return []
  counts = collections.Counter(Path(name).suffix.lower() or 'no suffix' for name in names)
  said = ', '.join(f'{_shown(suffix)} {n}' for suffix, n in counts.most_common(_NAMED))
  return [f'files that are not read: {len(names)} ({said}): {_some(names)}']


def _note_missing(samples: Sequence[Sample]) -> list[str]:
  """Which samples lack a sensor that others have."""
  notes = []
  for modality in schema.MODALITIES:
    lacking = [sample.id for sample in samples if modality not in sample.given]
    if 0 < len(lacking) < len(samples):
      notes.append(
        f'{len(lacking)} of {len(samples)} samples have no {modality}, which counts as absent: '
        + _some(lacking)
      )
  return notes


def _some(names: Sequence[str]) -> str:
  more = f', and {len(names) - _NAMED} more' if len(names) > _NAMED else ''
  return ', '.join(map(_shown, names[:_NAMED])) + more


def _shown(path: str | os.PathLike) -> str:
  """A name that a terminal and a UTF-8 file can show: 'a\\xff.png'."""
  text = os.fspath(path)
  return ''.join(c if not unwritable(c) else repr(os.fsencode(c))[2:-1] for c in text)
