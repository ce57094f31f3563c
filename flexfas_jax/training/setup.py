"""Builds what a config describes: model, mesh, optimizer, loss, state shapes, training step.

Reads no data. All problems of a config are found here and reported at once. Given the devices of a
TPU slice that is not attached, the same experiment is compiled for it (`preflight/run.py`).
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from flexfas_jax import errors, lookup, schema
from flexfas_jax.errors import ConfigError, FlexfasError
from flexfas_jax.evaluation import pass_if, thresholds
from flexfas_jax.images import geometry, transforms
from flexfas_jax.images.preprocess import Preprocess
from flexfas_jax.models import flexmodal, masked_autoencoder
from flexfas_jax.models.weights import transfer
from flexfas_jax.training import objective as objectives
from flexfas_jax.training import optimizer as optimizers
from flexfas_jax.training import sampling, sharding, subjects
from flexfas_jax.training import trainable as parameters
from flexfas_jax.training.devices import check_settings, find_devices
from flexfas_jax.training.step import AveragedState, init_state, new_state, train_step


class Experiment(NamedTuple):
  """What a config describes.

  Attributes:
    config: with the protocol's selections in place.
    model: the network.
    mesh: of all devices.
    optimizer: an `optax.GradientTransformation`.
    schedule: step -> learning rate.
    loss: (outputs, batch) -> [B].
    map_size: side of the target map that the head needs; None: it needs none.
    pretrained: the source of the initial weights; None: random.
    init: key -> State.
    abstract: a State of `jax.ShapeDtypeStruct`, with shardings.
    preprocess: deterministic, with the first of the views.
    views: by name; what evaluation averages over.
    subsets: of the modalities, which are scored.
    metrics: of the printed table; (): the default ones.
    by_video: whether tests are also reported by video.
    task: of `subjects.TASKS`.
    target: the column of the classes in an identity task; '' in others.
    trainable: patterns of the parameters that train; (): all.
    objective: what the loss needs from the training step besides a gradient.
  """

  config: ConfigDict
  model: flexmodal.Model | masked_autoencoder.MaskedModel
  mesh: jax.sharding.Mesh
  optimizer: optax.GradientTransformation
  schedule: optax.Schedule
  loss: Callable[..., jax.Array]
  map_size: int | None
  pretrained: transfer.PretrainedConfig | None
  init: Callable
  abstract: Any
  preprocess: Preprocess
  views: dict[str, geometry.View]
  subsets: tuple[tuple[str, ...], ...]
  metrics: tuple[str, ...]
  by_video: bool = False
  task: str = 'attacks'
  target: str = ''
  trainable: tuple[str, ...] = ()
  objective: objectives.Objective = objectives.Objective()


def build(
  config: ConfigDict,
  devices: Sequence[jax.Device] | None = None,
  classes: int | None = None,
  problems: Sequence[FlexfasError] = (),
) -> Experiment:
  """Builds the experiment of a config.

  Args:
    config: as a file of `configs/` returns it.
    devices: None: all that are attached.
    classes: of the training data, in an identity task; None: as the config gives them.
    problems: found before, as by `datasets.inspect`. They are reported together with those of the
      config; if it has none, the caller raises them.

  Raises:
    ConfigError: fields that are unknown, or do not fit each other or the devices: all of them.
  """
  config_problems: list[FlexfasError] = []
  attempt = functools.partial(errors.attempt, config_problems)
  attempt('environment', check_settings)
  task = attempt('config.task', subjects.task_name, config) or 'attacks'
  target = subjects.target_column(config) if task == 'identities' else ''
  config, protocol = attempt('config.protocol', apply_protocol, config) or (config, None)
  if target and protocol:
    config_problems.append(
      ConfigError(f'config.protocol = {config.protocol!r} is for attacks, not for identities')
    )
  fields = config.to_dict()
  _check_plain_fields(config, fields, task, config_problems)
  loss = attempt('config.loss', lookup.make_loss, fields['loss'])
  schedule = attempt('config.schedule', optimizers.make_schedule, fields['schedule'], config.steps)
  # Without a valid schedule, the optimizer is checked with a constant one.
  rates = fields['schedule'] if schedule else {'name': 'constant', 'peak': 1.0}
  freeze = fields['optimizer'].pop('freeze', ())
  trainable = attempt('config.trainable', parameters.parse, config.get('trainable', ())) or ()
  optimizer, _ = attempt(
    'config.optimizer', optimizers.build, fields['optimizer'], rates, config.steps, config.clip_norm
  ) or (optax.identity(), None)
  views = attempt('config.views', _views, config, task) or {'whole': geometry.View()}
  mesh = attempt('config.mesh', _mesh, fields['mesh'], devices or find_devices())
  if mesh:
    accumulate = max(config.accumulate, 1)
    for field, parts in (('batch_size', accumulate), ('eval_batch_size', 1)):
      name = f'config.{field}'
      attempt(name, sharding.check_batch, config[field], mesh, name, parts)
  model = attempt('config.model', make_model, fields['model'], task, classes)
  if model is None:
    errors.raise_all([*config_problems, *problems])
  dropout = fields['modality_dropout']
  rates = {m: rate for m, rate in dropout.items() if m != 'by_loss'}
  if unknown := set(rates) - set(model.modalities):
    config_problems.append(
      ConfigError(
        f'config.modality_dropout names {sorted(unknown)}, not {model.modalities}; name only '
        "these, or none: --config.modality_dropout='{}'"
      )
    )
  for modality, rate in rates.items():
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
      config_problems.append(
        ConfigError(
          f'config.modality_dropout.{modality} is {rate!r}; give a probability from 0 to 1'
        )
      )
  reported = protocol if task == 'attacks' else None
  scored = attempt('config.protocol', scored_subsets, model, reported)
  objective = objectives.Objective()
  if loss:
    spec = fields['loss'], fields.get('gradient_modulation'), model, dropout
    objective = attempt('config.loss', objectives.build, *spec) or objective
  options = {'optimizer': optimizer, 'ema': _ema(config), 'trainable': trainable}
  options['memory'] = objective.memory
  init = functools.partial(init_state, model=model, **options)
  abstract = map_size = pretrained = None
  if shapes := attempt('config.model', model.shapes):
    params = shapes['params']
    attempt('config.optimizer', parameters.refuse_freeze, freeze, params)
    attempt('config.trainable', parameters.check, 'trainable', trainable, params)
    trained, _ = parameters.split(params, trainable)
    if trained:
      attempt('config.optimizer', optimizers.check_names, fields['optimizer'], trained)
    abstract = jax.eval_shape(functools.partial(new_state, **options), shapes)
    variables = model_variables(abstract)
    if loss:
      map_size = attempt('config.loss', check_shapes, model, loss, target, objective)
    source = fields.get('pretrained')
    pretrained = attempt('config.pretrained', transfer.parse_config, source, variables)
    if pretrained:
      backbone = fields['model']['backbone']
      attempt('config.model.backbone', transfer.check_backbone, pretrained, backbone)
  if config_problems:
    errors.raise_all([*config_problems, *problems])
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
    pretrained=pretrained,
    init=init,
    abstract=abstract,
    preprocess=Preprocess(
      config.model.image_size,
      model.modalities,
      test_views=tuple(views.values())[:1],
      resize=config.get('resize', 'area'),
    ),
    views=views,
    subsets=scored,
    metrics=protocol.metrics if protocol else (),
    by_video=protocol.by_video if protocol else False,
    task=task,
    target=target,
    trainable=trainable,
    objective=objective,
  )


def _check_plain_fields(
  config: ConfigDict, fields: dict, task: str, config_problems: list[FlexfasError]
) -> None:
  """Checks the fields that can be checked one by one; appends their problems."""
  attempt = functools.partial(errors.attempt, config_problems)
  for name in ('steps', 'accumulate', 'eval_every', 'checkpoint_every', 'log_every', 'save_tries'):
    value = config.get(name, 1)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
      config_problems.append(
        ConfigError(f'config.{name} is {value!r}; give a whole number from 1 on')
      )
  norm = config.clip_norm
  if norm is not None and (type(norm) not in (int, float) or not norm > 0):
    config_problems.append(ConfigError(f'config.clip_norm is {norm!r}; give a norm, or None'))
  ema = _ema(config)
  if isinstance(ema, bool) or not isinstance(ema, int | float) or not 0 <= ema < 1:
    config_problems.append(
      ConfigError(
        f'config.ema is {ema!r}; give a decay below 1, such as 0.999, or 0 for no average'
      )
    )
  attempt('config.resize', geometry.check_resize, config.get('resize', 'area'))
  attempt('', _check_view, fields['view'])
  for modality, changes in fields['photometric'].items():
    attempt('', _check_photometric, modality, changes)
  attempt('config.pass_if', pass_if.parse, config.get('pass_if', ''))
  attempt('config.test_toml', _check_description, config)
  attempt('config.member', member_fields, config)
  attempt('config.domain', sampling.domain_column, config)
  attempt('config.sampler', sampling.balanced_fields, config)
  for name in config.test if task == 'attacks' else ():
    attempt(f'config.threshold.{name}', _check_rule, config, name)


def _ema(config: ConfigDict) -> float:
  return config.get('ema', 0.0)  # configs of earlier versions lack it


def make_model(
  fields: dict, task: str, classes: int | None
) -> flexmodal.Model | masked_autoencoder.MaskedModel:
  """The model of a config.

  Args:
    fields: its group `model`.
    task: of `subjects.TASKS`.
    classes: see `fill_class_count`.

  Raises:
    ConfigError: fields that are unknown, or fit neither each other nor the task.
  """
  if ('decoder' in fields) != (task == 'reconstruction'):
    raise ConfigError(
      "config.task = 'reconstruction' and a model with a decoder need each other: see "
      'configs/masked_pretraining.py'
    )
  if task == 'reconstruction':
    _check_arguments('config.model', masked_autoencoder.build, fields)
    return masked_autoencoder.build(**fields)
  return flexmodal.build(**fill_class_count(fields, classes))


def _mesh(fields: dict, devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
  _check_arguments('config.mesh', sharding.make_mesh, fields)
  return sharding.make_mesh(**fields, devices=devices)


def _views(config: ConfigDict, task: str) -> dict[str, geometry.View]:
  views = geometry.parse_views(config.get('views', ('whole',)))
  if task != 'attacks' and len(views) > 1:
    raise ConfigError(f'config.views has several views; the task {task!r} takes one')
  return views


def _check_rule(config: ConfigDict, test: str) -> None:
  if test not in config.threshold:
    raise ConfigError(f'config.threshold has no rule for the test set {test!r}')
  thresholds.needs_dev(config.threshold[test])
  if config.threshold[test] == thresholds.BUNDLE:
    thresholds.fit(thresholds.BUNDLE, (), ())  # which refuses it: a run has no bundle yet


def _check_description(config: ConfigDict) -> None:
  """Raises ConfigError for a `test_toml` that is no local path; the file is read to score tests."""
  path = config.get('test_toml', '')
  if not isinstance(path, str):
    raise ConfigError(f"config.test_toml is {path!r}; give the path of a file, or ''")
  if path and not config.get('report', True):
    raise ConfigError('config.test_toml needs config.report: only a report states what is in it')
  if path.startswith('gs://'):
    raise ConfigError(f'config.test_toml is {path}; copy it, and give the path of a local file')


def _check_photometric(modality: str, fields: dict) -> None:
  if modality not in schema.MODALITIES:
    choices = ', '.join(schema.MODALITIES)
    raise ConfigError(f'config.photometric has no modality {modality!r}; choose from: {choices}')
  where, change = f'config.photometric.{modality}', transforms.draw_photometric
  _check_arguments(where, change, fields, 'rng', 'channels')


def _check_arguments(where: str, function, fields: dict, *others: str) -> None:
  """Raises a ConfigError if a group has a field that its function does not take."""
  parameters = [name for name in inspect.signature(function).parameters if name not in others]
  if unknown := sorted(set(fields) - set(parameters)):
    raise ConfigError(f'{where} has no field {unknown[0]!r}; it has: {", ".join(parameters)}')


def _check_view(fields: dict) -> None:
  """Raises a ConfigError if the group `view` has a field that views do not have, or a bad range."""
  _check_arguments('config.view', geometry.draw_view, fields, 'rng')
  for name in ('crop', 'aspect'):
    limits = fields.get(name, (1.0, 1.0))
    numbers = isinstance(limits, tuple | list) and len(limits) == 2
    numbers = numbers and all(type(limit) in (int, float) for limit in limits)
    if not numbers or not 0 < limits[0] <= limits[1]:
      raise ConfigError(
        f'config.view.{name} is {limits!r}; give the smallest and the largest, above 0, as in '
        f'--config.view.{name}="(0.75, 1.0)"'
      )


def member_fields(config: ConfigDict) -> dict[str, str | int]:
  """Network, seed and fold of an ensemble's member, for score file headers; {} if it is none.

  Raises:
    ConfigError: `config.member` has other fields, or a name that cannot be used.
  """
  member = config.get('member')
  if not member:
    return {}
  fields = {**member}
  if set(fields) - {'network', 'fold'} or not all(isinstance(x, str) for x in fields.values()):
    raise ConfigError(f'config.member is {fields}; give network and fold; the seed is config.seed')
  if wrong := [x for x in fields.values() if '/' in x or '@' in x]:
    raise ConfigError(f'config.member: {wrong[0]!r} must not contain / or @')
  if not fields.get('network'):
    return {}
  fold = fields.get('fold')
  return {'network': fields['network'], 'seed': config.seed} | ({'fold': fold} if fold else {})


def fill_class_count(model: dict, classes: int | None) -> dict:
  """The fields of a model; a head with `identities` = 0 gets the number of classes.

  Raises:
    ConfigError: that number is needed, and `classes` is None.
  """
  head = model['head']
  if head['name'] != 'identity_cosine' or head.get('identities', 0):
    return model
  if classes is None:
    raise ConfigError(
      'config.model.head.identities = 0 counts the classes of the training data, which is not '
      'read here; give the number'
    )
  return {**model, 'head': {**head, 'identities': classes}}


def make_step(experiment: Experiment):
  """The training step under `jit`: (state, batch, root key) -> (state, metrics); donates state."""
  return jax.jit(
    functools.partial(
      train_step,
      model=experiment.model,
      optimizer=experiment.optimizer,
      loss=experiment.loss,
      modality_dropout=experiment.config.modality_dropout.to_dict(),
      accumulate=experiment.config.accumulate,
      ema=_ema(experiment.config),
      trainable=experiment.trainable,
      **experiment.objective.step_arguments(),
    ),
    out_shardings=(shardings(experiment), sharding.replicated(experiment.mesh)),
    donate_argnums=0,
  )


def shardings(experiment: Experiment):
  """The sharding of each leaf of the state."""
  return jax.tree.map(lambda leaf: leaf.sharding, experiment.abstract)


def abstract_batch(experiment: Experiment) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and shardings of the global training batch."""
  B, place = experiment.config.batch_size, sharding.batch_sharding(experiment.mesh)
  batch = _abstract_batch(experiment.model, experiment.map_size, B, experiment.target)
  return {
    name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
    for name, leaf in batch.items()
  }


def abstract_key(experiment: Experiment) -> jax.ShapeDtypeStruct:
  """Shape and sharding of the root key, which is replicated."""
  key = jax.eval_shape(jax.random.key, 0)
  return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=sharding.replicated(experiment.mesh))


def model_variables(state) -> dict:
  """The model's variables in a state, as the optimizer left them."""
  return {'params': state.params, 'batch_stats': state.batch_stats}


def scored_variables(state) -> dict:
  """The variables that are evaluated and exported: the moving average, if the state has one."""
  return state.ema if isinstance(state, AveragedState) else model_variables(state)


def apply_protocol(config: ConfigDict):
  """(the config with its protocol's selections and threshold rules, the protocol or None)."""
  if not config.get('protocol'):
    return config, None
  protocol = lookup.make_protocol(config.protocol)
  config = ConfigDict(config)
  with config.unlocked():
    config.train, config.val = protocol.train, protocol.val
    config.test, config.threshold = ConfigDict(protocol.test), ConfigDict(protocol.threshold)
    if config.get('task') == 'reconstruction':  # pretraining reads no test
      config.test, config.threshold = ConfigDict(), ConfigDict()
    leaks = (*config.get('accept_known_leaks', ()), *protocol.leaks)
    config.accept_known_leaks = tuple(dict.fromkeys(leaks))  # a workdir's config has them already
    config.left_out = protocol.left_out
  return config, protocol


def scored_subsets(model: flexmodal.Model, protocol) -> tuple[tuple[str, ...], ...]:
  """The subsets that are scored: those of the protocol that the model serves.

  Raises:
    ConfigError: the model serves none of them.
  """
  reported = protocol.subsets if protocol and protocol.subsets else ()
  scored = tuple(s for s in model.subsets if not reported or schema.subset_name(s) in reported)
  if not scored:
    raise ConfigError(
      f'the protocol reports {", ".join(reported)}, but the model serves '
      f'{", ".join(map(schema.subset_name, model.subsets))}; choose another fusion or '
      'config.model.modalities'
    )
  return scored


def check_shapes(
  model: flexmodal.Model,
  loss,
  target: str = '',
  objective: objectives.Objective | None = None,
) -> int | None:
  """Checks that head, loss and batch fit each other, by their shapes.

  Args:
    model, loss: of the experiment.
    target: of an identity task; '' for attack detection.
    objective: of the loss; None: it needs nothing from the step.

  Returns:
    The side of the head's map; None if it has none.

  Raises:
    ConfigError: they do not fit.
  """
  outputs = model.output_shapes()
  if 'patch_error' in outputs:
    jax.eval_shape(loss, outputs, _abstract_batch(model, None, 2, target))
    return None
  if target and outputs.get('cosine') is None:
    raise ConfigError(
      "config.task = 'identities' needs a head that classifies them: "
      "--config.model.head=\"{'name': 'identity_cosine', 'identities': 0}\""
    )
  if not target and outputs['logit'] is None:
    raise ConfigError(
      'config.model.head gives no logit to score; choose another, e.g. '
      '--config.model.head.name=binary_logit, or --config.task=identities for a head that '
      'classifies identities'
    )
  side = None
  if outputs['map'] is not None:
    _, side, width = outputs['map'].shape
    if side != width:
      raise ConfigError(f"the head's map is {side} x {width}, but target maps are square")
  memory = (objective and objective.memory) or {}
  jax.eval_shape(loss, {**outputs, **memory}, _abstract_batch(model, side, 2, target))
  return side


def _abstract_batch(model: flexmodal.Model, map_size: int | None, B: int, target: str) -> dict:
  """Shapes of a batch of B samples."""
  size = model.image_size
  shapes = {m: (B, size, size, schema.channels(m)) for m in model.modalities}
  batch = {m: jax.ShapeDtypeStruct(shape, np.float32) for m, shape in shapes.items()}
  batch['present'] = jax.ShapeDtypeStruct((B, len(model.modalities)), bool)
  batch['label'] = batch['domain'] = jax.ShapeDtypeStruct((B,), np.int32)
  if map_size:
    batch['map'] = jax.ShapeDtypeStruct((B, map_size, map_size), np.float32)
  if target:
    batch['identity'] = jax.ShapeDtypeStruct((B,), np.int32)
  return batch
