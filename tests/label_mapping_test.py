"""A mapping of labels replaces the default, in every command; hints never suggest one polarity."""

import json
import pathlib

import pytest

from flexfas_jax import label_mapping, lint, score
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.evaluation import score_files, scores_without_ids
from flexfas_jax.prediction import samples
from flexfas_jax.protocols import lists

CASES = pathlib.Path(__file__).parent / 'cases' / 'scores' / 'half-mapped-labels'
HALF = '0=bona_fide,2=attack,3=attack,7=attack,9=attack'


def test_defaults():
  meaning = label_mapping.LabelMapping()
  for cells, label in (
    (('1', '1.0', ' 1 ', '1.', 'True', 'TRUE', 'bona_fide', 'Bona_Fide', ' bona_fide\xa0'),
     'bona_fide'),
    (('0', '0.0', '0 ', 'False', 'false', 'attack', 'ATTACK', 'attack '), 'attack'),
  ):  # fmt: skip
    for cell in cells:
      assert meaning.label(cell) == label, cell
  for cell in ('', ' ', '-1', '2', '0.5', '1.5', '0_1', '1e0', 'live', 'bona fide', 'yes', '١'):
    with pytest.raises(KeyError):
      meaning.label(cell)


def test_a_mapping_replaces_the_defaults():
  meaning = label_mapping.LabelMapping({'0': 'bona_fide', '2': 'attack'})
  assert (meaning.label('0'), meaning.label('0.0'), meaning.label('False')) == ('bona_fide',) * 3
  assert (meaning.label('2.0'), meaning.label('attack'), meaning.label('bona_fide')) == (
    'attack', 'attack', 'bona_fide',
  )  # fmt: skip
  for cell in ('1', '1.0', 'True', '3'):
    with pytest.raises(KeyError):
      meaning.label(cell)
  own = label_mapping.LabelMapping({'True': 'attack', '1': 'bona_fide'})
  assert (own.label('True'), own.label('1')) == ('attack', 'bona_fide')
  with pytest.raises(KeyError):
    own.label('False')


def test_the_hint_gives_both_polarities():
  assert label_mapping.LabelMapping().unknown('live') == (
    "unknown label 'live'; expected 0, 1, bona_fide or attack. "
    'Map it with --labels=live=bona_fide or --labels=live=attack'
  )
  said = label_mapping.LabelMapping().unknown('live')
  assert label_mapping.strip_advice(said) == (
    "unknown label 'live'; expected 0, 1, bona_fide or attack"
  )
  assert label_mapping.strip_advice('names no image') == 'names no image'
  # What is mapped stays mapped when the hint is followed.
  said = label_mapping.LabelMapping({'live': 'bona_fide'}).unknown('spoof')
  assert '--labels=live=bona_fide,spoof=bona_fide or --labels=live=bona_fide,spoof=attack' in said
  assert label_mapping.LabelMapping({}).unknown(' ') == (
    'the label is empty; expected bona_fide or attack'
  )


@pytest.mark.parametrize(
  'text',
  ['live', 'live=real', '=attack', '1=attack,1=bona_fide', 'bona_fide=attack', '0=1', '', ' , ',
   '1=attack,1.0=attack', 'Attack=bona_fide'],
)  # fmt: skip
def test_mappings_that_are_none(text):
  with pytest.raises(ConfigError, match='the labels'):
    label_mapping.parse(text)


def test_a_half_mapped_score_file_is_refused(tmp_path, capsys):
  types, out = CASES / 'types.csv', tmp_path / 'o.json'
  assert score.main([str(types), f'--labels={HALF}', '--bootstrap=0']) == 3
  said = capsys.readouterr().err
  assert "unknown label '1'; expected 0, 2, 3, 7, 9, bona_fide or attack" in said
  assert 'types.csv, row ' in said
  args = [str(types), f'--labels={HALF},1=attack', '--bootstrap=0', f'--json={out}']
  assert score.main(args) == 0
  found = json.loads(out.read_text())['score']
  assert [round(100 * found[name], 4) for name in ('apcer', 'bpcer', 'acer')] == [
    12.8755, 8.982, 10.9288,
  ]  # fmt: skip
  assert score.main([str(CASES / 'two.csv'), '--labels=0=bona_fide', '--bootstrap=0']) == 3
  assert "row 2: unknown label '1'; expected 0, bona_fide or attack" in capsys.readouterr().err


def test_lists_manifests_and_bare_lists_refuse_alike(tmp_path, capsys):
  half = {'0': 'bona_fide'}
  with pytest.raises(DataError, match="row 3: unknown label '1'"):
    list(lists.read(CASES / 'list.csv', half))
  with pytest.raises(DataError, match="row 3: unknown label '1'"):
    samples.read_manifest(CASES / 'list.csv', labels=half)
  with pytest.raises(DataError, match="row 3: unknown label '1'"):
    scores_without_ids.read_list(CASES / 'list.csv', score_files.Dialect(labels=half))
  assert lint.main([str(CASES / 'list.csv'), '--labels=0=bona_fide']) == 3
  said = capsys.readouterr().out
  assert "unknown label '1'" in said
  assert '--labels=0=bona_fide,1=bona_fide or --labels=0=bona_fide,1=attack' in said
  whole = half | {'1': 'attack'}
  assert [row.label for row in lists.read(CASES / 'list.csv', whole)] == ['bona_fide', 'attack']


def test_a_label_with_a_comma_is_a_number_or_has_to_be_renamed():
  assert label_mapping.LabelMapping().label('1,0') == 'bona_fide'
  text = label_mapping.LabelMapping().unknown('print, flat')
  assert '--labels' not in text and 'Rename it in the file' in text
