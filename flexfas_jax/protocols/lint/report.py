"""The result of linting lists: summaries, relations, leaks, findings, and accepted findings."""

import collections
import dataclasses
from pathlib import Path
from typing import NamedTuple

import flexfas_jax
from flexfas_jax.protocols.findings import RULES, Finding, severity
from flexfas_jax.protocols.lists import ListRow

# Leaks of published lists: (a file, the splits that it is in). A comparison with published figures
# requires the lists as they are: these leaks can be accepted by name.
KNOWN_LEAKS = {
  'flexmodal_v1': (
    ('CeFA/CeFA-Race/AF/AF-300/1_300_1_1_1/profile/0026.jpg', frozenset({'val', 'test'})),
  ),
}
# Videos whose files are known not to match; findings of `_EXCEPTED_RULES` become notes.
EXCEPTIONS = {
  # WMCA's depth and infrared have other frames than its colour there.
  'wmca_frame_indices': ('wmca/100/100_03_015_2_10', 'wmca/101/101_06_067_1_02'),
}
_EXCEPTED_RULES = ('triplet', 'missing-file')
SIMILAR = 'similar names'  # `Note.exception` of two names that may be one subject's


class Summary(NamedTuple):
  """Counts of one list."""

  list: str
  format: str
  sha256: str
  splits: tuple[str, ...]
  rows: int
  bona_fide: int
  attacks: int
  unlabelled: int
  redundant: int  # rows less distinct triplets
  subjects: int
  videos: int
  datasets: tuple[str, ...]


class Relation(NamedTuple):
  """A set relation of lists to another list of the same split."""

  kind: str  # 'equal', 'subset', 'partition' or 'overlap'
  lists: tuple[str, ...]
  other: str
  compared: str  # 'rows', 'attacks' or 'bona fide'
  triplets: int  # in common

  def __str__(self) -> str:
    names = ', '.join(Path(name).name for name in self.lists)
    other, n = Path(self.other).name, f'{self.triplets:,}'
    return {
      'equal': f'{names} has the same {n} triplets as {other}',
      'subset': f'{names} is a subset of {other}: {n} triplets',
      'partition': f'{names} ({len(self.lists)} lists) partition the {self.compared} of {other}: '
      f'{n} triplets, each in one list',
      'overlap': f'{names} shares {n} triplets with {other}',
    }[self.kind]


class SubjectLeak(NamedTuple):
  """A subject in several splits, by whichever rule it was found."""

  subject: str
  rows: dict[str, int]  # by split
  accepted: str = ''  # a name of KNOWN_LEAKS

  def __str__(self) -> str:
    accepted = f' (accepted: {self.accepted})' if self.accepted else ''
    return f'leak{accepted}: subject {self.subject} in {", ".join(self.rows)}'


class Note(NamedTuple):
  """An accepted finding, and the name of the exception that accepts it."""

  exception: str
  finding: Finding


@dataclasses.dataclass
class Report:
  """The result of `linter.check`."""

  lists: list[Summary] = dataclasses.field(default_factory=list)
  relations: list[Relation] = dataclasses.field(default_factory=list)
  leaks: list[SubjectLeak] = dataclasses.field(default_factory=list)
  findings: list[Finding] = dataclasses.field(default_factory=list)
  notes: list[Note] = dataclasses.field(default_factory=list)
  shortcuts: list[dict] = dataclasses.field(default_factory=list)  # the tables of such findings
  accepted: tuple[str, ...] = ()
  root: str | None = None

  def add(self, rule: str, row: ListRow, text: str) -> None:
    """Adds a finding of a row, or a note if the row's video is one of `EXCEPTIONS`."""
    finding = Finding(rule, row.list, row.line, text, row.id)
    if rule in _EXCEPTED_RULES:
      for name, videos in EXCEPTIONS.items():
        if row.video in videos:
          self.notes.append(Note(name, finding))
          return
    self.findings.append(finding)

  def of_severity(self, level: str) -> list[Finding]:
    """The findings of severity 'error' or 'note'."""
    return [finding for finding in self.findings if severity(finding.rule) == level]

  def counts(self) -> dict[str, int]:
    """The number of findings by rule, in the order of `findings.RULES`."""
    counts = collections.Counter(finding.rule for finding in self.findings)
    return {rule: counts[rule] for rule in RULES if counts[rule]}

  def json_safe(self) -> dict:
    """The report as values that JSON can represent."""
    return {
      'code_version': flexfas_jax.__version__,
      'accepted_known_leaks': self.accepted,
      'root': self.root,
      'counts': self.counts(),
      'lists': [summary._asdict() for summary in self.lists],
      'relations': [r._asdict() | {'text': str(r)} for r in self.relations],
      'leaks': [leak._asdict() | {'text': str(leak)} for leak in self.leaks],
      'shortcuts': self.shortcuts,
      'findings': [_finding_as_json(finding, severity(finding.rule)) for finding in self.findings],
      'notes': [
        {'exception': n.exception, **_finding_as_json(n.finding, 'note')} for n in self.notes
      ],
    }


def _finding_as_json(finding: Finding, severity: str) -> dict:
  return {'severity': severity, **finding._asdict()}
