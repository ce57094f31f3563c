"""What is missing, half built or damaged is found when a source is opened, and named."""

import json
import pathlib
import pickle
import shutil

import pytest

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


def test_a_missing_shard(copy):
  the_shard(copy).unlink()
  with pytest.raises(DataError, match='the shard .* is missing'):
    sources.open_source(NAME, data_dir(copy))


@pytest.mark.parametrize('file', ['dataset_info.json', 'features.json'])
def test_a_half_built_set(copy, file):
  (copy / file).unlink()
  with pytest.raises(DataError, match=f'half built .{file} is missing'):
    sources.open_source(NAME, data_dir(copy))


def test_a_damaged_description(copy):
  (copy / 'dataset_info.json').write_text('{')
  with pytest.raises(DataError, match='cannot be read'):
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
  source = sources.open_source(NAME, data_dir(copy))  # built anew
  assert len(source) > 0


@pytest.mark.parametrize(
  'name,error,said',
  [
    ('rendered_faces/surf_like_tiny:nope', DataError, "no split 'nope' .* test, train, val"),
    ('rendered_faces/surf_like_tiny', ConfigError, 'names no split; write set/config:split'),
    ('celeb_a/x:train', ConfigError, "no builder called 'celeb_a'; it has: .*rendered_faces"),
    ('', ConfigError, 'no data set is named'),
  ],
)
def test_names_that_mean_nothing(prepared, name, error, said):
  with pytest.raises(error, match=said):
    sources.open_source(name, prepared)


def test_every_builder_is_found():
  root = pathlib.Path(__file__).parents[2] / 'data'
  assert set(sources.builders()) == {p.parent.name for p in root.glob('*/*_dataset_builder.py')}
