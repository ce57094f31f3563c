"""How many programs a job compiles: what a small job, or a change of shape, costs."""

import collections

import jax
import pytest

from flexfas_jax.training import loop, setup
from tests import small_job


@pytest.fixture
def compiled():
  """How often each program was compiled, by name."""
  names = collections.Counter()

  def listen(event, duration, **about):
    if event == '/jax/core/compile/backend_compile_duration':
      names[about.get('fun_name')] += 1

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield names
  jax.monitoring.unregister_event_duration_listener(listen)


def test_a_whole_job_compiles_each_of_its_programs_once(compiled, prepared, tmp_path, monkeypatch):
  """Training, two looks at val, and a test whose last batch is not full."""
  monkeypatch.setattr(setup, 'find_devices', lambda: jax.devices()[:1])
  names = {}
  exec(small_job.write_config(tmp_path / 'small.py', prepared).read_text(), names)
  config = names['get_config']()
  config.eval_every = small_job.STEPS // 2
  loop.train_and_evaluate(config, str(tmp_path / 'run'))
  of_the_model = 'init_state', 'train_step', 'absent_maps', 'score_step'
  assert {n: compiled[f'jit({n})'] for n in of_the_model} == dict.fromkeys(of_the_model, 1)
  # The rest are of a line each: keys, the schedule, a copy of the state.
  assert sum(compiled.values()) < 30, compiled
