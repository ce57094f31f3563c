"""The licence on the card: of the data, and of the weights that training started from."""

from ml_collections import ConfigDict

from flexfas_jax.export import card


def test_the_licence_names_what_the_weights_come_from():
  assert card.licence(True).startswith('Apache-2.0; trained on rendered faces')
  started = card.licence(True, 'pretrained weights of vit_b16 (vit.npz)')
  assert 'pretrained weights of vit_b16 (vit.npz), whose licence applies' in started
  assert 'rendered faces' in started and not started.startswith('Apache')
  licensed = card.licence(False, 'pretrained weights of dinov2 (hub:a/b)')
  assert 'whose licences restrict' in licensed and 'hub:a/b' in licensed


def test_pretrained_weights_are_named_without_a_path_of_this_machine():
  fields = {'weights': '/home/me/vit.npz', 'architecture': 'vit_b16'}
  assert card._pretrained_name(ConfigDict({'pretrained': fields})) == (
    'pretrained weights of vit_b16 (vit.npz)'
  )
  hub = {'weights': 'hub:owner/name', 'architecture': 'dinov2'}
  assert card._pretrained_name(ConfigDict({'pretrained': hub})).endswith('(hub:owner/name)')
  for none in ({}, {'pretrained': None}, {'pretrained': {'weights': ''}}):
    assert card._pretrained_name(ConfigDict(none)) == ''
