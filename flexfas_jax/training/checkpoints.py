"""Checkpoints with Orbax: state, data position and config of a step in one, kept by rule.

What a resumed run needs to equal an unbroken one bit for bit on the same machine: the state, where
the input stands, and the step (keys are folded from it). They are written while the training goes
on; what cannot be written or read is told, and tried otherwise, before it is an error.
"""

import contextlib
import math
import pathlib
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp

from flexfas_jax.errors import StateError, Stopped
from flexfas_jax.training import digests, distributed

KEEP = 2  # newest checkpoints; the best on val is kept besides


def _tell(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


class Checkpoints:
  """The checkpoints of one workdir, written without stopping the training.

  Args:
    folder: where they are.
    metric: key of the val metrics that says which is best; lower is better.
    read_only: for evaluation: never writes or cleans up.
    tries: saves that may fail one after the other (a full disk) before it is an error.
    tell: called with a line about what went wrong and was got over.
  """

  def __init__(
    self,
    folder: str,
    metric: str,
    read_only: bool = False,
    tries: int = 1,
    tell: Callable[[str], None] = _tell,
  ):
    self._folder = pathlib.Path(folder).absolute()
    if read_only and not self._folder.is_dir():
      raise StateError(f'no checkpoints in {folder}; train first (--mode=train)')
    self._metric, self._read_only, self._tries, self._tell = metric, read_only, tries, tell
    self._saving, self._failures = None, 0
    self._manager = self._open()

  def _open(self) -> ocp.CheckpointManager:
    try:
      return self._opened()
    except Exception as error:  # of the file system, or a parser's
      raise StateError(f'{self._folder} cannot be opened ({_first_line(error)})') from error

  def _opened(self) -> ocp.CheckpointManager:
    policies = ocp.checkpoint_managers
    # The best: reversed, so that the lowest stands last; of equals the newest.
    best = policies.BestN(
      get_metric_fn=self._value, reverse=True, n=1, keep_checkpoints_without_metrics=False
    )
    options = ocp.CheckpointManagerOptions(
      preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(KEEP), best]),
      best_fn=self._value,  # without it Orbax does not store the metrics
      best_mode='min',
      cleanup_tmp_directories=not self._read_only,  # of a run that was killed while it saved
      read_only=self._read_only,
      async_options=ocp.AsyncOptions(post_finalization_callback=self._written),
    )
    handlers = {
      'state': ocp.StandardCheckpointHandler(),
      'data': ocp.JsonCheckpointHandler(),
      'run': ocp.JsonCheckpointHandler(),
    }
    return _Manager(self._folder, options=options, item_handlers=handlers)

  def _written(self) -> None:
    """Called when a step's files are written, in another thread, while the training goes on."""
    if distributed.is_first():
      whole = self._folder / str(self._saving)
      # Orbax renames the folder when this is done; a version that has done so already will do.
      for folder in (*self._folder.glob(f'{whole.name}.*tmp*'), whole):
        if folder.is_dir():
          digests.write(folder)

  def _value(self, metrics) -> float:
    value = float(metrics[self._metric])
    return math.inf if math.isnan(value) else value  # what is undefined is never the best

  def latest(self) -> int | None:
    """The newest step that was saved whole; None where there is none."""
    return self._manager.latest_step()

  def best(self) -> int | None:
    """The step that was best on val, of equals the newest; the newest where none was evaluated."""
    self.wait_until_saved()
    metrics = {step: self._metrics(step) for step in self.steps()}
    judged = [(self._value(m), -step) for step, m in metrics.items() if m]
    return -min(judged)[1] if judged else self.latest()

  def judged(self, step: int) -> bool:
    """Whether a step was saved with val's metrics."""
    return bool(self._metrics(step))

  def _metrics(self, step: int):
    try:
      return self._manager.metrics(step)
    except Exception as error:
      raise self._unreadable(step, error) from error

  def steps(self) -> list[int]:
    """All steps that are kept, ascending."""
    return sorted(self._manager.all_steps())

  def save(
    self,
    step: int,
    state: Any,
    position: dict,
    run: dict,
    metrics: dict | None = None,
    wait: bool = False,
  ) -> None:
    """Starts to save; returns once the state is copied from the device. A step that was saved
    without metrics is saved again with them.

    Args:
      step: how many were done.
      state: a pytree of arrays.
      position: where the input stands after the batch of this step, as JSON.
      run: what else belongs to it, as JSON.
      metrics: val's, if there are any at this step.
      wait: until it is written; where it fails, try again.

    Raises:
      StateError: it was tried `tries` times in a row, this being the last. What was saved before
        stands.
    """
    self.wait_until_saved()
    items = ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      data=ocp.args.JsonSave(position),
      run=ocp.args.JsonSave(run),
    )
    while True:
      error = None
      try:
        if step in self.steps():
          self._stash(step)
        self._saving = step
        self._manager.save(step, args=items, metrics=metrics, force=True)
      except Exception as caught:  # of the file system, or of what Orbax makes of it
        error = caught
      if failed := distributed.any_process(error is not None):
        self._saving = None
        self._failed(step, error)
      if not wait or (not failed and self.wait_until_saved()):
        return
      time.sleep(1)

  def wait_until_saved(self) -> bool:
    """Waits for what is being written; whether it was written, or there was nothing."""
    if self._saving is None:
      return True
    step, error = self._saving, None
    try:
      self._manager.wait_until_finished()
    except Exception as caught:
      error = caught
    self._saving = None
    if distributed.any_process(error is not None):
      self._failed(step, error)
      return False
    self._failures = 0
    if distributed.is_first():
      shutil.rmtree(_stash_folder(self._folder), ignore_errors=True)
    return True

  def _stash(self, step: int) -> None:
    """Makes room for a step that is saved again; until it is, the first one is not lost."""
    self._manager.close()
    if distributed.is_first():
      _stash_folder(self._folder).mkdir(exist_ok=True)
      (self._folder / str(step)).rename(_stash_folder(self._folder) / str(step))
    distributed.barrier('kept aside')
    self._manager = self._open()

  def _failed(self, step: int, error: Exception | None) -> None:
    self._failures += 1
    why = _first_line(error) if error else 'in another process'
    # It believes in a step that is not there, and its half is still on the disk.
    with contextlib.suppress(Exception):
      self._manager.close()
    if distributed.is_first():
      for half in self._folder.glob(f'{step}.*tmp*'):
        shutil.rmtree(half, ignore_errors=True)
      _unstash(self._folder)
    distributed.barrier('taken back')
    self._manager = self._open()
    stands = f'the checkpoint of step {self.latest()} stands'
    if self._failures >= self._tries:
      raise StateError(
        f'the checkpoint of step {step} cannot be saved ({why}), failure number '
        f'{self._failures} in a row; {stands}. Make room in {self._folder}, or give it back, and '
        'run the same command again'
      ) from error
    self._tell(
      f'WARNING: the checkpoint of step {step} cannot be saved ({why}); the training goes on, '
      f'{stands}; {self._tries - self._failures} more failure(s) end it'
    )

  def verify(self, step: int) -> None:
    """Raises a StateError if a step is not as it was written; the first process reads it."""
    why = digests.damage(self._folder / str(step)) if distributed.is_first() else ''
    if why := distributed.broadcast_str(why):
      raise StateError(
        f'the checkpoint {self._folder / str(step)} is damaged ({why}); delete it to go on without '
        'it'
      )

  def restore(self, step: int, abstract: Any) -> Any:
    """The state at a step, placed as `abstract` says, on however many devices.

    Args:
      step: one of `steps()`.
      abstract: pytree of ShapeDtypeStruct with shardings.

    Raises:
      StateError: it cannot be read, or holds another model.
    """
    self._compare(step, abstract)
    try:
      items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
      return self._manager.restore(step, args=items)['state']
    except Exception as error:
      raise self._unreadable(step, error) from error

  def variables(self, step: int, place: Any) -> dict[str, Any]:
    """The model's part of a step, whatever the model: {'params': ..., 'batch_stats': ...}.

    Args:
      step: one of `steps()`.
      place: the sharding of every array.

    Raises:
      StateError: it cannot be read.
    """
    try:
      stored = self._manager.item_metadata(step)['state']
      stored = getattr(stored, 'tree', stored)
      abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), stored
      )
      items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
      state = self._manager.restore(step, args=items)['state']
      return {name: state.get(name) or {} for name in ('params', 'batch_stats')}
    except Exception as error:
      raise self._unreadable(step, error) from error

  def position(self, step: int) -> dict:
    """Where the input stood, as it was saved."""
    return self._json(step, 'data')

  def about(self, step: int) -> dict:
    """What else belongs to it, as it was saved."""
    return self._json(step, 'run')

  def _json(self, step: int, item: str) -> dict:
    try:
      items = ocp.args.Composite(**{item: ocp.args.JsonRestore()})
      return self._manager.restore(step, args=items)[item]
    except Exception as error:
      raise self._unreadable(step, error) from error

  def _compare(self, step: int, abstract: Any) -> None:
    """Names the first tensors that are not the model's; Orbax would pad, crop or say little."""
    try:
      stored = self._manager.item_metadata(step)['state']
      stored = dict(jax.tree_util.tree_leaves_with_path(getattr(stored, 'tree', stored)))
    except Exception as error:
      raise self._unreadable(step, error) from error
    name = _path_name
    stored = {name(path): tuple(leaf.shape) for path, leaf in stored.items()}
    wanted = {
      name(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)
    }
    differences = [
      f'  {key}: checkpoint {stored.get(key, "nothing")}, model {wanted.get(key, "nothing")}'
      for key in sorted(stored.keys() | wanted.keys())
      if stored.get(key) != wanted.get(key)
    ]
    if differences:
      more = f'\n  ... and {len(differences) - 8} more' if len(differences) > 8 else ''
      raise StateError(
        f'the checkpoint {self._folder / str(step)} is of another model:\n'
        + '\n'.join(differences[:8])
        + more
      )

  def _unreadable(self, step: int, error: Exception) -> StateError:
    return StateError(
      f'the checkpoint {self._folder / str(step)} cannot be read '
      f'({_first_line(error)}); delete it to go on without it'
    )

  def close(self) -> None:
    """Waits for what is being saved."""
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
    # Else: it may be that this process alone has failed, and the others will not come.


class _Manager(ocp.CheckpointManager):
  """Orbax's, which does not ask for preemption: the run does, and in its own order."""

  def reached_preemption(self, step: int) -> bool:
    """Never."""
    del step
    return False


def _stash_folder(folder: pathlib.Path) -> pathlib.Path:
  return folder.parent / 'replaced_checkpoint'


def _unstash(folder: pathlib.Path) -> None:
  """Puts a step that was to be saved again, and was not, where it had been."""
  for step in _stash_folder(folder).glob('*'):
    if not (folder / step.name).exists():
      step.rename(folder / step.name)
  shutil.rmtree(_stash_folder(folder), ignore_errors=True)


def quarantine_corrupt(
  folder: pathlib.Path, strict: bool = False, tell: Callable[[str], None] = _tell
) -> None:
  """Moves newest checkpoints that cannot be read out of the way, until one can be.

  Call it before `Checkpoints` is opened. The first process reads, since where reading fails in one
  process the others would wait for it. They go to `damaged_checkpoints` beside the folder.

  Args:
    folder: of the checkpoints.
    strict: a damaged one is an error instead.
    tell: called with a line about each.

  Raises:
    StateError: one is damaged and `strict`, or all are.
  """
  said = ''
  if distributed.is_first():
    try:
      _quarantine_corrupt(pathlib.Path(folder).absolute(), strict, tell)
    except StateError as error:
      said = str(error)
  if said := distributed.broadcast_str(said):
    raise StateError(said)


def _quarantine_corrupt(folder: pathlib.Path, strict: bool, tell) -> None:
  _unstash(folder)
  steps = sorted((f for f in folder.glob('*') if f.name.isdigit()), key=lambda f: int(f.name))
  damaged = []
  while steps and (why := digests.damage(steps[-1])):
    damaged.append(steps.pop())
    if strict:
      raise StateError(
        f'the checkpoint {damaged[-1]} is damaged ({why}); without --strict_restore the one before '
        'is taken'
      )
    tell(f'WARNING: the checkpoint {damaged[-1]} is damaged ({why})')
  if damaged and not steps:
    raise StateError(
      f'every checkpoint in {folder} is damaged: {", ".join(f.name for f in damaged)}; put back a '
      'copy of one, or name another --workdir to begin anew'
    )
  for step in damaged:
    target = folder.parent / 'damaged_checkpoints' / step.name
    while target.exists():
      target = target.with_name(target.name + '_')
    target.parent.mkdir(exist_ok=True)
    step.rename(target)
    tell(f'WARNING: going on from step {steps[-1].name} instead; {step.name} was moved to {target}')


def _first_line(error: Exception) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _path_name(path) -> str:
  parts = (getattr(p, 'key', getattr(p, 'name', getattr(p, 'idx', None))) for p in path)
  return '.'.join(str(p) for p in parts)
