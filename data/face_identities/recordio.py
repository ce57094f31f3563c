"""insightface's RecordIO of faces: `train.rec` and `train.idx`, as MXNet's `im2rec` packs them.

A record, little-endian: uint32 0xced7230a; uint32 whose lower 29 bits are the length and whose
upper 3 state whether this is all of it (0), its first (1), a middle (2) or its last (3) part; the
payload; zeros up to a multiple of 4. A record is parted where its bytes are the number that begins
one, which is left out. The payload begins with IRHeader: uint32 flag, float32 label, uint64 id,
uint64 id2; where flag is not 0, so many float32 labels follow, of which the first is the identity's
number. The rest is an encoded image.

`train.idx` has a line per record: its key, a tab, its place in bytes. insightface's first record
(key 0, flag 2) holds no image but two keys: images are those below the first of them, and from
there on come the identities' own records, which hold no images either.
"""

import dataclasses
import os
import pathlib
import struct
from collections.abc import Iterator

from flexfas_jax.data import reading
from flexfas_jax.errors import DataError
from flexfas_jax.images import files as image_files
from flexfas_jax.protocols import relative_paths

_MAGIC = 0xCED7230A
_FRAME, _HEADER = struct.Struct('<II'), struct.Struct('<IfQQ')
_LENGTH = (1 << 29) - 1


def read(file, place: int) -> tuple[tuple[float, ...], bytes]:
  """The record at a place of an open file: (labels, encoded image).

  Raises:
    image_files.Unreadable: there is none, not a whole one, or a larger one than images are.
  """
  file.seek(place)
  parts, part = [], 1
  while part not in (0, 3):
    frame = file.read(_FRAME.size)
    magic, length = _FRAME.unpack(frame) if len(frame) == _FRAME.size else (0, 0)
    part, length = length >> 29, length & _LENGTH
    if magic != _MAGIC:
      raise image_files.Unreadable(f'there is no whole record at byte {place}')
    image_files.check_bytes(length + sum(map(len, parts)))  # before memory is taken for them
    parts.append(file.read(length))
    if len(parts[-1]) < length:
      raise image_files.Unreadable(f'the record at byte {place} is cut off')
    file.seek(-length % 4, os.SEEK_CUR)
  payload = struct.pack('<I', _MAGIC).join(parts)
  if len(payload) < _HEADER.size:
    raise image_files.Unreadable(f'the record at byte {place} has no header')
  flag, label, _, _ = _HEADER.unpack_from(payload)
  start = _HEADER.size + 4 * flag
  if start > len(payload):
    raise image_files.Unreadable(f'the record at byte {place} is shorter than its labels')
  labels = struct.unpack_from(f'<{flag}f', payload, _HEADER.size) if flag else (label,)
  return labels, payload[start:]


def index(rec: pathlib.Path) -> Iterator[tuple[int, int, str]]:
  """Yields (key, place, identity) of the images beside `rec`'s index, in the order of their keys.

  Raises:
    DataError: no index, or one that does not fit the file.
  """
  path = rec.with_suffix('.idx')
  try:
    with image_files.open_regular(path) as file:
      lines = file.read().decode('ascii').splitlines()
    places = dict(sorted(tuple(map(int, line.split('\t'))) for line in lines if line.strip()))
  except (OSError, ValueError) as error:
    raise DataError(f'{path}: not the index of {rec.name}: {error}') from None
  try:
    records = image_files.open_regular(rec)
  except OSError as error:
    raise DataError(f'{rec} cannot be read: {error.strerror}') from None
  with records as file:
    try:
      end = None
      if 0 in places:
        labels, image = read(file, places[0])
        end = None if image else int(labels[0])
      for key, place in places.items():
        if end is None or 0 < key < end:
          labels, _ = read(file, place)
          yield key, place, str(int(labels[0]))
    except image_files.Unreadable as error:
      raise DataError(f'{rec}: {error}; fetch it again') from None


@dataclasses.dataclass(frozen=True)
class RecordReader(reading.Reader):
  """Reads files, and of `train.rec#PLACE` the record's image."""

  def file(self, path: str) -> bytes:
    """The bytes of an image."""
    name, mark, place = path.partition('#')
    if not mark:
      return super().file(path)
    with image_files.open_regular(relative_paths.locate(self.source, name)) as file:
      return read(file, int(place))[1]
