"""Which parameters train: `config.trainable`, patterns of the parameters' names.

A name is the path of a parameter, such as 'streams_shared/stage_1/block_0/fc1/kernel'. `split`
divides the parameters, `merge` joins them again. An empty `trainable` means that all of them train.
"""

import difflib
import fnmatch
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from flax import traverse_util

from flexfas_jax.errors import ConfigError


def flatten(params: Mapping[str, Any]) -> dict[str, Any]:
  """{name: parameter}; also of shapes."""
  return traverse_util.flatten_dict(params, sep='/')


def unflatten(named: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `flatten`."""
  return traverse_util.unflatten_dict(named, sep='/')


def matches(name: str, pattern: str) -> bool:
  """Whether a pattern (*, ? and [...]; * also matches /) selects a parameter.

  It matches, of 'streams_rgb/stage_1/block_0/adapters_conv_mlp/down/kernel':

  - the whole name, or its first components: 'streams_*/stage_1';
  - one component in any place: 'block_0', 'adapters_*_mlp';
  - or one component that continues with _: 'adapters', 'block' and 'stage', not 'block_1' for
    'block_11'.
  """
  if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f'{pattern}/*'):
    return True
  return any(
    fnmatch.fnmatchcase(part, pattern) or fnmatch.fnmatchcase(part, f'{pattern}_*')
    for part in name.split('/')
  )


def parse(patterns: Any) -> tuple[str, ...]:
  """The patterns of the config's field.

  Raises:
    ConfigError: it is not a sequence of texts.
  """
  if isinstance(patterns, str):
    raise ConfigError(f'config.trainable is a string; give a tuple: ({patterns!r},)')
  if not isinstance(patterns, list | tuple) or not all(p and isinstance(p, str) for p in patterns):
    raise ConfigError(
      f"config.trainable is {patterns!r}; give a tuple of patterns, such as ('head',), or () to "
      'train everything'
    )
  return tuple(patterns)


def check(field: str, patterns: Collection[str], params: Mapping[str, Any]) -> None:
  """Checks that every pattern selects a parameter.

  Args:
    field: of the config, for the message.
    patterns: of this field.
    params: those that it may select; may be shapes.

  Raises:
    ConfigError: a pattern that selects none; the message has similar names.
  """
  names = sorted(flatten(params))
  parts = {part for name in names for part in name.split('/')}
  parts |= {name[:i] for name in names for i, letter in enumerate(name) if letter == '/'}
  for pattern in patterns:
    if not any(matches(name, pattern) for name in names):
      near = difflib.get_close_matches(pattern, sorted(parts), 3, 0.3) or sorted(
        {name.split('/')[0] for name in names}
      )
      raise ConfigError(
        f'config.{field}: {pattern!r} matches no parameter; similar names: {", ".join(near)}'
      )


def split(
  params: Mapping[str, Any], trainable: Sequence[str]
) -> tuple[Mapping[str, Any], dict[str, Any]]:
  """(the parameters that train, the frozen ones), each a tree without the others."""
  if not trainable:
    return params, {}
  trained, frozen = {}, {}
  for name, value in flatten(params).items():
    (trained if any(matches(name, p) for p in trainable) else frozen)[name] = value
  return unflatten(trained), unflatten(frozen)


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> Mapping[str, Any]:
  """One tree of two that have no parameter in common."""
  if not first or not second:
    return first or second
  return unflatten(flatten(first) | flatten(second))


def refuse_freeze(freeze: Sequence[str], params: Mapping[str, Any]) -> None:
  """Refuses the field of earlier versions that selected what does not train.

  Args:
    freeze: `config.optimizer.freeze`.
    params: of the model; may be shapes.

  Raises:
    ConfigError: it selects something; the message has the same as `config.trainable`.
  """
  if not freeze:
    return
  patterns = _complement((freeze,) if isinstance(freeze, str) else freeze, params)
  raise ConfigError(
    'config.optimizer.freeze was replaced by config.trainable, which selects what trains. '
    + (
      f'For freeze = {freeze!r} write config.trainable = {patterns!r}'
      if patterns
      else f'freeze = {freeze!r} leaves nothing to train'
    )
  )


def _complement(freeze: Sequence[str], params: Mapping[str, Any]) -> tuple[str, ...]:
  """Few patterns that select what `freeze` does not: beginnings of names, as short as possible."""
  names = sorted(flatten(params))
  frozen = [  # a pattern of `freeze` matched the first components alone
    n for n in names if any(fnmatch.fnmatchcase(n, p + end) for p in freeze for end in ('', '/*'))
  ]
  patterns: list[str] = []
  for name in sorted(set(names) - set(frozen)):
    if any(matches(name, pattern) for pattern in patterns):
      continue
    parts = name.split('/')
    prefixes = [re.sub(r'_\d+$', '', parts[0])]  # of several, such as token_rgb_0
    prefixes += ['/'.join(parts[:n]) for n in range(1, len(parts) + 1)]
    patterns.append(
      next((p for p in prefixes if not any(matches(other, p) for other in frozen)), name)
    )
  return tuple(patterns)
