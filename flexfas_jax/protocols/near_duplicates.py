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

from flexfas_jax import schema
from flexfas_jax.images import files as image_files

# The modality that is compared: the threshold was measured on colour images.
MODALITY = next(filter(schema.is_color, schema.MODALITIES))
SIDE = 32  # pixels along a side of a fingerprint
MIN_CORRELATION = 0.94  # of the detail of two images, above which they are near duplicates
_BLUR = 1.5  # standard deviation in pixels of a fingerprint; detail is what the blur removes
_MIN_CONTRAST = 1.0  # standard deviation of the detail in grey levels; less is rounding
_COARSE = 8  # frequencies along a side that are compared first
_CHUNK_ROWS = 512, 2048  # rows of the two sets in a matrix product
# (Minimum of the shorter side, decoder flag.) JPEG is decoded smaller at a fraction of the cost.
_REDUCED = (
  (16 * SIDE, cv2.IMREAD_REDUCED_GRAYSCALE_8),
  (8 * SIDE, cv2.IMREAD_REDUCED_GRAYSCALE_4),
  (4 * SIDE, cv2.IMREAD_REDUCED_GRAYSCALE_2),
  (0, cv2.IMREAD_GRAYSCALE),
)


class NearDuplicate(NamedTuple):
  """A row of the second set that looks like a row of the first."""

  row: int
  other: int
  correlation: float


def fingerprint(encoded: bytes) -> bytes:
  """Reduces a complete encoded image, upright, to `SIDE` x `SIDE` grey levels.

  Returns:
    The grey levels, or b'' for images without detail and formats that OpenCV does not decode:
    these are not compared.
  """
  header = image_files.header(encoded)
  shorter = min(header.width, header.height)
  flag = next(flag for side, flag in _REDUCED if shorter >= side)
  grey = cv2.imdecode(np.frombuffer(encoded, np.uint8), flag)
  if grey is None:
    return b''
  small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
  _, contrast = cv2.meanStdDev(_detail(small))
  return small.tobytes() if contrast >= _MIN_CONTRAST else b''


def find(first: np.ndarray, second: np.ndarray) -> list[NearDuplicate]:
  """Finds the rows of the second set that look like a row of the first, with the most similar one.

  Args:
    first, second: fingerprints of two sets, each [N, SIDE * SIDE] uint8.

  Returns:
    In the order of the second set.
  """
  first, second = (images.reshape(-1, SIDE, SIDE) for images in (first, second))
  if not len(first) or not len(second):
    return []
  duplicates = []
  for row, other in enumerate(_nearest(_coarse(first), _coarse(second)).tolist()):
    correlation = float((_unit(_detail(second[row])) * _unit(_detail(first[other]))).sum())
    if correlation > MIN_CORRELATION:
      duplicates.append(NearDuplicate(row, other, correlation))
  return duplicates


def _nearest(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """The row of `first` [N, K] with the largest product, of each row of `second` [M, K]."""
  nearest = np.zeros(len(second), np.int64)
  n_second, n_first = _CHUNK_ROWS
  for i in range(0, len(second), n_second):
    chunk = second[i : i + n_second]
    best = np.full(len(chunk), -np.inf, np.float32)
    for k in range(0, len(first), n_first):
      product = chunk @ first[k : k + n_first].T
      at = product.argmax(1)
      largest = product[np.arange(len(chunk)), at]
      better = largest > best
      nearest[i : i + len(chunk)][better] = k + at[better]
      best = np.maximum(best, largest)
  return nearest


def _coarse(images: np.ndarray) -> np.ndarray:
  """The low frequencies of the detail of [N, SIDE, SIDE]: [N, 64] float32 of length 1."""
  coarse = np.empty((len(images), _COARSE**2), np.float32)
  for i, image in enumerate(images):
    low = cv2.dct(_detail(image))[:_COARSE, :_COARSE]
    low[0, 0] = 0
    coarse[i] = _unit(low).ravel()
  return coarse


def _detail(image: np.ndarray) -> np.ndarray:
  """The difference of [SIDE, SIDE] uint8 from its blurred copy, float32."""
  image = image.astype(np.float32)
  return image - cv2.GaussianBlur(image, (0, 0), _BLUR)


def _unit(values: np.ndarray) -> np.ndarray:
  """Values less their mean, of length 1; 0 if all are equal."""
  values = values - values.mean()
  return values / max(float(np.linalg.norm(values)), 1e-6)
