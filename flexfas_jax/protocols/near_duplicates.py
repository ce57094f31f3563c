"""Near duplicates: RGB images that look the same but were encoded again, resized or recoloured.

`exact_duplicates` compares bytes; this module compares content. Each image is reduced to a grey
fingerprint of 32 x 32 pixels (1 KB). For each image of one split, the image of the other split with
the most similar coarse structure is found by the cosine of 63 DCT coefficients (a matrix product:
2 ns for a pair). Only this pair is compared pixel by pixel. Both steps compare detail, without the
slow gradients and the outline on black that any two faces have in common.

The threshold separates 3,332 rendered samples of 1,404 videos from their copies
(experiments/reliability/near_duplicates.py). Cropped, mirrored or rotated copies are not found.
"""

from typing import NamedTuple

import cv2
import numpy as np

from flexfas_jax.images import files as image_files

SIDE = 32  # pixels along a side of what is kept of an image
MIN_CORRELATION = (
  0.94  # correlation of the detail of two images above which they are near duplicates
)
_BLUR = 1.5  # standard deviation, of `SIDE`: what it leaves is no detail
_CONTRAST = 1.0  # standard deviation of the detail, at least, in grey levels: less is rounding
_COARSE = 8  # frequencies along a side that are compared first
_AT_ONCE = 512, 2048  # rows of the two sides in a matrix product
# JPEG is decoded smaller at a fraction of the cost. (Shorter side of the image at least, how.)
_REDUCED = (
  (16 * SIDE, cv2.IMREAD_REDUCED_GRAYSCALE_8),
  (8 * SIDE, cv2.IMREAD_REDUCED_GRAYSCALE_4),
  (4 * SIDE, cv2.IMREAD_REDUCED_GRAYSCALE_2),
  (0, cv2.IMREAD_GRAYSCALE),
)


class NearDuplicate(NamedTuple):
  """A row of one side that looks like one of the other."""

  row: int
  other: int
  correlation: float


def fingerprint(encoded: bytes) -> bytes:
  """What is kept of a whole encoded image, upright: `SIDE` x `SIDE` grey levels, or b''.

  b'' is of images without detail and of what OpenCV does not decode: neither is compared.
  """
  header = image_files.header(encoded)
  least = min(header.width, header.height)
  how = next(flag for side, flag in _REDUCED if least >= side)
  grey = cv2.imdecode(np.frombuffer(encoded, np.uint8), how)
  if grey is None:
    return b''
  small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
  return small.tobytes() if _detail(small).std() >= _CONTRAST else b''


def find(one: np.ndarray, other: np.ndarray) -> list[NearDuplicate]:
  """The rows of `other` that look like a row of `one`, in order, each with the most similar one.

  Args:
    one, other: the looks of two sides, each [N, SIDE * SIDE] uint8.
  """
  one, other = (side.reshape(-1, SIDE, SIDE) for side in (one, other))
  if not len(one) or not len(other):
    return []
  nearest = _nearest(_coarse(one), _coarse(other)).tolist()
  found = []
  for row, place in enumerate(nearest):
    alike = float((_unit(_detail(other[row])) * _unit(_detail(one[place]))).sum())
    if alike > MIN_CORRELATION:
      found.append(NearDuplicate(row, place, alike))
  return found


def _nearest(one: np.ndarray, other: np.ndarray) -> np.ndarray:
  """Of each row of `other` [M, K], the row of `one` [N, K] with the largest product; [M] int."""
  place = np.zeros(len(other), np.int64)
  for i in range(0, len(other), _AT_ONCE[0]):
    some = other[i : i + _AT_ONCE[0]]
    best = np.full(len(some), -np.inf, np.float32)
    for k in range(0, len(one), _AT_ONCE[1]):
      product = some @ one[k : k + _AT_ONCE[1]].T
      at = product.argmax(1)
      largest = product[np.arange(len(some)), at]
      better = largest > best
      place[i : i + len(some)][better] = k + at[better]
      best = np.maximum(best, largest)
  return place


def _coarse(looks: np.ndarray) -> np.ndarray:
  """The low frequencies of the detail of [N, SIDE, SIDE]: [N, 64] float32 of length 1."""
  found = np.empty((len(looks), _COARSE**2), np.float32)
  for i, one in enumerate(looks):
    low = cv2.dct(_detail(one))[:_COARSE, :_COARSE]
    low[0, 0] = 0
    found[i] = _unit(low).ravel()
  return found


def _detail(look: np.ndarray) -> np.ndarray:
  """What a blur takes away of [SIDE, SIDE] uint8, float32."""
  look = look.astype(np.float32)
  return look - cv2.GaussianBlur(look, (0, 0), _BLUR)


def _unit(values: np.ndarray) -> np.ndarray:
  """Values less their mean, of length 1; 0 where all are equal."""
  values = values - values.mean()
  return values / max(float(np.linalg.norm(values)), 1e-6)
