"""Out of memory, by allocations that really fail: exit code 2, with the fields that help."""

import jax
import pytest

from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.training import memory
from tests.small_job import finish, start, write_config
from tests.training.setup_test import make_config

# Before the config: the process gets a little more memory than it has by then.
LIMITED = """
import pathlib, resource
from flexfas_jax.training import loop
from flexfas_jax.training.tasks import AntiSpoofing

def limit():
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[0])
  most = pages * resource.getpagesize() + 800 * 2**20
  resource.setrlimit(resource.RLIMIT_AS, (most, most))

compile_step, val_metrics = loop._compile_step, AntiSpoofing.val_metrics

def compile_then_limit(experiment):
  compiled = compile_step(experiment)
  {step} and limit()
  return compiled

def limited_val_metrics(*arguments):
  {evaluate} and limit()
  return val_metrics(*arguments)

loop._compile_step, AntiSpoofing.val_metrics = compile_then_limit, limited_val_metrics
"""


@pytest.fixture(scope='module')
def config(prepared, tmp_path_factory):
  return write_config(tmp_path_factory.mktemp('config') / 'small.py', prepared)


@pytest.mark.parametrize(
  'where,fields,now',
  [
    # 16,384 patches: the attention of eight images takes tens of gigabytes.
    ('step', {'model.image_size': 1024}, 'config.eval_batch_size (24 now)'),
    # A gigabyte of padding.
    (
      'evaluate',
      {'model.image_size': 128, 'eval_batch_size': 4096, 'steps': 1, 'schedule.warmup': 0},
      'config.eval_batch_size (4096 now)',
    ),
  ],
)
def test_what_does_not_fit_ends_with_the_fields_that_help(config, tmp_path, where, fields, now):
  limited = tmp_path / 'limited.py'
  steps = {'step': where == 'step', 'evaluate': where == 'evaluate'}
  limited.write_text(LIMITED.format(**steps) + config.read_text())
  flags = [f'--config.{name}={value}' for name, value in fields.items()]
  ((code, _, said),) = finish(start(limited, tmp_path / 'run', 1, 1, *flags))
  assert code == 2, said[-3000:]
  (line,) = (line for line in said.splitlines() if line.startswith('error: '))
  assert line.startswith('error: out of memory (')
  assert 'config.accumulate (1 now)' in line
  assert 'config.mesh.fsdp (1 now)' in line
  assert 'config.batch_size (8 now)' in line
  assert now in line
  assert 'Traceback' not in said


@pytest.mark.parametrize(
  'message',
  [
    'RESOURCE_EXHAUSTED: Out of memory allocating 68719476736 bytes.',
    'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes.\nBuffers',
    'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. '
    'Used 17.25G of 15.75G hbm.',
    'RESOURCE_EXHAUSTED: Error loading program: Attempting to allocate 2.00G.',
  ],
)
def test_the_words_of_every_allocator(message):
  config = make_config(**{'mesh.fsdp': 4, 'model.backbone.remat': True})
  with pytest.raises(ConfigError) as caught, memory.explain_exhaustion(config):
    raise ValueError('while stepping') from jax.errors.JaxRuntimeError(message)
  assert message.splitlines()[0] in str(caught.value)
  assert 'config.model.backbone.remat = True (True now)' in str(caught.value)
  assert 'config.mesh.fsdp (4 now)' in str(caught.value)


def test_a_config_of_an_earlier_version():
  """It may lack a field: the change is named without its present value."""
  config = make_config()
  with config.unlocked():
    del config.accumulate, config.mesh
  with pytest.raises(ConfigError) as caught, memory.explain_exhaustion(config):
    raise MemoryError
  named = 'Training needs less with a larger config.accumulate, config.model.backbone.remat = True'
  assert f'{named} (False now), a larger config.mesh.fsdp, a smaller' in str(caught.value)


@pytest.mark.parametrize(
  'error',
  [
    jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: the quota of requests is used up'),
    jax.errors.JaxRuntimeError('INTERNAL: failed to allocate a stream'),
    StateError('the weights are damaged'),
    OSError(28, 'No space left on device'),
  ],
)
def test_other_errors_pass(error):
  with pytest.raises(type(error)) as caught, memory.explain_exhaustion(make_config()):
    raise error
  assert caught.value is error
