"""Threads that share one predictor, in every format that is installed."""

import concurrent.futures
import importlib
import json
import sys
import time

import numpy as np
import pytest

from experiments.reliability import threads
from flexfas_jax.export import graph
from flexfas_jax.images import face_crop
from flexfas_jax.prediction import card, face_cropper, model_loader
from tests.export.bundle_test import EXTRAS
from tests.export.parity_test import source_of
from tests.prediction import bundles

SAMPLES, DECISIONS = 20, 400


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
  """A small ViT in all formats, with a batch of any size and, for RGB alone, of 1."""
  folder = tmp_path_factory.mktemp('bundles') / 'all'
  folder.mkdir()
  source = source_of()
  whole = graph.build(source.model, source.variables)
  rgb = graph.build(source.model, source.variables, ('rgb',))
  entries = []
  for format in model_loader.FORMATS:
    if format in EXTRAS:
      try:
        importlib.import_module(EXTRAS[format])
      except ImportError:
        continue
    writer = importlib.import_module(f'flexfas_jax.export.formats.{format}')
    for one in (whole, rgb) if writer.FIXED_SUBSETS else (whole,):
      entries += writer.write(one, source, folder)
  for entry in entries:
    entry |= bundles.about((folder / entry['file']).read_bytes())
    entry['weights_hash'] = bundles.WEIGHTS
  fields = json.loads(json.dumps(source.fields))
  return bundles.write(folder, models=entries, model=fields, image_size=16)


@pytest.fixture
def eager_switches():
  """Threads that give way as often as they can: what is not safe shows within a second."""
  before = sys.getswitchinterval()
  sys.setswitchinterval(1e-6)
  yield
  sys.setswitchinterval(before)


@pytest.mark.parametrize('format', model_loader.FORMATS)
def test_every_decision_is_that_of_its_own_sample(bundle, eager_switches, format):
  entries = [one for one in card.read(bundle).contents['models'] if one['format'] == format]
  if not entries:
    pytest.skip(f'needs the extra {format}')
  rng = np.random.default_rng(0)
  given = []
  for i in range(SAMPLES):  # brighter and darker: their scores differ
    rgb, depth, ir = rng.uniform(-0.8, 0.8, 3)
    given.append({m: bundles.png(x) for m, x in bundles.triplet(i, rgb, depth, ir).items()})
  for entry in entries:
    predictor = threads.load(bundle, entry)
    own = [{m: one[m] for m in predictor.modalities} for one in given]
    scores = np.sort([predictor(**one).score for one in own])
    assert np.diff(scores).min() > threads.TOLERANCE  # otherwise a mistake would not show
    found = threads.share(predictor, own, DECISIONS)
    assert (found.wrong, found.failed) == (0, 0), entry['file']


class Detector:
  """A detector as OpenCV's: it is given an image's size first, then the image."""

  def setInputSize(self, size):
    self.size = size

  def setScoreThreshold(self, score):
    time.sleep(1e-4)  # another thread's turn, if it gets one

  def detect(self, image):
    assert self.size == image.shape[1::-1]
    face = [0.25 * self.size[0], 0.25 * self.size[1], 0.5 * self.size[0], 0.5 * self.size[1]]
    return 1, np.array([[*face, *[0.0] * 10, 0.9]], np.float32)


def test_a_detector_is_used_by_one_thread_at_a_time(monkeypatch):
  detector = Detector()
  monkeypatch.setattr(face_crop, 'load_yunet', lambda path, sha256: detector)
  one = face_cropper.FaceCropper(face_crop.CropRecipe('yunet', model_sha256='0', margin=0.0))
  images = [bundles.picture(i, size=80 + 8 * i, channels=3) for i in range(8)]
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    found = list(pool.map(lambda image: one({'rgb': image}, {})[0]['rgb'], 8 * images))
  assert [crop.shape[0] for crop in found] == 8 * [40 + 4 * i for i in range(8)]
