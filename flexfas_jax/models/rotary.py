"""Rotary position embedding of a grid of patches, as in DINOv3 (timm's `RotaryEmbeddingDinoV3`)."""

import jax.numpy as jnp
import numpy as np


def angles(grid: tuple[int, int], d: int, base: float = 100.0) -> np.ndarray:
  """Angles [h w, d] float32 of each patch and channel of a head, in radians.

  Coordinates of the cells' centres are scaled to [-1, 1]; the periods are base^(2 i / (d / 2)), i <
  d / 4. The first quarter of the channels turns with y, the second with x; then both again.

  Args:
    grid: (h, w).
    d: width of a head, a multiple of 4.
    base: of the periods.
  """
  periods = base ** (2 * np.arange(d // 4) / (d // 2))
  y, x = (2 * (np.arange(n) + 0.5) / n - 1 for n in grid)
  cells = np.stack(np.meshgrid(y, x, indexing='ij'), -1).reshape(-1, 2)  # [h w, 2]
  turned = 2 * np.pi * cells[:, :, None] / periods[None, None]  # [h w, 2, d / 4]
  return np.tile(turned.reshape(len(cells), d // 2), 2).astype(np.float32)


def rotate(x, angle, prefix: int):
  """Rotates the tokens after the prefix: [B, K, N, d] with angles [N - prefix, d]."""
  fixed, x = x[:, :, :prefix], x[:, :, prefix:]
  half = x.shape[-1] // 2
  turned = jnp.concatenate([-x[..., half:], x[..., :half]], -1)
  sine, cosine = (jnp.asarray(f(angle), x.dtype)[None, None] for f in (np.sin, np.cos))
  return jnp.concatenate([fixed, x * cosine + turned * sine], 2)
