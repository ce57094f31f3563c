"""Coverage of the bootstrap's 95 % intervals.

  python -m experiments.evaluation.coverage

It simulates tests with known rates: scores are normal, bona fide ones higher, and a share of their
variance belongs to the subject, so that errors on the frames of a subject are correlated. It
computes each test's intervals as `flexfas_jax.score` does, and writes coverage.csv to this folder.
"""

import argparse
import concurrent.futures
import math
import os
import pathlib
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from experiments.evaluation import simulation
from experiments.evaluation.simulation import Span
from flexfas_jax.evaluation import bootstrap, intervals, metrics


class Setting(NamedTuple):
  """A kind of test.

  Attributes:
    name: in coverage.csv.
    subjects: their number.
    bona_fide, attacks: frames of each subject.
    share: of the variance that belongs to the subject.
    distance: between the means of bona fide scores and attacks, in standard deviations.
    threshold: of the decisions.
    both: the same subjects have bona fide samples and attacks.
    uneven: some subjects have fewer frames.
  """

  name: str
  subjects: int
  bona_fide: int
  attacks: int
  share: float
  distance: float = 3.2
  threshold: float = 1.6
  both: bool = True
  uneven: bool = False


SETTINGS = (
  Setting('independent samples', 800, 1, 1, 0.0),
  Setting('60 subjects, 8 + 12 frames', 60, 8, 12, 0.3),
  Setting('60 subjects, uneven frames', 60, 8, 12, 0.3, uneven=True),
  Setting('30 subjects, 8 + 12 frames', 30, 8, 12, 0.3),
  Setting('200 subjects, 3 + 6 frames', 200, 3, 6, 0.5),
  Setting('100 subjects, others attack', 100, 6, 6, 0.4, both=False),
  Setting('60 subjects, strongly correlated', 60, 8, 12, 0.7),
  Setting('60 subjects, errors rare (2 %)', 60, 8, 12, 0.3, distance=4.1, threshold=2.05),
)

COLUMNS = ('setting', 'method', 'figure', 'truth', *simulation.COLUMNS)
OF_CURVE = ('eer', 'auc', 'tpr@fpr=1e-2', 'bpcer@apcer=5%')


def truth(s: Setting) -> dict[str, float]:
  """The true value of each figure."""
  tail = {'apcer': float(ndtr(-s.threshold)), 'bpcer': float(ndtr(s.threshold - s.distance))}
  return {
    **tail,
    'acer': sum(tail.values()) / 2,
    'eer': float(ndtr(-s.distance / 2)),
    'auc': float(ndtr(s.distance / math.sqrt(2))),
    'tpr@fpr=1e-2': float(ndtr(s.distance + ndtri(1e-2))),
    'bpcer@apcer=5%': 1 - float(ndtr(s.distance + ndtri(5e-2))),
    # The second system is as good as the first and correlated with it.
    'difference of acer': 0.0,
  }


def simulate(s: Setting, rng):
  """(label, subject, [2, N] scores of two systems)."""
  subjects = np.arange(s.subjects)
  attackers = subjects if s.both else subjects + s.subjects
  by_class = [np.repeat(subjects, s.bona_fide), np.repeat(attackers, s.attacks)]
  if s.uneven:  # from a quarter of the frames to all of them
    fraction = rng.uniform(0.25, 1, s.subjects)
    by_class = [x[rng.random(x.size) < fraction[x % s.subjects]] for x in by_class]
  label = np.repeat([1, 0], [len(by_class[0]), len(by_class[1])])
  subject = np.concatenate(by_class)
  # Of the first system, of the second, and of both; by class.
  subject_effect = rng.normal(size=(3, 2, 2 * s.subjects))
  frame_effect = rng.normal(size=(3, subject.size))
  systems = []
  for k in range(2):
    between = (subject_effect[k] + subject_effect[2]) / math.sqrt(2)
    within = (frame_effect[k] + frame_effect[2]) / math.sqrt(2)
    deviation = math.sqrt(s.share) * between[label, subject] + math.sqrt(1 - s.share) * within
    systems.append(s.distance * label + deviation)
  return label, subject, np.stack(systems)


def spans(test: int, setting: Setting, draws: int) -> Iterator[Span]:
  """The intervals of one simulated test, by (method, figure)."""
  true = truth(setting)

  def span(method: str, figure: str, interval: intervals.Interval) -> Span:
    return Span((method, figure), true[figure], interval)

  rng = np.random.default_rng([77, test, SETTINGS.index(setting)])
  label, subject, scores = simulate(setting, rng)
  subject = subject.astype(str)
  nothing = np.full(label.size, '')
  clusters = bootstrap.make_clusters(label, nothing, subject, nothing, draws, seed=test)
  figures = {}
  for k, score in enumerate(scores):
    accepted = score >= setting.threshold
    figures[str(k)] = bootstrap.WeightedMetrics(
      clusters,
      label,
      score,
      {'apcer': (accepted, label == 0), 'bpcer': (~accepted, label == 1)},
      means={'acer': ('apcer', 'bpcer')},
      of_curve={name: metrics.RESAMPLED[name] for name in OF_CURVE} if k == 0 else {},
    )
  drawn = bootstrap.resample(clusters, figures)
  for figure in list(true)[:-1]:
    yield span('bootstrap', figure, bootstrap.interval(drawn['0'][figure]))
  paired = bootstrap.difference(drawn['0']['acer'], drawn['1']['acer'])[1]
  yield span('bootstrap', 'difference of acer', paired)
  rates = metrics.error_rates(label, scores[0], setting.threshold)
  exact = [
    intervals.clopper_pearson(rates.counts[key])
    for key in (('accepted', 'attack'), ('rejected', 'bona_fide'))
  ]
  yield span('Clopper-Pearson', 'apcer', exact[0])
  yield span('Clopper-Pearson', 'bpcer', exact[1])
  acer = intervals.mean_interval((rates.apcer, rates.bpcer), tuple(exact))
  yield span('Clopper-Pearson', 'acer', acer)


def main(argv: list[str] | None = None) -> None:
  """Parses the command line, simulates and writes the table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--tests', type=int, default=2000, help='simulated for each setting')
  parser.add_argument('--draws', type=int, default=bootstrap.N_REPLICATES, help='of each bootstrap')
  parser.add_argument('--settings', type=int, default=len(SETTINGS), help='number, from the first')
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path(__file__).parent)
  args = parser.parse_args(argv)
  cores, start = os.cpu_count() or 1, time.monotonic()
  rows = []
  with concurrent.futures.ProcessPoolExecutor(cores) as pool:
    for setting in SETTINGS[: args.settings]:
      found = simulation.run(pool, 4 * cores, args.tests, spans, setting, args.draws)
      for (method, figure), tally in found.items():
        row = {'setting': setting.name, 'method': method, 'figure': figure}
        rows.append(row | {'truth': f'{truth(setting)[figure]:.5f}'} | tally.row())
        print('{setting:<30} {method:<16} {figure:<20} {coverage_percent:>6} %'.format(**rows[-1]),
              flush=True)  # fmt: skip
  simulation.write(args.out / 'coverage.csv', COLUMNS, rows)
  print(f'{time.monotonic() - start:.0f} s; written: {args.out}/coverage.csv')


if __name__ == '__main__':
  main()
