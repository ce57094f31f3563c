"""What a card says is what the records are."""

import json

from flexfas_jax import schema
from flexfas_jax.data import cards
from flexfas_jax.input_pipeline import sources
from tests.miniatures import faces, manifest


def record(number, species='', subject='', **forms):
  return {
    'id': f'd/{number}',
    'label': 'attack' if species else 'bona_fide',
    'attack_type': species,
    'attack_category': 'print' if species else '',
    'subject': subject,
    'video': f'd/{number // 2}',
    'ethnicity': '',
    **{f'{m}_form': forms.get(m) for m in schema.MODALITIES},
    'depth_mm': None,
    **{f'{m}_bytes': 10 if forms.get(m) else 0 for m in schema.MODALITIES},
  }


JPEG, PNG = ('JPEG', 32, 24, 3, 8), ('PNG', 30, 20, 1, 16)


def test_pictures_are_counted_by_what_they_are():
  records = [record(0, rgb=JPEG, depth=PNG), record(1, rgb=JPEG), record(2, rgb=PNG)]
  found = cards._count_images(records, 'rgb')
  assert (found['present'], found['absent'], found['bytes']) == (3, 0, 30)
  assert found['format'] == {'JPEG': 2, 'PNG': 1} and found['bits'] == {'16': 1, '8': 2}
  assert found['width'] == {'smallest': 30, 'median': 32, 'largest': 32}
  assert found['height'] == {'smallest': 20, 'median': 24, 'largest': 24}
  assert cards._count_images(records, 'depth')['absent'] == 2
  assert cards._count_images(records, 'ir') == {'present': 0, 'absent': 3}


def test_people_and_videos_are_counted_once_and_the_unknown_not():
  records = [record(0, '', 'd/a'), record(1, 'x', 'd/a'), record(2, 'x', 'd/b'), record(3, 'y')]
  found = cards._counts(records)
  assert (found['triplets'], found['bona_fide'], found['attacks']) == (4, 1, 3)
  assert (found['subjects'], found['videos']) == (2, 2)
  assert found['triplets_by_subject'] == {'smallest': 1, 'median': 1, 'largest': 2}
  assert found['subjects_by_label'] == {'attack': 2, 'bona_fide': 1}
  assert found['species'] == {'bona_fide': 1, 'x': 2, 'y': 1}
  assert found['categories'] == {'bona_fide': 1, 'print': 3}


def test_a_row_of_the_sheet_is_a_species_with_different_people():
  records = [record(k, 'x' if k % 2 else '', f'd/{k // 4}') for k in range(80)]
  rows = cards._rows(records)
  assert [label for label, _ in rows] == ['bona_fide', 'x (print)']
  for _, people in rows:
    assert len({one['subject'] for one in people}) == len(people) == 4


def test_depth_and_infrared_that_look_exchanged_are_noted(tmp_path):
  rows = []
  for i in range(24):
    attack = {'attack_type': 'print', 'attack_category': 'print'} if i % 3 == 2 else {}
    row = {'label': 'attack' if attack else 'bona_fide', 'attack_type': '', 'attack_category': ''}
    row |= attack | {'subject': f's{i}', 'video': f'v{i}', 'split': 'train'}
    for modality, image in faces.triplet('print' if attack else '', i, size=48).items():
      row[modality] = f'{i}{schema.MODALITIES.index(modality)}.jpg'.zfill(9)  # says nothing
      (tmp_path / row[modality]).write_bytes(faces.encode(image))
    rows.append(row)
  exchanged = [row | {'depth': row['ir'], 'ir': row['depth']} for row in rows]
  note, said = 'NOTE: depth and ir look exchanged: of 24 samples', {}
  for name, some in (('right', rows), ('wrong', exchanged), ('few', exchanged[:19])):
    manifest.write_csv(tmp_path / f'{name}.csv', some)
    folder = sources.prepare(
      f'manifest/{name}', str(tmp_path / name), source=str(tmp_path),
      lists=str(tmp_path / f'{name}.csv'), workers=1,
    )  # fmt: skip
    said[name] = json.loads((folder / 'card.json').read_text()).get('seem_exchanged')
    assert (note in (folder / 'CARD.md').read_text()) == (name == 'wrong')
  assert said['right'] is said['few'] is None
  assert said['wrong']['samples'] == 24 and said['wrong']['cliffs']['ir'] > 0.01
