"""The page: what its server lets pass, and what a real browser shows."""

import base64
import csv
import http.client
import importlib.util
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from flexfas_jax import demo
from flexfas_jax.errors import ConfigError, DataError, StateError
from flexfas_jax.prediction import Predictor
from flexfas_jax.prediction.page import backend, server
from tests import browser
from tests.prediction import bundles

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
  """A bundle with two samples: one is accepted by all subsets, the other by none."""
  folder = tmp_path_factory.mktemp('bundles') / 'toy'
  (folder / 'samples').mkdir(parents=True)
  listed, files = [], {}
  for i, mean in enumerate((0.4, -0.4)):
    images = bundles.triplet(i, rgb=mean, depth=-mean, ir=mean)
    names = {m: f'samples/{i}_{m}.png' for m in images}
    for modality, image in images.items():
      (folder / names[modality]).write_bytes(bundles.png(image))
    label = ('bona_fide', 'attack')[i]
    listed.append({'id': f'<b>{label}</b>', 'label': label, 'files': names})
  about = {'weights_hash': bundles.WEIGHTS, 'samples': listed}
  (folder / 'samples/samples.json').write_text(json.dumps(about))
  for path in sorted((folder / 'samples').iterdir()):
    files[f'samples/{path.name}'] = bundles.about(path.read_bytes())
  return bundles.write(folder, files=files, notes=['</script><script>alert(1)</script>'])


@pytest.fixture(scope='module')
def serving(bundle):
  made = server.make_server(backend.Backend(Predictor.load(bundle)), 0)
  thread = threading.Thread(target=made.serve_forever)
  thread.start()
  yield made
  made.shutdown()
  thread.join()
  made.server_close()


def ask(serving, method, path, body=None, **headers):
  """(status, headers, content) of a request."""
  connection = http.client.HTTPConnection(server.HOST, serving.server_port, timeout=30)
  headers = {name.replace('_', '-'): value for name, value in headers.items()}
  connection.request(method, path, body, headers)
  reply = connection.getresponse()
  content = reply.read()
  connection.close()
  return reply.status, reply.headers, content


def decide(serving, pictures, **headers):
  coded = {m: base64.b64encode(content).decode() for m, content in pictures.items()}
  headers = {'Content_Type': 'application/json'} | headers
  status, _, content = ask(serving, 'POST', '/decide', json.dumps({'images': coded}), **headers)
  return status, json.loads(content)


def test_every_subset_is_answered_as_the_predictor_decides(serving, bundle):
  pictures = bundles.triplet(3)
  status, found = decide(serving, {m: bundles.png(image) for m, image in pictures.items()})
  assert status == 200 and set(found['subsets']) == set(bundles.SUBSETS)
  predictor = Predictor.load(bundle)
  for name, one in found['subsets'].items():
    expected = predictor(**{m: pictures[m] for m in name.split('+')})
    assert one['score'] == pytest.approx(expected.score, abs=1e-6)
    assert one['decision'] == expected.outcome
  assert found['decision']['score'] == found['subsets']['rgb+depth+ir']['score']
  # What the model saw is shown.
  encoded = base64.b64decode(found['inputs']['rgb'].partition(',')[2])
  seen = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
  arrays = predictor.acquire(pictures).arrays
  np.testing.assert_allclose(seen, arrays['rgb'] * 128 + 127.5, atol=0.51)


def test_every_image_format_is_accepted(serving, bundle):
  """TIFF, WebP, NPY and HEIC decide as the same pixels in a PNG; the page offers their suffixes."""
  images = bundles.triplet(3)
  expected = Predictor.load(bundle)(**images)
  array = io.BytesIO()
  np.save(array, images['ir'][..., 0])
  files = {
    'rgb': cv2.imencode('.webp', images['rgb'][..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101])[1],
    'depth': cv2.imencode('.tiff', images['depth'][..., 0], [cv2.IMWRITE_TIFF_COMPRESSION, 1])[1],
  }
  files = {m: content.tobytes() for m, content in files.items()} | {'ir': array.getvalue()}
  status, found = decide(serving, files)
  assert status == 200, found
  assert found['decision']['used'] == ['rgb', 'depth', 'ir']
  assert found['decision']['score'] == pytest.approx(expected.score, abs=1e-6)
  data = json.loads(
    re.search(rb'<script id="data"[^>]*>(.*?)</script>', ask(serving, 'GET', '/')[2])[1]
  )
  has_heif = importlib.util.find_spec('pillow_heif') is not None
  assert list(data['formats']) == ['JPEG', 'PNG', 'TIFF', 'WebP', 'NPY'] + ['HEIC'] * has_heif
  assert '.tif' in data['formats']['TIFF'] and '.npy' in data['formats']['NPY']


def test_images_outside_the_limits(serving):
  """Refused by their headers: another request waits for none of them."""
  large = bytearray(bundles.png(bundles.picture(0)))
  large[16:24] = (60_000).to_bytes(4) * 2
  large[29:33] = zlib.crc32(large[12:29]).to_bytes(4)
  wide = bundles.png(bundles.picture(1, size=48)[:27])
  rgb = bundles.png(bundles.picture(2, channels=3))
  start = time.process_time()
  for pictures, says in (
    ({'ir': bytes(large)}, 'is 60000 x 60000 pixels, more than the limit of 25,000,000'),
    ({'ir': bundles.png(bundles.picture(0)[:8])}, 'is 24 x 8 pixels; each side must'),
    ({'rgb': rgb, 'depth': wide}, 'rgb 24 x 24, depth 48 x 27: images of these sizes are not reg'),
  ):
    status, found = decide(serving, pictures)
    assert status == 400 and says in found['error'], found
  assert time.process_time() - start < 1


def test_nothing_to_look_at_is_no_pass(serving):
  black = bundles.png(np.zeros((24, 24, 3), np.uint8))
  for pictures in ({}, {'rgb': black}):
    status, found = decide(serving, pictures)
    assert status == 200 and found['decision']['decision'] == 'fta'
    assert found['subsets'] == {} and found['decision']['reasons']


def test_what_is_no_picture_is_reported(serving):
  for pictures, says in (
    ({'rgb': b'<html>'}, 'rgb is an HTML page'),
    ({'thermal': b'x'}, "no modality 'thermal'"),
    ({'rgb': bundles.png(bundles.picture(0, channels=3).astype(np.uint16))}, '16 bits'),
  ):
    status, found = decide(serving, pictures)
    assert status == 400 and says in found['error']
  asked = {'Content_Type': 'application/json'}
  for body in ('{', '[]', '{"images": {"rgb": 3}}', '{"images": {"rgb": "?"}}'):
    status, _, content = ask(serving, 'POST', '/decide', body, **asked)
    assert status == 400 and 'error' in json.loads(content), body


def test_an_unusable_sensor_has_a_reason_and_a_way_out(serving):
  """Nothing in the reasons is an option of a command: the page has a button."""
  pictures = {m: bundles.png(image) for m, image in bundles.triplet(3).items()}
  pictures['depth'] = bundles.png(np.zeros((24, 24), np.uint8))
  status, found = decide(serving, pictures)
  assert status == 200 and found['unusable'] == ['depth'] and found['subsets'] == {}
  (reason,) = found['decision']['reasons']
  assert reason.startswith('depth ') and 'no signal' in reason


def test_patterns_are_no_samples(tmp_path):
  """Of data that may not be copied, a bundle has patterns: they look like nothing."""
  folder = tmp_path / 'toy'
  (folder / 'samples').mkdir(parents=True)
  content = bundles.png(bundles.picture(0, channels=3))
  (folder / 'samples/0_rgb.png').write_bytes(content)
  listed = [{'id': 'pattern_0', 'label': None, 'files': {'rgb': 'samples/0_rgb.png'}}]
  text = json.dumps({'weights_hash': bundles.WEIGHTS, 'samples': listed})
  (folder / 'samples/samples.json').write_text(text)
  files = {
    f'samples/{p.name}': bundles.about(p.read_bytes()) for p in (folder / 'samples').iterdir()
  }
  made = backend.Backend(Predictor.load(bundles.write(folder, files=files)))
  assert made.page_data()['samples'] == []
  assert made.sample_file('samples/0_rgb.png') is None


def test_a_sensor_that_was_never_recorded_is_left_out(tmp_path):
  """No bit depth in its data, no threshold: no place to drop an image, no sample, no figure."""
  folder = tmp_path / 'toy'
  (folder / 'samples').mkdir(parents=True)
  images = {m: bundles.png(image) for m, image in bundles.triplet(3).items()}
  names = {m: f'samples/0_{m}.png' for m in images}
  for modality, content in images.items():
    (folder / names[modality]).write_bytes(content)
  one = {'id': 'a', 'label': 'attack', 'files': names}
  two = {'id': 'b', 'label': 'attack', 'files': {'ir': names['ir']}}
  text = json.dumps({'weights_hash': bundles.WEIGHTS, 'samples': [one, two]})
  (folder / 'samples/samples.json').write_text(text)
  files = {
    f'samples/{p.name}': bundles.about(p.read_bytes()) for p in (folder / 'samples').iterdir()
  }
  known = {n: v for n, v in bundles.THRESHOLDS.items() if 'ir' not in n}
  made = backend.Backend(
    Predictor.load(
      bundles.write(
        folder,
        files=files,
        inputs={**bundles.INPUTS, 'ir': {'channels': 1, 'bits': []}},
        thresholds={n: bundles.threshold(v) for n, v in known.items()},
        metrics={'intra': {n: {'acer': 0.1} for n in bundles.SUBSETS}},
      )
    )
  )
  data = made.page_data()
  assert data['modalities'] == ['rgb', 'depth'] and data['never_recorded'] == ['ir']
  assert data['subsets'] == list(data['thresholds']) == ['rgb', 'rgb+depth', 'depth']
  assert set(data['acer']) == {'rgb', 'depth', 'rgb+depth'} and set(data['bits']) == {
    'rgb',
    'depth',
  }
  assert [s['id'] for s in data['samples']] == ['a']
  assert made.sample_file(names['ir']) is None and made.sample_file(names['rgb'])
  with pytest.raises(DataError, match='ir was never recorded in the data of this model'):
    made.decide(backend.Request(images, ()))
  assert made.decide(backend.Request({'rgb': images['rgb']}, ()))['present'] == ['rgb']


def test_samples_have_a_licence_other_than_that_of_the_weights(bundle, tmp_path):
  rendered = {'data': {'rendered': True}}
  for changes, says in (({}, 'its licence applies'), (rendered, 'show no real subject')):
    shutil.copytree(bundle, tmp_path / says)
    card = json.loads((bundle / 'card.json').read_text())
    (tmp_path / says / 'card.json').write_text(json.dumps({**card, **changes}))
    data = backend.Backend(Predictor.load(tmp_path / says)).page_data()
    assert says in data['samples_licence'] and data['licence'] == 'none'
  assert (
    backend.Backend(Predictor.load(bundles.write(tmp_path / 'b'))).page_data()['samples_licence']
    == ''
  )


def test_who_may_ask(serving):
  port = serving.server_port
  good = {'rgb': bundles.png(bundles.picture(0, channels=3))}
  assert decide(serving, good, Origin=f'http://127.0.0.1:{port}')[0] == 200
  assert decide(serving, good, Origin='http://example.com')[0] == 403
  assert decide(serving, good, Host='rebound.example.com')[0] == 403
  assert ask(serving, 'GET', '/', Host=f'localhost:{port}')[0] == 200
  assert ask(serving, 'GET', '/', Host='rebound.example.com')[0] == 403
  assert decide(serving, good, Content_Type='text/plain')[0] == 415
  assert serving.server_address[0] == '127.0.0.1'


def test_what_is_too_large_is_not_read(serving):
  headers = {'Content_Type': 'application/json', 'Content_Length': str(server.LARGEST + 1)}
  status, _, content = ask(serving, 'POST', '/decide', None, **headers)
  assert status == 413 and 'at most 48 MB' in json.loads(content)['error']
  headers['Content_Length'] = '-1'
  assert ask(serving, 'POST', '/decide', None, **headers)[0] == 400


@pytest.mark.parametrize(
  'path', ['/card.json', '/samples/', '/samples/../card.json', '/samples/%2e%2e/card.json', '/x',
           '/model.stablehlo', '//etc/passwd', '/samples/samples.json'],
)  # fmt: skip
def test_nothing_else_is_served(serving, path):
  assert ask(serving, 'GET', path)[0] == 404


def test_samples_are_proven(serving, bundle):
  path = bundle / 'samples/0_rgb.png'
  content = path.read_bytes()
  status, headers, found = ask(serving, 'GET', '/samples/0_rgb.png')
  assert (status, found, headers['Content-Type']) == (200, content, 'image/png')
  path.write_bytes(content[:-1] + b'x')
  status, _, found = ask(serving, 'GET', '/samples/0_rgb.png')
  path.write_bytes(content)
  assert status == 500 and b'is not the exported file' in found


def test_the_page_is_one_file_that_asks_nobody(serving):
  status, headers, content = ask(serving, 'GET', '/')
  text = content.decode()
  assert status == 200 and "default-src 'none'" in headers['Content-Security-Policy']
  own = text.replace('http://127.0.0.1', '').replace('/*', '')
  assert not re.findall(r'(?:src|href)="(?!data:)|https?://|@import|url\(', own)
  assert '</script><script>alert' not in text


def test_a_port_that_is_taken(serving, bundle):
  with pytest.raises(ConfigError, match='--port=0 takes a free one'):
    server.make_server(backend.Backend(Predictor.load(bundle)), serving.server_port)


@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGTERM])
def test_the_command(bundle, how):
  # With Ctrl-C ignored, as in a shell's background.
  code = (
    'import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN)\n'
    'from flexfas_jax import demo; sys.exit(demo.main(sys.argv[1:]))'
  )
  command = [sys.executable, '-c', code, str(bundle), '--port=0']
  with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
    try:
      said = process.stdout.readline()
      port = int(re.search(r'http://127.0.0.1:(\d+)/', said)[1])
      connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30)
      connection.request('GET', '/')
      assert connection.getresponse().status == 200
      connection.close()
      process.send_signal(how)
      assert process.wait(30) == 0
    finally:
      process.kill()


def test_what_cannot_be_served(bundle, capsys):
  for args, code, says in (
    ([bundle / 'absent'], 4, 'is not a bundle'),
    ([bundle, '--crop=box'], 2, 'use --crop=yunet'),
    ([bundle, '--port=70000'], 2, 'is not a port'),
  ):
    assert demo.main([str(arg) for arg in args]) == code
    assert says in capsys.readouterr().err


def test_a_model_that_fails_is_not_served(bundle, capsys, monkeypatch):
  def fails(*_):
    raise StateError('the model fails')

  def serve(*_):
    raise AssertionError('it is served')

  monkeypatch.setattr(Predictor, 'scores', fails)
  monkeypatch.setattr(server, 'make_server', serve)
  assert demo.main([str(bundle), '--port=0']) == 4
  assert 'the model fails' in capsys.readouterr().err


def test_a_time_for_requests(bundle, capsys):
  for given in ('0', '-1', 'nan', '4000'):
    assert demo.main([str(bundle), f'--request_timeout={given}']) == 2
    assert '--request_timeout=' in capsys.readouterr().err


@pytest.mark.skipif(not browser.CHROMIUM, reason='there is no chromium to open the page with')
def test_in_a_browser(serving, tmp_path):
  word = 'document.getElementById("word").textContent'
  score = 'document.getElementById("score").textContent'
  rows = 'document.querySelectorAll("#rows tr").length'
  fake = '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'
  with browser.Browser(tmp_path / 'browser', *fake) as page:
    page.look(1280, 900)
    page.open(f'http://127.0.0.1:{serving.server_port}/')
    assert page.run(word) == 'Waiting for an image'

    # A sample by one click; names are text, whatever is in them.
    page.run('document.querySelector("#chips button").click()')
    page.until(f'{word} == "Bona fide" && {rows} == 7')
    assert page.run('document.querySelector("#chips small").textContent') == '<b>bona_fide</b>'
    assert not page.run('document.querySelector("#chips b")')
    whole = page.run(score)
    page.run('document.querySelector("#sensor-depth .switch input").click()')
    assert page.run(score) != whole
    assert page.run('document.querySelector("tr.current").dataset.subset') == 'rgb+ir'
    page.run('document.querySelector("tr[data-subset=ir] td").click()')
    assert page.run('document.querySelector("#sensor-rgb .switch input").checked') is False
    for sensor in ('rgb', 'depth', 'ir'):  # none is left
      switch = f'document.querySelector("#sensor-{sensor} .switch input")'
      page.run(f'{switch}.checked && {switch}.click()')
    assert page.run(word) == 'No decision'
    page.run('document.querySelectorAll("#chips button")[1].click()')
    page.until(f'{word} == "Attack" && {rows} == 7')

    # The history has both decisions, the newest first, and can be saved.
    assert page.run('[...document.querySelectorAll("#past .pill")].map(e => e.textContent)') == [
      'Attack',
      'Bona fide',
    ]
    saved = page.run('csv()')
    assert '\r' not in saved
    saved = list(csv.DictReader(io.StringIO(saved)))
    assert [one['decision'] for one in saved] == ['bona_fide', 'attack']
    assert saved[0]['score'][:4] == whole[:4] and saved[0]['used'] == 'rgb; depth; ir'
    assert saved[0]['images'] == 'rgb=0_rgb.png; depth=0_depth.png; ir=0_ir.png'
    records = json.loads(page.run('JSON.stringify(records())'))
    assert len(records[1]['subsets']) == 7 and records[1]['accepted'] is False
    formula = 'csv(past.push({...past[0], images: {rgb: "x"}, decision: "=1+1"}))'
    assert ",'=1+1," in page.run(formula) and page.run('past.pop() && past.length') == 2
    note = page.run('document.querySelector("#banner p").textContent')
    assert note == 'WARNING </script><script>alert(1)</script>'

    # A sensor without signal: the reason, and one click to decide without it.
    (tmp_path / 'black.png').write_bytes(bundles.png(np.zeros((24, 24), np.uint8)))
    page.choose('#sensor-depth input[type=file]', tmp_path / 'black.png')
    page.until(f'{word} == "No decision" && !document.getElementById("without").hidden')
    assert 'no signal' in page.run('document.getElementById("reasons").textContent')
    page.run('document.querySelector("#without button").click()')
    page.until(f'{word} == "Attack" && {rows} == 3')
    assert page.run('document.querySelectorAll("#absent input")[1].checked')
    page.run('document.querySelectorAll("#absent input")[1].click()')
    page.until(f'{word} == "No decision"')
    page.run('document.querySelectorAll("#chips button")[1].click()')
    page.until(f'{word} == "Attack" && {rows} == 7')
    page.look(390, 844, phone=True)
    box = 'document.getElementById("word").getBoundingClientRect()'
    assert page.run('scrollY') == 0 and page.run(f'{box}.top >= 0 && {box}.bottom < 844')

    # The page fits, by day and by night, on a phone too.
    for width, dark in ((1280, False), (768, True), (360, True)):
      page.look(width, 900, dark, phone=width < 500)
      wide = (
        '[...document.querySelectorAll("body *")].filter(e => !e.closest(".skip, .scroll") && '
        'e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + e.className)'
      )
      assert page.run(wide) == []
      assert page.run('document.documentElement.scrollWidth') <= width
    image = cv2.imdecode(np.frombuffer(page.picture(), np.uint8), cv2.IMREAD_COLOR)
    assert image.std() > 5 and image[5, 5].max() < 80  # night

    # Files of one's own, good and bad.
    (tmp_path / 'own.png').write_bytes(bundles.png(bundles.picture(9, 0.3, channels=3)))
    (tmp_path / 'bad.png').write_bytes(b'<html>')
    page.run('document.querySelectorAll(".buttons button:first-child").forEach(b => b.click())')
    page.until(f'{word} == "Waiting for an image"')
    page.choose('#sensor-rgb input[type=file]', tmp_path / 'own.png')
    page.until(f'{rows} == 1 && {word} == "Bona fide"')
    page.choose('#sensor-ir input[type=file]', tmp_path / 'bad.png')
    page.until('!document.getElementById("error").hidden')
    assert 'ir is an HTML page' in page.run('document.getElementById("error").textContent')
    assert page.run(word) == 'No decision'  # what is wrong is never a pass
    assert [text for text in page.console if '400' not in text] == []

    # The webcam: live, then its last frame; refused, it is said how to allow it.
    page.run('document.querySelector("#sensor-rgb .buttons button:last-child").click()')
    page.until(f'{rows} == 1 && !document.getElementById("compare").hidden')
    assert page.run('document.querySelector("#sensor-rgb video").videoWidth') > 0
    page.run('document.querySelector("#sensor-rgb .buttons button:last-child").click()')
    page.until('document.querySelector("#sensor-rgb .note").textContent == "webcam"')
    page.run(
      'navigator.mediaDevices.getUserMedia = async () => {throw new DOMException("", '
      '"NotAllowedError")}'
    )
    page.run('document.querySelector("#sensor-rgb .buttons button:last-child").click()')
    page.until('document.getElementById("error").textContent.includes("webcam was refused")')


# The page's requests wait in `held` until a test lets them go; the samples' images do not.
_HOLD = """
  window.held = [];
  const real = window.fetch;
  window.fetch = (path, options) => path !== '/decide' ? real(path) : new Promise((done, failed) =>
    held.push({let: () => real(path, {...options, signal: undefined}).then(done, failed),
               fail: () => failed(new TypeError('gone')),
               say: (text, status) => done(new Response(text, {status}))}));
"""


@pytest.mark.skipif(not browser.CHROMIUM, reason='there is no chromium to open the page with')
def test_no_verdict_outlives_its_input(serving, tmp_path):
  verdict = (
    '[document.getElementById("verdict").dataset.outcome, '
    'document.getElementById("word").textContent, document.getElementById("score").textContent, '
    'document.querySelectorAll("#rows tr").length * !document.getElementById("compare").hidden]'
  )
  nothing = ['none', 'Deciding…', '–', 0]
  failed = ['fta', 'No decision', '–', 0]
  accepted = f'{verdict}.slice(0, 2).join() == "bona_fide,Bona fide"'
  chip = 'document.querySelectorAll("#chips button")[{}].click()'
  error = 'document.getElementById("error").textContent'
  (tmp_path / 'own.png').write_bytes(bundles.png(bundles.picture(9, 0.3, channels=3)))
  fake = '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'
  with browser.Browser(tmp_path / 'browser', *fake) as page:
    page.look(1280, 900)
    page.open(f'http://127.0.0.1:{serving.server_port}/')
    page.run(_HOLD)

    def accept():
      page.run('held.length = 0')
      page.run(chip.format(0))
      page.until('held.length == 1')
      page.run('held.shift().let()')
      page.until(accepted)

    # While a request runs, and when the answers come in another order.
    accept()
    page.choose('#sensor-rgb input[type=file]', tmp_path / 'own.png')
    page.until('held.length == 1')
    assert page.run(verdict) == nothing
    page.run(chip.format(1))
    page.until('held.length == 2')
    page.run('held[1].let()')
    page.until(f'{verdict}[1] == "Attack"')
    page.run('held[0].let()')
    page.run('new Promise(done => setTimeout(done, 300))')
    assert page.run(f'{verdict}[1]') == 'Attack'
    assert page.run('document.querySelector("#sensor-rgb .note").textContent') == '1_rgb.png'

    # After an error, of whichever kind.
    for fails in (
      'held[0].fail()',
      'held[0].say("<html>", 502)',
      'held[0].say("{}", 500)',
      """held[0].say('{"decision": {"decision": "bona_fide", "accepted": true}}', 500)""",
    ):
      accept()
      page.run('document.querySelector("#absent input").click()')
      page.until('held.length == 1')
      assert page.run(verdict) == nothing
      page.run(fails)
      page.until(f'{error} != ""')
      assert page.run(verdict) == failed
      # The images are those of the input again, not what the model saw.
      assert page.run('document.querySelector("#sensor-ir img").src.startsWith("blob:")')
    accept()
    page.run('window.fetch = async () => new Response(\'{"error": "damaged"}\', {status: 500})')
    page.run(chip.format(1))
    page.until(f'{error}.includes("damaged")')
    assert page.run(verdict) == failed
    assert page.run('[...document.querySelectorAll("#sensors img")].every(i => i.hidden)')

    # On the webcam a verdict stays for a moment, and not when no further one comes.
    page.open(f'http://127.0.0.1:{serving.server_port}/')
    page.run('document.querySelector("#sensor-rgb .buttons button:last-child").click()')
    page.until(f'{verdict}[3] == 1')
    page.run('window.fetch = () => new Promise(() => 0)')
    page.until(f'{verdict}[3] == 0 && {verdict}[2] == "–"')
    assert [text for text in page.console if '50' not in text] == []


@pytest.mark.skipif(not browser.CHROMIUM, reason='there is no chromium to open the page with')
def test_switches_after_an_image_without_signal(serving, tmp_path):
  """A switch is on where its sensor counts; the next image of the sensor counts again."""
  word = 'document.getElementById("word").textContent'
  switches = '[...document.querySelectorAll("#sensors .switch input")].map(e => e.{})'
  allowed = 'document.querySelectorAll("#absent input")[1].checked'
  black, good = tmp_path / 'black.png', tmp_path / 'good.png'
  black.write_bytes(bundles.png(np.zeros((24, 24), np.uint8)))
  good.write_bytes(bundles.png(bundles.triplet(0, depth=-0.4)['depth']))
  with browser.Browser(tmp_path / 'browser') as page:
    page.look(1280, 900)
    page.open(f'http://127.0.0.1:{serving.server_port}/')
    assert page.run(switches.format('checked')) == [False] * 3  # no image yet
    page.run('document.querySelector("#chips button").click()')
    page.until(f'{word} == "Bona fide"')
    assert page.run(switches.format('checked')) == [True] * 3
    page.choose('#sensor-depth input[type=file]', black)
    page.until(f'{word} == "No decision"')
    assert page.run(switches.format('checked')) == [True, False, True]
    assert page.run(switches.format('disabled')) == [True] * 3
    page.run('document.querySelector("#without button").click()')
    page.until(f'{word} == "Bona fide"')
    assert page.run(switches.format('checked')) == [True, False, True]
    assert page.run(switches.format('disabled')) == [False, True, False]
    assert page.run(allowed) is True
    # The click was about the black image: it does not hold for the next one.
    page.choose('#sensor-depth input[type=file]', good)
    page.until(f'{word} == "Bona fide" && document.querySelectorAll("#rows tr").length == 7')
    assert page.run(switches.format('checked')) == [True] * 3
    assert page.run(switches.format('disabled')) == [False] * 3
    assert page.run(allowed) is False
    page.choose('#sensor-depth input[type=file]', black)
    page.until(f'{word} == "No decision"')
    # A choice of the user's own holds.
    page.run('document.querySelectorAll("#absent input")[1].click()')
    page.until(f'{word} == "Bona fide"')
    page.choose('#sensor-depth input[type=file]', good)
    page.until(f'{word} == "Bona fide" && document.querySelectorAll("#rows tr").length == 7')
    assert page.run(allowed) is True
    # The samples state their licence.
    assert 'licence applies' in page.run('document.getElementById("samples-licence").textContent')
    assert page.run('document.getElementById("notes").textContent') == 'Licence of the model: none'


@pytest.mark.skipif(not browser.CHROMIUM, reason='there is no chromium to open the page with')
def test_refusals_are_in_the_history(serving, tmp_path):
  (tmp_path / 'notes.png').write_bytes(b'hello, world')
  (tmp_path / 'own.png').write_bytes(bundles.png(bundles.picture(9, 0.3, channels=3)))
  word = 'document.getElementById("word").textContent'
  with browser.Browser(tmp_path / 'browser') as page:
    page.look(1280, 900)
    page.open(f'http://127.0.0.1:{serving.server_port}/')
    page.choose('#sensor-rgb input[type=file]', tmp_path / 'notes.png')
    page.until('!document.getElementById("error").hidden')
    page.choose('#sensor-rgb input[type=file]', tmp_path / 'own.png')
    page.until(f'{word} == "Bona fide"')
    refused, decided = csv.DictReader(io.StringIO(page.run('csv()')))
    assert (refused['decision'], refused['accepted'], refused['score']) == ('fta', 'false', '')
    assert refused['images'] == 'rgb=notes.png' and decided['decision'] == 'bona_fide'
    assert 'it starts with the text "hello, w"); open it with the program' in refused['reasons']
    assert json.loads(page.run('JSON.stringify(records())'))[0]['reasons'] == [refused['reasons']]
    shown = page.run('[...document.querySelectorAll("#past tr")].map(e => e.textContent)')
    assert len(shown) == 2 and 'notes.png: rgb is of an unknown format' in shown[1]


@pytest.mark.skipif(not browser.CHROMIUM, reason='there is no chromium to open the page with')
def test_a_verdict_is_above_the_fold_of_a_phone(serving, tmp_path):
  word = 'document.getElementById("word").textContent'
  place = (
    '(({top, bottom}) => [top, bottom])(document.getElementById("{}").getBoundingClientRect())'
  )
  with browser.Browser(tmp_path / 'browser') as page:
    for width, height in ((390, 844), (360, 640)):
      page.look(width, height, phone=True)
      page.open(f'http://127.0.0.1:{serving.server_port}/')
      top, bottom = page.run(place.replace('{}', 'verdict'))
      assert 0 <= top < bottom < 0.65 * height
      # And still, when one has scrolled to what is below.
      page.run('document.querySelectorAll("#chips button")[0].scrollIntoView()')
      page.run('document.querySelectorAll("#chips button")[0].click()')
      page.until(f'{word} == "Bona fide"')
      top, bottom = page.run(place.replace('{}', 'word'))
      assert 0 <= top < bottom < height / 2


@pytest.mark.skipif(not browser.CHROMIUM, reason='there is no chromium to open the page with')
def test_a_sensor_that_may_be_absent(serving, tmp_path):
  word = 'document.getElementById("word").textContent'
  (tmp_path / 'rgb.png').write_bytes(bundles.png(bundles.picture(9, 0.3, channels=3)))
  (tmp_path / 'dark.png').write_bytes(bundles.png(np.zeros((24, 24, 1), np.uint8)))
  with browser.Browser(tmp_path / 'browser') as page:
    page.look(1280, 900)
    page.open(f'http://127.0.0.1:{serving.server_port}/')
    labels = page.run('[...document.querySelectorAll("#absent label")].map(l => l.textContent)')
    assert labels == ['RGB', 'Depth', 'Infrared']
    assert not page.run('[...document.querySelectorAll("#absent input")].some(i => i.checked)')
    page.choose('#sensor-rgb input[type=file]', tmp_path / 'rgb.png')
    page.until(f'{word} == "Bona fide"')
    page.choose('#sensor-ir input[type=file]', tmp_path / 'dark.png')
    page.until(f'{word} == "No decision"')
    assert (
      page.run('document.getElementById("reasons").textContent')
      == 'ir is one colour throughout: it carries no signal'
    )
    saying = page.run('document.getElementById("explanation").textContent')
    assert 'not accepted. Capture Infrared again, or decide without.' in saying
    assert page.run('document.getElementById("compare").hidden')
    assert page.run('document.querySelector("#sensor-ir").classList.contains("off")')
    page.run('document.querySelectorAll("#absent input")[2].click()')
    page.until(f'{word} == "Bona fide"')
    page.run('document.querySelectorAll("#absent input")[2].click()')
    page.until(f'{word} == "No decision"')
