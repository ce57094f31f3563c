"""Initial weights from another run, and the subjects that those weights were trained on.

`config.pretrained = {'weights': WORKDIR, 'architecture': 'ours', 'sha256': None, 'into': ...}`.
The subjects of that run, and of the run that it started from, may be in the training data but not
in validation and test sets.
"""

import pathlib
from typing import Any, NamedTuple

from flexfas_jax.errors import StateError
from flexfas_jax.models.weights import transfer
from flexfas_jax.training import (
  digests,
  distributed,
  frozen,
  remote_workdir,
  setup,
  sharding,
  subjects,
  workdir,
)
from flexfas_jax.training.checkpoints import Checkpoints
from flexfas_jax.training.tasks import get_task


class PretrainedInit(NamedTuple):
  """Initial values that replace random ones.

  Attributes:
    arrays: {path in the model: array}.
    summary: a line about them.
    record: for `pretraining.json`; {} unless they come from another run.
  """

  arrays: dict[tuple[str, ...], Any]
  summary: str
  record: dict


def no_pretraining() -> PretrainedInit:
  """For a run that starts from random values or resumes."""
  return PretrainedInit({}, '', {})


def pretraining_subjects(
  folder: pathlib.Path, source: transfer.PretrainedConfig | None = None, train: str = ''
) -> tuple[list[str], list[str]]:
  """The subjects that a run's initial weights were trained on; reads no weights.

  Args:
    folder: the run's workdir; once the run has started it holds their names.
    source: the config's pretrained source; None reads the workdir alone.
    train: the run's own training selection.

  Returns:
    (subjects, notes for every result). If the source was trained on the same selection, as in a
    second stage, its subjects are the run's own, which are checked as such, and left out here.

  Raises:
    StateError: the source is not the workdir of a run, or its files are damaged.
  """
  if record := workdir.read_pretraining(folder):
    return record['subjects'], [record['note']] if record.get('note') else []
  if source is None or source.architecture != transfer.OWN_RUN:
    return [], []
  source_folder = remote_workdir.fetch_run(source.weights)
  config = workdir.read_config(source_folder)
  if config is None:
    raise StateError(
      f'config.pretrained.weights = {source.weights} is not the workdir of a run (it has no '
      'config.json); train it first, or give the architecture of a weight file'
    )
  record = workdir.read_pretraining(source_folder)
  names, notes = set(record.get('subjects', ())), [record['note']] if record.get('note') else []
  if config.get('train') != train:
    vocabulary = subjects.read(source_folder)
    if vocabulary:
      names.update(vocabulary.subjects)
    else:
      notes.append(
        f'not verified that no test subject was in the training data of {source.weights}: it has '
        f'no {subjects.FILE}'
      )
  return sorted(names), notes


def load(experiment: setup.Experiment, folder: pathlib.Path) -> PretrainedInit:
  """Reads the best checkpoint of the pretrained source and matches it to the model.

  Args:
    experiment: whose `pretrained` names the source.
    folder: the run's own workdir.

  Raises:
    StateError: no workdir or checkpoint, a damaged one, or weights of another hash or architecture;
      the message names the first tensors that do not fit.
  """
  source = experiment.pretrained
  names, notes = pretraining_subjects(folder, source, experiment.config.train)
  source_folder = remote_workdir.fetch_run(source.weights)
  metric = get_task(workdir.read_config(source_folder)).metric
  checkpoints = Checkpoints(workdir.checkpoints(source_folder), metric, read_only=True)
  step = checkpoints.best()
  if step is None:
    raise StateError(f'{source.weights} holds no checkpoint; train it first')
  checkpoints.verify(step)
  place = sharding.replicated(experiment.mesh)
  variables = frozen.restore_variables(checkpoints, step, place)
  digest = digests.hash_weights(variables)
  if source.sha256 not in (None, digest):
    raise StateError(
      f'the weights of {source.weights}, step {step}, have the hash {digest}, but '
      f'config.pretrained.sha256 is {source.sha256}'
    )
  matched = frozen.match_run(source, setup.model_variables(experiment.abstract), variables)
  record = {
    'weights': str(source.weights),
    'step': step,
    'weights_hash': digest,
    'into': source.into,
    'subjects': names,
  }
  if notes:
    record['note'] = '; '.join(notes)
  return PretrainedInit(
    arrays={path: distributed.gather_to_host(array) for path, array in matched.arrays.items()},
    summary=f'{transfer.describe(source, matched)}; step {step}',
    record=record,
  )
