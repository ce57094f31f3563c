"""Toy models and batches; weights are filled in NumPy, since compiling `init` costs most."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from flexfas_jax.models import flexmodal
from flexfas_jax.models.weights import transfer

SIZE = {'vit': 16, 'resnet': 32, 'cdcn': 16, 'caffe_resnet': 48, 'ir_resnet': 16}
TOY = {name: {'variant': 'mu'} for name in SIZE} | {'vit': {'variant': 'mu', 'patch_size': 8}}


def fill(abstract, seed=0):
  """Values for a tree of ShapeDtypeStruct: kernels by fan-in, scales and variances near 1."""
  rng = np.random.default_rng(seed)

  def leaf(path, x):
    name = path[-1].key
    if name in ('scale', 'var'):
      return jnp.asarray(rng.uniform(0.5, 1.5, x.shape), x.dtype)
    spread = 1 / np.sqrt(np.prod(x.shape[:-1])) if name == 'kernel' else 0.05
    return jnp.asarray(spread * rng.standard_normal(x.shape), x.dtype)

  return jax.tree_util.tree_map_with_path(leaf, abstract)


@functools.cache
def make(
  backbone='vit',
  fusion='concat',
  form=(),
  absent='token',
  share=True,
  dtype='float32',
  head='binary_logit',
  branches=False,
  fields=(),
):
  """(model, variables) of a toy; `form` and `fields` are the fusion's and the backbone's fields,
  as tuples of pairs."""
  model = flexmodal.build(
    {'name': backbone, **TOY[backbone], **dict(fields)},
    {'name': fusion, **dict(form)},
    {'name': head},
    modalities=('rgb',) if fusion == 'single' else ('rgb', 'depth', 'ir'),
    image_size=SIZE[backbone],
    share_streams=share,
    absent=absent,
    branch_logits=branches,
    dtype=dtype,
  )
  return model, fill(jax.eval_shape(model.init, jax.random.key(0)))


def initialised(variables, pretrained, into='streams'):
  """New variables with the weights of one backbone, as training assigns them."""
  return transfer.assign(variables, transfer.match(variables, pretrained, into).arrays)


def make_batch(model, B=4, seed=0):
  """Noise with every modality present and both labels, in the shapes of a real batch."""
  rng = np.random.default_rng(seed)
  size = model.image_size
  batch = {
    m: jnp.asarray(rng.standard_normal((B, size, size, 3 if m == 'rgb' else 1)), jnp.float32)
    for m in model.modalities
  }
  batch['present'] = jnp.ones((B, len(model.modalities)), bool)
  batch['label'] = jnp.arange(B, dtype=jnp.int32) % 2
  return batch
