"""Detectors of altered copies of RGB: python -m experiments.reliability.copies --data_dir=prepared

For each alteration, the share of copies that each detector finds, as infrared or depth in the size
of the set; and for all genuine rendered triplets, the false alarms and the largest statistics.
`before` is a correlation of whole grey images above 0.999 alone.
"""

import argparse
import collections
import itertools
import time

import cv2
import numpy as np

from experiments.reliability import rendered
from flexfas_jax.images import copies
from flexfas_jax.schema import LABELS

EVERY = 6  # one of so many samples is copied; all are tested for false alarms

DETECTORS = {
  'before: correlation': lambda a, b, s, d: _grey(a, b) > copies.EXACT,
  'its absolute value, and mirrored': lambda a, b, s, d: _either(a, b) > copies.EXACT,
  'structure alone': lambda a, b, s, d: s > copies.STRUCTURE,
  'detail alone': lambda a, b, s, d: d > copies.DETAIL,
  'now: correlation, or structure and detail': lambda a, b, s, d: bool(copies.describe(a, b)),
}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument('--data_dir', default='prepared')
  data_dir = parser.parse_args().data_dir
  detected = collections.Counter()
  alarms, largest, n_pairs = collections.Counter(), collections.defaultdict(tuple), 0
  n_copies, seconds, n = 0, 0.0, 0
  for name in rendered.SETS:
    for example, images in rendered.samples(data_dir, name):
      start = time.perf_counter()
      looks = {m: copies.fingerprint(image) for m, image in images.items()}
      for one, other in itertools.combinations(looks, 2):
        copies.describe(looks[one], looks[other])
      seconds += time.perf_counter() - start
      for one, other in itertools.combinations(looks, 2):
        a, b = looks[one], looks[other]
        structure, detail = copies.similarity(a, b)
        of = example['attack_type'] or LABELS[example['label']]
        largest[one, other] = max(largest[one, other], (structure, detail, of))
        n_pairs += 1
        for detector, finds in DETECTORS.items():
          alarms[detector] += finds(a, b, structure, detail)
      if n % EVERY == 0:
        n_copies += 1
        for modality, (change, make) in itertools.product(('ir', 'depth'), CHANGES.items()):
          size = images[modality].shape[1::-1]
          copy = cv2.resize(make(images['rgb']), size, interpolation=cv2.INTER_AREA)
          b = copies.fingerprint(copy)
          structure, detail = copies.similarity(looks['rgb'], b)
          for detector, finds in DETECTORS.items():
            detected[detector, change] += finds(looks['rgb'], b, structure, detail)
      n += 1
  print(f'Detected, % of {2 * n_copies} copies of each kind; false alarms, of {n_pairs} pairs:')
  print(f'{"":44}' + ''.join(f'{change:>11}' for change in CHANGES) + f'{"alarms":>9}')
  for detector in DETECTORS:
    shares = (100 * detected[detector, change] / (2 * n_copies) for change in CHANGES)
    print(f'{detector:44}' + ''.join(f'{s:11.1f}' for s in shares) + f'{alarms[detector]:9}')
  print(f'\nGenuine triplets ({n}), the largest structure:')
  for (one, other), (structure, detail, of) in largest.items():
    print(f'{one}, {other}: {structure:.3f} with detail {detail:.3f} ({of})')
  print(f'\n{1000 * seconds / n:.2f} ms for a triplet')


def _grey(a: copies.Fingerprint, b: copies.Fingerprint) -> float:
  return copies.correlation(a.whole, b.whole)


def _either(a: copies.Fingerprint, b: copies.Fingerprint) -> float:
  mirrored = b._replace(whole=b.whole[:, ::-1])
  return max(abs(_grey(a, b)), abs(_grey(a, mirrored)))


def _grey_of(make):
  return lambda rgb: make(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))


def _shift(grey):
  h, w = grey.shape
  move = np.float32([[1, 0, 0.01 * w], [0, 1, 0.01 * h]])
  return cv2.warpAffine(grey, move, (w, h), borderMode=cv2.BORDER_REPLICATE)


def _jpeg(grey):
  encoded = cv2.imencode('.jpg', grey, [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
  return cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)


CHANGES = {
  'none': _grey_of(lambda grey: grey),
  'mirrored': _grey_of(lambda grey: cv2.flip(grey, 1)),
  'negative': _grey_of(lambda grey: 255 - grey),
  'red': lambda rgb: np.ascontiguousarray(rgb[..., 0]),
  'gamma 0.6': _grey_of(lambda grey: np.rint(255 * (grey / 255) ** 0.6).astype(np.uint8)),
  'equalised': _grey_of(cv2.equalizeHist),
  'shift 1 %': _grey_of(_shift),
  'JPEG q50': _grey_of(_jpeg),
}


if __name__ == '__main__':
  main()
