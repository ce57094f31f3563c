"""Leaderboards: methods of runs, figures by hand and as `evaluate` has them, ranks as published."""

import dataclasses
import json
import math
import zlib

import numpy as np
import pytest
import scipy.stats

from flexfas_jax.errors import ConfigError, DataError, StateError
from flexfas_jax.evaluation import comparisons, evaluate, leaderboard, score_files, trained_runs
from flexfas_jax.evaluation.score_files import Scores

N = 40  # subjects, each with two bona fide frames and two attacks
SUBSETS = ('rgb', 'rgb+depth')


def make_scores(seed, skill, part='t', subsets=SUBSETS, **header):
  rng = np.random.default_rng(seed)
  subject = np.repeat([f'{part}{i}' for i in range(N)], 4)
  label = np.tile([1, 1, 0, 0], N)
  hard = np.random.default_rng(7 if part == 't' else 8).normal(size=N).repeat(4)  # of the subjects
  scores = {
    s: 1 / (1 + np.exp(-(skill + i) * (2 * label - 1) - hard - rng.normal(size=4 * N)))
    for i, s in enumerate(subsets)
  }
  return Scores(
    ids=[f'{one}/{i}' for i, one in enumerate(subject)],
    label=label,
    scores=scores,
    dataset=np.full(4 * N, 'set'),
    subject=subject,
    video=[f'{one}{kind}' for one, kind in zip(subject, label, strict=True)],
    header={'weights_hash': f'{seed}', **header},
  )


def write_run(folder, seed=0, skill=1.0, tests=('intra',), subsets=SUBSETS, header=None, **config):
  """A workdir with scores whose errors depend on `skill`."""
  (folder / 'scores').mkdir(parents=True)
  config = {'seed': seed, 'threshold': dict.fromkeys(tests, 'dev_eer'), 'lr': skill, **config}
  config['test'] = dict.fromkeys(tests, 's/c:test')
  (folder / 'config.json').write_text(json.dumps(config))
  weights = zlib.crc32(folder.name.encode())
  for name, part in [('val', 'v'), *((name, 't') for name in tests)]:
    salt = sum(map(ord, name))
    scores = make_scores([weights, salt], skill, part, subsets, **(header or {}))
    scores.header['weights_hash'] = folder.name
    score_files.write(folder / 'scores' / f'{name}.csv', scores)
  return folder


@pytest.fixture
def runs(tmp_path):
  """Three runs of a better method, two of a worse one."""
  found = [write_run(tmp_path / f'good_seed{i}', i, 1.6) for i in range(3)]
  found += [write_run(tmp_path / f'bad_seed{i}', i, 0.5) for i in range(2)]
  return [trained_runs.read(folder) for folder in found]


def test_runs_are_grouped_by_config_but_for_the_seed(runs, tmp_path):
  methods = trained_runs.group(runs)
  assert [(m.name, m.n_runs) for m in methods] == [('good', 3), ('bad', 2)]
  assert [run.seed for run in methods[0].all_runs] == [0, 1, 2]
  other = trained_runs.read(
    write_run(tmp_path / 'elsewhere', 5, 1.6, data_dir='x', domain='dataset', ema=0.0)
  )
  methods = trained_runs.group([*runs[:2], other])
  assert [(m.n_runs, [r.seed for r in m.all_runs]) for m in methods] == [(3, [0, 1, 5])]
  named = trained_runs.group(runs, ['a=*_seed0', f'b={tmp_path}/*'])
  assert [(m.name, m.n_runs) for m in named] == [('a', 2), ('b', 3)]


def test_protocols_of_one_config_are_one_method(tmp_path):
  found = [
    trained_runs.read(
      write_run(tmp_path / f'{target}_{seed}', seed, 1.0, protocol=f'domains(target={target})',
                train=target)
    )
    for target in ('x', 'y')
    for seed in (0, 1)
  ]  # fmt: skip
  (method,) = trained_runs.group(found)
  assert list(method.runs) == ['domains(target=x)', 'domains(target=y)'] and method.n_runs == 2
  board = leaderboard.compare([method], draws=20)
  assert [str(block) for block in board.blocks] == [
    f'domains(target={target}): intra, {subset}' for target in 'xy' for subset in SUBSETS
  ]
  # The i-th runs of the protocols are one replicate of the method.
  of = [[board.figures[method.name][b]['acer'].of_runs[i] for b in board.blocks] for i in (0, 1)]
  assert board.means[method.name]['acer'].of_runs == pytest.approx(np.mean(of, 1).tolist())
  assert board.by_subset['rgb'][method.name]['acer'].value == pytest.approx(
    np.mean([board.figures[method.name][b]['acer'].value for b in board.blocks[::2]])
  )
  with pytest.raises(ConfigError, match=r'different numbers of runs .*\(2 of .*=x\), 1 of .*=y\)'):
    trained_runs.group(found[:3])
  found[3].config['train'] = found[3].config['protocol'] = ''
  assert len(trained_runs.group([found[0], found[3]])) == 2  # without a protocol, sets count


def test_subsets_that_are_not_recorded_are_not_compared(tmp_path):
  found = [
    trained_runs.read(write_run(tmp_path / f'a{i}', i, header={'not_recorded': ['depth']}))
    for i in (0, 1)
  ]
  board = leaderboard.compare(trained_runs.group(found), draws=20)
  assert [str(block) for block in board.blocks] == ['intra, rgb']
  assert 'intra, rgb+depth: not recorded: no sample has depth' in board.notes


def test_one_block_is_what_evaluate_has(runs):
  methods = trained_runs.group(runs)
  board = leaderboard.compare(methods, subsets=['rgb'], draws=200, seed=3)
  systems, devs, names = {}, {}, {}
  for method in methods:
    names[method.name] = tuple(f'{method.name} run {i + 1}' for i in range(method.n_runs))
    for name, run in zip(names[method.name], method.all_runs, strict=True):
      systems[name], devs[name] = (
        dataclasses.replace(x, scores={'rgb': x.scores['rgb']})
        for x in (run.tests['intra'], run.val)
      )
  expected = evaluate.evaluate(
    'x', evaluate.merge_systems(systems), 'dev_eer', evaluate.merge_systems(devs),
    draws=200, seed=3, runs=names,
  )  # fmt: skip
  (block,) = board.common
  for method in methods:
    for metric in ('acer', 'auc', 'hter_at_test_eer'):
      mean = expected.run_means[f'{method.name}: rgb'][metric]
      found = board.figures[method.name][block][metric]
      assert found.value == pytest.approx(mean.value) and found.of_runs == mean.of_runs
      assert found.interval == pytest.approx(mean.bootstrap)
      assert found.deviation == pytest.approx(mean.deviation)
      assert board.means[method.name][metric].interval == pytest.approx(mean.bootstrap)
  (pair,) = board.pairs
  (comparison,) = [c for c in expected.comparisons if (c.a, c.b) == ('good: rgb', 'bad: rgb')]
  assert (pair.a, pair.b) == ('good', 'bad')
  difference = comparison.rates['acer']
  assert pair.value == pytest.approx(difference.value)
  assert pair.interval == pytest.approx(difference.interval)
  assert pair.p == pair.p_holm == pytest.approx(difference.p)  # one pair


def test_the_better_method_is_first_and_several_runs_give_a_verdict(tmp_path):
  skills = {'a': 0.4, 'b': 1.8, 'c': 1.75}
  found = [
    trained_runs.read(write_run(tmp_path / f'{name}{i}', i, skill, ('intra', 'cross')))
    for name, skill in skills.items()
    for i in range(4)
  ]
  board = leaderboard.compare(trained_runs.group(found), draws=200)
  assert [m.name for m in board.methods][-1] == 'a' and len(board.common) == 4
  verdicts = {frozenset((p.a, p.b)): p.verdict for p in board.pairs}
  assert verdicts[frozenset('bc')] == comparisons.NO_DIFFERENCE
  assert verdicts[frozenset('ba')] == verdicts[frozenset('ca')] == 'worse'  # a against the other
  ps = [p.p for p in board.pairs]
  assert [p.p_holm for p in board.pairs] == pytest.approx(comparisons.holm(ps))
  reverse = leaderboard.compare(trained_runs.group(found), metric='auc', draws=200)
  assert [m.name for m in reverse.methods][-1] == 'a'
  assert {p.verdict for p in reverse.pairs if 'a' in (p.a, p.b)} == {'worse'}
  for of in (board.ranks, reverse.ranks):
    assert of.mean['a'] == 3.0 and sum(of.mean.values()) == 6
    assert of.interval['a'] == (3, 3) and of.interval['b'].low < of.interval['b'].high
  one = leaderboard.compare(trained_runs.group([found[0], found[4]]), draws=100)
  assert [p.verdict for p in one.pairs] == ['higher in one run']
  assert any(note.startswith('one run: another training may differ') for note in one.notes)


def test_a_subject_of_two_tests_is_drawn_for_both(tmp_path):
  """Tests of the same scores have no more information than one: intervals are equally wide."""
  found = trained_runs.read(write_run(tmp_path / 'r', 0, 1.0, ('intra', 'again')))
  found.tests['again'].scores.update(found.tests['intra'].scores)
  (method,) = trained_runs.group([found])
  both = leaderboard.compare([method], draws=300, subsets=['rgb']).means['r']['acer']
  alone = leaderboard.compare([method], draws=300, subsets=['rgb'], tests=['intra'])
  assert both.value == pytest.approx(alone.means['r']['acer'].value)
  assert both.interval == pytest.approx(alone.means['r']['acer'].interval, abs=1e-12)


def test_blocks_that_not_all_methods_have_are_shown_and_not_averaged(tmp_path):
  a = trained_runs.read(write_run(tmp_path / 'a', 0, 1.0, subsets=('rgb',)))
  b = trained_runs.read(write_run(tmp_path / 'b', 0, 1.2))
  board = leaderboard.compare(trained_runs.group([a, b]), draws=20)
  assert [block.subset for block in board.common] == ['rgb'] and len(board.blocks) == 2
  assert board.notes[0].endswith('not every method has it: intra (rgb+depth)')
  other = trained_runs.read(write_run(tmp_path / 'd', 0, 1.2, ('cross',)))
  with pytest.raises(DataError, match='no test and subset in common: a has intra, rgb; d has cr'):
    leaderboard.compare(trained_runs.group([a, other]), draws=20)


def test_few_subjects_give_no_mean(tmp_path, monkeypatch):
  monkeypatch.setattr(f'{__name__}.N', 6)
  methods = trained_runs.group([trained_runs.read(write_run(tmp_path / 'a'))])
  board = leaderboard.compare(methods, draws=20)
  assert board.insufficient == set(board.blocks) and not board.common and not board.means


def test_errors_name_the_run(runs, tmp_path):
  methods = trained_runs.group(runs)
  with pytest.raises(ConfigError, match="no test 'intro'; there are intra"):
    leaderboard.compare(methods, tests=['intro'])
  with pytest.raises(ConfigError, match='same number of runs'):
    leaderboard.compare(methods, paired_runs=True)
  with pytest.raises(ConfigError, match='choose one of acer'):
    leaderboard.compare(methods, metric='accuracy')
  with pytest.raises(ConfigError, match='write NAME=PATTERN'):
    trained_runs.group(runs, ['ours'])
  with pytest.raises(ConfigError, match='no run matches; there are good_seed0'):
    trained_runs.group(runs, ['ours=x*'])
  with pytest.raises(DataError, match='are one training run'):
    trained_runs.group([runs[0], trained_runs.read(runs[0].folder)])
  with pytest.raises(StateError, match='holds no run'):
    trained_runs.read(tmp_path)
  other = write_run(tmp_path / 'other', 0, 1.0, threshold={'intra': 'fixed=0.5'})
  with pytest.raises(DataError, match='the threshold is dev_eer in .*, and|fixed=0.5 in .*other'):
    leaderboard.compare(trained_runs.group([runs[0], trained_runs.read(other)]), draws=20)
  (other / 'scores' / 'intra.csv').unlink()
  with pytest.raises(StateError, match='has no scores of intra'):
    trained_runs.read(other)
  (other / 'config.json').write_text('{"seed"')
  with pytest.raises(StateError, match='config.json is damaged'):
    trained_runs.read(other)


def test_costs_of_a_run(tmp_path):
  header = {'parameters': 1000, 'trained_parameters': 250}
  folder = write_run(tmp_path / 'a', header=header)
  rows = [{'step': i, 'speed/step_seconds': s} for i, s in ((1, 9.0), (2, 0.2), (3, 0.4), (4, 0.3))]
  text = ''.join(json.dumps(row) + '\n' for row in rows)
  (folder / 'metrics.jsonl').write_text(text + 'damaged\n{"step": 5, "val/auc": 1}\n')
  (folder / 'preflight.json').write_text('[{"topology": "v5e:1x1", "flops_per_chip": 2e9}]')
  run = trained_runs.read(folder)
  assert run.cost == (250, 1000, 2e9, 0.3)  # the first interval compiles
  without = trained_runs.read(write_run(tmp_path / 'b'))
  assert all(map(math.isnan, without.cost))
  (method,) = trained_runs.group([run, without], ['all=*'])
  assert method.cost == run.cost


# Demsar (2006), Table 6: AUC of C4.5, with m, with cf, with both.
DEMSAR = [
  [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
  [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
  [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
  [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
  [0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970],
]  # fmt: skip


def test_ranks_are_those_of_the_published_example():
  values = -np.array(DEMSAR)
  ranks = leaderboard._rank(values).mean(0)
  assert ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
  assert leaderboard.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
  # chi^2 = 9.28 and F = 3.69, both without a correction for ties.
  n, k = values.shape
  chi = 12 * n / (k * (k + 1)) * (np.sum(ranks**2) - k * (k + 1) ** 2 / 4)
  assert chi == pytest.approx(9.28, abs=0.01)
  # With the correction, as in SciPy.
  chi = scipy.stats.friedmanchisquare(*values.T).statistic
  f = (n - 1) * chi / (n * (k - 1) - chi)
  assert leaderboard.friedman(values) == pytest.approx(
    scipy.stats.f.sf(f, k - 1, (k - 1) * (n - 1))
  )


def test_ranks_of_ties_and_of_too_few():
  assert leaderboard._rank(np.array([[1.0, 2, 2, 3], [1, 1, 1, 1]])).tolist() == [
    [1, 2.5, 2.5, 4],
    [2.5] * 4,
  ]
  assert leaderboard.friedman(np.ones((3, 2))) == 1 and leaderboard.friedman([[1, 2]] * 3) == 0
  assert math.isnan(leaderboard.friedman([[1, 2]]))
  assert math.isnan(leaderboard.critical_difference(3, 1))
