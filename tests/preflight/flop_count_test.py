"""FLOPs counted from equations, by hand, and what they say of the four sub-protocols."""

import functools

import jax
import jax.numpy as jnp
import pytest

from configs import vit_fusion
from flexfas_jax.models import flexmodal
from flexfas_jax.preflight.flop_count import count_flops
from flexfas_jax.training import scoring


def patches(x, kernel):
  """A convolution whose every input is used once: 4 x 4 patches."""
  numbers = ('NHWC', 'HWIO', 'NHWC')
  return jax.lax.conv_general_dilated(x, kernel, (4, 4), 'VALID', dimension_numbers=numbers)


@pytest.mark.parametrize(
  ('function', 'shapes', 'expected'),
  [
    (jnp.matmul, [(8, 16), (16, 4)], 2 * 8 * 16 * 4),
    (lambda a, b: jnp.einsum('hij,hjk->hik', a, b), [(3, 8, 16), (3, 16, 4)], 3 * 2 * 8 * 16 * 4),
    (jnp.add, [(8, 16), (8, 16)], 0),
    (patches, [(2, 8, 8, 3), (4, 4, 3, 5)], 2 * (2 * 8 * 8 * 3) * 5),
    # Its gradient needs as many again for the picture and for the kernel.
    (
      jax.grad(lambda x, k: jnp.square(patches(x, k)).sum(), (0, 1)),
      [(2, 8, 8, 3), (4, 4, 3, 5)],
      3 * 2 * (2 * 8 * 8 * 3) * 5,
    ),
    (
      lambda a, b: jax.lax.scan(lambda c, _: (jax.jit(jnp.matmul)(c, b), None), a, None, 5)[0],
      [(8, 16), (16, 16)],
      5 * 2 * 8 * 16 * 16,
    ),
    # One of them runs: that of the platform, or that of the predicate.
    (
      lambda a, b: jax.lax.platform_dependent(a, b, cpu=jnp.matmul, default=lambda a, b: a @ b),
      [(8, 16), (16, 4)],
      2 * 8 * 16 * 4,
    ),
  ],
  ids=['product', 'batched', 'sum', 'patches', 'gradient', 'loop', 'platforms'],
)
def test_flops_by_hand(function, shapes, expected):
  arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  assert count_flops(function, *arguments) == expected


def test_four_sub_protocols_cost_little_more_than_one():
  """Of the paper's model, ViT-B: the reference runs three encoders for each sub-protocol, twelve in
  all; here three encoders and four fusions are all there is. A guard of speed that no clock is
  needed for."""
  fields = vit_fusion.get_config('flexmodal').model.to_dict()
  fields['backbone']['scan'] = True  # the same products, traced once
  model = flexmodal.build(**fields)
  variables = jax.eval_shape(model.init, jax.random.key(0))
  S, M = model.image_size, len(model.modalities)
  batch = {m: jax.ShapeDtypeStruct((2, S, S, 3), jnp.float32) for m in model.modalities}
  batch['present'] = jax.ShapeDtypeStruct((2, M), bool)
  absent = jax.eval_shape(model.absent_maps, variables)
  four = [s for s in model.subsets if 'rgb' in s]
  assert len(four) == 4

  step = functools.partial(scoring.score_step, model=model, subsets=four)
  ours = count_flops(step, variables, absent, batch)
  whole = functools.partial(model.module.apply, train=False)  # one forward pass of the reference
  theirs = 4 * count_flops(whole, variables, batch)
  assert 3.65 < theirs / ours < 4  # 3.69: the fusions are what is left
  encode = functools.partial(model.encode, modality='rgb')
  assert ours < 1.13 * M * count_flops(encode, variables, batch['rgb'])

  alone = functools.partial(scoring.score_step, model=model, subsets=[('rgb',)])
  one = count_flops(alone, variables, absent, batch)
  assert theirs / 4 / one > 2.75  # RGB alone, against all three streams
