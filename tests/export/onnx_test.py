"""What is done to an ONNX graph after its conversion, on one small enough to be read."""

import numpy as np
import onnx as library
import pytest
from onnx import helper, numpy_helper

from flexfas_jax.export import graph as graphs
from flexfas_jax.export.formats import onnx
from tests.export.parity_test import source_of


def test_equal_constants_are_kept_once():
  values = {'a': [1.0, 2.0], 'b': [1.0, 2.0], 'c': [2.0, 1.0]}
  constants = [numpy_helper.from_array(np.float32(v), name) for name, v in values.items()]
  # The same bytes in another shape are another constant.
  constants.append(numpy_helper.from_array(np.float32([[1.0, 2.0]]), 'd'))
  nodes = [
    helper.make_node('Add', [before, name], [f'x{i}'])
    for i, (before, name) in enumerate(zip(('x', 'x0', 'x1', 'x2'), 'abcd', strict=True))
  ]
  ends = [
    helper.make_tensor_value_info(name, library.TensorProto.FLOAT, [1, 2]) for name in ('x', 'x3')
  ]
  graph = helper.make_graph(nodes, 'sum', ends[:1], ends[1:], constants)
  onnx._share_constants(graph)
  assert [one.name for one in graph.initializer] == ['a', 'c', 'd']
  assert [list(node.input) for node in graph.node] == [
    ['x', 'a'],
    ['x0', 'a'],
    ['x1', 'c'],
    ['x2', 'd'],
  ]


def test_a_file_has_each_constant_once(tmp_path):
  """Two sensors that share their weights, which the converter writes for each."""
  pytest.importorskip('jax2onnx', reason='needs the extra onnx')
  source = source_of(modalities=('rgb', 'ir'))
  (entry,) = onnx.write(graphs.build(source.model, source.variables), source, tmp_path)
  found = [
    (one.data_type, tuple(one.dims), one.raw_data)
    for one in library.load(tmp_path / entry['file']).graph.initializer
    if one.raw_data
  ]
  assert len(found) > 10 and len(set(found)) == len(found)
