"""Builds a data set as ArrayRecord, with a builder of `data/`.

  python -m flexfas_jax.prepare --dataset=rendered_faces/surf_like --data_dir=prepared

What is already there is left as it is. Run it from the clone: builders are not installed.
"""

import argparse
import sys

from flexfas_jax import errors


def main(argv: list[str] | None = None) -> int:
  """Parses the command line and prepares; returns the exit code."""
  parser = argparse.ArgumentParser(
    'python -m flexfas_jax.prepare',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    epilog='Exit codes: 0 done, 2 wrong usage or unknown data set, 3 bad data.',
  )
  parser.add_argument(
    '--dataset', required=True, help='set or set/config; several separated by commas'
  )
  parser.add_argument('--data_dir', default='prepared', help='where it goes (default: %(default)s)')
  parser.add_argument('--debug', action='store_true', help='show tracebacks')
  flags = parser.parse_args(argv)

  def job():
    from flexfas_jax.input_pipeline import sources  # after --help: it imports much

    for dataset in flags.dataset.split(','):
      print(sources.prepare(dataset, flags.data_dir))

  return errors.exit_code_of(job, flags.debug)


if __name__ == '__main__':
  sys.exit(main())
