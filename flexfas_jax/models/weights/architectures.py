"""Architectures of original implementations: their module names and the fields that build them.

A table lists (module path here, module name in the original): a regular expression and its
replacement. `conversion.py` derives the names and layouts of tensors within a module.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Table = tuple[tuple[str, str | Callable[[re.Match], str]], ...]

RESNET = (
  (r'streams_shared/(conv1|bn1)', r'\1'),
  (r'streams_shared/stage_(\d)/block_(\d+)/downsample_conv', r'layer\1.\2.downsample.0'),
  (r'streams_shared/stage_(\d)/block_(\d+)/downsample_bn', r'layer\1.\2.downsample.1'),
  (r'streams_shared/stage_(\d)/block_(\d+)/(\w+)', r'layer\1.\2.\3'),
  (r'head/logit', 'fc'),
)
VIT = (
  (r'streams_shared', ''),  # cls_token and pos_embed
  (r'streams_shared/patch_embed', 'patch_embed.proj'),
  (r'streams_shared/stage_\d/block_(\d+)/(norm\d)', r'blocks.\1.\2'),
  (r'streams_shared/stage_\d/block_(\d+)/attn/(\w+)', r'blocks.\1.attn.\2'),
  (r'streams_shared/stage_\d/block_(\d+)/(fc\d)', r'blocks.\1.mlp.\2'),
  (r'streams_shared/norm', 'norm'),
  (r'head/logit', 'head'),
)
FOUNDATION = (  # DINOv2, DINOv3, CLIP's image tower and SigLIP 2 in timm
  *VIT[:-1],
  (r'streams_shared/stage_\d/block_(\d+)', r'blocks.\1'),  # LayerScale
  (r'streams_shared/pre_norm', 'norm_pre'),
  (r'streams_shared/projection', 'head'),
  (r'streams_shared/attn_pool', 'attn_pool'),  # its query
  (r'streams_shared/attn_pool/(fc\d)', r'attn_pool.mlp.\1'),
  (r'streams_shared/attn_pool/(\w+)', r'attn_pool.\1'),
)
VIT_CROSS_ATTENTION = (
  *((path, f'vit.{original}' if original else 'vit') for path, original in VIT[:-2]),
  (r'fusion/mix/conv', 'ConvFuse.0'),
  (r'fusion/mix/norm', 'ConvFuse.1'),
  (r'head/logit', 'fc'),
)
M = {'rgb': '_M1', 'ir': '_M2', 'depth': '_M3', 'shared': ''}  # CDCN's order of modalities
CDCN = (
  (r'streams_(\w+)/conv1/conv', lambda m: f'conv1{M[m[1]]}.0.conv'),
  (r'streams_(\w+)/conv1/norm', lambda m: f'conv1{M[m[1]]}.1'),
  (r'streams_(\w+)/stage_(\d)/conv_(\d)/conv', lambda m: f'{_block(m)}.{3 * int(m[3])}.conv'),
  (r'streams_(\w+)/stage_(\d)/conv_(\d)/norm', lambda m: f'{_block(m)}.{3 * int(m[3]) + 1}'),
  (r'streams_shared/neck/attention_(\d)/conv', r'sa\1.conv1'),
  (r'(?:streams|fusion/neck)_(\w+?)(?:/neck)?/mix/conv', lambda m: f'lastconv1{M[m[1]]}.0.conv'),
  (r'(?:streams|fusion/neck)_(\w+?)(?:/neck)?/mix/norm', lambda m: f'lastconv1{M[m[1]]}.1'),
  (r'fusion/mix/conv', 'lastconv2.0.conv'),
  (r'fusion/mix/norm', 'lastconv2.1'),
)
# MM-FAS: the aggregation, and the joint last stage.
JOINT = (
  (r'fusion/mix_(\d)', r'agg_layer\1.conv1'),
  (r'fusion/attention_main/(\w+)', lambda m: f'ch_att4.{FC[m[1]]}'),
  (r'fusion/attention_(\d)/(\w+)', lambda m: f'agg_layer{m[1]}.ch_att.{FC[m[2]]}'),
  (r'fusion/main_bottleneck', 'main_bottleneck'),
  (r'fusion/bottleneck', 'agg_bottleneck'),
)
FC = {'reduce': 'se_fc1', 'expand': 'se_fc2'}
WITHIN_CAFFE = {'conv': '0', 'bn': '1', 'prelu': '2', 'prelu1': 'relu1', 'prelu2': 'relu2'}
WITHIN_IR = {
  'bn1': 'res_layer.0',
  'conv1': 'res_layer.1',
  'prelu': 'res_layer.2',
  'conv2': 'res_layer.3',
  'bn2': 'res_layer.4',
  'shortcut_conv': 'shortcut_layer.0',
  'shortcut_bn': 'shortcut_layer.1',
}
IR50_STARTS = (0, 3, 7, 21)  # first unit of each stage; face recognition's IR-50 numbers them all


def _block(m: re.Match) -> str:
  return f'Block{m[2]}{M[m[1]]}'


def _caffe(m: re.Match, stage: str) -> str:
  """The name of conv, or of block_1/prelu2, from the last two groups of the match."""
  block, part = m.groups()[-2:]
  return stage + (f'.{4 + int(block)}' if block else '') + f'.{WITHIN_CAFFE.get(part, part)}'


def _ir(m: re.Match, stage: str, start: int = 0) -> str:
  unit, part = m.groups()[-2:]
  return f'{stage}.{start + int(unit)}.{WITHIN_IR[part]}'


_IN_CAFFE = r'/(?:block_(\d+)/)?(\w+)'
_IN_IR = r'/unit_(\d+)/(\w+)'
CAFFE_DLAS = (
  (r'streams_(\w+)/(conv1|bn1)', r'\1_backbone.\2'),
  (r'streams_(\w+)/prelu1', r'\1_backbone.relu'),
  (r'streams_(\w+)/attention_(\d)/(\w+)', lambda m: f'{m[1]}_backbone.ch_att{m[2]}.{FC[m[3]]}'),
  (rf'streams_(\w+)/stage_(\d){_IN_CAFFE}', lambda m: _caffe(m, f'{m[1]}_backbone.layer{m[2]}')),
  (
    rf'fusion/later_(\d){_IN_CAFFE}',
    lambda m: _caffe(m, f'agg_layer{int(m[1]) + 1}.agg_layer'),
  ),
  (rf'fusion/main{_IN_CAFFE}', lambda m: _caffe(m, 'layer4')),
)
IR_DLAS = (
  (r'streams_(\w+)/conv1', r'\1_backbone.input_layer.0'),
  (r'streams_(\w+)/bn1', r'\1_backbone.input_layer.1'),
  (r'streams_(\w+)/prelu1', r'\1_backbone.input_layer.2'),
  (rf'streams_(\w+)/stage_(\d){_IN_IR}', lambda m: _ir(m, f'{m[1]}_backbone.layer{m[2]}')),
  (rf'fusion/later_(\d){_IN_IR}', lambda m: _ir(m, f'agg_layer{int(m[1]) + 1}.agg_layer')),
  (rf'fusion/main{_IN_IR}', lambda m: _ir(m, 'layer4')),
)
CAFFE_FACE = (
  (r'streams_shared/(conv1|bn1)', r'\1'),
  (r'streams_shared/prelu1', 'relu'),
  (rf'streams_shared/stage_(\d){_IN_CAFFE}', lambda m: _caffe(m, f'layer{m[1]}')),
)
IR_FACE = (
  (r'streams_shared/conv1', 'input_layer.0'),
  (r'streams_shared/bn1', 'input_layer.1'),
  (r'streams_shared/prelu1', 'input_layer.2'),
  (rf'streams_shared/stage_(\d){_IN_IR}', lambda m: _ir(m, 'body', IR50_STARTS[int(m[1]) - 1])),
)


class Architecture(NamedTuple):
  """One original implementation.

  Attributes:
    table: pairs of module path here and module name in the original.
    backbone, fusion, head: fields of `flexmodal.build`.
    classifier: name of the original's last linear layer, where weights may have one.
    unused: regular expression of tensors that the original has and does not use.
    inputs: modalities in the order of the original's inputs.
    image_size: pixels along a side.
    options: further fields of `flexmodal.build`.
    leaves: {array here: its name in the original}, where it is not that of `conversion.LEAVES`.
    projection: name of the original's linear layer whose width is the backbone's field
      `projection`; weights may be without it.
  """

  table: Table
  backbone: dict[str, Any]
  fusion: dict[str, Any] = {'name': 'single'}
  head: dict[str, Any] = {'name': 'binary_logit'}
  classifier: str | None = None
  unused: str | None = None
  inputs: tuple[str, ...] = ('rgb',)
  image_size: int = 224
  options: dict[str, Any] = {}
  leaves: dict[str, str] = {}
  projection: str | None = None


def _timm_vit(variant: str) -> Architecture:
  return Architecture(
    VIT, {'name': 'vit', 'variant': variant, 'output': 'class_token'}, classifier='head'
  )


def _timm_resnet(variant: str) -> Architecture:
  return Architecture(RESNET, {'name': 'resnet', 'variant': variant}, classifier='fc')


def _dlas(table: Table, backbone: dict[str, Any], variant: str) -> Architecture:
  return Architecture(
    (*table, *JOINT),
    backbone,
    {'name': 'multi_layer_aggregation', 'variant': variant},
    {'name': 'embedding'},
    inputs=('rgb', 'depth', 'ir'),
    image_size=112,
    options={'share_streams': False},
  )


_DINOV2 = {'patch_size': 14, 'layer_scale': 1e-5, 'statistics': 'imagenet'}
_DINOV3 = {'registers': 4, 'positions': 'rotary', 'epsilon': 1e-5, 'qkv_bias': False}
_DINOV3 |= {'layer_scale': 1e-5, 'statistics': 'imagenet'}
_CLIP = {'patch_bias': False, 'pre_norm': True, 'epsilon': 1e-5, 'statistics': 'clip'}
_SIGLIP = {'class_token': False, 'output': 'attention_pool'}


def _foundation(variant: str, image_size: int, fields: dict[str, Any], **rest: Any) -> Architecture:
  backbone = {'name': 'vit', 'variant': variant, 'output': 'class_token', **fields}
  head = {'name': 'embedding'}
  return Architecture(FOUNDATION, backbone, head=head, image_size=image_size, **rest)


def _clip(variant: str, **fields: Any) -> Architecture:
  return _foundation(variant, 224, {**_CLIP, **fields}, projection='head')


def _foundations() -> dict[str, Architecture]:
  """Foundation models of timm 1.0.31, by size."""
  found = {}
  for size, variant in {'small': 'S', 'base': 'B', 'large': 'L'}.items():
    found[f'timm/vit_{size}_patch14_dinov2'] = _foundation(variant, 518, _DINOV2)
    registers = {**_DINOV2, 'registers': 4, 'class_position': False}
    found[f'timm/vit_{size}_patch14_reg4_dinov2'] = _foundation(variant, 518, registers)
    leaves = {'ls1': 'gamma_1', 'ls2': 'gamma_2'}
    found[f'timm/vit_{size}_patch16_dinov3'] = _foundation(variant, 256, _DINOV3, leaves=leaves)
  for size, variant, patch in (('base', 'B', 16), ('large', 'L', 14)):
    name = f'timm/vit_{size}_patch{patch}_clip'
    found[f'{name}_224'] = _clip(variant, patch_size=patch)
    found[f'{name}_quickgelu_224'] = _clip(variant, patch_size=patch, activation='quick_gelu')
  for size, variant, pixels in (('base', 'B', 224), ('large', 'L', 256)):
    found[f'timm/vit_{size}_patch16_siglip_{pixels}'] = _foundation(variant, pixels, _SIGLIP)
  return found


ARCHITECTURES = {
  'timm/resnet18': _timm_resnet('18'),
  'timm/resnet34': _timm_resnet('34'),
  'timm/resnet50': _timm_resnet('50'),
  'timm/vit_tiny_patch16_224': _timm_vit('Ti'),
  'timm/vit_small_patch16_224': _timm_vit('S'),
  'timm/vit_base_patch16_224': _timm_vit('B'),
  'timm/vit_large_patch16_224': _timm_vit('L'),
  **_foundations(),
  'cdcn/cdcn': Architecture(
    (*CDCN, (r'head/map', 'lastconv3.0.conv')),
    {'name': 'cdcn', 'variant': 'cdcn', 'map_size': 32},
    {'name': 'concat', 'width': 64, 'theta': 0.7},
    {'name': 'pixel_map'},
    image_size=256,
  ),
  'cdcn/cdcnpp': Architecture(
    (*CDCN, (r'head/map', 'lastconv1.3.conv')),
    {'name': 'cdcn', 'variant': 'cdcnpp', 'map_size': 32},
    {'name': 'single'},
    {'name': 'pixel_map'},
    image_size=256,
  ),
  'cdcn/cdcn_3modality': Architecture(
    (*CDCN, (r'head/map', 'lastconv3.0.conv')),
    {'name': 'cdcn', 'variant': 'cdcn'},
    {'name': 'cdcn_three_stream', 'map_size': 32, 'faithful': True},
    {'name': 'pixel_map'},
    inputs=('rgb', 'ir', 'depth'),
    image_size=256,
    options={'share_streams': False},
  ),
  'flex_modal_fas/vit_cross_attention': Architecture(
    VIT_CROSS_ATTENTION,
    {'name': 'vit', 'variant': 'B', 'final_norm': False},
    {'name': 'cross_attention', 'form': 'reference', 'bias': True, 'dropout': 0.3},
    {'name': 'binary_logit', 'dropout': 0.3},
    classifier='fc',
    unused=r'vit\.norm\.(weight|bias)',
    inputs=('rgb', 'depth', 'ir'),
    options={'absent': 'blank', 'blank_value': 0.0},
  ),
  'mm_fas/resnet34_dlas_a': _dlas(CAFFE_DLAS, {'name': 'caffe_resnet'}, 'A'),
  'mm_fas/resnet34_dlas_b': _dlas(
    CAFFE_DLAS, {'name': 'caffe_resnet', 'channel_attention': True}, 'B'
  ),
  'mm_fas/resnet34_dlas_c': _dlas(CAFFE_DLAS, {'name': 'caffe_resnet'}, 'C'),
  'mm_fas/ir50_dlas_a': _dlas(IR_DLAS, {'name': 'ir_resnet'}, 'A'),
  # Face recognition networks that initialise the two above, without their descriptors.
  'mm_fas/resnet34_caffe': Architecture(
    CAFFE_FACE,
    {'name': 'caffe_resnet'},
    head={'name': 'embedding'},
    unused=r'(fc|bn2|bn_pre)\..*',
    image_size=112,
  ),
  'mm_fas/ir50': Architecture(
    IR_FACE,
    {'name': 'ir_resnet'},
    head={'name': 'embedding'},
    unused=r'output_layer\..*',
    image_size=112,
  ),
}

# Tensors that identify an architecture: (name, size of its last axis or None, architecture). The
# first match decides, so an architecture comes before those whose tensors are a subset of its own.
SIGNATURES = (
  ('lastconv1_M1.0.conv.weight', None, 'cdcn/cdcn_3modality'),
  ('sa1.conv1.weight', None, 'cdcn/cdcnpp'),
  ('lastconv2.0.conv.weight', None, 'cdcn/cdcn'),
  ('rgb_backbone.input_layer.0.weight', None, 'mm_fas/ir50_dlas_a'),
  ('rgb_backbone.ch_att1.se_fc1.weight', None, 'mm_fas/resnet34_dlas_b'),
  ('main_bottleneck.weight', None, 'mm_fas/resnet34_dlas_c'),
  ('rgb_backbone.conv1.weight', None, 'mm_fas/resnet34_dlas_a'),
  ('input_layer.0.weight', None, 'mm_fas/ir50'),
  ('layer1.4.conv1.weight', None, 'mm_fas/resnet34_caffe'),
  ('layer1.0.conv3.weight', None, 'timm/resnet50'),
  ('layer1.2.conv1.weight', None, 'timm/resnet34'),
  ('layer1.1.conv1.weight', None, 'timm/resnet18'),
  ('vit.cls_token', None, 'flex_modal_fas/vit_cross_attention'),
  ('attn_pool.latent', 768, 'timm/vit_base_patch16_siglip_224'),
  ('attn_pool.latent', 1024, 'timm/vit_large_patch16_siglip_256'),
  ('norm_pre.weight', 768, 'timm/vit_base_patch16_clip_quickgelu_224'),
  ('norm_pre.weight', 1024, 'timm/vit_large_patch14_clip_quickgelu_224'),
  *(
    (tensor, width, f'timm/vit_{size}_{name}')
    for tensor, name in (
      ('blocks.0.gamma_1', 'patch16_dinov3'),
      ('reg_token', 'patch14_reg4_dinov2'),
      ('blocks.0.ls1.gamma', 'patch14_dinov2'),
    )
    for size, width in (('small', 384), ('base', 768), ('large', 1024))
  ),
  ('cls_token', 192, 'timm/vit_tiny_patch16_224'),
  ('cls_token', 384, 'timm/vit_small_patch16_224'),
  ('cls_token', 768, 'timm/vit_base_patch16_224'),
  ('cls_token', 1024, 'timm/vit_large_patch16_224'),
)


def original_name(table: Table, path: str) -> str | None:
  """The original's name of a module; None if the original lacks it."""
  for pattern, original in table:
    if m := re.fullmatch(pattern, path):
      try:
        return original(m) if callable(original) else m.expand(original)
      except (KeyError, IndexError):  # a part, modality or stage that the original lacks
        return None
  return None


def detect(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
  """The architecture that tensors of these names and shapes probably have; None if unknown."""
  for name, width, architecture in SIGNATURES:
    if name in shapes and (width is None or shapes[name][-1:] == (width,)):
      return architecture
  return None
