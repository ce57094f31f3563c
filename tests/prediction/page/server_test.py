"""The demo's server: every request gets an answer, whatever is sent and whatever fails."""

import base64
import contextlib
import json
import random
import re
import socket
import threading
import time

import numpy as np
import pytest

from experiments.reliability import fuzz_demo
from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.prediction import Predictor
from flexfas_jax.prediction.page import backend, server
from tests.prediction import bundles


@pytest.fixture(scope='module')
def predictor(tmp_path_factory):
  return Predictor.load(bundles.write(tmp_path_factory.mktemp('bundles') / 'toy'))


@contextlib.contextmanager
def served(made):
  thread = threading.Thread(target=made.serve_forever, kwargs={'poll_interval': 0.05})
  thread.start()
  try:
    yield made
  finally:
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture(scope='module')
def serving(predictor):
  with served(server.make_server(backend.Backend(predictor), 0, timeout=0.5)) as made:
    yield made


class Stub:
  """Answers whose decisions a test makes."""

  def __init__(self, decide):
    self.decide = decide

  def page_data(self):
    return {}

  def sample_file(self, name):
    return None


def connect(made, sent=b''):
  connection = socket.create_connection(('127.0.0.1', made.server_port), timeout=30)
  connection.sendall(sent)
  return connection


def read(connection):
  """All that comes until the server closes the connection."""
  found = b''
  with contextlib.suppress(ConnectionError):
    while piece := connection.recv(1 << 16):
      found += piece
  return found


def exchange(made, sent):
  """(status, headers, content) of one request, after which the client sends nothing more."""
  with connect(made, sent) as connection:
    connection.shutdown(socket.SHUT_WR)
    found = read(connection)
  head, _, content = found.partition(b'\r\n\r\n')
  assert re.match(rb'HTTP/1\.1 \d\d\d ', head), found
  return int(head[9:12]), head.decode(), content


def get(made, target='/', headers='', version='HTTP/1.1', method='GET', host=None):
  host = f'127.0.0.1:{made.server_port}' if host is None else host
  return f'{method} {target} {version}\r\nHost: {host}\r\n{headers}\r\n'.encode('latin-1')


def post(made, content, headers='', length=None):
  content = content if isinstance(content, bytes) else json.dumps(content).encode()
  length = len(content) if length is None else length
  more = f'Content-Type: application/json\r\nContent-Length: {length}\r\n{headers}'
  return get(made, '/decide', more, method='POST') + content


def encode_images(**images):
  return {m: base64.b64encode(bundles.png(image)).decode() for m, image in images.items()}


def decide(made, images, **more):
  status, _, content = exchange(made, post(made, {'images': encode_images(**images), **more}))
  return status, json.loads(content)


@pytest.mark.parametrize(
  'status, line',
  [
    (400, b'GET /'),  # HTTP/0.9 has answers without a status
    (400, b'GET'),
    (400, b'GET / HTTP/1.1.1'),
    (400, b'GET  / HTTP/1.1'),
    (400, b'GET / HTTP/1.1 '),
    (400, b'GET /\x00 HTTP/1.1'),
    (400, b'GET /\xc3\xa9 HTTP/1.1'),
    (400, b'G\x00T / HTTP/1.1'),
    (400, b'GET /%00 HTTP/1.1'),
    (400, b'GET /%zz HTTP/1.1'),
    (400, b'GET /% HTTP/1.1'),
    (400, b'GET /%ff HTTP/1.1'),
    (400, b'GET https://127.0.0.1/ HTTP/1.1'),
    (505, b'GET / HTTP/2.0'),
    (505, b'GET / HTTP/0.9'),
    (400, b'GET / HTTP/' + b'9' * 5000 + b'.1'),
    (414, b'GET /' + b'a' * 20_000 + b' HTTP/1.1'),
    (414, b'GET /' + b'a' * 100_000 + b' HTTP/1.1'),
    (403, b'GET http://example.com/ HTTP/1.1'),
    (404, b'GET /%2e%2e/card.json HTTP/1.1'),
    (404, b'GET //decide HTTP/1.1'),
    (405, b'HEAD / HTTP/1.1'),
    (405, b'PUT / HTTP/1.1'),
    (405, b'OPTIONS * HTTP/1.1'),
    (405, b'POST / HTTP/1.1'),
    (405, b'GET /decide HTTP/1.1'),
    (405, b'get / HTTP/1.1'),
    (200, b'GET / HTTP/1.0'),
    (200, b'GET /?x=%zz HTTP/1.1'),
    (200, b'\r\nGET / HTTP/1.1'),
    (400, b'\r\n\r\n\r\n'),
  ],
)
def test_a_request_line(serving, status, line):
  host = f'\r\nHost: 127.0.0.1:{serving.server_port}\r\n\r\n'.encode()
  found, head, content = exchange(serving, line + host)
  assert found == status
  if status == 405:
    assert f'\r\nAllow: {"POST" if b"decide" in line else "GET"}' in head
  if b'HEAD' in line:
    assert content == b''
  elif status == 404:
    assert json.loads(content) == {'error': 'there is no such page'}
  elif status != 200:
    assert json.loads(content)['error']


def test_a_target_that_is_a_whole_url(serving):
  for port in (serving.server_port, 1):
    target = f'http://localhost:{port}/?x'
    expected = 200 if port == serving.server_port else 403
    assert exchange(serving, get(serving, target))[0] == expected


@pytest.mark.parametrize(
  'status, headers',
  [
    (400, 'Host: 127.0.0.1:{port}\r\n'),  # the second one
    (400, 'host: example.com\r\n'),
    (400, 'Origin: http://127.0.0.1:{port}\r\nOrigin: http://example.com\r\n'),
    (400, 'Origin: http://127.0.0.1:{port}\r\nORIGIN: http://127.0.0.1:{port}\r\n'),
    (403, 'Origin: null\r\n'),
    (403, 'Origin:\r\n'),
    (403, 'Origin: http://127.0.0.1:{port}, http://example.com\r\n'),
    (200, 'Origin: http://localhost:{port}\r\n'),
    (400, 'Content-Length: 0\r\nContent-Length: 0\r\n'),
    (400, 'Content-Length: 0, 0\r\n'),
    (400, 'Content-Length: +0\r\n'),
    (400, 'Content-Length: 1\r\n'),
    (400, 'Content-Length: ' + '9' * 5000 + '\r\n'),
    (411, 'Transfer-Encoding: chunked\r\n'),
    (411, 'Content-Length: 0\r\nTransfer-Encoding: chunked\r\n'),
    (400, 'Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n'),
    (400, ' folded: yes\r\n'),
    (400, 'A: b\r\n folded\r\n'),
    (400, 'no colon\r\n'),
    (400, 'space : before\r\n'),
    (400, ': no name\r\n'),
    (400, 'A: \x00\r\n'),
    (400, 'A: b\rC: d\r\n'),
    (200, 'A: \xff\r\n'),
    (200, 'A: b\r\nA: c\r\n'),
    (200, 'A: b\nC: d\n'),
    (431, 'A: b\r\n' * 200),
    (431, 'A: ' + 'b' * 40_000 + '\r\n'),
    (431, 'A: ' + 'b' * 400_000 + '\r\n'),
    (431, ('A: ' + 'b' * 1000 + '\r\n') * 50),
  ],
)
def test_headers(serving, status, headers):
  sent = get(serving, headers=headers.replace('{port}', str(serving.server_port)))
  found, _, content = exchange(serving, sent)
  assert found == status and (status == 200 or json.loads(content)['error'])


@pytest.mark.parametrize('begun, status', [(b'', b'414'), (b'GET / HTTP/1.1\r\nHost: ', b'431')])
def test_a_line_that_never_ends_is_not_kept(serving, begun, status):
  with connect(serving, begun + b'a' * 100_000) as connection:
    assert connection.recv(100).startswith(b'HTTP/1.1 ' + status)


def test_a_request_without_a_host(serving):
  for version in ('1.0', '1.1'):
    assert exchange(serving, f'GET / HTTP/{version}\r\n\r\n'.encode())[0] == 400
  assert exchange(serving, get(serving, host=''))[0] == 403
  assert exchange(serving, get(serving, host=f'LOCALHOST:{serving.server_port}'))[0] == 200


@pytest.mark.parametrize(
  'status, headers',
  [
    (400, 'Content-Length: 0x10'),
    (400, 'Content-Length: \xb2'),
    (400, 'Content-Length: 1_0'),
    (413, 'Content-Length: ' + '9' * 5000),
    (413, f'Content-Length: {server.LARGEST + 1}'),
    (400, 'Content-Length: ' + '0' * 5000 + '9'),  # and then nothing
    (411, 'A: b'),
    (411, 'Transfer-Encoding: chunked'),
    (415, 'Content-Length: 2\r\nContent-Encoding: gzip'),
    (417, 'Content-Length: 2\r\nExpect: more'),
  ],
)
def test_a_length(serving, status, headers):
  sent = get(serving, '/decide', f'Content-Type: application/json\r\n{headers}\r\n', method='POST')
  assert exchange(serving, sent)[0] == status


@pytest.mark.parametrize(
  'content, says',
  [
    (b'[' * 100_000, 'nested too deeply'),
    (b'{"images":' * 100_000, 'nested too deeply'),
    (b'[' * 100_000 + b']' * 100_000, 'nested too deeply'),
    (b'[' * 150 + b']' * 150, 'send {'),
    (b'[' + b'[],' * 5_000_000 + b'[]]', 'too many values'),  # 350 MB as objects
    (b'9' * 5000, 'not JSON'),
    (b'\xff', 'not JSON'),
    ('{"images": {}}'.encode('utf-16'), 'not JSON'),
    (b'', 'not JSON'),
    (b'{"images": {}} x', 'not JSON'),
    (b'{"images": {}, "x": NaN}', 'NaN is not JSON'),
    (b'{"images": {}, "images": {}}', 'is repeated'),
    (b'{"images": {"rgb": "", "rgb": ""}}', 'is repeated'),
    (b'{"images": {}, "allow_abscent": []}', 'send {'),
    (b'{"allow_absent": []}', 'send {'),
    (b'{"images": {"rgb": null}}', 'send {'),
    (b'{"images": [["rgb", ""]]}', 'send {'),
    (b'{"images": {}, "allow_absent": "ir"}', 'send {'),
    (b'{"images": {}, "allow_absent": [1]}', 'send {'),
    (b'{"images": {}, "allow_absent": null}', 'send {'),
    (b'{"images": {"rgb": "A"}}', 'not in base64'),
    (b'{"images": {"rgb": "QUJD=QUJD"}}', 'not in base64'),
    (b'{"images": {"rgb": "QU JD"}}', 'not in base64'),
    (b'{"images": {"rgb": "QUJ\\u00e9"}}', 'not in base64'),
    (b'{"images": {"\\ud800": ""}}', 'no modality'),
    (b'{"images": {"' + b'x' * 1_000_000 + b'": ""}}', 'no modality'),
  ],
)
def test_what_is_not_due(serving, content, says):
  status, _, found = exchange(serving, post(serving, content))
  assert status == 400 and says in json.loads(found)['error'] and len(found) < 1000


def test_a_body_that_ends_early_or_never(serving):
  content = json.dumps({'images': {}}).encode()
  assert exchange(serving, post(serving, content[:-1], length=len(content)))[0] == 400
  with connect(serving, post(serving, content[:-1], length=len(content))) as connection:
    assert read(connection).startswith(b'HTTP/1.1 408 ')


@pytest.mark.parametrize('part', ['head', 'content'])
def test_a_slow_request_has_a_limit_in_all(serving, part):
  """A byte now and then does not prolong it: the limit is of the request, not of a silence."""
  sent = get(serving, headers='A: ') if part == 'head' else post(serving, b'', length=1000)
  start = time.monotonic()
  with connect(serving, sent.removesuffix(b'\r\n') if part == 'head' else sent) as connection:
    connection.settimeout(0.1)
    found = b''
    while not found and time.monotonic() - start < 10:
      connection.sendall(b'a')
      with contextlib.suppress(TimeoutError):
        found = connection.recv(1 << 16)
    assert found.startswith(b'HTTP/1.1 408 ')
  assert time.monotonic() - start < 3


def test_requests_behind_one_another(serving):
  """Each has its answer, in order; behind an error the connection ends."""
  found = decided = post(serving, {'images': {}})
  with connect(serving, get(serving) + decided + get(serving) + get(serving, '/x')) as connection:
    found = read(connection)
  assert re.findall(rb'HTTP/1\.1 (\d\d\d) ', found) == [b'200', b'200', b'200', b'404']
  assert b'"decision": "fta"' in found
  # A content that is not read is no further request.
  hidden = get(serving, '/', 'Content-Length: 200\r\n') + get(serving)
  assert len(re.findall(rb'HTTP/1\.1 ', exchange(serving, hidden)[2])) == 0
  for version, option, last in (('1.1', 'close', 1), ('1.0', 'x', 1), ('1.0', 'Keep-Alive', 2)):
    one = get(serving, '/', f'Connection: {option}\r\n', f'HTTP/{version}')
    with connect(serving, one + one) as connection:
      assert len(re.findall(rb'HTTP/1\.1 200 ', read(connection))) == last


def test_a_client_that_asks_before_it_sends(serving):
  content = json.dumps({'images': {}}).encode()
  sent = post(serving, content, 'Expect: 100-continue\r\n')
  with connect(serving, sent.removesuffix(content)) as connection:
    assert connection.recv(100) == b'HTTP/1.1 100 Continue\r\n\r\n'
    connection.sendall(content)
    assert connection.recv(100).startswith(b'HTTP/1.1 200 ')
  # What is refused is refused before the content is sent.
  sent = post(serving, b'', 'Expect: 100-continue\r\n', length=server.LARGEST + 1)
  with connect(serving, sent) as connection:
    assert connection.recv(100).startswith(b'HTTP/1.1 413 ')


def test_a_refused_content_does_not_hide_the_answer(serving):
  """The client sends all of it before it reads: closing at once would reset the connection."""
  assert exchange(serving, post(serving, b'x' * (server.LARGEST + 1)))[0] == 413


@pytest.mark.parametrize(
  'error, status, says',
  [
    (KeyError('rgb'), 500, 'the program failed: KeyError'),
    (RecursionError(), 500, 'the program failed: RecursionError'),
    (SystemExit(0), 500, 'the program failed: SystemExit'),
    (KeyboardInterrupt(), 500, 'the program failed: KeyboardInterrupt'),
    (StopIteration(), 500, 'the program failed: StopIteration'),
    (TimeoutError(), 500, 'the program failed: TimeoutError'),
    (ConnectionResetError(), 500, 'the program failed: ConnectionResetError'),
    (MemoryError(), 503, 'not enough memory'),
    (StateError('the model fails'), 500, 'the model fails'),
    (ConfigError('x' * 10_000_000), 400, 'x ...'),
  ],
)
def test_what_fails_is_answered_and_is_no_decision(capfd, error, status, says):
  def fails(asked):
    raise error

  with served(server.make_server(Stub(fails), 0)) as made:
    for _ in range(2):
      found, head, content = exchange(made, post(made, {'images': {}}))
      assert found == status and ('Retry-After: 1' in head) == (status == 503)
      body = json.loads(content)
      assert list(body) == ['error'] and says in body['error'] and len(content) < 1000
    assert exchange(made, get(made))[0] == 200
  printed = capfd.readouterr().err
  assert 'Traceback' not in printed and (says[-8:] in printed) == ('program failed' in says)


@pytest.mark.parametrize('found', [{'score': float('nan')}, {'x': np.float32(1)}, {'x': b''}])
def test_what_json_cannot_hold_is_no_answer(found):
  with served(server.make_server(Stub(lambda asked: found), 0)) as made:
    status, _, content = exchange(made, post(made, {'images': {}}))
    assert status == 500 and list(json.loads(content)) == ['error']


def test_many_connections_do_not_keep_the_page_out(predictor):
  with served(server.make_server(backend.Backend(predictor), 0, timeout=30)) as made:
    begun = get(made)[:-2]  # a request that goes on
    with contextlib.ExitStack() as stack:
      slow = [stack.enter_context(connect(made, begun)) for _ in range(server.CONNECTIONS + 10)]
      start = time.monotonic()
      assert exchange(made, get(made))[0] == 200
      assert decide(made, bundles.triplet(1))[0] == 200
      assert time.monotonic() - start < 5
      # The oldest gave way, with an answer; the others still have their time.
      found = read(slow[0])
      assert found.startswith(b'HTTP/1.1 503 ') and b'\r\nRetry-After: ' in found
      slow[-1].sendall(b'\r\n')
      assert slow[-1].recv(100).startswith(b'HTTP/1.1 200 ')


def test_what_waits_for_a_decision_does_not_keep_the_page_out():
  go = threading.Event()
  with (
    served(server.make_server(Stub(lambda asked: {'went': go.wait(30)}), 0)) as made,
    contextlib.ExitStack() as stack,
  ):
    sent = post(made, {'images': {}})
    waiting = [stack.enter_context(connect(made, sent)) for _ in range(server.CONNECTIONS + 5)]
    time.sleep(0.3)
    assert exchange(made, get(made))[0] == 200
    status, head, _ = exchange(made, sent)
    assert status == 503 and '\r\nRetry-After: ' in head
    go.set()
    # Each has an answer: a decision, or that the server was busy.
    statuses = [int(connection.recv(1 << 16)[9:12]) for connection in waiting]
    assert set(statuses) == {200, 503} and statuses.count(200) >= 4


def test_when_all_connections_have_work(monkeypatch):
  monkeypatch.setattr(server, 'CONNECTIONS', 2)
  go = threading.Event()
  with (
    served(server.make_server(Stub(lambda asked: {'went': go.wait(30)}), 0)) as made,
    contextlib.ExitStack() as stack,
  ):
    sent = post(made, {'images': {}})
    waiting = [stack.enter_context(connect(made, sent)) for _ in range(2)]
    time.sleep(0.3)
    status, head, content = exchange(made, get(made))
    assert status == 503 and '\r\nRetry-After: ' in head and 'busy' in json.loads(content)['error']
    go.set()
    assert all(b'{"went": true}' in connection.recv(1 << 16) for connection in waiting)
    assert exchange(made, get(made))[0] == 200


def test_a_thread_that_cannot_start_costs_no_place(monkeypatch, capfd):
  monkeypatch.setattr(server, 'CONNECTIONS', 1)
  with served(server.make_server(Stub(lambda asked: {}), 0)) as made:

    def fails(*_, **__):
      raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
      patch.setattr(server.socketserver.threading, 'Thread', fails)
      with connect(made, get(made)) as connection:
        assert read(connection).startswith(b'HTTP/1.1 503 ')
    assert exchange(made, get(made))[0] == 200
  assert capfd.readouterr().err == ''


def test_contents_have_a_limit_together(monkeypatch):
  monkeypatch.setattr(server, '_ROOM', 1000)
  with served(server.make_server(Stub(lambda asked: {}), 0, timeout=1)) as made:
    small = post(made, {'images': {}})
    assert exchange(made, small)[0] == 200
    with connect(made, post(made, b' ' * 990, length=991)) as held:  # waits for its last byte
      time.sleep(0.3)
      status, head, _ = exchange(made, small)
      assert status == 503 and '\r\nRetry-After: ' in head
      assert read(held).startswith(b'HTTP/1.1 408 ')
    for _ in range(3):  # what was taken is given back
      assert exchange(made, small)[0] == 200


def test_mutated_requests_have_an_answer(serving, capfd):
  rng = random.Random(0)
  for _ in range(200):
    sent = fuzz_demo.mutated(serving.server_port, bundles.MODALITIES, rng)
    found = fuzz_demo.answer(serving.server_port, sent)
    assert found.isdigit(), sent[:200]
    assert found != '500', sent[:200]
  assert exchange(serving, get(serving))[0] == 200
  assert 'error' not in capfd.readouterr().err


def test_a_sensor_that_is_unusable(serving):
  """It is a failure to acquire, whose subsets decide nothing, unless it may be absent."""
  covered = bundles.triplet(3, rgb=0.4, ir=0.4) | {'ir': np.zeros((24, 24, 1), np.uint8)}
  status, found = decide(serving, covered)
  assert status == 200 and found['decision']['decision'] == 'fta' and found['subsets'] == {}
  assert found['unusable'] == ['ir'] and any('ir' in why for why in found['decision']['reasons'])
  found = decide(serving, covered, allow_absent=['depth'])[1]  # another one
  assert found['decision']['decision'] == 'fta' and found['subsets'] == {}
  status, found = decide(serving, covered, allow_absent=['ir'])
  assert status == 200 and found['decision']['used'] == ['rgb', 'depth']
  assert set(found['subsets']) == {'rgb', 'depth', 'rgb+depth'}
  assert found['decision']['decision'] != 'fta'
  status, found = decide(serving, covered, allow_absent=['thermal'])
  assert status == 400 and "'thermal'" in found['error']


def test_a_sensor_that_is_required_may_not_be_absent(tmp_path):
  predictor = Predictor.load(bundles.write(tmp_path), require=('ir',), allow_absent=('depth',))
  with served(server.make_server(backend.Backend(predictor), 0)) as made:
    status, found = decide(made, bundles.triplet(1), allow_absent=['ir'])
    assert status == 400 and 'ir is required' in found['error']
    # The page names its sensors in every request: those of the command are its default, no more.
    content = exchange(made, get(made))[2]
    facts = json.loads(re.search(rb'<script id="data"[^>]*>(.*?)</script>', content)[1])
    assert facts['require'] == ['ir'] and facts['allow_absent'] == ['depth']
    dark = bundles.triplet(1) | {'depth': np.zeros((24, 24, 1), np.uint8)}
    assert decide(made, dark)[1]['decision']['decision'] == 'fta'


def test_a_subset_without_threshold_and_a_model_that_fails(tmp_path):
  thresholds = {n: bundles.threshold(v) for n, v in bundles.THRESHOLDS.items() if n != 'ir'}
  predictor = Predictor.load(bundles.write(tmp_path, thresholds=thresholds))
  asked = backend.parse_request(
    json.dumps({'images': encode_images(**bundles.triplet(1))}).encode()
  )
  found = backend.Backend(predictor).decide(asked)
  assert found['subsets']['ir']['decision'] == 'fta'
  assert 'no threshold for ir' in found['subsets']['ir']['reasons'][0]
  run = predictor._run

  def fails(images, present):
    if present.sum() == 1:
      raise StateError('the model fails')
    return run(images, present)

  predictor._run = fails
  with pytest.raises(StateError, match='the model fails'):
    backend.Backend(predictor).decide(asked)


def test_rates_that_json_cannot_hold(tmp_path):
  metrics = {'intra': {'rgb': {'acer': float('nan')}, 'ir': {'acer': 0.1}}}
  predictor = Predictor.load(bundles.write(tmp_path))
  predictor.card.contents['metrics'] = metrics
  assert backend.Backend(predictor).page_data()['acer'] == {'rgb': None, 'ir': 0.1}
