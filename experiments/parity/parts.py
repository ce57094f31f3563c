"""Parts of later methods beside their PyTorch originals: adapters, blocks, attention, MMDG, losses.

`PARTS` has, for each architecture of a fixture, a function (tensors, inputs, spec) -> outputs.
`spec` is the fixture's JSON. Widths, depths and grids follow from the tensors and the inputs.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from flexfas_jax.images.plgf import plgf
from flexfas_jax.models import flexmodal
from flexfas_jax.models.adapters.ama import SharedPart
from flexfas_jax.models.adapters.conv import Conv
from flexfas_jax.models.adapters.uncertain_cross import Pair, certainty
from flexfas_jax.models.adapters.uncertain_cross_plus import Reader
from flexfas_jax.models.backbone import vit
from flexfas_jax.models.hooks import Context
from flexfas_jax.models.transformer import Attention, Block
from flexfas_jax.training import gradient_modulation, hyperplanes, losses, prototypes

Tensors = Mapping[str, np.ndarray]
Outputs = dict[str, Any]
MODALITIES = ('rgb', 'depth', 'ir')


def dense(t: Tensors, name: str) -> dict:
  """A linear layer's parameters."""
  layer = {'kernel': t[f'{name}.weight'].T}
  return layer | ({'bias': t[f'{name}.bias']} if f'{name}.bias' in t else {})


def norm(t: Tensors, name: str) -> dict:
  """A layer norm's parameters."""
  return {'scale': t[f'{name}.weight'], 'bias': t[f'{name}.bias']}


def kernel(t: Tensors, name: str) -> np.ndarray:
  """[D, C, k, k] -> [k, k, C, D]."""
  return t[f'{name}.weight'].transpose(2, 3, 1, 0)


def conv_adapter(t: Tensors, prefix: str = '') -> dict:
  """Parameters of `adapters.conv.Conv`."""
  return {
    'down': dense(t, f'{prefix}adapter_down'),
    'conv': {'kernel': kernel(t, f'{prefix}adapter_conv.conv')},
    'up': dense(t, f'{prefix}adapter_up'),
  }


def shared_part(t: Tensors, prefix: str = '') -> dict:
  """Parameters of `adapters.ama.SharedPart`."""
  return {
    'down': dense(t, f'{prefix}adapter_down'),
    'conv': kernel(t, f'{prefix}adapter_conv.conv'),
    'weigh': {'kernel': t[f'{prefix}CAconv.weight'][:, :, 0, 0].T},
    'up': dense(t, f'{prefix}adapter_up'),
  }


def pair(t: Tensors, prefix: str = '') -> dict:
  """Parameters of `adapters.uncertain_cross.Pair`."""
  cross = f'{prefix}cross_attention.'
  return {
    'down': dense(t, f'{prefix}adapter_down_1'),
    'down_other': dense(t, f'{prefix}adapter_down_2'),
    'q': dense(t, f'{cross}q_linear'),
    'cross': {
      'k': dense(t, f'{cross}k_linear'),
      'v': dense(t, f'{cross}v_linear'),
      'proj': dense(t, f'{cross}proj'),
    },
    'norm': norm(t, f'{prefix}ln_before'),
    'conv': {'kernel': kernel(t, f'{prefix}adapter_conv.conv')},
    'up': dense(t, f'{prefix}adapter_up'),
  }


def reader(t: Tensors) -> dict:
  """Parameters of `adapters.uncertain_cross_plus.Reader`."""
  cross = 'cross_attention.'
  return {
    'down': dense(t, 'adapter_down_k_v'),
    'down_q': dense(t, 'adapter_down_q'),
    'norm_kv': norm(t, 'ln_k_v'),
    'norm_q': norm(t, 'ln_q'),
    'q_other': dense(t, f'{cross}q_linear_1'),
    'q_own': dense(t, f'{cross}q_linear_2'),
    'mean_other': dense(t, f'{cross}mean_mlp_1'),
    'mean_own': dense(t, f'{cross}mean_mlp_2'),
    'log_variance_other': dense(t, f'{cross}std_mlp_1'),
    'log_variance_own': dense(t, f'{cross}std_mlp_2'),
    'cross': {
      'k': dense(t, f'{cross}k_linear'),
      'v': dense(t, f'{cross}v_linear'),
      'proj': dense(t, f'{cross}proj'),
    },
    'mlp': dense(t, 'adapter_mlp'),
    'conv': {'kernel': kernel(t, 'adapter_conv.conv')},
    'up': dense(t, 'adapter_up'),
  }


def torchvision_block(t: Tensors, attention: str, names: tuple[str, str, str, str]) -> dict:
  """Parameters of a block without adapters; names of its two norms and of the MLP's two layers."""
  return {
    'norm1': norm(t, names[0]),
    'attn': {
      'qkv': {'kernel': t[f'{attention}.in_proj_weight'].T, 'bias': t[f'{attention}.in_proj_bias']},
      'proj': dense(t, f'{attention}.out_proj'),
    },
    'norm2': norm(t, names[1]),
    'fc1': dense(t, names[2]),
    'fc2': dense(t, names[3]),
  }


def run(module, params, *args, **kwargs):
  """A module's outputs and intermediates."""
  variables = {'params': jax.tree.map(jnp.asarray, params)}
  function = jax.jit(lambda v, a: module.apply(v, *a, **kwargs, mutable=['intermediates']))
  return function(variables, tuple(jnp.asarray(a) for a in args))


def grid_of(n: int) -> tuple[int, int]:
  """The square grid of n patches."""
  side = round(n**0.5)
  assert side**2 == n, f'{n} patches are no square'
  return side, side


def one(x: np.ndarray) -> Context:
  """The context of tokens [B, 1 + h w, D] of one modality."""
  return Context(grid=grid_of(x.shape[1] - 1), prefix=1)


def joint(x: np.ndarray, modalities: tuple[str, ...] = MODALITIES) -> Context:
  """The context of a joint sequence [B, 1 + M h w, D]."""
  grid = grid_of((x.shape[1] - 1) // len(modalities))
  return Context(None, modalities, MODALITIES, grid, prefix=1, joint=True)


def adapter_conv_cdc(t: Tensors, inputs, spec) -> Outputs:
  """DADM's Convpass(r, theta=0.7)."""
  (x,) = inputs
  module = Conv(width=len(t['adapter_down.bias']), theta=spec.get('theta', 0.7))
  return {'out': run(module, conv_adapter(t), x, x, context=one(x))[0]}


def adapter_ama_independent(t: Tensors, inputs, spec) -> Outputs:
  """DADM's Convpass_3modality_independent(r, theta=0)."""
  (x,) = inputs
  module = Conv(width=len(t['adapter_down.bias']), theta=0.0)
  return {'out': run(module, conv_adapter(t), x, x, context=joint(x))[0]}


def adapter_ama_shared(t: Tensors, inputs, spec) -> Outputs:
  """DADM's Convpass_3modality_ConcatAllConv_ModalityRefine(r, theta=0)."""
  (x,) = inputs
  module = SharedPart(3, len(t['adapter_down.bias']))
  return {'out': run(module, shared_part(t), x, context=joint(x))[0]}


def adapter_mmdg_u(t: Tensors, inputs, spec) -> Outputs:
  """MMDG's U_Adapter(r, theta=0.5), u = exp(-|third input|)."""
  x, other, z = inputs
  module = Pair(len(t['adapter_down_1.bias']), spec.get('heads', 8), 0.5, 0.0)
  u = np.exp(-np.abs(z)).mean(-1)
  return {'out': run(module, pair(t), x, other, u, context=one(x))[0]}


def adapter_mmdgpp_u(t: Tensors, inputs, spec) -> Outputs:
  """MMDG++'s Cross_Convpass_UC_missing(r, theta=0.5, exp_rate=0.25), sampling by its mean."""
  x, other = inputs
  width = len(t['adapter_down_q.bias'])
  module = Reader(width, spec.get('heads', 8), 0.5, spec.get('exp_rate', 0.25), 50)
  outputs = {}
  for suffix, is_there in (('', True), ('_other_missing', False)):
    out, state = run(module, reader(t), x, other, np.full(len(x), is_there), context=one(x))
    outputs[f'out{suffix}'] = out
    outputs[f'certainty{suffix}'] = state['intermediates']['certainty'][0]
  return outputs


def _ama_block(t: Tensors, parts: str, spec) -> tuple[Block, dict]:
  D = len(t['ln1.weight'])
  width = len(t['mhsa_conv_pass1.adapter_down.bias'])
  block = Block(
    heads=spec.get('heads', max(D // 64, 1)),
    mlp_ratio=len(t['mlp.0.bias']) // D,
    adapters=(FrozenDict(name='ama', parts=parts, width=width),),
  )
  params = torchvision_block(t, 'attention', ('ln1', 'ln_2', 'mlp.0', 'mlp.3'))
  for site, name in (('attention', 'mhsa'), ('mlp', 'ffn')):
    adapter = {'independent': conv_adapter(t, f'{name}_conv_pass1.')}
    if parts == 'both':
      adapter['shared'] = shared_part(t, f'{name}_conv_pass2.')
    else:
      adapter |= {f'shared_{n}': shared_part(t, f'{name}_conv_pass{n}.') for n in (2, 3)}
    params[f'adapters_ama_{site}'] = adapter
  return block, params


def block_ama_two_adapters(t: Tensors, inputs, spec) -> Outputs:
  """DADM's vit_CDCadapter_3modality_2adapter around torchvision's block."""
  (x,) = inputs
  block, params = _ama_block(t, 'both', spec)
  return {'out': run(block, params, x, context=joint(x))[0]}


def block_ama_dynamic(t: Tensors, inputs, spec) -> Outputs:
  """DADM's vit_CDCadapter_3modality_DynamicAdapter with one, two and three modalities."""
  (x,) = inputs
  block, params = _ama_block(t, 'dynamic', spec)
  patches = (x.shape[1] - 1) // 3
  outputs = {}
  for n, name in enumerate(('one', 'two', 'three'), 1):
    tokens = x[:, : 1 + n * patches]
    outputs[name] = run(block, params, tokens, context=joint(tokens, MODALITIES[:n]))[0]
  return outputs


def lora_attention_qv(t: Tensors, inputs, spec) -> Outputs:
  """FoundPAD's PlainMultiheadAttentionLoRA on queries and values."""
  (x,) = inputs
  fields = {'rank': spec['rank'], 'alpha': spec['alpha'], 'targets': ('q', 'v')}
  module = Block(spec['heads'], adapters=(FrozenDict(name='lora', **fields),))
  attention = Attention(module.heads, adapters=module.named_adapters('projection'))
  qkv = [dense(t, f'{target}_proj') for target in 'qkv']
  params = {
    'qkv': {name: np.concatenate([p[name] for p in qkv], -1) for name in ('kernel', 'bias')},
    'proj': dense(t, 'proj'),
    'adapters_lora': {
      f'{target}_{part}': t[f'{target}_proj.w_lora_{part.upper()}'].T
      for target in fields['targets']
      for part in 'ab'
    },
  }
  return {'out': run(attention, params, x)[0]}


def prefix_attention(t: Tensors, inputs, spec) -> Outputs:
  """missing_aware_prompts' Attention with prompts before keys and values."""
  x, prompts = inputs
  params = {'qkv': dense(t, 'qkv'), 'proj': dense(t, 'proj')}
  module = Attention(spec.get('heads', 12))
  variables = {'params': jax.tree.map(jnp.asarray, params)}
  return {'out': jax.jit(module.apply)(variables, jnp.asarray(x), None, [jnp.asarray(prompts)])}


def mmdg_uncertainty(t: Tensors, inputs, spec) -> Outputs:
  """MMDG's certainty: the closed form. The mean of the source's draws is near, not equal."""
  return {'closed_form': certainty(jnp.asarray(inputs[0]))}


def mmdg(t: Tensors, inputs, spec) -> Outputs:
  """The whole MMDG with its number of blocks."""
  D = t['class_token1'].shape[-1]
  depth = sum(name.endswith('.ln_1.weight') for name in t)
  variant = next(k for k, v in vit.VARIANTS.items() if v.width == D)
  size = inputs[0].shape[-1]
  model = flexmodal.build(
    {
      'name': 'vit',
      'variant': variant,
      'depth': depth,
      'output': 'class_token',
      'patch_size': t['conv_proj1.weight'].shape[-1],
      'per_modality': ('patch_embed', 'cls_token', 'pos_embed'),
      'adapters': ({'name': 'uncertain_cross', 'width': len(t['adapter_1_2_2.0.ln_before.bias'])},),
    },
    {'name': 'plain_concat'},
    {'name': 'binary_logit'},
    modalities=MODALITIES,
    image_size=size,
    absent='blank',
    blank_value=0.0,
  )
  numbers = {m: i for i, m in enumerate(MODALITIES, 1)}
  stream: dict[str, Any] = {
    'cls_token': np.concatenate([t[f'class_token{i}'] for i in numbers.values()]),
    'pos_embed': np.concatenate([t[f'pos_embedding{i}'] for i in numbers.values()]),
    'patch_embed': {
      'kernel': np.stack([kernel(t, f'conv_proj{i}').reshape(-1, D) for i in numbers.values()]),
      'bias': np.stack([t[f'conv_proj{i}.bias'] for i in numbers.values()]),
    },
    'norm': norm(t, f'ViT_Encoder.{depth + 1}'),
  }
  backbone = model.module.streams['shared']
  for i, stage in enumerate(backbone.stage_modules, 1):
    blocks = stream.setdefault(f'stage_{i}', {})
    for j in range(stage.first, stage.end):
      prefix = f'ViT_Encoder.{j + 1}'
      names = tuple(f'{prefix}.{n}' for n in ('ln_1', 'ln_2', 'mlp.0', 'mlp.3'))
      block = torchvision_block(t, f'{prefix}.self_attention', names)
      block['adapters_uncertain_cross_mlp'] = {
        f'{own}_reads_{other}': pair(t, f'adapter_{a}_{b}_2.{j}.')
        for own, a in numbers.items()
        for other, b in numbers.items()
        if a != b and 1 in (a, b)
      }
      blocks[f'block_{j}'] = block
  logits = dense(t, 'fc_all.0')
  # The original has two columns, of which this model has the difference.
  head = {'logit': {k: v[..., 1:] - v[..., :1] for k, v in logits.items()}}
  params = {'streams_shared': stream, 'head': head}
  expected = jax.tree.map(jnp.shape, model.shapes()['params'])
  assert jax.tree.map(np.shape, params) == expected, 'the tensors are not those of MMDG'
  variables = {'params': jax.tree.map(jnp.asarray, params), 'batch_stats': {}}
  images = {m: np.moveaxis(x, 1, -1) for m, x in zip(MODALITIES, inputs, strict=True)}

  @jax.jit
  def outputs(variables, images, present):
    maps, state = model.module.apply(
      variables, images, present, method='encode_together', mutable=['intermediates']
    )
    logit = model.decide(variables, maps, model.absent_maps(variables), present)['logit']
    return logit, {m: maps[m][-1][:, 0, 0] for m in MODALITIES}, state

  B = len(inputs[0])
  logit, features, state = outputs(variables, images, np.ones((B, 3), bool))
  rgb_only = np.tile([True, False, False], (B, 1))
  last = state['intermediates']['streams_shared'][f'stage_{len(backbone.stage_modules)}']
  return {
    'logits': logit,
    'logits_rgb_only_zeros': outputs(variables, images, rgb_only)[0],
    **features,
    'certainty': last[f'block_{depth - 1}']['adapters_uncertain_cross_mlp']['certainty'][0],
  }


def mmdg_ssp_loss(t: Tensors, inputs, spec) -> Outputs:
  """DADM's SingleSideCELoss of one modality, whose class numbers are given."""
  feature, prototype = map(jnp.asarray, inputs)
  classes = jnp.asarray(spec['labels'])
  known = {'prototype': prototype[None], 'prototype_weight': jnp.ones((1, len(prototype)))}
  batch = {'label': classes == 0, 'domain': classes - 1, 'present': jnp.ones((len(classes), 1))}
  batch = {name: x.astype(jnp.int32) for name, x in batch.items()}
  batch['present'] = batch['present'] == 1

  def loss(feature):
    outputs = {'modality_feature': feature[:, None], **known}
    fields = {'domains': len(prototype) - 1, 'period': 1}
    return losses.single_side_prototypes(outputs, batch, **fields).mean()

  value, gradient = jax.jit(jax.value_and_grad(loss))(feature)
  return {'loss': value, 'gradient': gradient}


def mmdg_prototypes(t: Tensors, inputs, spec) -> Outputs:
  """MMDG's calculate_prototype in two epochs, five classes, the old ones in their order."""
  (features,) = inputs  # [2, M, B, D]
  label, outputs = jnp.asarray(spec['labels']), {}
  old = jnp.zeros((features.shape[1], 5, features.shape[-1]))
  for epoch, name in enumerate(('epoch_0', 'epoch_1_corrected')):
    feature = jnp.swapaxes(jnp.asarray(features[epoch]), 0, 1)  # [B, M, D]
    sums, counts = prototypes.class_means(feature, label, jnp.ones(feature.shape[:2], bool), 5)
    old = outputs[name] = prototypes.epoch_update(old, sums, counts, 0.2, epoch == 0)
  return outputs


def mmdg_regrad(t: Tensors, inputs, spec) -> Outputs:
  """MMDG's backward_regrad_3_modal_no_leak on one tensor for each modality, in many cases."""
  g, total, values, z = map(jnp.asarray, inputs)  # [C, k, j, D], [C, k, D], [C, M], [C, M]

  def case(g, total, values, certainty):
    def tree(tensors):
      return {m: {'kernel': x} for m, x in zip(MODALITIES, tensors, strict=True)}

    own = [tree(g[:, j]) for j in range(len(MODALITIES))]
    result = gradient_modulation.regrad(tree(total), own, values, certainty, MODALITIES)
    return jnp.stack([result[m]['kernel'] for m in MODALITIES])

  values = jnp.abs(values)
  result = jax.jit(jax.vmap(case))(g, total, values, jnp.exp(-jnp.abs(z)))
  # Without a frozen tensor the released code computes the same.
  return {'corrected': result, 'published': result, 'fastest': values.argmin(1)}


def dadm_angle_loss(t: Tensors, inputs, spec) -> Outputs:
  """DADM's MeanAngleLoss of three and two domains, and of a domain without bona fide samples."""
  feature = jnp.swapaxes(jnp.asarray(inputs[0]), 0, 1)  # [B, M, D]
  cases = {
    'three_domains': ('labels', 'domains3'),
    'two_domains': ('labels', 'domains2'),
    'three_domains_one_without_bona_fide': ('labels_hole', 'domains3'),
  }
  outputs = {}
  for name, (label, domain) in cases.items():
    batch = {'label': jnp.asarray(spec[label]), 'domain': jnp.asarray(spec[domain])}
    batch['present'] = jnp.ones(feature.shape[:2], bool)
    domains = max(spec[domain]) + 1
    value = losses.mean_angle({'modality_feature': feature}, batch, domains)
    outputs[f'mean_angle_{name}'] = value[0]
  return outputs


def dadm_hyperplanes(t: Tensors, inputs, spec) -> Outputs:
  """DADM's update_hyperplane(alpha=0.995), once."""
  kernel = hyperplanes.approach(jnp.asarray(inputs[0]), 1 - 0.995)
  return {'domains': kernel, 'mean': kernel.mean(0)}


def ir_plgf(t: Tensors, inputs, spec) -> Outputs:
  """DADM's plgf of an image of round(60 z + 120), clipped to 8 bits."""
  return {'plgf': plgf(np.round(np.clip(60 * inputs[0] + 120, 0, 255)))}


PARTS: dict[str, Callable] = {
  function.__name__: function
  for function in (
    adapter_conv_cdc,
    adapter_ama_independent,
    adapter_ama_shared,
    adapter_mmdg_u,
    adapter_mmdgpp_u,
    block_ama_two_adapters,
    block_ama_dynamic,
    lora_attention_qv,
    prefix_attention,
    mmdg_uncertainty,
    mmdg_ssp_loss,
    mmdg_prototypes,
    mmdg_regrad,
    dadm_angle_loss,
    dadm_hyperplanes,
    ir_plgf,
  )
}


def find(architecture: str) -> Callable | None:
  """The function of an architecture; None for one of `weights/architectures.py`."""
  if re.fullmatch(r'mmdg_\d+_blocks', architecture):
    return mmdg
  return PARTS.get(architecture)
