"""MM-FAS's aggregation at several layers, on any backbone's stage maps.

Parkin & Grinchuk, CVPRW 2019 (ChaLearn_liveness_challenge, models/architectures/
resnet_caffe_DLAS.py). The streams run all stages but the last. After each stage their maps are
mixed, added to the aggregated map, and passed through another copy of the backbone's next stage:

    a_k = stage_{k+1}(a_{k-1} + ReLU(conv1x1([rgb_k, depth_k, ir_k])))
    F   = stage_n([rgb_{n-1}, depth_{n-1}, ir_{n-1}]) + a_{n-1}
"""

import flax.linen as nn
import jax.numpy as jnp

from flexfas_jax.errors import ConfigError
from flexfas_jax.models.layers import ChannelAttention, Conv

VARIANTS = ('A', 'B', 'C')


class MultiLayerAggregation(nn.Module):
  """The joint stages of MM-FAS.

  Attributes:
    modalities: in order.
    later: the backbone's second and later stages as unbound modules: (map, train) -> map; set by
      `flexmodal.build`.
    variant: 'A', as submitted to the challenge. 'B': channel attention after each joint stage; in
      the original also after each stage of the streams (caffe_resnet's `channel_attention`). 'C':
      1x1 convolutions to `bottleneck` channels before the last sum.
    bottleneck: channels out of variant 'C'.
    dtype: of the computation.
  """

  modalities: tuple[str, ...]
  later: tuple[nn.Module, ...]
  variant: str = 'A'
  bottleneck: int = 128
  dtype: jnp.dtype = jnp.float32

  requires = ()  # modalities that it cannot work without

  def __post_init__(self):
    super().__post_init__()
    if self.variant not in VARIANTS:
      raise ConfigError(
        f'multi_layer_aggregation has no variant {self.variant!r}; '
        f'choose one of: {", ".join(VARIANTS)}'
      )
    if not self.later:
      raise ConfigError(
        'multi_layer_aggregation needs a backbone of two stages or more; this one has one'
      )

  def stages(self, n: int) -> tuple[int, ...]:
    """Indices of the stage maps that it reads: all that a later stage can process."""
    return tuple(range(len(self.later)))

  @nn.compact
  def __call__(self, maps, present, train: bool = False):
    """{modality: maps, each [B, h, w, D]} and present [B, M] -> [B, h', w', D']; absent adds 0."""
    aggregated = None
    for k, stage in enumerate(self.later):
      joined = self._join(maps, k, present)  # [B, h, w, M D]
      D = joined.shape[-1] // len(self.modalities)
      x = nn.relu(Conv(D, 1, bias=True, dtype=self.dtype, name=f'mix_{k + 1}')(joined))
      if aggregated is not None:
        x = x + aggregated
      aggregated = self._attend(stage(x, train), f'attention_{k + 1}')
      self.sow('intermediates', f'aggregated_{k + 1}', aggregated)
    main = self.later[-1].clone(parent=self, name='main')(joined, train)
    main = self._attend(main, 'attention_main')
    self.sow('intermediates', 'main_map', main)
    if self.variant == 'C':
      width = self.bottleneck
      main = Conv(width, 1, bias=True, dtype=self.dtype, name='main_bottleneck')(main)
      aggregated = Conv(width, 1, bias=True, dtype=self.dtype, name='bottleneck')(aggregated)
    return main + aggregated

  def _join(self, maps, k, present):
    parts = [
      jnp.where(present[:, i, None, None, None], maps[m][k], 0)
      for i, m in enumerate(self.modalities)
    ]
    return jnp.concatenate(parts, -1)

  def _attend(self, x, name):
    return ChannelAttention(dtype=self.dtype, name=name)(x) if self.variant == 'B' else x
