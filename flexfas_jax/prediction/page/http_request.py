"""Parses HTTP requests strictly: a request that parsers interpret differently is an error.

Duplicate headers, a body of ambiguous length, folded lines, control characters and bad
percent-encoding are answered with an error status. All sizes are limited, and so is the time in
which a request must arrive: a slow client cannot keep a connection.
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
# Parsers disagree about a second value of these headers.
_UNIQUE = {
  'host', 'origin', 'content-length', 'transfer-encoding', 'content-type', 'content-encoding',
  'expect',
}  # fmt: skip

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb'(' + _TOKEN + rb') ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])')
_HEADER = re.compile(rb'(' + _TOKEN + rb'):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*')


class HttpError(Exception):
  """A request that is answered with an error.

  Attributes:
    status: of the response.
    headers: further headers of the response.
  """

  def __init__(self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None):
    super().__init__(message)
    self.status, self.headers = status, headers or {}


@dataclasses.dataclass(frozen=True)
class Head:
  """The request line and the headers.

  Attributes:
    method: as sent.
    path: decoded, without the query.
    hosts: names of the server in the request, in lower case: the `Host` header, and the host of a
      target that is a URL.
    headers: {name in lower case: value}.
    keep_alive: whether the client may send a further request on this connection.
  """

  method: str
  path: str
  hosts: tuple[str, ...]
  headers: Mapping[str, str]
  keep_alive: bool


class Stream:
  """Reads and writes a connection; a whole request must arrive within the timeout.

  Args:
    connection: of the client.
    timeout: seconds for a request to arrive, and for its response to leave.
  """

  def __init__(self, connection: socket.socket, timeout: float):
    self._connection, self._timeout = connection, timeout
    self._received = bytearray()  # but not yet read
    self.restart()

  def restart(self) -> None:
    """Restarts the timeout for a further request."""
    self._end = time.monotonic() + self._timeout

  def line(self, too_long: HTTPStatus = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) -> bytes:
    """Reads a line, and returns it without its end.

    Raises:
      HttpError: the line is too long.
      EOFError: the client has closed the connection.
      TimeoutError: the request takes too long.
    """
    while (end := self._received.find(b'\n')) < 0:
      if len(self._received) > _LARGEST_HEAD:
        raise HttpError(too_long, 'a line of the request is too long')
      self._received += self._receive()
    line = bytes(self._received[:end])
    del self._received[: end + 1]
    return line.removesuffix(b'\r')

  def piece(self, most: int) -> bytes:
    """Reads between 1 and `most` bytes; raises as `line` does."""
    piece = bytes(self._received[:most]) or self._receive(most)
    del self._received[:most]
    return piece

  def send(self, content: bytes) -> None:
    """Sends all bytes within the timeout."""
    self._connection.settimeout(self._timeout)
    self._connection.sendall(content)

  @property
  def is_empty(self) -> bool:
    """Whether all received bytes have been read."""
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
    The head; None if the client sends nothing more.

  Raises:
    HttpError: the request is malformed, ambiguous, too large, too slow or cut short.
  """
  began = False
  try:
    # Some clients send an empty line after a body.
    while not (line := stream.line(HTTPStatus.REQUEST_URI_TOO_LONG)):
      if began:
        raise _bad('the request has no request line')
      began = True
    began = True
    return _parse(line, stream)
  except EOFError:
    if began or not stream.is_empty:
      raise _bad('the request is incomplete') from None
    return None
  except TimeoutError:
    if began or not stream.is_empty:
      raise _too_slow() from None
    return None


def read_body(stream: Stream, length: int, reserve) -> bytearray:
  """Reads the content of a request.

  Args:
    stream: after the head.
    length: number of bytes.
    reserve: called with the number of bytes of each piece before it is stored; may raise.

  Raises:
    HttpError: the content is too slow or cut short.
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
  """Length of the content in bytes; None if the request has none.

  Raises:
    HttpError: the length is not a number, or the content is sent in chunks.
  """
  if 'transfer-encoding' in head.headers:
    raise HttpError(
      HTTPStatus.LENGTH_REQUIRED, 'send the content with Content-Length, not Transfer-Encoding'
    )
  text = head.headers.get('content-length')
  if text is None:
    return None
  if not re.fullmatch('[0-9]+', text):
    raise _bad('Content-Length is not a number')
  return int(text.lstrip('0')[:16] or '0')  # more digits do not matter


def _parse(line: bytes, stream: Stream) -> Head:
  if len(line) > _LARGEST_HEAD // 2:
    raise HttpError(HTTPStatus.REQUEST_URI_TOO_LONG, 'the address is too long')
  if not (match := _REQUEST_LINE.fullmatch(line)):
    raise _bad('the request line is not METHOD TARGET HTTP/1.1')
  method, target, major, minor = (part.decode() for part in match.groups())
  if major != '1':
    raise HttpError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, 'the server supports HTTP/1.1')
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
    if name in headers and name in _UNIQUE:
      raise _bad(f'the header {name} is repeated')
    headers[name] = f'{headers[name]}, {value}' if name in headers else value
  raise HttpError(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, 'the headers are too many or too long'
  )


def _split(target: str) -> tuple[str | None, str]:
  """(the host that the target names, its path)."""
  scheme, separator, rest = target.partition('://')
  if not separator or '/' in scheme:
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


def _bad(message: str) -> HttpError:
  return HttpError(HTTPStatus.BAD_REQUEST, message)


def _too_slow() -> HttpError:
  return HttpError(HTTPStatus.REQUEST_TIMEOUT, 'the request takes too long to arrive')
