"""A table of faults, each in a row or a list of its own, with what is right and resembles it.

Lint and prepare report each fault by the same rule at the same row, and accept what is right.
`one_checker_test.py` has further faults, and prediction and training.
"""

import csv
import io
import json
import os
import shutil
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from flexfas_jax import lint, prepare
from flexfas_jax.protocols.findings import severity
from tests.miniatures import faces, manifest

SIZE = 32
SUFFIX = {'rgb': '.jpg', 'depth': '.png', 'ir': '.jpg'}


def sound(root, number, split='train'):
  """Writes the images of a row, and returns it."""
  species = 'print' * (number % 2)
  (root / str(number)).mkdir(parents=True)
  row = {'id': f'id{number}', 'label': 'attack' if species else 'bona_fide', 'frame': '7'}
  row |= {'attack_type': species, 'subject': f's{number}', 'video': 'v', 'split': split}
  for modality, image in faces.triplet(species, number, size=SIZE, depth_bits=16).items():
    row[modality] = f'{number}/{modality}{SUFFIX[modality]}'
    (root / row[modality]).write_bytes(faces.encode(image, SUFFIX[modality]))
  return row


def errors_of_lint(root, table, folder, *options):
  """The exit code, {(rule, row)} of severity 'error', and what is printed of it."""
  code = lint.main([str(table), f'--root={root}', f'--json={folder / "lint.json"}', *options])
  found = json.loads((folder / 'lint.json').read_text())['findings']
  assert all(f['list'] == str(table) for f in found)
  return code, {(f['rule'], f['row']) for f in found if f['severity'] == 'error'}


def errors_of_prepare(root, table, folder, *options):
  """As `errors_of_lint`; where there is an error, nothing is left but the list of all."""
  command = ['--dataset=manifest/own', f'--source={root}', f'--lists={table}', '--workers=1']
  code = prepare.main([*command, f'--data_dir={folder / "out"}', *options])
  left = {path.name for path in (folder / 'out').rglob('*') if path.is_file()} - {'metadata.json'}
  if not code:
    return code, set()
  assert left <= {'manifest-own.bad_files.csv'}
  if not left:
    return code, set()
  with open(folder / 'out/manifest-own.bad_files.csv', newline='', encoding='utf-8') as file:
    found = list(csv.DictReader(file))
  assert all(f['list'] == str(table) for f in found)
  return code, {(f['rule'], int(f['row'])) for f in found if severity(f['rule']) == 'error'}


def cells(**changes):
  return lambda root, row: row.update(changes)


def change(modality, how):
  """Changes the bytes of a file."""

  def make(root, row):
    path = root / row[modality]
    path.write_bytes(how(path.read_bytes()))

  return make


def instead(modality, how):
  """Puts something else in the place of a file."""

  def make(root, row):
    path = root / row[modality]
    kept = path.with_name(f'kept{path.suffix}')
    path.rename(kept)
    how(path, kept)

  return make


def renamed(modality, name, cell=None):
  """Moves a file below the root, and names it so, or as `cell` has it."""

  def make(root, row):
    new = name.format(row[modality].partition('/')[0])
    (root / new).parent.mkdir(parents=True, exist_ok=True)
    (root / row[modality]).rename(root / new)
    row[modality] = (cell or name).format(row[modality].partition('/')[0])

  return make


def decoded(content):
  return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def png(array, *parameters):
  return cv2.imencode('.png', array, parameters)[1].tobytes()


def pillow(kind, mode=None, **options):
  def how(content):
    image, file = Image.open(io.BytesIO(content)), io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()

  return how


def chunk(name, body):
  return struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))


def animated(content):
  """A PNG that says it has two images."""
  content = png(decoded(content))
  return content[:33] + chunk(b'acTL', struct.pack('>II', 2, 0)) + content[33:]


def commented(content):
  content = png(decoded(content))
  return content[:33] + chunk(b'tEXt', b'Comment\0taken by hand') + content[33:]


def wrong_sum(content):
  content = bytearray(png(decoded(content)))
  at = content.index(b'IDAT')
  length = struct.unpack('>I', content[at - 4 : at])[0]
  content[at + 4 + length] ^= 1
  return bytes(content)


def interlaced(content):
  """The same pixels, in the seven passes of Adam7."""
  array = decoded(content)[..., ::-1]
  passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
            (0, 1, 1, 2))  # fmt: skip
  rows = [b'\0' + row.tobytes() for x, y, dx, dy in passes for row in array[y::dy, x::dx]]
  header = struct.pack('>IIBBBBB', array.shape[1], array.shape[0], 8, 2, 0, 0, 1)
  parts = (b'IHDR', header), (b'IDAT', zlib.compress(b''.join(rows))), (b'IEND', b'')
  return b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*part) for part in parts)


def enormous(content):
  header = struct.pack('>IIBBBBB', 60_000, 60_000, 8, 2, 0, 0, 0)
  parts = (b'IHDR', header), (b'IDAT', zlib.compress(bytes(100))), (b'IEND', b'')
  return b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*part) for part in parts)


def small(side):
  return lambda content: png(cv2.resize(decoded(content), (side, side)))


def two_links(path, kept):
  (path.parent / 'link').symlink_to(kept.name)
  path.symlink_to('link')


def folder_of_that_name(root, row):
  path = root / row['rgb']
  content = path.read_bytes()
  path.unlink()
  path.mkdir()
  (path / 'a.jpg').write_bytes(content)
  row['rgb'] += '/a.jpg'


def same_file(root, row):
  row |= {'rgb': row['depth']}


def exchanged(root, row):
  row['rgb'], row['ir'] = row['ir'], row['rgb']


# Fault: (what makes it, rules in lint and prepare, what makes the right variant).
ROWS = {
  'a folder called .jpg': (
    instead('rgb', lambda path, kept: path.mkdir()), {'unreadable'}, folder_of_that_name,
  ),
  'a link to itself': (
    instead('rgb', lambda path, kept: path.symlink_to(path.name)), {'unreadable'},
    instead('rgb', lambda path, kept: path.symlink_to(kept.name)),
  ),
  'a link to nothing': (
    instead('ir', lambda path, kept: path.symlink_to('nothing')), {'missing-file'},
    instead('ir', two_links),
  ),
  'a named pipe': (
    instead('ir', lambda path, kept: os.mkfifo(path)), {'unreadable'},
    instead('ir', lambda path, kept: os.link(kept, path)),
  ),
  'a Git LFS pointer': (
    change('rgb', lambda c: b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n'),
    {'unreadable'}, change('rgb', lambda c: c + bytes(8192)),
  ),
  'a GIF called .jpg': (
    change('rgb', pillow('GIF')), {'unreadable'}, change('rgb', pillow('PNG')),
  ),
  'one pixel': (change('rgb', small(1)), {'unreadable'}, change('rgb', small(16))),
  'a PNG of 3.6 thousand million pixels': (
    change('rgb', enormous), {'unreadable'}, change('rgb', small(400)),
  ),
  'an animated PNG': (change('rgb', animated), {'unreadable'}, change('rgb', commented)),
  'a wrong check sum': (
    change('rgb', wrong_sum), {'unreadable'},
    change('rgb', lambda c: png(decoded(c), cv2.IMWRITE_PNG_COMPRESSION, 0)),
  ),
  'half an interlaced PNG': (
    change('rgb', lambda c: interlaced(c)[:900] + chunk(b'IEND', b'')), {'unreadable'},
    change('rgb', interlaced),
  ),
  'CMYK': (
    change('rgb', pillow('JPEG', 'CMYK')), {'unreadable'},
    change('rgb', pillow('JPEG', progressive=True, quality=95)),
  ),
  'infrared with a palette of colours': (
    change('ir', lambda c: pillow('PNG', 'P')(png(cv2.applyColorMap(decoded(c), 2)))), {'colour'},
    change('rgb', lambda c: pillow('PNG', 'P')(png(decoded(c)))),
  ),
  'RGB of 16 bits with transparency': (
    change('rgb', lambda c: png(257 * cv2.cvtColor(decoded(c), cv2.COLOR_BGR2BGRA).astype('u2'))),
    {'bit-depth'}, change('rgb', pillow('PNG', 'RGBA')),
  ),
  'grey RGB that is the infrared': (
    lambda root, row: (root / row['rgb']).write_bytes((root / row['ir']).read_bytes()),
    {'same-image'}, change('rgb', pillow('JPEG', 'L')),
  ),
  'one file in two columns': (
    same_file, {'same-image', 'bit-depth', 'swapped'}, cells(depth='', ir=''),
  ),
  'exchanged columns': (exchanged, {'colour', 'swapped'}, cells(rgb='')),
  'an absolute path': (
    cells(rgb='/etc/hostname'), {'outside-root'}, renamed('rgb', '{}/etc/x.jpg'),
  ),
  'a path out and in again': (
    cells(rgb='a/../../images/0/rgb.jpg'), {'outside-root'},
    renamed('rgb', '{}/x.jpg', './{0}/../{0}//x.jpg'),
  ),
  'a drive': (
    cells(rgb='C:\\data\\rgb.jpg'), {'outside-root'}, renamed('rgb', '{}/b/x.jpg', '{}\\b\\x.jpg'),
  ),
  'an address': (
    cells(rgb='https://host/rgb.jpg'), {'outside-root'}, renamed('rgb', '{}/https/rgb.jpg'),
  ),
  'a name in other capitals': (
    renamed('rgb', '{}/rgb.JPG', '{}/rgb.jpg'), {'missing-file'}, renamed('rgb', '{}/rgb.JPG'),
  ),
  'a line break in a name': (
    cells(rgb='0/rgb\n.jpg'), {'missing-file'}, renamed('rgb', '{}/a\nb.jpg'),
  ),
  'a name that is too long': (
    cells(rgb=f'0/{300 * "x"}.jpg'), {'unreadable'}, renamed('rgb', f'{{}}/{200 * "x"}.jpg'),
  ),
  'label 2': (cells(label='2'), {'label'}, cells(label='attack', attack_type='print')),
  'no label': (cells(label=''), {'label'}, cells(label=' bona_fide ', attack_type='')),
  'a bona fide print': (
    cells(label='bona_fide', attack_type='print'), {'label'},
    cells(label='attack', attack_type='print'),
  ),
  'a negative frame': (cells(frame='-1'), {'row'}, cells(frame='0007')),
  'a frame without a number': (cells(frame='last'), {'row'}, cells(frame='Frame_12')),
  'an id that stands twice': (cells(id=' id0\u200b'), {'duplicate'}, cells(id='ID0')),
}  # fmt: skip


def tree(tmp_path, which):
  """A root and the rows of the table: of each fault, or of each right variant, one."""
  root, rows = tmp_path / 'images', []
  for number, case in enumerate(ROWS.values(), 1):
    row = sound(root, number)
    case[which](root, row)
    rows.append(row)
  first = [sound(root, 0)]
  others = [sound(root, 100 + i, split) for i, split in enumerate(('val', 'Test ', 'val', 'test'))]
  return root, [*first, *rows, *others]


def lines(path):
  """The line on which each row starts."""
  with path.open(newline='', encoding='utf-8') as file:
    reader, starts = csv.reader(file), [1]
    for _ in reader:
      starts.append(reader.line_num + 1)
  return starts[1:]


def test_faults_of_rows(tmp_path):
  root, rows = tree(tmp_path, 0)
  manifest.write_csv(tmp_path / 'own.csv', rows)
  at = dict(zip(lines(tmp_path / 'own.csv')[1:], ROWS, strict=False))
  expected = {(name, rule) for name, (_, rules, _) in ROWS.items() for rule in rules}
  for errors in (errors_of_lint, errors_of_prepare):
    code, found = errors(root, tmp_path / 'own.csv', tmp_path)
    assert code == 3
    assert {(at.get(row), rule) for rule, row in found} == expected


def test_right_rows(tmp_path):
  root, rows = tree(tmp_path, 2)
  manifest.write_csv(tmp_path / 'own.csv', rows)
  assert errors_of_lint(root, tmp_path / 'own.csv', tmp_path) == (0, set())
  assert errors_of_prepare(root, tmp_path / 'own.csv', tmp_path) == (0, set())


# Fault: (what it makes of a list's text, (rule, row), or None where the list is not read at all; a
# right variant).
LISTS = {
  'UTF-16': (
    lambda text: text.encode('utf-16'), None,
    lambda text: b'\xef\xbb\xbf' + text.replace('\n', '\r\n').encode(),
  ),
  'a NUL byte': (
    lambda text: text.replace('id1', 'id\0').encode(), None,
    lambda text: text.replace(',', ';').encode(),
  ),
  'two columns of one name': (
    lambda text: text.replace('frame', 'RGB').encode(), None,
    lambda text: text.replace('frame', 'Frame_2').replace('rgb,', 'RGB,').encode(),
  ),
  'a column in look-alike letters': (
    lambda text: text.replace('subject', 'subj\u0435ct').encode(), None,
    lambda text: text.replace('frame', 'gr\u00f6\u00dfe').encode(),
  ),
  'a comment before the names': (
    lambda text: f'# of 2020\n{text}'.encode(), None,
    lambda text: f'sep=;\n{text}'.replace(',', ';').encode(),
  ),
  'no rows': (
    lambda text: text.partition('\n')[0].encode(), ('row', 0),
    lambda text: text.replace('\n', '\n\n').encode(),
  ),
  'a cell too few': (
    lambda text: text.replace('id2,', '').encode(), ('row', 4),
    lambda text: text.replace('\n', ',\n').encode(),
  ),
  'a cell that is not ended': (
    lambda text: text.replace('id3,', '"id3,').encode(), ('row', 5),
    lambda text: text.replace('id3,', '"id3",').encode(),
  ),
  'a name in Latin-1': (
    lambda text: text.replace('id2', 'id\u00e9').encode('latin-1'), ('row', 4),
    lambda text: text.replace('id2', 'id\u00e9').encode(),
  ),
}  # fmt: skip


@pytest.fixture(scope='module')
def small_set(tmp_path_factory):
  """A root, and the text of a list of four rows."""
  folder = tmp_path_factory.mktemp('small')
  rows = [sound(folder / 'images', i, split) for i, split in enumerate(('train', 'test') * 2)]
  manifest.write_csv(folder / 'own.csv', rows)
  return folder / 'images', (folder / 'own.csv').read_text()


@pytest.mark.parametrize('name', LISTS)
def test_lists(small_set, name, tmp_path, capsys):
  root, text = small_set
  make, expected, right = LISTS[name]
  table = tmp_path / 'own.csv'
  table.write_bytes(make(text))
  assert errors_of_lint(root, table, tmp_path) == (3, {expected or ('row', 0)})
  reported = json.loads((tmp_path / 'lint.json').read_text())['findings'][0]['text']
  capsys.readouterr()
  assert errors_of_prepare(root, table, tmp_path) == (3, {expected} - {None})
  if not expected:
    assert reported in capsys.readouterr().err
  table.write_bytes(right(text))
  assert errors_of_lint(root, table, tmp_path) == (0, set())
  assert errors_of_prepare(root, table, tmp_path) == (0, set())


@pytest.mark.parametrize(('values', 'rules'), [(255, set()), (1023, {('range', 2)})])
def test_infrared_whose_bits_are_stated(small_set, values, rules, tmp_path):
  """16-bit files that hold 8 bits are right where 8 are stated, and 10 bits are not."""
  root = tmp_path / 'images'
  shutil.copytree(small_set[0], root)
  table = tmp_path / 'own.csv'
  table.write_text(small_set[1].replace('ir.jpg', 'ir.png'))
  for number in range(4):
    image = decoded((root / f'{number}/ir.jpg').read_bytes()).astype(np.uint16)
    image = image * (values if number == 0 else 255) // 255
    (root / f'{number}/ir.png').write_bytes(png(image.astype(np.uint16)))
  code = 3 * bool(rules)
  assert errors_of_lint(root, table, tmp_path, '--ir_bits=8') == (code, rules)
  assert errors_of_prepare(root, table, tmp_path, '--option=ir_bits=8') == (code, rules)


def test_depth_of_nothing_but_65535_is_noted(small_set, tmp_path, capsys):
  """It is no signal, which training counts as absent: a note, and both go on."""
  root, table = tmp_path / 'images', tmp_path / 'own.csv'
  shutil.copytree(small_set[0], root)
  table.write_text(small_set[1])
  (root / '1/depth.png').write_bytes(png(np.full((SIZE, SIZE), 65535, np.uint16)))
  assert errors_of_lint(root, table, tmp_path) == (0, set())
  assert f'{table}:3: black: depth' in capsys.readouterr().out
  assert errors_of_prepare(root, table, tmp_path) == (0, set())
  (path,) = (tmp_path / 'out').rglob('bad_files.csv')
  with path.open(newline='', encoding='utf-8') as file:
    assert [(f['rule'], f['row']) for f in csv.DictReader(file)] == [('black', '3')]


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read every file')
def test_a_file_that_may_not_be_read(small_set, tmp_path):
  root, table = tmp_path / 'images', tmp_path / 'own.csv'
  shutil.copytree(small_set[0], root)
  table.write_text(small_set[1])
  (root / '1/rgb.jpg').chmod(0)
  assert errors_of_lint(root, table, tmp_path) == (3, {('unreadable', 3)})
  assert errors_of_prepare(root, table, tmp_path) == (3, {('unreadable', 3)})
  (root / '1/rgb.jpg').chmod(0o400)
  assert errors_of_lint(root, table, tmp_path) == (0, set())
  assert errors_of_prepare(root, table, tmp_path) == (0, set())
