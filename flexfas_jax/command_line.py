"""Shared parts of the command lines: one help layout, exit codes, checks of output paths.

A command module has two functions:

  def main(argv: list[str] | None = None) -> int:
    return command_line.run(_parser(), _score, argv)

  def _parser() -> argparse.ArgumentParser:
    parser = command_line.make_parser('score', _DESCRIPTION, _EXAMPLES, {3: 'bad scores'})
    add = parser.add_argument_group('output').add_argument
    add('--json', metavar='FILE', type=Path, help='metrics as JSON')
    return parser

`make_parser` adds `--debug`; every other option belongs to a named group.
"""

import argparse
import contextlib
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from flexfas_jax.errors import ConfigError, exit_code_of

EXIT_CODES = {0: 'done', 2: 'wrong usage', 3: 'bad data'}  # of a command that lists no others
_WIDTH = 100  # characters of a help line


class _Parser(argparse.ArgumentParser):
  def print_help(self, file=None) -> None:
    if file is None:
      print_help(self.format_help())
    else:
      super().print_help(file)


class _StoreOnce(argparse.Action):
  """Refuses a second value, which argparse would silently keep in place of the first."""

  def __call__(self, parser, namespace, values, option_string=None):
    given = vars(namespace).setdefault('_given', set())
    if self.dest in given:
      parser.error(f'{option_string} is given twice')
    given.add(self.dest)
    setattr(namespace, self.dest, values)


def make_parser(
  command: str,
  description: str,
  examples: Sequence[str],
  exit_codes: Mapping[int, str] | None = None,
  details: str = '',
) -> argparse.ArgumentParser:
  """Makes the parser of a command; its help shows usage, description, options, examples, codes.

  Args:
    command: name of the module, e.g. 'score'.
    description: what the command does, printed as it is; lines of at most 100 characters.
    examples: arguments of one call each, without the name of the command. A long example continues
      on the next line after a backslash.
    exit_codes: {code: meaning}, added to `EXIT_CODES` or replacing its entries.
    details: text between the examples and the exit codes, printed as it is.

  Returns:
    A parser with the option `--debug`. It accepts no abbreviated options, and an option that
    stores one value only once.
  """
  prog = program_name(command)
  epilog = [format_examples(prog, examples), details.strip('\n'), format_exit_codes(exit_codes)]
  parser = _Parser(
    prog=prog,
    description=description,
    epilog='\n\n'.join(filter(None, epilog)),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.register('action', None, _StoreOnce)
  parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
  return parser


def program_name(command: str) -> str:
  """How this process was started: 'flexfas score' or 'python -m flexfas_jax.score'."""
  folder, file = os.path.split(sys.argv[0])
  if command == 'main':  # no command of flexfas: train, evaluate, export and preflight in one
    return 'python -m flexfas_jax.main'
  if os.path.splitext(file)[0] == 'flexfas':
    return f'flexfas {command}'
  if file == '__main__.py' and os.path.basename(folder) == 'flexfas_jax':
    return f'python -m flexfas_jax {command}'
  return f'python -m flexfas_jax.{command}'


def print_help(text: str) -> None:
  """Prints a help text. The reader may close the pipe early, as in `--help | head`."""
  try:
    print(text, end='' if text.endswith('\n') else '\n', flush=True)
  except BrokenPipeError:
    # Python flushes stdout again when it exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def format_examples(prog: str, examples: Sequence[str]) -> str:
  """The help section 'examples:', each example after the name of the program."""
  return '\n'.join(['examples:', *(f'  {prog} {example}' for example in examples)])


def format_exit_codes(exit_codes: Mapping[int, str] | None = None) -> str:
  """The help section 'exit codes:' of `EXIT_CODES` updated by `exit_codes`, a line for each."""
  lines = ['exit codes:']
  for code, meaning in sorted({**EXIT_CODES, **(exit_codes or {})}.items()):
    lines += textwrap.wrap(
      meaning, _WIDTH, initial_indent=f'  {code:<4}', subsequent_indent=' ' * 6
    )
  return '\n'.join(lines)


def run(
  parser: argparse.ArgumentParser,
  command: Callable[[argparse.Namespace], None],
  argv: Sequence[str] | None = None,
) -> int:
  """Parses arguments and runs a command.

  Options may stand between positional arguments. Wrong arguments end the process with exit code 2.

  Args:
    parser: from `make_parser`.
    command: called with the parsed arguments.
    argv: the arguments; those of the process if None.

  Returns:
    The exit code, see `errors.exit_code_of`.
  """
  args = parser.parse_intermixed_args(argv)
  return exit_code_of(lambda: command(args), args.debug)


def split_names(text: str | None) -> list[str]:
  """The names of a comma-separated option, without blanks and empty names."""
  return [name for part in (text or '').split(',') if (name := part.strip())]


def check_output(option: str, path: Path, inputs: Iterable[Path] = ()) -> None:
  """Checks an output path before work starts.

  Args:
    option: e.g. '--json'.
    path: its value, a file.
    inputs: files that the command reads.

  Raises:
    ConfigError: the path is a folder, lies in no existing folder, or is one of the inputs.
  """
  if path.is_dir():
    raise ConfigError(f'{option}={path} cannot be written: it is a folder')
  if not path.parent.is_dir():
    raise ConfigError(f'{option}={path} cannot be written: no such folder: {path.parent}')
  if path.resolve() in {other.resolve() for other in inputs}:
    raise ConfigError(f'{option}={path} is an input of this command: choose another file')


@contextlib.contextmanager
def writing(option: str, path: Path) -> Iterator[None]:
  """Turns an OSError of the enclosed code into a ConfigError that names the option.

  Raises:
    ConfigError: `path` cannot be written.
  """
  try:
    yield
  except BrokenPipeError:
    raise
  except OSError as error:
    raise ConfigError(f'{option}={path} cannot be written: {error.strerror}') from error
