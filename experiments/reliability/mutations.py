"""Ways to damage bytes: what disks, cables, copying programs and editors do to a file."""

import random

_BLOCK = 512  # bytes, a sector of a disk
_TEXT = (
  b'\0', b'\xff', b'\xef\xbb\xbf', b'\xff\xfe', b'\r', b'\r\n', b'\n', b'\n\n', b'"', b'""', b'",',
  b',', b';', b'\t', b' ', b'  ', b'\xc2\xa0', b'\xe3\x80\x80', b"'", b'#', b'sep=;\n', b'=', b'\\',
  b'\xed\xa0\x80', b'\x1a', b'\xe2\x80\xa8', b'\xc2\x85', b'\x0b', b'\x0c', b'\x1c', b'/', b'../',
  b'./', b'0', b'1', b'-', b'.0', b'e', b'A', b'9' * 5000, b'a' * 140_000,
)  # fmt: skip


def of_bytes(content: bytes, rng: random.Random) -> tuple[str, bytes]:
  """(kind, damaged content): once, near the ends as often as anywhere else."""
  kinds = (bit, byte, zeros, missing, inserted, cut, twice, swapped, overwritten)
  kind = rng.choice(kinds)
  return kind.__name__, kind(content, rng)


def of_text(content: bytes, rng: random.Random) -> bytes:
  """Text, damaged in one to five places."""
  for _ in range(rng.choice((1, 1, 1, 2, 5))):
    if rng.random() < 0.5:
      a = rng.randrange(len(content) + 1)
      b = min(len(content), a + rng.choice((0, 0, 1, 2, 10)))
      content = content[:a] + rng.choice(_TEXT) + content[b:]
    elif content:
      content = of_bytes(content, rng)[1]
  return content


def bit(content: bytes, rng: random.Random) -> bytes:
  """One bit has the other value."""
  at = _place(content, rng)
  return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def byte(content: bytes, rng: random.Random) -> bytes:
  """One byte has another value."""
  at = _place(content, rng)
  return content[:at] + bytes([content[at] ^ rng.randrange(1, 256)]) + content[at + 1 :]


def zeros(content: bytes, rng: random.Random) -> bytes:
  """A block of zeros in place of what was there."""
  a, b = _range(content, rng)
  return content[:a] + bytes(b - a) + content[b:]


def missing(content: bytes, rng: random.Random) -> bytes:
  """A block less."""
  a, b = _range(content, rng)
  return content[:a] + content[b:]


def inserted(content: bytes, rng: random.Random) -> bytes:
  """Random bytes between what was there."""
  at = _place(content, rng)
  return content[:at] + rng.randbytes(rng.choice((1, 2, 8, _BLOCK))) + content[at:]


def cut(content: bytes, rng: random.Random) -> bytes:
  """The start alone."""
  return content[: _place(content, rng)]


def twice(content: bytes, rng: random.Random) -> bytes:
  """A block that is there twice, one after the other."""
  a, b = _range(content, rng)
  return content[:b] + content[a:]


def swapped(content: bytes, rng: random.Random) -> bytes:
  """Two blocks of one size in each other's place."""
  size = rng.choice((1, 8, 64, _BLOCK))
  if len(content) < 2 * size:
    return byte(content, rng)
  a = rng.randrange(len(content) - 2 * size + 1)
  b = rng.randrange(a + size, len(content) - size + 1)
  one, other = content[a : a + size], content[b : b + size]
  return content[:a] + other + content[a + size : b] + one + content[b + size :]


def overwritten(content: bytes, rng: random.Random) -> bytes:
  """A block of the same file in the place of another."""
  a, b = _range(content, rng)
  at = rng.randrange(len(content))
  block = content[a:b][: len(content) - at]
  return content[:at] + block + content[at + len(block) :]


def _place(content: bytes, rng: random.Random) -> int:
  most = rng.choice((len(content), len(content), 256))
  at = rng.randrange(min(len(content), most))
  return at if rng.random() < 0.8 else len(content) - 1 - at


def _range(content: bytes, rng: random.Random) -> tuple[int, int]:
  at = _place(content, rng)
  return at, min(len(content), at + rng.choice((1, 2, 8, 64, _BLOCK, 4096)))
