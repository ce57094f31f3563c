"""All samples of the rendered data sets, decoded; the limits of image rules are chosen on them."""

from collections.abc import Iterator

import numpy as np

from flexfas_jax.images import geometry
from flexfas_jax.input_pipeline import sources
from flexfas_jax.schema import MODALITIES

SETS = {
  'surf_like': ('train', 'val', 'test'),
  'cefa_like': ('train', 'val', 'test', 'masks'),
  'wmca_like': ('train', 'val', 'test'),
  'padisi_like': ('train', 'val', 'test'),
}


def samples(data_dir: str, name: str) -> Iterator[tuple[dict, dict[str, np.ndarray]]]:
  """(example, {modality: [h, w, C] uint8 or uint16}) of every sample of a set of `SETS`."""
  for split in SETS[name]:
    for example in sources.open_source(f'rendered_faces/{name}:{split}', data_dir, check=False):
      yield (
        example,
        {m: geometry.decode(example[m], m, example['id']) for m in MODALITIES if example[m]},
      )
