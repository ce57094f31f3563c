"""Copies that were encoded again or resized are found; different faces of one kind are not."""

import functools

import cv2
import numpy as np
import pytest

from flexfas_jax.protocols import near_duplicates
from flexfas_jax.protocols.lint import linter
from tests.miniatures import faces, manifest

PEOPLE = [('', 0), ('', 1), ('', 2), ('print', 0), ('print', 1), ('papermask', 0)]


@functools.cache
def face(i):
  return faces.triplet(*PEOPLE[i], size=96)['rgb']


def looks(*images):
  each = [near_duplicates.fingerprint(image) for image in images]
  return np.frombuffer(b''.join(each), np.uint8).reshape(len(images), -1)


def encoded(image, suffix='.jpg', quality=95):
  settings = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == '.jpg' else []
  return cv2.imencode(suffix, image[..., ::-1], settings)[1].tobytes()


def resized(image, factor):
  return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def test_look_is_a_small_grey_image():
  steps = np.repeat(np.arange(32, dtype=np.uint8) * 7, 4)
  image = np.where((np.arange(128)[:, None] // 4 + steps // 28) % 2, steps, 255 - steps)
  image = np.repeat(image[..., None], 3, axis=2).astype(np.uint8)
  look = np.frombuffer(near_duplicates.fingerprint(encoded(image, '.png')), np.uint8).reshape(
    32, 32
  )
  np.testing.assert_array_equal(look, image[::4, ::4, 0])
  deep = cv2.imencode('.png', image[..., 0].astype(np.uint16) * 257)[1].tobytes()
  np.testing.assert_array_equal(
    np.frombuffer(near_duplicates.fingerprint(deep), np.uint8), look.ravel()
  )


@pytest.mark.parametrize('side', [32, 48, 130, 300, 600])  # each decoded in another size
def test_any_size(side):
  image = cv2.resize(face(0), (side, side), interpolation=cv2.INTER_LINEAR)
  (found,) = near_duplicates.find(looks(encoded(face(1)), encoded(face(0))), looks(encoded(image)))
  assert (found.row, found.other) == (0, 1)


def test_without_detail():
  """Nothing to compare: a smooth gradient looks like any other."""
  ramp = np.tile(np.arange(64, dtype=np.uint8)[:, None, None], (1, 64, 3))
  assert near_duplicates.fingerprint(encoded(ramp, '.png')) == b''


@pytest.mark.parametrize('change', [
  *(functools.partial(encoded, quality=quality) for quality in (30, 50, 75, 95)),
  functools.partial(encoded, suffix='.png'),
  *(lambda image, f=f: encoded(resized(image, f), quality=80) for f in (0.5, 0.75, 1.3, 2)),
  lambda image: encoded(image // 2, '.png'),
])  # fmt: skip
def test_copies_are_found(change):
  """Each face among all the others, whose like are not found."""
  every = looks(*(encoded(face(i)) for i in range(len(PEOPLE))))
  copies = looks(*(change(face(i)) for i in (4, 2, 0)))
  assert [(f.row, f.other) for f in near_duplicates.find(every, copies)] == [(0, 4), (1, 2), (2, 0)]
  assert near_duplicates.find(every[[1, 3, 5]], copies) == []


def test_the_nearest_is_looked_for_among_all():
  """More rows than a block of the matrix product holds, the original in the last block."""
  rng = np.random.default_rng(0)
  some = rng.integers(0, 256, (5000, 32 * 32), dtype=np.uint8)
  found = near_duplicates.find(some, some[[4999, 3, 2048] * 200])
  assert [f.other for f in found] == [4999, 3, 2048] * 200
  assert all(f.correlation == pytest.approx(1, abs=1e-5) for f in found)
  assert near_duplicates.find(some[:0], some) == near_duplicates.find(some, some[:0]) == []


@pytest.fixture
def own(tmp_path):
  """A root, and the rows of six samples with different faces, four in train and two in val."""
  rows = []
  for i, (person, split) in enumerate(
    [(0, 'train'), (1, 'train'), (3, 'train'), (4, 'train'), (2, 'val'), (5, 'val')]
  ):
    (tmp_path / f'{i}.jpg').write_bytes(encoded(face(person)))
    label = 'attack' if PEOPLE[person][0] else 'bona_fide'
    rows.append({'rgb': f'{i}.jpg', 'label': label, 'subject': f's{i}', 'video': f'v{i}'})
    rows[-1]['split'] = split
  return tmp_path, rows


def lint(root, rows):
  manifest.write_csv(root / 'ours.csv', rows)
  report = linter.check([root / 'ours.csv'], root=root)
  return report, [(f.rule, f.row) for f in report.findings]


def test_lint_notes_a_copy_in_another_split(own):
  root, rows = own
  assert lint(root, rows)[1] == []
  (root / 'copy.png').write_bytes(encoded(resized(face(1), 0.75), '.png'))
  rows.append({**rows[5], 'rgb': 'copy.png', 'subject': 'x', 'video': 'x'})
  report, found = lint(root, rows)
  assert found == [('near-duplicate', 8)]
  text = f'copy.png of val: looks like 1.jpg of train ({root}/ours.csv:3), correlation 1.00'
  assert text in str(report.findings[0])
  assert report.of_severity('error') == []
  rows[-1]['split'] = 'train'
  assert lint(root, rows)[1] == []


def test_lint_tells_a_leak_once(own):
  """Where the bytes, the file or the video are the same, that is what is reported."""
  root, rows = own
  (root / 'copy.jpg').write_bytes((root / '1.jpg').read_bytes())
  for changes, rule, row in (
    ({'rgb': 'copy.jpg', 'subject': 'x', 'video': 'x'}, 'leak-image', 8),
    ({'rgb': '1.jpg', 'subject': 'x', 'video': 'x'}, 'leak-file', 3),
    ({'rgb': 'again.jpg', 'subject': 's1', 'video': 'v1'}, 'leak-video', 3),
  ):
    (root / 'again.jpg').write_bytes(encoded(face(1), quality=60))
    assert lint(root, [*rows, {**rows[1], 'split': 'val', **changes}])[1] == [(rule, row)]


def test_what_is_no_image_is_not_compared(own):
  root, rows = own
  (root / '4.jpg').write_bytes((root / '0.jpg').read_bytes()[:-200])
  (root / '5.jpg').write_bytes(encoded(np.zeros((48, 48, 3), np.uint8)))
  assert lint(root, rows)[1] == [('black', 7), ('unreadable', 6)]
