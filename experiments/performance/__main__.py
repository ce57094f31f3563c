"""Measures all cases on this machine: ratios, medians of interleaved repeats, with their spread.

  python -m experiments.performance --torch_python=/path/to/venv/bin/python
  python -m experiments.performance --only=subsets,peak

Each case is a function of a file in cases/. When it ends, its rows replace its earlier ones in
results.csv, in README's table and in results.png; use --only to resume an interrupted measurement.
Cases that compare with PyTorch, in a separate environment, require --torch_python; those that use
the quickstart's prepared data require --data_dir. Without them these cases are skipped.
"""

import argparse
import importlib
import os
import pathlib
import sys

from experiments.performance import results
from flexfas_jax.errors import ConfigError, exit_code_of

HERE = pathlib.Path(__file__).parent
_NEEDS = {'torch_python': 'needs_torch', 'data_dir': 'needs_data'}


def find() -> dict:
  """{name: case} of all files in cases/."""
  cases = {}
  for file in sorted((HERE / 'cases').glob('[a-z]*.py')):
    cases |= importlib.import_module(f'experiments.performance.cases.{file.stem}').CASES
  return cases


def chosen(only: str, given: dict[str, str]) -> dict:
  """The requested cases that can run with the given options."""
  cases = find()
  names = [name for name in only.split(',') if name] or list(cases)
  if unknown := set(names) - set(cases):
    raise ConfigError(f'unknown case {min(unknown)!r}; choose from: {", ".join(cases)}')
  runnable = {}
  for name in names:
    needs = [f'--{o}' for o in given if not given[o] and getattr(cases[name], _NEEDS[o], False)]
    if needs:
      print(f'{name}: skipped, it requires {needs[0]}')
    else:
      runnable[name] = cases[name]
  return runnable


def main() -> int:
  parser = argparse.ArgumentParser(
    prog='python -m experiments.performance',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--only', default='', help='cases, separated by commas')
  parser.add_argument('--repeats', type=int, default=7, help='rounds that count (7)')
  parser.add_argument('--torch_python', default='', metavar='PATH', help='interpreter with PyTorch')
  parser.add_argument('--data_dir', default='', metavar='DIR', help='prepared rendered_faces')
  parser.add_argument('--threads', type=int, default=len(os.sched_getaffinity(0)))
  parser.add_argument('--out', type=pathlib.Path, default=HERE, help='for results.csv and .png')
  parser.add_argument('--debug', action='store_true', help='print tracebacks, not messages')
  options = parser.parse_args()

  def command():
    options.out.mkdir(parents=True, exist_ok=True)
    for name, measure in chosen(options.only, {o: getattr(options, o) for o in _NEEDS}).items():
      new = [{'case': name, **row} for row in measure(options)]
      rows = results.replace(options.out / 'results.csv', new)
      for row in new:
        spread = f'{row["low"]} to {row["high"]}'
        print(f'{row["figure"]}: {row["ratio"]} ({spread}), load {row["load"]}', flush=True)
      results.write_table(options.out / 'README.md', rows)
      results.draw(rows, options.out / 'results.png')

  return exit_code_of(command, options.debug)


if __name__ == '__main__':
  sys.exit(main())
