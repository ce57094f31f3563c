"""Heads by hand-made features: what they give, what never ties, what has a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flexfas_jax import lookup
from flexfas_jax.errors import ConfigError
from flexfas_jax.models import heads

B, SIDE, D, N = 3, 4, 6, 5
FUSED = jax.random.normal(jax.random.key(0), (B, SIDE, SIDE, D))
CASES = {  # head: (fields it needs, what it gives beyond logit and map, parameters)
  'binary_logit': ({}, {'logit': (B,)}, {'logit': {'kernel': (D, 1), 'bias': (1,)}}),
  'pixel_map': (
    {},
    {'logit': (B,), 'map': (B, SIDE, SIDE), 'map_logit': None},
    {'map': {'kernel': (3, 3, D, 1)}},
  ),
  'embedding': ({}, {'embedding': (B, D)}, {}),
  'identity_cosine': (
    {'identities': N},
    {'embedding': (B, D), 'cosine': (B, N), 'norm': (B,)},
    {'kernel': (D, N)},
  ),
  'modality_prototypes': (
    {'domains': 2},
    {'logit': (B,), 'modality_cosine': (B, 3, 3)},
    {'logit': {'kernel': (D, 1), 'bias': (1,)}, 'prototypes': (3, 3, D // 3)},
  ),
  'domain_hyperplanes': (
    {'domains': 4},
    {'logit': (B,), 'domain_logit': (B, 4)},
    {'kernel': (4, 2, D)},
  ),
}


def make(name, **fields):
  """(head, parameters) drawn in NumPy."""
  head = lookup.make('head', name, **{**CASES[name][0], **fields})
  rng = np.random.default_rng(0)
  abstract = jax.eval_shape(head.init, jax.random.key(0), FUSED)
  return head, jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.5, x.shape), x.dtype), abstract)


def run(head, variables, fused):
  return jax.jit(head.apply)(variables, fused)


def test_every_head_has_its_case():
  assert sorted(CASES) == lookup.choices('head')


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', CASES)
def test_heads_give_what_they_promise_in_float32(name, dtype):
  head, variables = make(name, dtype=jnp.dtype(dtype))
  out = run(head, variables, FUSED.astype(dtype))
  _, gives, parameters = CASES[name]
  expected = {'logit': None, 'map': None} | gives
  assert {k: None if v is None else v.shape for k, v in out.items()} == expected
  assert {v.dtype for v in out.values() if v is not None} == {jnp.dtype('float32')}
  shapes = jax.tree.map(lambda x: x.shape, variables.get('params', {}))
  assert shapes == parameters
  # Nothing is rounded but what came in.
  again = run(head, variables, FUSED.astype(dtype).astype(jnp.float32))
  jax.tree.map(np.testing.assert_array_equal, out, again)


def test_binary_logit_by_hand():
  head, variables = make('binary_logit')
  weights = jax.tree.map(np.asarray, variables['params']['logit'])
  expected = np.asarray(FUSED).mean((1, 2)) @ weights['kernel'][:, 0] + weights['bias']
  np.testing.assert_allclose(run(head, variables, FUSED)['logit'], expected, rtol=1e-5)


def test_binary_logit_drops_features_in_training_alone():
  head, variables = make('binary_logit', dropout=0.5)
  apply = jax.jit(head.apply, static_argnames='train')
  plain = apply(variables, FUSED)['logit']
  dropped = [
    apply(variables, FUSED, train=True, rngs={'dropout': jax.random.key(s)})['logit']
    for s in (0, 1)
  ]
  np.testing.assert_allclose(plain, run(*make('binary_logit'), FUSED)['logit'])
  assert (dropped[0] != dropped[1]).all()


def convolve(fused, kernel):
  """3 x 3, padded by 1, one product at a time in float64: [B, h, w]."""
  padded = np.pad(np.asarray(fused, float), ((0, 0), (1, 1), (1, 1), (0, 0)))
  found = np.zeros(fused.shape[:3])
  for i in range(SIDE):
    for j in range(SIDE):
      found[:, i, j] = (padded[:, i : i + 3, j : j + 3] * kernel[..., 0]).sum((1, 2, 3))
  return found


def test_a_linear_map_is_one_convolution():
  head, variables = make('pixel_map', theta=0.0, activation='linear')
  kernel = np.asarray(variables['params']['map']['kernel'], float)
  out = run(head, variables, FUSED)
  expected = convolve(FUSED, kernel)
  np.testing.assert_allclose(out['map_logit'], expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(out['map'], out['map_logit'])
  np.testing.assert_allclose(out['logit'], expected.mean((1, 2)), atol=1e-5)
  library = jax.lax.conv(FUSED.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1), (1, 1), 'SAME')
  np.testing.assert_allclose(out['map'], library[:, 0], atol=1e-5)


def test_a_live_map_is_cdcns_last_layer():
  """conv(x, w) - 0.7 conv1x1(x, sum of w), ReLU; ZitongYu/CDCN: models/CDCNs.py, Conv2d_cd."""
  head, variables = make('pixel_map')
  kernel = np.asarray(variables['params']['map']['kernel'], float)
  difference = np.asarray(FUSED, float) @ kernel.sum((0, 1))[:, 0]
  expected = np.maximum(convolve(FUSED, kernel) - 0.7 * difference, 0)
  out = run(head, variables, FUSED)
  np.testing.assert_allclose(out['map'], expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(out['logit'], 4 * expected.mean((1, 2)) - 2, atol=1e-5)


def test_a_live_maps_logit_rises_with_its_mean_and_never_ties():
  """Also where CDCN's score is clipped: means of 0 to 3, of maps of any pattern."""
  head, variables = make('pixel_map', theta=0.0)
  one = jnp.zeros((3, 3, D, 1)).at[1, 1, 0, 0].set(1.0)  # the map is the first channel
  pattern = np.random.default_rng(0).uniform(0, 1, (301, SIDE, SIDE))
  means = np.linspace(0, 3, 301)
  maps = pattern * (means / pattern.mean((1, 2)))[:, None, None]
  fused = jnp.zeros((301, SIDE, SIDE, D)).at[..., 0].set(maps)
  logit = np.asarray(run(head, {'params': {'map': {'kernel': one}}}, fused)['logit'], float)
  assert (np.diff(logit) > 0).all()
  at = np.searchsorted(means, [0.25, 0.5, 0.75])
  np.testing.assert_allclose(1 / (1 + np.exp(-logit[at])), [0.27, 0.5, 0.73], atol=0.005)


def test_an_unknown_activation_is_refused():
  with pytest.raises(ConfigError, match="no activation 'sigmoid'; choose 'relu' or 'linear'"):
    heads.PixelMap(activation='sigmoid')


def test_the_embedding_is_the_pooled_map():
  out = run(*make('embedding'), FUSED)
  np.testing.assert_allclose(out['embedding'], np.asarray(FUSED).mean((1, 2)), atol=1e-6)


def test_cosines_by_hand():
  head, variables = make('identity_cosine')
  kernel = np.asarray(variables['params']['kernel'], float)
  embedding = np.asarray(FUSED, float).mean((1, 2))
  norm = np.sqrt((embedding**2).sum(1))
  out = run(head, variables, FUSED)
  expected = embedding @ kernel / norm[:, None] / np.sqrt((kernel**2).sum(0))
  np.testing.assert_allclose(out['cosine'], expected, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(out['norm'], norm, rtol=1e-5)
  np.testing.assert_allclose(out['embedding'], embedding, rtol=1e-4, atol=1e-6)
  # Lengths do not count.
  longer = {'params': {'kernel': variables['params']['kernel'] * 7}}
  np.testing.assert_allclose(run(head, longer, 3 * FUSED)['cosine'], out['cosine'], atol=1e-6)


def test_a_zero_embedding_has_a_finite_gradient():
  head, variables = make('identity_cosine')

  @jax.jit
  @jax.value_and_grad
  def total(inputs):
    out = head.apply({'params': {'kernel': inputs['kernel']}}, inputs['fused'])
    return out['cosine'].sum() + out['norm'].sum()

  kernel = variables['params']['kernel']
  for zero in ({'fused': 0 * FUSED, 'kernel': kernel}, {'fused': FUSED, 'kernel': 0 * kernel}):
    value, gradient = total(zero)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradient.values())


def test_a_field_that_is_missing_is_named():
  with pytest.raises(ConfigError, match="head 'identity_cosine' needs the field 'identities'"):
    lookup.make('head', 'identity_cosine')


def test_cosines_of_modalities_by_hand():
  head, variables = make('modality_prototypes')
  prototypes = np.asarray(variables['params']['prototypes'], float)
  feature = np.asarray(FUSED, float).mean((1, 2)).reshape(B, 3, D // 3)
  out = run(head, variables, FUSED)
  for i, m, k in np.ndindex(B, 3, 3):
    f, p = feature[i, m], prototypes[m, k]
    expected = f @ p / np.sqrt((f @ f) * (p @ p))
    np.testing.assert_allclose(out['modality_cosine'][i, m, k], expected, rtol=1e-4)
  plain = {'params': {'logit': variables['params']['logit']}}
  np.testing.assert_array_equal(out['logit'], run(make('binary_logit')[0], plain, FUSED)['logit'])
  with pytest.raises(ConfigError, match='concatenates 4 modalities.* the width 6'):
    make('modality_prototypes', modalities=4)


def test_the_mean_hyperplane_decides():
  head, variables = make('domain_hyperplanes')
  kernel = np.asarray(variables['params']['kernel'], float)
  out = run(head, variables, FUSED)
  feature = np.asarray(FUSED, float).mean((1, 2))
  columns = np.einsum('bd,kcd->bkc', feature, kernel)
  np.testing.assert_allclose(out['domain_logit'], columns[..., 1] - columns[..., 0], rtol=1e-4)
  deployed = feature @ kernel.mean(0).T
  np.testing.assert_allclose(out['logit'], deployed[:, 1] - deployed[:, 0], rtol=1e-4, atol=1e-6)
