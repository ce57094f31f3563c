"""Rejects ONNX files with tensors in other files, which no hash of the bundle covers.

ONNX Runtime opens such files relative to the working directory, even if it is given bytes. This
module parses protobuf's wire format along the few fields that lead to a tensor, so that prediction
does not require the `onnx` package.
"""

from collections.abc import Iterator

# {message: {field number: message in it}}, of onnx.proto
_FIELDS = {
  'model': {7: 'graph', 20: 'training', 25: 'function'},
  'training': {1: 'graph', 2: 'graph'},
  'graph': {1: 'node', 5: 'tensor', 15: 'sparse_tensor'},
  'function': {7: 'node', 11: 'attribute'},
  'node': {5: 'attribute'},
  'attribute': {
    5: 'tensor', 6: 'graph', 10: 'tensor', 11: 'graph', 22: 'sparse_tensor', 23: 'sparse_tensor',
  },
  'sparse_tensor': {1: 'tensor', 2: 'tensor'},
  'tensor': {},
}  # fmt: skip
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # fields of a tensor
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_DEEPEST = 100  # protobuf's own limit


def refuse_external(content: bytes) -> None:
  """Checks that an ONNX file holds all its tensors.

  Args:
    content: the file's bytes.

  Raises:
    ValueError: a tensor is in another file, or the bytes are not an ONNX file.
  """
  if content[4:8] == b'ORTM':  # onnxruntime would read it, with external data of another form
    raise ValueError('it is in the format of ONNX Runtime, not ONNX')
  _walk('model', memoryview(content), 0)


def _walk(message: str, data: memoryview, depth: int) -> None:
  if depth > _DEEPEST:
    raise ValueError('it is nested too deeply')
  for number, value in _fields(data):
    if message == 'tensor' and (
      number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)
    ):
      raise ValueError(
        'its weights are in another file (external data), which is not verified; export it in one '
        'file'
      )
    if (inner := _FIELDS[message].get(number)) and isinstance(value, memoryview):
      _walk(inner, value, depth + 1)


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
  """(number, value) of a message's fields; the value is an integer or nested bytes."""
  place = 0
  while place < len(data):
    key, place = _varint(data, place)
    if key >= 1 << 32:  # a parser may truncate it to 32 bits, and read another field
      raise ValueError('it is not an ONNX file')
    number, wire = key >> 3, key & 7
    if wire == _VARINT:
      value, place = _varint(data, place)
    elif wire in (_FIXED64, _FIXED32, _BYTES):
      length = {_FIXED64: 8, _FIXED32: 4}.get(wire)
      if length is None:
        length, place = _varint(data, place)
      if place + length > len(data):
        raise ValueError('it is cut off')
      value = data[place : place + length]
      place += length
    else:  # groups, which ONNX does not use
      raise ValueError('it is not an ONNX file')
    yield number, value


def _varint(data: memoryview, place: int) -> tuple[int, int]:
  value = 0
  for shift in range(0, 70, 7):
    if place >= len(data):
      raise ValueError('it is cut off')
    byte = data[place]
    value |= (byte & 0x7F) << shift
    place += 1
    if byte < 0x80:
      return value, place
  raise ValueError('it is not an ONNX file')
