"""Scoring val while a run trains, and the test sets with its best step: files, tables, results."""

import dataclasses
import functools
import json
import math
import pathlib
import shutil
import sys
from collections.abc import Callable

import numpy as np

import flexfas_jax
from flexfas_jax.errors import StateError
from flexfas_jax.evaluation import evaluate as evaluate_scores
from flexfas_jax.evaluation import evidence, results, score_files, sufficiency, thresholds, unusable
from flexfas_jax.evaluation.ensemble import views as looks
from flexfas_jax.evaluation.report import tables
from flexfas_jax.files import write_text
from flexfas_jax.input_pipeline import pipeline, sources
from flexfas_jax.progress import Progress
from flexfas_jax.training import datasets, digests, distributed, scoring, setup, sharding, workdir
from flexfas_jax.training.checkpoints import Checkpoints

BEST = 'eer'  # of val, the mean over the subsets: chooses the checkpoint that is evaluated


class _Interrupted(Exception):
  """Scoring was stopped: the machine is wanted back."""


def make_scorer(experiment: setup.Experiment):
  """`score(variables, batches, ...)`, see `scoring.make_scorer`."""
  return scoring.make_scorer(
    experiment.model,
    experiment.subsets,
    functools.partial(sharding.place_batch, mesh=experiment.mesh),
    sharding.replicated(experiment.mesh),
    tuple(experiment.views),
  )


def val_metrics(
  experiment: setup.Experiment,
  scorer,
  variables,
  source: sources.Source,
  interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
  """Mean and by subset; EER and AUC know no threshold. None if it was interrupted."""
  scores = run_interruptibly(scorer, variables, experiment, source, interrupted)
  if scores is None:
    return None
  found = results.results(scores, 'fixed=0.5')
  # A subset of which val has nothing is undefined, and says nothing of the others.
  known = {m: [r[m] for r in found.values() if not math.isnan(r[m])] for m in (BEST, 'auc')}
  means = {f'val/{m}': float(np.mean(v)) if v else math.nan for m, v in known.items()}
  return means | {f'val/{BEST}/{subset}': r[BEST] for subset, r in found.items()}


def run_interruptibly(
  scorer, variables, experiment: setup.Experiment, source: sources.Source, interrupted: Callable
):
  """What a scorer says of a set, or None: `interrupted()` is asked after every batch."""

  def look(_) -> None:
    if interrupted():
      raise _Interrupted

  try:
    return scorer(variables, batches_of(experiment, source), progress=look)
  except _Interrupted:
    return None


def check(experiment: setup.Experiment, data: datasets.Data) -> None:
  """Nothing is left to find: thresholds and classes are looked at where they are read."""
  del experiment, data


def evaluate(
  experiment: setup.Experiment, folder: pathlib.Path, data: datasets.Data, scorer
) -> None:
  """Scores, score files, thresholds from val, tables, results.json, report of the best step."""
  step, variables, header = restore_best(experiment, folder, BEST, data.notes)
  scored, remarks, score = {}, [], functools.partial(scorer, variables)
  for name, source in {'val': data.val, **data.test}.items():
    scored[name], told = score_dataset(experiment, score, name, source, header)
    remarks += told
  finish(experiment, folder, data, step, scored, remarks)


def finish(
  experiment, folder: pathlib.Path, data: datasets.Data, step: int, scored, remarks=()
) -> None:
  """Score files, thresholds from val, tables, results.json and report of what has been scored.

  Args:
    job, folder, data: of the run.
    step: that was scored.
    scored: {'val' or a test's name: scores of each view}.
    remarks: about pictures.

  Raises:
    StateError: some scores are not finite; all is written first.
  """
  if distributed.is_first():
    for line in remarks:
      print(line, file=sys.stderr)
    _write(experiment, folder, data, step, scored)
  for name, scores in scored.items():  # the figures stand, and yet nobody may take them for sound
    for subset, samples in scores.nan_samples.items():
      raise StateError(
        f'{name}: {subset} is nan for {samples.size} samples (the first is id '
        f'{scores.ids[samples[0]]}), counted as failures to acquire: the model of step {step} '
        'computed it; look at those samples, or evaluate another step'
      )


def restore_best(
  experiment: setup.Experiment, folder: pathlib.Path, metric: str, remarks: list[str]
):
  """(the step that was best on val, its variables, the header of what is written of it).

  Args:
    job: whose model it is.
    folder: the workdir.
    metric: by which checkpoints are compared; lower is better.
    remarks: what every figure is told with.

  Raises:
    StateError: there is no checkpoint, or it is damaged or of another model.
  """
  checkpoints = Checkpoints(folder / 'checkpoints', metric, read_only=True)
  step = checkpoints.best()
  if step is None:
    raise StateError(f'{folder} holds no checkpoint; run with --mode=train first')
  checkpoints.verify(step)
  variables = setup.variables_of(checkpoints.restore(step, experiment.abstract))
  header = {
    'step': step,
    'trained_steps': checkpoints.latest(),  # an ensemble takes no member that is half trained
    'weights_hash': digests.of_weights(variables),
    'config': json.loads(json.dumps(experiment.config.to_dict())),
    'version': flexfas_jax.__version__,
  }
  if member := setup.member_of(experiment.config):
    header['member'] = member
  if len(experiment.views) > 1:
    header['views'] = list(experiment.views)
  if started := workdir.pretraining(folder):
    header['pretraining'] = {name: value for name, value in started.items() if name != 'people'}
  return step, variables, header | ({'remarks': remarks} if remarks else {})


def score_dataset(
  experiment: setup.Experiment, score: Callable, name: str, source: sources.Source, about
):
  """(a set's scores, notes on its images); the scores name the modalities that carry no signal.

  Args:
    job: whose model it is.
    score: `(batches, about, progress)` -> scores, or those of several members.
    name, source: of the set.
    about: a header, or a member's each.
  """
  B, modalities = experiment.config.eval_batch_size, experiment.model.modalities
  rows = sharding.rows(experiment.mesh, B)
  found = np.zeros((-(-len(source) // B) * B, len(modalities)), int)  # 1: given, without signal

  def looked_at(batches):
    for i, (arrays, metas) in enumerate(batches):
      found[i * B + rows] = arrays['unusable']
      yield arrays, metas

  silent = not distributed.is_first()
  with Progress(f'score {name}', len(source), silent=silent) as progress:
    every = dataclasses.replace(experiment.preprocess, test_views=tuple(experiment.views.values()))
    scores = score(looked_at(batches_of(experiment, source, every)), about, progress.update)
  one = scores[0] if isinstance(scores, list) else scores
  if one.ids.tolist() != list(source.columns['id']):
    raise AssertionError(f'{name}: not every sample was scored once')  # a defect of ours
  found = (
    distributed.sum_over_processes(found)[: len(source)] > 0
  )  # a row may be held by several processes
  scores = (
    [unusable.named(of_member, modalities, found) for of_member in scores]
    if isinstance(scores, list)
    else unusable.named(scores, modalities, found)
  )
  return scores, [
    f'{name}: {n} images of {modality} carry no signal; treated as absent'
    for modality, n in zip(modalities, found.sum(0), strict=True)
    if n
  ]


def _write(experiment, folder, data, step, scored) -> None:
  report = experiment.config.get('report', True)
  by_view = folder / 'scores' / 'views'
  shutil.rmtree(by_view, ignore_errors=True)  # of another evaluation
  (by_view if len(experiment.views) > 1 else folder / 'scores').mkdir(exist_ok=True, parents=True)
  for name, scores in scored.items():
    score_files.write(folder / 'scores' / f'{name}.csv', looks.mean(scores))
    if len(experiment.views) > 1:
      score_files.write(by_view / f'{name}.csv', scores)
  # What is judged is what was written, as anybody can do again.
  scored = {name: score_files.read(folder / 'scores' / f'{name}.csv') for name in scored}
  for remark in results.remarks(results.results(scored['val'], 'fixed=0.5')):
    print(f'val, {remark}', file=sys.stderr)
  fitted = any(thresholds.needs_dev(experiment.config.threshold[name]) for name in data.test)
  few = evidence.notes(scored['val']) if fitted else []
  for note in few:
    print(note, file=sys.stderr)
  found, judged = {}, []
  for name in data.test:
    rule = experiment.config.threshold[name]
    of_test = scored[name], rule, scored['val']
    if report:
      told = [*data.notes, *(few if thresholds.needs_dev(rule) else ())]
      one = evaluate_scores.judge(name, *of_test, group_by=_groups(scored[name]), remarks=told)
      judged.append(one)
      found[name] = evaluate_scores.as_json(one)
    else:
      found[name] = results.results(*of_test)
    title = f'{name}: {experiment.config.test[name]}, step {step}, threshold {rule}'
    few = sufficiency.insufficient(scored[name], found[name])
    print(tables.text(found[name], title, experiment.metrics, few) + '\n')
    for remark in results.remarks(found[name]):
      print(remark, file=sys.stderr)
  for line in data.notes:
    print(line + '\n')
  if experiment.model.requires:
    required = '+'.join(experiment.model.requires)
    print(f'Subsets without {required} are not served: the fusion requires it.\n')
  write_text(folder / 'results.json', json.dumps(results.json_safe(found), indent=2) + '\n')
  written = [f'{folder}/results.json', f'{folder}/scores/']
  if report:
    from flexfas_jax.evaluation.report import page  # matplotlib: only who wants it pays

    title = f'{folder.name}, step {step}'
    page.write(
      folder / 'report.html', judged, title, _pictures(data.test, experiment.model.modalities)
    )
    written.insert(0, f'{folder}/report.html')
  print(f'Written: {", ".join(written)}')


def _groups(scores: score_files.Scores) -> list[str]:
  """The columns that rates are told by: ethnicity, where there are several."""
  return ['ethnicity'] if len(set(scores.ethnicity.tolist()) - {''}) > 1 else []


def _pictures(tests: dict[str, sources.Source], modalities) -> Callable:
  """(test, ids) -> {id: {modality: encoded bytes}}, for the report's worst mistakes."""

  def find(test: str, ids) -> dict[str, dict[str, bytes]]:
    place = {id_: i for i, id_ in enumerate(tests[test].columns['id'])}
    examples = {id_: tests[test][place[id_]] for id_ in ids if id_ in place}
    return {
      id_: {m: example[m] for m in modalities if example[m]} for id_, example in examples.items()
    }

  return find


def batches_of(experiment: setup.Experiment, source: sources.Source, preprocess=None):
  """A set's batches for scoring, as `pipeline.eval_batches` gives them; by the first view alone,
  unless another `preprocess` says more."""
  B = experiment.config.eval_batch_size
  return pipeline.eval_batches(
    source, preprocess or experiment.preprocess, B, sharding.rows(experiment.mesh, B)
  )
