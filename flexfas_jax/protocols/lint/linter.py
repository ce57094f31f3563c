"""Checks of protocol lists, between them, and of the images that they name.

`check` is `lint`: whole lists. `check_rows` is for builders, which have rows.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from flexfas_jax import schema
from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images import files as image_files
from flexfas_jax.images import units
from flexfas_jax.protocols import lists
from flexfas_jax.protocols.findings import RULES, Finding
from flexfas_jax.protocols.lint import hashed_list, shortcut_findings
from flexfas_jax.protocols.lint.cross_checks import CrossChecks
from flexfas_jax.protocols.lint.hashed_list import HashedList, SplitCodes
from flexfas_jax.protocols.lint.relations import find_relations
from flexfas_jax.protocols.lint.report import EXCEPTIONS, KNOWN_LEAKS, SIMILAR, Report

__all__ = ('EXCEPTIONS', 'KNOWN_LEAKS', 'Checked', 'Report', 'check', 'check_rows')


class Checked(NamedTuple):
  """The result of `check_rows`."""

  findings: list[Finding]  # with the list and line of their rows
  notes: list[str]  # on accepted findings
  faulty: dict[str, set[int]]  # by split: positions of the rows that have findings


def check(
  paths: Sequence[str | Path],
  *,
  labels: Mapping[str, str] | None = None,
  splits: Mapping[str, str] | None = None,
  accept: Collection[str] = (),
  root: str | Path | None = None,
  sizes: str | None = None,
  max_pixels: int = image_files.MAX_PIXELS,
  stated: units.Units = units.Units(),
  categories: Mapping[str, str] | None = None,
) -> Report:
  """Checks lists, each and together.

  Args:
    paths: the lists.
    labels: as of `lists.read`.
    splits: {list: split} for lists whose file name contains none.
    accept: names of `KNOWN_LEAKS` whose leaks become notes.
    root: the folder that the lists' paths are relative to. If given, all images are decoded.
    sizes: how sizes within a triplet must agree, as in `image_checks.Rules`; None: as the data
      set's builder requires, in `image_checks.SIZES_OF`, and 'aspect' for other data sets.
    max_pixels: limit of each image's width times height, checked before it is decoded.
    stated: units of 16-bit images.
    categories: {attack type: category} for types that are no category themselves.

  Returns:
    The report; an unreadable list is a finding of it.

  Raises:
    ConfigError: an unknown name in `accept`, a root that is no folder, too many splits, an
      invalid `max_pixels`.
  """
  _check_known(accept)
  image_files.check_pixel_limit(max_pixels)
  if root is not None and not Path(root).is_dir():
    raise ConfigError(f'the root {root} is no folder')
  report = Report(accepted=tuple(accept), root=None if root is None else str(root))
  codes, hashed_lists = SplitCodes(), []
  for path in dict.fromkeys(map(str, paths)):
    split = lists.split_name((splits or {}).get(path, ''))
    try:
      hashed, summary = hashed_list.read(path, labels, split, codes, report, categories or {})
    except DataError as error:
      report.findings.append(Finding('row', path, 0, str(error).removeprefix(f'{path} ')))
      continue
    hashed_lists.append(hashed)
    report.lists.append(summary)

  report.findings += _rows_without_split(hashed_lists)
  checks = _check_across(hashed_lists, codes, report)
  columns = checks.columns_for_shortcuts()
  shortcut_findings.report_list_shortcuts(
    shortcut_findings.Rows(
      *(columns[name] for name in ('label', 'subject', 'video', 'split', 'list'))
    ),
    {modality: columns[modality] for modality in schema.MODALITIES},
    columns['dataset'],
    columns['device'],
    report,
  )
  report.relations = find_relations(hashed_lists, report.lists)
  if root is not None:
    from flexfas_jax.protocols.lint import image_scan  # imports OpenCV, for images only

    image_scan.scan(checks, str(root), sizes, max_pixels, stated, report)
  rules, places = list(RULES), {str(path): i for i, path in enumerate(paths)}
  report.findings.sort(key=lambda f: (rules.index(f.rule), places.get(f.list, -1), f.row))
  return report


def check_rows(
  rows: Mapping[str, Sequence[lists.ListRow]], accept: Collection[str] = ()
) -> Checked:
  """Checks rows in memory: duplicates, leaks between splits, triplets with two labels.

  Duplicates are repeated rows of one split, from whichever lists.

  Args:
    rows: by split.
    accept: names of `KNOWN_LEAKS` whose leaks become notes.

  Raises:
    ConfigError: an unknown name in `accept`.
  """
  _check_known(accept)
  codes, hashed_lists = SplitCodes(), []
  for split, of_split in rows.items():
    hashed = HashedList(
      lambda positions, of_split=of_split: ((i, of_split[i]) for i in positions),
      lambda position, of_split=of_split: of_split[position].list,
    )
    for row in of_split:
      hashed.add(row, codes.code(split))
    hashed_lists.append(hashed)
  report = Report(accepted=tuple(accept))
  checks = _check_across(hashed_lists, codes, report)
  rules = list(RULES)
  findings = sorted(report.findings, key=lambda f: (rules.index(f.rule), f.list, f.row))
  notes = [
    f'{"note" if note.exception == SIMILAR else "accepted"}: {note.exception}: {note.finding}'
    for note in report.notes
  ]
  faulty, start = {}, 0
  for split, of_split in rows.items():
    end = start + len(of_split)
    faulty[split] = {row - start for row in checks.faulty if start <= row < end}
    start = end
  return Checked(findings, notes, faulty)


def _check_across(hashed_lists: list[HashedList], codes: SplitCodes, report: Report) -> CrossChecks:
  checks = CrossChecks(hashed_lists, codes)
  checks.check_duplicates()
  checks.check_labels()
  checks.check_leaks(report)
  checks.resolve(report)
  return checks


def _rows_without_split(hashed_lists: Sequence[HashedList]) -> list[Finding]:
  """Notes on the rows without a split, if others have one."""
  splits = [hashed.column('split') for hashed in hashed_lists]
  findings = []
  for hashed, split in zip(hashed_lists, splits, strict=True):
    without = (split == 0).nonzero()[0]
    if len(without) and any(other.any() for other in splits):
      line = int(hashed.column('line')[without[0]])
      text = lists.describe_without_split(len(without), len(split))
      findings.append(Finding('no-split', hashed.list_of(0), line, text))
  return findings


def _check_known(accept: Collection[str]) -> None:
  if unknown := sorted(set(accept) - set(KNOWN_LEAKS)):
    raise ConfigError(
      f'no known leak is called {unknown[0]!r}; there are: {", ".join(KNOWN_LEAKS)}'
    )
