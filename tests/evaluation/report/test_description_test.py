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
    ('[species.paper]\ninstruments = true', 'instruments is true; give a number'),
    (
      '[species.paper]\ninstruments = 1' + 40 * '0',
      'instruments is a number of more than 30 digits',
    ),
    ('[species.paper]\ninstruments = 1000001', 'of at most 1,000,000'),
    ('[species.paper]\ninstruments = 1' + 5000 * '0', 'is no TOML'),
    ('[species.paper]\ninstruments = ' + 5000 * '[', 'is no TOML'),
    ('[species.paper]\nlevel = 1.5', r'level is 1.5; give a text: level = "..."'),
    ('[species.paper]\nlevel = inf', 'level is inf; give a text'),
    ('[object]\nversion = 2026-11-29', r'version is 2026-11-29; give a text: version = "..."'),
    ('[test]\nplace = 10:30:00', r'place is 10:30:00; give a text: place = "..."'),
    ('[test]\ndate = 10:30:00', 'date is 10:30:00, which is no date; give the day of the test'),
    ('[test]\ndate = 20261129', 'date is 20261129, which is no date; give the day'),
    ('[test]\ndate = "yesterday"', "date is 'yesterday', which is no date; give the day"),
    ('[test]\ndate = "2026-02-31"', "date is '2026-02-31', which is no date"),
    ('[test]\ndate = "2026-11-29 to 2026-11-23"', 'which is no date'),
    ('[test]\ndate = 0001-01-01', 'date is 0001-01-01; a year from 2000 to 2099 is plausible'),
    ('[test]\ndate = 9999-12-31T10:00:00', 'date is 9999-12-31 10:00; a year from 2000'),
    ('[test]\npolicy = "' + 2001 * 'x' + '"', 'policy has 2,001 characters; at most 2,000 have'),
    ('[test]\npolicy = "' + 2_000_000 * 'x' + '"', 'has more than 256 KiB, the limit'),
    ('species = 3', r'species must be tables, such as \[species.paper\]'),
    ('[species]\npaper = "x"', r'species."paper" must be a table'),
  ],
)
def test_what_is_refused(tmp_path, text, message):
  with pytest.raises(DataError, match=message) as caught:
    read(tmp_path, text)
  assert str(caught.value).startswith(f'{tmp_path}/test.toml')


@pytest.mark.parametrize(
  ('date', 'text'),
  [
    ('2026-11-29', '2026-11-29'),
    ('2026-11-29T10:30:00', '2026-11-29 10:30'),
    ('2026-11-29 10:30:00Z', '2026-11-29 10:30+00:00'),
    ('"2026-11-29"', '2026-11-29'),
    ('"2026-11-23 to 2026-11-29"', '2026-11-23 to 2026-11-29'),
  ],
)
def test_dates(tmp_path, date, text):
  assert read(tmp_path, f'[test]\ndate = {date}') == {'test': {'date': text}}


def test_a_level_may_be_a_number_and_a_text_as_long_as_the_limit(tmp_path):
  text = '\ufeff[species.paper]\nlevel = 2\n[test]\nplace = "' + 2000 * 'x' + '"'
  found = read(tmp_path, text)
  assert found['species'] == {'paper': {'level': '2'}} and len(found['test']['place']) == 2000


def test_species_of_scores_without_any(tmp_path):
  text = '[species.paper]\nlevel = "A"'
  with pytest.raises(DataError, match='no species of the scores; they have: none'):
    read(tmp_path, text, species=())
  assert read(tmp_path, text, species=None)['species'] == {'paper': {'level': 'A'}}


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
