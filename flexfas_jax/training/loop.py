"""Runs an experiment: trains, evaluates, or both. The mathematics of a step is in `step.py`.

All problems of config, data and workdir are found before anything is written. Every process runs
this code; the first one writes and prints.
"""

import contextlib
import dataclasses
import functools
import json
import math
import pathlib
import resource
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import flexfas_jax
from flexfas_jax import bucket, errors
from flexfas_jax.errors import ConfigError, DataError, FlexfasError, StateError, Stopped
from flexfas_jax.files import write_text
from flexfas_jax.images.preprocess import Preprocess
from flexfas_jax.input_pipeline import pipeline, sources
from flexfas_jax.models.weights import transfer
from flexfas_jax.progress import Progress
from flexfas_jax.training import (
  data_record,
  datasets,
  distributed,
  frozen,
  init_from_run,
  lock,
  objective,
  optimizer,
  sampling,
  setup,
  sharding,
  subjects,
  trainable,
  workdir,
)
from flexfas_jax.training.checkpoints import Checkpoints, quarantine_corrupt
from flexfas_jax.training.clock import Clock
from flexfas_jax.training.metric_writer import MetricWriter
from flexfas_jax.training.preemption import Preemption, restore_default_sigterm
from flexfas_jax.training.step import AveragedState, named_key
from flexfas_jax.training.tasks import Task, get_task


class Options(NamedTuple):
  """How an experiment runs, from flags; what it computes is in the config.

  Attributes:
    strict_restore: a damaged newest checkpoint is an error.
    allow_config_change: resume with another config than the run was started with.
    allow_data_change: resume with, or evaluate on, other data than the run was started with.
    profile_steps: first and last step to profile; None: no profile.
    oracle: tests to score whenever val is scored, see `evaluation/oracle.py`.
    input_processes: worker processes that make the training batches; 0: threads make them.
    before_save: called before each checkpoint; a save fails if it raises.
    while_locked: makes the context in which the workdir's lock is held, which it is called with
      (None except in the first process).
  """

  strict_restore: bool = False
  allow_config_change: bool = False
  allow_data_change: bool = False
  profile_steps: tuple[int, int] | None = None
  oracle: tuple[str, ...] = ()
  input_processes: int = 0
  before_save: Callable[[], None] = lambda: None
  while_locked: Callable[[lock.WorkdirLock | None], contextlib.AbstractContextManager] = (
    contextlib.nullcontext
  )


DEFAULTS = Options()


def train_and_evaluate(config: ConfigDict, folder: str, options: Options = DEFAULTS) -> None:
  """Trains to the config's last step, resuming a started run; then evaluates the best step."""
  with contextlib.ExitStack() as held:
    run = _prepare(config, folder, options, held)
    _train(run, options)
    run.task.evaluate(run.experiment, run.folder, run.data, run.scorer)


def train(config: ConfigDict, folder: str, options: Options = DEFAULTS) -> None:
  """Trains to the config's last step, resuming a started run."""
  with contextlib.ExitStack() as held:
    run = _prepare(config, folder, options, held, test=bool(options.oracle))
    _train(run, options)


def evaluate(config: ConfigDict, folder: str, options: Options = DEFAULTS) -> None:
  """Scores validation and test sets with the best step and writes the results.

  The config may differ from the training's in test sets, threshold rules and locations; not in what
  the model was trained with, nor in the validation set, which determines the thresholds.
  """
  restore_default_sigterm()
  folder = pathlib.Path(folder)
  vocabulary = subjects.read(folder)
  problems, _ = datasets.inspect(config, train=False)
  classes = _trained_classes(config, folder, vocabulary)
  experiment = setup.build(config, classes=classes, problems=problems)
  changed = workdir.changed_fields(folder, experiment.config.to_dict(), workdir.ONLY_TESTS)
  workdir.refuse_changes(folder, changed)
  if workdir.read_config(folder) is None:
    raise StateError(f'{folder} holds no training; run with --mode=train first')
  errors.raise_all(problems)
  pretraining, notes = init_from_run.pretraining_subjects(folder)
  data = datasets.open_all(
    experiment.config, train=False, vocabulary=vocabulary, pretraining=pretraining
  )
  data.notes.extend(notes)
  data.notes.extend(_compare_for_evaluation(folder, data, options, experiment.config))
  task = get_task(experiment.config)
  task.check(experiment, data)
  task.evaluate(experiment, folder, data, task.make_scorer(experiment))


def _compare_for_evaluation(
  folder: pathlib.Path, data: datasets.Data, options: Options, config: ConfigDict
) -> list[str]:
  """Compares training and validation set with those of the run; returns notes for every result.

  Raises:
    StateError: val differs, from which thresholds are fitted.
  """
  sets = {name: source for name, source in data.opened().items() if name in ('train', 'val')}
  more = sampling.more_columns(config)
  _, changes = data_record.compare(folder, workdir.newest_run_info(folder), sets, more)
  if 'val' in changes and not options.allow_data_change:
    _refuse_data(folder, {'val': changes['val']})
  return [f'warning: not the data of the training: {line}' for line in changes.values()]


def _refuse_data(folder: pathlib.Path, changes: dict[str, str]) -> None:
  """Raises a StateError if data has changed."""
  if changes:
    raise StateError(
      f'the data is not that of the run in {folder}; restore it, name another --workdir, or '
      'continue with this one by --allow_data_change:\n'
      + '\n'.join(f'  {line}' for line in changes.values())
    )


def _trained_classes(
  config: ConfigDict, folder: pathlib.Path, vocabulary: subjects.ClassVocabulary | None
) -> int | None:
  """Number of classes that a workdir's model was trained on; None for attack detection."""
  if config.get('task') != 'identities':
    return None
  if vocabulary is None or not vocabulary.classes:
    raise StateError(
      f'{folder} holds no training on identities ({subjects.FILE} lists no classes); run with '
      '--mode=train first'
    )
  return len(vocabulary.classes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
  """A training that was checked; nothing is written yet.

  Attributes:
    experiment, task: of the config.
    folder: the workdir.
    data: training, validation and test sets.
    scorer: of the task.
    changed: differences from the config that the run was started with, a line each.
    record: of the data.
    data_changes: differences from the data that the run was started with, a line each.
    held_lock: of the workdir; None except in the first process.
  """

  experiment: setup.Experiment
  task: Task
  folder: pathlib.Path
  data: datasets.Data
  scorer: Callable
  changed: list[str]
  record: data_record.Record
  data_changes: list[str]
  held_lock: lock.WorkdirLock | None


def _prepare(
  config: ConfigDict,
  folder: str,
  options: Options,
  held: contextlib.ExitStack | None = None,
  test: bool = True,
) -> _Run:
  """Checks config, workdir and data; builds the experiment.

  Args:
    config, folder, options: as for `train`.
    held: gets the lock of the workdir; None: it is not taken, since nothing will be written.
    test: whether the test sets are needed.
  """
  folder = pathlib.Path(folder)
  problems, classes = datasets.inspect(config, test=test)
  if options.profile_steps:
    first, last = options.profile_steps
    if not 1 <= first <= last <= config.steps:
      problems.append(
        ConfigError(f'--profile_steps={first}:{last} is not within the steps 1 to {config.steps}')
      )
  if config.get('task') == 'identities' and classes is None:
    # Generating the training set takes minutes: check the config first, with any number of classes.
    setup.build(config, classes=2, problems=problems)
    errors.raise_all(problems)
    classes = datasets.count_classes(config)
  experiment = setup.build(config, classes=classes, problems=problems)
  held_lock = None
  if held:
    held_lock = _take_lock(folder, held)
    held.enter_context(options.while_locked(held_lock))
  changed = workdir.changed_fields(folder, experiment.config.to_dict())
  if not options.allow_config_change:
    hint = ', or continue with this one by --allow_config_change'
    workdir.refuse_changes(folder, changed, hint)
  errors.raise_all(problems)
  pretraining, notes = init_from_run.pretraining_subjects(
    folder, experiment.pretrained, experiment.config.train
  )
  data = datasets.open_all(experiment.config, test=test, pretraining=pretraining)
  data.notes.extend(notes)
  objective.check_domains(experiment.config.to_dict(), data.domains)
  saved = workdir.newest_run_info(folder)
  more = sampling.more_columns(experiment.config)
  record, changes = data_record.compare(folder, saved, data.opened(), more)
  if not options.allow_data_change:
    _refuse_data(folder, changes)
  if distributed.broadcast_str(data_record.digest(record)) != data_record.digest(record):
    raise DataError(
      f'process {jax.process_index()} reads other data from {config.data_dir} than the first '
      'process; give all of them the same'
    )
  is_same_data = not saved or data_record.is_unchanged(folder, saved, record, 'train')
  warn = _print_warning if distributed.is_first() else _ignore
  subjects.check_same_vocabulary(folder, data.vocabulary, is_same_data, warn)
  task = get_task(experiment.config)
  task.check(experiment, data)
  if options.oracle and not hasattr(task, 'oracle_metrics'):
    raise ConfigError(f'--oracle needs attack detection; config.task is {config.get("task")!r}')
  if unknown := sorted(set(options.oracle) - set(data.test)):
    raise ConfigError(
      f'--oracle={",".join(options.oracle)}: no test is named {unknown[0]!r}; '
      f'config.test has: {", ".join(data.test)}'
    )
  return _Run(
    experiment=experiment,
    task=task,
    folder=folder,
    data=data,
    scorer=task.make_scorer(experiment),
    changed=changed,
    record=record,
    data_changes=list(changes.values()),
    held_lock=held_lock,
  )


def _take_lock(folder: pathlib.Path, held: contextlib.ExitStack) -> lock.WorkdirLock | None:
  """The lock of the workdir, which the first process holds for all; None in the others.

  Raises:
    StateError: another training holds it.
    TemporaryError: it is in a bucket that does not answer.
  """
  taken, problem = None, None
  if distributed.is_first():
    try:
      url = workdir.origin(folder)
      store = bucket.LockStore(f'{url}/{lock.FILE}') if bucket.is_remote(url) else None
      taken = held.enter_context(lock.hold(folder, _print_warning, store))
    except FlexfasError as error:
      problem = error
    except OSError as error:
      problem = StateError(str(error))
  distributed.raise_first(problem)
  return taken


def _check_lock(run: _Run) -> None:
  """Raises a StateError if the workdir was deleted, or another training has taken it over."""
  if problem := distributed.broadcast_str(run.held_lock.problem() if run.held_lock else ''):
    raise StateError(problem)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Training:
  """What the training loop needs besides state and batches.

  Attributes:
    run: experiment, task and data.
    root_key: the same for every step.
    checkpoints: of the workdir.
    writer: of the metrics; None except in the first process.
    progress: the progress display.
    run_info: stored in each checkpoint, besides the config.
    left_out: record of the arrays that checkpoints leave out, see `frozen`; {}: none.
    clock: measures what is not training.
    preemption: whether the run was asked to stop.
    data_offset: index of the next batch, minus the number of finished steps.
    profile_steps: first and last step to profile; None: no profile.
    oracle: tests that are scored with val.
    unwritten: writes files that belong to the first checkpoint; empty after it.
  """

  run: _Run
  root_key: jax.Array
  checkpoints: Checkpoints
  writer: MetricWriter | None
  progress: Progress
  run_info: dict
  left_out: dict
  clock: Clock
  preemption: Preemption
  data_offset: int
  profile_steps: tuple[int, int] | None
  oracle: tuple[str, ...]
  unwritten: list[Callable[[], None]]

  @property
  def config(self) -> ConfigDict:
    """The experiment's config."""
    return self.run.experiment.config

  def show_status(self, step: int, text: str) -> None:
    """Displays and records what goes on after a step that takes long and shows nothing."""
    self.progress.print_line(f'{text} ...')
    if self.writer:
      self.writer.write_status(step, text)


def _train(run: _Run, options: Options) -> None:
  """Trains from the newest checkpoint, or from the initial weights, to the last step."""
  experiment, config, folder = run.experiment, run.experiment.config, run.folder
  warn = _print_warning if distributed.is_first() else _ignore
  distributed.barrier('every process has checked the workdir')
  quarantine_corrupt(workdir.checkpoints(folder), options.strict_restore, warn)
  completion = _load_left_out(run)
  pretrained = _load_pretrained(run)
  batches = _make_batches(experiment, run.data.train, options.input_processes)
  # Config, data and weights are valid: from here on the workdir is written.
  _write_workdir(run, pretrained.record)
  record = pretrained.record or workdir.read_pretraining(folder)
  pretraining = {'pretraining': record} if record else {}
  checkpoints = Checkpoints(
    workdir.checkpoints(folder),
    run.task.metric,
    tries=config.save_tries,
    warn=warn,
    before_save=options.before_save,
  )
  start = _agree_on_start(checkpoints, folder)
  left_out = frozen.make_record(experiment, pretrained.arrays, pretrained.record.get('step'))
  # Earlier, a crash would leave the new config with checkpoints of the old one.
  write = functools.partial(_write_changed_config, run, start, options.before_save)
  unwritten = [write] if run.changed else []
  if not start:
    _write_all(unwritten)

  clock, root_key, notes = Clock(), _replicate(jax.random.key(config.seed), experiment), []
  if run.changed:
    notes += [f'WARNING: from step {start} on, training continues with another config:']
    notes += run.changed
  if run.data_changes:
    notes += [f'WARNING: from step {start} on, training continues with other data:']
    notes += run.data_changes
  data_digests = data_record.digests(run.record)
  if start:
    saved = checkpoints.run_info(start)
    left_out = frozen.continue_record(saved.get(frozen.KEY, {}), experiment)
    notes += _rate_change(experiment, saved['config'], start)
    notes += _average_change(experiment, checkpoints, start)
    if 'data' not in saved:
      notes.append(
        f'not verified that the data is that of the first {start} steps: an earlier version saved '
        'them'
      )
    other_data = saved.get('data', data_digests)['train'] != data_digests['train']
    if other_data or workdir.data_order_changed(saved['config'], config.to_dict()):
      notes.append('data order reset: some samples may be used more often than others')
    else:
      batches.set_state(checkpoints.position(start))
  # A run may have been stopped before it could score val at its last step.
  val_is_missing = start and _val_is_due(config, start) and not checkpoints.has_metrics(start)

  writer = None
  if distributed.is_first():
    writer = MetricWriter(folder, start, warn, rescore_val=bool(val_is_missing))
  with (
    checkpoints,
    contextlib.closing(writer) if writer else contextlib.nullcontext(),
    Progress('train', config.steps, start, silent=writer is None) as progress,
    Preemption() as preemption,
  ):
    for line in (_headline(run, start), pretrained.summary, *run.data.notes, *notes):
      if line:
        progress.print_line(line)
    training = _Training(
      run=run,
      root_key=root_key,
      checkpoints=checkpoints,
      writer=writer,
      progress=progress,
      run_info={'version': flexfas_jax.__version__, 'data': data_digests, **pretraining},
      left_out=left_out,
      clock=clock,
      preemption=preemption,
      data_offset=batches.get_state()['next_index'] - start,
      profile_steps=options.profile_steps,
      oracle=options.oracle,
      unwritten=unwritten,
    )
    if start:
      with clock.measure('restore'):
        state = frozen.restore(checkpoints, start, experiment, completion)
    else:
      training.show_status(start, 'compiling the initial weights')
      state = _initial_state(experiment, root_key, pretrained, clock)
    if training.profile_steps and training.profile_steps[1] <= start:
      last = training.profile_steps[1]
      progress.print_line(f'no profile: its last step, {last}, is not after step {start}')
    if val_is_missing:
      _evaluate_val(training, start, state, batches)
    if start < config.steps:
      _run_steps(training, state, batches, start)
      _check_lock(run)  # nothing was saved into a workdir that was deleted meanwhile
      _report_time(training)
    _write_all(unwritten)  # if no step was left to train


def _rate_change(experiment: setup.Experiment, before: dict, start: int) -> list[str]:
  """A line on the learning rate of the next step, if the config it was started with has another.

  Args:
    experiment: with the schedule from now on.
    before: the config of the checkpoint.
    start: the number of finished steps.
  """
  old = float(optimizer.make_schedule(before['schedule'], before['steps'])(start))
  new = float(experiment.schedule(start))
  if old == new:
    return []
  return [
    f'WARNING: the learning rate of step {start + 1} is {new:.4g}; it was {old:.4g} by the config '
    'before (config.schedule, config.steps)'
  ]


def _average_change(
  experiment: setup.Experiment, checkpoints: Checkpoints, start: int
) -> list[str]:
  """A line if a checkpoint lacks the average of the weights that the config has, or the reverse."""
  has_average, ema = checkpoints.has_average(start), isinstance(experiment.abstract, AveragedState)
  if has_average == ema:
    return []
  if ema:
    return [f'WARNING: the average of the weights (config.ema) starts from those of step {start}']
  return [f'WARNING: the average of the weights until step {start} is left out (config.ema)']


def _print_warning(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


def _ignore(line: str) -> None:
  del line


def _load_pretrained(run: _Run) -> init_from_run.PretrainedInit:
  """The initial weights that the config names; a resumed run needs none."""
  experiment, checkpoints = run.experiment, workdir.checkpoints(run.folder)
  if experiment.pretrained is None:
    return init_from_run.no_pretraining()
  if checkpoints.is_dir() and Checkpoints(checkpoints, run.task.metric, read_only=True).latest():
    return init_from_run.no_pretraining()
  if experiment.pretrained.architecture == transfer.OWN_RUN:
    return init_from_run.load(experiment, run.folder)
  variables = setup.model_variables(experiment.abstract)
  arrays, summary = transfer.load(experiment.pretrained, variables)
  return init_from_run.PretrainedInit(arrays, summary, record={})


def _load_left_out(run: _Run) -> dict[str, Any] | None:
  """What the newest checkpoint leaves out, see `frozen.load`; None: there is none, or all is saved.

  It is read before anything is written, since other weights are an error.
  """
  folder = workdir.checkpoints(run.folder)
  if not run.experiment.trainable:
    return None
  # The first process may create the folder before another one looks for it.
  if not distributed.broadcast_str('there' if folder.is_dir() else ''):
    return None
  checkpoints = Checkpoints(folder, run.task.metric, read_only=True)
  step = checkpoints.latest()
  return frozen.load(checkpoints, step, run.experiment) if step else None


def _make_batches(experiment: setup.Experiment, source: sources.Source, processes: int):
  """The training batches of this process, without end; see `pipeline.train_batches`."""
  config, fields = experiment.config, experiment.config.to_dict()
  preprocess = Preprocess(
    config.model.image_size,
    experiment.model.modalities,
    fields['view'],
    fields['photometric'],
    config.cutout,
    experiment.map_size,
    resize=experiment.preprocess.resize,
  )
  rows = sharding.local_rows(experiment.mesh, config.batch_size)
  balance = sampling.balanced_fields(config)
  return pipeline.train_batches(
    source,
    preprocess,
    config.batch_size,
    config.seed,
    rows,
    balance=balance,
    processes=processes,
  )


def _write_workdir(run: _Run, pretraining: dict) -> None:
  """Writes config, subjects and pretraining; a changed config waits for the first checkpoint."""
  if not distributed.is_first():
    return
  if not run.changed:
    workdir.write_config(run.folder, run.experiment.config.to_dict())
  subjects.write(run.folder, run.data.vocabulary)
  sampling.write_domains(run.folder, run.experiment.config, run.data.domains)
  data_record.write(run.folder, run.record)
  if pretraining:
    workdir.write_pretraining(run.folder, pretraining)


def _write_changed_config(run: _Run, start: int, send: Callable[[], None]) -> None:
  if distributed.is_first():
    workdir.write_config(run.folder, run.experiment.config.to_dict(), start)
    with contextlib.suppress(errors.TemporaryError):  # it is sent again later
      send()  # to a bucket, which has the checkpoint already


def _write_all(unwritten: list[Callable[[], None]]) -> None:
  """Writes what waits to be written, once."""
  while unwritten:
    unwritten.pop()()


def _agree_on_start(checkpoints: Checkpoints, folder: pathlib.Path) -> int:
  """The step to start after: that of the newest checkpoint, or 0.

  Raises:
    StateError: the processes find different checkpoints.
  """
  start = checkpoints.latest() or 0
  if distributed.broadcast_str(str(start)) != str(start):
    raise StateError(
      f'process {jax.process_index()} finds step {start} in {folder}, and the first process '
      'another; all processes must share one workdir'
    )
  return start


def _replicate(key: jax.Array, experiment: setup.Experiment) -> jax.Array:
  """A key on every device of every process."""
  return jax.jit(lambda: key, out_shardings=sharding.replicated(experiment.mesh))()


def _initial_state(
  experiment: setup.Experiment,
  root_key: jax.Array,
  pretrained: init_from_run.PretrainedInit,
  clock: Clock,
):
  """The state of step 0; frees the pretrained arrays."""
  # On a CPU, optimising the init program takes longer than training a toy model.
  options = {'xla_backend_optimization_level': 0} if jax.default_backend() == 'cpu' else None
  with clock.measure('compile'):
    init = jax.jit(
      experiment.init, out_shardings=setup.shardings(experiment), compiler_options=options
    )
    state = init(named_key(root_key, 'init'))
  if pretrained.arrays:
    variables = transfer.assign(setup.model_variables(state), pretrained.arrays)
    state = state.replace(**variables)
    if isinstance(state, AveragedState):  # frozen parameters have no other value
      state = state.replace(ema=jax.tree.map(jnp.copy, variables))
  pretrained.arrays.clear()  # ViT-L's take more than a gigabyte
  return state


def _headline(run: _Run, start: int) -> str:
  experiment, data = run.experiment, run.data
  hosts = f' in {jax.process_count()} processes' if jax.process_count() > 1 else ''
  resumed = f', resuming at step {start}' if start else ''
  params = experiment.abstract.params
  sizes = f'{_count(params) / 1e6:.2f} M parameters'
  if experiment.trainable:
    trained, _ = trainable.split(params, experiment.trainable)
    sizes += f' ({_count(trained) / 1e6:.2f} M of them train)'
  return (
    f'{len(data.train)} training and {len(data.val)} val examples, {sizes}, '
    f'{experiment.mesh.size} x {jax.devices()[0].device_kind}{hosts}{resumed}'
  )


def _count(params) -> int:
  return sum(x.size for x in jax.tree.leaves(params))


def _run_steps(training: _Training, state, batches, start: int) -> None:
  """The training loop. The metrics of a step are read while later steps run."""
  experiment, config, clock = training.run.experiment, training.config, training.clock
  training.show_status(start, 'compiling the training step')
  with clock.measure('compile'):
    step_fn = _compile_step(experiment)
    distributed.barrier('every process has compiled the step')
  clock.lap()
  first_profiled, last_profiled = training.profile_steps or (0, 0)  # 0: no step
  metrics: dict[str, jax.Array] = {}  # of the last step
  unread: list[tuple[int, dict]] = []  # (step, metrics)
  with contextlib.ExitStack() as profile:
    for step in range(start + 1, config.steps + 1):
      if step == max(first_profiled, start + 1) <= last_profiled:
        jax.block_until_ready(state)  # earlier steps stay out of the profile
        profile.enter_context(jax.profiler.trace(str(training.run.folder / 'profile')))
      # Input that arrives while the last step still runs costs no time.
      with clock.measure('input', hidden=functools.partial(_is_running, metrics)):
        batch = sharding.place_batch(next(batches), experiment.mesh)
      state, metrics = step_fn(state, batch, training.root_key)
      if unread and (step - 1) % config.log_every == 0:
        _log(training, unread)
        unread = []
      unread.append((step, metrics))
      if step == last_profiled:
        jax.block_until_ready(metrics)
        profile.close()
      stop = training.preemption.reached()
      val_is_due = _val_is_due(config, step)
      checkpoint_is_due = step % config.checkpoint_every == 0
      if stop or val_is_due or checkpoint_is_due:
        _read_metrics(training, unread)  # a state that is not finite is never saved
        if step % config.log_every == 0:  # a run resumed from here would not write this row
          _log(training, unread)
          unread = []
      if val_is_due and not stop:
        _evaluate_val(training, step, state, batches)
      elif stop or checkpoint_is_due:
        _save(training, step, state, batches, wait=stop)
      if stop:
        raise Stopped(step, config.steps)
      training.progress.update(step)


def _compile_step(experiment: setup.Experiment) -> Callable:
  batch, key = setup.abstract_batch(experiment), setup.abstract_key(experiment)
  return setup.make_step(experiment).lower(experiment.abstract, batch, key).compile()


def _is_running(metrics: dict[str, jax.Array]) -> bool:
  """Whether the step that computes these metrics still runs."""
  return not all(value.is_ready() for value in metrics.values())


def _val_is_due(config: ConfigDict, step: int) -> bool:
  """Whether the validation set is scored after a step."""
  return step == config.steps or step % config.eval_every == 0


def _evaluate_val(training: _Training, step: int, state, batches) -> None:
  """Scores the validation set and saves a checkpoint with the metrics.

  Raises:
    Stopped: SIGTERM arrived meanwhile; the checkpoint is saved without metrics.
  """
  run, config = training.run, training.config
  if not training.clock.total()[1]['evaluate']:
    training.show_status(step, 'compiling the evaluation')
  with training.clock.measure('evaluate'):
    variables, stopped = setup.scored_variables(state), training.preemption.reached
    metrics = run.task.val_metrics(run.experiment, run.scorer, variables, run.data.val, stopped)
    for name in training.oracle if metrics is not None else ():
      source = run.data.test[name]
      more = run.task.oracle_metrics(run.experiment, run.scorer, variables, name, source, stopped)
      if more is None:
        metrics = None
        break
      metrics |= more
  if metrics is None:
    if step not in training.checkpoints.steps():
      _save(training, step, state, batches, wait=True)
    raise Stopped(step, config.steps)
  if training.writer:
    training.writer.write(step, metrics)
  val = {n: v for n, v in metrics.items() if n.startswith('val/')}
  # Subsets with a sensor that val never has have no figure.
  val = {n: v for n, v in val.items() if n.count('/') == 1 or math.isfinite(v)}
  values = '  '.join(f'{name.removeprefix("val/")} {v:.4f}' for name, v in val.items())
  training.progress.print_line(f'step {step}: val {values}')
  best = {run.task.metric: metrics[f'val/{run.task.metric}']}
  _save(training, step, state, batches, best, wait=step == config.steps)


def _save(
  training: _Training,
  step: int,
  state,
  batches,
  metrics: dict[str, float] | None = None,
  wait: bool = False,
) -> None:
  """Saves a checkpoint; see `Checkpoints.save`."""
  config = json.loads(json.dumps(training.config.to_dict()))
  run_info = {'config': config, **training.run_info}
  if training.left_out:
    run_info[frozen.KEY] = training.left_out
    state = frozen.leave_out(state, training.left_out)
  _check_lock(training.run)
  with training.clock.measure('save'):
    wait = wait or bool(training.unwritten)
    training.checkpoints.save(step, state, batches.get_state(), run_info, metrics, wait)
  _write_all(training.unwritten)


def _log(training: _Training, unread: list[tuple[int, dict]]) -> None:
  """Writes and displays the metrics of the last of some steps, and the speed of all of them."""
  values = _read_metrics(training, unread)
  step, config = unread[-1][0], training.config
  seconds, by_name = training.clock.lap()
  stepping = seconds - by_name['evaluate'] - by_name['compile'] - by_name['restore']
  row = {f'train/{name}': value for name, value in values.items()}
  row['train/learning_rate'] = float(training.run.experiment.schedule(step - 1))
  row['speed/triplets_per_second'] = len(unread) * config.batch_size / stepping
  row['speed/step_seconds'] = stepping / len(unread)
  row['speed/input_wait'] = by_name['input'] / stepping
  row['speed/save_seconds'] = by_name['save']
  row |= _memory()
  if training.writer:
    training.writer.write(step, row)
  held_lock = training.run.held_lock
  # Several processes agree on it when they save.
  if jax.process_count() == 1 and held_lock and held_lock.noticed:
    raise StateError(held_lock.noticed)
  displayed = (
    'train/loss',
    'train/accuracy',
    'speed/triplets_per_second',
    'speed/step_seconds',
    'speed/input_wait',
    'memory/device_gb' if 'memory/device_gb' in row else 'memory/host_gb',
  )
  training.progress.update(
    step, {name.split('/')[1]: row[name] for name in displayed if name in row}
  )


def _memory() -> dict[str, float]:
  """Peak memory in GB (1e9 bytes): of this process, and of its fullest device if that is known."""
  unit = 1 if sys.platform == 'darwin' else 1024
  peaks = {'memory/host_gb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  if used := [s['peak_bytes_in_use'] for s in stats if 'peak_bytes_in_use' in s]:
    peaks['memory/device_gb'] = max(used) / 1e9
  return peaks


def _read_metrics(training: _Training, unread: list[tuple[int, dict]]) -> dict[str, float]:
  """Fetches the metrics of some steps; returns those of the last one.

  Raises:
    StateError: a loss or gradient is NaN or infinite; `bad_batch.json` lists the first such batch.
  """
  values: dict[str, Any] = {}
  for step, metrics in unread:
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    if not np.isfinite([values['loss'], values['grad_norm']]).all():
      raise _not_finite(training, step, values)
  return values


def _not_finite(training: _Training, step: int, values: dict[str, float]) -> StateError:
  """The error for a step whose loss or gradient is not finite; writes `bad_batch.json`."""
  config, file = training.config, training.run.folder / 'bad_batch.json'
  index = step - 1 + training.data_offset
  balance = sampling.balanced_fields(config)
  ids = pipeline.ids_of_batch(
    training.run.data.train, config.batch_size, config.seed, index, balance
  )
  if distributed.is_first():
    record = {'step': step, **{name: str(v) for name, v in values.items()}, 'ids': ids}
    with contextlib.suppress(OSError):  # a full disk must not hide the error
      write_text(file, json.dumps(record, indent=1) + '\n')
  training.checkpoints.wait_until_saved()
  saved = training.checkpoints.latest()
  return StateError(
    f'the loss is {values["loss"]} and its gradient {values["grad_norm"]} at step {step}, for '
    f'the {len(ids)} samples listed in {file}; '
    + (f'the checkpoint of step {saved} is intact' if saved else 'no checkpoint was saved yet')
    + '. Inspect those samples, lower config.schedule.peak or set config.clip_norm, and continue '
    'with --allow_config_change'
  )


def _report_time(training: _Training) -> None:
  """Prints and records how the time was spent."""
  seconds, by_name = training.clock.total()
  names = ('compile', 'input', 'save', 'evaluate', 'restore')
  spent = {name: by_name[name] for name in names if by_name[name]}
  spent['steps'] = max(seconds - sum(spent.values()), 0.0)
  shares = ', '.join(f'{100 * s / seconds:.1f} % {name}' for name, s in spent.items())
  training.progress.print_line(f'{seconds:.0f} s in total: {shares}')
  if training.writer:
    row = {f'time/{name}': value for name, value in {'total': seconds, **spent}.items()}
    training.writer.write(training.config.steps, row)
