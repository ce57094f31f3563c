"""Compares exported files with the checkpoint, using the runners that prediction uses.

Each file gets fixed, random and masked inputs, one by one and in a batch, and the val set under
each subset of modalities that it serves. float32 files must agree within `BOUND` in the score and
make the same decisions; for float16 and int8 the differences are measured.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.special

from flexfas_jax import schema
from flexfas_jax.errors import ExportError
from flexfas_jax.evaluation import metrics
from flexfas_jax.export import reference
from flexfas_jax.export.val_data import EvenSubset
from flexfas_jax.images.preprocess import Preprocess
from flexfas_jax.input_pipeline import pipeline
from flexfas_jax.progress import Progress
from flexfas_jax.schema import subset_name

BOUND = 1e-4  # largest difference of a float32 score
# Near 0 and 1 a score hides differences that the logit shows. Relative to the logit, or absolute
# where it is below 1. Not smaller: inputs that differ in the seventh digit move the logit of
# FlexModal's ViT, whose attention is not scaled, by 4e-4.
LOGIT_BOUND = 1e-3
MAX_VAL_INPUTS = 4096  # samples times subsets; a larger val set is subsampled evenly
_LIMIT = 127.5 / 128  # largest absolute value that preprocessing gives


class Inputs(NamedTuple):
  """A batch of inputs for all files.

  Attributes:
    kind: [B] str: 'fixed', 'random', 'masked', 'val', or '' for padding.
    images: {modality: [B, S, S, C] float32}.
    present: [B, M] bool.
    label: [B] int, 1 is bona fide; -1 where there is none.
  """

  kind: np.ndarray
  images: Mapping[str, np.ndarray]
  present: np.ndarray
  label: np.ndarray


def synthetic_inputs(model) -> Inputs:
  """Constants and a ramp; noise; noise under each served subset.

  The images of absent modalities are noise far out of range, since they must not matter.
  """
  S, modalities = model.image_size, model.modalities
  masks = np.array([[m in subset for m in modalities] for subset in model.subsets])
  n_random = max(4, reference.BATCH - 4 - len(masks))
  kind = np.array(['fixed'] * 4 + ['random'] * n_random + ['masked'] * len(masks))
  present = np.concatenate([np.ones((4 + n_random, len(modalities)), bool), masks])
  rng = np.random.default_rng(0)
  ramp = np.linspace(-_LIMIT, _LIMIT, S)[:, None, None]
  images = {}
  for i, m in enumerate(modalities):
    image = rng.uniform(-_LIMIT, _LIMIT, (len(kind), S, S, schema.channels(m)))
    image[~present[:, i]] *= 100
    for k, pattern in enumerate((-_LIMIT, 0, _LIMIT, ramp)):
      image[k] = pattern
    images[m] = image.astype(np.float32)
  return Inputs(kind, images, present, np.full(len(kind), -1))


def val_inputs(val, preprocess: Preprocess) -> Iterator[Inputs]:
  """Batches of the val set; the last one is padded."""
  for arrays, metadata in pipeline.eval_batches(val, preprocess, reference.BATCH):
    padding = len(arrays['present']) - len(metadata)
    kind = np.array(['val'] * len(metadata) + [''] * padding)
    label = np.array([m['label'] for m in metadata] + [-1] * padding)
    images = {m: arrays[m] for m in preprocess.modalities}
    yield Inputs(kind, images, arrays['present'], label)


class _Comparison:
  """The outputs of one file and of the reference, by kind of input and subset."""

  def __init__(self, trained, entry: Mapping[str, Any], folder: Path):
    runner = importlib.import_module(f'flexfas_jax.prediction.runners.{entry["format"]}')
    self.run = runner.load((folder / entry['file']).read_bytes(), entry)
    self.entry, self.model = entry, trained.model
    modalities = tuple(entry['modalities'])
    self.subsets = trained.subsets if entry['present'] else (modalities,)
    self.columns = [trained.model.modalities.index(m) for m in modalities]
    # {(kind, subset): arrays [3, n] of the file's logits, the reference's logits, labels}
    self.outputs: dict[tuple[str, str], list[np.ndarray]] = {}

  def add(self, inputs: Inputs, expected: Mapping[tuple[str, ...], np.ndarray]) -> None:
    """Runs the file on a batch: val under each subset, synthetic inputs also one by one."""
    synthetic = 'val' not in inputs.kind
    modalities = self.model.modalities
    images = {m: inputs.images[m] for m in self.entry['modalities']}
    for subset in (modalities,) if synthetic and self.entry['present'] else self.subsets:
      mask = np.array([m in subset for m in modalities])
      present = inputs.present & mask
      compared = reference.can_serve(self.model, present) & (inputs.kind != '')
      if not self.entry['present']:  # the file requires all modalities of its subset
        compared &= (inputs.present | ~mask).all(1)
      given = present[:, self.columns] if self.entry['present'] else None
      logits = self.run(images, given)
      if synthetic:
        names = np.array([subset_name(np.array(modalities)[row]) for row in present])
      else:  # by the sensors of the device, also where one has no signal
        names = np.full(len(present), subset_name(subset))
      for kind, name in sorted(set(zip(inputs.kind[compared], names[compared], strict=True))):
        rows = np.flatnonzero(compared & (inputs.kind == kind) & (names == name))
        parts = self.outputs.setdefault((str(kind), str(name)), [])
        parts.append(np.stack([logits[rows], expected[subset][rows], inputs.label[rows]]))
        if synthetic:
          row = rows[:1]
          single = self.run(
            {m: x[row] for m, x in images.items()}, None if given is None else given[row]
          )
          parts.append(np.stack([single, expected[subset][row], inputs.label[row]]))


def measure(
  trained,
  entries: Sequence[Mapping[str, Any]],
  folder: Path,
  thresholds: Mapping[str, Mapping[str, Any]],
  val=None,
) -> list[dict[str, Any]]:
  """Compares files with the checkpoint: the card's `parity` for each entry, in their order.

  Args:
    trained: the exported `TrainedModel`.
    entries: of the card's `models`.
    folder: of the files.
    thresholds: {subset: threshold}, see `bundle_thresholds.fit`.
    val: the val set; None: synthetic inputs only.

  Raises:
    ExportError: a float32 file differs, or a file returns NaN or infinity.
  """
  compute_logits = reference.build(trained.model, trained.variables)
  comparisons = [_Comparison(trained, entry, folder) for entry in entries]

  def compare(inputs: Inputs) -> None:
    logits = compute_logits(inputs.images, inputs.present, trained.subsets)
    expected = dict(zip(trained.subsets, logits, strict=True))
    for comparison in comparisons:
      comparison.add(inputs, expected)

  compare(synthetic_inputs(trained.model))
  if val is not None:
    val = EvenSubset(val, MAX_VAL_INPUTS // len(trained.subsets))
    with Progress('parity', len(val)) as progress:
      done = 0
      for inputs in val_inputs(val, trained.preprocess):
        compare(inputs)
        done += int((inputs.kind == 'val').sum())
        progress.update(done)
  return [_summarise(comparison, thresholds) for comparison in comparisons]


def _summarise(comparison: _Comparison, thresholds) -> dict[str, Any]:
  file, precision = comparison.entry['file'], comparison.entry['precision']
  logit_difference, score_difference, val = {}, {}, {}
  for (kind, subset), parts in comparison.outputs.items():
    actual, expected, label = np.concatenate(parts, 1)
    if not np.isfinite(actual[np.isfinite(expected)]).all():
      raise ExportError(
        f'{file}: NaN or infinity for {kind} inputs under {subset}, where the checkpoint gives a '
        'number'
      )
    difference = np.abs(actual - expected)
    scores = scipy.special.expit(np.stack([actual, expected]).astype(np.float64))
    largest = float(difference.max(initial=0))
    largest_of_scores = float(np.abs(scores[0] - scores[1]).max(initial=0))
    logit_difference[kind] = max(largest, logit_difference.get(kind, 0.0))
    score_difference[kind] = max(largest_of_scores, score_difference.get(kind, 0.0))
    changed = 0
    if subset in thresholds:
      accepted = scores >= thresholds[subset]['value']
      changed = int((accepted[0] != accepted[1]).sum())
    logits_differ = (difference > LOGIT_BOUND * np.maximum(np.abs(expected), 1)).any()
    if precision == 'float32' and (largest_of_scores > BOUND or logits_differ or changed):
      raise ExportError(
        f'{file} differs from the checkpoint: under {subset}, {kind} inputs differ by '
        f'{largest_of_scores:.1e} in the score ({BOUND:.0e} is allowed) and {largest:.1e} in the '
        f'logit, and {changed} of {len(actual)} decisions change. No bundle was written. Leave the '
        'format out (--formats), and report it with the config'
      )
    if kind == 'val':
      val[subset] = {
        'n': len(actual),
        'difference': largest,
        'changed_decisions': changed,
        **_acer_loss(label, scores, thresholds.get(subset)),
      }
  return {
    'bound': BOUND if precision == 'float32' else None,
    'batch_sizes': [1, reference.BATCH],
    'difference': logit_difference,
    'score_difference': score_difference,
    'val': val,
  }


def _acer_loss(label, scores: np.ndarray, threshold) -> dict[str, float]:
  """ACER of the file and of the reference at the stored threshold, and their difference."""
  if threshold is None:
    return {}
  acer, acer_reference = (
    metrics.error_rates(label.astype(int), s, threshold['value']).acer for s in scores
  )
  return {'acer': acer, 'acer_reference': acer_reference, 'acer_loss': acer - acer_reference}
