"""What is told of lists: what they have, what is wrong, and what of it is known and accepted."""

import collections
import dataclasses
from pathlib import Path
from typing import NamedTuple

import flexfas_jax
from flexfas_jax.protocols.findings import RULES, Finding, severity
from flexfas_jax.protocols.lists import Row

# Leaks that stand in published lists: (a file, the splits it is in). Figures that are compared with
# a paper's need its lists as they are: these leaks can be accepted, by the name of their set.
KNOWN_LEAKS = {
  'flexmodal_v1': (
    ('CeFA/CeFA-Race/AF/AF-300/1_300_1_1_1/profile/0026.jpg', frozenset({'val', 'test'})),
  ),
}
# Videos whose pictures are known not to go together, and the rules that they may break.
EXCEPTIONS = {
  # WMCA's depth and infrared have other frames than its colour there.
  'wmca_frame_indices': ('wmca/100/100_03_015_2_10', 'wmca/101/101_06_067_1_02'),
}
SIMILAR = 'similar names'  # of a note: names that may be one person's
_EXCEPTED = ('triplet', 'missing-file')


class Summary(NamedTuple):
  """What a list has."""

  list: str
  form: str
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
  """How lists of the same split lie to each other."""

  kind: str  # 'equal', 'part', 'partition' or 'overlap'
  lists: tuple[str, ...]
  of: str
  what: str  # 'rows', 'attacks' or 'bona fide'
  triplets: int

  def __str__(self) -> str:
    names = ', '.join(Path(name).name for name in self.lists)
    of, n = Path(self.of).name, f'{self.triplets:,}'
    return {
      'equal': f'{names} has the triplets of {of}: {n}',
      'part': f'{names} is part of {of}: {n} of its triplets',
      'partition': f'{names} ({len(self.lists)} lists) partition the {self.what} of {of}: '
      f'{n} triplets, none twice and none left out',
      'overlap': f'{names} shares {n} triplets with {of}',
    }[self.kind]


class Leak(NamedTuple):
  """A person in several splits, whatever rule says so."""

  subject: str
  rows: dict[str, int]  # by split
  accepted: str = ''  # by which name of KNOWN_LEAKS

  def __str__(self) -> str:
    accepted = f' (accepted: {self.accepted})' if self.accepted else ''
    return f'leak{accepted}: subject {self.subject} in {", ".join(self.rows)}'


class Note(NamedTuple):
  """A finding that is known and accepted, and by which name."""

  exception: str
  finding: Finding


@dataclasses.dataclass
class Report:
  """Everything that was found."""

  lists: list[Summary] = dataclasses.field(default_factory=list)
  relations: list[Relation] = dataclasses.field(default_factory=list)
  leaks: list[Leak] = dataclasses.field(default_factory=list)
  findings: list[Finding] = dataclasses.field(default_factory=list)
  notes: list[Note] = dataclasses.field(default_factory=list)
  shortcuts: list[dict] = dataclasses.field(default_factory=list)  # the tables of such findings
  accepted: tuple[str, ...] = ()
  root: str | None = None

  def add(self, rule: str, row: Row, text: str) -> None:
    """Adds a finding of a row, or a note where it is excepted."""
    finding = Finding(rule, row.list, row.line, text, row.id)
    if rule in _EXCEPTED:
      for name, videos in EXCEPTIONS.items():
        if row.video in videos:
          self.notes.append(Note(name, finding))
          return
    self.findings.append(finding)

  def of_severity(self, wanted: str) -> list[Finding]:
    """The findings whose rule is of a severity, 'error' or 'note'."""
    return [finding for finding in self.findings if severity(finding.rule) == wanted]

  def counts(self) -> dict[str, int]:
    """Findings by rule, in the order of `findings.RULES`."""
    counts = collections.Counter(finding.rule for finding in self.findings)
    return {rule: counts[rule] for rule in RULES if counts[rule]}

  def json_safe(self) -> dict:
    """The report as JSON can hold it."""
    return {
      'code_version': flexfas_jax.__version__,
      'accepted_known_leaks': self.accepted,
      'root': self.root,
      'counts': self.counts(),
      'lists': [summary._asdict() for summary in self.lists],
      'relations': [r._asdict() | {'text': str(r)} for r in self.relations],
      'leaks': [leak._asdict() | {'text': str(leak)} for leak in self.leaks],
      'shortcuts': self.shortcuts,
      'findings': [_as_json(finding, severity(finding.rule)) for finding in self.findings],
      'notes': [{'exception': n.exception, **_as_json(n.finding, 'note')} for n in self.notes],
    }


def _as_json(finding: Finding, severity: str) -> dict:
  return {'severity': severity, **finding._asdict()}
