"""Samples of PADISI-Face, from their npz files, as images.

Light on purpose: worker processes import it.
"""

import dataclasses
import zipfile

import cv2
import numpy as np

from flexfas_jax.data import reading
from flexfas_jax.images import files as image_files
from flexfas_jax.images.files import Unreadable
from flexfas_jax.protocols import relative_paths

KEY = 'data'
CHANNELS = 22  # blue, green, red, near infrared, depth, thermal, and more that are not read
SHAPE = (1, CHANNELS, 320, 256)
_PLACES = {'rgb': slice(0, 3), 'ir': 3, 'depth': 4}
_COMPRESSION = [cv2.IMWRITE_PNG_COMPRESSION, 6]  # explicit, since the default of OpenCV may change


class _OutOfRange(Exception):
  """Values that are not of 0 to 1."""


@dataclasses.dataclass(frozen=True)
class SampleReader(reading.Reader):
  """Reads rows whose files are 'PATH.npz#rgb', '#depth', '#ir'.

  Attributes:
    rounding: of a value times the largest integer, 'round' (to the nearest) or 'ceil'.
    depth_bits: 8 or 16.
  """

  rounding: str = 'round'
  depth_bits: int = 8

  def __call__(self, row: reading.SourceRow) -> reading.Outcome:
    """As of every reader; values out of range are a rule of their own."""
    try:
      return super().__call__(row)
    except _OutOfRange as error:
      return reading.Outcome(row, {}, [('range', str(error))])

  def read_images(self, row: reading.SourceRow) -> dict[str, bytes]:
    """The images of the sample as PNG, rounded to integers."""
    path = next(iter(row.files.values())).partition('#')[0]
    data = self.array(path)[0]  # [C, h, w]
    images = {}
    for modality in row.files:
      values = data[_PLACES[modality]].astype(np.float64)
      # NaN is neither: it is not between the two.
      outside = ~((values >= 0) & (values <= 1))
      if outside.any():
        text = f'{path}: {modality} has {int(outside.sum())} values that are not of 0 to 1, the '
        raise _OutOfRange(text + f'first {values[outside][0]:g}')
      bits = self.depth_bits if modality == 'depth' else 8
      rounded = (np.ceil if self.rounding == 'ceil' else np.rint)(values * (2**bits - 1))
      image = rounded.astype(np.uint16 if bits == 16 else np.uint8)
      if modality == 'rgb':
        image = np.moveaxis(image, 0, 2)  # blue first, as OpenCV takes it
      done, encoded = cv2.imencode('.png', np.ascontiguousarray(image), _COMPRESSION)
      if not done:
        raise Unreadable(f'{path}: {modality} is not encoded by OpenCV')
      images[modality] = encoded.tobytes()
    return images

  def array(self, path: str) -> np.ndarray:
    """A sample's array, [1, 22, 320, 256] of floats.

    Raises:
      FileNotFoundError: there is no such file.
      Unreadable: it is damaged, or holds something else; nothing in it is executed, and no memory
        is taken for what its header claims before that is known to be right.
    """
    try:
      with (
        image_files.open_regular(relative_paths.locate(self.source, path)) as file,
        zipfile.ZipFile(file) as archive,
      ):
        if f'{KEY}.npy' not in archive.namelist():
          has = ', '.join(name.removesuffix('.npy') for name in archive.namelist()[:5]) or 'nothing'
          raise Unreadable(f'{path}: has no array {KEY!r}; it has {has}')
        with archive.open(f'{KEY}.npy') as member:
          _check_header(path, member)
        with archive.open(f'{KEY}.npy') as member:
          return np.lib.format.read_array(member, allow_pickle=False)
    except (zipfile.BadZipFile, ValueError, EOFError, zipfile.zlib.error) as error:
      raise Unreadable(f'{path}: is not a whole npz file ({error})') from None


def _check_header(path: str, member) -> None:
  version = np.lib.format.read_magic(member)
  read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
  if version not in read:
    raise Unreadable(f'{path}: {KEY} is of npy version {version}, which is not read')
  shape, _, dtype = read[version](member)
  if dtype.hasobject:
    raise Unreadable(f'{path}: {KEY} holds Python objects, which are not loaded')
  if dtype.kind != 'f':
    raise Unreadable(f'{path}: {KEY} is {dtype}, and floats are due')
  if shape != SHAPE:
    raise Unreadable(f'{path}: {KEY} has the shape {shape}, and {SHAPE} is due')
