"""Files are found however their names are composed, and many missing ones are one finding."""

import csv
import json
import unicodedata

import pytest

from flexfas_jax import lint, prepare
from flexfas_jax.protocols import relative_paths
from flexfas_jax.protocols.findings import Finding
from tests.miniatures import faces, manifest


def composed(text):
  return unicodedata.normalize('NFC', text)


def decomposed(text):
  return unicodedata.normalize('NFD', text)


@pytest.mark.parametrize('on_disk', ['Zo\u00eb/\u00fc.png', decomposed('Zo\u00eb/\u00fc.png'),
                                     decomposed('Zo\u00eb') + '/\u00fc.png'])  # fmt: skip
def test_names_are_found_in_either_spelling(on_disk, tmp_path):
  path = tmp_path / on_disk
  path.parent.mkdir()
  path.write_bytes(b'x')
  for spelling in (on_disk, composed(on_disk), decomposed(on_disk)):
    assert relative_paths.locate(tmp_path, spelling) == str(path)
  assert relative_paths.locate(tmp_path, 'Zo\u00e9/a.png') == str(tmp_path / 'Zo\u00e9/a.png')
  assert relative_paths.locate(tmp_path, 'a/b.png') == str(tmp_path / 'a/b.png')


def test_the_spelling_of_the_list_comes_first(tmp_path):
  for form in (composed, decomposed):
    (tmp_path / form('\u00eb')).write_text('')
  for form in (composed, decomposed):
    assert relative_paths.locate(tmp_path, form('\u00eb')) == str(tmp_path / form('\u00eb'))


def missing(*paths, modality='ir'):
  return [Finding('missing-file', 'l', i, f'{modality} {path}') for i, path in enumerate(paths, 2)]


def test_missing_files_are_one_finding_for_a_folder_or_a_modality(tmp_path):
  (tmp_path / 'there/a').mkdir(parents=True)
  few = missing(*(f'there/a/{i}.png' for i in range(relative_paths.MAX_LISTED)))
  assert relative_paths.group_missing(tmp_path, few, {'ir': 1000}) == few
  # Of a folder that does not exist: the uppermost one.
  gone = missing(*(f'there/b/{i}/c.png' for i in range(30)))
  (tmp_path / 'b/7').mkdir(parents=True)
  found = relative_paths.group_missing(tmp_path, few + gone, {'ir': 1000})
  assert found[:-1] == few and found[-1].row == 2
  assert found[-1].text == (
    f'ir: 30 files are not below {tmp_path}/there/b, e.g. there/b/0/c.png; is that where they are?'
  )
  (tmp_path / 'b/0').mkdir()
  (tmp_path / 'b/0/c.png').touch()
  (one,) = relative_paths.group_missing(tmp_path, gone, {'ir': 1000})
  assert one.text.endswith('The files are there without there before their paths')
  # Of a folder that does, with other suffixes.
  (tmp_path / 'there/a/0.jpg').touch()
  (one,) = relative_paths.group_missing(
    tmp_path, missing(*(f'there/a/{i}.png' for i in range(21))), {'ir': 1000}
  )
  assert one.text.endswith('e.g. there/a/0.png; there is 0.jpg in that folder')
  # Of a modality.
  each = missing(*(f'there/{i}/x.png' for i in range(95)))
  (one,) = relative_paths.group_missing(tmp_path, each, {'ir': 100})
  assert one.text.startswith(f'ir: 95 of 100 files are not below {tmp_path}, e.g. there/0/x.png')


@pytest.fixture
def own(tmp_path):
  """24 rows with RGB and infrared, of which no infrared is where the manifest says."""
  root, rows = tmp_path / 'images', []
  for i in range(24):
    species = 'print' * (i % 2)
    row = {'label': 'attack' if species else 'bona_fide', 'attack_type': species, 'id': f'id{i}'}
    row |= {'subject': f's{i}', 'video': f'v{i}', 'split': 'train' if i % 3 else 'test'}
    (root / f'a/{i}').mkdir(parents=True)
    for modality in ('rgb', 'ir'):
      image = faces.triplet(species, i, size=32)[modality]
      (root / f'a/{i}/{modality}.png').write_bytes(faces.encode(image))
    rows.append(row | {'rgb': f'a/{i}/rgb.png', 'ir': f'b/{i}/ir.png'})
  manifest.write_csv(tmp_path / 'own.csv', rows)
  return root


def test_lint_and_prepare_report_a_wrong_folder_once(own, tmp_path, capsys):
  assert lint.main([f'{tmp_path}/own.csv', f'--root={own}', f'--json={tmp_path}/l.json']) == 3
  found = json.loads((tmp_path / 'l.json').read_text())['findings']
  (one,) = [f for f in found if f['severity'] == 'error']
  assert (one['rule'], one['row']) == ('missing-file', 2)
  assert one['text'].startswith(f'ir: 24 of 24 files are not below {own}, e.g. b/0/ir.png')
  capsys.readouterr()
  command = ['--dataset=manifest/own', f'--source={own}', f'--lists={tmp_path}/own.csv']
  command += [f'--data_dir={tmp_path}/out', '--workers=1']
  assert prepare.main(command) == 3
  assert one['text'] in capsys.readouterr().err
  with open(tmp_path / 'out/manifest-own.bad_files.csv', encoding='utf-8', newline='') as file:
    assert [row['text'] for row in csv.DictReader(file)] == [one['text']]


def test_lint_and_prepare_read_names_in_either_spelling(own, tmp_path):
  text = (tmp_path / 'own.csv').read_text().replace('b/', 'Zo\u00eb/').replace('a/', 'Zo\u00eb/')
  (tmp_path / 'own.csv').write_text(text)
  (own / 'a').rename(own / decomposed('Zo\u00eb'))
  assert lint.main([f'{tmp_path}/own.csv', f'--root={own}']) == 0
  command = ['--dataset=manifest/own', f'--source={own}', f'--lists={tmp_path}/own.csv']
  assert prepare.main([*command, f'--data_dir={tmp_path}/out', '--workers=1']) == 0
