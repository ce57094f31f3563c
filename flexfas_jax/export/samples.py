"""Samples of a bundle: pictures, what preprocessing makes of them, what the model then says.

Whoever runs the model elsewhere compares each step. Pictures are the val set's where they are
rendered; faces of people stay where their licence has them, and patterns take their place.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy.special

from flexfas_jax.export import reference
from flexfas_jax.images import geometry
from flexfas_jax.schema import LABELS, subset_name

MOST = 4
_RENDERED = 'rendered_faces/'


def is_rendered(config) -> bool:
  """Whether nobody who exists is in a run's data."""
  names = f'{config.train},{config.val}'.split(',')
  return all(name.strip().startswith(_RENDERED) for name in names)


def write(source, val, thresholds, folder: Path) -> None:
  """`samples/*.png` and `samples/samples.json`.

  Args:
    source: `source.Source`.
    val: its val set.
    thresholds: by subset.
    folder: of the bundle.
  """
  (folder / 'samples').mkdir()
  rendered = is_rendered(source.config)
  if rendered:
    chosen = choose(val, source.preprocess)
  else:
    chosen = [_pattern(source, bits_of(val, source), k) for k in (0, 1)]
  told, arrays = [], []
  for number, example in enumerate(chosen):
    files, pictures = {}, {}
    for m in source.model.modalities:
      if not example.get(m):
        continue
      image = geometry.decode(example[m], m, example['id'])
      ok, encoded = cv2.imencode('.png', image[..., ::-1] if m == 'rgb' else image)
      assert ok  # PNG holds 8 and 16 bits, 1 and 3 channels
      files[m] = f'samples/{number}_{m}.png'
      (folder / files[m]).write_bytes(encoded.tobytes())
      pictures[m] = encoded.tobytes()
    arrays.append(source.preprocess({'id': example['id'], 'label': 0, **pictures}))
    told.append(
      {
        'id': example['id'],
        'label': LABELS[example['label']] if rendered else None,
        'files': files,
        'present': arrays[-1]['present'].tolist(),
        'arrays': {m: array_told(arrays[-1][m]) for m in source.model.modalities},
      }
    )
  stack = {m: np.stack([a[m] for a in arrays]) for m in (*source.model.modalities, 'present')}
  logits = reference.make(source.model, source.variables)(stack, stack['present'], source.subsets)
  for subset, row in zip(source.subsets, logits, strict=True):
    name = subset_name(subset)
    of = np.array([m in subset for m in source.model.modalities])
    here = reference.servable(source.model, stack['present'] & of)
    for one, logit, served in zip(told, row.astype(np.float64), here, strict=True):
      if served:
        score = float(scipy.special.expit(logit))
        decided = {'logit': float(logit), 'score': score}
        if name in thresholds:
          decided['accept'] = bool(score >= thresholds[name]['value'])
        one.setdefault('expected', {})[name] = decided
  about = {
    'rendered': rendered,
    'weights_hash': source.weights_hash,
    'arrays': 'SHA-256 of the float32 values, little-endian, [S, S, C] in C order',
    'samples': told,
  }
  (folder / 'samples' / 'samples.json').write_text(json.dumps(about, indent=1) + '\n')


def array_told(array: np.ndarray) -> dict[str, Any]:
  """Shape and hash of a preprocessed image, and its mean for whoever is off by a rounding."""
  data = np.ascontiguousarray(array, '<f4').tobytes()
  digest = hashlib.sha256(data).hexdigest()
  return {'shape': list(array.shape), 'sha256': digest, 'mean': float(array.mean(dtype=np.float64))}


def bits_of(val, source, most: int = 64) -> dict[str, list[int]]:
  """{modality: bits per channel of val's pictures}, of some of them, evenly spread."""
  bits = {m: set() for m in source.model.modalities}
  for i in np.unique(np.linspace(0, len(val) - 1, most).round().astype(int)):
    example = val[int(i)]
    for m in bits:
      if example.get(m):
        bits[m].add(8 * geometry.decode(example[m], m, example['id']).dtype.itemsize)
  return {m: sorted(found) for m, found in bits.items()}


def choose(val, preprocess) -> list[dict]:
  """One bona fide sample, and attacks of different kinds, of which every image carries signal.

  Prediction does not accept a sample with an image that carries none, whatever the score is.
  """
  found = {}  # by label and kind
  for i, (label, kind) in enumerate(
    zip(val.columns['label'], val.columns['attack_category'], strict=True)
  ):
    if (label, kind) in found or len(found) == MOST:
      continue
    example = val[i]
    given = [bool(example.get(m)) for m in preprocess.modalities]
    if given == preprocess(example)['present'].tolist():
      found[label, kind] = example
  return list(found.values())


def _pattern(source, bits, seed: int) -> dict[str, Any]:
  """A made-up example: waves and noise, in the bits of the data."""
  rng, S = np.random.default_rng(seed), 2 * source.model.image_size
  y, x = np.mgrid[:S, :S] / S
  example = {'id': f'pattern_{seed}', 'label': 0}
  for m in source.model.modalities:
    deep = 16 in bits[m]
    wave = np.sin(7 * x + 5 * y + seed)[..., None] + rng.normal(
      0, 0.2, (S, S, 3 if m == 'rgb' else 1)
    )
    unit = np.clip(0.5 + 0.25 * wave, 0, 1)
    # Millimetres about a face at arm's length, or grey levels.
    values = 600 + 300 * unit if deep and m == 'depth' else unit * (65535 if deep else 255)
    example[m] = cv2.imencode('.png', values.astype(np.uint16 if deep else np.uint8))[1].tobytes()
  return example
