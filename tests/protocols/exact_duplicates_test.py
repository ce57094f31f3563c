"""Equal bytes are one exposure under any name; images without signal prove nothing."""

import hashlib

import numpy as np
import pytest

from flexfas_jax.errors import DataError
from flexfas_jax.protocols import exact_duplicates, leakage
from tests.miniatures import faces


def digests(rgb, depth=None, ir=None):
  """Of images by number; '' is none."""
  names = {'rgb': rgb, 'depth': depth or [''] * len(rgb), 'ir': ir or [''] * len(rgb)}

  def hashed(name):
    return hashlib.sha256(str(name).encode()).hexdigest() if name != '' else ''

  return {
    m: exact_duplicates.digest_prefixes([hashed(name) for name in some])
    for m, some in names.items()
  }


def always(modality, row):
  return True


def test_numbers():
  digest = 'fedcba9876543210' + 48 * '0'
  assert exact_duplicates.digest_prefixes([digest, '']).tolist() == [0xFEDCBA9876543210, 0]
  assert exact_duplicates.digest_prefixes([]).dtype == np.uint64
  for wrong in ('fe', 'x' * 64):
    with pytest.raises(ValueError):
      exact_duplicates.digest_prefixes([wrong])


def test_shared_images():
  one = digests([1, 2, 2, 3], [11, 12, 13, ''])
  other = digests([9, 2, 8, ''], [11, 12, 19, ''], [1, '', '', ''])
  assert exact_duplicates.find_shared(one, other, always) == [
    (0, 0, ('depth',)), (1, 1, ('rgb', 'depth')),
  ]  # fmt: skip
  asked = []

  def no_rgb(modality, row):
    return asked.append((modality, row)) or modality != 'rgb'

  assert exact_duplicates.find_shared(one, other, no_rgb) == [
    (0, 0, ('depth',)),
    (1, 1, ('depth',)),
  ]
  assert asked == [('rgb', 1), ('depth', 0), ('depth', 1)] or len(asked) == 3
  assert exact_duplicates.find_shared(digests([]), other, always) == []


def test_groups_are_of_whole_samples():
  some = digests([1, 2, 1, 1, 2], [5, 6, 5, 7, ''])
  assert exact_duplicates.group_equal_rows(some, always) == [[0, 2]]
  assert exact_duplicates.group_equal_rows(some, lambda m, row: m == 'depth') == [[0, 2]]
  assert exact_duplicates.group_equal_rows(some, lambda m, row: False) == []
  assert exact_duplicates.group_equal_rows(digests([]), always) == []


def test_a_frozen_sensor_repeats_an_image_of_another_video():
  some = digests([1, 2, 3, 4, 1, 6], [11, 11, 11, 14, 11, ''], [21, 22, 23, 24, 21, 24])
  videos = ['a', 'a', 'b', 'b', 'c', 'd']
  # 1: the same video; 4: all images of row 0, which `groups` reports; 5: infrared with other RGB.
  expected = [(2, 0, 'depth'), (5, 3, 'ir')]
  assert exact_duplicates.find_frozen(some, videos, always) == expected
  assert exact_duplicates.find_frozen(some, videos, lambda m, row: m == 'ir') == expected[1:]
  assert exact_duplicates.find_frozen(some, [''] * 6, always) == []
  assert (
    exact_duplicates.find_frozen(digests([1, 1]), ['a', 'b'], always) == []
  )  # nothing to compare with
  assert exact_duplicates.find_frozen(digests([]), [], always) == []


def test_a_million_rows_are_compared_in_a_moment():
  rng = np.random.default_rng(0)
  one = {m: rng.integers(1, 2**63, 300_000, np.uint64) for m in ('rgb', 'depth', 'ir')}
  other = {m: np.r_[numbers[:10], numbers[10:] + np.uint64(1)] for m, numbers in one.items()}
  assert [row for row, _, _ in exact_duplicates.find_shared(one, other, always)] == list(range(10))


def side(images, subjects=None):
  """A side of RGB images, encoded."""
  names = [hashlib.sha256(image).hexdigest() for image in images]
  empty = np.zeros(len(images), np.uint64)
  return leakage.ImageSet(
    {
      'id': [f'id{i}' for i in range(len(images))],
      'subject': subjects or [f's{i}' for i in range(len(images))],
    },
    {'rgb': exact_duplicates.digest_prefixes(names), 'depth': empty, 'ir': empty},
    lambda row, modality: images[row],
  )


FACES = [faces.encode(faces.triplet('', person)['rgb']) for person in range(4)]
BLACK = faces.encode(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize('sides', [('train', 'val'), ('train', 'cross'), ('val', 'cross')])
def test_copies_are_not_tested_on(sides):
  one, other = sides
  with pytest.raises(DataError) as caught:
    leakage.check_images({one: side(FACES[:3]), other: side([FACES[3], FACES[1], FACES[2]])})
  text = str(caught.value)
  assert f'sets share images: 2 samples of {other} with {one}' in text
  assert f'leak-image: rgb of id1 in {other}: the same bytes as id1 in {one}' in text


def test_what_is_no_leak():
  leakage.check_images({'train': side(FACES[:1]), 'val': side(FACES[1:2]), 'a': side(FACES[2:3])})
  leakage.check_images({'val': side(FACES[:1]), 'a': side(FACES[2:]), 'b': side(FACES[2:])})
  # A black image stands for a sensor that was not used.
  leakage.check_images({'train': side([BLACK, FACES[0]]), 'val': side([BLACK, FACES[1]])})


def test_an_image_that_cannot_be_decoded_is_evidence():
  with pytest.raises(DataError, match='leak-image: rgb of id0 in val'):
    leakage.check_images({'train': side([b'x']), 'val': side([b'x'])})


def test_published_leaks_are_accepted_by_name():
  known = side(FACES[:1], ['casia_cefa/AF-300'])
  sides = {'train': side(FACES[1:2]), 'val': known, 'intra': known}
  leakage.check_images(sides, ('flexmodal_v1',))
  for accept in ((), ('people_of_attacks',)):
    with pytest.raises(DataError, match='leak-image: rgb of id0 in intra'):
      leakage.check_images(sides, accept)


def test_many_copies_fit_on_one_screen():
  many = [FACES[0] + bytes(i) for i in range(40)]
  with pytest.raises(DataError) as caught:
    leakage.check_images({'train': side(many), 'val': side(many), 'a': side(many)})
  lines = str(caught.value).splitlines()
  assert len(lines) < 15 and 'and 110 more' in lines[-3]
