"""Published figures of TPU chips, for estimates: constants, none of them measured here.

Sources: the pages of https://cloud.google.com/tpu/docs (v4, v5e, v5p, v6e) for peaks and
interconnect, and https://jax-ml.github.io/scaling-book/tpus for rates of links, clocks, hops, and
for where a torus closes.

- A link's rate is one way: what a chip has both ways, over its ports, over two: v5e 400 GB/s over
  4 ports, v6e 800 over 4, v5p 1200 over 6. For v4 the lower of two published figures, 45 and 50.
- The clock turns the compiler's cycles into seconds. On v5e the four 128 x 128 matrix units make
  197 TFLOP/s at 1.5 GHz, and in the compiler's cycles large products reach 88 to 97 % of that;
  `preflight_test.py` holds every kind to its clock in this way.
- Memory is what the compiler lets one program have, which is less than the chip's: it says so
  itself when it refuses a program.
"""

from typing import NamedTuple


class Chip(NamedTuple):
  """One kind; a device of JAX is one chip."""

  peak_flops: float  # bfloat16, per second
  clock: float  # of the compiler's cycles, Hz
  hbm: int  # bytes a program may have
  link: float  # bytes per second and link, one way
  dimensions: int  # of the torus


_GiB = 2**30
CHIPS = {
  'v4': Chip(275e12, 1.05e9, int(30.75 * _GiB), 4.5e10, 3),
  'v5e': Chip(197e12, 1.5e9, int(15.75 * _GiB), 5e10, 2),
  'v5p': Chip(459e12, 1.75e9, int(95.74 * _GiB), 1e11, 3),
  'v6e': Chip(918e12, 1.75e9, int(31.25 * _GiB), 1e11, 2),
}
HOP = 1e-6  # seconds from a chip to its neighbour, for the smallest message


def wraps(chip: Chip, shape: tuple[int, ...]) -> tuple[bool, ...]:
  """Along which axes of a slice the last chip is linked to the first.

  On a 2D torus (v5e, v6e) where an axis is the pod's whole 16; on a 3D one (v4, v5p) along all axes
  of a slice made of whole cubes of 4 x 4 x 4, else along none.
  """
  if chip.dimensions == 2:
    return tuple(n == 16 for n in shape)
  return (all(n % 4 == 0 for n in shape),) * len(shape)
