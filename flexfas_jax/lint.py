"""Checks protocol lists and manifests: `python -m flexfas_jax.lint --help`."""

import argparse
import collections
import gc
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from flexfas_jax import command_line, label_mapping
from flexfas_jax.errors import ConfigError, DataError, exit_code_of
from flexfas_jax.images import files as image_files
from flexfas_jax.images import units
from flexfas_jax.protocols import row_checks
from flexfas_jax.protocols.findings import RULES, severity
from flexfas_jax.protocols.lint import linter

_DESCRIPTION = """\
Checks protocol lists and manifests, each and together: duplicates; files, videos or subjects in two
splits; mixed-up triplets; labels that contradict paths. With --root, also the images.

A list has rows "rgb depth ir label" (spaces or tabs), "rgb depth ir" or "rgb label". Or its first
row names the columns, in any order: rgb,depth,ir,label and perhaps id, dataset, subject, video,
frame, split, attack_type, attack_category, ethnicity, and others. Subject and video come from the
columns, or else from the path in the layouts of CASIA-SURF, CeFA and WMCA. Unknown subjects are not
compared.

The split comes from --split, the column split, or the file name: train; val, dev or valid; test or
eval. If only some rows have a split, the others form the split "whole", as in prepare. Lists of the
same split are no leaks: their relation is reported (equal, subset, partition, overlap)."""

_EXAMPLES = (
  'train.txt val.txt test.txt',
  'protocols/*.txt --accept_known_leaks=flexmodal_v1 --json=lint.json',
  'manifest.csv --root=/data --labels=live=bona_fide,spoof=attack',
  'a.txt b.txt --split=train=a.txt --split=test=b.txt',
)

_DETAILS = """
! marks notes, which require no action: prepare continues. Triplets and missing files of two WMCA
videos (100_03_015_2_10, 101_06_067_1_02) are notes: their depth and infrared have other frames.

With --root, an image with an EXIF rotation is an error (rotated), as in prepare without
--option crop. It is none in lists with columns of a box (left, ...) or of eyes (left_eye_x, ...):
prepare rotates images and crops by these. Columns rgb_sha256, depth_sha256 and ir_sha256 are
compared with the files' bytes.

Without --root, formats that cannot be read are detected by suffix. With it, a path is found whether
its letters are composed (NFC) or decomposed (NFD). More than 20 missing files of one folder, or
nearly all of a modality, are one finding."""

_EXIT_CODES = {0: 'no errors, perhaps notes', 3: 'errors found'}
_MAX_PRINTED = 1000  # findings of a rule; the JSON has all


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: the arguments; those of the process if None.

  Returns:
    The exit code.
  """
  args = _parser().parse_intermixed_args(argv)
  errors = []
  code = exit_code_of(lambda: _lint(args, errors), args.debug)
  # `errors` is complete even if the reader of a pipe closed it early.
  return code or (DataError.exit_code if errors else 0)


def _parser() -> argparse.ArgumentParser:
  rules = '\n'.join(f'  {_marked(rule):18}{text}' for rule, text in RULES.items())
  parser = command_line.make_parser(
    'lint', _DESCRIPTION, _EXAMPLES, _EXIT_CODES, f'rules:\n{rules}\n{_DETAILS}'.replace('%', '%%')
  )
  parser.add_argument('lists', metavar='LIST', nargs='+', help='lists and manifests')
  add = parser.add_argument_group('lists').add_argument
  add(
    '--labels',
    metavar='VALUE=LABEL,...',
    help='meaning of labels, e.g. live=bona_fide,spoof=attack; replaces 1=bona_fide,0=attack. '
    'Required for lists of "rgb label": 0 is live in the later CASIA-SURF release',
  )
  add(
    '--categories',
    metavar='TYPE=CATEGORY,...',
    default='',
    help='categories of attack types that are none themselves, e.g. Druck=print. Same as prepare '
    '--option categories=...',
  )
  add(
    '--split',
    metavar='NAME=LIST',
    action='append',
    default=[],
    help='split of a list whose name contains none (may be repeated)',
  )
  add(
    '--accept_known_leaks',
    metavar='NAME,...',
    default='',
    help='report these leaks of published lists as notes: ' + ', '.join(linter.KNOWN_LEAKS),
  )
  add = parser.add_argument_group('images').add_argument
  add('--root', metavar='DIR', type=Path, help='folder of the paths; all images are decoded')
  add(
    '--sizes',
    choices=('any', 'aspect', 'equal'),
    help='how the sizes of a triplet must agree; default: any for CASIA-SURF, CeFA and WMCA, whose '
    'modalities were cropped separately, else aspect (ratios within 5 %%)',
  )
  add(
    '--max_pixels',
    type=int,
    metavar='N',
    default=image_files.MAX_PIXELS,
    help='limit of an image, checked before it is decoded; default: %(default)s',
  )
  add(
    '--depth_unit',
    metavar='UNIT',
    default='',
    help='unit of 16-bit depth: mm, or the mm of one step, e.g. 0.1mm; 65535 is then 0 (not '
    'measured). Of floating point: m or mm. Same as prepare --option depth_unit=UNIT',
  )
  add(
    '--ir_bits',
    metavar='N',
    default='',
    help='significant bits of 16-bit infrared: 8, 10, 12, 14 or 16. Same as prepare '
    '--option ir_bits=N',
  )
  add = parser.add_argument_group('output').add_argument
  add('--json', metavar='FILE', type=Path, help='write the complete report as JSON')
  return parser


def _marked(rule: str) -> str:
  return f'{rule} !' if severity(rule) == 'note' else rule


def _lint(args: argparse.Namespace, errors: list) -> None:
  labels = None if args.labels is None else label_mapping.parse(args.labels)
  splits = dict(_parse_split(text, args.lists) for text in args.split)
  categories = row_checks.parse_categories(args.categories)
  stated = units.parse(args.depth_unit, args.ir_bits)
  if args.json:
    command_line.check_output('--json', args.json, map(Path, args.lists))
  gc.disable()  # the objects have no cycles, and collecting takes a sixth of the time
  try:
    report = linter.check(
      args.lists,
      labels=labels,
      splits=splits,
      accept=command_line.split_names(args.accept_known_leaks),
      root=args.root,
      sizes=args.sizes,
      max_pixels=args.max_pixels,
      stated=stated,
      categories=categories,
    )
  finally:
    gc.enable()
  errors += report.of_severity('error')
  if args.json:
    with command_line.writing('--json', args.json):
      _write_json(args.json, report)
  _print_report(report, args.json)


def _parse_split(text: str, paths: list[str]) -> tuple[str, str]:
  """(list, split) of an option NAME=LIST."""
  name, equals, path = text.partition('=')
  if not equals or not name or path not in paths:
    raise ConfigError(f'--split={text}: write NAME=LIST, LIST being one of the lists')
  return path, name


def _write_json(path: Path, report: linter.Report) -> None:
  """Writes the report as JSON, one finding per line, atomically."""
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  if path.exists() and not path.is_file():
    temporary = path  # e.g. /dev/stdout, which cannot be replaced
  try:
    with temporary.open('w', encoding='utf-8') as file:
      for i, (key, value) in enumerate(report.json_safe().items()):
        file.write(f'{"," if i else "{"}\n{json.dumps(key)}: ')
        if isinstance(value, list):
          # One by one: there can be as many findings as rows.
          for j, item in enumerate(value):
            file.write(f'{"," if j else "["}\n  {json.dumps(item)}')
          file.write('\n]' if value else '[]')
        else:
          json.dump(value, file)
      file.write('\n}\n')
    if temporary != path:
      temporary.replace(path)
  finally:
    if temporary != path:
      temporary.unlink(missing_ok=True)


def _print_report(report: linter.Report, saved: Path | None) -> None:
  _print_table(report)
  lines = [str(relation) for relation in report.relations]
  if len(report.lists) > 1 and not any(summary.splits for summary in report.lists):
    lines.append('not compared for leaks: no list has a split (--split=NAME=LIST)')
  if report.accepted:
    lines.append(f'accepted known leaks: {", ".join(report.accepted)}')
  _print_lines(lines)
  errors, notes = report.of_severity('error'), report.of_severity('note')
  _print_lines(_limit_per_rule(((f.rule, f) for f in errors), saved))
  _print_lines(_limit_per_rule(((f.rule, f'note: {f}') for f in notes), saved))
  accepted = (('notes', f'note ({n.exception}): {n.finding}') for n in report.notes)
  _print_lines(_limit_per_rule(accepted, saved))
  _print_lines(_limit_per_rule((('leaking subjects', leak) for leak in report.leaks), saved))
  counts = report.counts()
  width = max((len(f'{n:,}') for n in counts.values()), default=0)
  _print_lines(f'{n:>{width},}  {_marked(rule):18}{RULES[rule]}' for rule, n in counts.items())
  n_notes = f'; notes: {len(notes):,}' if notes else ''
  _print_lines([(f'errors: {len(errors):,}' if errors else 'no errors') + n_notes])


def _limit_per_rule(items: Iterable[tuple[str, object]], saved: Path | None) -> Iterator[str]:
  """Yields the texts of items, (rule, text), at most `_MAX_PRINTED` of each rule."""
  counts = collections.Counter()
  for rule, text in items:
    counts[rule] += 1
    if counts[rule] <= _MAX_PRINTED:
      yield str(text)
  for rule, n in counts.items():
    if n > _MAX_PRINTED:
      where = f'all in {saved}' if saved else '--json=FILE has all'
      yield f'{rule}: {n - _MAX_PRINTED:,} more; {where}'


def _print_table(report: linter.Report) -> None:
  header = ['list', 'split', 'rows', 'bona fide', 'attacks', 'no label', 'redundant', 'subjects']
  header += ['videos', 'data sets']
  rows = []
  for s in report.lists:
    counts = (s.rows, s.bona_fide, s.attacks, s.unlabelled, s.redundant, s.subjects, s.videos)
    splits, datasets = '+'.join(s.splits) or '?', '+'.join(s.datasets) or '?'
    rows.append([s.list, splits, *(f'{n:,}' for n in counts), datasets])
  left_aligned = {0, 1, len(header) - 1}
  if sys.stdout.isatty():
    _print_rich_table(header, rows, left_aligned)
  elif rows:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    _print_lines(
      '  '.join(
        f'{cell:{"<" if i in left_aligned else ">"}{width}}'
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
      ).rstrip()
      for row in (header, *rows)
    )


def _print_rich_table(header: list[str], rows: list[list[str]], left_aligned: set[int]) -> None:
  from rich import box, console, table, text  # imported only for a terminal

  rich_table = table.Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
  for i, name in enumerate(header):
    justify = 'left' if i in left_aligned else 'right'
    no_wrap = i not in (0, len(header) - 1)
    rich_table.add_column(name, justify=justify, overflow='fold', no_wrap=no_wrap)
  # Findings have the whole path; numbers need the width.
  names = [Path(path).name for path, *_ in rows]
  for name, (path, *cells) in zip(names, rows, strict=True):
    shown = name if names.count(name) == 1 else path
    rich_table.add_row(*(text.Text(_printable(cell)) for cell in (shown, *cells)))
  # A narrow terminal wraps the lines itself; nothing is cropped.
  width = max(console.Console().width, 120)
  console.Console(width=width).print(rich_table, crop=False)


def _print_lines(lines: Iterable[str]) -> None:
  for line in lines:
    print(_printable(line))
  sys.stdout.flush()  # raises BrokenPipeError here if the reader is gone


def _printable(text: str) -> str:
  """Text with control characters, and what the terminal cannot show, escaped.

  Names come from files: they must not move a terminal's cursor.
  """
  if not text.isprintable():
    text = ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)
  encoding = sys.stdout.encoding or 'utf-8'
  return text.encode(encoding, 'backslashreplace').decode(encoding)


if __name__ == '__main__':
  sys.exit(main())
