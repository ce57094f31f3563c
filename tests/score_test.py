"""The score command as users call it, and the published figures of real networks through it."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from experiments.evaluation import published
from flexfas_jax import score
from flexfas_jax.evaluation import score_files

ROOT = Path(__file__).parents[1]
CASES = ROOT / 'tests' / 'cases' / 'scores'
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


@pytest.mark.smoke
def test_the_command(files):
  args = [files / 'test.csv', f'--dev={files}/dev.csv', f'--json={files}/o.json']
  done = python('-m', 'flexfas_jax.score', *args)
  assert done.returncode == 0, done.stderr
  assert done.stderr == ''
  first, heading, row = done.stdout.splitlines()[:3]
  assert '95 % intervals: bootstrap over 4 samples' in done.stdout
  assert first == f'{files}/test.csv: percent, threshold dev_eer on {files}/dev.csv'
  assert heading.split()[:5] == ['subset', 'ACER', 'APCER', 'APCER', 'max']
  assert ' '.join(row.split()).startswith('score n too small n too small undefined n too small')
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
    'slow = {"jax", "flax", "grain", "rich", "matplotlib", "scipy.stats"};'
    'print(slow & set(sys.modules)); sys.exit(code)'
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
  for word in ('--dev', '--threshold', '--json', '--oracle', '--debug', 'examples:', 'exit codes:'):
    assert word in said
  for rule in ('dev_eer', 'dev_bpcer=1%', 'fixed=0.5'):
    assert rule in said


def test_on_a_terminal_the_table_is_drawn(files, capsys, monkeypatch):
  monkeypatch.setattr(sys.stdout, 'isatty', lambda: True)
  assert run(files / 'test.csv') == 0
  said = capsys.readouterr().out
  assert '─' in said
  assert 'n too small' in said


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
    (['test.csv', '--json=test.csv'], 2, 'is an input of this command'),
    (['test.csv', '--dev=dev.csv', '--json=./dev.csv'], 2, 'is an input of this command'),
    (['test.csv', '--json=absent/o.json'], 2, 'cannot be written: no such folder'),
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


def written(path, rows, names='id,label,score'):
  path.write_text('\n'.join([names, *rows]) + '\n')
  return path


def many(prefix, n=40, away=0.0):
  """A bona fide sample and an attack for each of n people, in two videos of two frames."""
  rows = []
  for i in range(n):
    for k, label in enumerate(('bona_fide', 'attack')):
      for frame in range(2):
        score = 0.2 + 0.5 * (1 - k) + 0.3 * (((7 * i + 3 * frame + 5 * k) % 11) / 11) + away * k
        kind = ('print', 'mask')[i % 2] if k else ''
        person = f'{prefix}{i}'
        rows.append(
          f'{person}_{k}_{frame},set,{person},{person}_{k},{label},{kind},{"AB"[i % 2]},{score:.4f}'
        )
  return rows


NAMES = 'id,dataset,subject,video,label,attack_category,ethnicity,score'


def test_labels_and_polarity_of_others(files, capsys):
  test = written(files / 'theirs.csv', ['a,live,.1', 'b,live,.6', 'c,spoof,.4', 'd,spoof,.9'])
  assert run(test) == 3
  assert '--labels=live=bona_fide or --labels=live=attack' in capsys.readouterr().err
  args = [
    test,
    '--labels=live=bona_fide,spoof=attack',
    '--high_is=attack',
    f'--json={files}/o.json',
  ]
  assert run(*args) == 0
  found = json.loads((files / 'o.json').read_text())['score']
  assert (found['auc'], found['apcer'], found['bpcer']) == (0.75, 0.5, 0.5)
  assert run(test, '--labels=live=1') == 2


@pytest.mark.parametrize(
  'text',
  [
    '\ufeff' + TEST.replace('\n', '\r\n'),
    TEST.rstrip('\n'),
    TEST.replace(',', '\t'),
    TEST.replace('a,1', '脸/甲,1'),
  ],
)
def test_files_as_others_write_them(files, text, capsys):
  (files / 'test.csv').write_bytes(text.encode())
  assert run(files / 'test.csv', f'--dev={files}/dev.csv', f'--json={files}/o.json') == 0
  assert json.loads((files / 'o.json').read_text())['score']['acer'] == 0.25


@pytest.mark.parametrize('label', ['-1', 'live', '', '2'])
def test_a_label_that_is_none_is_named_by_row(files, label, capsys):
  written(files / 'test.csv', ['a,1,.9', f'b,{label},.4'])
  assert run(files / 'test.csv') == 3
  assert 'row 3' in capsys.readouterr().err


def test_people_in_both_files_are_a_leak(files, capsys):
  test = written(files / 'test.csv', many('t'), NAMES)
  dev = written(files / 'dev.csv', [*many('d'), *many('t', 2)[:1]], NAMES)
  assert run(test, f'--dev={dev}') == 3
  said = capsys.readouterr().err
  assert 'leak-subject: subject set/t0' in said and '--accept_known_leaks' in said
  assert run(test, f'--dev={dev}', '--threshold=fixed=0.5', '--accept_known_leaks=nothing') == 2


def test_against_others(files, capsys):
  test = written(files / 'ours.csv', many('t'), NAMES)
  dev = written(files / 'ours_dev.csv', many('d'), NAMES)
  worse = written(files / 'theirs.csv', many('t', away=0.3)[::-1], NAMES)
  worse_dev = written(files / 'theirs_dev.csv', many('d', away=0.3), NAMES)
  args = [test, f'--dev={dev}', f'--against={worse}', f'--against_dev={worse_dev}']
  assert run(*args, f'--json={files}/o.json') == 0
  assert 'theirs differs from ours in one run: ACER higher by ' in capsys.readouterr().out
  found = json.loads((files / 'o.json').read_text())
  assert found['theirs: score']['against']['ours: score']['acer']['difference'] > 0
  assert run(test, f'--dev={dev}', f'--against={worse}') == 2
  assert '--against_dev' in capsys.readouterr().err
  written(files / 'theirs.csv', many('t')[1:], NAMES)
  assert run(test, f'--against={worse}', '--bootstrap=0') == 3
  assert 'lacks 1 ids that' in capsys.readouterr().err


def run_files(folder, name, n, away=0.0):
  """(scores of runs, development scores of runs), comma-separated."""
  rng = np.random.default_rng(len(name))
  paths = [], []
  for i in range(n):
    for which, of in zip('td', paths, strict=True):
      cells = [row.rpartition(',') for row in many(which, away=away)]
      noise = 0.1 * rng.standard_normal(len(cells))
      scores = np.clip([float(score) for _, _, score in cells] + noise, 0, 1)
      rows = [f'{row},{score:.4f}' for (row, _, _), score in zip(cells, scores, strict=True)]
      of.append(written(folder / f'{name}_{which}{i}.csv', rows, NAMES))
  return tuple(','.join(map(str, of)) for of in paths)


def test_runs_of_two_methods(files, capsys):
  ours, ours_dev = run_files(files, 'ours', 3)
  theirs, theirs_dev = run_files(files, 'theirs', 3, away=0.3)
  args = [ours, f'--dev={ours_dev}', f'--against=Their method={theirs}', '--bootstrap=200']
  args += [f'--against_dev={theirs_dev}', f'--json={files}/o.json']
  assert run(*args) == 0
  said = capsys.readouterr().out
  assert 'Their method is worse than ours_t: ACER higher by ' in said and 'one run' not in said
  found = json.loads((files / 'o.json').read_text())
  assert found['ours_t: score']['runs'] == 3
  against = found['Their method: score']['against']['ours_t: score']
  assert against['verdict'] == 'worse' and against['runs'] == {'a': 3, 'b': 3, 'paired': False}
  thresholds = {found[f'ours_t run {i}: score']['threshold'] for i in (1, 2, 3)}
  assert len(thresholds) == 3  # each has its own
  low, high = against['acer']['interval']
  assert run(*args, '--paired_runs') == 0
  paired = json.loads((files / 'o.json').read_text())['Their method: score']['against']
  assert paired['ours_t: score']['runs']['paired']
  assert paired['ours_t: score']['acer']['interval'] != [low, high]
  capsys.readouterr()
  assert run(*args, '--paired_runs') == 0  # the same once more
  again = json.loads((files / 'o.json').read_text())['Their method: score']['against']
  assert again == paired


def test_runs_of_one_method_and_what_is_refused(files, capsys):
  ours, dev = run_files(files, 'ours', 2)
  a, b = ours.split(',')
  args = [f'm={ours}', f'--dev={dev}', '--bootstrap=50', f'--report={files}/o.html']
  assert run(*args) == 0
  assert 'means over training runs' in capsys.readouterr().out
  assert 'mean of 2 training runs' in (files / 'o.html').read_text()
  written(files / 'less.csv', many('t')[1:], NAMES)
  for args, code, says in (
    ([ours, f'--dev={a}'], 2, 'has 2 runs and 1 development files'),
    ([f'{a},{a}'], 2, 'names one file twice'),
    ([f'{a},{files}/less.csv'], 3, f'{files}/less.csv lacks 1 ids that {a} has (the first is '),
    ([ours, f'--against={files}/less.csv', '--paired_runs'], 2, 'the same number of runs'),
    ([f'{a},{files}/none.csv'], 3, 'none.csv cannot be read'),
    ([ours, f'--json={b}'], 2, 'is an input of this command'),
  ):
    assert run(*args) == code, args
    assert says in capsys.readouterr().err
  (files / 'copy.csv').write_bytes(Path(a).read_bytes())
  assert run(f'{a},{files}/copy.csv') == 3
  assert 'are one training run' in capsys.readouterr().err


def test_a_file_name_with_an_equals_sign_or_a_comma_is_a_file(files, capsys):
  for name in ('lr=3e-4.csv', 'a,b.csv'):
    (files / name).write_text(TEST)
    assert run(files / name) == 0
    assert f'{files / name}: percent' in capsys.readouterr().out


def test_videos_groups_and_no_bootstrap(files, capsys):
  test = written(files / 'test.csv', many('t'), NAMES)
  assert (
    run(test, '--by_video', '--group_by=ethnicity', '--bootstrap=0', '--json', files / 'o.json')
    == 0
  )
  said = capsys.readouterr().out
  assert 'Clopper-Pearson over samples' in said and 'by ethnicity, score' in said
  found = json.loads((files / 'o.json').read_text())['score']
  assert (found['n_bona_fide'], found['n_attack']) == (40, 40)
  assert found['groups']['ethnicity']['bpcer']['ethnicity=A']['n'] == 20
  with pytest.raises(SystemExit):
    run(test, '--by_video=mode')
  assert run(test, '--bootstrap=-1') == 2


def test_columns_of_another_file(files, capsys):
  test = written(files / 'test.csv', many('t'), NAMES)
  rows = [f'{row.split(",")[0]},{"lamp" if i % 3 else "sun"}' for i, row in enumerate(many('t'))]
  columns = written(files / 'columns.csv', rows, 'id,lighting')
  assert run(test, f'--columns={columns}', '--group_by=lighting', '--bootstrap=50') == 0
  assert 'by lighting, score' in capsys.readouterr().out
  assert run(test, '--group_by=lighting') == 2
  assert 'no such column of text' in capsys.readouterr().err
  written(columns, ['nobody,lamp'], 'id,lighting')
  assert run(test, f'--columns={columns}', '--group_by=lighting') == 3
  written(columns, ['a'], 'id,lighting')
  assert run(test, f'--columns={columns}') == 3
  assert 'row 2: 1 cells' in capsys.readouterr().err


def test_redundant_rows_count_once_and_both_figures_are_reported(files, capsys):
  rows = [*(f'a{i},1,.9' for i in range(29)), 'b,1,.1', 'b#2,1,.1']
  rows += [f'c{i},0,.2' for i in range(29)]
  assert run(written(files / 'test.csv', rows), f'--json={files}/o.json') == 0
  said = capsys.readouterr().err
  assert '1 redundant rows' in said and 'counting them as published: ACER 3.23' in said
  assert json.loads((files / 'o.json').read_text())['score']['acer'] == pytest.approx(1 / 60)
  assert run(written(files / 'test.csv', rows[:-1])) == 0
  assert 'ACER n too small, APCER n too small, BPCER 6.45' in capsys.readouterr().err


def rates(*args):
  """{metric: value} of the only subset, by --json."""
  with tempfile.TemporaryDirectory() as folder:
    assert run(*args, '--bootstrap=0', f'--json={folder}/o.json') == 0
    found = json.loads(Path(folder, 'o.json').read_text())
  return next(iter(found.values()))


@pytest.mark.parametrize('name', ['video', 'order_up', 'order_down'])
def test_rounding_decides_nothing_at_a_threshold(name, capsys):
  folder = CASES / 'rounding-at-threshold'
  for args in (['--threshold=fixed=0.7'], [f'--dev={folder}/dev_single.csv']):
    found = rates(folder / f'{name}.csv', '--by_video', *args)
    assert (found['bpcer'], found['apcer'], found['threshold']) == (0, 0, 0.7)


def test_a_share_in_percent_is_the_same_share(capsys):
  folder = CASES / 'dev-bpcer-share'
  for share in ('0.7%', '0.007'):
    found = rates(folder / 'test.csv', f'--dev={folder}/dev.csv', f'--threshold=dev_bpcer={share}')
    assert (found['threshold'], found['apcer'], found['bpcer']) == (0.37, 0, 0.007)


RATES = ('acer', 'apcer', 'bpcer', 'eer', 'auc', 'tpr@fpr=1e-2', 'tpr@fpr=1e-3', 'bpcer@apcer=1%')


def test_small_probabilities_of_attack_are_not_merged(capsys):
  folder = CASES / 'high-is-attack-tiny'
  found = rates(folder / 'test.csv', f'--dev={folder}/dev.csv', '--high_is=attack')
  other = rates(folder / 'test_negated.csv', f'--dev={folder}/dev_negated.csv')
  assert (found['auc'], found['eer'], found['tpr@fpr=1e-3']) == (1, 0, 1)
  assert {name: found[name] for name in RATES} == {name: other[name] for name in RATES}
  assert found['threshold'] == other['threshold'] < 0
  assert found['scale'] == 'attack_probability'
  assert 'negated probabilities of attack' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('threshold', 'bpcer'), [('0.1', 0), ('0.0999', 0), ('0.1000001', 1), ('1', 1), ('0', 0)]
)
def test_a_fixed_threshold_is_exact_where_high_is_attack(threshold, bpcer, capsys):
  path = CASES / 'rounding-at-threshold' / 'attackscale.csv'
  found = rates(path, '--high_is=attack', f'--threshold=fixed={threshold}')
  assert found['bpcer'] == bpcer
  assert found['threshold'] == float(Decimal(threshold) - 1)


@pytest.mark.parametrize(
  ('name', 'options'),
  [
    ('percent', ['--scale=percent']),
    ('logit', ['--scale=logit']),
    ('attack_percent', ['--scale=percent', '--high_is=attack']),
    ('inverted', ['--high_is=attack']),
    ('inverted', ['--high_is=attack', '--scale=probability']),
    ('prob', ['--scale=probability']),
  ],
)
@pytest.mark.parametrize('threshold', [None, '0.3'])
def test_scores_on_another_scale_have_the_same_figures(name, options, threshold, capsys):
  folder, more = CASES / 'percent-logits-default', []
  if threshold:
    more = [f'--threshold=fixed={threshold}']
  found = rates(folder / f'{name}.csv', *options, *more)
  expected = rates(folder / 'prob.csv', *more)
  assert {n: found[n] for n in RATES} == {n: expected[n] for n in RATES}


@pytest.mark.parametrize(
  ('name', 'says'),
  [
    ('percent', 'row 2: score of p0 is 22.822183385994514, outside [0, 1], as are 200 of its 200'),
    ('byte', 'row 2: score of p0 is 58.0, outside [0, 1]'),
    ('logit', 'row 2: score of p0 is -1.2183790477063887, outside [0, 1]'),
    ('cosine', 'row 2: score of p0 is -0.5435563322801098, outside [0, 1]'),
  ],
)
def test_scores_outside_0_and_1_have_no_default_threshold(name, says, capsys):
  path = CASES / 'percent-logits-default' / f'{name}.csv'
  assert run(path) == 3
  said = capsys.readouterr()
  assert f'{path}, {says}' in said.err and 'the threshold is the default, fixed=0.5' in said.err
  assert all(
    way in said.err for way in ('--scale=percent', '--scale=logit', '--dev', '--threshold')
  )
  assert not said.out
  assert run(path, '--threshold=fixed=0.3', '--bootstrap=0') == 0
  assert run(CASES / 'percent-logits-default' / 'prob.csv', f'--against={path}') == 3
  assert f'{path}, row 2' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('name', 'options', 'code', 'says'),
  [
    ('logit', ['--scale=probability'], 3, 'outside [0, 1]'),
    ('byte', ['--scale=percent'], 3, 'outside [0, 100]'),
    ('attack_percent', ['--high_is=attack', '--threshold=fixed=0.3'], 3, 'p0 is 77.17781661400548'),
    ('logit', ['--scale=logit', '--threshold=fixed=1'], 2, 'a threshold is a probability'),
    ('percent', ['--scale=percent', '--threshold=fixed=70'], 2, 'a threshold is a probability'),
    ('prob', ['--threshold=fixed=70'], 2, 'rejects everything'),
    ('prob', ['--threshold=fixed=-0.5'], 2, 'accepts everything'),
  ],
)
def test_a_threshold_on_another_scale_is_refused(name, options, code, says, capsys):
  assert run(CASES / 'percent-logits-default' / f'{name}.csv', *options) == code
  assert says in capsys.readouterr().err


def test_a_threshold_beyond_all_scores_is_reported(files, capsys):
  (files / 'x.csv').write_text('id,label,score\na,1,30\nb,0,20\n')
  assert run(files / 'x.csv', '--threshold=fixed=0.5') == 0
  assert 'the threshold 0.5 accepts all of the scores, which are from 20 to 30' in (
    capsys.readouterr().err
  )
  assert run(files / 'x.csv', '--threshold=fixed=70') == 0
  assert 'accepts none of the scores' in capsys.readouterr().err
  assert run(files / 'x.csv', '--threshold=fixed=25') == 0
  assert not capsys.readouterr().err


def test_logits_that_are_1_in_float64_are_not_merged(files, capsys):
  (files / 'x.csv').write_text('id,label,score\na,1,50\nb,1,45\nc,0,40\nd,0,-50\n')
  found = rates(files / 'x.csv', '--scale=logit', '--threshold=fixed=0.9')
  assert (found['auc'], found['apcer']) == (1, 0.5)
  assert found['threshold'] == pytest.approx(2.1972245773362196, rel=1e-15)


def test_dev_on_another_scale_is_refused_and_systems_may_differ(tmp_path, capsys):
  label = [1, 0] * 20
  share = np.linspace(0.1, 0.9, 40)
  for name, values, scale in (('p', share, ''), ('q', 100 * share, 'percent')):
    for part in ('t', 'd'):
      ids = [f'{part}{i}' for i in range(40)]
      of = score_files.Scores(ids, label, {'score': values}, scale=scale)
      score_files.write(tmp_path / f'{name}{part}.csv', of)
  p, q, pd, qd = (tmp_path / f'{name}.csv' for name in ('pt', 'qt', 'pd', 'qd'))
  assert run(p, f'--dev={qd}') == 4
  assert 'are on different scales (percent and not stated)' in capsys.readouterr().err
  assert run(p, f'--dev={pd}', f'--against={q}', f'--against_dev={qd}', '--bootstrap=0') == 0
  assert run(p, f'--against={q}', '--bootstrap=0', f'--json={tmp_path}/o.json') == 0
  assert 'qt: score: scores and thresholds are in percent' in capsys.readouterr().err
  [ours, theirs] = json.loads((tmp_path / 'o.json').read_text()).values()
  assert (ours['threshold'], theirs['threshold']) == (0.5, 50)
  assert ours['acer'] == theirs['acer'] and theirs['scale'] == 'percent'


def test_the_references_conventions_under_their_names(files, capsys):
  assert (
    run(files / 'test.csv', f'--dev={files}/dev.csv', '--conventions', f'--json={files}/o.json')
    == 0
  )
  assert 'flex_modal_fas/acer' in capsys.readouterr().out
  found = json.loads((files / 'o.json').read_text())['score']
  # At .7, dev's EER: 'a' alone is above it, and so it is by our rule.
  assert found['flex_modal_fas/bpcer'] == 0.5 and found['mm_fas/ORACLE_least_acer'] == 0.25


def test_tables_for_papers(files):
  test = written(files / 'test.csv', many('t'), NAMES)
  assert run(test, f'--markdown={files}/o.md', f'--latex={files}/o.tex', '--bootstrap=20') == 0
  assert (files / 'o.md').read_text().startswith('**test: 80 bona fide, 80 attacks')
  assert r'\toprule' in (files / 'o.tex').read_text()


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
  folder = tmp_path_factory.mktemp('real')
  published.write(REAL, folder)
  return folder


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_figures_of_real_networks(real_files, name):
  out = real_files / f'{name}-results.json'
  done = python('-m', 'flexfas_jax.score', real_files / f'{name}.csv', f'--json={out}')
  assert done.returncode == 0, done.stderr
  found = json.loads(out.read_text())['score']
  assert (found['n_bona_fide'], found['n_attack'], found['n_fta']) == (2994, 6614, 0)
  assert round(found['tpr@fpr=1e-4'], 4) == PUBLISHED[name]


def test_the_ensemble_and_its_best_member_are_not_distinguished(real_files):
  """One bona fide sample against five attacks of 9,608 may be chance."""
  out = real_files / 'against.json'
  done = python(
    *('-m', 'flexfas_jax.score', real_files / 'ensemble.csv'),
    *(f'--against={real_files}/exp1_2stage.csv', '--threshold=fixed=0.932107', f'--json={out}'),
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(out.read_text())['exp1_2stage: score']['against']['ensemble: score']
  assert found['verdict'] == 'no significant difference'
  assert found['attacks'] == {'only_a_correct': 5, 'only_b_correct': 0, 'p': 0.0625}
  assert (found['bona_fide']['only_a_correct'], found['bona_fide']['only_b_correct']) == (0, 1)


def test_our_header_decides_what_high_means(tmp_path, capsys):
  """A file of ours, compared with one whose high scores are of attacks, is not turned round."""
  theirs, ours = tmp_path / 'theirs.csv', tmp_path / 'ours.csv'
  ours.write_text(TEST)
  score_files.write(ours, score_files.read(ours))
  theirs.write_text('id,label,score\na,1,.1\nb,1,.6\nc,0,.4\nd,0,.9\n')
  out = tmp_path / 'o.json'
  assert run(theirs, f'--against={ours}', '--high_is=attack', f'--json={out}') == 0
  assert {k: v['auc'] for k, v in json.loads(out.read_text()).items()} == {
    'theirs: score': 0.75,
    'ours: score': 0.75,
  }
  assert 'its header states that a high score means bona fide' in capsys.readouterr().err


def test_a_pipe_that_nobody_reads_loses_no_file(tmp_path):
  (tmp_path / 'nan.csv').write_text(TEST.replace('.9', 'nan'))
  (tmp_path / 'test.csv').write_text(TEST)
  for name, code in (('test', 0), ('nan', 3)):
    out = tmp_path / f'{name}.json'
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
      [sys.executable, '-u', '-m', 'flexfas_jax.score', tmp_path / f'{name}.csv', f'--json={out}'],
      cwd=ROOT,
      stdout=writer,
      stderr=subprocess.PIPE,
      text=True,
      timeout=60,
    )
    os.close(writer)
    assert done.returncode == code, done.stderr
    assert 'Traceback' not in done.stderr
    assert json.loads(out.read_text())['score']['n_attack'] == 2


@pytest.mark.parametrize('to, code', [('>&-', 0), ('>/dev/full', 2)])
def test_output_that_cannot_be_written_is_no_traceback(tmp_path, to, code):
  if not os.path.exists('/dev/full'):
    pytest.skip('no /dev/full here')
  (tmp_path / 'test.csv').write_text(TEST)
  command = (
    f'{sys.executable} -m flexfas_jax.score {tmp_path}/test.csv --json={tmp_path}/o.json {to}'
  )
  done = subprocess.run(
    command, shell=True, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=60
  )
  assert (done.returncode, 'Traceback' in done.stderr) == (code, False), done.stderr
  assert json.loads((tmp_path / 'o.json').read_text())['score']['auc'] == 0.75


@pytest.mark.parametrize(
  'options, reason',
  [
    (['--against_dev=DEV'], 'needs --dev'),
    (['--against=OTHER'], 'names one file twice'),
    (['--seed=-1'], 'must not be negative'),
    (['--json=same', '--markdown=same'], 'are the same file'),
    (['--threshold=fixed=0_5'], 'not a threshold rule'),
    (['--dev=DEV', '--threshold=dev_bpcer=0_1%'], 'not a threshold rule'),
    (['--threshold=fixed=٠.٥'], 'not a threshold rule'),
    (['--group_by=light'], 'ethnicity, age, and'),
  ],
)
def test_odd_options_are_refused(tmp_path, monkeypatch, capsys, options, reason):
  monkeypatch.chdir(tmp_path)
  for name, text in (('t', TEST), ('OTHER', TEST), ('DEV', DEV)):
    Path(name).write_text(text.replace('\n', ',1\n').replace('score,1', 'score,age'))
  assert run('t', '--against=OTHER', *options) == 2
  assert reason in capsys.readouterr().err
  assert not Path('same').exists()


def test_what_is_no_file_is_refused_or_written_to(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  assert run('.') == 3
  assert capsys.readouterr().err == 'error: . cannot be read: Is a directory\n'
  Path('t.csv').write_text(TEST)
  Path('c.csv').write_text('id,light\n')
  assert run('t.csv', '--columns=c.csv') == 3
  assert 'c.csv is empty' in capsys.readouterr().err
  os.mkfifo('pipe')
  reader = os.open('pipe', os.O_RDONLY | os.O_NONBLOCK)
  assert run('t.csv', '--json=pipe', '--bootstrap=0', '--threshold=fixed=0.5') == 0
  assert json.loads(os.read(reader, 1 << 20))['score']['auc'] == 0.75
  os.close(reader)
  assert Path('pipe').is_fifo()  # and not replaced


def test_a_file_name_that_is_no_utf_8(tmp_path):
  name = os.fsencode(tmp_path) + b'/b\xff.csv'
  try:
    with open(name, 'w') as file:
      file.write(TEST)
  except OSError:
    pytest.skip('this file system has no such names')
  outs = [f'--{kind}={tmp_path}/o.{kind}' for kind in ('json', 'report', 'markdown', 'latex')]
  assert run(os.fsdecode(name), *outs) == 0
  assert len(list(tmp_path.glob('o.*'))) == 4


def test_attack_scale_accepts_nobody_who_is_less_probable(tmp_path, capsys):
  """A threshold of 1e-20 - 1 is -1 in float64, and 1 - 1 is less than 1e-20."""
  (tmp_path / 't.csv').write_text('id,label,score\na,1,.1\nb,0,1\nc,0,.7\n')
  for threshold, apcer in (('1e-20', 0.5), ('0', 1.0), ('0.3', 0.5), ('0.30000000000000004', 0)):
    args = [f'--threshold=fixed={threshold}', '--high_is=attack', f'--json={tmp_path}/o.json']
    assert run(tmp_path / 't.csv', *args) == 0
    assert json.loads((tmp_path / 'o.json').read_text())['score']['apcer'] == apcer, threshold


def test_the_order_of_rows_changes_no_interval(tmp_path, capsys):
  rows = [f'{i},{i % 2},{(i * 37 % 60 + 20 * (i % 2)) / 100}\n' for i in range(60)]
  found = []
  for order in (rows, rows[::-1]):
    (tmp_path / 't.csv').write_text('id,label,score\n' + ''.join(order))
    assert run(tmp_path / 't.csv', '--bootstrap=50', f'--json={tmp_path}/o.json') == 0
    found.append((capsys.readouterr().out, (tmp_path / 'o.json').read_text()))
  assert found[0] == found[1]


def test_no_figure_of_few_subjects_in_comparisons_and_references(tmp_path, capsys):
  """36 frames of 4 subjects in each class."""
  text = 'id,label,subject,rgb,rgb+depth,unusable\n' + ''.join(
    f'{i},{i % 2},s{i % 8},{i % 7 / 10},{i % 2},{"depth" if i < 9 else ""}\n' for i in range(72)
  )
  (tmp_path / 't.csv').write_text(text)
  page = tmp_path / 'o.html'
  args = ['--reference_metrics', '--bootstrap=50', f'--report={page}', f'--json={tmp_path}/o.json']
  assert run(tmp_path / 't.csv', *args) == 0
  out, err = capsys.readouterr()
  assert 'are not compared: n too small' in out + err
  assert 'McNemar' not in out + err
  for line in out.splitlines():
    if line.startswith(('flex_modal_fas/', 'mm_fas/')) and 'threshold' not in line:
      assert line.count('n too small') == 2, line
  found = json.loads((tmp_path / 'o.json').read_text())
  assert found['rgb+depth']['against']['rgb']['verdict'] == 'no significant difference'
  assert 'are not compared: n too small' in page.read_text()


@pytest.mark.parametrize('column', ['attack_type', 'attack_category', 'ethnicity'])
def test_two_spellings_of_a_species_or_group_are_one(tmp_path, column):
  names = ['Zo\u00eb', 'Zoe\u0308', ' Zo\u00eb\u00a0', 'other']
  text = f'id,label,{column},video,score\n' + ''.join(
    f'{i},0,{names[i % 4]},v{i % 4 == 3},.{i % 10}\n' for i in range(80)
  )
  (tmp_path / 't.csv').write_text(text + 'b,1,,w,.9\n')
  args = [f'--group_by={column}'] if column == 'ethnicity' else []
  args += ['--bootstrap=0', f'--json={tmp_path}/o.json']
  assert run(tmp_path / 't.csv', *args) == 0
  found = json.loads((tmp_path / 'o.json').read_text())['score']
  if column == 'ethnicity':
    groups = {n for rate in found['groups'][column].values() for n in rate if '=' in n}
    assert groups == {'ethnicity=Zo\u00eb', 'ethnicity=other'}
  else:
    assert found['n_attack/Zo\u00eb'] == 60 and found['n_attack/other'] == 20
    assert run(tmp_path / 't.csv', '--by_video', '--bootstrap=0') == 0


def test_videos_of_one_name_in_dev_and_test_are_not_the_same_list(tmp_path, capsys):
  """Of one subject in each file: without other videos of the name, a video's id is the name."""
  for name in ('dev', 'test'):
    rows = [f'{name}{i},{i % 2},v{i % 6},{name}-anna,.{1 + i % 9}\n' for i in range(36)]
    (tmp_path / f'{name}.csv').write_text('id,label,video,subject,score\n' + ''.join(rows))
  dev = f'--dev={tmp_path}/dev.csv'
  assert run(tmp_path / 'test.csv', dev, '--by_video', '--bootstrap=0') == 0
  (tmp_path / 'dev.csv').write_text((tmp_path / 'test.csv').read_text())
  assert run(tmp_path / 'test.csv', dev, '--bootstrap=0') == 4
  assert 'are the same list of samples' in capsys.readouterr().err


def test_a_requirement_on_an_unknown_attack_lists_those_of_the_scores(files, capsys):
  rows = [f'{i},{i % 2},{i % 2},s{i},{"" if i % 2 else "ab"[i % 4 // 2]}' for i in range(120)]
  head = 'id,label,score,subject,attack_type'
  (files / 'many.csv').write_text('\n'.join([head, *rows]) + '\n')
  for required in ('apcer/c<=5%', 'apcr<=5%', 'apcer_species/a<=5%'):
    assert run(files / 'many.csv', f'--pass_if={required}') == 2
    assert 'apcer/a, apcer/b' in capsys.readouterr().err
  assert run(files / 'many.csv', '--pass_if=apcer/a<=50%') == 0


def test_a_description_that_no_output_would_state_is_refused(files, capsys):
  (files / 'test.toml').write_text('[test]\nplace = "Room 12"\n')
  args = [files / 'test.csv', f'--test_toml={files}/test.toml']
  assert run(*args) == 2
  assert '--test_toml requires --report or --record' in capsys.readouterr().err
  assert run(*args, f'--record={files}/o.json') == 0
  assert 'Room 12' in (files / 'o.json').read_text()


def test_a_requirement_and_its_exit_code(files, capsys):
  """0 of 60 errors: the exact limit is 5.96 %. FAIL is a result: exit code 0, or that given."""
  rows = [f'{i},{i % 2},{i % 2},s{i}' for i in range(120)]
  (files / 'many.csv').write_text('\n'.join(['id,label,score,subject', *rows]) + '\n')
  args = [files / 'many.csv', '--bootstrap=200', f'--json={files}/o.json']
  args += [f'--markdown={files}/o.md']
  for required, code, word in (('bpcer<=6%', 0, 'PASS'), ('bpcer<=5%', 10, 'FAIL')):
    assert run(*args, f'--pass_if={required}', '--fail_exit=10') == code
    assert run(*args, f'--pass_if={required}') == 0
    first, reason = capsys.readouterr().out.splitlines()[:2]
    assert first.startswith(f'{word} (BPCER at most {required[-2]} %; compared are the limits')
    assert 'score: BPCER up to 5.96 % (interval over samples, exact)' in reason.replace(
      '6.0', '5.96'
    )
    assert json.loads((files / 'o.json').read_text())['score']['pass_if']['passed'] == (not code)
    assert (files / 'o.md').read_text().startswith(f'**{word} (')
  for wrong in ('--pass_if=bpcer', '--fail_exit=10', '--pass_if=', '--pass_if= '):
    assert run(*args, wrong) == 2
  assert run(*args, '--pass_if=bpcer<=5%', '--fail_exit=3') == 2
  assert 'from 6 to 63' in capsys.readouterr().err


def test_warnings_of_the_data_come_first(files, capsys):
  scores = score_files.read(files / 'test.csv')
  header = {'notes': ['a leak was accepted: surf'], 'rendered': True}
  score_files.write(files / 'test.csv', dataclasses.replace(scores, header=header))
  assert run(files / 'test.csv', f'--markdown={files}/o.md') == 0
  assert capsys.readouterr().out.startswith('WARNING: a leak was accepted: surf\n')
  first, _, second = (files / 'o.md').read_text().splitlines()[:3]
  assert first.startswith('> **RENDERED images') and second == '> **a leak was accepted: surf**'


def test_a_record_with_what_a_laboratory_states(files, capsys):
  rows = [f'{i},{i % 2},{i % 2},s{i},{"" if i % 2 else "paper"}' for i in range(120)]
  text = 'id,label,score,subject,attack_type\n' + '\n'.join(rows) + '\n'
  (files / 'many.csv').write_text(text)
  (files / 'test.toml').write_text('[test]\noperator = "Z"\n[species.paper]\nsource = "a shop"\n')
  outputs = [f'--record={files}/r.json', f'--report={files}/r.html']
  args = [files / 'many.csv', '--bootstrap=0', f'--test_toml={files}/test.toml', *outputs]
  assert run(*args) == 0
  found = json.loads((files / 'r.json').read_text())
  assert found['description']['test'] == {'operator': 'Z'}
  assert found['tests'][0]['species'][0]['source'] == 'a shop'
  page = (files / 'r.html').read_text()
  assert 'Operator: Z' in page and 'source: a shop' in page
  (files / 'test.toml').write_text('[species.papr]\n')
  assert run(*args) == 3
  assert '[species."papr"] is no species of the scores; they have: paper' in capsys.readouterr().err
