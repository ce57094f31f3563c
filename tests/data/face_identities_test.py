"""Faces by identity, from folders and from a record file that the test writes."""

import json
import os
import struct

import cv2
import numpy as np
import pytest

from flexfas_jax.data.face_identities import recordio
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.input_pipeline import sources
from flexfas_jax.protocols.selection import part_of

PEOPLE = {'0000045': 3, '0000099': 2, '0000100': 4, '0000107': 1, 'm.0107_f': 2}


def jpeg(seed):
  picture = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8)
  return cv2.imencode('.jpg', picture)[1].tobytes()


@pytest.fixture
def folders(tmp_path):
  root = tmp_path / 'faces'
  for i, (identity, n) in enumerate(PEOPLE.items()):
    (root / identity).mkdir(parents=True)
    for k in range(n):
      (root / identity / f'{k:03d}.jpg').write_bytes(jpeg(10 * i + k))
  (root / '0000045' / 'Thumbs.db').write_bytes(b'no picture')
  (root / 'README.txt').write_text('no identity')
  return root


def record(payload, part=0):
  frame = struct.pack('<II', 0xCED7230A, part << 29 | len(payload))
  return frame + payload + b'\0' * (-len(payload) % 4)


def header(*labels):
  one = labels[0] if len(labels) == 1 else 0.0
  many = struct.pack(f'<{len(labels)}f', *labels) if len(labels) > 1 else b''
  return struct.pack('<IfQQ', len(labels) if many else 0, one, 0, 0) + many


def write_records(root, pictures, parted=()):
  """train.rec and train.idx as insightface has them: `pictures` are (identity, bytes).

  The records number `parted` hold the number that begins a record, and are in two parts for it.
  """
  root.mkdir(exist_ok=True)
  n, places, data = len(pictures), {}, b''
  people = sorted({identity for identity, _ in pictures})
  contents = {0: header(n + 1, n + 1 + len(people))}
  contents |= {k: header(identity) + p for k, (identity, p) in enumerate(pictures, 1)}
  contents |= {n + 1 + i: header(1.0, 2.0) for i in range(len(people))}
  for key, payload in contents.items():
    places[key] = len(data)
    if key in parted:
      first, last = payload.split(struct.pack('<I', 0xCED7230A))
      data += record(first, 1) + record(last, 3)
    else:
      data += record(payload)
  (root / 'train.rec').write_bytes(data)
  (root / 'train.idx').write_text(''.join(f'{k}\t{at}\n' for k, at in places.items()))
  return places


def build(source, data_dir, name='web', **options):
  settings = {'source': str(source), 'workers': 1, 'options': options}
  return sources.prepare(f'face_identities/{name}', str(data_dir), **settings)


def read(folder, data_dir, name='web'):
  """{split: {id: example}}."""
  splits = [s['name'] for s in json.loads((folder / 'dataset_info.json').read_text())['splits']]
  opened = {s: sources.open_source(f'face_identities/{name}:{s}', str(data_dir)) for s in splits}
  return {s: {x['id']: x for x in map(o.__getitem__, range(len(o)))} for s, o in opened.items()}


def test_folders_of_identities(folders, tmp_path):
  found = read(build(folders, tmp_path, val='40', test='30'), tmp_path)
  examples = {id_: x for split in found.values() for id_, x in split.items()}
  assert len(examples) == 11  # without her of one picture
  one = examples['web/0000045/001.jpg']
  assert one['rgb'] == (folders / '0000045/001.jpg').read_bytes()  # byte for byte
  assert (one['depth'], one['ir'], one['label']) == (b'', b'', 1)
  assert (one['subject'], one['video'], one['dataset']) == ('web/0000045', one['id'], 'web')
  for split, inside in found.items():
    for x in inside.values():
      part = part_of(x['subject'].partition('/')[2], 1000)
      assert split == ('val' if part < 400 else 'test' if part < 700 else 'train')
  assert len(found) > 1
  people = [{x['subject'] for x in inside.values()} for inside in found.values()]
  assert sum(map(len, people)) == len(set().union(*people)) == 4


def test_the_card_says_who_was_left_out(folders, tmp_path):
  card = build(folders, tmp_path, val='0', test='0').joinpath('CARD.md').read_text()
  assert '1 of 5 identities with fewer than 2 images are left out (1 images)' in card


def test_records_are_as_the_folders(tmp_path):
  """The pictures alone: neither the first record nor the identities' own are any."""
  magic = struct.pack('<I', 0xCED7230A)
  pictures = [(i // 3, jpeg(i)) for i in range(9)]
  # After the end of a JPEG bytes are free: four of them may be the number that begins a record.
  pictures[4] = (1, pictures[4][1] + magic)
  write_records(tmp_path / 'rec', pictures, parted=[5])
  found = read(build(tmp_path / 'rec', tmp_path, val='0', test='0'), tmp_path)
  assert set(found) == {'train'}
  assert [found['train'][f'web/{i // 3}/{i + 1}']['rgb'] for i in range(9)] == [
    p for _, p in pictures
  ]
  assert {x['subject'] for x in found['train'].values()} == {'web/0', 'web/1', 'web/2'}


def test_an_index_of_pictures_alone(tmp_path):
  """As MXNet's own im2rec leaves it: the first record is a picture like the others."""
  data, lines = b'', ''
  for key in range(4):
    lines += f'{key}\t{len(data)}\n'
    data += record(header(float(key // 2)) + jpeg(key))
  (tmp_path / 'train.rec').write_bytes(data)
  (tmp_path / 'train.idx').write_text(lines)
  found = list(recordio.index(tmp_path / 'train.rec'))
  assert [(key, identity) for key, _, identity in found] == [
    (0, '0'), (1, '0'), (2, '1'), (3, '1')
  ]  # fmt: skip


@pytest.mark.parametrize(
  'harm', ['cut', 'moved', 'no index', 'words', 'pipe', 'pipe for index', 'large']
)
def test_records_that_are_damaged(harm, tmp_path):
  places = write_records(tmp_path / 'rec', [(i // 2, jpeg(i)) for i in range(4)])
  rec, idx = tmp_path / 'rec/train.rec', tmp_path / 'rec/train.idx'
  if harm == 'cut':
    rec.write_bytes(rec.read_bytes()[: places[4] + 40])
  elif harm == 'moved':
    idx.write_text(idx.read_text().replace(f'3\t{places[3]}', f'3\t{places[3] + 4}'))
  elif harm.startswith('pipe'):
    path = rec if harm == 'pipe' else idx
    path.unlink()
    os.mkfifo(path)
  elif harm == 'large':  # a length that the file has not, and no memory is taken for
    content = bytearray(rec.read_bytes())
    content[places[4] + 4 : places[4] + 8] = struct.pack('<I', 2**29 - 1)
    rec.write_bytes(content)
  elif harm == 'no index':
    idx.unlink()
  else:
    idx.write_text('not an index\n')
  said = {
    'cut': 'is cut off',
    'moved': 'no whole record at byte',
    'pipe': 'train.rec cannot be read: it is a named pipe',
    'pipe for index': 'not the index of train.rec: .*it is a named pipe',
    'large': 'has 536,870,911 bytes, and at most',
  }.get(harm, 'not the index of')
  with pytest.raises(DataError, match=said):
    build(tmp_path / 'rec', tmp_path)
  assert not list(tmp_path.rglob('*.array_record*'))


def test_a_damaged_picture_is_named(folders, tmp_path):
  whole = (folders / '0000100/002.jpg').read_bytes()
  (folders / '0000100/002.jpg').write_bytes(whole[:-30])
  with pytest.raises(DataError, match='0000100/002.jpg'):
    build(folders, tmp_path)
  found = sources.prepare(
    'face_identities/web', str(tmp_path), source=str(folders), workers=1, on_bad='skip'
  )
  assert '0000100/002.jpg' in (found / 'bad_files.csv').read_text()


@pytest.mark.parametrize(
  'name,options,said',
  [
    ('web', {'val': 'some'}, 'val=some: a number from 0 to 100'),
    ('web', {'val': '60', 'test': '40'}, 'no identity is left for train'),
    ('', {}, 'needs a name'),
    ('web', {'share': '2'}, "no option 'share'; it has: val, test, least"),
  ],
)
def test_what_cannot_be(name, options, said, folders, tmp_path):
  with pytest.raises(ConfigError, match=said):
    sources.prepare(
      f'face_identities/{name}'.rstrip('/'), str(tmp_path), source=str(folders), options=options
    )


def test_an_empty_source(tmp_path):
  (tmp_path / 'empty').mkdir()
  with pytest.raises(DataError, match='a folder per identity'):
    build(tmp_path / 'empty', tmp_path)
