"""Every backbone with every fusion on the embedded data set: trains, evaluates, tabulates, draws.

  python -m experiments.flexmodal --workdir=runs/flexmodal --data_dir=prepared

Each combination is one run of `flexfas_jax.main` with a config of configs/, a process on its own
core. Rerun the same command to resume: combinations with results are skipped. It writes results.csv
and results.png to this folder (or --out). Times are those of one core.
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
CONFIGS = {  # the config of the other fields: data, augmentation, loss, optimiser
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
    if name != 'single':  # takes one modality
      fusions |= FORMS.get(name, {name: {}})
  return [
    (backbone, title, {'name': title.partition(',')[0], **fields})
    for backbone, (title, fields) in itertools.product(lookup.choices('backbone'), fusions.items())
  ]


def run(combination, workdir: pathlib.Path, data_dir: str, steps: int, cores: queue.Queue) -> str:
  """Trains and evaluates one combination on one core; the workdir keeps its log."""
  backbone, title, fusion = combination
  folder = workdir / f'{backbone} {title}'.replace(', ', '-').replace(' ', '-')
  if (folder / 'results.json').exists():
    return f'{backbone:13} {title:28} has results'
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
  """Rows of the table, from the results.json of every combination."""
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
      selected = [r for r in rows if r['test'] == test and r['subset'] == subset]
      axis.plot(
        [100 * float(r['acer']) for r in selected],
        [names.index(f'{r["backbone"]}, {r["fusion"]}') for r in selected],
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
  axes[1].legend(loc='upper left', framealpha=1)  # no ACER is there
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
  parser.add_argument('--only', default='', help='combinations whose "backbone, fusion" has this')
  parser.add_argument('--out', type=pathlib.Path, default=HERE, help='for results.csv and .png')
  parser.add_argument('--debug', action='store_true', help='print tracebacks, not messages')
  args = parser.parse_args()

  def command():
    args.workdir.mkdir(parents=True, exist_ok=True)
    combinations = [c for c in grid() if args.only in f'{c[0]}, {c[1]}']
    cores = queue.Queue()
    available = sorted(os.sched_getaffinity(0))
    for core in available:
      cores.put(core)
    with concurrent.futures.ThreadPoolExecutor(len(available)) as pool:
      futures = [
        pool.submit(run, c, args.workdir, args.data_dir, args.steps, cores) for c in combinations
      ]
      for i, future in enumerate(concurrent.futures.as_completed(futures), 1):
        print(f'{i}/{len(combinations)}  {future.result()}', flush=True)
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
