"""Whether an exported file does what the checkpoint does: run, by the runner that a device has.

Every file sees fixed, random and masked inputs, one by one and in a batch, and the val set under
each subset of the modalities that it serves. float32 must agree within `BOUND` in the score and
decide alike; of float16 and int8 it is measured what they cost.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.special

from flexfas_jax.errors import ExportError
from flexfas_jax.evaluation import metrics
from flexfas_jax.export import reference
from flexfas_jax.images.preprocess import Preprocess
from flexfas_jax.input_pipeline import pipeline
from flexfas_jax.progress import Progress
from flexfas_jax.schema import subset_name

BOUND = 1e-4  # largest difference of a float32 score
# Where a score is near 0 or 1 it hides what the logit shows: of its size, or of 1 where it is less.
# Not less: inputs that differ in the seventh digit move the logit of FlexModal's ViT, whose
# attention is not scaled, by 4e-4.
LOGIT_BOUND = 1e-3
MOST = 4096  # of val, samples times subsets: evenly spread where there are more
_LIMIT = 127.5 / 128  # of what the pipeline gives


class Inputs(NamedTuple):
  """A batch that every file is asked about."""

  kind: np.ndarray  # [B] str: fixed, random, masked, val; '' is padding
  images: Mapping[str, np.ndarray]
  present: np.ndarray  # [B, M] bool
  label: np.ndarray  # [B] int, 1 = bona fide, of val


def made(model, seed: int = 0) -> Inputs:
  """Inputs that are made up: constants and a ramp, noise, noise with each served subset present.

  Where a modality is absent there is noise too, far out of range: it must not matter.
  """
  S, modalities = model.image_size, model.modalities
  masks = np.array([[m in subset for m in modalities] for subset in model.subsets])
  n_random = max(4, reference.BATCH - 4 - len(masks))
  kind = np.array(['fixed'] * 4 + ['random'] * n_random + ['masked'] * len(masks))
  present = np.concatenate([np.ones((4 + n_random, len(modalities)), bool), masks])
  rng = np.random.default_rng(seed)
  ramp = np.linspace(-_LIMIT, _LIMIT, S)[:, None, None]
  images = {}
  for i, m in enumerate(modalities):
    noise = rng.uniform(-_LIMIT, _LIMIT, (len(kind), S, S, 3 if m == 'rgb' else 1))
    noise[~present[:, i]] *= 100
    for k, pattern in enumerate((-_LIMIT, 0, _LIMIT, ramp)):
      noise[k] = pattern
    images[m] = noise.astype(np.float32)
  return Inputs(kind, images, present, np.full(len(kind), -1))


def of_val(val, preprocess: Preprocess):
  """The val set's inputs, a batch at a time, the last one filled up."""
  for arrays, known in pipeline.eval_batches(val, preprocess, reference.BATCH):
    n = len(arrays['present'])
    kind = np.array(['val'] * len(known) + [''] * (n - len(known)))
    label = np.array([k['label'] for k in known] + [-1] * (n - len(known)))
    images = {m: arrays[m] for m in preprocess.modalities}
    yield Inputs(kind, images, arrays['present'], label)


class _Answers:
  """What one file said beside the reference, by kind of input and subset."""

  def __init__(self, source, entry: Mapping[str, Any], folder: Path):
    runner = importlib.import_module(f'flexfas_jax.prediction.runners.{entry["format"]}')
    self.run = runner.load((folder / entry['file']).read_bytes(), entry)
    self.entry, self.model = entry, source.model
    own = tuple(entry['modalities'])
    self.subsets = source.subsets if entry['present'] else (own,)
    self.columns = [source.model.modalities.index(m) for m in own]
    self.said: dict[tuple[str, str], list[np.ndarray]] = {}  # each [3, n]: file, jax, label

  def ask(self, inputs: Inputs, wanted: Mapping[tuple[str, ...], np.ndarray]) -> None:
    """Runs the file: on val under each of its subsets; on what is made up, singly too, as it is."""
    images = {m: inputs.images[m] for m in self.entry['modalities']}
    made_up = 'val' not in inputs.kind
    for subset in (self.model.modalities,) if made_up and self.entry['present'] else self.subsets:
      of = np.array([m in subset for m in self.model.modalities])
      present = inputs.present & of
      here = reference.servable(self.model, present) & (inputs.kind != '')
      if not self.entry['present']:  # a sample that lacks one of its modalities is not for it
        here &= (inputs.present | ~of).all(1)
      given = present[:, self.columns] if self.entry['present'] else None
      found = self.run(images, given)
      if made_up:
        rows = (np.array(self.model.modalities)[row] for row in present)
        names = np.array([subset_name(row) for row in rows])
      else:  # also where a picture is missing: a device decides by the sensors that it has
        names = np.full(len(present), subset_name(subset))
      for kind, name in sorted(set(zip(inputs.kind[here], names[here], strict=True))):
        at = np.flatnonzero(here & (inputs.kind == kind) & (names == name))
        both = np.stack([found[at], wanted[subset][at], inputs.label[at]])
        parts = self.said.setdefault((str(kind), str(name)), [])
        parts.append(both)
        if made_up:
          i = at[:1]
          one = self.run({m: x[i] for m, x in images.items()}, None if given is None else given[i])
          parts.append(np.stack([one, both[1, :1], both[2, :1]]))


def measure(
  source,
  entries: Sequence[Mapping[str, Any]],
  folder: Path,
  thresholds: Mapping[str, Mapping[str, Any]],
  val=None,
) -> list[dict[str, Any]]:
  """What is known of each file, in the order of `entries`: the card's `parity`.

  Args:
    source: what was exported.
    entries: of the card's `models`.
    folder: where the files are.
    thresholds: by subset, see `deciding.fit`.
    val: a set as `pipeline.eval_batches` takes it; None: only what is made up.

  Raises:
    ExportError: a float32 file that differs, or one that gives no number.
  """
  answer = reference.make(source.model, source.variables)
  answers = [_Answers(source, entry, folder) for entry in entries]

  def ask_all(inputs: Inputs) -> None:
    logits = answer(inputs.images, inputs.present, source.subsets)
    wanted = dict(zip(source.subsets, logits, strict=True))
    for one in answers:
      one.ask(inputs, wanted)

  ask_all(made(source.model))
  if val is not None:
    with Progress('parity', len(val)) as progress:
      done = 0
      for inputs in of_val(val, source.preprocess):
        ask_all(inputs)
        done += int((inputs.kind == 'val').sum())
        progress.update(done)
  return [_judged(one, thresholds) for one in answers]


def _judged(answers: _Answers, thresholds) -> dict[str, Any]:
  file, precision = answers.entry['file'], answers.entry['precision']
  difference, of_scores, of_val = {}, {}, {}
  for (kind, subset), parts in answers.said.items():
    found, wanted, label = np.concatenate(parts, 1)
    if not np.isfinite(found[np.isfinite(wanted)]).all():
      raise ExportError(f'{file}: no number for {kind} inputs under {subset}, where jax has one')
    apart = np.abs(found - wanted)
    scores = scipy.special.expit(np.stack([found, wanted]).astype(np.float64))
    scores_apart = float(np.abs(scores[0] - scores[1]).max(initial=0))
    difference[kind] = max(float(apart.max(initial=0)), difference.get(kind, 0.0))
    of_scores[kind] = max(scores_apart, of_scores.get(kind, 0.0))
    changed = 0
    if subset in thresholds:
      accepted = scores >= thresholds[subset]['value']
      changed = int((accepted[0] != accepted[1]).sum())
    off = scores_apart > BOUND or (apart > LOGIT_BOUND * np.maximum(np.abs(wanted), 1)).any()
    if precision == 'float32' and (off or changed):
      raise ExportError(
        f'{file} is not what the checkpoint is: under {subset}, {kind} inputs differ by '
        f'{scores_apart:.1e} in the score ({BOUND:.0e} is allowed), {apart.max():.1e} in the '
        f'logit, and {changed} of {len(found)} are decided otherwise; nothing was left. Leave the '
        'format out (--formats), and report it with the config'
      )
    if kind == 'val':
      of_val[subset] = {
        'n': len(found),
        'difference': float(apart.max(initial=0)),
        'changed_decisions': changed,
        **_cost(label, scores, thresholds.get(subset)),
      }
  return {
    'bound': BOUND if precision == 'float32' else None,
    'batch_sizes': [1, reference.BATCH],
    'difference': difference,
    'score_difference': of_scores,
    'val': of_val,
  }


def _cost(label, scores: np.ndarray, threshold) -> dict[str, float]:
  """ACER by the file and by the reference, at the stored threshold."""
  if threshold is None:
    return {}
  rates = [metrics.error_rates(label.astype(int), s, threshold['value']).acer for s in scores]
  return {'acer': rates[0], 'acer_reference': rates[1], 'acer_loss': rates[0] - rates[1]}
