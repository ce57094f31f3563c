"""The stem of convolutions of a ViT: by hand, on the grid of patches, and invalid forms."""

import jax
import numpy as np
import pytest

from flexfas_jax.errors import ConfigError
from flexfas_jax.models.backbone.vit import ConvStem, ViT
from tests.toy import fill


def by_hand(image, kernel):
  """A 3x3 convolution of stride 2 with a border of zeros, LayerNorm, ReLU."""
  H, W, _ = image.shape
  padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
  out = np.zeros((H // 2, W // 2, kernel.shape[-1]))
  for i in range(H // 2):
    for j in range(W // 2):
      window = padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
      out[i, j] = np.tensordot(window, kernel, 3)
  mean, deviation = out.mean(-1, keepdims=True), np.sqrt(out.var(-1, keepdims=True) + 1e-6)
  return np.maximum((out - mean) / deviation, 0)


def test_two_convolutions_by_hand():
  rng = np.random.default_rng(0)
  image = rng.standard_normal((8, 4, 3)).astype(np.float32)
  kernels = [0.3 * rng.standard_normal(s).astype(np.float32) for s in ((3, 3, 3, 8), (3, 3, 8, 16))]
  params = {f'conv_{i}': {'kernel': kernel} for i, kernel in enumerate(kernels)}
  for i, width in enumerate((8, 16)):
    params[f'norm_{i}'] = {'scale': np.ones(width), 'bias': np.zeros(width)}
  found = ConvStem(2, 16).apply({'params': params}, image[None])
  expected = by_hand(by_hand(image, kernels[0]), kernels[1])
  assert expected.shape == (2, 1, 16)
  np.testing.assert_allclose(found[0], expected, atol=2e-5)


@pytest.mark.parametrize('patch_size, widths', [(16, (12, 24, 48, 96)), (4, (48, 96))])
def test_the_grid_is_that_of_the_patches(patch_size, widths):
  module = ViT('pico', patch_size=patch_size, stem='conv', image_size=32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 32, 32, 3)))
  stem = shapes['params']['stem']
  assert tuple(stem[f'conv_{i}']['kernel'].shape[-1] for i in range(len(widths))) == widths
  assert shapes['params']['patch_embed']['kernel'].shape == (1, 1, 96, 96)
  maps = jax.eval_shape(module.apply, fill(shapes), np.zeros((2, 32, 32, 3)))
  assert {m.shape for m in maps} == {(2, 32 // patch_size, 32 // patch_size, 96)}


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'stem': 'pool'}, "no stem 'pool'; choose one of: patch, conv"),
    ({'stem': 'conv', 'patch_size': 14}, 'patch_size is a power of 2, not 14'),
  ],
)
def test_what_is_no_stem_is_refused(fields, message):
  with pytest.raises(ConfigError, match=message):
    ViT('mu', **fields)
