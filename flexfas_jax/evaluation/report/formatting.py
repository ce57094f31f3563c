"""How metrics, names and p values are printed: in the report, in tables and on the terminal."""

import math
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple

from flexfas_jax.evaluation import pass_if, results
from flexfas_jax.evaluation.comparisons import NO_DIFFERENCE, Comparison
from flexfas_jax.evaluation.evaluate import EvaluationResult
from flexfas_jax.evaluation.intervals import Interval
from flexfas_jax.evaluation.metrics import BY_NAME, Count

MINUS = '\N{MINUS SIGN}'
NOTHING = '\N{EN DASH}'
NOT_SERVED = 'not served'
NOT_RECORDED = 'not recorded'
NO_THRESHOLD = 'no threshold in the bundle'
UNDEFINED = 'undefined'
LONGEST = 60  # letters of a name that are shown; pages have the whole name as a title
TABLE_DIGITS = 2  # decimals of a percentage in tables of text; the report uses `digits_of`
TOO_SMALL = 'n too small'
PASS, FAIL, NO_REQUIREMENT = 'PASS', 'FAIL', 'no requirement given'


class Cell(NamedTuple):
  """One figure, as it is written."""

  text: str  # '3.2', or why there is none
  plain: bool  # whether the text is a number
  bootstrap: str = ''  # '[1.1, 5.4]': the bootstrap's interval
  exact: str = ''  # over samples, see `evaluate.Estimate.method`
  count: str = ''  # '7/240'
  n_subjects: str = ''


def printable(text) -> str:
  """A text of which nothing can act on who shows it: controls and direction marks become '?'."""
  text = str(text)
  if text.isprintable():
    return text
  return ''.join('?' if _is_control(c) and c != '\n' else c for c in text)


def _is_control(character: str) -> bool:
  category = unicodedata.category(character)
  return category[0] == 'C' or category in ('Zl', 'Zp')


def short(text, most: int = 32) -> str:
  """A name from a file, safe to show, its middle left out where it is long."""
  text = printable(text).replace('\n', '?')
  if len(text) <= most:
    return text
  return f'{text[: most // 2]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - most // 2 + 1 :]}'


def display_name(subset: str) -> str:
  """The name of a subset for readers; a system with the single column `score` has its own name."""
  system, colon, sensors = subset.rpartition(': ')
  return system if colon and sensors == 'score' else subset


def metric(name: str) -> str:
  """A metric's name for readers."""
  if name in BY_NAME:
    return BY_NAME[name].title
  _, slash, kind = name.partition('/')
  if slash:
    return f'APCER of {kind}'
  return f'{BY_NAME[name.removesuffix("_fta")].title}, unusable as FTA'


def digits_of(result: EvaluationResult) -> int:
  """Decimals of a percentage: as many as the size of the smaller class resolves."""
  n = min((n for n in class_sizes(result) if n), default=1)
  return 1 if n < 1000 else 2 if n < 100_000 else 3


def class_sizes(result: EvaluationResult) -> tuple[int, int]:
  """(bona fide samples, attacks)."""
  n = int((result.scores.label == 1).sum())
  return n, result.scores.label.size - n


def percent(value: float, digits: int = 1) -> str:
  """A fraction in percent without the sign; with more digits where 0 or 100 would be printed."""
  if math.isnan(value):
    return UNDEFINED
  while digits < 4 and 0 < abs(value) < 1 and float(f'{100 * abs(value):.{digits}f}') in (0, 100):
    digits += 1
  return f'{100 * value:.{digits}f}'


def span(interval: Interval, digits: int = 1) -> str:
  """'[1.1, 5.4]' in percent; '' where undefined."""
  if math.isnan(interval.low):
    return ''
  return f'[{percent(interval.low, digits)}, {percent(interval.high, digits)}]'


def points(value: float, digits: int = 1) -> str:
  """A difference in percentage points, with its sign."""
  text = percent(value, digits)
  return f'+{text}' if value > 0 else text


def points_span(interval: Interval, digits: int = 1) -> str:
  """'[-1.1, +5.4]' in percentage points; '' where undefined."""
  if math.isnan(interval.low):
    return ''
  return f'[{points(interval.low, digits)}, {points(interval.high, digits)}]'


def p_value(p: float) -> str:
  """A p value with two significant digits."""
  if math.isnan(p):
    return UNDEFINED
  return '< 0.0001' if p < 1e-4 else f'{p:.2g}' if p < 0.1 else f'{p:.2f}'


def fraction(count: Count) -> str:
  """'7/240'."""
  return f'{count.errors}/{count.n}'


def too_small(count: Count | None) -> str:
  """'n too small (1/12)'."""
  return f'{TOO_SMALL} ({fraction(count)})' if count else TOO_SMALL


def sentence(comparison: Comparison, digits: int = TABLE_DIGITS, minus: str = '-') -> str:
  """A comparison as one line of text, without a full stop.

  Args:
    comparison: of systems or subsets a and b.
    digits: decimals of percentage points.
    minus: the minus sign.
  """
  a, b = display_name(comparison.a), display_name(comparison.b)
  if comparison.insufficient_samples:
    return f'{b} and {a} are not compared: {TOO_SMALL}'
  difference = comparison.rates.get('acer')
  if difference is None:
    opening, parts = f'{b} and {a}, without a bootstrap', []
  elif math.isnan(difference.value):
    opening, parts = f'{b} and {a}', ['ACER undefined']
  else:
    value, interval, p = difference
    if comparison.verdict == NO_DIFFERENCE:
      opening = f'{b} and {a} do not differ significantly'
      change = f'{points(value, digits)} points {points_span(interval, digits)}'
      change = change.rstrip().replace('-', minus)
    else:
      opening = f'{b} is {comparison.verdict} than {a}'
      if not comparison.runs.several:
        opening = f'{b} differs from {a} in one run'
      if lower := value < 0:
        interval = Interval(-interval.high, -interval.low)
      change = f'{"lower" if lower else "higher"} by {percent(abs(value), digits)} points '
      change += span(interval, digits)
    parts = [f'ACER {change}, p {p_value(p)}, Holm p {p_value(comparison.p_holm)}']
  for name, samples in (('bona fide', comparison.bona_fide), ('attacks', comparison.attacks)):
    if samples and not math.isnan(samples.p):
      parts.append(
        f'{name}: {samples.only_b_correct} fixed, {samples.only_a_correct} regressed '
        f'(McNemar p {p_value(samples.p)})'
      )
  if not parts:
    parts = ['all decisions are equal' if comparison.attacks else 'means over runs need one']
  return f'{opening}: ' + '; '.join(parts)


def rate_or_reason(value: float, served: bool, insufficient: bool) -> str:
  """A rate in percent, or why it is not printed: not served, undefined, n too small."""
  if not served:
    return '-'
  return TOO_SMALL if insufficient and not math.isnan(value) else percent(value, TABLE_DIGITS)


def with_interval(estimate) -> str:
  """'1.10 [0.62, 1.80]', or why there is no rate.

  Args:
    estimate: an `evaluate.Estimate` or a `groups.Group`; None is undefined. The interval is the
      bootstrap's; without one, that over samples.
  """
  if estimate is None or math.isnan(estimate.value):
    return UNDEFINED
  if estimate.insufficient_samples:
    return too_small(estimate.count)
  interval = estimate.exact if math.isnan(estimate.bootstrap.low) else estimate.bootstrap
  return f'{percent(estimate.value, TABLE_DIGITS)} {span(interval, TABLE_DIGITS)}'.rstrip()


def with_run_interval(mean) -> str:
  """'1.10 [0.20, 3.90]' of an `evaluate.RunMean`, or why there is no rate; None is undefined."""
  if mean is None or math.isnan(mean.value):
    return UNDEFINED
  if mean.insufficient_samples:
    return TOO_SMALL
  return f'{percent(mean.value, TABLE_DIGITS)} {span(mean.bootstrap, TABLE_DIGITS)}'.rstrip()


def verdict_word(result: EvaluationResult, system: str | None = None) -> str:
  """'PASS', 'FAIL' or 'no requirement given', of a system; None: of the first one."""
  for verdict in result.verdicts:
    if system in (None, verdict.system):
      return PASS if verdict.passed else FAIL
  return NO_REQUIREMENT


def requirement(result: EvaluationResult) -> str:
  """The requirement and what it is compared with; '' without one."""
  required = result.requirement
  if required is None:
    return ''
  at = (
    'figures as they are'
    if required.at == pass_if.POINT
    else 'the limits of the 95 % intervals, the worse of both'
  )
  return f'{", ".join(dict.fromkeys(map(criterion, required.criteria)))}; compared are {at}'


def criterion(one: pass_if.Criterion) -> str:
  """'APCER, max at most 5 %'."""
  named = f' of {one.subset}' if one.subset else ''
  return f'{short(metric(one.metric), LONGEST)}{named} {_bound(one)}'


def _bound(one: pass_if.Criterion) -> str:
  return f'{"at least" if one.higher_is_better else "at most"} {100 * float(one.bound):.6g} %'


def check_reason(check: pass_if.Check, digits: int = TABLE_DIGITS) -> str:
  """Why a subset meets a criterion or not: 'rgb: BPCER up to 6.1 % (interval over subjects)'."""
  name = f'{display_name(check.subset)}: {short(metric(check.criterion.metric), LONGEST)}'
  match check.why:
    case pass_if.NOT_SERVED:
      return f'{display_name(check.subset)}: not served'
    case pass_if.NOT_RECORDED:
      return f'{display_name(check.subset)}: {NOT_RECORDED}, no sample has all of its sensors'
    case pass_if.INSUFFICIENT:
      return f'{name}: {TOO_SMALL}'
    case pass_if.ORACLE:
      return f'{name}: ORACLE, the threshold was fitted on the test samples'
    case pass_if.UNKNOWN_ATTACK:
      return f'{name}: no such attack in the test, which has {pass_if.list_attacks(check.attacks)}'
    case pass_if.UNDEFINED:
      return f'{name}: {UNDEFINED}'
  if check.at == pass_if.POINT:
    return f'{name} {_against(check.value, check, digits)}'
  up_to = 'down to' if check.criterion.higher_is_better else 'up to'
  return f'{name} {up_to} {_against(check.limit, check, digits)} (interval over {check.over})'


def _against(value: float, check: pass_if.Check, digits: int) -> str:
  """A percentage with as many digits as distinguish it from the bound."""
  bound = float(check.criterion.bound)
  while (
    digits < 9 and value != bound and float(percent(value, digits)) == float(f'{100 * bound:.9g}')
  ):
    digits += 1
  return f'{percent(value, digits)} %'


def verdict_lines(result: EvaluationResult) -> list[str]:
  """'PASS: ...' of each system, then its reasons: of FAIL what is not met, of PASS the closest."""
  if result.requirement is None:
    return []
  lines, several = [], len(result.verdicts) > 1
  for verdict in result.verdicts:
    of = f' {verdict.system}' if several and verdict.system else ''
    lines.append(f'{PASS if verdict.passed else FAIL}{of} ({requirement(result)})')
    lines += [f'  {reason}' for reason in reasons(verdict, digits_of(result))]
  return lines


def reasons(verdict: pass_if.Verdict, digits: int = TABLE_DIGITS) -> list[str]:
  """What decides a verdict, a line for each criterion: the subset that is farthest from meeting it.

  Of FAIL, the criteria that are not met; of PASS, all.
  """
  if not verdict.checks:
    return ['no subset is served']
  by_criterion: dict[pass_if.Criterion, list[pass_if.Check]] = {}
  for check in verdict.checks:
    if check.passed == verdict.passed:
      by_criterion.setdefault(check.criterion, []).append(check)
  lines = []
  for one, checks in by_criterion.items():
    worst = check_reason(max(checks, key=_excess), digits)
    of = f'the worst of {len(checks)} subsets, ' if len(checks) > 1 else ''
    lines.append(f'{of}{worst}, required {_bound(one)}')
  return lines


def _excess(check: pass_if.Check) -> float:
  """By how much a figure exceeds the bound; without a figure, it is compared last."""
  value = check.value if check.at == pass_if.POINT else check.limit
  bound = float(check.criterion.bound)
  excess = bound - value if check.criterion.higher_is_better else value - bound
  return -math.inf if check.why or math.isnan(excess) else excess


def typographic(text: str) -> str:
  """A number with the minus sign of typography, for the report."""
  return text.replace('-', MINUS)


def counts_of_species(
  result: EvaluationResult, subset: str, enough: bool = False
) -> dict[str, Count]:
  """Accepted attacks by PAI species, by category where no species is known; with `enough`, of those
  with enough samples and subjects alone."""
  found = result.estimates[subset]
  for prefix in ('apcer_species/', 'apcer/'):
    if of := {n.removeprefix(prefix): e for n, e in found.items() if n.startswith(prefix)}:
      return {n: e.count for n, e in of.items() if not (enough and e.insufficient_samples)}
  return {}


def is_small(result: EvaluationResult, subset: str, name: str) -> bool:
  """Whether the samples are too few to state this metric."""
  return result.estimates[subset][name].insufficient_samples


def why_no_figures(values: Mapping[str, Any]) -> str:
  """Why a subset has no figures: not recorded, no threshold, not served; values: its metrics."""
  if results.NO_THRESHOLD in values:
    return NO_THRESHOLD
  return NOT_RECORDED if results.NOT_RECORDED in values else NOT_SERVED


def rate(result: EvaluationResult, subset: str, name: str, digits: int) -> str:
  """'3.2 %', or why there is no figure."""
  one = cell(result, subset, name, digits)
  return f'{one.text} %' if one.plain else one.text


def cell(result: EvaluationResult, subset: str, name: str, digits: int | None = None) -> Cell:
  """One figure of one subset, as it is written.

  Args:
    result: of the test.
    subset: served or not.
    name: of the metric.
    digits: decimals; None: `digits_of`.
  """
  if subset not in result.estimates:
    return Cell(why_no_figures(result.metrics[subset]), False)
  estimate = result.estimates[subset].get(name)
  if estimate is None:
    return Cell(NOTHING, False)
  if math.isnan(estimate.value):
    return Cell(UNDEFINED, False)
  count = fraction(estimate.count) if estimate.count else ''
  if is_small(result, subset, name):
    return Cell(too_small(estimate.count), False, count=count)
  digits = digits_of(result) if digits is None else digits
  return Cell(
    percent(estimate.value, digits),
    True,
    span(estimate.bootstrap, digits),
    span(estimate.exact, digits),
    count,
    str(estimate.n_subjects) if estimate.n_subjects else '',
  )
