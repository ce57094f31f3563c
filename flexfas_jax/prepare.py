"""Builds a data set as ArrayRecord with a builder of `data/`."""

import argparse
import json
import pathlib
import sys

from flexfas_jax import bucket, command_line
from flexfas_jax.images.files import MAX_PIXELS

_DESCRIPTION = """\
Builds data sets as ArrayRecord, each with its builder in data/. A set that exists is not built
again; an interrupted build leaves no partial set. A set contains, beside its shards: CARD.md and
card.json (counts, image sizes, bit depths, digests, omitted samples and why, and properties that
predict the label, e.g. a sensor that only attacks have: these are warnings), manifest.csv and
contact_sheet.jpg."""
_EXAMPLES = (
  '--dataset=rendered_faces/surf_like --data_dir=prepared',
  '--dataset=casia_surf/challenge --source=CASIA-SURF --data_dir=prepared',
  '--dataset=manifest/NAME --source=IMAGES --lists=NAME.csv --option depth_unit=mm',
)
_EXIT_CODES = {
  2: 'wrong usage or unknown data set',
  3: 'bad data: nothing is built, all findings are listed in DATA_DIR/NAME.bad_files.csv',
}


def main(argv: list[str] | None = None) -> int:
  """Parses the command line, prepares, and returns the exit code."""
  return command_line.run(_parser(), _prepare, argv)


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser('prepare', _DESCRIPTION, _EXAMPLES, _EXIT_CODES)

  add = parser.add_argument_group('data set').add_argument
  add('--dataset', required=True, metavar='SET/CONFIG', help='several separated by commas')
  add('--data_dir', default='prepared', metavar='DIR', help='output (default: %(default)s)')
  add('--source', metavar='DIR', help='the data set as its owner distributes it')
  add('--lists', metavar='PATH', help='protocol lists, if they are not in the source')
  add(
    '--option',
    metavar='NAME=VALUE',
    type=_option,
    action='append',
    default=[],
    help='an option of the builder, see data/SET/README.md; may be repeated',
  )

  add = parser.add_argument_group('checks').add_argument
  add(
    '--on_bad',
    choices=('fail', 'skip'),
    default='fail',
    help='fail: any error ends the build (default); skip: samples with errors are omitted and '
    'listed in bad_files.csv of the set',
  )
  add('--accept_known_leaks', metavar='NAME,...', help='leaks of published lists to accept')
  add(
    '--manifest',
    metavar='CSV',
    help='manifest.csv of an earlier preparation: files with other bytes are errors',
  )
  add(
    '--max_pixels',
    type=int,
    metavar='N',
    help=f'limit of an image, checked before it is decoded (default: {MAX_PIXELS:,})',
  )

  add = parser.add_argument_group('speed').add_argument
  add('--workers', type=_positive, metavar='N', help='reading processes (default: one per core)')
  add('--beam_runner', metavar='NAME', help='run on Apache Beam: DirectRunner, DataflowRunner, ...')
  add('--beam_options', default='', metavar='"--A=B ..."', help='options of the Beam runner')
  return parser


def _option(text: str) -> tuple[str, str]:
  name, equals, value = text.partition('=')
  if not equals:
    raise argparse.ArgumentTypeError(f'{text!r} is not NAME=VALUE')
  return name, value


def _positive(text: str) -> int:
  if not (text.isascii() and text.isdigit() and int(text)):
    raise argparse.ArgumentTypeError(f'{text!r} is not a whole number of at least 1')
  return int(text)


def _prepare(args: argparse.Namespace) -> None:
  bucket.check_path(args.data_dir, '--data_dir')
  from flexfas_jax.input_pipeline import sources  # after --help: it imports much

  settings = {
    'source': args.source,
    'lists': args.lists,
    'on_bad': args.on_bad if args.on_bad == 'skip' else None,
    'accept_known_leaks': tuple(command_line.split_names(args.accept_known_leaks)),
    'manifest': args.manifest,
    'options': dict(args.option),
    'max_pixels': args.max_pixels,
    'workers': args.workers,
  }
  beam = (args.beam_runner, args.beam_options) if args.beam_runner else None
  for dataset in command_line.split_names(args.dataset):
    folder = pathlib.Path(sources.prepare(dataset, args.data_dir, beam=beam, **settings))
    print(folder)
    if (folder / 'CARD.md').exists():
      _print_card(folder)
    command = sources.copy_command(dataset, args.data_dir, 'gs://BUCKET/prepared')
    print(f'To train from a bucket: {command}', file=sys.stderr)


def _print_card(folder: pathlib.Path) -> None:
  """Prints where the card is and the warnings in it, to stderr."""
  print(f'Contents: {folder / "CARD.md"}', file=sys.stderr)
  card = json.loads((folder / 'card.json').read_text(encoding='utf-8'))
  for shortcut in card.get('shortcuts', []):
    print(f'warning: {shortcut["split"]}: {shortcut["text"]}', file=sys.stderr)


if __name__ == '__main__':
  sys.exit(main())
