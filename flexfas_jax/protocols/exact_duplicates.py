"""Exact duplicates: images with the same bytes under other names.

A test set may consist of copies of training images, and two releases of a data set may name one
image differently. Sensor noise makes every exposure unique, so equal bytes are the same exposure.
One modality is enough, since the others may have been encoded again. Images without signal prove
nothing: all black images of one size are equal, and so are placeholders of an unused sensor.

Digests are compared by their first 64 bits. Among a million images, the probability that two
different ones agree in these is 3e-8.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flexfas_jax.schema import MODALITIES

Digests = Mapping[str, np.ndarray]  # by modality: [N] uint64, 0 where there is no image
_MAX_TESTED = 1000  # images tested for signal; placeholders are few
_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplication loses nothing

CarriesSignal = Callable[[str, int], bool]  # of a modality and a row


class SharedImage(NamedTuple):
  """A row of the second set that has an image of the first."""

  row: int
  other: int  # the first row of the first set that has it
  modalities: tuple[str, ...]


def digest_prefixes(digests: Sequence[str]) -> np.ndarray:
  """The first 64 bits of digests.

  Args:
    digests: [N] SHA-256 in hexadecimal digits, '' for no image.

  Returns:
    [N] uint64, 0 for no image.

  Raises:
    ValueError: an invalid digest.
  """
  if any(len(digest) not in (0, 64) for digest in digests):
    raise ValueError('a SHA-256 has 64 hexadecimal digits')
  joined = bytes.fromhex(''.join(digest[:16] or 16 * '0' for digest in digests))
  return np.frombuffer(joined, '>u8').astype(np.uint64)


def digest_prefix(encoded: bytes) -> int:
  """The first 64 bits of the digest of an encoded image; 0 for b''."""
  return int.from_bytes(hashlib.sha256(encoded).digest()[:8]) if encoded else 0


def carries_signal(encoded: bytes, modality: str) -> bool:
  """Whether an image carries signal; True for damaged images, whose bytes are unique too."""
  from flexfas_jax.images import checks as image_checks
  from flexfas_jax.images import signal  # imports OpenCV, for images only

  try:
    return not signal.no_signal(image_checks.decode(encoded), modality, frame=True)
  except image_checks.Unreadable:
    return True


def find_shared(
  first: Digests, second: Digests, carries_signal: CarriesSignal
) -> list[SharedImage]:
  """The rows of the second set that have an image of the first, in order.

  Args:
    first, second: digests of two sets.
    carries_signal: called with rows of the first set, once for each shared image, up to
      `_MAX_TESTED`; further images count as evidence.
  """
  shared: dict[int, tuple[int, list[str]]] = {}
  for modality in MODALITIES:
    common, rows_of_first, _ = np.intersect1d(
      first[modality], second[modality], return_indices=True
    )
    evidence = common != 0
    for i in np.flatnonzero(evidence)[:_MAX_TESTED].tolist():
      evidence[i] = carries_signal(modality, int(rows_of_first[i]))
    common, rows_of_first = common[evidence], rows_of_first[evidence]
    rows = np.flatnonzero(np.isin(second[modality], common))
    if rows.size:
      others = rows_of_first[np.searchsorted(common, second[modality][rows])]
      for row, other in zip(rows.tolist(), others.tolist(), strict=True):
        shared.setdefault(row, (other, []))[1].append(modality)
  return [
    SharedImage(row, other, tuple(modalities))
    for row, (other, modalities) in sorted(shared.items())
  ]


def group_equal_rows(digests: Digests, carries_signal: CarriesSignal) -> list[list[int]]:
  """Groups of two or more rows of one set whose images are all equal.

  Args:
    digests: of the set.
    carries_signal: called with the first row of a group; one image with signal is enough.
  """
  key = np.zeros(len(digests[MODALITIES[0]]), np.uint64)
  for modality in MODALITIES:  # wraps around
    key = key * _HASH_FACTOR + digests[modality]
  order = np.argsort(key, kind='stable')
  key = key[order]
  start = np.flatnonzero(np.r_[True, key[1:] != key[:-1]][: len(key)])
  end = np.r_[start[1:], len(key)]
  groups = [order[start[i] : end[i]].tolist() for i in np.flatnonzero(end - start > 1)]
  return [
    group
    for group in groups
    if any(digests[m][group[0]] and carries_signal(m, group[0]) for m in MODALITIES)
  ]


def find_frozen(
  digests: Digests, videos: Sequence[str | int], carries_signal: CarriesSignal
) -> list[tuple[int, int, str]]:
  """Rows whose sensor repeats an image of another video, while another sensor does not.

  Within a video this is usual: an image of a slow sensor is paired with several of a fast one.

  Args:
    digests: of one set.
    videos: [N], of the rows; rows with '' or 0 are not compared.
    carries_signal: called with the first row that has an image; without signal it is ignored.

  Returns:
    (row, the first row that has the image, modality), in order.
  """
  columns = {m: digests[m].tolist() for m in MODALITIES}
  frozen = []
  for modality, column in columns.items():
    first_row: dict[int, int] = {}
    evidence: dict[int, bool] = {}
    for row, digest in enumerate(column):
      if not digest or not videos[row]:
        continue
      first = first_row.setdefault(digest, row)
      others = [c for m, c in columns.items() if m != modality and c[row] and c[first]]
      if videos[first] == videos[row] or all(c[row] == c[first] for c in others):
        continue
      if digest not in evidence:
        evidence[digest] = carries_signal(modality, first)
      if evidence[digest]:
        frozen.append((row, first, modality))
  return sorted(frozen)
