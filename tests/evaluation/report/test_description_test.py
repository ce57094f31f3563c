"""A laboratory's test.toml: what is read, and what is refused with file, key and way out."""

import pathlib

import pytest

from flexfas_jax.errors import DataError
from flexfas_jax.evaluation.report import test_description as descriptions


def read(folder, text, species=('paper', 'surf:mask')):
  path = folder / 'test.toml'
  path.write_text(text, encoding='utf-8')
  return descriptions.read(path, species)


def test_what_is_read(tmp_path):
  found = read(
    tmp_path,
    '[test]\noperator = "Zoë"\ndate = 2026-11-29\nplace = ""\n[capture]\n'
    '[species."surf:mask"]\ndescription = "resin"\ninstruments = 3\n',
  )
  assert found == {
    'test': {'operator': 'Zoë', 'date': '2026-11-29'},
    'species': {'surf:mask': {'description': 'resin', 'instruments': 3}},
  }
  missing = descriptions.missing(found, ['paper', 'surf:mask'])
  assert 'test.place' in missing and 'test.operator' not in missing
  assert missing[-1] == 'description and source of 2 of 2 PAI species'
  assert read(tmp_path, '') == {}


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('[test', 'is no TOML'),
    ('[tests]\n', "unknown table 'tests'; choose from: test, object, device"),
    ('test = 3', r'test must be a table: write \[test\]'),
    (
      '[test]\noperater = "x"',
      r"\[test\] has no key 'operater'; choose from: laboratory, operator",
    ),
    ('[test]\noperator = 3', r'\[test\] operator is 3; give a text: operator = "..."'),
    ('[species.papr]\n', r'\[species."papr"\] is no species of the scores; they have: paper, surf'),
    ('[species.paper]\ninstruments = "3"', "instruments is '3'; give a number, such as instrum"),
    ('[species.paper]\ninstruments = true', 'instruments is True; give a number'),
    ('species = 3', r'species must be tables, such as \[species.paper\]'),
    ('[species]\npaper = "x"', r'species."paper" must be a table'),
  ],
)
def test_what_is_refused(tmp_path, text, message):
  with pytest.raises(DataError, match=message) as caught:
    read(tmp_path, text)
  assert str(caught.value).startswith(f'{tmp_path}/test.toml')


def test_a_file_that_is_not_there():
  with pytest.raises(DataError, match=r'no\.toml cannot be read: No such file'):
    descriptions.read(pathlib.Path('no.toml'))


def test_every_field_is_documented():
  """The how-to page has the whole form, so that a laboratory can copy it."""
  page = pathlib.Path(__file__).parents[3] / 'docs' / 'how-to' / 'evaluate-scores.md'
  text = page.read_text(encoding='utf-8')
  block = text[text.index('```toml') :]
  block = block[: block.index('```', 3)]
  for table, fields in descriptions.FIELDS.items():
    assert f'[{table}]' in block
    assert all(f'\n{key} = ' in block for key in fields), table
  assert all(f'\n{key} = ' in block for key in descriptions.SPECIES)
