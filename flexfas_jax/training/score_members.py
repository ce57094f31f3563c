"""Scores the test sets of several trained runs at once, e.g. the members of an ensemble.

Runs of one architecture are stacked into one program, so that each image is read, decoded and sent
to the devices once. Every run is left with what its own evaluation would write: score files,
results.json, report.
"""

import contextlib
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from flexfas_jax import bucket
from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.evaluation import score_files
from flexfas_jax.input_pipeline import sources
from flexfas_jax.training import (
  datasets,
  distributed,
  init_from_run,
  memory,
  remote_workdir,
  run_config,
  scoring,
  setup,
  sharding,
  workdir,
)
from flexfas_jax.training.tasks import AntiSpoofing, anti_spoofing, dataset_scoring


class TrainedRun(NamedTuple):
  """A trained run.

  Attributes:
    folder: its workdir.
    experiment, data: of its config.
    step, variables, header: of its best checkpoint, see `dataset_scoring.restore_best`.
  """

  folder: pathlib.Path
  experiment: setup.Experiment
  data: datasets.Data
  step: int
  variables: Any
  header: Mapping


class _Scored(NamedTuple):
  """The scores of a member's sets, by name, and notes on their images."""

  scores: dict[str, score_files.Scores]
  notes: list[str]


def evaluate(
  folders: Sequence[str | pathlib.Path], changes: Mapping[str, Any] | None = None
) -> None:
  """Scores validation and test sets of runs and writes their results.

  Args:
    folders: workdirs, each with its own config.
    changes: {field of the configs: value}, for 'data_dir', 'eval_batch_size', 'views',
      'report', 'test_toml'.

  Raises:
    ConfigError: a folder is given twice.
    StateError: a folder holds no run, a run on identities, or an unfinished one; no checkpoint, or
      a damaged one.
    DataError: the data is missing, damaged or leaks.
  """
  names = [
    f.rstrip('/') if bucket.is_remote(f) else str(pathlib.Path(f).resolve()) for f in folders
  ]
  if duplicates := [name for name in names if names.count(name) > 1]:
    raise ConfigError(f'{duplicates[0]} is given twice')
  data_dir = (changes or {}).get('data_dir', '')
  with contextlib.ExitStack() as opened:
    _evaluate(
      [
        opened.enter_context(remote_workdir.open_workdir(str(folder), data_dir)).folder
        for folder in folders
      ],
      changes or {},
    )


def _evaluate(folders: Sequence[pathlib.Path], changes: Mapping[str, Any]) -> None:
  members = [_open(folder, changes) for folder in folders]
  groups: dict[str, list[TrainedRun]] = {}
  for member in members:
    groups.setdefault(_architecture(member.experiment), []).append(member)
  for group in groups.values():
    with memory.explain_exhaustion(group[0].experiment.config):
      scores = _score(group)
    for member, scored in zip(group, scores, strict=True):
      if distributed.is_first():
        print(f'{workdir.origin(member.folder)}:')
      anti_spoofing.write_evaluation(
        member.experiment, member.folder, member.data, member.step, scored.scores, scored.notes
      )


def _open(folder: pathlib.Path, changes: Mapping[str, Any]) -> TrainedRun:
  """Opens the data and the best checkpoint of a run."""
  config = run_config.get_config(str(folder))
  if config.get('task', 'attacks') != 'attacks':
    raise StateError(f'{folder} is a run on {config.task}; members must detect attacks')
  config.update(changes)
  experiment = setup.build(config)
  pretraining, notes = init_from_run.pretraining_subjects(folder)
  data = datasets.open_all(experiment.config, train=False, pretraining=pretraining)
  data.notes.extend(notes)
  step, variables, header = dataset_scoring.restore_best(
    experiment, folder, AntiSpoofing.metric, data.notes
  )
  if header['trained_steps'] < experiment.config.steps:
    raise StateError(
      f'{folder} is trained for {header["trained_steps"]} of {experiment.config.steps} steps; '
      'finish its training first, or leave it out'
    )
  return TrainedRun(folder, experiment, data, step, variables, header)


def _architecture(experiment: setup.Experiment) -> str:
  """What runs must share to be one program: model, subsets, views, resizing, batch size."""
  fields = experiment.config.model.to_dict()
  fields['head'] = {k: v for k, v in fields['head'].items() if k != 'dropout'}  # training only
  others = [
    experiment.subsets,
    list(experiment.views),
    experiment.preprocess.resize,
    experiment.config.eval_batch_size,
  ]
  return json.dumps([fields, others], sort_keys=True)


def _score(members: Sequence[TrainedRun]) -> list[_Scored]:
  """Scores all sets of members of one architecture."""
  experiment = members[0].experiment
  everywhere = sharding.replicated(experiment.mesh)
  scorer = scoring.make_stacked_scorer(
    experiment.model,
    experiment.subsets,
    functools.partial(sharding.place_batch, mesh=experiment.mesh),
    everywhere,
    tuple(experiment.views),
  )
  scored = [_Scored({}, []) for _ in members]
  for source, uses in _sets(members):
    indices = sorted({i for i, _ in uses})
    names = ', '.join(sorted({name for _, name in uses}))
    variables = jax.device_put(_stack([members[i].variables for i in indices]), everywhere)
    scores, notes = dataset_scoring.score_dataset(
      experiment,
      functools.partial(scorer, variables),
      f'{names}, {len(indices)} runs',
      source,
      [members[i].header for i in indices],
    )
    by_index = dict(zip(indices, scores, strict=True))
    for i, name in uses:
      scored[i].scores[name] = by_index[i]
      scored[i].notes.extend(notes)
  return scored


def _stack(variables: Sequence) -> Any:
  """Stacks every leaf along a new leading axis."""
  return jax.tree.map(
    lambda *leaves: np.stack([distributed.gather_to_host(leaf) for leaf in leaves]), *variables
  )


def _sets(members: Sequence[TrainedRun]) -> list[tuple[sources.Source, list[tuple[int, str]]]]:
  """[(data set, [(index of a member, the set's name there)])], each set once.

  The members of different folds share test sets, but not validation sets.
  """
  sets: dict = {}
  for i, member in enumerate(members):
    for name, source in {'val': member.data.val, **member.data.test}.items():
      key = source.names, member.experiment.config.data_dir
      sets.setdefault(key, (source, []))[1].append((i, name))
  return list(sets.values())
