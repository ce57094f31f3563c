"""Batches by worker processes equal those of threads, wherever an iterator continues; faults."""

import os
import types

import numpy as np
import pytest

from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images.preprocess import Preprocess
from flexfas_jax.input_pipeline import batch_processes, pipeline, sources

AUGMENTED = Preprocess(
  16, ('rgb', 'depth', 'ir'), view={'flip': 0.5, 'rotate': 10}, photometric={'rgb': {'add': 0.2}}
)


def take(iterator, n):
  return [next(iterator) for _ in range(n)]


def assert_equal(a, b):
  for x, y in zip(a, b, strict=True):
    assert list(x) == list(y)
    for name in x:
      np.testing.assert_array_equal(x[name], y[name], strict=True)


def test_batches_and_position_do_not_depend_on_the_number_of_processes(prepared):
  source = sources.open_source(['rendered_faces/surf_like_tiny:train'], prepared)
  source = source.with_domains('dataset')
  arguments = (source, AUGMENTED, 6, 3, [0, 1, 2, 5], None, ('label',))
  threads = pipeline.train_batches(*arguments)
  expected = take(threads, 2)
  middle = threads.get_state()
  expected += take(threads, 3)
  processes = pipeline.train_batches(*arguments, processes=2)
  assert_equal(take(processes, 2), expected[:2])
  assert processes.get_state() == middle
  processes.set_state(threads.get_state())  # continues where the threads stopped
  assert_equal(take(processes, 1), take(threads, 1))
  threads.set_state(middle)
  assert_equal(take(threads, 3), expected[2:])


def make(number, arrays):
  if number == 3:
    raise DataError('images/3: rgb is not a readable image')
  if number == 4:
    os._exit(1)
  arrays['number'][:] = number
  arrays['name'][:] = f'n{number}'


SPEC = {
  'number': batch_processes.Array((3,), np.dtype(np.int64)),
  'name': batch_processes.Array((2, 1), np.dtype('U4')),
}


def test_errors_of_a_worker_are_the_parents():
  batches = batch_processes.BatchProcesses(make, SPEC, 1)
  first, second = batches(1), batches(2)
  assert first['number'].tolist() == [1, 1, 1] and second['name'].tolist() == [['n2'], ['n2']]
  assert first['name'].tolist() == [['n1'], ['n1']]  # a copy: the memory is used again
  with pytest.raises(DataError, match='images/3: rgb'):
    batches(3)
  assert batches(5)['number'].tolist() == [5, 5, 5]
  with pytest.raises(
    ConfigError, match='a process that makes batches has ended.*--input_processes'
  ):
    batches(4)
  names = [block.name for block in (batches._free.get(), batches._free.get())]
  batches.close()
  assert not any(os.path.exists(f'/dev/shm/{name}') for name in names)


def test_too_little_shared_memory(monkeypatch):
  small = types.SimpleNamespace(f_bavail=1, f_frsize=64)
  monkeypatch.setattr(batch_processes, '_SHARED', '/')
  monkeypatch.setattr(batch_processes.os, 'statvfs', lambda path: small)
  with pytest.raises(ConfigError, match='--input_processes=2 needs 0 MB in /, which has 0 MB'):
    batch_processes.BatchProcesses(make, SPEC, 2)
