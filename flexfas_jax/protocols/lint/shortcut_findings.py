"""Findings of the rule 'shortcut': facts about rows and files that predict the label."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from flexfas_jax.protocols import shortcuts
from flexfas_jax.protocols.findings import Finding
from flexfas_jax.protocols.lint.report import Report


class Rows(NamedTuple):
  """Columns of rows, [N] str each."""

  labels: Sequence[str]  # of `schema.LABELS`, or ''
  subjects: Sequence
  videos: Sequence
  splits: Sequence[str]
  lists: Sequence[str]


def report_list_shortcuts(
  rows: Rows,
  present: Mapping[str, Sequence[bool]],
  datasets: Sequence[str],
  devices: Sequence[str],
  report: Report,
) -> None:
  """Reports shortcuts that rows show without their files: sensors, data set, device.

  Args:
    rows: N rows.
    present: {modality: [N]}.
    datasets, devices: [N].
    report: gets the findings.
  """
  facts = shortcuts.facts_of(present, {})
  facts |= {'data set': datasets, 'device': devices}
  _report(facts, rows, report)


def report_file_shortcuts(
  rows: Rows, descriptions: Mapping[str, Sequence[str]], report: Report
) -> None:
  """Reports shortcuts that files show: format, size, bits, encoder.

  Args:
    rows: N rows.
    descriptions: {modality: [N] of `encodings.describe`}.
    report: gets the findings.
  """
  _report(shortcuts.facts_of({}, descriptions), rows, report)


def _report(facts: Mapping[str, Sequence[str]], rows: Rows, report: Report) -> None:
  first_list = {}  # of every split
  for split, name in zip(rows.splits, rows.lists, strict=True):
    first_list.setdefault(split, name)
  columns = (rows.labels, rows.subjects, rows.videos)
  for split, of_split in shortcuts.find_by_split(rows.splits, facts, *columns).items():
    for shortcut in of_split:
      text = f'{split or "all rows"}: {shortcut}'
      report.findings.append(Finding('shortcut', first_list[split], 0, text))
      report.shortcuts.append({'split': split, **shortcut._asdict()})
