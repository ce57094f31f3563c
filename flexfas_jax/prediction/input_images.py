"""Reads and checks the images of a sample: files, bytes or arrays.

The rules are those of the data set builders: a model predicts only from the kind of images that it
was trained and evaluated on.
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
_IGNORED_RULE = 'black'  # of `image_checks`: such an image is unusable, not an error
_UNREGISTERED = (
  'images of these sizes are not registered; register them, or give --sizes=any, sizes="any" '
  'if each modality was cropped separately'
)


def read_images(
  card: Card,
  given: Mapping[str, Given],
  sizes: str = 'aspect',
  max_pixels: int = image_files.MAX_PIXELS,
  stated: units.Units | None = units.Units(),
  frame: bool = False,
) -> dict[str, np.ndarray]:
  """Decodes and checks the images of a sample.

  Args:
    card: holds the bit depths that the model accepts.
    given: {modality: image}, each a path, the bytes of an image file, or an array [H, W],
      [H, W, 1] or [H, W, 3] (red first) of uint8 or uint16; depth may be floating point.
    sizes: how the sizes of the images must agree, one of `image_checks.SIZES`.
    max_pixels: limit of each image's width times height, checked before decoding.
    stated: units of 16-bit images, which are converted; None: a prepared set, not checked.
    frame: the images are frames, whose faces are cropped later.

  Returns:
    {modality: [H, W, 3] or [H, W, 1] uint8 or uint16}, upright, 16-bit depth in mm, infrared in
    full scale. The arrays are copies.

  Raises:
    DataError: not an image, outside the limits of `images.files`, a bit depth that the card does
      not have, or not an image of its modality: depth that is not millimetres, a colour map, a copy
      of another modality, images that are not registered.
  """
  raw, pixels, files = {}, {}, {}
  for modality, image in given.items():
    if isinstance(image, np.ndarray):
      raw[modality], pixels[modality] = _from_array(image, modality, max_pixels)
      continue
    where, encoded = _read_bytes(image, modality)
    try:
      array = image_checks.decode(encoded, max_pixels)  # detects damage, which OpenCV ignores
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
        units.convert(images[modality], modality, stated) for images in (raw, pixels)
      )
    except ValueError as error:
      problems.append(f'{modality} {error}')
      del raw[modality]
  problems += [_bit_depth_problem(card, m, array) for m, array in raw.items()]
  rules = image_checks.Rules(sizes=sizes, units=stated, frame=frame)
  for rule, text in image_checks.inspect_arrays(raw, rules, files):
    if rule == 'size':
      problems.append(f'{text}: {_UNREGISTERED}')
    elif rule != _IGNORED_RULE:
      problems.append(text)
  if problems := list(filter(None, problems)):
    raise DataError('; '.join(problems))
  return pixels


def _read_bytes(image: Any, modality: str) -> tuple[str, bytes]:
  """(name for messages, bytes)."""
  if isinstance(image, bytes | bytearray | memoryview):
    try:
      image_files.check_bytes(memoryview(image).nbytes)  # before they are copied
    except image_files.Unreadable as error:
      raise DataError(f'{modality} {error}') from None
    return modality, bytes(image)
  if not isinstance(image, str | os.PathLike):
    raise DataError(
      f'{modality} is a {type(image).__name__}; give a path, the bytes of an image file, or a '
      'NumPy array of uint8 or uint16'
    )
  where = f'{modality} {os.fsdecode(image)}'
  try:
    return where, image_files.read(image)
  except OSError as error:
    raise DataError(f'{where} cannot be read: {error.strerror}') from None


def _from_array(array: np.ndarray, modality: str, max_pixels: int) -> tuple[np.ndarray, np.ndarray]:
  """Copies of an array, in the form of `image_checks.decode` and of `geometry.decode`."""
  is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3))
  dtypes = [np.uint8, np.uint16]
  if schema.is_distance(modality):
    dtypes += [np.float16, np.float32, np.float64]
  if array.dtype not in dtypes or not is_image or not array.size:
    raise DataError(
      f'{modality} is an array {list(array.shape)} of {array.dtype}; expected [H, W], [H, W, 1] or '
      '[H, W, 3] (red first) of uint8 or uint16; depth may be floating point, with depth_unit'
    )
  if isinstance(array, np.ma.MaskedArray):
    raise DataError(
      f'{modality} is a masked array: give array.filled(0), with 0 for unmeasured pixels'
    )
  try:
    image_files.check_size(array.shape[1], array.shape[0], max_pixels)  # before it is copied
  except image_files.Unreadable as error:
    raise DataError(f'{modality} {error}') from None
  # A copy: a camera may write the next frame to the same memory while this one is evaluated.
  image = np.array(array, order='C', subok=False)
  raw = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
  return raw, geometry.set_channels(image, modality)


def _bit_depth_problem(card: Card, modality: str, array: np.ndarray) -> str:
  bits, expected = 8 * array.itemsize, card.bits(modality)
  if not expected or bits in expected:
    return ''
  return (
    f'{modality} has {bits} bits; this model was trained on {modality} of '
    f'{" or ".join(map(str, expected))} bits. It is not converted, because the meaning of its '
    'values is unknown'
  )
