"""Cross-attention against its equation, written out with loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flexfas_jax.models.fusion.concat import Concat
from flexfas_jax.models.fusion.cross_attention import CrossAttention
from tests.toy import fill

MODALITIES = ('rgb', 'depth', 'ir')


def attend(query, memory, scale=1.0):
  """softmax(F_q F_m^T / scale) F_m over channels, F [C, h w]; maps [h, w, C]."""
  h, w, C = query.shape
  out = np.zeros((h * w, C))
  q, m = query.reshape(-1, C).T, memory.reshape(-1, C).T
  for c in range(C):
    scores = np.array([(q[c] * m[d]).sum() / scale for d in range(C)])
    weights = np.exp(scores - scores.max())
    out[:, c] = (weights / weights.sum()) @ m
  return out.reshape(h, w, C)


def make_maps(B=2, h=3, w=2, C=4):
  rng = np.random.default_rng(0)
  return {m: (jnp.asarray(rng.standard_normal((B, h, w, C)), jnp.float32),) for m in MODALITIES}


def mixed(fusion, maps, present):
  """What reaches the convolution, by making it the identity: 1x1, batch norm that does nothing."""
  C = maps['rgb'][0].shape[-1]
  variables = fill(jax.eval_shape(fusion.init, jax.random.key(0), maps, present))
  variables['params']['mix']['conv']['kernel'] = jnp.eye(C)[None, None]
  bn = {'scale': jnp.full(C, (1 + 1e-5) ** 0.5), 'bias': jnp.full(C, 100.0)}
  variables['params']['mix']['norm']['bn'] = bn  # + 100, so that ReLU lets everything through
  variables['batch_stats']['mix']['norm']['bn'] = {'mean': jnp.zeros(C), 'var': jnp.ones(C)}
  return np.asarray(fusion.apply(variables, maps, present)) - 100


def test_reference_form_is_the_equation():
  maps, present = make_maps(), jnp.ones((2, 3), bool)
  found = mixed(CrossAttention(MODALITIES, kernel_size=1), maps, present)
  for b in range(2):
    rgb, depth, ir = (np.asarray(maps[m][0][b], np.float64) for m in MODALITIES)
    expected = rgb + attend(depth, rgb) + attend(ir, rgb)
    np.testing.assert_allclose(found[b], expected, atol=2e-5)


def test_symmetric_form_is_the_mean_of_what_is_there():
  maps, present = make_maps(), jnp.array([[1, 1, 1], [0, 1, 1]], bool)
  fusion = CrossAttention(MODALITIES, form='symmetric', scaled=True, kernel_size=1)
  found = mixed(fusion, maps, present)
  features = {m: np.asarray(maps[m][0], np.float64) for m in MODALITIES}
  for b, there in enumerate((MODALITIES, ('depth', 'ir'))):
    terms = [features[m][b] for m in there]
    terms += [
      attend(features[m][b], features[n][b], 6**0.5) for m in there for n in there if m != n
    ]
    np.testing.assert_allclose(found[b], np.mean(terms, 0), atol=2e-5)


def test_a_missing_query_adds_nothing():
  maps, present = make_maps(), jnp.array([[1, 0, 0], [1, 0, 1]], bool)
  found = mixed(CrossAttention(MODALITIES, kernel_size=1), maps, present)
  rgb, _, ir = (np.asarray(maps[m][0], np.float64) for m in MODALITIES)
  np.testing.assert_allclose(found[0], rgb[0], atol=2e-5)
  np.testing.assert_allclose(found[1], rgb[1] + attend(ir[1], rgb[1]), atol=2e-5)


@pytest.mark.parametrize('present', [[[1, 1, 1]], [[1, 0, 1]]])
def test_concat_keeps_each_modality_in_its_place(present):
  """A kernel that adds the modalities' channels with weights 1, 10 and 100."""
  maps, present = make_maps(B=1), jnp.array(present, bool)
  C = 4
  fusion = Concat(MODALITIES, kernel_size=1)
  variables = fill(jax.eval_shape(fusion.init, jax.random.key(0), maps, present))
  kernel = jnp.concatenate([jnp.eye(C), 10 * jnp.eye(C), 100 * jnp.eye(C)])[None, None]
  variables['params']['mix']['conv']['kernel'] = kernel
  bn = {'scale': jnp.full(C, (1 + 1e-5) ** 0.5), 'bias': jnp.full(C, 1000.0)}
  variables['params']['mix']['norm']['bn'] = bn
  variables['batch_stats']['mix']['norm']['bn'] = {'mean': jnp.zeros(C), 'var': jnp.ones(C)}
  found = fusion.apply(variables, maps, present) - 1000
  weights = np.array([1, 10, 100]) * np.asarray(present[0])
  expected = sum(w * np.asarray(maps[m][0]) for w, m in zip(weights, MODALITIES, strict=True))
  np.testing.assert_allclose(found, expected, atol=1e-3)
