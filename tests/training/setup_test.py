"""What a config says reaches the training step."""

import jax
import jax.numpy as jnp

from configs import vit_fusion
from flexfas_jax.training import setup


def make_config(**more):
  config = vit_fusion.get_config()
  toy = {
    'model.image_size': 16,
    'model.backbone.variant': 'mu',
    'model.backbone.patch_size': 8,
    'batch_size': 32,
    'eval_batch_size': 8,
    **more,
  }
  with config.unlocked():
    config.update_from_flattened_dict(toy)
  return config


def test_the_step_is_given_what_the_config_says(monkeypatch):
  config = make_config(**{'accumulate': 4, 'modality_dropout.ir': 0.25})
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
  }


def test_the_rate_warms_up_as_the_config_says():
  config = make_config(**{'schedule.warmup': 10, 'schedule.peak': 0.5, 'steps': 100})
  rate = setup.build(config).schedule
  assert [float(rate(step)) for step in (0, 5, 10)] == [0, 0.25, 0.5]
