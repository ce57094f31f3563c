"""Blocks of plain CSV as arrays of bytes, for files of millions of rows.

Plain: ASCII without quotes, every row of the same number of cells, none longer than 256. NumPy
finds such cells ten times as fast as `csv` makes texts of them. `csv_dialect` reads what is not
plain.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

_BEFORE, _AFTER = 24, 256  # bytes of padding, so that a window over any cell is in the buffer
_ZEROS = np.uint64(0x3030303030303030)  # eight times the digit 0
_DIGITS = 24  # behind a decimal point, at most


class _Tables(NamedTuple):
  has_long_double: bool  # of 64 bits
  kept: np.ndarray  # [25, 3] uint64, by the number of digits: the bytes of words that hold them
  powers: np.ndarray  # [20] uint64, of ten
  long_powers: np.ndarray  # [25] long double: exact up to 10^27


@functools.cache
def _tables() -> _Tables:
  """What `Cells.decimals` looks up; NumPy takes 10 ms to describe long doubles."""
  kept = b''.join(b'\0' * (_DIGITS - n) + b'\xff' * n for n in range(_DIGITS + 1))
  return _Tables(
    np.finfo(np.longdouble).nmant == 63,
    np.frombuffer(kept, '<u8').reshape(-1, 3),
    np.array([10**n for n in range(20)], np.uint64),
    np.multiply.accumulate(np.array([1, *[10] * _DIGITS], np.longdouble)),
  )


class Cells:
  """The cells of R rows of C columns."""

  def __init__(self, text: np.ndarray, end: np.ndarray):
    self._text = text  # [T] uint8: padding, rows, padding
    self._end = end  # [R, C] int64: the place behind each cell
    self._start = np.empty_like(end)
    self._start.ravel()[1:] = end.ravel()[:-1] + 1
    self._start[0, 0] = _BEFORE
    self._length = self._end - self._start

  def __len__(self) -> int:
    return len(self._end)

  def column(self, i: int) -> np.ndarray:
    """The cells of a column, [R] bytes."""
    length = self._length[:, i]
    longest = max(1, int(length.max()))
    found = self._windows(longest)[self._start[:, i]]
    if length.min() < longest:
      letters = found.view(np.uint8).reshape(-1, longest)
      letters *= np.arange(longest) < length[:, None]
    return found

  def decimals(self, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers such as 0.084: a digit, a point and 1 to 24 digits, at most 19 of them significant.

    Returns:
      ([R] float64, rounded once; [R] bool, which cells are such numbers; of others the first array
      has any value).
    """
    end, n_digits = self._end[:, i], self._length[:, i] - 2
    first, point = self._text[self._start[:, i]], self._text[self._start[:, i] + 1]
    plain = (n_digits > 0) & (n_digits <= _DIGITS) & (point == ord('.'))
    plain &= (first >= ord('0')) & (first <= ord('9'))
    tables = _tables()
    if not tables.has_long_double or not plain.any():
      return np.zeros(len(self)), np.zeros(len(self), bool)
    n_digits = np.where(plain, n_digits, 1)
    words = self._windows(_DIGITS)[end - _DIGITS].view('<u8').reshape(-1, 3)
    words = (words & (kept := tables.kept[n_digits])) | (_ZEROS & ~kept)
    plain &= _are_digits(words).all(1)
    high, middle, low = _eight_digits(words).T
    integer = np.where(plain, first - np.uint8(ord('0')), 0).astype(np.uint64)
    plain &= (high < 1000) & ((integer == 0) | ((n_digits < 19) & (high < 100)))
    # Below 2^64, so that it is exact in a long double, as the power of ten is.
    whole = high * tables.powers[16] + middle * tables.powers[8] + low
    whole += integer * tables.powers[np.minimum(n_digits, 18)]
    quotient = whole.astype(np.longdouble) / tables.long_powers[n_digits]
    # Half way between two float64, it may have been rounded to that: the second rounding is wrong.
    half_way = quotient.view(np.uint64)[::2] & np.uint64(0x7FF) == 0x400
    return quotient.astype(np.float64), plain & ~half_way

  def rows(self, at_once: int) -> Iterator[list[list[str]]]:
    """Yields the rows as texts, some at a time."""
    columns = [self.column(i).astype(np.str_).tolist() for i in range(self._end.shape[1])]
    rows = list(map(list, zip(*columns, strict=True)))
    for start in range(0, len(rows), at_once):
      yield rows[start : start + at_once]

  def _windows(self, n: int) -> np.ndarray:
    """[T - n + 1] bytes of length n: those from each place on, not copied."""
    return np.ndarray((self._text.size - n + 1,), f'S{n}', self._text.data, strides=(1,))


def find_cells(block: bytes, delimiter: str, columns: int) -> Cells | None:
  """The cells of some lines; None where they are not plain.

  Args:
    block: whole lines; the last may lack its end.
    delimiter: of ASCII.
    columns: cells of every row, at least two.
  """
  if b'"' in block or not block.isascii():
    return None
  if b'\r' in block:
    block = block.replace(b'\r\n', b'\n')
    if b'\r' in block:
      return None
  if not block.endswith(b'\n'):
    block += b'\n'
  text = np.frombuffer(b'\0' * _BEFORE + block + b'\0' * _AFTER, np.uint8)
  is_line = text == ord('\n')
  end = np.flatnonzero(is_line | (text == ord(delimiter)))
  if end.size != columns * np.count_nonzero(is_line):
    return None
  end = end.reshape(-1, columns)
  if not is_line[end[:, -1]].all():
    return None
  cells = Cells(text, end)
  is_long_or_blank = cells._length.max() > _AFTER or not cells._length.any(1).all()
  return None if is_long_or_blank else cells


def join_texts(parts: Sequence[np.ndarray]) -> np.ndarray:
  """Texts behind each other, [N] str; the parts are [n] str, or [n] bytes of ASCII."""
  widths = [part.itemsize // (1 if part.dtype.kind == 'S' else 4) for part in parts]
  joined = np.zeros((sum(map(len, parts)), max(widths)), np.uint32)
  start = 0
  for part, width in zip(parts, widths, strict=True):
    code = np.uint8 if part.dtype.kind == 'S' else np.uint32
    end = start + len(part)
    joined[start:end, :width] = np.ascontiguousarray(part).view(code).reshape(-1, width)
    start = end
  return joined.view(f'U{joined.shape[1]}')[:, 0]


def _are_digits(words: np.ndarray) -> np.ndarray:
  """Whether all eight bytes of a word are digits."""
  high = np.uint64(0xF0F0F0F0F0F0F0F0)
  carried = words + np.uint64(0x0606060606060606)
  return (words & high == _ZEROS) & (carried & high == _ZEROS)


def _eight_digits(words: np.ndarray) -> np.ndarray:
  """The number that eight digits are, the first of them in the lowest byte: pairs, fours, eight."""
  found = words - _ZEROS
  found = found * np.uint64(10) + (found >> np.uint64(8))
  pairs = np.uint64(0x000000FF000000FF)
  found = (found & pairs) * np.uint64(100 + (1000000 << 32)) + (
    (found >> np.uint64(16)) & pairs
  ) * np.uint64(1 + (10000 << 32))
  return found >> np.uint64(32)
