"""Coverage of the 95 % intervals over training runs and subjects.

  python -m experiments.evaluation.coverage_runs

It simulates methods whose runs differ by a known amount: the score of a sample has a part of its
subject, half of it the same for every run, and every run shifts the scores of each class. The rate
of the method is the mean over all runs and subjects. It computes the interval of the ACER of one
method, and of the difference of two equal ones, as `flexfas_jax.score` does and in other ways, and
writes coverage_runs.csv to this folder.
"""

import argparse
import concurrent.futures
import itertools
import math
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, stdtrit

from experiments.evaluation import simulation
from experiments.evaluation.simulation import Span
from flexfas_jax.evaluation import bootstrap, intervals, runs
from flexfas_jax.evaluation.bootstrap import Replicates
from flexfas_jax.evaluation.intervals import Interval

FRAMES = 10  # of each class and subject
SHARE = 0.3  # of the variance that belongs to the subject
SHARED = 0.5  # of the parts of subject and frame: the same for every run
RUNS = (2, 3, 5, 10)
SUBJECTS = (20, 60, 200)
RATES = (0.01, 0.1, 0.3)
# Standard deviation of the ACER over runs, in those of one run's ACER over tests (subjects).
RATIOS = (0, 1, 3)
ALONE, RESAMPLED = 'subjects alone', 'runs resampled'
SATTERTHWAITE, CHOSEN = 'Satterthwaite', 'runs and subjects'
COLUMNS = ('figure', 'method', 'runs', 'subjects', 'ratio', 'rate', *simulation.COLUMNS)
_POINTS, _WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
_WEIGHTS /= _WEIGHTS.sum()


class Setting(NamedTuple):
  """A kind of test."""

  runs: int
  subjects: int
  ratio: int
  rate: float


def deviation_of_subjects(s: Setting) -> float:
  """The standard deviation over tests of a rate of one run."""
  of_subject = ndtr((ndtri(s.rate) + math.sqrt(SHARE) * _POINTS) / math.sqrt(1 - SHARE))
  between = _WEIGHTS @ of_subject**2 - s.rate**2
  within = s.rate * (1 - s.rate) - between
  return math.sqrt((between + within / FRAMES) / s.subjects)


def deviation_of_runs(rate: float, shift: float) -> float:
  """The standard deviation over runs of a rate whose scores they shift by a normal `shift`."""
  of_run = ndtr(math.sqrt(1 + shift**2) * ndtri(rate) + shift * _POINTS)
  return math.sqrt(max(_WEIGHTS @ of_run**2 - rate**2, 0.0))


def shift_of(s: Setting) -> float:
  """The shift whose runs deviate by `ratio`."""
  if not s.ratio:
    return 0.0
  target = s.ratio * deviation_of_subjects(s)
  return brentq(lambda shift: deviation_of_runs(s.rate, shift) - target, 1e-6, 50)


def simulate(s: Setting, draws: int, rng) -> list[dict[str, Replicates]]:
  """APCER, BPCER and ACER of every run of two methods, resampled over subjects."""
  M, S, shift = 2 * s.runs, s.subjects, shift_of(s)

  def own(*shape):
    return math.sqrt(1 - SHARED) * rng.standard_normal((M, *shape))

  def common(*shape):
    return math.sqrt(SHARED) * rng.standard_normal(shape)

  score = math.sqrt(SHARE) * (own(S, 1, 2) + common(S, 1, 2))
  score = score + math.sqrt(1 - SHARE) * (own(S, FRAMES, 2) + common(S, FRAMES, 2))
  score += shift * rng.standard_normal((M, 1, 1, 2))
  wrong = score < math.sqrt(1 + shift**2) * ndtri(s.rate)  # [M, S, FRAMES, 2]
  wrong = wrong.reshape(M, -1)
  label = np.tile([0, 1], S * FRAMES)
  subject = np.repeat(np.arange(S), 2 * FRAMES).astype(str)
  nothing = np.full(label.size, '')
  clusters = bootstrap.make_clusters(
    label, nothing, subject, nothing, draws, seed=int(rng.integers(1 << 31))
  )
  classes = {'apcer': 0, 'bpcer': 1}
  figures = bootstrap.WeightedMetrics(
    clusters,
    label,
    np.zeros(label.size),
    {f'{rate} {m}': (wrong[m], label == of) for m in range(M) for rate, of in classes.items()},
    means={f'acer {m}': tuple(f'{rate} {m}' for rate in classes) for m in range(M)},
  )
  drawn = bootstrap.resample(clusters, {'': figures})['']
  return [{rate: drawn[f'{rate} {m}'] for rate in (*classes, 'acer')} for m in range(M)]


def of_subjects(method: Sequence[dict[str, Replicates]]) -> Interval:
  """The interval of the mean ACER over subjects, as `evaluate` has it."""
  mean = {rate: runs.mean([run[rate] for run in method]) for rate in method[0]}
  parts = [mean['apcer'], mean['bpcer']]
  if any(np.ptp(part.drawn) == 0 for part in parts):
    return intervals.mean_interval(
      [part.value for part in parts], [bootstrap.interval(part) for part in parts]
    )
  return bootstrap.interval(mean['acer'])


def resampled(methods: Sequence[Sequence[Replicates]], rng) -> Interval:
  """Percentiles of runs and subjects resampled: of one method, or of the second minus the first."""
  means = []
  for method in methods:
    drawn = np.stack([run.drawn for run in method])  # [R, draws]
    chosen = rng.integers(0, len(method), drawn.shape)
    means.append(np.take_along_axis(drawn, chosen, 0).mean(0))
  return Interval(
    *np.quantile(means[0] if len(means) == 1 else means[1] - means[0], (0.025, 0.975))
  )


def satterthwaite(methods: Sequence[Sequence[Replicates]]) -> Interval:
  """Student's t of the whole variance, with degrees of freedom such that its variance is right."""
  means = [runs.mean(method) for method in methods]
  both = means[0] if len(means) == 1 else bootstrap.subtract(*means)
  error, freedom = bootstrap.spread(both)
  of_runs = runs.spread(*methods)
  rest = max(error**2 - of_runs.interaction, 0.0)
  total = rest + of_runs.error**2
  if not total:
    return Interval(both.value, both.value)
  freedom = total**2 / (rest**2 / freedom + of_runs.error**4 / of_runs.freedom)
  away = float(stdtrit(freedom, 0.975)) * math.sqrt(total)
  return Interval(both.value - away, both.value + away)


def spans(test: int, s: Setting, draws: int) -> Iterator[Span]:
  """The intervals of one simulated test, by (figure, method)."""
  rng = np.random.default_rng([41, test, s.runs, s.subjects, s.ratio, round(1000 * s.rate)])
  made = simulate(s, draws, rng)
  a, b = made[: s.runs], made[s.runs :]
  acer = [[run['acer'] for run in method] for method in (a, b)]
  alone = of_subjects(a)

  def clip(x, low):
    return Interval(max(x.low, low), min(x.high, 1.0))

  for method, interval in (
    (ALONE, alone),
    (RESAMPLED, resampled(acer[:1], rng)),
    (SATTERTHWAITE, clip(satterthwaite(acer[:1]), 0.0)),
    (CHOSEN, runs.widen(alone, acer[0])),
  ):
    yield Span(('acer', method), s.rate, interval)
  for method, interval in (
    (ALONE, bootstrap.difference(*map(runs.mean, acer))[1]),
    (RESAMPLED, resampled(acer, rng)),
    (SATTERTHWAITE, clip(satterthwaite(acer), -1.0)),
    (CHOSEN, runs.difference(*acer)[1]),
  ):
    yield Span(('difference of acer', method), 0.0, interval)


def main(argv: list[str] | None = None) -> None:
  """Parses the command line, simulates and writes the table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--tests', type=int, default=1000, help='simulated for each setting')
  parser.add_argument('--draws', type=int, default=bootstrap.N_REPLICATES, help='of each bootstrap')
  parser.add_argument('--runs', type=int, nargs='*', default=RUNS)
  parser.add_argument('--subjects', type=int, nargs='*', default=SUBJECTS)
  parser.add_argument('--processes', type=int, default=os.cpu_count())
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path(__file__).parent)
  args = parser.parse_args(argv)
  rows, start = [], time.monotonic()
  with concurrent.futures.ProcessPoolExecutor(args.processes) as pool:
    for s in itertools.starmap(Setting, itertools.product(args.runs, args.subjects, RATIOS, RATES)):
      found = simulation.run(pool, args.processes, args.tests, spans, s, args.draws)
      print(s, f'{time.monotonic() - start:.0f} s', flush=True)
      for (figure, method), tally in found.items():
        rows.append({'figure': figure, 'method': method} | s._asdict() | tally.row())
        print('  {figure:18} {method:18} {coverage_percent:>6} % {mean_width}'.format(**rows[-1]))
      simulation.write(args.out / 'coverage_runs.csv', COLUMNS, rows)
  print(f'{time.monotonic() - start:.0f} s; written: {args.out}/coverage_runs.csv')


if __name__ == '__main__':
  main()
