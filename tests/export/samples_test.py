"""Which samples a bundle shows."""

import types

import cv2
import numpy as np

from flexfas_jax.export import samples
from flexfas_jax.images.preprocess import Preprocess

RAMP = np.arange(32, dtype=np.uint8)[:, None, None] * 7


class Examples(list):
  """A source in memory."""

  @property
  def columns(self):
    labels = ['bona_fide' if one['label'] else 'attack' for one in self]
    return {'label': labels, 'attack_category': [one['attack_category'] for one in self]}


def example(id_, category, covered=(), without=()):
  images = {'rgb': np.broadcast_to(RAMP, (32, 32, 3)), 'ir': np.broadcast_to(RAMP, (32, 32, 1))}
  images = {m: np.zeros_like(x) if m in covered else x + 1 for m, x in images.items()}
  encoded = {m: b'' if m in without else cv2.imencode('.png', x)[1].tobytes()
             for m, x in images.items()}  # fmt: skip
  return {'id': id_, 'label': int(not category), 'attack_category': category, **encoded}


def test_every_image_of_a_chosen_sample_carries_signal():
  val = Examples(
    [
      example('a', 'replay', covered=['ir']),
      example('b', '', covered=['rgb', 'ir']),
      example('c', ''),
      example('d', 'replay', without=['ir']),
      example('e', 'replay'),
      example('f', 'print', covered=['rgb']),
    ]
  )
  found = samples.choose_examples(val, Preprocess(8, ('rgb', 'ir')))
  assert [one['id'] for one in found] == ['c', 'd']


def test_a_sensor_that_the_data_never_has_is_in_no_pattern():
  """A subset with it has no threshold: prediction of the pattern would end with exit code 4."""
  model = types.SimpleNamespace(modalities=('rgb', 'depth', 'ir'), image_size=16)
  trained = types.SimpleNamespace(model=model)
  pattern = samples._synthetic_example(trained, {'rgb': [8], 'depth': [16], 'ir': []}, 0)
  assert set(pattern) == {'id', 'label', 'rgb', 'depth'}
