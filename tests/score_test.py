"""The score command as users call it, and the published figures of real networks through it."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flexfas_jax import score
from flexfas_jax.evaluation import score_files

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / 'shared' / 'data' / 'mm_fas_scores'
TEST = 'id,label,score\na,1,.9\nb,1,.4\nc,0,.6\nd,0,.1\n'
DEV = 'id,label,score\ne,bona_fide,.7\nf,attack,.2\n'


def python(*args):
  return subprocess.run(
    [sys.executable, *map(str, args)], cwd=ROOT, capture_output=True, text=True, timeout=60
  )


def run(*args):
  return score.main([str(arg) for arg in args])


@pytest.fixture
def files(tmp_path):
  (tmp_path / 'test.csv').write_text(TEST)
  (tmp_path / 'dev.csv').write_text(DEV)
  return tmp_path


def test_the_command(files):
  args = [files / 'test.csv', f'--dev={files}/dev.csv', f'--json={files}/o.json']
  done = python('-m', 'flexfas_jax.score', *args)
  assert done.returncode == 0, done.stderr
  assert done.stderr == ''
  first, heading, row = done.stdout.splitlines()
  assert first == f'{files}/test.csv: percent, threshold dev_eer on {files}/dev.csv'
  assert heading.split()[:4] == ['subset', 'ACER', 'APCER', 'BPCER']
  assert row.split()[:6] == ['score', '25.00', '0.00', '50.00', '50.00', '75.00']
  assert all(c.isprintable() or c == '\n' for c in done.stdout)
  found = json.loads((files / 'o.json').read_text())
  assert list(found) == ['score']
  assert found['score']['acer'] == 0.25
  assert found['score']['threshold'] == 0.7
  assert found['score']['apcer_max'] is None
  assert sorted(p.name for p in files.iterdir()) == ['dev.csv', 'o.json', 'test.csv']


def test_jax_is_not_imported(files):
  code = (
    'import sys; from flexfas_jax import score; code = score.main();'
    'print({"jax", "flax", "grain", "rich", "scipy"} & set(sys.modules)); sys.exit(code)'
  )
  done = python('-c', code, files / 'test.csv')
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == 'set()'


def test_a_reader_that_has_seen_enough(files):
  # With the buffer that users have: only then does the pipe break as late as at the exit.
  command = (
    f'{sys.executable} -m flexfas_jax.score {files}/test.csv | true; exit ${{PIPESTATUS[0]}}'
  )
  command = ['env', '-u', 'PYTHONUNBUFFERED', 'bash', '-c', command]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
  assert done.returncode == 0
  assert done.stderr == ''


def test_help_says_all(capsys):
  with pytest.raises(SystemExit) as end:
    run('--help')
  assert end.value.code == 0
  said = capsys.readouterr().out
  for word in ('--dev', '--threshold', '--json', '--oracle', '--debug', 'example:', 'exit codes:'):
    assert word in said
  for rule in ('dev_eer', 'dev_bpcer=1%', 'fixed=0.5'):
    assert rule in said


def test_on_a_terminal_the_table_is_drawn(files, capsys, monkeypatch):
  monkeypatch.setattr(sys.stdout, 'isatty', lambda: True)
  assert run(files / 'test.csv') == 0
  said = capsys.readouterr().out
  assert '─' in said
  assert '50.00' in said


def test_the_default_rule(files, capsys):
  for args, says in (
    ([], 'threshold fixed=0.5'),
    ([f'--dev={files}/dev.csv'], 'threshold dev_eer on'),
    (['--oracle'], 'threshold dev_eer (ORACLE'),
    ([f'--dev={files}/dev.csv', '--threshold=dev_bpcer=1%'], 'threshold dev_bpcer=1% on'),
    ([f'--dev={files}/dev.csv', '--threshold=fixed=0.3'], 'threshold fixed=0.3\n'),
  ):
    assert run(files / 'test.csv', *args) == 0
    assert says in capsys.readouterr().out


@pytest.mark.parametrize(
  ('args', 'code', 'says'),
  [
    (['absent.csv'], 3, 'absent.csv cannot be read'),
    (['test.csv', '--dev=absent.csv'], 3, 'absent.csv cannot be read'),
    (['test.csv', '--threshold=best'], 2, 'not a threshold rule'),
    (['test.csv', '--threshold=dev_eer'], 4, 'there are none'),
    (['test.csv', '--dev=test.csv'], 4, 'same list of samples'),
    (['test.csv', '--json=test.csv'], 2, 'is a score file'),
    (['test.csv', '--dev=dev.csv', '--json=./dev.csv'], 2, 'is a score file'),
    (['test.csv', '--json=absent/o.json'], 2, 'cannot be written: No such file'),
  ],
)
def test_errors_end_with_their_exit_code(files, monkeypatch, capsys, args, code, says):
  monkeypatch.chdir(files)
  assert run(*args) == code
  said = capsys.readouterr().err
  assert says in said
  assert said.startswith('error: ') and 'Traceback' not in said
  assert (files / 'test.csv').read_text() == TEST and (files / 'dev.csv').read_text() == DEV


@pytest.mark.parametrize('args', [[], ['test.csv', '--js=o'], ['test.csv', 'dev.csv', '--none']])
def test_wrong_usage(args, capsys):
  with pytest.raises(SystemExit) as end:
    run(*args)
  assert end.value.code == 2
  assert 'usage:' in capsys.readouterr().err


def test_debug_shows_the_traceback(tmp_path):
  with pytest.raises(score_files.DataError):
    run(tmp_path / 'absent.csv', '--debug')


def test_the_oracle_is_stamped(files, capsys):
  test, out = files / 'test.csv', files / 'o.json'
  for args in ([], [f'--dev={test}']):
    assert run(test, *args, '--oracle', f'--json={out}') == 0
    assert 'ORACLE' in capsys.readouterr().out
    assert json.loads(out.read_text())['score']['ORACLE'] is True


def test_results_never_replace_a_header(files, capsys):
  out = files / 'ours.json'
  ours = score_files.Scores(['a', 'b'], [1, 0], {'rgb': [0.9, 0.1]})
  score_files.write(files / 'ours.csv', ours)
  before = out.read_text()
  assert run(files / 'ours.csv', f'--json={out}') == 2
  assert 'is the header of' in capsys.readouterr().err
  assert out.read_text() == before
  # Beside a file without a header the name is free, the second time too.
  for _ in range(2):
    assert run(files / 'test.csv', f'--json={files}/test.json') == 0


def test_nan_is_counted_and_fails_and_empty_is_counted(files, capsys):
  for cell, code in (('', 0), ('nan', 3)):
    (files / 'test.csv').write_text(TEST.replace('.4', cell))
    assert run(files / 'test.csv', f'--json={files}/o.json') == code
    said = capsys.readouterr()
    assert 'score: 1 of 4 samples have no score' in said.err
    assert ('score is nan for 1 samples (the first is id b)' in said.err) == (cell == 'nan')
    assert said.out.splitlines()[2].split()[-3:] == ['2', '2', '1']
    found = json.loads((files / 'o.json').read_text())['score']
    assert (found['n_fta'], found['bpcer'], found['apcer']) == (1, 0.5, 0.5)
  (files / 'dev.csv').write_text(DEV + 'g,1,NaN\n')
  (files / 'test.csv').write_text(TEST)
  assert run(files / 'test.csv', f'--dev={files}/dev.csv') == 3
  assert 'dev.csv: score is nan' in capsys.readouterr().err


def test_swapped_polarity_is_asked_about(files, capsys):
  (files / 'test.csv').write_text('id,label,score\na,1,.1\nb,1,.2\nc,0,.9\n')
  assert run(files / 'test.csv') == 0
  assert 'polarity?' in capsys.readouterr().err


def test_one_class_is_undefined(files, capsys):
  (files / 'test.csv').write_text('id,label,score\na,1,.1\n')
  assert run(files / 'test.csv', f'--json={files}/o.json') == 0
  assert 'undefined' in capsys.readouterr().out
  assert json.loads((files / 'o.json').read_text())['score']['acer'] is None


# What is published for CASIA-SURF's validation set (Parkin and Grinchuk, CVPRW 2019): TPR at FPR
# 1e-4 of single networks, each the mean over its three folds and two views, and of the ensemble.
PUBLISHED = {
  'exp1_2stage_seed1': 0.9987,
  'exp2_seed1': 0.9870,
  'exp3b_seed1': 0.9963,
  'exp3c_seed1': 0.9933,
  'ensemble': 1.0,
}


@pytest.fixture(scope='module')
def real_files(tmp_path_factory):
  """A score file for every published figure, from the scores of 21 networks."""
  if not REAL.is_dir():
    pytest.skip(f'the scores of the real networks are not here: {REAL}')
  with (REAL / 'val_labels.csv').open(newline='') as file:
    samples = [(row['rgb'], row['label']) for row in csv.DictReader(file)]  # label 1 = live
  assert len(samples) == 9608

  def mean_of(pattern):
    """Over views, then over the files (folds of one seed) that match."""
    folds = [np.loadtxt(path, delimiter=',', skiprows=1) for path in sorted(REAL.glob(pattern))]
    assert len(folds) == 3 and folds[0].shape == (9608, 2)
    return np.mean([fold.mean(1) for fold in folds], 0)  # [9608]

  seeds = {
    'exp1_2stage': ['seed1'],
    'exp2': ['seed1', 'seed2'],
    'exp3b': ['seed1', 'seed2'],
    'exp3c': ['seed1', 'seed2'],
  }
  by_net = [
    np.mean([mean_of(f'{net}_{seed}_fold?.csv') for seed in of_net], 0)
    for net, of_net in seeds.items()
  ]
  scores = {name: mean_of(f'{name}_fold?.csv') for name in PUBLISHED if name != 'ensemble'}
  scores['ensemble'] = np.mean(by_net, 0)

  folder = tmp_path_factory.mktemp('real')
  for name, values in scores.items():
    rows = ((*sample, value) for sample, value in zip(samples, values.tolist(), strict=True))
    with (folder / f'{name}.csv').open('w', newline='') as file:
      csv.writer(file).writerows([('id', 'label', 'score'), *rows])
  return folder


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_figures_of_real_networks(real_files, name):
  out = real_files / f'{name}-results.json'
  done = python('-m', 'flexfas_jax.score', real_files / f'{name}.csv', f'--json={out}')
  assert done.returncode == 0, done.stderr
  found = json.loads(out.read_text())['score']
  assert (found['n_bona_fide'], found['n_attack'], found['n_fta']) == (2994, 6614, 0)
  assert round(found['tpr@fpr=1e-4'], 4) == PUBLISHED[name]
