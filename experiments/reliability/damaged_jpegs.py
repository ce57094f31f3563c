"""Damages JPEGs in many ways and counts how many are reported; intact ones must be accepted.

  python -m experiments.reliability.damaged_jpegs -n 10500 --damaged 1000

Intact files come from Pillow, OpenCV and simplejpeg, and from the programs cjpeg and jpegtran and
the package mozjpeg_lossless_optimization if they are installed: baseline and progressive, with and
without restart markers and optimised codes, 64 to 1280 pixels a side, qualities 5 to 100, with
every usual subsampling, grey, and with bytes after the end. Each must be accepted, with pixels
bit-identical to those of Pillow and OpenCV. The run fails (exit code 1) if one is not, or if less
than 95 % of the files with damaged blocks and more than 1 % wrong pixels are reported.

Reported among files with more than 1 % wrong pixels (simplejpeg 1.9.0, all six encoders, 400 files
of each kind with --seed=1):

  damage            reported
  zeros               99.5 %   512 bytes
  missing             99.5 %   512 bytes
  cut                100.0 %   at 60 %, with an end marker
  random_block        93.9 %   100 bytes
  random_places      100.0 %   100 bytes
  swapped             93.8 %   two blocks of 512 bytes
  all of these        97.8 %
  one_byte            64.8 %

The others hold valid codes of exactly as many blocks as before; only a digest detects them.
"""

import argparse
import collections
import functools
import io
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from flexfas_jax.images import checks as image_checks
from flexfas_jax.images import files as image_files

BLOCK = 512  # bytes, a sector of a disk
SHARE_WRONG = 0.01  # of the pixels: a file with more of them counts as damaged
LEAST_REPORTED = 0.95
_SUBSAMPLINGS = ('444', '422', '420', '440', '411')


# Images and their encoders.


def scene(rng: np.random.Generator) -> np.ndarray:
  """Shapes, texture and noise, some with areas of one colour or of tiles, [h, w, 3] uint8."""
  height, width = np.exp(rng.uniform(np.log(64), np.log(1280), 2)).astype(int)
  size, image = (int(width), int(height)), np.zeros((height, width, 3))
  for scale, weight in ((64, 0.5), (16, 0.3), (4, 0.2)):
    coarse = rng.uniform(0, 255, (height // scale + 2, width // scale + 2, 3))
    image += weight * cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
  for _ in range(5):
    centre, axes = rng.integers(0, size), rng.integers(5, 2 + max(size) // 4, 2)
    cv2.ellipse(image, centre.tolist(), axes.tolist(), 0, 0, 360, rng.uniform(0, 255, 3), -1)
  image = np.clip(image + rng.normal(0, rng.uniform(0, 6), image.shape), 0, 255).astype(np.uint8)
  kind = rng.integers(10)
  if kind == 0:  # borders of one colour
    image[height // 3 :], image[:, : width // 4] = rng.integers(0, 256, 3), 0
  elif kind == 1:  # the same tile everywhere
    image = np.tile(image[:16, :16], (height // 16 + 1, width // 16 + 1, 1))[:height, :width]
  elif kind == 2:  # no noise, few levels
    image = image // 64 * 64
  return image


def encode(image: np.ndarray, rng: np.random.Generator) -> tuple[str, bytes]:
  """(encoder, a JPEG of it) with a random encoder and random options."""
  image = image[..., 0] if rng.random() < 0.2 else image
  encoders = _encoders()
  name = list(encoders)[rng.integers(len(encoders))]
  return name, encoders[name](np.ascontiguousarray(image), int(rng.integers(5, 101)), rng)


@functools.cache
def _encoders() -> dict[str, Callable]:
  found = {'Pillow': _pillow, 'OpenCV': _opencv, 'simplejpeg': _simplejpeg}
  if shutil.which('cjpeg'):
    found['cjpeg'] = _cjpeg
  if shutil.which('jpegtran'):
    found['jpegtran'] = _jpegtran
  try:
    import mozjpeg_lossless_optimization as mozjpeg
  except ImportError:
    return found
  return found | {'mozjpeg': lambda *args: mozjpeg.optimize(_pillow(*args))}


def _pillow(image: np.ndarray, quality: int, rng: np.random.Generator) -> bytes:
  options = {'progressive': rng.random() < 0.5, 'optimize': rng.random() < 0.5}
  if rng.random() < 0.5:
    unit = ('restart_marker_rows', 'restart_marker_blocks')[rng.integers(2)]
    options[unit] = int(rng.integers(1, 9))
  if image.ndim == 3:
    options['subsampling'] = int(rng.integers(3))
  file = io.BytesIO()
  Image.fromarray(image).save(file, 'JPEG', quality=quality, **options)
  return file.getvalue()


def _opencv(image: np.ndarray, quality: int, rng: np.random.Generator) -> bytes:
  options = {
    cv2.IMWRITE_JPEG_QUALITY: quality,
    cv2.IMWRITE_JPEG_PROGRESSIVE: int(rng.integers(2)),
    cv2.IMWRITE_JPEG_OPTIMIZE: int(rng.integers(2)),
    cv2.IMWRITE_JPEG_RST_INTERVAL: int(rng.integers(0, 9)),
  }
  flat = [value for pair in options.items() for value in pair]
  return cv2.imencode('.jpg', image[..., ::-1] if image.ndim == 3 else image, flat)[1].tobytes()


def _simplejpeg(image: np.ndarray, quality: int, rng: np.random.Generator) -> bytes:
  if image.ndim == 2:
    return simplejpeg.encode_jpeg(image[..., None], quality, 'GRAY', 'Gray')
  return simplejpeg.encode_jpeg(image, quality, 'RGB', _SUBSAMPLINGS[rng.integers(5)])


def _cjpeg(image: np.ndarray, quality: int, rng: np.random.Generator) -> bytes:
  command = ['cjpeg', '-quality', str(quality)]
  command += [[], ['-optimize']][rng.integers(2)]
  command += [[], ['-progressive']][rng.integers(2)]
  command += [[], ['-restart', '3'], ['-restart', '17B']][rng.integers(3)]
  command += [[], *(['-sample', one] for one in ('1x1', '2x1', '1x2', '4x1'))][rng.integers(5)]
  command += [[], ['-rgb']][int(image.ndim == 3 and rng.random() < 0.2)]
  kind, stored = ('.ppm', image[..., ::-1]) if image.ndim == 3 else ('.pgm', image)
  return _run(command, cv2.imencode(kind, stored)[1].tobytes())


def _jpegtran(image: np.ndarray, quality: int, rng: np.random.Generator) -> bytes:
  options = [['-optimize'], ['-progressive'], ['-restart', str(rng.integers(1, 9))]]
  options += [['-rotate', '90'], ['-grayscale'], ['-copy', 'all']]
  command = ['jpegtran', *(word for one in options if rng.random() < 0.3 for word in one)]
  return _run(command, _pillow(image, quality, rng))


def _run(command: list[str], content: bytes) -> bytes:
  return subprocess.run(command, input=content, capture_output=True, check=True).stdout


# Damage; a function gives None where the file is too short for it.


def zeros(encoded: bytes, rng: np.random.Generator) -> bytes | None:
  """A block of zeros in place of what was there."""
  return _replaced(encoded, BLOCK, bytes(BLOCK), rng)


def missing(encoded: bytes, rng: np.random.Generator) -> bytes | None:
  """A block less."""
  return _replaced(encoded, BLOCK, b'', rng)


def cut(encoded: bytes, rng: np.random.Generator) -> bytes | None:
  """The first 60 %, and an end marker."""
  return encoded[: len(encoded) * 6 // 10] + b'\xff\xd9'


def random_block(encoded: bytes, rng: np.random.Generator) -> bytes | None:
  """100 random bytes in place of what was there."""
  return _replaced(encoded, 100, rng.bytes(100), rng)


def random_places(encoded: bytes, rng: np.random.Generator) -> bytes | None:
  """A random byte at each of 100 places."""
  damaged = np.frombuffer(encoded, np.uint8).copy()
  damaged[rng.integers(2, len(damaged) - 2, 100)] = rng.integers(0, 256, 100)
  return damaged.tobytes()


def swapped(encoded: bytes, rng: np.random.Generator) -> bytes | None:
  """Two blocks in each other's place."""
  blocks = np.arange(2, len(encoded) - 2 - BLOCK, BLOCK)
  if len(blocks) < 3:
    return None
  one, other = sorted(rng.choice(blocks, 2, replace=False).tolist())
  first, second = encoded[one : one + BLOCK], encoded[other : other + BLOCK]
  return encoded[:one] + second + encoded[one + BLOCK : other] + first + encoded[other + BLOCK :]


def one_byte(encoded: bytes, rng: np.random.Generator) -> bytes | None:
  """Another value of one byte."""
  place = int(rng.integers(2, len(encoded) - 2))
  other = encoded[place] ^ int(rng.integers(1, 256))
  return encoded[:place] + bytes([other]) + encoded[place + 1 :]


def _replaced(encoded: bytes, n: int, content: bytes, rng: np.random.Generator) -> bytes | None:
  """With `content` in place of n bytes that are neither the first two nor the last two."""
  if len(encoded) < 3 * n:
    return None
  place = int(rng.integers(2, len(encoded) - 2 - n))
  return encoded[:place] + content + encoded[place + n :]


BLOCKS = (zeros, missing, cut, random_block, random_places, swapped)
KINDS = (*BLOCKS, one_byte)


def damaged(encoded: bytes, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
  """Yields (kind, damaged file) of every kind that changes the file."""
  for kind in KINDS:
    changed = kind(encoded, rng)
    if changed not in (None, encoded):
      yield kind.__name__, changed


# What is measured.


def is_reported(encoded: bytes) -> bool:
  """Whether the checks of the input pipeline refuse it."""
  try:
    image_checks.decode(encoded)
  except image_files.Unreadable:
    return True
  return False


def share_wrong(encoded: bytes, intact: np.ndarray) -> float:
  """Share of the pixels that a lenient decoder gives other values; 1: no image of this size."""
  image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
  if image is None or image.shape != intact.shape:
    return 1.0
  return float((image != intact).any(-1).mean())


def check_intact(n: int, rng: np.random.Generator) -> tuple[dict[str, int], list[str]]:
  """({encoder: files}, what is wrong with the answers to n intact files)."""
  files, faults = collections.Counter(), []
  for number in range(n):
    name, encoded = encode(scene(rng), rng)
    behind = rng.bytes(int(rng.integers(1, 20_000))) if rng.random() < 0.1 else b''
    files[name] += 1
    try:
      image = image_checks.decode(encoded + behind)
    except image_files.Unreadable as error:
      faults.append(f'file {number} of {name} is refused: it {error}')
      continue
    other = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    same = np.array_equal(image, other if other.ndim == 2 else other[..., ::-1])
    same &= np.array_equal(image, np.asarray(Image.open(io.BytesIO(encoded))))
    if not same:
      faults.append(f'file {number} of {name} has other pixels')
  return dict(files), faults


def check_damaged(n: int, rng: np.random.Generator) -> dict[str, collections.Counter]:
  """{kind: how often}; keys are (more than `SHARE_WRONG` wrong, reported)."""
  found = {kind.__name__: collections.Counter() for kind in KINDS}
  for _ in range(n):
    encoded = encode(scene(rng), rng)[1]
    intact = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    for kind, changed in damaged(encoded, rng):
      wrong = share_wrong(changed, intact) > SHARE_WRONG
      found[kind][wrong, is_reported(changed)] += 1
  return found


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('-n', type=int, default=10_000, help='intact files')
  parser.add_argument('--damaged', type=int, default=1500, help='files that are damaged')
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  warnings.simplefilter('error')
  rng = np.random.default_rng(args.seed)
  files, faults = check_intact(args.n, rng)
  print(f'{args.n} intact files ({files}): {len(faults)} false alarms or other pixels')
  print('\n'.join(faults[:20]))
  found = check_damaged(args.damaged, rng)
  print('damage          files   > 1 % wrong   of these reported   of the others reported')
  blocks = collections.Counter()
  for kind, counts in found.items():
    wrong = counts[True, True] + counts[True, False]
    others = counts[False, True] + counts[False, False]
    print(
      f'{kind:14} {wrong + others:6} {wrong:13} {counts[True, True] / max(1, wrong):19.1%} '
      f'{counts[False, True]:16} of {others}'
    )
    if kind != one_byte.__name__:
      blocks += counts
  reported = blocks[True, True] / max(1, blocks[True, True] + blocks[True, False])
  print(f'of all but single bytes {reported:.1%} are reported')
  return int(bool(faults) or (args.damaged > 0 and reported < LEAST_REPORTED))


if __name__ == '__main__':
  sys.exit(main())
