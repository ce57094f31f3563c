"""PLGF by its definition, pixel by pixel, and what it does not depend on."""

import math

import numpy as np
import pytest

from flexfas_jax.images.plgf import plgf

GREY = np.random.default_rng(0).integers(0, 256, (9, 7))


def by_definition(grey):
  """Loops over pixels and offsets."""
  H, W = grey.shape
  value = np.maximum(grey.astype(float), 2)
  angle = np.zeros((H, W))
  for y in range(H):
    for x in range(W):
      horizontal = vertical = 0.0
      for up in range(-2, 3):
        for right in range(-2, 3):
          if (up or right) and 0 <= y - up < H and 0 <= x + right < W:
            theta, square = math.atan2(up, right), up**2 + right**2
            horizontal += math.cos(theta) / square * value[y - up, x + right]
            vertical += math.sin(theta) / square * value[y - up, x + right]
      over = value[y, x] + 1e-4
      angle[y, x] = math.atan(math.sqrt((horizontal / over) ** 2 + (vertical / over) ** 2))
  return 1 + 254 * (angle - angle.min()) / (angle.max() - angle.min())


def test_values():
  found = plgf(GREY)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, by_definition(GREY), atol=1e-4)
  np.testing.assert_array_equal(plgf(GREY.astype(np.uint8)), found)


def test_illumination_cancels():
  """Twice the light is twice the force on twice the brightness."""
  grey = np.random.default_rng(1).uniform(10, 100, (16, 16))
  np.testing.assert_allclose(plgf(2 * grey), plgf(grey), atol=0.01)


@pytest.mark.parametrize('grey', [np.zeros((1, 1)), np.full((1, 1), 255)])
def test_without_contrast(grey):
  np.testing.assert_array_equal(plgf(grey), 1)
  inside = plgf(np.full((9, 9), 100))[2:-2, 2:-2]  # borders have neighbours on one side alone
  np.testing.assert_allclose(inside, 1, atol=1e-3)
