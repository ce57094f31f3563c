"""FLOPs of products and convolutions, counted from what a function is traced to; nothing compiles.

Of a program with loops, XLA's own count has each body once.
"""

import math
from collections.abc import Callable

import jax


def count_flops(function: Callable, *arguments) -> int:
  """FLOPs of a function's products and convolutions, loops multiplied out.

  Args:
    function: pure.
    arguments: arrays or their shapes.
  """
  return _of(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of(jaxpr) -> int:
  return sum(map(_of_equation, jaxpr.eqns))


def _of_equation(equation) -> int:
  if equation.primitive.name == 'dot_general':
    (contracted, _), _ = equation.params['dimension_numbers']
    left = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
  if equation.primitive.name == 'conv_general_dilated':
    kernel = equation.invars[1].aval
    features = kernel.shape[equation.params['dimension_numbers'].rhs_spec[0]]
    # An input that is spread out with zeros, as in a gradient, is not multiplied where it is 0.
    spread = math.prod(equation.params['lhs_dilation'])
    return 2 * equation.outvars[0].aval.size * kernel.size // features // spread
  inner = [
    getattr(leaf, 'jaxpr', leaf)
    for leaf in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, 'eqns')
    )
    if hasattr(getattr(leaf, 'jaxpr', leaf), 'eqns')
  ]
  if equation.primitive.name == 'cond':  # one of its branches runs: of platforms, say
    return max(map(_of, inner))
  times = equation.params.get('length', 1) if equation.primitive.name == 'scan' else 1
  return times * sum(map(_of, inner))
