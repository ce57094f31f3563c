"""From a raw example to the inputs of a model, for training, evaluation and prediction alike.

It does not import Grain: prediction on a device imports this module.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flexfas_jax import schema
from flexfas_jax.errors import DataError
from flexfas_jax.images import geometry, signal, transforms


@dataclasses.dataclass(frozen=True)
class Preprocess:
  """Converts a raw example to arrays.

  A modality whose image carries no signal (`signal.no_signal` of the whole image) is absent: its
  sensor failed to acquire. A sample without any signal has no score in evaluation; in training its
  images are kept, because a step needs an input.

  Attributes:
    image_size: pixels along a side.
    modalities: in the order of `present`.
    view: arguments of `geometry.draw_view`; empty is the whole image.
    photometric: {modality: arguments of `transforms.draw_photometric`}.
    cutout: `largest` of `transforms.cutout`, pixels; 0: none.
    map_size: side of the target 'map' of pixel-wise losses; None: no map. All 0 for an attack; for
      a bona fide sample the `live_mask` of its first modality in the order of the schema. It is
      computed from the view, so that flips, crops and rotations move it along (CDCN's loader flips
      it, FlexModal's does not), before photometric changes and cutout, as in both. The references
      resize the stored image, not the view of `image_size`: the border of black areas may differ
      by a cell.
    test_views: the views where nothing is random; with several, images are [V, H, W, C], and the
      map is that of the first.
    resize: one of `geometry.RESIZES`. 'bilinear' takes the nearest pixel of 16-bit depth, as 'area'
      does: the mean of a distance and a hole is neither.

  Raises:
    ConfigError: an unknown `resize`.
  """

  image_size: int
  modalities: Sequence[str]
  view: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  photometric: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
  cutout: int = 0
  map_size: int | None = None
  test_views: Sequence[geometry.View] = (geometry.View(),)
  resize: str = 'area'

  def __post_init__(self):
    geometry.check_resize(self.resize)

  def __call__(self, example: Mapping[str, Any], rng: np.random.Generator | None = None) -> dict:
    """Returns the arrays of one example; with `rng` None nothing is random.

    Raises:
      DataError: all modalities are missing, or one cannot be decoded.
    """
    images = {
      m: geometry.decode(example[m], m, example['id']) for m in self.modalities if example.get(m)
    }
    if not images:
      raise DataError(f'{example["id"]}: it has none of {", ".join(self.modalities)}')
    if rng is None:
      arrays, views = self._apply_view(images, self.test_views[0])
      others = [self._apply_view(images, view)[0] for view in self.test_views[1:]]
      if others:
        arrays |= {m: np.stack([a[m] for a in (arrays, *others)]) for m in self.modalities}
    else:
      arrays, views = self._apply_view(images, geometry.draw_view(rng, **self.view), rng)
    arrays['label'] = np.int32(example['label'])
    for name in ('identity', 'domain'):
      if name in example:
        arrays[name] = np.int32(example[name])
    if self.map_size:
      first = next((m for m in schema.MODALITIES if m in views), None)
      black = np.zeros((self.map_size, self.map_size, 1), np.uint8)
      live = transforms.live_mask(views.get(first, black), self.map_size)
      arrays['map'] = live if example['label'] else np.zeros_like(live)
    return arrays

  def preprocess_images(self, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the model inputs of decoded images in the first view; nothing is random.

    Args:
      images: {modality: [H, W, C] uint8 or uint16} as `geometry.decode` returns them, without
        absent modalities; may be empty.

    Returns:
      [S, S, C] float32 of every modality, and 'present' [M] bool.
    """
    images = {m: images[m] for m in self.modalities if m in images}
    return self._apply_view(images, self.test_views[0])[0]

  def _apply_view(self, images: Mapping[str, np.ndarray], view: geometry.View, rng=None):
    """(arrays and 'present', {modality: [S, S, C] of its own dtype, the view as stored})."""
    silent = {m for m, image in images.items() if signal.no_signal(image, m)}
    if rng is None or silent != set(images):
      images = {m: image for m, image in images.items() if m not in silent}
    views, inputs = {}, {}
    for modality, image in images.items():
      bilinear = self.resize == 'bilinear'
      nearest = schema.is_distance(modality) and not (bilinear and image.dtype == np.uint8)
      image = geometry.apply_view(image, view, self.image_size, nearest, bilinear)
      views[modality] = image
      changes = [_to_range]
      if rng is not None and modality in self.photometric:
        fields = self.photometric[modality]
        changes.insert(0, transforms.draw_photometric(rng, image.shape[-1], **fields))
      inputs[modality] = transforms.to_unit(image, modality, *changes)
    if rng is not None and self.cutout:
      inputs = transforms.cutout(inputs, rng, self.cutout, _to_range(np.float32(0)))
    arrays = {m: inputs[m] if m in inputs else self._zeros(m) for m in self.modalities}
    return {**arrays, 'present': np.array([m in inputs for m in self.modalities])}, views

  def _zeros(self, modality: str) -> np.ndarray:
    S = self.image_size
    return np.zeros((S, S, schema.channels(modality)), np.float32)


def _to_range(unit: np.ndarray) -> np.ndarray:
  """From [0, 1] to the range of model inputs, (pixel - 127.5) / 128."""
  return (unit * 255 - np.float32(127.5)) / np.float32(128)
