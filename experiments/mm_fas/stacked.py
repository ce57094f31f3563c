"""Compares the times of one program for all members of a network and of one evaluation for each.

  python -m experiments.mm_fas.stacked --workdir=runs/mm_fas --data_dir=prepared

Requires a trained sweep with the same flags. Both ways are whole processes, as a user starts them,
and write the same files. They run alternately, several times; the median counts.
"""

import statistics
import subprocess
import sys
import time

from experiments.mm_fas import __main__ as mm_fas
from experiments.mm_fas import plan
from flexfas_jax.errors import StateError, exit_code_of

REPEATS = 3


def main(argv: list[str] | None = None) -> int:
  """Measures and prints; returns the exit code."""
  args = mm_fas.parser().parse_args(argv)
  return exit_code_of(lambda: _measure(args), args.debug)


def _measure(args) -> None:
  network = args.networks[-1]
  runs = [run for run in plan.runs(args) if run.name.startswith(f'{network}_seed')]
  together = [sys.executable, '-m', 'flexfas_jax.evaluate_members', *(str(r.folder) for r in runs)]
  evaluations = [
    [a.replace('--mode=train', '--mode=evaluate') for a in run.command] for run in runs
  ]
  seconds = {'each': [], 'together': []}
  for i in range(REPEATS):
    for name, commands in (('each', evaluations), ('together', [together])):
      start = time.perf_counter()
      for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
          raise StateError(
            f'{" ".join(command)} ended with {done.returncode}: {done.stderr[-500:]}'
          )
      seconds[name].append(time.perf_counter() - start)
      print(f'{i + 1}/{REPEATS}  {name}: {seconds[name][-1]:.1f} s', flush=True)
  each, together = (statistics.median(seconds[name]) for name in ('each', 'together'))
  print(
    f'{len(runs)} members: {each:.1f} s one by one, {together:.1f} s together, '
    f'ratio {together / each:.2f}'
  )


if __name__ == '__main__':
  sys.exit(main())
