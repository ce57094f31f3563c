"""Runs a TFLite file by LiteRT (extra `tflite`)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flexfas_jax.errors import ConfigError
from flexfas_jax.prediction.runners import _inputs


def load(
  path: str | Path, entry: Mapping[str, Any], threads: int | None = None
) -> Callable[..., np.ndarray]:
  """`run({modality: [B, S, S, C] float32}, present [B, M] bool) -> logit [B] float32`.

  Args:
    path: the file.
    entry: of the card's `models`.
    threads: of the CPU; None: as many as LiteRT takes.

  Raises:
    ConfigError: LiteRT is not installed.
  """
  try:
    from ai_edge_litert.interpreter import Interpreter
  except ImportError:
    raise ConfigError("a TFLite model needs the extra `tflite`: pip install '.[tflite]'") from None
  interpreter = Interpreter(model_path=str(path), num_threads=threads)
  call = interpreter.get_signature_runner()

  def run(images, present=None) -> np.ndarray:
    arrays = _inputs.feed(entry, images, present)
    return _inputs.run(lambda feed: call(**feed)['logit'], entry, arrays)

  return run
