"""Whether an image carries signal: the rule by which a modality counts as absent.

Training, evaluation, lint, `prepare`, export and prediction use this rule. It compares parts of an
image, not pixels, so that hot pixels, dark noise and narrow stripes at the border have no effect.
A sensor that repeats an old image has signal: a single image cannot show that.

The limits lie between noise and the 3,332 rendered samples (experiments/reliability/signal.py):

  statistic                 noise, at most               rendered, at least
  measured share of depth   3 % (random pixels)          28 % (attacks), 67 % (bona fide)
  contrast, 8 bits          5 (sigma 4 grey levels)      33 (attacks), 47 (bona fide)
  contrast / spread         1.0 (sigma of 8 and more)    2.1 (attacks), 4.2 (bona fide)

At most 80 % of the infrared face window of a rendered attack (glossy, near the lamp) is at the
maximum, and 0.04 % of a bona fide one; of a dazzled sensor nearly all is.

Six attacks are excluded and have no signal: infrared of a screen, which is dark except for noise
(contrast 3 to 5, no reflection of the lamp). Bona fide images at an eighth of their exposure with
noise of 3 grey levels, and depth with half of the measurements removed, have signal.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from flexfas_jax import schema

MEASURED = 8  # smallest depth that counts as measured, grey levels or mm: JPEG puts less into holes
MEASURED_SHARE = 0.05  # of the face window, at least
MEASURED_SHARE_FRAME = 0.005  # of a whole frame, of which the face may be a small part
ODD_SHARE = 0.001  # of the pixels, at most, differ in depth that is one value; one pixel always may
CONTRAST = 6  # between two cells, at least: grey levels, of 8 or 16 bits
CONTRAST_TO_SPREAD = 1.5  # at least, where contrast is so little that noise could make it:
SATURATED_SHARE = 0.9  # of infrared's face window, at most, at the maximum: 254, or 65278
NOISE = 8  # below this part of the range, which is 32 levels of 8 bits, 8192 of 16
CELLS, CELLS_FRAME = 8, 16  # along a side, of a crop and of a whole frame
SAMPLES = 8  # along the side of a cell
CLIFFS, CLIFFS_TIMES = 0.01, 3.0  # infrared's median, at least, and as a multiple of depth's
FEWEST = 20  # samples of a median, at least


def no_signal(image: np.ndarray, modality: str, *, frame: bool = False) -> str:
  """Returns why an image carries no signal, or '' if it carries signal.

  Depth carries signal where enough of the face window (the central half of its rows and columns) is
  measured and the image is not one value: little range is no fault, since a flat print is a
  measurement too. RGB and infrared carry signal where the medians of two cells of a grid differ
  (contrast), and by more than noise explains: where contrast is little, the typical interquartile
  range within a cell (spread) is the scale of noise. An infrared crop also needs a face window that
  is not saturated. `export.card.preprocessing` has the rule to the pixel.

  Args:
    image: [h, w] or [h, w, C] uint8 or uint16, decoded; of depth and infrared, the first channel
      counts.
    modality: one of `schema.MODALITIES`.
    frame: the image is a whole frame whose face is not cropped yet. The face may be small and
      anywhere, so less is required; check the crop as well.
  """
  if is_constant(image):
    return 'is one colour throughout'
  if schema.is_distance(modality):
    return _no_depth(image, frame)
  return _no_contrast(image, modality, frame)


def is_constant(image: np.ndarray) -> bool:
  """Whether all pixels of [h, w] or [h, w, C] are equal."""
  corner = image[0, 0]
  # A few pixels decide this for nearly every image.
  return bool((image[::16, ::16] == corner).all() and (image == corner).all())


def _no_depth(image: np.ndarray, frame: bool) -> str:
  image = _one_channel(image)
  h, w = image.shape
  window = image if frame else image[h // 4 : h - h // 4, w // 4 : w - w // 4]
  share, least = measured_share(window), MEASURED_SHARE_FRAME if frame else MEASURED_SHARE
  if share < least:
    where = 'the frame' if frame else 'its central half'
    return f'has {share:.1%} of {where} measured, and {least:.1%} are required'
  # If nearly all pixels have one value, it is the median of any thousand of them.
  sample = image[:: 1 + h // 64, :: 1 + w // 64].ravel()
  odd = np.count_nonzero(image != np.partition(sample, sample.size // 2)[sample.size // 2])
  if odd <= max(1, int(ODD_SHARE * image.size)):
    return f'is one value throughout, but for {odd} of {image.size} pixels'
  return ''


def measured_share(depth: np.ndarray) -> float:
  """The share of measured pixels of depth of any shape."""
  return np.count_nonzero(depth >= MEASURED) / depth.size


def _no_contrast(image: np.ndarray, modality: str, frame: bool) -> str:
  contrast, spread = contrast_and_spread(image, modality, CELLS_FRAME if frame else CELLS)
  if contrast < CONTRAST:
    return f'differs between its parts by {contrast} levels, and {CONTRAST} are required'
  noise = 256**image.itemsize // NOISE
  if not frame and contrast < min(noise, CONTRAST_TO_SPREAD * spread):
    return f'is noise: it differs by {contrast} levels between its parts, by {spread} within them'
  saturable = schema.is_intensity(modality) and not frame
  if saturable and (share := saturated_share(image)) > SATURATED_SHARE:
    return f'is saturated: {share:.1%} of its central half are at the maximum'
  return ''


def saturated_share(infrared: np.ndarray) -> float:
  """The share of the pixels in the central half of an infrared image that are at the maximum."""
  h, w = infrared.shape[:2]
  window = _one_channel(infrared)[h // 4 : h - h // 4, w // 4 : w - w // 4]
  maximum = np.iinfo(infrared.dtype).max
  return np.count_nonzero(window >= maximum - maximum // 255) / window.size


def cliffs(image: np.ndarray) -> float:
  """The share of horizontal neighbours in the face window that are a hole and a high value.

  A hole is not measured; a high value is above the 10 % quantile of measured ones. Depth has holes
  beside near values, at noses, glasses and ears. In infrared, dark pixels have dark neighbours.

  Args:
    image: [h, w] or [h, w, C] uint8 or uint16; the first channel counts.
  """
  image = _one_channel(image)
  h, w = image.shape
  window = image[h // 4 : h - h // 4, w // 4 : w - w // 4]
  measured = window >= MEASURED
  if not measured.any():
    return 0.0
  bright = window >= np.quantile(window[measured], 0.1)
  edges = (~measured[:, 1:] & bright[:, :-1]) | (bright[:, 1:] & ~measured[:, :-1])
  return float(edges.mean())


def seem_exchanged(depth: Sequence[float], ir: Sequence[float]) -> bool:
  """Whether depth and infrared of a set are probably exchanged, by `cliffs` of some samples.

  In rendered sets of 200 samples, every exchange is detected without a false alarm; none is
  detected if holes were filled (experiments/reliability/exchanged.py).
  """
  if min(len(depth), len(ir)) < FEWEST:
    return False
  depth_median, ir_median = np.median(depth), np.median(ir)
  return bool(ir_median >= CLIFFS and ir_median >= CLIFFS_TIMES * depth_median)


def contrast_and_spread(image: np.ndarray, modality: str, most: int = CELLS) -> tuple[int, int]:
  """The contrast between the cells of a grid over an image, and the spread within cells.

  Each cell is sampled at `SAMPLES` x `SAMPLES` pixels: the cost does not depend on the image size.
  A side too short for `most` cells has fewer, at least two.

  Args:
    image: as in `no_signal`.
    modality: one that is not a distance.
    most: cells along a side.

  Returns:
    Largest minus smallest median of a cell; median of the cells' interquartile ranges.
  """
  down, across = (max(2, min(most, side // SAMPLES)) for side in image.shape[:2])
  size = (across * SAMPLES, down * SAMPLES)
  samples = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
  if schema.is_color(modality) and samples.ndim == 3 and samples.shape[-1] == 3:
    samples = cv2.cvtColor(samples, cv2.COLOR_RGB2GRAY)
  samples = _one_channel(samples).reshape(down, SAMPLES, across, SAMPLES)
  samples = samples.swapaxes(1, 2).reshape(-1, SAMPLES**2)  # [cells, samples]
  samples = np.sort(samples.astype(np.uint32), axis=1)  # which NumPy sorts three times as fast
  low, median, high = (samples[:, i * SAMPLES**2 // 4] for i in (1, 2, 3))
  return int(median.max()) - int(median.min()), int(np.sort(high - low)[len(samples) // 2])


def _one_channel(image: np.ndarray) -> np.ndarray:
  return image if image.ndim == 2 else image[..., 0]
