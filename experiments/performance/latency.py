"""Latency of one decision with each file of a bundle, batch 1, on this machine's CPU.

  python -m experiments.performance.latency bundle [--threads=1] [--out=latency.csv]

Each round runs every file once, so that other load on the machine affects all alike. Reported are
the median of the rounds and the fastest; times are those of the runner, without preprocessing.
"""

import argparse
import csv
import importlib
import json
import pathlib
import statistics
import time

import numpy as np


def runner(folder: pathlib.Path, entry: dict, threads: int):
  """A function without arguments that runs a file on noise, batch 1."""
  module = importlib.import_module(f'flexfas_jax.prediction.runners.{entry["format"]}')
  options = {'threads': threads} if entry['format'] in ('onnx', 'tflite') else {}
  run = module.load((folder / entry['file']).read_bytes(), entry, **options)
  rng = np.random.default_rng(0)
  images = {
    one['name']: rng.uniform(-1, 1, (1, *one['shape'][1:])).astype(np.float32)
    for one in entry['inputs']
    if one['name'] != 'present'
  }
  return lambda: run(images)


def measure(runs, rounds: int) -> dict[str, list[float]]:
  """{file: seconds of each round}, after a tenth as many rounds to warm up."""
  seconds = {file: [] for file in runs}
  for number in range(rounds + max(3, rounds // 10)):
    for file, run in runs.items():
      start = time.perf_counter()
      run()
      if number >= max(3, rounds // 10):
        seconds[file].append(time.perf_counter() - start)
  return seconds


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('bundle', type=pathlib.Path, nargs='+')
  parser.add_argument('--threads', type=int, default=1, help='of ONNX and TFLite')
  parser.add_argument('--rounds', type=int, default=200)
  parser.add_argument('--out', type=pathlib.Path)
  args = parser.parse_args()
  rows = []
  for bundle in args.bundle:
    entries = json.loads((bundle / 'card.json').read_text())['models']
    runs = {e['file']: runner(bundle, e, args.threads) for e in entries}
    for entry, seconds in zip(entries, measure(runs, args.rounds).values(), strict=True):
      rows.append(
        {
          'bundle': bundle.name,
          'file': entry['file'],
          'modalities': '+'.join(entry['modalities']),
          'precision': entry['precision'],
          'MB': round(entry['bytes'] / 1e6, 2),
          'median_ms': round(1e3 * statistics.median(seconds), 3),
          'fastest_ms': round(1e3 * min(seconds), 3),
        }
      )
      print('  '.join(f'{k} {v}' for k, v in rows[-1].items()), flush=True)
  if args.out:
    with args.out.open('w', newline='') as file:
      writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
      writer.writeheader()
      writer.writerows(rows)


if __name__ == '__main__':
  main()
