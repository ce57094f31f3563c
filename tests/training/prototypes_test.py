"""Prototypes: the source's update by hand, and the average that the state carries."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity import recipe
from flexfas_jax.training import prototypes

B, M, K, D = 6, 3, 4, 2
CLASSES = np.array([0, 2, 0, 1, 2, 0])  # none is 3


def features(seed=0):
  return np.random.default_rng(seed).normal(0, 1, (B, M, D)).astype(np.float32)


def test_single_side_classes():
  """Bona fide samples of all domains are one class; attacks of each domain another."""
  label, domain = jnp.array([1, 0, 1, 0, 0]), jnp.array([0, 0, 2, 1, 2])
  found = prototypes.single_side_classes(label, domain)
  np.testing.assert_array_equal(found, [0, 1, 0, 2, 3])


def test_class_means_leave_out_what_is_absent():
  present = np.ones((B, M), bool)
  present[0, 1] = present[3, 2] = False
  feature = np.where(present[:, :, None], features(), np.nan)
  sums, counts = prototypes.class_means(*map(jnp.asarray, (feature, CLASSES, present)), K)
  for m in range(M):
    for k in range(K):
      chosen = feature[(k == CLASSES) & present[:, m], m]
      assert counts[m, k] * B == len(chosen)
      np.testing.assert_allclose(sums[m, k] * B, chosen.sum(0), atol=1e-6)


def measure(seed, classes=CLASSES):
  return prototypes.class_means(
    jnp.asarray(features(seed)), jnp.asarray(classes), jnp.ones((B, M), bool), K
  )


def test_means_have_no_gradient():
  def total(feature):
    sums, _ = prototypes.class_means(feature, jnp.asarray(CLASSES), jnp.ones((B, M), bool), K)
    return sums.sum()

  assert not jax.grad(total)(jnp.asarray(features())).any()


def epoch(seed, old, is_first, classes=CLASSES):
  return prototypes.epoch_update(old, *measure(seed, classes), momentum=0.2, is_first=is_first)


def test_an_epoch_by_hand():
  """0.8 new + 0.2 old from the second epoch on; a class without a sample keeps its prototype."""
  first = epoch(0, jnp.full((M, K, D), 7.0), True)
  mean = features(0)[CLASSES == 2].mean(0)  # [M, D]
  np.testing.assert_allclose(first[:, 2], mean, rtol=1e-5)
  np.testing.assert_array_equal(first[:, 3], 7)
  without = np.where(CLASSES == 1, 0, CLASSES)
  second = epoch(1, first, False, without)
  expected = 0.8 * features(1)[CLASSES == 2].mean(0) + 0.2 * mean
  np.testing.assert_allclose(second[:, 2], expected, rtol=1e-5)
  np.testing.assert_array_equal(second[:, [1, 3]], first[:, [1, 3]])


def run(steps, decay, classes=None):
  """The memory after steps with the seeds 0, 1, ..."""
  initial = prototypes.Prototypes(K, decay).initial(M, D)
  assert not any(x.any() for x in initial.values())
  memory = jax.tree.map(jnp.asarray, initial)
  update = jax.jit(functools.partial(prototypes.step_update, decay=decay))
  for seed in range(steps):
    memory = update(memory, *measure(seed, classes[seed] if classes else CLASSES))
  return memory


def test_the_average_is_its_weighted_mean():
  """Weight decay^n of a feature, where n later steps have its class."""
  absent = np.where(CLASSES == 1, 0, CLASSES)
  classes = [CLASSES, absent, CLASSES, absent]
  found = run(4, 0.7, classes)
  for k in range(3):
    steps = [s for s in range(4) if (classes[s] == k).any()]
    weights = {s: 0.7 ** (len(steps) - 1 - i) for i, s in enumerate(steps)}
    total = sum(w * features(s)[classes[s] == k].sum(0) for s, w in weights.items())
    count = sum(w * (classes[s] == k).sum() for s, w in weights.items())
    np.testing.assert_allclose(found['prototype'][:, k], total / count, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found['prototype_weight'][:, k] * B, count, rtol=1e-5)
  assert not found['prototype_weight'][:, 3].any() and not found['prototype'][:, 3].any()


def test_earlier_epochs_have_the_momentum():
  """In epochs of 5 steps with constant features, it approaches 0.8 new + 0.2 old, as the source."""
  decay = 0.2 ** (1 / 5)
  memory = jax.tree.map(jnp.asarray, prototypes.Prototypes(K, decay).initial(M, D))
  update = jax.jit(functools.partial(prototypes.step_update, decay=decay))
  for _ in range(60):  # the weights converge
    memory = update(memory, *measure(0))
  for _ in range(5):
    memory = update(memory, *measure(1))
  old, new = (features(seed)[CLASSES == 2].mean(0) for seed in (0, 1))
  np.testing.assert_allclose(memory['prototype'][:, 2], 0.8 * new + 0.2 * old, rtol=1e-4, atol=1e-5)


def test_the_released_call_exchanges_depth_and_infrared():
  """Its second epoch continues from the old prototypes in the other order."""
  fixture = pathlib.Path(__file__).parents[1] / 'golden' / 'fixtures' / 'mmdg_prototypes.json'
  (feature,), expected = recipe.inputs(fixture), recipe.expected(fixture)
  label = jnp.asarray(json.loads(fixture.read_text())['labels'])
  present = jnp.ones((feature.shape[2], 3), bool)
  measured = prototypes.class_means(jnp.asarray(feature[1]).swapaxes(0, 1), label, present, 5)
  update = functools.partial(prototypes.epoch_update, momentum=0.2, is_first=False)
  first = jnp.asarray(expected['epoch_0'])
  found = update(first[jnp.array([0, 2, 1])], *measured)
  np.testing.assert_allclose(found, expected['epoch_1_published_call'], atol=1e-6)
  found = update(first, *measured)
  np.testing.assert_allclose(found, expected['epoch_1_corrected'], atol=1e-6)
  assert np.abs(found - expected['epoch_1_published_call']).max() > 0.1
