"""The input pipeline on one core, against OpenCV's decoding and resizing alone."""

import cv2
import numpy as np

from configs import vit_fusion
from experiments.performance import timing
from flexfas_jax.input_pipeline import pipeline
from flexfas_jax.input_pipeline.preprocess import Preprocess
from tests.miniatures import faces

TRIPLETS, BATCH, STORED, SIZE = 64, 32, 256, 224


def measure(options) -> list[dict]:
  """Decoding and augmentation as in training, 224 pixels, JPEG."""
  config = vit_fusion.get_config().to_dict()
  examples = []
  for i in range(TRIPLETS):
    pictures = faces.triplet('cut_photo' if i % 2 else '', i, i, STORED)
    encoded = {m: faces.encode(p) for m, p in pictures.items()}
    examples.append({**encoded, 'id': f'{i}', 'label': i % 2})
  modalities = config['model']['modalities']
  preprocess = Preprocess(SIZE, modalities, config['view'], config['photometric'])

  def ours():
    for i, example in enumerate(examples):
      preprocess(example, np.random.default_rng(i))

  def opencv():
    for example in examples:
      for m in modalities:
        flag = cv2.IMREAD_COLOR if m == 'rgb' else cv2.IMREAD_GRAYSCALE
        image = cv2.imdecode(np.frombuffer(example[m], np.uint8), flag)
        cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)

  # One thread makes batches ahead: what is timed is the time between them.
  batches = pipeline.train_batches(examples, preprocess, BATCH, seed=0, threads=1)

  def batched():
    for _ in range(TRIPLETS // BATCH):
      next(batches)

  threads = cv2.getNumThreads()
  cv2.setNumThreads(1)  # per core
  try:
    found = timing.interleaved({'ours': ours, 'opencv': opencv}, options.repeats)
    found |= timing.interleaved({'batched': batched}, options.repeats)  # alone: it works ahead
  finally:
    cv2.setNumThreads(threads)
  figure = 'a triplet decoded and augmented, against decoding and resizing alone'
  scale = 1e3 / TRIPLETS
  return [
    timing.row(figure, found['opencv'], found['ours'], scale=scale),
    timing.row(f'{figure}, in batches', found['opencv'], found['batched'], scale=scale),
  ]


CASES = {'pictures': measure}
