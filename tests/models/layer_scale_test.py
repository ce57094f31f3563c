"""The scale of a ViT's residual branches: by its initial value, by hand, and without one."""

import jax
import numpy as np

from flexfas_jax.models.backbone.vit import ViT
from flexfas_jax.models.transformer import Block
from tests.toy import fill

TOKENS = np.random.default_rng(0).standard_normal((2, 5, 16)).astype(np.float32)


def params_of(**fields):
  block = Block(2, **fields)
  return block, fill(jax.eval_shape(block.init, jax.random.key(0), TOKENS))['params']


def test_each_branch_is_scaled_by_channel():
  plain, params = params_of()
  scaled, _ = params_of(layer_scale=0.01)
  one, half = np.ones(16, np.float32), np.linspace(0, 1, 16, dtype=np.float32)

  def run(ls1, ls2):
    return np.asarray(scaled.apply({'params': {**params, 'ls1': ls1, 'ls2': ls2}}, TOKENS))

  expected = np.asarray(plain.apply({'params': params}, TOKENS))
  np.testing.assert_array_equal(run(one, one), expected)
  np.testing.assert_array_equal(run(0 * one, 0 * one), TOKENS)
  attention = run(one, 0 * one) - TOKENS
  np.testing.assert_allclose(run(half, 0 * one) - TOKENS, half * attention, atol=1e-6)
  mlp = expected - run(one, 0 * one)
  np.testing.assert_allclose(run(one, half) - run(one, 0 * one), half * mlp, atol=1e-6)


def test_it_starts_at_the_given_value_and_is_absent_by_default():
  image = np.zeros((1, 16, 16, 3), np.float32)
  module = ViT('mu', patch_size=8, image_size=16, layer_scale=0.25)
  params = module.init(jax.random.key(0), image)['params']
  scales = [params[s][b][n] for s, b in (('stage_1', 'block_0'), ('stage_2', 'block_1'))
            for n in ('ls1', 'ls2')]  # fmt: skip
  assert all((np.asarray(scale) == 0.25).all() and scale.shape == (32,) for scale in scales)
  plain = jax.eval_shape(module.clone(layer_scale=0.0).init, jax.random.key(0), image)['params']
  assert 'ls1' not in plain['stage_1']['block_0']
