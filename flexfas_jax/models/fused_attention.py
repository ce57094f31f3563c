"""Attention by a GPU library's kernel, which stores no attention weights for the gradient.

cuDNN's kernel, by way of `jax.nn.dot_product_attention`, refuses odd numbers of tokens such as
ViT's 197. So tokens are padded to a multiple of 8, and the kernel receives the true lengths.
B batch, K heads, N queries, M keys, d width of a head.
"""

import jax
import jax.numpy as jnp

from flexfas_jax.errors import ConfigError

_MULTIPLE = 8  # tokens


def attend(q, k, v, mask=None, implementation: str | None = None):
  """softmax(q k^T / sqrt(d)) v for each head.

  Args:
    q: [B, K, N, d].
    k, v: [B, K, M, d].
    mask: [B, M] bool, true for the keys that are attended to, at least one of a row; None: all.
    implementation: of `jax.nn.dot_product_attention`; None: 'cudnn' on a GPU, 'xla' elsewhere.

  Returns:
    [B, K, N, d], the dtype of q.

  Raises:
    ConfigError: cuDNN with float32, which its kernel lacks.
  """
  if implementation is None:
    implementation = 'cudnn' if jax.default_backend() == 'gpu' else 'xla'
  if implementation == 'cudnn' and q.dtype == jnp.float32:
    raise ConfigError(
      "config.model.backbone.fused_attention: cuDNN's attention has no float32; add "
      '--config.model.dtype=bfloat16, or leave fused_attention False'
    )
  (B, _, N, _), M = q.shape, k.shape[2]
  q, k, v = (_padded(jnp.swapaxes(x, 1, 2), 1) for x in (q, k, v))  # [B, N or M, K, d]
  if mask is not None:
    shape = (B, 1, q.shape[1], k.shape[1])
    mask = jnp.broadcast_to(_padded(mask, 1)[:, None, None], shape)  # [B, 1, N, M]
  lengths = {}
  if (q.shape[1], k.shape[1]) != (N, M):
    lengths['query_seq_lengths'] = jnp.full(B, N, jnp.int32)
    lengths['key_value_seq_lengths'] = jnp.full(B, M, jnp.int32)
  y = jax.nn.dot_product_attention(q, k, v, mask=mask, implementation=implementation, **lengths)
  return jnp.swapaxes(y[:, :N], 1, 2)


def _padded(x, axis: int):
  """x with zeros behind its last entry of an axis, to a multiple of 8."""
  widths = [(0, 0)] * x.ndim
  widths[axis] = (0, -x.shape[axis] % _MULTIPLE)
  return jnp.pad(x, widths)
