"""Averages score files of many networks: `python -m flexfas_jax.ensemble --help`."""

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from flexfas_jax import label_mapping, schema
from flexfas_jax.errors import ConfigError, exit_code_of
from flexfas_jax.evaluation import (
  aggregation,
  bare_scores,
  calibration,
  disjoint,
  scales,
  score_files,
  sufficiency,
  thresholds,
)
from flexfas_jax.evaluation.ensemble import averaging, members, recipe, validation
from flexfas_jax.evaluation.ensemble import files as ensemble_files
from flexfas_jax.evaluation.ensemble import tables as ensemble_tables
from flexfas_jax.protocols import leakage

_HELP = """\
Averages score files of the same samples, over test-time views, then folds, then seeds, then
networks, so that a network with one seed counts as much as one with two; writes the ensemble as a
score file, and prints what was averaged with what, and what each mean gained.

Which network, seed and fold a file is of stands in its header ("member": {"network": ..., "seed":
..., "fold": ..., "view": ...}), or in its name or that of the run whose scores/ it lies in
(NETWORK_seedN_foldN), or where --name says. Where nothing is known, all files are alike. Views are
columns SUBSET@VIEW of a file, or files of their own.

Every member must have scored the same ids, with the same labels, under the same subsets, once. A
sample that one member has no score of (an empty cell) has none in the ensemble; a score that is nan
is refused."""

_EXAMPLE = """\
examples:
  python -m flexfas_jax.ensemble vit_seed1.csv vit_seed2.csv resnet_seed1.csv --out=ensemble.csv
  python -m flexfas_jax.ensemble runs/*/scores/intra.csv --dev runs/*/scores/val.csv \\
    --calibrate=platt --out=ensemble.csv --dev_out=ensemble_val.csv --intermediate=means
  python -m flexfas_jax.ensemble a/*.csv --name='{network}_{seed}_{fold}' --space=logit --out=e.csv
  python -m flexfas_jax.ensemble exp*.csv --labels_from=val_labels.csv --views=crop0,crop0_hflip \\
    --calibrate=piecewise=0.932107 --out=ensemble.csv      (MM-FAS's published scores)

exit codes: 0 done; 2 wrong usage, a file given twice, coordinates that are not clear; 3 bad data:
other ids, labels or subsets, nan, two files with the same scores; 4 a member missing, half trained,
or of the same weights as another; dev scores of other weights, or of the samples that are judged"""


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: the arguments; the process's own if None.

  Returns:
    The exit code.
  """
  args = _parser().parse_intermixed_args(argv)
  return exit_code_of(lambda: _ensemble(args), args.debug)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m flexfas_jax.ensemble',
    description=_HELP,
    epilog=_EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('members', metavar='MEMBER.csv', type=Path, nargs='+', help='score files to average')
  add('--out', metavar='FILE.csv', type=Path, required=True, help="the ensemble's score file")
  add(
    '--dev',
    metavar='DEV.csv',
    type=Path,
    nargs='+',
    default=[],
    help="each member's development scores, matched by network, seed, fold and view",
  )
  add('--dev_out', metavar='FILE.csv', type=Path, help="the ensemble's development scores")
  add(
    '--intermediate', metavar='DIR', type=Path, help='also every mean as a score file, uncalibrated'
  )

  how = parser.add_argument_group('how it is averaged').add_argument
  spaces = '; '.join(f'{name}: {what}' for name, what in averaging.SPACES.items())
  how('--space', choices=averaging.SPACES, default='probability', help=spaces)
  how(
    '--weights',
    choices=('equal', 'val'),
    default='equal',
    help=f'val: a fold, seed or network weighs {averaging.WEIGHING}; views are always alike',
  )
  methods = '; '.join(f'{name}: {what}' for name, what in calibration.METHODS.items())
  how(
    '--calibrate',
    metavar='METHOD',
    default='',
    help=f'{methods}; all fitted on the ensemble of --dev. piecewise=T: a threshold that is known',
  )
  how('--subsets', metavar='NAME,...', default='', help='those to average; default: all')
  how(
    '--allow_incomplete',
    action='store_true',
    help='average what there is, though a fold or view is missing or a network half trained',
  )
  rules = '; '.join(f'{rule}: {what}' for rule, what in thresholds.RULES.items()).replace('%', '%%')
  how(
    '--threshold',
    metavar='RULE',
    help=f'of the table, and of piecewise. {rules}. Default: dev_eer with --dev, or else '
    f'{thresholds.DEFAULT}',
  )

  read = parser.add_argument_group('how files are read').add_argument
  read('--name', metavar='PATTERN', help="of the files' names, with {network}, {seed}, {fold}, "
       "{view} and *, e.g. '{network}_seed{seed}/scores/*'; without .csv")  # fmt: skip
  read('--views', metavar='COLUMN,...', default='', help='columns that are views of one subset')
  read(
    '--labels_from',
    metavar='LIST.csv',
    type=Path,
    help='ids and labels of files that have none, row by row',
  )
  read('--dev_labels_from', metavar='LIST.csv', type=Path, help='the same for --dev')
  read('--labels', metavar='VALUE=LABEL,...', help='as flexfas_jax.score has it')
  read(
    '--high_is',
    choices=schema.LABELS,
    default='bona_fide',
    help='what a high score means in files whose header does not state it; attack: scores are '
    'negated',
  )
  read(
    '--scale',
    choices=scales.OPTIONS,
    default='',
    help='of the scores in the files; what is written is on the same scale, negated with '
    '--high_is=attack, and its header states it. Calibrated scores are probabilities. Default: '
    'probabilities',
  )
  read(
    '--accept_known_leaks',
    metavar='NAME,...',
    default='',
    help='people who may be in dev and test, as published: ' + ', '.join(leakage.accepted_names()),
  )
  add('--debug', action='store_true', help='show the traceback of an error')
  return parser


def _ensemble(args: argparse.Namespace) -> None:
  rule = args.threshold or ('dev_eer' if args.dev else thresholds.DEFAULT)
  chosen = recipe.Recipe(args.space, args.weights, args.calibrate, rule)
  _check_usage(args, chosen)
  subsets = _listed(args.subsets)
  own, known = _read(args, args.members, args.labels_from)
  own = validation.agreed(own, subsets)
  incomplete = validation.incomplete(own) if args.allow_incomplete else []
  if not args.allow_incomplete:
    validation.require_complete(own)
  remarks = [f'incomplete, and allowed: {line}' for line in incomplete]
  devs = None
  if args.dev:
    devs, dev_known = _read(args, args.dev, args.dev_labels_from)
    if known and not dev_known:
      raise ConfigError(
        f'--dev: which network, seed and fold {devs[0].path} is of is not known; say how names '
        "are made, with * for what differs: --name='{network}_seed{seed}_fold{fold}*'"
      )
    devs = validation.matched(own, validation.agreed(devs, subsets), known and dev_known)
    sides = devs[0].scores, own[0].scores
    remarks += disjoint.check(*sides, _listed(args.accept_known_leaks))
    remarks += [n for scores in sides for n in aggregation.video_notes(scores, by_name=False)]
  remarks += validation.remarks(own)
  if args.labels_from or args.dev_labels_from:
    remarks.append('files without ids: their rows are taken to be in the order of the list')

  made = {s: recipe.average(chosen, own, devs, s) for s in own[0].subsets}
  names = _write(args, chosen, own, devs, made, incomplete)  # first: `... | head` ends what prints
  print(_headline(args, own, known))
  for subset, one in made.items():
    _show(chosen, subset, one, sufficiency.rates_of_classes(own[0].scores))
  print('\n' + _how_to_judge(args, own, made, names))
  for line in remarks:
    print(line, file=sys.stderr)


def _listed(text: str) -> list[str]:
  return [name for name in text.split(',') if name]


def _check_usage(args: argparse.Namespace, chosen: recipe.Recipe) -> None:
  for asked, flag in (
    (args.weights == 'val', '--weights=val'),
    (chosen.fits_calibration, f'--calibrate={args.calibrate}'),
    (thresholds.needs_dev(chosen.rule), f'--threshold={args.threshold}'),
    (args.dev_out, '--dev_out'),
    (args.dev_labels_from, '--dev_labels_from'),
  ):
    if asked and not args.dev:
      raise ConfigError(f'{flag} needs --dev: nothing is fitted on the scores that are judged')
  inputs = {path.resolve() for path in (*args.members, *args.dev)}
  inputs |= {score_files.header_path(path).resolve() for path in (*args.members, *args.dev)}
  inputs |= {path.resolve() for path in (args.labels_from, args.dev_labels_from) if path}
  outputs = [(name, path) for name in ('out', 'dev_out') if (path := getattr(args, name))]
  for name, path in outputs:
    if path.suffix != '.csv':
      raise ConfigError(f'--{name}={path}: a score file is called NAME.csv')
    if not path.parent.is_dir():
      raise ConfigError(f'--{name}={path} cannot be written: No such folder: {path.parent}')
    if {path.resolve(), score_files.header_path(path).resolve()} & inputs:
      raise ConfigError(f'--{name}={path} is read as well: name another')
  if len({path.resolve() for _, path in outputs}) < len(outputs):
    raise ConfigError('--out and --dev_out are the same file')
  if args.intermediate and args.intermediate.resolve() in {p.parent for p in inputs}:
    raise ConfigError(f'--intermediate={args.intermediate} holds what is read: name another folder')


def _read(args, paths: Sequence[Path], labels_from: Path | None):
  dialect = score_files.Dialect(
    labels=label_mapping.parse(args.labels) if args.labels is not None else None,
    high_is_attack=args.high_is == 'attack',
    views=tuple(_listed(args.views)),
    scale=args.scale,
  )
  reader = functools.partial(score_files.read, dialect=dialect)
  if labels_from:
    samples = bare_scores.read_list(labels_from, dialect)
    reader = functools.partial(bare_scores.read, samples=samples, dialect=dialect)
  name = members.pattern(args.name) if args.name else None
  return members.read(paths, reader, name, _listed(args.views))


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
  return f'{len(own)} files; {how}{weighted}{seen}'


def _show(chosen, subset: str, one: recipe.Averaged, insufficient) -> None:
  if not one.served:
    print(f'\n{subset}: no sample has a score of every member; not served')
    return
  dev = one.dev_means is not None
  on = ' on dev' if thresholds.needs_dev(chosen.rule) else ''
  print(f'\n{subset}: percent, threshold {chosen.rule}{on}')
  print(ensemble_tables.text(one, chosen.rule, insufficient))
  print(f'* the member of the least EER {"on dev" if dev else "on these very scores (ORACLE)"}')
  if one.calibration:
    print('\n' + ensemble_tables.effect_text(one, chosen.fits_calibration, insufficient))


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


def _how_to_judge(args, own, made, names) -> str:
  """Where the ensemble is, and the command that compares it with its best member."""
  command = ['python -m flexfas_jax.score', str(args.out)]
  served = [one for one in made.values() if one.served]
  files = []
  if served:
    best = ensemble_tables.known(ensemble_tables.best(served[-1]))
    if names:
      files = [args.intermediate / f'{names[best]}{suffix}.csv' for suffix in ('', '_dev')]
    else:
      files = [m.path for m in own if ensemble_tables.known(m.at[:3]) == best]
      plain = len(files) == 1 and not any('@' in s for m in own for s in m.scores.scores)
      files = files if plain and not args.labels_from and not args.dev_out else []
  if args.dev_out:
    command.append(f'--dev={args.dev_out}')
  if files:
    command.append(f'--against={files[0]}')
    if args.dev_out:
      command.append(f'--against_dev={files[1]}')
    if (
      not names
    ):  # a member's own file, which states no scale; what the ensemble states is believed
      command += [f'--high_is={args.high_is}'] * (args.high_is == 'attack')
      command += [f'--scale={args.scale}'] * bool(args.scale)
  more = '' if files or not served else '\nwith --intermediate=DIR, also against its best member'
  return f'Written: {args.out}. To judge it:\n  {" ".join(command)}{more}'


if __name__ == '__main__':
  sys.exit(main())
