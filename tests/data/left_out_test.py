"""What `--on_bad=skip` leaves out is gone, listed and counted, whichever check found it."""

import csv
import json
import shutil

import h5py
import numpy as np
import pytest

from flexfas_jax.errors import DataError
from flexfas_jax.input_pipeline import sources
from flexfas_jax.protocols.findings import WARNINGS
from tests.miniatures import casia_cefa, casia_surf, flexmodal, manifest, padisi, wmca


def build(dataset, source, data_dir, **settings):
  settings = {'on_bad': 'skip', 'workers': 1, **settings}
  return sources.prepare(dataset, str(data_dir), source=str(source), **settings)


def rows_of(path):
  with open(path, encoding='utf-8', newline='') as file:
    return list(csv.DictReader(file))


def check(folder, listed):
  """Checks a set with something left out; returns (kept ids, findings).

  Args:
    folder: of the set.
    listed: samples that the source names.
  """
  kept = rows_of(folder / 'manifest.csv')
  card = json.loads((folder / 'card.json').read_text())
  assert len(kept) + card['left_out'] == listed
  assert f'{card["left_out"]} left out' in (folder / 'CARD.md').read_text()
  findings = rows_of(folder / 'bad_files.csv')
  names = {row['id'] for row in kept} | {row['video'] for row in kept}
  for finding in findings:
    # Of a duplicate, the first stays; what is noted is stored.
    assert finding['rule'] in {'duplicate', *WARNINGS} or finding['id'] not in names, finding
  # The people of a miniature share three faces.
  findings = [f for f in findings if f['rule'] != 'near-duplicate']
  return {row['id'] for row in kept}, findings


@pytest.fixture(scope='module')
def own(tmp_path_factory):
  """The miniature of a user's own set and its rows; not to be changed."""
  root = tmp_path_factory.mktemp('own')
  return root, manifest.write(root)


def with_rows(own, tmp_path, rows, **settings):
  manifest.write_csv(tmp_path / 'rows.csv', rows)
  return build('manifest/ours', own[0], tmp_path, lists=str(tmp_path / 'rows.csv'), **settings)


def test_contradicting_labels_remove_every_copy(own, tmp_path):
  rows = [dict(row, id=str(i)) for i, row in enumerate(own[1])]
  live = next(row for row in rows if row['label'] == 'bona_fide')
  attack = {'label': 'attack', 'attack_category': 'print', 'attack_type': 'print'}
  # One triplet under two ids; RGB alone under a third; and once more with the first label.
  rows += [live | attack | {'id': 'again'}, live | attack | {'id': 'rgb', 'depth': '', 'ir': ''}]
  rows += [live | {'id': 'third'}]
  folder = with_rows(own, tmp_path, rows)
  kept, findings = check(folder, len(rows))
  gone = {f'ours/{id_}' for id_ in (live['id'], 'again', 'rgb', 'third')}
  assert len(kept) == len(rows) - 4 and not kept & gone
  assert {f['id'] for f in findings if f['rule'] == 'label'} == gone


def test_the_second_of_two_ids_is_gone(own, tmp_path):
  rows = [dict(row, id=str(i)) for i, row in enumerate(own[1])]
  rows += [rows[0] | {'id': 'again'}, rows[1] | {'id': rows[2]['id']}]
  kept, findings = check(with_rows(own, tmp_path, rows), len(rows))
  assert len(kept) == len(rows) - 2 and 'ours/again' not in kept
  assert [f['rule'] for f in findings] == ['duplicate'] * 2


def test_a_row_with_several_findings_counts_once(own, tmp_path):
  rows = [dict(row) for row in own[1]]
  rows[3] |= {'label': 'hologram', 'frame': 'x', 'rgb_sha256': 'x'}  # three findings of its cells
  rows[5] |= {'rgb': 'nowhere.jpg', 'ir': 'not/there.jpg'}  # two of its files
  rows += [dict(rows[5])]  # and a duplicate
  kept, findings = check(with_rows(own, tmp_path, rows), len(rows))
  assert len(kept) == len(rows) - 3 and len(findings) == 6


def test_a_split_that_is_left_out_whole_ends_the_build(own, tmp_path):
  rows = [dict(row) for row in own[1]]
  val = [row for row in rows if row['split'] == 'val']
  twin = [row | {'label': 'attack' if row['label'] == 'bona_fide' else 'bona_fide'} for row in val]
  for row in twin:
    row['attack_category'] = row['attack_type'] = 'print' * (row['label'] == 'attack')
  with pytest.raises(DataError, match='nothing was built') as caught:
    with_rows(own, tmp_path, [*rows, *twin])
  assert '--on_bad=skip' not in str(caught.value)


def test_ids_that_an_earlier_manifest_does_not_have_are_left_out(own, tmp_path):
  folder = with_rows(own, tmp_path, own[1][:-2], on_bad='fail')
  (tmp_path / 'b').mkdir()
  again = with_rows(own, tmp_path / 'b', own[1], manifest=str(folder / 'manifest.csv'))
  kept, _ = check(again, len(own[1]))
  assert len(kept) == len(own[1]) - 2


def test_casia_surf(tmp_path):
  source = tmp_path / 'source'
  casia_surf.write_challenge(source)
  casia_surf.write_mm_fas_folds(source / 'mm_fas')
  text = (source / 'val_private_list.txt').read_text()
  (source / 'val_of_others.txt').write_text(text.replace('ir.jpg 1', 'ir.jpg 0', 1))
  with (source / 'test_private_list.txt').open('a') as file:
    file.write(' '.join(f'Testing/0009/009999-{k}.jpg' for k in ('color', 'depth', 'ir')) + ' 0\n')
  # Three folds name it; a file stands there twice for RGB.
  clip = source / 'Training/fake_part/CLKJ_AS0005/04_en_b.rssdk'
  (clip / 'ir/11.jpg').unlink()
  shutil.copy(clip / 'color/21.jpg', clip / 'color/21.jpeg')
  kept, findings = check(build('casia_surf/challenge', source, tmp_path), 36 + 6 + 8 + 1)
  assert len(kept) == 36 - 2 + 6 - 1 + 8
  gone = {f['id'] for f in findings} - {''}
  assert gone == {
    'casia_surf/Val/000001', 'casia_surf/Testing/009999', 'casia_surf/CLKJ_AS0005/04_en_b/11',
    'casia_surf/CLKJ_AS0005/04_en_b/21',
  }  # fmt: skip


def test_casia_cefa(tmp_path):
  casia_cefa.write_ethnicity(tmp_path / 'source')
  folder = tmp_path / 'source/CASIA_CeFA/Ethnicity'
  (folder / 'CA/CA-200/2_200_3_1_4/depth/0001.jpg').unlink()
  shutil.copytree(folder / 'AF/AF-300/1_300_1_1_1', folder / 'AF/AF-499/1_300_3_1_9')  # of no form
  shutil.copytree(folder / 'AF/AF-000/1_000_1_1_1/color', folder / 'AF/AF-000/1_000_1_1_1/profile')
  (folder / 'AF/AF-300/1_300_1_1_1/ir/0001.jpg').write_bytes(b'')
  kept, _ = check(build('casia_cefa/release', tmp_path / 'source', tmp_path), 126)
  assert len(kept) == 126 - 4


def test_the_published_lists(tmp_path):
  source = tmp_path / 'source'
  flexmodal.write(source, exports=['CASIA-SURF-CROP'])
  path = source / 'Protocols/CASIA-SURF_CeFA_train.txt'
  lines = path.read_text().splitlines()
  surf = [i for i, line in enumerate(lines) if 'CASIA-SURF' in line]
  other = next(i for i, line in enumerate(lines) if 'CASIA-SURF' not in line)
  lines[surf[0]] = lines[surf[0]][:-1] + '7'
  lines[surf[1]] = lines[surf[1]].replace('/depth/', '/ir/')
  lines[other] = lines[other][:-1] + '7'  # a row of another set is not this one's
  path.write_text('\n'.join(lines))
  n = sum('CASIA-SURF' in line for f in source.glob('Protocols/CASIA-SURF_CeFA_*.txt')
          for line in f.read_text().splitlines())  # fmt: skip
  kept, findings = check(build('casia_surf/flexmodal', source, tmp_path), n)
  assert len(kept) == n - 2 and {int(f['row']) - 1 for f in findings} == set(surf[:2])


def test_wmca(tmp_path):
  source = tmp_path / 'source'
  wmca.write_preprocessed(source, wmca.VIDEOS[:5])
  sound = rows_of(build('wmca/preprocessed', source, tmp_path / 'sound') / 'manifest.csv')
  wmca.write_protocols(source / 'documentation')
  twice = wmca.path_of(source, 'RGB', wmca.VIDEOS[0])
  shutil.copy(twice, twice.parent.parent / twice.name)
  wmca.path_of(source, 'CDIT', wmca.VIDEOS[1]).unlink()
  wmca.path_of(source, 'RGB', wmca.VIDEOS[1]).write_bytes(b'')
  with h5py.File(wmca.path_of(source, 'CDIT', wmca.VIDEOS[2]), 'r+') as file:
    del file['Frame_12/array']
    file['Frame_12/array'] = np.zeros((3, 9, 9), np.float16)
  folder = build('wmca/preprocessed', source, tmp_path)
  # A video whose frames cannot be counted counts once.
  first, second, _ = (wmca.VIDEOS[i].name for i in range(3))
  uncounted = sum(second in row['id'] for row in sound) - 1
  kept, findings = check(folder, len(sound) - uncounted)
  n_first = sum(first in row['id'] for row in sound)
  assert n_first and len(kept) == len(sound) - n_first - (uncounted + 1) - 1
  assert len({f['id'] for f in findings} - {''}) == 3  # protocols name videos that are not there


def test_padisi(tmp_path):
  source = tmp_path / 'source'
  padisi.write(source)
  path = next((source / 'face_partitions').glob('*ground_truth*.csv'))
  with open(path, encoding='utf-8', newline='') as file:
    rows = list(csv.reader(file))
  code = rows[0].index('ground_truth')
  twice = list(rows[1])
  twice[code] = 'm00000' if rows[1][code] != 'm00000' else 'm50102'
  rows += [twice, rows[2]]
  rows[4][code] = 'x'
  padisi.write_table(path, rows)
  kept, findings = check(build('padisi/face', source, tmp_path), len(rows) - 1)
  assert len(kept) == len(rows) - 1 - 4
  assert sorted(f['rule'] for f in findings) == ['duplicate', 'duplicate', 'label', 'label']
