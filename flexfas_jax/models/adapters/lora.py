"""Low-rank adaptation of the products of attention, as in FoundPAD.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022; Ozgur et al.,
"FoundPAD", WACVW 2025 (loralib): rank 8 on queries and values, the rank-stabilised scale alpha /
sqrt(r).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from flexfas_jax.errors import ConfigError
from flexfas_jax.models.hooks import Adapter

TARGETS = ('q', 'k', 'v', 'o')


class Lora(Adapter):
  """scale B A dropout(x), added to the products of `targets`; 0 at first.

  Attributes:
    targets: of `TARGETS`.
    rank: r.
    alpha: of the scale.
    scaling: 'rank_stabilised', alpha / sqrt(r), or 'standard', alpha / r.
    dropout: of the low-rank branch's input, in training.
  """

  targets: tuple[str, ...] = ('q', 'v')
  rank: int = 8
  alpha: float = 8.0
  scaling: str = 'rank_stabilised'
  dropout: float = 0.4

  hook = 'projection'

  def check(self, sequence: str) -> None:
    super().check(sequence)
    for target in self.targets:
      if target not in TARGETS:
        raise ConfigError(f'lora has no target {target!r}; choose from: {", ".join(TARGETS)}')
    if self.scaling not in ('rank_stabilised', 'standard'):
      raise ConfigError(
        f"lora has no scaling {self.scaling!r}; choose 'rank_stabilised' or 'standard'"
      )

  @property
  def scale(self) -> float:
    """Of the product B A."""
    return self.alpha / (self.rank**0.5 if self.scaling == 'rank_stabilised' else self.rank)

  @nn.compact
  def __call__(self, x, target: str, train: bool = False):
    """[B, N, D] -> [B, N, D]."""
    x = nn.Dropout(self.dropout, deterministic=not train, name=f'drop_{target}')(x)
    D = x.shape[-1]
    # PyTorch's Kaiming initialisation with a = sqrt(5): uniform within 1 / sqrt(D).
    init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
    a = self.param(f'{target}_a', init, (D, self.rank))
    b = self.param(f'{target}_b', nn.initializers.zeros, (self.rank, D))
    x, a, b = nn.dtypes.promote_dtype(x, a, b, dtype=self.dtype)
    return self.scale * ((x @ a) @ b)


def merge(params: Mapping[str, Any], adapter: Lora) -> dict[str, Any]:
  """A model's parameters in which every block's LoRA is part of its products; see `merge_block`."""
  merged = {
    name: merge(value, adapter) if isinstance(value, Mapping) else value
    for name, value in params.items()
  }
  return merge_block(merged, adapter) if 'adapters_lora' in merged.get('attn', {}) else merged


def merge_block(block: Mapping[str, Any], adapter: Lora) -> dict[str, Any]:
  """The parameters of a block without LoRA that computes the same in evaluation.

  Args:
    block: parameters of a `transformer.Block`: 'attn/qkv/kernel' [D, 3 D], 'attn/proj/kernel' [D,
      D], 'attn/adapters_lora/*'.
    adapter: with the fields of the block's.
  """
  attention = {k: v for k, v in block['attn'].items() if k != 'adapters_lora'}
  low_rank = block['attn']['adapters_lora']
  for target in adapter.targets:
    # [D, D], or [n, D, D] of n stacked blocks.
    product = adapter.scale * (low_rank[f'{target}_a'] @ low_rank[f'{target}_b'])
    name = 'proj' if target == 'o' else 'qkv'
    if target != 'o':
      zero = jnp.zeros_like(product)
      product = jnp.concatenate([product if t == target else zero for t in 'qkv'], -1)
    attention[name] = {**attention[name], 'kernel': attention[name]['kernel'] + product}
  return {**block, 'attn': attention}
