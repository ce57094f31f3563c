"""ONNX files that compute in int8: weights with a scale per channel, activations in 8 bits.

A network of matrix products rounds its activations by their range in the run at hand ("dynamic").
One of convolutions has no such kernels in ONNX Runtime: there the ranges are measured once, on
samples of val ("static").
"""

import logging
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

CALIBRATION_SAMPLES = 64
_MIN_WIDTH = 8  # columns; the head's one column stays in float32


def quantize(model, samples: Sequence[Mapping[str, np.ndarray]]) -> bytes:
  """The model in int8.

  Args:
    model: an `onnx.ModelProto` in float32.
    samples: inputs by name, for the ranges of a network of convolutions.

  Returns:
    The bytes of the new model.
  """
  from onnxruntime import quantization

  weights = {one.name: int(np.prod(one.dims)) for one in model.graph.initializer}

  def size(kind: str) -> int:
    nodes = [node for node in model.graph.node if node.op_type == kind]
    return sum(weights.get(name, 0) for node in nodes for name in node.input)

  level = logging.root.level
  logging.root.setLevel(logging.ERROR)  # it recommends a preparation that has been done
  try:
    return _quantize(quantization, model, samples, size('MatMul') > size('Conv'))
  finally:
    logging.root.setLevel(level)


def _quantize(quantization, model, samples, dynamic: bool) -> bytes:
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'int8.onnx'
    options = {'weight_type': quantization.QuantType.QInt8, 'per_channel': True}
    if dynamic:
      quantization.quantize_dynamic(
        model,
        path,
        nodes_to_quantize=_wide_products(model),
        **options,
      )
    else:
      quantization.quantize_static(
        model,
        path,
        _reader(samples),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8,
        **options,
      )
    return path.read_bytes()


def _wide_products(model) -> list[str]:
  """The names of the products by a matrix of weights."""
  shapes = {one.name: list(one.dims) for one in model.graph.initializer}
  names = []
  for node in model.graph.node:
    shape = shapes.get(node.input[1], []) if node.op_type == 'MatMul' else []
    if len(shape) == 2 and shape[1] >= _MIN_WIDTH:
      names.append(node.name)
  return names


def calibration(graph, val, preprocess) -> list[dict[str, np.ndarray]]:
  """Inputs of a graph from val, one sample each: at most `CALIBRATION_SAMPLES`, evenly spread.

  Args:
    graph: see `graph.Graph`. A graph of fixed modalities gets the samples that have them.
    val: a source, see `val_data.open_val`.
    preprocess: of the model.
  """
  from flexfas_jax.export import parity
  from flexfas_jax.export.val_data import EvenSubset

  samples = []
  columns = [preprocess.modalities.index(m) for m in graph.modalities]
  for inputs in parity.val_inputs(EvenSubset(val, CALIBRATION_SAMPLES), preprocess):
    for i in np.flatnonzero(inputs.kind == 'val'):
      present = inputs.present[i : i + 1, columns]
      if not (present.any() if graph.present else present.all()):
        continue
      sample = {m: inputs.images[m][i : i + 1] for m in graph.modalities}
      samples.append({**sample, 'present': present} if graph.present else sample)
  return samples


def _reader(samples: Sequence[Mapping[str, np.ndarray]]):
  from onnxruntime.quantization import CalibrationDataReader

  class Reader(CalibrationDataReader):
    def __init__(self):
      self.rest: Iterator = iter(samples)

    def get_next(self):
      return next(self.rest, None)

  return Reader()
