"""The convolution's gradients on a CPU against XLA's own, and who gets which program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flexfas_jax.models import convolution


@pytest.fixture(autouse=True)
def alone(monkeypatch):
  """As with one device; these tests have eight."""
  monkeypatch.setattr(convolution, '_single_device', lambda: True)


def arrays(B, H, k, C, D):
  rng = np.random.default_rng(0)
  shapes = (B, H, H + 2, C), (k, k, C, D)
  return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


def gradients(function, stride, padding):
  return jax.grad(lambda x, kernel: jnp.sin(function(x, kernel, stride, padding)).sum(), (0, 1))


@pytest.mark.parametrize(
  ('k', 'stride', 'padding'),
  [(1, 1, 0), (1, 2, 0), (1, 1, 1), (3, 1, 1), (3, 2, 1), (3, 1, 0), (7, 2, 3)],
)
@pytest.mark.parametrize('most', [0, 2000, 2**18], ids=['a row', 'some rows', 'all'])
def test_gradients_are_those_of_the_convolution(k, stride, padding, most, monkeypatch):
  """However many parts the patches are taken in."""
  if k == 1 and not padding and most:
    pytest.skip('a 1 x 1 kernel has no patches')
  parts = convolution._part_size
  monkeypatch.setattr(convolution, '_part_size', lambda B, h, row, _: parts(B, h, row, most))
  args = arrays(4, 9, k, 3, 5)
  found = jax.jit(gradients(convolution.convolve, stride, padding))(*args)
  expected = jax.jit(gradients(convolution._plain, stride, padding))(*args)
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(np.abs(b).max()))


@pytest.mark.parametrize(
  ('shape', 'most', 'expected'),
  [
    ((8, 6, 10), 10**6, (8, 6)),
    ((8, 6, 10), 130, (2, 6)),
    ((8, 6, 10), 59, (1, 3)),
    ((8, 7, 10), 59, (1, 1)),  # a prime number of rows
    ((8, 6, 10), 1, (1, 1)),
  ],
)
def test_parts_are_equal_and_small_enough(shape, most, expected):
  assert convolution._part_size(*shape, most) == expected


@pytest.mark.parametrize('k', [1, 3])
def test_other_platforms_compile_the_plain_convolution(k):
  """With the gradients that jax derives; and on a CPU so does what nothing is learned from."""

  def operations(function, platform):
    lowered = jax.jit(function).trace(*arrays(4, 9, k, 3, 5)).lower(lowering_platforms=(platform,))
    text = lowered.as_text()
    return {name: text.count(f'stablehlo.{name}') for name in ('convolution', 'dot_general')}

  ours = gradients(convolution.convolve, 1, k // 2)
  plain = {'convolution': 3, 'dot_general': 0}  # forward, and two gradients
  assert operations(ours, 'tpu') == operations(ours, 'cuda') == plain
  by_products = {'convolution': 2, 'dot_general': 1} if k > 1 else {'dot_general': 3}
  assert operations(ours, 'cpu') == {'convolution': 0, **by_products}

  def forward(x, kernel):
    return convolution.convolve(x, kernel, 1, k // 2)

  for platform in ('cpu', 'cuda', 'tpu'):
    assert operations(forward, platform) == {'convolution': 1, 'dot_general': 0}


def test_several_devices_compile_the_plain_convolution(monkeypatch):
  """Loops with sums over devices in them may wait for each other for ever."""
  monkeypatch.undo()
  assert not convolution._single_device()
  text = jax.jit(gradients(convolution.convolve, 1, 1)).lower(*arrays(4, 9, 3, 3, 5)).as_text()
  assert text.count('stablehlo.convolution') == 3
  assert 'stablehlo.while' not in text and 'stablehlo.dot_general' not in text
