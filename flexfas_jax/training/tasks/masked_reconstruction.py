"""Masked pretraining: how well hidden patches and unseen modalities are rebuilt."""

import functools
import io
import pathlib
from collections.abc import Callable

import jax
import numpy as np
from PIL import Image, ImageDraw

from flexfas_jax.evaluation import face_verification
from flexfas_jax.files import write_bytes
from flexfas_jax.input_pipeline import sources
from flexfas_jax.training import datasets, distributed, reconstruction, setup, sharding
from flexfas_jax.training.tasks import dataset_scoring

IMAGE_FILE = 'reconstructions.png'
_SHOWN = 6  # samples in that file
_SIDE = 128  # pixels of an image there, at least


class MaskedReconstruction:
  """The error of rebuilding all modalities from a part of one; see `base.Task`.

  It is computed with every modality as the source. No label is read.
  """

  metric = 'reconstruction'  # mean squared error of normalised patches

  def make_scorer(self, experiment: setup.Experiment) -> Callable:
    """`scorer(variables, batches, progress) -> errors [N, M, M]`, by source and target."""
    B = experiment.config.eval_batch_size
    return reconstruction.make_scorer(
      experiment.model,
      functools.partial(sharding.place_batch, mesh=experiment.mesh),
      B,
      sharding.local_rows(experiment.mesh, B),
      sharding.replicated(experiment.mesh),
    )

  def check(self, experiment: setup.Experiment, data: datasets.Data) -> None:
    """Does nothing: any images will do."""

  def val_metrics(
    self, experiment, scorer, variables, source, interrupted=lambda: False
  ) -> dict[str, float] | None:
    """The mean error, and that from each source."""
    errors = dataset_scoring.run_interruptibly(scorer, variables, experiment, source, interrupted)
    if errors is None:
      return None
    metrics = error_metrics(errors, experiment.model.modalities)
    by_source = {f'{self.metric}/{m}': v['mean'] for m, v in metrics['by_source'].items()}
    return {f'val/{k}': v for k, v in {self.metric: metrics[self.metric], **by_source}.items()}

  def evaluate(
    self,
    experiment: setup.Experiment,
    folder: pathlib.Path,
    data: datasets.Data,
    scorer: Callable,
  ) -> None:
    """Writes results.json and images of reconstructions; prints a table."""
    step, variables, _ = dataset_scoring.restore_best(experiment, folder, self.metric, data.notes)
    metrics = {}
    for name, source in {'val': data.val, **data.test}.items():
      errors = dataset_scoring.run_with_progress(scorer, variables, experiment, name, source)
      metrics[name] = error_metrics(errors, experiment.model.modalities)
    drawn = _draw(experiment, variables, data.val)
    if distributed.is_first():
      write_bytes(folder / IMAGE_FILE, drawn)
      title = f'Squared error of rebuilt patches with variance 1, by source and target, step {step}'
      table = face_verification.columns(_rows(metrics, experiment.model.modalities))
      table = f'{dataset_scoring.headline(title, data)}\n{table}'
      dataset_scoring.write_results(folder, metrics, table, data.notes, IMAGE_FILE)


def error_metrics(errors: np.ndarray, modalities: tuple[str, ...]) -> dict:
  """Means over the samples that have source and target.

  Args:
    errors: [N, M, M] by source and target; NaN where one of them is absent.
    modalities: M.

  Returns:
    {'reconstruction': the mean over each sample's sources and targets, then over samples; 'n',
    'n_fta': samples, and those without any modality; 'by_source': {source: {'mean', and the
    error of each target}}}; NaN where there is no sample.
  """
  each = [_mean(sample) for sample in errors]
  by_source = {}
  for i, source in enumerate(modalities):
    targets = {m: _mean(errors[:, i, j]) for j, m in enumerate(modalities)}
    by_source[source] = {'mean': _mean([_mean(sample) for sample in errors[:, i]]), **targets}
  return {
    'reconstruction': _mean(each),
    'n': len(errors),
    'n_fta': int(np.isnan(each).sum()),
    'by_source': by_source,
  }


def _mean(values) -> float:
  """The mean of those that are not NaN, in float64; NaN if there are none."""
  values = np.asarray(values, float)
  values = values[~np.isnan(values)]
  return float(values.mean()) if values.size else float('nan')


def _rows(metrics: dict[str, dict], modalities: tuple[str, ...]) -> list[list[str]]:
  """The cells of the printed table."""
  rows = [['', 'n', 'source', 'mean', *modalities]]
  for name, values in metrics.items():
    rows.append([name, str(values['n']), 'all', f'{values["reconstruction"]:.3f}'])
    for source, errors in values['by_source'].items():
      rows.append(['', '', source, *(f'{errors[key]:.3f}' for key in ('mean', *modalities))])
  width = len(rows[0])
  return [[*row, *[''] * (width - len(row))] for row in rows]


def _draw(experiment: setup.Experiment, variables, source: sources.Source) -> bytes:
  """A PNG: samples in rows; visible patches, then each modality rebuilt and as it is."""
  mesh, modalities = experiment.mesh, experiment.model.modalities
  B = -(-_SHOWN // mesh.size) * mesh.size
  places = np.linspace(0, len(source) - 1, B).astype(int)
  rows = sharding.local_rows(mesh, B)
  examples = [experiment.preprocess(source[int(places[row])]) for row in rows]
  batch = {k: np.stack([e[k] for e in examples]) for k in (*modalities, 'present')}
  batch = sharding.place_batch({**batch, 'index': rows.astype(np.int32)}, mesh)

  @functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
  def step(variables, batch):
    return reconstruction.examples_step(variables, batch, model=experiment.model) | {'real': batch}

  distributed.compile_everywhere(step, variables, batch)
  found = jax.device_get(step(variables, batch))
  size = experiment.model.image_size
  scale = -(-_SIDE // size)
  side, head = scale * size, 16
  titles = ['visible', *(f'{m}{what}' for m in modalities for what in (' rebuilt', ''))]
  canvas = Image.new('RGB', (len(titles) * side, head + _SHOWN * side), 'white')
  draw = ImageDraw.Draw(canvas)
  for column, title in enumerate(titles):
    draw.text((column * side + 4, 2), title, fill='black')
  for row in range(_SHOWN):
    seen = modalities[int(found['source'][row])]
    images = [found['visible'][seen][row]]
    for i, m in enumerate(modalities):
      there = found['real']['present'][row, i]
      images += [x[m][row] * there for x in (found['rebuilt'], found['real'])]  # absent: grey
    for column, image in enumerate(images):
      pixels = np.clip(np.round(image * 128 + 127.5), 0, 255).astype(np.uint8)
      tile = Image.fromarray(np.broadcast_to(pixels, (size, size, 3)))
      canvas.paste(
        tile.resize((side, side), Image.Resampling.NEAREST), (column * side, head + row * side)
      )
  contents = io.BytesIO()
  canvas.save(contents, 'PNG')
  return contents.getvalue()
