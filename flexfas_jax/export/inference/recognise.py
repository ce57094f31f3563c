"""Finds layer norms, softmaxes, GELUs and maximum poolings in a flat jaxpr.

A pattern is the jaxpr of the function itself, traced with the shapes at hand; so it follows JAX's
and Flax's way of composing it. It is compared with the equations before the one that may be its
last.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from flexfas_jax.export.inference import flat
from flexfas_jax.models.layers import PReLU, layer_norm, max_pool

_ANY = 0.109375  # in a pattern: any number; exact in every dtype


class Found(NamedTuple):
  """An operator in place of the equations that lead to one of a jaxpr's variables."""

  name: str
  inputs: list
  params: dict[str, Any]


class _Pattern(NamedTuple):
  """`function` composes the operator from arrays; `trace(aval)` gives the shapes to try."""

  name: str
  last: str  # the name of its last primitive
  function: Callable
  shapes: Callable
  params: Callable  # of (the output's shape, the number in place of `_ANY`)


def find(closed: ClosedJaxpr) -> dict[Any, Found]:
  """{variable: the operator that computes it} of a flat jaxpr."""
  jaxpr = closed.jaxpr
  producers = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}
  cache: dict[Any, ClosedJaxpr] = {}
  found = {}
  for eqn in jaxpr.eqns:
    out = eqn.outvars[0]
    if not out.aval.ndim or not jax.numpy.issubdtype(out.aval.dtype, np.floating):
      continue
    for pattern in _PATTERNS:
      if eqn.primitive.name != pattern.last:
        continue
      for shapes in pattern.shapes(out.aval):
        key = (pattern, tuple(shapes))
        if key not in cache:
          arrays = [jax.ShapeDtypeStruct(shape, out.aval.dtype) for shape in shapes]
          cache[key] = flat.trace(pattern.function, *arrays)
        match = _match(cache[key].jaxpr, producers, out)
        if match is not None:
          inputs, number = match
          found[out] = Found(pattern.name, inputs, pattern.params(out.aval.shape, number))
          break
  return found


def _match(pattern, producers: Mapping, out) -> tuple[list, Any] | None:
  """(the variables at the pattern's inputs, the number at `_ANY`), or None."""
  made = {v: eqn for eqn in pattern.eqns for v in eqn.outvars}
  bound: dict[Any, Any] = {}
  numbers: list[float] = []

  def same(p, v) -> bool:
    if isinstance(p, Literal):
      if not isinstance(v, Literal):
        return False
      if np.ndim(p.val) == 0 and float(p.val) == _ANY:
        numbers.append(float(v.val))
        return True
      return np.array_equal(p.val, v.val, equal_nan=True)
    if isinstance(v, Literal):
      return False
    if p in bound:
      return bound[p] is v
    if p.aval.shape != v.aval.shape or p.aval.dtype != v.aval.dtype:
      return False
    if p in made:
      a, b = made[p], producers.get(v)
      if b is None or a.primitive is not b.primitive or a.params != b.params:
        return False
      if not all(map(same, a.invars, b.invars)):
        return False
    elif p not in pattern.invars:
      return False
    bound[p] = v
    return True

  (last,) = pattern.outvars
  if not same(last, out):
    return None
  return [bound[v] for v in pattern.invars], numbers[0] if numbers else None


def _same_shape(aval) -> Iterator[list[tuple]]:
  yield [aval.shape]


def _normed(aval) -> Iterator[list[tuple]]:
  yield [aval.shape, aval.shape[-1:], aval.shape[-1:]]


def _sloped(aval) -> Iterator[list[tuple]]:
  if aval.ndim == 4:
    yield [aval.shape, aval.shape[-1:]]


def _prelu(x, slope):
  return PReLU().apply({'params': {'slope': slope}}, x)


def _pooled(window: int, stride: int, padding: int) -> _Pattern:
  def shapes(aval) -> Iterator[list[tuple]]:
    if aval.ndim != 4 or not all(isinstance(n, int) for n in aval.shape[1:3]):
      return
    B, h, w, D = aval.shape
    sizes = [[(n - 1) * stride + window - 2 * padding + more for n in (h, w)] for more in (0, 1)]
    for H in {size[0] for size in sizes}:
      for W in {size[1] for size in sizes}:
        if window - 2 * padding <= H and window - 2 * padding <= W and min(H, W) > 0:
          yield [(B, H, W, D)]

  fields = {'window': window, 'stride': stride, 'padding': padding}
  return _Pattern(
    'max_pool',
    'max',
    lambda x: max_pool(x, **fields),
    shapes,
    lambda shape, number: {**fields, 'axes': (1, 2)},
  )


_PATTERNS = (
  _Pattern(
    'softmax',
    'div',
    lambda x: jax.nn.softmax(x, -1),
    _same_shape,
    lambda shape, number: {'axis': len(shape) - 1},
  ),
  _Pattern(
    'gelu',
    'mul',
    lambda x: jax.nn.gelu(x, approximate=False),
    _same_shape,
    lambda shape, number: {},
  ),
  _Pattern(
    'layer_norm',
    'add',
    partial(layer_norm, epsilon=_ANY),
    _normed,
    lambda shape, number: {'epsilon': number},
  ),
  _Pattern('prelu', 'select_n', _prelu, _sloped, lambda shape, number: {}),
  _pooled(3, 2, 1),
  _pooled(2, 2, 0),
)
