"""Features of the selections of a protocol: read, decoded and described once each."""

import dataclasses
import functools
from collections.abc import Mapping

import cv2
import numpy as np

from experiments.probes import features
from flexfas_jax import schema
from flexfas_jax.images import geometry, signal, transforms
from flexfas_jax.images.worker_pool import Workers
from flexfas_jax.input_pipeline import sources
from flexfas_jax.protocols import selection

SIDE = 64  # of the images that the CNN reads, pixels


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
  """N samples of some selections.

  Attributes:
    columns: {'id' and `schema.METADATA`: [N] str}.
    label: [N] int, 1 = bona fide.
    acquired: {modality: [N] bool}, whether its image is there and carries signal.
    vectors: {(group, modality): [N, D] float32}, NaN where not acquired.
    pixels: {modality: [N, SIDE, SIDE, C] uint8}, 0 where not acquired.
  """

  columns: Mapping[str, np.ndarray]
  label: np.ndarray
  acquired: Mapping[str, np.ndarray]
  vectors: Mapping[tuple[str, str], np.ndarray]
  pixels: Mapping[str, np.ndarray]


def describe_example(
  example: Mapping, side: int | None = None
) -> dict[str, tuple[dict, np.ndarray]]:
  """{modality: (its features by group, its pixels)} of the images that carry signal.

  Args:
    example: its encoded images.
    side: pixels to which images are resized before their features; None: their stored size.
  """
  described = {}
  for modality in schema.MODALITIES:
    encoded = example[modality]
    if not encoded:
      continue
    image = geometry.decode(encoded, modality, example['id'])
    if signal.no_signal(image, modality):
      continue
    unit = transforms.to_unit(image, modality)
    small = cv2.resize(unit, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    pixels = np.rint(255 * small).astype(np.uint8).reshape(SIDE, SIDE, -1)
    if side is not None:
      resized = cv2.resize(unit, (side, side), interpolation=cv2.INTER_AREA)
      unit = resized.reshape(side, side, -1)
    described[modality] = features.describe(encoded, unit, modality), pixels
  return described


class Reader:
  """Describes selections, each once: tests may share them.

  Args:
    data_dir: of the prepared sets.
    workers: of `worker_pool`.
    side: as in `describe_example`.
  """

  def __init__(self, data_dir: str, workers: Workers, side: int | None = None):
    self._data_dir, self._workers, self._side = data_dir, workers, side
    self._read: dict[str, Samples] = {}

  def __call__(self, names: str) -> Samples:
    """The samples of some selections, comma-separated, one after the other."""
    parts = []
    for name in selection.split_selections(names):
      if name not in self._read:
        self._read[name] = self._describe(name)
      parts.append(self._read[name])
    if len(parts) == 1:
      return parts[0]
    # A Samples of arrays, or of dicts of arrays: concatenate each.
    joined = {}
    for field in dataclasses.fields(Samples):
      values = [getattr(part, field.name) for part in parts]
      joined[field.name] = (
        {key: np.concatenate([value[key] for value in values]) for key in values[0]}
        if isinstance(values[0], dict)
        else np.concatenate(values)
      )
    return Samples(**joined)

  def _describe(self, name: str) -> Samples:
    source = sources.open_source(name, self._data_dir)
    columns = source.columns
    n = len(source)
    acquired = {m: np.zeros(n, bool) for m in schema.MODALITIES}
    pixels = {m: np.zeros((n, SIDE, SIDE, schema.channels(m)), np.uint8) for m in schema.MODALITIES}
    vectors = {}
    for m in schema.MODALITIES:
      black = np.zeros((SIDE, SIDE, schema.channels(m)), np.float32)
      for group, values in features.describe(b'0', black, m).items():
        vectors[group, m] = np.full((n, len(values)), np.nan, np.float32)
    examples = (source[i] for i in range(n))
    describe = functools.partial(describe_example, side=self._side)
    for i, described in enumerate(self._workers.map(describe, examples)):
      for m, (groups, image) in described.items():
        acquired[m][i], pixels[m][i] = True, image
        for group, values in groups.items():
          vectors[group, m][i] = values
    label = np.array([schema.LABELS.index(text) for text in columns['label']])
    return Samples(
      {field: np.array(columns[field]) for field in ('id', *schema.METADATA)},
      label,
      acquired,
      vectors,
      pixels,
    )
