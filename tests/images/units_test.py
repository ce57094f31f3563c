"""Units of 16-bit images: what is converted, and what is recognised without being stated."""

import numpy as np
import pytest

from flexfas_jax.errors import ConfigError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.images import units
from flexfas_jax.images.units import Units, convert, find_problem, parse
from tests.miniatures import faces

DEPTH = faces.triplet('', 1, 1, 64, depth_bits=16)['depth']  # mm, [64, 64]
IR8 = faces.triplet('', 1, 1, 64, depth_bits=16)['ir']
IR = IR8.astype(np.uint16) * 257


def of_bits(bits):
  """The infrared image as a sensor of some bits writes it into 16."""
  return (IR >> (16 - bits)).astype(np.uint16)


@pytest.mark.parametrize(
  ('text', 'step'),
  [('', 0), ('mm', 1), ('0.1mm', 0.1), ('.25mm', 0.25), ('1000mm', 1000), ('m', 1000)],
)
def test_units_are_parsed(text, step):
  assert parse(text).depth == step


@pytest.mark.parametrize(
  'text',
  ['M', '0m', '0mm', '-1mm', 'nanmm', '1e3mm', '0.1', '0.1 mm', '.mm', '٣mm', '2000mm', 'cm'],
)
def test_units_that_cannot_be(text):
  with pytest.raises(ConfigError, match='depth_unit is'):
    parse(text)
  with pytest.raises(ConfigError, match='ir_bits is'):
    parse('', '11')


@pytest.mark.parametrize('bits', [8, 10, 12, 14])
def test_infrared_becomes_full_scale(bits):
  got = convert(of_bits(bits), 'ir', parse('', str(bits)))
  largest = 2**bits - 1
  assert got.dtype == np.uint16
  np.testing.assert_array_equal(got, np.rint(of_bits(bits) / largest * 65535))
  assert np.abs(got.astype(int) - IR).max() <= 65536 >> bits
  above = of_bits(bits).copy()
  above[3, 4] = largest + 1
  with pytest.raises(ValueError, match=f'up to {largest + 1}, and {bits} bits hold {largest}'):
    convert(above, 'ir', parse('', str(bits)))


@pytest.mark.parametrize('step', [0.1, 0.25, 0.125, 2.0])
def test_depth_becomes_millimetres(step):
  raw = np.rint(DEPTH / step).astype(np.uint16)
  raw[:5, :5] = 65535
  got = convert(raw, 'depth', Units(step))
  want = DEPTH.copy()
  want[:5, :5] = 0
  assert np.abs(got.astype(int) - want).max() <= step / 2
  np.testing.assert_array_equal(got == 0, want == 0)
  with pytest.raises(ValueError, match='more than 16 bits hold'):
    convert(raw, 'depth', Units(1000.0))


@pytest.mark.parametrize('dtype', ['f2', 'f4', 'f8'])
def test_metres_become_millimetres(dtype):
  metres = (DEPTH / 1000).astype(dtype)
  metres[0, :5] = [np.nan, np.inf, -np.inf, -1, 65.535 if dtype != 'f2' else 0]
  got = convert(metres, 'depth', parse('m'))
  want = np.rint(metres.astype(float) * 1000)
  want[0, :5] = 0
  assert got.dtype == np.uint16
  np.testing.assert_array_equal(got, want)
  if dtype != 'f2':
    np.testing.assert_array_equal(got[1:], DEPTH[1:])
    np.testing.assert_array_equal(convert(metres * 1000, 'depth', parse('mm'))[1:], DEPTH[1:])
  assert convert(np.full((4, 4), np.nan, dtype), 'depth', parse('m')).max() == 0


def test_floating_point_that_cannot_be():
  metres = DEPTH.astype(np.float32) / 1000
  for modality in ('rgb', 'ir'):
    with pytest.raises(ValueError, match='floating point, which only depth may be'):
      convert(metres, modality, parse('m'))
  for unit in (Units(), None):
    with pytest.raises(ValueError, match=r'floating point \(median 0\.\d+\), .*depth_unit=m or mm'):
      convert(metres, 'depth', unit)
  with pytest.raises(ValueError, match='with depth_unit=m, more than 16 bits hold'):
    convert(metres * 1000, 'depth', parse('m'))
  with pytest.raises(ValueError, match='more than 16 bits hold'):
    convert(np.full((4, 4), 3e38, np.float32), 'depth', parse('m'))
  assert 'in mm is no face' in find_problem(
    convert(metres, 'depth', parse('mm')), 'depth', Units(1.0)
  )
  with pytest.raises(ValueError, match='whole numbers, which in metres are no face'):
    convert(np.ones((4, 4), np.uint16), 'depth', parse('m'))


def test_disparity_is_named():
  with pytest.raises(ConfigError, match=r'Disparity is not read: .*focal length.*baseline'):
    parse('disparity')


@pytest.mark.parametrize('step', [0.25, 0.125, 0.1])
def test_smaller_steps_are_recognised(step):
  """A face of 20 mm of relief at 400 to 800 mm: its steps are deeper and farther than one."""
  rng = np.random.default_rng(0)
  for distance in (400, 500, 800):
    face = distance + rng.normal(0, 15, (64, 64))  # interquartile range 20 mm
    assert find_problem(np.rint(face).astype(np.uint16), 'depth', Units()) == ''
    found = find_problem(np.rint(face / step).astype(np.uint16), 'depth', Units())
    assert 'which in mm is no face' in found and 'depth_unit=mm' in found
    stated = Units(1.0)
    if distance / step < 5_000:
      assert find_problem(np.rint(face / step).astype(np.uint16), 'depth', stated) == ''
      assert (
        find_problem(np.rint(face / step).astype(np.uint16), 'depth', Units(), frame=True) == ''
      )


def test_relief_alone_is_no_error():
  """A crop with much background, or a flat image far away."""
  face = np.full((64, 64), 700, np.uint16)
  face[:, 40:] = 1_400
  assert find_problem(face, 'depth', Units()) == find_problem(face // 2, 'depth', Units()) == ''
  assert find_problem(np.full((64, 64), 3_000, np.uint16), 'depth', Units()) == ''


def test_what_has_no_unit_is_left_alone():
  for image, modality in ((IR8, 'ir'), (IR8, 'depth'), (IR, 'rgb'), (DEPTH, 'depth'), (IR, 'ir')):
    assert convert(image, modality, Units()) is image
    assert convert(image, modality, None) is image
  assert convert(IR8, 'ir', Units(0.1, 10)) is IR8
  assert convert(IR, 'ir', Units(0.1, 16)) is IR
  assert convert(IR, 'depth', Units(0.0, 10)) is IR


@pytest.mark.parametrize('bits', [8, 10, 12])
def test_fewer_bits_are_recognised(bits):
  found = find_problem(of_bits(bits), 'ir', Units())
  assert f'ir_bits={bits},' in found and 'full scale' in found
  hot = of_bits(bits)
  hot[5, 5] = 65535  # one pixel
  assert f'ir_bits={bits},' in find_problem(hot, 'ir', Units())
  assert find_problem(of_bits(bits), 'ir', Units(0, 16)) == ''  # stated
  assert find_problem(of_bits(bits), 'ir', None) == ''
  assert find_problem(convert(of_bits(bits), 'ir', Units(0, bits)), 'ir', Units(0, bits)) == ''


def test_fewer_bits_are_no_darkness_and_darkness_is_no_fewer_bits():
  """Texture of 10 bits is as faint, in 16 bits, as noise is: it is scaled before it is compared."""
  rng = np.random.default_rng(0)
  texture = np.kron(rng.integers(300, 700, (8, 8)), np.ones((8, 8)))
  texture = (texture + rng.normal(0, 300, (64, 64))).clip(0, 1023).astype(np.uint16)
  assert [rule for rule, _ in image_checks.inspect_arrays({'ir': texture})] == ['range']
  stated = image_checks.Rules(units=Units(0, 16))
  assert [rule for rule, _ in image_checks.inspect_arrays({'ir': texture}, stated)] == ['black']
  dark = rng.normal(0, 200, (64, 64)).clip(0).astype(np.uint16)
  assert [rule for rule, _ in image_checks.inspect_arrays({'ir': dark})] == ['black']


def test_infrared_of_full_scale_is_accepted():
  assert find_problem(IR, 'ir', Units()) == find_problem(IR8, 'ir', Units()) == ''
  for dark in (2, 4, 8):  # bona fide at an eighth of its exposure
    assert find_problem((IR // dark).astype(np.uint16), 'ir', Units()) == ''


def test_depth_in_tenths_is_no_face():
  assert find_problem(DEPTH, 'depth', Units()) == ''
  found = find_problem(DEPTH * 10, 'depth', Units())
  middle, relief = units.distance_and_relief(DEPTH * 10)
  assert f'a median of {middle:g} and a relief of {relief:g}' in found
  assert 'depth_unit=0.1mm' in found
  assert find_problem(DEPTH * 10, 'depth', Units(), frame=True) == ''  # a room of 10 m
  assert find_problem(convert(DEPTH * 10, 'depth', Units(0.1)), 'depth', Units(0.1)) == ''
  # Stated as mm: a face that far away. But not at any distance.
  assert find_problem(DEPTH * 10, 'depth', Units(1.0)) == ''
  assert 'no face (50 to 20000)' in find_problem(DEPTH * 40, 'depth', Units(1.0))


def test_65535_is_no_distance():
  holes = DEPTH.copy()
  holes[:8] = 65535
  found = find_problem(holes, 'depth', Units())
  assert 'has 12.5% of its pixels at 65535' in found and 'depth_unit=mm' in found
  assert find_problem(convert(holes, 'depth', Units(1.0)), 'depth', Units(1.0)) == ''
  few = DEPTH.copy()
  few.flat[:4] = 65535  # of 4096
  assert find_problem(few, 'depth', Units()) == ''
  few.flat[:5] = 65535
  assert '65535' in find_problem(few, 'depth', Units())


def test_metres_and_grey_levels_in_16_bits():
  for image in ((DEPTH // 1000).astype(np.uint16), IR8.astype(np.uint16)):
    assert '8-bit values' in find_problem(image, 'depth', Units())


def test_distance_and_relief_are_of_the_face_window():
  image = np.zeros((40, 40), np.uint16)
  image[10:30, 10:30] = np.linspace(500, 540, 400).reshape(20, 20)
  image[0] = 4000
  middle, relief = units.distance_and_relief(image)
  assert (middle, relief) == (pytest.approx(520, abs=1), pytest.approx(20, abs=1))
  assert units.distance_and_relief(image[..., None]) == (middle, relief)
  assert units.distance_and_relief(np.zeros((40, 40), np.uint16)) == (0, 0)
  corner = np.zeros((40, 40), np.uint16)
  corner[0] = 700
  assert units.distance_and_relief(corner) == (700, 0)
