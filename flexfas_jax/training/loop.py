"""The jobs of a config: train, evaluate, or both. What is mathematics is in `step.py`.

Everything that can be wrong with config, data or workdir is found before anything is written.
Every process runs all of this; the first one writes and prints.
"""

import contextlib
import functools
import json
import pathlib
import resource
import sys
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

import flexfas_jax
from flexfas_jax import errors
from flexfas_jax.errors import ConfigError, StateError, Stopped
from flexfas_jax.files import write_text
from flexfas_jax.images.preprocess import Preprocess
from flexfas_jax.input_pipeline import pipeline
from flexfas_jax.models.weights import conversion
from flexfas_jax.progress import Progress
from flexfas_jax.training import (
  datasets,
  distributed,
  init_from_run,
  setup,
  sharding,
  subjects,
  workdir,
)
from flexfas_jax.training.checkpoints import Checkpoints, quarantine_corrupt
from flexfas_jax.training.clock import Clock
from flexfas_jax.training.metric_writer import MetricWriter
from flexfas_jax.training.preemption import Preemption, restore_default_sigterm
from flexfas_jax.training.step import named_key
from flexfas_jax.training.tasks import base as tasks


class Options(NamedTuple):
  """How a job is run, as flags say; what it computes is in the config."""

  strict_restore: bool = False  # a damaged newest checkpoint is an error
  allow_config_change: bool = False  # go on with another config than the run was begun with
  profile_steps: tuple[int, int] | None = None  # first and last step that a profile is written of


DEFAULTS = Options()


def train_and_evaluate(config: ConfigDict, folder: str, options: Options = DEFAULTS) -> None:
  """Trains to the config's last step, resuming if it was begun, then evaluates the best step."""
  experiment, changed, data = _prepare(config, folder, options)
  judging = tasks.judging(experiment.config)
  scorer = judging.make_scorer(experiment)
  _train(experiment, pathlib.Path(folder), data, scorer, changed, options)
  judging.evaluate(experiment, pathlib.Path(folder), data, scorer)


def train(config: ConfigDict, folder: str, options: Options = DEFAULTS) -> None:
  """Trains to the config's last step, resuming if it was begun."""
  experiment, changed, data = _prepare(config, folder, options, test=False)
  scorer = tasks.judging(experiment.config).make_scorer(experiment)
  _train(experiment, pathlib.Path(folder), data, scorer, changed, options)


def evaluate(config: ConfigDict, folder: str, options: Options = DEFAULTS) -> None:
  """Scores val and the test sets with the best step and writes the benchmark's results.

  The config may name other tests and rules than the training's did, and other places of the data;
  nothing that was trained with, and not val, which the thresholds come from.
  """
  del options
  restore_default_sigterm()
  folder = pathlib.Path(folder)
  found = datasets.problems(config, train=False)
  experiment = setup.build(config, classes=_STAND_IN, problems=found)
  changed = workdir.compare(folder, experiment.config.to_dict(), workdir.ONLY_TESTS)
  workdir.refuse(folder, changed)
  if not (folder / 'config.json').exists():
    raise StateError(f'{folder} holds no training; run with --mode=train first')
  errors.raise_all(found)
  people, remark = init_from_run.pretraining_subjects(folder, None)
  data = datasets.open_all(
    experiment.config, train=False, known=subjects.read(folder), pretraining=people
  )
  data.notes.extend([remark] if remark else [])
  experiment = _counted(experiment, config, data)
  judging = tasks.judging(experiment.config)
  judging.check(experiment, data)
  judging.evaluate(experiment, folder, data, judging.make_scorer(experiment))


_STAND_IN = 2  # classes, until the data is opened: what is wrong with a config is found before that


def _counted(
  experiment: setup.Experiment, config: ConfigDict, data: datasets.Data
) -> setup.Experiment:
  """The job with as many classes as the training's data has."""
  if not experiment.target:
    return experiment
  if data.vocabulary is None or not data.vocabulary.classes:
    raise StateError(f'nothing says what was trained on: {subjects.FILE} is missing')
  return setup.build(config, classes=len(data.vocabulary.classes))


def _prepare(config: ConfigDict, folder: str, options: Options, test: bool = True):
  """(job, what is otherwise than when it was begun, data)."""
  found = datasets.problems(config, test=test)
  if options.profile_steps:
    first, last = options.profile_steps
    if not 1 <= first <= last <= config.steps:
      said = f'--profile_steps={first}:{last}: there are steps 1 to {config.steps}'
      found.append(ConfigError(said))
  experiment = setup.build(config, classes=_STAND_IN, problems=found)
  changed = workdir.compare(pathlib.Path(folder), experiment.config.to_dict())
  if not options.allow_config_change:
    hint = ', or go on with this one by --allow_config_change'
    workdir.refuse(pathlib.Path(folder), changed, hint)
  errors.raise_all(found)
  people, remark = init_from_run.pretraining_subjects(
    pathlib.Path(folder), experiment.pretrained, experiment.config.train
  )
  data = datasets.open_all(experiment.config, test=test, pretraining=people)
  data.notes.extend([remark] if remark else [])
  subjects.check_same_vocabulary(pathlib.Path(folder), data.vocabulary)
  experiment = _counted(experiment, config, data)
  tasks.judging(experiment.config).check(experiment, data)
  return experiment, changed, data


class Run(NamedTuple):
  """What the steps of a training need, besides state and data."""

  experiment: setup.Experiment
  folder: pathlib.Path
  data: datasets.Data
  scorer: Any
  key: jax.Array  # the root key
  checkpoints: Checkpoints
  writer: MetricWriter | None  # the first process's
  progress: Progress
  clock: Clock
  preemption: Preemption
  profile: tuple[int, int] | None


def _train(experiment, folder, data, scorer, changed, options) -> None:
  config, fields = experiment.config, experiment.config.to_dict()
  tell = _tell if distributed.is_first() else _tell_nobody
  distributed.barrier('every process has looked into the workdir')
  quarantine_corrupt(folder / 'checkpoints', options.strict_restore, tell)
  donated, best = _donated(experiment, folder), tasks.judging(config).BEST
  batches = pipeline.train_batches(
    data.train,
    Preprocess(
      config.model.image_size,
      experiment.model.modalities,
      fields['view'],
      fields['photometric'],
      config.cutout,
      experiment.map_size,
      resize=experiment.preprocess.resize,
    ),
    config.batch_size,
    config.seed,
    sharding.rows(experiment.mesh, config.batch_size),
  )
  # The data is fine, the config is fine: from here on the workdir is ours.
  if distributed.is_first() and not changed:
    workdir.write_config(folder, fields)
  if distributed.is_first():
    subjects.write(folder, data.vocabulary)
    if donated.told:
      workdir.write_pretraining(folder, donated.told)
  checkpoints = Checkpoints(folder / 'checkpoints', best, tries=config.save_tries, tell=tell)
  start = checkpoints.latest() or 0
  if distributed.broadcast_str(str(start)) != str(start):
    raise StateError(
      f'process {jax.process_index()} finds step {start} in {folder}, and the first another: they '
      'need one workdir that all of them see'
    )
  if distributed.is_first() and changed:
    workdir.write_config(folder, fields, start)

  clock, anew = Clock(), False
  key = _everywhere(jax.random.key(config.seed), experiment)
  if start:
    with clock.measure('restore'):
      state = checkpoints.restore(start, experiment.abstract)
    anew = workdir.data_order_changed(checkpoints.about(start)['config'], fields)
    if not anew:
      batches.set_state(checkpoints.position(start))
  else:
    # On the CPU, compiling the init takes longer than training a toy: no optimisation for it.
    quick = {'xla_backend_optimization_level': 0} if jax.default_backend() == 'cpu' else None
    with clock.measure('compile'):
      init = jax.jit(
        experiment.init, out_shardings=setup.shardings(experiment), compiler_options=quick
      )
      state = init(named_key(key, 'init'))
    state = state.replace(**conversion.put(setup.variables_of(state), donated.arrays))
    donated.arrays.clear()  # ViT-L's are more than a gigabyte
  again = start and _due(config, start) and not checkpoints.judged(start)
  writer = MetricWriter(folder, start, tell, again) if distributed.is_first() else None
  with (
    checkpoints,
    contextlib.closing(writer) if writer else contextlib.nullcontext(),
    Progress('train', config.steps, start, silent=writer is None) as progress,
    Preemption() as preemption,
  ):
    told = _told(changed, anew, start)
    for line in (_headline(experiment, data, start), donated.line, *data.notes, *told):
      if line:
        progress.say(line)
    run = Run(
      *(experiment, folder, data, scorer, key, checkpoints, writer, progress, clock, preemption),
      options.profile_steps,
    )
    if run.profile and run.profile[1] <= start:
      progress.say(f'no profile: the steps asked for end at {run.profile[1]}, before step {start}')
    if again:  # it was stopped before it could be
      _judge(run, start, state, batches)
    if start < config.steps:
      _steps(run, state, batches, start)
      _report_time(run)


def _headline(experiment, data, start) -> str:
  parameters = sum(x.size for x in jax.tree.leaves(experiment.abstract.params))
  hosts = f' in {jax.process_count()} processes' if jax.process_count() > 1 else ''
  resumed = f', resuming at step {start}' if start else ''
  return (
    f'{len(data.train)} training and {len(data.val)} val examples, {parameters / 1e6:.2f} M '
    f'parameters, {experiment.mesh.size} x {jax.devices()[0].device_kind}{hosts}{resumed}'
  )


def _told(changed: list[str], anew: bool, start: int) -> list[str]:
  lines = []
  if changed:
    lines += [f'WARNING: from step {start} on another config is trained with:', *changed]
  if anew:
    lines.append('the order of the data begins anew: samples may be seen more or less often')
  return lines


def _tell(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


def _tell_nobody(line: str) -> None:
  del line


def _everywhere(key: jax.Array, experiment) -> jax.Array:
  """A key on every device of every process."""
  return jax.jit(lambda: key, out_shardings=sharding.replicated(experiment.mesh))()


def _donated(experiment, folder: pathlib.Path) -> init_from_run.PretrainedInit:
  """What the streams start from; a resumed run needs no file."""
  checkpoints, best = folder / 'checkpoints', tasks.judging(experiment.config).BEST
  if experiment.pretrained is None:
    return init_from_run.nothing()
  if checkpoints.is_dir() and Checkpoints(checkpoints, best, read_only=True).latest():
    return init_from_run.nothing()
  if experiment.pretrained.architecture == conversion.OURS:
    return init_from_run.fetch(experiment, folder)
  return init_from_run.PretrainedInit(
    *conversion.fetch(experiment.pretrained, setup.variables_of(experiment.abstract)), {}
  )


def _steps(run: Run, state, batches, start: int) -> None:
  """The loop proper. What a step measures is looked at while later ones run."""
  experiment, config, clock = run.experiment, run.experiment.config, run.clock
  position = batches.get_state()['next_index']
  with clock.measure('compile'):
    step_fn = (
      setup.step_fn(experiment)
      .lower(experiment.abstract, setup.abstract_batch(experiment), setup.abstract_key(experiment))
      .compile()
    )
  clock.lap()
  metrics, unseen = {}, []  # of the last step, and (step, metrics) that nobody has looked at
  with contextlib.ExitStack() as profile:
    for step in range(start + 1, config.steps + 1):
      if run.profile and step == max(run.profile[0], start + 1) <= run.profile[1]:
        jax.block_until_ready(state)  # of the steps before nothing is left to do
        profile.enter_context(jax.profiler.trace(str(run.folder / 'profile')))
      # Input that is there before the last step has ended was not waited for.
      with clock.measure('input', hidden=functools.partial(_running, metrics)):
        batch = sharding.place_batch(next(batches), experiment.mesh)
      state, metrics = step_fn(state, batch, run.key)
      if unseen and (step - 1) % config.log_every == 0:
        _log(run, unseen, position - start)
        unseen = []
      unseen.append((step, metrics))
      if run.profile and step == run.profile[1]:
        jax.block_until_ready(metrics)
        profile.close()
      stop = run.preemption.reached()
      due = _due(config, step)
      if stop or due or step % config.checkpoint_every == 0:
        _refuse_nan(run, unseen, position - start)  # what is not finite is never saved
        if step % config.log_every == 0:  # nor is a row lost that a resumed run would not make
          _log(run, unseen, position - start)
          unseen = []
      if due and not stop:
        _judge(run, step, state, batches)
      elif stop or step % config.checkpoint_every == 0:
        _save(run, step, state, batches, wait=stop)
      if stop:
        raise Stopped(step, config.steps)
      run.progress.update(step)


def _running(metrics) -> bool:
  """Whether the step that these are of has not ended."""
  return not all(value.is_ready() for value in metrics.values())


def _due(config, step: int) -> bool:
  """Whether val is scored at a step."""
  return step == config.steps or step % config.eval_every == 0


def _judge(run: Run, step: int, state, batches) -> None:
  """Scores val and saves with what it says; told to stop meanwhile, saves alone and stops."""
  judging = tasks.judging(run.experiment.config)
  with run.clock.measure('evaluate'):
    found = judging.val_metrics(
      run.experiment, run.scorer, setup.variables_of(state), run.data.val, run.preemption.reached
    )
  if found is None:
    if step not in run.checkpoints.steps():
      _save(run, step, state, batches, wait=True)
    raise Stopped(step, run.experiment.config.steps)
  if run.writer:
    run.writer.write(step, found)
  run.progress.say(f'step {step}: val ' + '  '.join(f'{k[4:]} {v:.4f}' for k, v in found.items()))
  wait = step == run.experiment.config.steps
  best = judging.BEST
  _save(run, step, state, batches, {best: found[f'val/{best}']}, wait)


def _save(run: Run, step: int, state, batches, metrics=None, wait: bool = False) -> None:
  about = {'config': json.loads(json.dumps(run.experiment.config.to_dict()))}
  about['version'] = flexfas_jax.__version__
  with run.clock.measure('save'):
    run.checkpoints.save(step, state, batches.get_state(), about, metrics, wait)


def _log(run: Run, unseen: list, offset: int) -> None:
  """Writes and shows what the last of some steps measured; none of them may be NaN."""
  values = _refuse_nan(run, unseen, offset)
  step, config = unseen[-1][0], run.experiment.config
  seconds, of = run.clock.lap()
  own = seconds - of['evaluate'] - of['compile'] - of['restore']
  row = {f'train/{name}': value for name, value in values.items()}
  row['train/learning_rate'] = float(run.experiment.schedule(step - 1))
  row['speed/triplets_per_second'] = len(unseen) * config.batch_size / own
  row['speed/step_seconds'] = own / len(unseen)
  row['speed/input_wait'] = of['input'] / own
  row['speed/save_seconds'] = of['save']
  row |= _memory()
  if run.writer:
    run.writer.write(step, row)
  shown = ('train/loss', 'train/accuracy', 'speed/triplets_per_second', 'speed/step_seconds')
  shown += (
    'speed/input_wait',
    'memory/device_gb' if 'memory/device_gb' in row else 'memory/host_gb',
  )
  run.progress.update(step, {k.split('/')[1]: row[k] for k in shown})


def _memory() -> dict[str, float]:
  """The most that was in use, GB (1e9 bytes): of this process, of its fullest device if known."""
  unit = 1 if sys.platform == 'darwin' else 1024
  found = {'memory/host_gb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  if used := [s['peak_bytes_in_use'] for s in stats if 'peak_bytes_in_use' in s]:
    found['memory/device_gb'] = max(used) / 1e9
  return found


def _refuse_nan(run: Run, unseen: list, offset: int) -> dict[str, float]:
  """The metrics of the last of some steps, if those of none are NaN or infinite.

  Raises:
    StateError: some are; `bad_batch.json` names the batch of the first.
  """
  values = {}
  for step, metrics in unseen:
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    if np.isfinite([values['loss'], values['grad_norm']]).all():
      continue
    config = run.experiment.config
    ids = pipeline.ids_of_batch(run.data.train, config.batch_size, config.seed, step - 1 + offset)
    file = run.folder / 'bad_batch.json'
    said = {name: str(value) for name, value in values.items()}
    if distributed.is_first():
      with contextlib.suppress(OSError):  # what is told below is worth more
        told = json.dumps({'step': step, **said, 'ids': ids}, indent=1)
        write_text(file, told + '\n')
    run.checkpoints.wait_until_saved()
    stands = run.checkpoints.latest()
    raise StateError(
      f'the loss is {values["loss"]} and its gradient {values["grad_norm"]} at step {step}, for '
      f'the {len(ids)} samples listed in {file}; '
      + (f'the checkpoint of step {stands} stands' if stands else 'nothing was saved yet')
      + '. Look at those samples, lower config.schedule.peak or set config.clip_norm, and go on '
      'with --allow_config_change'
    )
  return values


def _report_time(run: Run) -> None:
  """Where the time went, as a line and in the metrics."""
  seconds, of = run.clock.total()
  names = ('compile', 'input', 'save', 'evaluate', 'restore')
  spent = {name: of[name] for name in names if of[name]}
  spent['steps'] = max(seconds - sum(spent.values()), 0.0)
  shares = ', '.join(f'{100 * s / seconds:.1f} % {name}' for name, s in spent.items())
  run.progress.say(f'{seconds:.0f} s in all: {shares}')
  if run.writer:
    row = {f'time/{name}': value for name, value in {'total': seconds, **spent}.items()}
    run.writer.write(run.experiment.config.steps, row)
