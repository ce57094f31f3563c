"""Selections choose examples; invalid ones are refused."""

import numpy as np
import pytest

from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.input_pipeline import sources
from flexfas_jax.protocols import selection

CEFA = 'rendered_faces/cefa_like_tiny'


def ids(names, prepared):
  source = sources.open_source(names, prepared)
  return {source[i]['id'] for i in range(len(source))}


def test_one_line_of_text():
  found = selection.parse(
    'a/b:train[species!=x,y & subject%3=0,2 & modalities=rgb,ir & in=l/s.txt]'
  )
  assert (found.dataset, found.split) == ('a/b', 'train')
  assert found.modalities == ('rgb', 'ir')
  assert found.conditions == (
    selection.Condition('species', 0, False, ('x', 'y')),
    selection.Condition('subject', 3, True, ('0', '2')),
    selection.Condition('in', 0, True, ('l/s.txt',)),
  )
  assert selection.parse('a:all').conditions == ()


def test_several_are_parted_at_commas_outside_brackets():
  assert selection.split_selections('a:x[f=1,2], b:y ,c:z[g=1]') == [
    'a:x[f=1,2]',
    'b:y',
    'c:z[g=1]',
  ]
  assert selection.split_selections(['a:x']) == ['a:x']


def test_which_are_rendered():
  own = 'manifest/ours:test[species=print,rendered_faces/x]'
  assert not selection.is_rendered(own)
  assert selection.is_rendered(f'{own}, {CEFA}:test[species=a,b]')
  assert selection.is_rendered([own, f'{CEFA}:test'])


@pytest.mark.parametrize(
  'text',
  ['a/b', 'a/b:', ':train', 'a:t[', 'a:t[]', 'a:t[x]', 'a:t[x=1', 'a:t[x=1 y=2]', 'a:t[video%3=0]']
  + ['a:t[subject%1=0]', 'a:t[modalities!=rgb]', 'a:t[modalities=]', 'a b:t', 'a:t[x=1 &]'],
)
def test_another_form(text):
  with pytest.raises(ConfigError, match='set/config:split|modalities|subject%N'):
    selection.parse(text)


def test_species_bona_fide_and_the_rest_make_the_whole(prepared):
  whole = ids(f'{CEFA}:train', prepared)
  replay = ids(f'{CEFA}:train[species=replay]', prepared)
  others = ids(f'{CEFA}:train[species!=replay]', prepared)
  people = ids(f'{CEFA}:train[category=bona_fide]', prepared)
  assert replay and people and replay | others == whole and not replay & others
  assert people < others
  both = ids(f'{CEFA}:train[category=bona_fide,replay & label=attack]', prepared)
  assert both == replay


def test_people_are_parted_once_for_all(prepared):
  parts = [ids(f'{CEFA}:train[subject%2={k}]', prepared) for k in (0, 1)]
  assert not parts[0] & parts[1]
  assert parts[0] | parts[1] == ids(f'{CEFA}:train', prepared)
  assert ids(f'{CEFA}:train[subject%2!=0]', prepared) == parts[1]
  # The same on every machine and in every version: protocols rest on it.
  assert [selection.part_of(f's{i}', 3) for i in range(8)] == [2, 0, 1, 2, 0, 2, 1, 2]
  shares = np.bincount([selection.part_of(f'x/{i}', 3) for i in range(3000)]) / 3000
  assert np.abs(shares - 1 / 3).max() < 0.03


def test_only_some_sensors(prepared):
  source = sources.open_source(f'{CEFA}:val[modalities=depth]', prepared)
  assert source[0]['depth'] and source[0]['rgb'] == source[0]['ir'] == b''
  assert sources.open_source(f'{CEFA}:val', prepared)[0]['rgb']
  with pytest.raises(ConfigError, match="no modality 'thermal'; there are rgb, depth, ir"):
    sources.open_source(f'{CEFA}:val[modalities=thermal]', prepared)


def test_a_published_list_selects(prepared, tmp_path):
  wanted = sorted(ids(f'{CEFA}:val', prepared))[:3]
  rows = [f'{i},{i}.jpg,attack' for i in (*wanted, 'cefa_like/not/there')]
  (tmp_path / 'list.csv').write_text('\n'.join(['id,rgb,label', *rows, '']))
  assert ids(f'{CEFA}:val[in={tmp_path}/list.csv]', prepared) == set(wanted)
  rows = [f'{i.removeprefix("cefa_like/")},{i}.jpg,attack' for i in wanted]
  (tmp_path / 'own.csv').write_text('\n'.join(['id,rgb,label', *rows, '']))
  assert ids(f'{CEFA}:val[in={tmp_path}/own.csv]', prepared) == set(wanted)
  left = ids(f'{CEFA}:val[in!={tmp_path}/list.csv]', prepared)
  assert left == ids(f'{CEFA}:val', prepared) - set(wanted)


@pytest.mark.parametrize(
  'inside,match',
  [
    # With != this would quietly leave the held-out attack in the training.
    ('species!=replays', "no species 'replays'; it has: bona_fide, mask_latex"),
    ('ethnicity=AF', "no ethnicity 'AF'; it has: group_a"),
    ('kind=replay', "no field 'kind'; it has: species, category"),
    ('subject%3=3', "'3' is no part of 3; they are 0 to 2"),
  ],
)
def test_a_slip_of_the_pen(prepared, inside, match):
  with pytest.raises(ConfigError, match=match):
    sources.open_source(f'{CEFA}:train[{inside}]', prepared)


def test_nothing_is_left(prepared):
  # The species is one of the set, though of another split.
  with pytest.raises(DataError, match='none of .* examples matches'):
    sources.open_source(f'{CEFA}:train[species=mask_latex]', prepared)


def test_columns_say_what_the_examples_are(prepared):
  source = sources.open_source(f'{CEFA}:val[species=replay],{CEFA}:masks', prepared)
  for field in ('id', 'subject', 'attack_type', 'ethnicity'):
    assert source.columns[field] == [source[i][field] for i in range(len(source))]
  assert set(source.columns['label']) == {'attack'}
