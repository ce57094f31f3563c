"""Subsets drawn by their losses: probabilities, the running mean, and the training step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flexfas_jax.errors import ConfigError
from flexfas_jax.training import losses, objective, sharding, subset_sampling
from flexfas_jax.training.step import named_key, new_state, train_step
from tests.training.objective_test import KEY, MODALITIES, batch_of, make

BY_LOSS = {'by_loss': {'drop': ('depth', 'ir'), 'decay': 0.5}}


def test_a_subset_is_drawn_in_proportion_to_its_loss():
  """A sample gets no modality that it lacks, and its loss counts for what it keeps."""
  sampling = subset_sampling.build(BY_LOSS, MODALITIES)
  assert sampling.subsets == (
    (True, True, True), (True, True, False), (True, False, True), (True, False, False)
  )  # fmt: skip
  B = 40_000
  present = jnp.ones((B, 3), bool).at[: B // 2, 0].set(False)
  running = jnp.array([0.1, 0.2, 0.3, 0.4])
  kept, kept_subset = jax.jit(sampling.draw)(jax.random.key(0), present, running)
  np.testing.assert_allclose(kept_subset[B // 2 :].mean(0), [0.1, 0.2, 0.3, 0.4], atol=0.01)
  whole = np.asarray(kept_subset).argmax(1)[B // 2 :]
  np.testing.assert_array_equal(kept[B // 2 :], np.array(sampling.subsets)[whole])
  # Of depth and ir: all of both (drawn with 0.1, or RGB alone with 0.4), depth (0.2), ir (0.3).
  shares = [(np.asarray(kept)[: B // 2] == row).all(1).mean() for row in (
    (False, True, True), (False, True, False), (False, False, True),
  )]  # fmt: skip
  np.testing.assert_allclose(shares, [0.5, 0.2, 0.3], atol=0.01)
  assert not np.asarray(kept_subset[: B // 2]).any()  # no subset lacks RGB


def test_the_running_mean():
  sampling = subset_sampling.build({'by_loss': {'drop': ('ir',), 'decay': 0.75}}, MODALITIES)
  found = sampling.update(jnp.array([1.0, 2.0]), jnp.array([0.6, 0.0]), jnp.array([0.2, 0.0]))
  np.testing.assert_allclose(found, [0.75 + 0.25 * 3, 2.0])  # one that was not drawn stays


@pytest.mark.parametrize('accumulate', [1, 2])
def test_the_step_updates_it_with_the_losses_of_its_samples(accumulate):
  """The same on one device and on eight; the next step draws by it."""
  model, variables = make()
  made = objective.build('binary_cross_entropy', None, model, BY_LOSS)
  assert made.memory.keys() == {'subset_loss'}
  optimizer = optax.sgd(0.1)
  state, batch = new_state(variables, optimizer, memory=made.memory), batch_of(model, 16)
  step = functools.partial(
    train_step, model=model, optimizer=optimizer, loss=losses.binary_cross_entropy,
    modality_dropout=BY_LOSS, accumulate=accumulate, **made.step_arguments(),
  )  # fmt: skip
  after, metrics = jax.jit(step)(state, batch, KEY)
  key = jax.random.fold_in(KEY, 0)
  present, kept_subset = made.sampling.draw(
    named_key(key, 'modality_dropout'), batch['present'], jnp.ones(4)
  )
  if accumulate == 1:
    outputs, _ = jax.jit(model.apply)(
      {'params': variables['params'], 'batch_stats': {}},
      {**batch, 'present': present},
      named_key(key, 'dropout'),
    )
    values = losses.binary_cross_entropy(outputs, batch)
    counts = np.asarray(kept_subset.sum(0))
    mean = np.asarray((kept_subset * values[:, None]).sum(0)) / np.maximum(counts, 1)
    expected = np.where(counts > 0, 0.5 + 0.5 * mean, 1.0)
    np.testing.assert_allclose(after.memory['subset_loss'], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics['loss'], values.mean(), rtol=1e-5)
  assert (np.asarray(after.memory['subset_loss']) != 1).sum() == (kept_subset.sum(0) > 0).sum() > 1
  mesh = sharding.make_mesh()
  place = jax.tree.map(lambda _: sharding.batch_sharding(mesh), batch)
  sharded, _ = jax.jit(step, in_shardings=(sharding.replicated(mesh), place, None))(
    state, batch, KEY
  )
  np.testing.assert_allclose(sharded.memory['subset_loss'], after.memory['subset_loss'], rtol=1e-5)


@pytest.mark.parametrize(
  'fields,message',
  [
    ({'by_loss': {}, 'ir': 0.5}, 'stands alone'),
    ({'by_loss': {'rate': 1}}, 'with the fields drop and decay'),
    ({'by_loss': 0.5}, 'stands alone'),
    ({'by_loss': {'drop': 'ir'}}, "drop is 'ir'; give some of"),
    ({'by_loss': {'drop': ('thermal',)}}, "drop is .'thermal',.; give some of"),
    ({'by_loss': {'drop': ()}}, 'give some of'),
    ({'by_loss': {'decay': 1}}, 'decay is 1; give a number'),
    ({'by_loss': {'decay': 'x'}}, "decay is 'x'; give a number"),
  ],
)
def test_other_fields_are_refused(fields, message):
  with pytest.raises(ConfigError, match=message):
    subset_sampling.build(fields, MODALITIES)


def test_every_subset_may_be_drawn_by_default():
  assert len(subset_sampling.build({'by_loss': {}}, MODALITIES).subsets) == 7
  assert subset_sampling.build({'depth': 0.5}, MODALITIES) is None
