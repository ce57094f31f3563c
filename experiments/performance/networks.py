"""Full-size networks with random weights: their training step and inference, under jit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flexfas_jax.models import flexmodal
from tests.toy import fill

SIZE = {'resnet50': 224, 'cdcn': 256, 'vit_b': 224}
BATCH = {'resnet50': 8, 'cdcn': 2, 'vit_b': 4}
BACKBONE = {
  'resnet50': {'name': 'resnet', 'variant': '50'},
  'cdcn': {'name': 'cdcn'},
  'vit_b': {'name': 'vit', 'variant': 'B'},
}
LEARNING_RATE = 1e-3


def build(name: str, dtype: str = 'float32', **backbone):
  """(model of RGB alone, variables)."""
  head = 'pixel_map' if name == 'cdcn' else 'binary_logit'
  model = flexmodal.build(
    {**BACKBONE[name], **backbone},
    {'name': 'single'},
    {'name': head},
    modalities=('rgb',),
    image_size=SIZE[name],
    dtype=dtype,
  )
  return model, fill(jax.eval_shape(model.init, jax.random.key(0)))


def batch_of(name: str, B: int | None = None) -> dict:
  """A batch of noise."""
  B, S = B or BATCH[name], SIZE[name]
  image = np.random.default_rng(0).standard_normal((B, S, S, 3)).astype(np.float32)
  return {
    'rgb': jnp.asarray(image),
    'present': jnp.ones((B, 1), bool),
    'label': jnp.arange(B) % 2,
  }


def train_step(variables, momentum, batch, *, model):
  """SGD with momentum on one batch: (variables, momentum, loss)."""
  optimizer = optax.sgd(LEARNING_RATE, momentum=0.9)

  def objective(params):
    outputs, batch_stats = model.apply({**variables, 'params': params}, batch, jax.random.key(0))
    loss = optax.sigmoid_binary_cross_entropy(outputs['logit'], batch['label']).mean()
    return loss, batch_stats

  (loss, batch_stats), gradients = jax.value_and_grad(objective, has_aux=True)(variables['params'])
  updates, momentum = optimizer.update(gradients, momentum, variables['params'])
  params = optax.apply_updates(variables['params'], updates)
  return {'params': params, 'batch_stats': batch_stats}, momentum, loss


def infer(variables, image, *, model):
  """[B, H, W, 3] -> logits [B]."""
  maps = {'rgb': model.encode(variables, image, 'rgb')}
  present = jnp.ones((len(image), 1), bool)
  return model.decide(variables, maps, model.absent_maps(variables), present)['logit']


def training(name: str, B: int | None = None, **fields) -> tuple:
  """(jitted step, its arguments: variables, momentum, batch) of a network; `fields` of `build`."""
  model, variables = build(name, **fields)
  step = jax.jit(functools.partial(train_step, model=model), donate_argnums=(0, 1))
  momentum = optax.sgd(1, momentum=0.9).init(variables['params'])
  return step, (variables, momentum, batch_of(name, B))


def trainer(step, arguments, turns: int = 1):
  """A function without arguments that runs further steps and waits for them."""
  *state, batch = arguments
  state = jax.tree.map(jnp.copy, state)

  def train():
    for _ in range(turns):
      *state[:], loss = step(*state, batch)
    loss.block_until_ready()

  return train


def runs(name: str, turns: int = 1, B: int | None = None, **fields) -> dict:
  """{'train', 'infer'}: functions without arguments that do their work `turns` times and wait."""
  step, arguments = training(name, B, **fields)
  variables, _, batch = arguments
  model, _ = build(name, **fields)
  forward = jax.jit(functools.partial(infer, model=model))

  def infers():
    jax.block_until_ready([forward(variables, batch['rgb']) for _ in range(turns)])

  return {'train': trainer(step, arguments, turns), 'infer': infers}
