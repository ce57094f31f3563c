"""What a workdir must not resume with: other data. What it resumes with: damaged files."""

import json
import pathlib
import shutil

import jax
import pytest
from ml_collections import ConfigDict

from flexfas_jax.errors import StateError
from flexfas_jax.export import trained_model
from flexfas_jax.training import (
  data_record,
  lock,
  loop,
  metric_writer,
  run_config,
  setup,
  subjects,
  workdir,
)
from tests.input_pipeline.sources_test import records_of, with_field, write_records
from tests.small_job import write_config

SET = 'rendered_faces/surf_like_tiny'


@pytest.fixture(scope='module', autouse=True)
def one_device():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(setup, 'find_devices', lambda: jax.devices()[:1])
    yield


@pytest.fixture(scope='module')
def original(prepared, tmp_path_factory):
  """A data_dir with a set without manifest, so that its shards can be replaced; and a run on it."""
  root = tmp_path_factory.mktemp('resume')
  copy = shutil.copytree(f'{prepared}/{SET}', root / 'data' / SET)
  (next(pathlib.Path(copy).iterdir()) / 'manifest.csv').unlink()
  loop.train(config_of(root), str(root / 'run'))
  return root


def config_of(root, **changed) -> ConfigDict:
  names = {}
  exec(write_config(root / 'small.py', str(root / 'data')).read_text(), names)
  config = names['get_config']()
  config.steps, config.checkpoint_every, config.schedule.warmup = 2, 1, 0
  config.update_from_flattened_dict(changed)
  return config


@pytest.fixture
def root(original, tmp_path):
  """A copy that a test may change."""
  return pathlib.Path(shutil.copytree(original, tmp_path / 'copy'))


def shard_of(root, split):
  return next((root / 'data' / SET).glob(f'*/*{split}*array_record*'))


def resume(root, *flags, **changed):
  """Trains one step more."""
  options = loop.Options(allow_config_change=True, allow_data_change='data' in flags)
  loop.train(config_of(root, steps=3, **changed), str(root / 'run'), options)


def saved(root):
  return workdir.newest_run_info(root / 'run')


def reverse(root):
  shard = shard_of(root, 'train')
  write_records(shard, records_of(shard)[::-1])


def flip_label(root):
  shard = shard_of(root, 'val')
  first, *others = records_of(shard)
  label = data_record.read(root / 'run')['val', f'{SET}:val'].labels[0]
  write_records(shard, [with_field(first, 'label', int(label == 'attack')), *others])


def exchange_image(root):
  shard = shard_of(root, 'test')
  *others, last = records_of(shard)
  write_records(shard, [*others, with_field(last, 'depth', b'')])


def exchange_train_and_test(root):
  """As if the test's subjects had been moved into the training set, and the reverse."""
  train, test = (shard_of(root, split) for split in ('train', 'test'))
  texts = train.read_bytes(), test.read_bytes()
  train.write_bytes(texts[1])
  test.write_bytes(texts[0])
  info = train.with_name('dataset_info.json')
  found = json.loads(info.read_text())
  lengths = {split['name']: split['shardLengths'] for split in found['splits']}
  for split in found['splits']:
    split['shardLengths'] = lengths[{'train': 'test', 'test': 'train'}.get(split['name'], 'val')]
  info.write_text(json.dumps(found))


@pytest.mark.parametrize(
  'change,said',
  [
    (reverse, r'train, .*:train, from .*train.array_record.* on: the same \d+ examples in another'),
    (flip_label, r'val, .*val.array_record.* on: 1 with another label: \S+ .\w+ before, \w+ now.'),
    (exchange_image, r'test.intra, .*test.array_record.* on: 1 with other images or fields: '),
    (exchange_train_and_test, r'train, .* added: \S+ .formerly in test.intra., .*\d+ removed: '),
  ],
)
def test_other_data_is_refused(root, change, said):
  change(root)
  with pytest.raises(StateError, match=f'(?s)by --allow_data_change:.*{said}'):
    resume(root)
  assert saved(root)['config']['steps'] == 2
  assert not (root / 'run' / lock.FILE).exists()


def test_other_data_is_accepted_by_a_flag(root, capsys):
  before = saved(root)['data']
  reverse(root)
  resume(root, 'data')
  said = capsys.readouterr().err
  assert 'WARNING: from step 2 on, training continues with other data:' in said
  assert 'data order reset' in said
  assert (
    before['train'] != saved(root)['data']['train'] and before['val'] == saved(root)['data']['val']
  )
  capsys.readouterr()
  resume(root)  # it is the data of the run now
  assert 'other data' not in capsys.readouterr().err


def test_other_data_of_a_run_that_saved_nothing_is_not_that_of_the_run(root, capsys, monkeypatch):
  """It was accepted by a flag; the checkpoint is still of the first data."""
  saved_before = saved(root)['data']
  reverse(root)

  def end(*_):
    raise StateError('ended before the first save')

  with monkeypatch.context() as patch, pytest.raises(StateError, match='before the first save'):
    patch.setattr(loop, '_run_steps', end)
    resume(root, 'data')
  assert saved(root)['data'] == saved_before
  with pytest.raises(
    StateError, match=r'(?s)by --allow_data_change:.*:train: \d+ examples that dif'
  ):
    resume(root)
  reverse(root)  # the first data again
  capsys.readouterr()
  resume(root)
  assert 'other data' not in capsys.readouterr().err


def test_the_same_data_in_another_place_and_with_a_manifest(root, prepared, capsys):
  resume(root, data_dir=prepared)
  assert 'other data' not in capsys.readouterr().err


def test_other_validation_data_is_not_evaluated(root):
  flip_label(root)
  with pytest.raises(StateError, match='(?s)by --allow_data_change:.* 1 with another label'):
    loop.evaluate(config_of(root), str(root / 'run'))


def test_a_lost_record_of_the_data_stands_in_the_checkpoint(root):
  (root / 'run' / data_record.FILE).write_bytes(b'\x1f\x8b\0\0')
  reverse(root)
  with pytest.raises(StateError, match=r'train, .*:train: \d+ examples that differ'):
    resume(root)


def test_a_run_of_an_earlier_version(root, capsys):
  """It has no record of its data: a warning, and a record from now on."""
  (root / 'run' / data_record.FILE).unlink()
  for file in (root / 'run' / 'checkpoints').glob('*/run/metadata'):
    older = json.loads(file.read_text())
    del older['data']
    file.write_text(json.dumps(older))
    (file.parents[1] / 'digests.json').unlink()
  from flexfas_jax.training import digests

  for step in (root / 'run' / 'checkpoints').iterdir():
    digests.write(step)
  resume(root)
  assert 'not verified that the data is that of the first 2 steps' in capsys.readouterr().err
  assert saved(root)['data'].keys() == {'train', 'val', 'test.intra'}


DAMAGE = {
  'NULs': b'\0' * 40 + b'\n',
  'half a line': b'{"step": 1, "train/lo\n',
  'not UTF-8': b'{"step": 1, "\xff": 1}\n',
  'a number': b'17\n',
  'no step': b'{"train/loss": 1.0}\n',
  'a step that is none': b'{"step": "1"}\n',
}


@pytest.mark.parametrize('kind', DAMAGE)
def test_damaged_lines_of_the_metrics_are_moved_away(tmp_path, kind):
  good = [b'{"step": 1, "a": 1.0}\n', b'{"step": 2, "a": null}\n']
  file = tmp_path / 'metrics.jsonl'
  file.write_bytes(good[0] + DAMAGE[kind] + good[1] + b'{"step": 3}\n{"step": 2, "unfin')
  said = []
  metric_writer.MetricWriter(tmp_path, 2, said.append).close()
  assert file.read_bytes() == b''.join(good)
  assert file.with_name('metrics.jsonl.damaged').read_bytes() == DAMAGE[kind]
  assert len(said) == 1 and '1 damaged lines, the first of which is line 2, were moved' in said[0]
  metric_writer.MetricWriter(tmp_path, 2, said.append).close()
  assert len(said) == 1


def test_deleted_metrics_go_on_in_a_new_file(tmp_path):
  said = []
  writer = metric_writer.MetricWriter(tmp_path, 0, said.append)
  writer.write(1, {'a': 1.0})
  (tmp_path / 'metrics.jsonl').unlink()
  writer.write(2, {'a': 2.0})
  writer.close()
  assert 'was deleted' in said[0]
  assert json.loads((tmp_path / 'metrics.jsonl').read_text()) == {'step': 2, 'a': 2.0}


@pytest.mark.parametrize(
  'content',
  [b'', b'{}', b'\0' * 100, b'{"steps": 2', b'[]', None],
  ids=('emptied', 'no fields', 'NULs', 'cut', 'a list', 'deleted'),
)
def test_a_damaged_config_is_read_from_the_checkpoint(root, capsys, content):
  workdir._warn_once.cache_clear()
  file = root / 'run' / 'config.json'
  whole = json.loads(file.read_text())
  file.unlink()
  if content is not None:
    file.write_bytes(content)
  assert run_config.get_config(str(root / 'run')).to_dict()['steps'] == 2
  changed = workdir.changed_fields(root / 'run', config_of(root, steps=7).to_dict())
  assert changed == ['steps: 2 in the workdir, 7 now']
  said = capsys.readouterr().err
  how = 'is damaged (' if content is not None else 'is missing; '
  assert said.count(f'WARNING: {file} {how}') == 1
  assert 'it is read from the newest checkpoint' in said
  if content == b'':
    loop.train(config_of(root), str(root / 'run'))
    assert json.loads(file.read_text()) == {**whole, 'data_dir': str(root / 'data')}


def test_a_damaged_config_without_a_checkpoint(tmp_path):
  (tmp_path / 'config.json').write_bytes(b'')
  with pytest.raises(StateError, match='config.json is damaged .*, and no checkpoint has it; name'):
    run_config.get_config(str(tmp_path))


def test_a_damaged_record_of_the_pretraining_is_read_from_the_checkpoint(root):
  record = {'weights': 'runs/faces', 'subjects': ['a', 'b']}
  workdir.write_pretraining(root / 'run', record)
  resume(root)
  (root / 'run' / 'pretraining.json').write_bytes(b'')
  assert workdir.read_pretraining(root / 'run') == record


@pytest.mark.parametrize('harm', ['cut', 'other subject'])
def test_a_damaged_list_of_subjects_is_written_again(root, capsys, harm):
  file = root / 'run' / subjects.FILE
  whole = file.read_text()
  name = json.loads(whole)['subjects'][0]
  file.write_text(whole[:40] if harm == 'cut' else whole.replace(name, name[:-1] + 'x'))
  with pytest.raises(
    StateError, match='is damaged .*; with the original training data, --mode=tra'
  ):
    loop.evaluate(config_of(root), str(root / 'run'))
  loop.train(config_of(root), str(root / 'run'))
  assert f'WARNING: {file} is damaged' in capsys.readouterr().err
  assert file.read_text() == whole


def test_renumbered_classes_are_never_guessed(tmp_path):
  """A damaged list of classes, and training data that is not known to be that of the run."""
  vocabulary = subjects.ClassVocabulary('subject', ('a', 'b'), ('a', 'b'))
  (tmp_path / subjects.FILE).write_text('{')
  with pytest.raises(StateError, match='is damaged'):
    subjects.check_same_vocabulary(tmp_path, vocabulary, is_same_data=False, warn=print)
  subjects.check_same_vocabulary(tmp_path, vocabulary, is_same_data=True, warn=print)


def test_evaluation_and_export_do_not_need_the_lock(root):
  with lock.hold(root / 'run', print):
    with pytest.raises(StateError, match='trains in this workdir'):
      loop.train(config_of(root), str(root / 'run'))
    loop.evaluate(config_of(root), str(root / 'run'))
    assert trained_model.restore(config_of(root), root / 'run').step == 2
