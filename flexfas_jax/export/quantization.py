"""Stores the weights of TFLite files as float16, or as int8 with a scale per channel.

In int8, dense layers and convolutions read their weights as they are stored: LiteRT rounds their
inputs to int8 as well, by their range in the run at hand, and computes in integers. Any other
weight is followed by a DEQUANTIZE node, which LiteRT's CPU kernels fold when they load a model.
"""

import numpy as np

PRECISIONS = ('float32', 'float16', 'int8')
_MIN_SIZE = 1024  # elements; smaller arrays are not worth a node


def quantize_weights(model: bytes, precision: str) -> bytes:
  """Stores the constant float32 arrays of a TFLite model in another precision.

  Args:
    model: the flatbuffer.
    precision: one of `PRECISIONS`. int8 is symmetric, with one scale for each slice along the axis
      with the smallest error.

  Returns:
    The new flatbuffer.
  """
  if precision == 'float32':
    return model
  import flatbuffers
  from ai_edge_litert import schema_py_generated as schema

  tree = schema.ModelT.InitFromPackedBuf(model, 0)
  opcode, stored = _add_dequantize(tree, schema), {}
  for graph in tree.subgraphs:
    direct = _direct(tree, graph, schema) if precision == 'int8' else {}
    for index in range(len(graph.tensors)):
      value = _constant(tree, graph.tensors[index], schema)
      # An array of one value is no weight, e.g. the border of -inf of a maximum.
      if value is not None and value.size >= _MIN_SIZE and (value != value.flat[0]).any():
        tensor, axis = graph.tensors[index], direct.get(index)
        small = _stored(tree, tensor, value, precision, stored, schema, axis)
        if index in direct:
          graph.tensors[index] = small
        else:
          _dequantize(graph, index, small, opcode, schema)
  used = {tensor.buffer for graph in tree.subgraphs for tensor in graph.tensors}
  for index in stored.keys() - used:
    tree.buffers[index].data = None
  builder = flatbuffers.Builder(len(model))
  builder.Finish(tree.Pack(builder), b'TFL3')
  return bytes(builder.Output())


def quantize_int8(value: np.ndarray, axis: int | None = None) -> tuple[np.ndarray, np.ndarray, int]:
  """(int8 of the same shape, scales [n] float32, the axis of the scales); None: the best axis."""
  best_error, best = None, None
  candidates = range(value.ndim) if axis is None else (axis,)
  for axis in candidates:
    others = tuple(i for i in range(value.ndim) if i != axis)
    largest = np.abs(value).max(others, keepdims=True)
    scale = np.maximum(largest, 1e-12).astype(np.float32) / np.float32(127)
    quantized = np.clip(np.round(value / scale), -127, 127)
    error = float(((quantized * scale - value) ** 2).sum())
    if best_error is None or error < best_error:
      best_error, best = error, (quantized.astype(np.int8), scale.reshape(-1), axis)
  return best


def _constant(tree, tensor, schema) -> np.ndarray | None:
  data = tree.buffers[tensor.buffer].data
  if tensor.type != schema.TensorType.FLOAT32 or data is None or not len(data):
    return None
  shape = [] if tensor.shape is None else list(tensor.shape)
  return np.asarray(data, np.uint8).view('<f4').reshape(shape)


def _add_dequantize(tree, schema) -> int:
  """Adds the operator code of DEQUANTIZE; returns its index."""
  code = schema.OperatorCodeT()
  code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
  code.version = 5  # int8 scales per channel require it
  tree.operatorCodes.append(code)
  return len(tree.operatorCodes) - 1


def _direct(tree, graph, schema) -> dict[int, int]:
  """{tensor: the axis of its scales} of weights that integer kernels read, and nothing else."""
  kinds = schema.BuiltinOperator
  found, others = {}, set()
  for operator in graph.operators:
    code = tree.operatorCodes[operator.opcodeIndex]
    kind = max(code.builtinCode, code.deprecatedBuiltinCode)
    inputs = list(operator.inputs)
    if kind in (kinds.FULLY_CONNECTED, kinds.CONV_2D):
      found[inputs.pop(1)] = 0  # [F, C] and [D, k, k, C]
      if kind == kinds.FULLY_CONNECTED:
        operator.builtinOptions.asymmetricQuantizeInputs = True
    others.update(inputs)
  return {index: axis for index, axis in found.items() if index not in others}


def _stored(tree, tensor, value, precision: str, stored, schema, axis: int | None = None):
  """A tensor with the same values in fewer bits, and no more than one buffer for equal ones.

  `stored` maps a buffer to its smaller one, since tensors may share a buffer.
  """
  small = schema.TensorT()
  small.shape, small.name = tensor.shape, tensor.name + b'/' + precision.encode()
  if precision == 'float16':
    data, small.type = value.astype('<f2'), schema.TensorType.FLOAT16
  else:
    data, scale, axis = quantize_int8(value, axis)
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
  return small


def _dequantize(graph, index: int, small, opcode: int, schema) -> None:
  """Makes tensor `index` the output of a DEQUANTIZE of a smaller constant."""
  graph.tensors.append(small)
  graph.tensors[index].buffer = 0  # by convention the empty buffer: the tensor is computed
  node = schema.OperatorT()
  node.opcodeIndex = opcode
  node.inputs, node.outputs = [len(graph.tensors) - 1], [index]
  node.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
  node.builtinOptions = schema.DequantizeOptionsT()
  graph.operators.insert(0, node)
