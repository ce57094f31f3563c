"""Face anti-spoofing: scores of bona fide, thresholds from validation, PAD metrics by subset."""

import functools
import json
import math
import pathlib
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flexfas_jax.errors import FlexfasError, StateError
from flexfas_jax.evaluation import (
  aggregation,
  evidence,
  oracle,
  results,
  score_files,
  sufficiency,
  thresholds,
  trained_runs,
)
from flexfas_jax.evaluation import evaluate as evaluate_scores
from flexfas_jax.evaluation.ensemble import views as score_views
from flexfas_jax.evaluation.report import formatting, record, tables, test_description
from flexfas_jax.files import write_text
from flexfas_jax.input_pipeline import sources
from flexfas_jax.training import datasets, distributed, scoring, setup, sharding, workdir
from flexfas_jax.training.tasks import dataset_scoring


class AntiSpoofing:
  """Attack or bona fide, under every subset of the modalities; see `base.Task`."""

  metric = 'eer'  # mean over the subsets

  def make_scorer(self, experiment: setup.Experiment) -> Callable:
    """`scorer(variables, batches, ...)`, see `scoring.make_scorer`."""
    return scoring.make_scorer(
      experiment.model,
      experiment.subsets,
      functools.partial(sharding.place_batch, mesh=experiment.mesh),
      sharding.replicated(experiment.mesh),
      tuple(experiment.views),
    )

  def check(self, experiment: setup.Experiment, data: datasets.Data) -> None:
    """Reads what the report is to state; `datasets.open_all` and `setup.build` check the rest."""
    if path := experiment.config.get('test_toml', ''):
      try:
        test_description.read(pathlib.Path(path))
      except FlexfasError as error:
        raise type(error)(
          f'config.test_toml: {error}; give the path of the file by --config.test_toml=PATH, or '
          '--config.test_toml= for none'
        ) from None

  def val_metrics(
    self, experiment, scorer, variables, source, interrupted=lambda: False
  ) -> dict[str, float] | None:
    """EER and AUC, which need no threshold: means over the subsets, and EER by subset."""
    scores = dataset_scoring.run_interruptibly(scorer, variables, experiment, source, interrupted)
    if scores is None:
      return None
    by_subset = results.compute(scores, 'fixed=0.5')
    means = {}
    for metric in (self.metric, 'auc'):
      # The mean skips subsets that no validation sample has.
      values = [m[metric] for m in by_subset.values() if not math.isnan(m[metric])]
      means[f'val/{metric}'] = float(np.mean(values)) if values else math.nan
    return means | {f'val/{self.metric}/{s}': m[self.metric] for s, m in by_subset.items()}

  def oracle_metrics(
    self, experiment, scorer, variables, name: str, source, interrupted=lambda: False
  ) -> dict[str, float] | None:
    """ORACLE figures of a test at a step of the training, see `oracle.py`."""
    scores = dataset_scoring.run_interruptibly(scorer, variables, experiment, source, interrupted)
    return None if scores is None else oracle.metrics(name, scores)

  def evaluate(
    self,
    experiment: setup.Experiment,
    folder: pathlib.Path,
    data: datasets.Data,
    scorer: Callable,
  ) -> None:
    """Writes score files, results.json and report; prints the benchmark's tables."""
    step, variables, header = dataset_scoring.restore_best(
      experiment, folder, self.metric, data.notes
    )
    score = functools.partial(scorer, variables)
    scores, notes = {}, []
    for name, source in {'val': data.val, **data.test}.items():
      scores[name], image_notes = dataset_scoring.score_dataset(
        experiment, score, name, source, header
      )
      notes += image_notes
    write_evaluation(experiment, folder, data, step, scores, notes)


def write_evaluation(
  experiment: setup.Experiment,
  folder: pathlib.Path,
  data: datasets.Data,
  step: int,
  scores: Mapping[str, score_files.Scores],
  notes: Sequence[str] = (),
) -> None:
  """Writes score files, thresholds from validation, tables, results.json and report.

  Args:
    experiment, folder, data: of the run.
    step: of the checkpoint.
    scores: {'val' or a test's name: scores under every subset and view}.
    notes: on the images.

  Raises:
    StateError: some scores are not finite; everything is written first.
  """
  if distributed.is_first():
    for line in notes:
      print(line, file=sys.stderr)
    _write_scores(experiment, folder, scores)
    _write_results(experiment, folder, data, step, tuple(scores))
  for name, set_scores in scores.items():
    for subset, samples in set_scores.nan_samples.items():
      raise StateError(
        f'{name}: {subset} is nan for {samples.size} samples (the first is id '
        f'{set_scores.ids[samples[0]]}), counted as failures to acquire: the model of step {step} '
        'computed it. Inspect those samples, or evaluate another step'
      )


def _write_scores(experiment, folder: pathlib.Path, scores: Mapping) -> None:
  """Writes a score file for each set: the mean over the views, and one with each view."""
  several_views = len(experiment.views) > 1
  by_view = folder / 'scores' / 'views'
  shutil.rmtree(by_view, ignore_errors=True)  # from an earlier evaluation
  (by_view if several_views else folder / 'scores').mkdir(exist_ok=True, parents=True)
  for name, set_scores in scores.items():
    score_files.write(folder / 'scores' / f'{name}.csv', score_views.average_views(set_scores))
    if several_views:
      score_files.write(by_view / f'{name}.csv', set_scores)


def _write_results(
  experiment, folder: pathlib.Path, data: datasets.Data, step: int, names: Sequence[str]
) -> None:
  """Evaluates the score files that were just written, so that anyone can reproduce the results."""
  scores = {name: score_files.read(folder / 'scores' / f'{name}.csv') for name in names}
  val, report = scores['val'], experiment.config.get('report', True)
  requirement = experiment.config.get('pass_if', '')  # configs of earlier versions lack it
  for note in results.notes(results.compute(val, 'fixed=0.5')):
    print(f'val, {note}', file=sys.stderr)
  fits_threshold = {
    name: thresholds.needs_dev(experiment.config.threshold[name]) for name in data.test
  }
  val_notes = evidence.notes(val) if any(fits_threshold.values()) else []
  for note in val_notes:
    print(note, file=sys.stderr)
  metrics, evaluations = {}, []
  for name in data.test:
    rule = experiment.config.threshold[name]
    if report or requirement:  # a verdict needs intervals
      notes = [*data.notes, *(val_notes if fits_threshold[name] else ())]
      evaluation = evaluate_scores.evaluate(
        name,
        scores[name],
        rule,
        val,
        group_by=_groups(scores[name]),
        notes=notes,
        requirement=requirement,
      )
      evaluations.append(evaluation)
      for i, line in enumerate(formatting.verdict_lines(evaluation)):
        print(line if i else f'{name}: {line}')
      metrics[name] = evaluate_scores.to_json(evaluation)
    else:
      metrics[name] = results.compute(scores[name], rule, val)
    described = f'{experiment.config.test[name]}, step {step}, threshold {rule}'
    _print_table(experiment, f'{name}: {described}', scores[name], metrics[name])
    if experiment.by_video:
      videos, val_videos = map(aggregation.aggregate_by_video, (scores[name], val))
      by_video = results.compute(videos, rule, val_videos)
      _print_table(experiment, f'{name}, by video: {described}', videos, by_video)
      for subset, values in by_video.items():
        metrics[name][subset]['by_video'] = values
    for note in results.notes(metrics[name]):
      print(note, file=sys.stderr)
  oracle.add(metrics, trained_runs.metric_rows(folder))
  for note in [*data.notes, *oracle.notes(metrics)]:
    print(note + '\n')
  if experiment.model.requires:
    required = '+'.join(experiment.model.requires)
    print(f'Subsets without {required} are not served: the fusion requires it.\n')
  write_text(folder / 'results.json', json.dumps(results.json_safe(metrics), indent=2) + '\n')
  target = workdir.origin(folder)
  written = [f'{target}/results.json', f'{target}/scores/']
  if report:
    from flexfas_jax.evaluation.report import page  # matplotlib: imported only for a report

    title = f'{folder.name}, step {step}'
    find_images = _image_finder(data.test, experiment.model.modalities)
    # The data sets' licences decide what may be shown of real subjects: no sample of each species.
    show_species = all(one.rendered for one in evaluations)
    described = _description(experiment.config, evaluations)
    page.write(
      folder / 'report.html',
      evaluations,
      title,
      find_images,
      show_species=show_species,
      description=described,
    )
    contents = json.dumps(record.build(evaluations, title, described), indent=1) + '\n'
    write_text(folder / 'report.json', contents)
    written = [f'{target}/report.html', f'{target}/report.json', *written]
  print(f'Written: {", ".join(written)}')


def _description(
  config, evaluations: Sequence[evaluate_scores.EvaluationResult]
) -> dict[str, dict[str, Any]] | None:
  """What `config.test_toml` states. A fault is a note: the training is done, the tests scored."""
  path = config.get('test_toml', '')
  if not path:
    return None
  try:
    found = test_description.read(pathlib.Path(path))
  except FlexfasError as error:  # it was readable when the run started
    print(f'{error}; the report states nothing of it: correct it, and evaluate the run again\n')
    return None
  known = {name for one in evaluations for name in record.species_names(one.scores)}
  if unknown := sorted({*found.get('species', ())} - known):
    listed = ', '.join(sorted(known)) or 'none'
    print(f'{path}: no test has the species {", ".join(unknown)}; they have: {listed}\n')
  return found


def _print_table(
  experiment, title: str, scores: score_files.Scores, found: results.Results
) -> None:
  """Prints the benchmark's table of a test."""
  insufficient = sufficiency.insufficient_metrics(scores, found)
  print(tables.text(found, title, experiment.metrics, insufficient) + '\n')


def _groups(scores: score_files.Scores) -> list[str]:
  """The columns by which rates are reported: ethnicity, if there are several."""
  return ['ethnicity'] if len(set(scores.ethnicity.tolist()) - {''}) > 1 else []


def _image_finder(tests: Mapping[str, sources.Source], modalities: Sequence[str]) -> Callable:
  """(test, ids) -> {id: {modality: encoded bytes}}, for the report's worst errors."""

  def find(test: str, ids) -> dict[str, dict[str, bytes]]:
    index = {id_: i for i, id_ in enumerate(tests[test].columns['id'])}
    examples = {id_: tests[test][index[id_]] for id_ in ids if id_ in index}
    return {
      id_: {m: example[m] for m in modalities if example[m]} for id_, example in examples.items()
    }

  return find
