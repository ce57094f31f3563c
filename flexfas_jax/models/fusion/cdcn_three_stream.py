"""CDCN for several modalities: a neck for each stream, then concatenation.

Yu et al., "Multi-Modal Face Anti-Spoofing Based on Central Difference Networks", CVPRW 2020
(CDCN, FAS_challenge_CVPRW2020/Track1 Multi-modal/model1_2_pytorch/models/CDCNs.py).
"""

import flax.linen as nn
import jax.numpy as jnp

from flexfas_jax.errors import ConfigError
from flexfas_jax.models.layers import ConvNormRelu, MultiLevel


class CdcnThreeStream(nn.Module):
  """Passes each modality's first three maps through its own neck, and mixes the necks' maps.

  Attributes:
    modalities: in order. The original's is rgb, ir, depth.
    width: channels out of the necks and of the fusion; None: those of the third map.
    map_size: side of the grid; None: that of the third map (the original: 32).
    theta: of the central differences.
    dropout: of whole channels before the last convolution, in training.
    faithful: reproduce the original's mistake: depth's second map is RGB's (its line 388), so that
      depth's own never reaches the neck, and RGB is required.
    dtype: of the computation.
  """

  modalities: tuple[str, ...]
  width: int | None = None
  map_size: int | None = None
  theta: float = 0.7
  dropout: float = 0.0
  faithful: bool = False
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    super().__post_init__()
    if self.faithful and not {'rgb', 'depth'} <= set(self.modalities):
      raise ConfigError(
        "cdcn_three_stream: faithful=True gives depth one of rgb's maps; the modalities "
        f'{tuple(self.modalities)} lack one of the two'
      )

  @property
  def requires(self) -> tuple[str, ...]:
    """Modalities that it cannot work without."""
    return ('rgb',) if self.faithful else ()

  def stages(self, n: int) -> tuple[int, ...]:
    """Indices of the stage maps that it reads: the first three, or all of fewer."""
    return tuple(range(min(3, n)))

  @nn.compact
  def __call__(self, maps, present, train: bool = False):
    """{modality: maps, each [B, h, w, D]} and present [B, M] -> [B, s, s, D']; absent adds 0."""
    maps = dict(maps)
    if self.faithful and len(maps['depth']) > 1:
      maps['depth'] = (maps['depth'][0], maps['rgb'][1], *maps['depth'][2:])
    width = self.width or maps[self.modalities[0]][-1].shape[-1]
    parts = []
    for i, m in enumerate(self.modalities):
      neck = MultiLevel(width, (), self.map_size, self.theta, self.dtype, name=f'neck_{m}')
      x = neck(maps[m], train, present[:, i])
      parts.append(jnp.where(present[:, i, None, None, None], x, 0))
    mix = ConvNormRelu(width, dropout=self.dropout, theta=self.theta, dtype=self.dtype, name='mix')
    return mix(jnp.concatenate(parts, -1), train)  # [B, s, s, M D] -> [B, s, s, D']
