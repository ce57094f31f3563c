"""The model's contracts, for every backbone and fusion that the folders hold."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flexfas_jax import lookup
from flexfas_jax.errors import ConfigError
from flexfas_jax.images.preprocess import Preprocess
from flexfas_jax.input_pipeline import sources
from flexfas_jax.models import flexmodal
from flexfas_jax.training import losses
from tests.toy import make, make_batch

MODALITIES = ('rgb', 'depth', 'ir')

FIELDS = {  # further forms of a fusion; each file is there with its defaults
  'cdcn_three_stream': [{}, {'faithful': True}],
  'cross_attention': [{}, {'form': 'symmetric', 'scaled': True}],
  'multi_layer_aggregation': [{'variant': 'A'}, {'variant': 'B'}, {'variant': 'C'}],
  'squeeze_excite': [{'reduction': 2}],  # an eighth of a toy's channels is one, and dies easily
}
FUSIONS = [(n, f) for n in lookup.choices('fusion') if n != 'single' for f in FIELDS.get(n, [{}])]
PAIRS = [(b, n, f) for n, f in FUSIONS for b in lookup.choices('backbone')]
# Those that are trained: every fusion once, and every backbone with the fusion that reads all of
# its maps. `experiments/flexmodal` trains all pairs.
TRAINED = [
  (b, n, f)
  for b, n, f in PAIRS
  if b == 'vit' or (n == 'multi_layer_aggregation' and f == {'variant': 'A'})
]


PROGRAMS = {}  # a model's, compiled once; `make` keeps the models


def decide(model, variables, batch):
  def run(variables, batch):
    maps = {m: model.encode(variables, batch[m], m) for m in model.modalities}
    return model.decide(variables, maps, model.absent_maps(variables), batch['present'])['logit']

  return PROGRAMS.setdefault(id(model), jax.jit(run))(variables, batch)


# What stands for an absent modality is put in before any fusion; leaving it out is each one's own.
ABSENT = [('exclude', *fusion) for fusion in FUSIONS]
ABSENT += [(a, n, {}) for a in ('token', 'blank') for n in ('concat', 'cross_attention')]


@pytest.mark.parametrize('absent,fusion,form', ABSENT)
def test_pixels_of_an_absent_modality_change_nothing(absent, fusion, form):
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
  batch = make_batch(model, B=32)  # of two or four, the last norms turn rounding into much more
  batch['present'] = batch['present'].at[16:, 1].set(False)
  half = {k: v[:16] for k, v in batch.items()}
  # Depth's alone: of the other streams nothing is compiled then.
  apply = jax.jit(lambda *args: model.apply(*args)[1]['streams_depth'])
  stats, expected = (apply(variables, x, jax.random.key(1)) for x in (batch, half))
  near = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  jax.tree.map(near, stats, expected)


@pytest.fixture(scope='session')
def triplets(prepared):
  """Eight samples of the embedded set, both labels: raw examples."""
  source = sources.open_source('rendered_faces/surf_like_tiny:train', prepared)
  labels = [source[i]['label'] for i in range(len(source))]
  live, attack = labels.index(1), labels.index(0)
  return [source[i] for i in range(live, live + 4)] + [source[i] for i in range(attack, attack + 4)]


def real_batch(model, triplets):
  preprocess = Preprocess(model.image_size, model.modalities)
  arrays = [preprocess(example) for example in triplets]
  return {k: np.stack([a[k] for a in arrays]) for k in arrays[0]}


@pytest.mark.parametrize('backbone,fusion,form', [pair for pair in PAIRS if pair not in TRAINED])
def test_every_backbone_goes_with_every_fusion(backbone, fusion, form):
  model, variables = make(backbone, fusion, tuple(form.items()))
  batch = make_batch(model)
  out, stats = jax.eval_shape(model.apply, variables, batch, jax.random.key(0))
  assert out['logit'].shape == (4,) and out['logit'].dtype == jnp.float32
  assert jax.tree.map(jnp.shape, stats) == jax.tree.map(jnp.shape, variables['batch_stats'])


@pytest.mark.parametrize('backbone,fusion,form', TRAINED)
def test_gradient_reaches_what_is_present_and_training_lowers_the_loss(
  backbone, fusion, form, triplets
):
  """One compiled program for both: it is what costs."""
  model, variables = make(backbone, fusion, tuple(form.items()))
  batch = real_batch(model, triplets)
  assert {0, 1} == set(batch['label'].tolist())
  here = {**batch, 'present': batch['present'].copy()}
  here['present'][:, 2] = False
  here['ir'] = np.full_like(batch['ir'], np.nan)  # 0 times NaN must not reach a gradient either

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1))
  def gradient(images, params, batch):
    out, _ = model.apply({**variables, 'params': params}, {**batch, **images}, jax.random.key(1))
    return losses.binary_cross_entropy(out, batch).mean()

  _, (images, params) = gradient({m: here[m] for m in MODALITIES}, variables['params'], here)
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
  assert not dead - stand_ins

  params, found = variables['params'], []
  for _ in range(6):
    value, (_, slopes) = gradient({m: batch[m] for m in MODALITIES}, params, batch)
    found.append(float(value))
    slopes = jax.device_get(slopes)
    rate = 0.05 / np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(slopes)))
    params = jax.tree.map(lambda p, g, rate=rate: np.asarray(p) - rate * g, params, slopes)
  assert found[-1] < found[0], found


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
    ({'backbone': {'name': 'swin'}}, "unknown backbone 'swin'; .*cdcn, ir_resnet, resnet, vit"),
    ({'backbone': {'name': 'vit', 'variant': 'XXL'}}, "unknown vit variant 'XXL'; .*mu, pico, Ti"),
    ({'backbone': {'name': 'vit', 'width': 3}}, "'vit' has no field 'width'; it has: variant"),
    ({'fusion': {'name': 'sum'}}, "unknown fusion 'sum'; .*concat, cross_attention"),
    ({'fusion': {'name': 'cross_attention', 'form': 'odd'}}, "no form 'odd'"),
    ({'head': {'name': 'nothing'}}, "unknown head 'nothing'; choose one of: binary_logit"),
    ({'absent': 'noise'}, "'noise'; choose one of: .*token"),
    ({'dtype': 'float16'}, "unknown dtype 'float16'"),
    (
      {'fusion': {'name': 'cross_attention'}, 'modalities': ('depth', 'ir')},
      'keys and values from rgb',
    ),
    ({'fusion': {'name': 'single'}}, "one modality, not .'rgb', 'depth', 'ir'"),
    ({'fusion': {'name': 'multi_layer_aggregation', 'variant': 'D'}}, "'D'; .*A, B, C"),
    (
      {
        'fusion': {'name': 'multi_layer_aggregation'},
        'backbone': {'name': 'vit', 'variant': 'deep'},
      },
      "unknown vit variant 'deep'",
    ),
    (
      {'fusion': {'name': 'cdcn_three_stream', 'faithful': True}, 'modalities': ('rgb', 'ir')},
      "faithful=True gives depth one of rgb's maps",
    ),
    ({'backbone': {'name': 'vit', 'output': 'mean'}}, "no output 'mean'.*patches, class_token"),
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


def test_a_picture_too_small_for_a_backbone_is_refused():
  fields = {'fusion': {'name': 'concat'}, 'head': {'name': 'binary_logit'}, 'image_size': 40}
  model = flexmodal.build({'name': 'caffe_resnet', 'variant': 'mu'}, **fields)
  with pytest.raises(ConfigError, match='a 3x3 map is too small .*larger image_size'):
    jax.eval_shape(model.init, jax.random.key(0))


def test_streams_build_no_stage_that_the_fusion_does_not_read():
  whole, _ = make('resnet', 'concat')
  _, variables = make('resnet', 'multi_layer_aggregation')
  assert 'stage_3' in variables['params']['streams_shared']
  assert 'stage_4' not in variables['params']['streams_shared']
  assert set(variables['params']['fusion']) >= {'later_0', 'later_1', 'later_2', 'main'}
  assert len(whole.module.streams['shared'].widths) == 4


def test_no_fusion_serves_one_modality():
  model, variables = make('vit', 'single')
  assert model.subsets == (('rgb',),)
  batch = make_batch(model)
  maps = jax.jit(lambda v, x: model.encode(v, x, 'rgb'))(variables, batch['rgb'])
  logit = decide(model, variables, batch)
  head = variables['params']['head']['logit']
  expected = np.asarray(maps[-1]).mean((1, 2)) @ np.asarray(head['kernel'])[:, 0] + head['bias'][0]
  np.testing.assert_allclose(logit, expected, atol=1e-5)


def test_branch_logits_are_each_modality_alone():
  model, variables = make('vit', 'concat', branches=True)
  batch = make_batch(model)
  out, _ = jax.jit(model.apply)(variables, batch, jax.random.key(0))
  maps = jax.jit(lambda v, x: model.encode(v, x, 'depth'))(variables, batch['depth'])
  branch = variables['params']['branches_depth']
  kernel, bias = np.asarray(branch['kernel']), np.asarray(branch['bias'])
  expected = np.asarray(maps[-1]).mean((1, 2)) @ kernel + bias
  np.testing.assert_allclose(out['branch_logit'][:, 1:2], expected, atol=1e-5)
  assert out['branch_logit'].shape == (4, 3)


@pytest.mark.parametrize('backbone', lookup.choices('backbone'))
def test_intermediates_have_names(backbone):
  model, variables = make(backbone, 'concat')
  batch = make_batch(model)
  shapes = jax.eval_shape(lambda v, x: model.intermediates(v, x, 'ir'), variables, batch['ir'])
  widths = model.module.streams['shared'].widths
  assert set(shapes) == {'stem', *(f'map_{i}' for i in range(1, len(widths) + 1))}
  assert [shapes[f'map_{i}'].shape[-1] for i in range(1, len(widths) + 1)] == list(widths)
