"""No fusion: one modality, whose last map goes to the head unchanged."""

import flax.linen as nn
import jax.numpy as jnp

from flexfas_jax.errors import ConfigError


class Single(nn.Module):
  """The last map of the only modality: for classifiers, face recognition, one-sensor baselines.

  Attributes:
    modalities: exactly one.
    dtype: of the computation.
  """

  modalities: tuple[str, ...]
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    super().__post_init__()
    if len(self.modalities) != 1:
      raise ConfigError(
        f'single takes one modality, not {tuple(self.modalities)}; '
        "set modalities=('rgb',) or choose another fusion"
      )

  @property
  def requires(self) -> tuple[str, ...]:
    """Modalities that it cannot work without."""
    return tuple(self.modalities)

  def stages(self, n: int) -> tuple[int, ...]:
    """Indices of the stage maps that it reads, of a backbone with n."""
    return (n - 1,)

  def __call__(self, maps, present, train: bool = False):
    """{modality: (map [B, h, w, D],)} and present [B, 1] -> [B, h, w, D]."""
    del train
    return jnp.where(present[:, 0, None, None, None], maps[self.modalities[0]][-1], 0)
