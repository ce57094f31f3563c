"""Heads: from the fused map to a dict with at least 'logit' and 'map', for losses and scores.

'logit' is [B] float32, high for bona fide, or None if the head makes no decision; 'map' is
[B, h, w] float32 or None. Heads compute in float32 whatever the model's `dtype`, since rounded
scores would tie.
"""

import flax.linen as nn
import jax.numpy as jnp

from flexfas_jax.errors import ConfigError
from flexfas_jax.models.layers import Conv


def _pool(fused):
  """Global average, [B, h, w, D] -> [B, D] float32."""
  return fused.astype(jnp.float32).mean((1, 2))


class BinaryLogit(nn.Module):
  """Global average pooling, dropout, one logit, high for bona fide.

  The references have two softmax columns; the logit is their difference.

  Attributes:
    dropout: of the pooled features, in training (FlexModal's reference: 0.3).
    dtype: of the model.
  """

  dropout: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, fused, train: bool = False):
    """fused [B, h, w, D] -> {'logit': [B] float32, 'map': None}."""
    pooled = nn.Dropout(self.dropout, deterministic=not train)(_pool(fused))
    return {'logit': nn.Dense(1, name='logit')(pooled)[:, 0], 'map': None}


class PixelMap(nn.Module):
  """One convolution to a map of live pixels; the decision follows from the map's mean.

  CDCN's last layer (ZitongYu/CDCN: models/CDCNs.py, `lastconv3`). CDCN's score is sum(map) /
  sum(mask), clipped to 1 (train_CDCN_3modality2_model2.py), so that its highest scores tie. Here
  the logit is strictly increasing in the mean over all cells, and needs no mask.

  Attributes:
    theta: see `central_difference` of `layers.py`.
    activation: 'relu': the map is the live mask, for pixel-wise MSE and contrastive depth; the
      logit is 4 (mean - 0.5), whose sigmoid is close to the mean near 0.5. 'linear': the map holds
      logits, for the pixel-wise binary cross-entropy; the logit is their mean.
    dtype: of the model.
  """

  theta: float = 0.7
  activation: str = 'relu'
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    super().__post_init__()
    if self.activation not in ('relu', 'linear'):
      raise ConfigError(
        f"pixel_map has no activation {self.activation!r}; choose 'relu' or 'linear'"
      )

  @nn.compact
  def __call__(self, fused, train: bool = False):
    """fused [B, h, w, D] -> {'logit': [B], 'map': [B, h, w], 'map_logit': [B, h, w] or None}."""
    raw = Conv(1, theta=self.theta, name='map')(fused.astype(jnp.float32))[..., 0]  # [B, h, w]
    if self.activation == 'linear':
      return {'logit': raw.mean((1, 2)), 'map': raw, 'map_logit': raw}
    live = nn.relu(raw)
    return {'logit': 4 * (live.mean((1, 2)) - 0.5), 'map': live, 'map_logit': None}


class Embedding(nn.Module):
  """The pooled features alone, for a model that was imported without a classifier; no logit.

  Attributes:
    dtype: of the model.
  """

  dtype: jnp.dtype = jnp.float32

  def __call__(self, fused, train: bool = False):
    """fused [B, h, w, D] -> {'logit': None, 'map': None, 'embedding': [B, D] float32}."""
    return {'logit': None, 'map': None, 'embedding': _pool(fused)}


class IdentityCosine(nn.Module):
  """Cosines between the pooled features and one weight vector per identity, for face recognition.

  The losses `sphere_face`, `cos_face` and `arc_face` add margins to these cosines.

  Attributes:
    identities: N, the number of identities in the training set.
    dtype: of the model.
  """

  identities: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, fused, train: bool = False):
    """fused [B, h, w, D] -> {..., 'embedding': [B, D], 'cosine': [B, N], 'norm': [B]}, float32."""
    embedding = _pool(fused)
    shape = (embedding.shape[-1], self.identities)
    kernel = self.param('kernel', nn.initializers.normal(0.01), shape)
    norm, kernel_norm = _norm(embedding, 1), _norm(kernel, 0)  # [B, 1], [1, N]
    return {
      'logit': None,
      'map': None,
      'embedding': embedding,
      'cosine': (embedding / norm) @ (kernel / kernel_norm),
      'norm': norm[:, 0],
    }


class ModalityPrototypes(nn.Module):
  """One logit from all features, and cosines of each modality's to learned prototypes.

  For a fusion that concatenates the modalities' maps unchanged (`plain_concat`), and the loss
  `cosine_prototypes`. The logit does not read the prototypes.

  Attributes:
    domains: number of source data sets; the classes are K = 1 + domains.
    modalities: M, whose features the fused ones are, one after the other.
    dropout: before the logit, as in `BinaryLogit`.
    dtype: of the model.
  """

  domains: int
  modalities: int = 3
  dropout: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, fused, train: bool = False):
    """fused [B, h, w, M D] -> {..., 'modality_cosine': [B, M, K]}."""
    pooled = _pool(fused)
    M, K = self.modalities, 1 + self.domains
    B, width = pooled.shape
    if width % M:
      raise ConfigError(
        f'head modality_prototypes needs a fusion that concatenates {M} modalities, such as '
        f'plain_concat; its features have the width {width}'
      )
    feature = pooled.reshape(B, M, width // M)
    shape = (M, K, width // M)
    prototype = self.param('prototypes', nn.initializers.normal(0.02), shape)
    dropped = nn.Dropout(self.dropout, deterministic=not train)(pooled)
    return {
      'logit': nn.Dense(1, name='logit')(dropped)[:, 0],
      'map': None,
      'modality_cosine': jnp.einsum(
        'bmd,mkd->bmk', feature / _norm(feature, 2), prototype / _norm(prototype, 2)
      ),
    }


class DomainHyperplanes(nn.Module):
  """One hyperplane for each source data set; their mean decides, and the domains' losses train.

  DADM (ICCV 2025; models/my_adapter.py). For the loss `domain_hyperplanes`.

  Attributes:
    domains: K.
    dropout: as in `BinaryLogit`.
    dtype: of the model.
  """

  domains: int
  dropout: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, fused, train: bool = False):
    """fused [B, h, w, D] -> {'logit': [B], 'map': None, 'domain_logit': [B, K]}."""
    pooled = nn.Dropout(self.dropout, deterministic=not train)(_pool(fused))
    D = pooled.shape[-1]
    # Attack and bona fide, since `hyperplanes.py` turns each of the two directions.
    kernel = self.param('kernel', nn.initializers.normal(D**-0.5), (self.domains, 2, D))
    logits = pooled @ (kernel[:, 1] - kernel[:, 0]).T  # [B, K]
    return {'logit': logits.mean(1), 'map': None, 'domain_logit': logits}


def _norm(x, axis: int):
  """Euclidean norm along an axis, which is kept; above 0, where the norm has no gradient."""
  return jnp.sqrt(jnp.maximum((x * x).sum(axis, keepdims=True), 1e-8))
