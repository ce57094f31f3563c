"""Unsupported files: their formats, by their first bytes, and the commands that convert them.

JPEG, PNG and the formats of `converted_formats` are supported. Decoders of other formats differ in
their treatment of colour profiles, bit depths and several images in one file, so the user converts
such files once. `data/manifest/README.md` has the same table.
"""

import functools
import posixpath
from typing import NamedTuple

HEAD = 512  # bytes that identify a format

CONVERT_ARRAY = 'numpy.save it as [H, W] of uint8, uint16 or (depth with depth_unit=m) float32'


class Unreadable(Exception):
  """The bytes are not a supported image; the message states what they are."""


class Header(NamedTuple):
  """The properties in the header of an image file."""

  kind: str  # 'JPEG', 'PNG', or one of `converted_formats`
  width: int
  height: int
  channels: int  # as stored: 1 with a palette
  bits: int  # of a channel as stored: 1 to 64; above 16, and a NumPy array's 16, perhaps floating


_FORMATS = (  # (offset, first bytes, what it is, what converts it)
  (0, b'II+\0', 'a BigTIFF image', 'tiffcp FILE FILE.tiff'),
  (0, b'MM\0+', 'a BigTIFF image', 'tiffcp FILE FILE.tiff'),
  (0, b'PK\x03\x04', 'a ZIP archive (.npz, .zip)', f'unpack it; of arrays: {CONVERT_ARRAY}'),
  (0, b'v/1\x01', 'an OpenEXR image', f'read its channel (pip install OpenEXR); {CONVERT_ARRAY}'),
  (0, b'Pf', 'a PFM image', f'cv2.imread(FILE, cv2.IMREAD_UNCHANGED); {CONVERT_ARRAY}'),
  (0, b'PF', 'a PFM image', f'cv2.imread(FILE, cv2.IMREAD_UNCHANGED); {CONVERT_ARRAY}'),
  (0, b'MATLAB 5.0', 'a MATLAB file', f'scipy.io.loadmat it; {CONVERT_ARRAY}'),
  (0, b'\x89HDF\r\n\x1a\n', 'an HDF5 file', f'h5py.File it; {CONVERT_ARRAY}'),
  (0, b'GIF8', 'a GIF image', 'magick FILE[0] FILE.png'),
  (0, b'BM', 'a BMP image', 'magick FILE FILE.png'),
  (0, b'P2', 'a PGM image', 'magick FILE FILE.png'),
  (0, b'P3', 'a PPM image', 'magick FILE FILE.png'),
  (0, b'P5', 'a PGM image', 'magick FILE FILE.png'),
  (0, b'P6', 'a PPM image', 'magick FILE FILE.png'),
  (0, b'\xff\x0a', 'a JPEG XL image', 'djxl FILE FILE.png'),
  (4, b'JXL ', 'a JPEG XL image', 'djxl FILE FILE.png'),
  (4, b'jP  ', 'a JPEG 2000 image', 'magick FILE FILE.png'),
  (0, b'\xff\x4f\xff\x51', 'a JPEG 2000 image', 'magick FILE FILE.png'),
  (0, b'%PDF', 'a PDF', 'export its images as PNG'),
)
_HEIC = 'a HEIC image', 'heif-convert FILE FILE.png; a depth map inside is a file of its own then'
_VIDEO = 'a video', 'ffmpeg -i FILE %06d.png writes its frames'
_BRANDS = {  # of files that start with 'ftyp'
  **dict.fromkeys((b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1'), _HEIC),
  **dict.fromkeys((b'avif', b'avis'), ('an AVIF image', 'avifdec FILE FILE.png')),
  b'crx ': ('a Canon raw image', 'develop it to PNG or JPEG'),
}
# {suffix: first bytes of such files}, to look up the tables above by name.
_STARTS = {
  **dict.fromkeys(('.npz', '.zip'), b'PK\x03\x04'),
  '.exr': b'v/1\x01',
  '.pfm': b'PF',
  '.mat': b'MATLAB 5.0',
  **dict.fromkeys(('.h5', '.hdf5'), b'\x89HDF\r\n\x1a\n'),
  '.gif': b'GIF8',
  '.bmp': b'BM',
  '.pgm': b'P5',
  '.ppm': b'P6',
  '.jxl': b'\xff\x0a',
  **dict.fromkeys(('.jp2', '.j2k'), b'\xff\x4f\xff\x51'),
  '.pdf': b'%PDF',
  '.avif': b'\0\0\0\x18ftypavif',
  '.cr3': b'\0\0\0\x18ftypcrx ',
  **dict.fromkeys(('.mp4', '.mov', '.m4v'), b'\0\0\0\x18ftypisom'),
}
_PAGES = (b'<!doctype html', b'<html', b'<head')


def describe(encoded: bytes) -> str:
  """The format of an unsupported file and what converts it, as 'a ...; convert it: ...'.

  Args:
    encoded: at least the first `HEAD` bytes of a file.
  """
  start = encoded[:HEAD].lstrip().lower()
  if start.startswith(_PAGES):
    return 'an HTML page (a login or error page that was saved?), not an image'
  if start.startswith(b'version https://git-lfs'):
    return 'a Git LFS pointer (git lfs pull fetches the file), not an image'
  if identified := _identify(encoded):
    name, command = identified
    return f'{name}, which is not read; convert it: {command}'
  return (
    f'of an unknown format (it starts with {describe_start(encoded)}); open it with the program '
    'that wrote it and save it as PNG. JPEG, PNG, TIFF, WebP and NPY are read'
  )


def describe_start(encoded: bytes) -> str:
  """The first bytes of a file, as text if they are text."""
  start = encoded[:8]
  if start and all(32 <= byte < 127 for byte in start):
    return f'the text "{start.decode()}"'
  return f'the bytes {start.hex(" ")}'


def describe_name(path: str) -> str:
  """`describe` of a file by its suffix; '' if the suffix is unknown or supported."""
  return _describe_suffix(posixpath.splitext(path)[1].lower())


@functools.lru_cache(1024)  # lists name millions of files, of few suffixes
def _describe_suffix(suffix: str) -> str:
  start = _STARTS.get(suffix, b'')
  return describe(start) if _identify(start) else ''


def _identify(encoded: bytes) -> tuple[str, str] | None:
  """(format, what converts it), or None."""
  if encoded[4:8] == b'ftyp':
    return _BRANDS.get(encoded[8:12], _VIDEO)
  for offset, magic, name, command in _FORMATS:
    if encoded.startswith(magic, offset):
      return name, command
  return None
