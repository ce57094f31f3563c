"""Face verification of people who were not trained on: val while a run trains, then the tests.

What `testing.py` is for attacks: the same functions, by pairs of pictures
(`evaluation/face_verification.py`).
"""

import functools
import json
import pathlib
from collections.abc import Callable

import numpy as np

from flexfas_jax.errors import DataError
from flexfas_jax.evaluation import face_verification as pairing
from flexfas_jax.evaluation import results
from flexfas_jax.files import write_text
from flexfas_jax.input_pipeline import sources
from flexfas_jax.progress import Progress
from flexfas_jax.training import datasets, distributed, scoring, setup, sharding
from flexfas_jax.training.tasks import anti_spoofing

BEST = 'eer'  # of val's pairs: chooses the checkpoint that is evaluated


def make_scorer(experiment: setup.Experiment, output: str = 'embedding'):
  """`read(variables, batches, progress) -> [N, D]`, see `scoring.make_output_reader`."""
  return scoring.make_output_reader(
    experiment.model,
    output,
    functools.partial(sharding.place_batch, mesh=experiment.mesh),
    sharding.replicated(experiment.mesh),
  )


def pairs_of(experiment: setup.Experiment, source: sources.Source, name: str) -> pairing.Pairs:
  """The pairs of a set, the same whenever they are asked for.

  Raises:
    DataError: it has none.
  """
  columns = source.columns
  try:
    return pairing.draw(
      columns['subject'], columns['video'], experiment.config.get('pairs', 20_000)
    )
  except DataError as error:
    raise DataError(f'{name}, {", ".join(source.names)}: {error}') from None


def check(experiment: setup.Experiment, data: datasets.Data) -> None:
  """Raises a DataError if val or a test has no pairs; before the first step, not after the last."""
  for name, source in {'val': data.val, **data.test}.items():
    if source:
      pairs_of(experiment, source, name)


def val_metrics(
  experiment: setup.Experiment,
  scorer,
  variables,
  source: sources.Source,
  interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
  """Of val's pairs; None if it was interrupted."""
  embedding = anti_spoofing.run_interruptibly(scorer, variables, experiment, source, interrupted)
  if embedding is None:
    return None
  pairs = pairs_of(experiment, source, 'val')
  found = pairing.figures(pairs, pairing.cosines(embedding, pairs), source.columns['subject'])
  return {f'val/{name}': value for name, value in found.items() if not name.startswith('n_')}


def evaluate(
  experiment: setup.Experiment, folder: pathlib.Path, data: datasets.Data, scorer
) -> None:
  """Pairs' scores, a table and results.json of the best step."""
  step, variables, header = anti_spoofing.restore_best(experiment, folder, BEST, data.notes)
  found = {}
  for name, source in {'val': data.val, **data.test}.items():
    embedding = read(experiment, scorer, variables, name, source)
    pairs = pairs_of(experiment, source, name)
    score = pairing.cosines(embedding, pairs)
    subject = source.columns['subject']
    found[name] = pairing.figures(pairs, score, subject)
    if distributed.is_first():
      (folder / 'scores').mkdir(exist_ok=True)
      file = folder / 'scores' / f'{name}_pairs.csv'
      pairing.write(file, pairs, score, source.columns['id'], subject, header)
  if distributed.is_first():
    title = f'Verification of people who were not trained on, step {step}'
    finish(folder, data, found, pairing.text(found, title))


def read(
  experiment: setup.Experiment, scorer, variables, name: str, source: sources.Source
) -> np.ndarray:
  """A set's outputs, with progress shown: [N, D]."""
  silent = not distributed.is_first()
  with Progress(f'score {name}', len(source), silent=silent) as progress:
    return scorer(variables, anti_spoofing.batches_of(experiment, source), progress.update)


def finish(folder: pathlib.Path, data: datasets.Data, found: dict, table: str) -> None:
  """Writes results.json of val and tests, and says what came out and what was written."""
  for line in (table, *data.notes):
    print(line + '\n')
  told = json.dumps(results.json_safe(found), indent=2)
  write_text(folder / 'results.json', told + '\n')
  print(f'Written: {folder}/results.json, {folder}/scores/')
