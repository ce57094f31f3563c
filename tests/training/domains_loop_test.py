"""A run with prototypes and ReGrad on two domains: as a user trains it, and resumed."""

import json

import jax
import numpy as np
import pytest

from flexfas_jax.errors import ConfigError, Stopped
from flexfas_jax.training import loop, setup
from flexfas_jax.training.checkpoints import Checkpoints
from flexfas_jax.training.preemption import Preemption
from tests.small_job import STEPS, write_config


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  monkeypatch.setattr(setup, 'find_devices', lambda: jax.devices()[:1])


def make_config(folder, prepared, domains=2):
  names = {}
  exec(write_config(folder / 'small.py', prepared).read_text(), names)
  c = names['get_config']()
  c.train = 'rendered_faces/surf_like_tiny:train, rendered_faces/cefa_like_tiny:train'
  c.model.backbone = {
    'name': 'vit', 'variant': 'mu', 'patch_size': 8, 'output': 'class_token',
    'per_modality': ('cls_token', 'pos_embed'), 'adapters': ({'name': 'uncertain_cross'},),
  }  # fmt: skip
  c.model.fusion = {'name': 'plain_concat'}
  with c.unlocked(), c.ignore_type():
    c.model.modality_features = True
    c.loss = {
      'binary_cross_entropy': {},
      'single_side_prototypes': {'domains': domains, 'period': 4, 'weight': 0.3},
    }
    c.gradient_modulation = {'name': 'regrad'}
    c.trainable = ('adapters', 'cls_token', 'pos_embed', 'block_1', 'norm', 'head')
  return c


def test_a_resumed_run_has_the_same_prototypes(prepared, tmp_path, monkeypatch):
  config = make_config(tmp_path, prepared)
  loop.train(config, str(tmp_path / 'unbroken'))
  reached, calls = Preemption.reached, []

  def stop_at_three(self):
    calls.append(1)
    return len(calls) >= 3 or reached(self)

  monkeypatch.setattr(Preemption, 'reached', stop_at_three)
  with pytest.raises(Stopped, match='after step 3 of 8'):
    loop.train(config, str(tmp_path / 'stopped'))
  monkeypatch.setattr(Preemption, 'reached', reached)
  loop.train(config, str(tmp_path / 'stopped'))
  abstract = setup.build(config).abstract
  states = [
    Checkpoints(tmp_path / run / 'checkpoints', 'eer', read_only=True).restore(STEPS, abstract)
    for run in ('unbroken', 'stopped')
  ]
  jax.tree.map(np.testing.assert_array_equal, *states)
  memory = states[0].memory
  assert memory['prototype'].shape == (2, 3, 32) and memory['prototype_weight'].min() > 0
  rows = map(json.loads, (tmp_path / 'unbroken' / 'metrics.jsonl').read_text().splitlines())
  losses = [row['train/loss'] for row in rows if 'train/loss' in row]
  assert len(losses) == STEPS and np.isfinite(losses).all()


def test_another_number_of_domains_is_refused(prepared, tmp_path):
  message = 'domains = 3, but config.train has 2: '
  with pytest.raises(ConfigError, match=message):
    loop.train(make_config(tmp_path, prepared, domains=3), str(tmp_path / 'run'))
