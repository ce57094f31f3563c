"""Whether exchanged depth and infrared images can be detected by image statistics.

    python -m experiments.reliability.exchanged --data_dir=prepared

It computes statistics of the face windows of all rendered samples (16-bit depth, also as the 8-bit
image of published data sets, and with holes filled or smoothed as in processed releases) and of the
miniatures' faces: the area under the ROC curve of each statistic, image by image, and the medians
over a set. Then it measures the rule for whole sets: false alarms and detection on random sets.
"""

import argparse
import collections
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from scipy import stats

from experiments.reliability import rendered
from flexfas_jax.data.rendered_faces import sensors
from flexfas_jax.images import signal
from flexfas_jax.schema import LABELS
from tests.miniatures import faces

SETS, SIZES = 400, (20, 50, 200)  # sets drawn at random, and images in them


def window(image: np.ndarray) -> np.ndarray:
  """The central half of rows and columns of [h, w] or [h, w, 1]."""
  h, w = image.shape[:2]
  return image[h // 4 : h - h // 4, w // 4 : w - w // 4].reshape(h - 2 * (h // 4), -1)


def spread(image: np.ndarray) -> float:
  """From 2 to 98 % of the measured values; at least 1."""
  measured = image[image >= signal.MEASURED]
  low, high = np.quantile(measured, [0.02, 0.98]) if measured.size else (0, 0)
  return max(float(high - low), 1.0)


def holes(image: np.ndarray) -> float:
  return 1 - signal.measured_share(image)


def gap(image: np.ndarray) -> float:
  """The darkest measured values, as a share of the brightest."""
  measured = image[image >= signal.MEASURED]
  return float(np.divide(*np.quantile(measured, [0.01, 0.99]))) if measured.size else 0.0


def noise(image: np.ndarray) -> float:
  """The median distance to a median of 3 x 3 pixels, in a thousandth of the spread."""
  residual = np.abs(image.astype(np.float32) - cv2.medianBlur(image, 3))
  return (
    1000 * float(residual[image >= signal.MEASURED].mean() if image.any() else 0) / spread(image)
  )


def levels(image: np.ndarray) -> float:
  """How many values there are, of as many pixels."""
  return len(np.unique(image)) / min(image.size, 256**image.itemsize)


def edges(image: np.ndarray) -> float:
  """The 95 % quantile of the differences of neighbours, as a share of the spread."""
  return float(np.quantile(np.abs(np.diff(image.astype(np.float32), axis=1)), 0.95)) / spread(image)


# Of a face window, but for `cliffs`, which is of an image.
STATISTICS = {f.__name__: f for f in (holes, signal.cliffs, gap, noise, levels, edges)}

Image = tuple[str, str, str, np.ndarray]  # set, label, modality, pixels


def images(data_dir: str) -> Iterator[Image]:
  for name in rendered.SETS:
    for example, found in rendered.samples(data_dir, name):
      label = LABELS[example['label']]
      depth = found['depth'][..., 0]
      if depth.dtype == np.uint16:
        yield f'{name}, mm', label, 'depth', depth
        yield f'{name}, mm', label, 'ir', found['ir']
        depth = sensors.visualise(depth.astype(np.float32))
      yield name, label, 'depth', depth
      yield name, label, 'ir', found['ir']
      yield f'{name}, holes filled', label, 'depth', filled(depth)
      yield f'{name}, holes filled', label, 'ir', found['ir']
      yield f'{name}, smoothed', label, 'depth', cv2.bilateralFilter(depth, 5, 40, 3)
      yield f'{name}, smoothed', label, 'ir', found['ir']
      yield f'{name}, dark infrared', label, 'depth', depth
      yield f'{name}, dark infrared', label, 'ir', contrasty(found['ir'])
  for i in range(30):
    for category in ('', 'print', 'replay', 'rigidmask'):
      found = faces.triplet(category, i, size=64)
      for modality in ('depth', 'ir'):
        coded = cv2.imdecode(np.frombuffer(faces.encode(found[modality]), np.uint8), -1)
        yield 'miniatures', LABELS[not category], modality, coded


def filled(depth: np.ndarray) -> np.ndarray:
  """Depth as releases have it that fill holes from their neighbours."""
  return cv2.inpaint(depth, (depth < signal.MEASURED).astype(np.uint8), 3, cv2.INPAINT_TELEA)


def contrasty(infrared: np.ndarray) -> np.ndarray:
  """Infrared of a short exposure and a high gain: a third of it black, the rest stretched."""
  low, high = np.quantile(infrared, [0.33, 0.99])
  return np.clip((infrared[..., 0] - low) / max(high - low, 1) * 255, 0, 255).astype(np.uint8)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument('--data_dir', default='prepared')
  found = collections.defaultdict(list)
  for name, label, modality, image in images(parser.parse_args().data_dir):
    face = np.ascontiguousarray(window(image))
    found[name, modality].append(
      (label, [f(image if f is signal.cliffs else face) for f in STATISTICS.values()])
    )
  values = {key: np.array([row for _, row in rows]) for key, rows in found.items()}
  genuine = {
    key: np.array([label == 'bona_fide' for label, _ in rows]) for key, rows in found.items()
  }
  names = list(dict.fromkeys(name for name, _ in values))

  print('Depth against infrared, image by image: AUC, all (bona fide)')
  table(names, lambda name, i: auc(values, name, i, genuine))
  print('\nMedians over a set: depth, infrared')
  table(names, lambda name, i: ' '.join(
    f'{np.median(values[name, m][:, i]):.3f}' for m in ('depth', 'ir')))  # fmt: skip

  rule = f'{signal.CLIFFS} or more, and {signal.CLIFFS_TIMES:g} times those of depth'
  print(f'\nSets of n samples, flagged where the median of the cliffs of infrared is {rule}:')
  print(f'{"":28}' + ''.join(f'{f"false, n = {n}":>14}{"detected":>10}' for n in SIZES))
  rng, at = np.random.default_rng(0), list(STATISTICS).index('cliffs')
  for name in names:
    depth, ir = values[name, 'depth'][:, at], values[name, 'ir'][:, at]
    line = ''
    for n in SIZES:
      drawn = [rng.choice(len(depth), n) for _ in range(SETS)]
      false = np.mean([signal.seem_exchanged(depth[some], ir[some]) for some in drawn])
      right = np.mean([signal.seem_exchanged(ir[some], depth[some]) for some in drawn])
      line += f'{100 * false:12.1f} %{100 * right:8.1f} %'
    print(f'{name:28}{line}')


def auc(values: dict, name: str, i: int, genuine: dict[tuple, np.ndarray]) -> str:
  def of(select: Callable) -> float:
    one, other = (values[name, m][select(name, m), i] for m in ('depth', 'ir'))
    return stats.mannwhitneyu(one, other).statistic / (len(one) * len(other))

  every = of(lambda name, m: slice(None))
  return f'{every:.2f} ({of(lambda name, m: genuine[name, m]):.2f})'


def table(names: list[str], cell: Callable[[str, int], str]) -> None:
  print(f'{"":28}' + ''.join(f'{name:>14}' for name in STATISTICS))
  for name in names:
    print(f'{name:28}' + ''.join(f'{cell(name, i):>14}' for i in range(len(STATISTICS))))


if __name__ == '__main__':
  main()
