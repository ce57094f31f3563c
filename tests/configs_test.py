"""Every config of configs/, in every recipe: it builds, says its command, and fits together."""

import ast
import importlib.util
import pathlib

import jax
import numpy as np
import pytest

from flexfas_jax import lookup
from flexfas_jax.evaluation import pass_if, thresholds
from flexfas_jax.images.preprocess import Preprocess
from flexfas_jax.models.weights import conversion, transfer
from flexfas_jax.protocols import selection
from flexfas_jax.training import objective as objectives
from flexfas_jax.training import optimizer as optimizers
from flexfas_jax.training import setup, subjects, trainable
from flexfas_jax.training.step import new_state
from tests.main_test import run

FILES = sorted((pathlib.Path(__file__).parents[1] / 'configs').glob('*.py'))


def load(file):
  spec = importlib.util.spec_from_file_location(file.stem, file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def recipes_of(file):
  """As its own error lists them."""
  with pytest.raises(ValueError, match='choose one of: ') as caught:
    load(file).get_config('?')
  return str(caught.value).partition('choose one of: ')[2].split(', ')


CASES = [(file, recipe) for file in FILES for recipe in recipes_of(file)]


def test_every_file_has_a_recipe_for_a_laptop_and_a_papers():
  for file in FILES:
    recipes = recipes_of(file)
    task = load(file).get_config().get('task', 'attacks')
    first = load(file).get_config(recipes[0])
    assert 'rendered' in first.train + first.protocol and len(recipes) > 1
    has_paper = any('flexmodal' in name or name == 'erm_mmdg' for name in recipes)
    assert has_paper == (task == 'attacks')


@pytest.mark.parametrize('file,recipe', CASES, ids=lambda x: getattr(x, 'stem', x))
def test_a_config_fits_together(file, recipe):
  module = load(file)
  config = module.get_config(recipe)
  names_sets = 'rendered_faces' in config.train
  config, protocol = setup.apply_protocol(config)
  target = subjects.target_column(config)
  assert (protocol is None) == (names_sets or bool(target))
  fields = config.to_dict()
  task = subjects.task_name(config)
  model = setup.make_model(fields['model'], task, 3 if target else None)
  assert setup.scored_subsets(model, protocol)
  tx, schedule = optimizers.build(
    fields['optimizer'], fields['schedule'], config.steps, config.clip_norm
  )
  variables = model.shapes()
  jax.eval_shape(lambda variables: new_state(variables, tx), variables)
  optimizers.check_names(fields['optimizer'], variables['params'])
  trainable.check('trainable', fields['trainable'], variables['params'])
  objective = objectives.build(fields['loss'], fields.get('gradient_modulation'), model)
  setup.check_shapes(model, lookup.make_loss(fields['loss']), target, objective)
  assert set(config.test) == set(config.threshold) or target
  for names in (config.train, config.val, *config.test.values()):
    assert [selection.parse(name) for name in selection.split_selections(names)]
  assert all(rule for rule in map(thresholds.needs_dev, config.threshold.values()) if rule)
  if config.get('task', 'attacks') == 'attacks':
    # Fields of every such config, to be set.
    assert pass_if.parse(config.pass_if) is None and config.test_toml == ''
  Preprocess(
    config.model.image_size,
    model.modalities,
    fields['view'],
    fields['photometric'],
    config.cutout,
    resize=config.resize,
  )
  assert float(schedule(0)) <= np.float32(config.schedule.peak)
  if pretrained := fields.get('pretrained'):
    assert pretrained['architecture'] in (*conversion.ARCHITECTURES, transfer.OWN_RUN)
    transfer.parse_config(pretrained, variables)


@pytest.mark.parametrize('file', FILES, ids=lambda f: f.stem)
def test_its_docstring_has_the_command_and_it_needs_no_argument(file):
  doc = ast.get_docstring(ast.parse(file.read_text()))
  assert f'python -m flexfas_jax.main --config=configs/{file.name}' in doc
  assert 'Expected' in doc
  module = load(file)
  assert module.get_config().to_dict() == module.get_config(recipes_of(file)[0]).to_dict()


def test_flexmodals_schedule_halves_from_the_twentieth_epoch_on():
  """19 epochs at the peak, 11 at half of it."""
  config = load(next(f for f in FILES if f.stem == 'vit_fusion')).get_config('flexmodal')
  fields = config.to_dict()
  epoch = config.steps // 30
  assert epoch == 174 == -(-11097 // 64)  # 173 batches of 64, and one of what is left
  _, rate = optimizers.build(fields['optimizer'], fields['schedule'], config.steps)
  rates = [float(rate(epoch * e + epoch // 2)) for e in range(30)]
  assert rates == [1e-5] * 19 + [5e-6] * 11


@pytest.mark.parametrize('name', ['vit_fusion', 'resnet_fusion', 'cdcn_fusion', 'mm_fas'])
def test_flexmodals_augmentation_is_the_sources(name):
  module = load(next(f for f in FILES if f.stem == name))
  config = module.get_config('flexmodal')
  each = {'add': 40 / 255, 'gamma': (0.5, 1.5)}
  each |= {'per_channel': True, 'integers': True, 'add_first': True}
  assert config.photometric.to_dict() == dict.fromkeys(('rgb', 'depth', 'ir'), each)
  assert config.resize == 'bilinear' and module.get_config().resize == 'area'
  assert config.cutout == {224: 29, 256: 49, 112: 15}[config.model.image_size]
  steps, epochs = (1233, 50) if name == 'cdcn_fusion' else (174, 30)
  assert config.steps == epochs * steps and config.schedule.every == 20 * steps
  assert config.schedule.lead == steps and config.eval_every == 2 * steps
  assert steps == -(-11097 // config.batch_size)


@pytest.mark.parametrize('network', ['resnet34_caffe', 'resnet34_caffe_weak', 'ir50'])
def test_mm_fas_is_its_source(network):
  """31 epochs under a cosine of 50 that moves by epoch; the weak stage is one epoch at the peak."""
  config = load(next(f for f in FILES if f.stem == 'mm_fas')).get_config(network)
  weak = network.endswith('weak')
  assert config.steps == (1 if weak else 31) * (19922 // 128)
  assert config.view.rotate_first and config.view.rotate == (30 if weak else 45)
  fields = config.to_dict()
  _, rate = optimizers.build(fields['optimizer'], fields['schedule'], config.steps)
  found = [float(rate(step)) for step in range(0, config.steps, 155)]
  expected = [1e-5 * (1 + np.cos(np.pi * epoch / 50)) for epoch in range(config.steps // 155)]
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_recipe_that_is_not_there(tmp_path):
  found = run('main', '--config=configs/vit_fusion.py:paper', f'--workdir={tmp_path}/w')
  assert found.returncode == 2
  assert "no recipe 'paper'; choose one of: embedded, flexmodal" in found.stderr
  assert 'Traceback' not in found.stderr
