"""Finds the samples of a folder by the paths of its images."""

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
  IMAGES,
  OTHERS,
  PREFERRED,
  Listing,
  Sample,
  from_row,
  join_faults,
  unwritable,
)
from flexfas_jax.protocols import lists, path_layouts
from flexfas_jax.protocols.findings import Finding
from flexfas_jax.schema import LABELS

# Files that are no images, also in the folder of a sensor: 'depth/calibration.json'.
_TEXTS = frozenset((
  *('.csv', '.db', '.htm', '.html', '.ini', '.json', '.jsonl', '.log', '.md', '.pdf', '.py'),
  *('.sh', '.toml', '.tsv', '.txt', '.xml', '.yaml', '.yml'),
))  # fmt: skip
_SYSTEM = frozenset(('__macosx', '@eadir', 'desktop.ini', 'thumbs.db'))
_NAMED = 5  # files or samples in a note
_WORD = re.compile(r'(^|[/_.-])[^/_.-]*[^\W\d_][^/_.-]*(?=$|[/_.-])')  # has a letter

_WAY_OUT = 'name the images a/rgb/1.jpg, a/depth/1.png, a/ir/1.png, or list them in a --manifest'
_IF_ONE_SAMPLE = f'If they are one sample, {_WAY_OUT}'


def read_folder(folder: str | os.PathLike, on_bad: str = 'fail') -> Listing:
  """Finds samples in a folder: images whose paths differ only by the name of the sensor.

  `a/rgb/1.jpg`, `a/depth/1.png`, `a/ir/1.png` are a sample, and so are `1_rgb.jpg`, `1_depth.png`.
  A path without such a word is RGB. A folder called `bona_fide` or `attack` is a label. JPEG and
  PNG are read; other formats only for a sensor without a JPEG or PNG. Hidden and system files are
  ignored. Any other file that may be an image of a sample makes that sample a bad one; the rest is
  listed in a note.

  Args:
    folder: the folder; links are followed.
    on_bad: 'fail', or 'skip' to leave out bad samples.

  Raises:
    DataError: no such folder, or no image in it; a file name that does not identify its sensor or
      sample; two images of a sensor of a sample; with 'fail', also bad samples.
  """
  folder = Path(folder)
  if not folder.is_dir():
    raise DataError(f'{_shown(folder)} is not a folder')
  files = sorted(_files(folder))
  images = _group_images(folder, [name for name, _ in files])
  faults, skipped = _find_faults(folder, files, images)
  if not images:
    files_listed = join_faults([text for _, text in faults.values()] or _note_skipped(skipped))
    message = f'{_shown(folder)} has no image ({", ".join((*PREFERRED, *OTHERS))})'
    raise DataError(f'{message}: {files_listed}' if files_listed else message)
  _check_pairs(folder, images)
  bad = [Finding(rule, str(folder), 0, text) for rule, text in faults.values()]
  if bad and on_bad == 'fail':
    raise DataError(
      f'{_shown(folder)}: samples with unusable files: {len(bad)} (--on_bad=skip leaves them out): '
      + join_faults([finding.text for finding in bad])
    )
  samples = [from_row(_row(paths), folder) for key, paths in images.items() if key not in faults]
  ids = collections.Counter(sample.id for sample in samples)
  if repeated := [id_ for id_, n in ids.items() if n > 1]:
    raise DataError(f'{_shown(folder)}: {ids[repeated[0]]} samples have the id {repeated[0]}')
  return Listing(samples, bad, _note_skipped(skipped) + _note_missing(samples))


def _group_images(folder: Path, names: Sequence[str]) -> dict[str, dict[str, str]]:
  """{key of a sample: {modality: path}}.

  Raises:
    DataError: a name that does not identify its sensor; two images of a sensor of a sample.
  """
  images: dict[str, dict[str, str]] = {}
  unclear = []
  for suffixes in (PREFERRED, OTHERS):
    complete = {(key, modality) for key, paths in images.items() for modality in paths}
    for name in names:
      if Path(name).suffix.lower() not in suffixes:
        continue
      try:
        sensor = sensor_names.find_sensor(name)
      except sensor_names.UnclearName as error:
        unclear.append(f'{_shown(name)}: {error}')
        continue
      if (_key(name), sensor.modality) in complete:
        continue
      paths = images.setdefault(_key(name), {})
      if other := paths.get(sensor.modality):
        raise DataError(
          f'{_shown(folder)}: {_shown(other)} and {_shown(name)} are both {sensor.modality} of one '
          'sample'
        )
      paths[sensor.modality] = name
  if unclear:
    raise DataError(
      f'{_shown(folder)}: {join_faults(unclear)}. Move images of other sensors away; {_WAY_OUT}'
    )
  return images


def _files(folder: Path) -> Iterator[tuple[str, bool]]:
  """(relative path, whether it is a regular file) of all but hidden and system files."""

  def fail(error: OSError) -> None:
    raise DataError(f'{_shown(error.filename)} cannot be read: {error.strerror}')

  for base, folders, names in os.walk(folder, onerror=fail, followlinks=True):
    here = os.path.realpath(base)
    folders[:] = [name for name in folders if not _ignored(name)]
    for name in folders:
      path = os.path.join(base, name)
      if os.path.islink(path) and f'{here}/'.startswith(f'{os.path.realpath(path)}/'):
        raise DataError(f'{_shown(path)} is a link to a folder that contains it')
    for name in names:
      if not _ignored(name):
        path = Path(base, name)
        yield path.relative_to(folder).as_posix(), path.is_file()


def _ignored(name: str) -> bool:
  return name.startswith('.') or name.lower() in _SYSTEM


def _key(name: str) -> str:
  """The key of a file's sample, in Unicode NFC: file systems differ in how they store é."""
  return unicodedata.normalize('NFC', path_layouts.without_modality(name))


def _find_faults(
  folder: Path, files: Sequence[tuple[str, bool]], images: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, tuple[str, str]], list[str]]:
  """({key of a bad sample: (rule, text)}, files that belong to no sample)."""
  faults, skipped = {}, []
  used = {name for paths in images.values() for name in paths.values()}
  for name, regular in files:
    key, suffix = _key(name), Path(name).suffix.lower()
    if suffix in PREFERRED or name in used:
      if why := unwritable(name):
        faults[key] = 'row', f'the name {_shown(name)} {why}'
      elif not regular:
        faults[key] = 'unreadable', f'{name} is not a file but a dangling link or a device'
    elif _may_be_image(name, key, suffix, images):
      what = image_formats.describe(_head(folder / name)) if regular else 'no file'
      faults[key] = 'unreadable', f'{_shown(name)} cannot be read: it is {what}'
    else:
      skipped.append(name)
  return faults, skipped


def _head(path: Path) -> bytes:
  """The first bytes of a file; none if it cannot be read."""
  try:
    with image_files.open_regular(path) as file:
      return file.read(image_formats.HEAD)
  except OSError:
    return b''


def _may_be_image(
  name: str, key: str, suffix: str, images: Mapping[str, Mapping[str, str]]
) -> bool:
  """Whether an unsupported file may be the image of a sensor that its sample lacks."""
  modality = path_layouts.modality_of(name)
  of_sample = key in images
  if suffix in _TEXTS:  # a table of depths; not 'depth/calibration.json'
    return of_sample and bool(modality) and modality not in images[key]
  if not (of_sample or modality or sensor_names.is_sensor(name) or suffix in IMAGES):
    return False
  return (modality or 'rgb') not in images.get(key, {})


def _check_pairs(folder: Path, images: Mapping[str, Mapping[str, str]]) -> None:
  """Checks for file names that split a sample into several.

  Raises:
    DataError: a sensor that never comes with another one, although there are others; a name such as
      'depth_map', whose image has no partner; a word where other images have their sensor.
  """
  modalities = {modality for paths in images.values() for modality in paths}
  for modality in schema.MODALITIES:
    having = [paths for paths in images.values() if modality in paths]
    others = [paths for paths in images.values() if modality not in paths]
    if having and others and all(len(paths) == 1 for paths in having):
      other = next(iter(others[0].values()))
      raise DataError(
        f'{_shown(folder)}: no sample has {modality} and another sensor; '
        f'{_shown(having[0][modality])} and {_shown(other)} would be two samples. {_IF_ONE_SAMPLE}'
      )
  for paths in images.values():
    name, *partners = paths.values()
    if partners:
      continue
    sensor = sensor_names.find_sensor(name)
    if not sensor.plain and modalities != {'rgb'}:
      raise DataError(
        f'{_shown(folder)}: {_shown(name)} would be a sample of its own: {_shown(sensor.name)} is '
        f'more than the name of a sensor ({sensor_names.RECOGNIZED}). {_IF_ONE_SAMPLE}'
      )
    if other := _differs_by_a_word(name, images):
      raise DataError(
        f'{_shown(folder)}: {_shown(name)} would be a sample of its own, and differs from '
        f'{_shown(other)} by one word, which is not the name of a sensor '
        f'({sensor_names.RECOGNIZED}). {_IF_ONE_SAMPLE}'
      )


def _differs_by_a_word(name: str, images: Mapping[str, Mapping[str, str]]) -> str:
  """An image that names a sensor where `name` has another word: 'depth/1.png', 'disp/1.png'."""
  key = _key(name)
  for word in _WORD.finditer(key):
    other = (key[: word.start()] + key[word.end() :]).lstrip('/_.-')
    for image in images.get(other, {}).values():
      if sensor_names.find_sensor(image).name:
        return image
  return ''


def _row(paths: Mapping[str, str]) -> lists.ListRow:
  paths = {m: paths[m] for m in schema.MODALITIES if m in paths}
  parts = next(iter(paths.values())).split('/')
  label = next((part for part in reversed(parts) if part in LABELS), '')
  return lists.make_row(paths, label)


def _note_skipped(names: Sequence[str]) -> list[str]:
  if not names:
    return []
  counts = collections.Counter(Path(name).suffix.lower() or 'no suffix' for name in names)
  suffixes = ', '.join(f'{_shown(suffix)} {n}' for suffix, n in counts.most_common(_NAMED))
  return [f'ignored files: {len(names)} ({suffixes}): {_some(names)}']


def _note_missing(samples: Sequence[Sample]) -> list[str]:
  """Notes on the samples that lack a sensor of the others."""
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
  """Escapes what a terminal or a UTF-8 file cannot show: 'a\\xff.png'."""
  text = os.fspath(path)
  return ''.join(c if not unwritable(c) else repr(os.fsencode(c))[2:-1] for c in text)
