"""Pictures as they come - files, bytes, arrays - made what preprocessing looks at, or refused.

What a data set's builder would refuse is refused here too, in the same words: a model is asked only
about pictures of the kind that it was trained and judged on.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from flexfas_jax import schema
from flexfas_jax.errors import DataError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.images import face_crop, geometry, units
from flexfas_jax.images import files as image_files
from flexfas_jax.prediction.card import Card

Given = str | os.PathLike | bytes | bytearray | memoryview | np.ndarray
_LET_PASS = 'black'  # of `image_checks`: the absent-modality contract speaks of it
_UNREGISTERED = (
  'images of these sizes are not registered; register them, or give --sizes=any, sizes="any", '
  'where each modality is a crop of its own'
)


def read_all(
  card: Card,
  given: Mapping[str, Given],
  sizes: str = 'aspect',
  max_pixels: int = image_files.MAX_PIXELS,
  stated: units.Units | None = units.Units(),  # noqa: B008
  frame: bool = False,
) -> dict[str, np.ndarray]:
  """Images, upright, as `geometry.decode` gives them; 16-bit depth in mm, infrared in full scale.

  Args:
    card: which bit depths the model accepts.
    given: by modality, each a path, the bytes of an image file, or an array [H, W], [H, W, 1]
      or [H, W, 3] (red first) of uint8 or uint16; depth may be floating point.
    sizes: how the sizes of the images agree, one of `image_checks.SIZES`.
    max_pixels: limit of the width times the height of each image, checked before decoding.
    stated: units of 16-bit images, which are converted; None: of a prepared set, not checked.
    frame: the images are whole frames, whose faces are cropped later.

  Returns:
    {modality: [H, W, 3] or [H, W, 1] uint8 or uint16}, no memory of which is the caller's.

  Raises:
    DataError: not an image, outside the limits of `image_files`, of other bits than the card has,
      or not what its modality promises: depth that is no millimetres, a colour map, a copy of
      another modality, images that cannot be registered.
  """
  raw, pixels, files = {}, {}, {}
  for modality, one in given.items():
    if isinstance(one, np.ndarray):
      raw[modality], pixels[modality] = _of_array(one, modality, max_pixels)
      continue
    where, encoded = _bytes(one, modality)
    try:
      array = image_checks.decode(encoded, max_pixels)  # whole, which OpenCV does not check
    except image_files.Unreadable as error:
      raise DataError(f'{where} {error}') from None
    turn = image_files.orientation(encoded)
    files[modality] = encoded
    raw[modality] = face_crop.turn_upright(array, turn)
    pixels[modality] = face_crop.turn_upright(
      image_checks.decode_for_modality(encoded, modality, where, max_pixels), turn
    )
  problems = []
  for modality in list(raw):
    try:
      raw[modality], pixels[modality] = (
        units.convert(of[modality], modality, stated) for of in (raw, pixels)
      )
    except ValueError as error:
      problems.append(f'{modality} {error}')
      del raw[modality]
  problems += [_bits(card, m, array) for m, array in raw.items()]
  rules = image_checks.Rules(sizes=sizes, units=stated, frame=frame)
  for rule, text in image_checks.inspect_arrays(raw, rules, files):
    if rule == 'size':
      problems.append(f'{text}: {_UNREGISTERED}')
    elif rule != _LET_PASS:
      problems.append(text)
  if problems := list(filter(None, problems)):
    raise DataError('; '.join(problems))
  return pixels


def _bytes(one: Any, modality: str) -> tuple[str, bytes]:
  """(what it is called in messages, its bytes)."""
  if isinstance(one, bytes | bytearray | memoryview):
    try:
      image_files.check_bytes(memoryview(one).nbytes)  # before they are copied
    except image_files.Unreadable as error:
      raise DataError(f'{modality} {error}') from None
    return modality, bytes(one)
  if not isinstance(one, str | os.PathLike):
    raise DataError(
      f'{modality} is a {type(one).__name__}; give a path, the bytes of an image file, or a '
      'NumPy array of uint8 or uint16'
    )
  where = f'{modality} {os.fsdecode(one)}'
  try:
    return where, image_files.read(one)
  except OSError as error:
    raise DataError(f'{where} cannot be read: {error.strerror}') from None


def _of_array(array: np.ndarray, modality: str, max_pixels: int) -> tuple[np.ndarray, np.ndarray]:
  """(as `image_checks.decode` gives it, as `geometry.decode` does); both are copies."""
  shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3))
  floats = schema.is_distance(modality) and array.dtype in (np.float16, np.float32, np.float64)
  if array.dtype not in (np.uint8, np.uint16) and not floats or not shaped or not array.size:
    raise DataError(
      f'{modality} is an array {list(array.shape)} of {array.dtype}; due are [H, W], [H, W, 1] or '
      '[H, W, 3] (red first) of uint8 or uint16; depth may be floating point, with depth_unit'
    )
  if isinstance(array, np.ma.MaskedArray):
    raise DataError(f'{modality} is a masked array: give array.filled(0), 0 being unmeasured')
  try:
    image_files.check_size(array.shape[1], array.shape[0], max_pixels)  # before it is copied
  except image_files.Unreadable as error:
    raise DataError(f'{modality} {error}') from None
  # A copy: a camera may write the next frame to the same memory while this one is evaluated.
  image = np.array(array, order='C', subok=False)
  raw = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
  return raw, geometry.set_channels(image, modality)


def _bits(card: Card, modality: str, array: np.ndarray) -> str:
  """What is wrong with a picture's bit depth, or ''."""
  bits, known = 8 * array.itemsize, card.bits(modality)
  if not known or bits in known:
    return ''
  due = ' or '.join(map(str, known))
  return (
    f'{modality} has {bits} bits, and this model knows {modality} of {due} bits: it is not '
    'converted, for nobody knows what its values mean'
  )
