"""A convolution with a faster gradient on a CPU.

Accelerators have libraries for convolutions. On a CPU, XLA computes the gradient of a kernel as a
convolution by a kernel as large as the image, which takes up to twenty times as long as equivalent
matrix products. Other platforms, and every pass without a gradient such as an export, use the plain
convolution.

So does training on several devices. There, a loop over parts of a sharded batch would gather all
images on every device, or reduce in every iteration. XLA also runs the loops of several layers at
once, in a different order on each device, so that their reductions could deadlock.
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
  """The convolution by a 1 x 1 kernel without padding."""
  return jnp.einsum('bhwc,cd->bhwd', x[:, ::stride, ::stride], kernel[0, 0])


def _forward(x, kernel, stride: int, padding: int):
  plain = functools.partial(_plain, stride=stride, padding=padding)
  if kernel.shape[0] > 1 or padding or not _single_device():
    return plain(x, kernel), (x, kernel)
  product = functools.partial(_product, stride=stride)
  return jax.lax.platform_dependent(x, kernel, cpu=product, default=plain), (x, kernel)


def _backward(stride: int, padding: int, residuals, gradient):
  plain = functools.partial(_plain, stride=stride, padding=padding)
  product = functools.partial(_product, stride=stride)

  def default(x, kernel, gradient):
    return jax.vjp(plain, x, kernel)[1](gradient)

  def cpu(x, kernel, gradient):
    if kernel.shape[0] == 1 and not padding:
      return jax.vjp(product, x, kernel)[1](gradient)
    (x_gradient,) = jax.vjp(lambda x: plain(x, kernel), x)[1](gradient)
    return x_gradient, _kernel_gradient(kernel.shape, stride, padding, x, gradient)

  if not _single_device():
    return default(*residuals, gradient)
  return jax.lax.platform_dependent(*residuals, gradient, cpu=cpu, default=default)


def _single_device() -> bool:
  """Whether all processes together have one device."""
  return jax.device_count() == 1


def _kernel_gradient(shape: tuple[int, ...], stride: int, padding: int, x, gradient):
  """The gradient of a kernel [k, k, C, D] as a sum of products of patches and output gradients.

  All patches at once take k k times the memory of the images; they exceed every cache and are
  slower than XLA's convolution. A part holds a megabyte, or as much as the kernel's gradient, since
  each part adds to that.
  """
  k, _, C, D = shape
  B, h, w, _ = gradient.shape
  x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  images, rows = _part_size(B, h, w * k * k * C, max(2**18, k * k * C * D))
  parts_per_image = h // rows

  def part(i):
    image, row = i // parts_per_image * images, i % parts_per_image * rows
    window = jax.lax.dynamic_slice(
      x, (image, row * stride, 0, 0), (images, (rows - 1) * stride + k, *x.shape[2:])
    )
    patches = [
      window[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (w - 1) * stride + 1 : stride]
      for i in range(k)
      for j in range(k)
    ]
    patches = jnp.concatenate(patches, -1)  # [images, rows, w, k k C]
    gradients = jax.lax.dynamic_slice(gradient, (image, row, 0, 0), (images, rows, w, D))
    return jnp.einsum('bhwp,bhwd->pd', patches, gradients)

  n = B // images * parts_per_image
  if n == 1:
    return part(0).reshape(shape)
  zeros = jnp.zeros((k * k * C, D), gradient.dtype)
  total, _ = jax.lax.scan(lambda sum, i: (sum + part(i), None), zeros, jnp.arange(n))
  return total.reshape(shape)


def _part_size(B: int, h: int, row_size: int, max_size: int) -> tuple[int, int]:
  """(images, rows of each) of the largest equal parts of [B, h] rows with `row_size` numbers.

  A part has at most `max_size` numbers, or one row: whole images, or some rows of one image.
  """

  def largest_divisor(n, limit):
    return max(d for d in range(1, n + 1) if n % d == 0 and d <= max(1, limit))

  rows = largest_divisor(h, max_size // row_size)
  images = largest_divisor(B, max_size // (h * row_size)) if rows == h else 1
  return images, rows


convolve.defvjp(_forward, _backward)
