"""Weights of a run of ours that another starts from: read, fitted, and told with their people.

`config.pretrained = {'weights': WORKDIR, 'architecture': 'ours', 'sha256': None, 'into': ...}`.
Whom the donor was trained on, and whom its own donor, may be trained on again, not tested on.
"""

import json
import pathlib
from typing import Any, NamedTuple

from flexfas_jax.errors import StateError
from flexfas_jax.models.weights import conversion
from flexfas_jax.training import digests, distributed, setup, sharding, subjects, workdir
from flexfas_jax.training.checkpoints import Checkpoints
from flexfas_jax.training.tasks import base as tasks


class PretrainedInit(NamedTuple):
  """What a run starts from, besides chance."""

  arrays: dict[tuple[str, ...], Any]  # {path in the model: array}
  line: str  # about them
  told: dict  # for `pretraining.json`; {} of weights that are not ours


def nothing() -> PretrainedInit:
  """Where a run starts from chance, or from where it was."""
  return PretrainedInit({}, '', {})


def pretraining_subjects(
  folder: pathlib.Path, source: conversion.Source | None, train: str = ''
) -> tuple[list[str], str]:
  """Who was trained on before a run; reads no weights.

  Args:
    folder: the run's workdir; a run that was begun keeps the names itself.
    source: what the config says that it starts from; None asks the workdir alone.
    train: the run's own selection.

  Returns:
    (names, what to tell of them with every figure or ''). Without those of a donor that was trained
    on the same selection, as in a second stage: they are the run's own, and proven apart as such.

  Raises:
    StateError: the source is no workdir of ours, or its files are damaged.
  """
  if own := workdir.pretraining(folder):
    return own['people'], own.get('remark', '')
  if source is None or source.architecture != conversion.OURS:
    return [], ''
  donor = pathlib.Path(source.weights)
  if not (donor / 'config.json').is_file():
    raise StateError(
      f'config.pretrained.weights = {source.weights} is no workdir of a run of ours (there is no '
      "config.json); train it first, or name the architecture of a file's weights"
    )
  before, known = workdir.pretraining(donor), subjects.read(donor)
  remarks, people = [before.get('remark', '')], set(before.get('people', ()))
  if _config_of(donor).get('train') == train:
    pass
  elif known:
    people.update(known.people)
  else:
    remarks.append(
      f'not proven that nobody is tested on whom {source.weights} was trained on: it holds no '
      f'{subjects.FILE}'
    )
  return sorted(people), '; '.join(filter(None, remarks))


def fetch(experiment: setup.Experiment, folder: pathlib.Path) -> PretrainedInit:
  """Reads the best step of the workdir that a job starts from, and fits it to the job's model.

  Raises:
    StateError: no workdir or checkpoint, a damaged one, weights of another hash or architecture;
      the text names the first tensors that do not fit.
  """
  source = experiment.pretrained
  people, remark = pretraining_subjects(folder, source, experiment.config.train)
  donor = pathlib.Path(source.weights)
  metric = tasks.judging(_config_of(donor)).BEST
  checkpoints = Checkpoints(donor / 'checkpoints', metric, read_only=True)
  step = checkpoints.best()
  if step is None:
    raise StateError(f'{donor} holds no checkpoint; train it first')
  checkpoints.verify(step)
  variables = checkpoints.variables(step, sharding.replicated(experiment.mesh))
  digest = digests.of_weights(variables)
  if source.sha256 not in (None, digest):
    raise StateError(
      f'the weights of {donor}, step {step}, have the hash {digest}, and config.pretrained.sha256 '
      f'is {source.sha256}'
    )
  ours = setup.variables_of(experiment.abstract)
  if source.into == 'all':
    fitted = conversion.fit_all(ours, variables)
  else:
    fitted = conversion.fit(ours, variables, source.into)
  told = {
    'weights': str(source.weights),
    'step': step,
    'weights_hash': digest,
    'into': source.into,
    'people': people,
  }
  arrays = {path: distributed.gather_to_host(array) for path, array in fitted.arrays.items()}
  line = f'{conversion.describe(source, fitted)}; step {step}'
  return PretrainedInit(arrays, line, told | ({'remark': remark} if remark else {}))


def _config_of(donor: pathlib.Path) -> dict:
  file = donor / 'config.json'
  try:
    return dict(json.loads(file.read_text(encoding='utf-8')))
  except (OSError, ValueError, TypeError) as error:
    raise StateError(f'{file} cannot be read ({error})') from error
