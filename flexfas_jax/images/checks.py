"""Is this a whole picture, of the kind that its column promises? Asked before anything is stored.

OpenCV and Pillow decode a JPEG with a hole in it without an error: libjpeg reports damage as a
warning and guesses the rest. OpenCV also cuts 16 bits to 8. Here a library that turns each warning
into an error decodes every JPEG, and bit depths and ranges are checked.

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
  """What a data set's pictures are; None and 'any' ask for nothing.

  Attributes:
    bits: {modality: 8 or 16}; depth and infrared that are not named may have either, RGB has 8.
    units: of 16-bit depth and infrared; images are converted by them before they are checked. None:
      not known, and not checked.
    sizes: of the modalities of one triplet, of `SIZES`: 'any', 'aspect' (within 5 %), or 'equal'.
    frame: images are whole frames whose faces are cropped later, see `signal.no_signal`.
  """

  bits: Mapping[str, int] = dataclasses.field(default_factory=dict)
  units: Units | None = Units()  # noqa: RUF009
  sizes: str = 'any'
  frame: bool = False


def decode(encoded: bytes, max_pixels: int = image_files.MAX_PIXELS) -> np.ndarray:
  """An encoded image, whole, as [h, w] or [h, w, C] uint8 or uint16, red first.

  Depth may be floating point, which `units.convert` converts to millimetres.

  Args:
    encoded: JPEG, PNG, or of `converted_formats`.
    max_pixels: limit of the width times the height, taken from the header before decoding.

  Raises:
    Unreadable: anything but a whole image of these formats within the limits of `image_files`.
  """
  header = image_files.check(encoded, max_pixels)
  try:
    return _DECODERS.get(header.kind, converted_formats.decode)(encoded, header)
  except Unreadable:
    raise
  except Exception as error:  # decoders raise many kinds
    raise Unreadable(f'cannot be decoded whole ({error})') from None


def _jpeg(encoded: bytes, header: image_files.Header) -> np.ndarray:
  """A JPEG as [h, w] or [h, w, 3] uint8: bit for bit the pixels of OpenCV and Pillow."""
  if header.channels not in (1, 3):
    raise Unreadable(
      f'has {header.channels} channels (CMYK inks?), and 1 or 3 are due; convert it: magick FILE '
      '-colorspace sRGB FILE.png'
    )
  colours = 'GRAY' if header.channels == 1 else 'RGB'
  # strict: libjpeg's warnings, which are damage to the compressed data, are errors.
  array = simplejpeg.decode_jpeg(image_files.without_metadata(encoded), colours, strict=True)
  return array[..., 0] if header.channels == 1 else array


def _png(encoded: bytes, header: image_files.Header) -> np.ndarray:
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
    array = _deep(encoded)  # Pillow makes 8 bits of 16 where there are several channels
  return array if array.dtype == np.uint8 else array.astype(np.uint16)


def _deep(encoded: bytes) -> np.ndarray:
  """A whole PNG of 16 bits and several channels, as [h, w] or [h, w, 3] uint16, red first."""
  array = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
  grey = encoded[25] in (0, 4)  # the colour type; the rest of the channels is transparency
  return np.ascontiguousarray(array[..., 0] if grey else array[..., 2::-1])


_DECODERS = {'JPEG': _jpeg, 'PNG': _png}


def pixels(
  encoded: bytes, modality: str, where: str, max_pixels: int = image_files.MAX_PIXELS
) -> np.ndarray:
  """An image that `decode` reads, as `geometry.decode` gives it: [H, W, 3] of RGB, else [H, W, 1].

  Args:
    encoded: was checked by `decode`.
    modality: one of `schema.MODALITIES`.
    where: named in the error.
    max_pixels: as of `decode`.
  """
  if image_files.is_stored(encoded):  # by the decoder of training, pixel for pixel
    return geometry.decode(encoded, modality, where)
  return geometry.of_modality(decode(encoded, max_pixels), modality)


def inspect(
  images: Mapping[str, bytes],
  rules: Rules = Rules(),  # noqa: B008
  max_pixels: int = image_files.MAX_PIXELS,
) -> list[Problem]:
  """What is wrong with the images of one triplet, each and together, turned upright.

  Args:
    images: encoded, by modality; what is absent is left out.
    rules: of the data set.
    max_pixels: of each image, see `decode`.

  Returns:
    (rule, text) of everything found; empty where nothing was.
  """
  problems, arrays = [], {}
  for modality, encoded in images.items():
    try:
      array = units.convert(decode(encoded, max_pixels), modality, rules.units)
      arrays[modality] = face_crop.upright(array, image_files.orientation(encoded))
    except Unreadable as error:
      problems.append(('unreadable', f'{modality} {error}'))
    except ValueError as error:  # of `units.convert`
      problems.append(('range', f'{modality} {error}'))
  return problems + inspect_arrays(arrays, rules, images)


def inspect_arrays(
  arrays: Mapping[str, np.ndarray],
  rules: Rules = Rules(),  # noqa: B008
  files: Mapping[str, bytes] | None = None,
) -> list[Problem]:
  """What is wrong with pictures that are decoded.

  Args:
    arrays: as `decode` gives them, converted by `units.convert`, by modality.
    rules: of the data set.
    files: what they were decoded from, to tell equal files from copies; None: not known.

  Returns:
    (rule, text) of everything found; empty where nothing was.
  """
  # A copy is said of the later one, whatever order they are given in.
  arrays = {m: arrays[m] for m in (*schema.MODALITIES, *arrays) if m in arrays}
  problems = []
  for modality, array in arrays.items():
    problems += [(rule, f'{modality} {text}') for rule, text in _one(modality, array, rules)]
  return problems + _together(files or {}, arrays, rules)


def _one(modality: str, array: np.ndarray, rules: Rules) -> list[Problem]:
  bits = 8 * array.itemsize
  wanted = rules.bits.get(modality, 8 if schema.is_color(modality) else 0)
  if wanted and bits != wanted:
    way_out = '; convert it: magick FILE -depth 8 FILE.png' if schema.is_color(modality) else ''
    return [('bit-depth', f'has {bits} bits, and {wanted} are due{way_out}')]
  problems = []
  # First: one channel of a colour map may well be saturated or even.
  has_channels = array.ndim == 3 and not signal.constant(array)
  if has_channels and not schema.is_color(modality) and (apart := _apart(array)) > GREY:
    problems.append(('colour', f'has channels up to {apart} grey levels apart'))
  reason = signal.no_signal(array, modality, frame=rules.frame)
  if reason and not _dim(modality, array, rules):
    return problems or [('black', reason)]
  if text := units.problem(array, modality, rules.units, rules.frame):
    problems.append(('range', text))
  return problems


def _dim(modality: str, array: np.ndarray, rules: Rules) -> bool:
  """Whether infrared carries signal that only its lowest bits have, which no rule states."""
  if (
    not schema.is_intensity(modality)
    or array.dtype != np.uint16
    or rules.units is None
    or rules.units.ir_bits
  ):
    return False
  if not units.fewer_bits(array):
    return False
  cells = signal.CELLS_FRAME if rules.frame else signal.CELLS
  contrast, spread = signal.contrast_and_spread(array, modality, cells)
  return contrast >= signal.CONTRAST and contrast > _NOISE * spread


def _apart(array: np.ndarray) -> int:
  """How far the channels of most pixels are from each other, in grey levels."""
  red, green, blue = cv2.split(array)  # channel by channel: NumPy is slow along a short axis
  apart = cv2.max(cv2.max(red, green), blue) - cv2.min(cv2.min(red, green), blue)  # [h, w]
  return int(np.quantile(apart, 0.95))


def _together(files: Mapping, arrays: Mapping[str, np.ndarray], rules: Rules) -> list[Problem]:
  problems = []
  # Without constant images: reported above, and equal to any other constant one.
  varied = {m: array for m, array in arrays.items() if not signal.constant(array)}
  looks = dict(zip(varied, copies.look_at(varied.values()), strict=True))
  for one, other in itertools.combinations(looks, 2):
    if one in files and files[one] == files.get(other):  # an array has no file
      problems.append(('same-image', f'{other} is the same file as {one}'))
    elif how := copies.describe(looks[one], looks[other]):
      problems.append(('same-image', f'{other} is a copy of {one} ({how})'))
  apart = {m: _apart(array) if array.ndim == 3 else 0 for m, array in arrays.items()}
  coloured = [m for m in apart if not schema.is_color(m) and apart[m] > GREY]
  grey = [m for m in apart if schema.is_color(m) and apart[m] == 0]
  problems += [
    ('swapped', f'{color} has no colour, and {other} has') for color in grey for other in coloured
  ]
  if found := disagree(arrays, rules.sizes):
    problems.append(('size', found))
  return problems


def disagree(images: Mapping[str, np.ndarray], sizes: str = 'aspect') -> str:
  """The sizes of images that cannot be registered; '' where they can be.

  Images are registered where the same fraction of their sides is the same place of the scene.
  Sensors may differ in resolution, so it is the aspect ratios that must agree.

  Args:
    images: {modality: [h, w] or [h, w, C]}, upright.
    sizes: one of `SIZES`.
  """
  shapes = {modality: image.shape[:2] for modality, image in images.items()}
  ratios = [width / height for height, width in shapes.values()]
  if sizes == 'equal':
    wrong = len(set(shapes.values())) > 1
  else:
    wrong = sizes == 'aspect' and bool(ratios) and max(ratios) > ASPECT * min(ratios)
  found = ', '.join(f'{m} {width} x {height}' for m, (height, width) in shapes.items())
  return found if wrong else ''


def rotated(images: Mapping[str, bytes]) -> list[Problem]:
  """Encoded images that EXIF requires to be turned: training reads the pixels as stored."""
  found = {m: image_files.orientation(encoded) for m, encoded in images.items()}
  return [('rotated', f'{m} has EXIF orientation {n}') for m, n in found.items() if n > 1]


def other_bytes(images: Mapping[str, bytes], sha256: Mapping[str, str]) -> list[Problem]:
  """Encoded images whose digest is not the one given, by modality; '' is not known."""
  return [
    ('sha256', f'{modality} does not have the bytes whose digest is given')
    for modality, wanted in sha256.items()
    if wanted and modality in images and digest(images[modality]) != wanted.lower()
  ]


def digest(encoded: bytes) -> str:
  """SHA-256 of a file's bytes, 64 hexadecimal digits."""
  return hashlib.sha256(encoded).hexdigest()
