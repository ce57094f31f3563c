"""Adapters on a frozen ViT beside full fine-tuning and a linear probe: trains, tabulates, draws.

  python -m experiments.adapters --workdir=runs/adapters --data_dir=prepared

Pretrains the small ViT on faces once, then trains every laptop recipe of configs/adapter_fusion.py
with every seed, each run a process on its core. Rerun the same command to resume: runs with results
are skipped. It writes results.csv and results.png to this folder (or --out).
"""

import argparse
import concurrent.futures
import csv
import itertools
import json
import os
import pathlib
import queue
import re
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np

from flexfas_jax.errors import StateError, exit_code_of

HERE = pathlib.Path(__file__).parent
RECIPES = (
  *('full', 'linear', 'conv', 'ama', 'mmdg', 'mmdg_plus', 'lora_dinov2', 'lora_clip', 'prompts'),
)
RATES = ('acer', 'apcer', 'bpcer', 'eer', 'auc')
COLUMNS = ('recipe', 'seed', 'trained', 'parameters', 'seconds', 'test', 'subset', *RATES)
SHOWN = ('rgb', 'rgb+depth', 'rgb+ir', 'rgb+depth+ir')


def train(config: str, folder: pathlib.Path, core: int, *options: str) -> None:
  """One run of `flexfas_jax.main` on one core; its log is beside the folder."""
  if (folder / 'results.json').exists():
    return
  command = [sys.executable, '-m', 'flexfas_jax.main', f'--config=configs/{config}']
  command += [f'--workdir={folder}', *options]
  log = folder.with_suffix('.log')
  start = time.perf_counter()
  with log.open('w') as out:
    done = subprocess.run(
      command, stdout=out, stderr=out, preexec_fn=lambda: os.sched_setaffinity(0, {core})
    )
  if done.returncode:
    raise StateError(f'{config} ended with {done.returncode}; see {log}')
  (folder / 'seconds').write_text(f'{time.perf_counter() - start:.0f}')


def millions(log: str) -> tuple[str, str]:
  """(trained, all) parameters in millions, from a run's first line."""
  match = re.search(r'([\d.]+) M parameters(?: \(([\d.]+) M of them train\))?', log)
  return (match[2] or match[1], match[1]) if match else ('', '')


def collect(workdir: pathlib.Path, recipes: Sequence[str], seeds: Sequence[int]) -> list[dict]:
  """Rows of the table, from the results.json of every run."""
  rows = []
  for recipe, seed in itertools.product(recipes, seeds):
    folder = workdir / f'{recipe}-{seed}'
    if not (folder / 'results.json').exists():
      continue
    trained, parameters = millions(folder.with_suffix('.log').read_text())
    run = {'recipe': recipe, 'seed': seed, 'trained': trained, 'parameters': parameters}
    run['seconds'] = (folder / 'seconds').read_text() if (folder / 'seconds').exists() else ''
    for test, subsets in json.loads((folder / 'results.json').read_text()).items():
      for subset, rates in subsets.items():
        row = {**run, 'test': test, 'subset': subset}
        rows.append(row | {k: f'{rates[k]:.4f}' for k in RATES})
  return rows


def cell(rows: Sequence[dict], **where: str) -> list[float]:
  """ACER in percent of the rows with these values."""
  return [100 * float(r['acer']) for r in rows if all(r[k] == v for k, v in where.items())]


def table(rows: Sequence[dict]) -> str:
  """Markdown: trained parameters, then mean ACER (standard deviation) over the seeds."""
  tests = list(dict.fromkeys(r['test'] for r in rows))
  head = ' | '.join(f'{test}, {subset}' for test in tests for subset in SHOWN)
  lines = [f'| recipe | trained, M | seconds | {head} |']
  lines.append('| --- |' + ' ---: |' * (2 + len(tests) * len(SHOWN)))
  for recipe in dict.fromkeys(r['recipe'] for r in rows):
    of = [r for r in rows if r['recipe'] == recipe]
    seconds = np.median([float(r['seconds'] or 'nan') for r in of])
    cells = [f'{recipe}', of[0]['trained'], f'{seconds:.0f}']
    for test, subset in itertools.product(tests, SHOWN):
      values = cell(of, test=test, subset=subset)
      deviation = f' ({np.std(values, ddof=1):.1f})' if len(values) > 1 else ''
      cells.append(f'{np.mean(values):.1f}{deviation}')
    lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines)


def draw(rows: Sequence[dict], file: pathlib.Path) -> None:
  """ACER against trained parameters, with RGB alone and with all sensors."""
  import matplotlib

  matplotlib.use('Agg')
  import matplotlib.pyplot as plt

  tests = list(dict.fromkeys(r['test'] for r in rows))
  figure, axes = plt.subplots(1, len(tests), figsize=(5.5 * len(tests), 4.2), sharey=True)
  for axis, test in zip(np.atleast_1d(axes), tests, strict=True):
    for subset, mark in (('rgb', 'o'), ('rgb+depth+ir', 'D')):
      for i, recipe in enumerate(dict.fromkeys(r['recipe'] for r in rows)):
        of = [r for r in rows if r['recipe'] == recipe]
        values = cell(of, test=test, subset=subset)
        x = [1e3 * float(of[0]['trained'])] * len(values)
        axis.plot(x, values, mark, color=f'C{i}', alpha=0.35, markersize=5)
        label = recipe if mark == 'D' else None
        axis.plot(x[:1], [np.mean(values)], mark, color=f'C{i}', markersize=9, label=label)
    axis.set_xscale('log')
    axis.set_xlabel('trained parameters, thousands')
    axis.set_title(f'{test}: circles RGB alone, diamonds all sensors')
    axis.grid(alpha=0.3)
  np.atleast_1d(axes)[0].set_ylabel('ACER, %')
  np.atleast_1d(axes)[-1].legend(fontsize=8)
  figure.suptitle('RENDERED faces: adapters on a frozen ViT; small marks are single seeds')
  figure.tight_layout()
  figure.savefig(file, dpi=110)


def main(argv: list[str] | None = None) -> int:
  """Parses the command line and runs the recipes; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m experiments.adapters',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--data_dir', default='prepared')
  parser.add_argument('--recipes', default=','.join(RECIPES), help='of configs/adapter_fusion.py')
  parser.add_argument(
    '--seeds',
    type=lambda text: [int(x) for x in text.split(',')],
    default=[0, 1, 2],
    help='a run of every recipe for each (0,1,2)',
  )
  parser.add_argument('--steps', type=int, help="of each training, instead of the recipe's")
  parser.add_argument('--cores', type=int, help='runs at a time, each on a core (all)')
  parser.add_argument('--out', type=pathlib.Path, default=HERE, help='for results.csv and .png')
  parser.add_argument('--debug', action='store_true', help='print tracebacks, not messages')
  args = parser.parse_args(argv)

  def command():
    args.workdir.mkdir(parents=True, exist_ok=True)
    recipes = args.recipes.split(',')
    data = f'--config.data_dir={args.data_dir}'
    cores = sorted(os.sched_getaffinity(0))[: args.cores]
    faces = args.workdir / 'faces'
    train('face_recognition.py:vit', faces, cores[0], data)
    free: queue.Queue[int] = queue.Queue()
    for core in cores:
      free.put(core)
    options = [data, f'--config.pretrained.weights={faces}']
    if args.steps:
      every = max(args.steps // 3, 1)
      options += [f'--config.{k}={every}' for k in ('eval_every', 'checkpoint_every')]
      options.append(f'--config.steps={args.steps}')

    def run(seed: int, recipe: str) -> str:
      core = free.get()
      try:
        folder = args.workdir / f'{recipe}-{seed}'
        config = f'adapter_fusion.py:{recipe}'
        train(config, folder, core, f'--config.seed={seed}', *options)
      finally:
        free.put(core)
      return f'{recipe}, seed {seed}'

    runs = list(itertools.product(args.seeds, recipes))  # every recipe before the next seed
    with concurrent.futures.ThreadPoolExecutor(len(cores)) as pool:
      futures = [pool.submit(run, *each) for each in runs]
      for i, future in enumerate(concurrent.futures.as_completed(futures), 1):
        print(f'{i}/{len(runs)}  {future.result()}', flush=True)
    rows = collect(args.workdir, recipes, args.seeds)
    with (args.out / 'results.csv').open('w', newline='') as out:
      writer = csv.DictWriter(out, COLUMNS, lineterminator='\n')
      writer.writeheader()
      writer.writerows(rows)
    draw(rows, args.out / 'results.png')
    print(f'\nRENDERED faces; ACER in percent, mean of {len(args.seeds)} runs')
    print(table(rows))

  return exit_code_of(command, args.debug)


if __name__ == '__main__':
  sys.exit(main())
