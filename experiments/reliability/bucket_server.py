"""A bucket on 127.0.0.1: the part of Google Cloud Storage's JSON API that a run uses.

  python -m experiments.reliability.bucket_server --bucket=runs

prints the environment that makes a training use it. It keeps objects in memory, with generations,
preconditions and CRC32C. All client libraries of a run use it: TensorStore (checkpoints), gcsfs
(their metadata), google-cloud-storage (everything else), google-cloud-cpp (ArrayRecord). It also
fails on request: `BucketServer.fault` answers instead of it.
"""

import argparse
import base64
import email.parser
import email.policy
import http.server
import itertools
import json
import pathlib
import re
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable
from typing import NamedTuple

import google_crc32c

PIECE = 256 * 1024  # of a resumable upload


class StoredObject(NamedTuple):
  """Contents and properties of an object."""

  data: bytes
  generation: int
  content_type: str
  metadata: dict
  changed: float
  crc32c: str

  def describe(self, bucket: str, name: str) -> dict:
    """The JSON of an object."""
    when = time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(self.changed)) + '.000Z'
    return {
      'kind': 'storage#object',
      'id': f'{bucket}/{name}/{self.generation}',
      'bucket': bucket,
      'name': name,
      'generation': str(self.generation),
      'metageneration': '1',
      'contentType': self.content_type,
      'metadata': self.metadata,
      'size': str(len(self.data)),
      'crc32c': self.crc32c,
      'etag': str(self.generation),
      'timeCreated': when,
      'updated': when,
      'storageClass': 'STANDARD',
    }


class BucketServer:
  """One bucket behind a port; use it as a context.

  Attributes:
    url: of the server.
    bucket: its name.
    objects: {name: StoredObject}.
    fault: (method, path with query) -> HTTP status that is answered instead, or None.
    requests: [(method, path with query)] in order.
  """

  def __init__(self, bucket: str = 'bucket', port: int = 0):
    self.bucket, self.objects, self.requests = bucket, {}, []
    self.fault: Callable[[str, str], int | None] = lambda method, path: None
    self.lock, self.uploads = threading.Lock(), {}
    self._generations = itertools.count(time.time_ns() // 1000)
    handler = type('Handler', (_Handler,), {'server_state': self})
    self._server = _Server(('127.0.0.1', port), handler)
    self.url = f'http://127.0.0.1:{self._server.server_address[1]}'
    self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

  def __enter__(self) -> 'BucketServer':
    self._thread.start()
    return self

  def __exit__(self, *_) -> None:
    self.vanish()

  def vanish(self) -> None:
    """Stops answering: connections are refused, open ones are cut."""
    self.fault = lambda method, path: -1
    self._server.shutdown()
    self._server.server_close()

  @property
  def environment(self) -> dict[str, str]:
    """Variables that make every client of a training use this server."""
    return {
      'TENSORSTORE_GCS_HTTP_URL': self.url,
      'STORAGE_EMULATOR_HOST': self.url,
      'CLOUD_STORAGE_EMULATOR_ENDPOINT': self.url,
      'NO_GCE_CHECK': 'true',
      'GCE_METADATA_HOST': '127.0.0.1:1',
      'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',
      'GOOGLE_CLOUD_PROJECT': 'emulated',
    }

  def put(self, name: str, data: bytes, content_type: str = '', metadata: dict | None = None):
    """Writes an object; returns it."""
    checksum = base64.b64encode(google_crc32c.Checksum(data).digest()).decode()
    stored = StoredObject(
      data,
      next(self._generations),
      content_type or 'application/octet-stream',
      metadata or {},
      time.time(),
      checksum,
    )
    self.objects[name] = stored
    return stored

  def upload(self, folder: pathlib.Path, prefix: str) -> None:
    """Copies a local folder into the bucket, as `gcloud storage cp -r` does."""
    for file in sorted(folder.rglob('*')):
      if file.is_file():
        self.put(f'{prefix}/{file.relative_to(folder).as_posix()}', file.read_bytes())

  def download(self, prefix: str, folder: pathlib.Path) -> None:
    """Copies the objects below a prefix into a local folder."""
    for name, stored in list(self.objects.items()):
      if name.startswith(f'{prefix}/') and not name.endswith('/'):
        file = folder / name.removeprefix(f'{prefix}/')
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(stored.data)

  def names(self, prefix: str) -> list[str]:
    """The names below a prefix, without it."""
    return sorted(n.removeprefix(prefix) for n in list(self.objects) if n.startswith(prefix))

  def steps(self, workdir: str) -> tuple[set[int], set[int]]:
    """The steps of a run's checkpoints: (all, those that are complete)."""
    names = [name.split('/') for name in self.names(f'{workdir}/checkpoints/')]
    return (
      {int(step) for step, *_ in names if step.isdigit()},
      {int(step) for step, *rest in names if rest == ['commit_success.txt']},
    )


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads, block_on_close, request_queue_size = True, False, 256

  def handle_error(self, request, client_address) -> None:
    """Clients that are killed leave cut connections."""


class _Failed(Exception):
  """Ends a request with a status."""

  def __init__(self, status: int, reason: str = ''):
    super().__init__(reason)
    self.status = status


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version, server_state = 'HTTP/1.1', None
  wbufsize, disable_nagle_algorithm = -1, True

  def log_message(self, *_) -> None:
    """Quiet."""

  def _handle(self) -> None:
    state = self.server_state
    body = self._read_body()
    state.requests.append((self.command, self.path))
    status = state.fault(self.command, self.path)
    if status == -1:
      self.close_connection = True
      return
    if status:
      self._answer_json(_error(status, 'on request'), status)
      return
    self._answer(*self._dispatch(self.command, self.path, self.headers, body))

  do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _handle  # noqa: N815

  def _read_body(self) -> bytes:
    if 'chunked' in self.headers.get('Transfer-Encoding', ''):
      parts = []
      while size := int(self.rfile.readline().split(b';')[0], 16):
        parts.append(self.rfile.read(size))
        self.rfile.readline()
      self.rfile.readline()
      return b''.join(parts)
    return self.rfile.read(int(self.headers.get('Content-Length') or 0))

  def _dispatch(self, method: str, path: str, headers, body: bytes) -> tuple[int, dict, bytes]:
    """(status, headers, body) of a request, which may be a part of a batch."""
    url = urllib.parse.urlsplit(path)
    query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
    try:
      with self.server_state.lock:
        return self._route(method, url.path, query, headers, body)
    except _Failed as error:
      return error.status, *_as_json(_error(error.status, str(error)))

  def _route(self, method: str, path: str, query: dict, headers, body: bytes):
    state = self.server_state
    if path.startswith('/batch'):
      return self._batch(headers, body)
    if match := re.fullmatch(r'/upload/storage/v1/b/([^/]+)/o', path):
      self._check_bucket(match[1])
      return self._upload(method, query, headers, body)
    match = re.fullmatch(r'(?:/download)?/storage/v1/b/([^/]+)(?:/o(?:/(.*))?)?', path)
    if not match:
      raise _Failed(404, f'no route {path}')
    self._check_bucket(match[1])
    if not path.startswith(f'/storage/v1/b/{match[1]}/o') and match[2] is None:
      when = '2026-01-01T00:00:00.000Z'
      name = state.bucket
      fields = {'kind': 'storage#bucket', 'id': name, 'name': name, 'timeCreated': when}
      return 200, *_as_json({**fields, 'location': 'US', 'storageClass': 'STANDARD'})
    if match[2] is None:
      return self._list(query)
    if copied := re.fullmatch(r'(.*)/(?:rewriteTo|copyTo)/b/[^/]+/o/(.*)', match[2]):
      return self._copy(*map(urllib.parse.unquote, copied.groups()), query, path)
    return self._object(method, urllib.parse.unquote(match[2]), query, headers)

  def _check_bucket(self, name: str) -> None:
    if name != self.server_state.bucket:
      raise _Failed(404, 'The specified bucket does not exist.')

  def _object(self, method: str, name: str, query: dict, headers):
    state = self.server_state
    stored = state.objects.get(name)
    _check_preconditions(stored, query)
    if stored is None:
      raise _Failed(404, f'No such object: {state.bucket}/{name}')
    if method == 'DELETE':
      del state.objects[name]
      return 204, {}, b''
    if query.get('alt') != 'media':
      return 200, *_as_json(stored.describe(state.bucket, name))
    found = {
      'Content-Type': stored.content_type,
      'x-goog-generation': str(stored.generation),
      'x-goog-metageneration': '1',
      'x-goog-hash': f'crc32c={stored.crc32c}',
      'x-goog-stored-content-length': str(len(stored.data)),
      'ETag': f'"{stored.generation}"',
      'Accept-Ranges': 'bytes',
    }
    wanted = re.fullmatch(r'bytes=(\d*)-(\d*)', headers.get('Range', ''))
    if not wanted or not len(stored.data):
      return 200, found, stored.data
    size = len(stored.data)
    if wanted[1]:
      first, last = int(wanted[1]), min(int(wanted[2] or size - 1), size - 1)
    else:
      first, last = max(size - int(wanted[2]), 0), size - 1
    if first >= size:
      raise _Failed(416, 'The requested range cannot be satisfied.')
    found['Content-Range'] = f'bytes {first}-{last}/{size}'
    return 206, found, stored.data[first : last + 1]

  def _list(self, query: dict):
    state, prefix, delimiter = (self.server_state, query.get('prefix', ''), query.get('delimiter'))
    items, prefixes = [], set()
    for name in sorted(state.objects, key=str.encode):
      if not name.startswith(prefix) or name < query.get('startOffset', ''):
        continue
      if 'endOffset' in query and name >= query['endOffset']:
        continue
      rest = name[len(prefix) :]
      if delimiter and delimiter in rest:
        prefixes.add(prefix + rest.partition(delimiter)[0] + delimiter)
      else:
        items.append(state.objects[name].describe(state.bucket, name))
    start, most = int(query.get('pageToken', 0)), int(query.get('maxResults', 1000))
    answer = {'kind': 'storage#objects', 'items': items[start : start + most]}
    if start == 0:
      answer['prefixes'] = sorted(prefixes)
    if start + most < len(items):
      answer['nextPageToken'] = str(start + most)
    return 200, *_as_json(answer)

  def _copy(self, source: str, target: str, query: dict, path: str):
    state = self.server_state
    if source not in state.objects:
      raise _Failed(404, f'No such object: {source}')
    _check_preconditions(state.objects.get(target), query)
    old = state.objects[source]
    new = state.put(target, old.data, old.content_type, old.metadata)
    resource = new.describe(state.bucket, target)
    if 'copyTo' in path:
      return 200, *_as_json(resource)
    size = str(len(new.data))
    answer = {'kind': 'storage#rewriteResponse', 'done': True, 'resource': resource}
    return 200, *_as_json({**answer, 'totalBytesRewritten': size, 'objectSize': size})

  def _upload(self, method: str, query: dict, headers, body: bytes):
    kind = query.get('uploadType', 'media')
    if 'upload_id' in query:
      return self._continue(query['upload_id'], headers, body)
    fields = {}
    if kind == 'multipart':
      fields, body = _split_multipart(headers['Content-Type'], body)
    elif kind == 'resumable':
      fields, body = json.loads(body or b'{}'), b''
    name = query.get('name') or fields.get('name')
    if not name:
      raise _Failed(400, 'Required object name')
    if kind == 'resumable':
      session = uuid.uuid4().hex
      self.server_state.uploads[session] = (name, fields, query, bytearray())
      location = f'{self.server_state.url}/upload/storage/v1/b/{self.server_state.bucket}/o'
      return 200, {'Location': f'{location}?upload_id={session}', 'X-GUploader-UploadID': 'x'}, b''
    return self._store(name, body, fields, query, headers.get('Content-Type', ''))

  def _continue(self, session: str, headers, body: bytes):
    if session not in self.server_state.uploads:
      raise _Failed(404, 'no such upload')
    name, fields, query, received = self.server_state.uploads[session]
    match = re.fullmatch(r'bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)', headers.get('Content-Range', ''))
    if match and match[1] and int(match[1]) <= len(received):
      received[int(match[1]) :] = body
    elif not match:
      received[:] = body
    if match and (match[3] == '*' or len(received) < int(match[3])):
      found = {'Range': f'bytes=0-{len(received) - 1}'} if received else {}
      return 308, found, b''
    del self.server_state.uploads[session]
    return self._store(name, bytes(received), fields, query, '')

  def _store(self, name: str, data: bytes, fields: dict, query: dict, content_type: str):
    state = self.server_state
    _check_preconditions(state.objects.get(name), query)
    kind = fields.get('contentType') or content_type
    stored = state.put(name, data, kind, fields.get('metadata'))
    if fields.get('crc32c') not in (None, stored.crc32c):
      raise _Failed(400, 'Provided CRC32C does not match')
    return 200, *_as_json(stored.describe(state.bucket, name))

  def _batch(self, headers, body: bytes):
    answers = []
    for part in _parts(headers['Content-Type'], body):
      request = part.get_payload(decode=True).lstrip()
      head, _, rest = request.partition(b'\r\n\r\n' if b'\r\n\r\n' in request else b'\n\n')
      line, _, inner = head.decode().replace('\r\n', '\n').partition('\n')
      method, path, *_ = line.split()
      url = urllib.parse.urlsplit(path)
      query = dict(urllib.parse.parse_qsl(url.query))
      found = email.parser.Parser().parsestr(inner)
      try:
        status, more, answer = self._route(method, url.path, query, found, rest)
      except _Failed as error:
        status, more, answer = error.status, *_as_json(_error(error.status, str(error)))
      lines = [f'HTTP/1.1 {status} x', *(f'{k}: {v}' for k, v in more.items())]
      lines.append(f'Content-Length: {len(answer)}')
      number = (part.get('Content-ID') or '<0>').strip('<>')
      answers.append(
        f'--part\r\nContent-Type: application/http\r\nContent-ID: <response-{number}>\r\n\r\n'
        + '\r\n'.join(lines)
        + '\r\n\r\n'
        + answer.decode()
        + '\r\n'
      )
    text = ''.join(answers) + '--part--\r\n'
    return 200, {'Content-Type': 'multipart/mixed; boundary=part'}, text.encode()

  def _answer_json(self, contents: dict, status: int) -> None:
    self._answer(status, *_as_json(contents))

  def _answer(self, status: int, headers: dict, body: bytes) -> None:
    self.send_response(status)
    for name, value in headers.items():
      self.send_header(name, value)
    if status not in (204, 304):
      self.send_header('Content-Length', str(len(body)))
    self.end_headers()
    if status not in (204, 304):
      self.wfile.write(body)
    self.wfile.flush()


def _check_preconditions(stored: StoredObject | None, query: dict) -> None:
  generation = stored.generation if stored else 0
  if 'generation' in query and int(query['generation']) != generation:
    raise _Failed(404, 'no such generation')
  if 'ifGenerationMatch' in query and int(query['ifGenerationMatch']) != generation:
    raise _Failed(412, 'At least one of the pre-conditions you specified did not hold.')
  if 'ifGenerationNotMatch' in query and int(query['ifGenerationNotMatch']) == generation:
    raise _Failed(304 if stored else 412)


def _parts(content_type: str, body: bytes):
  head = f'Content-Type: {content_type}\r\n\r\n'.encode()
  return email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body).iter_parts()


def _split_multipart(content_type: str, body: bytes) -> tuple[dict, bytes]:
  """(fields, contents) of a multipart upload; a parser of e-mail would change line ends."""
  boundary = re.search(r'boundary="?([^";]+)"?', content_type)[1].encode().strip(b"'")
  _, first, rest = body.split(b'--' + boundary, 2)
  second = rest.rpartition(b'--' + boundary + b'--')[0]
  newline = b'\r\n' if first.startswith(b'\r\n') else b'\n'
  blank = newline * 2
  fields = json.loads(first.partition(blank)[2])
  head, _, contents = second.partition(blank)
  kind = re.search(rb'(?i)content-type: *([^\r\n]+)', head)
  if kind:
    fields.setdefault('contentType', kind[1].decode().strip())
  return fields, contents.removesuffix(newline)


def _as_json(contents: dict) -> tuple[dict, bytes]:
  return {'Content-Type': 'application/json; charset=UTF-8'}, json.dumps(contents).encode()


def _error(status: int, reason: str) -> dict:
  message = {403: 'caller does not have storage.objects.get access to the object'}
  text = message.get(status, reason)
  errors = [{'message': text, 'domain': 'global', 'reason': 'emulated'}]
  return {'error': {'code': status, 'message': text, 'errors': errors}}


def main() -> None:
  """Serves until interrupted."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--bucket', default='bucket')
  parser.add_argument('--port', type=int, default=0)
  parser.add_argument(
    '--upload', type=pathlib.Path, help='a folder that is copied to prepared/ first'
  )
  arguments = parser.parse_args()
  with BucketServer(arguments.bucket, arguments.port) as server:
    if arguments.upload:
      server.upload(arguments.upload, 'prepared')
    for name, value in server.environment.items():
      print(f'export {name}={value}', flush=True)
    threading.Event().wait()


if __name__ == '__main__':
  main()
