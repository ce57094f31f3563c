"""What an export is compared with: the checkpoint's own answers, in float32, by jax."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

BATCH = 32  # of all that is compared: one program for each file and one for the reference


def make(model, variables) -> Callable[..., np.ndarray]:
  """`answer(images, present, subsets) -> logits [S, B]`, each stream encoded once.

  Args:
    model, variables: of `source.Source`.

  Returns:
    A function of {modality: [B, S, S, C] float32}, present [B, M] bool and subsets of the
    modalities, of which those that are not named are absent.
  """

  @jax.jit
  def encode(variables, images):
    with jax.default_matmul_precision('float32'):
      return {m: model.encode(variables, x, m) for m, x in images.items()}

  @jax.jit
  def decide(variables, maps, absent, present):
    with jax.default_matmul_precision('float32'):
      return model.decide(variables, maps, absent, present)['logit']

  with jax.default_matmul_precision('float32'):
    absent = jax.jit(model.absent_maps)(variables)  # by the weights alone: once

  def answer(images, present, subsets: Sequence[Sequence[str]]) -> np.ndarray:
    maps = encode(variables, {m: images[m] for m in model.modalities})
    columns = [np.array([m in subset for m in model.modalities]) for subset in subsets]
    return np.stack([np.asarray(decide(variables, maps, absent, present & of)) for of in columns])

  return answer


def servable(model, present: np.ndarray) -> np.ndarray:
  """[B] bool: of which samples there is enough for the fusion."""
  needed = np.array([m in model.requires for m in model.modalities])
  return present.any(1) & (present | ~needed).all(1)
