"""Operators that JAX composes from many and runtimes have as one, as primitives of a jaxpr.

Each computes what its function here computes, also within JAX. A converter may have its own form.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import mlir


def softmax(x, *, axis: int):
  """Softmax along an axis."""
  return jax.nn.softmax(x, axis)


def gelu(x):
  """x times the normal distribution's cumulative probability of x, exactly."""
  return jax.nn.gelu(x, approximate=False)


def relu(x):
  """max(x, 0)."""
  return jnp.maximum(x, jnp.zeros((), x.dtype))


def layer_norm(x, scale, bias, *, epsilon: float):
  """Normalises the last axis of x [..., D]; scale [D], bias [D]."""
  D = x.shape[-1]
  mean = x.sum(-1, keepdims=True) / D
  x = x - mean
  variance = jnp.square(x).sum(-1, keepdims=True) / D
  lead = (1,) * (x.ndim - 1)
  return x * jax.lax.rsqrt(variance + epsilon) * scale.reshape(*lead, D) + bias.reshape(*lead, D)


def max_pool(x, *, window: int, stride: int, padding: int, axes: tuple[int, int]):
  """Maximum over window x window pixels along two axes, as `layers.max_pool`."""
  sizes, strides, pads = [1] * x.ndim, [1] * x.ndim, [(0, 0)] * x.ndim
  for axis in axes:
    sizes[axis], strides[axis], pads[axis] = window, stride, (padding, padding)
  low = np.array(-np.inf, x.dtype)
  return jax.lax.reduce_window(x, low, jax.lax.max, sizes, strides, pads)


def matmul(x, y):
  """NumPy's product of matrices; the last two axes of both, in float32 on every chip."""
  return jnp.matmul(x, y, precision='float32')


def add_bias(x, bias):
  """x [..., F] plus bias [F]."""
  return x + bias.reshape(*(1,) * (x.ndim - 1), -1)


def prelu(x, slope):
  """max(x, 0) + slope min(x, 0); slope has sizes 1 where it repeats."""
  return jnp.where(x >= 0, x, slope * x)


def conv(x, kernel, *bias, strides, padding, dilation, groups: int):
  """A convolution of x [B, C, ...] by kernel [D, C / groups, ...], plus bias [D] if given."""
  y = jax.lax.conv_general_dilated(
    x,
    kernel,
    strides,
    padding,
    rhs_dilation=dilation,
    feature_group_count=groups,
    precision='float32',
  )
  for b in bias:
    y = y + b.reshape(1, -1, *(1,) * (y.ndim - 2))
  return y


def where(condition, x, y):
  """NumPy's `where`: axes of size 1 are repeated."""
  return jnp.where(condition, x, y)


def reshape(x, *, sizes):
  """A reshape whose result has at most one symbolic dimension."""
  return x.reshape(sizes)


def _primitive(function) -> Primitive:
  """The primitive `flexfas_NAME`, evaluated and lowered by its function."""
  primitive = Primitive(f'flexfas_{function.__name__}')
  primitive.def_impl(function)

  def abstract(*avals, **params):
    shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
    out = jax.eval_shape(functools.partial(function, **params), *shapes)
    return jax.core.ShapedArray(out.shape, out.dtype)

  primitive.def_abstract_eval(abstract)
  mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
  return primitive


FUNCTIONS = (
  softmax,
  gelu,
  relu,
  prelu,
  layer_norm,
  max_pool,
  matmul,
  add_bias,
  conv,
  where,
  reshape,
)
PRIMITIVES = {function.__name__: _primitive(function) for function in FUNCTIONS}


def bind(name: str, *arguments, **params):
  """An operator as one equation of the jaxpr that is being traced."""
  return PRIMITIVES[name].bind(*arguments, **params)
