"""Prompts by missing case: learned tokens that depend on which modalities are present.

After VP-FAS (TDSC 2024), whose code is not public, and its ancestor: Lee et al., "Multimodal
Prompting with Missing Modalities for Visual Recognition", CVPR 2023 (missing_aware_prompts).
"""

import flax.linen as nn
import jax.numpy as jnp

from flexfas_jax.errors import ConfigError
from flexfas_jax.models.hooks import Adapter, Context

CONTEXT_WIDTH = 96


class Prompts(Adapter):
  """L tokens in each block, one set for each non-empty subset of the modalities.

  The tokens of a block are replaced in the next one. The source's prompts accumulate.

  Attributes:
    length: L.
    kind: 'input', before the block's tokens, or 'attention': the first half before its keys, the
      second before its values.
    contextual: add MLP(mean of the present modalities' patches) to every token, 0 at first.
  """

  length: int = 16
  kind: str = 'input'
  contextual: bool = False

  hook = 'prompts'
  cross_modal = True

  def check(self, sequence: str) -> None:
    super().check(sequence)
    if self.kind not in ('input', 'attention'):
      raise ConfigError(f"prompts have no kind {self.kind!r}; choose 'input' or 'attention'")
    if self.kind == 'attention' and self.length % 2:
      raise ConfigError(f"prompts of the kind 'attention' have an even length, not {self.length}")

  @nn.compact
  def __call__(self, x, context: Context):
    """Tokens x [rows, N, D] -> [rows, L, D]."""
    D, every = x.shape[-1], len(context.every)
    shape = (2**every - 1, self.length, D)
    table = self.param('table', nn.initializers.normal(0.02), shape)
    prefix, maps = context.split(x)  # [B, k, P, D], [B, M, h, w, D]
    B, k = prefix.shape[:2]
    bits = jnp.array([2**i for i in context.indices])[None]  # [1, M]
    present = context.present
    if present is None:
      present = jnp.ones((B, len(context.modalities)), bool)
    case = jnp.maximum((present * bits).sum(1) - 1, 0)  # [B]; a sample without any is not scored
    tokens = table[case].astype(self.dtype)  # [B, L, D]
    if self.contextual:
      weights = present / jnp.maximum(present.sum(1, keepdims=True), 1)  # [B, M]
      mean = jnp.einsum('bm,bmd->bd', weights, maps.mean((2, 3)).astype(jnp.float32))
      y = nn.gelu(nn.Dense(CONTEXT_WIDTH, dtype=self.dtype, name='fc1')(mean), approximate=False)
      zero = nn.initializers.zeros
      y = nn.Dense(D, dtype=self.dtype, kernel_init=zero, name='fc2')(y)  # [B, D]
      tokens = tokens + y[:, None]
    return jnp.repeat(tokens, k, 0)
