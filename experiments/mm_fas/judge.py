"""What the sweep shows: ensembles, their members, rates with intervals, and the two questions.

Does starting from face recognition help? Does an ensemble beat its best member? Both are asked of
paired decisions on the same samples, each at the threshold that the same dev set gives it.
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
WHOLE = 'ensemble'  # of all networks
COLUMNS = (
  *('test', 'subset', 'system', 'network', 'seed', 'fold'),
  *(name for rate in RATES for name in (rate, f'{rate}_low', f'{rate}_high')),
)
QUESTIONS = (
  *('question', 'test', 'subset', 'a', 'b', 'acer_a', 'acer_b', 'difference', 'low', 'high'),
  *('p_holm', 'attacks_only_a_right', 'attacks_only_b_right', 'verdict'),
)


def ensembles(args: argparse.Namespace, members: Sequence[plan.Run], tell=print) -> None:
  """Averages each test over folds, seeds and networks, and every mean's parts beside it."""
  for test in args.tests:
    folder = args.workdir / 'ensembles' / test
    folder.mkdir(parents=True, exist_ok=True)
    files = lambda name: [str(run.folder / 'scores' / f'{name}.csv') for run in members]  # noqa: E731
    command = [*files(test), f'--out={folder / WHOLE}.csv', f'--intermediate={folder}']
    command.append(f'--threshold={args.rule}')
    if args.dev:
      command += [*('--dev', *files(args.dev)), f'--dev_out={folder / WHOLE}_dev.csv']
    tell(f'\n{test}: means over folds, seeds, networks')
    code = ensemble.main(command)
    if code:
      raise StateError(f'the ensemble of {test} could not be made (exit code {code}, see above)')


def rows(args, members: Sequence[plan.Run], tell=print) -> tuple[list[dict], list[dict]]:
  """(rows of `COLUMNS`, rows of `QUESTIONS`), rates in 0 to 1."""
  rates, asked = [], {}
  for test in args.tests:
    folder = args.workdir / 'ensembles' / test
    systems = {WHOLE: ('', '', '')} if len(args.networks) > 1 else {}
    for network in args.networks:
      systems[network] = (network, '', '')
      for seed in args.seeds:
        systems[f'{network}_seed{seed}'] = (network, seed, '')
        for fold in args.folds:
          systems[f'{network}_seed{seed}_fold{fold}'] = (network, seed, fold)
    read = {name: _read(args, folder, name) for name in systems}
    tell(f'{test}: {len(systems)} systems, with intervals')
    for name, (scores, dev) in read.items():
      judged = evaluate.judge(test, scores, args.rule, dev)
      for subset in judged.served:
        at = dict(zip(('network', 'seed', 'fold'), systems[name], strict=True))
        row = {'test': test, 'subset': subset, 'system': name, **at}
        for rate in RATES:
          estimate = judged.estimates[subset][rate]
          row |= {rate: estimate.value, f'{rate}_low': estimate.people.low}
          row |= {f'{rate}_high': estimate.people.high}
        rates.append(row)
    for question, a, b in _questions(args, read, members):
      asked.setdefault((question, b), []).extend(_compared(args, test, {a: read[a], b: read[b]}))
  answers = []
  for (question, _), found in asked.items():  # p is corrected over the tests and subsets of each
    corrected = comparisons.with_holm([one for _, one in found])
    answers += [_row(question, row, one) for (row, _), one in zip(found, corrected, strict=True)]
  return rates, answers


def _read(args, folder: pathlib.Path, name: str):
  """(a system's scores of a test, those of dev or None)."""
  dev = score_files.read(folder / f'{name}_dev.csv') if args.dev else None
  return score_files.read(folder / f'{name}.csv'), dev


def _questions(args, read: Mapping, members) -> list[tuple[str, str, str]]:
  """[(question, a, b)]: is b better than a?"""
  asked = []
  if {plan.DONOR, plan.CHANCE} <= set(args.networks):
    asked.append(('pretraining', plan.CHANCE, plan.DONOR))
  for system in (*args.networks, WHOLE):
    own = [run for run in members if system in (WHOLE, run.name.partition('_seed')[0])]
    if system in read and len(own) > 1:
      asked.append(('ensemble', min(own, key=lambda run: _errors(run, read)).name, system))
  return asked


def _errors(run: plan.Run, read: Mapping) -> tuple[float, float]:
  """What members are compared by, less being better: the EER on dev, the mean over the subsets, and
  of equals the AUC. Without a dev, on each one's own val, whose attack it was not trained on."""
  dev = read[run.name][1] or score_files.read(run.folder / 'scores' / 'val.csv')
  found = results.results(dev, 'fixed=0.5').values()
  mean = lambda rate: sum(values[rate] for values in found) / len(found)  # noqa: E731
  return mean('eer'), -mean('auc')


def _compared(args, test: str, systems: Mapping) -> list[tuple[dict, comparisons.Comparison]]:
  """[(what is compared, b against a)] for each subset of sensors."""
  (a, b), found = systems, []
  scores, dev = (
    evaluate.merged({name: pair[side] for name, pair in systems.items()})
    if systems[a][side]
    else None
    for side in (0, 1)
  )
  judged = evaluate.judge(test, scores, args.rule, dev)
  for one in judged.comparisons:
    (of_a, subset), (of_b, subset_b) = (name.split(': ') for name in (one.a, one.b))
    if (of_a, of_b, subset) != (a, b, subset_b):
      continue
    row = {'test': test, 'subset': subset, 'a': a, 'b': b}
    row |= {
      f'acer_{side}': judged.found[of]['acer']
      for side, of in zip('ab', (one.a, one.b), strict=True)
    }
    found.append((row, one))
  return found


def _row(question: str, row: dict, one: comparisons.Comparison) -> dict:
  acer = one.rates['acer']
  return {
    'question': question,
    **row,
    'difference': acer.value,
    'low': acer.interval.low,
    'high': acer.interval.high,
    'p_holm': one.p_holm,
    'attacks_only_a_right': one.attacks.only_a_right,
    'attacks_only_b_right': one.attacks.only_b_right,
    'verdict': one.verdict,
  }
