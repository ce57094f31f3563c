"""A learned token for each modality, after the class token (the idea of MA-ViT, IJCAI 2023)."""

import flax.linen as nn
import jax.numpy as jnp

from flexfas_jax.models.hooks import Adapter, Context


class ModalityToken(Adapter):
  """One token that marks of which modality a sequence is; a joint sequence gets those of all,
  present or not.

  Without MA-ViT's attention, whose thresholds are not published.
  """

  hook = 'embedding'

  @nn.compact
  def __call__(self, rows: int, context: Context, D: int):
    """-> [rows, 1, D], or [rows, M, D] of a joint sequence, M of the model."""
    tokens = self.param('token', nn.initializers.normal(0.02), (len(context.every), D))
    if context.joint:
      return jnp.broadcast_to(tokens[None], (rows, *tokens.shape))
    tokens = tokens[jnp.array(context.indices)]  # [M, D]
    return jnp.tile(tokens, (rows // len(tokens), 1))[:, None]
