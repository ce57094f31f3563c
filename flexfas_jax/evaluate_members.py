"""Scores several trained runs in one program: `python -m flexfas_jax.evaluate_members --help`."""

import argparse
import sys

from flexfas_jax import command_line, errors

_DESCRIPTION = """\
Scores validation and test sets of several trained runs. Runs of one architecture are evaluated as
one program, so that each image is decoded once.

The config.json of each run names its test sets. Each run is left with what its own evaluation would
write: scores/, results.json and, with --report, report.html."""

_EXAMPLES = (
  'runs/members/*',
  'runs/members/* --views=whole,flip,five_crops=0.9',
)

_DETAILS = """\
The scores can then be averaged:
  python -m flexfas_jax.ensemble runs/members/*/scores/intra.csv \\
    --dev runs/members/*/scores/val.csv"""

_EXIT_CODES = {
  2: 'wrong usage or config',
  4: 'a checkpoint or workdir that is missing, damaged or not trained to its last step',
}


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: the arguments; those of the process if None.

  Returns:
    The exit code.
  """
  return command_line.run(_parser(), _evaluate, argv)


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(
    'evaluate_members', _DESCRIPTION, _EXAMPLES, _EXIT_CODES, _DETAILS
  )
  add = parser.add_argument_group('runs and data').add_argument
  add('workdirs', nargs='+', metavar='WORKDIR', help='of a run that is trained to its last step')
  add('--data_dir', metavar='DIR', help='folder of the prepared data; default: that of the config')
  add = parser.add_argument_group('evaluation').add_argument
  add(
    '--views',
    metavar='VIEW,...',
    help='views of each image (whole, flip, turn=10, centre=0.9, five_crops=0.9, joined by +); '
    'their mean is evaluated, and scores/views/ holds each. Default: those of the config',
  )
  add('--batch', type=int, metavar='N', help='batch size; default: that of the config')
  add('--report', action='store_true', help='write intervals and report.html for each run')
  return parser


def _evaluate(args: argparse.Namespace) -> None:
  changes = {'report': args.report} | ({} if args.report else {'test_toml': ''})
  if args.data_dir:
    changes['data_dir'] = args.data_dir
  if args.views:
    changes['views'] = tuple(command_line.split_names(args.views))
  if args.batch is not None:
    if args.batch < 1:
      raise errors.ConfigError('--batch must be at least 1')
    changes['eval_batch_size'] = args.batch
  from absl import logging  # jax and Orbax are not needed for --help

  from flexfas_jax.training import score_members

  logging.set_verbosity(logging.INFO if args.debug else logging.ERROR)
  score_members.evaluate(args.workdirs, changes)


if __name__ == '__main__':
  sys.exit(main())
