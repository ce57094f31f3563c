"""CASIA-SURF from every layout that it was handed out in, and what is wrong with a source."""

import collections
import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from flexfas_jax.data.casia_surf.casia_surf_dataset_builder import Builder
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.input_pipeline import sources
from tests.miniatures import casia_surf, flexmodal

_ROOT = pathlib.Path(__file__).parents[2]
_CLIP = 'Training/fake_part/CLKJ_AS0005/04_en_b.rssdk'


@pytest.fixture(scope='module')
def trees(tmp_path_factory):
  """The layouts, which no test changes."""
  root = tmp_path_factory.mktemp('casia_surf')
  casia_surf.write_challenge(root / 'challenge')
  casia_surf.write_release(root / 'release')
  casia_surf.write_mm_fas_folds(root / 'mm_fas')
  casia_surf.write_phase_list(root / 'mm_fas' / 'phase1_list.txt')
  flexmodal.write(root / 'flexmodal', faults=True, exports=['CASIA-SURF-CROP'])
  return root


@pytest.fixture(scope='module')
def prepared(trees, tmp_path_factory):
  """A data_dir with the challenge, which no test changes."""
  data_dir = tmp_path_factory.mktemp('prepared')
  build('challenge', trees / 'challenge', data_dir, lists=f'{trees}/challenge,{trees}/mm_fas')
  return data_dir


@pytest.fixture
def challenge(trees, tmp_path):
  """A copy of the challenge that a test may harm."""
  return pathlib.Path(shutil.copytree(trees / 'challenge', tmp_path / 'challenge'))


def build(config, source, data_dir, **settings):
  """Prepares a config in this process; returns its folder."""
  return sources.prepare(
    f'casia_surf/{config}', str(data_dir), source=str(source), workers=1, **settings
  )


def planned(config, source, **settings):
  """What a config finds in a source, without reading pictures."""
  return Builder(config=config, data_dir='/none', source=source, **settings).plan()


def read(config, data_dir, split):
  """The examples of a split (or selection), by id."""
  source = sources.open_source(f'casia_surf/{config}:{split}', str(data_dir))
  return {source[i]['id']: source[i] for i in range(len(source))}


def card(folder):
  return json.loads((folder / 'card.json').read_text())


def species(examples):
  return collections.Counter(e['attack_type'] or 'bona_fide' for e in examples.values())


def left(folder):
  """What is left of a failed build, besides its report and TFDS's note of the description."""
  files = [path for path in folder.rglob('*') if path.is_file() and path.suffix != '.csv']
  return [path for path in files if path.parent.name != '.config']


def test_the_challenge(trees, prepared):
  train = read('challenge', prepared, 'train')
  assert species(train) == {'bona_fide': 9, '04_en_b': 9, '05_enm_s': 9, '06_enm_b': 9}
  example = train['casia_surf/CLKJ_AS0005/04_en_b/101']
  for modality, kind in casia_surf.KINDS.items():
    file = trees / 'challenge' / _CLIP / kind / '101.jpg'
    assert example.pop(modality) == file.read_bytes()  # as it was, byte for byte
  assert example == {
    'id': 'casia_surf/CLKJ_AS0005/04_en_b/101',
    'label': 0,
    'attack_type': '04_en_b',
    'attack_category': 'cut_photo',
    'subject': 'casia_surf/CLKJ_AS0005',
    'video': 'casia_surf/CLKJ_AS0005/04_en_b',
    'frame': 101,
    'dataset': 'casia_surf',
    'ethnicity': '',
  }
  live = train['casia_surf/CLKJ_AS0005/real/11']
  assert live['label'] == 1 and live['attack_category'] == ''
  for split, n in (('val', 6), ('test', 8)):
    examples = read('challenge', prepared, split)
    assert species(examples) == {'bona_fide': n // 2, 'unknown': n // 2}
    assert {e['subject'] for e in examples.values()} == {''}
    assert len({e['video'] for e in examples.values()}) == n
  assert examples['casia_surf/Testing/000001']['label'] == 1
  assert examples['casia_surf/Testing/000002']['attack_category'] == 'cut_photo'
  said = card(next((prepared / 'casia_surf' / 'challenge').iterdir()))
  # The people of a miniature share three faces.
  assert said['left_out'] == 0 and said['findings'].keys() == {'near-duplicate'}


def test_the_second_run_leaves_what_stands(trees, prepared, monkeypatch):
  folder = next((prepared / 'casia_surf' / 'challenge').iterdir())
  before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
  monkeypatch.setattr(Builder, 'plan', lambda self: pytest.fail('planned again'))
  assert build('challenge', trees / 'challenge', prepared) == folder
  assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_the_release(trees, tmp_path):
  build('release', trees / 'release', tmp_path)
  assert species(read('release', tmp_path, 'train')) == {
    'bona_fide': 3, '04_en_b': 3, '05_enm_s': 3, '06_enm_b': 3,
  }  # fmt: skip
  for split in ('val', 'test'):
    examples = read('release', tmp_path, split)
    assert species(examples) == {'bona_fide': 4, '01_e_s': 4, '02_e_b': 4, '03_en_s': 4}
  assert examples['casia_surf/CLKJ_AS0002/02_e_b/0021']['frame'] == 21


def test_attacks_by_their_numbers_alone(trees, tmp_path):
  casia_surf.write_release(tmp_path, short=True)
  assert (tmp_path / 'CASIA_SURF/Data/Val/fake_part/CLKJ_AS0010/02.rssdk').is_dir()
  long, short = (planned('release', source) for source in (trees / 'release', tmp_path))

  def facts(plan):
    return {s: [row.facts for row in rows] for s, rows in plan.splits.items()}

  assert facts(short) == facts(long) and not short.findings


def test_layouts_are_not_taken_for_one_another(trees, tmp_path):
  with pytest.raises(DataError, match='prepare casia_surf/release.*Val/0000'):
    build('challenge', trees / 'release', tmp_path)
  with pytest.raises(DataError, match='prepare casia_surf/challenge.*0015.jpg'):
    build('release', trees / 'challenge', tmp_path)
  with pytest.raises(DataError, match='no folder Training.*Expected.*Val/0000/000000-'):
    build('challenge', trees / 'mm_fas', tmp_path)
  assert not left(tmp_path)


def test_phases_without_labels_are_left_out_and_said(challenge, tmp_path):
  for file in challenge.glob('*_private_list.txt'):
    file.unlink()
  folder = build('challenge', challenge, tmp_path)
  assert set(card(folder)['splits']) == {'train'}
  assert card(folder)['notes'] == [
    'test: 8 of 8 triplets left out: no list in --lists or the source has a label for them',
    'val: 6 of 6 triplets left out: no list in --lists or the source has a label for them',
  ]


def test_labels_from_a_list_elsewhere(challenge, trees, tmp_path):
  (challenge / 'val_private_list.txt').unlink()
  lists = str(trees / 'mm_fas' / 'phase1_list.txt')
  folder = build('challenge', challenge, tmp_path, lists=lists)
  assert card(folder)['splits']['val']['bona_fide'] == 3
  assert 'test' not in card(folder)['splits']  # --lists takes the place of the source's lists


def test_lists_that_contradict_each_other(challenge, tmp_path):
  text = (challenge / 'val_private_list.txt').read_text()
  (challenge / 'val_of_others.txt').write_text(text.replace('ir.jpg 1', 'ir.jpg 0', 1))
  (challenge / 'test_private_list.txt').write_text(
    'Testing/0000/000000-color.jpg Testing/0000/000000-depth.jpg Testing/0000/000000-ir.jpg yes\n'
    'Testing/0009/009999-color.jpg Testing/0009/009999-depth.jpg Testing/0009/009999-ir.jpg 0\n'
  )
  with pytest.raises(DataError) as caught:
    build('challenge', challenge, tmp_path / 'out')
  said = str(caught.value)
  assert 'label: casia_surf/Val/000001 is bona_fide here, and attack in' in said
  assert "test_private_list.txt:1: label: unknown label 'yes'" in said
  assert 'test_private_list.txt:2: missing-file: casia_surf/Testing/009999 is not there' in said


def test_the_folds_of_mm_fas(prepared):
  said = card(next((prepared / 'casia_surf' / 'challenge').iterdir()))
  assert any('subjects are in train and val' in note for note in said['notes'])
  for fold, out in enumerate(casia_surf.TRAINED, 1):
    parts = {
      part: read('challenge', prepared, f'train[mm_fas_fold{fold}={part}]')
      for part in ('train', 'val')
    }
    assert set(species(parts['val'])) == {'bona_fide', out}
    assert out not in species(parts['train'])
    assert len(parts['train']) + len(parts['val']) == 36


def test_a_fold_that_names_what_is_not_there(challenge, trees, tmp_path):
  shutil.rmtree(challenge / _CLIP)
  fold = tmp_path / 'lists' / 'folds_by_fakes' / 'fold2'
  shutil.copytree(trees / 'mm_fas' / 'folds_by_fakes' / 'fold2', fold)
  row = (fold / 'train_list.txt').read_text().splitlines()[-1]
  with (fold / 'val_list_orgl.txt').open('a') as file:
    file.write(row + '\n')
  with pytest.raises(DataError) as caught:
    build('challenge', challenge, tmp_path / 'out', lists=str(tmp_path / 'lists'))
  said = str(caught.value)
  assert 'missing-file: casia_surf/CLKJ_AS0005/04_en_b/101 is not in Training' in said
  assert 'leak-file: ' in said and 'is in train and val of mm_fas_fold2' in said


def test_resized_copies(challenge):
  """MM-FAS wrote them beside the originals; they are no triplets of their own."""
  copies = set()
  for kind in ('depth', 'ir'):
    for path in sorted((challenge / 'Training').rglob(f'{kind}/*.jpg')):
      copy = path.with_name(f'{path.stem}_resized.jpg')
      shutil.copy(path, copy)
      copies.add(copy.relative_to(challenge).as_posix())
  plan = planned('challenge', challenge)
  assert plan.notes == ['72 images with _resized in their names are skipped']
  plan = planned('challenge', challenge, options={'resized': 'yes'})
  assert not plan.findings
  for row in plan.splits['train']:
    assert {row.files['depth'], row.files['ir']} < copies and row.files['rgb'] not in copies
  for row in plan.splits['val']:
    assert not copies & set(row.files.values())
  with pytest.raises(ConfigError, match='choose no or yes'):
    planned('challenge', challenge, options={'resized': 'maybe'})


def test_flexmodal(trees, tmp_path):
  folder = build('flexmodal', trees / 'flexmodal', tmp_path)
  counts = {split: found['triplets'] for split, found in card(folder)['splits'].items()}
  assert counts == {'train': 27, 'val': 28, 'test': 27}
  example = read('flexmodal', tmp_path, 'test')['casia_surf/CLKJ_AS0002/06_enm_b/121']
  assert example['attack_type'] == '06_enm_b' and example['label'] == 0
  said = card(folder)
  assert any('test.txt: 2 redundant rows, of 1 triplets, left out' in n for n in said['notes'])
  assert len(said['lists']['CASIA-SURF_CeFA_val.txt']) == 64  # its SHA-256


def test_flexmodal_as_published(trees, tmp_path):
  folder = build('flexmodal_published', trees / 'flexmodal', tmp_path)
  counts = {split: found['triplets'] for split, found in card(folder)['splits'].items()}
  assert counts == {'train': 29, 'val': 28, 'test': 29}
  train = read('flexmodal_published', tmp_path, 'train')
  again = [train[f'casia_surf/CLKJ_BS0049/02_e_b/121{mark}'] for mark in ('', '#2', '#3')]
  assert again[0]['rgb'] == again[1]['rgb'] == again[2]['rgb']
  assert len({example['video'] for example in again}) == 1
  notes = card(folder)['notes']
  assert any('train.txt: 2 redundant rows, of 1 triplets, kept' in note for note in notes)


def harm(source):
  """Does everything to a challenge that a download can; returns {rule: what is to be named}."""
  folder = source / _CLIP
  jpeg = (folder / 'color' / '11.jpg').read_bytes()
  (folder / 'color' / '11.jpg').write_bytes(jpeg[: len(jpeg) // 2])
  (folder / 'depth' / '21.jpg').write_bytes(b'')
  (folder / 'ir' / '101.jpg').write_text('<html><title>Please log in</title></html>')
  other = source / 'Training' / 'fake_part' / 'CLKJ_BS0831' / '05_enm_s.rssdk'
  deep = np.arange(48 * 48, dtype=np.uint16).reshape(48, 48) * 20
  (other / 'depth' / '11.jpg').write_bytes(cv2.imencode('.png', deep)[1].tobytes())
  (other / 'ir' / '21.jpg').unlink()
  shutil.copy(other / 'color' / '101.jpg', other / 'ir' / '101.jpg')
  shutil.copytree(other / 'color', source / 'Training' / 'fake_part' / 'CLKJ_BS0831' / 'extra')
  (source / 'Testing' / '0000' / '000003-depth.jpg').unlink()
  return [
    ('unreadable', f'{_CLIP}/color/11.jpg: rgb'),
    ('unreadable', f'{_CLIP}/depth/21.jpg: depth is empty (0 bytes)'),
    ('unreadable', f'{_CLIP}/ir/101.jpg: ir is an HTML page'),
    ('bit-depth', 'CLKJ_BS0831/05_enm_s.rssdk/depth/11.jpg: depth has 16 bits, and 8 are due'),
    ('missing-file', 'casia_surf/CLKJ_BS0831/05_enm_s/21 has no ir'),
    ('same-image', 'CLKJ_BS0831/05_enm_s.rssdk/ir/101.jpg: ir is the same file as rgb'),
    ('row', '101.jpg is of no form that casia_surf has'),
    ('missing-file', 'casia_surf/Testing/000003 has no depth'),
  ]


def test_all_that_is_wrong_is_reported_and_nothing_is_left(challenge, tmp_path):
  """By the command itself."""
  offenders = harm(challenge)
  command = [sys.executable, '-m', 'flexfas_jax.prepare', '--dataset=casia_surf/challenge']
  command += [f'--source={challenge}', f'--data_dir={tmp_path / "out"}', '--workers=1']
  env = os.environ | {'CUDA_VISIBLE_DEVICES': ''}
  done = subprocess.run(command, cwd=_ROOT, env=env, capture_output=True, text=True)
  assert done.returncode == 3, done.stderr
  assert 'Traceback' not in done.stderr and done.stdout == ''
  for rule, text in offenders:
    assert any(f': {rule}: ' in line and text in line for line in done.stderr.splitlines()), text
  assert '--on_bad=skip' in done.stderr
  assert not left(tmp_path / 'out')
  report = (tmp_path / 'out' / 'casia_surf-challenge.bad_files.csv').read_text()
  assert all(text in report for _, text in offenders)


def test_what_is_wrong_can_be_left_out(challenge, tmp_path):
  offenders = harm(challenge)
  folder = build('challenge', challenge, tmp_path, on_bad='skip')
  with (folder / 'bad_files.csv').open(newline='') as file:
    listed = [(row['rule'], row['text']) for row in csv.DictReader(file)]
  for rule, text in offenders:
    assert any(r == rule and text in t for r, t in listed), text
  train = read('challenge', tmp_path, 'train')
  assert len(train) == 36 - 6
  assert not any('04_en_b' in id_ and 'AS0005' in id_ for id_ in train)
  assert len(read('challenge', tmp_path, 'val')) == 6
  assert len(read('challenge', tmp_path, 'test')) == 7
