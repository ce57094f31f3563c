"""Evaluates score files of any framework: `python -m flexfas_jax.score --help`."""

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

from flexfas_jax import command_line, label_mapping, schema
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.evaluation import (
  aggregation,
  bootstrap,
  disjoint,
  evaluate,
  metrics,
  pass_if,
  reference_metrics,
  results,
  scales,
  score_files,
  sufficiency,
  thresholds,
)
from flexfas_jax.evaluation.report import (
  formatting,
  image_lookup,
  record,
  tables,
  test_description,
)
from flexfas_jax.files import write_text
from flexfas_jax.protocols import leakage

_DESCRIPTION = """\
Prints the error rates of a score file for every subset of modalities that it has scores of, with
95 % intervals. Compares the subsets with each other, or the file with others.

Another training of the same method gives other rates. Several training runs of a method, the same
samples scored by each, are given as FILE,FILE,...; the result is their mean, with an interval over
runs and subjects. With one run the intervals cover subjects alone, and no method is called better.

A score file is a CSV with the columns id,label,score. The label is bona_fide or attack (or 1 or 0,
1 being bona fide); a high score means bona fide. Instead of score there may be one column per
subset (rgb, rgb+depth, ...). Optional columns: dataset, subject, video, attack_type,
attack_category, ethnicity; others are ignored. Cells are separated by commas, semicolons or tabs.
An empty score is a failure to acquire: it is counted and not accepted. A column without any score
is a subset that the model does not serve. A video is identified by dataset, subject and video.

A sample is accepted if its score is at least the threshold. The threshold is fitted on the
development scores of the same subset, never on the test scores. The two files must not share
subjects.

Intervals over samples are exact for shares of samples (Clopper-Pearson) and approximate for ACER;
those over subjects are a bootstrap (over videos or samples if subjects are unknown). A rate of
fewer than 29 samples, or of fewer than 10 subjects (videos if subjects are unknown), is not
reported."""

_EXAMPLES = (
  'test.csv --dev=val.csv --json=metrics.json --report=report.html',
  'ours.csv --dev=ours_val.csv --against=theirs.csv \\\n    --against_dev=theirs_val.csv',
  'ours=a1.csv,a2.csv,a3.csv --against=theirs=b1.csv,b2.csv,b3.csv',
  'test.csv --labels=live=bona_fide,spoof=attack --high_is=attack',
  'test.csv --dev=val.csv --by_video --group_by=ethnicity',
  'logits.csv --scale=logit --threshold=fixed=0.9',
)

_OUTPUTS = ('json', 'report', 'record', 'markdown', 'latex')
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
  failed: list[int] = []
  code = command_line.run(_parser(), lambda args: _score(args, failed), argv)
  return code or (failed[0] if failed else 0)


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser('score', _DESCRIPTION, _EXAMPLES, _EXIT_CODES)
  rules = '; '.join(f'{rule}: {what}' for rule, what in thresholds.RULES.items()).replace('%', '%%')
  add = parser.add_argument_group('scores and threshold').add_argument
  add(
    'scores',
    metavar='SCORES.csv',
    type=_parse_runs,
    help='test scores; [NAME=]FILE,FILE,... are training runs of one method, called NAME',
  )
  add(
    '--dev',
    metavar='DEV.csv',
    type=_parse_files,
    help='development scores; of several runs FILE,FILE,..., in their order',
  )
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

  add(
    '--pass_if',
    metavar='REQUIREMENT',
    help='what every subset must meet, e.g. apcer_max<=5%%,bpcer<=3%%, or one of them, e.g. '
    'rgb+depth:apcer_max<=5%%; outputs then state PASS or FAIL. The limit of the 95 %% interval is '
    'compared; with at=point among the requirements, the figure itself. Default: no requirement',
  )
  add(
    '--fail_exit',
    metavar='CODE',
    type=int,
    default=0,
    help='exit code if the verdict is FAIL, from 6 to 63. Default: 0, since FAIL is a result',
  )

  add = parser.add_argument_group('output').add_argument
  add('--json', metavar='FILE', type=Path, help='{subset: {metric: value}}; undefined is null')
  add('--report', metavar='FILE.html', type=Path, help='all results and figures in one file')
  add(
    '--record',
    metavar='FILE.json',
    type=Path,
    help='the contents of the report as JSON; evaluation/report/record.schema.json is its schema',
  )
  add(
    '--test_toml',
    metavar='FILE',
    type=Path,
    help='what the laboratory states in the report: item under test, conditions, capture device, '
    'PAI species, operator, date (docs/how-to/evaluate-scores.md)',
  )
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
    type=_parse_runs,
    action='append',
    default=[],
    help='scores of another system on the same samples, for comparison, or its runs, '
    '[NAME=]FILE,FILE,...; repeatable',
  )
  add(
    '--against_dev',
    metavar='DEV.csv',
    type=_parse_files,
    action='append',
    default=[],
    help='development scores of each other system, in the order of --against',
  )
  add(
    '--paired_runs',
    action='store_true',
    help='run i of every system shares its seed and data with run i of the others; default: the '
    'runs of two systems are independent',
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


def _score(args: argparse.Namespace, failed: list[int]) -> None:
  """Runs the command; adds the exit code of a verdict that is FAIL to `failed`."""
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

  systems, devs, runs, notes = {}, {}, {}, []
  others = zip(args.against, args.against_dev or [None] * len(args.against), strict=True)
  for method, dev_paths in [(args.scores, args.dev), *others]:
    name = method.name if method.name not in runs else method.text
    runs[name] = method.columns(name)
    of_dev = dev_paths or [None] * len(method.paths)
    for run, path, dev_path in zip(runs[name], method.paths, of_dev, strict=True):
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
      systems[run], devs[run] = scores, dev
    _require_different_runs([systems[run] for run in runs[name]])
  scores, dev = next(iter(systems.values())), next(iter(devs.values()))
  if len(systems) > 1:
    scores = evaluate.merge_systems(systems)
    dev = evaluate.merge_systems(devs) if None not in devs.values() else None

  pass_if.parse(args.pass_if, results.rates_by_attack(scores))

  scores, dev, notes_on_redundancy = _without_redundant(scores, dev, rule, args.oracle)
  if args.by_video:
    scores = aggregation.aggregate_by_video(scores, args.by_video)
    dev = aggregation.aggregate_by_video(dev, args.by_video) if dev else None
  result = evaluate.evaluate(
    args.title or args.scores.name,
    scores,
    rule,
    dev,
    args.oracle,
    args.bootstrap,
    args.seed,
    group_by,
    list(dict.fromkeys([*notes, *notes_on_redundancy])),
    runs=runs if len(systems) > 1 else None,
    paired_runs=args.paired_runs,
    requirement=args.pass_if,
  )
  if formatting.verdict_word(result) == formatting.FAIL:  # also if the reader of a pipe has left
    failed.append(args.fail_exit)
  title = f'{args.scores.text}: percent, threshold {rule}'
  if needs_dev and args.dev:
    title += f' on {",".join(map(str, args.dev))}'
  references = _references(scores, dev, rule) if args.reference_metrics else {}
  described = None
  if args.test_toml:
    described = test_description.read(args.test_toml, record.species_names(result.scores))
  try:
    _show(result, title, references)
  finally:  # also after the reader of a pipe has left: `... | head`
    for line in result.notes:
      print(line, file=sys.stderr)
    _write(args, result, references, described)
    _require_no_nan([*systems.values(), *filter(None, devs.values())])


class _Method(NamedTuple):
  """A system that is evaluated, with one training run or several."""

  text: str  # as given
  name: str
  paths: list[Path]  # a score file for each run

  def columns(self, name: str) -> tuple[str, ...]:
    """The names of the runs."""
    n = len(self.paths)
    return (name,) if n == 1 else tuple(f'{name} run {i}' for i in range(1, n + 1))


def _parse_runs(text: str) -> _Method:
  """'[NAME=]FILE,FILE,...'; a file that exists under the whole text is that file."""
  name, equals, files = text.partition('=')
  if not equals or '/' in name or Path(text).exists() or Path(text.split(',')[0]).exists():
    name, files = '', text
  paths = _parse_files(files)
  if not name:
    name = paths[0].stem
    if len(paths) > 1:  # a1, a2, a3 are runs of a
      common = os.path.commonprefix([path.stem for path in paths])
      # What is common of a10 and a11 ends in a digit of the number, that of a2-0 and a2-1 does not.
      bare = common.rstrip('_-. ')
      bare = bare if bare != common else common.rstrip('0123456789').rstrip('_-. ')
      name = name if common == name else bare or name
  return _Method(text, name, paths)


def _parse_files(text: str) -> list[Path]:
  """'FILE,FILE,...'; a file whose name has a comma is that file."""
  if Path(text).exists():
    return [Path(text)]
  return [Path(name) for name in text.split(',') if name] or [Path(text)]


def _require_different_runs(runs) -> None:
  """Raises DataError for a run that is given twice: its spread would be 0."""
  seen = {}
  for run in runs:
    key = run.header.get('weights_hash') or tuple(
      (name, values.tobytes()) for name, values in sorted(run.scores.items())
    )
    if (other := seen.setdefault(key, run)) is not run:
      raise DataError(
        f'{run.path} and {other.path} are one training run (the same weights or scores): give each '
        'run once'
      )


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
  if scores.header.get('thresholds') and not (args.threshold or args.dev or args.oracle):
    notes.append(
      f'{scores.path}: the threshold is the default, {thresholds.DEFAULT}; those of the bundle '
      f'that scored it: --threshold={thresholds.BUNDLE}'
    )
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
  for method, dev_paths in zip(
    [args.scores, *args.against], [args.dev, *args.against_dev], strict=False
  ):
    if dev_paths and len(dev_paths) != len(method.paths):
      raise ConfigError(
        f'{method.text} has {len(method.paths)} runs and {len(dev_paths)} development files '
        f'({",".join(map(str, dev_paths))}): one for each run, in their order'
      )
  if args.paired_runs and len({len(method.paths) for method in (args.scores, *args.against)}) > 1:
    raise ConfigError('--paired_runs: every system needs the same number of runs, in their order')
  for option, methods in (('SCORES.csv', [args.scores]), ('--against', args.against)):
    paths = [path.resolve() for method in methods for path in method.paths]
    if len(set(paths)) < len(paths):
      raise ConfigError(f'{option} names one file twice')
  if args.pass_if is not None and not args.pass_if.strip():
    raise ConfigError(
      f"--pass_if={args.pass_if!r} requires nothing; write e.g. '{pass_if.EXAMPLE}'"
    )
  args.pass_if = args.pass_if or ''
  with contextlib.suppress(pass_if.UnknownMetric):  # reported with the attacks of the scores
    pass_if.parse(args.pass_if)
  if args.fail_exit and not args.pass_if:
    raise ConfigError('--fail_exit needs --pass_if: without a requirement nothing fails')
  if args.fail_exit and not 6 <= args.fail_exit < 64:
    raise ConfigError(f'--fail_exit={args.fail_exit}: choose from 6 to 63; others have a meaning')
  if args.test_toml and not (args.report or args.record):
    raise ConfigError('--test_toml requires --report or --record, which state what is in it')
  if args.seed < 0:
    raise ConfigError(f'--seed={args.seed} must not be negative')
  if (args.bootstrap or 0) < 0:
    raise ConfigError(f'--bootstrap={args.bootstrap} is no number of draws; 0 draws none')
  inputs = [path for method in (args.scores, *args.against) for path in method.paths]
  inputs += [path for paths in (args.dev or [], *args.against_dev) for path in paths]
  inputs += [*args.columns, *([args.test_toml] if args.test_toml else [])]
  option_of = {}  # by output file
  for name in _OUTPUTS:
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
    if scores.not_recorded(subset):
      continue
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


def _write(args, result: evaluate.EvaluationResult, references: dict, described) -> None:
  found, name = evaluate.to_json(result), args.title or args.scores.name
  for subset, values in references.items():
    found[subset] |= values

  def page() -> str:
    from flexfas_jax.evaluation.report import page  # matplotlib and jinja2: only who wants it pays

    find = None
    if args.data_root:
      find = image_lookup.make_image_finder(args.data_root, score_files.read_columns(args.columns))
    return page.html([result], name, find, description=described)

  texts = {
    'json': lambda: json.dumps(results.json_safe(found), indent=2, allow_nan=False) + '\n',
    'record': lambda: json.dumps(record.build([result], name, described), indent=1) + '\n',
    'markdown': lambda: tables.markdown([result]),
    'latex': lambda: tables.latex([result]),
    'report': page,
  }
  for option, text in texts.items():
    if (path := getattr(args, option)) is None:
      continue
    with command_line.writing(f'--{option}', path):
      write_text(path, text())


def _show(result: evaluate.EvaluationResult, title: str, references: dict) -> None:
  for line in (*(f'WARNING: {w}' for w in result.warnings), *formatting.verdict_lines(result)):
    print(formatting.printable(line))
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
