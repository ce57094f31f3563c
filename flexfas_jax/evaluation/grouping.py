"""Equal texts and equal codes among millions, in NumPy: no Python object for each of them."""

import numpy as np

_AT_ONCE = 1 << 14  # texts: few enough to stay in the cache
_SAMPLE = 4096  # texts that may show all there are


def are_distinct(texts: np.ndarray) -> bool:
  """Whether no two of [N] str are equal; False also for two different ones of one hash."""
  hashes = np.sort(_hashes(texts))
  return not (hashes[1:] == hashes[:-1]).any()


def factorize(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The different ones of [N] str, in no certain order, and which of them each is, [N] int64."""
  hashes = _hashes(texts)
  for sample in (hashes[:_SAMPLE], hashes):
    known = np.unique(sample)
    index = np.searchsorted(known, hashes)
    np.minimum(index, max(known.size - 1, 0), out=index)
    if sample.size == hashes.size or (known[index] == hashes).all():
      break
  one = np.empty(known.size, np.int64)
  one[index] = np.arange(texts.size)
  found = texts[one]
  parts = (slice(at, at + _AT_ONCE) for at in range(0, texts.size, _AT_ONCE))
  if all((found[index[part]] == texts[part]).all() for part in parts):
    return found, index
  return np.unique(texts, return_inverse=True)  # two texts have one hash


def unique(codes: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
  """`np.unique` with its inverse of [N] integers from 0 to below `limit`, without a sort."""
  if limit > 4 * codes.size + 1024:
    return np.unique(codes, return_inverse=True)
  is_there = np.bincount(codes, minlength=limit) > 0
  return np.flatnonzero(is_there), (np.cumsum(is_there) - 1)[codes]


def are_ascii_without_blanks(texts: np.ndarray) -> bool:
  """Whether [N] str have no letters but those from `!` to `~`."""
  letters = _letters(texts)
  parts = (letters[at : at + _AT_ONCE] for at in range(0, len(letters), _AT_ONCE))
  first, last = ord('!'), ord('~')
  # Below the first letter the difference wraps round; what is behind a text is 0.
  return all(((part - np.uint32(first) <= last - first) | (part == 0)).all() for part in parts)


def _letters(texts: np.ndarray) -> np.ndarray:
  """[N] str as code points, [N, longest] uint32, 0 behind the end."""
  width = max(texts.dtype.itemsize // 4, 1)
  return np.ascontiguousarray(texts, f'U{width}').view(np.uint32).reshape(-1, width)


def _hashes(texts: np.ndarray) -> np.ndarray:
  """[N] uint64: sums of code points with random odd weights, in any width of the array."""
  letters = _letters(texts)
  weights = np.random.default_rng(0).integers(0, 1 << 63, letters.shape[1], np.uint64) * 2 + 1
  found = np.empty(len(letters), np.uint64)
  for at in range(0, len(letters), _AT_ONCE):
    part = slice(at, at + _AT_ONCE)
    found[part] = letters[part].astype(np.uint64) @ weights
  return found
