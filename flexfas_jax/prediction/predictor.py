"""The predictor: images in, a decision out."""

import dataclasses
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flexfas_jax import schema
from flexfas_jax.errors import ConfigError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.images import face_crop, geometry, signal, units
from flexfas_jax.images import files as image_files
from flexfas_jax.images.preprocess import Preprocess
from flexfas_jax.prediction import card as cards
from flexfas_jax.prediction import face_cropper, freshness, input_images, model_loader
from flexfas_jax.prediction.decision import FTA, Decision, decide
from flexfas_jax.prediction.sigmoid import sigmoid


class Acquired(NamedTuple):
  """A sample as the model takes it."""

  arrays: dict[str, np.ndarray]  # [S, S, C] float32 of every modality; zeros where absent
  present: np.ndarray  # [M] bool
  reasons: tuple[str, ...]  # why given modalities are unusable, and further notes
  crops: dict[str, np.ndarray]  # [H, W, C] of the usable modalities, before preprocessing
  unusable: tuple[str, ...] = ()  # given but not present: no signal, stale, no face


class Predictor:
  """Decides about samples with a model of a bundle: `predictor(rgb=..., depth=..., ir=...)`.

  Threads may share a predictor. They run in parallel, except that they take turns at a TFLite model
  and at the face detector of crop='yunet'. If a TFLite model limits the throughput, load a
  predictor per thread; each has a copy of the weights.

  Attributes:
    card: of the bundle.
    entry: of the model that runs, in the card's `models`.
    modalities: inputs of the model, in the order of `present`.
    cropper: crops faces; None if images are cropped already.
    require: modalities without which there is no decision, by the model or by the caller.
    allow_absent: modalities that count as absent if they are given but unusable; any other one
      makes the sample a failure to acquire.
    sizes: how the image sizes of a sample must agree.
    max_pixels: limit of each image's width times height.
    units: of 16-bit images, which are converted.
  """

  def __init__(
    self,
    card: cards.Card,
    entry: Mapping[str, Any],
    run: model_loader.ModelFunction,
    cropper: face_cropper.FaceCropper | None = None,
    require: Sequence[str] = (),
    allow_absent: Sequence[str] = (),
    sizes: str = 'aspect',
    max_pixels: int = image_files.MAX_PIXELS,
    depth_unit: str = '',
    ir_bits: int | str = '',
  ):
    self.card, self.entry, self.cropper = card, entry, cropper
    self.modalities = tuple(entry.get('modalities', card.modalities))
    required = [*card.requires, *_check_names('require', require)]
    if not entry.get('present', True):  # a model for exactly these modalities
      required += self.modalities
    self.require = tuple(dict.fromkeys(required))
    if unknown := [m for m in self.require if m not in self.modalities]:
      raise ConfigError(f'{unknown[0]} is required, but the model has {self._listed_modalities}')
    self.allow_absent = self._allowed(() if allow_absent is None else allow_absent)
    if sizes not in image_checks.SIZES:
      raise ConfigError(f'sizes is {sizes!r}; choose one of {", ".join(image_checks.SIZES)}')
    self.sizes, self.max_pixels = sizes, image_files.check_pixel_limit(max_pixels)
    self.units = units.parse(depth_unit, str(ir_bits or ''))
    self._run = run
    views = tuple(geometry.parse_views([card.view]).values())
    self._preprocess = Preprocess(
      card.image_size, self.modalities, test_views=views, resize=card.resize
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
    """Loads a model of a bundle, from the bytes that were verified.

    Args:
      bundle: folder that an export made.
      format: 'stablehlo' (requires jax), 'onnx' (onnxruntime), 'tflite' (ai-edge-litert), 'weights'
        (all of flexfas_jax); None: the first of the first three whose library is installed.
      precision: 'float32', 'float16' or 'int8'.
      modalities: a model for exactly these, which has no input for the others; (): the model for
        any subset.
      crop: how to crop the face: 'box', 'landmarks', 'yunet'; None: images are cropped already.
      yunet: path of the detector's model, for 'yunet'.
      require: modalities without which there is no decision, even if the model serves the subset.
      allow_absent: modalities that count as absent if they are given but unusable (no signal,
        stale): the threshold of the remaining subset applies. Any other unusable modality makes the
        sample a failure to acquire: if an attacker can cover a sensor, security drops to that of
        the weakest remaining subset. A modality that is not given is absent in either case.
      sizes: how the image sizes of a sample must agree: 'aspect' (aspect ratios within 5 %),
        'equal', or 'any' for modalities that were cropped separately. Images that do not agree are
        not registered and raise DataError.
      max_pixels: limit of each image's width times height, checked before it is decoded.
      depth_unit: unit of depth, converted to mm: of floating point 'm' or 'mm', of 16 bits 'mm', or
        the mm of one step: '0.1mm', '0.25mm', with 65535 read as 0. '': mm, and 65535 and floating
        point raise DataError.
      ir_bits: significant bits of 16-bit infrared, scaled to 16: 8, 10, 12, 14, 16. '': 16, and an
        image that uses fewer raises DataError.
      sha256: expected SHA-256 of the bundle's `card.json`, which holds those of all other files;
        None: any.
      public_key: PEM file of the public Ed25519 key whose private key signed the bundle. An
        unsigned or changed bundle raises StateError before it is parsed. None: the signature is not
        read.
      require_signature: raise ConfigError if `public_key` is None.
      min_sequence: lowest sequence number: an older bundle raises StateError, even if it is signed.
        Without a signature or `sha256`, an attacker can edit the number. None: any.
      margin, align, min_size, min_score: of the crop, see `face_crop.CropRecipe`.

    Raises:
      ConfigError: no such model, or its library is not installed; a modality in `require` or
        `allow_absent` that the model does not have, or that is in both; no usable `public_key`; an
        invalid `sizes`, `max_pixels`, `depth_unit` or `ir_bits`.
      StateError: no bundle, or one that is damaged, of another version, different from `sha256`,
        not signed by the key, or older than `min_sequence`.
      DataError: the file of the face detector is unusable.
    """
    card = cards.read(
      bundle,
      sha256,
      public_key=public_key,
      require_signature=require_signature,
      min_sequence=min_sequence,
    )
    entry = model_loader.choose_model(card, format, precision, tuple(modalities))
    cropper = face_cropper.make_cropper(
      crop, yunet, margin=margin, align=align, min_size=min_size, min_score=min_score
    )
    run = model_loader.load_model(card, entry)
    return cls(
      card,
      entry,
      run,
      cropper,
      require=require,
      allow_absent=allow_absent,
      sizes=sizes,
      max_pixels=max_pixels,
      depth_unit=depth_unit,
      ir_bits=ir_bits,
    )

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
      times: {modality: seconds} of capture by one clock, optionally with 'now': an image from the
        future is then unusable, see `freshness.find_stale`.
      max_skew: seconds; an image is unusable if its time differs by more from RGB's (or from the
        first modality's).
      max_age: seconds; an image is unusable if it is older at `times['now']`.
      box: left, top, right, bottom of the face, in pixels of RGB (or of the first modality), or
        columns of a list, for `crop` 'box' or 'landmarks'.
      allow_absent: replaces the predictor's `allow_absent` in this call; (): none.
      **given: rgb, depth, ir: a path, bytes, or an array, see `input_images.read_images`; None or
        omitted: absent.

    Returns:
      The decision by the threshold of the used modalities; 'fta' if a modality is given, unusable
      and not in `allow_absent`.

    Raises:
      DataError: not an image that the card allows, outside the limits of `images.files`, or images
        that are not registered.
      ConfigError: a modality that the model does not have; missing times or box; an `allow_absent`
        that `load` rejects.
      StateError: no threshold for these modalities; the model fails.
    """
    start = time.perf_counter()
    allowed = self._allowed(allow_absent)
    acquired = self.acquire(given, times, max_skew, max_age, box)
    decision = self.decide(acquired, self.used(acquired), allowed)
    return dataclasses.replace(decision, seconds=time.perf_counter() - start)

  def acquire(
    self,
    given: Mapping[str, input_images.Given | None],
    times: Mapping[str, float] | None = None,
    max_skew: float | None = None,
    max_age: float | None = None,
    box: Sequence[float] | Mapping[str, str] | None = None,
    prepared: bool = False,
  ) -> Acquired:
    """Reads, crops and preprocesses a sample.

    Args:
      given: {modality: image}; None: absent.
      times, max_skew, max_age, box: as in a call.
      prepared: the images are of a prepared set, whose builder has checked sizes, units and ranges.

    Raises:
      DataError, ConfigError: as in a call.
    """
    sensors = {m: image for m, image in given.items() if image is not None}
    if unknown := [m for m in sensors if m not in self.modalities]:
      raise ConfigError(
        f'this model has no modality {unknown[0]!r}; it has {self._listed_modalities}'
      )
    if box is not None and self.cropper is None:
      raise ConfigError("a box has no effect without crop='box'")
    modalities = [m for m in self.modalities if m in sensors]
    stale = freshness.find_stale(modalities, times, max_skew, max_age)
    reasons = list(stale.values())
    is_frame = self.cropper is not None  # the face is cropped below
    images = input_images.read_images(
      self.card,
      {m: sensors[m] for m in modalities if m not in stale},
      'any' if prepared else self.sizes,
      self.max_pixels,
      None if prepared else self.units,
      is_frame,
    )
    for modality in list(images):
      if reason := signal.no_signal(images[modality], modality, frame=is_frame):
        del images[modality]
        reasons.append(f'{modality} {reason}: it carries no signal')
    if self.cropper is not None and images:
      try:
        images, notes = self.cropper(images, face_cropper.box_columns(box))
        reasons += notes
      except face_crop.NoFace as error:
        images = {}
        reasons.append(f'no face: {error}')
    arrays = self._preprocess.preprocess_images(images)
    present = arrays.pop('present')
    is_present = dict(zip(self.modalities, present, strict=True))
    unusable = tuple(m for m in modalities if not is_present[m])
    for modality in unusable:
      if modality in images:
        reasons.append(f'{modality} carries no signal where the face is')
    return Acquired(arrays, present, tuple(reasons), images, unusable)

  def used(self, acquired: Acquired) -> tuple[str, ...]:
    """The modalities of a sample that are present."""
    return tuple(
      m for m, is_present in zip(self.modalities, acquired.present, strict=True) if is_present
    )

  def refusal(
    self,
    used: Sequence[str],
    unusable: Sequence[str] = (),
    allow_absent: Sequence[str] | None = None,
  ) -> str:
    """Why there is no decision about a sample; '' if there is one.

    Args:
      used: its present modalities.
      unusable: its modalities that were given but cannot be used.
      allow_absent: as in a call.
    """
    if not used:
      return 'no modality is usable'
    if missing := [m for m in self.require if m not in used]:
      return f'{missing[0]} is required but absent'
    allowed = self._allowed(allow_absent)
    if blocked := [m for m in unusable if m not in allowed]:
      are = 'are' if len(blocked) > 1 else 'is'
      return (
        f'{" and ".join(blocked)} {are} given but unusable: capture again, or decide without: '
        f'--allow_absent={",".join(blocked)}, allow_absent={tuple(blocked)}'
      )
    if (subset := '+'.join(used)) not in self.card.subsets:
      return f'this model does not serve {subset}; it serves {", ".join(self.card.subsets)}'
    return ''

  def decide(
    self,
    acquired: Acquired,
    used: Sequence[str],
    allow_absent: Sequence[str] | None = None,
  ) -> Decision:
    """Decides by some of the modalities of a sample.

    A modality that was given but is unusable makes the sample a failure to acquire, even if `used`
    does not name it, unless `allow_absent` does.

    Args:
      acquired: the sample.
      used: the modalities that decide; `used(acquired)`: all that are present.
      allow_absent: as in a call.

    Raises:
      ConfigError: `used` names a modality that the sample lacks; an `allow_absent` that `load`
        rejects.
      StateError: no threshold for `used`; the model fails.
    """
    used = tuple(used)
    if refusal := self.refusal(used, acquired.unusable, allow_absent):
      reasons = (*acquired.reasons, refusal)
      return Decision(FTA, used=used, reasons=reasons, unusable=acquired.unusable)
    if lacking := [m for m in used if m not in self.used(acquired)]:
      # The score would be that of fewer modalities, which have another threshold.
      raise ConfigError(f'{"+".join(used)} cannot decide: the sample has no {lacking[0]}')
    threshold = self.card.threshold('+'.join(used))  # raises before the model runs
    score = self.scores(
      {m: image[None] for m, image in acquired.arrays.items()},
      np.array([[m in used for m in self.modalities]]) & acquired.present,
    )
    return decide(float(score[0]), threshold, used, acquired.reasons, acquired.unusable)

  def scores(self, images: Mapping[str, np.ndarray], present: np.ndarray) -> np.ndarray:
    """Runs the model.

    Args:
      images: {modality: [B, S, S, C] float32}.
      present: [B, M] bool.

    Returns:
      [B] probabilities of bona fide, NaN where the logit is not finite. They are float64: float32
      rounds all probabilities of logits above 17 to 1.
    """
    logit = self._run({m: images[m] for m in self.modalities}, present)
    return np.where(np.isfinite(logit), sigmoid(logit.astype(np.float64)), math.nan)

  def warm_up(self) -> None:
    """Runs the model once on empty images: some formats compile, or fail, at the first call."""
    size = self.card.image_size
    images = {m: np.zeros((1, size, size, schema.channels(m)), np.float32) for m in self.modalities}
    self.scores(images, np.ones((1, len(self.modalities)), bool))

  def _allowed(self, allow_absent: Sequence[str] | None) -> tuple[str, ...]:
    """The modalities that may be unusable; None: those of the predictor.

    Raises:
      ConfigError: a modality that the model does not have, or that is required.
    """
    if allow_absent is None:
      return self.allow_absent
    names = _check_names('allow_absent', allow_absent)
    if unknown := [m for m in names if m not in self.modalities]:
      raise ConfigError(
        f'allow_absent: no modality {unknown[0]!r} in this model ({self._listed_modalities})'
      )
    if both := [m for m in names if m in self.require]:
      raise ConfigError(
        f'allow_absent: {both[0]} is required (by the model or by require), so it cannot be absent'
      )
    return names

  @property
  def _listed_modalities(self) -> str:
    return ', '.join(self.modalities)


def _check_names(argument: str, names: Sequence[str]) -> tuple[str, ...]:
  if isinstance(names, str):  # a sequence of letters
    raise ConfigError(f'{argument} is {names!r}; give a sequence of names: ({names!r},)')
  if not isinstance(names, Iterable):
    raise ConfigError(f"{argument} is {names!r}; give a sequence of names: ('ir',)")
  return tuple(names)
