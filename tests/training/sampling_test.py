"""Domains and balanced batches: what a config may name, what a run records, and how it resumes."""

import json
import shutil

import pytest
from ml_collections import ConfigDict

from configs import vit_fusion
from flexfas_jax.errors import ConfigError
from flexfas_jax.training import datasets, sampling, setup, workdir
from tests import small_job

SETS = 'rendered_faces/surf_like_tiny:{0}, rendered_faces/cefa_like_tiny:{0}'


def config_of(prepared, **fields):
  config = vit_fusion.get_config()
  config.data_dir = prepared
  config.train, config.val = SETS.format('train'), SETS.format('val')
  config.test = ConfigDict({'intra': SETS.format('test')})
  config.threshold = ConfigDict({'intra': 'dev_eer'})
  config.model.image_size = 16
  config.model.backbone = ConfigDict({'name': 'vit', 'variant': 'mu', 'patch_size': 8})
  config.update(fields)
  return config


def test_fields_and_their_errors(prepared):
  config = config_of(prepared)
  assert sampling.domain_column(config) == 'dataset' and sampling.balanced_fields(config) == ()
  assert sampling.more_columns(config) == ()
  config.domain, config.sampler = 'device', ConfigDict({'balance': ['domain', 'label']})
  assert sampling.more_columns(config) == ('device',)
  assert sampling.balanced_fields(config) == ('domain', 'label')
  assert sampling.balanced_fields(ConfigDict()) == ()  # a config of an earlier version
  for sampler, message in (
    ({'balanced': ('label',)}, "config.sampler has no field 'balanced'; it has: balance"),
    ({'balance': ('label', 'label')}, r'once each'),
    ({'balance': ('subject',)}, r"is \('subject',\); give some of domain, label"),
  ):
    config = config_of(prepared, sampler=ConfigDict(sampler), domain='')
    with pytest.raises(ConfigError, match=message) as error:
      setup.build(config)
    assert "config.domain is ''; give a column of config.train" in str(error.value)


def test_problems_of_the_data_are_found_before_training(prepared):
  balance = ConfigDict({'balance': ('domain', 'label')})
  assert not datasets.inspect(config_of(prepared, sampler=balance)).problems
  one_sided = SETS.format('train') + '[species=bona_fide]'
  found = datasets.inspect(config_of(prepared, sampler=balance, train=one_sided)).problems
  assert ["has domain 'cefa_like', label 'attack'" in str(problem) for problem in found] == [True]
  found = datasets.inspect(config_of(prepared, domain='weather')).problems
  assert ['config.train: ' in str(p) and "no column 'weather'" in str(p) for p in found] == [True]
  found = datasets.inspect(config_of(prepared, domain='attack_type')).problems
  assert ['have no attack_type' in str(p) and '(config.domain)' in str(p) for p in found] == [True]


def test_training_data_have_domains_and_a_batch_has_their_numbers(prepared):
  config = config_of(prepared)
  data = datasets.open_all(config)
  assert data.domains == ('cefa_like', 'surf_like') and data.val.domains is None
  assert data.train[0]['domain'] == 1 and 'domain' not in data.val[0]
  assert setup.abstract_batch(setup.build(config))['domain'].shape == (config.batch_size,)


@pytest.mark.parametrize(
  ('change', 'changed'),
  [
    ({}, False),
    ({'sampler': {'balance': ['label']}}, True),
    ({'domain': 'device'}, False),  # without a sampler it has no part in the order
    ({'seed': 1}, True),
  ],
)
def test_the_data_order_is_of_the_sampler_too(prepared, change, changed):
  config = config_of(prepared).to_dict()
  earlier = {k: v for k, v in config.items() if k not in ('domain', 'sampler')}
  assert workdir.data_order_changed(earlier, {**config, **change}) == changed
  balanced = {**config, 'sampler': {'balance': ('domain', 'label')}}
  assert workdir.data_order_changed(json.loads(json.dumps(balanced)), balanced) is False
  assert workdir.data_order_changed(balanced, {**balanced, 'domain': 'device'})


def test_a_balanced_run_resumes_bit_for_bit_in_any_number_of_processes(prepared, tmp_path):
  config, run = small_job.write_config(tmp_path / 'small.py', prepared), tmp_path / 'run'
  flags = [
    "--config.sampler={'balance': ('domain', 'label')}",
    '--config.train=' + SETS.format('train'),
  ]

  def finish(folder, processes):
    ended = small_job.finish(small_job.start(config, folder, processes, 1, *flags))
    assert [code for code, *_ in ended] == [0] * processes, ended

  finish(run, 1)
  domains = {'column': 'dataset', 'names': ['cefa_like', 'surf_like']}
  assert json.loads((run / 'domains.json').read_text()) == domains
  copies = [tmp_path / 'one', tmp_path / 'two']
  for processes, folder in enumerate(copies, 1):
    shutil.copytree(run, folder)
    shutil.rmtree(folder / 'checkpoints' / '8')
    finish(folder, processes)
  assert small_job.losses(copies[0]) == small_job.losses(run)
  scores = [(folder / 'scores' / 'intra.csv').read_bytes() for folder in (run, copies[0])]
  assert scores[0] == scores[1]
  assert small_job.losses(copies[1]) == pytest.approx(small_job.losses(run), rel=1e-5)
