"""What pixels say: to float, and photometric changes, each modality on its own."""

from collections.abc import Mapping

import numpy as np

DEPTH_WINDOW = 400.0  # mm around the face that become the whole range


def to_unit(image: np.ndarray, modality: str) -> np.ndarray:
  """[H, W, C] uint8 or uint16 to float32 in [0, 1].

  16-bit depth is distance in mm and becomes what 8-bit visualisations show: the middle of the
  picture's face at 0.5, nearer brighter, no measurement 0. The median over the central half is the
  face's distance whether or not the background was cut away.
  """
  if image.dtype == np.uint8:
    return image.astype(np.float32) / 255
  if modality != 'depth':  # e.g. 10 to 16-bit infrared
    return image.astype(np.float32) / 65535
  H, W, _ = image.shape
  centre = image[H // 4 : H - H // 4, W // 4 : W - W // 4]
  measured = centre[centre > 0]
  if not measured.size:
    measured = image[image > 0]
  middle = np.median(measured) if measured.size else 0.0
  unit = 0.5 - (image.astype(np.float32) - np.float32(middle)) / DEPTH_WINDOW
  return np.where(image > 0, np.clip(unit, 1 / 255, 1), 0).astype(np.float32)


def photometric(
  rng: np.random.Generator,
  image: np.ndarray,
  add: float = 0.0,
  contrast: float = 0.0,
  gamma: float = 0.0,
  per_channel: bool = False,
  noise: float = 0.0,
) -> np.ndarray:
  """Changes brightness, contrast and gamma of [H, W, C] float32 in [0, 1]; stays in [0, 1].

  Args:
    rng: this sample's and modality's generator.
    image: see above.
    add: largest value added or taken away. The reference: 40 / 255 (FACTS A2).
    contrast: largest relative change about the mean.
    gamma: largest |log| of the exponent. The reference draws the exponent from 0.5 to 1.5.
    per_channel: draw `add` for each channel.
    noise: largest standard deviation of white noise, itself drawn evenly from 0.
  """
  C = image.shape[-1]
  shift, stretch, bend = rng.uniform(-1, 1, C), rng.uniform(-1, 1), rng.uniform(-1, 1)
  shift = (shift if per_channel else shift[:1]).astype(np.float32)
  if gamma:
    image = np.clip(image, 0, 1) ** np.float32(np.exp(bend * gamma))
  if contrast:
    mean = image.mean()
    image = (image - mean) * np.float32(1 + stretch * contrast) + mean
  image = image + shift * np.float32(add)
  if noise:
    image = image + rng.normal(0, rng.uniform(0, noise), image.shape).astype(np.float32)
  return np.clip(image, 0, 1).astype(np.float32)


def cutout(images: Mapping[str, np.ndarray], rng: np.random.Generator, largest: int) -> dict:
  """Blackens one square of 1 to `largest` pixels, at the same place in all modalities (A2)."""
  H, W, _ = next(iter(images.values())).shape
  side = int(rng.integers(1, largest + 1))
  y, x = int(rng.integers(0, H)), int(rng.integers(0, W))
  rows = slice(max(0, y - side // 2), y - side // 2 + side)
  columns = slice(max(0, x - side // 2), x - side // 2 + side)
  changed = {}
  for modality, image in images.items():
    changed[modality] = image.copy()
    changed[modality][rows, columns] = 0
  return changed
