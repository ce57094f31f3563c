"""Face recognition as a user runs it, then transfer from it: small, on the rendered people."""

import csv
import json
import shutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import face_recognition, mm_fas
from flexfas_jax.errors import ConfigError, DataError, StateError
from flexfas_jax.evaluation import face_verification
from flexfas_jax.input_pipeline import pipeline
from flexfas_jax.models.weights import conversion, transfer
from flexfas_jax.training import (
  datasets,
  frozen,
  init_from_run,
  loop,
  setup,
  sharding,
  subjects,
  workdir,
)
from flexfas_jax.training.checkpoints import Checkpoints
from flexfas_jax.training.step import new_state
from flexfas_jax.training.tasks import attribute_classification
from flexfas_jax.training.tasks import face_verification as tasks_face_verification
from tests import forked
from tests.toy import fill as fill_variables

PEOPLE = 'rendered_faces/{}[species=bona_fide & modalities=rgb]'
SMALL = {
  'model.image_size': 16,
  'model.backbone': {'name': 'ir_resnet', 'variant': 'mu', 'remat': False},
  'batch_size': 8,
  'eval_batch_size': 16,
  'log_every': 1,
}
FACES = {
  **SMALL,
  'train': ','.join(map(PEOPLE.format, ('surf_like_tiny:train', 'cefa_like_tiny:train'))),
  'val': PEOPLE.format('surf_like_tiny:val'),
  'test': {'intra': PEOPLE.format('surf_like_tiny:test')},
  'steps': 8,
  'schedule.warmup': 0,
  'eval_every': 4,
  'checkpoint_every': 4,
}
ATTACKS = {
  **SMALL,
  'train': 'rendered_faces/surf_like_tiny:train',
  'val': 'rendered_faces/surf_like_tiny:val',
  'test': {'intra': 'rendered_faces/surf_like_tiny:test'},
  'threshold': {'intra': 'dev_eer'},
  'steps': 2,
  'schedule.warmup': 0,
  'report': False,
}


# Less to compile, for what has nothing to do with the joint stages.
PLAIN = {
  'model.modalities': ('rgb',),
  'modality_dropout': {},
  'model.fusion': {'name': 'concat'},
  'pretrained.into': 'streams',
}


def fill(config, data_dir, fields):
  with config.unlocked(), config.ignore_type():
    for key, value in {**fields, 'data_dir': data_dir}.items():
      *path, last = key.split('.')
      group = config
      for name in path:
        group = group[name]
      group[last] = ConfigDict(value) if isinstance(value, dict) else value
  return config


def faces(data_dir, **more):
  return fill(face_recognition.get_config(), data_dir, {**FACES, **more})


def attacks(data_dir, face_run, **more):
  fields = {**ATTACKS, 'pretrained.weights': str(face_run), **more}
  return fill(mm_fas.get_config(), data_dir, fields)


def losses(folder):
  rows = map(json.loads, (folder / 'metrics.jsonl').read_text().splitlines())
  return {row['step']: row['train/loss'] for row in rows if 'train/loss' in row}


def state_of(folder, metric='eer'):
  """(step, variables) of the best step, whatever the model."""
  found = Checkpoints(folder / 'checkpoints', metric, read_only=True)
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return found.best(), frozen.restore_variables(found, found.best(), place)


def flat(tree):
  return {
    '/'.join(k.key for k in path): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def main(config, folder, *more):
  """The command, on eight devices."""
  return forked.run('flexfas_jax.main', f'--config={config}', f'--workdir={folder}', *more)


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  """Less to compile; what depends on their number asks for them."""
  monkeypatch.setattr(setup, 'find_devices', lambda: jax.devices()[:1])


@pytest.fixture(scope='module')
def face_run(prepared, tmp_path_factory):
  """The workdir of a whole run, made by the command."""
  folder = tmp_path_factory.mktemp('faces')
  file = folder / 'faces.py'
  file.write_text(
    'from tests.training.subjects_test import faces\n'
    f'def get_config():\n  return faces({str(prepared)!r})\n'
  )
  found = main(file, folder / 'run')
  assert found.returncode == 0, found.stderr
  assert 'Verification of subjects not in the training data' in found.stdout
  assert '(RENDERED images: no figure' in found.stdout
  return folder / 'run'


def test_a_run_leaves_pairs_figures_and_people(face_run, prepared):
  results = json.loads((face_run / 'results.json').read_text())
  assert set(results) == {'val', 'intra'}
  # Two people with two videos of three pictures each.
  assert [results['intra'][f'n_{n}'] for n in ('subjects', 'same', 'other')] == [2, 18, 36]
  assert {'eer', 'auc', 'accuracy', 'tpr@far=1e-2', 'tpr@far=1e-3'} <= set(results['val'])
  rows = list(csv.DictReader((face_run / 'scores/intra_pairs.csv').read_text().splitlines()))
  assert len(rows) == 54
  assert all((r['subject_a'] == r['subject_b']) == (r['label'] == 'same') for r in rows)
  known = subjects.read(face_run)
  source = datasets.open_all(faces(prepared)).train
  assert known.classes == known.subjects == tuple(sorted(set(source.columns['subject'])))
  assert len(known.subjects) == 6
  assert losses(face_run).keys() == set(range(1, 9))
  header = json.loads((face_run / 'scores/intra_pairs.json').read_text())
  assert header['weights_hash'] and header['config']['task'] == 'identities'


def test_the_head_has_as_many_identities_as_there_are(face_run):
  _, variables = state_of(face_run)
  assert variables['params']['head']['kernel'].shape == (64, 6)


def test_a_sample_is_numbered_by_its_person(prepared):
  data = datasets.open_all(faces(prepared))
  experiment = setup.build(faces(prepared), classes=6)
  batch = next(pipeline.train_batches(data.train, experiment.preprocess, 8, seed=0))
  ids = pipeline.ids_of_batch(data.train, 8, seed=0, index=0)
  columns = data.train.columns
  subject = dict(zip(columns['id'], columns['subject'], strict=True))
  assert batch['identity'].dtype == np.int32
  assert [data.vocabulary.classes[i] for i in batch['identity']] == [subject[i] for i in ids]


def test_evaluation_needs_no_training_data(face_run, prepared, tmp_path, capsys):
  """Weights, people and val make the same figures again."""
  run = shutil.copytree(face_run, tmp_path / 'run')
  before = json.loads((run / 'results.json').read_text())
  (run / 'results.json').unlink()
  config = faces(prepared)
  elsewhere = tmp_path / 'prepared'
  shutil.copytree(f'{prepared}/rendered_faces/surf_like_tiny',
                  elsewhere / 'rendered_faces/surf_like_tiny')  # fmt: skip
  config.data_dir = str(elsewhere)
  monkey = pytest.MonkeyPatch()
  with monkey.context() as patch:  # the training's second set is not here, and is not made
    patch.setattr(datasets.sources, 'prepare', refuse)
    loop.evaluate(config, str(run))
  assert json.loads((run / 'results.json').read_text()) == before
  assert 'leakage not checked for train' in capsys.readouterr().out


def refuse(*_, **__):
  raise DataError('not here')


def test_a_run_that_goes_on_ends_alike(face_run, tmp_path):
  """Bit for bit: from its first checkpoint, the rest taken away."""
  run = shutil.copytree(face_run, tmp_path / 'run')
  shutil.rmtree(run / 'checkpoints/8')
  found = main(face_run.parent / 'faces.py', run, '--mode=train')
  assert found.returncode == 0, found.stderr
  assert 'resuming at step 4' in found.stderr
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  first, again = (
    flat(Checkpoints(f / 'checkpoints', 'eer', read_only=True).restore_variables(8, place))
    for f in (face_run, run)
  )
  assert first.keys() == again.keys()
  assert all((first[name] == again[name]).all() for name in first)
  assert {losses(run)[s] == losses(face_run)[s] for s in range(5, 9)} == {True}


def test_the_classifier_is_cut_over_devices(monkeypatch):
  monkeypatch.setattr(setup, 'find_devices', lambda: jax.devices()[:4])
  config = faces('nowhere', **{'mesh.fsdp': 4, 'model.head.identities': 1000})
  experiment = setup.build(config)
  kernel = experiment.abstract.params['head']['kernel']
  assert kernel.shape == (64, 1000)
  assert kernel.sharding.spec == jax.P(None, 'fsdp')
  assert kernel.sharding.shard_shape(kernel.shape) == (64, 250)
  moments = [
    leaf.sharding.shard_shape(leaf.shape)
    for leaf in jax.tree.leaves(experiment.abstract.opt_state)
    if leaf.shape == (64, 1000)
  ]
  assert moments == [(64, 250)] * 2  # Adam's too


def test_a_step_does_not_depend_on_how_the_classifier_is_cut(monkeypatch):
  """Loss and gradient's norm; the cosines of a batch need all identities."""
  rng = np.random.default_rng(0)
  batch = {
    'rgb': rng.standard_normal((8, 16, 16, 3)).astype(np.float32),
    'present': np.ones((8, 1), bool),
    'label': np.ones(8, np.int32),
    'identity': rng.integers(0, 40, 8).astype(np.int32),
  }
  found = []
  for devices, fsdp in ((1, 1), (4, 4)):
    monkeypatch.setattr(setup, 'find_devices', lambda n=devices: jax.devices()[:n])
    experiment = setup.build(faces('nowhere', **{'mesh.fsdp': fsdp, 'model.head.identities': 40}))
    key = jax.device_put(jax.random.key(0), sharding.replicated(experiment.mesh))
    variables = fill_variables(experiment.model.shapes())
    state = jax.device_put(new_state(variables, experiment.optimizer), setup.shardings(experiment))
    _, metrics = setup.make_step(experiment)(
      state, sharding.place_batch(batch, experiment.mesh), key
    )
    found.append({name: float(value) for name, value in metrics.items()})
  assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.parametrize(
  'fields,error,said',
  [
    ({'task': 'faces'}, ConfigError, "'faces'; choose one of: attacks, identities"),
    ({'model.head.identities': 7}, ConfigError, '= 7, but config.train has 6 values of subject'),
    ({'protocol': 'cefa_5'}, ConfigError, 'is for attacks, not for identities'),
    ({'model.head': {'name': 'binary_logit'}}, ConfigError, 'needs a head that classifies them'),
    ({'target': 'gender'}, ConfigError, "has no column 'gender'; it has: .*ethnicity"),
    ({'target': 'ethnicity'}, DataError, 'examples have no ethnicity, the first surf_like'),
    ({'train': 'rendered_faces/surf_like_tiny:train'}, DataError, 'are attacks, .*bona_fide'),
    (
      {'val': PEOPLE.format('surf_like_tiny:val')[:-1] + ' & frame=0]'},
      None,
      '',
    ),
    (
      {
        'train': ','.join(
          2 * [PEOPLE.format('surf_like_tiny:train')[:-1] + ' & subject=surf_like/h0000]']
        )
      },
      DataError,
      'every example has the subject',
    ),
  ],
)
def test_what_cannot_be_distinguished(prepared, tmp_path, fields, error, said):
  config = faces(prepared, **fields)
  if error is None:
    assert loop._prepare(config, str(tmp_path / 'run'), loop.DEFAULTS)
    return
  with pytest.raises(error, match=said):
    loop._prepare(config, str(tmp_path / 'run'), loop.DEFAULTS)
  assert not (tmp_path / 'run').exists()


def test_a_job_without_data_asks_for_the_number():
  with pytest.raises(ConfigError, match='identities = 0 .* give the number'):
    setup.build(faces('nowhere'))


def test_other_people_than_it_began_with_are_refused(face_run, prepared, tmp_path):
  known = subjects.read(face_run)
  more = known._replace(classes=(*known.classes, 'x'), subjects=(*known.subjects, 'x'))
  with pytest.raises(StateError, match='trained on 6 values of subject, .* 7 .* differ in: x'):
    subjects.check_same_vocabulary(face_run, more, is_same_data=False, warn=print)


def test_an_experiment_is_built_once_with_the_classes_of_the_data(prepared, tmp_path, monkeypatch):
  counts, build = [], setup.build

  def count(*args, **fields):
    counts.append(fields['classes'])
    return build(*args, **fields)

  monkeypatch.setattr(setup, 'build', count)
  loop._prepare(faces(prepared), str(tmp_path / 'run'), loop.DEFAULTS)
  assert counts == [6]


def test_a_wrong_config_generates_no_data_to_count_its_classes(tmp_path):
  with pytest.raises(ConfigError, match="unknown loss 'hinge'"):
    loop.train(faces(tmp_path / 'data', loss='hinge'), str(tmp_path / 'run'))
  assert list(tmp_path.iterdir()) == []


def test_files_of_an_earlier_version_are_read(tmp_path):
  old = {'target': 'subject', 'classes': [], 'people': ['a', 'b']}
  (tmp_path / 'people.json').write_text(json.dumps(old))
  assert subjects.read(tmp_path) == ('subject', ('a', 'b'), ('a', 'b'))
  old = {'weights': 'w', 'people': ['a'], 'remark': 'x'}
  (tmp_path / 'pretraining.json').write_text(json.dumps(old))
  record = workdir.read_pretraining(tmp_path)
  assert record == {'weights': 'w', 'subjects': ['a'], 'note': 'x'}
  (tmp_path / 'pretraining.json').write_text('{"weights": "w"}')
  with pytest.raises(StateError, match='pretraining.json is damaged'):
    workdir.read_pretraining(tmp_path)


def test_an_attribute_in_the_place_of_people(prepared, tmp_path, capsys):
  """Another head, accuracy by class, and a checkpoint chosen by its error."""
  cefa = {split: PEOPLE.format(f'cefa_like_tiny:{split}') for split in ('train', 'val', 'test')}
  config = faces(
    prepared, train=cefa['train'], val=cefa['val'], test={'intra': cefa['test']},
    target='ethnicity', loss={'cos_face': {'margin': 0.0, 'scale': 8.0}}, steps=2,
  )  # fmt: skip
  loop.train_and_evaluate(config, str(tmp_path / 'run'))
  found = json.loads((tmp_path / 'run/results.json').read_text())
  classes = [f'accuracy/group_{x}' for x in 'abc']
  assert {'accuracy', 'error', *classes} <= set(found['intra'])
  assert found['intra']['accuracy'] == pytest.approx(np.mean([found['intra'][c] for c in classes]))
  said = capsys.readouterr().out
  assert 'ethnicity: accuracy in percent, by class, step 2' in said
  rows = (tmp_path / 'run/scores/intra_classes.csv').read_text().splitlines()
  assert rows[0] == 'id,subject,ethnicity,' + ','.join(c.replace('accuracy', 'cosine')
                                                       for c in classes)  # fmt: skip
  known = subjects.read(tmp_path / 'run')
  assert known.classes == ('group_a', 'group_b', 'group_c') and len(known.subjects) == 3


def test_accuracy_by_class_by_hand():
  cosine = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [np.nan, np.nan]])
  found = attribute_classification.class_metrics(cosine, np.array([0, 0, 0, 1]), ('x', 'y'))
  assert found == {
    'accuracy': pytest.approx(1 / 3),
    'error': pytest.approx(2 / 3),
    'n': 4,
    'n_fta': 1,
    'accuracy/x': pytest.approx(2 / 3),
    'accuracy/y': 0.0,
  }


def started(config, folder, monkeypatch):
  """The state that a training would begin with, and its workdir as it is then."""
  seen = []
  monkeypatch.setattr(loop, '_run_steps', lambda run, state, *_: seen.append(state))
  loop.train(config, str(folder))
  return flat(setup.model_variables(seen[0]))


@pytest.fixture(scope='module')
def chance(prepared, tmp_path_factory):
  """(workdir, first state) of a training without pretraining."""
  workdir = tmp_path_factory.mktemp('runs') / 'chance'
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(setup, 'find_devices', lambda: jax.devices()[:1])
    return workdir, started(attacks(prepared, ''), workdir, patch)


def test_streams_and_joint_stages_start_from_a_run(
  face_run, chance, prepared, tmp_path, monkeypatch
):
  """Tensor by tensor, as MM-FAS: all three streams, the stages after each aggregation, and the last
  one, whose first convolution is repeated for each modality and not divided."""
  step, variables = state_of(face_run)
  given = flat(variables)
  config = attacks(prepared, face_run)
  # The subjects of that run are in the training here, which they may be.
  found = started(config, tmp_path / 'run', monkeypatch)
  places = {f'streams_{m}': '' for m in ('rgb', 'depth', 'ir')}
  places |= {'fusion/later_0': 'stage_2', 'fusion/later_1': 'stage_3', 'fusion/later_2': 'stage_4'}
  places['fusion/main'] = 'stage_4'
  seen = set()
  for name, value in found.items():
    kind, _, inner = name.partition('/')
    place = next((p for p in places if inner.startswith(p + '/')), None)
    if place is None:
      assert (value == chance[1][name]).all(), name  # the head, the 1x1 convolutions
      continue
    rest = inner.removeprefix(place + '/')
    source = '/'.join(filter(None, (kind, 'streams_shared', places[place], rest)))
    wanted = given[source]
    if wanted.shape != value.shape:  # the last stage's inputs
      assert place == 'fusion/main'
      wanted = np.concatenate([wanted] * 3, -2 if rest.endswith('kernel') else -1)
      seen.add('repeated')
    np.testing.assert_array_equal(value, wanted, err_msg=name)
    seen.add(place)
  assert seen == {*places, 'repeated'}
  record = workdir.read_pretraining(tmp_path / 'run')
  assert (record['step'], record['into']) == (step, 'aggregation')
  assert record['subjects'] == list(subjects.read(face_run).subjects)
  header = json.loads((face_run / 'scores/val_pairs.json').read_text())
  assert record['weights_hash'] == header['weights_hash']
  assert workdir.read_pretraining(chance[0]) == {}


def test_streams_alone_or_one_of_them(face_run, chance, prepared, tmp_path, monkeypatch):
  for into, expected in (('rgb', {'rgb'}), ('streams', {'rgb', 'depth', 'ir'})):
    config = attacks(prepared, face_run, **{'pretrained.into': into})
    found = started(config, tmp_path / into, monkeypatch)
    changed = {n.split('/')[1] for n, value in found.items() if (value != chance[1][n]).any()}
    assert changed == {f'streams_{m}' for m in expected}


def test_a_second_stage_starts_from_all_of_the_first(face_run, prepared, tmp_path, monkeypatch):
  """Other augmentation; the same people in training, which the first one's are not tested against.
  Nothing is read again when it goes on, nor when it is evaluated."""
  first, second = tmp_path / 'first', tmp_path / 'second'
  loop.train_and_evaluate(attacks(prepared, face_run, **PLAIN), str(first))
  header = json.loads((first / 'scores/intra.json').read_text())['pretraining']
  assert header['weights'] == str(face_run) and 'subjects' not in header
  fields = {**PLAIN, 'pretrained.into': 'all', 'view.rotate': 1.0}
  config = attacks(prepared, first, **fields)
  _, variables = state_of(first)
  with monkeypatch.context() as patch:
    found = started(config, tmp_path / 'begun', patch)
  given = flat(variables)
  assert found.keys() == given.keys()
  assert all((found[name] == given[name]).all() for name in found)
  record = workdir.read_pretraining(tmp_path / 'begun')
  assert record['subjects'] == list(
    subjects.read(face_run).subjects
  )  # of the first one's pretraining
  loop.train_and_evaluate(config, str(second))
  shutil.rmtree(first)
  loop.train(config, str(second))
  loop.evaluate(config, str(second))
  assert workdir.read_pretraining(second) == {**record, 'weights': str(first)}


def test_people_of_the_pretraining_are_not_tested_on(face_run, prepared, tmp_path, monkeypatch):
  """By name, in val and tests; a run that was begun remembers them without it."""
  tests = {
    'intra': 'rendered_faces/surf_like_tiny:test',
    'seen': 'rendered_faces/cefa_like_tiny:train',
  }
  thresholds = dict.fromkeys(tests, 'dev_eer')
  config = attacks(prepared, face_run, test=tests, threshold=thresholds, **PLAIN)
  said = r'leak-subject: subject cefa_like/h0000 in pretraining and seen \(18\)'
  with pytest.raises(DataError, match=said):
    loop.train_and_evaluate(config, str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()
  started(attacks(prepared, face_run, **PLAIN), tmp_path / 'run', monkeypatch)
  gone = {'pretrained.weights': str(tmp_path / 'gone')}
  config = attacks(prepared, face_run, test=tests, threshold=thresholds, **PLAIN, **gone)
  with pytest.raises(
    DataError, match='leak-subject: subject cefa_like/h0000 in pretraining and seen'
  ):
    loop.evaluate(config, str(tmp_path / 'run'))
  config = attacks(prepared, face_run, val='rendered_faces/cefa_like_tiny:train')
  with pytest.raises(DataError, match='leak-subject: .* in pretraining and val'):
    loop.train(config, str(tmp_path / 'other'))


def test_a_pretraining_without_a_list_of_subjects_is_reported(face_run, prepared, tmp_path):
  old = shutil.copytree(face_run, tmp_path / 'old')
  (old / 'subjects.json').unlink()
  data = loop._prepare(attacks(prepared, old), str(tmp_path / 'run'), loop.DEFAULTS).data
  assert any(
    'not verified that no test subject was in the training data' in line for line in data.notes
  )


@pytest.mark.parametrize(
  'fields,said',
  [
    ({'model.backbone.variant': 'pico'}, None),
    (
      {'model.backbone': {'name': 'vit', 'variant': 'mu', 'patch_size': 8},
       'model.fusion': {'name': 'concat'}, 'pretrained.into': 'streams'},
      'another architecture than the model: .*streams_',
    ),
    ({'pretrained.into': 'all'}, 'another architecture than the model: .*fusion/'),
    ({'pretrained.sha256': '0' * 64}, 'but config.pretrained.sha256 is 0000'),
    ({'pretrained.weights': '/nowhere'}, 'is not the workdir of a run'),
  ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_named(face_run, prepared, tmp_path, fields, said):
  config = attacks(prepared, face_run, **fields)
  if said is None:  # pico is as mu, but for its training
    experiment = setup.build(config)
    assert init_from_run.load(experiment, tmp_path / 'run').arrays
    return
  with pytest.raises(StateError, match=said):
    loop.train(config, str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


def test_only_a_run_of_ours_gives_all(prepared):
  fields = {'pretrained.architecture': 'mm_fas/ir50', 'pretrained.into': 'all'}
  with pytest.raises(ConfigError, match="'all'; choose one of: streams"):
    setup.build(attacks(prepared, 'file.safetensors', **fields))
  assert transfer.OWN_RUN not in conversion.ARCHITECTURES


def test_what_is_frozen_stays_as_it_was_given(face_run, prepared, tmp_path):
  """In a real run, which goes on from its checkpoint: two steps, then two more."""
  later = ('bn1', 'conv1', 'prelu1', 'stage_[2-4]')
  patterns = ('fusion', 'token_rgb', *(f'streams_rgb/{name}' for name in later))
  fields = {'trainable': patterns, **PLAIN}
  config = attacks(prepared, face_run, steps=4, checkpoint_every=2, **fields)
  run = tmp_path / 'run'
  loop.train(config, str(run))
  trained = flat(state_of(run)[1]['params'])
  experiment = setup.build(config)
  arrays = init_from_run.load(experiment, tmp_path / 'x').arrays
  given = {'/'.join(p[1:]): v for p, v in arrays.items()
           if p[0] == 'params'}  # fmt: skip
  frozen = [n for n in given if n.split('/')[1] == 'stage_1' and n.startswith('streams_')]
  moved = [n for n in given if n not in frozen and n.endswith('kernel')]
  assert len(frozen) > 3 and moved
  assert all((trained[n] == given[n]).all() for n in frozen)
  assert all((trained[n] != given[n]).any() for n in moved)
  shutil.rmtree(run / 'checkpoints/4')
  before = trained['head/logit/kernel']
  loop.train(config, str(run))
  again = flat(state_of(run)[1]['params'])
  assert all((again[name] == trained[name]).all() for name in trained)
  assert (again['head/logit/kernel'] == before).all()


def test_pairs_of_a_run_are_drawn_by_its_config(prepared):
  data = datasets.open_all(faces(prepared))
  experiment = setup.build(faces(prepared, pairs=5), classes=6)
  found = tasks_face_verification.make_pairs(experiment, data.val, 'val')
  assert isinstance(found, face_verification.Pairs)
  assert found.same.sum() == 5 and len(found.same) == 10
