"""Bundles, score files and parameter paths of the commit before the vocabulary changed.

tests/golden/before_language/ was written by commit 68288a1: a run of 40
steps on `rendered_faces/surf_like_tiny`, evaluated and exported; and parameter paths of toy models.
"""

import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest

from flexfas_jax.evaluation import results, score_files
from flexfas_jax.models import flexmodal
from flexfas_jax.prediction import Predictor

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'before_language'
BUNDLE = GOLDEN / 'bundle'
LIBRARIES = {'stablehlo': 'jax', 'onnx': 'onnxruntime', 'weights': 'flax'}
TOY = {'name': 'resnet', 'variant': 'mu'}
RGB = {'modalities': ('rgb',)}
RGB_IR = {'modalities': ('rgb', 'ir')}
SINGLE, LOGIT = {'name': 'single'}, {'name': 'binary_logit'}
MODELS = {  # name in parameter_paths.json: (backbone, fusion, head, further fields)
  **{
    name: ({'name': name, 'variant': 'mu'}, {'name': 'concat'}, LOGIT, RGB_IR)
    for name in ('caffe_resnet', 'cdcn', 'ir_resnet', 'resnet', 'vit')
  },
  'resnet 50': ({'name': 'resnet', 'variant': '50'}, SINGLE, {'name': 'embedding'}, RGB),
  'vit scan': (
    {'name': 'vit', 'variant': 'pico', 'scan': True},
    {'name': 'concat'},
    LOGIT,
    {'modalities': ('rgb', 'ir')},
  ),
  'cdcn attention': ({'name': 'cdcn', 'variant': 'cdcnpp'}, SINGLE, {'name': 'pixel_map'}, RGB),
  'own streams': (
    TOY, {'name': 'concat'}, LOGIT, {'share_streams': False, 'branch_logits': True}
  ),
}  # fmt: skip
FUSIONS = {  # name in parameter_paths.json: fusion, on TOY
  'cdcn_three_stream': {},
  'concat': {},
  'cross_attention': {},
  'cross_attention bias=True': {'bias': True},
  'multi_layer_aggregation': {},
  'multi_layer_aggregation variant=B': {'variant': 'B'},
  'multi_layer_aggregation variant=C': {'variant': 'C'},
  'squeeze_excite': {},
}
HEADS = {
  'binary_logit': {},
  'pixel_map': {},
  'embedding': {},
  'identity_cosine': {'identities': 10},
}


@pytest.mark.parametrize('format', LIBRARIES)
def test_an_earlier_bundle_gives_the_same_decisions(format):
  if importlib.util.find_spec(LIBRARIES[format]) is None:
    pytest.skip(f'requires {LIBRARIES[format]}')
  predictor = Predictor.load(BUNDLE, format=format)
  samples = json.loads((BUNDLE / 'samples' / 'samples.json').read_text())['samples']
  assert len(samples) == 2
  for sample in samples:
    for subset, expected in sample['expected'].items():
      images = {m: BUNDLE / sample['files'][m] for m in subset.split('+')}
      decision = predictor(**images)
      assert decision.subset == subset
      assert decision.score == pytest.approx(expected['score'], abs=1e-4)
      assert decision.accepted == expected['accept']


def test_earlier_score_files_give_the_same_results():
  val = score_files.read(GOLDEN / 'scores' / 'val.csv')
  intra = score_files.read(GOLDEN / 'scores' / 'intra.csv')
  card = json.loads((BUNDLE / 'card.json').read_text())
  assert intra.header['weights_hash'] == val.header['weights_hash'] == card['weights_hash']
  evaluated = results.compute(intra, 'dev_eer', val)
  assert evaluated.keys() == set(card['subsets'])
  for subset, metrics in evaluated.items():
    assert metrics['threshold'] == card['thresholds'][subset]['fitted']
    for name in ('acer', 'eer', 'auc'):
      assert metrics[name] == card['metrics']['intra'][subset][name]


def build_paths(backbone, fusion, head, **fields):
  model = flexmodal.build(backbone, fusion, head, **{'absent': 'token', 'image_size': 64, **fields})
  variables = jax.eval_shape(model.init, jax.random.key(0))
  return sorted(
    '/'.join(key.key for key in path) + ' ' + 'x'.join(map(str, array.shape))
    for path, array in jax.tree_util.tree_leaves_with_path(variables)
  )


@pytest.fixture(scope='module')
def earlier_paths():
  return json.loads((GOLDEN / 'parameter_paths.json').read_text())


@pytest.mark.parametrize('name', MODELS)
def test_parameter_paths_of_models(name, earlier_paths):
  *parts, fields = MODELS[name]
  assert build_paths(*parts, **fields) == earlier_paths[name]


@pytest.mark.parametrize('name', FUSIONS)
def test_parameter_paths_of_fusions(name, earlier_paths):
  fusion = {'name': name.split()[0], **FUSIONS[name]}
  paths = build_paths(TOY, fusion, {'name': 'embedding'})
  assert [p for p in paths if '/fusion/' in p or 'token' in p] == earlier_paths[name]


@pytest.mark.parametrize('name', HEADS)
def test_parameter_paths_of_heads(name, earlier_paths):
  paths = build_paths(TOY, SINGLE, {'name': name, **HEADS[name]}, **RGB)
  assert [p for p in paths if '/head' in p] == earlier_paths[name]


def test_every_earlier_path_is_compared(earlier_paths):
  assert earlier_paths.keys() == {*MODELS, *FUSIONS, *HEADS}
  tensors = np.array([len(paths) for paths in earlier_paths.values()])
  assert tensors.sum() > 1000
