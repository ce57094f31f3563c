"""Sends mutated requests to the demo's server and counts the answers.

  python -m experiments.reliability.fuzz_demo BUNDLE -n 2000

Starts the demo as a user does, and sends one mutated request per connection: method, target,
version, headers, content, structure of the JSON, values of the images. Each must get an answer with
a status, and the server must answer an unchanged request in the end. Prints counts; the exit code
is 1 if a request had no answer or a traceback was printed.
"""

import argparse
import base64
import collections
import contextlib
import json
import pathlib
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import cv2
import numpy as np

_PATIENCE = 1.0  # seconds that the server waits for a request
_DUE = 20.0  # seconds within which an answer must come
_TARGETS = (
  b'/', b'/decide', b'//decide', b'/%', b'/%zz', b'/%00', b'/%ff', b'/../card.json', b'*', b'',
  b'/samples/samples.json', b'http://example.com/', b'http://127.0.0.1/decide', b'://', b'/\x00',
  b'/' * 70000, b'/ /', b'/\xc3\xa9', b'/?' + b'a' * 40000, b'https://127.0.0.1/',
)  # fmt: skip
_METHODS = (
  b'GET', b'POST', b'HEAD', b'PUT', b'OPTIONS', b'DELETE', b'TRACE', b'CONNECT', b'get', b'\x00',
  b'A' * 70000, b'',
)  # fmt: skip
_VERSIONS = (
  b'HTTP/1.1', b'HTTP/1.0', b'HTTP/0.9', b'HTTP/2.0', b'HTTP/1.1.1', b'HTTP/', b'', b'http/1.1',
  b'HTTP/' + b'9' * 5000 + b'.1', b'HTTP/-1.1',
)  # fmt: skip
_HEADERS = (
  b'Host: example.com', b'Host:', b'Host: 127.0.0.1', b'Origin: null', b'Origin: http://example.com',
  b'Content-Length: 0', b'Content-Length: -1', b'Content-Length: ' + b'9' * 5000,
  b'Content-Length: 1, 1', b'Content-Length: 0x10', b'Content-Length: 99999999999',
  b'Content-Length: ' + '\u0663'.encode(), b'Transfer-Encoding: chunked',
  b'Transfer-Encoding: gzip', b'Content-Type: text/plain', b'Content-Type:',
  b'Content-Type: application/json; charset=utf-16', b'Content-Encoding: gzip',
  b'Expect: 100-continue', b'Expect: more', b'Connection: close', b'Connection: keep-alive',
  b'Connection: upgrade\r\nUpgrade: h2c', b'no colon', b': no name',
  b' folded', b'A b: c', b'A: \x00', b'A: \xff', b'A: ' + b'b' * 70000, b'A: b\r\n' * 200 + b'B: c',
)  # fmt: skip
_CONTENTS = (
  b'', b'{', b'null', b'[]', b'""', b'1', b'NaN', b'{"images": {"rgb": NaN}}', b'\xff\xfe{\x00',
  b'[' * 100_000, b'[' * 100_000 + b']' * 100_000, b'{"images":' * 100_000, b'1' * 5000,
  b'{"images": {}}', b'{"images": []}', b'{"images": {"rgb": ""}}', b'\xef\xbb\xbf{}',
  b'{"images": {"rgb": "AA="}}', b'{"images": {"rgb": "AAAA\\n"}}', b'{"images": {"": ""}}',
  b'{"images": {"rgb": "\\ud800"}}', b'{"images": {"\\ud800": ""}}',
  b'{"images": {"\\u0000": ""}}', b'{"images": {"rgb": ""}, "images": {}}',
  b'{"images": {"rgb": "", "rgb": ""}}',
  b'{"images": {"' + b'x' * 1_000_000 + b'": ""}}', b'{"images": {}, "allow_absent": ["x"]}',
  b'{"images": {}, "allow_absent": "rgb"}', b'{"images": {}, "allow_absent": [[]]}',
)  # fmt: skip
_VALUES = (None, True, 0, -1, 1e308, 10**30, '', 'rgb', [], {}, [None], {'rgb': ''}, 'A' * 1001)


def body(modalities: Sequence[str], rng: random.Random) -> dict:
  """The content of a valid request, with small images of noise."""
  images = {}
  for modality in modalities:
    shape = (24, 24, 3) if modality == 'rgb' else (24, 24)
    noise = np.frombuffer(rng.randbytes(int(np.prod(shape))), np.uint8).reshape(shape)
    images[modality] = base64.b64encode(cv2.imencode('.png', noise)[1].tobytes()).decode()
  return {'images': images}


def request(port: int, modalities: Sequence[str], rng: random.Random) -> bytes:
  """A valid request."""
  content = json.dumps(body(modalities, rng)).encode()
  return _joined(b'POST /decide HTTP/1.1', _headers(port, content), content)


def mutated(port: int, modalities: Sequence[str], rng: random.Random) -> bytes:
  """A request with one to three changes; some of them leave it valid."""
  content = json.dumps(body(modalities, rng)).encode()
  parts = [b'POST', b'/decide', b'HTTP/1.1']
  if rng.random() < 0.2:
    parts, content = [b'GET', b'/', b'HTTP/1.1'], b''
  changed = [
    rng.choice(['line', 'headers', 'content', 'json', 'images', 'bytes', 'length', 'twice'])
  ]
  changed += rng.sample(['line', 'headers', 'bytes'], rng.choice((0, 0, 0, 1, 2)))
  if 'content' in changed:
    content = rng.choice(_CONTENTS)
  if 'json' in changed:
    content = json.dumps(_with_another_value(body(modalities, rng), rng)).encode()
  if 'images' in changed:
    asked = body(modalities, rng)
    modality = rng.choice(list(modalities))
    image = base64.b64decode(asked['images'][modality])
    asked['images'][modality] = base64.b64encode(_with_other_bytes(image, rng)).decode()
    content = json.dumps(asked).encode()
  headers = _headers(port, content)
  if 'line' in changed:
    i = rng.randrange(3)
    parts[i] = rng.choice((_METHODS, _TARGETS, _VERSIONS)[i])
  if 'headers' in changed:
    for _ in range(rng.randint(1, 3)):
      kind = rng.random()
      if kind < 0.2:
        headers.pop(rng.randrange(len(headers)))
      elif kind < 0.4:
        headers.append(rng.choice(headers))
      else:
        headers.insert(rng.randrange(len(headers) + 1), rng.choice(_HEADERS))
      if not headers:
        break
  if 'length' in changed:
    headers[-1:] = [b'Content-Length: %d' % max(0, len(content) + rng.choice((-9, -1, 1, 1000)))]
  sent = _joined(b' '.join(parts), headers, content)
  if 'twice' in changed:
    sent *= 2
  return _with_other_bytes(sent, rng) if 'bytes' in changed else sent


def _headers(port: int, content: bytes) -> list[bytes]:
  headers = [b'Host: 127.0.0.1:%d' % port, b'Origin: http://127.0.0.1:%d' % port]
  if content:
    headers += [b'Content-Type: application/json', b'Content-Length: %d' % len(content)]
  return headers


def _joined(line: bytes, headers: list[bytes], content: bytes) -> bytes:
  return b'\r\n'.join([line, *headers, b'', content])


def _with_another_value(asked, rng: random.Random):
  """JSON with another value somewhere."""
  if not asked or rng.random() < 0.3:
    return rng.choice(_VALUES)
  if isinstance(asked, dict):
    key = rng.choice(list(asked))
    changed = _with_another_value(asked[key], rng)
    return {**asked, rng.choice((key, 'allow_absent', 'x')): changed}
  return rng.choice(_VALUES)


def _with_other_bytes(content: bytes, rng: random.Random) -> bytes:
  """With bytes changed, inserted or taken out, or cut off."""
  found = bytearray(content)
  for _ in range(rng.randint(1, 5)):
    at = rng.randrange(len(found)) if found else 0
    kind = rng.randrange(4)
    if kind == 0 and found:
      found[at] = rng.randrange(256)
    elif kind == 1:
      found[at:at] = rng.randbytes(rng.randint(1, 9))
    elif kind == 2:
      del found[at : at + rng.randint(1, 9)]
    elif rng.random() < 0.2:
      del found[at:]
  return bytes(found) or b'\n'  # nothing sent is no request


def answer(port: int, sent: bytes, due: float = _DUE) -> str:
  """The status of the answer to a request, or what came instead.

  Args:
    port: of the server, on 127.0.0.1.
    sent: the request.
    due: seconds within which the answer must come.
  """
  with socket.create_connection(('127.0.0.1', port), timeout=due) as connection:
    with contextlib.suppress(ConnectionError):  # refused before all of it was read
      connection.sendall(sent)
    found = b''
    try:
      while not (
        whole := re.match(
          rb'(?s)(HTTP/1\.1 100 .*?\r\n\r\n)?HTTP/1\.1 ([2-5]\d\d) .*?\r\n\r\n', found
        )
      ):
        piece = connection.recv(1 << 16)
        if not piece:
          return 'closed without an answer' if not found else 'an answer without a status'
        found += piece
    except ConnectionError:
      return 'closed without an answer'
    except TimeoutError:
      return 'no answer in time'
  return whole[2].decode()


def resident(pid: int) -> int:
  """Bytes of a process in memory."""
  text = pathlib.Path(f'/proc/{pid}/status').read_text()
  return 1024 * int(re.search(r'VmRSS:\s+(\d+)', text)[1])


def main(argv: Sequence[str] | None = None) -> int:
  """0 if every request had an answer."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('bundle', type=pathlib.Path)
  parser.add_argument('-n', type=int, default=2000)
  parser.add_argument('--seed', type=int, default=0)
  arguments = parser.parse_args(argv)
  rng = random.Random(arguments.seed)
  modalities = json.loads((arguments.bundle / 'card.json').read_bytes())['modalities']
  command = [
    *(sys.executable, '-m', 'flexfas_jax.demo', str(arguments.bundle), '--port=0'),
    f'--request_timeout={_PATIENCE}',
  ]
  with (
    tempfile.TemporaryFile('w+') as errors,
    subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
  ):
    try:
      port = int(re.search(r'http://127.0.0.1:(\d+)/', process.stdout.readline())[1])
      for _ in range(20):  # what a first decision takes is no growth
        assert answer(port, request(port, modalities, rng)) == '200'
      before, start = resident(process.pid), time.monotonic()
      counts = collections.Counter()
      for i in range(arguments.n):
        sent = mutated(port, modalities, rng)
        found = answer(port, sent)
        counts[found] += 1
        if not found.isdigit():
          print(f'{i}: {found}: {sent[:80]!r} ... {len(sent)} bytes', flush=True)
      seconds, growth = time.monotonic() - start, resident(process.pid) - before
      last = answer(port, request(port, modalities, rng))
    finally:
      process.terminate()
      process.wait(30)
    errors.seek(0)
    printed = errors.read()
  answered = sum(n for found, n in counts.items() if found.isdigit())
  tracebacks = printed.count('Traceback (most recent call last)')
  failures = len(re.findall('^error: ', printed, re.MULTILINE))
  print(', '.join(f'{found}: {n}' for found, n in sorted(counts.items())))
  print(f'{answered} of {arguments.n} answered in {seconds:.0f} s; tracebacks: {tracebacks}; '
        f'errors of the program: {failures}; memory: {growth / 2**20:+.0f} MB; '
        f'an unchanged request in the end: {last}')  # fmt: skip
  return int(answered < arguments.n or tracebacks > 0 or failures > 0 or last != '200')


if __name__ == '__main__':
  sys.exit(main())
