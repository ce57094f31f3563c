"""PADISI-Face from its npz files and tables, and what can be wrong with either."""

import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from flexfas_jax import prepare
from flexfas_jax.data.padisi import padisi_dataset_builder, samples
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.images.worker_pool import Workers
from flexfas_jax.input_pipeline import sources
from tests.miniatures import padisi

_ROOT = pathlib.Path(__file__).parents[2]
SAMPLE = padisi.SAMPLES[1]  # m50101 of participant 0
TRUTH = 'padisi_USC_FACE_ground_truth.csv'
FOLD = 'padisi_USC_FACE_dataset_partition_3folds_part1.csv'


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
  """The release, which no test changes."""
  root = tmp_path_factory.mktemp('padisi')
  padisi.write(root)
  return root


@pytest.fixture
def source(tree, tmp_path):
  """A copy that a test may harm."""
  return pathlib.Path(shutil.copytree(tree, tmp_path / 'source'))


def build(source, data_dir, **settings):
  return sources.prepare('padisi/face', data_dir, source=str(source), workers=1, **settings)


def read(data_dir, which='whole'):
  source = sources.open_source(f'padisi/face:{which}', str(data_dir))
  return {source[i]['id']: source[i] for i in range(len(source))}


def plan(source, tmp_path, **settings):
  builder = padisi_dataset_builder.Builder(
    config='face',
    source=str(source),
    data_dir=tmp_path / 'prepared',
    file_format='array_record',
    **settings,
  )
  with Workers(1) as builder._pool:
    return builder.plan()


def row_of(made, sample):
  return next(row for row in made.splits['whole'] if sample.name in row.facts['id'])


def edit(source, name, change):
  """Writes a table again, of what `change` makes of its rows (the first has the names)."""
  path = source / 'face_partitions' / name
  with open(path, encoding='utf-8', newline='') as file:
    rows = list(csv.reader(file))
  padisi.write_table(path, change(rows))


def npz(source, sample=SAMPLE):
  return source / 'padisi_face' / f'{sample.name}.npz'


def test_every_sample(tree, tmp_path):
  folder = build(tree, tmp_path)
  examples = read(tmp_path)
  assert len(examples) == 13
  for sample in padisi.SAMPLES:
    example = examples[f'padisi/{sample.name}/0']
    data = np.rint(padisi.array(sample)[0] * 255.0)
    rgb = image_checks.decode(example['rgb'])
    np.testing.assert_array_equal(rgb, np.stack([data[2], data[1], data[0]], 2))
    np.testing.assert_array_equal(image_checks.decode(example['ir']), data[3])
    np.testing.assert_array_equal(image_checks.decode(example['depth']), data[4])
    attack = sample.code != 'm00000'
    assert example['label'] == (not attack)
    assert example['attack_type'] == (sample.code[:4] if attack else '')
    makeup = sample.code.startswith('m506')
    assert example['attack_category'] == ('makeup' if makeup else 'other' if attack else '')
    assert example['subject'] == f'padisi/p{sample.participant}'
    assert (example['video'], example['frame']) == (f'padisi/{sample.name}', 0)
    assert (example['dataset'], example['ethnicity']) == ('padisi', 'A')
  card = json.loads((folder / 'card.json').read_text())
  (note,) = card['notes']
  assert 'm501 (2), m502 (1), m503 (1), m509 (1)' in note and '--option codes=FILE' in note
  assert set(card['lists']) >= {TRUTH, FOLD}
  for fold in range(3):
    for part, said in (('train', 'train'), ('val', 'valid'), ('test', 'test')):
      some = read(tmp_path, f'whole[part{fold}={part}]')
      wanted = [one for one in padisi.SAMPLES if padisi.part_of(one, fold) == said]
      assert set(some) == {f'padisi/{one.name}/0' for one in wanted}
  assert len(read(tmp_path, 'whole[pai=m50602]')) == 1


def test_options(tree, tmp_path):
  codes = tmp_path / 'codes.csv'
  codes.write_text('Code,Category\nm501,print\nM50102,papermask\nm506,other\nm509,glasses\n')
  options = {'codes': str(codes), 'subject': 'transaction_id'}
  made = plan(tree, tmp_path, options=options)
  categories = {one.code: row_of(made, one).facts['attack_category'] for one in padisi.SAMPLES}
  assert categories == {
    'm00000': '',
    'm50101': 'print',
    'm50102': 'papermask',  # the one goes before its kind
    'm50203': 'other',
    'm50301': 'other',
    'm50601': 'other',
    'm50602': 'other',
    'm50901': 'glasses',
  }
  assert len({row.facts['subject'] for row in made.splits['whole']}) == 7
  subject = row_of(made, SAMPLE).facts['subject']
  assert subject == f'padisi/{SAMPLE.cells[0]}'


@pytest.mark.parametrize('rounding, of', [('round', np.rint), ('ceil', np.ceil)])
@pytest.mark.parametrize('bits', [8, 16])
def test_rounding(rounding, of, bits, source, tmp_path):
  data = padisi.array(SAMPLE)
  data[0, 4] = np.linspace(0, 1, data[0, 4].size, dtype=np.float32).reshape(data[0, 4].shape)
  np.savez(npz(source), data=data)
  reader = samples.SampleReader(str(source), rounding=rounding, depth_bits=bits)
  images = reader(row_of(plan(source, tmp_path), SAMPLE)).images
  depth = image_checks.decode(images['depth'])
  assert depth.dtype == (np.uint16 if bits == 16 else np.uint8)
  np.testing.assert_array_equal(depth, of(data[0, 4].astype(np.float64) * (2**bits - 1)))
  rgb = image_checks.decode(images['rgb'])
  np.testing.assert_array_equal(rgb[..., 2], of(data[0, 0].astype(np.float64) * 255))


def test_sixteen_bits_of_depth_are_built(tmp_path):
  padisi.write(tmp_path / 'source', padisi.SAMPLES[:3])
  folder = build(tmp_path / 'source', tmp_path, options={'depth_bits': '16'})
  card = json.loads((folder / 'card.json').read_text())
  assert card['images']['depth']['bits'] == {'16': 3}
  assert card['images']['ir']['bits'] == {'8': 3}


@pytest.mark.parametrize(
  'options, words',
  [
    ({'rounding': 'floor'}, 'rounding=floor: round or ceil'),
    ({'depth_bits': '12'}, 'depth_bits=12: 8 or 16'),
    ({'subject': 'name'}, 'subject=name: participant_id or transaction_id'),
    ({'codes': 'nowhere.csv'}, 'codes=nowhere.csv: there is no such file'),
    ({'code': 'x'}, "no option 'code'"),
  ],
)
def test_wrong_options(options, words, tree, tmp_path):
  with pytest.raises(ConfigError) as caught:
    plan(tree, tmp_path, options=options)
  assert words in str(caught.value)


@pytest.mark.parametrize(
  'text, words',
  [
    ('code,category\nm501,poster\n', 'line 2 has m501, poster'),
    ('code,category\n501,print\n', 'line 2 has 501, print'),
    ('code,kind\nm501,print\n', 'no column category'),
    ('', 'first row must name the columns'),
  ],
)
def test_wrong_codes(text, words, tree, tmp_path):
  (tmp_path / 'codes.csv').write_text(text)
  with pytest.raises(ConfigError) as caught:
    plan(tree, tmp_path, options={'codes': str(tmp_path / 'codes.csv')})
  assert words in str(caught.value) and 'codes.csv' in str(caught.value)


class _Trap:
  """Unpickled, it would leave a file behind."""

  def __reduce__(self):
    return pathlib.Path.touch, (pathlib.Path('unpickled'),)


def _save(**arrays):
  return lambda path: np.savez(path, **arrays)


def _value(x, channel):
  def harm(path):
    data = padisi.array(SAMPLE)
    data[0, channel, 7, 7] = x
    np.savez(path, data=data)

  return harm


def _truncated(path):
  path.write_bytes(path.read_bytes()[:-100])


def _pipe(path):
  path.unlink()
  os.mkfifo(path)


def _damaged(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 255
  path.write_bytes(content)


def _lying(path):
  """A header that claims what no memory holds, before a few bytes."""
  header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 22, 3200000, 2560000), }"
  header += b' ' * (-(len(header) + 11) % 64) + b'\n'
  with zipfile.ZipFile(path, 'w') as archive:
    start = b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little')
    archive.writestr('data.npy', start + header + bytes(64))


def _cut_short(path):
  """A header that is right, before too few values."""
  header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 22, 320, 256), }\n"
  with zipfile.ZipFile(path, 'w') as archive:
    start = b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little')
    archive.writestr('data.npy', start + header + bytes(64))


def _new_version(path):
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('data.npy', b'\x93NUMPY\x03\x00' + bytes(64))


@pytest.mark.parametrize(
  'harm, rule, words',
  [
    (_truncated, 'unreadable', 'is not a whole npz file'),
    (_damaged, 'unreadable', 'is not a whole npz file'),
    (lambda path: path.write_bytes(b''), 'unreadable', 'is not a whole npz file'),
    (lambda path: path.write_text('<html>log in</html>'), 'unreadable', 'not a whole npz file'),
    (lambda path: path.write_bytes(b'\x93NUMPY' * 99), 'unreadable', 'not a whole npz file'),
    (_cut_short, 'unreadable', 'is not a whole npz file'),
    (_pipe, 'unreadable', 'it is a named pipe, not a regular file'),
    (
      _save(image=np.zeros(3), more=np.ones(1)),
      'unreadable',
      "no array 'data'; it has image, more",
    ),
    (_save(data=np.array([_Trap()])), 'unreadable', 'holds Python objects'),
    (_save(data=np.zeros(samples.SHAPE, np.uint8)), 'unreadable', 'is uint8, and floats are due'),
    (_save(data=np.zeros((22, 320, 256), 'f4')), 'unreadable', 'has the shape (22, 320, 256)'),
    (_save(data=np.zeros((1, 3, 320, 256), 'f4')), 'unreadable', '(1, 22, 320, 256) is due'),
    (_lying, 'unreadable', 'has the shape (1, 22, 3200000, 2560000)'),
    (_new_version, 'unreadable', 'npy version (3, 0)'),
    (_value(np.nan, 3), 'range', 'ir has 1 values that are not of 0 to 1, the first nan'),
    (_value(1.5, 0), 'range', 'rgb has 1 values that are not of 0 to 1, the first 1.5'),
    (_value(-0.25, 4), 'range', 'depth has 1 values that are not of 0 to 1, the first -0.25'),
    (_value(np.inf, 4), 'range', 'the first inf'),
    (lambda path: path.unlink(), 'missing-file', 'padisi_face/ID_'),
  ],
)
def test_a_bad_file_is_found_by_its_reader(harm, rule, words, source, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  row = row_of(plan(source, tmp_path), SAMPLE)
  harm(npz(source))
  problems = samples.SampleReader(str(source))(row).problems
  assert {found for found, _ in problems} == {rule}
  assert words in problems[0][1] and f'{SAMPLE.name}.npz' in problems[0][1]
  assert not pathlib.Path('unpickled').exists()


def test_channels_that_are_not_stored_may_be_anything(source, tmp_path):
  _value(np.nan, 5)(npz(source))
  outcome = samples.SampleReader(str(source))(row_of(plan(source, tmp_path), SAMPLE))
  assert not outcome.problems and len(outcome.images) == 3


def _set(line, column, value):
  def change(rows):
    rows[line - 1][rows[0].index(column)] = value
    return rows

  return change


def _with_labels(*labels):
  return lambda rows: [[*row, label] for row, label in zip(rows, ('label', *labels), strict=True)]


_LABELS = [str(one.code != 'm00000') for one in padisi.SAMPLES]


@pytest.mark.parametrize(
  'name, change, rule, line, words',
  [
    (TRUTH, _set(1, 'ground_truth', 'truth'), 'row', 1, 'no column ground_truth; its first row is'),
    (TRUTH, _set(1, 'participant_id', 'who'), 'row', 1, 'no column participant_id'),
    (TRUTH, _set(3, 'ground_truth', 'n50101'), 'label', 3, "the code 'n50101' is neither m00000"),
    (TRUTH, _set(3, 'ground_truth', ''), 'label', 3, "the code '' is neither"),
    (TRUTH, _set(3, 'trial_name', 'OTHER'), 'missing-file', 3, '_OTHER.npz'),
    (TRUTH, lambda rows: [*rows, rows[2]], 'duplicate', 15, f'{SAMPLE.name} is in line 3 too'),
    (TRUTH, lambda rows: rows[:2] + rows[3:], 'label', 0, f'{SAMPLE.name}.npz is in no row'),
    (TRUTH, _with_labels('True', *_LABELS[1:]), 'label', 2, 'label is True, and m00000 is bona_'),
    (TRUTH, _with_labels('maybe', *_LABELS[1:]), 'label', 2, 'label is maybe'),
    (FOLD, _set(1, 'partition_name', 'part'), 'row', 1, 'no column partition_name'),
    (FOLD, _set(3, 'partition_name', 'spare'), 'row', 3, "'spare' is none of train, valid, test"),
    (FOLD, lambda rows: [*rows, rows[2]], 'duplicate', 15, 'is in train and again in train'),
    (
      FOLD,
      lambda rows: [*rows, [*rows[2][:3], 'valid']],
      'leak-file',
      15,
      'is in train and again in val',
    ),
  ],
)
def test_a_bad_table(name, change, rule, line, words, source, tmp_path):
  edit(source, name, change)
  one = plan(source, tmp_path).findings[0]
  assert (one.rule, one.row) == (rule, line)
  assert words in one.text and one.list.endswith(name)


def test_labels_that_agree_and_short_codes(source, tmp_path):
  edit(source, TRUTH, _with_labels(*_LABELS))
  edit(source, TRUTH, _set(3, 'ground_truth', 'M501'))
  made = plan(source, tmp_path)
  assert not made.findings
  assert row_of(made, SAMPLE).facts['attack_type'] == row_of(made, SAMPLE).extra['pai'] == 'm501'


def test_what_the_card_should_say_of_folds(source, tmp_path):
  tables = source / 'face_partitions'
  (tables / FOLD).rename(tables / FOLD.replace('part1', 'other'))
  edit(source, FOLD.replace('part1', 'part0'), lambda rows: rows[:-1])
  edit(source, FOLD.replace('part1', 'part2'), _set(3, 'partition_name', 'train'))
  made = plan(source, tmp_path)
  assert not made.findings
  notes = '\n'.join(made.notes)
  assert 'no file of the folds part1' in notes
  assert f'part0: 1 samples are not in it: {padisi.SAMPLES[-1].name}' in notes
  assert 'part2: 1 subjects are in two parts of it: p0' in notes
  assert set(row_of(made, SAMPLE).extra) == {'pai', 'part0', 'part2'}


def test_of_two_files_of_a_fold_the_first_is_read(source, tmp_path):
  again = source / 'z' / FOLD
  again.parent.mkdir()
  again.write_text('transaction_id,trial_id,trial_name,partition_name\n')
  made = plan(source, tmp_path)
  assert not made.findings and row_of(made, SAMPLE).extra['part1'] == 'train'
  assert any(f'{again}: not read' in note for note in made.notes)


def test_tables_may_be_elsewhere_and_fingers_are_passed_over(source, tmp_path):
  (source / 'face_partitions').rename(tmp_path / 'lists')
  (tmp_path / 'lists' / TRUTH.replace('FACE', 'FINGER')).write_text('x\n')
  (tmp_path / 'lists' / FOLD.replace('FACE', 'FINGER')).write_text('x\n')
  made = plan(source, tmp_path, lists=str(tmp_path / 'lists'))
  assert not made.findings and len(made.splits['whole']) == 13
  with pytest.raises(DataError, match='0 tables of ground truth'):
    plan(source, tmp_path)


@pytest.mark.parametrize(
  'harm, words',
  [
    (lambda s: shutil.rmtree(s / 'padisi_face'), ['found: 0 npz files, 1 tables']),
    (
      lambda s: (s / 'padisi_face').rename(s.parent / 'x') and (s / 'all.bz2').touch(),
      ['0 npz files', 'is a pickle with colour alone: it is not read'],
    ),
    (
      lambda s: shutil.copy(s / 'face_partitions' / TRUTH, s / f'copy_{TRUTH}'),
      ['2 tables of ground truth', f'copy_{TRUTH}'],
    ),
  ],
)
def test_another_layout_is_refused_with_the_expected_one(harm, words, source, tmp_path):
  harm(source)
  with pytest.raises(DataError) as caught:
    plan(source, tmp_path)
  for text in ('ID_<transaction>_<trial>_<name>.npz', *words):
    assert text in str(caught.value)


def test_all_that_is_wrong_is_reported_at_once_or_left_out(source, tmp_path, capsys):
  _truncated(npz(source))
  _value(np.nan, 3)(npz(source, padisi.SAMPLES[4]))
  edit(source, TRUTH, _set(8, 'ground_truth', 'x'))
  out = tmp_path / 'out'
  arguments = ['--dataset=padisi/face', f'--source={source}', f'--data_dir={out}', '--workers=1']
  assert prepare.main(arguments) == 3
  text = capsys.readouterr().err
  for words in ('3 errors', 'whole npz', 'the first nan', "code 'x'", '--on_bad=skip'):
    assert words in text
  left = [path.name for path in out.rglob('*') if path.is_file()]
  assert sorted(left) == ['metadata.json', 'padisi-face.bad_files.csv']
  assert prepare.main([*arguments, '--on_bad=skip']) == 0
  assert len(read(out)) == 10
  with open(out / 'padisi/face/1.0.0/bad_files.csv', encoding='utf-8', newline='') as file:
    assert [row['rule'] for row in csv.DictReader(file)] == ['label', 'unreadable', 'range']


def test_readers_load_little():
  code = 'import flexfas_jax.data.padisi.samples, sys; print(*sys.modules)'
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=_ROOT, capture_output=True, text=True, check=True
  )
  assert not {'tensorflow_datasets', 'jax', 'apache_beam'} & set(done.stdout.split())


def test_folders_that_are_links(source, tmp_path):
  for name in ('padisi_face', 'face_partitions'):
    (source / name).rename(tmp_path / name)
    (source / name).symlink_to(tmp_path / name)
  made = plan(source, tmp_path)
  assert not made.findings and len(made.splits['whole']) == len(padisi.SAMPLES)
