"""The page over HTTP, for this computer alone.

Nobody else's page may ask: a request must name this host and come from this page, or from none.
What is sent is looked at in memory and not kept.
"""

import base64
import hashlib
import http
import http.server
import json
import pathlib
import sys
from urllib.parse import unquote, urlsplit

from flexfas_jax.errors import ConfigError, FlexfasError, StateError
from flexfas_jax.prediction.page.answers import Answers

HOST = '127.0.0.1'
LARGEST = 48 << 20  # bytes of a request; base64 takes a third more than the pictures
_PATIENCE = 30  # seconds that a connection may be silent
_HERE = pathlib.Path(__file__).parent


def make(answers: Answers, port: int) -> http.server.ThreadingHTTPServer:
  """A server on 127.0.0.1 that is ready to `serve_forever`.

  Args:
    answers: of a predictor.
    port: 0: any that is free; `server_port` tells.

  Raises:
    ConfigError: the port is taken.
  """
  text, policy = page(answers.facts())

  class Handler(_Handler):
    pass

  Handler.answers, Handler.page, Handler.policy = answers, text.encode(), policy
  try:
    server = _Server((HOST, port), Handler)
  except OSError as error:
    raise ConfigError(f'--port={port}: {error.strerror}; --port=0 takes one that is free') from None
  names = (HOST, 'localhost')
  Handler.hosts = {f'{name}:{server.server_port}' for name in names}
  return server


def page(facts: dict) -> tuple[str, str]:
  """(the page, the policy that lets its own style and script run, and nothing else)."""
  text, style, script = (
    (_HERE / name).read_text(encoding='utf-8') for name in ('page.html', 'style.css', 'script.js')
  )
  told = json.dumps(facts).replace('<', '\\u003c')  # no name ends the element that it stands in
  parts = {'STYLE': style, 'SCRIPT': script, 'FACTS': told}
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


class _Server(http.server.ThreadingHTTPServer):
  def handle_error(self, request, client_address) -> None:
    if not isinstance(sys.exception(), ConnectionError):  # a page that was closed meanwhile
      super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
  answers: Answers
  page: bytes
  policy: str
  hosts: set[str] = set()
  timeout = _PATIENCE
  protocol_version = 'HTTP/1.1'
  server_version, sys_version = 'flexfas_jax', ''

  def do_GET(self) -> None:
    if not self._is_ours():
      return
    path = unquote(urlsplit(self.path).path)
    if path == '/':
      self._send(http.HTTPStatus.OK, self.page, 'text/html; charset=utf-8')
      return
    try:
      found = self.answers.sample_file(path.removeprefix('/'))
    except FlexfasError as error:
      self._fail(http.HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
      return
    if found is None:
      self._fail(http.HTTPStatus.NOT_FOUND, 'there is no such page')
    else:
      self._send(http.HTTPStatus.OK, found, 'image/png')

  def do_POST(self) -> None:
    if not self._is_ours():
      return
    if urlsplit(self.path).path != '/decide':
      self._fail(http.HTTPStatus.NOT_FOUND, 'there is no such page')
      return
    # A form of another page can send no JSON without being asked first, and then it is refused.
    if self.headers.get_content_type() != 'application/json':
      self._fail(http.HTTPStatus.UNSUPPORTED_MEDIA_TYPE, 'due is application/json')
      return
    length = self.headers.get('Content-Length', '')
    if not length.isascii() or not length.isdigit():
      self._fail(http.HTTPStatus.LENGTH_REQUIRED, 'its length must be told')
      return
    if int(length) > LARGEST:
      large = f'the pictures are too large: {int(length) >> 20} MB, and {LARGEST >> 20} are read'
      self._fail(http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE, large)
      return
    try:
      found = self.answers.decide(json.loads(self.rfile.read(int(length))))
    except StateError as error:
      self._fail(http.HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
    except (FlexfasError, ValueError) as error:  # ValueError: no JSON
      self._fail(http.HTTPStatus.BAD_REQUEST, str(error))
    else:
      self._send(http.HTTPStatus.OK, json.dumps(found).encode(), 'application/json')

  def _is_ours(self) -> bool:
    """Whether the request names this host, and no other page sent it; answers those that do not.

    A name that somebody else's server gives this address is another host (DNS rebinding).
    """
    origin = self.headers.get('Origin')
    if self.headers.get('Host') in self.hosts and (
      origin is None or origin in {f'http://{host}' for host in self.hosts}
    ):
      return True
    self._fail(http.HTTPStatus.FORBIDDEN, 'this page is for its own computer')
    return False

  def _fail(self, status: http.HTTPStatus, text: str) -> None:
    self.close_connection = True  # what was sent may not have been read
    self._send(status, json.dumps({'error': text}).encode(), 'application/json')

  def _send(self, status: http.HTTPStatus, content: bytes, kind: str) -> None:
    self.send_response(status)
    for name, value in {
      'Content-Type': kind,
      'Content-Length': str(len(content)),
      'Content-Security-Policy': self.policy,
      'X-Content-Type-Options': 'nosniff',
      'Referrer-Policy': 'no-referrer',
      'Cross-Origin-Resource-Policy': 'same-origin',
      'Cache-Control': 'no-store',
      **({'Connection': 'close'} if self.close_connection else {}),
    }.items():
      self.send_header(name, value)
    self.end_headers()
    if self.command != 'HEAD':
      self.wfile.write(content)

  def log_message(self, format: str, *args) -> None:
    """Says nothing: requests are the user's own."""
