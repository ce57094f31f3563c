"""A raw example to the arrays that a model sees: one code for training, evaluation, prediction.

Light on purpose: a device that predicts imports it, without Grain.
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
  """A raw example to arrays.

  A modality whose image carries no signal (`signal.no_signal`, asked before any view) is absent:
  its sensor failed to acquire. A sample of nothing else has no score in evaluation; in training it
  stays as it is, because a step needs an input.

  Attributes:
    image_size: pixels along a side.
    modalities: in the order of `present`.
    view: arguments of `geometry.draw_view`; empty looks at the whole picture.
    photometric: {modality: arguments of `transforms.draw_photometric`}.
    cutout: `largest` of `transforms.cutout`, pixels; 0: none.
    map_size: side of the target 'map' of pixel-wise losses; None: there is none. All 0 for an
      attack; for a bona fide sample the `live_mask` of RGB, or where that is absent of depth or the
      first other that is there. It is taken from the view, so that flips, crops and turns move it
      along (CDCN's loader flips it, FlexModal's forgets to), before colours change or a square is
      cut out, as in both. The references shrink the stored picture, not the view of `image_size`:
      one cell more or less at the border of what is black.
    test_views: that a picture is looked at by where nothing is random; of several, images are
      [V, H, W, C], and the map is of the first.
    resize: one of `geometry.RESIZES`. 'bilinear' leaves 16-bit depth as 'area' has it, the nearest
      pixel: it is distance, and a mean of a distance and a hole is neither.

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
    """Arrays of one example; `rng` None leaves out everything random.

    Raises:
      DataError: none of the modalities is there, or one cannot be decoded.
    """
    images = {
      m: geometry.decode(example[m], m, example['id']) for m in self.modalities if example.get(m)
    }
    if not images:
      raise DataError(f'{example["id"]}: none of {", ".join(self.modalities)} is there')
    if rng is None:
      arrays, looks = self._look(images, self.test_views[0])
      others = [self._look(images, view)[0] for view in self.test_views[1:]]
      if others:
        arrays |= {m: np.stack([a[m] for a in (arrays, *others)]) for m in self.modalities}
    else:
      arrays, looks = self._look(images, geometry.draw_view(rng, **self.view), rng)
    arrays['label'] = np.int32(example['label'])
    if 'identity' in example:
      arrays['identity'] = np.int32(example['identity'])
    if self.map_size:
      first = next((m for m in schema.MODALITIES if m in looks), None)
      black = np.zeros((self.map_size, self.map_size, 1), np.uint8)
      live = transforms.live_mask(looks.get(first, black), self.map_size)
      arrays['map'] = live if example['label'] else np.zeros_like(live)
    return arrays

  def of_images(self, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a model sees of pictures that are decoded, by the first view; nothing random.

    Args:
      images: {modality: [H, W, C] uint8 or uint16} as `geometry.decode` gives them; what is absent
        is left out, and that may be all.

    Returns:
      [S, S, C] float32 of every modality, and 'present' [M] bool.
    """
    images = {m: images[m] for m in self.modalities if m in images}
    return self._look(images, self.test_views[0])[0]

  def _look(self, images: Mapping[str, np.ndarray], view: geometry.View, rng=None):
    """(arrays and 'present', {modality: [S, S, C] of its own dtype, before colours change})."""
    silent = {m for m, image in images.items() if signal.no_signal(image, m)}
    if rng is None or silent != set(images):
      images = {m: image for m, image in images.items() if m not in silent}
    looks, seen = {}, {}
    for modality, image in images.items():
      bilinear = self.resize == 'bilinear'
      nearest = schema.is_distance(modality) and not (bilinear and image.dtype == np.uint8)
      image = geometry.apply_view(image, view, self.image_size, nearest, bilinear)
      looks[modality] = image
      changes = [_to_range]
      if rng is not None and modality in self.photometric:
        fields = self.photometric[modality]
        changes.insert(0, transforms.draw_photometric(rng, image.shape[-1], **fields))
      seen[modality] = transforms.to_unit(image, modality, *changes)
    if rng is not None and self.cutout:
      seen = transforms.cutout(seen, rng, self.cutout, _to_range(np.float32(0)))
    arrays = {m: seen[m] if m in seen else self._nothing(m) for m in self.modalities}
    return {**arrays, 'present': np.array([m in seen for m in self.modalities])}, looks

  def _nothing(self, modality: str) -> np.ndarray:
    S = self.image_size
    return np.zeros((S, S, schema.channels(modality)), np.float32)


def _to_range(unit: np.ndarray) -> np.ndarray:
  """[0, 1] to what models see, (pixel - 127.5) / 128."""
  return (unit * 255 - np.float32(127.5)) / np.float32(128)
