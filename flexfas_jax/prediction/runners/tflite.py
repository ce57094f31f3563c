"""Runs a TFLite file by LiteRT (extra `tflite`)."""

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

  Threads take turns: an interpreter has one set of tensors, and a second thread would overwrite the
  inputs of the first. One interpreter per thread would copy the weights for each of them.

  Args:
    content: the file's bytes, already verified: no file is opened here.
    entry: of the card's `models`.
    threads: of the CPU; None: as many as LiteRT takes.

  Raises:
    ConfigError: LiteRT is not installed.
  """
  try:
    from ai_edge_litert.interpreter import Interpreter
  except ImportError:
    raise ConfigError(
      "a TFLite model needs the extra `tflite`: pip install 'flexfas_jax[tflite]'"
    ) from None
  interpreter = Interpreter(model_content=content, num_threads=threads)
  call = interpreter.get_signature_runner()
  lock = threading.Lock()

  def infer(feed) -> np.ndarray:
    with lock:
      return np.array(call(**feed)['logit'])  # a copy: never the interpreter's memory

  def run(images, present=None) -> np.ndarray:
    arrays = runner_inputs.feed(entry, images, present)
    return runner_inputs.run(infer, entry, arrays)

  return run
