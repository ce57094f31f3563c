"""ORACLE figures that are selected on the test."""

from flexfas_jax.evaluation import oracle


def test_a_step_counts_once_and_what_is_undefined_does_not():
  name = f'oracle/target/rgb+ir/{oracle.METRIC}'
  rows = [{'step': 5, name: 0.25}, {'step': 5, name: 0.375}, {'step': 10, name: None}]
  rows += [{'step': 15, name: 0.5, 'train/loss': 0.1}, {'step': 20, 'status': 'x'}]
  least = {oracle.LEAST: 0.375, oracle.EVALUATIONS: 2.0}
  assert oracle.least(rows) == {('target', 'rgb+ir'): least}
  found = {'target': {'rgb+ir': {'hter': 0.4}, 'rgb': {'hter': 0.3}}, 'other': {}}
  oracle.add(found, rows)
  assert found['target'] == {'rgb+ir': {'hter': 0.4} | least, 'rgb': {'hter': 0.3}}
  expected = 'ORACLE: target, least HTER at the test EER of 2 evaluations: rgb+ir 37.50'
  assert oracle.notes(found) == [expected]


def test_what_is_not_recorded_has_no_figure():
  """A run of an earlier version may have recorded one."""
  rows = [{'step': 1, f'oracle/target/rgb+ir/{oracle.METRIC}': 0.4}]
  found = {'target': {'rgb+ir': {'not_recorded': ['ir']}}}
  oracle.add(found, rows)
  assert found == {'target': {'rgb+ir': {'not_recorded': ['ir']}}} and oracle.notes(found) == []
