"""`flexfas COMMAND ...`, which is also `python -m flexfas_jax COMMAND ...`.

A command imports its own module alone, so that an installation without jax scores and predicts.
"""

import difflib
import importlib
import sys
from typing import NamedTuple

import flexfas_jax
from flexfas_jax import errors


class Command(NamedTuple):
  """What runs under a name."""

  module: str  # of flexfas_jax; its `main(arguments)` returns the exit code
  about: str  # one line of the help
  mode: str = ''  # of flexfas_jax.main; these commands also take a run's folder in place of flags


COMMANDS = {
  'train': Command('main', 'train what a config describes, and evaluate it', 'train_and_evaluate'),
  'evaluate': Command('main', "score a run's tests again: evaluate RUN", 'evaluate'),
  'export': Command('main', 'make a bundle for devices of a run: export RUN', 'export'),
  'preflight': Command('main', 'compile for a TPU slice without having one', 'preflight'),
  'prepare': Command('prepare', 'build a data set'),
  'lint': Command('lint', 'check protocol lists and manifests'),
  'score': Command('score', 'evaluate score files of any framework'),
  'ensemble': Command('ensemble', 'average score files'),
  'evaluate_members': Command('evaluate_members', 'score several runs in one program'),
  'predict': Command('predict', 'decide about images with a bundle'),
  'demo': Command('demo', 'try a bundle on a local page'),
}


def main(argv: list[str] | None = None) -> int:
  """Runs a command.

  Args:
    argv: the command's name and its arguments; the process's own if None.

  Returns:
    The exit code.
  """
  name, *arguments = (sys.argv[1:] if argv is None else argv) or ['']
  if name in ('-h', '--help'):
    print(_help())
    return 0
  if name == '--version':
    print(f'flexfas_jax {flexfas_jax.__version__}')
    return 0
  if name not in COMMANDS:
    return _unknown(name)
  command = COMMANDS[name]
  if command.mode:
    if arguments and not arguments[0].startswith('-'):
      arguments[0] = f'--workdir={arguments[0]}'
    arguments = [f'--mode={command.mode}', *arguments]
  loaded = []

  def load() -> None:
    loaded.append(importlib.import_module(f'flexfas_jax.{command.module}'))

  code = errors.exit_code_of(load, '--debug' in arguments)
  return code or loaded[0].main(arguments)


def _help() -> str:
  width = max(map(len, COMMANDS))
  lines = [f'  {name:{width}}  {command.about}' for name, command in COMMANDS.items()]
  return '\n'.join(
    [
      'usage: flexfas COMMAND ...',
      '',
      'Train one multi-modal face anti-spoofing model, evaluate it, and use it.',
      '',
      'commands:',
      *lines,
      '',
      'examples:',
      '  flexfas train --config=vit_fusion --workdir=runs/vit_fusion',
      '  flexfas export runs/vit_fusion',
      '  flexfas score scores.csv --dev=val_scores.csv --report=report.html',
      '',
      'flexfas COMMAND --help: its options and exit codes. flexfas --version: the version.',
    ]
  )


def _unknown(name: str) -> int:
  if not name:
    print(_help(), file=sys.stderr)
    return errors.ConfigError.exit_code
  near = difflib.get_close_matches(name, COMMANDS, 1)
  hint = f'; did you mean {near[0]!r}?' if near else ''
  print(f'error: unknown command {name!r}{hint} (flexfas --help lists them)', file=sys.stderr)
  return errors.ConfigError.exit_code


if __name__ == '__main__':
  sys.exit(main())
