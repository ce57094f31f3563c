"""Flags: what is wrong is said on one screen, with exit code 2, before anything is loaded."""

import os
import pathlib
import re

import pytest

from tests import forked

ROOT = pathlib.Path(__file__).parents[1]


def run(module, *arguments, cwd=ROOT):
  env = {**os.environ, 'PYTHONPATH': str(ROOT)}
  return forked.run(f'flexfas_jax.{module}', *arguments, cwd=cwd, env=env)


@pytest.mark.parametrize(
  'arguments,said',
  [
    (['--config.stepz=3'], 'stepz'),
    (['--config.steps=many'], '--config.steps=many: give a whole number, as in --config.steps=700'),
    (['--config.steps=None'], '--config.steps=None: give a whole number, as in --config.steps=700'),
    (['--config.ema=None'], '--config.ema=None: give a number, as in --config.ema=0.0'),
    (['--config.report=None'], 'give True or False, as in --config.report=True'),
    (
      ['--config.modality_dropout=None'],
      '--config.modality_dropout=None: give a group, as in '
      "--config.modality_dropout=\"{'depth': 0.5, 'ir': 0.5}\", or "
      '--config.modality_dropout={} for an empty one',
    ),
    (
      ["--config.modality_dropout={'depth': x}"],
      "--config.modality_dropout={'depth': x}: give a gr",
    ),
    (['--config.model=None'], 'give a group, as in --config.model="{...}"'),
    (['--config.views=None'], "config.views is (None,); give names, such as ('whole', 'flip')"),
    (['--config.view.crop=None'], 'config.view.crop is (None,); give the smallest and the largest'),
    (['--config.model.fusion=3'], 'fusion'),
    (
      ['--config.test.mine=a/b:test'],
      "the config has no 'mine'; add names by replacing the group",
    ),
    (
      [
        '--config.protocol=rendered_domains(target=wmca_like)',
        '--config.threshold.intra=fixed=0.5',
      ],
      'replaces config.threshold; to use --config.threshold.intra=fixed=0.5, add '
      '--config.protocol=',
    ),
    (['--steps=3'], 'steps'),
    (['--mode=fly'], 'train_and_evaluate|train|evaluate'),
    (['surplus'], "unexpected argument 'surplus'"),
    (['--mode=export', '--export_dir=gs://bucket/bundle'], 'give a local folder, and copy it'),
  ],
)
def test_wrong_flags(tmp_path, arguments, said):
  found = run('main', '--config=configs/vit_fusion.py', f'--workdir={tmp_path}/w', *arguments)
  assert found.returncode == 2
  assert said in found.stderr
  assert 'Traceback' not in found.stderr
  assert len(found.stderr.splitlines()) < 12
  assert not (tmp_path / 'w').exists()


def test_no_clipping_by_a_flag(tmp_path):
  found = run(
    'main', '--config=configs/vit_fusion.py', f'--workdir={tmp_path}/w',
    '--config.clip_norm=None', '--config.steps=0', f'--config.data_dir={tmp_path}',
  )  # fmt: skip
  assert found.returncode == 2 and 'config.steps is 0' in found.stderr
  assert 'clip_norm' not in found.stderr


def test_a_flag_that_is_missing():
  found = run('main', '--config=configs/vit_fusion.py')
  assert (found.returncode, 'error: --workdir is missing' in found.stderr) == (2, True)
  found = run('main', '--config=configs/nope.py', '--workdir=w')
  assert (found.returncode, 'nope.py' in found.stderr) == (2, True)


@pytest.mark.parametrize(
  ('config', 'said'),
  [
    (['--config=vit_fusion'], 'stepz'),
    (['--config', 'vit_fusion:flexmodal'], 'stepz'),
    (['--config=vit_fusion:papr'], "no recipe 'papr'"),
    (['--config=own.py'], 'stepz'),
    (
      ['--config=vit_fusio'],
      "unknown config 'vit_fusio'; choose one of: adapter_fusion, cdcn_fusion, ",
    ),
    (['--config=configs/mm_fas.py:ir50'], 'the installed config is --config=mm_fas:ir50'),
    (['--config=nope.py'], 'nope.py'),
  ],
)
def test_configs_are_found_from_any_folder(tmp_path, config, said):
  (tmp_path / 'own.py').write_text((ROOT / 'configs' / 'vit_fusion.py').read_text())
  found = run('main', *config, f'--workdir={tmp_path}/w', '--config.stepz=3', cwd=tmp_path)
  assert found.returncode == 2
  assert said in found.stderr and 'Traceback' not in found.stderr


@pytest.mark.parametrize('module', ['main', 'prepare', 'score'])
def test_help(module):
  found = run(module, '--help')
  assert found.returncode == 0
  assert f'flexfas_jax.{module}' in found.stdout
  assert '--debug' in found.stdout or '--[no]debug' in found.stdout


def test_help_groups_every_flag_by_job():
  names = re.findall(r"DEFINE_\w+\(\s*'(\w+)'", (ROOT / 'flexfas_jax' / 'main.py').read_text())
  shown = run('main', '--help').stdout
  titles = ['experiment', 'training', 'several processes', 'export (', 'preflight (']
  places = [shown.index(f'\n{title}') for title in [*titles, 'examples:', 'exit codes:']]
  assert places == sorted(places)
  assert len(names) > 15 and all(f'\n  --{name}' in shown for name in names)
  assert all(f'\n  {code} ' in shown for code in (0, 2, 3, 4, 5, 143))


@pytest.mark.parametrize('off', ['pretrained=None', 'pretrained.weights=', "pretrained.weights=''"])
def test_pretraining_is_switched_off_by_a_flag(tmp_path, off):
  """It stops at the data, and not at the weights, whose architecture is unknown."""
  arguments = ['--config=configs/vit_fusion.py:flexmodal', f'--workdir={tmp_path}/w']
  arguments += [f'--config.data_dir={tmp_path}', '--config.pretrained.architecture=nobodys']
  if off == 'pretrained=None':
    arguments.pop()
  found = run('main', *arguments, f'--config.{off}')
  assert found.returncode == 3
  assert '3 problems:' in found.stderr and 'pretrained' not in found.stderr


def test_the_former_flag_of_frozen_parameters_is_translated(tmp_path):
  arguments = ['--config=vit_fusion', f'--workdir={tmp_path}/w', f'--config.data_dir={tmp_path}']
  found = run('main', *arguments, "--config.optimizer.freeze=('streams_shared', 'head/*/bias')")
  assert found.returncode == 2
  assert "config.trainable = ('fusion', 'head/logit/kernel', 'token_depth'" in found.stderr
  assert 'Traceback' not in found.stderr and len(found.stderr.splitlines()) < 12


def test_all_problems_are_shown_at_once(tmp_path):
  arguments = ['--config=configs/vit_fusion.py:flexmodal', f'--workdir={tmp_path}/w']
  arguments += [
    f'--config.data_dir={tmp_path}/none',
    '--config.eval_every=0',
    '--config.loss=hinge',
  ]
  found = run('main', *arguments)
  said = found.stderr[found.stderr.index('error: ') :].splitlines()
  assert found.returncode == 2 and said[0] == 'error: 6 problems:'
  assert [line.partition(' ')[0] for line in said[1:]] == ['-'] * 6
  for field in ('data_dir', 'eval_every', 'loss', 'train', 'val', 'test.cross'):
    assert any(f'config.{field}' in line for line in said), field
  assert 'Traceback' not in found.stderr and not (tmp_path / 'w').exists()


def test_bad_data_ends_with_3_and_shows_no_traceback(tmp_path):
  (tmp_path / 'rendered_faces' / 'surf_like' / '2.0.0').mkdir(parents=True)
  arguments = ['--config=configs/vit_fusion.py', f'--workdir={tmp_path}/w']
  found = run('main', *arguments, f'--config.data_dir={tmp_path}')
  assert found.returncode == 3
  assert found.stderr.startswith('error: ')
  assert 'is incomplete' in found.stderr
  assert 'Traceback' not in found.stderr
  assert 'Traceback' in run('main', *arguments, f'--config.data_dir={tmp_path}', '--debug').stderr


def test_prepare_names_what_it_can_prepare(tmp_path):
  found = run('prepare', '--dataset=imagenet', f'--data_dir={tmp_path}')
  assert found.returncode == 2
  assert 'rendered_faces' in found.stderr
