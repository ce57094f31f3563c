"""Batches: reproducible, resumable, independent of the number of processes, nothing lost."""

import dataclasses
import functools

import cv2
import numpy as np
import pytest

from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images import geometry
from flexfas_jax.images.geometry import View
from flexfas_jax.images.preprocess import Preprocess
from flexfas_jax.input_pipeline import pipeline, sources

MODALITIES = ('rgb', 'depth', 'ir')
AUGMENTED = Preprocess(
  16,
  MODALITIES,
  view={'flip': 0.5, 'rotate': 10, 'crop': (0.7, 1)},
  photometric={'rgb': {'add': 0.2}},
  cutout=4,
)
PLAIN = Preprocess(16, MODALITIES)


@pytest.fixture(scope='module')
def source(prepared):
  names = ['rendered_faces/surf_like_tiny:train', 'rendered_faces/cefa_like_tiny:train']
  return sources.open_source(names, prepared)


def take(iterator, n):
  return [next(iterator) for _ in range(n)]


def assert_equal(a, b):
  for x, y in zip(a, b, strict=True):
    for name in x:
      np.testing.assert_array_equal(x[name], y[name])


def test_a_batch_is_as_promised(source):
  batch = next(pipeline.train_batches(source, AUGMENTED, 8, seed=0))
  shapes = {k: (v.shape, v.dtype.name) for k, v in batch.items()}
  assert shapes == {
    'rgb': ((8, 16, 16, 3), 'float32'),
    'depth': ((8, 16, 16, 1), 'float32'),
    'ir': ((8, 16, 16, 1), 'float32'),
    'present': ((8, 3), 'bool'),
    'label': ((8,), 'int32'),
  }
  black, white = -127.5 / 128, 127.5 / 128
  for modality in MODALITIES:
    assert black <= batch[modality].min() < batch[modality].max() <= white


def test_seeds_decide(source):
  a, b, c = (take(pipeline.train_batches(source, AUGMENTED, 8, seed=s), 3) for s in (0, 0, 1))
  assert_equal(a, b)
  assert any((x['rgb'] != y['rgb']).any() for x, y in zip(a, c, strict=True))


def test_an_epoch_sees_each_example_once_and_the_next_another_order(source):
  @dataclasses.dataclass(frozen=True)
  class Label:  # which example it was, in the place of its label
    def __call__(self, example, rng=None):
      return {'label': np.array(hash(example['id']))}

  N = len(source) // 6
  epoch = N * 6
  assert epoch == len(source), 'the tiny sets changed: choose a batch that divides them'
  ids = np.concatenate(
    [b['label'] for b in take(pipeline.train_batches(source, Label(), 6, seed=0), 2 * N)]
  )
  assert len(set(ids[:epoch])) == epoch
  assert set(ids[epoch:]) == set(ids[:epoch])
  assert (ids[epoch:] != ids[:epoch]).any()


def test_an_iterator_goes_on_where_it_stood(source):
  iterator = pipeline.train_batches(source, AUGMENTED, 8, seed=0)
  take(iterator, 2)
  state = iterator.get_state()
  expected = take(iterator, 3)
  again = pipeline.train_batches(source, AUGMENTED, 8, seed=0)
  again.set_state(state)
  assert_equal(take(again, 3), expected)


@pytest.mark.parametrize('rows', [[[0, 1, 2, 3], [4, 5, 6, 7]], [[0, 1, 4, 5], [2, 3, 6, 7]]])
def test_processes_make_one_global_batch(source, rows):
  """Hosts side by side, or interleaved as on a torus; an iterator's place is everybody's."""
  iterator = pipeline.train_batches(source, AUGMENTED, 8, seed=0)
  whole = take(iterator, 3)
  parts = [pipeline.train_batches(source, AUGMENTED, 8, seed=0, rows=r) for r in rows]
  for batch in whole:
    for part, own in zip(parts, rows, strict=True):
      assert_equal([next(part)], [{name: value[own] for name, value in batch.items()}])
  assert [part.get_state() for part in parts] == [iterator.get_state()] * 2
  parts[0].set_state(iterator.get_state())
  assert_equal([next(parts[0])], [{k: v[rows[0]] for k, v in next(iterator).items()}])


def test_the_ids_of_a_batch_are_known_without_reading_it(source):
  @dataclasses.dataclass(frozen=True)
  class Id:
    def __call__(self, example, rng=None):
      return {'id': np.array(example['id'])}

  iterator = pipeline.train_batches(source, Id(), 8, seed=5)
  per_epoch = len(source) // 8
  batches = take(iterator, per_epoch + 2)
  for index in (0, 1, per_epoch, per_epoch + 1):  # also across the epochs' border
    assert pipeline.ids_of_batch(source, 8, 5, index) == batches[index]['id'].tolist()


@pytest.mark.parametrize('size', [1, 7, 32, 500])
def test_evaluation_sees_every_example_once_in_order(source, size):
  batches = list(pipeline.eval_batches(source, PLAIN, size))
  ids = [m['id'] for _, metas in batches for m in metas]
  assert ids == [source[i]['id'] for i in range(len(source))]
  assert {len(arrays['label']) for arrays, _ in batches} == {size}
  labels = np.concatenate([a['label'][: len(m)] for a, m in batches])
  assert labels.tolist() == [source[i]['label'] for i in range(len(source))]
  assert labels.tolist() == [m['label'] for _, metas in batches for m in metas]


def test_processes_evaluate_one_global_batch(source):
  """Also a last batch of which one process has padding alone."""
  size = next(n for n in range(8, 32, 2) if 0 < len(source) % n <= n // 2)
  whole = list(pipeline.eval_batches(source, PLAIN, size))
  for own in (np.arange(size // 2), np.arange(size // 2, size)):
    part = list(pipeline.eval_batches(source, PLAIN, size, own))
    assert [metas for _, metas in part] == [metas for _, metas in whole]
    for (a, _), (b, _) in zip(part, whole, strict=True):
      assert_equal([a], [{name: value[own] for name, value in b.items()}])


def test_an_absent_modality_is_marked_absent(source):
  example = {**source[0], 'depth': b''}
  arrays = PLAIN(example)
  assert arrays['present'].tolist() == [True, False, True]
  assert arrays['depth'].shape == (16, 16, 1)
  with pytest.raises(DataError, match='it has none of rgb, depth, ir'):
    PLAIN({**example, 'rgb': b'', 'ir': b''})


def test_each_modality_is_its_own_picture(source):
  """Flex-Modal-FAS tests with RGB as infrared (Load_FAS_MultiModal_DropModal_test.py:56)."""
  arrays = PLAIN(source[0])
  for a, b in (('rgb', 'ir'), ('rgb', 'depth'), ('depth', 'ir')):
    correlation = np.corrcoef(arrays[a].mean(-1).ravel(), arrays[b].ravel())[0, 1]
    assert abs(correlation) < 0.999


def test_batches_that_cannot_be(source):
  with pytest.raises(ConfigError, match='is more than the'):
    pipeline.train_batches(source, PLAIN, 1000, seed=0)


@dataclasses.dataclass(frozen=True)
class Fields:
  """The fields of an example, with a random number in the place of its images."""

  def __call__(self, example, rng=None):
    return {
      'id': np.array(example['id'], 'U99'),
      'label': np.int32(example['label']),
      'domain': np.int32(example['domain']),
      'drawn': np.float64(rng.random()),
    }


@pytest.fixture(scope='module')
def domains(source):
  return source.with_domains('dataset')


def counted(batch):
  """[domains, labels] how many of each combination a batch has."""
  found = np.zeros((2, 2), int)
  np.add.at(found, (batch['domain'], batch['label']), 1)
  return found


def test_domains_are_numbered_by_their_sorted_names(source, domains):
  assert domains.domain_names == ('cefa_like', 'surf_like')
  of = [domains.domain_names[number] for number in domains.domains]
  assert of == source.columns['dataset'] and source.domains is None
  batch = next(pipeline.train_batches(domains, AUGMENTED, 8, seed=0))
  assert batch['domain'].dtype == np.int32 and set(batch['domain']) == {0, 1}
  by_label = source.with_domains('label')  # any column
  assert by_label.domain_names == ('attack', 'bona_fide')
  with pytest.raises(DataError, match=f'of {len(source)} examples have no attack_type, the first'):
    source.with_domains('attack_type')


@pytest.mark.parametrize('size, low, high', [(8, 2, 2), (12, 3, 3), (10, 2, 3), (3, 0, 1)])
def test_balanced_batches_have_each_combination_equally_often(domains, size, low, high):
  balance = ('domain', 'label')
  batches = take(pipeline.train_batches(domains, Fields(), size, seed=0, balance=balance), 12)
  counts = np.array([counted(batch) for batch in batches])
  assert counts.min() == low and counts.max() == high
  # What one batch lacks, the next ones have.
  assert np.ptp(counts.sum(0)) <= 1
  # Rows go to devices and to the parts of an accumulated step by their number.
  firsts = {(int(batch['domain'][0]), int(batch['label'][0])) for batch in batches}
  assert len(firsts) == 4


@pytest.mark.parametrize('balance', [('label',), ('domain',)])
def test_batches_balanced_over_one_field(domains, balance):
  for batch in take(pipeline.train_batches(domains, Fields(), 6, seed=0, balance=balance), 4):
    assert np.bincount(batch[balance[0]]).tolist() == [3, 3]


def test_a_balanced_order_uses_each_example_once_before_one_comes_again(domains):
  balance = ('domain', 'label')
  cells = pipeline.combinations(domains, balance)
  assert list(cells) == [
    ('cefa_like', 'attack'),
    ('cefa_like', 'bona_fide'),
    ('surf_like', 'attack'),
    ('surf_like', 'bona_fide'),
  ]
  assert sorted(np.concatenate(list(cells.values()))) == list(range(len(domains)))
  order = pipeline.BalancedOrder(domains, balance, 8, seed=3)
  smallest = min(cells.values(), key=len)
  turns = [i for i in map(order.__getitem__, range(8 * len(smallest))) if i in smallest]
  n = len(smallest)
  assert sorted(turns[:n]) == sorted(turns[n:]) == smallest.tolist()
  assert turns[:n] != turns[n:] or n == 1


def test_a_balanced_order_is_a_function_of_seed_and_step(domains):
  make = functools.partial(
    pipeline.train_batches, domains, Fields(), 10, balance=('domain', 'label')
  )
  iterator = make(seed=0)
  take(iterator, 3)
  state = iterator.get_state()
  expected = take(iterator, 3)
  again = make(seed=0)
  again.set_state(state)
  assert_equal(take(again, 3), expected)  # augmentation, too
  for i, batch in enumerate(expected):
    ids = pipeline.ids_of_batch(domains, 10, 0, 3 + i, ('domain', 'label'))
    assert ids == batch['id'].tolist()
  other = take(make(seed=1), 6)[3:]
  assert any((a['id'] != b['id']).any() for a, b in zip(expected, other, strict=True))
  for rows in ([0, 1, 2, 3, 4], [5, 7, 6, 8, 9]):  # of two processes
    part = make(seed=0, rows=rows)
    part.set_state(state)
    assert_equal(take(part, 3), [{k: v[rows] for k, v in batch.items()} for batch in expected])


def test_an_empty_combination_is_named(prepared):
  names = [
    'rendered_faces/surf_like_tiny:train',
    'rendered_faces/cefa_like_tiny:train[species!=bona_fide]',
  ]
  one_sided = sources.open_source(names, prepared, check=False).with_domains('dataset')
  with pytest.raises(
    ConfigError, match="no example of config.train has domain 'cefa_like', label 'bona_"
  ):
    pipeline.train_batches(one_sided, Fields(), 8, seed=0, balance=('domain', 'label'))
  pipeline.train_batches(one_sided, Fields(), 8, seed=0, balance=('domain',))


def make_example(label=1, size=64, **pictures):
  """RGB whose left half is black, depth whose top is, infrared without black; as PNG."""
  rgb, depth, ir = (np.full((size, size, c), 90, np.uint8) for c in (3, 1, 1))
  rgb[:, : size // 2], depth[: size // 2] = 0, 0
  ir[:, : size // 2] = 120  # one grey level alone is no signal
  pictures = {'rgb': rgb, 'depth': depth, 'ir': ir} | pictures
  encoded = {
    m: b'' if image is None else cv2.imencode('.png', image)[1].tobytes()
    for m, image in pictures.items()
  }
  return {'id': 'x', 'label': label, **encoded}


def half(size, axis):
  """1 in the second half along an axis."""
  mask = np.zeros((size, size), np.float32)
  mask[(slice(None),) * axis + (slice(size // 2, None),)] = 1
  return mask


@pytest.mark.parametrize('size,map_size', [(224, 28), (256, 32), (64, 8)])
def test_the_map_is_where_rgb_is_not_black(size, map_size):
  preprocess = Preprocess(size, MODALITIES, map_size=map_size)
  live, attack = (preprocess(make_example(label, size))['map'] for label in (1, 0))
  assert live.dtype == attack.dtype == np.float32
  np.testing.assert_array_equal(live, half(map_size, axis=1))
  np.testing.assert_array_equal(attack, np.zeros((map_size, map_size)))


def test_without_rgb_the_map_is_that_of_what_is_there():
  preprocess = Preprocess(64, MODALITIES, map_size=8)
  found = preprocess(make_example(rgb=None))['map']
  np.testing.assert_array_equal(found, half(8, axis=0))
  found = preprocess(make_example(rgb=None, depth=None))['map']
  np.testing.assert_array_equal(found, np.ones((8, 8)))
  # In whatever order a config names them.
  backwards = Preprocess(64, MODALITIES[::-1], map_size=8)
  np.testing.assert_array_equal(backwards(make_example())['map'], half(8, axis=1))
  np.testing.assert_array_equal(backwards(make_example(rgb=None))['map'], half(8, axis=0))


def test_the_map_moves_with_the_picture_and_ignores_its_colours(monkeypatch):
  preprocess = Preprocess(64, MODALITIES, photometric={'rgb': {'add': 1.0}}, cutout=64, map_size=8)

  def look(view):
    monkeypatch.setattr(geometry, 'draw_view', lambda rng: view)
    return [preprocess(make_example(), np.random.default_rng(s))['map'] for s in range(4)]

  for view, expected in (
    (View(), half(8, axis=1)),
    (View(flip=True), half(8, axis=1)[:, ::-1]),
    (View(angle=90.0), np.rot90(half(8, axis=1))),
    (View((0.5, 0.0, 1.0, 0.5)), np.ones((8, 8))),
    (View((0.25, 0.25, 0.75, 0.75)), half(8, axis=1)),
  ):
    for found in look(view):
      np.testing.assert_array_equal(found, expected)


def test_resizing_is_the_configs():
  """8 to 2 pixels: bilinear has the middle two of four, for 8-bit depth too, and for no 16 bits."""

  def encode(image):
    return cv2.imencode('.png', image)[1].tobytes()

  row = np.array([[0, 10, 20, 30, 40, 50, 60, 250]], np.uint8).repeat(8, 0)
  there = {'id': 'x', 'label': 1, 'ir': encode(row)}
  eight, sixteen = encode(row), encode(row.astype(np.uint16) * 40 + 400)

  def back(image):
    return (image[0, :, 0] * 128 + 127.5).round().tolist()

  for resize, ir, depth in (('area', [15, 100], [0, 40]), ('bilinear', [15, 55], [15, 55])):
    preprocess = Preprocess(2, ('depth', 'ir'), resize=resize)
    found = preprocess(there | {'depth': eight})
    assert (back(found['ir']), back(found['depth'])) == (ir, depth)
  distances = [
    Preprocess(2, ('depth', 'ir'), resize=r)(there | {'depth': sixteen}) for r in geometry.RESIZES
  ]
  np.testing.assert_array_equal(distances[0]['depth'], distances[1]['depth'])
  with pytest.raises(ConfigError, match=r"config.resize is 'cubic'; choose one of: area, bilinear"):
    Preprocess(2, ('ir',), resize='cubic')


def test_a_flip_of_the_sample_is_a_flip_of_its_map():
  """Drawn as in training: where the first column of RGB is black, the map says so."""
  preprocess = Preprocess(64, MODALITIES, view={'flip': 0.5}, map_size=8)
  sides = set()
  for seed in range(20):
    arrays = preprocess(make_example(), np.random.default_rng(seed))
    black = arrays['rgb'][0, ::8, 0] < -0.99
    np.testing.assert_array_equal(arrays['map'][0], ~black)
    sides.add(bool(black[0]))
  assert sides == {False, True}


def test_a_batch_has_a_map_where_it_is_asked_for(source):
  asked = dataclasses.replace(AUGMENTED, map_size=4)
  batch = next(pipeline.train_batches(source, asked, 8, seed=0))
  assert batch['map'].shape == (8, 4, 4)
  assert batch['map'].dtype == np.float32
  assert set(np.unique(batch['map'])) <= {0, 1}
  live = batch['label'] == 1
  assert batch['map'][live].any()
  assert not batch['map'][~live].any()
  # And nothing else of the batch changes.
  plain = next(pipeline.train_batches(source, AUGMENTED, 8, seed=0))
  assert set(batch) - set(plain) == {'map'}
  for name, value in plain.items():
    np.testing.assert_array_equal(value, batch[name])


@pytest.mark.parametrize('value', [0, 90, 255])
def test_a_constant_picture_is_no_picture(value):
  constant = np.full((64, 64, 1), value, np.uint8)
  nothing = PLAIN(make_example(depth=None))
  for rng in (None, np.random.default_rng(0)):
    found = PLAIN(make_example(depth=constant), rng)
    assert found['present'].tolist() == [True, False, True]
    np.testing.assert_array_equal(found['depth'], nothing['depth'])


def test_a_picture_of_one_colour_is_no_picture_either():
  blue = np.zeros((8, 8, 3), np.uint8)
  blue[..., 0] = 255
  assert PLAIN(make_example(rgb=blue))['present'].tolist() == [False, True, True]


def test_noise_and_empty_depth_are_absent():
  """Asked before any view, so that no random crop decides."""
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 4, (64, 64, 1)).astype(np.uint8)
  empty = np.zeros((64, 64, 1), np.uint16)
  empty[32, 32] = 600
  for draw in (None, np.random.default_rng(0)):
    found = dataclasses.replace(PLAIN, view={'crop': (0.2, 0.4)})(
      make_example(depth=empty, ir=noise), draw
    )
    assert found['present'].tolist() == [True, False, False]
    assert not found['depth'].any() and not found['ir'].any()


def test_decoded_pictures_become_what_examples_become():
  example = make_example()
  images = {m: geometry.decode(example[m], m, 'x') for m in MODALITIES}
  expected, found = PLAIN(example), PLAIN.preprocess_images(images)
  assert set(found) == {*MODALITIES, 'present'}
  for name, value in found.items():
    np.testing.assert_array_equal(value, expected[name])
  assert PLAIN.preprocess_images({})['present'].tolist() == [False] * 3


def test_nothing_but_constant_pictures():
  """No score, and no error hours into a training."""
  black = {m: np.zeros((8, 8, 3 if m == 'rgb' else 1), np.uint8) for m in MODALITIES}
  assert PLAIN(make_example(**black))['present'].tolist() == [False] * 3
  assert PLAIN(make_example(**black), np.random.default_rng(0))['present'].tolist() == [True] * 3
  mapped = Preprocess(16, MODALITIES, map_size=4)(make_example(**black))
  assert not mapped['map'].any()
  with pytest.raises(DataError, match='x: it has none of rgb, depth, ir'):
    PLAIN(make_example(rgb=None, depth=None, ir=None))


class Examples(list):
  """A source in memory."""

  is_remote = False

  @property
  def columns(self):
    labels = [('attack', 'bona_fide')[example['label']] for example in self]
    known = {name: [example.get(name, '') for example in self] for name in pipeline.META}
    return known | {'label': labels}


def test_given_images_without_signal_are_unusable():
  nothing = make_example(ir=np.zeros((8, 8, 1), np.uint8), depth=None)
  (arrays, metas) = next(pipeline.eval_batches(Examples([nothing, make_example()]), PLAIN, 4))
  assert len(metas) == 2
  assert arrays['unusable'].tolist() == [[False, False, True]] + [[False] * 3] * 3  # padding: none


def test_several_views_of_a_picture_are_those_of_each_alone(source):
  looks = (View(), View(flip=True), View((0.1, 0.1, 0.9, 0.9), angle=5.0))
  several = dataclasses.replace(PLAIN, test_views=looks)
  arrays, _ = next(pipeline.eval_batches(source, several, 4))
  assert arrays['rgb'].shape == (4, 3, 16, 16, 3) and arrays['present'].shape == (4, 3)
  for i, view in enumerate(looks):
    one = dataclasses.replace(PLAIN, test_views=(view,))
    alone, _ = next(pipeline.eval_batches(source, one, 4))
    for modality in MODALITIES:
      np.testing.assert_array_equal(arrays[modality][:, i], alone[modality])
  np.testing.assert_array_equal(arrays['rgb'][:, 1], arrays['rgb'][:, 0, :, ::-1])
  # What is drawn in training knows nothing of them.
  assert next(pipeline.train_batches(source, several, 4, seed=0))['rgb'].shape == (4, 16, 16, 3)
