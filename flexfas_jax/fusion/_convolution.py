"""A convolution that a CPU can be trained with: another program for its gradient, on a CPU alone.

XLA gives convolutions to an accelerator's library. On a CPU its gradient of a kernel, which is a
convolution by a kernel as large as the picture, takes up to twenty times as long as products that
give the same. What other platforms compile, and every forward pass that nothing is learned from,
such as an export, is the plain convolution.
"""

import functools

import jax
import jax.numpy as jnp

_PART = 2**18  # numbers of a part: a megabyte


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x, kernel, stride: int = 1, padding: int = 0):
  """x [B, H, W, C], kernel [k, k, C, D] -> [B, h, w, D], h = (H + 2 padding - k) // stride + 1."""
  return _plain(x, kernel, stride, padding)


def _plain(x, kernel, stride: int, padding: int):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(padding, padding)] * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def _product(x, kernel, stride: int, padding: int):
  """Of a 1 x 1 kernel."""
  assert not padding
  return jnp.einsum('bhwc,cd->bhwd', x[:, ::stride, ::stride], kernel[0, 0])


def _forward(x, kernel, stride: int, padding: int):
  plain = functools.partial(_plain, stride=stride, padding=padding)
  if kernel.shape[0] > 1:
    return plain(x, kernel), (x, kernel)
  product = functools.partial(_product, stride=stride, padding=padding)
  return jax.lax.platform_dependent(x, kernel, cpu=product, default=plain), (x, kernel)


def _backward(stride: int, padding: int, kept, slope):
  plain = functools.partial(_plain, stride=stride, padding=padding)
  product = functools.partial(_product, stride=stride, padding=padding)

  def anywhere(x, kernel, slope):
    return jax.vjp(plain, x, kernel)[1](slope)

  def on_a_cpu(x, kernel, slope):
    if kernel.shape[0] == 1:
      return jax.vjp(product, x, kernel)[1](slope)
    (of_x,) = jax.vjp(lambda x: plain(x, kernel), x)[1](slope)
    return of_x, _of_kernel(kernel.shape, stride, padding, x, slope)

  return jax.lax.platform_dependent(*kept, slope, cpu=on_a_cpu, default=anywhere)


def _of_kernel(shape: tuple[int, ...], stride: int, padding: int, x, slope):
  """The gradient of a kernel [k, k, C, D] by products of patches and slopes, some rows at a time.

  All patches at once are k k times the pictures, out of every cache and slower than the convolution
  they are to replace. A part is a megabyte, or as large as the gradient, which each part adds to.
  Parts are rows of all pictures: a batch may lie on several devices, and is not cut.
  """
  k, _, C, D = shape
  B, h, w, _ = slope.shape
  x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  rows = _rows(h, B * w * k * k * C, max(_PART, k * k * C * D))

  def part(i):
    seen = jax.lax.dynamic_slice_in_dim(x, i * rows * stride, (rows - 1) * stride + k, 1)
    patches = [
      seen[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (w - 1) * stride + 1 : stride]
      for i in range(k)
      for j in range(k)
    ]
    patches = jnp.concatenate(patches, -1)  # [B, rows, w, k k C]
    slopes = jax.lax.dynamic_slice_in_dim(slope, i * rows, rows, 1)  # [B, rows, w, D]
    return jnp.einsum('bhwp,bhwd->pd', patches, slopes)

  if rows == h:
    return part(0).reshape(shape)
  zeros = jnp.zeros((k * k * C, D), slope.dtype)
  total, _ = jax.lax.scan(lambda sum, i: (sum + part(i), None), zeros, jnp.arange(h // rows))
  return total.reshape(shape)


def _rows(h: int, numbers: int, most: int) -> int:
  """Rows of a part: of h, in equal parts; a row has so many numbers, a part at most `most`."""
  return max(d for d in range(1, h + 1) if h % d == 0 and d <= max(1, most // numbers))


convolve.defvjp(_forward, _backward)
