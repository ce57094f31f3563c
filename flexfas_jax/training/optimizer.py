"""Optimisers and learning-rate schedules by name, as a config gives them; what is frozen."""

import difflib
import fnmatch
import functools
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from flexfas_jax.errors import ConfigError
from flexfas_jax.lookup import pick


def warmup_cosine(peak: float, steps: int, warmup: int = 0, until: int = 0) -> optax.Schedule:
  """Linear from 0 to `peak` over `warmup` steps, then a cosine down to 0 at `steps`, or at `until`,
  where the training ends before the cosine does."""
  steps = until or steps
  if warmup >= steps:
    raise ConfigError(
      f'the warm-up ({warmup} steps) must be shorter than the training ({steps} steps): lower '
      'config.schedule.warmup or raise config.steps'
    )
  return optax.warmup_cosine_decay_schedule(0.0 if warmup else peak, peak, warmup, steps)


def step_decay(
  peak: float, steps: int, every: int, gamma: float = 0.5, lead: int = 0
) -> optax.Schedule:
  """`peak`, times `gamma` after each `every` steps: the papers' StepLR.

  Flex-Modal-FAS calls `scheduler.step()` first in the epoch, so that its "after 20 epochs" halves
  one epoch earlier: `lead` = one epoch's steps.
  """
  return lambda step: peak * gamma ** ((step + lead) // every)


def cosine_by_epoch(peak: float, steps: int, epoch: int, period: int) -> optax.Schedule:
  """MM-FAS's: a cosine from `peak` to 0 over `period` epochs, constant for `epoch` steps each.

  The reference calls `scheduler.step()` first in the epoch. In its PyTorch (1.0) the first call
  sets the peak, so that the first epoch runs at it.
  """
  if min(epoch, period) < 1 or steps > epoch * period:
    raise ConfigError(
      f'the cosine ends after {period} epochs of {epoch} steps, before the {steps} steps of the '
      'training: raise config.schedule.period or lower config.steps'
    )
  return lambda step: peak * (1 + jnp.cos(jnp.pi * (step // epoch) / period)) / 2


def steps_at(peak: float, steps: int, at: Sequence[int], gamma: float = 0.1) -> optax.Schedule:
  """`peak`, times `gamma` from each of the steps `at` on: the face recognition papers'."""
  return optax.piecewise_constant_schedule(peak, {int(step): gamma for step in at})


def constant(peak: float, steps: int) -> optax.Schedule:
  """`peak` throughout."""
  return optax.constant_schedule(peak)


SCHEDULES = {
  'warmup_cosine': warmup_cosine,
  'step_decay': step_decay,
  'cosine_by_epoch': cosine_by_epoch,
  'steps_at': steps_at,
  'constant': constant,
}


def decayed(params, which: str = 'kernels'):
  """Which parameters weight decay acts on: 'kernels', not biases, norms, tokens or embeddings; or
  'all', as in PyTorch, where an optimiser is given `model.parameters()`."""
  if which not in ('kernels', 'all'):
    raise ConfigError(f'config.optimizer.decay is {which!r}; choose one of: kernels, all')
  return jax.tree_util.tree_map_with_path(
    lambda path, _: which == 'all' or path[-1].key == 'kernel', params
  )


def _mask(which: str):
  decayed({}, which)  # a wrong word is found now
  return functools.partial(decayed, which=which)


def adamw(schedule, weight_decay=0.05, b1=0.9, b2=0.999, decay='kernels'):
  """AdamW, the released FlexModal recipe's optimiser (which decays all)."""
  return optax.adamw(schedule, b1, b2, weight_decay=weight_decay, mask=_mask(decay))


def adam(schedule, weight_decay=0.0, b1=0.9, b2=0.999, decay='kernels'):
  """Adam; the decay is added to the gradient, as PyTorch's is (CDCN's and MM-FAS's optimiser)."""
  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask=_mask(decay)), optax.adam(schedule, b1, b2)
  )


def sgd(schedule, weight_decay=0.0, momentum=0.9, decay='kernels'):
  """SGD with momentum; the decay is added to the gradient, as PyTorch's is."""
  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask=_mask(decay)), optax.sgd(schedule, momentum)
  )


OPTIMIZERS = {'adamw': adamw, 'adam': adam, 'sgd': sgd}


def make_schedule(schedule: dict, steps: int) -> optax.Schedule:
  """The learning rate of each step; arguments and errors as in `build`."""
  return _call('schedule', SCHEDULES, schedule, steps=steps)


def build(
  optimizer: dict, schedule: dict, steps: int, clip_norm: float | None = None
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """The gradient transformation and its schedule.

  Args:
    optimizer: {'name': a key of `OPTIMIZERS`, **its arguments}, and for any of them 'freeze':
      patterns of names (`paths_of`) whose parameters stay as they are: no update, no decay, no
      optimiser state, no part in the clipped norm (batch statistics go on following the data); and
      'rates': {pattern: factor} of the learning rate, decay included; of several that match, the
      product.
    schedule: {'name': a key of `SCHEDULES`, 'peak': learning rate, **its arguments}.
    steps: of the whole training.
    clip_norm: gradients longer than this, taken together, are scaled down to it; None: never.

  Raises:
    ConfigError: an unknown name or argument.
  """
  optimizer = dict(optimizer)
  freeze, rates = tuple(optimizer.pop('freeze', ())), dict(optimizer.pop('rates', {}))
  for pattern, factor in rates.items():
    if isinstance(factor, bool) or not isinstance(factor, int | float) or factor <= 0:
      raise ConfigError(
        f'config.optimizer.rates[{pattern!r}] is {factor!r}; a factor is above 0, and what does '
        'not move at all is of config.optimizer.freeze'
      )
  rate = make_schedule(schedule, steps)
  tx = _call('optimizer', OPTIMIZERS, optimizer, schedule=rate)
  # Chained in any case, so that a run can go on with another.
  clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
  tx = optax.chain(clip, tx, *([_scaled(rates)] if rates else []))
  if freeze:
    tx = optax.partition(
      {'trained': tx, 'frozen': optax.set_to_zero()}, functools.partial(_labels, freeze=freeze)
    )
  return tx, rate


def paths_of(params) -> list[str]:
  """The names of all parameters, as 'streams_rgb/stage_1/conv/kernel'."""
  return [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def check_names(optimizer: Mapping, params) -> None:
  """Looks for what 'freeze' and 'rates' name.

  Args:
    optimizer: as in `build`.
    params: of the model; may be shapes alone.

  Raises:
    ConfigError: a pattern that matches nothing, or nothing is left to train.
  """
  paths = paths_of(params)
  parts = {'/'.join(p.split('/')[: n + 1]) for p in paths for n in range(p.count('/') + 1)}
  for field in ('freeze', 'rates'):
    patterns = optimizer.get(field, ())
    if isinstance(patterns, str):
      raise ConfigError(f'config.optimizer.{field} is a text; give several: ({patterns!r},)')
    for pattern in patterns:
      if not any(_matches(path, pattern) for path in paths):
        near = difflib.get_close_matches(pattern, sorted(parts), 3, 0.3) or sorted(
          {path.split('/')[0] for path in paths}
        )
        raise ConfigError(
          f'config.optimizer.{field}: no parameter is called {pattern!r}; near it: '
          f'{", ".join(near)}'
        )
  freeze = optimizer.get('freeze', ())
  if paths and all(any(_matches(path, pattern) for pattern in freeze) for path in paths):
    raise ConfigError('config.optimizer.freeze freezes every parameter; nothing is left to train')


def _matches(path: str, pattern: str) -> bool:
  """Whether a pattern (*, ? and [...], * also over /) names a parameter or a part it is in."""
  return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f'{pattern}/*')


def _name(path) -> str:
  return '/'.join(str(key.key) for key in path)


def _labels(params, freeze: Sequence[str]):
  return jax.tree_util.tree_map_with_path(
    lambda path, _: 'frozen' if any(_matches(_name(path), p) for p in freeze) else 'trained', params
  )


def _scaled(rates: Mapping[str, float]) -> optax.GradientTransformation:
  """Updates times the factor of their names: last in a chain, the learning rate's."""

  def scale(path, update):
    factor = math.prod(f for pattern, f in rates.items() if _matches(_name(path), pattern))
    return update * factor

  return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates))


def _call(what, table, fields, **more):
  fields = dict(fields)
  name = fields.pop('name', None)
  function = pick(what, table, name)
  try:
    return function(**more, **fields)
  except TypeError as error:
    raise ConfigError(f'config.{what}: {error}') from None
