"""One HTTP request, read strictly: what two readers could understand differently is refused.

Duplicate headers, a body of unclear length, folded lines, control characters and bad
percent-encoding are refused with a status, never repaired. All sizes are bounded, and so is the
time that a whole request may take to arrive: a client that sends a byte now and then cannot keep a
connection.
"""

import dataclasses
import re
import socket
import time
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

_LARGEST_HEAD = 32 << 10  # bytes of the request line and the headers
_MOST_HEADERS = 100
_PIECE = 256 << 10  # bytes that are received at once
# What comes twice is not a list of values: the readers of such a request may disagree.
_ONCE = {
  'host', 'origin', 'content-length', 'transfer-encoding', 'content-type', 'content-encoding',
  'expect',
}  # fmt: skip

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb'(' + _TOKEN + rb') ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])')
_HEADER = re.compile(rb'(' + _TOKEN + rb'):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*')


class RefusedError(Exception):
  """A request that gets an error as its answer.

  Attributes:
    status: of the answer.
    headers: further ones of the answer.
  """

  def __init__(self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None):
    super().__init__(message)
    self.status, self.headers = status, headers or {}


@dataclasses.dataclass(frozen=True)
class Head:
  """The request line and the headers.

  Attributes:
    method: as it was sent.
    path: decoded, without the query.
    hosts: every name that the request gives the server, in lower case: the `Host` header, and the
      host of a target that is a whole URL.
    headers: by name in lower case.
    keep_alive: whether the client may send a further request on this connection.
  """

  method: str
  path: str
  hosts: tuple[str, ...]
  headers: Mapping[str, str]
  keep_alive: bool


class Stream:
  """The bytes that a client sends; every read ends within the time that a request has.

  Args:
    connection: of the client.
    patience: seconds within which a whole request must arrive.
  """

  def __init__(self, connection: socket.socket, patience: float):
    self._connection, self._patience = connection, patience
    self._received = bytearray()  # and not yet read
    self.restart()

  def restart(self) -> None:
    """A further request begins: it has the full time."""
    self._end = time.monotonic() + self._patience

  def line(self) -> bytes:
    """A line without its end.

    Raises:
      RefusedError: it is too long.
      EOFError: the client has closed the connection.
      TimeoutError: the request takes too long.
    """
    while (end := self._received.find(b'\n')) < 0:
      if len(self._received) > _LARGEST_HEAD:
        raise RefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, 'a header is too long')
      self._received += self._receive()
    line = bytes(self._received[:end])
    del self._received[: end + 1]
    return line.removesuffix(b'\r')

  def piece(self, most: int) -> bytes:
    """Between 1 and `most` bytes; raises as `line` does."""
    piece = bytes(self._received[:most]) or self._receive(most)
    del self._received[:most]
    return piece

  def send(self, content: bytes) -> None:
    """Sends all of it, within the time that a request has."""
    self._connection.settimeout(self._patience)
    self._connection.sendall(content)

  @property
  def is_empty(self) -> bool:
    """Whether everything that was received has been read."""
    return not self._received

  def _receive(self, most: int = _PIECE) -> bytes:
    left = self._end - time.monotonic()
    if left <= 0:
      raise TimeoutError
    self._connection.settimeout(left)
    try:
      piece = self._connection.recv(min(most, _PIECE))
    except ConnectionError:
      piece = b''
    if not piece:
      raise EOFError
    return piece


def read_head(stream: Stream) -> Head | None:
  """Reads a request up to its body.

  Args:
    stream: at the beginning of a request.

  Returns:
    The head; None where the client sends nothing more.

  Raises:
    RefusedError: the request is malformed, ambiguous, too large, too slow or cut short.
  """
  began = False
  try:
    while not (line := stream.line()):  # some clients send an empty line after a body
      if began:
        raise _bad('the request has no request line')
      began = True
    began = True
    return _parse(line, stream)
  except EOFError:
    if began or not stream.is_empty:
      raise _bad('the request ends early') from None
    return None
  except TimeoutError:
    if began or not stream.is_empty:
      raise _too_slow() from None
    return None


def read_body(stream: Stream, length: int, reserve) -> bytearray:
  """Reads the content of a request.

  Args:
    stream: behind the head.
    length: bytes.
    reserve: called with the number of bytes before each piece is kept; may raise.

  Raises:
    RefusedError: it is too slow or cut short.
  """
  content = bytearray()
  try:
    while len(content) < length:
      piece = stream.piece(min(_PIECE, length - len(content)))
      reserve(len(piece))
      content += piece
  except EOFError:
    raise _bad(f'the content ends after {len(content)} of {length} bytes') from None
  except TimeoutError:
    raise _too_slow() from None
  return content


def content_length(head: Head) -> int | None:
  """Bytes of the content; None: the request has no length.

  Raises:
    RefusedError: the length is no number, or the content is sent in chunks.
  """
  if 'transfer-encoding' in head.headers:
    raise RefusedError(
      HTTPStatus.LENGTH_REQUIRED, 'send the content with Content-Length, not Transfer-Encoding'
    )
  text = head.headers.get('content-length')
  if text is None:
    return None
  if not re.fullmatch('[0-9]+', text):
    raise _bad('Content-Length is not a number')
  return int(text.lstrip('0')[:16] or '0')  # digits enough for what nobody sends


def _parse(line: bytes, stream: Stream) -> Head:
  if len(line) > _LARGEST_HEAD // 2:
    raise RefusedError(HTTPStatus.REQUEST_URI_TOO_LONG, 'the address is too long')
  if not (match := _REQUEST_LINE.fullmatch(line)):
    raise _bad('the request line is not METHOD TARGET HTTP/1.1')
  method, target, major, minor = (part.decode() for part in match.groups())
  if major != '1':
    raise RefusedError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, 'the server speaks HTTP/1.1')
  headers = _headers(stream, _LARGEST_HEAD - len(line))
  if 'host' not in headers:
    raise _bad('the request has no Host header')
  authority, path = _split(target)
  options = {one.strip() for one in headers.get('connection', '').lower().split(',')}
  return Head(
    method=method,
    path=_decoded(path),
    hosts=tuple(name.lower() for name in (headers['host'], authority) if name is not None),
    headers=headers,
    keep_alive='close' not in options and (minor != '0' or 'keep-alive' in options),
  )


def _headers(stream: Stream, room: int) -> dict[str, str]:
  headers = {}
  for _ in range(_MOST_HEADERS + 1):
    line = stream.line()
    if not line:
      return headers
    room -= len(line)
    if room < 0:
      break
    if not (match := _HEADER.fullmatch(line)):
      raise _bad('a header is not NAME: VALUE')
    name, value = match[1].decode().lower(), match[2].decode('latin-1')
    if name in headers and name in _ONCE:
      raise _bad(f'the header {name} comes twice')
    headers[name] = f'{headers[name]}, {value}' if name in headers else value
  raise RefusedError(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, 'the headers are too many or too long'
  )


def _split(target: str) -> tuple[str | None, str]:
  """(the host that the target names, its path)."""
  scheme, found, rest = target.partition('://')
  if not found or '/' in scheme:
    return None, target
  if scheme.lower() != 'http':
    raise _bad('the target is not an address of this server')
  authority, slash, path = rest.partition('/')
  return authority, slash + path or '/'


def _decoded(target: str) -> str:
  """The path of a target."""
  path = target.partition('?')[0]
  if path == '*':  # OPTIONS of the whole server
    return path
  if not path.startswith('/') or re.search('%(?![0-9A-Fa-f]{2})', path) or '#' in path:
    raise _bad('the target is not a path')
  try:
    text = unquote_to_bytes(path).decode()
  except UnicodeDecodeError:
    raise _bad('the path is not UTF-8') from None
  if not text.isprintable():
    raise _bad('the path has control characters')
  return text


def _bad(message: str) -> RefusedError:
  return RefusedError(HTTPStatus.BAD_REQUEST, message)


def _too_slow() -> RefusedError:
  return RefusedError(HTTPStatus.REQUEST_TIMEOUT, 'the request takes too long to arrive')
