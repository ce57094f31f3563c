"""The four sub-protocols with each stream encoded once, and RGB alone; both sides are ours."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from configs import vit_fusion
from experiments.performance import timing
from flexfas_jax.evaluation import scoring
from flexfas_jax.models import flexmodal
from tests.toy import fill

SAMPLES, BATCH = 8, 4


def measure(options) -> list[dict]:
  """ViT-B/16 with cross-attention, the paper's, over a made-up test set."""
  model = flexmodal.build(**vit_fusion.get_config('flexmodal').model.to_dict())
  variables = fill(jax.eval_shape(model.init, jax.random.key(0)))
  four = [s for s in model.subsets if 'rgb' in s]
  rng, S = np.random.default_rng(0), model.image_size
  batches = [
    {m: jnp.asarray(rng.standard_normal((BATCH, S, S, 3)), jnp.float32) for m in model.modalities}
    for _ in range(SAMPLES // BATCH)
  ]
  absent_maps = jax.jit(model.absent_maps)

  def once(subsets):
    step = jax.jit(functools.partial(scoring.score_step, model=model, subsets=subsets))

    def run():
      absent = absent_maps(variables)  # a part of the work, once per test set
      present = jnp.ones((BATCH, len(model.modalities)), bool)
      jax.block_until_ready([step(variables, absent, {**b, 'present': present}) for b in batches])

    return run

  @jax.jit
  def whole(variables, absent, batch, there):
    """Three encoders on batches of the same size as ours: all in one are slower on a CPU."""
    maps = {
      m: model.encode(variables, jnp.where(there[i], batch[m], model.module.blank_value), m)
      for i, m in enumerate(model.modalities)
    }
    present = jnp.ones((BATCH, len(model.modalities)), bool)
    return model.decide(variables, maps, absent, present)['logit']

  def reference(subsets):
    """A forward pass of three encoders for each protocol, what is absent being a blank picture."""
    absent = absent_maps(variables)  # not used: everything has maps of its own

    def run():
      for subset in subsets:
        there = jnp.array([m in subset for m in model.modalities])
        jax.block_until_ready([whole(variables, absent, b, there) for b in batches])

    return run

  runs = {
    'ours': once(four),
    'reference': reference(four),
    'rgb': once([('rgb',)]),
    'three streams': reference([('rgb',)]),
  }
  found = timing.interleaved(runs, options.repeats)
  return [
    timing.row(
      'four sub-protocols, against a forward pass each', found['reference'], found['ours']
    ),
    timing.row('RGB alone, against all three streams', found['three streams'], found['rgb']),
  ]


CASES = {'subsets': measure}
