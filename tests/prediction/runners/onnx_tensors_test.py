"""ONNX files that keep tensors elsewhere are refused, wherever in the file the reference is."""

import numpy as np
import pytest

from flexfas_jax.prediction.runners import _onnx_tensors
from flexfas_jax.prediction.runners import onnx as runner

onnx = pytest.importorskip('onnx')
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def tensor(external):
  if not external:
    return numpy_helper.from_array(np.arange(4, dtype=np.float32), 'w')
  found = TensorProto(name='w', data_type=TensorProto.FLOAT, dims=[4])
  found.data_location = TensorProto.EXTERNAL
  found.external_data.add(key='location', value='weights.bin')
  return found


def model(place, external):
  """y = x + w, with w at one of the places where ONNX may have a tensor."""
  t = tensor(external)
  x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ('x', 'logit'))
  add = helper.make_node('Add', ['x', 'w'], ['logit'])
  constant = helper.make_node('Constant', [], ['w'])
  constant.attribute.add(name='value', type=onnx.AttributeProto.TENSOR).t.CopyFrom(t)
  nodes, initializers, functions = [add], [], []
  if place == 'initializer':
    initializers = [t]
  elif place == 'constant':
    nodes = [constant, add]
  elif place == 'subgraph':
    true = numpy_helper.from_array(np.array(True), 'true')
    branch = helper.make_graph([constant, add], 'branch', [], [y])
    nodes = [helper.make_node('If', ['true'], ['logit'], then_branch=branch, else_branch=branch)]
    initializers = [true]
  elif place == 'function':
    of = helper.make_function(
      'own', 'AddW', ['x'], ['logit'], [constant, add], [helper.make_opsetid('', 13)]
    )
    nodes, functions = [helper.make_node('AddW', ['x'], ['logit'], domain='own')], [of]
  elif place == 'sparse':
    values, indices = t, numpy_helper.from_array(np.arange(4), 'i')
    values.name = 'w'
  graph = helper.make_graph(nodes, 'g', [x], [y], initializers)
  if place == 'sparse':
    graph.sparse_initializer.add(values=values, indices=indices, dims=[4])
  opsets = [helper.make_opsetid('', 13), helper.make_opsetid('own', 1)]
  return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=8)


PLACES = ['initializer', 'constant', 'subgraph', 'function', 'sparse']


@pytest.mark.parametrize('place', PLACES)
def test_external_data_is_refused(place, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)  # where onnxruntime looks, given bytes
  np.arange(4, dtype=np.float32).tofile('weights.bin')
  content = model(place, external=True).SerializeToString()
  with pytest.raises(ValueError, match='external data'):
    _onnx_tensors.refuse_external(content)
  with pytest.raises(ValueError, match='external data'):
    runner.load(content, {})
  _onnx_tensors.refuse_external(model(place, external=False).SerializeToString())


def test_onnxruntime_would_read_it(tmp_path, monkeypatch):
  """Why the check is needed: bytes alone do not keep it from opening files."""
  onnxruntime = pytest.importorskip('onnxruntime')
  monkeypatch.chdir(tmp_path)
  np.arange(4, dtype=np.float32).tofile('weights.bin')
  options = onnxruntime.SessionOptions()
  options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
  content = model('initializer', external=True).SerializeToString()
  session = onnxruntime.InferenceSession(content, options, ['CPUExecutionProvider'])
  assert session.run(None, {'x': np.zeros(4, np.float32)})[0].tolist() == [0, 1, 2, 3]


def test_every_way_to_a_tensor_is_walked():
  """By ONNX's own description of its messages, whatever a later version adds."""
  names = {
    'ModelProto': 'model',
    'TrainingInfoProto': 'training',
    'GraphProto': 'graph',
    'FunctionProto': 'function',
    'NodeProto': 'node',
    'AttributeProto': 'attribute',
    'SparseTensorProto': 'sparse_tensor',
    'TensorProto': 'tensor',
  }

  def leads(message, seen=()):
    if message.name == 'TensorProto':
      return True
    inner = [f.message_type for f in message.fields if f.message_type]
    return any(m.name not in seen and leads(m, (*seen, message.name)) for m in inner)

  todo, done = [onnx.ModelProto.DESCRIPTOR], set()
  while todo:
    message = todo.pop()
    if message.name in done or message.name == 'TensorProto':
      continue
    done.add(message.name)
    inner = {f.number: f.message_type for f in message.fields if f.message_type}
    inner = {number: m for number, m in inner.items() if leads(m)}
    assert _onnx_tensors._FIELDS[names[message.name]] == {
      n: names[m.name] for n, m in inner.items()
    }
    todo += inner.values()
  fields = onnx.TensorProto.DESCRIPTOR.fields_by_name
  assert fields['external_data'].number == _onnx_tensors._EXTERNAL_DATA
  assert fields['data_location'].number == _onnx_tensors._DATA_LOCATION


@pytest.mark.parametrize(
  ('content', 'says'),
  [
    (b'\x3a\xff', 'cut off'),
    (b'\x3a\x05ab', 'cut off'),
    (b'\xff' * 20, 'not an ONNX file'),
    (b'<html>', 'not an ONNX file|cut off'),
    (b'\x10\x00\x00\x00ORTM', 'in the format of ONNX Runtime'),
    # The number of the field 13 of a tensor plus 2^29, which 32 bits cut to 13.
    (b'\x3a\x09\x2a\x07\xea\x80\x80\x80\x10\x01a', 'not an ONNX file'),
  ],
)
def test_what_is_no_onnx_file(content, says):
  with pytest.raises(ValueError, match=says):
    _onnx_tensors.refuse_external(content)


def test_nesting_has_an_end():
  content = b''
  for _ in range(300):  # a graph in an attribute of a node of a graph
    for key in (b'\x32', b'\x2a', b'\x0a'):
      length, size = len(content), b''
      while length > 0x7F:
        size, length = size + bytes([0x80 | length & 0x7F]), length >> 7
      content = key + size + bytes([length]) + content
  length, size = len(content), b''
  while length > 0x7F:
    size, length = size + bytes([0x80 | length & 0x7F]), length >> 7
  with pytest.raises(ValueError, match='nested too deep'):
    _onnx_tensors.refuse_external(b'\x3a' + size + bytes([length]) + content)
