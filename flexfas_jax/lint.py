"""Checks protocol lists and manifests: `python -m flexfas_jax.lint --help`."""

import argparse
import collections
import gc
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from flexfas_jax import label_mapping
from flexfas_jax.errors import ConfigError, DataError, exit_code_of
from flexfas_jax.images import files as image_files
from flexfas_jax.images import units
from flexfas_jax.protocols.findings import RULES, severity
from flexfas_jax.protocols.lint import linter

_HELP = """\
Checks protocol lists and manifests, each and together: duplicates, files, videos or people in two
splits, triplets that are mixed up, labels that contradict paths. With --root, also the pictures.

A list has rows "rgb depth ir label" (spaces or tabs), "rgb depth ir", or "rgb label"; or its first
line names the columns, in any order: rgb,depth,ir,label and perhaps id, dataset, subject, video,
frame, split, attack_type, attack_category, ethnicity, and others. Who is in a picture is taken from
the columns, or else from the path, where its layout is that of CASIA-SURF, CeFA or WMCA; people who
are not known are in no two splits.

The split is the column split, or the word in the file's name: train; val, dev or valid; test or
eval. Lists of one split are no leaks of each other: it is said how they lie to each other."""

_EXAMPLE = """\
examples:
  python -m flexfas_jax.lint train.txt val.txt test.txt
  python -m flexfas_jax.lint protocols/*.txt --accept_known_leaks=flexmodal_v1 --json=lint.json
  python -m flexfas_jax.lint manifest.csv --root=/data --labels=live=bona_fide,spoof=attack
  python -m flexfas_jax.lint a.txt b.txt --split=train=a.txt --split=test=b.txt

rules:
"""

_EXIT_CODES = """

Pictures and triplets of the two WMCA videos whose depth and infrared are known to have other frames
(100_03_015_2_10, 101_06_067_1_02) are noted, not found. ! marks
notes: nothing has to be done, and prepare goes on.

With --root, an image that EXIF requires to be turned is an error (rotated), as it is in prepare
without --option crop. It is none in lists with columns of a box (left, ...) or of eyes
(left_eye_x, ...): prepare crops by these, and turns images before. Columns rgb_sha256,
depth_sha256 and ir_sha256 are compared with the files' bytes.

Without --root, suffixes tell the formats that are not read. With it, a path is found whether its
name is composed (NFC) or decomposed (NFD), and more than 20 missing files of one folder, or nearly
all of a modality, are one finding.

exit codes: 0 no errors, perhaps notes; 2 wrong usage; 3 errors"""

_SHOWN = 1000  # findings of a rule that are printed; all are in the JSON


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: the arguments; the process's own if None.

  Returns:
    The exit code.
  """
  args = _parser().parse_args(argv)
  errors = []
  code = exit_code_of(lambda: _lint(args, errors), args.debug)
  # Also when the reader of a pipe left before the end.
  return code or (DataError.exit_code if errors else 0)


def _parser() -> argparse.ArgumentParser:
  rules = '\n'.join(f'  {_marked(rule):18}{text}' for rule, text in RULES.items())
  parser = argparse.ArgumentParser(
    prog='python -m flexfas_jax.lint',
    description=_HELP,
    epilog=_EXAMPLE + rules.replace('%', '%%') + _EXIT_CODES,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('lists', metavar='LIST', nargs='+', help='what is checked')
  parser.add_argument(
    '--root', metavar='DIR', type=Path, help='where the paths start; all pictures are looked at'
  )
  parser.add_argument('--json', metavar='FILE', type=Path, help='write everything that was found')
  parser.add_argument(
    '--labels',
    metavar='VALUE=LABEL,...',
    help='what labels mean, e.g. live=bona_fide,spoof=attack, in place of 1=bona_fide,0=attack. '
    'Lists of a path and a label have no default: 0 is live in the later CASIA-SURF release',
  )
  parser.add_argument(
    '--split',
    metavar='NAME=LIST',
    action='append',
    default=[],
    help='the split of a list whose name does not tell; may be given for each',
  )
  parser.add_argument(
    '--accept_known_leaks',
    metavar='NAME',
    default='',
    help='make notes of leaks that stand in published lists, those alone: '
    + ', '.join(linter.KNOWN_LEAKS),
  )
  parser.add_argument(
    '--sizes',
    choices=('any', 'aspect', 'equal'),
    help='how the sizes of a triplet must agree; default: any for CASIA-SURF, CeFA and WMCA, whose '
    'crops were made for each modality, else aspect (ratios within 5 %%)',
  )
  parser.add_argument(
    '--max_pixels',
    type=int,
    metavar='N',
    default=image_files.MAX_PIXELS,
    help='of an image, checked before it is decoded; default: %(default)s',
  )
  parser.add_argument(
    '--depth_unit',
    metavar='UNIT',
    default='',
    help='of 16-bit depth: mm, or the mm of one step, e.g. 0.1mm, 0.25mm; 65535 is then read as 0 '
    '(not measured). Of floating point: m or mm. As by prepare --option depth_unit=UNIT',
  )
  parser.add_argument(
    '--ir_bits',
    metavar='N',
    default='',
    help='significant bits of 16-bit infrared: 8, 10, 12, 14 or 16, as by prepare '
    '--option ir_bits=N',
  )
  parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
  return parser


def _marked(rule: str) -> str:
  return f'{rule} !' if severity(rule) == 'note' else rule


def _lint(args: argparse.Namespace, errors: list) -> None:
  labels = None if args.labels is None else label_mapping.parse(args.labels)
  splits = dict(_split(text, args.lists) for text in args.split)
  accept = [name for name in args.accept_known_leaks.split(',') if name]
  stated = units.parse(args.depth_unit, args.ir_bits)
  if args.json:
    _check_output(args.json, args.lists)
  gc.disable()  # nothing here goes round in circles, and looking for it takes a sixth of the time
  try:
    report = linter.check(
      args.lists,
      labels=labels,
      splits=splits,
      accept=accept,
      root=args.root,
      sizes=args.sizes,
      max_pixels=args.max_pixels,
      stated=stated,
    )
  finally:
    gc.enable()
  errors += report.of_severity('error')
  if args.json:
    try:
      _write(args.json, report)
    except OSError as error:
      raise ConfigError(f'--json={args.json} cannot be written: {error.strerror}') from error
  _show(report, args.json)


def _split(text: str, paths: list[str]) -> tuple[str, str]:
  name, equals, path = text.partition('=')
  if not equals or not name or path not in paths:
    raise ConfigError(f'--split={text}: write NAME=LIST, LIST being one of the lists')
  return path, name


def _check_output(path: Path, paths: list[str]) -> None:
  """Refuses what cannot be written before anything is read, and to write over a list."""
  if any(os.path.realpath(path) == os.path.realpath(other) for other in paths):
    raise ConfigError(f'--json={path} is one of the lists: name another')
  if path.is_dir():
    raise ConfigError(f'--json={path} cannot be written: Is a directory')
  if not path.parent.is_dir():
    raise ConfigError(f'--json={path} cannot be written: No such file or directory')


def _write(path: Path, report: linter.Report) -> None:
  """Writes the report as JSON, a finding to a line; the file is never seen half written."""
  whole = report.json_safe()
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  if path.exists() and not path.is_file():
    temporary = path  # e.g. /dev/stdout is written to, not replaced
  try:
    with temporary.open('w', encoding='utf-8') as file:
      for i, (key, value) in enumerate(whole.items()):
        file.write(f'{"," if i else "{"}\n{json.dumps(key)}: ')
        if isinstance(value, list):
          # Not all at once: there can be as many as rows.
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


def _show(report: linter.Report, saved: Path | None) -> None:
  _table(report)
  said = [str(relation) for relation in report.relations]
  if len(report.lists) > 1 and (unknown := [s.list for s in report.lists if not s.splits]):
    said.append(
      f'not compared for leaks, the split being unknown (--split=NAME=LIST): {", ".join(unknown)}'
    )
  if report.accepted:
    said.append(f'accepted known leaks: {", ".join(report.accepted)}')
  _say(said)
  errors, notes = report.of_severity('error'), report.of_severity('note')
  _say(_capped(((f.rule, f) for f in errors), saved))
  _say(_capped(((f.rule, f'note: {f}') for f in notes), saved))
  _say(_capped((('notes', f'note ({n.exception}): {n.finding}') for n in report.notes), saved))
  _say(_capped((('leaking subjects', leak) for leak in report.leaks), saved))
  counts = report.counts()
  width = max((len(f'{n:,}') for n in counts.values()), default=0)
  _say(f'{n:>{width},}  {_marked(rule):18}{RULES[rule]}' for rule, n in counts.items())
  noted = f'; notes: {len(notes):,}' if notes else ''
  _say([(f'found: {len(errors):,}' if errors else 'nothing found') + noted])


def _capped(items: Iterable[tuple[str, object]], saved: Path | None) -> Iterator[str]:
  """Of each rule not more lines than a reader can want; items are (rule, what is said)."""
  shown = collections.Counter()
  for rule, said in items:
    shown[rule] += 1
    if shown[rule] <= _SHOWN:
      yield str(said)
  for rule, n in shown.items():
    if n > _SHOWN:
      where = f'all in {saved}' if saved else '--json=FILE has all'
      yield f'{rule}: {n - _SHOWN:,} more; {where}'


def _table(report: linter.Report) -> None:
  heads = ['list', 'split', 'rows', 'bona fide', 'attacks', 'no label', 'redundant', 'subjects']
  heads += ['videos', 'data sets']
  rows = [
    [s.list, '+'.join(s.splits) or '?']
    + [
      f'{n:,}'
      for n in (s.rows, s.bona_fide, s.attacks, s.unlabelled, s.redundant, s.subjects, s.videos)
    ]
    + ['+'.join(s.datasets) or '?']
    for s in report.lists
  ]
  left = {0, 1, len(heads) - 1}
  if sys.stdout.isatty():
    from rich import box, console, table, text  # only a terminal pays for it

    # Findings name the whole path; numbers need the room.
    names = [Path(s.list).name for s in report.lists]
    drawn = table.Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i, head in enumerate(heads):
      justify = 'left' if i in left else 'right'
      drawn.add_column(head, justify=justify, overflow='fold', no_wrap=i not in (0, len(heads) - 1))
    for name, row in zip(names, rows, strict=True):
      row[0] = name if names.count(name) == 1 else row[0]
      drawn.add_row(*(text.Text(_printable(cell)) for cell in row))
    # A terminal that is too narrow wraps the lines itself; nothing is left out.
    wide = console.Console()
    console.Console(width=max(wide.width, 120)).print(drawn, crop=False)
    return
  rows = [heads, *rows] if rows else []
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  _say(
    '  '.join(
      f'{cell:{"<" if i in left else ">"}{width}}'
      for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in rows
  )


def _say(lines: Iterable[str]) -> None:
  for line in lines:
    print(_printable(line))
  sys.stdout.flush()  # a pipe that is closed is noticed here


def _printable(text: str) -> str:
  """Text without what moves a terminal's cursor, or what it cannot show: names come from files."""
  if not text.isprintable():
    text = ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)
  encoding = sys.stdout.encoding or 'utf-8'
  return text.encode(encoding, 'backslashreplace').decode(encoding)


if __name__ == '__main__':
  sys.exit(main())
