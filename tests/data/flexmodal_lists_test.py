"""The FlexModal lists as plans: where they are found, what is cleaned, what is told."""

import itertools
import pathlib
import re
import types

import pytest

from flexfas_jax.data import flexmodal_lists
from flexfas_jax.data.flexmodal_lists import SURF_CEFA, WMCA
from flexfas_jax.errors import DataError
from tests.miniatures import flexmodal

PUBLISHED = pathlib.Path(__file__).parents[3] / 'shared' / 'data' / 'flexmodal_protocols'
_LIVE = 'CASIA-SURF-CROP/real_part/real_train_part/CLKJ_AS0005/real.rssdk/{}/1.jpg'
_FAKE = 'CASIA-SURF-CROP/fake_part/fake_train_part/CLKJ_AS0005/01_e_s.rssdk/{}/1.jpg'


@pytest.fixture
def source(tmp_path):
  """A source with the published lists and without pictures."""
  flexmodal.write_lists(tmp_path / 'Protocols', faults=True)
  for export in flexmodal.EXPORTS:
    (tmp_path / export).mkdir()
  return tmp_path


def builder(source, lists=None):
  return types.SimpleNamespace(
    source=source, lists=lists and pathlib.Path(lists), accept_known_leaks=()
  )


def plan(dataset, source, lists=None, published=False, of=SURF_CEFA):
  return flexmodal_lists.plan(builder(source, lists), dataset, of, published)


def counts(made):
  return {
    split: (len(rows), sum(row.facts['label'] == 'bona_fide' for row in rows))
    for split, rows in made.splits.items()
  }


def row(path, label, kinds=('color', 'depth', 'ir')):
  """A row of a list, whose paths are one but for the modality."""
  return ' '.join([*(path.format(kind) for kind in kinds), str(label)])


def rewrite(source, *rows):
  (source / 'Protocols' / SURF_CEFA['train']).write_text('\n'.join(rows))


@pytest.mark.parametrize(
  'dataset, lists, clean, published',
  [
    (
      'casia_surf', SURF_CEFA,
      {'train': (27, 4), 'val': (28, 4), 'test': (27, 4)},
      {'train': (29, 4), 'val': (28, 4), 'test': (29, 4)},
    ),
    (
      'casia_cefa', SURF_CEFA,
      {'train': (16, 4), 'val': (16, 4), 'test': (19, 4)},
      {'train': (16, 4), 'val': (17, 5), 'test': (21, 4)},
    ),
    ('wmca', WMCA, {'test': (34, 6)}, {'test': (34, 6)}),
  ],
)  # fmt: skip
def test_rows_of_one_data_set(source, dataset, lists, clean, published):
  for wanted, as_published in ((clean, False), (published, True)):
    made = plan(dataset, source, published=as_published, of=lists)
    assert counts(made) == wanted and not made.findings
    assert set(made.recorded['lists']) == set(lists.values())
    for rows in made.splits.values():
      ids = [row.facts['id'] for row in rows]
      assert len(set(ids)) == len(ids)
      assert {row.facts['dataset'] for row in rows} == {dataset}


# (bona fide, attacks) of train, val and test in MMDG's own lists; its WMCA lists are the videos of
# grandtest, all of FlexModal's list together.
MMDG = {
  ('casia_cefa', True): ((1200, 3600), (601, 1800), (1200, 5539)),
  ('casia_cefa', False): ((1200, 3600), (600, 1800), (1200, 5535)),
  ('casia_surf', True): ((900, 5397), (300, 1800), (1800, 10764)),
  ('casia_surf', False): ((898, 5379), (300, 1800), (1796, 10712)),
  ('wmca', True): ((372 + 324 + 345, 1323 + 1347 + 1326),),
  ('wmca', False): ((1041, 3996),),
}


@pytest.mark.parametrize('dataset, published', MMDG)
def test_the_published_rows_are_mmdgs(tmp_path, dataset, published):
  if not PUBLISHED.is_dir():
    pytest.skip('the published lists are not here')
  for export in flexmodal.EXPORTS:
    (tmp_path / export).mkdir()
  of = WMCA if dataset == 'wmca' else SURF_CEFA
  made = counts(plan(dataset, tmp_path, lists=PUBLISHED, published=published, of=of))
  assert tuple((live, n - live) for n, live in made.values()) == MMDG[dataset, published]


def test_redundant_rows_have_ids_of_their_own(source):
  made = plan('casia_surf', source, published=True)
  rows = made.splits['train']
  again = [row for row in rows if 'CLKJ_BS0049/02_e_b' in row.facts['id']]
  assert [row.facts['id'].rpartition('/')[2] for row in again] == ['121', '121#2', '121#3']
  assert len({row.facts['video'] for row in again}) == 1 and again[0].files == again[2].files
  assert [row.row for row in again] == [19, 20, 21]  # of the list
  said = 'CASIA-SURF_CeFA_train.txt: 2 redundant rows, of 1 triplets, '
  assert said + 'kept, with #2, #3 behind their ids' in made.notes
  assert said + 'left out' in plan('casia_surf', source).notes


def test_the_known_leak_is_accepted_where_it_is(source):
  one = builder(source)
  flexmodal_lists.plan(one, 'casia_cefa', SURF_CEFA, True)
  assert one.accept_known_leaks == ('flexmodal_v1',)
  for dataset, published in (('casia_cefa', False), ('casia_surf', True)):
    one = builder(source)
    flexmodal_lists.plan(one, dataset, SURF_CEFA, published)
    assert one.accept_known_leaks == ()


def test_where_lists_are_found(source, tmp_path):
  here = source / 'Protocols'
  before = counts(plan('casia_surf', source))
  assert counts(plan('casia_surf', source, lists=here)) == before
  assert counts(plan('casia_surf', source, lists=source)) == before  # Protocols below it
  files = ','.join(str(here / name) for name in SURF_CEFA.values())
  assert counts(plan('casia_surf', source, lists=files)) == before
  here.rename(source / 'protocols')
  assert counts(plan('casia_surf', source)) == before
  for name in SURF_CEFA.values():
    (source / 'protocols' / name).rename(source / name.lower())
  assert counts(plan('casia_surf', source)) == before


def test_lists_that_are_not_there(source):
  (source / 'Protocols' / SURF_CEFA['val']).unlink()
  with pytest.raises(DataError, match='no CASIA-SURF_CeFA_val.txt .*--lists=DIR'):
    plan('casia_surf', source)
  (source / 'elsewhere').mkdir()
  with pytest.raises(DataError, match='no .*train.txt, .*val.txt, .*test.txt there'):
    plan('casia_surf', source, lists=source / 'elsewhere')  # and not in the source instead
  with pytest.raises(DataError, match='--lists: there is no .*nowhere'):
    plan('casia_surf', source, lists=source / 'nowhere')


def test_a_source_that_is_another_folder(source):
  lists = source / 'Protocols'
  with pytest.raises(DataError, match='no folder CASIA-SURF-CROP.*give the folder above'):
    plan('casia_surf', source / 'CASIA-SURF-CROP', lists=lists)
  with pytest.raises(DataError, match='no folder WMCA-Image.*e.g. WMCA-Image/R_CDIT/001_01'):
    plan('wmca', source / 'CeFA', lists=lists, of=WMCA)


@pytest.mark.parametrize(
  'wrong, rule, words',
  [
    (row(_FAKE, 1), 'label', 'bona_fide, and the path of .*01_e_s/1 means attack'),
    (row(_FAKE, 2), 'label', "unknown label '2'"),
    (row(_FAKE, 0).replace('depth/1.', 'depth/2.'), 'triplet', 'is not of .*01_e_s/1'),
    (row(_FAKE, 0, ('color', 'ir', 'depth')), 'swapped', 'in the column of depth'),
    (row('../' + _FAKE, 0), 'outside-root', 'is not below the root'),
    (row('faces/{}/1.jpg', 0), 'row', 'faces/color/1.jpg is of no layout'),
    ('one two three', 'row', 'has 3 fields'),
  ],
)
def test_rows_that_are_wrong_are_reported_and_left_out(source, wrong, rule, words):
  rewrite(source, row(_LIVE, 1), wrong, row(_FAKE.replace('1.jpg', '2.jpg'), 0))
  made = plan('casia_surf', source)
  assert len(made.splits['train']) == 2
  assert {(f.rule, f.row) for f in made.findings} == {(rule, 2)}
  assert made.findings[0].list.endswith(SURF_CEFA['train'])
  assert re.search(words, made.findings[0].text)


def test_what_is_there_of_mismatched_videos_is_used(tmp_path):
  flexmodal.write_lists(tmp_path / 'Protocols')
  folder = tmp_path / 'WMCA-Image' / 'R_CDIT'
  for *files, _ in flexmodal.rows()['WMCA_test.txt']:
    for path in files:
      (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
      (tmp_path / path).touch()
  for video, kind in itertools.product(flexmodal.MISMATCHED, ('depth', 'ir')):
    for number, path in enumerate(sorted((folder / video / kind).iterdir())):
      path.rename(path.with_name(f'{number:04d}.jpg'))
  rows = plan('wmca', tmp_path, of=WMCA).splits['test']
  lacking = {row.facts['video'].rpartition('/')[2] for row in rows if len(row.files) < 3}
  assert lacking == set(flexmodal.MISMATCHED)
  notes = plan('wmca', tmp_path, of=WMCA).notes
  assert notes == [
    f'{video}: 2 triplets lack a modality; its frames are known not to match'
    for video in ('wmca/100/100_03_015_2_10', 'wmca/101/101_06_067_1_02')
  ]
  # Nothing at all, or another video: missing as any other.
  (folder / '100_03_015_2_10' / 'color' / '0012.jpg').unlink()
  (folder / '001_01_000_2_08' / 'ir' / '0012.jpg').unlink()
  rows = {row.facts['id']: row for row in plan('wmca', tmp_path, of=WMCA).splits['test']}
  assert len(rows['wmca/100/100_03_015_2_10/0012'].files) == 3
  assert len(rows['wmca/001/001_01_000_2_08/0012'].files) == 3
