"""Subsets of modalities drawn by their losses: `config.modality_dropout = {'by_loss': {...}}`.

MMA-FAS (ECCV 2024) draws a combination of modalities with a probability that grows with its loss;
it has no public code, and the form here is ours: the probability is proportional to a running mean
of the loss. S subsets, M modalities, B batch.
"""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flexfas_jax.errors import ConfigError


class ByLoss(NamedTuple):
  """The part of the training state that draws subsets, and how it is updated.

  Attributes:
    subsets: S rows of M bool, each with a modality.
    decay: of the running mean, per step in which the subset occurs.
  """

  subsets: tuple[tuple[bool, ...], ...]
  decay: float

  def initial(self) -> dict[str, np.ndarray]:
    """Equal losses: at first, all subsets are as probable."""
    return {'subset_loss': np.ones(len(self.subsets), np.float32)}

  def draw(
    self, key: jax.Array, present: jax.Array, running: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """A subset for each sample.

    Args:
      key: one draw per sample.
      present: [B, M] bool, what a sample has. A sample with nothing of its subset keeps all.
      running: [S], the running losses.

    Returns:
      [B, M] bool, what it keeps, and [B, S] float32, the subset that this is, as one-hot rows: a
      sample that lacks a modality of the drawn subset keeps another. A row is 0 where no subset is
      what it keeps.
    """
    logits = jnp.broadcast_to(jnp.log(running + 1e-6), (len(present), len(self.subsets)))
    subsets = jnp.array(self.subsets)  # [S, M]
    kept = present & subsets[jax.random.categorical(key, logits)]  # [B, M]
    kept = jnp.where(kept.any(1, keepdims=True), kept, present)
    return kept, (kept[:, None] == subsets[None]).all(-1).astype(jnp.float32)  # [B, S]

  def update(self, running: jax.Array, sums: jax.Array, counts: jax.Array) -> jax.Array:
    """The running losses [S] after a step.

    Args:
      running: [S].
      sums, counts: [S], of the losses and samples of each subset; both may share a factor.
    """
    mean = sums / jnp.where(counts > 0, counts, 1.0)
    return jnp.where(counts > 0, self.decay * running + (1 - self.decay) * mean, running)


def build(fields: Mapping, modalities: tuple[str, ...]) -> ByLoss | None:
  """What `config.modality_dropout` describes; None: each modality is dropped at its rate.

  Args:
    fields: {'by_loss': {'drop': modalities that a sample may lose, 'decay': 0.95}}.
    modalities: M names.

  Raises:
    ConfigError: other fields or values.
  """
  if 'by_loss' not in fields:
    return None
  name = 'config.modality_dropout.by_loss'
  values = fields['by_loss']
  if len(fields) > 1 or not isinstance(values, Mapping) or set(values) - {'drop', 'decay'}:
    raise ConfigError(
      f"{name} stands alone, with the fields drop and decay: {{'drop': ('depth', 'ir'), "
      f"'decay': 0.95}}; config.modality_dropout is {dict(fields)!r}"
    )
  drop, decay = values.get('drop', modalities), values.get('decay', 0.95)
  if isinstance(drop, str) or not drop or set(drop) - set(modalities):
    raise ConfigError(f'{name}.drop is {drop!r}; give some of {modalities}')
  if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 <= decay < 1:
    raise ConfigError(f'{name}.decay is {decay!r}; give a number from 0 to 1')
  choices = [(True, False) if m in drop else (True,) for m in modalities]
  subsets = tuple(row for row in itertools.product(*choices) if any(row))
  return ByLoss(subsets, float(decay))
