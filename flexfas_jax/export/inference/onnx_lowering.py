"""How jax2onnx writes the operators of `operators.py`: each as one ONNX operator."""

import functools

import numpy as np


@functools.cache
def register() -> None:
  """Adds the operators to jax2onnx's table, once."""
  from jax2onnx.plugins.plugin_system import PrimitiveLeafPlugin, register_primitive

  def add(name: str, lower) -> None:
    def method(self, ctx, eqn):
      inputs = [ctx.get_value_for_var(v, name_hint=ctx.fresh_name(name)) for v in eqn.invars]
      (out_var,) = eqn.outvars
      spec = ctx.get_value_for_var(out_var, name_hint=ctx.fresh_name(name))
      value = lower(ctx.builder, inputs, eqn.params, [spec.name], ctx, eqn)
      value.type, value.shape = spec.type, spec.shape
      ctx.bind_value_for_var(out_var, value)

    plugin = type(f'Flexfas{name.title()}', (PrimitiveLeafPlugin,), {'lower': method})
    register_primitive(jaxpr_primitive=f'flexfas_{name}', component=name, testcases=[])(plugin)

  for name, lower in _LOWERINGS.items():
    add(name, lower)


def _softmax(builder, inputs, params, outputs, *_):
  return builder.Softmax(*inputs, axis=params['axis'], _outputs=outputs)


def _gelu(builder, inputs, params, outputs, *_):
  return builder.Gelu(*inputs, approximate='none', _outputs=outputs)


def _relu(builder, inputs, params, outputs, *_):
  return builder.Relu(*inputs, _outputs=outputs)


def _prelu(builder, inputs, params, outputs, *_):
  return builder.PRelu(*inputs, _outputs=outputs)


def _add_bias(builder, inputs, params, outputs, *_):
  return builder.Add(*inputs, _outputs=outputs)


def _layer_norm(builder, inputs, params, outputs, *_):
  return builder.LayerNormalization(*inputs, axis=-1, epsilon=params['epsilon'], _outputs=outputs)


def _max_pool(builder, inputs, params, outputs, *_):
  if params['axes'] != (2, 3):
    raise ValueError(f'ONNX pools along the last two axes, not {params["axes"]}')
  return builder.MaxPool(
    *inputs,
    kernel_shape=[params['window']] * 2,
    strides=[params['stride']] * 2,
    pads=[params['padding']] * 4,
    _outputs=outputs,
  )


def _matmul(builder, inputs, params, outputs, *_):
  return builder.MatMul(*inputs, _outputs=outputs)


def _conv(builder, inputs, params, outputs, *_):
  low, high = zip(*params['padding'], strict=True)
  return builder.Conv(
    *inputs,
    strides=list(params['strides']),
    pads=[*low, *high],
    dilations=list(params['dilation']),
    group=params['groups'],
    _outputs=outputs,
  )


def _where(builder, inputs, params, outputs, *_):
  return builder.Where(*inputs, _outputs=outputs)


def _reshape(builder, inputs, params, outputs, ctx, eqn):
  sizes = [n if isinstance(n, int) else -1 for n in params['sizes']]
  shape = builder.add_initializer_from_array(
    name=ctx.fresh_name('sizes'), array=np.array(sizes, np.int64)
  )
  return builder.Reshape(*inputs, shape, _outputs=outputs)


_LOWERINGS = {
  'softmax': _softmax,
  'gelu': _gelu,
  'relu': _relu,
  'prelu': _prelu,
  'add_bias': _add_bias,
  'layer_norm': _layer_norm,
  'max_pool': _max_pool,
  'matmul': _matmul,
  'conv': _conv,
  'where': _where,
  'reshape': _reshape,
}
