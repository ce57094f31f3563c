"""StableHLO: one program for CPU, CUDA and TPU and any batch size, weights included."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax

from flexfas_jax.export.inference import flat, simplify

PLATFORMS = ('cpu', 'cuda', 'tpu')
FIXED_SUBSETS = False  # a machine with jax has room for all streams


def check() -> None:
  """Requires no extra."""


def write(graph, trained, folder: Path, val=None) -> list[dict]:
  """Writes `model.stablehlo` with jax.export; `jax.export.deserialize` reads it.

  Args:
    graph: see `graph.Graph`.
    trained: unused.
    folder: of the bundle.
    val: the val set, to calibrate what is rounded; unused here.

  Returns:
    Entries of the card's `models`.
  """
  del trained, val
  (B,) = jax.export.symbolic_shape('B')
  shapes = graph.shapes(B)
  program = simplify.simplify(graph.function, shapes)
  with _without_source_paths():
    function = jax.jit(lambda *arrays: flat.evaluate(program, arrays)[0])
    exported = jax.export.export(function, platforms=PLATFORMS)(*shapes)
  file = f'{graph.stem}.stablehlo'
  (folder / file).write_bytes(exported.serialize())
  return [graph.card_entry('stablehlo', file) | {'platforms': list(PLATFORMS)}]


@contextlib.contextmanager
def _without_source_paths() -> Iterator[None]:
  """A program records the file and line of each operation; a bundle is given to others."""
  limit = jax.config.jax_traceback_in_locations_limit
  jax.config.update('jax_traceback_in_locations_limit', 0)
  try:
    yield
  finally:
    jax.config.update('jax_traceback_in_locations_limit', limit)
