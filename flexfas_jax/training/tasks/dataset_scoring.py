"""What all tasks need to score a data set: the best checkpoint, batches, progress, results."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import flexfas_jax
from flexfas_jax.errors import StateError
from flexfas_jax.evaluation import results, unusable
from flexfas_jax.evaluation.report import tables
from flexfas_jax.evaluation.score_files import Scores
from flexfas_jax.files import write_text
from flexfas_jax.input_pipeline import pipeline, sources
from flexfas_jax.progress import Progress
from flexfas_jax.protocols import selection
from flexfas_jax.training import (
  datasets,
  digests,
  distributed,
  frozen,
  setup,
  sharding,
  trainable,
  workdir,
)
from flexfas_jax.training.checkpoints import Checkpoints


class _Interrupted(Exception):
  """Scoring ends early: the process was asked to stop."""


def run_interruptibly(
  scorer: Callable,
  variables,
  experiment: setup.Experiment,
  source: sources.Source,
  interrupted: Callable[[], bool],
):
  """What a scorer returns for a data set; None if `interrupted()` was True after a batch."""

  def check(_) -> None:
    if interrupted():
      raise _Interrupted

  signal = _Signal(experiment, len(source))
  try:
    found = scorer(variables, signal.watch(batches_of(experiment, source)), progress=check)
  except _Interrupted:
    return None
  if not isinstance(found, Scores):
    return found
  stated = _not_recorded(experiment.model.modalities, signal.found()[0])
  return dataclasses.replace(found, header={**found.header, **stated})


class _Signal:
  """Which images a data set has, and which carry a signal, recorded while its batches pass."""

  def __init__(self, experiment: setup.Experiment, n: int):
    self.n, self.B = n, experiment.config.eval_batch_size
    self.rows = sharding.local_rows(experiment.mesh, self.B)
    padded = -(-n // self.B) * self.B
    # [2, padded, M]: 1 where there is an image, and where it has no signal
    self.marks = np.zeros((2, padded, len(experiment.model.modalities)), int)

  def watch(self, batches):
    """The same batches."""
    for i, (arrays, metas) in enumerate(batches):
      at = i * self.B + self.rows
      self.marks[:, at] = arrays['present'] | arrays['unusable'], arrays['unusable']
      yield arrays, metas

  def found(self) -> tuple[np.ndarray, np.ndarray]:
    """Two of [N, M] bool: there is an image; it carries no signal."""
    # Several processes may hold the same row.
    given, without_signal = distributed.sum_over_processes(self.marks)[:, : self.n] > 0
    return given, without_signal


def _not_recorded(modalities: Sequence[str], given: np.ndarray) -> dict[str, Any]:
  """What a header states of modalities that no sample has, given [N, M]; {} if there is none."""
  lacking = [m for m, is_ in zip(modalities, given.any(0), strict=True) if not is_]
  return {'not_recorded': lacking} if lacking else {}


def run_with_progress(
  scorer: Callable, variables, experiment: setup.Experiment, name: str, source: sources.Source
):
  """What a scorer returns for a data set; shows progress under the set's name."""
  with _progress(name, source) as progress:
    return scorer(variables, batches_of(experiment, source), progress=progress.update)


def _progress(name: str, source: sources.Source) -> Progress:
  return Progress(f'score {name}', len(source), silent=not distributed.is_first())


def batches_of(experiment: setup.Experiment, source: sources.Source, preprocess=None):
  """A data set's batches, as `pipeline.eval_batches` yields them.

  Args:
    experiment: gives batch size and mesh.
    source: the data set.
    preprocess: None: the experiment's, with the first view only.
  """
  B = experiment.config.eval_batch_size
  rows = sharding.local_rows(experiment.mesh, B)
  return pipeline.eval_batches(source, preprocess or experiment.preprocess, B, rows)


def score_dataset(
  experiment: setup.Experiment,
  score: Callable,
  name: str,
  source: sources.Source,
  header: Mapping | list[Mapping],
):
  """Scores a data set under every subset and view; the scores list modalities without signal.

  Args:
    experiment: whose model it is.
    score: `(batches, header, progress)` -> scores, or a list with the scores of several members.
    name: of the set.
    source: the data set.
    header: of the scores, or a list with each member's.

  Returns:
    (what `score` returns, notes on the images)
  """
  signal = _Signal(experiment, len(source))
  all_views = dataclasses.replace(
    experiment.preprocess, test_views=tuple(experiment.views.values())
  )
  with _progress(name, source) as progress:
    batches = signal.watch(batches_of(experiment, source, all_views))
    scores = score(batches, header, progress.update)
  members = scores if isinstance(scores, list) else [scores]
  if members[0].ids.tolist() != list(source.columns['id']):
    raise AssertionError(f'{name}: not every sample was scored exactly once')
  modalities, (given, without_signal) = experiment.model.modalities, signal.found()
  members = [unusable.add_column(member, modalities, without_signal) for member in members]
  stated: dict[str, Any] = _not_recorded(modalities, given)
  if selection.is_rendered(source.names):
    stated['rendered'] = True
  if stated:
    members = [
      dataclasses.replace(member, header={**member.header, **stated}) for member in members
    ]
  notes = [
    f'{name}: {n} images of {modality} carry no signal; treated as absent'
    for modality, n in zip(modalities, without_signal.sum(0), strict=True)
    if n
  ]
  return (members if isinstance(scores, list) else members[0]), notes


def restore_best(
  experiment: setup.Experiment, folder: pathlib.Path, metric: str, notes: list[str]
) -> tuple[int, dict, dict[str, Any]]:
  """Restores the checkpoint with the best validation metric.

  Args:
    experiment: whose model it is.
    folder: the workdir.
    metric: that checkpoints are compared by; lower is better.
    notes: printed with every result.

  Returns:
    (step, the model's variables, the header of the files that are written for it)

  Raises:
    StateError: no checkpoint, or one that is damaged or of another model.
  """
  checkpoints = Checkpoints(workdir.checkpoints(folder), metric, read_only=True)
  step = checkpoints.best()
  if step is None:
    raise StateError(f'{folder} holds no checkpoint; run with --mode=train first')
  checkpoints.verify(step)
  variables = setup.scored_variables(frozen.restore(checkpoints, step, experiment))
  header = {
    'step': step,
    'trained_steps': checkpoints.latest(),  # an ensemble refuses unfinished members
    'weights_hash': digests.hash_weights(variables),
    'parameters': _count(variables['params']),
    'trained_parameters': _count(trainable.split(variables['params'], experiment.trainable)[0]),
    'config': json.loads(json.dumps(experiment.config.to_dict())),
    'version': flexfas_jax.__version__,
  }
  if member := setup.member_fields(experiment.config):
    header['member'] = member
  if len(experiment.views) > 1:
    header['views'] = list(experiment.views)
  if pretraining := workdir.read_pretraining(folder):
    header['pretraining'] = {k: v for k, v in pretraining.items() if k != 'subjects'}
  if notes:
    header['notes'] = notes
  return step, variables, header


def _count(params) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def headline(title: str, data: datasets.Data) -> str:
  """The title of a table, which states whether images of the val set or a test are rendered."""
  names = [name for source in (data.val, *data.test.values()) for name in source.names]
  return f'{title} ({tables.MARKS[results.RENDERED]})' if selection.is_rendered(names) else title


def write_results(
  folder: pathlib.Path, metrics: Mapping, table: str, notes: list[str], other: str = 'scores/'
) -> None:
  """Writes `results.json`; prints the table, the notes and what was written.

  Args:
    folder: the workdir.
    metrics: {data set: its metrics}.
    table: of the metrics.
    notes: printed with every result.
    other: what else was written into the workdir.
  """
  for line in (table, *notes):
    print(line + '\n')
  text = json.dumps(results.json_safe(metrics), indent=2)
  write_text(folder / 'results.json', text + '\n')
  written = workdir.origin(folder)
  print(f'Written: {written}/results.json, {written}/{other}')
