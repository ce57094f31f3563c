"""What a config says reaches the training step."""

import jax
import jax.numpy as jnp
import pytest

from configs import vit_fusion
from flexfas_jax.errors import ConfigError
from flexfas_jax.training import setup


def make_config(**more):
  config = vit_fusion.get_config()
  toy = {
    'model.image_size': 16,
    'model.backbone.variant': 'mu',
    'model.backbone.patch_size': 8,
    'model.backbone.stem': 'patch',
    'batch_size': 32,
    'eval_batch_size': 8,
    **more,
  }
  with config.unlocked():
    config.update_from_flattened_dict(toy)
  return config


def test_the_step_is_given_what_the_config_says(monkeypatch):
  config = make_config(**{'accumulate': 4, 'ema': 0.5, 'modality_dropout.ir': 0.25})
  experiment, seen = setup.build(config), {}

  def step(state, batch, key, **fields):
    seen.update(fields)
    return state, {'loss': jnp.zeros(())}

  monkeypatch.setattr(setup, 'train_step', step)
  jax.eval_shape(
    setup.make_step(experiment),
    experiment.abstract,
    setup.abstract_batch(experiment),
    setup.abstract_key(experiment),
  )
  assert seen == {
    'model': experiment.model,
    'optimizer': experiment.optimizer,
    'loss': experiment.loss,
    'modality_dropout': {'depth': 0.5, 'ir': 0.25},
    'accumulate': 4,
    'ema': 0.5,
    'trainable': (),
    'prototypes': None,
    'modulation': None,
    'project': None,
    'sampling': None,
  }


def test_the_rate_warms_up_as_the_config_says():
  config = make_config(**{'schedule.warmup': 10, 'schedule.peak': 0.5, 'steps': 100})
  rate = setup.build(config).schedule
  assert [float(rate(step)) for step in (0, 5, 10)] == [0, 0.25, 0.5]


@pytest.mark.parametrize('ema', [1.0, -0.1, float('nan')])
def test_a_decay_that_averages_nothing_is_refused(ema):
  with pytest.raises(ConfigError, match='config.ema is .*; give a decay below 1, such as 0.999'):
    setup.build(make_config(ema=ema))


def test_double_precision_is_refused():
  with jax.enable_x64(True), pytest.raises(ConfigError, match='JAX_ENABLE_X64 is set: .* unset it'):
    setup.build(make_config())


@pytest.mark.parametrize('rate', [2.0, -0.5, float('nan')])
def test_a_dropout_that_is_no_probability_is_refused(rate):
  with pytest.raises(ConfigError, match='modality_dropout.depth is .*; give a probability'):
    setup.build(make_config(**{'modality_dropout.depth': rate}))


def test_a_laboratory_statement_is_a_local_file_that_only_scoring_reads():
  """A file that moved stops neither an export nor preflight."""
  config = make_config(test_toml='moved/test.toml')
  assert setup.build(config).config.test_toml == 'moved/test.toml'
  with pytest.raises(ConfigError, match='gs://bucket/test.toml; copy it, and give the path'):
    setup.build(make_config(test_toml='gs://bucket/test.toml'))
