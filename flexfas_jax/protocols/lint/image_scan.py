"""What is wrong with the pictures that lists name, below a root: each triplet is looked at once."""

import array
import collections
import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from flexfas_jax.errors import DataError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.images import encodings, face_crop, units
from flexfas_jax.images import files as image_files
from flexfas_jax.images.worker_pool import Workers
from flexfas_jax.progress import show_progress
from flexfas_jax.protocols import exact_duplicates, lists, near_duplicates, relative_paths
from flexfas_jax.protocols.findings import Finding
from flexfas_jax.protocols.lint import shortcut_findings
from flexfas_jax.protocols.lint.cross_checks import Table
from flexfas_jax.protocols.lint.report import EXCEPTIONS, Report
from flexfas_jax.schema import MODALITIES

_AT_ONCE = 16  # triplets that a process is given at a time
_FEW = 5  # such portions; fewer are not worth starting processes


def scan(
  table: Table,
  root: str,
  sizes: str | None,
  max_pixels: int,
  stated: units.Units,
  report: Report,
) -> None:
  """Looks at every triplet once, whichever lists name it."""
  n, missing, n_files = table.n_distinct(), [], 0
  totals = collections.Counter()
  inside = lambda row: not any(map(relative_paths.leaves_root, row.paths.values()))  # noqa: E731
  # Of every row that is looked at: what predicts its label may be in its files.
  splits, who, files = [], [], {modality: [] for modality in MODALITIES}
  positions, digests = array.array('q'), {m: array.array('Q') for m in MODALITIES}
  looked_at, looks = array.array('q'), bytearray()
  rows = (
    (position, row)
    for (position, row), split in zip(table.distinct(), table.splits_of_distinct(), strict=True)
    if inside(row) and not splits.append(split)
  )
  default = image_checks.SIZES_OF.get
  jobs = (
    (
      (position, row),
      (root, row.paths, sizes or default(row.dataset, 'aspect'), max_pixels, stated, _cells(row)),
    )
    for position, row in rows
  )
  looked = show_progress(_parallel(jobs), n, f'pictures below {root}', transient=True)
  for (position, row), (problems, encodings_of, numbers, look_of) in looked:
    n_files += len(row.paths)
    totals.update(iter(row.paths))
    who.append((row.label, row.subject, row.video or row.id, row.list))
    for modality, described in files.items():
      described.append(encodings_of.get(modality, ''))
    positions.append(position)
    for modality, number in zip(MODALITIES, numbers, strict=True):
      digests[modality].append(number)
    if look_of:
      looked_at.append(position)
      looks += look_of
    for text in lists.invalid_digests(row.extra):
      report.add('row', row, text)
    for rule, text in problems:
      if rule == 'missing-file':
        missing.append((row, text))
      else:
        report.add(rule, row, text)
  if len(missing) == n_files > 3:  # a wrong root, not missing files
    row, first = missing[0]
    where = relative_paths.suggest_root(root, row.paths[first.partition(' ')[0]])
    text = f'none of the {n_files:,} files is below {root}, {where}'
    report.findings.append(Finding('missing-file', missing[0][0].list, 0, text))
    return
  _report_missing(root, missing, totals, report)
  shortcut_findings.of_files(files, splits, who, report)
  table.exact_duplicates(
    np.array(positions), {m: np.array(some, np.uint64) for m, some in digests.items()}, report
  )
  table.near_duplicates(np.array(looked_at, np.int64), looks, report)


def _report_missing(
  root: str, missing: list[tuple[lists.Row, str]], totals: Mapping[str, int], report: Report
) -> None:
  """Adds the missing files, those of one folder or modality together where they are many."""
  excepted = {video for videos in EXCEPTIONS.values() for video in videos}
  found = []
  for row, text in missing:
    if row.video in excepted:
      report.add('missing-file', row, text)
    else:
      found.append(Finding('missing-file', row.list, row.line, text, row.id))
  report.findings += relative_paths.group_missing(root, found, totals)


def inspect_triplet(
  root: str,
  paths: Mapping[str, str],
  sizes: str,
  max_pixels: int,
  stated: units.Units = units.Units(),  # noqa: B008
  cells: Mapping[str, str] = {},  # noqa: B006
) -> tuple[list[tuple[str, str]], dict[str, str], list[int], bytes]:
  """Inspects the files of a triplet.

  Args:
    root: the folder that paths are relative to.
    paths: by modality.
    sizes, max_pixels, stated: as of `linter.check`.
    cells: further columns of the row: digests of its files, and the box or eyes of the face. With
      a box or eyes, EXIF orientation is no problem: images are rotated before faces are cropped.

  Returns:
    Problems as (rule, text), missing files included; each file's `encodings.describe` by modality;
    a digest prefix for each of `MODALITIES`, see `exact_duplicates`, 0 without signal; and the
    fingerprint of RGB, see `near_duplicates`, b'' if absent, without signal or damaged.
  """
  images, problems, silent, damaged = {}, [], set(), set()
  for modality, path in paths.items():
    try:
      images[modality] = image_files.read(relative_paths.locate(root, path))
    except (FileNotFoundError, NotADirectoryError):
      problems.append(('missing-file', f'{modality} {path}'))
    except OSError as error:
      problems.append(('unreadable', f'{modality} cannot be read ({error.strerror}): {path}'))
  rules = image_checks.Rules(sizes=sizes, units=stated)
  found = image_checks.inspect(images, rules, max_pixels)
  if not any(cells.keys() >= set(columns) for columns in (face_crop.BOX, face_crop.EYES)):
    found += image_checks.rotated(images)
  if not lists.invalid_digests(cells):
    found += image_checks.other_bytes(images, lists.digests(cells))
  for rule, text in found:
    modality = text.partition(' ')[0]
    if rule == 'black':
      silent.add(modality)
    if rule == 'unreadable':
      damaged.add(modality)
    path = paths.get(modality)
    problems.append((rule, f'{text}: {path}' if path else text))
  compared = [images.get(m, b'') if m not in silent else b'' for m in MODALITIES]
  described = {m: encodings.describe(encoded) for m, encoded in images.items()}
  numbers = [exact_duplicates.digest_prefix(image) for image in compared]
  rgb = b'' if 'rgb' in silent | damaged else images.get('rgb', b'')
  return problems, described, numbers, near_duplicates.fingerprint(rgb) if rgb else b''


def _cells(row: lists.Row) -> dict[str, str]:
  """Those of the further cells of a row that `inspect_triplet` uses."""
  used = {*face_crop.BOX, *face_crop.EYES, *(f'{modality}_sha256' for modality in MODALITIES)}
  return {name: text for name, text in row.extra.items() if name in used}


def _several(jobs: list[tuple]) -> list[tuple]:
  return [inspect_triplet(*job) for job in jobs]


def _parallel(jobs: Iterator[tuple[tuple, tuple]]) -> Iterator[tuple]:
  """Yields (row, what `inspect_triplet` returns) in order; all cores work, and few jobs wait."""
  here, there = itertools.tee(iter(lambda: list(itertools.islice(jobs, _AT_ONCE)), []))
  work = ([job for _, job in some] for some in there)
  try:
    with Workers() as workers:
      for some, found in zip(here, workers.map(_several, work, few=_FEW), strict=True):
        yield from zip((row for row, _ in some), found, strict=True)
  except BrokenProcessPool:
    raise DataError('a process that decodes pictures was ended: out of memory?') from None
