"""Graphs of toys against their models: absent modalities, bfloat16, loops, what is noticed."""

import importlib

import jax
import numpy as np
import pytest

from flexfas_jax.errors import ExportError
from flexfas_jax.export import graph, parity, quantization, trained_model
from flexfas_jax.export.formats import stablehlo, weights
from tests.export.bundle_test import EXTRAS
from tests.toy import SIZE, TOY, fill, make

BOUNDS = 1e-5, 1e-2, 1e-1  # float32, float16, int8


def source_of(**fields):
  described = {
    'backbone': {'name': 'vit', **TOY['vit']},
    'fusion': {'name': 'concat'},
    'head': {'name': 'binary_logit'},
    'modalities': ('rgb', 'depth', 'ir'),
    'image_size': 16,
    **fields,
  }
  from flexfas_jax.models import flexmodal

  abstract = jax.eval_shape(flexmodal.build(**described).init, jax.random.key(0))
  return trained_model.create(described, fill(abstract))


@pytest.mark.parametrize('absent', ['exclude', 'blank'])
def test_how_it_is_stood_in_for_what_is_absent(tmp_path, absent):
  source = source_of(absent=absent, dtype='bfloat16')
  assert source.fields['dtype'] == 'float32'
  entries = stablehlo.write(graph.build(source.model, source.variables), source, tmp_path)
  (found,) = parity.measure(source, entries, tmp_path, {})
  assert found['difference'].keys() == {'fixed', 'random', 'masked'}
  assert max(found['difference'].values()) < 1e-5


@pytest.mark.parametrize('format', ['onnx', 'tflite'])
@pytest.mark.parametrize('backbone', TOY)
def test_every_backbone_becomes_a_file(tmp_path, monkeypatch, backbone, format):
  """Their converters know few of XLA's operations, and refuse the rest."""
  monkeypatch.setattr(quantization, '_MIN_SIZE', 2)  # the weights of a toy are few
  pytest.importorskip(EXTRAS[format], reason=f'needs the extra {format}')
  source = source_of(
    backbone={'name': backbone, **TOY[backbone]},
    modalities=('rgb', 'ir'),
    image_size=SIZE[backbone],
  )
  writer = importlib.import_module(f'flexfas_jax.export.formats.{format}')
  entries = writer.write(graph.build(source.model, source.variables), source, tmp_path)
  for measured, bound in zip(parity.measure(source, entries, tmp_path, {}), BOUNDS, strict=False):
    assert max(measured['difference'].values()) < bound


def test_what_is_absent_does_not_matter_and_is_asked_about():
  model, _ = make('vit', 'concat')
  inputs = parity.synthetic_inputs(model)
  assert len(inputs.kind) == 32
  masked = inputs.kind == 'masked'
  assert masked.sum() == len(model.subsets)
  for i, m in enumerate(model.modalities):
    far = np.abs(inputs.images[m]).max((1, 2, 3)) > 10
    np.testing.assert_array_equal(far, ~inputs.present[:, i])


def test_a_graph_of_some_sensors_is_not_asked_about_samples_without_them(tmp_path):
  source = source_of()
  own = graph.build(source.model, source.variables, ('rgb', 'depth'))
  entries = stablehlo.write(own, source, tmp_path)
  (found,) = parity.measure(source, entries, tmp_path, {})
  assert max(found['difference'].values()) < 1e-5


def test_a_loop_over_blocks_is_unrolled():
  source = source_of(backbone={'name': 'vit', **TOY['vit'], 'scan': True})
  assert source.fields['backbone']['scan'] is False
  streams = source.variables['params']['streams_shared']
  assert not any('blocks' in name for stage in streams.values() for name in stage)


def test_a_decision_that_changes_is_noticed():
  """Within the bound in the logit, and yet on another side of the threshold."""
  said = {('val', 'rgb'): [np.array([[0.00001, 2], [-0.00001, 2], [0, 1]])]}

  class Answers:
    entry = {'file': 'model.x', 'precision': 'float32'}

  one = Answers()
  one.outputs = said
  with pytest.raises(ExportError, match='1 of 2 decisions change'):
    parity._summarise(one, {'rgb': {'value': 0.5}})
  one.outputs = {('val', 'rgb'): [np.array([[0, 2], [-0.00001, 2], [0, 1]])]}  # at it is accepted
  with pytest.raises(ExportError, match='1 of 2 decisions change'):
    parity._summarise(one, {'rgb': {'value': 0.5}})
  one.outputs = said
  found = parity._summarise(one, {'rgb': {'value': 0.4}})
  assert found['val']['rgb']['changed_decisions'] == 0
  one.entry = {'file': 'model.x', 'precision': 'int8'}
  cost = parity._summarise(one, {'rgb': {'value': 0.5}})['val']['rgb']
  assert (cost['changed_decisions'], cost['acer'], cost['acer_reference']) == (1, 0.5, 0.0)
  assert cost['acer_loss'] == 0.5
  one.outputs = {('fixed', 'rgb'): [np.array([[np.nan], [1], [-1]])]}
  with pytest.raises(ExportError, match='NaN or infinity'):
    parity._summarise(one, {})


def test_timm_has_names_for_some_backbones():
  name = weights.timm_name
  assert name({'name': 'resnet', 'variant': '50'}) == 'timm/resnet50'
  assert name({'name': 'vit', 'variant': 'B'}) == 'timm/vit_base_patch16_224'
  assert name({'name': 'vit', 'variant': 'B', 'stem': 'patch'}) == 'timm/vit_base_patch16_224'
  for field in ({'patch_size': 8}, {'stem': 'resnet'}, {'layer_scale': 0.01}):
    assert name({'name': 'vit', 'variant': 'B', **field}) is None
  assert name({'name': 'resnet', 'variant': 'pico'}) is None
  assert name({'name': 'cdcn', 'variant': 'cdcn'}) is None
