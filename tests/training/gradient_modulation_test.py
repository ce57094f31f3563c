"""ReGrad by its definition in float64, by owner, in stacked blocks; and the fault of the source."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.parity import recipe
from flexfas_jax import lookup
from flexfas_jax.training.gradient_modulation import _owner, regrad
from flexfas_jax.training.trainable import flatten, unflatten

MODALITIES = ('rgb', 'depth', 'ir')
M, D = 3, 5
BLOCK = 'streams_shared/stage_1/block_1'
SHAPES = {  # name: shape; what belongs to whom
  'streams_shared/cls_token': ((M, 1, D), 'axis'),
  'streams_shared/pos_embed': ((M, 4, D), 'axis'),
  'streams_shared/patch_embed/kernel': ((M, 12, D), 'axis'),
  'streams_shared/patch_embed/bias': ((M, D), 'axis'),
  'streams_shared/adapters_modality_token/token': ((M, D), 'axis'),
  f'{BLOCK}/adapters_conv_mlp/conv/kernel': ((M, 3, 3, 2, 2), 'axis'),
  f'{BLOCK}/adapters_uncertain_cross_mlp/rgb_reads_ir/down/kernel': ((D, 2), 0),
  f'{BLOCK}/adapters_uncertain_cross_mlp/ir_reads_rgb/norm/scale': ((2,), 2),
  f'{BLOCK}/adapters_uncertain_cross_plus_mlp/depth/up/kernel': ((2, D), 1),
  f'{BLOCK}/norm1/scale': ((D,), None),
  f'{BLOCK}/fc1/kernel': ((M, D), None),  # an input of width M
  f'{BLOCK}/adapters_conv_attention/conv/kernel': ((3, 3, 2, 2), None),
  'streams_shared/reg_token': ((1, 4, D), None),
  'streams_ir/stage_1/norm/scale': ((D,), 2),
  'token_depth_0': ((D,), 1),
  'branches_rgb/kernel': ((D, 1), 0),
  'fusion/down/kernel': ((M * D, 4), None),
  'head/kernel': ((M, 2, D), None),  # a hyperplane for each of three domains
  'head/logit/bias': ((1,), None),
}


@pytest.mark.parametrize('name', SHAPES)
def test_owners(name):
  shape, owner = SHAPES[name]
  assert _owner(name, shape, MODALITIES) == owner


def test_shared_tokens_belong_to_nobody():
  assert _owner('streams_shared/cls_token', (1, 1, D), MODALITIES) is None
  assert _owner('streams_shared/cls_token', (1, 1, D), ('rgb',)) is None


def draw(shapes, seed):
  rng = np.random.default_rng(seed)
  return {name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}


def keep(b, d):
  projection = (b @ d) / (b @ b) * b
  return projection if b @ d > 0 else d - projection


def rebalance(g, k, fastest, v):
  """r of one tensor, its gradients [M, ...], in float64."""
  shape, g = g[0].shape, g.reshape(M, -1).astype(float)
  others = [j for j in range(M) if j != k]
  if k == fastest:
    s = sum(g[j] for j in others)
    return (v[k] * keep(s, g[k]) + s).reshape(shape)
  return (g[k] + sum(v[j] * keep(g[k], g[j]) for j in others)).reshape(shape)


VALUES, CERTAINTY = np.float32([0.7, 0.2, 0.4]), np.float32([0.9, 0.3, 0.6])


def modulate(total, own, values=VALUES, **fields):
  trees = [jax.tree.map(jnp.asarray, unflatten(named)) for named in (total, *own)]
  run = jax.jit(lambda t, g, values, v: regrad(t, g, values, v, MODALITIES, **fields))
  return flatten(run(trees[0], trees[1:], values, CERTAINTY))


@pytest.mark.parametrize('fastest', range(M))
def test_values(fastest):
  shapes = {name: shape for name, (shape, _) in SHAPES.items()}
  total, *own = (draw(shapes, seed) for seed in range(1 + M))
  found = modulate(total, own, np.roll(VALUES, fastest - 1))
  assert found.keys() == total.keys()
  for name, (_, owner) in SHAPES.items():
    g = np.stack([o[name] for o in own])
    if owner is None:
      r = g.sum(0)
    elif owner == 'axis':
      r = np.stack([rebalance(g[:, k], k, fastest, CERTAINTY) for k in range(M)])
    else:
      r = rebalance(g, owner, fastest, CERTAINTY)
    np.testing.assert_allclose(found[name], total[name] + r, rtol=2e-4, atol=2e-5, err_msg=name)


def test_stacked_blocks_are_those_one_by_one():
  names = [n.removeprefix(f'{BLOCK}/') for n in SHAPES if n.startswith(BLOCK)]
  alone = {
    f'streams_shared/stage_1/block_{i}/{n}': SHAPES[f'{BLOCK}/{n}'][0]
    for n in names
    for i in (0, 1)
  }
  total, *own = (draw(alone, seed) for seed in range(1 + M))

  def stack(named):
    return {
      f'streams_shared/stage_1/blocks_0/{n}': np.stack(
        [named[f'streams_shared/stage_1/block_{i}/{n}'] for i in (0, 1)]
      )
      for n in names
    }

  expected = stack(modulate(total, own))
  found = modulate(stack(total), [stack(o) for o in own])
  for name in expected:
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_modality_without_a_loss():
  """It has no gradient, is never the fastest, and takes nothing from the others."""
  shapes = {n: SHAPES[n][0] for n in ('streams_shared/cls_token', 'token_depth_0')}
  total, *own = (draw(shapes, seed) for seed in range(1 + M))
  for name in shapes:
    own[1][name] *= 0
    if name == 'token_depth_0':
      own[0][name], own[2][name] = own[1][name], own[1][name]
  found = modulate(total, own, np.float32([0.7, np.inf, 0.4]))
  assert all(np.isfinite(x).all() for x in found.values())
  np.testing.assert_array_equal(found['token_depth_0'], total['token_depth_0'])
  name = 'streams_shared/cls_token'
  g = np.stack([o[name][0] for o in own])
  expected = total[name][0] + g[0] + CERTAINTY[2] * keep(*g[[0, 2]].reshape(2, -1)).reshape(1, D)
  np.testing.assert_allclose(found[name][0], expected, rtol=1e-4)


def test_an_orthogonal_gradient_is_kept_whole():
  """It agrees with nothing and conflicts with nothing; also where the own gradient is 0."""
  shapes = {'token_rgb_0': (3,)}
  name = 'token_rgb_0'
  total, *own = (draw(shapes, seed) for seed in range(1 + M))
  for b in ([2.0, 0.0, 0.0], [0.0, 0.0, 0.0]):
    own[0][name] = np.float32(b)
    own[1][name] = np.float32([0.0, 1.0, -3.0])
    own[2][name] = np.zeros(3, np.float32)
    found = modulate(total, own)  # the second is the fastest
    expected = total[name] + own[0][name] + CERTAINTY[1] * own[1][name]
    np.testing.assert_allclose(found[name], expected, rtol=1e-6)


def test_the_released_code_stops_at_the_first_frozen_tensor():
  """Behind it the source leaves t, which is recorded; ours reaches every tensor."""
  fixture = pathlib.Path(__file__).parents[1] / 'golden' / 'fixtures' / 'mmdg_regrad.json'
  assert json.loads(fixture.read_text())['architecture'] == 'mmdg_regrad'
  expected, (_, total, *_) = recipe.expected(fixture), recipe.inputs(fixture)
  stuck = expected['published_frozen_tensor_before_2']
  np.testing.assert_allclose(stuck[:, 1:], total[:, 1:], atol=1e-6)
  assert np.abs(expected['corrected'][:, 1:] - total[:, 1:]).max() > 1


def test_names():
  assert lookup.choices('gradient_modulation') == ['regrad']


def test_only_the_parameters_that_it_reaches_change():
  """As the released code, for a network whose frozen tensor follows the tokens and positions."""
  shapes = {
    'streams_shared/cls_token': (3, 1, 4), 'streams_shared/block_0/mlp_adapter/rgb_reads_ir': (4,)
  }  # fmt: skip
  total, *own = (draw(shapes, seed) for seed in range(1 + M))
  corrected = modulate(total, own)
  found = modulate(total, own, reaches=('cls_token', 'pos_embed'))
  token, adapter = shapes
  np.testing.assert_array_equal(found[token], corrected[token])
  np.testing.assert_array_equal(found[adapter], total[adapter])
  assert np.abs(corrected[adapter] - total[adapter]).max() > 0.1
