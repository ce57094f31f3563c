"""Parameter counts of every backbone and fusion: golden numbers, and none may be missing.

A new file needs a row in `tests/golden/parameters.json`: the number that this test prints, once it
is checked by hand or against the original. The parameters of heads are in heads_test.py.
"""

import importlib
import json
import pathlib

import jax
import numpy as np
import pytest

from flexfas_jax import lookup
from flexfas_jax.models import flexmodal

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
EXPECTED = json.loads((GOLDEN / 'parameters.json').read_text())
FUSION_FORMS = {
  'cdcn_three_stream': [{}, {'faithful': True}],
  'cross_attention': [{}, {'form': 'symmetric'}],
  'multi_layer_aggregation': [{}, {'variant': 'B'}, {'variant': 'C'}],
}


def count(tree):
  return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))


def built(backbone, fusion, head, **fields):
  model = flexmodal.build(backbone, fusion, head, **{'absent': 'exclude', **fields})
  return jax.eval_shape(model.init, jax.random.key(0))['params']


def cases():
  for name in lookup.choices('backbone'):
    for variant in importlib.import_module(f'flexfas_jax.models.backbone.{name}').VARIANTS:
      yield f'{name} {variant}'
  for name in lookup.choices('fusion'):
    for form in FUSION_FORMS.get(name, [{}]):
      yield ' '.join([name, *(f'{k}={v}' for k, v in form.items())])


def test_the_table_is_complete_and_holds_nothing_else():
  assert sorted(cases()) == sorted(EXPECTED)


@pytest.mark.parametrize('case', sorted(EXPECTED))
def test_parameters(case):
  name, *rest = case.split()
  one = {'modalities': ('rgb',)}
  if name in lookup.choices('backbone'):
    backbone = {'name': name, 'variant': rest[0]}
    params = built(backbone, {'name': 'single'}, {'name': 'embedding'}, **one)
  else:  # a fusion, on maps of ResNet18's widths
    form = {k: v == 'True' if v == 'True' else v for k, v in (x.split('=') for x in rest)}
    fusion = {'name': name, **form}
    fields = one if name == 'single' else {}
    params = built({'name': 'resnet', 'variant': '18'}, fusion, {'name': 'embedding'}, **fields)
    params = params.get('fusion', {})
  assert count(params) == EXPECTED[case]


@pytest.mark.parametrize(
  'fixture,case,classifier',
  [
    ('resnet18', 'resnet 18', 'fc'),
    ('resnet34', 'resnet 34', 'fc'),
    ('resnet50', 'resnet 50', 'fc'),
    ('vit_tiny_patch16_224', 'vit Ti', 'head'),
    ('vit_small_patch16_224', 'vit S', 'head'),
    ('vit_base_patch16_224', 'vit B', 'head'),
  ],
)
def test_the_originals_have_as_many(fixture, case, classifier):
  tensors = json.loads((GOLDEN / 'fixtures' / f'{fixture}.json').read_text())['tensors']
  buffers = ('running_mean', 'running_var', 'num_batches_tracked')
  theirs = sum(
    int(np.prod(shape))
    for name, shape in tensors.items()
    if not name.endswith(buffers) and not name.startswith(classifier + '.')
  )
  assert EXPECTED[case] == theirs
