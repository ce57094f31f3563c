"""A convolution that a CPU can be trained with: another program for its gradient, on a CPU alone.

XLA gives convolutions to an accelerator's library. On a CPU its gradient of a kernel, which is a
convolution by a kernel as large as the picture, takes up to twenty times as long as products that
give the same. What other platforms compile, and every forward pass that nothing is learned from,
such as an export, is the plain convolution.

So it is where there are several devices. Cut over them, a loop over parts of pictures would have
every device gather all pictures, or sum in every turn; and XLA runs the loops of several layers at
once, in an order of its own on each device: sums that wait for each other never end.
"""

import functools

import jax
import jax.numpy as jnp


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


def _product(x, kernel, stride: int):
  """Of a 1 x 1 kernel, nothing padded."""
  return jnp.einsum('bhwc,cd->bhwd', x[:, ::stride, ::stride], kernel[0, 0])


def _forward(x, kernel, stride: int, padding: int):
  plain = functools.partial(_plain, stride=stride, padding=padding)
  if kernel.shape[0] > 1 or padding or not _alone():
    return plain(x, kernel), (x, kernel)
  product = functools.partial(_product, stride=stride)
  return jax.lax.platform_dependent(x, kernel, cpu=product, default=plain), (x, kernel)


def _backward(stride: int, padding: int, kept, slope):
  plain = functools.partial(_plain, stride=stride, padding=padding)
  product = functools.partial(_product, stride=stride)

  def anywhere(x, kernel, slope):
    return jax.vjp(plain, x, kernel)[1](slope)

  def on_a_cpu(x, kernel, slope):
    if kernel.shape[0] == 1 and not padding:
      return jax.vjp(product, x, kernel)[1](slope)
    (of_x,) = jax.vjp(lambda x: plain(x, kernel), x)[1](slope)
    return of_x, _of_kernel(kernel.shape, stride, padding, x, slope)

  if not _alone():
    return anywhere(*kept, slope)
  return jax.lax.platform_dependent(*kept, slope, cpu=on_a_cpu, default=anywhere)


def _alone() -> bool:
  """Whether there is one device, of all processes."""
  return jax.device_count() == 1


def _of_kernel(shape: tuple[int, ...], stride: int, padding: int, x, slope):
  """The gradient of a kernel [k, k, C, D] by products of patches and slopes, part after part.

  All patches at once are k k times the picture, out of every cache and slower than the convolution
  they are to replace. A part is a megabyte, or as large as the gradient, which each part adds to.
  """
  k, _, C, D = shape
  B, h, w, _ = slope.shape
  x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  images, rows = _parts(B, h, w * k * k * C, max(2**18, k * k * C * D))
  down = h // rows  # parts of a picture

  def part(i):
    image, row = i // down * images, i % down * rows
    seen = jax.lax.dynamic_slice(
      x, (image, row * stride, 0, 0), (images, (rows - 1) * stride + k, *x.shape[2:])
    )
    patches = [
      seen[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (w - 1) * stride + 1 : stride]
      for i in range(k)
      for j in range(k)
    ]
    patches = jnp.concatenate(patches, -1)  # [images, rows, w, k k C]
    slopes = jax.lax.dynamic_slice(slope, (image, row, 0, 0), (images, rows, w, D))
    return jnp.einsum('bhwp,bhwd->pd', patches, slopes)

  n = B // images * down
  if n == 1:
    return part(0).reshape(shape)
  zeros = jnp.zeros((k * k * C, D), slope.dtype)
  total, _ = jax.lax.scan(lambda sum, i: (sum + part(i), None), zeros, jnp.arange(n))
  return total.reshape(shape)


def _parts(B: int, h: int, row: int, most: int) -> tuple[int, int]:
  """(images, rows of each) of equal parts of [B, h] rows of `row` numbers, `most` numbers or one
  row: whole images, or some rows of one."""

  def divisor(n, most):
    return max(d for d in range(1, n + 1) if n % d == 0 and d <= max(1, most))

  rows = divisor(h, most // row)
  return (divisor(B, most // (h * row)) if rows == h else 1), rows


convolve.defvjp(_forward, _backward)
