"""Bit depths by the headers of a set's images."""

import cv2
import numpy as np

from flexfas_jax.images import units
from flexfas_jax.protocols import bit_depths


def test_most_headers_settle_it_and_none_outside_the_root_is_read(tmp_path):
  root = tmp_path / 'root'
  root.mkdir()
  for name, dtype in (('a', np.uint16), ('b', np.uint16), ('c', np.uint8)):
    cv2.imwrite(str(root / f'{name}.png'), np.ones((4, 4), dtype))
  outside = tmp_path / 'outside.png'
  cv2.imwrite(str(outside), np.ones((4, 4), np.uint8))
  nothing = units.parse('', '')
  paths = ['a.png', 'b.png', 'c.png']
  bits, notes = bit_depths.required(root, {'depth': paths}, nothing)
  assert bits == {'depth': 16}
  assert notes == ['depth: 16 bits, as most headers have (2 with 16, 1 with 8)']
  away = [str(outside), '../outside.png', '../outside.png']
  assert bit_depths.required(root, {'depth': [*paths, *away]}, nothing) == (bits, notes)
  assert bit_depths.required(root, {'rgb': away, 'ir': away}, nothing) == ({'rgb': 8}, [])
