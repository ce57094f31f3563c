"""The contracts of every adapter that the folder holds, and of the ViT that carries it."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flexfas_jax import lookup
from flexfas_jax.errors import ConfigError
from flexfas_jax.models import flexmodal, hooks
from flexfas_jax.models.adapters import lora
from flexfas_jax.models.weights import variable_tree
from flexfas_jax.training import losses
from tests import toy

MODALITIES = ('rgb', 'depth', 'ir')
JOINT = {'sequence': 'joint'}
ROTARY = {**JOINT, 'positions': 'rotary'}
FORMS = {  # (fields of the adapter, fields of the ViT); a file that is not here has its defaults
  'ama': [({'parts': p}, JOINT) for p in ('shared', 'independent', 'both', 'dynamic')],
  'conv': [({}, {}), ({'per_modality': True, 'sites': ('mlp',)}, {}), ({}, JOINT)],
  'lora': [({'targets': ('q', 'k', 'v', 'o')}, {}), ({'targets': ('v',), 'rank': 2}, ROTARY)],
  'modality_token': [({}, {}), ({}, JOINT)],
  'prompts': [
    ({'length': 3, 'contextual': True}, {}),
    ({'length': 4, 'kind': 'attention', 'blocks': (1,)}, JOINT),
  ],
  'uncertain_cross': [
    ({}, {'per_modality': ('cls_token', 'pos_embed')}),
    ({'pairs': 'all', 'draws': 3}, {}),
  ],
  'uncertain_cross_plus': [({'draws': 4}, {'registers': 2})],
}
CASES = [
  (name, tuple(fields.items()), tuple(backbone.items()))
  for name in lookup.choices('adapter')
  for fields, backbone in FORMS.get(name, [({}, {})])
]
ADDS_TOKENS = ('modality_token', 'prompts')  # the network differs from the pretrained one at once


def make(name, fields, backbone, **more):
  adapters = ({'name': name, **dict(fields)},)
  return toy.make(fields=(('adapters', Hashable(adapters)), *backbone), **more)


class Hashable(tuple):
  """The adapters of a toy: `toy.make` is cached by its arguments."""

  def __hash__(self):
    return hash(repr(tuple(self)))


@functools.partial(jax.jit, static_argnums=0)
def logits(model, variables, images, present):
  maps = model.encode_all(variables, images, present)
  if present is None:
    present = jnp.array([[m in images for m in model.modalities]])
  return model.decide(variables, maps, model.absent_maps(variables), present)['logit']


@pytest.mark.parametrize('absent', flexmodal.ABSENT)
@pytest.mark.parametrize('case', CASES, ids=str)
def test_an_absent_modality_cannot_change_a_score(case, absent):
  """Neither its pixels, nor whether its image is there at all."""
  if absent != 'token' and case[1:] != next(c for c in CASES if c[0] == case[0])[1:]:
    pytest.skip('one form of an adapter for each placeholder')
  model, variables = make(*case, absent=absent)
  batch = toy.make_batch(model)
  present = jnp.array([[1, 0, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]], bool)
  images = {m: batch[m] for m in MODALITIES}
  found = logits(model, variables, images, present)
  assert np.isfinite(found).all()
  hidden = {
    m: jnp.where(present[:, i, None, None, None], images[m], (jnp.nan, jnp.nan, jnp.inf)[i])
    for i, m in enumerate(MODALITIES)
  }
  np.testing.assert_array_equal(found, logits(model, variables, hidden, present))
  moved = logits(model, variables, {**images, 'depth': images['depth'] + 1}, present)
  assert (moved != found).tolist() == [False, True, False, True]
  for row, subset in ((2, ('rgb',)), (0, ('rgb', 'ir'))):
    alone = logits(model, variables, {m: images[m] for m in subset}, None)
    np.testing.assert_allclose(alone[row], found[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  'case', [c for c in CASES if lookup.find('adapter', c[0]).cross_modal], ids=str
)
def test_a_score_depends_on_no_other_sample_of_the_batch(case):
  model, variables = make(*case)
  batch = toy.make_batch(model)
  present = jnp.array([[1, 0, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]], bool)
  images = {m: batch[m] for m in MODALITIES}
  found = logits(model, variables, images, present)
  turned = {m: x[::-1] for m, x in images.items()}
  near = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  near(logits(model, variables, turned, present[::-1])[::-1], found)
  last = {m: x[3:] for m, x in images.items()}
  near(logits(model, variables, last, present[3:]), found[3:])


@pytest.mark.parametrize('case', [c for c in CASES if c[0] not in ADDS_TOKENS], ids=str)
def test_at_first_the_network_is_the_pretrained_one(case):
  """A frozen backbone starts with the function that its weights were trained for."""
  plain, variables = toy.make(fields=case[2])
  model, _ = make(*case)
  start = jax.jit(model.init)(jax.random.key(0))
  kept = dict(variable_tree.flatten(variables))
  variables_of = variable_tree.unflatten(
    (path, kept.get(path, value)) for path, value in variable_tree.flatten(start)
  )
  assert len(variable_tree.flatten(start)) > len(kept)
  batch = toy.make_batch(model)
  images, present = {m: batch[m] for m in MODALITIES}, jnp.ones((4, 3), bool)
  np.testing.assert_allclose(
    logits(model, variables_of, images, present),
    logits(plain, variables, images, present),
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.parametrize('case', CASES, ids=str)
def test_gradients_reach_every_parameter_and_no_absent_image(case):
  model, variables = make(*case)
  batch = toy.make_batch(model)
  present = jnp.array([[1, 0, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]], bool)
  batch = {**batch, 'present': present, 'ir': batch['ir'].at[1:3].set(jnp.nan)}

  @jax.jit
  @functools.partial(jax.grad, argnums=(0, 1))
  def gradient(params, image):
    out, _ = model.apply({**variables, 'params': params}, {**batch, 'ir': image}, jax.random.key(1))
    return losses.binary_cross_entropy(out, batch).mean()

  slopes, image = gradient(variables['params'], batch['ir'])
  assert np.abs(image[1:3]).max() == 0 and np.abs(image[0]).max() > 0
  slopes = {'/'.join(path): np.abs(g).max() for path, g in variable_tree.flatten(slopes)}
  assert all(np.isfinite(g) for g in slopes.values())
  added = {path for path in slopes if 'adapters_' in path}
  assert added
  # The batch has samples of one, two and three modalities, so that every part is used.
  dead = {path for path in added if not slopes[path] > 0}
  assert not dead, dead


@pytest.mark.parametrize('case', CASES, ids=str)
def test_bfloat16_is_finite_and_parameters_are_float32(case):
  model, variables = make(*case, dtype='bfloat16')
  batch = toy.make_batch(model)
  out, _ = jax.jit(model.apply)(variables, batch, jax.random.key(0))
  assert out['logit'].dtype == jnp.float32 and np.isfinite(out['logit']).all()
  assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


@pytest.mark.parametrize('case', [c for c in CASES if 'blocks' not in dict(c[1])], ids=str)
def test_remat_and_scan_compute_the_same(case):
  """In a ViT whose stages have more than one block."""
  name, fields, backbone = case
  deep = (*backbone, ('depth', 6))
  model, variables = make(name, fields, deep)
  batch = toy.make_batch(model)
  images, present = {m: batch[m] for m in MODALITIES}, jnp.array([[1, 0, 1]] * 4, bool)
  expected = logits(model, variables, images, present)
  other, like = make(name, fields, (*deep, ('scan', True), ('remat', True)))
  restacked = variable_tree.restack(variables, like)
  np.testing.assert_allclose(
    logits(other, restacked, images, present), expected, rtol=1e-5, atol=1e-5
  )


FUSIONS = [n for n in lookup.choices('fusion') if n != 'single']


@pytest.mark.parametrize('fusion', FUSIONS)
@pytest.mark.parametrize('case', CASES, ids=str)
def test_every_fusion_takes_every_adapter_that_it_can(case, fusion):
  find = functools.partial(lookup.find, 'adapter')
  cross = find(case[0]).cross_modal or dict(case[2]).get('sequence') == 'joint'
  if cross and 'later' in lookup.find('fusion', fusion).__dataclass_fields__:
    with pytest.raises(ConfigError, match='without stages of the backbone'):
      make(*case, fusion=fusion)
    return
  model, variables = make(*case, fusion=fusion)
  assert model.cross_modal == cross
  out, _ = jax.eval_shape(model.apply, variables, toy.make_batch(model), jax.random.key(0))
  assert out['logit'].shape == (4,)


@pytest.mark.parametrize('rate', ['rank_stabilised', 'standard'])
def test_merged_lora_is_the_same_function(rate):
  fields = (('targets', ('q', 'k', 'v', 'o')), ('scaling', rate), ('rank', 2))
  model, variables = make('lora', fields, ())
  plain, like = toy.make()
  adapter = lookup.make('adapter', name='lora', **dict(fields), parent=None)
  assert adapter.scale == pytest.approx(8 / 2**0.5 if rate == 'rank_stabilised' else 4)
  merged = {**variables, 'params': lora.merge(variables['params'], adapter)}
  assert jax.tree.structure(merged) == jax.tree.structure(like)
  batch = toy.make_batch(model)
  images, present = {m: batch[m] for m in MODALITIES}, jnp.ones((4, 3), bool)
  near = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  near(logits(plain, merged, images, present), logits(model, variables, images, present))


def count(model, part):
  return sum(
    int(np.prod(x.shape))
    for path, x in variable_tree.flatten(model.shapes()['params'])
    if part in '/'.join(path)
  )


def published(adapters, **backbone):
  return flexmodal.build(
    {'name': 'vit', 'variant': 'B', 'adapters': adapters, **backbone},
    {'name': 'plain_concat'},
    {'name': 'binary_logit'},
    absent='exclude',
  )


def test_parameters_are_as_many_as_published():
  conv = published(({'name': 'conv'},))
  assert count(conv, 'block_0/adapters_conv_mlp/') == 13_640
  assert count(conv, 'adapters_') == 24 * 13_640
  assert count(published(({'name': 'lora'},)), 'adapters_') == 294_912
  mmdg = published(
    ({'name': 'uncertain_cross'},),
    per_modality=('cls_token', 'pos_embed'),
    output='class_token',
  )
  assert count(mmdg, 'adapters_') == 48 * 20_072 == 963_456
  trained = ('adapters_', 'cls_token', 'pos_embed', 'block_11/', 'streams_shared/norm/', 'head/')
  counts = [count(mmdg, part) for part in trained]
  both = count(mmdg, 'block_11/adapters_')
  # MMDG's head has two columns, of which this one has the difference.
  head = 3 * 768 + 1
  assert counts[-1] == head
  assert sum(counts) - both + head == 8_513_666
  # The original has three equal patch projections, and two columns.
  whole = count(mmdg, '') + 2 * count(mmdg, 'patch_embed') + head
  assert whole == 88_252_034


@pytest.mark.parametrize(
  'adapter,backbone,message',
  [
    ({'name': 'bottleneck'}, {}, "unknown adapter 'bottleneck'; choose one of: ama, conv, lora"),
    ({'name': 'conv', 'rank': 2}, {}, "adapter 'conv' has no field 'rank'; it has: blocks"),
    ({'name': 'conv', 'sites': ('norm',)}, {}, "no site 'norm' in a block; choose from: attention"),
    ({'name': 'conv', 'per_modality': True}, JOINT, 'one class token for all modalities'),
    ({'name': 'conv', 'blocks': (2,)}, {}, 'conv: no block 2; vit mu has 2'),
    ({'name': 'lora', 'targets': ('mlp',)}, {}, "no target 'mlp'; choose from: q, k, v, o"),
    ({'name': 'lora', 'scaling': 'sqrt'}, {}, "no scaling 'sqrt'; choose 'rank_stabilised'"),
    ({'name': 'ama'}, {}, "needs config.model.backbone.sequence = 'joint'"),
    ({'name': 'ama', 'parts': 'all'}, JOINT, "no parts 'all'; choose one of: shared"),
    ({'name': 'uncertain_cross'}, JOINT, "sequence = 'separate'"),
    ({'name': 'uncertain_cross', 'pairs': 'some'}, {}, "no pairs 'some'"),
    ({'name': 'uncertain_cross_plus', 'heads': 3}, {}, 'width 8 is no multiple of heads 3'),
    ({'name': 'prompts', 'kind': 'output'}, {}, "no kind 'output'"),
    ({'name': 'prompts', 'kind': 'attention', 'length': 3}, {}, 'an even length, not 3'),
    (
      {'name': 'conv', 'blocks': (3,)},
      {'depth': 4 * 2, 'scan': True},
      "with scan=True, all or none of a stage's blocks can have it: 2 to 3",
    ),
  ],
)
def test_what_does_not_fit_is_refused(adapter, backbone, message):
  with pytest.raises(ConfigError, match=message):
    toy.make(fields=(('adapters', Hashable((adapter,))), *backbone.items()))


@pytest.mark.parametrize(
  'adapters,message',
  [
    ('conv', "is 'conv'; give a tuple of the adapters' fields"),
    (None, 'is None; give a tuple'),
    (('name',), "is .'name',.; give a tuple"),
    (({'width': 8},), 'unknown adapter None'),
    (({'name': 'conv', 'blocks': 0},), 'conv.blocks is 0; give a tuple of indices'),
    (({'name': 'conv', 'blocks': ()},), 'conv.blocks is ..; give a tuple of indices'),
    (({'name': 'conv', 'width': '8'},), "conv.width is '8'; give a whole number from 1 on"),
    (({'name': 'conv', 'width': 0},), 'conv.width is 0'),
    (({'name': 'conv', 'theta': None},), 'conv.theta is None; give a number'),
    (({'name': 'conv', 'dropout': 1.0},), 'conv.dropout is 1.0; give a number from 0 to below 1'),
    (({'name': 'conv', 'per_modality': 'no'},), "per_modality is 'no'; give True or False"),
    (({'name': 'lora', 'rank': 0},), 'lora.rank is 0'),
    (({'name': 'lora', 'targets': ()},), 'lora.targets is ..; give a tuple'),
    (({'name': 'prompts', 'length': 0},), 'prompts.length is 0'),
    (({'name': 'uncertain_cross', 'heads': 0},), 'uncertain_cross.heads is 0'),
    (({'name': 'uncertain_cross', 'draws': 1},), 'uncertain_cross.draws is 1, which has no'),
    (({'name': 'uncertain_cross', 'draws': -1},), 'uncertain_cross.draws is -1; give a whole'),
    (({'name': 'uncertain_cross_plus', 'draws': 0},), 'uncertain_cross_plus.draws is 0; give'),
    (({'name': 'conv', 'dtype': 'bfloat16'},), 'the model sets dtype of conv'),
  ],
)
def test_fields_of_another_type_are_refused(adapters, message):
  with pytest.raises(ConfigError, match=message):
    flexmodal.build(
      {'name': 'vit', 'variant': 'mu', 'adapters': adapters},
      {'name': 'concat'},
      {'name': 'binary_logit'},
    )


def test_a_name_that_stands_twice_is_refused():
  with pytest.raises(ConfigError, match="a name twice: .'conv', 'conv'"):
    toy.make(fields=(('adapters', Hashable(({'name': 'conv'}, {'name': 'conv', 'width': 2}))),))


def test_adapters_between_modalities_need_shared_streams():
  with pytest.raises(ConfigError, match='share_streams=True'):
    make('uncertain_cross', (), (), share=False)


def test_several_adapters_act_together():
  adapters = ({'name': 'conv', 'sites': ('mlp',)}, {'name': 'lora'}, {'name': 'modality_token'})
  model, variables = toy.make(fields=(('adapters', Hashable(adapters)),))
  paths = {'/'.join(path) for path, _ in variable_tree.flatten(variables['params'])}
  block = 'streams_shared/stage_1/block_0'
  assert f'{block}/adapters_conv_mlp/down/kernel' in paths
  assert f'{block}/attn/adapters_lora/q_a' in paths
  assert 'streams_shared/adapters_modality_token/token' in paths
  assert not model.cross_modal
  batch = toy.make_batch(model)
  images = {m: batch[m] for m in MODALITIES}
  assert np.isfinite(logits(model, variables, images, jnp.ones((4, 3), bool))).all()


def test_a_context_splits_and_joins_tokens():
  x = jnp.arange(4 * 7 * 2.0).reshape(4, 7, 2)
  for joint, modalities in ((False, ('rgb', 'ir')), (True, ('rgb', 'ir', 'depth'))):
    context = hooks.Context(None, modalities, MODALITIES, (1, 2), 1, joint)
    prefix, maps = context.split(x)
    assert maps.shape[1:] == (len(modalities), 1, 2, 2)
    np.testing.assert_array_equal(context.join(prefix, maps), x)
  assert context.indices == (0, 2, 1)


def test_attention_of_a_joint_sequence_reads_what_is_present():
  present = jnp.array([[True, False]])
  context = hooks.Context(present, ('rgb', 'ir'), MODALITIES, (1, 2), 1, joint=True)
  assert context.key_mask(6).tolist() == [[True, True, True, True, False, False]]
  assert context.replace(filled=True).key_mask(5) is None
  assert context.replace(joint=False).key_mask(5) is None


def test_the_cases_cover_the_folder():
  assert set(FORMS) <= set(lookup.choices('adapter'))
  assert {name for name, *_ in CASES} == set(lookup.choices('adapter'))
  assert len(set(itertools.starmap(lambda *c: str(c), CASES))) == len(CASES)
