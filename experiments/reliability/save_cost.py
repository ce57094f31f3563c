"""The cost of an asynchronous checkpoint for the training steps during its write.

  python -m experiments.reliability.save_cost --workdir=runs/save_cost --data_dir=prepared

Trains ViT-S (22 M parameters, 0.26 GB of state) with the main command, saves at every tenth step,
and compares the steps after a save with those without a write. It takes four minutes on two CPU
cores, which write and train at the same time; the host of an accelerator has cores to spare.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys

STEPS, EVERY = 60, 10


def main() -> None:
  """Prints medians and quartiles."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--data_dir', default='prepared')
  arguments = parser.parse_args()
  shutil.rmtree(arguments.workdir, ignore_errors=True)
  changed = {
    'data_dir': arguments.data_dir,
    'steps': STEPS + 5,
    'eval_every': 1000,
    'checkpoint_every': EVERY,
    'log_every': 1,
    'batch_size': 16,
    'model.backbone.variant': 'S',
  }
  subprocess.run(
    [
      *(sys.executable, '-m', 'flexfas_jax.main', '--config=configs/vit_fusion.py', '--mode=train'),
      f'--workdir={arguments.workdir}',
      *(f'--config.{name}={value}' for name, value in changed.items()),
    ],
    check=True,
  )
  lines = (arguments.workdir / 'metrics.jsonl').read_text().splitlines()
  rows = {row['step']: row for row in map(json.loads, lines) if 'speed/step_seconds' in row}
  own = {s: r['speed/step_seconds'] - r['speed/save_seconds'] for s, r in rows.items() if s > 5}
  saves = [s for s in own if s % EVERY == 0 and s <= STEPS]
  during = [own[s + 1] for s in saves] + [own[s + 2] for s in saves]
  quiet = [seconds for s, seconds in own.items() if s <= STEPS and 5 <= s % EVERY < 10]
  # A row ends before the save of its step, whose seconds are in the next one.
  blocked = [rows[s + 1]['speed/save_seconds'] for s in saves]
  period = [sum(rows[s + i]['speed/step_seconds'] for i in range(1, EVERY)) for s in saves[:-1]]
  for name, values in (
    ('a step, nothing being saved', quiet),
    ('one of the two after a save', during),
    ('the call that saves', blocked),
    (f'{EVERY - 1} steps with a save before them', period),
  ):
    low, middle, high = statistics.quantiles(values, n=4)
    print(f'{name}: {middle:.3f} s ({low:.3f} to {high:.3f}, n = {len(values)})')
  extra = statistics.median(period) / (EVERY - 1) / statistics.median(quiet) - 1
  print(f'saving every {EVERY} steps makes them {100 * extra:.1f} % longer')


if __name__ == '__main__':
  main()
