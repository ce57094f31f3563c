"""Exports of full-size networks: sizes, seconds, differences, latency. Uses no data.

  python -m experiments.performance.exports [--only=vit] [--out=exports.csv]

The models are those of the paper's recipes (`configs/*_fusion.py:flexmodal`) with random weights:
their decisions mean nothing, but their computation is the same. Every file is compared on fixed,
random and masked inputs, as in an export, and then timed at batch 1.
"""

import argparse
import csv
import importlib
import pathlib
import statistics
import tempfile
import time

import jax

from experiments.performance import latency
from flexfas_jax.export import bundle, graph, parity, reference, trained_model
from flexfas_jax.models import flexmodal
from tests.toy import fill

MODELS = {'vit': 'vit_fusion', 'resnet': 'resnet_fusion', 'cdcn': 'cdcn_fusion'}


def build(config: str) -> trained_model.TrainedModel:
  """A config's model with random weights."""
  fields = importlib.import_module(f'configs.{config}').get_config('flexmodal').model.to_dict()
  abstract = jax.eval_shape(flexmodal.build(**fields).init, jax.random.key(0))
  return trained_model.create(fields, fill(abstract))


def measure(name: str, rounds: int, threads: int) -> list[dict]:
  """A row per file."""
  trained, rows = build(MODELS[name]), []
  everything = graph.build(trained.model, trained.variables)
  rgb = graph.build(trained.model, trained.variables, ('rgb',))
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    for format in bundle.FORMATS:
      writer = importlib.import_module(f'flexfas_jax.export.formats.{format}')
      for one in (everything, rgb) if writer.FIXED_SUBSETS else (everything,):
        start = time.perf_counter()
        entries = writer.write(one, trained, folder)
        seconds = time.perf_counter() - start
        for entry in entries:
          # One file at a time: each runner holds a copy of the weights.
          (measured,) = parity.measure(trained, [entry], folder, {})
          run = latency.runner(folder, entry, threads)
          (times,) = latency.measure({entry['file']: run}, rounds).values()
          rows.append(
            {
              'model': name,
              'image_size': trained.model.image_size,
              'file': entry['file'],
              'modalities': '+'.join(entry['modalities']),
              'MB': round((folder / entry['file']).stat().st_size / 1e6, 1),
              'export_s': round(seconds, 1),
              'difference': f'{max(measured["difference"].values()):.1e}',
              'median_ms': round(1e3 * statistics.median(times), 1),
              'fastest_ms': round(1e3 * min(times), 1),
            }
          )
          print('  '.join(f'{k} {v}' for k, v in rows[-1].items()), flush=True)
          del run
  return rows


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--only', choices=MODELS)
  parser.add_argument('--rounds', type=int, default=10)
  parser.add_argument('--threads', type=int, default=1, help='of ONNX and TFLite')
  parser.add_argument('--out', type=pathlib.Path)
  args = parser.parse_args()
  reference.BATCH = 16  # CDCN with three streams takes seconds for each sample
  rows = []
  for name in [args.only] if args.only else MODELS:
    rows += measure(name, args.rounds, args.threads)
  if args.out:
    with args.out.open('w', newline='') as file:
      writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
      writer.writeheader()
      writer.writerows(rows)


if __name__ == '__main__':
  main()
