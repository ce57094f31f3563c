"""Which samples a bundle shows."""

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
