"""Hyperplanes that approach each other: by hand, and what stays."""

import jax
import jax.numpy as jnp
import numpy as np

from flexfas_jax.training import hyperplanes


def test_by_hand_in_the_plane():
  """Rows of 0, 30 and 90 degrees in both classes: 0 and 30 turn to 90, and 90 turns to 0."""
  angles = np.radians([0, 30, 90])
  unit = np.stack([np.cos(angles), np.sin(angles)], -1)  # [K, D]
  norms = np.array([[2.0, 1.0], [3.0, 0.5], [1.0, 4.0]])  # [K, C]
  kernel = norms[:, :, None] * unit[:, None]  # [K, C, D]
  found = np.asarray(jax.jit(hyperplanes.approach)(jnp.asarray(kernel, jnp.float32), 0.1))
  np.testing.assert_allclose(np.linalg.norm(found, axis=-1), norms, rtol=1e-6)
  for d, farthest in enumerate((2, 2, 0)):
    turned = 0.9 * unit[d] + 0.1 * unit[farthest]
    expected = turned / np.linalg.norm(turned)
    for c in range(2):
      np.testing.assert_allclose(found[d, c] / norms[d, c], expected, rtol=1e-5)


def test_the_farthest_domain_is_that_of_both_classes():
  """In class 0, domain 0 is nearer to 1; in both together, to 2."""
  kernel = np.zeros((3, 2, 4), np.float32)
  kernel[0, :, 0] = 1
  kernel[1, 0], kernel[1, 1] = [0.9, np.sqrt(1 - 0.81), 0, 0], [-1, 0, 0, 0]
  kernel[2, 0], kernel[2, 1] = [0.5, 0, np.sqrt(0.75), 0], [0.5, 0, np.sqrt(0.75), 0]
  found = np.asarray(hyperplanes.approach(jnp.asarray(kernel), 0.1))
  assert found[0, 0, 1] > 0 and found[0, 0, 2] == 0


def test_few_domains():
  kernel = jax.random.normal(jax.random.key(0), (2, 2, 5))
  found = hyperplanes.approach(kernel, 0.2)
  before, after = ((k[0] * k[1]).sum(-1) for k in (kernel, found))
  cosine = lambda k, product: product / jnp.linalg.norm(k, axis=-1).prod(0)  # noqa: E731
  assert (cosine(found, after) > cosine(kernel, before)).all()
  np.testing.assert_array_equal(hyperplanes.approach(kernel[:1]), kernel[:1])
  np.testing.assert_allclose(hyperplanes.approach(kernel, 0.0), kernel, rtol=1e-6)
  assert np.isfinite(hyperplanes.approach(0 * kernel)).all()


def test_the_parameter_of_the_head_alone_is_updated():
  kernel = jax.random.normal(jax.random.key(0), (3, 2, 5))
  params = {'head': {'kernel': kernel}, 'streams_shared': {'head': {'kernel': kernel}}}
  found = hyperplanes.update(params, 0.005)
  np.testing.assert_array_equal(found['head']['kernel'], hyperplanes.approach(kernel))
  np.testing.assert_array_equal(found['streams_shared']['head']['kernel'], kernel)
  frozen = {'streams_shared': params['streams_shared']}
  assert hyperplanes.update(frozen, 0.005) is frozen
