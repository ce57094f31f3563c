"""StableHLO: one program for CPU, CUDA and TPU, any batch, the weights inside."""

from pathlib import Path

import jax

PLATFORMS = ('cpu', 'cuda', 'tpu')
SUBSETS = False  # where jax is, there is room for all streams


def check() -> None:
  """It needs nothing that is not here."""


def write(graph, source, folder: Path) -> list[dict]:
  """`model.stablehlo`, by jax.export; read it by `jax.export.deserialize`.

  Args:
    graph: see `graph.Graph`.
    source: unused; what the graph was made of.
    folder: of the bundle.

  Returns:
    Entries of the card's `models`.
  """
  del source
  (B,) = jax.export.symbolic_shape('B')
  exported = jax.export.export(jax.jit(graph.function), platforms=PLATFORMS)(*graph.shapes(B))
  file = f'{graph.stem}.stablehlo'
  (folder / file).write_bytes(exported.serialize())
  return [graph.about('stablehlo', file) | {'platforms': list(PLATFORMS)}]
