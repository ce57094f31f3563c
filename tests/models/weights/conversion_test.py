"""Foreign weights: there and back exactly, into larger models, and refused where they are not."""

import functools
import json
import pathlib
import re
import types
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.parity import recipe
from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.models import flexmodal
from flexfas_jax.models.backbone import vit
from flexfas_jax.models.weights import conversion, transfer, variable_tree
from flexfas_jax.models.weights import files as weight_files
from tests import toy

FIXTURES = pathlib.Path(__file__).parents[2] / 'golden' / 'fixtures'
FIXTURE = {
  json.loads(f.read_text())['architecture']: f
  for f in sorted(FIXTURES.glob('*.json'), reverse=True)  # cdcn.json is read after cdcn_224.json
}
POOL = np.random.default_rng(0).uniform(0.1, 1.0, 1 << 20).astype(np.float32)
FACE = {'fc.weight': (99, 512), 'fc.bias': (99,), 'bn2.running_var': (512,)}  # of a descriptor
IR_STARTS = {1: 0, 2: 3, 3: 7}
# Relatives of those that go there and back below: names and sizes alone, for time.
PARAMETERS = {
  'timm/vit_base_patch16_224': 85_798_656 + 769,
  'timm/vit_large_patch16_224': 303_301_632 + 1025,
  'timm/vit_base_patch14_dinov2': 86_579_712,
  'timm/vit_base_patch16_dinov3': 85_641_216,
  'timm/vit_large_patch14_dinov2': 304_367_616,
  'timm/vit_large_patch14_reg4_dinov2': 304_370_688,
  'timm/vit_large_patch16_dinov3': 303_079_424,
  'timm/vit_large_patch14_clip_224': 303_966_976,
  'timm/vit_large_patch14_clip_quickgelu_224': 303_966_976,
  'timm/vit_large_patch16_siglip_256': 315_956_224,
  'mm_fas/resnet34_dlas_a': sum(
    np.prod(shape)
    for name, shape in json.loads(FIXTURE['mm_fas/resnet34_dlas_a'].read_text())['tensors'].items()
    if not name.endswith(('running_mean', 'running_var', 'tracked'))
  ),
}


DINOV2, REG4 = 'timm/vit_small_patch14_dinov2', 'timm/vit_base_patch14_reg4_dinov2'
DINOV3 = 'timm/vit_small_patch16_dinov3'
CLIP_L = {
  'patch_embed.proj.weight': (1024, 3, 14, 14),
  'pos_embed': (1, 257, 1024),
  'head.weight': (768, 1024),
  'head.bias': (768,),
}
RELATIVES = {  # (relative with a fixture, factor of the width, tensors of another shape)
  'timm/vit_base_patch14_dinov2': (DINOV2, 2, {}),
  'timm/vit_large_patch14_dinov2': (DINOV2, 8 / 3, {}),
  'timm/vit_small_patch14_reg4_dinov2': (REG4, 1 / 2, {}),
  'timm/vit_large_patch14_reg4_dinov2': (REG4, 4 / 3, {}),
  'timm/vit_base_patch16_dinov3': (DINOV3, 2, {}),
  'timm/vit_large_patch16_dinov3': (DINOV3, 8 / 3, {}),
  **{
    f'timm/vit_large_patch14_clip{kind}_224': (
      f'timm/vit_base_patch16_clip{kind}_224',
      4 / 3,
      CLIP_L,
    )
    for kind in ('', '_quickgelu')
  },
  'timm/vit_large_patch16_siglip_256': (
    'timm/vit_base_patch16_siglip_224',
    4 / 3,
    {'pos_embed': (1, 256, 1024)},
  ),
}


def resized(shapes, factor):
  """A ViT of another width D; of 24 blocks where D is 1024."""
  D = shapes['blocks.0.norm1.weight'][0]
  found = {}
  for name, shape in shapes.items():
    is_fixed = [name == 'pos_embed' and i < 2 for i in range(len(shape))]
    shape = tuple(
      round(n * factor) if n % D == 0 and not fixed else n
      for n, fixed in zip(shape, is_fixed, strict=True)
    )
    found[name] = shape
    m = re.match(r'blocks\.(\d+)\.', name)
    if m and round(D * factor) == 1024:
      found[name.replace(m[0], f'blocks.{int(m[1]) + 12}.')] = shape
  return found


def shapes_of(architecture):
  """{the original's tensor: shape}, from the fixtures; where there is none, from a relative's."""
  if architecture in FIXTURE:
    tensors = json.loads(FIXTURE[architecture].read_text())['tensors']
    return {name: tuple(shape) for name, shape in tensors.items()}
  found = {}
  if architecture == 'timm/vit_large_patch16_224':  # 24 blocks of 1024
    wider = {768: 1024, 2304: 3072, 3072: 4096}
    for name, shape in shapes_of('timm/vit_base_patch16_224').items():
      grown = tuple(wider.get(n, n) for n in shape)
      if name == 'patch_embed.proj.weight':
        grown = (1024, 3, 16, 16)
      found[name] = grown
      if m := re.match(r'blocks\.(\d+)\.', name):
        found[name.replace(m[0], f'blocks.{int(m[1]) + 12}.')] = grown
    return found
  if architecture == 'mm_fas/resnet34_caffe':
    for name, shape in shapes_of('mm_fas/resnet34_dlas_a').items():
      if m := re.fullmatch(r'rgb_backbone\.(.*)', name):
        found[m[1]] = shape
      elif m := re.fullmatch(r'agg_layer3\.agg_layer\.(.*)', name):
        found[f'layer4.{m[1]}'] = shape
    return found | FACE
  if architecture in RELATIVES:
    relative, factor, changed = RELATIVES[architecture]
    return resized(shapes_of(relative), factor) | changed
  assert architecture == 'mm_fas/ir50'
  for name, shape in shapes_of('mm_fas/ir50_dlas_a').items():
    if m := re.fullmatch(r'rgb_backbone\.layer(\d)\.(\d+)\.(.*)', name):
      found[f'body.{IR_STARTS[int(m[1])] + int(m[2])}.{m[3]}'] = shape
    elif m := re.fullmatch(r'rgb_backbone\.(input_layer.*)', name):
      found[m[1]] = shape
    elif m := re.fullmatch(r'agg_layer3\.agg_layer\.(\d+)\.(.*)', name):
      found[f'body.{21 + int(m[1])}.{m[2]}'] = shape
  return found | {'output_layer.3.weight': (512, 25088)}


def counted(name):
  return name.endswith('num_batches_tracked')


def fill(shapes):
  """Another stretch of one pool for each name: quick, and no two tensors are equal."""
  return {
    name: np.zeros(shape, np.int64)
    if counted(name)
    else np.resize(POOL[zlib.crc32(name.encode()) % (1 << 19) :], shape)
    for name, shape in shapes.items()
  }


def hollow(shapes):
  """Arrays of these shapes without memory."""
  return {
    name: np.broadcast_to(np.int64(0) if counted(name) else np.float32(1), shape)
    for name, shape in shapes.items()
  }


@functools.cache
def _resnet18():
  return recipe.weights(FIXTURE['timm/resnet18'])


def resnet18():
  return dict(_resnet18())


@functools.cache
def resnet18_variables():
  return conversion.from_torch(resnet18(), 'timm/resnet18')[1]


def assert_same(ours, theirs):
  assert jax.tree.structure(ours) == jax.tree.structure(theirs)
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def refused(tensors, architecture, monkeypatch, function=conversion.from_torch):
  """The message of a refusal: one screen, and before any array was made."""

  def array(*_, **__):
    raise AssertionError('allocated')

  monkeypatch.setattr(conversion, 'jnp', types.SimpleNamespace(array=array, asarray=array))
  with pytest.raises(StateError) as caught:
    function(tensors, architecture)
  monkeypatch.undo()
  message = str(caught.value)
  assert len(message) < 1600 and message.count('\n') < 6, message
  return message


# There and back


def test_every_architecture_has_names_to_compare_with():
  assert len(conversion.ARCHITECTURES) == 32
  for architecture in conversion.ARCHITECTURES:
    assert len(shapes_of(architecture)) > 10


@pytest.mark.parametrize(
  'architecture', [a for a in conversion.ARCHITECTURES if a not in PARAMETERS]
)
def test_a_round_trip_is_exact(architecture, caplog, monkeypatch):
  shapes = shapes_of(architecture)
  if len(shapes) > 300:  # a hundred million numbers: without JAX's copies
    monkeypatch.setattr(conversion, 'jnp', types.SimpleNamespace(array=np.asarray))
  tensors = fill(shapes)
  kept = dict(tensors)
  model, variables = conversion.from_torch(tensors, architecture)
  assert all(tensors[n] is kept[n] for n in kept)
  unused = ('output_layer', 'vit.norm', *(FACE if 'caffe' in architecture else ()))
  left_out = {n for n in shapes if n.startswith(unused)}
  assert all(n in caplog.text for n in left_out)
  written = conversion.to_torch(variables, architecture)
  classifier = conversion.ARCHITECTURES[architecture].classifier
  assert {n for n in shapes if n not in left_out} == set(written)
  for name, value in written.items():
    expected = tensors[name]
    if classifier and name.startswith(f'{classifier}.'):
      expected = np.stack([0 * expected[0], expected[1] - expected[0]])
    assert value.dtype == expected.dtype, name
    assert value.flags.c_contiguous and value.flags.writeable
    np.testing.assert_array_equal(value, expected, name)
  again, twice = conversion.from_torch(written, architecture)
  assert again.module == model.module
  assert_same(twice, variables)
  assert (model.module.head.__class__.__name__ == 'BinaryLogit') == (classifier is not None)


@pytest.mark.parametrize('architecture', list(PARAMETERS))
def test_a_large_original_has_its_names(architecture):
  tensors = hollow(shapes_of(architecture))
  origin = conversion.ARCHITECTURES[architecture]
  _, leaves = conversion._abstract(architecture, tensors)
  assert conversion._faults(tensors, leaves, origin) == {}
  assert {leaf.name for leaf in leaves} == {n for n in tensors if not counted(n)}
  numbers = sum(np.prod(leaf.shape) for leaf in leaves if 'running' not in leaf.name)
  assert numbers == PARAMETERS[architecture]


def test_what_comes_back_belongs_to_the_caller():
  tensors = resnet18()
  buffer = np.zeros(64 + 16, np.float32)
  start = -buffer.ctypes.data % 64 // 4  # where JAX would take the memory as it is
  tensors['bn1.bias'] = buffer[start : start + 64]
  _, variables = conversion.from_torch(tensors, 'timm/resnet18')
  bias = variables['params']['streams_shared']['bn1']['bn']['bias']
  before = np.array(bias)
  tensors['bn1.bias'] += 1
  np.testing.assert_array_equal(bias, before)
  written = conversion.to_torch(variables, 'timm/resnet18')
  written['bn1.bias'] += 1
  np.testing.assert_array_equal(bias, before)


@pytest.mark.parametrize('classes', [None, 1, 2, 3, 1000])
def test_the_classifier(classes, caplog):
  tensors = resnet18()
  del tensors['fc.weight'], tensors['fc.bias']
  if classes:
    tensors |= fill({'fc.weight': (classes, 512), 'fc.bias': (classes,)})
  model, variables = conversion.from_torch(tensors, 'timm/resnet18')
  if classes in (1, 2):
    columns = tensors['fc.weight']
    expected = columns if classes == 1 else columns[1:] - columns[:1]
    np.testing.assert_array_equal(variables['params']['head']['logit']['kernel'], expected.T)
  else:
    assert 'head' not in variables['params']
  assert ('fc.weight, fc.bias' in caplog.text) == (classes in (3, 1000))


def test_one_stream_of_a_larger_model_is_written(caplog):
  _, source_run = conversion.from_torch(resnet18(), 'timm/resnet18')
  variables = {
    'params': {'streams_ir': source_run['params']['streams_shared'], 'fusion': {'x': jnp.zeros(1)}},
    'batch_stats': {'streams_ir': source_run['batch_stats']['streams_shared']},
  }
  written = conversion.to_torch(variables, 'timm/resnet18', stream='ir')
  assert set(written) == {n for n in resnet18() if not n.startswith('fc.')}
  np.testing.assert_array_equal(written['layer4.1.bn2.bias'], resnet18()['layer4.1.bn2.bias'])
  with pytest.raises(StateError, match="no stream 'rgb', but .*streams_ir"):
    conversion.to_torch(variables, 'timm/resnet18', stream='rgb')
  with pytest.raises(StateError, match='no name for streams_ir/bn1/bn/mean'):
    conversion.to_torch(variables, 'timm/resnet18')
  assert not caplog.text
  del (
    variables['params']['streams_ir']['stage_4'],
    variables['batch_stats']['streams_ir']['stage_4'],
  )
  written = conversion.to_torch(variables, 'timm/resnet18', stream='ir')
  assert not any(n.startswith('layer4') for n in written)
  assert "not in stream 'ir', not written: layer4.0" in caplog.text


@pytest.mark.parametrize(
  'architecture', ['timm/resnet34', 'timm/resnet50', 'mm_fas/resnet34_caffe']
)
def test_variables_of_another_architecture_are_not_written(architecture):
  with pytest.raises(StateError, match=f'not variables of {architecture}|has no name for'):
    conversion.to_torch(resnet18_variables(), architecture)


# Refusals


def changed(change):
  tensors = resnet18()
  change(tensors)
  return tensors


def put(name, value):
  return lambda tensors: tensors.__setitem__(name, value)


def many(**arrays):
  return lambda tensors: tensors.update({n.replace('__', '.'): v for n, v in arrays.items()})


def nan(tensors):
  tensors['layer1.0.bn2.bias'] = np.full(64, np.nan, np.float32)
  tensors['conv1.weight'] = tensors['conv1.weight'].copy()
  tensors['conv1.weight'][-1, -1, -1, -1] = np.inf


@pytest.mark.parametrize(
  'change,said',
  [
    (lambda t: t.clear(), '(?s)missing: .* more'),
    (lambda t: t.pop('layer4.1.conv2.weight'), '1 missing: layer4.1.conv2.weight$'),
    (lambda t: t.pop('bn1.running_var'), '1 missing: bn1.running_var$'),
    (put('layer5.bias', np.zeros(3, np.float32)), '1 surplus: layer5.bias$'),
    (put('x\x1b[2J\n' + 'y' * 9999, np.zeros(3)), r'surplus: x\\x1b\[2J\\ny{190,200}\.\.\.'),
    (put('bn1.bias', np.zeros(65, np.float32)), r'bn1.bias: float32 \[65\], not float32 \[64\]'),
    (put('bn1.bias', np.zeros((64, 1), np.float32)), r'bn1.bias: float32 \[64, 1\]'),
    (put('bn1.bias', np.zeros((), np.float32)), r'bn1.bias: float32 \[\]'),
    (put('bn1.bias', np.zeros(0, np.float32)), r'bn1.bias: float32 \[0\]'),
    (put('bn1.bias', np.zeros(64, np.float16)), 'bn1.bias: float16 .* not float32'),
    (put('bn1.bias', np.zeros(64)), 'bn1.bias: float64 .* not float32'),
    (put('bn1.bias', np.zeros(64, '>f4')), 'bn1.bias: >f4 .* not float32'),
    (put('bn1.bias', np.full(64, None)), r'bn1.bias: object \[64\]'),
    (put('bn1.bias', np.array(['a'] * 64)), 'bn1.bias: <U1'),
    (put('bn1.bias', [0.0] * 64), 'bn1.bias is a list'),
    (put('bn1.bias', None), 'bn1.bias is a NoneType'),
    (put('model', {'bn1.bias': 0}), r'model is a dict; .*\.numpy\(\)'),
    (put(3, np.zeros(1)), 'tensor 3 is a ndarray'),
    (put(('a', 1), np.zeros(1)), 'NumPy arrays by name'),
    (put('conv1.weight', np.zeros((64, 3, 7), np.float32)), r'\[64, 3, 7\], .*\[64, 3, 7, 7\]'),
    (
      put('conv1.weight', np.zeros((1,) * 60, np.float32)),
      r'conv1.weight: float32 \[1, [1, ]+, not',
    ),
    (put('fc.weight', np.zeros((0, 512), np.float32)), r'\[0, 512\], .*\[1, 512\] or \[2, 512\]'),
    (put('fc.weight', np.zeros((), np.float32)), r'fc.weight: float32 \[\]'),
    (put('fc.weight', np.zeros((1000, 512), np.float32)), r'fc.weight: float32 \[1000, 512\]'),
    (put('fc.weight', np.zeros((1, 512), np.float32)), 'fc: .* different numbers of classes'),
    (many(fc__weight=np.zeros((9, 8, 1)), fc__bias=np.zeros(9)), r'fc.weight: float64 \[9, 8, 1\]'),
    (put('fc.scale', np.zeros(1, np.float32)), '1 surplus: fc.scale'),
    (lambda t: t.pop('fc.bias'), '1 missing: fc.bias'),
    (lambda t: t.pop('fc.weight'), '1 missing: fc.weight'),
    (put('bn1.num_batches_tracked', np.float32(1)[None][0:1].reshape(())), 'float32 .*a counter'),
    (
      put('bn1.num_batches_tracked', np.zeros(1, np.int64)),
      r'int64 \[1\], a counter is int64 \[\]',
    ),
    (put('conv1.num_batches_tracked', np.zeros((), np.int64)), '1 surplus: conv1.num_batches'),
    (put('pos_embed', np.zeros((1, 2, 3), np.float32)), '1 surplus: pos_embed'),
    (nan, '2 with NaN or infinite values: .*conv1.weight'),
  ],
)
def test_what_is_wrong_with_tensors_is_named(change, said, monkeypatch):
  message = refused(changed(change), 'timm/resnet18', monkeypatch)
  assert re.search(said, message), message


def test_tensors_are_a_dict(monkeypatch):
  assert 'tensors are a list' in refused([np.zeros(1)], 'timm/resnet18', monkeypatch)
  with pytest.raises(ConfigError, match="unknown architecture 'vgg'; .*timm/resnet18"):
    conversion.from_torch({}, 'vgg')


@pytest.mark.parametrize(
  'shape', [(), (197,), (1, 0, 192), (1, 1, 192), (1, 12, 192), (1, 1 << 40, 192), (2, 197, 192)]
)
def test_a_position_embedding_of_no_grid_is_refused(shape, monkeypatch):
  architecture = 'timm/vit_tiny_patch16_224'
  tensors = hollow(shapes_of(architecture) | {'pos_embed': shape})
  assert '1 wrong: pos_embed' in refused(tensors, architecture, monkeypatch)


def test_what_an_original_does_not_use_may_be_missing():
  """Flex-Modal-FAS builds a last norm and skips it."""
  architecture = 'flex_modal_fas/vit_cross_attention'
  tensors = hollow(shapes_of(architecture))
  del tensors['vit.norm.weight']
  tensors['vit.norm.bias'] = np.zeros(3)
  origin = conversion.ARCHITECTURES[architecture]
  _, leaves = conversion._abstract(architecture, tensors)
  assert conversion._faults(tensors, leaves, origin) == {}


@pytest.mark.parametrize(
  'given,named',
  [
    ('timm/resnet18', 'timm/resnet34'),
    ('timm/resnet34', 'timm/resnet18'),
    ('timm/resnet50', 'timm/resnet34'),
    ('timm/vit_tiny_patch16_224', 'timm/vit_small_patch16_224'),
    ('timm/vit_large_patch16_224', 'timm/vit_base_patch16_224'),
    ('timm/vit_base_patch16_224', 'flex_modal_fas/vit_cross_attention'),
    ('flex_modal_fas/vit_cross_attention', 'timm/vit_base_patch16_224'),
    ('cdcn/cdcn', 'cdcn/cdcnpp'),
    ('cdcn/cdcnpp', 'cdcn/cdcn'),
    ('cdcn/cdcn_3modality', 'cdcn/cdcn'),
    ('mm_fas/resnet34_dlas_a', 'mm_fas/resnet34_dlas_c'),
    ('mm_fas/resnet34_dlas_b', 'mm_fas/resnet34_dlas_a'),
    ('mm_fas/resnet34_dlas_c', 'mm_fas/resnet34_dlas_b'),
    ('mm_fas/ir50_dlas_a', 'mm_fas/ir50'),
    ('mm_fas/resnet34_caffe', 'timm/resnet34'),
    ('mm_fas/ir50', 'mm_fas/resnet34_caffe'),
  ],
)
def test_weights_of_another_architecture_are_refused_by_name(given, named, monkeypatch):
  message = refused(hollow(shapes_of(given)), named, monkeypatch)
  assert message.startswith(f'these are not weights of {named} (they look like {given});')


# Google's ViT


def google(tensors):
  """What timm's names are made from, by hand."""
  found = {
    'cls': tensors['cls_token'],
    'Transformer/posembed_input/pos_embedding': tensors['pos_embed'],
    'embedding/kernel': np.einsum('dchw->hwcd', tensors['patch_embed.proj.weight']),
    'embedding/bias': tensors['patch_embed.proj.bias'],
    'Transformer/encoder_norm/scale': tensors['norm.weight'],
    'Transformer/encoder_norm/bias': tensors['norm.bias'],
    'head/kernel': tensors['head.weight'].T,
    'head/bias': tensors['head.bias'],
  }
  for i in range(12):
    block, theirs = f'Transformer/encoderblock_{i}', f'blocks.{i}'
    for ours, name in (('LayerNorm_0', 'norm1'), ('LayerNorm_2', 'norm2')):
      found[f'{block}/{ours}/scale'] = tensors[f'{theirs}.{name}.weight']
      found[f'{block}/{ours}/bias'] = tensors[f'{theirs}.{name}.bias']
    for ours, name in (('Dense_0', 'fc1'), ('Dense_1', 'fc2')):
      found[f'{block}/MlpBlock_3/{ours}/kernel'] = tensors[f'{theirs}.mlp.{name}.weight'].T
      found[f'{block}/MlpBlock_3/{ours}/bias'] = tensors[f'{theirs}.mlp.{name}.bias']
    attention = f'{block}/MultiHeadDotProductAttention_1'
    D, K, d = 192, 3, 64
    for j, part in enumerate(('query', 'key', 'value')):
      rows = slice(j * D, (j + 1) * D)
      weight, bias = (tensors[f'{theirs}.attn.qkv.{x}'][rows] for x in ('weight', 'bias'))
      found[f'{attention}/{part}/kernel'] = weight.T.reshape(D, K, d)
      found[f'{attention}/{part}/bias'] = bias.reshape(K, d)
    found[f'{attention}/out/kernel'] = tensors[f'{theirs}.attn.proj.weight'].T.reshape(K, d, D)
    found[f'{attention}/out/bias'] = tensors[f'{theirs}.attn.proj.bias']
  return found


TINY = 'timm/vit_tiny_patch16_224'


def test_google_s_file_gives_what_timm_s_names_give(tmp_path):
  tensors = recipe.weights(FIXTURE[TINY])
  np.savez(tmp_path / 'vit.npz', **google(tensors))
  weight_files.write(tmp_path / 'vit.safetensors', tensors)
  expected = conversion.from_torch(tensors, TINY)[1]
  for name in ('vit.npz', 'vit.safetensors'):
    assert_same(conversion.load(str(tmp_path / name), TINY)[1], expected)
  with pytest.raises(StateError, match='another file'):
    conversion.load(str(tmp_path / 'vit.npz'), TINY, sha256='0' * 64)
  with pytest.raises(ConfigError, match='unknown architecture'):
    conversion.load(str(tmp_path / 'vit.npz'), 'vgg')


def imported(tensors, architecture):
  return conversion.from_torch(conversion.google_to_timm(tensors), architecture)


AT = 'Transformer/encoderblock_3/MultiHeadDotProductAttention_1'
F32 = np.float32


@pytest.mark.parametrize(
  'change,said',
  [
    (lambda t: t.pop(f'{AT}/key/bias'), 'the bias of query, key and value do not match'),
    (lambda t: t.pop(f'{AT}/query/kernel'), 'the kernel of query, key and value'),
    (put(f'{AT}/value/kernel', np.zeros((192, 3, 2), F32)), 'do not match'),
    (put(f'{AT}/value/bias', np.zeros((), F32)), 'do not match'),
    (
      lambda t: t.update({f'{AT}/{x}/kernel': np.zeros((0, 3, 64), F32) for x in ('query', 'key')}),
      'do not match',
    ),
    (
      lambda t: t.update(
        {f'{AT}/{x}/kernel': np.zeros((0, 3, 64), F32) for x in ('query', 'key', 'value')}
      ),
      r'blocks.3.attn.qkv.weight: float32 \[576, 0\]',
    ),
    (put(f'{AT}/out/kernel', np.zeros((), F32)), 'blocks.3.attn.proj.weight'),
    (put(f'{AT}/out/kernel', np.zeros((3, 64, 0), F32)), 'blocks.3.attn.proj.weight'),
    (put('embedding/kernel', np.zeros((16, 16, 3), F32)), 'patch_embed.proj.weight'),
    (put('cls_token', np.zeros((1, 1, 192), F32)), 'cls_token is .* twice'),
    (put('Transformer/encoderblock_12/LayerNorm_0/bias', np.zeros(192, F32)), 'blocks.12.norm1'),
    (put('pre_logits/kernel', np.zeros((192, 192), F32)), '1 surplus: pre_logits/kernel'),
    (put('head/kernel', 3), 'head/kernel is a int'),
  ],
)
def test_what_is_wrong_with_google_s_tensors_is_named(change, said, monkeypatch):
  tensors = google(hollow(shapes_of(TINY)))
  change(tensors)
  message = refused(tensors, TINY, monkeypatch, imported)
  assert re.search(said, message), message


def test_google_s_head_of_many_classes_is_left_out_with_its_layer(caplog):
  tensors = google(recipe.weights(FIXTURE[TINY]))
  tensors |= {'head/kernel': np.zeros((192, 21843), F32), 'head/bias': np.zeros(21843, F32)}
  tensors |= {'pre_logits/kernel': np.zeros((192, 192), F32), 'pre_logits/bias': np.zeros(192, F32)}
  _, variables = imported(tensors, TINY)
  assert 'head' not in variables['params']
  for name in ('head.weight', 'head.bias', 'pre_logits/kernel', 'pre_logits/bias'):
    assert name in caplog.text


# One backbone into a larger model


def source_run_of(backbone):
  model, _ = toy.make(backbone, 'single', head='embedding', absent='exclude')
  abstract = jax.eval_shape(model.init, jax.random.key(0))
  return toy.fill(abstract, seed=7)


def leaves(tree, *path):
  """{path within: array} under params and batch_stats."""
  found = {}
  for kind in ('params', 'batch_stats'):
    for p, value in variable_tree.flatten(tree[kind]):
      if p[: len(path)] == path:
        found[(kind, *p[len(path) :])] = np.asarray(value)
  assert found, path
  return found


def assert_parts_equal(ours, theirs):
  assert ours.keys() == theirs.keys()
  for name in ours:
    np.testing.assert_array_equal(ours[name], theirs[name], str(name))


def identities(tree):
  return [(path, id(value)) for path, value in variable_tree.flatten(tree)]


@pytest.mark.parametrize('share', [True, False])
def test_all_streams(share):
  _, variables = toy.make('resnet', 'concat', share=share)
  source_run = source_run_of('resnet')
  before = identities(variables), identities(source_run)
  new = toy.initialised(variables, source_run)
  assert (identities(variables), identities(source_run)) == before
  assert jax.tree.structure(new) == jax.tree.structure(variables)
  streams = ['streams_shared'] if share else ['streams_rgb', 'streams_depth', 'streams_ir']
  for stream in streams:
    assert_parts_equal(leaves(new, stream), leaves(source_run, 'streams_shared'))
  for part in ('fusion', 'head'):
    assert_parts_equal(leaves(new, part), leaves(variables, part))


def test_one_modality():
  _, variables = toy.make('resnet', 'concat', share=False)
  source_run = source_run_of('resnet')
  new = toy.initialised(variables, source_run, 'ir')
  assert_parts_equal(leaves(new, 'streams_ir'), leaves(source_run, 'streams_shared'))
  for stream in ('streams_rgb', 'streams_depth'):
    assert_parts_equal(leaves(new, stream), leaves(variables, stream))


@pytest.mark.parametrize(
  'share,fusion,into,said',
  [
    (True, 'concat', 'ir', "'ir'; choose one of: streams, shared$"),
    (False, 'concat', 'aggregation', 'choose one of: streams, depth, ir, rgb$'),
    (False, 'multi_layer_aggregation', 'all', 'streams, aggregation, depth, ir, rgb$'),
  ],
)
def test_into_what_is_not_there(share, fusion, into, said):
  _, variables = toy.make('resnet', fusion, share=share)
  with pytest.raises(ConfigError, match=said):
    toy.initialised(variables, source_run_of('resnet'), into)


FIRST = {  # of the joint last stage: what reads three maps where the source_run reads one
  'caffe_resnet': {('params', 'conv', 'kernel')},
  'resnet': {('params', 'block_0', n, 'kernel') for n in ('conv1', 'downsample_conv')},
  'ir_resnet': {('params', 'unit_0', n, 'kernel') for n in ('conv1', 'shortcut_conv')}
  | {
    (kind, 'unit_0', 'bn1', 'bn', n)
    for kind, names in (('params', ('scale', 'bias')), ('batch_stats', ('mean', 'var')))
    for n in names
  },
}


@pytest.mark.parametrize('backbone', list(FIRST))
def test_the_aggregation_starts_as_in_mm_fas(backbone):
  _, variables = toy.make(backbone, 'multi_layer_aggregation', share=False)
  source_run = source_run_of(backbone)
  assert 'stage_4' in source_run['params']['streams_shared']  # the streams run three
  assert 'stage_4' not in variables['params']['streams_rgb']
  new = toy.initialised(variables, source_run, 'aggregation')
  assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, variables)
  for k in range(3):
    assert_parts_equal(
      leaves(new, 'fusion', f'later_{k}'), leaves(source_run, 'streams_shared', f'stage_{k + 2}')
    )
  for stream in ('streams_rgb', 'streams_depth', 'streams_ir'):
    for part in variables['params'][stream]:
      assert_parts_equal(leaves(new, stream, part), leaves(source_run, 'streams_shared', part))
  for part in ('mix_1', 'mix_2', 'mix_3'):
    assert_parts_equal(leaves(new, 'fusion', part), leaves(variables, 'fusion', part))
  main, last = leaves(new, 'fusion', 'main'), leaves(source_run, 'streams_shared', 'stage_4')
  first = {
    (kind, *rest) for kind, *rest in main if main[(kind, *rest)].shape != last[(kind, *rest)].shape
  }
  assert {tuple(x for x in f if x != 'bn') for f in first} == {
    tuple(x for x in f if x != 'bn') for f in FIRST[backbone]
  }
  for name in main:
    expected = last[name]
    if name in first:
      expected = np.concatenate([expected] * 3, -2 if name[-1] == 'kernel' else -1)
    np.testing.assert_array_equal(main[name], expected, str(name))
  # Of three equal maps, three times what the face network makes of one.
  name = next(n for n in sorted(first) if n[-1] == 'kernel')
  x = np.random.default_rng(0).standard_normal((2, last[name].shape[-2])).astype(np.float32)
  ours = np.concatenate([x] * 3, -1) @ main[name][0, 0]
  np.testing.assert_allclose(ours, 3 * (x @ last[name][0, 0]), rtol=1e-5, atol=1e-5)
  matched = transfer.match(variables, source_run, 'aggregation')
  assert not matched.untouched and not matched.left_out


def test_parts_that_one_of_both_lacks_are_named():
  """The last stage and the norm of a run; channel attention in the model."""
  model, variables = toy.make('caffe_resnet', 'multi_layer_aggregation', share=False)
  source_run = source_run_of('caffe_resnet')
  attention = {'reduce': {'kernel': jnp.ones((2, 2))}}
  params = variables['params']
  stream = {**params['streams_ir'], 'attention_1': attention}
  variables = {**variables, 'params': {**params, 'streams_ir': stream}}
  new = toy.initialised(variables, source_run, 'ir')
  assert new['params']['streams_ir']['attention_1'] == attention
  matched = transfer.match(variables, source_run, 'ir')
  assert matched.untouched == ['streams_ir/attention_1/reduce/kernel']
  assert any(name.startswith('stage_4/') for name in matched.left_out)


@pytest.mark.parametrize('grid,prefix', [(3, 1), (2, 0), (1, 1)])
def test_a_position_embedding_is_interpolated(grid, prefix):
  rng = np.random.default_rng(0)
  theirs = jnp.asarray(rng.standard_normal((1, prefix + 16, 6)), jnp.float32)
  ours = {'params': {'streams_shared': {'pos_embed': jnp.zeros((1, prefix + grid**2, 6))}}}
  source_run = {'params': {'streams_shared': {'pos_embed': theirs}}}
  new = toy.initialised(ours, source_run)['params']['streams_shared']['pos_embed']
  np.testing.assert_array_equal(new, vit.resize_embedding(theirs, prefix, grid, grid))
  np.testing.assert_array_equal(new[:, :prefix], theirs[:, :prefix])
  for shape in ((1, prefix + 5, 6), (1, prefix + grid**2, 7)):
    ours = {'params': {'streams_shared': {'pos_embed': jnp.zeros(shape)}}}
    with pytest.raises(StateError, match='pos_embed: .* does not match'):
      toy.initialised(ours, source_run)


def without(tree, *path):
  tree = dict(tree)
  if len(path) == 1:
    del tree[path[0]]
  else:
    tree[path[0]] = without(tree[path[0]], *path[1:])
  return tree


def test_a_backbone_that_does_not_fit_is_refused():
  _, variables = toy.make('resnet', 'multi_layer_aggregation', share=False)
  source_run, other = source_run_of('resnet'), source_run_of('caffe_resnet')
  for into in ('streams', 'ir', 'aggregation'):
    with pytest.raises(StateError, match='another architecture'):
      toy.initialised(variables, other, into)
  # As many names, other widths: nothing is repeated into a stream.
  wider = jax.tree.map(lambda x: jnp.concatenate([x] * 3, -1), source_run)
  with pytest.raises(StateError, match=r'does not match .* more$'):
    toy.initialised(variables, wider)
  grey = source_run['params']['streams_shared']['conv1']['kernel'][:, :, :1]
  grey = {'params': {'streams_shared': {'conv1': {'kernel': grey}}}}
  with pytest.raises(StateError, match='conv1/kernel: .* does not match'):
    toy.initialised(variables, grey)
  narrow = without(source_run, 'params', 'streams_shared', 'stage_1', 'block_0', 'bn2')
  with pytest.raises(StateError, match='bn2/.* is not among the weights'):  # a shallower one
    toy.initialised(variables, narrow)
  with pytest.raises(StateError, match='has no place in the model'):  # a deeper one
    toy.initialised(
      without(variables, 'params', 'streams_ir', 'stage_1', 'block_0', 'bn2'), source_run, 'ir'
    )
  with pytest.raises(StateError, match='no array for fusion/later_2'):
    toy.initialised(
      variables,
      without(
        without(source_run, 'params', 'streams_shared', 'stage_4'),
        'batch_stats',
        'streams_shared',
        'stage_4',
      ),
      'aggregation',
    )
  with pytest.raises(StateError, match='must have one backbone; .*streams_depth'):
    toy.initialised(variables, variables)


# A config's group


@functools.cache
def large():
  """Shapes of a model whose streams are ResNet18."""
  model = flexmodal.build(
    {'name': 'resnet', 'variant': '18'},
    {'name': 'concat'},
    {'name': 'binary_logit'},
    image_size=32,
  )
  return jax.eval_shape(model.init, jax.random.key(0))


GROUP = {'weights': 'no/such/file.safetensors', 'architecture': 'timm/resnet18'}


@pytest.mark.parametrize(
  'fields,said',
  [
    ('resnet.safetensors', r'config.pretrained is .* weights, architecture, sha256, into'),
    ({**GROUP, 'weigths': 1}, "no field 'weigths'; it has: weights, architecture, sha256, into"),
    ({'weights': 'x'}, "needs the field 'architecture'"),
    ({'architecture': 'timm/resnet18'}, "needs the field 'weights'"),
    ({**GROUP, 'weights': None}, 'config.pretrained.weights is None, not a text'),
    ({**GROUP, 'sha256': 3}, 'config.pretrained.sha256 is 3'),
    ({**GROUP, 'into': None}, 'config.pretrained.into is None'),
    ({**GROUP, 'architecture': 'resnet18'}, 'choose one of: timm/resnet18, '),
    ({**GROUP, 'architecture': 'cdcn/cdcn_3modality'}, 'unknown backbone'),
    ({**GROUP, 'architecture': 'flex_modal_fas/vit_cross_attention'}, 'unknown backbone'),
    ({**GROUP, 'into': 'ir'}, "'ir'; choose one of: streams, shared"),
    ({**GROUP, 'into': 'aggregation'}, "'aggregation'; choose one of: streams, shared"),
  ],
)
def test_a_group_that_cannot_work(fields, said):
  with pytest.raises(ConfigError, match=said):
    transfer.parse_config(fields, large())


def test_a_group_is_optional_and_its_file_is_not_read_yet():
  assert transfer.parse_config(None, large()) is None
  for nothing in ('', "''", 'None'):  # what a flag says, with a shell's quotes or without
    assert transfer.parse_config({**GROUP, 'weights': nothing}, large()) is None
  assert transfer.parse_config({}, large()) is None
  source = transfer.parse_config(GROUP, large())
  assert source == (*GROUP.values(), None, 'streams')
  with pytest.raises(StateError, match='no/such/file'):
    transfer.load(source, large())


def test_a_file_is_fitted_to_shapes_and_put_in_place(tmp_path):
  file = tmp_path / 'resnet18.safetensors'
  weight_files.write(file, resnet18() | fill({'fc.weight': (9, 512), 'fc.bias': (9,)}))
  arrays, line = transfer.load(
    transfer.parse_config({**GROUP, 'weights': str(file)}, large()), large()
  )
  assert line == (
    f'streams from {file} (timm/resnet18), {len(arrays)} arrays; left out: fc.bias, fc.weight'
  )
  _, source_run = conversion.from_torch(resnet18(), 'timm/resnet18')
  assert 'head/logit/kernel' in transfer.match(large(), source_run).left_out
  small = {('params', 'streams_shared', 'bn1', 'bn', 'bias'): np.arange(8, dtype=np.float32)}
  mesh = jax.make_mesh((8,), ('data',))
  place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  state = {
    'params': {
      'streams_shared': {'bn1': {'bn': {'bias': jax.device_put(jnp.zeros(8), place)}}},
      'head': {'bias': jnp.ones(1)},
    },
    'batch_stats': {},
  }
  new = transfer.assign(state, small)
  bias = new['params']['streams_shared']['bn1']['bn']['bias']
  assert bias.sharding == place
  np.testing.assert_array_equal(bias, np.arange(8))
  assert new['params']['head']['bias'] is state['params']['head']['bias']
  assert new['batch_stats'] == {}
