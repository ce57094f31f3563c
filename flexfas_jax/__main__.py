"""`flexfas COMMAND ...` or `python -m flexfas_jax COMMAND ...`.

Only the module of the command is imported: scoring and prediction work without jax.
"""

import difflib
import importlib
import sys
from typing import NamedTuple

import flexfas_jax
from flexfas_jax import command_line, errors


class Command(NamedTuple):
  """A command of `flexfas`."""

  module: str  # in flexfas_jax; its `main(arguments)` returns the exit code
  summary: str  # a line of the help
  mode: str = ''  # --mode of flexfas_jax.main; such a command also takes the folder of a run


COMMANDS = {
  'train': Command('main', 'train and evaluate the model of a config', 'train_and_evaluate'),
  'evaluate': Command('main', 'evaluate a run again: evaluate RUN', 'evaluate'),
  'export': Command('main', 'export a run as a bundle for devices: export RUN', 'export'),
  'preflight': Command('main', 'compile for a TPU slice without a TPU', 'preflight'),
  'prepare': Command('prepare', 'build a data set'),
  'lint': Command('lint', 'check protocol lists and manifests'),
  'score': Command('score', 'evaluate score files of any framework'),
  'ensemble': Command('ensemble', 'average score files'),
  'evaluate_members': Command('evaluate_members', 'score several runs in one program'),
  'compare': Command('compare', 'compare methods: a leaderboard over runs'),
  'predict': Command('predict', 'classify images with a bundle: predict BUNDLE --rgb=FILE'),
  'demo': Command('demo', 'try a bundle on a local web page: demo BUNDLE --open'),
}
_GROUPS = {
  'data': ('prepare', 'lint'),
  'models': ('train', 'evaluate', 'export', 'preflight'),
  'scores': ('score', 'ensemble', 'evaluate_members', 'compare'),
  'prediction': ('predict', 'demo'),
}


def main(argv: list[str] | None = None) -> int:
  """Runs a command.

  Args:
    argv: the name of the command and its arguments; those of the process if None.

  Returns:
    The exit code.
  """
  name, *arguments = (sys.argv[1:] if argv is None else argv) or ['']
  if name in ('-h', '--help', 'help'):
    command_line.print_help(_help())
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
  lines = [
    'usage: flexfas COMMAND ...',
    '',
    'Train a multi-modal face anti-spoofing model, evaluate it, and use it.',
  ]
  for group, names in _GROUPS.items():
    lines += ['', f'{group}:']
    lines += [f'  {name:{width}}  {COMMANDS[name].summary}' for name in names]
  examples = (
    'train --config=vit_fusion --workdir=runs/vit_fusion',
    'export runs/vit_fusion',
    'predict runs/vit_fusion/bundle --rgb=face.jpg --depth=face_depth.png --ir=face_ir.png',
    'score scores.csv --dev=val_scores.csv --report=report.html',
  )
  lines += ['', command_line.format_examples('flexfas', examples), '']
  lines.append('flexfas COMMAND --help: options and exit codes. flexfas --version: the version.')
  return '\n'.join(lines)


def _unknown(name: str) -> int:
  if not name:
    print(_help(), file=sys.stderr)
    return errors.ConfigError.exit_code
  near = difflib.get_close_matches(name, COMMANDS, 1)
  hint = f'did you mean {near[0]!r}?' if near else f'choose one of: {", ".join(COMMANDS)}.'
  print(f'error: unknown command {name!r}; {hint} See flexfas --help.', file=sys.stderr)
  return errors.ConfigError.exit_code


if __name__ == '__main__':
  sys.exit(main())
