"""Guards of what makes exported graphs fast: how many operations they have, and which."""

import re
from collections import Counter

import jax
import numpy as np
import onnx as library
import pytest
from onnx import helper, numpy_helper

from flexfas_jax.export import graph as graphs
from flexfas_jax.export import onnx_int8
from flexfas_jax.export.formats import onnx, stablehlo
from flexfas_jax.export.inference import flat, recognise, simplify
from tests.export.parity_test import source_of
from tests.toy import SIZE, TOY


def graph_of(backbone: str, subset=('rgb',), **fields):
  source = source_of(
    backbone={'name': backbone, **TOY[backbone]}, image_size=SIZE[backbone], **fields
  )
  return graphs.build(source.model, source.variables, subset)


def written(tmp_path, *arguments, **fields) -> Counter:
  """The operators of the ONNX file."""
  pytest.importorskip('jax2onnx', reason='needs the extra onnx')
  (entry,) = onnx.write(graph_of(*arguments, **fields), None, tmp_path)
  model = library.load(tmp_path / entry['file'])
  return Counter(node.op_type for node in model.graph.node)


def test_a_transformer_is_products_norms_and_softmaxes(tmp_path):
  """Two blocks: 29 nodes each, as ViT-B's 352 in twelve (measured: experiments/performance)."""
  operators = written(tmp_path, 'vit', fusion={'name': 'single'}, modalities=('rgb',))
  assert operators['LayerNormalization'] == 5  # two in each block, and the last
  assert operators['Softmax'] == operators['Gelu'] == 2
  assert operators['MatMul'] == 2 * 8 + 1  # q, k, v, scores, mixture, out, two of the MLP; the head
  assert operators['Transpose'] == 2 * 4 + 2  # q, k, v, out of each block; the image, the patches
  assert not {'Einsum', 'Erf', 'Exp', 'Sqrt', 'Pow', 'Div', 'Expand'} & operators.keys()
  assert operators.total() <= 2 * 29 + 14


@pytest.mark.parametrize(
  'backbone, convolutions, activation',
  [('resnet', 12, 'Relu'), ('cdcn', 5, 'Relu'), ('caffe_resnet', 13, 'PRelu')],
)
def test_a_norm_is_part_of_its_convolution(tmp_path, backbone, convolutions, activation):
  operators = written(tmp_path, backbone, fusion={'name': 'single'}, modalities=('rgb',))
  assert operators['Conv'] == convolutions
  assert operators['Transpose'] == 1  # of the image
  assert operators[activation] and operators['MaxPool']
  # What is added is a residual, or the head's bias: no norm, no bias of a convolution.
  assert not {'Sub', 'Sqrt', 'Max', 'Div', 'Reciprocal', 'BatchNormalization'} & operators.keys()
  assert operators['Mul'] <= 1  # the mean


def test_three_sensors_of_any_batch_have_no_einsum(tmp_path):
  for backbone in ('vit', 'resnet'):
    operators = written(tmp_path, backbone, None, fusion={'name': 'cross_attention'})
    assert not {'Einsum', 'Erf', 'Exp', 'Sqrt', 'Max'} & operators.keys(), operators


@pytest.mark.parametrize('backbone', ['vit', 'resnet', 'cdcn'])
def test_stablehlo_has_float32_products_on_every_chip(tmp_path, backbone):
  """By default a GPU rounds to TF32 and a TPU to bfloat16; parity is measured on a CPU alone."""
  (entry,) = stablehlo.write(graph_of(backbone, None), None, tmp_path)
  content = (tmp_path / entry['file']).read_bytes()
  text = jax.export.deserialize(bytearray(content)).mlir_module()
  products = re.findall(r'stablehlo\.(?:dot_general|dot|convolution)\b.*', text)
  assert len(products) > 10
  assert not [line for line in products if line.count('HIGHEST') != 2]


def test_a_pattern_follows_a_change_of_the_numbers():
  """Softmax along another axis, GELU's other form: no match; epsilon is read."""
  import flax.linen as nn

  x = jax.ShapeDtypeStruct((2, 3, 4), np.float32)

  def names(function):
    return [(one.name, one.params) for one in recognise.find(flat.trace(function, x)).values()]

  assert names(lambda x: jax.nn.softmax(x, -1)) == [('softmax', {'axis': 2})]
  assert names(lambda x: jax.nn.softmax(x, 1)) == []
  assert names(lambda x: nn.gelu(x, approximate=False)) == [('gelu', {})]
  assert names(nn.gelu) == []
  norm = nn.LayerNorm(epsilon=0.25)
  variables = norm.init(jax.random.key(0), np.zeros((2, 3, 4), np.float32))
  assert names(lambda x: norm.apply(variables, x)) == [('layer_norm', {'epsilon': 0.25})]


def test_affine_operations_become_weights():
  """((x W + 1) 2 - 4) / 8, negated, by hand: one product and one sum."""
  W = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)

  def function(x):
    return -(((x @ W + 1) * np.float32(2) - np.float32([[4, 6]])) / 8)

  shape = jax.ShapeDtypeStruct((1, 2), np.float32)
  program = simplify.simplify(function, [shape])
  assert [e.primitive.name for e in program.eqns] == ['flexfas_matmul', 'flexfas_add_bias']
  constants = sorted((np.asarray(c) for c in program.consts), key=lambda c: c.ndim)
  np.testing.assert_allclose(constants[0], [0.25, 0.5])  # -(2 - 4) / 8, -(2 - 6) / 8
  np.testing.assert_allclose(constants[1], -W / 4)
  x = np.float32([[1, 2]])
  np.testing.assert_allclose(flat.evaluate(program, [x])[0], function(x))


def test_a_product_that_two_read_is_not_scaled_for_one():
  W = np.float32([[2.0]])

  def function(x):
    y = x @ W
    return y * 3 + jax.numpy.sin(y)

  shape = jax.ShapeDtypeStruct((1, 1), np.float32)
  program = simplify.simplify(function, [shape])
  names = Counter(e.primitive.name for e in program.eqns)
  assert names['flexfas_matmul'] == 1
  x = np.float32([[0.5]])
  np.testing.assert_allclose(flat.evaluate(program, [x])[0], function(x), rtol=1e-6)


def test_what_is_computed_in_int8():
  pytest.importorskip('onnxruntime', reason='needs the extra onnx')
  weights = np.linspace(-1, 1, 16 * 16, dtype=np.float32).reshape(16, 16)
  constants = [numpy_helper.from_array(weights, 'w'), numpy_helper.from_array(weights[:, :1], 'v')]
  nodes = [
    helper.make_node('MatMul', ['x', 'w'], ['y'], 'wide'),
    helper.make_node('MatMul', ['y', 'v'], ['z'], 'head'),
  ]
  ends = [
    helper.make_tensor_value_info(name, library.TensorProto.FLOAT, [1, n])
    for name, n in (('x', 16), ('z', 1))
  ]
  model = helper.make_model(
    helper.make_graph(nodes, 'two', ends[:1], ends[1:], constants),
    opset_imports=[helper.make_opsetid('', 21)],
    ir_version=10,
  )
  small = library.load_from_string(onnx_int8.quantize(model, []))
  kinds = Counter(node.op_type for node in small.graph.node)
  assert kinds['MatMulInteger'] == kinds['MatMul'] == 1
