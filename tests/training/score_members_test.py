"""Several runs scored together, as one program: each is left with what it would have alone."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from flexfas_jax import ensemble
from flexfas_jax.errors import ConfigError, StateError
from flexfas_jax.evaluation import score_files
from flexfas_jax.evaluation.ensemble import views as looks
from flexfas_jax.training import score_members
from tests import small_job
from tests.main_test import run

VIEWS = ('whole', 'flip')
SEEDS = (0, 1)
SUBSETS = ('rgb', 'rgb+ir', 'ir')


@pytest.fixture(scope='module')
def runs(prepared, tmp_path_factory):
  """{seed: workdir}, trained and each evaluated by itself, by two views."""
  folder = tmp_path_factory.mktemp('members')
  config = small_job.write_config(folder / 'config.py', prepared)
  more = "  c.views, c.member = {}, ConfigDict({{'network': 'mu', 'fold': 'a'}})\n  return c\n"
  config.write_text(config.read_text().replace('  return c\n', more.format(VIEWS)))
  workdirs = {seed: folder / f'run{seed}' for seed in SEEDS}
  started = [
    process
    for seed, workdir in workdirs.items()
    for process in small_job.start(config, workdir, 1, 1, f'--config.seed={seed}')
  ]
  for code, _, stderr in small_job.finish(started):
    assert code == 0, stderr
  return workdirs


@pytest.fixture
def copies(runs, tmp_path):
  """The same without what the evaluation left."""
  found = []
  for workdir in runs.values():
    found.append(pathlib.Path(shutil.copytree(workdir, tmp_path / workdir.name)))
    shutil.rmtree(found[-1] / 'scores')
    (found[-1] / 'results.json').unlink()
  return found


def test_a_run_leaves_each_view_and_judges_their_mean(runs):
  for seed, workdir in runs.items():
    by_view = score_files.read(workdir / 'scores' / 'views' / 'intra.csv')
    mean = score_files.read(workdir / 'scores' / 'intra.csv')
    assert list(by_view.scores) == [f'{s}@{view}' for s in SUBSETS for view in VIEWS]
    assert (
      list(mean.scores)
      == list(SUBSETS)
      == list(json.loads((workdir / 'results.json').read_text())['intra'])
    )
    for subset in SUBSETS:
      np.testing.assert_allclose(
        mean.scores[subset], looks.average_views(by_view).scores[subset], rtol=1e-9
      )
    assert (by_view.scores['rgb@whole'] != by_view.scores['rgb@flip']).any()
    for scores in (mean, by_view):
      assert scores.header['member'] == {'network': 'mu', 'seed': seed, 'fold': 'a'}
      assert scores.header['views'] == list(VIEWS)
      assert scores.header['trained_steps'] == small_job.STEPS


def test_together_they_are_scored_as_each_alone(runs, copies):
  found = run('evaluate_members', *map(str, copies))
  assert found.returncode == 0, found.stderr
  for workdir, copy in zip(runs.values(), copies, strict=True):
    for file in ('val.csv', 'intra.csv', 'views/val.csv', 'views/intra.csv'):
      own, together = (score_files.read(w / 'scores' / file) for w in (workdir, copy))
      assert own.ids.tolist() == together.ids.tolist()
      assert own.header == together.header
      for column in own.scores:
        np.testing.assert_allclose(own.scores[column], together.scores[column], rtol=1e-4)
    assert str(copy) in found.stdout
    own, together = (json.loads((w / 'results.json').read_text()) for w in (workdir, copy))
    assert own['intra']['rgb+ir'].keys() == together['intra']['rgb+ir'].keys()


def test_they_may_be_looked_at_otherwise(runs, copies):
  score_members.evaluate([copies[0]], {'views': ('flip',)})
  again = score_files.read(copies[0] / 'scores' / 'intra.csv')
  by_view = score_files.read(runs[0] / 'scores' / 'views' / 'intra.csv')
  for subset in SUBSETS:
    np.testing.assert_allclose(again.scores[subset], by_view.scores[f'{subset}@flip'], rtol=1e-4)
  assert not (copies[0] / 'scores' / 'views').exists()  # those of another evaluation


def test_their_views_and_seeds_are_averaged_by_what_their_headers_say(runs, tmp_path, capsys):
  files = [str(workdir / 'scores' / 'views' / 'intra.csv') for workdir in runs.values()]
  assert ensemble.main([*files, f'--out={tmp_path}/mean.csv', '--threshold=fixed=0.5']) == 0
  assert '2 seeds' in capsys.readouterr().out
  found = score_files.read(tmp_path / 'mean.csv').scores['rgb']
  parts = [score_files.read(w / 'scores' / 'intra.csv').scores['rgb'] for w in runs.values()]
  np.testing.assert_allclose(found, np.mean(parts, 0), rtol=1e-6)


def test_each_run_is_scored_by_its_own_resizing(runs, copies):
  config = json.loads((copies[1] / 'config.json').read_text())
  assert config['resize'] == 'area'
  (copies[1] / 'config.json').write_text(json.dumps({**config, 'resize': 'bilinear'}))
  score_members.evaluate(copies)
  own, other = (
    [score_files.read(w / 'scores' / 'intra.csv').scores['rgb'] for w in (run, copy)]
    for run, copy in zip(runs.values(), copies, strict=True)
  )
  np.testing.assert_allclose(own[0], own[1], atol=1e-6)
  assert np.abs(other[0] - other[1]).max() > 1e-4


def test_what_cannot_be_scored_is_named(copies, tmp_path):
  one, other = copies
  config = json.loads((other / 'config.json').read_text())
  (other / 'config.json').write_text(json.dumps({**config, 'steps': 20}))
  with pytest.raises(StateError, match=f'{other} is trained for 8 of 20 steps'):
    score_members.evaluate([one, other])
  assert not (one / 'results.json').exists()  # none, rather than some
  with pytest.raises(StateError, match='holds no run'):
    score_members.evaluate([one, tmp_path / 'nothing'])
  with pytest.raises(ConfigError, match='is given twice'):
    score_members.evaluate([one, one])
  with pytest.raises(ConfigError, match="'upside' is no view"):
    score_members.evaluate([one], {'views': ('upside',)})
  found = run('evaluate_members', str(tmp_path / 'nothing'))
  assert found.returncode == 4 and 'holds no run' in found.stderr
  assert 'Traceback' not in found.stderr
