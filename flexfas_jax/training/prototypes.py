"""Class prototypes of each modality's features: how they are measured and averaged.

Lin et al., "Suppress and Rebalance: Towards Generalized Multi-Modal Face Anti-Spoofing" (MMDG),
CVPR 2024, takes class means in a separate pass before each epoch (`epoch_update`). Here they are
part of the training state: a moving average of the features of the training steps, without another
pass (`step_update`). B batch, M modalities, K classes, D width.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Memory = Mapping[str, jax.Array]
MEMORY = ('prototype', 'prototype_weight')  # the names in the training state


class Prototypes(NamedTuple):
  """The part of the training state that `losses.single_side_prototypes` reads.

  Attributes:
    classes: K.
    decay: of a feature's weight, per step.
  """

  classes: int
  decay: float

  def initial(self, modalities: int, width: int) -> dict[str, np.ndarray]:
    """Prototypes without weight, which the loss leaves out."""
    shape = (modalities, self.classes)
    return {
      'prototype': np.zeros((*shape, width), np.float32),
      'prototype_weight': np.zeros(shape, np.float32),
    }


def single_side_classes(label: jax.Array, domain: jax.Array) -> jax.Array:
  """Classes [B]: 0, bona fide samples of all domains; 1 + d, attacks of domain d."""
  return jnp.where(label == 1, 0, 1 + domain)


def class_means(
  feature: jax.Array, label: jax.Array, present: jax.Array, classes: int
) -> tuple[jax.Array, jax.Array]:
  """Sums of the features of each class, and the counts of samples, both divided by B.

  Args:
    feature: [B, M, D] float32; that of an absent modality is not read.
    label: [B], of the classes.
    present: [B, M] bool.
    classes: K.

  Returns:
    [M, K, D] and [M, K], without a gradient.
  """
  is_class = jax.nn.one_hot(label, classes, dtype=bool)  # [B, K]
  taken = (is_class[:, None] & present[:, :, None]).astype(jnp.float32)  # [B, M, K]
  feature = jax.lax.stop_gradient(jnp.where(present[:, :, None], feature, 0.0))
  sums = jnp.einsum('bmk,bmd->mkd', taken, feature, precision=jax.lax.Precision.HIGHEST)
  return sums / len(label), taken.sum(0) / len(label)


def epoch_update(
  old: jax.Array, sums: jax.Array, counts: jax.Array, momentum: float, is_first: bool
) -> jax.Array:
  """Prototypes [M, K, D] of an epoch, as the source computes them: (1 - m) new + m old.

  In the first epoch the old ones have no weight. A class without a sample keeps its old prototype;
  the source makes it 0, or shrinks it. Its released call also passes the old prototypes of the
  second and third modality in the other order (mmdg: models/regrad.py, calculate_prototype).

  Args:
    old: [M, K, D].
    sums, counts: of the epoch's features, as from `class_means`.
    momentum: m; the source's is 0.2.
    is_first: see above.
  """
  new = sums / jnp.where(counts > 0, counts, 1.0)[:, :, None]
  mixed = new if is_first else (1 - momentum) * new + momentum * old
  return jnp.where(counts[:, :, None] > 0, mixed, old)


def step_update(
  memory: Memory, sums: jax.Array, counts: jax.Array, decay: float
) -> dict[str, jax.Array]:
  """The memory after a step: means of all features until now, older ones with less weight.

  A prototype is the weighted mean of its class's features, with the weight decay^n, n the number of
  later steps that have the class. With decay = m^(1 / steps of an epoch), those of earlier epochs
  have the weight m, as in the source, and none in the first. A class without a sample keeps its
  prototype and its weight.

  Args:
    memory: 'prototype' [M, K, D] and 'prototype_weight' [M, K].
    sums, counts: of the step's batch, from `class_means`.
    decay: see above.
  """
  old, weight = memory['prototype'], memory['prototype_weight']
  has = counts > 0
  weight = jnp.where(has, decay * weight + counts, weight)
  mean = sums / jnp.where(has, counts, 1.0)[:, :, None]
  rate = jnp.where(has, counts / jnp.where(has, weight, 1.0), 0.0)[:, :, None]
  return {'prototype': old + rate * (mean - old), 'prototype_weight': weight}
