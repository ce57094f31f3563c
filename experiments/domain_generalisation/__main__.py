"""Methods of domain generalisation on the rendered domains, leaving one out; 3 seeds.

  python -m experiments.domain_generalisation --workdir=runs/domains --data_dir=prepared

Trains every method on three rendered domains, selects the step on their val, and tests on the
fourth, with all sensors and with each missing case. Pretrains the small ViT on the sources of each
target first. The runs are numbered: seeds are the outer loop, so that any first part is a complete
experiment with fewer seeds. `--runs=40:80` trains a part. Rerun the same command to resume: runs
with results are skipped. It writes results.csv and results.png to this folder (or --out), and
runs.tar.xz: what `flexfas compare` reads of every run, the scores to nine digits. Runs that are in
that archive are unpacked, not trained again, so that the experiment continues on any machine.
"""

import argparse
import csv
import io
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flexfas_jax.errors import StateError, exit_code_of

HERE = pathlib.Path(__file__).parent
DOMAINS = ('wmca_like', 'surf_like', 'padisi_like', 'cefa_like')
SEEDS = (0, 1, 2)
# Recipe of configs/domain_generalisation.py, and what its backbone starts from.
METHODS = {
  'erm': ('erm', 'faces'),
  'erm_masked': ('erm', 'masked'),
  'erm_random': ('erm', ''),
  'prototypes': ('prototypes', 'faces'),
  'angle': ('angle', 'faces'),
  'hyperplanes': ('hyperplanes', 'faces'),
  'lora': ('lora', 'faces'),
  'prompts': ('prompts', 'faces'),
  'mmdg': ('mmdg', 'faces'),
  'mmdg_released': ('mmdg_released', 'faces'),
  'mmdg_regrad': ('mmdg_regrad', 'faces'),
}
RATES = ('hter', 'auc', 'apcer', 'bpcer', 'hter_at_test_eer')
COLUMNS = (
  *('method', 'target', 'seed', 'trained', 'seconds', 'subset', *RATES),
  *('least_hter_at_test_eer', 'test_evaluations', 'hter_by_video'),
)
SHOWN = ('rgb', 'rgb+depth', 'rgb+ir', 'rgb+depth+ir')


class Run(NamedTuple):
  """One training."""

  method: str
  target: str
  seed: int

  @property
  def name(self) -> str:
    """Of its folder."""
    return f'{self.method}-{self.target}-{self.seed}'


def all_runs(methods: Sequence[str], seeds: Sequence[int]) -> list[Run]:
  """Every run: all methods of a target, all targets of a seed."""
  return [Run(m, t, s) for s, t, m in itertools.product(seeds, DOMAINS, methods)]


def sets(target: str, split: str, where: str = '') -> str:
  """The sources of a target, as a config names data sets."""
  return ','.join(f'rendered_faces/{d}:{split}{where}' for d in DOMAINS if d != target)


def pretraining(kind: str, target: str) -> list[str]:
  """Arguments of a pretraining, which reads the sources alone."""
  if kind == 'masked':
    return [
      '--config=configs/masked_pretraining.py',
      f'--config.train={sets(target, "train")}',
      f'--config.val={sets(target, "val")}',
    ]
  bona_fide = '[species=bona_fide & modalities=rgb]'
  test = {'sources': sets(target, 'test', bona_fide)}
  return [
    '--config=configs/face_recognition.py:vit',
    f'--config.train={sets(target, "train", bona_fide)}',
    f'--config.val={sets(target, "val", bona_fide)}',
    f'--config.test={test}',
  ]


def train(folder: pathlib.Path, arguments: Sequence[str]) -> None:
  """One run of `flexfas_jax.main`; its log lies next to the folder. A finished one is skipped."""
  if (folder / 'results.json').exists():
    return
  log, start = folder.with_suffix('.log'), time.perf_counter()
  # Programs of one method are the same for all targets and seeds.
  cache = {'JAX_COMPILATION_CACHE_DIR': str(folder.parent.absolute() / 'compiled')}
  with log.open('w') as out:
    command = [sys.executable, '-m', 'flexfas_jax.main', f'--workdir={folder}', *arguments]
    done = subprocess.run(command, stdout=out, stderr=out, env=cache | os.environ)
  if done.returncode:
    raise StateError(f'{folder.name} ended with {done.returncode}; see {log}')
  (folder / 'seconds').write_text(f'{time.perf_counter() - start:.0f}')


ARCHIVE = 'runs.tar.xz'
_PARAMETERS = re.compile(r'([\d.]+) M parameters(?: \(([\d.]+) M of them train\))?')
# Of a run's folder; the log lies next to it.
_ARCHIVED = (
  *('config.json', 'results.json', 'metrics.jsonl', 'seconds'),
  *(f'scores/{name}.{kind}' for name in ('val', 'target') for kind in ('csv', 'json')),
)


def pack(workdir: pathlib.Path, runs: Sequence[Run], file: pathlib.Path) -> None:
  """Writes what comparisons need of the finished runs; the same bytes for the same runs."""
  with tarfile.open(file, 'w:xz', preset=9) as archive:
    for run in runs:
      if not (workdir / run.name / 'results.json').exists():
        continue
      for name in (f'{run.name}.log', *(f'{run.name}/{name}' for name in _ARCHIVED)):
        content = (workdir / name).read_bytes()
        if name.endswith('.log'):
          content = headline(content.decode(errors='replace')).encode()
        elif name.endswith('.csv'):
          content = rounded(content.decode()).encode()
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))


def rounded(scores: str) -> str:
  """A score file with nine significant digits: float32 logits have seven."""
  return re.sub(r'(?<=,)\d\.\d{9,}(e-\d+)?(?=[,\r\n])', lambda m: f'{float(m[0]):.9g}', scores)


def unpack(file: pathlib.Path, workdir: pathlib.Path) -> None:
  """Restores the runs of an archive that the workdir lacks."""
  if not file.exists():
    return
  with tarfile.open(file) as archive:
    for entry in archive:
      if not (workdir / entry.name).exists():
        archive.extract(entry, workdir, filter='data')


def headline(log: str) -> str:
  """The line that states the parameters; a library may have written something before it."""
  return next((line for line in log.splitlines(keepends=True) if _PARAMETERS.search(line)), '')


def trained_millions(log: str) -> str:
  """Parameters that train, in millions."""
  match = _PARAMETERS.search(log)
  return (match[2] or match[1]) if match else ''


def collect(workdir: pathlib.Path, runs: Sequence[Run]) -> list[dict[str, str]]:
  """Rows of results.csv: a subset of the target's test for each finished run."""
  rows = []
  for run in runs:
    folder = workdir / run.name
    if not (folder / 'results.json').exists():
      continue
    common = run._asdict() | {'trained': trained_millions(folder.with_suffix('.log').read_text())}
    seconds = folder / 'seconds'
    common['seconds'] = seconds.read_text() if seconds.exists() else ''
    for subset, m in json.loads((folder / 'results.json').read_text())['target'].items():
      row = {**common, 'subset': subset, **{name: f'{m[name]:.5f}' for name in RATES}}
      row['least_hter_at_test_eer'] = f'{m["least_hter_at_test_eer"]:.5f}'
      row['test_evaluations'] = f'{m["test_evaluations"]:.0f}'
      row['hter_by_video'] = f'{m["by_video"]["hter"]:.5f}' if 'by_video' in m else ''
      rows.append(row)
  return rows


def percent(rows: Sequence[dict], rate: str, **where: str) -> np.ndarray:
  """A rate of the rows with these values, in percent, a mean over targets and subsets by seed."""
  kept = [r for r in rows if all(r[k] == v for k, v in where.items())]
  by_seed = {r['seed']: [] for r in kept}
  for row in kept:
    by_seed[row['seed']].append(100 * float(row[rate]))
  return np.array([np.mean(values) for values in by_seed.values()])


def cell(values: np.ndarray) -> str:
  """Mean over the seeds, standard deviation in brackets."""
  return f'{values.mean():.1f}' + (f' ({values.std(ddof=1):.1f})' if len(values) > 1 else '')


def table_of_subsets(rows: Sequence[dict]) -> str:
  """Markdown: HTER of each sensor subset, mean over the four targets."""
  lines = ['| method | trained, M | seconds | ' + ' | '.join(SHOWN) + ' | mean | AUC |']
  lines.append('| --- |' + ' ---: |' * (4 + len(SHOWN)))
  for method in dict.fromkeys(r['method'] for r in rows):
    of = [r for r in rows if r['method'] == method]
    cells = [cell(percent(of, 'hter', subset=s)) for s in SHOWN]
    seconds = np.median([float(r['seconds'] or 'nan') for r in of])
    ends = [cell(percent(of, 'hter')), cell(percent(of, 'auc'))]
    lines.append(f'| {" | ".join([method, of[0]["trained"], f"{seconds:.0f}", *cells, *ends])} |')
  return '\n'.join(lines)


def table_of_targets(rows: Sequence[dict], subset: str = 'rgb+depth+ir') -> str:
  """Markdown: HTER on each target with all sensors."""
  lines = ['| method | ' + ' | '.join(DOMAINS) + ' |', '| --- |' + ' ---: |' * len(DOMAINS)]
  for method in dict.fromkeys(r['method'] for r in rows):
    of = [r for r in rows if r['method'] == method and r['subset'] == subset]
    targets = [d for d in DOMAINS if any(r['target'] == d for r in of)]
    cells = [cell(percent(of, 'hter', target=d)) if d in targets else '-' for d in DOMAINS]
    lines.append(f'| {method} | {" | ".join(cells)} |')
  return '\n'.join(lines)


def table_of_evaluations(rows: Sequence[dict]) -> str:
  """Markdown: the honest figure, and what the literature's evaluation claims on the same runs."""
  heads = (
    *('method', 'HTER, threshold and step of val', 'HTER at test EER, step of val (ORACLE)'),
    *('least HTER at test EER (ORACLE)', 'claimed gain'),
  )
  lines = [f'| {" | ".join(heads)} |', '| --- |' + ' ---: |' * 4]
  for method in dict.fromkeys(r['method'] for r in rows):
    of = [r for r in rows if r['method'] == method]
    honest, at_eer, least = (
      percent(of, name) for name in ('hter', 'hter_at_test_eer', 'least_hter_at_test_eer')
    )
    gain = f'{(honest - least).mean():.1f}'
    lines.append(f'| {method} | {cell(honest)} | {cell(at_eer)} | {cell(least)} | {gain} |')
  return '\n'.join(lines)


def draw(rows: Sequence[dict], file: pathlib.Path) -> None:
  """The honest HTER and the published evaluation's, of every method."""
  import matplotlib

  matplotlib.use('Agg')
  import matplotlib.pyplot as plt

  methods = list(dict.fromkeys(r['method'] for r in rows))
  methods.sort(key=lambda m: percent([r for r in rows if r['method'] == m], 'hter').mean())
  figure, axis = plt.subplots(figsize=(8, 0.42 * len(methods) + 1.6))
  kinds = (
    ('hter', 'o', 'step and threshold of val: the result'),
    ('hter_at_test_eer', 's', 'step of val, threshold of the test (ORACLE)'),
    ('least_hter_at_test_eer', 'D', 'step and threshold of the test (ORACLE), as papers print it'),
  )
  for i, (rate, mark, label) in enumerate(kinds):
    for y, method in enumerate(methods):
      values = percent([r for r in rows if r['method'] == method], rate)
      axis.plot(values, [y] * len(values), mark, color=f'C{i}', alpha=0.35, markersize=5)
      axis.plot(values.mean(), y, mark, color=f'C{i}', markersize=9, label=label if not y else None)
  axis.set_yticks(range(len(methods)), methods)
  axis.invert_yaxis()
  axis.set_xlabel('HTER, %: mean over targets and sensor subsets; small marks are seeds')
  axis.set_title('RENDERED domains, leave one out')
  axis.grid(alpha=0.3)
  axis.legend(fontsize=8, loc='upper center', bbox_to_anchor=(0.5, -0.18))
  figure.savefig(file, dpi=110, bbox_inches='tight')


def main(argv: list[str] | None = None) -> int:
  """Parses the command line and runs the experiment; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m experiments.domain_generalisation',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--data_dir', default='prepared')
  parser.add_argument('--methods', default=','.join(METHODS), help='some of the default')
  parser.add_argument('--runs', default=':', metavar='A:B', help='numbers A to B - 1 (all)')
  parser.add_argument('--steps', type=int, help='of each training (300)')
  parser.add_argument('--pretraining_steps', type=int, help="instead of the configs'")
  parser.add_argument('--seeds', type=int, default=len(SEEDS), help='number of seeds (3)')
  parser.add_argument('--out', type=pathlib.Path, default=HERE, help='for results.csv and .png')
  parser.add_argument('--debug', action='store_true', help='print tracebacks, not messages')
  args = parser.parse_args(argv)

  def command():
    args.workdir.mkdir(parents=True, exist_ok=True)
    unpack(args.out / ARCHIVE, args.workdir)
    runs = all_runs(args.methods.split(','), range(args.seeds))
    first, _, end = args.runs.partition(':')
    data = f'--config.data_dir={args.data_dir}'
    part = range(len(runs))[int(first or 0) : int(end or len(runs))]
    for i in part:
      run = runs[i]
      if (args.workdir / run.name / 'results.json').exists():
        continue
      recipe, kind = METHODS[run.method]
      options = [f'--config=configs/domain_generalisation.py:{recipe}', data]
      options += [f'--config.seed={run.seed}', '--oracle=target']
      options += [f'--config.protocol=rendered_domains(target={run.target})']
      if kind:
        weights = args.workdir / f'{kind}-{run.target}'
        more = with_steps(args.pretraining_steps, 2)
        size = '--config.model.image_size=48'
        train(weights, [*pretraining(kind, run.target), data, size, *more])
        options += [f'--config.pretrained.weights={weights}']
      train(args.workdir / run.name, [*options, *with_steps(args.steps, 4)])
      print(f'{i + 1 - part.start}/{len(part)}  run {i}: {run.name}', flush=True)
    everything = all_runs(list(METHODS), SEEDS)
    pack(args.workdir, everything, args.out / ARCHIVE)
    rows = [
      {name: str(value) for name, value in row.items()} for row in collect(args.workdir, everything)
    ]
    with (args.out / 'results.csv').open('w', newline='') as out:
      writer = csv.DictWriter(out, COLUMNS, lineterminator='\n')
      writer.writeheader()
      writer.writerows(rows)
    draw(rows, args.out / 'results.png')
    n = len({(r['method'], r['target'], r['seed']) for r in rows})
    print(f'\nRENDERED faces, {n} runs; percent, mean over the seeds (standard deviation)')
    print(f'\nHTER by sensors, mean over the targets\n\n{table_of_subsets(rows)}')
    print(f'\nHTER by target, all sensors\n\n{table_of_targets(rows)}')
    print(f'\nHTER, mean over targets and sensors\n\n{table_of_evaluations(rows)}')

  return exit_code_of(command, args.debug)


def with_steps(steps: int | None, evaluations: int) -> list[str]:
  """Arguments for another number of steps."""
  if not steps:
    return []
  every = max(steps // evaluations, 1)
  names = ('eval_every', 'checkpoint_every')
  fields = {'steps': steps, 'schedule.warmup': steps // 10} | dict.fromkeys(names, every)
  return [f'--config.{name}={value}' for name, value in fields.items()]


if __name__ == '__main__':
  sys.exit(main())
