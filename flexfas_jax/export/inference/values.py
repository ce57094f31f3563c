"""What a variable of a jaxpr stands for while the program is made smaller.

An array may be held with its axes in another order, and with size 1 along axes that it repeats: a
transpose or a broadcast becomes an operation only where another one requires it.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from flexfas_jax.export.inference import operators


class Value:
  """An array of a logical `shape`, held as `array`.

  Attributes:
    shape: logical; its dimensions are ints or symbolic.
    order: axis k of `array` is the logical axis order[k].
    array: its axis k has the size of shape[order[k]], or 1 where the values repeat.
    static: whether it depends on the weights alone; then `array` is concrete.
  """

  def __init__(self, array, shape: Sequence, order: Sequence[int] | None = None, static=False):
    self.shape = tuple(shape)
    self.order = tuple(range(len(self.shape)) if order is None else order)
    self.static = static
    self._arrays = {self.order: array}

  @property
  def array(self):
    """In the order of `order`."""
    return self._arrays[self.order]

  @property
  def dtype(self):
    """Of the array."""
    return self.array.dtype

  def orders(self) -> list[tuple[int, ...]]:
    """The orders in which the array is at hand, that of `order` first."""
    return sorted(self._arrays, key=lambda order: order != self.order)

  @property
  def ndim(self) -> int:
    """Of the logical shape."""
    return len(self.shape)

  def sizes(self) -> list:
    """The size held along each logical axis: that of `shape`, or 1."""
    sizes: list = [None] * self.ndim
    for axis, size in zip(self.order, self.array.shape, strict=True):
      sizes[axis] = size
    return sizes

  def ordered(self, order: Sequence[int]):
    """The array with its axes in this order."""
    order = tuple(order)
    if order not in self._arrays:
      source = self._arrays[self.order]
      permutation = [self.order.index(axis) for axis in order]
      moved = [axis for axis in permutation if source.shape[axis] != 1]
      if moved == sorted(moved):  # only axes of size 1 move
        array = reshape(source, [source.shape[axis] for axis in permutation], self.static)
      elif self.static:
        array = np.transpose(source, permutation)
      else:
        array = jax.lax.transpose(source, permutation)
      self._arrays[order] = array
    return self._arrays[order]

  def full(self, order: Sequence[int] | None = None):
    """The array with its axes in this order (logical by default), nothing left out."""
    order = tuple(range(self.ndim)) if order is None else tuple(order)
    array, shape = self.ordered(order), tuple(self.shape[axis] for axis in order)
    if array.shape == shape:
      return array
    if self.static and all(isinstance(n, int) for n in shape):
      return np.broadcast_to(array, shape)
    return jnp.broadcast_to(array, shape)

  def transposed(self, permutation: Sequence[int]) -> 'Value':
    """As jax.lax.transpose; moves nothing."""
    shape = [self.shape[axis] for axis in permutation]
    order = [tuple(permutation).index(axis) for axis in self.order]
    return Value(self.array, shape, order, self.static)

  def broadcast(self, shape: Sequence, axes: Sequence[int]) -> 'Value':
    """As jax.lax.broadcast_in_dim; repeats nothing."""
    sizes: list = [1] * len(shape)
    for axis, size in zip(axes, self.sizes(), strict=True):
      sizes[axis] = size
    rest = [axis for axis in range(len(shape)) if axis not in axes]
    order = sorted([axes[axis] for axis in self.order] + rest) if self._in_order() else None
    if order is None:
      order = [axes[axis] for axis in self.order] + rest
    array = reshape(self.array, [sizes[axis] for axis in order], self.static)
    return Value(array, shape, order, self.static)

  def _in_order(self) -> bool:
    return self.order == tuple(range(self.ndim))

  def reshaped(self, shape: Sequence) -> 'Value':
    """As jax.lax.reshape; keeps the order of the axes where it can."""
    shape = tuple(shape)
    groups = _groups(self.shape, shape)
    if groups is not None:
      kept = self._regrouped(groups, shape)
      if kept is not None:
        return kept
    array = self.full()
    return Value(reshape(array, shape, self.static), shape, None, is_static(array))

  def _regrouped(self, groups, shape) -> 'Value | None':
    sizes, source = self.sizes(), self.array
    positions = {axis: k for k, axis in enumerate(self.order)}
    parts, loose = [], []  # (place, new axes, sizes)
    place = -1.0
    for old, new in groups:
      real = [axis for axis in old if self.shape[axis] != 1]
      where = [positions[axis] for axis in real]
      if not real:
        loose.append((place, new, [1] * len(new)))
        continue
      if where != list(range(where[0], where[0] + len(where))) and len(where) > 1:
        between = range(min(where), max(where) + 1)
        others = [k for k in between if k not in where and source.shape[k] != 1]
        if where != sorted(where) or others:
          return None
      repeated = [sizes[axis] == 1 for axis in real]
      if all(repeated):
        held = [1] * len(new)
      elif any(repeated):
        return None
      else:
        held = [shape[axis] for axis in new]
      place = where[0]
      parts.append((place, new, held))
    order, dims = [], []
    for _, new, held in sorted([*parts, *loose], key=lambda part: part[0]):
      order += new
      dims += held
    return Value(reshape(source, dims, self.static), shape, order, self.static)


def is_static(array) -> bool:
  """Whether an array is concrete."""
  return not isinstance(array, jax.core.Tracer)


def reshape(array, shape: Sequence, static: bool):
  """A reshape that is left out where it changes nothing."""
  shape = tuple(shape)
  if tuple(array.shape) == shape:
    return array
  if static:
    return np.reshape(array, shape)
  if sum(not isinstance(n, int) for n in shape) == 1:
    return operators.bind('reshape', array, sizes=shape)
  return jax.lax.reshape(array, shape)


def _groups(old: Sequence, new: Sequence) -> list[tuple[list[int], list[int]]] | None:
  """Pairs of (old axes, new axes) of equal product, in order; None if a symbol is split."""
  groups, i, j = [], 0, 0
  while i < len(old) or j < len(new):
    if i < len(old) and j < len(new) and old[i] == new[j]:
      groups.append(([i], [j]))
      i, j = i + 1, j + 1
      continue
    if j < len(new) and _is(new[j], 1):
      groups.append(([], [j]))
      j += 1
      continue
    if i < len(old) and _is(old[i], 1):
      groups.append(([i], []))
      i += 1
      continue
    first, second = [i], [j]
    if i >= len(old) or j >= len(new):
      return None
    i, j = i + 1, j + 1
    while True:
      dims = [old[k] for k in first] + [new[k] for k in second]
      if not all(isinstance(n, int) for n in dims):
        return None
      a, b = math.prod(old[k] for k in first), math.prod(new[k] for k in second)
      if a == b:
        break
      if a < b:
        if i >= len(old):
          return None
        first.append(i)
        i += 1
      else:
        if j >= len(new):
          return None
        second.append(j)
        j += 1
    groups.append((first, second))
  return groups


def _is(n, value: int) -> bool:
  return isinstance(n, int) and n == value
