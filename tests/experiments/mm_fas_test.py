"""The sweep: each run once, however often it is stopped; what its commands say; what it tells."""

import csv
import itertools
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from experiments.mm_fas import __main__ as mm_fas
from experiments.mm_fas import plan, sweep
from flexfas_jax.errors import StateError
from flexfas_jax.evaluation import results, score_files
from flexfas_jax.training import setup

ROOT = pathlib.Path(__file__).parents[2]
# How ml_collections loads a file.
OLD_LOADER = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')


def listed(capsys, *arguments):
  """What --list prints, as lines."""
  assert mm_fas.main(['--list', *arguments]) == 0
  return capsys.readouterr().out.splitlines()


def config_of(line, monkeypatch):
  """The config that a command of the plan trains."""
  monkeypatch.setattr(sys, 'argv', list(line))  # config_flags looks there for what is overridden
  own = flags.FlagValues()
  config_flags.DEFINE_config_file('config', flag_values=own)
  flags.DEFINE_string('workdir', None, '', flag_values=own)
  flags.DEFINE_string('mode', None, '', flag_values=own)
  own(line)
  return own.config


def runs_of(monkeypatch, *arguments):
  found = []
  monkeypatch.setattr(mm_fas.sweep, 'train', lambda runs, *_: found.extend(runs))
  assert mm_fas.main([*arguments, '--index=0/1']) == 0
  return found


@OLD_LOADER
def test_every_command_is_a_config_that_fits(monkeypatch, tmp_path):
  monkeypatch.chdir(ROOT)
  found = runs_of(monkeypatch, f'--workdir={tmp_path}', '--size=_tiny', '--steps=60')
  assert len(found) == 2 + 2 * 2 * 3 and len({run.folder for run in found}) == 14
  pretraining_runs, members = {run.name: run for run in found[:2]}, found[2:]
  assert plan.members(found) == members
  for seed in (7, 704):  # a seed is a run of the whole recipe
    pretraining = config_of(
      pretraining_runs[f'face_recognition_seed{seed}'].command[2:], monkeypatch
    )
    assert pretraining.seed == seed and setup.build(pretraining, classes=3).target
  seen = set()
  for run in members:
    config = config_of(run.command[2:], monkeypatch)
    protocol = setup.apply_protocol(config)[1]
    assert setup.member_fields(config) == {
      'network': run.name.partition('_seed')[0],
      'seed': config.seed,
      'fold': protocol.fields['attack'],
    }
    assert run.pretrained in ('', f'face_recognition_seed{config.seed}')
    start = str(pretraining_runs[run.pretrained].folder) if run.pretrained else ''
    assert config.pretrained.weights == start
    assert config.steps == config.eval_every == 60
    assert set(protocol.left_out) == {'val'} and '_tiny' in protocol.train
    seen.add((run.pretrained, config.seed, protocol.fields['attack'], protocol.fields['part']))
  assert len(seen) == 12
  assert setup.build(config).subsets[0] == ('rgb',)


@OLD_LOADER
def test_the_papers_networks_are_planned(monkeypatch, tmp_path):
  monkeypatch.chdir(ROOT)
  own = ['--networks=resnet34_caffe,ir50', '--protocol=mm_fas_fold(fold={fold})', '--folds=1,2,3']
  own += ['--tests=official_val', '--dev=', '--rule=fixed=0.5']
  found = runs_of(monkeypatch, f'--workdir={tmp_path}', *own)
  assert [run.pretrained for run in found] == [''] * 12
  configs = [config_of(run.command[2:], monkeypatch) for run in found]
  assert {c.model.backbone.name for c in configs} == {'caffe_resnet', 'ir_resnet'}
  assert {c.protocol for c in configs} == {f'mm_fas_fold(fold={k})' for k in '123'}
  assert {c.views for c in configs} == {('centre=0.896', 'centre=0.896+flip')}


def test_machines_share_the_members_and_all_have_the_pretraining(capsys, tmp_path):
  whole = listed(capsys, f'--workdir={tmp_path}')[::2]
  pretraining_runs = {'face_recognition_seed7', 'face_recognition_seed704'}
  parts = [listed(capsys, f'--workdir={tmp_path}', f'--index={i}/5')[::2] for i in range(5)]
  for part in parts:  # those that its members start from, and before them
    needed = {f'face_recognition_{n.split("_")[1]}' for n in part if n.startswith('faces_')}
    assert set(part[: len(needed)]) == needed and not pretraining_runs & set(part[len(needed) :])
  assert sorted(n for part in parts for n in part if n not in pretraining_runs) == sorted(
    n for n in whole if n not in pretraining_runs
  )
  assert mm_fas.main([f'--workdir={tmp_path}', '--index=5/5']) == 2
  assert '--index=5/5 is not I/N' in capsys.readouterr().err


def fake(folder, name, script, pretraining=''):
  """A run whose training is a few lines of Python, which get its folder."""
  lines = f'import pathlib, sys, time, os\nd = pathlib.Path({str(folder / name)!r})\n'
  lines += 'd.mkdir(exist_ok=True)\n'
  return plan.Run(name, folder / name, (sys.executable, '-c', lines + script), pretraining)


def script_of(runs, at_once):
  """A process of its own that trains them."""
  lines = [(run.name, str(run.folder), run.command, run.pretrained) for run in runs]
  return f"""
import pathlib, sys
from experiments.mm_fas import sweep
from experiments.mm_fas.plan import Run
from flexfas_jax.errors import exit_code_of
runs = [Run(n, pathlib.Path(f), c, d) for n, f, c, d in {lines!r}]
sys.exit(exit_code_of(lambda: sweep.train(runs, {at_once})))
"""


COUNT = "(d / 'times').open('a').write('x')"


def times(run):
  return len((run.folder / 'times').read_text())


def test_each_is_trained_once_and_pretraining_first(tmp_path):
  slow = f'time.sleep(0.5); {COUNT}'
  after = f"assert (d.parent / 'pretraining' / 'trained_by.json').exists(); {COUNT}"
  runs = [fake(tmp_path, 'pretraining', slow), fake(tmp_path, 'a', after, 'pretraining')]
  runs += [fake(tmp_path, name, COUNT) for name in 'bc']
  lines = []
  for _ in range(2):
    sweep.train(runs, 2, lines.append)
  assert [times(run) for run in runs] == [1] * 4
  assert lines[0] == '4 runs, 0 of them trained already' and lines[-1].startswith('4 runs, 4 of')
  with pytest.raises(StateError, match='was trained with other flags'):
    sweep.train([runs[0]._replace(command=(*runs[0].command, 'more'))], 1)


def test_two_commands_in_one_workdir_share_the_runs(tmp_path):
  runs = [fake(tmp_path, name, f'time.sleep(1.5); {COUNT}') for name in 'abcd']
  command = [sys.executable, '-c', script_of(runs, 2)]
  started = [
    subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
  ]
  said = [process.communicate(timeout=60)[0] for process in started]
  assert [process.returncode for process in started] == [0, 0]
  assert [times(run) for run in runs] == [1] * 4
  own = [len(re.findall(r': \d+ s$', text, re.MULTILINE)) for text in said]
  assert sum(own) == 4 and min(own) > 0, said  # neither waits for what the other trains


def test_a_failure_is_named_and_ends_the_sweep(tmp_path):
  runs = [fake(tmp_path, 'bad', 'print("so it is"); sys.exit(3)'), fake(tmp_path, 'good', COUNT)]
  with pytest.raises(StateError, match=r'bad ended with 3; see the end of .*bad\.log'):
    sweep.train(runs, 1)
  assert 'so it is' in (tmp_path / 'bad.log').read_text()


def test_sigterm_stops_what_it_started_and_a_rerun_goes_on(tmp_path):
  once = "on = d / 'on'\nif not on.exists():\n  on.touch()\n  time.sleep(60)\n"
  runs = [fake(tmp_path, 'a', once + COUNT), fake(tmp_path, 'b', COUNT)]
  script = script_of(runs, 1)
  first = subprocess.Popen(
    [sys.executable, '-c', script], cwd=ROOT, stderr=subprocess.PIPE, text=True
  )
  while not (tmp_path / 'a' / 'on').exists():
    time.sleep(0.05)
  first.send_signal(signal.SIGTERM)
  _, said = first.communicate(timeout=30)
  assert first.returncode == 143 and 'stopped with 0 of 2 runs trained' in said
  assert subprocess.run([sys.executable, '-c', script], cwd=ROOT, timeout=60).returncode == 0
  assert [times(run) for run in runs] == [1, 1]


@pytest.fixture
def scored(tmp_path):
  """(arguments, members) whose scores are there: a network from faces that is better."""
  return make_scored(tmp_path, [7])


def make_scored(folder, seeds, N=400):
  args = [f'--workdir={folder}', '--tests=seen', '--folds=x,y']
  args += [f'--seeds={",".join(map(str, seeds))}']
  rng, members = np.random.default_rng(0), []
  label = np.arange(N) % 2
  for network, noise in (('chance', 1.5), ('faces', 0.6)):
    for seed, fold in itertools.product(seeds, 'xy'):
      name = f'{network}_seed{seed}_fold{fold}'
      run = plan.Run(name, folder / 'members' / name, ())
      for test in ('val', 'dev', 'seen'):
        logit = 2 * label - 1 + noise * rng.standard_normal(N)
        (run.folder / 'scores').mkdir(parents=True, exist_ok=True)
        score_files.write(
          run.folder / 'scores' / f'{test}.csv',
          score_files.Scores(
            ids=np.array([f'{test}{i}' for i in range(N)]),
            label=label,
            scores={'rgb': 1 / (1 + np.exp(-2 * logit))},
            header={'member': {'network': network, 'seed': seed, 'fold': fold}},
            dataset=np.array(['d'] * N),
            subject=np.array([f'{test}{i // 4}' for i in range(N)]),
            video=np.array([f'{test}{i // 2}' for i in range(N)]),
            attack_type=np.where(label == 1, '', 'print'),
            attack_category=np.where(label == 1, '', 'print'),
            ethnicity=np.array([''] * N),
          ),
        )
      members.append(run)
  return args, members


def evaluated(arguments, members, out, monkeypatch):
  """(rows of results.csv by system, of comparisons.csv by question and b)."""
  monkeypatch.setattr(mm_fas.sweep, 'train', lambda *_: None)
  monkeypatch.setattr(mm_fas.plan, 'runs', lambda args: members)
  for run in members:  # as if they had been scored
    (run.folder / 'results.json').touch()
  assert mm_fas.main([*arguments, f'--out={out}']) == 0
  rows, answers = (
    list(csv.DictReader((out / name).read_text().splitlines()))
    for name in ('results.csv', 'comparisons.csv')
  )
  return (
    {row['system']: row for row in rows},
    {(row['question'], row['b']): row for row in answers},
  )


def test_questions_are_answered_by_paired_decisions(scored, tmp_path, monkeypatch):
  arguments, members = scored
  rows, found = evaluated(arguments, members, tmp_path / 'out', monkeypatch)
  assert set(rows) == {
    'ensemble', 'chance', 'faces', 'ensemble_seed7', 'chance_seed7', 'faces_seed7',
    *(run.name for run in members),
  }  # fmt: skip
  acer = {name: float(row['acer']) for name, row in rows.items()}
  assert acer['faces'] < acer['faces_seed7_foldx'] < acer['chance_seed7_foldx']
  for row in rows.values():
    assert float(row['acer_low']) <= float(row['acer']) <= float(row['acer_high'])
  helps = found['pretraining', 'faces']
  assert helps['a'] == 'chance' and helps['runs'] == '1'
  assert helps['verdict'] == 'lower in one run' and helps['deviation_a'] == ''
  np.testing.assert_allclose(float(helps['difference']), acer['faces'] - acer['chance'], atol=2e-5)
  best = found['ensemble', 'ensemble']
  assert best['a'] == 'best member' and set(found) == {
    ('pretraining', 'faces'), ('ensemble', 'chance'), ('ensemble', 'faces'),
    ('ensemble', 'ensemble'),
  }  # fmt: skip
  of_faces = [row['acer'] for name, row in rows.items() if name.startswith('faces_seed7_fold')]
  assert best['acer_a'] in of_faces
  assert (tmp_path / 'out' / 'results.png').stat().st_size > 10_000


def test_seeds_are_runs_of_the_recipe(tmp_path, monkeypatch, capsys):
  """A verdict needs several; the best member of a seed is compared with the mean of that seed."""
  arguments, members = make_scored(tmp_path, [0, 1, 2], N=160)
  rows, found = evaluated(arguments, members, tmp_path / 'out', monkeypatch)
  helps, best = found['pretraining', 'faces'], found['ensemble', 'faces']
  assert (helps['verdict'], helps['runs']) == ('better', '3')
  for side, network in (('a', 'chance'), ('b', 'faces')):
    acer = [float(rows[f'{network}_seed{seed}']['acer']) for seed in range(3)]
    np.testing.assert_allclose(float(helps[f'acer_{side}']), np.mean(acer), atol=2e-5)
    np.testing.assert_allclose(float(helps[f'deviation_{side}']), np.std(acer, ddof=1), atol=2e-5)
  np.testing.assert_allclose(float(best['acer_b']), float(helps['acer_b']), atol=2e-5)
  of_members = [[float(rows[f'faces_seed{s}_fold{f}']['acer']) for f in 'xy'] for s in range(3)]
  least, most = np.mean(np.min(of_members, 1)), np.mean(np.max(of_members, 1))
  assert least - 2e-5 <= float(best['acer_a']) <= most + 2e-5
  said = capsys.readouterr().out
  assert 'RENDERED faces: no figure is comparable with photographs' in said
  assert '| pretraining | seen | rgb | chance | faces | 3 |' in said


def test_one_network_and_no_dev_set(scored, tmp_path, monkeypatch, capsys):
  """As of MM-FAS's own test, whose people are in no other split."""
  arguments, members = scored
  arguments = [*arguments, '--networks=faces', '--dev=']
  members = [run for run in members if run.name.startswith('faces')]
  assert mm_fas.main(arguments) == 2
  assert '--rule=dev_eer is fitted on a dev set' in capsys.readouterr().err
  rows, found = evaluated([*arguments, '--rule=fixed=0.5'], members, tmp_path / 'out', monkeypatch)
  assert set(rows) == {'faces', 'faces_seed7', *(run.name for run in members)}
  score = [score_files.read(run.folder / 'scores' / 'seen.csv') for run in members]
  accepted = np.mean([one.scores['rgb'] for one in score], 0) >= 0.5
  bpcer, apcer = (~accepted[score[0].label == 1]).mean(), accepted[score[0].label == 0].mean()
  np.testing.assert_allclose(float(rows['faces']['acer']), (apcer + bpcer) / 2, atol=1e-5)
  vals = {run.name: score_files.read(run.folder / 'scores' / 'val.csv') for run in members}
  eer = {name: results.compute(val, 'fixed=0.5')['rgb']['eer'] for name, val in vals.items()}
  assert set(found) == {('ensemble', 'faces')}
  assert found['ensemble', 'faces']['acer_a'] == rows[min(eer, key=eer.get)]['acer']
