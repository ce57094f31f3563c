"""Hyperplanes of the head `domain_hyperplanes`, one for each domain, that approach each other.

DADM (ICCV 2025; models/my_adapter.py, update_hyperplane). K domains, C = 2 classes, D width.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from flexfas_jax.training import trainable

PARAMETER = 'head/kernel'


def approach(kernel: jax.Array, rate: float = 0.005) -> jax.Array:
  """Turns each domain's directions towards those of the domain that differs most; keeps norms.

  Per row (class): W_d becomes |W_d| times the direction of (1 - rate) b_d + rate b_f, where b are
  directions, and f is the domain with the smallest cosine to d, summed over classes.

  Args:
    kernel: [K, C, D].
    rate: the source's is 0.005.
  """
  K = len(kernel)
  if K == 1:
    return kernel
  norm = jnp.linalg.norm(kernel, axis=-1, keepdims=True)
  unit = kernel / (norm + 1e-10)  # [K, C, D]
  cosine = jnp.einsum('acd,bcd->ab', unit, unit, precision=jax.lax.Precision.HIGHEST)
  farthest = jnp.where(jnp.eye(K, dtype=bool), jnp.inf, cosine).argmin(1)  # [K]
  turned = (1 - rate) * unit + rate * unit[farthest]
  return norm * turned / (jnp.linalg.norm(turned, axis=-1, keepdims=True) + 1e-10)


def update(params: Mapping[str, Any], rate: float) -> Mapping[str, Any]:
  """The parameters after `approach`, if the head's are among them."""
  named = trainable.flatten(params)
  if PARAMETER not in named:
    return params
  return trainable.unflatten(named | {PARAMETER: approach(named[PARAMETER], rate)})
