"""The machine's peak, and the share of it that is reached."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.performance import networks, timing
from flexfas_jax.preflight.flop_count import count_flops

SIDE = 2048  # of the square matrices


def peak(options) -> list[dict]:
  """ViT-B's forward pass and XLA's own product, as a share of OpenBLAS's FLOPs per second."""
  a = np.random.default_rng(0).standard_normal((SIDE, SIDE)).astype(np.float32)
  b = jnp.asarray(a)
  product = jax.jit(jnp.matmul)
  model, variables = networks.build('vit_b')
  image = networks.batch_of('vit_b')['rgb']
  forward = jax.jit(lambda v, x: networks.infer(v, x, model=model))
  flops = count_flops(lambda v, x: networks.infer(v, x, model=model), variables, image)
  runs = {
    'openblas': lambda: a @ a,
    'xla': lambda: product(b, b).block_until_ready(),
    'vit': lambda: forward(variables, image).block_until_ready(),
  }
  found = timing.interleaved(runs, options.repeats)
  product_flops = 2 * SIDE**3
  # Seconds of the network at OpenBLAS's speed.
  at_peak = [s * flops / product_flops for s in found['openblas']]
  return [
    timing.row("ViT-B's forward pass, share of OpenBLAS's product", at_peak, found['vit']),
    timing.row("XLA's product, share of OpenBLAS's", found['openblas'], found['xla']),
  ]


def compiling(options) -> list[dict]:
  """Compilation of ViT-B's training step, with its blocks as one loop and unrolled."""
  batch = networks.batch_of('vit_b', 1)

  def compile_step(scan):
    model, variables = networks.build('vit_b', scan=scan)
    variables = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), variables)
    momentum = jax.eval_shape(optax.sgd(1, momentum=0.9).init, variables['params'])
    step = functools.partial(networks.train_step, model=model)
    return lambda: jax.jit(lambda *args: step(*args)).lower(variables, momentum, batch).compile()

  runs = {'scan': compile_step(True), 'unrolled': compile_step(False)}
  found = timing.interleaved(runs, options.repeats)
  return [
    timing.row('compiling ViT-B as a loop, against unrolled', found['unrolled'], found['scan'])
  ]


CASES = {'peak': peak, 'compile': compiling}
