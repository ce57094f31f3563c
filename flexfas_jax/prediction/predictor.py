"""A bundle that decides: pictures in, a decision out."""

import dataclasses
import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.special

from flexfas_jax.errors import ConfigError
from flexfas_jax.input_pipeline import faces, geometry, signal
from flexfas_jax.input_pipeline.preprocess import Preprocess
from flexfas_jax.prediction import card as cards
from flexfas_jax.prediction import decision as decisions
from flexfas_jax.prediction import formats, framing, freshness, pictures
from flexfas_jax.prediction.decision import Decision


class Acquired(NamedTuple):
  """A sample as the model sees it."""

  arrays: dict[str, np.ndarray]  # [S, S, C] float32 of every modality; zeros where absent
  present: np.ndarray  # [M] bool
  reasons: tuple[str, ...]  # why what is absent is
  sent: dict[str, np.ndarray]  # [H, W, C], the crops that it was made of


class Predictor:
  """Decides about samples by a bundle; `predictor(rgb=..., depth=..., ir=...)`.

  Attributes:
    card: of the bundle.
    entry: of the model that runs, in the card's `models`.
    modalities: that it looks at, in the order of `present`.
    framing: how faces are cut out; None: pictures are of faces.
    require: modalities without which nothing is decided here, though the model could.
  """

  def __init__(self, card, entry, run: formats.Run, framing=None, require: Sequence[str] = ()):
    self.card, self.entry, self.framing = card, entry, framing
    self.modalities = tuple(entry.get('modalities', card.modalities))
    alone = not entry.get('present', True)
    self.require = tuple(dict.fromkeys((*card.requires, *require, *self.modalities * alone)))
    if unknown := [m for m in self.require if m not in self.modalities]:
      raise ConfigError(f'{unknown[0]} is required, and the model has {self._has()}')
    self._run = run
    looks = tuple(geometry.named_views([card.view]).values())
    self._preprocess = Preprocess(card.image_size, self.modalities, test_views=looks)

  @classmethod
  def load(
    cls,
    bundle: str | os.PathLike,
    format: str | None = None,
    *,
    precision: str = 'float32',
    modalities: Sequence[str] = (),
    crop: str | None = None,
    yunet: str = '',
    require: Sequence[str] = (),
    sha256: str = '',
    **fields,
  ) -> 'Predictor':
    """A predictor of a bundle, the bytes of its model proven.

    Args:
      bundle: the folder that an export made.
      format: 'stablehlo' (needs jax), 'onnx' (onnxruntime), 'tflite' (ai-edge-litert), 'weights'
        (all of flexfas_jax); None: the first of the first three whose library is installed.
      precision: 'float32', 'float16' or 'int8'.
      modalities: a model for these alone, which has no input for the others; (): the one for any.
      crop: how the face is cut out: 'box', 'landmarks', 'yunet'; None: it has been.
      yunet: the detector's model file, of 'yunet'.
      require: without these nothing is decided, whatever the model serves: who covers a sensor is
        not to be judged by the others.
      sha256: that the bundle's `card.json` must have, which names the bytes of all else.
      **fields: of `faces.Recipe`: margin, align, min_size, min_score.

    Raises:
      ConfigError: no such model, or its library is not installed (it is said what to install).
      StateError: no bundle, damaged, of a newer version, or other than `sha256`.
      DataError: a detector that is none.
    """
    card = cards.read(bundle, sha256)
    entry = formats.choose(card, format, precision, tuple(modalities))
    how = framing.make(crop, yunet, **fields)
    return cls(card, entry, formats.load(card, entry), how, require)

  def __call__(
    self,
    *,
    times: Mapping[str, float] | None = None,
    max_skew: float | None = None,
    max_age: float | None = None,
    box: Sequence[float] | Mapping[str, str] | None = None,
    **given: pictures.Given | None,
  ) -> Decision:
    """Decides about one sample.

    Args:
      times: {modality: seconds} when pictures were taken, by one clock, and perhaps 'now'.
      max_skew: seconds; a picture that differs by more from RGB's time (or the first there is) is
        left out.
      max_age: seconds; a picture that is older than `times['now']` by more is left out.
      box: left, top, right, bottom of the face, in pixels of RGB (or the first there is), or the
        cells of a list by name: with `crop` 'box' or 'landmarks'.
      **given: rgb, depth, ir: each a path, bytes, or an array, see `pictures.read_all`; None or
        left out: absent.

    Returns:
      The decision, by the threshold of the modalities that were used.

    Raises:
      DataError: a picture that is none, or not of the kind that the card says.
      ConfigError: a modality that the model does not have; times or a box that are missing.
      StateError: no threshold for these modalities; a model that fails.
    """
    start = time.perf_counter()
    acquired = self.acquire(given, times, max_skew, max_age, box)
    found = self.decide(acquired, self.used(acquired))
    return dataclasses.replace(found, seconds=time.perf_counter() - start)

  def acquire(
    self,
    given: Mapping[str, pictures.Given | None],
    times: Mapping[str, float] | None = None,
    max_skew: float | None = None,
    max_age: float | None = None,
    box: Sequence[float] | Mapping[str, str] | None = None,
  ) -> Acquired:
    """What the model sees of a sample; the arguments and errors are those of a call."""
    given = {m: one for m, one in given.items() if one is not None}
    if unknown := [m for m in given if m not in self.modalities]:
      raise ConfigError(f'there is no modality {unknown[0]!r} in this model; it has {self._has()}')
    if box is not None and self.framing is None:
      raise ConfigError("a box does nothing without crop='box'")
    named = [m for m in self.modalities if m in given]
    late = freshness.stale(named, times, max_skew, max_age)
    reasons = list(late.values())
    images = pictures.read_all(self.card, {m: given[m] for m in named if m not in late})
    for modality in list(images):
      if reason := signal.no_signal(images[modality], modality):
        del images[modality]
        reasons.append(f'{modality} {reason} and shows nothing: taken as absent')
    if self.framing is not None and images:
      try:
        images, told = self.framing(images, framing.columns_of(box))
        reasons += told
      except faces.NoFace as error:
        images = {}
        reasons.append(f'no face: {error}')
    arrays = self._preprocess.of_images(images)
    present = arrays.pop('present')
    for modality, there in zip(self.modalities, present, strict=True):
      if modality in images and not there:
        reasons.append(f'{modality} shows nothing where the face is: taken as absent')
    return Acquired(arrays, present, tuple(reasons), images)

  def used(self, acquired: Acquired) -> tuple[str, ...]:
    """The modalities that a sample has."""
    return tuple(m for m, there in zip(self.modalities, acquired.present, strict=True) if there)

  def refusal(self, used: Sequence[str]) -> str:
    """Why these modalities cannot be decided by; '' where they can."""
    if not used:
      return 'there is nothing to look at'
    if missing := [m for m in self.require if m not in used]:
      return f'{missing[0]} is needed, and absent'
    if (subset := '+'.join(used)) not in self.card.subsets:
      return f'{subset} is not served by this model; it serves {", ".join(self.card.subsets)}'
    return ''

  def decide(self, acquired: Acquired, used: Sequence[str]) -> Decision:
    """The decision by some of the modalities of a sample.

    Raises:
      StateError: there is no threshold for them; the model fails.
    """
    used = tuple(used)
    if said := self.refusal(used):
      return Decision(decisions.FTA, used=used, reasons=(*acquired.reasons, said))
    threshold = self.card.threshold('+'.join(used))  # first: without one, nothing is computed
    score = self.scores(
      {m: image[None] for m, image in acquired.arrays.items()},
      np.array([[m in used for m in self.modalities]]) & acquired.present,
    )
    return decisions.of_score(float(score[0]), threshold, used, acquired.reasons)

  def scores(self, images: Mapping[str, np.ndarray], present: np.ndarray) -> np.ndarray:
    """Probabilities of bona fide, NaN where the model computed no finite number.

    Args:
      images: {modality: [B, S, S, C] float32}.
      present: [B, M] bool.

    Returns:
      [B] float64: in float32 it is 1 from a logit of 17 on, and ties would hide who is surer.
    """
    logit = self._run({m: images[m] for m in self.modalities}, present)
    return np.where(np.isfinite(logit), scipy.special.expit(logit.astype(np.float64)), math.nan)

  def warm_up(self) -> None:
    """Runs the model once on nothing: some compile when they first run, and fail then."""
    size = self.card.image_size
    images = {
      m: np.zeros((1, size, size, 3 if m == 'rgb' else 1), np.float32) for m in self.modalities
    }
    self.scores(images, np.ones((1, len(self.modalities)), bool))

  def _has(self) -> str:
    return ', '.join(self.modalities)
