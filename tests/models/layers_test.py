"""The central difference against its definition, and the shared layers against NumPy."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flexfas_jax.models import layers
from tests.toy import fill


def conv(x, kernel, stride, padding):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(padding, padding)] * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


@pytest.mark.parametrize('theta', [0.0, 0.7, 1.0])
@pytest.mark.parametrize('stride', [1, 2, 3])
@pytest.mark.parametrize('k', [1, 3, 5])
def test_folded_convolution_is_its_definition(theta, stride, k):
  """conv(x, w) - theta conv1x1(x, sum w), in value and in both gradients."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((2, 7, 8, 3)), jnp.float32)
  kernel = jnp.asarray(rng.standard_normal((k, k, 3, 4)), jnp.float32)
  module = layers.Conv(4, k, stride, theta=theta)

  def folded(x, kernel):
    return module.apply({'params': {'kernel': kernel}}, x)

  def defined(x, kernel):
    of_sums = conv(x, kernel.sum((0, 1), keepdims=True), stride, 0)
    return conv(x, kernel, stride, k // 2) - theta * of_sums

  @jax.jit
  def both(x, kernel, direction):
    found = []
    for f in (folded, defined):
      value, back = jax.vjp(f, x, kernel)
      found.append((value, back(direction)))
    return found

  shape = jax.eval_shape(defined, x, kernel).shape
  found, expected = both(x, kernel, jnp.asarray(rng.standard_normal(shape), jnp.float32))
  for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_central_difference_by_hand():
  """One 3x3 patch of 1 ... 9 under a kernel of ones: 45 - theta 9 times the centre."""
  x = jnp.arange(1.0, 10).reshape(1, 3, 3, 1)
  kernel = jnp.ones((3, 3, 1, 1))
  for theta, expected in ((0.0, 45.0), (0.7, 45 - 0.7 * 9 * 5), (1.0, 0.0)):
    found = layers.Conv(1, theta=theta).apply({'params': {'kernel': kernel}}, x)
    np.testing.assert_allclose(found[0, 1, 1, 0], expected, atol=1e-5)


@pytest.mark.parametrize('fields', [{'kernel_size': 2}, {'kernel_size': 3, 'padding': 0}])
def test_a_central_difference_without_a_centre_is_refused(fields):
  with pytest.raises(ValueError, match='odd kernel_size and its half as padding'):
    jax.eval_shape(
      layers.Conv(1, theta=0.5, **fields).init, jax.random.key(0), jnp.zeros((1, 4, 4, 1))
    )


@pytest.mark.parametrize('size', [(7, 8), (6, 5)])
@pytest.mark.parametrize('window,stride,padding', [(3, 2, 1), (2, 2, 0), (3, 1, 1)])
def test_maxima_over_slices_are_flax_own(size, window, stride, padding):
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, *size, 3)), jnp.float32)
  pads = ((padding, padding),) * 2
  expected = nn.max_pool(x, window_shape=(window,) * 2, strides=(stride,) * 2, padding=pads)
  pool = functools.partial(layers.max_pool, window=window, stride=stride, padding=padding)
  np.testing.assert_array_equal(jax.jit(pool)(x), expected)
  # No two values are equal: the gradient goes to the maximum alone.
  slope = jax.jit(jax.grad(lambda x: pool(x).sum()))(x)
  own = jax.grad(
    lambda x: nn.max_pool(x, window_shape=(window,) * 2, strides=(stride,) * 2, padding=pads).sum()
  )
  np.testing.assert_array_equal(slope, jax.jit(own)(x))


def test_prelu():
  x = jnp.array([[-2.0, -2.0], [0.0, 3.0]]).reshape(1, 2, 1, 2)
  found = layers.PReLU().apply({'params': {'slope': jnp.array([0.25, 2.0])}}, x)
  np.testing.assert_array_equal(found.reshape(2, 2), [[-0.5, -4.0], [0.0, 3.0]])


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def test_channel_attention_is_its_equation():
  x = np.random.default_rng(0).standard_normal((2, 3, 3, 8)).astype(np.float32)
  module = layers.ChannelAttention(ratio=4)
  variables = fill(jax.eval_shape(module.init, jax.random.key(0), x))
  p = jax.device_get(variables['params'])
  hidden = sum(
    np.maximum(pooled @ p['reduce']['kernel'] + p['reduce']['bias'], 0)
    for pooled in (x.max((1, 2)), x.mean((1, 2)))
  )
  weight = sigmoid(hidden @ p['expand']['kernel'] + p['expand']['bias'])
  expected = x * weight[:, None, None]
  np.testing.assert_allclose(jax.jit(module.apply)(variables, x), expected, atol=1e-5)


def test_multi_level_resizes_without_antialiasing():
  """A level of twice the side: every cell is the mean of the four under it, no more."""
  rng = np.random.default_rng(0)
  fine = rng.standard_normal((1, 8, 8, 1)).astype(np.float32)
  deep = np.zeros((1, 4, 4, 1), np.float32)
  module = layers.MultiLevel(1)
  variables = fill(jax.eval_shape(module.init, jax.random.key(0), [fine, deep]))
  kernel = np.zeros((3, 3, 2, 1), np.float32)
  kernel[1, 1, 0] = 1  # the first level, as it is
  variables['params']['mix']['conv']['kernel'] = kernel
  bn = {'scale': jnp.full(1, (1 + 1e-5) ** 0.5), 'bias': jnp.full(1, 100.0)}
  variables['params']['mix']['norm']['bn'] = bn
  variables['batch_stats']['mix']['norm']['bn'] = {'mean': jnp.zeros(1), 'var': jnp.ones(1)}
  found = np.asarray(jax.jit(module.apply)(variables, [fine, deep])) - 100
  expected = fine.reshape(1, 4, 2, 4, 2, 1).mean((2, 4))
  np.testing.assert_allclose(found, expected, atol=2e-5)
