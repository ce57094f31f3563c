"""ONNX by jax2onnx (extra `onnx`): any batch with `present`, batch 1 for a fixed subset.

`inference/simplify.py` leaves few and large operations, most of them single ONNX operators, and
convolutions in ONNX's order of axes. A second file of each graph computes in int8.
"""

import warnings
from pathlib import Path

import jax
import jax.extend

from flexfas_jax.errors import ConfigError
from flexfas_jax.export import onnx_int8
from flexfas_jax.export.inference import onnx_lowering, simplify

FIXED_SUBSETS = True


_TOO_NEW = (0, 12)  # of JAX: jax2onnx 0.17.1 reads jax._src.core.ClosedJaxpr, which is gone there


def check() -> None:
  """Raises a ConfigError if the extra is missing, or JAX is too new for it."""
  if jax.__version_info__[:2] >= _TOO_NEW:
    raise ConfigError(
      f'--formats=onnx: jax2onnx cannot convert graphs of JAX {jax.__version__}; '
      "pip install 'flexfas_jax[onnx]' installs JAX 0.11, which reads the same checkpoints; or "
      'leave the format out'
    )
  try:
    import jax2onnx  # noqa: F401
    import onnxruntime  # noqa: F401
  except ImportError as error:
    raise ConfigError(
      f'--formats=onnx requires the extra `onnx` ({error.name} is missing): '
      "pip install 'flexfas_jax[onnx]', or leave the format out"
    ) from None


def write(graph, trained, folder: Path, val=None) -> list[dict]:
  """Writes `STEM.onnx`, and `STEM_int8.onnx` if there is a val set to calibrate it.

  Arguments and result as in `stablehlo.write`.
  """
  import jax2onnx

  B = jax.export.symbolic_shape('B')[0] if graph.present else 1
  shapes = graph.shapes(B)
  onnx_lowering.register()
  # Primitives, not functions: jax2onnx's own versions of Flax and jax.numpy functions may give a
  # concatenation in float64.
  program = simplify.simplify(graph.function, shapes, channels_first=True)
  traced = jax.extend.core.jaxpr_as_fun(program)
  # jax2onnx itself promotes ranks, and requests float64 where it gets float32.
  with jax.numpy_rank_promotion('allow'), warnings.catch_warnings():
    warnings.simplefilter('ignore')
    model = jax2onnx.to_onnx(
      lambda *arrays: traced(*arrays)[0],
      shapes,
      model_name='flexfas_jax',
      input_names=graph.names,
      output_names=['logit'],
    )
  _share_constants(model.graph)
  B = 'B' if graph.present else 1
  entry = graph.card_entry('onnx', f'{graph.stem}.onnx', B=B)
  entries = [entry | {'opset': model.opset_import[0].version}]
  (folder / entry['file']).write_bytes(model.SerializeToString())
  if val is not None:
    samples = onnx_int8.calibration(graph, val, trained.preprocess)
    small = graph.card_entry('onnx', f'{graph.stem}_int8.onnx', 'int8', B=B)
    (folder / small['file']).write_bytes(onnx_int8.quantize(model, samples))
    entries.append(small | {'opset': model.opset_import[0].version})
  return entries


def _share_constants(graph) -> None:
  """Merges equal constants, so that streams share weights in the file too."""
  first, replacements, unique = {}, {}, []
  for constant in graph.initializer:
    key = constant.data_type, tuple(constant.dims), constant.raw_data
    if constant.raw_data and key in first:
      replacements[constant.name] = first[key]
    else:
      first[key] = constant.name
      unique.append(constant)
  del graph.initializer[:]
  graph.initializer.extend(unique)
  for node in graph.node:
    node.input[:] = [replacements.get(name, name) for name in node.input]
