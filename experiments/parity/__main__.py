"""Compares outputs with those of the PyTorch originals, for the same weights and inputs.

  python -m experiments.parity --fixtures tests/golden

A fixture is NAME.json (the original's tensor names and shapes, its inputs' shapes, a seed) and
NAME.npz (the original's outputs). `recipe.py` fills weights and inputs. The command prints, for
each output, the largest error relative to the output's largest value. It exits with 1 if an error
is above the tolerance.
"""

import argparse
import csv
import json
import pathlib
import re
import sys
import time

import jax
import numpy as np

from experiments.parity import parts, recipe
from flexfas_jax.errors import StateError, exit_code_of
from flexfas_jax.models import flexmodal
from flexfas_jax.models.backbone import vit
from flexfas_jax.models.weights import conversion

TOLERANCE = 1e-4  # of whole networks, float32 on a CPU
PART_TOLERANCE = 2e-5  # of `parts.py`


def compute_outputs(
  model: flexmodal.Model, variables, images: dict, names
) -> dict[str, np.ndarray]:
  """The model's outputs under the fixtures' names.

  Args:
    model, variables: from `conversion.from_torch`.
    images: {modality: [B, 3, H, W] float32}.
    names: of outputs: 'logits' (the difference of the original's two columns),
      'logits_rgb_only_zeros', 'logits_rgb_depth_zeros' (other modalities are absent), 'map',
      'embedding', 'features' (the last map, with the class token if there is one).
  """
  backbone = next(iter(model.module.streams.values()))
  images = {m: _as_inputs(np.moveaxis(x, 1, -1), backbone) for m, x in images.items()}
  model = flexmodal.Model(model.module, next(iter(images.values())).shape[1])

  @jax.jit
  def run(variables, images):
    maps = {m: model.encode(variables, images[m], m) for m in model.modalities}
    absent = model.absent_maps(variables)
    B = len(maps[model.modalities[0]][0])

    def decide(*subset):
      present = np.broadcast_to([m in subset for m in model.modalities], (B, len(model.modalities)))
      return model.decide(variables, maps, absent, present)

    intermediates = model.intermediates(variables, images['rgb'], 'rgb')
    last = max(name for name in intermediates if name.startswith('map_'))
    outputs = {'features': intermediates[last], 'tokens': intermediates[last]}
    if 'pooled' in intermediates:
      outputs['pooled'] = intermediates['pooled']
    outputs |= {k: v for k, v in decide(*model.modalities).items() if v is not None}
    if 'logits_rgb_only_zeros' in names:
      outputs['logits_rgb_only_zeros'] = decide('rgb')['logit']
    if 'logits_rgb_depth_zeros' in names:
      outputs['logits_rgb_depth_zeros'] = decide('rgb', 'depth')['logit']
    return outputs

  outputs = jax.device_get(run(variables, images))
  outputs['logits'] = outputs.pop('logit', None)
  outputs['head'] = outputs.get('embedding') if getattr(backbone, 'projection', 0) else None
  if outputs['features'].ndim == 4:
    outputs['features'] = np.moveaxis(outputs['features'], -1, 1)  # PyTorch's [B, D, h, w]
  return outputs


def _as_inputs(normalised, backbone) -> np.ndarray:
  """[B, H, W, 3] as the original's weights take it, to this package's (pixel - 127.5) / 128."""
  if not getattr(backbone, 'statistics', None):
    return normalised
  mean, std = np.array(vit.STATISTICS[backbone.statistics])
  pixels = 255 * (normalised.astype(np.float64) * std + mean)
  return ((pixels - 127.5) / 128).astype(np.float32)


def compare(fixture: pathlib.Path) -> list[tuple[str, str, str, float, float]]:
  """[(fixture, architecture, output, relative error, seconds)] of one fixture."""
  start = time.perf_counter()
  spec = json.loads(fixture.read_text())
  architecture, expected = spec['architecture'], recipe.expected(fixture)
  if part := parts.find(architecture):
    outputs = part(recipe.weights(fixture), recipe.inputs(fixture), spec)
    # The mean of random draws, and their deviation, are no outputs of a function.
    expected = {k: v for k, v in expected.items() if split_name(k)[0] in outputs}
    return _rows(fixture, architecture, expected, jax.device_get(outputs), start)
  model, variables = conversion.from_torch(recipe.weights(fixture), architecture)
  order = conversion.ARCHITECTURES[architecture].inputs
  images = dict(zip(order, recipe.inputs(fixture), strict=True))
  names = {split_name(name)[0] for name in expected}
  outputs = compute_outputs(model, variables, images, names)
  return _rows(fixture, architecture, expected, outputs, start)


def _rows(fixture: pathlib.Path, architecture: str, expected, outputs, start: float):
  rows = []
  for name, original in expected.items():
    plain, step = split_name(name)
    if outputs.get(plain) is None:
      raise StateError(f'{fixture}: {architecture} has no output {name!r}')
    output = outputs[plain][..., ::step] if step > 1 else outputs[plain]
    if plain.startswith('logits'):
      original = original[:, 1] - original[:, 0]
    if output.shape != original.shape:
      raise StateError(f"{fixture}: {name} is {output.shape}, the original's is {original.shape}")
    error = float(np.abs(output - original).max() / np.abs(original).max())
    rows.append((fixture.stem, architecture, name, error, time.perf_counter() - start))
  return rows


def split_name(name: str) -> tuple[str, int]:
  """An output's name and the step by which its last axis is sampled: 'out[::16]_a' is out_a, 16."""
  match = re.fullmatch(r'(\w+)(?:\[::(\d+)\])?(\w*)', name)
  if not match:
    raise StateError(f'{name!r} is no name of an output, such as map or tokens[::16]')
  return match[1] + match[3], int(match[2] or 1)


def run(folder: pathlib.Path, tolerance: float | None, out: pathlib.Path | None) -> int:
  """Compares every fixture of a folder; returns the number of outputs above the tolerance."""
  fixtures = sorted(f for f in folder.glob('*.json') if f.with_suffix('.npz').exists())
  if not fixtures:
    raise StateError(f'{folder} holds no fixture: a NAME.json with its NAME.npz')
  print(f'{"fixture":30} {"output":24} {"largest error / largest value":>30} {"seconds":>8}')
  rows, wrong = [], 0
  for fixture in fixtures:
    for row in compare(fixture):
      rows.append(row)
      name, architecture, output, error, seconds = row
      limit = tolerance or (PART_TOLERANCE if architecture in parts.PARTS else TOLERANCE)
      # Not `error > tolerance`, which is false for NaN.
      verdict = '' if error <= limit else f'  above {limit:g}'
      wrong += not error <= limit
      print(f'{name:30} {output:24} {error:30.2e} {seconds:8.1f}{verdict}', flush=True)
  if out:
    with out.open('w', newline='') as file:
      writer = csv.writer(file, lineterminator='\n')
      writer.writerow(('fixture', 'architecture', 'output', 'relative_error'))
      writer.writerows((*row[:3], f'{row[3]:.3g}') for row in rows)
  print(f'{len(rows)} outputs of {len(fixtures)} fixtures, {wrong} above the tolerance')
  return wrong


def main() -> int:
  parser = argparse.ArgumentParser(
    prog='python -m experiments.parity',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--fixtures', type=pathlib.Path, required=True, metavar='DIR')
  parser.add_argument(
    '--tolerance',
    type=float,
    help=f'relative error ({TOLERANCE:g} of whole networks, {PART_TOLERANCE:g} of parts)',
  )
  parser.add_argument('--out', type=pathlib.Path, metavar='CSV', help='also write the table to CSV')
  parser.add_argument('--debug', action='store_true', help='print tracebacks, not messages')
  args = parser.parse_args()
  wrong = 0

  def command():
    nonlocal wrong
    wrong = run(args.fixtures, args.tolerance, args.out)

  return exit_code_of(command, args.debug) or int(wrong > 0)


if __name__ == '__main__':
  sys.exit(main())
