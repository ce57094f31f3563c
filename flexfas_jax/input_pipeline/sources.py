"""Prepared data sets: random access to raw examples by the names of sets, without builders.

A source is named `set/config:split`, e.g. `rendered_faces/surf_like:train`, or is a part of one
(`selection.py`). Builders in `data/` write sets (`data/triplets.py`) as ArrayRecord under
`data_dir/set/config/version/`, with the set's `manifest.csv` beside the shards. Only this module
imports `data.<name>`: a missing set that needs no licence is built here.
"""

import contextlib
import errno
import functools
import hashlib
import importlib
import json
import logging
import os
import pathlib
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_data_source
from etils import epath
from tensorflow_datasets.proto import tf_example_pb2

from flexfas_jax import bucket, csv_dialect
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.protocols import exact_duplicates, selection
from flexfas_jax.protocols.lists import read_ids
from flexfas_jax.schema import LABELS, MODALITIES

FIELDS = (
  *('id', 'label', 'attack_type', 'attack_category', 'subject', 'video', 'frame', 'dataset'),
  'ethnicity',
)
_DIGESTS = {modality: f'{modality}_sha256' for modality in MODALITIES}
_TYPES = {key: (np.dtype(object), ()) for key in (*FIELDS, *MODALITIES)}
_TYPES |= {'label': (np.dtype(np.int64), ()), 'frame': (np.dtype(np.int32), ())}
READ_AT_ONCE = 512  # records, when a source is checked
# Errors of a disk that is read-only, another user's, or full: the user solves them.
_CANNOT_WRITE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT)


class Source:
  """Raw examples of one or several selections of prepared sets, one after the other.

  `source[i]` is a dict with the fields of `data/triplets.py`: images as encoded bytes (`b''` where
  absent), `label` 1 for bona fide, texts as str. Picklable: worker processes open their own files.

  Attributes:
    names: the selections.
    columns: {field: [N] of str}, from the manifests, of every example: `FIELDS` and the other
      requested ones.
    digests: {modality: [N] uint64}, of the images' bytes as `exact_duplicates` compares them.
    identities: [N] int32, the class of every example, or None.
    domains: [N] int32, the domain of every example, a position in `domain_names`; or None.
    is_remote: whether reading an example waits for a bucket.
  """

  def __init__(
    self,
    names: Sequence[str],
    parts: Sequence['_Part'],
    columns: dict[str, list],
    digests: dict[str, np.ndarray],
  ):
    self.names, self.columns, self.digests = tuple(names), columns, digests
    self._parts = tuple(parts)
    self._ends = np.cumsum([len(part.places) for part in parts])
    self.is_remote = any(part.is_remote for part in parts)
    self.identities = self.domains = None
    self.domain_names: tuple[str, ...] = ()

  def _copy(self) -> 'Source':
    other = object.__new__(Source)
    other.__dict__.update(self.__dict__)
    return other

  def with_identities(self, identities: np.ndarray) -> 'Source':
    """The same source whose examples also have 'identity'.

    Args:
      identities: [N] int32.
    """
    if len(identities) != len(self):
      raise ValueError(f'{len(identities)} identities of {len(self)} examples')
    other = self._copy()
    other.identities = np.asarray(identities, np.int32)
    return other

  def with_domains(self, column: str) -> 'Source':
    """The same source whose examples also have 'domain', the number of a column's value.

    Args:
      column: one of `columns`; a value's number is its place among the sorted values.

    Raises:
      DataError: examples without a value, in another column than 'dataset'.
    """
    values = self.columns[column]
    if column != 'dataset' and (n := sum(not value for value in values)):
      first = self.columns['id'][list(values).index('')]
      raise DataError(f'{n} of {len(self)} examples have no {column}, the first {first}')
    other = self._copy()
    names, numbers = np.unique(np.asarray(values, np.str_), return_inverse=True)
    other.domain_names, other.domains = tuple(names.tolist()), numbers.astype(np.int32)
    return other

  def __len__(self) -> int:
    return int(self._ends[-1])

  def __getitem__(self, index: int) -> dict:
    which = int(np.searchsorted(self._ends, index, 'right'))
    part = self._parts[which]
    place = int(index) - (int(self._ends[which - 1]) if which else 0)
    try:
      example = part.examples[int(part.places[place])]
      if not example['id']:  # ArrayRecord's reader returns b'' where a file has become shorter
        raise ValueError('its record is empty')
    except Exception as error:  # of the file system, ArrayRecord, or a parser
      _check_bucket(self.shard(index))
      raise DataError(
        f'{self.shard(index)} cannot be read any more ({error}): it was deleted or changed after '
        'it was opened; restore it, and rerun the same command'
      ) from error
    example = {
      k: v.decode() if isinstance(v, bytes) and k not in MODALITIES else v
      for k, v in example.items()
    }
    stored = {m: example.get(m, b'') for m in MODALITIES}
    if part.modalities is not None:
      stored |= {m: b'' for m in MODALITIES if m not in part.modalities}
    example |= stored
    if self.identities is not None:
      example['identity'] = int(self.identities[index])
    if self.domains is not None:
      example['domain'] = int(self.domains[index])
    return example

  def shard(self, index: int) -> str:
    """The path of the file that holds an example."""
    which = int(np.searchsorted(self._ends, index, 'right'))
    part = self._parts[which]
    place = int(index) - (int(self._ends[which - 1]) if which else 0)
    ends = np.cumsum([length for _, length in part.shards])
    path, _ = part.shards[int(np.searchsorted(ends, part.places[place], 'right'))]
    return str(path)

  def __getstate__(self):
    # Workers read examples only: columns stay in the main process.
    return {**self.__dict__, 'columns': {}, 'digests': {}}

  def __repr__(self) -> str:
    return f'Source({", ".join(self.names)}: {len(self)} examples)'


class _Part(NamedTuple):
  examples: Sequence  # of a whole split
  places: np.ndarray  # [n] those that are selected
  modalities: tuple[str, ...] | None  # that are kept; None: all
  shards: list[tuple[epath.Path, int]]  # of the split, with their numbers of examples
  is_remote: bool


def open_source(
  names: str | Sequence[str],
  data_dir: str,
  check: bool = True,
  more: Sequence[str] = (),
  optional: Sequence[str] = (),
) -> Source:
  """Opens selections of prepared data sets; builds what is missing and needs no licence.

  Args:
    names: as `selection.parse` has them, one or several, comma-separated or as a sequence.
    data_dir: where prepared sets are.
    check: read every record once and compare it with the manifest, to detect a damaged shard
      before training.
    more: required columns of the manifests besides `FIELDS`.
    optional: further columns, '' if a set lacks them. Those of a modality, as 'ir_sha256', are also
      '' if a selection leaves the modality out.

  Raises:
    ConfigError: a name of another form, or of a set, field or value that does not exist.
    DataError: a set is not prepared, incomplete, empty or damaged; or a selection is empty.
  """
  names = selection.split_selections(names)
  if not names:
    raise ConfigError('no data set is named; give set/config:split')
  fields = tuple(dict.fromkeys((*FIELDS, *more)))
  parts, columns, checked = [], {field: [] for field in (*fields, *optional)}, set()
  digests = {modality: [] for modality in MODALITIES}
  for name in names:
    selected = selection.parse(name)
    folder = _locate(selected, data_dir)
    where = f'{selected.dataset}:{selected.split}'
    all_columns = _manifest(where, folder)
    split_columns = {
      field: [
        v for v, split in zip(values, all_columns['split'], strict=True) if split == selected.split
      ]
      for field, values in all_columns.items()
    }
    check_now = check and where not in checked
    checked.add(where)
    examples, shards = _open_split(where, folder, selected.split, split_columns, check_now)
    if not all_columns:
      all_columns = split_columns = _columns_of(where, selected.split, examples, folder)
    places = selection.select(selected, split_columns, all_columns, read_ids)
    if not places.size:
      raise DataError(f'{name}: none of {len(examples)} examples matches')
    if wrong := set(selected.modalities or ()) - set(MODALITIES):
      raise ConfigError(
        f'{name}: no modality {sorted(wrong)[0]!r}; there are {", ".join(MODALITIES)}'
      )
    is_remote = bucket.is_remote(folder)
    parts.append(_Part(examples, places, selected.modalities, shards, is_remote))
    if missing := [field for field in fields if field not in split_columns]:
      raise ConfigError(f'{name} has no column {missing[0]!r}; it has: {", ".join(split_columns)}')
    for field in fields:
      columns[field] += [split_columns[field][i] for i in places]
    for field in optional:
      modality = field.partition('_')[0]
      kept = selected.modalities is None or modality not in MODALITIES
      there = field in split_columns and (kept or modality in selected.modalities)
      columns[field] += [split_columns[field][i] if there else '' for i in places]
    split_columns = _with_digests(split_columns, examples)
    for modality, digest in _DIGESTS.items():
      kept = selected.modalities is None or modality in selected.modalities
      try:
        numbers = exact_duplicates.digest_prefixes(
          [split_columns[digest][i] if kept else '' for i in places]
        )
      except ValueError as error:
        path = folder / 'manifest.csv'
        raise DataError(
          f'{path} is damaged: {digest}: {error}; {_prepare_again(where, folder)}'
        ) from error
      digests[modality].append(numbers)
  return Source(names, parts, columns, {m: np.concatenate(some) for m, some in digests.items()})


def _with_digests(columns: dict[str, Sequence[str]], examples) -> dict[str, Sequence[str]]:
  """The columns of a split with the digests of its images, computed where a manifest has none."""
  if not set(_DIGESTS.values()) - set(columns):
    return columns
  digests = {digest: [] for digest in _DIGESTS.values()}
  for example in examples:
    for modality, digest in _DIGESTS.items():
      image = example.get(modality, b'')
      digests[digest].append(hashlib.sha256(image).hexdigest() if image else '')
  return {**columns, **digests}


@functools.lru_cache(maxsize=16)
def _read_manifest(path: epath.Path, version: float | str) -> dict[str, list[str]]:
  """{column: values} of a manifest; `version` changes when it does."""
  if not bucket.is_remote(path):
    return _parse_manifest(pathlib.Path(path))
  with tempfile.TemporaryDirectory() as scratch:
    for name in ('manifest.csv', 'card.json'):
      if (contents := bucket.read(f'{path.parent}/{name}')) is not None:
        (pathlib.Path(scratch) / name).write_bytes(contents)
    return _parse_manifest(pathlib.Path(scratch) / 'manifest.csv')


def _parse_manifest(path: pathlib.Path) -> dict[str, list[str]]:
  card = path.with_name('card.json')
  if card.is_file():
    written = json.loads(card.read_bytes())['manifest_sha256']
    if written != hashlib.sha256(path.read_bytes()).hexdigest():
      raise ValueError('its SHA-256 is not the one that card.json beside it has')
  layout = csv_dialect.sniff(path, ('split', *FIELDS))
  names = layout.names
  rows = [row for some in csv_dialect.read_batches(path, layout) for row in some]
  # Interned: a million rows repeat few values.
  return {
    name: list(map(sys.intern, column))
    for name, column in zip(names, zip(*rows, strict=True), strict=True)
  }


def _manifest(name: str, folder: epath.Path) -> dict[str, Sequence[str]]:
  """{column: values} of the set's manifest; empty where there is none."""
  path = folder / 'manifest.csv'
  if not path.is_file():
    return {}
  try:
    if bucket.is_remote(path):
      version = bucket.list_objects(str(folder))[path.name].crc32c
    else:
      version = os.stat(path).st_mtime
    columns = _read_manifest(path, version)
  except (ValueError, KeyError, TypeError, RecursionError, OSError, DataError) as error:
    raise DataError(f'{path} is damaged: {error}; {_prepare_again(name, folder)}') from error
  if missing := [field for field in ('split', *FIELDS) if field not in columns]:
    raise DataError(f'{path} has no column {missing[0]!r}; {_prepare_again(name, folder)}')
  return columns


def _columns_of(name: str, split: str, examples, folder: epath.Path) -> dict[str, list[str]]:
  """The columns that a manifest has, from the examples of a split."""
  columns = {field: [] for field in ('split', *FIELDS)}
  try:
    for example in examples:
      row = _row_of(example)
      columns['split'].append(split)
      for field in FIELDS:
        columns[field].append(row[field])
  except Exception as error:  # whatever TFDS and protocol buffers raise
    _check_bucket(folder)
    way_out = _prepare_again(name, folder)
    raise DataError(f'{name}: a record is damaged ({error}); {way_out}') from error
  return columns


def _row_of(example: Mapping) -> dict[str, str]:
  """The cells that a manifest has for a stored example."""
  row = {}
  for name, value in example.items():
    if name in MODALITIES:
      row[_DIGESTS[name]] = hashlib.sha256(value).hexdigest() if value else ''
    elif name == 'label':
      row[name] = dict(enumerate(LABELS)).get(value, str(value))
    else:
      row[name] = value.decode() if isinstance(value, bytes) else str(value)
  return row


def is_prepared(name: str, data_dir: str) -> bool:
  """Whether the set of a selection is in `data_dir`; if not, `open_source` builds it.

  Raises:
    ConfigError, DataError: it is missing and `open_source` cannot build it.
  """
  selected = selection.parse(name)
  if folder := _newest_version(epath.Path(data_dir) / selected.dataset):
    _check_version(selected.dataset, folder)
    return True
  _builder_of(selected.dataset, data_dir, only_free=True)
  return False


def _locate(selected: selection.Selection, data_dir: str) -> epath.Path:
  folder = _newest_version(epath.Path(data_dir) / selected.dataset)
  if folder is None:
    prepare(selected.dataset, data_dir, only_free=True)
    folder = _newest_version(epath.Path(data_dir) / selected.dataset)
  _check_version(selected.dataset, folder)
  return folder


def _check_version(dataset: str, folder: epath.Path) -> None:
  """Raises a DataError if a rendered set was prepared in another version than it has today."""
  name, _, config = dataset.partition('/')
  if not selection.is_rendered(dataset):
    return
  module = importlib.import_module(f'flexfas_jax.data.{name}.{name}_dataset_builder')
  version = module.version_of(config)
  if folder.name != version:
    raise DataError(
      f'{folder} is version {folder.name}, but {dataset} is version {version} today. For this '
      f'version: python -m flexfas_jax.prepare --dataset={dataset} --data_dir=... For the earlier '
      f'one, name {name}/v{folder.name[0]}_{config}'
    )


def _check_bucket(path: str | os.PathLike) -> None:
  """Raises a TemporaryError if a path is in a bucket that does not answer.

  Call it where another library failed to read the path.
  """
  if bucket.is_remote(path):
    bucket.check_reachable(os.fspath(path), 'config.data_dir', DataError)


def _prepare_again(name: str, folder: epath.Path) -> str:
  if bucket.is_remote(folder):
    return f'copy the prepared set to {folder} again: gcloud storage cp -r'
  return (
    f'delete {folder} and prepare it again: '
    f'python -m flexfas_jax.prepare --dataset={name.partition(":")[0]} --data_dir=...'
  )


def _newest_version(folder: epath.Path) -> epath.Path | None:
  versions = [f for f in folder.glob('*.*.*') if f.name.replace('.', '').isdigit()]
  return max(versions, key=lambda f: tuple(map(int, f.name.split('.'))), default=None)


def _open_split(
  name: str, folder: epath.Path, split: str, rows: Mapping[str, Sequence[str]], check: bool
):
  """The examples of a split, and its shards with their numbers of examples.

  Args:
    name: `set/config:split`, for errors.
    folder: of the set.
    split: its split.
    rows: {column: values} of the split's rows in the manifest; empty: there is no manifest.
    check: read all records, and compare them with the rows.
  """
  way_out = _prepare_again(name, folder)
  for needed in ('dataset_info.json', 'features.json'):
    if not (folder / needed).is_file():
      raise DataError(f'{name}: {folder} is incomplete ({needed} is missing); {way_out}')
  try:
    builder = tfds.builder_from_directory(folder)
    lengths = {one: info.shard_lengths for one, info in builder.info.splits.items()}
    tensors = builder.info.features.get_tensor_info()
    types = {key: (np.dtype(one.np_dtype), one.shape) for key, one in tensors.items()}
    paths = builder.info.splits[split].filepaths if split in lengths else ()
    shards = list(zip(map(epath.Path, paths), lengths.get(split, ()), strict=True))
  except Exception as error:  # any error of a parser
    _check_bucket(folder)
    raise DataError(f'{name}: {folder} cannot be read ({error}); {way_out}') from error
  if split not in lengths:
    splits = ', '.join(sorted(lengths)) or 'none'
    raise DataError(f'{name}: there is no split {split!r} in {folder}; it has: {splits}')
  n = sum(lengths[split])
  if n == 0:
    raise DataError(f'{name}: the split is empty; {way_out}')
  # A set that was prepared before a modality was added does not have its images.
  if types != {key: _TYPES[key] for key in _TYPES if key in types or key not in MODALITIES}:
    raise DataError(f'{name}: {folder}/features.json has been changed; {way_out}')
  if rows and len(rows['id']) != n:
    raise DataError(
      f'{name}: {folder}/manifest.csv has {len(rows["id"])} rows and the split {n} records; '
      f'{way_out}'
    )
  start = 0
  for path, length in shards:
    if not path.is_file():
      raise DataError(f'{name}: the shard {path} is missing; {way_out}')
    if check:
      _check_shard(path, length, start, rows, f'{name}: the shard {path}', way_out)
    start += length
  try:
    examples = builder.as_data_source(split=split)
    if check and rows:
      _compare(_row_of(examples[0]), rows, 0)  # decoded as in training, by features.json
  except Exception as error:
    _check_bucket(folder)
    raise DataError(f'{name}: {folder} cannot be read ({error}); {way_out}') from error
  return examples, shards


def _check_shard(
  path: epath.Path,
  length: int,
  start: int,
  rows: Mapping[str, Sequence[str]],
  where: str,
  way_out: str,
) -> None:
  """Reads all records of a shard, the first of which is the split's record `start`.

  ArrayRecord's check sums detect damage, but not a record of another set or in another place.
  """
  try:
    with array_record_data_source.ArrayRecordDataSource(str(path)) as records:
      if len(records) != length:
        raise ValueError(f'it holds {len(records)} records of {length}')
      for first in range(0, length, READ_AT_ONCE):
        numbers = range(first, min(first + READ_AT_ONCE, length))
        for number, record in zip(numbers, records.__getitems__(numbers), strict=True):
          if rows:
            _compare(_row_of(_values(record)), rows, start + number)
  except Exception as error:
    _check_bucket(path)
    raise DataError(f'{where} is damaged ({error}); {way_out}') from error


def _values(record: bytes) -> dict[str, bytes | int]:
  """The fields of a record, decoded five times as fast as by TFDS."""
  features = tf_example_pb2.Example.FromString(record).features.feature
  return {name: (one.bytes_list.value or one.int64_list.value)[0] for name, one in features.items()}


def _compare(row: Mapping[str, str], rows: Mapping[str, Sequence[str]], place: int) -> None:
  """Raises ValueError where a record differs from the manifest."""
  for field in (*FIELDS, *_DIGESTS.values()):
    if field in rows and row.get(field) != rows[field][place]:
      raise ValueError(
        f'its record of {rows["id"][place]} has another {field.removesuffix("_sha256")} than '
        'manifest.csv'
      )


def prepare(
  dataset: str,
  data_dir: str,
  only_free: bool = False,
  beam: tuple[str, str] | None = None,
  **settings,
) -> pathlib.Path:
  """Builds a data set with its builder in `data/`, as ArrayRecord, unless it exists.

  Args:
    dataset: `set` or `set/config`.
    data_dir: where prepared sets go.
    only_free: refuse a set that requires a licence.
    beam: (runner, its options as on a command line): build on Apache Beam.
    **settings: arguments of the builder, see `SourceBuilder`; None is the default.

  Returns:
    The folder of the prepared set.

  Raises:
    ConfigError: no such data set, config or setting; the message lists the existing ones.
    DataError: it requires a licence (the message has the command), its source has errors, or
      `data_dir` is not writable.
  """
  if bucket.is_remote(data_dir):
    raise ConfigError(f'--data_dir={data_dir}: {_prepare_locally(dataset, data_dir)}')
  module = _builder_of(dataset, data_dir, only_free)
  name, _, config = dataset.partition('/')
  licensed = module.Builder.MANUAL_DOWNLOAD_INSTRUCTIONS
  settings = {key: value for key, value in settings.items() if value not in (None, {}, ())}
  given = sorted(settings) + (['beam_runner'] if beam else [])
  if given and not licensed:
    raise ConfigError(f'{name} has no source: it takes no --{given[0]}')
  logging.getLogger('absl').setLevel(logging.ERROR)  # TFDS warns about every config not in its list
  configs = ', '.join(one.name for one in module.Builder.BUILDER_CONFIGS)
  if configs and not config:
    raise ConfigError(f'{name} has several configs; name one, as {name}/CONFIG: {configs}')
  try:
    builder = module.Builder(
      config=config or None, data_dir=data_dir, file_format='array_record', **settings
    )
  except ValueError as error:
    if 'BuilderConfig' not in str(error):
      raise
    raise ConfigError(f'{name} has no config {config!r}; it has: {configs}') from None
  how = {'download_config': _on_beam(*beam)} if beam else {}
  try:
    with contextlib.redirect_stdout(None):  # TFDS announces a download; progress is on stderr
      builder.download_and_prepare(**how)
  except (OSError, RuntimeError) as error:  # the error of ArrayRecord has only a text
    if not any(os.strerror(code) in str(error) for code in _CANNOT_WRITE):
      raise
    raise DataError(
      f'{dataset} is not prepared in {data_dir!r}, and cannot be: {error}. Prepare it in a '
      'writable folder with enough space: --data_dir=... here, '
      '--config.data_dir=... in training'
    ) from error
  return pathlib.Path(builder.data_dir)


def copy_command(dataset: str, data_dir: str, target: str) -> str:
  """The command that copies a prepared set into a bucket.

  Args:
    dataset: `set` or `set/config`.
    data_dir: where it is prepared.
    target: the data_dir of trainings, at gs://.
  """
  source, folder = f'{data_dir.rstrip("/")}/{dataset}', f'{target}/{dataset}'.rpartition('/')[0]
  return f'gcloud storage cp -r {shlex.quote(source)} {folder}/'


def _prepare_locally(dataset: str, data_dir: str) -> str:
  return (
    'a set is prepared in a local folder, and copied from there:\n'
    f'  python -m flexfas_jax.prepare --dataset={dataset} --data_dir=prepared\n'
    f'  {copy_command(dataset, "prepared", data_dir.rstrip("/"))}'
  )


def _builder_of(dataset: str, data_dir: str, only_free: bool):
  """The module of a data set's builder; arguments and errors as in `prepare`."""
  name = dataset.partition('/')[0]
  if name not in builders():
    raise ConfigError(
      f'{dataset!r} is not prepared in {data_dir!r}, and no builder is called {name!r}; there are: '
      f'{", ".join(builders())}'
    )
  module = importlib.import_module(f'flexfas_jax.data.{name}.{name}_dataset_builder')
  if only_free and bucket.is_remote(data_dir):
    raise DataError(
      f'{dataset} is not prepared in {data_dir!r}; {_prepare_locally(dataset, data_dir)}'
    )
  if only_free and module.Builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
    raise DataError(
      f'{dataset} is not prepared in {data_dir!r}. With the data set at hand: '
      f'python -m flexfas_jax.prepare --dataset={dataset} --source=DIR --data_dir={data_dir}'
    )
  return module


def _on_beam(runner: str, options: str) -> tfds.download.DownloadConfig:
  try:
    import apache_beam
    from apache_beam.options.pipeline_options import PipelineOptions, TypeOptions
  except ImportError:
    raise ConfigError(
      "--beam_runner requires the extra `beam`: pip install 'flexfas_jax[beam]'"
    ) from None
  try:
    made = apache_beam.runners.create_runner(runner)
  except (ValueError, ImportError, AttributeError) as error:
    raise ConfigError(f'--beam_runner={runner}: {error}') from None
  try:
    parsed = PipelineOptions(shlex.split(options))
  except ValueError as error:
    raise ConfigError(f'--beam_options={options!r}: {error}') from None
  if runner == 'DirectRunner':
    # Otherwise it downloads another runner. There are no triggers here.
    parsed.view_as(TypeOptions).allow_unsafe_triggers = True
  return tfds.download.DownloadConfig(beam_runner=made, beam_options=parsed)


def builders() -> list[str]:
  """The data sets that have a builder in `data/`."""
  (folder,) = importlib.import_module('flexfas_jax.data').__path__
  return sorted(
    f.parent.name
    for f in pathlib.Path(folder).glob('*/*_dataset_builder.py')
    if f.stem == f'{f.parent.name}_dataset_builder'
  )
