"""Hand-made features of one image, each a pure function.

An image is [h, w, C] float32 in [0, 1] at its stored size, as `transforms.to_unit` returns it:
distances are near the middle at the face's depth, and 0 where nothing was measured.
"""

import itertools

import cv2
import numpy as np

from flexfas_jax import schema

THUMBNAIL = 8  # pixels along a side
RADII = (1, 2)  # of local binary patterns, pixels
RINGS = 16  # of the spectrum, up to 0.5 cycles per pixel
CELLS, ORIENTATIONS = 4, 8  # of gradient histograms

# Neighbours clockwise from the top left; bit k of a pattern is neighbour k.
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
_UNIFORM = [
  code
  for code in range(256)
  if bin(code ^ ((code >> 1) | ((code & 1) << 7))).count('1') <= 2  # at most two 0-1 changes
]
# The bin of each pattern: one per uniform pattern, and one for the others.
_BINS = np.array([_UNIFORM.index(c) if c in _UNIFORM else len(_UNIFORM) for c in range(256)])
_TINY = 1e-12


def thumbnail(image: np.ndarray, side: int = THUMBNAIL) -> np.ndarray:
  """Means of side x side cells, [side * side * C]."""
  return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).ravel()


def to_grey(image: np.ndarray) -> np.ndarray:
  """Mean of the channels, [h, w]."""
  return np.ascontiguousarray(image.mean(-1, dtype=np.float32))


def pattern_codes(grey: np.ndarray, radius: int = 1) -> np.ndarray:
  """Local binary patterns (Ojala et al., 2002) on a square, [h - 2 radius, w - 2 radius] uint8.

  Bit k is set where neighbour k is at least as bright as the centre.
  """
  h, w = (size - 2 * radius for size in grey.shape)
  centre = grey[radius : radius + h, radius : radius + w]
  codes = np.zeros((h, w), np.uint8)
  for bit, (dy, dx) in enumerate(_NEIGHBOURS):
    y, x = radius * (1 + dy), radius * (1 + dx)
    codes |= (grey[y : y + h, x : x + w] >= centre).astype(np.uint8) << bit
  return codes


def local_binary_patterns(image: np.ndarray) -> np.ndarray:
  """Histograms of uniform patterns for each radius; of Y, Cr, Cb for colour images."""
  planes = (
    cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb))
    if image.shape[-1] == 3
    else [to_grey(image)]
  )
  histograms = []
  for plane, radius in itertools.product(planes, RADII):
    bins = _BINS[pattern_codes(plane, radius)]
    histograms.append(np.bincount(bins.ravel(), minlength=len(_UNIFORM) + 1) / bins.size)
  return np.concatenate(histograms)


def ring_powers(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Spectrum of the Hann-windowed image by ring of spatial frequency.

  Returns:
    Mean and largest power of each ring, [RINGS] each. Ring k holds frequencies of
    k / (2 RINGS) cycles per pixel and above; beyond 0.5 (the corners) none is counted.
  """
  h, w = grey.shape
  window = np.hanning(h)[:, None] * np.hanning(w)[None]
  power = np.abs(np.fft.rfft2((grey - grey.mean()) * window)) ** 2 / (h * w)
  frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None])
  ring = np.minimum((frequency * 2 * RINGS).astype(int), RINGS).ravel()
  count = np.maximum(np.bincount(ring, minlength=RINGS + 1), 1)
  mean = np.bincount(ring, power.ravel(), RINGS + 1) / count
  largest = np.zeros(RINGS + 1)
  np.maximum.at(largest, ring, power.ravel())
  return mean[:RINGS], largest[:RINGS]


def spectrum(image: np.ndarray) -> np.ndarray:
  """Logarithms of mean power and of peak over mean, of each ring: [2 RINGS]."""
  mean, largest = ring_powers(to_grey(image))
  return np.concatenate([np.log10(mean + _TINY), np.log10((largest + _TINY) / (mean + _TINY))])


def gradients(image: np.ndarray) -> np.ndarray:
  """Histograms of orientation by cell, weighted by magnitude, and quantiles of magnitude."""
  grey = to_grey(image)
  dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
  magnitude = np.hypot(dx, dy)
  turn = np.mod(np.arctan2(dy, dx) / np.pi, 1)  # half a turn is 1
  orientation = np.minimum((turn * ORIENTATIONS).astype(int), ORIENTATIONS - 1)
  h, w = grey.shape
  row, column = np.arange(h) * CELLS // h, np.arange(w) * CELLS // w
  place = ((row[:, None] * CELLS + column[None]) * ORIENTATIONS + orientation).ravel()
  histogram = np.bincount(place, magnitude.ravel(), CELLS * CELLS * ORIENTATIONS)
  histogram /= np.linalg.norm(histogram) + _TINY
  return np.concatenate([histogram, np.quantile(magnitude, (0.1, 0.25, 0.5, 0.75, 0.9, 0.99))])


def colours(image: np.ndarray) -> np.ndarray:
  """Means, deviations, quantiles of each channel; of RGB, HSV and YCrCb for colour images."""
  image = np.ascontiguousarray(image[::2, ::2])  # a quarter of the pixels is enough
  planes = [image]
  if image.shape[-1] == 3:
    planes += [cv2.cvtColor(image, code) for code in (cv2.COLOR_RGB2HSV, cv2.COLOR_RGB2YCrCb)]
  channels = np.stack([channel.ravel() for plane in planes for channel in cv2.split(plane)])
  marks = np.quantile(channels, (0.05, 0.25, 0.5, 0.75, 0.95), axis=1)
  return np.concatenate([channels.mean(1), channels.std(1), marks.ravel()])


def statistics(image: np.ndarray, distance: bool = False) -> dict[str, float]:
  """Single numbers that a human would try first, {name: value}.

  Args:
    image: as above.
    distance: zeros are not measured, and do not count in those of the centre.
  """
  grey = to_grey(image)
  h, w = grey.shape
  inner = (slice(h // 4, h - h // 4), slice(w // 4, w - w // 4))
  centre = grey[inner]
  measured = centre > 0 if distance else np.ones_like(centre, bool)
  if not measured.any():
    measured[:] = True
  y, x = np.nonzero(measured)
  values = centre[measured].astype(np.float64)
  mean, deviation = values.mean(), values.std()
  plane = np.stack([np.ones_like(values), y, x], 1)
  residual = values - plane @ np.linalg.lstsq(plane, values, rcond=None)[0]
  low, high = np.quantile(values, (0.05, 0.95))
  ch, cw = centre.shape
  # The middle ninth of the image's centre, which holds the nose.
  nose = (abs(2 * y + 1 - ch) < ch / 3) & (abs(2 * x + 1 - cw) < cw / 3)
  laplacian = cv2.Laplacian(grey, cv2.CV_32F)
  power, _ = ring_powers(grey)
  border = (grey.sum() - centre.sum()) / (grey.size - centre.size)
  numbers = {
    'mean': grey.mean(),
    'deviation': grey.std(),
    'centre_mean': mean,
    'centre_deviation': deviation,
    'centre_range': high - low,
    'centre_skewness': ((values - mean) ** 3).mean() / (deviation + 1e-6) ** 3,
    'relief': residual.std(),  # deviation from a plane
    'nose': (values[nose].mean() if nose.any() else mean) - mean,
    'contrast': centre.mean() - border,
    'sharpness': np.log10(laplacian.var() + _TINY),
    'centre_sharpness': np.log10(laplacian[inner].var() + _TINY),
    'high_frequencies': np.log10(power[RINGS // 2 :].sum() / (power.sum() + _TINY) + _TINY),
    'asymmetry': np.abs(centre - centre[:, ::-1]).mean(),
    'dark': (grey < 0.02).mean(),
    'centre_dark': (centre < 0.02).mean(),
    'bright': (grey > 0.98).mean(),
  }
  if image.shape[-1] == 3:
    red, green, blue = cv2.split(image)
    saturation = np.maximum.reduce([red, green, blue]) - np.minimum.reduce([red, green, blue])
    numbers |= {
      'red': (red - green).mean(),
      'blue': (blue - green).mean(),
      'saturation': saturation.mean(),
      'saturation_deviation': saturation.std(),
    }
  return {name: float(value) for name, value in numbers.items()}


def file_size(encoded: bytes, image: np.ndarray) -> np.ndarray:
  """Logarithm of the number of bytes, and of bytes per pixel, [2]."""
  n = len(encoded)
  return np.log10([n, n / (image.shape[0] * image.shape[1])])


def describe(encoded: bytes, image: np.ndarray, modality: str) -> dict[str, np.ndarray]:
  """All features of an image, {group: [D] float32}.

  Args:
    encoded: the file.
    image: as above.
    modality: of `schema.MODALITIES`.
  """
  groups = {
    'thumbnail': thumbnail(image),
    'statistics': list(statistics(image, schema.is_distance(modality)).values()),
    'colours': colours(image),
    'patterns': local_binary_patterns(image),
    'gradients': gradients(image),
    'spectrum': spectrum(image),
    'file_size': file_size(encoded, image),
  }
  return {group: np.asarray(values, np.float32) for group, values in groups.items()}


def statistic_names(modality: str) -> list[str]:
  """The names of the group 'statistics', in its order."""
  return list(statistics(np.zeros((16, 16, schema.channels(modality)), np.float32)))
