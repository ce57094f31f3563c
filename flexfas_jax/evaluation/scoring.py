"""Scores of every sample under every subset of modalities, each stream encoded once.

The four sub-protocols cost one pass per modality, not one per protocol and modality; what stands for
an absent modality is computed once per set of weights. The only file here that knows jax.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from flexfas_jax.evaluation.score_files import METADATA, Scores


def subset_name(subset: Sequence[str]) -> str:
  """('rgb', 'depth') -> 'rgb+depth', the column's name."""
  return '+'.join(subset)


def score_step(variables, absent, batch: Mapping[str, jax.Array], *, model, subsets) -> jax.Array:
  """Logits of a batch under every subset.

  Args:
    variables: the model's.
    absent: `model.absent_maps(variables)`.
    batch: images [B, H, W, C] and 'present' [B, M] bool.
    model: a `flexmodal.Model`.
    subsets: of `model.modalities`.

  Returns:
    [S, B] float32; NaN where a sample has nothing of the subset, or lacks what the fusion needs.
  """
  used = [m for m in model.modalities if any(m in s for s in subsets)]
  maps = {m: model.encode(variables, batch[m], m) for m in used}
  logits = []
  for subset in subsets:
    of_subset = jnp.array([m in subset for m in model.modalities])[None]  # [1, M]
    present = batch['present'] & of_subset
    own = {m: maps[m] for m in used if m in subset}
    logit = model.decide(variables, own, absent, present)['logit']
    needed = jnp.array([m in model.requires for m in model.modalities])[None]
    servable = present.any(1) & (present | ~needed).all(1)
    logits.append(jnp.where(servable, logit, jnp.nan))
  return jnp.stack(logits)


def make_scorer(model, subsets: Sequence[Sequence[str]], place: Callable) -> Callable[..., Scores]:
  """A function that scores data sets with any weights, compiled once per batch size.

  Args:
    model: a `flexmodal.Model`.
    subsets: of its modalities, each one it serves.
    place: puts a batch of NumPy arrays on the devices.

  Returns:
    `score(variables, batches, header={}, progress=None) -> Scores`, where `batches` yields
    (padded arrays, what is known of the real samples) as `pipeline.eval_batches` does, and
    `progress` is called with the number of samples done.
  """
  step = jax.jit(functools.partial(score_step, model=model, subsets=tuple(map(tuple, subsets))))
  absent_maps = jax.jit(model.absent_maps)

  def score(
    variables,
    batches: Iterable[tuple[dict, list[dict]]],
    header: Mapping | None = None,
    progress: Callable[[int], None] | None = None,
  ) -> Scores:
    absent = absent_maps(variables)
    logits, known, waiting = [], [], None
    for arrays, meta in batches:
      images = {k: v for k, v in arrays.items() if k != 'label'}
      running = step(variables, absent, place(images)), len(meta)
      known += meta
      if waiting:  # the device works on this batch while the previous one is fetched
        logits.append(_fetch(*waiting))
      waiting = running
      if progress:
        progress(len(known))
    logits.append(_fetch(*waiting))
    # In float64: a float32 sigmoid is 1 from a logit of 17 on, and ties would hide what is confident.
    scores = 1 / (1 + np.exp(-np.concatenate(logits, 1).astype(np.float64)))  # [S, N]
    return Scores(
      ids=np.array([m['id'] for m in known]),
      label=np.array([m['label'] for m in known]),
      scores={subset_name(s): row for s, row in zip(subsets, scores, strict=True)},
      header=dict(header or {}),
      **{name: np.array([m[name] for m in known]) for name in METADATA},
    )

  return score


def _fetch(logits: jax.Array, real: int) -> np.ndarray:
  return np.asarray(jax.device_get(logits))[:, :real]  # padding never becomes a score
