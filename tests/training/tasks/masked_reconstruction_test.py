"""Masked pretraining as a user runs it, then transfer from it: small, on the rendered subjects."""

import functools
import io
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from configs import adapter_fusion, masked_pretraining
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.export import trained_model
from flexfas_jax.input_pipeline import sources
from flexfas_jax.models import flexmodal, masked_autoencoder
from flexfas_jax.models.weights import variable_tree
from flexfas_jax.training import (
  datasets,
  frozen,
  init_from_run,
  loop,
  losses,
  setup,
  sharding,
  subjects,
)
from flexfas_jax.training.checkpoints import Checkpoints
from flexfas_jax.training.step import named_key, new_state, train_step
from flexfas_jax.training.tasks import dataset_scoring, get_task, masked_reconstruction
from tests import toy
from tests.training import subjects_test
from tests.training.subjects_test import fill

MODALITIES = ('rgb', 'depth', 'ir')
BACKBONE = {'name': 'vit', 'variant': 'mu', 'patch_size': 8, 'stem': 'conv', 'layer_scale': 0.1}
SMALL = {
  'train': 'rendered_faces/surf_like_tiny:train,rendered_faces/cefa_like_tiny:train',
  'val': 'rendered_faces/surf_like_tiny:val',
  'view': {'flip': 0.5},
  'model.image_size': 32,
  'model.backbone': BACKBONE,
  'batch_size': 16,
  'eval_batch_size': 24,
}
MASKED = {
  **SMALL,
  'model.decoder': {'width': 32, 'depth': 1, 'heads': 2},
  'steps': 80,
  'schedule.peak': 3e-3,
  'schedule.warmup': 5,
  'eval_every': 40,
  'checkpoint_every': 40,
  'log_every': 1,
}


@pytest.fixture(scope='module', autouse=True)
def one_device():
  """Less to compile; what depends on their number asks for them."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(setup, 'find_devices', lambda: jax.devices()[:1])
    yield


def masked(data_dir, **more):
  return fill(masked_pretraining.get_config(), data_dir, {**MASKED, **more})


def full(data_dir, weights, **more):
  fields = {**SMALL, 'photometric': {}, 'threshold': {'intra': 'dev_eer'}, 'report': False}
  fields |= {'test': {'intra': 'rendered_faces/surf_like_tiny:test'}}
  fields |= {'pretrained.weights': str(weights), **more}
  return fill(adapter_fusion.get_config('full'), data_dir, fields)


@pytest.fixture(scope='module')
def pretrained(prepared, tmp_path_factory):
  folder = tmp_path_factory.mktemp('masked') / 'run'
  loop.train_and_evaluate(masked(prepared), str(folder))
  return folder


def variables_of(folder):
  found = Checkpoints(folder / 'checkpoints', 'reconstruction', read_only=True)
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return frozen.restore_variables(found, found.best(), place)


def test_the_loss_falls_and_the_best_step_is_reported(pretrained):
  found = subjects_test.losses(pretrained)
  assert sorted(found) == list(range(1, 81))
  first, last = (np.mean([found[i] for i in span]) for span in (range(1, 6), range(76, 81)))
  assert last < 0.85 * first
  rows = map(json.loads, (pretrained / 'metrics.jsonl').read_text().splitlines())
  val = {row['step']: row for row in rows if 'val/reconstruction' in row}
  assert sorted(val) == [40, 80]
  assert not [k for row in val.values() for k in row if 'eer' in k or 'auc' in k or 'accuracy' in k]
  best = min(val, key=lambda step: val[step]['val/reconstruction'])
  results = json.loads((pretrained / 'results.json').read_text())
  assert sorted(results) == ['val']  # no test
  assert results['val']['reconstruction'] == pytest.approx(val[best]['val/reconstruction'])
  for m in MODALITIES:
    errors = results['val']['by_source'][m]
    assert sorted(errors) == sorted(('mean', *MODALITIES))
    assert errors['mean'] == pytest.approx(val[best][f'val/reconstruction/{m}'])
  image = Image.open(io.BytesIO((pretrained / masked_reconstruction.IMAGE_FILE).read_bytes()))
  assert image.size == (7 * 128, 16 + 6 * 128)


def test_a_resumed_run_is_the_unbroken_one(pretrained, prepared, tmp_path):
  folder = tmp_path / 'run'
  shutil.copytree(pretrained, folder)
  shutil.rmtree(folder / 'checkpoints' / '80')
  loop.train(masked(prepared), str(folder))
  assert subjects_test.losses(folder) == subjects_test.losses(pretrained)
  jax.tree.map(np.testing.assert_array_equal, variables_of(folder), variables_of(pretrained))


def test_val_has_the_same_masks_in_every_batch_size_and_on_eight_devices(
  pretrained, prepared, monkeypatch
):
  variables, found = jax.device_get(variables_of(pretrained)), []
  for devices, B in ((1, 24), (8, 16)):
    monkeypatch.setattr(setup, 'find_devices', lambda n=devices: jax.devices()[:n])
    config = masked(prepared, eval_batch_size=B)
    experiment = setup.build(config)
    source = datasets.open_all(config, train=False).val
    scorer = get_task(config).make_scorer(experiment)
    placed = jax.device_put(variables, sharding.replicated(experiment.mesh))
    found.append(dataset_scoring.run_with_progress(scorer, placed, experiment, 'val', source))
  assert found[0].shape == (len(source), 3, 3)
  for other in found[1:]:
    np.testing.assert_allclose(other, found[0], rtol=1e-4)


def test_metrics_by_hand():
  """One sample lacks the second modality, one all of them."""
  nan = np.nan
  errors = np.array(
    [[[1.0, 2], [3, 4]], [[5, nan], [nan, nan]], [[nan, nan], [nan, nan]]]
  )  # [N, M, M]
  assert masked_reconstruction.error_metrics(errors, ('rgb', 'ir')) == {
    'reconstruction': (2.5 + 5) / 2,
    'n': 3,
    'n_fta': 1,
    'by_source': {
      'rgb': {'mean': (1.5 + 5) / 2, 'rgb': 3.0, 'ir': 2.0},
      'ir': {'mean': 3.5, 'rgb': 3.0, 'ir': 4.0},
    },
  }


def test_the_streams_of_a_model_start_from_the_encoder(pretrained, prepared, tmp_path):
  experiment = setup.build(full(prepared, pretrained))
  found = init_from_run.load(experiment, tmp_path / 'new')
  before = dict(variable_tree.flatten(variables_of(pretrained)))
  streams = {path: x for path, x in before.items() if path[1] == 'streams_shared'}
  assert ('params', 'streams_shared', 'cls_token') in streams
  assert sorted(found.arrays) == sorted(streams)
  for path, array in found.arrays.items():
    np.testing.assert_array_equal(array, streams[path])
  assert 'left out: decoder/' in found.summary


def test_a_run_on_a_pretraining_subject_is_refused(pretrained, prepared, tmp_path):
  vocabulary = subjects.read(pretrained)
  assert vocabulary.target == '' and len(vocabulary.subjects) > 5
  config = full(
    prepared,
    pretrained,
    train='rendered_faces/wmca_like_tiny:train',
    test={'intra': 'rendered_faces/cefa_like_tiny:train'},
  )
  with pytest.raises(DataError, match='pretrain'):
    loop.train(config, str(tmp_path / 'new'))


def test_a_linear_probe_beats_the_unpretrained_encoder(pretrained, prepared):
  """Ridge regression on frozen features of the three sensors: AUC on other subjects."""
  config = masked(prepared)
  experiment = setup.build(config)
  train = sources.open_source(config.train, prepared)
  sets = [
    f'rendered_faces/{s}_like_tiny:{part}' for s in ('surf', 'cefa') for part in ('val', 'test')
  ]
  others = sources.open_source(','.join(sets), prepared)
  fusion, head = {'name': 'concat'}, {'name': 'binary_logit'}
  model = flexmodal.build(BACKBONE, fusion, head, image_size=32, absent='exclude')

  @jax.jit
  def encode(variables, batch):
    maps = model.encode_all(variables, batch, None)
    return jnp.concatenate([maps[m][-1].mean((1, 2)) for m in MODALITIES], 1)

  def features(variables, source):
    rows = [
      np.asarray(encode(variables, {m: arrays[m] for m in MODALITIES}))[: len(metas)]
      for arrays, metas in dataset_scoring.batches_of(experiment, source)
    ]
    return np.concatenate(rows), np.array([x == 'bona_fide' for x in source.columns['label']])

  def auc(variables):
    x, y = features(variables, train)
    mean, scale = x.mean(0), x.std(0) + 1e-6
    x = (x - mean) / scale
    w = np.linalg.solve(x.T @ x + 10 * np.eye(x.shape[1]), x.T @ (2.0 * y - 1))
    x, y = features(variables, others)
    score = (x - mean) / scale @ w
    return (score[y][:, None] > score[~y][None]).mean()

  initial = jax.jit(experiment.init)(named_key(jax.random.key(0), 'init'))
  before, after = auc(setup.model_variables(initial)), auc(variables_of(pretrained))
  assert after > before + 0.05, (before, after)


def test_a_step_on_eight_devices_is_that_on_one():
  """Sources and masks as well, which the step draws; accumulated in two parts."""
  backbone, decoder = BACKBONE, {'width': 16, 'depth': 1, 'heads': 2}
  model = masked_autoencoder.build(backbone, decoder, image_size=16)
  variables, optimizer = toy.fill(model.shapes()), optax.sgd(1.0)
  state = new_state(variables, optimizer)
  batch = toy.make_batch(model, B=16)
  batch['present'] = jnp.asarray(np.arange(48).reshape(16, 3) % 5 > 0)
  found = []
  for devices in (jax.devices(), jax.devices()[:1]):
    mesh = sharding.make_mesh(fsdp=2 if len(devices) > 1 else 1, devices=devices)
    places = sharding.state_sharding(jax.eval_shape(lambda: state), mesh)
    step = jax.jit(
      functools.partial(
        train_step,
        model=model,
        optimizer=optimizer,
        loss=losses.masked_reconstruction,
        modality_dropout={},
        accumulate=2,
      ),
      out_shardings=(places, sharding.replicated(mesh)),
    )
    placed = jax.device_put(state, places), sharding.place_batch(batch, mesh)
    found.append(jax.device_get(step(*placed, jax.random.key(3))))
  (eight, metrics), (one, expected) = found
  assert sorted(metrics) == ['grad_norm', 'loss']
  np.testing.assert_allclose(metrics['loss'], expected['loss'], rtol=5e-6)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5)
  jax.tree.map(close, eight, one)


def test_a_protocol_gives_train_and_val_and_no_test(prepared):
  config = masked(prepared, protocol='rendered_domains(target=wmca_like, size=_tiny)')
  found = setup.build(config).config
  assert found.train.count(',') == 2 and 'wmca' not in found.train + found.val
  assert not found.test and not found.threshold


@pytest.mark.parametrize(
  'fields,message',
  [
    ({'task': 'attacks'}, "task = 'reconstruction' and a model with a decoder need each other"),
    ({'loss': 'binary_cross_entropy'}, "'binary_cross_entropy' needs 'logit'"),
    ({'model.heads': 3}, "config.model has no field 'heads'; it has: backbone, decoder"),
    ({'views': ('whole', 'flip')}, "the task 'reconstruction' takes one"),
    ({'task': 'masks'}, "unknown config.task 'masks'; choose one of: attacks, identities, recon"),
  ],
)
def test_a_config_that_does_not_fit_is_refused(prepared, fields, message):
  with pytest.raises(ConfigError, match=message):
    setup.build(masked(prepared, **fields))


def test_what_detects_no_attacks_is_not_exported(pretrained, prepared):
  with pytest.raises(ConfigError, match="task 'reconstruction' makes no decisions"):
    trained_model.restore(masked(prepared), pretrained)
