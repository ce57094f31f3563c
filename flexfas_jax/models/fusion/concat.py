"""Fusion by concatenation, FlexModal's default: ReLU(BN(Conv([F_rgb, F_depth, F_ir])))."""

import flax.linen as nn
import jax.numpy as jnp

from flexfas_jax.models.layers import ConvNormRelu


class Concat(nn.Module):
  """Concatenates the last stage's maps and mixes them.

  Attributes:
    modalities: in the order of concatenation.
    width: channels out; None: those of one modality.
    kernel_size: of the convolution.
    theta: of its central difference (CDCN's lastconv2: 0.7); 0 gives a plain convolution.
    dropout: of whole channels before the convolution, in training.
    dtype: of the computation.
  """

  modalities: tuple[str, ...]
  width: int | None = None
  kernel_size: int = 3
  theta: float = 0.0
  dropout: float = 0.0
  dtype: jnp.dtype = jnp.float32

  requires = ()  # modalities that it cannot work without

  def stages(self, n: int) -> tuple[int, ...]:
    """Indices of the stage maps that it reads, of a backbone with n."""
    return (n - 1,)

  @nn.compact
  def __call__(self, maps, present, train: bool = False):
    """{modality: (map [B, h, w, D],)} and present [B, M] -> [B, h, w, D']; absent adds 0."""
    parts = [
      jnp.where(present[:, i, None, None, None], maps[m][-1], 0)
      for i, m in enumerate(self.modalities)
    ]
    mix = ConvNormRelu(
      width=self.width or parts[0].shape[-1],
      kernel_size=self.kernel_size,
      dropout=self.dropout,
      theta=self.theta,
      dtype=self.dtype,
      name='mix',
    )
    return mix(jnp.concatenate(parts, -1), train)  # [B, h, w, M D] -> [B, h, w, D']
