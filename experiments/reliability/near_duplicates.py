"""Which copies look alike, and which other images do.

    python -m experiments.reliability.near_duplicates --data_dir=prepared

For each change, the share of changed RGB images that are found among all rendered samples, the
smallest correlation with the original, and how often the coarse comparison leads to the original's
video. Of all pairs of different videos, the false alarms and the largest correlations, and what
other rules would give. Last, the cost.
"""

import argparse
import time

import cv2
import numpy as np

from experiments.reliability import rendered
from flexfas_jax.images import checks as image_checks
from flexfas_jax.protocols import near_duplicates

EVERY = 6  # of the samples, one is copied
SCALE = 20_000  # images of each side whose comparison is timed
SIDE = near_duplicates.SIDE


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument('--data_dir', default='prepared')
  data_dir = parser.parse_args().data_dir
  examples = [
    (example, name) for name in rendered.SETS for example, _ in rendered.samples(data_dir, name)
  ]
  encoded = [example['rgb'] for example, _ in examples]
  videos = np.array([example['video'] for example, _ in examples])
  subjects = np.array([example['subject'] for example, _ in examples])
  sets = np.array([name for _, name in examples])
  start = time.process_time()
  looks = [near_duplicates.fingerprint(image) for image in encoded]
  seconds = time.process_time() - start
  print(f'{len(looks)} images of {len(set(videos))} videos; without detail: {looks.count(b"")}')
  all_looks = stack(looks)
  false_alarms(all_looks, videos, subjects, sets)
  detection(encoded, all_looks, videos)
  cost(encoded, seconds)


def stack(looks: list[bytes]) -> np.ndarray:
  return np.frombuffer(b''.join(looks), np.uint8).reshape(len(looks), -1)


def vectors(looks: np.ndarray, blur: float) -> np.ndarray:
  """What is left after a blur is taken away, of length 1; blur 0: nothing is taken away."""
  small = looks.reshape(-1, SIDE, SIDE).astype(np.float32)
  if blur:
    small = np.array([one - cv2.GaussianBlur(one, (0, 0), blur) for one in small])
  flat = small.reshape(len(small), -1)
  flat = flat - flat.mean(1, keepdims=True)
  return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def dhash(looks: np.ndarray) -> np.ndarray:
  """[N] uint64: whether each of 9 x 8 cells is brighter than the one to its right."""
  cells = np.array(
    [cv2.resize(one, (9, 8), interpolation=cv2.INTER_AREA) for one in looks.reshape(-1, SIDE, SIDE)]
  )
  bits = np.packbits((cells[:, :, :-1] > cells[:, :, 1:]).reshape(len(looks), 64), axis=1)
  return bits.view(np.uint64).ravel()


def false_alarms(looks, videos, subjects, sets) -> None:
  print('\nPairs of different videos; images with a false alarm; the largest correlations:')
  head = f'{"":11}{"pairs":>10}{"dHash <= 4":>12}{"grey > .98":>12}{"now":>6}'
  print(head + f'{"largest":>10}{"other subject":>15}{"grey":>8}')
  hashes, whole, detail = dhash(looks), vectors(looks, 0), vectors(looks, near_duplicates._BLUR)
  for name in (*rendered.SETS, 'all'):
    at = np.flatnonzero(sets == name) if name != 'all' else np.arange(len(sets))
    differ = videos[at][:, None] != videos[at]
    strangers = subjects[at][:, None] != subjects[at]
    near = np.bitwise_count(hashes[at][:, None] ^ hashes[at]) <= 4
    grey = np.where(differ, whole[at] @ whole[at].T, -1)
    alike = np.where(differ, detail[at] @ detail[at].T, -1)
    alarms = [
      (near & differ).any(1),
      (grey > 0.98).any(1),
      (alike > near_duplicates.MIN_CORRELATION).any(1),
    ]
    found = [f'{some.sum()} ({some.mean():.0%})' for some in alarms[:2]]
    print(
      f'{name:11}{differ.sum() // 2:10,}{found[0]:>12}{found[1]:>12}{alarms[2].sum():6}'
      f'{alike.max():10.3f}{alike[strangers].max():15.3f}{grey.max():8.3f}'
    )


def detection(encoded, looks, videos) -> None:
  picked = range(0, len(encoded), EVERY)
  print(f'\nCopies of {len(picked)} images:')
  print(f'{"":26}found, %   smallest correlation   nearest is its video, %')
  detail = vectors(looks, near_duplicates._BLUR)
  for name, change in CHANGES.items():
    copies = [near_duplicates.fingerprint(change(image_checks.decode(encoded[i]))) for i in picked]
    assert all(copies)
    found = near_duplicates.find(looks, stack(copies))
    right = [one for one in found if videos[one.other] == videos[picked[one.row]]]
    assert len(right) == len(found)
    correlations = (vectors(stack(copies), near_duplicates._BLUR) * detail[picked]).sum(1)
    nearest = near_duplicates._nearest(
      *(near_duplicates._coarse(side.reshape(-1, SIDE, SIDE)) for side in (looks, stack(copies)))
    )
    led = np.mean(videos[nearest] == videos[picked])
    print(
      f'{name:26}{100 * len(right) / len(picked):8.1f}{correlations.min():23.3f}{100 * led:26.1f}'
    )


def cost(encoded, seconds: float) -> None:
  some = encoded[:: max(1, len(encoded) // 300)]
  print(f'\nCPU microseconds of an image: look {1e6 * seconds / len(encoded):.0f}', end='; ')
  start = time.process_time()
  for image in some:
    image_checks.decode(image)
  print(f'decoding it for the other checks {1e6 * (time.process_time() - start) / len(some):.0f}')
  rng = np.random.default_rng(0)
  sides = [rng.integers(0, 256, (SCALE, SIDE**2), dtype=np.uint8) for _ in range(2)]
  start = time.process_time()
  near_duplicates.find(*sides)
  used = time.process_time() - start
  print(f'{SCALE:,} x {SCALE:,} images compared in {used:.1f} s, {1e9 * used / SCALE**2:.1f} ns a '
        f'pair')  # fmt: skip


def _encoded(suffix: str, *settings: int):
  def change(image: np.ndarray) -> bytes:
    return cv2.imencode(suffix, image[..., ::-1], settings)[1].tobytes()

  return change


def _resized(factor: float, how: int, then):
  def change(image: np.ndarray) -> bytes:
    return then(cv2.resize(image, None, fx=factor, fy=factor, interpolation=how))

  return change


def _toned(make):
  return lambda image: _encoded('.png')(np.rint(make(image / 255) * 255).astype(np.uint8))


def _cropped(share: float):
  def change(image: np.ndarray) -> bytes:
    h, w = (int(share * side) for side in image.shape[:2])
    return _encoded('.png')(np.ascontiguousarray(image[h:-h, w:-w]))

  return change


_Q90 = _encoded('.jpg', cv2.IMWRITE_JPEG_QUALITY, 90)
CHANGES = {
  **{f'JPEG, quality {q}': _encoded('.jpg', cv2.IMWRITE_JPEG_QUALITY, q)
     for q in (30, 50, 70, 85, 95)},
  'JPEG q75, progressive': _encoded('.jpg', cv2.IMWRITE_JPEG_QUALITY, 75,
                                    cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
  'PNG': _encoded('.png'),
  **{f'{factor:g} times, {name}, JPEG q90': _resized(factor, how, _Q90)
     for factor in (0.5, 0.75, 1.3, 2)
     for name, how in (('area', cv2.INTER_AREA), ('cubic', cv2.INTER_CUBIC))},
  '0.5 times, area, JPEG q30': _resized(
    0.5, cv2.INTER_AREA, _encoded('.jpg', cv2.IMWRITE_JPEG_QUALITY, 30)),
  '0.5 times, nearest, PNG': _resized(0.5, cv2.INTER_NEAREST, _encoded('.png')),
  '4 times, linear, PNG': _resized(4, cv2.INTER_LINEAR, _encoded('.png')),
  'gamma 0.7, PNG': _toned(lambda image: image**0.7),
  'half as bright, PNG': _toned(lambda image: image / 2),
  'border of 1 % cut off, PNG': _cropped(0.01),
  'border of 3 % cut off, PNG': _cropped(0.03),
  'mirrored, PNG': lambda image: _encoded('.png')(np.ascontiguousarray(image[:, ::-1])),
}  # fmt: skip


if __name__ == '__main__':
  main()
