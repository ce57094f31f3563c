"""Checkpoints with Orbax: state, data iterator and step in one composite, kept by rule.

What a resumed run needs to equal an unbroken one bit for bit on the same machine: the state, where
the input stands, and the step (keys are folded from it).
"""

import pathlib
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp

from flexfas_jax.errors import StateError

KEEP = 2  # newest checkpoints; the best on val is kept besides


class Checkpoints:
  """The checkpoints of one workdir, written without stopping the training.

  Args:
    folder: where they are.
    metric: key of the val metrics that says which is best; lower is better.
    read_only: for evaluation: never writes or cleans up.
  """

  def __init__(self, folder: str, metric: str, read_only: bool = False):
    policies = ocp.checkpoint_managers

    def value(metrics):
      return float(metrics[metric])

    options = ocp.CheckpointManagerOptions(
      # The best: reversed, so that the lowest stands last; of equals the newest.
      preservation_policy=policies.AnyPreservationPolicy(
        [
          policies.LatestN(KEEP),
          policies.BestN(
            get_metric_fn=value, reverse=True, n=1, keep_checkpoints_without_metrics=False
          ),
        ]
      ),
      best_fn=value,  # without it Orbax does not store the metrics
      best_mode='min',
      cleanup_tmp_directories=not read_only,  # of a run that was killed while it saved
      read_only=read_only,
    )
    self._value = value
    self._folder = pathlib.Path(folder).absolute()
    if read_only and not self._folder.is_dir():
      raise StateError(f'no checkpoints in {folder}; train first (--mode=train)')
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=options,
      item_handlers={
        'state': ocp.StandardCheckpointHandler(),
        'data': grain.checkpoint.CheckpointHandler(),
        'run': ocp.JsonCheckpointHandler(),
      },
    )

  def latest(self) -> int | None:
    """The newest step that was saved whole; None where there is none."""
    return self._manager.latest_step()

  def best(self) -> int | None:
    """The step that was best on val, of equals the newest; the newest where none was evaluated."""
    self._manager.wait_until_finished()
    metrics = {step: self._manager.metrics(step) for step in self.steps()}
    judged = [(self._value(m), -step) for step, m in metrics.items() if m]
    return -min(judged)[1] if judged else self.latest()

  def steps(self) -> list[int]:
    """All steps that are kept, ascending."""
    return sorted(self._manager.all_steps())

  def save(self, step: int, state: Any, iterator, run: dict, metrics: dict | None = None) -> None:
    """Starts to save; returns once the state is copied from the device.

    Args:
      step: how many were done.
      state: a pytree of arrays.
      iterator: Grain's, after the batch of this step.
      run: what else belongs to it, as JSON.
      metrics: val's, if there are any at this step.
    """
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        data=grain.checkpoint.CheckpointSave(iterator),
        run=ocp.args.JsonSave(run),
      ),
      metrics=metrics,
    )

  def restore(self, step: int, abstract: Any, iterator=None) -> Any:
    """The state at a step, placed as `abstract` says; sets the iterator where it stood.

    Args:
      step: one of `steps()`.
      abstract: pytree of ShapeDtypeStruct with shardings.
      iterator: Grain's, made as when it was saved; None leaves the data position alone.

    Raises:
      StateError: it cannot be read, or holds another model.
    """
    self._compare(step, abstract)
    items = {'state': ocp.args.StandardRestore(abstract)}
    if iterator is not None:
      items['data'] = grain.checkpoint.CheckpointRestore(iterator)
    try:
      return self._manager.restore(step, args=ocp.args.Composite(**items))['state']
    except Exception as error:
      raise StateError(
        f'the checkpoint {self._folder / str(step)} cannot be read ({error}); delete it to go on '
        'from the one before'
      ) from error

  def _compare(self, step: int, abstract: Any) -> None:
    """Names the first tensors that are not the model's; Orbax would pad, crop or say little."""
    try:
      stored = self._manager.item_metadata(step)['state']
      stored = dict(jax.tree_util.tree_leaves_with_path(getattr(stored, 'tree', stored)))
    except Exception as error:
      raise StateError(
        f'the checkpoint {self._folder / str(step)} cannot be read ({error}); delete it to go on '
        'from the one before'
      ) from error
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

  def close(self) -> None:
    """Waits for what is being saved."""
    self._manager.wait_until_finished()
    self._manager.close()


def _path_name(path) -> str:
  parts = (getattr(p, 'key', getattr(p, 'name', getattr(p, 'idx', None))) for p in path)
  return '.'.join(str(p) for p in parts)
