"""`flexfas COMMAND`: every command is there, and imports no more than it needs."""

import inspect
import os
import pathlib
import subprocess
import sys

import pytest

import flexfas_jax
from flexfas_jax import __main__ as commands

ROOT = pathlib.Path(__file__).parents[1]


def test_every_command_line_has_a_name():
  texts = {path.stem: path.read_text() for path in (ROOT / 'flexfas_jax').glob('*.py')}
  runnable = {name for name, text in texts.items() if "__name__ == '__main__'" in text}
  assert {one.module for one in commands.COMMANDS.values()} == runnable - {'__main__'}


def test_help_lists_the_commands(capsys):
  assert commands.main(['--help']) == 0
  lines = capsys.readouterr().out.splitlines()
  for name, command in commands.COMMANDS.items():
    assert f'  {name:16}  {command.summary}' in lines


@pytest.mark.parametrize(
  ('arguments', 'said'),
  [
    (['trian'], "unknown command 'trian'; did you mean 'train'?"),
    (['xyzzy'], "unknown command 'xyzzy'; choose one of: train, evaluate"),
    (['--config=vit_fusion'], "unknown command '--config=vit_fusion'"),
    ([], 'usage: flexfas COMMAND'),
  ],
)
def test_what_is_no_command(capsys, arguments, said):
  assert commands.main(arguments) == 2
  found = capsys.readouterr()
  assert said in found.err and found.out == ''


@pytest.mark.parametrize(
  ('started_by', 'program'),
  [
    ('/venv/bin/flexfas', 'flexfas score'),
    ('flexfas.exe', 'flexfas score'),
    ('/site-packages/flexfas_jax/__main__.py', 'python -m flexfas_jax score'),
    ('/site-packages/flexfas_jax/score.py', 'python -m flexfas_jax.score'),
  ],
)
def test_usage_names_the_program_that_was_started(monkeypatch, capsys, started_by, program):
  monkeypatch.setattr(sys, 'argv', [started_by])
  with pytest.raises(SystemExit):
    commands.main(['score', '--help'])
  help_text = capsys.readouterr().out
  assert help_text.startswith(f'usage: {program} ') and f'\n  {program} test.csv' in help_text


def test_a_reader_of_help_may_stop_early():
  """`--help | head` ends without a traceback."""
  modules = [
    f'flexfas_jax.{path.stem}'
    for path in (ROOT / 'flexfas_jax').glob('*.py')
    if 'command_line.make_parser' in path.read_text() and path.stem != 'command_line'
  ]
  read_end, write_end = os.pipe()
  os.close(read_end)
  started = [
    subprocess.Popen(
      [sys.executable, '-m', module, '--help'],
      cwd=ROOT, stdout=write_end, stderr=subprocess.PIPE, text=True,
    )
    for module in ('flexfas_jax', *modules)
  ]  # fmt: skip
  os.close(write_end)
  ended = [(process.communicate(timeout=120)[1], process.returncode) for process in started]
  assert ended == [('', 0)] * len(started), modules


def test_version(capsys):
  assert commands.main(['--version']) == 0
  assert capsys.readouterr().out == 'flexfas_jax 0.1.0\n'


@pytest.mark.parametrize(
  'name', ['prepare', 'lint', 'score', 'ensemble', 'compare', 'predict', 'demo']
)
def test_help_of_a_command_is_its_own(capsys, name):
  with pytest.raises(SystemExit) as end:
    commands.main([name, '--help'])
  assert end.value.code == 0
  assert f'flexfas_jax.{name}' in capsys.readouterr().out


@pytest.mark.jax
@pytest.mark.parametrize('name', sorted({*flexfas_jax.__all__} - {'__version__'}))
def test_the_public_api_is_there_and_typed(name):
  public = getattr(flexfas_jax, name)
  methods = [value for key, value in vars(public).items() if not key.startswith('_')]
  for function in (public, *(methods if inspect.isclass(public) else ())):
    signature = inspect.signature(getattr(function, '__func__', function))
    untyped = {key for key, one in signature.parameters.items() if one.annotation is one.empty}
    assert untyped <= {'self', 'cls'}
    assert inspect.isclass(function) or signature.return_annotation is not signature.empty


def python(code, *arguments, cwd):
  return subprocess.run(
    [sys.executable, '-c', f'import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}', *arguments],
    cwd=cwd, capture_output=True, text=True, timeout=120,
  )  # fmt: skip


@pytest.mark.parametrize(
  ('arguments', 'never'),
  [
    (['score', 'scores.csv', '--report=r.html'], 'jax flax absl grain cv2 onnxruntime'),
    (['ensemble', 'scores.csv', 'other.csv', '--out=out.csv'], 'jax flax absl grain cv2'),
    (['lint', 'list.txt'], 'jax flax absl grain cv2 PIL simplejpeg'),
    (['compare', '--help'], 'jax flax absl grain cv2 matplotlib'),
    (['predict', '--help'], 'jax flax absl grain tensorflow_datasets'),
    (['--version'], 'numpy jax'),
  ],
)
def test_a_command_imports_what_it_needs(tmp_path, arguments, never):
  (tmp_path / 'scores.csv').write_text('id,label,score\na,1,.9\nb,1,.4\nc,0,.6\nd,0,.1\n')
  (tmp_path / 'other.csv').write_text('id,label,score\na,1,.8\nb,1,.5\nc,0,.3\nd,0,.2\n')
  (tmp_path / 'list.txt').write_text('a/1.jpg a/2.jpg a/3.jpg 1\n')
  code = (
    'from flexfas_jax import __main__\n'
    'try: code = __main__.main(sys.argv[2:])\n'
    'except SystemExit as end: code = end.code\n'
    'print([name for name in sys.argv[1].split() if name in sys.modules], file=sys.stderr)\n'
    'sys.exit(code)'
  )
  done = python(code, never, *arguments, cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  assert done.stderr.splitlines()[-1] == '[]'


def test_the_public_api_is_imported_when_it_is_used(tmp_path):
  code = (
    'import flexfas_jax\n'
    'print([n for n in ("numpy", "jax", "cv2") if n in sys.modules], flexfas_jax.__version__)\n'
    'for name in flexfas_jax.__all__: assert getattr(flexfas_jax, name), name\n'
    'assert set(flexfas_jax.__all__) <= set(dir(flexfas_jax))\n'
    'print(flexfas_jax.Predictor.__name__, hasattr(flexfas_jax, "nothing"))'
  )
  done = python(code, cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  assert done.stdout == '[] 0.1.0\nPredictor False\n'


def test_a_run_brings_its_config(tmp_path):
  """`flexfas evaluate RUN` reads it; a field can still be overridden."""
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'config.json').write_text(
    '{"steps": 3, "views": ["whole", "flip"], "model": {"image_size": 8}}'
  )
  code = (
    'from flexfas_jax import __main__, main\n'
    'main._run = lambda _: print(main._MODE.value, main._WORKDIR.value, main._CONFIG.value)\n'
    '__main__.main(sys.argv[1:])'
  )
  done = python(code, 'evaluate', 'run', '--config.model.image_size=16', cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('evaluate run ')
  assert 'image_size: 16' in done.stdout and 'steps: 3' in done.stdout
  assert '!!python/tuple' in done.stdout  # as a config file has it
  done = python(code, 'evaluate', 'nothing', cwd=tmp_path)
  assert done.returncode == 2
  assert '--config is missing, and nothing holds no run' in done.stderr
