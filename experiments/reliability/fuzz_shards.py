"""A prepared set with damaged files, opened and read completely in a separate process."""

import csv
import hashlib
import io
import json
import multiprocessing
import pathlib
import random
import resource
import shutil
import traceback

import tensorflow_datasets as tfds
from array_record.python import array_record_data_source, array_record_module

from experiments.reliability import fuzz_card, mutations
from flexfas_jax.errors import FlexfasError
from flexfas_jax.input_pipeline import sources

CONFIG, SPLIT = 'surf_like_tiny', 'val'
_LONGEST = 120  # seconds; what takes longer hangs
_AT_MOST = 200  # mutants that a process reads
_JSON = ('dataset_info.json', 'features.json', 'card.json')
_TEXT = ('manifest.csv', 'label.labels.txt')


class Shards:
  """Mutations of a prepared set. Wrong: accepted with examples that are not the original ones."""

  def __init__(self, data_dir: str, scratch: pathlib.Path):
    """Copies the set.

    Args:
      data_dir: where rendered_faces/surf_like_tiny is prepared.
      scratch: a folder for the copy.
    """
    below = pathlib.Path('rendered_faces', CONFIG)
    shutil.copytree(pathlib.Path(data_dir) / below, scratch / below)
    self._data_dir = str(scratch)
    self._folder = next((scratch / below).iterdir())
    self._shard = next(self._folder.glob(f'*-{SPLIT}.array_record*'))
    self._others = [p for p in self._folder.glob('*.array_record*') if p != self._shard]
    self._files = {p: p.read_bytes() for p in self._folder.iterdir() if p.is_file()}
    self._digest = digest_of(_examples(self._data_dir))
    self._child, self._n, self.growth = None, 0, 0
    self._features = tfds.builder_from_directory(self._folder).info.features

  def __call__(self, rng: random.Random) -> tuple[str, str]:
    changed, kind = self._damage(rng)
    try:
      how, what = self._read()
    finally:
      for path in changed:
        path.write_bytes(self._files[path])
    if how == 'read':
      return ('accepted', 'the same examples') if what == self._digest else ('wrong', kind)
    if how == 'refused' and str(self._folder) not in what:
      return 'wrong', f'an error that names no file: {what}'
    return (how, kind) if how == 'refused' else (how, f'{what} ({kind})')

  def close(self) -> None:
    """Ends the process."""
    if self._child:
      process, connection = self._child
      process.kill()
      process.join()
      connection.close()
    self._child = None

  def lines(self) -> list[str]:
    """Lines to report: none."""
    return []

  def bad(self) -> list[str]:
    """Nothing but what was counted as wrong."""
    return []

  def _read(self) -> tuple[str, str]:
    if self._n % _AT_MOST == 0:
      self.close()
    self._n += 1
    if not self._child:
      context = multiprocessing.get_context('spawn')
      here, there = context.Pipe()
      process = context.Process(target=_serve, args=(there, self._data_dir), daemon=True)
      process.start()
      there.close()
      self._child = process, here
    process, connection = self._child
    try:
      connection.send(None)
      if not connection.poll(_LONGEST):
        self.close()
        return 'traceback', f'nothing for {_LONGEST} s'
      how, what, growth = connection.recv()
    except (EOFError, OSError):
      process.join()
      self.close()
      return 'traceback', f'the process ended with {process.exitcode}'
    self.growth = max(self.growth, growth)
    return how, what

  def _damage(self, rng: random.Random) -> tuple[list[pathlib.Path], str]:
    """Damages one file or two; returns those, and how."""
    draw = rng.random()
    if draw < 0.4:
      kind, content = mutations.of_bytes(self._files[self._shard], rng)
      self._shard.write_bytes(content)
      return [self._shard], f'shard: {kind}'
    if draw < 0.6:
      return [self._shard], f'shard: {self._forge(rng)}'
    if draw < 0.65:  # two shards exchanged
      other = rng.choice(self._others)
      self._shard.write_bytes(self._files[other])
      other.write_bytes(self._files[self._shard])
      return [self._shard, other], 'shards exchanged'
    path = self._folder / rng.choice((*_JSON, *_TEXT))
    if path.name in _JSON:
      seed = rng.getrandbits(32)
      of = list(fuzz_card.mutants(self._files[path], 2, seed))
      path.write_bytes(rng.choice(of))
    elif path.name == 'manifest.csv' and rng.random() < 0.3:  # with the digest that it has then
      path.write_bytes(self._other_cell(rng))
      card = self._folder / 'card.json'
      written = json.loads(self._files[card])
      written['manifest_sha256'] = hashlib.sha256(path.read_bytes()).hexdigest()
      card.write_text(json.dumps(written))
      return [path, card], 'manifest.csv and its digest'
    else:
      path.write_bytes(mutations.of_text(self._files[path], rng))
    return [path], path.name

  def _forge(self, rng: random.Random) -> str:
    """Writes a shard that is whole and has other records."""
    with array_record_data_source.ArrayRecordDataSource(str(self._shard)) as opened:
      records = list(opened.__getitems__(range(len(opened))))
    one, other = rng.sample(range(len(records)), 2)
    kind = rng.choice(('records exchanged', 'record twice', 'record less', 'record more', 'bytes',
                       'label', 'field', 'image'))  # fmt: skip
    if kind == 'records exchanged':
      records[one], records[other] = records[other], records[one]
    elif kind == 'record twice':
      records[one] = records[other]
    elif kind == 'record less':
      del records[one]
    elif kind == 'record more':
      records.append(records[one])
    elif kind == 'bytes':
      records[one] = mutations.of_bytes(records[one], rng)[1]
    else:
      example = self._features.deserialize_example_np(records[one])
      if kind == 'label':
        example['label'] = rng.choice((1 - example['label'], -1, 2, 2**40))
      elif kind == 'image':
        modality = rng.choice(('rgb', 'depth', 'ir'))
        example[modality] = (
          mutations.of_bytes(example[modality], rng)[1] if rng.random() < 0.7 else b''
        )
      else:
        name = rng.choice(('id', 'subject', 'video', 'dataset', 'attack_type', 'ethnicity'))
        example[name] = rng.choice((b'', b'x', b'\xff', example[name] + b' ', b'a\0'))
      records[one] = _serialized(example)
    writer = array_record_module.ArrayRecordWriter(str(self._shard), 'group_size:1')
    for record in records:
      writer.write(record)
    writer.close()
    return kind

  def _other_cell(self, rng: random.Random) -> bytes:
    """The manifest with another cell of the split's rows, or two rows exchanged."""
    path = self._folder / 'manifest.csv'
    rows = list(csv.reader(io.StringIO(self._files[path].decode(), newline='')))
    mine = [i for i, row in enumerate(rows) if row[rows[0].index('split')] == SPLIT]
    one, other = rng.sample(mine, 2)
    if rng.random() < 0.3:
      rows[one], rows[other] = rows[other], rows[one]
    else:
      at = rng.randrange(rows[0].index('rgb_file'))  # a record does not describe what follows
      rows[one][at] = rng.choice((rows[other][at], '', 'x', rows[one][at] + ' ', '0', 'attack'))
    text = io.StringIO(newline='')
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue().encode()


def _serialized(example: dict) -> bytes:
  from tensorflow_datasets.proto import tf_example_pb2

  made = tf_example_pb2.Example()
  for name, value in example.items():
    if isinstance(value, bytes):
      made.features.feature[name].bytes_list.value.append(value)
    else:
      made.features.feature[name].int64_list.value.append(value)
  return made.SerializeToString()


def _examples(data_dir: str) -> list[dict]:
  source = sources.open_source(f'rendered_faces/{CONFIG}:{SPLIT}', data_dir)
  columns = list(zip(*(source.columns[name] for name in sources.FIELDS), strict=True))
  return [{**source[i], 'columns': columns[i]} for i in range(len(source))]


def digest_of(examples: list[dict]) -> str:
  """SHA-256 of examples."""
  text = repr([sorted(example.items()) for example in examples])
  return hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()


def _serve(connection, data_dir: str) -> None:
  """Reads the set at each request; sends the result and the growth of memory."""
  start = None
  while True:
    connection.recv()
    try:
      answer = 'read', digest_of(_examples(data_dir))
    except FlexfasError as error:
      good = error.exit_code in (3, 4)
      answer = ('refused', str(error)) if good else ('wrong', f'exit code {error.exit_code}')
    except Exception as error:
      at = traceback.extract_tb(error.__traceback__)[-1]
      answer = (
        'traceback',
        f'{type(error).__name__} at {pathlib.Path(at.filename).name}:{at.lineno}',
      )
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    start = start or most
    connection.send((*answer, most - start))
