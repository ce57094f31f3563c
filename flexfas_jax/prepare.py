"""Builds a data set as ArrayRecord, with a builder of `data/`.

  python -m flexfas_jax.prepare --dataset=rendered_faces/surf_like --data_dir=prepared
  python -m flexfas_jax.prepare --dataset=casia_surf/challenge --source=CASIA-SURF
  python -m flexfas_jax.prepare --dataset=manifest/ours --source=pictures --lists=ours.csv

What is already there is left as it is; what is interrupted leaves nothing half done. Beside the set
lie CARD.md and card.json (counts, sizes, bit depths, digests, what was left out and why, and what
predicts the label, such as a sensor that attacks alone have: a warning, and exit code 0), its
manifest.csv and a contact sheet.
"""

import argparse
import json
import pathlib
import sys

from flexfas_jax import errors


def main(argv: list[str] | None = None) -> int:
  """Parses the command line and prepares; returns the exit code."""
  parser = argparse.ArgumentParser(
    'python -m flexfas_jax.prepare',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    epilog='Exit codes: 0 done, 2 wrong usage or unknown data set, 3 bad data.',
  )
  add = parser.add_argument
  add('--dataset', required=True, help='set or set/config; several separated by commas')
  add('--data_dir', default='prepared', help='where it goes (default: %(default)s)')
  add('--source', metavar='DIR', help='where the data set is, as it was handed out')
  add('--lists', metavar='PATH', help='protocol lists, where they are not in the source')
  add(
    '--on_bad',
    choices=('fail', 'skip'),
    default='fail',
    help='what is wrong ends the build (default), or is left out and listed in bad_files.csv',
  )
  add('--accept_known_leaks', metavar='NAME,...', help='leaks of published lists that may stand')
  add('--manifest', metavar='CSV', help='of an earlier preparation: bytes that differ are wrong')
  add(
    '--option',
    metavar='NAME=VALUE',
    action='append',
    default=[],
    help="what a source does not say of itself; see the builder's README (may be repeated)",
  )
  add(
    '--max_pixels',
    type=int,
    metavar='N',
    help='of an image, checked before it is decoded (default: 25 million)',
  )
  add('--workers', type=int, metavar='N', help='reading processes (default: one per core)')
  add('--beam_runner', metavar='NAME', help='build on Apache Beam: DirectRunner, DataflowRunner')
  add('--beam_options', default='', metavar='"--A=B ..."', help="of Beam's runner")
  add('--debug', action='store_true', help='show tracebacks')
  flags = parser.parse_args(argv)
  if flags.workers is not None and flags.workers < 1:
    parser.error('--workers must be at least 1')
  if wrong := [text for text in flags.option if '=' not in text]:
    parser.error(f'--option {wrong[0]}: write NAME=VALUE')

  def job():
    from flexfas_jax.input_pipeline import sources  # after --help: it imports much

    leaks = flags.accept_known_leaks
    settings = {
      'source': flags.source,
      'lists': flags.lists,
      'on_bad': None if flags.on_bad == 'fail' else flags.on_bad,
      'accept_known_leaks': tuple(leaks.split(',')) if leaks else None,
      'manifest': flags.manifest,
      'options': dict(text.split('=', 1) for text in flags.option),
      'max_pixels': flags.max_pixels,
      'workers': flags.workers,
    }
    beam = (flags.beam_runner, flags.beam_options) if flags.beam_runner else None
    for dataset in flags.dataset.split(','):
      folder = sources.prepare(dataset, flags.data_dir, beam=beam, **settings)
      print(folder)
      if (card := pathlib.Path(folder) / 'CARD.md').exists():
        print(f'What it holds: {card}', file=sys.stderr)
        for found in json.loads(card.with_name('card.json').read_text()).get('shortcuts', []):
          print(f'warning: {found["split"]}: {found["text"]}', file=sys.stderr)

  return errors.exit_code_of(job, flags.debug)


if __name__ == '__main__':
  sys.exit(main())
