"""Every backbone with every fusion on the embedded data set: trains, evaluates, tabulates, draws.

  python -m experiments.flexmodal --workdir=runs/flexmodal --data_dir=prepared

Each combination and seed is one run of `flexfas_jax.main` with a config of configs/, a process on
its own core. Rerun the same command to resume: runs with results are skipped. It writes results.csv
and results.png to this folder (or --out). Times are those of one core.

results.csv has every rate by frame and by video (the mean of its frames' scores), at the test's
threshold and at the EER threshold of val.

With --seeds=0,1,2 the table has means over the seeds. means.csv has the mean ACER and AUC of every
combination with intervals over runs and subjects; comparisons.csv compares every fusion with
`concat` on the same backbone, likewise; rankings.csv has Kendall's tau-b of the ranking of all
combinations between seeds.
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
from collections.abc import Sequence

import numpy as np

from experiments.flexmodal import ranking, rates
from flexfas_jax import lookup
from flexfas_jax.errors import StateError, exit_code_of
from flexfas_jax.evaluation import comparisons, evaluate

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
KEYS = ('test', 'subset', 'unit', 'threshold')
COLUMNS = ('backbone', 'fusion', 'seed', *KEYS, *RATES, 'seconds')
BASELINE = 'concat'  # that every other fusion is compared with
COMPARED = ('rgb', 'rgb+depth+ir')
COMPARISONS = (
  *('backbone', 'fusion', 'test', 'subset', 'runs', 'difference', 'low', 'high', 'p_holm'),
  'verdict',
)
MEANS = (
  *('backbone', 'fusion', 'runs', *KEYS),
  *('acer', 'acer_low', 'acer_high', 'acer_deviation', 'auc', 'auc_low', 'auc_high'),
)
RANKINGS = (
  *(*KEYS, 'by', 'models', 'seeds', 'mean_tau_b', 'least', 'most'),
  *('one_backbone', 'two_backbones'),  # `ranking.agreement` of such pairs of combinations
)
RANKED = {'acer': 1, 'auc': -1}  # rates that combinations are ranked by, and the sign of the better
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


def folder_of(workdir: pathlib.Path, backbone: str, title: str, seed: int) -> pathlib.Path:
  """The workdir of one run."""
  return workdir / f'{backbone} {title} seed{seed}'.replace(', ', '-').replace(' ', '-')


def run(
  combination, seed: int, workdir: pathlib.Path, data_dir: str, steps: int, cores: queue.Queue
) -> str:
  """Trains and evaluates one combination on one core; the workdir keeps its log."""
  backbone, title, fusion = combination
  folder = folder_of(workdir, backbone, title, seed)
  if (folder / 'results.json').exists():
    return f'{backbone:13} {title:28} {seed} has results'
  command = [
    *(sys.executable, '-m', 'flexfas_jax.main'),
    f'--config=configs/{CONFIGS[backbone]}.py',
    f'--workdir={folder}',
    f'--config.data_dir={data_dir}',
    f'--config.seed={seed}',
    f'--config.steps={steps}',
    f'--config.batch_size={BATCH}',
    f'--config.eval_every={steps}',
    f'--config.checkpoint_every={steps}',
    '--config.report=False',
    f'--config.model.fusion={fusion}',
  ]
  if CONFIGS[backbone] == 'mm_fas':
    small = {'name': backbone, 'variant': 'pico'}
    command.append(f'--config.model.backbone={small}')
  core = cores.get()
  start = time.perf_counter()
  log = workdir / f'{folder.name}.log'
  compiled = {'JAX_COMPILATION_CACHE_DIR': str(workdir / 'compiled'), **os.environ}
  try:
    with log.open('w') as out:
      done = subprocess.run(
        command,
        env=compiled,  # once for all seeds
        stdout=out,
        stderr=out,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
      )
  finally:
    cores.put(core)
  if done.returncode:
    raise StateError(
      f'{backbone} with {title}, seed {seed}, ended with {done.returncode}; see {log}'
    )
  seconds = time.perf_counter() - start
  (folder / 'seconds').write_text(f'{seconds:.0f}')
  return f'{backbone:13} {title:28} {seed} {seconds:5.0f} s'


def collect(workdir: pathlib.Path, seeds: Sequence[int]) -> list[dict]:
  """Rows of results.csv, from the score files of every run that has ended."""
  rows = []
  for (backbone, title, _), seed in itertools.product(grid(), seeds):
    folder = folder_of(workdir, backbone, title, seed)
    if not (folder / 'results.json').exists():
      continue
    seconds = (folder / 'seconds').read_text() if (folder / 'seconds').exists() else ''
    for test in json.loads((folder / 'results.json').read_text()):
      for key, of in rates.of_run(folder, test):
        row = {'backbone': backbone, 'fusion': title, 'seed': seed, 'test': test, **key}
        row |= {k: f'{of[k]:.4f}' for k in RATES}
        rows.append(row | {'seconds': seconds})
  return rows


def of_protocol(rows: Sequence[dict]) -> list[dict]:
  """Rows of frames at the threshold of the test: what FlexModal reports."""
  first = {}
  for r in rows:
    first.setdefault(r['test'], r['threshold'])  # `rates.rules` has it before val's
  return [r for r in rows if r['unit'] == 'frame' and r['threshold'] == first[r['test']]]


def average(workdir: pathlib.Path, rows: Sequence[dict]) -> list[dict]:
  """Every combination with several runs: rows with `MEANS`."""
  found = []
  for backbone, title, test in dict.fromkeys((r['backbone'], r['fusion'], r['test']) for r in rows):
    of = [r for r in rows if (r['backbone'], r['fusion'], r['test']) == (backbone, title, test)]
    seeds = list(dict.fromkeys(r['seed'] for r in of))
    folders = {f'{seed}': folder_of(workdir, backbone, title, seed) for seed in seeds}
    for key, acer, auc in rates.means(folders, test, COMPARED):
      row = {'backbone': backbone, 'fusion': title, 'runs': len(seeds), 'test': test, **key}
      for name, mean in (('acer', acer), ('auc', auc)):
        row |= {name: f'{mean.value:.4f}'}
        row |= {f'{name}_low': f'{mean.bootstrap.low:.4f}'}
        row |= {f'{name}_high': f'{mean.bootstrap.high:.4f}'}
      found.append(row | {'acer_deviation': f'{acer.deviation:.4f}'})
  return found


def compare(workdir: pathlib.Path, rows: Sequence[dict]) -> list[dict]:
  """Every fusion against `BASELINE` on the same backbone, by frame: rows with `COMPARISONS`."""
  pairs = []
  for test, backbone in dict.fromkeys((r['test'], r['backbone']) for r in rows):
    of = [r for r in rows if (r['test'], r['backbone']) == (test, backbone)]
    seeds = {t: list(dict.fromkeys(r['seed'] for r in of if r['fusion'] == t))
             for t in dict.fromkeys(r['fusion'] for r in of)}  # fmt: skip
    for title in seeds.keys() - {BASELINE} if BASELINE in seeds else ():
      runs = {side: [f'{side} {seed}' for seed in seeds[side]] for side in (BASELINE, title)}
      folders = {
        f'{side} {seed}': folder_of(workdir, backbone, side, seed)
        for side in (BASELINE, title)
        for seed in seeds[side]
      }
      scores, dev = (
        evaluate.merge_systems(
          {name: rates.read(folder, part, 'frame', COMPARED) for name, folder in folders.items()}
        )
        for part in (test, 'val')
      )
      rule, *_ = rates.rules(scores, test)
      evaluation = evaluate.evaluate(test, scores, rule, dev, runs=runs)
      for one in evaluation.comparisons:
        system, _, subset = one.b.partition(': ')
        if system == title and one.a == f'{BASELINE}: {subset}':
          row = {'backbone': backbone, 'fusion': title, 'test': test, 'subset': subset}
          pairs.append((row | {'runs': min(one.runs.a, one.runs.b)}, one))
  pairs.sort(key=lambda pair: [pair[0][name] for name in ('test', 'backbone', 'fusion')])
  corrected = comparisons.apply_holm([comparison for _, comparison in pairs])
  found = []
  for (row, _), one in zip(pairs, corrected, strict=True):
    value, (low, high), _ = one.rates['acer']
    figures = {'difference': value, 'low': low, 'high': high, 'p_holm': one.p_holm}
    found.append(row | {k: f'{v:.4f}' for k, v in figures.items()} | {'verdict': one.verdict})
  return found


def rank(rows: Sequence[dict]) -> list[dict]:
  """How alike seeds rank the combinations: rows with `RANKINGS`; none of one seed."""
  found = []
  seeds = list(dict.fromkeys(r['seed'] for r in rows))
  for key in dict.fromkeys(tuple(r[k] for k in KEYS) for r in rows):
    of = [r for r in rows if tuple(r[k] for k in KEYS) == key]
    for by, sign in RANKED.items():
      values = {
        seed: {
          f'{r["backbone"]}, {r["fusion"]}': sign * float(r[by]) for r in of if r['seed'] == seed
        }
        for seed in seeds
      }
      taus = list(ranking.taus(values).values())
      if taus:
        row = dict(zip(KEYS, key, strict=True)) | {'by': by}
        row |= {'models': len(values[seeds[0]]), 'seeds': len(seeds)}
        figures = (
          *(ranking.mean_tau(values), min(taus), max(taus)),
          ranking.agreement(values, _have_one_backbone),
          ranking.agreement(values, lambda a, b: not _have_one_backbone(a, b)),
        )
        found.append(row | dict(zip(RANKINGS[-5:], (f'{x:.3f}' for x in figures), strict=True)))
  return found


def _have_one_backbone(a: str, b: str) -> bool:
  return a.partition(',')[0] == b.partition(',')[0]


def draw(rows: list[dict], file: pathlib.Path) -> None:
  """ACER of every combination, within and across, for the four sub-protocols."""
  import matplotlib

  matplotlib.use('Agg')
  import matplotlib.pyplot as plt

  names = [f'{b}, {t}' for b, t in dict.fromkeys((r['backbone'], r['fusion']) for r in rows)]
  marks = dict(zip(FAMILY, 'o^sD', strict=True))
  size = (11, 1.5 + 0.27 * len(names))
  figure, axes = plt.subplots(1, 2, figsize=size, sharey=True, layout='constrained')
  for axis, test in zip(axes, ('intra', 'cross'), strict=True):
    for subset, mark in marks.items():
      selected = [r for r in rows if r['test'] == test and r['subset'] == subset]
      axis.plot(
        [100 * float(r['acer']) for r in selected],
        [names.index(f'{r["backbone"]}, {r["fusion"]}') for r in selected],  # a mark for each seed
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
  figure.legend(*axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=len(FAMILY))
  figure.suptitle('RENDERED faces: backbones and fusions, a mark for each seed')
  figure.savefig(file, dpi=110)


def table(rows: list[dict]) -> str:
  """Markdown: ACER in percent, within and across, one line per combination.

  Of several seeds: the mean, and the standard deviation in brackets.
  """
  lines = [
    ' | '.join(['| backbone', 'fusion', *FAMILY, *FAMILY]) + ' |',
    '| --- | --- |' + ' ---: |' * 8,
  ]
  found = {}
  for r in rows:
    key = (r['backbone'], r['fusion'], r['test'], r['subset'])
    found.setdefault(key, []).append(100 * float(r['acer']))
  for backbone, title in dict.fromkeys((r['backbone'], r['fusion']) for r in rows):
    cells = [
      _mean_and_deviation(found[backbone, title, test, subset])
      for test in ('intra', 'cross')
      for subset in FAMILY
    ]
    lines.append(f'| {backbone} | {title} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def _mean_and_deviation(values: Sequence[float]) -> str:
  deviation = f' ({np.std(values, ddof=1):.1f})' if len(values) > 1 else ''
  return f'{np.mean(values):.1f}{deviation}'


def _write(file: pathlib.Path, columns: Sequence[str], rows: Sequence[dict]) -> None:
  with file.open('w', newline='') as out:
    writer = csv.DictWriter(out, columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)


def main(argv: list[str] | None = None) -> int:
  """Parses the command line and runs the grid; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m experiments.flexmodal',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--data_dir', default='prepared')
  parser.add_argument('--steps', type=int, default=200, help='of each training (200)')
  parser.add_argument(
    '--seeds',
    type=lambda text: [int(x) for x in text.split(',')],
    default=[0],
    help='a run of every combination for each; one shows nothing of another training (0)',
  )
  parser.add_argument(
    '--backbone', action='append', choices=lookup.choices('backbone'), help='repeatable (all)'
  )
  titles = list(dict.fromkeys(title for _, title, _ in grid()))
  parser.add_argument('--fusion', action='append', choices=titles, help='repeatable (all)')
  parser.add_argument('--only', default='', help='combinations whose "backbone, fusion" has this')
  parser.add_argument(
    '--cores',
    type=lambda text: [int(x) for x in text.split(',')],
    default=sorted(os.sched_getaffinity(0)),
    help='one run at a time on each of these (all)',
  )
  parser.add_argument('--out', type=pathlib.Path, default=HERE, help='for results.csv and .png')
  parser.add_argument('--debug', action='store_true', help='print tracebacks, not messages')
  args = parser.parse_args(argv)

  def command():
    args.workdir.mkdir(parents=True, exist_ok=True)
    combinations = [
      c
      for c in grid()
      if c[0] in (args.backbone or c)
      and c[1] in (args.fusion or c)
      and args.only in f'{c[0]}, {c[1]}'
    ]
    runs = list(itertools.product(combinations, args.seeds))
    cores = queue.Queue()
    for core in args.cores:
      cores.put(core)
    with concurrent.futures.ThreadPoolExecutor(len(args.cores)) as pool:
      futures = [
        pool.submit(run, c, seed, args.workdir, args.data_dir, args.steps, cores)
        for c, seed in runs
      ]
      for i, future in enumerate(concurrent.futures.as_completed(futures), 1):
        print(f'{i}/{len(runs)}  {future.result()}', flush=True)
    rows = collect(args.workdir, args.seeds)
    compared, ranked = compare(args.workdir, of_protocol(rows)), rank(rows)
    _write(args.out / 'results.csv', COLUMNS, rows)
    _write(args.out / 'means.csv', MEANS, average(args.workdir, rows))
    _write(args.out / 'comparisons.csv', COMPARISONS, compared)
    _write(args.out / 'rankings.csv', RANKINGS, ranked)
    draw(of_protocol(rows), args.out / 'results.png')
    n = 'one run' if len(args.seeds) == 1 else f'{len(args.seeds)} runs'
    print(f'\nRENDERED faces; ACER in percent, {n} of each combination')
    print(table(of_protocol(rows)))
    for row in ranked:
      text = '{test}, {subset}, {unit}, {threshold}, {by}: mean tau-b of {seeds} seeds {mean_tau_b}'
      print(text.format(**row))

  return exit_code_of(command, args.debug)


if __name__ == '__main__':
  sys.exit(main())
