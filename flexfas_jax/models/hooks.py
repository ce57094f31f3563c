"""What an adapter of a transformer block is: where it acts, and what it may read.

    h = norm1(x);  a = attention(h);  x = x + s1 a + sum of adapters(h) at the site 'attention'
    g = norm2(x);  y = mlp(g);        x = x + s2 y + sum of adapters(g) at the site 'mlp'

A file of `adapters/` has one class, a subclass of `Adapter`. B batch, M modalities whose images
there are, P prefix tokens, h w the grid of patches, N tokens of a sequence, D width, r width of an
adapter.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from flexfas_jax.errors import ConfigError

SITES = ('attention', 'mlp')


@flax.struct.dataclass
class Context:
  """What the rows of a batch of token sequences are.

  Attributes:
    present: [B, M] bool, of the images that there are; None: all are present.
    modalities: of these images, static.
    every: all modalities of the model, static.
    grid: (h, w), static.
    prefix: number of tokens before the patches, static.
    joint: one sequence [B, P + M h w, D] for all modalities of a sample; otherwise a sequence for
      each, [B M, P + h w, D], those of a sample one after the other. Static.
    filled: a constant image stands for each absent modality, and blocks treat it like a real one
      (`absent='blank'`). Static.
    frozen_statistics: batch norm before the blocks uses its running statistics in training, too,
      and keeps them. Static.
    keep: [rows, n] int, the patches that become tokens, in this order; None: all. See `ViT`.
  """

  present: jax.Array | None = None
  modalities: tuple[str, ...] = flax.struct.field(pytree_node=False, default=('rgb',))
  every: tuple[str, ...] = flax.struct.field(pytree_node=False, default=('rgb',))
  grid: tuple[int, int] = flax.struct.field(pytree_node=False, default=(1, 1))
  prefix: int = flax.struct.field(pytree_node=False, default=0)
  joint: bool = flax.struct.field(pytree_node=False, default=False)
  filled: bool = flax.struct.field(pytree_node=False, default=False)
  frozen_statistics: bool = flax.struct.field(pytree_node=False, default=False)
  keep: jax.Array | None = None

  @property
  def indices(self) -> tuple[int, ...]:
    """Of the modalities, among all of the model's."""
    return tuple(self.every.index(m) for m in self.modalities)

  @property
  def readable(self) -> jax.Array | None:
    """[B, M] bool: the modalities that others may read; None: all."""
    return None if self.filled else self.present

  def key_mask(self, n: int) -> jax.Array | None:
    """[B, N] bool: the tokens of a joint sequence that attention may read; None: all.

    Args:
      n: N, which may include prompts before the prefix.
    """
    if not self.joint or self.readable is None:
      return None
    patches = jnp.repeat(self.readable, self.grid[0] * self.grid[1], 1)  # [B, M h w]
    prefix = jnp.ones((patches.shape[0], n - patches.shape[1]), bool)
    return jnp.concatenate([prefix, patches], 1)

  def split(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Tokens to (prefix [B, k, P, D], maps [B, M, h, w, D]), k = 1 of a joint sequence, else M."""
    M, (h, w), D = len(self.modalities), self.grid, x.shape[-1]
    x = x.reshape(-1, 1 if self.joint else M, x.shape[1], D)  # [B, k, N, D]
    P = x.shape[2] - h * w * (M if self.joint else 1)
    return x[:, :, :P], x[:, :, P:].reshape(-1, M, h, w, D)

  def join(self, prefix: jax.Array, maps: jax.Array) -> jax.Array:
    """The inverse of `split`."""
    B, k, P, D = prefix.shape
    x = jnp.concatenate([prefix, maps.reshape(B, k, -1, D)], 2)  # [B, k, N, D]
    return x.reshape(B * k, x.shape[2], D)


class Adapter(nn.Module):
  """Base of all adapters.

  `hook` is where a subclass acts, and thereby how it is called:

  - 'parallel': at the sites of its field `sites`, `(x, attended, context, train)`: the normalised
    input of the sub-layer and the output of the block's attention, both tokens, to what is added
    to the sub-layer's output.
  - 'projection': inside the products of attention, `(x, target, train)` for each target of its
    field `targets` ('q', 'k', 'v', 'o'): the product's input [B, N, D] to what is added to its
    output.
  - 'prompts': `(x, context)` to tokens [rows, L, D] that the block alone gets; its field `kind` is
    'input', before the block's tokens, or 'attention', before its keys and values.
  - 'embedding': once, `(rows, context)` to tokens [rows, n, D] before the first block.

  `cross_modal` is whether what it returns for a modality depends on the others, or on which are
  present. Then all modalities are encoded together, once for each subset.

  Attributes:
    blocks: indices of the blocks that have the adapter; None: all.
    dtype: of the computation.
  """

  blocks: tuple[int, ...] | None = None
  dtype: jnp.dtype = jnp.float32

  hook = 'parallel'
  cross_modal = False

  def check(self, sequence: str) -> None:
    """Raises a ConfigError if it cannot work with the ViT's `sequence`."""
    self._check_fields()
    for site in getattr(self, 'sites', ()):
      if site not in SITES:
        raise ConfigError(f'no site {site!r} in a block; choose from: {", ".join(SITES)}')

  def _check_fields(self) -> None:
    """Raises a ConfigError for a field of another type than its default's, or out of range."""
    for field in dataclasses.fields(self):
      if field.name in ('blocks', 'dtype', 'parent', 'name'):
        continue
      value, kind = getattr(self, field.name), type(field.default)
      wanted = _WANTED.get(field.name) or _WANTED[kind]
      if not wanted[0](value) and not (_is_whole(value) and value == field.default):
        name = re.sub(r'(?<=[a-z])(?=[A-Z])', '_', type(self).__name__).lower()
        raise ConfigError(
          f'config.model.backbone.adapters: {name}.{field.name} is {value!r}; give {wanted[1]}'
        )


def _is_whole(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
  return isinstance(value, float) or _is_whole(value)


def _is_tuple(value: Any) -> bool:
  return isinstance(value, tuple) and bool(value)


# (test, what to give) by a field's name, or by the type of its default.
_WANTED: dict[Any, tuple[Callable[[Any], bool], str]] = {
  'dropout': (lambda x: _is_number(x) and 0 <= x < 1, 'a number from 0 to below 1'),
  int: (lambda x: _is_whole(x) and x > 0, 'a whole number from 1 on'),
  float: (_is_number, 'a number'),
  bool: (lambda x: isinstance(x, bool), 'True or False'),
  str: (lambda x: isinstance(x, str), 'a text'),
  tuple: (_is_tuple, "a tuple, such as ('mlp',) of sites or ('q', 'v') of targets"),
}


class Dense(nn.Module):
  """A dense layer, one for all rows or one for each modality.

  Attributes:
    width: out.
    init: of the kernel.
    bias: whether there is one; initially 0.
    per_modality: a kernel for each modality, [M, C, width], instead of one.
    dtype: of the computation.
  """

  width: int
  init: nn.initializers.Initializer = nn.initializers.xavier_uniform()
  bias: bool = True
  per_modality: bool = False
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, context: Context):
    """[rows, N, C] -> [rows, N, width]."""
    every, N, C = len(context.every), x.shape[1], x.shape[-1]
    x = x.astype(self.dtype)
    if not self.per_modality:
      x = x @ self.param('kernel', self.init, (C, self.width)).astype(self.dtype)
      if self.bias:
        bias = self.param('bias', nn.initializers.zeros, (self.width,))
        x = x + bias[None, None].astype(self.dtype)
      return x
    indices = jnp.array(context.indices)
    kernel = self.param('kernel', for_each(self.init), (every, C, self.width))[indices]
    x = x.reshape(-1, len(kernel), N, C)  # [B, M, N, C]
    x = jnp.einsum('bmnc,mcd->bmnd', x, kernel.astype(self.dtype))
    if self.bias:
      bias = self.param('bias', nn.initializers.zeros, (every, self.width))[indices]
      x = x + bias[None, :, None].astype(self.dtype)
    return x.reshape(-1, N, self.width)


def for_each(init: nn.initializers.Initializer) -> nn.initializers.Initializer:
  """An initializer of [M, ...] in which each [...] is one of `init`."""
  return lambda key, shape, *_: jnp.stack(
    [init(k, shape[1:]) for k in jax.random.split(key, shape[0])]
  )
