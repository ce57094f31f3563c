"""One fault of each kind, in lint, in preparation and in prediction: all three report it."""

import csv
import hashlib
import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from flexfas_jax import lint, prepare
from flexfas_jax.errors import DataError
from flexfas_jax.prediction import Predictor
from flexfas_jax.protocols.findings import severity
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


def damaged(content, *_):
  middle = len(content) // 2
  return content[:middle] + content[middle + len(content) // 8 :]


def turned(content, *_, orientation=3):
  exif, file = Image.Exif(), io.BytesIO()
  exif[0x0112] = orientation
  Image.open(io.BytesIO(content)).save(file, 'JPEG', exif=exif, quality=95)
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
  'EXIF turns': (change('rgb', turned), {('rotated', AT)}),
  'EXIF turns sideways': (on_its_side, {('rotated', AT)}),
  'other bytes': (
    cells(rgb_sha256=hashlib.sha256(b'').hexdigest().upper()), {('sha256', AT)},
  ),
  'not a digest': (cells(rgb_sha256='abc'), {('row', AT)}),
  'subject in two splits': (cells(6, subject='s2'), {('leak-subject', 4)}),
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
  'depth of 8 bits among 16': (
    change('depth', lambda c, *_: png(cv2.convertScaleAbs(decoded(c), None, 0.2))),
    set(),
    {('bit-depth', AT)},
    'lint has no data set whose bits are the rule: lists may be of several',
  ),
  'attack without a category': (
    cells(attack_type=''),
    set(),
    {('row', AT)},
    'lists without a column of attack types are sound; a prepared set requires them',
  ),
  'split called all': (
    cells(split='all'),
    set(),
    {('row', AT)},
    'a name that TFDS reserves, not a fault of a list',
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
