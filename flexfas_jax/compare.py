"""Compares trained runs as methods: `python -m flexfas_jax.compare --help`."""

import argparse
import sys
from pathlib import Path

from flexfas_jax import bucket, command_line
from flexfas_jax.errors import ConfigError
from flexfas_jax.evaluation import aggregation, bootstrap, leaderboard, trained_runs
from flexfas_jax.evaluation.report import leaderboard_tables
from flexfas_jax.files import write_text

_DESCRIPTION = """\
Prints a leaderboard over trained runs: the mean error of each method with a 95 % interval over runs
and subjects together, its rank, what it costs, and a test of every pair of methods.

The runs of a method have one config but for the seed; under a protocol, the protocol may differ,
too: the targets of a leave-one-domain-out benchmark are tests of one method. --name groups runs
whatever their configs are. A method is called as the common beginning of its folders' names.

Each run brings its scores, and thresholds by the rules of its config, fitted on its val. Methods
must have scored the same samples. Means, pairs and ranks are over the tests and subsets of
modalities that all methods have; tests with too few samples or subjects are left out.

One run per method shows how a trained model differs from another. A method is called better only
if both methods have several runs. The p values of the pairs are corrected by Holm's method. Ranks
have bootstrap intervals; Friedman's test and Nemenyi's critical difference are printed besides."""

_EXAMPLES = (
  'runs/*',
  "runs/* --name='ours=ours_*' --name='baseline=vit_*' --markdown=table.md",
  'runs/mmdg_1_* --metric=hter --by_video --latex_rows=rows.tex',
  'runs/a_seed* runs/b_seed* --paired_runs --subsets=rgb,rgb+depth+ir --csv=figures.csv',
)

_FILES = ('config.json', 'metrics.jsonl', 'preflight.json')  # that are read, besides scores/

_EXIT_CODES = {
  3: 'bad data: an unreadable score file, other samples or thresholds in some runs, one run given '
  'twice',
  4: 'a workdir without a run, without scores, or with scores of several models',
  75: 'a bucket does not answer; rerun the same command later',
}


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: the arguments; those of the process if None.

  Returns:
    The exit code.
  """
  return command_line.run(_parser(), _compare, argv)


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser('compare', _DESCRIPTION, _EXAMPLES, _EXIT_CODES)
  add = parser.add_argument_group('runs').add_argument
  add(
    'runs',
    nargs='+',
    metavar='RUN',
    help='workdir of a run whose tests are scored; local or at gs://',
  )
  add(
    '--name',
    metavar='NAME=PATTERN',
    action='append',
    default=[],
    help='the runs whose folder, or its name, matches the pattern are the method NAME; repeatable',
  )
  add = parser.add_argument_group('comparison').add_argument
  add(
    '--metric',
    default='acer',
    choices=leaderboard.METRICS,
    help='that methods are compared by; hter_at_test_eer is an ORACLE. Default: %(default)s',
  )
  add('--tests', metavar='NAME,...', default='', help='tests to compare; default: all')
  add('--subsets', metavar='SUBSET,...', default='', help='of modalities; default: all')
  add(
    '--by_video',
    metavar='RULE',
    nargs='?',
    const='mean',
    default='',
    choices=aggregation.RULES,
    help=f'videos instead of frames: {", ".join(aggregation.RULES)}; default of RULE: mean',
  )
  add(
    '--paired_runs',
    action='store_true',
    help='run i of every method shares its seed and data with run i of the others, by rising seed',
  )
  add(
    '--bootstrap',
    metavar='N',
    type=int,
    default=bootstrap.N_REPLICATES,
    help='number of replicates; default: %(default)s',
  )
  add('--seed', type=int, default=0, help='of the bootstrap; default: %(default)s')
  add = parser.add_argument_group('output').add_argument
  add('--markdown', metavar='FILE.md', type=Path, help='tables for an issue or a web page')
  add('--csv', metavar='FILE.csv', type=Path, help='every figure, a row each')
  add('--latex', metavar='FILE.tex', type=Path, help='tables for a paper (booktabs)')
  add(
    '--latex_rows',
    metavar='FILE.tex',
    type=Path,
    help="rows to put under a published table: HTER and AUC of every test, and the literature's "
    'HTER (ORACLE); comments list what differs',
  )
  return parser


def _local(run: str) -> str | Path:
  """A workdir as a local folder: of one at gs://, a copy of the files that are compared."""
  bucket.check_path(run, 'RUN')
  return bucket.local_copy(run, 'RUN', _is_compared) if bucket.is_remote(run) else run


def _is_compared(name: str) -> bool:
  return name in _FILES or name.startswith('scores/')


def _compare(args: argparse.Namespace) -> None:
  if args.bootstrap < 2:
    raise ConfigError(f'--bootstrap={args.bootstrap}: give at least 2 replicates')
  if args.seed < 0:
    raise ConfigError(f'--seed={args.seed} must not be negative')
  option_of: dict[Path, str] = {}
  for option in ('markdown', 'csv', 'latex', 'latex_rows'):
    if (path := getattr(args, option)) is None:
      continue
    command_line.check_output(f'--{option}', path)
    if any(path.resolve().is_relative_to(Path(run).resolve()) for run in args.runs):
      raise ConfigError(f'--{option}={path} is in the workdir of a run: choose another folder')
    if (other := option_of.setdefault(path.resolve(), option)) != option and path.is_file():
      raise ConfigError(f'--{other} and --{option} are the same file: {path}')
  tests = command_line.split_names(args.tests)
  runs = [trained_runs.read(_local(run), tests, origin=run) for run in args.runs]
  methods = trained_runs.group(runs, args.name)
  board = leaderboard.compare(
    methods,
    metric=args.metric,
    by_video=args.by_video,
    tests=tests,
    subsets=command_line.split_names(args.subsets),
    draws=args.bootstrap,
    seed=args.seed,
    paired_runs=args.paired_runs,
  )
  try:
    print(leaderboard_tables.text(board), flush=True)
  finally:  # also after the reader of a pipe has left: `... | head`
    for line in board.notes:
      print(f'note: {line}', file=sys.stderr)
    texts = {
      'markdown': leaderboard_tables.markdown,
      'csv': leaderboard_tables.csv_text,
      'latex': leaderboard_tables.latex,
      'latex_rows': leaderboard_tables.latex_rows,
    }
    for option, make in texts.items():
      if (path := getattr(args, option)) is not None:
        with command_line.writing(f'--{option}', path):
          write_text(path, make(board))


if __name__ == '__main__':
  sys.exit(main())
