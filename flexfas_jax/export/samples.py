"""Samples of a bundle: images, hashes of the preprocessed arrays, and expected scores.

They verify an implementation elsewhere, step by step. Images of a rendered val set are copied; face
data of real subjects must not be copied, so synthetic patterns replace it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy.special

from flexfas_jax import schema
from flexfas_jax.export import reference
from flexfas_jax.export.val_data import EvenSubset
from flexfas_jax.images import geometry
from flexfas_jax.protocols import selection
from flexfas_jax.schema import LABELS, subset_name

MAX_SAMPLES = 4


def is_rendered(config) -> bool:
  """Whether all data of a run is rendered."""
  names = selection.split_selections(f'{config.train},{config.val}')
  return all(selection.is_rendered([name]) for name in names)


def write(trained, val, thresholds, folder: Path) -> None:
  """Writes `samples/*.png` and `samples/samples.json`.

  Args:
    trained: the exported `TrainedModel`.
    val: its val set.
    thresholds: by subset.
    folder: of the bundle.
  """
  (folder / 'samples').mkdir()
  rendered = is_rendered(trained.config)
  if rendered:
    examples = choose_examples(val, trained.preprocess)
  else:
    bits = detect_bit_depths(val, trained)
    examples = [_synthetic_example(trained, bits, seed) for seed in (0, 1)]
  entries, arrays = [], []
  for number, example in enumerate(examples):
    files, images = {}, {}
    for m in trained.model.modalities:
      if not example.get(m):
        continue
      image = geometry.decode(example[m], m, example['id'])
      ok, encoded = cv2.imencode('.png', image[..., ::-1] if schema.is_color(m) else image)
      assert ok  # PNG holds 8 and 16 bits, 1 and 3 channels
      files[m] = f'samples/{number}_{m}.png'
      images[m] = encoded.tobytes()
      (folder / files[m]).write_bytes(images[m])
    arrays.append(trained.preprocess({'id': example['id'], 'label': 0, **images}))
    entries.append(
      {
        'id': example['id'],
        'label': LABELS[example['label']] if rendered else None,
        'files': files,
        'present': arrays[-1]['present'].tolist(),
        'arrays': {m: _describe_array(arrays[-1][m]) for m in trained.model.modalities},
        'expected': {},
      }
    )
  _add_expected(trained, entries, arrays, thresholds)
  contents = {
    'rendered': rendered,
    'weights_hash': trained.weights_hash,
    'arrays': 'SHA-256 of the float32 values, little-endian, [S, S, C] in C order',
    'samples': entries,
  }
  (folder / 'samples' / 'samples.json').write_text(json.dumps(contents, indent=1) + '\n')


def _add_expected(trained, entries: list[dict], arrays: list[dict], thresholds) -> None:
  """Adds logit, score and decision under each subset to the entries."""
  model = trained.model
  batch = {m: np.stack([a[m] for a in arrays]) for m in (*model.modalities, 'present')}
  compute_logits = reference.build(model, trained.variables)
  all_logits = compute_logits(batch, batch['present'], trained.subsets)
  for subset, logits in zip(trained.subsets, all_logits.astype(np.float64), strict=True):
    name = subset_name(subset)
    mask = np.array([m in subset for m in model.modalities])
    served = reference.can_serve(model, batch['present'] & mask)
    for i in np.flatnonzero(served):
      score = float(scipy.special.expit(logits[i]))
      expected = {'logit': float(logits[i]), 'score': score}
      if name in thresholds:
        expected['accept'] = bool(score >= thresholds[name]['value'])
      entries[i]['expected'][name] = expected


def _describe_array(array: np.ndarray) -> dict[str, Any]:
  """Shape and hash of a preprocessed image; its mean helps to find differences in rounding."""
  data = np.ascontiguousarray(array, '<f4').tobytes()
  digest = hashlib.sha256(data).hexdigest()
  return {'shape': list(array.shape), 'sha256': digest, 'mean': float(array.mean(dtype=np.float64))}


def detect_bit_depths(val, trained, max_examples: int = 64) -> dict[str, list[int]]:
  """{modality: bits per channel of val's images}, from an even subset."""
  bits = {m: set() for m in trained.model.modalities}
  examples = EvenSubset(val, max_examples)
  for i in range(len(examples)):
    example = examples[i]
    for m in bits:
      if example.get(m):
        bits[m].add(8 * geometry.decode(example[m], m, example['id']).dtype.itemsize)
  return {m: sorted(depths) for m, depths in bits.items()}


def choose_examples(val, preprocess) -> list[dict]:
  """One bona fide sample, and attacks of different kinds; all their images carry signal.

  Prediction rejects a sample with an image without signal, whatever its score.
  """
  chosen = {}  # by label and kind
  kinds = zip(val.columns['label'], val.columns['attack_category'], strict=True)
  for i, kind in enumerate(kinds):
    if kind in chosen or len(chosen) == MAX_SAMPLES:
      continue
    example = val[i]
    given = [bool(example.get(m)) for m in preprocess.modalities]
    if given == preprocess(example)['present'].tolist():
      chosen[kind] = example
  return list(chosen.values())


def _synthetic_example(trained, bits, seed: int) -> dict[str, Any]:
  """Waves and noise, in the bit depth of the data; of the modalities that the data has."""
  rng, S = np.random.default_rng(seed), 2 * trained.model.image_size
  y, x = np.mgrid[:S, :S] / S
  example = {'id': f'pattern_{seed}', 'label': 0}
  for m in trained.model.modalities:
    if not bits[m]:  # the data never has this sensor: no subset with it has a threshold
      continue
    noise = rng.normal(0, 0.2, (S, S, schema.channels(m)))
    unit = np.clip(0.5 + 0.25 * (np.sin(7 * x + 5 * y + seed)[..., None] + noise), 0, 1)
    if 16 not in bits[m]:
      image = (255 * unit).astype(np.uint8)
    elif schema.is_distance(m):  # millimetres about a face at arm's length
      image = (600 + 300 * unit).astype(np.uint16)
    else:
      image = (65535 * unit).astype(np.uint16)
    example[m] = cv2.imencode('.png', image)[1].tobytes()
  return example
