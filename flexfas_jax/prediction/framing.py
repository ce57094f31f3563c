"""The face, cut out of pictures that show more: by a box, landmarks, or a detector.

By the functions that prepare data sets, so that a model sees crops of the kind that it knows. Of
several faces the largest is taken; of equal ones the most central.
"""

import dataclasses
import threading
from collections.abc import Mapping, Sequence

import numpy as np

from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.images import face_crop
from flexfas_jax.images import files as image_files

_DETECTING = threading.Lock()  # a detector is told a picture's size, then shown it


@dataclasses.dataclass(frozen=True)
class Framing:
  """How faces are cut out.

  Attributes:
    recipe: method, margin, alignment.
    yunet: the detector's file, of the method 'yunet'.
  """

  recipe: face_crop.Recipe
  yunet: str = ''

  def __call__(
    self, images: face_crop.Images, columns: Mapping[str, str]
  ) -> tuple[dict[str, np.ndarray], list[str]]:
    """The square about the face in every modality, and what should be known of it.

    Args:
      images: {modality: [H, W, C]}, upright and registered.
      columns: where the face is, of the methods that are told; see `faces.named`.

    Raises:
      faces.NoFace: there is none that could be judged.
      DataError: the box or landmarks are no such thing; the pictures cannot be registered.
    """
    if found := image_checks.find_size_mismatch(images):
      raise DataError(f'{found}: one crop requires registered images')
    if self.recipe.method == 'yunet':
      seen = face_crop.detection_image(images)
      model = face_crop.load_yunet(self.yunet, self.recipe.model_sha256)
      with _DETECTING:
        found = face_crop.detect_yunet(model, seen, self.recipe.min_score)
      size = seen.shape[1], seen.shape[0]
    else:
      size = face_crop.reference_size(images)
      try:
        found = [face_crop.face_from_columns(columns, size, self.recipe)]
      except ValueError as error:
        raise DataError(f'{self.recipe.method}: {error}') from None
    face = face_crop.choose(found, size, self.recipe)
    told = [f'{len(found)} faces: the largest is judged'] if len(found) > 1 else []
    return face_crop.crop(images, face, self.recipe), told


def make(
  crop: str | None,
  yunet: str = '',
  yunet_sha256: str = '',
  *,
  margin: float = 0.3,
  align: str = 'none',
  min_size: int = 32,
  min_score: float = 0.6,
) -> Framing | None:
  """The framing that a command line or a caller names; None: pictures are of faces already.

  Args:
    crop: 'box', 'landmarks', 'yunet' or None.
    yunet: the detector's file.
    yunet_sha256: what its bytes must be; '': whatever they are.
    margin: share of the box's longer side that is added on each side.
    align, min_size, min_score: see `faces.Recipe`.

  Raises:
    ConfigError: a value that cannot be.
    DataError: no such detector.
  """
  if not crop or crop == 'none':
    if yunet:
      raise ConfigError('a YuNet does nothing without crop=yunet')
    if align != 'none':
      raise ConfigError(f'align={align} does nothing without crop=landmarks or crop=yunet')
    return None
  if (crop == 'yunet') != bool(yunet):
    raise ConfigError('crop=yunet needs yunet=FILE, the model file that you have, and only it does')
  if yunet and not yunet_sha256:
    yunet_sha256 = _digest(yunet)
  recipe = face_crop.Recipe(
    crop, margin, align, min_size=min_size, min_score=min_score, model_sha256=yunet_sha256
  )
  framing = Framing(recipe, str(yunet))
  if yunet:
    face_crop.load_yunet(framing.yunet, framing.recipe.model_sha256)  # what is wrong is told now
  return framing


def columns_of(box: Sequence[float] | Mapping[str, str] | None) -> dict[str, str]:
  """Where a face is, as lists say it: (left, top, right, bottom) in pixels, or named cells."""
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
