"""What a config becomes: model, mesh, optimiser, loss, state's shapes, the step. Reads no data.

Everything that can be wrong with a config is found here, and reported at once. Given the devices of
a slice that is not there, the same job is compiled for it (`preflight.py`).
"""

import functools
import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from flexfas_jax import errors, lookup, schema
from flexfas_jax.errors import ConfigError, FlexfasError
from flexfas_jax.evaluation import thresholds
from flexfas_jax.images import geometry, transforms
from flexfas_jax.images.preprocess import Preprocess
from flexfas_jax.models import flexmodal
from flexfas_jax.models.weights import conversion
from flexfas_jax.training import optimizer as optimizers
from flexfas_jax.training import sharding, subjects
from flexfas_jax.training.devices import find as find_devices
from flexfas_jax.training.step import init_state, train_step


class Experiment(NamedTuple):
  """What a config becomes."""

  config: ConfigDict  # the protocol's selections in place
  model: flexmodal.Model
  mesh: jax.sharding.Mesh
  optimizer: Any
  schedule: Any
  loss: Any  # (outputs, batch) -> [B]
  map_size: int | None  # of the target that training needs
  pretrained: conversion.Source | None  # what the streams start from
  init: Any  # key -> State
  abstract: Any  # State of ShapeDtypeStruct, with shardings
  preprocess: Preprocess  # nothing random; the first of the views
  views: dict[str, geometry.View]  # that val and tests are looked at by, in the end
  subsets: tuple[tuple[str, ...], ...]  # that are scored
  metrics: tuple[str, ...]  # of the printed table; empty: the usual ones
  target: str = ''  # the column whose values an identity task tells apart; '': attacks are told


def build(
  config: ConfigDict,
  devices: Sequence[jax.Device] | None = None,
  classes: int | None = None,
  problems: Sequence[FlexfasError] = (),
) -> Experiment:
  """The job of a config.

  Args:
    config: as a file of `configs/` returns it.
    devices: what it runs on; None: all there are.
    classes: of an identity task, as many as the training's data has; None: as the config says.
    problems: that were found before, as by `inputs.problems`; they are reported with those of the
      config, and left alone where the config has none.

  Raises:
    ConfigError: fields that are unknown, or do not fit the others or the devices: all of them.
  """
  found: list[FlexfasError] = []
  attempt = functools.partial(errors.attempt, found)
  target = attempt('config.task', subjects.target_column, config) or ''
  config, protocol = attempt('config.protocol', with_protocol, config) or (config, None)
  if target and protocol:
    found.append(
      ConfigError(f'config.protocol = {config.protocol!r} is of attacks, not of identities')
    )
  fields = config.to_dict()
  _check_counts(config, found)
  if config.clip_norm is not None and not config.clip_norm > 0:
    found.append(ConfigError(f'config.clip_norm is {config.clip_norm}; give a norm, or None'))
  attempt('config.resize', geometry.check_resize, config.get('resize', 'area'))
  attempt('', _check_arguments, 'config.view', geometry.draw_view, fields['view'], 'rng')
  for modality, changes in fields['photometric'].items():
    attempt('', _check_photometric, modality, changes)
  attempt('config.member', member_of, config)
  for name in config.test if not target else ():
    attempt(f'config.threshold.{name}', _check_rule, config, name)
  loss = attempt('config.loss', lookup.make_loss, fields['loss'])
  schedule = attempt('config.schedule', optimizers.make_schedule, fields['schedule'], config.steps)
  # Without a schedule, another one finds what is wrong with the optimiser.
  rates = fields['schedule'] if schedule else {'name': 'constant', 'peak': 1.0}
  optimizer, _ = attempt(
    'config.optimizer', optimizers.build, fields['optimizer'], rates, config.steps, config.clip_norm
  ) or (optax.identity(), None)
  views = attempt('config.views', _views, config, target) or {'whole': geometry.View()}
  devices = find_devices() if devices is None else devices
  mesh = attempt('config.mesh', _mesh, fields['mesh'], devices)
  if mesh:
    batch = config.batch_size, mesh, 'config.batch_size', max(config.accumulate, 1)
    attempt('config.batch_size', sharding.check_batch, *batch)
    batch = config.eval_batch_size, mesh, 'config.eval_batch_size'
    attempt('config.eval_batch_size', sharding.check_batch, *batch)
  model = attempt('config.model', _model, fields['model'], classes)
  if model is None:
    errors.raise_all([*found, *problems])
  if unknown := set(fields['modality_dropout']) - set(model.modalities):
    found.append(
      ConfigError(f'config.modality_dropout names {sorted(unknown)}, not {model.modalities}')
    )
  served = attempt('config.protocol', subsets, model, protocol)
  init = functools.partial(init_state, model=model, optimizer=optimizer)
  abstract = attempt('config.model', jax.eval_shape, init, jax.random.key(0))
  map_size = source = None
  if abstract is not None:
    attempt('config.optimizer', optimizers.check_names, fields['optimizer'], abstract.params)
    variables = variables_of(abstract)
    if loss:
      map_size = attempt('config.loss', check_shapes, model, loss, variables, target)
    given = fields.get('pretrained')
    source = attempt('config.pretrained', conversion.source_of, given, variables)
  if found:
    errors.raise_all([*found, *problems])
  abstract = jax.tree.map(
    lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
    abstract,
    sharding.state_sharding(abstract, mesh),
  )
  return Experiment(
    config=config,
    model=model,
    mesh=mesh,
    optimizer=optimizer,
    schedule=schedule,
    loss=loss,
    map_size=map_size,
    pretrained=source,
    init=init,
    abstract=abstract,
    preprocess=Preprocess(
      config.model.image_size,
      model.modalities,
      test_views=tuple(views.values())[:1],
      resize=config.get('resize', 'area'),
    ),
    views=views,
    subsets=served,
    metrics=protocol.metrics if protocol else (),
    target=target,
  )


def _model(fields: dict, classes: int | None) -> flexmodal.Model:
  return flexmodal.build(**with_classes(fields, classes))


def _mesh(fields: dict, devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
  _check_arguments('config.mesh', sharding.make_mesh, fields)
  return sharding.make_mesh(**fields, devices=devices)


def _views(config: ConfigDict, target: str) -> dict[str, geometry.View]:
  views = geometry.named_views(config.get('views', ('whole',)))
  if target and len(views) > 1:
    raise ConfigError('config.views are of attacks: an identity task looks at pictures once')
  return views


def _check_rule(config: ConfigDict, test: str) -> None:
  if test not in config.threshold:
    raise ConfigError(f'config.threshold has no rule for the test set {test!r}')
  thresholds.needs_dev(config.threshold[test])


def _check_counts(config: ConfigDict, found: list[FlexfasError]) -> None:
  """Numbers of which none may be 0."""
  every = ('eval_every', 'checkpoint_every', 'log_every')
  for name in ('steps', 'accumulate', *every, 'save_tries'):
    value = config.get(name, 1)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
      found.append(ConfigError(f'config.{name} is {value!r}; give a whole number from 1 on'))


def _check_photometric(modality: str, fields: dict) -> None:
  if modality not in schema.MODALITIES:
    known = ', '.join(schema.MODALITIES)
    raise ConfigError(f'config.photometric has no modality {modality!r}; choose from: {known}')
  where, change = f'config.photometric.{modality}', transforms.draw_photometric
  _check_arguments(where, change, fields, 'rng', 'channels')


def _check_arguments(where: str, function, fields: dict, *others: str) -> None:
  """Raises a ConfigError where a group has a field that its function does not take."""
  known = [name for name in inspect.signature(function).parameters if name not in others]
  if unknown := sorted(set(fields) - set(known)):
    raise ConfigError(f'{where} has no field {unknown[0]!r}; it has: {", ".join(known)}')


def member_of(config: ConfigDict) -> dict[str, str | int]:
  """The coordinates of an ensemble's member, for the headers of its score files; {} of no member.

  Raises:
    ConfigError: `config.member` is no network with a fold or none.
  """
  member = config.get('member')
  if not member:
    return {}
  fields = {**member}
  if set(fields) - {'network', 'fold'} or not all(isinstance(x, str) for x in fields.values()):
    raise ConfigError(f'config.member is {fields}; give a network and a fold, the seed is known')
  if wrong := [x for x in fields.values() if '/' in x or '@' in x]:
    raise ConfigError(f'config.member: {wrong[0]!r} must have neither / nor @')
  if not fields.get('network'):
    return {}
  fold = fields.get('fold')
  return {'network': fields['network'], 'seed': config.seed} | ({'fold': fold} if fold else {})


def with_classes(model: dict, classes: int | None) -> dict:
  """The fields of a model, its head knowing `classes` where it is to count them (0).

  Raises:
    ConfigError: it is to count them, and nobody did.
  """
  head = model['head']
  if head['name'] != 'identity_cosine' or head.get('identities', 0):
    return model
  if classes is None:
    raise ConfigError(
      'config.model.head.identities = 0 takes as many as the data has, and no data is read here; '
      'give the number'
    )
  return {**model, 'head': {**head, 'identities': classes}}


def step_fn(experiment: Experiment):
  """The training step under `jit`: (state, batch, root key) -> (state, metrics); donates state."""
  return jax.jit(
    functools.partial(
      train_step,
      model=experiment.model,
      optimizer=experiment.optimizer,
      loss=experiment.loss,
      modality_dropout=experiment.config.modality_dropout.to_dict(),
      accumulate=experiment.config.accumulate,
    ),
    out_shardings=(shardings(experiment), sharding.replicated(experiment.mesh)),
    donate_argnums=0,
  )


def shardings(experiment: Experiment):
  """Where each leaf of the state lives."""
  return jax.tree.map(lambda leaf: leaf.sharding, experiment.abstract)


def abstract_batch(experiment: Experiment) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and shardings of the global training batch."""
  B, place = experiment.config.batch_size, sharding.batch_sharding(experiment.mesh)
  return {
    name: jax.ShapeDtypeStruct((B, *leaf.shape[1:]), leaf.dtype, sharding=place)
    for name, leaf in _batch_of(experiment.model, experiment.map_size, 1, experiment.target).items()
  }


def abstract_key(experiment: Experiment) -> jax.ShapeDtypeStruct:
  """Of the root key, which every device has."""
  key = jax.eval_shape(jax.random.key, 0)
  return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=sharding.replicated(experiment.mesh))


def variables_of(state) -> dict:
  """The model's part of a state."""
  return {'params': state.params, 'batch_stats': state.batch_stats}


def with_protocol(config: ConfigDict):
  """(the config with its protocol's selections and rules in place of its own, the protocol)."""
  if not config.get('protocol'):
    return config, None
  protocol = lookup.make_protocol(config.protocol)
  config = ConfigDict(config)
  with config.unlocked():
    config.train, config.val = protocol.train, protocol.val
    config.test, config.threshold = ConfigDict(protocol.test), ConfigDict(protocol.threshold)
    leaks = (*config.get('accept_known_leaks', ()), *protocol.leaks)
    config.accept_known_leaks = tuple(dict.fromkeys(leaks))  # a run's own config has them already
    config.left_out = protocol.left_out
  return config, protocol


def subsets(model: flexmodal.Model, protocol) -> tuple[tuple[str, ...], ...]:
  """The subsets that are scored: those of the protocol that the model serves."""
  wanted = protocol.subsets if protocol and protocol.subsets else ()
  served = tuple(s for s in model.subsets if not wanted or schema.subset_name(s) in wanted)
  if not served:
    raise ConfigError(
      f'the protocol reports {", ".join(wanted)}, and the model serves '
      f'{", ".join(map(schema.subset_name, model.subsets))}; choose another fusion or '
      'config.model.modalities'
    )
  return served


def check_shapes(model: flexmodal.Model, loss, variables, target: str = '') -> int | None:
  """Tries head, loss and batch on shapes alone; returns the side of the head's map, if it has one.

  Args:
    model, loss, variables: of the job.
    target: of an identity task.

  Raises:
    ConfigError: they do not fit.
  """
  batch = _batch_of(model, None, 2, target)
  outputs, _ = jax.eval_shape(model.apply, variables, batch, jax.random.key(0))
  if target and outputs.get('cosine') is None:
    raise ConfigError(
      "config.task = 'identities' needs a head that knows them: "
      "--config.model.head=\"{'name': 'identity_cosine', 'identities': 0}\""
    )
  if not target and outputs['logit'] is None:
    raise ConfigError(
      'config.model.head gives no logit, so that nothing can be scored; choose one that decides, '
      'e.g. --config.model.head.name=binary_logit, or --config.task=identities for a head that '
      'knows them'
    )
  side = None
  if outputs['map'] is not None:
    _, side, width = outputs['map'].shape
    if side != width:
      raise ConfigError(f"the head's map is {side} x {width}; live masks are square")
  jax.eval_shape(loss, outputs, _batch_of(model, side, 2, target))
  return side


def _batch_of(model: flexmodal.Model, map_size: int | None, B: int, target: str) -> dict:
  size = model.image_size
  shapes = {m: (B, size, size, 3 if m == 'rgb' else 1) for m in model.modalities}
  batch = {m: jax.ShapeDtypeStruct(shape, np.float32) for m, shape in shapes.items()}
  batch['present'] = jax.ShapeDtypeStruct((B, len(model.modalities)), bool)
  batch['label'] = jax.ShapeDtypeStruct((B,), np.int32)
  if map_size:
    batch['map'] = jax.ShapeDtypeStruct((B, map_size, map_size), np.float32)
  if target:
    batch['identity'] = jax.ShapeDtypeStruct((B,), np.int32)
  return batch
