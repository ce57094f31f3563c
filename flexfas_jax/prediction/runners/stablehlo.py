"""Runs `model.stablehlo`, a program of jax.export, on the default device of JAX."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from flexfas_jax.prediction import runner_inputs


def load(content: bytes, entry: Mapping[str, Any]) -> Callable[..., np.ndarray]:
  """`run({modality: [B, S, S, C] float32}, present [B, M] bool) -> logit [B] float32`.

  Args:
    content: bytes of the file, already verified; no file is opened here.
    entry: of the card's `models`.
  """
  import jax

  exported = jax.export.deserialize(bytearray(content))
  call = jax.jit(exported.call)  # compiled once per batch size

  def run(images, present=None) -> np.ndarray:
    return np.asarray(call(*runner_inputs.model_inputs(entry, images, present).values()))

  return run
