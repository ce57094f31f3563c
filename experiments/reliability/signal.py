"""Results of the rule for signal: python -m experiments.reliability.signal --data_dir=prepared

Shares of images without signal among models of covered sensors, among changes that must pass, and
among all rendered samples; the statistics on both sides of the limits; the time that it takes.
"""

import argparse
import collections
import time

import cv2
import numpy as np

from experiments.reliability import rendered
from flexfas_jax.images import geometry, signal
from flexfas_jax.schema import LABELS

N = 200  # images of each model
SHAPES = (64, 64), (112, 112), (224, 224), (480, 640)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument('--data_dir', default='prepared')
  data_dir = parser.parse_args().data_dir
  print(f'Covered and defective sensors, {N} images of each size {SHAPES}:')
  print(f'{"":44}no signal, %   largest contrast   contrast / spread')
  rng = np.random.default_rng(0)
  for name, (modality, make) in NOISE.items():
    found, contrast, ratio = [], 0, 0.0
    for shape in SHAPES:
      for _ in range(N):
        image = make(rng, shape)
        found.append(bool(signal.no_signal(image, modality)))
        if modality != 'depth':
          difference, spread = signal.contrast_and_spread(image, modality)
          contrast = max(contrast, difference)
          if difference >= signal.CONTRAST:
            ratio = max(ratio, difference / max(spread, 1))
    of = f'{contrast:12}{ratio:20.2f}' if modality != 'depth' else ''
    print(f'{name:44}{100 * np.mean(found):12.1f}{of}')
  measure_rendered(data_dir)
  measure_cost(data_dir)


def measure_rendered(data_dir: str) -> None:
  print('\nRendered samples: images without signal; the smallest statistics:')
  changed = collections.Counter()
  n = 0
  for name in rendered.SETS:
    silent, least = collections.Counter(), collections.defaultdict(list)
    for example, images in rendered.samples(data_dir, name):
      label = LABELS[example['label']]
      n += 1
      for modality, image in images.items():
        silent[label, modality] += bool(signal.no_signal(image, modality))
        if modality == 'depth':
          h, w = image.shape[:2]
          share = signal.measured_share(image[h // 4 : h - h // 4, w // 4 : w - w // 4])
          least[label, modality].append((share, 0.0))
        else:
          difference, spread = signal.contrast_and_spread(image, modality)
          least[label, modality].append((difference, difference / max(spread, 1)))
        for change, make in MUST_PASS.items():
          if label == 'bona_fide' and modality in make:
            changed[change] += bool(signal.no_signal(make[modality](image), modality))
            changed[change, 'n'] += 1
    for (label, modality), values in sorted(least.items()):
      first, second = np.array(values).min(0)
      of = f'contrast {first:g}, contrast / spread {second:.2f}'
      of = f'measured {first:.1%} of the window' if modality == 'depth' else of
      print(
        f'{name:10} {label:10} {modality:6} {silent[label, modality]:3} of {len(values):4}; {of}'
      )
  print(f'{n} samples\n\nBona fide images, changed; without signal:')
  for change in MUST_PASS:
    print(f'{change:44}{changed[change]} of {changed[change, "n"]}')


def measure_cost(data_dir: str) -> None:
  print('\nMicroseconds (decoding in brackets):')
  _, images = next(rendered.samples(data_dir, 'cefa_like'))
  for shape in ((112, 112), (224, 224), (720, 1280)):
    line = f'{shape[1]} x {shape[0]}'
    for modality, image in images.items():
      big = cv2.resize(image, shape[::-1], interpolation=cv2.INTER_NEAREST).reshape(*shape, -1)
      encoded = cv2.imencode('.png' if modality == 'depth' else '.jpg', big)[1].tobytes()
      rule = _microseconds(lambda b=big, m=modality: signal.no_signal(b, m))
      decoding = _microseconds(lambda e=encoded, m=modality: geometry.decode(e, m, ''))
      line += f'   {modality} {rule:.0f} ({decoding:.0f})'
    print(line)


def _microseconds(call, n: int = 50) -> float:
  times = []
  for _ in range(n):
    start = time.perf_counter()
    call()
    times.append(time.perf_counter() - start)
  return 1e6 * float(np.median(times))


def _dark(sigma, offset=0, dtype=np.uint8, scale=1):
  def make(rng, shape):
    levels = np.clip(np.rint(rng.normal(offset, sigma, shape)), 0, 1023 if scale > 1 else 255)
    return levels.astype(dtype) * dtype(scale)

  return make


def _jpeg(make, quality):
  def changed(rng, shape):
    encoded = cv2.imencode('.jpg', make(rng, shape), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)

  return changed


def _salt(share, make):
  def changed(rng, shape):
    image, hot = make(rng, shape), rng.random(shape)
    image[hot < share] = 255
    image[hot > 1 - share] = 0
    return image

  return changed


def _stripes(rng, shape):
  image = _dark(2, 10)(rng, shape)
  rows, columns = shape[0] // 32, shape[1] // 32
  image[:rows], image[:, -columns:] = 255, rng.integers(0, 256)
  return image


def _odd(rng, shape):
  image = np.full(shape, rng.integers(0, 256), np.uint8)
  image[rng.integers(shape[0]), rng.integers(shape[1])] = rng.integers(0, 256)
  return image


def _points(share):
  def make(rng, shape):
    depth = rng.integers(300, 4000, shape).astype(np.uint16)
    return np.where(rng.random(shape) < share, depth, 0).astype(np.uint16)

  return make


def _odd_depth(rng, shape):
  depth = np.full(shape, 600, np.uint16)
  depth[rng.integers(shape[0]), rng.integers(shape[1])] = rng.integers(0, 4000)
  return depth


NOISE = {
  'infrared of 0 to 3': ('ir', lambda rng, shape: rng.integers(0, 4, shape).astype(np.uint8)),
  **{f'sigma {s:g}, offset 0': ('ir', _dark(s)) for s in (0.5, 1, 2, 3, 4)},
  **{f'sigma {s:g}, offset 10': ('ir', _dark(s, 10)) for s in (0.5, 1, 2, 3, 4)},
  **{f'high gain: sigma {s:g}, offset 40': ('ir', _dark(s, 40)) for s in (8, 16, 24)},
  **{f'sigma 2, offset 10, JPEG q{q}': ('ir', _jpeg(_dark(2, 10), q)) for q in (20, 50, 90)},
  'sigma 2, 0.1 % hot and 0.1 % dead pixels': ('ir', _salt(0.001, _dark(2, 10))),
  'sigma 2, 3 % hot and 3 % dead pixels': ('ir', _salt(0.03, _dark(2, 10))),
  'stripes at two borders, 1/32 of the side': ('ir', _stripes),
  'saturated, sigma 3': ('ir', _dark(3, 255)),
  '16 bits, sigma 4, offset 16': ('ir', _dark(4, 16, np.uint16)),
  '16 bits, 10 aligned to the left, sigma 2': ('ir', _dark(2, 16, np.uint16, 64)),
  'RGB: sigma 4, offset 10': ('rgb', lambda rng, shape: _dark(4, 10)(rng, (*shape, 3))),
  'one colour and one odd pixel': ('ir', _odd),
  'depth: one distance and one odd pixel': ('depth', _odd_depth),
  'depth: nothing but one pixel': ('depth', lambda rng, shape: _salt_one(shape)),
  'depth: 1 % random points': ('depth', _points(0.01)),
  'depth: 3 % random points': ('depth', _points(0.03)),
}


def _salt_one(shape):
  depth = np.zeros(shape, np.uint16)
  depth[shape[0] // 2, shape[1] // 2] = 600
  return depth


def _dim(factor):
  return lambda image: (image // factor).astype(image.dtype)


def _night(image):
  rng = np.random.default_rng(0)
  levels = 12 + image.astype(np.float32) / 8 + rng.normal(0, 3, image.shape)
  return np.clip(levels, 0, 255).astype(np.uint8)


def _half_empty(image):
  return np.where(np.random.default_rng(0).random(image.shape) < 0.5, 0, image)


def _few_levels(image):
  return image // 8 * 8 if image.dtype == np.uint8 else image // 10 * 10


def _flat(image):
  """Each measured pixel at the median distance, with noise of a step."""
  noise = np.random.default_rng(0).integers(-1, 2, image.shape)
  return np.where(image > 0, np.median(image[image > 0]) + noise, 0).astype(image.dtype)


MUST_PASS = {
  'a quarter of the exposure': {'rgb': _dim(4), 'ir': _dim(4)},
  'an eighth': {'rgb': _dim(8), 'ir': _dim(8)},
  'ten bits in 16': {'ir': lambda image: image.astype(np.uint16) * 4},
  'an eighth of ten bits in 16': {'ir': lambda image: image.astype(np.uint16) // 2},
  'night: an eighth, noise of sigma 3': {'rgb': _night, 'ir': _night},
  'half of the measured depth': {'depth': _half_empty},
  'depth in steps of 8 levels or 10 mm': {'depth': _few_levels},
  'depth of a plane, one step of noise': {'depth': _flat},
}


if __name__ == '__main__':
  main()
