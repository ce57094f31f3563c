"""Fusion by cross-attention over channels (FlexModal, models/ViT_Base_CA.py:79-87).

A modality's map, flattened to F [C, h w], attends to another's: softmax(F_m F_n^T) F_n. The scores
are C x C: each channel of m selects channels of n with similar activations over the grid.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from flexfas_jax.errors import ConfigError
from flexfas_jax.models.layers import ConvNormRelu


class CrossAttention(nn.Module):
  """ReLU(BN(Conv(sum of own and attended maps))).

  Attributes:
    modalities: in order.
    form: 'reference': depth and infrared are queries, RGB is key and value, F = F_rgb + attended
      depth + attended ir; it requires RGB. 'symmetric': every modality keeps its own map and
      attends to every other; the mean over the present terms, so that it serves any subset.
    scaled: divide the scores by sqrt(h w). The reference does not: its scores reach thousands, and
      its softmax selects one channel.
    kernel_size, width, bias, theta, dropout: of the convolution after the sum; width None keeps the
      width. Dropout removes whole channels; the reference has a bias before its batch norm.
    dtype: of the computation; scores and softmax are float32.
  """

  modalities: tuple[str, ...]
  form: str = 'reference'
  scaled: bool = False
  width: int | None = None
  kernel_size: int = 3
  bias: bool = False
  theta: float = 0.0
  dropout: float = 0.0
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    super().__post_init__()
    if self.form not in ('reference', 'symmetric'):
      raise ConfigError(
        f"cross_attention has no form {self.form!r}; choose 'reference' or 'symmetric'"
      )
    if self.form == 'reference' and 'rgb' not in self.modalities:
      raise ConfigError(
        'cross_attention takes its keys and values from rgb, which is not among the modalities '
        f"{self.modalities}; add it, or use form='symmetric' or another fusion"
      )

  @property
  def requires(self) -> tuple[str, ...]:
    """Modalities that it cannot work without."""
    return ('rgb',) if self.form == 'reference' else ()

  def stages(self, n: int) -> tuple[int, ...]:
    """Indices of the stage maps that it reads, of a backbone with n."""
    return (n - 1,)

  @nn.compact
  def __call__(self, maps, present, train: bool = False):
    """{modality: (map [B, h, w, D],)} and present [B, M] -> [B, h, w, D']; absent adds 0."""
    features = {m: maps[m][-1] for m in self.modalities}
    is_present = {m: present[:, i, None, None, None] for i, m in enumerate(self.modalities)}
    if self.form == 'reference':
      terms = [(features['rgb'], is_present['rgb'])]
      pairs = [(m, 'rgb') for m in self.modalities if m != 'rgb']
    else:
      terms = [(features[m], is_present[m]) for m in self.modalities]
      pairs = [(m, n) for m in self.modalities for n in self.modalities if m != n]
    for m, n in pairs:  # m attends to n
      terms.append((self._attend(features[m], features[n]), is_present[m] & is_present[n]))
    x = sum(jnp.where(keep, term, 0) for term, keep in terms)  # [B, h, w, D]
    if self.form == 'symmetric':
      x = x / jnp.maximum(sum(keep.astype(x.dtype) for _, keep in terms), 1)
    mix = ConvNormRelu(
      width=self.width or x.shape[-1],
      kernel_size=self.kernel_size,
      dropout=self.dropout,
      bias=self.bias,
      theta=self.theta,
      dtype=self.dtype,
      name='mix',
    )
    return mix(x, train)

  def _attend(self, query, memory):
    """Channels of `memory`, selected by channels of `query`; both and the result [B, h, w, D]."""
    B, h, w, D = query.shape
    q = query.reshape(B, h * w, D).astype(jnp.float32)
    kv = memory.reshape(B, h * w, D).astype(jnp.float32)
    scores = jnp.einsum('bpc,bpd->bcd', q, kv)  # [B, C of query, C of memory]
    if self.scaled:
      scores = scores / (h * w) ** 0.5
    attended = jnp.einsum('bcd,bpd->bpc', jax.nn.softmax(scores, -1), kv)
    return attended.reshape(B, h, w, D).astype(self.dtype)
