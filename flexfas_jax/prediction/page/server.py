"""The page over HTTP, for this computer alone.

Nobody else's page may ask: a request must name this host and come from this page, or from none.
What is sent is examined in memory and not kept. Every request gets an answer with a status,
whatever goes wrong; only a decision of the predictor is ever answered as one.
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
from flexfas_jax.prediction.page import answers as page_answers
from flexfas_jax.prediction.page import http_request
from flexfas_jax.prediction.page.answers import Answers
from flexfas_jax.prediction.page.connections import Connections
from flexfas_jax.prediction.page.http_request import RefusedError

HOST = '127.0.0.1'
LARGEST = 48 << 20  # bytes of a request; base64 takes a third more than the images
CONNECTIONS = 32  # a browser opens six
PATIENCE = 30.0  # seconds for a request to arrive, for its turn, and for its answer to leave
_QUEUE = 8  # requests that wait for a decision; further ones are refused, and the page still loads
_ROOM = 2 * LARGEST  # bytes of all requests that arrive or wait for their turn
_LINGER = 5.0  # seconds in which a client may still send what nobody reads
_LONGEST_ERROR = 500  # characters: a name in it may be as long as a request
_HERE = pathlib.Path(__file__).parent


def make(answers: Answers, port: int, patience: float = PATIENCE, debug: bool = False) -> '_Server':
  """A server on 127.0.0.1 that is ready to `serve_forever`.

  Args:
    answers: of a predictor.
    port: 0: any that is free; `server_port` is the one that it has.
    patience: seconds for a request to arrive, for its turn, and for its answer to leave.
    debug: print the traceback of an error of the program.

  Raises:
    ConfigError: the port is taken.
  """
  text, policy = page(answers.facts())
  try:
    return _Server(port, answers, text.encode(), policy, patience, debug)
  except OSError as error:
    raise ConfigError(f'--port={port}: {error.strerror}; --port=0 takes one that is free') from None


def page(facts: dict) -> tuple[str, str]:
  """(the page, the policy that lets its own style and script run, and nothing else)."""
  text, style, script = (
    (_HERE / name).read_text(encoding='utf-8') for name in ('page.html', 'style.css', 'script.js')
  )
  data = json.dumps(facts, allow_nan=False).replace('<', '\\u003c')  # no name ends its element
  parts = {'STYLE': style, 'SCRIPT': script, 'FACTS': data}
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

  def __init__(self, port, answers, page, policy, patience, debug):
    self.answers, self.page, self.policy = answers, page, policy
    self.patience, self.debug = patience, debug
    self.connections = Connections(CONNECTIONS, _ROOM)
    # Decoding an image takes far more memory than its bytes: one request at a time.
    self.turn = threading.Lock()
    self.queue = threading.BoundedSemaphore(_QUEUE)
    super().__init__((HOST, port), _Handler)
    self.server_port = self.server_address[1]
    names = [HOST, 'localhost']
    self.hosts = {f'{name}:{self.server_port}' for name in names}
    if self.server_port == 80:  # browsers leave it out
      self.hosts.update(names)

  def process_request(self, request, client_address) -> None:
    if self.connections.admit(request):
      with contextlib.suppress(RuntimeError):  # no further thread can be started
        super().process_request(request, client_address)
        return
    # Here, in the thread that accepts, nothing may wait for a client.
    request.setblocking(False)
    with contextlib.suppress(OSError):
      request.recv(1 << 20)  # what is closed unread makes the client lose the answer
    with contextlib.suppress(OSError):
      request.send(self.reply(*_error(_busy()), keep_alive=False))
    self.shutdown_request(request)

  def shutdown_request(self, request) -> None:
    super().shutdown_request(request)
    self.connections.leave(request)

  def handle_error(self, request, client_address) -> None:
    self.report(sys.exception())

  def report(self, error: BaseException) -> None:
    """Prints an error of the program: the user of the page cannot act on it."""
    print(f'error: {error!r}', file=sys.stderr)
    if self.debug:
      traceback.print_exception(error)

  def reply(
    self, status: HTTPStatus, content: bytes, headers: Mapping[str, str], keep_alive: bool
  ) -> bytes:
    """The bytes of an answer."""
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
    self.stream = http_request.Stream(self.request, self.server.patience)
    try:
      # Small answers leave at once: without this a kept connection waits for acknowledgements.
      self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
      while self._one():
        self.server.connections.waits(self.request)
        self.stream.restart()
    except OSError:  # the client has gone, or does not read
      pass

  def _one(self) -> bool:
    """Answers a request; whether a further one may follow."""
    self.method, keep_alive = '', False
    try:
      head = http_request.read_head(self.stream)
      if head is None:
        return False
      self.method = head.method
      reply = self._answer(head)
      keep_alive = head.keep_alive
    except RefusedError as error:
      # Of a connection that gave way the end of the input is not the client's doing.
      gave_way = self.server.connections.gave_way(self.request)
      reply = _error(_busy() if gave_way else error)
    except MemoryError:
      reply = _error(_busy('there is not enough memory now'))
    except BaseException as error:  # a request always has an answer; it is never a decision
      self.server.report(error)
      failure = f'the program failed: {type(error).__name__}'
      reply = _error(RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, failure))
    self.server.connections.works(self.request)
    status, content, headers = reply
    sent = self.server.reply(status, content, headers, keep_alive)
    self.stream.send(sent[: len(sent) - len(content)] if self.method == 'HEAD' else sent)
    return keep_alive

  def finish(self) -> None:
    """Reads what the client still sends: closing before would take the answer from it."""
    connections, end = self.server.connections, time.monotonic() + _LINGER
    with contextlib.suppress(OSError):
      connections.waits(self.request)
      self.request.shutdown(socket.SHUT_WR)
      while (left := end - time.monotonic()) > 0:
        self.request.settimeout(left)
        if not self.request.recv(1 << 20) or connections.gave_way(self.request):
          break

  def _answer(self, head: http_request.Head):
    """(status, content, headers) of what a request asks for.

    Raises:
      RefusedError: it gets an error.
    """
    self._check_sender(head)
    length = http_request.content_length(head)
    due = 'POST' if head.path == '/decide' else 'GET'
    if head.method != due:
      raise RefusedError(
        HTTPStatus.METHOD_NOT_ALLOWED, f'{head.method} is not allowed here', {'Allow': due}
      )
    if due == 'POST':
      return self._decide(head, length)
    if length:
      raise RefusedError(HTTPStatus.BAD_REQUEST, 'GET has no content')
    self.server.connections.works(self.request)
    if head.path == '/':
      return HTTPStatus.OK, self.server.page, {'Content-Type': 'text/html; charset=utf-8'}
    try:
      found = self.server.answers.sample_file(head.path.removeprefix('/'))
    except FlexfasError as error:
      raise RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)) from None
    if found is None:
      raise RefusedError(HTTPStatus.NOT_FOUND, 'there is no such page')
    return HTTPStatus.OK, found, {'Content-Type': 'image/png'}

  def _decide(self, head: http_request.Head, length: int | None):
    # A form of another page can send no JSON without being asked first, and then it is refused.
    kind = head.headers.get('content-type', '').partition(';')[0].strip().lower()
    if kind != 'application/json' or 'content-encoding' in head.headers:
      raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, 'send application/json')
    if length is None:
      raise RefusedError(HTTPStatus.LENGTH_REQUIRED, 'send a Content-Length')
    if length > LARGEST:
      large = f'the images are too large: {length >> 20} MB; at most {LARGEST >> 20} MB'
      raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, large)
    if expected := head.headers.get('expect', ''):
      if expected.lower() != '100-continue':
        raise RefusedError(HTTPStatus.EXPECTATION_FAILED, 'expect 100-continue, or nothing')
      with contextlib.suppress(OSError):  # has the client gone, reading finds it
        self.stream.send(b'HTTP/1.1 100 Continue\r\n\r\n')
    reserved = 0

    def reserve(size: int) -> None:
      nonlocal reserved
      if not self.server.connections.reserve(size):
        raise _busy()
      reserved += size

    try:
      body = http_request.read_body(self.stream, length, reserve)
      self.server.connections.works(self.request)
      found = self._in_turn(body)
    finally:
      self.server.connections.free(reserved)
    content = json.dumps(found, allow_nan=False).encode()
    return HTTPStatus.OK, content, {'Content-Type': 'application/json'}

  def _in_turn(self, body: bytearray):
    """What the predictor answers to the content of a request."""
    server = self.server
    if not server.queue.acquire(blocking=False):
      raise _busy()
    try:
      if not server.turn.acquire(timeout=server.patience):
        raise _busy()
      try:
        asked = page_answers.parse(body)
        body.clear()  # as large as what was parsed from it
        return server.answers.decide(asked)
      finally:
        server.turn.release()
    except StateError as error:
      raise RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)) from None
    except FlexfasError as error:
      raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from None
    finally:
      server.queue.release()

  def _check_sender(self, head: http_request.Head) -> None:
    """Refuses a request that does not name this host, or that another page sent.

    A name that somebody else's server gives this address is another host (DNS rebinding).
    """
    hosts, origin = self.server.hosts, head.headers.get('origin')
    if set(head.hosts) <= hosts and (
      origin is None or origin.lower() in {f'http://{host}' for host in hosts}
    ):
      return
    raise RefusedError(HTTPStatus.FORBIDDEN, 'this page is for its own computer')


def _error(error: RefusedError):
  """(status, content, headers) of an error."""
  text = str(error)
  if len(text) > _LONGEST_ERROR:
    text = text[:_LONGEST_ERROR] + ' ...'
  content = json.dumps({'error': text}).encode()
  return error.status, content, {'Content-Type': 'application/json', **error.headers}


def _busy(message: str = 'the server is busy') -> RefusedError:
  text = f'{message}; try again in a second'
  return RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, text, {'Retry-After': '1'})
