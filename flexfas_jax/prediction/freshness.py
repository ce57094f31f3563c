"""Which images are not of the same moment, or not of now."""

import math
import numbers
from collections.abc import Mapping, Sequence

from flexfas_jax import schema
from flexfas_jax.errors import ConfigError

NOW = 'now'  # the clock's reading among the times
TOLERANCE = 0.05  # seconds by which a time may be later than now: clocks are read one by one


def stale(
  modalities: Sequence[str],
  times: Mapping[str, float] | None,
  max_skew: float | None = None,
  max_age: float | None = None,
) -> dict[str, str]:
  """The modalities whose image cannot be used because of its time, each with the reason.

  The first modality with a usable time is the one that the others are compared with: RGB, where it
  is given. A time that is not finite means that the sensor has lost its clock.

  Args:
    modalities: that images are given of, in the model's order.
    times: {modality: seconds, by one clock}, and perhaps 'now'. With 'now', an image that is later
      by more than `TOLERANCE` is from the future: its clock, or this one, is wrong.
    max_skew: seconds by which two images of one moment may differ; None: not compared.
    max_age: seconds by which an image may be older than now; None: not compared. This detects a
      video that stands still: all sensors stop together, and none is late.

  Raises:
    ConfigError: a limit that is not a finite number from 0 on, or lacks a time that it needs; times
      without a limit; a name that is no modality; a time that is no number; a 'now' that is not
      finite.
  """
  for name, limit in (('max_skew', max_skew), ('max_age', max_age)):
    if limit is not None and not 0 <= _number(name, limit) < math.inf:  # nan neither
      raise ConfigError(f'{name} is {limit}; give a finite number of seconds, 0 or more')
  limited = max_skew is not None or max_age is not None
  if times and not limited:
    raise ConfigError('times do nothing without max_skew or max_age')
  if unknown := [name for name in times or {} if name not in (*schema.MODALITIES, NOW)]:
    names = ', '.join((*schema.MODALITIES, NOW))
    raise ConfigError(f'a time of {unknown[0]!r}; there can be times of {names}')
  times = {name: _number(f'the time of {name}', time) for name, time in (times or {}).items()}
  if NOW in times and not math.isfinite(times[NOW]):
    raise ConfigError(f'the time of now is {times[NOW]}: the clock that ages are measured by fails')
  due = [*(modalities if limited else ()), *([NOW] if max_age is not None else [])]
  if missing := [name for name in due if name not in times]:
    raise ConfigError(f'max_skew and max_age need a time of every image: {missing[0]} has none')
  found = {}
  for modality in modalities if limited else ():
    if not math.isfinite(times[modality]):
      found[modality] = f'{modality} has no time ({times[modality]})'
      continue
    age = times[NOW] - times[modality] if NOW in times else 0.0
    if age < -TOLERANCE:
      found[modality] = f'{modality} is from the future: {_ms(-age)} later than now'
    elif max_age is not None and age > max_age:
      found[modality] = f'{modality} is {_ms(age)} old, more than {_ms(max_age)}'
  fresh = [m for m in modalities if limited and m not in found]
  for modality in fresh[1:] if max_skew is not None else ():
    apart = times[modality] - times[fresh[0]]
    if abs(apart) > max_skew:
      found[modality] = (
        f'{modality} is {_ms(abs(apart))} {"later" if apart > 0 else "earlier"} than {fresh[0]}, '
        f'more than {_ms(max_skew)}'
      )
  return found


def _number(name: str, value) -> float:
  """A float of a Python or NumPy number.

  Raises:
    ConfigError: it is not one, or too large for a float.
  """
  try:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
      raise TypeError
    return float(value)
  except (TypeError, OverflowError):
    kind = type(value).__name__
    raise ConfigError(f'{name} is not a number of seconds, but of type {kind}') from None


def _ms(seconds: float) -> str:
  return f'{1000 * seconds:.0f} ms'
