"""The model's contracts, for every backbone and fusion that the folders hold."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flexfas_jax import lookup
from flexfas_jax.errors import ConfigError
from flexfas_jax.models import flexmodal
from tests.toy import make, make_batch

FIELDS = {  # further forms of a fusion; each file is there with its defaults
  'cross_attention': [{}, {'form': 'symmetric', 'scaled': True}],
}
FUSIONS = [(n, f) for n in lookup.choices('fusion') for f in FIELDS.get(n, [{}])]


def decide(model, variables, batch):
  @jax.jit
  def run(variables, batch):
    maps = {m: model.encode(variables, batch[m], m) for m in model.modalities}
    return model.decide(variables, maps, model.absent_maps(variables), batch['present'])['logit']

  return run(variables, batch)


@pytest.mark.parametrize('fusion,form', FUSIONS)
@pytest.mark.parametrize('absent', flexmodal.ABSENT)
def test_pixels_of_an_absent_modality_change_nothing(fusion, form, absent):
  model, variables = make(fusion=fusion, form=tuple(form.items()), absent=absent)
  batch = make_batch(model)
  present = jnp.array([[1, 0, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]], bool)
  one = {**batch, 'present': present}
  # NaN and inf, not just other numbers: where() must not let them through either.
  hidden = present[:, 1, None, None, None]
  other = {**one, 'depth': jnp.where(hidden, batch['depth'], jnp.nan)}
  hidden = present[:, 2, None, None, None]
  other['ir'] = jnp.where(hidden, batch['ir'], jnp.inf)
  np.testing.assert_array_equal(decide(model, variables, one), decide(model, variables, other))

  apply = jax.jit(model.apply)
  (a, stats_a), (b, stats_b) = (apply(variables, x, jax.random.key(1)) for x in (one, other))
  np.testing.assert_array_equal(a['logit'], b['logit'])
  jax.tree.map(np.testing.assert_array_equal, stats_a, stats_b)
  # And what is present does count.
  moved = decide(model, variables, {**one, 'depth': batch['depth'] + 1})
  assert (moved != decide(model, variables, one)).tolist() == [False, True, False, True]


@pytest.mark.parametrize('absent', ['token', 'exclude'])
def test_absent_images_leave_batch_statistics_alone(absent):
  """With half of a batch's depth gone, its statistics are those of the half that is there."""
  model, variables = make('resnet', absent=absent, share=False)
  batch = make_batch(model)
  batch['present'] = batch['present'].at[2:, 1].set(False)
  half = {k: v[:2] for k, v in batch.items()}
  apply = jax.jit(model.apply)
  _, stats = apply(variables, batch, jax.random.key(1))
  _, expected = apply(variables, half, jax.random.key(1))
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
    stats['streams_depth'],
    expected['streams_depth'],
  )


@pytest.mark.parametrize('backbone', lookup.choices('backbone'))
@pytest.mark.parametrize('fusion,form', FUSIONS)
def test_gradient_reaches_what_is_present_and_nothing_else(backbone, fusion, form):
  model, variables = make(backbone, fusion, tuple(form.items()))
  batch = make_batch(model)
  batch['present'] = batch['present'].at[:, 2].set(False)
  batch['ir'] = jnp.full_like(batch['ir'], jnp.nan)  # 0 times NaN must not reach a gradient either

  @jax.jit
  @functools.partial(jax.grad, argnums=(0, 1))
  def gradient(images, params):
    out, _ = model.apply({**variables, 'params': params}, {**batch, **images}, jax.random.key(1))
    return (out['logit'] ** 2).sum()

  images, params = gradient({m: batch[m] for m in model.modalities}, variables['params'])
  assert np.abs(images['rgb']).max() > 0
  assert np.abs(images['depth']).max() > 0
  assert np.abs(images['ir']).max() == 0
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(params))
  dead = {
    jax.tree_util.keystr(path)
    for path, g in jax.tree_util.tree_leaves_with_path(params)
    if not np.abs(g).max() > 0
  }
  stand_ins = {f"['token_{m}_{i}']" for m in ('rgb', 'depth') for i in range(4)}
  assert not {d for d in dead - stand_ins if 'logit' not in d}


@pytest.mark.parametrize('backbone', lookup.choices('backbone'))
def test_stage_maps_are_as_promised_and_bfloat16_is_finite(backbone):
  model, variables = make(backbone, dtype='bfloat16')
  batch = make_batch(model)
  maps = jax.jit(functools.partial(model.encode, modality='ir'))(variables, batch['ir'])
  widths = model.module.streams['shared'].widths
  assert [m.shape[-1] for m in maps] == list(widths)
  sides = [m.shape[1] for m in maps]
  assert sides == sorted(sides, reverse=True)  # shallow to deep
  assert all(m.dtype == jnp.bfloat16 for m in maps)
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))
  out, stats = jax.jit(model.apply)(variables, batch, jax.random.key(0))
  assert out['logit'].dtype == jnp.float32
  assert np.isfinite(out['logit']).all()
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(stats))


def test_streams_share_weights_or_do_not():
  shared, _ = make()
  model, variables = make(share=False)
  batch = make_batch(model)
  assert {k for k in variables['params'] if 'stream' in k} == {
    'streams_rgb',
    'streams_depth',
    'streams_ir',
  }
  encode = jax.jit(model.encode, static_argnames='modality')
  depth = encode(variables, batch['depth'], modality='depth')[-1]
  assert np.abs(depth - encode(variables, batch['depth'], modality='ir')[-1]).max() > 0.1
  _, one = make()
  assert {k for k in one['params'] if 'stream' in k} == {'streams_shared'}
  encode = jax.jit(shared.encode, static_argnames='modality')
  np.testing.assert_array_equal(
    encode(one, batch['depth'], modality='depth')[-1],
    encode(one, batch['depth'], modality='ir')[-1],
  )


@pytest.mark.parametrize('share', [True, False])
@pytest.mark.parametrize('absent', flexmodal.ABSENT)
def test_training_and_evaluation_fill_in_the_same(absent, share):
  """The training pass (stacked streams) with frozen statistics equals encode and decide."""
  model, variables = make('vit', absent=absent, share=share)
  batch = make_batch(model)
  batch['present'] = jnp.array([[1, 0, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]], bool)
  whole = jax.jit(functools.partial(model.module.apply, train=False))(variables, batch)
  np.testing.assert_allclose(whole['logit'], decide(model, variables, batch), atol=1e-5)


def test_a_device_with_rgb_alone_runs_one_stream():
  model, variables = make()
  batch = make_batch(model)

  @jax.jit
  def rgb_alone(variables, image):
    maps = {'rgb': model.encode(variables, image, 'rgb')}
    present = jnp.ones((4, 3), bool)  # whatever it says, there is no depth and no infrared
    return model.decide(variables, maps, model.absent_maps(variables), present)['logit']

  batch['present'] = jnp.array([[1, 0, 0]] * 4, bool)
  np.testing.assert_allclose(
    rgb_alone(variables, batch['rgb']), decide(model, variables, batch), atol=1e-6
  )


def test_subsets_that_a_fusion_cannot_serve_are_not_offered():
  model, _ = make(fusion='cross_attention')
  assert model.subsets == (
    ('rgb',),
    ('rgb', 'depth'),
    ('rgb', 'ir'),
    ('rgb', 'depth', 'ir'),
  )
  assert len(make()[0].subsets) == 7


@pytest.mark.parametrize(
  'change,said',
  [
    ({'backbone': {'name': 'swin'}}, "unknown backbone 'swin'; choose one of: resnet, vit"),
    ({'backbone': {'name': 'vit', 'variant': 'XXL'}}, "unknown vit variant 'XXL'; .*mu, pico, Ti"),
    ({'backbone': {'name': 'vit', 'depth': 3}}, "'vit' has no field 'depth'; it has: variant"),
    ({'fusion': {'name': 'sum'}}, "unknown fusion 'sum'; choose one of: concat, cross_attention"),
    ({'fusion': {'name': 'cross_attention', 'form': 'odd'}}, "no form 'odd'"),
    ({'head': {'name': 'nothing'}}, "unknown head 'nothing'; choose one of: binary_logit"),
    ({'absent': 'noise'}, "'noise'; choose one of: .*token"),
    ({'dtype': 'float16'}, "unknown dtype 'float16'"),
    (
      {'fusion': {'name': 'cross_attention'}, 'modalities': ('depth', 'ir')},
      'keys and values from rgb',
    ),
  ],
)
def test_what_cannot_be_built_says_what_can(change, said):
  fields = {
    'backbone': {'name': 'vit', 'variant': 'mu'},
    'fusion': {'name': 'concat'},
    'head': {'name': 'binary_logit'},
  }
  with pytest.raises(ConfigError, match=said):
    flexmodal.build(**{**fields, **change})
