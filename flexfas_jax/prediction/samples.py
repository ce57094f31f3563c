"""Samples of a manifest or a prepared set; `folders` reads those of a folder."""

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

PREFERRED = ('.jpg', '.jpeg', '.png')
OTHERS = ('.webp', '.tif', '.tiff', '.npy', '.heic', '.heif')  # if a sensor has none of PREFERRED
# Suffixes of images and arrays, supported or not.
IMAGES = frozenset((
  *PREFERRED,
  *('.avif', '.bmp', '.cr2', '.dng', '.exr', '.gif', '.hdr', '.heic', '.heif', '.jfif', '.jp2'),
  *('.jpe', '.jxl', '.mat', '.nef', '.npy', '.npz', '.pfm', '.pgm', '.pnm', '.ppm', '.raw'),
  *('.tga', '.tif', '.tiff', '.webp'),
))  # fmt: skip
_LISTED = 10  # faults in an error message
_TIME = '_time'  # suffix of the columns with capture times: rgb_time


class Sample(NamedTuple):
  """A sample to predict."""

  id: str
  given: Mapping[str, Given]  # images by modality
  label: str = ''  # 'bona_fide', 'attack'; '': unknown
  facts: Mapping[str, str] = {}  # of `METADATA`
  box: Mapping[str, str] | None = None  # columns with the box or the landmarks of the face
  times: Mapping[str, float] | None = None  # capture times by modality, in seconds
  row: int = 0  # line in the list


class Listing(NamedTuple):
  """The samples of a folder or a list."""

  samples: list[Sample]
  bad: list[Finding]  # unusable samples, which are not in `samples`
  notes: list[str]  # for the user


def read_manifest(
  path: str | os.PathLike,
  root: str | os.PathLike | None = None,
  labels: Mapping | None = None,
  on_bad: str = 'fail',
) -> Listing:
  """Reads a list with the columns of `data/manifest`; labels are optional.

  The columns `rgb_time`, `depth_time`, `ir_time` hold capture times in seconds; an empty cell means
  that the sensor has lost its clock.

  Args:
    path: the list.
    root: folder that its paths are relative to; None: its own folder.
    labels: {value: 'bona_fide' or 'attack'} for other labels.
    on_bad: 'fail', or 'skip' to leave out rows with faults.

  Raises:
    DataError: the list cannot be read or has columns of unsupported sensors; with 'fail', also if
      rows have faults.
  """
  bad = []

  def report(rule: str, line: int, text: str) -> None:
    bad.append(Finding(rule, str(path), line, text))

  root = Path(root) if root is not None else Path(path).parent
  rows = list(lists.scan(path, labels, report))
  if rows and (unsupported := _unsupported_columns(rows)):
    raise DataError(
      f'{path}, row 1: the column {unsupported[0]} holds images of an unsupported sensor; name it '
      f'{", ".join(schema.MODALITIES)}, or remove it'
    )
  wrong = {finding.row for finding in bad}
  samples, lines = [], {}
  for row in rows:
    if row.line in wrong:
      continue
    try:
      sample = from_row(row, root)
    except ValueError as error:
      report('row', row.line, str(error))
      continue
    if sample.id in lines:
      report('row', row.line, f'the id {sample.id} is also that of row {lines[sample.id]}')
      continue
    lines[sample.id] = row.line
    samples.append(sample)
  bad.sort(key=lambda finding: finding.row)
  if bad and (on_bad == 'fail' or not bad[0].row):  # row 0: a fault of the whole list
    raise DataError(
      f'{path}: {join_faults([f"row {f.row}: {f.text}" if f.row else f.text for f in bad])}'
    )
  return Listing(samples, bad, [])


def join_faults(faults: Sequence[str]) -> str:
  """Joins faults to one line, up to a limit."""
  more = f'; and {len(faults) - _LISTED} more' if len(faults) > _LISTED else ''
  return '; '.join(faults[:_LISTED]) + more


def from_examples(examples: Iterable[Mapping], modalities: Sequence[str]) -> Iterator[Sample]:
  """Converts examples of a prepared set, as `sources.Source` gives them."""
  for example in examples:
    yield Sample(
      example['id'],
      {m: example[m] for m in modalities if example.get(m)},
      LABELS[int(example['label'])],
      {name: str(example.get(name, '')) for name in METADATA},
    )


def from_row(row: lists.ListRow, root: Path) -> Sample:
  """Converts a row of a list.

  Args:
    row: from `lists`.
    root: folder that its paths are relative to.

  Raises:
    ValueError: a time that is not a number, a file for two sensors, or text that a score file
      cannot hold.
  """
  facts = {name: row.example_fields()[name] for name in METADATA}
  # The path 'rgb.png' has no id besides the name of the sensor.
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


def _times(row: lists.ListRow) -> dict[str, float] | None:
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


def _unsupported_columns(rows: Sequence[lists.ListRow]) -> list[str]:
  """Columns of images whose name is that of an unsupported sensor."""
  of_sensors = [name for name in rows[0].extra if sensor_names.is_sensor(name)]
  return [
    name
    for name in of_sensors
    if any(Path(row.extra[name]).suffix.lower() in IMAGES for row in rows)
  ]


def unwritable(text: str) -> str:
  """Why a score file cannot hold a name; '' if it can."""
  for character in text:
    kind = unicodedata.category(character)
    if kind == 'Cs':
      return 'is not UTF-8'
    if kind in ('Cc', 'Zl', 'Zp'):
      return 'has a line break or another control character'
  return ''
