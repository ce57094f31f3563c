"""Averages score files of many networks: `python -m flexfas_jax.ensemble --help`."""

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from flexfas_jax import command_line, label_mapping, schema
from flexfas_jax.errors import ConfigError
from flexfas_jax.evaluation import (
  aggregation,
  calibration,
  disjoint,
  results,
  scales,
  score_files,
  scores_without_ids,
  sufficiency,
  thresholds,
)
from flexfas_jax.evaluation.ensemble import averaging, members, recipe, validation
from flexfas_jax.evaluation.ensemble import files as ensemble_files
from flexfas_jax.evaluation.ensemble import tables as ensemble_tables
from flexfas_jax.evaluation.report import tables
from flexfas_jax.protocols import leakage

_DESCRIPTION = """\
Averages score files of the same samples over test-time views, then folds, then seeds, then
networks, so that a network with one seed counts as much as one with two. Writes the ensemble as a
score file, and prints the members of every mean and its metrics.

The network, seed and fold of a file are read from its header ("member": {"network": ..., "seed":
..., "fold": ..., "view": ...}), from its name or that of the run that contains scores/
(NETWORK_seedN_foldN), or by the pattern --name. If none is known, all files have equal weight.
Views are columns SUBSET@VIEW of a file, or separate files.

All members must have scored the same ids, with the same labels, under the same subsets, each member
once. A sample without a score of one member (an empty cell) has no score in the ensemble; a score
that is nan is refused."""

_EXAMPLES = (
  'vit_seed1.csv vit_seed2.csv resnet_seed1.csv --out=ensemble.csv',
  'runs/*/scores/intra.csv --dev runs/*/scores/val.csv \\\n'
  '    --calibrate=platt --out=ensemble.csv --dev_out=ensemble_val.csv --intermediate=means',
  "a/*.csv --name='{network}_{seed}_{fold}' --space=logit --out=e.csv",
  'exp*.csv --labels_from=val_labels.csv --views=crop0,crop0_hflip \\\n'
  "    --calibrate=piecewise=0.932107 --out=ensemble.csv      (MM-FAS's published scores)",
)

_EXIT_CODES = {
  2: 'wrong usage; a file given twice; unknown or ambiguous network, seed or fold',
  3: 'bad data: different ids, labels or subsets; nan; two files with the same scores',
  4: 'a member is missing, not fully trained, or has the weights of another; development scores of '
  'other weights or of the test samples',
}


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: the arguments; those of the process if None.

  Returns:
    The exit code.
  """
  return command_line.run(_parser(), _ensemble, argv)


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser('ensemble', _DESCRIPTION, _EXAMPLES, _EXIT_CODES)
  add = parser.add_argument_group('members').add_argument
  add('members', metavar='MEMBER.csv', type=Path, nargs='+', help='score files to average')
  add(
    '--dev',
    metavar='DEV.csv',
    type=Path,
    nargs='+',
    default=[],
    help="each member's development scores, matched by network, seed, fold and view",
  )

  add = parser.add_argument_group('output').add_argument
  add('--out', metavar='FILE.csv', type=Path, required=True, help='score file of the ensemble')
  add('--dev_out', metavar='FILE.csv', type=Path, help='development scores of the ensemble')
  add(
    '--intermediate',
    metavar='DIR',
    type=Path,
    help='folder for a score file of every mean, uncalibrated',
  )

  add = parser.add_argument_group('averaging').add_argument
  spaces = '; '.join(f'{name}: {what}' for name, what in averaging.SPACES.items())
  add('--space', choices=averaging.SPACES, default='probability', help=spaces)
  add(
    '--weights',
    choices=('equal', 'val'),
    default='equal',
    help=f'val: the weight of a fold, seed or network is {averaging.WEIGHING}; views always have '
    'equal weights',
  )
  methods = '; '.join(f'{name}: {what}' for name, what in calibration.METHODS.items())
  add(
    '--calibrate',
    metavar='METHOD',
    default='',
    help=f'{methods}; each is fitted on the ensemble of --dev. piecewise=T: with the given '
    'threshold T',
  )
  add('--subsets', metavar='NAME,...', default='', help='subsets to average; default: all')
  add(
    '--allow_incomplete',
    action='store_true',
    help='average the existing files although a fold or view is missing or a network is not fully '
    'trained',
  )
  rules = '; '.join(f'{rule}: {what}' for rule, what in thresholds.RULES.items()).replace('%', '%%')
  add(
    '--threshold',
    metavar='RULE',
    help=f'for the printed table and for piecewise. {rules}. Default: dev_eer with --dev, '
    f'otherwise {thresholds.DEFAULT}',
  )

  add = parser.add_argument_group('reading score files').add_argument
  add(
    '--name',
    metavar='PATTERN',
    help='pattern of the file names without .csv, with {network}, {seed}, {fold}, {view} and *, '
    "e.g. '{network}_seed{seed}/scores/*'",
  )
  add('--views', metavar='COLUMN,...', default='', help='columns that are views of one subset')
  add(
    '--labels_from',
    metavar='LIST.csv',
    type=Path,
    help='ids and labels of files without them, in the order of the rows',
  )
  add('--dev_labels_from', metavar='LIST.csv', type=Path, help='the same for --dev')
  add('--labels', metavar='VALUE=LABEL,...', help='meaning of the labels, as in flexfas_jax.score')
  add(
    '--high_is',
    choices=schema.LABELS,
    default='bona_fide',
    help='meaning of a high score in files whose header does not state it; attack: scores are '
    'negated',
  )
  add(
    '--scale',
    choices=scales.OPTIONS,
    default='',
    help='scale of the scores. The ensemble is on the same scale, negated with --high_is=attack, '
    'and its header states it; calibrated scores are probabilities. Default: probability',
  )
  add(
    '--accept_known_leaks',
    metavar='NAME,...',
    default='',
    help='allow published leaks: subjects in dev and test. '
    + ', '.join(leakage.known_leak_names()),
  )
  return parser


def _ensemble(args: argparse.Namespace) -> None:
  rule = args.threshold or ('dev_eer' if args.dev else thresholds.DEFAULT)
  chosen = recipe.Recipe(args.space, args.weights, args.calibrate, rule)
  _check_usage(args, chosen)
  subsets = command_line.split_names(args.subsets)
  own, known = _read(args, args.members, args.labels_from)
  own = validation.align(own, subsets)
  incomplete = validation.find_missing(own) if args.allow_incomplete else []
  if not args.allow_incomplete:
    validation.require_complete(own)
  notes = [f'incomplete, and allowed: {line}' for line in incomplete]
  devs = None
  if args.dev:
    devs, dev_known = _read(args, args.dev, args.dev_labels_from)
    if known and not dev_known:
      raise ConfigError(
        f'--dev: the network, seed and fold of {devs[0].path} are not known; give the pattern of '
        "the names, with * for what differs: --name='{network}_seed{seed}_fold{fold}*'"
      )
    devs = validation.match_dev(own, validation.align(devs, subsets), known and dev_known)
    sides = devs[0].scores, own[0].scores
    notes += disjoint.check(*sides, command_line.split_names(args.accept_known_leaks))
    notes += [n for scores in sides for n in aggregation.video_notes(scores, by_name=False)]
  notes += validation.notes(own)
  if args.labels_from or args.dev_labels_from:
    notes.append('files without ids: their rows are taken to be in the order of the list')

  made = {s: recipe.average(chosen, own, devs, s) for s in own[0].subsets}
  names = _write(args, chosen, own, devs, made, incomplete)  # first: `... | head` ends what prints
  print(_headline(args, own, known))
  for subset, one in made.items():
    lacking = dict.fromkeys(m for member in own for m in member.scores.not_recorded(subset))
    _show(chosen, subset, one, sufficiency.insufficient_class_metrics(own[0].scores), lacking)
  print('\n' + _describe_output(args, own, made, names))
  for line in notes:
    print(line, file=sys.stderr)


def _check_usage(args: argparse.Namespace, chosen: recipe.Recipe) -> None:
  if chosen.rule == thresholds.BUNDLE:
    raise ConfigError(
      '--threshold=bundle is of one bundle; the average of several scores has another: give --dev '
      'and a rule that is fitted on it, such as dev_eer'
    )
  for asked, flag in (
    (args.weights == 'val', '--weights=val'),
    (chosen.fits_calibration, f'--calibrate={args.calibrate}'),
    (thresholds.needs_dev(chosen.rule), f'--threshold={args.threshold}'),
    (args.dev_out, '--dev_out'),
    (args.dev_labels_from, '--dev_labels_from'),
  ):
    if asked and not args.dev:
      raise ConfigError(f'{flag} needs --dev: nothing may be fitted on the evaluated scores')
  inputs = [*args.members, *args.dev]
  inputs += [score_files.header_path(path) for path in inputs]
  inputs += [path for path in (args.labels_from, args.dev_labels_from) if path]
  outputs = [(name, path) for name in ('out', 'dev_out') if (path := getattr(args, name))]
  for name, path in outputs:
    if path.suffix != '.csv':
      raise ConfigError(f'--{name}={path}: a score file must be named NAME.csv')
    for output in (path, score_files.header_path(path)):
      command_line.check_output(f'--{name}', output, inputs)
  if len({path.resolve() for _, path in outputs}) < len(outputs):
    raise ConfigError('--out and --dev_out are the same file')
  if args.intermediate and args.intermediate.resolve() in {p.resolve().parent for p in inputs}:
    raise ConfigError(f'--intermediate={args.intermediate} contains inputs: choose another folder')


def _read(args, paths: Sequence[Path], labels_from: Path | None):
  dialect = score_files.Dialect(
    labels=label_mapping.parse(args.labels) if args.labels is not None else None,
    high_is_attack=args.high_is == 'attack',
    views=tuple(command_line.split_names(args.views)),
    scale=args.scale,
  )
  reader = functools.partial(score_files.read, dialect=dialect)
  if labels_from:
    samples = scores_without_ids.read_list(labels_from, dialect)
    reader = functools.partial(scores_without_ids.read, samples=samples, dialect=dialect)
  name = members.compile_pattern(args.name) if args.name else None
  return members.read(paths, reader, name, command_line.split_names(args.views))


def _headline(args, own, known: bool) -> str:
  what = ['probabilities', 'logits'][args.space == 'logit']
  if known:
    order = ', then '.join(f'{name}s' for name in averaging.ORDER)
    how = f'means of {what} over {order}'
  else:
    how = (
      f'one mean of {what}: of no file the network, seed or fold is known (its header, its name, '
      '--name), so all are alike'
    )
  weighted = f'; weights: {averaging.WEIGHING}' if args.weights == 'val' else ''
  views = {view for m in own for s in m.subsets for view in m.views(s)} - {''}
  seen = f'; views: {", ".join(sorted(views))}' if views else ''
  rendered = any(results.is_rendered(member.scores) for member in own)
  mark = f'; {tables.MARKS[results.RENDERED]}' if rendered else ''
  return f'{len(own)} files; {how}{weighted}{seen}{mark}'


def _show(chosen, subset: str, one: recipe.Averaged, insufficient, lacking) -> None:
  if lacking:
    print(f'\n{subset}: not recorded: no sample has {" or ".join(lacking)}')
    return
  if not one.served:
    print(f'\n{subset}: no sample has a score of every member; not served')
    return
  dev = one.dev_means is not None
  on = ' on dev' if thresholds.needs_dev(chosen.rule) else ''
  print(f'\n{subset}: percent, threshold {chosen.rule}{on}')
  print(ensemble_tables.text(one, chosen.rule, insufficient))
  print(f'* the member of the least EER {"on dev" if dev else "on these very scores (ORACLE)"}')
  if one.calibration:
    print('\n' + ensemble_tables.calibration_text(one, chosen.fits_calibration, insufficient))


def _write(args, chosen, own, devs, made, incomplete) -> dict[tuple[str, ...], str]:
  """Writes all files; returns the names of the intermediate ones."""
  weights = calibrations = None
  if chosen.weights == 'val':
    weights = {s: one.weights for s, one in made.items() if one.weights}
  if chosen.calibrate:
    calibrations = {s: one.calibration for s, one in made.items() if one.calibration}
  fitted_on = devs if chosen.fits else None

  def write(path: Path, samples, of, scores, scale: str, calibrated=None) -> None:
    about = ensemble_files.header(of, chosen.space, weights, calibrated, fitted_on, incomplete)
    ensemble_files.write(path, samples, scores, about, scale)

  first = next(iter(made.values()))
  final_scale = next((one.final_scale for one in made.values() if one.served), first.scale)
  names = ensemble_files.names(first.tree) if args.intermediate else {}
  if args.intermediate:
    try:
      args.intermediate.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise ConfigError(
        f'--intermediate={args.intermediate} cannot be made: {error.strerror}'
      ) from error
  for side, out, suffix in ((own, args.out, ''), (devs, args.dev_out, '_dev')):
    if side is None:
      continue
    dev = side is devs
    for key, name in names.items():
      of = [member for member in side if member.at[: len(key)] == key]
      scores = {s: (one.dev_means if dev else one.means)[key] for s, one in made.items()}
      write(args.intermediate / f'{name}{suffix}.csv', side, of, scores, first.scale)
    if out:
      final = {s: one.final(dev) for s, one in made.items()}
      write(out, side, side, final, final_scale, calibrations)
  return names


def _describe_output(args, own, made, names) -> str:
  """Where the ensemble is, and the command that compares it with its best member."""
  command = ['python -m flexfas_jax.score', str(args.out)]
  served = [one for one in made.values() if one.served]
  files = []
  if served:
    best = ensemble_tables.strip_unknown(ensemble_tables.best_member(served[-1]))
    if names:
      files = [args.intermediate / f'{names[best]}{suffix}.csv' for suffix in ('', '_dev')]
    else:
      files = [m.path for m in own if ensemble_tables.strip_unknown(m.at[:3]) == best]
      plain = len(files) == 1 and not any('@' in s for m in own for s in m.scores.scores)
      files = files if plain and not args.labels_from and not args.dev_out else []
  if args.dev_out:
    command.append(f'--dev={args.dev_out}')
  if files:
    command.append(f'--against={files[0]}')
    if args.dev_out:
      command.append(f'--against_dev={files[1]}')
    if not names:  # a member's own file states no scale; what the ensemble states is believed
      if args.high_is == 'attack':
        command.append('--high_is=attack')
      if args.scale:
        command.append(f'--scale={args.scale}')
  more = '' if files or not served else '\nwith --intermediate=DIR, also against its best member'
  return f'Written: {args.out}. To evaluate it:\n  {" ".join(command)}{more}'


if __name__ == '__main__':
  sys.exit(main())
