"""Runners of graphs, on graphs that are small enough to be worked out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.export.formats import stablehlo as stablehlo_writer
from flexfas_jax.export.formats import tflite as tflite_writer
from flexfas_jax.export.formats import weights as weights_writer
from flexfas_jax.export.graph import Graph
from flexfas_jax.prediction.runners import onnx, stablehlo, tflite, weights
from flexfas_jax.training import digests
from tests.export.parity_test import source_of


def mean(rgb, present):
  """The picture's mean where it is there, else -1."""
  return jnp.where(present[:, 0], rgb.mean((1, 2, 3)), -1.0)


GRAPH = Graph('model', ('rgb',), True, 4, mean)
IMAGES = {'rgb': np.arange(3 * 48, dtype=np.float32).reshape(3, 4, 4, 3)}
PRESENT = np.array([[True], [False], [True]])
WANTED = [23.5, -1, 119.5]


def test_stablehlo(tmp_path):
  (entry,) = stablehlo_writer.write(GRAPH, None, tmp_path)
  run = stablehlo.load((tmp_path / entry['file']).read_bytes(), entry)
  np.testing.assert_allclose(run(IMAGES, PRESENT), WANTED)
  one = {'rgb': IMAGES['rgb'][:1]}
  np.testing.assert_allclose(run(one), WANTED[:1])
  exported = jax.export.deserialize(bytearray((tmp_path / entry['file']).read_bytes()))
  assert exported.platforms == ('cpu', 'cuda', 'tpu')


def test_tflite(tmp_path):
  pytest.importorskip('litert_converter', reason='needs the extra tflite')
  for entry in tflite_writer.write(GRAPH, None, tmp_path):
    run = tflite.load((tmp_path / entry['file']).read_bytes(), entry, threads=1)
    np.testing.assert_allclose(run(IMAGES, PRESENT), WANTED)


def test_onnx():
  onnxruntime = pytest.importorskip('onnxruntime', reason='needs the extra onnx')
  from onnx import TensorProto, helper

  del onnxruntime
  ends = [
    helper.make_tensor_value_info('rgb', TensorProto.FLOAT, [1, 4, 4, 3]),
    helper.make_tensor_value_info('logit', TensorProto.FLOAT, [1]),
  ]
  node = helper.make_node('ReduceMean', ['rgb'], ['logit'], axes=[1, 2, 3], keepdims=0)
  model = helper.make_model(
    helper.make_graph([node], 'mean', ends[:1], ends[1:]),
    opset_imports=[helper.make_opsetid('', 13)],
    ir_version=8,
  )
  entry = GRAPH._replace(present=False).card_entry('onnx', 'model.onnx', B=1)
  run = onnx.load(model.SerializeToString(), entry, threads=1)
  np.testing.assert_allclose(run(IMAGES), [23.5, 71.5, 119.5])


@pytest.mark.parametrize(
  'runner,module,said',
  [(onnx, 'onnxruntime', '`onnx` extra'), (tflite, 'ai_edge_litert.interpreter', '`tflite` extra')],
)
def test_a_missing_library(monkeypatch, runner, module, said):
  monkeypatch.setitem(__import__('sys').modules, module, None)
  with pytest.raises(ConfigError, match=said):
    runner.load(b'', {})


def test_weights_of_another_model(tmp_path):
  source = source_of()
  graph = Graph('model', source.model.modalities, True, 16, None)
  (entry,) = weights_writer.write(graph, source._replace(weights_hash='0'), tmp_path)
  content = (tmp_path / entry['file']).read_bytes()
  other = {**entry['model'], 'image_size': 24}
  with pytest.raises(StateError, match='streams_shared/pos_embed'):
    weights.load(content, {**entry, 'model': other})


def test_weights_are_those_of_their_hash(tmp_path):
  """It is computed again from the tensors: of trained blocks as they are, the checkpoint's."""
  source = source_of()
  source = source._replace(
    weights_hash=digests.hash_weights(jax.tree.map(jnp.asarray, source.variables))
  )
  graph = Graph('model', source.model.modalities, True, 16, None)
  (entry,) = weights_writer.write(graph, source, tmp_path)
  assert 'variables_hash' not in entry
  content = (tmp_path / entry['file']).read_bytes()
  weights.load(content, entry)
  with pytest.raises(StateError, match='does not match the card'):
    weights.load(content, {**entry, 'weights_hash': '0' * 64})
  changed = content[:-1] + bytes([content[-1] ^ 1])
  with pytest.raises(StateError, match='does not match the card'):
    weights.load(changed, entry)
