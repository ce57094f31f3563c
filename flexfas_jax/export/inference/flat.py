"""Traces a function to a jaxpr without inner jaxprs, and evaluates one."""

from collections.abc import Callable, Mapping

import jax
from jax.extend.core import ClosedJaxpr, Literal

# Calls, and the parameter that holds their jaxpr.
_CALLS = {
  'jit': 'jaxpr',
  'pjit': 'jaxpr',
  'closed_call': 'call_jaxpr',
  'core_call': 'call_jaxpr',
  'custom_jvp_call': 'call_jaxpr',
  'custom_vjp_call': 'call_jaxpr',
  'custom_vjp_call_jaxpr': 'fun_jaxpr',
  'remat2': 'jaxpr',
  'checkpoint': 'jaxpr',
}
_IDENTITIES = ('stop_gradient', 'copy', 'copy_p', 'optimization_barrier')


def trace(function: Callable, *shapes) -> ClosedJaxpr:
  """The flat jaxpr of a function of arrays with these shapes; it has no gradient."""
  closed = jax.make_jaxpr(function)(*shapes)
  return jax.make_jaxpr(lambda *arrays: evaluate(closed, arrays))(*shapes)


def evaluate(closed: ClosedJaxpr, arguments, rules: Mapping[str, Callable] | None = None) -> list:
  """The results of a jaxpr; calls are entered.

  Args:
    closed: with its constants.
    arguments: arrays or tracers.
    rules: {name of a primitive: a function of its inputs and parameters to use instead}.
  """
  return _evaluate(closed.jaxpr, closed.consts, arguments, rules or {})


def _evaluate(jaxpr, consts, arguments, rules):
  values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))

  def read(atom):
    return atom.val if isinstance(atom, Literal) else values[atom]

  for eqn in jaxpr.eqns:
    inputs = [read(atom) for atom in eqn.invars]
    name = eqn.primitive.name
    if name in _IDENTITIES:
      outputs = inputs
    elif name in _CALLS:
      inner = eqn.params[_CALLS[name]]
      if isinstance(inner, ClosedJaxpr):
        outputs = _evaluate(inner.jaxpr, inner.consts, inputs, rules)
      else:
        outputs = _evaluate(inner, (), inputs, rules)
    else:
      outputs = rules.get(name, eqn.primitive.bind)(*inputs, **eqn.params)
      outputs = outputs if eqn.primitive.multiple_results else [outputs]
    values.update(zip(eqn.outvars, outputs, strict=True))
  return [read(atom) for atom in jaxpr.outvars]
