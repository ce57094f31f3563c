"""Images with the same bytes under other names.

Names prove nothing where a test is made of copies of the training images, or where two releases of
a data set call one image differently. Two exposures of one sensor never have the same bytes, as
their noise differs: equal bytes are the same exposure. One modality suffices, since the others may
have been encoded again. Images without signal are no evidence: all black images of one size are
equal, and so are placeholders of a sensor that was not used.

Digests are compared by their first 64 bits: among a million images, two that differ have equal
ones with a probability of 3e-8.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flexfas_jax.schema import MODALITIES

Digests = Mapping[str, np.ndarray]  # by modality: [N] uint64, 0 where there is no image
_ENOUGH = 1000  # images

Evidence = Callable[[str, int], bool]  # whether the image of a modality and a row carries signal


class SharedImage(NamedTuple):
  """A row of one side that has an image of the other."""

  row: int
  other: int  # the first row of the other side that has it
  modalities: tuple[str, ...]


def digest_prefixes(digests: Sequence[str]) -> np.ndarray:
  """The first 64 bits of digests.

  Args:
    digests: [N] SHA-256 in hexadecimal digits, '' for no image.

  Returns:
    [N] uint64, 0 for no image.

  Raises:
    ValueError: a digest is anything else.
  """
  if any(len(digest) not in (0, 64) for digest in digests):
    raise ValueError('a SHA-256 has 64 hexadecimal digits')
  joined = bytes.fromhex(''.join(digest[:16] or 16 * '0' for digest in digests))
  return np.frombuffer(joined, '>u8').astype(np.uint64)


def digest_prefix(image: bytes) -> int:
  """The same of an encoded image; 0 for b''."""
  return int.from_bytes(hashlib.sha256(image).digest()[:8]) if image else 0


def carries_signal(encoded: bytes, modality: str) -> bool:
  """Whether an encoded image is evidence; one that cannot be decoded is, as no sensor sends it."""
  from flexfas_jax.images import checks as image_checks
  from flexfas_jax.images import signal  # OpenCV: only who has images pays

  try:
    return not signal.no_signal(image_checks.decode(encoded), modality, frame=True)
  except image_checks.Unreadable:
    return True


def find_shared(one: Digests, other: Digests, evidence: Evidence) -> list[SharedImage]:
  """The rows of `other` that have an image of `one`, in order.

  Args:
    one, other: the digests of two sides.
    evidence: asked of a row of `one`, once for each image that both sides have, up to `_ENOUGH`;
      placeholders are few, so that what is left then is taken for evidence.
  """
  found: dict[int, tuple[int, list[str]]] = {}
  for modality in MODALITIES:
    common, first, _ = np.intersect1d(one[modality], other[modality], return_indices=True)
    good = common != 0
    for i in np.flatnonzero(good)[:_ENOUGH].tolist():  # so many show whether it is a copy
      good[i] = evidence(modality, int(first[i]))
    common, first = common[good], first[good]
    rows = np.flatnonzero(np.isin(other[modality], common))
    of = first[np.searchsorted(common, other[modality][rows])] if rows.size else rows
    for row, place in zip(rows.tolist(), of.tolist(), strict=True):
      found.setdefault(row, (place, []))[1].append(modality)
  return [SharedImage(row, place, tuple(of)) for row, (place, of) in sorted(found.items())]


def group_equal_rows(digests: Digests, evidence: Evidence) -> list[list[int]]:
  """Rows of one side all of whose images are equal, two or more in each group.

  Args:
    digests: of the side.
    evidence: asked of the first row of a group; one image that carries signal suffices.
  """
  key = np.zeros(len(digests[MODALITIES[0]]), np.uint64)
  for modality in MODALITIES:  # wraps around; the factor is odd, so nothing is lost
    key = key * np.uint64(0x9E3779B97F4A7C15) + digests[modality]
  order = np.argsort(key, kind='stable')
  key = key[order]
  start = np.flatnonzero(np.r_[True, key[1:] != key[:-1]][: len(key)])
  end = np.r_[start[1:], len(key)]
  several = np.flatnonzero(end - start > 1)
  found = [order[start[i] : end[i]].tolist() for i in several]
  present = lambda row: [m for m in MODALITIES if digests[m][row]]  # noqa: E731
  return [some for some in found if any(evidence(m, some[0]) for m in present(some[0]))]


def find_frozen(
  digests: Digests, videos: Sequence[str | int], evidence: Evidence
) -> list[tuple[int, int, str]]:
  """Rows of one side whose sensor repeats an image of another video, while another sensor does not.

  Within a video that is usual: a slow sensor's image is paired with several of a fast one.

  Args:
    digests: of the side.
    videos: [N], of the rows; rows with '' or 0 are not compared.
    evidence: asked of the first row that has an image; without signal it is not compared.

  Returns:
    (row, the first row that has the image, modality), in order.
  """
  columns = {m: digests[m].tolist() for m in MODALITIES}
  found = []
  for modality, column in columns.items():
    first: dict[int, int] = {}
    carries: dict[int, bool] = {}
    for row, digest in enumerate(column):
      if not digest or not videos[row]:
        continue
      before = first.setdefault(digest, row)
      others = [c for m, c in columns.items() if m != modality and c[row] and c[before]]
      if videos[before] == videos[row] or all(c[row] == c[before] for c in others):
        continue
      if digest not in carries:
        carries[digest] = evidence(modality, before)
      if carries[digest]:
        found.append((row, before, modality))
  return sorted(found)
