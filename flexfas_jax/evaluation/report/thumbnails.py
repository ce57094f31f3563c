"""ImageFinder of mistakes, small and in the page itself."""

import base64
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flexfas_jax.images import files as image_files

SIDE = 112  # pixels, of the longer side
_QUALITY = 80


class Thumbnail(NamedTuple):
  """One modality's image of a sample."""

  modality: str
  url: str  # a data: URI; '' where the image cannot be read


def thumbnails(images: Mapping[str, bytes]) -> Sequence[Thumbnail]:
  """ImageFinder as they are shown.

  Args:
    images: an encoded image by modality.

  Returns:
    A `Thumbnail` each, in the same order.
  """
  return [Thumbnail(name, _url(encoded)) for name, encoded in images.items()]


def _url(encoded: bytes) -> str:
  import cv2  # not needed where no image is given

  if not _within_limits(encoded):
    return ''
  try:
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
      return ''
    scale = SIDE / max(image.shape[:2])
    if scale < 1:
      size = [max(1, round(scale * side)) for side in image.shape[1::-1]]
      image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if image.dtype != np.uint8:  # depth of 16 bits: from black to the farthest
      image = image.astype(np.float64) * (255 / max(float(image.max()), 1.0))
      image = image.clip(0, 255).astype(np.uint8)
    if image.ndim == 3 and image.shape[2] == 4:
      image = image[..., :3]
    ok, small = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
  except cv2.error:  # what is not a image, or too large to be one
    return ''
  return 'data:image/jpeg;base64,' + base64.b64encode(small).decode() if ok else ''


def _within_limits(encoded: bytes) -> bool:
  """Whether an image is one that is shown, and small enough to decode, by its header."""
  if encoded[:2] == b'BM':  # a bitmap, which only reports show
    width, height = (int.from_bytes(encoded[i : i + 4], 'little', signed=True) for i in (18, 22))
    return abs(width * height) <= image_files.MAX_PIXELS
  if not image_files.is_jpeg_or_png(encoded):
    return False
  try:
    image_files.check(encoded)
  except image_files.Unreadable:
    return False
  return True
