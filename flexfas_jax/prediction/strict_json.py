"""Parses untrusted JSON; rejects what parsers interpret differently.

Python accepts `NaN`, numbers too large for a float, and repeated keys, of which it keeps the last;
other parsers keep the first or fail.
"""

import json
import math
from typing import Any

_DIGITS = 18  # such integers fit 64 bits


def parse(content: bytes) -> Any:
  """Parses a JSON text.

  Args:
    content: UTF-8, without a byte order mark.

  Raises:
    ValueError: not UTF-8 or not JSON, a repeated key, a number that is not finite or an integer of
      more than 18 digits, nesting that is too deep, half a surrogate pair.
  """
  try:
    value = json.loads(
      content.decode('utf-8'),
      object_pairs_hook=_object,
      parse_constant=_constant,
      parse_int=_integer,
      parse_float=_float,
    )
    json.dumps(value, ensure_ascii=False).encode('utf-8')  # half a surrogate pair has no bytes
  except RecursionError:
    raise ValueError('it is nested too deep') from None
  return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  value = dict(pairs)
  if len(value) != len(pairs):
    names = [name for name, _ in pairs]
    repeated = next(name for name in names if names.count(name) > 1)
    raise ValueError(f'the key {repeated[:60]!r} is repeated')
  return value


def _constant(text: str) -> float:
  raise ValueError(f'{text} is not a finite number')


def _integer(text: str) -> int:
  if len(text.lstrip('-')) > _DIGITS:
    raise ValueError(f'the integer {text[:20]}... has more than {_DIGITS} digits')
  return int(text)


def _float(text: str) -> float:
  value = float(text)
  if not math.isfinite(value):
    raise ValueError(f'{text[:20]} is not a finite number')
  return value
