"""Counts the FLOPs of matrix products and convolutions in a traced function, without compiling it.

XLA's own count includes the body of a loop only once.
"""

import math
from collections.abc import Callable

import jax


def count_flops(function: Callable, *arguments) -> int:
  """FLOPs of a function's matrix products and convolutions, all iterations of loops included.

  Args:
    function: pure.
    arguments: arrays or their shapes.
  """
  return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr) -> int:
  return sum(map(_count_equation, jaxpr.eqns))


def _count_equation(equation) -> int:
  if equation.primitive.name == 'dot_general':
    (contracted, _), _ = equation.params['dimension_numbers']
    left = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
  if equation.primitive.name == 'conv_general_dilated':
    kernel = equation.invars[1].aval
    features = kernel.shape[equation.params['dimension_numbers'].rhs_spec[0]]
    # The zeros inserted into an input, as in a gradient, are not multiplied.
    dilation = math.prod(equation.params['lhs_dilation'])
    return 2 * equation.outvars[0].aval.size * kernel.size // features // dilation
  inner = [
    getattr(leaf, 'jaxpr', leaf)
    for leaf in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, 'eqns')
    )
    if hasattr(getattr(leaf, 'jaxpr', leaf), 'eqns')
  ]
  if equation.primitive.name == 'cond':  # only one branch runs
    return max(map(_count, inner))
  times = equation.params.get('length', 1) if equation.primitive.name == 'scan' else 1
  return times * sum(map(_count, inner))
