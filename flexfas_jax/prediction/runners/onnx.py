"""Runs an ONNX file by onnxruntime (extra `onnx`)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flexfas_jax.errors import ConfigError
from flexfas_jax.prediction.runners import _inputs

_ERRORS = 3  # onnxruntime's level: it warns of every constant that it folds


def load(
  path: str | Path, entry: Mapping[str, Any], threads: int | None = None
) -> Callable[..., np.ndarray]:
  """`run({modality: [B, S, S, C] float32}, present [B, M] bool) -> logit [B] float32`.

  Args:
    path: the file.
    entry: of the card's `models`.
    threads: of the CPU; None: as many as onnxruntime takes.

  Raises:
    ConfigError: onnxruntime is not installed.
  """
  try:
    import onnxruntime
  except ImportError:
    raise ConfigError("an ONNX model needs the extra `onnx`: pip install '.[onnx]'") from None
  options = onnxruntime.SessionOptions()
  options.log_severity_level = _ERRORS
  if threads:
    options.intra_op_num_threads = threads
  session = onnxruntime.InferenceSession(str(path), options, ['CPUExecutionProvider'])

  def run(images, present=None) -> np.ndarray:
    arrays = _inputs.feed(entry, images, present)
    return _inputs.run(lambda feed: session.run(['logit'], feed)[0], entry, arrays)

  return run
