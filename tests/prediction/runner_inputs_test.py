"""What a runner checks before it runs."""

import numpy as np
import pytest

from flexfas_jax.prediction import runner_inputs

RGB = {'name': 'rgb', 'shape': ['B', 4, 4, 3], 'dtype': 'float32'}
IR = {'name': 'ir', 'shape': ['B', 4, 4, 1], 'dtype': 'float32'}
PRESENT = {'name': 'present', 'shape': ['B', 2], 'dtype': 'bool'}
WHOLE = {'file': 'f', 'modalities': ['rgb', 'ir'], 'present': True, 'inputs': [RGB, IR, PRESENT]}
ALONE = {'file': 'f', 'modalities': ['rgb'], 'present': False, 'inputs': [RGB]}


def images(B=2):
  return {'rgb': np.zeros((B, 4, 4, 3)), 'ir': np.zeros((B, 4, 4, 1), np.float32)}


def test_names_dtypes_and_order():
  found = runner_inputs.model_inputs(WHOLE, images(), np.array([[1, 0], [1, 1]]))
  assert [(k, v.dtype.name) for k, v in found.items()] == [
    ('rgb', 'float32'), ('ir', 'float32'), ('present', 'bool')
  ]  # fmt: skip
  assert runner_inputs.model_inputs(WHOLE, images(), None)['present'].all()
  assert list(runner_inputs.model_inputs(ALONE, images(), None)) == ['rgb']


@pytest.mark.parametrize(
  'entry,given,present,said',
  [
    (WHOLE, {'rgb': np.zeros((1, 4, 4, 3))}, None, 'f requires ir'),
    (WHOLE, images(), np.ones((2, 3), bool), r'present has shape \(2, 3\); expected \(2, 2\)'),
    (WHOLE, {**images(), 'ir': np.zeros((2, 4, 4, 3))}, None, r'expected \(2, 4, 4, 1\)'),
    (ALONE, images(), np.array([[True], [False]]), 'use a model with the input present'),
  ],
)
def test_what_does_not_fit(entry, given, present, said):
  with pytest.raises(ValueError, match=said):
    runner_inputs.model_inputs(entry, given, present)


def test_a_graph_of_batch_1_is_called_for_every_sample():
  entry = {**ALONE, 'inputs': [{**RGB, 'shape': [1, 4, 4, 3]}]}
  arrays, calls = {'rgb': np.arange(6.0).reshape(3, 2)}, []

  def call(feed):
    calls.append(feed['rgb'].shape)
    return feed['rgb'].sum(1)

  np.testing.assert_array_equal(runner_inputs.run_batch(call, entry, arrays), [1, 5, 9])
  assert calls == [(1, 2)] * 3
  assert runner_inputs.run_batch(call, ALONE, arrays).shape == (3,) and calls[-1] == (3, 2)
