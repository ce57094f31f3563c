"""ORACLE figures that are selected on the test: recorded on request, and without any effect."""

import json

import jax
import pytest

from configs import face_recognition
from flexfas_jax.errors import ConfigError
from flexfas_jax.evaluation import oracle
from flexfas_jax.training import loop, setup
from tests.small_job import STEPS, write_config


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  monkeypatch.setattr(setup, 'find_devices', lambda: jax.devices()[:1])


def make_config(folder, prepared):
  names = {}
  exec(write_config(folder / 'small.py', prepared).read_text(), names)
  c = names['get_config']()
  c.eval_every = 4
  return c


def test_the_least_of_all_evaluations_is_in_the_results(prepared, tmp_path, capsys):
  config = make_config(tmp_path, prepared)
  plain, marked = tmp_path / 'plain', tmp_path / 'oracle'
  loop.train_and_evaluate(config, str(plain))
  loop.train_and_evaluate(config, str(marked), loop.Options(oracle=('intra',)))
  assert 'ORACLE: intra, least HTER at the test EER of 2 evaluations: rgb ' in (
    capsys.readouterr().out
  )
  rows = [json.loads(line) for line in (marked / 'metrics.jsonl').read_text().splitlines()]
  by_step = {r['step']: r for r in rows if 'val/auc' in r}
  assert sorted(by_step) == [4, STEPS]
  best = min(by_step, key=lambda step: by_step[step]['val/eer'])
  found = json.loads((marked / 'results.json').read_text())['intra']
  assert len(found) == 3
  for subset, metrics in found.items():
    values = {step: row[f'oracle/intra/{subset}/{oracle.METRIC}'] for step, row in by_step.items()}
    assert metrics.pop(oracle.LEAST) == min(values.values())
    assert metrics.pop(oracle.EVALUATIONS) == 2
    assert metrics[oracle.METRIC] == pytest.approx(values[best])
  # Nothing else depends on it.
  assert found == json.loads((plain / 'results.json').read_text())['intra']
  for name in ('val.csv', 'intra.csv'):
    scores = [(run / 'scores' / name).read_text().splitlines()[1:] for run in (plain, marked)]
    assert scores[0] == scores[1]


def test_what_cannot_be_scored_is_refused(prepared, tmp_path):
  with pytest.raises(ConfigError, match="no test is named 'target'; config.test has: intra"):
    options = loop.Options(oracle=('target',))
    loop.train(make_config(tmp_path, prepared), str(tmp_path / 'run'), options)
  config = face_recognition.get_config()
  config.data_dir, config.batch_size = str(prepared), 8
  for name in ('train', 'val'):
    config[name] = f'rendered_faces/surf_like_tiny:{name}[species=bona_fide & modalities=rgb]'
  config.test = {}
  with pytest.raises(ConfigError, match='--oracle needs attack detection'):
    loop.train(config, str(tmp_path / 'faces'), loop.Options(oracle=('intra',)))
  assert not (tmp_path / 'run' / 'config.json').exists()
