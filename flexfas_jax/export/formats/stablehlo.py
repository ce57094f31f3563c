"""StableHLO: one program for CPU, CUDA and TPU and any batch size, weights included."""

from pathlib import Path

import jax

PLATFORMS = ('cpu', 'cuda', 'tpu')
FIXED_SUBSETS = False  # a machine with jax has room for all streams


def check() -> None:
  """Requires no extra."""


def write(graph, trained, folder: Path) -> list[dict]:
  """Writes `model.stablehlo` with jax.export; `jax.export.deserialize` reads it.

  Args:
    graph: see `graph.Graph`.
    trained: unused.
    folder: of the bundle.

  Returns:
    Entries of the card's `models`.
  """
  del trained
  (B,) = jax.export.symbolic_shape('B')
  exported = jax.export.export(jax.jit(graph.function), platforms=PLATFORMS)(*graph.shapes(B))
  file = f'{graph.stem}.stablehlo'
  (folder / file).write_bytes(exported.serialize())
  return [graph.card_entry('stablehlo', file) | {'platforms': list(PLATFORMS)}]
