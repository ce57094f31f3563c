"""Rewrites the program of an inference: the same function in fewer and larger operations.

- What depends on the weights alone is computed now.
- A batch norm, a bias or a scale after a product becomes part of the product's weights.
- A product with weights is one matrix product, whatever the order of its axes.
- Layer norms, softmaxes, GELUs and poolings are single operators (`operators.py`).
- Transposes and broadcasts are done where an operation requires them (`values.py`).

All of it acts on the jaxpr, so that it serves every backbone, fusion and adapter, and the model has
one definition. A norm before a convolution that pads (IR-ResNet) stays a product and a sum.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from flexfas_jax.export.inference import flat, operators, recognise
from flexfas_jax.export.inference.values import Value, is_static

_ELEMENTWISE = frozenset(
  """
  abs add and atan2 cbrt ceil clamp convert_element_type cos div eq erf erf_inv erfc exp exp2 expm1
  floor ge gt integer_pow is_finite le log log1p logistic lt max min mul ne neg not or pow rem round
  rsqrt select_n sign sin sqrt square sub tan tanh xor
  """.split()  # noqa: SIM905 - a list of them takes a page
)
_REDUCTIONS = ('reduce_and', 'reduce_max', 'reduce_min', 'reduce_or', 'reduce_prod', 'reduce_sum')


def simplify(function: Callable, shapes: Sequence, channels_first: bool = False) -> ClosedJaxpr:
  """The flat jaxpr of a function of arrays, simplified.

  Args:
    function: of arrays with `shapes`; its other arrays, the weights, become constants.
    shapes: `jax.ShapeDtypeStruct`s; one dimension may be symbolic.
    channels_first: convolutions read and write [B, C, H, W], as ONNX has them.
  """
  closed = flat.trace(function, *shapes)
  interpreter = _Interpreter(closed, channels_first)
  return jax.make_jaxpr(interpreter.run)(*shapes)


class _Pending(Value):
  """An operation that has not been done yet, times `scale`, plus `shift`.

  `make(scale, shift)` does it; both have the sizes of the logical axes `features`, flattened, or
  are None.
  """

  def __init__(self, make, shape, order, features, dtype, scale=None, shift=None):
    self.shape, self.order, self.static = tuple(shape), tuple(order), False
    self._make, self.features, self._dtype = make, tuple(features), dtype
    self.scale, self.shift = scale, shift
    self._arrays: dict = {}

  @property
  def array(self):
    """In the order of `order`."""
    if not self._arrays:
      scale, shift = (
        None if x is None else x.astype(self._dtype) for x in (self.scale, self.shift)
      )
      self._arrays[self.order] = self._make(scale, shift)
    return self._arrays[self.order]

  def ordered(self, order):
    """See `Value`."""
    self.array  # noqa: B018 - done now
    return super().ordered(order)

  @property
  def dtype(self):
    """Of the array."""
    return self._dtype

  def orders(self):
    """See `Value`."""
    return super().orders() or [self.order]

  def sizes(self) -> list:
    """See `Value`; nothing is left out."""
    return list(self.shape) if not self._arrays else super().sizes()

  def transposed(self, permutation):
    """See `Value`; the operation stays to be done."""
    if self._arrays:
      return super().transposed(permutation)
    places = tuple(permutation)
    return _Pending(
      self._make,
      [self.shape[axis] for axis in places],
      [places.index(axis) for axis in self.order],
      [places.index(axis) for axis in self.features],
      self._dtype,
      self.scale,
      self.shift,
    )

  def affine(self, scale, shift) -> '_Pending':
    """This, times scale, plus shift, in float64."""
    new_scale, new_shift = self.scale, self.shift
    if scale is not None:
      new_scale = scale if new_scale is None else new_scale * scale
      new_shift = None if new_shift is None else new_shift * scale
    if shift is not None:
      new_shift = shift if new_shift is None else new_shift + shift
    return _Pending(
      self._make, self.shape, self.order, self.features, self._dtype, new_scale, new_shift
    )

  def flattened(self, static: Value) -> np.ndarray | None:
    """The values of a static operand along `features`; None if it varies along other axes."""
    array = static.ordered(range(static.ndim))
    if array.size == 1:
      array = np.reshape(array, ())
    elif static.ndim != self.ndim or any(array.shape[axis] != 1 for axis in self._others()):
      return None
    else:
      # The features' order among themselves is that of the product, not of the axes.
      array = np.transpose(array, [*self.features, *self._others()])
      array = array.reshape(array.shape[: len(self.features)])
    sizes = [self.shape[axis] for axis in self.features]
    return np.broadcast_to(array, sizes).reshape(-1).astype(np.float64)

  def _others(self) -> list[int]:
    return [axis for axis in range(self.ndim) if axis not in self.features]


class _Interpreter:
  """Evaluates a flat jaxpr on `Value`s."""

  def __init__(self, closed: ClosedJaxpr, channels_first: bool):
    self.jaxpr, self.consts = closed.jaxpr, closed.consts
    self.channels_first = channels_first
    self.found = recognise.find(closed)
    self.needed, self.uses = self._count_uses()
    self.values: dict = {}

  def _count_uses(self) -> tuple[set, Counter]:
    """(the variables that the result depends on, how many equations read each)."""
    needed = {v for v in self.jaxpr.outvars if not isinstance(v, Literal)}
    uses = Counter(needed)
    for eqn in reversed(self.jaxpr.eqns):
      if not any(v in needed for v in eqn.outvars):
        continue
      found = self.found.get(eqn.outvars[0])
      inputs = found.inputs if found else eqn.invars
      inputs = [v for v in inputs if not isinstance(v, Literal)]
      needed.update(inputs)
      uses.update(inputs)
    return needed, uses

  def run(self, *arrays):
    """The results for these arrays."""
    for var, const in zip(self.jaxpr.constvars, self.consts, strict=True):
      self.values[var] = Value(np.asarray(const), var.aval.shape, static=True)
    for var, array in zip(self.jaxpr.invars, arrays, strict=True):
      self.values[var] = Value(array, var.aval.shape)
    for eqn in self.jaxpr.eqns:
      if any(v in self.needed for v in eqn.outvars):
        outputs = self._evaluate(eqn)
        self.values.update(zip(eqn.outvars, outputs, strict=True))
    return [self._read(atom).full() for atom in self.jaxpr.outvars]

  def _read(self, atom) -> Value:
    if isinstance(atom, Literal):
      return Value(np.asarray(atom.val, atom.aval.dtype), np.shape(atom.val), static=True)
    return self.values[atom]

  def _evaluate(self, eqn) -> list[Value]:
    out = eqn.outvars[0]
    if out in self.found:
      return [self._operator(self.found[out], out.aval)]
    inputs = [self._read(atom) for atom in eqn.invars]
    name = eqn.primitive.name
    rule = getattr(self, f'_{name}', None)
    if name in _ELEMENTWISE:
      rule = self._elementwise
    elif name in _REDUCTIONS:
      rule = self._reduction
    if rule is not None:
      value = rule(eqn, *inputs)
      if value is not None:
        return [value]
    outputs = self._bind(eqn.primitive, [x.full() for x in inputs], eqn.params)
    return [
      Value(array, v.aval.shape, static=is_static(array))
      for array, v in zip(outputs, eqn.outvars, strict=True)
    ]

  def _bind(self, primitive, arrays, params) -> list:
    if all(map(is_static, arrays)):
      try:
        with jax.ensure_compile_time_eval():
          outputs = primitive.bind(*arrays, **params)
          outputs = outputs if primitive.multiple_results else [outputs]
          return [np.asarray(x) for x in outputs]
      except (TypeError, jax.core.InconclusiveDimensionOperation):
        pass  # a symbolic dimension among the parameters
    outputs = primitive.bind(*arrays, **params)
    return list(outputs) if primitive.multiple_results else [outputs]

  def _single(self, atom) -> bool:
    """Whether one equation alone reads this variable."""
    return not isinstance(atom, Literal) and self.uses[atom] == 1

  def _operator(self, found: recognise.Found, aval) -> Value:
    inputs = [self._read(v) for v in found.inputs]
    x, *rest = inputs
    params = dict(found.params)
    order = x.order
    if found.name == 'layer_norm' and order[-1] != x.ndim - 1:
      order = tuple(range(x.ndim))
    if found.name == 'max_pool' and self.channels_first:
      order = (0, 3, 1, 2)
    if found.name == 'prelu':
      slope = rest[0].broadcast(x.shape, [x.ndim - 1])
      return Value(operators.bind('prelu', x.ordered(order), slope.ordered(order)), x.shape, order)
    for field in ('axis', 'axes'):
      if field in params:
        axes = params[field]
        places = [order.index(a) for a in np.atleast_1d(axes)]
        params[field] = places[0] if np.ndim(axes) == 0 else tuple(places)
    array = operators.bind(found.name, x.full(order), *(r.full() for r in rest), **params)
    return Value(array, aval.shape, order)

  # Rules: (equation, values) -> the value of its result, or None: as it stands.

  def _elementwise(self, eqn, *inputs: Value) -> Value | None:
    name, shape = eqn.primitive.name, eqn.outvars[0].aval.shape
    if name == 'select_n' and len(inputs) == 3 and inputs[0].static and inputs[0].array.size == 1:
      chosen = inputs[1 + int(inputs[0].array.reshape(())[()])]
      if chosen.shape == tuple(shape):
        return chosen
    affine = self._affine(eqn, inputs)
    if affine is not None:
      return affine
    arrays = [x for x in inputs if x.ndim]
    if any(x.ndim != len(shape) for x in arrays):
      return None
    dynamic = [x for x in arrays if not x.static]
    order = _common_order(dynamic or arrays)
    operands = [x.ordered(order) if x.ndim else x.array for x in inputs]
    if name == 'max' and not all(x.static for x in inputs):
      zeros = [x.static and x.array.size == 1 and x.array.reshape(())[()] == 0 for x in inputs]
      if any(zeros) and np.issubdtype(inputs[0].dtype, np.floating):
        return Value(operators.bind('relu', operands[1 - zeros.index(True)]), shape, order)
    if name in ('select_n', 'clamp') and not all(x.static for x in inputs):
      if name == 'select_n' and len(inputs) == 3:
        which, no, yes = operands
        if which.dtype == np.bool_:
          return Value(operators.bind('where', which, yes, no), shape, order)
      operands = [x.full(order) if x.ndim else x.array for x in inputs]
    elif name in ('select_n', 'clamp'):
      operands = [x.full(order) if x.ndim else x.array for x in inputs]
    (array,) = self._bind(eqn.primitive, operands, eqn.params)
    return Value(array, shape, order, is_static(array))

  def _affine(self, eqn, inputs) -> Value | None:
    """x times or plus what depends on the weights alone: kept for the operation that makes x."""
    name, shape = eqn.primitive.name, eqn.outvars[0].aval.shape
    if name not in ('add', 'sub', 'mul', 'div', 'neg'):
      return None
    dynamic = [i for i, x in enumerate(inputs) if not x.static]
    if len(dynamic) != 1 or not np.issubdtype(inputs[0].dtype, np.floating):
      return None
    (i,) = dynamic
    x = inputs[i]
    if x.shape != tuple(shape) or (name == 'div' and i == 1):
      return None
    other = inputs[1 - i] if len(inputs) == 2 else None
    if not (isinstance(x, _Pending) and self._single(eqn.invars[i])):
      if other is None or len(x.sizes()) == 0:
        return None
      x = self._start_affine(x, other)
    values = None if other is None else x.flattened(other)
    if other is not None and values is None:
      return None
    if name == 'neg':
      return x.affine(np.float64(-1), None)
    if name == 'mul':
      return x.affine(values, None)
    if name == 'div':
      return x.affine(1 / values, None)
    if name == 'add':
      return x.affine(None, values)
    return x.affine(None, -values) if i == 0 else x.affine(np.float64(-1), values)

  def _start_affine(self, x: Value, other: Value) -> _Pending:
    """x as an operation that may still be scaled and shifted along the axes of `other`."""
    sizes = other.ordered(range(other.ndim)).shape
    features = [axis for axis, n in enumerate(sizes) if n != 1] if other.ndim == x.ndim else []
    array, order, dtype = x.array, x.order, x.dtype

    def along(vector):
      """[features] -> the axes of `array`."""
      if np.ndim(vector) == 0 or not features:
        return np.reshape(vector, (1,) * array.ndim)
      wide = np.reshape(vector, [x.shape[axis] for axis in features])
      rest = [axis for axis in range(x.ndim) if axis not in features]
      wide = wide.reshape(wide.shape + (1,) * len(rest))
      return np.transpose(wide, [[*features, *rest].index(axis) for axis in order])

    def make(scale, shift):
      y = array
      if scale is not None:
        y = jax.lax.mul_p.bind(y, along(scale))
      return y if shift is None else jax.lax.add_p.bind(y, along(shift))

    return _Pending(make, x.shape, order, features, dtype)

  def _reduction(self, eqn, x: Value) -> Value:
    axes = eqn.params['axes']
    order = x.order
    sizes = x.sizes()
    partial = any(sizes[axis] != x.shape[axis] for axis in axes)
    array = x.full(order) if partial else x.ordered(order)
    params = {**eqn.params, 'axes': tuple(sorted(order.index(axis) for axis in axes))}
    (array,) = self._bind(eqn.primitive, [array], params)
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    new_order = [kept.index(axis) for axis in order if axis not in axes]
    return Value(array, eqn.outvars[0].aval.shape, new_order, is_static(array))

  def _transpose(self, eqn, x: Value) -> Value:
    return x.transposed(eqn.params['permutation'])

  def _reshape(self, eqn, x: Value, *sizes) -> Value | None:
    shape = eqn.outvars[0].aval.shape
    return None if sizes else x.reshaped(shape)

  def _squeeze(self, eqn, x: Value) -> Value:
    return x.reshaped(eqn.outvars[0].aval.shape)

  def _broadcast_in_dim(self, eqn, x: Value, *sizes) -> Value | None:
    if sizes:
      return None
    return x.broadcast(eqn.outvars[0].aval.shape, eqn.params['broadcast_dimensions'])

  def _tile(self, eqn, x: Value) -> Value | None:
    shape = eqn.outvars[0].aval.shape
    reps = eqn.params['reps']
    sizes = x.sizes()
    once = [isinstance(n, int) and n == 1 for n in reps]
    if len(reps) == x.ndim and all(o or size == 1 for o, size in zip(once, sizes, strict=True)):
      return Value(x.array, shape, x.order, x.static)
    return None

  def _slice(self, eqn, x: Value) -> Value:
    start, limit, strides = (eqn.params[k] for k in ('start_indices', 'limit_indices', 'strides'))
    strides = strides or (1,) * x.ndim
    sizes, array = x.sizes(), x.array
    ranges = [
      (0, 1, 1) if size == 1 and x.shape[axis] != 1 else (start[axis], limit[axis], strides[axis])
      for axis, size in enumerate(sizes)
    ]
    params = dict(
      zip(
        ('start_indices', 'limit_indices', 'strides'),
        zip(*(ranges[axis] for axis in x.order), strict=True),
        strict=True,
      )
    )
    (array,) = self._bind(eqn.primitive, [array], params)
    return Value(array, eqn.outvars[0].aval.shape, x.order, is_static(array))

  def _concatenate(self, eqn, *inputs: Value) -> Value:
    dynamic = [x for x in inputs if not x.static]
    order = _common_order(dynamic or inputs)
    params = {'dimension': order.index(eqn.params['dimension'])}
    (array,) = self._bind(eqn.primitive, [x.full(order) for x in inputs], params)
    return Value(array, eqn.outvars[0].aval.shape, order, is_static(array))

  def _dot_general(self, eqn, x: Value, y: Value) -> Value | None:
    (x_contract, y_contract), (x_batch, y_batch) = eqn.params['dimension_numbers']
    aval = eqn.outvars[0].aval
    if x.static and y.static:
      return None
    x_free = [a for a in range(x.ndim) if a not in (*x_contract, *x_batch)]
    y_free = [a for a in range(y.ndim) if a not in (*y_contract, *y_batch)]
    if not x_batch and (x.static or y.static):
      if y.static:
        lead, features = range(len(x_free)), range(len(x_free), aval.ndim)
        return self._weighted(x, x_free, x_contract, y, y_free, y_contract, lead, features, aval)
      lead, features = range(len(x_free), aval.ndim), range(len(x_free))
      return self._weighted(y, y_free, y_contract, x, x_free, x_contract, lead, features, aval)
    if max(map(len, (x_free, y_free, x_contract))) > 1 or not x_contract:
      return None
    factor = isinstance(x, _Pending) and self._single(eqn.invars[0]) and not x._arrays

    def make(scale, shift):
      left = x
      if scale is not None and factor:
        left = x.affine(np.float64(scale.reshape(-1)[0]), None)
      left = left.full([*x_batch, *x_free, *x_contract])
      right = y.full([*y_batch, *y_contract, *y_free])
      if not x_free:
        left = jnp.expand_dims(left, -2)
      if not y_free:
        right = jnp.expand_dims(right, -1)
      z = operators.bind('matmul', left, right)
      if scale is not None and not factor:
        z = jax.lax.mul_p.bind(z, np.reshape(scale, (1,) * z.ndim))
      if shift is not None:
        z = jax.lax.add_p.bind(z, np.reshape(shift, (1,) * z.ndim))
      return z if z.shape == aval.shape else jax.lax.reshape(z, aval.shape)

    return _Pending(make, aval.shape, range(aval.ndim), (), aval.dtype)

  def _weighted(
    self, x, x_free, x_contract, w, w_free, w_contract, lead, features, aval
  ) -> Value | None:
    """A product with weights as one matrix product: [..., C] by [C, F]."""
    # Any order of the contracted axes will do: that of x.
    pairs = sorted(zip(x_contract, w_contract, strict=True))
    x_contract, w_contract = [a for a, _ in pairs], [a for _, a in pairs]
    sizes = [w.shape[a] for a in w_free]
    matrix = np.transpose(w.full(), [*w_contract, *w_free])
    matrix = matrix.reshape(int(np.prod([w.shape[a] for a in w_contract])), -1)
    C, lead = matrix.shape[0], list(lead)
    # Rows in the order in which x is held.
    rows = sorted(range(len(x_free)), key=lambda i: x.order.index(x_free[i]))
    x_free, lead = [x_free[i] for i in rows], [lead[i] for i in rows]
    if x.ndim == 4 and len(x_contract) == 1 and x.order[-2] == x_contract[0] and len(sizes) == 1:
      return self._weighted_rows(x, x_free, x_contract[0], matrix, lead, features, aval)

    def make(scale, shift):
      array = x.full([*x_free, *x_contract])
      dims = tuple(x.shape[a] for a in x_free)
      if array.shape != (*dims, C):
        array = operators.bind('reshape', array, sizes=(*dims, C))
      if not dims:
        array = jnp.expand_dims(array, 0)
      y = operators.bind('matmul', array, matrix if scale is None else _scaled(matrix, scale))
      if shift is not None:
        y = operators.bind('add_bias', y, _along(shift, matrix.shape[1]))
      whole = (*dims, *sizes)
      return y if y.shape == whole else operators.bind('reshape', y, sizes=whole)

    return _Pending(make, aval.shape, [*lead, *features], features, aval.dtype)

  def _weighted_rows(self, x, x_free, contract, matrix, lead, features, aval) -> Value:
    """The product with weights along the last axis but one, such as a map's height: [F, C] by x."""
    order = x.order
    places = {axis: lead[i] for i, axis in enumerate(x_free)} | {contract: features[0]}

    def make(scale, shift):
      weights = (matrix if scale is None else _scaled(matrix, scale)).T
      y = operators.bind('matmul', np.ascontiguousarray(weights), x.full(order))
      if shift is not None:
        y = jax.lax.add_p.bind(y, _along(shift, len(weights), (1, 1))[..., None])
      return y

    return _Pending(make, aval.shape, [places[a] for a in order], features, aval.dtype)

  def _conv_general_dilated(self, eqn, x: Value, kernel: Value) -> Value | None:
    params, shape = eqn.params, eqn.outvars[0].aval.shape
    numbers = params['dimension_numbers']
    ndim = x.ndim
    spatial = tuple(range(1, ndim - 1))
    nhwc = (0, ndim - 1, *spatial)
    is_usual = (
      numbers.lhs_spec == numbers.out_spec == nhwc
      and numbers.rhs_spec == (ndim - 1, ndim - 2, *range(ndim - 2))
      and params['batch_group_count'] == 1
      and all(n == 1 for n in params['lhs_dilation'])
    )
    if x.static or not kernel.static or not is_usual:
      return None
    weights = kernel.full()
    F = weights.shape[-1]
    if self.channels_first:
      array = x.full(nhwc)

      def make(scale, shift):
        scaled = weights if scale is None else _scaled(weights, scale)
        scaled = np.transpose(scaled, numbers.rhs_spec)
        bias = [] if shift is None else [_along(shift, F)]
        return operators.bind(
          'conv',
          array,
          np.ascontiguousarray(scaled),
          *bias,
          strides=params['window_strides'],
          padding=params['padding'],
          dilation=params['rhs_dilation'],
          groups=params['feature_group_count'],
        )

      return _Pending(make, shape, nhwc, (ndim - 1,), eqn.outvars[0].aval.dtype)
    array = x.full()

    def make_last(scale, shift):
      scaled = weights if scale is None else _scaled(weights, scale)
      y = eqn.primitive.bind(array, scaled, **params)
      return y if shift is None else y + _along(shift, F, (1,) * (ndim - 1))

    return _Pending(make_last, shape, range(ndim), (ndim - 1,), eqn.outvars[0].aval.dtype)


def _common_order(values: Sequence[Value]) -> tuple[int, ...]:
  """The order of axes in which most of the values are held already; () for no values."""
  held = Counter(order for x in values for order in x.orders())
  return max(held, key=held.__getitem__) if held else ()


def _scaled(weights: np.ndarray, scale: np.ndarray) -> np.ndarray:
  """Weights [..., F] times scale [F] or []."""
  return (weights.astype(np.float64) * scale).astype(weights.dtype)


def _along(vector: np.ndarray, F: int, lead: tuple[int, ...] = ()) -> np.ndarray:
  """[F] or [] -> [*lead, F]."""
  return np.broadcast_to(vector, (F,)).reshape(*lead, F)
