"""Damaged JPEGs and PNGs of several encoders: which are accepted, and with which pixels."""

import collections
import io
import random
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from experiments.reliability import damaged_jpegs, mutations
from flexfas_jax.images import checks as image_checks
from flexfas_jax.images import files as image_files
from flexfas_jax.schema import MODALITIES

N_INTACT = 200  # files that mutations start from
_SIDE = 320  # pixels of a PNG at most
# As of simplejpeg 1.9.0, see `damaged_jpegs`: what is found of files with more than 1 % wrong
# pixels, in percent.
DOCUMENTED = {
  'zeros': 99.5, 'missing': 99.5, 'cut': 100.0, 'random_block': 93.9, 'random_places': 100.0,
  'swapped': 93.8, 'one_byte': 64.8,
}  # fmt: skip
_PNG_START = b'\x89PNG\r\n\x1a\n'
# First pixel and step of the seven passes of an interlaced PNG: x, y, dx, dy.
_PASSES = (
  (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip


def accepted(encoded: bytes, rng: random.Random) -> tuple[np.ndarray | None, str]:
  """(pixels, '') as `inspect` accepts an encoded image, or (None, the rule that refuses it)."""
  found = image_checks.inspect({rng.choice(MODALITIES): encoded})
  try:
    image = image_checks.decode(encoded)
  except image_files.Unreadable:
    assert found and found[0][0] == 'unreadable', found
    return None, 'unreadable'
  assert not any(rule == 'unreadable' for rule, _ in found), found
  return image, ''


class Jpegs:
  """Mutations of JPEGs. Wrong: accepted with more than 1 % wrong pixels, which `DOCUMENTED` is
  about; what writes another value into a header makes another, whole JPEG."""

  def __init__(self, seed: int):
    self._draw, self._intact = np.random.default_rng(seed), []
    self.found: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)

  def __call__(self, rng: random.Random) -> tuple[str, str]:
    if len(self._intact) < N_INTACT:
      encoded = damaged_jpegs.encode(damaged_jpegs.scene(self._draw), self._draw)[1]
      self._intact.append((encoded, _lenient(encoded)))
    encoded, pixels = rng.choice(self._intact)
    kind, mutant = self._mutated(encoded, rng)
    image, rule = accepted(mutant, rng)
    if mutant == encoded:
      return ('accepted', 'unchanged') if image is not None else ('wrong', 'intact is refused')
    wrong = _is_wrong(mutant, pixels)
    if wrong:
      self.found[kind][image is None] += 1
    if image is None:
      return 'refused', rule
    if not wrong:
      return 'accepted', 'at most 1 % other pixels'
    return ('another', kind) if kind in _HEADERS else ('undetectable', kind)

  def _mutated(self, encoded: bytes, rng: random.Random) -> tuple[str, bytes]:
    kind = rng.choice((*damaged_jpegs.KINDS, *_OF_SEGMENTS, mutations.of_bytes))
    if kind in damaged_jpegs.KINDS:
      changed = kind(encoded, np.random.default_rng(rng.getrandbits(32)))
      if changed is not None:
        return kind.__name__, changed
    if kind in _OF_SEGMENTS:
      return kind.__name__, kind(encoded, rng)
    name, changed = mutations.of_bytes(encoded, rng)
    return f'any {name}', changed

  def lines(self) -> list[str]:
    """What was found of the files with more than 1 % wrong pixels, by kind."""
    lines = []
    for kind, counts in sorted(self.found.items()):
      n = counts.total()
      known = f', documented: {DOCUMENTED[kind]} %' if kind in DOCUMENTED else ''
      lines.append(f'{kind:18} {counts[True]} of {n} found, {counts[True] / n:.1%}{known}')
    return lines

  def bad(self) -> list[str]:
    """What must not be."""
    blocks = collections.Counter()
    for kind in damaged_jpegs.BLOCKS:
      blocks += self.found[kind.__name__]
    if blocks.total() > 200 and blocks[True] < damaged_jpegs.LEAST_REPORTED * blocks.total():
      return [f'of files with damaged blocks {blocks[True]} of {blocks.total()} are found']
    return []


def _lenient(encoded: bytes) -> np.ndarray:
  return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)


def _is_wrong(encoded: bytes, intact: np.ndarray) -> bool:
  """Whether more than 1 % of the pixels are others; huge images are not decoded for that."""
  try:
    with Image.open(io.BytesIO(encoded)) as image:
      if image.size != intact.shape[1::-1]:
        return True
  except Exception:  # Pillow raises many kinds
    return True
  return damaged_jpegs.share_wrong(encoded, intact) > damaged_jpegs.SHARE_WRONG


def _segments(encoded: bytes) -> list[tuple[int, int]]:
  """(start, end) of the segments before the first scan's data."""
  found, at = [], 2
  while encoded[at] == 0xFF and encoded[at + 1] != 0xDA:
    end = at + 2 + int.from_bytes(encoded[at + 2 : at + 4])
    found.append((at, end))
    at = end
  return found


def header_byte(encoded: bytes, rng: random.Random) -> bytes:
  """Another value of a byte before the first scan."""
  at = rng.randrange(2, _segments(encoded)[-1][1])
  return encoded[:at] + bytes([encoded[at] ^ rng.randrange(1, 256)]) + encoded[at + 1 :]


def sides(encoded: bytes, rng: random.Random) -> bytes:
  """Another size in the header, a little or by far."""
  for start, _ in _segments(encoded):
    if encoded[start + 1] in (0xC0, 0xC1, 0xC2):
      at = start + 5 + 2 * rng.randrange(2)
      side = int.from_bytes(encoded[at : at + 2])
      other = rng.choice((side - 1, side + 1, side + 16, 0, 1, 5000, 20_000, 65_535))
      return encoded[:at] + (other % 65_536).to_bytes(2) + encoded[at + 2 :]
  return encoded


def segment_length(encoded: bytes, rng: random.Random) -> bytes:
  """Another length of a segment."""
  start, end = rng.choice(_segments(encoded))
  length = rng.choice((0, 1, 2, end - start - 3, end - start, 65_535, rng.randrange(65_536)))
  return encoded[: start + 2] + length.to_bytes(2) + encoded[start + 4 :]


def segment_twice(encoded: bytes, rng: random.Random) -> bytes:
  """A segment that is there twice."""
  start, end = rng.choice(_segments(encoded))
  return encoded[:end] + encoded[start:]


def segment_missing(encoded: bytes, rng: random.Random) -> bytes:
  """A segment less."""
  start, end = rng.choice(_segments(encoded))
  return encoded[:start] + encoded[end:]


def segments_swapped(encoded: bytes, rng: random.Random) -> bytes:
  """Two segments in each other's place."""
  found = _segments(encoded)
  (a, b), (c, d) = sorted(rng.choices(found, k=2))
  return (
    encoded if a == c else encoded[:a] + encoded[c:d] + encoded[b:c] + encoded[a:b] + encoded[d:]
  )


def marker_within(encoded: bytes, rng: random.Random) -> bytes:
  """A marker in the data of a scan."""
  at = rng.randrange(_segments(encoded)[-1][1] + 14, len(encoded) - 2)
  marker = bytes([0xFF, rng.choice((0xC4, 0xD0, 0xD7, 0xD8, 0xD9, 0xDA, 0xDB, 0xE1, 0xFE))])
  return encoded[:at] + marker + encoded[at + 2 * rng.randrange(2) :]


_OF_SEGMENTS = (
  header_byte, sides, segment_length, segment_twice, segment_missing, segments_swapped,
  marker_within,
)  # fmt: skip
# What these write is valid: other tables, another size. No check can know what it was.
_HEADERS = {one.__name__ for one in _OF_SEGMENTS if one is not marker_within}


_OTHER_CHUNKS = (  # (name, how its content starts)
  (b'zTXt', b'a\0\0'), (b'iCCP', b'a\0\0'), (b'iTXt', b'a\0\1\0\0\0'), (b'tRNS', b''),
  (b'gAMA', b''), (b'eXIf', b'MM\0*'), (b'PLTE', b''), (b'acTL', b''), (b'sBIT', b''),
)  # fmt: skip


class Pngs:
  """Mutations of PNGs. Wrong: accepted with other pixels; another: so, with check sums that were
  computed again, which makes another, whole PNG."""

  def __init__(self, seed: int):
    self._draw, self._intact = np.random.default_rng(seed), []

  def __call__(self, rng: random.Random) -> tuple[str, str]:
    if len(self._intact) < N_INTACT:
      encode = _VARIANTS[len(self._intact) % len(_VARIANTS)]
      encoded = encode(damaged_jpegs.scene(self._draw)[:_SIDE, :_SIDE], self._draw)
      self._intact.append((encoded, image_checks.decode(encoded)))
    encoded, pixels = rng.choice(self._intact)
    forged = rng.random() < 0.3
    if forged:
      kind, mutant = 'forged', _forged(encoded, rng)
    elif rng.random() < 0.5:
      kind, mutant = mutations.of_bytes(encoded, rng)
    else:
      kind, mutant = 'chunks', _of_chunks(encoded, rng)
    image, rule = accepted(mutant, rng)
    if image is None:
      return ('refused', rule) if mutant != encoded else ('wrong', 'intact is refused')
    if image.shape == pixels.shape and image.dtype == pixels.dtype and (image == pixels).all():
      return 'accepted', 'the same pixels'
    return ('another', kind) if forged else ('wrong', kind)

  def lines(self) -> list[str]:
    """Lines to report: none."""
    return []

  def bad(self) -> list[str]:
    """Nothing but what was counted as wrong."""
    return []


def _chunks(encoded: bytes) -> list[bytes]:
  found, at = [], 8
  while at < len(encoded):
    end = at + 12 + int.from_bytes(encoded[at : at + 4])
    found.append(encoded[at:end])
    at = end
  return found


def _chunk(name: bytes, body: bytes) -> bytes:
  return struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))


def _of_chunks(encoded: bytes, rng: random.Random) -> bytes:
  """Lengths, order and number of chunks, whose contents stay what they are."""
  chunks = _chunks(encoded)
  at, other = rng.randrange(len(chunks)), rng.randrange(len(chunks))
  how = rng.randrange(6)
  if how == 0:
    length = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(2**16)))
    chunks[at] = struct.pack('>I', length) + chunks[at][4:]
  elif how == 1:
    chunks[at], chunks[other] = chunks[other], chunks[at]
  elif how == 2:
    chunks.insert(other, chunks[at])
  elif how == 3:
    del chunks[at]
  elif how == 4:
    chunks[at] = chunks[at][:4] + bytes([chunks[at][4] ^ 0x20]) + chunks[at][5:]  # not critical
  else:
    chunks = chunks[:at]
  return _PNG_START + b''.join(chunks)


def _forged(encoded: bytes, rng: random.Random) -> bytes:
  """Another content of a chunk, with its check sum."""
  chunks = _chunks(encoded)
  if rng.random() < 0.4:
    header = bytearray(chunks[0][8:-4])
    field = rng.randrange(7)
    if field < 2:
      side = rng.choice((0, 1, 15, 16, 17, 319, 4999, 5000, 2**20, 2**31 - 1, 2**32 - 1))
      header[4 * field : 4 * field + 4] = side.to_bytes(4)
    else:
      header[6 + field] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
    chunks[0] = _chunk(b'IHDR', bytes(header))
    return _PNG_START + b''.join(chunks)
  at = rng.randrange(1, len(chunks))
  name, body = chunks[at][4:8], chunks[at][8:-4]
  if name == b'IDAT' and rng.random() < 0.3:  # another stream: too short, too long
    rows = rng.choice((b'', bytes(100), bytes(2**20), bytes(2**26)))
    chunks[at] = _chunk(name, zlib.compress(rows))
  elif rng.random() < 0.3:
    text = zlib.compress(bytes(rng.choice((10, 2**20, 2**26))))
    name, start = rng.choice(_OTHER_CHUNKS)
    chunks.insert(rng.randrange(1, len(chunks)), _chunk(name, start + text))
  else:
    chunks[at] = _chunk(name, mutations.of_bytes(body, rng)[1] if body else b'\0')
  return _PNG_START + b''.join(chunks)


def _by_pillow(convert: Callable[[np.ndarray], Image.Image]) -> Callable:
  def encode(image: np.ndarray, rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    convert(image).save(file, 'PNG', compress_level=int(rng.integers(10)))
    return file.getvalue()

  return encode


def _by_opencv(image: np.ndarray, rng: np.random.Generator) -> bytes:
  deep = image.astype(np.uint16) * 257
  return cv2.imencode('.png', deep, [cv2.IMWRITE_PNG_COMPRESSION, int(rng.integers(10))])[
    1
  ].tobytes()


def _interlaced(image: np.ndarray, rng: np.random.Generator) -> bytes:
  """Adam7, which Pillow and OpenCV do not write; grey or RGB, 8 or 16 bits."""
  image = image[..., :1] if rng.random() < 0.5 else image
  if rng.random() < 0.5:
    image = (image.astype('>u2') * 257).astype('>u2')
  h, w, channels = image.shape
  rows = []
  for x, y, dx, dy in _PASSES:
    some = image[y::dy, x::dx]
    rows += [b'\0' + row.tobytes() for row in some] if some.size else []
  kind = 2 if channels == 3 else 0
  header = struct.pack('>IIBBBBB', w, h, 8 * image.itemsize, kind, 0, 0, 1)
  data = zlib.compress(b''.join(rows))
  parts = [_chunk(b'IDAT', data[i : i + 8192]) for i in range(0, len(data), 8192)]
  return _PNG_START + _chunk(b'IHDR', header) + b''.join(parts) + _chunk(b'IEND', b'')


def _transparent(image: np.ndarray) -> Image.Image:
  return Image.fromarray(np.concatenate([image, image[..., :1]], -1))


_VARIANTS = (
  _by_pillow(Image.fromarray),
  _by_pillow(lambda image: Image.fromarray(np.ascontiguousarray(image[..., 0]))),
  _by_pillow(lambda image: Image.fromarray(image[..., 0].astype(np.uint16) * 257)),
  _by_pillow(lambda image: Image.fromarray(image).quantize(64)),
  _by_pillow(lambda image: Image.fromarray(image).quantize(9)),  # four bits a pixel
  _by_pillow(lambda image: Image.fromarray(image).convert('1')),
  _by_pillow(_transparent),
  _by_pillow(lambda image: _transparent(image).convert('LA')),
  _by_opencv,
  _interlaced,
  _interlaced,
)
