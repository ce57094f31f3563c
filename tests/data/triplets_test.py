"""The one format of all data sets: features, checks, progress, and what an interruption leaves."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.proto import tf_example_pb2

from flexfas_jax.data import features, triplets
from flexfas_jax.errors import DataError

_LIVE = {
  'id': 'set/1',
  'rgb': b'one',
  'label': 'bona_fide',
  'subject': 'set/s',
  'video': 'set/s/v',
  'frame': 0,
  'dataset': 'set',
}
_ATTACK = _LIVE | {'label': 'attack', 'attack_type': 'paper', 'attack_category': 'print'}


class Small(triplets.TripletBuilder):
  """Two examples; without a README beside it, so it brings its own description."""

  VERSION = tfds.core.Version('1.0.0')
  closed = 0
  stop_at = None

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self, features=features.features_dict(), description='x', disable_shuffling=True
    )

  def _splits(self, dl_manager):
    def read():
      try:
        for k in range(20):
          if k == self.stop_at:
            raise KeyboardInterrupt
          yield k, (_LIVE if k % 2 else _ATTACK) | {'id': f'set/{k}', 'depth': bytes([0, 255, k])}
      finally:
        type(self).closed += 1

    return {'train': (20, read()), 'test': (None, read())}


def test_features_are_the_contract():
  assert list(features.features_dict()) == [
    'id', 'rgb', 'depth', 'ir', 'label', 'attack_type', 'attack_category', 'subject', 'video',
    'frame', 'dataset', 'ethnicity',
  ]  # fmt: skip
  assert features.features_dict()['label'].names == ['attack', 'bona_fide']


def test_an_example_is_completed():
  full = features.check(_LIVE)
  assert full['depth'] == b'' and full['ir'] == b'' and full['rgb'] == b'one'
  assert full['attack_type'] == full['attack_category'] == full['ethnicity'] == ''


@pytest.mark.parametrize(
  'change, words',
  [
    ({'label': 1}, 'label is 1'),
    ({'label': 'real'}, "label is 'real'"),
    ({'attack_category': 'print'}, 'bona fide and yet an attack'),
    ({'label': 'attack'}, "category is ''"),
    ({'label': 'attack', 'attack_category': 'hologram'}, 'one of print, replay'),
    ({'rgb': np.zeros(3)}, 'rgb is ndarray'),
    ({'rgb': b''}, 'no image at all'),
    ({'subject': 's1'}, "subject 's1'"),
    ({'colour': 1}, 'colour'),
    ({'frame': 2**31}, 'frame is 2147483648'),
  ],
)
def test_a_wrong_example_is_refused(change, words):
  with pytest.raises(DataError, match='set/1') as caught:
    features.check(_LIVE | change)
  assert words in str(caught.value)


def test_bytes_survive_and_progress_is_plain(tmp_path, capsys):
  builder = Small(data_dir=tmp_path, file_format='array_record')
  builder.download_and_prepare()
  err = capsys.readouterr().err
  assert 'small train 20/20  0 s left\n' in err and 'small test 20\n' in err
  assert '\r' not in err and '\x1b' not in err
  rows = list(tfds.data_source('small', data_dir=tmp_path, split='train'))
  assert len(rows) == 20
  assert rows[3]['rgb'] == b'one' and rows[3]['depth'] == b'\x00\xff\x03' and rows[3]['ir'] == b''
  assert rows[3]['label'] == 1 and rows[2]['label'] == 0


@pytest.mark.parametrize(
  'example', [_LIVE, _ATTACK, _LIVE | {'frame': 2**31 - 1, 'ethnicity': 'é', 'ir': bytes(999)}]
)
def test_a_record_is_what_tfds_stores(example):
  full = features.check(example)
  record = triplets.record_of(full)
  declared = features.features_dict()
  tfds_record = ExampleSerializer(declared.get_serialized_info()).serialize_example(
    declared.encode_example(full)
  )
  parsed = tf_example_pb2.Example.FromString(record)
  assert parsed == tf_example_pb2.Example.FromString(tfds_record)
  assert parsed.SerializeToString(deterministic=True) == record
  assert declared.deserialize_example_np(record)['frame'] == example['frame']


def test_a_record_that_the_disk_changes_or_loses_ends_the_build(tmp_path, monkeypatch):
  builder = Small(data_dir=tmp_path, file_format='array_record')
  finish, after = Small._finish, {}

  def replace(self):
    (path,) = (p for p in tmp_path.rglob('*train*') if 'array_record-' in p.name)
    with ArrayRecordDataSource(str(path)) as stored:
      records = stored.__getitems__(range(20))
    writer = ArrayRecordWriter(str(path), 'group_size:1')
    for record in after['change'](records):
      writer.write(record)
    writer.close()
    finish(self)

  monkeypatch.setattr(Small, '_finish', replace)
  changes = {
    'record 7 is not what was written': lambda r: [*r[:7], r[7].replace(b'one', b'0ne'), *r[8:]],
    'record 1 is not what was written': lambda r: [r[0], r[0], *r[2:]],
    '1 records of train are missing': lambda r: r[1:],
  }
  for words, after['change'] in changes.items():
    with pytest.raises(DataError, match=words):
      builder.download_and_prepare()
    assert not (tmp_path / 'small').exists() or not any((tmp_path / 'small').iterdir())
  after['change'] = lambda r: r
  builder.download_and_prepare()
  assert len((builder.data_path / 'manifest.csv').read_text().splitlines()) == 41


def test_two_builds_have_the_same_bytes(tmp_path):
  found = []
  for name in 'ab':
    builder = Small(data_dir=tmp_path / name, file_format='array_record')
    builder.download_and_prepare()
    found.append({p.name: p.read_bytes() for p in builder.data_path.iterdir()})
  assert found[0] == found[1] and len(found[0]) > 5


@pytest.mark.parametrize('place', ['in the source', 'in the check', 'in the writer'])
def test_an_interruption_leaves_nothing(place, tmp_path, monkeypatch):
  def interrupt(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(Small, 'closed', 0)
  if place == 'in the source':
    monkeypatch.setattr(Small, 'stop_at', 7)
  elif place == 'in the check':
    monkeypatch.setattr(features, 'check', interrupt)
  else:
    monkeypatch.setattr('tensorflow_datasets.core.writer.Writer.write', interrupt)
  builder = Small(data_dir=tmp_path, file_format='array_record')
  # The traceback keeps the generators alive: they end because they are closed.
  with pytest.raises(KeyboardInterrupt) as caught:
    builder.download_and_prepare()
  assert Small.closed == 1, caught  # the second split was never begun
  assert not [path for path in tmp_path.rglob('*') if path.is_file() and 'small' in path.parts]
  assert not builder.is_prepared()
