"""Which figures have too few samples or subjects, by metric."""

import dataclasses

import numpy as np
import pytest

from flexfas_jax.evaluation import metrics, results, sufficiency
from flexfas_jax.evaluation.score_files import Scores

OF_BOTH = {'acer', 'hter', *metrics.of_kind(metrics.OfCurve)}
BONA_FIDE, ATTACK = {'bpcer', 'bpnrr'}, {'apcer', 'apnrr'}
STATED = OF_BOTH | BONA_FIDE | ATTACK | {'apcer_max', 'acer_max', 'threshold', 'n_attack'}


def made(bona_fide, species, score=None):
  """Scores of as many samples, each of a subject of its own: {species: n}."""
  kinds = [''] * bona_fide + [name for name, n in species.items() for _ in range(n)]
  label = [int(not kind) for kind in kinds]
  values = [0.9 if kind in ('', score) else 0.1 for kind in kinds]
  ids = [str(i) for i in range(len(kinds))]
  return Scores(ids, label, {'rgb': values}, attack_type=kinds, subject=[f's{i}' for i in ids])


def few(scores):
  found = results.compute(scores, 'fixed=0.5')
  few = sufficiency.insufficient_metrics(scores, found)['rgb']
  return {name for name in few if name in STATED or '/' in name}


def test_a_figure_has_too_few_if_a_part_of_it_has():
  assert few(made(29, {'mask': 29})) == set()
  assert few(made(28, {'mask': 29})) == BONA_FIDE | OF_BOTH | {'acer_max'}
  of_mask = {'apcer/mask', 'apcer_max', 'acer_max'}
  assert few(made(29, {'mask': 28})) == ATTACK | OF_BOTH | of_mask


def test_a_maximum_is_of_the_species_that_attain_it():
  sizes = {'mask': 40, 'print': 5}
  assert few(made(40, sizes, score='mask')) == {'apcer/print'}
  assert few(made(40, sizes, score='print')) == {'apcer/print', 'apcer_max', 'acer_max'}
  assert few(made(40, sizes)) == {'apcer/print'}  # both 0: one of them with enough


@pytest.mark.parametrize(
  ('fields', 'is_few'),
  [
    ({'subject': 9, 'video': 36}, True),
    ({'subject': 10, 'video': 36}, False),
    ({'video': 9}, True),
    ({'video': 10}, False),
    ({}, False),
  ],
)
def test_subjects_count_or_else_videos_or_else_samples(fields, is_few):
  scores = made(36, {'mask': 36})
  names = {field: [f'{i % n}' for i in range(72)] for field, n in fields.items()}
  scores = dataclasses.replace(scores, **{'subject': None, 'video': None} | names)
  assert ('bpcer' in few(scores)) == is_few


def test_subjects_of_two_data_sets_are_two():
  scores = made(36, {'mask': 36})
  of = {'subject': [str(i % 5) for i in range(72)], 'dataset': ['a', 'b'] * 36}
  assert not few(dataclasses.replace(scores, **of)) & {'bpcer', 'apcer', 'acer'}
  assert 'bpcer' in few(dataclasses.replace(scores, subject=of['subject']))


def test_by_counts_alone():
  scores = made(29, {'mask': 28, 'print': 29})
  found = results.compute(scores, 'fixed=0.5')
  assert sufficiency.insufficient_by_counts(found)['rgb'] == {'apcer/mask'}
  scores = made(28, {'mask': 28})
  found = results.compute(scores, 'fixed=0.5')
  assert 'threshold' not in sufficiency.insufficient_by_counts(found)['rgb']
  assert sufficiency.insufficient_by_counts(found) == sufficiency.insufficient_metrics(
    scores, found
  )


def test_categories_are_kinds_as_well():
  scores = made(29, {'mask': 28, 'print': 29})
  category = np.where(scores.label == 1, '', np.where(scores.attack_type == 'mask', '3d', '2d'))
  assert few(dataclasses.replace(scores, attack_category=category)) == {
    'apcer/3d', 'apcer_species/mask'
  }  # fmt: skip
  scores = dataclasses.replace(scores, attack_category=category, attack_type=None)
  assert few(scores) == {'apcer/3d'}


def test_metrics_of_whole_classes():
  found = [
    sufficiency.insufficient_class_metrics(made(*sizes)) & STATED
    for sizes in ((28, {'mask': 29}), (29, {'mask': 29}), (29, {'mask': 28}))
  ]
  assert found == [BONA_FIDE | OF_BOTH | {'acer_max'}, set(), ATTACK | OF_BOTH]
