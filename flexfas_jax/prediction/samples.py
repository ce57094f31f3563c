"""Many samples: from a manifest, or examples of a prepared set; `folders` reads folders."""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from flexfas_jax import schema
from flexfas_jax.errors import DataError
from flexfas_jax.images import face_crop
from flexfas_jax.prediction import sensor_names
from flexfas_jax.prediction.input_images import Given
from flexfas_jax.protocols import lists, path_layouts, relative_paths
from flexfas_jax.protocols.findings import Finding
from flexfas_jax.schema import LABELS, METADATA

READ = ('.jpg', '.jpeg', '.png')
CONVERTED = ('.webp', '.tif', '.tiff', '.npy', '.heic', '.heif')  # read too
# Suffixes of images and arrays, read or not.
IMAGES = frozenset((
  *READ,
  *('.avif', '.bmp', '.cr2', '.dng', '.exr', '.gif', '.hdr', '.heic', '.heif', '.jfif', '.jp2'),
  *('.jpe', '.jxl', '.mat', '.nef', '.npy', '.npz', '.pfm', '.pgm', '.pnm', '.ppm', '.raw'),
  *('.tga', '.tif', '.tiff', '.webp'),
))  # fmt: skip
_SHOWN = 10  # faults that an error lists
_TIME = '_time'  # a column rgb_time has the seconds at which rgb was taken


class Sample(NamedTuple):
  """One to be decided about."""

  id: str
  given: Mapping[str, Given]  # by modality
  label: str = ''  # 'bona_fide', 'attack'; '': not known
  facts: Mapping[str, str] = {}  # of `METADATA`
  box: Mapping[str, str] | None = None  # the cells that say where the face is
  times: Mapping[str, float] | None = None
  row: int = 0  # the line of the list that it is from


class Listing(NamedTuple):
  """The samples that a folder or a list has, and what it has besides."""

  samples: list[Sample]
  bad: list[Finding]  # samples that cannot be decided by what is there; not among `samples`
  notes: list[str]  # for the user to know


def of_manifest(
  path: str | os.PathLike,
  root: str | os.PathLike | None = None,
  labels: Mapping | None = None,
  on_bad: str = 'fail',
) -> Listing:
  """The samples of a list with the columns of `data/manifest`; a label may be missing.

  Columns `rgb_time`, `depth_time`, `ir_time` are seconds at which the images were taken; an empty
  cell is a sensor that has lost its clock.

  Args:
    path: the list.
    root: where its paths start; None: its own folder.
    labels: {value: 'bona_fide' or 'attack'} of other words.
    on_bad: 'fail', or 'skip': rows with faults are left out.

  Raises:
    DataError: a list that cannot be read, or with columns of sensors that are not read; with 'fail'
      also rows with faults, listed.
  """
  bad = []

  def found(rule: str, line: int, text: str) -> None:
    bad.append(Finding(rule, str(path), line, text))

  root = Path(root) if root is not None else Path(path).parent
  rows = list(lists.scan(path, labels, found))
  if rows and (unread := _unread_columns(rows)):
    raise DataError(
      f'{path}, row 1: {unread[0]} is not a column of images that is read; call it '
      f'{", ".join(schema.MODALITIES)}, or take it out'
    )
  wrong = {finding.row for finding in bad}
  samples, lines = [], {}
  for row in rows:
    if row.line in wrong:
      continue
    try:
      sample = of_row(row, root)
    except ValueError as error:
      found('row', row.line, str(error))
      continue
    if sample.id in lines:
      found('row', row.line, f'the id {sample.id} is that of row {lines[sample.id]} too')
      continue
    lines[sample.id] = row.line
    samples.append(sample)
  bad.sort(key=lambda finding: finding.row)
  if bad and (on_bad == 'fail' or not bad[0].row):  # row 0: a fault of the whole list
    raise DataError(
      f'{path}: {listed([f"row {f.row}: {f.text}" if f.row else f.text for f in bad])}'
    )
  return Listing(samples, bad, [])


def listed(faults: Sequence[str]) -> str:
  """Some faults as one line."""
  more = f'; and {len(faults) - _SHOWN} more' if len(faults) > _SHOWN else ''
  return '; '.join(faults[:_SHOWN]) + more


def of_examples(examples: Iterable[Mapping], modalities) -> Iterator[Sample]:
  """The samples of a prepared set, as `sources.Source` gives its examples."""
  for example in examples:
    yield Sample(
      example['id'],
      {m: example[m] for m in modalities if example.get(m)},
      LABELS[int(example['label'])],
      {name: str(example.get(name, '')) for name in METADATA},
    )


def of_row(row: lists.Row, root: Path) -> Sample:
  """The sample of a list's row.

  Args:
    row: from `lists`.
    root: where its paths start.

  Raises:
    ValueError: a time that is not a number; one file for two sensors; text that a score file cannot
      hold.
  """
  facts = {name: row.example_fields()[name] for name in METADATA}
  # A path of nothing but the sensor's name, 'rgb.png', leaves none.
  id_ = row.id or next(iter(row.paths.values())).rpartition('.')[0]
  for name, text in {'id': id_, **facts}.items():
    if why := unwritable(text):
      raise ValueError(f'{name} {text!r} {why}')
  files = {}
  for modality, path in row.paths.items():
    if path in files:
      raise ValueError(f'{files[path]} and {modality} are the same file, {path}')
    files[path] = modality
  names = (*face_crop.BOX, *face_crop.EYES, *face_crop.MOUTH)
  box = {name: row.extra[name] for name in names if name in row.extra}
  return Sample(
    id_,
    {m: Path(relative_paths.locate(root, path)) for m, path in row.paths.items()},
    row.label,
    facts,
    box or None,
    _times(row),
    row.line,
  )


def _times(row: lists.Row) -> dict[str, float] | None:
  times = {}
  for name, cell in row.extra.items():
    if not name.endswith(_TIME) or not (modality := path_layouts.modality_of(name)):
      continue
    if modality in times:
      raise ValueError(f'there are two columns with the time of {modality}')
    try:
      times[modality] = float(cell or 'nan')
    except ValueError:
      raise ValueError(f'{name} is {cell!r}, not a number of seconds') from None
  return {m: times[m] for m in row.paths if m in times} or None


def _unread_columns(rows: Sequence[lists.Row]) -> list[str]:
  """Columns that are called as sensors are and hold files of images, and are not read."""
  of_sensors = [name for name in rows[0].extra if sensor_names.is_sensor(name)]
  return [
    name
    for name in of_sensors
    if any(Path(row.extra[name]).suffix.lower() in IMAGES for row in rows)
  ]


def unwritable(text: str) -> str:
  """Why a score file cannot hold a name; '' where it can."""
  for character in text:
    kind = unicodedata.category(character)
    if kind == 'Cs':
      return 'is not UTF-8'
    if kind in ('Cc', 'Zl', 'Zp'):
      return 'has a line break or another control character'
  return ''
