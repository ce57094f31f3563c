"""From stored numbers to [0, 1], by hand."""

import cv2
import numpy as np
import pytest

from flexfas_jax.images import transforms


def test_distance_becomes_a_window_about_the_face():
  depth = np.full((8, 8, 1), 600, np.uint16)  # mm
  depth[0, 0], depth[0, 1], depth[0, 2], depth[0, 3] = 500, 900, 0, 100
  found = transforms.to_unit(depth, 'depth')[..., 0]
  # 0.5 - (d - 600) / 400; far is clipped to just above a hole, near to 1.
  np.testing.assert_allclose(found[0, :5], [0.75, 1 / 255, 0, 1, 0.5], atol=1e-6)
  assert found.dtype == np.float32


def test_depth_without_a_single_measurement_is_all_holes():
  assert not transforms.to_unit(np.zeros((4, 4, 1), np.uint16), 'depth').any()


def test_eight_bits_are_fractions():
  for modality in ('rgb', 'depth', 'ir'):
    found = transforms.to_unit(np.array([[[0], [51], [255]]], np.uint8), modality)
    np.testing.assert_allclose(found.ravel(), [0, 0.2, 1], atol=1e-6)


def test_photometric_changes_by_hand():
  """The draws of this seed, applied by the formula to every pixel rather than through the table."""
  image = np.random.default_rng(0).integers(0, 255, (5, 5, 3)).astype(np.uint8)
  fields = {'add': 0.2, 'contrast': 0.3, 'gamma': 0.4, 'per_channel': True}
  change = transforms.draw_photometric(np.random.default_rng(2), 3, **fields)
  rng = np.random.default_rng(2)
  shift, stretch, bend = rng.uniform(-1, 1, 3), rng.uniform(-1, 1), rng.uniform(-1, 1)
  expected = (image / 255) ** np.exp(0.4 * bend)
  expected = (expected - 0.5) * (1 + 0.3 * stretch) + 0.5 + 0.2 * shift
  found = transforms.to_unit(image, 'rgb', change)
  np.testing.assert_allclose(found, np.clip(expected, 0, 1), atol=1e-6)
  assert found.dtype == np.float32


def test_an_exponent_from_a_range_is_drawn_evenly():
  draws = []
  for seed in range(400):
    change = transforms.draw_photometric(np.random.default_rng(seed), 1, gamma=(0.5, 2.5))
    draws.append(np.log(change(np.full(1, 0.5, np.float32))[0]) / np.log(0.5))
  assert 0.5 <= min(draws) < 0.54
  assert 2.46 < max(draws) <= 2.5001
  np.testing.assert_allclose(np.mean(draws), 1.5, atol=0.1)


def test_strong_changes_stay_in_range_and_none_is_none():
  image = np.random.default_rng(0).integers(0, 65535, (5, 5, 1)).astype(np.uint16)
  for seed in range(20):
    rng = np.random.default_rng(seed)
    change = transforms.draw_photometric(rng, 1, add=1, contrast=1, gamma=1)
    found = transforms.to_unit(image, 'ir', change)
    assert 0 <= found.min() <= found.max() <= 1
  same = transforms.draw_photometric(np.random.default_rng(0), 1)
  np.testing.assert_allclose(transforms.to_unit(image, 'ir', same), image / 65535, atol=1e-6)


def test_cutout_is_at_the_same_place():
  images = {m: np.ones((16, 16, 1), np.float32) for m in ('rgb', 'ir')}
  changed = transforms.cutout(images, np.random.default_rng(0), 9)
  np.testing.assert_array_equal(changed['rgb'], changed['ir'])
  assert 0 < (changed['rgb'] == 0).sum() <= 64
  assert images['rgb'].all()  # the original is left alone


@pytest.mark.parametrize('size', [8, 28, 32])
def test_a_live_mask_is_the_references(size):
  """The grey picture resized, > 0, in a loop over cells as the references write it."""
  rng = np.random.default_rng(0)
  image = rng.integers(0, 255, (8 * size, 8 * size, 3)).astype(np.uint8)
  away = rng.uniform(size=(size, size)) < 0.5
  middle = np.zeros((8, 8), bool)
  middle[3:5, 3:5] = True  # all of a cell that bilinear resizing looks at
  image[np.kron(away, middle)] = 0
  # BGR, as they read it: the two greys differ, but not in what is black.
  grey = cv2.resize(cv2.cvtColor(image[..., ::-1].copy(), cv2.COLOR_BGR2GRAY), (size, size))
  expected = np.array([[1 if grey[i, j] > 0 else 0 for j in range(size)] for i in range(size)])
  np.testing.assert_array_equal(expected, ~away)
  found = transforms.live_mask(image, size)
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, expected)
  np.testing.assert_array_equal(transforms.live_mask(image[:, ::-1], size), expected[:, ::-1])


def test_a_live_mask_of_millimetres():
  depth = np.zeros((16, 16, 1), np.uint16)
  depth[4:12, 8:] = 700  # beyond 255: 8 bits would wrap
  expected = np.zeros((4, 4))
  expected[1:3, 2:] = 1
  np.testing.assert_array_equal(transforms.live_mask(depth, 4), expected)


def test_what_is_dim_in_one_channel_is_grey():
  """Grey weighs red 0.299, green 0.587, blue 0.114, and rounds: blue 4 is still black."""
  image = np.zeros((8, 8, 3), np.uint8)
  image[:, :4, 2], image[:, 4:, 0] = 4, 4
  np.testing.assert_array_equal(transforms.live_mask(image, 2), [[0, 1], [0, 1]])


def test_a_face_that_is_not_measured_takes_the_rest():
  """The central half is empty: the window is about the median of what is measured elsewhere."""
  depth = np.full((8, 8, 1), 800, np.uint16)
  depth[2:6, 2:6] = 0
  depth[0] = 700
  found = transforms.to_unit(depth, 'depth')[..., 0]
  np.testing.assert_allclose(found[0], 0.75, atol=1e-6)
  np.testing.assert_allclose(found[7], 0.5, atol=1e-6)
  assert not found[2:6, 2:6].any()
  depth[3, 3] = 1000  # one measurement in the middle, and the window is about it
  found = transforms.to_unit(depth, 'depth')[..., 0]
  np.testing.assert_allclose([found[3, 3], found[7, 7]], [0.5, 1], atol=1e-6)


@pytest.mark.parametrize('shape, centre', [((8, 8), (2, 6, 2, 6)), ((11, 7), (2, 9, 1, 6))])
def test_the_window_is_about_the_central_half(shape, centre):
  """A quarter is left out on each side, rounded down; every measurement in it counts."""
  top, bottom, left, right = centre
  rng = np.random.default_rng(0)
  depth = rng.permuted(np.arange(600, 600 + 3 * np.prod(shape), 3)).reshape(*shape, 1)
  middle = np.median(depth[top:bottom, left:right])
  depth[0, 0] = 0
  found = transforms.to_unit(depth.astype(np.uint16), 'depth')
  expected = np.clip(0.5 - (depth - middle) / 400, 1 / 255, 1)
  np.testing.assert_allclose(found, np.where(depth > 0, expected, 0), atol=1e-6)
  # Of the border alone it would be another.
  assert abs(middle - np.median(depth)) > 1


def test_one_shift_for_all_channels():
  image = np.full((4, 4, 3), 100, np.uint8)
  for seed in range(5):
    shifts = np.random.default_rng(seed).uniform(-1, 1, 3)
    for per_channel, expected in ((False, shifts[[0, 0, 0]]), (True, shifts)):
      rng = np.random.default_rng(seed)
      change = transforms.draw_photometric(rng, 3, add=0.2, per_channel=per_channel)
      found = transforms.to_unit(image, 'rgb', change)
      np.testing.assert_allclose(found[0, 0], 100 / 255 + 0.2 * expected, atol=1e-6)
  # It is not by channel unless one says so.
  change = transforms.draw_photometric(np.random.default_rng(0), 3, add=0.2)
  assert np.ptp(transforms.to_unit(image, 'rgb', change)) == 0


def test_the_references_addition_is_of_whole_numbers_and_comes_before_gamma():
  """v -> 255 ((v + a) / 255) ** g, a from -40 to 40 for each channel, clipped between the two."""
  image = np.array([[[0, 100, 250]]], np.uint8)
  fields = {'add': 40 / 255, 'gamma': (0.5, 1.5), 'per_channel': True}
  fields |= {'integers': True, 'add_first': True}
  added = set()
  for seed in range(400):
    draws = np.random.default_rng(seed).uniform(-1, 1, 5)
    whole = np.floor((draws[:3] + 1) / 2 * 81).astype(int) - 40
    added.update(whole.tolist())
    change = transforms.draw_photometric(np.random.default_rng(seed), 3, **fields)
    found = transforms.to_unit(image, 'rgb', change)[0, 0]
    expected = (np.clip(image[0, 0] + whole, 0, 255) / 255) ** (1 + draws[4] / 2)
    np.testing.assert_allclose(found, expected, atol=1e-5)
  assert added == set(range(-40, 41))


def test_one_channel_gets_the_mean_of_three_additions():
  image, shifts = np.full((2, 2, 1), 100, np.uint8), []
  fields = {'add': 40 / 255, 'integers': True, 'per_channel': True}
  for seed in range(2000):
    change = transforms.draw_photometric(np.random.default_rng(seed), 1, **fields)
    shifts.append(transforms.to_unit(image, 'ir', change)[0, 0, 0] * 255 - 100)
  thirds = 3 * np.array(shifts)
  np.testing.assert_allclose(thirds, thirds.round(), atol=1e-3)
  assert thirds.min() < -90 and thirds.max() > 90  # up to 3 x 40
  # A third of the variance of one draw, (81 ** 2 - 1) / 12.
  np.testing.assert_allclose(np.var(shifts), (81**2 - 1) / 36, rtol=0.08)


def test_an_exponent_from_a_number_is_even_in_its_logarithm():
  logs, dark = [], np.full(1, 0.25, np.float32)
  for seed in range(400):
    change = transforms.draw_photometric(np.random.default_rng(seed), 1, gamma=0.7)
    logs.append(np.log(np.log(change(dark)[0]) / np.log(0.25)))
  assert -0.7001 <= min(logs) < -0.68 and 0.68 < max(logs) <= 0.7001
  np.testing.assert_allclose(np.mean(logs), 0, atol=0.07)


def test_contrast_is_about_middle_grey():
  levels = np.array([0.4, 0.5, 0.6], np.float32)
  gaps = []
  for seed in range(200):
    change = transforms.draw_photometric(np.random.default_rng(seed), 1, contrast=0.3)
    low, middle, high = change(levels)
    assert middle == 0.5 and high - middle == pytest.approx(middle - low, abs=1e-6)
    gaps.append((high - middle) / 0.1)
  assert 0.7 <= min(gaps) < 0.72 and 1.28 < max(gaps) <= 1.3001


def test_sides_of_a_cutout_are_the_references():
  """2 (L // 2), L evenly from 1 to 29: 0 once in 29, each even side up to 28 twice."""
  image = {'ir': np.ones((101, 101, 1), np.float32)}

  class Draws:  # L, then the centre
    def __init__(self, length):
      self.values = iter((length, 50, 50))

    def integers(self, low, high):
      value = next(self.values)
      assert low <= value < high
      return value

  areas = [(transforms.cutout(image, Draws(L), 29)['ir'] == 0).sum() for L in range(1, 30)]
  sides = np.sqrt(areas).astype(int).tolist()
  assert sides == [0] + [side for side in range(2, 30, 2) for _ in range(2)]
  # 100 pixels from the border none is cut off: the range that L is drawn from is the whole one.
  found = {
    int((transforms.cutout(image, np.random.default_rng(s), 29)['ir'] == 0).sum())
    for s in range(999)
  }
  assert {side**2 for side in sides} <= found and max(found) == 28**2


def test_sizes_and_places_of_a_cutout():
  """Even sides, the middle anywhere, cut off at the border; black where one says."""
  images = {'rgb': np.ones((12, 20, 3), np.float32), 'ir': np.ones((12, 20, 1), np.float32)}
  sides, middles = set(), set()
  for seed in range(600):
    changed = transforms.cutout(images, np.random.default_rng(seed), 4, black=-0.5)
    assert (changed['rgb'] == changed['ir']).all()
    rows, columns = np.nonzero(changed['ir'][..., 0] == -0.5)
    rng = np.random.default_rng(seed)
    half, y, x = int(rng.integers(1, 5)) // 2, int(rng.integers(0, 12)), int(rng.integers(0, 20))

    def inside(at, n):
      return [k for k in range(at - half, at + half) if 0 <= k < n]  # noqa: B023

    if not rows.size:
      assert not half or not (inside(y, 12) and inside(x, 20))
      sides.add(0)
      continue
    assert sorted(set(rows)) == inside(y, 12) and sorted(set(columns)) == inside(x, 20)
    sides.add(2 * half)
    middles.add((y in (0, 11), x in (0, 19)))
  assert sides == {0, 2, 4} and len(middles) == 4
  assert (transforms.cutout(images, np.random.default_rng(0), 1)['ir'] == 1).all()


def test_a_live_mask_of_what_is_all_live():
  for channels in (1, 3):
    np.testing.assert_array_equal(
      transforms.live_mask(np.full((8, 8, channels), 9, np.uint8), 4), np.ones((4, 4))
    )
