"""One training step: a pure function of state, batch and key. Start reading at `train_step`."""

import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from flexfas_jax.training import trainable as parameters


@flax.struct.dataclass
class State:
  """Everything that training changes; float32 except the step."""

  step: jax.Array  # [] int32
  params: Any
  batch_stats: Any
  opt_state: Any


@flax.struct.dataclass
class AveragedState(State):
  """A state with the moving average of the model's variables, which is evaluated and exported.

  It is a class of its own, so that checkpoints without an average have no entry for it.
  """

  ema: Any  # {'params': ..., 'batch_stats': ...}


def with_average(state: State) -> AveragedState:
  """The state with an average, which starts from its variables if it has none.

  Its leaves are arrays or `jax.ShapeDtypeStruct`.
  """
  if isinstance(state, AveragedState):
    return state
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  copies = jax.tree.map(lambda x: x.copy() if isinstance(x, jax.Array) else x, variables)
  return AveragedState(**_fields(state), ema=copies)


def without_average(state: State) -> State:
  """The state without an average."""
  return State(**_fields(state))


def _fields(state: State) -> dict[str, Any]:
  return {field.name: getattr(state, field.name) for field in dataclasses.fields(State)}


def init_state(
  key: jax.Array,
  *,
  model,
  optimizer: optax.GradientTransformation,
  ema: float = 0.0,
  trainable: Sequence[str] = (),
) -> State:
  """A new state; under `jax.eval_shape`, its shapes without memory.

  Args:
    key: of the initial values.
    model, optimizer, ema, trainable: as in `train_step`.
  """
  return new_state(model.init(key), optimizer, ema, trainable)


def new_state(
  variables: Mapping[str, Any],
  optimizer: optax.GradientTransformation,
  ema: float = 0.0,
  trainable: Sequence[str] = (),
) -> State:
  """The state before the first step, from the model's variables."""
  fields = {
    'step': jnp.zeros((), jnp.int32),
    'params': variables['params'],
    'batch_stats': variables['batch_stats'],
    'opt_state': optimizer.init(parameters.split(variables['params'], trainable)[0]),
  }
  if not ema:
    return State(**fields)
  return AveragedState(**fields, ema={k: variables[k] for k in ('params', 'batch_stats')})


def named_key(key: jax.Array, name: str) -> jax.Array:
  """The key stream `name` of a root key; drawing from one stream never changes another."""
  return jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def drop_modalities(
  key: jax.Array, present: jax.Array, modalities: tuple[str, ...], rates: Mapping[str, float]
) -> jax.Array:
  """Modality dropout: removes modalities from samples independently.

  FlexModal drops depth and infrared with probability 0.5 each and never RGB, which gives each of
  its four sub-protocols a quarter of the samples (Flex-Modal-FAS,
  Load_FAS_MultiModal_DropModal.py:114-128).

  Args:
    key: one draw per sample and modality.
    present: [B, M] bool.
    modalities: of the columns of `present`.
    rates: probability by modality; 0 if not named.

  Returns:
    [B, M] bool; a sample that would lose all its modalities keeps them.
  """
  rate = jnp.array([rates.get(m, 0.0) for m in modalities])[None]  # [1, M]
  kept = present & (jax.random.uniform(key, present.shape) >= rate)
  return jnp.where(kept.any(1, keepdims=True), kept, present)


def train_step(
  state: State,
  batch: Mapping[str, jax.Array],
  key: jax.Array,
  *,
  model,
  optimizer: optax.GradientTransformation,
  loss: Callable[..., jax.Array],
  modality_dropout: Mapping[str, float],
  accumulate: int = 1,
  ema: float = 0.0,
  trainable: Sequence[str] = (),
) -> tuple[State, dict[str, jax.Array]]:
  """(state, batch, root key) -> (state, metrics); bind the rest with `functools.partial`.

  Under `jit` with a sharded batch, means and batch norm statistics are over the global batch: the
  result does not depend on the number of devices.

  Args:
    state: the caller may donate its buffers.
    batch: images [B, H, W, C] float32, 'present' [B, M] bool, 'label' [B]; 'identity' [B] for a
      head that classifies identities.
    key: the run's root key, the same at every step; the step is folded in here.
    model: a `flexmodal.Model`.
    optimizer, loss: see `optimizer.py` and `losses.py`.
    modality_dropout: see `drop_modalities`.
    accumulate: number of parts that are processed one after the other, to save memory; one update
      with their mean gradient. Batch norm's statistics are over each part.
    ema: decay of the moving average of parameters and batch statistics; 0: there is none.
    trainable: patterns of the parameters that train (`trainable.matches`); (): all. The others have
      no gradient, decay or optimizer state, and no part in the gradient's norm. Batch norm treats
      its frozen layers like the others: it normalises by the batch, and its running statistics
      follow the data.

  Returns:
    The next state, and {'loss', 'accuracy', 'grad_norm'}, each [] float32.
  """
  key = jax.random.fold_in(key, state.step)
  present = drop_modalities(
    named_key(key, 'modality_dropout'), batch['present'], model.modalities, modality_dropout
  )
  batch = {**batch, 'present': present, 'available': batch['present']}

  trained, frozen = parameters.split(state.params, trainable)

  def objective(trained, batch_stats, part, key):
    variables = {'params': parameters.merge(trained, frozen), 'batch_stats': batch_stats}
    outputs, batch_stats = model.apply(variables, part, key)
    return loss(outputs, part).mean(), (is_correct(outputs, part).mean(), batch_stats)

  gradient = jax.value_and_grad(objective, has_aux=True)
  dropout_key = named_key(key, 'dropout')
  if accumulate == 1:
    (value, (accuracy, batch_stats)), grads = gradient(
      trained, state.batch_stats, batch, dropout_key
    )
  else:

    def add_part(carry, i_part):
      (sums, batch_stats), (i, part) = carry, i_part
      (value, (accuracy, batch_stats)), grads = gradient(
        trained, batch_stats, part, jax.random.fold_in(dropout_key, i)
      )
      return (jax.tree.map(jnp.add, sums, (value, accuracy, grads)), batch_stats), None

    zeros = (jnp.zeros(()), jnp.zeros(()), jax.tree.map(jnp.zeros_like, trained))
    numbered = jnp.arange(accumulate), _parts(batch, accumulate)
    (sums, batch_stats), _ = jax.lax.scan(add_part, (zeros, state.batch_stats), numbered)
    value, accuracy, grads = jax.tree.map(lambda x: x / accumulate, sums)
  updates, opt_state = optimizer.update(grads, state.opt_state, trained)
  state = state.replace(
    step=state.step + 1,
    params=parameters.merge(optax.apply_updates(trained, updates), frozen),
    batch_stats=batch_stats,
    opt_state=opt_state,
  )
  if ema:
    state = state.replace(ema=_next_average(state, ema))
  return state, {'loss': value, 'accuracy': accuracy, 'grad_norm': optax.tree.norm(grads)}


def _next_average(state: AveragedState, decay: float):
  """The moving average after a step, which `state.step` counts from 1.

  m(t) = m(t-1) + (1 - d) / (1 - d^t) (x(t) - m(t-1)): the weight of x(i) is d^(t-i), over the sum
  of these. As in Adam (Kingma & Ba, 2015, section 3), the initial values have no weight.
  """
  rate = (1 - decay) / -jnp.expm1(state.step * math.log(decay))
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  return jax.tree.map(lambda mean, x: mean + rate * (x - mean), state.ema, variables)


def is_correct(outputs: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> jax.Array:
  """Whether each sample's decision is correct, [B] bool.

  The decision is the sign of the logit, or the identity with the largest cosine, without a margin.
  """
  if outputs['logit'] is None:
    return outputs['cosine'].argmax(1) == batch['identity']
  return (outputs['logit'] >= 0) == (batch['label'] == 1)


def _parts(batch, n: int):
  """[B, ...] -> [n, B / n, ...]: every n-th sample, so that each part is spread over all devices
  without moving data."""
  return jax.tree.map(
    lambda x: jnp.swapaxes(x.reshape(x.shape[0] // n, n, *x.shape[1:]), 0, 1), batch
  )
