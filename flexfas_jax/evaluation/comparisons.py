"""Paired comparisons of systems, and of subsets of sensors, on the same samples.

Decisions are compared by McNemar's exact test, rates by the bootstrap over subjects with shared
replicates. McNemar's test assumes independent samples; with several frames per subject, use the
bootstrap. A method with several training runs is compared by the means over its runs, with
intervals over runs and subjects (`runs`). Of one run, a comparison holds for the trained model at
hand alone, and no method is called better.

  [McN]   McNemar, Note on the sampling error of the difference between correlated proportions or
          percentages (Psychometrika, 1947); exact: the binomial test of the discordant samples.
  [Holm]  Holm, A simple sequentially rejective multiple test procedure (Scandinavian Journal of
          Statistics, 1979).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flexfas_jax.evaluation import bootstrap, intervals, metrics
from flexfas_jax.evaluation import runs as training_runs
from flexfas_jax.evaluation.intervals import Interval

# That are compared.
RATES = (
  *('acer', 'apcer', 'apcer_max', 'bpcer', 'eer', 'auc'),
  *('tpr@fpr=1e-2', 'tpr@fpr=1e-3', 'tpr@fpr=1e-4'),
)
NO_DIFFERENCE = 'no significant difference'


class Discordant(NamedTuple):
  """Samples that one of two systems decides rightly and the other wrongly."""

  only_a_correct: int
  only_b_correct: int
  p: float  # two-sided, exact; NaN where there is none


class Difference(NamedTuple):
  """b - a of a rate."""

  value: float
  interval: Interval
  p: float


class Runs(NamedTuple):
  """The training runs that are compared."""

  a: int = 1
  b: int = 1
  paired: bool = False  # whether run i of b belongs to run i of a

  @property
  def several(self) -> bool:
    """Whether the spread of the runs of both is known."""
    return self.a > 1 and self.b > 1


@dataclasses.dataclass(frozen=True)
class Comparison:
  """System b against system a."""

  a: str
  b: str
  bona_fide: Discordant | None  # None: of several runs
  attacks: Discordant | None
  rates: Mapping[str, Difference]
  p_holm: float = math.nan  # of the ACER, for all comparisons that were made
  insufficient_samples: bool = False  # samples or subjects for an ACER, see `sufficiency`
  runs: Runs = Runs()

  @property
  def verdict(self) -> str:
    """'better', 'worse' or 'no significant difference': b against a, over runs and subjects.

    By the interval of the difference in ACER and its p value after Holm's correction. If a or b is
    one run: 'lower in one run' or 'higher in one run', of the ACER, over subjects: another training
    may differ.
    """
    if 'acer' not in self.rates or self.insufficient_samples:
      return NO_DIFFERENCE
    low, high = self.rates['acer'].interval
    if math.isnan(self.p_holm) or self.p_holm > 0.05 or low <= 0 <= high:
      return NO_DIFFERENCE
    if self.runs.several:
      return 'better' if high < 0 else 'worse'
    return 'lower in one run' if high < 0 else 'higher in one run'


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> Discordant:
  """The exact test of whether one of two systems is right more often.

  Args:
    right_a, right_b: [N] bool, whether each decided a sample rightly.
  """
  from scipy.special import bdtr

  a, b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
  p = min(1.0, 2 * float(bdtr(min(a, b), a + b, 0.5))) if a + b else math.nan
  return Discordant(a, b, p)


def compare(
  a: str,
  b: str,
  label: np.ndarray,
  accepted: Mapping[str, np.ndarray],
  drawn: Mapping[str, Mapping[str, bootstrap.Replicates]] | None,
  runs: Mapping[str, Sequence[str]] | None = None,
  paired: bool = False,
) -> Comparison:
  """One system, or method with several runs, against another.

  Args:
    a, b: their names.
    label: [N] integer, 1 = bona fide.
    accepted: by system, or run: [N] bool.
    drawn: by system, or run, and figure, from one `bootstrap.resample`; None without one.
    runs: the runs of a and b; None: each is its own.
    paired: whether run i of b belongs to run i of a.
  """
  bona_fide = np.asarray(label) == 1
  of_a, of_b = (runs[name] if runs else (name,) for name in (a, b))
  rates = {}
  for name in RATES if drawn else ():
    if all(name in drawn[run] for run in (*of_a, *of_b)):
      sides = ([drawn[run][name] for run in of] for of in (of_a, of_b))
      rates[name] = Difference(*training_runs.difference(*sides, paired))
  decided = [None, None]
  if len(of_a) == len(of_b) == 1:
    right = [accepted[run] == bona_fide for run in (*of_a, *of_b)]
    decided = [mcnemar(*(x[which] for x in right)) for which in (bona_fide, ~bona_fide)]
  return Comparison(a, b, *decided, rates, runs=Runs(len(of_a), len(of_b), paired))


def apply_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
  """The same, their p of the ACER corrected for how many they are [Holm]."""
  ps = holm([c.rates['acer'].p if 'acer' in c.rates else math.nan for c in comparisons])
  return [dataclasses.replace(c, p_holm=p) for c, p in zip(comparisons, ps, strict=True)]


def holm(ps: Sequence[float]) -> list[float]:
  """p values corrected for how many they are [Holm]; those that are NaN do not count."""
  corrected, most = list(map(float, ps)), 0.0
  ordered = [i for i in np.argsort(ps) if not math.isnan(ps[i])]
  for rank, i in enumerate(ordered):
    most = max(most, min(1.0, (len(ordered) - rank) * ps[i]))
    corrected[i] = most
  return corrected


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
  """Which systems are compared: a subset of sensors with each larger one that includes it; of
  several systems, the same subset of the first one and of each other."""
  parts = {name: _system_and_sensors(name) for name in names}
  found = []
  for i, a in enumerate(names):
    for b in names[i + 1 :]:
      (system_a, sensors_a), (system_b, sensors_b) = parts[a], parts[b]
      if system_a == system_b:
        if sensors_a < sensors_b:
          found.append((a, b))
        elif sensors_b < sensors_a:
          found.append((b, a))
      elif sensors_a == sensors_b and system_a == parts[names[0]][0]:
        found.append((a, b))
  return found


def _system_and_sensors(name: str) -> tuple[str, frozenset[str]]:
  """'SYSTEM: rgb+depth', or the sensors alone."""
  system, _, sensors = name.rpartition(': ')
  return system, frozenset(sensors.split('+'))


class Gain(NamedTuple):
  """What a sensor changes for the attacks of one kind, or for bona fide samples."""

  kind: str  # a category or species; 'bona fide'
  n: int
  errors_before: int
  fixed: int  # of these errors
  regressed: int  # new errors
  insufficient_samples: bool  # samples or subjects, see `sufficiency`


@dataclasses.dataclass(frozen=True)
class SensorEffect:
  """What is gained when a subset gets one more sensor."""

  before: str
  after: str
  gains: tuple[Gain, ...]

  @property
  def added(self) -> str:
    before, after = _system_and_sensors(self.before)[1], _system_and_sensors(self.after)[1]
    return '+'.join(sorted(after - before))


def sensor_effects(
  names: Sequence[str],
  label: np.ndarray,
  accepted: Mapping[str, np.ndarray],
  kinds: metrics.Groups | None,
  insufficient_samples: Callable[[np.ndarray], bool] = lambda among: intervals.insufficient_samples(
    int(among.sum())
  ),
) -> list[SensorEffect]:
  """What each added sensor stops, by kind of attack.

  Args:
    names: the subsets.
    label: [N] integer, 1 = bona fide.
    accepted: by subset: [N] bool.
    kinds: of the attacks; None where none is known.
    insufficient_samples: whether a rate over some samples, [N] bool, has insufficient samples, see
      `sufficiency.SampleUnits`.
  """
  bona_fide = np.asarray(label) == 1
  members = {'bona fide': bona_fide}
  if kinds:
    for i, name in enumerate(kinds.names):
      of = (kinds.index == i) & ~bona_fide
      if of.any():
        members[name or metrics.UNKNOWN] = of
  else:
    members['attacks'] = ~bona_fide
  few = {kind: insufficient_samples(of) for kind, of in members.items()}
  found = []
  for a, b in pairs(names):
    before, after = (_system_and_sensors(name)[1] for name in (a, b))
    if len(after) != len(before) + 1:  # several more, or two systems with the same
      continue
    wrong_a, wrong_b = (accepted[name] != bona_fide for name in (a, b))
    gains = tuple(
      Gain(
        kind,
        int(of.sum()),
        int((of & wrong_a).sum()),
        int((of & wrong_a & ~wrong_b).sum()),
        int((of & ~wrong_a & wrong_b).sum()),
        few[kind],
      )
      for kind, of in members.items()
    )
    found.append(SensorEffect(a, b, gains))
  return found
