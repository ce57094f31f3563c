"""Geometry of images: decoding, crop, resize, flip, rotation.

A view is drawn once per sample and applied to all modalities, so that they stay registered.
Coordinates are fractions of the sides of an image: the modalities may differ in size.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from flexfas_jax import schema
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images import formats

cv2.setNumThreads(0)  # Grain's threads are the parallelism; OpenCV's own would fight them

# How images are resized: 'area' averages where they shrink and never mixes depth; 'bilinear' is
# OpenCV's default, which the references use for every modality.
RESIZES = ('area', 'bilinear')

# Images larger than this multiple of the target size are resized before they are rotated.
_LARGER = 1.15


class View(NamedTuple):
  """A region and an orientation of a sample, the same for all its modalities."""

  box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)  # left, top, right, bottom
  angle: float = 0.0  # degrees, counter-clockwise, about the crop's centre
  flip: bool = False  # left-right
  rotate_first: bool = False  # rotate the whole image about its own centre, then crop


def draw_view(
  rng: np.random.Generator,
  flip: float = 0.0,
  rotate: float = 0.0,
  crop: tuple[float, float] = (1.0, 1.0),
  aspect: tuple[float, float] = (1.0, 1.0),
  rotate_first: bool = False,
) -> View:
  """Draws a view.

  Args:
    rng: this sample's generator.
    flip: probability of a left-right flip.
    rotate: largest angle, degrees.
    crop: range of the crop's share of the area.
    aspect: range of the crop's width / height, drawn evenly in its logarithm.
    rotate_first: rotate the whole image before the crop, as MM-FAS does, so that the crop may hold
      the black corners of the rotation; else the crop is rotated about its own centre.
  """
  # Always the same number of draws: changing one field leaves the others' draws alone.
  area, ratio, x, y, turn, mirror = rng.uniform(size=6)
  area = crop[0] + area * (crop[1] - crop[0])
  ratio = np.exp(np.log(aspect[0]) + ratio * (np.log(aspect[1]) - np.log(aspect[0])))
  width, height = min(1.0, np.sqrt(area * ratio)), min(1.0, np.sqrt(area / ratio))
  left, top = x * (1 - width), y * (1 - height)
  box = (left, top, left + width, top + height)
  return View(box, (2 * turn - 1) * rotate, bool(mirror < flip), rotate_first)


_PLACES = {  # of a crop: shares of the remaining width and height that are left of and above it
  'centre': (0.5, 0.5),
  'top_left': (0.0, 0.0),
  'top_right': (1.0, 0.0),
  'bottom_left': (0.0, 1.0),
  'bottom_right': (1.0, 1.0),
}


def parse_views(names: Sequence[str]) -> dict[str, View]:
  """The views {name: view} by which val and tests are scored; `five_crops` becomes five views.

  Args:
    names: 'whole', or some of these, each once, joined by +: 'flip'; 'turn=A', A degrees
      counter-clockwise; 'centre=F', 'top_left=F', 'top_right=F', 'bottom_left=F', 'bottom_right=F',
      a crop of F of the sides; 'five_crops=F', these five. MM-FAS uses the centre and its mirror
      image: ('centre=0.896', 'centre=0.896+flip'), 112 of 125 pixels.

  Raises:
    ConfigError: an unknown or repeated name, or no name.
  """
  if isinstance(names, str) or not all(isinstance(name, str) for name in names):
    raise ConfigError(f"config.views is {names!r}; give names, such as ('whole', 'flip')")
  views = {}
  for name in names:
    parts = name.split('+')
    crops = [part for part in parts if part.startswith('five_crops=')]
    every = [
      '+'.join(part.replace('five_crops', place) if part in crops else part for part in parts)
      for place in (_PLACES if crops else [''])
    ]
    for expanded in every:
      if expanded in views:
        raise ConfigError(f'config.views has {expanded!r} twice')
      views[expanded] = _parse_view(expanded)
  if not views:
    raise ConfigError("config.views is empty; ('whole',) is the whole image")
  return views


def _parse_view(name: str) -> View:
  fields = {}
  for part in name.split('+') if name != 'whole' else ():
    what, _, value = part.partition('=')
    try:
      number = float(value) if value else None
    except ValueError:
      number = float('nan')
    if what == 'flip' and not value:
      field, parsed = 'flip', True
    elif what == 'turn' and number is not None and -180 <= number <= 180:
      field, parsed = 'angle', number
    elif what in _PLACES and number is not None and 0 < number <= 1:
      left, top = (room * (1 - number) for room in _PLACES[what])
      field, parsed = 'box', (left, top, left + number, top + number)
    else:
      raise ConfigError(
        f"config.views: {name!r} is no view; write 'whole', or some of 'flip', 'turn=10', "
        f"'five_crops=0.9' and {', '.join(f'{place}=0.9' for place in _PLACES)}, joined by +"
      )
    if field in fields:
      raise ConfigError(f'config.views: {name!r} sets its {field} twice')
    fields[field] = parsed
  return View(**fields)


def check_resize(name: str) -> None:
  """Raises a ConfigError if a name is not one of `RESIZES`."""
  if name not in RESIZES:
    raise ConfigError(f'config.resize is {name!r}; choose one of: {", ".join(RESIZES)}')


def decode(encoded: bytes, modality: str, where: str) -> np.ndarray:
  """Decodes an image to [H, W, 3] RGB, or [H, W, 1] for other modalities; uint8 or uint16.

  Args:
    encoded: JPEG or PNG.
    modality: one of `schema.MODALITIES`.
    where: named in the error: the example's id.

  Raises:
    DataError: not an image.
  """
  # Unchanged: IMREAD_COLOR silently cuts 16-bit depth to 8 bits.
  image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
  if image is None:
    raise DataError(
      f'{where}: {modality} is not a readable image ({len(encoded)} bytes, starting with '
      f'{formats.describe_start(encoded)}); prepare the data set again'
    )
  if image.ndim == 2:
    image = image[..., None]
  if image.shape[-1] == 4:
    image = image[..., :3]
  if schema.is_color(modality):
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[-1] == 3 else cv2.COLOR_GRAY2RGB)
  return image if image.shape[-1] == 1 else image[..., :1]  # a grey image stored with 3 channels


def set_channels(image: np.ndarray, modality: str) -> np.ndarray:
  """Gives [H, W], [H, W, 1] or [H, W, 3] (red first) the channels of a modality."""
  image = image[..., None] if image.ndim == 2 else image
  if not schema.is_color(modality):
    image = image[..., :1]
  elif image.shape[-1] == 1:
    image = np.repeat(image, 3, -1)
  return np.ascontiguousarray(image)


def apply_view(
  image: np.ndarray, view: View, size: int, nearest: bool = False, bilinear: bool = False
) -> np.ndarray:
  """Applies a view to an image [H, W, C]: [size, size, C] of the same dtype.

  Args:
    image: uint8 or uint16.
    view: from `draw_view`, or `View()` for the whole image.
    size: pixels.
    nearest: never mix pixels: for depth, whose holes (0) would become distances.
    bilinear: sample bilinearly also where the image shrinks, as OpenCV does by default.
  """
  H, W, C = image.shape
  if view.rotate_first and view.angle:
    image, view = _rotate(image, view.angle, nearest), view._replace(angle=0.0)
  left, top, right, bottom = view.box
  x0, y0 = int(round(left * W)), int(round(top * H))
  x1, y1 = max(x0 + 1, int(round(right * W))), max(y0 + 1, int(round(bottom * H)))
  image = image[y0:y1, x0:x1]
  h, w = y1 - y0, x1 - x0
  # The rotation resizes images that are not much larger: it samples nearly every pixel.
  if not view.angle or (max(h, w) > _LARGER * size and not (nearest or bilinear)):
    # Averaging where it shrinks: bilinear would alias halftones and moire, which are evidence here.
    smooth = cv2.INTER_AREA if min(h, w) > size and not bilinear else cv2.INTER_LINEAR
    how = cv2.INTER_NEAREST if nearest else smooth
    image = cv2.resize(np.ascontiguousarray(image), (size, size), interpolation=how)
  if view.angle:
    image = _rotate_and_resize(image.reshape(*image.shape[:2], C), view, size, nearest)
  elif view.flip:
    image = cv2.flip(image, 1)
  return image.reshape(size, size, C)


def _rotate_and_resize(image: np.ndarray, view: View, size: int, nearest: bool) -> np.ndarray:
  """[h, w, C] rotated about its centre, flipped if the view is, to [size, size, C]."""
  h, w, _ = image.shape
  back = _rotation(view.angle)
  if view.flip:
    back[:, 0] *= -1  # the flip is the last step
  back *= np.array([[w], [h]]) / size
  place = np.array([[w - 1], [h - 1]]) / 2 - back.sum(1, keepdims=True) * (size - 1) / 2
  return _warp(image, np.hstack([back, place]), (size, size), nearest)


def _rotate(image: np.ndarray, angle: float, nearest: bool) -> np.ndarray:
  """[H, W, C] rotated about its centre, of the same shape; black outside the image."""
  H, W, _ = image.shape
  back, centre = _rotation(angle), np.array([[W - 1], [H - 1]]) / 2
  return _warp(image, np.hstack([back, centre - back @ centre]), (W, H), nearest)


def _rotation(angle: float) -> np.ndarray:
  """[2, 2], from target to source positions."""
  cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
  return np.array([[cos, -sin], [sin, cos]])


def _warp(image: np.ndarray, back: np.ndarray, shape: tuple[int, int], nearest: bool) -> np.ndarray:
  """[h, w, C] to [*, *, C] of `shape` = (width, height); `back` [2, 3] is the inverse map."""
  C = image.shape[-1]
  if C == 3:  # OpenCV warps four channels in a third of the time of three
    image = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
  how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
  image = cv2.warpAffine(image, back, shape, flags=how | cv2.WARP_INVERSE_MAP)
  return cv2.cvtColor(image, cv2.COLOR_RGBA2RGB) if C == 3 else image.reshape(*image.shape[:2], C)
