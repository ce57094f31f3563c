"""Building from files: all problems are reported at once; a set is written whole or not at all."""

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
import tensorflow_datasets as tfds
from PIL import Image

from flexfas_jax.data.reading import SourceRow
from flexfas_jax.data.source_builder import Plan, SourceBuilder
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.input_pipeline import sources
from flexfas_jax.protocols.findings import Finding
from tests.miniatures import faces

ROOT = pathlib.Path(__file__).parents[2]
PEOPLE = {'train': ('a', 'b'), 'val': ('c',)}


class Folders(SourceBuilder):
  """A folder per split, one per person, one per frame."""

  VERSION = tfds.core.Version('1.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = 'SPLIT/PERSON/FRAME/{rgb.jpg,depth.png,ir.jpg}'
  RULES = image_checks.Rules(bits={'rgb': 8, 'depth': 16, 'ir': 8})
  OPTIONS = {'colour': 'as it is'}

  # TFDS reads description and citation beside a builder; there is nothing beside a test.
  def _info(self):
    from flexfas_jax.data import features

    return tfds.core.DatasetInfo(builder=self, description='x', features=features.features_dict())

  def plan(self):
    splits = {}
    for number, frame in enumerate(sorted(self.source.glob('*/*/*')), 1):
      split, person, name = frame.parts[-3:]
      facts = {
        'id': f'folders/{person}/{name}',
        'label': 'attack' if int(name) % 2 else 'bona_fide',
        'attack_type': 'sheet' if int(name) % 2 else '',
        'attack_category': 'print' if int(name) % 2 else '',
        'subject': f'folders/{person}',
        'video': f'folders/{person}/{name}',
        'frame': 0,
        'dataset': 'folders',
      }
      files = {f.stem: str(f.relative_to(self.source)) for f in frame.iterdir()}
      row = SourceRow(facts, files, 'the list', number, extra={'odd': str(int(name) % 2)})
      splits.setdefault(split, []).append(row)
    return Plan(splits, notes=['a note'])


@pytest.fixture
def source(tmp_path):
  root = tmp_path / 'source'
  for split, people in PEOPLE.items():
    for person in people:
      for frame in range(4):
        images = faces.triplet('print' * (frame % 2), ord(person), frame, 32, depth_bits=16)
        folder = root / split / person / str(frame)
        folder.mkdir(parents=True)
        for modality, image in images.items():
          suffix = '.png' if modality == 'depth' else '.jpg'
          (folder / f'{modality}{suffix}').write_bytes(faces.encode(image, suffix))
  return root


def build(source, data_dir, **settings):
  settings = {'workers': 1, **settings}
  builder = Folders(source=str(source), data_dir=data_dir, file_format='array_record', **settings)
  builder.download_and_prepare()
  return pathlib.Path(builder.data_dir)


def left(data_dir):
  """What a set would be made of, anywhere below."""
  return [p for p in pathlib.Path(data_dir).rglob('*') if p.is_file() and 'folders' in p.parts]


def wrong(data_dir):
  with open(data_dir / 'folders.bad_files.csv', newline='') as file:
    return [Finding(r['rule'], r['list'], int(r['row']), r['text']) for r in csv.DictReader(file)]


def test_files_go_in_byte_for_byte_and_the_card_says_what_they_are(source, tmp_path):
  folder = build(source, tmp_path / 'out')
  opened = sources.open_source('folders:train', str(tmp_path / 'out'))
  assert len(opened) == 8
  for i in range(8):
    example = opened[i]
    path = source / 'train' / example['id'].removeprefix('folders/')
    assert example['rgb'] == (path / 'rgb.jpg').read_bytes()
    assert example['depth'] == (path / 'depth.png').read_bytes()
    assert example['ir'] == (path / 'ir.jpg').read_bytes()
  card = json.loads((folder / 'card.json').read_text())
  train = card['splits']['train']
  assert (train['triplets'], train['bona_fide'], train['attacks'], train['subjects']) == (
    8,
    4,
    4,
    2,
  )
  assert train['species'] == {'bona_fide': 4, 'sheet': 4}
  assert card['images']['depth']['bits'] == {'16': 12}
  assert card['images']['rgb']['width'] == {'smallest': 32, 'median': 32, 'largest': 32}
  assert card['notes'] == ['a note'] and card['left_out'] == 0
  assert card['manifest_sha256'] == image_checks.digest((folder / 'manifest.csv').read_bytes())
  assert cv2.imread(str(folder / 'contact_sheet.jpg')) is not None
  assert '| train | 8 | 4 | 4 | 2 | 8 |' in (folder / 'CARD.md').read_text()
  assert not list(folder.glob('owner*')) and not list(folder.glob('bad_files*'))
  # The manifest's own columns select.
  assert len(sources.open_source('folders:train[odd=1]', str(tmp_path / 'out'))) == 4


def test_any_number_of_workers_gives_the_same_bytes(source, tmp_path):
  one = build(source, tmp_path / '1', workers=1)
  two = build(source, tmp_path / '2', workers=2)
  for path in one.iterdir():
    if path.suffix != '.json':  # TFDS writes when it was made
      assert path.read_bytes() == (two / path.name).read_bytes(), path.name


def harm(source):
  """Seven triplets with something wrong; [(rule, what the text has)]."""
  at = source / 'train' / 'a'
  jpeg = (at / '0/rgb.jpg').read_bytes()
  (at / '0/rgb.jpg').write_bytes(jpeg[: len(jpeg) // 2])
  (at / '1/rgb.jpg').write_bytes(b'')
  (at / '2/ir.jpg').write_text('<!DOCTYPE html><html>please log in</html>')
  depth = cv2.imread(str(at / '3/depth.png'), cv2.IMREAD_UNCHANGED)
  cv2.imwrite(str(at / '3/depth.png'), (depth // 16).clip(0, 255).astype(np.uint8))
  at = source / 'train' / 'b'
  rgb = cv2.imread(str(at / '0/rgb.jpg'))
  cv2.imwrite(str(at / '0/ir.jpg'), cv2.cvtColor(rgb, cv2.COLOR_BGR2GRAY))
  cv2.imwrite(str(at / '1/ir.jpg'), np.zeros((32, 32), np.uint8))  # a warning
  at = source / 'val' / 'c'
  (at / '0/depth.png').write_bytes((at / '0/depth.png').read_bytes()[:-20])
  return [
    ('unreadable', 'rgb.jpg: rgb is truncated'),
    ('unreadable', 'rgb.jpg: rgb is empty (0 bytes)'),
    ('unreadable', 'ir.jpg: ir is an HTML page'),
    ('bit-depth', 'depth.png: depth has 8 bits, and 16 are due'),
    ('same-image', 'ir.jpg: ir is a copy of rgb'),
    ('black', 'ir.jpg: ir is one colour throughout'),
    ('unreadable', 'depth.png: depth is truncated: the PNG has no end'),
  ]


def test_all_that_is_wrong_is_in_one_report_and_nothing_is_left(source, tmp_path):
  expected = harm(source)
  out = tmp_path / 'out'
  with pytest.raises(DataError) as caught:
    build(source, out)
  message = str(caught.value)
  assert '6 errors; nothing was built' in message and '--on_bad=skip' in message
  found = wrong(out)
  assert [f.rule for f in found] == [rule for rule, _ in expected]
  for finding, (_, text) in zip(found, expected, strict=True):
    assert text in finding.text
    assert finding.list == 'the list' and finding.row > 0
    assert finding.rule == 'black' or str(finding) in message
  assert not left(out)
  build(source, out, on_bad='skip')
  assert not (out / 'folders.bad_files.csv').exists()  # it was of the attempt that failed


def test_what_is_wrong_can_be_left_out_and_is_listed(source, tmp_path):
  expected = harm(source)
  folder = build(source, tmp_path / 'out', on_bad='skip')
  assert len(sources.open_source('folders:train', str(tmp_path / 'out'))) == 3
  assert len(sources.open_source('folders:val', str(tmp_path / 'out'))) == 3
  with open(folder / 'bad_files.csv', newline='') as file:
    assert [r['rule'] for r in csv.DictReader(file)] == [rule for rule, _ in expected]
  card = json.loads((folder / 'card.json').read_text())
  assert card['left_out'] == 6 and card['findings']['unreadable'] == 4
  assert card['findings']['black'] == 1
  assert '6 left out' in (folder / 'CARD.md').read_text()


@pytest.mark.parametrize('on_bad', ['fail', 'skip'])
def test_a_split_of_which_nothing_is_good(source, tmp_path, on_bad):
  for path in source.glob('val/*/*/rgb.jpg'):
    path.write_bytes(b'\xff\xd8\xff')
  (source / 'train/a/0/rgb.jpg').write_bytes(b'')
  with pytest.raises(DataError, match='5 errors; nothing was built') as caught:
    build(source, tmp_path / 'out', on_bad=on_bad)
  assert ('a split would be empty: correct the source' in str(caught.value)) == (on_bad == 'skip')
  assert not left(tmp_path / 'out')


@pytest.mark.parametrize('on_bad', ['fail', 'skip'])
def test_a_person_in_two_splits_ends_the_build(source, tmp_path, on_bad):
  (source / 'val/a').mkdir()
  (source / 'train/a/3').rename(source / 'val/a/3')
  with pytest.raises(DataError, match='leak-subject: subject folders/a') as caught:
    build(source, tmp_path / 'out', on_bad=on_bad)
  message = str(caught.value)
  assert 'is in train' in message and '(val' in message
  assert 'A leak ends the build also with --on_bad=skip' in message
  assert 'give each subject and each video one split' in message
  assert '--accept_known_leaks' not in message  # the leak is of nobody's published list
  assert not left(tmp_path / 'out')
  with pytest.raises(ConfigError, match="no known leak is called 'mine'; there are: flexmodal_v1"):
    build(source, tmp_path / 'out', accept_known_leaks=('mine',))


def with_a_byte_changed(content):
  """A JPEG with a byte changed that no decoder notices."""
  for place in range(len(content) - 100, len(content) - 2):
    changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    try:
      image_checks.decode(changed)
    except image_checks.Unreadable:
      continue
    return changed
  raise AssertionError('every change is noticed')


def test_the_bytes_of_an_earlier_manifest(source, tmp_path):
  """A JPEG with one byte flipped may decode without an error; its digest tells."""
  folder = build(source, tmp_path / 'one')
  path = source / 'train/a/0/rgb.jpg'
  content = path.read_bytes()
  path.write_bytes(with_a_byte_changed(content))
  manifest = str(folder / 'manifest.csv')
  with pytest.raises(DataError, match='sha256: train/a/0/rgb.jpg: rgb does not have'):
    build(source, tmp_path / 'two', manifest=manifest)
  shutil.move(source / 'train/a/1', source / 'train/a/9')
  with pytest.raises(DataError) as caught:
    build(source, tmp_path / 'two', manifest=manifest)
  assert 'missing-file: folders/a/1 is not in the source' in str(caught.value)
  assert 'sha256: folders/a/9 is not in the manifest' in str(caught.value)
  shutil.move(source / 'train/a/9', source / 'train/a/1')
  with pytest.raises(DataError, match='is not a prepared set'):
    build(source, tmp_path / 'two', manifest=str(tmp_path / 'none.csv'))
  path.write_bytes(content)
  again = build(source, tmp_path / 'three', manifest=manifest)
  assert (again / 'manifest.csv').read_bytes() == (folder / 'manifest.csv').read_bytes()


def test_a_second_run_leaves_what_stands(source, tmp_path):
  folder = build(source, tmp_path / 'out')
  before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
  assert build(tmp_path / 'gone', tmp_path / 'out') == folder
  assert {p: p.stat().st_mtime_ns for p in folder.iterdir()} == before


def test_images_outside_the_limits(source, tmp_path):
  """What predict refuses is refused here, and waits for nobody."""
  at = source / 'train' / 'a'
  (at / '0/rgb.jpg').unlink()
  os.mkfifo(at / '0/rgb.jpg')
  cv2.imwrite(str(at / '1/ir.jpg'), np.arange(300, dtype=np.uint8).reshape(2, 150))
  (at / '2/rgb.jpg').unlink()
  (at / '2/rgb.jpg').symlink_to('/dev/zero')
  with pytest.raises(DataError):
    build(source, tmp_path / 'out')
  texts = [f.text for f in wrong(tmp_path / 'out')]
  assert len(texts) == 3
  assert '0/rgb.jpg: it is a named pipe, not a regular file' in texts[0]
  assert 'ir is 150 x 2 pixels; each side must have at least 16' in texts[1]
  assert '2/rgb.jpg: it is a device, not a regular file' in texts[2]


def test_an_image_that_exif_turns_is_refused(source, tmp_path):
  """It is stored byte for byte, and training reads its pixels as they are stored."""
  path = source / 'train/a/0/rgb.jpg'
  exif = Image.Exif()
  exif[0x0112] = 3
  with Image.open(path) as image:
    image.load()
    image.save(path, 'JPEG', exif=exif, quality=95)
  with pytest.raises(DataError, match='rotated: train/a/0/rgb.jpg: rgb has EXIF orientation 3'):
    build(source, tmp_path / 'out')


def test_the_limit_of_pixels_can_be_changed(source, tmp_path):
  with pytest.raises(DataError, match='pixels, more than the limit of 300 '):
    build(source, tmp_path / 'low', max_pixels=300)
  with pytest.raises(ConfigError, match='max_pixels is 3'):
    build(source, tmp_path / 'out', max_pixels=3)
  folder = build(source, tmp_path / 'out', max_pixels=10**9)
  assert json.loads((folder / 'card.json').read_text())['rules']['max_pixels'] == 10**9


@pytest.mark.parametrize(
  'settings,error,said',
  [
    ({'source': None}, ConfigError, '--source=DIR. SPLIT/PERSON/FRAME'),
    ({'source': 'nowhere'}, DataError, '--source=nowhere: there is no such folder'),
    ({'on_bad': 'ignore'}, ConfigError, 'choose fail or skip'),
    ({'options': {'color': 'x'}}, ConfigError, "no option 'color'; it has: colour"),
  ],
)
def test_settings_that_cannot_be(settings, error, said, tmp_path):
  settings = {'source': str(tmp_path), **settings}
  with pytest.raises(error, match=said):
    Folders(data_dir=tmp_path / 'out', **settings).download_and_prepare()


def test_a_source_without_any_triplet(tmp_path):
  (tmp_path / 'source').mkdir()
  with pytest.raises(DataError, match='holds no triplet of folders. SPLIT/PERSON'):
    build(tmp_path / 'source', tmp_path / 'out')
  assert not left(tmp_path / 'out')


def test_what_a_killed_build_left_is_removed(source, tmp_path):
  code = (
    'import os, sys; from tests.data import source_builder_test as t\n'
    't.Folders._finish = lambda self: os.kill(os.getpid(), 9)\n'
    't.build(sys.argv[1], sys.argv[2])'
  )
  out = str(tmp_path / 'out')
  killed = subprocess.run([sys.executable, '-c', code, str(source), out], cwd=ROOT)
  assert killed.returncode == -9
  assert len(list((tmp_path / 'out/folders').glob('incomplete*'))) == 1
  # Another process's, at work on this machine, and one of another machine, are let be.
  for name, owner in (
    ('AAAAAA', ['elsewhere', 10**9]),
    ('BBBBBB', [os.uname().nodename, os.getpid()]),
  ):
    folder = tmp_path / f'out/folders/incomplete.{name}_1.0.0'
    folder.mkdir()
    (folder / 'owner.json').write_text(json.dumps(owner))
  build(source, tmp_path / 'out')
  names = sorted(p.name for p in (tmp_path / 'out/folders').iterdir())
  assert names == ['1.0.0', 'incomplete.AAAAAA_1.0.0', 'incomplete.BBBBBB_1.0.0']


def test_two_builds_at_once(source, tmp_path):
  code = 'import sys; from tests.data.source_builder_test import build; build(*sys.argv[1:3])'
  command = [sys.executable, '-c', code, str(source), str(tmp_path / 'out')]
  both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
  said = [process.communicate()[1] for process in both]
  assert [process.returncode for process in both] == [0, 0], said
  assert [p.name for p in (tmp_path / 'out/folders').iterdir()] == ['1.0.0']
  assert len(sources.open_source('folders:train', str(tmp_path / 'out'))) == 8


def test_another_build_may_have_been_faster(source, tmp_path, monkeypatch):
  """Its folder stands when this one is done: that is the set."""
  finish = Folders._finish

  def overtaken(self):
    finish(self)
    shutil.copytree(self.data_path, tmp_path / 'out/folders/1.0.0')

  monkeypatch.setattr(Folders, '_finish', overtaken)
  build(source, tmp_path / 'out')
  assert [p.name for p in (tmp_path / 'out/folders').iterdir()] == ['1.0.0']

  def half(self):
    finish(self)
    (tmp_path / 'other/folders/1.0.0/x').mkdir(parents=True)

  monkeypatch.setattr(Folders, '_finish', half)
  with pytest.raises(OSError, match='1.0.0'):
    build(source, tmp_path / 'other')


class Listed(Folders):
  """The same triplets, by paths that a list has: files need not be there."""

  listed = ()

  def plan(self):
    return Plan({split: list(rows) for split, rows in type(self).listed.items()})


def list_of(source):
  return Folders(source=str(source), data_dir='/none').plan().splits


def build_listed(monkeypatch, rows, source, data_dir):
  monkeypatch.setattr(Listed, 'listed', rows)
  builder = Listed(source=str(source), data_dir=data_dir, file_format='array_record', workers=1)
  builder.download_and_prepare()


@pytest.mark.parametrize(
  'wrong, says',
  [('..', 'They start at {source}'), ('train', 'They start at {source}'), ('empty', '')],
)
def test_a_wrong_root_is_one_line(source, tmp_path, monkeypatch, wrong, says):
  rows, out = list_of(source), tmp_path / 'out'
  (source / 'empty' / 'a').mkdir(parents=True)
  with pytest.raises(DataError) as caught:
    build_listed(monkeypatch, rows, source / wrong, out)
  message = str(caught.value)
  assert message.count('missing-file: ') == 2 and 'none of the 36 files is below' in message
  assert 'e.g. train/a/0/' in message and says.format(source=source) in message
  assert len((out / 'listed.bad_files.csv').read_text().splitlines()) == 2


def test_the_folder_that_paths_start_with_is_named(source, tmp_path, monkeypatch):
  longer = {
    split: [r._replace(files={m: f'set/{p}' for m, p in r.files.items()}) for r in rows]
    for split, rows in list_of(source).items()
  }
  with pytest.raises(DataError, match='The files are there without set before their paths'):
    build_listed(monkeypatch, longer, source, tmp_path / 'out')


def test_some_missing_files_are_listed(source, tmp_path, monkeypatch):
  rows = list_of(source)
  (source / 'train/a/0/rgb.jpg').unlink()
  with pytest.raises(DataError, match='missing-file: rgb train/a/0/rgb.jpg'):
    build_listed(monkeypatch, rows, source, tmp_path / 'out')


def test_a_row_with_a_finding_is_read_all_the_same(source, tmp_path, monkeypatch):
  """The id is another row's, and its image is damaged: both are reported at once."""
  rows = list_of(source)
  one, other = rows['train'][:2]
  rows['train'][1] = other._replace(facts={**one.facts})
  (source / other.files['rgb']).write_bytes(b'\0\0\0\x18ftypheic')
  with pytest.raises(DataError) as caught:
    build_listed(monkeypatch, rows, source, tmp_path / 'out')
  message = str(caught.value)
  assert 'duplicate: the id folders/a/0 is also that of' in message
  assert f'unreadable: {other.files["rgb"]}' in message


def test_a_refused_build_leaves_no_folders(source, tmp_path):
  harm(source)
  out = tmp_path / 'deep' / 'out'
  with pytest.raises(DataError):
    build(source, out)
  assert [path.name for path in out.iterdir()] == ['folders.bad_files.csv']
  (out / 'folders').mkdir()  # what was there before stays
  with pytest.raises(DataError):
    build(source, out)
  assert (out / 'folders').is_dir() and not list((out / 'folders').iterdir())
