"""Scores every sample under every subset of the modalities; each modality is encoded once.

FlexModal's four sub-protocols cost one pass per modality, not one per protocol and modality. The
features of absent modalities are computed once per set of weights. A model whose adapters read
other modalities is encoded once per subset.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from flexfas_jax.evaluation.score_files import Scores
from flexfas_jax.schema import METADATA, subset_name
from flexfas_jax.training import distributed


def score_step(variables, absent, batch: Mapping[str, jax.Array], *, model, subsets):
  """Logits of a batch under every subset.

  Args:
    variables: of the model.
    absent: `model.absent_maps(variables)`.
    batch: images [B, H, W, C], or [B, V, H, W, C] of V views, and 'present' [B, M] bool.
    model: a `flexmodal.Model`.
    subsets: of `model.modalities`.

  Returns:
    Logits [S, B V] float32, a sample's views one after the other, and [S, B V] bool, whether the
    sample can be scored. It cannot if it has no modality of the subset, or lacks one that the
    fusion requires: a failure to acquire.
  """
  used = [m for m in model.modalities if any(m in s for s in subsets)]
  images = {m: batch[m].reshape(-1, *batch[m].shape[-3:]) for m in used}  # [B V, H, W, C]
  maps = {} if model.cross_modal else {m: model.encode(variables, images[m], m) for m in used}
  B = batch['present'].shape[0]
  view_present = jnp.repeat(batch['present'], images[used[0]].shape[0] // B, 0)  # [B V, M]
  logits, acquired = [], []
  for subset in subsets:
    in_subset = jnp.array([m in subset for m in model.modalities])[None]  # [1, M]
    present = view_present & in_subset
    if model.cross_modal:
      subset_images = {m: images[m] for m in used if m in subset}
      subset_maps = model.encode_together(variables, subset_images, view_present)
    else:
      subset_maps = {m: maps[m] for m in used if m in subset}
    logits.append(model.decide(variables, subset_maps, absent, view_present)['logit'])
    required = jnp.array([m in model.requires for m in model.modalities])[None]
    acquired.append(present.any(1) & (present | ~required).all(1))
  return jnp.stack(logits), jnp.stack(acquired)


def output_step(variables, absent, batch: Mapping[str, jax.Array], *, model, output: str):
  """An output of the head for a batch, with all modalities; NaN for a failure to acquire.

  Args:
    variables, absent, batch, model: as in `score_step`.
    output: of the head, e.g. 'embedding'.

  Returns:
    [B, D] float32.
  """
  maps = model.encode_all(variables, batch, batch['present'])
  values = model.decide(variables, maps, absent, batch['present'])[output]
  required = jnp.array([m in model.requires for m in model.modalities])[None]
  acquired = batch['present'].any(1) & (batch['present'] | ~required).all(1)
  return jnp.where(acquired[:, None], values, jnp.nan)


def make_output_scorer(model, output: str, place: Callable, out_sharding=None) -> Callable:
  """A function that computes an output of the head for data sets; compiled once.

  Args:
    model, place, out_sharding: as in `make_scorer`.
    output: of the head, [B, D]: 'embedding' or 'cosine'.

  Returns:
    `score(variables, batches, progress=None) -> [N, D] float32`; arguments as in `make_scorer`.
  """
  step = jax.jit(
    functools.partial(output_step, model=model, output=output), out_shardings=out_sharding
  )
  absent_maps = jax.jit(model.absent_maps)

  def score(variables, batches, progress: Callable[[int], None] | None = None) -> np.ndarray:
    absent, fetched, done = absent_maps(variables), [], 0
    for arrays, meta in batches:
      images = place({k: arrays[k] for k in (*model.modalities, 'present')})
      if not fetched:
        distributed.compile_everywhere(step, variables, absent, images)
      fetched.append(np.asarray(step(variables, absent, images))[: len(meta)])
      done += len(meta)
      if progress:
        progress(done)
    return np.concatenate(fetched)

  return score


def make_scorer(
  model,
  subsets: Sequence[Sequence[str]],
  place: Callable,
  out_sharding=None,
  views: Sequence[str] = (),
) -> Callable[..., Scores]:
  """A function that scores data sets; compiled once per batch size, for any weights.

  Args:
    model: a `flexmodal.Model`.
    subsets: of its modalities; the model must serve each.
    place: puts a batch of NumPy arrays on the devices.
    out_sharding: of the results; every process needs all of them.
    views: the names of V views, if the batches have several.

  Returns:
    `score(variables, batches, header={}, progress=None) -> Scores`, where `batches` yields
    (padded arrays, metadata of the real samples) as `pipeline.eval_batches` does, and `progress` is
    called with the number of finished samples. Columns are SUBSET, or SUBSET@VIEW for several
    views.
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
    outputs, metadata = _run(run, model, place, batches, progress)
    return _as_scores(*outputs, metadata, subsets, views, header)

  return score


def make_stacked_scorer(
  model,
  subsets: Sequence[Sequence[str]],
  place: Callable,
  out_sharding=None,
  views: Sequence[str] = (),
) -> Callable[..., list[Scores]]:
  """Like `make_scorer`, for K sets of weights of one model; each image is decoded once.

  Args:
    model, subsets, place, out_sharding, views: as in `make_scorer`.

  Returns:
    `score(variables, batches, headers, progress=None) -> [Scores]`, where every leaf of `variables`
    has a leading axis K, and there are K headers.
  """
  subsets = tuple(map(tuple, subsets))
  score_member = functools.partial(score_step, model=model, subsets=subsets)

  @functools.partial(jax.jit, out_shardings=out_sharding)
  def step(variables, absent, batch):
    return _map_members(lambda member: score_member(*member, batch), (variables, absent))

  absent_maps = jax.jit(jax.vmap(model.absent_maps))

  def score(
    variables,
    batches: Iterable[tuple[dict, list[dict]]],
    headers: Sequence[Mapping],
    progress: Callable[[int], None] | None = None,
  ) -> list[Scores]:
    run = functools.partial(step, variables, absent_maps(variables))
    outputs, metadata = _run(run, model, place, batches, progress)  # [K, S, N V]
    return [
      _as_scores(*member, metadata, subsets, views, header)
      for *member, header in zip(*outputs, headers, strict=True)
    ]

  return score


def _map_members(function: Callable, stacked):
  """Applies a function to each member of a stacked pytree.

  `vmap` turns the convolutions into grouped ones. Accelerators run these fast; a CPU is many times
  faster with one member after the other.
  """
  if jax.default_backend() == 'cpu':
    return jax.lax.map(function, stacked)
  return jax.vmap(function)(stacked)


def _run(step: functools.partial, model, place: Callable, batches, progress):
  """Runs a step on all batches: ([logits, acquired], each [..., N V]; metadata of N samples)."""
  fetched, metadata, pending = [], [], None
  for arrays, meta in batches:
    images = {k: arrays[k] for k in (*model.modalities, 'present')}
    shape = images[model.modalities[0]].shape
    views = shape[1] if len(shape) == 5 else 1
    placed = place(images)
    if not metadata:
      distributed.compile_everywhere(step.func, *step.args, placed)
    running = step(placed), len(meta) * views
    metadata += meta
    if pending:  # the device computes this batch while the previous one is fetched
      fetched.append(_fetch(*pending))
    pending = running
    if progress:
      progress(len(metadata))
  fetched.append(_fetch(*pending))
  return [np.concatenate(x, -1) for x in zip(*fetched, strict=True)], metadata


def _fetch(running, n: int) -> list[np.ndarray]:
  return [x[..., :n] for x in jax.device_get(running)]  # padding never becomes a score


def _as_scores(logits, acquired, metadata: list[dict], subsets, views, header) -> Scores:
  """Scores from logits and acquired, [S, N V]."""
  N = len(metadata)
  V = logits.shape[-1] // N
  names = [subset_name(subset) for subset in subsets]
  if V > 1:
    names = [f'{name}@{view}' for name in names for view in views]
  # A row for each column of the file: [S, N, V] -> [S V, N].
  logits, acquired = (x.reshape(-1, N, V).swapaxes(1, 2).reshape(-1, N) for x in (logits, acquired))
  # In float64: a float32 sigmoid is 1 from a logit of 17 on, and the ties would lose the order.
  finite = np.isfinite(logits)  # infinity is as wrong as NaN
  scores = np.where(acquired & finite, scipy.special.expit(logits.astype(np.float64)), np.nan)
  faults = [np.flatnonzero(~row & ok) for row, ok in zip(finite, acquired, strict=True)]
  return Scores(
    ids=np.array([m['id'] for m in metadata]),
    label=np.array([m['label'] for m in metadata]),
    scores=dict(zip(names, scores, strict=True)),
    header=dict(header or {}),
    nan_samples={name: at for name, at in zip(names, faults, strict=True) if at.size},
    **{name: np.array([m.get(name, '') for m in metadata]) for name in METADATA},
  )
