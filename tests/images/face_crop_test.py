"""Where a face is, which one is meant, and the crop: by hand, with numbers worked out on paper."""

import hashlib
import re

import cv2
import numpy as np
import pytest

from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images import face_crop
from flexfas_jax.images.face_crop import CropRecipe, Face, NoFace
from tests.miniatures import manifest

BOX = CropRecipe('box', margin=0.0)
EYES = CropRecipe('box', margin=0.0, align='eyes')
SIZE = (200, 100)


def noise(height, width, channels, dtype=np.uint8):
  high = np.iinfo(dtype).max
  return np.random.default_rng(height).integers(1, high, (height, width, channels)).astype(dtype)


def triplet(width=200, height=100):
  """Registered: depth and infrared have half the pixels, each the first of four of a picture."""
  rgb = noise(height, width, 3)
  return {
    'rgb': rgb,
    'depth': rgb[::2, ::2, :1].astype(np.uint16) * 200,
    'ir': rgb[::2, ::2, 1:2].copy(),
  }


def face(left, top, right, bottom, eyes=None, size=SIZE):
  """A face of pixels."""
  W, H = size
  eyes = eyes and tuple((x / W, y / H) for x, y in eyes)
  return Face((left / W, top / H, right / W, bottom / H), eyes)


# Recipes.


@pytest.mark.parametrize(
  'fields, words',
  [
    ({'method': 'boxes'}, "crop is 'boxes'; choose one of: box, landmarks, yunet"),
    ({'align': 'eye'}, 'none, eyes'),
    ({'margin': -0.1}, 'margin is -0.1; it goes from 0 to 2'),
    ({'margin': float('nan')}, 'margin is nan'),
    ({'size': 5000}, 'size is 5000'),
    ({'min_size': 0}, 'min_size is 0'),
    ({'min_score': 1.5}, 'min_score is 1.5'),
    ({'method': 'yunet'}, 'SHA-256'),
  ],
)
def test_a_recipe_that_cannot_be(fields, words):
  with pytest.raises(ConfigError, match=re.escape(words)):
    CropRecipe(**{'method': 'box', **fields})


def test_a_recipe_is_recorded_with_all_that_decides():
  record = CropRecipe('yunet', margin=0.5, size=224, model_sha256='ab').record()
  assert record['margin'] == 0.5 and record['size'] == 224 and record['model_sha256'] == 'ab'
  assert record['opencv'] == cv2.__version__ and 'largest' in record['several_faces']
  assert 'model_sha256' not in BOX.record()


# Faces that are named.


def columns(*names, **cells):
  return {**dict.fromkeys(names, ''), **{name: str(value) for name, value in cells.items()}}


def eyes_at(x0, y0, x1, y1, **more):
  return columns(**dict(zip(face_crop.EYES, (x0, y0, x1, y1), strict=True)), **more)


def test_a_box_in_pixels_becomes_fractions():
  box = columns(left=20, top=10.5, right=60, bottom=50)
  assert face_crop.face_from_columns(box, SIZE, BOX) == Face((0.1, 0.105, 0.3, 0.5))
  with_eyes = box | eyes_at(50, 20, 30, 22)
  # Left and right as the picture has them, whatever the columns mean.
  assert face_crop.face_from_columns(with_eyes, SIZE, EYES).eyes == ((0.15, 0.22), (0.25, 0.2))


def test_a_box_about_landmarks():
  recipe = CropRecipe('landmarks')
  # Eyes 40 apart about (100, 40): a side of 96, its middle 0.58 * 40 below.
  found = face_crop.face_from_columns(eyes_at(80, 40, 120, 40), SIZE, recipe)
  assert found.box == pytest.approx((52 / 200, 15.2 / 100, 148 / 200, 111.2 / 100))
  # On its side: below is to the left of eyes that go downwards.
  found = face_crop.face_from_columns(eyes_at(100, 30, 100, 70), SIZE, recipe)
  assert found.box == pytest.approx((28.8 / 200, 2 / 100, 124.8 / 200, 98 / 100))
  # Turned away, the eyes 10 apart: the mouth, 40 below, gives the side 82.8, its middle 20 below.
  mouth = {'mouth_left_x': 97, 'mouth_left_y': 80, 'mouth_right_x': 103, 'mouth_right_y': 80}
  found = face_crop.face_from_columns(eyes_at(95, 40, 105, 40, **mouth), SIZE, recipe)
  assert found.box == pytest.approx((58.6 / 200, 18.6 / 100, 141.4 / 200, 101.4 / 100))
  # Columns of mouths that are empty are as none.
  empty = eyes_at(80, 40, 120, 40) | columns(*face_crop.MOUTH)
  assert face_crop.face_from_columns(empty, SIZE, recipe) == face_crop.face_from_columns(
    eyes_at(80, 40, 120, 40), SIZE, recipe
  )


@pytest.mark.parametrize(
  'cells, recipe, error, words',
  [
    ({}, BOX, ValueError, 'no column left'),
    (columns(*face_crop.BOX), BOX, NoFace, 'none is named'),
    (columns(left=1, top=1, right='', bottom=5), BOX, NoFace, 'none is named'),
    (columns(left=1, top=1, right='x', bottom=5), BOX, ValueError, '1,1,x,5'),
    (columns(left=1, top=1, right='inf', bottom=5), BOX, ValueError, 'no numbers'),
    (columns(left=5, top=1, right=5, bottom=5), BOX, ValueError, 'no inside'),
    (columns(left=1, top=1, right=5, bottom=0), BOX, ValueError, 'no inside'),
    (columns(left=1, top=1, right=5, bottom=5), EYES, ValueError, 'no column left_eye_x'),
    (eyes_at(5, 5, 5, 5), CropRecipe('landmarks'), ValueError, 'at one place'),
    (
      eyes_at(5, 5, 9, 5, mouth_left_x=4),
      CropRecipe('landmarks'),
      ValueError,
      'no column mouth_left_y',
    ),
  ],
)
def test_a_face_that_is_not_named_well(cells, recipe, error, words):
  with pytest.raises(error, match=words):
    face_crop.face_from_columns(cells, SIZE, recipe)


# Which face.


def test_the_largest_face_is_chosen_and_the_most_central_of_equals():
  small, large = face(80, 30, 120, 70), face(0, 10, 70, 80)
  assert face_crop.choose([small, large], SIZE, BOX) == large
  off, centre = face(0, 0, 50, 50), face(76, 25, 125, 75)  # as large but for 2 %
  assert face_crop.choose([off, centre], SIZE, BOX) == centre
  assert face_crop.choose([face(0, 0, 53, 53), face(76, 25, 125, 75)], SIZE, BOX).box[0] == 0


@pytest.mark.parametrize(
  'found, words',
  [
    ([], 'none was found'),
    ([face(50, 50, 70, 80)], '30 pixels along its longer side, and 32 are due'),
    ([face(-30, 0, 70, 80)], '70% of its box is in the image'),
    ([face(300, 0, 370, 80)], '0% of its box'),
    # Nor is a bystander taken in the place of who is too near.
    ([face(50, 50, 90, 90), face(100, -60, 200, 70)], '54% of its box'),
  ],
)
def test_no_face_that_can_be_used(found, words):
  with pytest.raises(NoFace, match=words):
    face_crop.choose(found, SIZE, BOX)


def test_a_face_may_leave_the_picture_a_little():
  assert face_crop.choose([face(-10, 0, 70, 80)], SIZE, BOX)


# The crop.


def test_pixels_are_copied_and_modalities_stay_registered():
  images = triplet()
  before = {modality: image.copy() for modality, image in images.items()}
  cut = face_crop.crop(images, face(40, 20, 88, 60), BOX)  # 48 x 40: the square is 48, 16 to 64
  np.testing.assert_array_equal(cut['rgb'], images['rgb'][16:64, 40:88])
  np.testing.assert_array_equal(cut['depth'], images['depth'][8:32, 20:44])
  np.testing.assert_array_equal(cut['ir'], images['ir'][8:32, 20:44])
  assert cut['depth'].dtype == np.uint16 and cut['depth'].shape == (24, 24, 1)
  for modality, image in images.items():  # nothing was drawn into
    np.testing.assert_array_equal(image, before[modality])


def test_the_margin_is_a_share_of_the_box_on_each_side():
  images = triplet()
  cut = face_crop.crop(images, face(80, 30, 120, 70), CropRecipe('box', margin=0.25))
  np.testing.assert_array_equal(cut['rgb'], images['rgb'][20:80, 70:130])
  np.testing.assert_array_equal(cut['ir'], images['ir'][10:40, 35:65])


def test_outside_the_picture_nothing_is_measured():
  images = triplet()
  cut = face_crop.crop(images, face(-10, 60, 50, 120), BOX)
  assert cut['rgb'].shape == (60, 60, 3) and cut['depth'].shape == (30, 30, 1)
  np.testing.assert_array_equal(cut['rgb'][:40, 10:], images['rgb'][60:, :50])
  np.testing.assert_array_equal(cut['depth'][:20, 5:], images['depth'][30:, :25])
  for image in cut.values():
    edge = image.shape[0] // 6
    assert not image[:, :edge].any() and not image[4 * edge :].any()


def test_without_rgb_the_first_modality_is_the_measure():
  images = triplet()
  del images['rgb']
  assert face_crop.reference_modality(images) == 'depth' and face_crop.reference_size(images) == (
    100,
    50,
  )
  cut = face_crop.crop(images, face(10, 10, 30, 30, size=(100, 50)), BOX)
  np.testing.assert_array_equal(cut['ir'], images['ir'][10:30, 10:30])


def test_eyes_that_are_upright_already_change_nothing():
  images, level = triplet(), ((100, 40), (140, 40))
  plain = face_crop.crop(images, face(80, 20, 160, 80), BOX)
  aligned = face_crop.crop(images, face(80, 20, 160, 80, level), EYES)
  for modality in images:
    np.testing.assert_array_equal(aligned[modality], plain[modality])


@pytest.mark.parametrize('eyes, turns', [(((60, 30), (60, 50)), 1), (((60, 50), (60, 30)), -1)])
def test_a_quarter_turn_moves_every_pixel_to_its_place(eyes, turns):
  images = triplet()
  cut = face_crop.crop(images, face(40, 20, 80, 60, eyes), EYES)
  for modality, image in images.items():
    step = 1 if modality == 'rgb' else 2
    window = image[20 // step : 60 // step, 40 // step : 80 // step]
    np.testing.assert_array_equal(cut[modality], np.rot90(window, turns), err_msg=modality)


def test_eyes_are_level_in_all_modalities():
  """Lamps at the eyes, 30 degrees off: level after it, as far apart, at the same fractions."""
  middle, apart, angle = np.array([240.0, 200.0]), 80, np.deg2rad(30)
  step = apart / 2 * np.array([np.cos(angle), np.sin(angle)])
  eyes = tuple(middle - step), tuple(middle + step)
  images = {'rgb': np.zeros((400, 480, 3), np.uint8), 'depth': np.zeros((200, 240, 1), np.uint16)}
  for modality, high, shrunk in (('rgb', 255, 1), ('depth', 9000, 2)):
    for x, y in eyes:
      place = round(x / shrunk), round(y / shrunk)
      cv2.circle(images[modality], place, 6 // shrunk, (high,) * 3, -1)
  seen = face(140, 100, 340, 300, eyes, size=(480, 400))
  cut = face_crop.crop(images, seen, EYES)
  for image, side in ((cut['rgb'], 200), (cut['depth'], 100)):
    assert image.shape[:2] == (side, side)
    bright = (image[..., 0] > 200).astype(np.uint8)
    n, _, _, centres = cv2.connectedComponentsWithStats(bright)
    assert n == 3
    (x0, y0), (x1, y1) = (np.array(sorted(map(tuple, centres[1:]))) + 0.5) / side
    assert abs(y0 - y1) < 0.01 and y0 == pytest.approx(0.5, abs=0.01)
    assert x1 - x0 == pytest.approx(apart / 200, abs=0.01)
    assert (x0 + x1) / 2 == pytest.approx(0.5, abs=0.01)
  assert set(np.unique(cut['depth'])) == {0, 9000}  # no distance between the two was made up


def test_depth_is_never_mixed_and_rgb_is_averaged():
  images = triplet()
  values = set(np.unique(images['depth']).tolist()) | {0}
  tilted = face(40, 20, 88, 68, ((50, 30), (80, 40)))
  for size in (0, 16, 64):
    recipe = CropRecipe('box', margin=0.3, align='eyes', size=size)
    cut = face_crop.crop(images, tilted, recipe)
    assert set(np.unique(cut['depth']).tolist()) <= values
    if size:
      assert all(image.shape[:2] == (size, size) for image in cut.values())
  third = face_crop.crop(images, face(40, 20, 88, 68), CropRecipe('box', margin=0.0, size=16))[
    'rgb'
  ]
  blocks = images['rgb'][20:68, 40:88].reshape(16, 3, 16, 3, 3).mean((1, 3))
  assert np.abs(third - blocks).max() <= 1


def test_a_crop_made_smaller_stays_registered():
  """Nearest takes the middle of what it stands for, not its first pixel."""
  ramp = np.arange(240, dtype=np.uint16)[None, :, None] * np.ones((240, 1, 1), np.uint16)
  images = {'rgb': np.repeat(ramp.astype(np.uint8), 3, -1), 'depth': ramp}
  whole = face(0, 0, 240, 240, size=(240, 240))
  cut = face_crop.crop(images, whole, CropRecipe('box', margin=0.0, size=48))
  np.testing.assert_array_equal(cut['depth'][0, :, 0], np.arange(48) * 5 + 2)
  np.testing.assert_array_equal(cut['depth'], cut['rgb'][..., :1])


def test_no_alignment_without_eyes():
  with pytest.raises(NoFace, match='eyes are not known'):
    face_crop.crop(triplet(), face(40, 20, 80, 60), EYES)


# The detector: a graph with YuNet's outputs, run by OpenCV as YuNet is.


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
  pytest.importorskip('onnx', reason='the stand-in for YuNet is written with it')
  path = tmp_path_factory.mktemp('yunet') / 'squares.onnx'
  return str(path), manifest.write_detector(path, tilt=6)


def squares(*places, size=(160, 120)):
  """White squares, at places that the graph looks at: 4 and a multiple of 8."""
  image = np.zeros((size[1], size[0], 3), np.uint8)
  for left, top in places:
    image[top : top + 48, left : left + 48] = 255
  return image


def test_faces_are_detected_where_they_are(detector):
  model = face_crop.load_yunet(*detector)
  (found,) = face_crop.detect_yunet(model, squares((28, 36)))
  assert found.box == pytest.approx((28 / 160, 36 / 120, 76 / 160, 84 / 120))
  # The middle is at 52, 60; the eyes 12 beside it, 8 above, the right one 6 lower.
  assert found.eyes == (pytest.approx((40 / 160, 46 / 120)), pytest.approx((64 / 160, 58 / 120)))
  assert 0.6 < found.score <= 1
  assert len(face_crop.detect_yunet(model, squares((12, 4), (100, 60)))) == 2
  assert face_crop.detect_yunet(model, squares()) == []


def test_infrared_alone_will_do(detector):
  model = face_crop.load_yunet(*detector)
  (one,) = face_crop.detect_yunet(model, squares((28, 36))[..., :1])
  (sixteen,) = face_crop.detect_yunet(model, squares((28, 36))[..., :1].astype(np.uint16) * 8)
  assert one == sixteen and one.box[0] == pytest.approx(28 / 160)


def test_large_pictures_are_made_smaller_for_the_detector(detector):
  model = face_crop.load_yunet(*detector)
  image = np.zeros((960, 1280, 3), np.uint8)
  image[248:344, 488:584] = 255  # 96 pixels, which become 48
  (found,) = face_crop.detect_yunet(model, image)
  assert found.box == pytest.approx((488 / 1280, 248 / 960, 584 / 1280, 344 / 960))


def test_the_score_is_asked_for_each_time(detector):
  model, image = face_crop.load_yunet(*detector), squares((28, 36))
  score = face_crop.detect_yunet(model, image)[0].score
  assert not face_crop.detect_yunet(model, image // 4 * 3, min_score=0.6)
  assert not face_crop.detect_yunet(model, image, min_score=min(1.0, score + 1e-3))
  assert face_crop.detect_yunet(model, image, min_score=score - 1e-3)


def test_the_detector_levels_eyes(detector):
  model = face_crop.load_yunet(*detector)
  images = {'rgb': squares((60, 36))}
  recipe = CropRecipe('yunet', align='eyes', model_sha256=detector[1])
  found = face_crop.choose(face_crop.detect_yunet(model, images['rgb']), (160, 120), recipe)
  cut = face_crop.crop(images, found, recipe)['rgb'][..., 0] > 127
  # The white square, turned by the angle of 24 across and 12 down.
  angle = cv2.minAreaRect(np.argwhere(cut)[:, ::-1].astype(np.float32))[-1]
  assert min(angle % 90, 90 - angle % 90) == pytest.approx(np.rad2deg(np.arctan2(12, 24)), abs=1.5)


def test_a_model_of_other_bytes_is_refused(detector, tmp_path):
  path, sha256 = detector
  with pytest.raises(DataError) as caught:
    face_crop.load_yunet(path, 'ab' * 32)
  assert sha256 in str(caught.value) and 'ab' * 32 in str(caught.value)
  assert face_crop.load_yunet(path, sha256.upper())
  with pytest.raises(DataError, match='cannot be read: No such file'):
    face_crop.load_yunet(str(tmp_path / 'none.onnx'), sha256)


def test_a_model_that_is_no_regular_file_is_refused():
  with pytest.raises(DataError, match='/dev/zero cannot be read: it is a device'):
    face_crop.load_yunet('/dev/zero', 'ab' * 32)


def test_what_is_not_yunet_is_refused(tmp_path):
  path = tmp_path / 'page.onnx'
  path.write_bytes(b'<!doctype html>')
  with pytest.raises(DataError, match='page.onnx is not a YuNet that OpenCV'):
    face_crop.load_yunet(str(path), hashlib.sha256(path.read_bytes()).hexdigest())
