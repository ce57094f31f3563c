"""Facts that predict the label in lists: presence of sensors, data set, device; and of their files.

`shortcuts.py` has the rule; here is what it is applied to, split by split, and how it is reported.
"""

from collections.abc import Mapping, Sequence

from flexfas_jax import schema
from flexfas_jax.protocols import shortcuts
from flexfas_jax.protocols.findings import Finding
from flexfas_jax.protocols.lint.cross_checks import Table
from flexfas_jax.protocols.lint.report import Report

_LABELS = {0: 'attack', 1: 'bona_fide', -1: ''}


def of_lists(table: Table, report: Report) -> None:
  """Reports what rows alone say: which sensors there are, the data set, the device."""
  columns = table.facts()
  facts = shortcuts.facts_of({m: columns[m] for m in schema.MODALITIES}, {})
  facts |= {'data set': columns['dataset'], 'device': columns['device']}
  labels = [_LABELS[label] for label in columns['label']]
  who = (labels, columns['subject'], columns['video'])
  _report(facts, columns['split'], who, columns['list'], report)


def of_files(
  files: Mapping[str, Sequence[str]],
  splits: Sequence[str],
  who: Sequence[tuple[str, str, str, str]],
  report: Report,
) -> None:
  """Reports what files say: format, size, bits, encoder.

  Args:
    files: {modality: [N] of `encodings.describe`}.
    splits: [N].
    who: [N], the label, subject, video and list of every triplet.
    report: gets the findings.
  """
  if who:
    *columns, named = zip(*who, strict=True)
    _report(shortcuts.facts_of({}, files), splits, columns, named, report)


def _report(facts, splits, who, lists_, report: Report) -> None:
  first = {}  # the list of every split
  for split, path in zip(splits, lists_, strict=True):
    first.setdefault(split, path)
  for split, found in shortcuts.find_by_split(splits, facts, *who).items():
    for shortcut in found:
      text = f'{split or "all rows"}: {shortcut}'
      report.findings.append(Finding('shortcut', first[split], 0, text))
      report.shortcuts.append({'split': split, **shortcut._asdict()})
