"""Tests scored again by several trained runs at once: the members of an ensemble as one program.

Members of one architecture have the same shapes: their weights are stacked, and a picture is read,
decoded and sent to the devices once for all. What each has to show for it is what an evaluation of
its own leaves: score files, results.json, report.
"""

import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.input_pipeline import sources
from flexfas_jax.training import (
  datasets,
  distributed,
  init_from_run,
  run_config,
  scoring,
  setup,
  sharding,
)
from flexfas_jax.training.tasks import anti_spoofing


class Run(NamedTuple):
  """A member: a run that has been trained."""

  folder: pathlib.Path
  experiment: setup.Experiment
  data: datasets.Data
  step: int
  variables: Any
  header: Mapping


def evaluate(folders: Sequence[str | pathlib.Path], changes: Mapping[str, Any] | None = None):
  """Scores val and tests of runs and writes their results; those of one architecture together.

  Args:
    folders: workdirs, each with its own config.
    changes: {field of the configs: value}: of 'data_dir', 'eval_batch_size', 'views', 'report'.

  Raises:
    ConfigError: a folder that is given twice.
    StateError: a folder holds no run, or one of identities; no checkpoint, or a damaged one; a run
      that is half trained.
    DataError: the data is not what it should be.
  """
  folders = list(map(pathlib.Path, folders))
  whole = [folder.resolve() for folder in folders]
  if twice := [f for f in whole if whole.count(f) > 1]:
    raise ConfigError(f'{twice[0]} is given twice')
  runs = [_open(folder, changes or {}) for folder in folders]
  groups = {}
  for run in runs:
    groups.setdefault(_architecture(run.experiment), []).append(run)
  for group in groups.values():
    scored = _score(group)
    for run, (of_sets, remarks) in zip(group, scored, strict=True):
      if distributed.is_first():
        print(f'{run.folder}:')
      anti_spoofing.finish(run.experiment, run.folder, run.data, run.step, of_sets, remarks)


def _open(folder: pathlib.Path, changes: Mapping[str, Any]) -> Run:
  config = run_config.get_config(str(folder))
  if config.get('task', 'attacks') != 'attacks':
    raise StateError(f'{folder} tells identities apart; members are of attacks')
  config.update(changes)
  experiment = setup.build(config)
  people, remark = init_from_run.pretraining_subjects(folder, None)
  data = datasets.open_all(experiment.config, train=False, pretraining=people)
  data.notes.extend([remark] if remark else [])
  step, variables, header = anti_spoofing.restore_best(
    experiment, folder, anti_spoofing.BEST, data.notes
  )
  if header['trained_steps'] < experiment.config.steps:
    raise StateError(
      f'{folder} is trained for {header["trained_steps"]} of {experiment.config.steps} steps; '
      'train it to its end first, or leave it out'
    )
  return Run(folder, experiment, data, step, variables, header)


def _architecture(experiment: setup.Experiment) -> str:
  """What must agree for runs to be one program: model, subsets, views, resizing, batch."""
  fields = experiment.config.model.to_dict()
  fields['head'] = {k: v for k, v in fields['head'].items() if k != 'dropout'}  # of training alone
  rest = [
    experiment.subsets,
    list(experiment.views),
    experiment.preprocess.resize,
    experiment.config.eval_batch_size,
  ]
  return json.dumps([fields, rest], sort_keys=True)


def _score(runs: Sequence[Run]) -> list[tuple[dict, list[str]]]:
  """[({'val' or a test's name: scores}, remarks)] of each run, all of one architecture."""
  experiment = runs[0].experiment
  everywhere = sharding.replicated(experiment.mesh)
  scorer = scoring.make_stacked_scorer(
    experiment.model,
    experiment.subsets,
    functools.partial(sharding.place_batch, mesh=experiment.mesh),
    everywhere,
    tuple(experiment.views),
  )
  found = [({}, []) for _ in runs]
  for source, wanted in _sets(runs):
    members = sorted({i for i, _ in wanted})
    names = ', '.join(sorted({name for _, name in wanted}))
    variables = jax.device_put(_stack([runs[i].variables for i in members]), everywhere)
    score = functools.partial(scorer, variables)
    scores, told = anti_spoofing.score_dataset(
      experiment, score, f'{names}, {len(members)} runs', source, [runs[i].header for i in members]
    )
    of = dict(zip(members, scores, strict=True))
    for i, name in wanted:
      found[i][0][name] = of[i]
      found[i][1].extend(told)
  return found


def _stack(variables: Sequence) -> Any:
  """Every leaf with K members in front."""
  return jax.tree.map(
    lambda *leaves: np.stack(list(map(distributed.gather_to_host, leaves))), *variables
  )


def _sets(runs: Sequence[Run]) -> list[tuple[sources.Source, list[tuple[int, str]]]]:
  """[(a set, [(run, what the run calls it)])]: folds share tests, and have a val of their own."""
  found = {}
  for i, run in enumerate(runs):
    for name, source in {'val': run.data.val, **run.data.test}.items():
      key = source.names, run.experiment.config.data_dir
      found.setdefault(key, (source, []))[1].append((i, name))
  return list(found.values())
