"""How long users wait for a command: its start, a decision, a score file of millions of rows.

  python -m experiments.performance.commands --rows=10000000 --before=OTHER_CHECKOUT

Runs the real commands as processes, alternately for this checkout and the other one, and prints
medians with the lowest and highest: seconds, seconds of one core (user and system), peak MB.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
BUNDLE = ROOT / 'tests' / 'golden' / 'before_language' / 'bundle'  # a model of 0.3 MB
KINDS = ('print', 'replay', 'mask', 'cut_photo')
AT_ONCE = 100_000  # rows


def write_scores(path: pathlib.Path, rows: int, metadata: bool) -> None:
  """Writes scores of two overlapping classes, with all digits that float64 has.

  Args:
    path: the CSV.
    rows: samples.
    metadata: id, dataset, subject, video, label, attack_type, attack_category, score; otherwise
      id, label, score.
  """
  rng = np.random.default_rng(0)
  with path.open('w') as file:
    of_sample = 'dataset,subject,video,label,attack_type,attack_category' if metadata else 'label'
    file.write(f'id,{of_sample},score\n')
    for start in range(0, rows, AT_ONCE):
      n = min(AT_ONCE, rows - start)
      label = rng.integers(0, 2, n)
      score = 1 / (1 + np.exp(1 - 2 * label - rng.normal(size=n)))
      kind = rng.integers(0, len(KINDS), n).tolist()
      lines = zip(range(start, start + n), label.tolist(), score.tolist(), kind, strict=True)
      for i, is_bona_fide, x, k in lines:
        what = str(is_bona_fide)
        if metadata:
          attack = ',' if is_bona_fide else f'{KINDS[k]}_a,{KINDS[k]}'
          what = f'surf,{i // 1000},{i // 10},{("attack", "bona_fide")[is_bona_fide]},{attack}'
        file.write(f'test/{i:08d},{what},{x!r}\n')


def run(root: pathlib.Path, arguments: list[str]) -> tuple[float, float, float]:
  """Runs `flexfas` of a checkout; returns seconds, CPU seconds and peak MB."""
  command = [sys.executable, '-m', 'flexfas_jax', *arguments]
  start = time.perf_counter()
  process = subprocess.Popen(
    command, stdout=subprocess.DEVNULL, env={**os.environ, 'PYTHONPATH': str(root)}, cwd=root
  )
  _, status, usage = os.wait4(process.pid, 0)  # the peak of this process alone
  seconds = time.perf_counter() - start
  process.returncode = os.waitstatus_to_exitcode(status)
  if process.returncode:
    raise SystemExit(f'{" ".join(command)} ended with exit code {process.returncode}')
  return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--rows', type=int, default=10_000_000, help='0: no score files')
  parser.add_argument('--starts', type=int, default=15, help='rounds of the short commands')
  parser.add_argument('--rounds', type=int, default=3, help='rounds of the long ones')
  parser.add_argument('--before', type=pathlib.Path, help='another checkout')
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    rgb = BUNDLE / 'samples' / '0_rgb.png'
    commands = {
      'score --help': (args.starts, ['score', '--help']),
      'ensemble --help': (args.starts, ['ensemble', '--help']),
      'predict, RGB, ONNX': (
        args.starts,
        ['predict', str(BUNDLE), '--format=onnx', f'--rgb={rgb}'],
      ),
    }
    for name, metadata in {'id,label,score': False, 'eight columns': True}.items():
      if args.rows:
        path = pathlib.Path(folder, f'scores_{int(metadata)}.csv')
        write_scores(path, args.rows, metadata)
        what = f'score, {args.rows:,} rows of {name}, {path.stat().st_size / 2**20:.0f} MB'
        commands[what] = args.rounds, ['score', str(path), '--bootstrap=0']
    sides = {'before': args.before.resolve()} if args.before else {}
    sides['now'] = ROOT
    for what, (rounds, arguments) in commands.items():
      found = {side: [] for side in sides}
      for _ in range(rounds):
        for side, root in sides.items():
          found[side].append(run(root, arguments))
      for side, runs in found.items():
        wall, busy, peak = zip(*runs, strict=True)
        texts = (f'{statistics.median(x):.3g} ({min(x):.3g} to {max(x):.3g})' for x in (wall, busy))
        seconds, of_core = texts
        print(
          f'{what}, {side}: {seconds} s, {of_core} s of one core, peak {max(peak):.0f} MB, '
          f'load {os.getloadavg()[0]:.1f}',
          flush=True,
        )


if __name__ == '__main__':
  main()
