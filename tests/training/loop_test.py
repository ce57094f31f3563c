"""The main job, as a user runs it: the command of README in miniature, evaluated again, refused."""

import csv
import itertools
import json
import os
import pickle
import shutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import vit_fusion
from flexfas_jax import schema
from flexfas_jax.errors import ConfigError, DataError, FlexfasError, StateError
from flexfas_jax.input_pipeline import pipeline
from flexfas_jax.protocols.definitions import PROTOCOLS
from flexfas_jax.training import datasets, loop, setup, workdir
from flexfas_jax.training.checkpoints import Checkpoints
from tests import forked

STEPS = 24
OVERRIDES = {
  'train': 'rendered_faces/surf_like_tiny:train,rendered_faces/cefa_like_tiny:train',
  'val': 'rendered_faces/surf_like_tiny:val',
  'test.intra': 'rendered_faces/surf_like_tiny:test',
  'test.unseen': 'rendered_faces/cefa_like_tiny:masks',
  'test.cross': 'rendered_faces/wmca_like_tiny:test',
  'model.image_size': 16,
  'model.backbone.variant': 'mu',
  'model.backbone.patch_size': 8,
  'model.backbone.stem': 'patch',
  'batch_size': 8,
  'eval_batch_size': 16,
  'steps': STEPS,
  'schedule.warmup': 4,
  'eval_every': 12,
  'checkpoint_every': 4,
  'log_every': 2,
  'report': False,
}


def command(workdir, data_dir, *more):
  overrides = [f'--config.{k}={v}' for k, v in {**OVERRIDES, 'data_dir': data_dir}.items()]
  arguments = ['--config=configs/vit_fusion.py', f'--workdir={workdir}', *overrides, *more]
  return ['flexfas_jax.main', *arguments]


def run(*arguments):
  return forked.run(*command(*arguments))


def make_config(data_dir, **more):
  config = vit_fusion.get_config()
  config.left_out, config.member = (), ConfigDict()
  with config.ignore_type():  # a loss is a name or a group
    for key, value in {**OVERRIDES, 'data_dir': data_dir, **more}.items():
      config.update_from_flattened_dict({key: value})
  return config


def rows(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [row for row in map(json.loads, lines) if 'status' not in row]


def losses(workdir):
  return {r['step']: r['train/loss'] for r in rows(workdir) if 'train/loss' in r}


@pytest.fixture
def one_device(monkeypatch):
  """Less to compile, for what has nothing to do with how many there are."""
  monkeypatch.setattr(setup, 'find_devices', lambda: jax.devices()[:1])


@pytest.fixture(scope='module')
def unbroken(prepared, tmp_path_factory):
  """(workdir, what was printed) of a whole run."""
  workdir = tmp_path_factory.mktemp('runs') / 'unbroken'
  required = '--config.pass_if=rgb: bpcer<=1%'
  found = run(workdir, prepared, '--config.report=True', required)
  assert found.returncode == 0, found.stderr  # a requirement that is not met is a result
  return workdir, found


def test_the_command_leaves_what_it_promises(unbroken):
  workdir, found = unbroken
  results = json.loads((workdir / 'results.json').read_text())
  assert set(results) == {'intra', 'unseen', 'cross'}
  four = {'rgb', 'rgb+depth', 'rgb+ir', 'rgb+depth+ir'}
  metrics = [
    'acer',
    'apcer',
    'bpcer',
    'eer',
    'auc',
    'tpr@fpr=1e-2',
    'tpr@fpr=1e-3',
    'tpr@fpr=1e-4',
    'threshold',
  ]
  for test in results.values():
    assert four | {'depth', 'ir', 'depth+ir'} == set(test)
    for values in test.values():
      assert set(metrics) <= set(values)
  categories = {k for k in results['cross']['rgb'] if k.startswith('apcer/')}
  assert len(categories) == 8
  assert {v['threshold'] for v in results['cross'].values()} == {0.5}
  for name in results:
    [title] = [line for line in found.stdout.splitlines() if f'{name}: rendered_faces/' in line]
    assert 'RENDERED images' in title  # of the benchmark's tables
    assert all(values['RENDERED'] is True for values in results[name].values())
  assert ' (RENDERED)</h1>' in (workdir / 'report.html').read_text()
  # The requirement is of one subset; the report as JSON has the same verdicts.
  record = json.loads((workdir / 'report.json').read_text())
  for test in record['tests']:
    stated = results[test['name']]['rgb']['pass_if']
    word = 'PASS' if stated['passed'] else 'FAIL'
    assert test['verdict'] == word and f'{test["name"]}: {word} (BPCER of rgb' in found.stdout
    assert 'pass_if' not in results[test['name']]['ir'] and test['rendered']
  assert '\x1b' not in found.stdout + found.stderr
  assert '\r' not in found.stdout + found.stderr
  for name in ('config.json', 'metrics.jsonl', 'checkpoints/24', 'scores/val.json'):
    assert (workdir / name).exists(), name
  assert list((workdir / 'tensorboard').glob('events.*'))
  assert losses(workdir).keys() == set(range(2, STEPS + 1, 2))
  logged = [r for r in rows(workdir) if 'train/loss' in r]
  assert all((8 * r['train/accuracy']) % 1 == 0 for r in logged)  # shares of a batch of 8
  # So few steps learn little of the rendered faces: chance, or better.
  assert 0.25 < np.mean([r['train/accuracy'] for r in logged]) <= 1
  warmup = [r['train/learning_rate'] for r in logged[:3]]  # of steps 1, 3 and 5: up, then down
  assert 0 < warmup[0] < warmup[1] and warmup[2] == max(r['train/learning_rate'] for r in logged)
  assert [r['step'] for r in rows(workdir) if 'val/eer' in r] == [12, 24]


def test_every_id_is_scored_once_under_every_subset(unbroken):
  workdir, _ = unbroken
  for name in ('val', 'intra', 'cross'):
    with open(workdir / 'scores' / f'{name}.csv') as file:
      table = list(csv.DictReader(file))
    ids = [row['id'] for row in table]
    assert len(set(ids)) == len(ids) > 0
    assert all(0 < float(row[s]) < 1 for row in table for s in ('rgb', 'depth+ir'))
    header = json.loads((workdir / 'scores' / f'{name}.json').read_text())
    assert header['config']['steps'] == STEPS
    assert header['weights_hash'] and header['rendered'] is True


def test_the_best_step_on_val_is_the_one_that_is_evaluated(unbroken):
  workdir, found = unbroken
  val = {r['step']: r['val/eer'] for r in rows(workdir) if 'val/eer' in r}
  best = min(val, key=lambda step: (val[step], -step))
  header = json.loads((workdir / 'scores/cross.json').read_text())
  assert (header['step'], header['trained_steps']) == (best, max(val))
  assert f'step {best}, threshold' in found.stdout


def test_evaluation_alone_gives_the_same_results(unbroken, prepared):
  workdir, _ = unbroken
  before = (workdir / 'results.json').read_bytes(), (workdir / 'scores/cross.csv').read_bytes()
  (workdir / 'results.json').unlink()
  config = make_config(prepared, report=True, pass_if='rgb: bpcer<=1%')
  loop.evaluate(config, str(workdir))
  assert before == (
    (workdir / 'results.json').read_bytes(),
    (workdir / 'scores/cross.csv').read_bytes(),
  )


def test_a_report_has_what_a_laboratory_states(unbroken, prepared, tmp_path, capsys):
  workdir, _ = unbroken
  path = tmp_path / 'test.toml'
  path.write_text('[test]\nlaboratory = "Example laboratory"\n[species.unheard]\nlevel = "A"\n')
  before = (workdir / 'report.json').read_bytes() if (workdir / 'report.json').exists() else b''
  fields = {'report': True, 'pass_if': 'rgb: bpcer<=1%'}
  loop.evaluate(make_config(prepared, **fields, test_toml=str(path)), str(workdir))
  assert 'no test has the species unheard; they have: ' in capsys.readouterr().out
  record = json.loads((workdir / 'report.json').read_text())
  assert record['description']['test'] == {'laboratory': 'Example laboratory'}
  assert 'Example laboratory' in (workdir / 'report.html').read_text()
  path.write_text('[test]\noperater = "x"\n')
  for config, message in (
    (make_config(prepared, test_toml=str(path)), 'needs config.report'),
    (make_config(prepared, **fields, test_toml=str(path)), "has no key 'operater'"),
    (make_config(prepared, **fields, test_toml=str(tmp_path / 'none')), 'config.test_toml: .*none'),
  ):
    with pytest.raises(FlexfasError, match=message):  # before anything is scored
      loop.evaluate(config, str(workdir))
  loop.evaluate(make_config(prepared, **fields), str(workdir))
  if before:
    assert (workdir / 'report.json').read_bytes() == before


def test_other_tests_may_be_evaluated_but_nothing_else_is_other(unbroken, prepared, tmp_path):
  workdir, _ = unbroken
  config = make_config(str(tmp_path), **{'threshold.cross': 'dev_eer', 'eval_batch_size': 8})
  config.test = {'mine': 'manifest/mine:test'}
  config.threshold = {'mine': 'dev_eer'}
  with pytest.raises(
    StateError, match='test.mine: .nothing. in the workdir, manifest/mine:test now'
  ):
    loop.train(config, str(workdir))
  with pytest.raises(DataError, match='manifest/mine is not prepared'):  # it went further
    loop.evaluate(make_config(prepared, **{'test.cross': 'manifest/mine:test'}), str(workdir))
  config.val = 'rendered_faces/cefa_like_tiny:val'  # the thresholds would be of another set
  with pytest.raises(StateError, match='another config.*\n  val: '):
    loop.evaluate(config, str(workdir))


def test_a_workdir_of_another_config_is_refused(unbroken, prepared):
  workdir, _ = unbroken
  before = {f: f.stat().st_mtime_ns for f in sorted(workdir.rglob('*'))}
  config = make_config(prepared, batch_size=16, **{'schedule.peak': 0.5})
  for experiment in (loop.train, loop.evaluate):
    with pytest.raises(
      StateError, match='(?s)batch_size: 8 in the workdir, 16 now.*peak: 0.001 in the workdir, 0.5'
    ):
      experiment(config, str(workdir))
  assert before == {f: f.stat().st_mtime_ns for f in sorted(workdir.rglob('*'))}


def test_a_folder_of_something_else_is_left_alone(prepared, tmp_path):
  (tmp_path / 'thesis.tex').write_text('x')
  with pytest.raises(StateError, match='not empty'):
    loop.train(make_config(prepared), str(tmp_path))


def test_a_preflight_may_come_first(tmp_path):
  (tmp_path / 'preflight.json').write_text('[]')
  (tmp_path / '.config.json.17.tmp').write_text('{')  # killed at its very beginning
  assert workdir.changed_fields(tmp_path, {'seed': 0}) == []


def test_a_config_of_an_earlier_version_lacks_what_was_always_so(tmp_path):
  (tmp_path / 'config.json').write_text('{"seed": 0}')
  assert workdir.changed_fields(tmp_path, {'seed': 0, 'resize': 'area'}) == []
  changed = workdir.changed_fields(tmp_path, {'seed': 0, 'resize': 'bilinear'})
  assert changed == ['resize: area in the workdir, bilinear now']


def test_a_checkpoint_of_another_model_is_refused_by_name(unbroken, prepared):
  config = make_config(prepared, **{'model.backbone.patch_size': 4})
  experiment = setup.build(config)
  checkpoints = Checkpoints(unbroken[0] / 'checkpoints', 'eer', read_only=True)
  said = r'params.streams_shared.patch_embed.kernel: checkpoint \(8, 8, .* model \(4, 4'
  with pytest.raises(StateError, match=f'(?s)another model.*{said}'):
    checkpoints.restore(STEPS, experiment.abstract)


def test_nothing_to_evaluate(prepared, tmp_path):
  with pytest.raises(StateError, match='run with --mode=train first'):
    loop.evaluate(make_config(prepared), str(tmp_path / 'nothing'))


@pytest.mark.parametrize(
  'change,error,said',
  [
    ({'batch_size': 12}, ConfigError, 'config.batch_size = 12 .* 8 devices'),
    ({'batch_size': 800}, ConfigError, 'batch_size = 800 is more than'),
    ({'eval_batch_size': 3}, ConfigError, 'config.eval_batch_size = 3'),
    ({'mesh.fsdp': 3}, ConfigError, 'fsdp = 3'),
    ({'accumulate': 2}, ConfigError, '8 devices, 2 times each'),
    ({'loss': 'hinge'}, ConfigError, "unknown loss 'hinge'; .*binary_cross_entropy"),
    ({'loss': {'focal': {'gama': 1}}}, ConfigError, "'focal' has no field 'gama'"),
    ({'loss': 'pixel_wise_mse'}, ConfigError, "'pixel_wise_mse' needs 'map'.*'pixel_map'"),
    ({'loss': {'focal': {}, 'cos_face': {}}}, ConfigError, "'cos_face' needs 'cosine'"),
    ({'loss': 'cross_modal_focal'}, ConfigError, 'branch_logits = True'),
    (
      {'model.head': {'name': 'pixel_map'}, 'loss': 'pixel_wise_binary_cross_entropy'},
      ConfigError,
      "needs 'map_logit'.*'activation': 'linear'",
    ),
    ({'model.head': {'name': 'embedding'}}, ConfigError, 'head gives no logit'),
    ({'model.fusion.name': 'mean'}, ConfigError, "unknown fusion 'mean'"),
    ({'threshold.cross': 'best'}, ConfigError, 'best'),
    ({'train': 'casia/x:train'}, ConfigError, "no builder is called 'casia'"),
    ({'train': ''}, ConfigError, 'config.train: no data set is named'),
    ({'eval_every': 0}, ConfigError, 'config.eval_every is 0; give a whole number from 1 on'),
    ({'val': 'rendered_faces/surf_like_tiny:dev'}, DataError, "no split 'dev'"),
    ({'left_out': ('val',)}, DataError, 'attack eyes_flat in train .* and val'),
    (
      {'left_out': ('unsen',)},
      ConfigError,
      "'unsen'; choose from: val, cross, intra",
    ),
    ({'views': ('flip', 'upside')}, ConfigError, "'upside' is no view"),
    ({'member': {'network': 'a/b'}}, ConfigError, "'a/b' must not contain / or @"),
    ({'member': {'seed': 1}}, ConfigError, 'give network and fold; the seed'),
    ({'val': 'rendered_faces/cefa_like_tiny:masks'}, DataError, 'every sample is attack'),
    ({'val': 'rendered_faces/surf_like_tiny:train'}, DataError, 'surf_like/h0.* train .* and val'),
    ({'test.cross': 'rendered_faces/surf_like_tiny:val'}, DataError, 'in val .* and cross'),
    ({'accept_known_leaks': ('ours',)}, ConfigError, "called 'ours'; there are: flexmodal_v1"),
    ({'protocol': 'flex'}, ConfigError, "unknown protocol 'flex'; choose one of: flexmodal"),
    ({'train': 'rendered_faces/surf_like_tiny:train[x=1]'}, ConfigError, "no field 'x'; it has"),
  ],
)
def test_a_refused_job_writes_nothing(prepared, tmp_path, change, error, said):
  with pytest.raises(error, match=said):
    loop.train(make_config(prepared, **change), str(tmp_path / 'run'))
  assert os.listdir(tmp_path) == []


def test_all_problems_of_a_config_are_reported_at_once(prepared, tmp_path):
  """Data that is missing, a batch larger than the set, a warm-up longer than the training."""
  change = {
    'batch_size': 800,
    'steps': 4,
    'schedule.warmup': 9,
    'test.cross': 'casia_surf/challenge:test',
  }
  for experiment in (loop.train_and_evaluate, loop.train):
    with pytest.raises(ConfigError) as caught:
      experiment(make_config(prepared, **change), str(tmp_path / 'run'))
    title, *lines = str(caught.value).split('\n- ')
    assert title == f'{len(lines)} problems:' and all('config.' in line for line in lines)
    fields = [
      'lower config.schedule.warmup or raise config.steps',
      'config.batch_size = 800 is more',
    ]
    if experiment is loop.train_and_evaluate:  # training alone needs no test
      fields.insert(1, 'config.test.cross: casia_surf/challenge is not prepared')
    assert len(lines) == len(fields)
    for line, field in zip(lines, fields, strict=True):
      assert field in line
  assert os.listdir(tmp_path) == []


def test_every_kind_of_problem_is_in_the_list(prepared, tmp_path):
  change = {
    'task': 'x',
    'protocol': 'flex',
    'steps': 0,
    'log_every': 0,
    'clip_norm': -1.0,
    'resize': 'cubic',
    'view': {'flop': 1},
    'photometric': {'rgb': {'ad': 1}, 'uv': {}},
    'member': {'network': 'a/b'},
    'threshold.cross': 'best',
    'loss': 'hinge',
    'schedule': {'name': 'constant'},
    'optimizer': {'name': 'adamw', 'decay': 'some'},
    'views': ('upside',),
    'mesh': {'cut': 2},
    'model.fusion': {'name': 'mean'},
  }
  config = make_config(prepared)
  with config.unlocked():
    for field, value in change.items():
      config.update_from_flattened_dict({field: value})
  with pytest.raises(ConfigError) as caught:
    loop.train(config, str(tmp_path / 'run'))
  lines = str(caught.value).split('\n- ')[1:]
  assert len(lines) == len(change) + 1  # two modalities
  for field in change:
    named = f'config.{field}'.removesuffix('.fusion')
    assert any(named in line for line in lines), field


def test_sets_that_are_missing_are_listed_once_each(tmp_path):
  config = make_config(str(tmp_path), protocol='flexmodal')
  with pytest.raises(DataError) as caught:
    loop.train_and_evaluate(config, str(tmp_path / 'run'))
  lines = str(caught.value).split('\n- ')
  assert lines[0] == '3 problems:' and len(lines) == 4
  assert lines[1].startswith('config.val, config.train, config.test.intra: casia_surf/flexmodal is')
  assert lines[3].startswith('config.test.cross: wmca/flexmodal is not prepared')
  config.data_dir = str(tmp_path / 'nothing')
  with pytest.raises(
    ConfigError, match='(?s)4 problems:\n- config.data_dir = .* is not a folder; name'
  ):
    loop.train_and_evaluate(config, str(tmp_path / 'run'))
  assert os.listdir(tmp_path) == []


def test_a_protocol_says_what_is_read_and_shown(prepared):
  config = make_config(prepared, protocol='rendered_flexmodal(size=_tiny)')
  experiment = setup.build(config)
  assert experiment.config.train.startswith(
    'rendered_faces/surf_like_tiny:train, rendered_faces/cefa'
  )
  assert sorted(experiment.config.test) == ['cross', 'intra', 'unseen']
  assert experiment.metrics[0] == 'acer'
  assert config.train == OVERRIDES['train']  # what was given is not changed
  names = [
    schema.subset_name(subset)
    for subset in setup.scored_subsets(experiment.model, PROTOCOLS['cefa_3'])
  ]
  assert names == ['rgb', 'depth', 'ir']
  only = make_config(
    prepared,
    protocol='cefa_3',
    **{'model.modalities': ('rgb',), 'model.fusion': {'name': 'concat'}, 'modality_dropout': {}},
  )
  only.model.modalities = ('rgb',)
  assert setup.scored_subsets(setup.build(only).model, PROTOCOLS['cefa_3']) == (('rgb',),)
  with pytest.raises(ConfigError, match='the protocol reports rgb.depth.ir, but the model serves'):
    setup.scored_subsets(setup.build(only).model, PROTOCOLS['mmdg_1_cps_w'])


def test_who_only_evaluates_need_not_have_what_was_trained_on(prepared, tmp_path):
  """And lists what could not be verified."""
  shutil.copytree(f'{prepared}/rendered_faces', tmp_path / 'rendered_faces')
  config = make_config(str(tmp_path), train='padisi/face:whole', **{'test.unseen': 'wmca/x:test'})
  experiment = setup.build(config)
  with pytest.raises(DataError, match='padisi/face is not prepared'):
    datasets.open_all(experiment.config, test=False)
  config.test = {'cross': 'rendered_faces/wmca_like_tiny:test'}
  data = datasets.open_all(setup.build(config).config, train=False)
  assert data.train is None
  assert data.notes == [
    'leakage not checked for train, padisi/face:whole: the data is not available here'
  ]


def test_a_sensor_that_predicts_the_label_is_warned_of(prepared):
  """Infrared is left out of the bona fide samples of train alone."""
  # In so few recordings of version 2, qualities of JPEG separate the classes by chance.
  name = 'rendered_faces/v1_surf_like_tiny'
  usual = datasets.open_all(setup.build(make_config(prepared, train=f'{name}:train')).config)
  assert not [line for line in usual.notes if line.startswith('warning')]
  train = [
    f'{name}:train[{species}]'
    for species in ('species=bona_fide & modalities=rgb,depth', 'species!=bona_fide')
  ]
  data = datasets.open_all(setup.build(make_config(prepared, train=', '.join(train))).config)
  assert [line for line in data.notes if line.startswith('warning')] == [
    'warning (shortcut): config.train: ir presence separates attacks from bona fide samples '
    '(balanced accuracy 1.00): absent: 0% of attacks, 100% of bona fide; present: 100% of attacks, '
    '0% of bona fide'
  ]


def test_fit_takes_the_size_of_the_map_from_the_model(prepared):
  experiment = setup.build(make_config(prepared))
  assert experiment.map_size is None
  config = make_config(
    prepared,
    loss='pixel_wise_mse',
    **{'model.head': {'name': 'pixel_map'}, 'model.backbone.patch_size': 4},
  )
  experiment = setup.build(config)
  assert experiment.map_size == 4  # 16 pixels in patches of 4
  assert experiment.preprocess.map_size is None  # evaluation has no use for it


def test_a_map_is_trained_and_scored(prepared, tmp_path, one_device):
  """CDCN's two losses, from the data set's live masks to val's scores."""
  config = make_config(
    prepared,
    loss={'pixel_wise_mse': {}, 'contrastive_depth': {'weight': 0.5}},
    steps=3,
    log_every=1,
    **{
      'model.head': {'name': 'pixel_map'},
      'model.backbone.patch_size': 4,
      'model.modalities': ('rgb',),  # one stream, one subset: less to compile
      'model.fusion': {'name': 'concat'},
      'modality_dropout': {},
      'schedule.warmup': 0,
    },
  )
  loop.train(config, str(tmp_path / 'run'))
  found = losses(tmp_path / 'run')
  assert set(found) == {1, 2, 3}
  assert all(np.isfinite(value) and value > 0 for value in found.values())
  assert [r['step'] for r in rows(tmp_path / 'run') if 'val/eer' in r] == [3]


def test_an_exploded_loss_stops_the_run(prepared, tmp_path, one_device):
  """With the ids of the batch, and without saving what exploded."""
  config = make_config(
    prepared, **{'schedule.peak': float('inf'), 'checkpoint_every': 1, 'log_every': 100}
  )
  with pytest.raises(StateError, match='the loss is nan and .* at step 2, .* step 1 is intact'):
    loop.train(config, str(tmp_path / 'run'))
  record = json.loads((tmp_path / 'run' / 'bad_batch.json').read_text())
  assert (record['step'], record['loss']) == (2, 'nan')
  source = datasets.open_all(config).train
  second = itertools.islice(pipeline.order(len(source), config.seed), 8, 16)
  assert record['ids'] == [source[i]['id'] for i in second]
  assert os.listdir(tmp_path / 'run' / 'checkpoints') == ['1']


PRETRAINED = """
from configs import vit_fusion

def get_config():
  config = vit_fusion.get_config()
  config.pretrained = {fields}
  return config
"""


class Trap:
  """A pickle of this makes a file when it is opened."""

  def __init__(self, marker):
    self.marker = marker

  def __reduce__(self):
    return (open, (self.marker, 'w'))


def test_a_pickle_of_weights_is_not_opened_and_ends_with_4(prepared, tmp_path):
  marker, weights = tmp_path / 'marker', tmp_path / 'resnet50.pth'
  weights.write_bytes(pickle.dumps({'conv1.weight': Trap(str(marker))}))
  fields = {'weights': str(weights), 'architecture': 'timm/resnet50'}
  (tmp_path / 'mine.py').write_text(PRETRAINED.format(fields=fields))
  arguments = command(tmp_path / 'run', prepared)
  arguments[1] = f'--config={tmp_path}/mine.py'
  found = forked.run(*arguments)
  assert found.returncode == 4, found.stderr
  assert 'this is a pickle' in found.stderr
  assert f'torch.load(open(sys.argv[1], {"rb"!r})' in found.stderr
  assert f'{weights} {tmp_path}/resnet50.safetensors' in found.stderr
  assert 'Traceback' not in found.stderr
  left = {file.name for file in tmp_path.iterdir()} - {'__pycache__'}  # of the config
  assert left == {'mine.py', 'resnet50.pth'}


def donor_of(experiment):
  """Another's weights for the streams, as `transfer.load` returns them: {path: array}, all 0.25."""
  stream = experiment.abstract.params['streams_shared']
  return {
    ('params', 'streams_shared', *(k.key for k in path)): np.full(leaf.shape, 0.25, np.float32)
    for path, leaf in jax.tree_util.tree_leaves_with_path(stream)
  }


def test_streams_start_from_a_file_and_a_resumed_run_needs_none(prepared, tmp_path, monkeypatch):
  """`transfer.load` has its own tests with real names; here, the loop."""
  asked, seen = [], []

  def load(source, variables):
    asked.append(source)
    return donor_of(setup.build(config)), 'streams from FILE'

  def steps(run, state, *_):  # in place of the training
    seen.append(state)

  config = make_config(prepared)
  config.pretrained = {'weights': 'FILE', 'architecture': 'timm/vit_tiny_patch16_224'}
  monkeypatch.setattr(loop.transfer, 'load', load)
  monkeypatch.setattr(loop, '_run_steps', steps)
  loop.train(config, str(tmp_path / 'run'))
  (state,) = seen
  for leaf in jax.tree.leaves(state.params['streams_shared']):
    assert (np.asarray(leaf) == 0.25).all()
  assert not (np.asarray(state.params['head']['logit']['kernel']) == 0.25).any()
  shardings = jax.tree.map(lambda leaf: leaf.sharding, setup.build(config).abstract)
  jax.tree.map(lambda leaf, place: leaf.sharding == place or pytest.fail(), state, shardings)
  assert asked == [('FILE', 'timm/vit_tiny_patch16_224', None, 'streams')]

  class Begun:
    def __init__(self, *_, **__):
      pass

    def latest(self):
      return 4

  (tmp_path / 'run' / 'checkpoints').mkdir(exist_ok=True)
  monkeypatch.setattr(loop, 'Checkpoints', Begun)
  prepared_run = loop._prepare(config, str(tmp_path / 'run'), loop.DEFAULTS, test=False)
  assert loop._load_pretrained(prepared_run) == ({}, '', {})
  assert len(asked) == 1


def test_evaluation_reads_no_file_of_weights(prepared, tmp_path):
  config = make_config(prepared)
  config.pretrained = {'weights': 'gone', 'architecture': 'timm/vit_tiny_patch16_224'}
  with pytest.raises(StateError, match='run with --mode=train first'):
    loop.evaluate(config, str(tmp_path / 'run'))
  with pytest.raises(StateError, match='weights gone: no such file'):
    loop.train(config, str(tmp_path / 'run'))
  config.pretrained.architecture = 'timm/vit'
  with pytest.raises(ConfigError, match='config.pretrained.architecture'):
    loop.evaluate(config, str(tmp_path / 'run'))
  config.pretrained = None
  assert setup.build(config).pretrained is None
  assert os.listdir(tmp_path) == []
