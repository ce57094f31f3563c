"""The parts that command lines share: help, exit codes, output paths."""

from pathlib import Path

import pytest

from flexfas_jax import command_line
from flexfas_jax.errors import ConfigError, DataError


def make_parser():
  parser = command_line.make_parser(
    'score', 'Prints 5 % of a file.', ['a.csv --n=1', 'a.csv \\\n    --n=2'], {3: 'bad 5 % ' * 30}
  )
  add = parser.add_argument_group('input').add_argument
  add('files', nargs='+', help='files')
  add('--number', type=int, help='default: 1 %%')
  return parser


def test_help_has_usage_options_examples_and_exit_codes(capsys):
  with pytest.raises(SystemExit) as end:
    command_line.run(make_parser(), print, ['--help'])
  assert end.value.code == 0
  text = capsys.readouterr().out
  assert text.startswith('usage: python -m flexfas_jax.score')
  assert '%%' not in text
  places = [
    text.index(part)
    for part in (
      'Prints 5 %',
      '\noptions:',
      '\ninput:',
      'examples:\n',
      'exit codes:\n  0   done\n  2',
    )
  ]
  assert places == sorted(places)
  assert '  python -m flexfas_jax.score a.csv \\\n    --n=2\n' in text
  assert max(map(len, text[text.index('exit codes') :].splitlines())) <= 100


def test_run_returns_exit_codes_and_debug_shows_the_traceback(capsys):
  def fail(args):
    raise DataError(f'{args.files[-1]}, row 2')

  assert command_line.run(make_parser(), lambda args: None, ['a']) == 0
  # An option between two positional arguments.
  assert command_line.run(make_parser(), fail, ['a', '--number=2', 'b']) == 3
  assert capsys.readouterr().err == 'error: b, row 2\n'
  with pytest.raises(DataError):
    command_line.run(make_parser(), fail, ['a', '--debug'])
  for argv in ([], ['a', '--num=1'], ['a', '--number=x']):
    with pytest.raises(SystemExit) as end:
      command_line.run(make_parser(), fail, argv)
    assert end.value.code == 2


def test_a_second_value_is_refused(capsys):
  with pytest.raises(SystemExit) as end:
    command_line.run(make_parser(), print, ['a', '--number=2', 'b', '--number', '2'])
  assert end.value.code == 2 and '--number is given twice' in capsys.readouterr().err


def test_split_names():
  assert command_line.split_names(' a,, b ') == ['a', 'b']
  assert command_line.split_names('') == command_line.split_names(None) == []


def test_output_paths_are_checked(tmp_path):
  source = tmp_path / 'a.csv'
  source.touch()
  command_line.check_output('--json', tmp_path / 'o.json', [source])
  for path, reason in (
    (tmp_path, 'folder'),
    (tmp_path / 'absent' / 'o.json', 'no such folder'),
    (tmp_path / '.' / 'a.csv', 'is an input'),
  ):
    with pytest.raises(ConfigError, match=f'--json={path}.*{reason}'):
      command_line.check_output('--json', path, [source])


def test_a_failed_write_names_the_option():
  with pytest.raises(ConfigError, match='--json=/dev/full cannot be written: No space'):
    path = Path('/dev/full')
    if not path.exists():
      pytest.skip('no /dev/full here')
    with command_line.writing('--json', path):
      path.write_text('a')
