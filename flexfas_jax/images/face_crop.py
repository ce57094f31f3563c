"""One face, cut out of all modalities at once: where it is, which one it is, and the crop.

Data preparation and prediction call the same functions, so that a model gets the same crops:

  recipe = CropRecipe('yunet', margin=0.3, align='eyes', size=224, model_sha256='...')
  model = load_yunet('face_detection_yunet_2023mar.onnx', recipe.model_sha256)
  face = choose(detect_yunet(model, images['rgb'], recipe.min_score), size_of(images), recipe)
  cropped = crop(images, face, recipe)

Images are {modality: [H, W, C]} as `geometry.decode` returns them, turned by `turn_upright`. They
may differ in size and must be registered: the same fraction of their sides is the same place of the
scene. `image_checks.find_size_mismatch` detects different aspect ratios.
"""

import contextlib
import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from flexfas_jax import schema
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images import files as image_files

METHODS = ('box', 'landmarks', 'yunet')
ALIGNMENTS = ('none', 'eyes')
BOX = ('left', 'top', 'right', 'bottom')  # columns, in pixels of the reference modality
EYES = ('left_eye_x', 'left_eye_y', 'right_eye_x', 'right_eye_y')
MOUTH = ('mouth_left_x', 'mouth_left_y', 'mouth_right_x', 'mouth_right_y')

INSIDE = 0.75  # share of a face's box that must lie in the image
EQUAL = 0.95  # faces with this share of the largest one's side are equally large
LONGEST = 640  # pixels along the longer side: larger images are resized for the detector
# The side of a face's box, brow to chin, in distances between the eyes or from eyes to mouth. In
# profile the eyes are near to each other, but not to the mouth.
_BY_EYES, _BY_MOUTH, _DOWN = 2.4, 2.07, 0.58
_OVERLAP, _MOST = 0.3, 500  # non-maximum suppression of boxes, as in OpenCV's examples

Point = tuple[float, float]
Images = Mapping[str, np.ndarray]


class NoFace(Exception):
  """There is no face that can be cropped; the message states why."""


class Face(NamedTuple):
  """A face in an image, in fractions of the sides of the image."""

  box: tuple[float, float, float, float]  # left, top, right, bottom; brow to chin
  eyes: tuple[Point, Point] | None = None  # from left to right in the image
  score: float = 1.0


@dataclasses.dataclass(frozen=True)
class CropRecipe:
  """How faces are cropped; equal recipes give equal crops with one version of OpenCV.

  Attributes:
    method: source of the face: 'box', 'landmarks' (given with the image) or 'yunet'.
    margin: share of the box's longer side that is added on each side.
    align: 'eyes' turns the crop so that the eyes are level; 'none' leaves all pixels as they are.
    size: pixels along a side of all modalities; 0 leaves each its own.
    min_size: pixels along the longer side of the box; smaller faces are refused.
    min_score: of the detector; detections with lower scores are ignored.
    model_sha256: of the detector's file.

  Raises:
    ConfigError: an invalid value.
  """

  method: str
  margin: float = 0.3
  align: str = 'none'
  size: int = 0
  min_size: int = 32
  min_score: float = 0.6
  model_sha256: str = ''

  def __post_init__(self):
    if self.method not in METHODS:
      raise ConfigError(f'crop is {self.method!r}; choose one of: {", ".join(METHODS)}')
    if self.align not in ALIGNMENTS:
      raise ConfigError(f'align is {self.align!r}; choose one of: {", ".join(ALIGNMENTS)}')
    for name, low, high in (
      ('margin', 0, 2), ('size', 0, 4096), ('min_size', 1, 4096), ('min_score', 0, 1),
    ):  # fmt: skip
      if not low <= getattr(self, name) <= high:
        raise ConfigError(f'{name} is {getattr(self, name)}; it goes from {low} to {high}')
    if self.method == 'yunet' and not self.model_sha256:
      raise ConfigError('crop=yunet requires the SHA-256 of the model file')

  def record(self) -> dict[str, Any]:
    """Everything that determines a crop, as JSON."""
    record = dataclasses.asdict(self) | {
      'opencv': cv2.__version__,
      'several_faces': 'the largest; of equal ones the most central',
      'cut_faces': f'refused where less than {INSIDE:.0%} of the box is in the image',
      'outside_the_image': 0,
      'exif_orientation': 'applied',
    }
    if self.method != 'yunet':
      del record['min_score'], record['model_sha256']
    return record


def reference_modality(images: Images) -> str:
  """The modality whose pixels boxes and sizes are in: the one with colours, or else the first."""
  return next(filter(schema.is_color, images), next(iter(images)))


def detection_image(images: Images) -> np.ndarray:
  """The image that a detector searches: the first with colours or intensities, in schema order.

  Raises:
    NoFace: there are distances alone.
  """
  for modality in schema.MODALITIES:
    if modality in images and not schema.is_distance(modality):
      return images[modality]
  raise NoFace('there is no RGB and no infrared image to detect one in')


def reference_size(images: Images) -> tuple[int, int]:
  """Width and height of the reference modality."""
  height, width = images[reference_modality(images)].shape[:2]
  return width, height


def turn_upright(image: np.ndarray, orientation: int) -> np.ndarray:
  """Turns an image [H, W, C] as its EXIF orientation (1 to 8) requires."""
  if orientation in (5, 6, 7, 8):
    image = image.swapaxes(0, 1)
  if orientation in (2, 3, 6, 7):
    image = image[:, ::-1]
  if orientation in (3, 4, 7, 8):
    image = image[::-1]
  return np.ascontiguousarray(image)


def face_from_columns(
  columns: Mapping[str, str], size: tuple[int, int], recipe: CropRecipe
) -> Face:
  """The face in the columns of a list, with the method 'box' or 'landmarks'.

  Args:
    columns: {name: text} with those of `BOX`, or of `EYES` and perhaps `MOUTH`, in pixels.
    size: width and height of the reference image.
    recipe: its method and alignment determine the required columns.

  Raises:
    NoFace: the cells are empty.
    ValueError: no such columns, or no such box or eyes.
  """
  eyes = None
  if recipe.method == 'landmarks' or recipe.align == 'eyes':
    eyes = _points(_numbers(columns, EYES))
    # Sorted: lists differ on whether "left" is that of the image or of the subject.
    eyes = min(eyes), max(eyes)
    if math.dist(*eyes) < 1:
      raise ValueError(f'the eyes are at one place: {eyes[0]}')
  if recipe.method == 'box':
    left, top, right, bottom = _numbers(columns, BOX)
    if right <= left or bottom <= top:
      raise ValueError(f'the box has no inside: {left:g}, {top:g} to {right:g}, {bottom:g}')
    box = left, top, right, bottom
  else:
    with_mouth = any(columns.get(name) for name in MOUTH)
    box = _box_around(eyes, _points(_numbers(columns, MOUTH)) if with_mouth else None)
  return _in_shares(box, eyes, 1.0, size)


def _numbers(columns: Mapping[str, str], names: Sequence[str]) -> list[float]:
  if missing := [name for name in names if name not in columns]:
    raise ValueError(f'there is no column {missing[0]}; due are {",".join(names)}')
  cells = [columns[name] for name in names]
  if not all(cells):
    raise NoFace(f'none is named in {",".join(names)}')
  try:
    numbers = [float(cell) for cell in cells]
  except ValueError:
    numbers = [math.nan]
  if not all(map(math.isfinite, numbers)):
    raise ValueError(f'{",".join(names)} are no numbers: {",".join(cells)}')
  return numbers


def _points(numbers: list[float]) -> tuple[Point, Point]:
  return (numbers[0], numbers[1]), (numbers[2], numbers[3])


def _box_around(eyes: tuple[Point, Point], mouth: tuple[Point, Point] | None) -> tuple:
  """The square about a face with these landmarks, in pixels."""
  (x0, y0), (x1, y1) = eyes
  apart, x, y = math.dist(*eyes), (x0 + x1) / 2, (y0 + y1) / 2
  if mouth:
    down, below = (sum(m) / 2 for m in zip(*mouth, strict=True))
    side = max(_BY_EYES * apart, _BY_MOUTH * math.dist((x, y), (down, below)))
    x, y = (x + down) / 2, (y + below) / 2
  else:  # at right angles to the line through the eyes
    side = _BY_EYES * apart
    x, y = x - _DOWN * (y1 - y0), y + _DOWN * (x1 - x0)
  return x - side / 2, y - side / 2, x + side / 2, y + side / 2


def _in_shares(box, eyes, score: float, size: tuple[int, int]) -> Face:
  width, height = size
  left, top, right, bottom = box
  eyes = eyes and tuple((x / width, y / height) for x, y in eyes)
  return Face((left / width, top / height, right / width, bottom / height), eyes, score)


@functools.lru_cache(maxsize=4)
def load_yunet(path: str, sha256: str) -> cv2.FaceDetectorYN:
  """OpenCV's face detector with the user's own model file, once per process.

  Args:
    path: `face_detection_yunet_*.onnx`.
    sha256: the expected digest of the file.

  Raises:
    DataError: no such file, another digest, or not YuNet.
  """
  try:
    content = image_files.read(path)
  except OSError as error:
    raise DataError(f'{path} cannot be read: {error.strerror}') from None
  found = hashlib.sha256(content).hexdigest()
  if found != sha256.lower():
    raise DataError(f'{path} has the SHA-256 {found}, expected {sha256.lower()}')
  content = np.frombuffer(content, np.uint8)
  try:
    with _opencv_warnings_off():
      model = cv2.FaceDetectorYN.create(
        'onnx', content, content[:0], (64, 64), 0.5, _OVERLAP, _MOST
      )
      model.detect(np.zeros((64, 64, 3), np.uint8))
  except cv2.error as error:
    raise DataError(
      f'{path} is not a YuNet that OpenCV {cv2.__version__} runs ({error.err or error})'
    ) from None
  return model


@contextlib.contextmanager
def _opencv_warnings_off():
  """Hides a warning of OpenCV 5 about the target of every detector; OpenCV 4 has none."""
  log = getattr(cv2.utils, 'logging', None)
  level = log and log.getLogLevel()
  if log:
    log.setLogLevel(log.LOG_LEVEL_ERROR)
  try:
    yield
  finally:
    if log:
      log.setLogLevel(level)


def detect_yunet(
  model: cv2.FaceDetectorYN, image: np.ndarray, min_score: float = 0.6
) -> list[Face]:
  """Detects faces, in the order of decreasing score.

  Args:
    model: of `load_yunet`.
    image: [H, W, 3] RGB, or [H, W, 1] infrared; uint8 or uint16.
    min_score: detections with lower scores are left out.
  """
  if image.dtype != np.uint8:  # sensors use different parts of 16 bits
    image = np.rint(image.astype(np.float32) * (255 / max(1, int(image.max())))).astype(np.uint8)
  H, W, _ = image.shape
  bgr = np.ascontiguousarray(np.broadcast_to(image, (H, W, 3))[..., ::-1])
  if (shrunk := LONGEST / max(H, W)) < 1:
    size = max(1, round(W * shrunk)), max(1, round(H * shrunk))
    bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
  size = bgr.shape[1::-1]
  model.setInputSize(size)
  model.setScoreThreshold(min_score)
  _, found = model.detect(bgr)
  faces = []
  for x, y, w, h, *points, score in np.asarray([] if found is None else found, float).tolist():
    eyes = _points(points)
    faces.append(_in_shares((x, y, x + w, y + h), (min(eyes), max(eyes)), score, size))
  return sorted(faces, key=lambda face: -face.score)


def choose(faces: Sequence[Face], size: tuple[int, int], recipe: CropRecipe) -> Face:
  """The face of the subject: the largest; of equal ones the most central.

  If the largest cannot be used, there is none: a bystander's face is never chosen instead.

  Args:
    faces: any number.
    size: width and height of the image, in pixels.
    recipe: its `min_size`.

  Raises:
    NoFace: there is none, or it is too small, or cut by the border.
  """
  if not faces:
    raise NoFace('none was found')
  width, height = size

  def side(face: Face) -> float:
    left, top, right, bottom = face.box
    return max((right - left) * width, (bottom - top) * height)

  def off_centre(face: Face) -> float:
    left, top, right, bottom = face.box
    return math.hypot(((left + right) / 2 - 0.5) * width, ((top + bottom) / 2 - 0.5) * height)

  largest = max(map(side, faces))
  face = min((f for f in faces if side(f) >= EQUAL * largest), key=off_centre)
  if side(face) < recipe.min_size:
    raise NoFace(
      f'it has {side(face):.0f} pixels along its longer side, and {recipe.min_size} are due'
    )
  if (seen := _visible_share(face.box)) < INSIDE:
    raise NoFace(f'{seen:.0%} of its box is in the image of {width} x {height} pixels')
  return face


def _visible_share(box: tuple[float, float, float, float]) -> float:
  """The share of a box that lies in the image."""
  left, top, right, bottom = box
  across = max(0.0, min(1.0, right) - max(0.0, left)) / (right - left)
  return across * max(0.0, min(1.0, bottom) - max(0.0, top)) / (bottom - top)


def crop(images: Images, face: Face, recipe: CropRecipe) -> dict[str, np.ndarray]:
  """Crops the square about a face from every modality.

  Without alignment and size, pixels are copied. Otherwise depth takes the nearest pixel, since a
  mean of two distances is none. Pixels outside the image are 0: black, not measured.

  Args:
    images: {modality: [H, W, C]}, registered.
    face: in the reference modality.
    recipe: margin, alignment and size.

  Returns:
    {modality: [S, S, C]} of the same dtypes. S is `recipe.size`, or the stored pixels.
  """
  width, height = reference_size(images)
  left, top, right, bottom = face.box
  side = max((right - left) * width, (bottom - top) * height) * (1 + 2 * recipe.margin)
  angle = 0.0
  if recipe.align == 'eyes':
    if face.eyes is None:
      raise NoFace('its eyes are not known')
    (x0, y0), (x1, y1) = face.eyes
    angle = math.atan2((y1 - y0) * height, (x1 - x0) * width)
  cut = {}
  for modality, image in images.items():
    H, W, _ = image.shape
    centre = (left + right) / 2 * W, (top + bottom) / 2 * H
    pixels = max(1, round(side * math.sqrt(W / width * H / height)))
    nearest = schema.is_distance(modality)
    if recipe.align == 'eyes':
      image = _cut_rotated(image, centre, pixels, angle, nearest)
    else:
      image = _cut_window(image, centre, pixels)
    cut[modality] = _resize(image, recipe.size, nearest) if recipe.size else image
  return cut


def _cut_window(image: np.ndarray, centre: Point, pixels: int) -> np.ndarray:
  """The square of pixels about a place, zeros where it leaves the image."""
  H, W, C = image.shape
  left, top = (math.floor(c - pixels / 2 + 0.5) for c in centre)
  x0, y0, x1, y1 = max(0, left), max(0, top), min(W, left + pixels), min(H, top + pixels)
  square = np.zeros((pixels, pixels, C), image.dtype)
  square[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
  return square


def _cut_rotated(
  image: np.ndarray, centre: Point, pixels: int, angle: float, nearest: bool
) -> np.ndarray:
  """The square about a place whose upper side runs at an angle (radians, clockwise)."""
  cos, sin = math.cos(angle), math.sin(angle)
  half = (pixels - 1) / 2  # from the first pixel's middle to the square's
  x, y = centre[0] - 0.5, centre[1] - 0.5
  back = np.array([[cos, -sin, x - half * (cos - sin)], [sin, cos, y - half * (sin + cos)]])
  how = (cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
  square = cv2.warpAffine(np.ascontiguousarray(image), back, (pixels, pixels), flags=how)
  return square.reshape(pixels, pixels, -1)


def _resize(square: np.ndarray, size: int, nearest: bool) -> np.ndarray:
  # Averaging where it shrinks: bilinear would alias halftones and moire, which are evidence here.
  smooth = cv2.INTER_AREA if square.shape[0] > size else cv2.INTER_LINEAR
  # EXACT: the plain one takes the first pixel of a step, half a step beside the other modalities.
  how = cv2.INTER_NEAREST_EXACT if nearest else smooth
  square = cv2.resize(square, (size, size), interpolation=how)
  return square.reshape(size, size, -1)
