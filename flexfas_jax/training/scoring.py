"""Scores of every sample under every subset of modalities, each stream encoded once.

The four sub-protocols cost one pass per modality, not one per protocol and modality; what stands
for an absent modality is computed once per set of weights. The only file here that knows jax.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from flexfas_jax.evaluation.score_files import Scores
from flexfas_jax.schema import METADATA, subset_name


def score_step(variables, absent, batch: Mapping[str, jax.Array], *, model, subsets):
  """Logits of a batch under every subset.

  Args:
    variables: the model's.
    absent: `model.absent_maps(variables)`.
    batch: images [B, H, W, C], or [B, V, H, W, C] of V views, and 'present' [B, M] bool.
    model: a `flexmodal.Model`.
    subsets: of `model.modalities`.

  Returns:
    Logits [S, B V] float32, a sample's views one after the other, and [S, B V] bool: whether there
    is anything to score. There is not where a sample has nothing of the subset, or lacks what the
    fusion needs: a failure to acquire.
  """
  used = [m for m in model.modalities if any(m in s for s in subsets)]
  images = {m: batch[m].reshape(-1, *batch[m].shape[-3:]) for m in used}  # [B V, H, W, C]
  maps = {m: model.encode(variables, images[m], m) for m in used}
  B = batch['present'].shape[0]
  of_views = jnp.repeat(batch['present'], images[used[0]].shape[0] // B, 0)  # [B V, M]
  logits, servable = [], []
  for subset in subsets:
    of_subset = jnp.array([m in subset for m in model.modalities])[None]  # [1, M]
    present = of_views & of_subset
    own = {m: maps[m] for m in used if m in subset}
    logits.append(model.decide(variables, own, absent, of_views)['logit'])
    needed = jnp.array([m in model.requires for m in model.modalities])[None]
    servable.append(present.any(1) & (present | ~needed).all(1))
  return jnp.stack(logits), jnp.stack(servable)


def output_step(variables, absent, batch: Mapping[str, jax.Array], *, model, output: str):
  """What a head says of a batch under all its modalities; NaN where there is nothing to look at.

  Args:
    variables, absent, batch, model: as in `score_step`.
    output: of the head, e.g. 'embedding'.

  Returns:
    [B, D] float32.
  """
  maps = {m: model.encode(variables, batch[m], m) for m in model.modalities}
  found = model.decide(variables, maps, absent, batch['present'])[output]
  needed = jnp.array([m in model.requires for m in model.modalities])[None]
  servable = batch['present'].any(1) & (batch['present'] | ~needed).all(1)
  return jnp.where(servable[:, None], found, jnp.nan)


def make_output_reader(model, output: str, place: Callable, out_sharding=None) -> Callable:
  """A function that gives a head's output for data sets, with any weights; compiled once.

  Args:
    model, place, out_sharding: as in `make_scorer`.
    output: of the head, [B, D]: 'embedding' or 'cosine'.

  Returns:
    `read(variables, batches, progress=None) -> [N, D] float32`, its arguments as in `make_scorer`.
  """
  step = jax.jit(
    functools.partial(output_step, model=model, output=output), out_shardings=out_sharding
  )
  absent_maps = jax.jit(model.absent_maps)

  def read(variables, batches, progress: Callable[[int], None] | None = None) -> np.ndarray:
    absent, fetched, done = absent_maps(variables), [], 0
    for arrays, meta in batches:
      images = {k: arrays[k] for k in (*model.modalities, 'present')}
      fetched.append(np.asarray(step(variables, absent, place(images)))[: len(meta)])
      done += len(meta)
      if progress:
        progress(done)
    return np.concatenate(fetched)

  return read


def make_scorer(
  model,
  subsets: Sequence[Sequence[str]],
  place: Callable,
  out_sharding=None,
  views: Sequence[str] = (),
) -> Callable[..., Scores]:
  """A function that scores data sets with any weights, compiled once per batch size.

  Args:
    model: a `flexmodal.Model`.
    subsets: of its modalities, each one it serves.
    place: puts a batch of NumPy arrays on the devices.
    out_sharding: of what the devices answer; of several processes each needs all of it.
    views: the names of V views, for batches that have several.

  Returns:
    `score(variables, batches, header={}, progress=None) -> Scores`, where `batches` yields
    (padded arrays, what is known of the real samples) as `pipeline.eval_batches` does, and
    `progress` is called with the number of samples done. Its columns are called SUBSET, or of
    several views SUBSET@VIEW.
  """
  subsets = tuple(map(tuple, subsets))
  step = jax.jit(
    functools.partial(score_step, model=model, subsets=subsets), out_shardings=out_sharding
  )
  absent_maps = jax.jit(model.absent_maps)

  def score(
    variables,
    batches: Iterable[tuple[dict, list[dict]]],
    header: Mapping | None = None,
    progress: Callable[[int], None] | None = None,
  ) -> Scores:
    run = functools.partial(step, variables, absent_maps(variables))
    outputs, known = _run(run, model, place, batches, progress)
    return _as_scores(*outputs, known, subsets, views, header)

  return score


def make_stacked_scorer(
  model,
  subsets: Sequence[Sequence[str]],
  place: Callable,
  out_sharding=None,
  views: Sequence[str] = (),
) -> Callable[..., list[Scores]]:
  """The same for K sets of weights of one model, as one program: pictures are decoded once.

  Args:
    model, subsets, place, out_sharding, views: as in `make_scorer`.

  Returns:
    `score(variables, batches, headers, progress=None) -> [Scores]`, where every leaf of `variables`
    has K in front, and there are K headers.
  """
  subsets = tuple(map(tuple, subsets))
  one = functools.partial(score_step, model=model, subsets=subsets)
  # XLA turns a convolution with weights of their own for each member into a grouped one, which an
  # accelerator is made for, and a CPU takes many times as long for as for one after the other.
  each = _one_by_one if jax.default_backend() == 'cpu' else jax.vmap
  step = jax.jit(
    lambda variables, absent, batch: each(lambda v: one(*v, batch))((variables, absent)),
    out_shardings=out_sharding,
  )
  absent_maps = jax.jit(jax.vmap(model.absent_maps))

  def score(
    variables,
    batches: Iterable[tuple[dict, list[dict]]],
    headers: Sequence[Mapping],
    progress: Callable[[int], None] | None = None,
  ) -> list[Scores]:
    run = functools.partial(step, variables, absent_maps(variables))
    outputs, known = _run(run, model, place, batches, progress)  # [K, S, N V]
    return [
      _as_scores(*of_member, known, subsets, views, header)
      for *of_member, header in zip(*outputs, headers, strict=True)
    ]

  return score


def _one_by_one(function: Callable) -> Callable:
  return lambda stacked: jax.lax.map(function, stacked)


def _run(step: Callable, model, place: Callable, batches, progress):
  """([logits, servable], each [..., N V], what is known of N samples) of a step's batches."""
  fetched, known, waiting = [], [], None
  for arrays, meta in batches:
    images = {k: arrays[k] for k in (*model.modalities, 'present')}
    shape = images[model.modalities[0]].shape
    views = shape[1] if len(shape) == 5 else 1
    running = step(place(images)), len(meta) * views
    known += meta
    if waiting:  # the device works on this batch while the previous one is fetched
      fetched.append(_fetch(*waiting))
    waiting = running
    if progress:
      progress(len(known))
  fetched.append(_fetch(*waiting))
  return [np.concatenate(x, -1) for x in zip(*fetched, strict=True)], known


def _fetch(running, real: int) -> list[np.ndarray]:
  return [x[..., :real] for x in jax.device_get(running)]  # padding never becomes a score


def _as_scores(logits, servable, known: list[dict], subsets, views, header) -> Scores:
  """Of logits and servable, [S, N V]."""
  V = logits.shape[-1] // len(known)
  names = [subset_name(subset) for subset in subsets]
  if V > 1:
    names = [f'{name}@{view}' for name in names for view in views]
  # Rows are columns of the file: [S, N, V] -> [S V, N].
  logits, servable = (
    x.reshape(-1, len(known), V).swapaxes(1, 2).reshape(-1, len(known)) for x in (logits, servable)
  )
  # In float64: a float32 sigmoid is 1 from a logit of 17 on, and ties would hide who is surer.
  finite = np.isfinite(logits)  # infinity is as wrong as NaN, and would be sure of itself
  scores = np.where(servable & finite, scipy.special.expit(logits.astype(np.float64)), np.nan)
  faults = [np.flatnonzero(~row & ok) for row, ok in zip(finite, servable, strict=True)]
  return Scores(
    ids=np.array([m['id'] for m in known]),
    label=np.array([m['label'] for m in known]),
    scores=dict(zip(names, scores, strict=True)),
    header=dict(header or {}),
    nan_samples={name: at for name, at in zip(names, faults, strict=True) if at.size},
    **{name: np.array([m.get(name, '') for m in known]) for name in METADATA},
  )
