"""ONNX by jax2onnx (extra `onnx`): any batch with `present`, batch 1 for a fixed subset.

With a batch that is a number, what follows from the weights alone is computed ahead: a third of the
time of a small model.
"""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flexfas_jax.errors import ConfigError

SUBSETS = True


class _Input(NamedTuple):
  shape: tuple
  dtype: np.dtype


def check() -> None:
  """Raises a ConfigError where the extra is missing."""
  try:
    import jax2onnx  # noqa: F401
    import onnxruntime  # noqa: F401
  except ImportError as error:
    raise ConfigError(
      f"--formats=onnx needs the extra `onnx` ({error.name} is missing): pip install '.[onnx]', or "
      'leave the format out'
    ) from None


def write(graph, source, folder: Path) -> list[dict]:
  """`STEM.onnx`; arguments and result as in `stablehlo.write`."""
  del source
  import jax2onnx

  B = 'B' if graph.present else 1
  inputs = [_Input(tuple(one['shape']), np.dtype(one['dtype'])) for one in graph.inputs(B)]
  with warnings.catch_warnings():
    # It asks for float64 here and there and takes float32, as it is told to.
    warnings.simplefilter('ignore')
    model = jax2onnx.to_onnx(
      graph.function,
      inputs,
      model_name='flexfas_jax',
      input_names=graph.names,
      output_names=['logit'],
    )
  file = f'{graph.stem}.onnx'
  (folder / file).write_bytes(model.SerializeToString())
  return [graph.about('onnx', file, B=B) | {'opset': model.opset_import[0].version}]
