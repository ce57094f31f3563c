"""One training step: a pure function of state, batch and key. Start reading at `train_step`."""

import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import optax

from flexfas_jax.training import prototypes as class_prototypes
from flexfas_jax.training import trainable as parameters
from flexfas_jax.training.subset_sampling import ByLoss


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


@flax.struct.dataclass
class StateWithMemory(State):
  """A state with what a loss carries from step to step; a class for the same reason."""

  memory: Any  # {'prototype': ..., 'prototype_weight': ...}, see `prototypes.py`


@flax.struct.dataclass
class AveragedStateWithMemory(AveragedState):
  """Both; the moving average is of the variables alone."""

  memory: Any


def with_average(state: State) -> AveragedState:
  """The state with an average, which starts from its variables if it has none.

  Its leaves are arrays or `jax.ShapeDtypeStruct`.
  """
  if isinstance(state, AveragedState):
    return state
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  copies = jax.tree.map(lambda x: x.copy() if isinstance(x, jax.Array) else x, variables)
  return _make_state(**_fields(state), ema=copies)


def without_average(state: State) -> State:
  """The state without an average."""
  return _make_state(**{k: v for k, v in _fields(state).items() if k != 'ema'})


def _fields(state: State) -> dict[str, Any]:
  return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def _make_state(**fields: Any):
  """A state of the class that has these fields."""
  if 'memory' in fields:
    return (AveragedStateWithMemory if 'ema' in fields else StateWithMemory)(**fields)
  return (AveragedState if 'ema' in fields else State)(**fields)


class Modulation(NamedTuple):
  """How the gradients of a loss's parts become one; see `gradient_modulation.py`.

  Attributes:
    shared: (outputs, batch) -> [B], the loss without those that have a term for each modality.
    own: (outputs, batch) -> [B, M], these; 0 where a modality is absent.
    combine: (gradient of shared, M gradients of own, values [M], certainty [M], modalities) -> the
      gradient.
    running: decay of the running mean of the values that `combine` gets; 0: those of the batch.
  """

  shared: Callable[..., jax.Array]
  own: Callable[..., jax.Array]
  combine: Callable[..., Any]
  running: float = 0.0


def init_state(
  key: jax.Array,
  *,
  model,
  optimizer: optax.GradientTransformation,
  ema: float = 0.0,
  trainable: Sequence[str] = (),
  memory: Mapping[str, Any] | None = None,
) -> State:
  """A new state; under `jax.eval_shape`, its shapes without memory.

  Args:
    key: of the initial values.
    model, optimizer, ema, trainable: as in `train_step`.
    memory: its initial values; None: there is none.
  """
  return new_state(model.init(key), optimizer, ema, trainable, memory)


def new_state(
  variables: Mapping[str, Any],
  optimizer: optax.GradientTransformation,
  ema: float = 0.0,
  trainable: Sequence[str] = (),
  memory: Mapping[str, Any] | None = None,
) -> State:
  """The state before the first step, from the model's variables."""
  fields = {
    'step': jnp.zeros((), jnp.int32),
    'params': variables['params'],
    'batch_stats': variables['batch_stats'],
    'opt_state': optimizer.init(parameters.split(variables['params'], trainable)[0]),
  }
  if ema:
    fields['ema'] = {k: variables[k] for k in ('params', 'batch_stats')}
  if memory is not None:
    fields['memory'] = jax.tree.map(jnp.asarray, memory)
  return _make_state(**fields)


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
  prototypes: class_prototypes.Prototypes | None = None,
  modulation: Modulation | None = None,
  project: Callable[[Any], Any] | None = None,
  sampling: ByLoss | None = None,
) -> tuple[State, dict[str, jax.Array]]:
  """(state, batch, root key) -> (state, metrics); bind the rest with `functools.partial`.

  Under `jit` with a sharded batch, means and batch norm statistics are over the global batch: the
  result does not depend on the number of devices.

  Args:
    state: the caller may donate its buffers.
    batch: images [B, H, W, C] float32, 'present' [B, M] bool, 'label' [B]; 'identity' [B] for a
      head that classifies identities; 'domain' [B] for losses between source data sets.
    key: the run's root key, the same at every step; the step is folded in here.
    model: a `flexmodal.Model`, or a `masked_autoencoder.MaskedModel`.
    optimizer, loss: see `optimizer.py` and `losses.py`.
    modality_dropout: see `drop_modalities`.
    accumulate: number of parts that are processed one after the other, to save memory; one update
      with their mean gradient. Batch norm's statistics are over each part.
    ema: decay of the moving average of parameters and batch statistics; 0: there is none.
    trainable: patterns of the parameters that train (`trainable.matches`); (): all. The others have
      no gradient, decay or optimizer state, and no part in the gradient's norm. Batch norm treats
      its frozen layers like the others: it normalises by the batch, and its running statistics
      follow the data.
    prototypes: of the state's memory, which the loss gets with the outputs, as it was before this
      step; None: there is none.
    modulation: of the gradient; None: that of the whole loss.
    project: (parameters that train) -> the same, after the optimizer's update.
    sampling: of the subsets of modalities, in the place of modality dropout.

  Returns:
    The next state, and {'loss', 'grad_norm', 'accuracy'}, each [] float32; masked reconstruction
    has no accuracy.
  """
  key = jax.random.fold_in(key, state.step)
  dropout, available = named_key(key, 'modality_dropout'), batch['present']
  if sampling:
    present, kept_subset = sampling.draw(dropout, available, state.memory['subset_loss'])
    batch = {**batch, 'subset': kept_subset}
  else:
    present = drop_modalities(dropout, available, model.modalities, modality_dropout)
  batch = {**batch, 'present': present, 'available': available}
  memory = {name: state.memory[name] for name in class_prototypes.MEMORY} if prototypes else {}
  trained, frozen = parameters.split(state.params, trainable)

  def objective(trained, batch_stats, part, key):
    """(the loss, or with modulation its parts [1 + M]), (means over the batch, batch_stats)."""
    variables = {'params': parameters.merge(trained, frozen), 'batch_stats': batch_stats}
    outputs, batch_stats = model.apply(variables, part, key)
    outputs = {**outputs, **memory}
    means = {} if 'patch_error' in outputs else {'accuracy': is_correct(outputs, part).mean()}
    if prototypes:
      classes = class_prototypes.single_side_classes(part['label'], part['domain'])
      feature = outputs['modality_feature']
      means['sums'], means['counts'] = class_prototypes.class_means(
        feature, classes, part['present'], prototypes.classes
      )
    if sampling:
      values = jax.lax.stop_gradient(loss(outputs, part))
      means['subset_loss'] = (part['subset'] * values[:, None]).mean(0)  # [S]
      means['subset'] = part['subset'].mean(0)
    if not modulation:
      return loss(outputs, part).mean(), (means, batch_stats)
    means['present'] = part['present'].astype(jnp.float32).mean(0)  # [M]
    means['certainty'] = outputs.get('certainty', jnp.ones_like(means['present']))
    shared, own = (f(outputs, part).mean(0) for f in (modulation.shared, modulation.own))
    return jnp.concatenate([shared[None], own]), (means, batch_stats)

  def gradient(trained, batch_stats, part, key):
    """((value, (means, batch_stats)), gradient of each value)."""
    if not modulation:
      return jax.value_and_grad(objective, has_aux=True)(trained, batch_stats, part, key)
    values, pull, aux = jax.vjp(
      lambda trained: objective(trained, batch_stats, part, key), trained, has_aux=True
    )
    return (values, aux), tuple(pull(row)[0] for row in jnp.eye(len(values)))

  dropout_key = named_key(key, 'dropout')
  if accumulate == 1:
    (value, (means, batch_stats)), grads = gradient(trained, state.batch_stats, batch, dropout_key)
  else:
    numbered = jnp.arange(accumulate), _parts(batch, accumulate)

    def of_part(batch_stats, i_part):
      i, part = i_part
      (value, (means, batch_stats)), grads = gradient(
        trained, batch_stats, part, jax.random.fold_in(dropout_key, i)
      )
      return batch_stats, (value, means, grads)

    def add_part(carry, i_part):
      sums, batch_stats = carry
      batch_stats, terms = of_part(batch_stats, i_part)
      return (jax.tree.map(jnp.add, sums, terms), batch_stats), None

    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), numbered)
    shapes = jax.eval_shape(of_part, state.batch_stats, first)[1]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    (sums, batch_stats), _ = jax.lax.scan(add_part, (zeros, state.batch_stats), numbered)
    value, means, grads = jax.tree.map(lambda x: x / accumulate, sums)
  new_memory = {}
  if modulation:
    own = value[1:] / means['present']  # over the samples that have the modality
    if modulation.running:
      old = state.memory['modality_loss']
      # An absent modality's part is 0 (MMDG++); the source adds, and grows without a limit.
      now = jnp.where(means['present'] > 0, own, 0.0)
      own = modulation.running * old + (1 - modulation.running) * now
      new_memory['modality_loss'] = own
    own = jnp.where(means['present'] > 0, own, jnp.inf)
    grads = modulation.combine(grads[0], grads[1:], own, means['certainty'], model.modalities)
    value = value.sum()
  updates, opt_state = optimizer.update(grads, state.opt_state, trained)
  trained = optax.apply_updates(trained, updates)
  state = state.replace(
    step=state.step + 1,
    params=parameters.merge(project(trained) if project else trained, frozen),
    batch_stats=batch_stats,
    opt_state=opt_state,
  )
  if prototypes:
    sums, counts = means['sums'], means['counts']
    new_memory |= class_prototypes.step_update(memory, sums, counts, prototypes.decay)
  if sampling:
    new_memory['subset_loss'] = sampling.update(
      state.memory['subset_loss'], means['subset_loss'], means['subset']
    )
  if new_memory:
    state = state.replace(memory=new_memory)
  if ema:
    state = state.replace(ema=_next_average(state, ema))
  metrics = {'loss': value, 'grad_norm': optax.tree.norm(grads)}
  return state, metrics | {k: v for k, v in means.items() if k == 'accuracy'}


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
