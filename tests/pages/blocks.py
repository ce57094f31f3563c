"""The shell and Python blocks of a page, and which of them run.

A block runs as it is printed, unless a comment above it states why not:

    <!-- not run: serves until it is stopped; tests/demo_test.py -->

The text of a block may be a file of the package, its end, or lines after one of its lines:

    <!-- file: flexfas_jax/models/fusion/gated_sum.py -->
    <!-- append: flexfas_jax/training/losses.py -->
    <!-- after: flexfas_jax/schema.py: a line of that file -->

A page with such a block has a copy of the package, not links to it. A Python block that begins with
`c.` is a part of a config: `<!-- config: resnet_fusion:flexmodal -->` names the config whose fields
it sets; without the comment that of vit_fusion. The config is built.
"""

import pathlib
import re
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ('README.md', 'CONTRIBUTING.md', 'docs/**/*.md')
_FENCE = re.compile(
  r'(?:^<!-- (?P<key>not run|config|file|append|after): (?P<value>[^>]+?) -->\n\n?)?'
  r'^```(?P<language>sh|python)\n(?P<text>.*?)^```',
  re.MULTILINE | re.DOTALL,
)
_CONFIG = """\
from ml_collections import ConfigDict
from configs import {module}
c = ConfigDict({module}.get_config({recipe}).to_dict(), type_safe=False)
{text}
from flexfas_jax.training import setup
setup.build(c)
"""


class Block(NamedTuple):
  """A block of a page.

  Attributes:
    page: its path from the root.
    line: of its first line.
    language: 'sh' or 'python'.
    text: as it is printed.
    not_run: why it does not run; '' if it does.
    config: the config that it is a part of; '' for none.
    edit: ('file', 'append' or 'after', what follows in the comment) if it is text of a file.
  """

  page: str
  line: int
  language: str
  text: str
  not_run: str = ''
  config: str = ''
  edit: tuple[str, str] | None = None


def pages() -> list[str]:
  """Every page whose blocks run or state why not."""
  found = [path for pattern in PAGES for path in sorted(ROOT.glob(pattern))]
  return [path.relative_to(ROOT).as_posix() for path in found]


def read(page: str, text: str | None = None) -> list[Block]:
  """The blocks of a page, in order; `text` replaces its content."""
  text = (ROOT / page).read_text(encoding='utf-8') if text is None else text
  found = []
  for match in _FENCE.finditer(text):
    line = text.count('\n', 0, match.start('text')) + 1
    block = Block(page, line, match['language'], match['text'])
    if match['key'] == 'not run':
      block = block._replace(not_run=match['value'])
    elif match['key'] in ('file', 'append', 'after'):
      block = block._replace(edit=(match['key'], match['value']))
    elif block.language == 'python' and block.text.startswith('c.'):
      block = block._replace(config=match['value'] or 'vit_fusion')
    found.append(block)
  return found


def edit(blocks: list[Block], root: pathlib.Path) -> None:
  """Writes the texts of blocks into a copy of the package."""
  for block in blocks:
    if not block.edit:
      continue
    kind, place = block.edit
    place, _, line = place.partition(': ')
    path = root / place
    path.parent.mkdir(exist_ok=True)
    text = path.read_text(encoding='utf-8') if path.exists() else ''
    if kind == 'file':
      assert not path.exists(), place
      path.write_text(block.text, encoding='utf-8')
    elif kind == 'append':
      path.write_text(f'{text}\n\n{block.text}', encoding='utf-8')
    else:
      assert text.count(f'{line}\n') == 1, (place, line)
      path.write_text(text.replace(f'{line}\n', f'{line}\n{block.text}'), encoding='utf-8')


def script(blocks: list[Block]) -> str:
  """A bash script that runs those blocks of a page that run, in one shell, as a reader would."""
  parts = ['set -euo pipefail']
  for block in blocks:
    if block.not_run or block.edit:
      continue
    parts.append(f"printf '\\n=== %s, line %s\\n' {block.page} {block.line} >&2")
    if block.language == 'sh':
      parts.append(block.text)
      continue
    text = block.text
    if block.config:
      module, _, recipe = block.config.partition(':')
      recipe = repr(recipe) if recipe else ''
      text = _CONFIG.format(module=module, recipe=recipe, text=text)
    parts.append(f"python - << 'END_OF_BLOCK'\n{text}\nEND_OF_BLOCK")
  return '\n'.join(parts) + '\n'
