"""A small convolutional network on the images of some sensors, stacked as channels."""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.probes.classifiers import Fit, errors
from flexfas_jax.models.heads import BinaryLogit
from flexfas_jax.models.layers import Conv, Norm

BATCH, STEPS, CHECKS, PEAK = 64, 400, 4, 3e-3  # checks: on val, evenly spaced
_AT_ONCE = 256  # images that are scored together


class SmallCnn(nn.Module):
  """Three convolutions of stride 2 with batch norm, and a logit of their mean."""

  widths: Sequence[int] = (16, 32, 64)

  @nn.compact
  def __call__(self, x, train: bool):
    """[B, S, S, C] -> logits [B]."""
    for i, width in enumerate(self.widths):
      x = Conv(width, stride=2, name=f'conv{i}')(x)
      x = nn.relu(Norm(name=f'norm{i}')(x, train))
    return BinaryLogit(name='head')(x)['logit']


def fit(
  pixels: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], seed: int, steps: int = STEPS
) -> Fit:
  """Trains on 'train' with random flips and keeps the weights that are best on 'val'.

  Args:
    pixels: {'train', 'val' or a test: [N, S, S, C] uint8}.
    labels: {'train', 'val': [N]}, 1 = bona fide.
    seed: of weights, order and flips.
    steps: a multiple of `CHECKS`.
  """
  model, label = SmallCnn(), labels['train']
  optimizer = optax.adamw(optax.cosine_decay_schedule(PEAK, steps), weight_decay=1e-2)
  variables = model.init(jax.random.key(seed), _to_input(pixels['train'][:1]), train=False)
  params, stats = variables['params'], variables['batch_stats']
  state = optimizer.init(params)
  share = np.maximum(np.bincount(label, minlength=2) / label.size, 1e-6)
  weight = (0.5 / share)[label].astype(np.float32)  # both classes weigh alike

  @jax.jit
  def step(params, stats, state, x, y, w):
    def loss(params):
      logit, changed = model.apply(
        {'params': params, 'batch_stats': stats}, x, train=True, mutable=['batch_stats']
      )
      return (w * optax.sigmoid_binary_cross_entropy(logit, y)).mean(), changed['batch_stats']

    gradient, stats = jax.grad(loss, has_aux=True)(params)
    update, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, update), stats, state

  @jax.jit
  def score(params, stats, x):
    return model.apply({'params': params, 'batch_stats': stats}, x, train=False)

  def score_all(params, stats, images):
    parts = []
    for start in range(0, len(images), _AT_ONCE):
      part = images[start : start + _AT_ONCE]
      full = np.zeros((_AT_ONCE, *part.shape[1:]), np.uint8)  # one shape, one compilation
      full[: len(part)] = part
      parts.append(np.asarray(score(params, stats, _to_input(full)))[: len(part)])
    return np.concatenate(parts).astype(np.float64)

  rng, best = np.random.default_rng(seed), None
  for i in range(1, steps + 1):
    rows = rng.integers(0, label.size, BATCH)
    x = pixels['train'][rows]
    flip = rng.uniform(size=BATCH) < 0.5
    x = np.where(flip[:, None, None, None], x[:, :, ::-1], x)
    y = jnp.asarray(label[rows], jnp.float32)
    params, stats, state = step(params, stats, state, _to_input(x), y, weight[rows])
    if i % (steps // CHECKS) == 0:
      key = errors(labels['val'], score_all(params, stats, pixels['val']))
      if best is None or key < best[0]:
        best = key, i, params, stats
  _, i, params, stats = best
  logits = {name: score_all(params, stats, x) for name, x in pixels.items() if name != 'train'}
  return Fit(f'step {i}', CHECKS, logits)


def _to_input(pixels: np.ndarray) -> jax.Array:
  return (jnp.asarray(pixels, jnp.float32) - 127.5) / 128
