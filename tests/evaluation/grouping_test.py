"""Equal texts and codes are found as NumPy and dicts find them."""

import numpy as np
import pytest

from flexfas_jax.evaluation import grouping

TEXTS = [
  [],
  [''],
  ['', '', 'a'],
  ['b', 'a', 'b', 'Zoë', 'a\n', 'a'],
  [f's{i % 7}' for i in range(5000)],
  [f'{i // 3}' for i in range(20000)],  # names that the first thousands do not show
]


@pytest.mark.parametrize('texts', TEXTS, ids=len)
def test_texts_as_numbers(texts):
  texts = np.array(texts, np.str_)
  found, index = grouping.factorize(texts)
  assert sorted(found.tolist()) == sorted(set(texts.tolist()))
  np.testing.assert_array_equal(found[index], texts)
  assert grouping.are_distinct(texts) == (len(set(texts.tolist())) == texts.size)
  assert grouping.are_distinct(found)


def test_texts_of_one_hash(monkeypatch):
  monkeypatch.setattr(grouping, '_hashes', lambda texts: np.zeros(len(texts), np.uint64))
  texts = np.array(['b', 'a', 'b', 'c'])
  found, index = grouping.factorize(texts)
  assert sorted(found.tolist()) == ['a', 'b', 'c']
  np.testing.assert_array_equal(found[index], texts)
  assert not grouping.are_distinct(np.array(['a', 'b']))  # the caller compares the texts


def test_hashes_do_not_depend_on_the_width():
  narrow, wide = np.array(['a', 'bc']), np.array(['a', 'bc', 'x' * 40])[:2]
  np.testing.assert_array_equal(grouping._hashes(narrow), grouping._hashes(wide))


@pytest.mark.parametrize('limit', [6, 10**9])
def test_codes(limit):
  for codes in (np.array([5, 0, 3, 3, 5]), np.array([], np.int64)):
    found, index = grouping.unique(codes, limit)
    expected = np.unique(codes, return_inverse=True)
    np.testing.assert_array_equal(found, expected[0])
    np.testing.assert_array_equal(index, expected[1])


def test_letters():
  assert grouping.are_ascii_without_blanks(np.array(['', 'a', '!~']))
  assert grouping.are_ascii_without_blanks(np.array([], np.str_))
  for text in (' ', 'a b', 'Zoë', '\x7f', '\t', '😀'):
    assert not grouping.are_ascii_without_blanks(np.array(['abc', text]))
