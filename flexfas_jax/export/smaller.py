"""TFLite files with smaller weights: float16, or int8 with a scale per channel.

Only what is stored changes. Each weight gets a DEQUANTIZE before its use, which LiteRT's CPU
kernels take back when a model is loaded: the computation is float32, and as fast.
"""

import numpy as np

PRECISIONS = ('float32', 'float16', 'int8')
_LEAST = 1024  # elements of a weight worth the node


def with_weights_of(model: bytes, precision: str) -> bytes:
  """A TFLite model whose constant float32 arrays are stored otherwise.

  Args:
    model: the flatbuffer.
    precision: of `PRECISIONS`; of int8 the scale is symmetric, one for each slice along the axis
      that loses least.

  Returns:
    The flatbuffer of the other model.
  """
  if precision == 'float32':
    return model
  import flatbuffers
  from ai_edge_litert import schema_py_generated as schema

  tree = schema.ModelT.InitFromPackedBuf(model, 0)
  code, stored = _dequantize_code(tree, schema), {}
  for graph in tree.subgraphs:
    for index in range(len(graph.tensors)):
      value = _constant(tree, graph.tensors[index], schema)
      # What is all one value is no weight, such as a maximum's border of -inf.
      if value is not None and value.size >= _LEAST and (value != value.flat[0]).any():
        _store(tree, graph, index, value, precision, code, stored, schema)
  used = {tensor.buffer for graph in tree.subgraphs for tensor in graph.tensors}
  for index in stored.keys() - used:
    tree.buffers[index].data = None
  builder = flatbuffers.Builder(len(model))
  builder.Finish(tree.Pack(builder), b'TFL3')
  return bytes(builder.Output())


def quantised(value: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
  """(int8 of the same shape, its scales [n] float32, the axis that they go along)."""
  best = None
  for axis in range(value.ndim):
    others = tuple(i for i in range(value.ndim) if i != axis)
    reach = np.abs(value).max(others, keepdims=True)
    scale = np.maximum(reach, 1e-12).astype(np.float32) / np.float32(127)
    whole = np.clip(np.round(value / scale), -127, 127)
    error = float(((whole * scale - value) ** 2).sum())
    if best is None or error < best[0]:
      best = error, whole.astype(np.int8), scale.reshape(-1), axis
  return best[1:]


def _constant(tree, tensor, schema) -> np.ndarray | None:
  data = tree.buffers[tensor.buffer].data
  if tensor.type != schema.TensorType.FLOAT32 or data is None or not len(data):
    return None
  shape = [] if tensor.shape is None else list(tensor.shape)
  return np.asarray(data, np.uint8).view('<f4').reshape(shape)


def _dequantize_code(tree, schema) -> int:
  code = schema.OperatorCodeT()
  code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
  code.version = 5  # the newest that any of these needs: int8 by channel
  tree.operatorCodes.append(code)
  return len(tree.operatorCodes) - 1


def _store(tree, graph, index: int, value, precision: str, code: int, stored, schema) -> None:
  """Tensor `index` becomes the result of a DEQUANTIZE of a smaller constant.

  `stored` is {buffer: the smaller one in its place}: tensors may share theirs.
  """
  small, tensor = schema.TensorT(), graph.tensors[index]
  small.shape, small.name = tensor.shape, tensor.name + b'/' + precision.encode()
  if precision == 'float16':
    data, small.type = value.astype('<f2'), schema.TensorType.FLOAT16
  else:
    data, scale, axis = quantised(value)
    small.type = schema.TensorType.INT8
    small.quantization = schema.QuantizationParametersT()
    small.quantization.scale = scale
    small.quantization.zeroPoint = np.zeros(len(scale), np.int64)
    small.quantization.quantizedDimension = axis
  key = tensor.buffer
  if key not in stored or tree.buffers[stored[key]].data.tobytes() != data.tobytes():
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data.tobytes(), np.uint8)
    tree.buffers.append(buffer)
    stored[key] = len(tree.buffers) - 1
  small.buffer = stored[key]
  graph.tensors.append(small)
  tensor.buffer = 0  # by convention the empty one: it is computed
  node = schema.OperatorT()
  node.opcodeIndex = code
  node.inputs, node.outputs = [len(graph.tensors) - 1], [index]
  node.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
  node.builtinOptions = schema.DequantizeOptionsT()
  graph.operators.insert(0, node)
