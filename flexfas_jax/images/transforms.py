"""Pixel values: conversion to float, photometric changes, masks; each modality on its own."""

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np

from flexfas_jax import schema

DEPTH_WINDOW = 400.0  # mm about the face that become the range [0, 1]

Pointwise = Callable[[np.ndarray], np.ndarray]  # [..., C] float32 to the same

_UNIT = np.linspace(0, 1, 256, dtype=np.float32)[:, None]  # of 8 bits, [256, 1]


def to_unit(image: np.ndarray, modality: str, *changes: Pointwise) -> np.ndarray:
  """Converts [H, W, C] uint8 or uint16 to float32 in [0, 1] and applies changes.

  16-bit depth is distance in mm and becomes what 8-bit visualisations show: the face at 0.5, nearer
  is brighter, 0 is not measured. The distance of the face is the median over the central half,
  with or without background.

  Args:
    image: see above.
    modality: distances have millimetres in 16 bits.
    changes: applied in order, as from `draw_photometric`.
  """
  H, W, C = image.shape
  if image.dtype == np.uint8:  # by table: 256 values to change instead of H W
    table = _changed(np.repeat(_UNIT, C, 1), changes)  # [256, C]
    # A table for each channel: OpenCV takes twice as long for all at once.
    channels = zip(cv2.split(image), table.T, strict=True)
    return cv2.merge([cv2.LUT(one, values.copy()) for one, values in channels]).reshape(H, W, C)
  if schema.is_distance(modality):
    return _changed(_distance_to_unit(image), changes)
  return _changed(image.astype(np.float32) / 65535, changes)


def _changed(unit: np.ndarray, changes: Sequence[Pointwise]) -> np.ndarray:
  for change in changes:
    unit = change(unit)
  return unit


def _distance_to_unit(image: np.ndarray) -> np.ndarray:
  """Millimetres [H, W, 1] uint16 to shares of the window about the face, [H, W, 1] float32."""
  H, W, _ = image.shape
  centre = image[H // 4 : H - H // 4, W // 4 : W - W // 4]
  measured = centre[centre > 0]
  if not measured.size:
    measured = image[image > 0]
  middle = np.median(measured) if measured.size else 0.0
  unit = 0.5 - (image.astype(np.float32) - np.float32(middle)) / np.float32(DEPTH_WINDOW)
  return np.where(image > 0, np.clip(unit, 1 / 255, 1), 0).astype(np.float32)


def live_mask(image: np.ndarray, size: int) -> np.ndarray:
  """Where a bona fide image is not black: the target of pixel-wise losses, [size, size] float32.

  The references' mask: the resized grey image > 0 (Flex-Modal-FAS:
  Load_FAS_MultiModal_DropModal.py, `get_single_image_x_RGB`, 28 for 224 pixels; ZitongYu/CDCN:
  Loadtemporal_BinaryMask_train_3modality.py, 32 for 256). It requires data
  without background: with one, everything is live.

  Args:
    image: [H, W, C] uint8 or uint16, C = 3 (RGB) or 1.
    size: of the mask.
  """
  grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.shape[-1] == 3 else image
  small = cv2.resize(grey, (size, size), interpolation=cv2.INTER_LINEAR).reshape(size, size)
  return (small > 0).astype(np.float32)


def draw_photometric(
  rng: np.random.Generator,
  channels: int,
  add: float = 0.0,
  contrast: float = 0.0,
  gamma: float | tuple[float, float] = 0.0,
  per_channel: bool = False,
  integers: bool = False,
  add_first: bool = False,
) -> Pointwise:
  """Draws a change of gamma, contrast and brightness, in this order, with results in [0, 1].

  Args:
    rng: this sample's generator.
    channels: C.
    add: largest value added or taken away. The reference: 40 / 255.
    contrast: largest relative change about middle grey.
    gamma: largest |log| of the exponent, or the range that it is drawn from evenly. The reference:
      (0.5, 1.5).
    per_channel: draw `add` for each of three channels; an image with one channel gets the mean of
      the three. The reference reads depth and infrared as three equal channels, so that the draws
      colour them; their mean is what such an image's brightness changes by.
    integers: `add` is a whole number of 1 / 255, as in the reference.
    add_first: add before gamma and contrast, as in the reference, which then clips to [0, 1].
  """
  draws = 3 if per_channel else channels
  shift, stretch, bend = rng.uniform(-1, 1, draws), rng.uniform(-1, 1), rng.uniform(-1, 1)
  if integers:  # evenly from -n to n
    n = round(255 * add)
    shift = (np.floor((shift + 1) / 2 * (2 * n + 1)) - n) / 255
  else:
    shift = add * shift
  if not per_channel:
    shift = shift[:1]
  elif channels == 1:
    shift = shift.mean(keepdims=True)
  shift = np.float32(shift)  # [C] or [1]
  stretch = np.float32(1 + stretch * contrast)
  if isinstance(gamma, int | float):
    exponent = np.float32(np.exp(bend * gamma))
  else:
    exponent = np.float32(gamma[0] + (bend + 1) / 2 * (gamma[1] - gamma[0]))

  def change(unit: np.ndarray) -> np.ndarray:
    if add_first:
      unit = np.clip(unit + shift, 0, 1)
      unit = unit**exponent if gamma else unit
      return np.clip((unit - np.float32(0.5)) * stretch + np.float32(0.5), 0, 1)
    unit = unit**exponent if gamma else unit
    return np.clip((unit - np.float32(0.5)) * stretch + np.float32(0.5) + shift, 0, 1)

  return change


def cutout(
  images: Mapping[str, np.ndarray], rng: np.random.Generator, largest: int, black: float = 0.0
) -> dict:
  """Blackens one square at the same place in all modalities, clipped to the image.

  As in the references, its side is 2 (L // 2) pixels, L drawn evenly from 1 to `largest`: even, and
  0, which changes nothing, once in `largest` draws.
  """
  H, W, _ = next(iter(images.values())).shape
  half = int(rng.integers(1, largest + 1)) // 2
  y, x = int(rng.integers(0, H)), int(rng.integers(0, W))
  rows = slice(max(0, y - half), y + half)
  columns = slice(max(0, x - half), x + half)
  changed = {}
  for modality, image in images.items():
    changed[modality] = image.copy()
    changed[modality][rows, columns] = black
  return changed
