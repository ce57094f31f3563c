"""A bundle small enough to be worked out on paper, as an export writes them."""

import functools
import hashlib
import json

import cv2
import jax
import jax.export
import jax.numpy as jnp
import numpy as np

MODALITIES = ('rgb', 'depth', 'ir')
SIZE = 8
WEIGHT = {'rgb': 2.0, 'depth': -3.0, 'ir': 4.0}  # of a picture's mean
SUBSETS = ('rgb', 'rgb+depth', 'rgb+ir', 'rgb+depth+ir', 'depth', 'ir', 'depth+ir')
WEIGHTS = 'w' * 8
INPUTS = {
  'rgb': {'channels': 3, 'bits': [8]},
  'depth': {'channels': 1, 'bits': [8, 16], 'unit': 'mm'},
  'ir': {'channels': 1, 'bits': [8]},
}
THRESHOLDS = {name: 0.3 + 0.05 * i for i, name in enumerate(SUBSETS)}


def logit(*arrays):
  """The model: a sum over what is present, times its weight; nan where RGB is nearly white."""
  *images, present = arrays
  means = jnp.stack([x.mean((1, 2, 3)) for x in images], 1)  # [B, M]
  found = (means * present * jnp.array(list(WEIGHT.values()))[None]).sum(1)
  return jnp.where(means[:, 0] > 0.98, jnp.nan, found)


@functools.cache
def program():
  """The bytes of `model.stablehlo`."""
  (batch,) = jax.export.symbolic_shape('B')
  shapes = [
    jax.ShapeDtypeStruct((batch, SIZE, SIZE, 3 if m == 'rgb' else 1), jnp.float32)
    for m in MODALITIES
  ]
  present = jax.ShapeDtypeStruct((batch, len(MODALITIES)), bool)
  return jax.export.export(jax.jit(logit), platforms=('cpu',))(*shapes, present).serialize()


def threshold(value):
  counts = {label: {'scores': 30, 'subjects': 10} for label in ('attack', 'bona_fide')}
  return {'value': value, 'rule': 'dev_eer', 'weights_hash': WEIGHTS, 'counts': counts}


def about(content):
  """What a card says of a file."""
  return {'bytes': len(content), 'sha256': hashlib.sha256(content).hexdigest()}


def entry(content, size=SIZE, **fields):
  inputs = [
    {'name': m, 'shape': ['B', size, size, 3 if m == 'rgb' else 1], 'dtype': 'float32'}
    for m in MODALITIES
  ]
  return {
    'weights_hash': WEIGHTS,
    'file': 'model.stablehlo',
    'format': 'stablehlo',
    'precision': 'float32',
    'modalities': list(MODALITIES),
    'present': True,
    'inputs': [*inputs, {'name': 'present', 'shape': ['B', 3], 'dtype': 'bool'}],
    'outputs': [{'name': 'logit', 'shape': ['B'], 'dtype': 'float32'}],
    **about(content),
    **fields,
  }


def write(folder, **changes):
  """Writes a bundle; `changes` are of its card, None taking a field out."""
  folder.mkdir(parents=True, exist_ok=True)
  content = bytes(program())
  subsets = changes.get('subsets') or SUBSETS
  if 'models' not in changes:
    (folder / 'model.stablehlo').write_bytes(content)
  card = {
    'bundle': 2,
    'sequence': 7,
    'name': 'toy',
    'version': '0.1.0',
    'model': {},
    'step': 1,
    'weights_hash': WEIGHTS,
    'modalities': list(MODALITIES),
    'requires': [],
    'absent': 'token',
    'image_size': SIZE,
    'subsets': list(SUBSETS),
    'inputs': INPUTS,
    'thresholds': {n: threshold(v) for n, v in THRESHOLDS.items() if n in subsets},
    'evidence': {'min_scores': 30, 'min_subjects': 10},
    'metrics': {},
    'licence': 'none',
    'notes': [],
    'models': [entry(content)],
    'files': {},
    **changes,
  }
  card = {name: value for name, value in card.items() if value is not None}
  (folder / 'card.json').write_text(json.dumps(card))
  return folder


def picture(seed, mean=0.0, size=24, channels=1, dtype=np.uint8):
  """[size, size, channels] of patches about a value whose unit in [-1, 1] is `mean`, with noise."""
  rng = np.random.default_rng(seed)
  n = size // 8
  patches = rng.permuted(np.linspace(-30, 30, n * n)).reshape(n, n)
  patches = cv2.resize(patches, (size, size), interpolation=cv2.INTER_NEAREST)
  levels = 127.5 + 128 * mean + patches[..., None] + rng.uniform(-6, 6, (size, size, channels))
  return np.clip(levels, 0, 255).astype(dtype)


def triplet(seed=0, rgb=0.5, depth=-0.2, ir=0.3):
  """{modality: array} of pictures that have nothing in common."""
  means = {'rgb': rgb, 'depth': depth, 'ir': ir}
  return {
    m: picture(10 * seed + i, mean, channels=3 if m == 'rgb' else 1)
    for i, (m, mean) in enumerate(means.items())
  }


def png(image):
  return cv2.imencode('.png', np.ascontiguousarray(image[..., ::-1]))[1].tobytes()


def score_of(arrays, used):
  """What the model must say, by NumPy."""
  total = sum(WEIGHT[m] * arrays[m].mean(dtype=np.float64) for m in used)
  return 1 / (1 + np.exp(-total))
