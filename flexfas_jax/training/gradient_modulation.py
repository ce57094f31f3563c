"""Gradient modulation: `config.gradient_modulation = {'name': a public function here, **fields}`.

Such a function gets the gradient of each modality's loss and that of all other losses, and returns
the one that the optimizer uses. M modalities.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from flexfas_jax.training import trainable as _trainable

# Ranks of the streams' parameters that have a leading axis of modalities, by their last component.
_RANKS = {'cls_token': (3,), 'pos_embed': (3,), 'token': (2,), 'kernel': (3, 5), 'bias': (2,)}


def regrad(
  shared: Mapping[str, Any],
  own: Sequence[Mapping[str, Any]],
  values: jax.Array,
  certainty: jax.Array,
  modalities: tuple[str, ...],
  reaches: tuple[str, ...] = (),
) -> Mapping[str, Any]:
  """ReGrad: what a modality learns from the others depends on conflicts and on their certainty.

  Lin et al., "Suppress and Rebalance: Towards Generalized Multi-Modal Face Anti-Spoofing" (MMDG),
  CVPR 2024; models/regrad.py. With g_j the gradient of modality j's loss, t that of the others,
  v_j the certainty, and for each tensor that belongs to modality k

      project(b, d) = (b d) / (b b) b
      keep(b, d) = project(b, d) if b d > 0, else d - project(b, d)

  the gradient is t + r: if k has the smallest loss, s = sum of g_j over the others and
  r = s + v_k keep(s, g_k); otherwise r = g_k + sum of v_j keep(g_k, g_j) over the others.
  A tensor of no single modality gets t + the sum of all g_j, which the source leaves undefined: its
  released code fails there, and reaches no adapter, since its index stops at the first frozen
  tensor.

  Args:
    shared: t, a tree of the parameters that train.
    own: g_j, a tree for each modality.
    values: [M], the modalities' losses; inf: it has none.
    certainty: v, [M].
    modalities: M names.
    reaches: names in the paths of the parameters that get r, the others get t; (): all. With
      ('cls_token', 'pos_embed') it is the released code, where r reaches no other parameter.
  """
  fastest = jnp.argmin(values)
  named_shared = _trainable.flatten(shared)
  named_own = [_trainable.flatten(tree) for tree in own]
  result = {}
  for name, t in named_shared.items():
    if reaches and not set(reaches) & set(name.split('/')):
      result[name] = t
      continue
    g = jnp.stack([named[name] for named in named_own])  # [M, ...]
    result[name] = t + _modulate(name, g, fastest, certainty, modalities)
  return _trainable.unflatten(result)


def _modulate(name: str, g, fastest, certainty, modalities: tuple[str, ...]):
  """What is added to the other losses' gradient of one parameter.

  Args:
    name: of the parameter.
    g: [M, ...], its gradients of the modalities' losses.
    fastest, certainty, modalities: see `regrad`.
  """
  if re.search(r'(^|/)blocks_\d+/', name):  # stacked blocks; each block has its tensor
    alone = re.sub(r'(^|/)blocks_', r'\1block_', name)
    one = lambda g: _modulate(alone, g, fastest, certainty, modalities)  # noqa: E731
    return jax.vmap(one, in_axes=1)(g)
  owner = _owner(name, g.shape[1:], modalities)
  if owner is None:
    return g.sum(0)
  if owner == 'axis':
    parts = [_rebalance(g[:, k], k, fastest, certainty) for k in range(len(modalities))]
    return jnp.stack(parts)
  return _rebalance(g, owner, fastest, certainty)


def _owner(name: str, shape: tuple[int, ...], modalities: tuple[str, ...]) -> int | str | None:
  """The index of the modality that a parameter belongs to; 'axis': its first axis has them all."""
  parts = name.split('/')
  has_axis = parts[0].startswith('streams_') and len(shape) in _RANKS.get(parts[-1], ())
  if has_axis and shape[0] == len(modalities) > 1:  # [1, ...] is shared
    return 'axis'
  for k, m in enumerate(modalities):
    own = rf'(streams_|branches_)?{m}|{m}_reads_\w+|token_{m}_\d+'
    if any(re.fullmatch(own, part) for part in parts):
      return k
  return None


def _rebalance(g, k: int, fastest, certainty):
  """r of a tensor that belongs to modality k, from its gradients [M, ...]."""
  others = [j for j in range(len(g)) if j != k]
  slow = g[k] + sum(certainty[j] * _keep(g[k], g[j]) for j in others)
  s = sum(g[j] for j in others)
  fast = s + certainty[k] * _keep(s, g[k])
  return jnp.where(fastest == k, fast, slow)


def _keep(b, d):
  """The part of d along b if they agree, otherwise the part across."""
  product = (b * d).sum()
  projection = product / ((b * b).sum() + 1e-8) * b
  return jnp.where(product > 0, projection, d - projection)
