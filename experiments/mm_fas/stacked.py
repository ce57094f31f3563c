"""Times one program for all members of a network against an evaluation of each.

  python -m experiments.mm_fas.stacked --workdir=runs/mm_fas --data_dir=prepared

Of a sweep that has been trained (with the same flags). Both are whole processes, as a user starts
them, and leave the same files; one after the other, several times, the median counts.
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
  """Times, and prints; returns the exit code."""
  args = mm_fas.parser().parse_args(argv)
  return exit_code_of(lambda: _measure(args), args.debug)


def _measure(args) -> None:
  network = args.networks[-1]
  runs = [run for run in plan.runs(args) if run.name.startswith(f'{network}_seed')]
  together = [sys.executable, '-m', 'flexfas_jax.evaluate_members', *(str(r.folder) for r in runs)]
  each = [[a.replace('--mode=train', '--mode=evaluate') for a in run.command] for run in runs]
  took = {'each': [], 'together': []}
  for i in range(REPEATS):
    for name, commands in (('each', each), ('together', [together])):
      start = time.perf_counter()
      for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
          raise StateError(
            f'{" ".join(command)} ended with {done.returncode}: {done.stderr[-500:]}'
          )
      took[name].append(time.perf_counter() - start)
      print(f'{i + 1}/{REPEATS}  {name}: {took[name][-1]:.1f} s', flush=True)
  medians = {name: statistics.median(values) for name, values in took.items()}
  share = medians['together'] / medians['each']
  one_by_one, at_once = medians['each'], medians['together']
  print(
    f'{len(runs)} members: {one_by_one:.1f} s one by one, {at_once:.1f} s together, {share:.2f}'
  )


if __name__ == '__main__':
  sys.exit(main())
