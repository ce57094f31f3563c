"""Runs `model.stablehlo` by jax."""


def load(path, model_of_card):
  """`run(images, present) -> logit [B] float32`, see `formats.Run`."""
  import jax
  import jax.export
  import numpy as np

  exported = jax.export.deserialize(bytearray(path.read_bytes()))
  call = jax.jit(exported.call)
  names = model_of_card['modalities']

  def run(images, present):
    arguments = [np.asarray(images[m], np.float32) for m in names]
    if model_of_card['present']:
      arguments.append(np.asarray(present, bool))
    return np.asarray(call(*arguments))

  return run
