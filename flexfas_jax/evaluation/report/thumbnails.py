"""Pictures of mistakes, small and in the page itself."""

import base64
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flexfas_jax.images import files as image_files

SIDE = 112  # pixels, of the longer side
_QUALITY = 80


class Thumbnail(NamedTuple):
  """One modality's picture of a sample."""

  modality: str
  url: str  # a data: URI; '' where the picture cannot be read


def thumbnails(pictures: Mapping[str, bytes]) -> Sequence[Thumbnail]:
  """Pictures as they are shown.

  Args:
    pictures: an encoded picture by modality.

  Returns:
    A `Thumbnail` each, in the same order.
  """
  return [Thumbnail(name, _url(encoded)) for name, encoded in pictures.items()]


def _url(encoded: bytes) -> str:
  import cv2  # not needed where no picture is given

  if not _within_limits(encoded):
    return ''
  try:
    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None:
      return ''
    scale = SIDE / max(picture.shape[:2])
    if scale < 1:
      size = [max(1, round(scale * side)) for side in picture.shape[1::-1]]
      picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    if picture.dtype != np.uint8:  # depth of 16 bits: from black to the farthest
      picture = picture.astype(np.float64) * (255 / max(float(picture.max()), 1.0))
      picture = picture.clip(0, 255).astype(np.uint8)
    if picture.ndim == 3 and picture.shape[2] == 4:
      picture = picture[..., :3]
    ok, small = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
  except cv2.error:  # what is not a picture, or too large to be one
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
