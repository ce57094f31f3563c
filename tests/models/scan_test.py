"""Scanned layers of the ViT: the unrolled model's function, and foreign weights in and out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict

from flexfas_jax.errors import StateError
from flexfas_jax.models import flexmodal, transformer
from flexfas_jax.models.backbone import vit
from flexfas_jax.models.weights import conversion, transfer, variable_tree
from flexfas_jax.models.weights import files as weight_files
from flexfas_jax.training import sharding
from tests import toy
from tests.models.remat_test import kept
from tests.models.weights.conversion_test import assert_same, fill, shapes_of

SCAN = (('variant', 'deep'), ('scan', True))
UNROLLED = (('variant', 'deep'),)
TINY = 'timm/vit_tiny_patch16_224'


@pytest.fixture(autouse=True, scope='module')
def deep():
  """A toy of six blocks: four stages of 1, 2, 1 and 2."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(vit.VARIANTS, 'deep', vit.Variant(32, 6, 2))
    yield


def make(fields, fusion='multi_layer_aggregation'):
  return toy.make('vit', fusion, fields=fields)


near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


@functools.cache
def outcome(scan, remat):
  """(map, gradients by the unrolled stage's names) of a stage behind a projection."""
  stage = functools.partial(transformer.Stage, 1, 3, 32, FrozenDict(heads=2))
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 2, 16)), jnp.float32)
  stages = stage(), stage(scan=scan, remat=remat)
  unrolled, like = (jax.eval_shape(s.init, jax.random.key(0), x) for s in stages)
  params = variable_tree.restack(toy.fill(unrolled), like)['params']

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
  def gradient(params, x):
    y = stages[1].apply({'params': params}, x, train=True)
    return (y**2).mean(), y

  (_, y), (slopes, slope) = gradient(params, x)
  return y, slope, variable_tree.restack({'params': slopes}, unrolled)['params']


@pytest.mark.parametrize('remat', [False, True])
def test_outputs_and_gradients_are_the_unrolled_stage_s(remat):
  found, expected = outcome(True, remat), outcome(False, False)
  jax.tree.map(near, found, expected)
  assert all(np.abs(g).max() > 1e-3 for g in jax.tree.leaves(expected[1:]))


def test_outputs_are_the_unrolled_model_s():
  """Of streams and joint stages, in training."""
  (model, like), (scanned, variables) = make(UNROLLED), make(SCAN)
  batch = toy.make_batch(model, B=2)
  found, _ = jax.jit(scanned.apply)(variables, batch, jax.random.key(1))
  restacked = variable_tree.restack(variables, like)
  expected, _ = jax.jit(model.apply)(restacked, batch, jax.random.key(1))
  near(found['logit'], expected['logit'])


def test_a_stage_s_blocks_are_one_stack():
  _, variables = make(SCAN)
  fusion, stream = variables['params']['fusion'], variables['params']['streams_shared']
  assert set(fusion['main']) == {'entry', 'blocks_4'}
  assert fusion['later_2']['blocks_4']['fc1']['kernel'].shape == (2, 32, 128)
  assert [list(stream[f'stage_{i}']) for i in (1, 2, 3)] == [
    ['blocks_0'],
    ['blocks_1'],
    ['blocks_3'],
  ]
  assert stream['stage_2']['blocks_1']['norm1']['scale'].shape == (2, 32)
  assert vit.unstacked_paths(('stage_2', 'blocks_1', 'norm1', 'scale'), (2, 32)) == [
    ('stage_2', 'block_1', 'norm1', 'scale'),
    ('stage_2', 'block_2', 'norm1', 'scale'),
  ]
  assert vit.unstacked_paths(('stage_2', 'entry', 'bias'), (32,)) == [('stage_2', 'entry', 'bias')]


def test_each_block_starts_and_drops_on_its_own():
  stage = transformer.Stage(0, 2, 64, FrozenDict(heads=2, dropout=0.5), scan=True)
  x = jnp.zeros((1, 3, 64))
  block = jax.jit(stage.init)(jax.random.key(0), x)['params']['blocks_0']
  first, second = block['fc1']['kernel']
  assert np.abs(first - second).max() > 0.1
  # Each block adds 1, dropped (0) or doubled (2): were the draws the same, no sum would be 2.
  block = jax.tree.map(jnp.zeros_like, block)
  block['fc2']['bias'] = jnp.ones((2, 64))
  run = functools.partial(stage.apply, train=True, rngs={'dropout': jax.random.key(0)})
  values, counts = np.unique(jax.jit(run)({'params': {'blocks_0': block}}, x), return_counts=True)
  assert values.tolist() == [0, 2, 4]
  assert counts[1] > 50


def test_the_program_does_not_grow_with_the_depth():
  def lines(depth, scan):
    stage = transformer.Stage(0, depth, 32, FrozenDict(heads=2), scan=scan)
    x = jax.ShapeDtypeStruct((2, 4, 32), jnp.float32)
    variables = jax.eval_shape(stage.init, jax.random.key(0), x)
    gradient = jax.grad(lambda variables, x: stage.apply(variables, x).sum())
    return len(jax.jit(gradient).lower(variables, x).as_text().splitlines())

  assert lines(8, scan=True) == lines(4, scan=True)
  assert lines(8, scan=False) > 1.5 * lines(4, scan=False)


def test_no_more_is_kept_for_the_gradient_than_unrolled():
  """A loop would keep what the compiler otherwise computes again: softmax, GELU, norms."""
  stage = functools.partial(transformer.Stage, 0, 4, 32, FrozenDict(heads=2))
  x = jax.ShapeDtypeStruct((64, 16, 32), jnp.float32)
  unrolled, scanned, both = (
    kept(stage(**fields), x) for fields in ({}, {'scan': True}, {'scan': True, 'remat': True})
  )
  assert both < 0.4 * scanned < 0.3 * unrolled, (both, scanned, unrolled)


def test_intermediates_have_the_same_names():
  def named(fields):
    model, variables = make(fields, 'concat')
    image = jnp.zeros((2, 16, 16, 1))
    return jax.eval_shape(lambda v, x: model.intermediates(v, x, 'ir'), variables, image)

  assert named(SCAN) == named(UNROLLED)


def test_fsdp_does_not_cut_the_axis_of_the_layers():
  stage = transformer.Stage(0, 6, 192, FrozenDict(heads=3), scan=True)
  abstract = jax.eval_shape(stage.init, jax.random.key(0), jnp.zeros((1, 4, 192)))
  places = sharding.state_sharding(abstract, sharding.make_mesh(fsdp=2))
  for place in jax.tree.leaves(places):
    assert place.spec[0] is None and place.spec[-1] == 'fsdp'


# Foreign weights


def test_timm_s_file_goes_in_and_comes_out(tmp_path):
  tensors = {n: v for n, v in fill(shapes_of(TINY)).items() if not n.startswith('head.')}
  file = tmp_path / 'tiny.safetensors'
  weight_files.write(file, tensors)
  fields = {'variant': 'Ti', 'patch_size': 16, 'image_size': 224, 'scan': True}
  _, variables = make(tuple(fields.items()), 'concat')
  source = transfer.parse_config({'weights': str(file), 'architecture': TINY}, variables)
  arrays, line = transfer.load(source, jax.eval_shape(lambda: variables))
  assert f'{len(arrays)} arrays' in line and 'as initialised' not in line
  new = transfer.assign(variables, arrays)
  assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, variables)
  stack = new['params']['streams_shared']['stage_2']['blocks_3']['fc1']['kernel']
  np.testing.assert_array_equal(stack[1], tensors['blocks.4.mlp.fc1.weight'].T)
  written = conversion.to_torch(new, TINY, stream='shared')
  assert written.keys() == tensors.keys()
  for name, value in written.items():
    np.testing.assert_array_equal(value, tensors[name], name)


def test_the_released_model_goes_in_and_comes_out(monkeypatch):
  """All of it, with its fusion and head; small here."""
  origin = conversion.ARCHITECTURES['flex_modal_fas/vit_cross_attention']
  origin = origin._replace(backbone={**origin.backbone, 'variant': 'deep'}, image_size=32)
  monkeypatch.setitem(conversion.ARCHITECTURES, 'small', origin)
  scanned = flexmodal.build(
    {**origin.backbone, 'scan': True},
    origin.fusion,
    origin.head,
    image_size=32,
    **origin.options,
  )
  like = jax.eval_shape(scanned.init, jax.random.key(0))
  variables = toy.fill(like)
  tensors = conversion.to_torch(variables, 'small')
  assert {'vit.blocks.5.mlp.fc2.bias', 'ConvFuse.0.weight', 'fc.weight'} < tensors.keys()
  _, unrolled = conversion.from_torch(tensors, 'small')
  assert 'block_5' in unrolled['params']['streams_shared']['stage_4']
  assert_same(variable_tree.restack(unrolled, like), variables)
  assert_same(conversion.to_torch(unrolled, 'small'), tensors)


def backbone(fields):
  _, variables = toy.make('vit', 'single', head='embedding', absent='exclude', fields=fields)
  return variables


@pytest.mark.parametrize('into', ['streams', 'aggregation'])
def test_a_model_starts_from_either_form(into):
  source_run = backbone(SCAN)
  (_, stacked), (_, unrolled) = make(SCAN), make(UNROLLED)
  source_runs = source_run, variable_tree.restack(source_run, backbone(UNROLLED))
  expected = toy.initialised(unrolled, source_runs[1], into)
  kernel = source_run['params']['streams_shared']['stage_2']['blocks_1']['fc1']['kernel']
  for part in ('streams_shared', 'stage_2'), ('fusion', 'later_0'):
    if into == 'aggregation' or part[0] != 'fusion':
      found = expected['params'][part[0]][part[1]]['block_2']['fc1']['kernel']
      np.testing.assert_array_equal(found, kernel[1])
  for either in source_runs:
    found = toy.initialised(stacked, either, into)
    streams = variable_tree.restack(found, unrolled)['params']['streams_shared']
    assert_same(streams, expected['params']['streams_shared'])
    if into == 'aggregation':
      later = variable_tree.restack(found, unrolled)['params']['fusion']['later_2']['block_5']
      assert_same(later, expected['params']['fusion']['later_2']['block_5'])
  assert_same(
    toy.initialised(unrolled, source_runs[0], into)['params'],
    expected['params'],
  )


def test_weights_that_do_not_fit_are_named():
  _, variables = make(SCAN)
  shallow, wide = backbone((('variant', 'mu'),)), backbone((('variant', 'pico'),))
  with pytest.raises(StateError, match='streams_shared/stage_2/block_2/attn/.* not among the'):
    toy.initialised(variables, shallow)
  with pytest.raises(StateError, match=r'patch_embed/bias: \(96,\) does not match \(32,\)'):
    toy.initialised(variables, wide)
  with pytest.raises(
    StateError, match='belong to another model; these differ: .*stage_2/block_2/attn'
  ):
    variable_tree.restack(shallow, backbone(SCAN))
