"""Whether an image of one modality is a copy of another modality's, changed or not.

Two sensors see the same face, and a print or a mask makes them see nearly the same pattern. But
each sensor has its own noise, optics and light, and a copy repeats the order of brightness and the
fine detail. The comparison ignores what an attacker or a faulty export changes most easily:

  mirrored                 the other image is compared as it is and mirrored
  negative                 the absolute value of a correlation counts
  one channel of RGB       grey and each channel are compared
  gamma, equalised         ranks are compared, not levels
  shifted                  the best of shifts of up to 3 of 48 pixels of the face window
  compressed (JPEG)        a blur removes what JPEG changes most

`experiments/reliability/copies.py` has the detection of each, and the false alarms. What is not
detected: an image of the right modality that is replayed (depth or infrared recorded earlier, a
rendered one), a copy that is also rotated, scaled or warped, and changes that are not monotone in
brightness. A copy check is no presentation attack detection.
"""

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

EXACT = 0.999  # correlation of whole images above which one is a copy of the other
STRUCTURE = 0.985  # correlation of ranks of the face windows: rendered triplets have 0.974 at most
DETAIL = 0.85  # the same of their detail: smooth gradients alone have 0.2
_WHOLE = 64  # pixels along a side of a whole image when it is compared
_WINDOW = 48  # of the face window
_LEAST = 24  # of the stored face window: below this, different windows correlate by chance
_SHIFT = 3  # of `_WINDOW`
_BLUR, _BASE = 1.0, 3.0  # standard deviations between which the detail lies, of `_WINDOW`
_INNER = _WINDOW - 2 * _SHIFT  # of a window that is shifted
_SIDE = 3  # blocks along a side of it, which are compared first
_ROUNDING = 0.002  # of a correlation in float32, far above what it is
_NO_CONTRAST = 0.01  # a sum of squares, below which a correlation is left to OpenCV
# [7, 3, 48]: the rows (or columns) of a window that are in a block, for each shift.
_ROWS = np.arange(_WINDOW) - np.arange(2 * _SHIFT + 1)[:, None, None]
_ROWS = (np.arange(_SIDE)[:, None] == _ROWS // (_INNER // _SIDE)).astype(np.float64)
_BLOCK_ROWS, _ALL_ROWS = _ROWS.reshape(-1, _WINDOW), _ROWS.sum(1)  # [21, 48], [7, 48]
# [9, 2]: the blocks of a window as they are and mirrored.
_MIRRORED = np.arange(_SIDE**2).reshape(_SIDE, _SIDE)
_MIRRORED = np.stack([_MIRRORED.ravel(), _MIRRORED[:, ::-1].ravel()], 1)


class Fingerprint(NamedTuple):
  """The parts of an image that are compared.

  Attributes:
    whole: [64, 64] float64, grey, of mean 0 and norm 1; zeros where it is constant.
    windows: each [48, 48] float32, ranks of the face window (the central half of rows and columns)
      of grey and, where there are three channels, of each; none where it is too small or has one
      value.
    blocks: [windows, 49, 10] float64, of each window and shift the means of 3 x 3 blocks, scaled so
      that the square of their norm is their share of the variance; last the root of what is left of
      it. NaN where nearly nothing varies.
  """

  whole: np.ndarray
  windows: tuple[np.ndarray, ...]
  blocks: np.ndarray


def fingerprint(image: np.ndarray) -> Fingerprint:
  """The fingerprint of an image [h, w] or [h, w, C], uint8 or uint16."""
  return fingerprints([image])[0]


def fingerprints(images: Iterable[np.ndarray]) -> list[Fingerprint]:
  """The fingerprints of several images; faster than one at a time."""
  parts = [_whole_and_windows(image) for image in images]
  blocks = _blocks([window for _, windows in parts for window in windows])
  ends = np.cumsum([len(windows) for _, windows in parts])
  blocks = np.split(blocks, ends[:-1]) if parts else []
  return [Fingerprint(*part, own) for part, own in zip(parts, blocks, strict=True)]


def _whole_and_windows(image: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
  """`Fingerprint.whole` and `Fingerprint.windows`."""
  whole = cv2.resize(image, (_WHOLE, _WHOLE), interpolation=cv2.INTER_AREA)
  whole = _normalised(_grey(whole.astype(np.float32)))
  h, w = image.shape[:2]
  window = image[h // 4 : h - h // 4, w // 4 : w - w // 4]
  if min(window.shape[:2]) < _LEAST:
    return whole, ()
  how = cv2.INTER_AREA if min(window.shape[:2]) > _WINDOW else cv2.INTER_LINEAR
  window = cv2.resize(window, (_WINDOW, _WINDOW), interpolation=how)
  planes = (_grey(window), *(cv2.split(window) if window.ndim == 3 else ()))
  ranks = (ranks for ranks in map(_ranks, planes) if ranks is not None)
  return whole, tuple(cv2.GaussianBlur(plane, (0, 0), _BLUR) for plane in ranks)


def describe(one: Fingerprint, other: Fingerprint) -> str:
  """The similarity by which `other` is a copy of `one`; '' if it is none."""
  if (whole := float(np.vdot(one.whole, other.whole))) > EXACT:
    return f'correlation {whole:.5f}'
  structure, detail = similarity(one, other, STRUCTURE)
  if structure > STRUCTURE and detail > DETAIL:
    return f'mirrored, shifted or in other tones: structure {structure:.3f}, detail {detail:.3f}'
  return ''


def similarity(one: Fingerprint, other: Fingerprint, least: float = 0.0) -> tuple[float, float]:
  """(structure, detail) of the face windows of two images, each in [0, 1]; 0 without a window.

  Both are absolute correlations, of all ranks and of their detail, where the structure is largest:
  of any channel of `one` with the grey of `other`, mirrored or not, shifted by `_SHIFT` or less.

  Args:
    one, other: two images.
    least: the result may be (0, 0) if the structure is not above this. Coarse blocks prove that for
      nearly all genuine pairs at a tenth of the cost.
  """
  best, parts = 0.0, None
  if not (one.windows and other.windows):
    return 0.0, 0.0
  possibles = ~(_bounds(one.blocks, other.blocks[0]) <= least - _ROUNDING)  # also where NaN
  if not possibles.any():
    return 0.0, 0.0
  for flipped, possible in zip((False, True), possibles, strict=True):
    window = cv2.flip(other.windows[0], 1) if flipped else other.windows[0]
    inner = np.ascontiguousarray(window[_SHIFT:-_SHIFT, _SHIFT:-_SHIFT])
    for number in np.flatnonzero(possible):
      plane = one.windows[number]
      correlations = np.abs(cv2.matchTemplate(plane, inner, cv2.TM_CCOEFF_NORMED))  # [7, 7]
      y, x = np.unravel_index(np.argmax(correlations), correlations.shape)
      if correlations[y, x] > best:
        best = float(correlations[y, x])
        parts = plane[y : y + _INNER, x : x + _INNER], inner
  if parts is None:
    return 0.0, 0.0
  return min(best, 1.0), abs(correlation(*map(_detail, parts)))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
  """Pearson's, of two arrays of the same shape; 0 where one is constant."""
  return float(np.vdot(_normalised(a), _normalised(b)))


def _normalised(array: np.ndarray) -> np.ndarray:
  """In float64, of mean 0 and norm 1; zeros where it is constant."""
  array = array.astype(np.float64)
  array -= cv2.sumElems(array)[0] / array.size  # OpenCV's sums take a fifth of NumPy's time
  norm = cv2.norm(array)
  return array / norm if norm > 0 else array


def _blocks(windows: list[np.ndarray]) -> np.ndarray:
  """`Fingerprint.blocks`."""
  n, shifts = len(windows), len(_ROWS)
  if not n:
    return np.empty((0, shifts**2, _SIDE**2 + 1))
  planes = np.array(windows, np.float64).reshape(-1, _WINDOW)  # one product for all windows
  rows = (planes @ _BLOCK_ROWS.T).reshape(n, _WINDOW, -1)
  sums = (_BLOCK_ROWS @ rows).reshape(n, shifts, _SIDE, shifts, _SIDE)
  sums = sums.swapaxes(2, 3).reshape(n, shifts**2, _SIDE**2)
  squares = _ALL_ROWS @ (planes * planes @ _ALL_ROWS.T).reshape(n, _WINDOW, -1)
  total = sums @ np.ones(_SIDE**2)  # [n, shifts ** 2]
  variance = squares.reshape(n, -1) - (total / _INNER) ** 2
  variance[variance < _NO_CONTRAST] = np.nan
  blocks = np.empty((n, shifts**2, _SIDE**2 + 1))
  means = blocks[..., :-1]
  np.subtract(sums, total[..., None] / _SIDE**2, out=means)
  means *= (_SIDE / _INNER / np.sqrt(variance))[..., None]
  blocks[..., -1] = np.sqrt(np.maximum(0, 1 - np.einsum('nsb,nsb->ns', means, means)))
  return blocks


def _bounds(one: np.ndarray, other: np.ndarray) -> np.ndarray:
  """Upper bounds of correlations, from the means of blocks.

  A window of mean 0 and norm 1 is a part that is constant in each block, and a rest; correlations
  add up from both, and that of the rests is at most the product of their norms.

  Args:
    one: [windows, 49, 10], see `Fingerprint.blocks`.
    other: [49, 10], of grey.

  Returns:
    [2, windows], upper bounds of the absolute correlation of any shift of `one` with the middle of
    `other`, as it is and mirrored; NaN if unknown.
  """
  middle = other[len(other) // 2]
  flat = one.reshape(-1, one.shape[-1])
  dots = np.abs(flat[:, :-1] @ middle[_MIRRORED])  # [windows * 49, 2]
  dots += middle[-1] * flat[:, -1:]
  return dots.reshape(len(one), -1, 2).max(1).T


def _detail(window: np.ndarray) -> np.ndarray:
  """The image minus its blur, without the border, where the blur of a gradient is inexact."""
  border = int(2 * _BASE)
  return (window - cv2.GaussianBlur(window, (0, 0), _BASE))[border:-border, border:-border]


def _ranks(plane: np.ndarray) -> np.ndarray | None:
  """The rank of each pixel of [h, w], the mean rank of equals, as a share; float32.

  None where all are equal.
  """
  n = np.bincount(plane.ravel())
  if n[-1] == plane.size:  # of the largest value
    return None
  return ((np.cumsum(n) - n / 2) / plane.size).astype(np.float32).take(plane)


def _grey(image: np.ndarray) -> np.ndarray:
  """[h, w] of [h, w] or [h, w, C], of its dtype."""
  if image.ndim == 2:
    return image
  return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.shape[-1] == 3 else image[..., 0]
