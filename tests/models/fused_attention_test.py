"""Fused attention: the same numbers and gradients as the weights written out, on a CPU."""

from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict

from flexfas_jax.errors import ConfigError
from flexfas_jax.models import flexmodal, fused_attention
from flexfas_jax.models.fused_attention import attend
from tests.toy import TOY, fill, make_batch


def plain(q, k, v, mask):
  """Attention by NumPy's rules in float64."""
  q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
  scores = q @ np.swapaxes(k, 2, 3) / q.shape[-1] ** 0.5
  if mask is not None:
    scores = np.where(mask[:, None, None], scores, -np.inf)
  weights = np.exp(scores - scores.max(-1, keepdims=True))
  return weights / weights.sum(-1, keepdims=True) @ v


@pytest.mark.parametrize('N,M', [(197, 197), (16, 16), (5, 24), (24, 7)])
@pytest.mark.parametrize('masked', [False, True])
def test_it_equals_attention_with_its_weights_written_out(N, M, masked):
  keys = jax.random.split(jax.random.key(0), 4)
  q = jax.random.normal(keys[0], (3, 2, N, 8))
  k, v = (jax.random.normal(key, (3, 2, M, 8)) for key in keys[1:3])
  mask = None
  if masked:
    mask = np.array(jax.random.bernoulli(keys[3], 0.5, (3, M)))
    mask[:, -1] = True
    mask[1, :-1] = False  # a single key
  found = jax.jit(attend)(q, k, v, mask)
  assert found.shape == q.shape
  np.testing.assert_allclose(found, plain(q, k, v, mask), atol=2e-6)


def loss_of(fields, fused):
  """(loss and gradient of a toy network, its parameters); one sample lacks depth."""
  model = flexmodal.build(
    {'name': 'vit', **TOY['vit'], **fields, 'depth': 4, 'fused_attention': fused},
    {'name': 'plain_concat'},
    {'name': 'binary_logit'},
    image_size=16,
  )
  variables = fill(jax.eval_shape(model.init, jax.random.key(0)))
  batch = make_batch(model, 4)
  present = batch['present'].at[1, 1].set(False)

  def loss(params):
    changed = {**variables, 'params': params}
    outputs, _ = model.apply(changed, {**batch, 'present': present}, jax.random.key(2))
    return jnp.square(outputs['logit'] - 1).sum()

  return jax.jit(jax.value_and_grad(loss))(variables['params'])


@pytest.mark.parametrize(
  'fields',
  [
    {},
    {'sequence': 'joint', 'positions': 'rotary'},
    {'adapters': (FrozenDict(name='prompts'),)},
    {'scan': True},
  ],
)
def test_a_network_and_its_gradients_are_the_same(fields, monkeypatch):
  """With keys of absent modalities, prompts among the keys, and blocks as a loop."""
  counted = Mock(wraps=attend)
  monkeypatch.setattr(fused_attention, 'attend', counted)
  (value, gradient), (fused, fused_gradient) = (loss_of(fields, fused) for fused in (False, True))
  np.testing.assert_allclose(fused, value, rtol=1e-5)
  assert counted.call_count >= 4
  scale = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient))
  assert scale > 0
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(b, a, atol=1e-5 * scale), gradient, fused_gradient
  )


def test_cudnn_receives_an_even_number_of_tokens_and_their_lengths(monkeypatch):
  """There is no GPU here: the call is recorded where jax would give it to cuDNN."""
  calls = []

  def record(q, k, v, **more):
    calls.append((q.shape, k.shape, more))
    return jnp.zeros(q.shape, q.dtype)

  monkeypatch.setattr(jax.nn, 'dot_product_attention', record)
  q, k = jnp.ones((2, 3, 197, 8), jnp.bfloat16), jnp.ones((2, 3, 11, 8), jnp.bfloat16)
  attend(q, k, k, implementation='cudnn')
  ((queries, keys, more),) = calls
  assert (queries, keys) == ((2, 200, 3, 8), (2, 16, 3, 8))
  assert more['implementation'] == 'cudnn' and more['mask'] is None
  np.testing.assert_array_equal(more['query_seq_lengths'], [197, 197])
  np.testing.assert_array_equal(more['key_value_seq_lengths'], [11, 11])


def test_float32_has_no_kernel():
  x = jnp.ones((1, 1, 8, 8))
  with pytest.raises(ConfigError, match='add --config.model.dtype=bfloat16'):
    attend(x, x, x, implementation='cudnn')
