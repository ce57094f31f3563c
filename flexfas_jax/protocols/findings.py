"""What can be wrong with lists and pictures: one vocabulary for lint and for the builders."""

import csv
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

# What each rule finds, and the way out. Printed beside the findings, and by `lint --help`.
RULES = {
  'row': 'a row, or a file, that is not of the form expected; the text says which',
  'label': 'a label or an instrument that is not known, or contradicts the path; map labels with '
  '--labels',
  'duplicate': 'the same triplet more than once; drop all but one',
  'leak-file': 'a file in two splits; take it out of one',
  'leak-image': 'an image whose bytes are in another split, under another name; take it out of one',
  'leak-video': 'a video in two splits; take it out of one',
  'leak-subject': 'a person in two splits; take it out of one',
  'triplet': 'frame, video or subject disagree within a row',
  'swapped': 'a picture stands in the column of another modality',
  'same-image': 'a modality is a copy of another, also mirrored, shifted or in other tones',
  'black': 'no signal: one colour, noise, or hardly any depth measured; treated as absent',
  'missing-file': 'no such file below the root',
  'unreadable': 'not a whole image: truncated, damaged, empty, no image, or outside the limits',
  'bit-depth': 'not the bit depth that this data set has; nothing is cut down silently',
  'range': 'values that the stated unit cannot have',
  'colour': 'a colour picture where one channel is due: a colour map cannot be undone',
  'size': 'sizes of a triplet that registered images cannot have; --sizes names another rule',
  'rotated': 'EXIF requires a turn, which training does not apply: turn it, or crop faces',
  'no-face': 'no face that can be cropped: none, cut by the border, or too small',
  'sha256': 'the bytes are not those that the manifest names',
  'outside-root': 'a path that leaves the root: absolute, or with ..',
  'shortcut': 'predicts the label, and a model can learn it: balance it, or treat all images alike',
  'line-endings': 'CRLF, or a byte order mark; harmless here, other readers keep them in the label',
  'frozen': 'a sensor repeats an image of another video, while the others do not; record it again',
  'same-bytes': 'all images of a sample are those of another one of its split; one may be enough',
  'near-duplicate': 'an RGB image that looks like one of another split: encoded again, or resized?',
  'no-split': 'rows without a split beside rows that have one',
  'no-last-newline': 'the last line is not ended; another list appended to it is lost',
}
# Rules of severity 'note': no action is needed. A builder records them and continues; lint
# exits with 0. All other rules are of severity 'error'.
WARNINGS = frozenset(
  {
    'black',
    'shortcut',
    'line-endings',
    'near-duplicate',
    'no-last-newline',
    'no-split',
    'same-bytes',
  }
)


def severity(rule: str) -> str:
  """The severity of a rule of `RULES`: 'error' or 'note'."""
  return 'note' if rule in WARNINGS else 'error'


class Finding(NamedTuple):
  """One thing that is wrong, and where."""

  rule: str  # of RULES
  list: str  # the list file, or the folder that was read
  row: int  # line of the file, counted from 1; 0: not a matter of one row
  text: str  # what: paths, ids, values
  id: str = ''  # of the sample that it is about, where that is known

  def __str__(self) -> str:
    where = f'{self.list}:{self.row}' if self.row else self.list
    return f'{where}: {self.rule}: {self.text}'


def write_csv(path: str | pathlib.Path, findings: Iterable[Finding]) -> None:
  """Writes findings as CSV with the columns rule, list, row, text, id."""
  with open(path, 'w', encoding='utf-8', newline='', errors='backslashreplace') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(Finding._fields)
    writer.writerows(findings)
