"""`flexfas compare`: its tables and files, marks, and exit codes."""

import csv
import json
import pathlib
import re
import types

import numpy as np
import pytest

from flexfas_jax import compare
from flexfas_jax.evaluation import score_files, trained_runs
from tests.evaluation.leaderboard_test import SUBSETS, write_run

TARGETS = ('mmdg_1_cps_w', 'mmdg_1_cpw_s')


@pytest.fixture
def folders(tmp_path):
  """Two methods with two runs each, of rendered images."""
  skills = {'ours': 1.6, 'base': 0.5}
  return [
    str(write_run(tmp_path / f'{name}_seed{i}', i, skill, header={'rendered': True}))
    for name, skill in skills.items()
    for i in (1, 2)
  ]


def run(capsys, *arguments):
  code = compare.main([*arguments, '--bootstrap=50'])
  return code, *capsys.readouterr()


def test_the_leaderboard_states_that_images_are_rendered(capsys, folders, tmp_path):
  files = {name: tmp_path / f'out.{name}' for name in ('markdown', 'csv', 'latex', 'latex_rows')}
  code, out, err = run(capsys, *folders, *(f'--{name}={path}' for name, path in files.items()))
  assert code == 0, err
  headline, *lines = out.splitlines()
  assert headline.startswith('ACER, percent: 2 methods, 4 runs, 1 test, 2 blocks in the means, fr')
  assert '(RENDERED images: no figure is comparable with photographs)' in headline
  table = lines[lines.index(next(line for line in lines if line.startswith('method  '))) :][:3]
  assert [line.split()[:2] for line in table] == [['method', 'runs'], ['ours', '2'], ['base', '2']]
  assert re.search(r'base against ours +\+\d+\.\d\d \[.*\] ', out)
  assert "Nemenyi's critical difference at 0.05 is" in out and 'Friedman' in out
  assert 'note: two runs give very wide intervals: ours, base' in err
  for name in ('markdown', 'latex'):
    assert 'RENDERED' in files[name].read_text() and 'ours' in files[name].read_text()
  assert files['markdown'].read_text().count('| ours | 2 |') == 1
  assert files['latex'].read_text().count(r'\toprule') == out.count('\n\n') - 1
  rows = list(csv.DictReader(files['csv'].read_text().splitlines()))
  assert {row['marks'] for row in rows if row['metric'] == 'acer'} == {'RENDERED'}
  assert {r['marks'] for r in rows if r['metric'] == 'hter_at_test_eer'} == {'ORACLE RENDERED'}
  means = [r for r in rows if not r['test'] and r['metric'] == 'acer']
  assert [(r['method'], r['runs'], r['rank']) for r in means] == [
    ('ours', '2', '1.0'),
    ('base', '2', '2.0'),
  ]
  for mean in means:
    of = [
      float(r['value'])
      for r in rows
      if r['method'] == mean['method'] and r['subset'] in SUBSETS and r['metric'] == 'acer'
    ]
    assert len(of) == 2 and float(mean['value']) == pytest.approx(sum(of) / 2)
    assert f'{100 * float(mean["value"]):.2f} [' in table[1 + means.index(mean)]


def test_an_oracle_metric_marks_every_output(capsys, folders, tmp_path):
  code, out, _ = run(capsys, *folders, '--metric=hter_at_test_eer')
  assert code == 0
  assert 'ORACLE: the thresholds were fitted on the evaluated scores' in out.splitlines()[0]
  assert run(capsys, *folders, '--metric=hter')[1].count('ORACLE') == 0


@pytest.mark.parametrize('rows', ['', 'cleaned', 'published'])
def test_rows_for_a_published_table(capsys, tmp_path, rows):
  """Each states its rows, its threshold, and the oracle; the cells are the figures of the CSV."""
  for target in TARGETS:
    protocol = f'{target}(rows={rows})' if rows else target
    for seed in (0, 1):
      write_run(tmp_path / f'm_{target}_{seed}', seed, 1.0, ('test',), ('rgb+depth+ir',),
                protocol=protocol, model={'absent': 'blank'})  # fmt: skip
  folders = [str(path) for path in sorted(tmp_path.glob('m_*'))]
  files = [f'--csv={tmp_path}/a.csv', f'--latex_rows={tmp_path}/a.tex', '--by_video']
  code, out, err = run(capsys, *folders, '--name=a_b=m_*', *files)
  assert code == 0, err
  assert 'videos' in out.splitlines()[0]
  text = (tmp_path / 'a.tex').read_text()
  comments = [line for line in text.splitlines() if line.startswith('%')]
  honest, oracle = (line for line in text.splitlines() if not line.startswith('%'))
  kind = rows or 'cleaned'
  assert honest.startswith(rf'a\_b ({kind} rows, videos, dev\_eer) & ')
  assert oracle.startswith(rf'a\_b ({kind} rows, videos, ORACLE) & ')
  assert any('Cleaned rows: ' in line for line in comments) == (kind == 'cleaned')
  assert any('(config.model.absent): a_b: blank.' in line for line in comments)
  assert any('also choose the epoch on the test' in line for line in comments)
  protocols = [f'{target}(rows={rows})' if rows else target for target in TARGETS]
  blocks = '; '.join(f'{protocol}: test, rgb+depth+ir' for protocol in protocols)
  assert comments[0] == f'% HTER and AUC, percent, of: {blocks}; mean'
  found = list(csv.DictReader((tmp_path / 'a.csv').read_text().splitlines()))
  for line, metric in ((honest, 'hter'), (oracle, 'hter_at_test_eer')):
    cells = line.removesuffix(r' \\').split(' & ')[1:]
    of = {(r['protocol'], r['metric']): f'{100 * float(r["value"]):.2f}' for r in found}
    assert cells == [of[p, m] for p in (*protocols, '') for m in (metric, 'auc')]


def test_a_row_of_the_least_of_all_test_evaluations(capsys, tmp_path):
  """By hand, from metrics.jsonl of two runs; only where every run has it."""
  for seed in (0, 1):
    folder = write_run(tmp_path / f'm_{seed}', seed, 1.0, ('test',), SUBSETS[:1])
    name = f'oracle/test/{SUBSETS[0]}/hter_at_test_eer'
    rows = [{'step': step, name: (step + seed) / 100} for step in (30, 10, 20)]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  folders = [str(tmp_path / f'm_{seed}') for seed in (0, 1)]
  file = tmp_path / 'a.tex'
  code, _, err = run(capsys, *folders, f'--latex_rows={file}')
  assert code == 0, err
  *_, oracle, least = file.read_text().splitlines()
  assert '(ORACLE) &' in oracle
  assert least == r'm (ORACLE, least of 3 evaluations) & 10.50 & - \\'
  (tmp_path / 'm_1' / 'metrics.jsonl').unlink()
  assert run(capsys, *folders, f'--latex_rows={file}')[0] == 0
  assert 'least' not in file.read_text()


def test_tests_that_are_not_compared_need_no_scores(capsys, folders):
  for folder in map(pathlib.Path, folders):
    config = json.loads((folder / 'config.json').read_text())
    config['test']['more'], config['threshold']['more'] = 'a/b:test', 'dev_eer'
    (folder / 'config.json').write_text(json.dumps(config))
  code, out, err = run(capsys, *folders, '--tests=intra')
  assert code == 0 and '2 methods, 4 runs, 1 test' in out, err
  code, _, err = run(capsys, *folders)
  assert code == 4 and 'has no scores of more' in err


def test_errors_and_exit_codes(capsys, folders, tmp_path):
  def fails(code, message, *arguments):
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (code, '') and err.startswith('error: ') and message in err

  fails(2, '--name=x: write NAME=PATTERN', *folders, '--name=x')
  fails(2, 'is in the workdir of a run', *folders, f'--csv={folders[0]}/a.csv')
  fails(2, 'cannot be written: no such folder', *folders, f'--csv={tmp_path}/none/a.csv')
  fails(3, 'are one training run', *folders, folders[0])
  fails(4, 'holds no run', str(tmp_path))
  (tmp_path / 'ours_seed1' / 'scores' / 'intra.csv').write_text('id,label\n')
  fails(3, 'intra.csv', *folders)
  with pytest.raises(SystemExit) as end:
    compare.main([*folders, '--metric=accuracy'])
  assert end.value.code == 2


def test_other_samples_are_refused(capsys, folders, tmp_path):
  path = tmp_path / 'base_seed2' / 'scores' / 'intra.csv'
  scores = score_files.read(path)
  score_files.write(path, scores.only(np.arange(len(scores.ids)) > 3))
  code, _, err = run(capsys, *folders)
  assert code == 3 and 'systems are compared on the same samples' in err


@pytest.mark.parametrize(
  'folders,name',
  [
    (('linear-0', 'linear-1'), 'linear'),
    (('lora_dinov2-0', 'lora_dinov2-1'), 'lora_dinov2'),
    (('ours_seed1', 'ours_seed2'), 'ours'),
    (('m s=10', 'm s=11'), 'm'),
    (('plus_run_3', 'plus_run_4'), 'plus'),
    (('base a', 'base b'), 'base'),
    (('x', 'y'), 'x'),
  ],
)
def test_a_method_is_named_by_what_its_folders_share(folders, name):
  runs = [types.SimpleNamespace(folder=f'runs/{folder}') for folder in folders]
  assert trained_runs._common_name(runs) == name
