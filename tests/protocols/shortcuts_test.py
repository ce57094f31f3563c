"""Facts that predict the label are found, others are not."""

import numpy as np
import pytest

from flexfas_jax.protocols import shortcuts


def rows(subjects=10, frames=3, attacks=3):
  """(labels, subjects, videos) of subjects with one bona fide video and some attacks each."""
  some = [
    ('attack' if clip else 'bona_fide', f's{subject}', f's{subject}/{clip}')
    for subject in range(subjects)
    for clip in range(attacks + 1)
    for _ in range(frames)
  ]
  return tuple(map(list, zip(*some, strict=True)))


def found(values, *who, name='fact'):
  return [(s.fact, s.accuracy) for s in shortcuts.find({name: values}, *(who or rows()))]


def test_a_sensor_that_attacks_alone_have():
  labels, *who = rows()
  present = [label == 'attack' for label in labels]
  facts = shortcuts.facts_of({'rgb': [True] * len(labels), 'ir': present}, {})
  (shortcut,) = shortcuts.find(facts, labels, *who)
  assert shortcut == (
    'ir presence', 1.0, (('absent', 0.0, 1.0), ('present', 1.0, 0.0)),
  )  # fmt: skip
  assert str(shortcut) == (
    'ir presence separates attacks from bona fide samples (balanced accuracy 1.00): '
    'absent: 0% of attacks, 100% of bona fide; present: 100% of attacks, 0% of bona fide'
  )


def test_the_accuracy_by_hand():
  """Three subjects, one of whom has it the other way round: others predict it wrong, twice."""
  labels = ['bona_fide', 'attack'] * 3
  who = [f's{i // 2}' for i in range(6)]
  attack = np.array(labels) == 'attack'
  subject = np.arange(6) // 2
  value = np.array([0, 1, 0, 1, 1, 0])
  # For s0 and s1, the others are one for and one against: a guess. For s2, both say the opposite.
  assert shortcuts._accuracy(value, attack, subject) == pytest.approx((0.5 + 0.5 + 0) / 3)
  assert shortcuts._accuracy(np.array([0, 1] * 3), attack, subject) == 1
  assert not found(['a', 'b'] * 3, labels, who, who)  # three videos of each class prove nothing


def test_a_value_that_one_subject_alone_has_predicts_nothing():
  labels, subjects, videos = rows(subjects=50)
  assert not found(videos, labels, subjects, videos)
  assert not found([f'{i}' for i in range(len(labels))], labels, subjects, videos)
  assert not found(subjects, labels, subjects, videos)


def test_a_fact_that_agrees_with_the_label_in_part():
  labels, subjects, videos = rows(subjects=100)
  rng = np.random.default_rng(0)
  for agrees, reported in ((0.5, False), (0.6, False), (0.8, True)):
    right = dict.fromkeys(videos)
    right = {video: rng.uniform() < agrees for video in right}
    values = [f'{(label == "attack") == right[v]}' for label, v in zip(labels, videos, strict=True)]
    assert bool(found(values, labels, subjects, videos)) == reported, agrees


def test_one_kind_of_attack_that_differs_is_not_all_of_them():
  """A third of the attacks has it: a balanced accuracy of 0.67. Two thirds: 0.83."""
  labels, subjects, videos = rows(subjects=100)
  for kinds, reported in (('1', []), ('12', [('fact', pytest.approx(5 / 6))])):
    values = ['odd' if video[-1] in kinds else 'usual' for video in videos]
    assert found(values, labels, subjects, videos) == reported


def test_unknown_values_and_labels_are_left_out():
  labels, subjects, videos = rows()
  values = [label if i % 2 else '' for i, label in enumerate(labels)]
  assert found(values, labels, subjects, videos) == [('fact', 1.0)]
  assert not found(labels, ['', *labels[1:2], *[''] * (len(labels) - 2)], subjects, videos)
  assert not found([''] * len(labels), labels, subjects, videos)
  assert not found(labels, ['attack'] * len(labels), subjects, videos)
  assert not shortcuts.find({'fact': []}, [], [], [])
  # Nobody is known: a video is one observation.
  assert found(labels, labels, [''] * len(labels), videos) == [('fact', 1.0)]
  assert found(labels, labels, [''] * len(labels), [''] * len(labels)) == [('fact', 1.0)]


def test_subjects_of_one_class_are_one_observation_each():
  """Two subjects of each class with a hundred videos: their device proves nothing."""
  labels = ['attack'] * 200 + ['bona_fide'] * 200
  subjects = [f's{i // 100}' for i in range(400)]
  videos = [f'v{i}' for i in range(400)]
  assert not found(labels, labels, subjects, videos)
  subjects = [f's{i // 20}' for i in range(400)]
  assert found(labels, labels, subjects, videos) == [('fact', 1.0)]


def test_sizes_of_crops_are_grouped():
  """Hardly two crops have the same size; that those of attacks are smaller is found."""
  labels, subjects, videos = rows(subjects=30)
  rng = np.random.default_rng(0)

  def size(low, high):
    return f'{rng.integers(low, high)}x{rng.integers(low, high)}'

  smaller = [size(80, 160) if label == 'attack' else size(150, 250) for label in labels]
  (shortcut,) = shortcuts.find({'rgb size': smaller}, labels, subjects, videos)
  assert shortcut.accuracy > 0.9 and len(shortcut.values) == 10
  assert all(value.startswith('up to ') for value, _, _ in shortcut.values)
  assert 'and 6 more values' in str(shortcut)
  assert not found([size(80, 250) for _ in labels], labels, subjects, videos, name='rgb size')


def test_split_by_split():
  labels, subjects, videos = rows()
  splits = ['train' if int(s[1:]) < 5 else 'test' for s in subjects]
  values = [
    label if split == 'train' else 'same' for label, split in zip(labels, splits, strict=True)
  ]
  by_split = shortcuts.find_by_split(splits, {'fact': values}, labels, subjects, videos)
  assert list(by_split) == ['train'] and by_split['train'][0].fact == 'fact'


def test_facts_of_files():
  files = ['JPEG 8x9 8 baseline/1x1/ab', '', 'PNG 8x9 16 grey']
  facts = shortcuts.facts_of({'ir': [True, False, True]}, {'ir': files, 'rgb': ['', '', '']})
  assert facts == {
    'ir presence': ['present', 'absent', 'present'],
    'ir format': ['JPEG', '', 'PNG'],
    'ir size': ['8x9', '', '8x9'],
    'ir bits': ['8', '', '16'],
    'ir encoder': ['baseline/1x1/ab', '', 'grey'],
  }
