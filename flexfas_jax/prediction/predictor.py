"""A bundle that decides: pictures in, a decision out."""

import dataclasses
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.special

from flexfas_jax import schema
from flexfas_jax.errors import ConfigError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.images import face_crop, geometry, signal, units
from flexfas_jax.images import files as image_files
from flexfas_jax.images.preprocess import Preprocess
from flexfas_jax.prediction import card as cards
from flexfas_jax.prediction import decision as decisions
from flexfas_jax.prediction import formats, framing, freshness, input_images
from flexfas_jax.prediction.decision import Decision


class Acquired(NamedTuple):
  """A sample as the model sees it."""

  arrays: dict[str, np.ndarray]  # [S, S, C] float32 of every modality; zeros where absent
  present: np.ndarray  # [M] bool
  reasons: tuple[str, ...]  # why given modalities are unusable, and further notes
  sent: dict[str, np.ndarray]  # [H, W, C], the crops that it was made of
  unusable: tuple[str, ...] = ()  # given, and not present: no signal, stale, no face


class Predictor:
  """Decides about samples by a bundle; `predictor(rgb=..., depth=..., ir=...)`.

  Threads may share a predictor: every decision is that of its own sample. They run in parallel,
  except that they take turns at a TFLite model and at the face detector of crop='yunet'. If a
  TFLite model limits the throughput, load a predictor per thread; each has a copy of the weights.

  Attributes:
    card: of the bundle.
    entry: of the model that runs, in the card's `models`.
    modalities: that it looks at, in the order of `present`.
    framing: how faces are cut out; None: pictures are of faces.
    require: modalities without which nothing is decided here, though the model could.
    allow_absent: modalities that count as absent where they are given and unusable; of the others,
      that is a failure to acquire.
    sizes: how the sizes of a sample's images agree.
    max_pixels: limit of each image's width times height.
    units: of 16-bit images, which are converted.
  """

  def __init__(
    self,
    card: cards.Card,
    entry: Mapping[str, Any],
    run: formats.Run,
    framing: framing.Framing | None = None,
    require: Sequence[str] = (),
    allow_absent: Sequence[str] = (),
    sizes: str = 'aspect',
    max_pixels: int = image_files.MAX_PIXELS,
    depth_unit: str = '',
    ir_bits: int | str = '',
  ):
    self.card, self.entry, self.framing = card, entry, framing
    self.modalities = tuple(entry.get('modalities', card.modalities))
    alone = not entry.get('present', True)
    require = (*card.requires, *_names('require', require), *self.modalities * alone)
    self.require = tuple(dict.fromkeys(require))
    if unknown := [m for m in self.require if m not in self.modalities]:
      raise ConfigError(f'{unknown[0]} is required, and the model has {self._has()}')
    self.allow_absent = self._allowed(() if allow_absent is None else allow_absent)
    if sizes not in image_checks.SIZES:
      raise ConfigError(f'sizes is {sizes!r}; choose one of {", ".join(image_checks.SIZES)}')
    self.sizes, self.max_pixels = sizes, image_files.check_pixel_limit(max_pixels)
    self.units = units.parse(depth_unit, str(ir_bits or ''))
    self._run = run
    looks = tuple(geometry.parse_views([card.view]).values())
    self._preprocess = Preprocess(
      card.image_size, self.modalities, test_views=looks, resize=card.resize
    )

  @classmethod
  def load(
    cls,
    bundle: str | os.PathLike[str],
    format: str | None = None,
    *,
    precision: str = 'float32',
    modalities: Sequence[str] = (),
    crop: str | None = None,
    yunet: str = '',
    require: Sequence[str] = (),
    allow_absent: Sequence[str] = (),
    sizes: str = 'aspect',
    max_pixels: int = image_files.MAX_PIXELS,
    depth_unit: str = '',
    ir_bits: int | str = '',
    sha256: str | None = None,
    public_key: str | os.PathLike[str] | None = None,
    require_signature: bool = False,
    min_sequence: int | None = None,
    margin: float = 0.3,
    align: str = 'none',
    min_size: int = 32,
    min_score: float = 0.6,
  ) -> 'Predictor':
    """A predictor of a bundle; the bytes that were verified are the bytes that run.

    Args:
      bundle: the folder that an export made.
      format: 'stablehlo' (needs jax), 'onnx' (onnxruntime), 'tflite' (ai-edge-litert), 'weights'
        (all of flexfas_jax); None: the first of the first three whose library is installed.
      precision: 'float32', 'float16' or 'int8'.
      modalities: a model for these alone, which has no input for the others; (): the one for any.
      crop: how the face is cut out: 'box', 'landmarks', 'yunet'; None: it has been.
      yunet: the detector's model file, of 'yunet'.
      require: modalities without which nothing is decided, whatever the model serves.
      allow_absent: modalities that count as absent where they are given and unusable (no signal,
        stale): the remaining ones decide, by their own threshold. Of any other modality that is a
        failure to acquire: if an attacker can cover a sensor, security drops to that of the weakest
        remaining subset. A modality that is not given is absent in either case.
      sizes: how the sizes of a sample's images agree: 'aspect' (their aspect ratios, within 5 %),
        'equal', or 'any', for crops that were made for each modality. Images that do not agree are
        not registered, and refused.
      max_pixels: limit of each image's width times height, checked before it is decoded.
      depth_unit: of depth, converted to mm: of floating point 'm' or 'mm', of 16 bits 'mm', or the
        mm of one step: '0.1mm', '0.25mm'; 65535 becomes 0. '': mm, and 65535 and floating point
        are refused.
      ir_bits: significant bits of 16-bit infrared, scaled to 16: 8, 10, 12, 14, 16. '': 16, and an
        image that uses fewer is refused.
      sha256: that the bundle's `card.json` must have, which names the bytes of all else; None: any.
      public_key: a PEM file with the public Ed25519 key whose private key signed the bundle at its
        export: an unsigned or changed bundle is refused before it is parsed. None: signatures are
        not read.
      require_signature: refuse to load without `public_key`.
      min_sequence: the bundle's sequence number must be at least this, so that an older bundle,
        though signed, is refused. Without a signature or `sha256`, an attacker can edit the number.
        None: any.
      margin, align, min_size, min_score: of the crop, see `faces.Recipe`.

    Raises:
      ConfigError: no such model, or its library is not installed (it is said what to install); a
        modality in `require` or `allow_absent` that the model does not have, or that is in both;
        no usable `public_key`; `sizes`, `max_pixels`, `depth_unit` or `ir_bits` that cannot be.
      StateError: no bundle, or one that is damaged, of another version, other than `sha256`, not
        signed by the key, or older than `min_sequence`.
      DataError: a detector that is none.
    """
    card = cards.read(
      bundle,
      sha256,
      public_key=public_key,
      require_signature=require_signature,
      min_sequence=min_sequence,
    )
    entry = formats.choose(card, format, precision, tuple(modalities))
    how = framing.make(
      crop, yunet, margin=margin, align=align, min_size=min_size, min_score=min_score
    )
    run = formats.load(card, entry)
    return cls(card, entry, run, how, require, allow_absent, sizes, max_pixels, depth_unit, ir_bits)

  def __call__(
    self,
    *,
    times: Mapping[str, float] | None = None,
    max_skew: float | None = None,
    max_age: float | None = None,
    box: Sequence[float] | Mapping[str, str] | None = None,
    allow_absent: Sequence[str] | None = None,
    **given: input_images.Given | None,
  ) -> Decision:
    """Decides about one sample.

    Args:
      times: {modality: seconds} when images were taken, by one clock, and perhaps 'now': with it,
        an image from the future is unusable, see `freshness.stale`.
      max_skew: seconds; an image that differs by more from RGB's time (or the first there is) is
        unusable.
      max_age: seconds; an image that is older than `times['now']` by more is unusable.
      box: left, top, right, bottom of the face, in pixels of RGB (or the first there is), or the
        cells of a list by name: with `crop` 'box' or 'landmarks'.
      allow_absent: in place of the predictor's `allow_absent`, for this call alone; (): none. None:
        the predictor's.
      **given: rgb, depth, ir: each a path, bytes, or an array, see `pictures.read_all`; None or
        left out: absent.

    Returns:
      The decision, by the threshold of the modalities that were used; `fta` where a modality was
      given, is unusable and is not in `allow_absent`.

    Raises:
      DataError: not an image of the kind that the card names, outside the limits of
        `image_files`, or images that are not registered.
      ConfigError: a modality that the model does not have; times or a box that are missing; an
        `allow_absent` that `load` would refuse.
      StateError: no threshold for these modalities; a model that fails.
    """
    start = time.perf_counter()
    allowed = self._allowed(allow_absent)
    acquired = self.acquire(given, times, max_skew, max_age, box)
    found = self.decide(acquired, self.used(acquired), allowed)
    return dataclasses.replace(found, seconds=time.perf_counter() - start)

  def acquire(
    self,
    given: Mapping[str, input_images.Given | None],
    times: Mapping[str, float] | None = None,
    max_skew: float | None = None,
    max_age: float | None = None,
    box: Sequence[float] | Mapping[str, str] | None = None,
    prepared: bool = False,
  ) -> Acquired:
    """What the model sees of a sample; the arguments and errors are those of a call.

    `prepared`: the images are of a prepared set, whose builder has checked sizes, units and ranges.
    """
    sensors = {m: image for m, image in given.items() if image is not None}
    if unknown := [m for m in sensors if m not in self.modalities]:
      raise ConfigError(f'there is no modality {unknown[0]!r} in this model; it has {self._has()}')
    if box is not None and self.framing is None:
      raise ConfigError("a box does nothing without crop='box'")
    named = [m for m in self.modalities if m in sensors]
    late = freshness.stale(named, times, max_skew, max_age)
    reasons = list(late.values())
    whole = self.framing is not None  # frames, whose faces are cropped below
    images = input_images.read_all(
      self.card,
      {m: sensors[m] for m in named if m not in late},
      'any' if prepared else self.sizes,
      self.max_pixels,
      None if prepared else self.units,
      whole,
    )
    for modality in list(images):
      if reason := signal.no_signal(images[modality], modality, frame=whole):
        del images[modality]
        reasons.append(f'{modality} {reason}: it carries no signal')
    if self.framing is not None and images:
      try:
        images, told = self.framing(images, framing.columns_of(box))
        reasons += told
      except face_crop.NoFace as error:
        images = {}
        reasons.append(f'no face: {error}')
    arrays = self._preprocess.preprocess_images(images)
    present = arrays.pop('present')
    for modality, there in zip(self.modalities, present, strict=True):
      if modality in images and not there:
        reasons.append(f'{modality} carries no signal where the face is')
    there = dict(zip(self.modalities, present, strict=True))
    unusable = tuple(m for m in named if not there[m])
    return Acquired(arrays, present, tuple(reasons), images, unusable)

  def used(self, acquired: Acquired) -> tuple[str, ...]:
    """The modalities that a sample has."""
    return tuple(m for m, there in zip(self.modalities, acquired.present, strict=True) if there)

  def refusal(
    self,
    used: Sequence[str],
    unusable: Sequence[str] = (),
    allow_absent: Sequence[str] | None = None,
  ) -> str:
    """Why a sample cannot be decided; '' where it can.

    Args:
      used: the modalities that it has.
      unusable: those that were given and cannot be used.
      allow_absent: as in a call.
    """
    if not used:
      return 'there is nothing to look at'
    if missing := [m for m in self.require if m not in used]:
      return f'{missing[0]} is needed, and absent'
    allowed = self._allowed(allow_absent)
    if blocked := [m for m in unusable if m not in allowed]:
      are = 'are' if len(blocked) > 1 else 'is'
      return (
        f'{" and ".join(blocked)} {are} given and unusable: capture again, or let the others '
        f'decide: --allow_absent={",".join(blocked)}, allow_absent={tuple(blocked)}'
      )
    if (subset := '+'.join(used)) not in self.card.subsets:
      return f'{subset} is not served by this model; it serves {", ".join(self.card.subsets)}'
    return ''

  def decide(
    self,
    acquired: Acquired,
    used: Sequence[str],
    allow_absent: Sequence[str] | None = None,
  ) -> Decision:
    """The decision by some of the modalities of a sample.

    A modality that was given and is unusable makes it a failure to acquire whatever `used` names,
    unless `allow_absent` names that modality.

    Args:
      acquired: the sample.
      used: the modalities that decide; `used(acquired)`: all that it has.
      allow_absent: as in a call.

    Raises:
      ConfigError: `used` names a modality that the sample lacks; an `allow_absent` that `load`
        would refuse.
      StateError: there is no threshold for them; the model fails.
    """
    used = tuple(used)
    if said := self.refusal(used, acquired.unusable, allow_absent):
      reasons = (*acquired.reasons, said)
      return Decision(decisions.FTA, used=used, reasons=reasons, unusable=acquired.unusable)
    if lacking := [m for m in used if m not in self.used(acquired)]:
      # Without it the score is of fewer modalities, and their threshold is another one.
      raise ConfigError(f'{"+".join(used)} is to decide, and the sample has no {lacking[0]}')
    threshold = self.card.threshold('+'.join(used))  # first: without one, nothing is computed
    score = self.scores(
      {m: image[None] for m, image in acquired.arrays.items()},
      np.array([[m in used for m in self.modalities]]) & acquired.present,
    )
    return decisions.of_score(float(score[0]), threshold, used, acquired.reasons, acquired.unusable)

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
    images = {m: np.zeros((1, size, size, schema.channels(m)), np.float32) for m in self.modalities}
    self.scores(images, np.ones((1, len(self.modalities)), bool))

  def _allowed(self, allow_absent: Sequence[str] | None) -> tuple[str, ...]:
    """The modalities that may be absent though they are given; None: the predictor's own.

    Raises:
      ConfigError: a modality that the model does not have, or that is required.
    """
    if allow_absent is None:
      return self.allow_absent
    names = _names('allow_absent', allow_absent)
    if unknown := [m for m in names if m not in self.modalities]:
      raise ConfigError(f'allow_absent: no modality {unknown[0]!r} in this model ({self._has()})')
    if both := [m for m in names if m in self.require]:
      raise ConfigError(
        f'allow_absent: {both[0]} is required (by the model or by require), so it cannot be absent'
      )
    return names

  def _has(self) -> str:
    return ', '.join(self.modalities)


def _names(argument: str, names: Sequence[str]) -> tuple[str, ...]:
  if isinstance(names, str):  # its letters would be taken for names
    raise ConfigError(f'{argument} is {names!r}; give a sequence of names: ({names!r},)')
  if not isinstance(names, Iterable):
    raise ConfigError(f"{argument} is {names!r}; give a sequence of names: ('ir',)")
  return tuple(names)
