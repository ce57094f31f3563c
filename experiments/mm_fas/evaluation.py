"""Results of a sweep: ensembles, their members, rates with intervals, and two questions.

Does face recognition pretraining help? Does an ensemble beat its best member? Means over the runs
of the recipe, which are its seeds, answer both, with intervals over runs and subjects; each run has
its own threshold from the same dev set. With one seed, no verdict holds for the recipe.
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.mm_fas import plan
from flexfas_jax import ensemble
from flexfas_jax.errors import StateError
from flexfas_jax.evaluation import comparisons, evaluate, results, score_files

RATES = (
  *('acer', 'apcer_max', 'apcer', 'bpcer', 'eer', 'auc'),
  *('tpr@fpr=1e-2', 'tpr@fpr=1e-3', 'tpr@fpr=1e-4'),
)
ENSEMBLE = 'ensemble'  # of all networks
COLUMNS = (
  *('test', 'subset', 'system', 'network', 'seed', 'fold'),
  *(name for rate in RATES for name in (rate, f'{rate}_low', f'{rate}_high')),
)
QUESTIONS = (
  *('question', 'test', 'subset', 'a', 'b', 'runs', 'acer_a', 'deviation_a', 'acer_b'),
  *('deviation_b', 'difference', 'low', 'high', 'p_holm', 'verdict'),
)
BEST = 'best member'  # on dev, of each run


class Question(NamedTuple):
  """Is b better than a?"""

  name: str
  a: str
  b: str
  runs_a: tuple[str, ...]  # systems
  runs_b: tuple[str, ...]
  paired: bool  # whether run i of b consists of members that a's run i is one of


def average_scores(args: argparse.Namespace, members: Sequence[plan.Run], log=print) -> None:
  """Averages each test over folds, seeds and networks; keeps the intermediate means."""
  for test in args.tests:
    folder = args.workdir / 'ensembles' / test
    folder.mkdir(parents=True, exist_ok=True)
    log(f'\n{test}: means over folds, seeds, networks')
    _average(args, members, test, folder / ENSEMBLE, f'--intermediate={folder}')
    if len(args.networks) > 1:
      for seed in args.seeds:
        log(f'\n{test}, seed {seed}: means over folds, networks')
        of_seed = [run for run in members if f'_seed{seed}_fold' in run.name]
        _average(args, of_seed, test, folder / f'{ENSEMBLE}_seed{seed}')


def _average(args, members: Sequence[plan.Run], test: str, out: pathlib.Path, *options) -> None:
  command = [*_score_files(members, test), f'--out={out}.csv', f'--threshold={args.rule}']
  command += options
  if args.dev:
    command += ['--dev', *_score_files(members, args.dev), f'--dev_out={out}_dev.csv']
  if code := ensemble.main(command):
    raise StateError(f'the ensemble of {test} failed (exit code {code}, see above)')


def _score_files(members: Sequence[plan.Run], test: str) -> list[str]:
  return [str(run.folder / 'scores' / f'{test}.csv') for run in members]


def compute_rows(args, members: Sequence[plan.Run], log=print) -> tuple[list[dict], list[dict]]:
  """(rows with `COLUMNS`, rows with `QUESTIONS`), rates in 0 to 1."""
  rates, compared = [], {}
  for test in args.tests:
    folder = args.workdir / 'ensembles' / test
    systems = {}
    if len(args.networks) > 1:
      systems[ENSEMBLE] = ('', '', '')
      systems |= {f'{ENSEMBLE}_seed{seed}': ('', seed, '') for seed in args.seeds}
    for network in args.networks:
      systems[network] = (network, '', '')
      for seed in args.seeds:
        systems[f'{network}_seed{seed}'] = (network, seed, '')
        for fold in args.folds:
          systems[f'{network}_seed{seed}_fold{fold}'] = (network, seed, fold)
    read = {name: _read(args, folder, name) for name in systems}
    log(f'{test}: {len(systems)} systems, with intervals')
    for name, (scores, dev) in read.items():
      evaluation = evaluate.evaluate(test, scores, args.rule, dev)
      for subset in evaluation.served:
        network, seed, fold = systems[name]
        row = {'test': test, 'subset': subset, 'system': name}
        row |= {'network': network, 'seed': seed, 'fold': fold}
        for rate in RATES:
          estimate = evaluation.estimates[subset][rate]
          row |= {rate: estimate.value, f'{rate}_low': estimate.bootstrap.low}
          row |= {f'{rate}_high': estimate.bootstrap.high}
        rates.append(row)
    for question in _questions(args, read, members):
      pairs = _compare(args, test, question, read)
      compared.setdefault((question.name, question.b), []).extend(pairs)
  answers = []
  for pairs in compared.values():  # Holm's p is over the tests and subsets of each question
    corrected = comparisons.apply_holm([comparison for _, comparison in pairs])
    answers += [_row(row, c) for (row, _), c in zip(pairs, corrected, strict=True)]
  return rates, answers


def _read(args, folder: pathlib.Path, name: str):
  """(a system's scores of a test, those of dev or None)."""
  dev = score_files.read(folder / f'{name}_dev.csv') if args.dev else None
  return score_files.read(folder / f'{name}.csv'), dev


def _questions(args, read: Mapping, members) -> list[Question]:
  def of_seeds(system):
    return tuple(f'{system}_seed{seed}' for seed in args.seeds)

  questions = []
  if {plan.FACES, plan.CHANCE} <= set(args.networks):
    sides = plan.CHANCE, plan.FACES
    questions.append(Question('pretraining', *sides, *map(of_seeds, sides), paired=False))
  for system in (*args.networks, ENSEMBLE):
    best = []
    for seed in args.seeds if system in read else ():
      own = [run for run in members if f'_seed{seed}_fold' in run.name]
      own = [run for run in own if system in (ENSEMBLE, run.name.partition('_seed')[0])]
      if len(own) > 1:
        best.append(min(own, key=lambda run: _errors(run, read)).name)
    if best:
      questions.append(Question('ensemble', BEST, system, tuple(best), of_seeds(system), True))
  return questions


def _errors(run: plan.Run, read: Mapping) -> tuple[float, float]:
  """Sort key of members, the best first: mean EER over the subsets on dev, then mean AUC.

  Without a dev set, each member's own val counts, whose attack it was not trained on.
  """
  dev = read[run.name][1] or score_files.read(run.folder / 'scores' / 'val.csv')
  subsets = results.compute(dev, 'fixed=0.5').values()
  eer, auc = (sum(rates[name] for rates in subsets) / len(subsets) for name in ('eer', 'auc'))
  return eer, -auc


def _compare(
  args, test: str, question: Question, read: Mapping
) -> list[tuple[dict, comparisons.Comparison]]:
  """[(start of a row, comparison of b with a)] for each subset of sensors."""
  runs = {side: [f'{side} {seed}' for seed in args.seeds] for side in (question.a, question.b)}
  systems = [*zip(runs[question.a], question.runs_a, strict=True)]
  systems += zip(runs[question.b], question.runs_b, strict=True)
  scores, dev = (
    evaluate.merge_systems({run: read[system][side] for run, system in systems})
    if read[systems[0][1]][side]
    else None
    for side in (0, 1)
  )
  evaluation = evaluate.evaluate(
    test, scores, args.rule, dev, runs=runs, paired_runs=question.paired
  )
  pairs = []
  for comparison in evaluation.comparisons:
    (system_a, subset_a), (system_b, subset_b) = (
      name.split(': ') for name in (comparison.a, comparison.b)
    )
    if (system_a, system_b, subset_a) != (question.a, question.b, subset_b):
      continue
    row = {'question': question.name, 'test': test, 'subset': subset_a}
    row |= {'a': question.a, 'b': question.b, 'runs': len(args.seeds)}
    for side, name in (('a', comparison.a), ('b', comparison.b)):
      acer = [evaluation.metrics[run]['acer'] for run in evaluation.runs[name]]
      row[f'acer_{side}'] = float(np.mean(acer))
      row[f'deviation_{side}'] = float(np.std(acer, ddof=1)) if len(acer) > 1 else ''
    pairs.append((row, comparison))
  return pairs


def _row(row: dict, comparison: comparisons.Comparison) -> dict:
  acer = comparison.rates['acer']
  return {
    **row,
    'difference': acer.value,
    'low': acer.interval.low,
    'high': acer.interval.high,
    'p_holm': comparison.p_holm,
    'verdict': comparison.verdict,
  }
