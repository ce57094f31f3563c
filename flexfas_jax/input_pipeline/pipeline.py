"""From raw examples to batches, on Grain: shuffled, augmented, sharded by process, resumable.

A batch: images [B, H, W, C] float32 in [-1, 1] (black is -127.5 / 128, as in
FlexModal's reference), 'present' [B, M] bool, 'label' [B] int32, 'map' [B, h, w] float32 where
it is required, 'identity' and 'domain' [B] int32 where the source has them
(`Source.with_identities`, `Source.with_domains`).
"""

import concurrent.futures
import dataclasses
import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence

import grain
import numpy as np

from flexfas_jax.errors import ConfigError
from flexfas_jax.images.preprocess import Preprocess
from flexfas_jax.images.worker_pool import count_cores
from flexfas_jax.input_pipeline import batch_processes
from flexfas_jax.input_pipeline.sources import Source
from flexfas_jax.schema import LABELS

_REMOTE_THREADS = 32  # that read from a bucket: they wait for its answers most of the time
BALANCED = ('domain', 'label')  # what batches can be balanced over
META = ('id', 'dataset', 'subject', 'video', 'attack_type', 'attack_category', 'ethnicity')


@dataclasses.dataclass(frozen=True)
class _Augment(grain.transforms.RandomMap):
  preprocess: Preprocess

  def random_map(self, example, rng: np.random.Generator):
    return self.preprocess(example, rng)


def default_threads() -> int:
  """The default number of reading threads: one per core, up to 4. More wait for Python's lock
  (experiments/performance/README.md)."""
  return min(count_cores(), 4)


def order(n: int, seed: int) -> grain.MapDataset:
  """The endless order of n examples: each epoch has every one once, in its own order. The same in
  every process; `order(n, seed)[i]` is an int."""
  return grain.MapDataset.range(n).shuffle(seed=seed).repeat(None)


class BalancedOrder:
  """The endless order of examples whose batches hold each combination equally often.

  Batches of B rows hold each of K combinations B // K times, or once more, in turns. In each
  combination all examples come once before one comes again. A place in the order is a function of
  the seed and its number alone, and the same in every process.

  Args:
    source: the examples.
    fields: some of `BALANCED`.
    batch_size: of all processes together.
    seed: of the order.

  Raises:
    ConfigError: a combination without an example.
  """

  def __init__(self, source: Source, fields: Sequence[str], batch_size: int, seed: int):
    self._members = list(combinations(source, fields).values())
    self._orders = [order(n.size, _seed(seed, f'{i}')) for i, n in enumerate(self._members)]
    # Which combination is in which row, for each batch: rows go to devices, and to the parts of an
    # accumulated step, by their number.
    self._rows = order(batch_size, _seed(seed, 'rows'))
    self._batch_size = batch_size

  def __getitem__(self, i: int) -> int:
    turn = i - i % self._batch_size + int(self._rows[i])
    n, which = divmod(turn, len(self._members))
    return int(self._members[which][self._orders[which][n]])


def combinations(source: Source, fields: Sequence[str]) -> dict[tuple[str, ...], np.ndarray]:
  """The examples of each combination of the values of some fields, [n] int64 each.

  Args:
    source: the examples.
    fields: some of `BALANCED`; 'domain' requires `Source.with_domains`.

  Raises:
    ConfigError: a combination without an example.
  """
  names = {'domain': source.domain_names, 'label': LABELS}
  numbers = {'domain': source.domains}
  numbers['label'] = np.array([LABELS.index(label) for label in source.columns['label']])
  found = {}
  for places in itertools.product(*(range(len(names[field])) for field in fields)):
    matches = [numbers[field] == place for field, place in zip(fields, places, strict=True)]
    values = tuple(names[field][place] for field, place in zip(fields, places, strict=True))
    found[values] = np.flatnonzero(np.all(matches, 0))
    if not found[values].size:
      which = ', '.join(f'{f} {value!r}' for f, value in zip(fields, values, strict=True))
      raise ConfigError(
        f'config.sampler.balance = {tuple(fields)}: no example of config.train has {which}; leave '
        'out a field, or the examples of that domain'
      )
  return found


def _seed(seed: int, name: str) -> int:
  """Another seed for each name."""
  return zlib.crc32(f'{seed} {name}'.encode()) & 0x7FFFFFFF


def _places(source: Source, batch_size: int, seed: int, balance: Sequence[str]):
  """The order of the examples: its item i is the number of an example."""
  if balance:
    return BalancedOrder(source, balance, batch_size, seed)
  return order(len(source), seed)


def train_batches(
  source: Source,
  preprocess: Preprocess,
  batch_size: int,
  seed: int,
  rows: Sequence[int] | None = None,
  threads: int | None = None,
  balance: Sequence[str] = (),
  processes: int = 0,
) -> grain.DatasetIterator:
  """Endless batches of the rows of a process; `get_state()` is the position, the same in all.

  Order and augmentation are drawn for the global batch, of which each process makes its rows: they
  do not depend on the number of processes, which may change when a run resumes.

  Args:
    source: the examples.
    preprocess: applied with randomness.
    batch_size: of all processes together.
    seed: of order and augmentation; each epoch has its own.
    rows: of the global batch that this process makes; None: all.
    threads: each makes one batch at a time, and two more are kept ready; None: `default_threads`.
    balance: some of `BALANCED`: the batches are those of `BalancedOrder`; (): each epoch has every
      example once.
    processes: workers that make the batches, instead of threads; the batches are the same.

  Raises:
    ConfigError: the batch is larger than the source; as `BalancedOrder`.
  """
  if batch_size > len(source):
    raise ConfigError(f'batch_size = {batch_size} is more than the {len(source)} examples')
  rows = np.arange(batch_size) if rows is None else np.asarray(rows)
  places = _places(source, batch_size, seed, balance)
  make = _MakeBatch(source, places, preprocess, batch_size, seed, rows.tolist())
  if processes:
    batch = batch_processes.BatchProcesses(make, make.spec(), processes)
    threads = batch.threads
  else:
    batch, threads = make, threads or default_threads()
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 2)
  return iter(grain.MapDataset.range(2**62).map(batch).to_iter_dataset(options))


class _MakeBatch:
  """`make(i)` is the part of batch number i that a process makes; see `train_batches`."""

  def __init__(
    self,
    source: Source,
    places: 'grain.MapDataset | BalancedOrder',
    preprocess: Preprocess,
    batch_size: int,
    seed: int,
    rows: Sequence[int],
  ):
    self._arguments = source, places, preprocess, batch_size, seed, rows
    self._rows, self._batch_size = rows, batch_size
    if isinstance(places, BalancedOrder):
      places = grain.MapDataset.range(2**62).map(places.__getitem__)
    augment = _Augment(preprocess)
    self._examples = places.map(source.__getitem__).random_map(augment, seed=seed + 1)
    is_remote = source.is_remote
    self._read = concurrent.futures.ThreadPoolExecutor(_REMOTE_THREADS).map if is_remote else map

  def __reduce__(self):  # threads are not pickled
    return _MakeBatch, self._arguments

  def spec(self) -> dict[str, batch_processes.Array]:
    """The shapes and types of a batch, those of its first example."""
    example, n = self._examples[self._rows[0]], len(self._rows)
    return {k: batch_processes.Array((n, *np.shape(v)), v.dtype) for k, v in example.items()}

  def __call__(self, i: int, arrays: Mapping[str, np.ndarray] | None = None) -> dict:
    """Writes the batch into arrays, into new ones if None."""
    filled = dict(arrays or {})
    places = [i * self._batch_size + row for row in self._rows]
    for place, example in enumerate(self._read(self._examples.__getitem__, places)):
      if not filled:
        filled = {k: np.empty((len(places), *np.shape(v)), v.dtype) for k, v in example.items()}
      for k, v in example.items():
        # Filled in place: np.stack would allocate every image again, which takes as long as
        # decoding it.
        filled[k][place] = v
    return filled


def ids_of_batch(
  source: Source, batch_size: int, seed: int, index: int, balance: Sequence[str] = ()
) -> list[str]:
  """The ids in the global batch number `index` (from 0) of `train_batches`, in their rows."""
  places = _places(source, batch_size, seed, balance)
  start = index * batch_size
  return [source.columns['id'][places[i]] for i in range(start, start + batch_size)]


def eval_batches(
  source: Source,
  preprocess: Preprocess,
  batch_size: int,
  rows: Sequence[int] | None = None,
) -> Iterator[tuple[dict, list[dict]]]:
  """Every example once, in order: (the rows of a process, metadata of the real examples).

  The metadata, `META` and `label`, are those of the global batch, equal in every process and
  without padding. The last batch repeats its first example to keep its shape. The arrays also have
  'unusable' [b, M] bool: images of real examples without signal, which count as absent.

  Args:
    source: the examples.
    preprocess: applied without randomness.
    batch_size: of all processes together.
    rows: of the global batch that this process makes; None: all.
  """
  rows = np.arange(batch_size) if rows is None else np.asarray(rows)
  n, known = len(source), source.columns

  def load(place):
    batch, row = divmod(place, len(rows))
    index = batch * batch_size + int(rows[row])
    real = index < n
    example = source[index if real else batch * batch_size]
    arrays = preprocess(example)
    there = [bool(example.get(m)) for m in preprocess.modalities]
    return {**arrays, 'unusable': real & np.array(there) & ~arrays['present']}

  batches = -(-n // batch_size)
  threads = _REMOTE_THREADS if source.is_remote else default_threads()
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * len(rows))
  examples = iter(grain.MapDataset.range(batches * len(rows)).map(load).to_iter_dataset(options))
  for start in range(0, n, batch_size):
    arrays = [next(examples) for _ in rows]
    metas = [
      {name: known[name][i] for name in META} | {'label': LABELS.index(known['label'][i])}
      for i in range(start, min(start + batch_size, n))
    ]
    yield {k: np.stack([a[k] for a in arrays]) for k in arrays[0]}, metas
