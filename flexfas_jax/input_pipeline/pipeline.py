"""From raw examples to batches, on Grain: shuffled, augmented, sharded by process, resumable.

A batch: images [B, H, W, C] float32 in [-1, 1] (black is -127.5 / 128, as in
FlexModal's reference), 'present' [B, M] bool, 'label' [B] int32, 'map' [B, h, w] float32 where
one is asked for, and 'identity' [B] int32 where the source has it (`Source.with_identities`).
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.evaluation.score_files import LABELS
from flexfas_jax.input_pipeline import geometry, transforms
from flexfas_jax.input_pipeline.sources import Source

META = ('id', 'dataset', 'subject', 'video', 'attack_type', 'attack_category', 'ethnicity')


@dataclasses.dataclass(frozen=True)
class Preprocess:
  """A raw example to arrays; the same code for training, evaluation and prediction.

  A picture whose pixels are all equal shows nothing: its sensor failed to acquire, and the modality
  is absent. (A sample of nothing else has no score in evaluation; in training it stays as it is,
  for a step must look at something.)

  Attributes:
    image_size: pixels along a side.
    modalities: in the order of `present`.
    view: arguments of `geometry.draw_view`; empty looks at the whole picture.
    photometric: {modality: arguments of `transforms.draw_photometric`}.
    cutout: largest side of the square that is blackened, pixels; 0: none.
    map_size: side of the target 'map' of pixel-wise losses; None: there is none. All 0 for an
      attack; for a bona fide sample the `live_mask` of RGB, or where that is absent of depth or the
      first other that is there. It is taken from the view, so that flips, crops and turns move it
      along (CDCN's loader flips it, FlexModal's forgets to), before colours change or a square is
      cut out, as in both. The references shrink the stored picture, not the view of `image_size`:
      one cell more or less at the border of what is black.
    test_views: that a picture is looked at by where nothing is random; of several, images are
      [V, H, W, C].
  """

  image_size: int
  modalities: Sequence[str]
  view: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  photometric: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
  cutout: int = 0
  map_size: int | None = None
  test_views: Sequence[geometry.View] = (geometry.View(),)

  def __call__(self, example: Mapping[str, Any], rng: np.random.Generator | None = None) -> dict:
    """Arrays of one example; `rng` None leaves out everything random."""
    images = self._decode(example, rng is None)
    if rng is not None:
      return self._look(images, example, geometry.draw_view(rng, **self.view), rng)
    looks = [self._look(images, example, view) for view in self.test_views]
    if len(looks) == 1:
      return looks[0]
    return looks[0] | {m: np.stack([a[m] for a in looks]) for m in self.modalities}  # [V, H, W, C]

  def _decode(self, example: Mapping[str, Any], testing: bool) -> dict[str, np.ndarray]:
    """{modality: [H, W, C]} of the pictures that show something; in training at least one."""
    images, constant = {}, {}
    for modality in self.modalities:
      encoded = example.get(modality, b'')
      if not encoded:
        continue
      image = geometry.decode(encoded, modality, example['id'])
      (constant if image.min() == image.max() else images)[modality] = image
    if not images and not constant:
      raise DataError(f'{example["id"]}: none of {", ".join(self.modalities)} is there')
    return images or ({} if testing else constant)

  def _look(self, decoded, example: Mapping[str, Any], view: geometry.View, rng=None) -> dict:
    images, looks = {}, {}
    for modality, image in decoded.items():
      image = geometry.apply_view(image, view, self.image_size, nearest=modality == 'depth')
      looks[modality] = image
      change = None
      if rng is not None and modality in self.photometric:
        channels = image.shape[-1]
        change = transforms.draw_photometric(rng, channels, **self.photometric[modality])
      images[modality] = transforms.to_unit(image, modality, change)
    if rng is not None and self.cutout:
      images = transforms.cutout(images, rng, self.cutout)
    arrays = {
      m: (images[m] * 255 - 127.5) / np.float32(128) if m in images else self._nothing(m)
      for m in self.modalities
    }
    arrays['present'] = np.array([m in images for m in self.modalities])
    arrays['label'] = np.int32(example['label'])
    if 'identity' in example:
      arrays['identity'] = np.int32(example['identity'])
    if self.map_size:
      first = next((m for m in ('rgb', 'depth', *looks) if m in looks), None)
      black = np.zeros((self.map_size, self.map_size, 1), np.uint8)
      live = transforms.live_mask(looks.get(first, black), self.map_size)
      arrays['map'] = live if example['label'] else np.zeros_like(live)
    return arrays

  def _nothing(self, modality: str) -> np.ndarray:
    channels = 3 if modality == 'rgb' else 1
    return np.zeros((self.image_size, self.image_size, channels), np.float32)


@dataclasses.dataclass(frozen=True)
class _Augment(grain.transforms.RandomMap):
  preprocess: Preprocess

  def random_map(self, example, rng: np.random.Generator):
    return self.preprocess(example, rng)


def order(n: int, seed: int) -> grain.MapDataset:
  """Which of n examples comes when, without end: each epoch has every one once, in an order of its
  own. The same for every process; `order(n, seed)[i]` is an int."""
  return grain.MapDataset.range(n).shuffle(seed=seed).repeat(None)


def train_batches(
  source: Source,
  preprocess: Preprocess,
  batch_size: int,
  seed: int,
  rows: Sequence[int] | None = None,
  threads: int = 2,
) -> grain.DatasetIterator:
  """Endless batches of a process's share; where it stands is `get_state()`, for every process.

  Order and augmentation are drawn for the global batch, of which each process makes its rows: what
  is trained on does not depend on how many processes there are, and a run can go on with others.

  Args:
    source: what to read.
    preprocess: with its random parts.
    batch_size: of all processes together.
    seed: of order and augmentation; each epoch draws anew.
    rows: of the global batch that this process makes; None: all.
    threads: each makes one batch at a time; as many again are kept ready.

  Raises:
    ConfigError: the batch is larger than the source.
  """
  if batch_size > len(source):
    raise ConfigError(f'batch_size = {batch_size} is more than the {len(source)} examples')
  rows = np.arange(batch_size) if rows is None else np.asarray(rows)
  b = len(rows)
  examples = (
    order(len(source), seed).map(source.__getitem__).random_map(_Augment(preprocess), seed=seed + 1)
  )
  dataset = (
    grain.MapDataset.range(2**62)
    .map(lambda i: examples[i // b * batch_size + int(rows[i % b])])
    .batch(b, drop_remainder=True)
  )
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
  return iter(dataset.to_iter_dataset(options))


def ids_of_batch(source: Source, batch_size: int, seed: int, index: int) -> list[str]:
  """The ids in the global batch number `index` (from 0) of `train_batches`, in their rows."""
  places = order(len(source), seed)
  start = index * batch_size
  return [source.columns['id'][places[i]] for i in range(start, start + batch_size)]


def eval_batches(
  source: Source,
  preprocess: Preprocess,
  batch_size: int,
  rows: Sequence[int] | None = None,
  threads: int = 2,
) -> Iterator[tuple[dict, list[dict]]]:
  """Every example once, in order: (a process's share of a batch, what is known of the real ones).

  The second list is of the global batch, the same in every process, with each one's `META` and
  `label`; it is as long as there are real examples. The last batch repeats its first example to
  keep its shape. The arrays have 'constant' [b, M] bool besides: pictures of real examples that
  show nothing.

  Args:
    source: what to read.
    preprocess: nothing random is drawn.
    batch_size: of all processes together.
    rows: of the global batch that this process makes; None: all.
    threads: that decode.
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
    return {**arrays, 'constant': real & np.array(there) & ~arrays['present']}

  batches = -(-n // batch_size)
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * len(rows))
  examples = iter(grain.MapDataset.range(batches * len(rows)).map(load).to_iter_dataset(options))
  for start in range(0, n, batch_size):
    arrays = [next(examples) for _ in rows]
    metas = [
      {name: known[name][i] for name in META} | {'label': LABELS.index(known['label'][i])}
      for i in range(start, min(start + batch_size, n))
    ]
    yield {k: np.stack([a[k] for a in arrays]) for k in arrays[0]}, metas
