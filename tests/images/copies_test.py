"""Copies of one modality as another, changed in the ways that are easiest, and genuine triplets."""

import itertools

import cv2
import numpy as np
import pytest

from flexfas_jax.images import copies
from flexfas_jax.images.checks import inspect, inspect_arrays
from tests.miniatures import faces

SIZE = 112


def shift(image):
  """By 1 % of both sides."""
  return cv2.warpAffine(
    image,
    np.float32([[1, 0, 0.01 * SIZE], [0, 1, 0.01 * SIZE]]),
    (SIZE, SIZE),
    borderMode=cv2.BORDER_REPLICATE,
  )


def jpeg(image):
  encoded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
  return cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)


CHANGES = {
  'none': lambda grey, rgb: grey,
  'mirrored': lambda grey, rgb: np.ascontiguousarray(grey[:, ::-1]),
  'negative': lambda grey, rgb: 255 - grey,
  'red': lambda grey, rgb: np.ascontiguousarray(rgb[..., 0]),
  'gamma 0.6': lambda grey, rgb: np.rint(255 * (grey / 255) ** 0.6).astype(np.uint8),
  'equalised': lambda grey, rgb: cv2.equalizeHist(grey),
  'shifted': lambda grey, rgb: shift(grey),
  'JPEG q50': lambda grey, rgb: jpeg(grey),
  'in three channels': lambda grey, rgb: np.repeat(shift(grey)[..., None], 3, 2),
  'in 16 bits': lambda grey, rgb: cv2.equalizeHist(grey).astype(np.uint16) * 16 + 500,
  'in another size': lambda grey, rgb: cv2.resize(255 - grey, (80, 80)),
}


@pytest.mark.parametrize('modality', ['depth', 'ir'])
@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('category', ['', 'print', 'replay', 'cut_photo', 'rigidmask'])
def test_a_changed_copy_of_rgb_is_detected(category, change, modality):
  triplet = faces.triplet(category, size=SIZE)
  rgb = triplet['rgb']
  copy = CHANGES[change](cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), rgb)
  (found,) = (
    text
    for rule, text in inspect_arrays({**triplet, modality: copy})
    if rule == 'same-image' and ' of rgb' in text
  )
  assert found.startswith(f'{modality} is a copy of rgb (')


def test_infrared_is_no_depth():
  triplet = faces.triplet(size=SIZE)
  found = inspect_arrays({**triplet, 'depth': cv2.equalizeHist(255 - triplet['ir'])})
  assert [rule for rule, _ in found] == ['same-image']
  assert found[0][1].startswith('ir is a copy of depth (mirrored, shifted or in other tones')


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('size', [48, 64, 112, 224])
@pytest.mark.parametrize(
  'category', ['', 'cut_photo', 'print', 'replay', 'papermask', 'rigidmask', 'flexiblemask']
)
def test_genuine_triplets_are_no_copies(category, size, bits):
  for person in range(3):
    triplet = faces.triplet(category, person, size=size, depth_bits=bits)
    encoded = {m: faces.encode(i, '.png' if m == 'depth' else '.jpg') for m, i in triplet.items()}
    assert [p for p in inspect(encoded) if p[0] == 'same-image'] == []


def test_smooth_gradients_are_no_copies():
  """A tilted print and infrared that falls off to one side, each with its own noise."""
  rng = np.random.default_rng(0)
  slope = np.linspace(0, 1, SIZE)[None].repeat(SIZE, 0)
  noise = rng.normal(0, 2, (2, *slope.shape))
  a, b = (
    (60 + 120 * slope**power + n).astype(np.uint8) for power, n in zip((1, 2), noise, strict=True)
  )
  structure, detail = copies.similarity(copies.fingerprint(a), copies.fingerprint(b))
  assert structure > copies.STRUCTURE and detail < 0.6
  assert copies.describe(copies.fingerprint(a), copies.fingerprint(b)) == ''


def test_the_similarity_of_an_image_with_itself_and_with_noise():
  rng = np.random.default_rng(0)
  one, other = (rng.integers(0, 256, (SIZE, SIZE), np.uint8) for _ in range(2))
  assert copies.similarity(copies.fingerprint(one), copies.fingerprint(one)) == pytest.approx(
    (1, 1)
  )
  assert max(copies.similarity(copies.fingerprint(one), copies.fingerprint(other))) < 0.5


def test_what_has_no_window_is_compared_as_a_whole():
  """Small images, and images whose face window has one value."""
  small = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
  assert copies.fingerprint(small).windows == ()
  assert copies.similarity(copies.fingerprint(small), copies.fingerprint(small)) == (0, 0)
  assert (
    copies.describe(copies.fingerprint(small), copies.fingerprint(small)) == 'correlation 1.00000'
  )
  framed = np.full((SIZE, SIZE), 90, np.uint8)
  framed[:20] = 200
  assert copies.fingerprint(framed).windows == ()
  assert (
    copies.describe(copies.fingerprint(framed), copies.fingerprint(framed)) == 'correlation 1.00000'
  )
  assert copies.describe(copies.fingerprint(framed), copies.fingerprint(small)) == ''


@pytest.mark.parametrize('category', ['', 'cut_photo', 'print'])
def test_blocks_bound_every_correlation(category):
  """What is not compared because of its bound cannot be a copy; most genuine pairs are not."""
  looks = [copies.fingerprint(image) for image in faces.triplet(category, size=SIZE).values()]
  looks.append(copies.fingerprint(shift(faces.triplet(category, size=SIZE)['rgb'])[:, ::-1]))
  below = 0
  for one, other in itertools.product(looks, looks):
    bounds = copies._bounds(one.blocks, other.blocks[0])
    assert bounds.shape == (2, len(one.windows))
    structure, _ = copies.similarity(one, other)
    assert structure <= bounds.max() + 1e-5
    below += (most := bounds.max()) < copies.STRUCTURE - 0.01
    if most < copies.STRUCTURE - 0.01:
      assert copies.similarity(one, other, copies.STRUCTURE) == (0, 0)
    if structure > copies.STRUCTURE:
      assert copies.similarity(one, other, copies.STRUCTURE) == copies.similarity(one, other)
  assert below >= 3


def test_a_window_of_which_a_part_is_constant_has_no_bound():
  """There OpenCV decides what a correlation is, and only it."""
  image = np.full((SIZE, SIZE), 90, np.uint8)
  image[30:33, 30:33] = 200
  one = copies.fingerprint(image)
  assert np.isnan(one.blocks).any()
  assert np.isnan(copies._bounds(one.blocks, one.blocks[0])).all()
  assert copies.describe(one, one) == 'correlation 1.00000'
