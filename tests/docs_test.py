"""README and documents: links, paths, commands and their flags, and README's length."""

import contextlib
import functools
import importlib
import io
import json
import pathlib
import re

import pytest

from flexfas_jax import __main__ as flexfas
from tests import browser
from tests.pages import blocks

ROOT = pathlib.Path(__file__).parents[1]
PATTERNS = (
  *('README.md', 'CONTRIBUTING.md', 'docs/**/*.md', 'data/*/README.md'),
  *('experiments/*/README.md', 'launch/README.md', 'requirements/README.md'),
)
PAGES = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))
EXAMPLES = ('data/mine/', 'tests/data/mine_test.py', '.ci/out/site')  # paths that a reader makes
FENCE = re.compile(r'^```(\w*)\n(.*?)^```', re.MULTILINE | re.DOTALL)
LINK = re.compile(r'\]\(([^)\s]+)\)')
PLACES = r'flexfas_jax|configs|data|experiments|tests|launch|requirements|docs|\.ci'
COMMAND = re.compile(
  r'(?<![\w/=-])(?:flexfas(?= [a-z])|python -m (?:flexfas_jax|experiments)[\w.]*)'
  r'(?: [^\n;|&]*|$)',
  re.MULTILINE,
)
TAKE_A_CONFIG = ('train', 'evaluate', 'export', 'preflight')

each_page = pytest.mark.parametrize(
  'page', PAGES, ids=[path.relative_to(ROOT).as_posix() for path in PAGES]
)


def prose(page: pathlib.Path) -> str:
  return FENCE.sub('', page.read_text(encoding='utf-8'))


def anchors(page: pathlib.Path) -> set[str]:
  """As GitHub and MyST make them of headings."""
  headings = re.findall(r'^#+ (.*)$', prose(page), re.MULTILINE)
  return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def is_dead(link: str, page: pathlib.Path) -> bool:
  if '://' in link or link.startswith('mailto:'):
    return False
  path, _, anchor = link.partition('#')
  file = (page.parent / path).resolve() if path else page
  return not file.exists() or (bool(anchor) and anchor not in anchors(file))


def commands(text: str) -> list[list[str]]:
  """Commands of this project in a page: [['flexfas', 'lint', '--root=DIR'], ['experiments.x']]."""
  blocks = [block for language, block in FENCE.findall(text) if language == 'sh']
  blocks += re.findall(r'^(?:    .*\n)+', text, re.MULTILINE)  # indented blocks
  blocks += re.findall(r'`([^`\n]+)`', FENCE.sub('', text))
  commands = []
  for block in blocks:
    block = re.sub(r'\\\n', ' ', block)
    block = re.sub(r'#[^\'"\n]*$', '', block, flags=re.MULTILINE)  # comments
    for command in COMMAND.findall(block):
      words = [word.strip('\'"[]()') for word in command.split()]  # [--optional]
      commands.append(words if words[0] == 'flexfas' else words[2:])
  return commands


def wrong_flags(words: list[str]) -> list[str]:
  """What of a command does not exist: the command, its flags, fields of its config."""
  program, *arguments = words
  flags = [match[0] for word in arguments if (match := re.match(r'--\w+', word))]
  module = ROOT.joinpath(*program.split('.'))
  name = arguments[0] if program == 'flexfas' else program.removeprefix('flexfas_jax.')
  if program == 'flexfas_jax':  # python -m flexfas_jax COMMAND
    name = arguments[0]
  name = 'train' if name == 'main' else name
  if name in flexfas.COMMANDS:
    wrong = [f'{name} {flag}' for flag in flags if flag not in flags_of(name)]
    return wrong + (unknown_fields(arguments) if name in TAKE_A_CONFIG else [])
  if name.isupper():  # COMMAND
    return []
  # Other modules are read, not run: some import what is not installed. An experiment may take the
  # flags of its folder's parser.
  files = (module / '__main__.py', module.with_suffix('.py'))
  files = [file for file in files if file.exists()]
  if not files:
    return [' '.join(words)]
  text = ''.join(file.read_text() for file in (*files, *module.parent.glob('__main__.py')))
  return [f'{program} {flag}' for flag in flags if f"'{flag}'" not in text]


@functools.cache
def flags_of(command: str) -> frozenset[str]:
  """What `flexfas COMMAND --help` lists."""
  output = io.StringIO()
  with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
    flexfas.main([command, '--help'])
  return frozenset(re.findall(r'--\w+', output.getvalue().replace('--[no]', '--')))


def unknown_fields(words: list[str]) -> list[str]:
  """Of --config.a.b=... those that the command's config does not have."""
  config = next((w for w in words if w.startswith('--config=')), '--config=vit_fusion')
  name, _, recipe = config.removeprefix('--config=').partition(':')
  if name == '...':
    return []
  if not (ROOT / 'configs' / f'{pathlib.PurePath(name).stem}.py').exists():
    return [config]
  module = importlib.import_module(f'configs.{pathlib.PurePath(name).stem}')
  fields = module.get_config(*[recipe] * bool(recipe))
  unknown = []
  for word in words:
    if match := re.match(r'--config\.([\w.]+)', word):
      node = fields
      for key in match[1].split('.'):
        if key not in node:
          unknown.append(word)
          break
        node = node[key]
  return unknown


def test_the_readme_is_short():
  assert len((ROOT / 'README.md').read_text(encoding='utf-8').splitlines()) <= 150


def test_the_readme_starts_with_the_commands_that_figures_are_measured_with():
  first = FENCE.findall((ROOT / 'README.md').read_text(encoding='utf-8'))[0][1]
  assert first == (
    'pip install . && python -m flexfas_jax.main --config=configs/vit_fusion.py '
    "--workdir=runs/vit_fusion\npip install '.[test]' && pytest\n"
  )


@each_page
def test_links_lead_somewhere(page):
  assert not [link for link in LINK.findall(prose(page)) if is_dead(link, page)]


@each_page
def test_paths_of_the_repository_exist(page):
  paths = re.findall(rf'`((?:{PLACES})/[\w./-]*)', prose(page))
  found = blocks.read(page.relative_to(ROOT).as_posix())
  made = {block.edit[1] for block in found if block.edit}  # by blocks of the page
  allowed = {*EXAMPLES, *made}
  assert not [path for path in paths if path not in allowed and not (ROOT / path).exists()]


@each_page
def test_commands_and_their_flags_exist(page):
  found = commands(page.read_text(encoding='utf-8'))
  assert not [wrong for words in found for wrong in wrong_flags(words)]


def test_every_page_is_on_the_map():
  """From which the site's navigation is made."""
  index = ROOT / 'docs' / 'index.md'
  links = {link.partition('#')[0] for link in LINK.findall(index.read_text(encoding='utf-8'))}
  listed = {(index.parent / link).resolve() for link in links}
  assert {*PAGES} - listed == {index}


def test_dead_links_are_detected(tmp_path):
  page = tmp_path / 'a.md'
  page.write_text('# One page, two words\n')
  links = ('a.md', '#one-page-two-words', 'https://a.b/c', 'b.md', '#two', 'a.md#two')
  assert [link for link in links if is_dead(link, page)] == ['b.md', '#two', 'a.md#two']


def test_wrong_commands_are_detected():
  text = '```sh\ntime flexfas lint a.csv --rot=x && echo\n```\n`flexfas train --config.stepz=3`.\n'
  found = commands(text)
  assert found == [
    ['flexfas', 'lint', 'a.csv', '--rot=x'],
    ['flexfas', 'train', '--config.stepz=3'],
  ]
  assert [wrong for words in found for wrong in wrong_flags(words)] == [
    'lint --rot',
    '--config.stepz=3',
  ]
  assert wrong_flags(['flexfas', 'lnt']) == ['flexfas lnt']
  assert wrong_flags(['flexfas', 'train', '--config=vit_fusio']) == ['--config=vit_fusio']
  assert wrong_flags(['flexfas_jax', 'score', '--dev=a', '--develop=b']) == ['score --develop']
  assert wrong_flags(['experiments.parity', '--fixtures', 'a', '--fixture=b']) == [
    'experiments.parity --fixture'
  ]


def test_every_block_runs_or_states_why_not():
  """`.ci/pages` runs those without a comment."""
  found = [block for page in blocks.pages() for block in blocks.read(page)]
  fences = sum(
    len(re.findall(r'^```(?:sh|python)$', (ROOT / page).read_text(encoding='utf-8'), re.MULTILINE))
    for page in blocks.pages()
  )
  assert len(found) == fences
  assert sum(not block.not_run for block in found) > fences / 2
  for block in found:
    assert not block.not_run or len(block.not_run.split()) > 1, f'{block.page}, line {block.line}'


def test_blocks_are_read_with_their_comments(tmp_path):
  text = (
    '```sh\na\n```\n<!-- not run: needs a GPU -->\n```sh\nb\n```\n<!-- config: x:y -->\n'
    '```python\nc.z = 1\n```\n<!-- after: d.py:   f( -->\n```python\n  g\n```\n```text\nh\n```\n'
  )
  found = blocks.read('page.md', text)
  assert [b.text for b in found] == ['a\n', 'b\n', 'c.z = 1\n', '  g\n']
  assert [b.line for b in found] == [2, 6, 10, 14]
  assert [b.not_run for b in found] == ['', 'needs a GPU', '', '']
  assert [b.config for b in found] == ['', '', 'x:y', '']
  script = blocks.script(found)
  assert '\na\n' in script and '\nb\n' not in script and "get_config('y')" in script
  (tmp_path / 'd.py').write_text('  f(\n  h\n')
  blocks.edit(found, tmp_path)
  assert (tmp_path / 'd.py').read_text() == '  f(\n  g\n  h\n'


@pytest.mark.skipif(not browser.CHROMIUM, reason='there is no chromium to run the script with')
def test_a_search_finds_guides_first(tmp_path):
  """By Sphinx's scores alone, an attribute of the API precedes the guide of its name."""
  api = ['docs/reference/api', 'Decision.threshold', '#x', 'attribute', 16]
  pages = [  # in the order that they must have
    ['docs/how-to/choose-a-threshold', '', '', '', 15],
    ['docs/explanation/thresholds-and-intervals', '', '', '', 15],
    api,
    ['docs/reference/exit-codes', '', '', '', 15],
    ['docs/tutorials/tpu-job', '', '', '', 5],
    ['docs/explanation/method', '', '', '', 5],
    ['docs/reference/commands', '', '', '', 5],
    ['experiments/performance/README', '', '', '', 5],
    ['CHANGELOG', '', '', '', 5],
  ]
  script = (ROOT / 'docs' / 'scorer.js').read_text(encoding='utf-8')
  with browser.Browser(tmp_path) as page:
    scores = page.run(f'{script}; {json.dumps(pages)}.map(Scorer.score)')
  assert scores == sorted(scores, reverse=True) and len(set(scores)) == len(pages)
