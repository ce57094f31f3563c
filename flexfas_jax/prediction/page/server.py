"""Serves the page over HTTP on 127.0.0.1.

A request must name this host and come from this page, or from no page. Images are processed in
memory and not stored. Every request is answered with a status; only a decision of the predictor is
answered as a decision.
"""

import base64
import contextlib
import email.utils
import hashlib
import json
import pathlib
import socket
import socketserver
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from http import HTTPStatus

from flexfas_jax.errors import ConfigError, FlexfasError, StateError
from flexfas_jax.prediction.page import backend as page_backend
from flexfas_jax.prediction.page import http_request
from flexfas_jax.prediction.page.backend import Backend
from flexfas_jax.prediction.page.connections import Connections
from flexfas_jax.prediction.page.http_request import HttpError

HOST = '127.0.0.1'
LARGEST = 48 << 20  # bytes of a request; base64 makes images larger by a third
CONNECTIONS = 32  # a browser opens six
REQUEST_TIMEOUT = 30.0  # seconds for a request to arrive, for its turn, and for its response
_QUEUE = 8  # requests that wait for a decision; further ones fail, and the page still loads
_ROOM = 2 * LARGEST  # bytes of all requests that arrive or wait for their turn
_LINGER = 5.0  # seconds in which the rest of a failed request is received and dropped
_LONGEST_ERROR = 500  # characters; a message may quote the request
_HERE = pathlib.Path(__file__).parent


def make_server(
  backend: Backend, port: int, timeout: float = REQUEST_TIMEOUT, debug: bool = False
) -> '_Server':
  """Makes a server on 127.0.0.1 that is ready to `serve_forever`.

  Args:
    backend: of a predictor.
    port: 0: any free port; `server_port` is the one that was taken.
    timeout: seconds for a request to arrive, for its turn, and for its response to leave.
    debug: print the traceback of an internal error.

  Raises:
    ConfigError: the port is not available.
  """
  text, policy = render_page(backend.page_data())
  try:
    return _Server(port, backend, text.encode(), policy, timeout, debug)
  except OSError as error:
    raise ConfigError(f'--port={port}: {error.strerror}; --port=0 takes a free one') from None


def render_page(data: dict) -> tuple[str, str]:
  """(HTML, Content-Security-Policy that allows only the page's own style and script)."""
  text, style, script = (
    (_HERE / name).read_text(encoding='utf-8') for name in ('page.html', 'style.css', 'script.js')
  )
  text_data = json.dumps(data, allow_nan=False).replace('<', '\\u003c')  # cannot end its element
  parts = {'STYLE': style, 'SCRIPT': script, 'DATA': text_data}
  for name, part in parts.items():
    text = text.replace(f'/*{name}*/', part)
  policy = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    f"connect-src 'self'; img-src 'self' data: blob:; media-src blob:; "
    f'style-src {_hash(style)}; script-src {_hash(script)}'
  )
  return text, policy


def _hash(text: str) -> str:
  return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


class _Server(socketserver.ThreadingTCPServer):
  allow_reuse_address = True
  daemon_threads = True
  request_queue_size = 128

  def __init__(self, port, backend, page, policy, timeout, debug):
    self.backend, self.page, self.policy = backend, page, policy
    # `socketserver` has a `timeout` of its own.
    self.request_timeout, self.debug = timeout, debug
    self.connections = Connections(CONNECTIONS, _ROOM)
    # One request at a time: a decoded image takes far more memory than its bytes.
    self.turn = threading.Lock()
    self.queue = threading.BoundedSemaphore(_QUEUE)
    super().__init__((HOST, port), _Handler)
    self.server_port = self.server_address[1]
    names = [HOST, 'localhost']
    self.hosts = {f'{name}:{self.server_port}' for name in names}
    if self.server_port == 80:  # browsers omit it
      self.hosts.update(names)

  def process_request(self, request, client_address) -> None:
    if self.connections.admit(request):
      with contextlib.suppress(RuntimeError):  # no thread can be started
        super().process_request(request, client_address)
        return
    # This is the accepting thread: it must not wait for a client.
    request.setblocking(False)
    with contextlib.suppress(OSError):
      request.recv(1 << 20)  # closing with unread bytes would discard the response
    with contextlib.suppress(OSError):
      request.send(self.reply(*_error(_busy()), keep_alive=False))
    self.shutdown_request(request)

  def shutdown_request(self, request) -> None:
    super().shutdown_request(request)
    self.connections.leave(request)

  def handle_error(self, request, client_address) -> None:
    self.report(sys.exception())

  def report(self, error: BaseException) -> None:
    """Prints an internal error, which the user of the page cannot act on."""
    print(f'error: {error!r}', file=sys.stderr)
    if self.debug:
      traceback.print_exception(error)

  def reply(
    self, status: HTTPStatus, content: bytes, headers: Mapping[str, str], keep_alive: bool
  ) -> bytes:
    """The bytes of a response."""
    lines = [f'HTTP/1.1 {status.value} {status.phrase}'] + [
      f'{name}: {value}'
      for name, value in {
        'Date': email.utils.formatdate(usegmt=True),
        'Content-Length': str(len(content)),
        'Content-Security-Policy': self.policy,
        'X-Content-Type-Options': 'nosniff',
        'Referrer-Policy': 'no-referrer',
        'Cross-Origin-Resource-Policy': 'same-origin',
        'Cache-Control': 'no-store',
        'Connection': 'keep-alive' if keep_alive else 'close',
        **headers,
      }.items()
    ]
    return '\r\n'.join([*lines, '', '']).encode() + content


class _Handler(socketserver.BaseRequestHandler):
  """One connection."""

  server: _Server
  request: socket.socket

  def handle(self) -> None:
    self.stream = http_request.Stream(self.request, self.server.request_timeout)
    try:
      # Send small responses at once, without waiting for acknowledgements.
      self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
      while self._handle_one():
        self.server.connections.set_waiting(self.request)
        self.stream.restart()
    except OSError:  # the client has disconnected or does not read
      pass

  def _handle_one(self) -> bool:
    """Backend a request; whether a further one may follow."""
    self.method, keep_alive = '', False
    try:
      head = http_request.read_head(self.stream)
      if head is None:
        return False
      self.method = head.method
      reply = self._answer(head)
      keep_alive = head.keep_alive
    except HttpError as error:
      # The server ended the input of an evicted connection.
      evicted = self.server.connections.is_evicted(self.request)
      reply = _error(_busy() if evicted else error)
    except MemoryError:
      reply = _error(_busy('not enough memory'))
    except BaseException as error:  # every request is answered, never with a decision here
      self.server.report(error)
      failure = f'the program failed: {type(error).__name__}'
      reply = _error(HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, failure))
    self.server.connections.set_working(self.request)
    status, content, headers = reply
    sent = self.server.reply(status, content, headers, keep_alive)
    self.stream.send(sent[: len(sent) - len(content)] if self.method == 'HEAD' else sent)
    return keep_alive

  def finish(self) -> None:
    """Receives what the client still sends: closing earlier would discard the response."""
    connections, end = self.server.connections, time.monotonic() + _LINGER
    with contextlib.suppress(OSError):
      connections.set_waiting(self.request)
      self.request.shutdown(socket.SHUT_WR)
      while (left := end - time.monotonic()) > 0:
        self.request.settimeout(left)
        if not self.request.recv(1 << 20) or connections.is_evicted(self.request):
          break

  def _answer(self, head: http_request.Head):
    """(status, content, headers) of the response to a request; errors raise HttpError."""
    self._check_sender(head)
    length = http_request.content_length(head)
    allowed = 'POST' if head.path == '/decide' else 'GET'
    if head.method != allowed:
      raise HttpError(
        HTTPStatus.METHOD_NOT_ALLOWED, f'{head.method} is not allowed here', {'Allow': allowed}
      )
    if allowed == 'POST':
      return self._decide(head, length)
    if length:
      raise HttpError(HTTPStatus.BAD_REQUEST, 'GET has no content')
    self.server.connections.set_working(self.request)
    if head.path == '/':
      return HTTPStatus.OK, self.server.page, {'Content-Type': 'text/html; charset=utf-8'}
    try:
      image = self.server.backend.sample_file(head.path.removeprefix('/'))
    except FlexfasError as error:
      raise HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)) from None
    if image is None:
      raise HttpError(HTTPStatus.NOT_FOUND, 'there is no such page')
    return HTTPStatus.OK, image, {'Content-Type': 'image/png'}

  def _decide(self, head: http_request.Head, length: int | None):
    # A form of another page cannot send JSON without a preflight request, which fails.
    kind = head.headers.get('content-type', '').partition(';')[0].strip().lower()
    if kind != 'application/json' or 'content-encoding' in head.headers:
      raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, 'send application/json')
    if length is None:
      raise HttpError(HTTPStatus.LENGTH_REQUIRED, 'send a Content-Length')
    if length > LARGEST:
      large = f'the images have {length >> 20} MB; at most {LARGEST >> 20} MB are allowed'
      raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, large)
    if expected := head.headers.get('expect', ''):
      if expected.lower() != '100-continue':
        raise HttpError(HTTPStatus.EXPECTATION_FAILED, 'expect 100-continue, or nothing')
      with contextlib.suppress(OSError):  # reading detects a client that has gone
        self.stream.send(b'HTTP/1.1 100 Continue\r\n\r\n')
    reserved = 0

    def reserve(size: int) -> None:
      nonlocal reserved
      if not self.server.connections.reserve(size):
        raise _busy()
      reserved += size

    try:
      body = http_request.read_body(self.stream, length, reserve)
      self.server.connections.set_working(self.request)
      answer = self._in_turn(body)
    finally:
      self.server.connections.free(reserved)
    content = json.dumps(answer, allow_nan=False).encode()
    return HTTPStatus.OK, content, {'Content-Type': 'application/json'}

  def _in_turn(self, body: bytearray):
    """Decides about the content of a request when its turn comes."""
    server = self.server
    if not server.queue.acquire(blocking=False):
      raise _busy()
    try:
      if not server.turn.acquire(timeout=server.request_timeout):
        raise _busy()
      try:
        request = page_backend.parse_request(body)
        body.clear()  # free memory
        return server.backend.decide(request)
      finally:
        server.turn.release()
    except StateError as error:
      raise HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)) from None
    except FlexfasError as error:
      raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from None
    finally:
      server.queue.release()

  def _check_sender(self, head: http_request.Head) -> None:
    """Raises HttpError unless the request names this host and comes from this page or from none.

    Another name with this address is another host (DNS rebinding).
    """
    hosts, origin = self.server.hosts, head.headers.get('origin')
    if set(head.hosts) <= hosts and (
      origin is None or origin.lower() in {f'http://{host}' for host in hosts}
    ):
      return
    raise HttpError(HTTPStatus.FORBIDDEN, 'this page is only served to its own computer')


def _error(error: HttpError):
  """(status, content, headers) of an error."""
  text = str(error)
  if len(text) > _LONGEST_ERROR:
    text = text[:_LONGEST_ERROR] + ' ...'
  content = json.dumps({'error': text}).encode()
  return error.status, content, {'Content-Type': 'application/json', **error.headers}


def _busy(message: str = 'the server is busy') -> HttpError:
  text = f'{message}; try again in a second'
  return HttpError(HTTPStatus.SERVICE_UNAVAILABLE, text, {'Retry-After': '1'})
