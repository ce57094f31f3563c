"""Pretrained weights in a ViT with adapters, and in one with values for each modality."""

import numpy as np
import pytest

from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.models.weights import transfer, variable_tree
from tests import toy
from tests.models.adapters.contracts_test import Hashable

PER_MODALITY = ('patch_embed', 'cls_token', 'pos_embed', 'projection')


def flat(variables):
  """The shared stream's arrays by name."""
  flattened = variable_tree.flatten(variables['params']['streams_shared'])
  return {'/'.join(path): value for path, value in flattened}


def test_adapters_keep_their_initial_values_and_the_rest_is_the_pretrained():
  adapters = Hashable(({'name': 'conv'}, {'name': 'lora'}, {'name': 'modality_token'}))
  _, variables = toy.make(fields=(('adapters', adapters),))
  _, pretrained = toy.make(fusion='single')
  source, before = flat(pretrained), flat(variables)
  after = flat(toy.initialised(variables, pretrained))
  for name, value in after.items():
    expected = source[name] if name in source and 'adapters_' not in name else before[name]
    np.testing.assert_array_equal(value, expected, err_msg=name)


def test_every_modality_starts_from_the_one_value():
  fields = (('per_modality', PER_MODALITY), ('output', 'class_token'), ('projection', 8))
  _, variables = toy.make(fields=fields)
  _, pretrained = toy.make(fusion='single', fields=fields[1:])
  source, after = flat(pretrained), flat(toy.initialised(variables, pretrained))
  names = ('patch_embed/kernel', 'patch_embed/bias', 'cls_token', 'pos_embed')
  for name in (*names, 'projection/kernel', 'projection/bias'):
    assert len(after[name]) == 3
    for value in after[name]:
      np.testing.assert_array_equal(value.ravel(), source[name].ravel(), err_msg=name)


def test_positions_of_another_grid_are_resized_for_each_modality():
  _, variables = toy.make(fields=(('per_modality', ('pos_embed',)), ('image_size', 32)))
  _, pretrained = toy.make(fusion='single')
  after = flat(toy.initialised(variables, pretrained))['pos_embed']
  assert after.shape == (3, 17, 32)
  np.testing.assert_array_equal(after[0], after[2])


def test_weights_of_another_width_are_refused():
  _, variables = toy.make(fields=(('per_modality', ('cls_token',)),))
  _, pretrained = toy.make(fusion='single', fields=(('variant', 'pico'),))
  with pytest.raises(StateError, match='another architecture'):
    toy.initialised(variables, pretrained)


@pytest.mark.parametrize(
  'architecture,backbone,message',
  [
    ('timm/vit_base_patch16_clip_quickgelu_224', {}, "activation = 'quick_gelu', not 'gelu'"),
    (
      'timm/vit_base_patch16_clip_224',
      {'epsilon': 1e-5},
      "statistics = 'clip', not None",
    ),
    ('timm/vit_small_patch14_dinov2', {}, "statistics = 'imagenet', not None"),
    ('timm/vit_small_patch16_dinov3', {'epsilon': 1e-5, 'statistics': 'imagenet'}, 'positions'),
    ('timm/vit_base_patch16_224', {'activation': 'quick_gelu'}, "activation = 'gelu'"),
  ],
)
def test_a_field_that_no_shape_shows_is_checked(architecture, backbone, message):
  source = transfer.PretrainedConfig('weights', architecture)
  with pytest.raises(ConfigError, match=message):
    transfer.check_backbone(source, {'name': 'vit', **backbone})
  origin = transfer.ARCHITECTURES[architecture].backbone
  transfer.check_backbone(source, origin)
  transfer.check_backbone(source._replace(architecture='ours'), {'name': 'vit', **backbone})
