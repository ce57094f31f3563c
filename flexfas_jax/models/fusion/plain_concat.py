"""Fusion by concatenation alone, [F_rgb, F_depth, F_ir], without a layer: MMDG's and MMDG++'s."""

import flax.linen as nn
import jax.numpy as jnp


class PlainConcat(nn.Module):
  """Concatenates the last stage's maps; an absent modality's channels are 0.

  Attributes:
    modalities: in the order of concatenation.
    dtype: of the computation.
  """

  modalities: tuple[str, ...]
  dtype: jnp.dtype = jnp.float32

  requires = ()  # modalities that it cannot work without

  def stages(self, n: int) -> tuple[int, ...]:
    """Indices of the stage maps that it reads, of a backbone with n."""
    return (n - 1,)

  def __call__(self, maps, present, train: bool = False):
    """{modality: (map [B, h, w, D],)} and present [B, M] -> [B, h, w, M D]."""
    parts = [
      jnp.where(present[:, i, None, None, None], maps[m][-1], 0)
      for i, m in enumerate(self.modalities)
    ]
    return jnp.concatenate(parts, -1)
