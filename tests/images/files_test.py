"""Files that are no files, too large, too small, or that lie about what they hold."""

import contextlib
import io
import os
import socket
import struct
import time
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from flexfas_jax.errors import ConfigError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.images import face_crop, geometry
from flexfas_jax.images import files as image_files
from flexfas_jax.images.files import Unreadable, header, orientation, read

RGB = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)


def encode(image, form, **options):
  out = io.BytesIO()
  Image.fromarray(image).save(out, form, **options)
  return out.getvalue()


JPEG, PNG = encode(RGB, 'JPEG'), encode(RGB, 'PNG')


def chunk(name, content=b''):
  crc = zlib.crc32(name + content)
  return struct.pack('>I', len(content)) + name + content + struct.pack('>I', crc)


def png(*chunks, width=64, height=64, bits=8, colour=0, data=None):
  """A PNG by hand, all zeros, whose header may claim any size."""
  start = struct.pack('>IIBBBBB', width, height, bits, colour, 0, 0, 0)
  data = zlib.compress(bytes((width + 1) * height)) if data is None else data
  parts = [chunk(b'IHDR', start), *chunks, chunk(b'IDAT', data), chunk(b'IEND')]
  return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def segment(marker, content=b''):
  return bytes([0xFF, marker]) + struct.pack('>H', len(content) + 2) + content


def with_segments(*segments):
  return JPEG[:2] + b''.join(segments) + JPEG[2:]


def before_end(*parts):
  return JPEG[:-2] + b''.join(parts) + JPEG[-2:]


# Files.


def test_only_regular_files_are_read(tmp_path):
  (tmp_path / 'file').write_bytes(PNG)
  (tmp_path / 'link').symlink_to('file')
  assert read(tmp_path / 'link') == read(str(tmp_path / 'file')) == PNG
  os.mkfifo(tmp_path / 'fifo')
  listening = socket.socket(socket.AF_UNIX)
  listening.bind(str(tmp_path / 'socket'))
  with listening:
    for path, kind in (
      (tmp_path, 'a directory'),
      (tmp_path / 'fifo', 'a named pipe'),
      (tmp_path / 'socket', 'a socket'),
      ('/dev/zero', 'a device'),
    ):
      with pytest.raises(OSError, match=f'it is {kind}, not a regular file'):
        read(path)
  with pytest.raises(FileNotFoundError):
    read(tmp_path / 'none')
  with pytest.raises(OSError, match='null (byte|character)'):
    read('a\0b')


def test_a_path_that_becomes_a_pipe_does_not_block(tmp_path, monkeypatch):
  """Between looking at a path and opening it, another process may replace it."""
  (tmp_path / 'file').write_bytes(PNG)
  os.mkfifo(tmp_path / 'fifo')
  look = os.stat
  monkeypatch.setattr(os, 'stat', lambda _: look(tmp_path / 'file'))
  with pytest.raises(OSError, match='a named pipe'):
    read(tmp_path / 'fifo')


def test_no_more_is_read_than_the_limit(tmp_path, monkeypatch):
  with open(tmp_path / 'sparse', 'wb') as file:
    file.truncate(2**40)
  with pytest.raises(OSError, match='it has 1,099,511,627,776 bytes, and at most 67,108,864'):
    read(tmp_path / 'sparse')
  (tmp_path / 'file').write_bytes(PNG)
  assert read(tmp_path / 'file', len(PNG)) == PNG
  with pytest.raises(OSError, match='at most'):
    read(tmp_path / 'file', len(PNG) - 1)
  measure = os.fstat

  def before_it_grew(descriptor):
    found = list(measure(descriptor))
    found[6] = 10
    return os.stat_result(found)

  monkeypatch.setattr(os, 'fstat', before_it_grew)
  with pytest.raises(OSError, match='it grows beyond 10 bytes'):
    read(tmp_path / 'file')


# Headers.


def test_headers():
  assert header(JPEG) == ('JPEG', 40, 24, 3, 8)
  assert header(PNG) == ('PNG', 40, 24, 3, 8)
  assert header(encode(RGB[..., 0], 'JPEG')) == ('JPEG', 40, 24, 1, 8)
  assert header(encode(np.dstack([RGB, RGB[..., 0]]), 'PNG')) == ('PNG', 40, 24, 4, 8)
  deep = cv2.imencode('.png', RGB.astype(np.uint16))[1].tobytes()
  assert header(deep) == ('PNG', 40, 24, 3, 16)
  for options in ({'progressive': True}, {'restart_marker_blocks': 1}, {'comment': b'\xff\xd9'}):
    assert header(encode(RGB, 'JPEG', **options))[:3] == ('JPEG', 40, 24), options


def test_headers_of_small_files_are_remembered_and_large_files_are_not_kept():
  assert header(PNG) is header(bytes(bytearray(PNG)))
  large = JPEG + bytes(2**20)
  assert header(large) == header(large) and header(large) is not header(large)
  for _ in range(2):
    with pytest.raises(Unreadable, match='truncated'):
      header(JPEG[:-2])


def test_what_follows_the_end_is_ignored():
  """Phones append a second image, or seconds of video; other devices pad to whole blocks."""
  for encoded in (JPEG, PNG, encode(RGB, 'JPEG', progressive=True, restart_marker_blocks=1)):
    for behind in (bytes(8192), b'\xff' * 8192, os.urandom(3 << 20), JPEG, PNG):
      longer = encoded + behind
      assert header(longer) == header(encoded)
      np.testing.assert_array_equal(image_checks.decode(longer), image_checks.decode(encoded))
  with pytest.raises(Unreadable, match='bytes, and at most'):
    header(JPEG + bytes(image_files.MAX_BYTES))


def test_an_end_behind_a_truncated_image_is_not_its_own():
  """Zeros or a video do not complete an image; a second image's end marker does not, either."""
  for behind in (bytes(8192), JPEG):
    with pytest.raises(Unreadable):
      image_checks.decode(JPEG[: len(JPEG) // 2] + behind)
    with pytest.raises(Unreadable):
      image_checks.decode(PNG[: len(PNG) // 2] + behind)


def test_many_images_in_one_file():
  """The first of a JPEG's is the photograph; a PNG's are a film, of which no sensor takes one."""
  first, second = Image.fromarray(RGB), Image.fromarray(RGB[::-1].copy())
  out = io.BytesIO()
  first.save(out, 'MPO', save_all=True, append_images=[second])
  several = image_checks.decode(out.getvalue())
  assert np.abs(several.astype(int) - image_checks.decode(JPEG)).max() == 0
  out = io.BytesIO()
  first.save(out, 'PNG', save_all=True, append_images=[second])
  with pytest.raises(Unreadable, match='animated PNG'):
    header(out.getvalue())


@pytest.mark.parametrize('width, height', [(4, 4), (300, 2), (2, 300), (15, 16), (0, 64)])
def test_too_small(width, height):
  with pytest.raises(Unreadable, match=f'{width} x {height} pixels; each side must have at least'):
    image_checks.decode(png(width=width, height=height))


def test_the_limit_of_pixels_is_exact():
  edge = png(width=50, height=20)
  assert image_checks.decode(edge, 1000).shape == (20, 50)
  with pytest.raises(Unreadable, match='50 x 20 pixels, more than the limit of 999'):
    image_checks.decode(edge, 999)
  assert image_checks.decode(png(width=16, height=16)).shape == (16, 16)
  assert image_files.check_pixel_limit(256) == 256
  for value in (255, 0, -1, 1e6, None):
    with pytest.raises(ConfigError, match='max_pixels'):
      image_files.check_pixel_limit(value)


def test_the_limit_may_be_higher_than_pillows(monkeypatch):
  """Pillow's own is global: it warns, or refuses, whatever the caller allows."""
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 16)
  assert image_checks.decode(PNG).shape == RGB.shape


def lying_jpeg():
  place = JPEG.index(b'\xff\xc0') + 5
  return JPEG[:place] + struct.pack('>HH', 65_500, 65_500) + JPEG[place + 4 :]


LARGE_HEADER = chunk(b'IHDR', struct.pack('>IIBBBBB', 60_000, 60_000, 8, 0, 0, 0, 0))
TEN_MEGABYTES = zlib.compress(bytes(10**7))
SCAN = bytes((3, 1, 0, 2, 0x11, 3, 0x11, 0, 63, 0))  # of all coefficients of three components
BOMBS = {  # name: (encoded, what is said)
  'PNG of 89 megapixels': (
    lambda: png(width=10_000, height=8_900),
    '10000 x 8900 pixels, more than the limit of 25,000,000',
  ),
  'lying PNG': (lambda: png(width=60_000, height=60_000, data=b'x'), '60000 x 60000 pixels, more'),
  'lying JPEG': (lying_jpeg, '65500 x 65500 pixels, more'),
  'two PNG headers': (lambda: png(LARGE_HEADER), 'header is not its first chunk alone'),
  'two JPEG headers': (lambda: with_segments(segment(0xC0, bytes(15))), 'two frame headers'),
  'chunks': (lambda: png(chunk(b'teST') * 70_000), 'more than 65,536 chunks'),
  'segments': (lambda: with_segments(segment(0xFE) * 70_000), 'more than 65,536 segments'),
  'scans': (lambda: before_end(segment(0xDA, SCAN) * 20), 'more than 20 scans'),
  'tables': (
    lambda: with_segments(segment(0xC4, bytes(65_000)) * 900),
    'more than 160 tables of codes',
  ),
  'text': (lambda: png(chunk(b'zTXt', b'a\0\0' + TEN_MEGABYTES)), 'cannot be decoded .*large'),
  'profile': (lambda: png(chunk(b'iCCP', b'a\0\0' + TEN_MEGABYTES)), 'cannot be decoded .*large'),
  'data': (
    lambda: png(data=zlib.compress(bytes(10**8))),
    'more data than its pixels have',
  ),
  'all FF': (lambda: JPEG[:2] + b'\xff' * 10**6, 'truncated'),
  'bytes': (lambda: JPEG + bytes(image_files.MAX_BYTES), 'at most 67,108,864 are read'),
}


@pytest.mark.parametrize('name', BOMBS)
def test_bombs_are_refused_before_they_go_off(name):
  make, says = BOMBS[name]
  encoded, start = make(), time.process_time()
  with pytest.raises(Unreadable, match=says):
    image_checks.decode(encoded)
  assert time.process_time() - start < 0.5


@pytest.mark.parametrize('bits', [1, 8, 16])
@pytest.mark.parametrize('interlaced', [False, True])
def test_pixels_that_do_not_compress_are_no_bomb(bits, interlaced):
  """Noise of the largest size that its header allows; a decoder sees the same in both."""
  noise = np.random.default_rng(1).integers(0, 2, (1500, 1200), np.uint8) * 255
  if bits > 1:
    noise = np.random.default_rng(1).integers(0, 2**bits, (400, 600), f'u{bits // 8}')
  encoded = cv2.imencode('.png', noise, [cv2.IMWRITE_PNG_BILEVEL, int(bits == 1)])[1].tobytes()
  if interlaced:
    encoded = adam7(noise, bits)
  assert header(encoded).bits == bits
  np.testing.assert_array_equal(image_checks.decode(encoded), noise)


def adam7(image, bits):
  """[h, w] as an interlaced PNG, by hand."""
  data = b''
  for x, y, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4),
                       (1, 0, 2, 2), (0, 1, 1, 2)):  # fmt: skip
    rows = image[y::dy, x::dx]
    rows = np.packbits(rows > 0, 1) if bits == 1 else rows.astype(f'>u{bits // 8}')
    data += b''.join(b'\0' + row.tobytes() for row in rows)
  h, w = image.shape
  start = struct.pack('>IIBBBBB', w, h, bits, 0, 0, 0, 1)
  parts = chunk(b'IHDR', start), chunk(b'IDAT', zlib.compress(data)), chunk(b'IEND')
  return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def tiff(*entries, order='<', after=b''):
  """A TIFF structure with one directory; entries are (tag, type, count, four bytes)."""
  start = b'II*\0' if order == '<' else b'MM\0*'
  body = b''.join(struct.pack(order + 'HHI', *entry[:3]) + entry[3] for entry in entries)
  return start + struct.pack(order + 'IH', 8, len(entries)) + body + bytes(4) + after


def test_exif_costs_no_memory():
  """Pillow copies what each tag points at: 64 kB would take 300 MB."""
  everything = struct.pack('<I', 8)
  bomb = tiff(*((tag, 7, 60_000, everything) for tag in range(1, 5_000)))
  encoded = with_segments(segment(0xE1, b'Exif\0\0' + bomb))
  tracemalloc.start()
  try:
    image = image_checks.decode(encoded)
    assert orientation(encoded) == 1
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  np.testing.assert_array_equal(image, image_checks.decode(JPEG))
  assert peak < 2_000_000


def test_a_damaged_colour_profile_is_no_damaged_image():
  encoded = with_segments(segment(0xE2, b'ICC_PROFILE\0\2\1junk'))
  np.testing.assert_array_equal(image_checks.decode(encoded), image_checks.decode(JPEG))


def test_metadata_leave_and_pixels_stay():
  adobe = segment(0xEE, b'Adobe\0\x64\0\0\0\0\1')  # which says how colours are stored
  removed = segment(0xE1, b'Exif\0\0' + tiff()), segment(0xED, b'Photoshop 3.0\0')
  encoded = with_segments(removed[0], adobe, removed[1])
  assert image_files.without_metadata(encoded) == with_segments(adobe)
  after = JPEG + removed[0]  # a second image is its own affair
  assert image_files.without_metadata(after) == after
  assert image_files.without_metadata(JPEG) is JPEG
  assert image_files.without_metadata(PNG) is PNG


# Orientation.


@pytest.mark.parametrize('form', ['JPEG', 'PNG'])
@pytest.mark.parametrize('number', range(1, 9))
def test_images_are_turned_as_exif_says(number, form):
  source = cv2.resize(RGB[:3, :5], (40, 24), interpolation=cv2.INTER_NEAREST)
  exif = Image.Exif()
  exif[0x0112] = number
  encoded = encode(source, form, exif=exif, **({'quality': 95} if form == 'JPEG' else {}))
  assert orientation(encoded) == number
  image = face_crop.turn_upright(geometry.decode(encoded, 'rgb', ''), number)
  wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))))
  assert image.shape == wanted.shape
  assert np.abs(image.astype(int) - wanted).max() < 20  # two JPEG decoders


@pytest.mark.parametrize('order', ['<', '>'])
def test_orientation_in_both_byte_orders_and_all_types(order):
  other = (0x010F, 2, 4, b'cam\0')
  for kind, value in ((3, struct.pack(order + 'HH', 6, 0)), (4, struct.pack(order + 'I', 6)),
                      (1, bytes([6, 0, 0, 0]))):  # fmt: skip
    exif = tiff(other, (0x0112, kind, 1, value), order=order)
    assert orientation(with_segments(segment(0xE1, b'Exif\0\0' + exif))) == 6
    assert orientation(png(chunk(b'eXIf', exif))) == 6
    assert orientation(png(chunk(b'eXIf', b'Exif\0\0' + exif))) == 6  # as some cameras have it
  assert orientation(with_segments(segment(0xE1, b'Exif\0\0' + exif[:20]))) == 1
  exif = tiff((0x0112, 3, 1, struct.pack(order + 'HH', 77, 0)), order=order)
  assert orientation(with_segments(segment(0xE1, b'Exif\0\0' + exif))) == 1


@pytest.mark.parametrize(
  'encoded', [b'', b'\xff\xd8\xff\xe1\0\x10Exif\0\0broken', b'Exif\0' * 9, JPEG, PNG]
)
def test_what_has_no_orientation_is_upright(encoded):
  assert orientation(encoded) == 1


def test_no_bytes_raise_anything_but_unreadable():
  """Cut and flipped files, and noise after what a file starts with."""
  rng = np.random.default_rng(0)
  for source in (JPEG, PNG, encode(RGB, 'JPEG', progressive=True)):
    for _ in range(300):
      broken = bytearray(source)
      for place in rng.integers(0, len(broken), rng.integers(1, 6)):
        broken[place] = rng.integers(256)
      broken = bytes(broken[: rng.integers(len(broken) // 2, len(broken) + 1)])
      assert orientation(broken) in range(1, 9)
      with contextlib.suppress(Unreadable):
        image_checks.decode(broken)
