"""Every adapter in every format: any subset of the modalities, and a fixed one."""

import importlib

import numpy as np
import pytest

from flexfas_jax import lookup
from flexfas_jax.export import graph, parity, reference
from tests.export.bundle_test import EXTRAS
from tests.export.parity_test import source_of
from tests.toy import TOY

FIELDS = {'ama': {'parts': 'dynamic'}, 'prompts': {'length': 2, 'contextual': True}}
JOINT = ('ama',)


def adapted(name, **fields):
  backbone = {'name': 'vit', **TOY['vit'], 'adapters': ({'name': name, **FIELDS.get(name, {})},)}
  backbone['sequence'] = 'joint' if name in JOINT else 'separate'
  return source_of(backbone=backbone, **fields)


@pytest.mark.parametrize('format', ['stablehlo', 'onnx', 'tflite'])
@pytest.mark.parametrize('name', lookup.choices('adapter'))
def test_every_adapter_becomes_a_file(tmp_path, name, format):
  if format in EXTRAS:
    pytest.importorskip(EXTRAS[format], reason=f'needs the extra {format}')
  source = adapted(name)
  writer = importlib.import_module(f'flexfas_jax.export.formats.{format}')
  for subset in (None, ('rgb', 'ir')):
    entries = writer.write(graph.build(source.model, source.variables, subset), source, tmp_path)
    measured = parity.measure(source, entries[:1], tmp_path, {})
    assert max(measured[0]['difference'].values()) < 1e-5


def test_lora_is_merged_for_export():
  source = adapted('lora')
  assert source.fields['backbone']['adapters'] == ()
  names = '/'.join(str(path) for path in source.variables['params']['streams_shared']['stage_1'])
  assert 'lora' not in names


def test_the_reference_encodes_for_each_subset_where_it_must():
  source = adapted('uncertain_cross')
  rng = np.random.default_rng(0)
  images = {
    m: rng.standard_normal((2, 16, 16, 3)).astype(np.float32) for m in source.model.modalities
  }
  present = np.ones((2, 3), bool)
  compute = reference.build(source.model, source.variables)
  rgb, both = compute(images, present, [('rgb',), ('rgb', 'ir')])
  assert np.abs(rgb - both).max() > 1e-4
  (alone,) = compute(images, present & [True, False, False], [('rgb', 'depth', 'ir')])
  np.testing.assert_allclose(rgb, alone, atol=1e-6)
