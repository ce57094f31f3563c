"""Every backbone with every fusion on the embedded data set: trains, evaluates, tabulates, draws.

  python -m experiments.flexmodal --workdir=runs/flexmodal --data_dir=prepared

Each combination is one run of `flexfas_jax.main` with a config of configs/, a process on a core of
its own. Run again, it goes on where it was: what has results is not run again. Writes results.csv
and results.png beside this file (or to --out). Times are those of one core.
"""

import argparse
import concurrent.futures
import csv
import itertools
import json
import os
import pathlib
import queue
import subprocess
import sys
import time

from flexfas_jax import lookup
from flexfas_jax.errors import StateError, exit_code_of

HERE = pathlib.Path(__file__).parent
CONFIGS = {  # which config gives the rest: data, augmentation, loss, optimiser
  'vit': 'vit_fusion',
  'resnet': 'resnet_fusion',
  'cdcn': 'cdcn_fusion',
  'caffe_resnet': 'mm_fas',
  'ir_resnet': 'mm_fas',
}
FORMS = {  # further forms of a fusion
  'cross_attention': {
    'cross_attention, reference': {'form': 'reference'},
    'cross_attention, symmetric': {'form': 'symmetric', 'scaled': True},
  }
}
RATES = ('acer', 'apcer', 'bpcer', 'eer', 'auc')
COLUMNS = ('backbone', 'fusion', 'test', 'subset', *RATES, 'seconds')
BATCH = 16
FAMILY = ('rgb', 'rgb+depth', 'rgb+ir', 'rgb+depth+ir')  # FlexModal's four sub-protocols


def grid() -> list[tuple[str, str, dict]]:
  """[(backbone, fusion's title, fusion's fields)], from the folders."""
  fusions = {}
  for name in lookup.choices('fusion'):
    if name != 'single':  # fuses nothing
      fusions |= FORMS.get(name, {name: {}})
  return [
    (backbone, title, {'name': title.partition(',')[0], **fields})
    for backbone, (title, fields) in itertools.product(lookup.choices('backbone'), fusions.items())
  ]


def run(job, workdir: pathlib.Path, data_dir: str, steps: int, cores: queue.Queue) -> str:
  """One combination, on one core; its log stays in the workdir."""
  backbone, title, fusion = job
  folder = workdir / f'{backbone} {title}'.replace(', ', '-').replace(' ', '-')
  if (folder / 'results.json').exists():
    return f'{backbone:13} {title:28} there already'
  command = [
    *(sys.executable, '-m', 'flexfas_jax.main'),
    f'--config=configs/{CONFIGS[backbone]}.py',
    f'--workdir={folder}',
    f'--config.data_dir={data_dir}',
    f'--config.steps={steps}',
    f'--config.batch_size={BATCH}',
    f'--config.eval_every={steps}',
    f'--config.checkpoint_every={steps}',
    f'--config.model.fusion={fusion}',
  ]
  if CONFIGS[backbone] == 'mm_fas':
    small = {'name': backbone, 'variant': 'pico'}
    command.append(f'--config.model.backbone={small}')
  core = cores.get()
  start = time.perf_counter()
  log = workdir / f'{folder.name}.log'
  try:
    with log.open('w') as out:
      done = subprocess.run(
        command, stdout=out, stderr=out, preexec_fn=lambda: os.sched_setaffinity(0, {core})
      )
  finally:
    cores.put(core)
  if done.returncode:
    raise StateError(f'{backbone} with {title} ended with {done.returncode}; see {log}')
  seconds = time.perf_counter() - start
  (folder / 'seconds').write_text(f'{seconds:.0f}')
  return f'{backbone:13} {title:28} {seconds:5.0f} s'


def collect(workdir: pathlib.Path) -> list[dict]:
  """Rows of the table, from every combination's results.json."""
  rows = []
  for backbone, title, _ in grid():
    folder = workdir / f'{backbone} {title}'.replace(', ', '-').replace(' ', '-')
    if not (folder / 'results.json').exists():
      continue
    seconds = (folder / 'seconds').read_text() if (folder / 'seconds').exists() else ''
    for test, subsets in json.loads((folder / 'results.json').read_text()).items():
      for subset, rates in subsets.items():
        row = {'backbone': backbone, 'fusion': title, 'test': test, 'subset': subset}
        row |= {k: f'{rates[k]:.4f}' for k in RATES}
        rows.append(row | {'seconds': seconds})
  return rows


def draw(rows: list[dict], file: pathlib.Path) -> None:
  """ACER of every combination, within and across, for the four sub-protocols."""
  import matplotlib

  matplotlib.use('Agg')
  import matplotlib.pyplot as plt

  names = [f'{b}, {t}' for b, t in dict.fromkeys((r['backbone'], r['fusion']) for r in rows)]
  marks = dict(zip(FAMILY, 'o^sD', strict=True))
  figure, axes = plt.subplots(1, 2, figsize=(11, 1.2 + 0.27 * len(names)), sharey=True)
  for axis, test in zip(axes, ('intra', 'cross'), strict=True):
    for subset, mark in marks.items():
      of = [r for r in rows if r['test'] == test and r['subset'] == subset]
      axis.plot(
        [100 * float(r['acer']) for r in of],
        [names.index(f'{r["backbone"]}, {r["fusion"]}') for r in of],
        mark,
        markersize=6,
        alpha=0.8,
        label=subset,
      )
    axis.set_xlabel('ACER, % (' + {'intra': 'EER threshold of val', 'cross': 'at 0.5'}[test] + ')')
    axis.set_title({'intra': 'within (surf_like, cefa_like)', 'cross': 'across (wmca_like)'}[test])
    axis.set_xlim(-1, 60)
    axis.grid(alpha=0.3)
  axes[0].set_yticks(range(len(names)), names)
  axes[0].invert_yaxis()
  axes[1].legend(loc='upper left', framealpha=1)  # where no ACER is
  figure.suptitle('Rendered faces: every backbone with every fusion')
  figure.tight_layout()
  figure.savefig(file, dpi=110)


def table(rows: list[dict]) -> str:
  """Markdown: ACER in percent, within and across, one line per combination."""
  lines = [
    ' | '.join(['| backbone', 'fusion', *FAMILY, *FAMILY]) + ' |',
    '| --- | --- |' + ' ---: |' * 8,
  ]
  found = {(r['backbone'], r['fusion'], r['test'], r['subset']): r['acer'] for r in rows}
  for backbone, title in dict.fromkeys((r['backbone'], r['fusion']) for r in rows):
    cells = [
      f'{100 * float(found[backbone, title, test, subset]):.1f}'
      for test in ('intra', 'cross')
      for subset in FAMILY
    ]
    lines.append(f'| {backbone} | {title} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def main() -> int:
  parser = argparse.ArgumentParser(
    prog='python -m experiments.flexmodal',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--data_dir', default='prepared')
  parser.add_argument('--steps', type=int, default=200, help='of each training (200)')
  parser.add_argument('--only', default='', help='combinations whose "backbone, fusion" holds this')
  parser.add_argument('--out', type=pathlib.Path, default=HERE, help='for results.csv and .png')
  parser.add_argument('--debug', action='store_true', help='tracebacks instead of messages')
  args = parser.parse_args()

  def command():
    args.workdir.mkdir(parents=True, exist_ok=True)
    jobs = [job for job in grid() if args.only in f'{job[0]}, {job[1]}']
    cores = queue.Queue()
    mine = sorted(os.sched_getaffinity(0))
    for core in mine:
      cores.put(core)
    with concurrent.futures.ThreadPoolExecutor(len(mine)) as pool:
      running = [
        pool.submit(run, job, args.workdir, args.data_dir, args.steps, cores) for job in jobs
      ]
      for i, done in enumerate(concurrent.futures.as_completed(running), 1):
        print(f'{i}/{len(jobs)}  {done.result()}', flush=True)
    rows = collect(args.workdir)
    with (args.out / 'results.csv').open('w', newline='') as file:
      writer = csv.DictWriter(file, COLUMNS)
      writer.writeheader()
      writer.writerows(rows)
    draw(rows, args.out / 'results.png')
    print(table(rows))

  return exit_code_of(command, args.debug)


if __name__ == '__main__':
  sys.exit(main())
