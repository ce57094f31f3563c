"""Bundles that are not what they should be are refused, and the message says what to do."""

import hashlib
import importlib
import inspect
import json
import os
import sys

import numpy as np
import pytest

from flexfas_jax import predict
from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.prediction import Predictor, card, model_loader
from flexfas_jax.prediction.page import backend
from flexfas_jax.prediction.runners import stablehlo
from tests.prediction import bundles


@pytest.fixture
def bundle(tmp_path):
  return bundles.write(tmp_path / 'toy')


def test_a_changed_byte_is_found(bundle):
  path = bundle / 'model.stablehlo'
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  with pytest.raises(StateError, match='model.stablehlo is not the exported file'):
    Predictor.load(bundle)
  path.unlink()
  with pytest.raises(StateError, match='cannot be read'):
    Predictor.load(bundle)


def rgb_threshold(**fields):
  return {'thresholds': {'rgb': bundles.threshold(0.5) | fields}}


def counts(**fields):
  return rgb_threshold(counts=bundles.threshold(0.5)['counts'] | fields)


def model(**fields):
  return {'models': [bundles.entry(bytes(bundles.program()), **fields)]}


@pytest.mark.parametrize(
  ('changes', 'says'),
  [
    ({'bundle': 3, 'version': '9.0'}, 'made by a newer version.*9.0.*pip install -U'),
    ({'bundle': 1}, 'made by an older version.*Export it again'),
    ({'bundle': None}, 'is not a card of a bundle'),
    ({'bundle': '2'}, 'is not a card of a bundle'),
    ({'bundle': True}, 'is not a card of a bundle'),
    ({'bundle': 2.0}, 'is not a card of a bundle'),
    ({'name': 3}, 'name is 3, not a text'),
    ({'name': 'a\x1b[2J'}, 'name is .*control characters'),
    ({'weights_hash': ''}, 'weights_hash is empty'),
    ({'sequence': None}, 'sequence is missing'),
    ({'sequence': -1}, 'sequence is -1; expected at least 0'),
    ({'sequence': 1.0}, 'sequence is 1.0, not an integer'),
    ({'notes': [1]}, 'notes is .*not a list of texts'),
    ({'thresholds': None}, 'thresholds is missing'),
    ({'thresholds': []}, 'thresholds is .*, not an object'),
    ({'thresholds': {'rgb': 0.5}}, 'thresholds.rgb is 0.5, not an object'),
    ({'thresholds': {'uv': bundles.threshold(0.5)}}, 'thresholds.uv is not of a served subset'),
    (rgb_threshold(value=0), 'thresholds.rgb.value is 0, not between 0 and 1'),
    (rgb_threshold(value=1), 'thresholds.rgb.value is 1, not between'),
    (rgb_threshold(value=-5), 'thresholds.rgb.value is -5, not between'),
    (rgb_threshold(value=1e300), 'thresholds.rgb.value is 1e.300, not between'),
    (rgb_threshold(value=10**400), 'more than 18 digits'),
    (rgb_threshold(value=True), 'thresholds.rgb.value is True, not a number'),
    (rgb_threshold(value='0.5'), "thresholds.rgb.value is '0.5', not a number"),
    (rgb_threshold(value=None), 'thresholds.rgb.value is None, not a number'),
    (rgb_threshold(value=float('nan')), 'NaN is not a finite number'),
    (rgb_threshold(value=float('inf')), 'Infinity is not a finite number'),
    (rgb_threshold(weights_hash='other'), "thresholds.rgb.weights_hash is 'other'"),
    (rgb_threshold(counts=None), 'thresholds.rgb.counts is None'),
    (counts(bona_fide={'scores': 0, 'subjects': 0}), 'bona_fide.scores is 0; expected at least 30'),
    (counts(attack={'scores': 30, 'subjects': 9}), 'attack.subjects is 9; expected at least 10'),
    (counts(attack={'scores': 30}), 'attack.subjects is missing'),
    ({'evidence': None}, 'evidence is missing'),
    ({'evidence': {'min_scores': 0, 'min_subjects': 0}}, 'min_scores is 0; expected at least 1'),
    ({'modalities': []}, 'modalities is .*expected some of rgb, depth, ir'),
    ({'modalities': ['rgb', 'rgb']}, 'modalities is'),
    ({'modalities': ['rgb', 'uv']}, 'modalities is'),
    ({'modalities': ['rgb', []]}, 'not a list of texts'),
    ({'requires': ['uv']}, 'requires is'),
    ({'requires': ['depth']}, "subsets has 'rgb', which is not a subset"),
    ({'subsets': ['depth+rgb']}, "subsets has 'depth.rgb', which is not a subset"),
    ({'subsets': ['rgb', 'rgb']}, 'is empty or has duplicates'),
    ({'image_size': 0}, 'image_size is 0; expected 1 to 4096'),
    ({'image_size': 10**9}, 'image_size is 1000000000; expected 1 to 4096'),
    ({'image_size': 8.0}, 'image_size is 8.0, not an integer'),
    ({'view': 'sideways'}, "view is 'sideways'"),
    ({'view': 'five_crops=0.5'}, 'which is more than one'),
    ({'resize': 'cubic'}, "resize is 'cubic'; expected one of area, bilinear"),
    ({'resize': 1}, 'resize is 1, not a text'),
    ({'inputs': {}}, 'inputs has'),
    ({'inputs': bundles.INPUTS | {'rgb': 3}}, 'inputs.rgb is 3, not an object'),
    (
      {'inputs': bundles.INPUTS | {'rgb': {'channels': 1, 'bits': []}}},
      'channels is 1; expected 3',
    ),
    ({'inputs': bundles.INPUTS | {'rgb': {'channels': 3, 'bits': [True]}}}, 'rgb.bits is'),
    ({'inputs': bundles.INPUTS | {'rgb': {'channels': 3, 'bits': 8}}}, 'rgb.bits is 8, not a list'),
    ({'inputs': bundles.INPUTS | {'rgb': {'channels': 3, 'bits': [8, 12]}}}, 'rgb.bits is .8, 12'),
    (model(file='con/model.stablehlo'), "'con/model.stablehlo' is not a path below"),
    ({'models': [*model()['models'], *model(file='../x')['models']]}, "'../x' is not a path below"),
    ({'models': [{}]}, 'models.0..file is missing'),
    ({'models': [3]}, 'models.0. is 3, not an object'),
    (model(format=None), 'format is None, not a text'),
    (model(sha256='0'), 'sha256 is not 64'),
    (model(bytes=True), 'bytes is True, not an integer'),
    (model(present=1), 'present is 1, not true or false'),
    (model(modalities=['rgb']), 'modalities is .*takes all'),
    (model(modalities=['ir', 'rgb', 'depth']), 'modalities is'),
    (model(present=False), 'inputs are not rgb, depth, ir'),
    (model(inputs=[]), 'inputs are not rgb, depth, ir, present'),
    (model(size=9), 'inputs.rgb.shape is'),
    (model(model={'a': 1}), 'model differs from the card'),
    (model(weights_hash='other'), "weights_hash is 'other'"),
    (model(file='../model.stablehlo'), 'not a path below the bundle'),
    (model(file='/dev/zero'), 'not a path below the bundle'),
    (model(file='a/../model.stablehlo'), 'not a path below the bundle'),
    (model(file='C:\\model.stablehlo'), 'not a path below the bundle'),
    (model(file='nul'), 'not a path below the bundle'),
    (model(file='a\x00b'), 'control characters'),
    ({'files': {'model.stablehlo': bundles.about(b'')}}, 'name a file twice'),
    ({'files': {'/etc/passwd': bundles.about(b'')}}, 'not a path below the bundle'),
    ({'files': {'a': 3}}, 'files.a is 3, not an object'),
    ({'metrics': {'intra': {'rgb': {'acer': '0'}}}}, "acer is '0', not a number"),
    ({'metrics': {'intra': []}}, 'metrics.intra is'),
    ({'metrics': [1]}, 'metrics is'),
  ],
)
def test_a_card_that_cannot_be(tmp_path, capsys, changes, says):
  bundles.write(tmp_path / 'toy', **changes)
  with pytest.raises(StateError, match=says):
    Predictor.load(tmp_path / 'toy')
  assert predict.main([str(tmp_path / 'toy'), '--rgb=a.png']) == 4
  assert capsys.readouterr().err.startswith('error: ')


def test_fields_of_a_later_version_are_allowed(tmp_path):
  threshold = {'rgb': bundles.threshold(0.5) | {'later': 1}}
  bundles.write(tmp_path / 'toy', later=[{}], thresholds=threshold, **model(later=None))
  assert card.read(tmp_path / 'toy').threshold('rgb') == 0.5


@pytest.mark.parametrize(
  ('change', 'says'),
  [
    (lambda text: b'{', 'card.json is damaged'),
    (lambda text: b'', 'card.json is damaged'),
    (lambda text: b'[]', 'is not a card'),
    (lambda text: b'\xff\xfe', "can't decode byte"),
    (lambda text: b'\xef\xbb\xbf' + text, 'BOM'),
    (lambda text: text.decode().encode('utf-16'), "can't decode byte"),
    (lambda text: b'{"a":' * 100_000, 'nested too deep'),
    (lambda text: b'[' * 100_000 + b']' * 100_000, 'nested too deep'),
    (lambda text: text.replace(b'"toy"', b'"\\ud800"'), 'surrogates not allowed'),
    (lambda text: text.replace(b'"name"', b'"name": "x", "name"'), "the key 'name' is repeated"),
    (lambda text: text.replace(b'"step"', b'"step": 2, "step"'), "the key 'step' is repeated"),
    (
      lambda text: text.replace(b'"value"', b'"value": 0.9, "value"', 1),
      "the key 'value' is repeated",
    ),
    (lambda text: text.replace(b'0.45', b'1e999'), '1e999 is not a finite number'),
    (lambda text: text.replace(b'0.45', b'9' * 5000), 'more than 18 digits'),
    (lambda text: text + b' ' * (4 << 20), 'bytes, and at most 4,194,304 are read'),
  ],
)
def test_json_that_is_no_card(bundle, change, says):
  text = (bundle / 'card.json').read_bytes()
  changed = change(text)
  assert changed != text
  (bundle / 'card.json').write_bytes(changed)
  with pytest.raises(StateError, match=says):
    Predictor.load(bundle)


def test_no_bundle(tmp_path, bundle):
  with pytest.raises(StateError, match='is not a bundle.*flexfas export'):
    Predictor.load(tmp_path)
  with pytest.raises(StateError, match='is not a bundle'):
    Predictor.load(bundle / 'card.json')


def test_only_regular_files_are_read(bundle):
  """A pipe would block, a device never ends."""
  for name in ('card.json', 'model.stablehlo'):
    path = bundle / name
    content = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StateError, match='not a regular file'):
      Predictor.load(bundle)
    path.unlink()
    path.symlink_to('/dev/zero')
    with pytest.raises(StateError, match='not a regular file|outside the bundle'):
      Predictor.load(bundle)
    path.unlink()
    path.mkdir()
    with pytest.raises(StateError, match='not a regular file'):
      Predictor.load(bundle)
    path.rmdir()
    path.write_bytes(content)
  Predictor.load(bundle)


def test_a_link_out_of_the_bundle_is_not_followed(bundle, tmp_path):
  path = bundle / 'model.stablehlo'
  path.rename(tmp_path / 'elsewhere')
  path.symlink_to(tmp_path / 'elsewhere')
  with pytest.raises(StateError, match='is a link to a file outside the bundle'):
    Predictor.load(bundle)
  path.unlink()
  (tmp_path / 'elsewhere').rename(bundle / 'weights')
  path.symlink_to('weights')
  Predictor.load(bundle)


def test_the_bytes_that_were_verified_are_the_bytes_that_run(bundle):
  """A runner gets bytes, so that a file which is replaced meanwhile is another one's matter."""
  path, found = bundle / 'model.stablehlo', card.read(bundle)
  content = found.read_file('model.stablehlo')
  path.write_bytes(b'another model')
  assert hashlib.sha256(content).hexdigest() == found.contents['models'][0]['sha256']
  for format in model_loader.FORMATS:
    runner = importlib.import_module(f'flexfas_jax.prediction.runners.{format}')
    assert list(inspect.signature(runner.load).parameters)[0] == 'content'
  run = stablehlo.load(content, found.contents['models'][0])
  images = {m: np.zeros((1, 8, 8, 3 if m == 'rgb' else 1), np.float32) for m in bundles.MODALITIES}
  assert run(images, np.ones((1, 3), bool)).tolist() == [0]
  with pytest.raises(StateError, match='is not the exported file'):
    found.read_file('model.stablehlo')
  path.write_bytes(content + b'more')
  with pytest.raises(StateError, match='cannot be read: it has'):
    found.read_file('model.stablehlo')


@pytest.mark.parametrize(
  ('about', 'says'),
  [
    (b'{', 'samples.json is damaged'),
    (b'[]', 'not an object'),
    (b'{"weights_hash": "other", "samples": []}', "weights_hash is 'other'"),
    (b'{"weights_hash": "wwwwwwww", "samples": 3}', 'samples is 3, not a list'),
    (b'{"weights_hash": "wwwwwwww", "samples": [3]}', 'samples.0. is 3, not an object'),
    (b'{"weights_hash": "wwwwwwww", "samples": [{"id": 3}]}', 'id is 3, not a text'),
    (
      b'{"weights_hash": "wwwwwwww", "samples": [{"id": "a", "label": "live"}]}',
      "label is 'live'",
    ),
    (
      b'{"weights_hash": "wwwwwwww", "samples": [{"id": "a", "files": {"rgb": "/etc/passwd"}}]}',
      'not a file of the card',
    ),
  ],
)
def test_samples_that_cannot_be(tmp_path, about, says):
  folder = bundles.write(tmp_path / 'b', files={'samples/samples.json': bundles.about(about)})
  (folder / 'samples').mkdir()
  (folder / 'samples/samples.json').write_bytes(about)
  with pytest.raises(StateError, match=says):
    backend.Backend(Predictor.load(folder))


def test_the_card_itself_can_be_pinned(bundle):
  known = card.read(bundle).sha256
  Predictor.load(bundle, sha256=known.upper())
  contents = json.loads((bundle / 'card.json').read_text())
  contents['thresholds']['rgb']['value'] = 0.0
  (bundle / 'card.json').write_text(json.dumps(contents))
  with pytest.raises(StateError, match='is another card'):
    Predictor.load(bundle, sha256=known)
  with pytest.raises(ConfigError, match='is empty'):  # of a variable that is not set
    Predictor.load(bundle, sha256='')


def test_formats(tmp_path, bundle, monkeypatch):
  with pytest.raises(ConfigError, match='unknown format .coreml.; choose one of: stablehlo, onnx'):
    Predictor.load(bundle, format='coreml')
  with pytest.raises(ConfigError, match='has no onnx model .* it has: model.stablehlo'):
    Predictor.load(bundle, format='onnx')
  with pytest.raises(ConfigError, match='int8'):
    Predictor.load(bundle, precision='int8')
  with pytest.raises(ConfigError, match='for rgb alone'):
    Predictor.load(bundle, modalities=['rgb'])
  monkeypatch.setattr(model_loader, 'is_installed', lambda name: False)
  for format in (None, 'stablehlo'):
    with pytest.raises(ConfigError, match='pip install jax'):
      Predictor.load(bundle, format=format)


def test_a_library_that_is_not_there_is_named(tmp_path, monkeypatch):
  entry = bundles.entry(b'x', file='model.onnx', format='onnx')
  folder = bundles.write(tmp_path / 'toy', models=[entry])
  (folder / 'model.onnx').write_bytes(b'x')
  monkeypatch.setitem(sys.modules, 'onnxruntime', None)  # as where it is not installed
  monkeypatch.setattr(model_loader, 'is_installed', lambda name: True)
  with pytest.raises(ConfigError, match='pip install'):
    Predictor.load(folder)


def test_a_file_that_is_no_model(tmp_path):
  entry = bundles.entry(b'x')
  folder = bundles.write(tmp_path / 'toy', models=[entry])
  (folder / 'model.stablehlo').write_bytes(b'x')
  with pytest.raises(StateError, match='cannot be loaded as stablehlo'):
    Predictor.load(folder)


def test_a_model_for_one_sensor_alone(tmp_path):
  """It has no input for the others, nor for what is present."""
  entry = bundles.entry(b'x', modalities=['rgb'], present=False)
  entry['inputs'] = entry['inputs'][:1]
  contents = card.read(bundles.write(tmp_path / 'toy', models=[entry]))
  seen = []

  def run(images, present):
    seen.append((sorted(images), present.tolist()))
    return images['rgb'].mean((1, 2, 3))

  predictor = Predictor(contents, entry, run)
  assert model_loader.choose_model(contents, 'stablehlo', modalities=('rgb',)) == entry
  pictures = bundles.triplet()
  assert predictor(rgb=pictures['rgb']).used == ('rgb',)
  assert seen == [(['rgb'], [[True]])]
  assert predictor().outcome == 'fta'
  with pytest.raises(ConfigError, match='it has rgb'):
    predictor(rgb=pictures['rgb'], ir=pictures['ir'])
