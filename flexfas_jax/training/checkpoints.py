"""Checkpoints with Orbax: state, data position, config and metrics of a step.

A resumed run equals an uninterrupted one bit for bit on the same machine: it needs the state, the
position in the data, and the step, from which random keys are derived. Checkpoints are written
while the training continues. A failed write is reported and retried before it becomes an error;
a damaged newest checkpoint is moved away and the one before it is used.
"""

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from flexfas_jax import bucket
from flexfas_jax.errors import FlexfasError, StateError, Stopped, TemporaryError
from flexfas_jax.training import digests, distributed
from flexfas_jax.training.step import AveragedState, with_average, without_average

KEEP = 2  # newest checkpoints, besides the best on val
_OUT_OF_MEMORY = (MemoryError, jax.errors.JaxRuntimeError)
# In a bucket a step has its final name from the start; this file, written last, completes it.
_COMMITTED = 'commit_success.txt'


def _print_warning(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


class Checkpoints:
  """The checkpoints of one workdir, written without stopping the training.

  Args:
    folder: of the checkpoints; local or at gs://.
    metric: of val, that selects the best one; lower is better.
    read_only: for evaluation: never writes or cleans up.
    tries: consecutive failed saves (a full disk) that are an error.
    warn: called with a line for each failure that the training survives.
    before_save: called before each save, which fails if it raises.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    metric: str,
    read_only: bool = False,
    tries: int = 1,
    warn: Callable[[str], None] = _print_warning,
    before_save: Callable[[], None] = lambda: None,
  ):
    self._folder = _absolute(folder)
    if read_only and not self._folder.is_dir():
      raise StateError(f'no checkpoints in {folder}; train first (--mode=train)')
    if read_only and bucket.is_remote(self._folder) and distributed.is_first():
      _list_steps(self._folder)  # refuses a copy of local checkpoints
    self._metric, self._read_only, self._tries, self._warn = metric, read_only, tries, warn
    self._before_save = before_save
    self._saving, self._failures = None, 0
    self._manager = self._open()

  def _open(self) -> ocp.CheckpointManager:
    try:
      return self._make_manager()
    except Exception as error:  # of the file system, or a parser's
      self._check_bucket()
      raise StateError(f'{self._folder} cannot be opened ({_first_line(error)})') from error

  def _check_bucket(self) -> None:
    """Raises a TemporaryError if the folder is in a bucket that does not answer.

    Call it where another library failed, whose errors do not show that.
    """
    if bucket.is_remote(self._folder):
      bucket.check_reachable(str(self._folder), 'checkpoints', StateError)

  def _make_manager(self) -> ocp.CheckpointManager:
    policies = ocp.checkpoint_managers
    # Reversed, the lowest value comes last; of equal ones the newest.
    best = policies.BestN(
      get_metric_fn=self._metric_value, reverse=True, n=1, keep_checkpoints_without_metrics=False
    )
    options = ocp.CheckpointManagerOptions(
      preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(KEEP), best]),
      best_fn=self._metric_value,  # without it Orbax does not store the metrics
      best_mode='min',
      cleanup_tmp_directories=not self._read_only,  # of a run that was killed while it saved
      read_only=self._read_only,
      async_options=ocp.AsyncOptions(post_finalization_callback=self._write_digests),
    )
    handlers = {
      'state': ocp.StandardCheckpointHandler(),
      'data': ocp.JsonCheckpointHandler(),
      'run': ocp.JsonCheckpointHandler(),
    }
    return _Manager(self._folder, options=options, item_handlers=handlers)

  def _write_digests(self) -> None:
    """Called in another thread once a step's files are written, while the training continues."""
    if distributed.is_first():
      final = self._folder / str(self._saving)
      # Orbax renames the folder after this call; other versions may do so before.
      for folder in (*self._folder.glob(f'{final.name}.*tmp*'), final):
        if folder.is_dir():
          digests.write(folder)

  def _metric_value(self, metrics) -> float:
    value = float(metrics[self._metric])
    return math.inf if math.isnan(value) else value  # an undefined value is never the best

  def latest(self) -> int | None:
    """The newest completely saved step; None if there is none."""
    return self._manager.latest_step()

  def best(self) -> int | None:
    """The step with the best val metric, of equal ones the newest; the newest if none has any."""
    self.wait_until_saved()
    metrics = {step: self._metrics(step) for step in self.steps()}
    ranked = [(self._metric_value(m), -step) for step, m in metrics.items() if m]
    return -min(ranked)[1] if ranked else self.latest()

  def has_metrics(self, step: int) -> bool:
    """Whether a step was saved with val metrics."""
    return bool(self._metrics(step))

  def _metrics(self, step: int):
    try:
      return self._manager.metrics(step)
    except Exception as error:
      raise self._unreadable(step, error) from error

  def steps(self) -> list[int]:
    """All kept steps, ascending."""
    return sorted(self._manager.all_steps())

  def save(
    self,
    step: int,
    state: Any,
    position: dict,
    run_info: dict,
    metrics: dict | None = None,
    wait: bool = False,
  ) -> None:
    """Starts a save; returns once the state is copied from the device.

    A step that was saved without metrics can be saved again with them.

    Args:
      step: number of finished steps.
      state: a pytree of arrays.
      position: in the data, after the batch of this step; JSON.
      run_info: config and version; JSON.
      metrics: of val, if this step has any.
      wait: until the step is written, retrying failed writes.

    Raises:
      StateError: `tries` saves failed in a row, and earlier checkpoints are intact; or all of these
        were deleted.
      TemporaryError: saves into a bucket failed, which permits access.
    """
    self.wait_until_saved()
    self._forget_deleted()
    items = ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      data=ocp.args.JsonSave(position),
      run=ocp.args.JsonSave(run_info),
    )
    while True:
      error = None
      try:
        self._before_save()
        if step in self.steps():
          self._stash(step)
        self._saving = step
        self._manager.save(step, args=items, metrics=metrics, force=True)
      except Exception as caught:  # of the file system, or of what Orbax makes of it
        error = caught
      if failed := distributed.any_process(error is not None):
        self._saving = None
        self._handle_failure(step, error)
      if not wait or (not failed and self.wait_until_saved()):
        return
      time.sleep(1)

  def _forget_deleted(self) -> None:
    """Notices steps that someone else deleted; Orbax would go on comparing the others with them.

    Raises:
      StateError: there is no step left.
    """
    known = self.steps()
    there = [step for step in known if (self._folder / str(step)).is_dir()]
    if not distributed.any_process(there != known):
      return
    names = ', '.join(str(step) for step in known if step not in there)
    if not there:
      raise StateError(
        f'the checkpoints in {self._folder} (steps {names}) were deleted while the training ran; '
        'restore them, and rerun the same command, or rerun it to start again'
      )
    self._warn(f'WARNING: of the checkpoints in {self._folder}, step {names} was deleted')
    self._manager.close()
    self._manager = self._open()

  def wait_until_saved(self) -> bool:
    """Waits for the current save; False if it failed."""
    if self._saving is None:
      return True
    step, error = self._saving, None
    try:
      self._manager.wait_until_finished()
    except Exception as caught:
      error = caught
    self._saving = None
    if distributed.any_process(error is not None):
      self._handle_failure(step, error)
      return False
    self._failures = 0
    if distributed.is_first():
      _remove(_stash_folder(self._folder))
    return True

  def _stash(self, step: int) -> None:
    """Moves a step that is saved again aside, so that a failed save does not lose it.

    In a bucket, where moving is copying, it is deleted: the step before it stands.
    """
    self._manager.close()
    if distributed.is_first() and bucket.is_remote(self._folder):
      bucket.delete_folder(str(self._folder / str(step)), first=_COMMITTED)
    elif distributed.is_first():
      _stash_folder(self._folder).mkdir(exist_ok=True)
      (self._folder / str(step)).rename(_stash_folder(self._folder) / str(step))
    distributed.barrier('stashed')
    self._manager = self._open()

  def _handle_failure(self, step: int, error: Exception | None) -> None:
    """Removes a failed save, and warns or raises.

    Args:
      step: that could not be saved.
      error: of this process; None: another process failed.
    """
    self._failures += 1
    why = _first_line(error) if error else 'in another process'
    # Orbax's manager lists the failed step, whose partial files are still on the disk.
    with contextlib.suppress(Exception):
      self._manager.close()
    if distributed.is_first():
      for partial in self._folder.glob(f'{step}.*tmp*'):
        _remove(partial)
      _unstash(self._folder)
    distributed.barrier('unstashed')
    self._manager = self._open()  # in a bucket, this deletes the partial step
    intact = f'the checkpoint of step {self.latest()} is intact'
    if self._failures >= self._tries:
      # In a bucket there is always space.
      is_final = not bucket.is_remote(self._folder) or isinstance(error, StateError)
      is_final = distributed.any_process(is_final)
      way_out = f'Free space in {self._folder}, and rerun' if is_final else 'Rerun'
      raise (StateError if is_final else TemporaryError)(
        f'the checkpoint of step {step} cannot be saved ({why}), failure number '
        f'{self._failures} in a row; {intact}. {way_out} the same command'
      ) from error
    self._warn(
      f'WARNING: the checkpoint of step {step} cannot be saved ({why}); training continues, '
      f'{intact}; {self._tries - self._failures} more failure(s) will end it'
    )

  def verify(self, step: int) -> None:
    """Raises a StateError if a step differs from what was written; the first process reads it."""
    why = digests.find_damage(self._folder / str(step)) if distributed.is_first() else ''
    if why := distributed.broadcast_str(why):
      raise StateError(
        f'the checkpoint {self._folder / str(step)} is damaged ({why}); delete it to continue '
        'without it'
      )

  def restore(self, step: int, abstract: Any) -> Any:
    """The state at a step, on any number of devices.

    An average of the weights that the checkpoint does not have starts from its weights; one that
    the state does not have is left out.

    Args:
      step: one of `steps()`.
      abstract: a state of ShapeDtypeStruct, with shardings.

    Raises:
      StateError: the checkpoint cannot be read, or is of another model.
    """
    is_averaged, stored = isinstance(abstract, AveragedState), abstract
    if is_averaged != self.has_average(step):
      stored = without_average(abstract) if is_averaged else with_average(abstract)
    self._check_tensors(step, stored)
    try:
      items = ocp.args.Composite(state=ocp.args.StandardRestore(stored))
      state = self._manager.restore(step, args=items)['state']
    except _OUT_OF_MEMORY:  # the checkpoint is intact
      raise
    except Exception as error:
      raise self._unreadable(step, error) from error
    if stored is not abstract:
      state = with_average(state) if is_averaged else without_average(state)
    return state

  def has_average(self, step: int) -> bool:
    """Whether a step was saved with an average of the weights."""
    return 'ema' in self._stored(step)

  def restore_variables(self, step: int, place: Any) -> dict[str, Any]:
    """The variables of any model at a step: {'params': ..., 'batch_stats': ...}.

    Args:
      step: one of `steps()`.
      place: the sharding of every array.

    Raises:
      StateError: the checkpoint cannot be read.
    """
    try:
      stored = self._manager.item_metadata(step)['state']
      stored = getattr(stored, 'tree', stored)
      abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), stored
      )
      items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
      state = self._manager.restore(step, args=items)['state']
      state = state.get('ema') or state  # what the run itself evaluates
      return {name: state.get(name) or {} for name in ('params', 'batch_stats')}
    except _OUT_OF_MEMORY:
      raise
    except Exception as error:
      raise self._unreadable(step, error) from error

  def position(self, step: int) -> dict:
    """The position in the data, as it was saved."""
    return self._json(step, 'data')

  def run_info(self, step: int) -> dict:
    """Config and version, as they were saved."""
    return self._json(step, 'run')

  def _json(self, step: int, item: str) -> dict:
    try:
      items = ocp.args.Composite(**{item: ocp.args.JsonRestore()})
      return self._manager.restore(step, args=items)[item]
    except Exception as error:
      raise self._unreadable(step, error) from error

  def _stored(self, step: int) -> dict:
    """Shape and type of each tensor of a step, as a tree."""
    try:
      stored = self._manager.item_metadata(step)['state']
      return getattr(stored, 'tree', stored)
    except Exception as error:
      raise self._unreadable(step, error) from error

  def _check_tensors(self, step: int, abstract: Any) -> None:
    """Raises a StateError that names tensors of another shape or type; Orbax would pad, crop or
    convert them."""
    name = _path_name
    stored = jax.tree_util.tree_leaves_with_path(self._stored(step))
    stored = {name(path): _describe(leaf) for path, leaf in stored}
    expected = {
      name(path): _describe(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)
    }
    differences = [
      f'  {key}: checkpoint {stored.get(key, "nothing")}, model {expected.get(key, "nothing")}'
      for key in sorted(stored.keys() | expected.keys())
      if stored.get(key) != expected.get(key)
    ]
    if differences:
      more = f'\n  ... and {len(differences) - 8} more' if len(differences) > 8 else ''
      raise StateError(
        f'the checkpoint {self._folder / str(step)} is of another model:\n'
        + '\n'.join(differences[:8])
        + more
      )

  def _unreadable(self, step: int, error: Exception) -> StateError:
    self._check_bucket()
    return StateError(
      f'the checkpoint {self._folder / str(step)} cannot be read '
      f'({_first_line(error)}); delete it to continue without it'
    )

  def close(self) -> None:
    """Waits for the current save."""
    self.wait_until_saved()
    self._manager.close()

  def __enter__(self):
    return self

  def __exit__(self, kind, error, traceback) -> None:
    if kind is None or kind is Stopped:
      self.close()
    elif jax.process_count() == 1:
      with contextlib.suppress(Exception):
        self._manager.close()
    # Otherwise this process alone may have failed; the others would not join a close.


class _Manager(ocp.CheckpointManager):
  """Orbax's manager without its preemption check: the training loop does that."""

  def reached_preemption(self, step: int) -> bool:
    """Never."""
    del step
    return False


def _absolute(folder: str | os.PathLike) -> epath.Path:
  return epath.Path(folder if bucket.is_remote(folder) else os.path.abspath(folder))


def _remove(folder: epath.Path) -> None:
  """Deletes a folder, if it exists and can be deleted."""
  with contextlib.suppress(OSError):
    folder.rmtree()


def _stash_folder(folder: epath.Path) -> epath.Path:
  return folder.parent / 'replaced_checkpoint'


def _unstash(folder: epath.Path) -> None:
  """Puts back a stashed step whose second save failed; in a bucket there is none."""
  if bucket.is_remote(folder):
    return
  for step in _stash_folder(folder).glob('*'):
    if not (folder / step.name).exists():
      step.rename(folder / step.name)
  _remove(_stash_folder(folder))


def quarantine_corrupt(
  folder: str | os.PathLike, strict: bool = False, warn: Callable[[str], None] = _print_warning
) -> None:
  """Moves damaged newest checkpoints to `damaged_checkpoints`, beside the folder.

  Call it before `Checkpoints` is opened. Only the first process reads: if reading failed in one
  process alone, the others would wait for it.

  Args:
    folder: of the checkpoints.
    strict: a damaged checkpoint is an error instead.
    warn: called with a line for each.

  Raises:
    StateError: one is damaged and `strict`, or all are.
    TemporaryError: they are in a bucket that does not answer.
  """
  problem = None
  if distributed.is_first():
    try:
      _quarantine_corrupt(_absolute(folder), strict, warn)
    except FlexfasError as error:
      problem = error
  distributed.raise_first(problem)


def _quarantine_corrupt(folder: epath.Path, strict: bool, warn) -> None:
  _unstash(folder)
  steps = _list_steps(folder)
  damaged = []
  while steps and (why := digests.find_damage(steps[-1])):
    damaged.append(steps.pop())
    if strict:
      raise StateError(
        f'the checkpoint {damaged[-1]} is damaged ({why}); without --strict_restore training '
        'resumes from the one before'
      )
    warn(f'WARNING: the checkpoint {damaged[-1]} is damaged ({why})')
  if damaged and not steps:
    raise StateError(
      f'every checkpoint in {folder} is damaged: {", ".join(f.name for f in damaged)}; restore a '
      'copy of one, or name another --workdir to start again'
    )
  for step in damaged:
    target = folder.parent / 'damaged_checkpoints' / step.name
    while target.exists():
      target = target.with_name(target.name + '_')
    if bucket.is_remote(folder):
      bucket.move_folder(str(step), str(target), first=_COMMITTED)
    else:
      target.parent.mkdir(exist_ok=True)
      step.rename(target)
    warn(f'WARNING: resuming from step {steps[-1].name} instead; moved {step.name} to {target}')
  for step in steps[:-1] if bucket.is_remote(folder) else ():
    if digests.find_damage(step).endswith('is missing'):  # killed while Orbax deleted it
      bucket.delete_folder(str(step), first=_COMMITTED)


def _list_steps(folder: epath.Path) -> list[epath.Path]:
  """The folders of the complete steps, ascending.

  Raises:
    StateError: they were copied into a bucket from a local workdir, so Orbax would not list them.
  """
  if not bucket.is_remote(folder):
    steps = [f for f in folder.glob('*') if f.name.isdigit()] if folder.is_dir() else []
    return sorted(steps, key=lambda step: int(step.name))
  names = bucket.list_objects(str(folder))
  numbers = sorted({int(n.partition('/')[0]) for n in names if n.partition('/')[0].isdigit()})
  complete = [n for n in numbers if f'{n}/{_COMMITTED}' in names]
  copied = [n for n in numbers if n not in complete and digests.is_of_files(folder / str(n))]
  if copied and not complete:
    raise StateError(
      f'the checkpoints in {folder} were copied from a local workdir and lack the file that '
      f'completes a checkpoint in a bucket. If the copy is complete, create it for each of '
      f'{", ".join(map(str, copied))}:\n'
      f'  echo complete | gcloud storage cp - {folder}/{copied[-1]}/{_COMMITTED}'
    )
  return [folder / str(n) for n in complete]


def _describe(leaf: Any) -> str:
  """Shape and type of an array, e.g. '(8, 8) float32'."""
  return f'{tuple(leaf.shape)} {np.dtype(leaf.dtype).name}'


def _first_line(error: Exception) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _path_name(path) -> str:
  parts = (getattr(p, 'key', getattr(p, 'name', getattr(p, 'idx', None))) for p in path)
  return '.'.join(str(p) for p in parts)
