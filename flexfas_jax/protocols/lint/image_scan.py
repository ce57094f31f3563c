"""Inspects the images that lists name, each triplet once, and reports what is wrong with them."""

import array
import collections
import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import numpy as np

from flexfas_jax.errors import DataError
from flexfas_jax.images import checks as image_checks
from flexfas_jax.images import encodings, face_crop, units
from flexfas_jax.images import files as image_files
from flexfas_jax.images.worker_pool import Workers
from flexfas_jax.progress import show_progress
from flexfas_jax.protocols import (
  bit_depths,
  exact_duplicates,
  lists,
  near_duplicates,
  relative_paths,
)
from flexfas_jax.protocols.findings import Finding
from flexfas_jax.protocols.lint import shortcut_findings
from flexfas_jax.protocols.lint.cross_checks import CrossChecks
from flexfas_jax.protocols.lint.report import EXCEPTIONS, Report
from flexfas_jax.schema import MODALITIES

_BATCH = 16  # triplets that a process gets at a time
_MIN_BATCHES = 5  # fewer are not worth starting processes
_MAX_WITHOUT_ROOT_CHECK = 3  # files; if all of more are missing, the root is wrong


class TripletInspection(NamedTuple):
  """The result of `inspect_triplet`."""

  problems: list[tuple[str, str]]  # (rule, text), missing files included
  descriptions: dict[str, str]  # {modality: `encodings.describe`}
  digests: list[int]  # for each of `MODALITIES`, see `exact_duplicates`; 0 without signal
  fingerprint: bytes  # of colour, see `near_duplicates`; b'' if absent, damaged or without signal


def scan(
  checks: CrossChecks,
  root: str,
  sizes: str | None,
  max_pixels: int,
  stated: units.Units,
  report: Report,
) -> None:
  """Inspects the files of every distinct triplet below the root.

  Args:
    checks: the rows of all lists.
    root: the folder that their paths are relative to.
    sizes, max_pixels, stated: as of `linter.check`.
    report: gets the findings.
  """
  missing, totals = [], collections.Counter()
  metadata = []  # of each row: label, subject, video, split, list
  descriptions = {modality: [] for modality in MODALITIES}
  positions, digests = array.array('q'), {m: array.array('Q') for m in MODALITIES}
  fingerprinted, fingerprints = array.array('q'), bytearray()
  bits = {  # by data set
    dataset: bit_depths.required(root, paths, stated)[0]
    for dataset, paths in checks.sample_paths(bit_depths.HEADERS).items()
  }
  jobs = (
    (
      (position, split, row),
      (
        root,
        row.paths,
        image_checks.Rules(
          bits.get(row.dataset, {}),
          sizes=sizes or image_checks.SIZES_OF.get(row.dataset, 'aspect'),
          units=stated,
        ),
        max_pixels,
        _used_cells(row),
      ),
    )
    for position, split, row in checks.distinct()
    if not any(map(relative_paths.leaves_root, row.paths.values()))
  )
  inspected = show_progress(
    _inspect_in_parallel(jobs), checks.n_distinct(), f'images below {root}', transient=True
  )
  for (position, split, row), inspection in inspected:
    totals.update(row.paths.keys())
    metadata.append((row.label, row.subject, row.video or row.id, split, row.list))
    positions.append(position)
    for modality, digest in zip(MODALITIES, inspection.digests, strict=True):
      descriptions[modality].append(inspection.descriptions.get(modality, ''))
      digests[modality].append(digest)
    if inspection.fingerprint:
      fingerprinted.append(position)
      fingerprints += inspection.fingerprint
    for rule, text in inspection.problems:
      if rule == 'missing-file':
        missing.append((row, text))
      else:
        report.add(rule, row, text)
  n_files = totals.total()
  if len(missing) == n_files > _MAX_WITHOUT_ROOT_CHECK:
    row, first = missing[0]
    hint = relative_paths.suggest_root(root, row.paths[first.partition(' ')[0]])
    text = f'none of the {n_files:,} files is below {root}, {hint}'
    report.findings.append(Finding('missing-file', row.list, 0, text))
    return
  _report_missing(root, missing, totals, report)
  if metadata:
    rows = shortcut_findings.Rows(*zip(*metadata, strict=True))
    shortcut_findings.report_file_shortcuts(rows, descriptions, report)
  digests = {m: np.array(column, np.uint64) for m, column in digests.items()}
  checks.check_shared_images(np.array(positions, np.int64), digests, report)
  checks.check_near_duplicates(np.array(fingerprinted, np.int64), fingerprints, report)


def _report_missing(
  root: str, missing: list[tuple[lists.ListRow, str]], totals: Mapping[str, int], report: Report
) -> None:
  """Reports missing files; many of one folder or modality are one finding."""
  excepted = {video for videos in EXCEPTIONS.values() for video in videos}
  findings = []
  for row, text in missing:
    if row.video in excepted:
      report.add('missing-file', row, text)
    else:
      findings.append(Finding('missing-file', row.list, row.line, text, row.id))
  report.findings += relative_paths.group_missing(root, findings, totals)


def inspect_triplet(
  root: str,
  paths: Mapping[str, str],
  rules: image_checks.Rules,
  max_pixels: int,
  cells: Mapping[str, str] = {},
) -> TripletInspection:
  """Inspects the files of a triplet.

  Args:
    root: the folder that paths are relative to.
    paths: by modality.
    rules: of the data set.
    max_pixels: as of `linter.check`.
    cells: further columns of the row: digests of its files, and the box or eyes of the face. With
      a box or eyes, EXIF orientation is no problem: images are rotated before faces are cropped.
  """
  images, problems, silent, damaged = {}, [], set(), set()
  for modality, path in paths.items():
    try:
      images[modality] = image_files.read(relative_paths.locate(root, path))
    except (FileNotFoundError, NotADirectoryError):
      problems.append(('missing-file', f'{modality} {path}'))
    except OSError as error:
      problems.append(('unreadable', f'{modality} cannot be read ({error.strerror}): {path}'))
  image_problems = image_checks.inspect(images, rules, max_pixels)
  if not any(cells.keys() >= set(columns) for columns in (face_crop.BOX, face_crop.EYES)):
    image_problems += image_checks.check_orientations(images)
  if not lists.invalid_digests(cells):
    image_problems += image_checks.check_digests(images, lists.digests(cells))
  for rule, text in image_problems:
    modality = text.partition(' ')[0]
    if rule == 'black':
      silent.add(modality)
    if rule == 'unreadable':
      damaged.add(modality)
    path = paths.get(modality)
    problems.append((rule, f'{text}: {path}' if path else text))
  digests = [
    0 if modality in silent else exact_duplicates.digest_prefix(images.get(modality, b''))
    for modality in MODALITIES
  ]
  colour = near_duplicates.MODALITY
  compared = b'' if colour in silent | damaged else images.get(colour, b'')
  return TripletInspection(
    problems,
    {modality: encodings.describe(encoded) for modality, encoded in images.items()},
    digests,
    near_duplicates.fingerprint(compared) if compared else b'',
  )


def _used_cells(row: lists.ListRow) -> dict[str, str]:
  """The further columns of a row that `inspect_triplet` uses."""
  used = {*face_crop.BOX, *face_crop.EYES, *(f'{modality}_sha256' for modality in MODALITIES)}
  return {name: text for name, text in row.extra.items() if name in used}


def _inspect_batch(batch: list[tuple]) -> list[TripletInspection]:
  return [inspect_triplet(*arguments) for arguments in batch]


def _inspect_in_parallel(jobs: Iterator[tuple[tuple, tuple]]) -> Iterator[tuple]:
  """Yields (key, inspection) in order, on all cores; few jobs wait in memory.

  Args:
    jobs: (key, arguments of `inspect_triplet`).
  """
  batches = iter(lambda: list(itertools.islice(jobs, _BATCH)), [])
  for_keys, for_arguments = itertools.tee(batches)
  work = ([arguments for _, arguments in batch] for batch in for_arguments)
  try:
    with Workers() as workers:
      results = workers.map(_inspect_batch, work, few=_MIN_BATCHES)
      for batch, inspections in zip(for_keys, results, strict=True):
        yield from zip((key for key, _ in batch), inspections, strict=True)
  except BrokenProcessPool:
    raise DataError('a process that decodes images was killed: out of memory?') from None
