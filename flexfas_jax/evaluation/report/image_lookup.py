"""The images of samples, for a report: found below a root by their ids or by named paths."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flexfas_jax.images import files as image_files
from flexfas_jax.protocols import relative_paths
from flexfas_jax.schema import MODALITIES

_ENDINGS = ('', '.jpg', '.jpeg', '.png', '.bmp')
ImageFinder = Callable[[str, Sequence[str]], dict[str, dict[str, bytes]]]


def make_image_finder(root: Path, columns: Mapping[str, Mapping[str, str]]) -> ImageFinder:
  """A function that reads images: (name of the test, ids) -> {id: {modality: encoded bytes}}.

  Args:
    root: what all paths are below; what leaves it is not read.
    columns: {id: {'rgb', 'depth', 'ir': path}}, as far as they are known. An id without any is
      looked for under its own name, which is how many lists name their samples.
  """
  root = root.resolve()

  def read(name: str) -> bytes | None:
    for ending in _ENDINGS:
      path = Path(relative_paths.locate(root, f'{name}{ending}')).resolve()
      if path.is_relative_to(root) and path.is_file():
        try:
          return image_files.read(path)
        except OSError:  # too large, or not to be read: a report does without it
          return None
    return None

  def find(test: str, ids: Sequence[str]) -> dict[str, dict[str, bytes]]:
    del test
    found = {}
    for id_ in ids:
      paths = {m: p for m in MODALITIES if (p := columns.get(id_, {}).get(m))} or {'rgb': id_}
      if of := {m: data for m, p in paths.items() if (data := read(p))}:
        found[id_] = of
    return found

  return find
