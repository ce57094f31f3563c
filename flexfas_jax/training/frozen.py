"""Checkpoints without the frozen arrays that the pretrained weights hold.

A run with `config.trainable` and `config.pretrained` saves the difference from its pretrained
weights: what trains, the optimizer's state, batch statistics, and frozen arrays with other values
than the weights'. Each checkpoint has a record of what it leaves out, with the SHA-256 of the
values, which are read from the weights again and verified.

A frozen position embedding is always saved: for another grid it is interpolated, which is rounded
differently on other hardware. So are frozen arrays with random values: another version of JAX may
draw others from the same seed.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.models.weights import hashing, transfer
from flexfas_jax.training import (
  distributed,
  remote_workdir,
  setup,
  sharding,
  trainable,
  workdir,
)
from flexfas_jax.training.checkpoints import Checkpoints
from flexfas_jax.training.step import AveragedState

KEY = 'frozen'  # of the record in `Checkpoints.run_info`
_ALWAYS_SAVED = 'pos_embed'


def make_record(
  experiment: setup.Experiment, arrays: Mapping[tuple[str, ...], Any], step: int | None = None
) -> dict[str, Any]:
  """What the checkpoints of a new run leave out, as JSON; {} if nothing.

  Args:
    experiment: of the run.
    arrays: {path in the model: array} of the pretrained weights.
    step: of the run that these are of; None: they are a file's.
  """
  source = experiment.pretrained
  if not experiment.trainable or source is None:
    return {}
  _, frozen = trainable.split(experiment.abstract.params, experiment.trainable)
  given = {'/'.join(path[1:]): value for path, value in arrays.items() if path[0] == 'params'}
  left_out = {
    name: given[name]
    for name in sorted(trainable.flatten(frozen))
    if name in given and name.split('/')[-1] != _ALWAYS_SAVED
  }
  if not left_out:
    return {}
  record: dict[str, Any] = {
    'arrays': {name: list(value.shape) for name, value in left_out.items()},
    'sha256': _hash(left_out),
    'pretrained': source._asdict(),
  }
  return record if step is None else record | {'step': step}


def continue_record(record: Mapping[str, Any], experiment: setup.Experiment) -> dict[str, Any]:
  """What the checkpoints of a resumed run leave out: the same, if it is still frozen."""
  _, frozen = trainable.split(experiment.abstract.params, experiment.trainable)
  if not record or not record['arrays'].keys() <= trainable.flatten(frozen).keys():
    return {}
  source = experiment.pretrained
  return {**record, 'pretrained': source._asdict() if source else record['pretrained']}


def leave_out(state, record: Mapping[str, Any]):
  """A state, or its shapes, without the arrays of a record; {} leaves out none."""
  if not record:
    return state
  names = record['arrays']
  without = state.replace(params=_without(state.params, names))
  if isinstance(state, AveragedState):  # their average is their value
    params = _without(state.ema['params'], names)
    without = without.replace(ema={**state.ema, 'params': params})
  return without


def load(checkpoints: Checkpoints, step: int, experiment: setup.Experiment) -> dict[str, Any]:
  """{name: array} that the checkpoint of a step leaves out, from the pretrained weights.

  Raises:
    StateError: these cannot be read or differ, or the checkpoint is of another model.
  """
  record = checkpoints.run_info(step).get(KEY, {})
  if not record:
    return {}
  expected = trainable.flatten(experiment.abstract.params)
  for name, shape in record['arrays'].items():
    wanted = list(expected[name].shape) if name in expected else 'nothing'
    if wanted != shape:
      raise StateError(
        f'the checkpoint of step {step} is of another model: {name}: checkpoint {shape}, model '
        f'{wanted}'
      )
  like = setup.model_variables(experiment.abstract)
  place = sharding.replicated(experiment.mesh)
  return _read(step, record, experiment.pretrained, like, place)


def restore(
  checkpoints: Checkpoints,
  step: int,
  experiment: setup.Experiment,
  arrays: Mapping[str, Any] | None = None,
):
  """The whole state at a step.

  Args:
    checkpoints, step, experiment: of the run.
    arrays: from `load`; None: they are loaded here.

  Raises:
    StateError: as `load` and `Checkpoints.restore`.
  """
  abstract, record = experiment.abstract, checkpoints.run_info(step).get(KEY, {})
  if not record:
    return checkpoints.restore(step, abstract)
  arrays = load(checkpoints, step, experiment) if arrays is None else arrays
  state = checkpoints.restore(step, leave_out(abstract, record))
  expected = trainable.flatten(abstract.params)

  def complete(params):
    added = {n: jax.device_put(value, expected[n].sharding) for n, value in arrays.items()}
    return trainable.merge(params, trainable.unflatten(added))

  whole = state.replace(params=complete(state.params))
  if isinstance(state, AveragedState):
    whole = whole.replace(ema={**state.ema, 'params': complete(state.ema['params'])})
  return whole


def restore_variables(checkpoints: Checkpoints, step: int, place) -> dict[str, Any]:
  """As `Checkpoints.restore_variables`, with the arrays that the checkpoint leaves out.

  Raises:
    StateError: as `restore`.
  """
  variables = checkpoints.restore_variables(step, place)
  record = checkpoints.run_info(step).get(KEY, {})
  if not record:
    return variables
  left_out = {
    name: jax.ShapeDtypeStruct(tuple(shape), np.float32) for name, shape in record['arrays'].items()
  }
  like = {
    **variables,
    'params': trainable.merge(variables['params'], trainable.unflatten(left_out)),
  }
  arrays = _read(step, record, None, like, place)
  added = {name: jax.device_put(value, place) for name, value in arrays.items()}
  params = trainable.merge(variables['params'], trainable.unflatten(added))
  return {**variables, 'params': params}


def match_run(source: transfer.PretrainedConfig, like, variables) -> transfer.Match:
  """Matches the variables of another run to a model, as `config.pretrained.into` requests."""
  if source.into == 'all':
    return transfer.match_all(like, variables)
  return transfer.match(like, variables, source.into)


def _read(
  step: int,
  record: Mapping[str, Any],
  source: transfer.PretrainedConfig | None,
  like,
  place,
) -> dict[str, np.ndarray]:
  """The arrays that a checkpoint leaves out, from the pretrained weights.

  Args:
    step, record: of the checkpoint.
    source: the pretrained weights; None: those of the record.
    like: the model's variables, or their shapes.
    place: the sharding for reading another run.
  """
  way_out = 'Restore these weights'
  if source is not None:
    way_out += (
      ', or name their new place by --config.pretrained.weights (to resume, with '
      '--allow_config_change)'
    )
  source = source or transfer.PretrainedConfig(**record['pretrained'])
  what = f'the checkpoint of step {step} stores the difference from {source.weights}'
  try:
    if source.architecture == transfer.OWN_RUN:
      found = _read_run(source, record.get('step'), like, place)
    else:
      found, _ = transfer.load(source, like)
    arrays = {}
    for name in record['arrays']:
      if (value := found.get(('params', *name.split('/')))) is None:
        raise StateError(f'they lack {name}')
      arrays[name] = np.asarray(value)
  except (ConfigError, StateError) as error:
    raise StateError(f'{what}, which cannot be used ({error}). {way_out}') from error
  if (digest := _hash(arrays)) != record['sha256']:
    raise StateError(
      f'{what}, whose frozen arrays have the SHA-256 {digest} now; the run was trained with '
      f'{record["sha256"]}. {way_out}'
    )
  return arrays


def _read_run(source: transfer.PretrainedConfig, step: int | None, like, place):
  """{path in the model: array} of the step of another run that this one started from."""
  folder = remote_workdir.fetch_run(source.weights)
  checkpoints = Checkpoints(workdir.checkpoints(folder), '', read_only=True)
  if step is None or step not in checkpoints.steps():
    raise StateError(f'{source.weights} no longer holds the checkpoint of step {step}')
  matched = match_run(source, like, restore_variables(checkpoints, step, place))
  return {path: distributed.gather_to_host(array) for path, array in matched.arrays.items()}


def _hash(arrays: Mapping[str, Any]) -> str:
  return hashing.hash_weights({'params': trainable.unflatten(arrays)})


def _without(params: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
  names = set(names)
  kept = {name: value for name, value in trainable.flatten(params).items() if name not in names}
  return trainable.unflatten(kept)
