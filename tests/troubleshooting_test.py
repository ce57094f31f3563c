"""Every message that docs/how-to/troubleshooting.md quotes is one of the code's."""

import ast
import functools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / 'docs' / 'how-to' / 'troubleshooting.md'
GAP = '…'  # in the page, what differs from case to case; in the code, a value of an f-string
FOLDERS = ('flexfas_jax', 'data')
SHORTEST = 8  # characters: less of a text could be anywhere


def quoted(text: str) -> list[str]:
  """The messages of the tables' first columns."""
  return [found[1] for found in re.findall(r'^\| (`+)(.+?)\1 \| ', text, re.MULTILINE)]


def text_of(node: ast.AST) -> str | None:
  """A text of the source, with a gap for each value; None: not a text."""
  if isinstance(node, ast.Constant) and isinstance(node.value, str):
    return node.value
  if isinstance(node, ast.JoinedStr):
    return ''.join(text_of(value) or GAP for value in node.values)
  if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
    return (text_of(node.left) or GAP) + (text_of(node.right) or GAP)
  return None


@functools.cache
def texts() -> tuple[str, ...]:
  paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob('*.py')]
  nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]
  return tuple({text for node in nodes if (text := text_of(node)) is not None})


def is_message(message: str, texts) -> bool:
  """Whether its parts stand in one text, in order and with a gap, or nothing, between them."""
  parts = message.split(GAP)
  longest = max(parts, key=len)
  pattern = re.compile('.*'.join(re.escape(part) for part in parts if part), re.DOTALL)
  return len(longest) >= SHORTEST and any(longest in t and pattern.search(t) for t in texts)


@pytest.mark.parametrize('message', quoted(PAGE.read_text(encoding='utf-8')))
def test_a_quoted_message_is_one_of_the_code(message):
  assert is_message(message, texts()), message


def test_messages_that_do_not_exist_are_detected():
  code = "raise E(f'{path} is not a bundle: there is no {NAME}. ' + 'Export it')"
  found = [text for node in ast.walk(ast.parse(code)) if (text := text_of(node))]
  assert '… is not a bundle: there is no …. Export it' in found
  assert is_message('… is not a bundle: there is no …. Export', found)
  assert not is_message('… is no bundle', found)
  assert not is_message('Export it… is not a bundle', found)  # another order
  assert not is_message('… is …', found)  # too short
  assert quoted('| message | x |\n| `a | b` | c |\n| ``d `e` f`` | g |\n') == ['a | b', 'd `e` f']
