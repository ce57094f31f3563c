"""The ensemble command as users call it, what it refuses, and MM-FAS's 21 real networks."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flexfas_jax import ensemble, score
from flexfas_jax.evaluation import metrics, scales, score_files, scores_without_ids
from flexfas_jax.evaluation.score_files import Scores

ROOT = Path(__file__).parents[1]
CASES = ROOT / 'tests' / 'cases' / 'scores'
REAL = ROOT.parent / 'shared' / 'data' / 'mm_fas_scores'
RUNS = [f'{net}_seed{s}_fold{f}' for net, s in (('a', 1), ('a', 2), ('b', 1)) for f in (1, 2)]


def run(*args):
  return ensemble.main([str(arg) for arg in args])


def scored(seed, people='t', n=60):
  """Scores of one network: ids and labels are of `people`, the scores of the seed."""
  rng = np.random.default_rng([seed, len(people), ord(people[0])])
  label = np.arange(n) % 2
  ids = [f'{people}{i}' for i in range(n)]
  values = np.clip(0.3 + 0.35 * label + 0.2 * rng.standard_normal(n), 0.001, 0.999)
  return Scores(ids, label, {'score': values}, attack_category=np.where(label, '', 'print'))


@pytest.fixture
def files(tmp_path, monkeypatch):
  """Three seeds of two networks, two folds each, with dev scores in dev/."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'dev').mkdir()
  for k, name in enumerate(RUNS):
    score_files.write(tmp_path / f'{name}.csv', scored(k))
    score_files.write(tmp_path / 'dev' / f'{name}.csv', scored(k, 'd'))
  return tmp_path


def given(names=RUNS, folder=''):
  return [f'{folder}{name}.csv' for name in names]


def changed(path, **changes):
  """Writes a score file again, its scores, ids, header, ... replaced."""
  scores = dataclasses.replace(score_files.read(path), **changes)
  score_files.write(path, scores)


def test_what_no_sample_has_is_not_recorded(tmp_path, capsys):
  label, lacking = np.arange(60) % 2, {'not_recorded': ['ir']}
  for name in 'ab':
    columns = {subset: scored(ord(name)).scores['score'] for subset in ('rgb', 'rgb+ir')}
    one = Scores([f't{i}' for i in range(60)], label, columns, header=lacking)
    score_files.write(tmp_path / f'{name}.csv', one)
  out = tmp_path / 'e.csv'
  assert run(tmp_path / 'a.csv', tmp_path / 'b.csv', f'--out={out}') == 0
  printed = capsys.readouterr().out
  assert 'rgb+ir: not recorded: no sample has ir' in printed and 'rgb+ir: percent' not in printed
  assert score_files.read(out).header['not_recorded'] == ['ir']


def test_an_average_has_no_bundle(files, capsys):
  out = files / 'none.csv'
  assert run(*given(folder=f'{files}/'), f'--out={out}', '--threshold=bundle') == 2
  assert '--threshold=bundle is of one bundle' in capsys.readouterr().err and not out.exists()


def values(path):
  return score_files.read(path).scores['score']


@pytest.mark.smoke
def test_the_command(files):
  command = [sys.executable, '-m', 'flexfas_jax.ensemble', *given(), '--out=e.csv']
  done = subprocess.run(
    [*command, '--intermediate=means'],
    cwd=files,
    env={'PYTHONPATH': str(ROOT), 'PATH': ''},
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode == 0, done.stderr
  assert done.stderr == ''
  x = {name: values(f'{name}.csv') for name in RUNS}

  def of(name):
    return (x[f'{name}_fold1'] + x[f'{name}_fold2']) / 2

  a = (of('a_seed1') + of('a_seed2')) / 2
  np.testing.assert_allclose(values('e.csv'), (a + of('b_seed1')) / 2, rtol=1e-14)
  np.testing.assert_allclose(values('means/a.csv'), a, rtol=1e-14)
  np.testing.assert_array_equal(values('means/b.csv'), values('means/b_seed1.csv'))
  np.testing.assert_array_equal(values('means/a_seed2_fold1.csv'), x['a_seed2_fold1'])
  assert len(list(Path('means').glob('*.csv'))) == 2 + 3 + 6
  # The tree, the best member, and how to evaluate it.
  lines = done.stdout.splitlines()
  assert lines[0].startswith('6 files; means of probabilities over views, then folds, then seeds')
  rows = [line.split() for line in lines[5:15]]
  assert rows[0][:3] == ['a', '2', 'seeds'] and rows[1][:3] == ['a_seed1', '2', 'folds']
  assert sum(' * ' in line for line in lines) == 1
  assert 'ORACLE' in done.stdout and 'flexfas_jax.score e.csv --against=means/' in lines[-1]


def test_what_it_suggests_can_be_done(files, capsys):
  for more in (['--intermediate=m'], []):
    assert run(*given(), '--out=e.csv', *more) == 0
    command = capsys.readouterr().out.splitlines()[-1].split()
    assert any(word.startswith('--against=') for word in command)
    assert score.main([*command[3:], '--bootstrap=0']) == 0
    capsys.readouterr()
  args = ['--dev', *given(folder='dev/'), '--dev_out=ed.csv', '--intermediate=m']
  assert run(*given(), '--out=e.csv', *args) == 0
  command = capsys.readouterr().out.splitlines()[-1].split()
  assert [word.partition('=')[0] for word in command[4:]] == [
    *('--dev', '--against', '--against_dev')
  ]
  assert score.main([*command[3:], '--bootstrap=0']) == 0


def test_nothing_slow_is_imported(files):
  code = (
    'import sys; from flexfas_jax import ensemble; code = ensemble.main();'
    'slow = {"jax", "flax", "grain", "rich", "matplotlib", "scipy.stats", "scipy.optimize"};'
    'print(slow & set(sys.modules)); sys.exit(code)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, *given(), '--out=e.csv'],
    cwd=files,
    env={'PYTHONPATH': str(ROOT), 'PATH': ''},
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == 'set()'


def test_help_says_all(capsys):
  with pytest.raises(SystemExit) as end:
    run('--help')
  assert end.value.code == 0
  said = capsys.readouterr().out
  for word in ('--name', '--space', '--weights', '--calibrate', 'examples:', 'exit codes:'):
    assert word in said


def test_rendered_images_are_stated(files, capsys):
  assert run(*given(), '--out=e.csv') == 0
  assert 'RENDERED' not in capsys.readouterr().out
  assert 'rendered' not in score_files.read('e.csv').header
  changed(f'{RUNS[0]}.csv', header={'rendered': True})
  assert run(*given(), '--out=e.csv') == 0
  assert 'RENDERED' in capsys.readouterr().out.splitlines()[0]
  assert score_files.read('e.csv').header['rendered'] is True


def test_the_header_says_what_it_is_made_of(files):
  for k, name in enumerate(RUNS):
    changed(f'{name}.csv', header={'weights_hash': f'w{k}', 'step': 7})
  assert run(*given(), '--out=e.csv', '--space=logit') == 0
  header = score_files.read('e.csv').header
  of = header['ensemble']
  assert (of['order'], of['space']) == (['view', 'fold', 'seed', 'network'], 'logit')
  assert (of['weights'], of['calibration']) == ('equal', None)
  assert of['members'][3] | {'sha256': ''} == {
    'file': 'a_seed2_fold2.csv',
    'sha256': '',
    'network': 'a',
    'seed': '2',
    'fold': '2',
    'columns': ['score'],
    'weights_hash': 'w3',
    'step': 7,
  }
  before = Path('e.csv').read_bytes(), Path('e.json').read_bytes()
  first = header['weights_hash']
  assert run(*given(), '--out=e.csv') == 0
  other = score_files.read('e.csv').header['weights_hash']
  assert len({first, other, 'w3'}) == 3  # another space is another model
  assert run(*given(), '--out=e.csv', '--space=logit') == 0
  assert (Path('e.csv').read_bytes(), Path('e.json').read_bytes()) == before


def test_the_order_of_files_and_of_rows_does_not_matter(files):
  assert run(*given(), '--out=e.csv') == 0
  scores = score_files.read('b_seed1_fold2.csv')
  back = np.arange(scores.ids.size)[::-1]
  turned = Scores(scores.ids[back], scores.label[back], {'score': scores.scores['score'][back]})
  score_files.write('b_seed1_fold2.csv', turned)
  assert run(*given()[:-1][::-1], given()[-1], '--out=f.csv') == 0
  np.testing.assert_array_equal(values('e.csv'), values('f.csv'))
  assert run(*given()[::-1], '--out=g.csv') == 0  # the reversed file gives the order
  np.testing.assert_array_equal(values('e.csv'), values('g.csv')[::-1])


def test_names_headers_and_nothing_known(files, capsys):
  Path('x-1.csv').write_bytes(Path('a_seed1_fold1.csv').read_bytes())
  score_files.write('x-2.csv', scored(8))
  score_files.write('y-1.csv', scored(9))
  args = ['x-1.csv', 'x-2.csv', 'y-1.csv']
  assert run(*args, '--out=e.csv') == 0
  assert 'all are alike' in capsys.readouterr().out
  x = [values(f) for f in args]
  np.testing.assert_allclose(values('e.csv'), np.mean(x, 0), rtol=1e-14)
  uneven = ((x[0] + x[1]) / 2 + x[2]) / 2
  assert run(*args, '--out=e.csv', '--name={network}-{seed}') == 0
  np.testing.assert_allclose(values('e.csv'), uneven, rtol=1e-14)
  for name, (network, seed) in zip(args, (('p', 1), ('p', 2), ('q', 1)), strict=True):
    changed(name, header={'member': {'network': network, 'seed': seed}})
  assert run(*args, '--out=e.csv') == 0
  np.testing.assert_allclose(values('e.csv'), uneven, rtol=1e-14)


def test_runs_of_our_own_are_known_by_their_folder(files, capsys):
  for k, name in enumerate(RUNS):
    folder = files / 'runs' / name / 'scores'
    folder.mkdir(parents=True)
    score_files.write(folder / 'intra.csv', scored(k))
    score_files.write(folder / 'val.csv', scored(k, 'd'))
  own = sorted(Path('runs').glob('*/scores/intra.csv'))
  dev = sorted(Path('runs').glob('*/scores/val.csv'))[::-1]
  assert run(*given(), '--out=e.csv') == 0
  assert run(*own, '--dev', *dev, '--out=f.csv') == 0
  np.testing.assert_array_equal(values('e.csv'), values('f.csv'))
  pattern = '--name=runs/{network}_seed{seed}_fold{fold}/scores/*'
  assert run(*own, '--dev', *dev, '--out=g.csv', pattern) == 0
  np.testing.assert_array_equal(values('e.csv'), values('g.csv'))


def test_views_as_columns_and_as_files(files, capsys):
  a, b = (values(f'a_seed1_fold{k}.csv') for k in (1, 2))
  base = score_files.read('a_seed1_fold1.csv')
  for names in (('rgb@centre', 'rgb@flip'), ('rgb', 'rgb@flip')):
    scores = Scores(base.ids, base.label, dict(zip(names, (a, b), strict=True)))
    score_files.write('v_seed1.csv', scores)
    assert run('v_seed1.csv', '--out=e.csv') == 0
    assert '2 views' in capsys.readouterr().out
    np.testing.assert_allclose(score_files.read('e.csv').scores['rgb'], (a + b) / 2)
  score_files.write('v_seed1_viewx.csv', Scores(base.ids, base.label, {'score': a}))
  score_files.write('v_seed1_viewy.csv', Scores(base.ids, base.label, {'score': b}))
  assert run('v_seed1_viewx.csv', 'v_seed1_viewy.csv', '--out=e.csv') == 0
  np.testing.assert_allclose(values('e.csv'), (a + b) / 2)
  score_files.write('v_seed1.csv', Scores(base.ids, base.label, {'c': a, 'f': b}))
  assert run('v_seed1.csv', '--out=e.csv', '--views=c,f') == 0
  np.testing.assert_allclose(values('e.csv'), (a + b) / 2)
  # A picture that was not turned.
  score_files.write('v_seed1.csv', Scores(base.ids, base.label, {'c': a, 'f': a}))
  assert run('v_seed1.csv', '--out=e.csv', '--views=c,f') == 0
  assert 'are equal in every score' in capsys.readouterr().err


def test_subsets_are_averaged_each(files, capsys):
  base = [score_files.read(f'{name}.csv') for name in RUNS[:4]]
  s = [x.scores['score'] for x in base]
  none = np.full(s[0].size, np.nan)
  for k in (0, 1):
    columns = {'rgb': s[k], 'rgb+depth': s[k + 2], 'ir': none}
    score_files.write(f'm_seed{k}.csv', Scores(base[0].ids, base[0].label, columns))
  assert run('m_seed0.csv', 'm_seed1.csv', '--out=e.csv') == 0
  assert 'ir: no sample has a score of every member; not served' in capsys.readouterr().out
  found = score_files.read('e.csv').scores
  np.testing.assert_allclose(found['rgb+depth'], (s[2] + s[3]) / 2)
  assert np.isnan(found['ir']).all()
  changed('m_seed1.csv', scores={'rgb': s[1], 'rgb+depth': none, 'ir': none})
  assert run('m_seed0.csv', 'm_seed1.csv', '--out=e.csv') == 3
  assert 'm_seed1.csv has no score at all of rgb+depth' in capsys.readouterr().err
  changed('m_seed1.csv', scores={'rgb': s[1]})
  assert run('m_seed0.csv', 'm_seed1.csv', '--out=e.csv') == 3
  assert '--subsets' in capsys.readouterr().err
  assert run('m_seed0.csv', 'm_seed1.csv', '--out=e.csv', '--subsets=rgb') == 0
  assert run('m_seed0.csv', 'm_seed1.csv', '--out=e.csv', '--subsets=depth') == 2


def test_weights_and_calibration_are_of_dev_alone(files, capsys):
  dev = ['--dev', *given(folder='dev/')[::-1]]
  assert run(*given(), *dev, '--out=e.csv', '--weights=val', '--calibrate=platt') == 0
  said = capsys.readouterr().out
  assert 'dev (fitted on it), before' in said and 'ensemble, after' in said and 'weight' in said
  header = score_files.read('e.csv').header['ensemble']
  assert header['calibration']['score']['method'] == 'platt' and len(header['dev']['files']) == 6
  weights = header['weights']['score']
  assert weights['a'] + weights['b'] == pytest.approx(1)
  assert set(weights.values()) - {0.5, 1.0}
  # Each member's own dev scores, in whatever order.
  args = ['--out=o.csv', '--weights=val', '--calibrate=platt']
  assert run(*given(), '--dev', *given(folder='dev/'), *args) == 0
  np.testing.assert_array_equal(values('e.csv'), values('o.csv'))
  # Other labels of what is evaluated change nothing.
  for name in RUNS:
    changed(f'{name}.csv', label=1 - score_files.read(f'{name}.csv').label,
            attack_category=None)  # fmt: skip
  assert run(*given(), *dev, '--out=f.csv', '--weights=val', '--calibrate=platt') == 0
  np.testing.assert_array_equal(values('e.csv'), values('f.csv'))


@pytest.mark.parametrize('names', ['net', 'rev'])
def test_rounding_decides_nothing_at_a_threshold(tmp_path, names, capsys):
  own = [CASES / 'rounding-at-threshold' / f'{names}_seed{k}.csv' for k in (1, 2, 3)]
  for space in ('probability', 'logit'):
    assert run(*own, f'--out={tmp_path}/e.csv', f'--space={space}') == 0
    if space == 'probability':
      ours = score_files.read(tmp_path / 'e.csv')
      assert set(ours.scores['score'][ours.label == 1].tolist()) == {0.7}
  assert run(*own[:1], f'--out={tmp_path}/one.csv', '--space=logit') == 0
  assert values(tmp_path / 'one.csv').tolist() == values(own[0]).tolist()


def write_without_header(path, scores):
  """As another framework has it: a header of ours states that high is bona fide."""
  score_files.write(path, scores)
  score_files.header_path(path).unlink()


def on_scale(scores, folder, scale):
  """Scores as files on another scale state them: (path, options)."""
  folder.mkdir(exist_ok=True)
  share = scores.scores['score']
  stated, options = {
    'percent': (100 * share, ['--scale=percent']),
    'logit': (np.log(share / (1 - share)), ['--scale=logit']),
    'attack': (1 - share, ['--high_is=attack']),
    'attack_percent': (100 - 100 * share, ['--high_is=attack', '--scale=percent']),
  }[scale]
  return dataclasses.replace(scores, scores={'score': stated}), options


@pytest.mark.parametrize('calibrate', ['', 'piecewise', 'platt', 'isotonic', 'piecewise=0.6'])
@pytest.mark.parametrize('scale', ['percent', 'logit', 'attack', 'attack_percent'])
@pytest.mark.parametrize('space', ['probability', 'logit'])
def test_on_any_scale_the_ensemble_is_the_same(files, scale, space, calibrate, capsys):
  """Up to rounding, as a probability, and in what the next command says of it."""
  names = [f'{name}.csv' for name in RUNS[:3]]
  folder = files / scale
  for name in names:
    for path in (name, f'dev/{name}'):
      (folder / path).parent.mkdir(exist_ok=True, parents=True)
      other, options = on_scale(score_files.read(path), folder, scale)
      write_without_header(folder / path, other)
  how = [f'--space={space}', '--weights=val', *([f'--calibrate={calibrate}'] if calibrate else [])]
  for at, more in ((files, []), (folder, options)):
    own = [at / name for name in names]
    dev = ['--dev', *(at / 'dev' / name for name in names), f'--dev_out={at}/ed.csv']
    assert run(*own, *dev, f'--out={at}/e.csv', '--allow_incomplete', *how, *more) == 0
  ours, theirs = (score_files.read(at / 'e.csv') for at in (files, folder))
  probability = scales.probability(theirs.scores['score'], theirs.scale)
  np.testing.assert_allclose(probability, ours.scores['score'], rtol=1e-6, atol=1e-9)
  shown = []
  for at in (files, folder):
    json_ = f'--json={at}/o.json'
    assert score.main([f'{at}/e.csv', f'--dev={at}/ed.csv', '--bootstrap=0', json_]) == 0
    assert score.main([f'{at}/e.csv', '--threshold=fixed=0.51', '--bootstrap=0']) == 0
    found = json.loads((at / 'o.json').read_text())['score']
    shown.append([found[name] for name in ('acer', 'apcer', 'bpcer', 'eer', 'auc')])
    lines = capsys.readouterr().out.splitlines()
    shown[-1].append(next(line for line in lines[-12:] if line.startswith('score')).split()[:3])
  assert shown[0] == shown[1]


def test_small_probabilities_of_attack_are_not_merged(tmp_path, capsys):
  folder = CASES / 'high-is-attack-tiny'
  own = score_files.read(folder / 'test.csv')
  rng = np.random.default_rng(0)
  for k in (1, 2):
    moved = own.scores['score'] * (1 - 0.1 * rng.random(own.label.size))
    write_without_header(
      tmp_path / f'a_seed{k}.csv', dataclasses.replace(own, scores={'score': moved})
    )
  files = [tmp_path / f'a_seed{k}.csv' for k in (1, 2)]
  assert run(*files, f'--out={tmp_path}/e.csv', '--high_is=attack') == 0
  found = score_files.read(tmp_path / 'e.csv')
  assert found.scale == 'attack_probability'
  assert len(set(found.scores['score'].tolist())) == found.label.size
  assert metrics.auc(metrics.curve(found.label, found.scores['score'])) == 1
  score_files.write(tmp_path / 'again.csv', found)
  assert values(tmp_path / 'again.csv').tolist() == found.scores['score'].tolist()


def test_logits_that_are_1_in_float64_are_not_merged(tmp_path, capsys):
  for k in (1, 2):
    text = 'id,label,score\na,1,50\nb,1,45\nc,0,40\nd,0,-50\ne,0,-800\n'.replace('45', f'4{k + 4}')
    (tmp_path / f'a_seed{k}.csv').write_text(text)
  files = [tmp_path / f'a_seed{k}.csv' for k in (1, 2)]
  for space in ('probability', 'logit'):
    assert run(*files, f'--out={tmp_path}/e.csv', '--scale=logit', f'--space={space}') == 0
    found = values(tmp_path / 'e.csv')
    assert (np.diff(found) < 0).all()
    assert found[[0, 2, 3]].tolist() == [50, 40, -50]
    assert 45 < found[1] < 46


def test_figures_of_few_samples_are_not_stated(files, capsys):
  for name in RUNS[:2]:
    for path, who in ((f'{name}.csv', 't'), (f'dev/{name}.csv', 'd')):
      score_files.write(path, scored(RUNS.index(name), who, 40))
  dev = ['--dev', *given(RUNS[:2], 'dev/')]
  assert run(*given(RUNS[:2]), *dev, '--out=e.csv', '--calibrate=platt') == 0
  said = capsys.readouterr().out
  rows = [line for line in said.splitlines() if line.startswith(('ensemble', '  '))]
  assert rows and all('n too small' in row for row in rows[:3])
  row = next(line for line in said.splitlines() if line.startswith('ensemble, after'))
  assert row.count('n too small') == 5  # not Brier, log loss and ECE


@pytest.mark.parametrize('calibrate', [[], ['--calibrate=piecewise=0.4']])
@pytest.mark.parametrize('scale', ['percent', 'logit', 'attack', 'attack_percent'])
def test_the_suggested_command_reads_each_file_on_its_scale(files, capsys, scale, calibrate):
  names = given(RUNS[:2])
  found = {}
  for at in (files, files / scale):
    options = []
    for name in names:
      if at != files:
        other, options = on_scale(score_files.read(name), at, scale)
        write_without_header(at / name, other)
    own = [at / name for name in names]
    assert run(*own, f'--out={at}/e.csv', '--allow_incomplete', *calibrate, *options) == 0
    [command] = [
      line for line in capsys.readouterr().out.splitlines() if 'flexfas_jax.score' in line
    ]
    assert score.main([*command.split()[3:], '--bootstrap=0', f'--json={at}/o.json']) == 0
    capsys.readouterr()
    for name, values_ in json.loads((at / 'o.json').read_text()).items():
      found.setdefault(name, []).append([values_[rate] for rate in ('apcer', 'bpcer', 'auc')])
  assert len(found) == 2 and all(a == b for a, b in found.values())


def test_members_on_different_scales_are_refused(files, capsys):
  scores = score_files.read('a_seed1_fold2.csv')
  percent = {'score': 100 * scores.scores['score']}
  score_files.write(
    'a_seed1_fold2.csv', dataclasses.replace(scores, scores=percent, scale='percent')
  )
  assert run(*given(), '--out=e.csv') == 3
  said = capsys.readouterr().err
  assert 'a_seed1_fold2.csv and a_seed1_fold1.csv are on different scales (percent and not' in said


@pytest.mark.parametrize('method', ['piecewise', 'platt', 'isotonic'])
def test_a_calibrated_ensemble_ranks_as_before(files, method):
  dev = ['--dev', *given(folder='dev/'), '--dev_out=d.csv']
  assert run(*given(), '--out=e.csv') == 0
  assert run(*given(), *dev, '--out=c.csv', f'--calibrate={method}') == 0
  before, after = values('e.csv'), values('c.csv')
  assert (np.diff(after[np.argsort(before)]) >= 0).all()
  label = score_files.read('e.csv').label
  if method != 'isotonic':
    assert metrics.auc(metrics.curve(label, after)) == metrics.auc(metrics.curve(label, before))
  # dev's threshold is at 0.5 then: dev is decided alike.
  if method == 'piecewise':
    found = score_files.read('d.csv')
    rates = metrics.error_rates(found.label, found.scores['score'], 0.5)
    eer, threshold = metrics.eer(metrics.curve(found.label, found.scores['score']))
    assert threshold == 0.5 and rates.acer == pytest.approx(eer)


# What is wrong with the files: (what is done to them, arguments, exit code, what is said)
def no_ids(files):
  path = files / 'b_seed1_fold1.csv'
  scores = score_files.read(path)
  score_files.write(path, scores.only(scores.ids != 't7'))


def other_label(files):
  label = score_files.read('b_seed1_fold1.csv').label
  changed('b_seed1_fold1.csv', label=np.where(np.arange(label.size) == 7, 1 - label, label))


def other_metadata(files):
  path = 'b_seed1_fold1.csv'
  attack = score_files.read(path).label == 0
  changed(path, attack_category=np.where(attack, 'replay', ''))


def nan(files):
  text = Path('b_seed1_fold1.csv').read_text().splitlines()
  text[8] = text[8].rpartition(',')[0] + ',nan'
  Path('b_seed1_fold1.csv').write_text('\n'.join(text) + '\n')


def no_probability(files):
  changed('b_seed1_fold1.csv', scores={'score': 3 * values('b_seed1_fold1.csv')})


def a_copy(files):
  Path('b_seed1_fold1.csv').write_bytes(Path('a_seed1_fold1.csv').read_bytes())


def same_weights(files):
  for name in ('a_seed1_fold1', 'b_seed1_fold1'):
    changed(f'{name}.csv', header={'weights_hash': 'abc'})


def missing(files):
  Path('b_seed1_fold2.csv').rename('elsewhere.csv')


def half_trained(files):
  changed('b_seed1_fold1.csv', header={'trained_steps': 100, 'config': {'steps': 300}, 'step': 90})


def behind(files):
  changed('b_seed1_fold1.csv', header={'step': 90})
  changed('b_seed1_fold2.csv', header={'step': 100})


def bad_member(files):
  changed('b_seed1_fold1.csv', header={'member': {'net': 'b'}})


def dev_of_other_weights(files):
  changed('a_seed1_fold1.csv', header={'weights_hash': 'abc'})
  changed('dev/a_seed1_fold1.csv', header={'weights_hash': 'def'})


def dev_with_people(files):
  ids = score_files.read('dev/a_seed1_fold1.csv').ids
  ids = np.where(np.arange(ids.size) == 0, 't0', ids)
  for name in RUNS:
    changed(f'dev/{name}.csv', ids=ids)


def nothing(files):
  pass


DEV = ['--dev', *given(folder='dev/')]


@pytest.mark.parametrize(
  ('done', 'args', 'code', 'says'),
  [
    (no_ids, [], 3, 'b_seed1_fold1.csv lacks 1 ids that a_seed1_fold1.csv has (the first is t7)'),
    (other_label, [], 3, 'label of id t7 is attack in b_seed1_fold1.csv and bona_fide in a_seed1'),
    (other_metadata, [], 3, 'attack_category of id t0 is replay in b_seed1_fold1.csv'),
    (nan, [], 3, 'b_seed1_fold1.csv: score is nan for 1 samples (the first is id t7)'),
    (no_probability, [], 3, 'b_seed1_fold1.csv, row 2: score of t0 is'),
    (a_copy, [], 3, 'a_seed1_fold1.csv and b_seed1_fold1.csv have the same scores'),
    (same_weights, [], 4, 'are of the same weights (abc)'),
    (missing, [], 4, 'b, seed 1, fold 2 is missing'),
    (half_trained, [], 4, 'b_seed1_fold1.csv is half trained: 100 of 300 steps'),
    (behind, [], 4, 'b_seed1_fold1.csv is of step 90, and others of its network of step 100'),
    (bad_member, [], 3, 'member is {'),
    (nothing, ['./a_seed1_fold1.csv'], 2, 'a_seed1_fold1.csv is given twice'),
    (nothing, ['absent_seed1_fold1.csv'], 3, 'cannot be read'),
    (nothing, ['--name={seed}_fold*'], 2, 'are both seed'),
    (nothing, ['--name={net}'], 2, 'it must have some of {network}'),
    (
      nothing,
      ['--name={network}-{seed}', 'other-1.csv'],
      2,
      'neither its header nor its name states',
    ),
    (nothing, ['other-1.csv'], 2, 'neither its header nor its name states its network'),
    (nothing, ['b_seed1.csv'], 2, 'has no fold, but b_seed1_fold1.csv'),
    (nothing, ['--views=c'], 2, 'has no scores c'),
    (nothing, ['--weights=val'], 2, '--weights=val needs --dev'),
    (nothing, ['--calibrate=platt'], 2, '--calibrate=platt needs --dev'),
    (nothing, ['--calibrate=beta'], 2, 'choose piecewise, platt, isotonic'),
    (nothing, ['--calibrate=piecewise=1.5'], 2, 'a threshold between 0 and 1'),
    (nothing, ['--calibrate=platt=1'], 2, 'choose'),
    (nothing, ['--threshold=dev_eer'], 2, 'needs --dev'),
    (nothing, ['--threshold=best'], 2, 'not a threshold rule'),
    (nothing, ['--dev_out=d.csv'], 2, 'needs --dev'),
    (nothing, ['--out=a_seed1_fold1.csv'], 2, 'is an input of this command'),
    (nothing, ['--out=absent/e.csv'], 2, 'no such folder'),
    (nothing, ['--out=e.txt'], 2, 'must be named NAME.csv'),
    (nothing, ['--intermediate=.'], 2, 'contains inputs'),
    (nothing, [*DEV, '--dev_out=e.csv'], 2, 'are the same file'),
    (nothing, ['--dev', *given()], 4, 'are the same list of samples'),
    (nothing, DEV[:-1], 2, 'no file of b, seed 1, fold 2'),
    (dev_of_other_weights, DEV, 4, 'dev/a_seed1_fold1.csv was scored by weights def'),
    (dev_with_people, DEV, 3, 'leak-file: id t0'),
  ],
)
def test_what_is_refused(files, capsys, done, args, code, says):
  score_files.write('other-1.csv', scored(20))
  score_files.write('b_seed1.csv', scored(21))
  done(files)
  members = [name for name in given() if Path(name).exists()]
  out = [] if any(arg.startswith('--out') for arg in args) else ['--out=e.csv']
  assert run(*members, *args, *out) == code
  said = capsys.readouterr().err
  assert says in said
  assert said.startswith('error: ') and 'Traceback' not in said and said.count('\n') < 12
  assert not Path('e.csv').exists()


@pytest.mark.parametrize('done', [missing, half_trained, behind])
def test_what_is_not_whole_is_averaged_where_allowed(files, capsys, done):
  done(files)
  members = [name for name in given() if Path(name).exists()]
  assert run(*members, '--out=e.csv', '--allow_incomplete') == 0
  assert 'incomplete, and allowed: b' in capsys.readouterr().err
  assert score_files.read('e.csv').header['ensemble']['incomplete']


def test_checkpoints_of_runs_that_ended_may_be_of_any_step(files):
  for k, name in enumerate(RUNS):
    changed(f'{name}.csv', header={'step': k, 'trained_steps': 300, 'config': {'steps': 300}})
  assert run(*given(), '--out=e.csv') == 0


def test_a_failure_to_acquire_is_one_of_the_ensemble(files, capsys):
  own = values('b_seed1_fold1.csv')
  changed('b_seed1_fold1.csv', scores={'score': np.where(np.arange(own.size) == 7, np.nan, own)})
  assert run(*given(), '--out=e.csv') == 0
  assert '1 samples have no score in some member' in capsys.readouterr().err
  found = score_files.read('e.csv')
  assert np.flatnonzero(np.isnan(found.scores['score'])).tolist() == [7]
  assert not found.nan_samples


def test_unknown_names_are_matched_by_order(files, capsys):
  for k, name in enumerate(('p', 'q')):
    score_files.write(f'{name}.csv', scored(k))
    score_files.write(f'dev/{name}{name}.csv', scored(k, 'd'))
  args = ['p.csv', 'q.csv', '--out=e.csv', '--dev', 'dev/pp.csv']
  assert run(*args) == 2
  assert '1 files for 2 members' in capsys.readouterr().err
  assert run(*args, 'dev/qq.csv') == 0
  assert run(*given(), '--out=e.csv', '--dev', 'dev/pp.csv') == 2
  assert 'are not known' in capsys.readouterr().err


def test_files_without_ids(files, capsys):
  Path('list.csv').write_text('rgb,depth,label\nx.jpg,xd.jpg,1\ny.jpg,yd.jpg,0\n')
  Path('s_seed1.csv').write_text('crop,flip,rotated\n.8,.6,.1\n.2,.4,.1\n')
  args = ['s_seed1.csv', '--out=e.csv', '--labels_from=list.csv']
  assert run(*args, '--views=crop,flip') == 0
  assert 'rows are taken to be in the order of the list' in capsys.readouterr().err
  found = score_files.read('e.csv')
  assert found.ids.tolist() == ['x.jpg', 'y.jpg'] and found.label.tolist() == [1, 0]
  np.testing.assert_allclose(found.scores['score'], [0.7, 0.3])
  for text, says in (
    ('crop,flip\n.8,.6\n', 'has 1 rows of scores'),
    ('crop,flip\n.8,.6\n.2\n', 'row 3: 1 cells'),
    ('crop,flip\n.8,.6\n.2,x\n', "row 3: flip is 'x', not a number"),
    ('crop,flip\n.8,nan\n.2,.1\n', 'is nan for 1 samples (the first is id x.jpg)'),
    ('id,flip\n1,.8\n0,.2\n', "has the columns ['id']"),
    ('', 'is empty'),
  ):
    Path('s_seed1.csv').write_text(text)
    assert run(*args) == 3
    assert says in capsys.readouterr().err
  for text, says in (
    ('rgb\na\n', 'no column label'),
    ('id,label\na,1\nb,live\n', "row 3: unknown label 'live'"),
  ):
    Path('list.csv').write_text(text)
    with pytest.raises(scores_without_ids.DataError, match=says):
      scores_without_ids.read_list('list.csv')


# Published for CASIA-SURF's validation set (Parkin and Grinchuk, CVPRW 2019): TPR at FPR 1e-4.
PUBLISHED = {
  'exp1_2stage': 0.9987,  # NN1a
  'exp2_seed1': 0.9870,  # NN2
  'exp3b_seed1': 0.9963,  # NN3
  'exp3c_seed1': 0.9933,  # NN4
  'ensemble': 1.0,
}
# In its table NN1 stands where these have NN1a, whose scores alone are public.
GROWING = {
  'NN1a + NN2': (['exp1_2stage_seed1', 'exp2_seed1'], 0.9963),
  '+ NN3': (['exp1_2stage_seed1', 'exp2_seed1', 'exp3b_seed1'], 0.9980),  # published: .9983
  '+ second seeds': (['exp1_2stage', 'exp2', 'exp3b'], 0.9997),
  '+ NN4': (['exp1_2stage', 'exp2', 'exp3b', 'exp3c'], 1.0),
}


def tpr(path):
  found = score_files.read(path)
  points = metrics.curve(found.label, found.scores['score'])
  return round(metrics.tpr_at_fpr(points, 1e-4), 4)


def real(out, names=('exp',), *args):
  if not REAL.is_dir():
    pytest.skip(f'the scores of the real networks are not here: {REAL}')
  paths = [p for p in sorted(REAL.glob('exp*.csv')) if p.name.startswith(tuple(names))]
  args = [f'--labels_from={REAL}/val_labels.csv', '--views=crop0,crop0_hflip', *args]
  assert run(*paths, f'--out={out}', *args) == 0
  return len(paths)


def test_the_published_ensemble_of_real_networks(tmp_path, capsys):
  assert real(tmp_path / 'ensemble.csv', ('exp',), f'--intermediate={tmp_path}') == 21
  assert {name: tpr(tmp_path / f'{name}.csv') for name in PUBLISHED} == PUBLISHED


@pytest.mark.parametrize('row', GROWING)
def test_the_real_ensemble_as_it_grows(tmp_path, capsys, row):
  names, expected = GROWING[row]
  real(tmp_path / 'e.csv', names)
  assert tpr(tmp_path / 'e.csv') == expected


def test_the_papers_rescale_of_real_networks(tmp_path, capsys):
  acer = {}
  for name, args in (('before', ()), ('after', ('--calibrate=piecewise=0.932107',))):
    real(tmp_path / 'e.csv', ('exp',), *args)
    found = score_files.read(tmp_path / 'e.csv')
    acer[name] = metrics.error_rates(found.label, found.scores['score'], 0.5).acer
  assert (round(acer['before'], 4), round(acer['after'], 5)) == (0.0122, 0.00017)
  assert tpr(tmp_path / 'e.csv') == 1.0  # ranks are as before


@pytest.mark.parametrize('method', ['piecewise', 'platt', 'isotonic'])
def test_calibration_on_half_of_the_real_samples_serves_the_other(tmp_path, capsys, method):
  """Which people are in which half is not known: near frames may be of one person."""
  real(tmp_path / 'e.csv')
  found = score_files.read(tmp_path / 'e.csv')
  for k, name in enumerate(('test_seed1', 'val_seed1')):
    score_files.write(tmp_path / f'{name}.csv', found.only(np.arange(found.ids.size) % 2 == k))
  names = [str(tmp_path / f'{name}_seed1.csv') for name in ('test', 'val')]
  capsys.readouterr()
  out = tmp_path / 'c.csv'
  assert run(names[0], '--dev', names[1], f'--out={out}', f'--calibrate={method}',
             '--name=*_seed{seed}') == 0  # fmt: skip
  said = capsys.readouterr().out
  assert 'dev (fitted on it), after' in said and 'ensemble, after' in said
  before, after = (score_files.read(p) for p in (names[0], out))
  rates = [metrics.error_rates(s.label, s.scores['score'], 0.5).acer for s in (before, after)]
  assert rates[1] < rates[0] / 5


def test_a_pipe_that_nobody_reads_loses_no_ensemble(files):
  reader, writer = os.pipe()
  os.close(reader)
  command = [sys.executable, '-u', '-m', 'flexfas_jax.ensemble', *given(RUNS[:2]), '--out=e.csv']
  path = {**os.environ, 'PYTHONPATH': str(ROOT)}
  done = subprocess.run(
    command, env=path, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60
  )
  os.close(writer)
  assert done.returncode == 0, done.stderr
  assert values('e.csv').size == 60


def test_a_member_of_the_other_polarity_is_named(files, capsys):
  a, b, _ = given(RUNS[:3])
  scores = score_files.read(b)
  changed(b, scores={'score': 1 - scores.scores['score']})
  assert run(a, b, '--out=e.csv', '--allow_incomplete') == 0
  err = capsys.readouterr().err
  assert f'{b}: polarity? The AUC of score is 0.' in err and f'{a}: polarity?' not in err
