"""Published figures of TPU chips, for estimates; none was measured here.

Sources: https://cloud.google.com/tpu/docs (v4, v5e, v5p, v6e) for peaks and interconnect;
https://jax-ml.github.io/scaling-book/tpus for link rates, clocks, hops and closed axes.

- A link's rate is one way: the chip's rate both ways, divided by its ports and by two. v5e:
  400 GB/s over 4 ports; v6e: 800 over 4; v5p: 1200 over 6; v4: the lower of two published figures,
  45 and 50.
- The clock converts the compiler's cycles to seconds. On v5e the four 128 x 128 matrix units reach
  197 TFLOP/s at 1.5 GHz; in the compiler's cycles, large products reach 88 to 97 % of that. A test
  checks the clock of every kind in this way.
- The rate of the data centre network, between slices, is a chip's share of its host's network
  cards, one way: v5e and v6e, 6.4 and 25.6 Tb/s for a pod of 256; v5p, 50 Gb/s for a chip. None is
  published for v4.
- Memory is what the compiler grants one program, which is less than the chip has; its error for a
  program that is too large states it.
"""

from typing import NamedTuple


class Chip(NamedTuple):
  """One kind of chip; a JAX device is one chip.

  Attributes:
    peak_flops: bfloat16, per second.
    clock: of the compiler's cycles, Hz.
    hbm: bytes that a program may use.
    link: bytes per second and link, one way.
    dimensions: of the torus.
    network: bytes per second of a chip to other slices, one way; None: not published.
  """

  peak_flops: float
  clock: float
  hbm: int
  link: float
  dimensions: int
  network: float | None


_GiB = 2**30
CHIPS = {
  'v4': Chip(275e12, 1.05e9, int(30.75 * _GiB), 4.5e10, 3, None),
  'v5e': Chip(197e12, 1.5e9, int(15.75 * _GiB), 5e10, 2, 6.4e12 / 8 / 256),
  'v5p': Chip(459e12, 1.75e9, int(95.74 * _GiB), 1e11, 3, 50e9 / 8),
  'v6e': Chip(918e12, 1.75e9, int(31.25 * _GiB), 1e11, 2, 25.6e12 / 8 / 256),
}
HOP = 1e-6  # seconds from a chip to its neighbour, for the smallest message


def closed_axes(chip: Chip, shape: tuple[int, ...]) -> tuple[bool, ...]:
  """For each axis of a slice, whether a link joins its last chip to its first.

  On a 2D torus (v5e, v6e) this holds for axes of 16, the length of a pod; on a 3D torus (v4, v5p)
  for all axes of a slice of whole 4 x 4 x 4 cubes, else for none.
  """
  if chip.dimensions == 2:
    return tuple(n == 16 for n in shape)
  return (all(n % 4 == 0 for n in shape),) * len(shape)
