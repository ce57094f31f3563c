"""The stem of convolutions of a ViT: by hand, on the grid of patches, batch statistics, errors."""

import jax
import numpy as np
import pytest

from flexfas_jax.errors import ConfigError
from flexfas_jax.models.backbone.resnet import ResNet
from flexfas_jax.models.backbone.vit import ConvStem, ViT
from tests.toy import fill

MEAN, VARIANCE = 0.25, 4.0  # of every channel


def by_hand(image, kernel):
  """A 3x3 convolution of stride 2 with a border of zeros, batch norm in evaluation, ReLU."""
  H, W, _ = image.shape
  padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
  out = np.zeros((H // 2, W // 2, kernel.shape[-1]))
  for i in range(H // 2):
    for j in range(W // 2):
      window = padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
      out[i, j] = np.tensordot(window, kernel, 3)
  return np.maximum((out - MEAN) / np.sqrt(VARIANCE + 1e-5), 0)


def test_two_convolutions_by_hand():
  rng = np.random.default_rng(0)
  image = rng.standard_normal((8, 4, 3)).astype(np.float32)
  kernels = [
    0.3 * rng.standard_normal(s).astype(np.float32) for s in ((3, 3, 3, 24), (3, 3, 24, 32))
  ]
  params, statistics = {}, {}
  for i, kernel in enumerate(kernels):
    of_channels = np.ones(kernel.shape[-1], np.float32)
    params[f'conv_{i}'] = {'kernel': kernel}
    params[f'norm_{i}'] = {'bn': {'scale': of_channels, 'bias': 0 * of_channels}}
    statistics[f'norm_{i}'] = {'bn': {'mean': MEAN * of_channels, 'var': VARIANCE * of_channels}}
  found = ConvStem(2, 32).apply({'params': params, 'batch_stats': statistics}, image[None])
  expected = by_hand(by_hand(image, kernels[0]), kernels[1])
  assert expected.shape == (2, 1, 32)
  np.testing.assert_allclose(found[0], expected, atol=2e-5)


@pytest.mark.parametrize('patch_size, widths', [(16, (24, 24, 48, 96)), (4, (48, 96))])
def test_the_grid_is_that_of_the_patches(patch_size, widths):
  module = ViT('pico', patch_size=patch_size, stem='conv', image_size=32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 32, 32, 3)))
  stem = shapes['params']['stem']
  assert tuple(stem[f'conv_{i}']['kernel'].shape[-1] for i in range(len(widths))) == widths
  assert shapes['params']['patch_embed']['kernel'].shape == (1, 1, 96, 96)
  maps = jax.eval_shape(module.apply, fill(shapes), np.zeros((2, 32, 32, 3)))
  assert {m.shape for m in maps} == {(2, 32 // patch_size, 32 // patch_size, 96)}


def variables_of(module, image):
  shapes = jax.eval_shape(module.init, jax.random.key(0), image)
  return fill({kind: shapes[kind] for kind in ('params', 'batch_stats')})


def test_a_hybrid_projects_the_map_of_a_resnet():
  module = ViT('mu', patch_size=32, stem='resnet', image_size=64, stages=1)
  image = np.random.default_rng(0).standard_normal((1, 64, 64, 3)).astype(np.float32)
  variables = variables_of(module, image)
  found = module.apply(variables, image, mutable=['intermediates'])[1]['intermediates']['stem'][0]
  of_stem = {kind: variables[kind]['resnet'] for kind in ('params', 'batch_stats')}
  resnet = np.asarray(ResNet('mu', stages=3).apply(of_stem, image)[-1])  # [1, 4, 4, 32]
  params = variables['params']
  kernel = np.asarray(params['patch_embed']['kernel'])  # [2, 2, 32, 32]
  patches = resnet.reshape(1, 2, 2, 2, 2, 32).transpose(0, 1, 3, 2, 4, 5)  # [1, h, w, 2, 2, 32]
  expected = (
    np.tensordot(patches, kernel, 3).reshape(1, 4, 32) + params['patch_embed']['bias'][None, None]
  )
  np.testing.assert_allclose(
    found[:, 1:], expected + params['pos_embed'][:, 1:], rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize('stem', ['conv', 'resnet'])
def test_absent_images_do_not_enter_the_statistics(stem):
  module = ViT('mu', patch_size=16, stem=stem, image_size=32)
  rng = np.random.default_rng(0)
  images = rng.standard_normal((4, 32, 32, 3)).astype(np.float32)
  variables = variables_of(module, images)
  images[2:] = 100.0
  mask = np.array([True, True, False, False])

  def statistics(images, mask):
    _, changed = module.apply(variables, images, True, mask, mutable=['batch_stats'])
    return changed['batch_stats']

  found, expected = statistics(images, mask), statistics(images[:2], mask[:2])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)
  part, first = {'conv': ('stem', 'norm_0'), 'resnet': ('resnet', 'bn1')}[stem]
  of_all = statistics(images, None)[part][first]['bn']['mean']
  assert np.abs(found[part][first]['bn']['mean'] - of_all).max() > 1


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'stem': 'pool'}, "no stem 'pool'; choose one of: patch, conv, resnet"),
    ({'stem': 'conv', 'patch_size': 14}, 'patch_size is a power of 2, not 14'),
    ({'stem': 'resnet', 'patch_size': 8}, 'patch_size is a multiple of 16, not 8'),
  ],
)
def test_what_is_no_stem_is_refused(fields, message):
  with pytest.raises(ConfigError, match=message):
    ViT('mu', **fields)
