"""Finds images that were taken at another moment than the others, or too long ago."""

import math
import numbers
from collections.abc import Mapping, Sequence

from flexfas_jax import schema
from flexfas_jax.errors import ConfigError

NOW = 'now'  # key of the current time
TOLERANCE = 0.05  # seconds by which a time may be later than now: clocks are not read at once


def find_stale(
  modalities: Sequence[str],
  times: Mapping[str, float] | None,
  max_skew: float | None = None,
  max_age: float | None = None,
) -> dict[str, str]:
  """Finds the modalities whose image is unusable because of its time.

  Images are compared with the first modality that has a usable time: RGB, if it is given. A time
  that is not finite means that the sensor has lost its clock.

  Args:
    modalities: the given modalities, in the model's order.
    times: {modality: seconds by one clock}, optionally with 'now'. With 'now', an image that is
      later by more than `TOLERANCE` is from the future: one of the clocks is wrong.
    max_skew: largest difference between two images of a sample, in seconds; None: not checked.
    max_age: largest age of an image, in seconds; None: not checked. It detects a frozen video, in
      which no image is late with respect to the others.

  Returns:
    {modality: reason}.

  Raises:
    ConfigError: a limit that is not a finite number of at least 0, or lacks a time that it
      requires; times without a limit; an unknown modality; a time that is not a number; a 'now'
      that is not finite.
  """
  for name, limit in (('max_skew', max_skew), ('max_age', max_age)):
    if limit is not None and not 0 <= _number(name, limit) < math.inf:  # nan neither
      raise ConfigError(f'{name} is {limit}; give a finite number of seconds, 0 or more')
  limited = max_skew is not None or max_age is not None
  if times and not limited:
    raise ConfigError('times have no effect without max_skew or max_age')
  if unknown := [name for name in times or {} if name not in (*schema.MODALITIES, NOW)]:
    names = ', '.join((*schema.MODALITIES, NOW))
    raise ConfigError(f'a time of {unknown[0]!r}; expected times of {names}')
  times = {name: _number(f'the time of {name}', time) for name, time in (times or {}).items()}
  if NOW in times and not math.isfinite(times[NOW]):
    raise ConfigError(f'the time of now is {times[NOW]}: the clock fails')
  if not limited:
    return {}
  required = [*modalities, NOW] if max_age is not None else modalities
  if missing := [name for name in required if name not in times]:
    raise ConfigError(f'max_skew and max_age require a time of every image: {missing[0]} has none')
  stale = {}
  for modality in modalities:
    if not math.isfinite(times[modality]):
      stale[modality] = f'{modality} has no time ({times[modality]})'
      continue
    age = times[NOW] - times[modality] if NOW in times else 0.0
    if age < -TOLERANCE:
      stale[modality] = f'{modality} is from the future: {_ms(-age)} later than now'
    elif max_age is not None and age > max_age:
      stale[modality] = f'{modality} is {_ms(age)} old, more than {_ms(max_age)}'
  if max_skew is None:
    return stale
  fresh = [m for m in modalities if m not in stale]
  for modality in fresh[1:]:
    skew = times[modality] - times[fresh[0]]
    if abs(skew) > max_skew:
      direction = 'later' if skew > 0 else 'earlier'
      stale[modality] = (
        f'{modality} is {_ms(abs(skew))} {direction} than {fresh[0]}, more than {_ms(max_skew)}'
      )
  return stale


def _number(name: str, value) -> float:
  """Converts a Python or NumPy number to float; anything else is a ConfigError."""
  try:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
      raise TypeError
    return float(value)
  except (TypeError, OverflowError):
    kind = type(value).__name__
    raise ConfigError(f'{name} is not a number of seconds, but of type {kind}') from None


def _ms(seconds: float) -> str:
  return f'{1000 * seconds:.0f} ms'
