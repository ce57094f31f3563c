"""Errors of masked reconstruction, by source and target modality.

B batch, M modalities, N patches; a source is the modality that the encoder sees, see
`models/masked_autoencoder.py`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flexfas_jax.models import masked_autoencoder
from flexfas_jax.training import distributed


def target_errors(error: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Mean error of each target modality over the patches that count.

  Args:
    error: of each patch, [B, M, N].
    weight: [B, M, N], 1 for the patches that count and 0 for others.

  Returns:
    [B, M], 0 where no patch counts, and [B, M] bool, whether one does: the modality is there.
  """
  counts = weight > 0
  total = jnp.where(counts, error, 0.0).sum(2)
  return total / jnp.maximum(counts.sum(2), 1), counts.any(2)


def make_scorer(
  model: masked_autoencoder.MaskedModel,
  place: Callable,
  batch_size: int,
  rows: Sequence[int],
  out_sharding=None,
) -> Callable:
  """A function that computes the errors of data sets with every source; compiled once.

  Args:
    model: whose errors these are.
    place: puts a batch of NumPy arrays on the devices.
    batch_size: of all processes together.
    rows: of the global batch that this process makes.
    out_sharding: of the results; every process needs all of them.

  Returns:
    `score(variables, batches, progress=None) -> [N, M, M] float32`, by source and target; NaN where
    one of the two is absent. `batches` are those of `pipeline.eval_batches`.
  """
  step = jax.jit(functools.partial(score_step, model=model), out_shardings=out_sharding)

  def score(variables, batches, progress: Callable[[int], None] | None = None) -> np.ndarray:
    fetched, done = [], 0
    for i, (arrays, meta) in enumerate(batches):
      images = {k: arrays[k] for k in (*model.modalities, 'present')}
      batch = place({**images, 'index': np.asarray(rows, np.int32) + i * batch_size})
      if not fetched:
        distributed.compile_everywhere(step, variables, batch)
      fetched.append(np.asarray(step(variables, batch))[: len(meta)])
      done += len(meta)
      if progress:
        progress(done)
    return np.concatenate(fetched)

  return score


def score_step(
  variables, batch: Mapping[str, jax.Array], *, model: masked_autoencoder.MaskedModel
) -> jax.Array:
  """Errors of a batch by source and target, [B, M, M]; NaN where one of the two is absent.

  A sample's mask depends on its number 'index' [B] alone, and is the same for all sources.
  """
  present, noise = batch['present'], _mask_noise(batch['index'], model.patches)
  errors = []
  for i in range(len(model.modalities)):
    source = jnp.full(present.shape[:1], i)
    outputs = model.reconstruct(variables, batch, source, noise)
    errors.append(target_errors(outputs['patch_error'], outputs['patch_weight'])[0])
  there = present[:, :, None] & present[:, None]  # [B, M, M]
  return jnp.where(there, jnp.stack(errors, 1), jnp.nan)


def _mask_noise(index: jax.Array, patches: int) -> jax.Array:
  """The noise of samples' masks in evaluation, [B, N], from their numbers in the data set [B]."""
  key = jax.random.key(0)
  return jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (patches,)))(index)


def examples_step(
  variables, batch: Mapping[str, jax.Array], *, model: masked_autoencoder.MaskedModel
) -> dict[str, Any]:
  """Images of reconstructions, to be drawn; the sources take turns.

  Args:
    variables, batch, model: as in `score_step`.

  Returns:
    {'source': [B] int, 'visible', 'rebuilt': {modality: [B, H, W, C]}}. Hidden patches are 0 in
    `visible`, as are modalities other than the source. A rebuilt patch has the mean and deviation
    of the real one, which the model does not predict; visible patches are the real ones.
  """
  present, grid = batch['present'], model.grid
  M = present.shape[1]
  turn = (jnp.arange(M)[None] - batch['index'][:, None]) % M  # 0: of the sample
  source = jnp.where(present, turn, M).argmin(1)
  outputs = model.reconstruct(variables, batch, source, _mask_noise(batch['index'], model.patches))
  visible, rebuilt = {}, {}
  for i, m in enumerate(model.modalities):
    patches = masked_autoencoder.to_patches(batch[m], grid)
    mean, deviation = masked_autoencoder.patch_statistics(patches)
    is_seen = (~outputs['hidden'] & (source == i)[:, None])[:, :, None]  # [B, N, 1]
    predicted = outputs['reconstruction'][m] * deviation + mean
    channels = batch[m].shape[-1]
    for images, values in (
      (visible, jnp.where(is_seen, patches, 0.0)),
      (rebuilt, jnp.where(is_seen, patches, predicted)),
    ):
      images[m] = masked_autoencoder.to_image(values, grid, channels)
  return {'source': source, 'visible': visible, 'rebuilt': rebuilt}
