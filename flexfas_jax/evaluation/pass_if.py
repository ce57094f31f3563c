"""Stated requirements on a test, such as 'apcer_max<=5%,bpcer<=3%', and whether they are met.

Without a requirement there is no verdict: it must be stated before the test. It is compared with
the limit of the 95 % interval, because a rate of 0 of 12 samples shows little, or with the figure
itself if it has `at=point`.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from flexfas_jax.errors import ConfigError
from flexfas_jax.evaluation import metrics, thresholds
from flexfas_jax.evaluation.intervals import Interval

LIMIT, POINT = AT = ('limit', 'point')
MIN_REPLICATES = 200  # of the bootstrap: the limits of 95 % are then the fifth of each side
EXAMPLE = 'apcer_max<=5%,bpcer<=3%'
_RATES_BY_ATTACK = ('apcer/', 'apcer_species/')
_AS_FTA = ('acer_fta', 'apcer_fta', 'bpcer_fta')
# Why a criterion is not met, apart from its figure.
INSUFFICIENT, UNDEFINED, NOT_SERVED, ORACLE = 'insufficient', 'undefined', 'not_served', 'oracle'
NOT_RECORDED = 'not_recorded'  # no sample has a modality of the subset
UNKNOWN_ATTACK = 'unknown_attack'  # the test has no attack of that name
_LISTED = 20  # names of attacks that an error or a reason lists


class UnknownMetric(ConfigError):
  """A requirement names no metric, or an attack that the test does not have."""


class Criterion(NamedTuple):
  """One part of a requirement."""

  subset: str  # '' for every subset that is served
  metric: str
  bound: Fraction
  higher_is_better: bool  # the figure must be at least the bound; otherwise at most


class Requirement(NamedTuple):
  """All parts of a requirement, and what they are compared with."""

  text: str
  at: str  # of `AT`: the limit of the interval, or the point value
  criteria: tuple[Criterion, ...]


class Figure(NamedTuple):
  """A figure of a subset, with its intervals by what they are over ('subjects', 'samples')."""

  value: float
  intervals: Mapping[str, Interval]
  insufficient_samples: bool


class Check(NamedTuple):
  """A criterion, applied to one subset."""

  subset: str
  criterion: Criterion
  at: str
  passed: bool
  value: float  # of the metric; NaN where it is not stated
  limit: float  # that is compared if `at` is LIMIT; NaN without one
  over: str  # what the interval of that limit is over
  why: str  # one of the constants above; '' where figures are compared
  attacks: tuple[str, ...] = ()  # of UNKNOWN_ATTACK: the rates by attack that the test has


class Verdict(NamedTuple):
  """Whether a system meets the requirement in a test."""

  system: str  # '' where there is one
  checks: tuple[Check, ...]

  @property
  def passed(self) -> bool:
    """Whether something was checked, and all of it is met."""
    return bool(self.checks) and all(check.passed for check in self.checks)


def parse(text: str, attacks: Sequence[str] | None = None) -> Requirement | None:
  """Reads a requirement.

  Args:
    text: '[SUBSET:]METRIC<=SHARE,...', '>=' for figures of which a higher one is better, and
      perhaps 'at=point'. '' states no requirement.
    attacks: the rates by attack that the test has, from `results.rates_by_attack`; None: not known.

  Returns:
    A `Requirement`; None without one.

  Raises:
    UnknownMetric: an unknown metric, or an attack that is not among `attacks`.
    ConfigError: another form, the wrong direction, or no share.
  """
  if not isinstance(text, str):
    raise ConfigError(f"pass_if is {text!r}; give a text such as '{EXAMPLE}'")
  criteria, at = [], LIMIT
  for part in filter(None, (part.strip() for part in text.split(','))):
    name, equals, value = part.partition('=')
    if name.strip() == 'at' and equals:
      at = value.strip()
      if at not in AT:
        raise ConfigError(f'pass_if: {part!r}; choose at=limit (of the 95 % interval) or at=point')
      continue
    criteria.append(_criterion(part, attacks))
  if text.strip() and not criteria:
    raise ConfigError(f"pass_if={text!r} requires nothing; write e.g. '{EXAMPLE}'")
  return Requirement(text.strip(), at, tuple(criteria)) if criteria else None


def _criterion(part: str, attacks: Sequence[str] | None) -> Criterion:
  sign = next((sign for sign in ('<=', '>=') if sign in part), None)
  if sign is None:
    raise ConfigError(f"pass_if: {part!r} is no requirement; write e.g. '{EXAMPLE}'")
  left, _, right = (side.strip() for side in part.partition(sign))
  # Names of species may have colons: the first split that leaves a metric is the one.
  splits = [('', left)]
  splits += [(left[:i].strip(), left[i + 1 :].strip()) for i, c in enumerate(left) if c == ':']
  found = [(subset, metric) for subset, metric in splits if _is_metric(metric)]
  if not found:
    known = ', '.join(name for name in metrics.BY_NAME if _is_metric(name))
    if attacks is None:
      of_attacks = 'apcer_species/NAME or apcer/NAME of an attack, which the report names'
    else:
      of_attacks = list_attacks(attacks)
    raise UnknownMetric(f'pass_if: {part!r} names no metric; choose from: {known}, {of_attacks}')
  subset, metric = found[0]
  if attacks is not None and _is_by_attack(metric) and metric not in attacks:
    raise UnknownMetric(
      f'pass_if: {part!r}: the test has no {metric}; it has: {list_attacks(attacks)}'
    )
  higher = metric in metrics.BY_NAME and metrics.BY_NAME[metric].higher_is_better
  if higher != (sign == '>='):
    raise ConfigError(
      f'pass_if: {part!r} has the wrong direction: of {metric}, '
      f'{"higher" if higher else "lower"} is better; write {metric}{">=" if higher else "<="}...'
    )
  try:
    bound = thresholds.share(right)
    if not 0 <= bound <= 1:
      raise ValueError
  except ValueError:
    raise ConfigError(
      f'pass_if: {part!r}: {right!r} is no share; write 5% or 0.05, from 0 to 100 %'
    ) from None
  return Criterion(subset, metric, bound, higher)


def _is_metric(name: str) -> bool:
  if metric := metrics.BY_NAME.get(name):
    return not (metric.oracle or isinstance(metric, metrics.Fact))
  return _is_by_attack(name) or name in _AS_FTA


def _is_by_attack(name: str) -> bool:
  return any(name.startswith(prefix) and name != prefix for prefix in _RATES_BY_ATTACK)


def list_attacks(names: Sequence[str]) -> str:
  """The rates by attack as an error lists them, not more than a reader takes in."""
  more = f' and {len(names) - _LISTED} more' if len(names) > _LISTED else ''
  return (', '.join(names[:_LISTED]) + more) or 'no attack with a name'


def evaluate(
  requirement: Requirement,
  figures: Mapping[str, Mapping[str, Figure]],
  not_served: Sequence[str] = (),
  oracle: bool = False,
  not_recorded: Collection[str] = (),
) -> tuple[Verdict, ...]:
  """Applies a requirement to each subset that it names, of every system.

  Args:
    requirement: from `parse`.
    figures: by 'SYSTEM: SUBSET', or by subset where there is one system, and by metric; of the
      subsets that are served.
    not_served: names of further subsets. Only a criterion that names one fails for it.
    oracle: whether thresholds were fitted on the test: then nothing is met.
    not_recorded: those of `not_served` with a modality that no sample has.

  Returns:
    A verdict for every system, in the order of `figures`.

  Raises:
    ConfigError: a criterion names a subset that no system has.
  """
  by_system: dict[str, list[Check]] = {}
  for name in (*figures, *not_served):
    by_system.setdefault(name.rpartition(': ')[0], [])
  for criterion in requirement.criteria:
    found = [name for name in figures if _is_of(criterion, name)]
    absent = [name for name in not_served if criterion.subset and _is_of(criterion, name)]
    if criterion.subset and not (found or absent):
      raise ConfigError(
        f'pass_if names the subset {criterion.subset!r}; the scores have: '
        f'{", ".join((*figures, *not_served))}'
      )
    for name in found:
      figure = figures[name].get(criterion.metric)
      check = _check(requirement.at, criterion, name, figure, oracle)
      if figure is None and _is_by_attack(criterion.metric):
        attacks = tuple(metric for metric in figures[name] if _is_by_attack(metric))
        check = check._replace(why=UNKNOWN_ATTACK, attacks=attacks)
      by_system[name.rpartition(': ')[0]].append(check)
    for name in absent:
      why = NOT_RECORDED if name in not_recorded else NOT_SERVED
      failed = Check(name, criterion, requirement.at, False, math.nan, math.nan, '', why)
      by_system[name.rpartition(': ')[0]].append(failed)
  return tuple(Verdict(system, tuple(checks)) for system, checks in by_system.items())


def _is_of(criterion: Criterion, name: str) -> bool:
  return criterion.subset in ('', name, name.rpartition(': ')[2])


def _check(at: str, criterion: Criterion, name: str, figure: Figure | None, oracle: bool) -> Check:
  undefined = figure is None or math.isnan(figure.value)
  insufficient = figure is not None and figure.insufficient_samples
  why = ORACLE if oracle else UNDEFINED if undefined else INSUFFICIENT if insufficient else ''
  if figure is None or undefined or insufficient:
    return Check(name, criterion, at, False, math.nan, math.nan, '', why)
  limit, over = _limit(figure, criterion.higher_is_better)
  compared = figure.value if at == POINT else limit
  # Both are correctly rounded, so that 3 of 60 samples are at most 5 %. No interval meets nothing.
  bound = float(criterion.bound)
  met = compared >= bound if criterion.higher_is_better else compared <= bound
  if not why and math.isnan(compared):
    why = UNDEFINED
  return Check(name, criterion, at, met and not oracle, figure.value, limit, over, why)


def _limit(figure: Figure, higher_is_better: bool) -> tuple[float, str]:
  """The worse limit of the intervals, and what that interval is over."""
  limits = {
    over: interval.low if higher_is_better else interval.high
    for over, interval in figure.intervals.items()
    if not math.isnan(interval.low)
  }
  if not limits:
    return math.nan, ''
  over = (min if higher_is_better else max)(limits, key=limits.__getitem__)
  return limits[over], over


def to_json(check: Check) -> dict:
  """A check for results.json; what is not defined is null."""
  return {
    'metric': check.criterion.metric,
    'relation': '>=' if check.criterion.higher_is_better else '<=',
    'bound': float(check.criterion.bound),
    'at': check.at,
    'passed': check.passed,
    'value': check.value,
    'limit': check.limit,
    'over': check.over or None,
    'why_not': check.why or None,
  }
