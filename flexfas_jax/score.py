"""Judges score files of any framework: `python -m flexfas_jax.score --help`."""

import argparse
import json
import sys
from pathlib import Path

from flexfas_jax import label_mapping, schema
from flexfas_jax.errors import ConfigError, DataError, exit_code_of
from flexfas_jax.evaluation import (
  aggregation,
  bootstrap,
  disjoint,
  evaluate,
  metrics,
  reference_metrics,
  results,
  scales,
  score_files,
  sufficiency,
  thresholds,
)
from flexfas_jax.evaluation.report import image_lookup, tables
from flexfas_jax.files import write_text
from flexfas_jax.protocols import leakage

_HELP = """\
Prints the error rates of a score file, for every subset of modalities that it has scores of, with
their 95 % intervals, and compares the subsets with each other, or the file with others.

A score file is a CSV with the columns id,label,score; label is bona_fide or attack (or 1 or 0,
1 being bona fide), and a high score means bona fide. Instead of score there may be one column per
subset (rgb, rgb+depth, ...), and besides dataset, subject, video, attack_type, attack_category,
ethnicity; other columns are ignored. Cells are separated by commas, semicolons or tabs. An empty
score is a failure to acquire: counted, and not accepted. A column without any score is a subset
that the model does not serve. A video is identified by dataset, subject and video.

A sample is accepted when its score is at least the threshold, which is fitted on the development
scores under the same subset and never on the scores that it judges. Nobody may be in both files.

Intervals are Clopper and Pearson's over samples, and a bootstrap over people (over videos or
samples where people are not known). A rate of fewer than 29 samples, or of fewer than 10 subjects
(videos where subjects are not known), is not stated."""

_EXAMPLE = """\
examples:
  python -m flexfas_jax.score test.csv --dev=val.csv --json=metrics.json --report=report.html
  python -m flexfas_jax.score ours.csv --dev=ours_val.csv --against=theirs.csv \\
    --against_dev=theirs_val.csv
  python -m flexfas_jax.score test.csv --labels=live=bona_fide,spoof=attack --high_is=attack
  python -m flexfas_jax.score test.csv --dev=val.csv --by_video --group_by=ethnicity
  python -m flexfas_jax.score logits.csv --scale=logit --threshold=fixed=0.9

exit codes: 0 done; 2 wrong usage; 3 bad data (also a score that is nan, after the table; scores
outside [0, 1] with the default threshold; subjects in both files); 4 no threshold, or one of other
weights, or one fitted on the samples that it would be applied to"""


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: the arguments; the process's own if None.

  Returns:
    The exit code.
  """
  args = _parser().parse_args(argv)
  return exit_code_of(lambda: _score(args), args.debug)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m flexfas_jax.score',
    description=_HELP,
    epilog=_EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  rules = '; '.join(f'{rule}: {what}' for rule, what in thresholds.RULES.items()).replace('%', '%%')
  add = parser.add_argument
  add('scores', metavar='SCORES.csv', type=Path, help='what is judged')
  add('--dev', metavar='DEV.csv', type=Path, help="the development set's scores")
  add(
    '--threshold',
    metavar='RULE',
    help=f'{rules}. Default: dev_eer with --dev or --oracle, otherwise {thresholds.DEFAULT}',
  )
  add(
    '--oracle',
    action='store_true',
    help='allow a threshold fitted on the scores that it judges; every output then says ORACLE',
  )

  out = parser.add_argument_group('what is written').add_argument
  out('--json', metavar='FILE', type=Path, help='{subset: {metric: value}}; undefined is null')
  out('--report', metavar='FILE.html', type=Path, help='everything, with figures, in one file')
  out('--markdown', metavar='FILE.md', type=Path, help='tables for an issue or a page')
  out('--latex', metavar='FILE.tex', type=Path, help='tables for a paper (booktabs)')
  out('--title', help="the report's, and the test's name; default: the file's name")
  out(
    '--data_root',
    metavar='DIR',
    type=Path,
    help='where the pictures of the worst mistakes are: files called by the ids, or by the columns '
    'rgb, depth and ir of --columns',
  )

  how = parser.add_argument_group('how it is judged').add_argument
  how(
    '--against',
    metavar='OTHER.csv',
    type=Path,
    action='append',
    default=[],
    help='another system, compared on the same samples; may be given several times',
  )
  how(
    '--against_dev',
    metavar='DEV.csv',
    type=Path,
    action='append',
    default=[],
    help="each other system's development scores, in the order of --against",
  )
  frames = '; '.join(f'{rule}: {what}' for rule, what in aggregation.RULES.items())
  how(
    '--by_video',
    metavar='RULE',
    nargs='?',
    const='mean',
    choices=aggregation.RULES,
    help=f'judge videos, not frames. {frames}. Default: mean',
  )
  how(
    '--bootstrap',
    metavar='N',
    type=int,
    help=f'draws; 0: none. Default: {bootstrap.DRAWS}, none above {evaluate.MOST_SAMPLES} samples',
  )
  how('--seed', type=int, default=0, help='of the bootstrap')
  how(
    '--group_by',
    metavar='COLUMN,...',
    default='',
    help='rates and gaps by ethnicity, or any column of text',
  )
  how(
    '--columns',
    metavar='FILE.csv',
    type=Path,
    action='append',
    default=[],
    help='further columns, joined by id, e.g. the manifest.csv of a prepared set',
  )
  how(
    '--conventions',
    action='store_true',
    help="also the figures as FlexModal's and MM-FAS's code count them, under their names",
  )
  how(
    '--accept_known_leaks',
    metavar='NAME,...',
    default='',
    help='people who may be in both files, as published: ' + ', '.join(leakage.accepted_names()),
  )

  read = parser.add_argument_group("other frameworks' files").add_argument
  read(
    '--labels',
    metavar='VALUE=LABEL,...',
    help='what labels mean, e.g. live=bona_fide,spoof=attack; replaces 1=bona_fide,0=attack, and '
    'what is not in it is refused',
  )
  read(
    '--high_is',
    choices=schema.LABELS,
    default='bona_fide',
    help='what a high score means in files whose header does not state it; attack: scores are '
    'negated, and so are thresholds: fixed=T accepts where 1 - score >= T, which is shown as a '
    'threshold of T - 1',
  )
  read(
    '--scale',
    choices=scales.OPTIONS,
    default='',
    help='of the scores in the files, which are then compared with fixed=T as probabilities; '
    'thresholds are shown on the scale. Default: not stated; scores outside [0, 1] need --dev or '
    '--threshold',
  )
  read(
    '--score_column',
    metavar='NAME',
    default='',
    help='the column that holds the scores, where it is called neither score nor as a subset',
  )
  add('--debug', action='store_true', help='show the traceback of an error')
  return parser


def _score(args: argparse.Namespace) -> None:
  rule = args.threshold or ('dev_eer' if args.dev or args.oracle else thresholds.DEFAULT)
  needs_dev = thresholds.needs_dev(rule)  # wrong usage is reported before files are read
  group_by = [name for text in args.group_by.split(',') if (name := text.strip())]
  _check_usage(args, needs_dev)
  dialect = score_files.Dialect(
    labels=label_mapping.parse(args.labels) if args.labels is not None else None,
    high_is_attack=args.high_is == 'attack',
    scale=args.scale,
    text=tuple(group_by),
    score_column=args.score_column,
  )
  columns = score_files.read_columns(args.columns)

  systems, devs, remarks = {}, {}, []
  others = zip(args.against, args.against_dev or [None] * len(args.against), strict=True)
  for path, dev_path in [(args.scores, args.dev), *others]:
    scores = score_files.joined(score_files.read(path, dialect), columns)
    if not needs_dev:
      results.rule_of(scores, args.threshold)
    dev = score_files.joined(score_files.read(dev_path, dialect), columns) if dev_path else None
    if needs_dev:
      results.fitted_on(scores, rule, dev, args.oracle)
    if dev is not None and not (args.oracle and _same_samples(dev, scores)):
      accept = [name for name in args.accept_known_leaks.split(',') if name]
      remarks += disjoint.check(dev, scores, accept)
    for one in filter(None, (scores, dev)):
      remarks += _notes(one, args)
    name = path.stem if path.stem not in systems else str(path)
    systems[name], devs[name] = scores, dev
  scores, dev = systems[args.scores.stem], devs[args.scores.stem]
  if args.against:
    scores = evaluate.merged(systems)
    dev = evaluate.merged(devs) if args.against_dev else None

  scores, dev, told = _without_redundant(scores, dev, rule, args.oracle)
  if args.by_video:
    scores = aggregation.by_video(scores, args.by_video)
    dev = aggregation.by_video(dev, args.by_video) if dev else None
  judged = evaluate.judge(
    args.title or args.scores.stem,
    scores,
    rule,
    dev,
    args.oracle,
    args.bootstrap,
    args.seed,
    group_by,
    [*remarks, *told],
  )
  title = f'{args.scores}: percent, threshold {rule}'
  if needs_dev and args.dev:
    title += f' on {args.dev}'
  references = _references(scores, dev, rule) if args.conventions else {}
  try:
    _show(judged, title, references)
  finally:  # also where nobody reads what is printed any more: `... | head`
    for line in judged.remarks:
      print(line, file=sys.stderr)
    _write(args, judged, references)
    _require_no_nan([*systems.values(), *filter(None, devs.values())])


def _require_no_nan(files) -> None:
  """At the end: the other figures stand, and yet nobody may take such a file for a sound one."""
  for file in files:
    for subset, samples in file.nan_samples.items():
      raise DataError(
        f'{file.path}: {subset} is nan for {samples.size} samples (the first is id '
        f'{file.ids[samples[0]]}), counted as failures to acquire. If they are, leave the cells '
        'empty; if not, the model computed nan'
      )


def _notes(scores, args) -> list[str]:
  """What a reader of the figures should know of how a file was read."""
  notes = aggregation.video_notes(scores, bool(args.by_video))
  if args.high_is == 'attack' and 'polarity' in scores.header:
    notes.append(
      f'{scores.path}: its header states that a high score means bona fide; --high_is=attack is '
      'of the other files'
    )
  if scores.ignored and 'score' not in scores.scores:
    notes.append(
      f'{scores.path}: the columns {", ".join(scores.ignored)} are ignored: a column of scores is '
      'called by the modalities that the model was given'
    )
  return notes


def _check_usage(args: argparse.Namespace, needs_dev: bool) -> None:
  if args.against_dev and len(args.against_dev) != len(args.against):
    raise ConfigError('--against_dev: one for each --against, in their order')
  if needs_dev and args.against and args.dev and not args.against_dev:
    raise ConfigError(
      '--against needs --against_dev: a threshold that is fitted is of one system alone'
    )
  if args.against_dev and not args.dev:
    raise ConfigError('--against_dev needs --dev: every system has development scores, or none')
  if len({path.resolve() for path in args.against}) < len(args.against):
    raise ConfigError('--against names one file twice')
  if args.seed < 0:
    raise ConfigError(f'--seed={args.seed} must not be negative')
  if (args.bootstrap or 0) < 0:
    raise ConfigError(f'--bootstrap={args.bootstrap} is no number of draws; 0 draws none')
  inputs = [args.scores, args.dev, *args.against, *args.against_dev, *args.columns]
  outputs = {name: getattr(args, name) for name in ('json', 'report', 'markdown', 'latex')}
  names = {}  # by the file
  for name, out in outputs.items():
    if out is None:
      continue
    if not out.parent.is_dir():
      raise ConfigError(f'--{name}={out} cannot be written: No such folder: {out.parent}')
    other = names.setdefault(out.resolve(), name)
    if other != name and (out.is_file() or not out.exists()):
      raise ConfigError(f'--{other} and --{name} are the same file: {out}')
    for path in filter(None, inputs):
      if out.resolve() == path.resolve():
        raise ConfigError(f'--{name}={out} is read as well: name another')
      header = score_files.header_path(path)
      if out.resolve() == header.resolve() and score_files.read_header(header):
        raise ConfigError(f'--{name}={out} is the header of {path}: name another')


def _same_samples(dev, scores) -> bool:
  hashes = {score_files.list_hash(one.ids, one.label) for one in (dev, scores)}
  return len(hashes) == 1


def _without_redundant(scores, dev, rule, oracle):
  """(scores, dev, what to tell): rows that published lists have twice count once."""
  kept, n = aggregation.distinct(scores)
  if not n:
    return scores, dev, []
  told = [f'{n} redundant rows (ids that end in #2, #3, ...) are left out']
  found = results.results(scores, rule, dev, oracle)
  few = sufficiency.insufficient(scores, found)
  for subset, values in found.items():
    said = ', '.join(
      f'{name.upper()} {tables.stated(values[name], True, name in few[subset])}'
      for name in ('acer', 'apcer', 'bpcer')
    )
    told.append(f'{tables.shown(subset)}, counting them as published: {said}')
  return kept, aggregation.distinct(dev)[0] if dev else None, told


def _references(scores, dev, rule) -> dict[str, dict[str, float]]:
  """The figures as the references' code counts them, by subset."""
  found = {}
  for subset, score in scores.scores.items():
    threshold = scales.threshold('0.5', scores.scale_under(subset))
    if rule == 'dev_eer':
      of = dev or scores
      threshold = reference_metrics.eer_threshold(metrics.curve(of.label, of.scores[subset]))
    fm = reference_metrics.flex_modal_fas(scores.label, score, threshold)
    least, at = reference_metrics.least_acer(metrics.curve(scores.label, score))
    found[subset] = {f'flex_modal_fas/{name}': value for name, value in fm.items()} | {
      'mm_fas/ORACLE_least_acer': least,
      'mm_fas/ORACLE_least_acer_threshold': at,
    }
  return found


def _write(args: argparse.Namespace, judged: evaluate.Judgement, references: dict) -> None:
  found = evaluate.as_json(judged)
  for subset, values in references.items():
    found[subset] |= values

  def page() -> str:
    from flexfas_jax.evaluation.report import page  # matplotlib and jinja2: only who wants it pays

    find = None
    if args.data_root:
      find = image_lookup.below(args.data_root, score_files.read_columns(args.columns))
    return page.html([judged], args.title or args.scores.stem, find)

  texts = {
    'json': lambda: json.dumps(results.json_safe(found), indent=2, allow_nan=False) + '\n',
    'markdown': lambda: tables.markdown([judged]),
    'latex': lambda: tables.latex([judged]),
    'report': page,
  }
  for name, text in texts.items():
    if (path := getattr(args, name)) is None:
      continue
    try:
      write_text(path, text())
    except OSError as error:
      raise ConfigError(f'--{name}={path} cannot be written: {error.strerror}') from error


def _show(judged: evaluate.Judgement, title: str, references: dict) -> None:
  if not sys.stdout.isatty():
    print(tables.text(judged.found, title, insufficient=judged.insufficient))
    print(tables.interval_text(judged))
    if references:
      print('\n' + tables.reference_text(references, judged.insufficient))
    sys.stdout.flush()
    return
  from rich.console import Console  # only a terminal pays for it

  console = Console()
  # A terminal that is too narrow wraps the lines itself; nothing is left out.
  table = tables.drawn(judged.found, title, judged.insufficient)
  for part in (*table, *tables.interval_tables(judged)):
    console.print(part, crop=False, markup=False, highlight=False)
  if references:
    console.print(
      tables.reference_text(references, judged.insufficient), markup=False, highlight=False
    )


if __name__ == '__main__':
  sys.exit(main())
