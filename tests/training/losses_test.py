"""Every loss by independent NumPy in float64, its gradient, and what extreme inputs do to it."""

import functools
import inspect
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from flexfas_jax import lookup
from flexfas_jax.errors import ConfigError
from flexfas_jax.training import losses

B, M, SIDE, N, D, DOMAINS = 5, 3, 5, 4, 6, 2
_RNG = np.random.default_rng(0)
OUTPUTS = {
  'logit': _RNG.normal(0, 2, B),
  'map': _RNG.uniform(0, 1, (B, SIDE, SIDE)),
  'map_logit': _RNG.normal(0, 2, (B, SIDE, SIDE)),
  'branch_logit': _RNG.normal(0, 1.5, (B, M)),
  'cosine': np.array(  # own: 0.9, 0.2, -0.3, -0.8, -0.95: all pieces of psi, and beyond pi - margin
    [
      [0.9, 0.1, -0.2, 0.3],
      [0.5, 0.2, 0.1, -0.6],
      [0.1, 0.4, -0.3, 0.6],
      [0.2, 0.7, 0.1, -0.8],
      [-0.95, 0.3, 0.2, 0.1],
    ]
  ),
  'norm': _RNG.uniform(1, 5, B),
  'feature': _RNG.normal(0, 1, (B, D)),
  'full_feature': _RNG.normal(0, 1, (B, D)),
  'modality_feature': _RNG.normal(0, 1, (B, M, D)),
  'prototype': _RNG.normal(0, 1, (M, 1 + DOMAINS, D)),
  'prototype_weight': np.array([[2.0, 1, 0.5], [1, 0, 1], [0, 0, 0]]),  # 0: no sample until now
  'modality_cosine': _RNG.uniform(-1, 1, (B, M, 1 + DOMAINS)),
  'domain_logit': _RNG.normal(0, 2, (B, DOMAINS)),
  'patch_error': _RNG.uniform(0, 2, (B, M, N)),
  'patch_weight': np.array(  # hidden patches of the source, others whole, or absent
    [
      [[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]],
      [[1, 1, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1]],
      [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]],
      [[0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]],
      [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
    ],
    float,
  ),
}
CONSTANT = ('full_feature', 'prototype', 'prototype_weight', 'patch_weight')  # without a gradient
OF_STATE = ('prototype', 'prototype_weight')  # not of samples
REQUIRED = {  # fields without a default
  'single_side_prototypes': {'domains': DOMAINS, 'period': 10},
  'mean_angle': {'domains': DOMAINS},
}
BATCH = {
  'label': np.array([1, 0, 1, 1, 0]),
  'map': _RNG.integers(0, 2, (B, SIDE, SIDE)).astype(float),
  'present': np.array([[1, 1, 0], [1, 1, 1], [0, 1, 0], [0, 1, 1], [1, 1, 1]], bool),
  'identity': np.array([0, 1, 2, 3, 0]),
  'domain': np.array([0, 0, 1, 1, 1]),
}


def right(logit, label):
  """Probability of the right class."""
  return 1 / (1 + math.exp(-logit if label else logit))


def entropies(logits, labels):
  return [-math.log(right(x, y)) for x, y in zip(logits, labels, strict=True)]


def focal(o, b):
  weight = [0.25 if y else 0.75 for y in b['label']]
  p = [right(x, y) for x, y in zip(o['logit'], b['label'], strict=True)]
  return [w * (1 - q) ** 1.5 * -math.log(q) for w, q in zip(weight, p, strict=True)]


def pixel_wise_entropy(o, b):
  pairs = zip(o['map_logit'], b['map'], strict=True)
  return [np.mean(entropies(x.ravel(), y.ravel())) for x, y in pairs]


def contrastive(o, b):
  """The eight kernels slid over both maps, one product at a time."""
  found = []
  for x, y in zip(o['map'], b['map'], strict=True):
    squares = []
    for place in (0, 1, 2, 3, 5, 6, 7, 8):
      kernel = np.zeros(9)
      kernel[place], kernel[4] = 1, -1
      kernel = kernel.reshape(3, 3)
      for i in range(SIDE - 2):
        for j in range(SIDE - 2):
          a, c = ((z[i : i + 3, j : j + 3] * kernel).sum() for z in (x, y))
          squares.append((a - c) ** 2)
    assert len(squares) == 8 * 3 * 3
    found.append(np.mean(squares))
  return found


def cross_modal(o, b, gamma=3.0, share=0.5):
  found = []
  for logit, branch, label, here in zip(
    o['logit'], o['branch_logit'], b['label'], b['present'], strict=True
  ):
    p = [right(x, label) for x in branch]
    total = (1 - share) * -math.log(right(logit, label))
    for m in np.flatnonzero(here):
      others = [n for n in np.flatnonzero(here) if n != m]
      w = [p[n] * 2 * p[m] * p[n] / (p[m] + p[n]) for n in others]
      factor = np.mean([(1 - x) ** gamma for x in w]) if others else 1.0
      total += share * factor * -math.log(p[m])
    found.append(total)
  return found


def margin_softmax(o, b, change, scale):
  """log sum exp minus the own logit, whose angle `change` turned into another cosine."""
  found = []
  for i, (cosine, own) in enumerate(zip(o['cosine'], b['identity'], strict=True)):
    cosine = cosine.copy()
    cosine[own] = change(math.acos(cosine[own]))
    logits = cosine * (o['norm'][i] if scale is None else scale)
    found.append(math.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[own])
  return found


def psi(theta, m=4):
  k = min(int(theta * m / math.pi), m - 1)
  return (-1) ** k * math.cos(m * theta) - 2 * k


def arc(theta, m=0.5):
  return math.cos(theta + m) if theta < math.pi - m else math.cos(theta) - m * math.sin(m)


def class_entropy(logits, of):
  """Of a sample and modality, over the classes of which there are logits: {class: logit}."""
  return math.log(sum(math.exp(x) for x in logits.values())) - logits[of]


def single_side(o, b):
  found = []
  for i, here in enumerate(b['present']):
    own, total = 0 if b['label'][i] else 1 + b['domain'][i], 0.0
    for m in np.flatnonzero(here):
      known = np.flatnonzero(o['prototype_weight'][m])
      differences = {k: o['modality_feature'][i, m] - o['prototype'][m, k] for k in known}
      if own in known:
        total += class_entropy({k: -math.hypot(*d) for k, d in differences.items()}, own)
    found.append(total)
  return found


def learned(o, b, scale):
  found = []
  for i, here in enumerate(b['present']):
    own = 0 if b['label'][i] else 1 + b['domain'][i]
    logits = [dict(enumerate(scale * o['modality_cosine'][i, m])) for m in np.flatnonzero(here)]
    found.append(sum(class_entropy(x, own) for x in logits))
  return found


def unit(x):
  return x / np.sqrt((x * x).sum())


def angles(o, b):
  total = 0.0
  for value, target in ((1, 1.0), (0, 0.85)):
    n = {}
    for m, d in itertools.product(range(M), range(DOMAINS)):
      chosen = [i for i in range(B) if b['label'][i] == value and b['domain'][i] == d]
      chosen = [unit(o['modality_feature'][i, m]) for i in chosen if b['present'][i, m]]
      if chosen:
        n[m, d] = unit(np.mean(chosen, 0))
    for m in range(M):
      if {(m, 0), (m, 1)} <= n.keys():
        total += (n[m, 0] @ n[m, 1] - target) ** 2
    for m, k in ((0, 1), (0, 2), (1, 2)):
      if {(m, 0), (m, 1), (k, 0), (k, 1)} <= n.keys():
        total += (n[m, 0] @ n[k, 0] - n[m, 1] @ n[k, 1]) ** 2
  return [total] * B


def masked(o, b):
  """The mean over the modalities that are there, of the mean over their patches that count."""
  values = []
  for error, weight in zip(o['patch_error'], o['patch_weight'], strict=True):
    means = [e[w > 0].mean() for e, w in zip(error, weight, strict=True) if w.any()]
    values.append(np.mean(means) if means else 0.0)
  return values


CASES = {  # loss: (outputs it reads, what it reads of the batch, fields, its values)
  'binary_cross_entropy': (
    ['logit'],
    ['label'],
    {},
    lambda o, b: entropies(o['logit'], b['label']),
  ),
  'focal': (['logit'], ['label'], {'gamma': 1.5, 'alpha': 0.25}, focal),
  'pixel_wise_binary_cross_entropy': (['map_logit'], ['map'], {}, pixel_wise_entropy),
  'pixel_wise_mse': (
    ['map'],
    ['map'],
    {},
    lambda o, b: [np.mean((x - y) ** 2) for x, y in zip(o['map'], b['map'], strict=True)],
  ),
  'contrastive_depth': (['map'], ['map'], {}, contrastive),
  'cross_modal_focal': (['logit', 'branch_logit'], ['label', 'present'], {}, cross_modal),
  'sphere_face': (
    ['cosine', 'norm'],
    ['identity'],
    {},
    lambda o, b: margin_softmax(o, b, lambda t: (5 * math.cos(t) + psi(t)) / 6, None),
  ),
  'cos_face': (
    ['cosine'],
    ['identity'],
    {'scale': 8.0},
    lambda o, b: margin_softmax(o, b, lambda t: math.cos(t) - 0.35, 8),
  ),
  'arc_face': (
    ['cosine'],
    ['identity'],
    {'scale': 8.0},
    lambda o, b: margin_softmax(o, b, arc, 8),
  ),
  'subset_consistency': (
    ['feature', 'full_feature'],
    [],
    {},
    lambda o, b: [np.mean((o['feature'][i] - o['full_feature'][i]) ** 2) for i in range(B)],
  ),
  'single_side_prototypes': (
    ['modality_feature', 'prototype', 'prototype_weight'],
    ['label', 'domain', 'present'],
    REQUIRED['single_side_prototypes'],
    single_side,
  ),
  'cosine_prototypes': (
    ['modality_cosine'],
    ['label', 'domain', 'present'],
    {'scale': 5.0},
    lambda o, b: learned(o, b, 5.0),
  ),
  'domain_hyperplanes': (
    ['domain_logit'],
    ['label', 'domain'],
    {},
    lambda o, b: entropies(
      [x[d] for x, d in zip(o['domain_logit'], b['domain'], strict=True)], b['label']
    ),
  ),
  'mean_angle': (
    ['modality_feature'],
    ['label', 'domain', 'present'],
    REQUIRED['mean_angle'],
    angles,
  ),
  'masked_reconstruction': (['patch_error', 'patch_weight'], [], {}, masked),
}


def pick(name, dtype=jnp.float32):
  """(loss, outputs, batch): nothing but what this loss may read."""
  reads, knows, fields, _ = CASES[name]
  outputs = {k: jnp.asarray(OUTPUTS[k], dtype) for k in reads}
  batch = {k: jnp.asarray(BATCH[k]) for k in knows}
  if 'map' in batch:
    batch['map'] = batch['map'].astype(jnp.float32)
  return functools.partial(getattr(losses, name), **fields), outputs, batch


def value_and_gradient(loss, outputs, batch):
  """([B], gradients of the sum)."""

  @jax.jit
  def run(outputs):
    value, pull = jax.vjp(lambda o: loss(o, batch), outputs)
    return value, pull(jnp.ones_like(value))[0]

  return run(outputs)


def test_every_loss_has_its_case():
  assert sorted(CASES) == lookup.choices('loss')


@pytest.mark.parametrize('name', CASES)
def test_values(name):
  loss, outputs, batch = pick(name)
  found = jax.jit(loss)(outputs, batch)
  assert found.shape == (B,)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, CASES[name][3](OUTPUTS, BATCH), rtol=2e-5)


@pytest.mark.parametrize('name', CASES)
def test_gradients(name):
  loss, outputs, batch = pick(name)
  constant = {k: outputs.pop(k) for k in CONSTANT if k in outputs}
  run = jax.jit(lambda o: loss({**o, **constant}, batch))
  check_grads(run, (outputs,), order=1, modes=['rev'], eps=1e-2, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize('name', CASES)
def test_bfloat16_goes_in_and_float32_comes_out(name):
  loss, outputs, batch = pick(name, jnp.bfloat16)
  value, gradient = value_and_gradient(loss, outputs, batch)
  assert value.dtype == jnp.float32
  # Nothing but the inputs was rounded.
  rounded = {k: np.asarray(v, float) for k, v in outputs.items()}
  np.testing.assert_allclose(value, CASES[name][3](OUTPUTS | rounded, BATCH), rtol=2e-5)
  assert all(np.isfinite(np.asarray(g, float)).all() for g in gradient.values())


EXTREMES = {
  'logit': [1e4, -1e4],
  'map_logit': [1e4, -1e4],
  'branch_logit': [1e4, -1e4],
  'map': [0.0, 1e4],
  'cosine': [1.0, -1.0, 1.0000001, -1.0000001],
  'norm': [0.0, 1e4],
  'feature': [0.0, 1e4],
  'full_feature': [0.0, 1e4],
  'modality_feature': [0.0, 1e4, -1e4],
  'prototype': [0.0, 1e4],
  'prototype_weight': [0.0, 1.0],
  'modality_cosine': [1.0, -1.0],
  'domain_logit': [1e4, -1e4],
  'patch_error': [0.0, 1e4],
  'patch_weight': [0.0, 1.0],
}


@pytest.mark.parametrize(
  'name,fields',
  [(name, {}) for name in CASES]
  + [(name, {'gamma': gamma}) for name in ('focal', 'cross_modal_focal') for gamma in (0.0, 0.5)],
)
def test_extremes_are_finite(name, fields):
  """Combinations of what is read, at its ends, for both labels: values and gradients."""
  _, outputs, batch = pick(name)
  loss = functools.partial(getattr(losses, name), **REQUIRED.get(name, {}), **fields)
  rng = np.random.default_rng(0)
  rows = {k: () if k in OF_STATE else (64,) for k in outputs}
  ends = {
    k: rng.choice(EXTREMES[k], (*rows[k], *v.shape[len(rows[k]) :])) for k, v in outputs.items()
  }
  outputs = {k: jnp.asarray(v, jnp.float32) for k, v in ends.items()}
  batch = {k: jnp.asarray(np.resize(v, (64, *v.shape[1:]))) for k, v in batch.items()}
  if 'label' in batch:
    batch['label'] = jnp.asarray(rng.integers(0, 2, 64))
  value, gradient = value_and_gradient(loss, outputs, batch)
  assert np.isfinite(value).all()
  assert all(np.isfinite(g).all() for g in gradient.values())
  assert np.asarray(value).min() >= 0


@pytest.mark.parametrize('name', CASES)
def test_what_is_missing_is_named_with_what_has_it(name):
  loss, outputs, batch = pick(name)
  ways = {'map': 'pixel_map', 'map_logit': "'activation': 'linear'", 'cosine': 'identity_cosine'}
  ways |= {'branch_logit': 'branch_logits', 'norm': 'identity_cosine', 'logit': 'binary_logit'}
  ways |= {'feature': 'full_features', 'full_feature': 'full_features'}
  ways |= {'modality_feature': 'modality_features', 'modality_cosine': 'modality_prototypes'}
  ways |= {'domain_logit': 'domain_hyperplanes'} | dict.fromkeys(OF_STATE, 'training step adds')
  ways |= dict.fromkeys(('patch_error', 'patch_weight'), 'config.model.decoder')
  for key in outputs:
    said = f"{name}' needs '{key}', which the head does not have; .*{ways[key]}"
    for lacking in ({k: v for k, v in outputs.items() if k != key}, {**outputs, key: None}):
      with pytest.raises(ConfigError, match=said):
        loss(lacking, batch)
  for key in batch:
    with pytest.raises(
      ConfigError, match=f"{name}' needs '{key}', which the batch does not have; "
    ):
      loss(outputs, {k: v for k, v in batch.items() if k != key})


def test_defaults_are_the_papers():
  for name, fields in {
    'focal': {'gamma': 2.0, 'alpha': None},
    'cross_modal_focal': {'gamma': 3.0, 'alpha': 1.0, 'share': 0.5},
    'sphere_face': {'margin': 4, 'blend': 5.0},
    'cos_face': {'margin': 0.35, 'scale': 64.0},
    'arc_face': {'margin': 0.5, 'scale': 64.0, 'easy_margin': False},
    'single_side_prototypes': {'momentum': 0.2},
    'cosine_prototypes': {'scale': 100.0},
    'domain_hyperplanes': {'rate': 0.005},
    'mean_angle': {'bona_fide': 1.0, 'attack': 0.85},
  }.items():
    parameters = list(inspect.signature(getattr(losses, name)).parameters.values())[2:]
    parameters = [p for p in parameters if p.default is not inspect.Parameter.empty]
    assert {p.name: p.default for p in parameters} == fields, name


def test_binary_cross_entropy_by_hand():
  outputs = {'logit': jnp.array([0.0, 0.0, jnp.log(3.0), 100.0, -100.0]), 'map': None}
  batch = {'label': jnp.array([1, 0, 1, 0, 1])}
  # log 2 twice; p = 3/4, -log p; and 100 without overflow for what is wrong and sure.
  expected = [np.log(2), np.log(2), np.log(4 / 3), 100.0, 100.0]
  np.testing.assert_allclose(losses.binary_cross_entropy(outputs, batch), expected, rtol=1e-6)


def test_binary_cross_entropy_is_the_two_column_softmax():
  columns = jax.random.normal(jax.random.key(0), (6, 2))  # attack, bona fide
  label = jnp.array([0, 1, 1, 0, 1, 0])
  expected = -jnp.take_along_axis(jax.nn.log_softmax(columns), label[:, None], 1)[:, 0]
  outputs = {'logit': columns[:, 1] - columns[:, 0]}
  np.testing.assert_allclose(
    losses.binary_cross_entropy(outputs, {'label': label}), expected, atol=1e-6
  )


def test_focal_without_focus_is_the_cross_entropy():
  _, outputs, batch = pick('focal')
  np.testing.assert_allclose(
    losses.focal(outputs, batch, gamma=0.0),
    losses.binary_cross_entropy(outputs, batch),
    rtol=1e-6,
  )


def test_contrastive_depth_by_hand():
  """One pixel off by 1 in 3 x 3: as the centre it is in all eight contrasts, else in one."""
  batch = {'map': jnp.zeros((2, 3, 3))}
  found = jnp.zeros((2, 3, 3)).at[0, 1, 1].set(1.0).at[1, 0, 2].set(1.0)
  np.testing.assert_allclose(losses.contrastive_depth({'map': found}, batch), [1, 1 / 8])
  level = {'map': found + 7.0}  # a constant has no contrast
  np.testing.assert_allclose(losses.contrastive_depth(level, batch), [1, 1 / 8])


def test_maps_that_do_not_fit_are_refused():
  batch = {'map': jnp.zeros((2, 4, 4))}
  with pytest.raises(ConfigError, match=r"map is \(2, 1, 1\), but the batch's is \(2, 4, 4\)"):
    losses.pixel_wise_mse({'map': jnp.zeros((2, 1, 1))}, batch)  # would broadcast
  with pytest.raises(ConfigError, match='at least 3 x 3, not 2 x 2'):
    losses.contrastive_depth({'map': jnp.zeros((1, 2, 2))}, {'map': jnp.zeros((1, 2, 2))})
  logits = {'map': jnp.zeros((2, 4, 4)), 'map_logit': jnp.zeros((2, 4, 4))}
  for loss in (losses.pixel_wise_mse, losses.contrastive_depth):
    with pytest.raises(ConfigError, match="activation = 'relu'"):
      loss(logits, batch)


def test_cross_modal_focal_of_two_is_the_papers():
  """Its equations 2 to 5 in float64, written down once more without loops over branches."""
  rng = np.random.default_rng(3)
  logit, branch, label = rng.normal(0, 2, 8), rng.normal(0, 2, (8, 2)), np.arange(8) % 2
  sign = 2 * label - 1
  r, (p, q) = 1 / (1 + np.exp(-sign * logit)), 1 / (1 + np.exp(-sign * branch.T))
  pq = -((1 - q * 2 * p * q / (p + q)) ** 3) * np.log(p)
  qp = -((1 - p * 2 * p * q / (p + q)) ** 3) * np.log(q)
  expected = 0.7 * -np.log(r) + 0.3 * (pq + qp)
  outputs = {'logit': jnp.float32(logit), 'branch_logit': jnp.float32(branch)}
  batch = {'label': jnp.asarray(label), 'present': jnp.ones((8, 2), bool)}
  loss = jax.jit(functools.partial(losses.cross_modal_focal, share=0.3))
  np.testing.assert_allclose(loss(outputs, batch), expected, rtol=1e-5)


def test_cross_modal_focal_reduces_to_cross_entropies():
  _, outputs, batch = pick('cross_modal_focal')
  joint = losses.binary_cross_entropy(outputs, batch)
  own = np.stack(
    [entropies(OUTPUTS['branch_logit'][:, m], BATCH['label']) for m in range(M)], 1
  )  # [B, M]
  loss = jax.jit(losses.cross_modal_focal, static_argnames=('gamma', 'alpha', 'share'))
  alone = {**batch, 'present': jnp.eye(M, dtype=bool)[jnp.array([0, 1, 2, 0, 1])]}
  expected = 0.5 * joint + 0.5 * own[range(B), [0, 1, 2, 0, 1]]
  np.testing.assert_allclose(loss(outputs, alone), expected, rtol=1e-5)
  # Without focus; without branches; and where nothing is there.
  expected = 0.5 * joint + 0.5 * 2 * (own * BATCH['present']).sum(1)
  np.testing.assert_allclose(loss(outputs, batch, gamma=0.0, alpha=2.0), expected, rtol=1e-5)
  np.testing.assert_allclose(loss(outputs, batch, share=0.0), joint, rtol=1e-6)
  none = {**batch, 'present': jnp.zeros((B, M), bool)}
  np.testing.assert_allclose(loss(outputs, none), 0.5 * joint, rtol=1e-6)


def test_an_absent_branch_has_no_part():
  """Neither its logit nor its gradient, be it NaN."""
  _, outputs, batch = pick('cross_modal_focal')
  broken = jnp.where(batch['present'], outputs['branch_logit'], jnp.nan)
  value, _ = value_and_gradient(losses.cross_modal_focal, outputs, batch)
  again, gradient = value_and_gradient(
    losses.cross_modal_focal, {**outputs, 'branch_logit': broken}, batch
  )
  np.testing.assert_array_equal(value, again)
  moved = np.asarray(gradient['branch_logit']) != 0
  np.testing.assert_array_equal(moved, BATCH['present'])


def test_without_a_margin_all_are_the_softmax():
  _, outputs, batch = pick('sphere_face')
  for name, fields, scale in (
    ('cos_face', {'margin': 0.0, 'scale': 8.0}, 8.0),
    ('arc_face', {'margin': 0.0, 'scale': 8.0}, 8.0),
    ('arc_face', {'margin': 0.0, 'scale': 8.0, 'easy_margin': True}, 8.0),
    ('sphere_face', {'margin': 1}, outputs['norm'][:, None]),
  ):
    logits = jax.nn.log_softmax(scale * outputs['cosine'])
    expected = -logits[jnp.arange(B), batch['identity']]
    found = jax.jit(functools.partial(getattr(losses, name), **fields))(outputs, batch)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=name)


def own_logit(name, theta, **fields):
  """The changed cosine of each angle: beside one other at cosine 0, a loss of log(1 + e^-x)."""
  cosine = np.stack([np.cos(theta), np.zeros_like(theta)], 1)
  outputs = {'cosine': jnp.float32(cosine), 'norm': jnp.ones(len(theta))}
  batch = {'identity': jnp.zeros(len(theta), jnp.int32)}
  loss = jax.jit(functools.partial(getattr(losses, name), **fields))(outputs, batch)
  return -np.log(np.expm1(np.asarray(loss, float)))


def test_arc_face_at_known_angles():
  theta = np.array([0, math.pi / 6, math.pi / 2, math.pi - 0.6, math.pi - 0.4, math.pi])
  found = own_logit('arc_face', theta, scale=1.0)
  # Beyond pi - 0.5: cos theta - 0.5 sin 0.5.
  drop = 0.5 * math.sin(0.5)
  expected = [math.cos(0.5), math.cos(math.pi / 6 + 0.5), math.cos(math.pi / 2 + 0.5)]
  expected += [math.cos(math.pi - 0.1), math.cos(math.pi - 0.4) - drop, -1 - drop]
  np.testing.assert_allclose(found, expected, atol=2e-5)
  easy = own_logit('arc_face', theta, scale=1.0, easy_margin=True)
  np.testing.assert_allclose(easy[:2], expected[:2], atol=2e-5)
  np.testing.assert_allclose(easy[3:], np.cos(theta[3:]), atol=2e-5)


def test_psi_by_hand():
  """cos 4 theta on the first quarter, then turned over and let down by 2 at each border."""
  theta = np.array([0, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8, 1]) * math.pi
  found = own_logit('sphere_face', theta, blend=0.0)
  np.testing.assert_allclose(found, [1, 0, -1, -2, -3, -4, -5, -6, -7], atol=1e-4)
  blended = own_logit('sphere_face', theta, blend=3.0)
  np.testing.assert_allclose(blended, (3 * np.cos(theta) + found) / 4, atol=1e-4)


@pytest.mark.parametrize(
  'name,fields',
  [
    *[('sphere_face', {'margin': m, 'blend': 0.0}) for m in (1, 2, 3, 4)],
    ('arc_face', {'scale': 1.0}),
    ('arc_face', {'scale': 1.0, 'margin': 1.2}),
    ('cos_face', {'scale': 1.0}),
  ],
)
def test_the_own_logit_falls_with_the_angle(name, fields):
  theta = np.linspace(0.02, math.pi - 0.02, 400)
  steps = np.diff(own_logit(name, theta, **fields))
  assert steps.max() < 1e-4  # rounding at the flat places
  if name == 'sphere_face':  # and it never jumps: the slope is never beyond the margin's
    assert -steps.min() < 1.1 * fields['margin'] * (theta[1] - theta[0])


def test_a_margin_that_is_no_whole_number_is_refused():
  _, outputs, batch = pick('sphere_face')
  for margin in (0, 1.5):
    with pytest.raises(ConfigError, match=f'margin = {margin} is not a whole number'):
      losses.sphere_face(outputs, batch, margin=margin)


def test_an_identity_that_does_not_exist_is_not_silent():
  _, outputs, batch = pick('cos_face')
  found = losses.cos_face(outputs, {**batch, 'identity': batch['identity'].at[2].set(N)})
  assert np.isnan(found).tolist() == [False, False, True, False, False]


def test_a_domain_that_does_not_exist_is_not_silent():
  """Also where no bona fide class depends on the domain."""
  reading = [name for name, case in CASES.items() if 'domain' in case[1]]
  assert len(reading) == 4
  for name in reading:
    loss, outputs, batch = pick(name)
    batch['present'] = jnp.ones((B, M), bool)
    found = loss(outputs, {**batch, 'domain': batch['domain'].at[1].set(DOMAINS)})
    assert np.isnan(found[1]), name
    assert name == 'mean_angle' or not np.isnan(found[2:]).any(), name


@pytest.mark.parametrize('name', ['single_side_prototypes', 'cosine_prototypes', 'mean_angle'])
def test_an_absent_modality_has_no_part(name):
  """Neither its features nor their gradient, be they NaN."""
  loss, outputs, batch = pick(name)
  key = 'modality_cosine' if name == 'cosine_prototypes' else 'modality_feature'
  damaged = jnp.where(batch['present'][:, :, None], outputs[key], jnp.nan)
  value, _ = value_and_gradient(loss, outputs, batch)
  again, gradient = value_and_gradient(loss, {**outputs, key: damaged}, batch)
  np.testing.assert_array_equal(value, again)
  moved = np.abs(np.asarray(gradient[key])).sum(-1) > 0
  assert moved.any() and not (moved & ~BATCH['present']).any()


@pytest.mark.parametrize('name', ['single_side_prototypes', 'cosine_prototypes'])
def test_terms_of_modalities_are_those_of_each_alone(name):
  loss, outputs, batch = pick(name)
  fields = CASES[name][2]
  terms = getattr(losses, name).by_modality(outputs, batch, **fields)
  assert terms.shape == (B, M)
  for m in range(M):
    alone = {**batch, 'present': batch['present'] & (jnp.arange(M) == m)[None]}
    np.testing.assert_allclose(terms[:, m], loss(outputs, alone), rtol=1e-6)


def test_a_feature_at_its_prototype_has_a_finite_gradient():
  """The slope of a norm at 0 is infinite; the source's is."""
  loss, outputs, batch = pick('single_side_prototypes')
  at = outputs['modality_feature'].at[0, 0].set(outputs['prototype'][0, 0])
  value, gradient = value_and_gradient(loss, {**outputs, 'modality_feature': at}, batch)
  assert np.isfinite(value).all() and np.isfinite(gradient['modality_feature']).all()


def test_mean_angle_counts_classes_that_every_domain_has():
  loss, outputs, batch = pick('mean_angle')
  batch['present'] = jnp.ones((B, M), bool)
  without = {**batch, 'label': batch['label'].at[0].set(0)}  # domain 0 has no bona fide sample
  attacks = without['label'] == 0
  only = {k: v[attacks] for k, v in without.items()}
  expected = loss({'modality_feature': outputs['modality_feature'][attacks]}, only)[0]
  np.testing.assert_allclose(loss(outputs, without), np.full(B, expected), rtol=1e-6)
  one_domain = {**batch, 'domain': jnp.zeros(B, jnp.int32)}
  np.testing.assert_array_equal(loss(outputs, one_domain), 0)


def test_make_loss_parts_divide_the_loss():
  (_, outputs, batch), (_, more, labels) = pick('cosine_prototypes'), pick('focal')
  outputs, batch = outputs | more, batch | labels
  spec = {'cosine_prototypes': {'weight': 0.3, 'scale': 5.0}, 'focal': {}}
  shared, own = lookup.make_loss_parts(spec)
  terms = losses.cosine_prototypes.by_modality(outputs, batch, scale=5.0)
  np.testing.assert_allclose(own(outputs, batch), 0.3 * terms, rtol=1e-6)
  np.testing.assert_allclose(shared(outputs, batch), losses.focal(outputs, batch), rtol=1e-6)
  whole = lookup.make_loss(spec)(outputs, batch)
  np.testing.assert_allclose(shared(outputs, batch) + own(outputs, batch).sum(1), whole, rtol=1e-6)
  for spec in ('focal', 'cosine_prototypes'):
    with pytest.raises(ConfigError, match='cosine_prototypes, single_side_prototypes.* and one'):
      lookup.make_loss_parts(spec)


def test_make_loss_adds_terms_by_weight():
  _, outputs, batch = pick('pixel_wise_mse')
  mse, depth = (jax.jit(getattr(losses, n)) for n in ('pixel_wise_mse', 'contrastive_depth'))
  both = lookup.make_loss({'pixel_wise_mse': {}, 'contrastive_depth': {'weight': 0.25}})
  expected = mse(outputs, batch) + 0.25 * depth(outputs, batch)
  np.testing.assert_allclose(jax.jit(both)(outputs, batch), expected, rtol=1e-6)
  alone = lookup.make_loss('pixel_wise_mse')
  np.testing.assert_array_equal(jax.jit(alone)(outputs, batch), mse(outputs, batch))


def test_make_loss_gives_fields():
  loss, outputs, batch = pick('focal')
  made = lookup.make_loss({'focal': {'gamma': 1.5, 'alpha': 0.25, 'weight': 2}})
  np.testing.assert_allclose(made(outputs, batch), 2 * loss(outputs, batch), rtol=1e-6)


@pytest.mark.parametrize(
  'spec,said',
  [
    ('hinge', "unknown loss 'hinge'; choose one of: arc_face, binary_cross_entropy"),
    ({'hinge': {}}, "unknown loss 'hinge'"),
    ({'focal': {'gama': 2}}, "'focal' has no field 'gama'; it has: gamma, alpha, weight"),
    ({'focal': {'outputs': 2}}, "'focal' has no field 'outputs'"),
    ({'focal': 2.0}, 'config.loss.focal is 2.0; give its fields'),
    ('mean_angle', "loss 'mean_angle' needs the field 'domains': config.loss.mean_angle"),
    ({'focal': {'weight': 'much'}}, "config.loss.focal.weight is 'much'; give a number"),
    ({}, 'config.loss is {}; give a name'),
    (None, 'config.loss is None; give a name'),
  ],
)
def test_a_loss_that_cannot_be_says_what_can(spec, said):
  with pytest.raises(ConfigError, match=said):
    lookup.make_loss(spec)
