"""Crops the face before prediction: by a box, by landmarks, or with a face detector.

The functions are those that prepare data sets, so that crops look like the training data.
"""

import dataclasses
import threading
from collections.abc import Mapping, Sequence

import numpy as np

from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.images import face_crop
from flexfas_jax.images import files as image_files

_DETECTOR_LOCK = threading.Lock()  # a detector keeps the image size between two calls


@dataclasses.dataclass(frozen=True)
class FaceCropper:
  """Crops the largest face from all modalities of a sample; of equal ones the most central.

  Attributes:
    recipe: method, margin, alignment.
    yunet: path of the detector's model, for the method 'yunet'.
  """

  recipe: face_crop.CropRecipe
  yunet: str = ''

  def __call__(
    self, images: face_crop.Images, columns: Mapping[str, str]
  ) -> tuple[dict[str, np.ndarray], list[str]]:
    """Crops a sample.

    Args:
      images: {modality: [H, W, C]}, upright and registered.
      columns: {name: text} of the box or landmarks, see `face_crop.face_from_columns`; ignored by
        'yunet'.

    Returns:
      {modality: [S, S, C]} of the face, and notes for the user.

    Raises:
      face_crop.NoFace: no face can be used.
      DataError: the box or landmarks are malformed, or the images are not registered.
    """
    if problem := image_checks.find_size_mismatch(images):
      raise DataError(f'{problem}: one crop requires registered images')
    if self.recipe.method == 'yunet':
      faces, size = self._detect(images)
    else:
      size = face_crop.reference_size(images)
      try:
        faces = [face_crop.face_from_columns(columns, size, self.recipe)]
      except ValueError as error:
        raise DataError(f'{self.recipe.method}: {error}') from None
    face = face_crop.choose(faces, size, self.recipe)
    notes = [f'{len(faces)} faces: the largest is used'] if len(faces) > 1 else []
    return face_crop.crop(images, face, self.recipe), notes

  def _detect(self, images: face_crop.Images) -> tuple[list[face_crop.Face], tuple[int, int]]:
    """(faces, width and height of the image that they were detected in)."""
    image = face_crop.detection_image(images)
    model = face_crop.load_yunet(self.yunet, self.recipe.model_sha256)
    with _DETECTOR_LOCK:
      faces = face_crop.detect_yunet(model, image, self.recipe.min_score)
    return faces, (image.shape[1], image.shape[0])


def make_cropper(
  crop: str | None,
  yunet: str = '',
  yunet_sha256: str = '',
  *,
  margin: float = 0.3,
  align: str = 'none',
  min_size: int = 32,
  min_score: float = 0.6,
) -> FaceCropper | None:
  """Makes the cropper that options describe.

  Args:
    crop: 'box', 'landmarks', 'yunet'; 'none' or None if the images are cropped already.
    yunet: path of the detector's model.
    yunet_sha256: SHA-256 of that file; '': any.
    margin: share of the box's longer side that is added on each side.
    align, min_size, min_score: see `face_crop.CropRecipe`.

  Returns:
    The cropper; None if `crop` is 'none' or None.

  Raises:
    ConfigError: an invalid value, or options that contradict each other.
    DataError: the detector's model cannot be read.
  """
  if not crop or crop == 'none':
    if yunet:
      raise ConfigError('yunet has no effect without crop=yunet')
    if align != 'none':
      raise ConfigError(f'align={align} has no effect without crop=landmarks or crop=yunet')
    return None
  if (crop == 'yunet') != bool(yunet):
    raise ConfigError('crop=yunet requires yunet=FILE (a model file), and no other crop takes it')
  if yunet and not yunet_sha256:
    yunet_sha256 = _digest(yunet)
  recipe = face_crop.CropRecipe(
    crop, margin, align, min_size=min_size, min_score=min_score, model_sha256=yunet_sha256
  )
  if yunet:
    face_crop.load_yunet(str(yunet), recipe.model_sha256)  # report a bad file now
  return FaceCropper(recipe, str(yunet))


def box_columns(box: Sequence[float] | Mapping[str, str] | None) -> dict[str, str]:
  """Converts a box to the columns of a list.

  Args:
    box: (left, top, right, bottom) in pixels, or columns; None: unknown.

  Raises:
    ConfigError: `box` is neither.
  """
  if box is None:
    return dict.fromkeys(face_crop.BOX, '')
  if isinstance(box, Mapping):
    return {name: str(cell) for name, cell in box.items()}
  if not isinstance(box, Sequence | np.ndarray) or len(box) != 4:
    raise ConfigError(f'a box is left, top, right, bottom, in pixels; this is {box!r}')
  return dict(zip(face_crop.BOX, map(str, box), strict=True))


def _digest(path: str) -> str:
  try:
    return image_checks.digest(image_files.read(path))
  except OSError as error:
    raise DataError(f'{path} cannot be read: {error.strerror}') from None
