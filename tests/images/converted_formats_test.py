"""NPY, TIFF, WebP and HEIC: what is decoded, what is refused, and that both take little memory."""

import functools
import io
import struct
import sys
import tracemalloc

import cv2
import numpy as np
import pytest
from PIL import Image

from flexfas_jax.images import checks as image_checks
from flexfas_jax.images import files as image_files
from flexfas_jax.images.files import Unreadable
from tests.miniatures import faces

RGB = faces.triplet('', 1, 1, 64)['rgb']
DEPTH = faces.triplet('', 1, 1, 64, depth_bits=16)['depth']
METRES = (DEPTH / 1000).astype(np.float32)
GREY = RGB[..., 0]
RGBA = np.dstack([RGB, 255 - GREY // 2])


def pillow(array, kind, **options):
  file = io.BytesIO()
  Image.fromarray(array).save(file, kind, **options)
  return file.getvalue()


def opencv(array):
  return cv2.imencode('.tiff', array)[1].tobytes()


def npy(array, version=None):
  file = io.BytesIO()
  np.lib.format.write_array(file, array, version, allow_pickle=False)
  return file.getvalue()


def heic(array, **options):
  pillow_heif = pytest.importorskip('pillow_heif', reason='the extra `formats` is not installed')
  file = io.BytesIO()
  pillow_heif.from_pillow(Image.fromarray(array)).save(file, quality=-1, chroma=444, **options)
  return file.getvalue()


tiff = functools.partial(pillow, kind='TIFF')
LOSSLESS = {
  'NPY uint8': (npy(GREY), GREY),
  'NPY uint16': (npy(DEPTH), DEPTH),
  'NPY uint16, big endian': (npy(DEPTH.astype('>u2')), DEPTH),
  'NPY float16': (npy(METRES.astype(np.float16)), METRES.astype(np.float16).astype(np.float32)),
  'NPY float32': (npy(METRES), METRES),
  'NPY float64': (npy(METRES.astype(float)), METRES.astype(float)),
  'NPY by columns': (npy(np.asfortranarray(METRES)), METRES),
  'NPY of one channel': (npy(DEPTH[..., None]), DEPTH),
  'NPY of RGB': (npy(RGB), RGB),
  'NPY version 2': (npy(METRES, (2, 0)), METRES),
  'TIFF grey': (tiff(GREY), GREY),
  'TIFF RGB': (tiff(RGB), RGB),
  'TIFF RGBA': (tiff(RGBA), RGB),
  'TIFF RGB, LZW': (tiff(RGB, compression='tiff_lzw'), RGB),
  'TIFF RGB, OpenCV': (opencv(RGB[..., ::-1]), RGB),
  'TIFF uint16': (tiff(DEPTH), DEPTH),
  'TIFF uint16, LZW': (tiff(DEPTH, compression='tiff_lzw'), DEPTH),
  'TIFF uint16, deflate': (tiff(DEPTH, compression='tiff_adobe_deflate'), DEPTH),
  'TIFF uint16, OpenCV': (opencv(DEPTH), DEPTH),
  'TIFF float32': (tiff(METRES), METRES),
  'TIFF float32, LZW': (tiff(METRES, compression='tiff_lzw'), METRES),
  'TIFF float32, deflate': (tiff(METRES, compression='tiff_adobe_deflate'), METRES),
  'TIFF float32, OpenCV': (opencv(METRES), METRES),
  'WebP': (pillow(RGB, 'WEBP', lossless=True), RGB),
  'WebP with transparency': (pillow(RGBA, 'WEBP', lossless=True, exact=True), RGB),
}


@pytest.mark.parametrize('name', LOSSLESS)
def test_every_pixel_is_read(name):
  encoded, want = LOSSLESS[name]
  got = image_checks.decode(encoded)
  assert got.dtype == want.dtype and got.flags.c_contiguous
  np.testing.assert_array_equal(got, want)
  header = image_files.header(encoded)
  assert (header.kind, header.width, header.height) == (name.split()[0], 64, 64)
  assert not image_files.is_jpeg_or_png(encoded) and image_files.orientation(encoded) == 1


def test_lossy_images():
  encoded = pillow(RGB, 'WEBP', quality=90)
  got = image_checks.decode(encoded)
  assert 0 < np.abs(got.astype(int) - RGB).mean() < 4
  other = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
  np.testing.assert_array_equal(got, other)
  encoded = heic(RGB)
  assert np.abs(image_checks.decode(encoded).astype(int) - RGB).mean() < 4
  assert image_files.header(encoded) == ('HEIC', 64, 64, 3, 8)


def test_orientation():
  """As of a JPEG: pixels as stored, and what EXIF says of them; HEIC is turned by its container."""
  exif = Image.Exif()
  exif[0x0112] = 6
  for kind in ('TIFF', 'WEBP'):
    encoded = pillow(RGB[:, :48], kind, exif=exif, **{'lossless': True} if kind == 'WEBP' else {})
    assert image_files.orientation(encoded) == 6
    np.testing.assert_array_equal(image_checks.decode(encoded), RGB[:, :48])
  encoded = heic(RGB[:, :48], exif=exif.tobytes())
  assert image_files.orientation(encoded) == 1
  turned = np.rot90(RGB[:, :48], -1)
  assert np.abs(image_checks.decode(encoded).astype(int) - turned).mean() < 4


def patched_tiff(tag, value, array=DEPTH, order='<', **options):
  """A TIFF whose directory has another value of one tag."""
  encoded = bytearray(tiff(array, **options))
  (at,) = struct.unpack_from(f'{order}I', encoded, 4)
  (n,) = struct.unpack_from(f'{order}H', encoded, at)
  for place in range(at + 2, at + 2 + 12 * n, 12):
    if struct.unpack_from(f'{order}H', encoded, place) == (tag,):
      struct.pack_into(f'{order}HII', encoded, place + 2, 4, 1, value)
      return bytes(encoded)
  raise AssertionError(tag)


def tiff_of_pages():
  file = io.BytesIO()
  Image.fromarray(RGB).save(file, 'TIFF', save_all=True, append_images=[Image.fromarray(RGB)])
  return file.getvalue()


def tiff_of_many_tags():
  """Thousands of private tags with the same megabytes: a parser that loads them takes 20 GB."""
  (at,) = struct.unpack_from('<I', TIFF, 4)
  (n,) = struct.unpack_from('<H', TIFF, at)
  many = [struct.pack('<HHII', 40_000 + i, 7, 2**22, 0) for i in range(5_000)]
  place = len(TIFF) + 2**22
  entries = [TIFF[at + 2 + 12 * i : at + 14 + 12 * i] for i in range(n)]
  directory = struct.pack('<H', n + 5_000) + b''.join([*entries, *many]) + bytes(4)
  return TIFF[:4] + struct.pack('<I', place) + TIFF[8:] + bytes(2**22) + directory


def npy_that_claims(shape, data=b'', descr='<u2'):
  text = repr({'descr': descr, 'fortran_order': False, 'shape': shape}).encode() + b'\n'
  return b'\x93NUMPY\1\0' + struct.pack('<H', len(text)) + text + data


def riff(*chunks):
  body = b''.join(name + struct.pack('<I', len(data)) + data for name, data in chunks)
  return b'RIFF' + struct.pack('<I', 4 + len(body)) + b'WEBP' + body


def animated():
  file = io.BytesIO()
  frames = [Image.fromarray(image) for image in (RGB, 255 - RGB)]
  frames[0].save(file, 'WEBP', save_all=True, append_images=frames[1:])
  return file.getvalue()


TIFF, DEFLATE = tiff(DEPTH), tiff(DEPTH, compression='tiff_adobe_deflate')
WEBP = pillow(RGB, 'WEBP')
REFUSED = {
  'NPY cut': (lambda: npy(DEPTH)[:-1], 'another length'),
  'NPY and more': (lambda: npy(DEPTH) + b'\0', 'another length'),
  'NPY header cut': (lambda: npy(DEPTH)[:40], 'a damaged NPY'),
  'NPY of objects': (lambda: npy_that_claims((64, 64), bytes(2**15), '|O'), 'of object'),
  'NPY of complex': (lambda: npy(METRES.astype(complex)), 'of complex128'),
  'NPY of int16': (lambda: npy(DEPTH.astype(np.int16)), 'of int16'),
  'NPY of four channels': (lambda: npy(RGBA), r'array \[64, 64, 4\]'),
  'NPY of several': (lambda: npy(RGB[None]), r'array \[1, 64, 64, 3\]'),
  'NPY of 16-bit RGB': (lambda: npy(RGB.astype(np.uint16)), 'of uint16; due'),
  'NPY that claims terabytes': (lambda: npy_that_claims((10**6, 10**6)), 'another length'),
  'NPY with negative sides': (lambda: npy_that_claims((-64, -64), bytes(2**13)), 'length'),
  'NPY with code': (lambda: npy_that_claims((64, 64)).replace(b'False', b'f()  '), 'damaged NPY'),
  'NPY too large': (lambda: npy(np.zeros((6000, 5000), np.uint8)), 'the limit of 25,000,000'),
  'NPY too small': (lambda: npy(DEPTH[:15]), 'each side must have at least 16'),
  'TIFF cut': (lambda: TIFF[: len(TIFF) // 2], 'truncated'),
  'TIFF of pages': (tiff_of_pages, 'several pages'),
  'TIFF of JPEG': (lambda: tiff(RGB, compression='jpeg'), 'compression 7'),
  'TIFF of one bit': (lambda: tiff(GREY > 99), '1 x 1 bits'),
  'TIFF, white is 0': (lambda: patched_tiff(262, 0), 'black is 0'),
  'TIFF of a colour map': (lambda: patched_tiff(262, 3, GREY), 'colours 3'),
  'TIFF in tiles': (lambda: patched_tiff(278, 64).replace(b'\x16\1\4', b'\x42\1\4'), 'tiles'),
  'TIFF that claims terabytes': (lambda: patched_tiff(256, 2**31), 'truncated or damaged'),
  'compressed TIFF that claims terabytes': (
    lambda: patched_tiff(256, 2**31, compression='tiff_lzw'), 'more than the limit',
  ),
  'TIFF whose strip is behind its end': (lambda: patched_tiff(273, 2**31), 'behind its end'),
  'deflated TIFF with a wrong byte': (
    lambda: DEFLATE[:900] + bytes([DEFLATE[900] ^ 255]) + DEFLATE[901:], 'damaged',
  ),
  'deflated TIFF that claims more rows': (
    lambda: patched_tiff(257, 128, compression='tiff_adobe_deflate'), 'truncated or damaged',
  ),
  'WebP cut': (lambda: WEBP[:-40], 'another length'),
  'WebP and more': (lambda: WEBP + bytes(2), 'another length'),
  'WebP cut with a new length': (
    lambda: riff((b'VP8 ', WEBP[20 : len(WEBP) // 2 & ~1])), 'cannot be decoded whole',
  ),
  'WebP animated': (animated, 'an animated WebP'),
  'WebP without an image': (lambda: riff((b'EXIF', bytes(8))), 'not those of one image'),
  'WebP with another canvas': (
    lambda: riff((b'VP8X', bytes(4) + b'\xff\xff\xff' * 2), (b'VP8 ', WEBP[20:])),
    'not those of one image',
  ),
  'WebP that claims much': (
    lambda: riff((b'VP8L', b'\x2f' + b'\xff' * 3 + b'\x0f' + bytes(9))), 'more than the limit',
  ),
}  # fmt: skip


@pytest.mark.parametrize('name', REFUSED)
def test_what_is_refused(name):
  make, says = REFUSED[name]
  encoded = make()
  tracemalloc.start()
  try:
    with pytest.raises(Unreadable, match=says):
      image_checks.decode(encoded)
    assert image_files.orientation(encoded) == 1
    assert tracemalloc.get_traced_memory()[1] < 2**24 + 3 * len(encoded)
  finally:
    tracemalloc.stop()


def test_metadata_of_a_tiff_is_never_loaded():
  encoded = tiff_of_many_tags()
  tracemalloc.start()
  try:
    np.testing.assert_array_equal(image_checks.decode(encoded), DEPTH)
    assert tracemalloc.get_traced_memory()[1] < 2**26
  finally:
    tracemalloc.stop()


def test_big_endian_tiff():
  """As microscopes and ImageMagick write it: a directory of SHORTs, then the pixels."""
  values = [(256, 64), (257, 64), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, 64)]
  entries = [struct.pack('>HHIHH', tag, 3, 1, value, 0) for tag, value in values]
  entries.append(struct.pack('>HHII', 279, 4, 1, 2 * DEPTH.size))
  data = DEPTH.astype('>u2').tobytes()
  directory = struct.pack('>H', len(entries)) + b''.join(entries) + bytes(4)
  encoded = b'MM\0*' + struct.pack('>I', 8 + len(data)) + data + directory
  got = image_checks.decode(encoded)
  assert got.dtype == np.uint16
  np.testing.assert_array_equal(got, DEPTH)


def test_heic_that_is_not_read():
  encoded = heic(RGB)
  for broken in (encoded[: len(encoded) // 2], encoded[:60], encoded[:12] + bytes(200)):
    with pytest.raises(Unreadable):
      image_checks.decode(broken)
  with pytest.raises(Unreadable, match='more than the limit of 1,000'):
    image_checks.decode(encoded, 1000)


def test_heic_without_the_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, 'pillow_heif', None)
  encoded = b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(64)
  with pytest.raises(Unreadable, match=r"pip install 'flexfas_jax\[formats\]'.*heif-convert"):
    image_checks.decode(encoded)


@pytest.mark.parametrize('name', ['NPY float32', 'TIFF float32', 'TIFF uint16, deflate', 'WebP'])
def test_fuzzing(name):
  """Whatever the bytes are, there is an image or `Unreadable`, never another error."""
  encoded, rng = LOSSLESS[name][0], np.random.default_rng(7)
  for number in range(150):
    broken = bytearray(encoded)
    where = rng.integers(0, len(broken) if number % 2 else min(len(broken), 200), 3)
    for at in where:
      broken[at] = rng.choice([0, 1, 127, 128, 255])
    if number % 3 == 0:
      del broken[where[0] : where[0] + rng.integers(1, 99)]
    try:
      got = image_checks.decode(bytes(broken))
      assert got.dtype in (np.uint8, np.uint16, np.float32) and got.size <= 25_000_000
    except Unreadable:
      pass
    assert image_files.orientation(bytes(broken)) in range(1, 9)
