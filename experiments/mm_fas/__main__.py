"""MM-FAS's whole recipe: pretrain, one model per left-out attack and seed, average, evaluate.

  python -m experiments.mm_fas --workdir=runs/mm_fas --data_dir=prepared

trains on the embedded, RENDERED faces: face recognition, then two networks (`faces`, initialised
from it, and `chance`, initialised at random), three folds, two seeds. It scores all members in one
program, averages them, and writes results.csv, comparisons.csv and results.png to this folder (or
--out). Every seed is a run of the whole recipe, face recognition included; comparisons are of means
over the seeds, with intervals over seeds and subjects. --seeds=0,1,2 makes them narrower.

Rerun the same command to resume an interrupted sweep. No run is trained twice, also when several
commands share a workdir. To use several machines, start each with its number and one workdir; when
all have ended, run the command without a number to evaluate:

  python -m experiments.mm_fas --workdir=... --index=0/4      # and 1/4, 2/4, 3/4

MM-FAS's own data, CASIA-SURF's challenge:

  python -m experiments.mm_fas --workdir=... --networks=resnet34_caffe,ir50 --at_once=1 \\
    --protocol='mm_fas_fold(fold={fold})' --folds=1,2,3 --tests=official_val --dev= \\
    --rule=fixed=0.5

Its official val is the test, so that there is no dev set; TPR@FPR needs none. Any set, any of its
attacks: --protocol='mm_fas_like(set=SET, attack={fold}, part={part})' --tests=test --dev= ...
"""

import argparse
import csv
import os
import pathlib
import sys
import time

from experiments.mm_fas import evaluation, plan, sweep
from flexfas_jax.errors import ConfigError, StateError, exit_code_of
from flexfas_jax.evaluation import thresholds

HERE = pathlib.Path(__file__).parent


def main(argv: list[str] | None = None) -> int:
  """Parses the command line and runs the sweep; returns the exit code."""
  args = parser().parse_args(argv)
  return exit_code_of(lambda: _sweep(args), args.debug)


def parser() -> argparse.ArgumentParser:
  """The parser of the command line."""
  parser = argparse.ArgumentParser(
    prog='python -m experiments.mm_fas',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    epilog='Exit codes: 0 done, 2 wrong usage, 3 bad data, 4 a run that failed or is missing, 143 '
    'stopped; rerun the same command to resume.',
  )
  add = parser.add_argument
  add('--workdir', type=pathlib.Path, required=True)
  add('--data_dir', default='prepared')
  add(
    '--networks',
    type=_split,
    default=[plan.CHANCE, plan.FACES],
    help=f'{plan.CHANCE}, {plan.FACES}, or recipes of configs/mm_fas.py (default: these two)',
  )
  add(
    '--seeds',
    type=lambda text: [int(x) for x in _split(text)],
    default=[7, 704],
    help='of the runs of the recipe; one seed shows nothing of another training (default: 7,704)',
  )
  add('--protocol', default=plan.PROTOCOL, help='{fold}, {part}, {size} are filled in')
  add('--folds', type=_split, default=_split(plan.FOLDS), help='the values of {fold}')
  add('--tests', type=_split, default=['seen', 'unseen', 'cross'], help='tests of the protocol')
  add('--dev', default='dev', help="the test that thresholds are fitted on; '': none")
  add(
    '--rule', default='dev_eer', help='of the threshold; without a dev set, fixed=T (%(default)s)'
  )
  add(
    '--views',
    type=lambda text: tuple(_split(text)),
    help='of val and tests (default: those of the config)',
  )
  add('--size', default='', help="of the embedded sets: '' or _tiny")
  add('--steps', type=int, default=0, help='of each member (default: those of the config)')
  add('--pretraining_steps', type=int, default=1000, help='of face recognition (%(default)s)')
  add('--change', action='append', default=[], metavar='FIELD=VALUE', help="in members' configs")
  add('--index', metavar='I/N', help='only train the share of machine I of N, counted from 0')
  add('--at_once', type=int, default=os.cpu_count() or 1, help='trainings (default: one per core)')
  add('--list', action='store_true', help='print the commands and exit')
  add('--out', type=pathlib.Path, default=HERE, help='for the tables and the figure')
  add('--debug', action='store_true', help='print tracebacks instead of messages')
  return parser


def _split(text: str) -> list[str]:
  return [part for part in text.split(',') if part]


def _log(line: str) -> None:
  print(line, flush=True)


def _sweep(args) -> None:
  if args.at_once < 1:
    raise ConfigError('--at_once must be at least 1')
  if thresholds.needs_dev(args.rule) and not args.dev:
    raise ConfigError(f'--rule={args.rule} is fitted on a dev set; give --dev, or --rule=fixed=0.5')
  runs = plan.runs(args)
  mine = plan.share(runs, *_index(args.index)) if args.index else runs
  if args.list:
    for run in mine:
      print(f'{run.name}{"  (trained)" if sweep.trained(run) else ""}\n  {" ".join(run.command)}')
    return
  args.workdir.mkdir(parents=True, exist_ok=True)
  start = time.perf_counter()
  sweep.train(mine, args.at_once, _log)
  if args.index:
    _log('This share is trained. When all are, run the command without --index to evaluate.')
    return
  members = plan.members(runs)
  _score(members)
  evaluation.average_scores(args, members, _log)
  rows, answers = evaluation.compute_rows(args, members, _log)
  args.out.mkdir(parents=True, exist_ok=True)
  _write(args.out / 'results.csv', evaluation.COLUMNS, rows)
  _write(args.out / 'comparisons.csv', evaluation.QUESTIONS, answers)
  from experiments.mm_fas import plot

  title = 'members, and the means of their scores'
  if args.protocol.startswith('rendered'):
    title = f'RENDERED faces: {title}'
    _log('\nRENDERED faces: no figure is comparable with photographs')
  plot.plot(rows, title, args.out / 'results.png')
  print('\n' + _table(rows) + '\n\n' + _answers(answers))
  print(f'\nWritten: {args.out}/results.csv, comparisons.csv, results.png')
  print(f'{(time.perf_counter() - start) / 60:.1f} minutes in all')


def _index(text: str) -> tuple[int, int]:
  index, slash, machines = text.partition('/')
  if not (slash and index.isdigit() and machines.isdigit() and int(index) < int(machines)):
    raise ConfigError(f'--index={text} is not I/N with I from 0 to N - 1')
  return int(index), int(machines)


def _score(members) -> None:
  """Scores all members in one program, in a separate process: this one imports no jax."""
  import subprocess

  if all((run.folder / 'results.json').exists() for run in members):
    _log('scored already')
    return
  command = [sys.executable, '-m', 'flexfas_jax.evaluate_members']
  log = members[0].folder.parent / 'evaluate_members.log'
  _log(f'scoring {len(members)} members in one program')
  with log.open('w') as out:
    done = subprocess.run([*command, *(str(run.folder) for run in members)], stdout=out, stderr=out)
  if done.returncode:
    raise StateError(f'scoring the members ended with {done.returncode}; see {log}')


def _write(file: pathlib.Path, columns, rows) -> None:
  with file.open('w', newline='') as out:
    writer = csv.DictWriter(out, columns, lineterminator='\n')
    writer.writeheader()
    for row in rows:
      writer.writerow({k: f'{v:.5f}' if isinstance(v, float) else v for k, v in row.items()})


def _table(rows) -> str:
  """Markdown: ACER of networks and the ensemble in percent, with intervals over subjects."""
  tests = list(dict.fromkeys(row['test'] for row in rows))
  lines = [
    '| subset | system | ' + ' | '.join(tests) + ' |',
    '| --- | --- |' + ' ---: |' * len(tests),
  ]
  found = {(r['system'], r['subset'], r['test']): r for r in rows if not r['seed']}
  for subset in dict.fromkeys(row['subset'] for row in rows):
    for system in dict.fromkeys(system for system, _, _ in found):
      cells = []
      for test in tests:
        r = found.get((system, subset, test))
        low, high = (100 * r[f'acer_{end}'] for end in ('low', 'high')) if r else (0, 0)
        cells.append(f'{100 * r["acer"]:.1f} [{low:.1f}, {high:.1f}]' if r else '-')
      lines.append(f'| {subset} | {system} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def _answers(answers) -> str:
  """Markdown: every comparison, with the difference of ACER in points."""
  lines = [
    '| question | test | subset | a | b | runs | b - a, points of ACER | |',
    '| --- |' + ' --- |' * 7,
  ]
  for row in answers:
    difference, low, high = (100 * row[k] for k in ('difference', 'low', 'high'))
    cells = [str(row[k]) for k in ('question', 'test', 'subset', 'a', 'b', 'runs')]
    cells += [f'{difference:+.1f} [{low:+.1f}, {high:+.1f}]', row['verdict']]
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


if __name__ == '__main__':
  sys.exit(main())
