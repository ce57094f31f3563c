"""The jobs of a config: train, evaluate, or both. What is mathematics is in `step.py`.

Everything that can be wrong with config, data or workdir is found before anything is written.
"""

import collections
import contextlib
import functools
import hashlib
import json
import pathlib
import sys
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

import flexfas_jax
from flexfas_jax import lookup
from flexfas_jax.errors import ConfigError, DataError, StateError
from flexfas_jax.evaluation import overlaps, results, score_files, scoring, thresholds
from flexfas_jax.input_pipeline import pipeline, sources
from flexfas_jax.models import flexmodal, pretrained
from flexfas_jax.training import optimizer as optimizers
from flexfas_jax.training import sharding
from flexfas_jax.training.checkpoints import Checkpoints
from flexfas_jax.training.metric_writer import MetricWriter
from flexfas_jax.training.progress import Progress
from flexfas_jax.training.step import init_state, named_key, train_step

# What evaluation alone may have otherwise than the training had.
_ONLY_TESTS = (
  *('test', 'threshold', 'protocol', 'accept_known_leaks', 'data_dir', 'eval_batch_size'),
  'pretrained',  # what it started from is not read again
)
BEST = 'eer'  # of val, the mean over the subsets: chooses the checkpoint that is evaluated


class Job(NamedTuple):
  """What a config becomes."""

  config: ConfigDict
  workdir: pathlib.Path
  model: flexmodal.Model
  mesh: jax.sharding.Mesh
  optimizer: Any
  schedule: Any
  loss: Any  # (outputs, batch) -> [B]
  map_size: int | None  # of the target that training needs
  pretrained: pretrained.Source | None  # what the streams start from
  init: Any  # key -> State
  abstract: Any  # State of ShapeDtypeStruct, with shardings
  preprocess: pipeline.Preprocess  # nothing random
  scorer: Any
  metrics: tuple[str, ...]  # of the printed table; empty: the usual ones


def train_and_evaluate(config: ConfigDict, workdir: str) -> None:
  """Trains to the config's last step, resuming if it was begun, then evaluates the best step."""
  job = _prepare(config, workdir)
  data = _data(job)
  _train(job, data)
  _evaluate(job, data)


def train(config: ConfigDict, workdir: str) -> None:
  """Trains to the config's last step, resuming if it was begun."""
  job = _prepare(config, workdir)
  _train(job, _data(job, test=False))


def evaluate(config: ConfigDict, workdir: str) -> None:
  """Scores val and the test sets with the best step and writes the benchmark's results.

  The config may name other tests and rules than the training's did, and other places of the data;
  nothing that was trained with, and not val, which the thresholds come from.
  """
  job = _prepare(config, workdir, evaluate=True)
  if not (job.workdir / 'config.json').exists():
    raise StateError(f'{workdir} holds no training; run with --mode=train first')
  _evaluate(job, _data(job, train=False))


def _prepare(config: ConfigDict, workdir: str, evaluate: bool = False) -> Job:
  config, protocol = _with_protocol(config)
  fields = config.to_dict()
  model = flexmodal.build(**fields['model'])
  mesh = sharding.make_mesh(config.fsdp)
  sharding.check_batch(config.batch_size, mesh, 'config.batch_size')
  sharding.check_batch(config.eval_batch_size, mesh, 'config.eval_batch_size')
  optimizer, schedule = optimizers.build(
    fields['optimizer'], fields['schedule'], config.steps, config.clip_norm
  )
  loss = lookup.make_loss(fields['loss'])
  for name in config.test:
    if name not in config.threshold:
      raise ConfigError(f'config.threshold has no rule for the test set {name!r}')
    thresholds.needs_dev(config.threshold[name])
  if unknown := set(fields['modality_dropout']) - set(model.modalities):
    raise ConfigError(f'config.modality_dropout names {sorted(unknown)}, not {model.modalities}')
  init = functools.partial(init_state, model=model, optimizer=optimizer)
  abstract = jax.eval_shape(init, jax.random.key(0))
  map_size = _fit(model, loss, _variables(abstract))
  source = pretrained.source_of(fields.get('pretrained'), _variables(abstract))
  workdir = pathlib.Path(workdir)
  _compare_config(workdir, fields, _ONLY_TESTS if evaluate else ())

  abstract = jax.tree.map(
    lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
    abstract,
    sharding.state_sharding(abstract, mesh),
  )
  return Job(
    config=config,
    workdir=workdir,
    model=model,
    mesh=mesh,
    optimizer=optimizer,
    schedule=schedule,
    loss=loss,
    map_size=map_size,
    pretrained=source,
    init=init,
    abstract=abstract,
    preprocess=pipeline.Preprocess(config.model.image_size, model.modalities),
    scorer=scoring.make_scorer(
      model, _subsets(model, protocol), functools.partial(sharding.place_batch, mesh=mesh)
    ),
    metrics=protocol.metrics if protocol else (),
  )


def _with_protocol(config: ConfigDict):
  """(the config with its protocol's selections and rules in place of its own, the protocol)."""
  if not config.get('protocol'):
    return config, None
  protocol = lookup.make_protocol(config.protocol)
  config = ConfigDict(config)
  with config.unlocked():
    config.train, config.val = protocol.train, protocol.val
    config.test, config.threshold = ConfigDict(protocol.test), ConfigDict(protocol.threshold)
    config.accept_known_leaks = (*config.get('accept_known_leaks', ()), *protocol.leaks)
  return config, protocol


def _subsets(model: flexmodal.Model, protocol) -> tuple[tuple[str, ...], ...]:
  """The subsets that are scored: those of the protocol that the model serves."""
  wanted = protocol.subsets if protocol and protocol.subsets else ()
  served = tuple(s for s in model.subsets if not wanted or scoring.subset_name(s) in wanted)
  if not served:
    raise ConfigError(
      f'the protocol reports {", ".join(wanted)}, and the model serves '
      f'{", ".join(map(scoring.subset_name, model.subsets))}; choose another fusion or '
      'config.model.modalities'
    )
  return served


def _fit(model: flexmodal.Model, loss, variables) -> int | None:
  """Tries head, loss and batch on shapes alone; returns the side of the head's map, if it has one.

  Raises:
    ConfigError: they do not fit.
  """
  size, B = model.image_size, 2
  shapes = {m: (B, size, size, 3 if m == 'rgb' else 1) for m in model.modalities}
  batch = {m: jax.ShapeDtypeStruct(shape, np.float32) for m, shape in shapes.items()}
  batch['present'] = jax.ShapeDtypeStruct((B, len(model.modalities)), bool)
  batch['label'] = jax.ShapeDtypeStruct((B,), np.int32)
  outputs, _ = jax.eval_shape(model.apply, variables, batch, jax.random.key(0))
  if outputs['logit'] is None:
    raise ConfigError(
      'config.model.head gives no logit, so that nothing can be scored; choose one that decides, '
      'e.g. --config.model.head.name=binary_logit'
    )
  side = None
  if outputs['map'] is not None:
    _, side, width = outputs['map'].shape
    if side != width:
      raise ConfigError(f"the head's map is {side} x {width}; live masks are square")
    batch['map'] = jax.ShapeDtypeStruct((B, side, side), np.float32)
  jax.eval_shape(loss, outputs, batch)
  return side


def _compare_config(workdir: pathlib.Path, fields: dict, but: tuple[str, ...] = ()) -> None:
  """A workdir belongs to one config, `but` for groups that may differ."""
  file = workdir / 'config.json'
  if not file.exists():
    if workdir.exists() and any(workdir.iterdir()):
      raise StateError(f'{workdir} is not empty and holds no run of ours; name another --workdir')
    return
  old, new = _flat(json.loads(file.read_text())), _flat(json.loads(json.dumps(fields)))
  differences = [
    f'  {key}: {old.get(key, "(nothing)")} there, {new.get(key, "(nothing)")} now'
    for key in sorted(old.keys() | new.keys())
    if old.get(key) != new.get(key) and key.split('.')[0] not in but
  ]
  if differences:
    raise StateError(
      f'{workdir} is the workdir of another config; name another --workdir, or go back to its '
      'config:\n' + '\n'.join(differences)
    )


def _flat(tree: dict, prefix: str = '') -> dict:
  flat = {}
  for key, value in tree.items():
    name = f'{prefix}{key}'
    # An empty group says something too: a loss without fields is named by its key alone.
    flat |= _flat(value, name + '.') if isinstance(value, dict) and value else {name: value}
  return flat


def _tests(config: ConfigDict) -> list[tuple[str, str]]:
  """The test sets, what is like the training first; a ConfigDict forgets its order."""
  return sorted(config.test.items(), key=lambda test: test[0] != 'intra')


class Data(NamedTuple):
  """What a job reads; None is what it does not need and is not here."""

  train: sources.Source | None
  val: sources.Source
  test: dict[str, sources.Source | None]
  remarks: list[str]  # what every figure is told with


def _data(job: Job, train: bool = True, test: bool = True) -> Data:
  """Opens what is trained on, chosen by and tested on, and proves that it is apart.

  Args:
    job: its config names the data.
    train, test: whether the job needs them. What it does not need may be missing, as on a machine
      that only evaluates; then nothing is proven about it, and that is said.
  """
  config, remarks = job.config, []
  nobody = {'id': (), 'video': (), 'subject': ()}

  def open_(name: str, names: str, needed: bool) -> sources.Source | None:
    try:
      return sources.open_source(names, config.data_dir, check=needed)
    except DataError:
      if needed:
        raise
      remarks.append(f'not proven to share nobody: {name}, {names}, which is not here')
      return None

  val = open_('val', config.val, True)
  _check_val(val)
  train_source = open_('train', config.train, train)
  tests = {name: open_(name, names, test) for name, names in _tests(config)}
  leaks = overlaps.check(
    train_source.columns if train_source else nobody,
    val.columns,
    {name: source.columns for name, source in tests.items() if source},
    config.get('accept_known_leaks', ()),
  )
  return Data(train_source, val, tests, remarks + overlaps.told(leaks))


def _check_val(val: sources.Source) -> None:
  """Without both classes no error rate is defined, and no checkpoint the best."""
  if len(seen := set(val.columns['label'])) < 2:
    raise DataError(
      f'config.val, {", ".join(val.names)}: every sample is {seen.pop()}; add the other class'
    )


def _train(job: Job, data: Data) -> None:
  config, workdir = job.config, job.workdir
  donated, remark = _donated(job)
  source, val = data.train, data.val
  fields = config.to_dict()
  batches = pipeline.train_batches(
    source,
    pipeline.Preprocess(
      config.model.image_size,
      job.model.modalities,
      fields['view'],
      fields['photometric'],
      config.cutout,
      job.map_size,
    ),
    config.batch_size,
    config.seed,
    (jax.process_index(), jax.process_count()),
  )
  # The data is fine, the config is fine: from here on the workdir is ours.
  workdir.mkdir(parents=True, exist_ok=True)
  score_files.write_text(workdir / 'config.json', json.dumps(fields, indent=2) + '\n')
  checkpoints = Checkpoints(workdir / 'checkpoints', BEST)

  key = jax.device_put(jax.random.key(config.seed), sharding.replicated(job.mesh))
  shardings = jax.tree.map(lambda leaf: leaf.sharding, job.abstract)
  start = checkpoints.latest() or 0
  if start:
    state = checkpoints.restore(start, job.abstract, batches)
  else:
    # On the CPU, compiling the init takes longer than training a toy: no optimisation for it.
    quick = {'xla_backend_optimization_level': 0} if jax.default_backend() == 'cpu' else None
    init = jax.jit(job.init, out_shardings=shardings, compiler_options=quick)
    state = init(named_key(key, 'init'))
    state = state.replace(**pretrained.put(_variables(state), donated))
    donated.clear()  # ViT-L's are more than a gigabyte
  writer = MetricWriter(workdir, start)
  step_fn = jax.jit(
    functools.partial(
      train_step,
      model=job.model,
      optimizer=job.optimizer,
      loss=job.loss,
      modality_dropout=fields['modality_dropout'],
    ),
    out_shardings=(shardings, sharding.replicated(job.mesh)),
    donate_argnums=0,
  )
  devices = f'{job.mesh.size} x {jax.devices()[0].device_kind}'
  parameters = sum(x.size for x in jax.tree.leaves(job.abstract.params))
  with (
    contextlib.closing(checkpoints),
    contextlib.closing(writer),
    Progress('train', config.steps, start) as progress,
  ):
    progress.say(
      f'{len(source)} training and {len(val)} val examples, {parameters / 1e6:.2f} M parameters, '
      f'{devices}' + (f', resuming at step {start}' if start else '')
    )
    for line in (remark, *data.remarks):
      if line:
        progress.say(line)
    _steps(job, state, step_fn, batches, key, checkpoints, writer, progress, start, val)


def _donated(job: Job) -> tuple[dict, str]:
  """What the streams start from: ({path: array}, a line about it); a resumed run needs no file."""
  folder = job.workdir / 'checkpoints'
  if job.pretrained is None:
    return {}, ''
  if folder.is_dir() and Checkpoints(folder, BEST, read_only=True).latest():
    return {}, ''
  return pretrained.fetch(job.pretrained, _variables(job.abstract))


def _steps(job, state, step_fn, batches, key, checkpoints, writer, progress, start, val) -> None:
  """The loop proper. Metrics are those of the previous step, so that the device never waits."""
  config = job.config
  previous, waited, since = None, 0.0, time.perf_counter()
  for step in range(start + 1, config.steps + 1):
    before = time.perf_counter()
    batch = next(batches)
    waited += time.perf_counter() - before
    state, metrics = step_fn(state, sharding.place_batch(batch, job.mesh), key)
    if previous and (step - 1) % config.log_every == 0:
      values = {f'train/{k}': float(v) for k, v in jax.device_get(previous).items()}
      if not np.isfinite(values['train/loss']):
        raise StateError(
          f'the loss is {values["train/loss"]} at step {step - 1}; the checkpoint of step '
          f'{checkpoints.latest()} stands. Lower config.schedule.peak or set config.clip_norm'
        )
      seconds = time.perf_counter() - since
      values['train/learning_rate'] = float(job.schedule(step - 2))
      values['speed/triplets_per_second'] = config.log_every * config.batch_size / seconds
      values['speed/input_wait'] = waited / seconds
      writer.write(step - 1, values)
      shown = ('train/loss', 'train/accuracy', 'speed/triplets_per_second')
      progress.update(step - 1, {k.split('/')[1]: values[k] for k in shown})
      waited, since = 0.0, time.perf_counter()
    previous = metrics
    last = step == config.steps
    if last or step % config.eval_every == 0:
      found = _val_metrics(job, _variables(state), val)
      writer.write(step, found)
      progress.say(f'step {step}: val ' + '  '.join(f'{k[4:]} {v:.4f}' for k, v in found.items()))
      checkpoints.save(step, state, batches, _run(config), {BEST: found[f'val/{BEST}']})
    elif step % config.checkpoint_every == 0:
      checkpoints.save(step, state, batches, _run(config))
    progress.update(step)


def _run(config: ConfigDict) -> dict:
  return {'config': json.loads(json.dumps(config.to_dict())), 'version': flexfas_jax.__version__}


def _variables(state) -> dict:
  return {'params': state.params, 'batch_stats': state.batch_stats}


def _batches(job: Job, source: sources.Source):
  return pipeline.eval_batches(source, job.preprocess, job.config.eval_batch_size)


def _counted(batches, constant: collections.Counter):
  """Passes batches on, and counts the pictures that show nothing, by modality."""
  for arrays, metas in batches:
    for meta in metas:
      constant.update(meta['constant'])
    yield arrays, metas


def _val_metrics(job: Job, variables, source: sources.Source) -> dict[str, float]:
  """Mean and by subset; EER and AUC know no threshold."""
  scores = job.scorer(variables, _batches(job, source))
  found = results.results(scores, 'fixed=0.5')
  means = {f'val/{m}': float(np.mean([r[m] for r in found.values()])) for m in (BEST, 'auc')}
  return means | {f'val/{BEST}/{subset}': r[BEST] for subset, r in found.items()}


def _evaluate(job: Job, data: Data) -> None:
  """Scores, score files, thresholds from val, the table and results.json of the best step."""
  checkpoints = Checkpoints(job.workdir / 'checkpoints', BEST, read_only=True)
  step = checkpoints.best()
  if step is None:
    raise StateError(f'{job.workdir} holds no checkpoint; run with --mode=train first')
  variables = _variables(checkpoints.restore(step, job.abstract))
  header = {
    'step': step,
    'weights_hash': _weights_hash(variables),
    'config': _run(job.config)['config'],
  }
  if data.remarks:
    header['remarks'] = data.remarks
  (job.workdir / 'scores').mkdir(exist_ok=True)
  scored = {}
  for name, source in {'val': data.val, **data.test}.items():
    constant = collections.Counter()
    with Progress(f'score {name}', len(source)) as progress:
      batches = _counted(_batches(job, source), constant)
      scored[name] = job.scorer(variables, batches, header, progress.update)
      for modality, n in constant.items():
        progress.say(f'{name}: {n} pictures of {modality} are one constant; treated as absent')
    score_files.write(job.workdir / 'scores' / f'{name}.csv', scored[name])
  for remark in results.remarks(results.results(scored['val'], 'fixed=0.5')):
    print(f'val, {remark}', file=sys.stderr)
  found = {}
  for name in data.test:
    rule = job.config.threshold[name]
    found[name] = results.results(scored[name], rule, scored['val'])
    title = f'{name}: {job.config.test[name]}, step {step}, threshold {rule}'
    print(results.text(found[name], title, job.metrics) + '\n')
    for remark in results.remarks(found[name]):
      print(remark, file=sys.stderr)
  for line in data.remarks:
    print(line + '\n')
  if job.model.requires:
    print(f'Subsets without {"+".join(job.model.requires)} are not served: the fusion needs it.\n')
  score_files.write_text(
    job.workdir / 'results.json', json.dumps(results.json_safe(found), indent=2) + '\n'
  )
  print(f'Written: {job.workdir}/results.json, {job.workdir}/scores/')


def _weights_hash(variables) -> str:
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    digest.update(jax.tree_util.keystr(path).encode())
    digest.update(np.asarray(leaf).tobytes())
  return digest.hexdigest()
