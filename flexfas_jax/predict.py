"""Decides about pictures by an exported bundle: `python -m flexfas_jax.predict --help`."""

import argparse
import collections
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path

from flexfas_jax import errors, label_mapping, schema
from flexfas_jax.errors import ConfigError, DataError, StateError, exit_code_of
from flexfas_jax.evaluation import score_files
from flexfas_jax.progress import show_progress
from flexfas_jax.protocols.findings import Finding, write_csv

with errors.required_imports(__name__):
  from flexfas_jax.images import checks as image_checks
  from flexfas_jax.images import files as image_files
  from flexfas_jax.prediction import (
    Decision,
    Predictor,
    folders,
    formats,
    samples,
    score_table,
  )

_SHOWN = 20  # bad samples that are printed

_HELP = """\
Decides about a face: bona_fide, attack, or fta (failure to acquire: no face, a modality that is
given and unusable, a model that computed no number). Only bona_fide is accepted.

Images are JPEG, PNG, TIFF, WebP or NumPy arrays (NPY) of 8 or 16 bits, HEIC with the extra
`formats`; depth may be floating point with --depth_unit. EXIF's orientation is applied. A modality
that is not given is absent, as it was in training, and the threshold is that of the modalities that
were used, from the bundle. A modality that is given and unusable (no signal, too late) makes the
sample an fta, unless --allow_absent names it: if an attacker can cover a sensor, security drops to
that of the weakest remaining subset. An image of another bit depth than the bundle knows is
refused, never converted. So are images that are not registered, by their sizes (--sizes), and what
is no regular file of at most 64 MB, has a side of less than 16 pixels or more pixels than
--max_pixels.

--folder and --manifest follow the same rule. --data counts a modality that is given and unusable as
absent, as evaluation does, so that its figures equal those of results.json.

--folder finds the images of a sample by their paths: they differ by the sensor's name alone, as in
a/rgb/1.jpg, a/depth/1.png, a/ir/1.png or 1_rgb.jpg, 1_ir.png; a path without one is of RGB. Names
of sensors that are not read (ir1, thermal, depth_map) are refused. A file of another format that
may be the image of a sensor makes its sample a bad one; other files are counted and named.

With --crop the face is cut out first. Of several faces the largest is taken; of equal ones the most
central. One that is too small or cut by the border is no face."""

_EXAMPLE = """\
examples:
  python -m flexfas_jax.predict bundle --rgb=face.jpg --depth=face_depth.png --ir=face_ir.png
  python -m flexfas_jax.predict bundle --rgb=room.jpg --crop=yunet --yunet=yunet.onnx --json
  python -m flexfas_jax.predict bundle --rgb=a.png --depth=b.png --times=rgb=1.00,depth=1.08 \\
    --max_skew=0.05
  python -m flexfas_jax.predict bundle --folder=pictures --out=scores.csv
  python -m flexfas_jax.predict bundle --data=rendered_faces/surf_like:test --data_dir=prepared \\
    --out=test.csv && python -m flexfas_jax.score test.csv --dev=val.csv

exit codes: 0 decided, whatever the decision is (read it, or --json's "accepted"); 2 wrong usage, a
library that is not installed; 3 bad images or names of files; 4 a bundle that is damaged, from
another version, unsigned, or without the threshold, or a model that computed nan"""


def main(argv: list[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: the arguments; the process's own if None.

  Returns:
    The exit code.
  """
  args = _parser().parse_args(argv)
  return exit_code_of(lambda: _predict(args), args.debug)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m flexfas_jax.predict',
    description=_HELP,
    epilog=_EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  refuse_repeated(parser)
  add = parser.add_argument
  add('bundle', metavar='BUNDLE', type=Path, help='a folder that --mode=export made')
  one = parser.add_argument_group('one sample').add_argument
  for modality in schema.MODALITIES:
    one(f'--{modality}', metavar='FILE', type=Path, help='left out: absent')
  one('--box', metavar='L,T,R,B', help='the face, in pixels of RGB as it is shown (--crop=box)')
  one('--times', metavar='NAME=S,...', help='seconds of each image, and of now; an image that is '
      'later than now by more than 50 ms is unusable')  # fmt: skip
  one('--max_age', metavar='S', type=float, help='seconds that a picture may be older than now')

  many = parser.add_argument_group('many samples').add_argument
  many('--folder', metavar='DIR', type=Path, help='a/rgb/1.jpg, a/depth/1.png, ... are one sample')
  many('--manifest', metavar='FILE.csv', type=Path, help='columns as in data/manifest/README.md, '
       'and perhaps rgb_time, depth_time, ir_time (seconds)')  # fmt: skip
  many('--root', metavar='DIR', type=Path, help="where its paths start; default: the manifest's")
  many(
    '--labels',
    metavar='VALUE=LABEL,...',
    help='what its labels mean, in place of 1=bona_fide,0=attack',
  )
  many('--data', metavar='SET:SPLIT', help='a prepared set, as configs name it; unusable is absent')
  many('--data_dir', metavar='DIR', default='prepared', help='default: prepared')
  many('--out', metavar='FILE.csv', type=Path, help='a score file: every subset, and decisions')
  many('--on_bad', choices=('fail', 'skip'), default='fail', help='samples with files that cannot '
       'be used: end with exit code 3 (default), or leave them out and list them in '
       'FILE.bad_files.csv beside --out')  # fmt: skip

  how = parser.add_argument_group('how').add_argument
  add_model_arguments(how)
  how('--max_skew', metavar='S', type=float, help="seconds that a picture's time may differ from "
      "RGB's (or the first's); one that differs by more is unusable")  # fmt: skip
  add('--json', action='store_true', help='print JSON: one object per sample, each on its line')
  add('--debug', action='store_true', help='show the traceback of an error')
  return parser


class _StoreOnce(argparse.Action):
  def __call__(self, parser, namespace, values, option_string=None):
    given = vars(namespace).setdefault('_given', set())
    if self.dest in given:
      parser.error(f'{option_string} is given twice, and the last would replace the first')
    given.add(self.dest)
    setattr(namespace, self.dest, values)


def refuse_repeated(parser: argparse.ArgumentParser) -> None:
  """Makes a parser refuse an option that is given twice; call it before options are added.

  Of `--require=depth --require=ir` argparse keeps the last alone.
  """
  parser.register('action', None, _StoreOnce)


def add_model_arguments(add) -> None:
  """What `predict` and `demo` have in common; `load` reads them."""
  order = ', '.join(formats.RUNTIMES)
  add('--format', choices=formats.ALL, help=f'default: the first that can be run of {order}')
  add('--precision', choices=formats.PRECISIONS, default='float32', help='default: float32')
  add(
    '--crop', choices=('none', 'box', 'landmarks', 'yunet'), help='default: pictures are of faces'
  )
  add('--yunet', metavar='FILE', default='', help='face_detection_yunet_*.onnx, which you have')
  add('--margin', type=float, default=0.3, help="of the box's longer side; default: 0.3")
  add('--align', choices=('none', 'eyes'), default='none', help='eyes: turn them level')
  add('--require', metavar='NAME,...', help='without these nothing is decided')
  add('--allow_absent', metavar='NAME,...', default='',
      help='modalities that count as absent where they are given and unusable (no signal, stale); '
      'of the others, that is a failure to acquire')  # fmt: skip
  add('--sizes', choices=image_checks.SIZES, default='aspect',
      help='how the sizes of a sample agree; default: aspect (ratios within 5 %%); any: for crops '
      'that were made for each modality')  # fmt: skip
  add('--max_pixels', metavar='N', type=int, default=image_files.MAX_PIXELS,
      help='of an image, checked before it is decoded; default: %(default)s')  # fmt: skip
  add('--depth_unit', metavar='UNIT', default='', help='of 16-bit depth: mm, or the mm of one '
      'step, e.g. 0.1mm, 0.25mm; 65535 is then read as 0 (not measured). Of floating point: m or '
      'mm. Default: mm, and an image with 65535 or floating point is refused')  # fmt: skip
  add('--ir_bits', metavar='N', default='', help='significant bits of 16-bit infrared, which are '
      'scaled to 16: 8, 10, 12, 14 or 16. Default: 16, and an image that uses fewer is '
      'refused')  # fmt: skip
  add('--sha256', metavar='HEX', help="that the bundle's card.json must have: sha256sum card.json")
  add('--public_key', metavar='FILE', help='PEM file of an Ed25519 key: refuse a bundle that its '
      'private key did not sign (--mode=export --sign_key); requires the `sign` extra')  # fmt: skip
  add('--min_sequence', metavar='N', type=int, help='refuse a bundle whose sequence number is '
      'lower, though it is signed: an older export')  # fmt: skip


def load(args: argparse.Namespace) -> Predictor:
  """The predictor that arguments describe."""
  return Predictor.load(
    args.bundle,
    args.format,
    precision=args.precision,
    crop=args.crop,
    yunet=args.yunet,
    require=_required(args.require),
    allow_absent=_names(args.allow_absent),
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
  names = _names(text or '')
  if text is not None and not names:  # a variable of the shell that is not set, for example
    raise ConfigError(f'--require={text} names no modality: name some, or leave it out')
  return names


def _names(text: str) -> list[str]:
  return [name.strip() for name in text.split(',') if name.strip()]


def _predict(args: argparse.Namespace) -> None:
  given = {m: path for m in schema.MODALITIES if (path := getattr(args, m)) is not None}
  many = [name for name in ('folder', 'manifest', 'data') if getattr(args, name)]
  if bool(given) + len(many) != 1:
    raise ConfigError(
      'give pictures (--rgb=F, --depth=F, --ir=F), or one of --folder, --manifest, --data'
    )
  if many and (args.box or args.times or args.max_age is not None):
    raise ConfigError(f'--box, --times and --max_age are of one sample, not of --{many[0]}')
  if many and args.max_skew is not None and not args.manifest:
    raise ConfigError(f'--max_skew needs times: a --manifest has them, --{many[0]} does not')
  told = args.box if given else args.manifest and args.crop
  if args.crop in ('box', 'landmarks') and (not told or (given and args.crop != 'box')):
    raise ConfigError(f'--crop={args.crop}: nothing says where the face is: --box, or a --manifest')
  if args.data and (args.depth_unit or args.ir_bits):
    raise ConfigError('--depth_unit and --ir_bits: --data has the units that prepare stored')
  if given and args.out:
    raise ConfigError('--out is of --folder, --manifest and --data')
  if given and args.on_bad != 'fail':
    raise ConfigError('--on_bad is of --folder, --manifest and --data')
  if args.out and (args.out.suffix != '.csv' or not args.out.parent.is_dir()):
    raise ConfigError(f'--out={args.out}: write NAME.csv, in a folder that is there')
  if args.out and args.manifest and args.out.resolve() == args.manifest.resolve():
    raise ConfigError(f'--out={args.out} would overwrite the manifest')
  if args.out and score_table.is_foreign(header := score_files.header_path(args.out)):
    raise ConfigError(
      f'--out={args.out} would overwrite {header}, which is no header of a score file; choose '
      'another name'
    )
  predictor = load(args)
  if given:
    _one(predictor, given, args)
  else:
    _many(predictor, *_samples(predictor, args), args)


def _one(predictor: Predictor, given: dict[str, Path], args: argparse.Namespace) -> None:
  named = [m for m in predictor.modalities if m in given]
  if len(named) == len(given) and (refused := predictor.refusal(named)):
    raise ConfigError(refused)  # as asked it can never be answered
  predictor.warm_up()  # so that the time that is told is a decision's
  decision = predictor(
    **given,
    times=_times(args.times),
    max_skew=args.max_skew,
    max_age=args.max_age,
    box=_numbers('--box', args.box) if args.box else None,
  )
  if args.json:
    print(json.dumps(decision.as_json()))
  else:
    print('\n'.join(_lines(predictor, decision)))
  sys.stdout.flush()


def _lines(predictor: Predictor, decision: Decision) -> list[str]:
  lines = [f'decision   {decision.outcome}']
  if not math.isnan(decision.threshold):
    about = predictor.card.contents['thresholds'][decision.subset]
    rule = f'{about.get("rule", "")} of {decision.subset}'.strip()
    lines += [f'score      {decision.score:.6f}', f'threshold  {decision.threshold:.6f} ({rule})']
  lines.append(f'used       {", ".join(decision.used) or "nothing"}')
  if decision.unusable:
    lines.append(f'unusable   {", ".join(decision.unusable)}')
  lines += [f'note       {reason}' for reason in decision.reasons]
  lines.append(f'time       {1000 * decision.seconds:.1f} ms ({predictor.entry["file"]})')
  return lines


def _times(text: str | None) -> dict[str, float] | None:
  if text is None:
    return None
  pairs = [term.partition('=') for term in text.split(',')]
  numbers = _numbers('--times', ','.join(value for _, _, value in pairs))
  names = [name.strip() for name, _, _ in pairs]
  if again := [name for name in names if names.count(name) > 1]:
    raise ConfigError(f'--times={text}: {again[0]} has two times')
  return dict(zip(names, numbers, strict=True))


def _numbers(option: str, text: str) -> list[float]:
  try:
    return [float(part) for part in text.split(',')]
  except ValueError:
    raise ConfigError(f'{option}={text}: these are no numbers') from None


def _samples(
  predictor: Predictor, args: argparse.Namespace
) -> tuple[Iterable[samples.Sample], int, list[Finding]]:
  """(samples, how many there are, those that are left out)."""
  if args.data:
    from flexfas_jax.input_pipeline import sources  # TFDS: only for sets that it prepared

    source = sources.open_source(args.data, args.data_dir)
    examples = (source[i] for i in range(len(source)))
    return samples.of_examples(examples, predictor.modalities), len(source), []
  if args.folder:
    found = folders.of_folder(args.folder, args.on_bad)
  else:
    labels = label_mapping.parse(args.labels) if args.labels is not None else None
    found = samples.of_manifest(args.manifest, args.root, labels, args.on_bad)
    if args.crop in ('box', 'landmarks') and not any(sample.box for sample in found.samples):
      raise ConfigError(f'--crop={args.crop}: {args.manifest} has no columns that say where')
    if args.max_skew is not None and not any(sample.times for sample in found.samples):
      raise ConfigError(f'--max_skew: {args.manifest} has no columns rgb_time, depth_time, ir_time')
  for note in found.notes:
    print(f'note: {note}', file=sys.stderr)
  return found.samples, len(found.samples), found.bad


def _many(
  predictor: Predictor,
  found: Iterable[samples.Sample],
  n: int,
  bad: list[Finding],
  args: argparse.Namespace,
) -> None:
  table = score_table.make(
    predictor,
    show_progress(found, n, 'samples', transient=True),
    args.max_skew,
    as_evaluated=bool(args.data),
    on_bad=args.on_bad,
  )
  if args.out:
    score_table.write(args.out, table)
  counts = collections.Counter(decision.outcome for decision in table.decisions)
  if args.json:
    for sample, decision in zip(table.samples, table.decisions, strict=True):
      told = decision.as_json()
      del told['seconds']  # many are decided at once
      print(json.dumps({'id': sample.id, **told}))
  elif not args.out:
    for sample, d in zip(table.samples, table.decisions, strict=True):
      print(f'{d.outcome:10} {d.score:8.6f} {d.subset or "nothing":13} {sample.id}')
  said = ', '.join(f'{counts[o]} {o}' for o in ('bona_fide', 'attack', 'fta'))
  if unusable := sum(bool(decision.unusable) for decision in table.decisions):
    said += f'; {unusable} were given an unusable modality'
  print(f'{len(table.samples)} samples: {said}', file=sys.stderr if args.json else sys.stdout)
  if args.out:
    what = 'flexfas_jax.score judges it' if table.labelled else 'no labels: nothing to judge it by'
    header = score_files.header_path(args.out).name
    print(f'{args.out}, {header}: {what}', file=sys.stderr if args.json else sys.stdout)
  sys.stdout.flush()
  if args.on_bad == 'skip':
    where = str(args.folder or args.manifest or args.data)
    bad = bad + [Finding('row', where, s.row, f'{s.id}: {text}') for s, text in table.faults]
    _report_skipped(bad, len(table.samples), args.out)
  else:
    _report_faults(table)
  _report_nan(table)


def _report_skipped(bad: list[Finding], n: int, out: Path | None) -> None:
  """Lists the samples that were left out, on stderr and beside the score file."""
  file = out and out.with_suffix('.bad_files.csv')
  try:
    if file and bad:
      write_csv(file, bad)
    elif file:
      file.unlink(missing_ok=True)  # of a run before this one
  except OSError as error:
    raise ConfigError(f'{file} cannot be written: {error.strerror}') from None
  if bad:
    texts = [finding.text for finding in bad]
    where = f', all in {file}' if file else ''
    print(
      f'{len(bad)} of {n + len(bad)} samples are left out{where}:\n{_first(texts)}', file=sys.stderr
    )


def _report_faults(table: score_table.Table) -> None:
  """Raises DataError where images are bad: the other decisions stand, and are not all."""
  if table.faults:
    texts = [f'{sample.id}: {text}' for sample, text in table.faults]
    raise DataError(
      f'{len(texts)} of {len(table.samples)} samples have bad images (their decision is fta; '
      f'--on_bad=skip leaves them out):\n{_first(texts)}'
    )


def _report_nan(table: score_table.Table) -> None:
  """Raises StateError where the model computed no number."""
  for subset, nan in table.nan.items():
    if nan.any():
      first = table.samples[int(nan.argmax())].id
      raise StateError(f'{subset} is nan for {int(nan.sum())} samples (the first is {first})')


def _first(texts: list[str]) -> str:
  more = f'\n... and {len(texts) - _SHOWN} more' if len(texts) > _SHOWN else ''
  return '\n'.join(texts[:_SHOWN]) + more


if __name__ == '__main__':
  sys.exit(main())
