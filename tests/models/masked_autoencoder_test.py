"""Masked autoencoder: what the encoder may see, what counts, and weights that fit other models."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flexfas_jax.errors import ConfigError
from flexfas_jax.models import flexmodal, masked_autoencoder
from flexfas_jax.models.hooks import Context
from flexfas_jax.models.weights import transfer
from flexfas_jax.training import losses
from tests.toy import fill, make_batch

MODALITIES = ('rgb', 'depth', 'ir')
VIT = {'name': 'vit', 'variant': 'mu', 'patch_size': 8}
DECODER = {'width': 16, 'depth': 1, 'heads': 2}


@functools.cache
def make(stem='patch', image_size=32, **fields):
  """(model, variables) of a toy with 4 x 4 patches, or 2 x 2 with the stem 'resnet'."""
  patch = 16 if stem == 'resnet' else 8
  model = masked_autoencoder.build(
    {**VIT, 'stem': stem, 'patch_size': patch, **fields}, DECODER, image_size=image_size
  )
  return model, fill(model.shapes())


def draw(model, seed=0, B=4):
  """(batch, source, noise), the sources in turn."""
  rng = np.random.default_rng(seed)
  noise = jnp.asarray(rng.uniform(size=(B, model.patches)))
  return make_batch(model, B), jnp.arange(B) % 3, noise


def run(model, *arguments):
  return jax.jit(model.reconstruct)(*arguments)


def test_positions_by_hand():
  found = masked_autoencoder.sine_positions((2, 2), 8)
  s, c, t, d = np.sin(1), np.cos(1), np.sin(0.01), np.cos(0.01)  # rates 1 and 10000^(-1/2)
  expected = [
    [0, 0, 1, 1, 0, 0, 1, 1],
    [0, 0, 1, 1, s, t, c, d],
    [s, t, c, d, 0, 0, 1, 1],
    [s, t, c, d, s, t, c, d],
  ]
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_patches_are_in_rows_and_come_back():
  image = jnp.arange(4 * 6 * 2.0).reshape(1, 4, 6, 2)
  patches = masked_autoencoder.to_patches(image, (2, 3))
  assert patches.shape == (1, 6, 8)
  # The second patch: rows 0 and 1, columns 2 and 3.
  np.testing.assert_array_equal(patches[0, 1], [4, 5, 6, 7, 16, 17, 18, 19])
  back = masked_autoencoder.to_image(patches, (2, 3), 2)
  np.testing.assert_array_equal(back, image)


def test_patch_errors_by_hand():
  """Pixels 1, 3, 5, 7 have the mean 4 and the variance 5; a constant patch is rebuilt by 0."""
  image = jnp.concatenate([jnp.array([[1.0, 3], [5, 7]]), jnp.full((2, 2), 9.0)], 1)[
    None, ..., None
  ]
  rebuilt = jnp.array([[[0.0, 0, 0, 1], [0, 0, 0, 2]]])
  found = masked_autoencoder.patch_errors({'ir': rebuilt}, {'ir': image}, ('ir',))
  normal = np.array([-3, -1, 1, 3]) / np.sqrt(5)
  expected = [np.mean((normal - [0, 0, 0, 1]) ** 2), 1.0]
  np.testing.assert_allclose(found, [[expected]], rtol=1e-5)


def test_every_visible_patch_in_any_order_is_the_whole_image():
  """Without a hidden patch, the tokens are those of the ViT without `keep`, in the kept order."""
  model = flexmodal.build(VIT, {'name': 'concat'}, {'name': 'binary_logit'}, image_size=32)
  stream = model.module.streams['shared'].clone(name=None)
  variables = fill(jax.eval_shape(stream.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
  image = make_batch(model)['rgb']
  maps = jax.jit(stream.apply)(variables, image)
  order = jnp.asarray(np.random.default_rng(1).permuted(np.tile(np.arange(16), (4, 1)), axis=1))
  tokens = jax.jit(lambda v, x: stream.apply(v, x, context=Context(keep=order)))(variables, image)
  for x, found in zip(maps, tokens, strict=True):
    expected = jnp.take_along_axis(x.reshape(4, 16, -1), order[:, :, None], 1)
    np.testing.assert_allclose(found[:, 1:], expected, atol=1e-5)


@pytest.mark.parametrize('stem', ['patch', 'conv', 'resnet'])
def test_the_encoder_sees_visible_pixels_of_the_source_alone(stem):
  """Its tokens have no gradient to any other pixel, and one to each of these."""
  model, variables = make(stem)
  batch, source, noise = draw(model)
  images = {m: batch[m] for m in MODALITIES}

  def total(images):
    outputs = model.reconstruct(variables, {**batch, **images}, source, noise)
    weights = np.random.default_rng(0).standard_normal(outputs['reconstruction']['rgb'].shape)
    return (outputs['reconstruction']['rgb'] * weights).sum(), outputs['hidden']

  gradients, hidden = jax.jit(jax.grad(total, has_aux=True))(images)
  h, w = model.grid
  p = model.image_size // h
  assert hidden.sum(1).tolist() == [h * w - int(0.6 * h * w)] * 4
  visible = np.repeat(np.repeat(~np.asarray(hidden).reshape(4, h, w), p, 1), p, 2)
  for i, m in enumerate(MODALITIES):
    read = (np.asarray(gradients[m]) != 0).any(-1)
    expected = visible & (np.asarray(source) == i)[:, None, None]
    assert not read[~expected].any(), m
    assert read[expected].mean() > 0.9, m  # a ReLU of a stem may be off


def test_the_decoders_output_at_visible_patches_of_the_source_does_not_count():
  model, variables = make()
  batch, source, noise = draw(model)
  outputs = run(model, variables, batch, source, noise)

  @jax.jit
  def loss(change):  # {modality: [B, N]}
    rebuilt = {m: x + change[m][:, :, None] for m, x in outputs['reconstruction'].items()}
    error = masked_autoencoder.patch_errors(rebuilt, batch, MODALITIES)
    return losses.masked_reconstruction({**outputs, 'patch_error': error}, batch)

  before = loss({m: jnp.zeros((4, 16)) for m in MODALITIES})
  own = {m: ~outputs['hidden'] & (source == i)[:, None] for i, m in enumerate(MODALITIES)}
  np.testing.assert_array_equal(loss({m: 7.0 * x for m, x in own.items()}), before)
  each = jax.jit(jax.grad(lambda change: loss(change).sum()))({m: 0.0 * x for m, x in own.items()})
  for m in MODALITIES:
    np.testing.assert_array_equal(each[m] != 0, ~own[m])


def test_the_decoder_gets_every_token_at_its_place():
  """The order in which the encoder reads visible patches makes no difference."""
  model, variables = make()
  batch, source, noise = draw(model)
  expected = run(model, variables, batch, source, noise)
  largest = jnp.where(expected['hidden'], 0.0, noise).max(1, keepdims=True)
  reversed_ = jnp.where(expected['hidden'], noise, largest - noise)
  found = run(model, variables, batch, source, reversed_)
  np.testing.assert_array_equal(found['hidden'], expected['hidden'])
  for m in MODALITIES:
    np.testing.assert_allclose(found['reconstruction'][m], expected['reconstruction'][m], atol=1e-5)


def test_an_absent_modality_is_no_source_and_no_target():
  """Nor do its pixels, NaN here, reach loss, gradient or batch statistics."""
  model, variables = make('conv')
  batch, _, _ = draw(model, B=8)
  present = jnp.asarray([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]] * 2, bool)
  batch |= {
    m: jnp.where(present[:, i, None, None, None], batch[m], jnp.nan)
    for i, m in enumerate(MODALITIES)
  }
  batch['present'] = present

  @jax.jit
  def gradients(params, key):
    def objective(params):
      outputs, statistics = model.apply({**variables, 'params': params}, batch, key)
      return losses.masked_reconstruction(outputs, batch).mean(), (outputs, statistics)

    return jax.grad(objective, has_aux=True)(params)

  gradient, (outputs, statistics) = gradients(variables['params'], jax.random.key(0))
  weight = np.asarray(outputs['patch_weight'])
  np.testing.assert_array_equal(weight.any(2), present)
  # One modality is hidden in part, the others count as a whole.
  assert ((weight.sum(2) == 7).sum(1) == 1).all()
  assert set(weight.sum(2).ravel()) == {0, 7, 16}
  assert all(np.isfinite(x).all() for x in jax.tree.leaves((gradient, statistics)))
  assert np.abs(gradient['streams_shared']['cls_token']).max() > 1e-4
  # By hand: the mean over targets that are there, of the mean over their patches that count.
  error = np.nan_to_num(outputs['patch_error']) * weight
  means = error.sum(2) / np.maximum(weight.sum(2), 1)
  np.testing.assert_allclose(
    losses.masked_reconstruction(outputs, batch), means.sum(1) / present.sum(1), rtol=1e-5
  )


def test_sources_are_drawn_among_what_is_there():
  present = jnp.asarray([[True, True, True], [True, False, True], [False, True, False]] * 1000)
  source = masked_autoencoder.draw_source(jax.random.key(0), present)
  for rows, allowed in ((0, (0, 1, 2)), (1, (0, 2)), (2, (1,))):
    shares = np.bincount(source[rows::3], minlength=3) / 1000
    expected = [1 / len(allowed) if m in allowed else 0 for m in range(3)]
    np.testing.assert_allclose(shares, expected, atol=0.06)


def test_each_step_and_sample_has_its_own_mask_and_source():
  model, variables = make()
  batch, _, _ = draw(model, B=8)
  apply = jax.jit(lambda key: model.apply(variables, batch, key)[0])
  first, again, other = (apply(jax.random.key(seed)) for seed in (0, 0, 1))
  np.testing.assert_array_equal(first['patch_weight'], again['patch_weight'])
  assert (first['hidden'] != other['hidden']).any()
  assert len(np.unique(first['hidden'], axis=0)) > 4
  assert len(np.unique(first['patch_weight'].sum(2) == 7, axis=0)) == 3


@pytest.mark.parametrize('stem', ['patch', 'resnet'])
def test_the_encoder_fits_the_streams_of_a_model(stem):
  """Every array, the class token included; the decoder is left out."""
  model, variables = make(stem)
  backbone = {**VIT, 'stem': stem, 'patch_size': 16 if stem == 'resnet' else 8}
  for share, adapters in ((True, ()), (False, ()), (True, ({'name': 'conv'},))):
    other = flexmodal.build(
      {**backbone, 'adapters': adapters},
      {'name': 'concat'},
      {'name': 'binary_logit'},
      image_size=32,
      share_streams=share,
    )
    found = transfer.match(other.shapes(), variables)
    assert all('adapters_' in name for name in found.untouched)
    names = {'/'.join(path[1:]) for path in found.arrays}
    for stream in other.shapes()['params']:
      if stream.startswith('streams_'):
        assert f'{stream}/cls_token' in names
    assert found.left_out and all(name.startswith('decoder/') for name in found.left_out)


@pytest.mark.parametrize(
  'backbone,fields,message',
  [
    (
      {'name': 'resnet', 'variant': 'mu'},
      {},
      "backbone.name is 'resnet'; masked pretraining needs",
    ),
    ({**VIT, 'sequence': 'joint'}, {}, "sequence is 'joint'.*sees one modality"),
    ({**VIT, 'adapters': ({'name': 'conv'},)}, {}, 'adapters are added to pretrained weights'),
    ({**VIT, 'positions': 'rotary'}, {}, 'rotary positions need every patch'),
    ({**VIT, 'per_modality': ['cls_token']}, {}, 'one encoder serves all modalities'),
    ({**VIT, 'projection': 8}, {}, 'the decoder reads tokens'),
    (VIT, {'mask_ratio': 0.0}, 'mask_ratio is 0.0; give a part of the 16 patches'),
    (VIT, {'mask_ratio': 0.99}, 'leaves one visible and one hidden'),
    (VIT, {'image_size': 30}, 'image_size = 30 is not a multiple of the patch size 8'),
    (VIT, {'decoder': {'height': 3}}, "decoder has no field 'height'; it has: width"),
    (VIT, {'decoder': {'width': 18, 'heads': 2}}, 'width = 18 is not a multiple of 4'),
    (VIT, {'dtype': 'float16'}, "unknown dtype 'float16'"),
    (VIT, {'modalities': (None,)}, 'config.model.modalities has None; choose from: rgb, depth, ir'),
  ],
)
def test_what_does_not_work_is_refused(backbone, fields, message):
  fields = {'decoder': DECODER, 'image_size': 32, **fields}
  with pytest.raises(ConfigError, match=message):
    masked_autoencoder.build(backbone, **fields)


def test_bfloat16_and_remat_compute_the_same():
  model, variables = make()
  batch, source, noise = draw(model)
  expected = run(model, variables, batch, source, noise)['reconstruction']
  for fields, tolerance in (({'remat': True}, 1e-5), ({'dtype': 'bfloat16'}, 0.1)):
    dtype = fields.pop('dtype', 'float32')
    other = masked_autoencoder.build({**VIT, **fields}, DECODER, image_size=32, dtype=dtype)
    found = run(other, variables, batch, source, noise)['reconstruction']
    for m in MODALITIES:
      assert found[m].dtype == jnp.float32
      np.testing.assert_allclose(found[m], expected[m], atol=tolerance)
