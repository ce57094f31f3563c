"""Scoring a set: the scores name the modalities that were given and carry no signal."""

import types

import cv2
import numpy as np
import pytest

from flexfas_jax.evaluation.score_files import Scores
from flexfas_jax.images import geometry
from flexfas_jax.images.preprocess import Preprocess
from flexfas_jax.input_pipeline import pipeline
from flexfas_jax.training.tasks import anti_spoofing, dataset_scoring

MODALITIES = ('rgb', 'depth', 'ir')
COVERED = {1: ('ir',), 4: ('rgb', 'depth')}
NAMES = ['', 'ir', '', '', 'rgb+depth']
N, BATCH = 5, 4  # the last batch has padding


class Examples(list):
  """A source in memory."""

  names = ('in_memory:val',)
  is_remote = False

  @property
  def columns(self):
    known = {name: [example.get(name, '') for example in self] for name in pipeline.META}
    return known | {'label': ['attack'] * len(self)}


@pytest.fixture(scope='module')
def source():
  def encoded(i, modality):
    if modality == 'depth' and i == 2:
      return None  # not given is not unusable
    shape = (32, 32, 3 if modality == 'rgb' else 1)
    ramp = 7 * np.arange(32, dtype=np.uint8)[:, None, None] + np.uint8(10 + i)
    image = np.broadcast_to(0 if modality in COVERED.get(i, ()) else ramp, shape).astype(np.uint8)
    return cv2.imencode('.png', image)[1].tobytes()

  return Examples(
    {'id': f'id{i}', 'label': 0, **{m: encoded(i, m) for m in MODALITIES}} for i in range(N)
  )


def score(batches, about, progress):
  """Stands in for a scorer: every sample's score is 0.5."""
  ids = [known['id'] for _, metas in batches for known in metas]
  one = Scores(ids=ids, label=[0] * len(ids), scores={'rgb': [0.5] * len(ids)}, header=about)
  return [one, one] if isinstance(about, list) else one


@pytest.fixture
def experiment(monkeypatch):
  monkeypatch.setattr(dataset_scoring.sharding, 'local_rows', lambda mesh, B: np.arange(B))
  return types.SimpleNamespace(
    config=types.SimpleNamespace(eval_batch_size=BATCH),
    model=types.SimpleNamespace(modalities=MODALITIES),
    mesh=None,
    preprocess=Preprocess(8, MODALITIES),
    views={'whole': geometry.View(), 'flip': geometry.View(flip=True)},
  )


def test_the_scores_name_what_carries_no_signal(experiment, source):
  scores, notes = dataset_scoring.score_dataset(experiment, score, 'val', source, {})
  assert scores.extra['unusable'].tolist() == NAMES
  assert notes == [f'val: 1 images of {m} carry no signal; treated as absent' for m in MODALITIES]
  members, _ = dataset_scoring.score_dataset(experiment, score, 'val', source, [{}, {}])
  assert [one.extra['unusable'].tolist() for one in members] == [NAMES] * 2
  scores, notes = dataset_scoring.score_dataset(experiment, score, 'val', Examples(source[2:4]), {})
  assert scores.extra == {} and notes == []


def test_the_header_names_modalities_that_no_sample_has(experiment, source):
  scores, _ = dataset_scoring.score_dataset(experiment, score, 'val', source, {'step': 3})
  assert scores.header == {'step': 3}  # depth is there in some, infrared covered in others
  rgb_alone = Examples({**example, 'depth': None, 'ir': None} for example in source[1:])
  scores, _ = dataset_scoring.score_dataset(experiment, score, 'val', rgb_alone, {'step': 3})
  assert scores.header == {'step': 3, 'not_recorded': ['depth', 'ir']}
  covered = Examples(source[1:2])  # an image without signal is one
  scores, _ = dataset_scoring.score_dataset(experiment, score, 'val', covered, {})
  assert scores.header == {}


def test_selection_skips_modalities_that_no_sample_has(experiment, source):
  rgb_alone = Examples(
    {**example, 'label': i % 2, 'depth': None, 'ir': None} for i, example in enumerate(source)
  )

  def scorer(variables, batches, progress):
    found = score(batches, {}, progress)
    same = found.scores['rgb'] + np.arange(len(found.ids))
    labels = np.arange(len(found.ids)) % 2
    return Scores(found.ids, labels, {'rgb': same / 100, 'rgb+ir': same / 100})

  task = anti_spoofing.AntiSpoofing()
  metrics = task.val_metrics(experiment, scorer, {}, rgb_alone)
  assert np.isfinite(metrics['val/eer/rgb']) and np.isnan(metrics['val/eer/rgb+ir'])
  assert metrics['val/eer'] == metrics['val/eer/rgb']
  figures = task.oracle_metrics(experiment, scorer, {}, 'far', rgb_alone)
  assert [name for name, value in figures.items() if np.isfinite(value)] == [
    'oracle/far/rgb/hter_at_test_eer'
  ]


def test_each_process_has_a_part_of_a_batch(experiment, source, monkeypatch):
  """Whatever rows a process holds, all have the whole column; some rows are held twice."""
  parts = []
  monkeypatch.setattr(
    dataset_scoring.distributed, 'sum_over_processes', lambda found: parts.append(found) or found
  )
  for rows in ([0, 3], [1, 2], [3, 2]):
    monkeypatch.setattr(
      dataset_scoring.sharding, 'local_rows', lambda mesh, B, own=rows: np.array(own)
    )
    dataset_scoring.score_dataset(experiment, score, 'val', source, {})
  whole = sum(parts)
  monkeypatch.setattr(dataset_scoring.distributed, 'sum_over_processes', lambda found: whole)
  scores, _ = dataset_scoring.score_dataset(experiment, score, 'val', source, {})
  assert scores.extra['unusable'].tolist() == NAMES
