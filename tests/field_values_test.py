"""Values of config fields that do not fit: every one is refused by name, with the way out."""

import copy
import inspect

import pytest

from configs import adapter_fusion
from flexfas_jax import lookup
from flexfas_jax.errors import ConfigError
from flexfas_jax.models import flexmodal
from flexfas_jax.training import objective

MODEL = adapter_fusion.get_config('mmdg').model.to_dict()
LOSS = {'binary_cross_entropy': {}, 'single_side_prototypes': {'domains': 2, 'period': 3}}
ELSEWHERE = {'parent', 'dtype', 'name', 'modalities', 'later', 'image_size', 'outputs', 'batch'}
ELSEWHERE |= {'adapters'}
WRONG = {int: '2', float: '1e-5', bool: 'yes', str: 3, tuple: 'x'}


def build(path, value):
  fields = group = copy.deepcopy(MODEL)
  *groups, last = path.split('.')
  for name in groups:
    group = group[name]
  group[last] = value
  return flexmodal.build(**fields)


@pytest.mark.parametrize('path,value,message', [
  ('backbone.depth', '2', "depth is '2'; give a whole number from 1 on, or None"),
  ('backbone.depth', 0, 'depth is 0; give a whole number from 1 on'),
  ('backbone.registers', -1, 'registers is -1; give a whole number from 0 on'),
  ('backbone.layer_scale', float('nan'), 'layer_scale is nan'),
  ('backbone.dropout', 1.0, 'dropout is 1.0; give a number from 0 to below 1'),
  ('backbone.per_modality', None, 'per_modality is None; give a tuple'),
  ('backbone.adapters', ({'name': 'lora', 'rank': 0},), 'adapters: lora.rank is 0; give a whole'),
  ('backbone', (), r'config.model.backbone is .*; give a group'),
  ('fusion', 'concat', "config.model.fusion is 'concat'; give a group: .*squeeze_excite"),
  ('head', None, 'config.model.head is None; give a group'),
  ('head', {'name': 'modality_prototypes', 'domains': 2, 'modalities': 2}, 'modalities has 3'),
  ('modalities', (), r'modalities is \(\); give some of: rgb, depth, ir'),
  ('modalities', ('rgb', 'rgb'), 'has a name twice: rgb, rgb'),
  ('modalities', ('rgb', 'sonar'), "has 'sonar'; choose from: rgb, depth, ir"),
  ('image_size', 8, r'image_size is 8, less than a patch of vit \(16\)'),
  ('image_size', '64', "image_size is '64'; give a number of pixels"),
  ('share_streams', 'yes', "share_streams is 'yes'; give True or False"),
  ('blank_value', 'x', "blank_value is 'x'; give a number"),
])  # fmt: skip
def test_of_the_model(path, value, message):
  with pytest.raises(ConfigError, match=message):
    build(path, value)


@pytest.mark.parametrize('loss,message', [
  ({'mean_angle': {'domains': 0}}, 'mean_angle.domains is 0; give a whole number from 1 on'),
  ({'binary_cross_entropy': {'weight': -1}}, 'weight is -1; give a number from 0 on'),
  ({'binary_cross_entropy': {'weight': float('nan')}}, 'weight is nan'),
  ({'sphere_face': {'margin': True}}, 'margin is True; give a whole number from 0 on'),
])  # fmt: skip
def test_of_a_loss(loss, message):
  with pytest.raises(ConfigError, match=message):
    lookup.make_loss(loss)


def test_of_gradient_modulation():
  with pytest.raises(ConfigError, match="reaches is 'cls_token'; give a tuple"):
    objective.build(LOSS, {'name': 'regrad', 'reaches': 'cls_token'}, flexmodal.build(**MODEL))


def choices():
  for kind in ('backbone', 'fusion', 'head', 'adapter', 'loss'):
    for name in lookup.choices(kind):
      for parameter in inspect.signature(lookup.find(kind, name)).parameters.values():
        if parameter.name not in ELSEWHERE:
          yield kind, name, parameter


@pytest.mark.parametrize(
  'kind,name,parameter', list(choices()), ids=lambda x: getattr(x, 'name', None) or str(x)
)
def test_every_field_of_every_choice_has_a_type_that_is_checked(kind, name, parameter):
  """A new file is tested by itself."""
  annotation = parameter.annotation
  (first, *_) = getattr(annotation, '__args__', None) or (annotation,)
  kind_of_value = tuple if str(annotation).startswith('tuple') or annotation is tuple else first
  with pytest.raises(ConfigError, match=rf'{parameter.name} is .*; give '):
    fields = {parameter.name: WRONG[kind_of_value]}
    where = inspect.signature(lookup.find(kind, name)).parameters
    lookup.check_values(f'{kind} {name}', where, fields)
