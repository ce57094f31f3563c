"""Decoding keeps depth's bits; one view moves all modalities alike."""

import cv2
import numpy as np
import pytest

from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.input_pipeline import geometry
from flexfas_jax.input_pipeline.geometry import View


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
  views = geometry.named_views(['whole', 'flip', 'turn=-10', 'five_crops=0.8+flip'])
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
    (['flip+flip'], 'says twice'),
    (['whole+flip'], 'is no view'),
  ],
)
def test_what_is_no_view(names, said):
  with pytest.raises(ConfigError, match=said):
    geometry.named_views(names)
