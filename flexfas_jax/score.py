"""Judges a score file of any framework: `python -m flexfas_jax.score --help`."""

import argparse
import json
import sys
from pathlib import Path

from flexfas_jax.errors import ConfigError, DataError, exit_code_of
from flexfas_jax.evaluation import results, score_files, thresholds

_HELP = """\
Prints the error rates of a score file, for every subset of modalities that it has scores of.

A score file is a CSV with the columns id,label,score; label is bona_fide or attack (or 1 or 0,
1 being bona fide), and a high score means bona fide. Instead of score there may be one column per
subset (rgb, rgb+depth, ...), and besides dataset, subject, video, attack_type, attack_category.
An empty score is a failure to acquire: counted, and not accepted. A column without any score is a
subset that the model does not serve.

A sample is accepted when its score is at least the threshold, which is fitted on the development
scores under the same subset and never on the scores that it judges."""

_EXAMPLE = """\
example:
  python -m flexfas_jax.score test.csv --dev=val.csv --json=metrics.json

exit codes: 0 done; 2 wrong usage; 3 bad data (also a score that is nan, after the table);
4 no threshold, or one of other weights, or one fitted on the samples that it would judge"""


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: the arguments; the process's own if None.

  Returns:
    The exit code.
  """
  args = _parser().parse_args(argv)
  return exit_code_of(lambda: _score(args), args.debug)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m flexfas_jax.score',
    description=_HELP,
    epilog=_EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  rules = '; '.join(f'{rule}: {what}' for rule, what in thresholds.RULES.items()).replace('%', '%%')
  parser.add_argument('scores', metavar='SCORES.csv', type=Path, help='what is judged')
  parser.add_argument('--dev', metavar='DEV.csv', type=Path, help="the development set's scores")
  parser.add_argument(
    '--threshold',
    metavar='RULE',
    help=f'{rules}. Default: dev_eer with --dev or --oracle, otherwise fixed=0.5',
  )
  parser.add_argument(
    '--json', metavar='FILE', type=Path, help='write {subset: {metric: value}}; undefined is null'
  )
  parser.add_argument(
    '--oracle',
    action='store_true',
    help='allow a threshold fitted on the scores that it judges; every output then says ORACLE',
  )
  parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
  return parser


def _score(args: argparse.Namespace) -> None:
  rule = args.threshold or ('dev_eer' if args.dev or args.oracle else 'fixed=0.5')
  needs_dev = thresholds.needs_dev(rule)  # a wrong rule is told before files are read
  _check_output(args)
  scores = score_files.read(args.scores)
  dev = score_files.read(args.dev) if args.dev else None

  found = results.results(scores, rule, dev, args.oracle)
  title = f'{args.scores}: percent, threshold {rule}'
  if needs_dev and dev:
    title += f' on {args.dev}'
  _show(found, title)
  for line in results.remarks(found):
    print(line, file=sys.stderr)
  if args.json:
    text = json.dumps(results.json_safe(found), indent=2, allow_nan=False) + '\n'
    try:
      score_files.write_text(args.json, text)
    except OSError as error:
      raise ConfigError(f'--json={args.json} cannot be written: {error.strerror}') from error

  # At the end: the other figures stand, and yet nobody may take this file for a sound one.
  for file in filter(None, (scores, dev)):
    for subset, samples in file.nan_samples.items():
      raise DataError(
        f'{file.path}: {subset} is nan for {samples.size} samples (the first is id '
        f'{file.ids[samples[0]]}), counted as failures to acquire. If they are, leave the cells '
        'empty; if not, the model computed nan'
      )


def _check_output(args: argparse.Namespace) -> None:
  """Refuses to write the results over what they are made from."""
  if not args.json:
    return
  for path in filter(None, (args.scores, args.dev)):
    if args.json.resolve() == path.resolve():
      raise ConfigError(f'--json={args.json} is a score file: name another')
    header = score_files.header_path(path)
    if args.json.resolve() == header.resolve() and score_files.read_header(header):
      raise ConfigError(f'--json={args.json} is the header of {path}: name another')


def _show(found: results.Results, title: str) -> None:
  if not sys.stdout.isatty():
    print(results.text(found, title), flush=True)
    return
  from rich.console import Console  # only a terminal pays for it

  console = Console()
  # A terminal that is too narrow wraps the lines itself; nothing is left out.
  console.print(results.table(found, title), crop=False)
  if by_category := results.category_table(found):
    console.print(by_category, crop=False)


if __name__ == '__main__':
  sys.exit(main())
