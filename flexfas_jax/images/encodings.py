"""How an image file was written, from its header: the traces that an encoder leaves in every file.

A model can learn them instead of the face: all attacks of a data set may be progressive JPEGs,
unlike the images in use (`protocols/shortcuts.py`).
"""

import struct
import zlib

from flexfas_jax.images import files as image_files

_COLOURS = {0: 'grey', 2: 'rgb', 3: 'palette', 4: 'grey+alpha', 6: 'rgb+alpha'}  # PNG's types
_PROCESSES = {0xC0: 'baseline', 0xC1: 'extended', 0xC2: 'progressive'}
_TABLES, _SCAN, _END = 0xDB, 0xDA, 0xD9


def describe(encoded: bytes) -> str:
  """Format, size, bits and encoder of an image, in four words; '' if the header is unreadable.

  >>> describe(open('face.jpg', 'rb').read())  # doctest: +SKIP
  'JPEG 128x96 8 baseline/2x2,1x1,1x1/1f0c3a55'

  The encoder of a JPEG is its process, the sampling factors of its channels, and a checksum of its
  quantisation tables, which a quality and an encoder have in common; that of a PNG its colour type
  and interlacing.

  Args:
    encoded: the file; only its header is read.
  """
  try:
    return describe_with_header(encoded, image_files.header(encoded))
  except image_files.Unreadable:
    return ''


def describe_with_header(encoded: bytes, header: image_files.Header) -> str:
  """`describe` of a file whose header is already parsed."""
  try:
    encoder = _ENCODERS.get(header.kind, lambda encoded: '-')(encoded)
  except (IndexError, struct.error):
    return ''
  return f'{header.kind} {header.width}x{header.height} {header.bits} {encoder}'


def _describe_png_encoder(encoded: bytes) -> str:
  colour = _COLOURS.get(encoded[25], str(encoded[25]))
  return f'{colour}{"/interlaced" if encoded[28] else ""}'


def _describe_jpeg_encoder(encoded: bytes) -> str:
  process, sampling, tables = '', '', 0
  at = 2
  while True:
    while encoded[at] == 0xFF == encoded[at + 1]:  # fill bytes
      at += 1
    code = encoded[at + 1]
    if code in (_SCAN, _END):
      return f'{process}/{sampling}/{tables:08x}'
    (length,) = struct.unpack_from('>H', encoded, at + 2)
    content = encoded[at + 4 : at + 2 + length]
    if code == _TABLES:
      tables = zlib.crc32(content, tables)
    elif 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
      process = _PROCESSES.get(code, f'{code:02x}')
      factors = content[7 : 6 + 3 * content[5] : 3]  # of each channel
      sampling = ','.join(f'{factor >> 4}x{factor & 15}' for factor in factors)
    at += 2 + max(2, length)


_ENCODERS = {'JPEG': _describe_jpeg_encoder, 'PNG': _describe_png_encoder}
