"""Units of depth and 16-bit infrared: statement, conversion and checks.

In this package 16-bit depth is distance in millimetres, 0 is "not measured", and 16-bit infrared
uses the full scale. A sensor that writes tenths of a millimetre, or 10 bits in a 16-bit file, would
show a face ten times as deep, or black. So the unit is stated (`Units`) and converted when an image
is read, or the image is refused with its numbers.

The limits come from 3,224 rendered triplets (1,656 with depth in mm), face crops:

  statistic                                     smallest      largest
  infrared, quantile 99.9 % of full scale       7.5 %         100 %    (where it carries signal)
  infrared, at the maximum in the face window   0             75 %     (attacks; bona fide: 0)
  depth, median of the face window              230 mm        859 mm
  depth, relief of bona fide face windows       9 mm         28 mm     (interquartile range)
  depth, relief of attacks                      0 mm         39 mm

Tenths of a millimetre make these distances 2,300 to 8,590 and the relief 90 to 280, quarters 920 to
3,436 and 36 to 112. Relief alone is no error: in a crop 1.4 times as wide the window of 41 % of 720
bona fide faces includes background and exceeds 50 mm. Both together are an error if no unit is
stated: 0 of 1,656 images in mm, and 719 of the 720 faces in quarters of a mm.
"""

import re
from typing import NamedTuple

import numpy as np

from flexfas_jax import schema
from flexfas_jax.errors import ConfigError

NEAREST, FARTHEST = 50, 5_000  # mm: where the middle of a face's depth can be
FARTHEST_STATED = 20_000  # mm: the same where the unit is stated, or the image is a whole frame
FACE_RELIEF = 50  # mm: above the relief of a face window
FAR = 1_500  # mm: where a face of more relief, or with its background, is not expected
DARKEST = 1 / 16  # of full scale, which 12 bits in a 16-bit file reach: a bright quantile below it
UNMEASURED = 65535  # what many sensors write where they measure nothing
_BRIGHT = 0.999  # the quantile: single hot pixels count for nothing
_ODD_SHARE = 0.001  # of the pixels, at most, may be `UNMEASURED` by chance
IR_BITS = (8, 10, 12, 14, 16)
_LARGEST = 65535  # what 16 bits hold
_METRE = 1000  # mm


class Units(NamedTuple):
  """The units of 16-bit values, as stated by the user.

  Attributes:
    depth: millimetres of one step, or of 1.0 in floating point; 0: not stated. Then 16 bits
      are read as mm and checked, and floating point is refused.
    ir_bits: significant bits of infrared and other intensities, of `IR_BITS`; 0: not stated.
      Then they are read as 16 and checked. 16 states that dark images are dark.
  """

  depth: float = 0.0
  ir_bits: int = 0


def parse(depth_unit: str = '', ir_bits: str = '') -> Units:
  """Parses units of a command line.

  Args:
    depth_unit: 'm' of floating point, 'mm', or the millimetres of one step and mm: '0.1mm',
      '0.25mm'; '': not stated.
    ir_bits: one of `IR_BITS`; '': not stated.

  Raises:
    ConfigError: another text.
  """
  step = float(_METRE) if depth_unit == 'm' else 0.0
  if depth_unit and not step:
    found = re.fullmatch(r'([0-9]{0,4}(\.[0-9]{1,6})?)mm', depth_unit, re.ASCII)
    step = float(found[1] or 1) if found and found[1] != '.' else 0.0
    if not 0 < step <= 1000:
      raise ConfigError(
        f'depth_unit is {depth_unit!r}; write m (floating point), mm, or the millimetres of one '
        'step up to 1000: 0.1mm, 0.25mm, 0.125mm. Disparity is not read: depth in mm is focal '
        'length in pixels x baseline in mm / disparity'
      )
  if ir_bits and ir_bits not in map(str, IR_BITS):
    raise ConfigError(f'ir_bits is {ir_bits!r}; choose one of {", ".join(map(str, IR_BITS))}')
  return Units(step, int(ir_bits or 0))


def after_conversion(units: Units) -> Units:
  """The units of images after conversion: stated where `units` are stated."""
  return Units(1.0 if units.depth else 0.0, 16 if units.ir_bits else 0)


def convert(image: np.ndarray, modality: str, units: Units | None) -> np.ndarray:
  """Converts 16-bit depth to millimetres and 16-bit infrared to full scale; else no change.

  If a depth unit is stated, 65535 becomes 0, "not measured"; so do floating point values that are
  NaN, infinite, 0 or negative.

  Args:
    image: [h, w] or [h, w, C] uint8, uint16 or, of depth, floating point.
    modality: one of `schema.MODALITIES`.
    units: of the image; None: unknown, no conversion.

  Raises:
    ValueError: values that the stated unit cannot have; floating point without a unit.
  """
  if image.dtype.kind == 'f':
    return _convert_floats(image, modality, units)
  if image.dtype != np.uint16 or units is None:
    return image
  if schema.is_distance(modality) and units.depth:
    image = np.where(image == UNMEASURED, np.uint16(0), image)
    if units.depth == 1:
      return image
    scaled = np.rint(image * units.depth)
    if scaled.max() > _LARGEST:
      raise ValueError(f'has up to {scaled.max():g} mm at {units.depth:g} mm a step, more than 16 '
                       f'bits hold ({_LARGEST})')  # fmt: skip
    if units.depth == _METRE:
      raise ValueError('has whole numbers, which in metres are no face: depth_unit=mm?')
    return scaled.astype(np.uint16)
  if schema.is_intensity(modality) and units.ir_bits not in (0, 16):
    largest = 2**units.ir_bits - 1
    if (high := int(image.max())) > largest:
      raise ValueError(f'has values up to {high}, and {units.ir_bits} bits hold {largest}: '
                       'another ir_bits')  # fmt: skip
    return np.rint(image * (_LARGEST / largest)).astype(np.uint16)
  return image


def _convert_floats(image: np.ndarray, modality: str, units: Units | None) -> np.ndarray:
  """Converts floating point depth to millimetres, uint16."""
  if not schema.is_distance(modality):
    raise ValueError('is floating point, which only depth may be')
  measured = image[np.isfinite(image) & (image > 0)]
  if units is None or not units.depth:
    middle = f' (median {np.median(measured):.3g})' if measured.size else ''
    raise ValueError(f'is floating point{middle}, and its unit is not stated: depth_unit=m or mm')
  # In float64: of float32, large values would overflow.
  measured = np.where(np.isfinite(image) & (image > 0), image, 0).astype(float)
  scaled = np.rint(measured * units.depth)
  if scaled.max() > _LARGEST:
    unit = _unit_name(units)
    raise ValueError(
      f'has up to {scaled.max():g} mm with depth_unit={unit}, more than 16 bits hold ({_LARGEST})'
    )
  return np.where(scaled == UNMEASURED, 0, scaled).astype(np.uint16)


def _unit_name(units: Units) -> str:
  return {1: 'mm', _METRE: 'm'}.get(units.depth, f'{units.depth:g}mm')


def find_problem(image: np.ndarray, modality: str, units: Units | None, frame: bool = False) -> str:
  """Describes values that are implausible for a modality, with numbers and the way out; or ''.

  Args:
    image: [h, w] or [h, w, C] uint8 or uint16, converted, with signal.
    modality: one of `schema.MODALITIES`.
    units: with which it was converted; None: unknown, no check.
    frame: whether it is a whole frame, not a face crop.
  """
  if image.dtype != np.uint16 or units is None:
    return ''
  if schema.is_distance(modality):
    return _depth_problem(image, units, frame)
  if schema.is_intensity(modality) and not units.ir_bits:
    return _ir_problem(image)
  return ''


def _depth_problem(image: np.ndarray, units: Units, frame: bool) -> str:
  """Describes 16-bit depth that is not in mm; or ''."""
  if not units.depth and (n := np.count_nonzero(image == UNMEASURED)) > _ODD_SHARE * image.size:
    return (
      f'has {n / image.size:.1%} of its pixels at {UNMEASURED}, which is no distance, and 0 is due '
      'where nothing is measured; depth_unit=mm reads both as not measured'
    )
  high, (middle, relief) = int(image.max()), distance_and_relief(image, frame)
  if high <= 255 and not units.depth:
    return f'has 16 bits and no value above {high}: 8-bit values, or metres, not mm'
  farthest = FARTHEST_STATED if frame or units.depth else FARTHEST
  deep = not (frame or units.depth) and middle > FAR and relief > FACE_RELIEF
  if NEAREST <= middle <= farthest and not deep:
    return ''
  limits = f'{NEAREST} to {farthest}'
  if farthest == FARTHEST:
    limits += f'; from {FAR} on with a relief of up to {FACE_RELIEF}'
  return (
    f'has a median of {middle:g} and a relief of {relief:g} (5 to 95 % of the pixels: '
    f'{" to ".join(f"{q:g}" for q in _quantiles(image))}), which in mm is no face ({limits}); '
    'state another unit, e.g. depth_unit=0.1mm or 0.25mm, or depth_unit=mm for up to '
    f'{FARTHEST_STATED}'
  )


def _ir_problem(image: np.ndarray) -> str:
  """Describes 16-bit infrared that uses its lowest bits only; or ''."""
  bits = guess_bits(image)
  if not bits:
    return ''
  bright = _bright(image)
  return (
    f'has 16 bits and {_BRIGHT:.1%} of its pixels at {bright} or less ({bright / _LARGEST:.1%} of '
    f'full scale; median {int(np.median(image))}): {bits} bits in 16? State it with ir_bits='
    f'{bits}, or with ir_bits=16 that the image is dark'
  )


def guess_bits(image: np.ndarray) -> int:
  """The significant bits, of `IR_BITS`, of a dark 16-bit infrared image; 0 if it is not dark."""
  bright = _bright(image)
  if bright >= DARKEST * _LARGEST:
    return 0
  return next(bits for bits in IR_BITS if bright < 2**bits)


def _bright(image: np.ndarray) -> int:
  place = int(_BRIGHT * (image.size - 1))
  return int(np.partition(image.ravel(), place)[place])


def distance_and_relief(image: np.ndarray, frame: bool = False) -> tuple[float, float]:
  """Median and interquartile range of measured depth, in the units of the image.

  Args:
    image: [h, w] or [h, w, 1] depth, 0 not measured.
    frame: use the whole image; else the face window (the central half), or the whole image if
      nothing is measured in the window.

  Returns:
    Both; (0, 0) if nothing is measured.
  """
  h, w = image.shape[:2]
  window = image if frame else image[h // 4 : h - h // 4, w // 4 : w - w // 4]
  measured = window[window > 0]
  measured = measured if measured.size else image[image > 0]
  if not measured.size:
    return 0.0, 0.0
  low, middle, high = np.quantile(measured, [0.25, 0.5, 0.75])
  return float(middle), float(high - low)


def _quantiles(image: np.ndarray) -> list[float]:
  measured = image[image > 0]
  return [float(q) for q in np.quantile(measured, [0.05, 0.95])]
