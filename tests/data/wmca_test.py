"""WMCA from its HDF5 files: what both halves hold, its own protocols, and what can be wrong."""

import collections
import csv
import json
import pathlib
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from flexfas_jax import prepare
from flexfas_jax.data import reading
from flexfas_jax.data.wmca import frames, protocols, wmca_dataset_builder
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.images.worker_pool import Workers
from flexfas_jax.input_pipeline import sources
from flexfas_jax.protocols import path_layouts
from tests.miniatures import flexmodal, wmca

_ROOT = pathlib.Path(__file__).parents[2]
VIDEO = wmca.VIDEOS[0]


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
  """The preprocessed release and its protocols, which no test changes."""
  root = tmp_path_factory.mktemp('wmca')
  wmca.write_preprocessed(root)
  wmca.write_protocols(root / 'documentation')
  return root


@pytest.fixture(scope='module')
def prepared(tree, tmp_path_factory):
  """The same, prepared: (data_dir, folder)."""
  data_dir = tmp_path_factory.mktemp('prepared')
  return data_dir, build(tree, data_dir)


@pytest.fixture
def source(tree, tmp_path):
  """A copy that a test may harm."""
  return pathlib.Path(shutil.copytree(tree, tmp_path / 'source'))


@pytest.fixture
def small(tmp_path):
  """Three videos of their own."""
  wmca.write_preprocessed(tmp_path / 'small', wmca.VIDEOS[:3])
  return tmp_path / 'small'


def build(source, data_dir, config='preprocessed', **settings):
  return sources.prepare(f'wmca/{config}', data_dir, source=str(source), workers=1, **settings)


def read(data_dir, which='preprocessed:whole'):
  source = sources.open_source(f'wmca/{which}', str(data_dir))
  return {source[i]['id']: source[i] for i in range(len(source))}


def plan(source, tmp_path, **settings):
  builder = wmca_dataset_builder.Builder(
    config='preprocessed',
    source=str(source),
    data_dir=tmp_path / 'prepared',
    file_format='array_record',
    **settings,
  )
  with Workers(1) as builder._pool:
    return builder.plan()


def found(plan):
  return [(finding.rule, finding.text) for finding in plan.findings]


def edit(path, change):
  """Opens an HDF5 file for a change."""
  with h5py.File(path, 'r+') as file:
    change(file)


def replace(file, name, array):
  del file[name]
  file[name] = array


def test_every_frame_that_both_halves_hold(prepared):
  data_dir, folder = prepared
  examples = read(data_dir)
  assert len(examples) == 39
  for video in wmca.VIDEOS:
    said = path_layouts.wmca_video(video.name)
    for frame in video.frames:
      example = examples.pop(f'wmca/{video.name[:3]}/{video.name}/{frame:04d}', None)
      if any(frame in lacking for lacking in video.not_in.values()):
        assert example is None
        continue
      arrays = wmca.arrays(video, frame)
      rgb = image_checks.decode(example['rgb'])
      np.testing.assert_array_equal(rgb, np.moveaxis(arrays['RGB'], 0, 2))
      np.testing.assert_array_equal(image_checks.decode(example['depth']), arrays['CDIT'][1])
      np.testing.assert_array_equal(image_checks.decode(example['ir']), arrays['CDIT'][2])
      assert example['label'] == (said.label == 'bona_fide')
      assert example['attack_category'] == said.attack_category
      assert example['attack_type'] == ('' if example['label'] else video.name[11:])
      assert example['subject'] == f'wmca/{video.name[:3]}'
      assert example['video'] == f'wmca/{video.name[:3]}/{video.name}'
      assert (example['frame'], example['dataset']) == (frame, 'wmca')
  assert not examples
  notes = '\n'.join(json.loads((folder / 'card.json').read_text())['notes'])
  assert '2 frames of 2 videos are in one half alone, and left out: 002_02_000_0_01, 502' in notes
  assert 'channel_order=rgb: the middle of the face has more red than blue in 3 of 3' in notes
  assert not (folder / 'bad_files.csv').exists()


def test_its_protocols_and_lists_select(prepared, tmp_path):
  data_dir, folder = prepared
  videos = collections.defaultdict(set)
  with open(folder / 'manifest.csv', encoding='utf-8', newline='') as file:
    for row in csv.DictReader(file):
      for column in protocols.COLUMNS:
        some = videos[column, row[column]]
        some.add((row['subject'], row['video'], row['attack_category']))
  for group, n in (('train', 13), ('dev', 8), ('eval', 18)):
    assert len(read(data_dir, f'preprocessed:whole[grandtest={group}]')) == n
  for column in protocols.COLUMNS:
    groups = [{one[0] for one in videos[column, group]} for group in ('train', 'dev', 'eval')]
    assert not groups[0] & groups[1] and not groups[1] & groups[2] and not groups[0] & groups[2]
  assert sum(len(videos['grandtest', group]) for group in ('train', 'dev', 'eval')) == 17
  for category, name in wmca.LEFT_OUT.items():
    for group in ('train', 'dev'):
      categories = {one[2] for one in videos[f'LOO_{name}', group]}
      assert category not in categories and len(categories) > 1 and '' in categories
    assert {one[2] for one in videos[f'LOO_{name}', 'eval']} == {'', category}
  lists = tmp_path / 'lists'
  flexmodal.write_lists(lists)
  some = read(data_dir, f'preprocessed:whole[in={lists / "WMCA_test_papermask.txt"}]')
  assert {e['attack_category'] for e in some.values()} == {'papermask'} and len(some) == 4
  one = read(data_dir, 'preprocessed:whole[presenter=008 & session=01]')
  assert {e['video'] for e in one.values()} == {'wmca/512/512_01_008_1_01'}


def test_ids_are_those_that_paths_have(tree, tmp_path):
  made = plan(tree, tmp_path)
  assert not made.findings
  for row in made.splits['whole']:
    for modality, path in row.files.items():
      said = path_layouts.parse(path)
      assert (said.id, said.modality) == (row.facts['id'], modality)
  assert made.recorded['protocols'].keys() == {f'PROTOCOL-{c}.csv' for c in protocols.COLUMNS}


def test_channel_order(small, tmp_path):
  for half in small.glob('*_RGB/**/*.hdf5'):
    with h5py.File(half, 'r+') as file:
      for key in list(file):
        replace(file, f'{key}/array', file[f'{key}/array'][()][::-1])
  ((rule, text),) = found(plan(small, tmp_path))
  assert rule == 'swapped' and text.startswith('channel_order=rgb: ')
  assert 'in 0 of 3 bona fide videos' in text and '--option channel_order=bgr' in text
  with pytest.raises(DataError, match='nothing was built'):  # no sample is at fault
    build(small, tmp_path / 'out', on_bad='skip')
  build(small, tmp_path / 'out', options={'channel_order': 'bgr'})
  example = read(tmp_path / 'out')[f'wmca/001/{VIDEO.name}/0000']
  wanted = np.moveaxis(wmca.arrays(VIDEO, 0)['RGB'], 0, 2)
  np.testing.assert_array_equal(image_checks.decode(example['rgb']), wanted)


def test_some_frames(tree, tmp_path):
  def chosen(**options):
    rows = plan(tree, tmp_path, options=options).splits['whole']
    return [row.facts['frame'] for row in rows if row.facts['video'].endswith(VIDEO.name)]

  assert chosen() == [0, 12, 24, 36]
  assert chosen(frames='2') == [0, 24]
  assert chosen(frames='3') == [0, 12, 24]
  assert chosen(frames='9') == [0, 12, 24, 36]
  assert chosen(every='2') == [0, 24]
  assert chosen(every='3', frames='1') == [0]


@pytest.mark.parametrize(
  'config, options, words',
  [
    ('preprocessed', {'channel_order': 'gbr'}, 'channel_order=gbr: rgb or bgr'),
    ('preprocessed', {'bits': '12'}, 'bits=12: 8 or 16'),
    ('preprocessed', {'frames': '0'}, 'frames=0'),
    ('preprocessed', {'every': '-1'}, 'every=-1'),
    ('preprocessed', {'frame': '1'}, "no option 'frame'"),
    ('flexmodal', {'frames': '2'}, 'frames: only for wmca/preprocessed'),
  ],
)
def test_wrong_options(config, options, words, tmp_path):
  with pytest.raises(ConfigError) as caught:
    build(tmp_path, tmp_path, config, options=options)
  assert words in str(caught.value)


def test_sixteen_bits_are_taken_when_asked_for(small, tmp_path):
  for path in small.glob('*_CDIT/**/*.hdf5'):
    with h5py.File(path, 'r+') as file:
      for key in list(file):
        replace(file, f'{key}/array', file[f'{key}/array'][()].astype('>u2') * 257)
  reader = frames.FrameReader(str(small))
  ((rule, text),) = reader(plan(small, tmp_path).splits['whole'][0]).problems
  assert rule == 'unreadable' and '--option bits=16' in text
  folder = build(small, tmp_path / 'out', options={'bits': '16'})
  example = read(tmp_path / 'out')[f'wmca/001/{VIDEO.name}/0012']
  depth = image_checks.decode(example['depth'])
  assert depth.dtype == np.uint16
  np.testing.assert_array_equal(depth, wmca.arrays(VIDEO, 12)['CDIT'][1].astype(np.uint16) * 257)
  assert json.loads((folder / 'card.json').read_text())['rules']['bits']['depth'] == 16


def _lose_half(source):
  wmca.path_of(source, 'CDIT', VIDEO).unlink()


def _lose_frames(source):
  edit(wmca.path_of(source, 'RGB', VIDEO), lambda file: [file.pop(f'Frame_{k}') for k in (0, 12)])
  edit(wmca.path_of(source, 'CDIT', VIDEO), lambda file: [file.pop(f'Frame_{k}') for k in (24, 36)])


def _truncate(source):
  path = wmca.path_of(source, 'RGB', VIDEO)
  path.write_bytes(path.read_bytes()[:-1000])


def _empty(source):
  wmca.path_of(source, 'CDIT', VIDEO).write_bytes(b'')


def _login_page(source):
  wmca.path_of(source, 'CDIT', VIDEO).write_bytes(b'<!DOCTYPE html><html>log in</html>')


def _copy(source, **changed):
  for half in ('RGB', 'CDIT'):
    path = wmca.path_of(source, half, VIDEO._replace(**changed))
    path.parent.mkdir(exist_ok=True)
    shutil.copy(wmca.path_of(source, half, VIDEO), path)


def _unknown_pair(source):
  _copy(source, name='001_01_000_2_50')


def _other_name(source):
  _copy(source, name='readme')


def _twice(source):
  _copy(source, day='01.01.19')


@pytest.mark.parametrize(
  'harm, rule, words',
  [
    (_lose_half, 'missing-file', f'{VIDEO.name} has no file in the CDIT half'),
    (_lose_frames, 'triplet', f'{VIDEO.name}: no frame is in both halves (2 RGB, 2 CDIT)'),
    (_truncate, 'unreadable', f'{VIDEO.name}.hdf5: is not a whole HDF5 file'),
    (_empty, 'unreadable', f'{VIDEO.name}.hdf5: is not a whole HDF5 file'),
    (_login_page, 'unreadable', f'{VIDEO.name}.hdf5: is not a whole HDF5 file'),
    (_unknown_pair, 'label', '001_01_000_2_50: WMCA has no type 2 with instrument 50'),
    (_other_name, 'label', "'readme' is not a WMCA video"),
    (_twice, 'duplicate', f'{VIDEO.name} is there twice: WMCA_preprocessed_'),
  ],
)
def test_a_bad_video_is_found_before_reading(harm, rule, words, source, tmp_path):
  harm(source)
  made = plan(source, tmp_path)
  assert {r for r, _ in found(made)} == {rule}
  assert words in found(made)[0][1]
  others = {row.facts['video'] for row in made.splits['whole']}
  assert len(others) == (17 if harm in (_unknown_pair, _other_name, _twice) else 16)


def _as(change):
  """Changes the array of a frame in the CDIT half."""

  def harm(source):
    def one(file):
      replace(file, 'Frame_12/array', change(file['Frame_12/array'][()]))

    edit(wmca.path_of(source, 'CDIT', VIDEO), one)

  return harm


def _no_array(source):
  edit(wmca.path_of(source, 'CDIT', VIDEO), lambda file: file.move('Frame_12/array', 'Frame_12/a'))


def _group_for_array(source):
  def change(file):
    del file['Frame_12/array']
    file.create_group('Frame_12/array')

  edit(wmca.path_of(source, 'CDIT', VIDEO), change)


def _three_channels_swapped(source):
  def change(file):
    replace(file, 'Frame_12/array', np.moveaxis(file['Frame_12/array'][()], 0, 2))

  edit(wmca.path_of(source, 'RGB', VIDEO), change)


def _damaged_block(source):
  """A block that its own checksum gives away."""
  path = wmca.path_of(source, 'CDIT', VIDEO)
  array = wmca.arrays(VIDEO, 12)['CDIT']

  def change(file):
    del file['Frame_12/array']
    file.create_dataset('Frame_12/array', data=array, chunks=array.shape, fletcher32=True)

  edit(path, change)
  content = bytearray(path.read_bytes())
  content[content.rindex(array.tobytes()[:4096]) + 100] ^= 1
  path.write_bytes(content)


def _endless(source):
  """A shape that takes no room in the file, and is filled with zeros when it is read."""

  def change(file):
    del file['Frame_12/array']
    file.create_dataset('Frame_12/array', (4, 10**6, 10**6), np.uint8, chunks=(4, 64, 64))

  edit(wmca.path_of(source, 'CDIT', VIDEO), change)


@pytest.mark.parametrize(
  'harm, words',
  [
    (_endless, 'is 1000000 x 1000000 pixels, more than the limit of 25,000,000'),
    (_as(lambda a: a.astype(np.uint16)), 'is uint16, and uint8 is due (--option bits=16'),
    (_as(lambda a: a.astype(np.float32)), 'is float32, and uint8 is due'),
    (_as(lambda a: a[:3]), 'has the shape (3, 128, 128), and (4, height, width) is due'),
    (_as(lambda a: a[0]), 'has the shape (128, 128)'),
    (_as(lambda a: a[:, :0]), 'has the shape (4, 0, 128)'),
    (_three_channels_swapped, 'has the shape (128, 128, 3), and (3, height, width) is due'),
    (_no_array, 'has no dataset Frame_12/array'),
    (_group_for_array, 'has no dataset Frame_12/array'),
    (_damaged_block, 'Frame_12/array cannot be read'),
  ],
)
def test_a_bad_frame_is_found_by_its_reader(harm, words, source, tmp_path):
  harm(source)
  made = plan(source, tmp_path)
  assert not made.findings
  reader = frames.FrameReader(str(source))
  wrong = {}
  for row in made.splits['whole']:
    if row.facts['video'].endswith(VIDEO.name):
      outcome = reader(row)
      wrong[row.facts['frame']] = outcome.problems
  ((rule, text),) = wrong.pop(12)
  assert rule == 'unreadable' and text.startswith('WMCA_preprocessed_')
  assert f'{VIDEO.name}.hdf5: ' in text and words in text
  assert wrong == {0: [], 24: [], 36: []}


def test_a_file_that_is_gone(source, tmp_path):
  row = plan(source, tmp_path).splits['whole'][0]
  path = source / row.files['depth'].partition('#')[0]
  path.unlink()
  outcome = frames.FrameReader(str(source))(row)
  assert [rule for rule, _ in outcome.problems] == ['missing-file'] * 2  # depth and infrared
  assert row.files['depth'] in outcome.problems[0][1]


def test_all_that_is_wrong_is_reported_at_once_or_left_out(tmp_path):
  last = wmca.VIDEOS[4]
  source = tmp_path / 'source'
  wmca.write_preprocessed(source, wmca.VIDEOS[:5])
  _truncate(source)
  wmca.path_of(source, 'CDIT', wmca.VIDEOS[1]).unlink()
  _unknown_pair(source)
  edit(
    wmca.path_of(source, 'RGB', last),
    lambda file: replace(file, 'Frame_12/array', np.zeros((3, 9, 9), np.float16)),
  )
  with pytest.raises(DataError) as caught:
    build(source, tmp_path / 'out')
  text = str(caught.value)
  assert '4 errors' in text
  for name in (VIDEO.name, wmca.VIDEOS[1].name, '001_01_000_2_50', last.name):
    assert name in text
  left = [path for path in (tmp_path / 'out').rglob('*') if path.is_file()]
  assert sorted(path.name for path in left) == ['metadata.json', 'wmca-preprocessed.bad_files.csv']
  folder = build(source, tmp_path / 'out', on_bad='skip')
  with open(folder / 'bad_files.csv', encoding='utf-8', newline='') as file:
    assert sorted(row['rule'] for row in csv.DictReader(file)) == [
      'label', 'missing-file', 'unreadable', 'unreadable',
    ]  # fmt: skip
  examples = read(tmp_path / 'out')
  assert len(examples) == 4 + 2 + 1  # two videos, and a frame of another


@pytest.mark.parametrize('halves', [(), ('RGB',), ('CDIT',)])
def test_another_layout_is_refused_with_the_expected_one(halves, tree, tmp_path):
  source = tmp_path / 'source'
  source.mkdir()
  for half in halves:
    (source / f'WMCA_preprocessed_{half}').symlink_to(tree / f'WMCA_preprocessed_{half}')
    shutil.copytree(tree / f'WMCA_preprocessed_{half}', source / f'copy_{half}')
  with pytest.raises(DataError) as caught:
    build(source, tmp_path / 'out')
  assert 'WMCA_preprocessed_CDIT/WMCA/face-station/<dd.mm.yy>/<name>.hdf5' in str(caught.value)
  assert f'{17 if "RGB" in halves else 0} of RGB' in str(caught.value)


def test_halves_may_lie_apart_and_other_files_are_counted(source, tmp_path):
  (source / 'WMCA_preprocessed_RGB' / 'WMCA').rename(source / 'preprocessed-face-station_RGB')
  shutil.copy(wmca.path_of(source, 'CDIT', VIDEO), source / 'other.hdf5')
  made = plan(source, tmp_path)
  assert not made.findings and len(made.splits['whole']) == 39
  assert '1 HDF5 files in no folder of either half: not read' in made.notes


def test_without_h5py_the_extra_is_named(tree, tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'h5py', None)
  frames._files.clear()
  arguments = ['--dataset=wmca/preprocessed', f'--source={tree}', f'--data_dir={tmp_path}']
  assert prepare.main([*arguments, '--workers=1']) == 2
  assert "pip install 'flexfas_jax[hdf5]'" in capsys.readouterr().err
  assert not list(tmp_path.glob('wmca/preprocessed/*'))


def test_readers_load_little():
  code = 'import flexfas_jax.data.wmca.frames, sys; print(*sys.modules)'
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=_ROOT, capture_output=True, text=True, check=True
  )
  assert not {'h5py', 'tensorflow_datasets', 'jax', 'apache_beam'} & set(done.stdout.split())


def test_a_video_is_opened_once_for_all_its_frames(tree, tmp_path, monkeypatch):
  rows = plan(tree, tmp_path).splits['whole'][:9]
  frames._files.clear()
  opened = collections.Counter()
  real = h5py.File

  def count(path, *args, **kwargs):
    opened[path] += 1
    return real(path, *args, **kwargs)

  monkeypatch.setattr(h5py, 'File', count)
  outcomes = reading.read_all(frames.FrameReader(str(tree)), rows)
  assert not any(outcome.problems for outcome in outcomes)
  assert len(opened) == 2 * len({row.facts['video'] for row in rows}) == 8
  assert set(opened.values()) == {1}


def test_a_file_that_was_mended_is_read_again(source, tmp_path):
  reader = frames.FrameReader(str(source))
  row = plan(source, tmp_path).splits['whole'][0]
  assert not reader(row).problems
  path = source / row.files['rgb'].partition('#')[0]
  whole = path.read_bytes()
  path.write_bytes(whole[:-1000])
  assert reader(row).problems[0][0] == 'unreadable'
  path.write_bytes(whole)
  assert not reader(row).problems


def _write(folder, text, name='PROTOCOL-grandtest.csv'):
  folder.mkdir(exist_ok=True)
  (folder / name).write_text(text, encoding='utf-8')
  return str(folder)


def _protocol(*rows):
  return '\n'.join(['path,label,client_id,group', *rows, ''])


@pytest.mark.parametrize(
  'text, rule, line, words',
  [
    ('path,label\na,0\n', 'row', 1, "no column group; its first row is 'path,label'"),
    ('face-station/x,0,1,train\n', 'row', 1, 'no column path, group, label'),
    (_protocol('d/001_01_000_0_00,0,1,weekend'), 'row', 2, "the group 'weekend' is none of train"),
    (_protocol('d/001_01_000_0_00,1,1,train'), 'label', 2, 'label is attack, and the name means'),
    (_protocol('d/001_01_000_3_01,0,1,train'), 'label', 2, 'label is bona_fide, and the name'),
    (_protocol('d/001_01_000_0_00,live,1,train'), 'label', 2, "the label 'live' is no number"),
    (_protocol('d/001_01_000_2_50,1,1,train'), 'label', 2, 'no type 2 with instrument 50'),
    (_protocol('d/video,1,1,train'), 'label', 2, "'video' is not a WMCA video"),
    (_protocol('d/099_01_000_0_00,0,99,dev'), 'missing-file', 2, '099_01_000_0_00 is in neither'),
    (_protocol(*['d/001_01_000_0_00,0,1,dev'] * 2), 'duplicate', 3, 'in dev and again in dev'),
    (
      _protocol('d/001_01_000_0_00,0,1,dev', 'd/001_01_000_0_00,0,1,eval'),
      'leak-video',
      3,
      'in dev and again in eval',
    ),
    (
      _protocol('d/001_01_000_0_00,0,1,dev', 'd/001_01_000_3_01,1,1,train'),
      'leak-subject',
      3,
      'client 001 is in dev and train of grandtest',
    ),
  ],
)
def test_a_bad_protocol(text, rule, line, words, tree, tmp_path):
  made = plan(tree, tmp_path, lists=_write(tmp_path / 'lists', text))
  ((one),) = made.findings
  assert (one.rule, one.row) == (rule, line)
  assert words in one.text and one.list.endswith('PROTOCOL-grandtest.csv')


def test_protocols_in_any_order_of_columns(tree, tmp_path):
  text = '\ufeffGroup;more;Label;Path\r\nTRAIN;x;0;face-station\\31.01.18\\001_01_000_0_00.hdf5\r\n'
  text += 'validation;x;1;face-station/31.01.18/003_01_000_4_18\r\n'
  made = plan(tree, tmp_path, lists=_write(tmp_path / 'lists', text, 'protocol-GRANDTEST.csv'))
  # On a file system that knows capitals apart, the pattern finds the name that is published.
  if not made.recorded['protocols']:
    made = plan(tree, tmp_path, lists=_write(tmp_path / 'lists', text))
  assert not made.findings
  groups = {row.facts['video'][9:]: row.extra.get('grandtest') for row in made.splits['whole']}
  assert groups['001_01_000_0_00'] == 'train' and groups['003_01_000_4_18'] == 'dev'
  assert set(groups.values()) == {'train', 'dev', None}
  assert '15 of 17 videos are in no protocol' in made.notes
  (missing,) = [note for note in made.notes if 'without its column' in note]
  assert 'PROTOCOL-LOO_prints.csv' in missing and 'grandtest' not in missing


def test_protocols_of_other_names_are_reported(tree, tmp_path):
  folder = _write(tmp_path / 'lists', _protocol(), 'PROTOCOL-grandtest_train.csv')
  made = plan(tree, tmp_path, lists=folder)
  assert 'not read, of another name or there twice: PROTOCOL-grandtest_train.csv' in made.notes
  assert not made.findings and set(made.splits['whole'][0].extra) == {'presenter', 'session'}


def test_of_two_protocols_of_one_name_the_first_is_read(tree, tmp_path):
  first = _write(tmp_path / 'first', _protocol('d/001_01_000_0_00,0,1,dev'))
  second = _write(tmp_path / 'second', _protocol('d/001_01_000_0_00,0,1,train'))
  made = plan(tree, tmp_path, lists=f'{first},{second}')
  assert not made.findings
  groups = {row.facts['video'][9:]: row.extra.get('grandtest') for row in made.splits['whole']}
  assert groups['001_01_000_0_00'] == 'dev'
  assert 'not read, of another name or there twice: PROTOCOL-grandtest.csv' in made.notes


def test_lists_that_are_not_there(tree, tmp_path):
  with pytest.raises(DataError, match='--lists: there is no .*nowhere'):
    plan(tree, tmp_path, lists=str(tmp_path / 'nowhere'))


@pytest.fixture(scope='module')
def export(tmp_path_factory):
  root = tmp_path_factory.mktemp('flexmodal')
  flexmodal.write(root, faults=True, exports=['WMCA-Image'])
  wmca.write_protocols(root / 'Protocols')
  return root


@pytest.mark.parametrize('config', ['flexmodal', 'flexmodal_published'])
def test_the_flexmodal_list(config, export, tmp_path):
  folder = build(export, tmp_path, config)
  examples = read(tmp_path, f'{config}:test')
  named = flexmodal.rows()['WMCA_test.txt']
  assert set(examples) == {path_layouts.parse(row[0]).id for row in named}
  example = examples['wmca/001/001_01_000_2_08/0012']
  assert (
    example['rgb'] == (export / 'WMCA-Image/R_CDIT/001_01_000_2_08/color/0012.jpg').read_bytes()
  )
  assert (example['label'], example['attack_category']) == (0, 'papermask')
  notes = json.loads((folder / 'card.json').read_text())['notes']
  assert any('wmca/100/100_03_015_2_10: 2 triplets lack a modality' in note for note in notes)
  parts = [
    read(tmp_path, f'{config}:test[grandtest={group}]') for group in ('train', 'dev', 'eval')
  ]
  assert sum(map(len, parts)) == len(examples)
  for part in parts:
    assert {example['label'] for example in part.values()} == {0, 1}


def test_a_faulty_protocol_ends_the_flexmodal_build_too(export, tmp_path):
  lists = f'{export / "Protocols" / "WMCA_test.txt"},{_write(tmp_path / "lists", "path,label")}'
  with pytest.raises(DataError, match='no column group'):
    build(export, tmp_path / 'out', 'flexmodal', lists=lists)


def test_halves_that_are_links(source, tmp_path):
  for half in ('RGB', 'CDIT'):
    (source / f'WMCA_preprocessed_{half}').rename(tmp_path / half)
    (source / f'WMCA_preprocessed_{half}').symlink_to(tmp_path / half)
  (tmp_path / 'RGB' / 'all').symlink_to(source)
  made = plan(source, tmp_path)
  assert not made.findings and len(made.splits['whole']) == 39
