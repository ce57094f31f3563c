"""Base of all builders: the format of prepared sets, and how they are written.

A builder in `data/` subclasses `TripletBuilder` and defines its splits and their examples;
features, checks, description and progress are shared:

    class Builder(TripletBuilder):
      VERSION = tfds.core.Version('1.0.0')

      def _splits(self, dl_manager):
        return {'train': (len(rows), self._read(rows))}

A prepared set is ArrayRecord and is read with `tfds.data_source` without any builder's code.
"""

import contextlib
import json
import os
import pathlib
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer, writer
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from flexfas_jax.data import cards, features
from flexfas_jax.progress import show_progress
from flexfas_jax.schema import LABELS

Split = tuple[int | None, Iterable[tuple[str, features.Example]]]
_OWNER = 'owner.json'  # in a folder that is being written: host and process
DESCRIBED = 'described'
SKIPPED = ('', {})  # instead of an example that is left out, for the progress

_NUMBERS = frozenset({'label', 'frame'})


def record_of(example: features.Example) -> bytes:
  """Serializes a complete example as a `tf.train.Example`.

  TFDS's serializer takes six times as long and does not fix the order of fields, so that two builds
  of one set would differ.
  """
  fields = {}
  for key, value in example.items():
    if key in _NUMBERS:
      value = LABELS.index(value) if key == 'label' else int(value)
      field = tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=[value]))
    else:
      value = value if isinstance(value, bytes) else value.encode()
      field = tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=[value]))
    fields[key] = field
  record = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=fields))
  return record.SerializeToString(deterministic=True)


class _Serialized(example_serializer.Serializer):
  """Passes serialized records through TFDS's writer."""

  def serialize_example(self, example: bytes) -> bytes:
    return example


@contextlib.contextmanager
def _without_tfds_bars() -> Iterator[None]:
  """Turns off TFDS's bars, which write control characters into log files and have no totals."""
  module = tfds.core.utils.tqdm_utils
  before = module._active
  tfds.display_progress_bar(False)
  try:
    yield
  finally:
    tfds.display_progress_bar(before)


class TripletBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Base of all builders: a subclass has `VERSION`, perhaps `BUILDER_CONFIGS`, and `_splits`."""

  extra: Mapping[str, Mapping[str, str]] = {}  # {id: {column of the manifest: value}}

  def _splits(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Split]:
    """Per split: how many examples (or None) and an iterator of (key, example).

    A key is unique within its split (the example's id will do) and decides its place in the
    shards; an example is what `features.check` takes, and may have under `DESCRIBED` what
    `reading.describe` gives for its images.
    """
    raise NotImplementedError

  def _info(self) -> tfds.core.DatasetInfo:
    # Description, citation and tags come from the files beside the builder.
    return self.dataset_info_from_configs(features=features.features_dict())

  def _split_generators(self, dl_manager):
    name = '/'.join(filter(None, (self.name, self.builder_config and self.builder_config.name)))
    splits = self._splits(dl_manager)
    self._running = [
      self._generate_examples(examples, total, f'{name} {split}')
      for split, (total, examples) in splits.items()
    ]
    return dict(zip(splits, self._running, strict=True))

  def _generate_examples(self, examples, total, text):
    try:
      for key, example in show_progress(examples, total, text):
        if example:
          yield key, example
    finally:
      # Sources may hold processes or files: close them also after an error.
      getattr(examples, 'close', lambda: None)()

  def _generate_splits(self, dl_manager, download_config) -> Sequence[tfds.core.SplitInfo]:
    if self._beam_runner:
      return super()._generate_splits(dl_manager, download_config)
    self._written = {}
    splits = self._split_generators(dl_manager)
    return [self._write_split(split, examples) for split, examples in splits.items()]

  def _write_split(
    self, split: str, examples: Iterable[tuple[str, features.Example]]
  ) -> tfds.core.SplitInfo:
    """Writes shards as TFDS does, and keeps the descriptions of records for `read_back`."""
    template = self._get_filename_template(split_name=split)
    shards = writer.Writer(
      serializer=_Serialized(self.info.features.get_serialized_info()),
      filename_template=template,
      hash_salt=split,
      disable_shuffling=self.info.disable_shuffling,
      example_writer=self._example_writer(),
    )
    written = self._written[split] = {}
    for key, example in examples:
      full = features.check({name: value for name, value in example.items() if name != DESCRIBED})
      record = record_of(full)
      written[cards.digest(record)] = cards.describe(split, full, example.get(DESCRIBED))
      shards.write(key, record)
    lengths, n_bytes = shards.finalize()
    return tfds.core.SplitInfo(
      name=split, shard_lengths=lengths, num_bytes=n_bytes, filename_template=template
    )

  def download_and_prepare(self, **kwargs):
    """As in TFDS; an interrupted build leaves no partial set and no process."""
    self._running = []
    root, place = pathlib.Path(self.data_dir_root), pathlib.Path(self.data_path)
    downloads = root / 'downloads'  # TFDS creates it without need
    folders = (downloads / 'extracted', downloads, *place.parents)
    made = [f for f in folders if root in (f, *f.parents) and not f.exists()]
    with _without_tfds_bars():
      _remove_left_behind(self.data_path)
      try:
        super().download_and_prepare(**kwargs)
      except OSError:
        # Another process may have built the same set in the meantime.
        if not (self.data_path / 'card.json').exists():
          raise
      finally:
        for generator in self._running:
          generator.close()
        for folder in made:  # innermost first; folders with content stay
          with contextlib.suppress(OSError):
            folder.rmdir()

  def _download_and_prepare(self, dl_manager, download_config):
    # TFDS uses a temporary folder here and renames it when this returns.
    (self.data_path / _OWNER).write_text(json.dumps([socket.gethostname(), os.getpid()]))
    self._beam_runner = download_config.beam_runner or download_config.beam_options
    super()._download_and_prepare(dl_manager, download_config)
    self._finish()
    (self.data_path / _OWNER).unlink()

  def _finish(self) -> None:
    """Completes the set before it is moved to its place."""
    self.write_card(self.read_back(), {})

  def read_back(self, with_fingerprint: bool = False) -> list[dict]:
    """Reads and describes the records of the shards, see `cards.read_back`."""
    shards = {
      split: [pathlib.Path(path) for path in self.info.splits[split].filepaths]
      for split in self.info.splits
    }
    if self._beam_runner:
      return cards.read_back(self._full_name(), shards, with_fingerprint)
    return cards.compare(shards, self._written)

  def _full_name(self) -> str:
    config = self.builder_config and self.builder_config.name
    return '/'.join(filter(None, (self.name, config, str(self.version))))

  def write_card(self, records: list[dict], recorded: Mapping[str, Any]) -> None:
    """Writes manifest, card and contact sheet beside the shards.

    Args:
      records: of `read_back`.
      recorded: further entries of the card.
    """
    folder = pathlib.Path(self.data_path)
    cards.write(folder, self._full_name(), records, self.extra, recorded)


def _remove_left_behind(folder) -> None:
  """Removes the temporary folders of killed builds of this set on this machine."""
  for left in pathlib.Path(folder).parent.glob(f'incomplete.*_{pathlib.Path(folder).name}'):
    try:
      host, process = json.loads((left / _OWNER).read_text())
    except (OSError, ValueError):
      continue  # of another program, or just started
    if host == socket.gethostname() and not _is_alive(process):
      shutil.rmtree(left, ignore_errors=True)


def _is_alive(process: int) -> bool:
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    pass
  return True
