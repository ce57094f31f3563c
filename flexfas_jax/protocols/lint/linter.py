"""What is wrong within protocol lists, between them, and between them and the pictures they name.

`check` is lint: whole lists, nothing left out. `check_rows` is for builders, which have rows.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from flexfas_jax.errors import ConfigError, DataError
from flexfas_jax.images import files as image_files
from flexfas_jax.images import units
from flexfas_jax.protocols import lists
from flexfas_jax.protocols.findings import RULES, Finding
from flexfas_jax.protocols.lint import shortcut_findings
from flexfas_jax.protocols.lint.cross_checks import Table
from flexfas_jax.protocols.lint.hashed_list import Codes, Index, read
from flexfas_jax.protocols.lint.relations import relate
from flexfas_jax.protocols.lint.report import EXCEPTIONS, KNOWN_LEAKS, SIMILAR, Report

__all__ = ('EXCEPTIONS', 'KNOWN_LEAKS', 'Checked', 'Report', 'check', 'check_rows')


class Checked(NamedTuple):
  """What `check_rows` finds."""

  findings: list[Finding]  # each names the list and line that its row has
  notes: list[str]  # on what was accepted
  wrong: dict[str, set[int]]  # by split: positions of the rows that have findings


def check(
  paths: Sequence[str | Path],
  *,
  labels: Mapping[str, str] | None = None,
  splits: Mapping[str, str] | None = None,
  accept: Collection[str] = (),
  root: str | Path | None = None,
  sizes: str | None = None,
  max_pixels: int = image_files.MAX_PIXELS,
  stated: units.Units = units.Units(),  # noqa: B008
) -> Report:
  """Checks lists, each and together.

  Args:
    paths: the lists.
    labels: as in `lists.read`.
    splits: {list: split} where file names do not say it.
    accept: names of `KNOWN_LEAKS` whose leaks become notes.
    root: the folder that the lists' paths start at; given, all pictures are looked at.
    sizes: how sizes within a triplet must agree, as in `image_checks.Rules`; None: as its builder
      has it, in `image_checks.SIZES_OF`, and 'aspect' for other data sets.
    max_pixels: limit of each image's width times height, checked before it is decoded.
    stated: units of 16-bit images.

  Returns:
    The report; what cannot be read is a finding of it.

  Raises:
    ConfigError: an unknown name in `accept`, a root that is no folder, too many splits, a
      `max_pixels` that cannot be.
  """
  _check_names(accept)
  image_files.pixel_limit(max_pixels)
  if root is not None and not Path(root).is_dir():
    raise ConfigError(f'the root {root} is no folder')
  report = Report(accepted=tuple(accept), root=None if root is None else str(root))
  codes, indices = Codes(), []
  for path in dict.fromkeys(map(str, paths)):
    given = lists.split_name((splits or {}).get(path, ''))
    try:
      index, summary = read(path, labels, given, codes, report)
    except DataError as error:
      report.findings.append(Finding('row', path, 0, str(error).removeprefix(f'{path} ')))
      continue
    indices.append(index)
    report.lists.append(summary)

  table = Table(indices, codes)
  table.duplicates()
  table.labels()
  table.leaks(report)
  table.tell(report)
  shortcut_findings.of_lists(table, report)
  report.relations = relate(indices, report.lists)
  if root is not None:
    from flexfas_jax.protocols.lint import (
      image_scan,  # OpenCV: only who has a root pays for it
    )

    image_scan.scan(table, str(root), sizes, max_pixels, stated, report)
  order, place = list(RULES), {str(path): i for i, path in enumerate(paths)}
  report.findings.sort(key=lambda f: (order.index(f.rule), place.get(f.list, -1), f.row))
  return report


def check_rows(rows: Mapping[str, Sequence[lists.Row]], accept: Collection[str] = ()) -> Checked:
  """Checks rows that are at hand: duplicates, leaks between splits, one triplet with two labels.

  Args:
    rows: by split.
    accept: names of `KNOWN_LEAKS` whose leaks become notes.

  Raises:
    ConfigError: an unknown name in `accept`.
  """
  _check_names(accept)
  codes, indices = Codes(), []
  for split, some in rows.items():
    # A split may be made of several lists, and a list be parted into several splits: duplicates are
    # looked for within a split.
    index = Index(
      lambda wanted, some=some: ((i, some[i]) for i in wanted), lambda i, some=some: some[i].list
    )
    for row in some:
      index.add(row, codes[split])
    indices.append(index)
  table, report = Table(indices, codes), Report(accepted=tuple(accept))
  table.duplicates()
  table.labels()
  table.leaks(report)
  table.tell(report)
  found = sorted(report.findings, key=lambda f: (list(RULES).index(f.rule), f.list, f.row))
  notes = [
    f'{"note" if note.exception == SIMILAR else "accepted"}: {note.exception}: {note.finding}'
    for note in report.notes
  ]
  wrong, start = {}, 0
  for split, some in rows.items():
    wrong[split] = {row - start for row in table.wrong if start <= row < start + len(some)}
    start += len(some)
  return Checked(found, notes, wrong)


def _check_names(accept: Collection[str]) -> None:
  if unknown := sorted(set(accept) - set(KNOWN_LEAKS)):
    raise ConfigError(
      f'no known leak is called {unknown[0]!r}; there are: {", ".join(KNOWN_LEAKS)}'
    )
