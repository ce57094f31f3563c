"""Weights in fewer bits."""

import numpy as np

from flexfas_jax.export import quantization


def test_quantised_by_hand():
  value = np.array([[1.27, -0.5], [12.7, 127]], np.float32)
  whole, scale, axis = quantization.quantize_int8(value)
  # By rows the scales are 0.01 and 1, by columns 0.1 and 1: rows lose 0.3 of 12.7, columns
  # 0.03 of 1.27 and 0.5 of 0.5.
  assert axis == 0
  np.testing.assert_allclose(scale, [0.01, 1])
  np.testing.assert_array_equal(whole, [[127, -50], [13, 127]])
  turned, scale, axis = quantization.quantize_int8(value.T)
  assert axis == 1
  np.testing.assert_allclose(scale, [0.01, 1])
  np.testing.assert_array_equal(turned, whole.T)


def test_what_is_zero_stays_so():
  whole, scale, _ = quantization.quantize_int8(np.zeros((2, 3), np.float32))
  assert not whole.any() and np.isfinite(scale).all()


def test_an_error_is_at_most_half_a_step():
  value = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)
  whole, scale, axis = quantization.quantize_int8(value)
  scale = np.expand_dims(scale, [i for i in range(3) if i != axis])
  assert (np.abs(whole * scale - value) <= scale / 2 + 1e-7).all()
