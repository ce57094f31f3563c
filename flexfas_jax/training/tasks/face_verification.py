"""Face verification: pairs of images of subjects that were not trained on.

The metrics are those of `evaluation/face_verification.py`.
"""

import functools
import pathlib
from collections.abc import Callable

from flexfas_jax.errors import DataError
from flexfas_jax.evaluation import face_verification as pairing
from flexfas_jax.input_pipeline import sources
from flexfas_jax.training import datasets, distributed, scoring, setup, sharding
from flexfas_jax.training.tasks import dataset_scoring


class FaceVerification:
  """Same or another subject, by the cosine of two embeddings; see `base.Task`."""

  metric = 'eer'

  def make_scorer(self, experiment: setup.Experiment) -> Callable:
    """`scorer(variables, batches, progress) -> embeddings [N, D]`."""
    return make_output_scorer(experiment, 'embedding')

  def check(self, experiment: setup.Experiment, data: datasets.Data) -> None:
    """Raises a DataError if the validation set or a test set has no pairs."""
    for name, source in {'val': data.val, **data.test}.items():
      if source:
        make_pairs(experiment, source, name)

  def val_metrics(
    self, experiment, scorer, variables, source, interrupted=lambda: False
  ) -> dict[str, float] | None:
    """Metrics of the validation pairs."""
    embedding = dataset_scoring.run_interruptibly(
      scorer, variables, experiment, source, interrupted
    )
    if embedding is None:
      return None
    pairs = make_pairs(experiment, source, 'val')
    metrics = pairing.compute_metrics(
      pairs, pairing.cosines(embedding, pairs), source.columns['subject']
    )
    return {f'val/{name}': value for name, value in metrics.items() if not name.startswith('n_')}

  def evaluate(
    self,
    experiment: setup.Experiment,
    folder: pathlib.Path,
    data: datasets.Data,
    scorer: Callable,
  ) -> None:
    """Writes the scores of all pairs and results.json; prints a table."""
    step, variables, header = dataset_scoring.restore_best(
      experiment, folder, self.metric, data.notes
    )
    metrics = {}
    for name, source in {'val': data.val, **data.test}.items():
      embedding = dataset_scoring.run_with_progress(scorer, variables, experiment, name, source)
      pairs = make_pairs(experiment, source, name)
      score = pairing.cosines(embedding, pairs)
      subject = source.columns['subject']
      metrics[name] = pairing.compute_metrics(pairs, score, subject)
      if distributed.is_first():
        (folder / 'scores').mkdir(exist_ok=True)
        file = folder / 'scores' / f'{name}_pairs.csv'
        pairing.write(file, pairs, score, source.columns['id'], subject, header)
    if distributed.is_first():
      title = f'Verification of subjects not in the training data, step {step}'
      table = pairing.text(metrics, dataset_scoring.headline(title, data))
      dataset_scoring.write_results(folder, metrics, table, data.notes)


def make_output_scorer(experiment: setup.Experiment, output: str) -> Callable:
  """A scorer that returns an output of the head, [N, D]; see `scoring.make_output_scorer`."""
  return scoring.make_output_scorer(
    experiment.model,
    output,
    functools.partial(sharding.place_batch, mesh=experiment.mesh),
    sharding.replicated(experiment.mesh),
  )


def make_pairs(experiment: setup.Experiment, source: sources.Source, name: str) -> pairing.Pairs:
  """The pairs of a data set; the same in every call.

  Raises:
    DataError: the set has none.
  """
  columns = source.columns
  try:
    return pairing.sample_pairs(
      columns['subject'], columns['video'], experiment.config.get('pairs', 20_000)
    )
  except DataError as error:
    raise DataError(f'{name}, {", ".join(source.names)}: {error}') from None
