"""Whether an image carries signal: the one rule by which a modality counts as absent.

Training, evaluation, lint, `prepare`, export and prediction all ask here. The rule compares parts
of an image, not pixels, so that hot pixels, dark noise and narrow stripes at the border count for
nothing. A sensor that repeats an old image has signal: one image cannot show that.

The limits lie between noise and the 3,332 rendered samples (experiments/reliability/signal.py):

  statistic                 noise, at most               rendered, at least
  measured share of depth   3 % (random pixels)          28 % (attacks), 67 % (bona fide)
  contrast, 8 bits          5 (sigma 4 grey levels)      33 (attacks), 47 (bona fide)
  contrast / spread         1.0 (sigma of 8 and more)    2.1 (attacks), 4.2 (bona fide)

At the maximum are at most 80 % of the face window of a rendered attack (infrared, glossy and near
the lamp) and 0.04 % of a bona fide one; a sensor that is dazzled has nearly all there.

Six attacks are left out of that and have no signal: infrared of a screen, which is dark but for
noise (contrast 3 to 5, no lamp's reflection). Bona fide images at an eighth of their exposure with
noise of 3 grey levels, and depth of which half is taken away, keep signal.
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
FEWEST = 20  # samples that a median is of


def no_signal(image: np.ndarray, modality: str, *, frame: bool = False) -> str:
  """Why an image carries no signal; '' where it carries one.

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
      anywhere, so less is required; ask again about the crop.
  """
  if constant(image):
    return 'is one colour throughout'
  if schema.is_distance(modality):
    return _no_depth(image, frame)
  return _no_contrast(image, modality, frame)


def constant(image: np.ndarray) -> bool:
  """Whether all pixels of [h, w] or [h, w, C] are the same."""
  corner = image[0, 0]
  # A few pixels show of nearly every image that it is not.
  return bool((image[::16, ::16] == corner).all() and (image == corner).all())


def _no_depth(image: np.ndarray, frame: bool) -> str:
  image = _one_channel(image)
  h, w = image.shape
  window = image if frame else image[h // 4 : h - h // 4, w // 4 : w - w // 4]
  share, least = measured_share(window), MEASURED_SHARE_FRAME if frame else MEASURED_SHARE
  if share < least:
    where = 'the frame' if frame else 'its central half'
    return f'has {share:.1%} of {where} measured, and {least:.1%} are required'
  # The value that nearly all pixels have, if there is one, is the median of any thousand of them.
  some = image[:: 1 + h // 64, :: 1 + w // 64].ravel()
  odd = np.count_nonzero(image != np.partition(some, some.size // 2)[some.size // 2])
  if odd <= max(1, int(ODD_SHARE * image.size)):
    return f'is one value throughout, but for {odd} of {image.size} pixels'
  return ''


def measured_share(depth: np.ndarray) -> float:
  """The share of the pixels of depth, of any shape, that are measured."""
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
  """How often depth ends at a hole: of the horizontal neighbours in the face window, the share of
  which one is not measured and the other is above the 10 % quantile of what is.

  Depth has holes beside its nearest values, at noses, glasses and ears. Infrared is dark where its
  surroundings are: what is above its 10 % quantile is seldom next to black.

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
  found = (~measured[:, 1:] & bright[:, :-1]) | (bright[:, 1:] & ~measured[:, :-1])
  return float(found.mean())


def seem_exchanged(depth: Sequence[float], ir: Sequence[float]) -> bool:
  """Whether depth and infrared of a set look exchanged, by the `cliffs` of some of its samples.

  Of rendered sets, 200 samples each, all that are exchanged are found and none that is not; where
  holes have been filled, none is found (experiments/reliability/exchanged.py).
  """
  if min(len(depth), len(ir)) < FEWEST:
    return False
  of_depth, of_ir = np.median(depth), np.median(ir)
  return bool(of_ir >= CLIFFS and of_ir >= CLIFFS_TIMES * of_depth)


def contrast_and_spread(image: np.ndarray, modality: str, most: int = CELLS) -> tuple[int, int]:
  """How much an RGB or infrared image differs between the cells of a grid, and within them.

  Each cell is sampled at `SAMPLES` x `SAMPLES` pixels, so that the cost does not depend on the
  size of the image. A side too short for `most` cells has fewer, at least two.

  Args:
    image: as in `no_signal`.
    modality: one that is not a distance.
    most: cells along a side.

  Returns:
    Largest minus smallest median of a cell; median of the cells' interquartile ranges.
  """
  down, across = (max(2, min(most, side // SAMPLES)) for side in image.shape[:2])
  size = (across * SAMPLES, down * SAMPLES)
  some = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
  if schema.is_color(modality) and some.ndim == 3 and some.shape[-1] == 3:
    some = cv2.cvtColor(some, cv2.COLOR_RGB2GRAY)
  some = _one_channel(some).reshape(down, SAMPLES, across, SAMPLES)
  some = some.swapaxes(1, 2).reshape(-1, SAMPLES**2)  # [cells, samples]
  some = np.sort(some.astype(np.uint16), axis=1)  # NumPy sorts 16 bits ten times as fast as 8
  low, median, high = (some[:, i * SAMPLES**2 // 4] for i in (1, 2, 3))
  return int(median.max()) - int(median.min()), int(np.sort(high - low)[len(some) // 2])


def _one_channel(image: np.ndarray) -> np.ndarray:
  return image if image.ndim == 2 else image[..., 0]
