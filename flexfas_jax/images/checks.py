"""Checks that images are whole and of the kind that their column states, before they are stored.

OpenCV and Pillow decode a JPEG with a hole in it without an error: libjpeg reports damage as a
warning and guesses the rest. OpenCV also cuts 16 bits to 8. So every JPEG is decoded here by a
library that turns each warning into an error, and bit depths and ranges are checked.

A JPEG has no check sums. Damage that leaves valid codes for exactly as many blocks as before cannot
be detected in the file: about a third of single wrong bytes that change more than 1 % of the pixels
(experiments/reliability/damaged_jpegs.py). The digests of a manifest detect those.
"""

import dataclasses
import hashlib
import io
import itertools
from collections.abc import Mapping

import cv2
import numpy as np
import simplejpeg
from PIL import PngImagePlugin

from flexfas_jax import schema
from flexfas_jax.images import converted_formats, copies, face_crop, geometry, signal, units
from flexfas_jax.images import files as image_files
from flexfas_jax.images.files import Unreadable
from flexfas_jax.images.units import Units

GREY = 12  # grey levels by which JPEG's chroma may part channels that were equal
ASPECT = 1.05  # by which the aspect ratios of registered images may differ
SIZES = ('any', 'aspect', 'equal')  # how the sizes of a triplet agree
# Of data sets whose images are crops that were made for each modality, and so are not registered.
SIZES_OF = {'casia_surf': 'any', 'casia_cefa': 'any', 'wmca': 'any'}

# Contrast to spread of noise in 16 bits: 0.93 at most (100 images each of five offsets and four
# sizes); of grainy infrared of 10 bits 1.2 at least.
_NOISE = 1.1

Problem = tuple[str, str]  # (a rule of `findings.RULES`, what is wrong)


@dataclasses.dataclass(frozen=True)
class Rules:
  """Requirements on the images of a data set; None and 'any' require nothing.

  Attributes:
    bits: {modality: 8 or 16}. RGB has 8 if it is not listed, other modalities may have either.
    units: of 16-bit depth and infrared. Images are converted before they are checked. None: unknown
      units, no conversion and no check.
    sizes: agreement within a triplet, one of `SIZES`: 'any', 'aspect' (within 5 %), or 'equal'.
    frame: images are whole frames whose faces are cropped later, see `signal.no_signal`.
  """

  bits: Mapping[str, int] = dataclasses.field(default_factory=dict)
  units: Units | None = Units()
  sizes: str = 'any'
  frame: bool = False


def decode(encoded: bytes, max_pixels: int = image_files.MAX_PIXELS) -> np.ndarray:
  """Decodes a whole image to [h, w] or [h, w, C] uint8 or uint16, red first.

  Depth may be floating point, which `units.convert` converts to millimetres.

  Args:
    encoded: JPEG, PNG, or of `converted_formats`.
    max_pixels: limit of width times height, read from the header before decoding.

  Raises:
    Unreadable: not a whole image of these formats within the limits of `image_files`.
  """
  header = image_files.check(encoded, max_pixels)
  try:
    return _DECODERS.get(header.kind, converted_formats.decode)(encoded, header)
  except (Unreadable, MemoryError):
    raise
  except Exception as error:  # decoders raise many kinds
    raise Unreadable(f'cannot be decoded whole ({error})') from None


def _decode_jpeg(encoded: bytes, header: image_files.Header) -> np.ndarray:
  """A JPEG as [h, w] or [h, w, 3] uint8: bit for bit the pixels of OpenCV and Pillow."""
  if header.channels not in (1, 3):
    raise Unreadable(
      f'has {header.channels} channels (CMYK inks?), expected 1 or 3; convert it: magick FILE '
      '-colorspace sRGB FILE.png'
    )
  colours = 'GRAY' if header.channels == 1 else 'RGB'
  # strict: libjpeg's warnings, which are damage to the compressed data, are errors.
  array = simplejpeg.decode_jpeg(image_files.without_metadata(encoded), colours, strict=True)
  return array[..., 0] if header.channels == 1 else array


def _decode_png(encoded: bytes, header: image_files.Header) -> np.ndarray:
  """A PNG as [h, w] or [h, w, 3] uint8 or uint16."""
  # Not Image.open: its limit of pixels is global, and a warning of the whole process.
  with PngImagePlugin.PngImageFile(io.BytesIO(encoded)) as image:
    image.load()
    mode = image.mode
    if mode == '1':
      image = image.convert('L')
    elif mode == 'P':
      image = image.convert('RGBA').convert('RGB')  # straight to RGB, transparency warns
    elif mode in ('RGBA', 'LA'):
      image = image.convert('RGB' if mode == 'RGBA' else 'L')
    elif mode not in ('L', 'RGB', 'I', 'I;16', 'I;16B', 'I;16L'):
      raise Unreadable(f'has the colour mode {mode}, which is not read')
    array = np.asarray(image)
  if header.bits == 16 and array.dtype == np.uint8:
    array = _decode_deep_png(encoded)  # Pillow makes 8 bits of 16 where there are several channels
  return array if array.dtype == np.uint8 else array.astype(np.uint16)


def _decode_deep_png(encoded: bytes) -> np.ndarray:
  """A whole PNG of 16 bits and several channels, as [h, w] or [h, w, 3] uint16, red first."""
  array = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
  grey = encoded[25] in (0, 4)  # the colour type; the rest of the channels is transparency
  return np.ascontiguousarray(array[..., 0] if grey else array[..., 2::-1])


_DECODERS = {'JPEG': _decode_jpeg, 'PNG': _decode_png}


def decode_for_modality(
  encoded: bytes, modality: str, where: str, max_pixels: int = image_files.MAX_PIXELS
) -> np.ndarray:
  """Decodes an image to the channels of its modality, [H, W, 3] or [H, W, 1].

  Args:
    encoded: a file that `decode` accepts.
    modality: one of `schema.MODALITIES`.
    where: named in the error.
    max_pixels: as of `decode`.
  """
  if image_files.is_jpeg_or_png(encoded):  # with the decoder of training: identical pixels
    return geometry.decode(encoded, modality, where)
  return geometry.set_channels(decode(encoded, max_pixels), modality)


def inspect(
  images: Mapping[str, bytes],
  rules: Rules = Rules(),
  max_pixels: int = image_files.MAX_PIXELS,
) -> list[Problem]:
  """Checks the images of one triplet, each and together, after turning them upright.

  Args:
    images: encoded, by modality; without absent ones.
    rules: of the data set.
    max_pixels: of each image, see `decode`.

  Returns:
    (rule, text) of each problem.
  """
  problems, arrays = [], {}
  for modality, encoded in images.items():
    try:
      array = units.convert(decode(encoded, max_pixels), modality, rules.units)
      arrays[modality] = face_crop.turn_upright(array, image_files.orientation(encoded))
    except Unreadable as error:
      problems.append(('unreadable', f'{modality} {error}'))
    except ValueError as error:  # of `units.convert`
      problems.append(('range', f'{modality} {error}'))
  return problems + inspect_arrays(arrays, rules, images)


def inspect_arrays(
  arrays: Mapping[str, np.ndarray],
  rules: Rules = Rules(),
  files: Mapping[str, bytes] | None = None,
) -> list[Problem]:
  """Checks decoded images of one triplet.

  Args:
    arrays: by modality, as `decode` returns them, converted by `units.convert`.
    rules: of the data set.
    files: the encoded images, to distinguish equal files from copies; None: unknown.

  Returns:
    (rule, text) of each problem.
  """
  # In one order: of two copies, the later modality is reported.
  arrays = {m: arrays[m] for m in (*schema.MODALITIES, *arrays) if m in arrays}
  problems = []
  for modality, array in arrays.items():
    found = _check_image(modality, array, rules)
    problems += [(rule, f'{modality} {text}') for rule, text in found]
  return problems + _check_triplet(files or {}, arrays, rules)


def _check_image(modality: str, array: np.ndarray, rules: Rules) -> list[Problem]:
  is_color = schema.is_color(modality)
  bits = 8 * array.itemsize
  expected = rules.bits.get(modality, 8 if is_color else 0)
  if expected and bits != expected:
    way_out = '; convert it: magick FILE -depth 8 FILE.png' if is_color else ''
    return [('bit-depth', f'has {bits} bits, and {expected} are due{way_out}')]
  problems = []
  # Before the signal: one channel of a colour map may be saturated or constant.
  if not is_color and array.ndim == 3 and not signal.is_constant(array):
    difference = _channel_difference(array)
    if difference > GREY:
      problems.append(('colour', f'has channels up to {difference} grey levels apart'))
  reason = signal.no_signal(array, modality, frame=rules.frame)
  if reason and not _is_dim(modality, array, rules):
    return problems or [('black', reason)]
  if text := units.find_problem(array, modality, rules.units, rules.frame):
    problems.append(('range', text))
  return problems


def _is_dim(modality: str, array: np.ndarray, rules: Rules) -> bool:
  """Whether infrared carries signal in its lowest bits only, and no rule states its bits."""
  if (
    not schema.is_intensity(modality)
    or array.dtype != np.uint16
    or rules.units is None
    or rules.units.ir_bits
  ):
    return False
  if not units.guess_bits(array):
    return False
  cells = signal.CELLS_FRAME if rules.frame else signal.CELLS
  contrast, spread = signal.contrast_and_spread(array, modality, cells)
  return contrast >= signal.CONTRAST and contrast > _NOISE * spread


def _channel_difference(array: np.ndarray) -> int:
  """The difference between the channels of 95 % of the pixels, at most, in grey levels."""
  if array.ndim == 2:
    return 0
  red, green, blue = cv2.split(array)  # channel by channel: NumPy is slow along a short axis
  difference = cv2.max(cv2.max(red, green), blue) - cv2.min(cv2.min(red, green), blue)  # [h, w]
  return int(np.quantile(difference, 0.95))


def _check_triplet(files: Mapping, arrays: Mapping[str, np.ndarray], rules: Rules) -> list[Problem]:
  problems = []
  # Without constant images: reported above, and equal to any other constant one.
  varied = {m: array for m, array in arrays.items() if not signal.is_constant(array)}
  fingerprints = dict(zip(varied, copies.fingerprints(varied.values()), strict=True))
  for one, other in itertools.combinations(fingerprints, 2):
    if one in files and files[one] == files.get(other):  # an array has no file
      problems.append(('same-image', f'{other} is the same file as {one}'))
    elif similarity := copies.describe(fingerprints[one], fingerprints[other]):
      problems.append(('same-image', f'{other} is a copy of {one} ({similarity})'))
  problems += _check_exchange(arrays)
  if mismatch := find_size_mismatch(arrays, rules.sizes):
    problems.append(('size', mismatch))
  return problems


def _check_exchange(arrays: Mapping[str, np.ndarray]) -> list[Problem]:
  """RGB that is grey beside another modality that has colours."""
  others = [m for m in arrays if not schema.is_color(m) and _channel_difference(arrays[m]) > GREY]
  if not others:
    return []
  grey = [m for m in arrays if schema.is_color(m) and _channel_difference(arrays[m]) == 0]
  return [
    ('swapped', f'{color} has no colour, and {other} has') for color in grey for other in others
  ]


def find_size_mismatch(images: Mapping[str, np.ndarray], sizes: str = 'aspect') -> str:
  """Returns the sizes of images that cannot be registered, or ''.

  Images are registered where the same fraction of their sides is the same place of the scene.
  Sensors may differ in resolution, so only the aspect ratios must agree.

  Args:
    images: {modality: [h, w] or [h, w, C]}, upright.
    sizes: one of `SIZES`.
  """
  shapes = {modality: image.shape[:2] for modality, image in images.items()}
  ratios = [width / height for height, width in shapes.values()]
  if sizes == 'equal':
    agree = len(set(shapes.values())) <= 1
  elif sizes == 'aspect':
    agree = not ratios or max(ratios) <= ASPECT * min(ratios)
  else:
    agree = True
  if agree:
    return ''
  return ', '.join(f'{m} {width} x {height}' for m, (height, width) in shapes.items())


def check_orientations(images: Mapping[str, bytes]) -> list[Problem]:
  """Reports encoded images with an EXIF rotation: training reads the pixels as stored."""
  orientations = {m: image_files.orientation(encoded) for m, encoded in images.items()}
  return [('rotated', f'{m} has EXIF orientation {n}') for m, n in orientations.items() if n > 1]


def check_digests(images: Mapping[str, bytes], sha256: Mapping[str, str]) -> list[Problem]:
  """Reports encoded images whose SHA-256 differs from the expected one; '' is not checked."""
  return [
    ('sha256', f'{modality} does not have the bytes whose digest is given')
    for modality, expected in sha256.items()
    if expected and modality in images and digest(images[modality]) != expected.lower()
  ]


def digest(encoded: bytes) -> str:
  """SHA-256 of a file's bytes, 64 hexadecimal digits."""
  return hashlib.sha256(encoded).hexdigest()
