"""Classifies faces with an exported bundle: `python -m flexfas_jax.predict --help`."""

import argparse
import collections
import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from flexfas_jax import bucket, command_line, errors, label_mapping, schema
from flexfas_jax.errors import ConfigError, DataError, StateError
from flexfas_jax.evaluation import score_files, thresholds
from flexfas_jax.progress import show_progress
from flexfas_jax.protocols import selection
from flexfas_jax.protocols.findings import Finding, write_csv

with errors.required_imports(__name__):
  from flexfas_jax.images import checks as image_checks
  from flexfas_jax.images import files as image_files
  from flexfas_jax.prediction import (
    Decision,
    Predictor,
    folders,
    model_loader,
    samples,
    score_table,
    sensor_names,
  )

_LISTED = 20  # bad samples that are printed

_DESCRIPTION = """\
Classifies a face with an exported bundle. The decision is bona_fide, attack, or fta (failure to
acquire: no face, an unusable image, or no finite score). Only bona_fide is accepted.

For one face, name the image of each sensor: --rgb=FILE --depth=FILE --ir=FILE. Any subset that the
model serves will do: a modality that is not given is absent, and the bundle has a threshold for
each subset. For many faces, give one of --folder, --manifest, --data."""

_EXAMPLES = (
  'bundle --rgb=face.jpg --depth=face_depth.png --ir=face_ir.png',
  'bundle --rgb=room.jpg --crop=yunet --yunet=yunet.onnx --json',
  'bundle --rgb=a.png --depth=b.png --times=rgb=1.00,depth=1.08 \\\n    --max_skew=0.05',
  'bundle --folder=images --out=scores.csv',
  'bundle --data=rendered_faces/surf_like:test --data_dir=prepared \\\n    --out=test.csv',
)

_USAGE = """\
%(prog)s BUNDLE [--rgb=FILE] [--depth=FILE] [--ir=FILE] [option ...]
       %(prog)s BUNDLE --folder=DIR [--out=FILE.csv] [option ...]
       %(prog)s BUNDLE --manifest=FILE.csv [--out=FILE.csv] [option ...]
       %(prog)s BUNDLE --data=SET:SPLIT [--out=FILE.csv] [option ...]"""

_DETAILS = """\
image files:
  JPEG, PNG, TIFF, WebP and NumPy arrays (NPY) of 8 or 16 bits; HEIC with the extra `formats`. Depth
  may be floating point with --depth_unit. EXIF orientation is applied. An image is rejected if its
  bit depth differs from the bundle's, if the sizes of a sample do not agree (--sizes), if a side is
  shorter than 16 pixels, if it has more than --max_pixels, or if the file exceeds 64 MB.
  The model expects an image of a face, cropped as its training data was. With --crop the face is
  cropped first: the largest one, of equally large ones the most central. A face that is too small
  or cut by the border is rejected.

unusable sensors:
  A modality that is given but unusable (no signal, stale) makes the sample an fta, unless
  --allow_absent names it. If an attacker can cover a sensor, security drops to that of the weakest
  remaining subset. --data counts an unusable modality as absent, as evaluation does, so that its
  figures equal those of results.json.

folders:
  The images of a sample have paths that differ only by the name of the sensor: a/rgb/1.jpg,
  a/depth/1.png, a/ir/1.png or 1_rgb.jpg, 1_ir.png. A path without such a name is RGB. Names of
  other sensors (ir1, thermal, depth_map) are rejected. A file of another format that may be the
  image of a sensor makes its sample a bad one; other files are listed and ignored."""

_EXIT_CODES = {
  0: 'done, whatever the decision is: read it, or "accepted" of --json',
  2: 'wrong usage, or a library that is not installed',
  3: 'bad images or file names',
  4: 'a bundle that is damaged, of another version, unsigned, or without the threshold; a model '
  'output that is nan',
}


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: the arguments; those of the process if None.

  Returns:
    The exit code.
  """
  return command_line.run(_parser(), _predict, argv)


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser('predict', _DESCRIPTION, _EXAMPLES, _EXIT_CODES, _DETAILS)
  parser.usage = _USAGE
  add_model_options(parser)
  # Collected for an error that shows how to name the sensor of each image.
  parser.add_argument('unnamed', nargs='*', default=[], help=argparse.SUPPRESS)

  add = parser.add_argument_group('one sample').add_argument
  for modality in schema.MODALITIES:
    add(f'--{modality}', metavar='FILE', type=Path, help=f'{modality} image; default: absent')
  add('--box', metavar='L,T,R,B', help='the face, in pixels of the upright RGB image (--crop=box)')
  add(
    '--times',
    metavar='NAME=S,...',
    help='capture time of each image, and the time `now`, in seconds; an image later than now by '
    'more than 50 ms is unusable',
  )

  add = parser.add_argument_group('many samples').add_argument
  add('--folder', metavar='DIR', type=Path, help='images by path: a/rgb/1.jpg, a/depth/1.png, ...')
  add(
    '--manifest',
    metavar='FILE.csv',
    type=Path,
    help='list with the columns of data/manifest/README.md, optionally rgb_time, depth_time, '
    'ir_time (seconds)',
  )
  add('--root', metavar='DIR', type=Path, help="folder of the manifest's paths; default: its own")
  add(
    '--labels',
    metavar='VALUE=LABEL,...',
    help="meaning of the manifest's labels; default: 1=bona_fide,0=attack",
  )
  add('--data', metavar='SET:SPLIT', help='prepared data set, as named in configs')
  add('--data_dir', metavar='DIR', default='prepared', help='default: %(default)s')
  add('--out', metavar='FILE.csv', type=Path, help='score file: every subset, and the decisions')
  add(
    '--on_bad',
    choices=('fail', 'skip'),
    default='fail',
    help='fail: exit code 3 if a sample has unusable files (default); skip: leave such samples out '
    'and list them in FILE.bad_files.csv next to --out',
  )

  add_image_options(parser)
  add = add_decision_options(parser)
  add(
    '--max_skew',
    metavar='S',
    type=float,
    help="seconds; an image is unusable if its time differs by more from RGB's (or the first's)",
  )
  add('--max_age', metavar='S', type=float, help='seconds; an image older than this is unusable')
  add_verification_options(parser)

  add = parser.add_argument_group('output').add_argument
  add('--json', action='store_true', help='print one JSON object per sample, each on its own line')
  return parser


def add_model_options(parser: argparse.ArgumentParser) -> None:
  """Adds the bundle and the choice of a model in it, for `predict` and `demo`."""
  add = parser.add_argument_group('model').add_argument
  order = ', '.join(model_loader.RUNTIMES)
  add('bundle', metavar='BUNDLE', help='folder that `flexfas export` made, local or gs://')
  add(
    '--format',
    choices=model_loader.FORMATS,
    help=f'default: the first of {order} that is installed',
  )
  add(
    '--precision', choices=model_loader.PRECISIONS, default='float32', help='default: %(default)s'
  )


def add_image_options(parser: argparse.ArgumentParser) -> None:
  """Adds the options that describe images, for `predict` and `demo`."""
  add = parser.add_argument_group('images').add_argument
  add(
    '--crop',
    choices=('none', 'box', 'landmarks', 'yunet'),
    help='how to crop the face; default: the images are cropped',
  )
  add('--yunet', metavar='FILE', default='', help='your copy of face_detection_yunet_*.onnx')
  add(
    '--margin',
    type=float,
    default=0.3,
    help="added on each side, as a share of the box's longer side; default: %(default)s",
  )
  add(
    '--align',
    choices=('none', 'eyes'),
    default='none',
    help='eyes: rotate so that the eyes are level; default: %(default)s',
  )
  add(
    '--sizes',
    choices=image_checks.SIZES,
    default='aspect',
    help='how the image sizes of a sample must agree; aspect: aspect ratios within 5 %% (default); '
    'any: for modalities that were cropped separately',
  )
  add(
    '--max_pixels',
    metavar='N',
    type=int,
    default=image_files.MAX_PIXELS,
    help='limit of an image, checked before it is decoded; default: %(default)s',
  )
  add(
    '--depth_unit',
    metavar='UNIT',
    default='',
    help='unit of 16-bit depth: mm, or a step such as 0.1mm or 0.25mm, with 65535 read as 0 (not '
    'measured); of floating-point depth: m or mm. Default: mm, and images with 65535 or floating '
    'point are rejected',
  )
  add(
    '--ir_bits',
    metavar='N',
    default='',
    help='significant bits of 16-bit infrared, scaled to 16: 8, 10, 12, 14 or 16. Default: 16, and '
    'an image that uses fewer is rejected',
  )


def add_decision_options(parser: argparse.ArgumentParser) -> Callable[..., argparse.Action]:
  """Adds the rules for absent modalities, for `predict` and `demo`.

  Returns:
    `add_argument` of their group.
  """
  add = parser.add_argument_group('decision').add_argument
  add('--require', metavar='NAME,...', help='modalities without which there is no decision')
  add(
    '--allow_absent',
    metavar='NAME,...',
    default='',
    help='modalities that count as absent if they are given but unusable; otherwise the sample is '
    'an fta',
  )
  return add


def add_verification_options(parser: argparse.ArgumentParser) -> None:
  """Adds the checks of the bundle's origin, for `predict` and `demo`."""
  add = parser.add_argument_group('verification of the bundle').add_argument
  add('--sha256', metavar='HEX', help='expected SHA-256 of its card.json')
  add(
    '--public_key',
    metavar='FILE',
    help='PEM file of an Ed25519 key: reject a bundle that its private key did not sign (export '
    '--sign_key); requires the `sign` extra',
  )
  add(
    '--min_sequence',
    metavar='N',
    type=int,
    help='reject an older export: a bundle with a lower sequence number, even if it is signed',
  )


def load(args: argparse.Namespace) -> Predictor:
  """Loads the predictor that the options of `predict` or `demo` describe."""
  bucket.check_path(args.bundle, 'BUNDLE')
  remote = bucket.is_remote(args.bundle)
  return Predictor.load(
    bucket.local_copy(args.bundle) if remote else Path(args.bundle),
    args.format,
    precision=args.precision,
    crop=args.crop,
    yunet=args.yunet,
    require=_required(args.require),
    allow_absent=command_line.split_names(args.allow_absent),
    sizes=args.sizes,
    max_pixels=args.max_pixels,
    depth_unit=args.depth_unit,
    ir_bits=args.ir_bits,
    sha256=args.sha256,
    public_key=args.public_key,
    min_sequence=args.min_sequence,
    margin=args.margin,
    align=args.align,
  )


def _required(text: str | None) -> list[str]:
  names = command_line.split_names(text)
  if text is not None and not names:  # e.g. an unset shell variable
    raise ConfigError(f'--require={text} names no modality: name some, or omit the option')
  return names


def _predict(args: argparse.Namespace) -> None:
  images = {m: path for m in schema.MODALITIES if (path := getattr(args, m)) is not None}
  _check_source(args, images)
  _check_options(args, one_sample=bool(images))
  if args.out:
    _check_out(args)
  predictor = load(args)
  if predictor.card.is_rendered:
    print('note: RENDERED: trained and evaluated on rendered faces', file=sys.stderr)
  for line in predictor.card.failed:
    print(f'note: {line}', file=sys.stderr)
  if images:
    _predict_one(predictor, images, args)
  else:
    _predict_many(predictor, *_read_samples(predictor, args), args)


def _check_source(args: argparse.Namespace, images: dict[str, Path]) -> None:
  if args.unnamed:
    raise ConfigError(f'name the sensor of each image, e.g. {_with_sensors(args.unnamed)}')
  sources = [f'--{name}' for name in ('folder', 'manifest', 'data') if getattr(args, name)]
  if images:
    sources.insert(0, f'--{next(iter(images))}')
  if not sources:
    raise ConfigError(
      'no images: give --rgb=FILE, --depth=FILE, --ir=FILE (one sample), or one of --folder, '
      '--manifest, --data'
    )
  if len(sources) > 1:
    raise ConfigError(f'{sources[0]} and {sources[1]} exclude each other')


def _with_sensors(paths: Sequence[str]) -> str:
  """Options for unnamed images, by the sensors in their names, else in the order of modalities."""
  try:
    names = [sensor_names.find_sensor(Path(path).as_posix()).modality for path in paths]
  except sensor_names.UnclearName:
    names = []
  if len(set(names)) < len(paths):
    names = schema.MODALITIES
  return ' '.join(f'--{name}={path}' for name, path in zip(names, paths, strict=False))


def _check_options(args: argparse.Namespace, one_sample: bool) -> None:
  """Checks options that only some sources have."""
  for_one = ('box', 'times', 'max_age')
  for_many = {'out': None, 'on_bad': 'fail'}  # option: default
  if not one_sample and (given := [n for n in for_one if getattr(args, n) is not None]):
    raise ConfigError(f'--{given[0]} applies to one sample (--rgb, --depth, --ir)')
  if one_sample and (given := [n for n in for_many if getattr(args, n) != for_many[n]]):
    raise ConfigError(f'--{given[0]} requires --folder, --manifest or --data')
  if args.max_skew is not None and not one_sample and not args.manifest:
    raise ConfigError('--max_skew requires capture times: --times, or columns of a --manifest')
  if args.crop == 'box' and not (args.box or args.manifest):
    raise ConfigError('--crop=box requires the box: --box, or columns of a --manifest')
  if args.crop == 'landmarks' and not args.manifest:
    raise ConfigError('--crop=landmarks requires a --manifest with columns of the landmarks')
  if args.data and (args.depth_unit or args.ir_bits):
    raise ConfigError('--depth_unit and --ir_bits do not apply to --data, which is converted')


def _check_out(args: argparse.Namespace) -> None:
  if args.out.suffix != '.csv':
    raise ConfigError(f'--out={args.out}: the name of a score file ends in .csv')
  command_line.check_output('--out', args.out, [args.manifest] if args.manifest else [])
  header = score_files.header_path(args.out)
  if score_table.is_foreign(header):
    raise ConfigError(
      f'--out={args.out} would overwrite {header}, which is not the header of a score file: choose '
      'another name'
    )


def _predict_one(predictor: Predictor, images: dict[str, Path], args: argparse.Namespace) -> None:
  known = [m for m in predictor.modalities if m in images]
  if len(known) == len(images) and (refusal := predictor.refusal(known)):
    raise ConfigError(refusal)
  predictor.warm_up()  # so that the printed time is that of a decision
  decision = predictor(
    **images,
    times=_parse_times(args.times),
    max_skew=args.max_skew,
    max_age=args.max_age,
    box=_parse_numbers('--box', args.box) if args.box else None,
  )
  if args.json:
    print(json.dumps(decision.as_json()))
  else:
    print('\n'.join(_format_decision(predictor, decision)))
  sys.stdout.flush()


def _format_decision(predictor: Predictor, decision: Decision) -> list[str]:
  accepted = 'accepted' if decision.accepted else 'not accepted'
  lines = [f'decision   {decision.outcome} ({accepted})']
  if not math.isnan(decision.threshold):
    entry = predictor.card.contents['thresholds'][decision.subset]
    rule = f'{entry.get("rule", "")} of {decision.subset}'.strip()
    lines += [
      f'score      {decision.score:.6f} (probability of bona fide)',
      f'threshold  {decision.threshold:.6f} ({rule})',
    ]
  lines.append(f'used       {", ".join(decision.used) or "nothing"}')
  if decision.unusable:
    lines.append(f'unusable   {", ".join(decision.unusable)}')
  lines += [f'note       {reason}' for reason in decision.reasons]
  lines.append(f'time       {1000 * decision.seconds:.1f} ms ({predictor.entry["file"]})')
  return lines


def _parse_times(text: str | None) -> dict[str, float] | None:
  if text is None:
    return None
  pairs = [term.partition('=') for term in text.split(',')]
  numbers = _parse_numbers('--times', ','.join(value for _, _, value in pairs))
  names = [name.strip() for name, _, _ in pairs]
  if repeated := [name for name in names if names.count(name) > 1]:
    raise ConfigError(f'--times={text}: {repeated[0]} has two times')
  return dict(zip(names, numbers, strict=True))


def _parse_numbers(option: str, text: str) -> list[float]:
  try:
    return [float(part) for part in text.split(',')]
  except ValueError:
    raise ConfigError(f'{option}={text}: expected numbers') from None


def _read_samples(
  predictor: Predictor, args: argparse.Namespace
) -> tuple[Iterable[samples.Sample], int, list[Finding]]:
  """(samples, their number, bad samples, which are not among them)."""
  if args.data:
    from flexfas_jax.input_pipeline import sources  # TFDS: only for prepared sets

    source = sources.open_source(args.data, args.data_dir)
    examples = (source[i] for i in range(len(source)))
    return samples.from_examples(examples, predictor.modalities), len(source), []
  if args.folder:
    listing = folders.read_folder(args.folder, args.on_bad)
  else:
    labels = label_mapping.parse(args.labels) if args.labels is not None else None
    listing = samples.read_manifest(args.manifest, args.root, labels, args.on_bad)
    if args.crop in ('box', 'landmarks') and not any(sample.box for sample in listing.samples):
      raise ConfigError(f'--crop={args.crop}: {args.manifest} has no columns for it')
    if args.max_skew is not None and not any(sample.times for sample in listing.samples):
      raise ConfigError(f'--max_skew: {args.manifest} has no columns rgb_time, depth_time, ir_time')
  for note in listing.notes:
    print(f'note: {note}', file=sys.stderr)
  return listing.samples, len(listing.samples), listing.bad


def _predict_many(
  predictor: Predictor,
  dataset: Iterable[samples.Sample],
  n: int,
  bad: list[Finding],
  args: argparse.Namespace,
) -> None:
  table = score_table.score_samples(
    predictor,
    show_progress(dataset, n, 'samples', transient=True),
    args.max_skew,
    as_evaluated=bool(args.data),
    on_bad=args.on_bad,
  )
  if args.data and selection.is_rendered(args.data):
    table = table._replace(header={**table.header, 'rendered': True})
  if args.out:
    score_table.write(args.out, table)
  if args.json:
    _print_json(table)
  elif not args.out:
    for sample, d in zip(table.samples, table.decisions, strict=True):
      print(f'{d.outcome:10} {d.score:8.6f} {d.subset or "nothing":13} {sample.id}')
  _print_summary(table, args.out, sys.stderr if args.json else sys.stdout)
  sys.stdout.flush()
  if args.on_bad == 'skip':
    source = str(args.folder or args.manifest or args.data)
    bad = bad + [Finding('row', source, s.row, f'{s.id}: {text}') for s, text in table.faults]
    _report_skipped(bad, len(table.samples), args.out)
  else:
    _raise_faults(table)
  _raise_nan(table)


def _print_json(table: score_table.ScoreTable) -> None:
  for sample, decision in zip(table.samples, table.decisions, strict=True):
    fields = decision.as_json()
    del fields['seconds']  # samples are computed in batches
    print(json.dumps({'id': sample.id, **fields}))


def _print_summary(table: score_table.ScoreTable, out: Path | None, file) -> None:
  counts = collections.Counter(decision.outcome for decision in table.decisions)
  summary = ', '.join(f'{counts[name]} {name}' for name in ('bona_fide', 'attack', 'fta'))
  if unusable := sum(bool(decision.unusable) for decision in table.decisions):
    summary += f'; {unusable} with an unusable modality'
  print(f'{len(table.samples)} samples: {summary}', file=file)
  if out:
    header = score_files.header_path(out).name
    rule = f'--threshold={thresholds.BUNDLE}'  # each subset's own, not the default of 0.5
    use = f'evaluate it: {command_line.program_name("score")} {out} {rule}'
    print(f'{out}, {header}: {use if table.labelled else "no labels"}', file=file)


def _report_skipped(bad: list[Finding], n: int, out: Path | None) -> None:
  """Lists the samples that were left out, on stderr and next to the score file."""
  file = out and out.with_suffix('.bad_files.csv')
  try:
    if file and bad:
      write_csv(file, bad)
    elif file:
      file.unlink(missing_ok=True)  # of an earlier run
  except OSError as error:
    raise ConfigError(f'{file} cannot be written: {error.strerror}') from None
  if bad:
    texts = [finding.text for finding in bad]
    where = f', all in {file}' if file else ''
    print(
      f'{len(bad)} of {n + len(bad)} samples are left out{where}:\n{_head(texts)}', file=sys.stderr
    )


def _raise_faults(table: score_table.ScoreTable) -> None:
  """Raises DataError if samples have bad images; the decisions of the others are printed."""
  if table.faults:
    texts = [f'{sample.id}: {text}' for sample, text in table.faults]
    raise DataError(
      f'{len(texts)} of {len(table.samples)} samples have bad images (their decision is fta; '
      f'--on_bad=skip leaves them out):\n{_head(texts)}'
    )


def _raise_nan(table: score_table.ScoreTable) -> None:
  """Raises StateError if the model computed no finite score."""
  for subset, nan in table.nan.items():
    if nan.any():
      first = table.samples[int(nan.argmax())].id
      raise StateError(f'{subset} is nan for {int(nan.sum())} samples (the first is {first})')


def _head(texts: list[str]) -> str:
  more = f'\n... and {len(texts) - _LISTED} more' if len(texts) > _LISTED else ''
  return '\n'.join(texts[:_LISTED]) + more


if __name__ == '__main__':
  sys.exit(main())
