"""Frames of WMCA's preprocessed videos, out of their HDF5 files.

Light on purpose: worker processes import it, and h5py where a file is opened.
"""

import dataclasses
import os
import re
import threading

import cv2
import numpy as np

from flexfas_jax.data import reading
from flexfas_jax.errors import ConfigError
from flexfas_jax.images import files as image_files
from flexfas_jax.images.files import Unreadable
from flexfas_jax.protocols import relative_paths

CHANNELS = {'RGB': 3, 'CDIT': 4}  # of an array, by the half of the release
_PLACES = {'color': ('RGB', slice(0, 3)), 'depth': ('CDIT', 1), 'ir': ('CDIT', 2)}
_KEY = re.compile(r'Frame_(0|[1-9]\d*)')
_OPEN = 4  # files that a process keeps: both halves of a video, while one follows another
_files = {}  # {path: (its version, the open file)}, the last used at the end
_lock = threading.Lock()  # Beam has several threads
_COMPRESSION = [cv2.IMWRITE_PNG_COMPRESSION, 6]  # explicit, since the default of OpenCV may change


@dataclasses.dataclass(frozen=True)
class FrameReader(reading.Reader):
  """Reads rows whose files are 'PATH.hdf5#color/0012', '#depth/0012', '#ir/0012'.

  Attributes:
    channel_order: in which the RGB half has its channels, 'rgb' or 'bgr'.
    bits: of the CDIT half, 8 or 16.
  """

  channel_order: str = 'rgb'
  bits: int = 8

  def read_images(self, row: reading.SourceRow) -> dict[str, bytes]:
    """The images of the frame as PNG, without loss."""
    arrays, images = {}, {}
    for modality, place in row.files.items():
      path, _, inside = place.partition('#')
      kind, _, frame = inside.partition('/')
      half, channels = _PLACES[kind]
      if path not in arrays:
        arrays[path] = self.array(path, half, int(frame))
      image = arrays[path][channels]
      if kind == 'color':
        # OpenCV takes blue first.
        image = np.moveaxis(image if self.channel_order == 'bgr' else image[::-1], 0, 2)
      done, encoded = cv2.imencode('.png', np.ascontiguousarray(image), _COMPRESSION)
      if not done:
        raise Unreadable(f'{place}: OpenCV does not encode it')
      images[modality] = encoded.tobytes()
    return images

  def array(self, path: str, half: str, frame: int) -> np.ndarray:
    """A frame of one half: [C, h, w] uint8 (or uint16, by `bits`).

    Raises:
      FileNotFoundError: there is no such file.
      Unreadable: it is damaged, or holds something else.
    """
    name = f'Frame_{frame}/array'
    file = open_file(self.source, path)
    try:
      found = file.get(name)
      if not hasattr(found, 'dtype'):  # None, or a group
        raise Unreadable(f'{path}: has no dataset {name}')
      wanted = np.dtype(np.uint8 if half == 'RGB' or self.bits == 8 else np.uint16)
      if found.dtype.newbyteorder('=') != wanted:
        hint = ' (--option bits=16 takes it)' if half == 'CDIT' and found.dtype == 'u2' else ''
        raise Unreadable(f'{path}: {name} is {found.dtype}, and {wanted} is due{hint}')
      if len(found.shape) != 3 or found.shape[0] != CHANNELS[half] or 0 in found.shape:
        due = f'({CHANNELS[half]}, height, width) is due'
        raise Unreadable(f'{path}: {name} has the shape {found.shape}, and {due}')
      _, height, width = found.shape
      try:  # a file of a few bytes may claim any shape, which is filled when it is read
        image_files.check_size(width, height, self.max_pixels)
      except Unreadable as error:
        raise Unreadable(f'{path}: {name} {error}') from None
      return found[()].astype(wanted, copy=False)
    except (OSError, RuntimeError, KeyError) as error:  # what h5py raises of damage
      raise Unreadable(f'{path}: {name} cannot be read ({error})') from None


def open_file(source: str, path: str):
  """An HDF5 file, which stays open until others are used.

  Args:
    source: the folder that the path is below.
    path: of the file.

  Raises:
    ConfigError: h5py is not installed.
    OSError: there is no such file, or it may not be read.
    Unreadable: it is no HDF5 file, or not whole.
  """
  place = relative_paths.locate(source, path)
  stat = os.stat(place)
  image_files.check_regular(stat, place)
  version = (stat.st_mtime_ns, stat.st_size)
  with _lock:
    known = _files.pop(place, None)
    if known and known[0] != version:
      known[1].close()  # or HDF5 would go on with what it has of the file
      known = None
    file = known[1] if known else _open(place, path)
    _files[place] = (version, file)  # the last to be dropped
    if len(_files) > _OPEN:
      _files.pop(next(iter(_files)))  # closes after its last reader
  return file


def _open(place: str, path: str):
  try:
    import h5py
  except ImportError:
    raise ConfigError(
      "the frames are in HDF5 files, which need the extra `hdf5`: pip install 'flexfas_jax[hdf5]'"
    ) from None
  try:
    # Locks are of no use to readers, and cannot be had on disks that are mounted for reading.
    return h5py.File(place, 'r', locking=False)
  except PermissionError:
    raise
  except OSError as error:
    raise Unreadable(f'{path}: is not a whole HDF5 file ({error})') from None


def numbers(source: str, paths: list[str]) -> list[tuple[list[int], str]]:
  """Which frames files hold, by their keys alone: (numbers, what is wrong) of each.

  Args:
    source: the folder that paths are below.
    paths: of HDF5 files.
  """
  found = []
  for path in paths:
    try:
      keys = [_KEY.fullmatch(key) for key in open_file(source, path)]
      found.append((sorted(int(key[1]) for key in keys if key), ''))
    except Unreadable as error:
      found.append(([], str(error)))
    except (OSError, RuntimeError, KeyError) as error:
      found.append(([], f'{path}: cannot be read ({error})'))
  return found


def middle_is_red(reader: FrameReader, path: str, frame: int) -> bool:
  """Whether the middle of a frame has more red than blue, as skin has under any lamp."""
  red, _, blue = reader.array(path, 'RGB', frame)[:: 1 if reader.channel_order == 'rgb' else -1]
  h, w = red.shape
  middle = (slice(h // 4, h - h // 4), slice(w // 4, w - w // 4))
  return float(red[middle].mean()) > float(blue[middle].mean())
