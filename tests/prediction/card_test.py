"""Bundles that are not what they should be are refused, and the message says what to do."""

import json
import sys

import pytest

from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.prediction import Predictor, card, formats
from tests.prediction import bundles


@pytest.fixture
def bundle(tmp_path):
  return bundles.write(tmp_path / 'toy')


def test_a_changed_byte_is_found(bundle):
  path = bundle / 'model.stablehlo'
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  with pytest.raises(StateError, match='model.stablehlo is not what was exported'):
    Predictor.load(bundle)
  path.unlink()
  with pytest.raises(StateError, match='cannot be read'):
    Predictor.load(bundle)


@pytest.mark.parametrize(
  ('changes', 'says'),
  [
    ({'bundle': 2, 'version': '9.0'}, 'made by a newer version.*9.0.*pip install -U'),
    ({'bundle': None}, 'is no card of a bundle'),
    ({'bundle': '1'}, 'is no card of a bundle'),
    ({'thresholds': None}, '"thresholds" is None'),
    ({'modalities': []}, 'no names'),
    ({'image_size': 0}, 'image_size'),
    ({'models': [{}]}, 'has no file'),
    ({'models': [bundles.entry(b'', format=None)]}, 'has no file or format'),
    ({'inputs': {'rgb': 3}}, 'no known form'),
    ({'models': [bundles.entry(b'', file='../model.stablehlo')]}, 'not below the bundle'),
  ],
)
def test_a_card_that_cannot_be(tmp_path, changes, says):
  bundles.write(tmp_path / 'toy', **changes)
  with pytest.raises(StateError, match=says):
    Predictor.load(tmp_path / 'toy')


def test_no_bundle(tmp_path, bundle):
  with pytest.raises(StateError, match='is no bundle.*--mode=export'):
    Predictor.load(tmp_path)
  (bundle / 'card.json').write_text('{')
  with pytest.raises(StateError, match='card.json is damaged'):
    Predictor.load(bundle)
  (bundle / 'card.json').write_text('[]')
  with pytest.raises(StateError, match='is no card'):
    Predictor.load(bundle)


def test_the_card_itself_can_be_pinned(bundle):
  known = card.read(bundle).sha256
  Predictor.load(bundle, sha256=known.upper())
  contents = json.loads((bundle / 'card.json').read_text())
  contents['thresholds']['rgb']['value'] = 0.0
  (bundle / 'card.json').write_text(json.dumps(contents))
  with pytest.raises(StateError, match='is another one'):
    Predictor.load(bundle, sha256=known)


def test_formats(tmp_path, bundle, monkeypatch):
  with pytest.raises(ConfigError, match='no format .coreml.; choose one of: stablehlo, onnx'):
    Predictor.load(bundle, format='coreml')
  with pytest.raises(ConfigError, match='has no onnx model .* it has: model.stablehlo'):
    Predictor.load(bundle, format='onnx')
  with pytest.raises(ConfigError, match='int8'):
    Predictor.load(bundle, precision='int8')
  with pytest.raises(ConfigError, match='for rgb alone'):
    Predictor.load(bundle, modalities=['rgb'])
  monkeypatch.setattr(formats, 'installed', lambda name: False)
  for format in (None, 'stablehlo'):
    with pytest.raises(ConfigError, match='pip install jax'):
      Predictor.load(bundle, format=format)


def test_a_library_that_is_not_there_is_named(tmp_path, monkeypatch):
  entry = bundles.entry(b'x', file='model.onnx', format='onnx')
  folder = bundles.write(tmp_path / 'toy', models=[entry])
  (folder / 'model.onnx').write_bytes(b'x')
  monkeypatch.setitem(sys.modules, 'onnxruntime', None)  # as where it is not installed
  monkeypatch.setattr(formats, 'installed', lambda name: True)
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
  contents = card.read(bundles.write(tmp_path / 'toy', models=[entry]))
  seen = []

  def run(images, present):
    seen.append((sorted(images), present.tolist()))
    return images['rgb'].mean((1, 2, 3))

  predictor = Predictor(contents, entry, run)
  assert formats.choose(contents, 'stablehlo', modalities=('rgb',)) == entry
  pictures = bundles.triplet()
  assert predictor(rgb=pictures['rgb']).used == ('rgb',)
  assert seen == [(['rgb'], [[True]])]
  assert predictor().outcome == 'fta'
  with pytest.raises(ConfigError, match='it has rgb'):
    predictor(rgb=pictures['rgb'], ir=pictures['ir'])
