"""CASIA-SURF CeFA from every layout that it was handed out in."""

import collections
import json
import pathlib
import shutil

import cv2
import numpy as np
import pytest

from flexfas_jax import lint, prepare
from flexfas_jax.data import folders
from flexfas_jax.data.casia_cefa.casia_cefa_dataset_builder import Builder
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.input_pipeline import sources
from flexfas_jax.protocols import path_layouts
from tests.miniatures import casia_cefa, flexmodal

_CLIP = 'CASIA_CeFA/Ethnicity/CA/CA-200/2_200_3_1_4'
_OLD_CLIP = 'CeFA-Race/CA/CA-200/2_200_3_1_4'
_MASK = 'CASIA_CeFA/Mask/3D-Mask/002/1_002_1_1_2_2_1'


@pytest.fixture(scope='module')
def trees(tmp_path_factory):
  """The layouts, which no test changes."""
  root = tmp_path_factory.mktemp('casia_cefa')
  casia_cefa.write_ethnicity(root / 'ethnicity')
  casia_cefa.write_cefa_race(root / 'race')
  casia_cefa.write_protocol(root / 'lists')
  flexmodal.write(root / 'flexmodal', faults=True, exports=['CeFA'])
  return root


@pytest.fixture
def ethnicity(trees, tmp_path):
  """A copy of the current layout that a test may harm."""
  return pathlib.Path(shutil.copytree(trees / 'ethnicity', tmp_path / 'ethnicity'))


def keep(source, *kept):
  """Removes all but some folders of the source."""
  for folder in [*source.glob('*/Ethnicity/*'), *source.glob('*/Mask')]:
    if folder.name not in kept:
      shutil.rmtree(folder)


def build(config, source, data_dir, **settings):
  """Prepares a config in this process; returns its folder."""
  return sources.prepare(
    f'casia_cefa/{config}', str(data_dir), source=str(source), workers=1, **settings
  )


def planned(config, source, **settings):
  """What a config finds in a source, without reading pictures."""
  lists = settings.pop('lists', None)
  return Builder(config=config, data_dir='/none', source=source, lists=lists, **settings).plan()


def read(config, data_dir, split):
  """The examples of a split (or selection), by id."""
  source = sources.open_source(f'casia_cefa/{config}:{split}', str(data_dir))
  return {source[i]['id']: source[i] for i in range(len(source))}


def card(folder):
  return json.loads((folder / 'card.json').read_text())


def counts(folder):
  return {split: found['triplets'] for split, found in card(folder)['splits'].items()}


def species(examples):
  return collections.Counter(e['attack_type'] or 'bona_fide' for e in examples.values())


@pytest.mark.parametrize('layout', ['ethnicity', 'race'])
def test_both_layouts_are_one_set(trees, tmp_path, layout):
  folder = build('release', trees / layout, tmp_path)
  assert counts(folder) == {'train': 48, 'val': 24, 'test': 48, 'masks': 6}
  for split, numbers in casia_cefa.NUMBERS.items():
    examples = read('release', tmp_path, split)
    each = len(examples) // 4
    assert species(examples) == dict.fromkeys(
      ('bona_fide', 'cloth_indoor', 'cloth_outdoor', 'replay'), each
    )
    people = {e['subject'] for e in examples.values()}
    assert people == {f'casia_cefa/{r}-{n}' for r in casia_cefa.RACES for n in numbers}
    assert {e['ethnicity'] for e in examples.values()} == {'AF', 'CA', 'EA'}
  example = read('release', tmp_path, 'val')['casia_cefa/CA-200/2_200_3_1_4/0002']
  clip, rgb = (_CLIP, 'color') if layout == 'ethnicity' else (_OLD_CLIP, 'profile')
  for modality, kind in {'rgb': rgb, 'depth': 'depth', 'ir': 'ir'}.items():
    assert example.pop(modality) == (trees / layout / clip / kind / '0002.jpg').read_bytes()
  assert example == {
    'id': 'casia_cefa/CA-200/2_200_3_1_4/0002',
    'label': 0,
    'attack_type': 'replay',
    'attack_category': 'replay',
    'subject': 'casia_cefa/CA-200',
    'video': 'casia_cefa/CA-200/2_200_3_1_4',
    'frame': 2,
    'dataset': 'casia_cefa',
    'ethnicity': 'CA',
  }
  masks = read('release', tmp_path, 'masks')
  assert species(masks) == {'3d_mask': 4, 'silicone_mask': 2}
  assert {e['attack_category'] for e in masks.values()} == {'rigidmask', 'flexiblemask'}
  assert {e['ethnicity'] for e in masks.values()} == {''}  # nothing states it
  assert card(folder)['notes'] == []


def test_a_folder_of_the_source_is_a_source_too(trees):
  plan = planned('release', trees / 'ethnicity' / 'CASIA_CeFA' / 'Ethnicity')
  assert {split: len(rows) for split, rows in plan.splits.items()} == {
    'train': 48, 'val': 24, 'test': 48, 'masks': 0,
  }  # fmt: skip
  assert 'no masks in the source' in plan.notes[0] and not plan.findings


def test_the_columns_of_protocols(trees, tmp_path):
  build('release', trees / 'ethnicity', tmp_path, lists=str(trees / 'lists'))
  train = read('release', tmp_path, 'train[p1.1=train]')
  assert {e['ethnicity'] for e in train.values()} == {'AF'} and len(train) == 16
  assert {e['ethnicity'] for e in read('release', tmp_path, 'test[p1.1=test]').values()} == {
    'CA', 'EA',
  }  # fmt: skip
  assert len(read('release', tmp_path, 'masks[p1.1=test]')) == 6
  challenge = read('release', tmp_path, 'train[4@1=train]')
  assert species(challenge) == {'bona_fide': 2, 'replay': 2}
  assert {e['subject'] for e in challenge.values()} == {'casia_cefa/AF-000'}


def test_lists_of_pictures_are_read_where_there_are_none_of_videos(trees, tmp_path):
  lists = pathlib.Path(shutil.copytree(trees / 'lists', tmp_path / 'lists'))
  row = f'{_CLIP}/color/0001.jpg 1\n'
  (lists / 'CASIA_CeFA@p2.1_image_dev.txt').write_text(row)
  (lists / 'CASIA_CeFA@p1.1_image_train.txt').write_text(row)  # not of AF
  plan = planned('release', trees / 'ethnicity', lists=lists)
  columns = {row.facts['id']: row.extra for rows in plan.splits.values() for row in rows}
  assert columns['casia_cefa/CA-200/2_200_3_1_4/0001'] == {'device': 'bag', 'p2.1': 'dev'}
  assert columns['casia_cefa/CA-200/2_200_3_1_4/0002'] == {'device': 'bag'}
  assert columns['casia_cefa/AF-200/1_200_3_1_4/0002'] == {'device': 'bag', 'p1.1': 'dev'}


def test_lists_that_name_what_is_not_there(ethnicity, trees, tmp_path):
  shutil.rmtree(ethnicity / 'CASIA_CeFA' / 'Ethnicity' / 'AF' / 'AF-200' / '1_200_3_1_4')
  lists = pathlib.Path(shutil.copytree(trees / 'lists', tmp_path / 'lists'))
  row = (lists / 'CASIA_CeFA@p1.1_video_test.txt').read_text().splitlines()[0]
  with (lists / 'CASIA_CeFA@p1.1_video_dev.txt').open('a') as file:
    file.write(f'{row}\n')
  (lists / 'CASIA_CeFA@p2.1_image_train.txt').write_text('elsewhere/1.jpg 0\nelsewhere/2.jpg 0\n')
  with pytest.raises(DataError) as caught:
    build('release', ethnicity, tmp_path / 'out', lists=str(lists))
  said = str(caught.value)
  assert 'missing-file: casia_cefa/AF-200/1_200_3_1_4 is not there' in said
  assert 'leak-video: casia_cefa/CA-300/2_300_1_1_1 is in dev and test of p1.1' in said


def test_frames_evenly_spread(trees):
  splits = planned('release', trees / 'ethnicity', options={'frames': '1'}).splits
  assert {split: len(rows) for split, rows in splits.items()} == {
    'train': 24, 'val': 12, 'test': 24, 'masks': 3,
  }  # fmt: skip
  builder = Builder(config='release', data_dir='/none', options={'frames': '3'})
  of_ten = [
    folders.Triplet(path_layouts.parse(f'AF-000/1_000_1_1_1/color/{k:04d}.jpg'), {})
    for k in range(1, 11)
  ]
  assert [int(one.parsed_path.frame) for one in builder._thinned(of_ten)] == [1, 4, 7]
  assert builder._thinned(of_ten[:2]) == of_ten[:2]


def test_masks_lack_frames(ethnicity, tmp_path):
  """As the release does; the 2D part does not."""
  (ethnicity / _MASK / 'ir' / '0002.jpg').unlink()
  id_ = 'casia_cefa/3D-Mask-002/1_002_1_1_2_2_1/0002'
  plan = planned('release', ethnicity)
  assert len(plan.splits['masks']) == 5 and not plan.findings
  assert id_ not in {row.facts['id'] for row in plan.splits['masks']}
  assert plan.notes == ['masks: 1 triplets that lack a modality left out']
  plan = planned('release', ethnicity, options={'incomplete_masks': 'report'})
  assert [f.rule for f in plan.findings] == ['missing-file']
  assert plan.findings[0].text.startswith(f'{id_} has no ir')
  keep(ethnicity, 'Mask')
  build('release', ethnicity, tmp_path, options={'incomplete_masks': 'keep'})
  masks = read('release', tmp_path, 'masks')
  assert len(masks) == 6 and masks[id_]['ir'] == b'' and masks[id_]['rgb']


def test_what_is_wrong_is_reported_at_once_and_can_be_left_out(ethnicity, tmp_path):
  (ethnicity / _CLIP / 'depth' / '0001.jpg').unlink()
  folder = ethnicity / 'CASIA_CeFA' / 'Ethnicity' / 'AF'
  shutil.copytree(folder / 'AF-300' / '1_300_1_1_1', folder / 'AF-499' / '1_300_3_1_9')
  jpeg = (folder / 'AF-300' / '1_300_1_1_1' / 'ir' / '0001.jpg').read_bytes()
  (folder / 'AF-300' / '1_300_1_1_1' / 'ir' / '0001.jpg').write_bytes(jpeg[:-200])
  deep = cv2.imencode('.png', np.arange(4096, dtype=np.uint16).reshape(64, 64) * 9)[1].tobytes()
  (folder / 'AF-300' / '1_300_1_1_1' / 'depth' / '0002.jpg').write_bytes(deep)
  shutil.copytree(
    folder / 'AF-000' / '1_000_1_1_1' / 'color', folder / 'AF-000/1_000_1_1_1/profile'
  )
  wrong = [
    'missing-file: casia_cefa/CA-200/2_200_3_1_4/0001 has no depth',
    'row: 0001.jpg is of no form that casia_cefa has',  # a video of 300 in the folder of 499
    'AF-300/1_300_1_1_1/ir/0001.jpg: ir is truncated',
    'AF-300/1_300_1_1_1/depth/0002.jpg: depth has 16 bits, and 8 are due',
    'duplicate: casia_cefa/AF-000/1_000_1_1_1/0001: rgb is',
  ]
  with pytest.raises(DataError) as caught:
    build('release', ethnicity, tmp_path / 'out')
  assert not [text for text in wrong if text not in str(caught.value)]
  assert not list((tmp_path / 'out').rglob('*array_record*'))
  folder = build('release', ethnicity, tmp_path / 'out', on_bad='skip')
  # The two triplets with two files for RGB are gone, and the one without depth never was there.
  assert counts(folder) == {'train': 46, 'val': 23, 'test': 46, 'masks': 6}
  report = (folder / 'bad_files.csv').read_text()
  assert not [text for text in wrong if text.partition(': ')[2] not in report]


def test_numbers_of_identity_cards_go_no_further(ethnicity, tmp_path):
  keep(ethnicity, 'EA')
  folder = ethnicity / 'CASIA_CeFA' / 'Ethnicity' / 'EA'
  (folder / 'EA-300').rename(folder / 'EA-300-19800625002X')
  path = folder / 'EA-300-19800625002X/3_300_1_1_1/ir/0001.jpg'
  cv2.imwrite(str(path), np.zeros((64, 64), np.uint8))  # noted, and so listed
  folder = build('release', ethnicity, tmp_path)
  assert 'casia_cefa/EA-300/3_300_1_1_1/0001' in read('release', tmp_path, 'test')
  assert 'black,CASIA_CeFA/Ethnicity/EA/EA-300/3_300' in (folder / 'bad_files.csv').read_text()
  for file in folder.iterdir():
    assert b'19800625002X' not in file.read_bytes(), file


def test_a_video_in_the_folder_of_another_is_of_nobody():
  for folder in ('EA-301', 'EA-301-19800625002X', 'CA-300'):
    assert path_layouts.parse(f'Ethnicity/{folder}/3_300_1_1_1/color/0001.jpg') is None
  said = path_layouts.parse('train/3_300_1_1_1/profile/0001.jpg')  # of the challenge's phases
  assert said == path_layouts.parse('EA/EA-300-19800625002X/3_300_1_1_1/color/0001.jpg')


def test_the_shapes_of_a_triplet_can_be_looked_at(ethnicity, tmp_path):
  keep(ethnicity, 'CA')
  path = ethnicity / _CLIP / 'ir' / '0001.jpg'
  wide = cv2.resize(cv2.imread(str(path)), (64, 48))
  cv2.imwrite(str(path), wide)
  assert not planned('release', ethnicity).findings
  with pytest.raises(DataError, match='size: .*ir 64 x 48'):
    build('release', ethnicity, tmp_path / 'aspect', options={'sizes': 'aspect'})


@pytest.mark.parametrize(
  'options, words',
  [
    ({'frames': '0'}, 'frames=0: all, or a whole number'),
    ({'sizes': 'same'}, 'sizes=same: choose any, aspect, equal'),
    ({'incomplete_masks': 'no'}, 'choose leave_out, keep, report'),
    ({'ethnicity': 'AF'}, "no option 'ethnicity'; it has: frames"),
  ],
)
def test_options_that_mean_nothing(trees, tmp_path, options, words):
  with pytest.raises(ConfigError, match=words):
    build('release', trees / 'ethnicity', tmp_path, options=options)


def test_another_layout(trees, tmp_path):
  with pytest.raises(DataError, match='none of the folders Ethnicity.*Expected.*1_000_1_1_1'):
    build('release', trees / 'lists', tmp_path)


def test_flexmodal(trees, tmp_path):
  clean = build('flexmodal', trees / 'flexmodal', tmp_path)
  published = build('flexmodal_published', trees / 'flexmodal', tmp_path)
  assert counts(clean) == {'train': 16, 'val': 16, 'test': 19}
  assert counts(published) == {'train': 16, 'val': 17, 'test': 21}
  leak = 'casia_cefa/AF-300/1_300_1_1_1/0026'
  assert leak not in read('flexmodal', tmp_path, 'val')
  assert leak in read('flexmodal', tmp_path, 'test')
  assert leak in read('flexmodal_published', tmp_path, 'val')
  test = read('flexmodal_published', tmp_path, 'test')
  assert {'casia_cefa/Silicone-Mask-001/2_001_1_0_2_1_4/0001' + mark for mark in ('', '#3')} < set(
    test
  )
  assert species(test)['silicone_mask'] == 3 and species(test)['3d_mask'] == 2
  assert {e['ethnicity'] for e in test.values()} == {'AF', 'CA', ''}
  assert any(f'{leak}, which is of another split, left out' in n for n in card(clean)['notes'])
  notes = card(published)['notes']
  assert any(f'{leak}, which is of another split, kept: the known' in note for note in notes)


@pytest.mark.process
def test_lint_finds_nothing_wrong_with_sound_triplets(trees, tmp_path, capsys):
  """Crops were made for each modality: their sizes need not agree."""
  source = tmp_path / 'source'
  made = planned('release', trees / 'ethnicity')
  rows = [row for rows in made.splits.values() for row in rows]
  for number, row in enumerate(rows):
    for k, path in enumerate(row.files.values()):
      image = cv2.imread(str(trees / 'ethnicity' / path))
      (source / path).parent.mkdir(parents=True, exist_ok=True)
      cv2.imwrite(str(source / path), cv2.resize(image, (48 + (number * 7 + k * 5) % 13, 48)))

  def label(row):
    return int(row.facts['label'] == 'bona_fide')

  lines = [' '.join([*row.files.values(), f'{label(row)}\n']) for row in rows]
  (tmp_path / 'list.txt').write_text(''.join(lines))
  assert lint.main([str(tmp_path / 'list.txt'), f'--root={source}']) == 0
  said = capsys.readouterr().out
  assert len(rows) == 126 and 'size' not in said and 'found: ' not in said


def test_an_unknown_instrument_is_refused_by_name(ethnicity, tmp_path, capsys):
  clip = ethnicity / _CLIP
  clip.rename(clip.with_name('2_200_3_1_9'))
  words = '2_200_3_1_9: CeFA has no instrument 9 in session 1'
  with pytest.raises(DataError, match=f'label: {words}'):
    build('release', ethnicity, tmp_path / 'out')
  folder = build('release', ethnicity, tmp_path / 'out', on_bad='skip')
  assert counts(folder)['val'] == 22 and 'pai_9' not in (folder / 'manifest.csv').read_text()
  path = _CLIP.replace('3_1_4', '3_1_9') + '/{}/0001.jpg'
  row = ' '.join(path.format(kind) for kind in ('color', 'depth', 'ir'))
  (tmp_path / 'list.txt').write_text(f'{row} 0\n')
  assert lint.main([str(tmp_path / 'list.txt')]) == 3
  assert f'list.txt:1: label: {words}' in capsys.readouterr().out
  # A list of the user's own may name its own kinds of attack.
  given = row.replace(' ', ',') + ',attack,wax_bust'
  (tmp_path / 'own.csv').write_text(f'rgb,depth,ir,label,attack_type\n{given}\n')
  assert lint.main([str(tmp_path / 'own.csv')]) == 0


def test_the_device_predicts_the_label(trees, tmp_path, capsys):
  """CeFA's live clips are of one device, its attacks of another: lint and the card say so."""
  flags = ['--dataset=casia_cefa/release', f'--source={trees / "ethnicity"}', '--workers=1']
  assert prepare.main([*flags, f'--data_dir={tmp_path}']) == 0
  words = 'train: device separates attacks from bona fide samples (balanced accuracy 1.00): '
  words += 'bag: 100% of attacks, 0% of bona fide; rssdk: 0% of attacks, 100% of bona fide'
  assert f'warning: {words}' in capsys.readouterr().err
  (folder,) = tmp_path.glob('casia_cefa/release/*')
  found = {(s['split'], s['fact']) for s in card(folder)['shortcuts']}
  assert found == {(split, 'device') for split in ('train', 'val', 'test')}
  markdown = (folder / 'CARD.md').read_text()
  assert '| train | device | 1.00 | bag | 100% | 0% |' in markdown
  assert '| train | device | 1.00 | rssdk | 0% | 100% |' in markdown
  source = sources.open_source('casia_cefa/release:train', str(tmp_path), optional=('device',))
  assert set(source.columns['device']) == {'rssdk', 'bag'}
  plan = planned('release', trees / 'ethnicity')

  def label(row):
    return int(row.facts['label'] == 'bona_fide')

  lines = [f'{" ".join(r.files.values())} {label(r)}\n' for r in plan.splits['train']]
  (tmp_path / 'train.txt').write_text(''.join(lines))
  assert lint.main([str(tmp_path / 'train.txt')]) == 0
  assert f'shortcut: {words}' in capsys.readouterr().out
