"""Reads the triplets of a manifest; crops faces and converts units where options ask for it.

Worker processes import this module: keep its imports few.
"""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from flexfas_jax import schema
from flexfas_jax.data import reading
from flexfas_jax.data.reading import Outcome, SourceRow, encode
from flexfas_jax.errors import ConfigError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.images import face_crop, units
from flexfas_jax.images import files as image_files

# {option: default}, as text from a command line.
OPTIONS = {
  'crop': '',
  'margin': '0.3',
  'align': 'none',
  'size': '0',
  'min_size': '32',
  'quality': '0',
  'yunet': '',
  'yunet_sha256': '',
  'min_score': '0.6',
}
_DETECTOR = ('yunet', 'yunet_sha256', 'min_score')


def recipe(options: Mapping[str, str]) -> face_crop.CropRecipe | None:
  """The recipe that options name, None where nothing is cropped.

  Raises:
    ConfigError: a value that cannot be, one that is missing, or one that would do nothing.
  """
  method = options['crop']
  idle = [name for name in OPTIONS if options[name] != OPTIONS[name] and name != 'crop']
  if method == 'yunet':
    if missing := [name for name in ('yunet', 'yunet_sha256') if not options[name]]:
      raise ConfigError(
        f'crop=yunet needs --option {missing[0]}=...: yunet is the model file that you have, '
        'yunet_sha256 what its bytes must be (sha256sum FILE prints it)'
      )
    if not re.fullmatch('[0-9a-fA-F]{64}', options['yunet_sha256']):
      raise ConfigError(f'yunet_sha256 is {options["yunet_sha256"]!r}, not 64 hexadecimal digits')
    idle = []
  elif method:
    idle = [name for name in idle if name in _DETECTOR]
  if idle:
    raise ConfigError(
      f'{idle[0]} does nothing with crop={method or "nothing"}; crop is one of: '
      f'{", ".join(face_crop.METHODS)}'
    )
  if not method:
    return None
  return face_crop.CropRecipe(
    method,
    margin=number(options, 'margin'),
    align=options['align'],
    size=whole(options, 'size'),
    min_size=whole(options, 'min_size'),
    min_score=number(options, 'min_score'),
    model_sha256=options['yunet_sha256'].lower(),
  )


def quality(options: Mapping[str, str]) -> int:
  """JPEG's quality for crops of RGB and infrared; 0 is PNG."""
  value = whole(options, 'quality')
  if value > 100:
    raise ConfigError(f'quality is {value}; it goes from 1 to 100, and 0 stores PNG')
  return value


def number(options: Mapping[str, str], name: str) -> float:
  """An option as a number.

  Raises:
    ConfigError: it is none.
  """
  try:
    return float(options[name])
  except ValueError:
    raise ConfigError(f'{name} is {options[name]!r}, not a number') from None


def whole(options: Mapping[str, str], name: str) -> int:
  """An option as a number without a sign or fraction.

  Raises:
    ConfigError: it is none.
  """
  if not re.fullmatch('[0-9]{1,9}', options[name]):
    raise ConfigError(f'{name} is {options[name]!r}, not a whole number')
  return int(options[name])


@dataclasses.dataclass(frozen=True)
class Reader(reading.Reader):
  """Reads rows; what is neither cropped nor converted keeps its bytes.

  Attributes:
    stored_rules: requirements on stored images; `rules` are those before conversion,
      with the units of conversion.
    recipe: how faces are cropped.
    yunet: the detector's file.
    quality: JPEG's for crops of RGB and infrared; 0 is PNG.
  """

  stored_rules: image_checks.Rules = image_checks.Rules()
  recipe: face_crop.CropRecipe | None = None
  yunet: str = ''
  quality: int = 0

  def keeps_bytes(self, encoded: bytes) -> bool:
    """As of every reader, where nothing is cropped or converted."""
    return not self._changes() and super().keeps_bytes(encoded)

  def as_stored(self, read: Outcome) -> Outcome:
    """The images cropped and in the units that are stored, and what is wrong with them then."""
    if not self._changes():
      return super().as_stored(read)
    row = read.row
    images, problems = self._changed(row, read.images)
    if problems:
      return Outcome(row, {}, problems)
    found = image_checks.inspect(images, self.stored_rules, self.max_pixels)
    problems = [(rule, f'{row.facts["id"]}, as it is stored: {text}') for rule, text in found]
    return Outcome(row, images, problems)

  def _changes(self) -> bool:
    return bool(self.recipe or any(self.rules.units))

  def _changed(
    self, row: SourceRow, encoded: Mapping[str, bytes]
  ) -> tuple[dict[str, bytes], list[image_checks.Problem]]:
    """The images as they are stored, or their problems."""
    decoded = {
      m: image_checks.decode_for_modality(e, m, row.files[m], self.max_pixels)
      for m, e in encoded.items()
    }
    # Without a ValueError: the image was checked by the same units.
    images = {m: units.convert(one, m, self.rules.units) for m, one in decoded.items()}
    if not self.recipe:
      same = {
        m
        for m, one in images.items()
        if image_files.is_jpeg_or_png(encoded[m]) and np.array_equal(one, decoded[m])
      }
      return {m: encoded[m] if m in same else encode(one) for m, one in images.items()}, []
    images = {
      m: face_crop.turn_upright(image, image_files.orientation(encoded[m]))
      for m, image in images.items()
    }
    if found := image_checks.find_size_mismatch(images):
      return {}, [('size', f'{row.facts["id"]}: {found}: one crop requires registered images')]
    try:
      images = face_crop.crop(images, self._face(row, images), self.recipe)
    except face_crop.NoFace as error:
      return {}, [('no-face', f'{row.files[face_crop.reference_modality(images)]}: {error}')]
    return {
      m: encode(image, 0 if schema.is_distance(m) else self.quality) for m, image in images.items()
    }, []

  def _face(self, row: SourceRow, images: face_crop.Images) -> face_crop.Face:
    if self.recipe.method != 'yunet':
      size = face_crop.reference_size(images)
      return face_crop.choose(
        [face_crop.face_from_columns(row.extra, size, self.recipe)], size, self.recipe
      )
    seen = face_crop.detection_image(images)
    model = face_crop.load_yunet(self.yunet, self.recipe.model_sha256)
    found = face_crop.detect_yunet(model, seen, self.recipe.min_score)
    return face_crop.choose(found, (seen.shape[1], seen.shape[0]), self.recipe)
