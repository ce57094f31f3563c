"""Losses by hand, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from flexfas_jax.training import losses


def test_binary_cross_entropy_by_hand():
  outputs = {'logit': jnp.array([0.0, 0.0, jnp.log(3.0), 100.0, -100.0]), 'map': None}
  batch = {'label': jnp.array([1, 0, 1, 0, 1])}
  # log 2 twice; p = 3/4, -log p; and 100 without overflow for what is wrong and sure.
  expected = [np.log(2), np.log(2), np.log(4 / 3), 100.0, 100.0]
  np.testing.assert_allclose(losses.binary_cross_entropy(outputs, batch), expected, rtol=1e-6)


def test_binary_cross_entropy_is_the_two_column_softmax():
  columns = jax.random.normal(jax.random.key(0), (6, 2))  # attack, bona fide
  label = jnp.array([0, 1, 1, 0, 1, 0])
  expected = -jnp.take_along_axis(jax.nn.log_softmax(columns), label[:, None], 1)[:, 0]
  outputs = {'logit': columns[:, 1] - columns[:, 0]}
  np.testing.assert_allclose(
    losses.binary_cross_entropy(outputs, {'label': label}), expected, atol=1e-6
  )


def test_gradients():
  label = jnp.array([0, 1, 1])
  check_grads(
    lambda logit: losses.binary_cross_entropy({'logit': logit}, {'label': label}),
    (jnp.array([0.3, -0.2, 2.0]),),
    order=2,
    modes=['rev'],
    rtol=1e-2,
  )
