"""Pictures as they come - files, bytes, arrays - made what preprocessing looks at, or refused.

What a data set's builder would refuse is refused here too, in the same words: a model is asked only
about pictures of the kind that it was trained and judged on.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from flexfas_jax.errors import DataError
from flexfas_jax.input_pipeline import faces, geometry, image_checks
from flexfas_jax.prediction.card import Card

Given = str | os.PathLike | bytes | np.ndarray
_LET_PASS = 'black'  # of `image_checks`: the absent-modality contract speaks of it


def read_all(card: Card, given: Mapping[str, Given]) -> dict[str, np.ndarray]:
  """Pictures, upright, as `geometry.decode` gives them.

  Args:
    card: says which bit depths are known, and what depth is in.
    given: by modality, each a path, the bytes of a JPEG or PNG, or an array [H, W], [H, W, 1] or
      [H, W, 3] (red first) of uint8 or uint16.

  Returns:
    {modality: [H, W, 3] or [H, W, 1] uint8 or uint16}.

  Raises:
    DataError: what is no such picture, has other bits than the card says, or cannot be what its
      modality promises: depth that is no millimetres, a colour map, a copy of another modality.
  """
  raw, pixels, files = {}, {}, {}
  for modality, one in given.items():
    if isinstance(one, np.ndarray):
      raw[modality], pixels[modality] = _of_array(one, modality)
      continue
    where, encoded = _bytes(one, modality)
    try:
      array = image_checks.decode(encoded)  # whole, which OpenCV does not tell
    except image_checks.Unreadable as error:
      raise DataError(f'{where} {error}') from None
    turn = faces.orientation(encoded)
    files[modality] = encoded
    raw[modality] = faces.upright(array, turn)
    pixels[modality] = faces.upright(geometry.decode(encoded, modality, where), turn)
  units = {m: card.unit(m) or 'mm' for m in raw}
  rules = image_checks.Rules(unit=units.get('depth', 'mm'))
  said = [_bits(card, m, array) for m, array in raw.items()]
  found = image_checks.inspect_arrays(raw, rules, files)
  said += [text for rule, text in found if rule != _LET_PASS]
  if said := list(filter(None, said)):
    raise DataError('; '.join(said))
  return pixels


def _bytes(one: Any, modality: str) -> tuple[str, bytes]:
  """(what it is called in messages, its bytes)."""
  if isinstance(one, bytes | bytearray | memoryview):
    return modality, bytes(one)
  if not isinstance(one, str | os.PathLike):
    raise DataError(
      f'{modality} is a {type(one).__name__}; give a path, the bytes of a JPEG or PNG, or a NumPy '
      'array of uint8 or uint16'
    )
  try:
    with open(one, 'rb') as file:
      return f'{modality} {os.fspath(one)}', file.read()
  except OSError as error:
    raise DataError(f'{modality} {os.fspath(one)} cannot be read: {error.strerror}') from None


def _of_array(array: np.ndarray, modality: str) -> tuple[np.ndarray, np.ndarray]:
  """(as `image_checks.decode` gives it, as `geometry.decode` does)."""
  shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3))
  if array.dtype not in (np.uint8, np.uint16) or not shaped or not array.size:
    raise DataError(
      f'{modality} is an array {list(array.shape)} of {array.dtype}; due are [H, W], [H, W, 1] or '
      '[H, W, 3] (red first) of uint8 or uint16'
    )
  image = array[..., None] if array.ndim == 2 else array
  grey = image.shape[-1] == 1
  raw = np.ascontiguousarray(image[..., 0] if grey else image)
  if modality != 'rgb':
    image = image[..., :1]
  elif grey:
    image = np.repeat(image, 3, -1)
  return raw, np.ascontiguousarray(image)


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
