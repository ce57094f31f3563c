"""ONNX by jax2onnx (extra `onnx`): any batch with `present`, batch 1 for a fixed subset.

With a batch that is a number, what follows from the weights alone is computed ahead: a third of the
time of a small model.
"""

import warnings
from pathlib import Path

import jax
import jax.extend

from flexfas_jax.errors import ConfigError

SUBSETS = True


def check() -> None:
  """Raises a ConfigError where the extra is missing."""
  try:
    import jax2onnx  # noqa: F401
    import onnxruntime  # noqa: F401
  except ImportError as error:
    raise ConfigError(
      f'--formats=onnx needs the extra `onnx` ({error.name} is missing): '
      "pip install 'flexfas_jax[onnx]', or leave the format out"
    ) from None


def write(graph, source, folder: Path) -> list[dict]:
  """`STEM.onnx`; arguments and result as in `stablehlo.write`."""
  del source
  import jax2onnx

  B = jax.export.symbolic_shape('B')[0] if graph.present else 1
  shapes = graph.shapes(B)
  # As primitives of lax: jax2onnx has layers of its own for Flax's and jax.numpy's, and of these a
  # concatenation may come out as float64.
  traced = jax.extend.core.jaxpr_as_fun(jax.make_jaxpr(graph.function)(*shapes))
  # What it computes itself promotes ranks, and asks for float64 where it gets float32.
  with jax.numpy_rank_promotion('allow'), warnings.catch_warnings():
    warnings.simplefilter('ignore')
    model = jax2onnx.to_onnx(
      lambda *arrays: traced(*arrays)[0],
      shapes,
      model_name='flexfas_jax',
      input_names=graph.names,
      output_names=['logit'],
    )
  _share(model.graph)
  file = f'{graph.stem}.onnx'
  (folder / file).write_bytes(model.SerializeToString())
  about = graph.about('onnx', file, B='B' if graph.present else 1)
  return [about | {'opset': model.opset_import[0].version}]


def _share(graph) -> None:
  """Keeps one of equal constants: streams that share weights are to share them in the file too."""
  first, instead, kept = {}, {}, []
  for one in graph.initializer:
    key = one.data_type, tuple(one.dims), one.raw_data
    if one.raw_data and key in first:
      instead[one.name] = first[key]
    else:
      first[key] = one.name
      kept.append(one)
  del graph.initializer[:]
  graph.initializer.extend(kept)
  for node in graph.node:
    node.input[:] = [instead.get(name, name) for name in node.input]
