"""Is this a whole picture, of the kind that its column promises? Asked before anything is stored.

OpenCV fills what a truncated JPEG lacks with grey, and cuts 16 bits to 8 without a word; here every
picture is decoded by Pillow, which refuses to guess, and its bit depth and range are looked at.
"""

import dataclasses
import hashlib
import io
import itertools
import warnings
from collections.abc import Mapping

import cv2
import numpy as np
from PIL import Image

from flexfas_jax.input_pipeline import signal
from flexfas_jax.schema import MODALITIES

COPY = 0.999  # correlation above which two modalities are one picture
NEAREST, FARTHEST = 50, 20_000  # mm: where the middle of a face's depth can be
GREY = 12  # grey levels by which JPEG's chroma may part channels that were equal
COMPARED = 64  # pixels along a side when modalities are compared

Problem = tuple[str, str]  # (a rule of `findings.RULES`, what is wrong)


@dataclasses.dataclass(frozen=True)
class Rules:
  """What a data set's pictures are; None and 'any' ask for nothing.

  Attributes:
    bits: {modality: 8 or 16}; a modality that is not named may have either.
    unit: of 16-bit depth; 'mm' has the range of the middle of a face checked.
    sizes: of the modalities of one triplet: 'any', 'aspect' (within 5 %), or 'equal'.
    frame: images are whole frames whose faces are cropped later, see `signal.no_signal`.
  """

  bits: Mapping[str, int] = dataclasses.field(default_factory=dict)
  unit: str = 'mm'
  sizes: str = 'any'
  frame: bool = False


class Unreadable(Exception):
  """The bytes are no whole picture; the text says what they are."""


def decode(encoded: bytes) -> np.ndarray:
  """An encoded picture, whole, as [h, w] or [h, w, C] uint8 or uint16, red first.

  Raises:
    Unreadable: anything but a whole JPEG or PNG of 8 or 16 bits.
  """
  if not encoded:
    raise Unreadable('is empty (0 bytes)')
  kind = _kind(encoded)
  if kind not in ('JPEG', 'PNG'):
    raise Unreadable(f'is {kind}, not a JPEG or PNG')
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('error')  # a decompression bomb only warns
      with Image.open(io.BytesIO(encoded), formats=(kind,)) as image:
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
  except Unreadable:
    raise
  except Exception as error:  # Pillow raises whatever its decoders raise
    raise Unreadable(f'cannot be decoded ({error})') from None
  if kind == 'JPEG' and b'\xff\xd9' not in encoded[-4096:]:
    raise Unreadable('is truncated: the JPEG has no end')
  if kind == 'PNG' and b'IEND' not in encoded[-4096:]:
    raise Unreadable('is truncated: the PNG has no end')
  if kind == 'PNG' and encoded[24] == 16 and array.dtype == np.uint8:
    array = _deep(encoded)  # Pillow makes 8 bits of 16 where there are several channels
  return array if array.dtype == np.uint8 else array.astype(np.uint16)


def _deep(encoded: bytes) -> np.ndarray:
  """A whole PNG of 16 bits and several channels, as [h, w] or [h, w, 3] uint16, red first."""
  array = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
  grey = encoded[25] in (0, 4)  # the colour type; the rest of the channels is transparency
  return np.ascontiguousarray(array[..., 0] if grey else array[..., 2::-1])


def _kind(encoded: bytes) -> str:
  start = encoded[:512].lstrip().lower()
  if encoded[:3] == b'\xff\xd8\xff':
    return 'JPEG'
  if encoded[:8] == b'\x89PNG\r\n\x1a\n':
    return 'PNG'
  if start.startswith((b'<!doctype html', b'<html', b'<head')):
    return 'an HTML page (a login or error page that was saved?)'
  if start.startswith(b'version https://git-lfs'):
    return 'a Git LFS pointer (git lfs pull fetches the file)'
  return f'something else, starting {encoded[:8]!r}'


def inspect(images: Mapping[str, bytes], rules: Rules = Rules()) -> list[Problem]:  # noqa: B008
  """What is wrong with the pictures of one triplet, each and together.

  Args:
    images: encoded, by modality; what is absent is left out.
    rules: of the data set.

  Returns:
    (rule, text) of everything found; empty where nothing was.
  """
  problems, arrays = [], {}
  for modality, encoded in images.items():
    try:
      arrays[modality] = decode(encoded)
    except Unreadable as error:
      problems.append(('unreadable', f'{modality} {error}'))
  return problems + inspect_arrays(arrays, rules, images)


def inspect_arrays(
  arrays: Mapping[str, np.ndarray],
  rules: Rules = Rules(),  # noqa: B008
  files: Mapping[str, bytes] | None = None,
) -> list[Problem]:
  """What is wrong with pictures that are decoded.

  Args:
    arrays: as `decode` gives them, by modality.
    rules: of the data set.
    files: what they were decoded from, to tell equal files from copies; None: not known.

  Returns:
    (rule, text) of everything found; empty where nothing was.
  """
  # A copy is said of the later one, whatever order they are given in.
  arrays = {m: arrays[m] for m in (*MODALITIES, *arrays) if m in arrays}
  problems = []
  for modality, array in arrays.items():
    problems += [(rule, f'{modality} {text}') for rule, text in _one(modality, array, rules)]
  return problems + _together(files or {}, arrays, rules)


def _one(modality: str, array: np.ndarray, rules: Rules) -> list[Problem]:
  bits, wanted = 8 * array.itemsize, rules.bits.get(modality)
  if wanted and bits != wanted:
    return [('bit-depth', f'has {bits} bits, and {wanted} are due')]
  if reason := signal.no_signal(array, modality, frame=rules.frame):
    return [('black', reason)]
  high, problems = int(array.max()), []
  if modality != 'rgb' and array.ndim == 3 and (apart := _apart(array)) > GREY:
    problems.append(('colour', f'has channels up to {apart} grey levels apart'))
  if bits == 16 and modality == 'depth' and rules.unit == 'mm':
    middle = float(np.median(array[array > 0]))
    if high <= 255:
      problems.append(('range', f'has 16 bits and no value above {high}: 8-bit values, not mm'))
    elif not NEAREST <= middle <= FARTHEST:
      problems.append(
        ('range', f'has a median of {middle:g}, which in mm is no face ({NEAREST} to {FARTHEST})')
      )
  return problems


def _apart(array: np.ndarray) -> int:
  """How far the channels of most pixels are from each other, in grey levels."""
  red, green, blue = cv2.split(array)  # channel by channel: NumPy is slow along a short axis
  apart = cv2.max(cv2.max(red, green), blue) - cv2.min(cv2.min(red, green), blue)  # [h, w]
  return int(np.quantile(apart, 0.95))


def _together(files: Mapping, arrays: Mapping[str, np.ndarray], rules: Rules) -> list[Problem]:
  problems = []
  # Without those that are black: found above, and equal to anything black.
  small = {m: _small(array) for m, array in arrays.items() if not signal.constant(array)}
  for one, other in itertools.combinations(small, 2):
    if one in files and files[one] == files.get(other):  # an array has no file
      problems.append(('same-image', f'{other} is the same file as {one}'))
    elif (alike := _correlation(small[one], small[other])) > COPY:
      problems.append(('same-image', f'{other} is a copy of {one} (correlation {alike:.5f})'))
  if 'rgb' in arrays and (arrays['rgb'].ndim == 2 or _apart(arrays['rgb']) == 0):
    for other in arrays:
      if other != 'rgb' and arrays[other].ndim == 3 and _apart(arrays[other]) > GREY:
        problems.append(('swapped', f'rgb has no colour, and {other} has'))
  shapes = {m: a.shape[:2] for m, a in arrays.items()}
  ratios = [w / h for h, w in shapes.values()]
  said = ', '.join(f'{m} {w} x {h}' for m, (h, w) in shapes.items())
  if (rules.sizes == 'equal' and len(set(shapes.values())) > 1) or (
    rules.sizes == 'aspect' and ratios and max(ratios) > 1.05 * min(ratios)
  ):
    problems.append(('size', said))
  return problems


def correlation(one: np.ndarray, other: np.ndarray) -> float:
  """Pearson's, of two pictures made grey and small; 0 where one is constant."""
  return _correlation(_small(one), _small(other))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
  a, b = a - a.mean(), b - b.mean()
  scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
  return float((a * b).sum()) / scale if scale > 0 else 0.0


def _small(image: np.ndarray) -> np.ndarray:
  small = cv2.resize(image, (COMPARED, COMPARED), interpolation=cv2.INTER_AREA).astype(np.float32)
  if small.ndim == 3:
    small = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
  return small.astype(np.float64)


def digest(encoded: bytes) -> str:
  """SHA-256 of a file's bytes, 64 hexadecimal digits."""
  return hashlib.sha256(encoded).hexdigest()
