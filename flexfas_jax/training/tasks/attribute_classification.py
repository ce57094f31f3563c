"""Classification of a face's attribute (gender, ethnicity): MM-FAS's other pretraining task."""

import csv
import io
import json
import pathlib
from collections.abc import Callable

import numpy as np

from flexfas_jax.evaluation import face_verification as pairing
from flexfas_jax.files import write_text
from flexfas_jax.input_pipeline import sources
from flexfas_jax.training import datasets, distributed, setup, subjects
from flexfas_jax.training.tasks import dataset_scoring, face_verification


class AttributeClassification:
  """The attribute's value with the largest cosine; see `base.Task`."""

  metric = 'error'  # mean over the classes

  def make_scorer(self, experiment: setup.Experiment) -> Callable:
    """`scorer(variables, batches, progress) -> cosines [N, classes]`."""
    return face_verification.make_output_scorer(experiment, 'cosine')

  def check(self, experiment: setup.Experiment, data: datasets.Data) -> None:
    """Does nothing: `datasets.open_all` has checked every example's class."""

  def val_metrics(
    self, experiment, scorer, variables, source, interrupted=lambda: False
  ) -> dict[str, float] | None:
    """Error and accuracy, means over the classes."""
    cosine = dataset_scoring.run_interruptibly(scorer, variables, experiment, source, interrupted)
    if cosine is None:
      return None
    names = tuple(map(str, range(cosine.shape[1])))
    metrics = class_metrics(cosine, source.identities, names)
    return {f'val/{name}': metrics[name] for name in ('error', 'accuracy')}

  def evaluate(
    self,
    experiment: setup.Experiment,
    folder: pathlib.Path,
    data: datasets.Data,
    scorer: Callable,
  ) -> None:
    """Writes each sample's cosines and results.json; prints accuracy by class."""
    step, variables, header = dataset_scoring.restore_best(
      experiment, folder, self.metric, data.notes
    )
    classes, metrics = data.vocabulary.classes, {}
    for name, source in {'val': data.val, **data.test}.items():
      cosine = dataset_scoring.run_with_progress(scorer, variables, experiment, name, source)
      metrics[name] = class_metrics(cosine, source.identities, classes)
      if distributed.is_first():
        (folder / 'scores').mkdir(exist_ok=True)
        _write(folder / 'scores' / f'{name}_classes.csv', source, data.vocabulary, cosine, header)
    if distributed.is_first():
      title = f'{experiment.target}: accuracy in percent, by class, step {step}'
      title = dataset_scoring.headline(title, data)
      table = f'{title}\n{pairing.columns(_rows(metrics, classes))}'
      dataset_scoring.write_results(folder, metrics, table, data.notes)


def class_metrics(
  cosine: np.ndarray, truth: np.ndarray, classes: tuple[str, ...]
) -> dict[str, float]:
  """{metric: value}: 'accuracy' and 'error', means over the classes, and 'accuracy/CLASS'.

  Args:
    cosine: [N, C]; NaN for a failure to acquire, which counts as an error.
    truth: [N] int.
    classes: C names.
  """
  failed = np.isnan(cosine).any(1)
  correct = (np.where(failed[:, None], 0, cosine).argmax(1) == truth) & ~failed
  accuracy = {
    name: float(correct[truth == i].mean()) for i, name in enumerate(classes) if i in truth
  }
  mean = float(np.mean(list(accuracy.values())))
  metrics = {'accuracy': mean, 'error': 1 - mean, 'n': len(truth), 'n_fta': int(failed.sum())}
  return metrics | {f'accuracy/{name}': value for name, value in accuracy.items()}


def _rows(metrics: dict[str, dict], classes: tuple[str, ...]) -> list[list[str]]:
  """The cells of the printed table."""
  rows = [['', 'n', 'mean', *classes]]
  for name, values in metrics.items():
    accuracies = [values.get(key) for key in ('accuracy', *(f'accuracy/{c}' for c in classes))]
    cells = ['-' if value is None else f'{100 * value:.1f}' for value in accuracies]
    rows.append([name, str(values['n']), *cells])
  return rows


def _write(
  path: pathlib.Path,
  source: sources.Source,
  vocabulary: subjects.ClassVocabulary,
  cosine: np.ndarray,
  header: dict,
) -> None:
  """Writes each sample's cosines as CSV, and their header as JSON."""
  text, target = io.StringIO(), vocabulary.target
  rows = csv.writer(text, lineterminator='\n')
  rows.writerow(['id', 'subject', target, *(f'cosine/{name}' for name in vocabulary.classes)])
  columns = (source.columns[name] for name in ('id', 'subject', target))
  for *cells, values in zip(*columns, cosine.tolist(), strict=True):
    rows.writerow([*cells, *('' if np.isnan(v) else repr(v) for v in values)])
  write_text(path, text.getvalue())
  write_text(path.with_suffix('.json'), json.dumps(header, indent=2) + '\n')
