"""Fusion by squeeze-and-excitation, then concatenation (FlexModal, after Hu et al., CVPR 2018).

F_m' = F_m sigmoid(FC(ReLU(FC(GAP F_m)))) weighs the channels of each modality by their mean
activations; then ReLU(BN(Conv([F_rgb', F_depth', F_ir']))).
"""

import flax.linen as nn
import jax.numpy as jnp

from flexfas_jax.models.layers import ConvNormRelu


class SqueezeExcite(nn.Module):
  """Weighs the channels of the last stage's maps, concatenates and mixes them.

  Attributes:
    modalities: in order; each has its own weights.
    reduction: the bottleneck has D / reduction channels.
    width: channels out; None: those of one modality.
    kernel_size, theta, dropout: of the convolution, see `Concat`.
    dtype: of the computation.
  """

  modalities: tuple[str, ...]
  reduction: int = 8
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
    parts = []
    for i, m in enumerate(self.modalities):
      x = maps[m][-1]
      D = x.shape[-1]
      squeeze = nn.Dense(max(1, D // self.reduction), dtype=self.dtype, name=f'squeeze_{m}')
      excite = nn.Dense(D, dtype=self.dtype, name=f'excite_{m}')
      weight = nn.sigmoid(excite(nn.relu(squeeze(x.mean((1, 2))))))  # [B, D]
      parts.append(jnp.where(present[:, i, None, None, None], x * weight[:, None, None], 0))
    mix = ConvNormRelu(
      width=self.width or parts[0].shape[-1],
      kernel_size=self.kernel_size,
      dropout=self.dropout,
      theta=self.theta,
      dtype=self.dtype,
      name='mix',
    )
    return mix(jnp.concatenate(parts, -1), train)  # [B, h, w, M D] -> [B, h, w, D']
