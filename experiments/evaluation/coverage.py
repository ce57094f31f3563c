"""How often the bootstrap's 95 % intervals hold the truth.

  python -m experiments.evaluation.coverage

Tests are simulated whose truth is known: scores are normal, bona fide ones higher, and a share of
their variance is the person's, so that the frames of a person are wrong together. Each simulated
test is given its intervals as `flexfas_jax.score` gives them. Writes coverage.csv beside itself.
"""

import argparse
import concurrent.futures
import csv
import math
import os
import pathlib
import time
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from flexfas_jax.evaluation import bootstrap, intervals, metrics


class Setting(NamedTuple):
  """A kind of test. `share` of the variance is the person's; frames are as many or fewer."""

  name: str
  people: int
  bona_fide: int  # frames of each person
  attacks: int
  share: float
  apart: float = 3.2  # how far bona fide scores are above attacks, in standard deviations
  threshold: float = 1.6
  both: bool = True  # the same people give bona fide samples and attacks
  uneven: bool = False  # of some people there are fewer frames


SETTINGS = (
  Setting('independent samples', 800, 1, 1, 0.0),
  Setting('60 people, 8 + 12 frames', 60, 8, 12, 0.3),
  Setting('60 people, uneven frames', 60, 8, 12, 0.3, uneven=True),
  Setting('30 people, 8 + 12 frames', 30, 8, 12, 0.3),
  Setting('200 people, 3 + 6 frames', 200, 3, 6, 0.5),
  Setting('100 people, others attack', 100, 6, 6, 0.4, both=False),
  Setting('60 people, strongly alike', 60, 8, 12, 0.7),
  Setting('60 people, errors rare (2 %)', 60, 8, 12, 0.3, apart=4.1, threshold=2.05),
)


def truth(s: Setting) -> dict[str, float]:
  tail = {'apcer': float(ndtr(-s.threshold)), 'bpcer': float(ndtr(s.threshold - s.apart))}
  return {
    **tail,
    'acer': sum(tail.values()) / 2,
    'eer': float(ndtr(-s.apart / 2)),
    'auc': float(ndtr(s.apart / math.sqrt(2))),
    'tpr@fpr=1e-2': float(ndtr(s.apart + ndtri(1e-2))),
    'bpcer@apcer=5%': 1 - float(ndtr(s.apart + ndtri(5e-2))),
    # Another system, as good as this one, and half alike.
    'difference of acer': 0.0,
  }


def simulate(s: Setting, rng):
  """(label, person, [2, N] scores of two systems)."""
  person = np.arange(s.people)
  attacker = person if s.both else person + s.people
  of = [np.repeat(person, s.bona_fide), np.repeat(attacker, s.attacks)]
  if s.uneven:  # from a quarter of the frames to all of them
    few = rng.uniform(0.25, 1, s.people)
    of = [who[rng.random(who.size) < few[who % s.people]] for who in of]
  label = np.repeat([1, 0], [len(of[0]), len(of[1])])
  who = np.concatenate(of)
  own = rng.normal(size=(3, 2, 2 * s.people))  # of either system, and of both; by class
  noise = rng.normal(size=(3, who.size))
  systems = []
  for k in range(2):
    of_person = (own[k] + own[2]) / math.sqrt(2)
    of_frame = (noise[k] + noise[2]) / math.sqrt(2)
    spread = math.sqrt(s.share) * of_person[label, who] + math.sqrt(1 - s.share) * of_frame
    systems.append(s.apart * label + spread)
  return label, who, np.stack(systems)


def hits(setting: Setting, first: int, last: int, draws: int) -> dict[str, list]:
  """{(method, figure): [tests whose interval was too low, too high, sum of widths, tests]}."""
  found: dict = {}
  true = truth(setting)

  def note(method, figure, span):
    row = found.setdefault((method, figure), [0, 0, 0.0, 0])
    if not math.isnan(span.low):
      row[0] += span.high < true[figure]
      row[1] += span.low > true[figure]
      row[2] += span.high - span.low
      row[3] += 1

  for test in range(first, last):
    rng = np.random.default_rng([77, test, SETTINGS.index(setting)])
    label, who, scores = simulate(setting, rng)
    subject = who.astype(str)
    nothing = np.full(label.size, '')
    people = bootstrap.people(label, nothing, subject, nothing, draws, seed=test)
    figures = {}
    for k, score in enumerate(scores):
      accepted = score >= setting.threshold
      figures[str(k)] = bootstrap.Figures(
        people,
        label,
        score,
        {'apcer': (accepted, label == 0), 'bpcer': (~accepted, label == 1)},
        means={'acer': ('apcer', 'bpcer')},
        fprs={'tpr@fpr=1e-2': 1e-2} if k == 0 else {},
        apcers={'bpcer@apcer=5%': 5e-2} if k == 0 else {},
        curves=k == 0,
      )
    drawn = bootstrap.draw(people, figures)
    for figure in list(true)[:-1]:
      note('bootstrap', figure, bootstrap.interval(drawn['0'][figure]))
    note(
      'bootstrap',
      'difference of acer',
      bootstrap.difference(drawn['0']['acer'], drawn['1']['acer'])[1],
    )
    rates = metrics.error_rates(label, scores[0], setting.threshold)
    exact = [
      intervals.clopper_pearson(c) for c in (rates.accepted_attack, rates.rejected_bona_fide)
    ]
    note('Clopper-Pearson', 'apcer', exact[0])
    note('Clopper-Pearson', 'bpcer', exact[1])
    note('Clopper-Pearson', 'acer', intervals.of_mean((rates.apcer, rates.bpcer), tuple(exact)))
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--tests', type=int, default=2000, help='simulated for each setting')
  parser.add_argument('--draws', type=int, default=bootstrap.DRAWS, help='of each bootstrap')
  parser.add_argument('--settings', type=int, default=len(SETTINGS), help='so many, the first')
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path(__file__).parent)
  args = parser.parse_args()
  rows, start = [], time.monotonic()
  with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
    for setting in SETTINGS[: args.settings]:
      edges = np.linspace(0, args.tests, 4 * os.cpu_count() + 1).astype(int)
      parts = [
        pool.submit(hits, setting, int(a), int(b), args.draws)
        for a, b in zip(edges[:-1], edges[1:], strict=True)
      ]
      parts = [part.result() for part in parts]
      for key in parts[0]:
        low, high, width, n = (sum(part[key][i] for part in parts) for i in range(4))
        method, figure = key
        rows.append(
          {
            'setting': setting.name,
            'method': method,
            'figure': figure,
            'truth': f'{truth(setting)[figure]:.5f}',
            'tests': n,
            'coverage_percent': f'{100 * (1 - (low + high) / n):.2f}',
            'too_low_percent': f'{100 * low / n:.2f}',
            'too_high_percent': f'{100 * high / n:.2f}',
            'mean_width': f'{width / n:.5f}',
          }
        )
        print('{setting:<30} {method:<16} {figure:<20} {coverage_percent:>6} %'.format(**rows[-1]),
              flush=True)  # fmt: skip
  with (args.out / 'coverage.csv').open('w', newline='') as file:
    writer = csv.DictWriter(file, rows[0].keys(), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
  print(f'{time.monotonic() - start:.0f} s; written: {args.out}/coverage.csv')


if __name__ == '__main__':
  main()
