"""One fault of each kind, in lint, preparation, prediction and training: all of them report it."""

import csv
import hashlib
import io
import json
import re

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from flexfas_jax import errors, lint, prepare
from flexfas_jax.errors import DataError
from flexfas_jax.input_pipeline import sources
from flexfas_jax.prediction import Predictor
from flexfas_jax.protocols.findings import RULES, severity
from flexfas_jax.training import datasets
from tests.miniatures import faces, manifest
from tests.prediction import bundles

MODALITIES = ('rgb', 'depth', 'ir')
SPLITS = ('train', 'train', 'train', 'train', 'val', 'val', 'test', 'test')
FAULTY = 1  # the row with the fault; its line is two more
SIZE = 48


@pytest.fixture
def own(tmp_path):
  """A sound manifest: its root, with JPEG for RGB and infrared and PNG for depth, and its rows."""
  root, rows = tmp_path / 'images', []
  for i, split in enumerate(SPLITS):
    species = 'print' * (i % 2)
    row = {'label': 'attack' if species else 'bona_fide', 'attack_type': species}
    row |= {'subject': f's{i}', 'video': f'v{i}', 'split': split, 'id': f'id{i}'}
    (root / str(i)).mkdir(parents=True)
    for modality, image in faces.triplet(species, i, size=SIZE, depth_bits=16).items():
      suffix = '.png' if modality == 'depth' else '.jpg'
      row[modality] = f'{i}/{modality}{suffix}'
      content = faces.encode(image, suffix)
      (root / row[modality]).write_bytes(content)
      row[f'{modality}_sha256'] = ''
    rows.append(row)
  return root, rows


@pytest.fixture(scope='module')
def predictor(tmp_path_factory):
  return Predictor.load(bundles.write(tmp_path_factory.mktemp('bundles') / 'toy'))


def errors_of_lint(root, rows, folder):
  """The exit code, and {(rule, row)} of severity 'error'."""
  manifest.write_csv(folder / 'ours.csv', rows)
  code = lint.main([str(folder / 'ours.csv'), f'--root={root}', f'--json={folder / "lint.json"}'])
  found = json.loads((folder / 'lint.json').read_text())['findings']
  return code, {(f['rule'], f['row']) for f in found if f['severity'] == 'error'}


def errors_of_prepare(root, rows, folder):
  """As `errors_of_lint`; where there is an error, nothing is built."""
  manifest.write_csv(folder / 'ours.csv', rows)
  code = prepare.main([
    '--dataset=manifest/ours', f'--source={root}', f'--lists={folder / "ours.csv"}',
    f'--data_dir={folder / "out"}', '--workers=1',
  ])  # fmt: skip
  path = folder / 'out/manifest-ours.bad_files.csv'
  if not path.exists():
    return code, set()
  assert not list(folder.rglob('*array_record*'))
  with open(path, newline='', encoding='utf-8') as file:
    found = list(csv.DictReader(file))
  return code, {(f['rule'], int(f['row'])) for f in found if severity(f['rule']) == 'error'}


def change(modality, how):
  """A fault in one file."""

  def make(root, rows):
    path = root / rows[FAULTY][modality]
    path.write_bytes(how(path.read_bytes(), root, rows[FAULTY]))

  return make


def cells(number=FAULTY, **changes):
  """A fault in the cells of one row."""

  def make(root, rows):
    rows[number] |= changes

  return make


def decoded(content):
  return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def png(array):
  return cv2.imencode('.png', array)[1].tobytes()


def npy(array):
  file = io.BytesIO()
  np.save(file, array)
  return file.getvalue()


def metres(content):
  return (decoded(content) / 1000).astype(np.float32)


def tiff_pages(content, *_):
  file, image = io.BytesIO(), Image.open(io.BytesIO(content))
  image.save(file, 'TIFF', save_all=True, append_images=[image])
  return file.getvalue()


def webp(content, *_, **options):
  file = io.BytesIO()
  Image.open(io.BytesIO(content)).save(file, 'WEBP', lossless=True, **options)
  return file.getvalue()


def damaged(content, *_):
  middle = len(content) // 2
  return content[:middle] + content[middle + len(content) // 8 :]


def exif(orientation):
  found = Image.Exif()
  found[0x0112] = orientation
  return found


def turned(content, *_, orientation=3):
  file = io.BytesIO()
  Image.open(io.BytesIO(content)).save(file, 'JPEG', exif=exif(orientation), quality=95)
  return file.getvalue()


def on_its_side(root, rows):
  """Registered images 36 x 48, of which RGB is stored as 48 x 36: no fault of sizes."""
  for modality in MODALITIES:
    path = root / rows[FAULTY][modality]
    path.write_bytes(png(decoded(path.read_bytes())[:, 6:42]))
  path = root / rows[FAULTY]['rgb']
  path.write_bytes(turned(png(cv2.rotate(decoded(path.read_bytes()), cv2.ROTATE_90_CLOCKWISE)),
                          orientation=8))  # fmt: skip


def remove(root, rows):
  (root / rows[FAULTY]['ir']).unlink()


def same_image_in_two_splits(root, rows):
  for modality in MODALITIES:
    (root / rows[6][modality]).write_bytes((root / rows[2][modality]).read_bytes())


def contradicting_labels(root, rows):
  rows.append(rows[FAULTY] | {'label': 'bona_fide', 'attack_type': ''})


def without_kinds(root, rows):
  for row in rows:
    del row['attack_type']


# Name: (what makes the fault, {(rule, row)} in lint and prepare).
AT = FAULTY + 2
IMAGES = {
  'truncated JPEG': (change('rgb', lambda c, *_: c[:-200]), {('unreadable', AT)}),
  'damaged JPEG': (change('rgb', damaged), {('unreadable', AT)}),
  'truncated PNG': (change('depth', lambda c, *_: c[:-200]), {('unreadable', AT)}),
  'HTML page': (change('rgb', lambda *_: b'<html>log in</html>'), {('unreadable', AT)}),
  'empty file': (change('ir', lambda *_: b''), {('unreadable', AT)}),
  'missing file': (remove, {('missing-file', AT)}),
  '16-bit RGB': (
    change('rgb', lambda c, *_: png(257 * decoded(c).astype(np.uint16))), {('bit-depth', AT)},
  ),
  'infrared is RGB': (
    change('ir', lambda c, root, row: (root / row['rgb']).read_bytes()),
    {('same-image', AT), ('colour', AT)},
  ),
  'depth in 0.01 mm': (
    change('depth', lambda c, *_: png(np.minimum(decoded(c) * 100.0, 65534).astype(np.uint16))),
    {('range', AT)},
  ),
  'metres without a unit': (change('depth', lambda c, *_: npy(metres(c))), {('range', AT)}),
  'truncated NPY': (change('depth', lambda c, *_: npy(decoded(c))[:-100]), {('unreadable', AT)}),
  'NPY of int32': (
    change('depth', lambda c, *_: npy(decoded(c).astype(np.int32))), {('unreadable', AT)},
  ),
  'TIFF of floats for infrared': (
    change('ir', lambda c, *_: cv2.imencode('.tiff', decoded(c).astype(np.float32))[1].tobytes()),
    {('range', AT)},
  ),
  'TIFF of two pages': (change('rgb', tiff_pages), {('unreadable', AT)}),
  'truncated WebP': (change('rgb', lambda c, *_: webp(c)[:-30]), {('unreadable', AT)}),
  'infrared is a colour map': (
    change('ir', lambda c, *_: png(cv2.applyColorMap(decoded(c), cv2.COLORMAP_INFERNO))),
    {('colour', AT)},
  ),
  'sizes of unregistered images': (
    change('ir', lambda c, *_: png(np.ascontiguousarray(decoded(c)[:, : SIZE // 2]))),
    {('size', AT)},
  ),
}  # fmt: skip
LISTS = {
  'depth of 8 bits among 16': (
    change('depth', lambda c, *_: png(cv2.convertScaleAbs(decoded(c), None, 0.2))),
    {('bit-depth', AT)},
  ),
  'unknown category': (cells(attack_category='screen'), {('row', AT)}),
  'attack without a kind': (cells(attack_type=''), {('row', AT)}),
  'split called all': (cells(split='all'), {('row', AT)}),
  'id with the mark of a repeated row': (cells(id='a#1'), {('row', AT)}),
  'EXIF turns': (change('rgb', turned), {('rotated', AT)}),
  'EXIF turns a WebP': (
    change('rgb', lambda c, *_: webp(turned(c), exif=exif(3))),
    {('rotated', AT)},
  ),
  'EXIF turns sideways': (on_its_side, {('rotated', AT)}),
  'other bytes': (
    cells(rgb_sha256=hashlib.sha256(b'').hexdigest().upper()), {('sha256', AT)},
  ),
  'not a digest': (cells(rgb_sha256='abc'), {('row', AT)}),
  'subject in two splits': (cells(6, subject='s2'), {('leak-subject', 4)}),
  'subject in a split and in rows without one': (
    cells(6, subject='s2', split=''), {('leak-subject', 4)},
  ),
  'images in two splits': (same_image_in_two_splits, {('leak-image', 8)}),
  'contradicting labels': (contradicting_labels, {('label', AT), ('label', 10), ('duplicate', 10)}),
  'unknown label': (cells(label='perhaps'), {('label', AT)}),
  'path leaves the root': (cells(rgb='../x.jpg'), {('outside-root', AT)}),
  'no image': (cells(rgb='', depth='', ir=''), {('row', AT)}),
}  # fmt: skip


def test_sound(own, predictor, tmp_path):
  root, rows = own
  for row in rows:
    row['rgb_sha256'] = hashlib.sha256((root / row['rgb']).read_bytes()).hexdigest()
    assert predictor(**{m: root / row[m] for m in MODALITIES}).outcome != 'fta'
  assert errors_of_lint(root, rows, tmp_path) == (0, set())
  assert errors_of_prepare(root, rows, tmp_path) == (0, set())


def heic(content):
  pillow_heif = pytest.importorskip('pillow_heif', reason='the extra `formats` is not installed')
  file = io.BytesIO()
  pillow_heif.from_pillow(Image.open(io.BytesIO(content))).save(file, quality=95)
  return file.getvalue()


OTHER = {  # format: {modality: how a file becomes one}, and the depth unit
  'NPY': ({m: lambda c: npy(decoded(c)) for m in ('depth', 'ir')}, ''),
  'NPY of metres': ({'depth': lambda c: npy(metres(c))}, 'm'),
  'TIFF': ({'depth': lambda c: cv2.imencode('.tiff', decoded(c))[1].tobytes()}, ''),
  'TIFF of metres': ({'depth': lambda c: cv2.imencode('.tiff', metres(c))[1].tobytes()}, 'm'),
  'WebP': ({'rgb': webp, 'ir': webp}, ''),
  'HEIC': ({'rgb': heic}, ''),
}


@pytest.mark.parametrize('name', OTHER)
def test_other_formats(own, tmp_path, tmp_path_factory, name):
  """All three read them, and training gets what prediction sees."""
  root, rows = own
  by_modality, unit = OTHER[name]
  before = {}
  for row in rows:
    for modality, how in by_modality.items():
      path = root / row[modality]
      before[row['id'], modality] = decoded(path.read_bytes())
      path.write_bytes(how(path.read_bytes()))  # whatever it is called
    row['depth_sha256'] = hashlib.sha256((root / row['depth']).read_bytes()).hexdigest()
  manifest.write_csv(tmp_path / 'ours.csv', rows)
  units = [f'--depth_unit={unit}'] if unit else []
  assert lint.main([str(tmp_path / 'ours.csv'), f'--root={root}', *units]) == 0
  common = ['--dataset=manifest/ours', f'--source={root}', f'--lists={tmp_path / "ours.csv"}']
  common += ['--workers=1', *([f'--option=depth_unit={unit}'] if unit else [])]
  assert prepare.main([*common, f'--data_dir={tmp_path / "out"}']) == 0
  folder = tmp_path / 'out/manifest/ours/1.0.0'
  with open(folder / 'manifest.csv', newline='', encoding='utf-8') as file:
    stored = list(csv.DictReader(file))
  examples = {}
  for split in ('train', 'val', 'test'):
    source = sources.open_source(f'manifest/ours:{split}', tmp_path / 'out')
    examples |= {source[i]['id']: source[i] for i in range(len(source))}
  bundle = bundles.write(tmp_path_factory.mktemp('bundles') / 'toy')
  on_source, on_stored = Predictor.load(bundle, depth_unit=unit), Predictor.load(bundle)
  for row, line in zip(rows, sorted(stored, key=lambda line: line['id']), strict=True):
    assert not {'rgb', 'depth', 'ir'} & line.keys()  # `rgb_sha256` is not of that file
    example = examples[line['id']]
    for modality in MODALITIES:
      content = (root / row[modality]).read_bytes()
      assert line[f'source_{modality}'] == row[modality]
      assert line[f'{modality}_sha256'] == hashlib.sha256(example[modality]).hexdigest()
      if modality not in by_modality:
        assert example[modality] == content
        continue
      assert line[f'source_{modality}_sha256'] == hashlib.sha256(content).hexdigest()
      assert line[f'source_{modality}_file'].split()[0] == name.split()[0]
      assert line[f'{modality}_file'].startswith(f'PNG {SIZE}x{SIZE} ')
      if name != 'HEIC':
        np.testing.assert_array_equal(decoded(example[modality]), before[row['id'], modality])
    seen = [
      of.acquire({m: one(m) for m in MODALITIES}).arrays
      for of, one in (
        (on_source, lambda m: root / row[m]),  # noqa: B023
        (on_stored, lambda m: example[m]),  # noqa: B023
      )
    ]
    for modality in MODALITIES:
      np.testing.assert_array_equal(seen[0][modality], seen[1][modality])
  card = json.loads((folder / 'card.json').read_text())
  n = len(rows) * len(by_modality)
  said = f'{n} images are converted to PNG without loss: {n} {name.split()[0]}'
  assert said in card['notes']
  # The same set again, as its manifest says.
  again = [*common, f'--manifest={folder / "manifest.csv"}', f'--data_dir={tmp_path / "again"}']
  assert prepare.main(again) == 0
  for modality, how in by_modality.items():
    content = before[rows[0]['id'], modality]
    (root / rows[0][modality]).write_bytes(how(png(np.flipud(content))))
  manifest.write_csv(tmp_path / 'ours.csv', [row | {'depth_sha256': ''} for row in rows])
  again[-1] = f'--data_dir={tmp_path / "changed"}'
  assert prepare.main(again) == 3
  with open(tmp_path / 'changed/manifest-ours.bad_files.csv', newline='', encoding='utf-8') as file:
    errors_found = [f['rule'] for f in csv.DictReader(file) if severity(f['rule']) == 'error']
  assert errors_found == ['sha256'] * len(by_modality)


@pytest.mark.parametrize('name', IMAGES | LISTS)
def test_one_fault(own, predictor, tmp_path, name):
  """Lint and prepare report the same; prediction, which has no list, refuses the images."""
  root, rows = own
  make, expected = (IMAGES | LISTS)[name]
  make(root, rows)
  assert errors_of_lint(root, rows, tmp_path) == (3, expected)
  assert errors_of_prepare(root, rows, tmp_path) == (3, expected)
  if name in IMAGES:
    with pytest.raises(DataError):
      predictor(**{m: root / rows[FAULTY][m] for m in MODALITIES})


# What differs on purpose. Name: (what makes it, errors of lint, errors of prepare, why).
DIFFERENCES = {
  'attack without a kind in a list without such columns': (
    without_kinds,
    set(),
    {('row', line) for line in range(3, 10, 2)},
    'lists without a column of attack types are sound; a prepared set requires them',
  ),
  'attack type without a category': (
    cells(attack_type='Druck'),
    set(),
    {('row', AT)},
    'a note in lint: a list may name its own kinds; a prepared set has a category for each',
  ),
}


@pytest.mark.parametrize('name', DIFFERENCES)
def test_differences(own, tmp_path, name):
  root, rows = own
  make, of_lint, of_prepare, _ = DIFFERENCES[name]
  make(root, rows)
  assert errors_of_lint(root, rows, tmp_path) == (3 * bool(of_lint), of_lint)
  assert errors_of_prepare(root, rows, tmp_path) == (3 * bool(of_prepare), of_prepare)


def test_what_prediction_does_not_refuse(own, predictor, tmp_path):
  """It turns images by EXIF itself, where a prepared set keeps the pixels as stored."""
  root, rows = own
  change('rgb', turned)(root, rows)
  assert predictor(**{m: root / rows[FAULTY][m] for m in MODALITIES}).outcome != 'fta'


def test_turned_images_of_lists_with_faces(own, tmp_path):
  """prepare turns an image before it crops, so lint reports nothing; sizes are those after it."""
  root, rows = own
  change('rgb', turned)(root, rows)
  box = {'left': '4', 'top': '4', 'right': '44', 'bottom': '44'}
  assert errors_of_lint(root, [row | box for row in rows], tmp_path) == (0, set())
  eyes = {'left_eye_x': '14', 'left_eye_y': '20', 'right_eye_x': '34', 'right_eye_y': '20'}
  assert errors_of_lint(root, [row | eyes for row in rows], tmp_path) == (0, set())


# Training reads sets that were prepared, each of them sound; faults are between them. Name: (what
# makes the rows of a second set of those of the first, its split, what training reads, rules).
def alone(row, i):
  """The files of another sample."""
  return {m: f'other/{i}/{m}{row[m][-4:]}' for m in MODALITIES}


def same_name(**names):
  return lambda row, i: row | NEW | {'subject': ''} | alone(row, i) | names


NEW = {'id': 'x', 'subject': 'x', 'video': 'x'}
APART = {'train': 'ours', 'val': 'ours', 'test': 'theirs'}
TOGETHER = {'train': 'ours, theirs', 'val': 'ours', 'test': 'ours'}
OPPOSITE = {'bona_fide': {'label': 'attack', 'attack_type': 'print'},
            'attack': {'label': 'bona_fide', 'attack_type': ''}}  # fmt: skip
TRAINING = {
  'subject': (same_name(subject='s0'), 'test', APART, {'leak-subject'}),
  'subject, spelled differently': (same_name(subject=' s0\u200b'), 'test', APART, {'leak-subject'}),
  'video': (same_name(video='d/s0/v0'), 'test', APART, {'leak-video'}),
  'triplet': (
    lambda row, i: row | {'subject': '', 'video': 'x'}, 'test', APART, {'leak-file'},
  ),
  'bytes': (lambda row, i: row | NEW | alone(row, 'copy'), 'test', APART, {'leak-image'}),
  'labels': (
    lambda row, i: row | NEW | alone(row, 'copy') | OPPOSITE[row['label']],
    'train', TOGETHER, {'label'},
  ),
  'frozen infrared': (
    lambda row, i: row | NEW | alone(row, i) | {'ir': 'other/copy/ir.jpg'},
    'train', TOGETHER, {'frozen'},
  ),
}  # fmt: skip


def sound(row, i):
  return row | NEW | alone(row, i)


# Why the other rules need no check before training: what they would find cannot be in its data.
_DECODED = 'prepare decodes every image before it writes; each record has a check sum, read first'
_LIST = 'a prepared set has no list: its rows passed prepare, which refuses such rows'
OUT_OF_REACH = {
  **dict.fromkeys(
    ('unreadable', 'bit-depth', 'range', 'colour', 'size', 'rotated', 'no-face', 'swapped',
     'same-image', 'sha256'),
    _DECODED,
  ),
  **dict.fromkeys(
    ('row', 'duplicate', 'triplet', 'outside-root', 'line-endings', 'no-category', 'no-split',
     'no-last-newline', 'misspelt-column'),
    _LIST,
  ),
  'missing-file': 'the bytes are in the shards; a shard that is missing is an error',
  'black': 'a note: training counts such a modality as absent, by the same limits',
  'same-bytes': 'a note, see test_training_notes_copies',
  'near-duplicate': 'a note of lint, for a person to look at',
  'shortcut': 'a note, see tests/training/loop_test.py',
}  # fmt: skip


def two_sets(own, folder, make, split):
  """The config fields of training that reads two prepared sets, and their lists."""
  root, rows = own
  for i in ('copy', 0):
    (root / f'other/{i}').mkdir(parents=True)
    images = faces.triplet('', 50, size=SIZE, depth_bits=16)
    for modality in MODALITIES:
      source = root / rows[0][modality]
      content = (
        source.read_bytes() if i == 'copy' else faces.encode(images[modality], source.suffix)
      )
      (root / f'other/{i}/{modality}{source.suffix}').write_bytes(content)
  rows = [row | {'dataset': 'd'} for row in rows]
  theirs = [make(rows[0], 0) | {'split': split}]
  for name, some in (('ours', rows), ('theirs', theirs)):
    manifest.write_csv(folder / f'{name}.csv', some)
    command = [f'--dataset=manifest/{name}', f'--source={root}', f'--lists={folder / name}.csv']
    assert prepare.main([*command, f'--data_dir={folder / "out"}', '--workers=1']) == 0
  return root, [str(folder / f'{name}.csv') for name in ('ours', 'theirs')]


def config_of(folder, sets, split):
  names = {
    side: ', '.join(
      f'manifest/{name}:{split if name == "theirs" else side}' for name in of.split(', ')
    )
    for side, of in sets.items()
  }
  fields = {'train': names['train'], 'val': names['val'], 'test': {'intra': names['test']}}
  return ConfigDict(fields | {'data_dir': str(folder / 'out'), 'model': {'head': {}}})


@pytest.mark.parametrize('name', TRAINING)
def test_training(own, tmp_path, name, capsys):
  """Before the first step, in the words of lint, with exit code 3."""
  make, split, sets, rules = TRAINING[name]
  root, lists = two_sets(own, tmp_path, make, split)
  code = lint.main([*lists, f'--root={root}', f'--json={tmp_path / "lint.json"}'])
  found = json.loads((tmp_path / 'lint.json').read_text())['findings']
  assert (code, {f['rule'] for f in found if f['severity'] == 'error'}) == (3, rules)
  capsys.readouterr()
  config = config_of(tmp_path, sets, split)
  assert errors.exit_code_of(lambda: datasets.open_all(config)) == 3
  lines = capsys.readouterr().err.splitlines()
  assert {found[1] for line in lines if (found := re.match(r'([a-z-]+): \d+ \(', line))} == rules
  for rule in rules:
    assert any(line.startswith(f'{rule}: ') and line.endswith(f'({RULES[rule]})') for line in lines)
    assert any(re.match(rf'{rule}: .*\b(d/|s0|v0)', line) for line in lines)  # what it is


@pytest.mark.parametrize('sets', [APART, TOGETHER])
def test_training_accepts_sound_sets(own, tmp_path, sets):
  split = 'test' if sets is APART else 'train'
  two_sets(own, tmp_path, sound, split)
  assert datasets.open_all(config_of(tmp_path, sets, split)).notes == []


def test_training_notes_copies(own, tmp_path):
  def make(row, i):
    return row | NEW | alone(row, 'copy')

  two_sets(own, tmp_path, make, 'train')
  assert datasets.open_all(config_of(tmp_path, TOGETHER, 'train')).notes == [
    'note (same-bytes): the images of 1 samples of train equal those of other samples of train; '
    'one of each may be enough'
  ]


def test_training_reads_what_prepare_wrote(own, tmp_path, capsys):
  two_sets(own, tmp_path, sound, 'test')
  shard = next((tmp_path / 'out/manifest/ours').rglob('*train.array_record*'))
  content = bytearray(shard.read_bytes())
  content[len(content) // 2] ^= 0xFF
  shard.write_bytes(content)
  config = config_of(tmp_path, APART, 'test')
  assert errors.exit_code_of(lambda: datasets.open_all(config)) == 3
  assert 'is damaged' in capsys.readouterr().err


def test_every_rule_is_checked_before_training_or_out_of_reach():
  checked = set().union(*(rules for *_, rules in TRAINING.values()))
  assert checked | OUT_OF_REACH.keys() == RULES.keys()
  assert not checked & OUT_OF_REACH.keys()
