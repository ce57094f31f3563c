"""The outputs that exported files are compared with: the checkpoint's, in float32, by jax."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

BATCH = 32  # samples per batch in every comparison, so that each program compiles once


def build(model, variables) -> Callable[..., np.ndarray]:
  """`compute_logits(images, present, subsets) -> [S, B]`; encodes each modality once if it can.

  Args:
    model, variables: of a `TrainedModel`.

  Returns:
    A function of {modality: [B, S, S, C] float32}, present [B, M] bool, and subsets of the
    modalities. For each subset, all other modalities count as absent.
  """

  @jax.jit
  def encode(variables, images, present):
    with jax.default_matmul_precision('float32'):
      return model.encode_all(variables, images, present)

  @jax.jit
  def decide(variables, maps, absent, present):
    with jax.default_matmul_precision('float32'):
      return model.decide(variables, maps, absent, present)['logit']

  with jax.default_matmul_precision('float32'):
    absent = jax.jit(model.absent_maps)(variables)  # they depend on the weights alone

  def compute_logits(images, present, subsets: Sequence[Sequence[str]]) -> np.ndarray:
    images = {m: images[m] for m in model.modalities}
    masks = [np.array([m in subset for m in model.modalities]) for subset in subsets]
    logits = []
    maps = None
    for mask in masks:
      if maps is None or model.cross_modal:
        maps = encode(variables, images, present & mask)
      logits.append(decide(variables, maps, absent, present & mask))
    return np.stack([np.asarray(x) for x in logits])

  return compute_logits


def can_serve(model, present: np.ndarray) -> np.ndarray:
  """[B] bool: the samples that have the modalities which the fusion requires, and at least one."""
  required = np.array([m in model.requires for m in model.modalities])
  return present.any(1) & (present | ~required).all(1)
