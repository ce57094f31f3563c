"""TFLite by litert-converter (extra `tflite`), batch 1: weights in float32, float16 and int8.

The converter's entry points are private: which versions are known to work, pyproject.toml says.
"""

from pathlib import Path

import jax

from flexfas_jax.errors import ConfigError
from flexfas_jax.export import smaller

SUBSETS = True


def check() -> None:
  """Raises a ConfigError where the extra is missing."""
  try:
    import ai_edge_litert.interpreter  # noqa: F401
    import litert_converter  # noqa: F401
  except ImportError as error:
    raise ConfigError(
      f'--formats=tflite needs the extra `tflite` ({error.name} is missing): pip install '
      "'flexfas_jax[tflite]', or leave the format out"
    ) from None


def write(graph, source, folder: Path) -> list[dict]:
  """`STEM_PRECISION.tflite`; arguments and result as in `stablehlo.write`."""
  del source
  exported = jax.export.export(jax.jit(graph.function), platforms=('cpu',))(*graph.shapes(1))
  model = _converted(exported.mlir_module_serialized, graph.names)
  entries = []
  for precision in smaller.PRECISIONS:
    file = f'{graph.stem}_{precision}.tflite'
    (folder / file).write_bytes(smaller.with_weights_of(model, precision))
    entries.append(graph.about('tflite', file, precision, B=1))
  return entries


def _converted(program: bytes, names: list[str]) -> bytes:
  """The flatbuffer of a portable StableHLO program with these inputs."""
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
