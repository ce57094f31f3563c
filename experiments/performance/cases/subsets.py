"""The four sub-protocols with one encoding of each stream, and RGB alone."""

import contextlib
import functools
import statistics

import jax
import jax.numpy as jnp
import numpy as np

from configs import vit_fusion
from experiments.performance import timing
from experiments.performance.torch_process import torch_process
from flexfas_jax.models import flexmodal
from flexfas_jax.training import scoring
from tests.toy import fill

BATCH = 4
FOUR, ONE = 4, 8  # batches of a test set: by four sub-protocols, and by RGB alone


@functools.cache
def build():
  """(model, variables) of the paper's ViT-B/16 with cross-attention, random weights."""
  model = flexmodal.build(**vit_fusion.get_config('flexmodal').model.to_dict())
  return model, fill(jax.eval_shape(model.init, jax.random.key(0)))


def batches_of(n: int) -> list[dict]:
  """Batches of noise, all sensors present."""
  model, _ = build()
  rng, S = np.random.default_rng(0), model.image_size
  images = [
    {m: jnp.asarray(rng.standard_normal((BATCH, S, S, 3)), jnp.float32) for m in model.modalities}
    for _ in range(n)
  ]
  return [b | {'present': jnp.ones((BATCH, len(model.modalities)), bool)} for b in images]


def once(subsets, n: int):
  """This project's way: scores n batches under all subsets, and encodes each stream once."""
  model, variables = build()
  batches, absent_maps = batches_of(n), jax.jit(model.absent_maps)
  step = jax.jit(functools.partial(scoring.score_step, model=model, subsets=subsets))

  def run():
    absent = absent_maps(variables)  # once per test set, so it is part of the work
    jax.block_until_ready([step(variables, absent, batch) for batch in batches])

  return run


def each(subsets, n: int):
  """The reference's way: a forward pass of three encoders for each subset, with black images."""
  model, variables = build()
  batches = batches_of(n)
  absent = jax.jit(model.absent_maps)(variables)  # unused: every modality has maps

  @jax.jit
  def forward(variables, absent, batch, is_present):
    # Three encoders on batches of the same size: one batch of all images is slower on a CPU.
    maps = {
      m: model.encode(variables, jnp.where(is_present[i], batch[m], model.module.blank_value), m)
      for i, m in enumerate(model.modalities)
    }
    return model.decide(variables, maps, absent, batch['present'])['logit']

  def run():
    for subset in subsets:
      is_present = jnp.array([m in subset for m in model.modalities])
      jax.block_until_ready([forward(variables, absent, batch, is_present) for batch in batches])

  return run


def four() -> list:
  """The subsets of the sub-protocols."""
  return [s for s in build()[0].subsets if 'rgb' in s]


def ours(options) -> list[dict]:
  """Both ways with this project's code."""
  runs = {
    'four': once(four(), FOUR),
    'each': each(four(), FOUR),
    'rgb': once([('rgb',)], ONE),
    'three streams': each([('rgb',)], ONE),
  }
  found = timing.interleaved(runs, options.repeats)
  return [
    timing.row('four sub-protocols, against a forward pass each', found['each'], found['four']),
    timing.row('RGB alone, against all three streams', found['three streams'], found['rgb']),
  ]


def theirs(options) -> list[dict]:
  """Compared with PyTorch: as published, and with shared encoders, in its fastest form."""
  runs = {'ours': (timing.seconds, once(four(), FOUR))}
  with contextlib.ExitStack() as stack:
    for way in ('stock', 'onednn'):
      side = torch_process(options.torch_python, 'flexmodal', way, options.threads)
      measure = stack.enter_context(side)
      runs['shared', way] = measure, 'shared'
      if way == 'stock':
        runs['published', way] = measure, 'published'
    found = timing.interleaved(runs, options.repeats, lambda pair: pair[0](pair[1]))
  best = min(('stock', 'onednn'), key=lambda way: statistics.median(found['shared', way]))
  rows = [('PyTorch as published', ('published', 'stock'))]
  for way in ('stock', 'onednn'):
    note = ', its best' if way == best else ''
    rows.append((f'PyTorch {way} with shared encoders{note}', ('shared', way)))
  return [
    timing.row(f'four sub-protocols, {name}', found[key], found['ours']) for name, key in rows
  ]


theirs.needs_torch = True
CASES = {'subsets': ours, 'subsets_torch': theirs}
