"""Image files before decoding: their bytes and headers, within limits.

The header determines the memory of a decoder, and the structure of the file its time; an attacker
chooses both. So only regular files are opened, and only files with as many bytes, pixels, scans and
parts as real images are decoded.
"""

import errno
import functools
import numbers
import os
import re
import stat
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from flexfas_jax.errors import ConfigError
from flexfas_jax.images import converted_formats
from flexfas_jax.images import formats as image_formats
from flexfas_jax.images.formats import Header, Unreadable

MAX_BYTES = 64 * 2**20  # of an encoded image; 25 million pixels as PNG of three channels fit
MAX_PIXELS = 25_000_000
MIN_SIDE = 16  # pixels of the shorter side; the smallest face crops of real sets have about 30
_MAX_PARTS = 65_536  # PNG chunks or JPEG segments: both are walked through in Python
_MAX_TABLES = 160  # of a JPEG's codes: eight for each scan
_MAX_SCANS = 20  # of a progressive JPEG, each of which costs a pass over all pixels; usual are 10
_REMEMBERED, _REMEMBERED_BYTES = 8, 2**20  # files whose headers are kept, and their length at most
_SHORT = 2**16  # bytes of data: an allowance for small images

# FF and the code of a marker; FF00 is data, and FFD0 to FFD7 lie within a scan.
_MARKER = re.compile(rb'\xff([^\x00\xff\xd0-\xd7])')
_METADATA = re.compile(rb'\xff[\xe1-\xed\xef]')  # application segments that no decoder needs
_ALONE = (0x01, 0xD8, 0xD9)  # markers without a length
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive; cameras write no others
_TABLES, _APP1, _SCAN, _END = 0xC4, 0xE1, 0xDA, 0xD9
_ZEROS = bytes(64)  # of compressed data: more than a hundred codes 00..0
_MANY = 40  # coefficients of a scan; no block of an image has the same value in all of them
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG's colour type
_ORIENTATION = 0x0112
# If the path becomes a pipe between stat and open, open must not wait for a writer.
_FLAGS = os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0) | getattr(os, 'O_BINARY', 0)
_KINDS = (
  (stat.S_ISDIR, 'a directory'),
  (stat.S_ISFIFO, 'a named pipe'),
  (stat.S_ISSOCK, 'a socket'),
  (stat.S_ISCHR, 'a device'),
  (stat.S_ISBLK, 'a device'),
)


class _Scan(NamedTuple):
  """A pass over the pixels of a JPEG."""

  components: bytes
  tables: bytes  # of each component's codes: DC's number in the upper half, AC's in the lower
  low: int  # first and last of the 64 coefficients
  high: int
  approximation: int  # missing bits before the scan (upper half) and after it (lower half)


def open_regular(path: str | os.PathLike) -> BinaryIO:
  """Opens a regular file for reading; symbolic links are followed.

  Raises:
    OSError: the file does not exist, may not be read, or is a pipe, a device, a directory or a
      socket. `strerror` states which.
  """
  try:
    check_regular(os.stat(path), path)  # before open, which may have side effects on a device
    descriptor = os.open(path, _FLAGS)
  except ValueError as error:  # a NUL in the path
    raise OSError(errno.EINVAL, str(error), os.fspath(path)) from None
  try:
    check_regular(os.fstat(descriptor), path)  # the path may be another file now
    return open(descriptor, 'rb')
  except OSError:
    os.close(descriptor)
    raise


def check_regular(status: os.stat_result, path: str | os.PathLike) -> None:
  """Refuses everything but a regular file.

  Raises:
    OSError: `strerror` states what it is.
  """
  if not stat.S_ISREG(status.st_mode):
    kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), 'something else')
    raise OSError(errno.EINVAL, f'it is {kind}, not a regular file', os.fspath(path))


def read(path: str | os.PathLike, max_bytes: int = MAX_BYTES) -> bytes:
  """Reads a regular file.

  Raises:
    OSError: see `open_regular`; or the file has more bytes than `max_bytes`, or grows.
  """
  with open_regular(path) as file:
    size = os.fstat(file.fileno()).st_size
    if size > max_bytes:
      raise OSError(
        errno.EFBIG, f'it has {size:,} bytes, and at most {max_bytes:,} are read', os.fspath(path)
      )
    content = file.read(size + 1)
  if len(content) > size:
    raise OSError(errno.EBUSY, f'it grows beyond {size:,} bytes while it is read', os.fspath(path))
  return content


def check_pixel_limit(value: int) -> int:
  """Checks and returns a limit of the pixels of an image.

  Raises:
    ConfigError: not a whole number, or smaller than the smallest image.
  """
  if not isinstance(value, numbers.Integral) or value < MIN_SIDE**2:
    raise ConfigError(f'max_pixels is {value!r}; it is a whole number of at least {MIN_SIDE**2}')
  return int(value)


def check_bytes(n: int) -> None:
  """Refuses an encoded image of more than `MAX_BYTES`.

  Raises:
    Unreadable: `n` is larger.
  """
  if n > MAX_BYTES:
    raise Unreadable(f'has {n:,} bytes, and at most {MAX_BYTES:,} are read')


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
  """Refuses an image that is too large to decode, or too small to show a face.

  Raises:
    Unreadable: more than `max_pixels`, or a side shorter than `MIN_SIDE`.
  """
  if min(width, height) < MIN_SIDE:
    raise Unreadable(f'is {width} x {height} pixels; each side must have at least {MIN_SIDE}')
  if width * height > max_pixels:
    raise Unreadable(
      f'is {width} x {height} pixels, more than the limit of {max_pixels:,} (max_pixels)'
    )


def check(encoded: bytes, max_pixels: int = MAX_PIXELS) -> Header:
  """Refuses files that need more memory or time than an image of `max_pixels`, and damaged ones.

  Raises:
    Unreadable: see `header` and `check_size`; or a PNG with more or fewer data than its pixels, or
      with a wrong check sum; or a JPEG in which zeros replace lost data.
  """
  claimed = header(encoded)
  check_size(claimed.width, claimed.height, max_pixels)
  if claimed.kind == 'PNG':
    _check_data(encoded, claimed)
  elif claimed.kind == 'JPEG' and _ZEROS in encoded and _zeros_are_damage(encoded):
    raise Unreadable('is damaged: zeros replace part of its data')
  return claimed


def header(encoded: bytes) -> Header:
  """Parses the structure of an image file without decoding pixels.

  Raises:
    Unreadable: an unsupported format, truncated, animated, or more parts than real images have.
  """
  if not encoded:
    raise Unreadable('is empty (0 bytes)')
  check_bytes(len(encoded))
  return (_parse_header if len(encoded) > _REMEMBERED_BYTES else _remembered_header)(encoded)


def _parse_header(encoded: bytes) -> Header:
  """`header` of a file that is not empty and not too long."""
  kind = _kind(encoded)
  if kind == 'JPEG':
    return _jpeg_header(encoded)
  if kind == 'PNG':
    return _png_header(encoded)
  if other := converted_formats.header(encoded):
    return other
  raise Unreadable(f'is {image_formats.describe(encoded)}')


# An image is decoded, described and fingerprinted one after the other, each by its header.
_remembered_header = functools.lru_cache(_REMEMBERED)(_parse_header)


def is_jpeg_or_png(encoded: bytes) -> bool:
  """Whether a file is a JPEG or PNG, the formats of prepared sets, by its first bytes."""
  return bool(_kind(encoded))


def _kind(encoded: bytes) -> str:
  """'JPEG', 'PNG' or '', by the first bytes."""
  if encoded[:3] == b'\xff\xd8\xff':
    return 'JPEG'
  if encoded[:8] == b'\x89PNG\r\n\x1a\n':
    return 'PNG'
  return ''


def _jpeg_header(encoded: bytes) -> Header:
  found, scans = None, 0
  due = {}  # {component: bit k is set until a scan has completed coefficient k of 64}
  for n, (marker, start, end) in enumerate(_segments(encoded)):
    if n > _MAX_PARTS:
      raise Unreadable(f'is a JPEG of more than {_MAX_PARTS:,} segments')
    if marker in _FRAME_HEADERS:
      if found:  # decoders differ in which one they use
        raise Unreadable('is a JPEG with two frame headers')
      if marker not in _HUFFMAN:  # damage in arithmetic coding cannot be detected
        raise Unreadable(
          'is an arithmetic-coded or lossless JPEG; save it as a baseline JPEG or PNG'
        )
      body = encoded[start + 4 : end]
      if len(body) < 6:
        break
      height, width = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
      found = Header('JPEG', width, height, body[5], body[0])
      due = dict.fromkeys(body[6 : 6 + 3 * body[5] : 3], 2**64 - 1)
    elif marker == _SCAN:
      scans += 1
      scan = _parse_scan(encoded[start + 4 : end])
      if scan.approximation & 0x0F == 0:  # no bits are left for later scans
        done = (2 << scan.high) - (1 << scan.low)
        due |= {one: due[one] & ~done for one in scan.components if one in due}
      if scans > _MAX_SCANS:
        raise Unreadable(f'is a JPEG of more than {_MAX_SCANS} scans')
    elif marker == _END and found and scans:
      if any(due.values()):  # a decoder takes missing coefficients as zeros
        raise Unreadable('is truncated: the JPEG ends before its last scan')
      return found
  raise Unreadable('is truncated: the JPEG has no end')


def _parse_scan(body: bytes) -> _Scan:
  """Parses a scan header."""
  if not body or len(body) != 4 + 2 * body[0] or not body[-3] <= body[-2] < 64:
    raise Unreadable('is a JPEG with a damaged scan header')
  return _Scan(body[1:-3:2], body[2:-3:2], *body[-3:])


def _zeros_are_damage(encoded: bytes) -> bool:
  """Whether zeros in the scan data of a JPEG encode coefficients that no image has.

  The code 00..0 is the most frequent symbol of its table. If this is "no change", as in areas of
  one colour, zeros are plausible. If it is the coefficient -1, as in textured images, zeros are the
  same coefficient over a hundred times. A decoder accepts them, unless they amount to another
  number of blocks than were lost.

  Scans of few coefficients, or of refining bits, may contain zeros where tiles repeat.
  """
  n_tables = 0
  first, tables, data = {}, [], 0  # {table: symbol of 00..0}; tables and data of the scan before
  for marker, start, end in _segments(encoded):
    zeros = tables and encoded.find(_ZEROS, data, start) >= 0
    # A table of AC coefficients has the length of a run in the upper half of a symbol.
    if zeros and any(first.get(table, 0) & (0x0F if table >> 4 else 0xFF) for table in tables):
      return True
    body, tables, data = encoded[start + 4 : end], [], end
    if marker == _TABLES:
      while len(body) > 17:
        n_tables += 1
        if n_tables > _MAX_TABLES:
          raise Unreadable(f'is a JPEG of more than {_MAX_TABLES} tables of codes')
        first[body[0]] = body[17]
        body = body[17 + sum(body[1:17]) :]
    elif marker == _SCAN:
      scan = _parse_scan(body)
      if scan.high - scan.low > _MANY and scan.approximation < 0x10:
        tables += [one >> 4 for one in scan.tables if scan.low == 0]
        tables += [0x10 | one & 0x0F for one in scan.tables]
  return False


def _segments(encoded: bytes) -> Iterator[tuple[int, int, int]]:
  """Yields (marker, start, end) of a JPEG's segments up to its end, without the data of scans."""
  place = 2
  while match := _MARKER.search(encoded, place):
    marker, place = match[1][0], match.end()
    if marker not in _ALONE:
      place += max(2, int.from_bytes(encoded[place : place + 2]))
    yield marker, match.start(), place
    if marker == _END:
      return


def _png_header(encoded: bytes) -> Header:
  found, names = None, []
  for n, (name, start, end) in enumerate(_chunks(encoded)):
    if n > _MAX_PARTS:
      raise Unreadable(f'is a PNG of more than {_MAX_PARTS:,} chunks')
    if (name == b'IHDR') != (n == 0):
      raise Unreadable('is a PNG whose header is not its first chunk alone')
    # Pillow does not check the sums of pixel data.
    if zlib.crc32(memoryview(encoded)[start - 4 : end]) != int.from_bytes(encoded[end : end + 4]):
      raise Unreadable(f'is damaged: the check sum of the PNG chunk {name!r} differs')
    if name == b'IHDR':
      body = encoded[start:end]
      if len(body) < 13:
        break
      width, height = int.from_bytes(body[:4]), int.from_bytes(body[4:8])
      found = Header('PNG', width, height, _CHANNELS.get(body[9], 0), body[8])
    elif name == b'acTL':  # decoders differ in which image they return
      raise Unreadable('is an animated PNG, not one image')
    elif name == b'IEND':
      _check_order(names, indexed=encoded[25] == 3)
      return found
    names.append(name)
  raise Unreadable('is truncated: the PNG has no end')


def _check_order(names: list[bytes], indexed: bool) -> None:
  """Refuses a PNG whose palette or data a decoder would replace or leave out."""
  data = [n for n, name in enumerate(names) if name == b'IDAT']
  if data and data[-1] - data[0] >= len(data):
    raise Unreadable('is damaged: the pixels of the PNG are not in consecutive chunks')
  if indexed and (names.count(b'PLTE') != 1 or data and names.index(b'PLTE') > data[0]):
    raise Unreadable('is damaged: the PNG has no palette, or not in its place')


def _check_data(encoded: bytes, claimed: Header) -> None:
  """Refuses a PNG whose data do not match the size in its header or their check sum.

  libpng inflates all data to verify the check sum: a file of 3 MB can hold 3 GB of zeros. Pillow
  stops after the last pixel and does not verify it, and only this sum shows that a chunk is
  missing, repeated or moved.
  """
  bits = claimed.width * claimed.channels * claimed.bits
  least = bits * claimed.height // 8
  most = 2 * (1 + -(-bits // 8)) * claimed.height + _SHORT  # interlaced rows are shorter, and more
  inflate, n = zlib.decompressobj(), 0
  try:
    for name, start, end in _chunks(encoded):
      part = encoded[start:end] if name == b'IDAT' else b''
      while part and n <= most:
        n += len(inflate.decompress(part, _SHORT))
        part = inflate.unconsumed_tail
  except zlib.error as error:
    raise Unreadable(f'is damaged: the pixels of the PNG cannot be inflated ({error})') from None
  if n > most:
    raise Unreadable('is a PNG of more data than its pixels have')
  if n < least or not inflate.eof:
    raise Unreadable('is truncated: the PNG has less data than its pixels need')


def _chunks(encoded: bytes) -> Iterator[tuple[bytes, int, int]]:
  """Yields (name, start, end) of the contents of a PNG's whole chunks."""
  place = 8
  while place + 12 <= len(encoded):
    start = place + 8
    end = start + int.from_bytes(encoded[place : place + 4])
    if end + 4 > len(encoded):
      return
    yield encoded[place + 4 : start], start, end
    place = end + 4  # after the check sum


def without_metadata(encoded: bytes) -> bytes:
  """Removes the application segments of a JPEG that no decoder needs; other files are unchanged.

  libjpeg-turbo reports a damaged colour profile as a damaged image, though no pixel depends on it.
  """
  if _kind(encoded) != 'JPEG' or not _METADATA.search(encoded):
    return encoded
  kept, place = [], 0
  for marker, start, end in _segments(encoded):
    if _APP1 <= marker <= 0xEF and marker != 0xEE:  # Adobe's states which colours are stored
      kept.append(encoded[place:start])
      place = end
  return b''.join([*kept, encoded[place:]]) if kept else encoded


def orientation(encoded: bytes) -> int:
  """The EXIF orientation of an image, 1 (upright) to 8; 1 where it has none."""
  kind = _kind(encoded)
  if kind == 'JPEG' and b'Exif' in encoded:
    for marker, start, end in _segments(encoded):
      if marker == _SCAN:
        return 1
      if marker == _APP1 and encoded[start + 4 : start + 8] == b'Exif':
        return _read_orientation(encoded[start + 10 : end])
  if kind == 'PNG':
    for name, start, end in _chunks(encoded):
      if name == b'eXIf':
        return _read_orientation(encoded[start:end].removeprefix(b'Exif\0\0'))
  return 1 if kind else _read_orientation(converted_formats.exif(encoded))


def _read_orientation(exif: bytes) -> int:
  """The orientation in the first directory of a TIFF structure."""
  order = {b'II*\0': 'little', b'MM\0*': 'big'}.get(exif[:4])
  if not order:
    return 1
  place = int.from_bytes(exif[4:8], order)
  for n in range(int.from_bytes(exif[place : place + 2], order)):
    entry = exif[place + 2 + 12 * n : place + 14 + 12 * n]
    if int.from_bytes(entry[:2], order) == _ORIENTATION:
      width = {1: 1, 3: 2, 4: 4}.get(int.from_bytes(entry[2:4], order), 0)  # by the tag's type
      found = int.from_bytes(entry[8 : 8 + width], order)
      return found if found in range(1, 9) else 1
  return 1
