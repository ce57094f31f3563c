"""One training step: a pure function of state, batch and key. Start reading at `train_step`."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class State:
  """All that training changes; float32, but for the step."""

  step: jax.Array  # [] int32
  params: Any
  batch_stats: Any
  opt_state: Any


def init_state(key: jax.Array, *, model, optimizer: optax.GradientTransformation) -> State:
  """A fresh state; give it to `jax.eval_shape` for shapes without memory."""
  variables = model.init(key)
  return State(
    step=jnp.zeros((), jnp.int32),
    params=variables['params'],
    batch_stats=variables['batch_stats'],
    opt_state=optimizer.init(variables['params']),
  )


def named_key(key: jax.Array, name: str) -> jax.Array:
  """The stream called `name` of a root key: what draws from one never shifts another."""
  return jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def drop_modalities(
  key: jax.Array, present: jax.Array, modalities: tuple[str, ...], rates: Mapping[str, float]
) -> jax.Array:
  """Modality dropout: takes modalities from samples, each on its own.

  FlexModal drops depth and infrared with probability 0.5 each and never RGB, which gives each of
  its four sub-protocols a quarter of the samples (Flex-Modal-FAS,
  Load_FAS_MultiModal_DropModal.py:114-128).

  Args:
    key: one draw per sample and modality.
    present: [B, M] bool.
    modalities: of present's columns.
    rates: probability by modality; 0 where not named.

  Returns:
    [B, M] bool; a sample that would lose all it has keeps it.
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
) -> tuple[State, dict[str, jax.Array]]:
  """(state, batch, root key) -> (state, metrics); bind the rest with `functools.partial`.

  Under `jit` with the batch sharded over devices, means and batch norm's statistics are over the
  global batch: the result does not depend on how many devices there are.

  Args:
    state: donated by the caller.
    batch: images [B, H, W, C] float32, 'present' [B, M] bool, 'label' [B].
    key: the run's root key, the same at every step; the step is folded in here.
    model: a `flexmodal.Model`.
    optimizer, loss: see `optimizer.py` and `losses.py`.
    modality_dropout: see `drop_modalities`.

  Returns:
    The next state, and {'loss', 'accuracy', 'grad_norm'}, each [] float32.
  """
  key = jax.random.fold_in(key, state.step)
  present = drop_modalities(
    named_key(key, 'modality_dropout'), batch['present'], model.modalities, modality_dropout
  )
  batch = {**batch, 'present': present}

  def objective(params):
    variables = {'params': params, 'batch_stats': state.batch_stats}
    outputs, batch_stats = model.apply(variables, batch, named_key(key, 'dropout'))
    return loss(outputs, batch).mean(), (outputs, batch_stats)

  (value, (outputs, batch_stats)), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  metrics = {
    'loss': value,
    'accuracy': jnp.mean((outputs['logit'] >= 0) == (batch['label'] == 1)),
    'grad_norm': optax.tree.norm(grads),
  }
  state = State(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    batch_stats=batch_stats,
    opt_state=opt_state,
  )
  return state, metrics
