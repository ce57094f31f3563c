"""Fusions that read several maps, and squeeze-and-excitation, against their equations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flexfas_jax.errors import ConfigError
from flexfas_jax.models.fusion.cdcn_three_stream import CdcnThreeStream
from flexfas_jax.models.fusion.multi_layer_aggregation import MultiLayerAggregation
from flexfas_jax.models.fusion.single import Single
from flexfas_jax.models.fusion.squeeze_excite import SqueezeExcite
from tests.toy import fill

MODALITIES = ('rgb', 'depth', 'ir')
BN_IDENTITY = (1 + 1e-5) ** 0.5


class Halve(nn.Module):
  """A stage that can be worked out by hand: every second pixel, times a weight, to `width`."""

  width: int

  @nn.compact
  def __call__(self, x, train=False, mask=None):
    return nn.Dense(self.width, use_bias=False, name='dense')(x[:, ::2, ::2])


def make_maps(shapes, B=2):
  rng = np.random.default_rng(0)
  return {
    m: tuple(rng.standard_normal((B, *s)).astype(np.float32) for s in shapes) for m in MODALITIES
  }


@pytest.mark.parametrize('variant', ['A', 'C'])
@pytest.mark.parametrize('present', [[[1, 1, 1], [1, 1, 1]], [[1, 0, 1], [0, 1, 0]]])
def test_aggregation_is_its_equation(variant, present):
  maps = make_maps([(8, 8, 2), (4, 4, 3)])
  later = (Halve(3, parent=None), Halve(5, parent=None))
  fusion = MultiLayerAggregation(MODALITIES, later, variant, bottleneck=4)
  assert fusion.stages(7) == (0, 1)
  present = np.array(present, bool)
  variables = fill(jax.eval_shape(fusion.init, jax.random.key(0), maps, present))
  p = jax.device_get(variables['params'])

  def join(k):
    parts = [
      np.where(present[:, i, None, None, None], maps[m][k], 0) for i, m in enumerate(MODALITIES)
    ]
    return np.concatenate(parts, -1)

  def mix(k):
    return np.maximum(join(k - 1) @ p[f'mix_{k}']['kernel'][0, 0] + p[f'mix_{k}']['bias'], 0)

  first = mix(1)[:, ::2, ::2] @ p['later_0']['dense']['kernel']
  second = (first + mix(2))[:, ::2, ::2] @ p['later_1']['dense']['kernel']
  main = join(1)[:, ::2, ::2] @ p['main']['dense']['kernel']
  if variant == 'C':
    main = main @ p['main_bottleneck']['kernel'][0, 0] + p['main_bottleneck']['bias']
    second = second @ p['bottleneck']['kernel'][0, 0] + p['bottleneck']['bias']
  found = jax.jit(fusion.apply)(variables, maps, present)
  np.testing.assert_allclose(found, main + second, atol=2e-5)


def test_aggregation_needs_a_second_stage():
  with pytest.raises(ConfigError, match='two stages or more'):
    MultiLayerAggregation(MODALITIES, ())


def test_single_takes_one():
  with pytest.raises(ConfigError, match='one modality'):
    Single(MODALITIES)
  assert Single(('ir',)).requires == ('ir',)


def open_mix(variables, C):
  """The last convolution takes the centre of every part as it is; batch norm does nothing."""
  kernel = np.zeros((3, 3, 3 * C, 3 * C), np.float32)
  kernel[1, 1] = np.eye(3 * C)
  variables['params']['mix']['conv']['kernel'] = kernel
  n = 3 * C
  variables['params']['mix']['norm']['bn'] = {
    'scale': jnp.full(n, BN_IDENTITY),
    'bias': jnp.full(n, 100.0),
  }
  variables['batch_stats']['mix']['norm']['bn'] = {'mean': jnp.zeros(n), 'var': jnp.ones(n)}


def test_squeeze_excite_is_its_equation():
  C = 16
  maps, present = make_maps([(3, 2, C)]), np.array([[1, 1, 1], [1, 0, 1]], bool)
  fusion = SqueezeExcite(MODALITIES, width=3 * C)
  variables = fill(jax.eval_shape(fusion.init, jax.random.key(0), maps, present))
  assert variables['params']['squeeze_rgb']['kernel'].shape == (C, C // 8)
  open_mix(variables, C)
  p = jax.device_get(variables['params'])
  expected = []
  for i, m in enumerate(MODALITIES):
    x = maps[m][0]
    hidden = x.mean((1, 2)) @ p[f'squeeze_{m}']['kernel'] + p[f'squeeze_{m}']['bias']
    raised = np.maximum(hidden, 0) @ p[f'excite_{m}']['kernel'] + p[f'excite_{m}']['bias']
    weighed = x / (1 + np.exp(-raised))[:, None, None]
    expected.append(np.where(present[:, i, None, None, None], weighed, 0))
  found = np.asarray(jax.jit(fusion.apply)(variables, maps, present)) - 100
  np.testing.assert_allclose(found, np.concatenate(expected, -1), atol=2e-5)


def test_the_wrong_skip_only_where_it_is_asked_for():
  """Depth's second map counts, unless `faithful` puts RGB's in its place."""
  maps, present = make_maps([(8, 8, 2), (4, 4, 2), (2, 2, 2)]), np.ones((2, 3), bool)
  changed = {**maps, 'depth': (maps['depth'][0], maps['depth'][1] + 1, maps['depth'][2])}
  for faithful in (False, True):
    fusion = CdcnThreeStream(MODALITIES, faithful=faithful)
    variables = fill(jax.eval_shape(fusion.init, jax.random.key(0), maps, present))
    apply = jax.jit(fusion.apply)
    same = np.array_equal(apply(variables, maps, present), apply(variables, changed, present))
    assert same == faithful
    assert fusion.requires == (('rgb',) if faithful else ())
