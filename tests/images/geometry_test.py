"""Decoding keeps depth's bits; one view moves all modalities alike."""

import cv2
import numpy as np
import pytest

from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images import geometry
from flexfas_jax.images.geometry import View


def encode(image, kind='.png'):
  return cv2.imencode(kind, image)[1].tobytes()


def test_16_bit_depth_survives():
  depth = np.arange(12, dtype=np.uint16).reshape(3, 4) * 257 + 300
  found = geometry.decode(encode(depth), 'depth', 'x')
  assert found.dtype == np.uint16
  np.testing.assert_array_equal(found[..., 0], depth)


def test_rgb_is_rgb():
  red = np.zeros((2, 2, 3), np.uint8)
  red[..., 2] = 200  # OpenCV writes BGR
  assert geometry.decode(encode(red), 'rgb', 'x')[0, 0].tolist() == [200, 0, 0]
  assert geometry.decode(encode(red[..., 0]), 'rgb', 'x').shape == (2, 2, 3)
  assert geometry.decode(encode(red), 'ir', 'x').shape == (2, 2, 1)


@pytest.mark.parametrize('encoded', [b'<html>log in</html>', b'\xff\xd8\xff\xe0 no more'])
def test_what_is_no_image_is_named(encoded):
  with pytest.raises(DataError, match='a/b: ir is not a readable image'):
    geometry.decode(encoded, 'ir', 'a/b')


def test_the_whole_picture_at_its_own_size_is_itself():
  image = np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8)
  np.testing.assert_array_equal(geometry.apply_view(image, View(), 8), image)


def test_a_view_by_hand():
  image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
  flipped = geometry.apply_view(image, View(flip=True), 4)
  np.testing.assert_array_equal(flipped[..., 0], image[:, ::-1, 0])
  cropped = geometry.apply_view(image, View((0.5, 0.0, 1.0, 0.5)), 2)
  np.testing.assert_array_equal(cropped[..., 0], [[2, 3], [6, 7]])
  turned = geometry.apply_view(image, View(angle=90.0), 4)
  np.testing.assert_array_equal(turned[..., 0], np.rot90(image[..., 0]))  # counter-clockwise


@pytest.mark.parametrize('seed', range(5))
def test_modalities_of_different_size_stay_aligned(seed):
  """The same bright square, 96 pixels here and 160 there, lands on the same place."""
  rng = np.random.default_rng(seed)
  view = geometry.draw_view(rng, flip=0.5, rotate=20, crop=(0.6, 1.0), aspect=(0.8, 1.25))
  centres = []
  for size, nearest in ((96, False), (160, True)):
    image = np.zeros((size, size, 1), np.uint8)
    image[size // 4 : size // 2, size // 2 : 3 * size // 4] = 255
    moved = geometry.apply_view(image, view, 64, nearest)
    centres.append(np.argwhere(moved[..., 0] > 127).mean(0))
  # Crops begin at whole pixels of each size: half a pixel of 96 and of 160, and nearest's half.
  np.testing.assert_allclose(*centres, atol=1.5)


@pytest.mark.parametrize('box', [(0.0, 0.0, 1.0, 1.0), (0.25, 0.0, 1.0, 0.75)])
@pytest.mark.parametrize('nearest', [False, True])
@pytest.mark.parametrize('flip', [False, True])
def test_turning_resizes_on_the_way(flip, nearest, box):
  """As resizing, turning, flipping do one after the other, up to a pixel's shade."""
  y, x = np.mgrid[:72, :60]
  image = np.stack([2 * y, 3 * x, 255 - 2 * y], -1).astype(np.uint8)  # smooth, no two axes alike
  found = geometry.apply_view(image, View(box, 8.0, flip), 64, nearest)
  expected = geometry.apply_view(image, View(box), 64)
  turn = cv2.getRotationMatrix2D((31.5, 31.5), 8.0, 1.0)
  expected = cv2.warpAffine(expected, turn, (64, 64))
  expected = expected[:, ::-1] if flip else expected
  inside = (slice(8, -8), slice(8, -8))  # what was turned in from outside is black
  np.testing.assert_allclose(found[inside].astype(int), expected[inside].astype(int), atol=4)
  for channel in range(3):
    alone = geometry.apply_view(
      image[..., channel : channel + 1], View(box, 8.0, flip), 64, nearest
    )
    np.testing.assert_array_equal(found[..., channel], alone[..., 0])


@pytest.mark.parametrize('shape', [(90, 60, 3), (60, 90, 1), (33, 33, 1)])
@pytest.mark.parametrize('nearest', [False, True])
def test_rotation_before_the_crop_turns_the_whole_image(shape, nearest):
  """As OpenCV's own rotation about the middle of the stored image, then crop and resize."""
  image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
  image = cv2.resize(image, shape[1::-1], interpolation=cv2.INTER_AREA).reshape(shape)
  box, (H, W, _) = (0.2, 0.0, 0.8, 0.5), shape
  view = View(box, 30.0, False, rotate_first=True)
  turn = cv2.getRotationMatrix2D(((W - 1) / 2, (H - 1) / 2), 30.0, 1.0)
  how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
  by_hand = cv2.warpAffine(image, turn, (W, H), flags=how).reshape(shape)
  expected = geometry.apply_view(by_hand, View(box), 20, nearest)
  found = geometry.apply_view(image, view, 20, nearest)
  # OpenCV inverts the matrix itself: a coordinate that is rounded may fall to a neighbour.
  different = np.abs(found.astype(int) - expected) > 2
  assert different.mean() < 0.02
  flipped = geometry.apply_view(image, view._replace(flip=True), 20, nearest)
  np.testing.assert_array_equal(flipped, found[:, ::-1])
  # About the crop's own centre it is another image.
  other = geometry.apply_view(image, view._replace(rotate_first=False), 20, nearest)
  assert (np.abs(found.astype(int) - other) > 20).mean() > 0.2


def test_corners_of_a_rotation_before_the_crop_are_black():
  """45 degrees: the corner of the image is outside it; a crop turned by itself stays inside."""
  image, corner = np.full((100, 100, 1), 200, np.uint8), (0.0, 0.0, 0.1, 0.1)
  assert not geometry.apply_view(image, View(corner, 45.0, rotate_first=True), 10).any()
  assert geometry.apply_view(image, View(corner, 45.0), 10)[5, 5] == 200
  drawn = geometry.draw_view(np.random.default_rng(0), rotate=45, rotate_first=True)
  assert drawn.rotate_first and not geometry.draw_view(np.random.default_rng(0)).rotate_first


def test_bilinear_by_hand():
  """8 to 2 pixels: the mean of two neighbours, where the area has the mean of four."""
  row = np.array([[0, 10, 20, 30, 40, 50, 60, 250]], np.uint8)
  image = np.repeat(row, 8, 0)[..., None]
  found = geometry.apply_view(image, View(), 2, bilinear=True)
  assert found[..., 0].tolist() == [[15, 55]] * 2  # pixels 1 and 2, 5 and 6: the last is not seen
  assert geometry.apply_view(image, View(), 2)[..., 0].tolist() == [[15, 100]] * 2
  turned = geometry.apply_view(image, View(angle=90.0), 2, bilinear=True)
  assert turned[..., 0].tolist() == [[55, 55], [15, 15]]


def test_a_much_larger_picture_is_averaged_before_it_is_turned():
  image = np.zeros((256, 256, 1), np.uint8)
  image[::2, ::2] = image[1::2, 1::2] = 200  # a halftone
  turned = geometry.apply_view(image, View(angle=5.0), 64)
  np.testing.assert_array_equal(turned[16:48, 16:48], 100)


def test_depth_is_never_mixed():
  depth = np.zeros((50, 50, 1), np.uint16)
  depth[:, ::2] = 1000
  found = geometry.apply_view(depth, View(angle=17.0), 33, nearest=True)
  assert set(np.unique(found)) == {0, 1000}


def test_one_field_does_not_disturb_the_others_draws():
  views = [
    geometry.draw_view(np.random.default_rng(1), flip=0.5, rotate=r, crop=(0.5, 1)) for r in (0, 9)
  ]
  assert views[0].box == views[1].box
  assert views[0].flip == views[1].flip
  assert views[0].angle != views[1].angle


def test_views_of_a_test_by_hand():
  views = geometry.parse_views(['whole', 'flip', 'turn=-10', 'five_crops=0.8+flip'])
  assert list(views) == ['whole', 'flip', 'turn=-10'] + [
    f'{place}=0.8+flip'
    for place in ('centre', 'top_left', 'top_right', 'bottom_left', 'bottom_right')
  ]
  assert views['whole'] == geometry.View()
  assert views['flip'] == geometry.View(flip=True)
  assert views['turn=-10'] == geometry.View(angle=-10.0)
  corner = views['bottom_left=0.8+flip']
  assert corner.flip and not corner.angle
  np.testing.assert_allclose(corner.box, (0.0, 0.2, 0.8, 1.0))
  np.testing.assert_allclose(views['centre=0.8+flip'].box, (0.1, 0.1, 0.9, 0.9))


@pytest.mark.parametrize(
  'names,said',
  [
    ([], 'empty'),
    (['flip', 'flip'], "'flip' twice"),
    (['five_crops=0.9', 'centre=0.9'], "'centre=0.9' twice"),
    (['mirror'], "'mirror' is no view"),
    (['turn=much'], "'turn=much' is no view"),
    (['turn'], "'turn' is no view"),
    (['centre=1.5'], "'centre=1.5' is no view"),
    (['flip=1'], "'flip=1' is no view"),
    (['flip+flip'], 'sets its flip twice'),
    (['whole+flip'], 'is no view'),
  ],
)
def test_what_is_no_view(names, said):
  with pytest.raises(ConfigError, match=said):
    geometry.parse_views(names)


def test_the_draws_by_hand():
  """Area and ratio of the crop, its place, the angle's sign and range, the flip."""
  fields = {'flip': 0.4, 'rotate': 30.0, 'crop': (0.3, 0.6), 'aspect': (0.5, 3.0)}
  views = []
  for seed in range(200):
    view = geometry.draw_view(np.random.default_rng(seed), **fields)
    area, ratio, x, y, turn, mirror = np.random.default_rng(seed).uniform(size=6)
    left, top, right, bottom = view.box
    width, height = right - left, bottom - top
    ratio = 0.5 * 6**ratio
    area = 0.3 + 0.3 * area
    np.testing.assert_allclose(width, min(1, np.sqrt(area * ratio)))
    np.testing.assert_allclose(height, min(1, np.sqrt(area / ratio)))
    np.testing.assert_allclose((left, top), (x * (1 - width), y * (1 - height)), atol=1e-12)
    np.testing.assert_allclose(view.angle, 60 * turn - 30)
    assert view.flip == (mirror < 0.4)
    assert 0 <= left < right <= 1 + 1e-12 and 0 <= top < bottom <= 1 + 1e-12
    views.append(view)
  angles = [view.angle for view in views]
  assert -30 <= min(angles) < -28 and 28 < max(angles) <= 30
  assert 0.3 < np.mean([view.flip for view in views]) < 0.5
  assert geometry.draw_view(np.random.default_rng(0)) == View()


def test_a_crop_of_a_picture_that_is_no_square():
  """Left and right are of its width, top and bottom of its height; one pixel is left at least."""
  image = np.arange(8 * 4, dtype=np.uint8).reshape(8, 4, 1)
  found = geometry.apply_view(image, View((0.25, 0.5, 0.75, 0.75)), 2)
  np.testing.assert_array_equal(found[..., 0], image[4:6, 1:3, 0])
  tall = geometry.apply_view(image, View((0.25, 0.125, 0.5, 0.625)), 4, nearest=True)
  np.testing.assert_array_equal(tall[..., 0], np.repeat(image[1:5, 1:2, 0], 4, 1))
  one = geometry.apply_view(image, View((0.5, 0.5, 0.5, 0.5)), 3)
  np.testing.assert_array_equal(one, image[4, 2, 0])


@pytest.mark.parametrize('angle', [90.0, -90.0, 180.0])
@pytest.mark.parametrize('nearest', [False, True])
def test_which_way_is_counter_clockwise(angle, nearest):
  image = np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8)
  found = geometry.apply_view(image, View(angle=angle), 8, nearest)
  np.testing.assert_array_equal(found, np.rot90(image, round(angle / 90)))
  flipped = geometry.apply_view(image, View(angle=angle, flip=True), 8, nearest)
  np.testing.assert_array_equal(flipped, np.rot90(image, round(angle / 90))[:, ::-1])


def test_every_place_of_a_crop():
  views = geometry.parse_views(['five_crops=0.6'])
  boxes = {
    'centre': (0.2, 0.2, 0.8, 0.8),
    'top_left': (0.0, 0.0, 0.6, 0.6),
    'top_right': (0.4, 0.0, 1.0, 0.6),
    'bottom_left': (0.0, 0.4, 0.6, 1.0),
    'bottom_right': (0.4, 0.4, 1.0, 1.0),
  }
  assert list(views) == [f'{place}=0.6' for place in boxes]
  for place, box in boxes.items():
    np.testing.assert_allclose(views[f'{place}=0.6'].box, box)


@pytest.mark.parametrize(
  'name', ['centre=0', 'centre=0.0', 'centre=-0.5', 'centre=1.001', 'centre', 'centre=nan',
           'turn=180.1', 'turn=-180.1', 'turn=nan', 'turn=inf', 'top_left=0']
)  # fmt: skip
def test_limits_of_a_view(name):
  with pytest.raises(ConfigError, match='is no view'):
    geometry.parse_views([name])


def test_views_at_the_limits():
  for name, view in (
    ('centre=1', View((0.0, 0.0, 1.0, 1.0))),
    ('turn=180', View(angle=180.0)),
    ('turn=-180', View(angle=-180.0)),
    ('turn=0', View()),
  ):
    assert geometry.parse_views([name]) == {name: view}


def test_what_shrinks_is_averaged_and_what_grows_is_not():
  halftone = np.zeros((64, 64, 1), np.uint8)
  halftone[::2, ::2] = halftone[1::2, 1::2] = 200
  np.testing.assert_array_equal(geometry.apply_view(halftone, View(), 32), 100)
  # The shorter side counts: one that does not shrink has nothing to average.
  wide = np.tile(np.array([0, 90, 0], np.uint8), (4, 4))[..., None]  # [4, 12, 1]
  np.testing.assert_array_equal(geometry.apply_view(wide, View(), 4), 90)
  np.testing.assert_array_equal(geometry.apply_view(np.repeat(wide, 3, 0), View(), 4), 30)
  image = np.zeros((2, 64, 1), np.uint8)
  image[1] = 200
  found = geometry.apply_view(image, View(), 4)[:, 0, 0]
  np.testing.assert_array_equal(found, [0, 50, 150, 200])


def test_an_image_with_alpha_has_three_channels():
  image = np.full((2, 2, 4), (1, 2, 3, 99), np.uint8)
  assert geometry.decode(encode(image), 'rgb', 'x')[0, 0].tolist() == [3, 2, 1]
  assert geometry.decode(encode(image), 'ir', 'x').shape == (2, 2, 1)


def test_opencv_starts_no_threads():
  assert cv2.getNumThreads() <= 1
