"""Runs an ONNX file by onnxruntime (extra `onnx`)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from flexfas_jax.errors import ConfigError
from flexfas_jax.prediction import runner_inputs
from flexfas_jax.prediction.runners import _onnx_tensors

_ERRORS = 3  # onnxruntime's level: it warns of every constant that it folds


def load(
  content: bytes, entry: Mapping[str, Any], threads: int | None = None
) -> Callable[..., np.ndarray]:
  """`run({modality: [B, S, S, C] float32}, present [B, M] bool) -> logit [B] float32`.

  Args:
    content: the file's bytes, already verified: no file is opened here.
    entry: of the card's `models`.
    threads: of the CPU; None: as many as onnxruntime takes.

  Raises:
    ConfigError: onnxruntime is not installed.
    ValueError: it is no ONNX file, or has tensors in other files.
  """
  try:
    import onnxruntime
  except ImportError:
    raise ConfigError(
      "an ONNX model needs the extra `onnx`: pip install 'flexfas_jax[onnx]'"
    ) from None
  options = onnxruntime.SessionOptions()
  options.log_severity_level = _ERRORS
  if threads:
    options.intra_op_num_threads = threads
  _onnx_tensors.refuse_external(content)
  session = onnxruntime.InferenceSession(content, options, ['CPUExecutionProvider'])

  def run(images, present=None) -> np.ndarray:
    arrays = runner_inputs.feed(entry, images, present)
    return runner_inputs.run(lambda feed: session.run(['logit'], feed)[0], entry, arrays)

  return run
