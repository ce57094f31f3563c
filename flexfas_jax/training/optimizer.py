"""Optimizers and learning-rate schedules, by the names that configs use."""

import functools
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from flexfas_jax.errors import ConfigError
from flexfas_jax.lookup import pick
from flexfas_jax.training import trainable


def warmup_cosine(peak: float, steps: int, warmup: int = 0, until: int = 0) -> optax.Schedule:
  """Linear from 0 to `peak` over `warmup` steps, then a cosine down to 0 at `steps`.

  `until` replaces `steps` for a training that ends before its cosine does.
  """
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
  """`peak`, times `gamma` after every `every` steps: the papers' StepLR.

  Flex-Modal-FAS calls `scheduler.step()` at the start of an epoch, so that its "after 20 epochs"
  halves the rate one epoch earlier: `lead` = the steps of one epoch.
  """
  return lambda step: peak * gamma ** ((step + lead) // every)


def cosine_by_epoch(peak: float, steps: int, epoch: int, period: int) -> optax.Schedule:
  """MM-FAS's cosine from `peak` to 0 over `period` epochs; constant for `epoch` steps each.

  The reference calls `scheduler.step()` at the start of an epoch. In its PyTorch (1.0) the first
  call sets the peak, which the first epoch therefore uses.
  """
  if min(epoch, period) < 1 or steps > epoch * period:
    raise ConfigError(
      f'the cosine ends after {period} epochs of {epoch} steps, before the {steps} steps of the '
      'training: raise config.schedule.period or lower config.steps'
    )
  return lambda step: peak * (1 + jnp.cos(jnp.pi * (step // epoch) / period)) / 2


def steps_at(peak: float, steps: int, at: Sequence[int], gamma: float = 0.1) -> optax.Schedule:
  """`peak`, times `gamma` from each of the steps `at` on, as in the face recognition papers."""
  return optax.piecewise_constant_schedule(peak, {int(step): gamma for step in at})


def constant(peak: float, steps: int) -> optax.Schedule:
  """`peak` at every step."""
  return optax.constant_schedule(peak)


SCHEDULES = {
  'warmup_cosine': warmup_cosine,
  'step_decay': step_decay,
  'cosine_by_epoch': cosine_by_epoch,
  'steps_at': steps_at,
  'constant': constant,
}


def decay_mask(params, which: str = 'kernels'):
  """Whether weight decay acts on each parameter.

  Args:
    params: of the model.
    which: 'kernels': not biases, norms, tokens or embeddings; 'all': as in PyTorch, where an
      optimizer gets `model.parameters()`.

  Raises:
    ConfigError: another word.
  """
  if which not in ('kernels', 'all'):
    raise ConfigError(f'config.optimizer.decay is {which!r}; choose one of: kernels, all')
  return jax.tree_util.tree_map_with_path(
    lambda path, _: which == 'all' or path[-1].key == 'kernel', params
  )


def _mask(which: str):
  decay_mask({}, which)  # raises for a wrong word
  return functools.partial(decay_mask, which=which)


def adamw(schedule, weight_decay=0.05, b1=0.9, b2=0.999, decay='kernels'):
  """AdamW, the optimizer of the released FlexModal recipe (which decays all parameters)."""
  return optax.adamw(schedule, b1, b2, weight_decay=weight_decay, mask=_mask(decay))


def adam(schedule, weight_decay=0.0, b1=0.9, b2=0.999, decay='kernels'):
  """Adam; the decay is added to the gradient, as in PyTorch (optimizer of CDCN and MM-FAS)."""
  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask=_mask(decay)), optax.adam(schedule, b1, b2)
  )


def sgd(schedule, weight_decay=0.0, momentum=0.9, decay='kernels'):
  """SGD with momentum; the decay is added to the gradient, as in PyTorch."""
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
    optimizer: {'name': a key of `OPTIMIZERS`, **its arguments}; for all of them also 'rates':
      {pattern: factor} of the learning rate, decay included; several that match are multiplied.
      Patterns select parameters as in `trainable.matches`.
    schedule: {'name': a key of `SCHEDULES`, 'peak': learning rate, **its arguments}.
    steps: of the whole training.
    clip_norm: a larger global gradient norm is scaled down to this one; None: never.

  Raises:
    ConfigError: an unknown name or argument.
  """
  optimizer = dict(optimizer)
  rates = dict(optimizer.pop('rates', {}))
  for pattern, factor in rates.items():
    if isinstance(factor, bool) or not isinstance(factor, int | float) or factor <= 0:
      raise ConfigError(
        f'config.optimizer.rates[{pattern!r}] is {factor!r}; give a factor above 0, or '
        'freeze the parameters by config.trainable'
      )
  rate = make_schedule(schedule, steps)
  tx = _call('optimizer', OPTIMIZERS, optimizer, schedule=rate)
  # Chained in any case, so that a run can resume with another norm.
  clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
  tx = optax.chain(clip, tx, *([_scaled(rates)] if rates else []))
  return tx, rate


def check_names(optimizer: Mapping, params) -> None:
  """Checks that every pattern of 'rates' matches a parameter.

  Args:
    optimizer: as in `build`.
    params: that train; may be shapes.

  Raises:
    ConfigError: a pattern matches nothing.
  """
  trainable.check('optimizer.rates', optimizer.get('rates', ()), params)


def _scaled(rates: Mapping[str, float]) -> optax.GradientTransformation:
  """Multiplies updates by their names' factors; last in a chain it scales the learning rate."""

  def scale(path, update):
    name = '/'.join(str(key.key) for key in path)
    factor = math.prod(f for pattern, f in rates.items() if trainable.matches(name, pattern))
    return update * factor

  return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates))


def _call(kind: str, table: Mapping, fields: Mapping, **arguments):
  fields = dict(fields)
  name = fields.pop('name', None)
  function = pick(kind, table, name)
  try:
    return function(**arguments, **fields)
  except TypeError as error:
    raise ConfigError(f'config.{kind}: {error}') from None
