"""Which value of an attribute (gender, ethnicity) a face has: the other pretraining task of MM-FAS.

What `testing.py` is for attacks: the same functions, by the share of each class that is known for
what it is.
"""

import csv
import functools
import io
import json
import pathlib
from collections.abc import Callable

import numpy as np

from flexfas_jax.evaluation import face_verification as pairing
from flexfas_jax.files import write_text
from flexfas_jax.input_pipeline import sources
from flexfas_jax.training import datasets, distributed, setup, subjects
from flexfas_jax.training.tasks import anti_spoofing, face_verification

BEST = 'error'  # of val, the mean over the classes: chooses the checkpoint that is evaluated

make_scorer = functools.partial(face_verification.make_scorer, output='cosine')


def figures(cosine: np.ndarray, truth: np.ndarray, classes: tuple[str, ...]) -> dict[str, float]:
  """{metric: value}: 'accuracy' and 'error', means over the classes, and 'accuracy/CLASS'.

  Args:
    cosine: [N, C], NaN where there was nothing to look at, which is wrong whatever it shows.
    truth: [N] int.
    classes: C names.
  """
  failed = np.isnan(cosine).any(1)
  right = (np.where(failed[:, None], 0, cosine).argmax(1) == truth) & ~failed
  of = {name: float(right[truth == i].mean()) for i, name in enumerate(classes) if i in truth}
  mean = float(np.mean(list(of.values())))
  found = {'accuracy': mean, 'error': 1 - mean, 'n': len(truth), 'n_fta': int(failed.sum())}
  return found | {f'accuracy/{name}': value for name, value in of.items()}


def check(experiment: setup.Experiment, data: datasets.Data) -> None:
  """Nothing is left to find: `inputs.open_all` has numbered every example."""
  del experiment, data


def val_metrics(
  experiment: setup.Experiment,
  scorer,
  variables,
  source: sources.Source,
  interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
  """Of val; None if it was interrupted."""
  cosine = anti_spoofing.run_interruptibly(scorer, variables, experiment, source, interrupted)
  if cosine is None:
    return None
  names = tuple(map(str, range(cosine.shape[1])))
  found = figures(cosine, source.identities, names)
  return {f'val/{name}': found[name] for name in ('error', 'accuracy')}


def evaluate(
  experiment: setup.Experiment, folder: pathlib.Path, data: datasets.Data, scorer
) -> None:
  """Each sample's cosines, a table and results.json of the best step."""
  step, variables, header = anti_spoofing.restore_best(experiment, folder, BEST, data.notes)
  classes, found = data.vocabulary.classes, {}
  for name, source in {'val': data.val, **data.test}.items():
    cosine = face_verification.read(experiment, scorer, variables, name, source)
    found[name] = figures(cosine, source.identities, classes)
    if distributed.is_first():
      (folder / 'scores').mkdir(exist_ok=True)
      _write(folder / 'scores' / f'{name}_classes.csv', source, data.vocabulary, cosine, header)
  if distributed.is_first():
    rows = [['', 'n', 'mean', *classes]]
    for name, values in found.items():
      shares = [values.get(key) for key in ('accuracy', *(f'accuracy/{c}' for c in classes))]
      shown = ('-' if share is None else f'{100 * share:.1f}' for share in shares)
      rows.append([name, str(values['n']), *shown])
    title = f'{experiment.target}: accuracy in percent, by class, step {step}'
    face_verification.finish(folder, data, found, f'{title}\n{pairing.columns(rows)}')


def _write(path, source: sources.Source, known: subjects.ClassVocabulary, cosine, header) -> None:
  text = io.StringIO()
  rows = csv.writer(text, lineterminator='\n')
  rows.writerow(['id', 'subject', known.target, *(f'cosine/{name}' for name in known.classes)])
  columns = (source.columns[name] for name in ('id', 'subject', known.target))
  for *cells, values in zip(*columns, cosine.tolist(), strict=True):
    rows.writerow([*cells, *('' if np.isnan(v) else repr(v) for v in values)])
  write_text(path, text.getvalue())
  write_text(path.with_suffix('.json'), json.dumps(header, indent=2) + '\n')
