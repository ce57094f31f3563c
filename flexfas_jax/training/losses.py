"""Losses: `loss(outputs, batch, **fields) -> [B] float32`, one per sample; the step takes the mean.

`outputs` come from a head (`models/heads.py`); `batch['label']` is 1 for bona fide. A config names
any public function here; `lookup.make_loss` sums several. All compute in float32.
Alphabet: B batch, M modalities, h w a map's grid, N identities, D width of a feature, K classes.

A loss with a term for each modality has them as its attribute `by_modality`: `(outputs, batch,
**fields) -> [B, M]`, 0 where a modality is absent. The loss is their sum; gradient modulation takes
them apart.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import optax

from flexfas_jax.errors import ConfigError
from flexfas_jax.training.prototypes import single_side_classes
from flexfas_jax.training.reconstruction import target_errors

_OUTPUT_SOURCE = {  # {an output that losses use: how to get it}
  'logit': "set model.head.name = 'binary_logit', or another head with a logit",
  'map': "set model.head.name = 'pixel_map'",
  'map_logit': "set model.head = {'name': 'pixel_map', 'activation': 'linear'}",
  'branch_logit': 'set model.branch_logits = True',
  'cosine': "set model.head.name = 'identity_cosine'",
  'norm': "set model.head.name = 'identity_cosine'",
  'feature': 'set model.full_features = True',
  'full_feature': 'set model.full_features = True',
  'modality_feature': 'set model.modality_features = True',
  'modality_cosine': "set model.head.name = 'modality_prototypes'",
  'domain_logit': "set model.head.name = 'domain_hyperplanes'",
  'patch_error': "set config.task = 'reconstruction' and config.model.decoder",
  'patch_weight': "set config.task = 'reconstruction' and config.model.decoder",
  'prototype': 'the training step adds it',
  'prototype_weight': 'the training step adds it',
}
_INPUT_SOURCE = {
  'label': 'every data set has it',
  'present': 'every data set has it',
  'map': 'training adds it for a head with a map, such as pixel_map',
  'identity': "set config.task = 'identities'",
  'domain': 'training adds it: the number of the value of config.domain',
}


def _output(loss: str, outputs, name: str) -> jax.Array:
  """`outputs[name]` in float32."""
  if outputs.get(name) is None:
    raise ConfigError(
      f'loss {loss!r} needs {name!r}, which the head does not have; {_OUTPUT_SOURCE[name]}'
    )
  return outputs[name].astype(jnp.float32)


def _input(loss: str, batch, name: str) -> jax.Array:
  """`batch[name]`."""
  if batch.get(name) is None:
    raise ConfigError(
      f'loss {loss!r} needs {name!r}, which the batch does not have; {_INPUT_SOURCE[name]}'
    )
  return batch[name]


def _logits(loss: str, outputs, batch) -> tuple[jax.Array, jax.Array]:
  """Logit and label, each [B] float32."""
  return _output(loss, outputs, 'logit'), _input(loss, batch, 'label').astype(jnp.float32)


def binary_cross_entropy(outputs, batch) -> jax.Array:
  """-log p of the correct class; equals the references' softmax cross-entropy of two columns."""
  return optax.sigmoid_binary_cross_entropy(*_logits('binary_cross_entropy', outputs, batch))


def focal(outputs, batch, gamma: float = 2.0, alpha: float | None = None) -> jax.Array:
  """-(1 - p)^gamma log p of the correct class: confident samples count less.

  Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.

  Args:
    outputs: 'logit' [B].
    batch: 'label' [B].
    gamma: 0 is the plain cross-entropy.
    alpha: weight of bona fide, 1 - alpha that of attacks; None: both 1.
  """
  logit, label = _logits('focal', outputs, batch)
  return optax.sigmoid_focal_loss(logit, label, alpha=alpha, gamma=gamma)


def _maps(loss: str, outputs, batch, name: str) -> tuple[jax.Array, jax.Array]:
  """`outputs[name]` and the target, each [B, h, w] float32."""
  predicted = _output(loss, outputs, name)
  target = _input(loss, batch, 'map').astype(jnp.float32)
  if predicted.shape != target.shape:
    raise ConfigError(
      f"loss {loss!r}: the head's map is {predicted.shape}, but the batch's is {target.shape}"
    )
  return predicted, target


def _live_maps(loss: str, outputs, batch) -> tuple[jax.Array, jax.Array]:
  """Like `_maps`, for a head whose map is a mask rather than logits."""
  if outputs.get('map_logit') is not None:
    raise ConfigError(
      f"loss {loss!r} needs a mask, but this head's map holds logits; set model.head.activation "
      "= 'relu', or use the loss 'pixel_wise_binary_cross_entropy'"
    )
  return _maps(loss, outputs, batch, 'map')


def pixel_wise_binary_cross_entropy(outputs, batch) -> jax.Array:
  """Mean over the map of -log p of each pixel's correct class: FlexModal's pixel-wise binary loss.

  George & Marcel, "Deep Pixel-wise Binary Supervision for Face Presentation Attack Detection",
  ICB 2019.

  Args:
    outputs: 'map_logit' [B, h, w].
    batch: 'map' [B, h, w] in [0, 1].
  """
  logit, target = _maps('pixel_wise_binary_cross_entropy', outputs, batch, 'map_logit')
  return optax.sigmoid_binary_cross_entropy(logit, target).mean((1, 2))


def pixel_wise_mse(outputs, batch) -> jax.Array:
  """Mean squared difference of map and target; CDCN's loss together with `contrastive_depth`.

  Args:
    outputs: 'map' [B, h, w].
    batch: 'map' [B, h, w].
  """
  predicted, target = _live_maps('pixel_wise_mse', outputs, batch)
  return ((predicted - target) ** 2).mean((1, 2))


def contrastive_depth(outputs, batch) -> jax.Array:
  """Mean squared difference of the contrasts, neighbour minus centre, of map and target.

  Wang et al., "Exploiting Temporal and Depth Information for Multi-frame Face Anti-Spoofing", 2018;
  CDCN (ZitongYu/CDCN: train_CDCN_3modality2_model2.py) adds it to the MSE with weight 1. There
  are eight contrasts per inner pixel: the mean is over 8 (h - 2) (w - 2).

  Args:
    outputs: 'map' [B, h, w], h and w at least 3.
    batch: 'map' [B, h, w].
  """
  predicted, target = _live_maps('contrastive_depth', outputs, batch)
  _, h, w = predicted.shape
  if min(h, w) < 3:
    raise ConfigError(f"loss 'contrastive_depth' needs a map of at least 3 x 3, not {h} x {w}")
  # Contrasts are linear: the difference of two contrasts is the contrast of the difference.
  error = predicted - target
  centre = error[:, 1:-1, 1:-1]  # [B, h - 2, w - 2]
  shifts = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]
  contrasts = jnp.stack([error[:, y : y + h - 2, x : x + w - 2] - centre for y, x in shifts], 1)
  return (contrasts**2).mean((1, 2, 3))  # from [B, 8, h - 2, w - 2]


def cross_modal_focal(
  outputs, batch, gamma: float = 3.0, alpha: float = 1.0, share: float = 0.5
) -> jax.Array:
  """A branch counts less if it and another branch are both confident of the correct class.

  George & Marcel, "Cross Modal Focal Loss for RGBD Face Anti-Spoofing", CVPR 2021. With p and q the
  probabilities of the correct class by two branches,

      w(p, q) = q 2 p q / (p + q)
      CMFL(p, q) = -alpha (1 - w(p, q))^gamma log p
      loss = (1 - share) CE(joint logit) + share (CMFL(p, q) + CMFL(q, p))

  For any number of branches: the sum over the present branches of -alpha F log p, where F is the
  mean of (1 - w(p, q))^gamma over the *other* present branches. For two branches this is the
  paper's loss; a single branch has F = 1, the plain cross-entropy (q = 0). Absent branches do not
  contribute.

  Gradients flow through w, as in the authors' config (bob.paper.cross_modal_focal_loss_cvpr2021:
  losses/losses.py, `sg=False`). They average the two CMFL that the paper adds: alpha = 0.5.

  Args:
    outputs: 'logit' [B], of all branches together, and 'branch_logit' [B, M].
    batch: 'label' [B] and 'present' [B, M] bool.
    gamma: 0 is the plain cross-entropy.
    alpha: weight of the branches' terms.
    share: the paper's lambda.
  """
  name = 'cross_modal_focal'
  logit, label = _logits(name, outputs, batch)
  present = _input(name, batch, 'present')  # [B, M]
  branch = jnp.where(present, _output(name, outputs, 'branch_logit'), 0.0)
  joint = optax.sigmoid_binary_cross_entropy(logit, label)  # [B]
  entropy = optax.sigmoid_binary_cross_entropy(branch, label[:, None])  # [B, M]
  probability = jnp.exp(-entropy)  # of the correct class
  p, q = probability[:, :, None], probability[:, None, :]  # own and other
  w = q * 2 * p * q / (p + q + 1e-9)  # [B, M, M]
  # Above 0, where a gamma below 1 has an infinite slope.
  focus = jnp.maximum(1 - w, 1e-6) ** gamma
  pair = present[:, None, :] & ~jnp.eye(present.shape[1], dtype=bool)[None]  # [B, M, M]
  others = pair.sum(2)  # [B, M]
  mean = (focus * pair).sum(2) / jnp.maximum(others, 1)
  branches = (entropy * jnp.where(others > 0, mean, 1.0) * present).sum(1)  # [B]
  return (1 - share) * joint + share * alpha * branches


def subset_consistency(outputs, batch) -> jax.Array:
  """Mean squared difference of the features under a subset and those of all modalities.

  The latter have no gradient: features under missing modalities are pulled to those of the full
  input (the regulariser of VP-FAS, TDSC 2024, whose code is not public; the form is ours).

  Args:
    outputs: 'feature' and 'full_feature', each [B, D].
    batch: not read.
  """
  del batch
  feature, full = (_output('subset_consistency', outputs, n) for n in ('feature', 'full_feature'))
  return jnp.square(feature - jax.lax.stop_gradient(full)).mean(1)


def _sum_over_modalities(by_modality):
  """The loss [B] whose terms [B, M] the function returns."""

  @functools.wraps(by_modality)
  def loss(*args, **fields):
    return by_modality(*args, **fields).sum(1)

  loss.by_modality = by_modality
  return loss


def _class_entropies(loss: str, logits, batch) -> jax.Array:
  """Cross-entropies [B, M] of logits [B, M, K] with the single-side classes; 0 where absent.

  A class that is none of the K is NaN.
  """
  present = _input(loss, batch, 'present')
  labels = single_side_classes(_input(loss, batch, 'label'), _input(loss, batch, 'domain'))
  B, M, K = logits.shape
  logits = jnp.where(present[:, :, None], logits, 0.0)  # a NaN would reach the gradient
  entropy = optax.softmax_cross_entropy_with_integer_labels(
    logits, jnp.broadcast_to(labels[:, None], (B, M))
  )
  entropy = jnp.where(labels[:, None] < K, entropy, jnp.nan)
  return jnp.where(present, entropy, 0.0)


@_sum_over_modalities
def single_side_prototypes(outputs, batch, domains: int, period: int, momentum: float = 0.2):
  """Pulls each modality's feature to the prototype of its class: MMDG's single-side loss.

  Lin et al., "Suppress and Rebalance: Towards Generalized Multi-Modal Face Anti-Spoofing" (MMDG),
  CVPR 2024. Bona fide samples of all domains are one class, attacks one for each domain. For each
  present modality, the cross-entropy of minus the Euclidean distances to the prototypes: means of
  the features that the training state averages (`prototypes.py`). A class without a feature until
  now has no part. The source adds it with the weight 0.3.

  Args:
    outputs: 'modality_feature' [B, M, D]; 'prototype' [M, K, D] and 'prototype_weight' [M, K], from
      the state.
    batch: 'label', 'domain' [B] and 'present' [B, M] bool.
    domains: number of source data sets, K - 1.
    period: steps of an epoch, after which a feature's weight is `momentum`.
    momentum: see `period`.
  """
  del domains, period, momentum  # of the state
  name = 'single_side_prototypes'
  feature = _output(name, outputs, 'modality_feature')
  prototype = _output(name, outputs, 'prototype')
  is_known = _output(name, outputs, 'prototype_weight')[None] > 0  # [1, M, K]
  present = _input(name, batch, 'present')
  # Features of an absent modality may be anything.
  feature = jnp.where(present[:, :, None], feature, 0.0)
  difference = feature[:, :, None] - jax.lax.stop_gradient(prototype)[None]  # [B, M, K, D]
  # The source's norm has no gradient at 0.
  distance = jnp.sqrt(jnp.square(difference).sum(-1) + 1e-12)  # [B, M, K]
  labels = single_side_classes(_input(name, batch, 'label'), _input(name, batch, 'domain'))
  K = prototype.shape[1]
  own = jax.nn.one_hot(labels, K, dtype=bool)[:, None]  # [B, 1, K]
  # A finite logit, whose weight is 0 in float32; the own class of a sample is masked below.
  entropy = _class_entropies(name, jnp.where(is_known | own, -distance, -1e9), batch)
  has_class = (is_known & own).any(2) | (labels[:, None] >= K)  # [B, M]; NaN for no class
  return jnp.where(has_class, entropy, 0.0)


@_sum_over_modalities
def cosine_prototypes(outputs, batch, scale: float = 100.0):
  """Cross-entropy of scaled cosines between each modality's feature and learned prototypes.

  MMDG++ (Lin et al., TPAMI 2025) has CLIP's embeddings of texts with learned words in their place,
  which its scores do not use. Classes are those of `single_side_prototypes`.

  Args:
    outputs: 'modality_cosine' [B, M, K].
    batch: 'label', 'domain' [B] and 'present' [B, M] bool.
    scale: of the logits; CLIP's is 100.
  """
  cosine = _output('cosine_prototypes', outputs, 'modality_cosine')
  return _class_entropies('cosine_prototypes', scale * cosine, batch)


def domain_hyperplanes(outputs, batch, rate: float = 0.005) -> jax.Array:
  """Cross-entropy of the logit that the hyperplane of the sample's own domain gives.

  DADM (ICCV 2025). The mean over a batch weights each domain by its share. After each
  step, the hyperplanes approach each other (`hyperplanes.py`); the head decides by their mean,
  which has no gradient here.

  Args:
    outputs: 'domain_logit' [B, K], of K domains.
    batch: 'label' and 'domain' [B].
    rate: of the approach, per step.
  """
  del rate
  name = 'domain_hyperplanes'
  logit, domain = _output(name, outputs, 'domain_logit'), _input(name, batch, 'domain')
  own = jnp.take_along_axis(logit, domain[:, None], 1)[:, 0]  # [B]; NaN for no domain
  return optax.sigmoid_binary_cross_entropy(own, _input(name, batch, 'label').astype(jnp.float32))


def mean_angle(
  outputs, batch, domains: int, bona_fide: float = 1.0, attack: float = 0.85
) -> jax.Array:
  """Makes the angles between domains and between modalities alike: DADM's mean angle loss.

  DADM (ICCV 2025; utils/my_loss.py, MeanAngleLoss). n is the mean direction of a
  modality's features in one domain and class. For each class and pair (a, b) of domains: the sum
  over modalities of (n_a n_b - t)^2, and over pairs of modalities of the squared difference of
  their cosines in a and b. A class counts if every domain has it; the sum is divided by the number
  of pairs of domains. The source adds it with the weight 0.2. Its other form sums over all pairs of
  samples, so that it grows with the fourth power of the batch; it is not built.

  Args:
    outputs: 'modality_feature' [B, M, D].
    batch: 'label', 'domain' [B] and 'present' [B, M] bool; absent modalities enter no mean.
    domains: number of source data sets.
    bona_fide, attack: t of each class.

  Returns:
    [B], the batch's value for each sample.
  """
  name = 'mean_angle'
  feature, present = _output(name, outputs, 'modality_feature'), _input(name, batch, 'present')
  label, domain = _input(name, batch, 'label'), _input(name, batch, 'domain')
  feature = _direction(jnp.where(present[:, :, None], feature, 0.0))  # [B, M, D]
  total = jnp.zeros(())
  for value, target in ((1, bona_fide), (0, attack)):
    of_domain = (label == value)[:, None] & (domain[:, None] == jnp.arange(domains)[None])  # [B, K]
    taken = of_domain[:, None] & present[:, :, None]  # [B, M, K]
    mean = _direction(jnp.einsum('bmk,bmd->mkd', taken.astype(jnp.float32), feature))
    has = taken.any(0)  # [M, K]
    of_class = jnp.zeros(())
    for a, b in itertools.combinations(range(domains), 2):
      both = has[:, a] & has[:, b]  # [M]
      cosine = (mean[:, a] * mean[:, b]).sum(-1)  # [M]
      of_class += jnp.where(both, jnp.square(cosine - target), 0.0).sum()
      for m, o in itertools.combinations(range(present.shape[1]), 2):
        cross = (mean[m] * mean[o]).sum(-1)  # [K]
        of_class += jnp.where(both[m] & both[o], jnp.square(cross[a] - cross[b]), 0.0)
    total += jnp.where(of_domain.any(0).all(), of_class, 0.0)
  pairs = max(domains * (domains - 1) // 2, 1)
  # A sample of a further domain would be left out silently.
  value = jnp.where((domain < domains).all(), total / pairs, jnp.nan)
  return jnp.broadcast_to(value, label.shape)


def _direction(x: jax.Array) -> jax.Array:
  """x over its norm along the last axis, which is at least 1e-4."""
  return x / jnp.sqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-8))


def _cosines(loss: str, outputs, batch) -> tuple[jax.Array, jax.Array, jax.Array]:
  """All cosines [B, N], those to the samples' own identities [B, 1], and these identities [B]."""
  cosine = _output(loss, outputs, 'cosine')
  identity = _input(loss, batch, 'identity')
  return cosine, jnp.take_along_axis(cosine, identity[:, None], 1), identity


def _margin_entropy(cosine, own, identity, scale) -> jax.Array:
  """Cross-entropies [B] of the scaled cosines, in which `own` replaces that of the own identity.

  Args:
    cosine: [B, N].
    own: [B, 1].
    identity: [B] int32.
    scale: a number, or [B, 1].
  """
  is_own = jax.nn.one_hot(identity, cosine.shape[1], dtype=bool)  # [B, N]
  logits = scale * jnp.where(is_own, own, cosine)
  return optax.softmax_cross_entropy_with_integer_labels(logits, identity)


def sphere_face(outputs, batch, margin: int = 4, blend: float = 5.0) -> jax.Array:
  """A-Softmax: multiplies the angle to the own identity by `margin`.

  Liu et al., "SphereFace: Deep Hypersphere Embedding for Face Recognition", CVPR 2017. The own
  cosine becomes psi(theta) = (-1)^k cos(margin theta) - 2k on [k pi, (k + 1) pi] / margin, which
  decreases from 1 to 1 - 2 margin; logits are cosines times the embedding's norm.

  Args:
    outputs: 'cosine' [B, N] and 'norm' [B], of the embedding.
    batch: 'identity' [B] int32.
    margin: a whole number; 1 is the plain softmax.
    blend: the authors' lambda: psi becomes (blend cos + psi) / (1 + blend). They anneal it from
      about 1500 to 5, since 0 does not converge from scratch; here it is fixed.
  """
  if margin < 1 or margin != int(margin):
    raise ConfigError(f"loss 'sphere_face': margin = {margin} is not a whole number from 1 on")
  cosine, own, identity = _cosines('sphere_face', outputs, batch)
  norm = _output('sphere_face', outputs, 'norm')[:, None]
  # cos(m theta) as a Chebyshev polynomial of cos(theta), and k by comparison, since the slope of
  # arccos is infinite at both ends.
  before, multiple = jnp.ones_like(own), own
  for _ in range(int(margin) - 1):
    before, multiple = multiple, 2 * own * multiple - before
  borders = jnp.cos(jnp.pi * jnp.arange(1, margin) / margin)[None]  # [1, margin - 1]
  k = (own < borders).sum(1, keepdims=True)  # [B, 1]
  psi = jnp.where(k % 2 == 0, multiple, -multiple) - 2 * k
  return _margin_entropy(cosine, (blend * own + psi) / (1 + blend), identity, norm)


def cos_face(outputs, batch, margin: float = 0.35, scale: float = 64.0) -> jax.Array:
  """Subtracts a margin from the cosine of the own identity.

  Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition", CVPR 2018.

  Args:
    outputs: 'cosine' [B, N].
    batch: 'identity' [B] int32.
    margin: 0 is the plain softmax of scaled cosines.
    scale: of the logits.
  """
  cosine, own, identity = _cosines('cos_face', outputs, batch)
  return _margin_entropy(cosine, own - margin, identity, scale)


def arc_face(
  outputs, batch, margin: float = 0.5, scale: float = 64.0, easy_margin: bool = False
) -> jax.Array:
  """Adds a margin to the angle to the own identity: cos(theta + margin).

  Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019. Beyond
  pi - margin, where that would increase again, it continues with cos(theta) - margin sin(margin),
  as in the authors' code.

  Args:
    outputs: 'cosine' [B, N].
    batch: 'identity' [B] int32.
    margin: radians; 0 is the plain softmax of scaled cosines.
    scale: of the logits.
    easy_margin: apply the margin only to angles below pi / 2.
  """
  cosine, own, identity = _cosines('arc_face', outputs, batch)
  # Float32 gives 0 or more than this floor, which only keeps the slope finite.
  sine = jnp.sqrt(jnp.maximum((1 - own) * (1 + own), 1e-12))
  shifted = own * jnp.cos(margin) - sine * jnp.sin(margin)
  if easy_margin:
    own = jnp.where(own > 0, shifted, own)
  else:
    own = jnp.where(own > -jnp.cos(margin), shifted, own - margin * jnp.sin(margin))
  return _margin_entropy(cosine, own, identity, scale)


def masked_reconstruction(outputs, batch) -> jax.Array:
  """Mean squared error of normalised patches: over those that count, then over the modalities.

  Hidden patches of the modality that the encoder sees count, and all of the others; see
  `models/masked_autoencoder.py`. Absent modalities have no part in the mean.

  Args:
    outputs: 'patch_error' and 'patch_weight' [B, M, N].
    batch: not read.
  """
  del batch
  names = ('patch_error', 'patch_weight')
  error, there = target_errors(*(_output('masked_reconstruction', outputs, n) for n in names))
  return error.sum(1) / jnp.maximum(there.sum(1), 1)
