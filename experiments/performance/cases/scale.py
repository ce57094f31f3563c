"""Time as a function of the size of the work: each row compares two sizes."""

import contextlib
import functools
import io
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from configs import vit_fusion
from experiments.performance import timing
from flexfas_jax import ensemble, schema
from flexfas_jax.evaluation import metrics, score_files
from flexfas_jax.models import flexmodal
from flexfas_jax.training import scoring
from tests.toy import fill

SCORES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
IMAGES = (64, 256, 1024, 4096)  # triplets
SUBSETS = (1, 2, 4, 7)
MEMBERS, ROWS = (2, 8, 32), 10_000
BATCH = 64


def steps(what: str, runs: dict, options) -> list[dict]:
  """Rows from {size: function}: each size in multiples of the time of the one before."""
  found = timing.interleaved(runs, options.repeats)
  sizes = list(runs)
  return [
    timing.row(f'{larger:,} {what}, in times of {n:,}', found[larger], found[n])
    for n, larger in zip(sizes, sizes[1:], strict=False)
  ]


def scores(options) -> list[dict]:
  """EER and AUC of 1e3 to 1e7 scores: only sorting is more than linear."""
  rng = np.random.default_rng(0)

  def make_evaluation(n):
    score, label = rng.random(n), rng.integers(0, 2, n)

    def evaluate():
      points = metrics.curve(label, score)
      return metrics.eer(points), metrics.auc(points)

    return evaluate

  return steps('scores evaluated', {n: make_evaluation(n) for n in SCORES}, options)


def scoring_of(batches: int, subsets: int):
  """A function that scores batches under a number of subsets with the quickstart's model."""
  model, variables = quickstart()
  rng, S = np.random.default_rng(0), model.image_size
  batch = {
    m: jnp.asarray(rng.standard_normal((BATCH, S, S, schema.channels(m))), jnp.float32)
    for m in model.modalities
  }
  batch['present'] = jnp.ones((BATCH, len(model.modalities)), bool)
  chosen = sorted(model.subsets, key=len)[-subsets:]  # all sensors are among them
  step = jax.jit(functools.partial(scoring.score_step, model=model, subsets=chosen))
  absent = jax.jit(model.absent_maps)(variables)

  def run():
    for _ in range(batches):
      jax.block_until_ready(step(variables, absent, batch))

  return run


@functools.cache
def quickstart():
  """(model, variables) of random weights."""
  model = flexmodal.build(**vit_fusion.get_config().model.to_dict())
  return model, fill(jax.eval_shape(model.init, jax.random.key(0)))


def images(options) -> list[dict]:
  """Scores more triplets under one subset."""
  return steps('triplets scored', {n: scoring_of(n // BATCH, 1) for n in IMAGES}, options)


def subsets(options) -> list[dict]:
  """Scores 256 triplets under more subsets: encodes each stream once, fuses for each subset."""
  return steps('subsets of 256 triplets', {n: scoring_of(4, n) for n in SUBSETS}, options)


def members(options) -> list[dict]:
  """`flexfas_jax.ensemble` over more score files of 10,000 rows."""
  with tempfile.TemporaryDirectory() as temporary:
    folder, rng = pathlib.Path(temporary), np.random.default_rng(0)
    ids, label = np.arange(ROWS).astype(str), rng.integers(0, 2, ROWS)
    for i in range(max(MEMBERS)):
      path = folder / f'net_seed{i}_fold0.csv'
      score_files.write(path, score_files.Scores(ids, label, {'score': rng.random(ROWS)}))
    files = sorted(map(str, folder.glob('net_*.csv')))

    def average(n):
      with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert ensemble.main([*files[:n], '--out', str(folder / 'out.csv')]) == 0

    runs = {n: functools.partial(average, n) for n in MEMBERS}
    return steps('members averaged', runs, options)


CASES = {'scores': scores, 'images': images, 'subset_curve': subsets, 'members': members}
