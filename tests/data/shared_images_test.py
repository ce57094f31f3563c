"""Images with the same bytes under other names: in lint, in preparation, and before training."""

import csv
import pathlib
import shutil

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from flexfas_jax.errors import DataError
from flexfas_jax.input_pipeline import sources
from flexfas_jax.protocols.lint import linter
from flexfas_jax.training import datasets
from tests.miniatures import faces, manifest

ATTACK = {'attack_type': 'print', 'attack_category': 'print'}


@pytest.fixture
def own(tmp_path):
  """A folder, and the rows of four samples in train, two in val: different faces, both labels."""
  root, rows = tmp_path / 'images', []
  for i in range(6):
    attack = i % 2
    files = {}
    for modality, image in faces.triplet('print' * attack, i, size=48).items():
      files[modality] = f'{i}/{modality}.jpg'
      (root / str(i)).mkdir(parents=True, exist_ok=True)
      (root / files[modality]).write_bytes(faces.encode(image))
    named = {'subject': f's{i}', 'video': f'v{i}', 'split': 'train' if i < 4 else 'val'}
    named['label'] = 'attack' if attack else 'bona_fide'
    rows.append({**files, **named, **dict.fromkeys(ATTACK, ''), **(ATTACK if attack else {})})
  return root, rows


def copied(root, row, name, **changes):
  """The row with copies of its files under another name, subject and video."""
  (root / name).mkdir()
  files = {m: shutil.copy(root / row[m], root / name / f'{m}.jpg') for m in faces_of(row)}
  files = {m: str(pathlib.Path(path).relative_to(root)) for m, path in files.items()}
  return {**row, **files, 'subject': name, 'video': name, **changes}


def faces_of(row):
  return [m for m in ('rgb', 'depth', 'ir') if row[m]]


def prepare(root, rows, data_dir, name='ours', **settings):
  data_dir.mkdir(exist_ok=True)
  manifest.write_csv(data_dir / f'{name}.csv', rows)
  return sources.prepare(
    f'manifest/{name}', str(data_dir), source=str(root), lists=str(data_dir / f'{name}.csv'),
    workers=1, **settings,
  )  # fmt: skip


def lint(root, rows, folder):
  folder.mkdir(exist_ok=True)
  manifest.write_csv(folder / 'lint.csv', rows)
  return linter.check([folder / 'lint.csv'], root=root)


def findings(path):
  with open(path, newline='', encoding='utf-8') as file:
    return [(one['rule'], int(one['row'])) for one in csv.DictReader(file)]


def test_sound_rows(own, tmp_path):
  root, rows = own
  folder = prepare(root, rows, tmp_path / 'out')
  assert not (folder / 'bad_files.csv').exists()
  report = lint(root, rows, tmp_path / 'out')
  assert report.findings == [] and report.notes == []


@pytest.mark.parametrize('on_bad', ['fail', 'skip'])
@pytest.mark.parametrize('changed', [(), ('depth', 'ir'), ('rgb',)])
def test_a_copy_in_another_split_is_a_leak(own, tmp_path, changed, on_bad):
  """One modality suffices: the others may have been encoded again."""
  root, rows = own
  rows.append(copied(root, rows[0], 'copy', split='val'))
  for modality in changed:
    path = root / rows[-1][modality]
    cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED) // 2)
  with pytest.raises(DataError) as caught:
    prepare(root, rows, tmp_path / 'out', on_bad=on_bad)
  same = [m for m in ('rgb', 'depth', 'ir') if m not in changed]
  files = [' '.join(f'{folder}/{m}.jpg' for m in same) for folder in ('copy', '0')]
  text = f'leak-image: {files[0]} of val: the same bytes as {files[1]} of train'
  assert text in str(caught.value) and 'accept_known_leaks' not in str(caught.value)
  assert findings(tmp_path / 'out/manifest-ours.bad_files.csv') == [('leak-image', 8)]
  (found,) = lint(root, rows, tmp_path / 'out').findings
  assert (found.rule, found.row) == ('leak-image', 8) and text in str(found)


def test_images_without_signal_are_no_evidence(own, tmp_path):
  root, rows = own
  for row in (rows[0], rows[1], rows[4]):
    (root / row['ir']).write_bytes(faces.encode(np.zeros((48, 48), np.uint8)))
  folder = prepare(root, rows, tmp_path / 'out')
  assert {rule for rule, _ in findings(folder / 'bad_files.csv')} == {'black'}
  assert {f.rule for f in lint(root, rows, tmp_path / 'out').findings} == {'black'}


def test_a_copy_within_a_split_is_noted(own, tmp_path):
  root, rows = own
  rows.append(copied(root, rows[0], 'copy'))
  folder = prepare(root, rows, tmp_path / 'out')
  assert findings(folder / 'bad_files.csv') == [('same-bytes', 8)]
  report = lint(root, rows, tmp_path / 'out')
  assert [(f.rule, f.row) for f in report.findings] == [('same-bytes', 8)]
  assert report.of_severity('error') == []


def test_a_copy_that_was_encoded_again_is_noted(own, tmp_path):
  root, rows = own
  rows.append(copied(root, rows[0], 'copy', split='val'))
  for modality in faces_of(rows[-1]):
    path = root / rows[-1][modality]
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 60])
  folder = prepare(root, rows, tmp_path / 'out')
  assert findings(folder / 'bad_files.csv') == [('near-duplicate', 8)]
  text = 'rgb of ours/copy of val: looks like that of ours/0 of train'
  assert text in (folder / 'bad_files.csv').read_text()
  assert '- near-duplicate: 1' in (folder / 'CARD.md').read_text()
  (found,) = lint(root, rows, tmp_path / 'out').findings
  assert (found.rule, found.row) == ('near-duplicate', 8)
  assert 'copy/rgb.jpg of val: looks like 0/rgb.jpg of train' in str(found)


@pytest.mark.parametrize('on_bad', ['fail', 'skip'])
def test_one_image_with_two_labels(own, tmp_path, on_bad):
  root, rows = own
  rows.append(copied(root, rows[0], 'copy', label='attack', **ATTACK))
  with pytest.raises(DataError, match='the same bytes; take both out of the source') as caught:
    prepare(root, rows, tmp_path / 'out', on_bad=on_bad)
  assert '--on_bad=skip' not in str(caught.value)  # it would not help
  wanted = [('label', 2), ('label', 8)]
  assert sorted(findings(tmp_path / 'out/manifest-ours.bad_files.csv')) == wanted
  found = lint(root, rows, tmp_path / 'out').findings
  assert [(f.rule, f.row) for f in found] == wanted


def test_another_set_may_hold_copies(own, tmp_path):
  """Two releases call the same images differently; names cannot show it."""
  root, rows = own
  prepare(root, rows, tmp_path / 'out')
  theirs = [copied(root, row, f'x{i}', split='test') for i, row in enumerate(rows)]
  prepare(root, theirs, tmp_path / 'out', name='theirs')
  config = ConfigDict({
    'train': 'manifest/ours:train', 'val': 'manifest/ours:val',
    'test': {'cross': 'manifest/theirs:test'}, 'data_dir': str(tmp_path / 'out'),
    'model': {'head': {}},
  })  # fmt: skip
  with pytest.raises(DataError) as caught:
    datasets.open_all(config)
  text = str(caught.value)
  assert 'sets share images: 4 samples of cross with train, 2 samples of cross with val' in text
  assert (
    'leak-image: rgb, depth, ir of theirs/x0' in text
    and 'in cross: the same bytes as ours/' in text
  )
  config.train = 'manifest/ours:train[modalities=rgb]'
  config.test.cross = 'manifest/theirs:test[modalities=depth,ir & subject=theirs/x0,theirs/x5]'
  with pytest.raises(DataError, match='sets share images: 1 samples of cross with val'):
    datasets.open_all(config)
  config.test.cross = 'manifest/theirs:test[modalities=depth,ir & subject!=theirs/x4,theirs/x5]'
  datasets.open_all(config)
