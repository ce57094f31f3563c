"""Decisions: what is used, what is left out, and that nothing bad is ever accepted."""

import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from flexfas_jax.errors import ConfigError, DataError, StateError
from flexfas_jax.images import face_crop
from flexfas_jax.prediction import Predictor, samples, score_table
from flexfas_jax.prediction.decision import Decision, decide
from tests.prediction import bundles

ROOT = Path(__file__).parents[2]
SUBSETS = [s for n in range(4) for s in itertools.combinations(bundles.MODALITIES, n)]


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
  return bundles.write(tmp_path_factory.mktemp('bundles') / 'toy')


@pytest.fixture(scope='module')
def predictor(bundle):
  return Predictor.load(bundle)


def of(tmp_path, **changes):
  return Predictor.load(bundles.write(tmp_path / 'bundle', **changes))


@pytest.mark.parametrize('used', SUBSETS, ids='+'.join)
def test_every_subset_has_its_own_threshold(predictor, used):
  """All eight, the empty one included; what is absent cannot change the score."""
  pictures = bundles.triplet()
  found = predictor(**{m: pictures[m] for m in used})
  assert found.used == used
  if not used:
    assert found.outcome == 'fta' and not found and np.isnan(found.score)
    return
  expected = bundles.score_of(predictor.acquire(pictures).arrays, used)
  assert found.score == pytest.approx(expected, abs=1e-6)
  assert found.threshold == bundles.THRESHOLDS['+'.join(used)]
  assert found.accepted == (found.score >= found.threshold) == bool(found)
  assert found.seconds > 0
  # As in training: zeros, and not present.
  arrays = predictor.acquire({m: pictures[m] for m in used})
  assert arrays.present.tolist() == [m in used for m in bundles.MODALITIES]
  assert not any(arrays.arrays[m].any() for m in bundles.MODALITIES if m not in used)


FORMS = ('path', 'text', 'bytes', 'bytearray', 'memoryview', 'array', None)


@pytest.mark.parametrize('rgb', FORMS)
def test_paths_bytes_and_arrays_mix(predictor, tmp_path, rgb):
  """Every combination of the ways to give an image gives the score of the arrays."""
  arrays = bundles.triplet(1)
  given = {}
  for modality, array in arrays.items():
    (tmp_path / modality).write_bytes(content := bundles.png(array))
    path = tmp_path / modality
    ways = path, str(path), content, bytearray(content), memoryview(content), array, None
    given[modality] = dict(zip(FORMS, ways, strict=True))
  expected = {
    used: predictor(**{m: arrays[m] for m in used}) for used in (*SUBSETS, bundles.MODALITIES)
  }
  for depth, ir in itertools.product(FORMS, FORMS):
    forms = {'rgb': rgb, 'depth': depth, 'ir': ir}
    found = predictor(**{m: given[m][form] for m, form in forms.items()})
    used = tuple(m for m, form in forms.items() if form)
    assert found.used == used, forms
    assert found.outcome == expected[used].outcome, forms
    np.testing.assert_equal(found.score, expected[used].score, str(forms))


@pytest.mark.parametrize('one', FORMS[:-1])
@pytest.mark.parametrize('other', FORMS[:-1])
def test_a_copy_is_refused_however_it_is_given(predictor, tmp_path, one, other):
  """The same file twice, or a file and its array: infrared that is RGB is no second sensor."""
  array = bundles.picture(3, channels=3)
  (tmp_path / 'file.png').write_bytes(content := bundles.png(array))
  path = tmp_path / 'file.png'
  ways = path, str(path), content, bytearray(content), memoryview(content), array
  ways = dict(zip(FORMS, ways, strict=False))
  with pytest.raises(DataError, match='ir is (a copy of|the same file as) rgb'):
    predictor(rgb=ways[one], ir=ways[other])


@pytest.mark.parametrize('value', [0, 77, 255])
def test_a_covered_sensor_is_a_failure_to_acquire_unless_allowed(predictor, bundle, value):
  pictures = bundles.triplet()
  covered = {**pictures, 'depth': np.full((24, 24), value, np.uint8)}
  without = predictor(rgb=pictures['rgb'], ir=pictures['ir'])
  assert without.accepted and without.unusable == ()  # not given is no failure
  found = predictor(**covered)
  assert not found and found.outcome == 'fta' and np.isnan(found.score)
  assert found.unusable == ('depth',) and found.as_json()['unusable'] == ['depth']
  assert found.reasons[0] == 'depth is one colour throughout: it carries no signal'
  assert "--allow_absent=depth, allow_absent=('depth',)" in found.reasons[1]
  for allowed in (
    predictor(**covered, allow_absent=('depth',)),
    Predictor.load(bundle, allow_absent=['depth', 'ir'])(**covered),
  ):
    assert allowed.accepted and (allowed.score, allowed.used) == (without.score, ('rgb', 'ir'))
    assert allowed.threshold == bundles.THRESHOLDS['rgb+ir']
    assert allowed.unusable == ('depth',) and allowed.reasons == found.reasons[:1]
  # Another sensor's permission is not this one's, and a call's replaces the predictor's.
  assert predictor(**covered, allow_absent=['ir']).outcome == 'fta'
  assert Predictor.load(bundle, allow_absent=['depth'])(**covered, allow_absent=()).outcome == 'fta'
  # The parts of a call keep the contract too.
  acquired = predictor.acquire(covered)
  for used in (predictor.used(acquired), ('rgb',)):
    assert predictor.decide(acquired, used).outcome == 'fta'
    assert predictor.decide(acquired, used, ['depth']).accepted
  black = {m: np.full_like(image, value) for m, image in pictures.items()}
  for allow_absent in ((), bundles.MODALITIES):
    found = predictor(**black, allow_absent=allow_absent)
    assert found.outcome == 'fta' and len(found.reasons) == 4
    assert found.unusable == bundles.MODALITIES


@pytest.mark.parametrize(
  ('allow_absent', 'says'),
  [
    (['thermal'], "no modality 'thermal' in this model"),
    (['depth'], 'depth is required'),
    ('ir', r"allow_absent is 'ir'; give a sequence of names: \('ir',\)"),
    (5, 'allow_absent is 5; give a sequence of names'),
  ],
)
def test_what_cannot_be_allowed(bundle, allow_absent, says):
  with pytest.raises(ConfigError, match=says):
    Predictor.load(bundle, require=['depth'], allow_absent=allow_absent)
  with pytest.raises(ConfigError, match=says):
    Predictor.load(bundle, require=['depth'])(**bundles.triplet(), allow_absent=allow_absent)


@pytest.mark.parametrize('name', ['requires', 'allow_absents', 'require_signed', 'magrin'])
@pytest.mark.parametrize('crop', [None, 'box'])
def test_an_argument_that_is_misspelt_is_refused(bundle, name, crop):
  """It was ignored: a predictor that should require infrared did not."""
  with pytest.raises(TypeError, match=name):
    Predictor.load(bundle, crop=crop, **{name: ('ir',)})


def test_what_a_sample_lacks_does_not_decide(predictor):
  """The score would be of RGB alone, and the threshold of RGB and infrared."""
  images = bundles.triplet()
  without = predictor.acquire({'rgb': images['rgb']})
  covered = predictor.acquire({'rgb': images['rgb'], 'ir': np.zeros_like(images['ir'])})
  for acquired in (without, covered):
    with pytest.raises(ConfigError, match=r'rgb\+ir cannot decide: the sample has no ir'):
      predictor.decide(acquired, ('rgb', 'ir'), ('ir',))
    assert predictor.decide(acquired, ('rgb',), ('ir',)).threshold == bundles.THRESHOLDS['rgb']


def test_nan_is_a_failure(predictor):
  white = np.full((24, 24, 3), 255, np.uint8)
  white[:8, :8] = 245
  found = predictor(rgb=white)
  assert found.outcome == 'fta' and not found.accepted
  assert 'nan' in found.reasons[-1]


def test_what_is_late_is_absent(predictor):
  pictures = bundles.triplet()
  times = {'rgb': 10.0, 'depth': 10.08, 'ir': 9.96}
  found = predictor(**pictures, times=times, max_skew=0.05)
  assert found.outcome == 'fta' and found.unusable == ('depth',)
  assert found.reasons[0] == 'depth is 80 ms later than rgb, more than 50 ms'
  found = predictor(**pictures, times=times, max_skew=0.05, allow_absent=['depth'])
  assert found.used == ('rgb', 'ir') and found.unusable == ('depth',)
  assert found.score == predictor(rgb=pictures['rgb'], ir=pictures['ir']).score
  assert predictor(**pictures, times=times, max_skew=0.1).used == bundles.MODALITIES
  # A video that stands still: all are equally late, and nothing is left.
  found = predictor(**pictures, times={**times, 'now': 12.0}, max_skew=0.1, max_age=0.5)
  assert found.outcome == 'fta' and found.used == ()
  # A sensor without a clock is not believed; RGB without one compares nobody with itself.
  found = predictor(**pictures, times={**times, 'rgb': float('nan')}, max_skew=0.2)
  assert found.outcome == 'fta' and found.used == ('depth', 'ir') and found.unusable == ('rgb',)
  with pytest.raises(ConfigError, match='ir has none'):
    predictor(**pictures, times={'rgb': 1, 'depth': 1}, max_skew=0.1)
  with pytest.raises(ConfigError, match='max_skew is nan'):
    predictor(**pictures, times=times, max_skew=float('nan'))


def jpeg_turned(image, orientation):
  """A JPEG that EXIF wants turned back to `image`."""
  back = {6: 3, 8: 1, 3: 2}[orientation]  # quarter turns, counter-clockwise of the stored pixels
  stored = Image.fromarray(np.rot90(image, -back % 4))
  exif = Image.Exif()
  exif[0x0112] = orientation
  file = io.BytesIO()
  stored.save(file, 'PNG', exif=exif)
  return file.getvalue()


@pytest.mark.parametrize('orientation', [3, 6, 8])
def test_exif_turns_pictures(predictor, orientation):
  image = bundles.picture(3, channels=3)
  plain = predictor.acquire({'rgb': image}).arrays['rgb']
  turned = predictor.acquire({'rgb': jpeg_turned(image, orientation)}).arrays['rgb']
  np.testing.assert_array_equal(plain, turned)


@pytest.mark.parametrize(
  ('pictures', 'says'),
  [
    ({'rgb': bundles.picture(0, channels=3, dtype=np.uint16)}, 'rgb has 16 bits.*of 8 bits'),
    ({'ir': bundles.picture(0, dtype=np.uint16)}, 'ir has 16 bits'),
    ({'depth': bundles.picture(0, dtype=np.uint16)}, 'no value above.*not mm'),
    ({'rgb': bundles.picture(0).astype(np.float32)}, 'of float32; expected .H, W.'),
    ({'rgb': bundles.picture(0, channels=4)}, 'expected .H, W.'),
    ({'rgb': [[0]]}, 'rgb is a list'),
    ({'rgb': b'<!DOCTYPE html><html>'}, 'rgb is an HTML page'),
    ({'rgb': b''}, 'rgb is empty'),
    ({'rgb': bundles.png(bundles.picture(0, channels=3))[:-30]}, 'rgb is truncated'),
    ({'rgb': 'absent.png'}, 'rgb absent.png cannot be read: No such file'),
    (dict.fromkeys(('rgb', 'ir'), bundles.picture(0, channels=3)), 'ir is a copy of rgb'),
    ({'depth': cv2.applyColorMap(bundles.picture(1), 2)}, 'depth has channels'),
  ],
)
def test_bad_pictures_are_refused(predictor, pictures, says):
  with pytest.raises(DataError, match=says):
    predictor(**pictures)


def test_a_damaged_jpeg_that_decoders_accept_is_refused(predictor):
  whole = cv2.imencode('.jpg', bundles.picture(0, channels=3, size=128))[1].tobytes()
  middle = len(whole) // 2
  for damaged in (
    whole[:middle] + b'\xff\xd9',
    whole[:middle] + bytes(512) + whole[middle + 512 :],
    whole[:middle] + whole[middle + 512 :],
  ):
    with pytest.raises(DataError, match='rgb (cannot be decoded whole|is damaged)'):
      predictor(rgb=damaged)


def test_bytes_behind_an_image_change_nothing(predictor):
  """Phones append a video or a second image; others pad to whole blocks."""
  image = bundles.picture(0, channels=3, size=128)
  for encoded in (cv2.imencode('.jpg', image)[1].tobytes(), bundles.png(image)):
    expected = predictor(rgb=encoded)
    for behind in (bytes(8192), np.random.default_rng(0).bytes(3 << 20), encoded):
      found = predictor(rgb=encoded + behind)
      assert (found.score, found.outcome) == (expected.score, expected.outcome)


def test_images_that_are_not_registered_are_refused(predictor, bundle):
  """RGB upright beside depth of a camera on its side, cropped or not."""
  rgb = np.repeat(np.repeat(bundles.picture(0, channels=3), 8, 0), 5, 1)
  depth = np.repeat(np.repeat(bundles.picture(1, size=8)[..., 0], 9, 0), 16, 1)
  for one, other in itertools.product(
    (rgb, bundles.png(rgb)), (depth, bundles.png(depth[..., None]))
  ):
    with pytest.raises(DataError, match='rgb 120 x 192, depth 128 x 72: .* not registered'):
      predictor(rgb=one, depth=other)
    with pytest.raises(DataError, match='not registered'):  # not hidden by what may be absent
      predictor(rgb=one, depth=other, allow_absent=['depth'])
  # EXIF turns before sizes are compared.
  lying = np.concatenate([depth, depth[:8]])  # 128 x 80, as RGB on its side
  turned = jpeg_turned(np.rot90(rgb), 6)
  assert predictor(rgb=turned, depth=lying).used == ('rgb', 'depth')
  with pytest.raises(DataError, match='rgb 120 x 192'):
    predictor(rgb=jpeg_turned(rgb, 6), depth=lying)
  # A prepared set was checked by its builder's own rule; in a folder or a list nobody has.
  sample = samples.Sample('1', {'rgb': rgb, 'depth': depth})
  for as_evaluated, used in ((False, ()), (True, ('rgb', 'depth'))):
    table = score_table.score_samples(predictor, [sample], batch=1, as_evaluated=as_evaluated)
    assert table.decisions[0].used == used
    assert (table.decisions[0].outcome == 'fta') == (not used)
    assert ['not registered' in text for _, text in table.faults] == [True] * (not as_evaluated)
  # Crops that were made for each modality.
  assert Predictor.load(bundle, sizes='any')(rgb=rgb, depth=depth).used == ('rgb', 'depth')
  with pytest.raises(DataError, match='not registered'):
    Predictor.load(bundle, sizes='equal')(rgb=np.tile(rgb, (2, 2, 1)), ir=rgb[..., 0])
  with pytest.raises(ConfigError, match="sizes is 'same'; choose one of any, aspect, equal"):
    Predictor.load(bundle, sizes='same')


def constant(*shape):
  """An array of any size that takes one byte."""
  return np.broadcast_to(np.uint8(7), shape)


LARGE = '5001 x 5000 pixels, more than the limit of 25,000,000'


@pytest.mark.parametrize(
  ('array', 'says'),
  [
    (constant(5000, 5001), LARGE),
    (constant(5000, 5001, 3), LARGE),
    (constant(10**6, 10**6, 1), 'more than the limit'),
    (constant(15, 16), '16 x 15 pixels; each side must have at least 16'),
    (constant(2, 300, 3), '300 x 2 pixels'),
    (constant(24, 24).astype(object), 'of object; expected .H, W.'),
    (constant(24, 24).astype('>u2'), 'of >u2; expected .H, W.'),
    (constant(24, 24, 2), 'expected .H, W.'),
    (constant(24), 'expected .H, W.'),
    (np.zeros((0, 24), np.uint8), 'expected .H, W.'),
    (np.zeros((24, 24), [('a', np.uint8)]), 'expected .H, W.'),
    (np.ma.masked_less(bundles.picture(0)[..., 0], 120), 'is a masked array'),
  ],
)
def test_arrays_outside_the_limits(predictor, array, says):
  with pytest.raises(DataError, match=says):
    predictor(ir=array)


def test_arrays_of_any_layout(predictor):
  """Read-only, strided, reversed, Fortran, of a subclass: the values alone count."""
  image = bundles.picture(3)
  expected = predictor(ir=image).score
  frozen = image.copy()
  frozen.flags.writeable = False
  strided = np.repeat(np.repeat(image, 2, 0), 3, 1)[::2, ::3]
  reverse = image[::-1].copy()[::-1]
  fortran, memmap = np.asfortranarray(image), image.view(np.memmap)
  for array in (frozen, strided, reverse, fortran, memmap, image[..., 0]):
    assert predictor(ir=array).score == expected


def test_the_callers_memory_is_copied(predictor):
  """A camera writes its next frame to the buffer that the last one was given in."""
  images = bundles.triplet(2)
  sent = predictor.acquire(images).crops
  for modality, image in images.items():
    assert not np.shares_memory(sent[modality], image)


@pytest.mark.parametrize('as_path', [True, False])
def test_encoded_images_outside_the_limits(bundle, tmp_path, as_path):
  predictor = Predictor.load(bundle, max_pixels=600)
  for shape, says in (
    ((24, 26), 'is 26 x 24 pixels, more than the limit of 600'),
    ((12, 24), 'is 24 x 12 pixels; each side must have at least 16'),
  ):
    content = bundles.png(np.zeros((*shape, 1), np.uint8))
    (tmp_path / 'ir.png').write_bytes(content)
    with pytest.raises(DataError, match=says):
      predictor(ir=tmp_path / 'ir.png' if as_path else content)
  assert predictor(ir=bundles.picture(0)).used == ('ir',)  # 576
  for value in (0, -1, 1.5, 'many'):
    with pytest.raises(ConfigError, match='max_pixels is'):
      Predictor.load(bundle, max_pixels=value)


def test_too_many_bytes_are_not_copied(predictor):
  huge = memoryview(np.broadcast_to(np.uint8(0), 2**27))
  with pytest.raises(DataError, match='ir has 134,217,728 bytes, and at most 67,108,864 are read'):
    predictor(ir=huge)


@pytest.mark.parametrize(
  ('path', 'says'),
  [
    ('/dev/zero', 'ir /dev/zero cannot be read: it is a device, not a regular file'),
    ('fifo', 'it is a named pipe, not a regular file'),
    ('.', 'it is a directory'),
    ('sparse', 'it has 1,099,511,627,776 bytes, and at most'),
    ('a\0b', 'null (byte|character)'),
  ],
)
def test_files_that_are_no_files(predictor, tmp_path, monkeypatch, path, says):
  monkeypatch.chdir(tmp_path)
  os.mkfifo('fifo')
  with open('sparse', 'wb') as file:
    file.truncate(2**40)
  with pytest.raises(DataError, match=says):
    predictor(ir=path)


def test_depth_in_millimetres(predictor):
  rng = np.random.default_rng(0)
  depth = rng.integers(500, 700, (24, 24)).astype(np.uint16)
  assert predictor(depth=depth).used == ('depth',)


def test_what_the_model_does_not_serve(tmp_path):
  subsets = ['rgb', 'rgb+depth', 'rgb+ir', 'rgb+depth+ir']
  one = of(tmp_path, requires=['rgb'], subsets=subsets)
  pictures = bundles.triplet()
  found = one(depth=pictures['depth'], ir=pictures['ir'])
  assert found.outcome == 'fta' and 'rgb is required but absent' in found.reasons
  # Covering the camera is no way in either.
  found = one(**{**pictures, 'rgb': np.zeros((24, 24, 3), np.uint8)})
  assert found.outcome == 'fta' and found.used == ('depth', 'ir')
  two = of(tmp_path, subsets=['rgb', 'ir'])
  found = two(rgb=pictures['rgb'], ir=pictures['ir'])
  assert found.outcome == 'fta' and 'this model does not serve rgb+ir' in found.reasons[0]
  with pytest.raises(ConfigError, match="this model has no modality 'thermal'; it has rgb"):
    two(thermal=pictures['ir'])


def test_what_the_operator_requires(bundle):
  """A model that serves RGB alone is not to be asked by who covers the depth sensor."""
  pictures = bundles.triplet()
  predictor = Predictor.load(bundle, require=['depth'])
  assert predictor(**pictures).outcome == 'bona_fide'
  found = predictor(rgb=pictures['rgb'], depth=np.zeros((24, 24), np.uint8))
  assert found.outcome == 'fta' and found.reasons[-1] == 'depth is required but absent'
  with pytest.raises(ConfigError, match='thermal is required'):
    Predictor.load(bundle, require=['thermal'])


def test_no_threshold_no_decision(tmp_path):
  values = {name: v for name, v in bundles.THRESHOLDS.items() if name != 'rgb'}
  predictor = of(tmp_path, thresholds={n: bundles.threshold(v) for n, v in values.items()})
  pictures = bundles.triplet()
  assert predictor(**pictures).accepted
  with pytest.raises(StateError, match='no threshold for rgb '):
    predictor(rgb=pictures['rgb'])


def test_faces(bundle):
  predictor = Predictor.load(bundle, crop='box', margin=0.0)
  rgb, depth = bundles.picture(0, size=200, channels=3), bundles.picture(1, size=100)
  inside = (60, 40, 120, 100)
  acquired = predictor.acquire({'rgb': rgb, 'depth': depth}, box=inside)
  np.testing.assert_array_equal(acquired.crops['rgb'], rgb[40:100, 60:120])
  np.testing.assert_array_equal(acquired.crops['depth'], depth[20:50, 30:60])
  assert predictor(rgb=rgb, box=inside).outcome != 'fta'
  for box, says in (
    (None, 'no face: none is named'),
    ((0, 0, 20, 20), 'pixels along its longer side, and 32 are due'),
    ((-80, 0, 60, 140), 'of its box is in the image'),
  ):
    found = predictor(rgb=rgb, box=box)
    assert found.outcome == 'fta' and says in found.reasons[0], box
  with pytest.raises(DataError, match='the box has no inside'):
    predictor(rgb=rgb, box=(60, 60, 60, 60))
  with pytest.raises(DataError, match='rgb 200 x 200, depth 100 x 50: .* not registered'):
    predictor(rgb=rgb, depth=depth[:50], box=inside)
  unregistered = Predictor.load(bundle, crop='box', margin=0.0, sizes='any')
  with pytest.raises(DataError, match='one crop requires registered images'):
    unregistered(rgb=rgb, depth=depth[:50], box=inside)
  # What shows nothing where the face is shows nothing.
  hole = depth.copy()
  hole[20:50, 30:60] = 0
  found = predictor(rgb=rgb, depth=hole, box=inside)
  assert found.outcome == 'fta' and found.unusable == ('depth',)
  assert 'where the face is' in found.reasons[0]
  assert predictor(rgb=rgb, depth=hole, box=inside, allow_absent=['depth']).used == ('rgb',)


@pytest.mark.parametrize('n', [0, 1, 2])
def test_a_detector(bundle, tmp_path, monkeypatch, n):
  """Of two faces the largest; none is a result."""
  places = [(0.1, 0.1, 0.3, 0.3), (0.4, 0.4, 0.8, 0.8)][:n]
  monkeypatch.setattr(face_crop, 'load_yunet', lambda path, sha256: 'model')
  monkeypatch.setattr(face_crop, 'detect_yunet', lambda *_: [face_crop.Face(p) for p in places])
  (tmp_path / 'yunet.onnx').write_bytes(b'a model')
  predictor = Predictor.load(bundle, crop='yunet', yunet=tmp_path / 'yunet.onnx', margin=0.0)
  rgb = bundles.picture(0, size=200, channels=3)
  found, acquired = predictor(rgb=rgb), predictor.acquire({'rgb': rgb})
  if not n:
    assert found.outcome == 'fta' and found.reasons[0] == 'no face: none was found'
    return
  assert acquired.crops['rgb'].shape == ((0, 40, 80)[n],) * 2 + (3,)
  assert found.reasons == (() if n == 1 else ('2 faces: the largest is used',))
  found = predictor(depth=bundles.picture(0, size=200))
  assert found.outcome == 'fta' and 'no RGB and no infrared' in found.reasons[0]


def test_a_crop_that_cannot_be(bundle):
  for how in ({'crop': 'yunet'}, {'yunet': 'a.onnx'}, {'crop': 'box', 'yunet': 'a.onnx'}):
    with pytest.raises(ConfigError):
      Predictor.load(bundle, **how)
  with pytest.raises(DataError, match='absent.onnx cannot be read'):
    Predictor.load(bundle, crop='yunet', yunet='absent.onnx')
  with pytest.raises(ConfigError, match="has no effect without crop='box'"):
    Predictor.load(bundle)(rgb=bundles.picture(0, channels=3), box=(0, 0, 9, 9))


def test_warming_up_runs_the_model_once_on_what_it_takes(bundle):
  """A model that fails when it runs fails then, not at the first face."""
  loaded, seen = Predictor.load(bundle), []

  def run(images, present):
    seen.append(({m: (x.shape, x.dtype.name) for m, x in images.items()}, present.tolist()))
    return np.zeros(1, np.float32)

  loaded._run = run
  assert loaded.warm_up() is None
  shapes = {m: ((1, 8, 8, 3 if m == 'rgb' else 1), 'float32') for m in bundles.MODALITIES}
  assert seen == [(shapes, [[True] * 3])]

  def fails(images, present):
    raise StateError('the model fails')

  loaded._run = fails
  with pytest.raises(StateError, match='the model fails'):
    loaded.warm_up()


def test_a_decision_is_true_only_where_it_accepts():
  assert decide(0.5, 0.5, ['rgb'])
  assert not decide(np.nextafter(0.5, 0), 0.5, ['rgb'])
  assert decide(float('nan'), 0.5, ['rgb']).outcome == 'fta'
  assert decide(0.9, float('nan'), ['rgb']).outcome == 'attack'  # a comparison with nan is false
  assert Decision('fta').as_json()['score'] is None
  with pytest.raises(ValueError):
    Decision('accept')


def test_three_lines_need_neither_flax_nor_training(bundle, tmp_path):
  cv2.imwrite(str(tmp_path / 'a.png'), bundles.picture(0, channels=3))
  code = (
    'import sys\n'
    'from flexfas_jax.prediction import Predictor\n'
    'before = "jax" in sys.modules\n'
    f'predictor = Predictor.load({str(bundle)!r})\n'
    f'decision = predictor(rgb={str(tmp_path / "a.png")!r})\n'
    'heavy = {"flax", "optax", "orbax", "grain", "tensorflow_datasets", "ml_collections",'
    ' "array_record", "flexfas_jax.training", "flexfas_jax.models", "matplotlib", "absl.flags"}\n'
    'print(decision.outcome, before, sorted(heavy & set(sys.modules)))\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=60
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.split() == ['bona_fide', 'False', '[]']


def test_dark_noise_is_unusable_and_not_a_second_sensor(predictor):
  images = bundles.triplet()
  noise = np.random.default_rng(0).integers(0, 4, (24, 24, 1)).astype(np.uint8)
  found = predictor(**(images | {'ir': noise}))
  assert found.outcome == 'fta' and found.unusable == ('ir',)
  assert 'levels, and 6 are required: it carries no signal' in found.reasons[0]


def test_units_are_refused_or_converted(tmp_path):
  """Ten bits in sixteen, and tenths of a millimetre, decide like the image they are of."""
  inputs = bundles.INPUTS | {'ir': {'channels': 1, 'bits': [16]}}
  folder = bundles.write(tmp_path / 'bundle', inputs=inputs)
  arrays = bundles.triplet()
  ir = arrays['ir'].astype(np.uint16) * 257
  depth = (arrays['depth'].astype(np.uint16) * 4 + 400).astype(np.uint16)
  holes = depth.copy()
  holes[:3] = 65535
  plain = Predictor.load(folder)
  want = plain(ir=ir)
  for form in (np.asarray, bundles.png):
    with pytest.raises(DataError, match='ir has 16 bits and .*ir_bits=10'):
      plain(ir=form(ir >> 6))
    with pytest.raises(DataError, match='depth has 12.5% of its pixels at 65535.*depth_unit=mm'):
      plain(depth=form(holes))
    with pytest.raises(DataError, match='depth has a median of .*no face'):
      plain(depth=form(depth * 10))
    stated = Predictor.load(folder, ir_bits=10, depth_unit='0.1mm')
    assert stated(ir=form(ir >> 6)).score == pytest.approx(want.score, abs=0.002)
    assert stated(depth=form(depth * 10)).score == plain(depth=depth).score
    with pytest.raises(DataError, match='ir has values up to .*10 bits hold 1023'):
      stated(ir=form(ir))
    unmeasured = np.where(holes == 65535, 0, holes).astype(np.uint16)
    millimetres = Predictor.load(folder, depth_unit='mm')
    assert millimetres(depth=form(holes)).score == plain(depth=unmeasured).score
  for wrong in ({'ir_bits': 11}, {'depth_unit': 'cm'}):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
      Predictor.load(folder, **wrong)
