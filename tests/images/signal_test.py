"""Images on both sides of every limit of the one rule of signal."""

import cv2
import numpy as np
import pytest

from flexfas_jax.images import signal
from flexfas_jax.images.signal import no_signal

DEPTHS = [np.uint8, np.uint16]


def halves(low, high, size=64, dtype=np.uint8):
  """[size, size] whose left half is one value and the right half another."""
  image = np.full((size, size), low, dtype)
  image[:, size // 2 :] = high
  return image


def noise(sigma, offset=0, shape=(112, 112), dtype=np.uint8, seed=0):
  levels = np.random.default_rng(seed).normal(offset, sigma, shape)
  return np.clip(np.rint(levels), 0, np.iinfo(dtype).max).astype(dtype)


def face(low, high, size=112, dtype=np.uint8):
  """An ellipse with darker eyes and mouth on black, as crops without their background are."""
  image = np.zeros((size, size), np.uint8)
  cv2.ellipse(image, (size // 2, size // 2), (size // 4, size // 3), 0, 0, 360, 255, -1)
  for x, y in ((0.4, 0.4), (0.6, 0.4), (0.5, 0.68)):
    cv2.circle(image, (int(x * size), int(y * size)), size // 14, 60, -1)
  image = cv2.GaussianBlur(image, (0, 0), size / 60)
  return (low + image / 255.0 * (high - low)).astype(dtype)


@pytest.mark.parametrize('modality', ['rgb', 'depth', 'ir'])
@pytest.mark.parametrize('dtype', DEPTHS)
@pytest.mark.parametrize('shape', [(1, 1), (8, 8), (64, 48), (720, 1280), (64, 64, 1), (64, 64, 3)])
@pytest.mark.parametrize('frame', [False, True])
def test_one_value_or_one_odd_pixel_is_no_signal(modality, dtype, shape, frame):
  for value in (0, 1, 128, np.iinfo(dtype).max):
    image = np.full(shape, value, dtype)
    assert no_signal(image, modality, frame=frame) == 'is one colour throughout'
    if image.size > 1:
      image[shape[0] // 2, shape[1] // 2] = value // 2 + 40
      assert no_signal(image, modality, frame=frame)


@pytest.mark.parametrize('dtype', DEPTHS)
@pytest.mark.parametrize('size', [16, 24, 64, 112, 300])
def test_the_limit_of_contrast(dtype, size):
  least = signal.CONTRAST
  for modality in ('rgb', 'ir'):
    for channels in (1, 3):
      enough, little = (
        np.repeat(halves(100, 100 + c, size, dtype)[..., None], channels, 2)
        for c in (least, least - 1)
      )
      assert no_signal(enough, modality) == ''
      assert '5 levels, and 6 are required' in no_signal(little, modality)
  assert no_signal(halves(0, least, size, dtype), 'ir') == ''


def test_the_limit_of_contrast_to_spread():
  """The spread of 4 x 4 squares of two values within a cell is their difference."""
  squares = np.kron(np.indices((16, 16)).sum(0) % 2, np.ones((4, 4))).astype(np.uint8)  # [64, 64]
  left = np.arange(64) < 32
  for spread, contrast, found in ((8, 12, ''), (8, 11, 'is noise'), (8, 0, 'levels')):
    # The upper median of a cell is its brighter square.
    image = 50 + spread * squares + np.where(left, 0, contrast).astype(np.uint8)
    assert signal.contrast_and_spread(image, 'ir') == (contrast, spread)
    assert found in no_signal(image, 'ir') and bool(found) == bool(no_signal(image, 'ir'))
  # From an eighth of the range on, it is no noise however much it varies.
  for dtype, least in ((np.uint8, 32), (np.uint16, 8192)):
    for contrast in (least, least - 1):
      image = (60 * (least // 32) * squares.astype(int)) + np.where(left, 0, contrast)
      assert bool(no_signal(image.astype(dtype), 'ir')) == (contrast < least)


@pytest.mark.parametrize('dtype', DEPTHS)
@pytest.mark.parametrize('shape', [(64, 64), (112, 112), (224, 224, 3), (480, 640)])
@pytest.mark.parametrize('offset', [0, 16, 64])
@pytest.mark.parametrize('sigma', [0.5, 1, 2, 4, 8, 16])
def test_noise_is_no_signal(dtype, shape, sigma, offset):
  for scale in (1, 64) if dtype == np.uint16 else (1,):  # 64: ten bits, aligned to the left
    for seed in range(3):
      image = noise(sigma, offset, shape, dtype, seed) * dtype(scale)
      for modality in ('rgb', 'ir'):
        assert no_signal(image, modality)


def test_the_noise_of_0_to_3_is_no_signal():
  image = np.random.default_rng(0).integers(0, 4, (112, 112, 1)).astype(np.uint8)
  for modality in ('rgb', 'depth', 'ir'):
    assert no_signal(image, modality)
    assert no_signal(image.astype(np.uint16), modality)
  for quality in (20, 50, 95):  # JPEG makes patches of noise
    encoded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    assert no_signal(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED), 'ir')


def test_hot_pixels_and_stripes_at_the_border_are_no_signal():
  rng = np.random.default_rng(0)
  image = noise(2, 10)
  image[rng.random(image.shape) < 0.02] = 255
  image[rng.random(image.shape) < 0.02] = 0
  assert no_signal(image, 'ir')
  image[:4], image[:, -3:] = 255, 200
  assert no_signal(image, 'ir')
  assert no_signal(noise(3, 252), 'ir')  # saturated


@pytest.mark.parametrize('dtype', DEPTHS)
def test_dim_faces_have_signal(dtype):
  """Infrared of a tenth of the exposure, night, a small face on black."""
  for image in (face(0, 25), face(10, 30), face(100, 125), face(0, 255)):
    seen = (image + noise(1.5, 3, image.shape)).astype(dtype)
    for modality in ('rgb', 'ir'):
      assert no_signal(seen, modality) == ''
      assert no_signal(np.repeat(seen[..., None], 3, 2), modality) == ''


def test_rgb_counts_as_grey_and_the_others_by_their_first_channel():
  image = np.full((64, 64, 3), 100, np.uint8)
  image[:, 32:, 2] = 160  # 0.114 of it: 7 grey levels
  assert no_signal(image, 'rgb') == '' and no_signal(image, 'ir')
  image[:, 32:, 2] = 130
  assert no_signal(image, 'rgb')


@pytest.mark.parametrize('dtype', DEPTHS)
def test_the_limit_of_measured_depth(dtype):
  depth = np.zeros((80, 40), dtype)
  window = depth[20:60, 10:30]  # 800 pixels
  window.flat[::20] = range(100, 140)
  assert no_signal(depth, 'depth') == ''
  window.flat[0] = 0
  said = no_signal(depth, 'depth')
  assert said == 'has 4.9% of its central half measured, and 5.0% are required'
  window.flat[0] = signal.MEASURED - 1  # what JPEG leaves in a hole
  assert no_signal(depth, 'depth') == said
  depth[:20] = 120  # beside the face
  assert no_signal(depth, 'depth') == said
  assert no_signal(depth, 'depth', frame=True) == ''
  window.flat[0] = signal.MEASURED
  assert no_signal(depth, 'depth') == ''
  assert no_signal(np.repeat(depth[..., None], 3, 2), 'depth') == ''


def test_the_limit_of_measured_depth_in_a_frame():
  depth = np.zeros((100, 100), np.uint16)
  depth.flat[:50] = range(500, 550)
  assert no_signal(depth, 'depth', frame=True) == ''
  depth.flat[0] = 0
  assert no_signal(depth, 'depth', frame=True)


@pytest.mark.parametrize('dtype', DEPTHS)
def test_flat_and_half_empty_depth_is_measured(dtype):
  rng = np.random.default_rng(0)
  flat = np.full((96, 96), 128, dtype)
  flat[::9, ::9] = 127  # a print, straight before the sensor
  assert no_signal(flat, 'depth') == ''
  holes = np.where(rng.random(flat.shape) < 0.85, 0, rng.integers(100, 140, flat.shape))
  assert no_signal(holes.astype(dtype), 'depth') == ''
  few = np.where(face(0, 255, 96) > 100, 90 + 20 * (np.indices(flat.shape)[0] // 48), 0)
  assert no_signal(few.astype(dtype), 'depth') == ''  # two values, on black


def test_the_limit_of_depth_that_is_one_value():
  flat = np.full((100, 100), 600, np.uint16)
  flat[40, 30:40] = 601
  assert no_signal(flat, 'depth') == 'is one value throughout, but for 10 of 10000 pixels'
  flat[41, 30] = 601
  assert no_signal(flat, 'depth') == ''


def test_a_small_face_in_a_frame_has_signal():
  """Where the face is not cropped yet it may be small, and all else out of the lamp's reach."""
  frame = noise(1, 3, (480, 640))
  frame[300:400, 20:120] = np.maximum(frame[300:400, 20:120], face(0, 120, 100))
  depth = np.zeros((480, 640), np.uint16)
  depth[300:400, 20:120] = face(600, 660, 100, np.uint16)
  assert no_signal(frame, 'ir', frame=True) == no_signal(depth, 'depth', frame=True) == ''
  assert no_signal(depth, 'depth')  # taken for a crop, it has no face


def test_the_image_is_left_as_it_is():
  image = face(0, 200)
  before = image.copy()
  no_signal(image, 'rgb'), no_signal(image, 'depth')
  np.testing.assert_array_equal(image, before)
  assert no_signal(np.ascontiguousarray(image.T), 'ir') == no_signal(image.T, 'ir') == ''


def by_the_card(image, modality):
  """Whether there is signal, as an implementer reads it in a bundle's card."""
  h, w = image.shape[:2]
  image = image if image.ndim == 3 else image[..., None]
  if modality == 'depth':
    window = image[h // 4 : h - h // 4, w // 4 : w - w // 4, 0]
    counts = np.bincount(image[..., 0].ravel())
    odd = image[..., 0].size - counts.max()
    enough = (window >= 8).sum() >= 0.05 * window.size
    return bool(enough and odd > max(1, image[..., 0].size // 1000))
  down, across = (min(8, max(2, side // 8)) for side in (h, w))
  some = cv2.resize(image, (8 * across, 8 * down), interpolation=cv2.INTER_NEAREST)
  grey = cv2.cvtColor(some, cv2.COLOR_RGB2GRAY) if modality == 'rgb' else some
  medians, spreads = [], []
  for y in range(down):
    for x in range(across):
      values = sorted(int(v) for v in grey[8 * y : 8 * y + 8, 8 * x : 8 * x + 8].ravel())
      medians.append(values[32])
      spreads.append(values[48] - values[16])
  contrast, spread = max(medians) - min(medians), sorted(spreads)[len(spreads) // 2]
  noise = 32 if image.itemsize == 1 else 8192
  return not (contrast < 6 or (contrast < noise and contrast < 1.5 * spread))


def test_the_card_describes_the_rule_to_the_pixel():
  """Images near the limits of every kind, by another implementation."""
  rng = np.random.default_rng(0)
  found = {m: [] for m in ('rgb', 'depth', 'ir')}
  for i in range(300):
    h, w = rng.integers(9, 130, 2)
    dtype, scale = ((np.uint8, 1), (np.uint16, 1), (np.uint16, 200))[i % 3]
    low, contrast, sigma = rng.integers(8, 60), rng.integers(0, 16), rng.choice([0.5, 2, 6])
    for modality, values in found.items():
      channels = 3 if modality == 'rgb' else 1
      patches = rng.integers(low, low + contrast + 1, (3, 3)).astype(np.float64)
      image = cv2.resize(patches, (int(w), int(h)), interpolation=cv2.INTER_NEAREST)
      image = image[..., None] + rng.normal(0, sigma, (h, w, channels))
      if modality == 'depth':
        holes = rng.random((h, w, 1)) < rng.choice([0.5, 0.94, 0.95, 0.96])
        one = np.where(rng.random((h, w, 1)) < 1 / 900, 101, 100)
        image = one if i % 2 else np.where(holes, 0, image)
      image = (np.clip(np.rint(image), 0, 255) * scale).astype(dtype)
      assert (no_signal(image, modality) == '') == by_the_card(image, modality), (i, modality)
      values.append(by_the_card(image, modality))
  assert all(0.1 < np.mean(values) < 0.9 for values in found.values())


@pytest.mark.parametrize('dtype', DEPTHS)
@pytest.mark.parametrize('channels', [1, 3])
def test_the_limit_of_saturation(dtype, channels):
  top = np.iinfo(dtype).max
  for value in (top, top - top // 255):
    image = np.full((40, 40), top // 3, dtype)
    image[::2] //= 2
    window = image[10:30, 10:30]  # 400 pixels
    window.flat[:360] = value
    three = np.repeat(image[..., None], channels, 2)
    assert no_signal(three, 'ir') == ''
    three[28, 10] = value
    assert signal.saturated_share(three) == 361 / 400
    assert 'is saturated: 90.2%' in no_signal(three, 'ir')
    assert no_signal(three, 'ir', frame=True) == no_signal(three, 'rgb') == ''
    assert no_signal(three, 'depth') == ''


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_cliffs_are_where_near_values_end_at_holes(dtype):
  depth = np.full((40, 40), 100, dtype)  # of which the face window is 20 x 20: 19 pairs in a row
  depth[:, 20:] = 200
  assert signal.cliffs(depth) == 0
  depth[12, 15], depth[14, 30] = 0, signal.MEASURED - 1  # the second is at the window's border
  assert signal.cliffs(depth) == pytest.approx(2 / (20 * 19))
  assert signal.cliffs(np.dstack([depth] * 3)) == pytest.approx(2 / (20 * 19))
  depth[13, 15:18] = 0, 20, 20  # what is dark beside a hole is no cliff; the other side is one
  assert signal.cliffs(depth) == pytest.approx(3 / (20 * 19))
  assert signal.cliffs(np.zeros((40, 40), dtype)) == 0


def test_what_looks_exchanged():
  some, none = [0.01] * signal.FEWEST, [0.0] * signal.FEWEST
  assert signal.seem_exchanged(none, some) and not signal.seem_exchanged(some, none)
  assert not signal.seem_exchanged([0.0034] * 20, some) and signal.seem_exchanged(
    [0.0033] * 20, some
  )
  assert not signal.seem_exchanged(none, [0.0099] * 20)
  assert not signal.seem_exchanged(none[1:], some[1:]) and not signal.seem_exchanged([], [])
