"""Runs a TFLite file with LiteRT (extra `tflite`)."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from flexfas_jax.errors import ConfigError
from flexfas_jax.prediction import runner_inputs


def load(
  content: bytes, entry: Mapping[str, Any], threads: int | None = None
) -> Callable[..., np.ndarray]:
  """`run({modality: [B, S, S, C] float32}, present [B, M] bool) -> logit [B] float32`.

  Threads take turns: an interpreter has one set of input tensors. One interpreter per thread would
  copy the weights.

  Args:
    content: bytes of the file, already verified; no file is opened here.
    entry: of the card's `models`.
    threads: number of CPU threads; None: the default of LiteRT.

  Raises:
    ConfigError: LiteRT is not installed.
  """
  try:
    from ai_edge_litert.interpreter import Interpreter
  except ImportError:
    raise ConfigError(
      "a TFLite model requires the `tflite` extra: pip install 'flexfas_jax[tflite]'"
    ) from None
  interpreter = Interpreter(model_content=content, num_threads=threads)
  call = interpreter.get_signature_runner()
  lock = threading.Lock()

  def infer(inputs) -> np.ndarray:
    with lock:
      return np.array(call(**inputs)['logit'])  # a copy of the interpreter's memory

  def run(images, present=None) -> np.ndarray:
    arrays = runner_inputs.model_inputs(entry, images, present)
    return runner_inputs.run_batch(infer, entry, arrays)

  return run
