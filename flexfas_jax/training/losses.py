"""Losses: `loss(outputs, batch, **fields) -> [B] float32`, one per sample; the step takes the mean.

`outputs` is what a head gives (`models/heads.py`); `batch['label']` is 1 for bona fide. Every
public function here is a loss that a config finds by name; `lookup.make_loss` sums several. All
compute in float32. Alphabet: B batch, M modalities, h w a map's grid, N identities.
"""

import jax
import jax.numpy as jnp
import optax

from flexfas_jax.errors import ConfigError

_GIVES_OUTPUT = {  # what a loss may need, and what has it: for the error that says the way out
  'logit': "a head that decides does, e.g. model.head.name = 'binary_logit'",
  'map': "model.head.name = 'pixel_map' does",
  'map_logit': "model.head = {'name': 'pixel_map', 'activation': 'linear'} does",
  'branch_logit': 'model.branch_logits = True does',
  'cosine': "model.head.name = 'identity_cosine' does",
  'norm': "model.head.name = 'identity_cosine' does",
}
_GIVES_INPUT = {
  'label': 'every data set does',
  'present': 'every data set does',
  'map': 'training does for a head that has a map, as pixel_map',
  'identity': 'a data set of face recognition does',
}


def _output(loss: str, outputs, name: str) -> jax.Array:
  """`outputs[name]` in float32."""
  if outputs.get(name) is None:
    raise ConfigError(f'loss {loss!r} needs {name!r}, which the head lacks; {_GIVES_OUTPUT[name]}')
  return outputs[name].astype(jnp.float32)


def _input(loss: str, batch, name: str) -> jax.Array:
  """`batch[name]`."""
  if batch.get(name) is None:
    raise ConfigError(f'loss {loss!r} needs {name!r}, which the batch lacks; {_GIVES_INPUT[name]}')
  return batch[name]


def _logits(loss: str, outputs, batch) -> tuple[jax.Array, jax.Array]:
  """Logit and label, each [B] float32."""
  return _output(loss, outputs, 'logit'), _input(loss, batch, 'label').astype(jnp.float32)


def binary_cross_entropy(outputs, batch) -> jax.Array:
  """-log p of the right class; equals the references' two-column softmax cross-entropy."""
  return optax.sigmoid_binary_cross_entropy(*_logits('binary_cross_entropy', outputs, batch))


def focal(outputs, batch, gamma: float = 2.0, alpha: float | None = None) -> jax.Array:
  """-(1 - p)^gamma log p of the right class: what is sure already counts less.

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
  found = _output(loss, outputs, name)
  target = _input(loss, batch, 'map').astype(jnp.float32)
  if found.shape != target.shape:
    raise ConfigError(
      f'loss {loss!r}: the head gives a map {found.shape}, the batch holds one of {target.shape}'
    )
  return found, target


def _live_maps(loss: str, outputs, batch) -> tuple[jax.Array, jax.Array]:
  """As `_maps`, of a head whose map is a mask itself."""
  if outputs.get('map_logit') is not None:
    raise ConfigError(
      f"loss {loss!r} compares a mask, and this head's map holds logits; set model.head.activation "
      "= 'relu', or take the loss 'pixel_wise_binary_cross_entropy'"
    )
  return _maps(loss, outputs, batch, 'map')


def pixel_wise_binary_cross_entropy(outputs, batch) -> jax.Array:
  """-log p of each pixel's right class, the mean over the map: FlexModal's pixel-wise binary loss.

  George & Marcel, "Deep Pixel-wise Binary Supervision for Face Presentation Attack Detection",
  ICB 2019.

  Args:
    outputs: 'map_logit' [B, h, w].
    batch: 'map' [B, h, w] in [0, 1].
  """
  logit, target = _maps('pixel_wise_binary_cross_entropy', outputs, batch, 'map_logit')
  return optax.sigmoid_binary_cross_entropy(logit, target).mean((1, 2))


def pixel_wise_mse(outputs, batch) -> jax.Array:
  """Mean squared difference of map and target; with `contrastive_depth` CDCN's loss.

  Args:
    outputs: 'map' [B, h, w].
    batch: 'map' [B, h, w].
  """
  found, target = _live_maps('pixel_wise_mse', outputs, batch)
  return ((found - target) ** 2).mean((1, 2))


def contrastive_depth(outputs, batch) -> jax.Array:
  """Mean squared difference of the contrasts, neighbour minus centre, of map and target.

  Wang et al., "Exploiting Temporal and Depth Information for Multi-frame Face Anti-Spoofing", 2018;
  CDCN (ZitongYu/CDCN: train_CDCN_3modality2_model2.py) has it with weight 1 beside the MSE. Eight
  contrasts per pixel, the border left out: the mean is over 8 (h - 2) (w - 2).

  Args:
    outputs: 'map' [B, h, w], h and w at least 3.
    batch: 'map' [B, h, w].
  """
  found, target = _live_maps('contrastive_depth', outputs, batch)
  _, h, w = found.shape
  if min(h, w) < 3:
    raise ConfigError(f"loss 'contrastive_depth' needs a map of 3 x 3 at least, not {h} x {w}")
  # A contrast is linear: that of the difference is the difference of the contrasts.
  error = found - target
  centre = error[:, 1:-1, 1:-1]  # [B, h - 2, w - 2]
  shifts = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]
  contrasts = jnp.stack([error[:, y : y + h - 2, x : x + w - 2] - centre for y, x in shifts], 1)
  return (contrasts**2).mean((1, 2, 3))  # from [B, 8, h - 2, w - 2]


def cross_modal_focal(
  outputs, batch, gamma: float = 3.0, alpha: float = 1.0, share: float = 0.5
) -> jax.Array:
  """A branch counts less where it and another are both sure of the right class.

  George & Marcel, "Cross Modal Focal Loss for RGBD Face Anti-Spoofing", CVPR 2021. With p and q the
  probabilities of the right class by two branches,

      w(p, q) = q 2 p q / (p + q)
      CMFL(p, q) = -alpha (1 - w(p, q))^gamma log p
      loss = (1 - share) CE(joint logit) + share (CMFL(p, q) + CMFL(q, p))

  For any number of branches: the sum over the present ones of -alpha F log p, where F is the mean
  of (1 - w(p, q))^gamma over the *other* present ones. For two that is the paper's; a branch alone
  has F = 1, the plain cross-entropy, as if others knew nothing (q = 0). An absent one has no part.

  w is differentiated through, as by the authors' config (bob.paper.cross_modal_focal_loss_cvpr2021:
  losses/losses.py, `sg=False`); they average the two CMFL where the paper adds them: alpha = 0.5.

  Args:
    outputs: 'logit' [B], of all branches together, and 'branch_logit' [B, M].
    batch: 'label' [B] and 'present' [B, M] bool.
    gamma: 0 leaves cross-entropies.
    alpha: weight of the branches' terms.
    share: the paper's lambda.
  """
  name = 'cross_modal_focal'
  logit, label = _logits(name, outputs, batch)
  present = _input(name, batch, 'present')  # [B, M]
  branch = jnp.where(present, _output(name, outputs, 'branch_logit'), 0.0)
  joint = optax.sigmoid_binary_cross_entropy(logit, label)  # [B]
  entropy = optax.sigmoid_binary_cross_entropy(branch, label[:, None])  # [B, M]
  right = jnp.exp(-entropy)
  p, q = right[:, :, None], right[:, None, :]  # own and other
  w = q * 2 * p * q / (p + q + 1e-9)  # [B, M, M]
  # Never quite 0, where a gamma below 1 has an infinite slope.
  focus = jnp.maximum(1 - w, 1e-6) ** gamma
  pair = present[:, None, :] & ~jnp.eye(present.shape[1], dtype=bool)[None]  # [B, M, M]
  others = pair.sum(2)  # [B, M]
  mean = (focus * pair).sum(2) / jnp.maximum(others, 1)
  branches = (entropy * jnp.where(others > 0, mean, 1.0) * present).sum(1)  # [B]
  return (1 - share) * joint + share * alpha * branches


def _cosines(loss: str, outputs, batch) -> tuple[jax.Array, jax.Array, jax.Array]:
  """All cosines [B, N], those to the samples' own identities [B, 1], and which these are [B]."""
  cosine = _output(loss, outputs, 'cosine')
  identity = _input(loss, batch, 'identity')
  return cosine, jnp.take_along_axis(cosine, identity[:, None], 1), identity


def _margin_entropy(cosine, own, identity, scale) -> jax.Array:
  """[B] cross-entropies of `scale` (a number or [B, 1]) times cosines, the own ones changed."""
  right = jax.nn.one_hot(identity, cosine.shape[1], dtype=bool)  # [B, N]
  logits = scale * jnp.where(right, own, cosine)
  return optax.softmax_cross_entropy_with_integer_labels(logits, identity)


def sphere_face(outputs, batch, margin: int = 4, blend: float = 5.0) -> jax.Array:
  """A-Softmax: the angle to the own identity is multiplied by `margin`.

  Liu et al., "SphereFace: Deep Hypersphere Embedding for Face Recognition", CVPR 2017. The own
  cosine becomes psi(theta) = (-1)^k cos(margin theta) - 2k on [k pi, (k + 1) pi] / margin, which
  falls all the way from 1 to 1 - 2 margin; logits are cosines times the embedding's norm.

  Args:
    outputs: 'cosine' [B, N] and 'norm' [B], of the embedding.
    batch: 'identity' [B] int32.
    margin: a whole number; 1 is the plain softmax.
    blend: the authors' lambda: psi becomes (blend cos + psi) / (1 + blend). They anneal it from
      1500 or so down to 5, since 0 does not converge from scratch; here it is fixed.
  """
  if margin < 1 or margin != int(margin):
    raise ConfigError(f"loss 'sphere_face': margin = {margin} is not a whole number from 1 on")
  cosine, own, identity = _cosines('sphere_face', outputs, batch)
  norm = _output('sphere_face', outputs, 'norm')[:, None]
  # cos(m theta) as a polynomial of cos(theta) (Chebyshev's), and k by comparison: arccos has an
  # infinite slope at both ends.
  before, multiple = jnp.ones_like(own), own
  for _ in range(int(margin) - 1):
    before, multiple = multiple, 2 * own * multiple - before
  borders = jnp.cos(jnp.pi * jnp.arange(1, margin) / margin)[None]  # [1, margin - 1]
  k = (own < borders).sum(1, keepdims=True)  # [B, 1]
  psi = jnp.where(k % 2 == 0, multiple, -multiple) - 2 * k
  return _margin_entropy(cosine, (blend * own + psi) / (1 + blend), identity, norm)


def cos_face(outputs, batch, margin: float = 0.35, scale: float = 64.0) -> jax.Array:
  """The own cosine less a margin.

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
  """A margin added to the angle to the own identity: cos(theta + margin).

  Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019. Beyond
  pi - margin, where that would rise again, cos(theta) - margin sin(margin) goes on falling, as in
  the authors' code.

  Args:
    outputs: 'cosine' [B, N].
    batch: 'identity' [B] int32.
    margin: radians; 0 is the plain softmax of scaled cosines.
    scale: of the logits.
    easy_margin: a margin only for angles below pi / 2; the others are left as they are.
  """
  cosine, own, identity = _cosines('arc_face', outputs, batch)
  # The floor is below the smallest value that float32 gives but 0: it only keeps the slope finite.
  sine = jnp.sqrt(jnp.maximum((1 - own) * (1 + own), 1e-12))
  moved = own * jnp.cos(margin) - sine * jnp.sin(margin)
  if easy_margin:
    own = jnp.where(own > 0, moved, own)
  else:
    own = jnp.where(own > -jnp.cos(margin), moved, own - margin * jnp.sin(margin))
  return _margin_entropy(cosine, own, identity, scale)
