"""TFLite by litert-converter (extra `tflite`), batch 1: weights in float32, float16 and int8.

The converter's entry points are private; pyproject.toml pins the versions that work.
"""

from pathlib import Path

import jax

from flexfas_jax.errors import ConfigError
from flexfas_jax.export import quantization
from flexfas_jax.export.inference import flat, operators, simplify

FIXED_SUBSETS = True


def check() -> None:
  """Raises a ConfigError if the extra is missing."""
  try:
    import ai_edge_litert.interpreter  # noqa: F401
    import litert_converter  # noqa: F401
  except ImportError as error:
    raise ConfigError(
      f'--formats=tflite requires the extra `tflite` ({error.name} is missing): pip install '
      "'flexfas_jax[tflite]', or leave the format out"
    ) from None


def write(graph, trained, folder: Path, val=None) -> list[dict]:
  """Writes `STEM_PRECISION.tflite`; arguments and result as in `stablehlo.write`."""
  del trained, val
  program = simplify.simplify(graph.function, graph.shapes(1))

  def function(*arrays):
    return flat.evaluate(program, arrays, {'flexfas_gelu': _gelu})[0]

  exported = jax.export.export(jax.jit(function), platforms=('cpu',))(*graph.shapes(1))
  model = _convert(exported.mlir_module_serialized, graph.names)
  entries = []
  for precision in quantization.PRECISIONS:
    file = f'{graph.stem}_{precision}.tflite'
    (folder / file).write_bytes(quantization.quantize_weights(model, precision))
    entries.append(graph.card_entry('tflite', file, precision, B=1))
  return entries


def _gelu(x):
  """A GELU that the converter reads as one; it writes erf as forty operations."""
  composite = jax.lax.composite(lambda x, approximate: operators.gelu(x), 'aten.gelu.default')
  return composite(x, approximate='none')


def _convert(program: bytes, names: list[str]) -> bytes:
  """Converts a portable StableHLO program with these input names to a flatbuffer."""
  from litert_converter import converter_api_ext as converter
  from litert_converter.mlir import ir, passmanager
  from litert_converter.mlir.dialects import stablehlo

  context = ir.Context()
  converter.prepare_mlir_context(context)
  with context:
    module = stablehlo.deserialize_portable_artifact(context, program)
    converter.set_signature(module.operation, 'serving_default', names, ['logit'])
    config = converter.ConvertToTFLConfig()
    converter.run_convert_to_tfl_passes(module, passmanager.PassManager(), config)
    return converter.export_flatbuffer_to_bytes(module.operation)
