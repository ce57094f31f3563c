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

from typing import NamedTuple

import cv2
import numpy as np

EXACT = 0.999  # correlation of whole images above which one is a copy of the other
STRUCTURE = 0.985  # correlation of ranks of the face windows: rendered triplets have 0.974 at most
DETAIL = 0.85  # the same of their detail: smooth gradients alone have 0.2
_WHOLE = 64  # pixels along a side of a whole image when it is compared
_WINDOW = 48  # of the face window
_LEAST = 24  # of the face window as it is stored: with fewer pixels chance makes equals
_SHIFT = 3  # of `_WINDOW`
_BLUR, _BASE = 1.0, 3.0  # standard deviations between which the detail lies, of `_WINDOW`


class Look(NamedTuple):
  """What of an image is compared.

  Attributes:
    whole: [64, 64] float32, grey.
    windows: each [48, 48] float32, ranks of the face window (the central half of rows and columns)
      of grey and, where there are three channels, of each; none where it is too small or has one
      value.
  """

  whole: np.ndarray
  windows: tuple[np.ndarray, ...]


def look(image: np.ndarray) -> Look:
  """What of an image [h, w] or [h, w, C], uint8 or uint16, is compared."""
  whole = cv2.resize(image, (_WHOLE, _WHOLE), interpolation=cv2.INTER_AREA)
  whole = _grey(whole.astype(np.float32))
  h, w = image.shape[:2]
  window = image[h // 4 : h - h // 4, w // 4 : w - w // 4]
  if min(window.shape[:2]) < _LEAST:
    return Look(whole, ())
  how = cv2.INTER_AREA if min(window.shape[:2]) > _WINDOW else cv2.INTER_LINEAR
  window = cv2.resize(window, (_WINDOW, _WINDOW), interpolation=how)
  planes = (_grey(window), *(cv2.split(window) if window.ndim == 3 else ()))
  ranks = (_ranks(plane) for plane in planes if plane.min() < plane.max())
  return Look(whole, tuple(cv2.GaussianBlur(plane, (0, 0), _BLUR) for plane in ranks))


def describe(one: Look, other: Look) -> str:
  """How `other` is a copy of `one`, to follow 'is a copy of ...'; '' where it is none."""
  if (alike := correlation(one.whole, other.whole)) > EXACT:
    return f'correlation {alike:.5f}'
  structure, detail = similarity(one, other)
  if structure > STRUCTURE and detail > DETAIL:
    return f'mirrored, shifted or in other tones: structure {structure:.3f}, detail {detail:.3f}'
  return ''


def similarity(one: Look, other: Look) -> tuple[float, float]:
  """(structure, detail) of the face windows of two images, each in [0, 1]; 0 where there is none.

  Both are absolute correlations, of all ranks and of their detail, where the structure is largest:
  of any channel of `one` with the grey of `other`, mirrored or not, shifted by `_SHIFT` or less.
  """
  best, parts = 0.0, None
  for window in other.windows[:1]:
    for flipped in (window, cv2.flip(window, 1)):
      inner = np.ascontiguousarray(flipped[_SHIFT:-_SHIFT, _SHIFT:-_SHIFT])
      for plane in one.windows:
        found = np.abs(cv2.matchTemplate(plane, inner, cv2.TM_CCOEFF_NORMED))  # [7, 7]
        y, x = np.unravel_index(np.argmax(found), found.shape)
        if found[y, x] > best:
          best = float(found[y, x])
          parts = plane[y : y + inner.shape[0], x : x + inner.shape[1]], inner
  if parts is None:
    return 0.0, 0.0
  return min(best, 1.0), abs(correlation(*map(_detail, parts)))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
  """Pearson's, of two arrays of the same shape; 0 where one is constant."""
  a, b = (x.astype(np.float64) - x.mean(dtype=np.float64) for x in (a, b))
  scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
  return float((a * b).sum()) / scale if scale > 0 else 0.0


def _detail(window: np.ndarray) -> np.ndarray:
  """What a blur takes away, without the border, where the blur of a gradient is off."""
  border = int(2 * _BASE)
  return (window - cv2.GaussianBlur(window, (0, 0), _BASE))[border:-border, border:-border]


def _ranks(plane: np.ndarray) -> np.ndarray:
  """The rank of each pixel of [h, w], the mean rank of equals, as a share; float32."""
  n = np.bincount(plane.ravel())
  return ((np.cumsum(n) - n / 2) / plane.size).astype(np.float32)[plane]


def _grey(image: np.ndarray) -> np.ndarray:
  """[h, w] of [h, w] or [h, w, C], of its dtype."""
  if image.ndim == 2:
    return image
  return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.shape[-1] == 3 else image[..., 0]
