"""Files that are no JPEG or PNG: what they are, by their first bytes, and what converts them.

Only JPEG and PNG are read. Decoders of the other formats differ in what they make of colour
profiles, orientation, bit depths and several images in one file, so the conversion is the user's
and happens once. `data/manifest/README.md` has the same table.
"""

import posixpath

HEAD = 512  # bytes by which a format is recognised

_ARRAY = 'depth in metres: round(1000 x) as uint16; others: uint8 or uint16; then cv2.imwrite'
_FORMATS = (  # (offset, first bytes, what it is, what converts it)
  (0, b'II*\0', 'a TIFF image', f'magick FILE FILE.png for 8 or 16 bits; float: {_ARRAY}'),
  (0, b'MM\0*', 'a TIFF image', f'magick FILE FILE.png for 8 or 16 bits; float: {_ARRAY}'),
  (0, b'II+\0', 'a TIFF image', f'magick FILE FILE.png for 8 or 16 bits; float: {_ARRAY}'),
  (0, b'MM\0+', 'a TIFF image', f'magick FILE FILE.png for 8 or 16 bits; float: {_ARRAY}'),
  (0, b'\x93NUMPY', 'a NumPy array', f'numpy.load it; {_ARRAY}'),
  (0, b'PK\x03\x04', 'a ZIP archive (.npz, .zip)', f'unpack it; of arrays: {_ARRAY}'),
  (0, b'v/1\x01', 'an OpenEXR image', f'read its channel (pip install OpenEXR); {_ARRAY}'),
  (0, b'Pf', 'a PFM image', f'cv2.imread(FILE, cv2.IMREAD_UNCHANGED); {_ARRAY}'),
  (0, b'PF', 'a PFM image', f'cv2.imread(FILE, cv2.IMREAD_UNCHANGED); {_ARRAY}'),
  (0, b'MATLAB 5.0', 'a MATLAB file', f'scipy.io.loadmat it; {_ARRAY}'),
  (0, b'\x89HDF\r\n\x1a\n', 'an HDF5 file', f'h5py.File it; {_ARRAY}'),
  (8, b'WEBP', 'a WebP image', 'dwebp FILE -o FILE.png'),
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
# How files of these names start, so that the tables above say what they are.
_STARTS = {
  **dict.fromkeys(('.tif', '.tiff', '.dng'), b'II*\0'),
  '.npy': b'\x93NUMPY',
  **dict.fromkeys(('.npz', '.zip'), b'PK\x03\x04'),
  '.exr': b'v/1\x01',
  '.pfm': b'PF',
  '.mat': b'MATLAB 5.0',
  **dict.fromkeys(('.h5', '.hdf5'), b'\x89HDF\r\n\x1a\n'),
  '.webp': b'RIFF\0\0\0\0WEBP',
  '.gif': b'GIF8',
  '.bmp': b'BM',
  '.pgm': b'P5',
  '.ppm': b'P6',
  '.jxl': b'\xff\x0a',
  **dict.fromkeys(('.jp2', '.j2k'), b'\xff\x4f\xff\x51'),
  '.pdf': b'%PDF',
  **dict.fromkeys(('.heic', '.heif'), b'\0\0\0\x18ftypheic'),
  '.avif': b'\0\0\0\x18ftypavif',
  '.cr3': b'\0\0\0\x18ftypcrx ',
  **dict.fromkeys(('.mp4', '.mov', '.m4v'), b'\0\0\0\x18ftypisom'),
}
_PAGES = (b'<!doctype html', b'<html', b'<head')


def describe(encoded: bytes) -> str:
  """What bytes are that are no JPEG or PNG, and what converts them, as 'a ...; convert it: ...'.

  Args:
    encoded: at least the first `HEAD` bytes of a file.
  """
  start = encoded[:HEAD].lstrip().lower()
  if start.startswith(_PAGES):
    return 'an HTML page (a login or error page that was saved?), not a JPEG or PNG'
  if start.startswith(b'version https://git-lfs'):
    return 'a Git LFS pointer (git lfs pull fetches the file), not a JPEG or PNG'
  for name, command in _found(encoded):
    return f'{name}, not a JPEG or PNG; convert it: {command}'
  return f'something else, starting {encoded[:8]!r}, not a JPEG or PNG'


def describe_name(path: str) -> str:
  """What a file is by its suffix, as `describe` has it; '' where that is not known, or is read."""
  start = _STARTS.get(posixpath.splitext(path)[1].lower(), b'')
  return describe(start) if _found(start) else ''


def _found(encoded: bytes) -> list[tuple[str, str]]:
  """(what it is, what converts it), or nothing."""
  if encoded[4:8] == b'ftyp':
    return [_BRANDS.get(encoded[8:12], _VIDEO)]
  return [
    (name, command)
    for offset, magic, name, command in _FORMATS
    if encoded[offset : offset + len(magic)] == magic
  ][:1]
