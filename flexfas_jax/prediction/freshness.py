"""Which pictures are too late to be of the same moment."""

import math
from collections.abc import Mapping, Sequence

from flexfas_jax.errors import ConfigError

NOW = 'now'  # the clock's reading among the times


def stale(
  modalities: Sequence[str],
  times: Mapping[str, float] | None,
  max_skew: float | None = None,
  max_age: float | None = None,
) -> dict[str, str]:
  """The modalities that must not be looked at, each with the reason.

  The first modality that has a time is the one that others are compared with: RGB, where it is
  there. A time that is no number says that a sensor has lost its clock, and drops it.

  Args:
    modalities: that pictures are given of, in the model's order.
    times: {modality: seconds, by one clock}, and perhaps 'now'.
    max_skew: seconds by which two pictures of one moment may differ; None: not looked at.
    max_age: seconds that a picture may be older than now; None: not looked at. This is what notices
      a video that stands still: all sensors stop together, and none is late.

  Raises:
    ConfigError: a limit without the times that it needs, or one that is none; a time of nothing.
  """
  for name, limit in (('max_skew', max_skew), ('max_age', max_age)):
    if limit is not None and not limit >= 0:  # nan neither
      raise ConfigError(f'{name} is {limit}, not a number of seconds')
  times = dict(times or {})
  due = set(modalities) if max_skew is not None or max_age is not None else set()
  due |= {NOW} if max_age is not None else set()
  if missing := [name for name in (*modalities, NOW) if name in due - set(times)]:
    raise ConfigError(f'max_skew and max_age need a time of every picture: {missing[0]} has none')
  found = {}
  sound = [m for m in modalities if m in times and math.isfinite(times[m])]
  for modality in modalities:
    if modality in times and modality not in sound:
      found[modality] = f'{modality} has no time ({times[modality]}): left out'
      continue
    if max_age is not None and not times[NOW] - times[modality] <= max_age:
      age = times[NOW] - times[modality]
      found[modality] = (
        f'{modality} is {1000 * age:.0f} ms old, more than {1000 * max_age:.0f}: left out'
      )
  fresh = [m for m in sound if m not in found]
  for modality in fresh[1:] if max_skew is not None else ():
    apart = times[modality] - times[fresh[0]]
    if abs(apart) > max_skew:
      found[modality] = (
        f'{modality} is {1000 * abs(apart):.0f} ms {"later" if apart > 0 else "earlier"} than '
        f'{fresh[0]}, more than {1000 * max_skew:.0f}: left out'
      )
  return found
