"""Rematerialisation, for every backbone: the same numbers under the same names, less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flexfas_jax import lookup
from tests.toy import SIZE, TOY, fill

DROPOUT = {'vit': {'dropout': 0.2}}  # which must drop the same twice


def pair(backbone):
  """Two stages of a backbone: as it is, and with `remat`; dropout in both, if it has any."""
  fields = {**TOY[backbone], **DROPOUT.get(backbone, {}), 'stages': 2}
  return [lookup.make('backbone', backbone, **fields, remat=remat) for remat in (False, True)]


def shapes(module, x):
  return jax.eval_shape(module.init, jax.random.key(0), x)


def run(module, variables, x):
  """(maps, what changed in the statistics), in training."""
  key = jax.random.key(1)
  return module.apply(variables, x, True, mutable=['batch_stats'], rngs={'dropout': key})


@pytest.mark.parametrize('backbone', lookup.choices('backbone'))
def test_outputs_gradients_and_statistics_are_the_same(backbone):
  plain, thrifty = pair(backbone)
  image = np.random.default_rng(0).standard_normal((2, SIZE[backbone], SIZE[backbone], 3))
  image = jnp.asarray(image, jnp.float32)
  assert shapes(plain, image) == shapes(thrifty, image)
  variables = fill(shapes(plain, image))

  def outcome(module):
    def objective(params, rest):
      maps, changed = run(module, {**rest, 'params': params}, image)
      return sum((x**2).mean() for x in maps), (maps, changed)

    (_, found), slopes = jax.jit(jax.value_and_grad(objective, has_aux=True))(
      variables['params'], variables
    )
    return found, slopes

  expected, found = outcome(plain), outcome(thrifty)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, expected)
  assert any(np.abs(g).max() > 1e-3 for g in jax.tree.leaves(expected[1]))
  statistics = expected[0][1].get('batch_stats', {})
  assert all(
    (new != old).any()
    for new, old in zip(
      jax.tree.leaves(statistics), jax.tree.leaves(variables.get('batch_stats', {})), strict=True
    )
  )


def kept(module, x):
  """Bytes that the forward pass of a backbone, or of a stage, keeps for the gradient."""
  # `vjp` gives a pytree: the arrays that it keeps.
  pullback = jax.eval_shape(
    lambda *args: jax.vjp(functools.partial(run, module), *args)[1], shapes(module, x), x
  )
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(pullback))


@pytest.mark.parametrize('backbone', lookup.choices('backbone'))
def test_less_is_kept_for_the_gradient(backbone):
  """Of a backbone, and of a stage alone, as `multi_layer_aggregation` has it."""
  plain, thrifty = pair(backbone)
  B = 64  # so many that parameters do not count
  image = jax.ShapeDtypeStruct((B, SIZE[backbone], SIZE[backbone], 3), jnp.float32)
  assert kept(thrifty, image) < 0.75 * kept(plain, image)
  x = jax.ShapeDtypeStruct((B, 8, 8, thrifty.widths[0]), jnp.float32)
  assert kept(thrifty.stage_modules[1], x) < 0.4 * kept(plain.stage_modules[1], x)
