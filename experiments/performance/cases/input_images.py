"""The input pipeline on one core, compared with OpenCV's decoding and resizing alone."""

import contextlib

import cv2
import numpy as np

from configs import vit_fusion
from experiments.performance import timing
from flexfas_jax.images.preprocess import Preprocess
from flexfas_jax.input_pipeline import pipeline
from tests.miniatures import faces

TRIPLETS, BATCH, STORED, SIZE = 64, 32, 256, 224
MANY = 16  # batches
SET = 29_266  # triplets of CASIA-SURF's training list


class _Examples(list):
  """Examples in memory, as a source of `SET` that repeats them.

  The length matters: Grain finds a place in the order of n examples by 65,536 / n steps.
  """

  is_remote = False

  def __len__(self) -> int:
    return SET

  def __getitem__(self, i: int) -> dict:
    return super().__getitem__(i % TRIPLETS)


def triplets() -> tuple[_Examples, Preprocess]:
  """(examples of JPEG images, the preprocessing of training)."""
  config = vit_fusion.get_config().to_dict()
  examples = _Examples()
  for i in range(TRIPLETS):
    images = faces.triplet('cut_photo' if i % 2 else '', i, i, STORED)
    encoded = {m: faces.encode(image) for m, image in images.items()}
    examples.append({**encoded, 'id': f'{i}', 'label': i % 2})
  modalities = config['model']['modalities']
  return examples, Preprocess(SIZE, modalities, config['view'], config['photometric'])


@contextlib.contextmanager
def one_thread_each():
  """Limits OpenCV to one thread."""
  threads = cv2.getNumThreads()
  cv2.setNumThreads(1)
  try:
    yield
  finally:
    cv2.setNumThreads(threads)


def batched(examples, preprocess, batches: int, **workers):
  """A function that takes `batches` batches, which threads or processes prepare ahead."""
  made = pipeline.train_batches(examples, preprocess, BATCH, seed=0, **workers)

  def run():
    for _ in range(batches):
      next(made)

  return run


def measure(options) -> list[dict]:
  """A triplet on one core, by itself and in batches, against OpenCV's decoding and resizing."""
  examples, preprocess = triplets()

  def ours():
    for i, example in enumerate(examples):
      preprocess(example, np.random.default_rng(i))

  def opencv():
    for example in examples:
      for m in preprocess.modalities:
        flag = cv2.IMREAD_COLOR if m == 'rgb' else cv2.IMREAD_GRAYSCALE
        image = cv2.imdecode(np.frombuffer(example[m], np.uint8), flag)
        cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)

  with one_thread_each():
    found = timing.interleaved({'ours': ours, 'opencv': opencv}, options.repeats)
    # Not interleaved: the pipeline would work ahead during the other's turn.
    ahead = batched(examples, preprocess, TRIPLETS // BATCH, threads=1)
    found |= timing.interleaved({'batches': ahead}, options.repeats)
  figure = 'a triplet decoded and augmented, against OpenCV alone'
  scale = 1e3 / TRIPLETS
  return [
    timing.row(figure, found['opencv'], found['ours'], scale=scale),
    timing.row(f'{figure}, in batches', found['opencv'], found['batches'], scale=scale),
  ]


def threads(options) -> list[dict]:
  """Batches by 2, 4, ... threads and processes, up to one per core, against one thread's."""
  examples, preprocess = triplets()
  numbers = [2**i for i in range(options.threads.bit_length())]
  sides = {'1 thread': {'threads': 1}}
  sides |= {f'{n} threads': {'threads': n} for n in numbers[1:]}
  sides |= {f'{n} processes': {'processes': n} for n in numbers[1:]}
  found = {}
  with one_thread_each():
    for name, workers in sides.items():  # not interleaved, as above
      ahead = batched(examples, preprocess, MANY, **workers)  # many, since workers end together
      found |= timing.interleaved({name: ahead}, options.repeats)
  scale = 1e3 / (MANY * BATCH)
  first = found.pop('1 thread')
  return [
    timing.row(f'triplets in batches by {name}, against one thread', first, times, scale=scale)
    for name, times in found.items()
  ]


CASES = {'input_images': measure, 'threads': threads}
