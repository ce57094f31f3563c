"""A set of somebody's own: from a CSV and pictures to records that a training reads, or refused."""

import csv
import dataclasses
import hashlib
import json
import pathlib
import pickle
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from flexfas_jax import prepare as command_line
from flexfas_jax.data import features
from flexfas_jax.data.manifest.manifest_dataset_builder import Builder
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images import face_crop
from flexfas_jax.input_pipeline import sources
from flexfas_jax.protocols import lists
from flexfas_jax.protocols.lint import linter
from tests.miniatures import faces as rendered
from tests.miniatures import manifest

ROOT = pathlib.Path(__file__).parents[2]
PLACE = 'manifest/ours/1.0.0'  # of a set, below data_dir


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
  """The miniature and its rows; not to be changed."""
  root = tmp_path_factory.mktemp('tree')
  return root, manifest.write(root)


@pytest.fixture(scope='module')
def prepared(tree, tmp_path_factory):
  """The miniature, prepared as it is; the data_dir."""
  data_dir = tmp_path_factory.mktemp('prepared')
  prepare(tree[0], data_dir)
  return data_dir


@pytest.fixture
def own(tree, tmp_path):
  """A copy that a test may change: (root, rows)."""
  shutil.copytree(tree[0], tmp_path / 'source')
  return tmp_path / 'source', [dict(row) for row in tree[1]]


def prepare(root, data_dir, name='ours', rows=None, **settings):
  """Builds and returns the folder of the set.

  Args:
    root: with the pictures.
    data_dir: where it goes.
    name: of the set.
    rows: written as the manifest that is used.
    **settings: of the builder.
  """
  if rows is not None:
    settings['lists'] = data_dir / f'{name}.csv'
    data_dir.mkdir(exist_ok=True)
    manifest.write_csv(settings['lists'], rows)
  builder = Builder(
    config=name, data_dir=data_dir, file_format='array_record', source=root, workers=1, **settings
  )
  builder.download_and_prepare()
  return pathlib.Path(builder.data_dir)


def refused(root, data_dir, **settings):
  """Everything that a build found, as (rule, line, text); nothing must be left of it."""
  with pytest.raises(DataError) as caught:
    prepare(root, data_dir, **settings)
  assert not list(data_dir.rglob('*array_record*'))
  assert not (data_dir / 'manifest' / settings.get('name', 'ours') / '1.0.0').exists()
  return str(caught.value), findings(data_dir / 'manifest-ours.bad_files.csv')


def findings(path):
  if not path.exists():
    return []
  with open(path, encoding='utf-8', newline='') as file:
    return [(one['rule'], int(one['row']), one['text']) for one in csv.DictReader(file)]


def read(data_dir, split, name='ours'):
  """{id: example} of a split, as training reads it."""
  source = sources.open_source(f'manifest/{name}:{split}', str(data_dir))
  return {source[i]['id']: source[i] for i in range(len(source))}


def in_manifest(folder):
  with open(folder / 'manifest.csv', encoding='utf-8', newline='') as file:
    return {row['id']: row for row in csv.DictReader(file)}


def card(folder):
  return json.loads((folder / 'card.json').read_text(encoding='utf-8'))


def decoded(encoded):
  return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)


def by_id(rows):
  return {f'ours/{row["subject"]}/{row["video"]}/{row["frame"]}': row for row in rows}


def few(rows, *recordings):
  """Copies of the rows of the first frames of some recordings: 'A/live'."""
  first = [dict(row) for row in rows if row['frame'] == '1']
  return [row for row in first if f'{row["subject"]}/{row["video"]}' in recordings]


# What is as it should be.


def test_pictures_and_facts_are_what_the_manifest_names(tree, prepared):
  root, rows = tree
  wanted = by_id(rows)
  for split, n in (('train', 18), ('val', 12), ('test', 12)):
    examples = read(prepared, split)
    assert len(examples) == n
    for id_, example in examples.items():
      row = wanted[id_]
      assert row['split'] == split
      assert example['label'] == (row['label'] == 'bona_fide')
      for key in ('attack_type', 'attack_category', 'ethnicity'):
        assert example[key] == row[key]
      assert example['subject'] == f'ours/{row["subject"]}' and example['dataset'] == 'ours'
      assert example['video'] == f'ours/{row["subject"]}/{row["video"]}'
      assert example['frame'] == int(row['frame'])
      for modality in ('rgb', 'depth', 'ir'):
        path = row.get(modality)
        assert example[modality] == ((root / path).read_bytes() if path else b'')
  assert not read(prepared, 'train')['ours/A/print/1']['depth']  # absent, not black
  made = card(prepared / PLACE)
  assert made['rules']['bits'] == {'rgb': 8, 'depth': 16, 'ir': 8} and 'faces' not in made
  digest = hashlib.sha256((root / 'manifest.csv').read_bytes()).hexdigest()
  assert made['lists'] == {'manifest.csv': digest}


def test_other_columns_are_kept_and_select(prepared):
  kept = in_manifest(prepared / PLACE)
  assert kept['ours/A/live/1']['lighting'] == 'lamp' and kept['ours/A/live/2']['left'] == '72'
  assert len(read(prepared, 'train[lighting=lamp]')) == 9


def test_a_prepared_manifest_is_a_manifest(tree, prepared, tmp_path):
  first = prepared / PLACE
  again = prepare(tree[0], tmp_path, name='again', lists=first / 'manifest.csv')
  assert in_manifest(again) == in_manifest(first)


def test_lint_reads_the_same_ids(tree, tmp_path):
  root, rows = tree
  plain = [{k: row.get(k, '') for k in ('rgb', 'label', 'attack_category')} for row in rows]
  folder = prepare(root, tmp_path, rows=plain)
  of_lint = {row.id for row in lists.read(tmp_path / 'ours.csv', {}, dataset='ours')}
  assert set(in_manifest(folder)) == of_lint
  assert 'ours/照片/A/live/0001' in of_lint


def test_what_is_not_said_has_its_default(tree, tmp_path):
  root, rows = tree
  plain = [
    {'ir': row['ir'], 'label': row['label'], 'attack_category': row['attack_category']}
    for row in few(rows, 'A/live', 'B/live', 'A/print')
  ]
  folder = prepare(root, tmp_path, rows=plain)
  examples = read(tmp_path, 'whole')
  live, attack = examples['ours/照片/A/live/0001'], examples['ours/照片/A/print/0001']
  assert live['video'] == 'ours/照片/A/live' and live['frame'] == 1 and live['subject'] == ''
  assert live['rgb'] == live['depth'] == b'' and live['ir']
  assert attack['attack_type'] == attack['attack_category'] == 'print'
  notes = ' '.join(card(folder)['notes'])
  assert '3 of 3 rows name no subject' in notes and '3 rows name no video' in notes


def test_ids_and_splits_as_they_are_named(tree, tmp_path):
  root, rows = tree
  named = few(rows, 'A/live', 'B/live', 'D/live')
  for row, id_, split, frame in zip(
    named, ('x1', 'ours/x2', 'x3'), ('dev', 'fold_2-b', ''), ('', '0007', 'frame 3'), strict=True
  ):
    row |= {'id': id_, 'split': split, 'frame': frame}
  prepare(root, tmp_path, rows=named)
  assert list(read(tmp_path, 'val')) == ['ours/x1']  # dev, as lists of others say
  assert read(tmp_path, 'fold_2-b')['ours/x2']['frame'] == 7
  assert read(tmp_path, 'whole')['ours/x3']['frame'] == 3


def test_a_time_stamp_is_no_frame(own, tmp_path):
  root, rows = own
  stamp = '照片/1634567890123.jpg'
  shutil.move(root / rows[0]['rgb'], root / stamp)
  prepare(root, tmp_path, rows=[{'rgb': stamp, 'label': 'bona_fide'}])
  (example,) = read(tmp_path, 'whole').values()
  assert example['id'] == 'ours/照片/1634567890123' and example['frame'] == 0


@pytest.mark.parametrize(
  'form',
  [
    {'delimiter': ';', 'lineterminator': '\r\n'},
    {'delimiter': '\t'},
    {'quoting': csv.QUOTE_ALL, 'lineterminator': '\r\n'},
  ],
)
def test_every_form_of_csv(tree, tmp_path, form):
  root, rows = tree
  path = tmp_path / 'form.csv'
  some = few(rows, 'A/live', 'D/print')
  if form.get('delimiter') != '\t':  # a data frame's rows have numbers, in a column without a name
    some = [{'': str(i)} | row for i, row in enumerate(some)]
  manifest.write_csv(path, some, **form)
  path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes().rstrip(b'\r\n'))
  folder = prepare(root, tmp_path, lists=path)
  assert '' not in in_manifest(folder)['ours/A/live/1']
  assert list(read(tmp_path, 'train')) == ['ours/A/live/1']
  assert list(read(tmp_path, 'val')) == ['ours/D/print/1']


def test_several_manifests_whose_names_say_the_split(tree, tmp_path):
  root, rows = tree
  (tmp_path / 'lists').mkdir()
  for split in ('train', 'val'):
    some = [{k: v for k, v in row.items() if k != 'split'} for row in rows if row['split'] == split]
    manifest.write_csv(tmp_path / 'lists' / f'ours_{split}.csv', some)
  prepare(root, tmp_path, lists=tmp_path / 'lists')
  assert len(read(tmp_path, 'train')) == 18 and len(read(tmp_path, 'val')) == 12
  both = f'{tmp_path}/lists/ours_train.csv,{tmp_path}/lists/ours_val.csv'
  assert len(card(prepare(root, tmp_path / 'b', lists=both))['lists']) == 2


def test_labels_and_categories_by_option(tree, tmp_path):
  root, rows = tree
  named = few(rows, 'A/live', 'A/print', 'A/mask', 'B/print')
  kinds = (('0', '', ''), ('1', 'Druck, matt', ''), ('1', 'resin', 'rigidmask'), ('1', 'print', ''))
  for row, (label, species, category) in zip(named, kinds, strict=True):
    row |= {'label': label, 'attack_type': species, 'attack_category': category}
  named[1]['attack_type'] = 'Druck'
  options = {'labels': '0=bona_fide,1=attack', 'categories': 'Druck=print,resin=papermask'}
  folder = prepare(root, tmp_path, rows=named, options=options)
  found = {id_: row['attack_category'] for id_, row in in_manifest(folder).items()}
  # The column before the option; a species that is a category is its own.
  assert found == {
    'ours/A/live/1': '', 'ours/A/print/1': 'print', 'ours/A/mask/1': 'rigidmask',
    'ours/B/print/1': 'print',
  }  # fmt: skip
  assert read(tmp_path, 'train')['ours/A/live/1']['label'] == 1


def test_the_reader_is_light_and_travels(tree, tmp_path):
  root, rows = tree
  builder = Builder(config='ours', data_dir=tmp_path, source=root, options={'crop': 'box'})
  row = builder.plan().splits['train'][0]
  reader = pickle.loads(pickle.dumps(builder.reader()))
  assert dict(reader(row).images) == dict(builder.reader()(row).images)
  code = (
    'import sys, data.manifest.cropping\n'
    'print([n for n in ("tensorflow_datasets", "jax", "tensorflow") if n in sys.modules])'
  )
  done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
  assert done.stdout.strip() == '[]', done.stdout + done.stderr


# What is wrong with the CSV.


def test_all_that_is_wrong_with_cells_is_reported_at_once(tree, tmp_path):
  root, rows = tree
  good = few(rows, 'A/live', 'A/mask', 'D/live')
  live, mask = good[0], good[1]
  bad = [
    live | {'label': '1'},
    live | {'label': ''},
    live | {'attack_type': 'none'},
    live | {'attack_category': 'print'},
    mask | {'attack_category': 'hologram'},
    mask | {'attack_category': ''},
    mask | {'attack_category': '', 'attack_type': ''},
    live | {'split': 'all'},
    live | {'split': 'fold/1'},
    live | {'split': '--'},
    live | {'frame': '12.0'},
    live | {'frame': 'first'},
    live | {'id': 'clip#2'},
    live | {'rgb_sha256': 'abc'},
    live | {'rgb': '/etc/passwd'},
    live | {'depth': '../secret.png'},
    live | {'ir': 'C:\\pictures\\1.png'},
    live | {'rgb': '', 'depth': '', 'ir': ''},
  ]
  text, found = refused(root, tmp_path, rows=good + bad)
  assert [(rule, line) for rule, line, _ in found] == [
    (rule, line)
    for line, rule in enumerate(
      ['label'] * 4 + ['row'] * 10 + ['outside-root'] * 3 + ['row'], len(good) + 2
    )
  ]
  said = [text for _, _, text in found]
  vocabulary = ', '.join(features.CATEGORIES)
  assert "label '1'" in said[0]
  assert '--option labels=1=bona_fide or --option labels=1=attack' in said[0]
  assert "'hologram' is not one of: " + vocabulary in said[4]
  assert '--option categories=resin=CATEGORY' in said[5] and vocabulary in said[5]
  assert vocabulary in said[6] and 'all splits together' in said[7]
  assert '18 errors; nothing was built' in text and 'ours.csv:5: label' in text


def test_wrong_rows_are_left_out_and_listed(tree, tmp_path):
  root, rows = tree
  rows = [dict(row) for row in rows]
  rows[3]['label'] = 'live'
  rows[7]['rgb_sha256'] = rows[8]['rgb_sha256']
  folder = prepare(root, tmp_path, rows=rows, on_bad='skip')
  assert len(in_manifest(folder)) == len(rows) - 2 and card(folder)['left_out'] == 2
  found = findings(folder / 'bad_files.csv')
  assert [(rule, line) for rule, line, _ in found] == [('label', 5), ('sha256', 9)]


def test_a_label_that_is_not_mapped_is_nobodys_guess(tree, tmp_path):
  root, rows = tree
  swapped = [row | {'label': str(int(row['label'] == 'bona_fide'))} for row in rows]
  text, _ = refused(root, tmp_path, rows=swapped)
  assert "unknown label '1'" in text and '--option labels=1=' in text


def test_leaks_and_duplicates_are_found(tree, tmp_path):
  root, rows = tree
  some = few(rows, 'A/live', 'B/live', 'D/live')
  leak = some[0] | {'split': 'test', 'subject': 'other', 'video': 'v', 'frame': '9'}
  twice = some[1] | {'lighting': 'none'}
  person = some[2] | {'subject': 'B', 'video': 'w'}
  _, found = refused(root, tmp_path, rows=[*some[:2], person, leak, twice], on_bad='fail')
  assert {rule for rule, _, _ in found} == {'leak-file', 'leak-subject', 'duplicate'}


def test_rows_without_a_split_beside_rows_with_one_are_noted(tree, tmp_path):
  root, rows = tree
  some = few(rows, 'A/live', 'B/live', 'D/live')
  some[1]['split'] = ' '
  folder = prepare(root, tmp_path, rows=some)
  text = '1 of 3 rows have no split, and are in the split whole'
  assert findings(folder / 'bad_files.csv') == [('no-split', 3, text)]
  assert f'ours.csv: {text}' in card(folder)['notes'] and card(folder)['left_out'] == 0
  for row in some:
    row['split'] = ''
  assert not (prepare(root, tmp_path, 'plain', rows=some) / 'bad_files.csv').exists()


def test_a_misspelt_column_is_noted(tree, tmp_path):
  root, rows = tree
  some = [row | {'devce': 'x'} for row in few(rows, 'A/live', 'B/live')]
  folder = prepare(root, tmp_path, rows=some)
  text = 'the column devce is not used; is it device?'
  assert findings(folder / 'bad_files.csv') == [('misspelt-column', 1, text)]
  assert f'ours.csv: {text}' in card(folder)['notes']


@pytest.mark.parametrize('other', ['Zo\u00eb', 'Zoe\u0308 ', '\u200bZo\u00eb'])
def test_spellings_of_a_subject_are_one_subject(tree, tmp_path, other):
  root, rows = tree
  some = few(rows, 'A/live', 'D/live')
  some[0]['subject'], some[1]['subject'] = 'Zo\u00eb', other
  some[1]['video'] = 'another'
  _, found = refused(root, tmp_path, rows=some)
  assert [rule for rule, _, _ in found] == ['leak-subject']
  some[0]['subject'], some[1]['subject'] = '7', '007'
  assert '7 may be that of' in ' '.join(card(prepare(root, tmp_path, rows=some))['notes'])


def test_an_id_is_one_triplets_in_all_splits(tree, tmp_path):
  root, rows = tree
  named = few(rows, 'A/live', 'B/live', 'D/live')
  for row, id_ in zip(named, ('1', '2', '1'), strict=True):
    row['id'] = id_
  _, found = refused(root, tmp_path, rows=named)
  assert found == [
    ('duplicate', 4, 'the id ours/1 is also that of row 2, in train, with other images')
  ]


def test_a_folder_of_several_is_no_video(own, tmp_path):
  root, rows = own
  flat = []
  for i, row in enumerate(few(rows, 'A/live', 'D/live', 'E/print')):
    # The first two in one folder and in two splits; the others of two kinds.
    path = f'{"one" if i < 2 else "two"}/{i}.jpg'
    (root / path).parent.mkdir(exist_ok=True)
    shutil.copy(root / row['rgb'], root / path)
    flat.append({'rgb': path} | {k: row[k] for k in ('label', 'attack_category', 'split')})
  shutil.copy(root / rows[1]['rgb'], root / 'two/9.jpg')
  flat.append({'rgb': 'two/9.jpg', 'label': 'bona_fide', 'split': 'val'})
  text, found = refused(root, tmp_path, rows=flat + [few(rows, 'E/live')[0]])
  wrong = [('leak-video', 2), ('leak-video', 3), ('label', 4), ('label', 5)]
  assert [(rule, line) for rule, line, _ in found] == wrong
  assert 'folder ours/one is not one, with rows of train, val' in found[0][2]
  assert 'folder ours/two is not one, with rows of bona_fide, print' in found[2][2]
  assert '--option video=picture' in text
  prepare(root, tmp_path / 'b', rows=flat, options={'video': 'picture'})
  videos = {example['video'] for example in read(tmp_path / 'b', 'val').values()}
  assert videos == {'ours/one/1', 'ours/two/2', 'ours/two/9'}


def test_no_manifest_and_no_such_columns(tree, tmp_path):
  root, rows = tree
  with pytest.raises(DataError, match='there is no manifest .*nowhere.csv.*rgb, depth, ir'):
    prepare(root, tmp_path, lists=tmp_path / 'nowhere.csv')
  with pytest.raises(DataError, match='row 1: due are the column label'):
    prepare(root, tmp_path, rows=[{'rgb': row['rgb'], 'kind': row['label']} for row in rows])
  with pytest.raises(DataError, match='row 1'):
    prepare(root, tmp_path, rows=[{'path': row['rgb'], 'label': row['label']} for row in rows])
  (tmp_path / 'empty').mkdir()
  with pytest.raises(DataError, match='holds no list'):
    prepare(root, tmp_path, lists=tmp_path / 'empty')


@pytest.mark.parametrize(
  'options, words',
  [
    ({'labels': 'live=real'}, 'VALUE=bona_fide'),
    ({'categories': 'resin=hard'}, 'TYPE=CATEGORY'),
    ({'categories': 'a=print,a=replay'}, 'each type once'),
    ({'video': 'clip'}, 'folder, picture'),
    ({'sizes': 'same'}, 'any, aspect, equal'),
    ({'depth_bits': '12'}, '8, 16'),
    ({'depth_unit': 'x'}, "depth_unit is 'x'"),
    ({'depth_unit': '0mm'}, "depth_unit is '0mm'"),
    ({'ir_bits': '11'}, "ir_bits is '11'"),
    ({'depth_unit': '0.125mm', 'depth_bits': '8'}, 'depth_bits=8'),
    ({'crop': 'face'}, 'choose one of: box, landmarks, yunet'),
    ({'crop': 'box', 'margin': 'wide'}, "margin is 'wide'"),
    ({'crop': 'box', 'size': '22.4'}, "size is '22.4'"),
    ({'crop': 'box', 'quality': '101'}, 'quality is 101'),
    ({'crop': 'box', 'yunet': 'f.onnx'}, 'yunet does nothing with crop=box'),
    ({'margin': '0.5'}, 'margin does nothing with crop=nothing'),
    ({'crop': 'yunet', 'yunet': 'f.onnx'}, 'crop=yunet needs --option yunet_sha256'),
    ({'crop': 'yunet', 'yunet_sha256': 'ab' * 32}, 'crop=yunet needs --option yunet='),
    ({'crop': 'yunet', 'yunet': 'f', 'yunet_sha256': 'xy'}, '64 hexadecimal'),
    ({'resize': '3'}, "no option 'resize'; it has: labels, categories"),
  ],
)
def test_options_that_cannot_be(tree, tmp_path, options, words):
  with pytest.raises(ConfigError, match=re.escape(words)):
    prepare(tree[0], tmp_path, options=options)
  assert not list(tmp_path.rglob('*array_record*'))


@pytest.mark.parametrize('name', ['', 'our set', '../ours', 'ours:1', '我们'])
def test_a_set_has_a_plain_name(name, tmp_path):
  with pytest.raises(ConfigError, match='manifest/NAME'):
    Builder(config=name or None, data_dir=tmp_path)


# What is wrong with the pictures.


def test_every_bad_picture_is_reported_at_once(own, tmp_path):
  root, rows = own
  by_path = {(row['subject'], row['video'], row['frame']): row for row in rows}
  a, b = by_path['A', 'live', '1'], by_path['A', 'live', '2']
  c, d = by_path['B', 'live', '1'], by_path['B', 'live', '2']
  e, f = by_path['C', 'live', '1'], by_path['C', 'live', '2']
  cut = (root / a['rgb']).read_bytes()
  (root / a['rgb']).write_bytes(cut[: len(cut) // 2])
  (root / b['rgb']).write_bytes(b'<!doctype html><p>Log in')
  (root / c['depth']).unlink()
  flipped = bytearray((root / d['rgb']).read_bytes())
  flipped[-40] ^= 1  # still decodes
  (root / d['rgb']).write_bytes(flipped)
  shutil.copy(root / e['rgb'], root / e['ir'])
  (root / f['ir']).write_bytes(b'')
  for row in (a, b, e, f):
    del row['rgb_sha256'], row['ir_sha256']
  text, found = refused(root, tmp_path, rows=rows)

  def line(row):
    return 2 + rows.index(row)

  assert [(rule, at) for rule, at, _ in found] == [
    ('unreadable', line(a)), ('unreadable', line(b)), ('missing-file', line(c)),
    ('sha256', line(d)), ('colour', line(e)), ('same-image', line(e)), ('unreadable', line(f)),
  ]  # fmt: skip
  assert all(row['rgb'] in text for row in (a, b, d)) and c['depth'] in text


def test_a_damaged_jpeg_that_decoders_accept(own, tmp_path):
  root, rows = own
  row = next(row for row in rows if row['rgb'].endswith('.jpg'))
  whole = (root / row['rgb']).read_bytes()
  (root / row['rgb']).write_bytes(whole[: len(whole) * 6 // 10] + b'\xff\xd9')
  del row['rgb_sha256']
  _, found = refused(root, tmp_path, rows=rows)
  assert [(rule, at) for rule, at, _ in found] == [('unreadable', 2 + rows.index(row))]
  assert 'Corrupt JPEG data' in found[0][2]


def test_bytes_behind_an_image_are_kept(own, tmp_path):
  """A motion photo's video, a second image and padding to whole blocks."""
  root, rows = own
  rng = np.random.default_rng(0)
  rows = few(rows, 'A/live', 'B/live', 'C/live')
  behind = iter((bytes(8192), rng.bytes(2 << 20), (root / rows[0]['rgb']).read_bytes()))
  written = {}
  for id_, row in by_id(rows).items():
    more = next(behind)
    for modality in ('rgb', 'depth', 'ir'):
      path = root / row[modality]
      path.write_bytes(written.setdefault((id_, modality), path.read_bytes() + more))
      row.pop(f'{modality}_sha256', None)
  prepare(root, tmp_path, rows=rows)
  stored = {}
  for split in {row['split'] for row in rows}:
    for id_, example in read(tmp_path, split).items():
      stored |= {(id_, modality): example[modality] for modality in ('rgb', 'depth', 'ir')}
  assert len(written) == 9 and stored == written


def test_a_minority_of_another_bit_depth(own, tmp_path):
  root, rows = own
  rows = few(rows, 'A/live', 'B/live', 'C/live', 'A/mask')
  for row in rows:
    row.pop('depth_sha256')
  shallow = (decoded((root / rows[1]['depth']).read_bytes()) >> 4).astype(np.uint8)
  (root / rows[1]['depth']).write_bytes(rendered.encode(shallow, '.png'))
  _, found = refused(root, tmp_path, rows=rows)
  assert found == [('bit-depth', 3, f'{rows[1]["depth"]}: depth has 8 bits, and 16 are due')]
  _, found = refused(root, tmp_path, rows=rows, options={'depth_bits': '8'})
  assert [(rule, line) for rule, line, _ in found] == [('bit-depth', n) for n in (2, 4, 5)]
  folder = prepare(root, tmp_path, rows=rows, on_bad='skip')
  assert 'depth: 16 bits, as most headers have (3 with 16, 1 with 8)' in card(folder)['notes']


def test_depth_is_grey_and_millimetres(own, tmp_path):
  root, rows = own
  rows = few(rows, 'A/live', 'B/live', 'C/live')
  depth = decoded((root / rows[0]['depth']).read_bytes())
  grey = np.clip(depth / 8, 0, 255).astype(np.uint8)
  (root / rows[0]['depth']).write_bytes(rendered.encode(np.dstack([grey] * 3), '.png'))
  coloured = cv2.applyColorMap(grey, cv2.COLORMAP_JET)
  (root / rows[1]['depth']).write_bytes(rendered.encode(coloured, '.png'))
  rows = [{k: v for k, v in row.items() if k != 'depth_sha256'} for row in rows]
  _, found = refused(root, tmp_path, rows=rows[:2], options={'depth_bits': '8'})
  assert [(rule, line) for rule, line, _ in found] == [('colour', 3)]
  folder = prepare(root, tmp_path, rows=rows[:1])  # grey in three channels will do
  assert card(folder)['rules']['bits']['depth'] == 8
  # Steps of an eighth of a millimetre, taken for millimetres.
  raw = np.where(depth > 0, depth.astype(np.uint32) * 50, 0).astype(np.uint16)
  (root / rows[2]['depth']).write_bytes(rendered.encode(raw, '.png'))
  _, found = refused(root, tmp_path / 'b', rows=rows[2:])
  assert [rule for rule, _, _ in found] == ['range']


def test_sixteen_bits_are_seen_where_there_are_three_channels(own, tmp_path):
  root, rows = own
  row = few(rows, 'A/live')[0]
  del row['rgb_sha256'], row['depth_sha256']
  depth = decoded((root / row['depth']).read_bytes())
  (root / row['depth']).write_bytes(rendered.encode(np.dstack([depth] * 3), '.png'))
  folder = prepare(root, tmp_path / 'a', rows=[row])
  assert card(folder)['rules']['bits']['depth'] == 16
  rgb = decoded((root / row['rgb']).read_bytes()).astype(np.uint16) * 257
  way_out = '; convert it: magick FILE -depth 8 FILE.png'
  (root / row['rgb']).write_bytes(rendered.encode(rgb, '.png'))
  _, found = refused(root, tmp_path / 'b', rows=[row])
  assert [(rule, text) for rule, _, text in found] == [
    ('bit-depth', f'{row["rgb"]}: rgb has 16 bits, and 8 are due{way_out}')
  ]


@pytest.fixture
def raw(own):
  """Three triplets whose depth has steps of 0.125 mm."""
  root, rows = own
  rows = few(rows, 'A/live', 'B/live', 'C/live')
  before = {}
  for row in rows:
    before[row['subject']] = depth = decoded((root / row['depth']).read_bytes())
    encoded = rendered.encode(depth * 8, '.png')
    (root / row['depth']).write_bytes(encoded)
    row['depth_sha256'] = hashlib.sha256(encoded).hexdigest()
  return root, rows, before


def test_depth_in_other_steps_becomes_millimetres(raw, tmp_path):
  root, rows, before = raw
  folder = prepare(root, tmp_path, rows=rows, options={'depth_unit': '0.125mm'})
  for example in read(tmp_path, 'train').values():
    np.testing.assert_array_equal(decoded(example['depth']), before[example['subject'][-1]])
    row = by_id(rows)[example['id']]
    assert example['rgb'] == (root / row['rgb']).read_bytes()  # untouched
  kept = in_manifest(folder)['ours/A/live/1']
  assert kept['source_depth_sha256'] == rows[0]['depth_sha256'] != kept['depth_sha256']
  assert card(folder)['options']['depth_unit'] == '0.125mm'
  _, found = refused(root, tmp_path / 'b', rows=rows, options={'depth_unit': '100mm'})
  assert {rule for rule, _, _ in found} == {'range'}
  assert 'more than 16 bits hold' in found[0][2]


def test_steps_are_not_evaluated_as_millimetres(raw, tmp_path):
  root, rows, before = raw
  row = rows[0]
  del row['depth_sha256']
  # A wall at 36,000 steps, which in mm would be no face.
  (root / row['depth']).write_bytes(rendered.encode(before['A'] * 40, '.png'))
  prepare(root, tmp_path, rows=[row], options={'depth_unit': '0.025mm'})
  (example,) = read(tmp_path, 'train').values()
  np.testing.assert_array_equal(decoded(example['depth']), before['A'])


def test_digests_are_of_what_is_read_and_a_manifest_of_what_is_stored(raw, tmp_path):
  root, rows, _ = raw
  options = {'depth_unit': '0.125mm', 'crop': 'box'}
  first = prepare(root, tmp_path / 'a', rows=rows, options=options)
  pinned = {'manifest': str(first / 'manifest.csv'), 'rows': rows}
  again = prepare(root, tmp_path / 'b', options=options, **pinned)
  assert in_manifest(again) == in_manifest(first)
  _, found = refused(root, tmp_path / 'd', options=options | {'margin': '0.2'}, **pinned)
  assert {rule for rule, _, _ in found} == {'sha256'} and len(found) == 9
  broken = [row | {'depth_sha256': 'ab' * 32} for row in rows]
  _, found = refused(root, tmp_path / 'c', options=options, rows=broken)
  assert [rule for rule, _, _ in found] == ['sha256'] * 3


# Faces.


def test_a_box_is_cut_out_of_all_modalities(tree, tmp_path):
  root, rows = tree
  folder = prepare(root, tmp_path, options={'crop': 'box', 'margin': '0'})
  wanted = by_id(rows)
  examples = read(tmp_path, 'train') | read(tmp_path, 'test')
  for id_, example in examples.items():
    row = wanted[id_]
    left, top, right, bottom = (int(row[c]) for c in face_crop.BOX)
    for modality in ('rgb', 'depth', 'ir'):
      if not row.get(modality):
        assert example[modality] == b''
        continue
      step = 1 if modality == 'rgb' else 2
      whole = decoded((root / row[modality]).read_bytes())
      window = whole[top // step : bottom // step, left // step : right // step]
      assert example[modality][:4] == b'\x89PNG'
      np.testing.assert_array_equal(decoded(example[modality]), window)
  made, kept = card(folder), in_manifest(folder)
  assert made['faces']['method'] == 'box' and made['faces']['opencv'] == cv2.__version__
  assert made['images']['depth']['bits'] == {'16': 36}
  row = kept['ours/A/live/1']
  assert row['source_rgb'] == rows[0]['rgb'] and row['source_rgb_sha256'] == rows[0]['rgb_sha256']
  assert row['rgb_sha256'] != rows[0]['rgb_sha256'] and 'rgb' not in row


def test_landmarks_alignment_size_and_quality(tree, tmp_path):
  root, rows = tree
  options = {'crop': 'landmarks', 'align': 'eyes', 'size': '40', 'quality': '90'}
  folder = prepare(root, tmp_path, rows=few(rows, 'A/live', 'B/live'), options=options)
  for example in read(tmp_path, 'train').values():
    assert example['rgb'][:2] == example['ir'][:2] == b'\xff\xd8'
    assert example['depth'][:4] == b'\x89PNG'
    assert decoded(example['rgb']).shape == (40, 40, 3)
    assert decoded(example['depth']).shape == decoded(example['ir']).shape == (40, 40)
  assert card(folder)['faces']['quality'] == 90 and card(folder)['faces']['size'] == 40


def test_depth_is_stored_without_loss_whatever_the_quality(own, tmp_path):
  root, rows = own
  row = few(rows, 'A/live')[0]
  del row['depth_sha256']
  depth = (decoded((root / row['depth']).read_bytes()) >> 4).astype(np.uint8)
  (root / row['depth']).write_bytes(rendered.encode(depth, '.png'))
  prepare(root, tmp_path, rows=[row], options={'crop': 'box', 'margin': '0', 'quality': '50'})
  (example,) = read(tmp_path, 'train').values()
  left, top = int(row['left']) // 2, int(row['top']) // 2
  np.testing.assert_array_equal(decoded(example['depth']), depth[top : top + 24, left : left + 24])


def test_a_face_that_was_not_measured_is_listed(own, tmp_path):
  root, rows = own
  row = few(rows, 'A/live')[0]
  del row['depth_sha256']
  depth = decoded((root / row['depth']).read_bytes())
  left, top = int(row['left']) // 2, int(row['top']) // 2
  depth[top : top + 24, left : left + 24] = 0
  (root / row['depth']).write_bytes(rendered.encode(depth, '.png'))
  folder = prepare(root, tmp_path, rows=[row], options={'crop': 'box', 'margin': '0'})
  text = 'ours/A/live/1, as it is stored: depth is one colour throughout'
  assert findings(folder / 'bad_files.csv') == [('black', 2, text)]


def test_an_image_without_a_face_is_reported_or_left_out(tree, tmp_path):
  root, rows = tree
  named = few(rows, 'A/live', 'B/live', 'C/live', 'A/print', 'B/print', 'C/print')
  named[0] |= {'left': '', 'top': ''}
  named[1]['right'] = named[1]['left']
  named[2]['left'] = 'left'
  named[3] |= {'left': '100', 'right': '170'}  # the picture ends at 128
  named[4]['bottom'] = named[4]['top']
  named[4] |= {'right': '20', 'left': '10', 'top': '10', 'bottom': '24'}
  options = {'crop': 'box'}
  _, found = refused(root, tmp_path, rows=named, options=options)
  assert {(rule, line) for rule, line, _ in found} == {
    ('no-face', 2), ('row', 3), ('row', 4), ('no-face', 5), ('no-face', 6),
  }  # fmt: skip
  folder = prepare(root, tmp_path, rows=named, options=options, on_bad='skip')
  assert list(in_manifest(folder)) == ['ours/C/print/1']
  assert card(folder)['left_out'] == 5 and card(folder)['findings'] == {'no-face': 3, 'row': 2}


def test_columns_that_the_crop_needs(tree, tmp_path):
  root, rows = tree
  bare = [{k: v for k, v in row.items() if 'eye' not in k} for row in few(rows, 'A/live')]
  with pytest.raises(DataError, match='there is no column left_eye_x'):
    prepare(root, tmp_path, rows=bare, options={'crop': 'box', 'align': 'eyes'})


def turned(path, orientation):
  """Stores a picture so that its EXIF orientation shows it as it was."""
  undo = {6: Image.Transpose.ROTATE_90, 3: Image.Transpose.ROTATE_180}[orientation]
  exif = Image.Exif()
  exif[0x0112] = orientation
  with Image.open(path) as image:
    image.load()
    image.transpose(undo).save(path, 'JPEG', exif=exif, quality=100, subsampling=0)


@pytest.mark.parametrize('orientation', [3, 6])
def test_turned_pictures_are_refused_or_turned_before_the_crop(own, tmp_path, orientation):
  root, rows = own
  row = few(rows, 'A/live')[0]
  del row['rgb_sha256']
  before = decoded((root / row['rgb']).read_bytes())
  turned(root / row['rgb'], orientation)
  _, found = refused(root, tmp_path, rows=[row])  # sizes are compared after turning
  assert found == [('rotated', 2, f'{row["rgb"]}: rgb has EXIF orientation {orientation}')]
  folder = prepare(root, tmp_path, rows=[row], options={'crop': 'box', 'margin': '0'})
  (example,) = read(tmp_path, 'train').values()
  left, top = int(row['left']), int(row['top'])
  window = before[top : top + manifest.FACE, left : left + manifest.FACE].astype(int)
  assert np.abs(decoded(example['rgb']) - window).mean() < 3
  assert card(folder)['faces']['exif_orientation'] == 'applied'


def test_modalities_that_are_not_registered_are_not_cropped(own, tmp_path):
  root, rows = own
  row = few(rows, 'A/live')[0]
  row.pop('ir_sha256')
  ir = decoded((root / row['ir']).read_bytes())
  (root / row['ir']).write_bytes(rendered.encode(ir[:, :48], '.png'))
  for options in ({}, {'crop': 'box'}):
    _, found = refused(root, tmp_path, rows=[row], options=options)
    assert [rule for rule, _, _ in found] == ['size']
    assert 'rgb 128 x 96, depth 64 x 48, ir 48 x 48' in found[0][2]
  prepare(root, tmp_path, rows=[row], options={'sizes': 'any'})


@pytest.fixture
def squares(tmp_path):
  """White squares on grey: (root, rows, options); the last picture has none."""
  pytest.importorskip('onnx', reason='the stand-in for YuNet is written with it')
  root, rows = tmp_path / 'squares', []
  for i, place in enumerate([(28, 36), (60, 20), None]):
    rgb = np.full((120, 160, 3), 60, np.uint8)
    depth = np.full((60, 80), 900 + i, np.uint16)
    depth[::7] = 950
    if place:
      left, top = place
      rgb[top : top + 48, left : left + 48] = 255
      rgb[top : top + 48, left : left + 24] = 245
      depth[top // 2 : top // 2 + 24, left // 2 : left // 2 + 24] = 600
      depth[top // 2, left // 2 : left // 2 + 24] = 601
    for modality, image in (('rgb', rgb), ('depth', depth)):
      path = root / f'{i}' / f'{modality}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(rendered.encode(image, '.png'))
    rows.append({'rgb': f'{i}/rgb.png', 'depth': f'{i}/depth.png', 'label': 'bona_fide'})
  path = root / 'squares.onnx'
  sha256 = manifest.write_detector(path)
  return root, rows, {'crop': 'yunet', 'yunet': str(path), 'yunet_sha256': sha256, 'margin': '0'}


def test_a_detector_finds_the_faces(squares, tmp_path):
  root, rows, options = squares
  _, found = refused(root, tmp_path, rows=rows, options=options)
  assert found[0] == ('no-face', 4, '2/rgb.png: none was found')
  assert [rule for rule, _, _ in found[1:]] == ['same-bytes']  # the two crops are equal
  folder = prepare(root, tmp_path, rows=rows, options=options, on_bad='skip')
  examples = read(tmp_path, 'whole')
  assert sorted(examples) == ['ours/0', 'ours/1']
  for example in examples.values():
    rgb = decoded(example['rgb'])
    assert rgb.min() == 245 and rgb.shape == (48, 48, 3)
    depth = decoded(example['depth'])
    assert depth.shape == (24, 24) and (depth[0] == 601).all() and (depth[1:] == 600).all()
  made = card(folder)
  assert made['faces']['model_sha256'] == options['yunet_sha256']
  assert made['options']['yunet'] == 'squares.onnx'  # not where it lies on this machine


def test_without_rgb_and_infrared_there_is_nothing_to_detect_in(squares, tmp_path):
  root, rows, options = squares
  rows[0] = {k: v for k, v in rows[0].items() if k != 'rgb'}
  rows[1] = {**rows[1], 'ir': rows[1]['rgb'], 'rgb': ''}
  grey = decoded((root / rows[1]['ir']).read_bytes())[..., 0]
  (root / rows[1]['ir']).write_bytes(rendered.encode(grey, '.png'))
  _, found = refused(root, tmp_path, rows=rows[:2], options=options)
  named = ('swapped', 3, 'ir is 1/rgb.png, which is named as rgb')
  assert found == [
    named,
    ('no-face', 2, '0/depth.png: there is no RGB and no infrared image to detect one in'),
  ]


def test_a_detector_of_other_bytes_is_refused_before_anything_is_read(squares, tmp_path):
  root, rows, options = squares
  manifest.write_csv(root / 'manifest.csv', rows)
  wrong = options | {'yunet_sha256': 'AB' * 32}
  with pytest.raises(DataError) as caught:
    Builder(config='ours', data_dir=tmp_path, source=root, options=wrong).plan()
  assert 'ab' * 32 in str(caught.value) and options['yunet_sha256'] in str(caught.value)


# The command.


def test_the_command_names_all_offenders_and_leaves_nothing(own, tmp_path):
  root, rows = own
  rows[2]['attack_category'] = 'paper'
  rows[5]['split'] = 'all'
  rows[9]['rgb'] = '../9.jpg'
  (root / rows[12]['rgb']).write_bytes(b'<html>')
  (root / rows[20]['ir']).unlink()
  rows[30] |= {'left': '', 'top': '', 'right': '', 'bottom': ''}
  manifest.write_csv(root / 'manifest.csv', rows)
  command = [
    *(sys.executable, '-m', 'flexfas_jax.prepare', '--dataset=manifest/ours'),
    *(f'--source={root}', f'--data_dir={tmp_path}/out', '--workers=2', '--option', 'crop=box'),
  ]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 3, done.stderr
  assert 'Traceback' not in done.stderr and done.stdout == ''
  for index, rule in (
    (2, 'row'), (5, 'row'), (9, 'outside-root'), (12, 'unreadable'), (20, 'missing-file'),
    (30, 'no-face'),
  ):  # fmt: skip
    assert f'manifest.csv:{index + 2}: {rule}: ' in done.stderr
  assert '--on_bad=skip' in done.stderr
  left = [path for path in (tmp_path / 'out').rglob('*') if path.is_file()]
  assert [path.name for path in left] == ['manifest-ours.bad_files.csv']
  assert command_line.main([*command[3:], '--on_bad=skip']) == 0
  source = sources.open_source('manifest/ours:train', str(tmp_path / 'out'))
  assert len(source) == 18 - 4 and source[0]['rgb'][:4] == b'\x89PNG'


def test_a_set_that_is_not_prepared_says_how(tmp_path):
  with pytest.raises(DataError, match='--dataset=manifest/ours --source=DIR'):
    sources.open_source('manifest/ours:train', str(tmp_path))


def test_the_example_of_the_readme_works(tmp_path):
  readme = (ROOT / 'data' / 'manifest' / 'README.md').read_text(encoding='utf-8')
  text = re.search(r'```\n(rgb,depth,ir,label.*?)```', readme, re.DOTALL)[1]
  (tmp_path / 'manifest.csv').write_text(text)
  for number, row in enumerate(csv.DictReader(text.splitlines())):
    images = rendered.triplet(row['attack_category'], number, size=48, depth_bits=16)
    for modality, image in images.items():
      if row[modality]:
        path = tmp_path / row[modality]
        path.parent.mkdir(parents=True)
        path.write_bytes(rendered.encode(image, path.suffix))
  prepare(tmp_path, tmp_path / 'out')
  assert set(read(tmp_path / 'out', 'train')) == {'ours/anna/live/0001', 'ours/anna/a4/0001'}
  assert read(tmp_path / 'out', 'val')['ours/ben/phone/0001']['depth'] == b''


def test_the_options_are_described():
  readme = (ROOT / 'data' / 'manifest' / 'README.md').read_text(encoding='utf-8')
  for option in Builder.OPTIONS:
    assert f'| `{option}` |' in readme, option
  for field in dataclasses.fields(face_crop.CropRecipe):
    assert field.name in readme or field.name in ('method', 'model_sha256')


def test_infrared_of_ten_bits_is_refused_or_scaled(own, tmp_path):
  root, rows = own
  rows = few(rows, 'A/live', 'B/live', 'C/live')
  for row in rows:
    ten = decoded((root / row['ir']).read_bytes()).astype(np.uint16) << 2
    (root / row['ir']).write_bytes(rendered.encode(ten, '.png'))
    del row['ir_sha256']
  said, found = refused(root, tmp_path / 'a', rows=rows)
  assert [rule for rule, _, _ in found] == ['range'] * 3
  assert 'ir_bits=10' in said and '% of full scale' in said
  folder = prepare(root, tmp_path / 'b', rows=rows, options={'ir_bits': '10'})
  assert card(folder)['options']['ir_bits'] == '10'
  for example in read(tmp_path / 'b', 'train').values():
    row = by_id(rows)[example['id']]
    ten = decoded((root / row['ir']).read_bytes())
    np.testing.assert_array_equal(decoded(example['ir']), np.rint(ten * (65535 / 1023)))
    assert example['depth'] == (root / row['depth']).read_bytes()  # untouched
  _, found = refused(root, tmp_path / 'c', rows=rows, options={'ir_bits': '8'})
  assert [rule for rule, _, _ in found] == ['range'] * 3
  assert '8 bits hold 255' in found[0][2]
  prepare(root, tmp_path / 'd', rows=rows, options={'ir_bits': '16'})  # dark, as stated
  kept = next(iter(read(tmp_path / 'd', 'train').values()))
  assert kept['ir'] == (root / by_id(rows)[kept['id']]['ir']).read_bytes()


def test_65535_is_refused_or_read_as_not_measured(own, tmp_path):
  root, rows = own
  rows = few(rows, 'A/live', 'B/live')
  for row in rows:
    depth = decoded((root / row['depth']).read_bytes())
    depth[:4] = 65535
    (root / row['depth']).write_bytes(rendered.encode(depth, '.png'))
    del row['depth_sha256']
  said, found = refused(root, tmp_path / 'a', rows=rows)
  assert [rule for rule, _, _ in found] == ['range'] * 2 and 'depth_unit=mm' in said
  prepare(root, tmp_path / 'b', rows=rows, options={'depth_unit': 'mm'})
  for example in read(tmp_path / 'b', 'train').values():
    assert decoded(example['depth']).max() < 65535 and not decoded(example['depth'])[:4].any()


def test_the_card_has_distance_and_relief(own, tmp_path):
  root, rows = own
  rows = few(rows, 'A/live', 'B/live', 'C/live', 'A/mask')
  crop = {'crop': 'box', 'margin': '0'}
  folder = prepare(root, tmp_path / 'a', rows=rows, options=crop)
  found = card(folder)['images']['depth']['face_window']
  assert 400 < found['bona_fide']['distance_mm'] < 700
  assert 10 < found['bona_fide']['relief_mm'] < 40
  said = (folder / 'CARD.md').read_text(encoding='utf-8')
  assert f'relief (interquartile range) {found["bona_fide"]["relief_mm"]:g} mm' in said
  assert 'NOTE: faces' not in said
  # A quarter of a millimetre: a distance that is possible in mm, but not with this relief.
  for row in rows:
    depth = decoded((root / row['depth']).read_bytes()) * 4
    (root / row['depth']).write_bytes(rendered.encode(depth, '.png'))
    del row['depth_sha256']
  _, found_wrong = refused(root, tmp_path / 'b', rows=rows, options=crop)
  assert {(rule, row) for rule, row, _ in found_wrong} >= {('range', row) for row in (2, 3, 4)}
  folder = prepare(root, tmp_path / 'd', rows=rows, options=crop | {'depth_unit': 'mm'})
  assert 'NOTE: faces have a relief of about 20 mm' in (folder / 'CARD.md').read_text('utf-8')
  folder = prepare(root, tmp_path / 'c', rows=rows, options=crop | {'depth_unit': '0.25mm'})
  assert card(folder)['images']['depth']['face_window'] == found


def test_a_frozen_sensor_is_found(own, tmp_path):
  """By prepare and by lint, with row and file."""
  root, rows = own
  rows = few(rows, 'A/live', 'B/live', 'C/live')
  first, _, last = rows
  (root / last['depth']).write_bytes((root / first['depth']).read_bytes())
  del last['depth_sha256']
  said, found = refused(root, tmp_path / 'a', rows=rows)
  assert [(rule, row) for rule, row, _ in found] == [('frozen', 4)]
  assert found[0][2] == (
    'depth of ours/C/live/1: the same bytes as of ours/A/live/1, of another video'
  )
  report = linter.check([tmp_path / 'a' / 'ours.csv'], root=root, sizes='any')
  (frozen,) = [f for f in report.findings if f.rule == 'frozen']
  assert frozen.row == 4 and last['depth'] in frozen.text
  # Within a video it is usual: a slow sensor.
  last['video'], last['subject'], last['frame'] = first['video'], first['subject'], '7'
  prepare(root, tmp_path / 'b', rows=rows)
