"""What is missing, half built or damaged is found when a source is opened, and named."""

import hashlib
import json
import os
import pathlib
import pickle
import shutil

import pytest
from array_record.python import array_record_data_source, array_record_module
from tensorflow_datasets.proto import tf_example_pb2

from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.input_pipeline import sources

NAME = 'rendered_faces/surf_like_tiny:val'


@pytest.fixture
def copy(prepared, tmp_path):
  """A data_dir of one set that a test may break; its version's folder."""
  shutil.copytree(f'{prepared}/rendered_faces/surf_like_tiny', tmp_path / NAME.partition(':')[0])
  return next((tmp_path / NAME.partition(':')[0]).iterdir())


def data_dir(copy):
  return str(copy.parents[2])


def the_shard(copy):
  return next(copy.glob('*val*array_record*'))


def test_a_prepared_set_opens_without_its_builder(prepared):
  source = sources.open_source(f'{NAME},rendered_faces/cefa_like_tiny:val', prepared)
  first, last = source[0], source[len(source) - 1]
  assert first['dataset'] == 'surf_like'
  assert last['dataset'] == 'cefa_like'
  assert isinstance(first['rgb'], bytes)
  assert isinstance(first['id'], str)
  assert len({source[i]['id'] for i in range(len(source))}) == len(source)
  assert pickle.loads(pickle.dumps(source))[3]['id'] == source[3]['id']


def test_an_earlier_version_is_not_read_in_the_place_of_todays(copy):
  """A folder of data may be older than the code."""
  copy.rename(copy.with_name('1.0.0'))
  message = (
    r'surf_like_tiny/1.0.0 is version 1.0.0, but rendered_faces/surf_like_tiny is version 2.0.0 '
    r'today. For .*prepare --dataset=rendered_faces/surf_like_tiny.*name rendered_faces/v1_surf'
  )
  for read in (sources.open_source, sources.is_prepared):
    with pytest.raises(DataError, match=message):
      read(NAME, data_dir(copy))


def test_the_embedded_set_is_prepared_by_itself(tmp_path):
  assert len(sources.open_source(NAME, str(tmp_path))) > 0


@pytest.mark.parametrize('harm', ['cut', 'flip', 'empty'])
def test_a_damaged_shard(copy, harm):
  shard = the_shard(copy)
  content = bytearray(shard.read_bytes())
  if harm == 'flip':
    content[len(content) // 2] ^= 1
  shard.write_bytes({'cut': content[: len(content) // 2], 'flip': content, 'empty': b''}[harm])
  with pytest.raises(DataError, match=rf'{shard.name}.*prepare --dataset=rendered_faces/surf_l'):
    sources.open_source(NAME, data_dir(copy))


def records_of(shard):
  with array_record_data_source.ArrayRecordDataSource(str(shard)) as records:
    return list(records.__getitems__(range(len(records))))


def write_records(shard, records):
  """A whole shard with right check sums."""
  writer = array_record_module.ArrayRecordWriter(str(shard), 'group_size:1')
  for record in records:
    writer.write(record)
  writer.close()


def with_field(record, name, value):
  example = tf_example_pb2.Example.FromString(record)
  kept = example.features.feature[name]
  (kept.int64_list if isinstance(value, int) else kept.bytes_list).value[:] = [value]
  return example.SerializeToString()


def test_a_shard_that_is_written_again_is_the_same_set(copy):
  before = sources.open_source(NAME, data_dir(copy))
  write_records(the_shard(copy), records_of(the_shard(copy)))
  after = sources.open_source(NAME, data_dir(copy))
  assert [after[i] for i in range(len(after))] == [before[i] for i in range(len(before))]


@pytest.mark.parametrize(
  'change,said',
  [
    (lambda r: [r[1], r[0], *r[2:]], 'another id'),
    (lambda r: [r[0], r[0], *r[2:]], 'another id'),
    (lambda r: [with_field(r[0], 'label', 2), *r[1:]], 'another label'),
    (lambda r: [with_field(r[0], 'label', -1), *r[1:]], 'another label'),
    (lambda r: [*r[:3], with_field(r[3], 'subject', b'surf_like/s9'), *r[4:]], 'another subject'),
    (lambda r: [*r[:-1], with_field(r[-1], 'depth', b'')], 'another depth'),
    (lambda r: [*r[:-1], with_field(r[-1], 'ir', b'\xff\xd8\xff')], 'another ir'),
    (lambda r: [b'', *r[1:]], 'another id'),
    (lambda r: [b'\xff', *r[1:]], 'Error parsing message'),
  ],
)
def test_a_whole_shard_of_other_records(copy, change, said):
  """ArrayRecord's check sums are right; training would go by the pixels, scores by the manifest."""
  shard = the_shard(copy)
  write_records(shard, change(records_of(shard)))
  with pytest.raises(DataError, match=rf'{shard.name} is damaged.*{said}.*prepare --dataset='):
    sources.open_source(NAME, data_dir(copy))


def test_another_label_in_a_record(copy):
  shard = the_shard(copy)
  first, *others = records_of(shard)
  source = sources.open_source(NAME, data_dir(copy))
  write_records(shard, [with_field(first, 'label', 1 - source[0]['label']), *others])
  with pytest.raises(DataError, match=f'{shard.name} is damaged .its record of .* another label'):
    sources.open_source(NAME, data_dir(copy))


def test_shards_of_another_split(copy):
  """Val and test have as many records here."""
  val, test = the_shard(copy), next(copy.glob('*test*array_record*'))
  shutil.copy(test, val)
  with pytest.raises(DataError, match=f'{val.name} is damaged .its record of .* another id'):
    sources.open_source(NAME, data_dir(copy))


def test_a_missing_shard(copy):
  the_shard(copy).unlink()
  with pytest.raises(DataError, match='the shard .* is missing'):
    sources.open_source(NAME, data_dir(copy))


@pytest.mark.parametrize('harm', ['deleted', 'cut', 'cut while it is read'])
def test_a_shard_that_vanishes_after_it_was_opened(copy, harm):
  """ArrayRecord's reader returns empty records where an open file has become shorter."""
  source = pickle.loads(pickle.dumps(sources.open_source(NAME, data_dir(copy))))  # no open file
  shard = the_shard(copy)
  assert source.shard(0) == source.shard(len(source) - 1) == str(shard)
  if harm == 'deleted':
    shard.unlink()
  else:
    assert harm == 'cut' or source[0]['id']
    os.truncate(shard, shard.stat().st_size // 2)
  with pytest.raises(DataError, match=f'^{shard} cannot be read any more .*rerun the same command'):
    source[len(source) - 1]


@pytest.mark.parametrize('file', ['dataset_info.json', 'features.json'])
def test_a_half_built_set(copy, file):
  (copy / file).unlink()
  with pytest.raises(DataError, match=f'incomplete .{file} is missing'):
    sources.open_source(NAME, data_dir(copy))


def test_a_damaged_description(copy):
  (copy / 'dataset_info.json').write_text('{')
  with pytest.raises(DataError, match='cannot be read'):
    sources.open_source(NAME, data_dir(copy))


@pytest.mark.parametrize(
  'file,old,new',
  [
    ('features.json', '"dtype": "int32"', '"dtype": "int64"'),
    ('features.json', '"frame"', '"frames"'),
    ('features.json', 'scalar.Scalar', 'image_feature.Image'),
    ('dataset_info.json', '"array_record"', '"riegeli"'),
    ('dataset_info.json', '"36"', '"-36"'),
    ('dataset_info.json', '"36"', '"35"'),
    ('dataset_info.json', '{SPLIT}', '{split}'),
    ('dataset_info.json', '"splits": [', '"splits": [1, '),
    ('card.json', '"manifest_sha256"', '"manifest"'),
    ('card.json', '"manifest_sha256": "', '"manifest_sha256": "0'),
    ('card.json', '{', '[' * 100_000),
  ],
)
def test_a_description_of_another_set(copy, file, old, new):
  text = (copy / file).read_text()
  assert old in text
  (copy / file).write_text(text.replace(old, new))
  with pytest.raises(DataError, match=f'{copy}.*prepare --dataset=rendered_faces/surf_like_tiny'):
    sources.open_source(NAME, data_dir(copy))


@pytest.mark.parametrize('recorded', [True, False], ids=['new digest', 'old digest'])
def test_a_manifest_with_another_cell(copy, recorded):
  """What a record holds is compared with the record, the rest by the digest on the card."""
  manifest, card = copy / 'manifest.csv', copy / 'card.json'
  before = card.read_text()
  old = hashlib.sha256(manifest.read_bytes()).hexdigest()
  text = manifest.read_text()
  place = text.index(',val,bona_fide,')
  manifest.write_text(f'{text[:place]},val,attack,{text[place + len(",val,bona_fide,") :]}')
  if recorded:
    new = hashlib.sha256(manifest.read_bytes()).hexdigest()
    card.write_text(before.replace(old, new))
  said = 'another label' if recorded else 'manifest.csv is damaged: .* card.json'
  with pytest.raises(DataError, match=said):
    sources.open_source(NAME, data_dir(copy))


@pytest.mark.parametrize('harm', ['a row', 'a column', 'half a row'])
def test_a_manifest_that_is_not_of_the_set(copy, harm):
  manifest = copy / 'manifest.csv'
  lines = manifest.read_text().splitlines()
  lines = {
    'a row': [line for line in lines if ',val,' not in line] + lines[-1:],
    'a column': [lines[0].replace('subject', 'person'), *lines[1:]],
    'half a row': [*lines[:-1], lines[-1].partition(',')[0]],
  }[harm]
  manifest.write_text('\n'.join(lines) + '\n')
  with pytest.raises(DataError, match='manifest.csv .*prepare --dataset=rendered_faces/surf_like'):
    sources.open_source(NAME, data_dir(copy))


def test_a_set_without_a_manifest_is_read_through(copy):
  """As sets were prepared before there were manifests."""
  whole = sources.open_source(NAME, data_dir(copy)).columns
  (copy / 'manifest.csv').unlink()
  assert sources.open_source(NAME, data_dir(copy)).columns == whole


def test_an_empty_split(copy):
  info = copy / 'dataset_info.json'
  found = json.loads(info.read_text())
  for split in found['splits']:
    split['shardLengths'] = ['0'] * len(split['shardLengths'])
  info.write_text(json.dumps(found))
  with pytest.raises(DataError, match='the split is empty'):
    sources.open_source(NAME, data_dir(copy))


def test_an_interrupted_build_is_no_set(copy):
  """What TFDS leaves of one: a folder of another name."""
  copy.rename(copy.with_name('incomplete.ABC_1.0.0'))
  source = sources.open_source(NAME, data_dir(copy))  # built again
  assert len(source) > 0


@pytest.mark.parametrize(
  'name,error,said',
  [
    ('rendered_faces/surf_like_tiny:nope', DataError, "no split 'nope' .* test, train, val"),
    ('rendered_faces/surf_like_tiny', ConfigError, 'names no split; write set/config:split'),
    ('celeb_a/x:train', ConfigError, "no builder is called 'celeb_a'; there are: .*rendered_faces"),
    ('', ConfigError, 'no data set is named'),
  ],
)
def test_names_that_mean_nothing(prepared, name, error, said):
  with pytest.raises(error, match=said):
    sources.open_source(name, prepared)


def test_every_builder_is_found():
  root = pathlib.Path(__file__).parents[2] / 'data'
  assert set(sources.builders()) == {p.parent.name for p in root.glob('*/*_dataset_builder.py')}
