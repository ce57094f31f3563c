"""Many samples: from a folder, a manifest, or examples of a prepared set."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from flexfas_jax import schema
from flexfas_jax.errors import DataError
from flexfas_jax.evaluation import lists, naming
from flexfas_jax.input_pipeline import faces
from flexfas_jax.prediction.pictures import Given
from flexfas_jax.schema import LABELS, METADATA

_SUFFIXES = ('.jpg', '.jpeg', '.png')
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


def of_folder(folder: str | os.PathLike) -> list[Sample]:
  """The samples of a folder: pictures whose paths differ by nothing but the modality's name.

  `a/rgb/1.jpg`, `a/depth/1.png`, `a/ir/1.png` are one, and so are `1_rgb.jpg`, `1_depth.png`. A
  path without such a word is of RGB. A folder called `bona_fide` or `attack` is a label.

  Raises:
    DataError: no such folder, no picture in it, two pictures of one modality of one sample.
  """
  folder = Path(folder)
  if not folder.is_dir():
    raise DataError(f'{folder} is no folder')
  found: dict[str, dict[str, str]] = {}
  for path in sorted(folder.rglob('*')):
    if path.suffix.lower() not in _SUFFIXES or not path.is_file():
      continue
    name = path.relative_to(folder).as_posix()
    pictures = found.setdefault(naming.without_modality(name), {})
    modality = naming.modality_of(name) or 'rgb'
    if modality in pictures:
      raise DataError(
        f'{folder}: {pictures[modality]} and {name} are both {modality} of one sample'
      )
    pictures[modality] = name
  if not found:
    raise DataError(f'{folder} has no picture ({", ".join(_SUFFIXES)})')
  rows = []
  for pictures in found.values():
    paths = {m: pictures[m] for m in schema.MODALITIES if m in pictures}
    parts = next(iter(paths.values())).split('/')
    label = next((part for part in reversed(parts) if part in LABELS), '')
    rows.append(lists.row_of(paths, label))
  return [_of_row(row, folder) for row in rows]


def of_manifest(
  path: str | os.PathLike, root: str | os.PathLike | None = None, labels: Mapping | None = None
) -> list[Sample]:
  """The samples of a list with the columns of `data/manifest`; a label may be missing.

  Columns `rgb_time`, `depth_time`, `ir_time` are seconds at which the pictures were taken.

  Args:
    path: the list.
    root: where its paths start; None: its own folder.
    labels: {value: 'bona_fide' or 'attack'} of other words.

  Raises:
    DataError: a list that cannot be read, or rows that are no such thing, listed.
  """
  faults = []
  rows = list(
    lists.scan(path, labels, lambda rule, line, text: faults.append(f'row {line}: {text}'))
  )
  samples = []
  for row in rows:
    try:
      samples.append(_of_row(row, Path(root) if root is not None else Path(path).parent))
    except ValueError as error:
      faults.append(f'row {row.line}: {error}')
  if faults:
    more = f'; and {len(faults) - _SHOWN} more' if len(faults) > _SHOWN else ''
    raise DataError(f'{path}: {"; ".join(faults[:_SHOWN])}{more}')
  return samples


def of_examples(examples: Iterable[Mapping], modalities) -> Iterator[Sample]:
  """The samples of a prepared set, as `sources.Source` gives its examples."""
  for example in examples:
    yield Sample(
      example['id'],
      {m: example[m] for m in modalities if example.get(m)},
      LABELS[int(example['label'])],
      {name: str(example.get(name, '')) for name in METADATA},
    )


def _of_row(row: lists.Row, root: Path) -> Sample:
  facts = row.facts()
  names = (*faces.BOX, *faces.EYES, *faces.MOUTH)
  box = {name: row.extra[name] for name in names if name in row.extra}
  times = {m: cell for m in row.paths if (cell := row.extra.get(m + _TIME))}
  return Sample(
    row.id,
    {m: root / path for m, path in row.paths.items()},
    row.label,
    {name: facts[name] for name in METADATA},
    box or None,
    {m: float(cell) for m, cell in times.items()} or None,
  )
