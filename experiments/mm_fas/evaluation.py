"""Results of a sweep: ensembles, their members, rates with intervals, and two questions.

Does face recognition pretraining help? Does an ensemble beat its best member? Paired decisions on
the same samples answer both, each system at its threshold from the same dev set.
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence

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
  *('question', 'test', 'subset', 'a', 'b', 'acer_a', 'acer_b', 'difference', 'low', 'high'),
  *('p_holm', 'attacks_only_a_right', 'attacks_only_b_right', 'verdict'),
)


def average_scores(args: argparse.Namespace, members: Sequence[plan.Run], log=print) -> None:
  """Averages each test over folds, seeds and networks; keeps the intermediate means."""
  for test in args.tests:
    folder = args.workdir / 'ensembles' / test
    folder.mkdir(parents=True, exist_ok=True)
    command = [*_score_files(members, test), f'--out={folder / ENSEMBLE}.csv']
    command += [f'--intermediate={folder}', f'--threshold={args.rule}']
    if args.dev:
      command += ['--dev', *_score_files(members, args.dev)]
      command += [f'--dev_out={folder / ENSEMBLE}_dev.csv']
    log(f'\n{test}: means over folds, seeds, networks')
    code = ensemble.main(command)
    if code:
      raise StateError(f'the ensemble of {test} failed (exit code {code}, see above)')


def _score_files(members: Sequence[plan.Run], test: str) -> list[str]:
  return [str(run.folder / 'scores' / f'{test}.csv') for run in members]


def compute_rows(args, members: Sequence[plan.Run], log=print) -> tuple[list[dict], list[dict]]:
  """(rows with `COLUMNS`, rows with `QUESTIONS`), rates in 0 to 1."""
  rates, compared = [], {}
  for test in args.tests:
    folder = args.workdir / 'ensembles' / test
    systems = {ENSEMBLE: ('', '', '')} if len(args.networks) > 1 else {}
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
    for question, a, b in _questions(args, read, members):
      pairs = _compare(args, test, {a: read[a], b: read[b]})
      compared.setdefault((question, b), []).extend(pairs)
  answers = []
  for (question, _), pairs in compared.items():  # Holm's p is over the tests and subsets of each
    corrected = comparisons.apply_holm([comparison for _, comparison in pairs])
    answers += [_row(question, row, c) for (row, _), c in zip(pairs, corrected, strict=True)]
  return rates, answers


def _read(args, folder: pathlib.Path, name: str):
  """(a system's scores of a test, those of dev or None)."""
  dev = score_files.read(folder / f'{name}_dev.csv') if args.dev else None
  return score_files.read(folder / f'{name}.csv'), dev


def _questions(args, read: Mapping, members) -> list[tuple[str, str, str]]:
  """[(question, a, b)]: is b better than a?"""
  questions = []
  if {plan.FACES, plan.CHANCE} <= set(args.networks):
    questions.append(('pretraining', plan.CHANCE, plan.FACES))
  for system in (*args.networks, ENSEMBLE):
    own = [run for run in members if system in (ENSEMBLE, run.name.partition('_seed')[0])]
    if system in read and len(own) > 1:
      questions.append(('ensemble', min(own, key=lambda run: _errors(run, read)).name, system))
  return questions


def _errors(run: plan.Run, read: Mapping) -> tuple[float, float]:
  """Sort key of members, the best first: mean EER over the subsets on dev, then mean AUC.

  Without a dev set, each member's own val counts, whose attack it was not trained on.
  """
  dev = read[run.name][1] or score_files.read(run.folder / 'scores' / 'val.csv')
  subsets = results.compute(dev, 'fixed=0.5').values()
  eer, auc = (sum(rates[name] for rates in subsets) / len(subsets) for name in ('eer', 'auc'))
  return eer, -auc


def _compare(args, test: str, systems: Mapping) -> list[tuple[dict, comparisons.Comparison]]:
  """[(start of a row, comparison of b with a)] for each subset of sensors."""
  (a, b), pairs = systems, []
  scores, dev = (
    evaluate.merge_systems({name: pair[side] for name, pair in systems.items()})
    if systems[a][side]
    else None
    for side in (0, 1)
  )
  evaluation = evaluate.evaluate(test, scores, args.rule, dev)
  for comparison in evaluation.comparisons:
    (system_a, subset_a), (system_b, subset_b) = (
      name.split(': ') for name in (comparison.a, comparison.b)
    )
    if (system_a, system_b, subset_a) == (a, b, subset_b):
      row = {'test': test, 'subset': subset_a, 'a': a, 'b': b}
      row['acer_a'] = evaluation.metrics[comparison.a]['acer']
      row['acer_b'] = evaluation.metrics[comparison.b]['acer']
      pairs.append((row, comparison))
  return pairs


def _row(question: str, row: dict, comparison: comparisons.Comparison) -> dict:
  acer = comparison.rates['acer']
  return {
    'question': question,
    **row,
    'difference': acer.value,
    'low': acer.interval.low,
    'high': acer.interval.high,
    'p_holm': comparison.p_holm,
    'attacks_only_a_right': comparison.attacks.only_a_correct,
    'attacks_only_b_right': comparison.attacks.only_b_correct,
    'verdict': comparison.verdict,
  }
