"""Scores the tests of several trained runs, those of one architecture together, in one program.

  python -m flexfas_jax.evaluate_members runs/members/*
  python -m flexfas_jax.evaluate_members runs/members/* --views=whole,flip,five_crops=0.9

Each run's own config.json says what it is tested on. It is left with what an evaluation of its own
would leave: scores/, results.json and, if asked for, report.html. What is then averaged:

  python -m flexfas_jax.ensemble runs/members/*/scores/intra.csv --dev runs/members/*/scores/val.csv

Exit codes: 0 done, 2 wrong usage or config, 3 bad data, 4 bad or missing checkpoint or workdir.
"""

import argparse
import sys

from flexfas_jax import errors


def main(argv: list[str] | None = None) -> int:
  """Parses the command line and evaluates; returns the exit code."""
  parser = argparse.ArgumentParser(
    'python -m flexfas_jax.evaluate_members',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('workdirs', nargs='+', metavar='WORKDIR', help='of a run that has been trained to its end')
  add('--data_dir', metavar='DIR', help='where the prepared data is, if no longer where it was')
  add(
    '--views',
    metavar='VIEW,...',
    help='what pictures are looked at by (whole, flip, turn=10, centre=0.9, five_crops=0.9, joined '
    'by +); the mean is judged, and scores/views/ has each',
  )
  add('--batch', type=int, metavar='N', help='samples at a time')
  add('--report', action='store_true', help='intervals and report.html of each run')
  add('--debug', action='store_true', help='show tracebacks')
  args = parser.parse_args(argv)
  if args.batch is not None and args.batch < 1:
    parser.error('--batch must be at least 1')
  changes = {'report': args.report}
  if args.data_dir:
    changes['data_dir'] = args.data_dir
  if args.views:
    changes['views'] = tuple(filter(None, args.views.split(',')))
  if args.batch:
    changes['eval_batch_size'] = args.batch

  def job():
    from absl import logging  # jax and Orbax: not needed for --help

    from flexfas_jax.training import score_members

    logging.set_verbosity(logging.INFO if args.debug else logging.ERROR)
    score_members.evaluate(args.workdirs, changes)

  return errors.exit_code_of(job, args.debug)


if __name__ == '__main__':
  sys.exit(main())
