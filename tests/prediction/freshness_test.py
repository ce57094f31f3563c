"""Times: what is stale, what is from the future, and what cannot be compared."""

import math

import numpy as np
import pytest

from flexfas_jax.errors import ConfigError
from flexfas_jax.prediction import freshness
from flexfas_jax.prediction.freshness import find_stale

ALL = ('rgb', 'depth', 'ir')


def test_skew_is_from_the_first_that_is_fresh():
  times = {'rgb': 10.0, 'depth': 10.08, 'ir': 9.96}
  assert find_stale(ALL, times, max_skew=0.05) == {
    'depth': 'depth is 80 ms later than rgb, more than 50 ms'
  }
  assert find_stale(ALL, times, max_skew=0.1) == {}
  assert list(find_stale(ALL, {**times, 'rgb': 1.0, 'now': 10.1}, 0.05, 0.5)) == ['rgb', 'ir']
  assert find_stale(('ir',), {'ir': 1}, max_skew=0) == {}


def test_what_is_old():
  times = {'rgb': 1.0, 'depth': 1.4, 'ir': np.float32(1.5), 'now': 2}
  assert find_stale(ALL, times, max_age=0.7) == {'rgb': 'rgb is 1000 ms old, more than 700 ms'}
  assert find_stale(ALL, times, max_age=1.0) == {}


def test_the_future_is_never_fresh():
  """A clock set back, a sensor with another epoch, a forged time."""
  assert find_stale(('rgb',), {'rgb': 100.0, 'now': 5.0}, max_age=1.0) == {
    'rgb': 'rgb is from the future: 95000 ms later than now'
  }
  just = 5.0 + freshness.TOLERANCE
  assert find_stale(('rgb',), {'rgb': just, 'now': 5.0}, max_age=0.0) == {}
  assert list(find_stale(('rgb',), {'rgb': just + 0.001, 'now': 5.0}, max_age=1.0)) == ['rgb']
  # Also where nobody asked for an age, and compared with a sensor that agrees.
  assert list(find_stale(('rgb', 'ir'), {'rgb': 9.0, 'ir': 9.0, 'now': 5.0}, max_skew=0.1)) == [
    'rgb', 'ir'
  ]  # fmt: skip
  # The future is not what others are compared with.
  assert list(find_stale(('rgb', 'ir'), {'rgb': 9.0, 'ir': 5.0, 'now': 5.0}, 0.1, 1.0)) == ['rgb']


@pytest.mark.parametrize('time', [math.nan, math.inf, -math.inf, np.float64('inf')])
def test_a_sensor_without_a_clock(time):
  for limits in ({'max_skew': 0.1}, {'max_age': 1.0}, {'max_skew': 0.1, 'max_age': 1.0}):
    found = find_stale(('rgb', 'ir'), {'rgb': time, 'ir': 5.0, 'now': 5.0}, **limits)
    assert found == {'rgb': f'rgb has no time ({float(time)})'}


@pytest.mark.parametrize('now', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('limits', [{'max_age': 1.0}, {'max_skew': 1.0}])
def test_a_clock_that_fails_is_refused(now, limits):
  with pytest.raises(ConfigError, match='the time of now is'):
    find_stale(('rgb',), {'rgb': 5.0, 'now': now}, **limits)


@pytest.mark.parametrize('limit', [-0.001, math.nan, math.inf, -math.inf, True, '1', 10**400])
@pytest.mark.parametrize('name', ['max_skew', 'max_age'])
def test_a_limit_that_is_none(name, limit):
  with pytest.raises(ConfigError, match=f'{name} is'):
    find_stale(('rgb',), {'rgb': 5.0, 'now': 5.0}, **{name: limit})


@pytest.mark.parametrize(
  ('times', 'limits', 'says'),
  [
    ({'rgb': 1.0, 'nir': 1.0}, {'max_skew': 0.1}, "a time of 'nir'; expected times of rgb"),
    ({'rgb': 1.0, 'Now': 1.0}, {'max_age': 0.1}, "a time of 'Now'"),
    ({'rgb': 1.0}, {'max_age': 0.1}, 'now has none'),
    ({'now': 1.0}, {'max_age': 0.1}, 'rgb has none'),
    (None, {'max_skew': 0.1}, 'rgb has none'),
    ({'rgb': 1.0, 'now': 9.0}, {}, 'have no effect without max_skew or max_age'),
    ({'rgb': '1', 'now': 9.0}, {'max_age': 9.0}, 'the time of rgb is not a number'),
    ({'rgb': True, 'now': 1.0}, {'max_age': 9.0}, 'the time of rgb is not a number'),
    ({'rgb': None, 'now': 1.0}, {'max_age': 9.0}, 'the time of rgb is not a number'),
    ({'rgb': 10**400, 'now': 1.0}, {'max_age': 9.0}, 'the time of rgb is not a number'),
  ],
)
def test_what_cannot_be_compared(times, limits, says):
  with pytest.raises(ConfigError, match=says):
    find_stale(('rgb',), times, **limits)


def test_times_of_sensors_that_are_not_given_do_no_harm():
  assert find_stale(('rgb',), {'rgb': 1.0, 'depth': 1.0, 'now': 1.0}, max_age=1.0) == {}
