"""Formats besides JPEG and PNG: NumPy arrays, TIFF, WebP and, with an extra, HEIC.

Training reads JPEG and PNG only, so `prepare` converts these formats to PNG without loss; `lint`
and prediction use the same decoders. The header is checked before decoding: one whole image, of the
kinds that cameras and depth SDKs write. Other kinds are refused with the command that converts
them.

Except TIFF with deflate, no format here has check sums: damage that leaves a decodable file is not
detected. The digests of a manifest detect it.
"""

import io
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from flexfas_jax.images.formats import CONVERT_ARRAY, Header, Unreadable

_NPY = b'\x93NUMPY'
_HEIF = (b'heic', b'heix', b'heim', b'heis')
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLOURS = 256, 257, 258, 259, 262
_OFFSETS, _CHANNELS, _ROWS, _COUNTS, _PLANES = 273, 277, 278, 279, 284
_PREDICTOR, _TILE, _EXTRA, _NUMBERS = 317, 322, 338, 339
# The tags of a TIFF that a decoder gets; the others (EXIF, profiles, private) change no pixel.
_TAGS = (_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLOURS, _OFFSETS, _CHANNELS, _ROWS, _COUNTS,
         _PLANES, _PREDICTOR, _EXTRA, _NUMBERS)  # fmt: skip
_TYPES = {1: 1, 3: 2, 4: 4}  # bytes of TIFF's whole numbers, by type
_MANY = 65_536  # strips
_RAW, _LZW, _DEFLATE = 1, 5, (8, 32946)
_GREY, _RGB = 1, 2  # of `_COLOURS`
_WHOLE, _FLOAT = 1, 3  # of `_NUMBERS`


class _Format(NamedTuple):
  """How a format is recognised and read."""

  matches: Callable[[bytes], bool]
  header: Callable[[bytes], Header]
  decode: Callable[[bytes], np.ndarray]
  exif: Callable[[bytes], bytes]  # a TIFF structure with the orientation, or b''


def header(encoded: bytes) -> Header | None:
  """Parses the header of a file; None for a format that is not in this module.

  Args:
    encoded: the whole file.

  Raises:
    Unreadable: truncated, several images, or an unsupported kind of the format.
  """
  kind = _kind(encoded)
  if not kind:
    return None
  try:
    return _FORMATS[kind].header(encoded)
  except Unreadable:
    raise
  except Exception as error:  # parsers raise many kinds
    raise Unreadable(f'is a damaged {kind} ({error or type(error).__name__})') from None


def decode(encoded: bytes, claimed: Header) -> np.ndarray:
  """Decodes to [h, w] or [h, w, 3], red first, uint8, uint16 or (depth) float32 or float64.

  Args:
    encoded: the whole file.
    claimed: from `header`, with a size within the limits.

  Raises:
    Unreadable: the pixels do not match the header.
    Exception: any error of the decoder.
  """
  image = _FORMATS[claimed.kind].decode(encoded)
  if image.ndim == 3:
    image = image[..., :3] if image.shape[-1] > 1 else image[..., 0]  # without transparency
  if image.shape[:2] != (claimed.height, claimed.width):
    raise Unreadable(f'claims {claimed.width} x {claimed.height} pixels, and has others')
  return np.ascontiguousarray(image, image.dtype.newbyteorder('='))


def exif(encoded: bytes) -> bytes:
  """The TIFF structure with the EXIF orientation of a file, or b''."""
  kind = _kind(encoded)
  try:
    return _FORMATS[kind].exif(encoded) if kind else b''
  except Unreadable:  # `header` reports the reason
    return b''


def _kind(encoded: bytes) -> str:
  return next((kind for kind, form in _FORMATS.items() if form.matches(encoded)), '')


def _no_exif(encoded: bytes) -> bytes:
  return b''


# NumPy arrays.


def _npy_start(encoded: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
  """(shape, whether the first index is the fastest, dtype, where the data starts)."""
  file = io.BytesIO(encoded[: 2**16])
  version = np.lib.format.read_magic(file)
  read = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }.get(version)
  if not read:
    raise Unreadable(f'is a NumPy array of version {version}: save it with numpy.save')
  return *read(file), file.tell()


def _npy_header(encoded: bytes) -> Header:
  shape, _, dtype, start = _npy_start(encoded)
  height, width, channels = (*shape, 1)[:3] if len(shape) in (2, 3) else (0, 0, 0)
  name = dtype.newbyteorder('=').name
  known = ('uint8', 'uint16', 'float16', 'float32', 'float64')
  if channels not in (1, 3) or name not in known or (channels == 3 and name != 'uint8'):
    raise Unreadable(
      f'is a NumPy array {list(shape)} of {name}; due are [H, W] or [H, W, 1] of uint8, uint16 or '
      'floating point, or [H, W, 3] (red first) of uint8; another array: ' + CONVERT_ARRAY
    )
  if min(shape) < 0 or len(encoded) != start + height * width * channels * dtype.itemsize:
    raise Unreadable(f'is damaged: a NumPy array {list(shape)} of {name} has another length')
  return Header('NPY', width, height, channels, 8 * dtype.itemsize)


def _npy(encoded: bytes) -> np.ndarray:
  shape, fortran, dtype, start = _npy_start(encoded)
  array = np.frombuffer(encoded, dtype, offset=start)
  array = array.reshape(shape, order='F' if fortran else 'C')
  return array.astype(np.float32) if dtype.itemsize == 2 and dtype.kind == 'f' else array


# TIFF.


def _tiff_entries(encoded: bytes) -> tuple[dict[int, bytes], str, int]:
  """({tag: 12 bytes} of the first directory, byte order, offset of the next page or 0)."""
  order = 'little' if encoded[:2] == b'II' else 'big'
  place = int.from_bytes(encoded[4:8], order)
  n = int.from_bytes(encoded[place : place + 2], order)
  end = place + 2 + 12 * n
  if place < 8 or not n or end + 4 > len(encoded):
    raise Unreadable('is truncated: the directory of the TIFF lies behind its end')
  entries = [encoded[at : at + 12] for at in range(place + 2, end, 12)]
  by_tag = {int.from_bytes(entry[:2], order): entry for entry in entries}
  if len(by_tag) < n:
    raise Unreadable('is a TIFF that names a tag twice')
  return by_tag, order, int.from_bytes(encoded[end : end + 4], order)


def _tiff_numbers(encoded: bytes, entry: bytes | None, order: str, default: int) -> list[int]:
  """The whole numbers of an entry, or the default."""
  if entry is None:
    return [default]
  size, n = _TYPES.get(int.from_bytes(entry[2:4], order), 0), int.from_bytes(entry[4:8], order)
  place = int.from_bytes(entry[8:12], order)
  content = entry[8:12] if size * n <= 4 else encoded[place : place + size * n]
  if n > _MANY:
    raise Unreadable(f'is a TIFF of more than {_MANY:,} strips')
  if not size or not n or len(content) < size * n:
    raise Unreadable(f'is a damaged TIFF: its tag {int.from_bytes(entry[:2], order)} has no value')
  dtype = np.dtype(f'{"<" if order == "little" else ">"}u{size}')
  return np.frombuffer(content, dtype, n).tolist()


class _Tiff(NamedTuple):
  """The parsed directory of a TIFF."""

  header: Header
  compression: int
  strips: list[tuple[int, int, int]]  # (start, stored bytes, decoded bytes)


def _tiff_header(encoded: bytes) -> Header:
  return _tiff_parsed(encoded).header


def _tiff_parsed(encoded: bytes) -> _Tiff:
  entries, order, more = _tiff_entries(encoded)

  def values_of(tag, default=0):
    return _tiff_numbers(encoded, entries.get(tag), order, default)

  def one(tag, default=0):
    values = values_of(tag, default)
    if len(set(values)) > 1:
      raise Unreadable(f'is a TIFF whose tag {tag} has the values {values[:4]}')
    return values[0]

  if more:
    raise Unreadable('is a TIFF of several pages: save one image a file: magick FILE[0] FILE.png')
  if _TILE in entries:
    raise Unreadable('is a TIFF in tiles: tiffcp -s FILE FILE.tiff saves it in strips')
  width, height, channels = one(_WIDTH), one(_HEIGHT), one(_CHANNELS, 1)
  bits, numbers, colours = one(_BITS, 1), one(_NUMBERS, _WHOLE), one(_COLOURS)
  compression, predictor = one(_COMPRESSION, _RAW), one(_PREDICTOR, 1)
  kinds = {  # (channels, bits, numbers, colours)
    *((1, bits, _WHOLE, _GREY) for bits in (8, 16)),
    (1, 32, _FLOAT, _GREY),
    *((channels, 8, _WHOLE, _RGB) for channels in (3, 4)),
  }
  if (channels, bits, numbers, colours) not in kinds or one(_PLANES, 1) != 1:
    raise Unreadable(
      f'is a TIFF of {channels} x {bits} bits (colours {colours}, numbers {numbers}), and 8 or 16 '
      'bits or float32 of one channel (black is 0), or 8 bits of RGB are due; convert it: '
      f'magick FILE -depth {16 if channels == 1 else 8} FILE.png'
    )
  if compression not in (_RAW, _LZW, *_DEFLATE) or predictor not in (1, 2, 3):
    raise Unreadable(
      f'is a TIFF of compression {compression}, and none, LZW and deflate are read; convert it: '
      'magick FILE FILE.png'
    )
  rows, size = min(one(_ROWS, height), height), width * channels * bits // 8
  offsets, counts = values_of(_OFFSETS), values_of(_COUNTS)
  whole = width and rows and len(offsets) == len(counts) == -(-height // rows)
  strips = [
    (at, n, size * min(rows, height - rows * i))
    for i, (at, n) in enumerate(zip(offsets, counts, strict=False))
  ]
  raw = compression == _RAW
  if (
    not whole
    or sum(counts) > len(encoded)
    or any(not n or at + n > len(encoded) or (raw and n < due) for at, n, due in strips)
  ):
    raise Unreadable('is truncated or damaged: strips of the TIFF lie behind its end or are short')
  return _Tiff(Header('TIFF', width, height, channels, bits), compression, strips)


def _inflates(data: bytes, due: int) -> bool:
  """Whether data inflate to `due` bytes with the right check sum."""
  inflate = zlib.decompressobj()
  try:
    return len(inflate.decompress(data, due + 1)) == due and inflate.eof
  except zlib.error:
    return False


def _tiff(encoded: bytes) -> np.ndarray:
  """Decodes a copy whose directory has `_TAGS` only: no further page, EXIF or rotation."""
  parsed = _tiff_parsed(encoded)
  if parsed.compression in _DEFLATE and not all(
    _inflates(encoded[at : at + n], due) for at, n, due in parsed.strips
  ):
    raise Unreadable('is damaged: the data of the TIFF do not inflate to its pixels')
  entries, order, _ = _tiff_entries(encoded)
  kept = [entries[tag] for tag in _TAGS if tag in entries]
  place = len(encoded) + len(encoded) % 2
  checked = b''.join([
    encoded[:4], place.to_bytes(4, order), encoded[8:], bytes(len(encoded) % 2),
    len(kept).to_bytes(2, order), *kept, bytes(4),
  ])  # fmt: skip
  from PIL import (
    TiffImagePlugin,
  )  # only where images are decoded: lists and score files do not need it

  with TiffImagePlugin.TiffImageFile(io.BytesIO(checked)) as image:
    image.load()
    return np.asarray(image)


def _tiff_exif(encoded: bytes) -> bytes:
  return encoded


# WebP.


def _webp_chunks(encoded: bytes) -> dict[bytes, bytes]:
  """The first chunk of every name.

  Raises:
    Unreadable: the file has another length than its header states, or ends within a chunk.
  """
  end = 8 + int.from_bytes(encoded[4:8], 'little')
  chunks, place = {}, 12
  while place + 8 <= end == len(encoded):
    start = place + 8
    n = int.from_bytes(encoded[place + 4 : start], 'little')
    chunks.setdefault(encoded[place : place + 4], encoded[start : start + n])
    place = start + n + n % 2
  if place != end or end != len(encoded):
    raise Unreadable('is truncated or damaged: the WebP has another length than its header')
  return chunks


def _webp_header(encoded: bytes) -> Header:
  chunks = _webp_chunks(encoded)
  if b'ANIM' in chunks or b'ANMF' in chunks:
    raise Unreadable('is an animated WebP, not one image')
  sizes = set()
  if (lossy := chunks.get(b'VP8 ')) is not None:
    sizes.add(tuple(int.from_bytes(lossy[i : i + 2], 'little') & 0x3FFF for i in (6, 8)))
  if (lossless := chunks.get(b'VP8L')) is not None:
    bits = int.from_bytes(lossless[1:5], 'little')
    sizes.add(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
  if (canvas := chunks.get(b'VP8X')) is not None:
    sizes.add(tuple(int.from_bytes(canvas[i : i + 3], 'little') + 1 for i in (4, 7)))
  if len(sizes) != 1 or (lossy is None) == (lossless is None):
    raise Unreadable('is a damaged WebP: its chunks are not those of one image')
  return Header('WebP', *sizes.pop(), 3, 8)


def _webp(encoded: bytes) -> np.ndarray:
  from PIL import WebPImagePlugin

  with WebPImagePlugin.WebPImageFile(io.BytesIO(encoded)) as image:
    image.load()
    return np.asarray(image if image.mode in ('RGB', 'RGBA') else image.convert('RGB'))


def _webp_exif(encoded: bytes) -> bytes:
  return _webp_chunks(encoded).get(b'EXIF', b'').removeprefix(b'Exif\0\0')


# HEIC.


def _is_heic(encoded: bytes) -> bool:
  if encoded[4:8] != b'ftyp':
    return False
  brands = encoded[8:12], *(encoded[i : i + 4] for i in range(16, min(encoded[3], 64), 4))
  return brands[0] in _HEIF or (brands[0] == b'mif1' and not {*_HEIF}.isdisjoint(brands))


def _open_heic(encoded: bytes):
  try:
    import pillow_heif  # the extra `formats`
  except ImportError:
    raise Unreadable(
      "is a HEIC image: pip install 'flexfas_jax[formats]' reads it, or convert it: heif-convert "
      'FILE FILE.png'
    ) from None
  return pillow_heif.open_heif(io.BytesIO(encoded), convert_hdr_to_8bit=False)


def _heic_header(encoded: bytes) -> Header:
  images = _open_heic(encoded)
  if len(images) != 1:
    raise Unreadable(f'is a HEIC of {len(images)} images, not one')
  (image,) = images
  if image.mode not in ('RGB', 'RGBA', 'L'):
    raise Unreadable(
      f'is a HEIC image of the kind {image.mode}, and 8 bits are due; convert it: heif-convert '
      'FILE FILE.jpg'
    )
  return Header('HEIC', *image.size, 1 if image.mode == 'L' else 3, 8)


def _heic(encoded: bytes) -> np.ndarray:
  """Decodes an image; the decoder applies the rotation of the container, so EXIF is ignored."""
  (image,) = _open_heic(encoded)
  return np.asarray(image)


_FORMATS = {
  'NPY': _Format(lambda e: e[:6] == _NPY, _npy_header, _npy, _no_exif),
  'TIFF': _Format(lambda e: e[:4] in (b'II*\0', b'MM\0*'), _tiff_header, _tiff, _tiff_exif),
  'WebP': _Format(
    lambda e: e[:4] == b'RIFF' and e[8:12] == b'WEBP', _webp_header, _webp, _webp_exif
  ),
  'HEIC': _Format(_is_heic, _heic_header, _heic, _no_exif),
}
