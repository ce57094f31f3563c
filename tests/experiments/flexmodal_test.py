"""The grid with several seeds: its tables, comparisons and rankings, from runs that are there."""

import csv
import json

import numpy as np
import pytest

from experiments.flexmodal import __main__ as flexmodal
from experiments.flexmodal import ranking, rates
from flexfas_jax.evaluation import results, score_files


def test_kendalls_tau_by_hand():
  # Of the 6 pairs of models, seeds 0 and 1 order 5 alike and 1 the other way: (5 - 1) / 6.
  rates = {
    0: {'a': 0.1, 'b': 0.2, 'c': 0.3, 'd': 0.4},
    1: {'a': 0.1, 'b': 0.2, 'd': 0.3, 'c': 0.4},
    2: {'d': 0.1, 'c': 0.2, 'b': 0.3, 'a': 0.4, 'e': 0.0},
  }
  found = ranking.taus(rates)
  assert found == pytest.approx({(0, 1): 4 / 6, (0, 2): -1, (1, 2): -4 / 6})
  assert ranking.mean_tau(rates) == pytest.approx(-1 / 3)
  # Tau-b: a tie of one seed is no order; 5 of 6 pairs count there: 5 / sqrt(6 * 5).
  tied = {0: rates[0], 1: {'a': 0.1, 'b': 0.2, 'c': 0.3, 'd': 0.3}}
  assert ranking.mean_tau(tied) == pytest.approx(5 / np.sqrt(30))
  # Of one kind of pairs: a and b keep their order in the first two seeds, c and d do not.
  two = {seed: rates[seed] for seed in (0, 1)}
  assert ranking.agreement(two, lambda *pair: set(pair) == {'a', 'b'}) == 1
  assert ranking.agreement(two, lambda *pair: set(pair) == {'c', 'd'}) == -1
  assert ranking.agreement(two, lambda a, b: True) == pytest.approx(4 / 6)
  assert np.isnan(ranking.agreement(two, lambda a, b: False))


def write_run(folder, away, seed):
  """The files of a run, as training writes them, of scores made up."""
  rng, n = np.random.default_rng([seed, round(10 * away)]), 240
  found, label = {}, np.arange(n) % 2
  (folder / 'scores').mkdir(parents=True)
  for part in ('val', 'intra', 'cross'):
    logit = {s: (away + more) * (label - 0.5) + rng.standard_normal(n)
             for s, more in zip(flexmodal.FAMILY, (0, 0.5, 1, 1.5), strict=True)}  # fmt: skip
    scores = score_files.Scores(
      ids=[f'{part}{i}' for i in range(n)],
      label=label,
      scores={s: 1 / (1 + np.exp(-x)) for s, x in logit.items()},
      subject=[f'{part}{i // 8}' for i in range(n)],
      video=[f'{i // 8}{"ab"[i % 2]}' for i in range(n)],  # four frames each
      header={'config': {'threshold': {'intra': 'dev_eer', 'cross': 'fixed=0.5'}}},
    )
    score_files.write(folder / 'scores' / f'{part}.csv', scores)
    if part != 'val':
      found[part] = results.compute(scores, 'fixed=0.5')
  (folder / 'results.json').write_text(json.dumps(results.json_safe(found)))


def test_rates_by_frame_and_by_video_at_both_thresholds(tmp_path):
  write_run(tmp_path, 1.0, 0)
  found = {tuple(key.values()): of for key, of in rates.of_run(tmp_path, 'cross')}
  assert len(found) == 4 * 2 * 2
  assert {key[1:] for key in found} == {
    (unit, rule) for unit in ('frame', 'video') for rule in ('fixed=0.5', 'dev_eer')
  }
  stored = json.loads((tmp_path / 'results.json').read_text())['cross']
  assert {s: found[s, 'frame', 'fixed=0.5']['acer'] for s in flexmodal.FAMILY} == {
    s: of['acer'] for s, of in stored.items()
  }
  # The mean of a video's four frames, without the library.
  score = score_files.read(tmp_path / 'scores' / 'cross.csv').scores['rgb']
  videos = score.reshape(30, 4, 2).mean(1)  # [subject, label]
  accepted = videos >= 0.5
  acer = (accepted[:, 0].mean() + (~accepted[:, 1]).mean()) / 2
  by_video = found['rgb', 'video', 'fixed=0.5']
  assert by_video['acer'] == pytest.approx(acer)
  assert (by_video['n_attack'], by_video['n_bona_fide']) == (30, 30)
  assert acer < found['rgb', 'frame', 'fixed=0.5']['acer']  # noise of frames is independent here
  # Val's scores are as the test's, so that APCER and BPCER of the test are near each other.
  by_val = found['rgb', 'frame', 'dev_eer']
  assert by_val['threshold'] != 0.5 and by_val['apcer'] == pytest.approx(by_val['bpcer'], abs=0.15)
  assert by_val['auc'] == found['rgb', 'frame', 'fixed=0.5']['auc']
  # Within, the two rules are one.
  assert {key['threshold'] for key, _ in rates.of_run(tmp_path, 'intra')} == {'dev_eer'}


def test_seeds_give_means_comparisons_and_rankings(tmp_path, capsys):
  away = {'concat': 1.0, 'squeeze_excite': 3.0}
  for fusion in away:
    for seed in range(3):
      folder = flexmodal.folder_of(tmp_path / 'runs', 'vit', fusion, seed)
      write_run(folder, away[fusion], seed)
  arguments = [f'--workdir={tmp_path}/runs', f'--out={tmp_path}', '--seeds=0,1,2']
  assert flexmodal.main([*arguments, '--only=nothing']) == 0  # trains none
  said = capsys.readouterr().out

  def read(name):
    return list(csv.DictReader((tmp_path / name).read_text().splitlines()))

  rows, compared, ranked = map(read, ('results.csv', 'comparisons.csv', 'rankings.csv'))
  # Within: by frame and by video; across: each at two thresholds.
  assert len(rows) == 2 * 3 * (2 + 4) * 4 and {row['seed'] for row in rows} == set('012')
  acer = [
    100 * float(row['acer'])
    for row in rows
    if (row['fusion'], row['test'], row['subset'], row['unit'])
    == ('concat', 'intra', 'rgb', 'frame')
  ]
  cell = f'| vit | concat | {np.mean(acer):.1f} ({np.std(acer, ddof=1):.1f}) |'
  assert cell in said and 'RENDERED faces; ACER in percent, 3 runs of each' in said
  assert {(r['fusion'], r['test'], r['subset']) for r in compared} == {
    ('squeeze_excite', test, s) for test in ('intra', 'cross') for s in ('rgb', 'rgb+depth+ir')
  }
  for row in compared:
    assert (row['runs'], row['verdict']) == ('3', 'better')
    assert float(row['low']) < float(row['difference']) < float(row['high']) < 0
  # Of videos both have no errors under some subsets, which is no order.
  by_frame = [row for row in ranked if (row['unit'], row['by']) == ('frame', 'acer')]
  assert {row['mean_tau_b'] for row in by_frame} == {'1.000'} and len(by_frame) == 3 * 4
  assert len(ranked) == (2 + 4) * 4 * 2 and {row['by'] for row in ranked} == {'acer', 'auc'}
  means = read('means.csv')
  assert len(means) == 2 * (2 + 4) * 2 and {row['runs'] for row in means} == {'3'}
  (mean,) = [
    row
    for row in means
    if (row['fusion'], row['test'], row['subset'], row['unit'])
    == ('concat', 'intra', 'rgb', 'frame')
  ]
  assert 100 * float(mean['acer']) == pytest.approx(np.mean(acer), abs=0.011)
  for name in ('acer', 'auc'):
    assert float(mean[f'{name}_low']) < float(mean[name]) < float(mean[f'{name}_high'])
  assert flexmodal.main([*arguments[:2], '--seeds=0', '--only=nothing']) == 0
  assert 'one run of each' in capsys.readouterr().out
  assert {row['verdict'] for row in read('comparisons.csv')} == {'lower in one run'}
  assert read('rankings.csv') == [] and read('means.csv') == []
