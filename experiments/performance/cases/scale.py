"""Time against the size of the work: a row tells how much longer ten times as much takes."""

import numpy as np

from experiments.performance import timing
from flexfas_jax.evaluation import metrics

SCORES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)


def scores(options) -> list[dict]:
  """EER and AUC of 1e3 to 1e7 scores: sorting is all that grows faster than they do."""
  rng = np.random.default_rng(0)

  def of(n):
    score, label = rng.random(n), rng.integers(0, 2, n)

    def judge():
      points = metrics.curve(label, score)
      return metrics.eer(points), metrics.auc(points)

    return judge

  found = timing.interleaved({n: of(n) for n in SCORES}, options.repeats)
  return [
    timing.row(f'{larger:,} scores judged, in times of {n:,}', found[larger], found[n])
    for n, larger in zip(SCORES, SCORES[1:], strict=False)
  ]


CASES = {'scores': scores}
