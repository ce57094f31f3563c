"""Writes the parts of docs/ that are read from the code: `python docs/generate.py [--check]`.

A part stands between two comments of a page, `<!-- generated: NAME -->` and `<!-- end -->`: tables
of config fields and of what a config names, and the help of every command. With --check nothing is
written, and the exit code is 1 if a page differs from what would be written.
"""

import contextlib
import importlib
import inspect
import io
import os
import pathlib
import re
import sys
import tomllib
from collections.abc import Callable, Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from flexfas_jax import __main__ as flexfas  # noqa: E402
from flexfas_jax import lookup  # noqa: E402

PART = re.compile(r'(<!-- generated: (.+?) -->\n).*?(<!-- end -->\n)', re.DOTALL)
FIELDS = tomllib.loads((ROOT / 'docs' / 'fields.toml').read_text(encoding='utf-8'))
# Groups whose fields depend on a name; they are described where the name is.
NAMED = ('model.backbone', 'model.fusion', 'model.head', 'optimizer', 'schedule', 'loss')
KINDS = {  # fields whose choices have a section
  'model.backbone.name': 'backbone',
  'model.fusion.name': 'fusion',
  'model.head.name': 'head',
  'optimizer.name': 'optimizer',
  'schedule.name': 'schedule',
}
OF_SENSORS = ('view', 'photometric', 'modality_dropout', 'sampler', 'gradient_modulation')
_INTERNAL = {'parent', 'name', 'modalities', 'dtype', 'axis', 'outputs', 'batch', 'steps', 'rng'}
_INTERNAL |= {'channels', 'schedule', 'later'}  # set by the code, not by a config


def main(arguments: list[str]) -> int:
  """Writes the pages, or compares them."""
  changed = []
  for page in sorted((ROOT / 'docs').rglob('*.md')):
    text = page.read_text(encoding='utf-8')
    if (new := PART.sub(lambda m: m[1] + make(m[2]) + m[3], text)) != text:
      changed.append(page.relative_to(ROOT).as_posix())
      if '--check' not in arguments:
        page.write_text(new, encoding='utf-8')
  for page in changed:
    print('differs from the code:' if '--check' in arguments else 'written:', page)
  return int('--check' in arguments and bool(changed))


def make(name: str) -> str:
  """The text of a part.

  Args:
    name: 'config GROUP', a group of fields.toml; 'choices KIND'; or 'help'.
  """
  kind, _, rest = name.partition(' ')
  return {'config': config_table, 'choices': choices_text, 'help': help_text}[kind](rest)


# --- fields of a config ---


def config_values() -> dict[str, dict[str, object]]:
  """{field: {'config:recipe': value}} of every config, without what depends on a name."""
  values: dict[str, dict[str, object]] = {}
  for path in sorted((ROOT / 'configs').glob('*.py')):
    module = importlib.import_module(f'configs.{path.stem}')
    for recipe in recipes(path):
      for field, value in _leaves(module.get_config(recipe)):
        values.setdefault(field, {})[f'{path.stem}:{recipe}'] = value
  return values


def recipes(path: pathlib.Path) -> list[str]:
  """The recipes that a config file takes, its default first."""
  module = importlib.import_module(f'configs.{path.stem}')
  first = inspect.signature(module.get_config).parameters['recipe'].default
  try:
    module.get_config('no such recipe')
  except ValueError as error:
    names = [name.strip() for name in str(error).partition('choose one of: ')[2].split(',')]
  return [first, *(name for name in names if name != first)]


def _leaves(config, prefix: str = '') -> Iterator[tuple[str, object]]:
  for key, value in config.items():
    field = f'{prefix}{key}'
    if prefix in ('test.', 'threshold.'):
      yield f'{prefix}NAME', value
    elif field in NAMED and hasattr(value, 'items') and 'name' in value:
      yield f'{field}.name', value['name']
      if 'rates' in value:
        yield f'{field}.rates', value['rates'].to_dict()
    elif field == 'loss' or field in OF_SENSORS:
      yield field, value.to_dict() if hasattr(value, 'to_dict') else value
    elif hasattr(value, 'items'):
      yield from _leaves(value, f'{field}.')
    else:
      yield field, value


def config_table(group: str) -> str:
  """Fields of a group: type, value in `vit_fusion` (or the code's default), meaning."""
  values = config_values()
  lines = ['| field | type | default | meaning |', '| --- | --- | --- | --- |']
  for field, meaning in FIELDS[group].items():
    found = values.get(field, {})
    types = sorted({_type(value) for value in found.values()} - {'None'})
    if 'vit_fusion:embedded' in found:
      default = repr(found['vit_fusion:embedded'])
    else:
      default = FIELDS['optional'].get(field, '')
    types = types or [_type(eval(default)) if default else '']  # noqa: S307 - of fields.toml
    default = _shorten(default)
    if field in KINDS:
      meaning += ': ' + ', '.join(f'`{name}`' for name in _choices(KINDS[field]))
    lines.append(f'| `{field}` | {" or ".join(types)} | {_code(default)} | {_cell(meaning)} |')
  return '\n'.join(lines) + '\n'


def _type(value) -> str:
  if isinstance(value, dict) or hasattr(value, 'items'):
    return 'group'
  return {'NoneType': 'None', 'str': 'text', 'int': 'integer', 'float': 'number'}.get(
    type(value).__name__, type(value).__name__
  )


def _shorten(text: str) -> str:
  return text if len(text) <= 44 else text[:40] + '...' + text[-1]


def _code(text: str) -> str:
  return f'`{_cell(text)}`' if text else ''


def _cell(text: str) -> str:
  return ' '.join(text.split()).replace('|', r'\|')


# --- what a config names ---


def choices_text(kind: str) -> str:
  """A heading for each choice, what it is, and its fields: type, default, meaning."""
  parts = []
  for name, thing in _choices(kind).items():
    docstring = inspect.getdoc(thing) or ''
    summary = _cell(docstring.partition('\n\n')[0])
    parts.append(f'#### `{name}`\n\n{summary}\n')
    rows = _parameter_rows(thing, docstring)
    if rows:
      parts.append('\n'.join(['| field | type | default | meaning |', '| --- | --- | --- | --- |']))
      parts[-1] += '\n' + '\n'.join(rows) + '\n'
  return '\n'.join(parts)


def _choices(kind: str) -> dict[str, Callable]:
  if kind == 'optimizer':
    from flexfas_jax.training.optimizer import OPTIMIZERS

    return OPTIMIZERS
  if kind == 'schedule':
    from flexfas_jax.training.optimizer import SCHEDULES

    return SCHEDULES
  if kind == 'augmentation':
    from flexfas_jax.images import geometry, transforms

    return {'view': geometry.draw_view, 'photometric.SENSOR': transforms.draw_photometric}
  return {name: lookup.find(kind, name) for name in lookup.choices(kind)}


def _parameter_rows(thing: Callable, docstring: str) -> list[str]:
  meanings = _described(docstring)
  rows = []
  for name, parameter in inspect.signature(thing).parameters.items():
    if name in _INTERNAL:
      continue
    required = parameter.default is inspect.Parameter.empty
    default = 'required' if required else _code(repr(parameter.default))
    meaning = meanings.get(name) or FIELDS['shared'].get(name, '')
    if name == 'variant' and (table := getattr(inspect.getmodule(thing), 'VARIANTS', None)):
      meaning = 'size: ' + ', '.join(f'`{key}`' for key in table)
    kind = _annotation(parameter)
    rows.append(f'| `{name}` | {kind} | {default} | {_cell(meaning)} |')
  return rows


def _annotation(parameter: inspect.Parameter) -> str:
  if parameter.annotation is inspect.Parameter.empty:
    default = parameter.default
    return '' if default is inspect.Parameter.empty else _type(default)
  text = inspect.formatannotation(parameter.annotation)
  words = {'str': 'text', 'int': 'integer', 'float': 'number', 'Any': 'any'}
  text = re.sub(r'\b(?:collections\.abc|typing|jax\.\w+|numpy)\.', '', text)
  text = re.sub(r'\w+(?: \| \w+)*', lambda m: ' or '.join(
    words.get(word, word) for word in m[0].split(' | ')), text)  # fmt: skip
  return _cell(text.replace(' | ', ' or '))


def _described(docstring: str) -> dict[str, str]:
  """{name: text} of the sections Attributes and Args of a docstring."""
  found: dict[str, str] = {}
  for section in re.findall(r'^(?:Attributes|Args):\n((?:(?:  .*)?\n?)+)', docstring, re.MULTILINE):
    names: list[str] = []
    for line in section.splitlines():
      if match := re.match(r'  (\w+(?:, \w+)*): (.*)', line):
        names = match[1].split(', ')
        for name in names:
          found[name] = match[2]
      elif line.startswith('    '):
        for name in names:
          found[name] += ' ' + line.strip()
  return found


# --- commands ---


def help_text(_: str) -> str:
  """The output of `flexfas --help` and of `flexfas COMMAND --help` of each command."""
  parts = [f'## flexfas\n\n```text\n{_output("--help")}```\n']
  done = set()
  for name, command in flexfas.COMMANDS.items():
    title = name
    if command.mode:
      if command.module in done:
        continue
      done.add(command.module)
      title = ', '.join(n for n, c in flexfas.COMMANDS.items() if c.module == command.module)
    parts.append(f'## {title}\n\n```text\n{_output(name, "--help")}```\n')
  return '\n'.join(parts)


def _output(*arguments: str) -> str:
  output, before = io.StringIO(), (sys.argv, os.environ.get('COLUMNS'))
  sys.argv, os.environ['COLUMNS'] = ['flexfas'], '100'
  try:
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
      flexfas.main(list(arguments))
  finally:
    sys.argv = before[0]
    del os.environ['COLUMNS']
    if before[1] is not None:
      os.environ['COLUMNS'] = before[1]
  return '\n'.join(line.rstrip() for line in output.getvalue().strip().splitlines()) + '\n'


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
