"""Evaluates score files of any framework: `python -m flexfas_jax.score --help`."""

import argparse
import json
import sys
from pathlib import Path

from flexfas_jax import command_line, label_mapping, schema
from flexfas_jax.errors import ConfigError, DataError
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
from flexfas_jax.evaluation.report import formatting, image_lookup, tables
from flexfas_jax.files import write_text
from flexfas_jax.protocols import leakage

_DESCRIPTION = """\
Prints the error rates of a score file for every subset of modalities that it has scores of, with
95 % intervals. Compares the subsets with each other, or the file with others.

A score file is a CSV with the columns id,label,score. The label is bona_fide or attack (or 1 or 0,
1 being bona fide); a high score means bona fide. Instead of score there may be one column per
subset (rgb, rgb+depth, ...). Optional columns: dataset, subject, video, attack_type,
attack_category, ethnicity; others are ignored. Cells are separated by commas, semicolons or tabs.
An empty score is a failure to acquire: it is counted and not accepted. A column without any score
is a subset that the model does not serve. A video is identified by dataset, subject and video.

A sample is accepted if its score is at least the threshold. The threshold is fitted on the
development scores of the same subset, never on the test scores. The two files must not share
subjects.

Intervals are Clopper-Pearson intervals over samples and a bootstrap over subjects (over videos or
samples if subjects are unknown). A rate of fewer than 29 samples, or of fewer than 10 subjects
(videos if subjects are unknown), is not reported."""

_EXAMPLES = (
  'test.csv --dev=val.csv --json=metrics.json --report=report.html',
  'ours.csv --dev=ours_val.csv --against=theirs.csv \\\n    --against_dev=theirs_val.csv',
  'test.csv --labels=live=bona_fide,spoof=attack --high_is=attack',
  'test.csv --dev=val.csv --by_video --group_by=ethnicity',
  'logits.csv --scale=logit --threshold=fixed=0.9',
)

_EXIT_CODES = {
  3: 'bad data: an unreadable file; a score that is nan (reported after the table); scores outside '
  '[0, 1] with the default threshold; subjects in both files',
  4: 'no threshold; development scores of other weights or of the same samples',
}


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: the arguments; those of the process if None.

  Returns:
    The exit code.
  """
  return command_line.run(_parser(), _score, argv)


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser('score', _DESCRIPTION, _EXAMPLES, _EXIT_CODES)
  rules = '; '.join(f'{rule}: {what}' for rule, what in thresholds.RULES.items()).replace('%', '%%')
  add = parser.add_argument_group('scores and threshold').add_argument
  add('scores', metavar='SCORES.csv', type=Path, help='test scores')
  add('--dev', metavar='DEV.csv', type=Path, help='development scores')
  add(
    '--threshold',
    metavar='RULE',
    help=f'{rules}. Default: dev_eer with --dev or --oracle, otherwise {thresholds.DEFAULT}',
  )
  add(
    '--oracle',
    action='store_true',
    help='allow a threshold fitted on the test scores; every output is then marked ORACLE',
  )

  add = parser.add_argument_group('output').add_argument
  add('--json', metavar='FILE', type=Path, help='{subset: {metric: value}}; undefined is null')
  add('--report', metavar='FILE.html', type=Path, help='all results and figures in one file')
  add('--markdown', metavar='FILE.md', type=Path, help='tables for an issue or a web page')
  add('--latex', metavar='FILE.tex', type=Path, help='tables for a paper (booktabs)')
  add('--title', help='title of the report and name of the test; default: the name of the file')
  add(
    '--data_root',
    metavar='DIR',
    type=Path,
    help='folder with the images of the worst errors, for the report: files named by the ids, or '
    'by the columns rgb, depth and ir of --columns',
  )

  add = parser.add_argument_group('evaluation').add_argument
  add(
    '--against',
    metavar='OTHER.csv',
    type=Path,
    action='append',
    default=[],
    help='scores of another system on the same samples, for comparison; repeatable',
  )
  add(
    '--against_dev',
    metavar='DEV.csv',
    type=Path,
    action='append',
    default=[],
    help='development scores of each other system, in the order of --against',
  )
  frames = '; '.join(f'{rule}: {what}' for rule, what in aggregation.RULES.items())
  add(
    '--by_video',
    metavar='RULE',
    nargs='?',
    const='mean',
    choices=aggregation.RULES,
    help=f'evaluate videos instead of frames. {frames}. Default: mean',
  )
  add(
    '--bootstrap',
    metavar='N',
    type=int,
    help=f'number of replicates; 0: none. Default: {bootstrap.N_REPLICATES}, or none above '
    f'{evaluate.MOST_SAMPLES} samples',
  )
  add('--seed', type=int, default=0, help='of the bootstrap; default: %(default)s')
  add(
    '--group_by',
    metavar='COLUMN,...',
    default='',
    help='rates and gaps by groups: ethnicity, or any text column',
  )
  add(
    '--columns',
    metavar='FILE.csv',
    type=Path,
    action='append',
    default=[],
    help='further columns, joined by id, e.g. the manifest.csv of a prepared set; repeatable',
  )
  add(
    '--reference_metrics',
    action='store_true',
    help='also report the metrics as the code of FlexModal and MM-FAS defines them, under separate '
    'names',
  )
  # The name of the option until version 0.1.0.
  add('--conventions', dest='reference_metrics', action='store_true', help=argparse.SUPPRESS)
  add(
    '--accept_known_leaks',
    metavar='NAME,...',
    default='',
    help='allow published leaks: subjects in both files. ' + ', '.join(leakage.known_leak_names()),
  )

  add = parser.add_argument_group('files of other frameworks').add_argument
  add(
    '--labels',
    metavar='VALUE=LABEL,...',
    help='meaning of the labels, e.g. live=bona_fide,spoof=attack; replaces 1=bona_fide,0=attack. '
    'Other labels are refused',
  )
  add(
    '--high_is',
    choices=schema.LABELS,
    default='bona_fide',
    help='meaning of a high score in files whose header does not state it. attack: scores and '
    'thresholds are negated; fixed=T accepts if 1 - score >= T and is shown as the threshold T - 1',
  )
  add(
    '--scale',
    choices=scales.OPTIONS,
    default='',
    help='scale of the scores. fixed=T is a probability and is moved to this scale; thresholds are '
    'shown on it. Default: not stated; scores outside [0, 1] then need --dev or --threshold',
  )
  add(
    '--score_column',
    metavar='NAME',
    default='',
    help='the column with the scores, if its name is neither score nor a subset',
  )
  return parser


def _score(args: argparse.Namespace) -> None:
  rule = args.threshold or ('dev_eer' if args.dev or args.oracle else thresholds.DEFAULT)
  needs_dev = thresholds.needs_dev(rule)  # wrong usage is reported before files are read
  group_by = command_line.split_names(args.group_by)
  _check_usage(args, needs_dev)
  dialect = score_files.Dialect(
    labels=label_mapping.parse(args.labels) if args.labels is not None else None,
    high_is_attack=args.high_is == 'attack',
    scale=args.scale,
    text=tuple(group_by),
    score_column=args.score_column,
  )
  columns = score_files.read_columns(args.columns)

  systems, devs, notes = {}, {}, []
  others = zip(args.against, args.against_dev or [None] * len(args.against), strict=True)
  for path, dev_path in [(args.scores, args.dev), *others]:
    scores = score_files.join_columns(score_files.read(path, dialect), columns)
    if not needs_dev:
      results.resolve_rule(scores, args.threshold)
    dev = (
      score_files.join_columns(score_files.read(dev_path, dialect), columns) if dev_path else None
    )
    if needs_dev:
      results.development_scores(scores, rule, dev, args.oracle)
    if dev is not None and not (args.oracle and _same_samples(dev, scores)):
      accept = command_line.split_names(args.accept_known_leaks)
      notes += disjoint.check(dev, scores, accept)
    for one in filter(None, (scores, dev)):
      notes += _notes(one, args)
    name = path.stem if path.stem not in systems else str(path)
    systems[name], devs[name] = scores, dev
  scores, dev = systems[args.scores.stem], devs[args.scores.stem]
  if args.against:
    scores = evaluate.merge_systems(systems)
    dev = evaluate.merge_systems(devs) if args.against_dev else None

  scores, dev, notes_on_redundancy = _without_redundant(scores, dev, rule, args.oracle)
  if args.by_video:
    scores = aggregation.aggregate_by_video(scores, args.by_video)
    dev = aggregation.aggregate_by_video(dev, args.by_video) if dev else None
  result = evaluate.evaluate(
    args.title or args.scores.stem,
    scores,
    rule,
    dev,
    args.oracle,
    args.bootstrap,
    args.seed,
    group_by,
    [*notes, *notes_on_redundancy],
  )
  title = f'{args.scores}: percent, threshold {rule}'
  if needs_dev and args.dev:
    title += f' on {args.dev}'
  references = _references(scores, dev, rule) if args.reference_metrics else {}
  try:
    _show(result, title, references)
  finally:  # also after the reader of a pipe has left: `... | head`
    for line in result.notes:
      print(line, file=sys.stderr)
    _write(args, result, references)
    _require_no_nan([*systems.values(), *filter(None, devs.values())])


def _require_no_nan(files) -> None:
  """Raises DataError for nan, after all output: the metrics are complete, the file is not valid."""
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
  inputs = [path for path in inputs if path is not None]
  option_of = {}  # by output file
  for name in ('json', 'report', 'markdown', 'latex'):
    path = getattr(args, name)
    if path is None:
      continue
    command_line.check_output(f'--{name}', path, inputs)
    other = option_of.setdefault(path.resolve(), name)
    if other != name and (path.is_file() or not path.exists()):  # /dev/stdout may be given twice
      raise ConfigError(f'--{other} and --{name} are the same file: {path}')
    for scores in inputs:
      header = score_files.header_path(scores)
      if path.resolve() == header.resolve() and score_files.read_header(header):
        raise ConfigError(f'--{name}={path} is the header of {scores}: choose another file')


def _same_samples(dev, scores) -> bool:
  hashes = {score_files.list_hash(one.ids, one.label) for one in (dev, scores)}
  return len(hashes) == 1


def _without_redundant(scores, dev, rule, oracle):
  """(scores, dev, notes): rows that published lists have twice count once."""
  kept, n = aggregation.drop_redundant(scores)
  if not n:
    return scores, dev, []
  notes_on_redundancy = [f'{n} redundant rows (ids that end in #2, #3, ...) are left out']
  found = results.compute(scores, rule, dev, oracle)
  few = sufficiency.insufficient_metrics(scores, found)
  for subset, values in found.items():
    rates = ', '.join(
      f'{name.upper()} {formatting.rate_or_reason(values[name], True, name in few[subset])}'
      for name in ('acer', 'apcer', 'bpcer')
    )
    notes_on_redundancy.append(
      f'{formatting.display_name(subset)}, counting them as published: {rates}'
    )
  return kept, aggregation.drop_redundant(dev)[0] if dev else None, notes_on_redundancy


def _references(scores, dev, rule) -> dict[str, dict[str, float]]:
  """The figures as the references' code counts them, by subset."""
  found = {}
  for subset, score in scores.scores.items():
    threshold = scales.fixed_threshold('0.5', scores.scale_under(subset))
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


def _write(args: argparse.Namespace, result: evaluate.EvaluationResult, references: dict) -> None:
  found = evaluate.to_json(result)
  for subset, values in references.items():
    found[subset] |= values

  def page() -> str:
    from flexfas_jax.evaluation.report import page  # matplotlib and jinja2: only who wants it pays

    find = None
    if args.data_root:
      find = image_lookup.make_image_finder(args.data_root, score_files.read_columns(args.columns))
    return page.html([result], args.title or args.scores.stem, find)

  texts = {
    'json': lambda: json.dumps(results.json_safe(found), indent=2, allow_nan=False) + '\n',
    'markdown': lambda: tables.markdown([result]),
    'latex': lambda: tables.latex([result]),
    'report': page,
  }
  for name, text in texts.items():
    if (path := getattr(args, name)) is None:
      continue
    with command_line.writing(f'--{name}', path):
      write_text(path, text())


def _show(result: evaluate.EvaluationResult, title: str, references: dict) -> None:
  if not sys.stdout.isatty():
    print(tables.text(result.metrics, title, insufficient=result.insufficient))
    print(tables.interval_text(result))
    if references:
      print('\n' + tables.reference_text(references, result.insufficient))
    sys.stdout.flush()
    return
  from rich.console import Console  # only a terminal pays for it

  console = Console()
  # A terminal that is too narrow wraps the lines itself; nothing is left out.
  table = tables.drawn(result.metrics, title, result.insufficient)
  for part in (*table, *tables.interval_tables(result)):
    console.print(part, crop=False, markup=False, highlight=False)
  if references:
    console.print(
      tables.reference_text(references, result.insufficient), markup=False, highlight=False
    )


if __name__ == '__main__':
  sys.exit(main())
