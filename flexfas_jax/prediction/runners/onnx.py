"""Runs an ONNX file with onnxruntime (extra `onnx`)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from flexfas_jax.errors import ConfigError
from flexfas_jax.prediction import runner_inputs
from flexfas_jax.prediction.runners import _onnx_tensors

_LOG_ERRORS = 3  # a level of onnxruntime, which otherwise warns of every constant that it folds


def load(
  content: bytes, entry: Mapping[str, Any], threads: int | None = None
) -> Callable[..., np.ndarray]:
  """`run({modality: [B, S, S, C] float32}, present [B, M] bool) -> logit [B] float32`.

  Args:
    content: bytes of the file, already verified; no file is opened here.
    entry: of the card's `models`.
    threads: number of CPU threads; None: the default of onnxruntime.

  Raises:
    ConfigError: onnxruntime is not installed.
    ValueError: not an ONNX file, or one with tensors in other files.
  """
  try:
    import onnxruntime
  except ImportError:
    raise ConfigError(
      "an ONNX model requires the `onnx` extra: pip install 'flexfas_jax[onnx]'"
    ) from None
  options = onnxruntime.SessionOptions()
  options.log_severity_level = _LOG_ERRORS
  if threads:
    options.intra_op_num_threads = threads
  _onnx_tensors.refuse_external(content)
  session = onnxruntime.InferenceSession(content, options, ['CPUExecutionProvider'])

  def run(images, present=None) -> np.ndarray:
    arrays = runner_inputs.model_inputs(entry, images, present)
    return runner_inputs.run_batch(lambda inputs: session.run(['logit'], inputs)[0], entry, arrays)

  return run
