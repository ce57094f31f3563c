"""Losses: `loss(outputs, batch) -> [B] float32`, one value per sample; the step takes the mean.

`outputs` is what a model gives: {'logit': [B], 'map': [B, h, w] or None}; `batch['label']` is 1 for
bona fide.
"""

import jax
import jax.numpy as jnp
import optax


def binary_cross_entropy(outputs, batch) -> jax.Array:
  """-log p of the right class; equals the references' two-column softmax cross-entropy."""
  label = batch['label'].astype(jnp.float32)
  return optax.sigmoid_binary_cross_entropy(outputs['logit'].astype(jnp.float32), label)
